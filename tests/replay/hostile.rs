//! Whatever a recording holds, a replay comes to an end.

use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use taskset_guardian::model::Timestamp;
use taskset_guardian::replay::{Event, Recorded, Replay, Survey, World, grid, read};
use taskset_guardian::rules::{RuleFile, RuleSet, compile};
use taskset_guardian::sandbox::scenario;

use crate::live::live;

/// All bodies of a deployment that goes bad, with CloudTrail's word and alarms.
static BODIES: LazyLock<(Vec<String>, RuleSet)> = LazyLock::new(|| {
    let scenario = scenario::find("flapping").or_else(|| scenario::find("crash-at-start")).unwrap();
    let file = RuleFile::new("rule.toml", scenario.rules_toml.clone());
    (live(scenario, 5, false, true).0, compile(&[file]).unwrap())
});

/// As the command line does it, in one piece.
fn play(lines: &[String]) -> usize {
    let now = Timestamp::parse("2027-01-01T00:00:00Z").unwrap();
    let mut events: Vec<Box<Event>> = Vec::new();
    for line in lines {
        if let Ok(Recorded::Event(event)) = read(line, now) {
            events.push(event);
        }
    }
    events.sort_by(|one, other| one.key().cmp(&other.key()));
    let span = events.first().zip(events.last()).map(|(first, last)| (first.at, last.at));
    let mut survey = Survey::new(span.into_iter().collect());
    for event in &events {
        survey.take(0, event);
    }
    let survey = survey.finished();
    let mut world = World::new(&survey);
    let settings = grid();
    let rules = [BODIES.1.clone(), settings[0].apply(&BODIES.1)];
    let mut replays: Vec<_> = rules
        .iter()
        .map(|rules| Replay::new(rules, &survey.services(), (Duration::from_secs(30), 3), &world, survey.begins_at()))
        .collect();
    for event in &events {
        for replay in &mut replays {
            replay.advance(event.at, &world);
        }
        world.take(event);
        for replay in &mut replays {
            replay.take(event, &world);
        }
    }
    replays.into_iter().map(|replay| replay.finish(&world).len()).sum()
}

/// What is done to one line.
#[derive(Clone, Debug)]
enum Blow {
    Cut(usize),
    Overwrite(usize, u8),
    /// Some member gets another value.
    Member(usize, Value),
    Twice,
    Later,
}

fn blow() -> impl Strategy<Value = Blow> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        Just(Value::from(u64::MAX)),
        "[a-z:/ -]{0,12}".prop_map(Value::from),
        Just(Value::from("STOPPED")),
        Just(Value::from("ecs-svc/77")),
        Just(Value::from("-009999-01-01T00:00:00Z")),
        Just(Value::from("9999-12-30T00:00:00Z")),
        Just(Value::from("2026-03-02T10:00:31Z")),
        Just(Value::from("2021-03-02T10:00:31Z")),
        Just(Value::from("DeleteTaskSet")),
        Just(
            serde_json::json!([{ "targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/x/1", "weight": -1 }])
        ),
    ];
    prop_oneof![
        any::<usize>().prop_map(Blow::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Blow::Overwrite(at, byte)),
        (any::<usize>(), value).prop_map(|(at, value)| Blow::Member(at, value)),
        Just(Blow::Twice),
        Just(Blow::Later),
    ]
}

/// The n-th member of a document, by depth.
fn replace(value: &mut Value, left: &mut usize, with: &Value) -> bool {
    if let Value::Object(inner) = value {
        for member in inner.values_mut() {
            if *left == 0 {
                *member = with.clone();
                return true;
            }
            *left -= 1;
            if replace(member, left, with) {
                return true;
            }
        }
    }
    false
}

fn strike(lines: &mut Vec<String>, at: usize, blow: &Blow) {
    let at = at % lines.len();
    let line = lines[at].clone();
    match blow {
        Blow::Cut(length) => {
            lines[at] = String::from_utf8_lossy(&line.as_bytes()[..length % (line.len() + 1)]).into_owned();
        }
        Blow::Overwrite(place, byte) => {
            let mut bytes = line.into_bytes();
            let length = bytes.len().max(1);
            if let Some(old) = bytes.get_mut(place % length) {
                *old = *byte;
            }
            lines[at] = String::from_utf8_lossy(&bytes).into_owned();
        }
        Blow::Member(place, with) => {
            if let Ok(mut value) = serde_json::from_str::<Value>(&line) {
                replace(&mut value, &mut (place % 40), with);
                lines[at] = value.to_string();
            }
        }
        Blow::Twice => lines.push(line),
        Blow::Later => {
            let line = lines.remove(at);
            lines.push(line);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_recording_that_was_tampered_with_is_played_to_its_end(
        blows in proptest::collection::vec((any::<usize>(), blow()), 1..40),
    ) {
        let mut lines = BODIES.0.clone();
        for (at, blow) in &blows {
            strike(&mut lines, *at, blow);
        }
        play(&lines);
    }
}

#[test]
fn what_was_not_tampered_with_is_one_deployment() {
    assert_eq!(play(&BODIES.0), 2, "of each of two rules");
}
