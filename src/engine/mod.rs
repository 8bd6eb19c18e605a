//! The engine: a pure, deterministic, total state machine. Inputs go in with a time, effects and a report come out.
//!
//! State is one partition per service. A signal updates windows and may raise suspicion (`signals`); suspicion, the
//! sweep's pace and deadlines ask for a read (`reads`); only a fresh observation decides (`observed`): roles, then
//! gates, then, once breached, the plan (`roles`, `gates`, `plan`, `rollback`).

mod after;
mod brakes;
mod control;
mod doctor;
mod excess;
mod gates;
mod hands;
mod hold;
mod index;
mod input;
pub mod mutants;
mod observed;
mod orders;
mod out;
mod partition;
mod plan;
mod progress;
mod quarantine;
mod reads;
mod rehearsal;
mod report;
mod roles;
mod rollback;
mod sampled;
mod services;
mod signals;
mod snapshot;
mod status;
mod traffic;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use doctor::{Check, CheckVerdict, examine};
pub use excess::waits_for_blue;
pub use input::{Effect, Input, Settings, Step};
pub use observed::DENIAL_LASTS;
pub use rehearsal::{Rehearsal, rehearse, rehearse_next};
pub use report::{Finding, GateState, Note, Report, Stage, Use};
pub use status::{DeploymentView, GateView, QuarantineView, ServiceView, StatusView, WithheldView};

use self::brakes::Brakes;
use self::index::Index;
use self::out::{Out, Outbox};
use self::partition::{Deployment, Kept, Partition, Soft};
use self::services::Services;
use crate::model::{Announcement, EffectId, Fact, IncidentId, Outcome, ServiceKey, Signal, Timestamp};
use crate::rules::{Rule, RuleSet};

/// All that the guardian knows.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    state: State,
    index: Index,
    /// When each service wants its next read.
    timetable: BTreeSet<(Timestamp, ServiceKey)>,
}

/// What a checkpoint holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    rules: RuleSet,
    services: Services,
    outbox: Outbox,
    brakes: Brakes,
    next_effect: u64,
}

impl Engine {
    /// Knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: State::default(), index: Index::default(), timetable: BTreeSet::new() }
    }

    /// Takes one input.
    pub fn step(&mut self, now: Timestamp, input: &Input) -> Step {
        let State { rules, services, outbox, brakes, next_effect } = &mut self.state;
        let mut out = Out { now, settings: self.settings, step: Step::default(), next_effect, outbox, brakes };
        match input {
            Input::Signal(signal) => signals::take(services, &self.index, signal, &mut out),
            Input::Swept(found) => swept(services, rules, found, &mut out),
            Input::Registered(found) => registered(services, rules, found, &mut out),
            Input::LetGo(keys) => let_go(services, keys, "another worker guards it", &mut out),
            Input::Observed(key, result) => {
                if let Some(partition) = services.get_mut(key) {
                    observed::take(key, partition, rules, result, &mut out);
                    out.touch(key);
                }
            }
            Input::Done(id, outcome) => done(services, &self.index, *id, outcome, &mut out),
            Input::Rules(loaded) => reloaded(services, rules, loaded, &mut out),
            Input::Tick => {
                let due: Vec<_> = self.timetable.iter().take_while(|(at, _)| *at <= now).cloned().collect();
                out.step.report.touched.extend(due.into_iter().map(|(_, key)| key));
                let retries = out.outbox.due(now);
                out.step.effects.extend(retries);
            }
            Input::ClockSet { by_ms } => clock_set(services, *by_ms, &mut out),
            Input::Restarted => restarted(services, &mut out),
        }
        let mut step = out.step;
        step.report.touched.sort();
        step.report.touched.dedup();
        // Most inputs by far are events about tasks, and those don't change what facts call the service by.
        let relist = !matches!(input, Input::Signal(Signal { fact: Fact::Task(_), .. }));
        for key in &step.report.touched {
            if let Some(incident) = self.settle(now, key, relist, &mut step.effects) {
                step.report.incidents.insert(key.clone(), incident);
            }
        }
        step
    }

    /// Sends the read of a service when it is due, and brings index and timetable up to date. Returns the record that is open.
    fn settle(
        &mut self,
        now: Timestamp,
        key: &ServiceKey,
        relist: bool,
        effects: &mut Vec<Effect>,
    ) -> Option<IncidentId> {
        let Some(partition) = self.state.services.get_mut(key) else {
            self.index.remove(key);
            self.timetable.retain(|(_, other)| other != key);
            return None;
        };
        effects.extend(reads::due(now, key, partition, self.settings).map(Effect::Observe));
        if relist {
            self.index.update(key, partition);
        }
        let wanted = reads::wanted_at(partition);
        if partition.soft.scheduled != wanted {
            if let Some(at) = partition.soft.scheduled {
                self.timetable.remove(&(at, key.clone()));
            }
            if let Some(at) = wanted {
                self.timetable.insert((at, key.clone()));
            }
            partition.soft.scheduled = wanted;
        }
        partition.kept.deployment.as_ref().and_then(Deployment::incident_id).cloned()
    }

    /// When [`Input::Tick`] is wanted next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let read = self.timetable.first().map(|(at, _)| *at);
        [read, self.state.outbox.next_retry()].into_iter().flatten().min()
    }

    /// The whole state, for the journal.
    ///
    /// # Errors
    /// When the state holds something that can't be written down. The journal then keeps its entries.
    pub fn checkpoint(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.state).map_err(|error| error.to_string())
    }

    /// The rules that it was given last; none before any were.
    pub const fn rules(&self) -> &RuleSet {
        &self.state.rules
    }

    /// The state out of a checkpoint. [`Input::Restarted`] is to follow, after the entries since the checkpoint.
    ///
    /// # Errors
    /// When the bytes are not a checkpoint of this version.
    pub fn restore(settings: Settings, checkpoint: &[u8]) -> Result<Self, String> {
        let state: State = serde_json::from_slice(checkpoint).map_err(|error| error.to_string())?;
        let mut engine = Self { settings, state, index: Index::default(), timetable: BTreeSet::new() };
        for (key, partition) in engine.state.services.all_mut() {
            engine.index.update(key, partition);
        }
        Ok(engine)
    }

    /// One service, for `/status` and gauges. `None` when it is not (any longer) known.
    pub fn service(&self, key: &ServiceKey, now: Timestamp) -> Option<ServiceView> {
        self.state.services.get(key).map(|partition| status::view(key, partition, now))
    }

    /// Everything, for `/status`.
    pub fn status(&self, now: Timestamp) -> StatusView {
        StatusView {
            at: now,
            dry_run: self.settings.dry_run,
            fleet_brake: self.state.brakes.held(),
            rules: self.state.rules.rules.iter().map(|rule| rule.name.clone()).collect(),
            services: self
                .state
                .services
                .all()
                .into_iter()
                .map(|(key, partition)| status::view(key, partition, now))
                .collect(),
        }
    }
}

/// Exactly these services exist for the rules' globs. What a tag registered goes when its own reading has lost the tag.
fn swept(services: &mut Services, rules: &RuleSet, found: &BTreeSet<ServiceKey>, out: &mut Out<'_>) {
    let all = services.all().into_iter();
    let unlisted = all.filter(|(key, partition)| !found.contains(*key) && partition.kept.tagged.is_none());
    let gone: Vec<_> = unlisted.map(|(key, _)| key.clone()).collect();
    let_go(services, &gone, "the service is not protected any more", out);
    // Where nothing breaches any more nobody else looks.
    hold::settle_brake(out);
    for key in found {
        if !services.contains(key)
            && let Some(rule) = rules.rule_for(key)
        {
            begin(services, key, Kept::new(rule.clone()), out);
        }
    }
}

fn let_go<'a>(services: &mut Services, keys: impl IntoIterator<Item = &'a ServiceKey>, why: &str, out: &mut Out<'_>) {
    for key in keys {
        if let Some(mut partition) = services.remove(key) {
            rollback::let_go(key, &mut partition, why, out);
            out.touch(key);
            out.step.changed = true;
        }
    }
}

/// These services have the tag, or had it a moment ago.
fn registered(services: &mut Services, rules: &RuleSet, found: &BTreeMap<ServiceKey, Arc<str>>, out: &mut Out<'_>) {
    for (key, name) in found {
        if let Some(partition) = services.get_mut(key) {
            if partition.kept.tagged.is_none() {
                partition.soft.want(out.now);
                out.touch(key);
            }
        } else {
            let found = rules.protecting(key, Some(name)).cloned();
            let rule = found.unwrap_or_else(|| Arc::new(Rule::observing(name)));
            begin(services, key, Kept { tagged: Some(name.clone()), ..Kept::new(rule) }, out);
        }
    }
}

fn begin(services: &mut Services, key: &ServiceKey, kept: Kept, out: &mut Out<'_>) {
    let mut partition = Partition { kept, soft: Soft::default() };
    partition.soft.want(out.now);
    services.insert(key.clone(), partition);
    out.touch(key);
    out.step.changed = true;
}

/// Rules were loaded. Services that no rule protects any more go with the sweep that follows.
fn reloaded(services: &mut Services, rules: &mut RuleSet, loaded: &RuleSet, out: &mut Out<'_>) {
    if rules == loaded {
        return;
    }
    rules.clone_from(loaded);
    out.step.changed = true;
    for (key, partition) in services.all_mut() {
        if let Some(rule) = rules.protecting(key, partition.kept.tagged.as_deref())
            && partition.kept.rule != *rule
        {
            partition.kept.rule = rule.clone();
            partition.soft.want(out.now);
            out.touch(key);
        }
    }
}

/// A write or an announcement came back.
fn done(services: &mut Services, index: &Index, id: EffectId, outcome: &Outcome, out: &mut Out<'_>) {
    if let Some((delivered, announcement)) = out.outbox.done(out.now, id, outcome) {
        out.step.changed |= delivered;
        let Announcement { kind, service, incident, .. } = announcement;
        let detail_type = kind.detail_type();
        out.note(Note::Announced { service, incident, detail_type, outcome: outcome.clone() });
    } else if let Some(key) = index.service_of(id).cloned()
        && let Some(partition) = services.get_mut(&key)
    {
        rollback::returned(&key, partition, id, outcome, out);
        out.touch(&key);
    }
}

/// What was in flight before is unknown: everything is read again, every undelivered announcement is sent again.
fn restarted(services: &mut Services, out: &mut Out<'_>) {
    for (key, partition) in services.all_mut() {
        partition.soft =
            Soft { scheduled: partition.soft.scheduled, listed: partition.soft.listed.clone(), ..Soft::default() };
        partition.soft.want(out.now);
        // By the clock of another worker, perhaps, which was ahead or behind.
        let denied = std::mem::take(&mut partition.kept.missing) > 0;
        partition.kept.missing_at = None;
        out.step.changed |= rollback::begin_anew(partition, out.now) || denied;
        out.touch(key);
    }
    out.step.changed |= out.brakes.begin_anew(out.now);
    if let Some(why) = out.brakes.held() {
        out.note(Note::Brake { engaged: true, why });
    }
    let undelivered = out.outbox.restarted();
    out.step.effects.extend(undelivered);
}

/// What the engine itself has measured since some moment goes on from there: a drain takes as long as it takes, whatever
/// the clock says. What AWS has dated is as old as the clock now makes it, and every service is read again.
fn clock_set(services: &mut Services, by_ms: i64, out: &mut Out<'_>) {
    out.step.changed = true;
    out.outbox.clock_set(by_ms);
    out.brakes.begin_anew(out.now);
    for (key, partition) in services.all_mut() {
        partition.clock_set(by_ms);
        partition.soft.want(out.now);
        out.touch(key);
    }
}

/// Maps whose keys are not strings, as lists of pairs: JSON has no others.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Vec::<(K, V)>::deserialize(deserializer).map(BTreeMap::from_iter)
    }
}
