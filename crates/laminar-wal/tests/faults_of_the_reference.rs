//! The eleven faults that were seen in the log this one replaces, each shown to be impossible.
//! `docs/decisions/0001-what-we-changed-from-the-seed.md` tells what happened there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::{CoreWalWriter, EndingKind, Offsets, WalEntry, WalError};
use support::{Model, TestLog, segment, small, storage};
use wal_format::{RecordKind, SEGMENT_HEADER_BYTES, SegmentBytes};
use wal_sim::{CrashPlan, Fault, OperationKind, SimStorage};
use wal_storage::Result;

/// Where the file of a segment holds its nth entry.
fn entry_offset(disk: &SimStorage, name: &str, nth: usize) -> u64 {
    let bytes = disk.read_file(name).unwrap();
    let file = SegmentBytes::parse(&bytes).unwrap();
    let base = file.start().unwrap().base_position;
    let mut entries = file.records().filter(|record| record.kind == RecordKind::Entry);
    entries.nth(nth).unwrap().position - base + SEGMENT_HEADER_BYTES
}

#[test]
fn fault_1_a_zero_filled_tail_keeps_no_core_from_opening() -> Result<()> {
    let mut log = TestLog::new(2);
    for core in 0..2 {
        log.append_n(core, 3)?;
        log.sync(core)?;
    }
    // An append that the file system had made room for, and whose bytes it lost.
    let end = log.writer(0).position() + SEGMENT_HEADER_BYTES;
    log.append_n(0, 3)?;
    log.disk = log.disk.kill();
    let name = segment(0, 1);
    let size_bytes = log.disk.read_file(&name)?.len() as u64;
    for zeroes in [0, 1, 7, 8, 24, 100, 4096, 1 << 20] {
        log.disk.truncate_file(&name, size_bytes + zeroes)?;
        log.disk.zero(&name, end..size_bytes + zeroes)?;
        let found = TestLog::open(log.disk.fork(), 2, log.model.clone())?;
        assert_eq!(found.model.core(0).entries.len(), 3);
        assert_eq!(found.model.core(1).entries.len(), 3);
    }
    Ok(())
}

#[test]
fn fault_2_one_flipped_bit_among_a_thousand_records_drops_none_of_them_silently() -> Result<()> {
    let mut log = TestLog::new(1);
    let mut name_and_offset = None;
    for n in 0..1000 {
        log.append(0, 4)?;
        if n % 100 == 99 {
            log.sync(0)?;
        }
        if n == 499 {
            // The last one is only prepared.
            let name = log.disk.names().into_iter().rev().nth(1);
            name_and_offset = name.map(|name| (entry_offset(&log.disk, &name, 0), name));
        }
        log.run_jobs();
    }
    let (offset, name) = name_and_offset.unwrap();
    let disk = log.disk.crash(CrashPlan::lose_everything_unsynced());
    disk.flip_bit(&name, offset + 30, 5)?;
    let fingerprint = disk.content_fingerprint();
    for _ in 0..3 {
        let refusal = small(&disk).open().unwrap_err();
        assert!(refusal.is_corrupt(), "{refusal}");
        assert!(refusal.to_string().contains(&name), "{refusal}");
        assert_eq!(disk.content_fingerprint(), fingerprint, "and nothing is cut from the disk");
    }
    disk.flip_bit(&name, offset + 30, 5)?;
    assert_eq!(TestLog::open(disk, 1, log.model)?.model.core(0).entries.len(), 1000);
    Ok(())
}

#[test]
fn fault_3_sequence_and_epoch_go_on_after_reopening_so_that_new_writes_win() -> Result<()> {
    let disk = SimStorage::new(1);
    let open = || {
        let storage = storage(&disk);
        CoreWalWriter::with_storage(0, storage, Default::default())
    };
    let (mut writer, _) = open()?;
    writer.set_epoch(7)?;
    writer.append_put(b"key", b"old")?;
    writer.close()?;
    let (mut writer, _) = open()?;
    assert_eq!((writer.sequence(), writer.epoch()), (1, 7));
    writer.append_put(b"key", b"new")?;
    writer.close()?;
    let (_, recovery) = open()?;
    let mut entries = recovery.entries()?;
    assert_eq!(entries.last().and_then(WalEntry::value), Some(&b"new"[..]));
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [0, 1]);
    entries.reverse();
    entries.sort();
    assert_eq!(entries.last().and_then(WalEntry::value), Some(&b"new"[..]), "by its order too");
    Ok(())
}

#[test]
fn fault_4_of_two_puts_to_one_key_the_later_one_wins_whatever_the_wall_clock_does() -> Result<()> {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let mut log = TestLog::new(2);
    log.put(0, "key", "1")?;
    log.sync(0)?;
    for value in ["2", "3", "4"] {
        log.disk.step_wall_clock(-HOUR_NS);
        log.put(0, "key", value)?;
        log.append(1, 10)?;
        log.sync(0)?;
        log.crash_losing_everything()?;
        log.disk.step_wall_clock(-HOUR_NS);
    }
    let (_, recovery) = small(&log.disk.kill()).cores(2).open()?;
    let entries = recovery.entries()?;
    let values = entries.iter().filter(|entry| entry.key() == Some(b"key"));
    let values: Vec<_> = values.filter_map(WalEntry::value).collect();
    assert_eq!(values, [b"1", b"2", b"3", b"4"]);
    Ok(())
}

#[test]
fn fault_5_what_a_reader_would_refuse_is_refused_by_the_writer() -> Result<()> {
    let disk = SimStorage::new(1);
    let limit = 1 << 20;
    let options = || small(&disk).max_record_bytes(limit);
    let (wal, _) = options().open()?;
    let mut writer = wal.writer(0)?;
    writer.append_put(b"a", b"1")?;
    let refusal = writer.append_put(b"large", &vec![1; 3 << 20]).unwrap_err();
    assert!(matches!(refusal, WalError::RecordTooLarge { .. }), "{refusal}");
    // The largest that is accepted can be read, also by an opening with a lower limit.
    let mut largest = limit as usize;
    while writer.append_put(b"large", &vec![2; largest]).is_err() {
        largest -= 8;
    }
    assert!(largest > limit as usize - 200);
    writer.append_put(b"z", b"3")?;
    writer.sync()?;
    let disk = disk.crash(CrashPlan::lose_everything_unsynced());
    let (_, recovery) = small(&disk).max_record_bytes(4096).open()?;
    let entries = recovery.entries()?;
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[1].value().map(<[u8]>::len), Some(largest));
    Ok(())
}

#[test]
fn fault_6_a_second_writer_is_locked_out_before_it_looks_at_a_byte() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append_n(0, 3)?;
    log.sync(0)?;
    // Half a batch, as a second opening would find it, and cut it off.
    log.append(0, 3000)?;
    let (operations, fingerprint) = (log.disk.operations(), log.disk.content_fingerprint());
    let refusal = small(&log.disk).open().unwrap_err();
    assert!(matches!(refusal, WalError::Locked { .. }), "{refusal}");
    assert_eq!(log.disk.operations(), operations);
    assert_eq!(log.disk.content_fingerprint(), fingerprint);
    log.sync(0)?;
    log.crash_losing_everything()
}

#[test]
fn fault_6_holds_between_processes_on_a_real_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let writer = CoreWalWriter::new(0, &path).unwrap();
    for refusal in [
        CoreWalWriter::new(0, &path).unwrap_err(),
        CoreWalWriter::open_at(0, &path, 0).unwrap_err(),
        laminar_wal::WalOptions::new(&path).open().unwrap_err(),
    ] {
        assert!(matches!(refusal, WalError::Locked { .. }), "{refusal}");
    }
    drop(writer);
    CoreWalWriter::new(0, &path).unwrap();
}

#[test]
fn fault_7_a_sync_that_failed_is_not_tried_again_and_never_said_to_have_worked() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append_n(0, 2)?;
    log.sync(0)?;
    let synced = log.writer(0).synced_position();
    // Two buffers, so that the last one is not written through and a sync of the file is needed.
    log.append(0, 3000)?;
    log.append(0, 3000)?;
    log.append(0, 3000)?;
    log.disk.inject(Fault::on(OperationKind::Sync));
    let syncs = log.disk.operations_of(OperationKind::Sync);
    log.sync(0).unwrap_err();
    assert_eq!(log.disk.operations_of(OperationKind::Sync), syncs + 1);
    for _ in 0..3 {
        let refusal = log.sync(0).unwrap_err();
        assert!(matches!(&refusal, WalError::Poisoned { core: 0, .. }), "{refusal}");
        assert!(refusal.to_string().contains("syncing"), "{refusal}");
        log.append(0, 10).unwrap_err();
        log.writer(0).start_sync().unwrap_err();
    }
    assert_eq!(log.writer(0).synced_position(), synced);
    assert_eq!(log.disk.operations_of(OperationKind::Sync), syncs + 1, "nothing is retried");
    log.crash_losing_everything()
}

#[test]
fn fault_8_nothing_is_appended_behind_a_torn_tail() -> Result<()> {
    let mut torn = 0;
    for seed in 0..40 {
        let mut log = TestLog::new(1);
        log.append_n(0, 3)?;
        log.sync(0)?;
        for _ in 0..3 {
            log.append(0, 3000)?;
        }
        log.crash(CrashPlan::random(seed))?;
        torn += usize::from(log.found(0).ending.is_torn());
        // What is synced now is there after the next crash, and the one after that.
        log.append_n(0, 3)?;
        log.sync(0)?;
        log.crash_losing_everything()?;
        assert_eq!(log.found(0).entries, log.model.core(0).entries.len() as u64);
        log.crash_losing_everything()?;
    }
    assert!(torn > 3, "{torn} torn tails");
    Ok(())
}

#[test]
fn fault_9_names_cuts_and_adopted_bytes_are_durable_before_anything_is_claimed() -> Result<()> {
    // Names: the very first acked entry survives the worst crash.
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    log.crash_losing_everything()?;
    // Cuts: what `truncate` cut off does not come back.
    log.append_n(0, 5)?;
    log.truncate(0, 2)?;
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 2);
    // Adopted bytes: what an opening found in the page cache, and says is synced, is.
    for _ in 0..4 {
        log.append(0, 3000)?;
    }
    log.kill()?;
    let adopted = log.model.core(0).entries.len();
    assert!(adopted > 2, "something was in the page cache only");
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), adopted);
    Ok(())
}

#[test]
fn fault_10_truncate_drops_what_is_newest_and_says_so_by_its_result() -> Result<()> {
    let mut log = TestLog::new(1);
    for n in 0..6 {
        log.put(0, &n.to_string(), "")?;
    }
    log.sync(0)?;
    log.truncate(0, 4)?;
    let (_, recovery) = small(&log.disk.kill()).open()?;
    let entries = recovery.entries()?;
    let keys: Vec<_> = entries.iter().filter_map(WalEntry::key).collect();
    assert_eq!(keys, [b"0", b"1", b"2", b"3"]);
    // Its own checkpoint entry drops nothing.
    log.writer(0).append_checkpoint(1)?;
    log.writer(0).sync()?;
    let (_, recovery) = small(&log.disk.kill()).open()?;
    assert_eq!(recovery.entries()?.len(), 5);
    Ok(())
}

#[test]
fn fault_11_equal_commits_have_equal_bytes() -> Result<()> {
    let sources: Vec<(String, u64)> = (0..20).map(|n| (format!("source-{n}"), n * 7)).collect();
    let forwards = Offsets::try_from_pairs(sources.clone()).unwrap();
    let backwards = Offsets::try_from_pairs(sources.into_iter().rev()).unwrap();
    assert_eq!(forwards, backwards);
    let written = |offsets: &Offsets| -> Result<Vec<u8>> {
        let disk = SimStorage::new(1);
        let (wal, _) = small(&disk).open()?;
        wal.writer(0)?.append_commit(offsets, Some(1))?;
        wal.close()?;
        disk.read_file(&segment(0, 1))
    };
    assert_eq!(written(&forwards)?, written(&backwards)?);
    let twice = Offsets::try_from_pairs([("a", 1), ("a", 2)]).unwrap_err();
    assert_eq!(twice.source_name, "a");
    Ok(())
}

#[test]
fn an_empty_log_that_was_never_closed_opens_as_empty() -> Result<()> {
    // None of the eleven, and the first thing that each of them stood beside.
    let mut log = TestLog::open(SimStorage::new(1), 1, Model::default())?;
    log.crash_losing_everything()?;
    assert_eq!(log.found(0).ending.kind, EndingKind::Empty);
    Ok(())
}
