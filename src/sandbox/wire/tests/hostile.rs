//! Requests that the Rust SDKs do not send: other clients' and nobody's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::*;

const JSON: &str = "Content-Type: application/x-amz-json-1.1";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded; charset=utf-8";
const CBOR: &str = "smithy-protocol: rpc-v2-cbor";
const ALARMS: &str = "/service/GraniteServiceVersion20100801/operation/DescribeAlarms";

/// Status and everything after the status line.
async fn post(rig: &Rig, path: &str, headers: &[&str], body: &[u8]) -> (u16, String) {
    let headers = headers.iter().fold(String::new(), |all, header| all + header + "\r\n");
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    let (address, request): (SocketAddr, _) = (rig.sandbox.address(), [head.as_bytes(), body].concat());
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        // A server that refuses early may close before it has read everything.
        stream.write_all(&request).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer}")), answer)
}

#[tokio::test]
async fn malformed_bodies_are_refused_in_the_protocol_they_came_in() {
    let mut rig = Rig::start().await;
    let ecs = "X-Amz-Target: AmazonEC2ContainerServiceV20141113.ListServices";
    let deep = "[".repeat(100_000);
    for body in ["{", "[]", "7", "{\"cluster\":7}", "{\"cluster\":{\"a\":1}}", "\u{feff}{}", deep.as_str()] {
        let (status, answer) = post(&rig, "/", &[JSON, ecs], body.as_bytes()).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("\"__type\":\"SerializationException\""), "{answer}");
    }
    let deep = format!("Action=DescribeRules&{}=1", "a.".repeat(1000));
    for form in ["Action=DescribeRules&RuleArns.member.x=1", "Action=ModifyRule&RuleArn=a&Actions=1", deep.as_str()] {
        let (status, answer) = post(&rig, "/", &[FORM], form.as_bytes()).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("<Code>SerializationException</Code>"), "{answer}");
    }
    let deep = vec![0x81; 100_000];
    for cbor in [b"\xff".as_slice(), b"\x01", b"\xbf\x61", b"\xa1\x6aAlarmNames\x07", deep.as_slice()] {
        let (status, answer) = post(&rig, ALARMS, &[CBOR], cbor).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("SerializationException"), "{answer}");
    }
    rig.assert_untouched();
}

#[tokio::test]
async fn what_is_no_operation_is_refused_in_the_protocol_it_came_in() {
    let mut rig = Rig::start().await;
    for target in ["AmazonSQS.CreateQueue", "AWSEvents.PutRule", "Nobody.Knows", "", "\u{e9}", "NoDot", "AmazonSQS."] {
        let (status, answer) = post(&rig, "/", &[&format!("X-Amz-Target: {target}")], b"{}").await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains("\"__type\":\"UnknownOperationException\""), "{target}: {answer}");
    }
    let (status, answer) = post(&rig, "/", &[FORM], b"Action=Create%3CRule&Version=2015-12-01").await;
    assert_eq!(status, 400);
    assert!(answer.contains("<Type>Sender</Type><Code>InvalidAction</Code>"), "{answer}");
    let (status, answer) = post(&rig, "/", &[FORM], b"").await;
    assert_eq!(status, 400);
    assert!(answer.contains("<Code>ValidationError</Code>"), "{answer}");
    rig.assert_untouched();
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_not_read() {
    let mut rig = Rig::start().await;
    let send = "X-Amz-Target: AmazonSQS.SendMessage";
    let (status, answer) = post(&rig, "/", &[send], &vec![b' '; 2 * 1024 * 1024 + 1]).await;
    assert_eq!(status, 413, "{answer}");
    assert!(answer.contains("\"__type\":\"RequestEntityTooLarge\""), "{answer}");
    rig.assert_untouched();
}

#[tokio::test]
async fn a_large_message_passes() {
    let mut rig = Rig::start().await;
    rig.answer(Reply::Sent(text("id")));
    let body = "x".repeat(1024 * 1024);
    let send = client!(aws_sdk_sqs, rig).send_message().queue_url("q").message_body(&body);
    send.send().await.unwrap();
    assert_eq!(rig.call().await, Call::SendMessage { queue_url: text("q"), body });
}

#[tokio::test]
async fn cloudwatch_speaks_json_too() {
    let mut rig = Rig::start().await;
    rig.answer(Reply::Alarms(vec![super::cloudwatch::alarm()]));
    rig.refuse("ThrottlingException", 400);
    let describe = "X-Amz-Target: GraniteServiceVersion20100801.DescribeAlarms";
    let (status, answer) = post(&rig, "/", &[describe], b"{\"AlarmNames\":[\"shop-5xx\"]}").await;
    assert_eq!(rig.call().await, Call::DescribeAlarms { names: texts(&["shop-5xx"]) });
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let alarm = &body["MetricAlarms"][0];
    assert_eq!((status, &alarm["AlarmName"], &alarm["Threshold"]), (200, &"shop-5xx".into(), &7.5.into()));
    assert_eq!(alarm["Dimensions"][1]["Value"], "targetgroup/green/2");
    let since = alarm["StateTransitionedTimestamp"].as_f64().unwrap();
    assert!((since - 1_772_445_880.994).abs() < 0.000_001, "{since}");
    assert_eq!((&alarm["Period"], body["CompositeAlarms"].as_array().map(Vec::len)), (&60.into(), Some(0)));

    let (status, answer) = post(&rig, "/", &[describe], b"{}").await;
    assert_eq!(status, 400);
    assert!(answer.contains("x-amzn-query-error: ThrottlingException;Sender"), "{answer}");
}

#[tokio::test]
async fn a_target_outranks_the_content_type_that_curl_sets() {
    let mut rig = Rig::start().await;
    rig.answer(Reply::Arns(texts(&["arn:cluster"])));
    let list = "X-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters";
    let (status, answer) = post(&rig, "/", &[list, FORM], b"{}").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(rig.call().await, Call::ListClusters);
}

#[tokio::test]
async fn a_client_that_never_finishes_does_not_hold_up_the_shutdown() {
    let rig = Rig::start().await;
    let mut stuck = TcpStream::connect(rig.sandbox.address()).unwrap();
    stuck.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").unwrap();
    // Another client's whole exchange, after which the stuck one has been accepted too.
    post(&rig, "/", &[], b"").await;
    soon(rig.sandbox.shutdown()).await.unwrap();
}
