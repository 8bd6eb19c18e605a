//! Between the worker and its ports: who looks at every read, every write and every report, to see that one follows from
//! the other.

use std::sync::Arc;

use async_trait::async_trait;
use taskset_guardian::engine::Note;
use taskset_guardian::model::{
    Ask, CallError, Gate, Observation, Role, TaskSet, Timestamp, Traffic, TrafficRuleId, Write, humane,
};
use taskset_guardian::ports::Actuator;
use taskset_guardian::runtime::lease::{MARGIN, WRITE_WITHIN};
use taskset_guardian::runtime::{Hook, Observe, Observer};
use taskset_guardian::sandbox::client::Client;
use taskset_guardian::sandbox::world::Act;
use taskset_guardian::telemetry::narrate;
use tokio::time::{Instant, sleep};

use crate::judge::Seen;
use crate::line::Wire;
use crate::process::Life;

/// How long a write may wait between its decision and its sending.
const WRITE_LIFE: std::time::Duration = std::time::Duration::from_secs(5);

/// Reads, by the real observer.
pub(crate) struct Eyes(pub(crate) Arc<Life>, pub(crate) Observer);

#[async_trait]
impl Observe for Eyes {
    async fn observe(&self, ask: &Ask) -> Result<Observation, CallError> {
        let Self(life, observer) = self;
        let stage = &life.stage;
        let (at, after) = {
            let state = stage.enter();
            (state.now, state.judged.happened)
        };
        life.facts().shows = None;
        if ask.twice && stage.chance(stage.schedule.faults.meddling) {
            // Somewhere between the first and the last call of the round.
            let (stage, wait) = (Arc::clone(stage), stage.half_way());
            tokio::spawn(async move {
                sleep(wait).await;
                stage.meddle(&Act::SetPrimary(Role::Green));
            });
        }
        let answer = observer.observe(ask).await;
        if let Ok(seen) = &answer {
            let newest = seen.service.task_sets.iter().filter(|set| set.is_living());
            let newest = newest.max_by_key(|set| (set.created_at, set.id.clone()));
            let serving = |set: &TaskSet| match &set.target_group {
                Some(group) => seen.targets.get(group).map_or(0, |counts| counts.healthy),
                None => set.running,
            };
            let green_was_dead = newest.is_none_or(|green| serving(green) == 0);
            let mut facts = life.facts();
            if let Traffic::Rules(rules) = &seen.traffic {
                facts.rules.extend(rules.iter().map(|rule| (target_of(&rule.id), ask.service.clone())));
            }
            // The second call is not answered by what was.
            let at = facts.shows.filter(|_| !ask.twice).map_or(at, |shows| shows.min(at));
            facts.answered.insert(ask.service.clone(), Seen { at, after, green_was_dead });
        }
        answer
    }
}

/// Writes. What has to be true of every write that leaves the executor is looked at here.
pub(crate) struct Hands(pub(crate) Arc<Life>, pub(crate) Arc<Client<Wire>>);

/// A write that is not answered yet.
struct InFlight<'a>(&'a Life, String);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.facts().in_flight.remove(&self.1);
    }
}

/// What a write changes, as its call names it.
fn target_of(rule: &TrafficRuleId) -> String {
    match rule {
        TrafficRuleId::Rule(arn) => arn.to_string(),
        TrafficRuleId::DefaultOf(listener) => listener.to_string(),
    }
}

impl Hands {
    fn check(&self, write: &Write) {
        let Self(life, _) = self;
        let (now, wall) = (Instant::now(), life.stage.wall(life.who));
        let (newest, holder) = {
            let state = life.stage.enter();
            (state.judged.epoch, state.judged.holder)
        };
        let (sent, intents, intended_at, epoch, until) = {
            let mut facts = life.facts();
            facts.sent += 1;
            (facts.sent, facts.intents, facts.intended_at, facts.epoch, facts.may_act_until)
        };
        let operation = write.operation();
        if sent > intents {
            life.broken("intent", format!("{operation} is sent before what it follows from is durable"));
        }
        if wall > intended_at.plus(WRITE_LIFE) {
            let age = humane(wall.since(intended_at));
            life.broken("expiry", format!("{operation} is sent {age} after it was decided"));
        }
        if newest > epoch && holder != life.who {
            life.broken("S6", format!("{operation} is sent after another has taken the lease"));
        }
        if until.is_some_and(|until| now + WRITE_WITHIN + MARGIN > until) {
            life.broken("S6", format!("{operation} is sent and may outlast the lease"));
        }
    }
}

#[async_trait]
impl Actuator for Hands {
    async fn apply(&self, write: &Write) -> Result<(), CallError> {
        let Self(life, client) = self;
        if life.is_dead() {
            return std::future::pending().await;
        }
        self.check(write);
        let (target, service) = match write {
            Write::SetActions { rule, .. } => (target_of(rule), None),
            Write::ScaleTaskSet { service, task_set, .. } | Write::DeleteTaskSet { service, task_set } => {
                (task_set.to_string(), Some(service.clone()))
            }
            Write::SetPrimary { service, .. } => (service.service.to_string(), Some(service.clone())),
        };
        let alone = {
            let mut facts = life.facts();
            let service = service.or_else(|| facts.rules.get(&target).cloned());
            let rests_on = service.and_then(|service| facts.rests_on.get(&service).copied()).unwrap_or_default();
            facts.in_flight.insert(target.clone(), rests_on).is_none()
        };
        if !alone {
            life.broken("overlap", format!("{} while another write to {target} is under way", write.operation()));
        }
        let _in_flight = InFlight(life, target);
        client.apply(write).await
    }
}

/// Hears every report, once its inputs are durable.
pub(crate) fn hook(life: &Arc<Life>) -> Hook {
    let life = Arc::clone(life);
    Arc::new(move |report, at| {
        for note in &report.notes {
            hear(&life, note, at);
        }
    })
}

fn hear(life: &Life, note: &Note, at: Timestamp) {
    let stage = &life.stage;
    match note {
        Note::Signal { .. } => life.facts().heard += 1,
        Note::Sent { service, what } => {
            let mut facts = life.facts();
            facts.intents += 1;
            facts.intended_at = at;
            let stepped = facts.stepped.get(service).copied().unwrap_or_default();
            facts.rests_on.insert(service.clone(), stepped);
            drop(facts);
            stage.enter().trace((life.who, what));
        }
        Note::Decided { held: false, evidence, .. } => {
            // A blue that fails as well may have failed in green's place.
            let sound = stage.schedule.sound && stage.schedule.setup.versions.len() == 1;
            if sound
                && evidence.iter().any(|evidence| matches!(evidence.gate, Gate::TaskFailures | Gate::ExcessFailures))
            {
                life.broken("S7", "a sound green is rolled back for failed tasks");
            }
            let green = evidence.first().map(|evidence| evidence.task_set.clone());
            let mut state = stage.enter();
            state.ended.decided = true;
            let news = green.is_none_or(|green| state.judged.decided.insert(green));
            drop(state);
            if !news {
                life.broken("S5", "a second decision on one task set");
            }
        }
        _ => {}
    }
    if let Some((_, said)) = narrate(note) {
        life.tell("guardian", || said);
    }
}
