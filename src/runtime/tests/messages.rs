//! Messages, from the receive to the delete.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_undecodable_message_is_left_alone_and_its_neighbours_are_not() {
    let world = Arc::new(World::default());
    world.deliver(&["one", "bad {", "ignored x", "two"]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    let mut deleted = world.logged(&["delete"]);
    deleted.sort();
    assert_eq!(deleted, ["delete ignored x", "delete one", "delete two"]);
    assert_eq!(running.signals(), ["one", "two"]);
    for (outcome, count) in [("signal", 2.0), ("ignored", 1.0), ("undecodable", 1.0)] {
        let series = format!("taskset_guardian_messages_total{{outcome=\"{outcome}\"}}");
        assert!((running.count(&series) - count).abs() < f64::EPSILON, "{series}");
    }
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_fails_for_a_passing_reason_is_tried_again_and_others_are_not() {
    let world = Arc::new(World::default());
    locked(&world.undeletable).insert(receipt("throttled"), (1, ErrorClass::Throttled));
    locked(&world.undeletable).insert(receipt("refused"), (9, ErrorClass::Rejected));
    world.deliver(&["throttled", "refused", "fine"]);
    let running = begin(&world);
    running.after(seconds(8)).await;
    assert_eq!(world.logged(&["delete", "batch"]), ["delete fine", "batch of 3", "delete throttled", "batch of 1"]);
    assert_eq!(locked(&world.undeletable)[&receipt("refused")].0, 8, "tried once");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletes_go_out_in_full_batches() {
    let world = Arc::new(World::default());
    deliver_many(&world, 23);
    let running = begin(&world);
    running.after(seconds(1)).await;
    assert_eq!(world.logged(&["batch"]), ["batch of 10", "batch of 10", "batch of 3"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_denied_drops_readiness_and_a_good_receive_restores_it() {
    let world = Arc::new(World::default());
    for _ in 0..3 {
        locked(&world.deliveries).push_back(Err(failure(ErrorClass::Denied)));
    }
    let running = begin(&world);
    running.after(Duration::from_millis(6500)).await;
    assert_eq!(world.polls_begun.load(Ordering::Relaxed), 3, "at 0 s, 1 s, 3 s; the next at 7 s");
    assert!(
        running.handle.health().missing().iter().any(|(part, why)| part.as_str() == "queue" && why.contains("denied"))
    );
    running.after(seconds(11)).await;
    assert_eq!(running.handle.health().missing(), []);
    running.end().await.unwrap();
}
