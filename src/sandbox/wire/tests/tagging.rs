//! Tags: written by ECS, found by Resource Groups Tagging.

use aws_sdk_ecs::types::Tag;
use aws_sdk_resourcegroupstagging::types::TagFilter;

use super::*;

const ARN: &str = "arn:aws:ecs:eu-west-1:111122223333:service/prod/web";

#[tokio::test]
async fn tags_are_written_and_removed() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_ecs, rig);
    rig.answer(Reply::Empty);
    let tag = Tag::builder().key("guardian:rule").value("web").build();
    client.tag_resource().resource_arn(ARN).tags(tag).send().await.unwrap();
    let tags = pairs(&[("guardian:rule", "web")]);
    assert_eq!(rig.call().await, Call::TagResource { resource: text(ARN), tags });

    rig.answer(Reply::Empty);
    client.untag_resource().resource_arn(ARN).tag_keys("guardian:rule").send().await.unwrap();
    assert_eq!(rig.call().await, Call::UntagResource { resource: text(ARN), keys: texts(&["guardian:rule"]) });

    rig.refuse("ServiceNotFoundException", 400);
    let error = client.untag_resource().resource_arn(ARN).tag_keys("a").send().await.unwrap_err();
    assert!(error.as_service_error().unwrap().is_resource_not_found_exception() || error.raw_response().is_some());
}

#[tokio::test]
async fn services_are_found_by_a_tag() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_resourcegroupstagging, rig);
    let tags = pairs(&[("guardian:rule", "web"), ("team", "shop")]);
    rig.answer(Reply::Resources(BTreeMap::from([(text(ARN), tags)])));
    let filter = TagFilter::builder().key("guardian:rule").values("web").build();
    let ask = client.get_resources().resource_type_filters("ecs:service").tag_filters(filter);
    let found = ask.send().await.unwrap();
    let (key, values) = (text("guardian:rule"), texts(&["web"]));
    assert_eq!(rig.call().await, Call::GetResources { key, values });
    let [resource] = found.resource_tag_mapping_list() else { panic!("{found:?}") };
    assert_eq!(resource.resource_arn(), Some(ARN));
    assert_eq!(resource.tags().len(), 2);
}
