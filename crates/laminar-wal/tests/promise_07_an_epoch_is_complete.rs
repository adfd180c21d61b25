//! Promise 7: an epoch is complete when every member core's barrier for it is durable. A checkpoint
//! names a complete epoch. Space is released only behind a durable checkpoint and every pin.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::{CheckpointDetails, CoreWriters, RecoveryMode, Wal, WalEntry, WalOperation};
use support::{TestLog, crash_plans, small, storage};
use wal_format::Manifest;
use wal_recovery::{RecoveredLog, recover};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

fn entries(disk: &SimStorage, cores: u16) -> Vec<WalEntry> {
    small(&disk.kill()).cores(cores).open().unwrap().1.entries().unwrap()
}

#[test]
fn promise_7_a_barrier_is_the_last_entry_of_its_epoch_on_its_core() -> Result<()> {
    let mut log = TestLog::new(2);
    for round in 0..6 {
        for core in 0..2 {
            log.append_n(core, 3)?;
            log.barrier(core)?;
            log.append(core, 10)?;
            log.sync(core)?;
        }
        if round % 2 == 1 {
            log.crash_losing_everything()?;
        }
    }
    for core in 0..2 {
        let found = entries(&log.disk, 2);
        let of_core: Vec<_> = found.iter().filter(|entry| entry.core_id == core).collect();
        for pair in of_core.windows(2) {
            if let WalOperation::EpochBarrier { epoch } = pair[0].operation {
                assert_eq!(pair[0].epoch, epoch);
                assert!(pair[1].epoch > epoch, "{pair:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn promise_7_a_barrier_that_was_not_synced_completes_nothing() -> Result<()> {
    let mut log = TestLog::new(2);
    log.barrier(0)?;
    log.barrier(1)?;
    log.sync(0)?;
    log.crash_losing_everything()?;
    let barriers: Vec<u16> = entries(&log.disk, 2).iter().map(|entry| entry.core_id).collect();
    assert_eq!(barriers, [0]);
    Ok(())
}

#[test]
fn promise_7_who_must_have_a_barrier_is_written_down_before_anybody_logs() -> Result<()> {
    let disk = SimStorage::new(1);
    for (cores, epoch) in [(2_u16, 0), (4, 1), (3, 2)] {
        let (wal, _) = small(&disk).cores(cores).open()?;
        assert_eq!(wal.epoch(), epoch);
        // Power may fail at once.
        let after = disk.crash(CrashPlan::lose_everything_unsynced());
        let manifest = Manifest::decode(&after.read_file("MANIFEST.0")?).unwrap();
        let newest = manifest.members.last().unwrap();
        assert_eq!((newest.first_epoch, newest.first_core), (epoch, 0));
        assert_eq!(newest.core_count, u32::from(cores));
        let mut writer = wal.writer(cores - 1)?;
        writer.append_put(b"k", b"v")?;
        drop(writer);
        wal.close()?;
    }
    Ok(())
}

/// A log of two cores with a checkpoint, and another one under way that is completed while every
/// moment is kept.
fn moments_of_two_checkpoints(pins: bool) -> Vec<(u64, SimStorage)> {
    let disk = SimStorage::new(1);
    let (wal, _) = small(&disk).cores(2).open().unwrap();
    let mut writers = wal.writers().unwrap();
    fill(&mut writers);
    checkpoint(&wal, &mut writers, 1);
    disk.run_jobs();
    fill(&mut writers);
    let _pin = pins.then(|| wal.pin("a reader"));
    disk.snapshot_each_change(true);
    checkpoint(&wal, &mut writers, 2);
    disk.run_jobs();
    fill(&mut writers);
    disk.snapshot_each_change(false);
    disk.take_snapshots()
}

fn fill(writers: &mut CoreWriters) {
    for writer in writers.iter_mut() {
        for n in 0..400_u32 {
            writer.append_put(&n.to_le_bytes(), &[7; 300]).unwrap();
        }
    }
    writers.sync().unwrap();
}

fn checkpoint(wal: &Wal, writers: &mut CoreWriters, id: u64) {
    let pending = wal.begin_checkpoint(id).unwrap();
    for writer in writers.iter_mut() {
        pending.arrival().arrive(writer).unwrap();
    }
    pending.complete(CheckpointDetails::default()).unwrap();
}

fn recovered(disk: &SimStorage) -> RecoveredLog {
    recover(&storage(disk), RecoveryMode::TornTail).unwrap()
}

#[test]
fn promise_7_a_checkpoint_names_an_epoch_whose_barrier_is_there_on_every_core() {
    let mut checkpoints = 0;
    for (number, moment) in moments_of_two_checkpoints(false) {
        for plan in crash_plans(number..number + 1) {
            let log = recovered(&moment.crash(plan));
            let checkpoint = log.manifest.unwrap().checkpoint.unwrap();
            for core in &log.cores {
                let place = checkpoint.cores.iter().find(|place| place.core == core.core).unwrap();
                assert!(core.barrier_epoch >= Some(checkpoint.epoch), "{number}");
                assert!(core.end_position >= place.position, "{number}");
                assert!(core.next_sequence >= place.sequence, "{number}");
            }
            checkpoints += checkpoint.id - 1;
        }
    }
    assert!(checkpoints > 0, "the second one was never seen");
}

#[test]
fn promise_7_space_is_released_only_behind_a_durable_checkpoint_and_every_pin() {
    for pins in [false, true] {
        let (mut kept, mut released) = (0, 0);
        let moments = moments_of_two_checkpoints(pins);
        let mut names = moments[0].1.names().into_iter();
        let oldest = names.find(|name| name.starts_with("core-0000") && name.ends_with(".wal"));
        for (number, moment) in moments {
            for plan in crash_plans(number..number + 1) {
                let crashed = moment.crash(plan);
                let log = recovered(&crashed);
                let checkpoint = log.manifest.as_ref().unwrap().checkpoint.as_ref().unwrap();
                // All that is behind the checkpoint is there, from its first entry on.
                let replay = log.replay(&storage(&crashed)).entries().unwrap();
                for place in &checkpoint.cores {
                    let first = replay.iter().find(|entry| entry.core_id == place.core);
                    assert!(first.is_none_or(|first| first.sequence == place.sequence), "{number}");
                }
                let is_there = crashed.names().iter().any(|name| Some(name) == oldest.as_ref());
                // It is behind the first checkpoint and below the second.
                assert!(is_there || checkpoint.id == 2, "{number}");
                if is_there { kept += 1 } else { released += 1 }
            }
        }
        assert!(kept > 0 && (released == 0) == pins, "{kept} {released}");
    }
}
