//! Promise 2: per core no gap, no duplicate, nothing never appended, nothing from an earlier life
//! of a file; and an atomic batch is there whole or not at all.
//!
//! `TestLog` checks it at every opening of every test. Here are lives that end and begin again
//! over the same files and positions, where bytes of the one could pass for the other's. Atomic
//! batches have a file of their own, `write_batch`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use support::{TestLog, crash_plans, segment};
use wal_sim::CrashPlan;
use wal_storage::Result;

#[test]
fn promise_2_unsynced_entries_that_are_written_again_come_back_once() -> Result<()> {
    for plan in crash_plans(0..60) {
        let mut log = TestLog::new(1);
        log.story = format!("{plan:?}");
        for _ in 0..4 {
            log.append(0, 100)?;
            log.sync(0)?;
            for _ in 0..5 {
                log.append(0, 1200)?;
            }
            // Positions and sequences of what is lost are given out again.
            log.crash(plan)?;
        }
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn promise_2_an_atomic_batch_is_there_whole_or_not_at_all() -> Result<()> {
    let mut log = TestLog::watched(1);
    for round in 0..5 {
        log.append(0, 10)?;
        log.batch(0, 4, 100 * round)?;
        log.append(0, 10)?;
        log.batch(0, 2 + round, 1500)?;
        log.run_jobs();
        log.sync(0)?;
    }
    for moment in log.take_moments() {
        for plan in crash_plans(0..6) {
            moment.crash(plan).leave();
        }
    }
    log.prove_that_it_goes_on()
}

#[test]
fn promise_2_unsynced_batches_that_are_written_again_come_back_once_and_whole() -> Result<()> {
    for plan in crash_plans(0..40) {
        let mut log = TestLog::new(1);
        log.story = format!("{plan:?}");
        for _ in 0..4 {
            log.batch(0, 3, 50)?;
            log.sync(0)?;
            for _ in 0..3 {
                log.batch(0, 5, 300)?;
            }
            log.run_jobs();
            log.crash(plan)?;
        }
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn promise_2_nothing_of_a_recycled_files_earlier_life_comes_back() -> Result<()> {
    for seed in 0..20 {
        let mut log = TestLog::new(1);
        log.story = format!("seed {seed}");
        for life in 0..3 {
            // The same sizes, so that records of each life begin where those of the last did.
            for _ in 0..14 {
                log.append(0, 1500)?;
                log.run_jobs();
            }
            log.sync(0)?;
            if life < 2 {
                log.reset(0)?;
                log.run_jobs();
            }
            log.append(0, 1500)?;
            log.append(0, 1500)?;
        }
        log.crash(CrashPlan::random(seed))?;
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn promise_2_entries_behind_a_cut_do_not_come_back_behind_new_ones() -> Result<()> {
    for plan in crash_plans(0..40) {
        let mut log = TestLog::new(1);
        log.story = format!("{plan:?}");
        for _ in 0..8 {
            log.append(0, 200)?;
            log.sync(0)?;
        }
        log.truncate(0, 3)?;
        log.append(0, 200)?;
        log.sync(0)?;
        log.append(0, 200)?;
        log.crash(plan)?;
        log.truncate(0, 2)?;
        log.crash(plan)?;
        assert_eq!(log.model.core(0).entries.len(), 2);
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn promise_2_one_cores_bytes_are_never_taken_for_anothers() -> Result<()> {
    let mut log = TestLog::new(2);
    for core in 0..2 {
        log.append_n(core, 5)?;
        log.sync(core)?;
    }
    log.close()?;
    // The records of one core over those of the other: same positions, same sequences.
    let bytes = log.disk.read_file(&segment(1, 1))?;
    log.disk.overwrite(&segment(0, 1), 12288, &bytes[12288..16384])?;
    let refusal = log.reopen().unwrap_err();
    assert!(refusal.is_corrupt(), "{refusal}");
    Ok(())
}
