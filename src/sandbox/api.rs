//! The AWS calls that the sandbox answers, as data: the seam between the world, which knows nothing of wires, and the
//! wires, which know nothing of the world.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Action, Timestamp};

/// One call, as some client sent it. Names and ARNs are accepted wherever AWS accepts both.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// ecs:ListClusters.
    ListClusters,
    /// ecs:ListServices.
    ListServices {
        /// Name or ARN.
        cluster: String,
    },
    /// ecs:DescribeServices.
    DescribeServices {
        /// Name or ARN.
        cluster: String,
        /// One to ten names or ARNs.
        services: Vec<String>,
    },
    /// ecs:DescribeTaskSets. AWS refuses an empty list.
    DescribeTaskSets {
        /// Name or ARN.
        cluster: String,
        /// Name or ARN.
        service: String,
        /// Ids or ARNs.
        task_sets: Vec<String>,
    },
    /// ecs:UpdateTaskSet.
    UpdateTaskSet {
        /// Name or ARN.
        cluster: String,
        /// Name or ARN.
        service: String,
        /// Id or ARN.
        task_set: String,
        /// Percent of the service's desired count, 0 to 100.
        scale: f64,
    },
    /// ecs:UpdateServicePrimaryTaskSet.
    SetPrimary {
        /// Name or ARN.
        cluster: String,
        /// Name or ARN.
        service: String,
        /// Id or ARN.
        task_set: String,
    },
    /// ecs:DeleteTaskSet.
    DeleteTaskSet {
        /// Name or ARN.
        cluster: String,
        /// Name or ARN.
        service: String,
        /// Id or ARN.
        task_set: String,
        /// Even when not scaled to zero, and (as on AWS) even when PRIMARY.
        force: bool,
    },
    /// ecs:ListTasks.
    ListTasks {
        /// Name or ARN.
        cluster: String,
        /// Only this service's.
        service: Option<String>,
        /// Only those started by this task set id.
        started_by: Option<String>,
        /// `desiredStatus` STOPPED instead of RUNNING.
        stopped: bool,
    },
    /// ecs:DescribeTasks.
    DescribeTasks {
        /// Name or ARN.
        cluster: String,
        /// One to 100 ids or ARNs.
        tasks: Vec<String>,
    },
    /// ecs:TagResource. Of services only.
    TagResource {
        /// ARN.
        resource: String,
        /// Replace those of the same keys.
        tags: BTreeMap<String, String>,
    },
    /// ecs:UntagResource. Of services only.
    UntagResource {
        /// ARN.
        resource: String,
        /// Keys; those that are not there are no error.
        keys: Vec<String>,
    },
    /// tag:GetResources: the ECS services that have a tag.
    GetResources {
        /// The tag's key.
        key: String,
        /// One of these values; any when empty.
        values: Vec<String>,
    },
    /// elasticloadbalancing:DescribeTargetGroups. All when empty.
    DescribeTargetGroups {
        /// ARNs.
        arns: Vec<String>,
    },
    /// elasticloadbalancing:DescribeListeners.
    DescribeListeners {
        /// All of one load balancer,
        load_balancer: Option<String>,
        /// or these.
        arns: Vec<String>,
    },
    /// elasticloadbalancing:DescribeRules.
    DescribeRules {
        /// All of one listener, the default rule included,
        listener: Option<String>,
        /// or these.
        arns: Vec<String>,
    },
    /// elasticloadbalancing:DescribeTargetHealth.
    DescribeTargetHealth {
        /// ARN.
        target_group: String,
    },
    /// elasticloadbalancing:ModifyRule. Refused for default rules.
    ModifyRule {
        /// ARN.
        rule: String,
        /// The whole new list.
        actions: Vec<Action>,
    },
    /// elasticloadbalancing:ModifyListener.
    ModifyListener {
        /// ARN.
        listener: String,
        /// The whole new list of default actions.
        default_actions: Vec<Action>,
    },
    /// cloudwatch:DescribeAlarms, metric and composite.
    DescribeAlarms {
        /// All when empty.
        names: Vec<String>,
    },
    /// cloudwatch:GetMetricData, of metrics and not of expressions.
    GetMetricData {
        /// What is wanted.
        queries: Vec<MetricQuery>,
        /// Of data points that begin from then on,
        from: Timestamp,
        /// and before then.
        to: Timestamp,
    },
    /// sqs:ReceiveMessage. The world answers at once; waiting is the wire's business.
    ReceiveMessage {
        /// The queue.
        queue_url: String,
        /// 1 to 10.
        max: u32,
        /// Overrides the queue's.
        visibility: Option<Duration>,
    },
    /// sqs:DeleteMessageBatch, and DeleteMessage as a batch of one.
    DeleteMessages {
        /// The queue.
        queue_url: String,
        /// One to ten receipt handles.
        receipts: Vec<String>,
    },
    /// sqs:ChangeMessageVisibilityBatch, and the single one as a batch of one.
    ChangeVisibility {
        /// The queue.
        queue_url: String,
        /// One to ten receipt handles with the new time-out from now.
        entries: Vec<(String, Duration)>,
    },
    /// sqs:SendMessage.
    SendMessage {
        /// The queue.
        queue_url: String,
        /// At most 1 MiB.
        body: String,
    },
    /// sqs:GetQueueUrl.
    GetQueueUrl {
        /// The queue's name.
        name: String,
    },
    /// sqs:GetQueueAttributes.
    GetQueueAttributes {
        /// The queue.
        queue_url: String,
    },
    /// events:ListRuleNamesByTarget, of the default bus.
    ListRuleNamesByTarget {
        /// ARN.
        target: String,
    },
    /// events:DescribeRule, of the default bus.
    DescribeEventRule {
        /// Its name.
        name: String,
    },
    /// events:TestEventPattern.
    TestEventPattern {
        /// JSON.
        pattern: String,
        /// JSON.
        event: String,
    },
    /// events:PutEvents.
    PutEvents {
        /// One to ten.
        entries: Vec<EventEntry>,
    },
}

/// A successful answer. Each variant answers the calls that its doc names.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// TagResource, UntagResource.
    Empty,
    /// ListClusters, ListServices, ListTasks: ARNs.
    Arns(Vec<String>),
    /// DescribeServices.
    Services {
        /// Those found.
        services: Vec<ServiceView>,
        /// ARNs of those not found.
        missing: Vec<String>,
    },
    /// DescribeTaskSets; UpdateTaskSet, SetPrimary and DeleteTaskSet with one.
    TaskSets {
        /// Those found.
        task_sets: Vec<TaskSetView>,
        /// ARNs of those not found.
        missing: Vec<String>,
    },
    /// DescribeTasks.
    Tasks {
        /// Those found.
        tasks: Vec<TaskView>,
        /// ARNs of those not found.
        missing: Vec<String>,
    },
    /// GetResources: tags by ARN.
    Resources(BTreeMap<String, BTreeMap<String, String>>),
    /// DescribeTargetGroups.
    TargetGroups(Vec<TargetGroupView>),
    /// DescribeListeners, ModifyListener.
    Listeners(Vec<ListenerView>),
    /// DescribeRules, ModifyRule.
    Rules(Vec<RuleView>),
    /// DescribeTargetHealth.
    Targets(Vec<TargetView>),
    /// DescribeAlarms.
    Alarms(Vec<AlarmView>),
    /// GetMetricData: of each query, in order.
    Metrics(Vec<MetricSeries>),
    /// ReceiveMessage.
    Messages(Vec<MessageView>),
    /// DeleteMessages, ChangeVisibility, PutEvents: per entry, in order, the error if it failed.
    Entries(Vec<Option<ApiError>>),
    /// SendMessage: the message id.
    Sent(String),
    /// GetQueueUrl.
    QueueUrl(String),
    /// GetQueueAttributes: by AWS's attribute names.
    Attributes(BTreeMap<String, String>),
    /// ListRuleNamesByTarget.
    Names(Vec<String>),
    /// DescribeRule.
    EventRule(EventRuleView),
    /// TestEventPattern.
    Matches(bool),
}

/// AWS refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Wire code, as in `TaskSetNotFoundException`.
    pub code: String,
    /// For people.
    pub message: String,
    /// HTTP status.
    pub status: u16,
}

impl ApiError {
    /// The caller's fault.
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), status: 400 }
    }
}

/// Answers calls. The world is one; a test's canned answers are another.
pub trait Backend: Send {
    /// Applies one call, now.
    ///
    /// # Errors
    /// As AWS would refuse it.
    fn call(&mut self, call: Call) -> Result<Reply, ApiError>;
}

/// A backend that lives in virtual time.
pub trait Timed: Backend + 'static {
    /// Lets everything happen that is due until `now`. Afterwards [`Timed::next_event`] lies later than `now`.
    fn advance_to(&mut self, now: Timestamp);

    /// How far it has come.
    fn now(&self) -> Timestamp;

    /// When something will happen without being asked, if anything. A message that becomes visible again counts, for
    /// only events wake a client that waits for messages.
    fn next_event(&self) -> Option<Timestamp>;
}

/// A rule of EventBridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRuleView {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Switched on.
    pub enabled: bool,
    /// JSON.
    pub pattern: String,
}

/// One PutEvents entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventEntry {
    /// Must not begin with `aws.`.
    pub source: String,
    /// At most 128 characters.
    pub detail_type: String,
    /// A JSON object.
    pub detail: String,
    /// ARNs.
    pub resources: Vec<String>,
    /// Bus name or ARN; the default bus when absent.
    pub bus: Option<String>,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// ARN.
    pub arn: String,
    /// Name.
    pub name: String,
    /// Its cluster.
    pub cluster_arn: String,
    /// ACTIVE, DRAINING, INACTIVE.
    pub status: String,
    /// EXTERNAL, CODE_DEPLOY, ECS.
    pub controller: String,
    /// Tasks.
    pub desired_count: u32,
    /// Tasks, over all task sets.
    pub running: u32,
    /// Tasks, over all task sets.
    pub pending: u32,
    /// Its task sets.
    pub task_sets: Vec<TaskSetView>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A task set.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSetView {
    /// `ecs-svc/<digits>`.
    pub id: String,
    /// ARN.
    pub arn: String,
    /// ARN.
    pub service_arn: String,
    /// ARN.
    pub cluster_arn: String,
    /// PRIMARY, ACTIVE, DRAINING.
    pub status: String,
    /// STEADY_STATE, STABILIZING.
    pub stability: String,
    /// Since when `stability` holds.
    pub stability_at: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Tasks.
    pub running: u32,
    /// Tasks.
    pub pending: u32,
    /// `ceil(desired count * scale / 100)`.
    pub computed_desired: u32,
    /// Percent.
    pub scale: f64,
    /// ARN.
    pub task_definition: String,
    /// ARN, when it is behind a load balancer.
    pub target_group: Option<String>,
    /// The caller's label.
    pub external_id: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// ARN.
    pub arn: String,
    /// ARN.
    pub cluster_arn: String,
    /// `service:<name>`.
    pub group: String,
    /// The task set's id.
    pub started_by: String,
    /// ARN.
    pub task_definition: String,
    /// PROVISIONING … STOPPED.
    pub last_status: String,
    /// RUNNING, STOPPED.
    pub desired_status: String,
    /// HEALTHY, UNHEALTHY, UNKNOWN.
    pub health_status: String,
    /// Rises with every change.
    pub version: u64,
    /// Why it ends.
    pub stop_code: Option<String>,
    /// Why it ends.
    pub stopped_reason: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its containers ran.
    pub started_at: Option<Timestamp>,
    /// When ECS began to stop it.
    pub stopping_at: Option<Timestamp>,
    /// When it had ended.
    pub stopped_at: Option<Timestamp>,
    /// Its containers.
    pub containers: Vec<ContainerView>,
}

/// A container of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// `sha256:…`.
    pub image_digest: Option<String>,
    /// As in [`TaskView::last_status`].
    pub last_status: String,
    /// Absent until it ended, or when it never ran.
    pub exit_code: Option<i32>,
    /// As in `OutOfMemoryError: …`.
    pub reason: Option<String>,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroupView {
    /// ARN.
    pub arn: String,
    /// Name.
    pub name: String,
    /// ARNs of the load balancers that use it.
    pub load_balancers: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerView {
    /// ARN.
    pub arn: String,
    /// ARN.
    pub load_balancer: String,
    /// Port.
    pub port: u16,
    /// HTTP, HTTPS.
    pub protocol: String,
    /// What happens when no rule matches.
    pub default_actions: Vec<Action>,
}

/// A listener rule; the default rule included.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleView {
    /// ARN.
    pub arn: String,
    /// `"default"` for the default rule.
    pub priority: String,
    /// The default rule.
    pub is_default: bool,
    /// Path pattern of its condition, none for the default rule.
    pub path: Option<String>,
    /// What it does.
    pub actions: Vec<Action>,
}

/// A registered target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    /// IP address.
    pub id: String,
    /// Port.
    pub port: u16,
    /// initial, healthy, unhealthy, unused, draining.
    pub state: String,
    /// As in `Target.Timeout`.
    pub reason: Option<String>,
}

/// One query of GetMetricData.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricQuery {
    /// The caller's, to tell answers apart.
    pub id: String,
    /// As in `AWS/ApplicationELB`.
    pub namespace: String,
    /// As in `RequestCount`.
    pub metric: String,
    /// By name.
    pub dimensions: BTreeMap<String, String>,
    /// Seconds.
    pub period: u32,
    /// As in `Sum`, `p99`.
    pub statistic: String,
}

/// The answer to one.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSeries {
    /// The query's.
    pub id: String,
    /// The metric's name.
    pub label: String,
    /// When each period began, and its value, oldest first. Periods without data are absent.
    pub points: Vec<(Timestamp, f64)>,
}

/// A metric alarm.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmView {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// OK, ALARM, INSUFFICIENT_DATA.
    pub state: String,
    /// CloudWatch's words.
    pub reason: String,
    /// `StateTransitionedTimestamp`: when this state began.
    pub since: Timestamp,
    /// As in `AWS/ApplicationELB`.
    pub namespace: String,
    /// As in `HTTPCode_Target_5XX_Count`.
    pub metric: String,
    /// By name.
    pub dimensions: BTreeMap<String, String>,
    /// As in `Sum`.
    pub statistic: String,
    /// Seconds.
    pub period: u32,
    /// Periods in a row.
    pub evaluation_periods: u32,
    /// Breach above this.
    pub threshold: f64,
}

/// A message, as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageView {
    /// Id.
    pub id: String,
    /// Receipt handle of this receive.
    pub receipt: String,
    /// Body.
    pub body: String,
    /// This receive included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Timestamp,
}
