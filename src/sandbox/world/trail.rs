//! CloudTrail: changes, and who made them, as EventBridge passes them on.

use serde_json::{Value, json};

use super::super::api::Call;
use super::events::to_the_second;
use super::names::{self, ACCOUNT, REGION};
use super::{Happening, World};
use crate::model::{Action, ActionKind, Forward, ServiceKey, TrafficRuleId, USER_AGENT};

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    /// Whoever calls the sandbox from outside.
    Guardian,
    /// The people and pipelines of the script.
    Deployer,
    /// Those who apply what is written down.
    InfrastructureCode,
}

impl World {
    /// A call that changed something.
    pub(super) fn record(&mut self, by: Caller, operation: &str, asked: &Value, answer: &Value) {
        let Some((least, most)) = self.setup.trail else { return };
        let (source, host) = match operation {
            "ModifyRule" | "ModifyListener" => ("aws.elasticloadbalancing", "elasticloadbalancing.amazonaws.com"),
            _ => ("aws.ecs", "ecs.amazonaws.com"),
        };
        let (role, agent) = match by {
            Caller::Guardian => ("taskset-guardian/worker", format!("aws-sdk-rust/1.3 os/linux {USER_AGENT}")),
            Caller::Deployer => ("deploy/pipeline", "aws-cli/2.27".to_owned()),
            Caller::InfrastructureCode => ("terraform/apply", "HashiCorp Terraform/1.11".to_owned()),
        };
        let time = to_the_second(self.now);
        let body = json!({
            "version": "0",
            "id": names::uuid(&mut self.wires),
            "detail-type": "AWS API Call via CloudTrail",
            "source": source,
            "account": ACCOUNT,
            "time": time,
            "region": REGION,
            "resources": [],
            "detail": {
                "eventVersion": "1.09",
                "userIdentity": {
                    "type": "AssumedRole",
                    "arn": format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}"),
                    "accountId": ACCOUNT,
                },
                "eventTime": time,
                "eventSource": host,
                "eventName": operation,
                "awsRegion": REGION,
                "sourceIPAddress": "198.51.100.7",
                "userAgent": agent,
                "requestParameters": asked,
                "responseElements": answer,
                "readOnly": false,
                "eventType": "AwsApiCall",
                "managementEvent": true,
            },
        });
        let delay = names::between(&mut self.wires, least, most);
        self.plan(delay, Happening::Deliver(body.to_string()));
    }

    pub(super) fn record_task_set(&mut self, by: Caller, operation: &str, key: &ServiceKey, id: &str) {
        let mut asked = json!({ "cluster": key.cluster, "service": key.service });
        let mut answer = Value::Null;
        match operation {
            "CreateTaskSet" => {
                let set = self.services.get(key).and_then(|service| service.task_set(id));
                let groups = set.and_then(|set| set.group.as_ref()).into_iter();
                let groups: Vec<_> = groups.map(|group| json!({ "targetGroupArn": group })).collect();
                asked["loadBalancers"] = groups.into();
                answer = json!({ "taskSet": { "id": id } });
            }
            "UpdateServicePrimaryTaskSet" => asked["primaryTaskSet"] = id.into(),
            _ => asked["taskSet"] = names::task_set_arn(&key.cluster, &key.service, id).into(),
        }
        self.record(by, operation, &asked, &answer);
    }

    pub(super) fn record_rule(&mut self, by: Caller, rule: &TrafficRuleId, actions: &[Action]) {
        let (arn, list) = match rule {
            TrafficRuleId::Rule(_) => ("ruleArn", "actions"),
            TrafficRuleId::DefaultOf(_) => ("listenerArn", "defaultActions"),
        };
        let actions: Vec<_> = actions.iter().filter_map(|action| forwarding(&action.kind)).collect();
        self.record(by, rule.operation(), &json!({ arn: rule.arn(), list: actions }), &Value::Null);
    }

    /// A call from outside that was answered.
    pub(super) fn record_call(&mut self, call: &Call, key: Option<&ServiceKey>) {
        let of_task_set =
            |task_set: &str| task_set.split_once("ecs-svc/").map(|(_, number)| format!("ecs-svc/{number}"));
        match (call, key) {
            (
                Call::UpdateTaskSet { task_set, .. }
                | Call::SetPrimary { task_set, .. }
                | Call::DeleteTaskSet { task_set, .. },
                Some(key),
            ) => {
                let id = of_task_set(task_set).unwrap_or_default();
                self.record_task_set(Caller::Guardian, super::api::operation(call), key, &id);
            }
            (Call::ModifyRule { rule, actions }, _) => {
                self.record_rule(Caller::Guardian, &TrafficRuleId::Rule(rule.as_str().into()), actions);
            }
            (Call::ModifyListener { listener, default_actions }, _) => {
                self.record_rule(
                    Caller::Guardian,
                    &TrafficRuleId::DefaultOf(listener.as_str().into()),
                    default_actions,
                );
            }
            _ => {}
        }
    }
}

fn forwarding(kind: &ActionKind) -> Option<Value> {
    let ActionKind::Forward(Forward { groups, .. }) = kind else { return None };
    let groups: Vec<_> = groups
        .iter()
        .map(|group| json!({ "targetGroupArn": group.target_group, "weight": group.effective_weight() }))
        .collect();
    Some(json!({ "type": "forward", "forwardConfig": { "targetGroups": groups } }))
}
