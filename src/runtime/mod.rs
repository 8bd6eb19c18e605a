//! The runtime room.

mod observe;

pub use observe::Observer;
