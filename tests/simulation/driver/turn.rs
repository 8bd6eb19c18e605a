//! The worker: takes an input, makes it durable, lets go of what follows, dies and comes back.

use std::time::Duration;

use taskset_guardian::engine::{Effect, Engine, Input};
use taskset_guardian::model::{Timestamp, humane};

use super::{Decided, RECEIVE, ShellMutant, Simulation, Todo};
use crate::schedule;

impl Simulation {
    /// One input, as the turn takes it: stepped, made durable, and only then let go.
    pub(super) fn step(&mut self, input: Input) {
        let pause = self.schedule.faults.pause;
        if self.chance(pause) {
            self.pause();
        }
        let step = self.engine.step(self.now, input.clone());
        if self.chance(self.schedule.faults.crash_before_commit) && step.changed {
            return self.crash("before the commit");
        }
        let forgets = self.without == Some(ShellMutant::NoDurableIntent) && matches!(input, Input::Observed(..));
        if step.changed && !forgets {
            self.journal.push((self.now, input));
        }
        for note in &step.report.notes {
            self.heed(note);
        }
        if self.chance(self.schedule.faults.crash_after_commit) {
            return self.crash("after the commit");
        }
        if self.journal.len() >= 40 {
            self.checkpoint = Some(self.engine.checkpoint().unwrap());
            self.journal.clear();
        }
        for effect in step.effects {
            match effect {
                Effect::Observe(ask) => {
                    let latency = self.latency();
                    self.plan(latency, Todo::Read(ask, self.now));
                }
                Effect::Write { id, write, expires_at, .. } => {
                    let latency = self.latency() / 10;
                    let decided = Decided { id, write, read_at: self.read_at, read_after: self.read_after };
                    self.plan(latency, Todo::Send(decided, expires_at));
                }
                Effect::Announce(id, announcement) => {
                    let latency = self.latency();
                    self.plan(latency, Todo::Announce(id, announcement));
                }
                Effect::Keep(_) => {}
            }
        }
        let deadline = self.engine.next_deadline();
        if let Some(at) = deadline.filter(|at| self.ticks_at.is_none_or(|planned| *at < planned)) {
            self.ticks_at = Some(at);
            self.plan(at.since(self.now), Todo::Tick);
        }
    }

    pub(super) fn pause(&mut self) {
        let most = u64::try_from(self.schedule.faults.paused.as_millis()).unwrap();
        let paused = Duration::from_millis(self.rng.u64(0..=most));
        self.paused_until = self.now.plus(paused);
        self.tell("fault", || format!("the process stands still for {}", humane(paused)));
        if self.rng.bool() {
            let act = schedule::meddling(&mut self.rng);
            self.plan(paused / 2, Todo::Meddle(act));
        }
    }

    pub(super) fn crash(&mut self, when: &str) {
        self.ended.crashes += 1;
        self.tell("fault", || format!("the process dies {when}"));
        self.alive = false;
        self.ticks_at = None;
        self.agenda.retain(|_, todo| !todo.is_ours());
        let most = u64::try_from(self.schedule.faults.dead.as_millis()).unwrap();
        let dead = Duration::from_millis(self.rng.u64(0..=most));
        self.plan(dead, Todo::Restart);
    }

    /// The next process: the checkpoint, the entries after it, through their bytes.
    pub(super) fn restart(&mut self) {
        let mut engine = match &self.checkpoint {
            Some(bytes) => Engine::restore(self.settings, bytes).unwrap(),
            None => Engine::new(self.settings),
        };
        for entry in &self.journal {
            let bytes = serde_json::to_vec(entry).unwrap();
            let (at, input): (Timestamp, Input) = serde_json::from_slice(&bytes).unwrap();
            let _ = engine.step(at, input);
        }
        self.engine = engine;
        self.alive = true;
        self.paused_until = self.now;
        self.step(Input::Restarted);
        if self.alive {
            self.step(Input::Rules(self.schedule.rules.clone()));
        }
        if self.alive {
            self.plan(Duration::ZERO, Todo::Sweep);
            self.plan(RECEIVE, Todo::Receive);
        }
    }
}
