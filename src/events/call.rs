//! `AWS API Call via CloudTrail`: who changed task sets and rules.
//!
//! How CloudTrail writes the parameters of these calls is documented nowhere. So they are looked up as they come, and a
//! record that does not name what it changed is left aside instead of being an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::envelope::{Envelope, Text, name, part};
use super::task::task_set;
use super::{IgnoredReason, NoSignal};
use crate::model::{
    ApiCall, Arn, CallTarget, Fact, ListenerArn, RuleArn, ServiceKey, Signal, TargetGroupArn, TaskSetArn, TaskSetId,
    TrafficRuleId, USER_AGENT, cut,
};

/// ELB allows five target groups a rule.
const MOST_TARGET_GROUPS: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Detail<'a> {
    #[serde(borrow)]
    event_name: Text<'a>,
    #[serde(borrow)]
    user_agent: Option<Text<'a>>,
    /// Present when AWS refused the call.
    error_code: Option<Value>,
    #[serde(default)]
    user_identity: Value,
    #[serde(default)]
    request_parameters: Value,
    #[serde(default)]
    response_elements: Value,
}

pub(super) fn read(event: &Envelope<'_, Detail<'_>>) -> Result<Signal, NoSignal> {
    let detail = &event.detail;
    if detail.error_code.as_ref().is_some_and(|code| !code.is_null()) {
        return Err(IgnoredReason::OtherCall.into());
    }
    let operation = detail.event_name.as_str();
    let target = match operation {
        "CreateTaskSet" | "UpdateTaskSet" | "DeleteTaskSet" | "UpdateServicePrimaryTaskSet" => changed_task_set(event)?,
        "ModifyRule" => changed_rule(event, "ruleArn", |arn| TrafficRuleId::Rule(RuleArn::new(arn)))?,
        "ModifyListener" => changed_rule(event, "listenerArn", |arn| TrafficRuleId::DefaultOf(ListenerArn::new(arn)))?,
        _ => return Err(IgnoredReason::OtherCall.into()),
    };
    let own = detail.user_agent.as_ref().is_some_and(|agent| agent.as_str().contains(USER_AGENT));
    let call = ApiCall { operation: operation.into(), by: caller(&detail.user_identity), own, target };
    Ok(event.signal(event.at()?, Fact::Call(call))?)
}

fn changed_task_set(event: &Envelope<'_, Detail<'_>>) -> Result<CallTarget, NoSignal> {
    let Detail { request_parameters: asked, response_elements: answer, .. } = &event.detail;
    let created = member(answer, "taskSet");
    let service = text(asked, "service").ok_or(IgnoredReason::OtherCall)?;
    let service = behind(event, service, "service/")?;
    // A service's ARN names the cluster as well, in the long format; without a cluster ECS takes the one called default.
    let (long_cluster, service) = service.split_once('/').map_or((None, service), |(c, s)| (Some(c), s));
    let said_cluster = text(asked, "cluster").map(|cluster| behind(event, cluster, "cluster/")).transpose()?;
    let cluster = said_cluster.or(long_cluster).unwrap_or("default");
    let id = ["taskSet", "primaryTaskSet"].iter().find_map(|at| text(asked, at));
    let id = id.or_else(|| created.and_then(|set| text(set, "id").or_else(|| text(set, "taskSetArn"))));
    let service = ServiceKey::new(
        part("detail.requestParameters.cluster", cluster)?,
        part("detail.requestParameters.service", service)?,
    );
    Ok(CallTarget::TaskSet { service, id: id.and_then(named_task_set) })
}

fn named_task_set(said: &str) -> Option<TaskSetId> {
    if said.starts_with("arn:") {
        TaskSetArn::new(said).id().and_then(|id| task_set(id.as_str()))
    } else {
        task_set(said)
    }
}

fn changed_rule(
    event: &Envelope<'_, Detail<'_>>,
    at: &str,
    id: impl Fn(&str) -> TrafficRuleId,
) -> Result<CallTarget, NoSignal> {
    let asked = &event.detail.request_parameters;
    let arn = text(asked, at).ok_or(IgnoredReason::OtherCall)?;
    let parsed = Arn::parse(name("detail.requestParameters", arn)?).filter(|arn| arn.service == "elasticloadbalancing");
    if !event.covers(&parsed.ok_or(IgnoredReason::OtherCall)?) {
        return Err(IgnoredReason::Contradictory.into());
    }
    let mut groups = BTreeSet::new();
    for actions in ["actions", "defaultActions"] {
        target_groups(member(asked, actions).unwrap_or(&Value::Null), &mut groups);
    }
    // Conditions and certificates send nobody anywhere.
    if groups.is_empty() {
        Err(IgnoredReason::OtherCall.into())
    } else {
        Ok(CallTarget::Rule { rule: id(arn), groups })
    }
}

/// Every target group that is named, wherever. The depth is bounded by the JSON reader.
fn target_groups(value: &Value, found: &mut BTreeSet<Arc<str>>) {
    match value {
        Value::String(text) if text.len() <= 512 && found.len() < MOST_TARGET_GROUPS => {
            let is_group = Arn::parse(text).is_some_and(|arn| arn.resource.starts_with("targetgroup/"));
            if is_group {
                found.insert(Arc::from(TargetGroupArn::new(text).dimension()));
            }
        }
        Value::Array(values) => values.iter().for_each(|value| target_groups(value, found)),
        Value::Object(members) => members.values().for_each(|value| target_groups(value, found)),
        _ => {}
    }
}

/// A name, or the name at the end of an ARN that lives where the event says.
fn behind<'t>(event: &Envelope<'_, Detail<'_>>, said: &'t str, prefix: &str) -> Result<&'t str, NoSignal> {
    let Some(arn) = Arn::parse(said) else { return Ok(said) };
    if !event.covers(&arn) {
        return Err(IgnoredReason::Contradictory.into());
    }
    arn.resource.strip_prefix(prefix).ok_or_else(|| IgnoredReason::OtherCall.into())
}

/// Who called: a person or role by its ARN, a service of AWS by its name.
fn caller(identity: &Value) -> Arc<str> {
    let names = ["arn", "invokedBy", "principalId", "type"];
    let said = names.iter().find_map(|at| text(identity, at)).filter(|said| !said.contains(char::is_control));
    cut(said.unwrap_or("somebody whom CloudTrail does not name"), 256)
}

fn text<'v>(value: &'v Value, at: &str) -> Option<&'v str> {
    member(value, at)?.as_str().filter(|text| !text.is_empty())
}

/// A member by its name, whether it begins with a capital or not.
fn member<'v>(value: &'v Value, at: &str) -> Option<&'v Value> {
    let members = value.as_object()?;
    members.get(at).or_else(|| members.iter().find(|(name, _)| name.eq_ignore_ascii_case(at)).map(|(_, value)| value))
}
