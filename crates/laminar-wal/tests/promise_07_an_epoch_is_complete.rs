//! Promise 7: an epoch is complete when every member core's barrier for it is durable.
//!
//! Checkpoints that name a complete epoch, and space that is released behind them, wait for the
//! operations that make them. Here is what they will rest on: barriers, and who must have one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::{WalEntry, WalOperation};
use support::{TestLog, small};
use wal_format::Manifest;
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
