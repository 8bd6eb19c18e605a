//! The queue: what is received, decoded, taken and deleted, and what should never have been in it.

use std::time::Duration;

use taskset_guardian::engine::Input;
use taskset_guardian::events::{self, Decoded};
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};

use super::worker::Incoming;
use super::{Own, QUEUE, RECEIVE, Simulation};

/// Messages that an archive keeps here.
const ARCHIVED: usize = 40;

/// No events.
const POISON: &[&str] = &[
    "",
    "not json",
    "[[[[[[[[",
    "{}",
    r#"{"version":"0","id":"1","detail-type":"ECS Task State Change","source":"aws.ecs","time":"yesterday","detail":7}"#,
    r#"{"Records":[{"eventSource":"aws:s3"}]}"#,
];

impl Simulation {
    /// Messages in the queue.
    pub(super) fn waiting(&mut self) -> u32 {
        match self.world.call(Call::GetQueueAttributes { queue_url: QUEUE.to_owned() }) {
            Ok(Reply::Attributes(all)) => {
                all.get("ApproximateNumberOfMessages").and_then(|n| n.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// One poll. Each message is deleted once what it said is durable.
    pub(super) fn receive(&mut self, who: usize) {
        if self.schedule.faults.noise > 0 && !self.calm() && self.rng.bool() {
            self.schedule.faults.noise -= 1;
            self.noise();
        }
        if self.during(self.schedule.faults.outage) {
            return self.plan_own(who, RECEIVE, Own::Receive);
        }
        let receive = Call::ReceiveMessage { queue_url: QUEUE.to_owned(), max: 10, visibility: None };
        let Ok(Reply::Messages(messages)) = self.world.call(receive) else { return };
        // A full answer says that there is more.
        let next = if messages.len() < 10 { RECEIVE } else { RECEIVE / 50 };
        self.plan_own(who, next, Own::Receive);
        for message in messages {
            if self.archive.len() < ARCHIVED {
                self.archive.push(message.body.clone());
            }
            if self.chance(self.schedule.faults.lost_event) {
                self.delete(vec![message.receipt]);
                continue;
            }
            match events::decode(&message.body) {
                Ok(Decoded::Signal(signal)) => {
                    let receipt = Some(message.receipt);
                    self.workers[who].inbox.push_back(Incoming { receipt, ..Input::Signal(signal).into() });
                }
                Ok(Decoded::Ignored(_)) => self.delete(vec![message.receipt]),
                // Left to the dead-letter queue.
                Err(_) => {}
            }
        }
        self.turn(who);
    }

    /// A message that says nothing true, nothing new, or nothing at all.
    fn noise(&mut self) {
        let body = match self.rng.u8(0..5) {
            0 => (*self.rng.choice(POISON).unwrap_or(&"")).to_owned(),
            1 if !self.archive.is_empty() => {
                let body = self.archive[self.rng.usize(0..self.archive.len())].clone();
                // An archive marks what it replays; somebody's script that sends it again does not.
                if self.rng.bool() { body.replacen('{', r#"{"replay-name":"again","#, 1) } else { body }
            }
            _ => self.forged(),
        };
        let _ = self.world.call(Call::SendMessage { queue_url: QUEUE.to_owned(), body });
    }

    /// A failure that never was: of green, of a task that ECS does not know, or hours old.
    fn forged(&mut self) -> String {
        let old = if self.rng.bool() { Duration::from_hours(6) } else { Duration::ZERO };
        let at = self.now.minus(old);
        let last = self.last_seen.get(&self.schedule.key);
        let task_set = last.and_then(|(.., service)| service.task_sets.last());
        let started_by = task_set.map_or_else(|| "ecs-svc/1".to_owned(), |set| set.id.to_string());
        let arn = |what: String| format!("arn:aws:ecs:eu-west-1:111122223333:{what}");
        let task = format!("{:032x}", self.rng.u128(..));
        let body = serde_json::json!({
            "version": "0", "id": task, "detail-type": "ECS Task State Change", "source": "aws.ecs",
            "account": "111122223333", "time": at, "region": "eu-west-1", "resources": [],
            "detail": {
                "clusterArn": arn("cluster/prod".to_owned()), "taskArn": arn(format!("task/prod/{task}")),
                "group": "service:checkout", "startedBy": started_by, "lastStatus": "STOPPED",
                "desiredStatus": "STOPPED", "version": 4, "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited", "stoppedAt": at,
            },
        });
        body.to_string()
    }
}
