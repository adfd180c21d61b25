//! Promise 5: a failed write or sync is final for that core's log. It is poisoned with the first
//! cause, every waiter gets it, nothing later is acked, and the way on is to reopen.
//!
//! `failing_device` fails every operation of a life, `failing_commit` does so while threads and
//! tasks wait for it. Here is what a caller sees.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::WalError;
use support::TestLog;
use wal_sim::{Fault, OperationKind, Part};
use wal_storage::Result;

/// A log of two cores of which core 0's next write fails.
fn about_to_fail() -> TestLog {
    let mut log = TestLog::new(2);
    for core in 0..2 {
        log.append_n(core, 3).unwrap();
        log.sync(core).unwrap();
    }
    log.run_jobs();
    log.disk.inject(Fault::on(OperationKind::Write).named("core-0000/").done(Part::Nothing));
    log
}

fn first_cause(refusal: &WalError) -> String {
    match refusal {
        WalError::Poisoned { first, .. } => first.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn promise_5_every_call_after_the_first_failure_gives_its_cause() -> Result<()> {
    let mut log = about_to_fail();
    log.append_n(0, 3)?;
    let first = log.sync(0).unwrap_err();
    let cause = first_cause(&first);
    assert!(cause.contains("core-0000") && cause.contains("writing"), "{cause}");
    for refusal in [
        log.append(0, 10).unwrap_err(),
        log.writer(0).append_delete(b"k").unwrap_err(),
        log.writer(0).append_epoch_barrier().unwrap_err(),
        log.sync(0).unwrap_err(),
        log.writer(0).start_sync().unwrap_err(),
        log.truncate(0, 1).unwrap_err(),
        log.reset(0).unwrap_err(),
        log.give_back(0).unwrap_err(),
        log.wal().writer(0).unwrap_err(),
        log.close().unwrap_err(),
    ] {
        assert_eq!(first_cause(&refusal), cause);
        assert!(refusal.to_string().contains("reopen"), "{refusal}");
    }
    Ok(())
}

#[test]
fn promise_5_the_other_cores_go_on() -> Result<()> {
    let mut log = about_to_fail();
    log.append_n(0, 3)?;
    log.sync(0).unwrap_err();
    for _ in 0..30 {
        log.append(1, 1000)?;
        log.run_jobs();
    }
    log.sync(1)?;
    log.truncate(1, 10)?;
    log.append(1, 10)?;
    log.sync(1)?;
    log.crash_losing_everything()
}

#[test]
fn promise_5_every_waiter_gets_it() -> Result<()> {
    let mut log = about_to_fail();
    log.append_n(0, 1)?;
    let requests = [log.writer(0).start_sync()?, log.writer(0).start_sync()?];
    log.append_n(0, 1)?;
    let later = log.writer(0).start_sync()?;
    for request in requests.into_iter().chain([later]) {
        first_cause(&request.run().unwrap_err());
    }
    Ok(())
}

#[test]
fn promise_5_every_waiter_gets_it_also_when_the_write_went_well_and_the_sync_did_not() -> Result<()>
{
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    let synced = log.writer(0).synced_position();
    // Buffers of one segment, of which some are written before anybody waits for them.
    for _ in 0..3 {
        log.append(0, 3000)?;
    }
    let requests = [log.writer(0).start_sync()?, log.writer(0).start_sync()?];
    log.disk.inject(Fault::on(OperationKind::Sync));
    for request in requests {
        assert!(first_cause(&request.run().unwrap_err()).contains("syncing"));
    }
    assert_eq!(log.writer(0).synced_position(), synced);
    Ok(())
}

#[test]
fn promise_5_what_was_acked_before_stays_acked_and_nothing_later_is() -> Result<()> {
    let mut log = about_to_fail();
    let synced = log.writer(0).synced_position();
    let proof = log.writer(0).start_sync()?.run()?;
    log.append_n(0, 3)?;
    log.sync(0).unwrap_err();
    log.writer(0).mark_synced(proof)?;
    assert_eq!(log.writer(0).synced_position(), synced);
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 3);
    Ok(())
}

#[test]
fn promise_5_reopening_in_the_same_process_is_the_way_on() -> Result<()> {
    let mut log = about_to_fail();
    log.append_n(0, 3)?;
    log.sync(0).unwrap_err();
    log.close().unwrap_err();
    log.reopen()?;
    log.prove_that_it_goes_on()
}

#[test]
fn promise_5_a_failure_in_the_background_is_as_final() -> Result<()> {
    let mut log = about_to_fail();
    // The vouch block of a core that was quiet for a second.
    log.be_quiet();
    let cause = first_cause(&log.append(0, 10).unwrap_err());
    assert!(cause.contains("core-0000"), "{cause}");
    log.append(1, 10)?;
    log.sync(1)?;
    log.crash_losing_everything()
}

#[test]
fn promise_5_a_manifest_that_cannot_be_replaced_stops_every_core_with_the_same_cause() -> Result<()>
{
    let mut log = TestLog::new(2);
    log.append_n(0, 3)?;
    log.append_n(1, 3)?;
    log.sync(0)?;
    log.sync(1)?;
    log.disk.inject(Fault::on(OperationKind::Sync).named("MANIFEST"));
    log.reset(0).unwrap_err();
    let causes = [0, 1].map(|core| first_cause(&log.append(core, 10).unwrap_err()));
    assert!(causes[0].contains("MANIFEST"), "{}", causes[0]);
    assert_eq!(causes[0], causes[1]);
    log.crash_losing_everything()
}

#[test]
fn promise_5_what_fails_while_a_segment_is_prepared_costs_that_segment_alone() -> Result<()> {
    // Nothing of the log was in it, so nothing of the log is in doubt.
    for kind in [
        OperationKind::Create,
        OperationKind::Write,
        OperationKind::Sync,
        OperationKind::Rename,
        OperationKind::SyncDirectory,
    ] {
        let mut log = TestLog::new(1);
        log.append(0, 10)?;
        log.sync(0)?;
        let fault = match kind {
            OperationKind::SyncDirectory => Fault::on(kind).named("core-0000"),
            kind => Fault::on(kind).named("core-0000/next-"),
        };
        log.disk.inject(fault);
        log.run_jobs();
        assert_eq!(log.disk.faults_hit(), 1, "{kind:?}");
        for _ in 0..20 {
            log.append(0, 1000)?;
        }
        log.sync(0)?;
        log.crash_losing_everything()?;
    }
    Ok(())
}

#[test]
fn promise_5_the_first_cause_stays_the_first_whatever_fails_later() -> Result<()> {
    let mut log = about_to_fail();
    log.append_n(0, 1)?;
    let cause = first_cause(&log.sync(0).unwrap_err());
    log.disk.inject(Fault::on(OperationKind::Sync).named("MANIFEST"));
    log.reset(1).unwrap_err();
    assert!(first_cause(&log.sync(1).unwrap_err()).contains("MANIFEST"));
    assert_eq!(first_cause(&log.sync(0).unwrap_err()), cause);
    Ok(())
}
