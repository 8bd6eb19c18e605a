//! The runtime room.

pub mod rule_files;
