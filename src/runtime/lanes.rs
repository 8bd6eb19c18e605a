//! One port in several lanes: calls of one urgency do not wait for those of another.

use std::sync::Arc;

use crate::model::Urgency;

/// The same port for each urgency.
pub(super) struct Lanes<T: ?Sized>([Arc<T>; Urgency::ALL.len()]);

impl<T: ?Sized> Lanes<T> {
    /// All go the same way.
    pub(super) fn one(port: &Arc<T>) -> Self {
        Self::each(|_| port.clone())
    }

    /// Each goes its own.
    pub(super) fn each(port: impl Fn(Urgency) -> Arc<T>) -> Self {
        Self(Urgency::ALL.map(port))
    }

    pub(super) fn at(&self, urgency: Urgency) -> &Arc<T> {
        &self.0[urgency as usize]
    }
}

impl<T: ?Sized> Clone for Lanes<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
