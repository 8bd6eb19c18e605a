//! S4: the same events, in any order and multiplicity, give the same windows; and no flood pushes out what ECS confirmed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;
use taskset_guardian::model::{Stop, StopClass, TaskArn, TaskReading, TaskSetId, Timestamp, Window};

type Event = (u8, u64, i64, bool);

fn task(number: impl std::fmt::Display) -> TaskArn {
    TaskArn::new(format!("arn:aws:ecs:eu-west-1:111122223333:task/prod/{number}"))
}

fn stop(at: i64, speaks: bool) -> Stop {
    Stop {
        at: Timestamp::from_millis(at),
        class: if speaks { StopClass::Version } else { StopClass::Infrastructure },
        code: Arc::from("EssentialContainerExited"),
        reason: Arc::from("Essential container in task exited"),
        containers: Vec::new(),
        target_group: None,
    }
}

fn window(events: &[Event]) -> Window {
    let mut window = Window::default();
    for (number, version, at, speaks) in events {
        window.claim(&task(number), *version, &stop(*at, *speaks));
    }
    window
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0_u8..20, 1_u64..6, 0_i64..100_000, any::<bool>()), 1..60)
}

proptest! {
    #[test]
    fn order_and_multiplicity_do_not_matter(
        (events, mut again) in events().prop_flat_map(|events| {
            let repeated = prop::sample::subsequence(events.clone(), 0..=events.len());
            let all = repeated.prop_map({
                let events = events.clone();
                move |repeated| events.iter().copied().chain(repeated).collect::<Vec<_>>()
            });
            (Just(events), all.prop_shuffle())
        })
    ) {
        prop_assert_eq!(window(&events), window(&again));
        again.reverse();
        prop_assert_eq!(window(&events), window(&again));
    }

    #[test]
    fn what_ecs_confirmed_outlasts_any_flood_of_claims(flood in 200_usize..600, at in 50_000_i64..100_000) {
        let mut window = Window::default();
        for number in 0..3 {
            let confirmed = TaskReading {
                task: task(format!("real-{number}")),
                task_set: TaskSetId::new("ecs-svc/2000"),
                version: 5,
                stop: Some(stop(1000, true)),
                images: taskset_guardian::model::Images::new(),
            };
            window.confirm(&confirmed);
        }
        for number in 0..flood {
            window.claim(&task(format!("forged-{number}")), 9, &stop(at, true));
        }
        let real = window.records().filter(|(task, _)| task.to_string().contains("/real-")).count();
        prop_assert_eq!(real, 3);
        prop_assert!(window.records().count() <= 128);
    }
}
