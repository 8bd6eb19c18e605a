//! The embedded AWS twin: a seeded simulated world, and the same world behind the real AWS protocols on loopback.

pub mod api;
pub mod client;
pub mod clock;
pub mod direct;
mod readings;
pub mod scenario;
pub mod wire;
pub mod world;
