//! The AWS account of the test: set up, disturbed and looked at through the SDK's clients.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use aws_config::BehaviorVersion;
use aws_sdk_ecs::config::{Credentials, Region};
use aws_sdk_ecs::primitives::{DateTime, DateTimeFormat};
use aws_sdk_ecs::types as ecs;
use aws_sdk_elasticloadbalancingv2::types as elb;
use aws_sdk_eventbridge::types as events;
use aws_sdk_sqs::types::QueueAttributeName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::{Network, eventually};

pub(crate) const REGION: &str = "eu-west-1";
const CLUSTER: &str = "prod";
const SERVICE: &str = "checkout";

/// Tasks of the service, and of each task set, for both are at full scale.
const DESIRED: i32 = 2;

/// For how many seconds a message that was read is not seen again: longer than the test.
const READ_ONCE: i32 = 3600;

/// A task set and its target group.
pub(crate) struct TaskSet {
    pub(crate) id: String,
    arn: String,
    group: String,
}

/// Weights by target group, of a rule that forwards and is sticky.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forward(BTreeMap<String, i32>);

impl Forward {
    pub(crate) fn new<const N: usize>(weights: [(&TaskSet, i32); N]) -> Self {
        Self(weights.into_iter().map(|(task_set, weight)| (task_set.group.clone(), weight)).collect())
    }
}

pub(crate) struct Account {
    pub(crate) endpoint: String,
    /// The queue that the guardian reads.
    pub(crate) events_url: String,
    pub(crate) blue: TaskSet,
    pub(crate) green: TaskSet,
    listener: String,
    /// The one of the listener's rules that splits the traffic between blue and green.
    rule: String,
    announcements_url: String,
    clients: Clients,
}

struct Clients {
    ecs: aws_sdk_ecs::Client,
    elb: aws_sdk_elasticloadbalancingv2::Client,
    events: aws_sdk_eventbridge::Client,
    sqs: aws_sdk_sqs::Client,
}

impl Clients {
    async fn connect(endpoint: &str) -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .load()
            .await;
        Self {
            ecs: aws_sdk_ecs::Client::new(&config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            events: aws_sdk_eventbridge::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
        }
    }

    /// Its URL and its ARN.
    async fn queue(&self, name: &str) -> (String, String) {
        let url = self.sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
        let asked = self.sqs.get_queue_attributes().queue_url(&url).attribute_names(QueueAttributeName::QueueArn);
        let arn = asked.send().await.unwrap().attributes.unwrap()[&QueueAttributeName::QueueArn].clone();
        (url, arn)
    }

    /// A queue with a rule that sends it the events of these sources.
    async fn queue_of_events(&self, name: &str, sources: &[&str]) -> String {
        let (url, arn) = self.queue(name).await;
        let pattern = json!({ "source": sources }).to_string();
        self.events.put_rule().name(name).event_pattern(pattern).send().await.unwrap();
        let target = events::Target::builder().id("queue").arn(arn).build().unwrap();
        let put = self.events.put_targets().rule(name).targets(target).send().await.unwrap();
        assert_eq!(put.failed_entry_count(), 0);
        url
    }

    /// A target group with a healthy target for every task.
    async fn target_group(&self, name: &str, network: &Network) -> String {
        let made = self
            .elb
            .create_target_group()
            .name(name)
            .target_type(elb::TargetTypeEnum::Ip)
            .protocol(elb::ProtocolEnum::Http)
            .port(8080)
            .vpc_id(&network.vpc);
        let group = made.send().await.unwrap().target_groups()[0].target_group_arn().unwrap().to_owned();
        self.targets(&group).await;
        group
    }

    /// A healthy target for every task, which on AWS the tasks themselves are.
    async fn targets(&self, group: &str) {
        for host in 0..DESIRED {
            let target = elb::TargetDescription::builder().id(format!("172.31.0.{}", 10 + host)).port(8080).build();
            self.elb.register_targets().target_group_arn(group).targets(target).send().await.unwrap();
        }
    }

    /// An ALB whose one listener answers 404, and its one rule, which forwards to both groups. Listener and rule.
    async fn load_balancer(&self, network: &Network, blue: &str, green: &str) -> (String, String) {
        let balancer = self.elb.create_load_balancer().name("web").set_subnets(Some(network.subnets.clone()));
        let balancer = balancer.send().await.unwrap().load_balancers()[0].load_balancer_arn().unwrap().to_owned();
        let answer = elb::FixedResponseActionConfig::builder().status_code("404").build();
        let answer =
            elb::Action::builder().r#type(elb::ActionTypeEnum::FixedResponse).fixed_response_config(answer).build();
        let listener = self
            .elb
            .create_listener()
            .load_balancer_arn(balancer)
            .protocol(elb::ProtocolEnum::Http)
            .port(80)
            .default_actions(answer);
        let listener = listener.send().await.unwrap().listeners()[0].listener_arn().unwrap().to_owned();
        let group = |arn: &str, weight| elb::TargetGroupTuple::builder().target_group_arn(arn).weight(weight).build();
        let sticky = elb::TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(3600).build();
        let forward = elb::ForwardActionConfig::builder()
            .target_groups(group(blue, 90))
            .target_groups(group(green, 10))
            .target_group_stickiness_config(sticky)
            .build();
        let forward = elb::Action::builder().r#type(elb::ActionTypeEnum::Forward).forward_config(forward).build();
        let path = elb::PathPatternConditionConfig::builder().values("/checkout*").build();
        let condition = elb::RuleCondition::builder().field("path-pattern").path_pattern_config(path).build();
        let rule = self.elb.create_rule().listener_arn(&listener).priority(10).conditions(condition).actions(forward);
        let rule = rule.send().await.unwrap().rules()[0].rule_arn().unwrap().to_owned();
        (listener, rule)
    }

    /// An EXTERNAL service without task sets.
    async fn service(&self) {
        self.ecs.create_cluster().cluster_name(CLUSTER).send().await.unwrap();
        let external =
            ecs::DeploymentController::builder().r#type(ecs::DeploymentControllerType::External).build().unwrap();
        let service = self.ecs.create_service().cluster(CLUSTER).service_name(SERVICE).desired_count(DESIRED);
        service.deployment_controller(external).send().await.unwrap();
    }

    /// A task set at full scale, of a new revision of the task definition. Its id and ARN.
    async fn task_set(&self, network: &Network, group: &str, image: &str) -> (String, String) {
        let container = ecs::ContainerDefinition::builder().name("app").image(image).memory(128).build();
        let revision = self
            .ecs
            .register_task_definition()
            .family(SERVICE)
            .network_mode(ecs::NetworkMode::Awsvpc)
            .container_definitions(container);
        let revision = revision.send().await.unwrap().task_definition.unwrap().task_definition_arn.unwrap();
        let vpc = ecs::AwsVpcConfiguration::builder()
            .set_subnets(Some(network.subnets.clone()))
            .set_security_groups(Some(network.security_groups.clone()))
            .build()
            .unwrap();
        let behind =
            ecs::LoadBalancer::builder().target_group_arn(group).container_name("app").container_port(8080).build();
        let made = self
            .ecs
            .create_task_set()
            .cluster(CLUSTER)
            .service(SERVICE)
            .task_definition(revision)
            .launch_type(ecs::LaunchType::Fargate)
            .network_configuration(ecs::NetworkConfiguration::builder().awsvpc_configuration(vpc).build())
            .load_balancers(behind)
            .scale(ecs::Scale::builder().unit(ecs::ScaleUnit::Percent).value(100.0).build());
        let made = made.send().await.unwrap().task_set.unwrap();
        (made.id.unwrap(), made.task_set_arn.unwrap())
    }
}

/// What Terraform has created, as the outputs of infra/examples/blue-green-service name it.
#[derive(Debug, Deserialize)]
pub(crate) struct Created {
    listener_arn: String,
    rule_arn: String,
    target_group_arns: Pair<String>,
    task_sets: Pair<CreatedTaskSet>,
}

/// One of each colour.
#[derive(Debug, Deserialize)]
struct Pair<T> {
    blue: T,
    green: T,
}

#[derive(Debug, Deserialize)]
struct CreatedTaskSet {
    id: String,
    arn: String,
}

impl Created {
    /// From Terraform's outputs, by name.
    pub(crate) fn read(output: impl Fn(&str) -> Value) -> Self {
        let names = ["listener_arn", "rule_arn", "target_group_arns", "task_sets"];
        let outputs = names.iter().map(|name| ((*name).to_owned(), output(name))).collect();
        serde_json::from_value(Value::Object(outputs)).unwrap()
    }
}

impl Account {
    /// A queue of this name. Its URL and its ARN.
    pub(crate) async fn queue(endpoint: &str, name: &str) -> (String, String) {
        Clients::connect(endpoint).await.queue(name).await
    }

    /// An account where all stands already, and where announcements arrive at a queue.
    pub(crate) async fn created(
        endpoint: &str,
        created: Created,
        events_url: String,
        announcements_url: String,
    ) -> Self {
        let Created { listener_arn, rule_arn, target_group_arns: groups, task_sets } = created;
        let set = |CreatedTaskSet { id, arn }: CreatedTaskSet, group| TaskSet { id, arn, group };
        let clients = Clients::connect(endpoint).await;
        clients.targets(&groups.blue).await;
        clients.targets(&groups.green).await;
        Self {
            endpoint: endpoint.to_owned(),
            events_url,
            blue: set(task_sets.blue, groups.blue),
            green: set(task_sets.green, groups.green),
            listener: listener_arn,
            rule: rule_arn,
            announcements_url,
            clients,
        }
    }

    /// What a deployer does first: a tenth of the users to green.
    pub(crate) async fn canary(&self) {
        let describe = self.clients.elb.describe_rules().rule_arns(&self.rule);
        let mut actions = describe.send().await.unwrap().rules.unwrap().remove(0).actions.unwrap();
        let forward = actions[0].forward_config.as_mut().unwrap();
        for group in forward.target_groups.iter_mut().flatten() {
            group.weight = Some(if group.target_group_arn() == Some(&self.green.group) { 10 } else { 90 });
        }
        // Of what ELB answers for one group, it takes only a part back.
        actions[0].target_group_arn = None;
        let modify = self.clients.elb.modify_rule().rule_arn(&self.rule).set_actions(Some(actions));
        modify.send().await.unwrap();
    }

    /// Makes a task set, by its ARN, the PRIMARY.
    pub(crate) async fn set_primary(endpoint: &str, arn: &str) {
        let promote = Clients::connect(endpoint).await.ecs.update_service_primary_task_set().cluster(CLUSTER);
        promote.service(SERVICE).primary_task_set(arn).send().await.unwrap();
    }

    /// A service in the middle of a deployment: blue is PRIMARY and has 90 % of the traffic, green has the rest.
    pub(crate) async fn set_up(network: &Network) -> Self {
        let clients = Clients::connect(&network.endpoint).await;
        let events_url = clients.queue_of_events("guardian", &["aws.ecs", "aws.cloudwatch"]).await;
        let announcements_url = clients.queue_of_events("announcements", &["taskset-guardian"]).await;
        let (blue, green) = (clients.target_group("blue", network).await, clients.target_group("green", network).await);
        let (listener, rule) = clients.load_balancer(network, &blue, &green).await;
        clients.service().await;
        let (blue_id, blue_arn) = clients.task_set(network, &blue, "checkout:1").await;
        let promoted = clients.ecs.update_service_primary_task_set().cluster(CLUSTER).service(SERVICE);
        promoted.primary_task_set(&blue_arn).send().await.unwrap();
        let (green_id, green_arn) = clients.task_set(network, &green, "checkout:2").await;
        Self {
            endpoint: network.endpoint.clone(),
            events_url,
            blue: TaskSet { id: blue_id, arn: blue_arn, group: blue },
            green: TaskSet { id: green_id, arn: green_arn, group: green },
            listener,
            rule,
            announcements_url,
            clients,
        }
    }

    /// Lets the containers of all its tasks exit, and puts the events that ECS would.
    pub(crate) async fn fail_tasks_of(&self, task_set: &TaskSet) {
        let list = self.clients.ecs.list_tasks().cluster(CLUSTER).started_by(&task_set.id);
        let tasks = list.send().await.unwrap().task_arns.unwrap();
        assert_eq!(tasks.len(), usize::try_from(DESIRED).unwrap());
        let mut entries = Vec::new();
        for task in tasks {
            let stop = self.clients.ecs.stop_task().cluster(CLUSTER).task(task);
            let stopped = stop.reason("Essential container in task exited").send().await.unwrap().task.unwrap();
            entries.push(stopped_event(&stopped));
        }
        let put = self.clients.events.put_events().set_entries(Some(entries)).send().await.unwrap();
        assert_eq!(put.failed_entry_count(), 0, "{put:?}");
    }

    /// What a deployer does who trusts green: it becomes PRIMARY, and blue is scaled down to half.
    pub(crate) async fn promote_green(&self) {
        let primary = self.clients.ecs.update_service_primary_task_set().cluster(CLUSTER).service(SERVICE);
        primary.primary_task_set(&self.green.arn).send().await.unwrap();
        let half = ecs::Scale::builder().unit(ecs::ScaleUnit::Percent).value(50.0).build();
        let scale = self.clients.ecs.update_task_set().cluster(CLUSTER).service(SERVICE).task_set(&self.blue.arn);
        scale.scale(half).send().await.unwrap();
    }

    /// Status and percent of a task set.
    pub(crate) async fn standing(&self, task_set: &TaskSet) -> (String, f64) {
        let describe = self.clients.ecs.describe_task_sets().cluster(CLUSTER).service(SERVICE);
        let found = describe.task_sets(&task_set.id).send().await.unwrap().task_sets.unwrap();
        (found[0].status().unwrap().to_owned(), found[0].scale().unwrap().value())
    }

    /// Ids of the service's task sets.
    pub(crate) async fn task_sets(&self) -> Vec<String> {
        let describe = self.clients.ecs.describe_services().cluster(CLUSTER).services(SERVICE);
        let services = describe.send().await.unwrap().services.unwrap();
        services[0].task_sets().iter().map(|task_set| task_set.id().unwrap().to_owned()).collect()
    }

    /// The listener's other rules, its default included, with everything they do.
    pub(crate) async fn other_rules(&self) -> Vec<elb::Rule> {
        let describe = self.clients.elb.describe_rules().listener_arn(&self.listener);
        let rules = describe.send().await.unwrap().rules.unwrap();
        let others: Vec<_> = rules.into_iter().filter(|rule| rule.rule_arn() != Some(&self.rule)).collect();
        assert!(!others.is_empty());
        others
    }

    /// What the rule between blue and green does.
    pub(crate) async fn forward(&self) -> Forward {
        let describe = self.clients.elb.describe_rules().rule_arns(&self.rule);
        let rules = describe.send().await.unwrap().rules.unwrap();
        let [action] = rules[0].actions() else { panic!("not one action: {rules:?}") };
        let forward = action.forward_config().unwrap();
        assert_eq!(forward.target_group_stickiness_config().unwrap().enabled(), Some(true), "stickiness is the team's");
        let weight =
            |group: &elb::TargetGroupTuple| (group.target_group_arn().unwrap().to_owned(), group.weight().unwrap());
        Forward(forward.target_groups().iter().map(weight).collect())
    }

    /// Events on the guardian's queue, those in flight included.
    pub(crate) async fn waiting_events(&self) -> u32 {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let asked = self.clients.sqs.get_queue_attributes().queue_url(&self.events_url);
        let answer = asked.set_attribute_names(Some(names.to_vec())).send().await.unwrap().attributes.unwrap();
        names.iter().map(|name| answer[name].parse::<u32>().unwrap()).sum()
    }

    /// The guardian's next announcements, as EventBridge delivers them.
    pub(crate) async fn announcements(&self, number: usize) -> Vec<Value> {
        let mut told = Vec::new();
        eventually("the guardian has announced what it did", async || {
            let receive = self.clients.sqs.receive_message().queue_url(&self.announcements_url);
            let messages = receive
                .max_number_of_messages(10)
                .visibility_timeout(READ_ONCE)
                .send()
                .await
                .unwrap()
                .messages
                .unwrap_or_default();
            told.extend(messages.iter().map(|message| event(message.body().unwrap())));
            (told.len() >= number).then_some(())
        })
        .await;
        told
    }
}

/// The event in a message, which SNS has wrapped when it came by way of a topic.
fn event(body: &str) -> Value {
    let body: Value = serde_json::from_str(body).unwrap();
    match body["Message"].as_str() {
        Some(wrapped) => serde_json::from_str(wrapped).unwrap(),
        None => body,
    }
}

/// What ECS says about a task that has stopped. The times are the task's, as texts.
fn stopped_event(task: &ecs::Task) -> events::PutEventsRequestEntry {
    let at = |time: Option<&DateTime>| time.unwrap().fmt(DateTimeFormat::DateTime).unwrap();
    let containers = task.containers().iter().map(|container| {
        json!({ "name": container.name(), "lastStatus": container.last_status(), "exitCode": container.exit_code() })
    });
    let detail = json!({
        "clusterArn": task.cluster_arn(),
        "taskArn": task.task_arn(),
        "taskDefinitionArn": task.task_definition_arn(),
        "group": task.group(),
        "startedBy": task.started_by(),
        "lastStatus": task.last_status(),
        "desiredStatus": task.desired_status(),
        "version": task.version(),
        "stopCode": task.stop_code().unwrap().as_str(),
        "stoppedReason": task.stopped_reason(),
        "stoppingAt": at(task.stopping_at()),
        "stoppedAt": at(task.stopped_at()),
        "containers": containers.collect::<Vec<_>>(),
    });
    events::PutEventsRequestEntry::builder()
        .source("aws.ecs")
        .detail_type("ECS Task State Change")
        .resources(task.task_arn().unwrap())
        .time(*task.stopped_at().unwrap())
        .detail(detail.to_string())
        .build()
}
