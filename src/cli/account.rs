//! What the verbs that speak to AWS share: the connection, the service that is meant, the rules to go by.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use super::text::printable;
use crate::aws::{Aws, Endpoint};
use crate::model::{Ask, CallError, Observation, Sample, SampleAsk, ServiceKey, tags};
use crate::ports::Recorder;
use crate::rules::{self, Rule, RuleSet};
use crate::runtime::rule_files::read_rule_files;
use crate::runtime::{Observer, SystemClock};

/// The service that a verb is about.
#[derive(Clone, Debug, Args)]
pub(super) struct ServiceArg {
    /// CLUSTER/SERVICE, or CLUSTER SERVICE, or the service's ARN
    #[arg(value_name = "SERVICE", num_args = 1..=2, required = true)]
    names: Vec<String>,
}

impl ServiceArg {
    /// From the words of a command line.
    pub(super) fn of(names: &[String]) -> Self {
        Self { names: names.to_vec() }
    }

    /// The service that is meant.
    ///
    /// # Errors
    /// When it is not one service of one cluster.
    pub(super) fn key(&self) -> anyhow::Result<ServiceKey> {
        let key = match self.names.as_slice() {
            [arn] if arn.starts_with("arn:") => {
                let no_service =
                    "no ARN of an ECS service in a cluster, as in arn:aws:ecs:REGION:ACCOUNT:service/CLUSTER/SERVICE";
                ServiceKey::of_arn(arn).with_context(|| format!("{arn} is {no_service}"))?
            }
            [both] => match both.split_once('/') {
                Some((cluster, service)) => ServiceKey::new(cluster, service),
                None => bail!("which cluster is {both:?} in? Write CLUSTER/{both}"),
            },
            [cluster, service] => ServiceKey::new(cluster, service),
            _ => bail!("name one service, as CLUSTER/SERVICE"),
        };
        let is_name = |name: &str| {
            (1..=255).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if is_name(&key.cluster) && is_name(&key.service) {
            Ok(key)
        } else {
            bail!("{key} is no service: names have letters, digits, hyphens and underscores; write CLUSTER/SERVICE")
        }
    }
}

impl ServiceArg {
    /// The same, once it is sure that an ARN's account and Region are those that are reached here.
    ///
    /// # Errors
    /// When they are not, or AWS can't say.
    pub(super) async fn reached(&self, aws: &Aws) -> anyhow::Result<ServiceKey> {
        let key = self.key()?;
        if let [arn] = self.names.as_slice()
            && arn.starts_with("arn:")
        {
            let found = aws.tagging().arn(&key).await?;
            if found != *arn {
                bail!(
                    "{arn} is not what is reached here, which is {found}: set AWS_REGION and the credentials accordingly"
                );
            }
        }
        Ok(key)
    }
}

/// Nobody counts what a person at a terminal does.
struct Uncounted;

impl Recorder for Uncounted {
    fn call(&self, _: &'static str, _: &'static str, _: &'static str, _: Duration) {}
}

/// As the usual AWS environment says.
pub(super) async fn connect() -> Result<Aws, CallError> {
    Aws::connect(&Endpoint::Environment, Arc::new(Uncounted)).await
}

/// Everything that the guardian would read of a service before it acts, and all alarms.
pub(super) async fn observe(aws: &Aws, service: &ServiceKey) -> Result<Observation, CallError> {
    observer(aws).observe(&Ask::examination(service.clone())).await
}

/// The same with the metrics of the traffic, and how long one round of calls takes: a worker, too, knows what to ask for when it
/// has read a service before.
pub(super) async fn observe_timed(aws: &Aws, service: &ServiceKey) -> Result<(Observation, Duration), CallError> {
    let (observer, ask) = (observer(aws), Ask::examination(service.clone()));
    let first = observer.observe(&ask).await?;
    let groups: BTreeSet<_> = first.service.task_sets.iter().filter_map(|set| set.target_group.clone()).collect();
    let from = Sample::minute_of(first.read_at.minus(TRAFFIC));
    let samples = Some(SampleAsk { groups, from }).filter(|wanted| !wanted.groups.is_empty());
    let begun = Instant::now();
    let second = observer.observe(&Ask { find_alarms: false, samples: samples.clone(), ..ask }).await?;
    let took = begun.elapsed();
    let ask = Ask { samples, ..first.ask };
    Ok((Observation { ask, samples: second.samples, ..first }, took))
}

/// The traffic that is looked at, only to see whether it can be.
const TRAFFIC: Duration = Duration::from_mins(5);

fn observer(aws: &Aws) -> Observer {
    let (alarms, clock) = (Arc::new(aws.alarms()), Arc::new(SystemClock));
    Observer::new(Arc::new(aws.fleet()), Arc::new(aws.load_balancers()), alarms.clone(), clock)
        .with_metrics(alarms)
        .with_all_alarms()
}

/// The rules of a directory. Absent, there are none.
pub(super) fn rules_in(directory: &Path) -> anyhow::Result<RuleSet> {
    if !directory.exists() {
        return Ok(RuleSet::default());
    }
    let files = read_rule_files(directory)?;
    rules::compile(&files).map_err(|errors| anyhow::anyhow!("the rules in {} are bad:\n{errors}", directory.display()))
}

/// The rule that protects a service with these tags. One whose tag names no rule that is known here is only observed, as
/// the worker would.
pub(super) fn rule_for(rules: &RuleSet, service: &ServiceKey, said: &tags::Tags) -> Option<Arc<Rule>> {
    let named = tags::rule(said);
    rules.protecting(service, named).cloned().or_else(|| named.map(|name| Arc::new(Rule::observing(name))))
}

/// A line of the narration. Nobody may read it; the result says it too.
pub(super) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&text.to_string()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(names: &[&str]) -> anyhow::Result<ServiceKey> {
        ServiceArg { names: names.iter().map(|name| (*name).to_owned()).collect() }.key()
    }

    #[test]
    fn a_service_can_be_named_in_three_ways() {
        let web = ServiceKey::new("prod", "web");
        for names in [&["prod/web"][..], &["prod", "web"], &["arn:aws:ecs:eu-west-1:1:service/prod/web"]] {
            assert_eq!(key(names).unwrap(), web);
        }
        assert!(key(&["web"]).unwrap_err().to_string().contains("CLUSTER/web"));
        for wrong in [
            &["prod/web/1"][..],
            &["prod/"],
            &["arn:aws:ecs:eu-west-1:1:cluster/prod"],
            &["prod", "w*b"],
            &["arn:aws:ecs:eu-west-1:1:service/prod/a b"],
        ] {
            assert!(key(wrong).is_err(), "{wrong:?}");
        }
    }
}
