//! One line of the journal: an input and when the engine took it.

use serde::{Deserialize, Serialize};

use crate::engine::Input;
use crate::model::Timestamp;

/// Read back from the journal.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// The time that the step was given: a replay gives it again.
    pub at: Timestamp,
    /// What the step was given.
    pub input: Input,
}

#[derive(Serialize)]
struct EntryRef<'a> {
    at: Timestamp,
    input: &'a Input,
}

/// Makes bytes of entries, and has room for that once: each comes out as long as it is.
#[derive(Debug, Default)]
pub struct Encoder {
    room: Vec<u8>,
}

impl Encoder {
    /// To bytes.
    ///
    /// # Errors
    /// Only when an input has a shape that JSON has not.
    pub fn encode(&mut self, at: Timestamp, input: &Input) -> Result<Vec<u8>, serde_json::Error> {
        self.room.clear();
        serde_json::to_writer(&mut self.room, &EntryRef { at, input })?;
        Ok(self.room.as_slice().to_vec())
    }
}

/// One entry to bytes.
///
/// # Errors
/// As [`Encoder::encode`].
pub fn encode(at: Timestamp, input: &Input) -> Result<Vec<u8>, serde_json::Error> {
    Encoder::default().encode(at, input)
}

/// From bytes.
///
/// # Errors
/// When they are not an entry of this version.
pub fn decode(bytes: &[u8]) -> Result<Entry, serde_json::Error> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::{
        AlarmName, AlarmReading, AlarmValue, Ask, CallError, Controller, EffectId, ErrorClass, Observation, Outcome,
        Sample, Scope, ServiceKey, ServiceReading, ServiceStatus, TargetCounts, TargetGroupArn, Traffic, Urgency,
    };
    use crate::rules::RuleSet;

    #[test]
    fn every_input_comes_back_as_it_was() {
        let service = ServiceKey::new("prod", "checkout");
        let error = CallError {
            class: ErrorClass::NotFound,
            operation: "ecs:DescribeServices".into(),
            code: None,
            message: "gone".into(),
        };
        let observation = Observation {
            ask: Ask {
                service: service.clone(),
                tasks: Vec::new(),
                find_stopped: true,
                alarms: BTreeSet::from([AlarmName::new("5xx")]),
                find_alarms: false,
                twice: true,
                find_listeners: true,
                groups: BTreeSet::from([TargetGroupArn::new("green")]),
                samples: None,
                urgency: Urgency::Traffic,
            },
            read_at: Timestamp::from_millis(7),
            service: ServiceReading {
                scope: Scope::default(),
                status: ServiceStatus::Active,
                controller: Controller::Other("NEW".into()),
                desired_count: 3,
                task_sets: Vec::new(),
                tags: BTreeMap::from([("a".into(), "b".into())]),
            },
            task_sets_again: None,
            traffic: Traffic::NoLoadBalancer,
            targets: BTreeMap::from([(TargetGroupArn::new("arn:tg"), TargetCounts::default())]),
            tasks: Vec::new(),
            alarms: Some(vec![AlarmReading {
                name: AlarmName::new("5xx"),
                value: AlarmValue::InsufficientData,
                since: Timestamp::EPOCH,
                reason: "r".into(),
                doubt: None,
                target_groups: BTreeSet::new(),
            }]),
            alarms_unlisted: true,
            samples: Some(BTreeMap::from([(TargetGroupArn::new("green"), vec![Sample::empty(Timestamp::EPOCH)])])),
        };
        for input in [
            Input::Swept(BTreeSet::from([service.clone()])),
            Input::LetGo(BTreeSet::from([service.clone()])),
            Input::Observed(service.clone(), Ok(Box::new(observation))),
            Input::Observed(service, Err(error.clone())),
            Input::Done(EffectId(3), Outcome::Failed(error)),
            Input::Done(EffectId(4), Outcome::Applied),
            Input::Rules(RuleSet::default()),
            Input::Tick,
            Input::Restarted,
        ] {
            let at = Timestamp::from_millis(1_772_445_880_989);
            let read = decode(&encode(at, &input).unwrap()).unwrap();
            assert_eq!((read.at, read.input), (at, input));
        }
    }
}
