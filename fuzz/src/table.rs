//! The journal's table: arbitrary rows under the journal and the lease.
//!
//! A line is a row: partition, sort key, and fields as `name=7`, `name:text` or `name~bytes`, with spaces between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use taskset_guardian::journal::TableJournal;
use taskset_guardian::ports::{Change, Field, Fields, Journal, JournalError, Lease, Recovered, RowKey, Table};

#[allow(dead_code, reason = "of the simulation's table only the rows are wanted, none of its faults")]
#[path = "../../tests/simulation/driver/table.rs"]
mod memory;

use memory::MemoryTable;

/// Rows, one a line.
pub fn table(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let rows: BTreeMap<RowKey, Fields> = text.lines().filter_map(row).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(used(rows));
}

fn row(line: &str) -> Option<(RowKey, Fields)> {
    let mut words = line.split(' ');
    let key = RowKey { partition: words.next()?.to_owned(), sort: words.next()?.to_owned() };
    Some((key, words.filter_map(field).collect()))
}

fn field(word: &str) -> Option<(String, Field)> {
    let at = word.find(['=', ':', '~'])?;
    let (name, value) = (word[..at].to_owned(), &word[at + 1..]);
    let field = match word.as_bytes()[at] {
        b'=' => Field::Number(value.parse().ok()?),
        b':' => Field::Text(value.to_owned()),
        _ => Field::Bytes(unescaped(value)),
    };
    Some((name, field))
}

/// `%00` and the like are bytes, so that a length can be written.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).filter(|_| *first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        if let Some(byte) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

/// A replica takes the table over, reads what is there and goes on with it.
async fn used(rows: BTreeMap<RowKey, Fields>) {
    let table = Arc::new(MemoryTable::default());
    for (key, fields) in rows {
        table.change(&[Change::Put(key, fields)]).await.expect("fair weather");
    }
    let Some(journal) = told(TableJournal::open(table, "the table", "a").await) else { return };
    told(journal.incidents(10).await);
    let Some(watched) = told(journal.look().await) else { return };
    let acquired = told(journal.acquire(watched.as_ref(), Duration::from_secs(10)).await);
    let Some(Some(tenure)) = acquired else { return };
    assert_eq!(told(journal.look().await), Some(Some(tenure.clone())), "the lease is not as it was taken");
    assert_eq!(told(journal.renew(&tenure).await), Some(true), "nobody has the lease but us, and it is refused");

    let Some(found) = told(journal.load().await) else { return };
    let appended = told(journal.append([b"one".to_vec(), Vec::new()].into(), &[]).await);
    if appended.is_none() {
        return;
    }
    let entries = found.entries.iter().cloned().chain([b"one".to_vec(), Vec::new()]).collect();
    let expected = Recovered { entries, checkpoint: found.checkpoint };
    assert_eq!(told(journal.load().await), Some(expected), "what was appended is not what is read");
    if told(journal.checkpoint(b"state".to_vec()).await).is_some() {
        tokio::task::yield_now().await;
        let expected = Recovered { entries: Vec::new(), checkpoint: Some(b"state".to_vec()) };
        assert_eq!(told(journal.load().await), Some(expected), "the checkpoint is not what is read");
    }
}

/// The answer, or an error that says where, what, and on which table.
fn told<T>(result: Result<T, JournalError>) -> Option<T> {
    match result {
        Ok(answer) => Some(answer),
        Err(JournalError::Failed { context, cause }) => {
            assert!(
                context.ends_with("the table") && !cause.is_empty(),
                "an error that helps nobody: {context}: {cause}"
            );
            None
        }
        Err(JournalError::Deposed { context }) => {
            assert!(context.ends_with("the table"), "an error that helps nobody: {context}");
            None
        }
    }
}
