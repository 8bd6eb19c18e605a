//! What must hold in every state and at every move, told without a look at why the moves are as they are.

use super::moves::{Move, What};
use super::state::{At, Aws, Call, Role, State, UNANSWERED, Worker, Write};

pub(crate) const ONE_LEADS: &str = "L4: the terms of two workers are in force at the same time";

pub(crate) const STARTS_IN_TIME: &str = "S6: a call passes its last check while a later holder may act";

pub(crate) const SENT_IN_TIME: &str = "S6: a call is sent while a later holder may act, and no freeze explains it";

pub(crate) const OVER_IN_TIME: &str = "S6: a call is still on its way when a later holder may act";

pub(crate) const ONE_DECISION: &str = "S5: decided twice";

pub(crate) const DURABLE_FIRST: &str = "S5: a call starts before its decision is durable";

pub(crate) const READS_FIRST: &str =
    "S3: a delete starts whose holder has not read, in its own term, that green is there without traffic";

pub(crate) const SHIFTED_FIRST: &str = "S3: green is deleted while it has traffic";

pub(crate) const FENCE: &str = "fence: a deposed holder's commit is in force after its successor has read the journal";

/// The first one that this move breaks.
pub(crate) fn broken(from: &State, by: Move, to: &State) -> Option<&'static str> {
    let deleted = from.aws == Aws::GreenServes && to.aws == Aws::Deleted;
    let by = by.who.and_then(|who| broken_by(from, who, by.what, to));
    deleted.then_some(SHIFTED_FIRST).or(by).or_else(|| broken_in(to))
}

fn broken_by(from: &State, who: usize, what: What, to: &State) -> Option<&'static str> {
    let worker = &from.workers[who];
    match (what, worker.holder()) {
        (What::Checks, Some(holder)) => {
            let delete = holder.at == At::Ready(Write::Delete);
            if is_deposed(from, holder.epoch) {
                Some(STARTS_IN_TIME)
            } else if from.decisions == 0 {
                Some(DURABLE_FIRST)
            } else if delete && holder.proofs < 3 {
                Some(READS_FIRST)
            } else {
                None
            }
        }
        (What::Sends, Some(holder)) => is_deposed(from, holder.epoch).then_some(SENT_IN_TIME),
        (What::CommitIsApplied, Some(holder)) => {
            let mut others = from.workers.iter().filter_map(Worker::holder);
            let read = others.any(|other| other.epoch > holder.epoch && other.at != At::Loading);
            if read {
                Some(FENCE)
            } else if to.decisions > 1 {
                Some(ONE_DECISION)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn broken_in(state: &State) -> Option<&'static str> {
    if state.workers.iter().filter_map(Worker::holder).filter(|holder| holder.in_force()).count() > 1 {
        return Some(ONE_LEADS);
    }
    let outlasts = |call: &Call| is_deposed(state, call.epoch);
    state.workers.iter().filter_map(|worker| worker.call.as_ref()).any(outlasts).then_some(OVER_IN_TIME)
}

/// A later holder's term has begun.
fn is_deposed(state: &State, epoch: u8) -> bool {
    state.workers.iter().filter_map(Worker::holder).any(|holder| holder.epoch > epoch)
}

/// Whether a move needs something to go wrong. A process that stands still does so for good, unless both do.
pub(crate) fn is_fault(from: &State, by: Move) -> bool {
    let frozen = |who: usize| from.workers[who].holder().is_some_and(|holder| matches!(holder.at, At::Frozen(_)));
    match by.what {
        What::TicksAlone
        | What::AcquiresUnknowing
        | What::RenewalIsGivenUp
        | What::StrayIsApplied
        | What::Releases
        | What::Freezes
        | What::CallIsLost
        | What::LateCallIsLost
        | What::Crashes => true,
        // After a while, losing it is no news.
        What::AskIsLost => {
            by.who.is_some_and(|who| !matches!(from.workers[who].role, Role::Standby { asked: Some(UNANSWERED), .. }))
        }
        What::WakesAndSends => by.who.is_some_and(|who| frozen(who) && !frozen(1 - who)),
        _ => false,
    }
}

/// The rollback is done, and somebody acts who knows it.
pub(crate) fn is_done(state: &State) -> bool {
    let knows = |worker: &Worker| worker.holder().is_some_and(|holder| holder.at == At::Resting);
    state.aws == Aws::Deleted && state.workers.iter().any(knows)
}
