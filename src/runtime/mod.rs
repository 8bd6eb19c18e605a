//! The tokio shell around the pure engine: everything that waits.
//!
//! ```text
//! inbox -> pump -> signals --+                  +-> journal, then
//!                            +-> turn (engine) -+-> executor -> AWS
//! sweep, reload, executor ---+   control        +-> receipts -> inbox (delete)
//! ```
//!
//! One task turns the engine. Inputs come in concurrently and are taken serially; what they cause leaves the task only
//! after the inputs are durable. All other tasks only feed it or work for it, so there is one order of events, and the
//! journal holds it.
//!
//! Of several replicas one acts (`leader`). A replica that takes over begins like one that was restarted: there is no
//! other path.

mod clock;
pub mod entry;
mod executor;
mod handle;
mod health;
mod lanes;
mod leader;
pub mod lease;
mod machine;
pub mod mutants;
mod observe;
mod pump;
mod receipts;
mod reload;
pub mod rule_files;
mod sweep;
mod together;
mod turn;
mod worker;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
pub(crate) mod fakes;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
mod leader_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]
mod tests;

pub use clock::{SystemClock, WallClockWatch, doubt_age};
pub use executor::Observe;
pub use handle::{Handle, StatusReply, WorkerView};
pub use health::{Health, Part};
pub use machine::Machine;
pub use observe::Observer;
pub use pump::{Decoded, Decoder, decoder};
pub use reload::{LoadedRules, RuleLoader, blocking_loader};
pub use sweep::{Listing, list};
pub use worker::{Hook, Ports, Settings, Worker, WorkerError};
