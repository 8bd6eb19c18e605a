//! A worker's line to AWS: calls on their way to the world and back, and what becomes of them there.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use taskset_guardian::events::{self, Decoded};
use taskset_guardian::model::{AnnouncementKind, CallError, ErrorClass, Timestamp};
use taskset_guardian::sandbox::api::{ApiError, Backend as _, Call, EventEntry, MessageView, Reply};
use taskset_guardian::sandbox::client::{Line, refused};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::faults::Span;
use crate::judge::{Judged, Seen};
use crate::process::Life;
use crate::schedule;
use crate::stage::{State, fault};

pub(crate) const QUEUE: &str = "http://sandbox/queue/taskset-guardian";

/// How long a receive waits, as `run` has it.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// The client gives a write up after this: one attempt. Beside a lease the shell does it.
const ATTEMPT: Duration = Duration::from_secs(5);

/// And every other call after this, all its attempts together; a receive this long after its wait.
const PATIENCE: Duration = Duration::from_secs(20);
const RECEIVE_SLACK: Duration = Duration::from_secs(10);

/// How old a read of ECS may be: it is eventually consistent, for seconds.
const LAG: Duration = Duration::from_secs(5);

/// A write that is delivered late is so by at most this, after its sender has given it up.
const LATE: Duration = Duration::from_secs(20);

/// So many calls make one observation: each fares so much better than the schedule says of the observation.
const CALLS: f64 = 6.0;

const NEVER: Span = (Duration::ZERO, Duration::ZERO);

/// One end of the line.
pub(crate) struct Wire(pub(crate) Arc<Life>);

/// A write on its way.
struct Letter {
    operation: &'static str,
    call: Call,
    /// What its sender had seen, and in which epoch of the lease it was.
    rests_on: Seen,
    epoch: u64,
    sent_at: Timestamp,
}

/// What a write changes.
fn target(call: &Call) -> Option<&String> {
    match call {
        Call::ModifyRule { rule: target, .. }
        | Call::ModifyListener { listener: target, .. }
        | Call::SetPrimary { service: target, .. }
        | Call::UpdateTaskSet { task_set: target, .. }
        | Call::DeleteTaskSet { task_set: target, .. } => Some(target),
        _ => None,
    }
}

impl Letter {
    /// It is there, whatever became of its sender.
    fn arrive(self, sender: &Life) -> Result<Reply, CallError> {
        let Self { operation, call, rests_on, epoch, sent_at } = self;
        let stage = &sender.stage;
        if let Some(error) = stage.refusal(operation, 1.0, stage.schedule.faults.writes_denied) {
            return Err(error);
        }
        let mut state = stage.enter();
        state.judged.rests_on = rests_on;
        let late = state.now.since(sent_at) > ATTEMPT;
        state.written(sender, operation, epoch, late);
        let result = state.world.call(call).map_err(|error| refused(operation, error));
        state.notice_violations();
        result
    }
}

#[async_trait]
impl Line for Wire {
    async fn carry(&self, operation: &'static str, call: Call) -> Result<Reply, CallError> {
        self.0.present().await;
        match call {
            Call::ReceiveMessage { .. } => self.receive(call).await,
            Call::UpdateTaskSet { .. }
            | Call::SetPrimary { .. }
            | Call::DeleteTaskSet { .. }
            | Call::ModifyRule { .. }
            | Call::ModifyListener { .. } => self.write(operation, call).await,
            Call::DeleteMessages { .. } => {
                self.note_deletes(&call);
                self.pass(operation, call, 1.0, NEVER).await
            }
            Call::PutEvents { .. } | Call::ChangeVisibility { .. } => self.pass(operation, call, 1.0, NEVER).await,
            _ => self.pass(operation, call, CALLS, self.0.stage.schedule.faults.reads_denied).await,
        }
    }
}

impl Wire {
    /// There, and back, or not.
    async fn pass(&self, operation: &'static str, call: Call, rarer: f64, denied: Span) -> Result<Reply, CallError> {
        let Self(life) = self;
        let stage = &life.stage;
        if rarer > 1.0 && stage.chance(stage.schedule.faults.pause / rarer) {
            life.stall();
        }
        sleep(stage.half_way()).await;
        life.present().await;
        stage.enter().called(life, operation);
        let answer = match stage.refusal(operation, rarer, denied) {
            Some(error) => Err(error),
            None => self.reach(operation, call),
        };
        if stage.chance(stage.trouble.unanswered) {
            life.tell("fault", || format!("{operation} gets no answer"));
            sleep(PATIENCE).await;
            return Err(fault(operation, ErrorClass::Transient));
        }
        sleep(stage.half_way()).await;
        life.present().await;
        answer
    }

    /// It is there.
    fn reach(&self, operation: &'static str, call: Call) -> Result<Reply, CallError> {
        let stage = &self.0.stage;
        match call {
            Call::DeleteMessages { queue_url, receipts } => Ok(self.delete(&queue_url, receipts)),
            Call::PutEvents { entries } => {
                let reply = self.apply(operation, Call::PutEvents { entries: entries.clone() })?;
                if stage.chance(stage.schedule.faults.failed_after) {
                    return Err(fault(operation, ErrorClass::Transient));
                }
                for entry in &entries {
                    stage.enter().announced(entry);
                }
                Ok(reply)
            }
            Call::DescribeServices { .. } => {
                let stale = stage.chance(stage.schedule.faults.stale_read);
                let reply = self.apply(operation, call)?;
                Ok(self.perhaps_stale(reply, stale))
            }
            call => self.apply(operation, call),
        }
    }

    fn apply(&self, operation: &'static str, call: Call) -> Result<Reply, CallError> {
        self.0.stage.enter().world.call(call).map_err(|error| refused(operation, error))
    }

    fn perhaps_stale(&self, mut reply: Reply, stale: bool) -> Reply {
        let Reply::Services { services, .. } = &mut reply else { return reply };
        let Some(service) = services.first_mut() else { return reply };
        let mut state = self.0.stage.enter();
        let (now, mut shows) = (state.now, state.world.read_shows());
        let old = state.last_service.replace((now, shows, service.clone())).filter(|(at, ..)| now.since(*at) <= LAG);
        drop(state);
        if let Some((_, showed, old)) = old.filter(|_| stale) {
            service.task_sets = old.task_sets;
            shows = shows.min(showed);
        }
        self.0.facts().shows = Some(shows);
        reply
    }

    /// A write is on its way as soon as it is sent, whatever becomes of its sender.
    async fn write(&self, operation: &'static str, call: Call) -> Result<Reply, CallError> {
        let life = Arc::clone(&self.0);
        let stage = Arc::clone(&life.stage);
        let faults = &stage.schedule.faults;
        if stage.chance(faults.meddling) {
            let act = schedule::meddling(&mut stage.enter().rng);
            stage.meddle(&act);
        }
        if stage.chance(faults.pause) {
            life.stall();
        }
        let sent_at = stage.now();
        let held = life.facts().stalled_until.since(sent_at);
        let travels = if stage.chance(stage.trouble.late) {
            ATTEMPT + stage.within(LATE)
        } else if stage.chance(faults.slow) {
            stage.within(ATTEMPT)
        } else {
            stage.half_way()
        };
        let unanswered = stage.chance(stage.trouble.unanswered);
        let letter = {
            let facts = life.facts();
            let rests_on = target(&call).and_then(|target| facts.in_flight.get(target).copied()).unwrap_or_default();
            Letter { operation, call, rests_on, epoch: facts.epoch, sent_at }
        };
        let (answer, answered) = oneshot::channel();
        let own = Arc::clone(&life);
        tokio::spawn(async move {
            sleep(held + travels).await;
            let (stage, faults) = (&own.stage, &own.stage.schedule.faults);
            let result = letter.arrive(&own);
            let unheard = || stage.enter().judged.unseen_dispute |= of_rule(operation);
            if stage.chance(faults.crash_after_apply) {
                unheard();
                return own.kill("after a call was applied");
            }
            if unanswered {
                unheard();
                own.tell("fault", || format!("{operation} gets no answer"));
                std::future::pending::<()>().await;
            }
            let fails = result.is_ok() && stage.chance(faults.failed_after);
            if fails || own.is_dead() {
                unheard();
            }
            sleep(stage.half_way()).await;
            drop(answer.send(if fails { Err(fault(operation, ErrorClass::Transient)) } else { result }));
        });
        let patience = if stage.trouble.owns_journal { ATTEMPT } else { PATIENCE };
        let result = match timeout(patience, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(fault(operation, ErrorClass::Transient)),
        };
        life.present().await;
        life.tell("call", || match &result {
            Ok(_) => format!("{operation}: done"),
            Err(error) => format!("{operation}: {error}"),
        });
        result
    }

    /// One long poll.
    async fn receive(&self, call: Call) -> Result<Reply, CallError> {
        let Self(life) = self;
        let stage = &life.stage;
        let faults = &stage.schedule.faults;
        sleep(stage.half_way()).await;
        life.present().await;
        if stage.chance(stage.trouble.unanswered) {
            life.tell("fault", || "ReceiveMessage gets no answer".to_owned());
            sleep(WAIT + RECEIVE_SLACK).await;
            return Err(fault("ReceiveMessage", ErrorClass::Transient));
        }
        if let Some(error) = stage.refusal("ReceiveMessage", CALLS, NEVER) {
            return Err(error);
        }
        let over = Instant::now() + WAIT;
        let messages = loop {
            life.present().await;
            let (messages, next) = stage.enter().look(call.clone());
            if !messages.is_empty() || Instant::now() >= over {
                break messages;
            }
            sleep_until((Instant::now() + next).min(over)).await;
        };
        stage.enter().called(life, "ReceiveMessage");
        if stage.chance(faults.failed_after / CALLS) {
            // What it took stays invisible for a while.
            return Err(fault("ReceiveMessage", ErrorClass::Transient));
        }
        let mut received = Vec::new();
        for message in messages {
            if stage.chance(faults.lost_event) {
                let receipts = vec![message.receipt];
                self.apply("DeleteMessageBatch", Call::DeleteMessages { queue_url: QUEUE.to_owned(), receipts })?;
            } else {
                received.push(message);
            }
        }
        sleep(stage.half_way()).await;
        life.present().await;
        self.note_receipts(&received);
        Ok(Reply::Messages(received))
    }

    fn note_receipts(&self, messages: &[MessageView]) {
        let mut facts = self.0.facts();
        for message in messages {
            let signal = matches!(events::decode(&message.body), Ok(Decoded::Signal(_)));
            facts.received.insert(message.receipt.clone(), signal);
        }
    }

    /// S8. The worker's reports say which signals were taken, after these are durable.
    fn note_deletes(&self, call: &Call) {
        let Call::DeleteMessages { receipts, .. } = call else { return };
        let mut facts = self.0.facts();
        for receipt in receipts {
            if facts.received.get(receipt) == Some(&true) {
                facts.deleted.insert(receipt.clone());
            }
        }
        let (deleted, heard) = (facts.deleted.len(), facts.heard);
        drop(facts);
        if deleted > heard {
            self.0.broken("S8", format!("{deleted} messages are deleted, and {heard} signals are durable"));
        }
    }

    /// Some are deleted, some are said not to be, and some are received again though they are said to be.
    fn delete(&self, queue_url: &str, receipts: Vec<String>) -> Reply {
        let stage = &self.0.stage;
        let mut answers = Vec::new();
        for receipt in receipts {
            let error = ApiError { code: "InternalError".to_owned(), message: "injected".to_owned(), status: 500 };
            if stage.chance(stage.trouble.undeleted) {
                answers.push(Some(error));
            } else if stage.chance(stage.schedule.faults.repeated_event) {
                answers.push(None);
            } else {
                let call = Call::DeleteMessages { queue_url: queue_url.to_owned(), receipts: vec![receipt] };
                match self.apply("DeleteMessageBatch", call) {
                    Ok(Reply::Entries(entries)) => answers.extend(entries),
                    _ => answers.push(Some(error)),
                }
            }
        }
        Reply::Entries(answers)
    }
}

/// It changes a listener rule, or a listener's default action.
fn of_rule(operation: &str) -> bool {
    operation.starts_with("Modify")
}

impl State {
    fn called(&mut self, life: &Life, operation: &'static str) {
        self.ended.calls += 1;
        self.trace((life.who, operation));
    }

    /// A write is applied now.
    fn written(&mut self, life: &Life, operation: &'static str, epoch: u64, late: bool) {
        self.ended.writes += 1;
        self.called(life, operation);
        self.tell("call", || format!("{operation} of worker {} is applied", life.who));
        if late {
            self.judged.late_write_at = self.now;
            // What happened meanwhile is as good as unseen.
            let (now, happened) = (self.now, self.judged.happened);
            (self.judged.disturbed_at, self.judged.disturbed_after) = (now, happened);
            (self.judged.rests_on.at, self.judged.rests_on.after) = (now, happened - 1);
        }
        let Judged { disturbed_at, disturbed_after, rests_on, .. } = &self.judged;
        let overtaken = *disturbed_at > rests_on.at || *disturbed_after > rests_on.after;
        self.judged.unseen_dispute |= overtaken && of_rule(operation);
        if self.judged.epoch > epoch && self.judged.holder != life.who {
            self.broken("S6", format!("{operation} of a deposed worker is applied"), late);
        }
    }

    fn announced(&mut self, entry: &EventEntry) {
        self.trace(&entry.detail_type);
        self.judged.called |= entry.detail_type == AnnouncementKind::RollbackEscalated.detail_type();
        self.ended.escalated |= entry.detail_type == AnnouncementKind::RollbackEscalated.detail_type();
        self.ended.completed |= entry.detail_type == AnnouncementKind::RollbackCompleted.detail_type();
    }
}
