//! What survives a crash: inputs, the engine's checkpoint and incidents.
//!
//! A message is deleted from the queue only after its signal is in here, and an effect is carried out only after the
//! inputs that led to it are. One process owns a journal; a second one is refused when it opens the file.

mod redb;

pub use redb::RedbJournal;
