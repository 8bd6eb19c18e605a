//! How a worker ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_worker_whose_journal_never_heals_ends_with_the_reason_and_deletes_nothing() {
    let world = Arc::new(World::default());
    world.journal_fails.store(true, Ordering::Relaxed);
    world.deliver(&["one"]);
    let running = begin(&world);
    running.after(seconds(5)).await;
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Journal(_)), "{error}");
    assert!(world.logged(&["delete", "checkpoint"]).is_empty());
}

/// Found by `tests/shell`, with calls that get no answer.

#[tokio::test(start_paused = true)]
async fn whatever_hangs_a_worker_ends_before_it_is_killed() {
    for (call, in_order) in [("delete", true), ("append", false), ("load", true)] {
        let world = Arc::new(World::default());
        locked(&world.hangs).insert(call);
        world.deliver(&["one"]);
        let running = begin(&world);
        running.after(seconds(3)).await;
        let told = world.clock.now();
        let ended = running.end().await;
        let took = world.clock.now().since(told);
        assert!(took <= seconds(25), "{call} hangs, and the end takes {took:?}");
        match ended {
            Ok(()) => assert!(in_order, "{call}"),
            Err(error) => assert!(!in_order && matches!(error, WorkerError::Overdue), "{call}: {error}"),
        }
        assert_eq!(world.logged(&["delete"]), [] as [&str; 0], "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receive_in_flight_at_shutdown_is_waited_for_and_its_messages_are_handled() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    running.after(seconds(3)).await;
    assert_eq!(world.polls_begun.load(Ordering::Relaxed), 1);
    world.deliver(&["late"]);
    let begun = world.clock.now();
    running.end().await.unwrap();
    assert_eq!(world.clock.now().since(begun), seconds(7), "no longer than the poll");
    assert_eq!(
        world.logged(&["receive", "commit", "delete", "checkpoint"]),
        ["commit 1 entries, 0 incidents", "checkpoint", "delete late"]
    );
    assert_eq!(world.polls_begun.load(Ordering::Relaxed), 1, "no new receive began");
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_at_shutdown_is_answered_and_nothing_new_begins() {
    let world = Arc::new(World::default());
    *locked(&world.write_takes) = seconds(12);
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match input {
        Input::Signal(_) => Step { changed: true, effects: vec![delete_write(1, "a", far())], ..Step::default() },
        Input::Done(..) => Step { changed: true, effects: vec![delete_write(2, "a", far())], ..Step::default() },
        _ => Step::default(),
    });
    running.after(seconds(1)).await;
    let inputs = Arc::clone(&running.inputs);
    running.end().await.unwrap();
    assert!(locked(&inputs).iter().any(|input| matches!(input, Input::Done(..))));
    assert_eq!(world.logged(&["write"]), ["write 1 begins", "write 1 ends"]);
    assert_eq!(world.logged(&["commit", "checkpoint"]).last().map(String::as_str), Some("checkpoint"));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_dies_ends_the_worker() {
    let world = Arc::new(World::default());
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some(_) => panic!("as the test wants it"),
        None => Step::default(),
    });
    let error = running.task.await.unwrap().unwrap_err();
    assert!(matches!(error, WorkerError::Part { .. }), "{error}");
    assert!(world.logged(&["delete"]).is_empty());
}
