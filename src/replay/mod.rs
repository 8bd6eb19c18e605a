//! Replay: recorded events through the engine that decides in life.
//!
//! In life an event is a hint and a read is the authority. A recording has no reads, so here it is the authority itself:
//! [`World`] is what the events so far say of the task sets, and [`Replay`] answers every read of the engine out of it. The
//! engine runs dry, so nothing that it decides changes what the recording tells next.
//!
//! A recording is gone through in order of time, and twice: a [`Survey`] finds out which task sets there are, how old each
//! is and which target group it has, because the first event that names a task set may say none of it; then the world is
//! played, one event after the other, and the engine with it.

mod driver;
mod event;
mod journal;
mod ledger;
mod person;
mod survey;
mod sweep;
mod world;

pub use driver::Replay;
pub use event::{Event, LONGEST_LINE, Recorded, Unreadable, read};
pub use journal::again;
pub use ledger::{Line, Outcome};
pub use person::Fate;
pub use survey::Survey;
pub use sweep::{Setting, Tally, grid};
pub use world::World;
