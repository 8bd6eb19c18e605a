//! Could this service be rolled back right now, and is anything in the way of doing it well?
//!
//! One verdict: what blocks here is what makes a service `not ready` in `/status` and in metrics.

use std::time::Duration;

use serde::Serialize;

use super::roles::{Roles, roles};
use super::traffic::{self, NotUnderstood};
use crate::model::{
    AlarmName, AlarmReading, Contract, Controller, Observation, ServiceStatus, Stability, TargetGroupArn, TaskSet,
    TaskSetStatus, Timestamp, TrafficRule, humane, tags,
};
use crate::rules::{DeletePolicy, Mode, Rule};

/// ECS allows this many task sets in a service.
const MOST_TASK_SETS: usize = 5;

/// A cookie that lives longer keeps users away from a service for as long, when its group is taken out of a rule.
const LONG_COOKIE: Duration = Duration::from_mins(10);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, as in `controller`.
    pub check: &'static str,
    /// How it is.
    pub verdict: CheckVerdict,
    /// What was found, in plain words.
    pub what: String,
    /// What to do about it.
    pub cure: Option<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// Good.
    Fine,
    /// Not in the way, and good to know.
    Note,
    /// A rollback works, and something about it will hurt.
    Warning,
    /// A rollback would not work now.
    Blocks,
}

impl Check {
    /// Without a cure.
    pub fn new(check: &'static str, verdict: CheckVerdict, what: impl Into<String>) -> Self {
        Self { check, verdict, what: what.into(), cure: None }
    }

    /// With this cure.
    #[must_use]
    pub fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }
}

/// The first thing that would keep a rollback of the next deployment from working.
pub(super) fn obstacle(seen: &Observation) -> Option<Check> {
    let blocks = |check, what: String| Check::new(check, CheckVerdict::Blocks, what);
    let service = &seen.service;
    if service.controller != Controller::External {
        let what = format!("its deployment controller is {}, not EXTERNAL", service.controller);
        let cure = "task sets and their rollback exist for EXTERNAL alone, and a controller can't be changed: create the \
                    service anew, or take it out of protection";
        return Some(blocks("controller", what).cure(cure));
    }
    if service.status != ServiceStatus::Active {
        let cure = "take it out of protection";
        return Some(blocks("service", "the service is being deleted".to_owned()).cure(cure));
    }
    let Some(primary) = primary(seen) else {
        let cure = "make the task set that is to serve PRIMARY: aws ecs update-service-primary-task-set";
        return Some(blocks("primary", "no task set is PRIMARY".to_owned()).cure(cure));
    };
    let group = primary.target_group.as_ref()?;
    let mut named = seen.traffic.rules().iter().filter(|rule| rule.names(group)).peekable();
    if named.peek().is_none() {
        let what = format!("no listener rule forwards to {}, the PRIMARY's target group", group.name());
        let cure = "name the group in the rule that its users come through, or find out who took it out";
        return Some(blocks("traffic", what).cure(cure));
    }
    let wrong = named.find_map(|rule| traffic::understood(rule).err());
    wrong.map(|NotUnderstood(why)| blocks("traffic", why).cure("give the rule one forward action, of a known shape"))
}

/// All that can be told of one observation, made with all alarms and with the task sets read twice.
pub fn examine(rule: &Rule, seen: &Observation, now: Timestamp) -> Vec<Check> {
    if let Some(blocked) = obstacle(seen) {
        return vec![blocked];
    }
    let mut checks = vec![Check::new("controller", CheckVerdict::Fine, "the deployment controller is EXTERNAL")];
    checks.extend([mode(rule), deployment(seen), traffic(rule, seen)]);
    checks.extend(capacity(seen));
    checks.extend(seen.traffic.rules().iter().filter_map(sticky));
    checks.extend(alarms(rule, seen));
    checks.extend(metrics(rule, seen));
    checks.extend(task_sets(seen));
    checks.extend(tags::hold(&seen.service.tags, now).map(|order| {
        Check::new("hold", CheckVerdict::Warning, order.to_string()).cure("taskset-guardian release lifts the hold")
    }));
    checks
}

fn primary(seen: &Observation) -> Option<&TaskSet> {
    seen.service.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary)
}

/// Who would be gone back to: blue of the live deployment, or whoever serves now.
fn blue(seen: &Observation) -> Option<&TaskSet> {
    roles(&seen.service.task_sets, &[]).map(|roles| roles.blue).or_else(|| primary(seen))
}

fn mode(rule: &Rule) -> Check {
    match rule.mode {
        Mode::Enforce => Check::new("rule", CheckVerdict::Fine, format!("the rule {:?} acts", rule.name)),
        Mode::Observe => {
            let what = format!("the rule {:?} only observes: it says what it would do", rule.name);
            Check::new("rule", CheckVerdict::Note, what).cure("mode = \"enforce\" in the rule file arms it")
        }
    }
}

fn deployment(seen: &Observation) -> Check {
    let what = match roles(&seen.service.task_sets, &[]) {
        Some(Roles { green, blue }) => format!("green {} stands beside blue {}", green.id, blue.id),
        None => "no deployment is under way".to_owned(),
    };
    Check::new("deployment", CheckVerdict::Note, what)
}

fn traffic(rule: &Rule, seen: &Observation) -> Check {
    let group = blue(seen).and_then(|set| set.target_group.as_ref());
    let Some(group) = group else {
        if keeps(rule, seen) {
            let what = "no load balancer, and green is kept: there is no traffic to take from it, so that a person is \
                        called to stop it";
            let cure = "delete = \"force\" and a full contract let a rollback end green";
            return Check::new("traffic", CheckVerdict::Warning, what).cure(cure);
        }
        let what = "no load balancer: green is deleted as soon as blue runs all its tasks";
        return Check::new("traffic", CheckVerdict::Note, what);
    };
    let rules: Vec<_> = seen.traffic.rules().iter().filter(|rule| rule.names(group)).collect();
    let names = rules.iter().map(|rule| rule.id.short()).collect::<Vec<_>>().join(", ");
    let count = rules.len();
    let what =
        format!("{count} {} to {}: {names}", if count == 1 { "rule forwards" } else { "rules forward" }, group.name());
    Check::new("traffic", CheckVerdict::Fine, what)
}

/// A rollback would leave green where it is: by the rule, or by what green's tags allow.
fn keeps(rule: &Rule, seen: &Observation) -> bool {
    let green = roles(&seen.service.task_sets, &[]).map(|roles| &roles.green.id);
    let told = seen.task_sets_again.iter().flatten().find(|set| Some(&set.id) == green);
    let contract = told.map(|set| Contract::of(&set.tags));
    rule.rollback.delete == DeletePolicy::Keep || contract == Some(Contract::WeightsOnly)
}

/// Blue must be able to take all the traffic at once.
fn capacity(seen: &Observation) -> Option<Check> {
    let blue = blue(seen)?;
    let desired = seen.service.desired_count;
    let healthy = blue.target_group.as_ref().and_then(|group| seen.targets.get(group)).map(|counts| counts.healthy);
    let targets = healthy.map_or_else(String::new, |healthy| format!(", {healthy} healthy targets"));
    let what = format!("blue {} runs {} of {desired} tasks{targets}", blue.id, blue.running);
    Some(if blue.running >= desired && healthy.is_none_or(|healthy| healthy >= desired) {
        Check::new("capacity", CheckVerdict::Fine, what)
    } else {
        let slow = if blue.stability == Stability::Steady { "scaled back first" } else { "waited for" };
        let cure =
            format!("keep blue at 100 % until green has proven itself: now it would be {slow} before users move");
        Check::new("capacity", CheckVerdict::Warning, what).cure(cure)
    })
}

fn sticky(rule: &TrafficRule) -> Option<Check> {
    let forward = rule.forwards().find(|forward| forward.is_sticky())?;
    let seconds = forward.stickiness.as_ref().and_then(|sticky| sticky.duration_seconds).unwrap_or(0);
    let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let what = format!(
        "{} is sticky for {}: a rollback takes green out of it, and puts it back with weight 0 once green is gone",
        rule.id.short(),
        humane(lasts)
    );
    Some(if lasts > LONG_COOKIE {
        let cure =
            "shorten the cookie: whoever still has green's when it is put back gets 503 until the cookie expires";
        Check::new("stickiness", CheckVerdict::Warning, what).cure(cure)
    } else {
        Check::new("stickiness", CheckVerdict::Note, what)
    })
}

/// Alarms on one of the two target groups compare nothing, and alternate with the deployments.
fn alarms(rule: &Rule, seen: &Observation) -> Vec<Check> {
    let Some(all) = seen.alarms.as_ref().filter(|_| seen.has_all_alarms()) else {
        let what = "the alarms could not be read";
        let cure = "allow cloudwatch:DescribeAlarms: without it, only tasks and targets speak against a green";
        return vec![Check::new("alarms", CheckVerdict::Warning, what).cure(cure)];
    };
    let mut checks = Vec::new();
    let known = |name: &&AlarmName| all.iter().any(|alarm| alarm.name == **name);
    let absent: Vec<_> = rule.errors.alarms.iter().filter(|name| !known(name)).map(AlarmName::as_str).collect();
    if !absent.is_empty() {
        let what = format!("the rule names alarms that do not exist: {}", absent.join(", "));
        checks.push(Check::new("alarms", CheckVerdict::Warning, what).cure("create them, or correct errors.alarms"));
    }
    let named: Vec<&TargetGroupArn> = seen
        .traffic
        .rules()
        .iter()
        .filter(|rule| blue(seen).and_then(|set| set.target_group.as_ref()).is_some_and(|group| rule.names(group)))
        .flat_map(TrafficRule::forwards)
        .flat_map(|forward| &forward.groups)
        .map(|group| &group.target_group)
        .collect();
    let watches = |alarm: &AlarmReading, group: &TargetGroupArn| alarm.target_groups.contains(group.dimension());
    let mut bare: Vec<_> =
        named.iter().filter(|group| !all.iter().any(|alarm| watches(alarm, group))).map(|group| group.name()).collect();
    bare.sort_unstable();
    bare.dedup();
    let watched = all.iter().filter(|alarm| named.iter().any(|group| watches(alarm, group))).count();
    checks.push(match (named.is_empty(), watched, bare.is_empty()) {
        (true, ..) => Check::new("alarms", CheckVerdict::Note, "no target group that an alarm could watch"),
        (_, 0, _) => {
            let what = "no alarm watches the target groups: errors that users see do not count";
            Check::new("alarms", CheckVerdict::Warning, what)
                .cure("create an alarm on HTTPCode_Target_5XX_Count for each target group")
        }
        (_, _, false) => {
            let what = format!("no alarm watches {}, which is blue or green in its turn", bare.join(", "));
            Check::new("alarms", CheckVerdict::Warning, what).cure("give each target group the same alarms")
        }
        (_, count, true) => {
            let what =
                format!("{count} {} the target groups", if count == 1 { "alarm watches" } else { "alarms watch" });
            Check::new("alarms", CheckVerdict::Fine, what)
        }
    });
    checks
}

/// What an alarm is weighed with, and gates on traffic rest on.
fn metrics(rule: &Rule, seen: &Observation) -> Option<Check> {
    let unread = seen.ask.samples.is_some() && seen.samples.is_none();
    unread.then(|| {
        let blind = if rule.errors.read_traffic() { ", and the rule's gates on traffic are blind" } else { "" };
        let what = format!("the metrics of the traffic could not be read: no alarm is weighed against blue's{blind}");
        Check::new("metrics", CheckVerdict::Warning, what).cure("allow cloudwatch:GetMetricData")
    })
}

fn task_sets(seen: &Observation) -> Option<Check> {
    let count = seen.service.task_sets.len();
    (count >= MOST_TASK_SETS - 1).then(|| {
        let what = format!("{count} task sets of the {MOST_TASK_SETS} that ECS allows");
        Check::new("task_sets", CheckVerdict::Warning, what)
            .cure("delete those that nobody needs, or the next deployment fails")
    })
}
