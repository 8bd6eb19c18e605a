//! One line of a recording: an event as EventBridge sent it, or the SQS message that carries one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::events::{self, DecodeError, Decoded};
use crate::model::{AlarmValue, Arn, CallTarget, Fact, Signal, TargetGroupArn, Timestamp};

/// Bytes of one line: what SQS can carry. A longer one is no event.
pub const LONGEST_LINE: usize = 1 << 20;

/// An event is not dated further ahead of the moment at which its queue got it. The engine is as strict.
const AHEAD: Duration = Duration::from_mins(5);

/// An event's time has no fractions; what it tells of may lie within the second, or a clock's error after it.
const SKEW: Duration = Duration::from_mins(1);

/// To the last millisecond of the second that a time names.
const WITHIN_SECOND: Duration = Duration::from_millis(999);

/// What a line holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    /// A fact.
    Event(Box<Event>),
    /// An event without a word for us.
    Ignored,
}

/// Why a line holds nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no event, and no message that carries one.
    #[error("{0}")]
    NoEvent(#[from] DecodeError),
    /// It is an event from a time that has not come yet.
    #[error("dated {at}, which is after {limit}: an event can't be recorded before it happens")]
    Ahead {
        /// Its time.
        at: Timestamp,
        /// When it was recorded, or read, at the latest.
        limit: Timestamp,
    },
}

/// One recorded event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When the guardian could have known it.
    pub at: Timestamp,
    /// What it says.
    pub signal: Signal,
    /// What only a replay needs to know of it: in life, reads tell.
    pub more: More,
}

/// Members of an event that the guardian leaves to its reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct More {
    /// Of a task.
    pub created_at: Option<Timestamp>,
    /// Of a task: the version.
    pub task_definition: Option<Arc<str>>,
    /// Of an alarm: its state before, and since when.
    pub before: Option<(AlarmValue, Timestamp)>,
    /// Of a call that creates a task set: where its tasks will be registered. Of one that changes a rule: what it forwards to
    /// from then on, with each group's weight.
    pub groups: Vec<(TargetGroupArn, u32)>,
}

impl Event {
    /// Orders what happens within one millisecond, so that neither the order of lines nor of files matters: calls, then tasks
    /// by name and version, then the rest.
    pub fn key(&self) -> (Timestamp, u8, Cow<'_, str>, u64) {
        let (rank, name, version) = match &self.signal.fact {
            Fact::Call(call) => {
                let target = match &call.target {
                    CallTarget::TaskSet { service, id } => {
                        format!("{service} {}", id.as_ref().map_or("", |id| id.as_str()))
                    }
                    CallTarget::Rule { rule, .. } => rule.arn().to_owned(),
                };
                (0, Cow::Owned(format!("{} {target}", call.operation)), 0)
            }
            Fact::Task(change) => (1, Cow::Borrowed(change.task.as_str()), change.version),
            Fact::Service(action) => (2, Cow::Owned(format!("{} {}", action.service, action.name)), 0),
            Fact::Alarm(change) => (3, Cow::Borrowed(change.alarm.name.as_str()), change.alarm.value as u64),
            Fact::AlarmDeleted(gone) => (4, Cow::Borrowed(gone.name.as_str()), 0),
        };
        (self.at, rank, name, version)
    }
}

/// Reads one line. `now` is when the recording is read: no event is younger.
///
/// # Errors
/// When it is no event, or one from the future.
pub fn read(line: &str, now: Timestamp) -> Result<Recorded, Unreadable> {
    // Inside a message's body the quotes are escaped: what has this name as it is carries nothing else.
    let is_event = line.contains("\"detail-type\"");
    let message: Message<'_> =
        if is_event { Message::default() } else { serde_json::from_str(line).unwrap_or_default() };
    let (body, limit) = match &message.body {
        Some(body) => (&**body, message.attributes.and_then(|known| known.sent()).unwrap_or(now).min(now)),
        None => (line, now),
    };
    let Decoded::Signal(mut signal) = events::decode(body)? else { return Ok(Recorded::Ignored) };
    let limit = limit.plus(AHEAD);
    if signal.at > limit {
        return Err(Unreadable::Ahead { at: signal.at, limit });
    }
    // Whatever an archive had marked it as: here, it is as fresh as on its day.
    signal.replayed = false;
    let more = more(body, &signal.fact);
    let told = match &signal.fact {
        Fact::Task(change) => change.stop.as_ref().map(|stop| stop.at),
        Fact::Alarm(change) => Some(change.alarm.since),
        Fact::Service(_) | Fact::AlarmDeleted(_) | Fact::Call(_) => None,
    };
    // A call's time has no fractions either, and what made somebody call comes before it.
    let at = match &signal.fact {
        Fact::Call(call) if &*call.operation != "CreateTaskSet" => signal.at.plus(WITHIN_SECOND),
        _ => told.filter(|at| *at <= signal.at.plus(SKEW)).map_or(signal.at, |at| at.max(signal.at)),
    };
    Ok(Recorded::Event(Box::new(Event { at, signal, more })))
}

/// A message of SQS, as a dump of a queue has it.
#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "Body", alias = "body")]
    body: Option<Cow<'a, str>>,
    #[serde(rename = "Attributes", alias = "attributes")]
    attributes: Option<Attributes>,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(rename = "SentTimestamp")]
    sent: Option<Value>,
}

impl Attributes {
    /// Milliseconds, as text.
    fn sent(&self) -> Option<Timestamp> {
        let millis = self.sent.as_ref()?;
        let millis = millis.as_i64().or_else(|| millis.as_str()?.parse().ok())?;
        Some(Timestamp::from_millis(millis))
    }
}

#[derive(Default, Deserialize)]
struct Envelope {
    detail: Detail,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    created_at: Option<Arc<str>>,
    task_definition_arn: Option<Arc<str>>,
    previous_state: Option<State>,
    request_parameters: Option<Value>,
}

#[derive(Deserialize)]
struct State {
    value: AlarmValue,
    timestamp: Option<Arc<str>>,
}

/// A body whose other members are not as AWS writes them has nothing more to say.
fn more(body: &str, fact: &Fact) -> More {
    if matches!(fact, Fact::Service(_) | Fact::AlarmDeleted(_)) {
        return More::default();
    }
    let Envelope { detail } = serde_json::from_str(body).unwrap_or_default();
    let time = |text: Option<Arc<str>>| text.and_then(|text| Timestamp::parse(&text));
    let mut more = More::default();
    match fact {
        Fact::Task(_) => {
            more.created_at = time(detail.created_at);
            more.task_definition = detail.task_definition_arn.filter(|arn| arn.len() <= 1024);
        }
        Fact::Alarm(_) => {
            more.before =
                detail.previous_state.map(|state| (state.value, time(state.timestamp).unwrap_or(Timestamp::EPOCH)));
        }
        Fact::Call(_) => groups(&detail.request_parameters.unwrap_or_default(), &mut more.groups),
        Fact::Service(_) | Fact::AlarmDeleted(_) => {}
    }
    more
}

/// Every target group that is named, wherever, with the weight beside it. A depth is bounded by the JSON reader.
fn groups(value: &Value, found: &mut Vec<(TargetGroupArn, u32)>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| groups(value, found)),
        Value::Object(members) => {
            let member = |wanted: &str| {
                members.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
            };
            let named = member("targetGroupArn").and_then(Value::as_str).filter(|arn| arn.len() <= 512);
            let is_group = |arn: &&str| Arn::parse(arn).is_some_and(|arn| arn.resource.starts_with("targetgroup/"));
            if let Some(arn) = named.filter(is_group)
                && found.len() < 20
                && found.iter().all(|(known, _)| known.as_str() != arn)
            {
                let weight = member("weight").and_then(Value::as_u64).unwrap_or(1);
                found.push((TargetGroupArn::new(arn), u32::try_from(weight).unwrap_or(u32::MAX)));
            }
            members.values().for_each(|value| groups(value, found));
        }
        _ => {}
    }
}
