//! A CloudWatch for the guardian: moto does not speak its present protocol.

use taskset_guardian::model::Timestamp;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};

/// A CloudWatch without alarms.
pub(crate) struct NoAlarms;

impl Backend for NoAlarms {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        match call {
            Call::DescribeAlarms { .. } => Ok(Reply::Alarms(Vec::new())),
            other => Err(ApiError::client("InvalidAction", format!("only DescribeAlarms is expected here: {other:?}"))),
        }
    }
}

impl Timed for NoAlarms {
    fn advance_to(&mut self, _now: Timestamp) {}

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn next_event(&self) -> Option<Timestamp> {
        None
    }
}
