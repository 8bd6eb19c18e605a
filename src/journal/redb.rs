//! The journal in one file, on `redb`.
//!
//! After a failed commit `redb` refuses further writes until the file is opened again, so a failed operation closes the
//! file and the next one reopens it. Whether the failed commit was applied is unknown then; the caller retries the same
//! batch, and because a batch goes to the sequence numbers that follow the last *known* commit, the retry overwrites
//! the same rows with the same bytes.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, Error, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use crate::model::Incident;
use crate::ports::{Entries, Journal, JournalError, Recovered};

/// Raised when the meaning of a table changes. A file of another format is refused, never converted by guess.
pub(super) const FORMAT: u64 = 1;

/// How many incidents are kept. With the daily limit of a busy fleet that is months; the oldest go first.
const KEPT_INCIDENTS: u64 = 1000;

/// Pages of the file that are kept in memory, bytes. Entries are written once and read at the next start: more than a commit
/// touches is of no use. redb's own limit is a gibibyte.
const CACHE: usize = 4 << 20;

/// `"format"` → [`FORMAT`].
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Sequence number → input.
pub(super) const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
/// The one row → the engine's state.
pub(super) const CHECKPOINT: TableDefinition<(), &[u8]> = TableDefinition::new("checkpoint");
/// Id → when it was detected, and its JSON.
pub(super) const INCIDENTS: TableDefinition<&str, (i64, &[u8])> = TableDefinition::new("incidents");
/// The order of [`INCIDENTS`].
const INCIDENTS_BY_TIME: TableDefinition<(i64, &str), ()> = TableDefinition::new("incidents_by_time");

/// Inputs, checkpoint and incidents in one `redb` file, or in memory.
#[derive(Debug)]
pub struct RedbJournal {
    store: Arc<Mutex<Store>>,
    place: Arc<str>,
}

#[derive(Debug)]
struct Store {
    /// `None` after a failed operation: to be opened again.
    database: Option<Database>,
    /// `None` for a journal in memory, which has nothing to reopen.
    path: Option<PathBuf>,
    /// Where the next batch goes: behind the last commit that is known to have succeeded.
    next: u64,
}

impl RedbJournal {
    /// Opens the file, and creates it with its directory when it is not there.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let place: Arc<str> = Arc::from(path.display().to_string());
        let context = format!("open {place}");
        let opened = blocking(&context, move || {
            if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
                fs::create_dir_all(directory).map_err(|error| explain_io(&error))?;
            }
            forget_begun(&path).map_err(|error| explain_io(&error))?;
            let database =
                Builder::new().set_cache_size(CACHE).create(&path).map_err(|error| explain_open(error, &path))?;
            let next = prepare(&database)?;
            Ok(Store { database: Some(database), path: Some(path), next })
        });
        Ok(Self { store: Arc::new(Mutex::new(opened.await?)), place })
    }

    /// A journal that is gone with the process: for the demo and for tests.
    pub fn in_memory() -> Result<Self, JournalError> {
        let place: Arc<str> = Arc::from("memory");
        let open = || {
            let database = Builder::new()
                .create_with_backend(InMemoryBackend::new())
                .map_err(|error| explain_open(error, Path::new("memory")))?;
            let next = prepare(&database)?;
            Ok(Store { database: Some(database), path: None, next })
        };
        let store =
            open().map_err(|cause| JournalError::Failed { context: "open a journal in memory".into(), cause })?;
        Ok(Self { store: Arc::new(Mutex::new(store)), place })
    }

    /// Runs one operation off the async threads: it waits for the disk.
    async fn with<T: Send + 'static>(
        &self,
        what: &str,
        operation: impl FnOnce(&Database, &mut u64) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, JournalError> {
        let store = Arc::clone(&self.store);
        blocking(&format!("{what} {}", self.place), move || {
            let mut guard = store.lock().unwrap_or_else(PoisonError::into_inner);
            let Store { database, path, next } = &mut *guard;
            if database.is_none()
                && let Some(path) = path
            {
                // Not `create`: an empty journal in place of a lost one would forget every open rollback.
                let reopened =
                    Builder::new().set_cache_size(CACHE).open(&*path).map_err(|error| explain_open(error, path))?;
                prepare(&reopened)?;
                *database = Some(reopened);
            }
            let open = database.as_ref().ok_or("it is closed")?;
            operation(open, next).map_err(|error| {
                if path.is_some() {
                    *database = None;
                }
                explain(&error)
            })
        })
        .await
    }
}

#[async_trait]
impl Journal for RedbJournal {
    async fn load(&self) -> Result<Recovered, JournalError> {
        self.with("read", |database, _| {
            let transaction = database.begin_read()?;
            let checkpoint = transaction.open_table(CHECKPOINT)?.get(())?.map(|state| state.value().to_vec());
            let entries = transaction
                .open_table(ENTRIES)?
                .iter()?
                .map(|row| row.map(|(_, entry)| entry.value().to_vec()))
                .collect::<Result<_, _>>()?;
            Ok(Recovered { checkpoint, entries })
        })
        .await
    }

    async fn append(&self, entries: Entries, incidents: &[Incident]) -> Result<(), JournalError> {
        let incidents = incidents.iter().map(Kept::from_incident).collect::<Result<Vec<_>, _>>()?;
        self.with("append to", move |database, next| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let mut sequence = *next;
            {
                let mut table = transaction.open_table(ENTRIES)?;
                for entry in &*entries {
                    table.insert(sequence, entry.as_slice())?;
                    sequence += 1;
                }
            }
            if !incidents.is_empty() {
                let mut table = transaction.open_table(INCIDENTS)?;
                let mut by_time = transaction.open_table(INCIDENTS_BY_TIME)?;
                for Kept { id, at, json } in &incidents {
                    let older = table.insert(id.as_str(), (*at, json.as_slice()))?.map(|row| row.value().0);
                    if let Some(older) = older {
                        by_time.remove((older, id.as_str()))?;
                    }
                    by_time.insert((*at, id.as_str()), ())?;
                }
                while by_time.len()? > KEPT_INCIDENTS {
                    let Some(oldest) = by_time.pop_first()?.map(|(key, _)| key.value().1.to_owned()) else { break };
                    table.remove(oldest.as_str())?;
                }
            }
            transaction.commit()?;
            *next = sequence;
            Ok(())
        })
        .await
    }

    async fn checkpoint(&self, state: Vec<u8>) -> Result<(), JournalError> {
        self.with("write a checkpoint to", move |database, _| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.open_table(CHECKPOINT)?.insert((), state.as_slice())?;
            transaction.delete_table(ENTRIES)?;
            transaction.open_table(ENTRIES)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        let rows = self.with("read incidents of", move |database, _| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(INCIDENTS)?;
            let mut rows = Vec::new();
            for row in transaction.open_table(INCIDENTS_BY_TIME)?.iter()?.rev().take(limit) {
                let id = row?.0.value().1.to_owned();
                if let Some(incident) = table.get(id.as_str())? {
                    rows.push((id, incident.value().1.to_vec()));
                }
            }
            Ok(rows)
        });
        Ok(rows.await?.iter().filter_map(|(id, json)| super::readable(id, json)).collect())
    }
}

/// An incident as it goes into its row.
struct Kept {
    id: String,
    at: i64,
    json: Vec<u8>,
}

impl Kept {
    fn from_incident(incident: &Incident) -> Result<Self, JournalError> {
        let json = serde_json::to_vec(incident).map_err(|error| JournalError::Failed {
            context: format!("write incident {}", incident.id),
            cause: error.to_string(),
        })?;
        Ok(Self { id: incident.id.as_str().to_owned(), at: incident.detected_at.as_millis(), json })
    }
}

/// Runs the work where it may block. A panic inside `redb` (a file damaged in a way that it does not expect) is an
/// error like any other.
async fn blocking<T: Send + 'static>(
    context: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, JournalError> {
    let failed = |cause| JournalError::Failed { context: context.to_owned(), cause };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(failed),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Creates what is missing and refuses a file of another format. Returns the next sequence number.
fn prepare(database: &Database) -> Result<u64, String> {
    let attempt = || -> Result<Result<u64, u64>, Error> {
        let transaction = database.begin_write()?;
        let next = {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map(|format| format.value());
            match found {
                Some(FORMAT) => {}
                Some(other) => return Ok(Err(other)),
                None => {
                    meta.insert("format", FORMAT)?;
                }
            }
            transaction.open_table(CHECKPOINT)?;
            transaction.open_table(INCIDENTS)?;
            transaction.open_table(INCIDENTS_BY_TIME)?;
            transaction.open_table(ENTRIES)?.last()?.map_or(0, |(sequence, _)| sequence.value() + 1)
        };
        transaction.commit()?;
        Ok(Ok(next))
    };
    attempt().map_err(|error| explain(&error))?.map_err(|other| {
        format!(
            "the file has journal format {other}, this version reads format {FORMAT}. \
             Run the version that wrote it, or give another file as --state: protection then begins anew from what AWS says"
        )
    })
}

/// Cause and cure of a file that can't be opened.
/// A file whose first bytes are zeros was begun on a full disk, or by a process that was killed, and nothing was ever committed to
/// it: redb writes them last. Left as it is, redb refuses it for good. Whoever has it open may only just have begun it.
fn forget_begun(path: &Path) -> std::io::Result<()> {
    // What is not there, or can't be opened, is for redb to create, or to complain of.
    let Ok(mut file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
    let mut magic = [1; MAGIC];
    if file.read_exact(&mut magic).is_ok() && magic == [0; MAGIC] && file.try_lock().is_ok() {
        file.set_len(0)?;
    }
    Ok(())
}

/// The bytes with which a redb file begins.
const MAGIC: usize = 9;

pub(super) fn explain_open(error: DatabaseError, path: &Path) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another process has it open. One worker owns a journal: stop the other one, or give this one its own --state"
                .to_owned()
        }
        DatabaseError::UpgradeRequired(version) => {
            format!("it has the old file format {version} of redb. Move it away: protection then begins anew")
        }
        DatabaseError::Storage(redb::StorageError::Io(io)) if path.is_dir() => {
            format!("it is a directory ({io}). Give a file as --state")
        }
        other => explain(&other.into()),
    }
}

/// Cause and cure of a failed operation.
pub(super) fn explain(error: &Error) -> String {
    match error {
        Error::Io(io) => explain_io(io),
        Error::Corrupted(what) => format!(
            "the file is damaged or not a journal ({what}). Move it away and start again: \
             protection then begins anew from what AWS says, and past incidents are lost"
        ),
        other => other.to_string(),
    }
}

fn explain_io(io: &std::io::Error) -> String {
    let cure = match io.kind() {
        ErrorKind::PermissionDenied => "Give this user write permission there, or another place as --state",
        ErrorKind::ReadOnlyFilesystem => "Mount a writable volume there, or give another place as --state",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "Free some space; a worker that runs goes on by itself, one that starts is to be started again"
        }
        ErrorKind::InvalidData => {
            "It is not a journal. Move it away and start again: protection then begins anew from what AWS says"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "A part of the path is a file. Give another --state",
        ErrorKind::NotFound => {
            "There is no such place, or the file was taken away. Put it back, or give another --state"
        }
        _ => "Check the volume; the worker tries again by itself",
    };
    format!("{io}. {cure}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::model::{IncidentId, IncidentOutcome, ServiceKey, TaskSetId, Timestamp};

    fn incident(id: &str, detected_at: i64, outcome: IncidentOutcome) -> Incident {
        Incident {
            id: IncidentId::new(id),
            service: ServiceKey::new("prod", "checkout"),
            green: TaskSetId::new("ecs-svc/2"),
            blue: TaskSetId::new("ecs-svc/1"),
            task_definition: "web:42".into(),
            outcome,
            reason: None,
            first_sign_at: Timestamp::from_millis(detected_at - 10),
            detected_at: Timestamp::from_millis(detected_at),
            traffic_safe_at: None,
            traffic_lost_at: None,
            deleted_at: None,
            evidence: Vec::new(),
            timeline: Vec::new(),
            calls: Vec::new(),
            before: None,
            after: None,
            aftermath: Vec::new(),
        }
    }

    fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[tokio::test]
    async fn a_file_that_was_only_begun_is_begun_anew_and_any_other_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        fs::write(&path, vec![0; 73_728]).unwrap();
        let recovered = RedbJournal::open(&path).await.unwrap().load().await.unwrap();
        assert_eq!((recovered.checkpoint, recovered.entries.len()), (None, 0));
        fs::write(&path, "not a journal, and nobody's to empty").unwrap();
        RedbJournal::open(&path).await.unwrap_err();
        assert!(fs::read_to_string(&path).unwrap().starts_with("not a journal"));
    }

    #[tokio::test]
    async fn a_reopened_journal_goes_on_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not/yet/there/journal.redb");
        {
            let journal = RedbJournal::open(&path).await.unwrap();
            journal.append(bytes(&["a", "b"]).into(), &[]).await.unwrap();
            journal.append(bytes(&["c"]).into(), &[]).await.unwrap();
        }
        {
            let journal = RedbJournal::open(&path).await.unwrap();
            journal.append(bytes(&["d"]).into(), &[]).await.unwrap();
            let expected = Recovered { checkpoint: None, entries: bytes(&["a", "b", "c", "d"]) };
            assert_eq!(journal.load().await.unwrap(), expected);
            journal.checkpoint(b"state".to_vec()).await.unwrap();
            journal.append(bytes(&["e"]).into(), &[]).await.unwrap();
        }
        let journal = RedbJournal::open(&path).await.unwrap();
        let expected = Recovered { checkpoint: Some(b"state".to_vec()), entries: bytes(&["e"]) };
        assert_eq!(journal.load().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_failed_operation_closes_the_file_and_the_next_one_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let journal = RedbJournal::open(directory.path().join("j.redb")).await.unwrap();
        journal.append(bytes(&["a"]).into(), &[]).await.unwrap();
        // The batch reached the disk, but the caller was told that it did not.
        let lost = journal.with("test", |database, next| {
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?.insert(*next, b"b".as_slice())?;
            transaction.commit()?;
            Err::<(), _>(Error::PreviousIo)
        });
        lost.await.unwrap_err();
        assert!(journal.store.lock().unwrap().database.is_none(), "closed, because redb wants to be reopened");
        journal.append(bytes(&["b"]).into(), &[]).await.unwrap();
        journal.append(bytes(&["c"]).into(), &[]).await.unwrap();
        assert_eq!(journal.load().await.unwrap().entries, bytes(&["a", "b", "c"]), "the retry is not a second b");
    }

    #[tokio::test]
    async fn the_newest_record_of_an_incident_replaces_the_older_and_the_newest_incident_comes_first() {
        let journal = RedbJournal::in_memory().unwrap();
        let first = incident("one", 1000, IncidentOutcome::Open);
        let second = incident("two", 2000, IncidentOutcome::Open);
        journal.append(Entries::default(), &[first.clone(), second.clone()]).await.unwrap();
        let closed = Incident { outcome: IncidentOutcome::RolledBack, ..first };
        journal.append(Entries::default(), std::slice::from_ref(&closed)).await.unwrap();
        assert_eq!(journal.incidents(10).await.unwrap(), [second.clone(), closed]);
        assert_eq!(journal.incidents(1).await.unwrap(), [second]);
    }

    #[tokio::test]
    async fn old_incidents_make_room() {
        let journal = RedbJournal::in_memory().unwrap();
        let many: Vec<_> = (0..1005).map(|n| incident(&format!("i{n}"), n, IncidentOutcome::RolledBack)).collect();
        journal.append(Entries::default(), &many).await.unwrap();
        let kept = journal.incidents(2000).await.unwrap();
        assert_eq!((kept.len(), kept[999].id.as_str()), (1000, "i5"));
    }

    #[tokio::test]
    async fn a_second_process_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j.redb");
        let _first = RedbJournal::open(&path).await.unwrap();
        let error = RedbJournal::open(&path).await.unwrap_err().to_string();
        assert!(error.contains("j.redb") && error.contains("another process has it open"), "{error}");
    }

    #[tokio::test]
    async fn another_format_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("j.redb");
        {
            let database = Database::create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("format", 7).unwrap();
            transaction.commit().unwrap();
        }
        for _ in 0..2 {
            let error = RedbJournal::open(&path).await.unwrap_err().to_string();
            assert!(error.contains("journal format 7, this version reads format 1"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_not_a_journal_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("notes.txt");
        fs::write(&text, "these are not the bytes of a journal".repeat(400)).unwrap();
        let error = RedbJournal::open(&text).await.unwrap_err().to_string();
        assert!(error.contains("notes.txt") && error.contains("Move it away"), "{error}");

        let error = RedbJournal::open(directory.path()).await.unwrap_err().to_string();
        assert!(error.contains("it is a directory"), "{error}");

        let error = RedbJournal::open(text.join("j.redb")).await.unwrap_err().to_string();
        assert!(error.contains("A part of the path is a file"), "{error}");
    }
}
