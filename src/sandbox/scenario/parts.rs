//! What scenarios are put together from: a rule file, a service with its alarms, versions and deployers' habits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Expected, Scenario};
use crate::model::{AlarmValue, Role, ServiceKey};
use crate::sandbox::world::{
    Act, AlarmMetric, AlarmSetup, BalancerKind, Breaks, Crash, Reaction, ServiceSetup, Setup, Trouble, Version, When,
};

/// The version that the deployer brings out; the one before is `checkout:87`.
pub(super) const NEW: &str = "checkout:88";

/// A rule file, as far as scenarios differ in it.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) service: &'static str,
    pub(super) mode: &'static str,
    pub(super) steady_within: &'static str,
    pub(super) after_promotion: &'static str,
    /// As written in the file.
    pub(super) http_5xx_ratio: &'static str,
}

pub(super) const RULES: Rules = Rules {
    service: "checkout",
    mode: "enforce",
    steady_within: "5m",
    after_promotion: "rollback",
    http_5xx_ratio: "\"off\"",
};

impl Rules {
    pub(super) fn toml(self) -> String {
        let Self { service, mode, steady_within, after_promotion, http_5xx_ratio } = self;
        format!(
            r#"name = "demo"
mode = "{mode}"

[[protect]]
cluster = "prod"
service = "{service}"

[watch]
bake = "2m"
freshness = "5m"

[stability]
window = "5m"
task_failures = 3
steady_within = "{steady_within}"
unhealthy_targets = 0.5

[errors]
alarm_for = "0s"
http_5xx_ratio = {http_5xx_ratio}

[compare]
against_blue = true

[rollback]
drain = "15s"
blue_capacity = "restore"
after_promotion = "{after_promotion}"
delete = "force"
"#
        )
    }
}

/// A rollback of prod/checkout by an ordinary rule, within four minutes.
pub(super) fn plain() -> Scenario {
    Scenario {
        name: "",
        title: "",
        story: "",
        expected: Expected::RolledBack,
        rules_toml: RULES.toml(),
        setup: |_| Setup::default(),
        limit: Duration::from_mins(4),
        afterwards: Duration::ZERO,
        dry_run: false,
        killed_after_changes: false,
    }
}

/// prod/checkout with an alarm on each target group, and what its deployer does.
pub(super) fn deployment(version: Version, script: Vec<(Duration, Act)>) -> Setup {
    deployment_of(version, ServiceSetup { script, ..ServiceSetup::default() })
}

/// The same for a service in another shape.
pub(super) fn deployment_of(version: Version, service: ServiceSetup) -> Setup {
    let alarm = |role: Role| AlarmSetup {
        name: format!("checkout-{}-5xx", role.as_str()),
        service: service.key.clone(),
        watches: Some(role),
        metric: AlarmMetric::Target5xx,
        period: 60,
        evaluation_periods: 1,
        threshold: 10.0,
        initial: AlarmValue::Ok,
    };
    // Only an Application Load Balancer counts 5xx.
    let counts = service.balancer == BalancerKind::Application;
    let alarms = if counts { vec![alarm(Role::Blue), alarm(Role::Green)] } else { Vec::new() };
    let versions = BTreeMap::from([(NEW.to_owned(), version)]);
    Setup { alarms, services: vec![service], versions, ..Setup::default() }
}

/// prod/checkout whose people also react to what the guardian does.
pub(super) fn reacting(version: Version, to: &str, after: u64, act: Act, times: u32) -> Setup {
    let mut setup = deployment(version, early_canary());
    let reaction = Reaction { to: to.to_owned(), after: Duration::from_secs(after), act, times };
    setup.services.iter_mut().for_each(|service| service.reactions.push(reaction.clone()));
    setup
}

pub(super) fn crash(after: u64) -> Crash {
    Crash { after: Duration::from_secs(after), exit_code: 1, out_of_memory: false }
}

/// Tasks crash as soon as they run.
pub(super) fn crashing() -> Version {
    Version { crash: Some(crash(3)), ..Version::default() }
}

/// Two of the four tasks crash as soon as they run, and so do those that replace them. The others serve.
pub(super) fn half_crashing() -> Version {
    let trouble = Trouble { crash: Some(crash(3)), ..Trouble::default() };
    let breaks = Breaks { when: When::Aged(Duration::ZERO), tasks: Some(2), trouble };
    Version { breaks: Some(breaks), ..Version::default() }
}

/// All is well until this second of the world; from then on so many of the tasks are in trouble.
pub(super) fn sound_until(second: u64, tasks: Option<u32>, trouble: Trouble) -> Version {
    let when = When::At(Duration::from_secs(second));
    Version { breaks: Some(Breaks { when, tasks, trouble }), ..Version::default() }
}

/// Sound for so long, then crashing.
pub(super) fn crashing_from(second: u64, tasks: Option<u32>) -> Version {
    sound_until(second, tasks, Trouble { crash: Some(crash(4)), ..Trouble::default() })
}

pub(super) fn at(second: u64, act: Act) -> (Duration, Act) {
    (Duration::from_secs(second), act)
}

pub(super) fn create() -> (Duration, Act) {
    at(10, Act::CreateTaskSet { version: NEW.to_owned(), scale: 100.0 })
}

pub(super) fn weights(second: u64, blue: u32, green: u32) -> (Duration, Act) {
    at(second, Act::SetWeights { blue, green })
}

/// A deployer who does not wait until green is steady.
pub(super) fn early_canary() -> Vec<(Duration, Act)> {
    vec![create(), weights(14, 90, 10)]
}

/// A deployer who does, or at least long enough for it.
pub(super) fn canary() -> Vec<(Duration, Act)> {
    vec![create(), weights(45, 90, 10)]
}

/// A careful one, who comes to the end.
pub(super) fn rollout() -> Vec<(Duration, Act)> {
    let promote = at(115, Act::SetPrimary(Role::Green));
    vec![create(), weights(45, 90, 10), weights(75, 50, 50), weights(105, 0, 100), promote]
}

/// One in a hurry: green is PRIMARY with all the traffic a minute after its creation.
pub(super) fn quick_rollout() -> Vec<(Duration, Act)> {
    vec![create(), weights(45, 50, 50), weights(60, 0, 100), at(65, Act::SetPrimary(Role::Green))]
}

pub(super) fn named(service: &str) -> ServiceKey {
    ServiceKey::new("prod", service)
}
