//! Why a task ended: whom its stop code and stopped reason speak against.
//!
//! Events and `DescribeTasks` tell it in the same words, so both are read by the same functions.

use std::sync::Arc;

use super::{Arn, StopClass, TargetGroupArn};

/// Longest target-group ARN that is believed: AWS's are below 200 bytes.
const LONGEST_ARN: usize = 512;

/// What a start that failed for the platform's sake says. Everything else that keeps a task from starting (an image,
/// a secret or an entry point that does not exist, a missing permission) came with the version.
const PLATFORM_WORDS: [&str; 13] = [
    "timeout",
    "timed out",
    "deadline exceeded",
    "throttl",
    "rate exceeded",
    "rate limit",
    "toomanyrequests",
    "resource:",
    "network interface",
    "capacity",
    "unavailable",
    "internalerror",
    "internal error",
];

/// Whom a stop speaks against. The code alone does not tell: a failed load-balancer check and a scale-in have the
/// same one.
pub fn classify(code: &str, reason: &str) -> StopClass {
    match code.to_ascii_lowercase().as_str() {
        // A server that ends is broken, whatever its exit code.
        "essentialcontainerexited" => StopClass::Version,
        "taskfailedtostart" => failed_start(reason),
        "serviceschedulerinitiated" => scheduler(reason),
        // The reason is the caller's free text here: it must not be read.
        "userinitiated" => StopClass::Operator,
        "spotinterruption" | "terminationnotice" | "infrastructurehealth" => StopClass::Infrastructure,
        _ => StopClass::Unknown,
    }
}

fn scheduler(reason: &str) -> StopClass {
    let reason = reason.to_ascii_lowercase();
    // Deletes and scale-ins, the guardian's own included, come first: they must never count against a version.
    if reason.contains("scaling activity initiated by") {
        StopClass::Neutral
    } else if reason.contains("failed elb health checks") || reason.contains("failed container health checks") {
        StopClass::Version
    } else if reason.contains("maintenance") {
        StopClass::Infrastructure
    } else {
        StopClass::Unknown
    }
}

fn failed_start(reason: &str) -> StopClass {
    let said = prose(reason);
    let speaks_of_eni = || said.split(' ').any(|word| word == "eni" || word.starts_with("eni-"));
    if PLATFORM_WORDS.iter().any(|word| said.contains(word)) || speaks_of_eni() {
        StopClass::Infrastructure
    } else {
        StopClass::Version
    }
}

/// The reason without names, in lower case: an image called `team/capacity-planner` is no word about capacity. Names
/// of images, secrets and addresses have a slash or are ARNs.
fn prose(reason: &str) -> String {
    let words = reason.split_whitespace().filter(|word| !word.contains('/') && !word.contains("arn:"));
    let mut said = String::with_capacity(reason.len());
    for word in words {
        if !said.is_empty() {
            said.push(' ');
        }
        said.push_str(word.trim_start_matches(['(', '"', '\'', '[']));
    }
    said.make_ascii_lowercase();
    said
}

/// The target group named in a reason, as in `Task failed ELB health checks in (target-group arn:…)`.
pub fn target_group_in(reason: &str) -> Option<TargetGroupArn> {
    // Most reasons name nothing.
    if !reason.contains("arn:") {
        return None;
    }
    let ends_a_name = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '"' | '\'' | ',' | ';');
    reason.split(ends_a_name).find_map(|word| {
        let arn = word.get(word.find("arn:")?..)?.trim_end_matches('.');
        let parsed = Arn::parse(arn).filter(|_| arn.len() <= LONGEST_ARN)?;
        let is_group = parsed.service == "elasticloadbalancing" && parsed.resource.starts_with("targetgroup/");
        is_group.then(|| TargetGroupArn::new(arn))
    })
}

/// The text, at most `max` bytes of it. What was cut ends in `…`, where that fits.
pub fn cut(text: &str, max: usize) -> Arc<str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= max {
        return Arc::from(text);
    }
    match max.checked_sub(ELLIPSIS.len()) {
        Some(room) => {
            let kept = text.get(..text.floor_char_boundary(room)).unwrap_or_default();
            Arc::from(format!("{kept}{ELLIPSIS}"))
        }
        None => Arc::from(text.get(..text.floor_char_boundary(max)).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_reason_together_tell_whom_a_stop_speaks_against() {
        use StopClass::{Infrastructure, Neutral, Operator, Unknown, Version};
        let group = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/1a2b";
        let elb = format!("Task failed ELB health checks in (target-group {group})");
        let table = [
            ("EssentialContainerExited", "Essential container in task exited", Version),
            ("ServiceSchedulerInitiated", elb.as_str(), Version),
            ("ServiceSchedulerInitiated", "Task failed container health checks", Version),
            ("ServiceSchedulerInitiated", "Scaling activity initiated by (deployment ecs-svc/1)", Neutral),
            ("ServiceSchedulerInitiated", "Scaling activity initiated by (taskSet ecs-svc/1)", Neutral),
            (
                "ServiceSchedulerInitiated",
                "ECS is performing maintenance on the underlying infrastructure",
                Infrastructure,
            ),
            ("ServiceSchedulerInitiated", "something that ECS says from next year on", Unknown),
            ("UserInitiated", "Task stopped by user", Operator),
            ("UserInitiated", "Task failed ELB health checks in (free text)", Operator),
            ("SpotInterruption", "Your Spot Task was interrupted.", Infrastructure),
            ("TerminationNotice", "", Infrastructure),
            ("InfrastructureHealth", "", Infrastructure),
            ("TaskFailedToStart", "CannotPullContainerError: docker.io/acme/web:88: not found", Version),
            ("TaskFailedToStart", "CannotPullContainerError: ref acme/capacity-planner:1: manifest unknown", Version),
            ("TaskFailedToStart", "CannotPullContainerError: acme/web:1: i/o timeout", Infrastructure),
            ("TaskFailedToStart", "CannotPullContainerError: toomanyrequests: pull rate limit", Infrastructure),
            ("TaskFailedToStart", "ContainerRuntimeTimeoutError: could not transition to created", Infrastructure),
            ("TaskFailedToStart", "RESOURCE:GPU", Infrastructure),
            ("TaskFailedToStart", "Capacity is unavailable at this time.", Infrastructure),
            ("TaskFailedToStart", "Unexpected EC2 error while creating an ENI", Infrastructure),
            ("TaskFailedToStart", "Timeout waiting for network interface provisioning to complete.", Infrastructure),
            ("TaskFailedToStart", "exec /bin/web: exec format error", Version),
            (
                "TaskFailedToStart",
                "ResourceInitializationError: unable to pull secrets or registry auth: access denied to secret",
                Version,
            ),
            (
                "TaskFailedToStart",
                "ResourceInitializationError: unable to pull secrets or registry auth: context deadline exceeded",
                Infrastructure,
            ),
            ("NewIn2027", "Task failed ELB health checks in", Unknown),
            ("", "", Unknown),
        ];
        for (code, reason, expected) in table {
            assert_eq!(classify(code, reason), expected, "{code}: {reason}");
            assert_eq!(classify(&code.to_uppercase(), &reason.to_uppercase()), expected, "in capitals: {reason}");
        }
    }

    #[test]
    fn the_target_group_is_found_between_brackets() {
        let group = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/1a2b";
        let reason = format!("Task failed ELB health checks in (target-group {group})");
        assert_eq!(target_group_in(&reason), Some(TargetGroupArn::new(group)));
        assert_eq!(target_group_in(&format!("in (target-group:{group}).")), Some(TargetGroupArn::new(group)));
        assert_eq!(target_group_in("arn:aws:ecs:eu-west-1:111122223333:cluster/targetgroup/x"), None);
        assert_eq!(target_group_in("no arn: here"), None);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(&*cut("short", 5), "short");
        assert_eq!(&*cut("longer", 5), "lo…");
        assert_eq!(&*cut("ééé", 5), "é…");
        assert_eq!(&*cut("ééé", 2), "é");
        assert_eq!(&*cut("é", 0), "");
        assert_eq!(&*cut("é", 1), "");
    }
}
