//! Rule actions, from ELB's types to the model's and back.
//!
//! ELB replaces the whole list of actions at every modification, so what is not ours must survive the round trip, and what
//! can't survive it must not be sent.

use std::collections::HashMap;

use aws_sdk_elasticloadbalancingv2::types::{
    Action as ElbAction, ActionTypeEnum, AuthenticateCognitoActionConditionalBehaviorEnum,
    AuthenticateCognitoActionConfig, AuthenticateOidcActionConditionalBehaviorEnum, AuthenticateOidcActionConfig,
    FixedResponseActionConfig, ForwardActionConfig, JwtValidationActionAdditionalClaim,
    JwtValidationActionAdditionalClaimFormatEnum, JwtValidationActionConfig, RedirectActionConfig,
    RedirectActionStatusCodeEnum, TargetGroupStickinessConfig, TargetGroupTuple,
};
use serde_json::{Map, Value};

use crate::model::{Action, ActionKind, Forward, KeptAction, Stickiness, TargetGroupArn, WeightedGroup};

const OIDC: &str = "AuthenticateOidcConfig";
const COGNITO: &str = "AuthenticateCognitoConfig";
const REDIRECT: &str = "RedirectConfig";
const FIXED_RESPONSE: &str = "FixedResponseConfig";
const JWT_VALIDATION: &str = "JwtValidationConfig";

/// What ELB answered, in the model's types. Client secrets stay behind.
pub(super) fn from_elb(actions: &[ElbAction]) -> Vec<Action> {
    actions.iter().map(|action| Action { order: action.order(), kind: kind_from_elb(action) }).collect()
}

fn kind_from_elb(action: &ElbAction) -> ActionKind {
    if let Some(ActionTypeEnum::Forward) = action.r#type()
        && let Some(forward) = forward_from_elb(action)
    {
        return ActionKind::Forward(forward);
    }
    let config = [
        (OIDC, action.authenticate_oidc_config().map(Config::to_map)),
        (COGNITO, action.authenticate_cognito_config().map(Config::to_map)),
        (REDIRECT, action.redirect_config().map(Config::to_map)),
        (FIXED_RESPONSE, action.fixed_response_config().map(Config::to_map)),
        (JWT_VALIDATION, action.jwt_validation_config().map(Config::to_map)),
    ];
    let members = config.into_iter().filter_map(|(name, map)| Some((name.to_owned(), Value::Object(map?))));
    let kind = action.r#type().map_or("", |kind| kind.as_str());
    ActionKind::Kept(KeptAction { kind: kind.into(), config: members.collect() })
}

/// ELB answers a single group by `TargetGroupArn`, by `ForwardConfig` or by both. `None` when it names no group.
fn forward_from_elb(action: &ElbAction) -> Option<Forward> {
    let group = |tuple: &TargetGroupTuple| {
        // A negative weight is refused by AWS; some emulators store it.
        let weight = tuple.weight().map(|weight| u32::try_from(weight).unwrap_or(0));
        Some(WeightedGroup { target_group: TargetGroupArn::new(tuple.target_group_arn()?), weight })
    };
    let tuples = action.forward_config().map(ForwardActionConfig::target_groups).unwrap_or_default();
    let groups = match tuples {
        [] => vec![WeightedGroup { target_group: TargetGroupArn::new(action.target_group_arn()?), weight: None }],
        // One that is named otherwise is passed over; the rest must be seen, though the rule can't be written.
        tuples => tuples.iter().filter_map(group).collect(),
    };
    if groups.is_empty() {
        return None;
    }
    let stickiness = action.forward_config().and_then(ForwardActionConfig::target_group_stickiness_config);
    let stickiness =
        stickiness.map(|sticky| Stickiness { enabled: sticky.enabled(), duration_seconds: sticky.duration_seconds() });
    Some(Forward { groups, stickiness })
}

/// Whether the action would be sent back as it was read.
pub(super) fn survives(action: &ElbAction) -> bool {
    let carried = Action { order: action.order(), kind: kind_from_elb(action) };
    as_echoed(action).is_some_and(|expected| action_to_elb(&carried).is_ok_and(|echoed| echoed == expected))
}

/// The same action as we would say it: a single group without its shorthand, a secret as one to be kept. `None` for one that
/// contradicts itself.
fn as_echoed(action: &ElbAction) -> Option<ElbAction> {
    let mut echoed = action.clone();
    if let Some(arn) = echoed.target_group_arn.take() {
        let groups = action.forward_config().map(ForwardActionConfig::target_groups).unwrap_or_default();
        match groups {
            [] => {
                let config = echoed.forward_config.get_or_insert_with(|| ForwardActionConfig::builder().build());
                config.target_groups = Some(vec![TargetGroupTuple::builder().target_group_arn(arn).build()]);
            }
            [only] if only.target_group_arn() == Some(&arn) => {}
            _ => return None,
        }
    }
    if let Some(oidc) = &mut echoed.authenticate_oidc_config {
        oidc.client_secret = None;
        oidc.use_existing_client_secret = Some(true);
    }
    Some(echoed)
}

/// The members of an action's configuration that survive; none of one that is not known.
pub(super) fn members(config: &str) -> &'static [&'static str] {
    match config {
        OIDC => AuthenticateOidcActionConfig::MEMBERS,
        COGNITO => AuthenticateCognitoActionConfig::MEMBERS,
        REDIRECT => RedirectActionConfig::MEMBERS,
        FIXED_RESPONSE => FixedResponseActionConfig::MEMBERS,
        JWT_VALIDATION => JwtValidationActionConfig::MEMBERS,
        _ => &[],
    }
}

/// The members of one of [`JWT_VALIDATION`]'s claims.
pub(super) const CLAIM: &[&str] = JwtValidationActionAdditionalClaim::MEMBERS;

/// The whole list for a modification.
///
/// # Errors
/// The sentence says which action can't be sent back as it was.
pub(super) fn to_elb(actions: &[Action]) -> Result<Vec<ElbAction>, String> {
    actions.iter().map(action_to_elb).collect()
}

fn action_to_elb(action: &Action) -> Result<ElbAction, String> {
    let mut elb = match &action.kind {
        ActionKind::Forward(forward) => forward_to_elb(forward)?,
        ActionKind::Kept(kept) => {
            kept_to_elb(kept).ok_or_else(|| format!("action type {} can't be echoed", kept.kind))?
        }
    };
    elb.order = action.order;
    Ok(elb)
}

/// Always by `ForwardConfig` alone: beside it, `TargetGroupArn` is refused as soon as there are two groups.
fn forward_to_elb(forward: &Forward) -> Result<ElbAction, String> {
    let mut config = ForwardActionConfig::builder();
    for group in &forward.groups {
        let weight = group.weight.map(i32::try_from).transpose();
        let weight = weight.map_err(|_| format!("the weight of {} is not one", group.target_group))?;
        let tuple = TargetGroupTuple::builder().target_group_arn(group.target_group.as_str()).set_weight(weight);
        config = config.target_groups(tuple.build());
    }
    if let Some(Stickiness { enabled, duration_seconds }) = forward.stickiness {
        let sticky = TargetGroupStickinessConfig::builder().set_enabled(enabled).set_duration_seconds(duration_seconds);
        config = config.target_group_stickiness_config(sticky.build());
    }
    Ok(ElbAction::builder().r#type(ActionTypeEnum::Forward).forward_config(config.build()).build())
}

/// `None` unless the whole action can be rebuilt: its type is known, it has that type's configuration and nothing else.
fn kept_to_elb(kept: &KeptAction) -> Option<ElbAction> {
    let kind = ActionTypeEnum::from(&*kept.kind);
    let only = |member: &str| match kept.config.get(member) {
        Some(Value::Object(map)) if kept.config.len() == 1 => Some(map.clone()),
        _ => None,
    };
    let action = ElbAction::builder().r#type(kind.clone());
    let action = match kind {
        ActionTypeEnum::AuthenticateOidc => {
            let mut oidc = AuthenticateOidcActionConfig::from_map(only(OIDC)?)?;
            // ELB never tells the secret, so it can only be kept.
            oidc.use_existing_client_secret = Some(true);
            action.authenticate_oidc_config(oidc)
        }
        ActionTypeEnum::AuthenticateCognito => action.authenticate_cognito_config(Config::from_map(only(COGNITO)?)?),
        ActionTypeEnum::Redirect => action.redirect_config(Config::from_map(only(REDIRECT)?)?),
        ActionTypeEnum::FixedResponse => action.fixed_response_config(Config::from_map(only(FIXED_RESPONSE)?)?),
        ActionTypeEnum::JwtValidation => action.jwt_validation_config(Config::from_map(only(JWT_VALIDATION)?)?),
        _ => return None,
    };
    Some(action.build())
}

/// A configuration as a JSON object with the API's member names.
trait Config: Sized {
    const MEMBERS: &'static [&'static str];

    fn to_map(&self) -> Map<String, Value>;

    /// `None` when a member is of the wrong type or unknown: it would get lost.
    fn from_map(map: Map<String, Value>) -> Option<Self>;
}

/// A value of one member.
trait Member: Sized {
    fn to_value(&self) -> Value;
    fn from_value(value: Value) -> Option<Self>;
}

/// Names each member once, for both directions.
macro_rules! config {
    ($type:ident { $($name:literal => $field:ident),+ $(,)? }) => {
        impl Config for $type {
            const MEMBERS: &'static [&'static str] = &[$($name),+];

            fn to_map(&self) -> Map<String, Value> {
                let mut map = Map::new();
                $(if let Some(value) = &self.$field {
                    map.insert($name.to_owned(), value.to_value());
                })+
                map
            }

            fn from_map(mut map: Map<String, Value>) -> Option<Self> {
                let mut config = Self::builder().build();
                $(if let Some(value) = map.remove($name) {
                    config.$field = Some(Member::from_value(value)?);
                })+
                map.is_empty().then_some(config)
            }
        }
    };
}

// `ClientSecret` and `UseExistingClientSecret` are left out on purpose.
config!(AuthenticateOidcActionConfig {
    "Issuer" => issuer,
    "AuthorizationEndpoint" => authorization_endpoint,
    "TokenEndpoint" => token_endpoint,
    "UserInfoEndpoint" => user_info_endpoint,
    "ClientId" => client_id,
    "SessionCookieName" => session_cookie_name,
    "Scope" => scope,
    "SessionTimeout" => session_timeout,
    "AuthenticationRequestExtraParams" => authentication_request_extra_params,
    "OnUnauthenticatedRequest" => on_unauthenticated_request,
});

config!(AuthenticateCognitoActionConfig {
    "UserPoolArn" => user_pool_arn,
    "UserPoolClientId" => user_pool_client_id,
    "UserPoolDomain" => user_pool_domain,
    "SessionCookieName" => session_cookie_name,
    "Scope" => scope,
    "SessionTimeout" => session_timeout,
    "AuthenticationRequestExtraParams" => authentication_request_extra_params,
    "OnUnauthenticatedRequest" => on_unauthenticated_request,
});

config!(RedirectActionConfig {
    "Protocol" => protocol,
    "Port" => port,
    "Host" => host,
    "Path" => path,
    "Query" => query,
    "StatusCode" => status_code,
});

config!(FixedResponseActionConfig {
    "MessageBody" => message_body,
    "StatusCode" => status_code,
    "ContentType" => content_type,
});

config!(JwtValidationActionConfig {
    "JwksEndpoint" => jwks_endpoint,
    "Issuer" => issuer,
    "AdditionalClaims" => additional_claims,
});

config!(JwtValidationActionAdditionalClaim {
    "Format" => format,
    "Name" => name,
    "Values" => values,
});

impl Member for String {
    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl Member for i64 {
    fn to_value(&self) -> Value {
        Value::from(*self)
    }

    fn from_value(value: Value) -> Option<Self> {
        value.as_i64()
    }
}

impl Member for HashMap<String, String> {
    fn to_value(&self) -> Value {
        Value::Object(self.iter().map(|(key, value)| (key.clone(), value.to_value())).collect())
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => map.into_iter().map(|(key, value)| Some((key, Member::from_value(value)?))).collect(),
            _ => None,
        }
    }
}

impl<T: Member> Member for Vec<T> {
    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(Member::to_value).collect())
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.into_iter().map(Member::from_value).collect(),
            _ => None,
        }
    }
}

impl Member for JwtValidationActionAdditionalClaim {
    fn to_value(&self) -> Value {
        Value::Object(self.to_map())
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Self::from_map(map),
            _ => None,
        }
    }
}

/// Enumerations are their words; words that the SDK does not know pass through unharmed.
macro_rules! word {
    ($($type:ident),+) => {$(
        impl Member for $type {
            fn to_value(&self) -> Value {
                Value::from(self.as_str())
            }

            fn from_value(value: Value) -> Option<Self> {
                value.as_str().map(Self::from)
            }
        }
    )+};
}

word!(
    AuthenticateOidcActionConditionalBehaviorEnum,
    AuthenticateCognitoActionConditionalBehaviorEnum,
    RedirectActionStatusCodeEnum,
    JwtValidationActionAdditionalClaimFormatEnum
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    const BLUE: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/blue/1a";
    const GREEN: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/2b";

    fn tuple(arn: &str, weight: i32) -> TargetGroupTuple {
        TargetGroupTuple::builder().target_group_arn(arn).weight(weight).build()
    }

    /// Through the model and back.
    fn echo(action: &ElbAction) -> ElbAction {
        to_elb(&from_elb(std::slice::from_ref(action))).unwrap().remove(0)
    }

    #[test]
    fn a_weighted_forward_keeps_weights_order_and_stickiness() {
        let sticky = TargetGroupStickinessConfig::builder().enabled(true).duration_seconds(3600).build();
        let config = ForwardActionConfig::builder()
            .target_groups(tuple(BLUE, 90))
            .target_groups(tuple(GREEN, 10))
            .target_group_stickiness_config(sticky);
        let sent = ElbAction::builder().r#type(ActionTypeEnum::Forward).order(2).forward_config(config.build()).build();
        assert_eq!(echo(&sent), sent);
        let ActionKind::Forward(forward) = &from_elb(&[sent])[0].kind else { panic!("not a forward") };
        assert!(forward.is_sticky());
        assert_eq!(forward.groups.iter().map(|group| group.weight).collect::<Vec<_>>(), [Some(90), Some(10)]);
    }

    #[test]
    fn the_shorthand_becomes_a_forward_to_one_group_and_is_never_sent() {
        let shorthand = ElbAction::builder().r#type(ActionTypeEnum::Forward).target_group_arn(BLUE);
        let ActionKind::Forward(forward) = &from_elb(&[shorthand.clone().build()])[0].kind else { panic!() };
        assert_eq!(forward.groups, [WeightedGroup { target_group: TargetGroupArn::new(BLUE), weight: None }]);
        // AWS answers both for a single group.
        let config = ForwardActionConfig::builder().target_groups(tuple(BLUE, 1)).build();
        let written = echo(&shorthand.forward_config(config.clone()).build());
        assert_eq!((written.target_group_arn(), written.forward_config()), (None, Some(&config)));
    }

    #[test]
    fn an_oidc_action_keeps_its_secret_at_aws() {
        let oidc = AuthenticateOidcActionConfig::builder()
            .issuer("https://id.example.com")
            .authorization_endpoint("https://id.example.com/authorize")
            .token_endpoint("https://id.example.com/token")
            .user_info_endpoint("https://id.example.com/me")
            .client_id("checkout")
            .session_cookie_name("Session")
            .scope("openid")
            .session_timeout(604_800)
            .authentication_request_extra_params("prompt", "login")
            .on_unauthenticated_request(AuthenticateOidcActionConditionalBehaviorEnum::Deny);
        let leaking = oidc.clone().client_secret("hunter2").build();
        let action = ElbAction::builder().r#type(ActionTypeEnum::AuthenticateOidc).order(1);
        let read = from_elb(&[action.clone().authenticate_oidc_config(leaking).build()]);
        let ActionKind::Kept(kept) = &read[0].kind else { panic!("not kept") };
        assert_eq!(kept.config["AuthenticateOidcConfig"]["Issuer"], "https://id.example.com");
        assert!(!serde_json::to_string(&read).unwrap().contains("hunter2"));

        let expected = action.authenticate_oidc_config(oidc.use_existing_client_secret(true).build()).build();
        assert_eq!(to_elb(&read).unwrap(), [expected]);
    }

    #[test]
    fn all_other_known_actions_survive_unchanged() {
        let cognito = AuthenticateCognitoActionConfig::builder()
            .user_pool_arn("arn:aws:cognito-idp:eu-west-1:111122223333:userpool/x")
            .user_pool_client_id("id")
            .user_pool_domain("domain")
            .session_timeout(60)
            .on_unauthenticated_request(AuthenticateCognitoActionConditionalBehaviorEnum::from("later"));
        let redirect = RedirectActionConfig::builder()
            .protocol("HTTPS")
            .port("443")
            .path("/#{path}")
            .status_code(RedirectActionStatusCodeEnum::Http301);
        let fixed = FixedResponseActionConfig::builder().message_body("gone").status_code("410");
        let claim = JwtValidationActionAdditionalClaim::builder()
            .name("scope")
            .format(JwtValidationActionAdditionalClaimFormatEnum::StringArray)
            .values("read")
            .values("write");
        let jwt = JwtValidationActionConfig::builder()
            .jwks_endpoint("https://id.example.com/jwks")
            .issuer("https://id.example.com")
            .additional_claims(claim.build());
        let action = |kind: &str| ElbAction::builder().r#type(ActionTypeEnum::from(kind)).order(1);
        let actions = [
            action("authenticate-cognito").authenticate_cognito_config(cognito.build()).build(),
            action("redirect").redirect_config(redirect.build()).build(),
            action("fixed-response").fixed_response_config(fixed.build()).build(),
            action("jwt-validation").jwt_validation_config(jwt.build()).build(),
        ];
        for sent in actions {
            assert_eq!(echo(&sent), sent);
        }
    }

    #[test]
    fn what_can_not_be_echoed_is_refused() {
        let kept = |kind: &str, config: Value| {
            let Value::Object(config) = config else { panic!("not an object") };
            vec![Action { order: None, kind: ActionKind::Kept(KeptAction { kind: kind.into(), config }) }]
        };
        let nameless = TargetGroupTuple::builder().weight(1).build();
        let config = ForwardActionConfig::builder().target_groups(nameless).target_groups(tuple(GREEN, 1)).build();
        let half = ElbAction::builder().r#type(ActionTypeEnum::Forward).forward_config(config).build();
        let ActionKind::Forward(forward) = &from_elb(std::slice::from_ref(&half))[0].kind else { panic!("unseen") };
        assert!(forward.names(&TargetGroupArn::new(GREEN)) && !survives(&half));
        let refused = [
            from_elb(&[ElbAction::builder().r#type(ActionTypeEnum::from("teleport")).build()]),
            from_elb(&[ElbAction::builder().r#type(ActionTypeEnum::Redirect).build()]),
            from_elb(&[ElbAction::builder().r#type(ActionTypeEnum::Forward).build()]),
            kept("redirect", json!({ "RedirectConfig": { "StatusCode": "HTTP_301", "NewMember": "x" } })),
            kept("redirect", json!({ "RedirectConfig": { "StatusCode": 301 } })),
            kept("redirect", json!({ "RedirectConfig": {}, "FixedResponseConfig": {} })),
        ];
        for actions in refused {
            let error = to_elb(&actions).unwrap_err();
            assert!(error.contains("can't be echoed"), "{error} for {actions:?}");
        }
    }
}
