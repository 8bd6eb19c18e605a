//! The way that events take to the queue, reading: the queue's own settings, and EventBridge's rules that aim at it.
//!
//! For people at the command line. A worker knows its queue and nothing of who fills it.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_eventbridge::types::RuleState;
use aws_sdk_sqs::types::QueueAttributeName as Name;
use serde_json::Value;

use super::calls::{Calls, Operation};
use crate::model::CallError;

pub(super) const QUEUE_ATTRIBUTES: Operation = Operation::new("sqs", "GetQueueAttributes");
const RULE_NAMES: Operation = Operation::new("events", "ListRuleNamesByTarget");
const DESCRIBE_RULE: Operation = Operation::new("events", "DescribeRule");
const TEST_PATTERN: Operation = Operation::new("events", "TestEventPattern");

/// Pages of rules that aim at one queue, of 100 each.
const PAGES: usize = 10;

/// How a queue is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReading {
    /// Its ARN.
    pub arn: String,
    /// Who may do what with it, as JSON; absent when nobody but its account may.
    pub policy: Option<String>,
    /// ARN of the queue for what was received too often.
    pub dead_letters: Option<String>,
    /// How long a message is kept.
    pub retention: Duration,
    /// About how many messages wait.
    pub waiting: u64,
}

/// A rule of EventBridge's default bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// Its name.
    pub name: String,
    /// Its ARN, by which a queue's policy may name it.
    pub arn: String,
    /// It is switched on.
    pub enabled: bool,
    /// What it matches, as JSON; absent when it is a schedule.
    pub pattern: Option<String>,
}

/// SQS and EventBridge, reading.
pub struct Delivery {
    queues: aws_sdk_sqs::Client,
    events: aws_sdk_eventbridge::Client,
    calls: Calls,
}

impl Delivery {
    pub(super) fn new(config: &SdkConfig, calls: Calls) -> Self {
        let (queues, events) = (aws_sdk_sqs::Client::new(config), aws_sdk_eventbridge::Client::new(config));
        Self { queues, events, calls }
    }

    /// The queue at this URL.
    pub async fn queue(&self, url: &str) -> Result<QueueReading, CallError> {
        let wanted = [
            Name::QueueArn,
            Name::Policy,
            Name::RedrivePolicy,
            Name::MessageRetentionPeriod,
            Name::ApproximateNumberOfMessages,
        ];
        let call = self.queues.get_queue_attributes().queue_url(url).set_attribute_names(Some(wanted.into()));
        let found = self.calls.send(QUEUE_ATTRIBUTES, call.send()).await?.attributes.unwrap_or_default();
        let arn = found.get(&Name::QueueArn).cloned().ok_or_else(|| QUEUE_ATTRIBUTES.incomplete("QueueArn"))?;
        Ok(QueueReading {
            arn,
            policy: found.get(&Name::Policy).filter(|policy| !policy.is_empty()).cloned(),
            dead_letters: dead_letters(&found),
            retention: Duration::from_secs(number(&found, &Name::MessageRetentionPeriod).unwrap_or_default()),
            waiting: number(&found, &Name::ApproximateNumberOfMessages).unwrap_or_default(),
        })
    }

    /// The rules of the default bus, where AWS puts its own events, that aim at this queue.
    pub async fn rules(&self, queue_arn: &str) -> Result<Vec<EventRule>, CallError> {
        let mut rules = Vec::new();
        let mut token = None;
        for _ in 0..PAGES {
            let call = self.events.list_rule_names_by_target().target_arn(queue_arn).set_next_token(token);
            let page = self.calls.send(RULE_NAMES, call.send()).await?;
            for name in page.rule_names() {
                rules.push(self.rule(name).await?);
            }
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        Ok(rules)
    }

    async fn rule(&self, name: &str) -> Result<EventRule, CallError> {
        let found = self.calls.send(DESCRIBE_RULE, self.events.describe_rule().name(name).send()).await?;
        Ok(EventRule {
            name: name.to_owned(),
            arn: found.arn.unwrap_or_default(),
            enabled: found.state.is_some_and(|state| state != RuleState::Disabled),
            pattern: found.event_pattern.filter(|pattern| !pattern.is_empty()),
        })
    }

    /// Whether EventBridge itself says that the pattern matches the event.
    pub async fn matches(&self, pattern: &str, event: &Value) -> Result<bool, CallError> {
        let call = self.events.test_event_pattern().event_pattern(pattern).event(event.to_string());
        Ok(self.calls.send(TEST_PATTERN, call.send()).await?.result)
    }
}

/// ARN of the dead-letter queue, if a queue has one.
pub(super) fn dead_letters(attributes: &HashMap<Name, String>) -> Option<String> {
    let policy: Value = serde_json::from_str(attributes.get(&Name::RedrivePolicy)?).ok()?;
    Some(policy.get("deadLetterTargetArn")?.as_str()?.to_owned())
}

/// An attribute that is a number.
pub(super) fn number(attributes: &HashMap<Name, String>, name: &Name) -> Option<u64> {
    attributes.get(name)?.parse().ok()
}
