//! The rollback plan: from one fresh observation, the first goal that is not met and what to do about it.
//!
//! Level-triggered: a step is done when a read says so, not when its call was sent. A crash, a lost answer or another
//! person's hand changes the next observation, and with it the next step; there is no other recovery. What is remembered
//! of earlier calls only bounds how often one may be repeated.

use std::time::Duration;

use super::control;
use super::mutants::{Mutant, without};
use super::partition::Deployment;
use super::progress::{Purpose, Rollback};
use super::roles::roles;
use super::traffic::{self, Cut, NotUnderstood, Pair};
use crate::model::{
    Contract, Controller, Observation, ServiceKey, ServiceStatus, Stability, Step, TargetGroupArn, TaskSet,
    TaskSetStatus, Timestamp, TrafficRule, Write, humane,
};
use crate::rules::{AfterPromotion, BlueCapacity, DeletePolicy, Rule};

/// A decision is carried out on reads no older than this; else it is read again. A round of reads is given up after as
/// long, so that a slow one still counts; a pause of the process does not fit in.
const OBSERVATION_LIFE: Duration = Duration::from_secs(16);

/// How long what AWS has accepted may read as before: ECS and ELB answer reads from replicas that lag by seconds.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// How long blue may lack capacity by itself before a person is called: one task's replacement takes about this long.
const BLUE_PATIENCE: Duration = Duration::from_mins(1);

/// How long blue may take to come back once it is scaled up: a Fargate task pulls its image and passes its health checks
/// within two minutes as a rule, and the call for a person must come within five minutes of the decision.
const RESTORE_PATIENCE: Duration = Duration::from_mins(3);

/// How long ECS may drain green. Deregistration takes 300 s by default, with traffic long safe: no reason to page.
const DRAINING_PATIENCE: Duration = Duration::from_mins(2);

/// Pace of reads while something is awaited.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// Pace of reads while time itself is awaited.
const SLOW_POLL: Duration = Duration::from_secs(10);

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Send these, now, at once.
    Write(Step, Vec<(Purpose, Write)>),
    /// Read again at this time.
    Wait(Step, Timestamp, String),
    /// Read again now, the task sets twice.
    LookTwice,
    /// A person is needed.
    Escalate(Stuck),
    /// Somebody else took over.
    Superseded(String),
    /// Nothing more to do.
    Done(String),
}

/// What can't be done without a person.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stuck {
    /// The step that can't be done.
    pub(super) step: Step,
    /// In plain words.
    pub(super) why: String,
    /// Trying on would fight a foreign writer: nothing may be written any more.
    pub(super) frozen: bool,
}

/// What an observation proves, for the record.
#[allow(clippy::struct_excessive_bools, reason = "four facts that have nothing to do with each other")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proven {
    /// No rule sends anything to green.
    pub(super) traffic_safe: bool,
    /// Blue is too small to carry the load.
    pub(super) blue_short: bool,
    /// Blue is PRIMARY.
    pub(super) blue_primary: bool,
    /// Green is gone or on its way out.
    pub(super) green_leaving: bool,
}

/// What a step of the plan looks at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) now: Timestamp,
    pub(super) service: &'a ServiceKey,
    pub(super) rule: &'a Rule,
    pub(super) deployment: &'a Deployment,
    pub(super) rollback: &'a Rollback,
    pub(super) seen: &'a Observation,
}

/// One goal, looked at.
enum Goal {
    Met,
    Write(Vec<(Purpose, Write)>),
    Wait(Step, String),
    Stuck(Stuck),
}

/// The deployment's task sets, as the observation shows them.
struct Sets<'a> {
    green: Option<&'a TaskSet>,
    /// Living.
    blue: Option<&'a TaskSet>,
}

fn sets<'a>(deployment: &Deployment, seen: &'a [TaskSet]) -> Sets<'a> {
    Sets {
        green: seen.iter().find(|set| set.id == deployment.green),
        blue: seen.iter().find(|set| set.id == deployment.blue && set.is_living()),
    }
}

fn pair(deployment: &Deployment) -> Pair<'_> {
    Pair { blue: deployment.blue_group.as_ref(), green: deployment.green_group.as_ref() }
}

/// Cookies matter as long as they lead to somebody.
fn cut(green: Option<&TaskSet>) -> Cut {
    if green.is_some_and(TaskSet::is_living) { Cut::Out } else { Cut::Weight }
}

/// Whether green is to be deleted, and not only to lose its traffic.
pub(super) fn deletes(rule: &Rule, deployment: &Deployment) -> bool {
    rule.rollback.delete == DeletePolicy::Force && deployment.contract != Some(Contract::WeightsOnly)
}

/// What the observation proves.
pub(super) fn proven(deployment: &Deployment, rule: &Rule, seen: &Observation) -> Proven {
    let Sets { green, blue } = sets(deployment, &seen.service.task_sets);
    let shift = traffic::shift(&seen.traffic, pair(deployment), cut(green));
    Proven {
        traffic_safe: shift.is_ok_and(|writes| writes.is_empty()),
        blue_short: blue.is_none_or(|blue| shortage(rule.rollback.blue_capacity, blue, green, seen).is_some()),
        blue_primary: blue.is_some_and(|blue| blue.status == TaskSetStatus::Primary),
        green_leaving: green.is_none_or(|green| !green.is_living()),
    }
}

/// Why the service could not be rolled back as it is: shapes only, no capacity.
/// `promotes`: it is for the plan to make blue PRIMARY, so that nobody may be for a while.
pub(super) fn obstacle(deployment: &Deployment, seen: &Observation, promotes: bool) -> Option<String> {
    if seen.service.controller != Controller::External {
        return Some(format!("its deployment controller is {}, not EXTERNAL", seen.service.controller));
    }
    if seen.service.status != ServiceStatus::Active {
        return Some("the service is being deleted".to_owned());
    }
    let Sets { green, blue } = sets(deployment, &seen.service.task_sets);
    if blue.is_none() {
        return Some(format!("blue ({}) does not live any more: there is nothing to go back to", deployment.blue));
    }
    traffic::shift(&seen.traffic, pair(deployment), cut(green))
        .and_then(|_| traffic::introduce(&seen.traffic, pair(deployment)))
        .err()
        .map(|NotUnderstood(why)| why)
        .or_else(|| foreign_primary(deployment, &seen.service.task_sets, promotes))
}

/// Neither blue nor green is PRIMARY: whose deployment it is, nobody can tell.
fn foreign_primary(deployment: &Deployment, seen: &[TaskSet], promotes: bool) -> Option<String> {
    match seen.iter().find(|set| set.status == TaskSetStatus::Primary) {
        Some(set) if set.id == deployment.blue || set.id == deployment.green => None,
        Some(other) => Some(format!("neither blue nor green is PRIMARY, but {}", other.id)),
        None => (!promotes).then(|| "no task set is PRIMARY".to_owned()),
    }
}

/// The first goal that is not met.
pub(super) fn next(view: View<'_>) -> Next {
    let View { now, rule, deployment, rollback, seen, .. } = view;
    let step = rollback.step();
    if now.since(seen.read_at) > OBSERVATION_LIFE && !without(Mutant::OldReads) {
        return Next::Wait(step, now, "the last read is too old to act on".to_owned());
    }
    let Sets { green, blue } = sets(deployment, &seen.service.task_sets);
    if let Some(next) = view.overtaken(green).or_else(|| view.settled_by_people(green, blue)) {
        return next;
    }
    if let Some(why) = obstacle(deployment, seen, rollback.promotes) {
        return Next::Escalate(Stuck { step: Step::Observe, why, frozen: false });
    }
    let (Some(blue), Ok(shift)) = (blue, traffic::shift(&seen.traffic, pair(deployment), cut(green))) else {
        // `obstacle` has named both already.
        let why = "the service changed its shape".to_owned();
        return Next::Escalate(Stuck { step: Step::Observe, why, frozen: false });
    };
    if let Some(stuck) = view.left_to_people(green) {
        return Next::Escalate(stuck);
    }
    if let Some(at) = rollback.retry_at.filter(|at| *at > now) {
        return Next::Wait(step, at, "waiting before the next try".to_owned());
    }
    // What was kept when the rollback was done stays.
    let deletes = deletes(rule, deployment) && !rollback.is_reopened();
    let leaves = green.is_some_and(|green| green.is_living() && green.running > 0) && deletes;
    // Blue takes over when traffic moves, or, without a load balancer, when green ends.
    let takes_over = !shift.is_empty() || (deployment.green_group.is_none() && leaves);
    let fit = if takes_over { view.fit(blue, green) } else { Goal::Met };
    let next = if matches!(fit, Goal::Met) {
        // All at once: none waits for another's call, and the traffic moves even when the promotion is refused.
        first([view.scaled(blue), view.promoted(blue), view.shifted(shift)], now)
    } else {
        first([view.introduced(), view.scaled(blue), fit], now)
    };
    if let Some(next) = next {
        return next;
    }
    let Some(green) = green.filter(|green| green.is_living()) else {
        return view.gone(green);
    };
    if rollback.accepted(&Purpose::Delete).is_some_and(|at| now.since(at) < SETTLE) {
        return Next::Wait(Step::VerifyGone, now.plus(POLL), "waiting for ECS to take green away".to_owned());
    }
    if !deletes {
        return view.kept(green);
    }
    let drain = rule.rollback.drain;
    let drained_at = rollback.drained_at(drain).unwrap_or(now.plus(drain));
    if drained_at > now && !without(Mutant::NoDrain) {
        // With no task there is no request in flight. One read that says so may lag behind tasks that came again.
        let again = seen.task_sets_again.as_deref().map(|again| sets(deployment, again).green);
        match (green.running, again) {
            (0, None) => return Next::LookTwice,
            (0, Some(again)) if again.is_none_or(|green| green.running == 0) => {}
            _ => {
                let left = humane(drained_at.since(now));
                let at = drained_at.min(now.plus(SLOW_POLL));
                return Next::Wait(Step::Drain, at, format!("letting requests in flight end, {left} left"));
            }
        }
    }
    view.delete(green, blue)
}

/// The first thing to do about several goals: what can be written is written at once, even when another one is stuck.
fn first<const N: usize>(goals: [Goal; N], now: Timestamp) -> Option<Next> {
    let (mut writes, mut waiting, mut stuck) = (Vec::new(), None, None);
    for goal in goals {
        match goal {
            Goal::Met => {}
            Goal::Write(more) => writes.extend(more),
            Goal::Wait(step, why) => waiting = waiting.or(Some(Next::Wait(step, now.plus(POLL), why))),
            Goal::Stuck(why) => stuck = stuck.or(Some(Next::Escalate(why))),
        }
    }
    // The last is the latest in the plan's order.
    let step = writes.iter().map(|(purpose, _)| purpose.step()).next_back();
    step.map(|step| Next::Write(step, writes)).or(stuck).or(waiting)
}

impl View<'_> {
    /// Green was made PRIMARY while the plan ran: a person wants it. What was so when the plan began is ours to undo,
    /// once. A read that lags behind our own promotion, or that another call contradicts, proves nothing.
    fn overtaken(&self, green: Option<&TaskSet>) -> Option<Next> {
        let is_primary = |set: &TaskSet| set.status == TaskSetStatus::Primary;
        let promoted = self.rollback.accepted(&Purpose::Promote);
        let settled = promoted.is_none_or(|at| self.now.since(at) >= SETTLE);
        let ignored = without(Mutant::PromotionForcedThrough) || without(Mutant::NoPrimaryCheck);
        let since_then = self.rollback.blue_was_primary || !self.rollback.promotes;
        if !green.is_some_and(is_primary) || !since_then || !settled || ignored {
            return None;
        }
        let Some(again) = &self.seen.task_sets_again else { return Some(Next::LookTwice) };
        let why = "green was made PRIMARY by somebody else while it was rolled back".to_owned();
        Some(if sets(self.deployment, again).green.is_some_and(is_primary) {
            Next::Superseded(why)
        } else {
            let why = "DescribeServices and DescribeTaskSets do not agree on who is PRIMARY".to_owned();
            Next::Wait(self.rollback.step(), self.now.plus(POLL), why)
        })
    }

    /// A person was called, and blue is gone since: there is nothing to go back to, and somebody else is PRIMARY. That is green
    /// itself, or whoever came after it was gone.
    fn settled_by_people(&self, green: Option<&TaskSet>, blue: Option<&TaskSet>) -> Option<Next> {
        let settled = |task_sets: &[TaskSet]| {
            let Sets { green, blue } = sets(self.deployment, task_sets);
            let primary = task_sets.iter().find(|set| set.is_living() && set.status == TaskSetStatus::Primary);
            let lives = green.is_some_and(TaskSet::is_living);
            blue.is_none() && primary.is_some_and(|primary| !lives || primary.id == self.deployment.green)
        };
        // That users are sent to nobody is no decision of anyone. Another task set may have taken blue's group over.
        let taken = |group: &TargetGroupArn| {
            let others = self.seen.service.task_sets.iter().filter(|set| set.id != self.deployment.green);
            others.filter(|set| set.is_living()).any(|set| set.target_group.as_ref() == Some(group))
        };
        let gone = self.deployment.blue_group.as_ref().filter(|group| !taken(group));
        let sent =
            |group| self.seen.traffic.rules().iter().flat_map(TrafficRule::forwards).any(|one| one.share(group) > 0.0);
        let is_open = blue.is_some() || gone.is_some_and(sent) || self.rollback.escalation.is_none();
        if is_open || !settled(&self.seen.service.task_sets) {
            return None;
        }
        let Some(again) = &self.seen.task_sets_again else { return Some(Next::LookTwice) };
        let who = if green.is_some_and(TaskSet::is_living) { "green" } else { "another task set" };
        let why = format!("blue is gone and {who} is PRIMARY: there is nothing to go back to");
        settled(again).then_some(Next::Superseded(why))
    }

    /// The rule wants no promoted green to be touched.
    fn left_to_people(&self, green: Option<&TaskSet>) -> Option<Stuck> {
        let promoted = green.is_some_and(|green| green.status == TaskSetStatus::Primary);
        let page = promoted && self.rule.rollback.after_promotion == AfterPromotion::Page;
        page.then(|| Stuck {
            step: Step::PromoteBlue,
            why: "green is PRIMARY already, and the rule leaves that to people (after_promotion = \"page\")".to_owned(),
            frozen: false,
        })
    }

    /// Blue can carry the load that it is about to get.
    fn fit(&self, blue: &TaskSet, green: Option<&TaskSet>) -> Goal {
        let policy = self.rule.rollback.blue_capacity;
        // Where there are two reads, the older one may show tasks that are gone.
        let again = self.seen.task_sets_again.as_deref().and_then(|again| sets(self.deployment, again).blue);
        let mut reads = std::iter::once(blue).chain(again);
        let Some(why) = reads.find_map(|blue| shortage(policy, blue, green, self.seen)) else { return Goal::Met };
        let step = Step::RestoreBlue;
        if self.is_patient() {
            return Goal::Wait(step, format!("waiting for blue: {why}"));
        }
        // The same words at every look, so that it is told once.
        let why = format!("blue can't carry the load ({why}, for more than {})", humane(self.patience()));
        Goal::Stuck(Stuck { step, why, frozen: false })
    }

    /// How long blue may lack capacity.
    fn patience(&self) -> Duration {
        if self.rule.rollback.blue_capacity == BlueCapacity::Restore { RESTORE_PATIENCE } else { BLUE_PATIENCE }
    }

    /// Blue is still given time to come up.
    fn is_patient(&self) -> bool {
        self.now.since(self.rollback.blue_short_since.unwrap_or(self.now)) < self.patience()
    }

    /// Some rule names blue, so that its health is known.
    fn introduced(&self) -> Goal {
        // A shape that is not understood was found before.
        let writes = traffic::introduce(&self.seen.traffic, pair(self.deployment)).unwrap_or_default();
        let writes = writes.into_iter().map(|write| (Purpose::of(&write, Purpose::Introduce), write)).collect();
        let foreign = "somebody else takes blue's target group out of the rules";
        self.assert(Step::RestoreBlue, writes, foreign, "waiting for the rules to name blue")
    }

    /// Blue is to run as many tasks as the service wants, also when the traffic could not wait for them.
    fn scaled(&self, blue: &TaskSet) -> Goal {
        let restores = self.rule.rollback.blue_capacity == BlueCapacity::Restore;
        if !restores || blue.computed_desired >= self.seen.service.desired_count {
            return Goal::Met;
        }
        let (service, task_set) = (self.service.clone(), blue.arn.clone());
        let write = Write::ScaleTaskSet { service, task_set, percent: 100 };
        let foreign = "somebody else takes blue's capacity away";
        let goal =
            self.assert(Step::RestoreBlue, vec![(Purpose::Scale, write)], foreign, "waiting for blue to be scaled");
        match goal {
            // Who scales blue down need not know of the rollback: there is no fight to stay out of.
            Goal::Stuck(stuck) => Goal::Stuck(Stuck { frozen: false, ..stuck }),
            goal => goal,
        }
    }

    /// Blue is PRIMARY.
    fn promoted(&self, blue: &TaskSet) -> Goal {
        if blue.status == TaskSetStatus::Primary {
            return Goal::Met;
        }
        if self.is_candidate(blue) {
            let why = "green is gone and nobody is PRIMARY, but blue is the newer of several task sets: which of them is to \
                       be PRIMARY is for people to say";
            return Goal::Stuck(Stuck { step: Step::PromoteBlue, why: why.to_owned(), frozen: false });
        }
        let write = Write::SetPrimary { service: self.service.clone(), task_set: blue.arn.clone() };
        let foreign = "blue was made PRIMARY twice, and is not";
        self.assert(Step::PromoteBlue, vec![(Purpose::Promote, write)], foreign, "waiting for blue to read as PRIMARY")
    }

    /// Where green is gone, blue may be the newest beside an older one: a candidate itself, which nobody has promoted yet.
    fn is_candidate(&self, blue: &TaskSet) -> bool {
        roles(&self.seen.service.task_sets, &[]).is_some_and(|roles| roles.green.id == blue.id)
    }

    /// No rule sends anything to green.
    fn shifted(&self, shift: Vec<Write>) -> Goal {
        if without(Mutant::OneRuleStandsForAll) && self.rollback.last_accepted().is_some() {
            return Goal::Met;
        }
        let purpose = if self.rollback.is_reopened() { Purpose::Reassert } else { Purpose::Shift };
        let writes = shift.into_iter().map(|write| (Purpose::of(&write, purpose), write)).collect();
        let foreign =
            "somebody else keeps writing the rules: given back to blue once already, they send traffic to green again";
        self.assert(Step::VerifyTraffic, writes, foreign, "waiting for all rules to read as written")
    }

    /// Writes that are still needed: sent, unless AWS has only just accepted them, and at most once more should somebody
    /// have undone them.
    fn assert(&self, step: Step, writes: Vec<(Purpose, Write)>, foreign: &str, settling: &str) -> Goal {
        if writes.is_empty() {
            return Goal::Met;
        }
        let times = |purpose: &Purpose| self.rollback.accepted.get(purpose).map_or(0, |accepted| accepted.times);
        let fresh = |purpose: &Purpose| self.rollback.accepted(purpose).is_some_and(|at| self.now.since(at) < SETTLE);
        let too_late = |purpose: &Purpose| self.rollback.is_undone_too_late(purpose, self.now);
        let is_spent = |purpose: &Purpose| (times(purpose) >= purpose.limit() || too_late(purpose)) && !fresh(purpose);
        let spent: Vec<_> = writes.iter().filter(|(purpose, _)| is_spent(purpose)).collect();
        if let Some((purpose, _)) = spent.first() {
            return Goal::Stuck(Stuck { step, why: format!("{foreign} ({purpose})"), frozen: true });
        }
        let due: Vec<_> = writes.into_iter().filter(|(purpose, _)| !fresh(purpose)).collect();
        if due.is_empty() { Goal::Wait(step, settling.to_owned()) } else { Goal::Write(due) }
    }

    /// Green stays. Where no traffic was taken from it, it goes on with its work until it is stopped.
    fn kept(&self, green: &TaskSet) -> Next {
        let by_contract = self.deployment.contract == Some(Contract::WeightsOnly);
        let whose = if by_contract { "its contract" } else { "the rule" };
        if self.deployment.green_group.is_some() {
            return Next::Done(format!("traffic is on blue; green is kept, as {whose} says"));
        }
        if control::tasks(green) > 0 {
            let why = format!("there is no traffic to move, and green is kept as {whose} says: stop it by hand");
            return Next::Escalate(Stuck { step: Step::DeleteGreen, why, frozen: false });
        }
        Next::Done(format!("green, which runs no task any more, is kept, as {whose} says"))
    }

    /// Two answers of two different calls must agree; AWS itself does not stop a forced delete of a PRIMARY.
    fn delete(&self, green: &TaskSet, blue: &TaskSet) -> Next {
        let once = without(Mutant::SingleReadDelete).then_some(&self.seen.service.task_sets);
        let Some(again) = once.or(self.seen.task_sets_again.as_ref()) else { return Next::LookTwice };
        let second = sets(self.deployment, again);
        let deletable = |set: &TaskSet| set.status == TaskSetStatus::Active && set.arn == self.deployment.green_arn;
        let agreed = deletable(green)
            && second.green.is_some_and(deletable)
            && second.blue.is_some_and(|blue| blue.status == TaskSetStatus::Primary);
        if !agreed && !without(Mutant::NoPrimaryCheck) {
            let why = "DescribeServices and DescribeTaskSets do not agree yet that green may be deleted".to_owned();
            return Next::Wait(Step::DeleteGreen, self.now.plus(POLL), why);
        }
        // Either read may lag behind a blue that has just been scaled down.
        let blues = || [Some(blue), second.blue].into_iter().flatten();
        let serves = |blue: &TaskSet| blue.running > 0 && control::serving(blue, self.seen) > 0;
        if self.seen.service.desired_count > 0 && !blues().all(serves) && !without(Mutant::NoBlueCheck) {
            // Nobody sends requests to a blue without a load balancer: it may still be starting.
            if self.deployment.green_group.is_none() && self.is_patient() {
                return Next::Wait(Step::DeleteGreen, self.now.plus(POLL), "waiting for blue to run".to_owned());
            }
            return Next::Escalate(Stuck {
                step: Step::DeleteGreen,
                why: "blue has nothing healthy left: green is kept as the last resort".to_owned(),
                frozen: false,
            });
        }
        let policy = self.rule.rollback.blue_capacity;
        let works = self.deployment.green_group.is_none() && green.running > 0;
        if let Some(why) = blues().find_map(|blue| shortage(policy, blue, Some(green), self.seen)).filter(|_| works) {
            return Next::Wait(Step::DeleteGreen, self.now.plus(POLL), format!("waiting for blue: {why}"));
        }
        let (service, task_set) = (self.service.clone(), self.deployment.green_arn.clone());
        Next::Write(Step::DeleteGreen, vec![(Purpose::Delete, Write::DeleteTaskSet { service, task_set })])
    }

    /// Green is gone, and sticky rules have their pair back.
    fn gone(&self, green: Option<&TaskSet>) -> Next {
        let by = if self.rollback.accepted(&Purpose::Delete).is_some() { "" } else { " (deleted by somebody else)" };
        let left = green.map_or(0, |green| green.running.saturating_add(green.pending));
        // Nor is it a reason to be late, and to call anybody for that.
        let uncalled = self.rollback.escalation.is_none();
        let late = uncalled && self.now.plus(SETTLE) >= self.rollback.late_at(self.rule.rollback.drain);
        let drained =
            late || self.rollback.draining_since.is_some_and(|since| self.now.since(since) >= DRAINING_PATIENCE);
        if left > 0 && !drained {
            let why = format!("ECS is stopping green's tasks, {left} left");
            return Next::Wait(Step::VerifyGone, self.now.plus(POLL), why);
        }
        // Somebody else writes the rules: they stay as they are.
        let seats = Some(&self.rollback.seats).filter(|_| !self.rollback.is_frozen());
        let writes = seats.map(|seats| traffic::restore(&self.seen.traffic, pair(self.deployment), seats));
        let writes =
            writes.unwrap_or_default().into_iter().map(|write| (Purpose::of(&write, Purpose::Pair), write)).collect();
        let settling = "waiting for the sticky rules to read as written";
        let pair = match self.assert(Step::VerifyGone, writes, "", settling) {
            Goal::Write(writes) => return Next::Write(Step::VerifyGone, writes),
            Goal::Wait(step, why) => return Next::Wait(step, self.now.plus(POLL), why),
            Goal::Stuck(_) => "; somebody else keeps green's target group out of a sticky rule",
            Goal::Met if seats.is_none() => "; the rules stay as somebody else has written them",
            Goal::Met => "",
        };
        Next::Done(match (green, left) {
            (None, _) => format!("traffic is on blue, green is gone{by}{pair}"),
            (Some(_), 0) => format!("traffic is on blue, green's last task has ended{by}{pair}"),
            (Some(_), left) => {
                format!("traffic is on blue, green is deleted{by}; ECS still drains {left} of its tasks{pair}")
            }
        })
    }
}

/// Why blue can't carry the whole load.
fn shortage(policy: BlueCapacity, blue: &TaskSet, green: Option<&TaskSet>, seen: &Observation) -> Option<String> {
    // Of two reads the one of the task set may be the newer: it computes its own count from the service's.
    let needed = seen.service.desired_count.max(blue.computed_desired);
    let (what, able) = if blue.target_group.is_some() {
        ("targets are healthy", control::serving(blue, seen))
    } else {
        ("tasks run", blue.running)
    };
    if needed == 0 || without(Mutant::NoBlueCheck) {
        return None;
    }
    if able == 0 {
        return Some(format!("0 of {needed} {what}"));
    }
    // Whatever blue has is better than nothing.
    if policy == BlueCapacity::Ignore || green.is_none_or(|green| control::serving(green, seen) == 0) {
        return None;
    }
    if blue.running < needed {
        return Some(format!("{} of {needed} tasks run", blue.running));
    }
    // What runs beyond that is about to be stopped.
    if blue.computed_desired < needed {
        return Some(format!("{} of {needed} tasks are to go on running", blue.computed_desired));
    }
    // ECS calls a task set steady when every health check passes, so one flapping target does not count then.
    (blue.stability != Stability::Steady && able < needed).then(|| format!("{able} of {needed} {what}"))
}
