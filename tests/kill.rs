//! The real binary, killed with SIGKILL at every effect of the longest rollback there is, which are its mutating calls and
//! its announcements: just before the effect is applied, just after with the answer never sent, and at the first read that
//! follows. The next worker goes on. Real time, short delays.
//!
//! `KILL_ROUNDS=50` repeats every death so often, each time in another world, and tells how long the next worker takes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may panic, and tell why")]

#[path = "support/changes.rs"]
mod changes;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use taskset_guardian::model::{Role, ServiceKey, Split, Timestamp};
use taskset_guardian::ports::Clock as _;
use taskset_guardian::runtime::SystemClock;
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, Reply, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use taskset_guardian::sandbox::world::{Act, Crash, Delivery, RouteSetup, ServiceSetup, Setup, Timing, Version, World};

use changes::change;
use figures::Figures;
use process::{Process, eventually, free_address, guardian};

const QUEUE: &str = "http://sandbox/queue/taskset-guardian";
const RULE: &str = r#"
name = "all"

[[protect]]
cluster = "prod"
service = "*"

[stability]
task_failures = 2

[rollback]
drain = "1s"
"#;

/// As many workers at a time as two cores can start without slowing each other down to a crawl.
const AT_A_TIME: usize = if cfg!(debug_assertions) { 8 } else { 32 };

/// Two rules and a default action shift, one pair comes back.
const CHANGES: [&str; 7] = [
    "DeleteTaskSet",
    "ModifyListener",
    "ModifyRule",
    "ModifyRule",
    "ModifyRule",
    "UpdateServicePrimaryTaskSet",
    "UpdateTaskSet",
];

const ANNOUNCEMENTS: [&str; 2] = ["Rollback Started", "Rollback Completed"];

/// What the worker does to the world. The two kinds are counted apart, because those that go out together arrive in any
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Change(usize),
    Announcement(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Before,
    After,
    NextRead,
}

/// When the worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Death {
    moment: Moment,
    effect: Effect,
}

/// All deaths of one round.
fn deaths() -> impl Iterator<Item = Death> {
    let changes = (1..=CHANGES.len()).map(Effect::Change);
    let announcements = (1..=ANNOUNCEMENTS.len()).map(Effect::Announcement);
    let all = changes
        .chain(announcements)
        .flat_map(|effect| [Moment::Before, Moment::After, Moment::NextRead].map(|moment| Death { moment, effect }));
    // Whoever has heard the answer to the last one has nothing left to do.
    let last = Death { moment: Moment::NextRead, effect: Effect::Announcement(ANNOUNCEMENTS.len()) };
    all.filter(move |death| *death != last)
}

/// What the next worker does, counted from its start.
struct Revival {
    began: Instant,
    /// Its first call of AWS, but for receives: a long poll that the dead one had begun may still end.
    first_call: Option<Duration>,
    /// Its first change; or its announcement, where that is what was interrupted or nothing else was left to be done.
    next_step: Option<Duration>,
}

/// A world that counts the effects and kills whoever makes a certain one.
struct Deadly {
    world: World,
    death: Option<Death>,
    /// The worker that is to die, until it is dead.
    victim: Option<u32>,
    revival: Option<Revival>,
    changes: usize,
    announcements: usize,
    applied: Vec<&'static str>,
    /// Effects since the last read of the service.
    unread: Vec<Effect>,
}

impl Deadly {
    /// Whether the worker dies of this; it is dead then.
    fn kills(&mut self, moment: Moment, effect: Effect) -> bool {
        if self.death != Some(Death { moment, effect }) {
            return false;
        }
        let Some(victim) = self.victim.take() else { return false };
        assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
        true
    }

    fn count(&mut self, call: &Call) -> Option<Effect> {
        if change(call).is_some() {
            self.changes += 1;
            return Some(Effect::Change(self.changes));
        }
        if matches!(call, Call::PutEvents { .. }) {
            self.announcements += 1;
            return Some(Effect::Announcement(self.announcements));
        }
        None
    }

    /// A read dies of any effect since the one before: those that go out together have no read between them.
    fn kills_at_read(&mut self, call: &Call) -> bool {
        if !matches!(call, Call::DescribeServices { .. }) {
            return false;
        }
        let unread = std::mem::take(&mut self.unread);
        unread.into_iter().any(|effect| self.kills(Moment::NextRead, effect))
    }

    fn revive(&mut self) {
        self.revival = Some(Revival { began: Instant::now(), first_call: None, next_step: None });
    }
}

impl Backend for Deadly {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let nobody_hears = Err(ApiError::client("ServerException", "nobody hears this"));
        if let Some(revival) = self.revival.as_mut().filter(|_| !matches!(call, Call::ReceiveMessage { .. })) {
            revival.first_call.get_or_insert_with(|| revival.began.elapsed());
        }
        let operation = change(&call);
        let Some(effect) = self.count(&call) else {
            return if self.kills_at_read(&call) { nobody_hears } else { self.world.call(call) };
        };
        if self.kills(Moment::Before, effect) {
            return nobody_hears;
        }
        let announcing = self.death.is_some_and(|death| matches!(death.effect, Effect::Announcement(_)));
        let is_step = operation.is_some() || announcing || self.applied.len() == CHANGES.len();
        let reply = self.world.call(call)?;
        self.applied.extend(operation);
        self.unread.push(effect);
        if let Some(revival) = self.revival.as_mut().filter(|_| is_step) {
            revival.next_step.get_or_insert_with(|| revival.began.elapsed());
        }
        self.kills(Moment::After, effect);
        Ok(reply)
    }
}

impl Timed for Deadly {
    fn advance_to(&mut self, now: Timestamp) {
        self.world.advance_to(now);
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn next_event(&self) -> Option<Timestamp> {
        self.world.next_event()
    }
}

/// A deployer has made green PRIMARY, given it all the traffic and scaled blue down to one task; then green crashes. Its
/// traffic comes through a sticky rule with a login, a plain rule, and the listener's default action.
fn everything() -> Setup {
    let crash = Crash { after: Duration::from_secs(3), exit_code: 1, out_of_memory: false };
    let failing = Version { start_delay: Duration::from_secs(1), crash: Some(crash), ..Version::default() };
    let sound = Version { start_delay: Duration::from_secs(1), ..Version::default() };
    let soon = Duration::from_millis;
    let script = vec![
        (soon(500), Act::CreateTaskSet { version: "checkout:88".to_owned(), scale: 100.0 }),
        (soon(600), Act::SetWeights { blue: 0, green: 100 }),
        (soon(700), Act::SetPrimary(Role::Green)),
        (soon(800), Act::ScaleTaskSet(Role::Blue, 25.0)),
    ];
    let login = RouteSetup {
        path: Some("/a".to_owned()),
        sticky: Some(Duration::from_mins(10)),
        authenticated: true,
        ..RouteSetup::default()
    };
    let routes = vec![login, RouteSetup::default(), RouteSetup { path: None, ..RouteSetup::default() }];
    Setup {
        services: vec![ServiceSetup { script, routes, ..ServiceSetup::default() }],
        versions: BTreeMap::from([("checkout:88".to_owned(), failing), ("checkout:87".to_owned(), sound)]),
        timing: Timing {
            deregistration: Duration::from_secs(1),
            health_interval: Duration::from_millis(500),
            ..Timing::default()
        },
        delivery: Delivery { delay: (Duration::from_millis(20), Duration::from_millis(100)), ..Delivery::default() },
        visibility: Duration::from_secs(1),
        drain: Duration::from_secs(1),
        ..Setup::default()
    }
}

fn worker(directory: &Path, endpoint: &str) -> Process {
    let mut command = guardian(directory, endpoint);
    command.args(["run", "--queue-url", QUEUE, "--rules", "rules", "--state", "guardian.redb"]).args([
        "--listen",
        &free_address(),
        "--sweep",
        "2s",
    ]);
    Process::start("worker", command, directory)
}

/// One rollback, with or without a death in the middle; every round has a world and a network of its own.
#[derive(Clone, Copy, Debug)]
struct Play {
    death: Option<Death>,
    round: u64,
}

impl Play {
    /// On a runtime of its own. Returns what the next worker did, if there was one.
    fn run(self) -> Option<Revival> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.played())
    }

    async fn played(self) -> Option<Revival> {
        let Self { death, round } = self;
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("rules")).unwrap();
        std::fs::write(directory.path().join("rules/all.toml"), RULE).unwrap();
        let deadly = Deadly {
            world: World::new(7 + round, SystemClock.now(), everything()),
            death,
            victim: None,
            revival: None,
            changes: 0,
            announcements: 0,
            applied: Vec::new(),
            unread: Vec::new(),
        };
        let wire = WireSettings { latency: Duration::from_millis(round % 4), ..WireSettings::default() };
        let sandbox = Sandbox::start(deadly, Arc::new(SystemClock), wire).await.unwrap();
        let mut first = worker(directory.path(), &sandbox.endpoint());
        sandbox.with(|deadly| deadly.victim = Some(first.id()));

        let mut second = None;
        eventually(&format!("the rollback is completed, {self:?}"), async || {
            if second.is_none() && first.ended().is_some() {
                sandbox.with(Deadly::revive);
                second = Some(worker(directory.path(), &sandbox.endpoint()));
            }
            sandbox.with(|deadly| {
                // Also when the first one had said so: nobody told it that it was heard.
                let went_on = death.is_none() || deadly.revival.as_ref().is_some_and(|next| next.next_step.is_some());
                (went_on && said(&deadly.world).iter().any(|(what, _)| what == "Rollback Completed")).then_some(())
            })
        })
        .await;
        assert_eq!(second.is_some(), death.is_some(), "{self:?}: who was to die did, and nobody else");
        sandbox.with(|deadly| {
            self.judge(deadly);
            deadly.revival.take()
        })
    }

    /// Every change was applied once, every announcement made, all for one decision; and the world is as it should be.
    fn judge(self, deadly: &mut Deadly) {
        let mut applied = std::mem::take(&mut deadly.applied);
        applied.sort_unstable();
        assert_eq!(applied, CHANGES, "{self:?}");
        let lost = self.death.is_some_and(|d| d.moment == Moment::Before && matches!(d.effect, Effect::Change(_)));
        assert_eq!(deadly.changes, CHANGES.len() + usize::from(lost), "{self:?}: what was applied was not tried again");

        let said = said(&deadly.world);
        let incidents: BTreeSet<_> = said.iter().map(|(_, detail)| detail["incident"].to_string()).collect();
        assert_eq!(incidents.len(), 1, "{self:?}: one decision: {incidents:?}");
        for announcement in ANNOUNCEMENTS {
            let times = said.iter().filter(|(what, _)| what == announcement).count();
            // Again only when the answer was lost with the worker.
            let most = if self.death.is_some() { 2 } else { 1 };
            assert!((1..=most).contains(&times), "{self:?}: {announcement} {times} times");
        }
        let others = said.iter().filter(|(what, _)| !ANNOUNCEMENTS.contains(&what.as_str()));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&(String, Value)>::new(), "{self:?}");

        let violations: Vec<_> = deadly.world.violations().iter().map(ToString::to_string).collect();
        assert_eq!(violations, [] as [String; 0], "{self:?}");
        let key = ServiceKey::new("prod", "checkout");
        let split = deadly.world.traffic(&key).unwrap().configured;
        assert_eq!(split, Split { blue: 1.0, green: 0.0 }, "{self:?}");
        let describe = Call::DescribeServices { cluster: "prod".to_owned(), services: vec!["checkout".to_owned()] };
        let Reply::Services { services, .. } = deadly.world.call(describe).unwrap() else { panic!() };
        let living: Vec<_> = services[0].task_sets.iter().filter(|set| set.status != "DRAINING").collect();
        assert_eq!(living.len(), 1, "{self:?}");
        assert_eq!((living[0].status.as_str(), living[0].scale), ("PRIMARY", 100.0), "{self:?}");
    }
}

/// `detail-type` and detail of all that was announced.
fn said(world: &World) -> Vec<(String, Value)> {
    let all = world.announcements().iter();
    all.map(|event| (event.detail_type.clone(), serde_json::from_str(&event.detail).unwrap())).collect()
}

#[test]
fn killed_at_any_effect_the_next_worker_finishes_the_rollback_and_every_change_is_applied_once() {
    assert!(Play { death: None, round: 0 }.run().is_none());

    let rounds = u64::try_from(figures::set("KILL_ROUNDS", 1)).unwrap();
    let plays = (0..rounds).flat_map(|round| deaths().map(move |death| Play { death: Some(death), round }));
    let (plays, revivals) = (Mutex::new(plays), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let next = || plays.lock().unwrap().next();
                while let Some(play) = next() {
                    let revival = play.run().unwrap();
                    revivals.lock().unwrap().push((play.death.unwrap(), revival));
                }
            });
        }
    });
    tell(&revivals.into_inner().unwrap());
}

/// A worker that is killed before an effect leaves one behind that is due at once. After it the next one may have to wait
/// for the world: for blue's new tasks, for the drain, for green's end.
fn tell(revivals: &[(Death, Revival)]) {
    for (moment, name) in [
        (Moment::Before, "killed before an effect"),
        (Moment::After, "killed after it"),
        (Moment::NextRead, "killed at the next read"),
    ] {
        let those = || revivals.iter().filter(move |(death, _)| death.moment == moment);
        let first_call: Figures = those().filter_map(|(_, revival)| revival.first_call).collect();
        let next_step: Figures = those().filter_map(|(_, revival)| revival.next_step).collect();
        eprintln!("{name:23}: start to first call {first_call}");
        eprintln!("{name:23}: start to next step  {next_step}");
    }
}
