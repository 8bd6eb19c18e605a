//! Drives the engine through a recording: its clock are the events, its reads are answered by the world so far.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::ledger::{Ledger, Line};
use super::world::World;
use crate::engine::{self, Effect, Engine, Input, Settings};
use crate::model::{Ask, CallTarget, Fact, Outcome, ServiceKey, Timestamp};
use crate::rules::{ErrorGates, Rule, RuleSet};

/// How long the world goes on after the last event of a service, beside the time that a breach may wait for blue: what it
/// has begun is judged.
const SETTLE: Duration = Duration::from_mins(1);

/// No deployment is watched for longer without a word about it.
const LONGEST: Duration = Duration::from_hours(24);

/// One rule set on one recording.
#[derive(Debug)]
pub struct Replay {
    engine: Engine,
    settle: Duration,
    ledger: Ledger,
    now: Timestamp,
    /// Reads that are not answered: nothing happens there, and to look again and again would only take time.
    withheld: BTreeMap<ServiceKey, Ask>,
    spoke_at: BTreeMap<ServiceKey, Timestamp>,
}

impl Replay {
    /// Before the first event. `sweep` and `fleet_brake` are the worker's.
    pub fn new(
        rules: &RuleSet,
        services: &BTreeSet<ServiceKey>,
        (sweep, fleet_brake): (Duration, usize),
        world: &World<'_>,
        now: Timestamp,
    ) -> Self {
        let settings = Settings { dry_run: true, sweep, fleet_brake };
        let mut replay = Self {
            engine: Engine::new(settings),
            settle: SETTLE + rules.rules.iter().map(|rule| engine::waits_for_blue(rule)).max().unwrap_or_default(),
            ledger: Ledger::default(),
            now,
            withheld: BTreeMap::new(),
            spoke_at: BTreeMap::new(),
        };
        let rules = RuleSet { rules: rules.rules.iter().map(|rule| Arc::new(replayable(rule))).collect() };
        replay.feed(Input::Rules(rules), world);
        replay.feed(Input::Swept(services.clone()), world);
        replay
    }

    /// What falls due before this moment. The world has not heard of what happens then.
    pub fn advance(&mut self, to: Timestamp, world: &World<'_>) {
        while let Some(at) = self.engine.next_deadline().filter(|at| *at < to) {
            let before = self.now;
            self.now = self.now.max(at);
            self.feed(Input::Tick, world);
            // It would wait for a moment that has passed: time goes on with the next event.
            if self.now == before && self.engine.next_deadline() == Some(at) {
                break;
            }
        }
        self.now = self.now.max(to);
    }

    /// An event, which the world has taken already.
    pub fn take(&mut self, event: &Event, world: &World<'_>) {
        let service = match &event.signal.fact {
            Fact::Task(change) => Some(&change.service),
            Fact::Service(action) => Some(&action.service),
            Fact::Call(call) => match &call.target {
                CallTarget::TaskSet { service, .. } => Some(service),
                CallTarget::Rule { .. } => None,
            },
            Fact::Alarm(_) | Fact::AlarmDeleted(_) => None,
        };
        if let Some(service) = service {
            self.spoke_at.insert(service.clone(), self.now);
            if let Some(ask) = self.withheld.remove(service) {
                let answer = world.observe(self.now, &ask);
                self.feed(Input::Observed(service.clone(), Ok(Box::new(answer))), world);
            }
        }
        self.feed(Input::Signal(event.signal.clone()), world);
    }

    /// After the last event.
    pub fn finish(mut self, world: &World<'_>) -> Vec<Line> {
        self.advance(self.now.plus(self.settle), world);
        self.ledger.lines()
    }

    /// One input, and all that follows from it at once.
    fn feed(&mut self, input: Input, world: &World<'_>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let step = self.engine.step(self.now, &input);
            let began = |key: &ServiceKey| {
                let view = self.engine.service(key, self.now)?;
                view.deployment.map(|deployment| deployment.began_at)
            };
            self.ledger.take(self.now, &step.report, began);
            for effect in step.effects {
                match effect {
                    Effect::Observe(ask) if self.is_idle(&ask.service, world) => {
                        self.withheld.insert(ask.service.clone(), ask);
                    }
                    Effect::Observe(ask) => {
                        let answer = world.observe(self.now, &ask);
                        inputs.push_back(Input::Observed(ask.service, Ok(Box::new(answer))));
                    }
                    Effect::Announce(id, _) => inputs.push_back(Input::Done(id, Outcome::Applied)),
                    // Dry, it sends none; and what it keeps is in the ledger.
                    Effect::Write { .. } | Effect::Keep(_) => {}
                }
            }
        }
    }

    fn is_idle(&self, key: &ServiceKey, world: &World<'_>) -> bool {
        let silent = self.spoke_at.get(key).is_none_or(|at| self.now.since(*at) > LONGEST);
        silent || self.ledger.is_decided(key) || !world.is_deploying(key, self.now, self.settle)
    }
}

/// A rule without the gates that rest on reads which no event stands for.
fn replayable(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    rule.stability.unhealthy_targets = None;
    rule.errors = ErrorGates { http_5xx_ratio: None, latency_p99: None, ..rule.errors };
    rule
}
