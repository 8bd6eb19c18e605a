//! Promises: what the engine says, what the world has seen, and how it all ended.

use std::hash::Hash as _;

use taskset_guardian::engine::{DeploymentView, Note};
use taskset_guardian::model::{Gate, Phase, TaskSetId, Timestamp, humane};

use super::{Broken, FEW, LONGEST_BLINDNESS, Simulation};

impl Simulation {
    pub(super) fn heed(&mut self, note: &Note) {
        match note {
            Note::Decided { held: false, evidence, .. } => {
                self.ended.decided = true;
                let green = evidence.first().map(|evidence| evidence.task_set.clone());
                let oldest =
                    evidence.iter().filter(|evidence| evidence.gate == Gate::TaskFailures).map(|e| e.from).min();
                if self.schedule.sound && oldest.is_some() {
                    self.broken("S7", "a sound green is rolled back for failed tasks".to_owned());
                }
                self.promotes = green.is_some() && green == self.primary;
                if green.is_some_and(|green| !self.decided.insert(green)) {
                    self.broken("S5", "a second decision on one task set".to_owned());
                }
                let window = self.schedule.rules.rules[0].stability.window;
                if oldest.is_some_and(|oldest| self.now.since(oldest) > window) {
                    self.broken("S7", format!("decided on evidence of {oldest:?}"));
                }
            }
            Note::Sent { what, .. } => {
                what.hash(&mut self.hasher);
                if what.starts_with("UpdateServicePrimaryTaskSet") && !self.promotes {
                    self.broken("superseded", "green was promoted after the decision, and demoted".to_owned());
                }
                let view = self.engine.service(&self.schedule.key, self.now).and_then(|view| view.deployment);
                let newer = |(view, (at, newest)): &(DeploymentView, (Timestamp, TaskSetId))| {
                    *at > view.began_at && *newest != view.green
                };
                if let Some((view, (_, newest))) = view.zip(self.newest.clone()).filter(newer) {
                    self.broken("superseded", format!("{what}, though {newest} came after {}", view.green));
                }
            }
            _ => {}
        }
        if self.story.is_some()
            && let Some((_, said)) = taskset_guardian::telemetry::narrate(note)
        {
            self.tell("guardian", || said);
        }
    }

    pub(super) fn broken(&mut self, invariant: &str, what: String) {
        self.tell("BROKEN", || format!("{invariant}: {what}"));
        self.ended.broken.push(Broken { invariant: invariant.to_owned(), what, race: false });
    }

    /// What the world found. A change in the world between our read and our call is a race that AWS leaves open.
    pub(super) fn notice_violations(&mut self) {
        let found: Vec<_> = self.world.violations()[self.violations..].to_vec();
        self.violations += found.len();
        for violation in found {
            let revived = violation.invariant == "S3" && self.green_was_dead;
            let disturbed = self.disturbed_at > self.rests_on || self.disturbed_after > self.rests_after;
            let unseen = disturbed || revived;
            let race = unseen && self.now.since(self.rests_on) <= LONGEST_BLINDNESS;
            self.tell("BROKEN", || format!("{violation}{}", if race { " (race)" } else { "" }));
            self.ended.broken.push(Broken { invariant: violation.invariant.to_owned(), what: violation.what, race });
        }
    }

    /// Liveness: some minutes after the faults have stopped.
    pub(super) fn judge_the_end(&mut self) {
        self.listen();
        self.notice_violations();
        let key = self.schedule.key.clone();
        let Some(view) = self.engine.service(&key, self.now) else {
            return self.broken("L2", "the service is not known at the end".to_owned());
        };
        let Some(deployment) = view.deployment else { return };
        if let Some(since) = deployment.open_since
            && deployment.phase != Phase::Escalated
        {
            let open = humane(self.now.since(since));
            self.broken("L1", format!("open for {open}, in {}: {}", deployment.phase, deployment.why));
        }
        if deployment.phase == Phase::Escalated && !self.called.iter().any(|said| said == "Rollback Escalated") {
            self.broken("L5", "escalated, and nobody was called".to_owned());
        }
        let waiting = self.waiting();
        if waiting > FEW {
            self.broken("L3", format!("{waiting} messages are left in the queue"));
        }
        let judged = matches!(deployment.phase, Phase::Watching);
        if self.schedule.bad && judged && deployment.green_failures >= 6 {
            self.broken(
                "L2",
                format!("{} failures, and nothing is decided: {}", deployment.green_failures, deployment.why),
            );
        }
    }
}
