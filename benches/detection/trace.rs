//! One life, line by line, with what every rule made of it.

use taskset_guardian::engine::Note;
use taskset_guardian::model::Role;
use taskset_guardian::rules::RuleSet;

use crate::detection::class::Class;
use crate::detection::guardian;
use crate::detection::life::{Bucket, HORIZON, Life, MINUTE, Ms};
use crate::detection::peers::peers;

/// Tells the lives of a seed.
pub fn tell(classes: &[Class], sizes: &[u32], seed: u64, rules: &RuleSet) {
    for class in classes {
        for size in sizes {
            one(&class.life(*size, seed), rules);
        }
    }
}

fn one(life: &Life, rules: &RuleSet) {
    let bad = if life.class.is_bad() { "bad" } else { "good" };
    println!("{} of {} tasks, seed {}: a {bad} green", life.class, life.size, life.seed);
    let mut lines: Vec<(Ms, String)> = Vec::new();
    lines.extend(life.onset.map(|at| (at, "it begins to hurt".to_owned())));
    lines.extend(life.desired.iter().skip(1).map(|(at, desired)| (*at, format!("desired count {desired}"))));
    lines.extend(life.weights.iter().map(|(at, weight)| (*at, format!("green is sent {weight} % of the users"))));
    lines.extend(life.red.map(|at| (at, "an alarm on green's target group turns red".to_owned())));
    for (number, task) in life.tasks.iter().enumerate() {
        let who = format!("{} task {number}", task.role.as_str());
        lines.extend(task.running.map(|at| (at, format!("{who} runs"))));
        lines.extend(task.healthy.map(|at| (at, format!("{who} is healthy"))));
        lines.extend(task.unhealthy.map(|at| (at, format!("{who} is unhealthy"))));
        lines
            .extend(task.end.map(|end| (end.at, format!("{who} stops: {}: {}", end.cause.code(), end.cause.reason()))));
    }
    for minute in 0..HORIZON / MINUTE {
        let sum = Bucket::sum(life.traffic(Role::Green, minute * MINUTE, (minute + 1) * MINUTE));
        if sum.failed() > 0 {
            let Bucket { requests, http_5xx, unreachable, refused, p99 } = sum;
            let what = format!(
                "green: {requests} requests, {http_5xx} of them 5xx, {unreachable} unreachable, {refused} refused, p99 {p99:.0} ms"
            );
            lines.push(((minute + 1) * MINUTE, what));
        }
    }
    let verdict = guardian::judge(life, rules, true);
    for (at, note) in verdict.notes {
        match note {
            Note::Judged { news: true, verdict, findings, .. } => {
                lines.push((at, format!("guardian: {verdict:?}")));
                lines.extend(
                    findings
                        .iter()
                        .map(|finding| (at, format!("    {} {:?}: {}", finding.gate, finding.state, finding.why))),
                );
            }
            Note::Decided { held, evidence, .. } => {
                let what = if held { "holds" } else { "rolls back" };
                let gates: Vec<_> = evidence.iter().map(|evidence| evidence.gate.to_string()).collect();
                lines.push((at, format!("guardian {what}: {}", gates.join(", "))));
            }
            _ => {}
        }
    }
    for peer in peers() {
        let decided = peer.decides(life);
        lines.push((
            decided.unwrap_or(HORIZON),
            format!("{}: {}", peer.name(), if decided.is_some() { "rolls back" } else { "found nothing" }),
        ));
    }
    lines.sort_by_key(|(at, _)| *at);
    for (at, what) in lines.into_iter().filter(|(at, _)| *at >= -30 * MINUTE) {
        #[expect(clippy::cast_precision_loss, reason = "a life is short")]
        let seconds = at as f64 / 1_000.0;
        println!("{seconds:>9.1} s  {what}");
    }
    println!();
}
