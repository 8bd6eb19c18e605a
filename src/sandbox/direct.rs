//! A backend without wires: reads and writes in the model's words, for whoever shares its process and its time.
//!
//! The same calls in the same order as over the wire, answered at once. Simulations use it, where the protocols would cost
//! more than everything behind them. Where a call is to take time, or be lost, there is [`super::client`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::api::{Backend, Call, Reply};
use super::readings::{self, refused, unfit};
use crate::model::{
    AlarmReading, Announcement, Ask, CallError, Controller, ErrorClass, ListenerArn, Observation, Samples, ServiceKey,
    ServiceReading, TargetCounts, TargetGroupArn, TaskReading, TaskSet, Timestamp, Traffic, TrafficRule, Write,
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
    let named = &groups | &ask.groups;
    let traffic = if named.is_empty() { Traffic::NoLoadBalancer } else { Traffic::Rules(rules(backend, &named)?) };
    let tasks = tasks(backend, ask)?;
    // One call answers for those named and for all: either it fails or it lists.
    let (alarms, alarms_unlisted) = (alarms(backend, ask).ok(), false);
    let samples = samples(backend, ask, &traffic, read_at).ok().flatten();
    let ask = ask.clone();
    Ok(Observation {
        ask,
        read_at,
        service,
        task_sets_again,
        traffic,
        targets,
        tasks,
        alarms,
        alarms_unlisted,
        samples,
    })
}

fn samples(
    backend: &mut impl Backend,
    ask: &Ask,
    traffic: &Traffic,
    now: Timestamp,
) -> Result<Option<Samples>, CallError> {
    let Some(wanted) = &ask.samples else { return Ok(None) };
    let behind = |group: &TargetGroupArn| {
        let mut naming = traffic.rules().iter().filter(|rule| rule.names(group));
        let balancer = naming.find_map(|rule| rule.listener.balancer().filter(|name| name.starts_with("app/")))?;
        Some((group.clone(), Arc::from(balancer)))
    };
    let groups: BTreeMap<TargetGroupArn, Arc<str>> = wanted.groups.iter().filter_map(behind).collect();
    match send(backend, "GetMetricData", readings::metrics_call(&groups, wanted.from, now))? {
        Reply::Metrics(series) => Ok(Some(readings::samples(&groups, &series))),
        _ => Err(unfit("GetMetricData", "another call's reply")),
    }
}

/// Services that a tag registers, with the rules that their tags name.
///
/// # Errors
/// What AWS refused.
pub fn registered(backend: &mut impl Backend) -> Result<BTreeMap<ServiceKey, Arc<str>>, CallError> {
    match send(backend, "GetResources", readings::registrations_call())? {
        Reply::Resources(found) => Ok(readings::registered(&found)),
        _ => Err(unfit("GetResources", "another call's reply")),
    }
}

/// Sends one write.
///
/// # Errors
/// What AWS refused.
pub fn apply(backend: &mut impl Backend, write: &Write) -> Result<(), CallError> {
    send(backend, write.operation(), readings::call_of(write)).map(drop)
}

/// Puts one announcement on the bus.
///
/// # Errors
/// What AWS refused.
pub fn announce(backend: &mut impl Backend, announcement: &Announcement) -> Result<(), CallError> {
    let operation = "PutEvents";
    let entries = vec![readings::entry_of(announcement)?];
    match send(backend, operation, Call::PutEvents { entries })? {
        Reply::Entries(entries) => match entries.into_iter().next().flatten() {
            Some(error) => Err(refused(operation, error)),
            None => Ok(()),
        },
        _ => Err(unfit(operation, "another call's reply")),
    }
}

fn send(backend: &mut impl Backend, operation: &str, call: Call) -> Result<Reply, CallError> {
    backend.call(call).map_err(|error| refused(operation, error))
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
    Ok(readings::service(view))
}

fn task_sets(backend: &mut impl Backend, key: &ServiceKey, known: &[TaskSet]) -> Result<Vec<TaskSet>, CallError> {
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let operation = "DescribeTaskSets";
    let task_sets = known.iter().map(|set| set.id.to_string()).collect();
    let (cluster, service) = (key.cluster.to_string(), key.service.to_string());
    match send(backend, operation, Call::DescribeTaskSets { cluster, service, task_sets })? {
        Reply::TaskSets { task_sets, .. } => Ok(task_sets.into_iter().map(readings::task_set).collect()),
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
    Ok(readings::counts(targets))
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
        let has_rules = readings::has_rules(&balancer);
        let call = Call::DescribeListeners { load_balancer: Some(balancer), arns: Vec::new() };
        let Reply::Listeners(listeners) = send(backend, "DescribeListeners", call)? else {
            return Err(unfit("DescribeListeners", "another call's reply"));
        };
        for view in listeners {
            if !has_rules {
                found.push(readings::default_rule(view));
                continue;
            }
            let listener = ListenerArn::new(&*view.arn);
            let call = Call::DescribeRules { listener: Some(view.arn), arns: Vec::new() };
            let Reply::Rules(rules) = send(backend, "DescribeRules", call)? else {
                return Err(unfit("DescribeRules", "another call's reply"));
            };
            found.extend(rules.into_iter().map(|view| readings::rule(&listener, view)));
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
            Reply::Tasks { tasks, .. } => found.extend(tasks.into_iter().map(readings::task)),
            _ => return Err(unfit("DescribeTasks", "another call's reply")),
        }
    }
    Ok(found)
}

fn alarms(backend: &mut impl Backend, ask: &Ask) -> Result<Vec<AlarmReading>, CallError> {
    if ask.alarms.is_empty() && !ask.find_alarms {
        return Ok(Vec::new());
    }
    let names = if ask.find_alarms { Vec::new() } else { ask.alarms.iter().map(ToString::to_string).collect() };
    match send(backend, "DescribeAlarms", Call::DescribeAlarms { names })? {
        Reply::Alarms(alarms) => Ok(alarms.into_iter().map(readings::alarm).collect()),
        _ => Err(unfit("DescribeAlarms", "another call's reply")),
    }
}
