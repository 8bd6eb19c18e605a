//! `EventBridge` as the announcer.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::operation::put_events::PutEventsOutput;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, PutEventsResultEntry};
use aws_smithy_types::DateTime;

use super::calls::{Calls, Operation};
use crate::model::{Announcement, CallError, ErrorClass, SOURCE};
use crate::ports::Announcer;

const PUT_EVENTS: Operation = Operation::new("events", "PutEvents");

/// One event bus.
pub struct Bus {
    client: Client,
    calls: Calls,
    name: Option<String>,
}

impl Bus {
    pub(super) fn new(config: &SdkConfig, calls: Calls, name: Option<&str>) -> Self {
        Self { client: Client::new(config), calls, name: name.map(str::to_owned) }
    }
}

#[async_trait]
impl Announcer for Bus {
    async fn announce(&self, announcement: &Announcement) -> Result<(), CallError> {
        let entry = entry(announcement, self.name.clone())
            .map_err(|error| PUT_EVENTS.error(ErrorClass::Rejected, error.to_string()))?;
        let refused = |answer: &PutEventsOutput| answer.entries().iter().find_map(refusal);
        let call = self.client.put_events().entries(entry).send();
        let answer =
            self.calls.send_entries(PUT_EVENTS, call, |answer| refused(answer).map(|error| error.class)).await?;
        refused(&answer).map_or(Ok(()), Err)
    }
}

fn entry(announcement: &Announcement, bus: Option<String>) -> Result<PutEventsRequestEntry, serde_json::Error> {
    Ok(PutEventsRequestEntry::builder()
        .source(SOURCE)
        .detail_type(announcement.kind.detail_type())
        .detail(serde_json::to_string(announcement)?)
        .time(DateTime::from_millis(announcement.at.as_millis()))
        .set_resources(green_arn(announcement).map(|arn| vec![arn]))
        .set_event_bus_name(bus)
        .build())
}

/// Green's ARN, put together from what the announcement says. `None` when its scope is not known.
fn green_arn(announcement: &Announcement) -> Option<String> {
    let (account, region) = announcement.scope.split_once('/')?;
    if account.is_empty() || region.is_empty() {
        return None;
    }
    let partition = match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let (service, green) = (&announcement.service, &announcement.green);
    Some(format!("arn:{partition}:ecs:{region}:{account}:task-set/{service}/{green}"))
}

/// The call answers HTTP 200 even when the bus refused the event.
fn refusal(entry: &PutEventsResultEntry) -> Option<CallError> {
    let code = entry.error_code()?;
    let message = entry.error_message().unwrap_or_default();
    let class = ErrorClass::of(Some(code), message, None);
    Some(CallError { code: Some(code.to_owned()), ..PUT_EVENTS.error(class, message) })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::model::{AnnouncementKind, SCHEMA_VERSION, ServiceKey, TaskSetId, Timestamp};

    pub(in crate::aws) fn announcement() -> Announcement {
        Announcement {
            schema_version: SCHEMA_VERSION,
            id: "a-1".to_owned(),
            kind: AnnouncementKind::RollbackStarted,
            at: Timestamp::from_millis(1_772_445_880_989),
            incident: None,
            service: ServiceKey::new("prod", "checkout"),
            scope: "111122223333/eu-west-1".to_owned(),
            green: TaskSetId::new("ecs-svc/2"),
            blue: TaskSetId::new("ecs-svc/1"),
            task_definition: "checkout:87".to_owned(),
            reason: "3 tasks failed".to_owned(),
            dry_run: false,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn an_announcement_becomes_one_entry_with_green_as_its_resource() {
        let entry = entry(&announcement(), Some("ops".to_owned())).unwrap();
        assert_eq!((entry.source(), entry.detail_type()), (Some("taskset-guardian"), Some("Rollback Started")));
        assert_eq!(entry.event_bus_name(), Some("ops"));
        assert_eq!(
            entry.resources(),
            ["arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/ecs-svc/2".to_owned()]
        );
        let detail: Announcement = serde_json::from_str(entry.detail().unwrap()).unwrap();
        assert_eq!(detail, announcement());
    }

    #[test]
    fn without_a_scope_no_resource_is_made_up() {
        let nowhere = Announcement { scope: "/".to_owned(), ..announcement() };
        assert!(entry(&nowhere, None).unwrap().resources().is_empty());
    }

    #[test]
    fn an_event_refused_by_the_bus_is_an_error_by_its_code() {
        let refused = |code: &str| refusal(&PutEventsResultEntry::builder().error_code(code).build()).unwrap().class;
        assert_eq!(refused("ThrottlingException"), ErrorClass::Throttled);
        assert_eq!(refused("InternalFailure"), ErrorClass::Transient);
        assert_eq!(refused("NotAuthorizedForSourceException"), ErrorClass::Denied);
        assert_eq!(refused("MalformedDetail"), ErrorClass::Rejected);
        assert_eq!(refusal(&PutEventsResultEntry::builder().event_id("1").build()), None);
    }
}
