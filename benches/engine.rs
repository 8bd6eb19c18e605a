//! The pure part, on one core: how fast events are decoded, how fast the engine steps, and whether what an event costs
//! grows with the fleet.
//!
//! Time is what the thread had a core for. `BENCH_EVENTS` (100,000) events a round, `BENCH_ROUNDS` (7) rounds, `BENCH_SETS`
//! (100,000) watched task sets in the largest fleet.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a bench may panic")]
#![allow(clippy::cast_precision_loss, reason = "figures are for people")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use common::events::{Fields, Mood, Template, service_name, task_set_id, task_set_number};
use common::machine::thread_time;
use common::{Table, median, size};
use serde::de::IgnoredAny;
use taskset_guardian::engine::{Effect, Engine, Input, Settings};
use taskset_guardian::events::{self, Decoded};
use taskset_guardian::model::{
    Action, ActionKind, Forward, ListenerArn, RuleArn, TrafficRule, TrafficRuleId, WeightedGroup,
};
use taskset_guardian::model::{
    Controller, Observation, Scope, ServiceKey, ServiceReading, ServiceStatus, Signal, Stability, Tags, TargetCounts,
    TargetGroupArn, TaskSet, TaskSetArn, TaskSetId, TaskSetStatus, Timestamp, Traffic,
};
use taskset_guardian::rules::{self, RuleFile};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RULE: &str = "name = \"all\"\n[[protect]]\ncluster = \"prod\"\nservice = \"*\"\n";

/// Seconds since the epoch.
const NOW: i64 = 1_772_445_600;

/// Ended tasks that each window knows: a busy one.
const TASKS: usize = 2;

/// Signals decoded before they are stepped, so that the steps alone are timed: few enough to stay in the cache, as a signal
/// that has just been decoded is.
const CHUNK: usize = 64;

fn main() {
    let (events, rounds) = (size("BENCH_EVENTS", 100_000), size("BENCH_ROUNDS", 7));
    let most = size("BENCH_SETS", 100_000);
    let sizes = [10, 1_000, most];
    let templates = [Mood::Runs, Mood::Reclaimed, Mood::Reclaimed, Mood::Runs].map(Template::new);
    let bytes = templates.iter().map(Template::len).sum::<usize>() / templates.len();
    let mut table =
        Table::new("engine", format_args!("{events} events of {bytes} bytes a round, {rounds} rounds, one core"));

    let mut fleets: Vec<_> = sizes.iter().map(|sets| Fleet::watched(sets / 2)).collect();
    for fleet in &mut fleets {
        // Every window gets to know its tasks.
        fleet.round(&templates, (fleet.services.len() * 2 * TASKS).max(CHUNK));
    }
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); sizes.len()];
    for _ in 0..rounds {
        for (fleet, costs) in fleets.iter_mut().zip(&mut costs) {
            costs.push(fleet.round(&templates, events));
        }
    }

    let all = || costs.iter().flatten();
    let decoded = median(all().map(|cost| 1e9 / cost.decode).collect());
    table.at_least("decoded, a second", decoded, 300_000.0, 20_000.0, "");
    let text = median(all().map(|cost| cost.decode / cost.passed_over).collect());
    table.row("against passing over the same text with serde_json", format_args!("{text:.2}x"));
    let stepped = median(costs[1].iter().map(|cost| 1e9 / cost.step).collect());
    table.at_least("engine steps at 1,000 watched task sets, a second", stepped, 1_000_000.0, 60_000.0, "");
    for (sets, costs) in sizes.iter().zip(&costs) {
        let [decode, step] =
            [|cost: &Cost| cost.decode, |cost: &Cost| cost.step].map(|of| median(costs.iter().map(of).collect()));
        table.row(format_args!("at {sets} task sets: decode, step"), format_args!("{decode:.0} ns, {step:.0} ns"));
    }
    let ratio = |of: fn(&Cost) -> f64| {
        median(costs[2].iter().zip(&costs[0]).map(|(large, small)| of(large) / of(small)).collect())
    };
    let whole = ratio(|cost| cost.decode + cost.step);
    table.at_most(format_args!("cost of an event at {most} task sets, against that at 10"), whole, 1.2, 3.0, "x");
    table.row("the step alone, likewise", format_args!("{:.2}x", ratio(|cost| cost.step)));
    table.end()
}

/// Of one event, in nanoseconds.
#[derive(Clone, Copy)]
struct Cost {
    /// What it takes to find out that it is JSON.
    passed_over: f64,
    decode: f64,
    step: f64,
}

/// Services with a green beside their blue, and an engine that watches them.
struct Fleet {
    engine: Engine,
    services: Vec<ServiceKey>,
    random: fastrand::Rng,
    events: usize,
}

impl Fleet {
    fn watched(services: usize) -> Self {
        let keys: Vec<_> = (0..services).map(|number| ServiceKey::new("prod", service_name(number))).collect();
        let settings = Settings { dry_run: false, sweep: Duration::from_secs(30), fleet_brake: 3 };
        let mut engine = Engine::new(settings);
        let files = [RuleFile::new("all.toml", RULE)];
        let _ = engine.step(at(0), &Input::Rules(rules::compile(&files).unwrap()));
        let found: BTreeSet<_> = keys.iter().cloned().collect();
        let mut waiting = engine.step(at(0), &Input::Swept(found)).effects;
        let mut watched = 0;
        while let Some(effect) = waiting.pop() {
            let Effect::Observe(ask) = effect else { continue };
            let key = ask.service.clone();
            let number = key.service.trim_start_matches("service-").parse().unwrap();
            let observation = Observation {
                read_at: at(0),
                service: reading(number),
                task_sets_again: None,
                traffic: Traffic::Rules(vec![rule(number)]),
                targets: [false, true]
                    .map(|green| (group(number, green), TargetCounts { healthy: 4, ..TargetCounts::default() }))
                    .into(),
                tasks: Vec::new(),
                alarms: Some(Vec::new()),
                alarms_unlisted: false,
                samples: None,
                ask,
            };
            let step = engine.step(at(0), &Input::Observed(key, Ok(Box::new(observation))));
            // One read each: what the engine would ask for next is no part of this.
            watched += 1;
            drop(step);
        }
        assert_eq!(watched, services);
        let view = engine.service(&keys[0], at(0)).unwrap();
        assert!(view.deployment.is_some(), "{view:?}");
        Self { engine, services: keys, random: fastrand::Rng::with_seed(7), events: 0 }
    }

    /// Events about tasks anywhere in the fleet.
    fn round(&mut self, templates: &[Template], events: usize) -> Cost {
        let (mut passed_over, mut decode, mut step) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut bodies = Vec::with_capacity(CHUNK);
        let mut signals: Vec<Input> = Vec::with_capacity(CHUNK);
        let mut changed = 0_usize;
        for _ in 0..events / CHUNK {
            bodies.clear();
            for _ in 0..CHUNK {
                self.events += 1;
                let service = self.random.usize(..self.services.len());
                let green = self.random.bool();
                let set = 2 * service + usize::from(green);
                let fields = Fields {
                    event: self.events,
                    task: set * TASKS + self.random.usize(..TASKS),
                    service,
                    task_set: task_set_number(service, green),
                    version: self.events,
                    at: NOW + 60,
                };
                bodies.push(templates[self.events % templates.len()].text(&fields));
            }
            let began = thread_time();
            for body in &bodies {
                black_box(serde_json::from_str::<IgnoredAny>(body).unwrap());
            }
            passed_over += thread_time().saturating_sub(began);
            let began = thread_time();
            signals.clear();
            signals.extend(bodies.iter().map(|body| Input::Signal(signal(body))));
            let decoded = thread_time();
            for signal in &signals {
                changed += usize::from(black_box(self.engine.step(at(60_000), signal)).changed);
            }
            step += thread_time().saturating_sub(decoded);
            decode += decoded.saturating_sub(began);
        }
        assert!(
            changed * 4 > events || events < 1_000,
            "half of the events say something new: {changed} of {events} did"
        );
        let count = (events / CHUNK * CHUNK) as f64;
        let [passed_over, decode, step] = [passed_over, decode, step].map(|took| took.as_nanos() as f64 / count);
        Cost { passed_over, decode, step }
    }
}

fn signal(body: &str) -> Signal {
    match events::decode(body) {
        Ok(Decoded::Signal(signal)) => signal,
        other => panic!("{other:?}"),
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOW * 1000 + millis)
}

fn group(service: usize, green: bool) -> TargetGroupArn {
    let colour = if green { "green" } else { "blue" };
    TargetGroupArn::new(format!(
        "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/s{service}-{colour}/1a2b"
    ))
}

fn rule(service: usize) -> TrafficRule {
    let weighted = |green, weight| WeightedGroup { target_group: group(service, green), weight: Some(weight) };
    let forward = Forward { groups: vec![weighted(false, 90), weighted(true, 10)], stickiness: None };
    let listener =
        "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/edge/50dc6c495c0c9188/f2f7dc8efc522ab2";
    TrafficRule {
        id: TrafficRuleId::Rule(RuleArn::new(format!(
            "{}/{service}",
            listener.replace(":listener/", ":listener-rule/")
        ))),
        listener: ListenerArn::new(listener),
        priority: Arc::from("10"),
        actions: vec![Action { order: Some(1), kind: ActionKind::Forward(forward) }],
        unread: None,
    }
}

fn reading(service: usize) -> ServiceReading {
    let set = |green: bool| {
        let id = task_set_id(service, green);
        TaskSet {
            arn: TaskSetArn::new(format!(
                "arn:aws:ecs:eu-west-1:111122223333:task-set/prod/{}/{id}",
                service_name(service)
            )),
            id: TaskSetId::new(id),
            status: if green { TaskSetStatus::Active } else { TaskSetStatus::Primary },
            created_at: at(if green { -1_000 } else { -86_400_000 }),
            stability: Stability::Steady,
            running: 4,
            pending: 0,
            computed_desired: 4,
            target_group: Some(group(service, green)),
            task_definition: Arc::from(if green { "web:88" } else { "web:87" }),
            external_id: None,
            tags: Tags::new(),
        }
    };
    ServiceReading {
        scope: Scope { account: Arc::from("111122223333"), region: Arc::from("eu-west-1") },
        status: ServiceStatus::Active,
        controller: Controller::External,
        desired_count: 4,
        task_sets: vec![set(false), set(true)],
        tags: BTreeMap::new(),
    }
}
