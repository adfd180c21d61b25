//! Promise 3: an unfinished tail is expected, dropped and counted. Damage below anything that
//! something later proves durable is never taken for one: an error that names file, position and
//! range, and nothing on disk changes.
//!
//! `damage_everywhere` goes through every bit. Here is each witness by itself, and the blind spot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::{EndingKind, RecoveryMode, WalError};
use support::{TestLog, crash_plans, segment, small};
use wal_format::SEGMENT_HEADER_BYTES;
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

/// Damages the log's first record, and gives what the refusal says.
fn refusal_for_the_first_record(disk: &SimStorage, name: &str) -> laminar_wal::Corruption {
    disk.flip_bit(name, SEGMENT_HEADER_BYTES + 20, 3).unwrap();
    let fingerprint = disk.content_fingerprint();
    let refusal = small(disk).open().unwrap_err();
    assert_eq!(disk.content_fingerprint(), fingerprint);
    let WalError::Corrupt(corruption) = &refusal else { panic!("{refusal}") };
    let corruption = (**corruption).clone();
    assert!(corruption.path.ends_with(name), "{refusal}");
    assert_eq!(corruption.position, Some(0), "{refusal}");
    assert_eq!(corruption.file_range.unwrap().0, SEGMENT_HEADER_BYTES, "{refusal}");
    corruption
}

fn witness(disk: &SimStorage) -> String {
    refusal_for_the_first_record(disk, &segment(0, 1)).proven_by.unwrap().witness
}

#[test]
fn promise_3_a_torn_tail_is_dropped_and_counted() -> Result<()> {
    let mut torn = 0;
    for plan in crash_plans(0..60) {
        let mut log = TestLog::new(1);
        log.append_n(0, 3)?;
        log.sync(0)?;
        let synced = log.writer(0).position();
        for _ in 0..3 {
            log.append(0, 3000)?;
        }
        log.crash(plan)?;
        let found = log.found(0);
        if let EndingKind::Torn { dropped_bytes_at_least, unproven } = found.ending.kind {
            assert!(dropped_bytes_at_least > 0, "{plan:?}: {found}");
            assert!(unproven, "{plan:?}: {found}");
            torn += 1;
        }
        assert!(found.end_position >= synced);
        assert!(found.to_string().contains(&format!("at {}", found.end_position)), "{found}");
    }
    assert!(torn > 5, "{torn}");
    Ok(())
}

#[test]
fn promise_3_a_mark_proves_what_lies_before_it() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    log.append(0, 10)?;
    log.sync(0)?;
    let disk = log.disk.kill();
    assert!(witness(&disk).contains("mark"));
    Ok(())
}

#[test]
fn promise_3_the_start_of_a_later_segment_proves_what_lies_before_it() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    log.crash_losing_everything()?;
    log.append(0, 10)?;
    log.sync(0)?;
    let disk = log.disk.kill();
    assert!(witness(&disk).contains("start"));
    Ok(())
}

#[test]
fn promise_3_a_vouch_slot_proves_what_was_durable_a_quiet_second_later() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    log.be_quiet();
    let disk = log.disk.kill();
    assert!(witness(&disk).contains("vouch"));
    Ok(())
}

#[test]
fn promise_3_a_clean_close_proves_everything() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.close()?;
    assert!(witness(&log.disk.fork()).contains("vouch"));
    log.reopen()?;
    assert_eq!(log.found(0).ending.kind, EndingKind::Closed);
    Ok(())
}

#[test]
fn promise_3_the_manifest_proves_what_a_cut_kept() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.append(0, 10)?;
    log.sync(0)?;
    log.run_jobs();
    log.watch();
    log.truncate(0, 1)?;
    // Power fails between the manifest that says where the log is cut and the segment in which it
    // goes on.
    let moment = log.take_moments().pop().unwrap();
    let disk = moment.disk.crash(CrashPlan::lose_everything_unsynced());
    assert!(witness(&disk).contains("cut"));
    Ok(())
}

#[test]
fn promise_3_the_blind_spot_is_the_newest_batch_and_is_reported() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    let newest = log.append(0, 10)?;
    log.sync(0)?;
    let disk = log.disk.kill();
    disk.flip_bit(&segment(0, 1), SEGMENT_HEADER_BYTES + newest + 20, 3)?;
    let (_, recovery) = small(&disk).open()?;
    let found = recovery.report().core(0).unwrap();
    assert_eq!(found.entries, 1);
    assert!(found.ending.is_torn() && found.ending.is_unproven(), "{found}");
    assert!(found.to_string().contains("unproven"), "{found}");
    Ok(())
}

#[test]
fn promise_3_strict_recovery_drops_nothing() -> Result<()> {
    let mut refused = 0;
    for plan in crash_plans(0..30) {
        let mut log = TestLog::new(1);
        log.append_n(0, 3)?;
        log.sync(0)?;
        for _ in 0..3 {
            log.append(0, 3000)?;
        }
        let disk = log.disk.crash(plan);
        let lenient = small(&disk.fork()).open()?.1;
        let strict = small(&disk).recovery_mode(RecoveryMode::Strict).open();
        let is_torn = lenient.report().core(0).unwrap().ending.is_torn();
        assert_eq!(strict.is_err(), is_torn, "{plan:?}");
        if let Err(refusal) = strict {
            assert!(refusal.to_string().contains("torn"), "{refusal}");
            refused += 1;
        }
    }
    assert!(refused > 3, "{refused}");
    Ok(())
}
