//! Elastic Load Balancing v2: the query protocol, a form in and XML out.

use super::input::{Dialect, Members};
use super::xml::Xml;
use super::{elb_actions, misfit};
use crate::model::Action;
use crate::sandbox::api::{ApiError, Call, ListenerView, Reply, RuleView, TargetGroupView, TargetView};

const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

/// How ELBv2 refuses.
pub(super) const DIALECT: Dialect = Dialect { refusal: "ValidationError", textual: true };

/// Answers one operation: the whole document.
pub(super) fn answer(
    operation: &str,
    input: Members,
    request_id: &str,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<String, ApiError> {
    let result = result(operation, input, call)?;
    let mut document = Xml::default();
    document.element_in(NAMESPACE, &format!("{operation}Response"), |xml| {
        xml.element(&format!("{operation}Result"), |xml| xml.append(&result));
        xml.element("ResponseMetadata", |xml| xml.text("RequestId", request_id));
    });
    Ok(document.into_string())
}

/// An error, as a whole document.
pub(super) fn error(error: &ApiError, request_id: &str) -> String {
    let mut document = Xml::default();
    document.element_in(NAMESPACE, "ErrorResponse", |xml| {
        xml.element("Error", |xml| {
            xml.text("Type", if error.status < 500 { "Sender" } else { "Receiver" });
            xml.text("Code", &error.code);
            xml.text("Message", &error.message);
        });
        xml.text("RequestId", request_id);
    });
    document.into_string()
}

fn result(
    operation: &str,
    mut input: Members,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<Xml, ApiError> {
    // A page marker is none of ours and refused.
    input.page("PageSize", 400)?;
    let mut xml = Xml::default();
    match operation {
        "DescribeTargetGroups" => {
            let arns = input.texts("TargetGroupArns")?;
            let names = input.texts("Names")?;
            let load_balancer = input.text_if_any("LoadBalancerArn")?;
            input.done()?;
            let Reply::TargetGroups(mut groups) = call(Call::DescribeTargetGroups { arns })? else {
                return Err(misfit(operation));
            };
            // The call knows only ARNs; the other filters are easily applied here.
            groups.retain(|group| names.is_empty() || names.contains(&group.name));
            groups.retain(|group| load_balancer.as_ref().is_none_or(|arn| group.load_balancers.contains(arn)));
            xml.list("TargetGroups", &groups, target_group);
        }
        "DescribeListeners" => {
            let load_balancer = input.text_if_any("LoadBalancerArn")?;
            let arns = input.texts("ListenerArns")?;
            input.done()?;
            listeners(&mut xml, operation, call(Call::DescribeListeners { load_balancer, arns })?)?;
        }
        "DescribeRules" => {
            let listener = input.text_if_any("ListenerArn")?;
            let arns = input.texts("RuleArns")?;
            if listener.is_none() && arns.is_empty() {
                return Err(input.refuse("You must specify either a listener or rules"));
            }
            input.done()?;
            rules(&mut xml, operation, call(Call::DescribeRules { listener, arns })?)?;
        }
        "DescribeTargetHealth" => {
            let target_group = input.text("TargetGroupArn")?;
            input.done()?;
            let Reply::Targets(targets) = call(Call::DescribeTargetHealth { target_group })? else {
                return Err(misfit(operation));
            };
            xml.list("TargetHealthDescriptions", &targets, target);
        }
        "ModifyRule" => {
            let rule = input.text("RuleArn")?;
            let actions = some_actions(&mut input, "Actions")?;
            input.done()?;
            rules(&mut xml, operation, call(Call::ModifyRule { rule, actions })?)?;
        }
        "ModifyListener" => {
            let listener = input.text("ListenerArn")?;
            let default_actions = some_actions(&mut input, "DefaultActions")?;
            input.done()?;
            listeners(&mut xml, operation, call(Call::ModifyListener { listener, default_actions })?)?;
        }
        // The query protocol's own way to say it.
        _ => {
            return Err(ApiError::client(
                "InvalidAction",
                format!("the sandbox does not know the action {operation:?}"),
            ));
        }
    }
    Ok(xml)
}

/// The sandbox modifies nothing but actions, so a write without any would be a mistake.
fn some_actions(input: &mut Members, name: &str) -> Result<Vec<Action>, ApiError> {
    let actions = elb_actions::read(input, name)?;
    if actions.is_empty() { Err(input.refuse(format!("{name} is required"))) } else { Ok(actions) }
}

fn listeners(xml: &mut Xml, operation: &str, reply: Reply) -> Result<(), ApiError> {
    let Reply::Listeners(listeners) = reply else { return Err(misfit(operation)) };
    xml.list("Listeners", &listeners, listener);
    Ok(())
}

fn rules(xml: &mut Xml, operation: &str, reply: Reply) -> Result<(), ApiError> {
    let Reply::Rules(rules) = reply else { return Err(misfit(operation)) };
    xml.list("Rules", &rules, rule);
    Ok(())
}

fn target_group(xml: &mut Xml, view: &TargetGroupView) {
    xml.text("TargetGroupArn", &view.arn);
    xml.text("TargetGroupName", &view.name);
    xml.list("LoadBalancerArns", &view.load_balancers, |xml, arn| xml.escape(arn));
    // Targets are registered by address.
    xml.text("TargetType", "ip");
}

fn listener(xml: &mut Xml, view: &ListenerView) {
    xml.text("ListenerArn", &view.arn);
    xml.text("LoadBalancerArn", &view.load_balancer);
    xml.text("Port", view.port);
    xml.text("Protocol", &view.protocol);
    xml.list("DefaultActions", &view.default_actions, elb_actions::write);
}

fn rule(xml: &mut Xml, view: &RuleView) {
    xml.text("RuleArn", &view.arn);
    xml.text("Priority", &view.priority);
    xml.text("IsDefault", view.is_default);
    xml.list("Conditions", view.path.as_slice(), |xml, path| {
        let values = |xml: &mut Xml| xml.list("Values", &[path], |xml, path| xml.escape(path));
        xml.text("Field", "path-pattern");
        values(xml);
        xml.element("PathPatternConfig", values);
    });
    xml.list("Actions", &view.actions, elb_actions::write);
}

fn target(xml: &mut Xml, view: &TargetView) {
    xml.element("Target", |xml| {
        xml.text("Id", &view.id);
        xml.text("Port", view.port);
    });
    xml.text("HealthCheckPort", view.port);
    xml.element("TargetHealth", |xml| {
        xml.text("State", &view.state);
        xml.text_if_any("Reason", view.reason.as_ref());
    });
}
