//! The writes: the only code that changes anything at AWS.

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_ecs as ecs;
use aws_sdk_elasticloadbalancingv2 as elb;

use super::actions;
use super::calls::{Calls, Operation};
use crate::model::{Action, CallError, ErrorClass, ServiceKey, TaskSetArn, TrafficRuleId, Write};
use crate::ports::Actuator;

const MODIFY_RULE: Operation = Operation::new("elasticloadbalancing", "ModifyRule");
const MODIFY_LISTENER: Operation = Operation::new("elasticloadbalancing", "ModifyListener");
const UPDATE_TASK_SET: Operation = Operation::new("ecs", "UpdateTaskSet");
const SET_PRIMARY: Operation = Operation::new("ecs", "UpdateServicePrimaryTaskSet");
const DELETE_TASK_SET: Operation = Operation::new("ecs", "DeleteTaskSet");

/// Sends writes, each once. Whether to send again is decided by who reads what became of it.
pub struct Writer {
    ecs: ecs::Client,
    elb: elb::Client,
    calls: Calls,
}

impl Writer {
    /// Takes the clients that read, because their connections are open when a write is urgent.
    pub(super) fn new(ecs: ecs::Client, elb: elb::Client, calls: Calls) -> Self {
        Self { ecs, elb, calls }
    }

    async fn set_actions(&self, rule: &TrafficRuleId, actions: &[Action]) -> Result<(), CallError> {
        let operation = match rule {
            TrafficRuleId::Rule(_) => MODIFY_RULE,
            TrafficRuleId::DefaultOf(_) => MODIFY_LISTENER,
        };
        let actions = actions::to_elb(actions).map_err(|why| operation.error(ErrorClass::Rejected, why))?;
        let once = elb::config::Builder::new().retry_config(RetryConfig::disabled());
        match rule {
            TrafficRuleId::Rule(arn) => {
                let call = self.elb.modify_rule().rule_arn(arn.as_str()).set_actions(Some(actions));
                self.calls.send(operation, call.customize().config_override(once).send()).await?;
            }
            TrafficRuleId::DefaultOf(listener) => {
                let call = self.elb.modify_listener().listener_arn(listener.as_str());
                let call = call.set_default_actions(Some(actions));
                self.calls.send(operation, call.customize().config_override(once).send()).await?;
            }
        }
        Ok(())
    }

    async fn scale_task_set(&self, service: &ServiceKey, task_set: &TaskSetArn, percent: u8) -> Result<(), CallError> {
        let scale = ecs::types::Scale::builder().unit(ecs::types::ScaleUnit::Percent).value(f64::from(percent)).build();
        let call = self
            .ecs
            .update_task_set()
            .cluster(&*service.cluster)
            .service(&*service.service)
            .task_set(task_set.as_str())
            .scale(scale);
        self.calls.send(UPDATE_TASK_SET, call.customize().config_override(ecs_once()).send()).await?;
        Ok(())
    }

    /// By ARN: an id is accepted too, but not everywhere understood.
    async fn set_primary(&self, service: &ServiceKey, task_set: &TaskSetArn) -> Result<(), CallError> {
        let call = self
            .ecs
            .update_service_primary_task_set()
            .cluster(&*service.cluster)
            .service(&*service.service)
            .primary_task_set(task_set.as_str());
        self.calls.send(SET_PRIMARY, call.customize().config_override(ecs_once()).send()).await?;
        Ok(())
    }

    async fn delete_task_set(&self, service: &ServiceKey, task_set: &TaskSetArn) -> Result<(), CallError> {
        let call = self
            .ecs
            .delete_task_set()
            .cluster(&*service.cluster)
            .service(&*service.service)
            .task_set(task_set.as_str())
            .force(true);
        self.calls.send(DELETE_TASK_SET, call.customize().config_override(ecs_once()).send()).await?;
        Ok(())
    }
}

/// Whether a write is sent again is for its reader to say, not for the client.
fn ecs_once() -> ecs::config::Builder {
    ecs::config::Builder::new().retry_config(RetryConfig::disabled())
}

#[async_trait]
impl Actuator for Writer {
    async fn apply(&self, write: &Write) -> Result<(), CallError> {
        match write {
            Write::SetActions { rule, actions, found: _ } => self.set_actions(rule, actions).await,
            Write::ScaleTaskSet { service, task_set, percent } => {
                self.scale_task_set(service, task_set, *percent).await
            }
            Write::SetPrimary { service, task_set } => self.set_primary(service, task_set).await,
            Write::DeleteTaskSet { service, task_set } => self.delete_task_set(service, task_set).await,
        }
    }
}
