//! The sweep: which services exist that a rule protects, by its globs or by their tag? Level-triggered, so that a lost
//! event costs a sweep at most.
//!
//! Names without globs need no listing. A listing that fails never takes a service out of protection: what was known of
//! that cluster stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::health::{Health, Part};
use super::turn::Incoming;
use crate::engine::Input;
use crate::model::{CallError, ErrorClass, ServiceKey, tags};
use crate::ports::{Clock, Fleet, Inbox, Registrations};
use crate::rules::{Protect, RuleSet};
use crate::telemetry::Metrics;

/// Lists protected services at a steady pace.
pub(crate) struct Sweep {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) fleet: Arc<dyn Fleet>,
    pub(crate) registrations: Arc<dyn Registrations>,
    /// Tags may not be searched, which was said.
    pub(crate) denied: bool,
    /// Clusters that rules name and that do not exist, which was said.
    pub(crate) missing: BTreeSet<Arc<str>>,
    pub(crate) control: mpsc::Sender<Incoming>,
    pub(crate) in_force: watch::Receiver<Arc<RuleSet>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
    pub(crate) every: Duration,
    /// Services beyond these are another worker's, if there are any of these.
    pub(crate) only: Vec<Protect>,
    /// What is protected now; at first, what the journal knew.
    pub(crate) known: BTreeSet<ServiceKey>,
    pub(crate) gauge: Gauge,
}

/// Shows how deep the queue is.
pub(crate) struct Gauge {
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) metrics: Arc<Metrics>,
    /// It is not known, which was said.
    pub(crate) unknown: bool,
}

impl Gauge {
    /// Nothing depends on it but metrics, so that it can't be read is said once and is no fault.
    async fn read(&mut self) {
        let depth = self.inbox.depth().await;
        let is_news = std::mem::replace(&mut self.unknown, depth.is_err()) != depth.is_err();
        if let Err(error) = &depth
            && is_news
        {
            tracing::warn!("The queue's depth is not known: {error}");
        }
        self.metrics.queue_depth(depth.ok());
    }
}

/// What a listing found, and what it could not.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that exist, as far as could be listed.
    pub found: BTreeSet<ServiceKey>,
    /// Clusters whose services could not be listed.
    pub unlisted: BTreeMap<Arc<str>, CallError>,
    /// Why there may be clusters that nobody has looked at.
    pub clusters_unknown: Option<CallError>,
}

impl Sweep {
    /// At once, then at every interval and whenever the rules change; until shutdown, or until the loop is gone.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        // The journal may be from before another worker got its part of the fleet.
        let known = std::mem::take(&mut self.known).into_iter();
        let (ours, others) = known.partition::<BTreeSet<_>, _>(|key| is_ours(&self.only, key));
        self.known = ours;
        if !others.is_empty() && self.control.send(Input::LetGo(others).into()).await.is_err() {
            return;
        }
        loop {
            let rules = Arc::clone(&self.in_force.borrow_and_update());
            let begun = self.clock.elapsed();
            let (listing, registered) = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                found = async {
                    let listed = list(&*self.fleet, &rules, &self.only, &self.known);
                    tokio::join!(listed, self.registrations.registered())
                } => found,
            };
            let Listing { found, unlisted, clusters_unknown } = listing;
            let (missing, unlisted): (BTreeMap<_, _>, BTreeMap<_, _>) =
                unlisted.into_iter().partition(|(_, error)| error.class == ErrorClass::NotFound);
            self.say_missing(missing);
            let unlisted = unlisted.into_iter().map(|(cluster, error)| CallError {
                message: format!("cluster {cluster}: {}", error.message),
                ..error
            });
            let mut errors: Vec<_> = clusters_unknown.into_iter().chain(unlisted).collect();
            let mut registered = self.registered(registered, &mut errors);
            registered.retain(|key, _| is_ours(&self.only, key));
            self.known.clone_from(&found);
            if self.control.send(Input::Swept(found).into()).await.is_err()
                || self.control.send(Input::Registered(registered).into()).await.is_err()
            {
                return;
            }
            self.metrics.sweep(self.clock.elapsed().saturating_sub(begun));
            self.say(&errors);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // An error means that nobody reloads any more: shutdown is near.
                changed = self.in_force.changed() => if changed.is_err() { return },
                ((), ()) = async { tokio::join!(self.clock.sleep(self.every), self.gauge.read()) } => {}
            }
        }
    }

    /// What the tags say. Who protects by rule files alone need not allow the search: that is said once and is no fault.
    fn registered(
        &mut self,
        found: Result<BTreeMap<ServiceKey, Arc<str>>, CallError>,
        errors: &mut Vec<CallError>,
    ) -> BTreeMap<ServiceKey, Arc<str>> {
        let denied = matches!(&found, Err(error) if error.class == ErrorClass::Denied);
        let is_news = std::mem::replace(&mut self.denied, denied) != denied;
        match found {
            Ok(found) => return found,
            Err(error) if denied && is_news => {
                let tag = tags::RULE;
                tracing::warn!("Services with the tag {tag} are not found: allow tag:GetResources ({error})");
            }
            Err(_) if denied => {}
            Err(error) => errors.push(error),
        }
        BTreeMap::new()
    }

    /// A cluster that does not exist has no services to protect, now. Said once, and no fault: the others are protected all the same.
    fn say_missing(&mut self, found: BTreeMap<Arc<str>, CallError>) {
        let missing: BTreeSet<_> = found.into_keys().collect();
        for cluster in missing.difference(&self.missing) {
            tracing::warn!(%cluster, "A rule names a cluster that does not exist");
        }
        self.missing = missing;
    }

    fn say(&self, errors: &[CallError]) {
        let state = match errors {
            [] => Ok(()),
            [first, ..] => Err(format!("{first}; services known from before stay protected")),
        };
        if self.health.set(Part::Sweep, state)
            && let Some(first) = errors.first()
        {
            tracing::warn!(count = errors.len(), "Services could not be listed, those known stay protected: {first}");
        }
    }
}

/// Without any `only`, all are.
fn is_ours(only: &[Protect], key: &ServiceKey) -> bool {
    only.is_empty() || only.iter().any(|ours| ours.matches(key))
}

/// The services that the rules' globs match, and one of `only`, if there are any of these: clusters of others are not
/// listed, which need not be allowed either. `known` are those of before: they stay where a listing fails.
pub async fn list(fleet: &dyn Fleet, rules: &RuleSet, only: &[Protect], known: &BTreeSet<ServiceKey>) -> Listing {
    let mut listing = Listing::default();
    let entries: Vec<&Protect> = rules.rules.iter().flat_map(|rule| &rule.protect).collect();
    let mut clusters: BTreeSet<Arc<str>> = BTreeSet::new();
    for entry in &entries {
        match (is_glob(&entry.cluster), is_glob(&entry.service)) {
            (false, false) => {
                listing.found.insert(ServiceKey::new(&entry.cluster, &entry.service));
            }
            (false, true) => {
                clusters.insert(Arc::clone(&entry.cluster));
            }
            (true, _) => {}
        }
    }
    if entries.iter().any(|entry| is_glob(&entry.cluster)) {
        let wanted = |cluster: &str| entries.iter().any(|entry| entry.reaches(cluster));
        match fleet.clusters().await {
            Ok(all) => clusters.extend(all.into_iter().filter(|cluster| wanted(cluster))),
            Err(error) => {
                // The clusters that were known are listed still; only new ones are missed.
                clusters.extend(known.iter().map(|key| Arc::clone(&key.cluster)).filter(|name| wanted(name)));
                listing.clusters_unknown = Some(error);
            }
        }
    }
    clusters.retain(|cluster| only.is_empty() || only.iter().any(|ours| ours.reaches(cluster)));
    let protects = |key: &ServiceKey| entries.iter().any(|entry| entry.matches(key));
    for cluster in clusters {
        match fleet.services(&cluster).await {
            Ok(services) => {
                let keys = services.iter().map(|service| ServiceKey::new(&cluster, service));
                listing.found.extend(keys.filter(protects));
            }
            Err(error) => {
                let kept = known.iter().filter(|key| key.cluster == cluster && protects(key));
                listing.found.extend(kept.cloned());
                listing.unlisted.insert(cluster, error);
            }
        }
    }
    listing.found.retain(|key| is_ours(only, key));
    listing
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}
