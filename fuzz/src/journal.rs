//! The journal's bytes: arbitrary entries through their codec, arbitrary checkpoints, and an engine that goes on from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taskset_guardian::engine::{Engine, Input};
use taskset_guardian::model::{
    AlarmChange, AlarmDeleted, AlarmName, EffectId, Fact, Outcome, Scope, ServiceAction, ServiceKey, Signal,
    TaskChange, Timestamp,
};
use taskset_guardian::rules::RuleSet;
use taskset_guardian::runtime::entry::{self, Entry};

use super::engine;
use super::world::{Aws, Driver, failed, key, red, rule, scope, start, stopped};

/// Lines of a journal: each a checkpoint, or an entry after it.
pub fn journal(data: &[u8]) {
    let mut it = Driver::idle(Aws::blue_and_green(), false);
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(restored) = Engine::restore(it.settings, line) {
            it.engine = restored;
            engine::survives_a_restart(&it);
        } else if let Ok(Entry { at, input }) = entry::decode(line) {
            same(at, &input);
            let _ = it.engine.step(at, &input);
        }
    }
    engine::survives_a_restart(&it);
    it.now = start();
    for input in every_kind(&it.engine) {
        it.feed(input);
    }
    engine::goes_on(&mut it);
    engine::survives_a_restart(&it);
}

fn same(at: Timestamp, input: &Input) {
    let bytes = entry::encode(at, input).unwrap_or_else(|error| panic!("{input:?} can't be written down: {error}"));
    let read = entry::decode(&bytes)
        .unwrap_or_else(|error| panic!("{} can't be read again: {error}", String::from_utf8_lossy(&bytes)));
    assert_eq!((read.at, &read.input), (at, input), "the codec changes an entry");
}

/// One input of every kind and fact, for services that the engine knows and for one that it may not. Reads that are asked for
/// are answered by the driver.
fn every_kind(engine: &Engine) -> Vec<Input> {
    let known = engine.status(start()).services.into_iter().map(|view| view.service);
    let services: BTreeSet<ServiceKey> = known.take(4).chain([key()]).collect();
    let rules = RuleSet { rules: vec![Arc::new(rule())] };
    let mut inputs = vec![
        Input::Restarted,
        Input::Tick,
        Input::ClockSet { by_ms: -60_000 },
        Input::Rules(rules),
        Input::Swept(services.clone()),
    ];
    inputs.push(Input::Registered(services.iter().map(|service| (service.clone(), "web".into())).collect()));
    inputs.push(Input::Registered(BTreeMap::new()));
    let signal = |fact| Input::Signal(Signal { at: start(), scope: scope(), replayed: false, fact });
    for service in services {
        let change = |task| TaskChange { service: service.clone(), ..stopped("ecs-svc/2000", task, start()) };
        inputs.extend(["a", "b", "c"].map(|task| signal(Fact::Task(change(task)))));
        let name = "SERVICE_TASK_SET_STEADY".into();
        inputs.push(signal(Fact::Service(ServiceAction { service: service.clone(), name })));
        for error in [None, Some("AccessDeniedException"), Some("ServiceNotFoundException")] {
            inputs.push(Input::Observed(service.clone(), Err(failed(error))));
        }
    }
    let alarm = red("checkout-5xx", start(), &["green"]);
    inputs.push(signal(Fact::Alarm(AlarmChange { alarm })));
    inputs.push(signal(Fact::AlarmDeleted(AlarmDeleted { name: AlarmName::new("checkout-5xx") })));
    let foreign = Scope { account: "999999999999".into(), ..scope() };
    let fact = Fact::AlarmDeleted(AlarmDeleted { name: AlarmName::new("x") });
    inputs.push(Input::Signal(Signal { at: start(), scope: foreign, replayed: true, fact }));
    let outcomes = [Outcome::Failed(failed(None)), Outcome::Expired, Outcome::Suppressed, Outcome::AlreadyDone];
    inputs.extend((1..).zip(outcomes).map(|(id, outcome)| Input::Done(EffectId(id), outcome)));
    inputs
}
