//! The threads themselves: none before they are needed, none after the storage is gone.
//!
//! One test, alone in its process: it counts what the kernel says that the process has.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use common::{PATIENCE, directory_on_disk, eventually};
use wal_storage::{Access, JobKind, OsStorage, Request, Storage};

#[test]
fn threads_start_on_demand_and_end_with_the_storage() {
    let directory = directory_on_disk();
    for _ in 0..3 {
        let storage = OsStorage::open(directory.path()).unwrap();
        assert_eq!(wal_threads(), [""; 0]);

        run(&storage, JobKind::Lead);
        assert_eq!(wal_threads(), ["wal-lead"]);
        for _ in 0..10 {
            run(&storage, JobKind::Lead);
            run(&storage, JobKind::Prepare);
        }
        assert_eq!(wal_threads(), ["wal-lead", "wal-prepare"]);

        let file = storage.create("file", 4096, Access::ReadWrite).unwrap();
        let sync = Request::Sync { file: &*file };
        storage.perform(&[sync]).remove(0).unwrap();
        assert_eq!(wal_threads(), ["wal-lead", "wal-prepare"], "one alone needs no help");
        storage.perform(&[sync; 100]).into_iter().for_each(Result::unwrap);
        storage.remove("file").unwrap();
        let helpers = wal_threads().iter().filter(|name| *name == "wal-helper").count();
        // Where the kernel does them all by itself there may be none.
        assert!(helpers > 0);
        assert!(helpers <= 15, "{helpers} helpers");

        // Also one that waits for a job due much later.
        let an_hour = Duration::from_secs(3600);
        storage.spawn(JobKind::Prepare, an_hour, std::sync::Arc::new(|| {})).unwrap();
        drop(storage);
        eventually("all threads end", || wal_threads().is_empty());
    }
}

fn run(storage: &OsStorage, kind: JobKind) {
    let (sender, receiver) = mpsc::channel();
    storage
        .spawn(kind, Duration::ZERO, std::sync::Arc::new(move || sender.send(()).unwrap()))
        .unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
}

fn wal_threads() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .filter(|name| name.starts_with("wal-"))
        .collect();
    names.sort();
    names
}
