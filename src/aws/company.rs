//! Questions that wait for the same call, and share its answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Those who wait, by what they wait for, each with its own part of the question.
#[derive(Debug)]
pub(super) struct Company<K, V, Q = ()>(Mutex<BTreeMap<K, Asked<V, Q>>>);

/// Questions, and where their answers go.
pub(super) type Asked<V, Q> = Vec<(Q, oneshot::Sender<V>)>;

impl<K, V, Q> Default for Company<K, V, Q> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone, V, Q> Company<K, V, Q> {
    /// Whether it is the first, who has to see to the call.
    pub(super) fn join(&self, key: &K, question: Q) -> (bool, oneshot::Receiver<V>) {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting();
        let asked = waiting.entry(key.clone()).or_default();
        asked.push((question, answer));
        (asked.len() == 1, answered)
    }

    /// The call is sent now, for those who have not given up: who comes later waits for the next one.
    pub(super) fn take(&self, key: &K) -> Asked<V, Q> {
        let mut asked = self.waiting().remove(key).unwrap_or_default();
        asked.retain(|(_, answer)| !answer.is_closed());
        asked
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<K, Asked<V, Q>>> {
        // Lists of who waits are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_for_whoever_has_given_up() {
        let company: Company<&str, u8> = Company::default();
        let (first, gone) = company.join(&"listener", ());
        let (second, waits) = company.join(&"listener", ());
        assert!(first && !second);
        drop(gone);
        assert_eq!(company.take(&"listener").len(), 1);
        drop(waits);
        let (first, gone) = company.join(&"listener", ());
        drop(gone);
        assert!(first && company.take(&"listener").is_empty());
    }
}
