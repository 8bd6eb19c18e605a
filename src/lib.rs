//! taskset-guardian.
#![forbid(unsafe_code)]
pub mod model;
pub mod ports;
