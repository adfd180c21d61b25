//! Every operation that the seed asks of a writer, with its contract, on a real file system.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::path::PathBuf;

use laminar_wal::{
    CoreWalWriter, Offsets, OperationView, OsStorage, Recovery, RecoveryMode, SegmentReader,
    WalEntry, WalError, WalOperation, WalOptions, read, verify,
};
use tempfile::TempDir;
use wal_storage::Result;

/// A place for a log that does not exist yet.
struct Place {
    _directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a").join("log");
        std::fs::create_dir(directory.path().join("a")).unwrap();
        Self { _directory: directory, path }
    }

    fn writer(&self, core: u16) -> CoreWalWriter {
        CoreWalWriter::new(core, &self.path).unwrap()
    }

    fn options(&self) -> WalOptions {
        WalOptions::new(&self.path).segment_bytes(64 * 1024).batch_bytes(4096)
    }

    fn recovery(&self) -> Recovery {
        read(&self.path, RecoveryMode::TornTail).unwrap()
    }

    fn entries(&self) -> Vec<WalEntry> {
        self.recovery().entries().unwrap()
    }

    fn keys(&self) -> Vec<String> {
        let key = |entry: &WalEntry| Some(String::from_utf8_lossy(entry.key()?).into_owned());
        self.entries().iter().filter_map(key).collect()
    }
}

// ---- new, open_at ----

#[test]
fn new_makes_a_log_of_one_core_in_a_directory_of_its_own() {
    let place = Place::new();
    let writer = place.writer(3);
    assert_eq!((writer.core_id(), writer.path()), (3, place.path.as_path()));
    assert_eq!((writer.position(), writer.epoch(), writer.sequence()), (0, 0, 0));
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (0, 0));
    assert!(place.path.join("core-0003").is_dir());
}

#[test]
fn new_continues_behind_what_is_valid() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(3);
    writer.set_epoch(4)?;
    writer.append_put(b"a", b"1")?;
    writer.append_put(b"b", b"2")?;
    let (position, sequence) = (writer.position(), writer.sequence());
    writer.close()?;
    let mut writer = place.writer(3);
    assert_eq!((writer.position(), writer.sequence(), writer.epoch()), (position, sequence, 4));
    assert_eq!(writer.synced_position(), position, "what is found is durable");
    writer.append_put(b"c", b"3")?;
    writer.close()?;
    assert_eq!(place.keys(), ["a", "b", "c"]);
    assert!(place.entries().is_sorted());
    Ok(())
}

#[test]
fn a_log_of_one_core_is_not_opened_for_another() {
    let place = Place::new();
    place.writer(3).close().unwrap();
    let refusal = CoreWalWriter::new(4, &place.path).unwrap_err();
    assert!(matches!(refusal, WalError::InvalidArgument { .. }), "{refusal}");
}

#[test]
fn open_at_resumes_at_a_position_and_what_followed_is_gone_for_good() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"kept", b"")?;
    writer.sync()?;
    let position = writer.append_put(b"gone", b"")?;
    writer.append_put(b"gone too", b"")?;
    writer.close()?;

    let mut writer = CoreWalWriter::open_at(0, &place.path, position)?;
    assert_eq!((writer.position(), writer.synced_position()), (position, position));
    assert_eq!((writer.sequence(), writer.entries_since_sync()), (1, 0));
    writer.append_put(b"new", b"")?;
    writer.close()?;
    assert_eq!(place.keys(), ["kept", "new"]);
    Ok(())
}

#[test]
fn open_at_the_end_cuts_nothing_and_at_0_everything() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"a", b"")?;
    let end = writer.position();
    writer.close()?;
    CoreWalWriter::open_at(0, &place.path, end)?.close()?;
    assert_eq!(place.keys(), ["a"]);
    let mut writer = CoreWalWriter::open_at(0, &place.path, 0)?;
    assert_eq!((writer.position(), writer.sequence()), (0, 0));
    assert_eq!(writer.append_put(b"b", b"")?, 0);
    writer.close()?;
    assert_eq!(place.keys(), ["b"]);
    Ok(())
}

// ---- getters ----

#[test]
fn positions_and_counts_say_what_is_appended_and_what_is_durable() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    assert_eq!(writer.append_put(b"a", b"1")?, 0, "the first record");
    let first_end = writer.position();
    let second = writer.append_put(b"b", b"2")?;
    assert_eq!(second, first_end);
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (0, 2));
    writer.sync()?;
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (writer.position(), 0));
    let synced = writer.position();
    let third = writer.append_put(b"c", b"3")?;
    assert_eq!(third, synced + 24, "behind the mark of its batch");
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (synced, 1));
    assert_eq!(writer.sequence(), 3);
    Ok(())
}

#[test]
fn debug_shows_where_the_writer_stands() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(9);
    writer.set_epoch(77)?;
    writer.append_put(b"secret", b"value")?;
    let shown = format!("{writer:?}");
    for part in [
        "CoreWalWriter",
        "core_id: 9",
        "path:",
        &format!("position: {}", writer.position()),
        "synced_position: 0",
        "epoch: 77",
        "sequence: 1",
        "entries_since_sync: 1",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
    Ok(())
}

// ---- set_epoch and the appends ----

#[test]
fn later_entries_carry_the_epoch_that_was_set() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"a", b"")?;
    writer.set_epoch(5)?;
    writer.append_put(b"b", b"")?;
    writer.close()?;
    let epochs: Vec<u64> = place.entries().iter().map(|entry| entry.epoch).collect();
    assert_eq!(epochs, [0, 5]);
    Ok(())
}

#[test]
fn every_kind_of_entry_comes_back_as_it_was_appended() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(2);
    let offsets = Offsets::try_from_pairs([("orders-1", 7), ("orders-0", u64::MAX)]).unwrap();
    let positions = [
        writer.append_put(b"key", b"value")?,
        writer.append_put(b"", b"")?,
        writer.append_delete(b"key")?,
        writer.append_checkpoint(42)?,
        writer.append_commit(&offsets, Some(-5))?,
        writer.append_commit(&Offsets::new(), None)?,
        writer.append_epoch_barrier()?,
        writer.append_put(b"next epoch", b"")?,
    ];
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    writer.close()?;

    let put = |key: &[u8], value: &[u8]| WalOperation::Put { key: key.into(), value: value.into() };
    let expected = [
        put(b"key", b"value"),
        put(b"", b""),
        WalOperation::Delete { key: b"key".to_vec() },
        WalOperation::Checkpoint { id: 42 },
        WalOperation::Commit { offsets, watermark: Some(-5) },
        WalOperation::Commit { offsets: Offsets::new(), watermark: None },
        WalOperation::EpochBarrier { epoch: 0 },
        put(b"next epoch", b""),
    ];
    let entries = place.entries();
    assert_eq!(entries.len(), expected.len());
    for (index, (entry, operation)) in entries.iter().zip(expected).enumerate() {
        assert_eq!((entry.sequence, entry.core_id), (index as u64, 2));
        assert_eq!(entry.epoch, u64::from(index == 7), "a barrier ends its epoch");
        assert_eq!(entry.operation, operation);
    }
    Ok(())
}

#[test]
fn entries_are_seen_borrowed_with_every_getter() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"k", b"v")?;
    writer.append_delete(b"d")?;
    writer.append_checkpoint(1)?;
    let offsets = Offsets::try_from_pairs([("s", 3)]).unwrap();
    writer.append_commit(&offsets, None)?;
    writer.append_epoch_barrier()?;
    writer.close()?;
    let mut seen = 0;
    place.recovery().for_each(|entry| {
        let kinds = (entry.is_put(), entry.is_delete(), entry.is_checkpoint());
        assert_eq!(entry.is_state_operation(), entry.is_put() || entry.is_delete());
        match entry.sequence() {
            0 => assert_eq!((kinds, entry.value()), ((true, false, false), Some(&b"v"[..]))),
            1 => assert_eq!((kinds, entry.key()), ((false, true, false), Some(&b"d"[..]))),
            2 => assert_eq!((kinds, entry.key()), ((false, false, true), None)),
            3 => {
                let OperationView::Commit { offsets, watermark: None } = entry.operation() else {
                    panic!("{entry:?}")
                };
                assert_eq!(offsets.get("s"), Some(3));
            }
            _ => assert_eq!(
                entry.operation().to_operation(),
                WalOperation::EpochBarrier { epoch: 0 }
            ),
        }
        seen += 1;
    })?;
    assert_eq!(seen, 5);
    Ok(())
}

#[test]
fn a_ready_made_entry_is_logged_as_it_is() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(1);
    let entries = [
        WalEntry::put(1, 3, 0, b"k".to_vec(), b"v".to_vec(), 100),
        WalEntry::delete(1, 3, 1, b"k".to_vec(), 100),
        WalEntry::checkpoint(1, 4, 2, 9, 200),
        WalEntry::commit(1, 4, 3, Offsets::new(), Some(1), 300),
        WalEntry::epoch_barrier(1, 4, 4, 400),
        WalEntry::put(1, 7, 5, b"k".to_vec(), vec![1; 5000], 500),
    ];
    for entry in &entries {
        writer.append(entry)?;
    }
    assert_eq!(writer.epoch(), 7, "the writer follows");
    writer.close()?;
    assert_eq!(place.entries(), entries);
    Ok(())
}

#[test]
fn behind_a_ready_made_barrier_its_epoch_is_over() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(1);
    writer.append(&WalEntry::epoch_barrier(1, 4, 0, 400))?;
    assert_eq!(writer.epoch(), 5);
    let refusal = writer.append(&WalEntry::checkpoint(1, 4, 1, 9, 500)).unwrap_err();
    assert!(matches!(refusal, WalError::EntryOutOfOrder { field: "epoch", .. }), "{refusal}");
    Ok(())
}

#[test]
fn timestamps_are_of_now_and_never_fall() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    let before = WalEntry::now_ns();
    for _ in 0..100 {
        writer.append_put(b"k", b"v")?;
    }
    writer.close()?;
    let timestamps: Vec<i64> = place.entries().iter().map(|entry| entry.timestamp_ns).collect();
    assert!(timestamps.is_sorted_by(|a, b| a < b));
    // The wall clock may step, but not by an hour while this runs.
    let hour_ns = 3_600_000_000_000;
    assert!((before - hour_ns..before + hour_ns).contains(&timestamps[0]));
    Ok(())
}

#[test]
fn a_failed_append_leaves_position_and_sequence_as_they_were() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().max_record_bytes(1024).open()?;
    let mut writer = wal.writer(0)?;
    writer.append_put(b"a", b"1")?;
    let before = (writer.position(), writer.sequence(), writer.entries_since_sync());
    let refusal = writer.append_put(b"b", &[0; 2000]).unwrap_err();
    assert!(matches!(refusal, WalError::RecordTooLarge { .. }), "{refusal}");
    writer.append_delete(&[0; 2000]).unwrap_err();
    assert_eq!((writer.position(), writer.sequence(), writer.entries_since_sync()), before);
    drop(writer);
    wal.close()?;
    assert_eq!(place.keys(), ["a"]);
    Ok(())
}

// ---- sync, mark_synced ----

#[test]
fn a_sync_that_ran_elsewhere_is_marked_with_its_proof() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"a", b"1")?;
    writer.append_put(b"b", b"2")?;
    let handed_over = writer.position();
    let request = writer.start_sync()?;
    assert_eq!(request.position(), handed_over);
    let syncing = std::thread::spawn(move || request.run());
    writer.append_put(b"c", b"3")?;
    let proof = syncing.join().unwrap()?;
    assert_eq!((proof.core_id(), proof.position()), (0, handed_over));
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (0, 3), "not known yet");
    writer.mark_synced(proof)?;
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (handed_over, 1));
    Ok(())
}

#[test]
fn an_older_proof_changes_nothing_and_a_dropped_request_loses_nothing() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"a", b"1")?;
    let old = writer.start_sync()?.run()?;
    writer.append_put(b"b", b"2")?;
    drop(writer.start_sync()?);
    writer.append_put(b"c", b"3")?;
    writer.sync()?;
    let synced = writer.synced_position();
    writer.mark_synced(old)?;
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (synced, 0));
    writer.close()?;
    assert_eq!(place.keys(), ["a", "b", "c"]);
    Ok(())
}

// ---- truncate, reset ----

#[test]
fn truncate_keeps_what_lies_below_and_the_log_goes_on_there() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"a", b"")?;
    writer.set_epoch(3)?;
    let position = writer.append_put(b"b", b"")?;
    writer.append_put(b"c", b"")?;
    writer.truncate(position)?;
    assert_eq!((writer.position(), writer.synced_position()), (position, position));
    assert_eq!((writer.sequence(), writer.entries_since_sync()), (1, 0));
    assert_eq!(writer.epoch(), 3, "an epoch is not taken back");
    writer.close()?;
    assert_eq!(place.keys(), ["a"]);
    let mut writer = place.writer(0);
    assert_eq!((writer.position(), writer.sequence(), writer.epoch()), (position, 1, 3));
    writer.append_put(b"d", b"")?;
    writer.close()?;
    assert_eq!(place.keys(), ["a", "d"]);
    assert_eq!(place.entries()[1].sequence, 1);
    Ok(())
}

#[test]
fn truncating_at_the_end_makes_what_was_appended_durable_and_cuts_nothing() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.append_put(b"a", b"")?;
    writer.truncate(writer.position())?;
    assert_eq!(writer.synced_position(), writer.position());
    assert_eq!(place.keys(), ["a"]);
    Ok(())
}

#[test]
fn reset_empties_the_log_and_takes_neither_epoch_nor_time_back() -> Result<()> {
    let place = Place::new();
    let mut writer = place.writer(0);
    writer.reset()?;
    writer.set_epoch(9)?;
    writer.append_put(b"a", b"")?;
    writer.sync()?;
    let last = place.entries()[0].timestamp_ns;
    writer.reset()?;
    assert_eq!((writer.position(), writer.sequence(), writer.epoch()), (0, 0, 9));
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (0, 0));
    writer.close()?;
    assert!(place.entries().is_empty());
    let mut writer = place.writer(0);
    assert_eq!((writer.position(), writer.sequence(), writer.epoch()), (0, 0, 9));
    assert_eq!(writer.append_put(b"b", b"")?, 0);
    writer.close()?;
    let entries = place.entries();
    assert_eq!(place.keys(), ["b"]);
    assert_eq!((entries[0].sequence, entries[0].epoch), (0, 9));
    assert!(entries[0].timestamp_ns > last);
    Ok(())
}

// ---- all cores ----

#[test]
fn all_cores_writers_work_in_one_hand() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().cores(3).open()?;
    let mut writers = wal.writers()?;
    assert!(matches!(wal.writer(1), Err(WalError::WriterTaken { core: 1 })));
    assert_eq!(writers.core_count(), 3);
    for core in 0..3 {
        for n in 0..=core {
            writers.writer(core)?.append_put(format!("{core}-{n}").as_bytes(), b"")?;
        }
    }
    assert!(matches!(writers.writer(3), Err(WalError::CoreOutOfRange { core: 3, cores: 3 })));
    let positions = writers.positions();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!(writers.total_bytes(), positions.iter().sum::<u64>());
    assert_eq!(writers.synced_positions(), [0, 0, 0]);
    writers.sync()?;
    assert_eq!(writers.synced_positions(), positions);

    writers.set_epoch(5)?;
    writers.writer(1)?.set_epoch(8)?;
    assert_eq!(writers.append_epoch_barrier()?, 9, "of the highest epoch that any core reached");
    assert!(writers.iter_mut().all(|writer| writer.epoch() == 9));
    assert!(matches!(writers.set_epoch(3), Err(WalError::EpochRegressed { .. })));
    writers.sync()?;

    let barriers = place.entries();
    let barriers = barriers.iter().filter(|entry| entry.epoch == 8);
    assert_eq!(barriers.count(), 3);

    let refusal = writers.truncate(&positions[..2]).unwrap_err();
    assert!(matches!(refusal, WalError::InvalidArgument { .. }), "{refusal}");
    writers.truncate(&positions)?;
    assert_eq!(writers.positions(), positions);
    drop(writers);
    wal.close()?;
    assert_eq!(place.keys().len(), 6);
    let (wal, _) = place.options().cores(3).open()?;
    let mut writers = wal.writers()?;
    writers.reset()?;
    assert_eq!(writers.positions(), [0, 0, 0]);

    let mut handed_out = writers.into_writers();
    assert_eq!(handed_out.len(), 3);
    handed_out[2].append_put(b"on its own thread", b"")?;
    drop(handed_out);
    wal.close()?;
    assert_eq!(place.keys(), ["on its own thread"]);
    Ok(())
}

#[test]
fn each_core_logs_on_a_thread_of_its_own() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().cores(4).open()?;
    std::thread::scope(|scope| {
        for mut writer in wal.writers().unwrap().into_writers() {
            scope.spawn(move || {
                for n in 0..200_u32 {
                    writer.append_put(&n.to_le_bytes(), &[7; 300]).unwrap();
                    if n % 20 == 0 {
                        writer.sync().unwrap();
                    }
                }
            });
        }
    });
    wal.close()?;
    let recovery = place.recovery();
    for core in 0..4 {
        let mut next = 0;
        recovery.for_each_of_core(core, |entry| {
            assert_eq!(entry.sequence(), next);
            next += 1;
        })?;
        assert_eq!(next, 200);
    }
    assert!(recovery.entries()?.is_sorted());
    Ok(())
}

#[test]
fn a_writer_that_is_dropped_leaves_its_entries_and_can_be_taken_again() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().open()?;
    let mut writer = wal.writer(0)?;
    writer.append_put(b"a", b"")?;
    drop(writer);
    let mut writer = wal.writer(0)?;
    assert_eq!((writer.sequence(), writer.entries_since_sync()), (1, 0));
    writer.append_put(b"b", b"")?;
    drop(writer);
    drop(wal);
    assert_eq!(place.keys(), ["a", "b"]);
    Ok(())
}

#[test]
fn closing_while_a_writer_is_out_says_so_and_the_writer_closes_its_core() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().cores(2).open()?;
    let mut writer = wal.writer(1)?;
    let refusal = wal.close().unwrap_err();
    assert!(matches!(refusal, WalError::WriterTaken { core: 1 }), "{refusal}");
    writer.append_put(b"a", b"")?;
    let refusal = place.options().cores(2).open().unwrap_err();
    assert!(matches!(refusal, WalError::Locked { .. }), "{refusal}");
    writer.close()?;
    let (_, recovery) = place.options().cores(2).open()?;
    assert_eq!(recovery.entries()?.len(), 1);
    Ok(())
}

#[test]
fn a_log_opened_as_a_whole_goes_on_in_the_epoch_above_the_highest() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().cores(2).open()?;
    assert_eq!(wal.epoch(), 0, "an empty log");
    let mut writer = wal.writer(1)?;
    writer.set_epoch(6)?;
    writer.append_put(b"a", b"")?;
    drop(writer);
    wal.close()?;
    let (wal, _) = place.options().cores(2).open()?;
    assert_eq!(wal.epoch(), 7);
    assert_eq!(wal.writer(0)?.epoch(), 7);
    Ok(())
}

// ---- reading ----

/// Three epochs on two cores, in several segments.
fn three_epochs(place: &Place) -> Result<[u64; 2]> {
    let (wal, _) = place.options().cores(2).open()?;
    let mut writers = wal.writers()?;
    let mut middle = [0; 2];
    for epoch in 0..3_u64 {
        for writer in writers.iter_mut() {
            for n in 0..40 {
                let key = format!("{epoch}/{}/{n}", writer.core_id());
                let position = writer.append_put(key.as_bytes(), &[1; 700])?;
                if (epoch, n) == (1, 20) {
                    middle[usize::from(writer.core_id())] = position;
                }
            }
        }
        writers.append_epoch_barrier()?;
        writers.sync()?;
    }
    drop(writers);
    wal.close()?;
    Ok(middle)
}

#[test]
fn a_replay_is_merged_by_epoch_and_time_and_can_be_repeated() -> Result<()> {
    let place = Place::new();
    three_epochs(&place)?;
    let recovery = place.recovery();
    let entries = recovery.entries()?;
    assert_eq!(entries.len(), 3 * 2 * 41);
    assert!(entries.is_sorted_by(|a, b| a < b));
    assert_eq!(recovery.entries()?, entries);
    assert_eq!(recovery.cores().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(recovery.report().entries(), entries.len() as u64);
    Ok(())
}

#[test]
fn a_replay_stops_at_an_epoch() -> Result<()> {
    let place = Place::new();
    three_epochs(&place)?;
    for (epoch, count) in [(0, 82), (1, 164), (2, 246), (9, 246)] {
        let entries = place.recovery().up_to_epoch(epoch).entries()?;
        assert_eq!(entries.len(), count);
        assert!(entries.iter().all(|entry| entry.epoch <= epoch));
    }
    Ok(())
}

#[test]
fn a_replay_begins_at_positions() -> Result<()> {
    let place = Place::new();
    let middle = three_epochs(&place)?;
    let all = place.entries();
    let of = |core| all.iter().filter(|entry| entry.core_id == core).cloned().collect::<Vec<_>>();
    let from = place.recovery().from_positions(&[(0, middle[0])]).entries()?;
    let (zero, one): (Vec<_>, Vec<_>) = from.into_iter().partition(|entry| entry.core_id == 0);
    assert_eq!(zero, of(0)[61..], "from entry 20 of epoch 1 on");
    assert_eq!(one, of(1), "a core that is not named is replayed from its begin");
    let both = [(0, middle[0]), (1, middle[1])];
    assert_eq!(place.recovery().from_positions(&both).entries()?.len(), 2 * 62);
    let narrow = place.recovery().from_positions(&both).up_to_epoch(1).entries()?;
    assert_eq!(narrow.len(), 2 * 21);
    Ok(())
}

#[test]
fn a_visit_that_fails_ends_the_replay_with_its_error() -> Result<()> {
    let place = Place::new();
    three_epochs(&place)?;
    let mut seen = 0;
    let stop = || WalError::InvalidArgument { what: "enough".into() };
    let visit = |_: laminar_wal::EntryView<'_>| -> Result<()> {
        seen += 1;
        if seen == 10 { Err(stop()) } else { Ok(()) }
    };
    let ended = place.recovery().try_for_each(visit).unwrap_err();
    assert_eq!((ended.to_string().as_str(), seen), ("enough", 10));
    Ok(())
}

#[test]
fn one_segment_is_read_by_itself() -> Result<()> {
    let place = Place::new();
    three_epochs(&place)?;
    let storage = OsStorage::open(&place.path)?;
    let expected: Vec<_> = place.entries().into_iter().filter(|entry| entry.core_id == 1).collect();

    let mut first = SegmentReader::open(&storage, 1, 1)?;
    assert_eq!(first.next()?.map(|entry| entry.to_entry()).as_ref(), expected.first());
    let rest = first.read_all()?;
    assert_eq!(rest, expected[1..=rest.len()]);
    let end = first.valid_end()?;
    assert!(end.is_sealed, "{end:?}");
    assert!(first.next()?.is_none());

    let mut second = SegmentReader::open(&storage, 1, 2)?;
    let next = second.next()?.unwrap().to_entry();
    assert_eq!(next, expected[rest.len() + 1], "the log goes on there");

    let first_epoch = SegmentReader::open(&storage, 1, 1)?.read_up_to_epoch(0)?;
    assert_eq!(first_epoch, expected[..41]);
    assert!(SegmentReader::open(&storage, 1, 99).unwrap_err().is_not_found());
    Ok(())
}

#[test]
fn reading_and_verifying_need_no_lock_and_change_nothing() -> Result<()> {
    let place = Place::new();
    let (wal, _) = place.options().open()?;
    let mut writer = wal.writer(0)?;
    writer.append_put(b"a", b"")?;
    writer.sync()?;
    assert_eq!(place.keys(), ["a"], "beside a writer");
    let found = verify(&place.path)?;
    assert!(found.is_sound(), "{found}");
    writer.append_put(b"b", b"")?;
    writer.sync()?;
    assert_eq!(place.keys(), ["a", "b"]);
    Ok(())
}

#[test]
fn reading_what_is_not_there_makes_nothing() {
    let place = Place::new();
    assert!(read(&place.path, RecoveryMode::TornTail).unwrap_err().is_not_found());
    verify(&place.path).unwrap_err();
    assert!(!place.path.exists());
}

#[test]
fn a_recovery_still_replays_what_it_found_while_the_log_goes_on() -> Result<()> {
    let place = Place::new();
    three_epochs(&place)?;
    let (wal, recovery) = place.options().cores(2).open()?;
    let mut writer = wal.writer(0)?;
    for _ in 0..200 {
        writer.append_put(b"new", &[0; 700])?;
    }
    writer.sync()?;
    assert_eq!(recovery.entries()?.len(), 246);
    Ok(())
}
