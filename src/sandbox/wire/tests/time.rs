//! Waiting for messages, in virtual time.

use std::time::Instant;

use super::*;
use crate::sandbox::clock::ScaledClock;

const QUEUE: &str = "http://sqs.local/000000000000/events";

/// A receive that waits as long as SQS allows; the ids of what it got.
fn receive<C>(rig: &Rig<C>) -> tokio::task::JoinHandle<Vec<String>> {
    let ask = client!(aws_sdk_sqs, rig).receive_message().queue_url(QUEUE).wait_time_seconds(20);
    tokio::spawn(async move {
        let out = ask.send().await.unwrap();
        out.messages().iter().filter_map(|message| message.message_id().map(text)).collect()
    })
}

#[tokio::test]
async fn a_waiting_receive_returns_as_soon_as_a_message_is_there() {
    let mut rig = Rig::start().await;
    let waiting = receive(&rig);
    rig.call().await;
    rig.sandbox.with(|stub| stub.queue.push(message("late")));
    assert_eq!(soon(waiting).await.unwrap(), ["late"]);
}

#[tokio::test]
async fn a_waiting_receive_looks_again_when_a_client_sends() {
    let mut rig = Rig::start().await;
    rig.answer(Reply::Messages(Vec::new()));
    rig.answer(Reply::Sent(text("1")));
    rig.answer(Reply::Messages(vec![message("sent")]));
    let waiting = receive(&rig);
    rig.call().await;
    client!(aws_sdk_sqs, rig).send_message().queue_url(QUEUE).message_body("{}").send().await.unwrap();
    assert_eq!(soon(waiting).await.unwrap(), ["sent"]);
}

#[tokio::test]
async fn a_waiting_receive_gets_what_time_brings() {
    let mut rig = Rig::start().await;
    let waiting = receive(&rig);
    rig.call().await;
    let arrival = at(5_000);
    rig.sandbox.with(|stub| stub.arrivals.insert(arrival, message("timely")));
    rig.call().await;
    rig.clock.pass(Duration::from_secs(5));
    assert_eq!(soon(waiting).await.unwrap(), ["timely"]);
    assert_eq!(rig.sandbox.with(|stub| stub.now), arrival);
}

#[tokio::test]
async fn a_wait_is_over_when_virtual_time_says_so() {
    let mut rig = Rig::start().await;
    let waiting = receive(&rig);
    rig.call().await;
    rig.clock.pass(Duration::from_secs(20));
    assert!(soon(waiting).await.unwrap().is_empty());
    rig.call().await;
    rig.assert_untouched();
}

#[tokio::test]
async fn waiting_receives_do_not_keep_each_other_awake() {
    let mut rig = Rig::start().await;
    let waiting = [receive(&rig), receive(&rig)];
    for _ in 0..2 {
        rig.call().await;
    }
    rig.sandbox.with(|stub| stub.queue.push(message("only")));
    for _ in 0..2 {
        rig.call().await;
    }
    rig.clock.pass(Duration::from_secs(20));
    let [one, other] = waiting;
    let got = [soon(one).await.unwrap(), soon(other).await.unwrap()].concat();
    assert_eq!(got, ["only"]);
    rig.call().await;
    rig.assert_untouched();
}

#[tokio::test]
async fn without_a_wait_an_empty_queue_answers_at_once() {
    let rig = Rig::start().await;
    let out = client!(aws_sdk_sqs, rig).receive_message().queue_url(QUEUE).send().await.unwrap();
    assert!(out.messages().is_empty());
}

#[tokio::test]
async fn shutdown_ends_waiting_receives() {
    let mut rig = Rig::start().await;
    let waiting = receive(&rig);
    rig.call().await;
    soon(rig.sandbox.shutdown()).await.unwrap();
    assert!(soon(waiting).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_call_sees_the_backend_at_the_clocks_now() {
    let rig = Rig::start().await;
    rig.clock.pass(Duration::from_secs(90));
    rig.answer(Reply::Arns(Vec::new()));
    client!(aws_sdk_ecs, rig).list_clusters().send().await.unwrap();
    assert_eq!(rig.sandbox.with(|stub| stub.now), at(90_000));
}

#[tokio::test]
async fn on_a_fast_clock_a_long_wait_is_short() {
    let rig = Rig::start_on(ScaledClock::start(START, 1000.0), WireSettings::default()).await;
    rig.sandbox.with(|stub| stub.arrivals.insert(at(10_000), message("timely")));
    assert_eq!(soon(receive(&rig)).await.unwrap(), ["timely"]);
    assert!(rig.clock.now() >= at(10_000), "not before its time");
    assert!(soon(receive(&rig)).await.unwrap().is_empty());
    assert!(rig.clock.now() >= at(30_000), "twenty virtual seconds more");
}

#[tokio::test]
async fn every_call_takes_the_networks_time_too() {
    let latency = Duration::from_millis(25);
    let settings = WireSettings { latency, ..WireSettings::default() };
    let rig = Rig::start_on(ManualClock(watch::Sender::new(START)), settings).await;
    rig.answer(Reply::Arns(Vec::new()));
    let started = Instant::now();
    client!(aws_sdk_ecs, rig).list_clusters().send().await.unwrap();
    assert!(started.elapsed() >= latency);
}
