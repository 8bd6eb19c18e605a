//! Classes of deployments.

use std::fmt;

use fastrand::Rng;

use super::draw::Draw;
use super::life::{HORIZON, Life, MINUTE};

/// What kind of deployment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Bad: every container exits within seconds.
    CrashAtStart,
    /// Bad: no target ever answers the load balancer's checks as it should.
    ElbFailures,
    /// Bad: within any two minutes of its life a task ends by itself with a chance of 40 %.
    Flapping40,
    /// Bad: the same with 15 %.
    Flapping15,
    /// Bad: every task is killed for want of memory, five to fourteen minutes after it ran.
    SlowLeak,
    /// Bad: so is a quarter of the tasks (at least one), and whoever replaces them: they crash, or fail their checks.
    Partial,
    /// Bad: 8 to 40 % of green's answers are 5xx, and no task fails.
    Http5xx,
    /// Bad: green's p99 is one to three seconds, and nothing fails.
    Latency,
    /// Bad: some tasks stay PENDING.
    NeverSteady,
    /// Bad: no image.
    ImagePull,
    /// Good: Spot takes tasks of both, in waves.
    Spot,
    /// Good: the desired count goes up and down.
    Scaling,
    /// Good: a person stops up to half of green's tasks.
    OperatorStops,
    /// Good: what blue and green both need does not work for two to eight minutes: requests fail,
    /// and every other time tasks do, too.
    SharedOutage,
    /// Good: an Availability Zone goes, and with it a third of the tasks of both.
    ZoneLoss,
    /// Good: an alarm on green's target group has been red since before green's creation.
    RedAtBirth,
    /// Good: one task of green crashes, once.
    UnluckyCrash,
    /// Good: tasks of blue and green end by themselves, 20 to 90 minutes after they ran on average.
    NoisyService,
    /// Good: targets take two to six minutes to become healthy.
    SlowStart,
}

/// Everything is recorded in sizes of these.
pub const SIZES: [u32; 4] = [2, 4, 10, 50];

impl Class {
    /// All, the bad ones first.
    pub const ALL: [Self; 19] = [
        Self::CrashAtStart,
        Self::ElbFailures,
        Self::Flapping40,
        Self::Flapping15,
        Self::SlowLeak,
        Self::Partial,
        Self::Http5xx,
        Self::Latency,
        Self::NeverSteady,
        Self::ImagePull,
        Self::Spot,
        Self::Scaling,
        Self::OperatorStops,
        Self::SharedOutage,
        Self::ZoneLoss,
        Self::RedAtBirth,
        Self::UnluckyCrash,
        Self::NoisyService,
        Self::SlowStart,
    ];

    /// A rollback is right.
    pub fn is_bad(self) -> bool {
        self <= Self::ImagePull
    }

    /// As in `DETECT_CLASS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CrashAtStart => "crash_at_start",
            Self::ElbFailures => "elb_failures",
            Self::Flapping40 => "flapping_40",
            Self::Flapping15 => "flapping_15",
            Self::SlowLeak => "slow_leak",
            Self::Partial => "partial",
            Self::Http5xx => "http_5xx",
            Self::Latency => "latency",
            Self::NeverSteady => "never_steady",
            Self::ImagePull => "image_pull",
            Self::Spot => "spot",
            Self::Scaling => "scaling",
            Self::OperatorStops => "operator_stops",
            Self::SharedOutage => "shared_outage",
            Self::ZoneLoss => "zone_loss",
            Self::RedAtBirth => "red_at_birth",
            Self::UnluckyCrash => "unlucky_crash",
            Self::NoisyService => "noisy_service",
            Self::SlowStart => "slow_start",
        }
    }

    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Draws a life. The same class, size and seed give the same one.
    pub fn life(self, size: u32, seed: u64) -> Life {
        // By name: another class beside it changes none of its lives.
        let name = self.name().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003) ^ name.rotate_left(20) ^ (u64::from(size) << 32));
        // A bad green in which nothing has gone wrong by then is none: another one is drawn.
        for _ in 0..1_000 {
            let life = Draw::new(self, size, &mut rng).life(seed);
            if !self.is_bad() || life.onset.is_some_and(|onset| onset < HORIZON - 10 * MINUTE) {
                return life;
            }
        }
        unreachable!("a {} of {size} tasks that does not hurt within {} minutes", self.name(), HORIZON / MINUTE)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
