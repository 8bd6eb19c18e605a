//! What is in the queue for who looks, and what should never have been in it.

use std::time::Duration;

use taskset_guardian::sandbox::api::{Backend as _, Call, MessageView, Reply};

use crate::line::{QUEUE, WAIT};
use crate::stage::State;

/// The world is looked at no oftener than this by who waits for messages.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl State {
    /// Messages, and when there may be more.
    pub(crate) fn look(&mut self, receive: Call) -> (Vec<MessageView>, Duration) {
        self.make_noise();
        let messages = match self.world.call(receive) {
            Ok(Reply::Messages(messages)) => messages,
            _ => Vec::new(),
        };
        let next = self.world.next_event().map_or(WAIT, |at| at.since(self.now));
        (messages, next.max(LOOK_EVERY))
    }

    /// Now and then a message that says nothing true, or nothing at all.
    fn make_noise(&mut self) {
        if self.is_calm() {
            return;
        }
        if self.noise > 0 && self.rng.u8(0..20) == 0 {
            self.noise -= 1;
            let body = self.forged();
            self.send(body);
        }
        if self.poison > 0 && self.rng.u8(0..20) == 0 {
            self.poison -= 1;
            self.send("{\"detail-type\": 7".to_owned());
        }
    }

    fn send(&mut self, body: String) {
        self.tell("fault", || format!("a message of {} bytes that nobody should believe", body.len()));
        drop(self.world.call(Call::SendMessage { queue_url: QUEUE.to_owned(), body }));
    }

    /// An event that says nothing true: forged, or hours old.
    fn forged(&mut self) -> String {
        let old = if self.rng.bool() { Duration::from_hours(6) } else { Duration::ZERO };
        let at = self.now.minus(old);
        let task_set = self.last_service.as_ref().and_then(|(.., service)| service.task_sets.last());
        let started_by = task_set.map_or_else(|| "ecs-svc/1".to_owned(), |set| set.id.clone());
        let arn = |what: String| format!("arn:aws:ecs:eu-west-1:111122223333:{what}");
        let task = format!("{:032x}", self.rng.u128(..));
        let event = serde_json::json!({
            "version": "0", "id": task, "detail-type": "ECS Task State Change", "source": "aws.ecs",
            "account": "111122223333", "time": at, "region": "eu-west-1", "resources": [],
            "detail": {
                "clusterArn": arn("cluster/prod".to_owned()), "taskArn": arn(format!("task/prod/{task}")),
                "group": "service:checkout", "startedBy": started_by, "lastStatus": "STOPPED",
                "desiredStatus": "STOPPED", "version": 4, "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited", "stoppedAt": at,
            },
        });
        event.to_string()
    }
}
