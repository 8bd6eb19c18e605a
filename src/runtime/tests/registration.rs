//! Which services are protected: rules, globs and tags.

use super::*;
use crate::engine::Engine;

#[tokio::test(start_paused = true)]
async fn a_bad_rule_file_keeps_the_last_good_rules_and_is_fatal_only_at_start() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("prod", "checkout")]));
    world.deliver(&[]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    let loaded =
        |running: &Running| locked(&running.inputs).iter().filter(|input| matches!(input, Input::Rules(_))).count();
    assert_eq!((loaded(&running), running.swept()), (1, vec![keys(&[("prod", "checkout")])]));

    *locked(&world.rules) = Err("web.toml:3:1: unknown key".to_owned());
    running.after(seconds(3)).await;
    assert_eq!(loaded(&running), 1, "nothing changed for the engine");
    assert!(running.count("taskset_guardian_rules_last_reload_successful").abs() < f64::EPSILON);
    assert_eq!(running.handle.health().missing(), [], "the last good rules protect");

    *locked(&world.rules) = Ok(rules(&[("prod", "cart")]));
    running.after(seconds(3)).await;
    assert_eq!(loaded(&running), 2);
    assert_eq!(running.swept().last(), Some(&keys(&[("prod", "cart")])), "swept at once, not 30 s later");
    assert!((running.count("taskset_guardian_rules_last_reload_successful") - 1.0).abs() < f64::EPSILON);
    running.end().await.unwrap();

    *locked(&world.rules) = Err("web.toml:3:1: unknown key".to_owned());
    let error = begin(&world).task.await.unwrap().unwrap_err();
    assert!(matches!(&error, WorkerError::Rules(diagnostics) if diagnostics.contains("web.toml:3:1")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_sweep_lists_what_globs_match_and_a_failing_list_drops_nobody() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("prod", "checkout-*"), ("eu-?", "*"), ("other", "literal")]));
    let services = |names: &[&str]| Some(names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>());
    locked(&world.fleet).insert("prod".into(), services(&["checkout-web", "checkout-api", "billing"]));
    locked(&world.fleet).insert("eu-1".into(), services(&["cart"]));
    locked(&world.fleet).insert("us-1".into(), services(&["cart"]));
    world.deliver(&[]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    let all = [("prod", "checkout-web"), ("prod", "checkout-api"), ("eu-1", "cart"), ("other", "literal")];
    assert_eq!(running.swept(), [keys(&all)]);
    assert!(world.logged(&["list services of us-1", "list services of other"]).is_empty(), "nothing to find there");
    assert_eq!(running.handle.health().missing(), []);

    locked(&world.fleet).insert("prod".into(), None);
    world.clusters_fail.store(true, Ordering::Relaxed);
    running.after(seconds(30)).await;
    assert_eq!(running.swept().last(), Some(&keys(&all)));
    assert!(running.handle.health().missing().iter().any(|(part, _)| part.as_str() == "sweep"));

    locked(&world.fleet).insert("prod".into(), services(&["checkout-api"]));
    world.clusters_fail.store(false, Ordering::Relaxed);
    running.after(seconds(30)).await;
    assert_eq!(running.swept().last(), Some(&keys(&[all[1], all[2], all[3]])), "gone is gone, once AWS says so");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_sweep_finds_what_is_registered_by_tag_and_does_without_when_that_is_denied() {
    let world = Arc::new(World::default());
    let web: BTreeMap<_, Arc<str>> = BTreeMap::from([(ServiceKey::new("prod", "web"), Arc::from("strict"))]);
    *locked(&world.tagged) = Ok(web.clone());
    world.deliver(&[]);
    let running = begin(&world);
    running.after(seconds(1)).await;
    assert!(locked(&running.inputs).contains(&Input::Registered(web)));

    *locked(&world.tagged) = Err(failure(ErrorClass::Throttled));
    running.after(seconds(30)).await;
    assert!(running.handle.health().missing().iter().any(|(part, _)| part.as_str() == "sweep"), "that is a fault");
    *locked(&world.tagged) = Err(failure(ErrorClass::Denied));
    running.after(seconds(30)).await;
    assert_eq!(running.handle.health().missing(), [], "who protects by files alone need not allow it");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shard_leaves_the_services_of_others_alone_whether_a_file_or_a_tag_protects_them() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("prod", "*"), ("prod", "billing"), ("prod", "cart")]));
    locked(&world.fleet).insert("prod".into(), Some(vec!["cart".into(), "checkout".into(), "billing".into()]));
    let tagged = |names: &[&str]| -> BTreeMap<_, Arc<str>> {
        names.iter().map(|name| (ServiceKey::new("prod", name), Arc::from("strict"))).collect()
    };
    *locked(&world.tagged) = Ok(tagged(&["web", "chat"]));
    world.deliver(&[]);
    let only = vec![Protect { cluster: "prod".into(), service: "c*".into() }];
    let running = begin_as_shard(&world, world.ports(), only, |_, _| Step::default());
    running.after(seconds(1)).await;
    assert_eq!(running.swept(), [keys(&[("prod", "cart"), ("prod", "checkout")])]);
    assert!(locked(&running.inputs).contains(&Input::Registered(tagged(&["chat"]))));
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shard_does_not_ask_about_clusters_of_others_which_it_may_not_see() {
    let world = Arc::new(World::default());
    *locked(&world.rules) = Ok(rules(&[("*", "c*"), ("theirs", "*"), ("theirs", "literal")]));
    locked(&world.fleet).insert("prod".into(), Some(vec!["cart".into(), "checkout".into()]));
    locked(&world.fleet).insert("theirs".into(), None);
    world.deliver(&[]);
    let only = vec![Protect { cluster: "prod".into(), service: "*".into() }];
    let running = begin_as_shard(&world, world.ports(), only, |_, _| Step::default());
    running.after(seconds(1)).await;
    assert_eq!(running.swept(), [keys(&[("prod", "cart"), ("prod", "checkout")])]);
    assert_eq!(running.handle.health().missing(), []);
    assert_eq!(world.logged(&["list services of"]), ["list services of prod"]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_journal_knows_of_others_is_let_go_before_anything_else() {
    let world = Arc::new(World::default());
    let mut engine = Engine::new(engine::Settings { dry_run: false, sweep: seconds(30), fleet_brake: 3 });
    let both = ["cart", "web"].map(|name| ServiceKey::new("prod", name));
    let tagged: BTreeMap<_, Arc<str>> = both.iter().map(|key| (key.clone(), Arc::from("strict"))).collect();
    let _ = engine.step(far(), &Input::Registered(tagged));
    *locked(&world.known) = both.iter().filter_map(|key| engine.service(key, far())).collect();
    world.deliver(&[]);
    let only = vec![Protect { cluster: "prod".into(), service: "c*".into() }];
    let running = begin_as_shard(&world, world.ports(), only, |_, _| Step::default());
    running.after(seconds(1)).await;
    assert!(
        matches!(&locked(&running.inputs)[..], [Input::Restarted, Input::Rules(_), Input::LetGo(gone), ..] if *gone == keys(&[("prod", "web")]))
    );
    running.end().await.unwrap();
}
