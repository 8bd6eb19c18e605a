//! What several moves have in common.

use super::state::{At, Aws, FOREVER, GIVEN_UP, Record, Role, State, UNANSWERED, Write};

pub(crate) fn apply(to: &mut State, write: Write) {
    to.aws = match (write, to.aws) {
        (Write::Shift, Aws::GreenServes) => Aws::Shifted,
        (Write::Shift, aws) => aws,
        (Write::Delete, _) => Aws::Deleted,
    };
}

pub(crate) fn put(to: &mut State, record: Record) {
    to.lease = Some(record);
    to.stamped = 0;
}

pub(crate) fn put_anew(to: &mut State, record: Record) {
    put(to, record);
    to.stray = None;
}

/// One worker's clock goes on.
pub(crate) fn tick(to: &mut State, who: usize) {
    let older = |age: &mut u8| *age = (*age + 1).min(FOREVER);
    let worker = &mut to.workers[who];
    match &mut worker.role {
        Role::Standby { since, asked, .. } => {
            older(since);
            *asked = asked.map(|asked| (asked + 1).min(UNANSWERED));
        }
        Role::Holder(holder) => {
            older(&mut holder.renewed);
            holder.renewal.iter_mut().for_each(|renewal| older(&mut renewal.asked));
            if holder.renewal.is_some_and(|renewal| renewal.asked == UNANSWERED) {
                give_up(to, who);
            }
        }
    }
    let worker = &mut to.workers[who];
    worker.call.iter_mut().for_each(|call| older(&mut call.sent));
    if worker.call.is_some_and(|call| call.sent == GIVEN_UP) {
        over(to, who);
    }
}

/// A call has ended. Who still waits for it reads again.
pub(crate) fn over(to: &mut State, who: usize) {
    let call = to.workers[who].call.take();
    if let Some(holder) = to.workers[who].holder_mut()
        && holder.at == At::Waiting
        && call.is_some_and(|call| call.epoch == holder.epoch)
    {
        holder.at = At::Reading;
    }
}

/// A renewal without an answer: if it is not in the record yet, it may come there later.
pub(crate) fn give_up(to: &mut State, who: usize) {
    let holder = to.workers[who].holder_mut().unwrap();
    if holder.renewal.take().is_some_and(|renewal| !renewal.applied) {
        let record = Record { epoch: holder.epoch, beat: holder.beat, released: false };
        to.stray = to.stray.or(Some(record));
    }
}

/// The worker is no holder any more. What it has sent is still on its way.
pub(crate) fn end(to: &mut State, who: usize) {
    if to.workers[who].holder().is_some() {
        give_up(to, who);
    }
    to.workers[who].role = Role::NEW;
}
