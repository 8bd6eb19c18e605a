//! The guardian: the engine that runs in production, fed with a life's events and reads at their times.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::engine::{Effect, Engine, Input, Note, Settings, Step};
use taskset_guardian::model::{Evidence, Outcome};
use taskset_guardian::rules::{RuleFile, RuleSet, compile};

use super::life::{BEFORE, HORIZON, Life, Ms};
use super::random::between;
use super::reading::{Recorded, key, moment, timestamp};

/// The rule of the benchmark: the defaults, and the two gates on traffic that have none.
pub const RULE: &str = r#"name = "web"

[[protect]]
cluster = "prod"
service = "checkout"

[errors]
http_5xx_ratio = 0.05
latency_p99 = "800ms"
"#;

/// As `run` sets it when nobody says otherwise.
const SWEEP: Duration = Duration::from_secs(30);

/// What the guardian made of a life.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// When it decided to roll back, and on what.
    pub decided: Option<(Ms, Vec<Evidence>)>,
    /// What it said on the way, with the time; only when it was asked to.
    pub notes: Vec<(Ms, Note)>,
}

/// The rules, compiled.
///
/// # Panics
/// When the rule is not one.
pub fn rules(text: &str) -> RuleSet {
    let file = RuleFile::new("web.toml", text);
    match compile(&[file]) {
        Ok(rules) => rules,
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

/// What the guardian makes of a life. It is driven until it decides: nothing it would do then changes the record.
pub fn judge(life: &Life, rules: &RuleSet, tell: bool) -> Verdict {
    let mut rng = Rng::with_seed(life.seed ^ 0x006a_7564_6765);
    let recorded = Recorded::new(life);
    let mut signals: VecDeque<_> = recorded.signals(&mut rng).into();
    let mut engine = Engine::new(Settings { dry_run: false, sweep: SWEEP, fleet_brake: 3 });
    let mut verdict = Verdict { decided: None, notes: Vec::new() };
    let mut answers: BTreeMap<(Ms, u64), Input> = BTreeMap::new();
    answers.insert((-BEFORE, 0), Input::Rules(rules.clone()));
    answers.insert((-BEFORE, 1), Input::Swept([key()].into()));
    let mut number = 2;
    loop {
        let answer = answers.first_key_value().map(|((at, _), _)| *at);
        let signal = signals.front().map(|(at, _)| *at);
        let tick = engine.next_deadline().map(|at| moment(at).max(-BEFORE));
        let Some(now) = [answer, signal, tick].into_iter().flatten().min().filter(|now| *now < HORIZON) else {
            return verdict;
        };
        let input = if answer == Some(now) {
            answers.pop_first().map(|(_, input)| input)
        } else if signal == Some(now) {
            signals.pop_front().map(|(_, signal)| Input::Signal(signal))
        } else {
            Some(Input::Tick)
        };
        let Some(input) = input else { return verdict };
        let Step { effects, report, .. } = engine.step(timestamp(now), &input);
        for note in report.notes {
            if let Note::Decided { held: false, evidence, .. } = &note {
                verdict.decided = Some((now, evidence.clone()));
            }
            if tell {
                verdict.notes.push((now, note));
            }
        }
        if verdict.decided.is_some() {
            return verdict;
        }
        for effect in effects {
            let input = match effect {
                Effect::Observe(ask) => Input::Observed(key(), Ok(Box::new(recorded.observe(now, &ask)))),
                Effect::Announce(id, _) => Input::Done(id, Outcome::Applied),
                // Nothing is written before a decision, and records are not answered.
                Effect::Write { .. } | Effect::Keep(_) => continue,
            };
            // A round of reads takes its time, and shows what was when it was sent.
            #[expect(clippy::cast_possible_truncation, reason = "below a second")]
            let takes = between(&mut rng, 120.0, 450.0) as Ms;
            answers.insert((now + takes, number), input);
            number += 1;
        }
    }
}
