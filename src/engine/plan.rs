//! The rollback plan: from one fresh observation, the first goal that is not met and what to do about it.
//!
//! Level-triggered: nothing here remembers what was sent. A crash, a lost answer or another person's hand changes the
//! next observation, and with it the next step; there is no other recovery.

use std::collections::BTreeMap;
use std::time::Duration;

use super::partition::{Deployment, Rollback};
use super::traffic::{self, NotUnderstood};
use crate::model::{
    Controller, Observation, ServiceKey, ServiceStatus, Step, TargetGroupArn, TaskSet, TaskSetStatus, Timestamp,
    TrafficRuleId, Write, humane,
};
use crate::rules::{DeletePolicy, Rule};

/// A decision is carried out on reads no older than this; else it is read again. A round of reads is given up after as
/// long, so that a slow one still counts; a pause of the process does not fit in.
const OBSERVATION_LIFE: Duration = Duration::from_secs(16);

/// How long an accepted rule may read as before: ECS and ELB answer reads from replicas that lag by seconds.
const SETTLE: Duration = Duration::from_secs(5);

/// How long blue may lack capacity before a person is called: one task's replacement takes about this long.
const BLUE_PATIENCE: Duration = Duration::from_mins(1);

/// How long ECS may drain green. Deregistration takes 300 s by default, with traffic long safe: no reason to page.
const DRAINING_PATIENCE: Duration = Duration::from_mins(2);

/// Pace of reads while something is awaited.
const POLL: Duration = Duration::from_secs(1);

/// Pace of reads while time itself is awaited.
const SLOW_POLL: Duration = Duration::from_secs(10);

/// How often a write of one rule may be accepted: the shift, and one re-assert against a foreign writer.
const ASSERTS: u32 = 2;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Send these, now.
    Write(Step, Vec<Write>),
    /// Read again at this time.
    Wait(Step, Timestamp, String),
    /// Read again now, the task sets twice.
    LookTwice,
    /// A person is needed. `frozen`: and nothing may be written any more.
    Escalate {
        /// The step that can't be done.
        step: Step,
        /// In plain words.
        why: String,
        /// Trying on would fight a foreign writer.
        frozen: bool,
    },
    /// Nothing more to do.
    Done(String),
}

/// What an observation proves, for the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proven {
    /// No rule sends anything to green.
    pub(super) traffic_safe: bool,
    /// Blue is too small to carry the load.
    pub(super) blue_short: bool,
    /// Green is gone or on its way out.
    pub(super) green_leaving: bool,
}

/// The deployment's task sets, as the observation shows them.
struct Sets<'a> {
    green: Option<&'a TaskSet>,
    blue: Option<&'a TaskSet>,
}

fn sets<'a>(deployment: &Deployment, seen: &'a [TaskSet]) -> Sets<'a> {
    Sets {
        green: seen.iter().find(|set| set.id == deployment.green),
        blue: seen.iter().find(|set| set.id == deployment.blue && set.is_living()),
    }
}

/// What the observation proves.
pub(super) fn proven(deployment: &Deployment, seen: &Observation) -> Proven {
    let Sets { green, blue } = sets(deployment, &seen.service.task_sets);
    let shift = traffic::shift(&seen.traffic, deployment.blue_group.as_ref(), deployment.green_group.as_ref());
    Proven {
        traffic_safe: shift.is_ok_and(|shift| shift.writes.is_empty()),
        blue_short: blue.is_none_or(|blue| shortage(blue, seen).is_some()),
        green_leaving: green.is_none_or(|green| !green.is_living()),
    }
}

/// Why the service could not be rolled back as it is: shapes only, no capacity.
pub(super) fn obstacle(deployment: &Deployment, seen: &Observation) -> Option<String> {
    if seen.service.controller != Controller::External {
        return Some(format!("its deployment controller is {}, not EXTERNAL", seen.service.controller));
    }
    if seen.service.status != ServiceStatus::Active {
        return Some("the service is being deleted".to_owned());
    }
    let Sets { green, blue } = sets(deployment, &seen.service.task_sets);
    let Some(blue) = blue else {
        return Some(format!("blue ({}) does not live any more: there is nothing to go back to", deployment.blue));
    };
    if green.is_some_and(|green| green.status == TaskSetStatus::Primary) {
        return Some("green is PRIMARY already, and promoting blue again is not supported yet".to_owned());
    }
    if blue.status != TaskSetStatus::Primary {
        return Some(format!("blue ({}) is not PRIMARY, and promoting it is not supported yet", deployment.blue));
    }
    traffic::shift(&seen.traffic, deployment.blue_group.as_ref(), deployment.green_group.as_ref())
        .err()
        .map(|NotUnderstood(why)| why)
}

/// The first goal that is not met.
pub(super) fn next(
    now: Timestamp,
    service: &ServiceKey,
    rule: &Rule,
    deployment: &Deployment,
    rollback: &Rollback,
    seen: &Observation,
) -> Next {
    let step = rollback.step();
    if now.since(seen.read_at) > OBSERVATION_LIFE {
        return Next::Wait(step, now, "the last read is too old to act on".to_owned());
    }
    let Sets { green, blue } = sets(deployment, &seen.service.task_sets);
    if let Some(why) = obstacle(deployment, seen) {
        return Next::Escalate { step, why, frozen: false };
    }
    let (Some(blue), Ok(shift)) =
        (blue, traffic::shift(&seen.traffic, deployment.blue_group.as_ref(), deployment.green_group.as_ref()))
    else {
        // `obstacle` has named both already.
        return Next::Escalate { step, why: "the service changed its shape".to_owned(), frozen: false };
    };
    if let Some(at) = rollback.retry_at.filter(|at| *at > now) {
        return Next::Wait(step, at, "waiting before the next try".to_owned());
    }

    if !shift.writes.is_empty() {
        return shift_traffic(now, rollback, blue, seen, shift.writes);
    }
    let Some(green) = green.filter(|green| green.is_living()) else {
        return verify_gone(now, rollback, green);
    };
    if rollback.deleted_at.is_some_and(|at| now.since(at) < SETTLE) {
        return Next::Wait(Step::VerifyGone, now.plus(POLL), "waiting for ECS to take green away".to_owned());
    }
    if rule.rollback.delete == DeletePolicy::Keep {
        return Next::Done("traffic is on blue; green is kept, as the rule says".to_owned());
    }
    let drained_at = rollback.safe_since.unwrap_or(now).plus(rule.rollback.drain);
    if green.running > 0 && drained_at > now {
        let left = humane(drained_at.since(now));
        let at = drained_at.min(now.plus(SLOW_POLL));
        return Next::Wait(Step::Drain, at, format!("letting requests in flight end, {left} left"));
    }
    delete_green(now, service, deployment, green, blue, seen)
}

fn shift_traffic(now: Timestamp, rollback: &Rollback, blue: &TaskSet, seen: &Observation, writes: Vec<Write>) -> Next {
    let accepted = |rule: &TrafficRuleId| rollback.accepted.get(rule).copied().unwrap_or(0);
    let wanted = traffic::addressed(&writes);
    let again = wanted.iter().any(|rule| accepted(rule) > 0);
    if again && rollback.safe_since.is_none() && rollback.accepted_at.is_some_and(|at| now.since(at) < SETTLE) {
        return Next::Wait(Step::VerifyTraffic, now.plus(POLL), "waiting for all rules to read as written".to_owned());
    }
    if let Some(rule) = wanted.iter().find(|rule| accepted(rule) >= ASSERTS) {
        let why =
            format!("somebody else keeps writing {rule}: it was set to blue twice and sends traffic to green again");
        return Next::Escalate { step: Step::VerifyTraffic, why, frozen: true };
    }
    if let Some(why) = shortage(blue, seen) {
        let since = rollback.blue_short_since.unwrap_or(now);
        return if now.since(since) < BLUE_PATIENCE {
            Next::Wait(Step::ShiftTraffic, now.plus(POLL), format!("waiting for blue: {why}"))
        } else {
            let why = format!("blue can't carry the load ({why}), and scaling it back is not supported yet");
            Next::Escalate { step: Step::ShiftTraffic, why, frozen: false }
        };
    }
    Next::Write(Step::ShiftTraffic, writes)
}

/// Two answers of two different calls must agree; AWS itself does not stop a forced delete of a PRIMARY.
fn delete_green(
    now: Timestamp,
    service: &ServiceKey,
    deployment: &Deployment,
    green: &TaskSet,
    blue: &TaskSet,
    seen: &Observation,
) -> Next {
    let Some(again) = &seen.task_sets_again else {
        return Next::LookTwice;
    };
    let second = sets(deployment, again);
    let deletable = |set: &TaskSet| set.status == TaskSetStatus::Active && set.arn == deployment.green_arn;
    let agreed = deletable(green)
        && second.green.is_some_and(deletable)
        && second.blue.is_some_and(|blue| blue.status == TaskSetStatus::Primary);
    if !agreed {
        let why = "DescribeServices and DescribeTaskSets do not agree yet that green may be deleted".to_owned();
        return Next::Wait(Step::DeleteGreen, now.plus(POLL), why);
    }
    if blue.running == 0 || healthy(deployment.blue_group.as_ref(), seen) == Some(0) {
        return Next::Escalate {
            step: Step::DeleteGreen,
            why: "blue has nothing healthy left: green is kept as the last resort".to_owned(),
            frozen: false,
        };
    }
    let write = Write::DeleteTaskSet { service: service.clone(), task_set: deployment.green_arn.clone() };
    Next::Write(Step::DeleteGreen, vec![write])
}

fn verify_gone(now: Timestamp, rollback: &Rollback, green: Option<&TaskSet>) -> Next {
    let by = if rollback.deleted_at.is_some() { "" } else { " (deleted by somebody else)" };
    let Some(green) = green else {
        return Next::Done(format!("traffic is on blue, green is gone{by}"));
    };
    let left = green.running + green.pending;
    if left == 0 {
        return Next::Done(format!("traffic is on blue, green's last task has ended{by}"));
    }
    if rollback.draining_since.is_some_and(|since| now.since(since) >= DRAINING_PATIENCE) {
        return Next::Done(format!("traffic is on blue, green is deleted{by}; ECS still drains {left} of its tasks"));
    }
    Next::Wait(Step::VerifyGone, now.plus(POLL), format!("ECS is stopping green's tasks, {left} left"))
}

/// Why blue can't carry the whole load.
fn shortage(blue: &TaskSet, seen: &Observation) -> Option<String> {
    let needed = seen.service.desired_count;
    if blue.running < needed {
        return Some(format!("{} of {needed} tasks run", blue.running));
    }
    (healthy(blue.target_group.as_ref(), seen) == Some(0)).then(|| "none of its targets is healthy".to_owned())
}

/// Healthy targets; `None` without a load balancer. A group that was not read counts as none.
fn healthy(group: Option<&TargetGroupArn>, seen: &Observation) -> Option<u32> {
    group.map(|group| seen.targets.get(group).map_or(0, |counts| counts.healthy))
}

/// Rules that a set of accepted writes has touched, for the bound on re-asserts.
pub(super) fn count_accepted(accepted: &mut BTreeMap<TrafficRuleId, u32>, rule: &TrafficRuleId) {
    let count = accepted.entry(rule.clone()).or_default();
    *count = count.saturating_add(1);
}
