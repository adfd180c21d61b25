//! Goal: a recovery that leaves something out leaves what there was at one point in time, says what
//! it leaves out, changes nothing before that is accepted, and then all of it or nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::sync::Arc;

use laminar_wal::{
    CheckpointDetails, CoreWriters, PendingRecovery, RecoveryMode, RecoveryTarget, Wal, WalEntry,
    WalError, WalOperation, WalOptions, WriteBatch,
};
use wal_recovery::{Proposal, recover_to, verify};
use wal_sim::{CrashPlan, Fault, OperationKind, Part, SimStorage};
use wal_storage::Storage;

const CORES: u16 = 3;

fn options(disk: &SimStorage) -> WalOptions {
    WalOptions::on_storage(Arc::new(disk.clone()))
        .cores(CORES)
        .segment_bytes(40 * 1024)
        .batch_bytes(4096)
        .in_flight_bytes(8192)
        .max_record_bytes(8192)
        .recycled_segments(0)
}

/// A log that was closed cleanly, and everything that its replay gives.
struct Log {
    disk: SimStorage,
    entries: Vec<WalEntry>,
    checkpointed_epoch: Option<u64>,
}

impl Log {
    fn of(disk: SimStorage) -> Self {
        let (wal, recovery) = options(&disk).open().unwrap();
        let checkpointed_epoch = wal.last_checkpoint().map(|checkpoint| checkpoint.epoch);
        Self { disk, entries: recovery.entries().unwrap(), checkpointed_epoch }
    }

    fn recover(&self, mode: RecoveryMode, target: RecoveryTarget) -> PendingRecovery {
        try_recover(&self.disk, mode, target).unwrap()
    }
}

fn try_recover(
    disk: &SimStorage,
    mode: RecoveryMode,
    target: RecoveryTarget,
) -> Result<PendingRecovery, WalError> {
    options(disk).recovery_mode(mode).recovery_target(target).recover()
}

/// A new log, without the replay of nothing, which would pin it.
fn new_log(seed: u64) -> (SimStorage, Wal, CoreWriters) {
    let disk = SimStorage::new(seed);
    let (wal, _) = options(&disk).open().unwrap();
    let writers = wal.writers().unwrap();
    (disk, wal, writers)
}

/// Three cores put in turn, and leave an epoch together every few rounds.
fn put_in_epochs(disk: &SimStorage, writers: &mut CoreWriters, epochs: u8) {
    for epoch in 0..epochs {
        for round in 0..10_u8 {
            for writer in writers.iter_mut() {
                writer.append_put(&[epoch, round], &[round; 1200]).unwrap();
                disk.step_wall_clock(1000);
            }
            writers.sync().unwrap();
            disk.run_jobs();
        }
        writers.append_epoch_barrier().unwrap();
    }
    writers.sync().unwrap();
}

/// Five epochs, of which the last has no barrier on core 2; several segments on each core.
fn epochs() -> Log {
    let (disk, wal, mut writers) = new_log(1);
    put_in_epochs(&disk, &mut writers, 4);
    for writer in writers.iter_mut() {
        writer.append_put(b"in the last epoch", &[9; 300]).unwrap();
        disk.step_wall_clock(1000);
    }
    for core in [0, 1] {
        writers.writer(core).unwrap().append_epoch_barrier().unwrap();
    }
    close(wal, writers);
    Log::of(disk)
}

/// Two epochs, in few segments.
fn two_epochs() -> Log {
    let (disk, wal, mut writers) = new_log(4);
    put_in_epochs(&disk, &mut writers, 2);
    close(wal, writers);
    Log::of(disk)
}

/// Four epochs, two of them behind a checkpoint, and something of those in segments that are still
/// there.
fn checkpointed() -> Log {
    let (disk, wal, mut writers) = new_log(2);
    put_in_epochs(&disk, &mut writers, 2);
    checkpoint(&wal, &mut writers, 7);
    disk.run_jobs();
    put_in_epochs(&disk, &mut writers, 2);
    close(wal, writers);
    Log::of(disk)
}

fn close(wal: Wal, writers: CoreWriters) {
    drop(writers);
    wal.close().unwrap();
}

fn kept_of(pending: &PendingRecovery) -> Vec<WalEntry> {
    pending.recovery().entries().unwrap()
}

/// Of all that there was, what is kept is what came first, in the order of replay.
fn is_one_point_in_time(kept: &[WalEntry], all: &[WalEntry]) -> bool {
    all.starts_with(kept)
}

#[test]
fn up_to_an_epoch_or_a_time_all_that_is_older_is_there_and_nothing_that_is_newer() {
    for log in [epochs(), checkpointed()] {
        let mut targets: Vec<RecoveryTarget> = (0..8).map(RecoveryTarget::Epoch).collect();
        let times = log.entries.iter().map(|entry| entry.timestamp_ns);
        targets.extend(times.flat_map(|ns| [ns - 1, ns]).map(RecoveryTarget::Timestamp));
        let mut refused = Vec::new();
        for target in targets {
            let expected = log.entries.iter().filter(|entry| is_within(target, entry));
            let expected: Vec<WalEntry> = expected.cloned().collect();
            match try_recover(&log.disk, RecoveryMode::TornTail, target) {
                Ok(pending) => {
                    assert_eq!(kept_of(&pending), expected, "{target:?}");
                    assert_eq!(pending.losses().is_empty(), expected.len() == log.entries.len());
                }
                // Below the checkpoint.
                Err(WalError::InvalidArgument { what }) => {
                    assert!(what.contains("checkpoint 7"), "{what}");
                    refused.push(target);
                }
                Err(error) => panic!("{error}"),
            }
        }
        // What a checkpoint closed cannot be gone back to, and everything else can.
        let below = (0..log.checkpointed_epoch.unwrap_or(0)).map(RecoveryTarget::Epoch);
        assert_eq!(refused, below.collect::<Vec<_>>());
    }
}

fn is_within(target: RecoveryTarget, entry: &WalEntry) -> bool {
    match target {
        RecoveryTarget::Epoch(epoch) => entry.epoch <= epoch,
        RecoveryTarget::Timestamp(ns) => entry.timestamp_ns <= ns,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_complete_epoch_is_the_last_one_that_every_core_has_left() {
    let log = epochs();
    let pending = log.recover(RecoveryMode::TornTail, RecoveryTarget::LastCompleteEpoch);
    let kept = kept_of(&pending);
    assert_eq!(kept.iter().map(|entry| entry.epoch).max(), Some(3));
    let barriers = kept
        .iter()
        .filter(|entry| matches!(entry.operation, WalOperation::EpochBarrier { epoch: 3 }));
    assert_eq!(barriers.count(), usize::from(CORES));
    assert_eq!(pending.losses().len(), usize::from(CORES));
    drop(pending);

    // Everything is complete.
    let log = checkpointed();
    let pending = log.recover(RecoveryMode::TornTail, RecoveryTarget::LastCompleteEpoch);
    assert_eq!(kept_of(&pending), log.entries);
    assert!(pending.losses().is_empty());
}

#[test]
fn an_atomic_batch_is_kept_whole_or_not_at_all() {
    let disk = SimStorage::new(6);
    let (wal, _) = options(&disk).cores(1).open().unwrap();
    let mut writer = wal.writer(0).unwrap();
    writer.append_put(b"before", b"").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(b"one", b"").put(b"two", b"").put(b"three", b"");
    writer.append_batch(&batch).unwrap();
    writer.close().unwrap();
    wal.close().unwrap();
    let log = options(&disk).cores(1).open().unwrap().1.entries().unwrap();
    let kept_up_to = |entry: &WalEntry| {
        let target = RecoveryTarget::Timestamp(entry.timestamp_ns);
        kept_of(&options(&disk).cores(1).recovery_target(target).recover().unwrap()).len()
    };
    assert!(log.is_sorted_by(|a, b| a.timestamp_ns < b.timestamp_ns));
    assert_eq!(log.iter().map(kept_up_to).collect::<Vec<_>>(), [1, 1, 1, 4]);
}

#[test]
fn an_epoch_is_asked_of_the_cores_that_took_part_in_it_and_still_log() {
    let disk = SimStorage::new(5);
    let mut puts = 0_u8;
    // Opens for so many cores, puts on each, and leaves the epoch on the first ones of them.
    let mut run = |cores: u16, leaving: u16| {
        let (wal, _) = options(&disk).cores(cores).open().unwrap();
        let mut writers = wal.writers().unwrap();
        let epoch = wal.epoch();
        for writer in writers.iter_mut() {
            puts += 1;
            writer.append_put(&[puts], b"").unwrap();
            if writer.core_id() < leaving {
                writer.append_epoch_barrier().unwrap();
            }
        }
        close(wal, writers);
        epoch
    };
    let complete = |cores: u16| {
        let target = RecoveryTarget::LastCompleteEpoch;
        let pending = options(&disk).cores(cores).recovery_target(target).recover().unwrap();
        let last = kept_of(&pending).last().map(|entry| entry.epoch);
        last.filter(|_| !pending.losses().is_empty())
    };
    let both = run(2, 2);
    run(2, 1);
    assert_eq!(complete(2), Some(both));
    // Two more cores, which have not left any epoch yet, and were not there before.
    let four = run(4, 0);
    assert_eq!(complete(4), Some(both));
    let four = run(4, 4).max(four);
    assert_eq!(complete(4), None, "epoch {four} is complete, and the last one");
    let three = run(4, 3);
    assert_eq!(complete(4), Some(four));
    // Of four, two log no more, and so the others are enough.
    run(2, 0);
    assert_eq!(complete(2), Some(three));
    let two = run(2, 2);
    assert_eq!(complete(2), None, "epoch {two} is complete, and the last one");
    run(2, 0);
    assert_eq!(complete(2), Some(two));
}

#[test]
fn what_is_left_out_is_named_and_stays_on_disk_until_it_is_accepted() {
    let log = epochs();
    let before = log.disk.content_fingerprint();
    let target = RecoveryTarget::Epoch(1);
    let refused = options(&log.disk).recovery_target(target).open().unwrap_err();
    assert!(matches!(refused, WalError::NotAccepted { ranges: 3, .. }), "{refused}");
    let pending = log.recover(RecoveryMode::TornTail, target);
    let report = pending.report().to_string();
    assert!(report.contains("left out: core 2: from") && report.contains("Epoch(1)"), "{report}");
    // Nobody writes while somebody looks.
    assert!(matches!(options(&log.disk).open(), Err(WalError::Locked { .. })));
    drop(pending);
    assert_eq!(log.disk.content_fingerprint(), before);
    assert_eq!(options(&log.disk).open().unwrap().1.entries().unwrap(), log.entries);
}

#[test]
fn what_was_accepted_is_dropped_on_all_cores_and_kept_in_quarantine() {
    let log = epochs();
    let originals: Vec<(String, Vec<u8>)> = segments(&log.disk)
        .into_iter()
        .map(|name| (name.clone(), log.disk.read_file(&name).unwrap()))
        .collect();
    let pending = log.recover(RecoveryMode::TornTail, RecoveryTarget::Epoch(1));
    let kept = kept_of(&pending);
    let (wal, recovery) = pending.accept().unwrap();
    assert_eq!(recovery.entries().unwrap(), kept);
    let mut writers = wal.writers().unwrap();
    for writer in writers.iter_mut() {
        assert!(writer.epoch() > 4, "epochs do not come again: {}", writer.epoch());
        writer.append_put(b"behind", b"").unwrap();
    }
    close(wal, writers);

    let (_, recovery) = options(&log.disk).recovery_mode(RecoveryMode::Strict).open().unwrap();
    let entries = recovery.entries().unwrap();
    assert_eq!(entries[..kept.len()], kept);
    assert_eq!(entries.len(), kept.len() + usize::from(CORES));
    assert!(recovery.report().strange_names.is_empty(), "{}", recovery.report());
    let quarantined: Vec<String> = quarantine(&log.disk);
    assert!(!quarantined.is_empty());
    for (name, bytes) in originals {
        let copy = format!("quarantine/{}", name.replace('/', "-"));
        if quarantined.contains(&copy) {
            assert!(log.disk.read_file(&copy).unwrap() == bytes, "{copy}");
        }
    }
}

fn segments(disk: &SimStorage) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("core-") && name.ends_with(".wal"));
    names
}

fn quarantine(disk: &SimStorage) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("quarantine/"));
    names
}

#[test]
fn what_is_in_quarantine_stays_there_while_its_segment_is_cut_again() {
    let log = two_epochs();
    // One entry of each core lies between them.
    let [later, earlier] = [1, 1 + usize::from(CORES)].map(|back| {
        let puts = log.entries.iter().filter(|entry| entry.epoch == 0 && entry.is_put());
        RecoveryTarget::Timestamp(puts.rev().nth(back).unwrap().timestamp_ns)
    });
    drop(log.recover(RecoveryMode::TornTail, later).accept().unwrap());
    let copies = quarantine(&log.disk);
    let pending = log.recover(RecoveryMode::TornTail, earlier);
    log.disk.snapshot_each_change(true);
    drop(pending.accept().unwrap());
    for (number, disk) in log.disk.take_snapshots() {
        let crashed = disk.crash(CrashPlan::keep_everything());
        for copy in &copies {
            assert!(
                crashed.read_file(copy).ok() == log.disk.read_file(copy).ok(),
                "operation {number}: {copy} is gone"
            );
        }
    }
}

#[test]
fn nothing_that_was_released_is_gone_back_to_though_its_checkpoint_was_reset_away() {
    let log = checkpointed();
    let (wal, recovery) = options(&log.disk).open().unwrap();
    drop(recovery);
    let mut writer = wal.writer(0).unwrap();
    writer.reset().unwrap();
    drop(writer);
    wal.close().unwrap();
    for target in [RecoveryTarget::Epoch(0), RecoveryTarget::Timestamp(0)] {
        let refused = try_recover(&log.disk, RecoveryMode::TornTail, target).unwrap_err();
        assert!(matches!(refused, WalError::InvalidArgument { .. }), "{target:?}: {refused}");
        assert!(refused.to_string().contains("core 1 was released"), "{refused}");
    }
    // Core 0 has left no epoch, and the others keep what a checkpoint once stood behind.
    let pending = log.recover(RecoveryMode::TornTail, RecoveryTarget::LastCompleteEpoch);
    let kept = kept_of(&pending);
    drop(pending.accept().unwrap());
    assert_eq!(found(&log.disk).unwrap(), kept);
}

#[test]
fn a_segment_without_entries_behind_lost_ones_is_no_reason_to_salvage_nothing() {
    let disk = SimStorage::new(7);
    let (wal, recovery) = options(&disk).open().unwrap();
    drop(recovery);
    let mut writer = wal.writer(0).unwrap();
    for _ in 0..2 {
        writer.append_put(b"kept", b"").unwrap();
        let end = writer.position();
        writer.append_put(b"cut off", b"").unwrap();
        writer.truncate(end).unwrap();
    }
    disk.run_jobs();
    drop(writer);
    wal.close().unwrap();
    // One that held an entry, and the one prepared behind the last one, which holds none.
    for lost in [2, 4] {
        disk.zero(&format!("core-0000/{lost:020}.wal"), 0..4096).unwrap();
    }
    let pending = try_recover(&disk, RecoveryMode::Salvage, RecoveryTarget::End).unwrap();
    let kept = kept_of(&pending);
    assert_eq!(kept.len(), 1, "{}", pending.report());
    goes_on(&disk, pending, &kept);
}

#[test]
fn an_unreadable_file_that_was_released_is_no_reason_to_cut_away_the_last_segment() {
    for kept_entries in [0, usize::from(CORES)] {
        let disk = released_and_cut(kept_entries);
        disk.zero("core-0000/00000000000000000002.wal", 0..4096).unwrap();
        for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
            let disk = disk.fork();
            let pending = try_recover(&disk, mode, RecoveryTarget::End).unwrap();
            let kept = kept_of(&pending);
            assert_eq!(kept.len(), kept_entries, "{}", pending.report());
            goes_on(&disk, pending, &kept);
        }
    }
}

/// A log that was cut, released up to there, and cut again. Behind that, as many cores log an entry.
fn released_and_cut(kept_entries: usize) -> SimStorage {
    let (disk, wal, mut writers) = new_log(9);
    let ends = |writers: &mut CoreWriters| -> Vec<u64> {
        writers.iter_mut().map(|writer| writer.position()).collect()
    };
    for writer in writers.iter_mut() {
        writer.append_put(b"released", b"").unwrap();
    }
    for id in 0..2 {
        let end = ends(&mut writers);
        for writer in writers.iter_mut() {
            writer.append_put(b"cut off", b"").unwrap();
        }
        writers.truncate(&end).unwrap();
        if id == 0 {
            checkpoint(&wal, &mut writers, id);
        }
    }
    for writer in writers.iter_mut().take(kept_entries) {
        writer.append_put(b"kept", b"").unwrap();
    }
    close(wal, writers);
    disk
}

#[test]
fn an_unreadable_file_behind_the_last_segment_may_have_held_what_came_next() {
    let log = two_epochs();
    let lost = segments(&log.disk).into_iter().rfind(|name| name.starts_with("core-0000")).unwrap();
    log.disk.zero(&lost, 0..4096).unwrap();
    // Nobody knows whether the other cores logged later than that.
    let end = log.entries.iter().rposition(|entry| entry.core_id == 0).unwrap() + 1;
    assert!(end < log.entries.len());
    let pending = log.recover(RecoveryMode::PointInTime, RecoveryTarget::End);
    assert!(kept_of(&pending) == log.entries[..end], "{}", pending.report());
    drop(pending);
    let pending = log.recover(RecoveryMode::Salvage, RecoveryTarget::End);
    assert!(kept_of(&pending) == log.entries, "{}", pending.report());
}

#[test]
fn files_of_two_cores_that_cannot_be_read_are_both_accepted_as_lost() {
    let log = two_epochs();
    for directory in ["core-0000", "core-0001"] {
        let mut names = segments(&log.disk).into_iter();
        let lost = names.rfind(|name| name.starts_with(directory)).unwrap();
        log.disk.zero(&lost, 0..4096).unwrap();
    }
    let pending = log.recover(RecoveryMode::Salvage, RecoveryTarget::End);
    assert_eq!(pending.losses().len(), 2, "{}", pending.report());
    goes_on(&log.disk, pending, &log.entries);
}

#[test]
fn a_file_that_cannot_be_read_is_lost_beside_what_was_damaged_before_it() {
    const DAMAGED: &str = "core-0001/00000000000000000001.wal";
    let log = two_epochs();
    let lost = segments(&log.disk).into_iter().rfind(|name| name.starts_with("core-0001")).unwrap();
    log.disk.flip_bit(DAMAGED, 20_000, 1).unwrap();
    log.disk.zero(&lost, 0..4096).unwrap();

    let pending = log.recover(RecoveryMode::PointInTime, RecoveryTarget::End);
    let first = pending.losses().iter().find(|loss| loss.core == 1).unwrap();
    assert!(first.reason.contains(DAMAGED), "where the log ends: {first}");
    drop(pending);

    let pending = log.recover(RecoveryMode::Salvage, RecoveryTarget::End);
    let losses: Vec<&str> = pending.losses().iter().map(|loss| loss.reason.as_str()).collect();
    assert_eq!(losses.len(), 2, "{losses:?}");
    assert!(losses[0].contains(DAMAGED) && losses[1].contains(&lost), "{losses:?}");
    let kept = kept_of(&pending);
    goes_on(&log.disk, pending, &kept);
}

#[test]
fn a_loss_on_one_core_concerns_its_files_up_to_where_that_core_goes_on() {
    let damages: [&dyn Fn(&SimStorage); 2] =
        [&|disk| disk.delete("core-0001/00000000000000000002.wal").unwrap(), &|disk| {
            disk.flip_bit("core-0001/00000000000000000001.wal", 20_000, 1).unwrap()
        }];
    for damage in damages {
        let log = epochs();
        damage(&log.disk);
        let proposal = proposed(&log.disk, RecoveryMode::Salvage, RecoveryTarget::End);
        assert_eq!(proposal.to_quarantine, [(1, 1)]);
        assert_eq!(adopted(&proposal), [1]);
    }
}

#[test]
fn a_segment_that_ends_where_its_log_is_cut_is_none_of_what_is_dropped() {
    let (disk, wal, mut writers) = new_log(11);
    while wal.disk_usage().unwrap().cores[0].live_segments < 3 {
        writers.append_epoch_barrier().unwrap();
        writers.sync().unwrap();
        disk.run_jobs();
    }
    close(wal, writers);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let core = &recover_to(&storage, RecoveryMode::TornTail, RecoveryTarget::End).unwrap().cores[0];
    let [first, second, third] = &core.spans[..] else { panic!("{:?}", core.spans) };
    let last_epoch = second.base_sequence - 1;
    let target = RecoveryTarget::Epoch(last_epoch);
    let proposal = proposed(&disk, RecoveryMode::TornTail, target);
    let dropped = [second.segment_id, third.segment_id].map(|segment_id| (0, segment_id));
    assert_eq!(first.end_sequence, second.base_sequence);
    assert!(proposal.to_quarantine.starts_with(&dropped), "{:?}", proposal.to_quarantine);
}

#[test]
fn of_every_core_that_is_cut_what_is_kept_is_made_durable_first() {
    let log = epochs();
    let proposal = proposed(&log.disk, RecoveryMode::TornTail, RecoveryTarget::Epoch(1));
    assert_eq!(adopted(&proposal), [0, 1, 2]);
    // Cut for its own damage, or behind that of another core.
    log.disk.delete("core-0001/00000000000000000002.wal").unwrap();
    let proposal = proposed(&log.disk, RecoveryMode::PointInTime, RecoveryTarget::End);
    assert_eq!(adopted(&proposal), [0, 1, 2]);
}

fn proposed(disk: &SimStorage, mode: RecoveryMode, target: RecoveryTarget) -> Proposal {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    recover_to(&storage, mode, target).unwrap().proposal.unwrap()
}

fn adopted(proposal: &Proposal) -> Vec<u16> {
    let mut cores: Vec<u16> = proposal.to_adopt.iter().map(|core| core.core).collect();
    cores.sort_unstable();
    cores
}

#[test]
fn what_is_accepted_is_what_was_shown_though_a_core_skipped_the_epoch() {
    let (disk, wal, mut writers) = new_log(8);
    writers.append_epoch_barrier().unwrap();
    for writer in writers.iter_mut() {
        if writer.core_id() == 0 {
            writer.set_epoch(3).unwrap();
        }
        writer.append_put(b"of the next epoch", b"").unwrap();
        writer.append_epoch_barrier().unwrap();
    }
    close(wal, writers);
    // Core 0 has left epoch 1 too, but what says so goes with epoch 3.
    let log = Log::of(disk);
    let pending = log.recover(RecoveryMode::TornTail, RecoveryTarget::LastCompleteEpoch);
    let kept = kept_of(&pending);
    assert_eq!(kept.last().map(|entry| entry.epoch), Some(1));
    drop(pending.accept().unwrap());
    assert_eq!(found(&log.disk), Ok(kept));
}

fn checkpoint(wal: &Wal, writers: &mut CoreWriters, id: u64) {
    let pending = wal.begin_checkpoint(id).unwrap();
    pending.arrival().arrive_all(writers).unwrap();
    pending.complete(CheckpointDetails::default()).unwrap();
}

#[test]
fn a_core_of_which_nothing_but_its_checkpoint_is_left_goes_on_where_that_stands() {
    for is_reset in [false, true] {
        let disk = SimStorage::new(5);
        let (wal, recovery) = options(&disk).open().unwrap();
        drop(recovery);
        let mut writers = wal.writers().unwrap();
        let mut ends = Vec::new();
        for writer in writers.iter_mut() {
            writer.append_put(b"kept", b"").unwrap();
            ends.push(writer.position());
            writer.append_put(b"cut off", b"").unwrap();
        }
        match is_reset {
            true => writers.reset().unwrap(),
            false => writers.truncate(&ends).unwrap(),
        }
        checkpoint(&wal, &mut writers, 7);
        close(wal, writers);
        // Where the log went on behind the cut, and where the checkpoint stands.
        disk.delete("core-0001/00000000000000000002.wal").unwrap();
        for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
            let disk = disk.fork();
            let pending = try_recover(&disk, mode, RecoveryTarget::End).unwrap();
            assert_eq!(pending.losses().len(), 1, "{}", pending.report());
            let kept = kept_of(&pending);
            goes_on(&disk, pending, &kept);
        }
    }
}

/// Accepted, it is what was shown, and what is appended then stands behind that.
fn goes_on(disk: &SimStorage, pending: PendingRecovery, kept: &[WalEntry]) {
    let (wal, _) = pending.accept().unwrap();
    let mut writers = wal.writers().unwrap();
    for writer in writers.iter_mut() {
        writer.append_put(b"behind", b"").unwrap();
    }
    close(wal, writers);
    let entries = found(disk).unwrap();
    assert_eq!(entries[..kept.len()], *kept);
    assert_eq!(entries.len(), kept.len() + usize::from(CORES));
}

#[test]
fn a_core_that_was_cut_back_to_its_checkpoint_and_logs_no_more_is_in_the_next_checkpoint() {
    let disk = SimStorage::new(6);
    for id in 0..2 {
        let (wal, recovery) = options(&disk).open().unwrap();
        drop(recovery);
        let mut writers = wal.writers().unwrap();
        put_in_epochs(&disk, &mut writers, 1);
        if id == 0 {
            checkpoint(&wal, &mut writers, id);
        }
        close(wal, writers);
    }
    let log = Log::of(disk);
    let epoch = log.entries[0].epoch - 1;
    let pending = options(&log.disk).cores(1).recovery_target(RecoveryTarget::Epoch(epoch));
    let (wal, recovery) = pending.recover().unwrap().accept().unwrap();
    drop(recovery);
    let mut writers = wal.writers().unwrap();
    checkpoint(&wal, &mut writers, 2);
    let places = wal.last_checkpoint().unwrap().cores;
    assert_eq!(places.iter().map(|place| place.core).collect::<Vec<_>>(), [0, 1, 2]);
}

/// A log that somebody did something to.
struct Damaged {
    what: String,
    core: u16,
    /// Behind the header blocks of a segment.
    is_in_records: bool,
    disk: SimStorage,
}

fn damages(log: &Log) -> Vec<Damaged> {
    let mut damages = Vec::new();
    for name in segments(&log.disk) {
        let bytes = log.disk.read_file(&name).unwrap();
        let core = name[5..9].parse().unwrap();
        let mut add = |what: &str, is_in_records: bool, damage: &dyn Fn(&SimStorage)| {
            let disk = log.disk.fork();
            damage(&disk);
            let what = format!("{name}: {what}");
            damages.push(Damaged { what, core, is_in_records, disk });
        };
        add("gone", false, &|disk| disk.delete(&name).unwrap());
        add("cut short", false, &|disk| disk.truncate_file(&name, 26_000).unwrap());
        for block in 0..bytes.len() as u64 / 4096 {
            add(&format!("block {block} zeroed"), block > 2, &|disk| {
                disk.zero(&name, block * 4096..(block + 1) * 4096).unwrap();
            });
            add(&format!("a bit of block {block}"), block > 2, &|disk| {
                disk.flip_bit(&name, block * 4096 + 40, 3).unwrap();
            });
        }
    }
    damages
}

/// What is wrong, be it below the checkpoint. The default mode says the same, or needs nothing of
/// what is damaged.
fn damage_anywhere(log: &Log, disk: &SimStorage, what: &str) -> Option<WalError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let found = verify(&storage);
    let damage = found.map_or_else(Some, |found| found.findings.into_iter().next());
    match (options(disk).recover(), &damage) {
        (Ok(pending), _) => assert_eq!(kept_of(&pending), log.entries, "{what}"),
        (Err(error), Some(damage)) => assert_eq!(error.to_string(), damage.to_string(), "{what}"),
        (Err(error), None) => panic!("{what}: {error}"),
    }
    damage
}

#[test]
fn in_spite_of_any_damage_there_is_a_point_in_time_to_go_back_to() {
    let (mut left_out, mut unharmed) = (0, 0);
    for log in [epochs(), checkpointed()] {
        for Damaged { what, is_in_records, disk, .. } in damages(&log) {
            let before = disk.content_fingerprint();
            let damage = damage_anywhere(&log, &disk, &what);
            let pending = try_recover(&disk, RecoveryMode::PointInTime, RecoveryTarget::End);
            assert_eq!(disk.content_fingerprint(), before, "{what}: something was changed");
            let pending = match (pending, damage) {
                (Ok(pending), None) => {
                    assert!(pending.losses().is_empty(), "{what}: {}", pending.report());
                    unharmed += 1;
                    continue;
                }
                (Ok(pending), Some(damage)) => {
                    if is_in_records {
                        ends_where_the_damage_is(&pending, &damage);
                    }
                    pending
                }
                (Err(error), Some(damage)) => panic!("{what}: {error}, and before: {damage}"),
                (Err(error), None) => panic!("{what}: {error}"),
            };
            left_out += 1;
            assert!(!pending.losses().is_empty(), "{what}");
            let kept = kept_of(&pending);
            assert!(is_one_point_in_time(&kept, &log.entries), "{what}: {}", pending.report());
            accept_and_go_on(&what, &log, &disk, pending, &kept);
        }
    }
    println!("{left_out} left something out, {unharmed} unharmed");
    assert!(left_out > 200 && unharmed > 20);
}

/// What the least of it can hold: nothing that a core logged was smaller but barriers.
const ENTRIES_IN_A_BLOCK: usize = 2 + 4096 / 300;

#[test]
fn all_that_can_be_read_is_salvaged_whatever_is_damaged() {
    let (mut left_out, mut lost) = (0, 0);
    for log in [epochs(), checkpointed()] {
        for Damaged { what, core, is_in_records, disk } in damages(&log) {
            let before = disk.content_fingerprint();
            let is_damaged = damage_anywhere(&log, &disk, &what).is_some();
            let pending = try_recover(&disk, RecoveryMode::Salvage, RecoveryTarget::End);
            assert_eq!(disk.content_fingerprint(), before, "{what}: something was changed");
            let pending = pending.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(!pending.losses().is_empty(), is_damaged, "{what}");
            let kept = kept_of(&pending);
            let of_others = |entries: &[WalEntry]| {
                let others = entries.iter().filter(|entry| entry.core_id != core);
                others.cloned().collect::<Vec<_>>()
            };
            assert_eq!(of_others(&kept), of_others(&log.entries), "{what}: of another core");
            let gone = are_gone(&kept, &log.entries);
            if is_in_records {
                assert!(gone <= ENTRIES_IN_A_BLOCK, "{what}: {gone} lost: {}", pending.report());
            }
            if !is_damaged {
                assert_eq!(gone, 0, "{what}");
                continue;
            }
            lost += gone;
            left_out += 1;
            accept_and_go_on(&what, &log, &disk, pending, &kept);
        }
    }
    println!("{left_out} left something out, {lost} entries");
    assert!(left_out > 200);
}

#[test]
fn several_damages_at_once_leave_a_point_in_time_or_what_can_be_read() {
    let mut random = 1_u64;
    let mut pick = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % below
    };
    for log in [epochs(), checkpointed()] {
        let names = segments(&log.disk);
        for round in 0..150 {
            let disk = log.disk.fork();
            let mut done = format!("round {round}");
            for _ in 0..2 + pick(3) {
                let name = &names[pick(names.len())];
                let offset = pick(40 * 1024) as u64;
                let damage = pick(6);
                done.push_str(&format!(", {damage} at {offset} of {name}"));
                let _ = match damage {
                    0 => disk.delete(name),
                    1 => disk.truncate_file(name, offset),
                    2 => disk.zero(name, offset..offset + 700),
                    _ => disk.flip_bit(name, offset, 1),
                };
            }
            for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
                let disk = disk.fork();
                let pending = try_recover(&disk, mode, RecoveryTarget::End);
                let mut pending =
                    pending.unwrap_or_else(|error| panic!("{done}: {mode:?}: {error}"));
                let kept = kept_of(&pending);
                match mode {
                    RecoveryMode::PointInTime => assert!(is_one_point_in_time(&kept, &log.entries)),
                    _ => drop(are_gone(&kept, &log.entries)),
                }
                let what = format!("{done}: {mode:?}");
                let some = &log.entries[pick(log.entries.len())];
                for target in [
                    RecoveryTarget::Epoch(some.epoch),
                    RecoveryTarget::Timestamp(some.timestamp_ns),
                ] {
                    drop(pending);
                    pending = try_recover(&disk, mode, target).unwrap();
                    let expected = kept.iter().filter(|entry| is_within(target, entry));
                    assert!(kept_of(&pending).iter().eq(expected), "{what}, {target:?}");
                }
                drop(pending);
                let pending = try_recover(&disk, mode, RecoveryTarget::End).unwrap();
                accept_and_go_on(&what, &log, &disk, pending, &kept);
            }
        }
    }
}

/// How many of `all` are not among those kept, which are in the same order.
fn are_gone(kept: &[WalEntry], all: &[WalEntry]) -> usize {
    let mut left = all.iter();
    for entry in kept {
        assert!(left.any(|known| known == entry), "never logged, or in another order: {entry:?}");
    }
    all.len() - kept.len()
}

/// Nothing in front of the damage is left out of the core that has it.
fn ends_where_the_damage_is(pending: &PendingRecovery, damage: &WalError) {
    let WalError::Corrupt(damage) = damage else { panic!("{damage}") };
    let loss = pending.losses().iter().find(|loss| Some(loss.core) == damage.core).unwrap();
    assert_eq!(Some(loss.position), damage.position, "{loss}");
    assert!(loss.end_position > loss.position);
    assert_eq!(loss.reason, WalError::from((**damage).clone()).to_string());
}

fn accept_and_go_on(
    what: &str,
    log: &Log,
    disk: &SimStorage,
    pending: PendingRecovery,
    kept: &[WalEntry],
) {
    let was_used = |name: &String| {
        let bytes = log.disk.read_file(name).unwrap();
        bytes.iter().skip(4096).any(|&byte| byte != 0)
    };
    let files: BTreeSet<String> = segments(disk).into_iter().filter(was_used).collect();
    let (wal, recovery) = pending.accept().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(recovery.entries().unwrap(), kept, "{what}");
    disk.run_jobs();
    let gone = files.iter().filter(|name| !disk.names().contains(*name));
    for gone in gone {
        let copy = format!("quarantine/{}", gone.replace('/', "-"));
        assert!(disk.names().contains(&copy), "{what}: {gone} is nowhere");
    }
    let mut writers = wal.writers().unwrap();
    for writer in writers.iter_mut() {
        writer.append_put(b"behind", b"").unwrap();
    }
    close(wal, writers);
    let (_, recovery) = options(disk)
        .recovery_mode(RecoveryMode::Strict)
        .open()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let entries = recovery.entries().unwrap();
    assert_eq!(entries.len(), kept.len() + usize::from(CORES), "{what}");
    assert_eq!(entries[..kept.len()], *kept, "{what}");
}

#[test]
fn power_that_fails_while_a_loss_is_accepted_leaves_all_of_it_or_nothing() {
    let healthy = two_epochs();
    crash_while_accepting(&healthy.disk, RecoveryMode::TornTail, RecoveryTarget::Epoch(0));
    crash_while_accepting(&checkpointed().disk, RecoveryMode::TornTail, RecoveryTarget::Epoch(3));
    const NAME: &str = "core-0001/00000000000000000002.wal";
    let damaged = |damage: &dyn Fn(&SimStorage) -> Result<(), WalError>| {
        let disk = healthy.disk.fork();
        damage(&disk).unwrap();
        crash_while_accepting(&disk, RecoveryMode::PointInTime, RecoveryTarget::End);
        crash_while_accepting(&disk, RecoveryMode::Salvage, RecoveryTarget::End);
    };
    damaged(&|disk| disk.flip_bit(NAME, 13_000, 0));
    damaged(&|disk| disk.delete(NAME));
    damaged(&|disk| disk.zero(NAME, 0..4096));
}

/// What an opening finds that drops nothing.
fn found(disk: &SimStorage) -> Result<Vec<WalEntry>, String> {
    let opened = options(disk).open().map_err(|error| error.to_string());
    opened.map(|(_, recovery)| recovery.entries().unwrap())
}

fn crash_while_accepting(disk: &SimStorage, mode: RecoveryMode, target: RecoveryTarget) {
    let before = found(&disk.fork());
    let disk = disk.fork();
    let pending = try_recover(&disk, mode, target).unwrap();
    let after = kept_of(&pending);
    disk.snapshot_each_change(true);
    drop(pending.accept().unwrap());
    let (mut not_yet, mut accepted) = (0, 0);
    for (number, disk) in disk.take_snapshots() {
        let plans = [
            CrashPlan::lose_everything_unsynced(),
            CrashPlan::keep_everything(),
            CrashPlan::random(number),
        ];
        for plan in plans {
            let crashed = disk.crash(plan);
            match found(&crashed) {
                found if found == before => not_yet += 1,
                Ok(found) if found == after => accepted += 1,
                other => panic!("operation {number}: {other:?}"),
            }
            // Accepted again, if need be, it is what it was to be.
            let pending = try_recover(&crashed, mode, target).unwrap();
            assert_eq!(kept_of(&pending), after, "operation {number}");
            drop(pending.accept().unwrap());
            assert_eq!(found(&crashed), Ok(after.clone()));
        }
    }
    assert!(not_yet > 20 && accepted > 10, "{not_yet} as before, {accepted} accepted");
}

/// A log of one core, of which a process left more in the page cache than the disk has, and took it
/// for written.
fn failed_sync() -> SimStorage {
    let disk = SimStorage::new(3);
    let (wal, _) = one_core(&disk).open().unwrap();
    disk.run_jobs();
    let mut writer = wal.writer(0).unwrap();
    writer.append_put(b"synced", b"").unwrap();
    writer.sync().unwrap();
    disk.run_jobs();
    for key in 0..6 {
        writer.append_put(&[key], &[key; 3000]).unwrap();
    }
    disk.inject(Fault::on(OperationKind::Sync).done(Part::Nothing));
    writer.sync().unwrap_err();
    let killed = disk.kill();
    disk.halt();
    killed
}

fn one_core(disk: &SimStorage) -> WalOptions {
    options(disk).cores(1).segment_bytes(256 * 1024)
}

#[test]
fn what_is_kept_is_durable_once_it_was_accepted_though_no_sync_had_said_so() {
    let entries = |disk: &SimStorage| one_core(disk).open().unwrap().1.entries().unwrap();
    let written = entries(&failed_sync());
    let [before @ .., last] = written.as_slice() else { panic!("nothing was written") };
    let cut = RecoveryTarget::Timestamp(last.timestamp_ns - 1);
    let none: fn(&SimStorage) = |_| ();
    // It may have held what came next.
    let next_lost: fn(&SimStorage) =
        |disk| disk.zero("core-0000/00000000000000000002.wal", 0..4096).unwrap();
    for (damage, mode, target, expected) in [
        (none, RecoveryMode::TornTail, cut, before),
        (next_lost, RecoveryMode::PointInTime, RecoveryTarget::End, &written[..]),
    ] {
        let disk = failed_sync();
        damage(&disk);
        let options = one_core(&disk).recovery_mode(mode).recovery_target(target);
        let pending = options.recover().unwrap();
        assert!(expected.len() > 3 && !pending.losses().is_empty());
        assert!(kept_of(&pending) == expected, "{}", pending.report());
        let (wal, _) = pending.accept().unwrap();
        let crashed = disk.crash(CrashPlan::lose_everything_unsynced());
        disk.halt();
        drop(wal);
        assert_eq!(entries(&crashed), expected);
    }
}

#[test]
fn without_room_for_the_copies_nothing_is_accepted_and_nothing_is_lost() {
    let log = epochs();
    let target = RecoveryTarget::Epoch(1);
    let pending = log.recover(RecoveryMode::TornTail, target);
    log.disk.set_free_bytes(Some(30_000));
    let refused = pending.accept().unwrap_err();
    assert!(refused.is_storage_full(), "{refused}");
    log.disk.set_free_bytes(None);
    assert_eq!(found(&log.disk.fork()).unwrap(), log.entries);
    let pending = log.recover(RecoveryMode::TornTail, target);
    let kept = kept_of(&pending);
    drop(pending.accept().unwrap());
    assert_eq!(found(&log.disk).unwrap(), kept);
}

#[test]
fn a_copy_that_fails_at_any_step_is_told_and_nothing_is_dropped() {
    let log = two_epochs();
    let steps = [
        OperationKind::CreateDirectory,
        OperationKind::Remove,
        OperationKind::CreateReserved,
        OperationKind::Write,
        OperationKind::Sync,
        OperationKind::Rename,
        OperationKind::SyncDirectory,
    ];
    for step in steps {
        let disk = log.disk.fork();
        let target = RecoveryTarget::Epoch(0);
        let pending = try_recover(&disk, RecoveryMode::TornTail, target).unwrap();
        let kept = kept_of(&pending);
        disk.inject(Fault::on(step).named("quarantine"));
        let told = pending.accept().unwrap_err();
        assert!(told.to_string().contains("quarantine"), "{step:?}: {told}");
        assert_eq!(found(&disk.fork()).unwrap(), log.entries, "{step:?}");
        let pending = try_recover(&disk, RecoveryMode::TornTail, target).unwrap();
        drop(pending.accept().unwrap());
        assert_eq!(found(&disk).unwrap(), kept, "{step:?}");
    }
}

#[test]
fn a_large_segment_is_in_quarantine_byte_for_byte() {
    let disk = SimStorage::new(10);
    let options = || {
        one_core(&disk)
            .segment_bytes(2 << 20)
            .batch_bytes(1 << 20)
            .in_flight_bytes(1 << 20)
            .max_record_bytes(1 << 20)
    };
    let (wal, recovery) = options().open().unwrap();
    drop(recovery);
    let mut writer = wal.writer(0).unwrap();
    // Larger than what is copied at once, and without a zero that would make it look unwritten.
    writer.append_put(b"key", &[0xff; 700 << 10]).unwrap();
    writer.append_epoch_barrier().unwrap();
    writer.append_put(b"dropped", b"").unwrap();
    drop(writer);
    wal.close().unwrap();
    const NAME: &str = "core-0000/00000000000000000001.wal";
    let original = disk.read_file(NAME).unwrap();
    let pending = options().recovery_target(RecoveryTarget::Epoch(0)).recover().unwrap();
    drop(pending.accept().unwrap());
    let copy = disk.read_file("quarantine/core-0000-00000000000000000001.wal").unwrap();
    assert!(copy == original);
}

/// A log of which something in the midst of core 1 was lost, and that was accepted; where.
fn salvaged(damage: impl Fn(&SimStorage)) -> (SimStorage, Wal, u64, u64) {
    let log = epochs();
    damage(&log.disk);
    let pending = log.recover(RecoveryMode::Salvage, RecoveryTarget::End);
    let [loss] = pending.losses() else { panic!("{}", pending.report()) };
    let (position, end_position) = (loss.position, loss.end_position);
    let (wal, _) = pending.accept().unwrap();
    (log.disk, wal, position, end_position)
}

#[test]
fn a_log_with_a_hole_can_be_cut_on_both_sides_of_it_and_not_within() {
    let damages: [&dyn Fn(&SimStorage); 2] =
        [&|disk| disk.delete("core-0001/00000000000000000002.wal").unwrap(), &|disk| {
            disk.flip_bit("core-0001/00000000000000000002.wal", 20_000, 1).unwrap()
        }];
    for damage in damages {
        let (_, wal, position, end_position) = salvaged(damage);
        let inside = wal.writer(1).unwrap().truncate(position + 8).unwrap_err();
        let WalError::NotARecordBoundary { boundary_below, boundary_above, .. } = inside else {
            panic!("{inside}");
        };
        assert_eq!((boundary_below, boundary_above), (position, end_position));
        drop(wal);
        for cut_position in [position, end_position] {
            let (disk, wal, ..) = salvaged(damage);
            let mut writer = wal.writer(1).unwrap();
            writer.truncate(cut_position).unwrap();
            assert_eq!(writer.position(), cut_position);
            writer.append_put(b"behind", b"").unwrap();
            writer.close().unwrap();
            wal.close().unwrap();
            let (wal, recovery) =
                options(&disk).recovery_mode(RecoveryMode::Strict).open().unwrap();
            let entries = recovery.entries().unwrap();
            let last = entries.iter().rfind(|entry| entry.core_id == 1).unwrap();
            assert_eq!(last.key(), Some(&b"behind"[..]));
            assert_eq!(wal.writer(1).unwrap().sequence(), last.sequence + 1);
        }
    }
}

#[test]
fn what_lies_below_a_checkpoint_is_given_back_hole_or_not() {
    let flip =
        |disk: &SimStorage| disk.flip_bit("core-0001/00000000000000000002.wal", 20_000, 1).unwrap();
    let (disk, wal, ..) = salvaged(flip);
    let mut writers = wal.writers().unwrap();
    put_in_epochs(&disk, &mut writers, 1);
    checkpoint(&wal, &mut writers, 9);
    drop(wal.pin("nothing, but it lets go of what was recovered"));
    disk.run_jobs();
    for writer in writers.iter_mut() {
        writer.append_put(b"behind", b"").unwrap();
    }
    close(wal, writers);
    let (wal, recovery) = options(&disk).recovery_mode(RecoveryMode::Strict).open().unwrap();
    assert_eq!(recovery.entries().unwrap().len(), usize::from(CORES));
    for core in wal.disk_usage().unwrap().cores {
        assert!(core.live_segments <= 2, "{core:?}");
    }
}

#[test]
fn without_a_manifest_nothing_is_left_out_and_no_log_is_made_over_another() {
    let log = epochs();
    for name in segments(&log.disk) {
        log.disk.zero(&name, 0..4096).unwrap();
    }
    for slot in ["MANIFEST.0", "MANIFEST.1"] {
        log.disk.delete(slot).unwrap();
    }
    for mode in [RecoveryMode::TornTail, RecoveryMode::PointInTime, RecoveryMode::Salvage] {
        let refused = try_recover(&log.disk, mode, RecoveryTarget::End).unwrap_err();
        assert!(refused.is_corrupt(), "{mode:?}: {refused}");
    }
}

#[test]
fn a_lost_manifest_is_not_passed_over_with_a_file_that_cannot_be_read() {
    let log = epochs();
    let old = log.disk.read_file("MANIFEST.0").unwrap();
    let (wal, _) = options(&log.disk).open().unwrap();
    let mut writer = wal.writer(1).unwrap();
    writer.append_put(b"cut away", b"").unwrap();
    writer.truncate(writer.synced_position()).unwrap();
    writer.append_put(b"behind the cut", b"").unwrap();
    writer.close().unwrap();
    wal.close().unwrap();
    for slot in ["MANIFEST.0", "MANIFEST.1"] {
        log.disk.write_file(slot, &old).unwrap();
    }
    log.disk.zero("core-0001/00000000000000000001.wal", 0..4096).unwrap();
    for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
        let refused = try_recover(&log.disk, mode, RecoveryTarget::End).unwrap_err();
        assert!(matches!(refused, WalError::ManifestLost { .. }), "{mode:?}: {refused}");
    }
}

#[test]
fn damage_below_the_checkpoint_costs_nothing() {
    let log = checkpointed();
    damage_below_the_checkpoint(&log.disk);
    for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
        let disk = log.disk.fork();
        let pending = try_recover(&disk, mode, RecoveryTarget::End).unwrap();
        assert_eq!(kept_of(&pending), log.entries, "{mode:?}");
        accept_and_go_on(&format!("{mode:?}"), &log, &disk, pending, &log.entries);
    }
}

#[test]
fn damage_below_the_checkpoint_is_found_by_who_reads_there_and_hinders_nobody_else() {
    let log = checkpointed();
    damage_below_the_checkpoint(&log.disk);
    let damage = damage_anywhere(&log, &log.disk, "below the checkpoint").unwrap();
    let strict = try_recover(&log.disk, RecoveryMode::Strict, RecoveryTarget::End);
    assert_eq!(strict.unwrap_err().to_string(), damage.to_string());
    {
        let (wal, recovery) = options(&log.disk).open().unwrap();
        assert!(recovery.clone().from_start().entries().unwrap_err().is_corrupt());
        assert_eq!(recovery.entries().unwrap(), log.entries);
        let mut writers = wal.writers().unwrap();
        for writer in writers.iter_mut() {
            writer.append_put(b"behind", b"").unwrap();
        }
        close(wal, writers);
    }
    assert_eq!(Log::of(log.disk).entries.len(), log.entries.len() + usize::from(CORES));
}

#[test]
fn damage_below_the_checkpoint_of_a_core_that_logs_no_more_is_found_later_and_costs_nothing() {
    let (disk, wal, mut writers) = new_log(1);
    let put_on_each = |writers: &mut CoreWriters| {
        for writer in writers.iter_mut() {
            writer.append_put(b"key", b"value").unwrap();
        }
    };
    put_on_each(&mut writers);
    checkpoint(&wal, &mut writers, 1);
    put_on_each(&mut writers);
    close(wal, writers);
    disk.flip_bit("core-0002/00000000000000000001.wal", 12_288 + 40, 1).unwrap();
    let (wal, recovery) = options(&disk).cores(1).open().unwrap();
    drop(recovery);
    // From now on its checkpoint stands at its end, where it has no barrier.
    checkpoint(&wal, &mut wal.writers().unwrap(), 2);
    let mut writers = wal.writers().unwrap();
    put_on_each(&mut writers);
    close(wal, writers);
    let error = options(&disk).cores(1).open().map(|_| ()).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
    for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
        let pending = try_recover(&disk, mode, RecoveryTarget::End).unwrap();
        assert_eq!(pending.losses().iter().map(|loss| loss.core).collect::<Vec<_>>(), [2]);
        assert_eq!(kept_of(&pending).len(), 1, "{mode:?}: what is behind the checkpoint");
    }
}

fn damage_below_the_checkpoint(disk: &SimStorage) {
    let name = segments(disk).remove(0);
    disk.flip_bit(&name, 12_288 + 40, 1).unwrap();
}
