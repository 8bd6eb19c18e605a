//! The table behind the journal and the lease: rows in memory, transactions that go wrong when the schedule says so. The
//! journal on top of it is the real one, down to its bytes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use taskset_guardian::model::{CallError, ErrorClass};
use taskset_guardian::ports::{Change, Expected, Fields, RowKey, Table};

/// How the calls of one operation fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Weather {
    #[default]
    Fair,
    /// Nothing arrives.
    Cut,
    /// What changes something is refused; what only reads is answered.
    Full,
    /// The first change does not arrive,
    Lost,
    /// or is made and its answer is lost,
    Unanswered,
    /// or is torn: its rows are laid down and the head is not, as when a process dies between two transactions.
    Torn,
}

#[derive(Default)]
pub(super) struct MemoryTable {
    rows: Mutex<BTreeMap<RowKey, Fields>>,
    weather: Mutex<Weather>,
}

impl MemoryTable {
    pub(super) fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }

    /// Somebody gives the worker an empty one.
    pub(super) fn empty(&self) {
        self.rows().clear();
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<RowKey, Fields>> {
        self.rows.lock().unwrap()
    }

    fn passes(&self) -> Result<(), CallError> {
        if *self.weather.lock().unwrap() == Weather::Cut { Err(broken()) } else { Ok(()) }
    }
}

fn broken() -> CallError {
    let (operation, message) = ("dynamodb".to_owned(), "injected".to_owned());
    CallError { class: ErrorClass::Transient, operation, code: None, message }
}

fn is(expected: &Expected, row: Option<&Fields>) -> bool {
    match (expected, row) {
        (Expected::Absent, row) => row.is_none(),
        (Expected::Fields(_), None) => false,
        (Expected::Fields(wanted), Some(row)) => wanted.iter().all(|(name, field)| row.get(name) == Some(field)),
    }
}

#[async_trait]
impl Table for MemoryTable {
    async fn get(&self, key: &RowKey) -> Result<Option<Fields>, CallError> {
        self.passes()?;
        Ok(self.rows().get(key).cloned())
    }

    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError> {
        self.passes()?;
        let from = RowKey { partition: partition.to_owned(), sort: String::new() };
        let rows = self.rows();
        let of = rows.range(from..).take_while(|(key, _)| key.partition == partition);
        Ok(of.map(|(key, fields)| (key.clone(), fields.clone())).collect())
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, CallError> {
        let weather = {
            let mut weather = self.weather.lock().unwrap();
            let once = matches!(*weather, Weather::Lost | Weather::Unanswered | Weather::Torn);
            if once { std::mem::take(&mut *weather) } else { *weather }
        };
        if matches!(weather, Weather::Cut | Weather::Full | Weather::Lost) {
            return Err(broken());
        }
        let mut rows = self.rows();
        let fits = changes.iter().all(|change| match change {
            Change::PutIf(key, _, expected) | Change::Check(key, expected) => is(expected, rows.get(key)),
            Change::Put(..) | Change::Delete(_) => true,
        });
        for change in changes.iter().filter(|_| fits) {
            match change {
                Change::PutIf(..) if weather == Weather::Torn => {}
                Change::Put(key, fields) | Change::PutIf(key, fields, _) => {
                    rows.insert(key.clone(), fields.clone());
                }
                Change::Check(..) => {}
                Change::Delete(key) => {
                    rows.remove(key);
                }
            }
        }
        if weather == Weather::Fair { Ok(fits) } else { Err(broken()) }
    }
}
