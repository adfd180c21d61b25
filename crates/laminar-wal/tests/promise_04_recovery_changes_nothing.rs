//! Promise 4: recovery changes nothing that it reads. A torn tail is abandoned by starting a new
//! segment that says where the old one ends; recovering twice, or crashing in recovery, gives the
//! same. The one exception writes identical bytes: what nothing vouches for is written again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::collections::BTreeMap;

use laminar_wal::RecoveryMode;
use support::{LONG_LIFE, TestLog, crash_plans, small, storage};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

/// A log that power loss left behind in the middle of everything.
fn torn_log(plan: CrashPlan) -> TestLog {
    let mut log = TestLog::new(2);
    for &step in &LONG_LIFE[..LONG_LIFE.len() - 1] {
        log.perform(step).unwrap();
    }
    for _ in 0..3 {
        log.append(0, 3000).unwrap();
        log.append(1, 2000).unwrap();
    }
    let disk = log.disk.crash(plan);
    TestLog::closed(disk, 2, log.model.clone())
}

fn bytes_of(disk: &SimStorage) -> BTreeMap<String, Vec<u8>> {
    disk.names().into_iter().map(|name| (name.clone(), disk.read_file(&name).unwrap())).collect()
}

#[test]
fn promise_4_reading_a_log_changes_no_byte_of_it_and_finds_the_same_again() -> Result<()> {
    for plan in crash_plans(0..20) {
        let disk = torn_log(plan).disk;
        let fingerprint = disk.content_fingerprint();
        let storage = storage(&disk);
        let first = wal_recovery::recover(&storage, RecoveryMode::TornTail)?;
        let second = wal_recovery::recover(&storage, RecoveryMode::TornTail)?;
        assert_eq!(first, second);
        assert_eq!(first.replay(&storage).entries()?, second.replay(&storage).entries()?);
        wal_recovery::verify(&storage)?;
        assert_eq!(disk.content_fingerprint(), fingerprint, "{plan:?}");
    }
    Ok(())
}

#[test]
fn promise_4_an_opening_changes_no_byte_of_any_segment_that_holds_the_log() -> Result<()> {
    for plan in crash_plans(0..20) {
        let mut log = torn_log(plan);
        let storage = storage(&log.disk);
        let found = wal_recovery::recover(&storage, RecoveryMode::TornTail)?;
        let before = bytes_of(&log.disk);
        log.reopen()?;
        log.append(0, 100)?;
        log.sync(0)?;
        for core in &found.cores {
            for span in &core.spans {
                let name = support::segment(core.core, span.segment_id);
                assert_eq!(log.disk.read_file(&name)?, before[&name], "{plan:?}: {name}");
            }
        }
    }
    Ok(())
}

#[test]
fn promise_4_an_opening_that_is_never_written_to_finds_the_same_next_time() -> Result<()> {
    for plan in crash_plans(0..20) {
        let mut log = torn_log(plan);
        log.reopen()?;
        let (model, report) = (log.model.clone(), log.report.clone().unwrap());
        for again in crash_plans(0..3) {
            let mut after = TestLog::closed(log.disk.crash(again), 2, model.clone());
            after.reopen()?;
            for core in 0..2 {
                let (first, second) = (report.core(core).unwrap(), after.found(core));
                assert_eq!(first.entries, second.entries, "{plan:?}, {again:?}");
                assert_eq!(first.end_position, second.end_position, "{plan:?}, {again:?}");
            }
            after.leave();
        }
    }
    Ok(())
}

#[test]
fn promise_4_power_loss_during_recovery_changes_nothing_about_what_is_recovered() -> Result<()> {
    for plan in crash_plans(0..12) {
        let mut log = torn_log(plan);
        log.watch();
        log.reopen()?;
        let count = |core| log.model.core(core).entries.len();
        let recovered = [count(0), count(1)];
        for moment in log.take_moments() {
            for again in crash_plans(0..4) {
                // What was in doubt may be lost until the first opening has come to its end, but
                // there was no doubt left: the first crash had decided.
                let after = moment.crash(again);
                for core in 0..2 {
                    let found = after.model.core(core).entries.len();
                    assert_eq!(found, recovered[usize::from(core)], "{plan:?}, {again:?}");
                }
            }
        }
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn promise_4_a_torn_tail_is_left_behind_by_the_next_segments_start() -> Result<()> {
    let mut seen = 0;
    for plan in crash_plans(0..40) {
        let mut log = torn_log(plan);
        log.reopen()?;
        if !log.found(0).ending.is_torn() {
            continue;
        }
        seen += 1;
        log.append(0, 10)?;
        log.sync(0)?;
        log.close()?;
        // The torn bytes are still there, and mean nothing any more.
        log.reopen()?;
        assert!(!log.found(0).ending.is_torn(), "{}", log.found(0));
        let (_, strict) = {
            log.close()?;
            small(&log.disk).cores(2).recovery_mode(RecoveryMode::Strict).open()?
        };
        assert!(strict.report().entries() > 0);
    }
    assert!(seen > 2, "{seen}");
    Ok(())
}
