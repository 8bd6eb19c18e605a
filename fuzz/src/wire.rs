//! A load balancer with one rule behind the real protocol, and the real clients in front of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use taskset_guardian::aws::{Aws, Elb, Endpoint, Writer};
use taskset_guardian::model::{Action, CallError, Timestamp, TrafficRule, Write};
use taskset_guardian::ports::{Actuator, Clock, LoadBalancers, Recorder};
use taskset_guardian::sandbox::api::{ApiError, Backend, Call, ListenerView, Reply, RuleView, TargetGroupView, Timed};
use taskset_guardian::sandbox::wire::{Sandbox, WireSettings};
use tokio::runtime::Runtime;

use super::world::{group, start};

const BALANCER: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/web/1";

/// Server and clients, which live as long as the thread: to make them takes longer than hundreds of inputs.
struct Wire {
    runtime: Runtime,
    sandbox: Sandbox<Balancer>,
    elb: Elb,
    writer: Writer,
}

thread_local! {
    static WIRE: Wire = Wire::start();
}

/// What the adapter reads when the rule has these actions.
pub(super) fn describe(actions: Vec<Action>) -> Result<Vec<TrafficRule>, CallError> {
    WIRE.with(|wire| {
        wire.sandbox.with(|balancer| balancer.actions = actions);
        let groups = BTreeSet::from([group("blue"), group("green")]);
        wire.runtime.block_on(wire.elb.rules(&groups, false))
    })
}

/// What arrives of a write; `None` when it was refused.
pub(super) fn send(write: &Write) -> Option<Vec<Action>> {
    WIRE.with(|wire| {
        let result = wire.runtime.block_on(wire.writer.apply(write));
        let arrived = wire.sandbox.with(|balancer| balancer.arrived.take());
        assert_eq!(result.is_ok(), arrived.is_some(), "what arrived is not what was answered: {result:?}");
        arrived
    })
}

impl Wire {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (sandbox, elb, writer) = runtime.block_on(async {
            let balancer = Balancer { actions: Vec::new(), arrived: None };
            let sandbox = Sandbox::start(balancer, Arc::new(Still), WireSettings::default()).await.expect("loopback");
            let endpoint = Endpoint::Local { url: sandbox.endpoint(), region: "eu-west-1".to_owned() };
            let aws = Aws::connect(&endpoint, Arc::new(Nobody)).await.expect("clients");
            (sandbox, aws.load_balancers(), aws.actuator())
        });
        Self { runtime, sandbox, elb, writer }
    }
}

/// One load balancer, one listener, one rule.
struct Balancer {
    actions: Vec<Action>,
    /// By the last write.
    arrived: Option<Vec<Action>>,
}

impl Backend for Balancer {
    fn call(&mut self, call: Call) -> Result<Reply, ApiError> {
        let text = str::to_owned;
        Ok(match call {
            Call::DescribeTargetGroups { arns } => {
                let group =
                    |arn: String| TargetGroupView { name: arn.clone(), arn, load_balancers: vec![text(BALANCER)] };
                Reply::TargetGroups(arns.into_iter().map(group).collect())
            }
            Call::DescribeListeners { .. } => {
                let (arn, load_balancer, protocol) = (text("listener"), text(BALANCER), text("HTTPS"));
                Reply::Listeners(vec![ListenerView {
                    arn,
                    load_balancer,
                    port: 443,
                    protocol,
                    default_actions: Vec::new(),
                }])
            }
            Call::DescribeRules { .. } => {
                let (arn, priority, actions) = (text("rule"), text("10"), self.actions.clone());
                Reply::Rules(vec![RuleView { arn, priority, is_default: false, path: None, actions }])
            }
            Call::ModifyRule { actions, .. } => {
                self.arrived = Some(actions);
                Reply::Rules(Vec::new())
            }
            other => return Err(ApiError::client("Unexpected", format!("{other:?}"))),
        })
    }
}

impl Timed for Balancer {
    fn advance_to(&mut self, _: Timestamp) {}

    fn now(&self) -> Timestamp {
        start()
    }

    fn next_event(&self) -> Option<Timestamp> {
        None
    }
}

/// Nothing here takes time.
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        start()
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

/// Nobody counts the calls.
struct Nobody;

impl Recorder for Nobody {
    fn call(&self, _: &'static str, _: &'static str, _: &'static str, _: Duration) {}
}
