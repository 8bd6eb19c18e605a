//! Why a task ended.

use std::sync::Arc;

use crate::model::{StopClass, TargetGroupArn};

/// Whom a task's end speaks against, by stop code and stopped reason.
pub fn classify(code: &str, reason: &str) -> StopClass {
    match code {
        "EssentialContainerExited" | "TaskFailedToStart" => StopClass::Version,
        "ServiceSchedulerInitiated" if reason.starts_with("Task failed") => StopClass::Version,
        "ServiceSchedulerInitiated" => StopClass::Neutral,
        "UserInitiated" => StopClass::Operator,
        "SpotInterruption" | "TerminationNotice" | "InfrastructureHealth" => StopClass::Infrastructure,
        _ => StopClass::Unknown,
    }
}

/// The target group named in an ELB stop reason.
pub fn target_group_in(reason: &str) -> Option<TargetGroupArn> {
    let start = reason.find("(target-group ")? + "(target-group ".len();
    let end = reason[start..].find(')')? + start;
    Some(TargetGroupArn::new(&reason[start..end]))
}

/// The text's first `max` bytes, fewer when that would split a character.
pub fn cut(text: &str, max: usize) -> Arc<str> {
    Arc::from(&text[..text.floor_char_boundary(max)])
}
