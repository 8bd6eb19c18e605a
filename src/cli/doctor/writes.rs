//! Whether whoever runs this may write what a rollback writes: each call is made once, on something that does not exist, so
//! that it changes nothing. IAM refuses before AWS looks for the thing.

use crate::engine::{Check, CheckVerdict};
use crate::model::{
    CallError, ErrorClass, ListenerArn, Observation, RuleArn, TaskSetArn, TaskSetStatus, TrafficRule, TrafficRuleId,
    Write,
};
use crate::ports::Actuator;

/// Makes every call once.
pub(super) async fn examine(actuator: &dyn Actuator, seen: &Observation) -> Vec<Check> {
    let mut checks = Vec::new();
    for write in harmless(seen) {
        let outcome = actuator.apply(&write).await;
        checks.push(judged(write.operation(), outcome.as_ref().err()));
    }
    checks
}

/// The calls of a rollback, none of which can find what it names.
fn harmless(seen: &Observation) -> Vec<Write> {
    let primary = seen.service.task_sets.iter().find(|set| set.status == TaskSetStatus::Primary);
    let Some(primary) = primary else { return Vec::new() };
    let service = seen.ask.service.clone();
    let task_set = TaskSetArn::new(nobody(primary.arn.as_str()));
    let mut writes = vec![
        Write::ScaleTaskSet { service: service.clone(), task_set: task_set.clone(), percent: 100 },
        Write::SetPrimary { service: service.clone(), task_set: task_set.clone() },
        Write::DeleteTaskSet { service, task_set },
    ];
    let group = primary.target_group.as_ref();
    let ours = seen.traffic.rules().iter().filter(|rule| group.is_some_and(|group| rule.names(group)));
    // A load balancer's rules differ in their last part alone.
    let (mut rule, mut listener) = (None, None);
    for found in ours {
        match &found.id {
            TrafficRuleId::Rule(_) => rule = rule.or(Some(found)),
            TrafficRuleId::DefaultOf(_) => listener = listener.or(Some(found)),
        }
    }
    writes.extend([rule, listener].into_iter().flatten().map(same_on_nothing));
    writes
}

fn same_on_nothing(rule: &TrafficRule) -> Write {
    let id = match &rule.id {
        TrafficRuleId::Rule(arn) => TrafficRuleId::Rule(RuleArn::new(nobody(arn.as_str()))),
        TrafficRuleId::DefaultOf(arn) => TrafficRuleId::DefaultOf(ListenerArn::new(nobody(arn.as_str()))),
    };
    Write::SetActions { rule: id, found: rule.actions.clone(), actions: rule.actions.clone() }
}

/// The ARN with its last part's digits all zero: nothing has it.
fn nobody(arn: &str) -> String {
    let (path, last) = arn.rsplit_once('/').unwrap_or(("", arn));
    format!("{path}/{}", "0".repeat(last.len()))
}

fn judged(operation: &str, error: Option<&CallError>) -> Check {
    match error {
        Some(error) if error.class == ErrorClass::Denied => {
            let what = format!("{operation} is not allowed to whoever runs this: {}", error.message);
            Check::new("writes", CheckVerdict::Blocks, what).cure(
                "run it with the worker's role; if it was, grant what infra/modules/guardian/worker-policy.json has",
            )
        }
        Some(error) if error.class == ErrorClass::NotFound => {
            Check::new("writes", CheckVerdict::Fine, format!("{operation} is allowed (tried on what does not exist)"))
        }
        Some(error) => {
            let what = format!("whether {operation} is allowed was not learnt: {error}");
            Check::new("writes", CheckVerdict::Note, what)
        }
        None => {
            let what = format!("{operation} was accepted for what does not exist");
            Check::new("writes", CheckVerdict::Note, what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_has_the_shape_of_what_there_is_and_names_nothing() {
        let set = "arn:aws:ecs:eu-west-1:1:task-set/prod/web/ecs-svc/9223370564341623665";
        assert_eq!(nobody(set), "arn:aws:ecs:eu-west-1:1:task-set/prod/web/ecs-svc/0000000000000000000");
        let rule = "arn:aws:elasticloadbalancing:eu-west-1:1:listener-rule/app/lb/50dc/f2f7/9683b2d02a6cabee";
        assert_eq!(
            nobody(rule),
            "arn:aws:elasticloadbalancing:eu-west-1:1:listener-rule/app/lb/50dc/f2f7/0000000000000000"
        );
    }
}
