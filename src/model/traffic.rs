//! Traffic: load-balancer rules whose forward actions split it between target groups.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ListenerArn, RuleArn, TargetGroupArn};

/// What was found on the load balancers for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// No task set has a target group: there is nothing to shift.
    NoLoadBalancer,
    /// Every rule and default action of the service's listeners that forwards to one of its target groups.
    Rules(Vec<TrafficRule>),
}

/// A listener rule, or a listener's default action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRule {
    /// What to modify.
    pub id: TrafficRuleId,
    /// The listener that it belongs to.
    pub listener: ListenerArn,
    /// `"default"` for the default action.
    pub priority: Arc<str>,
    /// All actions, in AWS's order. A modification replaces the whole list.
    pub actions: Vec<Action>,
    /// What of the actions was not understood, and would be lost by a modification: `the member RedirectConfig.Port2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Arc<str>>,
}

/// What a modification addresses. Default actions are refused by `ModifyRule`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficRuleId {
    /// `ModifyRule`.
    Rule(RuleArn),
    /// `ModifyListener` with the default actions.
    DefaultOf(ListenerArn),
}

impl fmt::Display for TrafficRuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(arn) => write!(f, "rule {arn}"),
            Self::DefaultOf(arn) => write!(f, "default action of {arn}"),
        }
    }
}

impl TrafficRuleId {
    /// The call that modifies it.
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::Rule(_) => "ModifyRule",
            Self::DefaultOf(_) => "ModifyListener",
        }
    }

    /// The ARN: the rule's own, or its listener's.
    pub fn arn(&self) -> &str {
        match self {
            Self::Rule(arn) => arn.as_str(),
            Self::DefaultOf(arn) => arn.as_str(),
        }
    }

    /// For people: the ARN's last part tells rules of one load balancer apart.
    pub fn short(&self) -> String {
        let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
        match self {
            Self::Rule(arn) => format!("rule {}", last(arn.as_str())),
            Self::DefaultOf(arn) => format!("the default action of listener {}", last(arn.as_str())),
        }
    }
}

/// One action of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// `Order`, echoed as it was.
    pub order: Option<i32>,
    /// What it does.
    pub kind: ActionKind,
}

/// Forward actions are ours to rewrite; all others are echoed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Splits traffic between target groups.
    Forward(Forward),
    /// Anything else: authentication, redirect, fixed response.
    Kept(KeptAction),
}

/// A forward action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Weights are relative, 0 to 999.
    pub groups: Vec<WeightedGroup>,
    /// Stickiness between the groups; omitting it in a write would switch it off.
    pub stickiness: Option<Stickiness>,
}

/// One target group in a forward action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedGroup {
    /// The group.
    pub target_group: TargetGroupArn,
    /// `None` where AWS gave none, which it treats as 1.
    pub weight: Option<u32>,
}

impl WeightedGroup {
    /// The weight in force.
    pub fn effective_weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }
}

/// Target-group stickiness of a forward action: a cookie that outranks the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stickiness {
    /// In force or not.
    pub enabled: Option<bool>,
    /// Seconds, 1 to 604800.
    pub duration_seconds: Option<i32>,
}

/// An action that is not ours, as data, so that it can be sent back unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAction {
    /// As in `authenticate-oidc`.
    pub kind: Arc<str>,
    /// Its configuration, by the API's member names.
    pub config: Map<String, Value>,
}

/// How traffic is split over all rules, as shares of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Blue's share, averaged over the rules.
    pub blue: f64,
    /// Green's.
    pub green: f64,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blue, green } = self;
        write!(f, "blue {:.0} %, green {:.0} %", blue * 100.0, green * 100.0)
    }
}

impl Forward {
    /// The group's share of this action's traffic, 0 to 1. Zero when all weights are zero.
    pub fn share(&self, group: &TargetGroupArn) -> f64 {
        let weight = |g: &WeightedGroup| f64::from(g.effective_weight());
        let total: f64 = self.groups.iter().map(weight).sum();
        let ours: f64 = self.groups.iter().filter(|g| g.target_group == *group).map(weight).sum();
        if total > 0.0 { ours / total } else { 0.0 }
    }

    /// A cookie can outrank the weights.
    pub fn is_sticky(&self) -> bool {
        self.stickiness.as_ref().is_some_and(|s| s.enabled == Some(true))
    }

    /// Whether the group is named at all, whatever its weight.
    pub fn names(&self, group: &TargetGroupArn) -> bool {
        self.groups.iter().any(|g| g.target_group == *group)
    }
}

impl Action {
    /// The forward action, if it is one.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.kind {
            ActionKind::Forward(forward) => Some(forward),
            ActionKind::Kept(_) => None,
        }
    }
}

impl TrafficRule {
    /// Its forward actions.
    pub fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.actions.iter().filter_map(Action::forward)
    }

    /// The same, to be changed.
    pub fn forwards_mut(&mut self) -> impl Iterator<Item = &mut Forward> {
        self.actions.iter_mut().filter_map(|action| match &mut action.kind {
            ActionKind::Forward(forward) => Some(forward),
            ActionKind::Kept(_) => None,
        })
    }

    /// Whether any action forwards to the group, whatever its weight.
    pub fn names(&self, group: &TargetGroupArn) -> bool {
        self.forwards().any(|forward| forward.names(group))
    }
}

impl Traffic {
    /// The rules, none without a load balancer.
    pub fn rules(&self) -> &[TrafficRule] {
        match self {
            Self::NoLoadBalancer => &[],
            Self::Rules(rules) => rules,
        }
    }

    /// The split between two groups, averaged over the rules that name either. `None` when no rule does.
    pub fn split(&self, blue: Option<&TargetGroupArn>, green: Option<&TargetGroupArn>) -> Option<Split> {
        let share = |forward: &Forward, group: Option<&TargetGroupArn>| group.map_or(0.0, |g| forward.share(g));
        let named = |forward: &Forward| [blue, green].into_iter().flatten().any(|g| forward.names(g));
        let mut sum = Split::default();
        let mut count = 0_u32;
        for forward in self.rules().iter().flat_map(TrafficRule::forwards).filter(|f| named(f)) {
            sum.blue += share(forward, blue);
            sum.green += share(forward, green);
            count += 1;
        }
        (count > 0).then(|| Split { blue: sum.blue / f64::from(count), green: sum.green / f64::from(count) })
    }
}
