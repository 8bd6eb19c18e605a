//! A table in memory that two journals share, with DynamoDB's limits and calls that go wrong when the test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;

use crate::model::{CallError, ErrorClass};
use crate::ports::{Change, Expected, Field, Fields, RowKey, Table};

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not arrive.
    Lost,
    /// It is applied, and its answer does not arrive.
    Unanswered,
}

#[derive(Default)]
pub(crate) struct MemoryTable {
    pub(crate) rows: Mutex<BTreeMap<RowKey, Fields>>,
    /// What becomes of the next changes; afterwards all goes well.
    pub(crate) faults: Mutex<VecDeque<Option<Fault>>>,
    pub(crate) changes: Mutex<usize>,
    /// Times that a partition was listed.
    pub(crate) lists: Mutex<usize>,
}

fn broken() -> CallError {
    CallError {
        class: ErrorClass::Transient,
        operation: "dynamodb:TransactWriteItems".into(),
        code: None,
        message: "as the test wants it".into(),
    }
}

impl MemoryTable {
    pub(crate) fn go_wrong(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        *self.faults.lock().unwrap() = faults.into_iter().collect();
    }

    /// Sort keys of a partition.
    pub(crate) fn keys(&self, partition: &str) -> Vec<String> {
        let rows = self.rows.lock().unwrap();
        rows.keys().filter(|key| key.partition == partition).map(|key| key.sort.clone()).collect()
    }
}

fn size(fields: &Fields) -> usize {
    let one = |(name, field): (&String, &Field)| {
        name.len()
            + match field {
                Field::Text(text) => text.len(),
                Field::Number(_) => 21,
                Field::Bytes(bytes) => bytes.len(),
            }
    };
    fields.iter().map(one).sum()
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
        Ok(self.rows.lock().unwrap().get(key).cloned())
    }

    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError> {
        *self.lists.lock().unwrap() += 1;
        let rows = self.rows.lock().unwrap();
        let of = rows.iter().filter(|(key, _)| key.partition == partition);
        Ok(of.map(|(key, fields)| (key.clone(), fields.clone())).collect())
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, CallError> {
        *self.changes.lock().unwrap() += 1;
        let fault = self.faults.lock().unwrap().pop_front().flatten();
        if fault == Some(Fault::Lost) {
            return Err(broken());
        }
        let mut rows = self.rows.lock().unwrap();
        let (mut keys, mut bytes) = (BTreeSet::new(), 0);
        for change in changes {
            let (key, put, expected) = match change {
                Change::Put(key, fields) => (key, Some(fields), None),
                Change::PutIf(key, fields, expected) => (key, Some(fields), Some(expected)),
                Change::Check(key, expected) => (key, None, Some(expected)),
                Change::Delete(key) => (key, rows.get(key), None),
            };
            assert!(keys.insert(key), "a transaction takes no row twice: {key:?}");
            let put = put.map_or(0, size);
            assert!(put < 400 * 1024, "a row of {put} bytes");
            bytes += put;
            if expected.is_some_and(|expected| !is(expected, rows.get(key))) {
                return if fault == Some(Fault::Unanswered) { Err(broken()) } else { Ok(false) };
            }
        }
        assert!(changes.len() <= 100 && bytes < 4 * 1024 * 1024, "{} changes of {bytes} bytes", changes.len());
        for change in changes {
            match change {
                Change::Put(key, fields) | Change::PutIf(key, fields, _) => {
                    rows.insert(key.clone(), fields.clone());
                }
                Change::Check(..) => {}
                Change::Delete(key) => {
                    rows.remove(key);
                }
            }
        }
        if fault == Some(Fault::Unanswered) { Err(broken()) } else { Ok(true) }
    }
}
