//! Tasks: how they start, run, crash, fail health checks, get interrupted and stop, event by event.

use std::time::Duration;

use fastrand::Rng;

use super::behaviour::{Loss, Start};
use super::health::{Health, Target};
use super::{Happening, World, names};
use crate::model::{ServiceKey, Timestamp};

/// ECS keeps stopped tasks for at least an hour.
const KEPT: Duration = Duration::from_hours(1);
/// ECS replaces a task that ran before within these.
const REPLACEMENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));
/// ECS waits this long, doubled per failure, after a task that could not start: up to 15 minutes.
const START_BACK_OFF: Duration = Duration::from_secs(4);
const LONGEST_BACK_OFF: Duration = Duration::from_mins(15);
/// After this many tasks in a row that could not start, ECS says so.
const IMPAIRED_AFTER: u32 = 3;

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) arn: String,
    pub(super) service: ServiceKey,
    /// Id of its task set.
    pub(super) started_by: String,
    /// Its task definition, as in `checkout:88`.
    pub(super) definition: String,
    /// The place that it takes among the tasks of its task set; whoever replaces it takes it over.
    pub(super) place: u32,
    pub(super) status: TaskStatus,
    /// `desiredStatus` is RUNNING.
    pub(super) wanted: bool,
    pub(super) version: u64,
    /// Moves planned under an older number are void.
    life: u64,
    /// Stop code and stopped reason.
    pub(super) stop: Option<(String, String)>,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) stopping_at: Option<Timestamp>,
    pub(super) stopped_at: Option<Timestamp>,
    pub(super) exit_code: Option<i32>,
    pub(super) exit_reason: Option<String>,
    pub(super) ip: String,
    pub(super) attachment: String,
    /// Its entry in the target group, while there is one.
    pub(super) target: Option<Target>,
}

/// `lastStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TaskStatus {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
}

impl TaskStatus {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// A step in a task's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskMove {
    Pend,
    FailToStart,
    Activate,
    Run,
    Break,
    Crash,
    InterruptSpot,
    Deactivate,
    Stop,
    Deprovision,
    End,
}

impl Task {
    fn new(rng: &mut Rng, service: &ServiceKey, task_set: &str, task_definition: &str, now: Timestamp) -> Self {
        Self {
            place: 0,
            arn: names::task_arn(&service.cluster, &names::hex(rng, 32)),
            service: service.clone(),
            started_by: task_set.to_owned(),
            definition: task_definition.to_owned(),
            status: TaskStatus::Provisioning,
            wanted: true,
            version: 1,
            life: 0,
            stop: None,
            created_at: now,
            started_at: None,
            stopping_at: None,
            stopped_at: None,
            exit_code: None,
            exit_reason: None,
            ip: format!("10.0.{}.{}", rng.u8(0..128), rng.u8(4..=254)),
            attachment: names::uuid(rng),
            target: None,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.status == TaskStatus::Stopped
    }

    pub(super) fn is_pending(&self) -> bool {
        self.wanted && self.status < TaskStatus::Running
    }

    pub(super) fn is_running(&self) -> bool {
        self.status == TaskStatus::Running
    }

    pub(super) fn desired_status(&self) -> &'static str {
        if self.wanted { "RUNNING" } else { "STOPPED" }
    }

    pub(super) fn container_status(&self) -> &'static str {
        match self.status {
            TaskStatus::Provisioning | TaskStatus::Pending => "PENDING",
            TaskStatus::Activating | TaskStatus::Running | TaskStatus::Deactivating | TaskStatus::Stopping => "RUNNING",
            TaskStatus::Deprovisioning | TaskStatus::Stopped => "STOPPED",
        }
    }

    pub(super) fn image(&self) -> String {
        let (name, tag) = self.definition.split_once(':').unwrap_or((&self.definition, "latest"));
        format!("{}.dkr.ecr.{}.amazonaws.com/{name}:{tag}", names::ACCOUNT, names::REGION)
    }

    /// Known once the image was pulled; the same for all tasks of a version.
    pub(super) fn image_digest(&self) -> Option<String> {
        let pulled = self.started_at.is_some();
        let seed = self.definition.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        pulled.then(|| format!("sha256:{}", names::hex(&mut Rng::with_seed(seed), 64)))
    }
}

impl World {
    /// ECS starts one task of a task set.
    pub(super) fn start_task(&mut self, service: &ServiceKey, task_set: &str, task_definition: &str) {
        let mut task = Task::new(&mut self.fate, service, task_set, task_definition, self.now);
        task.place = self.free_place(task_set);
        let arn = task.arn.clone();
        self.tasks.insert(arn.clone(), task);
        self.emit_task(&arn);
        let soon = names::between(&mut self.fate, Duration::from_millis(300), Duration::from_millis(1200));
        self.plan_move(&arn, soon, TaskMove::Pend);
    }

    /// A task that has been running since long before the world began.
    pub(super) fn found_task(
        &mut self,
        service: &ServiceKey,
        task_set: &str,
        task_definition: &str,
        group: Option<&str>,
    ) {
        let since = self.now.minus(Duration::from_hours(1));
        let mut task = Task::new(&mut self.fate, service, task_set, task_definition, since);
        task.status = TaskStatus::Running;
        task.version = 4;
        task.started_at = Some(since.plus(Duration::from_secs(15)));
        task.place = self.free_place(task_set);
        task.target = group.map(|group| Target::new(group, Health::Healthy, since));
        let arn = task.arn.clone();
        self.tasks.insert(arn.clone(), task);
        self.plan_checks(&arn);
        self.plan_ends(&arn);
    }

    /// The first place that no task of the task set takes.
    fn free_place(&self, task_set: &str) -> u32 {
        let taken: Vec<_> = self.tasks_of(task_set).filter(|task| task.wanted).map(|task| task.place).collect();
        (0..=u32::MAX).find(|place| !taken.contains(place)).unwrap_or_default()
    }

    fn plan_move(&mut self, arn: &str, after: Duration, step: TaskMove) {
        if let Some(task) = self.tasks.get(arn) {
            self.plan(after, Happening::Task(arn.to_owned(), task.life, step));
        }
    }

    /// How a running task will end by itself, if it will.
    fn plan_ends(&mut self, arn: &str) {
        let Some(task) = self.tasks.get(arn) else { return };
        let (behaviour, breaks_at) = (self.behaviour(task), self.breaks_at(task));
        self.plan_crash(arn);
        if let Some(at) = breaks_at.filter(|at| *at > self.now) {
            self.plan_move(arn, at.since(self.now), TaskMove::Break);
        }
        if let Some(mean) = behaviour.spot_interruption {
            let after = mean.mul_f64(2.0 * self.fate.f64());
            self.plan_move(arn, after, TaskMove::InterruptSpot);
        }
    }

    pub(super) fn plan_crash(&mut self, arn: &str) {
        let crash = self.tasks.get(arn).and_then(|task| self.behaviour(task).crash);
        if let Some(crash) = crash {
            let after = names::about(&mut self.fate, crash.after);
            self.plan_move(arn, after, TaskMove::Crash);
        }
    }

    pub(super) fn move_task(&mut self, arn: &str, life: u64, step: TaskMove) {
        let Some(task) = self.tasks.get(arn).filter(|task| task.life == life) else { return };
        let (service, task_set, place) = (task.service.clone(), task.started_by.clone(), task.place);
        let version = self.behaviour(task);
        match step {
            TaskMove::Pend => {
                self.set_status(arn, TaskStatus::Pending);
                let pull = names::about(&mut self.fate, version.start_delay);
                match version.start {
                    Start::Runs => self.plan_move(arn, pull, TaskMove::Activate),
                    Start::CannotPull => self.plan_move(arn, pull, TaskMove::FailToStart),
                    Start::AtMost(most) if place < most => self.plan_move(arn, pull, TaskMove::Activate),
                    Start::AtMost(_) => {}
                }
            }
            TaskMove::FailToStart => self.fail_to_start(arn),
            TaskMove::Activate => {
                self.set_status(arn, TaskStatus::Activating);
                let soon = names::between(&mut self.fate, Duration::from_millis(200), Duration::from_millis(900));
                self.plan_move(arn, soon, TaskMove::Run);
            }
            TaskMove::Run => self.run(arn),
            TaskMove::Break => self.plan_crash(arn),
            TaskMove::Crash => self.crash(arn),
            TaskMove::InterruptSpot => self.lose_task(arn, Loss::Spot),
            TaskMove::Deactivate => self.deactivate(arn),
            TaskMove::Stop => {
                self.set_status(arn, TaskStatus::Stopping);
                let obeys = names::between(&mut self.fate, Duration::from_millis(500), Duration::from_millis(2500));
                self.plan_move(arn, obeys, TaskMove::Deprovision);
            }
            TaskMove::Deprovision => {
                if let Some(task) = self.tasks.get_mut(arn) {
                    // It obeyed SIGTERM; a container that never ran has no exit code.
                    task.exit_code = task.started_at.map(|_| 143);
                }
                self.set_status(arn, TaskStatus::Deprovisioning);
                self.plan_end(arn);
            }
            TaskMove::End => self.end(arn),
        }
        self.update_stability(&service, &task_set);
    }

    /// AWS takes a task away, with a warning or without.
    pub(super) fn lose_task(&mut self, arn: &str, loss: Loss) {
        match loss {
            Loss::Spot => {
                self.begin_stop(arn, "SpotInterruption", "Your Spot Task was interrupted.");
                let warning = self.setup.timing.spot_warning;
                self.emit_change(arn);
                self.plan_move(arn, warning, TaskMove::Deactivate);
                self.tell(arn, "lost its Spot capacity");
            }
            Loss::Zone => {
                self.begin_stop(arn, "TerminationNotice", "The infrastructure hosting the task was lost.");
                self.set_status(arn, TaskStatus::Deprovisioning);
                self.plan_end(arn);
                self.tell(arn, "is lost with its Availability Zone");
            }
        }
        self.replace_later(arn);
    }

    fn run(&mut self, arn: &str) {
        let group = self.task_set_of(arn).and_then(|set| set.group.clone());
        if let Some(task) = self.tasks.get_mut(arn) {
            task.started_at = Some(self.now);
            task.target = group.map(|group| Target::new(&group, Health::Initial, self.now));
        }
        self.set_status(arn, TaskStatus::Running);
        self.plan_checks(arn);
        self.plan_ends(arn);
        if let Some(set) = self.task_set_of_mut(arn) {
            set.start_failures = 0;
        }
        self.tell(arn, "runs");
    }

    fn crash(&mut self, arn: &str) {
        let crash = self.tasks.get(arn).and_then(|task| self.behaviour(task).crash);
        // What it would have died of may be over.
        let Some(crash) = crash else { return };
        self.begin_stop(arn, "EssentialContainerExited", "Essential container in task exited");
        if let Some(task) = self.tasks.get_mut(arn) {
            task.exit_code = Some(crash.exit_code);
            let killed = "OutOfMemoryError: Container killed due to memory usage";
            task.exit_reason = crash.out_of_memory.then(|| killed.to_owned());
        }
        self.set_status(arn, TaskStatus::Deprovisioning);
        self.plan_end(arn);
        self.tell(arn, &format!("crashed (exit {})", crash.exit_code));
        self.replace_later(arn);
    }

    fn fail_to_start(&mut self, arn: &str) {
        let Some(image) = self.tasks.get(arn).map(Task::image) else { return };
        let reason = format!(
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref {image}: \
             {image}: not found"
        );
        self.begin_stop(arn, "TaskFailedToStart", &reason);
        self.set_status(arn, TaskStatus::Deprovisioning);
        self.plan_end(arn);
        self.tell(arn, "could not start: its image can't be pulled");
        let now = self.now;
        let Some(set) = self.task_set_of_mut(arn) else { return };
        set.start_failures = set.start_failures.saturating_add(1);
        let doublings = set.start_failures.min(8);
        set.not_before = now.plus((START_BACK_OFF * 2_u32.pow(doublings)).min(LONGEST_BACK_OFF));
        let impaired = set.start_failures.is_multiple_of(IMPAIRED_AFTER);
        let Some(service) = self.tasks.get(arn).map(|task| task.service.clone()) else { return };
        if impaired {
            self.emit_service_action(&service, "WARN", "SERVICE_TASK_START_IMPAIRED");
        }
        self.replace_later(arn);
    }

    /// ECS stops a task: out of the load balancer first, then SIGTERM.
    pub(super) fn stop_task(&mut self, arn: &str, code: &str, reason: &str) {
        let Some(task) = self.tasks.get(arn).filter(|task| task.wanted) else { return };
        let was_running = task.is_running();
        self.begin_stop(arn, code, reason);
        if was_running {
            self.deactivate(arn);
        } else {
            self.set_status(arn, TaskStatus::Deprovisioning);
            self.plan_end(arn);
        }
    }

    /// Whatever else was planned for the task is void from now on.
    fn begin_stop(&mut self, arn: &str, code: &str, reason: &str) {
        if let Some(task) = self.tasks.get_mut(arn) {
            task.wanted = false;
            task.life += 1;
            task.stopping_at = Some(self.now);
            task.stop = Some((code.to_owned(), reason.to_owned()));
        }
    }

    fn deactivate(&mut self, arn: &str) {
        let mut drains = Duration::from_millis(300);
        self.note_sickness(arn);
        if let Some(target) = self.tasks.get_mut(arn).and_then(|task| task.target.as_mut()) {
            target.turn(Health::Draining, self.now);
            drains = self.setup.timing.deregistration;
        }
        self.set_status(arn, TaskStatus::Deactivating);
        self.plan_move(arn, drains, TaskMove::Stop);
    }

    fn plan_end(&mut self, arn: &str) {
        let soon = names::between(&mut self.fate, Duration::from_millis(500), Duration::from_secs(2));
        self.plan_move(arn, soon, TaskMove::End);
    }

    fn end(&mut self, arn: &str) {
        let healthy = |target: &Target| target.health == Health::Healthy;
        if self.tasks.get(arn).and_then(|task| task.target.as_ref()).is_some_and(healthy) {
            self.note_sickness(arn);
        }
        if let Some(task) = self.tasks.get_mut(arn) {
            task.stopped_at = Some(self.now);
            task.target = None;
        }
        self.set_status(arn, TaskStatus::Stopped);
        self.plan(KEPT, Happening::Forget(arn.to_owned()));
        let Some(task) = self.tasks.remove(arn) else { return };
        let (service, task_set) = (task.service.clone(), task.started_by.clone());
        self.ended.insert(arn.to_owned(), task);
        self.drained(&service, &task_set);
    }

    fn set_status(&mut self, arn: &str, status: TaskStatus) {
        if let Some(task) = self.tasks.get_mut(arn) {
            task.status = status;
        }
        self.emit_change(arn);
    }

    fn emit_change(&mut self, arn: &str) {
        if let Some(task) = self.tasks.get_mut(arn) {
            task.version += 1;
        }
        self.emit_task(arn);
    }

    fn replace_later(&mut self, arn: &str) {
        let Some(task) = self.tasks.get(arn) else { return };
        let (service, task_set) = (task.service.clone(), task.started_by.clone());
        self.replace(&service, &task_set);
    }

    /// ECS notices after a while that a task is missing.
    pub(super) fn replace(&mut self, service: &ServiceKey, task_set: &str) {
        let after = names::between(&mut self.fate, REPLACEMENT.0, REPLACEMENT.1);
        self.plan(after, Happening::Reconcile(service.clone(), task_set.to_owned()));
    }

    pub(super) fn tell(&mut self, arn: &str, what: &str) {
        let label = self.task_set_of(arn).map_or("gone", |set| set.label);
        let short: String = names::last_part(arn).chars().take(8).collect();
        let Some(service) = self.tasks.get(arn).map(|task| task.service.clone()) else { return };
        self.say_of(&service, &format!("{label} task {short} {what}"));
    }
}
