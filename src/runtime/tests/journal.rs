//! What is durable before anything leaves, and what a restart makes of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_message_is_deleted_after_its_commit_and_effects_begin_after_it_too() {
    let world = Arc::new(World::default());
    world.deliver(&["one", "two"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some("two") => Step { changed: true, effects: vec![delete_write(7, "checkout", far())], ..Step::default() },
        Some(_) => Step { changed: true, ..Step::default() },
        None => Step::default(),
    });
    running.after(seconds(1)).await;
    assert_eq!(
        world.logged(&["commit", "delete", "write", "batch"]),
        ["commit 2 entries, 0 incidents", "write 7 begins", "write 7 ends", "delete one", "delete two", "batch of 2"]
    );
    assert_eq!(running.done(), [(7, Outcome::Applied)]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_fails_nothing_leaves_and_when_it_heals_all_goes_on() {
    let world = Arc::new(World::default());
    world.journal_fails.store(true, Ordering::Relaxed);
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some(_) => Step { changed: true, effects: vec![delete_write(7, "checkout", far())], ..Step::default() },
        None => Step::default(),
    });
    running.after(seconds(40)).await;
    assert!(world.logged(&["delete", "write"]).is_empty(), "{:?}", locked(&world.log));
    assert_eq!(world.logged(&["extend"]).first().map(String::as_str), Some("extend one by 60s"));
    let missing = running.handle.health().missing();
    assert!(missing.iter().any(|(part, reason)| part.as_str() == "journal" && reason.contains("as the test")));
    assert!(running.count("taskset_guardian_journal_commit_failures_total") >= 4.0);
    assert_eq!(running.handle.stuck_for(), None, "it waits, it is not stuck");
    assert!(running.handle.status().await.is_some(), "and it still answers");

    world.journal_fails.store(false, Ordering::Relaxed);
    running.after(seconds(11)).await;
    assert_eq!(
        world.logged(&["commit 1", "delete", "write"]),
        ["commit 1 entries, 0 incidents", "write 7 begins", "write 7 ends", "delete one"]
    );
    assert_eq!(running.handle.health().missing(), []);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_needs_no_commit_but_its_message_is_deleted() {
    let world = Arc::new(World::default());
    world.deliver(&["duplicate", "ignored this"]);
    let running = begin_with(&world, |_, _| Step::default());
    running.after(seconds(1)).await;
    assert_eq!(world.logged(&["commit", "delete"]).len(), 2);
    assert_eq!(running.signals(), ["duplicate"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_only_a_read_follows_from_is_committed_with_what_comes_next() {
    let world = Arc::new(World::default());
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| {
        let effects = match input {
            Input::Signal(_) => vec![delete_write(7, "a", far())],
            Input::Done(EffectId(7), _) => vec![Effect::Observe(Ask::examination(ServiceKey::new("prod", "a")))],
            Input::Observed(..) => vec![delete_write(8, "a", far())],
            Input::Done(..) => Vec::new(),
            _ => return Step::default(),
        };
        Step { changed: true, effects, ..Step::default() }
    });
    let commits = || world.logged(&["commit", "write 7 ends", "write 8 begins"]);
    running.after(Duration::from_millis(1)).await;
    let so_far = ["commit 1 entries, 0 incidents", "write 7 ends", "commit 2 entries, 0 incidents", "write 8 begins"];
    assert_eq!(commits(), so_far);
    // Nothing comes next.
    running.after(LINGER).await;
    assert_eq!(commits()[so_far.len()..], so_far[..1]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_signals_is_committed_together() {
    let world = Arc::new(World::default());
    let running = begin(&world);
    running.after(seconds(1)).await;
    // More than there is room for at once.
    deliver_many(&world, 300);
    running.after(seconds(30)).await;
    assert_eq!(world.logged(&["commit"]), ["commit 300 entries, 0 incidents"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_more_of_a_flood() {
    let world = Arc::new(World::default());
    let takes = Duration::from_millis(1);
    *locked(&world.write_takes) = takes;
    let times: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
    let seen = Arc::clone(&times);
    let running = begin_with(&world, move |now, input| match input {
        Input::Signal(_) if locked(&seen).is_empty() => {
            locked(&seen).push(now);
            Step { effects: vec![delete_write(7, "checkout", far())], ..Step::default() }
        }
        Input::Done(..) => {
            locked(&seen).push(now);
            Step::default()
        }
        _ => Step::default(),
    });
    running.after(seconds(1)).await;
    deliver_many(&world, 600);
    running.after(seconds(30)).await;
    let times = std::mem::take(&mut *locked(&times));
    assert_eq!(times, [times[0], times[0].plus(takes)]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_waits_until_the_entries_behind_it_have_its_size() {
    let entry = entry::encode(Timestamp::from_millis(5_000), &Input::Signal(signal("before"))).unwrap();
    let (entries, size) = (vec![entry.clone(); 2000], 2000 * entry.len());
    for (checkpoint, is_due) in [(size, true), (size * 2, false)] {
        let world = Arc::new(World::default());
        *locked(&world.recovered) = Recovered { checkpoint: Some(vec![0; checkpoint]), entries: entries.clone() };
        let running = begin_with(&world, |_, _| Step { changed: true, ..Step::default() });
        running.after(seconds(1)).await;
        assert_eq!(!world.logged(&["checkpoint"]).is_empty(), is_due, "of {checkpoint} bytes, behind {size}");
        let first = world.logged(&["commit", "checkpoint"]).into_iter().next().unwrap();
        assert!(first.starts_with("commit"), "what a checkpoint knows must not come after it");
        running.end().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_fails_is_counted_holds_up_nothing_and_is_not_tried_at_every_turn() {
    let entry = entry::encode(Timestamp::from_millis(5_000), &Input::Signal(signal("before"))).unwrap();
    let world = Arc::new(World::default());
    *locked(&world.recovered) = Recovered { checkpoint: None, entries: vec![entry; 2000] };
    world.checkpoint_fails.store(true, Ordering::Relaxed);
    let running = begin(&world);
    for n in 0..30 {
        deliver_many(&world, n);
        running.after(seconds(1)).await;
    }
    assert_eq!(world.logged(&["checkpoint"]).len(), 3, "in half a minute");
    assert!(running.count("taskset_guardian_journal_commit_failures_total") >= 3.0);
    assert!(running.handle.health().missing().iter().all(|(part, _)| *part != crate::runtime::Part::Journal));
    assert!(world.logged(&["delete"]).len() > 20, "messages are handled");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_replays_the_journal_with_its_own_times_and_begins_no_old_effect() {
    let world = Arc::new(World::default());
    let old = Timestamp::from_millis(5_000);
    let bytes = entry::encode(old, &Input::Signal(signal("before"))).unwrap();
    *locked(&world.recovered) = Recovered { checkpoint: Some(b"state".to_vec()), entries: vec![bytes] };
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&times);
    let running = begin_with(&world, move |now, input| {
        locked(&seen).push(now);
        match input {
            Input::Signal(_) => Step { changed: true, effects: vec![delete_write(1, "a", far())], ..Step::default() },
            Input::Restarted => Step { changed: true, effects: vec![delete_write(2, "a", far())], ..Step::default() },
            _ => Step::default(),
        }
    });
    running.after(seconds(1)).await;
    assert_eq!(locked(&times)[0], old);
    assert!(matches!(locked(&running.inputs)[..3], [Input::Signal(_), Input::Restarted, Input::Rules(_)]));
    assert_eq!(world.logged(&["write", "commit"]), ["commit 1 entries, 0 incidents", "write 2 begins", "write 2 ends"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_before_a_restart_is_told_first_so_that_what_begins_anew_does_so_by_the_new_one() {
    let world = Arc::new(World::default());
    let bytes = entry::encode(far(), &Input::Signal(signal("before"))).unwrap();
    *locked(&world.recovered) = Recovered { checkpoint: None, entries: vec![bytes] };
    let running = begin_with(&world, |_, _| Step::default());
    running.after(seconds(1)).await;
    let inputs = locked(&running.inputs)[1..4].to_vec();
    assert!(matches!(inputs[..], [Input::ClockSet { by_ms: ..0 }, Input::Restarted, Input::Rules(_)]), "{inputs:?}");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_another_version_is_refused_with_the_cure() {
    let world = Arc::new(World::default());
    *locked(&world.recovered) = Recovered { checkpoint: None, entries: vec![b"{}".to_vec()] };
    let error = begin(&world).task.await.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("an entry that this version can't read") && error.contains("move the journal away"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_next_worker_goes_on_from_the_journal_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guardian.redb");
    let run = async |world: &Arc<World>| {
        let journal = Arc::new(crate::journal::RedbJournal::open(&path).await.unwrap());
        let running = begin_on(world, Ports { journal, ..world.ports() }, |_, input| Step {
            changed: name_of(input).is_some(),
            ..Step::default()
        });
        running.after(seconds(2)).await;
        running
    };
    let world = Arc::new(World::default());
    world.deliver(&["one", "two"]);
    let crashed = run(&world).await;
    crashed.task.abort();
    assert!(crashed.task.await.unwrap_err().is_cancelled());

    world.deliver(&["three"]);
    let next = run(&world).await;
    assert_eq!(next.signals(), ["one", "two", "three"]);
    assert!(matches!(locked(&next.inputs)[2], Input::Restarted), "the first two were replayed");
    next.end().await.unwrap();
    assert_eq!(run(&world).await.signals(), Vec::<String>::new(), "an orderly end leaves a checkpoint, no entries");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_hangs_is_one_that_fails_and_the_loop_that_waits_for_it_is_not_stuck() {
    let world = Arc::new(World::default());
    locked(&world.hangs).insert("append");
    world.deliver(&["one"]);
    let running = begin_with(&world, |_, input| match name_of(input) {
        Some(_) => Step { changed: true, effects: vec![delete_write(7, "checkout", far())], ..Step::default() },
        None => Step::default(),
    });
    running.after(seconds(60)).await;
    assert!(world.logged(&["delete", "write"]).is_empty(), "{:?}", locked(&world.log));
    let missing = running.handle.health().missing();
    assert!(
        missing.iter().any(|(part, why)| part.as_str() == "journal" && why.contains("does not answer")),
        "{missing:?}"
    );
    assert!(running.count("taskset_guardian_journal_commit_failures_total") >= 3.0);
    assert_eq!(running.handle.stuck_for(), None);
    assert!(running.handle.status().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn few_large_entries_make_a_checkpoint_too() {
    let large = entry::encode(Timestamp::EPOCH, &Input::Signal(signal(&"x".repeat(1 << 20)))).unwrap();
    for (count, is_due) in [(7, false), (8, true)] {
        let world = Arc::new(World::default());
        *locked(&world.recovered) = Recovered { checkpoint: None, entries: vec![large.clone(); count] };
        let running = begin(&world);
        running.after(seconds(1)).await;
        assert_eq!(!world.logged(&["checkpoint"]).is_empty(), is_due, "behind {count} of a megabyte");
        running.end().await.unwrap();
    }
}
