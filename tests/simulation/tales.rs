//! What comes on top of some schedules: what chance alone hardly ever puts together in half a minute. Drawn apart, so that
//! nothing else of a schedule changes.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use taskset_guardian::model::{Contract, Role, tags};
use taskset_guardian::rules::{DeletePolicy, Mode, Rule};
use taskset_guardian::sandbox::world::{
    Act, BalancerKind, Crash, ListenerKind, Reaction, RouteSetup, TagValue, Version,
};

use crate::schedule::{NEW, Schedule};

/// Of a service whose rules are undone one by one.
const ROUTES: usize = 3;

const NEXT: &str = "checkout:89";

/// The fleet brake forgets a breach within ten minutes.
const FORGOTTEN: Duration = Duration::from_mins(11);

/// Adds a tale to one schedule in a few.
pub(crate) fn tell(rng: &mut Rng, schedule: &mut Schedule) {
    if rng.u8(0..4) == 0 {
        // Deployments end within the schedule, and evidence grows old.
        let bake = secs(rng, 5..=20);
        amend(schedule, |rule| rule.watch.bake = bake);
    }
    if rng.u8(0..8) == 0 {
        amend(schedule, |rule| rule.watch.freshness = rule.watch.freshness.min(rule.stability.window));
    }
    let recovers = !schedule.others.is_empty() && rng.u8(0..16) == 0;
    match rng.u8(0..24) {
        0 => next_is_taken_back(rng, schedule),
        1 => order(rng, schedule),
        2 => other_rules(rng, schedule),
        3 => one_rule_after_the_other(rng, schedule),
        4 => contract(rng, schedule),
        5 => registered(rng, schedule),
        6 => schedule.faults.missing = rng.f64() * 0.2,
        _ => {}
    }
    if recovers {
        // After whatever the other tale has people do.
        fleet_recovers(schedule);
    }
}

fn secs(rng: &mut Rng, seconds: RangeInclusive<u64>) -> Duration {
    Duration::from_secs(rng.u64(seconds))
}

/// Another rule than was drawn.
fn amend(schedule: &mut Schedule, change: impl FnMut(&mut Rule)) {
    schedule.rules.rules.iter_mut().map(Arc::make_mut).for_each(change);
}

/// Somebody does this to every service, at any time that the schedule has.
fn script(schedule: &mut Schedule, acts: &[(Duration, Act)]) {
    for service in &mut schedule.setup.services {
        service.script.extend(acts.iter().cloned());
        service.script.sort_by_key(|(at, _)| *at);
    }
    let last = acts.iter().map(|(at, _)| *at).max().unwrap_or_default();
    schedule.calm_at = schedule.calm_at.max(last + Duration::from_secs(1));
}

/// Green takes over; the deployment after it is begun and taken back.
fn next_is_taken_back(rng: &mut Rng, schedule: &mut Schedule) {
    let bake = secs(rng, 5..=15);
    amend(schedule, |rule| rule.watch.bake = bake);
    for service in &mut schedule.setup.services {
        service.spare_group = true;
    }
    let promoted = secs(rng, 5..=10);
    let created = promoted + bake + secs(rng, 0..=25);
    let gone = created + secs(rng, 1..=20);
    let mut acts = vec![
        (promoted, Act::SetWeights { blue: 0, green: 100 }),
        (promoted, Act::SetPrimary(Role::Green)),
        (created, Act::CreateTaskSet { version: NEXT.to_owned(), scale: 100.0 }),
        (gone, Act::DeleteTaskSet(Role::Green)),
    ];
    if rng.bool() {
        acts.push((created + secs(rng, 0..=10), Act::ForwardTo(Role::Green)));
    }
    script(schedule, &acts);
}

/// A person wants green rolled back, whatever became of it, and mostly thinks better of it.
fn order(rng: &mut Rng, schedule: &mut Schedule) {
    let at = secs(rng, 3..=60);
    let mut acts = vec![(at, Act::Tag(tags::ROLLBACK.to_owned(), TagValue::Green))];
    if rng.u8(0..3) > 0 {
        acts.push((at + secs(rng, 1..=30), Act::Untag(tags::ROLLBACK.to_owned())));
    }
    script(schedule, &acts);
}

/// Somebody turns the guardian off, for a while or for good, or takes the service out of its hands.
fn other_rules(rng: &mut Rng, schedule: &mut Schedule) {
    let first = schedule.rules.clone();
    let with = |change: fn(&mut Rule)| {
        let mut rules = first.clone();
        rules.rules.iter_mut().map(Arc::make_mut).for_each(change);
        rules
    };
    let (at, until) = (secs(rng, 3..=40), secs(rng, 1..=30));
    schedule.reloads = match rng.u8(0..3) {
        0 => vec![(at, with(|rule| rule.mode = Mode::Observe))],
        1 => vec![(at, with(|rule| rule.mode = Mode::Observe)), (at + until, first)],
        _ => vec![(at, with(|rule| rule.protect.clear()))],
    };
    schedule.calm_at = schedule.calm_at.max(at + until + Duration::from_secs(1));
}

/// Green is bad, and infrastructure code gives it its traffic back after the rollback, each rule at a time of its own.
fn one_rule_after_the_other(rng: &mut Rng, schedule: &mut Schedule) {
    let crash = Crash { after: secs(rng, 1..=5), exit_code: 1, out_of_memory: false };
    schedule.setup.versions.insert(NEW.to_owned(), Version { crash: Some(crash), ..Version::default() });
    (schedule.bad, schedule.sound) = (true, false);
    for service in &mut schedule.setup.services {
        let has_rules = service.balancer == BalancerKind::Application;
        let more = (service.routes.len()..ROUTES).filter(|_| has_rules).map(|n| RouteSetup {
            listener: ListenerKind::Https,
            path: Some(format!("/more/{n}/*")),
            ..RouteSetup::default()
        });
        service.routes.extend(more);
        let first = rng.usize(0..ROUTES);
        let undone = |rng: &mut Rng, after, route| Reaction {
            to: "ModifyRule".to_owned(),
            after: secs(rng, after),
            act: Act::ApplyWeights { route: Some(route % ROUTES), blue: rng.u32(0..=50), green: rng.u32(1..=100) },
            times: 1,
        };
        service.reactions = vec![undone(rng, 1..=5, first), undone(rng, 30..=120, first + 1)];
        // Who promotes or deletes in between ends it all.
        service.script.retain(|(_, act)| matches!(act, Act::CreateTaskSet { version, .. } if version == NEW));
        service.script.push((secs(rng, 5..=10), Act::SetWeights { blue: 50, green: 50 }));
    }
    if rng.bool() {
        amend(schedule, |rule| rule.rollback.delete = DeletePolicy::Keep);
    }
    schedule.calm_at += secs(rng, 60..=120);
}

/// People take all of it back by hand, and the fleet is well again.
fn fleet_recovers(schedule: &mut Schedule) {
    let calm_at = schedule.calm_at;
    script(schedule, &[(calm_at, Act::DeleteTaskSet(Role::Green))]);
    schedule.rest = FORGOTTEN;
}

/// Green's pipeline allows less than everything.
fn contract(rng: &mut Rng, schedule: &mut Schedule) {
    let contracts = [Contract::WeightsOnly, Contract::Page, Contract::Off];
    let word = rng.choice(&contracts).map_or("", |contract| contract.as_str());
    if let Some(version) = schedule.setup.versions.get_mut(NEW) {
        version.tags.insert(tags::CONTRACT.to_owned(), word.to_owned());
    }
    schedule.may_be_left = word != Contract::WeightsOnly.as_str();
}

/// The service is protected by its own tag alone, and perhaps not for long.
fn registered(rng: &mut Rng, schedule: &mut Schedule) {
    amend(schedule, |rule| rule.protect.clear());
    for service in &mut schedule.setup.services {
        service.tags.insert(tags::RULE.to_owned(), "all".to_owned());
    }
    if rng.bool() {
        let at = secs(rng, 3..=60);
        script(schedule, &[(at, Act::Untag(tags::RULE.to_owned()))]);
    }
}
