//! What is where in the table, and how bytes of any length become rows.
//!
//! | partition | sort key | what |
//! |---|---|---|
//! | `lease` | `lease` | who may act |
//! | `head` | `head` | what is in force: the only row that commits anything |
//! | `entries` | number of the batch, piece | the inputs of one append |
//! | `checkpoint` | version, piece | the engine's state |
//! | `incidents` | id, piece | one incident, with the time at which the table may drop it |
//!
//! Rows that the head does not name do not count: those of a write that was never finished, and those that a newer
//! checkpoint has replaced and nobody has removed yet.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{CallError, ErrorClass, Incident};
use crate::ports::{Change, Expected, Field, Fields, RowKey, Tenure};

/// Raised when the meaning of a row changes. A table of another format is refused, never converted by guess.
const FORMAT: u64 = 1;

/// Bytes of one row. DynamoDB takes 400 KB with names and key, and counts two write units per KB in a transaction.
const PIECE: usize = 256 * 1024;

/// Bytes of one transaction: a quarter of DynamoDB's 4 MB, because a partition has 1000 write units a second (with what
/// it saved up before) and this costs 2000.
const TRANSACTION: usize = 1024 * 1024;

/// Changes of one transaction, of the 100 that DynamoDB takes; one is for the head.
const CHANGES: usize = 99;

/// What a row costs beyond its bytes: names, key, and the encoding around them.
const ROW: usize = 512;

/// More than anything here ever counts to: what lies beyond was not written by a journal, and adding to it would overflow.
const LARGEST: u64 = u64::MAX / 2;

/// How long an incident is kept. Deployments are compared with those of the last quarter, hardly with older ones.
const KEPT: Duration = Duration::from_hours(24 * 90);

pub(super) const ENTRIES: &str = "entries";
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const INCIDENTS: &str = "incidents";

/// A row as it is written.
pub(super) type Row = (RowKey, Fields);

fn key(partition: &str, sort: impl Into<String>) -> RowKey {
    RowKey { partition: partition.to_owned(), sort: sort.into() }
}

pub(super) fn lease_key() -> RowKey {
    key("lease", "lease")
}

pub(super) fn head_key() -> RowKey {
    key("head", "head")
}

/// What is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Only the replica that has the lease in this epoch writes.
    pub(super) epoch: u64,
    /// Raised to make sure that no earlier write, whose fate is unknown, can be applied any more.
    pub(super) seal: u64,
    /// The first batch that the checkpoint does not cover.
    pub(super) first: u64,
    /// The number of the next batch; those before it count.
    pub(super) next: u64,
    /// Of the checkpoint; 0 when there is none.
    pub(super) version: u64,
}

impl Head {
    pub(super) fn fields(self) -> Fields {
        let Self { epoch, seal, first, next, version } = self;
        let numbers = [
            ("format", FORMAT),
            ("epoch", epoch),
            ("seal", seal),
            ("first_batch", first),
            ("next_batch", next),
            ("checkpoint_version", version),
        ];
        numbers.map(|(name, number)| (name.to_owned(), Field::Number(number))).into()
    }

    pub(super) fn read(fields: &Fields) -> Result<Self, String> {
        match number(fields, "format")? {
            FORMAT => {}
            other => {
                return Err(format!(
                    "the table has journal format {other}, this version reads format {FORMAT}. Run the version that \
                     wrote it, or give another table as --state: protection then begins anew from what AWS says"
                ));
            }
        }
        let (first, next) = (number(fields, "first_batch")?, number(fields, "next_batch")?);
        if first > next {
            return Err(damaged("first_batch"));
        }
        Ok(Self {
            epoch: number(fields, "epoch")?,
            seal: number(fields, "seal")?,
            first,
            next,
            version: number(fields, "checkpoint_version")?,
        })
    }

    fn is_as_before(self) -> Expected {
        Expected::Fields(self.fields())
    }

    /// From this head to another, in one change.
    pub(super) fn replaced_by(self, after: Self) -> Change {
        Change::PutIf(head_key(), after.fields(), self.is_as_before())
    }
}

/// A commit: rows that come to count with the last of its transactions, and not before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) before: Head,
    pub(super) after: Head,
    pub(super) transactions: Vec<Vec<Change>>,
}

impl Commit {
    /// Every transaction is refused once the head is not `before` any more; the last one moves it.
    pub(super) fn new(before: Head, after: Head, rows: Vec<Row>) -> Self {
        let mut transactions = Vec::new();
        let (mut open, mut size) = (Vec::new(), 0);
        for (key, fields) in rows {
            let bytes = ROW + fields.values().map(bytes_of).sum::<usize>();
            if !open.is_empty() && (size + bytes > TRANSACTION || open.len() == CHANGES) {
                open.push(Change::Check(head_key(), before.is_as_before()));
                transactions.push(std::mem::take(&mut open));
                size = 0;
            }
            size += bytes;
            open.push(Change::Put(key, fields));
        }
        open.push(before.replaced_by(after));
        transactions.push(open);
        Self { before, after, transactions }
    }

    /// Of all its rows in a partition.
    pub(super) fn keys_in(&self, partition: &str) -> Vec<RowKey> {
        let key = |change: &Change| match change {
            Change::Put(key, _) if key.partition == partition => Some(key.clone()),
            _ => None,
        };
        self.transactions.iter().flatten().filter_map(key).collect()
    }
}

fn bytes_of(field: &Field) -> usize {
    match field {
        Field::Text(text) => text.len(),
        Field::Number(_) => 0,
        Field::Bytes(bytes) => bytes.len(),
    }
}

pub(super) fn tenure_fields(tenure: &Tenure) -> Fields {
    let length = u64::try_from(tenure.length.as_millis()).unwrap_or(u64::MAX);
    Fields::from([
        ("holder".to_owned(), Field::Text(tenure.holder.clone())),
        ("epoch".to_owned(), Field::Number(tenure.epoch)),
        ("beat".to_owned(), Field::Number(tenure.beat)),
        ("length_ms".to_owned(), Field::Number(length)),
        ("released".to_owned(), Field::Number(u64::from(tenure.released))),
    ])
}

pub(super) fn read_tenure(fields: &Fields) -> Result<Tenure, String> {
    Ok(Tenure {
        holder: match fields.get("holder") {
            Some(Field::Text(holder)) => holder.clone(),
            _ => return Err(damaged("holder")),
        },
        epoch: number(fields, "epoch")?,
        beat: number(fields, "beat")?,
        length: Duration::from_millis(number(fields, "length_ms")?),
        released: number(fields, "released")? != 0,
    })
}

/// Nobody has taken over since.
pub(super) fn of_epoch(epoch: u64) -> Expected {
    Expected::Fields(Fields::from([("epoch".to_owned(), Field::Number(epoch))]))
}

/// A number as a part of a sort key: texts in the order of numbers.
pub(super) fn numbered(number: u64) -> String {
    format!("{number:020}")
}

/// The reverse of [`numbered`]; `None` for what it never gives.
pub(super) fn number_in(name: &str) -> Option<u64> {
    name.parse().ok().filter(|number| numbered(*number) == name)
}

/// The inputs of one append.
pub(super) fn batch_rows(number: u64, entries: &[Vec<u8>]) -> Vec<Row> {
    let mut bytes = Vec::with_capacity(entries.iter().map(|entry| entry.len() + size_of::<u64>()).sum());
    for entry in entries {
        bytes.extend((entry.len() as u64).to_be_bytes());
        bytes.extend(entry);
    }
    pieces(ENTRIES, &numbered(number), &bytes, &Fields::new())
}

/// The reverse of [`batch_rows`], once the pieces are together.
pub(super) fn read_batch(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("data"))?;
        let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| damaged("data"))?;
        let (entry, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("data"))?;
        entries.push(entry.to_vec());
        bytes = rest;
    }
    Ok(entries)
}

pub(super) fn checkpoint_rows(version: u64, state: &[u8]) -> Vec<Row> {
    pieces(CHECKPOINT, &numbered(version), state, &Fields::new())
}

/// By its id, so that the newest record replaces the older one.
pub(super) fn incident_rows(incident: &Incident) -> Result<Vec<Row>, String> {
    let json = serde_json::to_vec(incident).map_err(|error| error.to_string())?;
    let seconds = incident.detected_at.plus(KEPT).as_millis() / 1000;
    let expires_at = Field::Number(u64::try_from(seconds).unwrap_or(0));
    Ok(pieces(INCIDENTS, incident.id.as_str(), &json, &Fields::from([("expires_at".to_owned(), expires_at)])))
}

/// At least one row, each with how many belong together: leftovers of a longer value under the same name don't count.
fn pieces(partition: &str, name: &str, bytes: &[u8], also: &Fields) -> Vec<Row> {
    let parts: Vec<&[u8]> = if bytes.is_empty() { vec![bytes] } else { bytes.chunks(PIECE).collect() };
    let of = Field::Number(parts.len() as u64);
    let row = |(index, part): (usize, &&[u8])| {
        let mut fields = also.clone();
        fields.insert("data".to_owned(), Field::Bytes(part.to_vec()));
        fields.insert("pieces".to_owned(), of.clone());
        (key(partition, format!("{name}#{}", piece_number(index))), fields)
    };
    parts.iter().enumerate().map(row).collect()
}

/// The rows of a partition by name, in order. Rows that are no piece of anything are somebody else's.
pub(super) fn by_name(rows: Vec<Row>) -> BTreeMap<String, Vec<Row>> {
    let mut named: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for (key, fields) in rows {
        if let Some((name, _)) = piece(&key) {
            let name = name.to_owned();
            named.entry(name).or_default().push((key, fields));
        }
    }
    named
}

/// What a row is a piece of, and the how manieth.
fn piece(key: &RowKey) -> Option<(&str, usize)> {
    let (name, index) = key.sort.rsplit_once('#')?;
    let number = index.parse().ok()?;
    (index == piece_number(number)).then_some((name, number))
}

fn piece_number(index: usize) -> String {
    format!("{index:05}")
}

/// The value that was cut into these rows of one name.
pub(super) fn whole(rows: &[Row]) -> Result<Vec<u8>, String> {
    let (_, first) = rows.first().ok_or_else(|| damaged("data"))?;
    let of = usize::try_from(number(first, "pieces")?).map_err(|_| damaged("pieces"))?;
    let mut bytes = Vec::new();
    for index in 0..of {
        // Leftovers of a longer value must not stand in for a piece that is gone.
        let here = rows.get(index).filter(|(key, _)| piece(key).is_some_and(|(_, number)| number == index));
        let (_, fields) = here.ok_or_else(|| format!("piece {index} of {of} is gone"))?;
        match fields.get("data") {
            Some(Field::Bytes(part)) => bytes.extend(part),
            _ => return Err(damaged("data")),
        }
    }
    Ok(bytes)
}

fn number(fields: &Fields, name: &str) -> Result<u64, String> {
    match fields.get(name) {
        Some(Field::Number(number)) if *number <= LARGEST => Ok(*number),
        _ => Err(damaged(name)),
    }
}

fn damaged(field: &str) -> String {
    format!(
        "a row is damaged or not of a journal: its field {field} is missing, of another kind or out of range. \
         Give another table as --state: protection then begins anew from what AWS says"
    )
}

/// Cause and cure of a failed call.
pub(super) fn explain(error: &CallError) -> String {
    const SCHEMA: &str = "partition key pk and sort key sk, both of type String";
    match (error.class, error.code.as_deref()) {
        (ErrorClass::NotFound, _) => format!(
            "there is no such table in this account and Region ({error}). Create it with {SCHEMA}, or give another one as --state"
        ),
        (ErrorClass::Denied, _) => format!(
            "{error}. Allow this role dynamodb:GetItem, Query, PutItem, DeleteItem and ConditionCheckItem on the table"
        ),
        (_, Some("ValidationException")) if error.message.contains("schema") || error.message.contains("key") => {
            format!("the table has another key schema ({error}). It must have {SCHEMA}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_leftover_stands_in_for_no_piece_that_is_gone() {
        let row = |sort: &str, of| {
            let fields = [("data".to_owned(), Field::Bytes(b"x".to_vec())), ("pieces".to_owned(), Field::Number(of))];
            (key(CHECKPOINT, sort), Fields::from(fields))
        };
        let stored = |rows: &[(&str, u64)]| by_name(rows.iter().map(|(sort, of)| row(sort, *of)).collect());
        let name = numbered(1);
        let sorts: Vec<String> = (0..3).map(|index| format!("{name}#{}", piece_number(index))).collect();
        assert_eq!(whole(&stored(&[(&sorts[0], 2), (&sorts[1], 2), (&sorts[2], 3)])[&name]).unwrap(), b"xx");
        assert_eq!(whole(&stored(&[(&sorts[1], 2), (&sorts[2], 3)])[&name]).unwrap_err(), "piece 0 of 2 is gone");
        assert!(stored(&[("1", 1), ("1#0", 1), ("1#000000", 1), ("1#+0001", 1)]).is_empty(), "no piece of anything");
    }

    #[test]
    fn a_head_that_no_journal_writes_is_damaged() {
        let head = |head: Head| Head::read(&head.fields());
        assert!(head(Head { first: 2, next: 2, ..Head::default() }).is_ok());
        assert!(head(Head { first: 3, next: 2, ..Head::default() }).is_err());
        assert!(head(Head { seal: u64::MAX, ..Head::default() }).is_err());
    }

    #[test]
    fn only_numbers_as_they_are_written_are_numbers() {
        assert_eq!(number_in(&numbered(7)), Some(7));
        for other in ["7", "", "0000000000000000000x", "000000000000000000007", "+0000000000000000007"] {
            assert_eq!(number_in(other), None, "{other}");
        }
    }
}
