//! ECS as the fleet: services, task sets and tasks, reading only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{
    Container, DeploymentController, DeploymentControllerType, DesiredStatus, Failure, Service, ServiceField,
    StabilityStatus, Tag, Task, TaskSet as EcsTaskSet, TaskSetField,
};

use super::calls::{Calls, Operation, side_by_side};
use super::pace::Pace;
use super::{count, timestamp};

use crate::model::{
    Arn, CallError, ContainerExit, Controller, ErrorClass, ServiceKey, ServiceReading, ServiceStatus, Stability, Stop,
    Tags, TargetGroupArn, TaskArn, TaskReading, TaskSet, TaskSetArn, TaskSetId, TaskSetStatus, Urgency, classify, cut,
    target_group_in,
};
use crate::ports::Fleet;

const LIST_CLUSTERS: Operation = Operation::new("ecs", "ListClusters");
const LIST_SERVICES: Operation = Operation::new("ecs", "ListServices");
const LIST_TASKS: Operation = Operation::new("ecs", "ListTasks");
const DESCRIBE_SERVICES: Operation = Operation::new("ecs", "DescribeServices");
const DESCRIBE_TASK_SETS: Operation = Operation::new("ecs", "DescribeTaskSets");
const DESCRIBE_TASKS: Operation = Operation::new("ecs", "DescribeTasks");

/// Results a page, and tasks in one `DescribeTasks`: ECS's limit for both.
const PAGE: usize = 100;

/// Services in one `DescribeServices`: ECS's limit.
const SERVICES: usize = 10;

/// Pages of clusters or services. Ten thousand names; an account's quota is lower.
const NAME_PAGES: usize = 100;

/// Pages of stopped tasks: 500 tasks. ECS keeps stopped tasks for an hour or more, and a breach needs a handful.
const STOPPED_PAGES: usize = 5;

/// How much of a stopped reason is kept, in bytes; as the model says.
const REASON_BYTES: usize = 512;

/// How much of a container's reason is kept, in bytes; as the model says.
const CONTAINER_REASON_BYTES: usize = 256;

/// How many containers of a task are kept; as the model says.
const CONTAINERS: usize = 10;

/// ECS in one account and Region.
#[derive(Clone)]
pub struct Ecs {
    client: Client,
    calls: Calls,
    /// Of what ECS counts as reads of services.
    pace: Arc<Pace>,
    urgency: Urgency,
}

impl Ecs {
    pub(super) fn new(client: Client, calls: Calls, pace: Arc<Pace>) -> Self {
        Self { client, calls, pace, urgency: Urgency::default() }
    }

    /// The same, for reads of this urgency: they do not wait for what is less urgent.
    #[must_use]
    pub fn at(&self, urgency: Urgency) -> Self {
        Self { urgency, ..self.clone() }
    }

    async fn describe_few(&self, cluster: &str, services: &[Arc<str>]) -> Result<Vec<Service>, CallError> {
        let names = services.iter().map(ToString::to_string).collect();
        let call = self.client.describe_services().cluster(cluster).set_services(Some(names));
        self.pace.turn(self.urgency).await;
        let answer = self.calls.send(DESCRIBE_SERVICES, call.include(ServiceField::Tags).send()).await?;
        missing_only(DESCRIBE_SERVICES, answer.failures())?;
        Ok(answer.services.unwrap_or_default())
    }

    /// Those of the tasks that ECS knows. One odd name makes ECS refuse the whole call, and the names come out of events:
    /// a refused call is split until what is refused is alone, and that is then not known.
    async fn describe_tasks(self, cluster: Arc<str>, tasks: Vec<String>) -> Result<Vec<Task>, CallError> {
        let mut found = Vec::new();
        let mut open = vec![tasks];
        while let Some(mut tasks) = open.pop() {
            let call = self.client.describe_tasks().cluster(&*cluster).set_tasks(Some(tasks.clone())).send();
            match self.calls.send(DESCRIBE_TASKS, call).await {
                Ok(answer) => found.extend(answer.tasks.unwrap_or_default()),
                Err(refused) if refused.class == ErrorClass::Rejected && tasks.len() > 1 => {
                    let rest = tasks.split_off(tasks.len() / 2);
                    open.extend([tasks, rest]);
                }
                Err(refused) if refused.class == ErrorClass::Rejected => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn describe_all(&self, cluster: &Arc<str>, tasks: &[TaskArn]) -> Result<Vec<Task>, CallError> {
        let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
        let calls: Vec<_> =
            names.chunks(PAGE).map(|chunk| self.clone().describe_tasks(cluster.clone(), chunk.to_vec())).collect();
        Ok(side_by_side(calls).await?.into_iter().flatten().collect())
    }

    /// What ECS lists as stopped, or about to stop, for a service.
    async fn stopped(&self, service: &ServiceKey) -> Result<Vec<TaskArn>, CallError> {
        let mut tasks = Vec::new();
        let mut token = None;
        for _ in 0..STOPPED_PAGES {
            let call = self
                .client
                .list_tasks()
                .cluster(&*service.cluster)
                .service_name(&*service.service)
                .desired_status(DesiredStatus::Stopped)
                .max_results(100)
                .set_next_token(token);
            let page = self.calls.send(LIST_TASKS, call.send()).await?;
            tasks.extend(page.task_arns.unwrap_or_default().iter().map(TaskArn::new));
            token = page.next_token;
            if token.is_none() {
                return Ok(tasks);
            }
        }
        tracing::warn!(service = %service, read = tasks.len(), "ECS lists more stopped tasks than are read");
        Ok(tasks)
    }
}

#[async_trait]
impl Fleet for Ecs {
    async fn clusters(&self) -> Result<Vec<Arc<str>>, CallError> {
        let mut names = Vec::new();
        let mut token = None;
        for _ in 0..NAME_PAGES {
            let call = self.client.list_clusters().max_results(100).set_next_token(token);
            let page = self.calls.send(LIST_CLUSTERS, call.send()).await?;
            names.extend(page.cluster_arns.unwrap_or_default().iter().map(|arn| last_part(arn)));
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        Ok(names)
    }

    async fn services(&self, cluster: &str) -> Result<Vec<Arc<str>>, CallError> {
        let mut names = Vec::new();
        let mut token = None;
        for _ in 0..NAME_PAGES {
            let call = self.client.list_services().cluster(cluster).max_results(100).set_next_token(token);
            self.pace.turn(self.urgency).await;
            let page = self.calls.send(LIST_SERVICES, call.send()).await?;
            names.extend(page.service_arns.unwrap_or_default().iter().map(|arn| last_part(arn)));
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        Ok(names)
    }

    async fn describe(
        &self,
        cluster: &str,
        services: &[Arc<str>],
    ) -> Result<BTreeMap<ServiceKey, ServiceReading>, CallError> {
        let mut readings = BTreeMap::new();
        for few in services.chunks(SERVICES) {
            for service in self.describe_few(cluster, few).await? {
                let name = service.service_name().ok_or_else(|| DESCRIBE_SERVICES.incomplete("serviceName"))?;
                readings.insert(ServiceKey::new(cluster, name), service_reading(&service)?);
            }
        }
        Ok(readings)
    }

    async fn task_sets(&self, service: &ServiceKey, ids: &[TaskSetId]) -> Result<Vec<TaskSet>, CallError> {
        // ECS refuses an empty list.
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.iter().map(ToString::to_string).collect();
        let call = self
            .client
            .describe_task_sets()
            .cluster(&*service.cluster)
            .service(&*service.service)
            .set_task_sets(Some(ids))
            .include(TaskSetField::Tags)
            .send();
        let answer = self.calls.send(DESCRIBE_TASK_SETS, call).await?;
        answer.task_sets().iter().map(|task_set| task_set_reading(DESCRIBE_TASK_SETS, task_set)).collect()
    }

    async fn tasks(
        &self,
        service: &ServiceKey,
        asked: &[TaskArn],
        find_stopped: bool,
    ) -> Result<Vec<TaskReading>, CallError> {
        let asked: Vec<TaskArn> = asked.iter().filter(|task| is_task_of(task, &service.cluster)).cloned().collect();
        let confirm = self.describe_all(&service.cluster, &asked);
        let find = async {
            let mut stopped = if find_stopped { self.stopped(service).await? } else { Vec::new() };
            let known: BTreeSet<&TaskArn> = asked.iter().collect();
            stopped.retain(|task| !known.contains(task));
            self.describe_all(&service.cluster, &stopped).await
        };
        let (confirmed, found) = tokio::try_join!(confirm, find)?;
        Ok(confirmed.iter().chain(&found).filter_map(task_reading).collect())
    }
}

/// `MISSING` means that it does not exist. Any other reason leaves open whether it does, and absence is acted on.
fn missing_only(operation: Operation, failures: &[Failure]) -> Result<(), CallError> {
    match failures.iter().find(|failure| failure.reason() != Some("MISSING")) {
        None => Ok(()),
        Some(failure) => {
            let code = failure.reason().map(str::to_owned);
            let message = format!("{}: {}", failure.arn().unwrap_or("?"), failure.detail().unwrap_or("no detail"));
            Err(CallError { code, ..operation.error(ErrorClass::Transient, message) })
        }
    }
}

/// Whether ECS would take this as a task of the cluster. Task ARNs of the old, short form name no cluster.
fn is_task_of(task: &TaskArn, cluster: &str) -> bool {
    let Some(arn) = Arn::parse(task.as_str()) else { return false };
    let is_id = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let parts: Vec<&str> = arn.resource.split('/').collect();
    arn.service == "ecs"
        && match parts[..] {
            ["task", id] => is_id(id),
            ["task", of, id] => of == cluster && is_id(id),
            _ => false,
        }
}

/// The name in `cluster/<name>`, `service/<name>` and `service/<cluster>/<name>`.
fn last_part(arn: &str) -> Arc<str> {
    Arc::from(arn.rsplit('/').next().unwrap_or(arn))
}

fn service_reading(service: &Service) -> Result<ServiceReading, CallError> {
    let scope = service
        .service_arn()
        .and_then(Arn::parse)
        .map(|arn| arn.scope())
        .ok_or_else(|| DESCRIBE_SERVICES.incomplete("serviceArn"))?;
    let controller = match service.deployment_controller().map(DeploymentController::r#type) {
        Some(DeploymentControllerType::External) => Controller::External,
        Some(DeploymentControllerType::CodeDeploy) => Controller::CodeDeploy,
        // The answer names no controller for a service that was created without one: rolling updates.
        Some(DeploymentControllerType::Ecs) | None => Controller::Ecs,
        Some(other) => Controller::Other(other.as_str().to_owned()),
    };
    let status = if service.status() == Some("ACTIVE") { ServiceStatus::Active } else { ServiceStatus::Inactive };
    let task_sets = service.task_sets().iter().map(|task_set| task_set_reading(DESCRIBE_SERVICES, task_set));
    Ok(ServiceReading {
        scope,
        status,
        controller,
        desired_count: count(service.desired_count()),
        task_sets: task_sets.collect::<Result<_, _>>()?,
        tags: tags(service.tags()),
    })
}

fn tags(tags: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or("").to_owned()));
    tags.iter().filter_map(pair).collect()
}

fn task_set_reading(operation: Operation, task_set: &EcsTaskSet) -> Result<TaskSet, CallError> {
    Ok(TaskSet {
        id: task_set.id().map(TaskSetId::new).ok_or_else(|| operation.incomplete("taskSets[].id"))?,
        arn: task_set
            .task_set_arn()
            .map(TaskSetArn::new)
            .ok_or_else(|| operation.incomplete("taskSets[].taskSetArn"))?,
        status: match task_set.status() {
            Some("PRIMARY") => TaskSetStatus::Primary,
            Some("ACTIVE") => TaskSetStatus::Active,
            Some("DRAINING") => TaskSetStatus::Draining,
            _ => TaskSetStatus::Unknown,
        },
        // It decides which one is green, so it is never guessed.
        created_at: task_set
            .created_at()
            .and_then(timestamp)
            .ok_or_else(|| operation.incomplete("taskSets[].createdAt"))?,
        stability: match task_set.stability_status() {
            Some(StabilityStatus::SteadyState) => Stability::Steady,
            _ => Stability::Stabilizing,
        },
        running: count(task_set.running_count()),
        pending: count(task_set.pending_count()),
        computed_desired: count(task_set.computed_desired_count()),
        target_group: task_set.load_balancers().iter().find_map(|lb| lb.target_group_arn()).map(TargetGroupArn::new),
        task_definition: Arc::from(task_set.task_definition().unwrap_or_default()),
        external_id: task_set.external_id().map(Arc::from),
        tags: tags(task_set.tags()),
    })
}

/// A task that nobody can be blamed for (it names no task set) is as good as unknown.
fn task_reading(task: &Task) -> Option<TaskReading> {
    Some(TaskReading {
        task: TaskArn::new(task.task_arn()?),
        task_set: TaskSetId::new(task.started_by()?),
        version: u64::try_from(task.version()).unwrap_or(0),
        stop: stop(task),
        images: task.containers().iter().take(CONTAINERS).filter_map(image).collect(),
    })
}

fn image(container: &Container) -> Option<(Arc<str>, Arc<str>)> {
    Some((container.name()?.into(), container.image_digest()?.into()))
}

/// How ECS says that a task ended, or is about to. Without any time there is nothing to put into a window.
fn stop(task: &Task) -> Option<Stop> {
    let is_stopping = task.desired_status() == Some("STOPPED") || task.stop_code().is_some();
    let at = [task.stopping_at(), task.stopped_at(), task.execution_stopped_at()].into_iter().flatten().next();
    let at = at.filter(|_| is_stopping).and_then(timestamp)?;
    let code = task.stop_code().map_or("", |code| code.as_str());
    let reason = task.stopped_reason().unwrap_or_default();
    let ended = task.containers().iter().filter(|c| c.exit_code().is_some() || c.reason().is_some());
    let exit = |container: &Container| ContainerExit {
        name: Arc::from(container.name().unwrap_or_default()),
        exit_code: container.exit_code(),
        reason: container.reason().map(|reason| cut(reason, CONTAINER_REASON_BYTES)),
        image_digest: container.image_digest().map(Arc::from),
    };
    Some(Stop {
        at,
        class: classify(code, reason),
        code: Arc::from(code),
        reason: cut(reason, REASON_BYTES),
        containers: ended.take(CONTAINERS).map(exit).collect(),
        target_group: target_group_in(reason),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use aws_sdk_ecs::types::{LoadBalancer, TaskStopCode};
    use aws_smithy_types::DateTime;

    use super::*;
    use crate::model::{StopClass, Timestamp};

    const GROUP: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/1a2b";

    fn ecs_task_set() -> aws_sdk_ecs::types::builders::TaskSetBuilder {
        EcsTaskSet::builder()
            .id("ecs-svc/1")
            .task_set_arn("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/ecs-svc/1")
            .status("PRIMARY")
            .stability_status(StabilityStatus::SteadyState)
            .created_at(DateTime::from_millis(1_500))
            .running_count(3)
            .computed_desired_count(4)
            .pending_count(1)
            .task_definition("arn:aws:ecs:eu-west-1:111122223333:task-definition/checkout:87")
            .load_balancers(LoadBalancer::builder().target_group_arn(GROUP).build())
    }

    fn ecs_service() -> aws_sdk_ecs::types::builders::ServiceBuilder {
        let external = DeploymentController::builder().r#type(DeploymentControllerType::External).build().unwrap();
        Service::builder()
            .service_arn("arn:aws:ecs:eu-west-1:111122223333:service/prod/checkout")
            .service_name("checkout")
            .status("ACTIVE")
            .desired_count(4)
            .deployment_controller(external)
            .tags(Tag::builder().key("taskset-guardian:rule").value("web").build())
            .task_sets(ecs_task_set().build())
    }

    #[test]
    fn a_service_is_read_with_its_task_sets_and_tags() {
        let reading = service_reading(&ecs_service().build()).unwrap();
        assert_eq!(reading.scope.to_string(), "111122223333/eu-west-1");
        assert_eq!((reading.status, reading.controller), (ServiceStatus::Active, Controller::External));
        assert_eq!(reading.tags.get("taskset-guardian:rule").map(String::as_str), Some("web"));
        let task_set = &reading.task_sets[0];
        assert_eq!((task_set.status, task_set.stability), (TaskSetStatus::Primary, Stability::Steady));
        assert_eq!((task_set.running, task_set.pending, task_set.computed_desired), (3, 1, 4));
        assert_eq!(task_set.created_at, Timestamp::from_millis(1_500));
        assert_eq!(task_set.target_group, Some(TargetGroupArn::new(GROUP)));
    }

    #[test]
    fn a_service_on_its_way_out_is_inactive_and_one_without_controller_is_rolling() {
        let reading = service_reading(&ecs_service().status("DRAINING").build()).unwrap();
        assert_eq!(reading.status, ServiceStatus::Inactive);
        let reading = service_reading(&ecs_service().set_deployment_controller(None).build()).unwrap();
        assert_eq!(reading.controller, Controller::Ecs);
    }

    #[test]
    fn a_task_set_without_creation_time_fails_the_reading() {
        let error = task_set_reading(DESCRIBE_SERVICES, &ecs_task_set().set_created_at(None).build()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient);
        assert!(error.message.contains("createdAt"), "{error}");
    }

    #[test]
    fn an_unknown_status_is_never_taken_for_active() {
        let reading = task_set_reading(DESCRIBE_SERVICES, &ecs_task_set().status("PAUSED").build()).unwrap();
        assert_eq!(reading.status, TaskSetStatus::Unknown);
    }

    #[test]
    fn a_missing_service_is_absent_and_any_other_failure_is_an_error() {
        let failure = |reason: &str| Failure::builder().arn("arn").reason(reason).build();
        assert!(missing_only(DESCRIBE_SERVICES, &[failure("MISSING")]).is_ok());
        let error = missing_only(DESCRIBE_SERVICES, &[failure("MISSING"), failure("ACCESS_DENIED")]).unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (ErrorClass::Transient, Some("ACCESS_DENIED")));
    }

    #[test]
    fn only_plausible_tasks_of_the_cluster_are_asked_about() {
        let is_asked = |arn: &str| is_task_of(&TaskArn::new(arn), "prod");
        assert!(is_asked("arn:aws:ecs:eu-west-1:111122223333:task/prod/0f9de17a6465404e8b1b2356dc13c2f8"));
        assert!(is_asked("arn:aws:ecs:eu-west-1:111122223333:task/0f9de17a-6465-404e-8b1b-2356dc13c2f8"));
        assert!(!is_asked("arn:aws:ecs:eu-west-1:111122223333:task/other/0f9de17a6465404e8b1b2356dc13c2f8"));
        assert!(!is_asked("arn:aws:ecs:eu-west-1:111122223333:task/prod/"));
        assert!(!is_asked("arn:aws:ecs:eu-west-1:111122223333:task/prod/a b"));
        assert!(!is_asked("rubbish"));
    }

    fn ecs_task() -> aws_sdk_ecs::types::builders::TaskBuilder {
        Task::builder()
            .task_arn("arn:aws:ecs:eu-west-1:111122223333:task/prod/1")
            .started_by("ecs-svc/1")
            .version(6)
            .desired_status("STOPPED")
            .stop_code(TaskStopCode::EssentialContainerExited)
            .stopped_reason("Essential container in task exited")
            .stopping_at(DateTime::from_millis(1_000))
            .stopped_at(DateTime::from_millis(2_000))
            .containers(Container::builder().name("app").exit_code(1).build())
            .containers(Container::builder().name("sidecar").build())
    }

    #[test]
    fn a_stopped_task_is_read_with_time_class_and_containers() {
        let reading = task_reading(&ecs_task().build()).unwrap();
        assert_eq!((reading.task_set.as_str(), reading.version), ("ecs-svc/1", 6));
        let stop = reading.stop.unwrap();
        assert_eq!(stop.at, Timestamp::from_millis(1_000), "stoppingAt comes before stoppedAt");
        assert_eq!(stop.class, StopClass::Version);
        let exits: Vec<_> = stop.containers.iter().map(|exit| (&*exit.name, exit.exit_code)).collect();
        assert_eq!(exits, [("app", Some(1))], "only containers that ended");
    }

    #[test]
    fn a_running_task_has_no_stop_and_a_warned_one_has() {
        let running = ecs_task().set_stop_code(None).desired_status("RUNNING");
        assert_eq!(task_reading(&running.clone().build()).unwrap().stop, None);
        let warned = running.stop_code(TaskStopCode::SpotInterruption).build();
        assert!(task_reading(&warned).unwrap().stop.is_some());
    }

    #[test]
    fn a_stop_without_any_time_is_no_evidence() {
        let timeless = ecs_task().set_stopping_at(None).set_stopped_at(None).build();
        assert_eq!(task_reading(&timeless).unwrap().stop, None);
    }
}
