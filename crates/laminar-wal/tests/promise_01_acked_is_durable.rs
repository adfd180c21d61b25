//! Promise 1: once a sync or a ticket says Ok, every entry of that core up to there survives power loss and is
//! recovered, whole and in order.
//!
//! That it holds at every moment of a long life is shown in `crash_stories`, on a failing device
//! in `failing_device`, on a full one in `full_disk`; with many threads in `group_commit`,
//! `failing_commit` and `late_capture`. Here is each way to be told Ok.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::time::Duration;

use laminar_wal::SyncTicket;
use support::tasks::block_on;
use support::{TestLog, crash_plans};
use wal_sim::CrashPlan;
use wal_storage::Result;

/// Nothing of what was acked is missing, whatever power loss leaves.
fn survives(log: &TestLog) {
    for plan in crash_plans(0..20) {
        let mut after = TestLog::closed(log.disk.crash(plan), 2, log.model.clone());
        after.story = format!("{plan:?}");
        after.reopen().unwrap();
        after.leave();
    }
}

#[test]
fn promise_1_what_a_sync_acked_survives() -> Result<()> {
    let mut log = TestLog::new(2);
    for round in 0..10 {
        log.append(0, round * 300)?;
        log.sync(0)?;
        survives(&log);
        log.append(1, 10)?;
    }
    Ok(())
}

#[test]
fn promise_1_an_ack_covers_everything_before_it_not_the_last_entry_alone() -> Result<()> {
    let mut log = TestLog::new(2);
    for _ in 0..40 {
        // Full buffers go to the disk before, without a sync; segments fill up.
        log.append(0, 1500)?;
    }
    log.sync(0)?;
    survives(&log);
    Ok(())
}

#[test]
fn promise_1_the_ack_of_one_core_says_nothing_of_another() -> Result<()> {
    let mut log = TestLog::new(2);
    log.append(0, 10)?;
    log.append(1, 10)?;
    log.sync(0)?;
    assert_eq!(log.writer(1).synced_position(), 0);
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 1);
    assert_eq!(log.model.core(1).entries.len(), 0);
    Ok(())
}

#[test]
fn promise_1_what_another_thread_synced_survives() -> Result<()> {
    let mut log = TestLog::new(2);
    log.append_n(0, 5)?;
    let request = log.writer(0).start_sync()?;
    log.append_n(0, 5)?;
    let proof = std::thread::spawn(move || request.run()).join().unwrap()?;
    log.model.core_mut(0).acked = 5;
    survives(&log);
    log.writer(0).mark_synced(proof)?;
    assert_eq!(log.writer(0).entries_since_sync(), 5);
    Ok(())
}

#[test]
fn promise_1_what_a_ticket_said_ok_for_survives_however_it_was_asked() -> Result<()> {
    type Ask = fn(&TestLog, SyncTicket) -> Result<()>;
    let ways: [(&str, Ask); 6] = [
        ("wait", |_, ticket| ticket.wait()),
        ("wait_timeout", |_, ticket| {
            ticket.wait_timeout(Duration::from_secs(60)).map(|is_durable| assert!(is_durable))
        }),
        ("await", |log, mut ticket| {
            // Polled once, so that the background is asked for.
            assert!(support::tasks::WakeCount::new().poll(&mut ticket).is_pending());
            log.disk.run_jobs();
            block_on(ticket)
        }),
        ("is_durable", |log, ticket| {
            assert!(!ticket.is_durable()?);
            log.disk.run_jobs();
            ticket.is_durable().map(|is_durable| assert!(is_durable))
        }),
        ("watch", |log, ticket| {
            log.disk.run_jobs();
            log.wal().watch(0)?.wait_for(ticket.position())
        }),
        ("sync_all", |log, _ticket| log.wal().sync_all()),
    ];
    for (way, ask) in ways {
        let mut log = TestLog::new(2);
        log.story = way.to_owned();
        for round in 0..4 {
            // Within a buffer, over several, and over the end of a segment.
            log.append_n(0, 1 + 9 * round)?;
            log.batch(0, 3, 200 * round)?;
            let submitted = log.model.core(0).entries.len();
            let ticket = log.writer(0).submit()?;
            log.append_n(0, 2)?;
            ask(&log, ticket)?;
            log.model.core_mut(0).acked = submitted;
            survives(&log);
        }
        assert!(log.writer(0).entries_since_sync() > 0, "{way}: the writer was not asked");
    }
    Ok(())
}

#[test]
fn promise_1_what_one_client_of_a_shared_writer_was_told_ok_for_survives() -> Result<()> {
    let mut log = TestLog::new(2);
    let shared = {
        log.drop_writer(0);
        log.wal().shared_writer(0)?
    };
    for round in 0..6 {
        let (first, second) = (shared.clone(), shared.clone());
        let _unasked = log.append_shared(0, &first, 30)?;
        let ticket = log.append_shared(0, &second, 500)?;
        let asked = log.model.core(0).entries.len();
        let _later = log.append_shared(0, &first, 30)?;
        match round % 2 {
            0 => ticket.wait()?,
            _ => second.sync()?,
        }
        log.model.core_mut(0).acked = asked;
        survives(&log);
    }
    Ok(())
}

#[test]
fn promise_1_what_a_close_or_a_returned_writer_left_survives() -> Result<()> {
    let mut log = TestLog::new(2);
    log.append_n(0, 5)?;
    log.give_back(0)?;
    survives(&log);
    log.append_n(0, 5)?;
    log.append_n(1, 5)?;
    log.close()?;
    survives(&log);
    Ok(())
}

#[test]
fn promise_1_what_an_opening_found_counts_as_acked() -> Result<()> {
    // Whoever reads it acts on it, so it must not vanish later.
    let mut log = TestLog::new(2);
    log.append_n(0, 5)?;
    log.sync(0)?;
    for _ in 0..4 {
        log.append(0, 3000)?;
    }
    log.kill()?;
    assert!(log.model.core(0).entries.len() > 5);
    survives(&log);
    log.crash(CrashPlan::lose_everything_unsynced())
}
