//! Recordings written by hand: in any order, more than once, torn, forged, of several deployments.

use assert_cmd::Command;
use serde_json::{Value, json};
use taskset_guardian::model::Timestamp;

use crate::recorded::{Recording, text};

const RULE: &str = "name = \"web\"\n[[protect]]\ncluster = \"prod\"\nservice = \"checkout\"\n";
const BLUE: &str = "ecs-svc/1000";
const GREEN: &str = "ecs-svc/2000";

/// Seconds after 10 o'clock.
pub(crate) fn at(seconds: i64) -> String {
    Timestamp::parse("2026-03-02T10:00:00Z").unwrap().moved(seconds * 1000).to_string()
}

fn arn(what: &str) -> String {
    format!("arn:aws:ecs:eu-west-1:111122223333:{what}")
}

pub(crate) fn group(name: &str) -> String {
    format!("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/{name}/1a2b3c4d5e6f7a8b")
}

fn event(seconds: i64, source: &str, kind: &str, resources: &Value, detail: &Value) -> String {
    json!({
        "version": "0", "id": "5f0c1b7e", "detail-type": kind, "source": source, "account": "111122223333",
        "time": at(seconds), "region": "eu-west-1", "resources": resources, "detail": detail,
    })
    .to_string()
}

/// A service's task: when it was created, and what became of it.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) service: &'a str,
    pub(crate) set: &'a str,
    pub(crate) name: &'a str,
    pub(crate) created: i64,
}

impl Task<'_> {
    fn event(&self, seconds: i64, version: u32, more: &Value) -> String {
        let Task { service, set, name, created } = self;
        let mut detail = json!({
            "clusterArn": arn("cluster/prod"), "taskArn": arn(&format!("task/prod/{name}")),
            "group": format!("service:{service}"), "startedBy": set, "version": version, "createdAt": at(*created),
            "taskDefinitionArn": arn("task-definition/checkout:88"), "lastStatus": "RUNNING", "desiredStatus": "RUNNING",
            "containers": [{ "name": "app", "exitCode": 1 }],
        });
        for (name, value) in more.as_object().unwrap() {
            detail[name] = value.clone();
        }
        event(seconds, "aws.ecs", "ECS Task State Change", &json!([detail["taskArn"]]), &detail)
    }

    pub(crate) fn runs(&self, seconds: i64) -> String {
        self.event(seconds, 3, &json!({}))
    }

    pub(crate) fn ends(&self, seconds: i64, code: &str, reason: &str) -> String {
        let more = json!({
            "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "stopCode": code, "stoppedReason": reason,
            "stoppingAt": at(seconds), "stoppedAt": at(seconds),
        });
        self.event(seconds, 6, &more)
    }

    pub(crate) fn crashes(&self, seconds: i64) -> String {
        self.ends(seconds, "EssentialContainerExited", "Essential container in task exited")
    }

    pub(crate) fn scaled_in(&self, seconds: i64) -> String {
        let reason = "Scaling activity initiated by (deployment ecs-svc/1)";
        self.ends(seconds, "ServiceSchedulerInitiated", reason)
    }

    fn fails_health_checks(&self, seconds: i64, name: &str) -> String {
        let reason = format!("Task failed ELB health checks in (target-group {})", group(name));
        self.ends(seconds, "ServiceSchedulerInitiated", &reason)
    }
}

pub(crate) fn task<'a>(set: &'a str, name: &'a str, created: i64) -> Task<'a> {
    Task { service: "checkout", set, name, created }
}

fn alarm(seconds: i64, name: &str, (before, value): (&str, &str), watches: Option<&str>) -> String {
    let dimensions =
        watches.map_or(json!({}), |name| json!({ "TargetGroup": format!("targetgroup/{name}/1a2b3c4d5e6f7a8b") }));
    let detail = json!({
        "alarmName": name,
        "state": { "value": value, "reason": "Threshold Crossed", "timestamp": at(seconds) },
        "previousState": { "value": before, "timestamp": at(-86_400) },
        "configuration": { "metrics": [{ "id": "m1", "returnData": true, "metricStat": { "period": 60, "stat": "Sum",
            "metric": { "namespace": "AWS/ApplicationELB", "name": "HTTPCode_Target_5XX_Count", "dimensions": dimensions } } }] },
    });
    let resource = format!("arn:aws:cloudwatch:eu-west-1:111122223333:alarm:{name}");
    event(seconds, "aws.cloudwatch", "CloudWatch Alarm State Change", &json!([resource]), &detail)
}

pub(crate) fn call(seconds: i64, operation: &str, asked: &Value, answer: &Value) -> String {
    let of_rule = operation.starts_with("Modify");
    let detail = json!({
        "eventName": operation, "userAgent": "aws-cli/2.27", "requestParameters": asked, "responseElements": answer,
        "userIdentity": { "type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/deploy/pipeline" },
    });
    let source = if of_rule { "aws.elasticloadbalancing" } else { "aws.ecs" };
    event(seconds, source, "AWS API Call via CloudTrail", &json!([]), &detail)
}

fn created(seconds: i64, set: &str, name: &str) -> String {
    let asked =
        json!({ "cluster": "prod", "service": "checkout", "loadBalancers": [{ "targetGroupArn": group(name) }] });
    call(seconds, "CreateTaskSet", &asked, &json!({ "taskSet": { "id": set } }))
}

fn deleted(seconds: i64, set: &str) -> String {
    call(seconds, "DeleteTaskSet", &json!({ "cluster": "prod", "service": "checkout", "taskSet": set }), &Value::Null)
}

/// Green's four tasks run, and three of them crash; one of blue's tasks is replaced before.
fn crashing() -> Vec<String> {
    let (old, new) = (task(BLUE, "b1", -9000), task(BLUE, "b2", 5));
    let mut lines = vec![old.ends(1, "SpotInterruption", "Your Spot Task was interrupted."), new.runs(6)];
    for name in ["g1", "g2", "g3", "g4"] {
        lines.push(task(GREEN, name, 60).runs(70));
    }
    for (name, seconds) in [("g1", 80), ("g2", 95), ("g3", 110)] {
        lines.push(task(GREEN, name, 60).crashes(seconds));
    }
    lines.push(task(BLUE, "b2", 5).runs(300));
    lines
}

/// The one line that a recording of one deployment gives.
fn only(lines: &[Value]) -> &Value {
    assert_eq!(lines.len(), 1, "{lines:?}");
    &lines[0]
}

fn assert_breached(line: &Value, set: &str, seconds: i64) {
    assert_eq!(text(&line["outcome"]), "breached", "{line}");
    assert_eq!((text(&line["service"]), text(&line["task_set"])), ("prod/checkout", set));
    assert_eq!(text(&line["breached_at"]), at(seconds), "{line}");
}

#[test]
fn a_line_has_the_members_that_programs_rely_on() {
    let lines = Recording::of(RULE, &crashing()).replay();
    let line = only(&lines);
    assert_breached(line, GREEN, 110);
    let names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = ["service", "task_set", "started_at", "outcome", "breached_at", "gate", "evidence"];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!((text(&line["started_at"]), &line["gate"]), (at(60).as_str(), &json!("task_failures")));
    let evidence = &line["evidence"][0];
    assert_eq!((&evidence["value"], &evidence["threshold"]), (&json!(3.0), &json!(3.0)));
    assert_eq!(evidence["facts"].as_array().unwrap().len(), 3);
}

#[test]
fn a_breach_that_waits_for_blue_when_the_recording_ends_is_told() {
    let rule = format!("{RULE}[compare]\npatience = \"2m\"\n");
    let mut lines: Vec<_> = ["g1", "g2", "g3", "g4"].iter().map(|name| task(GREEN, name, 60).runs(70)).collect();
    lines.push(task(BLUE, "b1", -9000).runs(75));
    // Long after it had come up, and the last word is the third crash.
    lines.extend([("g1", 480), ("g2", 495), ("g3", 510)].map(|(name, seconds)| task(GREEN, name, 60).crashes(seconds)));
    let lines = Recording::of(&rule, &lines).replay();
    let waited = only(&lines);
    assert_eq!(text(&waited["outcome"]), "breached", "{waited}");
    assert_ne!(text(&waited["breached_at"]), at(510), "it did not wait: {waited}");
}

#[test]
fn the_same_lines_in_any_order_and_multiplicity_give_the_same_result() {
    let lines = crashing();
    let expected = Recording::of(RULE, &lines).replay();
    let reversed: Vec<_> = lines.iter().rev().cloned().collect();
    assert_eq!(Recording::of(RULE, &reversed).replay(), expected, "reversed");
    let twice: Vec<_> = lines.iter().chain(&reversed).cloned().collect();
    assert_eq!(Recording::of(RULE, &twice).replay(), expected, "twice");
    let mut shuffled = twice;
    for seed in 0..5 {
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        assert_eq!(Recording::of(RULE, &shuffled).replay(), expected, "shuffled by {seed}");
    }
    let scattered = Recording::of(RULE, &[]);
    for (number, line) in lines.iter().enumerate() {
        scattered.write(&format!("{:02}.json", (number * 7) % 10), line);
    }
    assert_eq!(scattered.replay(), expected, "a file each");
}

#[test]
fn a_dump_of_a_queue_is_read_as_well() {
    let expected = Recording::of(RULE, &crashing()).replay();
    for name in ["Body", "body"] {
        let wrap =
            |body: &String| json!({ "MessageId": "m", name: body, "Attributes": { "ApproximateReceiveCount": "1" } });
        let messages: Vec<_> = crashing().iter().map(|body| wrap(body).to_string()).collect();
        assert_eq!(Recording::of(RULE, &messages).replay(), expected, "{name}");
    }
    let marked: Vec<_> = crashing().iter().map(|body| body.replacen('{', "{\"replay-name\":\"again\",", 1)).collect();
    assert_eq!(Recording::of(RULE, &marked).replay(), expected, "out of an archive");
}

#[test]
fn lines_that_can_not_be_read_are_left_out_and_told_with_their_place() {
    let mut lines = crashing();
    lines.insert(3, "not json".to_owned());
    lines.insert(5, "{}".to_owned());
    lines.insert(6, json!({ "Body": "half an event {" }).to_string());
    let recording = Recording::of(RULE, &lines);
    let torn = lines.join("\n");
    recording.write("events.jsonl", [torn.as_bytes(), b"\n", &crashing()[0].as_bytes()[..200]].concat());
    let ran = recording.run(&["--output", "json"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    for place in ["events.jsonl:4: ", "events.jsonl:6: ", "events.jsonl:7: ", "events.jsonl:14: "] {
        assert!(ran.err.contains(place), "{place} is not in {}", ran.err);
    }
    assert_breached(only(&recording.replay()), GREEN, 110);
}

#[test]
fn a_line_longer_than_a_message_can_be_is_refused_with_its_place() {
    let recording = Recording::of(RULE, &crashing());
    let long = format!("{{\"source\":\"{}\"}}\n", "x".repeat((1 << 20) + 1));
    recording.write("a.jsonl", [long.as_bytes(), b"\xff\xfe\n", crashing().join("\n").as_bytes()].concat());
    let ran = recording.run(&["--output", "json"]);
    assert!(ran.err.contains("a.jsonl:1: 1048590 bytes long, more than the 1048576 that SQS can carry"), "{}", ran.err);
    assert!(ran.err.contains("a.jsonl:2: not UTF-8"), "{}", ran.err);
    assert_eq!(ran.code, 1);
}

#[test]
fn what_holds_no_event_is_an_error_that_says_so() {
    let recording = Recording::of(RULE, &[]);
    let ran = recording.run(&[]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("is empty: 0 lines"), "{}", ran.err);
    recording.write("events.jsonl", "{\"source\":\"x\",\"detail-type\":\"y\"}\nnonsense\n");
    let ran = recording.run(&[]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("has no event that tells of a deployment: 2 lines, 1 of other kinds, 1 that"),
        "{}",
        ran.err
    );
    recording.write("more.jsonl.gz", "x");
    assert!(recording.run(&[]).err.contains("gunzip"));
    let mut command = Command::cargo_bin("taskset-guardian").unwrap();
    command.args(["replay", "--events", "/dev/stdin", "--rules"]).arg(recording.rules());
    let piped = command.write_stdin("{}\n").output().unwrap();
    let said = String::from_utf8(piped.stderr).unwrap();
    assert!(piped.status.code() == Some(2) && said.contains("/dev/stdin is no file"), "{said}");
}

#[test]
fn a_service_that_no_rule_protects_is_left_out_and_the_cure_is_named() {
    let other = RULE.replace("\"checkout\"", "\"other\"");
    let recording = Recording::of(&other, &crashing());
    let ran = recording.run(&["--output", "json"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    assert!(ran.err.contains("no rule protects prod/checkout") && ran.err.contains("--rule web"), "{}", ran.err);
    let ran = recording.run(&["--output", "json", "--rule", "web"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let ran = recording.run(&["--rule", "wbe"]);
    assert!(ran.code == 2 && ran.err.contains("no rule is called \"wbe\"") && ran.err.contains("web"), "{}", ran.err);
}

#[test]
fn deployments_in_one_file_or_in_a_file_each_are_told_apart_by_task_set() {
    // The first green is undone by its people, and another one comes beside the same blue.
    let mut lines = crashing();
    lines.push(task(GREEN, "g4", 60).scaled_in(400));
    let second = "ecs-svc/3000";
    let mut later = Vec::new();
    for name in ["h1", "h2", "h3", "h4"] {
        later.push(task(second, name, 1000).runs(1010));
    }
    later.push(task(BLUE, "b2", 5).runs(1300));
    let together: Vec<_> = lines.iter().chain(&later).cloned().collect();
    let expected = Recording::of(RULE, &together).replay();
    assert_eq!(expected.len(), 2);
    assert_breached(&expected[0], GREEN, 110);
    let second = (text(&expected[1]["task_set"]), text(&expected[1]["outcome"]), &expected[1]["breached_at"]);
    assert_eq!(second, ("ecs-svc/3000", "healthy", &Value::Null));

    let apart = Recording::of(RULE, &lines);
    apart.write("second.jsonl", later.join("\n"));
    assert_eq!(apart.replay(), expected);
}

#[test]
fn a_second_green_of_the_version_that_was_rolled_back_is_judged_for_itself() {
    let mut lines = crashing();
    lines.push(task(GREEN, "g4", 60).scaled_in(200));
    let second = "ecs-svc/3000";
    for (name, seconds) in [("h1", 420), ("h2", 425), ("h3", 430), ("h4", 435)] {
        lines.push(task(second, name, 400).runs(410));
        lines.push(task(second, name, 400).crashes(seconds));
    }
    lines.push(task(BLUE, "b2", 5).runs(900));
    let rule = format!("{RULE}[quarantine]\non_return = \"rollback\"\n");
    for rule in [RULE, &rule] {
        let found = Recording::of(rule, &lines).replay();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_breached(&found[0], GREEN, 110);
        assert_breached(&found[1], second, 430);
    }
}

#[test]
fn who_was_there_before_is_no_deployment() {
    let grows = |set, name, seconds| task(set, name, seconds).runs(seconds + 10);
    // A blue that grows by a task before green is created is the older of two, and no deployment of its own.
    let mut lines = vec![grows(BLUE, "b9", 5)];
    lines.extend(["g1", "g2", "g3"].map(|name| grows(GREEN, name, 60)));
    lines.extend(["g1", "g2", "g3"].map(|name| task(GREEN, name, 60).crashes(90)));
    let found = Recording::of(RULE, &lines).replay();
    assert_breached(only(&found), GREEN, 90);
    // A blue of which nothing at all is told was there all the same.
    let found = Recording::of(RULE, &lines[1..]).replay();
    assert_breached(only(&found), GREEN, 90);
    // Without a green there is none.
    let lines: Vec<_> = ["b1", "b2", "b3"].map(|name| task(BLUE, name, -500).crashes(90)).into();
    assert_eq!(Recording::of(RULE, &lines).replay(), Vec::<Value>::new());
}

#[test]
fn an_alarm_belongs_to_the_task_set_whose_target_group_it_watches() {
    let run = |lines: &[String]| Recording::of(RULE, lines).replay();
    let mut steady: Vec<_> = ["g1", "g2"].iter().map(|name| task(GREEN, name, 60).runs(70)).collect();
    steady.push(task(BLUE, "b1", -9000).ends(1, "SpotInterruption", "Your Spot Task was interrupted."));
    steady.push(task(BLUE, "b2", 5).runs(900));
    steady.push(alarm(200, "green-5xx", ("OK", "ALARM"), Some("green")));
    assert_eq!(text(&only(&run(&steady))["outcome"]), "healthy", "nobody knows whose group it is");

    // CloudTrail says it.
    let called: Vec<_> = steady.iter().cloned().chain([created(59, GREEN, "green")]).collect();
    let lines = run(&called);
    assert_breached(only(&lines), GREEN, 200);
    assert_eq!(lines[0]["gate"], json!({ "alarm": "green-5xx" }));

    // A task that the load balancer finds ill says it.
    let ill: Vec<_> = steady.iter().cloned().chain([task(GREEN, "g2", 60).fails_health_checks(150, "green")]).collect();
    let lines = run(&ill);
    assert_breached(only(&lines), GREEN, 200);

    // It is blue's.
    let blues: Vec<_> = steady.iter().cloned().chain([created(59, GREEN, "other")]).collect();
    assert_eq!(text(&only(&run(&blues))["outcome"]), "healthy");

    // Blue's twin is red as well: CloudTrail's rule names both groups.
    let rule = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener-rule/app/web/1/2/3";
    let groups = ["blue", "green"].map(|name| json!({ "targetGroupArn": group(name), "weight": 50 }));
    let asked =
        json!({ "ruleArn": rule, "actions": [{ "type": "forward", "forwardConfig": { "targetGroups": groups } }] });
    let mut shared = called.clone();
    shared.push(call(100, "ModifyRule", &asked, &Value::Null));
    shared.push(alarm(190, "blue-5xx", ("OK", "ALARM"), Some("blue")));
    let lines = run(&shared);
    let line = only(&lines);
    assert_eq!((text(&line["outcome"]), &line["breached_at"]), ("not_attributable", &Value::Null), "{line}");
}

#[test]
fn an_alarm_that_the_rule_names_counts_whatever_it_watches_and_red_before_green_is_blind() {
    let rule = format!("{RULE}[errors]\nalarms = [\"business\"]\n");
    let lines = |alarms: &[String]| {
        let mut lines: Vec<_> = ["g1", "g2"].iter().map(|name| task(GREEN, name, 60).runs(70)).collect();
        lines.push(task(BLUE, "b2", 5).runs(900));
        lines.extend_from_slice(alarms);
        Recording::of(&rule, &lines).replay()
    };
    assert_breached(only(&lines(&[alarm(200, "business", ("OK", "ALARM"), None)])), GREEN, 200);
    let red = lines(&[alarm(700, "business", ("ALARM", "OK"), None), alarm(40, "business", ("OK", "ALARM"), None)]);
    assert_ne!(text(&only(&red)["outcome"]), "breached");
    assert_eq!(text(&only(&lines(&[]))["outcome"]), "blind", "the recording does not know the alarm");
}

#[test]
fn an_event_from_the_future_is_left_out() {
    let mut lines = crashing();
    for name in ["f1", "f2", "f3"] {
        lines.insert(2, task(GREEN, name, 60).crashes(86_400 * 365 * 50));
    }
    let recording = Recording::of(RULE, &lines);
    assert!(recording.run(&[]).err.contains("an event can't be recorded before it happens"));
    assert_breached(only(&recording.replay()), GREEN, 110);
    // A message says when its queue got it.
    let sent = Timestamp::parse(&at(60)).unwrap().as_millis();
    let early =
        |body: &String| json!({ "Body": body, "Attributes": { "SentTimestamp": sent.to_string() } }).to_string();
    let forged: Vec<_> = ["x1", "x2", "x3"].map(|name| early(&task(GREEN, name, 60).crashes(500))).into();
    let mut lines: Vec<_> = crashing().into_iter().filter(|line| !line.contains("EssentialContainerExited")).collect();
    lines.extend(forged);
    assert_eq!(text(&only(&Recording::of(RULE, &lines).replay())["outcome"]), "healthy");
}

#[test]
fn a_green_that_is_never_steady_is_found_while_the_recording_lasts() {
    let mut lines: Vec<_> = (0..40)
        .flat_map(|n| {
            let name = format!("g{n}");
            let task = task(GREEN, &name, 60 + 20 * n);
            [task.runs(60 + 20 * n), task.ends(75 + 20 * n, "SpotInterruption", "Your Spot Task was interrupted.")]
        })
        .collect();
    lines.push(task(BLUE, "b2", -9000).runs(0));
    let lines = Recording::of(RULE, &lines).replay();
    assert_breached(only(&lines), GREEN, 660);
    assert_eq!(lines[0]["gate"], "steady_within");
}

#[test]
fn a_person_reads_the_evidence() {
    let ran = Recording::of(RULE, &crashing()).run(&[]);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!(ran.out);
    assert!(ran.err.contains("10 events, 1 protected service, "), "{}", ran.err);
}

#[test]
fn what_people_did_is_compared_with_what_each_setting_would_have_done() {
    let mut lines = crashing();
    lines.push(deleted(200, GREEN));
    let recording = Recording::of(RULE, &lines);
    let ran = recording.run(&["--sweep-thresholds", "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let settings: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&settings[0]["task_failures"], &settings[0]["rolled_back"]), (&Value::Null, &json!(1)), "as it is");
    let find = |failures: u32, window: u64| {
        let wanted = (json!(failures), json!(window), Value::Null);
        let is = |one: &&Value| {
            (&one["task_failures"], &one["window_seconds"], &one["steady_within_seconds"])
                == (&wanted.0, &wanted.1, &wanted.2)
        };
        settings.iter().find(is).unwrap()
    };
    let three = find(3, 300);
    assert_eq!((&three["deployments"], &three["rolled_back"], &three["agreed"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(three["median_detection_seconds"], json!(30.0));
    assert_eq!(find(1, 300)["median_detection_seconds"], json!(0.0));
    let four = find(4, 300);
    assert_eq!((&four["rolled_back"], &four["missed"], &four["agreed"]), (&json!(0), &json!(1), &json!(0)));
    let text = recording.run(&["--sweep-thresholds"]).out;
    assert!(text.contains("1 deployments, 1 of them undone or kept by people") && text.contains("too eager"), "{text}");
}

#[test]
fn without_a_trail_what_people_did_shows_in_the_tasks_that_are_scaled_in() {
    let tasks = |set, from: i64| ["a", "b", "c", "d"].map(|name| (set, format!("{set}-{name}"), from));
    let runs = |(set, name, from): &(&str, String, i64)| task(set, name, *from).runs(from + 10);
    let third = "ecs-svc/3000";
    // The first green takes over from blue, the second one is drained again while the first lives on.
    let mut lines: Vec<_> = tasks(GREEN, 60).iter().map(runs).collect();
    lines.extend(tasks(BLUE, -9000).iter().map(|(set, name, from)| task(set, name, *from).scaled_in(1000)));
    lines.extend(tasks(third, 3000).iter().map(runs));
    lines.extend(tasks(third, 3000).iter().map(|(set, name, from)| task(set, name, *from).scaled_in(3500)));
    lines.push(task(GREEN, "ecs-svc/2000-a", 60).runs(4000));
    let recording = Recording::of(RULE, &lines);
    let ran = recording.run(&["--sweep-thresholds", "--output", "json"]);
    let as_it_is: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    let numbers = ["deployments", "rolled_back", "judged_by_people", "agreed", "too_eager", "missed"];
    assert_eq!(numbers.map(|name| as_it_is[name].as_u64().unwrap()), [2, 0, 2, 1, 0, 1], "{as_it_is}");
}
