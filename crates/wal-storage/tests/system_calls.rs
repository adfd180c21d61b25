//! Which calls reach the kernel. Whether a sync was really asked for shows in no byte that can be
//! read back, so these tests watch a child process with `strace`, where the machine has one.

#![cfg(target_os = "linux")]
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

use common::{AlignedBytes, directory_on_disk, say};
use wal_storage::{Access, OsStorage, Storage, WriteSync};

#[test]
fn syncs_reach_the_kernel_and_nothing_else_syncs() {
    let Some(calls) = watch_child() else { return };
    let expected = [
        // Making parent/log: the name of each directory, and of the one that was there.
        "fsync",
        "mkdir",
        "fsync",
        "mkdir",
        "fsync",
        // A file and its directory: reserved, zeroed in three pieces, nothing synced yet.
        "mkdirat",
        "create 0600",
        "fallocate",
        "write",
        "write",
        "write",
        "fdatasync",
        // Reserved only: one write, which shows whether direct I/O works.
        "create 0600",
        "fallocate",
        "write",
        "rename",
        "fsync",
        "fsync",
        // One plain write, one through, in that order.
        "write",
        "write through",
    ];
    assert_eq!(calls, expected);
}

/// Not a test of its own: what the watched process does.
#[test]
fn child_process_is_watched() {
    let Some(directory) = env::var_os(DIRECTORY_FOR_CHILD) else {
        return;
    };
    let storage = OsStorage::create(Path::new(&directory).join("parent/log")).unwrap();
    storage.create_directory("core-0000").unwrap();
    let file = storage.create("core-0000/next.tmp", 152 * 1024, Access::ReadWriteDirect).unwrap();
    file.sync().unwrap();
    let size_bytes = 152 * 1024;
    storage.create_reserved("core-0000/spare.tmp", size_bytes, Access::ReadWriteDirect).unwrap();
    storage.rename("core-0000/next.tmp", "core-0000/1.wal").unwrap();
    storage.sync_directory("core-0000").unwrap();
    storage.sync_directory("").unwrap();
    let bytes = AlignedBytes::patterned(8192, 1);
    file.write_at(&[&bytes[..4096], &bytes[4096..]], 0, WriteSync::None).unwrap();
    file.write_at(&[&bytes[..4096], &bytes[4096..]], 8192, WriteSync::Through).unwrap();
}

const DIRECTORY_FOR_CHILD: &str = "WAL_STORAGE_TEST_WATCHED_DIRECTORY";

/// The calls of the child, in words, from the first that is about its directory on.
fn watch_child() -> Option<Vec<String>> {
    let directory = directory_on_disk();
    let trace = directory.path().join("trace");
    let watched = directory.path().join("watched");
    fs::create_dir(&watched).unwrap();
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-s", "0"])
        .args([
            "-e",
            "trace=?mkdir,mkdirat,openat,?renameat,?renameat2,fsync,fdatasync,fallocate,pwritev2",
        ])
        .arg("-o")
        .arg(&trace)
        .arg(env::current_exe().unwrap())
        .args(["--exact", "child_process_is_watched"])
        .env(DIRECTORY_FOR_CHILD, &watched)
        .output();
    let trace = fs::read_to_string(trace).unwrap_or_default();
    if !trace.contains("pwritev2") {
        say(&format!("SKIPPED: strace cannot watch a process here: {output:?}"));
        return None;
    }
    assert!(output.unwrap().status.success(), "{trace}");
    Some(trace.lines().filter_map(in_words).map(str::to_owned).collect())
}

fn in_words(line: &str) -> Option<&'static str> {
    // "1234  fsync(3) = 0"
    let call = line.split_once(' ')?.1.trim_start();
    let (name, arguments) = call.split_once('(')?;
    let words = match name {
        "mkdir" => "mkdir",
        "mkdirat" if arguments.contains("0700") && arguments.starts_with("AT_FDCWD") => "mkdir",
        "mkdirat" if arguments.contains("0700") => "mkdirat",
        "openat" if arguments.contains("O_CREAT") && arguments.contains("0600") => "create 0600",
        "renameat" | "renameat2" => "rename",
        "fsync" => "fsync",
        "fdatasync" => "fdatasync",
        "fallocate" => "fallocate",
        "pwritev2" if arguments.contains("RWF_DSYNC") => "write through",
        "pwritev2" => "write",
        _ => return None,
    };
    assert!(call.contains(" = 0") || name.starts_with("pwritev2") || name == "openat", "{call}");
    Some(words)
}
