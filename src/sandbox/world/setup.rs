//! What a world is made of: services, how their versions behave, alarms, timings, and the deployer's script.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{AlarmValue, Role, ServiceKey};

/// A whole world, before its first moment.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The services, each steady on its first version when the world begins.
    pub services: Vec<ServiceSetup>,
    /// How versions behave, by task definition as in `checkout:88`. Those not named here are sound.
    pub versions: BTreeMap<String, Version>,
    /// The alarms.
    pub alarms: Vec<AlarmSetup>,
    /// Name of the guardian's queue. Its dead-letter queue has `-dlq` appended.
    pub queue: String,
    /// How long a received message stays invisible, unless the receiver says otherwise.
    pub visibility: Duration,
    /// A message received this often goes to the dead-letter queue.
    pub max_receives: u32,
    /// How fast things go.
    pub timing: Timing,
    /// How EventBridge delivers.
    pub delivery: Delivery,
    /// S13: how long after the last shift a delete may come.
    pub drain: Duration,
    /// S12: every mutating ECS or ELB call is a violation.
    pub expect_no_writes: bool,
    /// Every n-th call of an operation, as in `DescribeServices`, is throttled. 1 throttles all of them.
    pub throttle: BTreeMap<String, u32>,
}

/// One service behind the load balancer.
#[derive(Clone, Debug)]
pub struct ServiceSetup {
    /// Its names.
    pub key: ServiceKey,
    /// EXTERNAL, CODE_DEPLOY or ECS.
    pub controller: String,
    /// Tasks.
    pub desired: u32,
    /// Task definition of the first task set.
    pub version: String,
    /// Its share of the service's desired count, in percent.
    pub scale: f64,
    /// What the load balancer does for it. The users spread evenly over these.
    pub routes: Vec<RouteSetup>,
    /// What its users send.
    pub requests_per_second: u32,
    /// Service tags.
    pub tags: BTreeMap<String, String>,
    /// What the people who deploy it do, at which time after the beginning.
    pub script: Vec<(Duration, Act)>,
}

/// One listener rule, or the listener's default action, that forwards to the service's two target groups.
#[derive(Clone, Debug)]
pub struct RouteSetup {
    /// The rule's condition; `None` makes it the listener's default action.
    pub path: Option<String>,
    /// Stickiness of the forward action.
    pub sticky: Option<Duration>,
    /// An `authenticate-oidc` action comes before the forward.
    pub authenticated: bool,
}

/// How one version behaves.
#[derive(Clone, Debug)]
pub struct Version {
    /// From PENDING to RUNNING.
    pub start_delay: Duration,
    /// Whether its tasks start at all.
    pub start: Start,
    /// Its tasks end by themselves.
    pub crash: Option<Crash>,
    /// It answers the load balancer's health checks as it should.
    pub passes_health_checks: bool,
    /// Share of its answers that are 5xx.
    pub error_rate: f64,
    /// How long its answers take, on average.
    pub latency: Duration,
    /// How long one of its tasks runs, on average, until its Spot capacity is taken away.
    pub spot_interruption: Option<Duration>,
}

/// Whether a version's tasks start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// They do.
    Runs,
    /// The image is not there.
    CannotPull,
    /// Only so many of a task set run; the others stay PENDING.
    AtMost(u32),
}

/// How a version's tasks end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// About this long after they ran.
    pub after: Duration,
    /// Of the container.
    pub exit_code: i32,
    /// The kernel killed it.
    pub out_of_memory: bool,
}

/// One metric alarm. Missing data is not breaching.
#[derive(Clone, Debug)]
pub struct AlarmSetup {
    /// Its name.
    pub name: String,
    /// Whose traffic it watches.
    pub service: ServiceKey,
    /// Which of the two target groups its dimensions name; `None` for the load balancer as a whole.
    pub watches: Option<Role>,
    /// What it looks at.
    pub metric: AlarmMetric,
    /// Seconds: 10, 30, or a multiple of 60.
    pub period: u32,
    /// Breaching periods in a row that make it red.
    pub evaluation_periods: u32,
    /// Breaching above this.
    pub threshold: f64,
    /// Before its first evaluation.
    pub initial: AlarmValue,
}

/// Metrics of `AWS/ApplicationELB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmMetric {
    /// `HTTPCode_Target_5XX_Count`, sum.
    Target5xx,
    /// `TargetResponseTime`, average, in seconds.
    ResponseTime,
}

/// How fast things go.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two health checks of a target.
    pub health_interval: Duration,
    /// Checks in a row that make a target healthy, or unhealthy.
    pub health_threshold: u32,
    /// How long a target drains, and so how long ECS takes to stop its task.
    pub deregistration: Duration,
    /// Least and most time until a changed rule is in force.
    pub propagation: (Duration, Duration),
    /// How long metrics lag behind the traffic.
    pub metrics: Duration,
    /// From a Spot warning to the end.
    pub spot_warning: Duration,
}

/// How EventBridge delivers.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Least and most delay.
    pub delay: (Duration, Duration),
    /// Share of events delivered twice.
    pub duplicates: f64,
    /// Share of events that come up to half a minute late, after younger ones.
    pub stragglers: f64,
}

/// What the people who deploy do. Green is the newest living task set beside an older one, which is blue.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A task set on the target group that is free.
    CreateTaskSet {
        /// Task definition, as in `checkout:88`.
        version: String,
        /// Percent.
        scale: f64,
    },
    /// On every route.
    SetWeights {
        /// 0 to 999.
        blue: u32,
        /// 0 to 999.
        green: u32,
    },
    /// UpdateServicePrimaryTaskSet.
    SetPrimary(Role),
    /// DeleteTaskSet with force.
    DeleteTaskSet(Role),
    /// UpdateTaskSet.
    ScaleTaskSet(Role, f64),
}

impl Default for Setup {
    /// The service prod/checkout, four tasks, 100 requests a second, one rule, no alarms, nobody deploying.
    fn default() -> Self {
        Self {
            services: vec![ServiceSetup::default()],
            versions: BTreeMap::new(),
            alarms: Vec::new(),
            queue: "taskset-guardian".to_owned(),
            visibility: Duration::from_secs(30),
            max_receives: 5,
            timing: Timing::default(),
            delivery: Delivery::default(),
            drain: Duration::from_secs(15),
            expect_no_writes: false,
            throttle: BTreeMap::new(),
        }
    }
}

impl Default for ServiceSetup {
    fn default() -> Self {
        Self {
            key: ServiceKey::new("prod", "checkout"),
            controller: "EXTERNAL".to_owned(),
            desired: 4,
            version: "checkout:87".to_owned(),
            scale: 100.0,
            routes: vec![RouteSetup::default()],
            requests_per_second: 100,
            tags: BTreeMap::new(),
            script: Vec::new(),
        }
    }
}

impl Default for RouteSetup {
    /// One listener rule for every path, not sticky.
    fn default() -> Self {
        Self { path: Some("/*".to_owned()), sticky: None, authenticated: false }
    }
}

impl Default for Version {
    /// Sound: it starts, answers within 40 ms, and fails one request in ten thousand.
    fn default() -> Self {
        Self {
            start_delay: Duration::from_secs(6),
            start: Start::Runs,
            crash: None,
            passes_health_checks: true,
            error_rate: 0.0001,
            latency: Duration::from_millis(40),
            spot_interruption: None,
        }
    }
}

impl Default for Timing {
    /// AWS's behaviour at a demonstration's pace: the defaults of the load balancer would be minutes.
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(5),
            health_threshold: 2,
            deregistration: Duration::from_secs(20),
            propagation: (Duration::from_secs(1), Duration::from_secs(4)),
            metrics: Duration::from_secs(5),
            spot_warning: Duration::from_secs(20),
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self { delay: (Duration::from_millis(200), Duration::from_secs(1)), duplicates: 0.0, stragglers: 0.0 }
    }
}
