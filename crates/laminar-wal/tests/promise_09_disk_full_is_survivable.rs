//! Promise 9: on a full disk an append that does not fit fails with `StorageFull` before a byte is
//! accepted, without poison; opening still succeeds; after space is freed, appends go on.
//!
//! `full_disk` tries every amount of space. Here is the promise as a user meets it. That a
//! checkpoint and a release still work waits for them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use laminar_wal::WalError;
use support::TestLog;
use wal_storage::Result;

#[test]
fn promise_9_a_full_disk_is_survived() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 100)?;
    log.disk.set_free_bytes(Some(0));
    let refusal = loop {
        match log.append(0, 1000) {
            Ok(_) => {}
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, WalError::StorageFull { .. }), "{refusal}");
    // Everything accepted is still made durable, and the refusal repeats itself without harm.
    log.sync(0)?;
    log.append(0, 1000).unwrap_err();
    log.sync(0)?;
    // Closing and opening work.
    log.close()?;
    log.reopen()?;
    log.append(0, 1000).unwrap_err();
    log.crash_losing_everything()?;
    log.append(0, 1000).unwrap_err();
    // Somebody makes space.
    log.disk.set_free_bytes(Some(1 << 20));
    log.append(0, 1000)?;
    log.prove_that_it_goes_on()
}
