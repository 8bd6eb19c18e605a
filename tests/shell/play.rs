//! One schedule, from its first moment to its last, on a runtime of its own.

use std::hash::Hasher as _;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::model::humane;
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::judge::{Ended, FINISH};
use crate::process::live;
use crate::schedule::Schedule;
use crate::stage::Stage;

/// How often it is asked whether all is over.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Plays it.
pub(crate) fn play(schedule: Schedule, tell: bool) -> Ended {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let stage = Arc::new(Stage::new(schedule, tell));
        for who in 0..stage.schedule.workers {
            tokio::spawn(live(Arc::clone(&stage), who));
        }
        plan(&stage);
        watch(&stage).await;
        stage.judge_the_end().await;
        let mut state = stage.enter();
        state.ended.trace = state.hasher.finish();
        mem::take(&mut state.ended)
    })
}

/// What happens at a time that is known.
fn plan(stage: &Arc<Stage>) {
    let at = |after: Duration, act: Box<dyn FnOnce(&Stage) + Send>| {
        let stage = Arc::clone(stage);
        tokio::spawn(async move {
            sleep(after).await;
            act(&stage);
        });
    };
    for (after, who, by_ms) in stage.schedule.faults.jumps.clone() {
        at(
            after,
            Box::new(move |stage| {
                if !stage.is_calm() && who < stage.schedule.workers {
                    stage.enter().clocks[who].jump(by_ms);
                    stage.tell("fault", || format!("[{who}] the wall clock jumps by {by_ms} ms"));
                }
            }),
        );
    }
    for (after, who) in stage.trouble.kills.clone() {
        at(after, Box::new(move |stage| life(stage, who).iter().for_each(|life| life.kill("for no reason"))));
    }
    for (after, who) in stage.trouble.ends.clone() {
        at(after, Box::new(move |stage| life(stage, who).iter().for_each(|life| life.stop.cancel())));
    }
    at(
        stage.schedule.calm_at,
        Box::new(|stage| {
            stage.tell("fault", || "the faults stop".to_owned());
            let mut state = stage.enter();
            let now = state.now;
            state.clocks.iter_mut().for_each(|clock| clock.set_right(now));
        }),
    );
}

fn life(stage: &Stage, who: usize) -> Option<Arc<crate::process::Life>> {
    stage.enter().lives[who].clone()
}

/// Until nothing is open any more, or until everything should long be over.
async fn watch(stage: &Stage) {
    let Stage { schedule, .. } = stage;
    let end = schedule.calm_at + FINISH + schedule.setup.drain + Duration::from_mins(1);
    // Two sweeps after the calm a bad green is decided on; what is open by then has until the end.
    let mut passed = schedule.calm_at + 3 * schedule.sweep;
    sleep(passed).await;
    while passed < end && !stage.is_over().await {
        sleep(LOOK_EVERY).await;
        passed += LOOK_EVERY;
    }
    stage.tell("judge", || format!("over after {}", humane(passed)));
}
