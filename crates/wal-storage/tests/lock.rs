//! One writing process per directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::directory_on_disk;
use wal_storage::{Access, OsStorage, Storage, WalError};

#[test]
fn a_lock_excludes_a_second_one_in_the_same_process() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let other = OsStorage::open(directory.path()).unwrap();
    let lock = storage.lock().unwrap();
    locked(storage.lock().map(drop).unwrap_err(), directory.path());
    locked(other.lock().map(drop).unwrap_err(), directory.path());
    drop(lock);
    other.lock().unwrap();
}

#[test]
fn a_lock_excludes_another_process_until_it_is_dropped() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let lock = storage.lock().unwrap();
    assert_eq!(lock_in_another_process(directory.path()), "locked");
    drop(lock);
    assert_eq!(lock_in_another_process(directory.path()), "free");
    // That process ended without unlocking, and has it no longer.
    storage.lock().unwrap();
}

#[test]
fn a_lock_is_held_until_its_last_clone_is_dropped() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let first = storage.lock().unwrap();
    let second = Arc::clone(&first);
    drop(first);
    locked(storage.lock().map(drop).unwrap_err(), directory.path());
    drop(second);
    storage.lock().unwrap();
}

#[test]
fn a_lock_outlives_the_storage_it_came_from() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let lock = storage.lock().unwrap();
    drop(storage);
    let other = OsStorage::open(directory.path()).unwrap();
    locked(other.lock().map(drop).unwrap_err(), directory.path());
    drop(lock);
    other.lock().unwrap();
}

#[test]
fn a_directory_made_anew_under_the_same_name_is_another_one() {
    let directory = directory_on_disk();
    let path = directory.path().join("log");
    let storage = OsStorage::create(&path).unwrap();
    let _lock = storage.lock().unwrap();
    fs::rename(&path, directory.path().join("moved")).unwrap();
    OsStorage::create(&path).unwrap().lock().unwrap();
    // The lock went with the directory.
    let moved = OsStorage::open(directory.path().join("moved")).unwrap();
    assert!(matches!(moved.lock().map(drop), Err(WalError::Locked { .. })));
}

#[test]
fn readers_need_no_lock() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    storage.create("file", 8, Access::ReadWrite).unwrap();
    let _lock = storage.lock().unwrap();
    let reader = OsStorage::open(directory.path()).unwrap();
    let file = reader.open("file", Access::Read).unwrap();
    assert_eq!(file.read_at(&mut [0; 8], 0).unwrap(), 8);
    assert!(!reader.list("").unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn a_lock_leaves_no_file_behind() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let _lock = storage.lock().unwrap();
    assert!(storage.list("").unwrap().is_empty());
}

/// Not a test of its own: what the process of `lock_in_another_process` does.
#[test]
fn child_process_tries_the_lock() {
    let Some(directory) = env::var_os(DIRECTORY_FOR_CHILD) else {
        return;
    };
    let storage = OsStorage::open(directory).unwrap();
    match storage.lock() {
        Ok(lock) => {
            println!("{ANSWER}free");
            // The process ends with the lock in its hands.
            std::mem::forget(lock);
        }
        Err(WalError::Locked { .. }) => println!("{ANSWER}locked"),
        Err(error) => panic!("{error}"),
    }
}

const DIRECTORY_FOR_CHILD: &str = "WAL_STORAGE_TEST_LOCK_DIRECTORY";
const ANSWER: &str = "the lock is ";

fn lock_in_another_process(directory: &Path) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_process_tries_the_lock", "--nocapture"])
        .env(DIRECTORY_FOR_CHILD, directory)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    let answer = printed.split_once(ANSWER).expect("the child should have tried the lock").1;
    answer.lines().next().unwrap().to_owned()
}

#[track_caller]
fn locked(error: WalError, directory: &Path) {
    assert!(matches!(error, WalError::Locked { .. }), "{error}");
    assert_eq!(error.path(), Some(directory));
}
