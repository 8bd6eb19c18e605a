//! Promises: what the engine says, what the world has seen, and how it all ended.

use std::hash::Hash as _;

use taskset_guardian::engine::{DeploymentView, Note};
use taskset_guardian::model::{Gate, Phase, TaskSetId, Timestamp, humane};

use super::{Broken, FEW, LONGEST_BLINDNESS, Simulation};

/// Whether what happened in the world can have made a call wrong that was right when it was decided. What only gives blue
/// more, or takes from green alone, can't.
pub(super) fn is_disturbance(what: &str) -> bool {
    let helps = [" runs", " is steady", " is back"].iter().any(|end| what.ends_with(end));
    let greens_loss = what.starts_with("green task ");
    let follows = what.starts_with("the load balancer now sends") || what.ends_with(" is gone");
    !(helps || greens_loss || follows)
}

/// What one step said. It counts once it is durable.
#[derive(Debug)]
pub(super) struct Heard {
    notes: Vec<Note>,
    /// Promises that it breaks by itself.
    broken: Vec<(&'static str, String)>,
    /// A rollback of this one was decided; whether it was PRIMARY then.
    decided: Option<(TaskSetId, bool)>,
}

impl Simulation {
    /// What a step said, looked at before the next one. `at` is the time that the step was given.
    pub(super) fn hear(&mut self, who: usize, at: Timestamp, notes: Vec<Note>) -> Heard {
        let mut heard = Heard { notes: Vec::new(), broken: Vec::new(), decided: None };
        let worker = &self.workers[who];
        for note in &notes {
            match note {
                Note::Decided { held: false, evidence, .. } => {
                    let green = evidence.first().map(|evidence| evidence.task_set.clone());
                    let failed = evidence.iter().filter(|evidence| evidence.gate == Gate::TaskFailures);
                    let oldest = failed.map(|evidence| evidence.from).min();
                    if self.schedule.sound && oldest.is_some() {
                        heard.broken.push(("S7", "a sound green is rolled back for failed tasks".to_owned()));
                    }
                    // By a clock that is behind, all looks younger by as much.
                    let behind = self.now.since(at);
                    let window = self.schedule.rules.rules[0].stability.window;
                    if oldest.is_some_and(|oldest| self.now.since(oldest) > window + behind) {
                        heard.broken.push(("S7", format!("decided on evidence of {oldest:?}")));
                    }
                    heard.decided = green.map(|green| (green.clone(), Some(green) == worker.seen.primary));
                }
                Note::Sent { what, .. } => {
                    let view = worker.engine.service(&self.schedule.key, at).and_then(|view| view.deployment);
                    let newer = |(view, (at, newest)): &(DeploymentView, (Timestamp, TaskSetId))| {
                        *at > view.began_at && *newest != view.green
                    };
                    if let Some((view, (_, newest))) = view.zip(worker.seen.newest.clone()).filter(newer) {
                        let what = format!("{what}, though {newest} came after {}", view.green);
                        heard.broken.push(("superseded", what));
                    }
                }
                _ => {}
            }
        }
        heard.notes = notes;
        heard
    }

    /// It is durable.
    pub(super) fn heed(&mut self, who: usize, heard: Heard) {
        for (invariant, what) in heard.broken {
            self.broken(invariant, what);
        }
        if let Some((green, was_primary)) = heard.decided {
            self.ended.decided = true;
            self.judged.promotes = was_primary;
            if !self.judged.decided.insert(green) {
                self.broken("S5", "a second decision on one task set".to_owned());
            }
        }
        for note in &heard.notes {
            if let Note::Sent { what, .. } = note {
                what.hash(&mut self.hasher);
                if what.starts_with("UpdateServicePrimaryTaskSet") && !self.judged.promotes {
                    self.broken("superseded", "green was promoted after the decision, and demoted".to_owned());
                }
            }
            if self.story.is_some()
                && let Some((_, said)) = taskset_guardian::telemetry::narrate(note)
            {
                self.tell_of(who, "guardian", || said);
            }
        }
    }

    pub(super) fn broken(&mut self, invariant: &str, what: String) {
        self.broken_or_race(invariant, what, false);
    }

    pub(super) fn broken_or_race(&mut self, invariant: &str, what: String, race: bool) {
        self.tell("BROKEN", || format!("{invariant}: {what}{}", if race { " (race)" } else { "" }));
        self.ended.broken.push(Broken { invariant: invariant.to_owned(), what, race });
    }

    /// What the world found. A change in the world between our read and our call is a race that AWS leaves open.
    pub(super) fn notice_violations(&mut self) {
        let found: Vec<_> = self.world.violations()[self.judged.violations..].to_vec();
        self.judged.violations += found.len();
        for violation in found {
            let judged = &self.judged;
            let revived = violation.invariant == "S3" && judged.green_was_dead;
            let disturbed = judged.disturbed_at > judged.rests_on || judged.disturbed_after > judged.rests_after;
            let unseen = disturbed || revived;
            let race = unseen && self.now.since(judged.rests_on) <= LONGEST_BLINDNESS;
            if violation.invariant == "S10" && judged.amnesia {
                // Nobody can remember what is lost.
                self.broken_or_race("S10 with the journal lost", violation.what, true);
                continue;
            }
            self.broken_or_race(violation.invariant, violation.what, race);
        }
    }

    /// Liveness: some minutes after the faults have stopped.
    pub(super) fn judge_the_end(&mut self) {
        self.listen();
        self.notice_violations();
        let waiting = self.waiting();
        if waiting > FEW {
            self.broken("L3", format!("{waiting} messages are left in the queue"));
        }
        let Some(who) = self.leader() else {
            return self.broken("L4", "nobody acts at the end".to_owned());
        };
        let key = self.schedule.key.clone();
        let Some(view) = self.workers[who].engine.service(&key, self.now) else {
            return self.broken("L2", "the service is not known at the end".to_owned());
        };
        let Some(deployment) = view.deployment else { return };
        if let Some(since) = deployment.open_since
            && deployment.phase != Phase::Escalated
        {
            let open = humane(self.now.since(since));
            self.broken("L1", format!("open for {open}, in {}: {}", deployment.phase, deployment.why));
        }
        if deployment.phase == Phase::Escalated && !self.judged.called {
            self.broken("L5", "escalated, and nobody was called".to_owned());
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
