//! What of an action could not be sent back as it was.
//!
//! The SDK's reader passes over members that it does not know, without a word. A modification replaces the whole list of
//! actions, so what was passed over would be lost at AWS. It is looked for in the answer itself; a rule that has any is read,
//! and never written.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_elasticloadbalancingv2::types::{Action as ElbAction, ActionTypeEnum};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_xml::decode::{Document, ScopedDecoder};

use super::actions;

/// The members of an action.
const ACTION: [&str; 9] = [
    "Type",
    "Order",
    "TargetGroupArn",
    "ForwardConfig",
    "AuthenticateOidcConfig",
    "AuthenticateCognitoConfig",
    "RedirectConfig",
    "FixedResponseConfig",
    "JwtValidationConfig",
];

/// Looks at every answer of a call. The clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Unread(Arc<Mutex<Vec<Option<Arc<str>>>>>);

impl Unread {
    /// For each rule or listener of the last answer, in its order: a member of its actions that was passed over, by its path.
    pub(super) fn take(&self) -> Vec<Option<Arc<str>>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Intercept for Unread {
    fn name(&self) -> &'static str {
        "Unread"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = unread(body);
        Ok(())
    }
}

/// What of the actions could not be sent back, in words; `passed_over` is what the SDK's reader left out.
pub(super) fn lost(read: &[ElbAction], passed_over: Option<Arc<str>>) -> Option<Arc<str>> {
    if let Some(path) = passed_over {
        return Some(format!("the member {path}").into());
    }
    let odd = read.iter().find(|action| !actions::survives(action))?;
    let kind = odd.r#type().map_or("none", ActionTypeEnum::as_str);
    Some(format!("a shape of the action {kind}").into())
}

/// What is no XML was refused by the SDK before.
fn unread(body: &[u8]) -> Vec<Option<Arc<str>>> {
    let mut found = Vec::new();
    let Ok(mut document) = Document::try_from(body) else { return found };
    let Ok(mut response) = document.root_element() else { return found };
    while let Some(mut result) = response.next_tag() {
        while let Some(mut list) = result.next_tag() {
            if !matches!(list.start_el().local(), "Rules" | "Listeners") {
                continue;
            }
            while let Some(mut rule) = list.next_tag() {
                let mut first = None;
                while let Some(mut member) = rule.next_tag() {
                    if matches!(member.start_el().local(), "Actions" | "DefaultActions") {
                        while let Some(mut action) = member.next_tag() {
                            let lost = passed_over(&mut action, &mut Vec::new());
                            first = first.or(lost);
                        }
                    }
                }
                found.push(first);
            }
        }
    }
    found
}

/// The first member below that is not known, by its path.
fn passed_over(within: &mut ScopedDecoder<'_, '_>, path: &mut Vec<String>) -> Option<Arc<str>> {
    let mut first = None;
    while let Some(mut tag) = within.next_tag() {
        let name = tag.start_el().local().to_owned();
        let is_known = is_known(path, &name);
        path.push(name);
        let lost = if is_known { passed_over(&mut tag, path) } else { Some(path.join(".").into()) };
        first = first.or(lost);
        path.pop();
    }
    first
}

/// Whether this version carries the member of what is at this path, there and back.
fn is_known(path: &[String], name: &str) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let members: &[&str] = match path.as_slice() {
        [] => &ACTION,
        ["ForwardConfig"] => &["TargetGroups", "TargetGroupStickinessConfig"],
        ["ForwardConfig", "TargetGroups", "member"] => &["TargetGroupArn", "Weight"],
        ["ForwardConfig", "TargetGroupStickinessConfig"] => &["Enabled", "DurationSeconds"],
        // Left out of what is carried, on purpose.
        ["AuthenticateOidcConfig"] if ["ClientSecret", "UseExistingClientSecret"].contains(&name) => return true,
        [config] => actions::members(config),
        [_, "AuthenticationRequestExtraParams"] => &["entry"],
        [_, "AuthenticationRequestExtraParams", "entry"] => &["key", "value"],
        [_, "AdditionalClaims", "member"] => actions::CLAIM,
        [_, "TargetGroups" | "AdditionalClaims"] | [_, "AdditionalClaims", "member", "Values"] => &["member"],
        _ => &[],
    };
    members.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(actions: &str) -> Option<String> {
        let rules = format!("<Rules><member><RuleArn>r</RuleArn><Actions>{actions}</Actions></member></Rules>");
        let body = format!("<R><DescribeRulesResult>{rules}</DescribeRulesResult><ResponseMetadata/></R>");
        let found = unread(body.as_bytes());
        assert_eq!(found.len(), 1, "one for each rule");
        found[0].as_deref().map(str::to_owned)
    }

    #[test]
    fn what_is_carried_is_known_at_every_depth() {
        let forward = "<member><Type>forward</Type><Order>2</Order><ForwardConfig><TargetGroups><member>\
             <TargetGroupArn>a</TargetGroupArn><Weight>1</Weight></member></TargetGroups><TargetGroupStickinessConfig>\
             <Enabled>true</Enabled></TargetGroupStickinessConfig></ForwardConfig></member>";
        let login = "<member><Type>authenticate-oidc</Type><AuthenticateOidcConfig><Issuer>i</Issuer>\
             <AuthenticationRequestExtraParams><entry><key>k</key><value>v</value></entry></AuthenticationRequestExtraParams>\
             <UseExistingClientSecret>true</UseExistingClientSecret></AuthenticateOidcConfig></member>";
        let jwt = "<member><JwtValidationConfig><AdditionalClaims><member><Name>n</Name><Values><member>v</member></Values>\
             </member></AdditionalClaims></JwtValidationConfig></member>";
        assert_eq!(found(&[login, jwt, forward].concat()), None);
    }

    #[test]
    fn what_is_not_is_told_by_its_path() {
        for (actions, path) in [
            ("<member><Later>1</Later></member>", "Later"),
            ("<member><RedirectConfig><Host>h</Host><Later/></RedirectConfig></member>", "RedirectConfig.Later"),
            (
                "<member><ForwardConfig><TargetGroups><member><Later/></member></TargetGroups></ForwardConfig></member>",
                "ForwardConfig.TargetGroups.member.Later",
            ),
        ] {
            assert_eq!(found(actions).as_deref(), Some(path));
        }
        let listeners = "<R><Result><Listeners><member/><member><DefaultActions><member><Later/></member></DefaultActions>\
             </member></Listeners></Result></R>";
        assert_eq!(unread(listeners.as_bytes()), [None, Some("Later".into())]);
    }
}
