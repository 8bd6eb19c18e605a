//! Announcements: what the guardian tells the world on `EventBridge`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Evidence, IncidentId, ServiceKey, TaskSetId, Timestamp};

/// `source` of every event that the guardian emits.
pub const SOURCE: &str = "taskset-guardian";

/// The application's name in the `User-Agent` of its calls, as the SDK writes it, by which CloudTrail tells them apart.
pub const USER_AGENT: &str = "app/taskset-guardian";

/// Version of the `detail` document. Raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// One event. Its serialization is the `detail`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Stable over retries: consumers drop repeats by it.
    pub id: String,
    /// Which of the five.
    pub kind: AnnouncementKind,
    /// When it was decided.
    pub at: Timestamp,
    /// Correlates all events of one rollback. Absent for a graduation.
    pub incident: Option<IncidentId>,
    /// Which service.
    pub service: ServiceKey,
    /// The service's account and Region, as in `111122223333/eu-west-1`.
    pub scope: String,
    /// The task set that was judged.
    pub green: TaskSetId,
    /// The one that it was to replace.
    pub blue: TaskSetId,
    /// Green's task definition.
    pub task_definition: String,
    /// In plain words.
    pub reason: String,
    /// True when nothing was or will be changed: observe mode or dry run.
    pub dry_run: bool,
    /// What the decision rests on.
    pub evidence: Vec<Evidence>,
}

/// The five announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementKind {
    /// The plan begins.
    RollbackStarted,
    /// Traffic is safe, green is gone.
    RollbackCompleted,
    /// A person is needed.
    RollbackEscalated,
    /// Decided, and deliberately not done.
    RollbackHeld,
    /// Green took over.
    DeploymentGraduated,
}

impl AnnouncementKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::RollbackStarted,
        Self::RollbackCompleted,
        Self::RollbackEscalated,
        Self::RollbackHeld,
        Self::DeploymentGraduated,
    ];

    /// `detail-type` on `EventBridge`.
    pub const fn detail_type(self) -> &'static str {
        match self {
            Self::RollbackStarted => "Rollback Started",
            Self::RollbackCompleted => "Rollback Completed",
            Self::RollbackEscalated => "Rollback Escalated",
            Self::RollbackHeld => "Rollback Held",
            Self::DeploymentGraduated => "Deployment Graduated",
        }
    }
}
