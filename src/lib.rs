//! taskset-guardian: rolls ECS task sets back when green goes bad.
#![forbid(unsafe_code)]

pub mod aws;
pub mod cli;
pub mod engine;
pub mod events;
pub mod http;
pub mod journal;
pub mod model;
pub mod ports;
pub mod rules;
pub mod runtime;
pub mod sandbox;
pub mod telemetry;
