//! What a rule says, checked and with its defaults filled in.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::glob::{self, Specificity};
use super::keys;
use crate::model::{AlarmName, ServiceKey};

/// All rules in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleSet {
    /// In the order of their names.
    pub rules: Vec<Arc<Rule>>,
}

/// One rule file, checked and with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Unique over all files.
    pub name: Arc<str>,
    /// Act, or only say what would be done.
    pub mode: Mode,
    /// Which services it protects.
    pub protect: Vec<Protect>,
    /// How long and with what evidence.
    pub watch: Watch,
    /// Gates on tasks.
    pub stability: StabilityGates,
    /// Gates on alarms and on traffic.
    pub errors: ErrorGates,
    /// Whose fault a breach is.
    pub compare: Compare,
    /// What a rollback does.
    pub rollback: RollbackPolicy,
    /// How often it may.
    pub limits: Limits,
    /// What becomes of a version that was rolled back. A journal written before there was one has the default.
    #[serde(default)]
    pub quarantine: Quarantine,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Roll back.
    #[default]
    Enforce,
    /// Decide, report and announce, but never act.
    Observe,
}

/// One `[[protect]]`: two globs, `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protect {
    /// Cluster name.
    pub cluster: Arc<str>,
    /// Service name.
    pub service: Arc<str>,
}

/// `[watch]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Keep guarding this long after green became PRIMARY with all the weight. Default 15 min.
    pub bake: Duration,
    /// Older evidence updates windows but can't trigger. Default 10 min.
    pub freshness: Duration,
}

/// `[stability]`. A gate that is `None` is off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StabilityGates {
    /// Span over which failures are counted. Default 5 min.
    pub window: Duration,
    /// Breach at this many distinct tasks whose stop speaks against the version. Default 3.
    pub task_failures: Option<u32>,
    /// Breach when green is not steady this long after its creation. Default 10 min.
    pub steady_within: Option<Duration>,
    /// Breach when more than this share of green's targets is unhealthy in two sweeps in a row, 0 to 1. Default 0.5.
    pub unhealthy_targets: Option<f64>,
}

/// `[errors]`. A gate that is `None` is off; so are those on traffic in a journal written before there were any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorGates {
    /// By name; alarms whose dimensions name green's target group bind by themselves.
    pub alarms: Vec<AlarmName>,
    /// How long an alarm must have been red. Default 0.
    pub alarm_for: Duration,
    /// Breach when more than this share of the requests to green's target group fails, 0 to 1. Default off.
    #[serde(default)]
    pub http_5xx_ratio: Option<f64>,
    /// Breach when one in a hundred answers of green takes longer. Default off.
    #[serde(default)]
    pub latency_p99: Option<Duration>,
    /// Requests within the window below which the two say nothing. Default 50.
    #[serde(default = "min_requests")]
    pub min_requests: u32,
}

/// CloudWatch tells of a minute when it is over, or a little later: in a shorter span there is none.
pub const LEAST_TRAFFIC: Duration = Duration::from_mins(3);

/// Blue's losses of the same cause do not all come in the same second as green's: while it shows signs of them, a breach
/// waits this long for news.
pub const BLUE_LAG: Duration = Duration::from_secs(20);

const fn min_requests() -> u32 {
    keys::MIN_REQUESTS.holds.default
}

impl Default for ErrorGates {
    fn default() -> Self {
        Self {
            alarms: Vec::new(),
            alarm_for: keys::ALARM_FOR.holds.default,
            http_5xx_ratio: None,
            latency_p99: None,
            min_requests: min_requests(),
        }
    }
}

impl ErrorGates {
    /// At least one gate needs to know how the traffic fares.
    pub const fn read_traffic(&self) -> bool {
        self.http_5xx_ratio.is_some() || self.latency_p99.is_some()
    }
}

/// `[compare]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// Blue is the control group: what also hits blue is not green's fault. Default true.
    pub against_blue: bool,
    /// Accepted chance that a sound green is rolled back for its failed tasks, per deployment. Default 0.01. `None` is off, as
    /// in a journal written before there was one.
    #[serde(default)]
    pub false_rollback: Option<f64>,
    /// How long the count of failed tasks watches blue before it blames a green that had come up. Default none.
    #[serde(default)]
    pub patience: Duration,
}

/// `[rollback]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackPolicy {
    /// Between proven shift and delete. Default 60 s.
    pub drain: Duration,
    /// What is done about a blue that is too small to carry all the traffic.
    pub blue_capacity: BlueCapacity,
    /// What is done when green is PRIMARY already.
    pub after_promotion: AfterPromotion,
    /// What happens to green after the drain.
    pub delete: DeletePolicy,
}

/// `rollback.blue_capacity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlueCapacity {
    /// Scale it back to 100 %, and shift once it can carry the traffic.
    #[default]
    Restore,
    /// Wait for it; a person is called when it does not come back by itself.
    Require,
    /// Shift onto whatever there is, as long as something of it is healthy.
    Ignore,
}

/// `rollback.after_promotion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterPromotion {
    /// Make blue PRIMARY again and go on.
    #[default]
    Rollback,
    /// Call a person and change nothing.
    Page,
}

/// `rollback.delete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletePolicy {
    /// `DeleteTaskSet` with force.
    #[default]
    Force,
    /// Weights only; green is left for inspection.
    Keep,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Rollbacks of one service within 24 hours; the next one is held. Default 3.
    pub rollbacks_per_day: u32,
}

/// `[quarantine]`. A version that was rolled back is remembered by its task definition and image digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// What is done when the version comes back as green.
    pub on_return: OnReturn,
    /// How long a version stays in quarantine after its rollback. Default 7 days.
    pub ttl: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { on_return: OnReturn::default(), ttl: keys::TTL.holds.default }
    }
}

/// `quarantine.on_return`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReturn {
    /// Say so, and judge it by its gates like any other version.
    #[default]
    Report,
    /// Roll it back at once, without waiting for a gate.
    Rollback,
}

impl RuleSet {
    /// The rule that protects the service, if any: of all matching `[[protect]]` entries the most specific one.
    pub fn rule_for(&self, service: &ServiceKey) -> Option<&Arc<Rule>> {
        let mut best: Option<(Specificity, &Arc<Rule>)> = None;
        for rule in &self.rules {
            for protect in rule.protect.iter().filter(|protect| protect.matches(service)) {
                let specificity = protect.specificity();
                // Rules that compiled have no ties; without that, the first by name wins.
                if best.is_none_or(|(known, _)| specificity > known) {
                    best = Some((specificity, rule));
                }
            }
        }
        best.map(|(_, rule)| rule)
    }

    /// The rule that protects a service with this tag: the one that the tag names, else the one whose `[[protect]]` matches.
    pub fn protecting(&self, service: &ServiceKey, tagged: Option<&str>) -> Option<&Arc<Rule>> {
        tagged.and_then(|name| self.named(name)).or_else(|| self.rule_for(service))
    }

    /// The rule of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| &*rule.name == name)
    }
}

impl Rule {
    /// A rule of this name with every default, that only observes: for a service whose tag names a rule that does not exist.
    pub fn observing(name: &str) -> Self {
        Self {
            name: name.into(),
            mode: Mode::Observe,
            protect: Vec::new(),
            watch: Watch { bake: keys::BAKE.holds.default, freshness: keys::FRESHNESS.holds.default },
            stability: StabilityGates {
                window: keys::WINDOW.holds.default,
                task_failures: Some(keys::TASK_FAILURES.holds.0.default),
                steady_within: Some(keys::STEADY_WITHIN.holds.0.default),
                unhealthy_targets: Some(keys::UNHEALTHY_TARGETS.holds.0.default),
            },
            errors: ErrorGates::default(),
            compare: Compare {
                against_blue: keys::AGAINST_BLUE.holds.default,
                false_rollback: Some(keys::FALSE_ROLLBACK.holds.0.default),
                patience: keys::PATIENCE.holds.default,
            },
            rollback: RollbackPolicy {
                drain: keys::DRAIN.holds.default,
                blue_capacity: BlueCapacity::default(),
                after_promotion: AfterPromotion::default(),
                delete: DeletePolicy::default(),
            },
            limits: Limits { rollbacks_per_day: keys::ROLLBACKS_PER_DAY.holds.default },
            quarantine: Quarantine::default(),
        }
    }
}

impl Protect {
    /// Whether it may match services of this cluster.
    pub fn reaches(&self, cluster: &str) -> bool {
        glob::matches(&self.cluster, cluster)
    }

    /// Whether both globs match.
    pub fn matches(&self, service: &ServiceKey) -> bool {
        self.reaches(&service.cluster) && glob::matches(&self.service, &service.service)
    }

    /// Of two entries that match the same service, the greater one wins: the cluster decides, then the service.
    pub(super) fn specificity(&self) -> Specificity {
        Specificity::of(&self.cluster, &self.service)
    }

    /// Whether some service can match both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        glob::overlap(&self.cluster, &other.cluster) && glob::overlap(&self.service, &other.service)
    }
}

impl Mode {
    /// As written in rule files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}
