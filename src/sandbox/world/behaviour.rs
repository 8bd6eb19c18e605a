//! How versions behave, also after a while, and what people do: the deployer's script and its reactions.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Role, Timestamp};

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
    /// It breaks after a while.
    pub breaks: Option<Breaks>,
    /// Tags that whoever deploys it gives its task sets.
    pub tags: BTreeMap<String, String>,
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
    /// About this long after they ran, or after the trouble began.
    pub after: Duration,
    /// Of the container.
    pub exit_code: i32,
    /// The kernel killed it.
    pub out_of_memory: bool,
}

/// How a version breaks.
#[derive(Clone, Copy, Debug)]
pub struct Breaks {
    /// From when on.
    pub when: When,
    /// In so many of a task set's tasks; a task that replaces another takes its place. `None` for all.
    pub tasks: Option<u32>,
    /// What is wrong from then on.
    pub trouble: Trouble,
}

/// From when on something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Once a task has run this long.
    Aged(Duration),
    /// This long after the world began.
    At(Duration),
}

/// What can be wrong with a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trouble {
    /// It ends.
    pub crash: Option<Crash>,
    /// It does not answer the load balancer's health checks as it should.
    pub fails_health_checks: bool,
    /// At least this share of its answers are 5xx.
    pub error_rate: f64,
}

/// What the people who deploy do, and what else changes from outside. Green is the newest living task set beside an
/// older one, which is blue.
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
    /// By infrastructure code that is applied: it does not look whether there is a green.
    ApplyWeights {
        /// One of the service's routes, in their order; `None` for every one.
        route: Option<usize>,
        /// Of the group that was blue's at first, 0 to 999.
        blue: u32,
        /// Of the other one, 0 to 999.
        green: u32,
    },
    /// Every route goes to this one alone, the other is not named any more.
    ForwardTo(Role),
    /// UpdateServicePrimaryTaskSet.
    SetPrimary(Role),
    /// DeleteTaskSet with force.
    DeleteTaskSet(Role),
    /// UpdateTaskSet.
    ScaleTaskSet(Role, f64),
    /// Autoscaling changes the service's desired count, and with it what every task set is to run.
    SetDesired(u32),
    /// AWS takes tasks away, from all task sets alike.
    LoseTasks {
        /// Why.
        loss: Loss,
        /// Share of the running tasks, at least one.
        share: f64,
    },
    /// TagResource, on the service.
    Tag(String, TagValue),
    /// UntagResource, on the service.
    Untag(String),
    /// DeleteService with force.
    DeleteService,
    /// CreateService under the name of the deleted one, with a task set of this version on the group that is free.
    CreateService {
        /// Task definition, as in `checkout:87`.
        version: String,
    },
    /// Something that blue and green both need does not work for a while.
    Outage {
        /// As in `the database`.
        what: String,
        /// For how long.
        lasts: Duration,
        /// What that does to every task.
        trouble: Trouble,
    },
}

/// Why AWS takes tasks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// An Availability Zone is lost, with all tasks in it.
    Zone,
    /// Spot capacity is wanted back.
    Spot,
}

/// The value of a tag that somebody writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagValue {
    /// As it stands.
    Text(String),
    /// The time that it will be so long from now.
    In(Duration),
    /// The id of green, if there is one.
    Green,
}

/// What people do when the guardian has changed something.
#[derive(Clone, Debug, PartialEq)]
pub struct Reaction {
    /// The call that they see, as in `ModifyRule`.
    pub to: String,
    /// How long they take.
    pub after: Duration,
    /// What they do.
    pub act: Act,
    /// How often at most.
    pub times: u32,
}

impl Version {
    /// With something wrong on top.
    pub(super) fn with(mut self, trouble: Trouble) -> Self {
        self.crash = trouble.crash.or(self.crash);
        self.passes_health_checks &= !trouble.fails_health_checks;
        self.error_rate = self.error_rate.max(trouble.error_rate);
        self
    }
}

impl Breaks {
    /// When the trouble begins for a task that takes this place in its task set, if it ever does.
    pub(super) fn begins(&self, place: u32, began: Timestamp, runs_since: Timestamp) -> Option<Timestamp> {
        let concerned = self.tasks.is_none_or(|tasks| place < tasks);
        concerned.then(|| match self.when {
            When::Aged(age) => runs_since.plus(age),
            When::At(after) => began.plus(after),
        })
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
            breaks: None,
            tags: BTreeMap::new(),
        }
    }
}
