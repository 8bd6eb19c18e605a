//! A task set's health window: which of its tasks ended, when, and whom that speaks against.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Stop, StopClass, TaskArn, TaskReading, Timestamp};

/// Reads that may miss a claimed failure before it is taken for forged: ECS is eventually consistent, for seconds.
const MISSES: u8 = 3;

/// How many ended tasks a window remembers. A breach needs a handful; the bound keeps a crash loop, or a forger, from
/// growing the state. Those that ECS does not know go first, then those that do not speak against the version, then claims
/// before what ECS confirmed, then the oldest: no flood of forged events pushes out what is true.
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
    /// Reads that did not know of it.
    pub misses: u8,
}

/// An event claims; only a read from ECS confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Said by an event.
    Claimed,
    /// Said by ECS itself.
    Confirmed,
    /// ECS does not know of it: forged. Never counted, unless a sweep finds it after all.
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
                *known = TaskRecord { version, stop: stop.clone(), standing: Standing::Claimed, misses: 0 };
                true
            }
            None => {
                let record = TaskRecord { version, stop: stop.clone(), standing: Standing::Claimed, misses: 0 };
                self.tasks.insert(task.clone(), record);
                self.evict();
                self.tasks.contains_key(task)
            }
        }
    }

    /// Takes what ECS says of a task. ECS's word replaces the claim.
    pub fn confirm(&mut self, reading: &TaskReading) {
        match &reading.stop {
            Some(stop) => {
                let record = TaskRecord {
                    version: reading.version,
                    stop: stop.clone(),
                    standing: Standing::Confirmed,
                    misses: 0,
                };
                self.tasks.insert(reading.task.clone(), record);
                self.evict();
            }
            None => self.missed(&reading.task),
        }
    }

    /// ECS was asked and does not know of the failure, or not yet.
    pub fn missed(&mut self, task: &TaskArn) {
        if let Some(known) = self.tasks.get_mut(task)
            && known.standing == Standing::Claimed
        {
            known.misses = known.misses.saturating_add(1);
            if known.misses >= MISSES {
                known.standing = Standing::Unconfirmed;
            }
        }
    }

    /// Tasks whose claimed end ECS is still to be asked about, newest first.
    pub fn claims(&self) -> Vec<&TaskArn> {
        let mut found: Vec<_> = self.tasks.iter().filter(|(_, record)| record.standing == Standing::Claimed).collect();
        found.sort_by_key(|(task, record)| (std::cmp::Reverse(record.stop.at), *task));
        found.into_iter().map(|(task, _)| task).collect()
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
            let worth = |record: &TaskRecord| {
                let standing = match record.standing {
                    Standing::Unconfirmed => 0,
                    Standing::Claimed => 1,
                    Standing::Confirmed => 2,
                };
                (standing > 0, record.stop.class == StopClass::Version, standing, record.stop.at)
            };
            let least = self.tasks.iter().min_by_key(|(task, record)| (worth(record), *task));
            match least.map(|(task, _)| task.clone()) {
                Some(task) => self.tasks.remove(&task),
                None => break,
            };
        }
    }
}
