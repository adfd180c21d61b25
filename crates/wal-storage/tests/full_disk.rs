//! A disk without space: said so, by the right name, and nothing is left behind.
//!
//! The full disk is a file system of one mebibyte, mounted for the test by whoever may (the
//! superuser); others see the larger half of this skipped, and are told. It lies in memory, or for
//! one that cannot reserve space, in a file (`ext2`).

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use common::{directory_in_memory, directory_on_disk, eventually, say};
use tempfile::TempDir;
use wal_storage::{Access, OsStorage, Storage, WalError, WriteSync};

#[test]
fn a_file_larger_than_the_file_system_is_not_made_and_leaves_nothing() {
    let Some(directory) = directory_in_memory() else {
        return;
    };
    let storage = OsStorage::open(directory.path()).unwrap();
    let size = storage.free_bytes().unwrap().saturating_mul(100) & !4095;
    if size == 0 {
        say("SKIPPED: no space at all in /dev/shm");
        return;
    }
    for access in [Access::ReadWrite, Access::ReadWriteDirect] {
        let error = storage.create("huge", size, access).unwrap_err();
        full(error, size);
        assert!(storage.list("").unwrap().is_empty());
    }
}

#[test]
fn a_file_that_does_not_fit_any_more_is_not_made_and_takes_no_space() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let storage = OsStorage::open(&disk.path).unwrap();
    storage.create("first", 512 * 1024, Access::ReadWriteDirect).unwrap();
    let free = storage.free_bytes().unwrap();
    assert!((1..=512 * 1024).contains(&free), "{free} bytes");

    full(storage.create("second", 600 * 1024, Access::ReadWriteDirect).unwrap_err(), 600 * 1024);
    assert_eq!(storage.list("").unwrap().len(), 1);
    freed(&storage, free);
    storage.create("third", 256 * 1024, Access::ReadWrite).unwrap();
}

#[test]
fn a_write_that_finds_no_space_says_how_much_it_needed() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let storage = OsStorage::open(&disk.path).unwrap();
    let reserved = storage.create("reserved", 64 * 1024, Access::ReadWrite).unwrap();
    let file = storage.create("file", 4096, Access::ReadWrite).unwrap();
    let large = vec![7; 2 * 1024 * 1024];
    for sync in [WriteSync::None, WriteSync::Through] {
        full(file.write_at(&[&large], 0, sync).unwrap_err(), large.len() as u64);
    }
    // Space that was reserved and written before is still there to be overwritten.
    reserved.write_at(&[&[1; 64 * 1024]], 0, WriteSync::Through).unwrap();
    reserved.sync().unwrap();
}

#[test]
fn a_name_that_finds_no_space_is_a_full_disk_too() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let storage = OsStorage::open(&disk.path).unwrap();
    let error = (0..1000)
        .map(|number| storage.create_directory(&format!("core-{number:04}")))
        .find_map(Result::err)
        .expect("the disk has room for few names only");
    assert!(error.is_storage_full(), "{error}");
    let error = storage.create("file", 0, Access::ReadWrite).unwrap_err();
    assert!(error.is_storage_full(), "{error}");
}

#[test]
fn where_space_cannot_be_reserved_the_zeroes_find_the_disk_full() {
    let Some(disk) = SmallDisk::mount_without_reservation() else {
        return;
    };
    let storage = OsStorage::open(&disk.path).unwrap();
    let empty = storage.free_bytes().unwrap();
    let lost_and_found = storage.list("").unwrap().len();
    for access in [Access::ReadWrite, Access::ReadWriteDirect] {
        let size = 600 * 1024;
        let file = storage.create("first", size, access).unwrap();
        say(&format!("zeroes without reservation, written in mode {:?}", file.mode()));
        assert_eq!(file.size_bytes().unwrap(), size);
        file.sync().unwrap();
        drop(file);

        let free = storage.free_bytes().unwrap();
        full(storage.create("second", size, access).unwrap_err(), size);
        full(storage.create_reserved("second", size, access).unwrap_err(), size);
        assert_eq!(storage.list("").unwrap().len(), lost_and_found + 1);
        freed(&storage, free);
        storage.remove("first").unwrap();
        freed(&storage, empty);
    }
}

/// Space of a removed file comes back when its last descriptor is closed, of which a process that
/// another test is just starting may hold a copy for a moment.
fn freed(storage: &OsStorage, free: u64) {
    eventually("the removed file gives its space back", || storage.free_bytes().unwrap() == free);
}

#[track_caller]
fn full(error: WalError, bytes: u64) {
    assert!(
        matches!(error, WalError::StorageFull { needed_bytes, .. } if needed_bytes == bytes),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("{bytes} bytes")), "{error}");
}

/// One mebibyte, and few names.
struct SmallDisk {
    path: PathBuf,
    _scratch: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let mount_point = directory_on_disk();
        let path = mount_point.path().to_path_buf();
        if !run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "tmpfs"])
            .arg(&path))
        {
            say("SKIPPED: a small disk cannot be mounted here; run this as the superuser");
            return None;
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "it should have just been made");
        Some(Self { path, _scratch: mount_point })
    }

    fn mount_without_reservation() -> Option<Self> {
        let scratch = directory_on_disk();
        let image = scratch.path().join("image");
        let path = scratch.path().join("mounted");
        fs::create_dir(&path).unwrap();
        File::create(&image).unwrap().set_len(1024 * 1024).unwrap();
        let made = run(Command::new("mkfs.ext2").args(["-q", "-F", "-b", "4096"]).arg(&image));
        if !(made && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path))) {
            say("SKIPPED: a small ext2 cannot be mounted here; run this as the superuser");
            return None;
        }
        Some(Self { path, _scratch: scratch })
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: it goes when the last file on it is closed.
        if !run(Command::new("umount").arg("-l").arg(&self.path)) {
            say(&format!("{} could not be unmounted", self.path.display()));
        }
    }
}
