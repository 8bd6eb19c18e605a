//! The adapters against canned answers on loopback: what is sent, how often, and what an answer turns into.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;

use super::{Aws, Endpoint};
use crate::model::{
    Action, ActionKind, AlarmName, AlarmValue, ErrorClass, Forward, ListenerArn, RuleArn, ServiceKey, TargetGroupArn,
    TaskArn, TaskSetArn, TrafficRuleId, USER_AGENT, WeightedGroup, Write,
};
use crate::ports::{
    Actuator, Alarms, Announcer, Change, Expected, Field, Fields, Fleet, Inbox, LoadBalancers, Receipt, Recorder,
    RowKey, Table,
};

const GREEN: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/1a2b";
const BALANCER: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/web/1";

/// More calls than a test makes.
const GATE: usize = 1000;

#[derive(Default)]
struct Recorded(Mutex<Vec<String>>);

impl Recorder for Recorded {
    fn call(&self, service: &'static str, operation: &'static str, outcome: &'static str, _: Duration) {
        self.0.lock().unwrap().push(format!("{service} {operation} {outcome}"));
    }
}

/// An AWS that answers from a function of operation, body and how many calls came before.
struct Canned {
    aws: Aws,
    sent: Arc<Mutex<Vec<(String, String)>>>,
    recorded: Arc<Recorded>,
    /// Of the last call.
    headers: Arc<Mutex<HeaderMap>>,
    /// Each answer takes a permit.
    gate: Arc<Semaphore>,
}

impl Canned {
    async fn new(answer: impl Fn(&str, &str, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let headers = Arc::new(Mutex::new(HeaderMap::new()));
        let gate = Arc::new(Semaphore::new(GATE));
        let (log, last, open) = (sent.clone(), headers.clone(), gate.clone());
        let answer = Arc::new(answer);
        let handler = move |headers: HeaderMap, body: String| async move {
            let operation = operation(&headers, &body);
            *last.lock().unwrap() = headers;
            let before = {
                let mut log = log.lock().unwrap();
                log.push((operation.clone(), body.clone()));
                log.len() - 1
            };
            open.acquire().await.unwrap().forget();
            let (status, body) = answer(&operation, &body, before);
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        let recorded = Arc::new(Recorded::default());
        let endpoint = Endpoint::Local { url, region: "eu-west-1".to_owned() };
        Self { aws: Aws::connect(&endpoint, recorded.clone()).await.unwrap(), sent, recorded, headers, gate }
    }

    /// Answers nobody of each round before all of it have come.
    async fn answer_together(&self, rounds: &[usize]) {
        self.gate.forget_permits(usize::MAX);
        let mut calls = self.sent.lock().unwrap().len();
        for round in rounds {
            calls += round;
            let all_there = async {
                while self.sent.lock().unwrap().len() < calls {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(3), all_there).await.expect("they wait for each other");
            self.gate.add_permits(*round);
        }
        self.gate.add_permits(GATE);
    }

    /// Operations since the last time.
    fn operations(&self) -> Vec<String> {
        std::mem::take(&mut *self.sent.lock().unwrap()).into_iter().map(|(operation, _)| operation).collect()
    }
}

/// From the header of the JSON protocols, or the form of the query protocol.
fn operation(headers: &HeaderMap, body: &str) -> String {
    match headers.get("x-amz-target") {
        Some(target) => target.to_str().unwrap().rsplit('.').next().unwrap().to_owned(),
        None => body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or("?").to_owned(),
    }
}

fn xml(operation: &str, result: &str) -> (u16, String) {
    let body = format!("<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>");
    (200, body)
}

fn refused_xml(code: &str) -> (u16, String) {
    (400, format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>"))
}

fn one(actions: &str) -> String {
    format!("<member>{actions}</member>")
}

/// One load balancer with one listener, whose default rule forwards to green; a second rule answers by itself.
fn load_balancer(operation: &str) -> (u16, String) {
    let result = match operation {
        "DescribeTargetGroups" => {
            let group = format!(
                "<TargetGroupArn>{GREEN}</TargetGroupArn><LoadBalancerArns>{}</LoadBalancerArns>",
                one(BALANCER)
            );
            format!("<TargetGroups>{}</TargetGroups>", one(&group))
        }
        "DescribeListeners" => format!("<Listeners>{}</Listeners>", one("<ListenerArn>listener</ListenerArn>")),
        "DescribeRules" => {
            let forward = format!("<Type>forward</Type><TargetGroupArn>{GREEN}</TargetGroupArn>");
            let default = format!(
                "<RuleArn>rule/0</RuleArn><Priority>default</Priority><IsDefault>true</IsDefault><Actions>{}</Actions>",
                one(&forward)
            );
            let fixed =
                "<Type>fixed-response</Type><FixedResponseConfig><StatusCode>404</StatusCode></FixedResponseConfig>";
            let other = format!(
                "<RuleArn>rule/1</RuleArn><Priority>1</Priority><IsDefault>false</IsDefault><Actions>{}</Actions>",
                one(fixed)
            );
            format!("<Rules>{}{}</Rules>", one(&default), one(&other))
        }
        _ => String::new(),
    };
    xml(operation, &result)
}

fn shift(rule: TrafficRuleId) -> Write {
    let group = WeightedGroup { target_group: TargetGroupArn::new(GREEN), weight: Some(1) };
    let forward = ActionKind::Forward(Forward { groups: vec![group], stickiness: None });
    Write::SetActions { rule, found: Vec::new(), actions: vec![Action { order: Some(1), kind: forward }] }
}

fn groups() -> BTreeSet<TargetGroupArn> {
    BTreeSet::from([TargetGroupArn::new(GREEN)])
}

#[tokio::test]
async fn a_write_is_sent_once_even_when_nobody_knows_what_became_of_it() {
    let canned = Canned::new(|_, _, _| (500, "<html>".to_owned())).await;
    let actuator = canned.aws.actuator();
    let delete = Write::DeleteTaskSet {
        service: ServiceKey::new("prod", "checkout"),
        task_set: TaskSetArn::new("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/ecs-svc/2"),
    };
    let writes = [
        shift(TrafficRuleId::Rule(RuleArn::new("rule/1"))),
        shift(TrafficRuleId::DefaultOf(ListenerArn::new("listener"))),
        delete,
    ];
    for write in writes {
        let error = actuator.apply(&write).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Transient, None));
        assert_eq!(canned.operations(), [write.operation()]);
    }
    assert_eq!(
        *canned.recorded.0.lock().unwrap(),
        [
            "elasticloadbalancing ModifyRule transient",
            "elasticloadbalancing ModifyListener transient",
            "ecs DeleteTaskSet transient"
        ]
    );
}

#[tokio::test]
async fn a_delete_is_forced_and_addressed_by_arn() {
    let canned = Canned::new(|_, _, _| (200, "{}".to_owned())).await;
    let task_set = TaskSetArn::new("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/ecs-svc/2");
    let delete = Write::DeleteTaskSet { service: ServiceKey::new("prod", "checkout"), task_set: task_set.clone() };
    canned.aws.actuator().apply(&delete).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&canned.sent.lock().unwrap()[0].1).unwrap();
    let expected = serde_json::json!({
        "cluster": "prod", "service": "checkout", "taskSet": task_set.as_str(), "force": true
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_read_is_tried_again_and_counted_once() {
    let canned = Canned::new(|operation, _, before| match before {
        0 => (500, "<html>".to_owned()),
        _ => xml(operation, ""),
    })
    .await;
    canned.aws.load_balancers().health(&TargetGroupArn::new(GREEN)).await.unwrap();
    assert_eq!(canned.operations(), ["DescribeTargetHealth", "DescribeTargetHealth"]);
    assert_eq!(*canned.recorded.0.lock().unwrap(), ["elasticloadbalancing DescribeTargetHealth ok"]);
}

#[tokio::test]
async fn rules_take_three_calls_at_first_and_one_from_then_on() {
    let canned = Canned::new(|operation, _, _| load_balancer(operation)).await;
    let elb = canned.aws.load_balancers();
    let rules = elb.rules(&groups(), false).await.unwrap();
    assert_eq!(canned.operations(), ["DescribeTargetGroups", "DescribeListeners", "DescribeRules"]);
    let ids: Vec<_> = rules.iter().map(|rule| rule.id.clone()).collect();
    assert_eq!(ids, [TrafficRuleId::DefaultOf(ListenerArn::new("listener"))], "only those that forward to the group");

    assert_eq!(elb.rules(&groups(), false).await.unwrap(), rules);
    assert_eq!(canned.operations(), ["DescribeRules"]);
    // To learn anew, all that is remembered is asked about at once.
    let groups = groups();
    let (relearned, ()) = tokio::join!(elb.rules(&groups, true), canned.answer_together(&[3]));
    assert_eq!((relearned.unwrap(), canned.operations().len()), (rules, 3));
}

#[tokio::test]
async fn a_group_that_joins_a_load_balancer_that_is_known_takes_two_rounds() {
    let canned = Canned::new(|operation, body, _| {
        let (status, answer) = load_balancer(operation);
        (status, if body.contains("another") { answer.replace(GREEN, "another") } else { answer })
    })
    .await;
    let elb = canned.aws.load_balancers();
    elb.rules(&groups(), false).await.unwrap();
    canned.operations();
    let another = BTreeSet::from([TargetGroupArn::new("another")]);
    for (relearn, rounds) in [(true, [1, 2]), (false, [0, 1])] {
        let (rules, ()) = tokio::join!(elb.rules(&another, relearn), canned.answer_together(&rounds));
        assert_eq!(
            (rules.unwrap().len(), canned.operations().len()),
            (0, rounds.iter().sum()),
            "its rule is of the other"
        );
    }
}

#[tokio::test]
async fn a_listener_that_came_is_found_and_one_that_went_is_not_missed() {
    let canned = Canned::new(|operation, body, before| match operation {
        "DescribeListeners" if before > 2 => {
            xml(operation, &format!("<Listeners>{}</Listeners>", one("<ListenerArn>another</ListenerArn>")))
        }
        "DescribeRules" if before > 2 && !body.contains("another") => refused_xml("ListenerNotFound"),
        _ => load_balancer(operation),
    })
    .await;
    let elb = canned.aws.load_balancers();
    elb.rules(&groups(), false).await.unwrap();
    for relearn in [true, false] {
        let rules = elb.rules(&groups(), relearn).await.unwrap();
        let ids: Vec<_> = rules.iter().map(|rule| rule.id.clone()).collect();
        assert_eq!(ids, [TrafficRuleId::DefaultOf(ListenerArn::new("another"))]);
    }
    assert_eq!(canned.operations()[7..], ["DescribeRules"], "it is remembered in the other one's place");
}

#[tokio::test]
async fn who_asks_for_the_same_rules_shares_a_call_that_is_not_sent_yet() {
    let canned = Canned::new(|operation, _, _| load_balancer(operation)).await;
    let (elb, groups) = (canned.aws.load_balancers(), groups());
    let alone = elb.rules(&groups, false).await.unwrap();
    canned.operations();
    let (first, second) = tokio::join!(elb.rules(&groups, false), elb.rules(&groups, false));
    assert_eq!((first.unwrap(), second.unwrap()), (alone.clone(), alone.clone()));
    assert_eq!(canned.operations(), ["DescribeRules"]);
    assert_eq!(elb.rules(&groups, false).await.unwrap(), alone);
    assert_eq!(canned.operations(), ["DescribeRules"], "an answer is for those who asked before it");
}

#[tokio::test]
async fn a_remembered_listener_that_is_gone_is_looked_up_anew() {
    let canned = Canned::new(|operation, _, before| match before {
        // The fourth call is the first of the second read.
        3 => refused_xml("ListenerNotFound"),
        _ => load_balancer(operation),
    })
    .await;
    let elb = canned.aws.load_balancers();
    elb.rules(&groups(), false).await.unwrap();
    let rules = elb.rules(&groups(), false).await.unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(
        canned.operations()[3..],
        ["DescribeRules", "DescribeTargetGroups", "DescribeListeners", "DescribeRules"]
    );
}

#[tokio::test]
async fn a_group_that_is_gone_or_unused_has_no_rules() {
    let canned = Canned::new(|operation, body, _| match operation {
        "DescribeTargetGroups" if body.contains("gone") => refused_xml("TargetGroupNotFound"),
        _ => load_balancer(operation),
    })
    .await;
    let elb = canned.aws.load_balancers();
    let mut groups = groups();
    groups.insert(TargetGroupArn::new("gone"));
    assert_eq!(elb.rules(&groups, false).await.unwrap().len(), 1, "those of the other group");
}

#[tokio::test]
async fn more_groups_than_fit_into_a_call_take_two() {
    let canned = Canned::new(|operation, body, _| match operation {
        "DescribeTargetGroups" if body.contains("member.21=") => refused_xml("ValidationError"),
        _ => load_balancer(operation),
    })
    .await;
    let elb = canned.aws.load_balancers();
    let mut groups = groups();
    groups.extend((0..20).map(|number| TargetGroupArn::new(format!("other-{number}"))));
    assert_eq!(elb.rules(&groups, false).await.unwrap().len(), 1);
    let asked = canned.operations();
    assert_eq!(asked.iter().filter(|operation| *operation == "DescribeTargetGroups").count(), 2, "{asked:?}");
}

/// CloudWatch speaks CBOR. What it knows is one log alarm, and a type that it does not know it refuses.
async fn cloudwatch(knows_log_alarms: bool) -> Aws {
    use ciborium::Value;
    let text = |text: &str| Value::Text(text.to_owned());
    let handler = move |body: axum::body::Bytes| async move {
        let Value::Map(asked) = ciborium::from_reader::<Value, _>(&body[..]).unwrap() else { panic!("{body:?}") };
        let member = |name: &str| asked.iter().find(|(key, _)| *key == text(name)).map(|(_, value)| value.clone());
        let is_of_logs = member("AlarmTypes") == Some(Value::Array(vec![text("LogAlarm")]));
        let at = || Value::Tag(1, Box::new(Value::Integer(1_772_445_880.into())));
        let alarm = || {
            Value::Map(vec![
                (text("AlarmName"), text("errors in the log")),
                (text("StateValue"), text("ALARM")),
                (text("StateTransitionedTimestamp"), at()),
            ])
        };
        let (status, answer) = match (is_of_logs, knows_log_alarms) {
            (true, false) => (400, vec![(text("__type"), text("ValidationError"))]),
            (true, true) => (200, vec![(text("LogAlarms"), Value::Array(vec![alarm()]))]),
            (false, _) => (200, vec![(text("MetricAlarms"), Value::Array(Vec::new()))]),
        };
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(answer), &mut bytes).unwrap();
        let headers = [("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor")];
        (StatusCode::from_u16(status).unwrap(), headers, bytes)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    let endpoint = Endpoint::Local { url, region: "eu-west-1".to_owned() };
    Aws::connect(&endpoint, Arc::new(Recorded::default())).await.unwrap()
}

#[tokio::test]
async fn a_log_alarm_is_read_by_its_name_where_there_are_any() {
    let named = BTreeSet::from([AlarmName::new("errors in the log")]);
    let found = cloudwatch(true).await.alarms().named(&named).await.unwrap();
    let [alarm] = &found[..] else { panic!("{found:?}") };
    assert_eq!((alarm.name.as_str(), alarm.value), ("errors in the log", AlarmValue::Alarm));
    assert_eq!(cloudwatch(false).await.alarms().named(&named).await.unwrap(), []);
}

#[tokio::test]
async fn one_odd_task_name_does_not_hide_the_others() {
    let canned = Canned::new(|_, body, _| {
        if body.contains("0dd") {
            return (400, r#"{"__type":"InvalidParameterException","message":"Invalid identifier"}"#.to_owned());
        }
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let task = |arn: &serde_json::Value| {
            serde_json::json!({
                "taskArn": arn, "startedBy": "ecs-svc/1", "version": 3, "desiredStatus": "STOPPED",
                "stopCode": "EssentialContainerExited", "stoppingAt": 1.5
            })
        };
        let tasks: Vec<_> = body["tasks"].as_array().unwrap().iter().map(task).collect();
        (200, serde_json::json!({ "tasks": tasks, "failures": [] }).to_string())
    })
    .await;
    let arn = |id: &str| TaskArn::new(format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{id}"));
    let asked = ["a", "b", "0dd", "c"].map(arn);
    let readings = canned.aws.fleet().tasks(&ServiceKey::new("prod", "checkout"), &asked, false).await.unwrap();
    let found: BTreeSet<_> = readings.iter().map(|reading| reading.task.short()).collect();
    assert_eq!(found, BTreeSet::from(["a", "b", "c"]));
    assert!(readings.iter().all(|reading| reading.stop.as_ref().is_some_and(|stop| stop.at.as_millis() == 1_500)));
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_to_its_end() {
    let canned = Canned::new(|_, body, _| {
        let page = if body.contains("nextToken") {
            r#"{"clusterArns":["arn:aws:ecs:eu-west-1:111122223333:cluster/test"]}"#
        } else {
            r#"{"clusterArns":["arn:aws:ecs:eu-west-1:111122223333:cluster/prod"],"nextToken":"more"}"#
        };
        (200, page.to_owned())
    })
    .await;
    let names = canned.aws.fleet().clusters().await.unwrap();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["prod", "test"]);
}

#[tokio::test]
async fn messages_are_polled_for_long_and_deleted_by_their_receipts() {
    let canned = Canned::new(|operation, _, _| {
        let answer = match operation {
            "ReceiveMessage" => {
                r#"{"Messages":[{"ReceiptHandle":"r1","Body":"{}","Attributes":{"ApproximateReceiveCount":"2"}}]}"#
            }
            _ => r#"{"Successful":[{"Id":"0"}],"Failed":[{"Id":"1","SenderFault":true,"Code":"Bad"}]}"#,
        };
        (200, answer.to_owned())
    })
    .await;
    let queue = canned.aws.inbox("http://queue", Duration::from_mins(1));
    let messages = queue.receive().await.unwrap();
    assert_eq!((messages[0].body.as_str(), messages[0].receive_count), ("{}", 2));
    let asked: serde_json::Value = serde_json::from_str(&canned.sent.lock().unwrap()[0].1).unwrap();
    let expected = serde_json::json!({
        "QueueUrl": "http://queue", "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20,
        "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
    });
    assert_eq!(asked, expected, "the longest poll that SQS allows; the visibility time-out is the queue's own");

    let receipts = [messages[0].receipt.clone(), Receipt("r2".into())];
    let failed = queue.delete(&receipts).await;
    assert_eq!(
        failed.iter().map(|(receipt, error)| (&*receipt.0, error.class)).collect::<Vec<_>>(),
        [("r2", ErrorClass::Rejected)]
    );
    assert_eq!(
        canned.recorded.0.lock().unwrap().last().map(String::as_str),
        Some("sqs DeleteMessageBatch rejected"),
        "what is refused inside of a 200 is refused"
    );
}

#[tokio::test]
async fn an_announcement_that_the_bus_refuses_counts_as_refused() {
    let refusal =
        r#"{"FailedEntryCount":1,"Entries":[{"ErrorCode":"NotAuthorizedForSourceException","ErrorMessage":"no"}]}"#;
    let canned = Canned::new(move |_, _, _| (200, refusal.to_owned())).await;
    let error = canned.aws.announcer(None).announce(&super::eventbridge::tests::announcement()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Denied);
    assert_eq!(*canned.recorded.0.lock().unwrap(), ["events PutEvents denied"]);
}

fn cancelled(reason: &str) -> (u16, String) {
    let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    let body = serde_json::json!({
        "__type": kind, "Message": "Transaction cancelled",
        "CancellationReasons": [{ "Code": "None" }, { "Code": reason, "Message": "as the test wants it" }],
    });
    (400, body.to_string())
}

#[tokio::test]
async fn a_transaction_on_another_row_than_expected_is_an_answer_and_a_conflict_is_an_error() {
    let canned = Canned::new(|_, _, before| match before {
        0 => cancelled("ConditionalCheckFailed"),
        1 => cancelled("TransactionConflict"),
        2 => cancelled("ThrottlingError"),
        _ => (200, "{}".to_owned()),
    })
    .await;
    let table = canned.aws.table("guardian");
    let key = |sort: &str| RowKey { partition: "head".to_owned(), sort: sort.to_owned() };
    let fields = Fields::from([("epoch".to_owned(), Field::Number(7)), ("data".to_owned(), Field::Bytes(vec![1]))]);
    let expected = Expected::Fields(Fields::from([("epoch".to_owned(), Field::Number(6))]));
    let changes = [Change::Put(key("a"), fields.clone()), Change::PutIf(key("b"), fields, expected)];
    assert!(!table.change(&changes).await.unwrap());
    for _ in 0..2 {
        assert_eq!(table.change(&changes).await.unwrap_err().class, ErrorClass::Throttled);
    }
    assert!(table.change(&changes).await.unwrap());
    assert_eq!(canned.recorded.0.lock().unwrap()[0], "dynamodb TransactWriteItems ok");
    let sent: serde_json::Value = serde_json::from_str(&canned.sent.lock().unwrap()[0].1).unwrap();
    let item = |sort: &str| {
        serde_json::json!({
            "pk": { "S": "head" }, "sk": { "S": sort }, "epoch": { "N": "7" }, "data": { "B": "AQ==" },
        })
    };
    let put = serde_json::json!({ "Put": { "TableName": "guardian", "Item": item("a") } });
    assert_eq!(sent["TransactItems"][0], put);
    let put_if = serde_json::json!({ "Put": {
        "TableName": "guardian", "Item": item("b"), "ConditionExpression": "#epoch = :epoch",
        "ExpressionAttributeNames": { "#epoch": "epoch" }, "ExpressionAttributeValues": { ":epoch": { "N": "6" } },
    } });
    assert_eq!(sent["TransactItems"][1], put_if);
}

#[tokio::test]
async fn a_partition_is_read_to_its_end_and_as_it_is_now() {
    let canned = Canned::new(|_, body, _| {
        let asked: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(asked["ConsistentRead"], true);
        let item = |sort: &str| serde_json::json!({ "pk": { "S": "entries" }, "sk": { "S": sort }, "odd": { "BOOL": true } });
        let page = match asked.get("ExclusiveStartKey") {
            None => serde_json::json!({ "Items": [item("1")], "LastEvaluatedKey": { "pk": { "S": "entries" }, "sk": { "S": "1" } } }),
            Some(_) => serde_json::json!({ "Items": [item("2")] }),
        };
        (200, page.to_string())
    })
    .await;
    let rows = canned.aws.table("guardian").list("entries").await.unwrap();
    assert_eq!(rows.iter().map(|(key, _)| key.sort.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert!(rows.iter().all(|(_, fields)| fields.is_empty()), "what the journal never writes is somebody else's");
}

#[tokio::test]
async fn every_call_says_who_makes_it() {
    let it = Canned::new(|operation, _, _| xml(operation, "<TargetGroups/>")).await;
    let _ = it.aws.load_balancers().health(&TargetGroupArn::new(GREEN)).await;
    let headers = it.headers.lock().unwrap();
    let says = |name: &str| headers.get(name).is_some_and(|agent| agent.to_str().unwrap().contains(USER_AGENT));
    assert!(says("user-agent"), "{headers:?}");
}
