//! The journal in a table with transactions, for several replicas of which one acts.
//!
//! The head row says what is in force. Every commit ends with a change of the head that demands the head as this replica
//! left it, epoch included; a replica that takes over raises the epoch first, so nothing that its predecessor still has
//! in flight is applied after that. What does not fit into one transaction is laid down beforehand, in rows that the
//! head does not name yet.
//!
//! A commit whose answer was lost may or may not be in force. It is kept, and the caller's retry of the same batch is
//! the same commit again; before anything else is written, a seal on the head makes sure that it can't be applied later.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::layout::{self, CHECKPOINT, Commit, ENTRIES, Head, INCIDENTS, Row};
use crate::model::{CallError, Incident};
use crate::ports::{Change, Entries, Expected, Journal, JournalError, Lease, Recovered, RowKey, Table, Tenure};

/// Removals in one transaction: with 256 KB in each row, below DynamoDB's 4 MB.
const REMOVED_TOGETHER: usize = 10;

/// A predecessor that still commits makes a claim of the head fail. It has little time left.
const CLAIMS: usize = 10;

/// Inputs, checkpoint, incidents and the lease, in one table.
pub struct TableJournal {
    table: Arc<dyn Table>,
    place: String,
    holder: String,
    /// Of the lease as it was last acquired; 0 before.
    epoch: AtomicU64,
    state: Mutex<State>,
    /// Kept in memory while this replica holds the lease, since only the holder writes incidents, and whoever looks at the
    /// status page asks for them every two seconds.
    recent: std::sync::Mutex<Recent>,
}

/// Incidents that are kept in memory.
const RECENT: usize = 200;

/// The newest incidents, newest first.
#[derive(Default)]
struct Recent {
    /// Until when nobody else may have the lease, so that nobody else writes any; `None` when somebody may.
    alone_until: Option<Instant>,
    /// The tenure in which the journal was read, by its epoch: before that a predecessor may still have written. 0 before.
    epoch: u64,
    incidents: Vec<Incident>,
    /// Those of earlier tenures were read.
    filled: bool,
    /// The table has older ones too.
    has_more: bool,
}

impl Recent {
    /// What was written in this tenure is newer than what the table gave meanwhile.
    fn fill(&mut self, stored: Vec<Incident>) {
        let known: BTreeSet<_> = self.incidents.iter().map(|incident| incident.id.clone()).collect();
        self.incidents.extend(stored.into_iter().filter(|incident| !known.contains(&incident.id)));
        self.filled = true;
        self.settle();
    }

    fn keep(&mut self, written: &[Incident]) {
        for incident in written {
            self.incidents.retain(|other| other.id != incident.id);
            self.incidents.push(incident.clone());
        }
        self.settle();
    }

    fn settle(&mut self) {
        newest_first(&mut self.incidents);
        self.has_more |= self.incidents.len() > RECENT;
        self.incidents.truncate(RECENT);
    }

    /// The tenure, while this replica alone writes incidents.
    fn tenure(&self) -> Option<u64> {
        let alone = self.alone_until.is_some_and(|until| Instant::now() < until);
        (alone && self.epoch > 0).then_some(self.epoch)
    }

    fn answer(&self, limit: usize) -> Option<Vec<Incident>> {
        let known = self.tenure().is_some() && self.filled && (!self.has_more || limit <= self.incidents.len());
        known.then(|| self.incidents.iter().take(limit).cloned().collect())
    }
}

fn newest_first(incidents: &mut [Incident]) {
    incidents.sort_by(|a, b| (b.detected_at, b.id.as_str()).cmp(&(a.detected_at, a.id.as_str())));
}

#[derive(Default)]
struct State {
    /// As this replica left it; `None` until the journal is read.
    head: Option<Head>,
    /// Sent, and its answer lost.
    unsure: Option<Commit>,
    /// Rows that the next checkpoint makes superfluous.
    covered: Vec<RowKey>,
    /// Rows that do not count any more.
    garbage: Vec<RowKey>,
}

impl TableJournal {
    /// Looks whether the table is there and of this format. `place` and `holder` are for people.
    pub async fn open(table: Arc<dyn Table>, place: &str, holder: &str) -> Result<Self, JournalError> {
        let journal = Self {
            table,
            place: place.to_owned(),
            holder: holder.to_owned(),
            epoch: AtomicU64::new(0),
            state: Mutex::default(),
            recent: std::sync::Mutex::default(),
        };
        journal.stored_head("open").await?;
        Ok(journal)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, cause: impl Into<String>) -> JournalError {
        JournalError::Failed { context: format!("{what} {}", self.place), cause: cause.into() }
    }

    fn deposed(&self, what: &str) -> JournalError {
        *self.recent() = Recent::default();
        JournalError::Deposed { context: format!("{what} {}", self.place) }
    }

    fn unanswered(&self, what: &str) -> impl Fn(CallError) -> JournalError {
        move |error| self.failed(what, layout::explain(&error))
    }

    async fn stored_head(&self, what: &str) -> Result<Option<Head>, JournalError> {
        let stored = self.table.get(&layout::head_key()).await.map_err(self.unanswered(what))?;
        stored.as_ref().map(Head::read).transpose().map_err(|cause| self.failed(what, cause))
    }

    /// Makes a commit. `make` gives the same for the same head, so that a retry is recognized.
    async fn commit(
        &self,
        what: &str,
        state: &mut State,
        make: impl Fn(Head) -> Commit,
    ) -> Result<Commit, JournalError> {
        let head = state.head.ok_or_else(|| self.failed(what, "it was not read in this tenure"))?;
        let commit = match state.unsure.take() {
            Some(earlier) if make(earlier.before) == earlier => earlier,
            Some(earlier) => make(self.seal(what, state, head, earlier).await?),
            None => make(head),
        };
        // Kept before it is sent: the caller may give up at any moment.
        let sent = &*state.unsure.insert(commit);
        let mut done = true;
        for transaction in &sent.transactions {
            done = self.table.change(transaction).await.map_err(self.unanswered(what))?;
            if !done {
                break;
            }
        }
        // Refused: an earlier try of this commit was applied, or the head is not ours any more.
        if !done && self.stored_head(what).await? != Some(sent.after) {
            return Err(self.deposed(what));
        }
        state.head = Some(sent.after);
        state.unsure.take().ok_or_else(|| self.failed(what, "the commit is gone"))
    }

    /// After this the earlier commit is in force or never will be. Returns the head from which to go on.
    async fn seal(&self, what: &str, state: &mut State, head: Head, earlier: Commit) -> Result<Head, JournalError> {
        let sealed = Head { seal: head.seal + 1, ..head };
        let applied = earlier.after;
        let rows = earlier.keys_in(ENTRIES);
        state.unsure = Some(earlier);
        let done = self.table.change(&[head.replaced_by(sealed)]).await.map_err(self.unanswered(what))?;
        let stored = if done { Some(sealed) } else { self.stored_head(what).await? };
        let Some(stored) = stored.filter(|stored| [sealed, applied].contains(stored)) else {
            return Err(self.deposed(what));
        };
        if stored == applied {
            state.covered.extend(rows);
        }
        state.unsure = None;
        state.head = Some(stored);
        Ok(stored)
    }

    /// Raises the head's epoch: from here on nothing of a predecessor is applied.
    async fn claim(&self, what: &str) -> Result<Head, JournalError> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            return Err(self.failed(what, "the lease was never acquired"));
        }
        for _ in 0..CLAIMS {
            let (claimed, change) = match self.stored_head(what).await? {
                None => {
                    let first = Head { epoch, ..Head::default() };
                    (first, Change::PutIf(layout::head_key(), first.fields(), Expected::Absent))
                }
                Some(stored) if stored.epoch > epoch => return Err(self.deposed(what)),
                Some(stored) => {
                    let claimed = Head { epoch, seal: stored.seal + 1, ..stored };
                    (claimed, stored.replaced_by(claimed))
                }
            };
            if self.table.change(&[change]).await.map_err(self.unanswered(what))? {
                return Ok(claimed);
            }
        }
        Err(self.failed(what, "its head row changes all the time: another replica writes still"))
    }

    async fn rows(&self, what: &str, partition: &str) -> Result<Vec<Row>, JournalError> {
        self.table.list(partition).await.map_err(self.unanswered(what))
    }

    fn value(&self, what: &str, name: &str, rows: &[Row]) -> Result<Vec<u8>, JournalError> {
        layout::whole(rows).map_err(|cause| self.failed(what, format!("{name}: {cause}")))
    }

    /// Removes rows that do not count. What is left, because it fails or the process ends, is found at the next load.
    fn remove(&self, garbage: Vec<RowKey>) {
        let table = Arc::clone(&self.table);
        tokio::spawn(async move {
            for together in garbage.chunks(REMOVED_TOGETHER) {
                let changes: Vec<_> = together.iter().cloned().map(Change::Delete).collect();
                if let Err(error) = table.change(&changes).await {
                    let cause = layout::explain(&error);
                    tracing::warn!("Old rows of the journal's table stay, they do no harm but cost: {cause}");
                    return;
                }
            }
        });
    }
}

#[async_trait]
impl Journal for TableJournal {
    async fn load(&self) -> Result<Recovered, JournalError> {
        const WHAT: &str = "read";
        let mut state = self.state.lock().await;
        *state = State::default();
        let head = self.claim(WHAT).await?;
        {
            let mut recent = self.recent();
            *recent = Recent { alone_until: recent.alone_until, epoch: head.epoch, ..Recent::default() };
        }
        let mut recovered = Recovered::default();

        let mut missing = head.next - head.first;
        for (name, rows) in layout::by_name(self.rows(WHAT, ENTRIES).await?) {
            let Some(number) = layout::number_in(&name) else { continue };
            let keys = rows.iter().map(|(key, _)| key.clone());
            if number < head.first {
                state.garbage.extend(keys);
            } else if number < head.next {
                state.covered.extend(keys);
                let batch = self.value(WHAT, &format!("batch {name}"), &rows)?;
                let entries = layout::read_batch(&batch).map_err(|cause| self.failed(WHAT, cause))?;
                recovered.entries.extend(entries);
                missing -= 1;
            }
        }

        for (name, rows) in layout::by_name(self.rows(WHAT, CHECKPOINT).await?) {
            let Some(version) = layout::number_in(&name) else { continue };
            let keys = rows.iter().map(|(key, _)| key.clone());
            if version == head.version && version > 0 {
                state.covered.extend(keys);
                recovered.checkpoint = Some(self.value(WHAT, "checkpoint", &rows)?);
            } else if version < head.version {
                state.garbage.extend(keys);
            }
        }
        if missing > 0 || (head.version > 0 && recovered.checkpoint.is_none()) {
            let cause = "rows that its head names are gone. Restore the table, or give another one as --state";
            return Err(self.failed(WHAT, cause));
        }
        state.head = Some(head);
        Ok(recovered)
    }

    async fn append(&self, entries: Entries, incidents: &[Incident]) -> Result<(), JournalError> {
        const WHAT: &str = "append to";
        let mut kept: Vec<Row> = Vec::new();
        for (index, incident) in incidents.iter().enumerate() {
            // The newest record of an id: a transaction takes no row twice.
            if incidents[index + 1..].iter().all(|later| later.id != incident.id) {
                kept.extend(layout::incident_rows(incident).map_err(|cause| self.failed(WHAT, cause))?);
            }
        }
        let make = |head: Head| {
            // Incidents first: when there are more than fit into the last transaction, a crash leaves some of those that
            // the successor, who decides the same again, writes under the same ids.
            let rows = kept.iter().cloned().chain(layout::batch_rows(head.next, &entries)).collect();
            Commit::new(head, Head { next: head.next + 1, ..head }, rows)
        };
        let mut state = self.state.lock().await;
        // Should this fail or be given up, the table may have what memory has not.
        let filled = std::mem::take(&mut self.recent().filled);
        let commit = self.commit(WHAT, &mut state, make).await?;
        state.covered.extend(commit.keys_in(ENTRIES));
        self.recent().filled |= filled;
        if !incidents.is_empty() {
            self.recent().keep(incidents);
        }
        Ok(())
    }

    async fn checkpoint(&self, bytes: Vec<u8>) -> Result<(), JournalError> {
        let make = |head: Head| {
            let after = Head { version: head.version + 1, first: head.next, ..head };
            Commit::new(head, after, layout::checkpoint_rows(after.version, &bytes))
        };
        let mut state = self.state.lock().await;
        let commit = self.commit("write a checkpoint to", &mut state, make).await?;
        let mut garbage = std::mem::take(&mut state.garbage);
        garbage.append(&mut state.covered);
        state.covered = commit.keys_in(CHECKPOINT);
        self.remove(garbage);
        Ok(())
    }

    async fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        const WHAT: &str = "read incidents of";
        let tenure = {
            let recent = self.recent();
            if let Some(incidents) = recent.answer(limit) {
                return Ok(incidents);
            }
            recent.tenure()
        };
        let mut incidents = Vec::new();
        for (id, rows) in layout::by_name(self.rows(WHAT, INCIDENTS).await?) {
            // The table lets rows expire one by one; what is left of an incident then is none.
            let Ok(json) = layout::whole(&rows) else { continue };
            incidents.extend(super::readable(&id, &json));
        }
        newest_first(&mut incidents);
        let asked = incidents.iter().take(limit).cloned().collect();
        let mut recent = self.recent();
        // What was read before a takeover may lack what the predecessor wrote.
        if tenure.is_some() && tenure == recent.tenure() {
            recent.fill(incidents);
        }
        Ok(asked)
    }
}

#[async_trait]
impl Lease for TableJournal {
    async fn look(&self) -> Result<Option<Tenure>, JournalError> {
        const WHAT: &str = "read the lease of";
        let stored = self.table.get(&layout::lease_key()).await.map_err(self.unanswered(WHAT))?;
        stored.as_ref().map(layout::read_tenure).transpose().map_err(|cause| self.failed(WHAT, cause))
    }

    async fn acquire(&self, watched: Option<&Tenure>, length: Duration) -> Result<Option<Tenure>, JournalError> {
        const WHAT: &str = "take the lease of";
        let before = match watched {
            Some(tenure) => tenure.epoch,
            // Perhaps a person has removed the record to free the lease; the journal still knows its epoch.
            None => self.stored_head(WHAT).await?.map_or(0, |head| head.epoch),
        };
        let epoch = before + 1;
        let tenure = Tenure { holder: self.holder.clone(), epoch, beat: 0, length, released: false };
        let expected = watched.map_or(Expected::Absent, |tenure| Expected::Fields(layout::tenure_fields(tenure)));
        let change = Change::PutIf(layout::lease_key(), layout::tenure_fields(&tenure), expected);
        let asked = Instant::now();
        let done = self.table.change(&[change]).await.map_err(self.unanswered(WHAT))?;
        if done {
            self.epoch.store(epoch, Ordering::Release);
            *self.recent() = Recent { alone_until: asked.checked_add(length), ..Recent::default() };
        }
        Ok(done.then_some(tenure))
    }

    async fn renew(&self, tenure: &Tenure) -> Result<bool, JournalError> {
        let expected = layout::of_epoch(tenure.epoch);
        let change = Change::PutIf(layout::lease_key(), layout::tenure_fields(tenure), expected);
        if tenure.released {
            // Before it is sent: without an answer it may be applied all the same.
            self.recent().alone_until = None;
        }
        let asked = Instant::now();
        let done = self.table.change(&[change]).await.map_err(self.unanswered("renew the lease of"))?;
        let held = done && !tenure.released;
        self.recent().alone_until = if held { asked.checked_add(tenure.length) } else { None };
        Ok(done)
    }

    async fn release(&self, tenure: &Tenure) -> Result<(), JournalError> {
        let released = Tenure { beat: tenure.beat + 1, released: true, ..tenure.clone() };
        // Refused: somebody has it already.
        self.renew(&released).await.map(drop)
    }
}
