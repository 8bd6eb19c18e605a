//! ECS.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::error::ProvideErrorMetadata as _;
use aws_sdk_ecs::types::{DesiredStatus, Scale, ScaleUnit, ServiceField, TaskSetField};

use super::*;
use crate::sandbox::api::{ContainerView, ServiceView, TaskSetView, TaskView};

fn task_set() -> TaskSetView {
    TaskSetView {
        id: text("ecs-svc/42"),
        arn: text("arn:task-set"),
        service_arn: text("arn:service"),
        cluster_arn: text("arn:cluster"),
        status: text("PRIMARY"),
        stability: text("STABILIZING"),
        stability_at: at(1),
        created_at: at(2),
        updated_at: at(3),
        running: 2,
        pending: 1,
        computed_desired: 3,
        scale: 62.5,
        task_definition: text("arn:task-definition"),
        target_group: Some(text("arn:target-group")),
        external_id: Some(text("green")),
        tags: pairs(&[("team", "shop")]),
    }
}

fn assert_is_task_set(out: &aws_sdk_ecs::types::TaskSet, tags: bool) {
    let view = task_set();
    assert_eq!(out.id(), Some(view.id.as_str()));
    assert_eq!(out.task_set_arn(), Some(view.arn.as_str()));
    assert_eq!(out.service_arn(), Some(view.service_arn.as_str()));
    assert_eq!(out.cluster_arn(), Some(view.cluster_arn.as_str()));
    assert_eq!(out.status(), Some("PRIMARY"));
    assert_eq!(out.stability_status().map(aws_sdk_ecs::types::StabilityStatus::as_str), Some("STABILIZING"));
    assert_eq!(millis!(out.stability_status_at()), Some(at(1)));
    assert_eq!(millis!(out.created_at()), Some(at(2)));
    assert_eq!(millis!(out.updated_at()), Some(at(3)));
    assert_eq!((out.running_count(), out.pending_count(), out.computed_desired_count()), (2, 1, 3));
    assert_eq!(out.scale(), Some(&Scale::builder().value(62.5).unit(ScaleUnit::Percent).build()));
    assert_eq!(out.task_definition(), Some("arn:task-definition"));
    let groups: Vec<_> = out.load_balancers().iter().filter_map(|it| it.target_group_arn()).collect();
    assert_eq!(groups, ["arn:target-group"]);
    assert_eq!(out.external_id(), Some("green"));
    let expected: &[_] = if tags { &[(Some("team"), Some("shop"))] } else { &[] };
    assert_eq!(out.tags().iter().map(|it| (it.key(), it.value())).collect::<Vec<_>>(), expected);
}

async fn delete(client: &Client) -> Result<aws_sdk_ecs::types::TaskSet, aws_sdk_ecs::error::BoxError> {
    let out = client.delete_task_set().cluster("c").service("s").task_set("t").force(true).send().await?;
    Ok(out.task_set.expect("an answer without its task set"))
}

#[tokio::test]
async fn lists_name_what_they_list() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    for arn in ["arn:cluster", "arn:service", "arn:stopped", "arn:started"] {
        rig.answer(Reply::Arns(texts(&[arn, "arn:other"])));
    }

    let clusters = client.list_clusters().max_results(100).send().await.unwrap();
    assert_eq!(clusters.cluster_arns(), ["arn:cluster", "arn:other"]);
    assert_eq!(rig.call().await, Call::ListClusters);

    let services = client.list_services().cluster("c").send().await.unwrap();
    assert_eq!(services.service_arns(), ["arn:service", "arn:other"]);
    assert_eq!(services.next_token(), None);
    assert_eq!(rig.call().await, Call::ListServices { cluster: text("c") });

    let tasks = client.list_tasks().cluster("c").service_name("s").desired_status(DesiredStatus::Stopped);
    assert_eq!(tasks.send().await.unwrap().task_arns(), ["arn:stopped", "arn:other"]);
    let expected = Call::ListTasks { cluster: text("c"), service: Some(text("s")), started_by: None, stopped: true };
    assert_eq!(rig.call().await, expected);

    let tasks = client.list_tasks().started_by("ecs-svc/42").send().await.unwrap();
    assert_eq!(tasks.task_arns(), ["arn:started", "arn:other"]);
    let started_by = Some(text("ecs-svc/42"));
    assert_eq!(
        rig.call().await,
        Call::ListTasks { cluster: text("default"), service: None, started_by, stopped: false },
        "AWS assumes the default cluster"
    );
}

#[tokio::test]
async fn services_come_whole_with_their_task_sets() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    let view = ServiceView {
        arn: text("arn:service"),
        name: text("shop"),
        cluster_arn: text("arn:cluster"),
        status: text("ACTIVE"),
        controller: text("EXTERNAL"),
        desired_count: 4,
        running: 5,
        pending: 2,
        task_sets: vec![task_set()],
        tags: pairs(&[("guard", "on")]),
        created_at: at(7),
    };
    let answer = Reply::Services { services: vec![view], missing: texts(&["arn:gone"]) };
    rig.answer(answer.clone());
    rig.answer(answer);

    let ask = client.describe_services().cluster("c").services("shop").services("gone");
    let out = ask.clone().include(ServiceField::Tags).send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeServices { cluster: text("c"), services: texts(&["shop", "gone"]) });
    let [service] = out.services() else { panic!("{out:?}") };
    assert_eq!(service.service_arn(), Some("arn:service"));
    assert_eq!(service.service_name(), Some("shop"));
    assert_eq!(service.cluster_arn(), Some("arn:cluster"));
    assert_eq!(service.status(), Some("ACTIVE"));
    assert_eq!(service.deployment_controller().map(|it| it.r#type().as_str()), Some("EXTERNAL"));
    assert_eq!((service.desired_count(), service.running_count(), service.pending_count()), (4, 5, 2));
    assert_eq!(millis!(service.created_at()), Some(at(7)));
    assert_eq!(
        service.tags().iter().map(|it| (it.key(), it.value())).collect::<Vec<_>>(),
        [(Some("guard"), Some("on"))]
    );
    let [nested] = service.task_sets() else { panic!("{service:?}") };
    assert_is_task_set(nested, false);
    let [failure] = out.failures() else { panic!("{out:?}") };
    assert_eq!((failure.arn(), failure.reason()), (Some("arn:gone"), Some("MISSING")));

    let without = ask.send().await.unwrap();
    assert!(without.services()[0].tags().is_empty(), "tags come only when they are asked for");
}

#[tokio::test]
async fn task_sets_are_described_and_changed() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    rig.answer(Reply::TaskSets { task_sets: vec![task_set()], missing: texts(&["arn:gone"]) });
    for _ in 0..3 {
        rig.answer(Reply::TaskSets { task_sets: vec![task_set()], missing: Vec::new() });
    }
    let (cluster, service, task_set) = (text("c"), text("s"), text("t"));

    let ask = client.describe_task_sets().cluster("c").service("s").task_sets("t").task_sets("u");
    let out = ask.include(TaskSetField::Tags).send().await.unwrap();
    assert_is_task_set(&out.task_sets()[0], true);
    assert_eq!(out.failures()[0].arn(), Some("arn:gone"));
    let task_sets = texts(&["t", "u"]);
    let expected = Call::DescribeTaskSets { cluster: cluster.clone(), service: service.clone(), task_sets };
    assert_eq!(rig.call().await, expected);

    let scale = Scale::builder().value(33.3).unit(ScaleUnit::Percent).build();
    let update = client.update_task_set().cluster("c").service("s").task_set("t").scale(scale);
    assert_is_task_set(update.send().await.unwrap().task_set().unwrap(), true);
    let (c, s, t) = (cluster.clone(), service.clone(), task_set.clone());
    assert_eq!(rig.call().await, Call::UpdateTaskSet { cluster: c, service: s, task_set: t, scale: 33.3 });

    let promote = client.update_service_primary_task_set().cluster("c").service("s").primary_task_set("t");
    assert_is_task_set(promote.send().await.unwrap().task_set().unwrap(), true);
    let (c, s, t) = (cluster.clone(), service.clone(), task_set.clone());
    assert_eq!(rig.call().await, Call::SetPrimary { cluster: c, service: s, task_set: t });

    assert_is_task_set(&delete(&client).await.unwrap(), true);
    assert_eq!(rig.call().await, Call::DeleteTaskSet { cluster, service, task_set, force: true });
}

#[tokio::test]
async fn tasks_come_with_why_they_stopped() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    let view = TaskView {
        arn: text("arn:task"),
        cluster_arn: text("arn:cluster"),
        group: text("service:shop"),
        started_by: text("ecs-svc/42"),
        task_definition: text("arn:task-definition"),
        last_status: text("STOPPED"),
        desired_status: text("STOPPED"),
        health_status: text("UNHEALTHY"),
        version: 9,
        stop_code: Some(text("EssentialContainerExited")),
        stopped_reason: Some(text("Essential container in task exited")),
        created_at: at(1),
        started_at: Some(at(2)),
        stopping_at: Some(at(3)),
        stopped_at: Some(at(4)),
        containers: vec![ContainerView {
            name: text("web"),
            image: text("shop:2"),
            image_digest: Some(text("sha256:00")),
            last_status: text("STOPPED"),
            exit_code: Some(137),
            reason: Some(text("OutOfMemoryError: Container killed")),
        }],
    };
    let young = TaskView { started_at: None, stopping_at: None, stopped_at: None, stop_code: None, ..view.clone() };
    rig.answer(Reply::Tasks { tasks: vec![view, young], missing: texts(&["arn:gone"]) });

    let out = client.describe_tasks().cluster("c").tasks("a").tasks("b").send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeTasks { cluster: text("c"), tasks: texts(&["a", "b"]) });
    let [task, young] = out.tasks() else { panic!("{out:?}") };
    assert_eq!((task.task_arn(), task.cluster_arn()), (Some("arn:task"), Some("arn:cluster")));
    assert_eq!((task.group(), task.started_by()), (Some("service:shop"), Some("ecs-svc/42")));
    assert_eq!(task.task_definition_arn(), Some("arn:task-definition"));
    assert_eq!((task.last_status(), task.desired_status()), (Some("STOPPED"), Some("STOPPED")));
    assert_eq!(task.health_status().map(aws_sdk_ecs::types::HealthStatus::as_str), Some("UNHEALTHY"));
    assert_eq!(task.version(), 9);
    assert_eq!(task.stop_code().map(aws_sdk_ecs::types::TaskStopCode::as_str), Some("EssentialContainerExited"));
    assert_eq!(task.stopped_reason(), Some("Essential container in task exited"));
    let times = [task.created_at(), task.started_at(), task.stopping_at(), task.stopped_at()];
    assert_eq!(times.map(|time| millis!(time)), [1, 2, 3, 4].map(|n| Some(at(n))));
    let [container] = task.containers() else { panic!("{task:?}") };
    assert_eq!((container.name(), container.image()), (Some("web"), Some("shop:2")));
    assert_eq!(container.image_digest(), Some("sha256:00"));
    assert_eq!((container.last_status(), container.exit_code()), (Some("STOPPED"), Some(137)));
    assert_eq!(container.reason(), Some("OutOfMemoryError: Container killed"));
    assert_eq!((young.started_at(), young.stopped_at(), young.stop_code()), (None, None, None));
    assert_eq!(out.failures()[0].arn(), Some("arn:gone"));
}

#[tokio::test]
async fn refusals_arrive_as_the_sdks_own_errors() {
    let rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    rig.refuse("TaskSetNotFoundException", 400);
    rig.refuse("ThrottlingException", 400);
    rig.refuse("ServerException", 500);
    let ask = || client.delete_task_set().cluster("c").service("s").task_set("t").send();

    let gone = ask().await.unwrap_err();
    assert_eq!((gone.code(), gone.message()), (Some("TaskSetNotFoundException"), Some("because & <why>")));
    assert!(gone.as_service_error().unwrap().is_task_set_not_found_exception());
    assert_eq!(gone.raw_response().unwrap().status().as_u16(), 400);

    assert_eq!(ask().await.unwrap_err().code(), Some("ThrottlingException"));

    let failed = ask().await.unwrap_err();
    assert!(failed.as_service_error().unwrap().is_server_exception());
    assert_eq!(failed.raw_response().unwrap().status().as_u16(), 500);
}

#[tokio::test]
async fn what_the_sandbox_does_not_know_is_refused_and_not_ignored() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    let filtered = client.list_tasks().cluster("c").family("web").send().await.unwrap_err();
    assert_eq!(filtered.code(), Some("InvalidParameterException"));
    assert!(filtered.message().unwrap().contains("family"), "{filtered:?}");
    let unknown = client.describe_clusters().send().await.unwrap_err();
    assert_eq!(unknown.code(), Some("UnknownOperationException"));
    rig.assert_untouched();
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_the_backends_fault() {
    let rig = Rig::start().await;
    rig.answer(Reply::Empty);
    let failed = client!(aws_sdk_ecs, rig).list_clusters().send().await.unwrap_err();
    assert_eq!((failed.code(), failed.raw_response().unwrap().status().as_u16()), (Some("InternalFailure"), 500));
}
