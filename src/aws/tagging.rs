//! Tags of services: found by Resource Groups Tagging, written by ECS.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ecs::types::Tag;
use aws_sdk_resourcegroupstagging::types::{ResourceTagMapping, TagFilter};

use super::calls::{Calls, Operation};
use crate::model::{CallError, ErrorClass, ServiceKey, Tags, tags};
use crate::ports::{Registrations, Tagger};

const DESCRIBE_SERVICES: Operation = Operation::new("ecs", "DescribeServices");
const GET_RESOURCES: Operation = Operation::new("tag", "GetResources");
const TAG_RESOURCE: Operation = Operation::new("ecs", "TagResource");
const UNTAG_RESOURCE: Operation = Operation::new("ecs", "UntagResource");

/// Pages of services that have the tag, of 100 each.
const PAGES: usize = 200;

/// The tags of one account and Region.
#[derive(Clone)]
pub struct Tagging {
    index: aws_sdk_resourcegroupstagging::Client,
    ecs: aws_sdk_ecs::Client,
    calls: Calls,
}

impl Tagging {
    pub(super) fn new(config: &SdkConfig, ecs: aws_sdk_ecs::Client, calls: Calls) -> Self {
        Self { index: aws_sdk_resourcegroupstagging::Client::new(config), ecs, calls }
    }

    /// Tags are written by ARN, and which partition and account a service is in only AWS knows.
    ///
    /// # Errors
    /// `NotFound` when there is no such service.
    pub async fn arn(&self, service: &ServiceKey) -> Result<String, CallError> {
        let call = self.ecs.describe_services().cluster(&*service.cluster).services(&*service.service);
        let answer = self.calls.send(DESCRIBE_SERVICES, call.send()).await?;
        let found = answer.services().first().and_then(|service| service.service_arn());
        found
            .map(str::to_owned)
            .ok_or_else(|| DESCRIBE_SERVICES.error(ErrorClass::NotFound, format!("there is no service {service}")))
    }
}

#[async_trait]
impl Registrations for Tagging {
    async fn registered(&self) -> Result<BTreeMap<ServiceKey, Arc<str>>, CallError> {
        let filter = TagFilter::builder().key(tags::RULE).build();
        let mut found = BTreeMap::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let call = self
                .index
                .get_resources()
                .resource_type_filters("ecs:service")
                .tag_filters(filter.clone())
                .resources_per_page(100)
                .set_pagination_token(token);
            let page = self.calls.send(GET_RESOURCES, call.send()).await?;
            found.extend(page.resource_tag_mapping_list().iter().filter_map(registration));
            token = page.pagination_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(found);
            }
        }
        tracing::warn!(found = found.len(), "More services have the tag {} than are read", tags::RULE);
        Ok(found)
    }
}

fn registration(resource: &ResourceTagMapping) -> Option<(ServiceKey, Arc<str>)> {
    let said = resource.tags().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect();
    Some((ServiceKey::of_arn(resource.resource_arn()?)?, Arc::from(tags::rule(&said)?)))
}

#[async_trait]
impl Tagger for Tagging {
    async fn tag(&self, service: &ServiceKey, tags: &Tags) -> Result<(), CallError> {
        let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
        let tags = tags.iter().map(tag).collect();
        let call = self.ecs.tag_resource().resource_arn(self.arn(service).await?).set_tags(Some(tags));
        self.calls.send(TAG_RESOURCE, call.send()).await.map(drop)
    }

    async fn untag(&self, service: &ServiceKey, keys: &[&str]) -> Result<(), CallError> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let call = self.ecs.untag_resource().resource_arn(self.arn(service).await?).set_tag_keys(Some(keys));
        self.calls.send(UNTAG_RESOURCE, call.send()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(arn: &str, rule: &str) -> ResourceTagMapping {
        use aws_sdk_resourcegroupstagging::types::Tag;
        let tag = |key, value| Tag::builder().key(key).value(value).build().ok();
        let tags = [tag("team", "web"), tag(tags::RULE, rule)].into_iter().flatten().collect();
        ResourceTagMapping::builder().resource_arn(arn).set_tags(Some(tags)).build()
    }

    #[test]
    fn only_a_service_with_a_cluster_and_a_rule_is_registered() {
        let found = registration(&tagged("arn:aws-cn:ecs:cn-north-1:1:service/prod/web", " strict "));
        assert_eq!(found, Some((ServiceKey::new("prod", "web"), Arc::from("strict"))));
        for (arn, rule) in [
            ("arn:aws:ecs:eu-west-1:1:service/web", "strict"),
            ("arn:aws:ecs:eu-west-1:1:cluster/prod", "strict"),
            ("arn:aws:s3:::service/prod/web", "strict"),
            ("arn:aws:ecs:eu-west-1:1:service/prod/web", " "),
            ("nonsense", "strict"),
        ] {
            assert_eq!(registration(&tagged(arn, rule)), None, "{arn}");
        }
    }
}
