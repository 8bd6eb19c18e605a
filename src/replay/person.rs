//! What people made of a deployment, by the recording's own later events: to compare a rule's decision with theirs.

use std::collections::BTreeMap;

use crate::model::{TaskSetId, Timestamp};

/// How a deployment ended, by other hands than the guardian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Green was deleted or drained while blue lived on, or its weight was taken away.
    Undone,
    /// Blue was deleted or drained while green lived on.
    Kept,
}

/// What was told of each green.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `None` where the guardian itself did it, which says nothing about what people wanted.
    fates: BTreeMap<TaskSetId, Option<Fate>>,
    /// The first failed task of each task set.
    failed: BTreeMap<TaskSetId, Timestamp>,
}

impl Told {
    pub(super) fn fate(&self, green: &TaskSetId) -> Option<Fate> {
        self.fates.get(green).copied().flatten()
    }

    pub(super) fn first_failure(&self, of: &TaskSetId) -> Option<Timestamp> {
        self.failed.get(of).copied()
    }

    pub(super) fn failed(&mut self, of: &TaskSetId, at: Timestamp) {
        self.failed.entry(of.clone()).or_insert(at);
    }

    /// What became of a green. The first word on it counts.
    pub(super) fn decide(&mut self, green: &TaskSetId, fate: Fate, own: bool) {
        self.fates.entry(green.clone()).or_insert((!own).then_some(fate));
    }
}
