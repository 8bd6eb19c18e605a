//! Elastic Load Balancing.

use aws_sdk_elasticloadbalancingv2::error::ProvideErrorMetadata as _;
use aws_sdk_elasticloadbalancingv2::types::{
    Action as SdkAction, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple,
};
use serde_json::json;

use super::*;
use crate::model::{Action, ActionKind, Forward, KeptAction, Stickiness, TargetGroupArn, WeightedGroup};
use crate::sandbox::api::{ListenerView, RuleView, TargetGroupView, TargetView};

fn group(arn: &str, weight: Option<u32>) -> WeightedGroup {
    WeightedGroup { target_group: TargetGroupArn::from(arn), weight }
}

fn forward(order: Option<i32>, groups: Vec<WeightedGroup>, stickiness: Option<Stickiness>) -> Action {
    Action { order, kind: ActionKind::Forward(Forward { groups, stickiness }) }
}

fn kept(order: i32, kind: &str, config: serde_json::Value) -> Action {
    let serde_json::Value::Object(config) = config else { panic!("a config is an object") };
    Action { order: Some(order), kind: ActionKind::Kept(KeptAction { kind: kind.into(), config }) }
}

/// Every type of action, with every member that it has and text that is hard to carry.
fn all_actions() -> Vec<Action> {
    let sticky = Stickiness { enabled: Some(true), duration_seconds: Some(3600) };
    vec![
        kept(
            1,
            "authenticate-oidc",
            json!({"AuthenticateOidcConfig": {
                "Issuer": "https://id.example/?a=1&b=<2>",
                "AuthorizationEndpoint": "https://id.example/authorize",
                "TokenEndpoint": "https://id.example/token",
                "UserInfoEndpoint": "https://id.example/me",
                "ClientId": "shop \"web\"",
                "SessionCookieName": "AWSELBAuthSessionCookie",
                "Scope": "openid é",
                "SessionTimeout": 604_800,
                "AuthenticationRequestExtraParams": {"display": "page", "SessionTimeout": "7", "a b": ""},
                "OnUnauthenticatedRequest": "authenticate",
                "UseExistingClientSecret": true,
            }}),
        ),
        kept(
            2,
            "authenticate-cognito",
            json!({"AuthenticateCognitoConfig": {
                "UserPoolArn": "arn:pool",
                "UserPoolClientId": "client",
                "UserPoolDomain": "domain",
                "SessionTimeout": 60,
                "AuthenticationRequestExtraParams": {"prompt": "login"},
            }}),
        ),
        kept(
            3,
            "jwt-validation",
            json!({"JwtValidationConfig": {
                "JwksEndpoint": "https://id.example/jwks",
                "Issuer": "https://id.example",
                "AdditionalClaims": [
                    {"Format": "single-string", "Name": "scope", "Values": ["read"]},
                    {"Format": "string-array", "Name": "aud", "Values": ["a", "b"]},
                ],
            }}),
        ),
        kept(
            4,
            "redirect",
            json!({"RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "Query": "#{query}", "StatusCode": "HTTP_301"}}),
        ),
        kept(
            5,
            "fixed-response",
            json!({"FixedResponseConfig": {"MessageBody": "two\r\nlines", "StatusCode": "503", "ContentType": "text/plain"}}),
        ),
        forward(Some(6), vec![group("arn:blue", Some(90)), group("arn:green", Some(10))], Some(sticky)),
    ]
}

fn rule(actions: Vec<Action>) -> RuleView {
    let (arn, priority) = (text("arn:rule"), text("10"));
    RuleView { arn, priority, is_default: false, path: Some(text("/a&b/*")), actions }
}

#[tokio::test]
async fn every_action_survives_the_way_out_and_back_in() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    rig.answer(Reply::Rules(vec![rule(all_actions())]));
    let described = client.describe_rules().listener_arn("arn:listener").page_size(400).send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeRules { listener: Some(text("arn:listener")), arns: Vec::new() });
    let [got] = described.rules() else { panic!("{described:?}") };
    assert_eq!((got.rule_arn(), got.priority(), got.is_default()), (Some("arn:rule"), Some("10"), Some(false)));
    let condition = &got.conditions()[0];
    assert_eq!((condition.field(), condition.values()), (Some("path-pattern"), texts(&["/a&b/*"]).as_slice()));
    assert_eq!(condition.path_pattern_config().unwrap().values(), ["/a&b/*"]);
    let oidc = got.actions()[0].authenticate_oidc_config().unwrap();
    assert_eq!(oidc.issuer(), Some("https://id.example/?a=1&b=<2>"));
    assert_eq!((oidc.session_timeout(), oidc.use_existing_client_secret()), (Some(604_800), Some(true)));
    assert_eq!(got.actions()[4].fixed_response_config().unwrap().message_body(), Some("two\r\nlines"));
    let sticky = got.actions()[5].forward_config().unwrap().target_group_stickiness_config().unwrap();
    assert_eq!((sticky.enabled(), sticky.duration_seconds()), (Some(true), Some(3600)));
    assert_eq!(got.actions()[5].target_group_arn(), None, "the shorthand is for a single group");

    rig.answer(Reply::Rules(vec![rule(all_actions())]));
    let echoed = got.actions().to_vec();
    let modify = client.modify_rule().rule_arn("arn:rule").set_actions(Some(echoed)).send().await.unwrap();
    assert_eq!(rig.call().await, Call::ModifyRule { rule: text("arn:rule"), actions: all_actions() });
    assert_eq!(modify.rules(), described.rules());
}

#[tokio::test]
async fn a_single_group_comes_with_its_shorthand_and_may_be_sent_as_it() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    let view = ListenerView {
        arn: text("arn:listener"),
        load_balancer: text("arn:lb"),
        port: 8443,
        protocol: text("HTTPS"),
        default_actions: vec![forward(None, vec![group("arn:blue", Some(1))], None)],
    };
    for _ in 0..3 {
        rig.answer(Reply::Listeners(vec![view.clone()]));
    }
    let described = client.describe_listeners().load_balancer_arn("arn:lb").send().await.unwrap();
    let load_balancer = Some(text("arn:lb"));
    assert_eq!(rig.call().await, Call::DescribeListeners { load_balancer, arns: Vec::new() });
    let [got] = described.listeners() else { panic!("{described:?}") };
    assert_eq!((got.listener_arn(), got.load_balancer_arn()), (Some("arn:listener"), Some("arn:lb")));
    assert_eq!(
        (got.port(), got.protocol().map(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::as_str)),
        (Some(8443), Some("HTTPS"))
    );
    let [action] = got.default_actions() else { panic!("{got:?}") };
    assert_eq!((action.target_group_arn(), action.order()), (Some("arn:blue"), None));
    assert_eq!(action.forward_config().unwrap().target_groups()[0].weight(), Some(1));

    let modify = |action| client.modify_listener().listener_arn("arn:listener").default_actions(action).send();
    let echo = modify(action.clone()).await.unwrap();
    assert_eq!(echo.listeners(), described.listeners());
    let listener = text("arn:listener");
    let default_actions = view.default_actions.clone();
    assert_eq!(rig.call().await, Call::ModifyListener { listener: listener.clone(), default_actions });

    let shorthand = SdkAction::builder().r#type(ActionTypeEnum::Forward).target_group_arn("arn:blue").build();
    modify(shorthand).await.unwrap();
    let default_actions = vec![forward(None, vec![group("arn:blue", None)], None)];
    assert_eq!(rig.call().await, Call::ModifyListener { listener, default_actions });
}

#[tokio::test]
async fn lists_of_arns_arrive_in_order() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    let arns: Vec<_> = (1..=12).map(|n| format!("arn:{n}")).collect();
    rig.answer(Reply::Rules(Vec::new()));
    let rules = client.describe_rules().set_rule_arns(Some(arns.clone())).send().await.unwrap();
    assert!(rules.rules().is_empty());
    assert_eq!(rig.call().await, Call::DescribeRules { listener: None, arns: arns.clone() });

    rig.answer(Reply::Listeners(Vec::new()));
    client.describe_listeners().set_listener_arns(Some(arns.clone())).send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeListeners { load_balancer: None, arns });
}

#[tokio::test]
async fn target_groups_are_found_by_arn_name_or_load_balancer() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    let view = |name: &str, lb: &str| TargetGroupView {
        arn: format!("arn:{name}"),
        name: text(name),
        load_balancers: texts(&[lb]),
    };
    for _ in 0..3 {
        rig.answer(Reply::TargetGroups(vec![view("blue", "arn:lb"), view("green", "arn:lb2")]));
    }
    let ask = || client.describe_target_groups();
    let both = ask().target_group_arns("arn:blue").target_group_arns("arn:green").send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeTargetGroups { arns: texts(&["arn:blue", "arn:green"]) });
    let got: Vec<_> = both.target_groups().iter().map(|it| (it.target_group_arn(), it.target_group_name())).collect();
    assert_eq!(got, [(Some("arn:blue"), Some("blue")), (Some("arn:green"), Some("green"))]);
    assert_eq!(both.target_groups()[0].load_balancer_arns(), ["arn:lb"]);

    let of_lb = ask().load_balancer_arn("arn:lb2").send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeTargetGroups { arns: Vec::new() });
    let of_name = ask().names("green").send().await.unwrap();
    for out in [of_lb, of_name] {
        assert_eq!(out.target_groups().iter().filter_map(|it| it.target_group_name()).collect::<Vec<_>>(), ["green"]);
    }
}

#[tokio::test]
async fn targets_come_with_their_health() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    let view = |state: &str, reason: Option<&str>| TargetView {
        id: text("10.0.0.7"),
        port: 8080,
        state: text(state),
        reason: reason.map(text),
    };
    rig.answer(Reply::Targets(vec![view("unhealthy", Some("Target.Timeout")), view("healthy", None)]));
    let out = client.describe_target_health().target_group_arn("arn:green").send().await.unwrap();
    assert_eq!(rig.call().await, Call::DescribeTargetHealth { target_group: text("arn:green") });
    let [bad, good] = out.target_health_descriptions() else { panic!("{out:?}") };
    assert_eq!((bad.target().unwrap().id(), bad.target().unwrap().port()), (Some("10.0.0.7"), Some(8080)));
    let health = bad.target_health().unwrap();
    assert_eq!(
        health.state().map(aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum::as_str),
        Some("unhealthy")
    );
    assert_eq!(
        health.reason().map(aws_sdk_elasticloadbalancingv2::types::TargetHealthReasonEnum::as_str),
        Some("Target.Timeout")
    );
    assert_eq!(
        good.target_health().unwrap().state().map(aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum::as_str),
        Some("healthy")
    );
    assert_eq!(good.target_health().unwrap().reason(), None);
}

#[tokio::test]
async fn refusals_keep_their_short_code() {
    let rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    let action = SdkAction::builder().r#type(ActionTypeEnum::Forward).target_group_arn("arn:blue").build();
    let ask = || client.modify_rule().rule_arn("arn:rule").actions(action.clone()).send();
    rig.refuse("RuleNotFound", 400);
    let gone = ask().await.unwrap_err();
    assert_eq!((gone.code(), gone.message()), (Some("RuleNotFound"), Some("because & <why>")));
    assert!(gone.as_service_error().unwrap().is_rule_not_found_exception());
    rig.refuse("OperationNotPermitted", 400);
    assert!(ask().await.unwrap_err().into_service_error().is_operation_not_permitted_exception());
    rig.refuse("HealthUnavailable", 500);
    let error = client.describe_target_health().target_group_arn("a").send().await.unwrap_err();
    assert!(error.as_service_error().unwrap().is_health_unavailable_exception());
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
}

#[tokio::test]
async fn actions_without_sense_are_refused_before_the_backend_sees_them() {
    let mut rig = Rig::start().await;
    let client = client!(aws_sdk_elasticloadbalancingv2, rig);
    let tuple = |arn: &str| TargetGroupTuple::builder().target_group_arn(arn).build();
    let pair = ForwardActionConfig::builder().target_groups(tuple("arn:blue")).target_groups(tuple("arn:green"));
    let forward = || SdkAction::builder().r#type(ActionTypeEnum::Forward);
    let both = forward().target_group_arn("arn:blue").forward_config(pair.build()).build();
    let neither = forward().build();
    let bare = SdkAction::builder().r#type(ActionTypeEnum::AuthenticateOidc).build();
    for action in [both, neither, bare] {
        let error = client.modify_rule().rule_arn("arn:rule").actions(action).send().await.unwrap_err();
        assert!(error.as_service_error().unwrap().is_invalid_load_balancer_action_exception(), "{error:?}");
    }
    let odd = SdkAction::builder().r#type(ActionTypeEnum::from("teleport")).build();
    let negative = TargetGroupTuple::builder().target_group_arn("arn:blue").weight(-1).build();
    let negative = forward().forward_config(ForwardActionConfig::builder().target_groups(negative).build()).build();
    for actions in [vec![odd], vec![negative], Vec::new()] {
        let modify = client.modify_rule().rule_arn("arn:rule").set_actions(Some(actions));
        assert_eq!(modify.send().await.unwrap_err().code(), Some("ValidationError"));
    }
    rig.assert_untouched();
}
