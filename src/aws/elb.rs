//! Elastic Load Balancing: the rules that split traffic, and the health of targets. Reading only.
//!
//! The way from a target group to its rules takes three calls in a row: group to load balancer, load balancer to
//! listeners, listener to rules. Only the last holds weights; the first two change when somebody rebuilds a load
//! balancer, so they are remembered and a rollback waits for one call instead of three. Where they must be known for sure,
//! all three are asked at once, each about what is remembered: what has changed since is asked for in a row.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    Listener, Rule, TargetHealth, TargetHealthDescription, TargetHealthReasonEnum, TargetHealthStateEnum,
};

use super::actions;
use super::calls::{Calls, Operation, side_by_side};
use super::company::Company;
use super::pace::Pace;
use super::unread::{self, Unread};
use crate::model::{
    CallError, ErrorClass, ListenerArn, RuleArn, TargetCounts, TargetGroupArn, TrafficRule, TrafficRuleId, Urgency,
};
use crate::ports::LoadBalancers;

const DESCRIBE_TARGET_GROUPS: Operation = Operation::new("elasticloadbalancing", "DescribeTargetGroups");
const DESCRIBE_LISTENERS: Operation = Operation::new("elasticloadbalancing", "DescribeListeners");
const DESCRIBE_RULES: Operation = Operation::new("elasticloadbalancing", "DescribeRules");
const DESCRIBE_TARGET_HEALTH: Operation = Operation::new("elasticloadbalancing", "DescribeTargetHealth");

/// Pages of listeners or rules. A load balancer has at most 50 listeners and, by default, 100 rules; a quota can be
/// raised, and a page has up to 400.
const PAGES: usize = 50;

/// Services whose target groups are looked up together. Each has a few.
const SHARING: usize = 10;

/// Target groups in one call: ELB's limit.
const GROUPS: usize = 20;

/// Results a page: ELB's limit.
const PAGE: i32 = 400;

/// A load balancer's ARN.
type LoadBalancer = Arc<str>;

/// A listener's rules, or why they could not be read.
type Rules = Result<Vec<TrafficRule>, CallError>;

/// A listener, with what the SDK's reader passed over in its default actions.
type Listened = (Listener, Option<Arc<str>>);

/// A load balancer's listeners.
type Listeners = Result<Vec<Listened>, CallError>;

/// The load balancers of groups.
type Users = Result<Vec<(TargetGroupArn, BTreeSet<LoadBalancer>)>, CallError>;

/// Elastic Load Balancing in one account and Region.
#[derive(Clone)]
pub struct Elb {
    client: Client,
    calls: Calls,
    pace: Arc<Pace>,
    urgency: Urgency,
    known: Arc<Mutex<Topology>>,
    waiting: Arc<Waiting>,
}

/// Who waits for a call that is not sent yet. Services that share a load balancer share the call then, and none gets an answer
/// that is older than its question. Whoever asked first may give up: the call is nobody's own.
#[derive(Debug, Default)]
struct Waiting {
    rules: Company<ListenerArn, Rules>,
    listeners: Company<LoadBalancer, Listeners>,
    /// All of them wait for one call.
    users: Company<(), Users, Vec<TargetGroupArn>>,
}

/// What is remembered. A group that no load balancer uses is not: it may be taken into use at any time.
#[derive(Debug, Default)]
struct Topology {
    balancers: BTreeMap<TargetGroupArn, BTreeSet<LoadBalancer>>,
    listeners: BTreeMap<LoadBalancer, Vec<ListenerArn>>,
}

impl Topology {
    /// Takes what was answered for what it remembered.
    fn learn(
        &mut self,
        users: &BTreeMap<TargetGroupArn, BTreeSet<LoadBalancer>>,
        listeners: impl Iterator<Item = (LoadBalancer, Vec<ListenerArn>)>,
    ) {
        for (group, balancers) in users {
            let before = self.balancers.remove(group).unwrap_or_default();
            for left in before.difference(balancers) {
                self.listeners.remove(left);
            }
            if !balancers.is_empty() {
                self.balancers.insert(group.clone(), balancers.clone());
            }
        }
        self.listeners.extend(listeners);
    }
}

/// What one read has been told so far.
#[derive(Debug, Default)]
struct Told {
    users: BTreeMap<TargetGroupArn, BTreeSet<LoadBalancer>>,
    listeners: Answers<LoadBalancer, Vec<Listened>>,
    rules: Answers<ListenerArn, Vec<TrafficRule>>,
}

/// What is asked in one round.
#[derive(Debug)]
struct Questions {
    groups: Vec<TargetGroupArn>,
    balancers: Vec<LoadBalancer>,
    listeners: Vec<ListenerArn>,
}

/// Answers by what they are about. What is gone may have been a wrong guess.
type Answers<K, V> = BTreeMap<K, Result<V, CallError>>;

impl Told {
    /// The way from these groups to their rules, as told, or else as remembered.
    fn way(&self, groups: &BTreeSet<TargetGroupArn>, known: &Topology) -> Topology {
        let users = |group: &TargetGroupArn| self.users.get(group).or_else(|| known.balancers.get(group)).cloned();
        let balancers: BTreeMap<_, _> =
            groups.iter().filter_map(|group| Some((group.clone(), users(group)?))).collect();
        let of = |balancer: &LoadBalancer| match self.listeners.get(balancer) {
            Some(told) => told.as_ref().ok().map(|listeners| arns(listeners)),
            None => known.listeners.get(balancer).cloned(),
        };
        let with_rules = balancers.values().flatten().filter(|balancer| has_rules(balancer));
        let listeners = with_rules.filter_map(|balancer| Some((balancer.clone(), of(balancer)?))).collect();
        Topology { balancers, listeners }
    }

    /// What is to be asked now about this way: all that nothing was told about, but for what is remembered, unless that is to
    /// be learned anew. Of rules nothing is remembered.
    fn questions(&self, groups: &BTreeSet<TargetGroupArn>, way: &Topology, relearn: bool) -> Questions {
        let strange = |group: &&TargetGroupArn| {
            !self.users.contains_key(*group) && (relearn || !way.balancers.contains_key(*group))
        };
        let unsure = |balancer: &&LoadBalancer| {
            !self.listeners.contains_key(*balancer) && (relearn || !way.listeners.contains_key(*balancer))
        };
        let unread = |listener: &&ListenerArn| !self.rules.contains_key(*listener);
        let used: BTreeSet<_> = way.balancers.values().flatten().collect();
        Questions {
            groups: groups.iter().filter(strange).cloned().collect(),
            balancers: used.into_iter().filter(unsure).cloned().collect(),
            listeners: way.listeners.values().flatten().filter(unread).cloned().collect(),
        }
    }

    /// What it was told about listeners with rules, to be remembered.
    fn listeners(&self) -> impl Iterator<Item = (LoadBalancer, Vec<ListenerArn>)> {
        let told = self.listeners.iter().filter(|(balancer, _)| has_rules(balancer));
        told.filter_map(|(balancer, told)| Some((balancer.clone(), arns(told.as_ref().ok()?))))
    }

    /// All rules on this way, or the first answer that is missing to it.
    fn rules(mut self, way: Topology) -> Result<Vec<TrafficRule>, CallError> {
        let mut rules = Vec::new();
        for balancer in way.balancers.into_values().flatten().collect::<BTreeSet<_>>() {
            let told = self.listeners.remove(&balancer).transpose()?;
            if has_rules(&balancer) {
                for listener in way.listeners.get(&balancer).into_iter().flatten() {
                    rules.extend(self.rules.remove(listener).transpose()?.unwrap_or_default());
                }
            } else {
                let listeners = told.into_iter().flatten();
                rules.extend(listeners.filter_map(|(listener, unread)| default_rule(&listener, unread)));
            }
        }
        Ok(rules)
    }
}

impl Elb {
    pub(super) fn new(client: Client, calls: Calls, pace: Arc<Pace>) -> Self {
        Self { client, calls, pace, urgency: Urgency::default(), known: Arc::default(), waiting: Arc::default() }
    }

    /// The same, for reads of this urgency: it knows what the other one knows, and does not wait for what is less urgent.
    #[must_use]
    pub fn at(&self, urgency: Urgency) -> Self {
        Self { urgency, waiting: Arc::default(), ..self.clone() }
    }

    fn known(&self) -> MutexGuard<'_, Topology> {
        // A memory of ARNs is whole after any panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load balancers of these groups.
    async fn look_up(&self, groups: Vec<TargetGroupArn>) -> Users {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let (is_first, answered) = self.waiting.users.join(&(), groups);
        if is_first {
            let elb = self.clone();
            tokio::spawn(async move {
                elb.pace.turn(elb.urgency).await;
                let mut asked = elb.waiting.users.take(&());
                while !asked.is_empty() {
                    let few = asked.split_off(asked.len().saturating_sub(SHARING));
                    let groups: BTreeSet<_> = few.iter().flat_map(|(groups, _)| groups).cloned().collect();
                    let found = elb.describe_groups(groups.into_iter().collect()).await;
                    for (wanted, answer) in few {
                        let found = match &found {
                            // One that is gone, or odd, fails the call for all, so then they are asked for one by one.
                            Err(CallError { class: ErrorClass::NotFound | ErrorClass::Rejected, .. }) => {
                                elb.describe_each(wanted).await
                            }
                            Err(error) => Err(error.clone()),
                            Ok(all) => Ok(all.iter().filter(|(group, _)| wanted.contains(group)).cloned().collect()),
                        };
                        // Whoever asked may have given up.
                        let _ = answer.send(found);
                    }
                    if !asked.is_empty() {
                        elb.pace.turn(elb.urgency).await;
                    }
                }
            });
        }
        answered.await.unwrap_or_else(|_| Err(died(DESCRIBE_TARGET_GROUPS)))
    }

    async fn describe_each(&self, groups: Vec<TargetGroupArn>) -> Users {
        let each = groups.into_iter().map(|group| {
            let elb = self.clone();
            async move {
                elb.pace.turn(elb.urgency).await;
                match elb.describe_groups(vec![group]).await {
                    Err(error) if error.class == ErrorClass::NotFound => Ok(Vec::new()),
                    other => other,
                }
            }
        });
        Ok(side_by_side(each).await?.into_iter().flatten().collect())
    }

    /// Has had its turn; more than fit into a call take another one.
    async fn describe_groups(&self, groups: Vec<TargetGroupArn>) -> Users {
        let pair = |group: &aws_sdk_elasticloadbalancingv2::types::TargetGroup| {
            let balancers = group.load_balancer_arns().iter().map(|arn| LoadBalancer::from(arn.as_str()));
            Some((TargetGroupArn::new(group.target_group_arn()?), balancers.collect()))
        };
        let mut found = Vec::new();
        for (number, some) in groups.chunks(GROUPS).enumerate() {
            if number > 0 {
                self.pace.turn(self.urgency).await;
            }
            let arns = some.iter().map(ToString::to_string).collect();
            let call = self.client.describe_target_groups().set_target_group_arns(Some(arns)).send();
            let answer = self.calls.send(DESCRIBE_TARGET_GROUPS, call).await?;
            found.extend(answer.target_groups().iter().filter_map(pair));
        }
        Ok(found)
    }

    /// One call for all who ask before it has its turn.
    async fn together<K, T, F>(
        &self,
        company: fn(&Waiting) -> &Company<K, Result<T, CallError>>,
        key: &K,
        operation: Operation,
        call: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Result<T, CallError>
    where
        K: Ord + Clone + Send + Sync + 'static,
        T: Clone + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send,
    {
        let (is_first, answered) = company(&self.waiting).join(key, ());
        if is_first {
            let (elb, key) = (self.clone(), key.clone());
            tokio::spawn(async move {
                elb.pace.turn(elb.urgency).await;
                let asked = company(&elb.waiting).take(&key);
                if asked.is_empty() {
                    return;
                }
                let said = call(elb).await;
                // Whoever asked may have given up.
                for ((), answer) in asked {
                    let _ = answer.send(said.clone());
                }
            });
        }
        answered.await.unwrap_or_else(|_| Err(died(operation)))
    }

    async fn describe_listeners(self, balancer: LoadBalancer) -> Listeners {
        let wanted = balancer.clone();
        let call = |elb: Self| async move { elb.ask_for_listeners(&wanted).await };
        self.together(|waiting| &waiting.listeners, &balancer, DESCRIBE_LISTENERS, call).await
    }

    /// The first page has had its turn.
    async fn ask_for_listeners(&self, balancer: &LoadBalancer) -> Listeners {
        let mut listeners = Vec::new();
        let mut marker = None;
        for page in 0..PAGES {
            if page > 0 {
                self.pace.turn(self.urgency).await;
            }
            let unread = Unread::default();
            let call = self.client.describe_listeners().load_balancer_arn(&**balancer).page_size(PAGE);
            let call = call.set_marker(marker).customize().interceptor(unread.clone());
            let page = self.calls.send(DESCRIBE_LISTENERS, call.send()).await?;
            let unread = unread.take().into_iter().chain(iter::repeat(None));
            listeners.extend(page.listeners.unwrap_or_default().into_iter().zip(unread));
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(listeners);
            }
        }
        Err(too_many(DESCRIBE_LISTENERS))
    }

    async fn describe_rules(self, listener: ListenerArn) -> Rules {
        let wanted = listener.clone();
        let call = |elb: Self| async move { elb.ask_for_rules(&wanted).await };
        self.together(|waiting| &waiting.rules, &listener, DESCRIBE_RULES, call).await
    }

    /// The first page has had its turn.
    async fn ask_for_rules(&self, listener: &ListenerArn) -> Rules {
        let mut rules = Vec::new();
        let mut marker = None;
        for page in 0..PAGES {
            if page > 0 {
                self.pace.turn(self.urgency).await;
            }
            let unread = Unread::default();
            let call = self.client.describe_rules().listener_arn(listener.as_str()).page_size(PAGE);
            let call = call.set_marker(marker).customize().interceptor(unread.clone());
            let page = self.calls.send(DESCRIBE_RULES, call.send()).await?;
            let unread = unread.take().into_iter().chain(iter::repeat(None));
            rules.extend(
                page.rules().iter().zip(unread).filter_map(|(rule, unread)| traffic_rule(listener, rule, unread)),
            );
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(rules);
            }
        }
        Err(too_many(DESCRIBE_RULES))
    }

    /// The rules that name one of these groups. What is remembered of the way to them counts; to `relearn` it is only a guess
    /// of what to ask about, beside the question that it follows from.
    async fn read(&self, groups: &BTreeSet<TargetGroupArn>, relearn: bool) -> Result<Vec<TrafficRule>, CallError> {
        let mut told = Told::default();
        loop {
            let way = told.way(groups, &self.known());
            let Questions { groups: strangers, balancers, listeners } = told.questions(groups, &way, relearn);
            if strangers.is_empty() && balancers.is_empty() && listeners.is_empty() {
                self.known().learn(&told.users, told.listeners());
                let rules = told.rules(way)?.into_iter();
                return Ok(rules.filter(|rule| groups.iter().any(|group| rule.names(group))).collect());
            }
            // Of one that is gone nothing is said.
            told.users.extend(strangers.iter().map(|group| (group.clone(), BTreeSet::new())));
            let (users, listeners, rules) = tokio::try_join!(
                self.look_up(strangers),
                each(balancers, |balancer| self.clone().describe_listeners(balancer)),
                each(listeners, |listener| self.clone().describe_rules(listener)),
            )?;
            told.users.extend(users);
            told.listeners.extend(listeners);
            told.rules.extend(rules);
        }
    }
}

/// Asks about each, side by side. That one is gone is an answer; any other error ends all.
async fn each<K, V, F>(about: Vec<K>, ask: impl Fn(K) -> F) -> Result<Answers<K, V>, CallError>
where
    K: Ord + Clone + Send + 'static,
    V: Send + 'static,
    F: Future<Output = Result<V, CallError>> + Send + 'static,
{
    let asked = about.into_iter().map(|key| {
        let answer = ask(key.clone());
        async move {
            match answer.await {
                Err(error) if error.class != ErrorClass::NotFound => Err(error),
                answer => Ok((key, answer)),
            }
        }
    });
    Ok(side_by_side(asked).await?.into_iter().collect())
}

#[async_trait]
impl LoadBalancers for Elb {
    async fn rules(&self, groups: &BTreeSet<TargetGroupArn>, relearn: bool) -> Result<Vec<TrafficRule>, CallError> {
        if !relearn {
            match self.read(groups, false).await {
                // A remembered listener or load balancer is gone.
                Err(error) if error.class == ErrorClass::NotFound => {}
                other => return other,
            }
        }
        let fresh = self.read(groups, true).await;
        // What vanished between two calls of this read is a matter of asking again.
        fresh.map_err(|error| match error.class {
            ErrorClass::NotFound => CallError { class: ErrorClass::Transient, ..error },
            _ => error,
        })
    }

    async fn health(&self, group: &TargetGroupArn) -> Result<TargetCounts, CallError> {
        let call = self.client.describe_target_health().target_group_arn(group.as_str()).send();
        self.pace.turn(self.urgency).await;
        let answer = self.calls.send(DESCRIBE_TARGET_HEALTH, call).await?;
        Ok(counts(answer.target_health_descriptions().iter().filter_map(TargetHealthDescription::target_health)))
    }
}

fn died(operation: Operation) -> CallError {
    operation.error(ErrorClass::Transient, "the read died")
}

/// Half a list of rules must not pass for all.
fn too_many(operation: Operation) -> CallError {
    operation.error(ErrorClass::Rejected, format!("more than {PAGES} pages"))
}

/// Application Load Balancers have rules. Listeners of the others have a default action and no more.
fn has_rules(balancer: &LoadBalancer) -> bool {
    balancer.contains(":loadbalancer/app/")
}

fn arns(listeners: &[Listened]) -> Vec<ListenerArn> {
    listeners.iter().filter_map(|(listener, _)| listener.listener_arn().map(ListenerArn::new)).collect()
}

fn traffic_rule(listener: &ListenerArn, rule: &Rule, passed_over: Option<Arc<str>>) -> Option<TrafficRule> {
    let id = if rule.is_default() == Some(true) {
        TrafficRuleId::DefaultOf(listener.clone())
    } else {
        TrafficRuleId::Rule(RuleArn::new(rule.rule_arn()?))
    };
    Some(TrafficRule {
        id,
        listener: listener.clone(),
        priority: rule.priority().unwrap_or("default").into(),
        actions: actions::from_elb(rule.actions()),
        unread: unread::lost(rule.actions(), passed_over),
    })
}

fn default_rule(listener: &Listener, passed_over: Option<Arc<str>>) -> Option<TrafficRule> {
    let arn = ListenerArn::new(listener.listener_arn()?);
    Some(TrafficRule {
        id: TrafficRuleId::DefaultOf(arn.clone()),
        listener: arn,
        priority: "default".into(),
        actions: actions::from_elb(listener.default_actions()),
        unread: unread::lost(listener.default_actions(), passed_over),
    })
}

fn counts<'t>(targets: impl Iterator<Item = &'t TargetHealth>) -> TargetCounts {
    let mut counts = TargetCounts::default();
    for target in targets {
        let one = match target.state() {
            Some(TargetHealthStateEnum::Healthy) => &mut counts.healthy,
            Some(TargetHealthStateEnum::Unhealthy | TargetHealthStateEnum::UnhealthyDraining) => {
                counts.fails(target.reason().map(TargetHealthReasonEnum::as_str), target.description());
                continue;
            }
            Some(TargetHealthStateEnum::Initial) => &mut counts.initial,
            Some(_) => &mut counts.other,
            None => continue,
        };
        *one = one.saturating_add(1);
    }
    counts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_default_rule_is_addressed_by_its_listener() {
        let listener = ListenerArn::new("arn:listener");
        let default = Rule::builder().rule_arn("arn:rule/0").is_default(true).priority("default").build();
        let rule = Rule::builder().rule_arn("arn:rule/1").is_default(false).priority("10").build();
        assert_eq!(traffic_rule(&listener, &default, None).unwrap().id, TrafficRuleId::DefaultOf(listener.clone()));
        let rule = traffic_rule(&listener, &rule, None).unwrap();
        assert_eq!((rule.id, &*rule.priority), (TrafficRuleId::Rule(RuleArn::new("arn:rule/1")), "10"));
    }

    #[test]
    fn only_application_load_balancers_have_rules() {
        let arn = |kind| LoadBalancer::from(format!("arn:aws:elasticloadbalancing:r:1:loadbalancer/{kind}/web/1"));
        assert!(has_rules(&arn("app")));
        assert!(!has_rules(&arn("net")));
    }

    #[test]
    fn targets_are_counted_by_what_they_say_about_the_version() {
        use TargetHealthStateEnum as State;
        let states = [
            State::Healthy,
            State::Healthy,
            State::Unhealthy,
            State::UnhealthyDraining,
            State::Unavailable,
            State::Initial,
            State::Unused,
            State::Draining,
            State::from("new"),
        ];
        let said = |state| {
            let target = TargetHealth::builder().state(state).reason(TargetHealthReasonEnum::ResponseCodeMismatch);
            target.description("Health checks failed with these codes: [502]").build()
        };
        let targets = states.map(said);
        let reason = "Target.ResponseCodeMismatch: Health checks failed with these codes: [502]";
        let reasons = BTreeMap::from([(Arc::from(reason), 2)]);
        let expected = TargetCounts { healthy: 2, unhealthy: 2, initial: 1, other: 4, reasons };
        assert_eq!(counts(targets.iter()), expected);
    }

    #[test]
    fn what_the_load_balancer_fails_at_is_no_failed_health_check() {
        use TargetHealthReasonEnum as Reason;
        let said = |reason| TargetHealth::builder().state(TargetHealthStateEnum::Unhealthy).reason(reason).build();
        let targets = [Reason::InternalError, Reason::RegistrationInProgress, Reason::Timeout].map(said);
        let reasons = BTreeMap::from([(Arc::from("Target.Timeout"), 1)]);
        assert_eq!(counts(targets.iter()), TargetCounts { unhealthy: 1, other: 2, reasons, ..TargetCounts::default() });
    }

    #[test]
    fn a_group_that_left_its_load_balancer_takes_its_listeners_along() {
        let (group, balancer) = (TargetGroupArn::new("g"), LoadBalancer::from("lb"));
        let mut topology = Topology::default();
        let users = |balancers: &[&LoadBalancer]| {
            BTreeMap::from([(group.clone(), balancers.iter().map(|balancer| (*balancer).clone()).collect())])
        };
        topology.learn(&users(&[&balancer]), std::iter::once((balancer.clone(), vec![ListenerArn::new("l")])));
        topology.learn(&users(&[&balancer]), std::iter::empty());
        assert_eq!((topology.balancers.len(), topology.listeners.len()), (1, 1), "nothing new was told");
        topology.learn(&users(&[]), std::iter::empty());
        assert!(topology.balancers.is_empty() && topology.listeners.is_empty());
    }
}
