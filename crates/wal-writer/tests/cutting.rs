//! Goal: cuts of several cores happen together, take nothing away from a replay that is under way,
//! and cost little disk.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::sync::Arc;

use wal_format::{Checkpoint, CheckpointCore, Cut, Release};
use wal_recovery::{Recovery, RecoveryMode, recover};
use wal_sim::fixture::{LogFixture, segment_name};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::{Storage, WalError};
use wal_writer::{CoreSelection, LogOptions, Wal};

const CORES: u16 = 3;

fn open_with(disk: &SimStorage, options: LogOptions) -> (Wal, Recovery) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    Wal::open(storage, options, CoreSelection::First(CORES)).unwrap()
}

fn open(disk: &SimStorage) -> (Wal, Recovery) {
    let options = LogOptions {
        segment_bytes: 32 * 1024,
        max_record_bytes: 8192,
        batch_bytes: 4096,
        in_flight_bytes: 8192,
        ..LogOptions::default()
    };
    open_with(disk, options)
}

/// A log whose cores each have `entries` entries, and the position in the middle of each.
fn filled(disk: &SimStorage, entries: u32) -> (Wal, Vec<u64>) {
    let (wal, _) = open(disk);
    let mut middles = Vec::new();
    for mut writer in wal.writers().unwrap().into_writers() {
        for n in 0..entries {
            if n == entries / 2 {
                writer.sync().unwrap();
                middles.push(writer.position());
            }
            writer.append_put(&n.to_le_bytes(), &[7; 300]).unwrap();
        }
        writer.sync().unwrap();
    }
    disk.run_jobs();
    (wal, middles)
}

fn entries_per_core(recovery: &Recovery) -> Vec<u64> {
    recovery.report().cores.iter().map(|core| core.entries).collect()
}

fn either_all_or_none(act: impl Fn(&Wal, &[u64]), cut_to: u64) {
    const ENTRIES: u32 = 60;
    let disk = SimStorage::new(1);
    let (wal, middles) = filled(&disk, ENTRIES);
    disk.snapshot_each_change(true);
    act(&wal, &middles);
    disk.snapshot_each_change(false);
    let mut outcomes = [0; 2];
    for (number, moment) in disk.take_snapshots() {
        for plan in [
            CrashPlan::lose_everything_unsynced(),
            CrashPlan::keep_everything(),
            CrashPlan::random(number),
        ] {
            let entries = entries_per_core(&open(&moment.crash(plan)).1);
            let is_cut = entries == vec![cut_to; CORES.into()];
            let is_whole = entries == vec![u64::from(ENTRIES); CORES.into()];
            assert!(is_cut || is_whole, "before operation {number}: {entries:?}");
            outcomes[usize::from(is_cut)] += 1;
        }
    }
    assert!(outcomes.iter().all(|&count| count > 0), "whole and cut: {outcomes:?}");
}

#[test]
fn power_loss_leaves_all_cores_truncated_or_none() {
    either_all_or_none(|wal, middles| wal.writers().unwrap().truncate(middles).unwrap(), 30);
}

#[test]
fn power_loss_leaves_all_cores_empty_or_none() {
    either_all_or_none(|wal, _| wal.writers().unwrap().reset().unwrap(), 0);
}

#[test]
fn a_position_that_is_no_boundary_on_one_core_cuts_none() {
    let disk = SimStorage::new(1);
    let (wal, mut middles) = filled(&disk, 10);
    let mut writers = wal.writers().unwrap();
    let before = writers.positions();
    middles[2] += 8;
    writers.truncate(&middles).unwrap_err();
    assert_eq!(writers.positions(), before);
    drop(writers);
    wal.close().unwrap();
    assert_eq!(entries_per_core(&open(&disk).1), [10; 3]);
}

#[test]
fn a_replay_reads_on_what_is_cut_away_meanwhile() {
    let disk = SimStorage::new(1);
    filled(&disk, 60).0.close().unwrap();
    let (wal, recovery) = open(&disk);
    let before = recovery.entries().unwrap();
    wal.writers().unwrap().reset().unwrap();
    for mut writer in wal.writers().unwrap().into_writers() {
        for n in 0..100_u32 {
            writer.append_put(&n.to_le_bytes(), &[9; 900]).unwrap();
            disk.run_jobs();
        }
    }
    assert_eq!(recovery.entries().unwrap(), before);
}

#[test]
fn a_reset_forgets_the_release_of_its_own_core_and_of_no_other() {
    let disk = SimStorage::new(1);
    let mut log = LogFixture::new([7; 16]);
    for core in [0, 1] {
        let segment = log.core(core).segment();
        segment.put(b"released", b"").put(b"key", b"value");
        let release = Release { core, position: 80, last_epoch: 0, last_timestamp_ns: 0 };
        log.manifest().releases.push(release);
    }
    log.finish().install(&disk).unwrap();
    let (wal, _) = open(&disk);
    wal.writer(0).unwrap().reset().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    // With its release, the core's next opening would miss what lies below.
    let manifest = recover(&storage, RecoveryMode::Strict).unwrap().manifest.unwrap();
    let released: Vec<u16> = manifest.releases.iter().map(|release| release.core).collect();
    assert_eq!(released, [1]);
}

#[test]
fn nothing_is_cut_away_below_a_checkpoint_of_the_same_core() {
    let disk = SimStorage::new(1);
    let mut log = LogFixture::new([7; 16]);
    for core in [0, 1] {
        log.core(core).segment().put(b"a", b"").put(b"b", b"").put(b"c", b"");
    }
    let place =
        |core, position, sequence| CheckpointCore { core, position, sequence, timestamp_ns: 0 };
    log.manifest().checkpoint = Some(Checkpoint {
        id: 1,
        epoch: 0,
        cores: vec![place(0, 80, 1), place(1, 160, 2)],
        source_offsets: vec![],
        watermark: None,
    });
    log.finish().install(&disk).unwrap();
    let (wal, _) = open(&disk);
    let mut writer = wal.writer(1).unwrap();
    let refused = writer.truncate(80).unwrap_err();
    assert!(
        matches!(
            refused,
            WalError::BelowCheckpoint { core: 1, position: 80, checkpoint_position: 160 }
        ),
        "{refused}"
    );
    assert_eq!(writer.position(), 240);
    writer.truncate(160).unwrap();
    assert_eq!(writer.position(), 160);
}

#[test]
fn a_log_of_which_nothing_is_left_but_its_end_begins_at_0_after_a_reset() {
    let disk = SimStorage::new(1);
    let mut log = LogFixture::new([7; 16]);
    log.core(0).segment().put(b"released", b"");
    log.manifest().releases =
        vec![Release { core: 0, position: 80, last_epoch: 0, last_timestamp_ns: 0 }];
    log.manifest().cuts = vec![Cut {
        core: 0,
        position: 80,
        sequence: 1,
        dead_segment_id: 1,
        last_epoch: 0,
        last_timestamp_ns: 0,
    }];
    let mut image = log.finish();
    image.remove(&segment_name(0, 1));
    image.install(&disk).unwrap();
    let mut writer = open(&disk).0.writer(0).unwrap();
    assert_eq!((writer.position(), writer.sequence()), (80, 1));
    writer.reset().unwrap();
    assert_eq!((writer.position(), writer.sequence()), (0, 0));
}

#[test]
fn without_a_replay_the_files_of_a_reset_log_are_recycled_or_removed() {
    let disk = SimStorage::new(1);
    let (wal, _) = filled(&disk, 200);
    let files =
        |disk: &SimStorage| disk.names().iter().filter(|name| name.ends_with(".wal")).count();
    let before = files(&disk);
    wal.writers().unwrap().reset().unwrap();
    disk.run_jobs();
    assert!(files(&disk) <= 2 * usize::from(CORES) && before > files(&disk), "{before} before");
}

#[test]
fn cutting_often_costs_small_segments_only() {
    let disk = SimStorage::new(1);
    let (wal, recovery) = open_with(&disk, LogOptions::default());
    drop(recovery);
    let mut writer = wal.writer(0).unwrap();
    let mut boundary = 0;
    for n in 0..100_u32 {
        let position = writer.append_put(&n.to_le_bytes(), &[1; 100]).unwrap();
        if n % 2 == 1 {
            writer.truncate(boundary).unwrap();
        } else {
            boundary = position;
        }
        disk.run_jobs();
    }
    let names = disk.names();
    let bytes: usize =
        names.iter().map(|name| disk.read_file(name).unwrap_or_default().len()).sum();
    assert!(bytes < 100 * 256 * 1024, "{bytes} bytes in {} files", names.len());
}
