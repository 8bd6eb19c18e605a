//! Promises: what the worker did, what the world has seen, and how it all ended.

use std::collections::BTreeSet;
use std::time::Duration;

use taskset_guardian::engine::{DeploymentView, ServiceView};
use taskset_guardian::model::{Phase, TaskSetId, Timestamp, humane};
use taskset_guardian::runtime::Part;
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};

use crate::line::QUEUE;
use crate::schedule::Schedule;
use crate::stage::{Stage, State};

/// Between the beginning of a read and the end of the call that rests on it: life of a read, life of a write, and the
/// call's own time. What changed in the world earlier must have been seen.
const LONGEST_BLINDNESS: Duration = Duration::from_secs(16 + 5 + 5);

/// L1: an open rollback is done or escalated this long after its decision, and after the faults have stopped; its drain
/// aside.
pub(crate) const FINISH: Duration = Duration::from_mins(5);

/// Messages that may be in the queue at any time: ECS goes on talking.
const FEW: u32 = 20;

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: String,
    pub(crate) what: String,
    /// The world changed between our read and our call, or the call arrived after its sender had given it up. Nothing at
    /// AWS can prevent either.
    pub(crate) race: bool,
}

/// How a schedule ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) broken: Vec<Broken>,
    pub(crate) trace: u64,
    pub(crate) decided: bool,
    pub(crate) escalated: bool,
    pub(crate) completed: bool,
    pub(crate) writes: u64,
    pub(crate) calls: u64,
    pub(crate) crashes: u64,
    /// Times that a worker took the lease over from another.
    pub(crate) takeovers: u64,
    /// Processes that were told to end, and did.
    pub(crate) shutdowns: u64,
}

/// An observation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// When it was begun, or what it shows was so.
    pub(crate) at: Timestamp,
    /// After which happening, for what happens within one millisecond.
    pub(crate) after: u64,
    /// Nothing healthy of green's: that blue need not be whole rests on it, and a target that passes its checks a moment
    /// later is no news that the world tells.
    pub(crate) green_was_dead: bool,
}

/// What the judge remembers.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(crate) struct Judged {
    /// When the world last changed in a way that a check may not have seen, and after which happening.
    pub(crate) disturbed_at: Timestamp,
    pub(crate) disturbed_after: u64,
    /// There is a third task set, or was: who is called green may be blue to it.
    pub(crate) has_third: bool,
    pub(crate) happened: u64,
    /// What the write rests on that is applied just now.
    pub(crate) rests_on: Seen,
    /// Task sets on which a rollback was decided.
    pub(crate) decided: BTreeSet<TaskSetId>,
    /// The newest one of the lease, and whose it is.
    pub(crate) epoch: u64,
    pub(crate) holder: usize,
    /// When the clock that the drain goes by became another worker's.
    pub(crate) other_clock_at: Timestamp,
    /// When a write was applied that its sender had given up.
    pub(crate) late_write_at: Timestamp,
    /// The journal was lost, and with it how often a rule was asserted.
    pub(crate) amnesia: bool,
    /// A call to a rule was overtaken by a change, or its answer was lost: that somebody set a rule back may have been
    /// overwritten unseen, or read as if that call had never arrived. The simulation looks closer.
    pub(crate) unseen_dispute: bool,
    /// An escalation was announced.
    pub(crate) called: bool,
    /// Of those that the world has found.
    violations: usize,
}

impl State {
    pub(crate) fn broken(&mut self, invariant: &str, what: String, race: bool) {
        self.tell("BROKEN", || format!("{invariant}: {what}{}", if race { " (race)" } else { "" }));
        self.trace((invariant, &what));
        self.ended.broken.push(Broken { invariant: invariant.to_owned(), what, race });
    }

    /// What the world found. A change in the world between our read and our call is a race that AWS leaves open.
    pub(crate) fn notice_violations(&mut self) {
        let found: Vec<_> = self.world.violations()[self.judged.violations..].to_vec();
        self.judged.violations += found.len();
        for violation in found {
            let (judged, rests_on) = (&self.judged, &self.judged.rests_on);
            let revived = violation.invariant == "S3" && rests_on.green_was_dead;
            let disturbed = judged.disturbed_at > rests_on.at || judged.disturbed_after > rests_on.after;
            let in_time = self.now.since(rests_on.at) <= LONGEST_BLINDNESS;
            if matches!(violation.invariant, "S10" | "S11") && judged.amnesia {
                // Nobody can remember what is lost.
                let promise = format!("{} with the journal lost", violation.invariant);
                self.broken(&promise, violation.what, true);
                continue;
            }
            if violation.invariant == "S13" && self.now.since(judged.other_clock_at) <= self.drain {
                // By that clock it was as long as it should be.
                self.broken("S13 by another clock", violation.what, true);
                continue;
            }
            if violation.invariant == "S13" && self.now.since(judged.late_write_at) <= self.drain {
                // That call was the last shift, and nobody knows.
                self.broken("S13 after a late call", violation.what, true);
                continue;
            }
            let unseen = violation.invariant == "S10" && judged.unseen_dispute;
            self.broken(violation.invariant, violation.what, unseen || ((disturbed || revived) && in_time));
        }
    }

    /// Messages in the queue.
    fn waiting(&mut self) -> u32 {
        match self.world.call(Call::GetQueueAttributes { queue_url: QUEUE.to_owned() }) {
            Ok(Reply::Attributes(all)) => {
                all.get("ApproximateNumberOfMessages").and_then(|n| n.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

impl Stage {
    /// Handles of those that act.
    fn leaders(&self) -> Vec<taskset_guardian::runtime::Handle> {
        let lives: Vec<_> = self.enter().lives.iter().flatten().cloned().collect();
        let living = lives.iter().filter(|life| !life.is_dead());
        let handles = living.filter_map(|life| life.facts().handle.clone());
        handles.filter(|handle| handle.health().is_ready(Part::Leader)).collect()
    }

    /// Nothing is open, and nothing is wrong.
    pub(crate) async fn is_over(&self) -> bool {
        let leaders = self.leaders();
        let [leader] = leaders.as_slice() else { return false };
        let Some(status) = leader.status().await else { return false };
        let closed = |it: &DeploymentView| it.open_since.is_none() && !self.is_undecided(it);
        let closed = |view: &ServiceView| view.deployment.as_ref().is_none_or(closed);
        let all = self.schedule.keys().all(|key| status.state.services.iter().any(|view| view.service == *key));
        // Who waits for the answer to a call of before is not ready yet, and may stand meanwhile.
        status.worker.ready
            && leader.stuck_for().is_none()
            && all
            && status.state.services.iter().all(closed)
            && self.enter().waiting() <= FEW
    }

    /// Liveness: some minutes after the faults have stopped.
    pub(crate) async fn judge_the_end(&self) {
        self.enter().notice_violations();
        let waiting = self.enter().waiting();
        if waiting > FEW {
            self.broken("L3", format!("{waiting} messages are left in the queue"));
        }
        let leaders = self.leaders();
        let [leader] = leaders.as_slice() else {
            return self.broken("L4", format!("{} workers act at the end", leaders.len()));
        };
        if let Some(stuck) = leader.stuck_for() {
            self.broken("stuck", format!("the loop has not turned for {}", humane(stuck)));
        }
        let Some(status) = leader.status().await else {
            return self.broken("stuck", "the loop does not answer".to_owned());
        };
        if !status.worker.ready {
            self.broken("ready", status.worker.not_ready.join("; "));
        }
        for key in self.schedule.keys() {
            match status.state.services.iter().find(|view| view.service == *key) {
                Some(view) => self.judge_service(view),
                None if self.may_be_let_go() => {}
                None => self.broken("L2", format!("{key} is not known at the end")),
            }
        }
    }

    /// Whether it may be that no rule protects the services any more: as their glob went, or their tag.
    fn may_be_let_go(&self) -> bool {
        let Schedule { rules, reloads, .. } = &self.schedule;
        let mut all = std::iter::once(rules).chain(reloads.iter().map(|(_, rules)| rules));
        all.any(|rules| rules.rules.iter().all(|rule| rule.protect.is_empty()))
    }

    fn judge_service(&self, view: &ServiceView) {
        let Some(deployment) = &view.deployment else { return };
        let DeploymentView { phase, why, .. } = deployment;
        if let Some(since) = deployment.open_since
            && *phase != Phase::Escalated
        {
            let open = self.now().since(since);
            if open > FINISH + self.schedule.setup.drain {
                self.broken("L1", format!("open for {}, in {phase}: {why}", humane(open)));
            }
        }
        if *phase == Phase::Escalated && !self.was_called() {
            self.broken("L5", "escalated, and nobody was called".to_owned());
        }
        if self.is_undecided(deployment) {
            let failures = deployment.green_failures;
            self.broken("L2", format!("{failures} failures, and nothing is decided: {why}"));
        }
    }

    /// Green has failed often enough, and its rollback is still to be decided.
    fn is_undecided(&self, deployment: &DeploymentView) -> bool {
        // A blue that fails as well may keep green from being blamed.
        let bad = self.schedule.bad && !self.schedule.may_be_left && self.schedule.setup.versions.len() == 1;
        bad && deployment.phase == Phase::Watching && deployment.green_failures >= 6
    }

    fn was_called(&self) -> bool {
        let state = self.enter();
        state.judged.called || state.judged.amnesia
    }
}
