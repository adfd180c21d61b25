//! Goal: the device rules, seen from the disk. Method: the simulated disk writes down every
//! operation, and each rule is read off that list.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::sync::Arc;

use wal_sim::{CrashPlan, Operation, OperationKind, SimStorage};
use wal_storage::Storage;
use wal_writer::{CoreWalWriter, LogOptions};

const BATCH_BYTES: usize = 4096;

fn open(disk: &SimStorage) -> CoreWalWriter {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = LogOptions {
        segment_bytes: 32 * 1024,
        max_record_bytes: 64 * 1024,
        batch_bytes: BATCH_BYTES,
        in_flight_bytes: 2 * BATCH_BYTES,
        ..LogOptions::default()
    };
    CoreWalWriter::with_storage(0, storage, options).unwrap().0
}

/// A writer whose first segment is active and whose next one is ready, and a fresh trace.
fn warm(disk: &SimStorage) -> CoreWalWriter {
    let mut writer = open(disk);
    writer.append_put(b"first", b"").unwrap();
    writer.sync().unwrap();
    disk.run_jobs();
    disk.set_tracing(true);
    let _ = disk.take_trace();
    writer
}

fn segment_operations(disk: &SimStorage) -> Vec<Operation> {
    let mut trace = disk.take_trace();
    trace.retain(|operation| operation.name.starts_with("core-"));
    trace
}

/// `write`, `write through`, `sync` …, with the number of the segment where there is one.
fn in_short(operations: &[Operation]) -> Vec<String> {
    let verb = |operation: &Operation| match (operation.kind, operation.through) {
        (OperationKind::Write, true) => "write through".to_owned(),
        (kind, _) => format!("{kind:?}").to_lowercase(),
    };
    let file = |operation: &Operation| {
        let name = operation.name.rsplit('/').next().unwrap_or_default();
        match name.strip_suffix(".wal") {
            Some(number) => number.trim_start_matches('0').to_owned(),
            None if name.starts_with("next-") => "new".to_owned(),
            None => "names".to_owned(),
        }
    };
    operations.iter().map(|operation| format!("{} {}", verb(operation), file(operation))).collect()
}

#[test]
fn a_sync_that_carries_everything_is_one_write_through_call() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    for n in 0..3_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 100]).unwrap();
    }
    writer.sync().unwrap();
    assert_eq!(in_short(&segment_operations(&disk)), ["write through 1"]);
}

#[test]
fn full_buffers_are_written_behind_the_appender_and_not_synced() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    for n in 0..3_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 1500]).unwrap();
    }
    assert_eq!(segment_operations(&disk), [], "the appender has a second buffer to go on with");
    disk.run_jobs();
    assert_eq!(in_short(&segment_operations(&disk)), ["write 1"]);
    assert_eq!(writer.stalls().buffers, 0);
}

#[test]
fn a_turn_writes_all_that_it_took_however_many_batches_that_were() {
    let options = LogOptions { in_flight_bytes: 64 << 20, ..LogOptions::default() };
    // A turn takes a few dozen at most, and its first one has a header before them.
    for batches in 1..70_u32 {
        let disk = SimStorage::new(1);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let (mut writer, _) = CoreWalWriter::with_storage(0, storage, options.clone()).unwrap();
        for n in 0..batches {
            writer.append_put(&n.to_le_bytes(), b"").unwrap();
            drop(writer.submit().unwrap());
        }
        writer.sync().unwrap();
        let after: Arc<dyn Storage> = Arc::new(disk.crash(CrashPlan::lose_everything_unsynced()));
        let (_, recovery) = CoreWalWriter::with_storage(0, after, options.clone()).unwrap();
        assert_eq!(recovery.entries().unwrap().len(), batches as usize);
    }
}

#[test]
fn a_sync_elsewhere_waits_for_nothing_that_was_appended_behind_it() {
    let disk = SimStorage::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = LogOptions { batch_bytes: 1 << 18, ..LogOptions::default() };
    let (mut writer, _) = CoreWalWriter::with_storage(0, storage, options).unwrap();
    // Far into segments that have room for all of what follows.
    while writer.position() < 9 << 20 {
        writer.append_put(b"k", &[1; 100_000]).unwrap();
        disk.run_jobs();
    }
    writer.sync().unwrap();
    writer.append_put(b"wanted", b"").unwrap();
    let request = writer.start_sync().unwrap();
    for _ in 0..30 {
        writer.append_put(b"not wanted", &[1; 100_000]).unwrap();
    }
    disk.set_tracing(true);
    let _ = disk.take_trace();
    let proof = request.run().unwrap();
    writer.mark_synced(proof).unwrap();
    // One turn of 1 MiB, not three.
    let written = in_short(&segment_operations(&disk));
    assert_eq!(written.len(), 1, "{written:?}");
    assert!(written[0].starts_with("write through"), "{written:?}");
    assert!(writer.synced_position() < writer.position());
}

#[test]
fn zeroes_are_written_ahead_of_a_core_that_syncs_and_not_ahead_of_one_in_bulk() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    let mut made = |syncs: bool| {
        for n in 0..60_u32 {
            writer.append_put(&n.to_le_bytes(), &[1; 1500]).unwrap();
            if syncs {
                writer.sync().unwrap();
            }
            disk.run_jobs();
        }
        let mut made = in_short(&segment_operations(&disk));
        made.retain(|operation| operation.starts_with("create"));
        made.dedup();
        made
    };
    // The segment behind the one being filled is made ready before anybody knows how that will be.
    assert_eq!(made(true), ["create new"]);
    assert_eq!(made(false), ["create new", "createreserved new"]);
    assert_eq!(made(true), ["create new"]);
}

#[test]
fn appending_touches_no_disk() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    for n in 0..20_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 100]).unwrap();
    }
    assert_eq!(segment_operations(&disk), []);
}

#[test]
fn rule_c_write_through_is_never_used_over_writes_that_wait_for_a_sync() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    // Two buffers are full and wait: the next append must write them out, un-synced.
    for n in 0..5_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 1500]).unwrap();
    }
    assert_eq!(in_short(&segment_operations(&disk)), ["write 1"], "nobody asked for a sync");
    writer.sync().unwrap();
    assert_eq!(in_short(&segment_operations(&disk)), ["write 1", "sync 1"]);
    writer.append_put(b"after", b"").unwrap();
    writer.sync().unwrap();
    assert_eq!(in_short(&segment_operations(&disk)), ["write through 1"]);
}

#[test]
fn rule_b_the_half_filled_block_is_written_again_with_the_same_first_bytes() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    let name = "core-0000/00000000000000000001.wal";
    let mut before = disk.read_file(name).unwrap();
    for n in 0..60_u32 {
        let end = usize::try_from(12288 + writer.position()).unwrap();
        writer.append_put(&n.to_le_bytes(), &vec![3; (n * 7 % 300) as usize]).unwrap();
        writer.sync().unwrap();
        let after = disk.read_file(name).unwrap();
        // Behind the header blocks, whatever was there is there, and only what is behind is new.
        assert_eq!(before[12288..end], after[12288..end], "append {n}");
        before = after;
    }
}

#[test]
fn rule_d_nothing_of_a_segment_is_written_before_the_one_before_is_durable() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    let mut before = 0;
    for n in 0..400_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 500]).unwrap();
        disk.run_jobs();
        let mut unsynced = std::collections::BTreeSet::new();
        for operation in segment_operations(&disk) {
            let is_record_write =
                operation.kind == OperationKind::Write && operation.name.ends_with(".wal");
            if is_record_write {
                assert!(
                    unsynced.iter().all(|name| *name == operation.name),
                    "{operation:?} while {unsynced:?} were not durable"
                );
                before += 1;
            }
            match operation.kind {
                OperationKind::Write if !operation.through => {
                    unsynced.insert(operation.name);
                }
                OperationKind::Write | OperationKind::Sync => {
                    unsynced.remove(&operation.name);
                }
                _ => {}
            }
        }
    }
    assert!(before > 15, "the workload rotates: {before} writes");
}

#[test]
fn the_last_write_to_a_segment_is_a_write_through_call_though_nobody_asked_for_a_sync() {
    let disk = SimStorage::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = LogOptions {
        segment_bytes: 32 * 1024,
        max_record_bytes: 8 * 1024,
        batch_bytes: BATCH_BYTES,
        in_flight_bytes: 8 * BATCH_BYTES,
        ..LogOptions::default()
    };
    let (mut writer, _) = CoreWalWriter::with_storage(0, storage, options).unwrap();
    writer.append_put(b"first", b"").unwrap();
    writer.sync().unwrap();
    disk.run_jobs();
    disk.set_tracing(true);
    let _ = disk.take_trace();
    // Over the end of the first segment, in one turn.
    for n in 0..34_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 500]).unwrap();
    }
    disk.run_jobs();
    let mut story = in_short(&segment_operations(&disk));
    story.retain(|line| line.ends_with(" 1") || line.ends_with(" 2"));
    assert_eq!(story, ["write through 1", "write 2"]);
}

#[test]
fn a_segment_gets_its_number_only_when_it_is_durable_under_a_temporary_name() {
    let disk = SimStorage::new(1);
    let mut writer = open(&disk);
    disk.set_tracing(true);
    let _ = disk.take_trace();
    writer.append_put(b"first", b"").unwrap();
    writer.sync().unwrap();
    assert_eq!(
        in_short(&segment_operations(&disk)),
        [
            "create new",
            "write new",
            "sync new",
            "rename new",
            "syncdirectory names",
            "write through 1"
        ]
    );
}

#[test]
fn a_rotation_takes_the_prepared_segment_and_seals_only_behind_its_durable_name() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    let mut operations = Vec::new();
    for n in 0..25_u32 {
        writer.append_put(&n.to_le_bytes(), &[1; 500]).unwrap();
        operations.extend(segment_operations(&disk));
    }
    writer.sync().unwrap();
    operations.extend(segment_operations(&disk));
    // Segment 2 was ready, so the rotation is no more than a durable end and a durable start.
    let story = in_short(&operations);
    assert!(story.iter().all(|line| !line.contains("new")), "{story:?}");
    let first_of_next = story.iter().position(|line| line.ends_with(" 2")).unwrap();
    let last_of_first = story.iter().rposition(|line| line.ends_with(" 1")).unwrap();
    assert!(last_of_first < first_of_next, "{story:?}");
    assert!(["sync 1", "write through 1"].contains(&&*story[last_of_first]), "{story:?}");
    // Start, vouch and the first records of a segment go out in one call.
    assert_eq!(operations[first_of_next].range.start, 4096);
    assert_eq!(writer.stalls().segments, 1, "only the opening's first segment was waited for");
}

#[test]
fn a_core_that_was_quiet_for_a_second_vouches_once() {
    let disk = SimStorage::new(1);
    let mut writer = warm(&disk);
    writer.append_put(b"key", b"value").unwrap();
    writer.sync().unwrap();
    let _ = disk.take_trace();
    disk.run_jobs();
    assert_eq!(segment_operations(&disk), [], "not before a second");
    for _ in 0..5 {
        disk.advance(std::time::Duration::from_millis(400));
        disk.run_jobs();
    }
    let operations = segment_operations(&disk);
    assert_eq!(in_short(&operations), ["write through 1"]);
    assert_eq!(operations[0].range, 8192..12288);
}

#[test]
fn closing_says_so_in_the_vouch_block_and_an_unused_opening_writes_no_segment() {
    let disk = SimStorage::new(1);
    warm(&disk).close().unwrap();
    assert_eq!(in_short(&segment_operations(&disk)), ["write through 1"]);
    disk.forget_jobs();
    open(&disk).close().unwrap();
    assert!(
        segment_operations(&disk).iter().all(|operation| operation.kind != OperationKind::Write)
    );
}

#[test]
fn behind_records_that_end_with_their_block_a_block_of_zeroes_is_written() {
    let disk = SimStorage::new(1);
    let mut writer = open(&disk);
    disk.set_tracing(true);
    writer.append_put(b"key", &[1; 4021]).unwrap();
    assert_eq!(writer.position(), 4096);
    writer.sync().unwrap();
    // Without it, a recycled file would show bytes of its earlier life right behind the log's end.
    let last = segment_operations(&disk).pop().unwrap();
    assert_eq!((last.range, last.through), (4096..12288 + 2 * 4096, true));
    // The next batch begins in that very block.
    writer.append_put(b"next", b"").unwrap();
    writer.sync().unwrap();
    assert_eq!(segment_operations(&disk).pop().unwrap().range, 12288 + 4096..12288 + 2 * 4096);
}
