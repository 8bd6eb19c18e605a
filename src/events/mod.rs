//! EventBridge events, decoded: JSON goes in, one attributed [`Signal`](crate::model::Signal) comes out.

mod stop;

pub use stop::{classify, cut, target_group_in};
