//! The worker's promises, over a fake world and paused time.

mod effects;
mod journal;
mod messages;
mod registration;
mod shutdown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fakes::{Scripted, World, born, delete_write, failure, locked, name_of, receipt, signal};
use super::leader::Term;
use super::turn::LINGER;
use super::{Handle, Ports, Settings, Worker, WorkerError, entry};
use crate::engine::{self, Effect, Input, Step};
use crate::model::{Ask, EffectId, ErrorClass, Outcome, ServiceKey, Timestamp, Urgency};
use crate::ports::{Clock, Recovered};
use crate::rules::{
    AfterPromotion, BlueCapacity, Compare, DeletePolicy, ErrorGates, Limits, Mode, Protect, Quarantine, RollbackPolicy,
    Rule, RuleSet, StabilityGates, Watch,
};
use crate::telemetry::Metrics;

/// A worker that runs, and what its machine was given.
struct Running {
    world: Arc<World>,
    inputs: Arc<Mutex<Vec<Input>>>,
    deadline: Arc<Mutex<Option<Timestamp>>>,
    handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

/// A machine for which every signal changes the state.
fn begin(world: &Arc<World>) -> Running {
    begin_with(world, |_, input| Step { changed: name_of(input).is_some(), ..Step::default() })
}

fn begin_with(world: &Arc<World>, script: impl FnMut(Timestamp, &Input) -> Step + Send + Sync + 'static) -> Running {
    begin_on(world, world.ports(), script)
}

fn begin_on(
    world: &Arc<World>,
    ports: Ports,
    script: impl FnMut(Timestamp, &Input) -> Step + Send + Sync + 'static,
) -> Running {
    begin_as_shard(world, ports, Vec::new(), script)
}

fn begin_as_shard(
    world: &Arc<World>,
    ports: Ports,
    only: Vec<Protect>,
    mut script: impl FnMut(Timestamp, &Input) -> Step + Send + Sync + 'static,
) -> Running {
    let settings = engine::Settings { dry_run: false, sweep: Duration::from_secs(30), fleet_brake: 3 };
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = Settings { engine: settings, receivers: 1 };
    let worker = Worker::new(ports, settings, metrics, Vec::new()).guarding_only(only);
    let inputs = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&inputs);
    let deadline: Arc<Mutex<Option<Timestamp>>> = Arc::default();
    let machine = Scripted {
        rules: RuleSet::default(),
        script: Box::new(move |now, input| {
            locked(&seen).push(input.clone());
            script(now, input)
        }),
        deadline: Arc::clone(&deadline),
        services: locked(&world.known).clone(),
    };
    let (handle, shutdown) = (worker.handle(), CancellationToken::new());
    let task = tokio::spawn(worker.run_machine(once(machine), shutdown.clone()));
    Running { world: Arc::clone(world), inputs, deadline, handle, shutdown, task }
}

/// A worker without rivals recalls its machine once.
fn once(machine: Scripted) -> impl Fn(Option<Vec<u8>>) -> Result<Scripted, String> {
    let machine = Mutex::new(Some(machine));
    move |_| Ok(locked(&machine).take().unwrap())
}

impl Running {
    async fn after(&self, duration: Duration) {
        self.world.clock.sleep(duration).await;
    }

    async fn end(self) -> Result<(), WorkerError> {
        self.shutdown.cancel();
        self.task.await.unwrap()
    }

    fn signals(&self) -> Vec<String> {
        locked(&self.inputs).iter().filter_map(|input| name_of(input).map(str::to_owned)).collect()
    }

    fn done(&self) -> Vec<(u64, Outcome)> {
        let done = |input: &Input| match input {
            Input::Done(id, outcome) => Some((id.0, outcome.clone())),
            _ => None,
        };
        locked(&self.inputs).iter().filter_map(done).collect()
    }

    fn swept(&self) -> Vec<BTreeSet<ServiceKey>> {
        let swept = |input: &Input| match input {
            Input::Swept(set) => Some(set.clone()),
            _ => None,
        };
        locked(&self.inputs).iter().filter_map(swept).collect()
    }

    fn count(&self, series: &str) -> f64 {
        let text = self.handle.metrics().render(self.world.clock.now()).unwrap();
        let line = text.lines().find(|line| line.starts_with(series) && line[series.len()..].starts_with(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn far() -> Timestamp {
    Timestamp::from_millis(i64::MAX)
}

fn rules(protect: &[(&str, &str)]) -> RuleSet {
    let entry =
        |(cluster, service): &(&str, &str)| Protect { cluster: Arc::from(*cluster), service: Arc::from(*service) };
    RuleSet {
        rules: vec![Arc::new(Rule {
            name: "web".into(),
            mode: Mode::Enforce,
            protect: protect.iter().map(entry).collect(),
            watch: Watch { bake: seconds(900), freshness: seconds(600) },
            stability: StabilityGates {
                window: seconds(300),
                task_failures: Some(3),
                steady_within: None,
                unhealthy_targets: None,
            },
            errors: ErrorGates::default(),
            compare: Compare { against_blue: true, false_rollback: None, patience: Duration::ZERO },
            rollback: RollbackPolicy {
                drain: seconds(60),
                blue_capacity: BlueCapacity::Restore,
                after_promotion: AfterPromotion::Rollback,
                delete: DeletePolicy::Force,
            },
            limits: Limits { rollbacks_per_day: 3 },
            quarantine: Quarantine::default(),
        })],
    }
}

fn keys(names: &[(&str, &str)]) -> BTreeSet<ServiceKey> {
    names.iter().map(|(cluster, service)| ServiceKey::new(cluster, service)).collect()
}

/// In receives of ten.
fn deliver_many(world: &World, signals: usize) {
    let bodies: Vec<_> = (0..signals).map(|n| format!("m{n}")).collect();
    for chunk in bodies.chunks(10) {
        world.deliver(&chunk.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
