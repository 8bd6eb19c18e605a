//! `ECS Service Action`: ECS says something about a service. The payload names no task set: only a reason to look.

use serde::Deserialize;

use super::envelope::{Envelope, Text, ecs_arn, name, part};
use super::{DecodeError, IgnoredReason, NoSignal};
use crate::model::{Arn, Fact, ServiceAction, ServiceKey, Signal, cut};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detail<'a> {
    #[serde(borrow)]
    event_name: Text<'a>,
    #[serde(borrow)]
    cluster_arn: Option<Text<'a>>,
    /// One of these two names the service where the resources don't, depending on the action.
    #[serde(borrow)]
    service_name: Option<Text<'a>>,
    #[serde(borrow)]
    service: Option<Text<'a>>,
}

pub(super) fn read(event: &Envelope<'_, Detail<'_>>) -> Result<Signal, NoSignal> {
    let detail = &event.detail;
    let said = detail.service_name.as_ref().or(detail.service.as_ref()).map(Text::as_str);
    let said_arn = said.and_then(Arn::parse).filter(|arn| arn.service == "ecs" && arn.resource.starts_with("service/"));
    let arn = event.resource("ecs", "service/").or(said_arn);
    let named = arn.and_then(|arn| arn.resource.strip_prefix("service/"));
    // `<cluster>/<name>`, and `<name>` alone where the long format was never switched on.
    let (long_cluster, service) = match named.and_then(|named| named.split_once('/')) {
        Some((cluster, service)) => (Some(cluster), Some(service)),
        None => (None, named.or(said)),
    };
    let said_cluster = match &detail.cluster_arn {
        Some(text) => Some(ecs_arn("detail.clusterArn", text.as_str(), "cluster")?),
        None => None,
    };
    let (cluster_arn, short_cluster) = said_cluster.unzip();

    let is_elsewhere = [arn, cluster_arn].iter().flatten().any(|arn| !event.covers(arn));
    let differs = matches!((long_cluster, short_cluster), (Some(one), Some(other)) if one != other);
    if is_elsewhere || differs {
        return Err(IgnoredReason::Contradictory.into());
    }
    let cluster = long_cluster.or(short_cluster);
    let cluster = cluster.ok_or_else(|| DecodeError::at("detail.clusterArn", "no cluster is named"))?;
    let service = service.ok_or_else(|| DecodeError::at("resources", "no service is named"))?;
    let action = ServiceAction {
        service: ServiceKey::new(part("detail.clusterArn", cluster)?, part("resources", service)?),
        name: cut(name("detail.eventName", detail.event_name.as_str())?, 64),
    };
    Ok(event.signal(event.at()?, Fact::Service(action))?)
}
