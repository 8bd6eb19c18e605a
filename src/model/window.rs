//! A task set's health window: which of its tasks ended, when, and whom that speaks against.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Stop, StopClass, TaskArn, TaskReading, Timestamp};

/// How many ended tasks a window remembers. A breach needs a handful; the bound keeps a crash loop, or a forger, from
/// growing the state. The oldest go first.
const CAPACITY: usize = 128;

/// Ended tasks of one task set, by event time. The same events in any order and multiplicity give the same window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    tasks: BTreeMap<TaskArn, TaskRecord>,
}

/// One ended task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// ECS's counter for the newest event or reading.
    pub version: u64,
    /// How it ended.
    pub stop: Stop,
    /// What a read from ECS said about the claim.
    pub standing: Standing,
}

/// An event claims; only a read from ECS confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Said by an event.
    Claimed,
    /// Said by ECS itself.
    Confirmed,
    /// ECS does not know of it: forged, or not yet visible. Asked again at the next sweep, never counted.
    Unconfirmed,
}

impl Window {
    /// Takes an event's claim. Returns false when it says nothing new (a duplicate, or older than what is known).
    pub fn claim(&mut self, task: &TaskArn, version: u64, stop: &Stop) -> bool {
        match self.tasks.get_mut(task) {
            // ECS's own word stands: what it said of an ended task does not change any more.
            Some(known) if known.standing == Standing::Confirmed => false,
            // Equal versions are duplicates; should they differ, the greater wins in either order of arrival.
            Some(known) if (known.version, &known.stop) >= (version, stop) => false,
            Some(known) => {
                *known = TaskRecord { version, stop: stop.clone(), standing: Standing::Claimed };
                true
            }
            None => {
                let record = TaskRecord { version, stop: stop.clone(), standing: Standing::Claimed };
                self.tasks.insert(task.clone(), record);
                self.evict();
                self.tasks.contains_key(task)
            }
        }
    }

    /// Takes what ECS says of a task. A task that ECS does not want to stop refutes the claim.
    pub fn confirm(&mut self, reading: &TaskReading) {
        match &reading.stop {
            Some(stop) => {
                let record = TaskRecord { version: reading.version, stop: stop.clone(), standing: Standing::Confirmed };
                self.tasks.insert(reading.task.clone(), record);
                self.evict();
            }
            None => self.unconfirmed(&reading.task),
        }
    }

    /// ECS was asked and does not know of the failure.
    pub fn unconfirmed(&mut self, task: &TaskArn) {
        if let Some(known) = self.tasks.get_mut(task)
            && known.standing == Standing::Claimed
        {
            known.standing = Standing::Unconfirmed;
        }
    }

    /// Tasks whose end speaks against the version, with `from <= at <= to`, oldest first.
    pub fn failures(&self, from: Timestamp, to: Timestamp) -> Vec<(&TaskArn, &TaskRecord)> {
        let mut found: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, record)| record.stop.class == StopClass::Version && (from..=to).contains(&record.stop.at))
            .collect();
        found.sort_by_key(|(task, record)| (record.stop.at, *task));
        found
    }

    /// Forgets what ended more than `keep` ago.
    pub fn expire(&mut self, now: Timestamp, keep: Duration) {
        let horizon = now.minus(keep);
        self.tasks.retain(|_, record| record.stop.at >= horizon);
    }

    /// When the newest of its tasks ended.
    pub fn newest(&self) -> Option<Timestamp> {
        self.tasks.values().map(|record| record.stop.at).max()
    }

    /// All records, by task.
    pub fn records(&self) -> impl Iterator<Item = (&TaskArn, &TaskRecord)> {
        self.tasks.iter()
    }

    /// Nothing recorded.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn evict(&mut self) {
        while self.tasks.len() > CAPACITY {
            let oldest =
                self.tasks.iter().min_by_key(|(task, record)| (record.stop.at, *task)).map(|(task, _)| task.clone());
            match oldest {
                Some(task) => self.tasks.remove(&task),
                None => break,
            };
        }
    }
}
