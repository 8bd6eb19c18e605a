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

    /// A task set has ended. `order` are those that there are, oldest first, the one that ended included.
    pub(super) fn ended(&mut self, id: &TaskSetId, order: &[TaskSetId], own: bool) {
        let Some(place) = order.iter().position(|other| other == id) else { return };
        let (older, newer) = (order.get(..place), order.get(place.saturating_add(1)..));
        if older.is_some_and(|older| !older.is_empty()) {
            self.fates.entry(id.clone()).or_insert((!own).then_some(Fate::Undone));
        }
        if let Some(green) = newer.and_then(|newer| newer.first()) {
            self.fates.entry(green.clone()).or_insert((!own).then_some(Fate::Kept));
        }
    }

    /// Green's weight was set to 0.
    pub(super) fn weighed_away(&mut self, green: &TaskSetId, own: bool) {
        self.fates.entry(green.clone()).or_insert((!own).then_some(Fate::Undone));
    }
}
