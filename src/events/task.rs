//! `ECS Task State Change`: a task of a task set began, changed or ended.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::envelope::{Envelope, Text, ecs_arn, part, timestamp};
use super::{DecodeError, IgnoredReason, NoSignal};
use crate::model::{
    ContainerExit, Fact, ServiceKey, Signal, Stop, StopClass, TaskArn, TaskChange, TaskSetId, Timestamp, classify, cut,
    target_group_in,
};

/// More containers than an incident can usefully show.
const MOST_CONTAINERS: usize = 10;

/// A task-set id is `ecs-svc/` and about 19 digits; the bound leaves room for more.
const MOST_DIGITS: usize = 40;

/// Source and detail type.
pub(super) const KIND: (&str, &str) = ("aws.ecs", "ECS Task State Change");

/// Only what ECS always sends is demanded.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detail<'a> {
    #[serde(borrow)]
    cluster_arn: Text<'a>,
    #[serde(borrow)]
    task_arn: Text<'a>,
    #[serde(borrow)]
    last_status: Text<'a>,
    #[serde(borrow)]
    desired_status: Text<'a>,
    version: u64,
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    started_by: Option<Text<'a>>,
    #[serde(borrow)]
    stop_code: Option<Text<'a>>,
    #[serde(borrow)]
    stopped_reason: Option<Text<'a>>,
    #[serde(borrow)]
    stopping_at: Option<Text<'a>>,
    #[serde(borrow)]
    stopped_at: Option<Text<'a>>,
    /// Half of an event, and read only where it matters.
    #[serde(borrow)]
    containers: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    exit_code: Option<i64>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    image_digest: Option<Text<'a>>,
}

/// What reads an event of a task.
pub(super) type Event<'a> = Envelope<'a, Detail<'a>, IgnoredAny>;

pub(super) fn read(event: &Event<'_>) -> Result<Signal, NoSignal> {
    let detail = &event.detail;
    let service = detail.group.as_ref().and_then(|group| group.as_str().strip_prefix("service:"));
    let service = service.ok_or(IgnoredReason::NotOfAService)?;
    let task_set = detail.started_by.as_ref().and_then(|by| task_set(by.as_str()));
    let task_set = task_set.ok_or(IgnoredReason::NotOfATaskSet)?;

    let (cluster_arn, cluster) = ecs_arn("detail.clusterArn", detail.cluster_arn.as_str(), "cluster")?;
    let (task_arn, task) = ecs_arn("detail.taskArn", detail.task_arn.as_str(), "task")?;
    // `<cluster>/<id>`, and `<id>` alone where the long format was never switched on.
    let is_elsewhere = task.split_once('/').is_some_and(|(named, _)| named != cluster);
    if is_elsewhere || !event.covers(&cluster_arn) || !event.covers(&task_arn) {
        return Err(IgnoredReason::Contradictory.into());
    }
    let at = event.at()?;
    let change = TaskChange {
        service: ServiceKey::new(part("detail.clusterArn", cluster)?, part("detail.group", service)?),
        task_set,
        task: TaskArn::new(detail.task_arn.as_str()),
        version: detail.version,
        last_status: cut(detail.last_status.as_str(), 64),
        stop: stop(detail, at)?,
    };
    Ok(event.signal(at, Fact::Task(change))?)
}

pub(super) fn task_set(started_by: &str) -> Option<TaskSetId> {
    let digits = started_by.strip_prefix("ecs-svc/")?;
    let is_number = (1..=MOST_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| TaskSetId::new(started_by))
}

/// A dying task sends several events, and ECS gives the stop code in all of them: a Spot task's first one comes two
/// minutes before the end, while it still runs.
fn stop(detail: &Detail<'_>, event_time: Timestamp) -> Result<Option<Stop>, DecodeError> {
    let code = detail.stop_code.as_ref().map(Text::as_str).unwrap_or_default();
    let ends = [&detail.desired_status, &detail.last_status].iter().any(|status| status.as_str() == "STOPPED");
    if code.is_empty() && !ends {
        return Ok(None);
    }
    let reason = detail.stopped_reason.as_ref().map(Text::as_str).unwrap_or_default();
    let at = match (&detail.stopping_at, &detail.stopped_at) {
        (Some(stopping), _) => timestamp("detail.stoppingAt", stopping)?,
        (None, Some(stopped)) => timestamp("detail.stoppedAt", stopped)?,
        (None, None) => event_time,
    };
    let class = classify(code, reason);
    Ok(Some(Stop {
        at,
        class,
        code: cut(code, 64),
        reason: cut(reason, 512),
        containers: exits(detail, code, class)?,
        target_group: if class == StopClass::Neutral { None } else { target_group_in(reason) },
    }))
}

/// How its containers ended. Those of a task that was told to end say nothing by it.
fn exits(detail: &Detail<'_>, code: &str, class: StopClass) -> Result<Vec<ContainerExit>, DecodeError> {
    let speak = match class {
        StopClass::Version | StopClass::Unknown => true,
        StopClass::Infrastructure => code.eq_ignore_ascii_case("TaskFailedToStart"),
        StopClass::Operator | StopClass::Neutral => false,
    };
    let Some(containers) = detail.containers.filter(|_| speak) else { return Ok(Vec::new()) };
    let containers: Option<Vec<Container<'_>>> =
        serde_json::from_str(containers.get()).map_err(|error| DecodeError::at("detail.containers", error))?;
    Ok(containers.iter().flatten().filter_map(ended).take(MOST_CONTAINERS).collect())
}

fn ended(container: &Container<'_>) -> Option<ContainerExit> {
    let reason: Option<Arc<str>> = container.reason.as_ref().map(|reason| cut(reason.as_str(), 256));
    if container.exit_code.is_none() && reason.is_none() {
        return None;
    }
    Some(ContainerExit {
        name: cut(container.name.as_ref().map(Text::as_str).unwrap_or_default(), 256),
        exit_code: container.exit_code.and_then(exit_code),
        reason,
        image_digest: container.image_digest.as_ref().map(|digest| cut(digest.as_str(), 128)),
    })
}

/// Windows ends processes with unsigned codes such as 3221225477.
fn exit_code(code: i64) -> Option<i32> {
    i32::try_from(code).ok().or_else(|| u32::try_from(code).ok().map(u32::cast_signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_task_sets_start_tasks_with_a_number() {
        assert!(task_set("ecs-svc/4420815973316504711").is_some());
        for other in ["", "ecs-svc/", "ecs-svc/x", "ecs-svc/1/2", "nightly-job", "CODE_DEPLOY"] {
            assert_eq!(task_set(other), None, "{other}");
        }
        assert_eq!(task_set(&format!("ecs-svc/{}", "1".repeat(41))), None);
    }

    #[test]
    fn unsigned_exit_codes_keep_their_bits() {
        assert_eq!(exit_code(137), Some(137));
        assert_eq!(exit_code(3_221_225_477), Some(-1_073_741_819));
        assert_eq!(exit_code(i64::MAX), None);
    }
}
