//! Verdicts and the evidence that they rest on, as data.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TaskSetId, Timestamp, humane};

/// What the gates say about a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gate has evidence and none is breached.
    Healthy,
    /// No gate is breached, some have not enough evidence yet.
    Watching,
    /// A gate can't judge: an alarm was red before green, or data is missing. Shown, never a trigger, never a block.
    Blind,
    /// A breach that is not green's fault.
    NotAttributable,
    /// A breach that is not acted on: observe mode, dry run.
    Held,
    /// A gate is breached and the guardian acts.
    Breached,
}

impl Verdict {
    /// All of them, for closed label sets.
    pub const ALL: [Self; 6] =
        [Self::Healthy, Self::Watching, Self::Blind, Self::NotAttributable, Self::Held, Self::Breached];

    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Watching => "watching",
            Self::Blind => "blind",
            Self::NotAttributable => "not_attributable",
            Self::Held => "held",
            Self::Breached => "breached",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// `stability.task_failures` in `stability.window`.
    TaskFailures,
    /// `stability.steady_within`.
    SteadyWithin,
    /// `stability.unhealthy_targets`.
    UnhealthyTargets,
    /// `compare.false_rollback`: more failed tasks than chance, and than blue's trouble, explain.
    #[serde(rename = "false_rollback")]
    ExcessFailures,
    /// `errors.http_5xx_ratio`.
    #[serde(rename = "http_5xx_ratio")]
    Http5xxRatio,
    /// `errors.latency_p99`.
    #[serde(rename = "latency_p99")]
    LatencyP99,
    /// `errors.alarms`, or an alarm that watches green's target group.
    Alarm(super::AlarmName),
    /// A person said so: the service tag `taskset-guardian:rollback`.
    Person,
    /// `quarantine.on_return`: a version that was rolled back before.
    Quarantine,
}

impl Gate {
    /// It counts requests.
    pub const fn is_of_traffic(&self) -> bool {
        matches!(self, Self::Http5xxRatio | Self::LatencyP99)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TaskFailures => f.write_str("stability.task_failures"),
            Self::SteadyWithin => f.write_str("stability.steady_within"),
            Self::UnhealthyTargets => f.write_str("stability.unhealthy_targets"),
            Self::ExcessFailures => f.write_str("compare.false_rollback"),
            Self::Http5xxRatio => f.write_str("errors.http_5xx_ratio"),
            Self::LatencyP99 => f.write_str("errors.latency_p99"),
            Self::Alarm(name) => write!(f, "alarm {name:?}", name = name.as_str()),
            Self::Person => f.write_str("a person's order"),
            Self::Quarantine => f.write_str("quarantine.on_return"),
        }
    }
}

/// Whose numbers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The task set that green replaces.
    Blue,
    /// The newest task set.
    Green,
}

impl Role {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

/// How a value is compared with its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Comparator {
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// More than.
    #[serde(rename = ">")]
    MoreThan,
}

impl fmt::Display for Comparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtLeast => ">=",
            Self::MoreThan => ">",
        })
    }
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Distinct tasks.
    Tasks,
    /// Seconds.
    Seconds,
    /// A share of the whole, 0 to 1.
    Share,
    /// One in so many deployments.
    Odds,
    /// Facts that need no count: one is enough.
    Facts,
}

impl Evidence {
    /// Evidence that is one fact about green, without a number.
    pub fn fact(gate: Gate, green: TaskSetId, at: Timestamp, fact: String) -> Self {
        Self {
            gate,
            role: Role::Green,
            task_set: green,
            value: 1.0,
            comparator: Comparator::AtLeast,
            threshold: 1.0,
            unit: Unit::Facts,
            from: at,
            to: at,
            facts: vec![fact],
        }
    }
}

/// What one gate found: number, comparator, threshold, time span, and the single facts behind the number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Which threshold.
    pub gate: Gate,
    /// Whose numbers.
    pub role: Role,
    /// Whose numbers, by id.
    pub task_set: TaskSetId,
    /// What was found.
    pub value: f64,
    /// How it compares.
    pub comparator: Comparator,
    /// With what.
    pub threshold: f64,
    /// In what.
    pub unit: Unit,
    /// Begin of the span that was looked at.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// The single facts: a failed task with its reason, an alarm's words. At most ten.
    pub facts: Vec<String>,
}

impl fmt::Display for Evidence {
    /// One line for people: `3 tasks of green (ecs-svc/1) failed within 5m; stability.task_failures allows fewer than 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gate, role, task_set, value, comparator, threshold, unit: _, from, to, facts } = self;
        let role = role.as_str();
        let span = humane(to.since(*from));
        let seconds = |s: f64| humane(Duration::try_from_secs_f64(s).unwrap_or_default());
        match gate {
            Gate::TaskFailures => write!(
                f,
                "{value} tasks of {role} ({task_set}) failed within {span} (breach: {comparator} {threshold})"
            ),
            Gate::SteadyWithin => write!(
                f,
                "{role} ({task_set}) is not steady {} after its creation (breach: {comparator} {})",
                seconds(*value),
                seconds(*threshold)
            ),
            Gate::UnhealthyTargets => write!(
                f,
                "{:.0} % of the targets of {role} ({task_set}) are unhealthy, and have been for {span} (breach: {comparator} {:.0} %)",
                value * 100.0,
                threshold * 100.0
            ),
            Gate::ExcessFailures => {
                write!(
                    f,
                    "{role} ({task_set}) loses tasks as a sound version does {} (breach: {} or rarer)",
                    once_in(*value),
                    once_in(*threshold)
                )?;
                beside(f, facts)
            }
            Gate::Http5xxRatio => {
                let (failed, allowed) = (percent(*value), percent(*threshold));
                write!(
                    f,
                    "{failed} of the requests to {role} ({task_set}) failed within {span} (breach: {comparator} {allowed})"
                )?;
                beside(f, facts)
            }
            Gate::LatencyP99 => {
                let (took, allowed) = (seconds(*value), seconds(*threshold));
                write!(
                    f,
                    "one in a hundred answers of {role} ({task_set}) took {took} or longer within {span} (breach: p99 {comparator} {allowed})"
                )?;
                beside(f, facts)
            }
            Gate::Alarm(name) => {
                let red = seconds(*value);
                write!(f, "alarm {name} turned red after {role} ({task_set}) was created, {red} ago")?;
                if *threshold > 0.0 { write!(f, " (breach: {comparator} {})", seconds(*threshold)) } else { Ok(()) }
            }
            Gate::Person | Gate::Quarantine => f.write_str(&facts.join("; ")),
        }
    }
}

/// What the numbers were compared with.
fn beside(f: &mut fmt::Formatter<'_>, facts: &[String]) -> fmt::Result {
    facts.first().map_or(Ok(()), |fact| write!(f, "; {fact}"))
}

/// Odds, as people read them: `once in 290 deployments`.
pub fn once_in(deployments: f64) -> String {
    match deployments {
        rare if rare >= 1e6 => "less than once in a million deployments".to_owned(),
        some if some >= 1.5 => format!("once in {some:.0} deployments"),
        _ => "in most deployments".to_owned(),
    }
}

/// A share, as people read it: `5 %`, `0.3 %`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let whole = (percent - percent.round()).abs() < 0.05;
    if whole || percent >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}
