//! Reads, writes and deadlines.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_expired_write_is_not_sent_even_when_it_expired_in_the_queue_behind_others() {
    let world = Arc::new(World::default());
    *locked(&world.write_takes) = seconds(5);
    world.deliver(&["one"]);
    let soon = world.clock.now().plus(seconds(3));
    // As many as there is room for, one that waits for room too long, and one that was late from the beginning.
    let room = u64::try_from(crate::runtime::executor::DELETES).unwrap();
    let running = begin_with(&world, move |_, input| match input {
        Input::Signal(_) => {
            let late = delete_write(room + 2, "a", Timestamp::EPOCH);
            let effects = (1..=room + 1).map(|id| delete_write(id, "a", soon)).chain([late]).collect();
            Step { changed: true, effects, ..Step::default() }
        }
        _ => Step::default(),
    });
    running.after(seconds(9)).await;
    let begun = world.logged(&["write"]).into_iter().filter(|line| line.ends_with("begins")).collect::<BTreeSet<_>>();
    assert_eq!(begun, (1..=room).map(|id| format!("write {id} begins")).collect());
    let done: std::collections::BTreeMap<_, _> = running.done().into_iter().collect();
    let sent = (1..=room).map(|id| (id, Outcome::Applied));
    assert_eq!(done, sent.chain([(room + 1, Outcome::Expired), (room + 2, Outcome::Expired)]).collect());
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_read_that_users_wait_for_ends_a_less_urgent_one_and_one_answer_comes() {
    let world = Arc::new(World::default());
    locked(&world.hangs).insert("observe");
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| {
        let urgency = match name_of(input) {
            Some("one") => Urgency::Routine,
            Some(_) => Urgency::Traffic,
            None => return Step::default(),
        };
        let ask = Ask { urgency, ..Ask::examination(ServiceKey::new("prod", "a")) };
        Step { effects: vec![Effect::Observe(ask)], ..Step::default() }
    });
    running.after(seconds(1)).await;
    locked(&world.hangs).clear();
    world.deliver(&["two"]);
    running.after(seconds(30)).await;
    assert_eq!(world.logged(&["observe"]), ["observe prod/a Routine", "observe prod/a Traffic"]);
    let answers = locked(&running.inputs).iter().filter(|input| matches!(input, Input::Observed(..))).count();
    assert_eq!(answers, 1);
    running.end().await.unwrap();
}

/// As by a clock that was set forward before the read and back after it, between two looks of the loop.
#[tokio::test(start_paused = true)]
async fn a_read_that_is_younger_than_the_time_since_it_was_sent_allows_is_a_failed_one() {
    for (ahead, believed) in [(Duration::ZERO, true), (Duration::from_millis(50), true), (seconds(200), false)] {
        let world = Arc::new(World::default());
        *locked(&world.reads_ahead) = Some(ahead);
        world.deliver(&["one"]);
        let running = begin_with(&world, |_, input| match name_of(input) {
            Some(_) => {
                let ask = Ask::examination(ServiceKey::new("prod", "a"));
                Step { effects: vec![Effect::Observe(ask)], ..Step::default() }
            }
            None => Step::default(),
        });
        running.after(seconds(1)).await;
        let answers: Vec<_> = locked(&running.inputs)
            .iter()
            .filter_map(|input| if let Input::Observed(_, answer) = input { Some(answer.is_ok()) } else { None })
            .collect();
        assert_eq!(answers, [believed], "{ahead:?} ahead");
        running.end().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn writes_that_are_sent_together_do_not_wait_for_each_other() {
    let world = Arc::new(World::default());
    *locked(&world.write_takes) = seconds(1);
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match input {
        Input::Signal(_) => {
            let effects = vec![delete_write(1, "a", far()), delete_write(2, "a", far()), delete_write(3, "b", far())];
            Step { changed: true, effects, ..Step::default() }
        }
        _ => Step::default(),
    });
    running.after(Duration::from_millis(500)).await;
    let mut begun = world.logged(&["write"]);
    begun.sort();
    assert_eq!(begun, ["write 1 begins", "write 2 begins", "write 3 begins"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_write_is_answered_whatever_happens() {
    for (class, panics, expected) in [
        (Some(ErrorClass::NotFound), false, Outcome::AlreadyDone),
        (Some(ErrorClass::Denied), false, Outcome::Failed(failure(ErrorClass::Denied))),
        (None, true, Outcome::Applied),
    ] {
        let world = Arc::new(World::default());
        *locked(&world.write_fails) = class;
        world.write_panics.store(panics, Ordering::Relaxed);
        world.deliver(&["one"]);
        let running = begin_with(&world, |_, input| match input {
            Input::Signal(_) => Step { effects: vec![delete_write(1, "a", far())], ..Step::default() },
            _ => Step::default(),
        });
        running.after(seconds(1)).await;
        match running.done().as_slice() {
            [(1, Outcome::Failed(error))] if panics => assert_eq!(error.class, ErrorClass::Transient),
            [(1, outcome)] => assert_eq!(*outcome, expected),
            other => panic!("{other:?}"),
        }
        running.end().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_has_nothing_to_write_with() {
    let world = Arc::new(World::default());
    let (answers, mut done) = tokio::sync::mpsc::channel(8);
    let ports = world.ports();
    let executor =
        crate::runtime::executor::Executor::new(ports.clock, ports.observer, None, None, answers, Term::endless());
    executor.begin(delete_write(1, "a", far()), born(&world));
    executor.close().wait().await;
    assert_eq!(done.recv().await.unwrap().input, Input::Done(crate::model::EffectId(1), Outcome::Suppressed));
    assert!(locked(&world.log).is_empty(), "{:?}", locked(&world.log));
}

#[tokio::test(start_paused = true)]
async fn reads_end_with_the_executor_and_nobody_waits_for_them() {
    let world = Arc::new(World::default());
    locked(&world.hangs).insert("observe");
    let (answers, mut done) = tokio::sync::mpsc::channel(8);
    let ports = world.ports();
    let executor =
        crate::runtime::executor::Executor::new(ports.clock, ports.observer, None, None, answers, Term::endless());
    for name in ["a", "b"] {
        executor.begin(Effect::Observe(Ask::examination(ServiceKey::new("prod", name))), born(&world));
    }
    let began = tokio::time::Instant::now();
    executor.close().wait().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(executor);
    let end = tokio::time::timeout(seconds(60), done.recv()).await;
    assert_eq!(end.expect("nobody holds on to the channel").map(|incoming| incoming.input), None);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_becomes_a_tick_and_a_stale_one_does_not_spin() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    running.after(seconds(1)).await;
    let ticks = || locked(&running.inputs).iter().filter(|input| **input == Input::Tick).count();
    *locked(&running.deadline) = Some(world.clock.now().plus(seconds(7)));
    running.after(seconds(6)).await;
    assert_eq!(ticks(), 0);
    running.after(seconds(6)).await;
    let after = ticks();
    assert!((1..=260).contains(&after), "the deadline stays in the past for 5 s: {after} ticks");
    *locked(&running.deadline) = None;
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_holds_up_no_tick() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    let ticks = || locked(&running.inputs).iter().filter(|input| **input == Input::Tick).count();
    *locked(&running.deadline) = Some(world.clock.now());
    running.after(seconds(1)).await;
    assert!(ticks() > 0);
    *locked(&running.deadline) = None;
    world.clock.set_by_ms(-3_600_000);
    running.after(seconds(10)).await;
    let before = ticks();
    *locked(&running.deadline) = Some(world.clock.now().plus(seconds(5)));
    running.after(seconds(6)).await;
    assert!(ticks() > before, "{:?}", locked(&running.inputs));
    *locked(&running.deadline) = None;
    running.end().await.unwrap();
}
