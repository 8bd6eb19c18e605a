//! Who is green and who is blue: by age, never by label.

use crate::model::{TaskSet, TaskSetId, TaskSetStatus};

/// The newest living task set beside an older living one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Roles<'a> {
    /// The newest.
    pub(super) green: &'a TaskSet,
    /// The PRIMARY among the older ones. When none is, the newest that was not condemned, or the newest when all were.
    pub(super) blue: &'a TaskSet,
}

/// `None` while fewer than two task sets live: no deployment. What is `condemned`, because a rollback of it was decided
/// once, is no version to go back to, unless a person has made it PRIMARY.
pub(super) fn roles<'a>(task_sets: &'a [TaskSet], condemned: &[TaskSetId]) -> Option<Roles<'a>> {
    let age = |set: &&TaskSet| (set.created_at, set.id.clone());
    let living = || task_sets.iter().filter(|set| set.is_living());
    let green = living().max_by_key(age)?;
    let older = || living().filter(|set| set.id != green.id);
    let trusted = |set: &&TaskSet| (!condemned.contains(&set.id), age(set));
    let blue = older().find(|set| set.status == TaskSetStatus::Primary).or_else(|| older().max_by_key(trusted))?;
    Some(Roles { green, blue })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Stability, Tags, TaskSetArn, TaskSetId, Timestamp};

    fn set(id: &str, created: i64, status: TaskSetStatus) -> TaskSet {
        TaskSet {
            id: TaskSetId::new(id),
            arn: TaskSetArn::new(id),
            status,
            created_at: Timestamp::from_millis(created),
            stability: Stability::Steady,
            running: 1,
            pending: 0,
            computed_desired: 1,
            target_group: None,
            task_definition: Arc::from("t:1"),
            external_id: Some(Arc::from("blue")),
            tags: Tags::new(),
        }
    }

    fn named(sets: &[TaskSet]) -> Option<(&str, &str)> {
        named_beside(sets, &[])
    }

    fn named_beside<'a>(sets: &'a [TaskSet], condemned: &[&str]) -> Option<(&'a str, &'a str)> {
        let condemned: Vec<_> = condemned.iter().map(|id| TaskSetId::new(*id)).collect();
        roles(sets, &condemned).map(|r| (r.green.id.as_str(), r.blue.id.as_str()))
    }

    #[test]
    fn the_newest_is_green_whatever_its_label_or_status() {
        let sets = [set("a", 1, TaskSetStatus::Active), set("b", 2, TaskSetStatus::Primary)];
        assert_eq!(named(&sets), Some(("b", "a")));
    }

    #[test]
    fn the_primary_among_the_older_is_blue() {
        let sets = [
            set("a", 1, TaskSetStatus::Primary),
            set("b", 2, TaskSetStatus::Active),
            set("c", 3, TaskSetStatus::Active),
        ];
        assert_eq!(named(&sets), Some(("c", "a")));
    }

    #[test]
    fn what_was_condemned_is_blue_only_as_primary_or_for_want_of_another() {
        let mut sets = [
            set("a", 1, TaskSetStatus::Active),
            set("b", 2, TaskSetStatus::Active),
            set("c", 3, TaskSetStatus::Primary),
        ];
        assert_eq!(named(&sets), Some(("c", "b")));
        assert_eq!(named_beside(&sets, &["b"]), Some(("c", "a")));
        assert_eq!(named_beside(&sets, &["a", "b"]), Some(("c", "b")));
        (sets[1].status, sets[2].status) = (TaskSetStatus::Primary, TaskSetStatus::Active);
        assert_eq!(named_beside(&sets, &["b"]), Some(("c", "b")), "a person wants it");
    }

    #[test]
    fn a_draining_task_set_plays_no_role() {
        let sets = [set("a", 1, TaskSetStatus::Primary), set("b", 2, TaskSetStatus::Draining)];
        assert_eq!(named(&sets), None);
        assert_eq!(named(&[]), None);
    }
}
