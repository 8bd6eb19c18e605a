//! The traffic gates, told against a tiny AWS in memory: how the requests to green fare, beside those to blue.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::*;
use taskset_guardian::engine::GateState;
use taskset_guardian::model::*;
use taskset_guardian::rules::{ErrorGates, Rule};

/// Five per cent, and nothing else that could trip.
fn ratio() -> Rule {
    Rule { errors: ErrorGates { http_5xx_ratio: Some(0.05), ..ErrorGates::default() }, ..rule() }
}

fn latency() -> Rule {
    Rule { errors: ErrorGates { latency_p99: Some(Duration::from_millis(800)), ..ErrorGates::default() }, ..rule() }
}

/// A minute after green's creation.
fn minute(number: u64) -> Sample {
    Sample::empty(start().plus(secs(60 * number)))
}

fn failing(number: u64, requests: u64, http_5xx: u64) -> Sample {
    Sample { requests: Some(requests), http_5xx, ..minute(number) }
}

fn slow(number: u64, millis: u64) -> Sample {
    Sample { requests: Some(100), latency_p99: Some(Duration::from_millis(millis)), ..minute(number) }
}

/// Green has been there for so many minutes, and this is what CloudWatch says.
fn after(minutes: u64, rule: Rule, green: &[Sample], blue: &[Sample]) -> Driver {
    let mut it = Driver::new(Aws::blue_and_green(), rule);
    it.run(secs(60 * minutes));
    counts(&mut it, green, blue);
    it.run(SWEEP + secs(1));
    it
}

fn counts(it: &mut Driver, green: &[Sample], blue: &[Sample]) {
    it.aws.samples = Some([(group("green"), green.to_vec()), (group("blue"), blue.to_vec())].into());
}

/// What the gate says, and why.
fn said(it: &Driver, gate: &Gate) -> (GateState, String) {
    let deployment = it.engine.service(&key(), it.now).unwrap().deployment.unwrap();
    let gate = deployment.gates.into_iter().find(|view| view.gate == gate.to_string()).unwrap();
    (gate.state, gate.why)
}

#[test]
fn a_green_that_fails_more_than_its_share_is_rolled_back_and_the_record_has_both_sides() {
    let mut it =
        after(3, ratio(), &[failing(1, 100, 30), failing(2, 100, 10)], &[failing(1, 900, 1), failing(2, 900, 0)]);
    assert_eq!(it.phase(), "rolling_back (Drain)");
    it.run(secs(120));
    assert_eq!(it.phase(), "rolled_back");
    let incident = it.incidents.values().next().unwrap();
    let [evidence] = incident.evidence.as_slice() else { panic!("{:?}", incident.evidence) };
    assert_eq!((evidence.gate.clone(), evidence.value, evidence.threshold), (Gate::Http5xxRatio, 0.2, 0.05));
    assert_eq!((evidence.from, evidence.to), (minute(1).at, minute(3).at));
    assert_eq!(
        evidence.to_string(),
        "20 % of the requests to green (ecs-svc/2000) failed within 2m (breach: > 5 %); \
         0.1 % of blue's 1800 requests in the same minutes"
    );
    assert_eq!(
        evidence.facts[1],
        "2026-03-02T10:01:00.000Z green had 100 requests: 30 answered 5xx, 0 without a connection"
    );
}

#[test]
fn connections_that_fail_count_like_answers_that_do() {
    let refused = Sample { connection_errors: 6, ..failing(1, 100, 0) };
    assert_eq!(after(3, ratio(), &[refused], &[]).phase(), "rolling_back (Drain)");
}

#[test]
fn without_a_gate_for_it_nobody_asks_cloudwatch() {
    let mut it = after(3, rule(), &[failing(1, 100, 100)], &[]);
    it.run(secs(300));
    assert_eq!((it.phase().as_str(), it.aws.sampled.len()), ("watching", 0));
}

#[test]
fn a_minute_without_errors_had_none() {
    let it = after(3, ratio(), &[Sample { requests: Some(100), ..minute(1) }], &[]);
    let (state, why) = said(&it, &Gate::Http5xxRatio);
    assert_eq!(state, GateState::Clear, "{why}");
    assert!(why.starts_with("0 % failed of green's 100 requests in 1m, 5 % are allowed"), "{why}");
}

#[test]
fn without_requests_the_gate_is_blind_whatever_failed() {
    let errors_alone = Sample { http_5xx: 50, ..minute(1) };
    for green in [vec![], vec![errors_alone]] {
        let it = after(3, ratio(), &green, &[failing(1, 900, 0)]);
        let (state, why) = said(&it, &Gate::Http5xxRatio);
        assert_eq!((it.phase().as_str(), state), ("watching", GateState::Blind), "{why}");
        assert_eq!(why, "CloudWatch has counted no requests to green in a whole minute of the last 5m");
    }
}

#[test]
fn sparse_traffic_trips_nothing() {
    let mut it = after(3, ratio(), &[failing(1, 49, 49)], &[failing(1, 900, 0)]);
    assert_eq!(it.phase(), "watching");
    let (state, why) = said(&it, &Gate::Http5xxRatio);
    assert_eq!((state, why.as_str()), (GateState::Pending, "49 of 50 requests that it takes, in 1m"));
    counts(&mut it, &[failing(1, 49, 49), failing(2, 1, 0)], &[]);
    it.run(SWEEP);
    assert_eq!(it.phase(), "rolling_back (Drain)", "the fiftieth came");
}

#[test]
fn what_blue_suffers_too_is_held_until_blue_is_well_again() {
    let (green, blue) = ([failing(1, 100, 14)], [failing(1, 900, 90)]);
    let mut it = after(3, ratio(), &green, &blue);
    assert_eq!((it.phase().as_str(), it.aws.writes.len()), ("breached", 0));
    assert_eq!(it.said(), ["Rollback Held"]);
    let (state, why) = said(&it, &Gate::Http5xxRatio);
    assert_eq!(state, GateState::Shared);
    assert!(why.contains("10 % of blue's 900 requests in the same minutes"), "{why}");

    counts(&mut it, &[failing(3, 100, 20)], &[failing(1, 900, 90), failing(3, 900, 9)]);
    it.run(secs(45));
    assert_eq!(it.phase(), "rolling_back (Drain)", "blue's other minutes say nothing about this one");

    let alone =
        Rule { compare: taskset_guardian::rules::Compare { against_blue: false, ..ratio().compare }, ..ratio() };
    assert_eq!(after(3, alone, &green, &blue).phase(), "rolling_back (Drain)");
}

#[test]
fn a_green_that_is_much_worse_than_a_blue_that_suffers_is_rolled_back() {
    let it = after(3, ratio(), &[failing(1, 100, 80)], &[failing(1, 900, 90)]);
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn of_a_blue_with_a_handful_of_requests_a_share_is_chance() {
    let it = after(3, ratio(), &[failing(1, 900, 90)], &[failing(1, 9, 1)]);
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn a_cloudwatch_that_cannot_be_read_decides_nothing_and_hides_nothing() {
    let mut it = after(3, ratio(), &[failing(1, 100, 2)], &[]);
    assert_eq!(said(&it, &Gate::Http5xxRatio).0, GateState::Clear);
    it.aws.samples = None;
    it.run(SWEEP);
    assert_eq!(said(&it, &Gate::Http5xxRatio).0, GateState::Clear, "what it said half a minute ago still holds");
    it.run(2 * SWEEP);
    let (state, why) = said(&it, &Gate::Http5xxRatio);
    assert_eq!((it.phase().as_str(), state), ("watching", GateState::Blind));
    assert_eq!(why, "CloudWatch's metrics could not be read");
    for task in ["a", "b", "c"] {
        it.crash(task);
    }
    assert_eq!(it.phase(), "rolling_back (Drain)", "the other gates go on");
}

#[test]
fn old_minutes_those_before_green_and_the_one_that_runs_do_not_count() {
    let rotten = |number| failing(number, 1000, 1000);
    // The rule's window of five minutes, seen from 10:20:31.
    for number in [1, 14] {
        assert_eq!(after(20, ratio(), &[rotten(number)], &[]).phase(), "watching", "old: minute {number}");
    }
    assert_eq!(after(20, ratio(), &[rotten(20)], &[]).phase(), "watching", "it ends at 10:21");
    assert_eq!(after(20, ratio(), &[rotten(16)], &[]).phase(), "rolling_back (Drain)");
    assert_eq!(after(20, ratio(), &[rotten(19)], &[]).phase(), "rolling_back (Drain)");
    let before = Sample { at: start().minus(secs(60)), ..rotten(0) };
    assert_eq!(after(1, ratio(), &[before], &[]).phase(), "watching", "another version's");
}

#[test]
fn samples_that_nobody_renews_age() {
    let mut fresh = ratio();
    fresh.watch.freshness = secs(300);
    let mut it = after(3, fresh, &[failing(1, 100, 14)], &[failing(1, 900, 90)]);
    assert_eq!(it.phase(), "breached");
    // The same old answer for ten minutes.
    it.run(secs(600));
    assert_eq!(it.phase(), "watching");
    assert_eq!(said(&it, &Gate::Http5xxRatio).0, GateState::Blind);
}

#[test]
fn the_latency_is_the_median_of_the_minutes() {
    let states = |green: &[Sample], blue: &[Sample]| {
        let it = after(5, latency(), green, blue);
        (it.phase(), said(&it, &Gate::LatencyP99).0)
    };
    let watching = |state| ("watching".to_owned(), state);
    assert_eq!(states(&[slow(1, 2000)], &[]), watching(GateState::Pending), "one minute is chance");
    assert_eq!(states(&[slow(1, 2000), slow(2, 500)], &[]), watching(GateState::Clear));
    assert_eq!(states(&[slow(1, 2000), slow(2, 500), slow(3, 700)], &[]), watching(GateState::Clear));
    let bad = [slow(1, 2000), slow(2, 500), slow(3, 900)];
    assert_eq!(after(5, latency(), &bad, &[]).phase(), "rolling_back (Drain)");
    assert_eq!(after(5, latency(), &bad, &bad).phase(), "breached", "blue is as slow");
}

#[test]
fn a_short_window_leaves_the_latency_its_minutes() {
    let mut short = latency();
    short.stability.window = secs(60);
    // The newest minute that CloudWatch tells of has been over for two.
    let it = after(6, short, &[slow(2, 2000), slow(3, 2000)], &[]);
    assert_eq!(it.phase(), "rolling_back (Drain)");
}

#[test]
fn cloudwatch_is_asked_every_half_minute_at_most_and_no_more_once_it_is_decided() {
    let mut it = after(3, ratio(), &[failing(1, 100, 0)], &[]);
    it.run(secs(600));
    let asked = it.aws.sampled.clone();
    assert!(asked.windows(2).all(|pair| pair[1].since(pair[0]) >= secs(30)), "{asked:?}");
    assert!(asked.len() >= 20, "{}", asked.len());
    for task in ["a", "b", "c"] {
        it.crash(task);
    }
    let before = it.aws.sampled.len();
    it.run(secs(300));
    assert_eq!(it.aws.sampled.len(), before);
}

#[test]
fn where_nobody_counts_requests_the_gate_is_blind_and_says_so() {
    let why = |change: fn(&mut Aws)| {
        let mut aws = Aws::blue_and_green();
        change(&mut aws);
        let mut it = Driver::new(aws, ratio());
        it.run(SWEEP * 2);
        let (state, why) = said(&it, &Gate::Http5xxRatio);
        assert_eq!(state, GateState::Blind, "{why}");
        why
    };
    let network = why(|aws| {
        aws.rules[0].listener =
            ListenerArn::new("arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/net/web/1a/2b");
    });
    assert!(network.contains("Network Load Balancer"), "{network}");
    assert!(why(|aws| aws.set(GREEN).target_group = None).contains("no target group"));
    assert!(why(|aws| aws.set(GREEN).target_group = Some(group("blue"))).contains("share a target group"));
    assert!(why(|aws| aws.rules = vec![weighted("main", &[("blue", 100)])]).contains("no listener"));
}

#[test]
fn a_journal_from_before_the_gates_is_read() {
    let mut it = Driver::new(Aws::blue_and_green(), ratio());
    let ask = Ask::examination(key());
    let seen = it.aws.observe(it.now, ask).unwrap();
    let mut written = serde_json::to_value(&*seen).unwrap();
    written.as_object_mut().unwrap().remove("samples").unwrap();
    written["ask"].as_object_mut().unwrap().remove("samples").unwrap();
    assert_eq!(serde_json::from_value::<Observation>(written).unwrap(), *seen);

    let mut old = serde_json::to_value(rule()).unwrap();
    let errors = old["errors"].as_object_mut().unwrap();
    for key in ["http_5xx_ratio", "latency_p99", "min_requests"] {
        errors.remove(key).unwrap();
    }
    assert_eq!(serde_json::from_value::<Rule>(old).unwrap(), rule());
}

#[test]
fn what_was_sampled_survives_a_restart() {
    let mut it = after(3, ratio(), &[failing(1, 100, 14)], &[failing(1, 900, 90)]);
    it.crash_after.insert(it.steps() + 1);
    it.run(secs(1));
    it.feed(taskset_guardian::engine::Input::Tick);
    assert_eq!(said(&it, &Gate::Http5xxRatio).0, GateState::Shared);
}
