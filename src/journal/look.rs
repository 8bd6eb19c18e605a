//! A look at a journal from outside: nothing in the file changes, and its worker need not be asked.

use std::fmt::Debug;
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Builder, DatabaseError, Error, ReadableDatabase, ReadableTable, StorageBackend};

use super::redb::{CHECKPOINT, ENTRIES, FORMAT, INCIDENTS, META, explain, explain_open};
use crate::model::Incident;
use crate::ports::{JournalError, Recovered};

/// What a journal keeps.
#[derive(Debug, Default)]
pub struct Kept {
    /// The engine's state, and the inputs since.
    pub recovered: Recovered,
    /// Every incident, in the order of their ids.
    pub incidents: Vec<Incident>,
}

/// Reads a journal's file and leaves it as it is. One that a crash has left unfinished is repaired in memory.
///
/// # Errors
/// When it can't be read, is no journal, or a worker has it open.
pub fn read_only(path: &Path) -> Result<Kept, JournalError> {
    let failed = |cause| JournalError::Failed { context: format!("read {}", path.display()), cause };
    let kept = match Builder::new().open_read_only(path) {
        Ok(database) => kept(&database),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(
            "a running worker has it open. Stop the worker first, or replay a copy that was made while it was stopped"
                .to_owned(),
        ),
        Err(DatabaseError::RepairAborted) => copy(path).and_then(|database| kept(&database)),
        Err(error) => Err(explain_open(error, path)),
    };
    kept.map_err(failed)
}

fn copy(path: &Path) -> Result<redb::Database, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let memory = InMemoryBackend::new();
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    memory.set_len(length).and_then(|()| memory.write(0, &bytes)).map_err(|error| format!("{error:?}"))?;
    Builder::new().create_with_backend(memory).map_err(|error| explain_open(error, path))
}

fn kept(database: &impl ReadableDatabase) -> Result<Kept, String> {
    let attempt = || -> Result<Result<Kept, u64>, Error> {
        let transaction = database.begin_read()?;
        let format = transaction.open_table(META)?.get("format")?.map(|format| format.value());
        if format != Some(FORMAT) {
            return Ok(Err(format.unwrap_or_default()));
        }
        let checkpoint = transaction.open_table(CHECKPOINT)?.get(())?.map(|state| state.value().to_vec());
        let entries = transaction.open_table(ENTRIES)?;
        let entries = entries.iter()?.map(|row| row.map(|(_, entry)| entry.value().to_vec()));
        let entries = entries.collect::<Result<_, _>>()?;
        let mut incidents = Vec::new();
        for row in transaction.open_table(INCIDENTS)?.iter()? {
            let (id, row) = row?;
            incidents.extend(super::readable(id.value(), row.value().1));
        }
        Ok(Ok(Kept { recovered: Recovered { checkpoint, entries }, incidents }))
    };
    attempt()
        .map_err(|error| explain(&error))?
        .map_err(|other| format!("the file has journal format {other}, this version reads format {FORMAT}"))
}
