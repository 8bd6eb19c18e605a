//! What a world is made of: services and their routes, alarms, timings, and what AWS refuses for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use super::behaviour::{Act, Reaction, Version};
use crate::model::{AlarmValue, Role, ServiceKey};

/// A whole world, before its first moment.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The services, each steady on its first version when the world begins. The first is the one that the story is
    /// about.
    pub services: Vec<ServiceSetup>,
    /// How versions behave, by task definition as in `checkout:88`. Those not named here are sound.
    pub versions: BTreeMap<String, Version>,
    /// The alarms.
    pub alarms: Vec<AlarmSetup>,
    /// Name of the guardian's queue. Its dead-letter queue has `-dlq` appended.
    pub queue: String,
    /// The rules of EventBridge's default bus, which all aim at the guardian's queue. The world sends whatever they match:
    /// they are there to be read.
    pub event_rules: Vec<EventRuleSetup>,
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
    /// Operations that are throttled for a while.
    pub throttled: Vec<Throttled>,
    /// `DescribeServices` answers what was so this long ago, as a replica that lags. To the second.
    pub lag: Duration,
    /// S11: at most so many services may be changed within some minutes.
    pub brake: Option<usize>,
    /// CloudTrail tells of changes, after least and most this long. Without it there is no trail.
    pub trail: Option<(Duration, Duration)>,
}

/// A rule of EventBridge's default bus.
#[derive(Clone, Debug)]
pub struct EventRuleSetup {
    /// Its name.
    pub name: String,
    /// Switched on.
    pub enabled: bool,
    /// JSON.
    pub pattern: String,
    /// The queue's policy lets it send.
    pub may_send: bool,
}

/// Every call of some operations is throttled for a while.
#[derive(Clone, Debug)]
pub struct Throttled {
    /// As in `ModifyRule`.
    pub operations: Vec<String>,
    /// After the beginning.
    pub from: Duration,
    /// After the beginning.
    pub until: Duration,
}

/// One service.
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
    /// What it is behind.
    pub balancer: BalancerKind,
    /// What the load balancer does for it. The users spread evenly over those of production listeners.
    pub routes: Vec<RouteSetup>,
    /// Its target groups want a cookie of their own, so that every action which names several must be sticky.
    pub sticky_targets: bool,
    /// It has a third target group, for a third task set. Every action that names a pair names it too, with weight 0.
    pub spare_group: bool,
    /// What its users send.
    pub requests_per_second: u32,
    /// Service tags.
    pub tags: BTreeMap<String, String>,
    /// What the people who deploy it do, at which time after the beginning.
    pub script: Vec<(Duration, Act)>,
    /// What they do when the guardian has changed something.
    pub reactions: Vec<Reaction>,
}

/// What a service is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancerKind {
    /// The Application Load Balancer that all such services share.
    Application,
    /// The Network Load Balancer that all such services share. Its listeners have only default actions.
    Network,
    /// Nothing: its task sets have no target groups, and nobody sends requests.
    None,
}

/// A listener of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerKind {
    /// For users; of a Network Load Balancer it is TCP.
    Https,
    /// For users who come without encryption.
    Http,
    /// For the deployers' own tests, on another port: no user comes this way.
    Test,
}

/// What comes before the forward action, besides a login with OIDC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// `authenticate-cognito`.
    Cognito,
    /// `jwt-validation`.
    Jwt,
}

/// One listener rule, or a listener's default action, that forwards to the service's two target groups.
#[derive(Clone, Debug)]
pub struct RouteSetup {
    /// On which listener.
    pub listener: ListenerKind,
    /// The rule's condition; `None` makes it the listener's default action.
    pub path: Option<String>,
    /// Stickiness of the forward action.
    pub sticky: Option<Duration>,
    /// An `authenticate-oidc` action comes before the forward.
    pub authenticated: bool,
    /// These come before the forward as well.
    pub guards: Vec<Guard>,
    /// Weight of another service's target group in the same forward action; blue has 100 at the beginning.
    pub third: Option<u32>,
    /// The forward names only this one's group, as people write it who switch instead of weighing.
    pub only: Option<Role>,
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
    /// How long ECS lets a task with an unhealthy target run, at least.
    pub unhealthy: Duration,
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
    /// Events of tasks that have not run yet are delivered too. `infra/modules/guardian/event-pattern.json` keeps them
    /// back: they say nothing that decides.
    pub early: bool,
    /// Events of tasks say only what the guardian reads: half the text, for simulations that read it a million times.
    pub terse: bool,
}

impl Default for Setup {
    /// The service prod/checkout, four tasks, 100 requests a second, one rule, no alarms, nobody deploying.
    fn default() -> Self {
        Self {
            services: vec![ServiceSetup::default()],
            versions: BTreeMap::new(),
            alarms: Vec::new(),
            queue: "taskset-guardian".to_owned(),
            event_rules: vec![EventRuleSetup::default()],
            visibility: Duration::from_secs(30),
            max_receives: 5,
            timing: Timing::default(),
            delivery: Delivery::default(),
            drain: Duration::from_secs(15),
            expect_no_writes: false,
            throttle: BTreeMap::new(),
            throttled: Vec::new(),
            lag: Duration::ZERO,
            brake: None,
            trail: None,
        }
    }
}

impl Default for EventRuleSetup {
    /// As it is to be installed.
    fn default() -> Self {
        let pattern = include_str!("../../../infra/modules/guardian/event-pattern.json").to_owned();
        Self { name: "taskset-guardian".to_owned(), enabled: true, pattern, may_send: true }
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
            balancer: BalancerKind::Application,
            routes: vec![RouteSetup::default()],
            sticky_targets: false,
            spare_group: false,
            requests_per_second: 100,
            tags: BTreeMap::new(),
            script: Vec::new(),
            reactions: Vec::new(),
        }
    }
}

impl Default for RouteSetup {
    /// One listener rule for every path, not sticky.
    fn default() -> Self {
        Self {
            listener: ListenerKind::Https,
            path: Some("/*".to_owned()),
            sticky: None,
            authenticated: false,
            guards: Vec::new(),
            third: None,
            only: None,
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
            unhealthy: Duration::ZERO,
            metrics: Duration::from_secs(5),
            spot_warning: Duration::from_secs(20),
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            delay: (Duration::from_millis(200), Duration::from_secs(1)),
            duplicates: 0.0,
            stragglers: 0.0,
            early: true,
            terse: false,
        }
    }
}
