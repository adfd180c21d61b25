//! Goal: a checkpoint counts for all cores or for none whenever the power fails, gives back what lies
//! behind it and nothing else, and says who is missing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use wal_entry::Offsets;
use wal_format::Checkpoint;
use wal_recovery::{Recovery, RecoveryMode, recover, verify};
use wal_sim::{CrashPlan, Fault, OperationKind, SimStorage};
use wal_storage::{Storage, WalError};
use wal_writer::{CheckpointDetails, CoreSelection, CoreWalWriter, CoreWriters, LogOptions, Wal};

const SEGMENT_BYTES: u64 = 32 * 1024;

/// Nobody waits so long but for a fault.
const LONG: Duration = Duration::from_secs(20);

/// In which a thread most likely gets to where it waits.
const A_MOMENT: Duration = Duration::from_millis(50);

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        max_record_bytes: 8192,
        batch_bytes: 4096,
        in_flight_bytes: 8192,
        ..LogOptions::default()
    }
}

fn open(disk: &SimStorage, cores: u16) -> (Wal, Recovery) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    Wal::open(storage, options(), CoreSelection::First(cores)).unwrap()
}

/// A new log, without the replay of nothing, which would pin it.
fn new_log(cores: u16) -> (SimStorage, Wal) {
    let disk = SimStorage::new(1);
    let (wal, _) = open(&disk, cores);
    (disk, wal)
}

fn fill(writer: &mut CoreWalWriter, entries: u32) {
    for n in 0..entries {
        writer.append_put(&n.to_le_bytes(), &[7; 500]).unwrap();
    }
    writer.sync().unwrap();
}

fn fill_all(writers: &mut CoreWriters, entries: u32) {
    writers.iter_mut().for_each(|writer| fill(writer, entries));
}

/// All cores arrive, and the checkpoint is completed with what the commits say.
fn checkpoint(wal: &Wal, writers: &mut CoreWriters, id: u64) {
    let pending = wal.begin_checkpoint(id).unwrap();
    pending.arrival().arrive_all(writers).unwrap();
    pending.wait_timeout(LONG).unwrap();
    pending.complete(CheckpointDetails::default()).unwrap();
}

fn segment_files(disk: &SimStorage) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".wal")).count()
}

fn checkpoint_on(disk: &SimStorage) -> Option<Checkpoint> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let log = recover(&storage, RecoveryMode::TornTail).unwrap();
    log.manifest.and_then(|manifest| manifest.checkpoint)
}

fn replayed(recovery: &Recovery) -> usize {
    recovery.entries().unwrap().iter().filter(|entry| entry.is_put()).count()
}

fn sources(checkpoint: &Checkpoint) -> Vec<(&str, u64)> {
    checkpoint.source_offsets.iter().map(|known| (known.source.as_str(), known.offset)).collect()
}

#[test]
fn what_lies_behind_a_checkpoint_is_given_back_and_what_comes_after_it_is_replayed() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 300);
    disk.run_jobs();
    let before = segment_files(&disk);
    checkpoint(&wal, &mut writers, 7);
    disk.run_jobs();
    assert!(segment_files(&disk) + 8 < before, "{} of {before}", segment_files(&disk));
    fill_all(&mut writers, 5);
    drop(writers);
    wal.close().unwrap();

    let (wal, recovery) = open(&disk, 2);
    assert_eq!(replayed(&recovery), 10);
    assert!(replayed(&recovery.clone().from_start()) >= 10);
    let known = wal.last_checkpoint().unwrap();
    assert_eq!((known.id, known.epoch, known.cores.len()), (7, 0, 2));
    assert_eq!(recovery.report().checkpoint.map(|report| report.id), Some(7));
    assert_eq!(wal.epoch(), 2);
}

#[test]
fn power_loss_at_any_moment_leaves_the_old_checkpoint_or_the_new_one_and_all_that_follows_it() {
    const BEHIND: usize = 6;
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 150);
    checkpoint(&wal, &mut writers, 1);
    fill_all(&mut writers, 150);
    disk.run_jobs();
    disk.snapshot_each_change(true);
    checkpoint(&wal, &mut writers, 2);
    disk.run_jobs();
    fill_all(&mut writers, 3);
    disk.run_jobs();
    disk.snapshot_each_change(false);
    let mut seen = BTreeSet::new();
    for (number, moment) in disk.take_snapshots() {
        for plan in [
            CrashPlan::lose_everything_unsynced(),
            CrashPlan::keep_everything(),
            CrashPlan::random(number),
            CrashPlan::random(number + 1_000_000),
        ] {
            let crashed = moment.crash(plan);
            let (wal, recovery) = open(&crashed, 2);
            let id = wal.last_checkpoint().unwrap().id;
            let entries = replayed(&recovery);
            match id {
                1 => assert!((300..=300 + BEHIND).contains(&entries), "{number}: {entries}"),
                2 => assert!(entries <= BEHIND, "{number}: {entries}"),
                other => panic!("checkpoint {other}"),
            }
            seen.insert(id);
            // The log goes on, and the next checkpoint gives back what this one could not.
            drop(recovery);
            let mut writers = wal.writers().unwrap();
            fill_all(&mut writers, 2);
            checkpoint(&wal, &mut writers, 3);
            crashed.run_jobs();
            drop(writers);
            wal.close().unwrap();
            assert!(verify(&(Arc::new(crashed.clone()) as Arc<dyn Storage>)).unwrap().is_sound());
        }
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_hundred_checkpoints_take_no_more_space_than_a_few() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    let mut highest_bytes = 0;
    for id in 0..100 {
        fill_all(&mut writers, 60);
        checkpoint(&wal, &mut writers, id);
        disk.run_jobs();
        if id >= 10 {
            highest_bytes = highest_bytes.max(wal.disk_usage().unwrap().total_bytes());
        }
    }
    // Per core: the one in use and the one before, one prepared, two kept to be recycled.
    let bound = 2 * 5 * SEGMENT_BYTES + wal.disk_usage().unwrap().manifest_bytes;
    assert!(highest_bytes <= bound, "{highest_bytes} of {bound}");
}

#[test]
fn as_many_files_are_kept_to_be_recycled_as_the_option_says() {
    for kept in [0, 1, 4] {
        let disk = SimStorage::new(1);
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let options = LogOptions { recycled_segments: kept, ..options() };
        let (wal, _) = Wal::open(storage, options, CoreSelection::First(1)).unwrap();
        let mut writers = wal.writers().unwrap();
        fill_all(&mut writers, 500);
        checkpoint(&wal, &mut writers, 1);
        disk.run_jobs();
        let usage = wal.disk_usage().unwrap().cores[0];
        assert_eq!(usage.live_segments, 1);
        // And the one that is prepared.
        assert_eq!(usage.other_files, kept as u64 + 1, "{kept}");
    }
}

#[test]
fn a_core_that_does_not_arrive_is_named_and_the_checkpoint_stays_open() {
    let (disk, wal) = new_log(3);
    let mut writers = wal.writers().unwrap().into_writers();
    let pending = wal.begin_checkpoint(7).unwrap();
    pending.arrival().arrive(&mut writers[1]).unwrap();
    assert_eq!(pending.missing(), [0, 1, 2], "it is submitted, and not durable yet");
    disk.run_jobs();
    let error = pending.wait_timeout(Duration::ZERO).unwrap_err();
    assert!(
        matches!(&error, WalError::CheckpointIncomplete { id: 7, cores, .. } if *cores == [0, 2]),
        "{error}"
    );
    assert!(error.to_string().contains("cores 0, 2"), "{error}");
    for writer in [0, 2] {
        pending.arrival().arrive(&mut writers[writer]).unwrap();
    }
    pending.complete(CheckpointDetails::default()).unwrap();
}

#[test]
fn a_core_whose_writer_nobody_has_is_arrived_for_also_if_it_is_given_back_later() {
    let (_disk, wal) = new_log(4);
    let mut taken = wal.writer(0).unwrap();
    let given_back = wal.writer(1).unwrap();
    let shared = wal.shared_writer(2).unwrap();
    let pending = wal.begin_checkpoint(1).unwrap();
    assert_eq!(wal.writer(3).unwrap().epoch(), 1, "nobody had it");
    assert_eq!(shared.epoch(), 0, "somebody has it");
    pending.arrival().arrive(&mut taken).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pending.wait_timeout(LONG));
        // So that they are, most likely, given back while it waits.
        std::thread::sleep(A_MOMENT);
        drop(given_back);
        drop(shared);
        waiting.join().unwrap().unwrap();
    });
    assert!(pending.missing().is_empty());
}

#[test]
fn threads_that_share_a_core_arrive_together_and_once() {
    let (_disk, wal) = new_log(1);
    let shared = wal.shared_writer(0).unwrap();
    drop(shared.append_put(b"before", b"1").unwrap());
    let pending = wal.begin_checkpoint(1).unwrap();
    let first = pending.arrival().arrive_shared(&shared).unwrap();
    drop(shared.append_put(b"behind", b"1").unwrap());
    assert_eq!(pending.arrival().arrive_shared(&shared.clone()).unwrap(), first);
    pending.complete(CheckpointDetails::default()).unwrap();
    assert_eq!(wal.last_checkpoint().unwrap().cores[0].position, first);
    assert_eq!(shared.epoch(), 1);
}

#[test]
fn writers_in_one_hand_arrive_with_one_call_each_behind_what_it_appended() {
    let (disk, wal) = new_log(3);
    let mut writers = wal.writers().unwrap();
    writers.writer(0).unwrap().set_epoch(4).unwrap();
    for writer in writers.iter_mut() {
        writer.append_put(b"before", b"1").unwrap();
    }
    let pending = wal.begin_checkpoint(1).unwrap();
    assert_eq!((pending.epoch(), pending.arrival().epoch()), (4, 4));
    pending.arrival().arrive_all(&mut writers).unwrap();
    for writer in writers.iter_mut() {
        assert_eq!((writer.epoch(), writer.sequence()), (5, 2), "core {}", writer.core_id());
    }
    let behind_the_barriers = writers.positions();
    fill_all(&mut writers, 1);
    pending.complete(CheckpointDetails::default()).unwrap();
    let counts = checkpoint_on(&disk).unwrap();
    let places: Vec<u64> = counts.cores.iter().map(|place| place.position).collect();
    assert_eq!((counts.epoch, places), (4, behind_the_barriers));
}

#[test]
fn writers_in_one_hand_that_arrive_twice_log_one_barrier_each() {
    let (_disk, wal) = new_log(3);
    let mut writers = wal.writers().unwrap();
    let pending = wal.begin_checkpoint(1).unwrap();
    let arrival = pending.arrival();
    arrival.arrive(writers.writer(1).unwrap()).unwrap();
    for _ in 0..2 {
        arrival.arrive_all(&mut writers).unwrap();
        assert!(writers.iter_mut().all(|writer| writer.sequence() == 1));
    }
    pending.complete(CheckpointDetails::default()).unwrap();

    let pending = wal.begin_checkpoint(2).unwrap();
    let arrival = pending.arrival();
    drop(pending);
    let refused = arrival.arrive_all(&mut writers).unwrap_err();
    assert!(matches!(refused, WalError::CheckpointRefused { id: 2, .. }), "{refused}");
    assert!(writers.iter_mut().all(|writer| writer.sequence() == 1), "nothing was logged");
}

#[test]
fn where_one_core_is_poisoned_the_others_arrive_and_the_checkpoint_before_counts() {
    let (disk, wal) = new_log(3);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 3);
    checkpoint(&wal, &mut writers, 1);
    fill_all(&mut writers, 3);
    disk.run_jobs();
    let pending = wal.begin_checkpoint(2).unwrap();
    let poisoned = writers.writer(1).unwrap();
    poisoned.append_put(b"key", b"not acked").unwrap();
    disk.inject(Fault::on(OperationKind::Write));
    poisoned.sync().unwrap_err();

    let told = pending.arrival().arrive_all(&mut writers).unwrap_err();
    assert!(matches!(told, WalError::Poisoned { core: 1, .. }), "{told}");
    disk.run_jobs();
    assert_eq!(pending.missing(), [1]);
    assert_eq!(writers.writer(2).unwrap().epoch(), 2, "behind its barrier");
    let told = pending.complete(CheckpointDetails::default()).unwrap_err();
    assert!(matches!(told, WalError::Poisoned { core: 1, .. }), "{told}");

    // The way on is to open the log again: nothing that was acked is gone, and what was not may be
    // there.
    drop(writers);
    wal.close().unwrap_err();
    let (wal, recovery) = open(&disk, 3);
    assert_eq!(wal.last_checkpoint().unwrap().id, 1);
    assert!((9..=10).contains(&replayed(&recovery)), "{}", replayed(&recovery));
    checkpoint(&wal, &mut wal.writers().unwrap(), 3);
}

#[test]
fn there_is_one_checkpoint_at_a_time_and_a_dropped_one_leaves_nothing_but_barriers() {
    let (disk, wal) = new_log(1);
    let mut writer = wal.writer(0).unwrap();
    fill(&mut writer, 10);
    let pending = wal.begin_checkpoint(1).unwrap();
    let refused = wal.begin_checkpoint(2).unwrap_err();
    assert!(matches!(refused, WalError::CheckpointOpen { id: 1, epoch: 0 }), "{refused}");
    let arrival = pending.arrival();
    arrival.arrive(&mut writer).unwrap();
    drop(pending);
    writer.sync().unwrap();
    assert_eq!(checkpoint_on(&disk), None);

    let next = wal.begin_checkpoint(3).unwrap();
    assert_eq!(next.epoch(), 1);
}

#[test]
fn an_arrival_with_another_logs_writer_or_after_the_end_is_refused() {
    let (_disk, wal) = new_log(2);
    let (_other_disk, other) = new_log(1);
    let mut writers = wal.writers().unwrap().into_writers();
    let pending = wal.begin_checkpoint(1).unwrap();
    let refused = pending.arrival().arrive(&mut other.writer(0).unwrap()).unwrap_err();
    assert!(matches!(refused, WalError::InvalidArgument { .. }), "{refused}");
    let arrival = pending.arrival();
    drop(pending);
    let refused = arrival.arrive(&mut writers[0]).unwrap_err();
    assert!(matches!(refused, WalError::CheckpointRefused { .. }), "{refused}");
    assert_eq!(writers[0].sequence(), 0, "nothing was logged");
}

#[test]
fn a_core_that_is_cut_after_it_arrived_spoils_the_checkpoint_and_a_later_cut_below_it_is_refused() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 10);
    let middle = writers.positions();
    fill_all(&mut writers, 10);
    let pending = wal.begin_checkpoint(1).unwrap();
    pending.arrival().arrive_all(&mut writers).unwrap();
    writers.writer(1).unwrap().truncate(middle[1]).unwrap();
    let refused = pending.complete(CheckpointDetails::default()).unwrap_err();
    assert!(refused.to_string().contains("core 1 was cut"), "{refused}");
    assert_eq!(checkpoint_on(&disk), None);

    checkpoint(&wal, &mut writers, 2);
    let refused = writers.writer(0).unwrap().truncate(middle[0]).unwrap_err();
    assert!(matches!(refused, WalError::BelowCheckpoint { core: 0, .. }), "{refused}");
    writers.reset().unwrap();
    assert_eq!(checkpoint_on(&disk), None);
    fill_all(&mut writers, 10);
    checkpoint(&wal, &mut writers, 3);
    assert_eq!(checkpoint_on(&disk).unwrap().id, 3);
}

#[test]
fn offsets_are_gathered_from_the_commits_before_the_barriers_of_all_cores() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    let commit = |writers: &mut CoreWriters, core, source, offset, watermark| {
        let offsets = Offsets::try_from_pairs([(source, offset)]).unwrap();
        writers.writer(core).unwrap().append_commit(&offsets, Some(watermark)).unwrap();
    };
    commit(&mut writers, 0, "a", 10, 100);
    commit(&mut writers, 0, "b", 1, 110);
    commit(&mut writers, 1, "c", 5, 90);
    let pending = wal.begin_checkpoint(1).unwrap();
    pending.arrival().arrive_all(&mut writers).unwrap();
    commit(&mut writers, 0, "a", 99, 400);
    pending.complete(CheckpointDetails::default()).unwrap();
    let first = wal.last_checkpoint().unwrap();
    assert_eq!(sources(&first), [("a", 10), ("b", 1), ("c", 5)]);
    assert_eq!(first.watermark, Some(90));

    // What was committed behind it counts for the next one, over a crash too.
    writers.sync().unwrap();
    disk.halt();
    let disk = disk.crash(CrashPlan::lose_everything_unsynced());
    let (wal, _) = open(&disk, 2);
    let mut writers = wal.writers().unwrap();
    checkpoint(&wal, &mut writers, 2);
    let second = wal.last_checkpoint().unwrap();
    assert_eq!(sources(&second), [("a", 99), ("b", 1), ("c", 5)]);
    assert_eq!(second.watermark, Some(400));

    // What is given is taken as it is, and what was committed before it does not come back.
    let source_offsets = Some(Offsets::try_from_pairs([("a", 3)]).unwrap());
    let pending = wal.begin_checkpoint(3).unwrap();
    pending.arrival().arrive_all(&mut writers).unwrap();
    pending.complete(CheckpointDetails { source_offsets, watermark: Some(7) }).unwrap();
    assert_eq!(sources(&wal.last_checkpoint().unwrap()), [("a", 3)]);
    checkpoint(&wal, &mut writers, 4);
    assert_eq!(sources(&wal.last_checkpoint().unwrap()), [("a", 3)]);
}

#[test]
fn what_a_core_that_logs_no_more_committed_last_is_in_the_next_checkpoint() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    for (writer, source) in writers.iter_mut().zip(["a", "b"]) {
        let offsets = Offsets::try_from_pairs([(source, 5)]).unwrap();
        writer.append_commit(&offsets, Some(90)).unwrap();
    }
    drop(writers);
    wal.close().unwrap();
    let (wal, _) = open(&disk, 1);
    checkpoint(&wal, &mut wal.writers().unwrap(), 1);
    let counts = wal.last_checkpoint().unwrap();
    assert_eq!((sources(&counts), counts.watermark), (vec![("a", 5), ("b", 5)], Some(90)));
}

#[test]
fn a_commit_that_was_cut_away_uncovers_the_one_before_it() {
    let (_disk, wal) = new_log(1);
    let mut writers = wal.writers().unwrap();
    let writer = writers.writer(0).unwrap();
    writer.append_commit(&Offsets::try_from_pairs([("a", 1)]).unwrap(), None).unwrap();
    writer.sync().unwrap();
    let position = writer.position();
    writer.append_commit(&Offsets::try_from_pairs([("a", 2)]).unwrap(), None).unwrap();
    writer.truncate(position).unwrap();
    checkpoint(&wal, &mut writers, 1);
    assert_eq!(sources(&wal.last_checkpoint().unwrap()), [("a", 1)]);
}

#[test]
fn what_is_pinned_stays_until_it_is_let_go_and_the_pins_are_listed() {
    let (disk, wal) = new_log(1);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 300);
    disk.run_jobs();
    let live = || wal.disk_usage().unwrap().cores[0].live_segments;
    let before = live();
    let pin = wal.pin("backup");
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    assert_eq!(live(), before);
    let reports = wal.pins();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].name.as_str(), reports[0].positions.len()), ("backup", 0));

    pin.advance(0, writers.positions()[0] / 2);
    disk.run_jobs();
    assert!((2..before).contains(&live()), "{} of {before}", live());
    drop(pin);
    disk.run_jobs();
    assert_eq!((live(), wal.pins()), (1, Vec::new()));
}

#[test]
fn a_core_that_logs_no_more_gives_back_what_it_logged_and_nobody_has_pinned() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap().into_writers();
    fill(&mut writers[0], 10);
    fill(&mut writers[1], 300);
    drop(writers);
    wal.close().unwrap();
    let (wal, recovery) = open(&disk, 1);
    drop(recovery);
    disk.run_jobs();
    let files_of_core_1 =
        || disk.names().iter().filter(|name| name.starts_with("core-0001/0")).count();
    let before = files_of_core_1();
    let mut writers = wal.writers().unwrap();
    let pin = wal.pin("backup");
    pin.advance(0, u64::MAX);
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    assert_eq!(files_of_core_1(), before);
    drop(pin);
    disk.run_jobs();
    assert!(before > 4 && files_of_core_1() == 1, "{} of {before}", files_of_core_1());
}

/// Found by the explorer: what ends at position 0 lay below a pin that was never moved.
#[test]
fn a_pin_keeps_a_segment_at_the_start_of_the_log_that_has_nothing_in_it() {
    let (disk, wal) = new_log(1);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 1);
    writers.reset().unwrap();
    drop(writers);
    wal.close().unwrap();

    let (wal, recovery) = open(&disk, 1);
    drop(recovery);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 1);
    disk.run_jobs();
    let live = || wal.disk_usage().unwrap().cores[0].live_segments;
    assert_eq!(live(), 2, "what the reset began is empty");
    let pin = wal.pin("backup");
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    assert_eq!(live(), 2);
    pin.advance(0, 0);
    disk.run_jobs();
    assert_eq!(live(), 1);
}

#[test]
fn a_replay_under_way_reads_on_what_a_checkpoint_would_give_back() {
    let (disk, wal) = new_log(1);
    fill(&mut wal.writer(0).unwrap(), 300);
    wal.close().unwrap();
    let (wal, recovery) = open(&disk, 1);
    let mut writers = wal.writers().unwrap();
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    assert_eq!(replayed(&recovery), 300);
    assert_eq!(wal.pins()[0].name, "replay of what was recovered");
    drop(recovery);
    // The next checkpoint gives back what the replay kept.
    checkpoint(&wal, &mut writers, 2);
    disk.run_jobs();
    assert_eq!(wal.disk_usage().unwrap().cores[0].live_segments, 1);
}

#[test]
fn a_checkpoint_is_completed_on_a_full_disk_and_frees_it() {
    let (disk, wal) = new_log(1);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 300);
    disk.run_jobs();
    disk.set_free_bytes(Some(0));
    let full = loop {
        match writers.writer(0).unwrap().append_put(b"key", &[7; 500]) {
            Ok(_) => disk.run_jobs(),
            Err(error) => break error,
        };
    };
    assert!(full.is_storage_full(), "{full}");
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    fill_all(&mut writers, 30);
}

#[test]
fn epochs_are_complete_while_cores_come_and_go() {
    let disk = SimStorage::new(1);
    let mut last_epoch = 0;
    for (id, cores) in (1..).zip([4, 2, 8, 1]) {
        let (wal, recovery) = open(&disk, cores);
        if id > 1 {
            assert_eq!(replayed(&recovery), 0, "all of it lies behind the last checkpoint");
        }
        drop(recovery);
        let mut writers = wal.writers().unwrap();
        fill_all(&mut writers, 200);
        checkpoint(&wal, &mut writers, id);
        disk.run_jobs();
        let epoch = wal.last_checkpoint().unwrap().epoch;
        assert_eq!(wal.watch_epochs().complete(), Some(epoch));
        assert!(epoch > last_epoch || id == 1);
        last_epoch = epoch;
        let usage = wal.disk_usage().unwrap();
        for core in &usage.cores {
            assert_eq!(core.live_segments, 1, "{core:?} of {cores}");
        }
        drop(writers);
        wal.close().unwrap();
    }
}

#[test]
fn an_epoch_is_complete_when_the_last_cores_barrier_is_durable() {
    let (_disk, wal) = new_log(2);
    let epochs = wal.watch_epochs();
    let mut writers = wal.writers().unwrap().into_writers();
    for writer in &mut writers {
        writer.append_epoch_barrier().unwrap();
    }
    writers[0].sync().unwrap();
    assert_eq!(epochs.complete(), None, "core 1's barrier is not durable");
    assert!(!epochs.wait_for_timeout(0, Duration::ZERO).unwrap());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| epochs.wait_for(0));
        writers[1].sync().unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(epochs.complete(), Some(0));
    // A core that skips epochs has left them too.
    writers[0].set_epoch(5).unwrap();
    writers[0].append_epoch_barrier().unwrap();
    writers[0].sync().unwrap();
    assert_eq!(epochs.complete(), Some(0));
    writers[1].set_epoch(3).unwrap();
    writers[1].append_epoch_barrier().unwrap();
    writers[1].sync().unwrap();
    assert_eq!((epochs.complete(), wal.epoch()), (Some(3), 6));
    drop(writers);
    wal.close().unwrap();
    assert!(matches!(epochs.wait_for(4), Err(WalError::Closed { .. })));
}

#[test]
fn a_cut_takes_complete_epochs_back_to_that_of_the_checkpoint() {
    let (_disk, wal) = new_log(1);
    let epochs = wal.watch_epochs();
    let mut writers = wal.writers().unwrap();
    checkpoint(&wal, &mut writers, 1);
    let position = writers.positions()[0];
    writers.append_epoch_barrier().unwrap();
    writers.sync().unwrap();
    assert_eq!(epochs.complete(), Some(1));
    writers.writer(0).unwrap().truncate(position).unwrap();
    assert_eq!(epochs.complete(), Some(0));
}

#[test]
fn who_no_longer_waits_for_an_epoch_is_not_remembered() {
    let (_disk, wal) = new_log(2);
    let waiting = Arc::new(Waiting);
    let mut reached = wal.watch_epochs().reached(0);
    let waker = Waker::from(Arc::clone(&waiting));
    assert!(Pin::new(&mut reached).poll(&mut Context::from_waker(&waker)).is_pending());
    drop((reached, waker));
    assert_eq!(Arc::strong_count(&waiting), 1);
}

struct Waiting;

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn an_opening_leaves_what_was_pinned_to_the_background_which_prepares_segments_meanwhile() {
    let (disk, wal) = new_log(1);
    let pin = wal.pin("backup");
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 1000);
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    drop(writers);
    wal.close().unwrap();
    drop(pin);
    let before = segment_files(&disk);
    assert!(before > 20, "{before}");

    disk.set_tracing(true);
    let (wal, _) = open(&disk, 1);
    assert_eq!(removals_and_preparations(&disk), []);
    disk.run_jobs();
    let done = removals_and_preparations(&disk);
    assert!(is_prepared_amid_removals(&done), "{done:?}");
    // The one that holds the checkpoint, and the next one.
    assert_eq!(segment_files(&disk), 2, "{:?}", disk.names());
    assert_eq!(wal.disk_usage().unwrap().cores[0].live_segments, 1);
}

#[test]
fn a_checkpoint_that_gives_much_back_keeps_nobody_waiting_for_a_segment() {
    let disk = SimStorage::new(1);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let options = LogOptions { recycled_segments: 0, ..options() };
    let (wal, _) = Wal::open(storage, options, CoreSelection::First(1)).unwrap();
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 1000);
    disk.run_jobs();
    checkpoint(&wal, &mut writers, 1);
    let live_segments = || wal.disk_usage().unwrap().cores[0].live_segments;
    let before = live_segments();
    while live_segments() == before {
        fill_all(&mut writers, 1);
    }
    disk.set_tracing(true);
    disk.run_jobs();
    let done = removals_and_preparations(&disk);
    assert!(is_prepared_amid_removals(&done), "{done:?}");
    assert_eq!(wal.disk_usage().unwrap().cores[0].live_segments, 2);
}

/// What the background did to names since tracing began.
fn removals_and_preparations(disk: &SimStorage) -> Vec<OperationKind> {
    let is_one =
        |kind: &OperationKind| matches!(kind, OperationKind::Remove | OperationKind::Create);
    disk.take_trace().iter().map(|operation| operation.kind).filter(is_one).collect()
}

/// Whether most files were removed behind the first one that was made.
fn is_prepared_amid_removals(done: &[OperationKind]) -> bool {
    let made = done.iter().position(|&kind| kind == OperationKind::Create);
    made.is_some_and(|made| made < done.len() / 2)
}

#[test]
fn the_epoch_of_a_barrier_that_was_released_is_left_all_the_same() {
    let disk = SimStorage::new(1);
    let open_alone = |disk: &SimStorage| {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        Wal::open(storage, options(), CoreSelection::One(3)).unwrap().0
    };
    let wal = open_alone(&disk);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 10);
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    drop(writers);
    // Nothing is closed here, so the next life starts a segment to vouch in, and the one after
    // that finds the barrier's segment below the release position.
    let disk = disk.kill();
    drop(wal);
    open_alone(&disk).close().unwrap();
    let wal = open_alone(&disk);
    disk.run_jobs();
    let barriers_segment = "core-0003/00000000000000000001.wal";
    assert!(disk.names().iter().all(|name| name != barriers_segment), "{:?}", disk.names());
    assert_eq!(wal.writer(3).unwrap().epoch(), 1);
    assert_eq!(wal.watch_epochs().complete(), Some(0));
    checkpoint(&wal, &mut wal.writers().unwrap(), 2);
}

#[test]
fn a_checkpoint_is_not_completed_behind_the_back_of_whoever_opened_the_log_since() {
    let (disk, wal) = new_log(1);
    let mut writers = wal.writers().unwrap();
    let pending = wal.begin_checkpoint(1).unwrap();
    pending.arrival().arrive_all(&mut writers).unwrap();
    pending.wait().unwrap();
    drop(writers);
    wal.close().unwrap();
    let (_since, _) = open(&disk, 1);
    let refused = pending.complete(CheckpointDetails::default()).unwrap_err();
    assert!(matches!(refused, WalError::Closed { .. }), "{refused}");
    assert_eq!(checkpoint_on(&disk), None);
}

#[test]
fn a_failing_core_ends_the_wait_for_a_checkpoint() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 3);
    let pending = wal.begin_checkpoint(1).unwrap();
    let arrival = pending.arrival();
    arrival.arrive(writers.writer(0).unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    // Without a limit: at its end the wait would look once more, and see what nobody had told it.
    std::thread::spawn(move || tell.send(pending.wait()));
    std::thread::sleep(A_MOMENT);
    let writer = writers.writer(1).unwrap();
    writer.append_put(b"key", b"value").unwrap();
    disk.halt();
    writer.sync().unwrap_err();
    let told = told.recv_timeout(LONG).unwrap().unwrap_err();
    assert!(matches!(told, WalError::Poisoned { core: 1, .. }), "{told}");
}

#[test]
fn what_was_released_stays_so_when_the_reset_of_another_core_takes_the_checkpoint_away() {
    let (disk, wal) = new_log(2);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 10);
    let middle = writers.positions();
    fill_all(&mut writers, 10);
    checkpoint(&wal, &mut writers, 1);
    writers.writer(0).unwrap().reset().unwrap();
    assert_eq!(checkpoint_on(&disk), None);
    // Cut there, the log would end below what the manifest says was released: damage.
    let refused = writers.writer(1).unwrap().truncate(middle[1]).unwrap_err();
    assert!(matches!(refused, WalError::BelowCheckpoint { core: 1, .. }), "{refused}");
    writers.writer(1).unwrap().reset().unwrap();
    drop(writers);
    wal.close().unwrap();
    assert!(verify(&(Arc::new(disk.clone()) as Arc<dyn Storage>)).unwrap().is_sound());
}

#[test]
fn a_core_alone_begins_behind_the_checkpoint_of_cores_that_log_no_more() {
    let disk = SimStorage::new(1);
    let open = |selection| {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        Wal::open(storage, options(), selection).unwrap().0
    };
    let wal = open(CoreSelection::One(3));
    checkpoint(&wal, &mut wal.writers().unwrap(), 1);
    wal.close().unwrap();
    // Core 0 logs nothing yet.
    open(CoreSelection::First(1)).close().unwrap();
    let wal = open(CoreSelection::One(0));
    assert_eq!(wal.epoch(), 1);
    checkpoint(&wal, &mut wal.writers().unwrap(), 2);
}

#[test]
fn a_segment_is_not_given_back_before_the_one_behind_it_is_started_on_disk() {
    let (disk, wal) = new_log(1);
    let mut writers = wal.writers().unwrap();
    fill_all(&mut writers, 5);
    checkpoint(&wal, &mut writers, 1);
    drop(writers);
    wal.close().unwrap();
    // The segment found ends with the checkpoint; the next one is begun in memory alone.
    let (wal, recovery) = open(&disk, 1);
    drop(recovery);
    let mut writer = wal.writer(0).unwrap();
    let pin = wal.pin("a reader");
    writer.append_put(b"not synced", b"").unwrap();
    drop(pin);
    disk.run_jobs();
    let crashed = disk.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(open(&crashed, 1).0.last_checkpoint().unwrap().id, 1);
    // Once it is there, the one before goes.
    writer.sync().unwrap();
    drop(wal.pin("another reader"));
    disk.run_jobs();
    assert_eq!(wal.disk_usage().unwrap().cores[0].live_segments, 1);
}
