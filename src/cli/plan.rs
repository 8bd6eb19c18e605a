//! How a rehearsed rollback looks.

use std::io::{self, Write};

use super::text::printable;
use crate::engine::Rehearsal;
use crate::model::{Action, Write as Call, humane};

/// For people: every changing call, in order.
pub(super) fn write(rehearsal: &Rehearsal, out: &mut dyn Write) -> io::Result<()> {
    let Rehearsal { green, calls, completes, ending, .. } = rehearsal;
    writeln!(out, "  a rollback of {} would", printable(green.as_str()))?;
    for (after, call) in calls {
        writeln!(out, "    {:>7}  {}", format!("+{}", humane(*after)), printable(&told(call)))?;
    }
    let end = if *completes { "and end" } else { "and NOT end" };
    writeln!(out, "             {end}: {}", printable(ending))
}

fn told(call: &Call) -> String {
    let operation = call.operation();
    match call {
        Call::SetActions { rule, actions, .. } => format!("{operation} {}: {}", rule.short(), weights(actions)),
        Call::ScaleTaskSet { task_set, percent, .. } => format!("{operation} {task_set} to {percent} %"),
        Call::SetPrimary { task_set, .. } => format!("{operation} {task_set}"),
        Call::DeleteTaskSet { task_set, .. } => format!("{operation} {task_set}, with force"),
    }
}

fn weights(actions: &[Action]) -> String {
    let groups = actions.iter().filter_map(Action::forward).flat_map(|forward| &forward.groups);
    let told = groups.map(|group| format!("{} {}", group.target_group.name(), group.effective_weight()));
    told.collect::<Vec<_>>().join(", ")
}
