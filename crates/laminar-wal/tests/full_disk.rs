//! The disk runs full, at every amount of space and at every step of a life.
//!
//! Promise 9: what does not fit is refused before a byte of it is accepted, nothing is poisoned,
//! what was accepted can still be synced, opening succeeds, and once there is space again the log
//! goes on. The log space is taken ahead, when a segment is prepared, so a write of records never
//! meets a full disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::WalError;
use support::{LONG_LIFE, Model, Step, TestLog};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::{Result, Storage};

const BLOCK_BYTES: u64 = 4096;

/// What a life takes at most, on a disk that is large enough.
fn bytes_taken_by_a_life() -> u64 {
    const LARGE: u64 = 1 << 30;
    let disk = SimStorage::new(1);
    disk.set_free_bytes(Some(LARGE));
    let mut log = TestLog::open(disk, 2, Model::default()).unwrap();
    let mut least = LARGE;
    for &step in LONG_LIFE {
        log.perform(step).unwrap();
        least = least.min(log.disk.free_bytes().unwrap());
    }
    LARGE - least
}

/// Goes on with a life whatever does not fit, and says how often something did not.
fn live_on(log: &mut TestLog, steps: &[Step], name: &str) -> usize {
    let mut refused = 0;
    for &step in steps {
        if !log.is_open() && !matches!(step, Step::Reopen | Step::Kill) {
            continue;
        }
        match (log.perform(step), step) {
            (Ok(()), _) => {}
            // What was accepted has its place, and an opening takes none.
            (Err(error), Step::Sync(_) | Step::GiveBack(_) | Step::Jobs | Step::Quiet) => {
                panic!("{name}: {step:?}: {error}")
            }
            (Err(WalError::StorageFull { .. }), _) => refused += 1,
            (Err(error), _) => panic!("{name}: {step:?}: {error}"),
        }
    }
    refused
}

/// Somebody makes space: the very same log goes on, and so does what power loss leaves of it.
fn go_on_with_space(mut log: TestLog, name: &str) {
    log.disk.set_free_bytes(None);
    for core in 0..2 {
        log.append(core, 3000).unwrap_or_else(|error| panic!("{name}: {error}"));
        log.sync(core).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    log.crash_losing_everything().unwrap_or_else(|error| panic!("{name}: {error}"));
    log.prove_that_it_goes_on().unwrap_or_else(|error| panic!("{name}: {error}"));
    log.leave();
}

#[test]
fn whatever_fits_is_kept_on_a_disk_of_any_size() {
    let needed_blocks = bytes_taken_by_a_life() / BLOCK_BYTES;
    let mut refusals = 0;
    for blocks in 0..=needed_blocks {
        let name = format!("{blocks} blocks");
        let disk = SimStorage::new(1);
        disk.set_free_bytes(Some(blocks * BLOCK_BYTES));
        let mut log = TestLog::closed(disk, 2, Model::default());
        log.story.clone_from(&name);
        match log.reopen() {
            Ok(()) => {}
            // Making a log takes space for its manifest.
            Err(WalError::StorageFull { .. }) => {
                assert!(blocks < 33, "{name}");
                log.disk.set_free_bytes(None);
                log.reopen().unwrap();
                log.leave();
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        }
        let refused = live_on(&mut log, LONG_LIFE, &name);
        assert!(log.is_open(), "{name}: opening takes no space");
        assert!(refused == 0 || blocks < needed_blocks, "{name}");
        refusals += refused;
        go_on_with_space(log, &name);
    }
    assert!(refusals > 100, "{refusals} refusals");
}

#[test]
fn a_disk_that_fills_up_at_any_step_stops_nothing_but_what_needs_space() {
    for from in 0..LONG_LIFE.len() {
        for free_blocks in [0, 1, 7, 8] {
            let name = format!("{free_blocks} blocks from step {from} on");
            let mut log = TestLog::new(2);
            log.story.clone_from(&name);
            live_on(&mut log, &LONG_LIFE[..from], &name);
            log.disk.set_free_bytes(Some(free_blocks * BLOCK_BYTES));
            live_on(&mut log, &LONG_LIFE[from..], &name);
            assert!(log.is_open(), "{name}");
            go_on_with_space(log, &name);
        }
    }
}

#[test]
fn power_loss_on_a_full_disk_loses_nothing_acked() {
    for from in (0..LONG_LIFE.len()).step_by(3) {
        let mut log = TestLog::new(2);
        live_on(&mut log, &LONG_LIFE[..from], "space");
        log.disk.set_free_bytes(Some(0));
        live_on(&mut log, &LONG_LIFE[from..], "no space");
        for seed in 0..3 {
            let mut after =
                TestLog::closed(log.disk.crash(CrashPlan::random(seed)), 2, log.model.clone());
            after.story = format!("full from step {from} on, seed {seed}");
            after.reopen().unwrap_or_else(|error| panic!("{}: {error}", after.story));
            go_on_with_space(after, "after power loss");
        }
        log.leave();
    }
}

// ---- one by one ----

/// Fills the last segment that the disk has room for.
fn filled(cores: u16) -> TestLog {
    let mut log = TestLog::new(cores);
    log.append(0, 1000).unwrap();
    log.run_jobs();
    log.disk.set_free_bytes(Some(0));
    while let Ok(position) = log.append(0, 1000) {
        assert!(position < 1_000_000, "the disk is full");
    }
    log
}

#[test]
fn an_append_that_does_not_fit_says_so_and_accepts_nothing() -> Result<()> {
    let mut log = filled(1);
    let entries = log.model.core(0).entries.len();
    let (position, sequence) = (log.writer(0).position(), log.writer(0).sequence());
    let refused = log.writer(0).append_put(b"key", &[7; 1000]).unwrap_err();
    assert!(matches!(refused, WalError::StorageFull { .. }), "{refused}");
    assert!(refused.to_string().contains("core-0000"), "{refused}");
    assert_eq!((log.writer(0).position(), log.writer(0).sequence()), (position, sequence));
    log.sync(0)?;
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), entries);
    Ok(())
}

#[test]
fn once_there_is_space_the_same_writer_goes_on() -> Result<()> {
    let mut log = filled(1);
    log.append(0, 1000).unwrap_err();
    log.disk.set_free_bytes(None);
    log.append(0, 1000)?;
    log.sync(0)?;
    log.crash_losing_everything()
}

#[test]
fn a_full_disk_does_not_keep_an_epoch_from_ending() -> Result<()> {
    let mut log = filled(1);
    log.append(0, 1000).unwrap_err();
    // The last 8 KiB of a segment are kept for barriers.
    for epoch in 0..20 {
        assert_eq!(log.writer(0).epoch(), epoch);
        log.barrier(0)?;
        log.sync(0)?;
    }
    log.crash_losing_everything()?;
    assert_eq!(log.found(0).last_epoch, 19);
    Ok(())
}

#[test]
fn the_reserve_ends_too_and_says_so() -> Result<()> {
    // Behind the last barrier a mark and a seal must have room, wherever it ends.
    for bytes in (0..64).step_by(8) {
        let mut log = filled(1);
        log.append(0, bytes)?;
        let mut barriers = 0;
        let refused = loop {
            match log.barrier(0) {
                Ok(_) => barriers += 1,
                Err(refused) => break refused,
            }
            assert!(barriers < 1000);
        };
        assert!(matches!(refused, WalError::StorageFull { .. }), "{refused}");
        assert!(barriers > 50, "{barriers} barriers fit into 8 KiB");
        log.sync(0)?;
        log.disk.set_free_bytes(None);
        log.append(0, 10)?;
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn a_small_record_still_goes_on_in_the_prepared_segment_behind_a_large_one_that_did_not_fit()
-> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 1000)?;
    log.run_jobs();
    log.disk.set_free_bytes(Some(0));
    // Larger than the segment that is ready.
    let refused = log.append(0, 40_000).unwrap_err();
    assert!(matches!(refused, WalError::StorageFull { .. }), "{refused}");
    // Enough to need that segment.
    for _ in 0..12 {
        log.append(0, 1000)?;
    }
    log.sync(0)?;
    log.crash_losing_everything()
}

#[test]
fn a_reset_on_a_full_disk_works_with_a_prepared_segment_and_changes_nothing_without() -> Result<()>
{
    let mut log = filled(1);
    log.sync(0)?;
    let fingerprint = log.disk.content_fingerprint();
    let refused = log.reset(0).unwrap_err();
    assert!(matches!(refused, WalError::StorageFull { .. }), "{refused}");
    assert_eq!(log.disk.content_fingerprint(), fingerprint);

    let mut log = TestLog::new(1);
    log.append(0, 1000)?;
    log.sync(0)?;
    log.run_jobs();
    log.disk.set_free_bytes(Some(0));
    log.reset(0)?;
    log.append(0, 1000)?;
    log.sync(0)?;
    log.crash_losing_everything()
}

#[test]
fn resetting_gives_a_full_disk_its_space_back() -> Result<()> {
    let mut log = TestLog::new(1);
    for _ in 0..60 {
        log.append(0, 1000)?;
        log.run_jobs();
    }
    log.sync(0)?;
    log.disk.set_free_bytes(Some(0));
    log.reset(0)?;
    log.run_jobs();
    // In the files that were freed, and the space of those that were not kept.
    for _ in 0..30 {
        log.append(0, 1000)?;
        log.run_jobs();
    }
    log.sync(0)?;
    log.crash_losing_everything()
}

#[test]
fn a_full_disk_is_no_obstacle_to_opening_again_and_again() -> Result<()> {
    let mut log = filled(2);
    log.sync(0)?;
    for _ in 0..5 {
        log.kill()?;
        log.close()?;
        log.reopen()?;
    }
    log.disk.set_free_bytes(None);
    log.prove_that_it_goes_on()
}
