//! A worker's own state as a recording: what it has kept of its inputs, judged by other rules.

use std::path::Path;

use anyhow::Context as _;

use super::super::account::say;
use super::{FLEET_BRAKE, SWEEP};
use crate::journal::{Kept, read_only};
use crate::replay::{Line, again};
use crate::rules::RuleSet;
use crate::runtime::entry;

/// Replays what the file keeps.
pub(super) fn replay(path: &Path, rules: &RuleSet) -> anyhow::Result<Vec<Line>> {
    let Kept { recovered, incidents } = read_only(path)?;
    let count = recovered.entries.len();
    let mut inputs = Vec::with_capacity(count);
    for (number, bytes) in recovered.entries.iter().enumerate() {
        let entry = entry::decode(bytes).with_context(|| format!("input {} of {count} can't be read", number + 1))?;
        inputs.push((entry.at, entry.input));
    }
    let lines = again(rules, (SWEEP, FLEET_BRAKE), recovered.checkpoint.as_deref(), &inputs, &incidents);
    say(format_args!(
        "{}: {count} inputs since the last checkpoint, and {} incidents. What was decided before that is told as it was; \
         inputs that changed nothing then are not kept, so other rules may miss something here",
        path.display(),
        incidents.len()
    ));
    lines.map_err(anyhow::Error::msg).context("its checkpoint can't be read")
}
