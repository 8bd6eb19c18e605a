//! The embedded AWS twin: a seeded simulated world, and the same world behind the real AWS protocols on loopback.

pub mod api;
pub mod scenario;
pub mod world;
