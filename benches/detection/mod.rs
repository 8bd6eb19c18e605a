//! The detection benchmark: seeded lives of deployments, and what the guardian and other rules make of each.
//!
//! A *life* (`life`, drawn by `class`) is recorded once: every task of blue and green from start to stop, every target's
//! health, every ten seconds of traffic. Nobody intervenes in it, so all rules are judged on the same one: the guardian as
//! the engine that runs in production, read by read and event by event (`guardian`), the others as their documentation
//! tells (`peers`). `figures` adds up what they made of many.

pub mod class;
pub mod draw;
pub mod figures;
pub mod guardian;
pub mod life;
pub mod peers;
pub mod random;
pub mod reading;
pub mod run;
