//! The table's journal over a table in memory: two replicas, lost answers, crashes between any two writes.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::fakes::{Fault, MemoryTable};
use super::{RedbJournal, TableJournal};
use crate::model::{CallError, Incident, IncidentId, IncidentOutcome, ServiceKey, TaskSetId, Timestamp};
use crate::ports::{Change, Entries, Fields, Journal, JournalError, Lease, Recovered, RowKey, Table, Tenure};

const LENGTH: Duration = Duration::from_secs(10);

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

/// More than one row takes, and more than one transaction.
fn big(fill: u8) -> Vec<u8> {
    vec![fill; 3 * 1024 * 1024]
}

async fn replica(table: &Arc<MemoryTable>, name: &str) -> TableJournal {
    TableJournal::open(table.clone(), "table guardian", name).await.unwrap()
}

/// Takes the lease, whoever has it, and reads the journal.
async fn take_over(journal: &TableJournal) -> (Tenure, Recovered) {
    let watched = journal.look().await.unwrap();
    let tenure = journal.acquire(watched.as_ref(), LENGTH).await.unwrap().unwrap();
    (tenure, journal.load().await.unwrap())
}

async fn holder(table: &Arc<MemoryTable>, name: &str) -> TableJournal {
    let journal = replica(table, name).await;
    take_over(&journal).await;
    journal
}

/// Reads the table as the next holder would.
async fn recovered(table: &Arc<MemoryTable>) -> Recovered {
    take_over(&replica(table, "next").await).await.1
}

/// Lets the removal of old rows, which nobody waits for, end.
async fn removals() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_next_holder_goes_on_in_order() {
    let table = Arc::default();
    let first = holder(&table, "first").await;
    first.append(bytes(&["a", "b"]).into(), &[]).await.unwrap();
    first.append(bytes(&["c"]).into(), &[]).await.unwrap();
    let second = replica(&table, "second").await;
    let (_, found) = take_over(&second).await;
    assert_eq!(found, Recovered { checkpoint: None, entries: bytes(&["a", "b", "c"]) });
    second.checkpoint(b"state".to_vec()).await.unwrap();
    second.append(bytes(&["d"]).into(), &[]).await.unwrap();
    assert_eq!(recovered(&table).await, Recovered { checkpoint: Some(b"state".to_vec()), entries: bytes(&["d"]) });
}

#[tokio::test]
async fn a_deposed_holder_writes_nothing() {
    let table = Arc::default();
    let first = holder(&table, "first").await;
    first.append(bytes(&["a"]).into(), &[]).await.unwrap();
    let second = holder(&table, "second").await;
    // In the place where the first one would lay down its next.
    second.append(bytes(&["b"]).into(), &[]).await.unwrap();
    for _ in 0..2 {
        let refused = first.append([big(1), big(2)].into(), &[]).await.unwrap_err();
        assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
        let refused =
            first.append(bytes(&["late"]).into(), &[incident("late", 1, IncidentOutcome::Open)]).await.unwrap_err();
        assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
        let refused = first.checkpoint(b"old".to_vec()).await.unwrap_err();
        assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
    }
    let refused = first.load().await.unwrap_err();
    assert!(matches!(refused, JournalError::Deposed { .. }), "{refused}");
    second.append(bytes(&["c"]).into(), &[]).await.unwrap();
    assert_eq!(second.incidents(9).await.unwrap(), []);
    assert_eq!(recovered(&table).await, Recovered { checkpoint: None, entries: bytes(&["a", "b", "c"]) });
}

#[tokio::test]
async fn who_never_had_the_lease_neither_reads_nor_writes() {
    let table = Arc::default();
    let journal = replica(&table, "nobody").await;
    assert!(journal.load().await.unwrap_err().to_string().contains("never acquired"));
    assert!(journal.append(bytes(&["a"]).into(), &[]).await.is_err());
    assert!(table.rows.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_crash_between_any_two_writes_of_a_big_append_leaves_none_or_all_of_it() {
    let table = Arc::<MemoryTable>::default();
    let entries = vec![big(1), b"small".to_vec(), big(2)];
    let mut crashed_at = 0;
    loop {
        let journal = holder(&table, "first").await;
        let before = recovered(&table).await;
        take_over(&journal).await;
        table.go_wrong((0..crashed_at).map(|_| None).chain([Some(Fault::Lost)]));
        if journal.append(entries.clone().into(), &[]).await.is_ok() {
            break;
        }
        table.go_wrong([]);
        assert_eq!(recovered(&table).await, before, "at its write {crashed_at}");
        crashed_at += 1;
    }
    table.go_wrong([]);
    assert!(crashed_at > 5, "6 MB are many transactions, not {crashed_at}");
    assert_eq!(recovered(&table).await.entries, entries);

    // A smaller batch in the place of the leftovers is not mixed up with them.
    let journal = holder(&table, "second").await;
    table.go_wrong([None, None, None, Some(Fault::Lost)]);
    journal.append(entries.clone().into(), &[]).await.unwrap_err();
    let journal = holder(&table, "third").await;
    journal.append(bytes(&["x"]).into(), &[]).await.unwrap();
    assert_eq!(recovered(&table).await.entries.last(), Some(&b"x".to_vec()));
}

#[tokio::test]
async fn a_crash_between_the_pieces_of_a_checkpoint_leaves_the_old_one_in_force() {
    let table = Arc::default();
    let journal = holder(&table, "first").await;
    journal.checkpoint(big(1)).await.unwrap();
    journal.append(bytes(&["a"]).into(), &[]).await.unwrap();
    for crashed_at in 0..3 {
        table.go_wrong((0..crashed_at).map(|_| None).chain([Some(Fault::Lost)]));
        journal.checkpoint(big(2)).await.unwrap_err();
        let expected = Recovered { checkpoint: Some(big(1)), entries: bytes(&["a"]) };
        assert_eq!(recovered(&table).await, expected, "at its write {crashed_at}");
        take_over(&journal).await;
    }
    journal.checkpoint(b"small".to_vec()).await.unwrap();
    assert_eq!(recovered(&table).await, Recovered { checkpoint: Some(b"small".to_vec()), entries: Vec::new() });
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_there_once_however_often_it_is_tried() {
    for entries in [bytes(&["a"]), vec![big(1), big(2)]] {
        let table = Arc::default();
        let journal = holder(&table, "first").await;
        let writes = *table.changes.lock().unwrap();
        journal.append(entries.clone().into(), &[]).await.unwrap();
        let writes = *table.changes.lock().unwrap() - writes;
        // The last of its writes, which commits: applied, and nobody knows; then not even sent.
        let faults = (1..writes).map(|_| None).chain([Some(Fault::Unanswered), Some(Fault::Lost)]);
        table.go_wrong(faults);
        journal.append(entries.clone().into(), &[]).await.unwrap_err();
        journal.append(entries.clone().into(), &[]).await.unwrap_err();
        journal.append(entries.clone().into(), &[]).await.unwrap();
        journal.append(bytes(&["z"]).into(), &[]).await.unwrap();
        let expected: Vec<_> = entries.iter().chain(&entries).cloned().chain(bytes(&["z"])).collect();
        assert_eq!(recovered(&table).await.entries, expected);
    }
}

#[tokio::test]
async fn something_else_after_a_lost_answer_comes_after_it_or_instead_of_it() {
    for (fault, expected) in [(Fault::Unanswered, bytes(&["a", "b"])), (Fault::Lost, bytes(&["b"]))] {
        let table = Arc::default();
        let journal = holder(&table, "first").await;
        table.go_wrong([Some(fault)]);
        journal.append(bytes(&["a"]).into(), &[]).await.unwrap_err();
        // The seal is lost too, applied or not.
        table.go_wrong([Some(Fault::Unanswered)]);
        journal.append(bytes(&["b"]).into(), &[]).await.unwrap_err();
        journal.append(bytes(&["b"]).into(), &[]).await.unwrap();
        assert_eq!(recovered(&table).await.entries, expected);
    }
}

#[tokio::test]
async fn a_storm_of_incidents_is_more_than_a_transaction_takes_and_the_newest_of_an_id_counts() {
    let table = Arc::default();
    let journal = holder(&table, "first").await;
    let open = (0..150).map(|n| incident(&format!("i{n}"), n, IncidentOutcome::Open));
    let closed = (0..150).map(|n| incident(&format!("i{n}"), n, IncidentOutcome::RolledBack));
    journal.append(bytes(&["a"]).into(), &open.chain(closed).collect::<Vec<_>>()).await.unwrap();
    let kept = journal.incidents(1000).await.unwrap();
    assert_eq!((kept.len(), kept[0].id.as_str(), kept[149].id.as_str()), (150, "i149", "i0"));
    assert!(kept.iter().all(|incident| incident.outcome == IncidentOutcome::RolledBack));
    assert_eq!(journal.incidents(2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_incident_expires_ninety_days_after_its_detection() {
    use crate::ports::Field;
    let table = Arc::<MemoryTable>::default();
    let journal = holder(&table, "first").await;
    journal.append(Entries::default(), &[incident("one", 1_772_445_880_989, IncidentOutcome::Open)]).await.unwrap();
    let rows = table.rows.lock().unwrap();
    let (_, fields) = rows.iter().find(|(key, _)| key.partition == "incidents").unwrap();
    assert_eq!(fields["expires_at"], Field::Number(1_772_445_880 + 90 * 86_400));
}

#[tokio::test]
async fn what_a_checkpoint_covers_is_removed_and_what_a_crash_left_behind_with_the_next() {
    let table = Arc::<MemoryTable>::default();
    let journal = holder(&table, "first").await;
    journal.append([big(1)].into(), &[]).await.unwrap();
    journal.checkpoint(big(1)).await.unwrap();
    journal.append(bytes(&["a"]).into(), &[]).await.unwrap();
    removals().await;
    assert_eq!((table.keys("entries").len(), table.keys("checkpoint").len()), (1, 12));
    // The next checkpoint is in force, and not one removal arrives.
    table.go_wrong([None, Some(Fault::Lost)]);
    journal.checkpoint(b"state".to_vec()).await.unwrap();
    removals().await;
    assert_eq!((table.keys("entries").len(), table.keys("checkpoint").len()), (1, 13));
    let journal = holder(&table, "second").await;
    journal.checkpoint(b"state".to_vec()).await.unwrap();
    removals().await;
    assert_eq!((table.keys("entries").len(), table.keys("checkpoint").len()), (0, 1));
}

#[tokio::test]
async fn only_one_of_two_takes_the_lease_and_a_freed_record_forgets_no_epoch() {
    let table = Arc::<MemoryTable>::default();
    let (first, second) = (replica(&table, "first").await, replica(&table, "second").await);
    let tenure = first.acquire(None, LENGTH).await.unwrap().unwrap();
    assert_eq!(second.acquire(None, LENGTH).await.unwrap(), None, "first was faster");
    let watched = second.look().await.unwrap().unwrap();
    assert_eq!(watched, tenure);
    let renewed = Tenure { beat: 1, ..tenure };
    assert!(first.renew(&renewed).await.unwrap());
    assert_eq!(second.acquire(Some(&watched), LENGTH).await.unwrap(), None, "renewed since");
    let taken = second.acquire(Some(&renewed), LENGTH).await.unwrap().unwrap();
    assert_eq!((taken.holder.as_str(), taken.epoch), ("second", 2));
    assert!(!first.renew(&Tenure { beat: 2, ..renewed.clone() }).await.unwrap());
    first.release(&renewed).await.unwrap();
    assert_eq!(second.look().await.unwrap(), Some(taken.clone()), "a deposed holder releases nothing");
    second.load().await.unwrap();
    second.release(&taken).await.unwrap();
    assert!(first.look().await.unwrap().unwrap().released);

    table.rows.lock().unwrap().retain(|key, _| key.partition != "lease");
    assert_eq!(first.acquire(None, LENGTH).await.unwrap().unwrap().epoch, 3);
}

#[tokio::test]
async fn a_table_of_another_format_is_refused_with_the_cure() {
    use crate::ports::Field;
    let table = Arc::<MemoryTable>::default();
    holder(&table, "first").await;
    for fields in table.rows.lock().unwrap().values_mut() {
        fields.insert("format".to_owned(), Field::Number(7));
    }
    let error = TableJournal::open(table, "table guardian", "x").await.err().unwrap().to_string();
    assert!(error.contains("table guardian") && error.contains("format 7") && error.contains("--state"), "{error}");
}

#[tokio::test]
async fn rows_that_are_gone_are_missed() {
    let table = Arc::<MemoryTable>::default();
    let journal = holder(&table, "first").await;
    journal.append(bytes(&["a"]).into(), &[]).await.unwrap();
    journal.append([big(1)].into(), &[]).await.unwrap();
    let first = table.rows.lock().unwrap().keys().find(|key| key.partition == "entries").cloned().unwrap();
    table.rows.lock().unwrap().remove(&first);
    journal.acquire(journal.look().await.unwrap().as_ref(), LENGTH).await.unwrap().unwrap();
    let error = journal.load().await.unwrap_err().to_string();
    assert!(error.contains("rows that its head names are gone"), "{error}");
}

#[test]
fn a_failed_call_is_explained_with_its_cure() {
    use crate::model::{CallError, ErrorClass};
    let explained = |class, code: &str, message: &str| {
        let operation = "dynamodb:GetItem".to_owned();
        super::layout::explain(&CallError {
            class,
            operation,
            code: Some(code.to_owned()),
            message: message.to_owned(),
        })
    };
    let missing = explained(ErrorClass::NotFound, "ResourceNotFoundException", "Requested resource not found");
    assert!(missing.contains("no such table") && missing.contains("partition key pk and sort key sk"), "{missing}");
    let message = "The provided key element does not match the schema";
    let schema = explained(ErrorClass::Rejected, "ValidationException", message);
    assert!(schema.contains("another key schema") && schema.contains("partition key pk"), "{schema}");
    let denied = explained(ErrorClass::Denied, "AccessDeniedException", "not authorized to perform: dynamodb:GetItem");
    assert!(denied.contains("dynamodb:GetItem, Query, PutItem, DeleteItem and ConditionCheckItem"), "{denied}");
}

/// What may happen to a journal.
#[derive(Clone, Debug)]
enum Deed {
    Append(Vec<Vec<u8>>, Vec<(u8, bool)>),
    Checkpoint(Vec<u8>),
    /// The process ends and the next one reads.
    Load,
    Incidents(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let small = proptest::collection::vec(any::<u8>(), 0..40);
    let large = (any::<u8>(), 200_000_usize..700_000).prop_map(|(fill, length)| vec![fill; length]);
    let entry = prop_oneof![8 => small.clone(), 1 => large.clone()];
    let entries = proptest::collection::vec(entry, 0..4);
    prop_oneof![
        5 => (entries, proptest::collection::vec((0_u8..5, any::<bool>()), 0..3)).prop_map(|(e, i)| Deed::Append(e, i)),
        2 => prop_oneof![3 => small, 1 => large].prop_map(Deed::Checkpoint),
        2 => Just(Deed::Load),
        1 => (0_usize..6).prop_map(Deed::Incidents),
    ]
}

/// The same at the end of all retries, or the same refusal.
async fn insist(faults: &mut impl Iterator<Item = Option<Fault>>, table: &MemoryTable, work: impl AsyncFn() -> bool) {
    table.go_wrong(faults.take(3));
    for _ in 0..10 {
        if work().await {
            table.go_wrong([]);
            return;
        }
    }
    panic!("it does not succeed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_journals_hold_the_same_whatever_is_done_to_them_and_whatever_calls_are_lost(
        deeds in proptest::collection::vec(deed(), 1..25),
        faults in proptest::collection::vec(prop_oneof![
            4 => Just(None), 1 => Just(Some(Fault::Lost)), 1 => Just(Some(Fault::Unanswered)),
        ], 60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut faults = faults.into_iter().cycle();
            let redb = RedbJournal::in_memory().unwrap();
            let table = Arc::<MemoryTable>::default();
            let mut journal = holder(&table, "0").await;
            for (number, deed) in deeds.into_iter().enumerate() {
                match deed {
                    Deed::Append(entries, incidents) => {
                        let incidents: Vec<_> = incidents
                            .into_iter()
                            .map(|(id, open)| {
                                let outcome = if open { IncidentOutcome::Open } else { IncidentOutcome::Held };
                                incident(&format!("i{id}"), i64::try_from(number).unwrap(), outcome)
                            })
                            .collect();
                        redb.append(entries.clone().into(), &incidents).await.unwrap();
                        let append = async || journal.append(entries.clone().into(), &incidents).await.is_ok();
                        insist(&mut faults, &table, append).await;
                    }
                    Deed::Checkpoint(state) => {
                        redb.checkpoint(state.clone()).await.unwrap();
                        insist(&mut faults, &table, async || journal.checkpoint(state.clone()).await.is_ok()).await;
                    }
                    Deed::Load => {
                        removals().await;
                        journal = replica(&table, &number.to_string()).await;
                        assert_eq!(take_over(&journal).await.1, redb.load().await.unwrap());
                    }
                    Deed::Incidents(limit) => {
                        assert_eq!(journal.incidents(limit).await.unwrap(), redb.incidents(limit).await.unwrap());
                    }
                }
            }
            assert_eq!(recovered(&table).await, redb.load().await.unwrap());
        });
    }
}

#[tokio::test]
async fn whoever_watches_the_page_does_not_read_the_table_again_and_again() {
    let table: Arc<MemoryTable> = Arc::default();
    let earlier = holder(&table, "first").await;
    earlier.append(bytes(&["a"]).into(), &[incident("old", 1, IncidentOutcome::Open)]).await.unwrap();
    let journal = holder(&table, "second").await;
    // Written before anybody looks, and after.
    journal.append(bytes(&["b"]).into(), &[incident("old", 1, IncidentOutcome::Escalated)]).await.unwrap();
    let ids = |found: &[Incident]| found.iter().map(|i| (i.id.to_string(), i.outcome)).collect::<Vec<_>>();
    let old = ("old".to_owned(), IncidentOutcome::Escalated);
    assert_eq!(ids(&journal.incidents(9).await.unwrap()), std::slice::from_ref(&old));
    let read = *table.lists.lock().unwrap();
    journal.append(bytes(&["c"]).into(), &[incident("new", 2, IncidentOutcome::Open)]).await.unwrap();
    journal.append(bytes(&["d"]).into(), &[incident("new", 2, IncidentOutcome::RolledBack)]).await.unwrap();
    let new = ("new".to_owned(), IncidentOutcome::RolledBack);
    assert_eq!(ids(&journal.incidents(9).await.unwrap()), [new.clone(), old]);
    assert_eq!(ids(&journal.incidents(1).await.unwrap()), [new]);
    assert_eq!(*table.lists.lock().unwrap(), read);
    // More than memory keeps: the table has them all.
    let many: Vec<_> = (0..250).map(|n| incident(&format!("i{n}"), 10 + n, IncidentOutcome::Held)).collect();
    journal.append(bytes(&["e"]).into(), &many).await.unwrap();
    assert_eq!(journal.incidents(200).await.unwrap().len(), 200);
    assert_eq!(*table.lists.lock().unwrap(), read);
    assert_eq!(journal.incidents(1000).await.unwrap().len(), 252);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_hold_the_lease_tells_the_news_of_the_one_that_does() {
    let table = Arc::<MemoryTable>::default();
    let standby = replica(&table, "second").await;
    let first = replica(&table, "first").await;
    take_over(&first).await;
    let mut number = 0;
    let mut news = async |writer: &TableJournal, readers: &[&TableJournal]| {
        number += 1;
        let written = incident("one", number, IncidentOutcome::Open);
        writer.append(bytes(&["a"]).into(), std::slice::from_ref(&written)).await.unwrap();
        for reader in readers {
            assert_eq!(reader.incidents(9).await.unwrap(), std::slice::from_ref(&written), "{number}");
        }
    };
    news(&first, &[&first, &standby]).await;
    news(&first, &[&first, &standby]).await;

    // It could not renew, and nobody has told it anything since.
    tokio::time::advance(LENGTH).await;
    let (tenure, _) = take_over(&standby).await;
    news(&standby, &[&first, &standby]).await;
    news(&standby, &[&first, &standby]).await;
    // Renewed, memory is as good as before.
    assert!(standby.renew(&tenure).await.unwrap());
    tokio::time::advance(LENGTH / 2).await;
    let read = *table.lists.lock().unwrap();
    standby.incidents(9).await.unwrap();
    assert_eq!(*table.lists.lock().unwrap(), read);

    // Given back before its end.
    standby.release(&tenure).await.unwrap();
    take_over(&first).await;
    news(&first, &[&first, &standby]).await;
    news(&first, &[&first, &standby]).await;

    // Taken away before its end.
    take_over(&standby).await;
    assert!(matches!(first.append(bytes(&["b"]).into(), &[]).await, Err(JournalError::Deposed { .. })));
    news(&standby, &[&first, &standby]).await;
    news(&standby, &[&first, &standby]).await;
}

/// A table whose lists of incidents are answered late, with what was there when they were asked for.
struct Late {
    table: Arc<MemoryTable>,
    answer: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Table for Late {
    async fn get(&self, key: &RowKey) -> Result<Option<Fields>, CallError> {
        self.table.get(key).await
    }

    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError> {
        let found = self.table.list(partition).await;
        if partition == "incidents" {
            self.answer.notified().await;
        }
        found
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, CallError> {
        self.table.change(changes).await
    }
}

#[tokio::test]
async fn what_a_standby_has_read_before_its_takeover_is_not_kept() {
    let table = Arc::<MemoryTable>::default();
    let first = holder(&table, "first").await;
    let late = Arc::new(Late { table: table.clone(), answer: tokio::sync::Notify::new() });
    let standby = TableJournal::open(late.clone(), "table guardian", "second").await.unwrap();
    let asked = standby.incidents(9);
    tokio::pin!(asked);
    tokio::select! {
        biased;
        _ = &mut asked => panic!("it is answered late"),
        () = std::future::ready(()) => {}
    }
    let last = incident("last", 1, IncidentOutcome::Open);
    first.append(bytes(&["a"]).into(), std::slice::from_ref(&last)).await.unwrap();
    take_over(&standby).await;
    late.answer.notify_one();
    assert_eq!(asked.await.unwrap(), [], "as it was when it was asked for");
    late.answer.notify_one();
    assert_eq!(standby.incidents(9).await.unwrap(), [last]);
}
