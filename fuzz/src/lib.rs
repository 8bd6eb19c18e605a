//! What must hold for any input. One function for each fuzz target; libFuzzer looks for inputs that break it
//! (`fuzz_targets/`), and `cargo test --test fuzz` replays those of the corpus.
//!
//! A function returns when all is well, also for an input that says nothing, and panics with what is wrong.
#![allow(unreachable_pub, reason = "the test that replays the corpus takes this file as a module of its own")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a broken promise is told by a panic"
)]

mod elb_actions;
mod engine;
mod events;
mod journal;
mod rules;
mod table;
mod wire;
#[allow(clippy::wildcard_imports, reason = "as in tests")]
#[path = "../../tests/support/mod.rs"]
mod world;

use std::borrow::Cow;

pub use self::elb_actions::elb_actions;
pub use self::events::events;
pub use self::journal::journal;
pub use self::rules::rules;
pub use self::table::table;

/// What a target promises of every input.
pub type Promise = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Promise); 5] =
    [("events", events), ("rules", rules), ("journal", journal), ("table", table), ("elb_actions", elb_actions)];

/// Documents of one input: they are apart by a line of three hyphens, which is neither JSON nor TOML.
fn documents(data: &[u8]) -> Vec<String> {
    // What is no UTF-8 reaches neither decoder.
    let text: Cow<'_, str> = String::from_utf8_lossy(data);
    text.split("\n---\n").map(str::to_owned).collect()
}
