//! The world by itself: what AWS would do, on virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aws;
mod people;
mod promises;
mod routes;

use std::time::Duration;

use serde_json::Value;

use super::super::api::{ApiError, Backend, Call, MessageView, Reply, RuleView, ServiceView, TaskSetView};
use super::{Act, Setup, World};
use crate::model::{Action, ActionKind, Forward, ServiceKey, TargetGroupArn, Timestamp, WeightedGroup};

const QUEUE: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/taskset-guardian";

/// Creates green at the tenth second.
fn creating(mut setup: Setup) -> Setup {
    let create = Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 };
    setup.services[0].script.insert(0, (seconds(10), create));
    setup
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn key() -> ServiceKey {
    ServiceKey::new("prod", "checkout")
}

/// A world and the moment at which it began.
struct Stage {
    world: World,
    start: Timestamp,
}

impl Stage {
    fn new(setup: Setup) -> Self {
        Self::seeded(7, setup)
    }

    fn seeded(seed: u64, setup: Setup) -> Self {
        let start = Timestamp::parse("2026-03-02T10:00:00Z").unwrap();
        Self { world: World::new(seed, start, setup), start }
    }

    /// Up to this second after the beginning.
    fn at(&mut self, second: u64) -> &mut Self {
        self.world.advance_to(self.start.plus(seconds(second)));
        self
    }

    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        self.world.call(call)
    }

    fn service(&mut self) -> ServiceView {
        let call = Call::DescribeServices { cluster: "prod".to_owned(), services: vec!["checkout".to_owned()] };
        match self.call(call) {
            Ok(Reply::Services { mut services, .. }) => services.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn blue(&mut self) -> TaskSetView {
        self.service().task_sets.remove(0)
    }

    fn green(&mut self) -> TaskSetView {
        self.service().task_sets.remove(1)
    }

    /// The rule or default action that forwards.
    fn rule(&mut self) -> RuleView {
        match self.call(Call::DescribeRules { listener: None, arns: Vec::new() }) {
            Ok(Reply::Rules(rules)) => {
                let forwards = |rule: &RuleView| rule.actions.iter().any(|a| matches!(a.kind, ActionKind::Forward(_)));
                rules.into_iter().find(forwards).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    fn weigh(&mut self, blue: u32, green: u32) -> Result<Reply, ApiError> {
        let rule = self.rule();
        let groups = &forward(&rule.actions).groups;
        let weights = [blue, green].into_iter().map(Some).chain(std::iter::repeat(None));
        let weighted = groups.iter().zip(weights);
        let groups: Vec<_> = weighted
            .map(|(group, weight)| (group.target_group.clone(), weight.unwrap_or(group.effective_weight())))
            .collect();
        self.write(&groups)
    }

    /// Rewrites the groups of the forward action and echoes all else.
    fn write(&mut self, groups: &[(TargetGroupArn, u32)]) -> Result<Reply, ApiError> {
        let mut rule = self.rule();
        for action in &mut rule.actions {
            match &mut action.kind {
                ActionKind::Forward(forward) => {
                    let weighted = |(group, weight): &(TargetGroupArn, u32)| WeightedGroup {
                        target_group: group.clone(),
                        weight: Some(*weight),
                    };
                    forward.groups = groups.iter().map(weighted).collect();
                }
                ActionKind::Kept(kept) => {
                    if let Some(login) = kept.config.get_mut("AuthenticateOidcConfig").and_then(Value::as_object_mut) {
                        login.insert("UseExistingClientSecret".to_owned(), Value::Bool(true));
                    }
                }
            }
        }
        self.call(Call::ModifyRule { rule: rule.arn, actions: rule.actions })
    }

    fn delete(&mut self, id: &str) -> Result<Reply, ApiError> {
        self.call(Call::DeleteTaskSet {
            cluster: "prod".to_owned(),
            service: "checkout".to_owned(),
            task_set: id.to_owned(),
            force: true,
        })
    }

    fn receive(&mut self) -> Vec<MessageView> {
        match self.call(Call::ReceiveMessage { queue_url: QUEUE.to_owned(), max: 10, visibility: None }) {
            Ok(Reply::Messages(messages)) => messages,
            other => panic!("{other:?}"),
        }
    }

    /// Every event that is in the queue, oldest first.
    fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let messages = self.receive();
            if messages.is_empty() {
                return events;
            }
            events.extend(messages.iter().map(|message| serde_json::from_str::<Value>(&message.body).unwrap()));
            let receipts = messages.into_iter().map(|message| message.receipt).collect();
            self.call(Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts }).unwrap();
        }
    }

    /// Share of the requests of the last second that went to green.
    fn green_share(&self) -> f64 {
        self.world.traffic(&key()).unwrap().effective.green
    }

    fn broken(&self) -> Vec<&'static str> {
        self.world.violations().iter().map(|violation| violation.invariant).collect()
    }
}

fn forward(actions: &[Action]) -> &Forward {
    super::elb::forwards(actions).next().unwrap()
}

fn code<T>(result: Result<T, ApiError>) -> String {
    result.err().map(|error| error.code).unwrap_or_default()
}
