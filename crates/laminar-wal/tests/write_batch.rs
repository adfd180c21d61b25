//! Atomic batches: several operations in one record, which is recovered whole or not at all,
//! whenever the power fails (promise 2).
//!
//! A batch torn in two is money that left one account and never came to the other. One checksum
//! over all of it is what keeps it together, so whatever else batches do, they must stay one record:
//! in a full buffer, at a segment's end, larger than both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::{Offsets, WalEntry, WalError, WalOperation, WriteBatch};
use support::clients::surviving;
use support::disks::TestDisk;
use support::tasks::Watchdog;
use support::{Step, TestLog, crash_plans, small};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

/// A batch with every operation that there is, and what it stands for.
fn of_everything() -> (WriteBatch, Vec<WalOperation>) {
    let offsets = Offsets::try_from_pairs([("orders", 7), ("payments", u64::MAX)]).unwrap();
    let mut batch = WriteBatch::new();
    batch
        .put(b"alice", b"90")
        .put(b"bob", b"110")
        .put(b"", b"")
        .delete(b"pending")
        .checkpoint(42)
        .commit(offsets.clone(), Some(-5))
        .commit(Offsets::new(), None);
    let put = |key: &[u8], value: &[u8]| WalOperation::Put { key: key.into(), value: value.into() };
    let operations = vec![
        put(b"alice", b"90"),
        put(b"bob", b"110"),
        put(b"", b""),
        WalOperation::Delete { key: b"pending".to_vec() },
        WalOperation::Checkpoint { id: 42 },
        WalOperation::Commit { offsets, watermark: Some(-5) },
        WalOperation::Commit { offsets: Offsets::new(), watermark: None },
    ];
    (batch, operations)
}

fn entries(disk: &SimStorage) -> Vec<WalEntry> {
    small(&disk.kill()).open().unwrap().1.entries().unwrap()
}

// ---- whole or not at all ----

#[test]
fn a_batch_is_there_whole_or_not_at_all_wherever_the_power_fails() -> Result<()> {
    use Step::{Append, Barrier, Batch, GiveBack, Jobs, Kill, Reopen, Sync};
    // In one buffer, in several, over the end of a buffer and of a segment, behind and before
    // entries of their own, at the beginning of a log and of a life.
    let life = [
        Batch(0, 3, 10),
        Sync(0),
        Append(0, 10),
        Batch(0, 5, 100),
        Append(0, 10),
        Batch(0, 1, 0),
        Sync(0),
        Batch(0, 4, 900),
        Batch(0, 4, 900),
        Jobs,
        Batch(0, 4, 900),
        Sync(0),
        // Larger than a buffer.
        Batch(0, 7, 1500),
        Append(0, 10),
        Sync(0),
        Batch(0, 60, 20),
        Barrier(0),
        Batch(0, 6, 800),
        GiveBack(0),
        Batch(0, 6, 800),
        Reopen,
        Batch(0, 9, 700),
        Batch(0, 2, 2),
        Kill,
        Batch(0, 30, 300),
        Batch(0, 3, 3),
        Sync(0),
    ];
    let mut log = TestLog::watched(1);
    life.into_iter().try_for_each(|step| log.perform(step))?;
    let moments = log.take_moments();
    assert!(moments.len() > 40, "{}", moments.len());
    for moment in moments {
        for plan in crash_plans(moment.operation * 10..moment.operation * 10 + 8) {
            // `settle` knows which entries belong together.
            moment.crash(plan).leave();
        }
        moment.kill().leave();
    }
    log.prove_that_it_goes_on()
}

#[test]
fn a_batch_of_which_one_sector_is_missing_is_not_there_at_all() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    let first = log.batch(0, 20, 400)?;
    log.append(0, 10)?;
    // Written, and nothing more: each crash keeps some of its sectors.
    log.batch(0, 2, 3000)?;
    log.run_jobs();
    let (mut gone, mut whole) = (0, 0);
    for plan in crash_plans(0..200) {
        let mut after = TestLog::closed(log.disk.crash(plan), 1, log.model.clone());
        after.story = format!("{plan:?}");
        after.reopen()?;
        match after.model.core(0).entries.len() {
            1 => gone += 1,
            21 | 22 | 24 => whole += 1,
            count => panic!("{}: {count} entries, the batch is at {first}", after.story),
        }
        after.leave();
    }
    assert!(gone > 20 && whole > 5, "{gone} gone, {whole} whole");
    Ok(())
}

// ---- what is in it ----

#[test]
fn the_operations_of_a_batch_are_entries_like_any_others() -> Result<()> {
    let mut log = TestLog::new(1);
    let (batch, operations) = of_everything();
    log.append(0, 10)?;
    log.writer(0).set_epoch(4)?;
    let begin = log.writer(0).position();
    let position = log.batch_appended(0, &batch, operations.clone())?;
    assert_eq!(position, begin, "where the record begins");
    assert_eq!(log.writer(0).sequence(), 1 + 7, "each has a sequence of its own");
    assert_eq!(log.writer(0).entries_since_sync(), 1 + 7);
    log.append(0, 10)?;
    log.sync(0)?;
    let entries = entries(&log.disk);
    let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(sequences, (0..9).collect::<Vec<u64>>());
    let of_batch: Vec<_> = entries[1..8].iter().map(|entry| entry.operation.clone()).collect();
    assert_eq!(of_batch, operations, "in their order");
    assert!(entries[1..].iter().all(|entry| entry.epoch == 4 && entry.core_id == 0));
    let timestamps = entries.iter().map(|entry| entry.timestamp_ns);
    assert!(timestamps.is_sorted_by(|earlier, later| earlier < later));
    log.crash_losing_everything()
}

#[test]
fn a_log_cannot_be_cut_inside_a_batch() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    let begin = log.batch(0, 3, 10)?;
    let end = log.writer(0).position();
    log.append(0, 10)?;
    for position in begin + 1..end {
        match log.writer(0).truncate(position).unwrap_err() {
            WalError::NotARecordBoundary { boundary_below, boundary_above, .. } => {
                assert_eq!((boundary_below, boundary_above), (begin, end));
            }
            other => panic!("{other}"),
        }
    }
    log.truncate(0, 4)?;
    assert_eq!(log.writer(0).sequence(), 4, "behind it, it can");
    log.truncate(0, 1)?;
    assert_eq!(log.writer(0).position(), begin, "and before it");
    log.prove_that_it_goes_on()
}

#[test]
fn an_empty_batch_appends_nothing() -> Result<()> {
    let mut log = TestLog::new(1);
    let empty = WriteBatch::new();
    assert_eq!(log.batch_appended(0, &empty, Vec::new())?, 0);
    log.append(0, 10)?;
    let end = log.writer(0).position();
    assert_eq!(log.batch_appended(0, &empty, Vec::new())?, end);
    assert_eq!((log.writer(0).position(), log.writer(0).sequence()), (end, 1));
    log.sync(0)?;
    assert_eq!(log.batch_appended(0, &empty, Vec::new())?, end);
    assert_eq!(log.writer(0).entries_since_sync(), 0);
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 1);
    Ok(())
}

#[test]
fn a_batch_is_cleared_and_filled_again_and_appended_as_often_as_one_likes() -> Result<()> {
    let mut log = TestLog::new(1);
    let (mut batch, operations) = of_everything();
    for _ in 0..3 {
        log.batch_appended(0, &batch, operations.clone())?;
    }
    let copy = batch.clone();
    batch.clear();
    assert_eq!((batch.len(), batch.is_empty()), (0, true));
    batch.delete(b"only").put(b"k", b"v");
    let shorter = vec![
        WalOperation::Delete { key: b"only".to_vec() },
        WalOperation::Put { key: b"k".to_vec(), value: b"v".to_vec() },
    ];
    log.batch_appended(0, &batch, shorter)?;
    log.batch_appended(0, &copy, operations)?;
    log.sync(0)?;
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 3 * 7 + 2 + 7);
    Ok(())
}

// ---- how large it may be ----

#[test]
fn a_batch_above_the_limit_is_refused_and_nothing_has_changed() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    let mut batch = WriteBatch::new();
    // Each of them would fit by itself.
    for _ in 0..7 {
        batch.put(b"key", &[7; 10_000]);
    }
    for _ in 0..2 {
        let writer = log.writer(0);
        let before = (writer.position(), writer.sequence(), writer.entries_since_sync());
        let refusal = writer.append_batch(&batch).unwrap_err();
        let WalError::RecordTooLarge { core: 0, payload_bytes, limit_bytes: 65_536 } = refusal
        else {
            panic!("{refusal}")
        };
        assert!((70_000..72_000).contains(&payload_bytes), "of all of them together");
        assert_eq!((writer.position(), writer.sequence(), writer.entries_since_sync()), before);
        // An open batch with something in it, the second time.
        log.append(0, 10)?;
    }
    // The largest that fits is accepted, and can be read.
    let largest = (0..).map(|n| 65_536 - 8 * n).find(|&bytes| log.batch(0, 1, bytes).is_ok());
    assert!(largest.unwrap() > 65_000, "{largest:?}");
    log.sync(0)?;
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 4);
    log.prove_that_it_goes_on()
}

#[test]
fn a_batch_that_does_not_fit_the_segment_goes_to_the_next_one_whole() -> Result<()> {
    let mut log = TestLog::new(1);
    // A segment has room for 12 KiB or so.
    for round in 0..6 {
        log.append(0, 100 * round)?;
        let end = log.writer(0).position();
        let position = log.batch(0, 30, 250)?;
        // Behind a mark, perhaps behind a seal's mark too, and never at two places.
        assert!([0, 24, 48].contains(&(position - end)), "{position} behind {end}");
        log.sync(0)?;
        log.crash_losing_everything()?;
    }
    assert!(log.found(0).segments >= 6, "{}", log.found(0).segments);
    assert_eq!(log.model.core(0).entries.len(), 6 * 31);
    Ok(())
}

#[test]
fn a_full_disk_refuses_a_batch_whole() -> Result<()> {
    let mut log = TestLog::new(1);
    log.run_jobs();
    log.append(0, 10)?;
    log.sync(0)?;
    log.run_jobs();
    log.disk.set_free_bytes(Some(0));
    let mut refused = 0;
    for _ in 0..12 {
        match log.batch(0, 5, 700) {
            Ok(_) => {}
            Err(WalError::StorageFull { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..12).contains(&refused), "{refused}");
    log.sync(0)?;
    log.disk.set_free_bytes(None);
    log.batch(0, 5, 700)?;
    log.sync(0)?;
    log.crash(CrashPlan::lose_everything_unsynced())?;
    assert_eq!(log.model.core(0).entries.len(), 1 + 5 * (13 - refused));
    Ok(())
}

// ---- from many threads ----

#[test]
fn batches_of_several_threads_do_not_run_into_each_other() -> Result<()> {
    let _watchdog = Watchdog::over("batches of several threads");
    let disk = TestDisk::new(1);
    let (wal, _) = disk.small().open()?;
    let _background = disk.with_background();
    let writer = wal.shared_writer(0)?;
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let writer = writer.clone();
            scope.spawn(move || {
                let mut batch = WriteBatch::new();
                for round in 0..30_u8 {
                    batch.clear();
                    for part in 0..5_u8 {
                        batch.put(&[thread, round, part], &[0; 60]);
                    }
                    let ticket = writer.append_batch(&batch).unwrap();
                    assert!(ticket.position() > 0);
                    if round % 4 == 0 {
                        ticket.wait().unwrap();
                    }
                }
            });
        }
    });
    writer.sync()?;
    let entries = surviving(&disk.sim);
    assert_eq!(entries.len(), 4 * 30 * 5);
    for batch in entries.chunks(5) {
        let keys: Vec<&[u8]> = batch.iter().map(|entry| entry.key().unwrap()).collect();
        let &[thread, round, _] = keys[0] else { panic!("{keys:?}") };
        let whole: Vec<[u8; 3]> = (0..5).map(|part| [thread, round, part]).collect();
        assert_eq!(keys, whole);
    }
    let empty = writer.append_batch(&WriteBatch::new())?;
    assert!(empty.is_durable()?);
    Ok(())
}
