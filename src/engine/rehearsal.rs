//! A rollback on paper: the same engine, on a copy of what was read, with an AWS that does at once what it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::roles::roles;
use super::{Effect, Engine, Input, Settings};
use crate::model::{
    Ask, Observation, Outcome, Phase, Stability, TargetCounts, TaskSet, TaskSetArn, TaskSetId, TaskSetStatus,
    Timestamp, Traffic, TrafficRule, WeightedGroup, Write, tags,
};
use crate::rules::{Limits, Mode, Protect, Rule, RuleSet};

/// More steps than any plan has.
const STEPS: usize = 500;

/// A rehearsal that is not over by then waits for something that does not happen on paper. Longer than the longest drain.
const LONGEST: Duration = Duration::from_hours(2);

const SWEEP: Duration = Duration::from_secs(30);

/// What a rollback of the live deployment would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rehearsal {
    /// The task set that would be rolled back.
    pub green: TaskSetId,
    /// Every changing call, in order, with the time since the decision: what AWS takes itself is not in it.
    pub calls: Vec<(Duration, Write)>,
    /// How long after the decision a read would prove that no rule sends anybody to green; absent when none would. What AWS
    /// takes itself is not in it.
    pub traffic_safe: Option<Duration>,
    /// Rounds of calls from the decision until then, each of which waits for the one before it.
    pub rounds_until_safe: u32,
    /// It would end well.
    pub completes: bool,
    /// How it ends, in plain words.
    pub ending: String,
}

/// Rehearses the rollback of the newest task set; `None` when there is no deployment.
pub fn rehearse(rule: &Rule, seen: &Observation) -> Option<Rehearsal> {
    let green = roles(&seen.service.task_sets, &[])?.green.id.clone();
    let key = &seen.ask.service;
    let protect = vec![Protect { cluster: Arc::clone(&key.cluster), service: Arc::clone(&key.service) }];
    let limits = Limits { rollbacks_per_day: u32::MAX };
    let rule = Rule { mode: Mode::Enforce, protect, limits, ..rule.clone() };
    let mut paper = Paper::new(seen, &green);
    let mut engine = Engine::new(Settings { dry_run: false, sweep: SWEEP, fleet_brake: usize::MAX });
    let mut inputs = VecDeque::from([
        Input::Rules(RuleSet { rules: vec![Arc::new(rule)] }),
        Input::Swept(BTreeSet::from([key.clone()])),
    ]);
    let (began, mut now) = (seen.read_at, seen.read_at);
    let mut calls = Vec::new();
    let (mut traffic_safe, mut rounds) = (None, 0);
    for _ in 0..STEPS {
        let Some(input) = inputs.pop_front() else {
            let Some(next) = engine.next_deadline().filter(|_| !is_over(&engine, seen, now)) else { break };
            if next.since(began) > LONGEST {
                break;
            }
            now = now.max(next);
            inputs.push_back(Input::Tick);
            continue;
        };
        let effects = engine.step(now, &input).effects;
        let is_decided = || engine.service(key, now).and_then(|view| view.deployment?.incident).is_some();
        if traffic_safe.is_none() && effects.iter().any(waits) && is_decided() {
            rounds += 1;
        }
        for effect in effects {
            match effect {
                Effect::Observe(ask) => {
                    inputs.push_back(Input::Observed(key.clone(), Ok(Box::new(paper.observe(ask, now)))));
                }
                Effect::Write { id, write, .. } => {
                    paper.apply(&write);
                    calls.push((now.since(began), write));
                    inputs.push_back(Input::Done(id, Outcome::Applied));
                }
                Effect::Announce(id, _) => inputs.push_back(Input::Done(id, Outcome::Applied)),
                Effect::Keep(incident) => {
                    traffic_safe = traffic_safe.or(incident.traffic_safe_at.map(|at| at.since(began)));
                }
            }
        }
    }
    let deployment = engine.service(key, now).and_then(|view| view.deployment);
    let (completes, ending) = match deployment {
        Some(deployment) => (deployment.phase == Phase::RolledBack, deployment.why),
        None => (false, "there is no deployment to roll back".to_owned()),
    };
    Some(Rehearsal { green, calls, traffic_safe, rounds_until_safe: rounds, completes, ending })
}

/// What follows needs its answer.
const fn waits(effect: &Effect) -> bool {
    matches!(effect, Effect::Observe(_) | Effect::Write { .. })
}

/// What the rollback of the next deployment would do, if the task set that serves now had a green beside it with half of the
/// users: `None` when there is a deployment already, or no second target group for its green.
pub fn rehearse_next(rule: &Rule, seen: &Observation) -> Option<Rehearsal> {
    let mut next = seen.clone();
    if roles(&next.service.task_sets, &[]).is_some() {
        return None;
    }
    let primary = next.service.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary)?.clone();
    let mut green = TaskSet {
        id: TaskSetId::new("ecs-svc/next"),
        arn: TaskSetArn::new(format!("{}-next", primary.arn)),
        status: TaskSetStatus::Active,
        created_at: primary.created_at.max(seen.read_at),
        external_id: None,
        tags: tags::Tags::new(),
        ..primary.clone()
    };
    if let (Some(group), Traffic::Rules(rules)) = (&primary.target_group, &mut next.traffic) {
        let named = || rules.iter().filter(|rule| rule.names(group)).flat_map(TrafficRule::forwards);
        let free = named().flat_map(|forward| &forward.groups).find(|named| named.target_group != *group);
        let free = free.map(|named| named.target_group.clone())?;
        for forward in rules.iter_mut().flat_map(TrafficRule::forwards_mut) {
            let pair = |named: &&mut WeightedGroup| named.target_group == *group || named.target_group == free;
            forward.groups.iter_mut().filter(pair).for_each(|named| named.weight = Some(50));
        }
        green.target_group = Some(free);
        let healthy = next.targets.get(group).cloned().unwrap_or_default();
        next.targets.extend(green.target_group.clone().map(|group| (group, healthy)));
    }
    next.service.task_sets.push(green.clone());
    next.task_sets_again.iter_mut().for_each(|again| again.push(green.clone()));
    rehearse(rule, &next)
}

fn is_over(engine: &Engine, seen: &Observation, now: Timestamp) -> bool {
    let deployment = engine.service(&seen.ask.service, now).and_then(|view| view.deployment);
    let ended = |phase| !matches!(phase, Phase::Watching | Phase::RollingBack(_));
    deployment.is_some_and(|deployment| ended(deployment.phase))
}

/// A service that obeys.
struct Paper {
    seen: Observation,
    /// What task sets' own tags say, which only `DescribeTaskSets` shows.
    tags: BTreeMap<TaskSetId, tags::Tags>,
}

impl Paper {
    fn new(seen: &Observation, green: &TaskSetId) -> Self {
        let mut seen = seen.clone();
        let said = seen.task_sets_again.iter().flatten().map(|set| (set.id.clone(), set.tags.clone())).collect();
        // What a person wants outranks the rest; which rule protects it was decided by the caller.
        seen.service.tags = BTreeMap::from([(tags::ROLLBACK.to_owned(), green.to_string())]);
        (seen.tasks, seen.alarms, seen.alarms_unlisted) = (Vec::new(), Some(Vec::new()), false);
        Self { seen, tags: said }
    }

    fn observe(&self, ask: Ask, now: Timestamp) -> Observation {
        let tagged =
            |set: &TaskSet| TaskSet { tags: self.tags.get(&set.id).cloned().unwrap_or_default(), ..set.clone() };
        let again = ask.twice.then(|| self.seen.service.task_sets.iter().map(tagged).collect());
        Observation { ask, read_at: now, task_sets_again: again, ..self.seen.clone() }
    }

    fn apply(&mut self, write: &Write) {
        let Observation { service, traffic, targets, .. } = &mut self.seen;
        match write {
            Write::SetActions { rule, actions, .. } => {
                if let Traffic::Rules(rules) = traffic {
                    rules
                        .iter_mut()
                        .filter(|known| known.id == *rule)
                        .for_each(|known| known.actions.clone_from(actions));
                }
            }
            Write::ScaleTaskSet { task_set, percent, .. } => {
                let count = service.desired_count.saturating_mul(u32::from(*percent)).div_ceil(100);
                for set in service.task_sets.iter_mut().filter(|set| set.arn == *task_set) {
                    (set.computed_desired, set.running, set.pending) = (count, count, 0);
                    set.stability = Stability::Steady;
                    if let Some(group) = &set.target_group {
                        targets.insert(group.clone(), TargetCounts { healthy: count, ..TargetCounts::default() });
                    }
                }
            }
            Write::SetPrimary { task_set, .. } => {
                for set in service.task_sets.iter_mut().filter(|set| set.is_living()) {
                    let is_it = set.arn == *task_set;
                    set.status = if is_it { TaskSetStatus::Primary } else { TaskSetStatus::Active };
                }
            }
            Write::DeleteTaskSet { task_set, .. } => {
                let gone = service.task_sets.iter().filter(|set| set.arn == *task_set);
                for group in gone.filter_map(|set| set.target_group.as_ref()) {
                    targets.remove(group);
                }
                service.task_sets.retain(|set| set.arn != *task_set);
            }
        }
    }
}
