//! Whether events reach the worker: EventBridge's rules, the queue's policy, the queue, and what a worker says of itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::{Delivery, EventRule, QueueReading};
use crate::engine::{Check, CheckVerdict};
use crate::model::{AlarmReading, Arn, CallError, ErrorClass, Observation, Timestamp, humane};
use crate::rules::{Rule, fits_glob};

/// An outage of a long weekend must lose nothing.
const SHORT_RETENTION: Duration = Duration::from_hours(4 * 24);

/// More than a worker takes out of a queue in a few seconds.
const BACKLOG: u64 = 5_000;

/// A service's task sets are not that quiet, while somebody deploys.
const QUIET: Duration = Duration::from_hours(24);

/// What was found out once, for all services.
pub(super) struct Way {
    delivery: Delivery,
    queue: Result<(QueueReading, Vec<EventRule>), CallError>,
}

impl Way {
    /// Reads the queue and the rules that aim at it.
    pub(super) async fn read(delivery: Delivery, url: &str) -> Self {
        let queue = async {
            let queue = delivery.queue(url).await?;
            let rules = delivery.rules(&queue.arn).await?;
            Ok((queue, rules))
        };
        let queue = queue.await;
        Self { delivery, queue }
    }

    /// Whether the events of one service reach the queue.
    pub(super) async fn examine(&self, rule: &Rule, seen: &Observation) -> Vec<Check> {
        let (queue, rules) = match &self.queue {
            Ok(found) => found,
            Err(error) => return vec![unread(error)],
        };
        let mut checks = vec![depth(queue)];
        let alarm = alarm_turned_red(rule, seen).map(|event| ("alarm events", event));
        for (events, event) in [("task events", task_stopped(seen))].into_iter().chain(alarm) {
            checks.push(match self.first_match(rules, &event).await {
                Ok(found) => arrival(events, found, queue),
                Err(error) => unread(&error),
            });
        }
        checks
    }

    /// The rule that lets the event through; one that is switched off only when no other does.
    async fn first_match<'r>(&self, rules: &'r [EventRule], event: &Value) -> Result<Option<&'r EventRule>, CallError> {
        let mut off = None;
        for rule in rules {
            let Some(pattern) = &rule.pattern else { continue };
            if self.delivery.matches(pattern, event).await? {
                if rule.enabled {
                    return Ok(Some(rule));
                }
                off = Some(rule);
            }
        }
        Ok(off)
    }
}

fn unread(error: &CallError) -> Check {
    let what = format!("whether events reach the queue is not known: {error}");
    // To a queue that does not exist none comes.
    let missing = error.class == ErrorClass::NotFound;
    let check = Check::new("events", if missing { CheckVerdict::Warning } else { CheckVerdict::Note }, what);
    match error.class {
        ErrorClass::Denied => check.cure(
            "for doctor alone: allow sqs:GetQueueAttributes, events:ListRuleNamesByTarget, events:DescribeRule and \
             events:TestEventPattern",
        ),
        ErrorClass::NotFound => check.cure("correct --queue-url"),
        _ => check,
    }
}

fn depth(queue: &QueueReading) -> Check {
    let QueueReading { dead_letters, retention, waiting, .. } = queue;
    let what = format!("{waiting} messages wait in the queue, which keeps them for {}", humane(*retention));
    if *waiting > BACKLOG {
        return Check::new("queue", CheckVerdict::Warning, what)
            .cure("look whether a worker runs: taskset-guardian status, and its /readyz");
    }
    if dead_letters.is_none() {
        let what = format!("{what}; it has no dead-letter queue");
        return Check::new("queue", CheckVerdict::Warning, what)
            .cure("give it one: a message that can't be read comes back again and again until it is too old");
    }
    if *retention < SHORT_RETENTION {
        return Check::new("queue", CheckVerdict::Warning, what)
            .cure("keep messages for 4 days at least: what is lost in an outage of the worker is lost for good");
    }
    Check::new("queue", CheckVerdict::Fine, what)
}

fn arrival(events: &str, found: Option<&EventRule>, queue: &QueueReading) -> Check {
    let late = "failures are found by the worker's sweep alone, later";
    let Some(rule) = found else {
        let what = format!("no EventBridge rule sends this service's {events} to the queue: {late}");
        return Check::new("events", CheckVerdict::Warning, what)
            .cure("add a rule with infra/modules/guardian/event-pattern.json and the queue as its target");
    };
    let name = &rule.name;
    if !rule.enabled {
        let what = format!("the EventBridge rule {name} for {events} is switched off: {late}");
        return Check::new("events", CheckVerdict::Warning, what).cure(format!("aws events enable-rule --name {name}"));
    }
    match may_send(queue, &rule.arn) {
        Sending::Allowed => {
            Check::new("events", CheckVerdict::Fine, format!("{events} reach the queue by the rule {name}"))
        }
        Sending::Unconditional => {
            let what = format!("{events} reach the queue by the rule {name}, and so may those of anybody's rule");
            Check::new("events", CheckVerdict::Warning, what)
                .cure("narrow the queue's policy with a condition on aws:SourceArn")
        }
        Sending::NotSeen => {
            let what = format!("the queue's policy does not let the EventBridge rule {name} send {events}: {late}");
            Check::new("events", CheckVerdict::Warning, what)
                .cure(format!("allow sqs:SendMessage to events.amazonaws.com where aws:SourceArn is {}", rule.arn))
        }
    }
}

/// What a queue's policy says of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// It may send.
    Allowed,
    /// Every rule of every account may.
    Unconditional,
    /// No statement that lets it send was found.
    NotSeen,
}

/// Reads the statements that allow. One that denies is not looked for: it is rare, and what it denies is missed by the
/// events themselves.
fn may_send(queue: &QueueReading, rule_arn: &str) -> Sending {
    let policy: Value = queue.policy.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let statements = listed(policy.get("Statement"));
    let judged = statements.into_iter().filter_map(|statement| sending(statement, &queue.arn, rule_arn));
    judged.fold(Sending::NotSeen, |found, one| if found == Sending::Unconditional { found } else { one })
}

fn sending(statement: &Value, queue_arn: &str, rule_arn: &str) -> Option<Sending> {
    let said = |key: &str| listed(statement.get(key)).into_iter().filter_map(Value::as_str);
    let allows = statement.get("Effect").and_then(Value::as_str) == Some("Allow");
    let sends = said("Action").any(|action| fits_glob(&action.to_ascii_lowercase(), "sqs:sendmessage"));
    let here = said("Resource").any(|resource| fits_glob(resource, queue_arn));
    let principal = statement.get("Principal")?;
    let services = listed(principal.get("Service")).into_iter().chain(listed(principal.get("AWS")));
    let named = services.chain([principal]).filter_map(Value::as_str);
    let bridge = named.into_iter().any(|name| name == "events.amazonaws.com" || name == "*");
    if !(allows && sends && here && bridge) {
        return None;
    }
    let Some(Value::Object(conditions)) = statement.get("Condition") else { return Some(Sending::Unconditional) };
    let keys =
        conditions.iter().filter(|(operator, _)| !operator.contains("Not")).filter_map(|(_, keys)| keys.as_object());
    let sources: Vec<_> = keys.flatten().filter(|(key, _)| key.eq_ignore_ascii_case("aws:SourceArn")).collect();
    let named =
        sources.iter().flat_map(|(_, values)| listed(Some(values))).filter_map(Value::as_str).collect::<Vec<_>>();
    // Another condition, as on the account, is somebody's decision and can't be judged from here.
    let allowed = sources.is_empty() || named.into_iter().any(|source| fits_glob(source, rule_arn));
    allowed.then_some(Sending::Allowed)
}

/// IAM writes one of something without a list.
fn listed(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(all)) => all.iter().collect(),
        one => one.into_iter().collect(),
    }
}

fn envelope(seen: &Observation, source: &str, detail_type: &str, detail: &Value) -> Value {
    let scope = &seen.service.scope;
    json!({
        "version": "0", "id": "00000000-0000-0000-0000-000000000000", "source": source, "detail-type": detail_type,
        "account": &*scope.account, "region": &*scope.region, "time": seen.read_at.to_string(), "resources": [],
        "detail": detail,
    })
}

/// What ECS would send when a task of this service stops.
fn task_stopped(seen: &Observation) -> Value {
    let (key, scope) = (&seen.ask.service, &seen.service.scope);
    let arns = seen.service.task_sets.iter().filter_map(|set| Arn::parse(set.arn.as_str()));
    let partition = arns.map(|arn| arn.partition).next().unwrap_or("aws");
    let cluster = format!("arn:{partition}:ecs:{}:{}:cluster/{}", scope.region, scope.account, key.cluster);
    let detail = json!({
        "clusterArn": cluster, "group": format!("service:{}", key.service), "startedBy": "ecs-svc/1",
        "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stopCode": "EssentialContainerExited",
        "launchType": "FARGATE", "containers": [{ "exitCode": 1 }],
    });
    envelope(seen, "aws.ecs", "ECS Task State Change", &detail)
}

/// What CloudWatch would send when an alarm that speaks for or against this service turns red: one that the rule names, or
/// one of its target groups. `None` without any: the events of others need not come.
fn alarm_turned_red(rule: &Rule, seen: &Observation) -> Option<Value> {
    let groups =
        || seen.service.task_sets.iter().filter(|set| set.is_living()).filter_map(|set| set.target_group.as_ref());
    let watches = |alarm: &&AlarmReading| groups().any(|group| alarm.target_groups.contains(group.dimension()));
    let bound = || seen.alarms.iter().flatten().find(watches).map(|alarm| &alarm.name);
    let name = rule.errors.alarms.first().or_else(bound)?;
    let detail = json!({
        "alarmName": name, "state": { "value": "ALARM" }, "previousState": { "value": "OK" },
        "configuration": { "metrics": [] },
    });
    Some(envelope(seen, "aws.cloudwatch", "CloudWatch Alarm State Change", &detail))
}

/// What the worker says of itself and of the service, in its `/status`.
pub(super) fn worker(status: &anyhow::Result<Value>, service: &str, now: Timestamp) -> Vec<Check> {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let what = format!("{error:#}");
            return vec![Check::new("worker", CheckVerdict::Warning, what).cure("run one, or name it by --server")];
        }
    };
    let reasons = listed(status.pointer("/worker/not_ready")).into_iter().filter_map(Value::as_str);
    let reasons: Vec<_> = reasons.collect();
    let known = listed(status.get("services")).into_iter().find(|one| {
        let part = |name| one.pointer(&format!("/service/{name}")).and_then(Value::as_str).unwrap_or_default();
        format!("{}/{}", part("cluster"), part("service")) == service
    });
    let worker = if !reasons.is_empty() {
        Check::new("worker", CheckVerdict::Warning, format!("the worker is not ready: {}", reasons.join("; ")))
    } else if let Some(known) = known {
        match known.get("not_ready_because").and_then(Value::as_str) {
            None => Check::new("worker", CheckVerdict::Fine, "a worker runs and protects this service"),
            Some(why) => {
                let what = format!("a worker runs, and could not roll this service back: {why}");
                Check::new("worker", CheckVerdict::Warning, what)
            }
        }
    } else {
        Check::new("worker", CheckVerdict::Warning, "a worker runs, and does not protect this service")
            .cure("taskset-guardian register; or look whether it has the same rules, account and Region")
    };
    let last = status.pointer("/worker/last_event_at").and_then(Value::as_str).and_then(Timestamp::parse);
    vec![worker, freshness(last, now)]
}

fn freshness(last: Option<Timestamp>, now: Timestamp) -> Check {
    let what = match last {
        None => "the worker has received no event since its start".to_owned(),
        Some(at) => format!("the worker received its last event {} ago", humane(now.since(at))),
    };
    if last.is_some_and(|at| now.since(at) < QUIET) {
        return Check::new("freshness", CheckVerdict::Fine, what);
    }
    Check::new("freshness", CheckVerdict::Note, what)
        .cure("stop a task of a service that can bear it, and look again: its event must arrive within seconds")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        AlarmName, AlarmValue, Ask, Controller, Scope, ServiceKey, ServiceReading, ServiceStatus, Stability,
        TargetGroupArn, TaskSet, TaskSetArn, TaskSetId, TaskSetStatus, Traffic,
    };

    /// A service with one task set, and alarms by name and target group.
    fn seen(partition: &str, alarms: &[(&str, Option<&str>)]) -> Observation {
        let at = Timestamp::from_millis(0);
        let blue = TaskSet {
            id: TaskSetId::new("ecs-svc/1"),
            arn: TaskSetArn::new(format!("arn:{partition}:ecs:us-gov-west-1:1:task-set/prod/web/ecs-svc/1")),
            status: TaskSetStatus::Primary,
            created_at: at,
            stability: Stability::Steady,
            running: 1,
            pending: 0,
            computed_desired: 1,
            target_group: Some(TargetGroupArn::new("arn:aws:elasticloadbalancing:r:1:targetgroup/blue/0a")),
            task_definition: "web:1".into(),
            external_id: None,
            tags: BTreeMap::new(),
        };
        let alarm = |(name, group): &(&str, Option<&str>)| AlarmReading {
            name: AlarmName::new(name),
            value: AlarmValue::Ok,
            since: at,
            reason: "".into(),
            doubt: None,
            target_groups: group.iter().map(|group| Arc::from(*group)).collect(),
        };
        Observation {
            ask: Ask::examination(ServiceKey::new("prod", "web")),
            read_at: at,
            service: ServiceReading {
                scope: Scope { account: "1".into(), region: "us-gov-west-1".into() },
                status: ServiceStatus::Active,
                controller: Controller::External,
                desired_count: 1,
                task_sets: vec![blue],
                tags: BTreeMap::new(),
            },
            task_sets_again: None,
            traffic: Traffic::NoLoadBalancer,
            targets: BTreeMap::new(),
            tasks: Vec::new(),
            alarms: Some(alarms.iter().map(alarm).collect()),
            alarms_unlisted: false,
            samples: None,
        }
    }

    #[test]
    fn the_events_that_are_tried_are_those_of_the_services_partition() {
        let cluster = |seen: &Observation| task_stopped(seen)["detail"]["clusterArn"].clone();
        for partition in ["aws", "aws-us-gov", "aws-cn"] {
            let named = format!("arn:{partition}:ecs:us-gov-west-1:1:cluster/prod");
            assert_eq!(cluster(&seen(partition, &[])), named);
        }
        let mut bare = seen("aws-cn", &[]);
        bare.service.task_sets.clear();
        assert_eq!(cluster(&bare), "arn:aws:ecs:us-gov-west-1:1:cluster/prod");
    }

    #[test]
    fn only_an_alarm_that_speaks_of_the_service_is_expected_to_be_heard() {
        let mut rule = Rule::observing("web");
        let tried = |rule: &Rule, alarms: &[_]| {
            alarm_turned_red(rule, &seen("aws", alarms)).map(|event| event["detail"]["alarmName"].clone())
        };
        let others = [("bill", None), ("cart", Some("targetgroup/cart/0c"))];
        assert_eq!(tried(&rule, &[]), None);
        assert_eq!(tried(&rule, &others), None);
        let bound = [others[0], others[1], ("web-5xx", Some("targetgroup/blue/0a"))];
        assert_eq!(tried(&rule, &bound), Some("web-5xx".into()));
        rule.errors.alarms = vec![AlarmName::new("web-logs")];
        assert_eq!(tried(&rule, &bound), Some("web-logs".into()));
    }

    const RULE: &str = "arn:aws:events:eu-west-1:1:rule/guardian";

    fn said(statement: &Value) -> Sending {
        let policy = Some(json!({ "Statement": statement }).to_string());
        let arn = "arn:aws:sqs:eu-west-1:1:guardian".to_owned();
        may_send(&QueueReading { arn, policy, dead_letters: None, retention: Duration::ZERO, waiting: 0 }, RULE)
    }

    #[test]
    fn a_policy_is_read_as_sqs_reads_it() {
        let with = |condition: Value| {
            json!({
                "Effect": "Allow", "Principal": { "Service": ["events.amazonaws.com"] }, "Action": ["sqs:SendMessage"],
                "Resource": "arn:aws:sqs:eu-west-1:1:guardian", "Condition": condition,
            })
        };
        let only = |arn: &str| with(json!({ "ArnLike": { "aws:sourceArn": arn } }));
        assert_eq!(said(&only(RULE)), Sending::Allowed);
        assert_eq!(said(&json!([only("arn:aws:events:*:1:rule/guard*")])), Sending::Allowed);
        assert_eq!(said(&only("arn:aws:events:eu-west-1:1:rule/other")), Sending::NotSeen);
        assert_eq!(said(&with(json!({ "ArnLike": { "aws:SourceArn": [] } }))), Sending::NotSeen);
        assert_eq!(said(&with(json!({ "StringEquals": { "aws:SourceAccount": "1" } }))), Sending::Allowed);
        let open = json!({ "Effect": "Allow", "Principal": "*", "Action": "SQS:*", "Resource": "*" });
        assert_eq!(said(&open), Sending::Unconditional);
        assert_eq!(said(&json!([open, only("arn:aws:events:eu-west-1:1:rule/other")])), Sending::Unconditional);
        for (key, value) in [
            ("Effect", json!("Deny")),
            ("Action", json!("sqs:ReceiveMessage")),
            ("Resource", json!("arn:aws:sqs:eu-west-1:1:other")),
            ("Principal", json!({ "AWS": "arn:aws:iam::1:root" })),
        ] {
            let mut changed = only(RULE);
            if let Some(field) = changed.get_mut(key) {
                *field = value;
            }
            assert_eq!(said(&changed), Sending::NotSeen, "{key}");
        }
    }

    #[test]
    fn a_worker_that_heard_nothing_for_long_is_told() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(freshness(Some(at(0)), at(60)).verdict, CheckVerdict::Fine);
        assert_eq!(freshness(Some(at(0)), at(86_400)).verdict, CheckVerdict::Note);
        assert_eq!(freshness(None, at(0)).verdict, CheckVerdict::Note);
    }
}
