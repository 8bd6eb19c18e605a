//! What survives a crash: inputs, the engine's checkpoint and incidents.
//!
//! A message is deleted from the queue only after its signal is in here, and an effect is carried out only after the
//! inputs that led to it are. One process owns a journal: a second one is refused when it opens the file, and waits for
//! the lease when the journal is in a table.

mod layout;
mod look;
mod redb;
mod table;

use crate::model::Incident;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
pub(crate) mod fakes;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
mod table_tests;

pub use look::{Kept, read_only};
pub use redb::RedbJournal;
pub use table::TableJournal;

/// An incident out of its row. One of another version is not worth failing for: the rest is told without it.
fn readable(id: &str, json: &[u8]) -> Option<Incident> {
    // Whoever looks at a page asks every two seconds.
    serde_json::from_slice(json).inspect_err(|error| tracing::debug!("Incident {id} can't be read: {error}")).ok()
}
