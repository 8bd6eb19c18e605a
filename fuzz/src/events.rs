//! Events: arbitrary bodies through the decoder, the journal's codec and an engine that watches a deployment.

use taskset_guardian::engine::Input;
use taskset_guardian::events::{Decoded, decode};
use taskset_guardian::model::{Signal, TargetGroupArn, TaskSetId, Timestamp};
use taskset_guardian::runtime::entry;

use super::world::{self, Aws, Driver, GREEN};
use super::{documents, engine};

/// Bytes that one signal takes in the journal: ten containers with two texts of 256 bytes each, all of them escaped, and a
/// dozen names of 1024.
const LARGEST_SIGNAL: usize = 64 * 1024;

/// Bytes of a state that was told nothing yet.
const EMPTY_STATE: usize = 16 * 1024;

/// Message bodies, one after the other.
pub fn events(data: &[u8]) {
    let mut it = watching();
    let mut told = 0;
    for body in documents(data) {
        if let Some(signal) = decoded(&body) {
            told += journaled(&signal);
            it.feed(Input::Signal(signal));
        }
    }
    let state = it.engine.checkpoint().map_or(0, |state| state.len());
    // A failed task stands in a window, in the evidence, in an incident and in what is announced of it.
    assert!(state <= EMPTY_STATE + 16 * told, "{told} bytes of signals make a state of {state}");
    engine::survives_a_restart(&it);
    engine::goes_on(&mut it);
    engine::survives_a_restart(&it);
}

/// The deployment that the fixtures of events speak of, a quarter of an hour after its begin.
fn watching() -> Driver {
    let mut aws = Aws::blue_and_green();
    let dimension = "targetgroup/checkout-green/1a2b3c4d5e6f7a8b";
    let group = TargetGroupArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:111122223333:{dimension}"));
    aws.set(GREEN).target_group = Some(group);
    aws.set(GREEN).id = TaskSetId::new("ecs-svc/4420815973316504711");
    let mut it = Driver::idle(aws, false);
    it.now = Timestamp::parse("2026-03-02T10:15:30Z").expect("a time");
    it.protect(world::rule());
    it
}

fn decoded(body: &str) -> Option<Signal> {
    let decoded = decode(body);
    assert_eq!(decode(body), decoded, "decoding twice gives two answers");
    match decoded {
        Ok(Decoded::Signal(signal)) => Some(signal),
        Ok(Decoded::Ignored(ignored)) => {
            assert!(ignored.detail_type.len() <= 128, "a detail type is kept at full length: {ignored:?}");
            None
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() <= 300, "an error of {} bytes: {said}", said.len());
            None
        }
    }
}

/// Through the journal and back. Returns how many bytes it took there.
fn journaled(signal: &Signal) -> usize {
    let input = Input::Signal(signal.clone());
    let bytes = entry::encode(signal.at, &input).expect("a signal can be written down");
    assert!(bytes.len() <= LARGEST_SIGNAL, "a signal of {} bytes", bytes.len());
    let read = entry::decode(&bytes).unwrap_or_else(|error| panic!("the journal can't read its entry: {error}"));
    assert_eq!((read.at, read.input), (signal.at, input), "the journal changes a signal");
    bytes.len()
}
