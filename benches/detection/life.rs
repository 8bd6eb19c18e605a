//! One deployment's life as AWS would show it. Times are milliseconds since green was created.

use taskset_guardian::model::{Role, StopClass, classify};

use super::class::Class;

/// Milliseconds since green was created; blue is older.
pub type Ms = i64;

/// One second.
pub const SECOND: Ms = 1_000;
/// One minute.
pub const MINUTE: Ms = 60 * SECOND;
/// Traffic is recorded in buckets of this length.
pub const BUCKET: Ms = 10 * SECOND;
/// How long blue is watched before green is created.
pub const BEFORE: Ms = 30 * MINUTE;
/// Nobody watches any longer: a bad green that was not found by then was missed.
pub const HORIZON: Ms = 35 * MINUTE;
/// From the decision until the load balancer sends green nothing more, for every rule alike.
pub const SHIFT: Ms = 3 * SECOND;

/// A recorded life.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// What kind of deployment it is.
    pub class: Class,
    /// The service's desired count when green was created.
    pub size: u32,
    /// What it was drawn from.
    pub seed: u64,
    /// The service's desired count, from when on. The first entry is from before blue was watched.
    pub desired: Vec<(Ms, u32)>,
    /// Green's weight in percent, from when on. Empty while green never had enough healthy targets to be sent anything.
    pub weights: Vec<(Ms, u32)>,
    /// All tasks of blue and green.
    pub tasks: Vec<TaskLife>,
    /// Traffic of blue's target group, from [`BEFORE`] to [`HORIZON`].
    pub blue: Vec<Bucket>,
    /// The same of green's.
    pub green: Vec<Bucket>,
    /// How long CloudWatch takes to show a minute that is over.
    pub metrics_lag: Ms,
    /// An alarm on green's target group, and since when it is red.
    pub red: Option<Ms>,
    /// When a bad green first hurt: a task of it failed for what is wrong with it, or a request did. For one that only
    /// never gets steady, its creation. `None` for a good one.
    pub onset: Option<Ms>,
}

/// A task, from start to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskLife {
    /// Whose.
    pub role: Role,
    /// ECS begins to start it.
    pub created: Ms,
    /// It reached RUNNING.
    pub running: Option<Ms>,
    /// The load balancer found its target healthy.
    pub healthy: Option<Ms>,
    /// The load balancer found it unhealthy.
    pub unhealthy: Option<Ms>,
    /// How it ended, if it did.
    pub end: Option<End>,
}

/// The end of a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// ECS began to stop it, or it ended by itself.
    pub at: Ms,
    /// It is STOPPED.
    pub stopped: Ms,
    /// Why.
    pub cause: Cause,
}

/// Why a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its container exited.
    Crashed,
    /// The kernel killed its container.
    OutOfMemory,
    /// The load balancer's checks failed.
    FailedChecks,
    /// Its image is not there.
    CannotPull,
    /// Spot capacity was wanted back.
    Spot,
    /// The desired count went down.
    ScaledIn,
    /// A person stopped it.
    Operator,
    /// Its host was lost.
    HostLost,
}

impl Cause {
    /// `stopCode`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Crashed | Self::OutOfMemory => "EssentialContainerExited",
            Self::FailedChecks | Self::ScaledIn => "ServiceSchedulerInitiated",
            Self::CannotPull => "TaskFailedToStart",
            Self::Spot => "SpotInterruption",
            Self::Operator => "UserInitiated",
            Self::HostLost => "InfrastructureHealth",
        }
    }

    /// `stoppedReason`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Crashed | Self::OutOfMemory => "Essential container in task exited",
            Self::FailedChecks => "Task failed ELB health checks",
            Self::ScaledIn => "Scaling activity initiated by the service's desired count",
            Self::CannotPull => "CannotPullContainerError: ref checkout:88: manifest unknown",
            Self::Spot => "Your Spot Task was interrupted.",
            Self::Operator => "Task stopped by user",
            Self::HostLost => "The host of the task was lost",
        }
    }

    /// Whether it speaks against the version, by the same reading of code and reason that the guardian has. The plain
    /// count of failures is given this, too.
    pub fn is_failure(self) -> bool {
        classify(self.code(), self.reason()) == StopClass::Version
    }
}

/// Ten seconds of one target group's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Requests for which a target was chosen.
    pub requests: u64,
    /// Of those, answered 5xx by the target.
    pub http_5xx: u64,
    /// Of those, without a connection.
    pub unreachable: u64,
    /// Requests that the load balancer answered itself, with 503, for want of any target. No metric of the group has them.
    pub refused: u64,
    /// p99 of the answers, in milliseconds.
    pub p99: f64,
}

impl Bucket {
    /// Requests that users saw fail.
    pub fn failed(&self) -> u64 {
        self.http_5xx + self.unreachable + self.refused
    }

    /// Several in a row. The p99 is the greatest.
    pub fn sum(buckets: &[Self]) -> Self {
        buckets.iter().fold(Self::default(), |sum, bucket| Self {
            requests: sum.requests + bucket.requests,
            http_5xx: sum.http_5xx + bucket.http_5xx,
            unreachable: sum.unreachable + bucket.unreachable,
            refused: sum.refused + bucket.refused,
            p99: sum.p99.max(if bucket.requests > 0 { bucket.p99 } else { 0.0 }),
        })
    }

    /// Share of the requests that failed, as the group's own metrics have it. `None` without requests.
    #[expect(clippy::cast_precision_loss, reason = "counts here are small")]
    pub fn error_share(&self) -> Option<f64> {
        let failed = (self.http_5xx + self.unreachable).min(self.requests);
        (self.requests > 0).then(|| failed as f64 / self.requests as f64)
    }
}

impl TaskLife {
    /// It runs, and ECS does not want it to stop.
    pub fn runs(&self, at: Ms) -> bool {
        self.running.is_some_and(|running| running <= at) && !self.ended(at)
    }

    /// ECS wants it, and it does not run yet.
    pub fn is_pending(&self, at: Ms) -> bool {
        self.created <= at && self.running.is_none_or(|running| running > at) && !self.ended(at)
    }

    /// It has ended, or is about to.
    pub fn ended(&self, at: Ms) -> bool {
        self.end.is_some_and(|end| end.at <= at)
    }

    /// What the load balancer thinks of its target, while it is registered.
    pub fn target(&self, at: Ms) -> Option<Health> {
        if !self.runs(at) {
            return None;
        }
        let since = |moment: Option<Ms>| moment.is_some_and(|moment| moment <= at);
        Some(match (since(self.unhealthy), since(self.healthy)) {
            (true, _) => Health::Unhealthy,
            (false, true) => Health::Healthy,
            (false, false) => Health::Initial,
        })
    }
}

/// What the load balancer thinks of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not checked often enough yet.
    Initial,
    /// Sent requests.
    Healthy,
    /// Sent none, unless all are like this.
    Unhealthy,
}

impl Life {
    /// Of one role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &TaskLife> {
        self.tasks.iter().filter(move |task| task.role == role)
    }

    /// The service's desired count.
    pub fn desired_at(&self, at: Ms) -> u32 {
        step(&self.desired, at).unwrap_or(self.size)
    }

    /// Green's weight in percent.
    pub fn weight_at(&self, at: Ms) -> u32 {
        step(&self.weights, at).unwrap_or(0)
    }

    /// Running as desired, nothing pending, every target healthy.
    pub fn is_steady(&self, role: Role, at: Ms) -> bool {
        let mut healthy = 0;
        for task in self.of(role) {
            if task.is_pending(at) {
                return false;
            }
            match task.target(at) {
                Some(Health::Healthy) => healthy += 1,
                Some(_) => return false,
                None => {}
            }
        }
        healthy == self.desired_at(at)
    }

    /// A role's buckets whose ends lie in `from < end <= to`.
    pub fn traffic(&self, role: Role, from: Ms, to: Ms) -> &[Bucket] {
        let buckets = if role == Role::Green { &self.green } else { &self.blue };
        let place = |at: Ms| usize::try_from((at + BEFORE).div_euclid(BUCKET)).unwrap_or(0).min(buckets.len());
        buckets.get(place(from)..place(to)).unwrap_or_default()
    }

    /// Requests to green that fail until the traffic is back on blue, when it is shifted on this decision.
    pub fn failed_until_safe(&self, decided: Option<Ms>) -> u64 {
        let safe = decided.map_or(HORIZON, |at| (at + SHIFT).min(HORIZON));
        self.traffic(Role::Green, 0, safe).iter().map(Bucket::failed).sum()
    }
}

fn step(steps: &[(Ms, u32)], at: Ms) -> Option<u32> {
    steps.iter().rev().find(|(from, _)| *from <= at).map(|(_, value)| *value)
}
