//! The events room.

mod stop;

pub use stop::{classify, cut, target_group_in};
