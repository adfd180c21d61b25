//! Promise 10: one writing process per directory. Readers and tools need no lock and change
//! nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::thread;

use laminar_wal::{CoreWalWriter, RecoveryMode, WalError, WalOptions, read, verify};
use support::{TestLog, small, storage};
use wal_sim::{Fault, OperationKind};
use wal_storage::Result;

#[test]
fn promise_10_of_many_that_open_at_once_one_gets_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    // Made before, so that all of them find the same.
    CoreWalWriter::new(0, &path).unwrap().close().unwrap();
    let opened: Vec<_> = thread::scope(|scope| {
        let openers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| WalOptions::new(&path).open())).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1);
    for refusal in opened.iter().filter_map(|opened| opened.as_ref().err()) {
        assert!(matches!(refusal, WalError::Locked { .. }), "{refusal}");
    }
}

#[test]
fn promise_10_the_lock_is_held_by_a_writer_that_outlives_its_log() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    let (wal, _) = {
        log.close()?;
        small(&log.disk).open()?
    };
    let writer = wal.writer(0)?;
    drop(wal);
    let refusal = small(&log.disk).open().unwrap_err();
    assert!(matches!(refusal, WalError::Locked { .. }), "{refusal}");
    drop(writer);
    small(&log.disk).open()?;
    Ok(())
}

#[test]
fn promise_10_a_closed_log_can_be_opened_at_once_whatever_ran_in_the_background() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    for _ in 0..40 {
        // A segment is being prepared; others, that were cut off, are being removed.
        let mut writer = CoreWalWriter::new(0, &path)?;
        for _ in 0..100 {
            writer.append_put(b"k", &[7; 3000])?;
        }
        writer.reset()?;
        writer.close()?;
        CoreWalWriter::new(0, &path)?.close()?;
    }
    Ok(())
}

#[test]
fn promise_10_an_opening_that_failed_lets_go() -> Result<()> {
    for kind in [OperationKind::Write, OperationKind::Sync, OperationKind::Create] {
        let disk = wal_sim::SimStorage::new(1);
        disk.inject(Fault::on(kind));
        small(&disk).open().unwrap_err();
        small(&disk).open()?;
    }
    Ok(())
}

#[test]
fn promise_10_a_poisoned_log_lets_go_when_it_is_dropped() -> Result<()> {
    let mut log = TestLog::new(2);
    log.append(0, 10)?;
    log.disk.inject(Fault::on(OperationKind::Write).named("core-0000/"));
    log.sync(0).unwrap_err();
    let refusal = small(&log.disk).cores(2).open().unwrap_err();
    assert!(matches!(refusal, WalError::Locked { .. }), "core 1 still writes: {refusal}");
    log.close().unwrap_err();
    log.reopen()
}

#[test]
fn promise_10_a_request_that_was_never_run_does_not_keep_a_closed_log_locked() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    let request = log.writer(0).start_sync()?;
    log.close()?;
    log.reopen()?;
    assert!(request.position() > 0);
    Ok(())
}

#[test]
fn promise_10_readers_need_no_lock_and_leave_no_trace() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append_n(0, 5)?;
    log.sync(0)?;
    let fingerprint = log.disk.content_fingerprint();
    let storage = storage(&log.disk);
    let found = wal_recovery::recover(&storage, RecoveryMode::TornTail)?;
    assert_eq!(found.replay(&storage).entries()?.len(), 5);
    assert!(wal_recovery::verify(&storage)?.is_sound());
    assert_eq!(log.disk.content_fingerprint(), fingerprint);
    log.append(0, 10)?;
    log.sync(0)
}

#[test]
fn promise_10_readers_of_a_real_directory_leave_no_trace() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = CoreWalWriter::new(0, &path)?;
    writer.append_put(b"k", b"v")?;
    writer.close()?;
    let listing = || {
        let mut names = Vec::new();
        for place in [path.clone(), path.join("core-0000")] {
            for entry in std::fs::read_dir(place).unwrap() {
                let entry = entry.unwrap();
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                names.push((entry.file_name(), bytes));
            }
        }
        names.sort();
        names
    };
    let before = listing();
    assert_eq!(read(&path, RecoveryMode::Strict)?.entries()?.len(), 1);
    assert!(verify(&path)?.is_sound());
    assert_eq!(listing(), before);
    Ok(())
}
