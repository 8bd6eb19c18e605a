//! `replay`: what it says of recordings, and that it decides as the worker did that lived through them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod docs;
mod hostile;
mod journal;
mod live;
mod recorded;
mod scenes;
