//! The state of one service: what the journal must bring back, and what a restart may forget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::excess::{Failures, Past};
use super::hands::Hands;
use super::mutants::{Mutant, without};
use super::progress::{self, Rollback};
use super::quarantine::Quarantined;
use super::roles::Roles;
use super::sampled::Sampled;
use super::{Finding, control};
use crate::model::{
    AlarmName, Contract, EffectId, Evidence, Gate, HoldOrder, Incident, IncidentId, IncidentOutcome, Observation,
    Phase, Scope, ServiceKey, Split, Stability, TargetGroupArn, TaskArn, TaskSet, TaskSetArn, TaskSetId, TaskSetStatus,
    Timestamp, Urgency, Verdict, Window,
};
use crate::rules::Rule;

/// Windows of one service. ECS allows five task sets; the rest is for ids that no read has shown yet.
const WINDOWS: usize = 8;

/// Decided task sets that are remembered. ECS allows five to live at a time.
const DECIDED: usize = 16;

/// Rollbacks whose times are remembered: the most that a rule can allow a day.
const ROLLBACKS: usize = 100;

/// One service.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Partition {
    /// Brought back by the journal.
    pub(super) kept: Kept,
    /// Learnt anew after a restart.
    #[serde(skip)]
    pub(super) soft: Soft,
}

impl Partition {
    /// The clock was set.
    pub(super) fn clock_set(&mut self, by_ms: i64) {
        let Self { kept, soft } = self;
        soft.asked_at = soft.asked_at.map(|at| at.moved(by_ms));
        soft.swept_at = soft.swept_at.map(|at| at.moved(by_ms));
        soft.sampled_at = soft.sampled_at.map(|at| at.moved(by_ms));
        if let Some(Reading { swept_at, sampled_at, .. }) = &mut soft.reading {
            [swept_at, sampled_at].into_iter().flatten().for_each(|at| *at = at.moved(by_ms));
        }
        // Whatever it was planned for, the read that follows plans it anew.
        soft.read_at = None;
        kept.past.since = kept.past.since.map(|at| at.moved(by_ms));
        kept.missing_at = kept.missing_at.map(|at| at.moved(by_ms));
        kept.rollbacks.iter_mut().for_each(|at| *at = at.moved(by_ms));
        if let Some(deployment) = kept.deployment.as_mut().filter(|deployment| !deployment.ended()) {
            let Deployment {
                promoted_at,
                unsteady_since,
                woke_at,
                settled,
                ran,
                unhealthy,
                compared_by,
                weather,
                sampled,
                ..
            } = deployment;
            let measured = [
                promoted_at.as_mut(),
                unsteady_since.as_mut(),
                woke_at.as_mut(),
                settled.grown_at.as_mut(),
                ran.has.as_mut().map(|(since, _)| since),
                unhealthy.as_mut().map(|unhealthy| &mut unhealthy.since),
                compared_by.as_mut(),
                sampled.as_mut().map(|sampled| &mut sampled.read_at),
            ];
            let weather = weather.iter_mut().flat_map(|weather| [&mut weather.from, &mut weather.until]);
            measured.into_iter().flatten().chain(weather).for_each(|at| *at = at.moved(by_ms));
        }
        // Also one that is done: it may be opened again.
        if let Some(rollback) = kept.deployment.as_mut().and_then(|deployment| deployment.rollback.as_mut()) {
            rollback.clock_set(by_ms);
        }
    }
}

/// What the journal must bring back. A step that changes it is durable before its effects go out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The rule that protects the service.
    pub(super) rule: Arc<Rule>,
    /// The rule's name in the service's tag, when a tag registers it.
    #[serde(default)]
    pub(super) tagged: Option<Arc<str>>,
    /// By task set.
    pub(super) windows: BTreeMap<TaskSetId, Window>,
    /// The live deployment, or the last one.
    pub(super) deployment: Option<Deployment>,
    /// Task sets on which a rollback was decided once: never again. Oldest first.
    pub(super) decided: Vec<TaskSetId>,
    /// When rollbacks were decided and begun, newest last.
    pub(super) rollbacks: Vec<Timestamp>,
    /// Reads in a row that said the service does not exist, each from a replica that had time to catch up after the one before.
    pub(super) missing: u8,
    /// When the last of them came.
    #[serde(default)]
    pub(super) missing_at: Option<Timestamp>,
    /// Versions that were rolled back, oldest first.
    #[serde(default)]
    pub(super) quarantine: Vec<Quarantined>,
    /// Who else changed it lately.
    #[serde(default)]
    pub(super) hands: Hands,
    /// How the versions before green fared.
    #[serde(default)]
    pub(super) past: Past,
}

/// What a restart may forget: it only steers when the next read is sent, and what is shown.
#[derive(Debug, Default)]
pub(super) struct Soft {
    /// Account and Region, by the last read.
    pub(super) scope: Option<Scope>,
    /// The read that is under way.
    pub(super) reading: Option<Reading>,
    /// When the next one is to be sent.
    pub(super) read_at: Option<Timestamp>,
    /// Sent last.
    pub(super) asked_at: Option<Timestamp>,
    /// Answered last.
    pub(super) observed_at: Option<Timestamp>,
    /// Sent last as a sweep: with everything that events may have failed to tell.
    pub(super) swept_at: Option<Timestamp>,
    /// Sent last with the metrics of the traffic.
    pub(super) sampled_at: Option<Timestamp>,
    /// The next read may decide: users wait for it.
    pub(super) urgent: bool,
    /// The next read is to tell how the traffic fares: an alarm is to be weighed against blue.
    pub(super) weigh: bool,
    /// The next read is to be made twice, for a delete.
    pub(super) twice: bool,
    /// Searches through all alarms in a row that had no answer.
    pub(super) failed_searches: u32,
    /// Failed reads in a row.
    pub(super) failed_reads: u32,
    /// Task sets, by the last read.
    pub(super) task_sets: BTreeSet<TaskSetId>,
    /// How the traffic was split, by the last read.
    pub(super) split: Option<Split>,
    /// A task that runs, of which task set, by an event's word.
    pub(super) runs: Option<(TaskSetId, TaskArn)>,
    /// What the gates said last.
    pub(super) findings: Vec<Finding>,
    /// What the gates said last, over all of them.
    pub(super) verdict: Option<Verdict>,
    /// Why a rollback would not work now.
    pub(super) not_ready: Option<String>,
    /// A person holds the service.
    pub(super) hold: Option<HoldOrder>,
    /// Why a person's order is not followed.
    pub(super) refused: Option<String>,
    /// What is wrong with the service's registration.
    pub(super) unregistered: Option<String>,
    /// This partition's entry in the engine's timetable.
    pub(super) scheduled: Option<Timestamp>,
    /// This partition's entries in the engine's index.
    pub(super) listed: Listed,
}

/// A read, and what is due again if a more urgent one takes its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) urgency: Urgency,
    pub(super) swept_at: Option<Timestamp>,
    pub(super) sampled_at: Option<Timestamp>,
    pub(super) weigh: bool,
    pub(super) twice: bool,
}

/// What facts may call this service by, beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Alarms that gate it.
    pub(super) alarms: BTreeSet<AlarmName>,
    /// `TargetGroup` dimensions of its deployment, live or rolled back.
    pub(super) groups: BTreeSet<Arc<str>>,
    /// Writes in flight.
    pub(super) effects: BTreeSet<EffectId>,
}

/// One green against one blue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Deployment {
    /// The newest task set.
    pub(super) green: TaskSetId,
    /// For the delete.
    pub(super) green_arn: TaskSetArn,
    /// Account and Region.
    pub(super) scope: Scope,
    /// Where its tasks are registered.
    pub(super) green_group: Option<TargetGroupArn>,
    /// Its creation is the deployment's begin.
    pub(super) began_at: Timestamp,
    /// The version.
    pub(super) task_definition: Arc<str>,
    /// What it allows, once its tags were read.
    #[serde(default)]
    pub(super) contract: Option<Contract>,
    /// The incident of an earlier rollback of the same version.
    #[serde(default)]
    pub(super) returned: Option<IncidentId>,
    /// Until then, whether it runs the same images is still to be found out.
    #[serde(default)]
    pub(super) compared_by: Option<Timestamp>,
    /// The task set that green replaces.
    pub(super) blue: TaskSetId,
    /// Where its tasks are registered.
    pub(super) blue_group: Option<TargetGroupArn>,
    /// The most tasks that it was seen to have beside green.
    #[serde(default)]
    pub(super) blue_had: u32,
    /// Green was once steady.
    pub(super) was_steady: bool,
    /// Since when every read found it unsteady.
    pub(super) unsteady_since: Option<Timestamp>,
    /// It wants no tasks.
    #[serde(default)]
    pub(super) idle: bool,
    /// When it first wanted some, where it did not from its creation on.
    #[serde(default)]
    pub(super) woke_at: Option<Timestamp>,
    /// How large it was when it was last steady.
    #[serde(default)]
    pub(super) settled: Settled,
    /// Over how many sweeps in a row too many of green's targets were unhealthy, and since when.
    pub(super) unhealthy: Option<Unhealthy>,
    /// How much it has run.
    #[serde(default)]
    pub(super) ran: Ran,
    /// Its tasks that failed.
    #[serde(default)]
    pub(super) failures: Failures,
    /// How its traffic fares, by the last read of it.
    #[serde(default)]
    pub(super) sampled: Option<Sampled>,
    /// Gates on its traffic that are over for a cause that blue shares.
    #[serde(default)]
    pub(super) shared: Vec<Gate>,
    /// When blue was seen to suffer as well, oldest first.
    #[serde(default)]
    pub(super) weather: Vec<Weather>,
    /// Alarms whose dimensions name green's target group.
    pub(super) bound_alarms: BTreeSet<AlarmName>,
    /// Those that name blue's: the control group's.
    pub(super) blue_alarms: BTreeSet<AlarmName>,
    /// All alarms were searched for them.
    pub(super) alarms_searched: bool,
    /// Since when green is PRIMARY with all the traffic.
    pub(super) promoted_at: Option<Timestamp>,
    /// Where it stands.
    pub(super) phase: Phase,
    /// In plain words.
    pub(super) why: String,
    /// A breach that is deliberately not acted on, while it lasts.
    pub(super) hold: Option<Hold>,
    /// Those that are over, one of each cause.
    #[serde(default)]
    pub(super) released: Vec<Hold>,
    /// How many there were.
    pub(super) holds: u32,
    /// The rollback, once one was decided.
    pub(super) rollback: Option<Rollback>,
}

/// Sweeps in a row that found too many of green's targets unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unhealthy {
    pub(super) sweeps: u32,
    pub(super) since: Timestamp,
}

/// What green has run since its creation, by the sizes that reads have shown: it may have been scaled meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ran {
    /// Task-minutes, until its size changed last.
    minutes: f64,
    /// When that was, and the tasks that it has had since.
    has: Option<(Timestamp, u32)>,
}

impl Ran {
    /// Another read. Only one that shows another size changes anything.
    fn read(&mut self, now: Timestamp, green: &TaskSet) {
        let tasks = control::tasks(green);
        match self.has {
            Some((_, had)) if had == tasks => {}
            None => self.has = Some((green.created_at, tasks)),
            Some((since, _)) => *self = Self { minutes: self.minutes(now), has: Some((now.max(since), tasks)) },
        }
    }

    /// Task-minutes, until now.
    pub(super) fn minutes(self, now: Timestamp) -> f64 {
        let since = self.has.map_or(0.0, |(since, tasks)| f64::from(tasks) * now.since(since).as_secs_f64());
        self.minutes + since / 60.0
    }
}

/// How large green was when it was last steady.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settled {
    /// So many tasks it had; 0 before it was.
    tasks: u32,
    /// Since when it wants more.
    grown_at: Option<Timestamp>,
}

/// How long the tasks of a green that was scaled up may take to come up, where no gate says.
const GROWING: Duration = Duration::from_mins(10);

impl Settled {
    /// Another read of green.
    fn read(&mut self, now: Timestamp, green: &TaskSet) {
        // A read that lags may call it steady still.
        if green.is_steady() && green.running >= green.computed_desired {
            *self = Self { tasks: green.running, grown_at: None };
        } else if self.tasks > 0 && green.computed_desired > self.tasks {
            self.grown_at.get_or_insert(now);
        } else {
            self.grown_at = None;
        }
    }

    /// The tasks that it had, while those that were added to them may still be starting.
    pub(super) fn before_it_grew(self, now: Timestamp, rule: &Rule) -> Option<u32> {
        let allowed = rule.stability.steady_within.unwrap_or(GROWING);
        self.grown_at.filter(|at| now < at.plus(allowed)).map(|_| self.tasks)
    }
}

/// A span in which blue's users or targets suffered. What failed of green in it never speaks against green, also when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Weather {
    from: Timestamp,
    until: Timestamp,
}

/// Spans of bad weather that are remembered. A deployment has one or two.
const WEATHER: usize = 8;

impl Weather {
    /// Blue is seen to suffer. It is seen late, and for as long as a window remembers it.
    pub(super) fn seen(known: &mut Vec<Self>, now: Timestamp, window: Duration) {
        match known.last_mut().filter(|last| now.since(last.until) <= window) {
            Some(last) => last.until = now.max(last.until),
            None => known.push(Self { from: now.minus(window), until: now }),
        }
        if known.len() > WEATHER {
            known.remove(0);
        }
    }

    pub(super) fn covers(self, at: Timestamp) -> bool {
        (self.from..=self.until).contains(&at)
    }
}

/// A breach that is not acted on, for a reason that may go away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) cause: Cause,
    /// Its record.
    pub(super) incident: Incident,
}

/// Why a breach is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Blue suffers as well.
    NotAttributable,
    /// Too many services breach at a time.
    FleetBrake,
    /// `limits.rollbacks_per_day`.
    DailyLimit,
    /// The tag `taskset-guardian:hold-until`.
    Person,
    /// Green's tag `taskset-guardian:contract`.
    Contract,
}

impl Kept {
    /// A service of which nothing is known yet.
    pub(super) fn new(rule: Arc<Rule>) -> Self {
        Self {
            rule,
            tagged: None,
            windows: BTreeMap::new(),
            deployment: None,
            decided: Vec::new(),
            rollbacks: Vec::new(),
            missing: 0,
            missing_at: None,
            quarantine: Vec::new(),
            hands: Hands::default(),
            past: Past::default(),
        }
    }

    /// How long an ended task stays in a window: what blue lost is looked for in the last two of the rule's.
    pub(super) fn remembers(&self) -> Duration {
        self.rule.stability.window.saturating_mul(control::WINDOWS).max(self.rule.watch.freshness)
    }

    /// The window of a task set. Ids that no read has shown can't push out those of the deployment.
    pub(super) fn window(&mut self, id: &TaskSetId) -> &mut Window {
        if !self.windows.contains_key(id) && self.windows.len() >= WINDOWS {
            let ours = self.deployment.as_ref().map(|d| (&d.green, &d.blue));
            let strangers = self.windows.iter().filter(|(id, _)| ours.is_none_or(|(g, b)| *id != g && *id != b));
            let oldest = strangers.min_by_key(|(id, window)| (window.newest(), *id)).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.windows.remove(&oldest);
            }
        }
        self.windows.entry(id.clone()).or_default()
    }

    /// Where failures of a task set count: against it while it is green, else for the service's past when it is what users
    /// have, or green's blue.
    pub(super) fn failures(&mut self, id: &TaskSetId, seen: &Observation) -> Option<&mut Failures> {
        let Self { deployment, past, .. } = self;
        let live = deployment.as_mut().filter(|deployment| !deployment.ended());
        let is_primary = |set: &TaskSet| set.id == *id && set.status == TaskSetStatus::Primary;
        match live {
            Some(deployment) if deployment.green == *id => Some(&mut deployment.failures),
            Some(deployment) if deployment.blue == *id => Some(&mut past.failures),
            _ => seen.service.task_sets.iter().any(is_primary).then_some(&mut past.failures),
        }
    }

    /// The deployment, unless it has ended.
    pub(super) fn live(&self) -> Option<&Deployment> {
        self.deployment.as_ref().filter(|d| !d.ended())
    }

    /// The deployment, while it is still to be judged: nothing was decided, or what was found is only held.
    pub(super) fn undecided(&self) -> Option<&Deployment> {
        self.live().filter(|d| d.rollback.is_none() && (d.phase == Phase::Watching || d.hold.is_some()))
    }

    /// The rollback that still has something to do.
    pub(super) fn open_rollback(&self) -> Option<&Rollback> {
        self.deployment.as_ref().and_then(|d| d.rollback.as_ref()).filter(|r| !r.closed)
    }

    /// S5: at most one decision per task set.
    pub(super) fn remember_decided(&mut self, id: &TaskSetId, begun_at: Option<Timestamp>) {
        self.rollbacks.extend(begun_at);
        if self.rollbacks.len() > ROLLBACKS {
            self.rollbacks.remove(0);
        }
        if !without(Mutant::DecideAgain) {
            self.decided.push(id.clone());
        }
        if self.decided.len() > DECIDED {
            self.decided.remove(0);
        }
    }
}

impl Soft {
    /// A task of it that runs is known already.
    pub(super) fn knows_a_task_of(&self, task_set: &TaskSetId) -> bool {
        self.runs.as_ref().is_some_and(|(of, _)| of == task_set)
    }

    /// Asks for a read at this time, or earlier if one is due earlier already.
    pub(super) fn want(&mut self, at: Timestamp) {
        self.read_at = Some(self.read_at.map_or(at, |other| other.min(at)));
    }

    /// The same, for a read that may decide.
    pub(super) fn want_urgently(&mut self, at: Timestamp) {
        self.urgent = true;
        self.want(at);
    }
}

impl Deployment {
    /// A green that was seen for the first time.
    pub(super) fn new(roles: Roles<'_>, scope: Scope) -> Self {
        let Roles { green, blue } = roles;
        Self {
            green: green.id.clone(),
            green_arn: green.arn.clone(),
            scope,
            green_group: green.target_group.clone(),
            began_at: green.created_at,
            task_definition: green.task_definition.clone(),
            contract: None,
            returned: None,
            compared_by: None,
            blue: blue.id.clone(),
            blue_group: blue.target_group.clone(),
            blue_had: 0,
            was_steady: false,
            unsteady_since: None,
            idle: false,
            woke_at: None,
            settled: Settled::default(),
            ran: Ran::default(),
            unhealthy: None,
            failures: Failures::default(),
            sampled: None,
            shared: Vec::new(),
            weather: Vec::new(),
            blue_alarms: BTreeSet::new(),
            bound_alarms: BTreeSet::new(),
            alarms_searched: false,
            promoted_at: None,
            phase: Phase::Watching,
            why: format!("watching green {} beside blue {}", green.id, blue.id),
            hold: None,
            released: Vec::new(),
            holds: 0,
            rollback: None,
        }
    }

    /// A record, opened.
    pub(super) fn incident(
        &self,
        now: Timestamp,
        service: &ServiceKey,
        id: String,
        evidence: Vec<Evidence>,
    ) -> Incident {
        let first_sign_at = evidence.iter().map(|e| e.from).min().unwrap_or(now);
        let mut incident = Incident {
            id: IncidentId::new(id),
            service: service.clone(),
            green: self.green.clone(),
            blue: self.blue.clone(),
            task_definition: self.task_definition.to_string(),
            outcome: IncidentOutcome::Open,
            reason: None,
            first_sign_at,
            detected_at: now,
            traffic_safe_at: None,
            traffic_lost_at: None,
            deleted_at: None,
            evidence,
            timeline: Vec::new(),
            calls: Vec::new(),
            before: None,
            after: None,
            aftermath: Vec::new(),
        };
        progress::log(&mut incident, first_sign_at, "first sign of trouble");
        let reasons = incident.reasons();
        progress::log(&mut incident, now, format!("breach: {reasons}"));
        incident
    }

    /// Another read of green: whether it is steady, and how large it is.
    pub(super) fn read_green(&mut self, now: Timestamp, green: &TaskSet) {
        self.ran.read(now, green);
        if green.is_steady() {
            self.was_steady = true;
        }
        if green.stability == Stability::Steady {
            self.unsteady_since = None;
        } else {
            self.unsteady_since.get_or_insert(now);
        }
        if green.computed_desired == 0 {
            self.idle = true;
        } else if std::mem::take(&mut self.idle) {
            self.woke_at = Some(now);
        }
        self.settled.read(now, green);
    }

    /// The record of its rollback, or of what is held back.
    pub(super) fn incident_id(&self) -> Option<&IncidentId> {
        let of_rollback = self.rollback.as_ref().map(|rollback| &rollback.incident);
        of_rollback.or(self.hold.as_ref().map(|hold| &hold.incident)).map(|incident| &incident.id)
    }

    /// Nothing more will happen.
    pub(super) fn ended(&self) -> bool {
        matches!(self.phase, Phase::RolledBack | Phase::Graduated | Phase::Superseded)
    }
}
