//! What must hold for an engine, whatever it was fed.

use taskset_guardian::engine::Engine;
use taskset_guardian::model::Timestamp;

use super::world::{Driver, SWEEP, secs};

/// Its state survives a restart, to the byte, and can be shown.
pub(super) fn survives_a_restart(it: &Driver) {
    let before = it.engine.checkpoint().unwrap_or_else(|error| panic!("the state can't be written down: {error}"));
    let restored = Engine::restore(it.settings, &before)
        .unwrap_or_else(|error| panic!("a checkpoint can't be read again: {error}\n{}", text(&before)));
    let after = restored.checkpoint().unwrap_or_else(|error| panic!("a restored state can't be written down: {error}"));
    assert_eq!(text(&after), text(&before), "a restart changes the state");
    for now in [it.now, Timestamp::EPOCH, Timestamp::from_millis(i64::MAX)] {
        let shown = serde_json::to_string(&it.engine.status(now));
        assert!(shown.is_ok(), "the state can't be shown: {shown:?}");
    }
}

/// Time passes: two sweeps, whatever they find.
pub(super) fn goes_on(it: &mut Driver) {
    it.run(SWEEP.saturating_mul(2).saturating_add(secs(1)));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
