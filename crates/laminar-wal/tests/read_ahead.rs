//! Goal: replay with helper threads, as on a real machine, gives what replay by one thread gives.
//! Method: a log on a real disk whose cores interleave in runs of all lengths, with records that no
//! buffer holds in between; visits that end early, with an error or a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say so and stop"
)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use laminar_wal::{Recovery, RecoveryMode, WalEntry, WalError, WalOptions};
use support::tasks::Watchdog;

const CORES: u16 = 5;

#[test]
fn helpers_change_neither_the_entries_nor_their_order() {
    let (_directory, recovery, expected) = recovered_log();
    for _ in 0..5 {
        assert!(recovery.entries().unwrap() == expected);
    }
    let alone = (0..CORES).flat_map(|core| {
        let mut entries = Vec::new();
        recovery.for_each_of_core(core, |entry| entries.push(entry.to_entry())).unwrap();
        entries
    });
    let mut alone: Vec<WalEntry> = alone.collect();
    alone.sort_by_key(WalEntry::replay_order);
    assert!(alone == expected);
}

#[test]
fn a_visit_that_fails_ends_the_replay_while_helpers_read() {
    let _watchdog = Watchdog::over("a visit that fails");
    let (_directory, recovery, expected) = recovered_log();
    for stop_at in [0, 1, expected.len() / 2, expected.len() - 1] {
        let mut visited = 0;
        let result = recovery.try_for_each(|_| {
            visited += 1;
            if visited <= stop_at {
                return Ok(());
            }
            Err(WalError::InvalidArgument { what: "enough".to_owned() })
        });
        assert!(result.unwrap_err().to_string().contains("enough"));
        assert_eq!(visited, stop_at + 1);
    }
}

#[test]
fn a_visit_that_panics_ends_the_replay_while_helpers_read() {
    let _watchdog = Watchdog::over("a visit that panics");
    let (_directory, recovery, expected) = recovered_log();
    for stop_at in [0, expected.len() / 2] {
        let mut visited = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            recovery.for_each(|_| {
                visited += 1;
                assert!(visited <= stop_at, "as planned");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(visited, stop_at + 1);
    }
}

fn recovered_log() -> (tempfile::TempDir, Recovery, Vec<WalEntry>) {
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = WalOptions::new(directory.path().join("log")).cores(CORES).open().unwrap();
    let mut writers: Vec<_> = (0..CORES).map(|core| wal.writer(core).unwrap()).collect();
    let mut expected = Vec::new();
    let mut time = 0;
    for turn in 0..400_u64 {
        for (core, writer) in (0..CORES).zip(&mut writers) {
            let run = 1 + (turn * 7 + u64::from(core) * 5) % 40;
            for number in 0..run {
                time += 1;
                let is_large = turn % 100 == 99 && number == 0;
                let value_bytes =
                    if is_large { 400_000 } else { usize::try_from(number * 13).unwrap() };
                let (epoch, sequence) = (writer.epoch(), writer.sequence());
                let value = vec![7; value_bytes];
                let entry = WalEntry::put(core, epoch, sequence, b"key".to_vec(), value, time);
                writer.append(&entry).unwrap();
                expected.push(entry);
            }
        }
    }
    writers.into_iter().for_each(|writer| writer.close().unwrap());
    wal.close().unwrap();
    let recovery = laminar_wal::read(directory.path().join("log"), RecoveryMode::Strict).unwrap();
    (directory, recovery, expected)
}
