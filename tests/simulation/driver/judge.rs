//! Promises: what the engine says, what the world has seen, and how it all ended.

use std::collections::BTreeSet;
use std::hash::Hash as _;
use std::time::Duration;

use taskset_guardian::engine::{DeploymentView, Input, Note};
use taskset_guardian::model::{
    Action, Announcement, AnnouncementKind, Evidence, Gate, IncidentId, IncidentOutcome, Outcome, Phase, ServiceKey,
    StopClass, TaskSetId, TaskSetStatus, Timestamp, TrafficRuleId, classify, humane, tags,
};
use taskset_guardian::sandbox::api::{Backend as _, Call, Reply};

use crate::schedule::Schedule;

use super::{Basis, Broken, FEW, FINISH, LONGEST_BLINDNESS, Owed, Simulation};

/// What one step said. It counts once it is durable.
#[derive(Debug)]
pub(super) struct Heard {
    /// The time that the step was given.
    at: Timestamp,
    notes: Vec<Note>,
    /// Promises that it breaks by itself.
    broken: Vec<(&'static str, String)>,
    /// A rollback of this one was decided; whether it was PRIMARY then.
    decided: Option<(TaskSetId, bool)>,
    /// What became of the last write to each of these rules.
    told: Vec<TrafficRuleId>,
}

impl Simulation {
    /// What a step said, looked at before the next one. `at` is the time that the step was given.
    pub(super) fn hear(&mut self, who: usize, at: Timestamp, input: &Input, notes: Vec<Note>) -> Heard {
        let told = self.told(input);
        let mut heard = Heard { at, notes: Vec::new(), broken: Vec::new(), decided: None, told };
        for note in &notes {
            match note {
                Note::Decided { service, held: false, evidence, .. } => {
                    let green = evidence.first().map(|evidence| evidence.task_set.clone());
                    let of_tasks = |gate: &Gate| matches!(gate, Gate::TaskFailures | Gate::ExcessFailures);
                    for evidence in evidence.iter().filter(|evidence| of_tasks(&evidence.gate)) {
                        heard.broken.extend(self.doubt(service, at, evidence));
                    }
                    let primary = self.workers[who].seen.get(service).and_then(|seen| seen.primary.clone());
                    heard.decided = green.map(|green| (green.clone(), Some(green) == primary));
                }
                Note::Sent { service, what } => {
                    let worker = &self.workers[who];
                    if worker.observes {
                        heard.broken.push(("S12", format!("{what}, though the rule in force only observes")));
                    }
                    let view = worker.engine.service(service, at).and_then(|view| view.deployment);
                    let newest = worker.seen.get(service).and_then(|seen| seen.newest.clone());
                    let newer = |(view, (at, newest)): &(DeploymentView, (Timestamp, TaskSetId))| {
                        *at > view.began_at && *newest != view.green
                    };
                    if let Some((view, (_, newest))) = view.zip(newest).filter(newer) {
                        let what = format!("{what}, though {newest} came after {}", view.green);
                        heard.broken.push(("superseded", what));
                    }
                }
                _ => {}
            }
        }
        heard.notes = notes;
        heard
    }

    /// Writes whose answer has come, or whose effect a read shows.
    fn told(&self, input: &Input) -> Vec<TrafficRuleId> {
        let unheard = self.judged.unheard.iter();
        let told: Vec<_> = match input {
            Input::Done(id, Outcome::Applied) => unheard.filter(|(_, (sent, _))| sent == id).collect(),
            Input::Observed(_, Ok(seen)) => {
                let reads = |id: &TrafficRuleId| seen.traffic.rules().iter().find(|rule| rule.id == *id);
                let shows = |id: &TrafficRuleId, found: &[Action]| reads(id).is_some_and(|rule| rule.actions != *found);
                unheard.filter(|(id, (_, found))| shows(id, found)).collect()
            }
            _ => Vec::new(),
        };
        told.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// What is wrong with evidence of failed tasks, by what the world knows.
    fn doubt(&mut self, service: &ServiceKey, at: Timestamp, evidence: &Evidence) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.schedule.sound && self.schedule.setup.versions.len() == 1 {
            found.push(("S7", "a sound green is rolled back for failed tasks".to_owned()));
        }
        // By a clock that is behind, all looks younger by as much.
        let behind = self.now.since(at);
        let rule = &self.schedule.rules.rules[0];
        // What adds up over the whole deployment needs one failure that is fresh, and two in all.
        let (news, bound, wanted) = if evidence.gate == Gate::ExcessFailures {
            (evidence.to, rule.watch.freshness, 2.0)
        } else {
            // The failures of a green that had come up are remembered while blue is heard; never beyond what is fresh.
            let remembered = rule.stability.window + self.schedule.hearing();
            (evidence.from, remembered.min(rule.watch.freshness), evidence.threshold)
        };
        if self.now.since(news) > bound + behind {
            found.push(("S7", format!("decided on evidence of {news:?}")));
        }
        let failed = self.failed_tasks(service, &evidence.task_set);
        if f64::from(failed) < wanted {
            found.push(("S4", format!("{failed} tasks have failed, and the rule wants {wanted}")));
        }
        found
    }

    /// How many tasks of a task set ended in a way that speaks against the version, by ECS's own word.
    fn failed_tasks(&mut self, service: &ServiceKey, task_set: &TaskSetId) -> u32 {
        let cluster = service.cluster.to_string();
        let list = Call::ListTasks {
            cluster: cluster.clone(),
            service: Some(service.service.to_string()),
            started_by: None,
            stopped: true,
        };
        let Ok(Reply::Arns(tasks)) = self.world.call(list) else { return 0 };
        let mut failed = 0;
        for tasks in tasks.chunks(100) {
            let describe = Call::DescribeTasks { cluster: cluster.clone(), tasks: tasks.to_vec() };
            let Ok(Reply::Tasks { tasks, .. }) = self.world.call(describe) else { continue };
            let speaks = |code: &Option<String>, reason: &Option<String>| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                classify(&text(code), &text(reason)) == StopClass::Version
            };
            let ours = tasks.iter().filter(|task| task.started_by == task_set.as_str());
            let count = ours.filter(|task| speaks(&task.stop_code, &task.stopped_reason)).count();
            failed += u32::try_from(count).unwrap();
        }
        failed
    }

    /// It is durable.
    pub(super) fn heed(&mut self, who: usize, heard: Heard) {
        for (invariant, what) in heard.broken {
            self.broken(invariant, what);
        }
        self.judged.unheard.retain(|rule, _| !heard.told.contains(rule));
        if let Some((green, _)) = &heard.decided {
            self.ended.decided = true;
            if !self.judged.decided.insert(green.clone()) {
                self.broken("S5", "a second decision on one task set".to_owned());
            }
        }
        let mut opened_or_closed = false;
        for note in &heard.notes {
            match note {
                Note::Decided { service, incident, held: false, .. } => {
                    self.judged.open.insert(incident.clone(), (service.clone(), heard.at));
                    if heard.decided.as_ref().is_some_and(|(_, was_primary)| *was_primary) {
                        self.judged.promotes.insert(service.clone());
                    } else {
                        self.judged.promotes.remove(service);
                    }
                    opened_or_closed = true;
                }
                Note::Closed { service, incident, outcome: IncidentOutcome::Open, .. } => {
                    self.judged.open.insert(incident.clone(), (service.clone(), heard.at));
                    opened_or_closed = true;
                }
                Note::Closed { service, incident, outcome, why } if *outcome != IncidentOutcome::Escalated => {
                    if why.contains("does not exist") && !self.judged.recreated && self.world.has_service(service) {
                        self.broken("L1", format!("{incident} is dropped: {why}, and {service} does"));
                    }
                    self.judged.open.remove(incident);
                    opened_or_closed = true;
                }
                Note::DeploymentBegan { service, green, blue } => {
                    self.judged.begun_at = self.now;
                    let seen = self.last_seen.get(service).map(|(.., seen)| seen);
                    let wanted =
                        seen.and_then(|seen| tags::rollback(&seen.tags)).is_some_and(|(wanted, _)| wanted == *green);
                    let mut sets = seen.iter().flat_map(|seen| &seen.task_sets);
                    let is_primary = sets.any(|set| set.id == *green && set.status == TaskSetStatus::Primary);
                    if self.judged.graduated.contains(green) && is_primary && !wanted && !self.judged.amnesia {
                        self.broken("S7", format!("{green} has taken over, and is put on trial against {blue}"));
                    }
                }
                Note::Graduated { green, .. } => {
                    self.judged.graduated.insert(green.clone());
                }
                Note::Sent { service, what } => {
                    what.hash(&mut self.hasher);
                    if what.starts_with("UpdateServicePrimaryTaskSet") && !self.judged.promotes.contains(service) {
                        self.broken("superseded", "green was promoted after the decision, and demoted".to_owned());
                    }
                }
                _ => {}
            }
            if self.story.is_some()
                && let Some((_, said)) = taskset_guardian::telemetry::narrate(note)
            {
                self.tell_of(who, "guardian", || said);
            }
        }
        if opened_or_closed {
            self.judged.news = true;
        }
    }

    /// What `rollback_oldest_open_seconds` is made of tells the truth: the same rollbacks are open as were decided and not
    /// ended, each since its decision, also after a restart and on another worker.
    pub(super) fn check_open(&mut self, who: usize) {
        self.judged.news = false;
        let keys: Vec<_> = self.schedule.keys().cloned().collect();
        for key in keys {
            let view = self.workers[who].engine.service(&key, self.now).and_then(|view| view.deployment);
            let shown = view.and_then(|deployment| deployment.open_since);
            let said = self.judged.open.values().filter(|(service, _)| *service == key).map(|(_, at)| *at).min();
            if shown != said {
                self.broken("L1", format!("{key}: shown as open since {shown:?}, decided and not ended {said:?}"));
            }
        }
    }

    /// What a commit without an answer came to, only the journal knows.
    pub(super) fn believe_open(&mut self, who: usize) {
        self.judged.open.clear();
        for key in self.schedule.keys().cloned().collect::<Vec<_>>() {
            let view = self.workers[who].engine.service(&key, self.now).and_then(|view| view.deployment);
            let open = view.and_then(|deployment| deployment.incident.zip(deployment.open_since));
            if let Some((incident, since)) = open {
                // Whether green was PRIMARY at the decision nobody has heard.
                self.judged.promotes.insert(key.clone());
                self.judged.open.insert(incident, (key, since));
            }
        }
    }

    /// An announcement is durable.
    pub(super) fn owe(&mut self, announcement: &Announcement) {
        let Announcement { id, kind, incident, .. } = announcement;
        let owed = Owed { kind: *kind, incident: incident.clone(), since: self.now, times: 0, unanswered: 0 };
        self.judged.owed.entry(id.clone()).or_insert(owed);
    }

    /// One was delivered.
    pub(super) fn note_delivery(&mut self, announcement: &Announcement, unanswered: bool) {
        let terms = self.judged.terms;
        let Some(owed) = self.judged.owed.get_mut(&announcement.id) else { return };
        owed.times += 1;
        if owed.times > 1 + owed.unanswered + terms {
            let what = format!("{:?} is said {} times", owed.kind, owed.times);
            self.broken("L5", what);
        } else {
            owed.unanswered += u32::from(unanswered);
        }
    }

    pub(super) fn broken(&mut self, invariant: &str, what: String) {
        self.broken_or_race(invariant, what, false);
    }

    pub(super) fn broken_or_race(&mut self, invariant: &str, what: String, race: bool) {
        self.tell("BROKEN", || format!("{invariant}: {what}{}", if race { " (race)" } else { "" }));
        self.ended.broken.push(Broken { invariant: invariant.to_owned(), what, race });
    }

    /// What the world found. A change in the world between our read and our call is a race that AWS leaves open.
    pub(super) fn notice_violations(&mut self) {
        if self.world.violations().len() == self.judged.violations {
            return;
        }
        let sickened = self.world.last_sickness().unwrap_or(self.began);
        self.judged.disturbed_at = self.judged.disturbed_at.max(sickened);
        let found: Vec<_> = self.world.violations()[self.judged.violations..].to_vec();
        self.judged.violations += found.len();
        for violation in found {
            let judged = &self.judged;
            let Basis { read_at, read_after, green_was_dead, .. } = judged.rests;
            let revived = violation.invariant == "S3" && green_was_dead;
            let disturbed = judged.disturbed_at > read_at || judged.disturbed_after > read_after;
            let unseen = disturbed || revived;
            let drain = self.schedule.setup.drain;
            let stray = |at: Timestamp| violation.invariant == "S13" && self.now.since(at) < drain;
            if self.judged.stray_at.is_some_and(stray) {
                self.broken_or_race(violation.invariant, violation.what, true);
                continue;
            }
            let race = unseen && self.now.since(read_at) <= LONGEST_BLINDNESS;
            if matches!(violation.invariant, "S10" | "S11") && judged.amnesia {
                // Nobody can remember what is lost.
                let promise = format!("{} with the journal lost", violation.invariant);
                self.broken_or_race(&promise, violation.what, true);
                continue;
            }
            // When the re-assert was made a worker knows that got its answer.
            let is_late = judged.late_answers && violation.what.contains("after the re-assert");
            let race = race || (violation.invariant == "S10" && (judged.unseen_dispute || is_late));
            self.broken_or_race(violation.invariant, violation.what, race);
        }
    }

    /// Liveness: some minutes after the faults have stopped.
    pub(super) fn judge_the_end(&mut self) {
        self.listen();
        self.notice_violations();
        let waiting = self.waiting();
        if waiting > FEW {
            self.broken("L3", format!("{waiting} messages are left in the queue"));
        }
        let Some(who) = self.leader() else {
            return self.broken("L4", "nobody acts at the end".to_owned());
        };
        if self.workers[who].pending.is_none() {
            self.check_open(who);
        }
        self.judge_announcements();
        let braked = self.workers[who].engine.status(self.now).fleet_brake;
        if let Some(why) = braked.filter(|_| !self.schedule.rest.is_zero()) {
            self.broken("S11", format!("nothing is wrong any more, and {why}"));
        }
        for key in self.schedule.keys().cloned().collect::<Vec<_>>() {
            self.judge_service(who, &key);
        }
    }

    fn judge_announcements(&mut self) {
        let since = self.now.minus(SAID_WITHIN);
        let silent = self.judged.owed.values().filter(|owed| owed.times == 0 && owed.since < since);
        let silent: BTreeSet<_> = silent.map(|owed| owed.kind.detail_type()).collect();
        if !silent.is_empty() {
            self.broken("L5", format!("never said: {silent:?}"));
        }
        let calls = |incident: &IncidentId| {
            let owed = self.judged.owed.values();
            let calls = owed.filter(|owed| owed.kind == AnnouncementKind::RollbackEscalated);
            calls.filter(|owed| owed.incident.as_ref() == Some(incident)).count()
        };
        let most = self.judged.owed.values().filter_map(|owed| owed.incident.as_ref()).map(calls).max();
        if let Some(most) = most.filter(|most| *most > STEPS) {
            self.broken("L5", format!("a person is called {most} times for one rollback of {STEPS} steps"));
        }
    }

    fn judge_service(&mut self, who: usize, key: &ServiceKey) {
        let is_protected = self.protected().contains(key);
        let Some(view) = self.workers[who].engine.service(key, self.now) else {
            if is_protected {
                self.broken("L2", format!("{key} is not known at the end"));
            }
            return;
        };
        if !is_protected && self.world.has_service(key) {
            self.broken("S12", format!("no rule protects {key} any more, and it is guarded at the end"));
        }
        let Some(deployment) = view.deployment else { return };
        if let Some(since) = deployment.open_since
            && deployment.phase != Phase::Escalated
        {
            let open = self.now.since(since);
            if open > FINISH + self.schedule.setup.drain {
                let open = humane(open);
                self.broken("L1", format!("open for {open}, in {}: {}", deployment.phase, deployment.why));
            }
        }
        let mut calls = self.judged.owed.values().filter(|owed| owed.kind == AnnouncementKind::RollbackEscalated);
        let since = self.now.minus(SAID_WITHIN);
        let called = calls.any(|owed| (owed.times > 0 || owed.since >= since) && owed.incident == deployment.incident);
        if deployment.phase == Phase::Escalated && !called && !self.judged.amnesia {
            self.broken("L5", "escalated, and nobody was called".to_owned());
        }
        // A green that no rollback was begun of, and that lives as the newest beside another, is somebody's to watch.
        // What was read long ago may be gone with its service.
        let lately = self.now.minus(2 * self.schedule.sweep);
        let seen = self.last_seen.get(key).filter(|(at, ..)| *at >= lately).map(|(.., service)| service);
        let living = || seen.iter().flat_map(|seen| &seen.task_sets).filter(|set| set.is_living());
        let newest = living().max_by_key(|set| (set.created_at, set.id.clone()));
        let is_green = newest.is_some_and(|newest| newest.id == deployment.green) && living().count() > 1;
        let is_left = deployment.phase == Phase::Superseded && deployment.incident.is_none() && is_green;
        if is_left && self.world.has_service(key) {
            self.broken("L2", format!("{} lives, and is not watched: {}", deployment.green, deployment.why));
        }
        let judged = matches!(deployment.phase, Phase::Watching);
        // A blue that fails as well may keep green from being blamed.
        let Schedule { bad, may_be_left, setup, .. } = &self.schedule;
        let bad = *bad && !may_be_left && setup.versions.len() == 1;
        if bad && judged && deployment.green_failures >= 6 {
            self.broken(
                "L2",
                format!("{} failures, and nothing is decided: {}", deployment.green_failures, deployment.why),
            );
        }
    }
}

/// An announcement that the bus did not take is tried again within a minute.
const SAID_WITHIN: Duration = Duration::from_mins(2);

/// A person is called at most once for each step of the plan.
const STEPS: usize = 8;
