//! taskset-guardian: rolls ECS task sets back when green goes bad.
//!
//! Data falls through the rooms in one direction:
//!
//! ```text
//! SQS -> events -> journal -> engine -> effects -> aws
//!                               ^  |
//!          sweep observations --+  +-> incidents, metrics, announcements
//! ```
//!
//! | room | what it is for |
//! |---|---|
//! | [`model`] | pure: the vocabulary that every room speaks |
//! | [`rules`] | pure: rule files, their checks and diagnostics |
//! | [`events`] | pure: EventBridge JSON in, signals out |
//! | [`engine`] | pure: the state machine that decides |
//! | [`replay`] | pure: recorded events through the engine, with the recording in place of reads |
//! | [`ports`] | what the shell needs from the outside, in the domain's words |
//! | [`aws`] | the ports against AWS; the only room that names an SDK |
//! | [`journal`] | durable inputs and incidents |
//! | [`telemetry`] | metrics and logs, rendered from the engine's reports |
//! | [`runtime`] | everything that waits: pump, engine loop, executor, sweep |
//! | [`http`] | metrics, health, status, incidents and the status page |
//! | [`sandbox`] | an AWS twin: a simulated world behind the real protocols |
//! | [`cli`] | one file per verb |
//!
//! Dependency rule, held by a test: `model <- {rules, events} <- engine <- replay`; `model <- ports <- {aws, journal, sandbox}`;
//! `{engine, ports} <- telemetry <- runtime <- http <- cli <- main`, and `replay <- cli`.
#![forbid(unsafe_code)]

pub mod aws;
pub mod cli;
pub mod engine;
pub mod events;
pub mod http;
pub mod journal;
pub mod model;
pub mod ports;
pub mod replay;
pub mod rules;
pub mod runtime;
pub mod sandbox;
pub mod telemetry;
