//! AWS: the adapters that implement the ports. The only room that names an SDK.
//!
//! [`Aws::connect`] reads the environment once (profile, task role, Region, `AWS_ENDPOINT_URL*`); its methods hand out one
//! adapter per port. Nothing in here decides anything: an adapter calls, maps to the model's types and puts errors into
//! the classes of [`ErrorClass`].

mod actions;
mod actuator;
mod calls;
mod cloudwatch;
mod company;
mod delivery;
mod dynamodb;
mod ecs;
mod elb;
mod errors;
mod eventbridge;
mod pace;
mod sqs;
mod tagging;
mod unread;
#[cfg(test)]
mod wire_tests;

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_smithy_types::DateTime;

pub use self::actuator::Writer;
use self::calls::{Calls, Operation};
pub use self::cloudwatch::CloudWatch;
pub use self::delivery::{Delivery, EventRule, QueueReading};
pub use self::dynamodb::DynamoTable;
pub use self::ecs::Ecs;
pub use self::elb::Elb;
pub use self::eventbridge::Bus;
use self::pace::Pace;
pub use self::sqs::Queue;
pub use self::tagging::Tagging;
use crate::model::{CallError, ErrorClass, SOURCE, Timestamp};
use crate::ports::Recorder;

/// One attempt of a call. These APIs answer within a second; the SDK itself sets no limit at all.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// A call with all its attempts: three times five seconds, and the pauses between.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Attempts of a read, the first included.
const READ_ATTEMPTS: u32 = 3;

/// Pause before the second attempt of a read, growing from there. The SDK's own second is long when a rollback waits.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// Lists and descriptions of services a second. ECS allows an account 20, and a burst of 100. Each observation may also read task
/// sets and tasks; the pace of the load balancers holds these to less than ECS allows.
const SERVICE_READS: u16 = 16;

/// Where the calls go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// As the usual AWS environment says: Region, credentials, endpoints.
    Environment,
    /// To one address for all services, with made-up credentials, whatever the environment says.
    Local {
        /// As in `http://127.0.0.1:4566`.
        url: String,
        /// As in `eu-west-1`.
        region: String,
    },
}

/// The connection to one account and Region.
pub struct Aws {
    config: SdkConfig,
    ecs: aws_sdk_ecs::Client,
    elb: aws_sdk_elasticloadbalancingv2::Client,
    calls: Calls,
    service_reads: Arc<Pace>,
    balancer_reads: Arc<Pace>,
}

impl Aws {
    /// Loads the configuration. No call to AWS is made for it, except what finding the Region on an EC2 host takes.
    ///
    /// # Errors
    /// [`ErrorClass::Rejected`] when no Region is configured.
    pub async fn connect(endpoint: &Endpoint, recorder: Arc<dyn Recorder>) -> Result<Self, CallError> {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let retries = RetryConfig::standard().with_max_attempts(READ_ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
        // A dated version: an update of the SDK must not change time-outs or retries under a running rollback.
        let mut loader =
            aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts).retry_config(retries);
        if let Ok(name) = AppName::new(SOURCE) {
            loader = loader.app_name(name);
        }
        if let Endpoint::Local { url, region } = endpoint {
            let made_up = aws_sdk_ecs::config::Credentials::new("local", "local", None, None, "local");
            loader = loader.endpoint_url(url).region(Region::new(region.clone())).credentials_provider(made_up);
        }
        let config = loader.load().await;
        if config.region().is_none() {
            let nowhere = Operation::new("aws", "Connect");
            return Err(nowhere.error(ErrorClass::Rejected, "no Region is configured: set AWS_REGION"));
        }
        let ecs = aws_sdk_ecs::Client::new(&config);
        let elb = aws_sdk_elasticloadbalancingv2::Client::new(&config);
        let (service_reads, balancer_reads) = Default::default();
        Ok(Self { config, ecs, elb, calls: Calls::new(recorder), service_reads, balancer_reads })
    }

    /// Reads no faster than an account may: services by what ECS allows, load balancers so many times a second, apart from
    /// bursts.
    #[must_use]
    pub fn paced(self, load_balancer_reads: u16) -> Self {
        let pace = |per_second| Arc::new(Pace::new(per_second));
        Self { service_reads: pace(SERVICE_READS), balancer_reads: pace(load_balancer_reads), ..self }
    }

    /// The Region that calls go to.
    pub fn region(&self) -> &str {
        self.config.region().map_or("", Region::as_ref)
    }

    /// The queue, polled for up to `wait` (at most 20 s) at a time.
    pub fn inbox(&self, queue_url: &str, wait: Duration) -> Queue {
        Queue::new(&self.config, self.calls.clone(), queue_url, wait)
    }

    /// ECS, reading.
    pub fn fleet(&self) -> Ecs {
        Ecs::new(self.ecs.clone(), self.calls.clone(), self.service_reads.clone())
    }

    /// Elastic Load Balancing, reading.
    pub fn load_balancers(&self) -> Elb {
        Elb::new(self.elb.clone(), self.calls.clone(), self.balancer_reads.clone())
    }

    /// CloudWatch alarms, reading.
    pub fn alarms(&self) -> CloudWatch {
        CloudWatch::new(&self.config, self.calls.clone())
    }

    /// The tags that register services, and those by which people speak to the worker.
    pub fn tagging(&self) -> Tagging {
        Tagging::new(&self.config, self.ecs.clone(), self.calls.clone())
    }

    /// The way that events take to the queue.
    pub fn delivery(&self) -> Delivery {
        Delivery::new(&self.config, self.calls.clone())
    }

    /// The only one that changes anything. Not to be asked for in a dry run.
    pub fn actuator(&self) -> Writer {
        Writer::new(self.ecs.clone(), self.elb.clone(), self.calls.clone())
    }

    /// The event bus, by name or ARN; the account's default bus when absent.
    pub fn announcer(&self, bus: Option<&str>) -> Bus {
        Bus::new(&self.config, self.calls.clone(), bus)
    }

    /// A DynamoDB table, by name or ARN.
    pub fn table(&self, name: &str) -> DynamoTable {
        DynamoTable::new(&self.config, self.calls.clone(), name)
    }
}

/// AWS's instant in ours. `None` for what no 64-bit number of milliseconds can hold.
fn timestamp(instant: &DateTime) -> Option<Timestamp> {
    instant.to_millis().ok().map(Timestamp::from_millis)
}

/// A count. AWS types them as signed and never sends a negative one.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
