//! How the guardian shows what it does: metrics, logs, and sentences for people. All are renderings of
//! [`crate::engine::Report`] and [`crate::engine::ServiceView`]; nothing here decides.

mod history;
mod logs;
mod metrics;
mod narrate;

pub use history::{History, Sample};
pub use logs::{LogError, LogFormat, init, log_report};
pub use metrics::{MessageOutcome, Metrics};
pub use narrate::narrate;
