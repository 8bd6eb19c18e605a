//! Reads: in which order they go out, as the executor has it, and what they show.

use std::time::Duration;

use taskset_guardian::engine::Input;
use taskset_guardian::model::{
    Ask, CallError, ErrorClass, Observation, Role, ServiceKey, TaskSet, TaskSetStatus, Urgency,
};
use taskset_guardian::sandbox::direct;
use taskset_guardian::sandbox::world::Act;

use super::worker::{Incoming, Read, Seen};
use super::{Asked, Basis, LAG, Moment, Own, Simulation};

/// A replica does not know a service for so long at most: less than any lags.
const UNKNOWN: Duration = Duration::from_millis(4_500);

/// A read that waits for room, or is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    id: u64,
    urgency: Urgency,
    /// What it will ask, or what is to be asked after it.
    ask: Option<Ask>,
}

impl Simulation {
    /// A read is wanted. It takes the place of one that is less urgent, whose answer nobody gets any more.
    pub(super) fn want_read(&mut self, who: usize, ask: Ask) {
        let (key, urgency, id) = (ask.service.clone(), ask.urgency, self.planned);
        let reads = &mut self.workers[who].reads;
        if let Some(read) = reads.get_mut(&key).filter(|read| read.urgency >= urgency) {
            read.ask = Some(ask);
            return;
        }
        reads.insert(key.clone(), UnderWay { id, urgency, ask: Some(ask) });
        let crowded = self.chance(self.schedule.faults.crowd);
        let wait = if crowded { self.within(Duration::from_secs(8)) } else { Duration::ZERO };
        self.plan_own(who, wait, Own::BeginRead(key, id));
    }

    fn under_way(&mut self, who: usize, key: &ServiceKey, id: u64) -> Option<&mut UnderWay> {
        self.workers[who].reads.get_mut(key).filter(|read| read.id == id)
    }

    /// It has room.
    pub(super) fn begin_read(&mut self, who: usize, key: &ServiceKey, id: u64) {
        let Some(ask) = self.under_way(who, key, id).and_then(|read| read.ask.take()) else { return };
        let (latency, clock) = (self.latency(), self.workers[who].clock);
        let sent = Moment { wall: clock.wall(self.now), elapsed: clock.monotonic(self.now) };
        self.plan_own(who, latency, Own::Read(ask, id, sent));
    }

    /// It reaches AWS.
    pub(super) fn read(&mut self, who: usize, ask: &Ask, id: u64, sent: Moment) {
        let key = ask.service.clone();
        if ask.twice && self.chance(self.schedule.faults.meddling) {
            self.meddle(&key, &Act::SetPrimary(Role::Green));
        }
        // The second call is not answered by what was.
        let again = ask.twice.then_some(self.now);
        let mut shows = self.world.read_shows();
        let answer = match self.refusal(who, "observe", self.schedule.faults.reads_denied) {
            Some(error) => Err(error),
            None if self.asks_one_that_does_not_know() => Err(self.fault(who, "observe", ErrorClass::NotFound)),
            None => direct::observe(&mut self.world, ask, sent.wall).map(|mut seen| {
                let fresh = (self.now, shows, seen.service.clone());
                let old = self.last_seen.insert(key.clone(), fresh).filter(|(at, ..)| self.now.since(*at) <= LAG);
                if let Some((_, showed, old)) = old
                    && self.chance(self.schedule.faults.stale_read)
                {
                    seen.service.task_sets = old.task_sets;
                    shows = shows.min(showed);
                }
                if self.asks_one_that_lags() {
                    let knows = self.now.minus(LAG);
                    seen.service.task_sets.retain(|set| set.created_at <= knows);
                    shows = shows.min(knows);
                }
                Box::new(seen)
            }),
        };
        // A worker mostly waits for answers, so that is where it is mostly caught.
        if self.chance(3.0 * self.schedule.faults.pause) {
            self.pause(who);
        }
        let latency = self.latency();
        let asked =
            Asked { id, shows, again: again.unwrap_or(shows), after: self.judged.happened, began: sent.elapsed };
        self.plan_own(who, latency, Own::Answer(key, answer, asked));
    }

    /// A replica that does not know yet what was created a moment ago, though another one has shown it.
    fn asks_one_that_lags(&mut self) -> bool {
        let rate = self.schedule.faults.stale_read;
        rate > 0.0 && !self.calm() && self.replicas.f64() < rate / 2.0
    }

    /// A replica that does not know the service: once, and for less long than any lags.
    fn asks_one_that_does_not_know(&mut self) -> bool {
        let rate = self.schedule.faults.missing;
        if rate <= 0.0 || self.calm() {
            return false;
        }
        if self.unknown_from.is_none() && self.replicas.f64() < rate {
            self.unknown_from = Some(self.now);
        }
        self.unknown_from.is_some_and(|from| self.now.since(from) < UNKNOWN)
    }

    pub(super) fn answered(
        &mut self,
        who: usize,
        key: ServiceKey,
        answer: Result<Box<Observation>, CallError>,
        asked: Asked,
    ) {
        let Asked { id, shows: read_at, again: again_at, after: read_after, began } = asked;
        self.look_at_clock(who);
        if !self.workers[who].acting {
            return;
        }
        let Some(read) = self.under_way(who, &key, id) else { return };
        if read.ask.is_some() {
            self.plan_own(who, Duration::ZERO, Own::BeginRead(key.clone(), id));
        } else {
            self.workers[who].reads.remove(&key);
        }
        let shown = answer.as_ref().ok().map(|seen| {
            let living = seen.service.task_sets.iter().filter(|set| set.is_living());
            let primary = seen.service.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary);
            let newest = living.max_by_key(|set| (set.created_at, set.id.clone()));
            let serving = |set: &TaskSet| match &set.target_group {
                Some(group) => seen.targets.get(group).map_or(0, |counts| counts.healthy),
                None => set.running,
            };
            let green_was_dead = newest.is_none_or(|green| serving(green) == 0);
            Seen {
                basis: Basis { read_at, again_at, read_after, green_was_dead },
                newest: newest.map(|set| (set.created_at, set.id.clone())),
                primary: primary.map(|set| set.id.clone()),
            }
        });
        let read = Some(Read { began, shown });
        self.take(who, Incoming { input: Input::Observed(key, answer), read, receipt: None });
    }
}
