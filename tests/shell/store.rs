//! A worker's line to the table, and the journal at its end: the real one, down to its bytes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use taskset_guardian::journal::TableJournal;
use taskset_guardian::model::{CallError, ErrorClass, Incident};
use taskset_guardian::ports::{
    Change, Entries, Fields, Journal, JournalError, Lease, Recovered, RowKey, Table, Tenure,
};
use taskset_guardian::runtime::lease::LENGTH;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::process::Life;
use crate::stage::fault;
use crate::table::Weather;

/// The client gives a call to the table up after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Several calls make one operation of the journal: each fares so much better than the schedule says of the operation.
const CALLS: f64 = 2.0;

/// The line.
pub(crate) struct TableLine {
    life: Arc<Life>,
    /// Its number. When a table is lost, what is still under way to it is lost too.
    table: u32,
}

impl TableLine {
    pub(crate) fn new(life: Arc<Life>) -> Self {
        let table = life.stage.enter().tables;
        Self { life, table }
    }

    /// One way.
    async fn travel(&self) {
        let longest = self.life.stage.schedule.faults.commit / 2;
        if !longest.is_zero() {
            sleep(self.life.stage.within(longest)).await;
        }
        self.life.present().await;
    }

    async fn reach(&self) -> Result<(), CallError> {
        self.life.present().await;
        self.travel().await;
        let stage = &self.life.stage;
        if stage.chance(stage.trouble.unanswered) {
            self.life.tell("fault", || "a read of the journal's table gets no answer".to_owned());
            sleep(PATIENCE).await;
            return Err(fault("dynamodb", ErrorClass::Transient));
        }
        stage.table.set(if self.is_cut() { Weather::Cut } else { Weather::Fair });
        Ok(())
    }

    fn is_cut(&self) -> bool {
        let stage = &self.life.stage;
        stage.schedule.faults.cut.iter().any(|(who, span)| *who == self.life.who && stage.during(*span))
    }

    fn weather(&self) -> Weather {
        let (stage, faults) = (&self.life.stage, &self.life.stage.schedule.faults);
        if self.is_cut() {
            Weather::Cut
        } else if stage.during(faults.full) {
            Weather::Full
        } else if stage.chance(faults.commit_lost / CALLS) {
            Weather::Lost
        } else if stage.chance(faults.commit_unanswered / CALLS) {
            Weather::Unanswered
        } else if stage.chance(faults.commit_torn / CALLS) {
            Weather::Torn
        } else {
            Weather::Fair
        }
    }

    /// The change arrives, whatever became of who sent it.
    async fn arrive(&self, changes: &[Change]) -> Result<bool, CallError> {
        let (life, stage) = (&self.life, &self.life.stage);
        if stage.enter().tables != self.table {
            return Err(fault("dynamodb", ErrorClass::Transient));
        }
        if stage.chance(stage.schedule.faults.crash_before_commit / CALLS) {
            life.kill("before the commit");
            return Ok(false);
        }
        let weather = self.weather();
        stage.table.set(weather);
        let done = stage.table.change(changes).await;
        stage.table.set(Weather::Fair);
        stage.enter().trace((life.who, changes.len(), done.is_ok()));
        if weather != Weather::Fair {
            life.tell("fault", || format!("the journal's table: {weather:?}"));
        }
        if stage.chance(stage.schedule.faults.crash_after_commit / CALLS) {
            life.kill("after the commit");
        }
        done
    }
}

#[async_trait]
impl Table for TableLine {
    async fn get(&self, key: &RowKey) -> Result<Option<Fields>, CallError> {
        self.reach().await?;
        let row = self.life.stage.table.get(key).await;
        self.travel().await;
        row
    }

    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError> {
        self.reach().await?;
        let rows = self.life.stage.table.list(partition).await;
        self.travel().await;
        rows
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, CallError> {
        self.life.present().await;
        let (it, changes) = (Self { life: Arc::clone(&self.life), table: self.table }, changes.to_vec());
        let (answer, answered) = oneshot::channel();
        let unanswered = self.life.stage.chance(self.life.stage.trouble.unanswered);
        let stalled = self.life.stage.chance(self.life.stage.schedule.faults.pause);
        tokio::spawn(async move {
            if stalled {
                it.life.stall();
                let stalled = it.life.facts().stalled_until.since(it.life.stage.now());
                sleep(stalled).await;
            }
            let longest = it.life.stage.schedule.faults.commit / 2;
            if !longest.is_zero() {
                sleep(it.life.stage.within(longest)).await;
            }
            let done = it.arrive(&changes).await;
            if unanswered {
                it.life.tell("fault", || "a change of the journal's table gets no answer".to_owned());
                std::future::pending::<()>().await;
            }
            it.travel().await;
            drop(answer.send(done));
        });
        match timeout(PATIENCE, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) | Err(_) => Err(fault("dynamodb", ErrorClass::Transient)),
        }
    }
}

/// The journal and the lease, and what is to be known of their use.
pub(crate) struct Kept {
    life: Arc<Life>,
    journal: TableJournal,
}

impl Kept {
    pub(crate) async fn open(life: Arc<Life>, line: Arc<TableLine>) -> Option<Self> {
        let journal = TableJournal::open(line, "table", &format!("worker {}", life.who)).await.ok()?;
        Some(Self { life, journal })
    }
}

#[async_trait]
impl Journal for Kept {
    async fn load(&self) -> Result<Recovered, JournalError> {
        self.life.facts().committing = false;
        self.journal.load().await
    }

    async fn append(&self, entries: Entries, incidents: &[Incident]) -> Result<(), JournalError> {
        {
            let mut facts = self.life.facts();
            if !facts.committing {
                facts.committing = true;
                facts.stepped = facts.answered.clone();
            }
        }
        let done = self.journal.append(entries, incidents).await;
        if done.is_ok() {
            self.life.facts().committing = false;
        }
        done
    }

    async fn checkpoint(&self, state: Vec<u8>) -> Result<(), JournalError> {
        self.journal.checkpoint(state).await
    }

    async fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        self.journal.incidents(limit).await
    }
}

#[async_trait]
impl Lease for Kept {
    async fn look(&self) -> Result<Option<Tenure>, JournalError> {
        self.journal.look().await
    }

    async fn acquire(&self, watched: Option<&Tenure>, length: Duration) -> Result<Option<Tenure>, JournalError> {
        let asked = Instant::now();
        let acquired = self.journal.acquire(watched, length).await?;
        if let Some(tenure) = &acquired {
            let (life, epoch) = (&self.life, tenure.epoch);
            let rivals: Vec<_> = life.stage.enter().lives.iter().flatten().cloned().collect();
            let rivals = rivals.iter().filter(|rival| rival.who != life.who && !rival.is_dead());
            if rivals.into_iter().any(|rival| rival.facts().may_act_until.is_some_and(|until| until > Instant::now())) {
                life.broken("L4", "two workers may act at a time");
            }
            {
                let mut facts = life.facts();
                (facts.epoch, facts.may_act_until) = (epoch, Some(asked + LENGTH));
                facts.gave_back = false;
            }
            let mut state = life.stage.enter();
            state.ended.takeovers += u64::from(state.judged.epoch > 0 && state.judged.holder != life.who);
            if state.judged.holder != life.who {
                state.judged.other_clock_at = state.now;
            }
            (state.judged.epoch, state.judged.holder) = (epoch, life.who);
            state.trace((life.who, epoch));
            drop(state);
            life.tell("lease", || format!("acts, in epoch {epoch}"));
        }
        Ok(acquired)
    }

    async fn renew(&self, tenure: &Tenure) -> Result<bool, JournalError> {
        let asked = Instant::now();
        let stage = &self.life.stage;
        if self.life.facts().gave_back {
            self.life.broken("S6", "the lease is renewed after it was given back");
        }
        if stage.chance(stage.schedule.faults.renewal_lost) {
            if stage.chance(0.5) {
                std::future::pending::<()>().await;
            }
            // It may be in the record all the same.
            drop(self.journal.renew(tenure).await);
            return Err(JournalError::Failed { context: "renew".to_owned(), cause: "injected".to_owned() });
        }
        let renewed = self.journal.renew(tenure).await?;
        if renewed {
            self.life.facts().may_act_until = Some(asked + LENGTH);
        }
        Ok(renewed)
    }

    async fn release(&self, tenure: &Tenure) -> Result<(), JournalError> {
        // Whatever becomes of it: who gives the lease back acts no more.
        {
            let mut facts = self.life.facts();
            facts.may_act_until = Some(Instant::now());
            facts.gave_back = true;
        }
        self.journal.release(tenure).await
    }
}
