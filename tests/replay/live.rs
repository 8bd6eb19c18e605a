//! A worker lives through a scenario in the sandbox, and its queue is recorded. The replay of the recording comes to the
//! same decisions: the same deployments, the same gates, at the same time, but for the time that an event is on its way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use taskset_guardian::engine::{Effect, Engine, Input, Note, Settings, Stage};
use taskset_guardian::events::{self, Decoded};
use taskset_guardian::model::{Gate, Incident, IncidentId, Outcome, ServiceKey, TaskSetId, Timestamp};
use taskset_guardian::rules::{RuleFile, compile};
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};
use taskset_guardian::sandbox::direct;
use taskset_guardian::sandbox::scenario::{self, Scenario};
use taskset_guardian::sandbox::world::World;

use crate::recorded::{Recording, text};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

/// Events are on their way for up to a second, and a claim may wait a second for a read.
const DELAY: Duration = Duration::from_secs(3);

/// What was decided, by task set.
pub(crate) type Decisions = BTreeMap<(ServiceKey, TaskSetId), (Timestamp, Gate)>;

/// What came of a scenario.
pub(crate) struct Lived {
    /// Of all messages.
    pub(crate) bodies: Vec<String>,
    pub(crate) decisions: Decisions,
    /// What a journal keeps.
    pub(crate) inputs: Vec<(Timestamp, Input)>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) settings: Settings,
}

/// Plays a scenario. Returns the bodies of all messages, and what was decided.
pub(crate) fn live(scenario: &Scenario, seed: u64, dry_run: bool, trail: bool) -> (Vec<String>, Decisions) {
    let Lived { bodies, decisions, .. } = lived(scenario, seed, dry_run, trail);
    (bodies, decisions)
}

pub(crate) fn lived(scenario: &Scenario, seed: u64, dry_run: bool, trail: bool) -> Lived {
    let began = Timestamp::from_millis(1_772_445_600_000);
    let mut setup = (scenario.setup)(seed);
    setup.trail = trail.then_some((Duration::from_secs(5), Duration::from_mins(1)));
    let keys: Vec<_> = setup.services.iter().map(|service| service.key.clone()).collect();
    let file = RuleFile::new("rule.toml", scenario.rules_toml.clone());
    let rules = compile(&[file]).unwrap();
    let protected = keys.into_iter().filter(|key| rules.rule_for(key).is_some()).collect();
    let settings = Settings { dry_run, sweep: Duration::from_secs(30), fleet_brake: 3 };
    let mut worker = Worker {
        engine: Engine::new(settings),
        world: World::new(seed, began, setup),
        now: began,
        bodies: Vec::new(),
        decisions: Decisions::new(),
        green: BTreeMap::new(),
        inputs: Vec::new(),
        incidents: BTreeMap::new(),
    };
    worker.feed(Input::Rules(rules));
    worker.feed(Input::Swept(protected));
    let end = began.plus(scenario.limit);
    while worker.now < end {
        let next = [worker.world.next_event(), worker.engine.next_deadline()].into_iter().flatten().min();
        worker.now = next.unwrap_or(end).max(worker.now.plus(Duration::from_millis(1))).min(end);
        worker.world.advance_to(worker.now);
        worker.feed(Input::Tick);
        worker.receive();
    }
    // A recording goes on, whatever happens to a service, until somebody ends it.
    worker.bodies.push(last_word(end));
    let Worker { bodies, decisions, inputs, incidents, .. } = worker;
    Lived { bodies, decisions, inputs, incidents: incidents.into_values().collect(), settings }
}

/// An event of a service that nobody deploys.
fn last_word(at: Timestamp) -> String {
    let arn = |what: &str| format!("arn:aws:ecs:eu-west-1:111122223333:{what}");
    json!({
        "version": "0", "id": "last", "detail-type": "ECS Service Action", "source": "aws.ecs", "account": "111122223333",
        "time": at, "region": "eu-west-1", "resources": [arn("service/prod/bystander")],
        "detail": { "eventType": "INFO", "eventName": "SERVICE_STEADY_STATE", "clusterArn": arn("cluster/prod") },
    })
    .to_string()
}

struct Worker {
    engine: Engine,
    world: World,
    now: Timestamp,
    bodies: Vec<String>,
    decisions: Decisions,
    green: BTreeMap<ServiceKey, TaskSetId>,
    inputs: Vec<(Timestamp, Input)>,
    incidents: BTreeMap<IncidentId, Incident>,
}

impl Worker {
    fn receive(&mut self) {
        let receive = Call::ReceiveMessage { queue_url: QUEUE.to_owned(), max: 10, visibility: None };
        while let Ok(Reply::Messages(messages)) = self.world.call(receive.clone()) {
            if messages.is_empty() {
                return;
            }
            let receipts = messages.iter().map(|message| message.receipt.clone()).collect();
            let delete = Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts };
            self.world.call(delete).unwrap();
            for message in messages {
                if let Ok(Decoded::Signal(signal)) = events::decode(&message.body) {
                    self.feed(Input::Signal(signal));
                }
                self.bodies.push(message.body);
            }
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let step = self.engine.step(self.now, &input);
            if step.changed {
                self.inputs.push((self.now, input));
            }
            for pair in step.report.notes.windows(2) {
                if let [Note::Decided { service, evidence, .. }, Note::Reached { stage: Stage::Detect, .. }] = pair {
                    let green = self.green[service].clone();
                    self.decisions.insert((service.clone(), green), (self.now, evidence[0].gate.clone()));
                }
            }
            for note in &step.report.notes {
                if let Note::DeploymentBegan { service, green, .. } = note {
                    self.green.insert(service.clone(), green.clone());
                }
            }
            for effect in step.effects {
                match effect {
                    Effect::Observe(ask) => {
                        let answer = direct::observe(&mut self.world, &ask, self.now).map(Box::new);
                        inputs.push_back(Input::Observed(ask.service, answer));
                    }
                    Effect::Write { id, write, .. } => {
                        let outcome =
                            direct::apply(&mut self.world, &write).err().map_or(Outcome::Applied, Outcome::Failed);
                        inputs.push_back(Input::Done(id, outcome));
                    }
                    Effect::Announce(id, _) => inputs.push_back(Input::Done(id, Outcome::Applied)),
                    Effect::Keep(incident) => {
                        self.incidents.insert(incident.id.clone(), incident);
                    }
                }
            }
        }
    }
}

/// What no event tells: gates on reads of target groups and metrics, and what people say through tags.
fn is_told(gate: &Gate) -> bool {
    matches!(gate, Gate::TaskFailures | Gate::ExcessFailures | Gate::SteadyWithin | Gate::Alarm(_))
}

/// What a replay found to be breached.
fn replayed(recording: &Recording) -> Decisions {
    let lines = recording.replay();
    let breached = lines.iter().filter(|line| line["outcome"] == "breached");
    let decision = |line: &Value| {
        let (cluster, service) = text(&line["service"]).split_once('/').unwrap();
        let at = Timestamp::parse(text(&line["breached_at"])).unwrap();
        let gate = serde_json::from_value(line["gate"].clone()).unwrap();
        ((ServiceKey::new(cluster, service), TaskSetId::new(text(&line["task_set"]))), (at, gate))
    };
    breached.map(decision).collect()
}

/// How the two differ, if they do, and how many decisions were compared.
fn difference(scenario: &Scenario, seed: u64, dry_run: bool, trail: bool) -> Result<usize, String> {
    let (bodies, mut lived) = live(scenario, seed, dry_run, trail);
    lived.retain(|_, (_, gate)| is_told(gate));
    if !trail {
        // Only CloudTrail says which target group is whose, while no task of it fails its health checks.
        lived.retain(|_, (_, gate)| !matches!(gate, Gate::Alarm(_)));
    }
    let found = replayed(&Recording::of(&scenario.rules_toml, &bodies));
    let near = |one: Timestamp, other: Timestamp| one.since(other).max(other.since(one)) <= DELAY;
    let agrees = |(key, (at, gate)): (&_, &(Timestamp, Gate))| {
        found.get(key).is_some_and(|(other, its)| its == gate && near(*at, *other))
    };
    if lived.len() == found.len() && lived.iter().all(agrees) {
        return Ok(lived.len());
    }
    let name = scenario.name;
    Err(format!("{name}, seed {seed}, dry run {dry_run}, trail {trail}:\n  lived    {lived:?}\n  replayed {found:?}"))
}

#[test]
fn a_replay_decides_what_the_worker_decided_on_the_same_events() {
    let scenarios = scenario::all();
    let (even, odd): (Vec<_>, Vec<_>) = scenarios.iter().enumerate().partition(|(number, _)| number % 2 == 0);
    let run = |half: Vec<(usize, &Scenario)>| {
        let both = |(_, scenario)| [difference(scenario, 7, true, false), difference(scenario, 8, false, true)];
        half.into_iter().flat_map(both).collect::<Vec<_>>()
    };
    let mut results = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(odd));
        let results = run(even);
        results.into_iter().chain(other.join().unwrap()).collect::<Vec<_>>()
    });
    let wrong: Vec<_> = results.extract_if(.., |result| result.is_err()).filter_map(Result::err).collect();
    let compared: usize = results.into_iter().flatten().sum();
    assert!(wrong.is_empty(), "{} differ, {compared} agree:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 30, "only {compared} decisions were compared");
}
