//! From an AWS connection to a worker's ports: the same for `run` and `demo`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::aws::Aws;
use crate::ports::{Actuator, Clock, Journal};
use crate::rules::{self, RuleFile, RuleSet};
use crate::runtime::{Observer, Ports, RuleLoader, blocking_loader, decoder, rule_files};

/// What differs between the verbs.
pub(super) struct Wiring {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) rules: RuleLoader,
    pub(super) queue_url: String,
    /// How long a receive waits for messages. It is never cut short, so an orderly end takes as long.
    pub(super) wait: Duration,
    pub(super) event_bus: String,
    pub(super) dry_run: bool,
}

/// All ports of a worker on this connection. A dry run gets nothing to write with.
pub(super) fn ports(aws: &Aws, wiring: Wiring) -> Ports {
    let Wiring { clock, journal, rules, queue_url, wait, event_bus, dry_run } = wiring;
    let fleet = Arc::new(aws.fleet());
    let balancers = Arc::new(aws.load_balancers());
    let observer = Observer::new(fleet.clone(), balancers.clone(), Arc::new(aws.alarms()), clock.clone());
    let observer = observer.with_metrics(Arc::new(aws.alarms()));
    let observer = observer.with_lanes(|urgency| (Arc::new(fleet.at(urgency)), Arc::new(balancers.at(urgency))));
    let actuator = || -> Arc<dyn Actuator> { Arc::new(aws.actuator()) };
    Ports {
        clock,
        inbox: Arc::new(aws.inbox(&queue_url, wait)),
        fleet,
        registrations: Arc::new(aws.tagging()),
        observer: Arc::new(observer),
        actuator: (!dry_run).then(actuator),
        announcer: Some(Arc::new(aws.announcer(Some(&event_bus)))),
        journal,
        lease: None,
        decode: decoder(),
        rules,
    }
}

/// Rules out of a directory, read anew at every call.
pub(super) fn rules_in(directory: PathBuf) -> RuleLoader {
    blocking_loader(move || {
        let files = rule_files::read_rule_files(&directory).map_err(|error| error.to_string())?;
        compiled(&files, &format!("no *.toml in {}", directory.display()))
    })
}

/// The same rules for ever.
pub(super) fn rules_of(files: Vec<RuleFile>) -> RuleLoader {
    blocking_loader(move || compiled(&files, "no rule file was handed over"))
}

/// Without a file nothing would be protected, and what is under way would be dropped. Nobody wants that of a running worker: a
/// volume is not mounted, or the files are just being replaced.
fn compiled(files: &[RuleFile], if_none: &str) -> Result<RuleSet, String> {
    if files.is_empty() {
        return Err(if_none.to_owned());
    }
    rules::compile(files).map_err(|diagnostics| diagnostics.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_rule_files_are_bad_rules_wherever_they_come_from() {
        let handed_over = rules_of(Vec::new())().await;
        assert_eq!(handed_over, Err("no rule file was handed over".to_owned()));
        let absent = rules_in(PathBuf::from("no/such/folder"))().await;
        assert!(absent.is_err_and(|error| error.starts_with("no/such/folder: ")));
    }
}
