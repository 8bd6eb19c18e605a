//! A backend without wires: reads and writes in the model's words, for whoever shares its process and its time.
//!
//! The same calls in the same order as over the wire, answered at once. Simulations use it, where the protocols would cost
//! more than everything behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::api::{
    AlarmView, ApiError, Backend, Call, ContainerView, EventEntry, ListenerView, Reply, RuleView, ServiceView,
    TaskSetView, TaskView,
};
use crate::model::{
    Action, ActionKind, AlarmName, AlarmReading, AlarmValue, Announcement, Arn, Ask, CallError, ContainerExit,
    Controller, ErrorClass, ListenerArn, Observation, RuleArn, SOURCE, Scope, ServiceKey, ServiceReading,
    ServiceStatus, Stability, Stop, Tags, TargetCounts, TargetGroupArn, TaskArn, TaskReading, TaskSet, TaskSetArn,
    TaskSetId, TaskSetStatus, Timestamp, Traffic, TrafficRule, TrafficRuleId, Write, classify, target_group_in,
};

/// One round of reads.
///
/// # Errors
/// `NotFound` when the service does not exist; what AWS refused otherwise.
pub fn observe(backend: &mut impl Backend, ask: &Ask, read_at: Timestamp) -> Result<Observation, CallError> {
    let key = &ask.service;
    let service = service(backend, key)?;
    let external = service.controller == Controller::External;
    let in_use = service.task_sets.iter().filter(|_| external).filter_map(|set| set.target_group.clone());
    let groups: BTreeSet<TargetGroupArn> = in_use.collect();
    let task_sets_again = if ask.twice { Some(task_sets(backend, key, &service.task_sets)?) } else { None };
    let mut targets = BTreeMap::new();
    for group in &groups {
        targets.insert(group.clone(), health(backend, group)?);
    }
    let traffic = if groups.is_empty() { Traffic::NoLoadBalancer } else { Traffic::Rules(rules(backend, &groups)?) };
    let tasks = tasks(backend, ask)?;
    let alarms = alarms(backend, ask).ok();
    Ok(Observation { ask: ask.clone(), read_at, service, task_sets_again, traffic, targets, tasks, alarms })
}

/// Sends one write.
///
/// # Errors
/// What AWS refused.
pub fn apply(backend: &mut impl Backend, write: &Write) -> Result<(), CallError> {
    let names = |service: &ServiceKey| (service.cluster.to_string(), service.service.to_string());
    let call = match write {
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
    };
    send(backend, write.operation(), call).map(drop)
}

/// Puts one announcement on the bus.
///
/// # Errors
/// What AWS refused.
pub fn announce(backend: &mut impl Backend, announcement: &Announcement) -> Result<(), CallError> {
    let operation = "PutEvents";
    let detail = serde_json::to_string(announcement).map_err(|error| unfit(operation, &error.to_string()))?;
    let detail_type = announcement.kind.detail_type().to_owned();
    let entry = EventEntry { source: SOURCE.to_owned(), detail_type, detail, resources: Vec::new(), bus: None };
    match send(backend, operation, Call::PutEvents { entries: vec![entry] })? {
        Reply::Entries(entries) => match entries.into_iter().next().flatten() {
            Some(error) => Err(failed(operation, error)),
            None => Ok(()),
        },
        _ => Err(unfit(operation, "another call's reply")),
    }
}

fn send(backend: &mut impl Backend, operation: &str, call: Call) -> Result<Reply, CallError> {
    backend.call(call).map_err(|error| failed(operation, error))
}

fn failed(operation: &str, error: ApiError) -> CallError {
    let ApiError { code, message, status } = error;
    let class = ErrorClass::of(Some(&code), &message, Some(status));
    CallError { class, operation: operation.to_owned(), code: Some(code), message }
}

fn unfit(operation: &str, what: &str) -> CallError {
    let message = format!("the answer can't be used: {what}");
    CallError { class: ErrorClass::Transient, operation: operation.to_owned(), code: None, message }
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

fn service(backend: &mut impl Backend, key: &ServiceKey) -> Result<ServiceReading, CallError> {
    let operation = "DescribeServices";
    let call = Call::DescribeServices { cluster: key.cluster.to_string(), services: vec![key.service.to_string()] };
    let Reply::Services { services, .. } = send(backend, operation, call)? else {
        return Err(unfit(operation, "another call's reply"));
    };
    let Some(view) = services.into_iter().next() else {
        let message = format!("there is no service {key}");
        return Err(CallError { class: ErrorClass::NotFound, operation: operation.to_owned(), code: None, message });
    };
    let ServiceView { arn, status, controller, desired_count, task_sets, tags, .. } = view;
    Ok(ServiceReading {
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
    })
}

fn task_set(view: TaskSetView) -> TaskSet {
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

fn task_sets(backend: &mut impl Backend, key: &ServiceKey, known: &[TaskSet]) -> Result<Vec<TaskSet>, CallError> {
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let operation = "DescribeTaskSets";
    let task_sets = known.iter().map(|set| set.id.to_string()).collect();
    let (cluster, service) = (key.cluster.to_string(), key.service.to_string());
    match send(backend, operation, Call::DescribeTaskSets { cluster, service, task_sets })? {
        Reply::TaskSets { task_sets, .. } => Ok(task_sets.into_iter().map(task_set).collect()),
        _ => Err(unfit(operation, "another call's reply")),
    }
}

fn health(backend: &mut impl Backend, group: &TargetGroupArn) -> Result<TargetCounts, CallError> {
    let operation = "DescribeTargetHealth";
    let Reply::Targets(targets) =
        send(backend, operation, Call::DescribeTargetHealth { target_group: group.to_string() })?
    else {
        return Err(unfit(operation, "another call's reply"));
    };
    let mut counts = TargetCounts::default();
    for target in targets {
        let count = match target.state.as_str() {
            "healthy" => &mut counts.healthy,
            "unhealthy" | "unhealthy.draining" | "unavailable" => &mut counts.unhealthy,
            "initial" => &mut counts.initial,
            _ => &mut counts.other,
        };
        *count = count.saturating_add(1);
    }
    Ok(counts)
}

/// From groups to load balancers, from those to listeners, from those to rules.
fn rules(backend: &mut impl Backend, groups: &BTreeSet<TargetGroupArn>) -> Result<Vec<TrafficRule>, CallError> {
    let operation = "DescribeTargetGroups";
    let arns = groups.iter().map(ToString::to_string).collect();
    let Reply::TargetGroups(views) = send(backend, operation, Call::DescribeTargetGroups { arns })? else {
        return Err(unfit(operation, "another call's reply"));
    };
    let balancers: BTreeSet<String> = views.into_iter().flat_map(|view| view.load_balancers).collect();
    let mut found = Vec::new();
    for balancer in balancers {
        let has_rules = balancer.contains(":loadbalancer/app/");
        let call = Call::DescribeListeners { load_balancer: Some(balancer), arns: Vec::new() };
        let Reply::Listeners(listeners) = send(backend, "DescribeListeners", call)? else {
            return Err(unfit("DescribeListeners", "another call's reply"));
        };
        for ListenerView { arn, default_actions, .. } in listeners {
            let listener = ListenerArn::new(&*arn);
            if !has_rules {
                let id = TrafficRuleId::DefaultOf(listener.clone());
                found.push(TrafficRule {
                    id,
                    listener,
                    priority: "default".into(),
                    actions: default_actions,
                    unread: None,
                });
                continue;
            }
            let call = Call::DescribeRules { listener: Some(arn), arns: Vec::new() };
            let Reply::Rules(rules) = send(backend, "DescribeRules", call)? else {
                return Err(unfit("DescribeRules", "another call's reply"));
            };
            found.extend(rules.into_iter().map(|RuleView { arn, priority, is_default, actions, .. }| {
                let id = if is_default {
                    TrafficRuleId::DefaultOf(listener.clone())
                } else {
                    TrafficRuleId::Rule(RuleArn::new(arn))
                };
                TrafficRule { id, listener: listener.clone(), priority: priority.into(), actions, unread: None }
            }));
        }
    }
    found.retain(|rule| groups.iter().any(|group| rule.names(group)));
    Ok(found)
}

fn tasks(backend: &mut impl Backend, ask: &Ask) -> Result<Vec<TaskReading>, CallError> {
    let key = &ask.service;
    let mut wanted: BTreeSet<String> = ask.tasks.iter().map(ToString::to_string).collect();
    if ask.find_stopped {
        let (cluster, service) = (key.cluster.to_string(), Some(key.service.to_string()));
        let call = Call::ListTasks { cluster, service, started_by: None, stopped: true };
        match send(backend, "ListTasks", call)? {
            Reply::Arns(arns) => wanted.extend(arns),
            _ => return Err(unfit("ListTasks", "another call's reply")),
        }
    }
    let wanted: Vec<String> = wanted.into_iter().collect();
    let mut found = Vec::new();
    for tasks in wanted.chunks(100) {
        let call = Call::DescribeTasks { cluster: key.cluster.to_string(), tasks: tasks.to_vec() };
        match send(backend, "DescribeTasks", call)? {
            Reply::Tasks { tasks, .. } => found.extend(tasks.into_iter().map(task)),
            _ => return Err(unfit("DescribeTasks", "another call's reply")),
        }
    }
    Ok(found)
}

fn task(view: TaskView) -> TaskReading {
    let TaskView { arn, started_by, desired_status, version, stop_code, stopped_reason, .. } = view;
    let ended = desired_status == "STOPPED" || stop_code.is_some();
    let at = view.stopping_at.or(view.stopped_at).filter(|_| ended);
    let exit = |ContainerView { name, exit_code, reason, .. }| ContainerExit {
        name: Arc::from(name),
        exit_code,
        reason: reason.map(Arc::from),
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
    TaskReading { task: TaskArn::new(arn), task_set: TaskSetId::new(started_by), version, stop }
}

fn alarms(backend: &mut impl Backend, ask: &Ask) -> Result<Vec<AlarmReading>, CallError> {
    if ask.alarms.is_empty() && !ask.find_alarms {
        return Ok(Vec::new());
    }
    let names = if ask.find_alarms { Vec::new() } else { ask.alarms.iter().map(ToString::to_string).collect() };
    match send(backend, "DescribeAlarms", Call::DescribeAlarms { names })? {
        Reply::Alarms(alarms) => Ok(alarms.into_iter().map(alarm).collect()),
        _ => Err(unfit("DescribeAlarms", "another call's reply")),
    }
}

fn alarm(view: AlarmView) -> AlarmReading {
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
