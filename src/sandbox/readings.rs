//! Between the world's words and the model's: what a call is for a write, and what a reply says to whoever reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::api::{
    AlarmView, ApiError, Call, ContainerView, EventEntry, ListenerView, MetricQuery, MetricSeries, RuleView,
    ServiceView, TargetView, TaskSetView, TaskView,
};
use crate::model::{
    Action, ActionKind, AlarmName, AlarmReading, AlarmValue, Announcement, Arn, CallError, ContainerExit, Controller,
    ErrorClass, ListenerArn, RuleArn, SOURCE, Sample, SampleMetric, Samples, Scope, ServiceKey, ServiceReading,
    ServiceStatus, Stability, Stop, Tags, TargetCounts, TargetGroupArn, TaskArn, TaskReading, TaskSet, TaskSetArn,
    TaskSetId, TaskSetStatus, Timestamp, TrafficRule, TrafficRuleId, Write, classify, tags, target_group_in,
};

/// What AWS refused, in its class.
pub fn refused(operation: &str, error: ApiError) -> CallError {
    let ApiError { code, message, status } = error;
    let class = ErrorClass::of(Some(&code), &message, Some(status));
    CallError { class, operation: operation.to_owned(), code: Some(code), message }
}

/// An answer that is of no use to whoever asked.
pub(super) fn unfit(operation: &str, what: &str) -> CallError {
    let message = format!("the answer can't be used: {what}");
    CallError { class: ErrorClass::Transient, operation: operation.to_owned(), code: None, message }
}

/// The call that carries a write.
pub(super) fn call_of(write: &Write) -> Call {
    let names = |service: &ServiceKey| (service.cluster.to_string(), service.service.to_string());
    match write {
        Write::SetActions { rule: TrafficRuleId::Rule(rule), actions, .. } => {
            Call::ModifyRule { rule: rule.to_string(), actions: with_secret(actions) }
        }
        Write::SetActions { rule: TrafficRuleId::DefaultOf(listener), actions, .. } => {
            Call::ModifyListener { listener: listener.to_string(), default_actions: with_secret(actions) }
        }
        Write::ScaleTaskSet { service, task_set, percent } => {
            let ((cluster, service), task_set) = (names(service), task_set.to_string());
            Call::UpdateTaskSet { cluster, service, task_set, scale: f64::from(*percent) }
        }
        Write::SetPrimary { service, task_set } => {
            let ((cluster, service), task_set) = (names(service), task_set.to_string());
            Call::SetPrimary { cluster, service, task_set }
        }
        Write::DeleteTaskSet { service, task_set } => {
            let ((cluster, service), task_set) = (names(service), task_set.to_string());
            Call::DeleteTaskSet { cluster, service, task_set, force: true }
        }
    }
}

/// What goes on the bus.
pub(super) fn entry_of(announcement: &Announcement) -> Result<EventEntry, CallError> {
    let detail = serde_json::to_string(announcement).map_err(|error| unfit("PutEvents", &error.to_string()))?;
    let detail_type = announcement.kind.detail_type().to_owned();
    Ok(EventEntry { source: SOURCE.to_owned(), detail_type, detail, resources: Vec::new(), bus: None })
}

/// The secret of a login is never told, so it can only be kept.
fn with_secret(actions: &[Action]) -> Vec<Action> {
    let mut actions = actions.to_vec();
    for action in &mut actions {
        if let ActionKind::Kept(kept) = &mut action.kind
            && let Some(Value::Object(login)) = kept.config.get_mut("AuthenticateOidcConfig")
        {
            login.insert("UseExistingClientSecret".to_owned(), Value::Bool(true));
        }
    }
    actions
}

pub(super) fn service(view: ServiceView) -> ServiceReading {
    let ServiceView { arn, status, controller, desired_count, task_sets, tags, .. } = view;
    ServiceReading {
        scope: Arn::parse(&arn).map_or_else(|| Scope { account: "".into(), region: "".into() }, |arn| arn.scope()),
        status: if status == "ACTIVE" { ServiceStatus::Active } else { ServiceStatus::Inactive },
        controller: match controller.as_str() {
            "EXTERNAL" => Controller::External,
            "CODE_DEPLOY" => Controller::CodeDeploy,
            "ECS" => Controller::Ecs,
            _ => Controller::Other(controller),
        },
        desired_count,
        // AWS leaves out the tags of nested task sets.
        task_sets: task_sets.into_iter().map(|set| TaskSet { tags: Tags::new(), ..task_set(set) }).collect(),
        tags,
    }
}

pub(super) fn task_set(view: TaskSetView) -> TaskSet {
    let TaskSetView {
        id,
        arn,
        status,
        stability,
        created_at,
        running,
        pending,
        computed_desired,
        target_group,
        task_definition,
        ..
    } = view;
    TaskSet {
        id: TaskSetId::new(id),
        arn: TaskSetArn::new(arn),
        status: match status.as_str() {
            "PRIMARY" => TaskSetStatus::Primary,
            "ACTIVE" => TaskSetStatus::Active,
            "DRAINING" => TaskSetStatus::Draining,
            _ => TaskSetStatus::Unknown,
        },
        created_at,
        stability: if stability == "STEADY_STATE" { Stability::Steady } else { Stability::Stabilizing },
        running,
        pending,
        computed_desired,
        target_group: target_group.map(TargetGroupArn::new),
        task_definition: task_definition.into(),
        external_id: view.external_id.map(Arc::from),
        tags: view.tags,
    }
}

pub(super) fn counts(targets: Vec<TargetView>) -> TargetCounts {
    let mut counts = TargetCounts::default();
    for target in targets {
        let count = match target.state.as_str() {
            "healthy" => &mut counts.healthy,
            "unhealthy" | "unhealthy.draining" => {
                counts.fails(target.reason.as_deref(), None);
                continue;
            }
            "initial" => &mut counts.initial,
            _ => &mut counts.other,
        };
        *count = count.saturating_add(1);
    }
    counts
}

/// Application Load Balancers have rules. Listeners of the others have a default action and no more.
pub(super) fn has_rules(balancer: &str) -> bool {
    balancer.contains(":loadbalancer/app/")
}

pub(super) fn default_rule(view: ListenerView) -> TrafficRule {
    let listener = ListenerArn::new(view.arn);
    let id = TrafficRuleId::DefaultOf(listener.clone());
    TrafficRule { id, listener, priority: "default".into(), actions: view.default_actions, unread: None }
}

pub(super) fn rule(listener: &ListenerArn, view: RuleView) -> TrafficRule {
    let RuleView { arn, priority, is_default, actions, .. } = view;
    let id =
        if is_default { TrafficRuleId::DefaultOf(listener.clone()) } else { TrafficRuleId::Rule(RuleArn::new(arn)) };
    TrafficRule { id, listener: listener.clone(), priority: priority.into(), actions, unread: None }
}

pub(super) fn task(view: TaskView) -> TaskReading {
    let TaskView { arn, started_by, desired_status, version, stop_code, stopped_reason, .. } = view;
    let ended = desired_status == "STOPPED" || stop_code.is_some();
    let at = view.stopping_at.or(view.stopped_at).filter(|_| ended);
    let image = |container: &ContainerView| {
        let digest = container.image_digest.as_deref()?;
        Some((Arc::from(container.name.as_str()), Arc::from(digest)))
    };
    let images = view.containers.iter().filter_map(image).collect();
    let exit = |ContainerView { name, exit_code, reason, image_digest, .. }| ContainerExit {
        name: Arc::from(name),
        exit_code,
        reason: reason.map(Arc::from),
        image_digest: image_digest.map(Arc::from),
    };
    let stop = at.map(|at| {
        let (code, reason) = (stop_code.unwrap_or_default(), stopped_reason.unwrap_or_default());
        Stop {
            at,
            class: classify(&code, &reason),
            target_group: target_group_in(&reason),
            code: code.into(),
            reason: reason.into(),
            containers: view.containers.into_iter().filter(|c| c.exit_code.is_some()).map(exit).collect(),
        }
    });
    TaskReading { task: TaskArn::new(arn), task_set: TaskSetId::new(started_by), version, stop, images }
}

/// The call for the traffic of target groups, each behind its load balancer.
pub(super) fn metrics_call(groups: &BTreeMap<TargetGroupArn, Arc<str>>, from: Timestamp, to: Timestamp) -> Call {
    let query = |group: &TargetGroupArn, balancer: &Arc<str>, metric: &SampleMetric| MetricQuery {
        id: format!("{} {}", group.dimension(), metric.name),
        namespace: Sample::NAMESPACE.to_owned(),
        metric: metric.name.to_owned(),
        dimensions: BTreeMap::from([
            ("LoadBalancer".to_owned(), balancer.to_string()),
            ("TargetGroup".to_owned(), group.dimension().to_owned()),
        ]),
        period: 60,
        statistic: metric.statistic.to_owned(),
    };
    let of_group = |(group, balancer)| {
        Sample::METRICS.iter().map(move |metric| query(group, balancer, metric)).collect::<Vec<_>>()
    };
    Call::GetMetricData { queries: groups.iter().flat_map(of_group).collect(), from, to }
}

/// Its answer, in the order of the queries.
pub(super) fn samples(groups: &BTreeMap<TargetGroupArn, Arc<str>>, series: &[MetricSeries]) -> Samples {
    let mut samples = Samples::new();
    for (group, series) in groups.keys().zip(series.chunks(Sample::METRICS.len())) {
        let points = |(number, series): (usize, &MetricSeries)| {
            series.points.iter().map(move |(at, value)| (number, *at, *value)).collect::<Vec<_>>()
        };
        let minutes = Sample::minutes(series.iter().enumerate().flat_map(points));
        if !minutes.is_empty() {
            samples.insert(group.clone(), minutes);
        }
    }
    samples
}

pub(super) fn registrations_call() -> Call {
    Call::GetResources { key: tags::RULE.to_owned(), values: Vec::new() }
}

/// The rules that the tags of services name.
pub(super) fn registered(found: &BTreeMap<String, Tags>) -> BTreeMap<ServiceKey, Arc<str>> {
    let named = |(arn, said): (&String, &Tags)| Some((ServiceKey::of_arn(arn)?, Arc::from(tags::rule(said)?)));
    found.iter().filter_map(named).collect()
}

pub(super) fn alarm(view: AlarmView) -> AlarmReading {
    let AlarmView { name, state, reason, since, dimensions, .. } = view;
    AlarmReading {
        name: AlarmName::new(name),
        value: match state.as_str() {
            "OK" => AlarmValue::Ok,
            "ALARM" => AlarmValue::Alarm,
            _ => AlarmValue::InsufficientData,
        },
        since,
        reason: reason.into(),
        doubt: None,
        target_groups: dimensions
            .into_iter()
            .filter(|(name, _)| name == "TargetGroup")
            .map(|(_, of)| of.into())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_load_balancer_fails_at_is_no_failed_health_check() {
        let target = |state: &str, reason: &str| TargetView {
            id: "10.0.0.1".to_owned(),
            port: 80,
            state: state.to_owned(),
            reason: Some(reason.to_owned()),
        };
        let said = counts(vec![
            target("unhealthy", "Elb.InternalError"),
            target("unavailable", "Target.HealthCheckDisabled"),
            target("unhealthy", "Target.Timeout"),
        ]);
        assert_eq!((said.unhealthy, said.other, said.healthy), (1, 2, 0));
    }
}
