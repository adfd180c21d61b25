//! The directory: what is made, listed, moved and removed, for whom, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::fs;

use common::directory_on_disk;
use wal_storage::{Access, Listed, ListedKind, OsStorage, Storage, WalError, WriteSync};

#[test]
fn a_directory_that_is_not_there_is_not_found() {
    let directory = directory_on_disk();
    let error = OsStorage::open(directory.path().join("nowhere")).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn a_file_is_not_a_log() {
    let directory = directory_on_disk();
    let path = directory.path().join("file");
    fs::write(&path, "").unwrap();
    for result in [OsStorage::open(&path), OsStorage::create(&path)] {
        let error = result.unwrap_err();
        assert!(matches!(error, WalError::NotALog { .. }), "{error}");
        assert_eq!(error.path(), Some(&*path));
    }
    // Nor can a log lie below one.
    assert!(OsStorage::create(path.join("log")).is_err());
}

#[test]
fn create_makes_missing_parents_and_is_content_with_what_is_there() {
    let directory = directory_on_disk();
    let path = directory.path().join("a/b/c");
    let storage = OsStorage::create(&path).unwrap();
    assert_eq!(storage.path(), path);
    assert!(path.is_dir());
    storage.create("file", 8, Access::ReadWrite).unwrap();
    let again = OsStorage::create(&path).unwrap();
    assert_eq!(again.list("").unwrap(), [listed("file", ListedKind::File)]);
}

#[test]
fn the_path_is_absolute_however_it_was_given() {
    let storage = OsStorage::open(".").unwrap();
    assert!(storage.path().is_absolute());
    assert!(storage.list("").unwrap().contains(&listed("Cargo.toml", ListedKind::File)));
}

#[test]
fn a_listing_names_files_directories_and_the_rest() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    assert!(storage.list("").unwrap().is_empty());
    storage.create_directory("core-0000").unwrap();
    storage.create_directory("core-0000").unwrap();
    storage.create("core-0000/1.wal", 8, Access::ReadWrite).unwrap();
    storage.create("MANIFEST.0", 8, Access::ReadWrite).unwrap();
    let expected =
        [listed("MANIFEST.0", ListedKind::File), listed("core-0000", ListedKind::Directory)];
    let mut found = storage.list("").unwrap();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(found, expected);
    assert_eq!(storage.list("core-0000").unwrap(), [listed("1.wal", ListedKind::File)]);
    assert!(storage.list("core-0001").unwrap_err().is_not_found());
}

#[test]
fn names_that_leave_the_directory_are_refused_everywhere() {
    let directory = directory_on_disk();
    fs::write(directory.path().join("outside"), "precious").unwrap();
    let storage = OsStorage::create(directory.path().join("log")).unwrap();
    storage.create("inside", 8, Access::ReadWrite).unwrap();
    let outside = directory.path().join("outside");
    let absolute = outside.to_str().unwrap();
    for name in ["../outside", "..", ".", "a/../../outside", absolute, "", "a//b", "nul\0"] {
        let refusals = [
            storage.open(name, Access::Read).map(drop),
            storage.create(name, 8, Access::ReadWrite).map(drop),
            storage.create_directory(name),
            storage.rename(name, "inside"),
            storage.rename("inside", name),
            storage.remove(name),
            if name.is_empty() { storage.remove("") } else { storage.list(name).map(drop) },
            if name.is_empty() { storage.remove("") } else { storage.sync_directory(name) },
        ];
        for (call, refusal) in refusals.into_iter().enumerate() {
            let error = refusal.expect_err(name);
            assert!(
                matches!(error, WalError::InvalidArgument { .. }),
                "call {call} with {name:?}: {error}"
            );
        }
    }
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(storage.list("").unwrap(), [listed("inside", ListedKind::File)]);
}

#[test]
fn a_rename_replaces_and_the_replaced_file_stays_readable_where_it_is_open() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    storage.create_directory("core-0000").unwrap();
    for (name, content) in [("core-0000/1.wal", b"old"), ("core-0000/next.tmp", b"new")] {
        let file = storage.create(name, 3, Access::ReadWrite).unwrap();
        file.write_at(&[content], 0, WriteSync::None).unwrap();
    }
    let old = storage.open("core-0000/1.wal", Access::Read).unwrap();
    let new = storage.open("core-0000/next.tmp", Access::ReadWrite).unwrap();

    storage.rename("core-0000/next.tmp", "core-0000/1.wal").unwrap();
    storage.sync_directory("core-0000").unwrap();

    assert_eq!(storage.list("core-0000").unwrap(), [listed("1.wal", ListedKind::File)]);
    assert_eq!(fs::read(directory.path().join("core-0000/1.wal")).unwrap(), b"new");
    let mut bytes = [0; 3];
    assert_eq!(old.read_at(&mut bytes, 0).unwrap(), 3);
    assert_eq!(&bytes, b"old");
    new.write_at(&[b"NEW"], 0, WriteSync::Through).unwrap();
    assert_eq!(fs::read(directory.path().join("core-0000/1.wal")).unwrap(), b"NEW");
}

#[test]
fn while_a_file_is_replaced_again_and_again_its_name_is_never_absent() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    storage.create("name", 8, Access::ReadWrite).unwrap();
    let path = directory.path().join("name");
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for _ in 0..200 {
                storage.create("next.tmp", 8, Access::ReadWrite).unwrap();
                storage.rename("next.tmp", "name").unwrap();
            }
        });
        while !replacing.is_finished() {
            assert_eq!(fs::read(&path).unwrap(), [0; 8]);
        }
    });
}

#[test]
fn a_removed_file_is_gone_and_cannot_be_removed_twice() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    storage.create("file", 8, Access::ReadWrite).unwrap();
    storage.remove("file").unwrap();
    assert!(storage.list("").unwrap().is_empty());
    let error = storage.remove("file").unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn errors_name_the_whole_path_and_the_operation() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    storage.create_directory("core-0003").unwrap();
    let full = |name: &str| directory.path().join(name).display().to_string();
    let missing = "core-0003/7.wal";
    for (error, operation) in [
        (storage.open(missing, Access::Read).unwrap_err(), "opening"),
        (storage.remove(missing).unwrap_err(), "removing"),
        (storage.rename(missing, "core-0003/8.wal").unwrap_err(), "renaming"),
    ] {
        let message = error.to_string();
        assert!(error.is_not_found(), "{message}");
        assert!(message.contains(&full(missing)) && message.contains(operation), "{message}");
    }
    let renaming = storage.rename(missing, "core-0003/8.wal").unwrap_err().to_string();
    assert!(renaming.contains(&full("core-0003/8.wal")), "{renaming}");
    let listing = storage.list("core-0004").unwrap_err().to_string();
    assert!(listing.contains(&full("core-0004")) && listing.contains("listing"), "{listing}");
}

#[test]
fn free_bytes_and_random_bytes_are_there_to_be_had() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    if cfg!(unix) {
        assert!(storage.free_bytes().unwrap() > 0);
    }
    let mut first = [0_u8; 32];
    let mut second = [0_u8; 32];
    storage.fill_random(&mut first).unwrap();
    storage.fill_random(&mut second).unwrap();
    assert_ne!(first, second);
}

#[test]
fn the_clocks_run() {
    let directory = directory_on_disk();
    let storage = OsStorage::open(directory.path()).unwrap();
    let before = storage.now();
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(storage.now() > before);
    let year_2020 = 1_577_836_800_000_000_000;
    assert!(storage.wall_clock_ns() > year_2020);
}

#[cfg(unix)]
mod on_unix {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use wal_storage::OsStorageOptions;

    use super::common::say;

    use super::*;

    #[test]
    fn a_listing_calls_a_link_neither_file_nor_directory() {
        let directory = directory_on_disk();
        let storage = OsStorage::create(directory.path().join("log")).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        for target in ["../file", "..", "nowhere"] {
            symlink(target, storage.path().join("link")).unwrap();
            assert_eq!(storage.list("").unwrap(), [listed("link", ListedKind::Other)]);
            storage.remove("link").unwrap();
        }
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone() {
        let directory = directory_on_disk();
        let storage = OsStorage::create(directory.path().join("parent/log")).unwrap();
        storage.create_directory("core-0000").unwrap();
        storage.create("core-0000/1.wal", 8, Access::ReadWriteDirect).unwrap();
        assert_eq!(mode(&directory.path().join("parent")), 0o700);
        assert_eq!(mode(&directory.path().join("parent/log")), 0o700);
        assert_eq!(mode(&directory.path().join("parent/log/core-0000")), 0o700);
        assert_eq!(mode(&directory.path().join("parent/log/core-0000/1.wal")), 0o600);
    }

    #[test]
    fn options_widen_permissions_but_never_lock_out_the_owner() {
        let directory = directory_on_disk();
        let path = directory.path().join("log");
        for (file_mode, directory_mode) in [(0o400, 0o700), (0o600, 0o600), (0o4600, 0o700)] {
            let options = OsStorageOptions::new().permissions(file_mode, directory_mode);
            let error = options.create(&path).unwrap_err();
            assert!(matches!(error, WalError::InvalidArgument { .. }), "{error}");
            assert!(!path.exists());
        }
        let storage = OsStorageOptions::new().permissions(0o640, 0o750).create(&path).unwrap();
        storage.create_directory("core-0000").unwrap();
        storage.create("core-0000/1.wal", 8, Access::ReadWrite).unwrap();
        // The umask of whoever runs this may take the group's bits away again, nothing else.
        assert!([0o750, 0o700].contains(&mode(&path)));
        assert!([0o750, 0o700].contains(&mode(&path.join("core-0000"))));
        assert!([0o640, 0o600].contains(&mode(&path.join("core-0000/1.wal"))));
        if mode(&path) != 0o750 {
            say("the umask hides whether permissions are widened");
        }
    }

    #[test]
    fn the_directory_itself_may_be_reached_through_a_link() {
        let directory = directory_on_disk();
        fs::create_dir(directory.path().join("real")).unwrap();
        let link = directory.path().join("link");
        symlink("real", &link).unwrap();
        let storage = OsStorage::open(&link).unwrap();
        assert_eq!(storage.path(), link);
        storage.create("file", 8, Access::ReadWrite).unwrap();
        assert!(directory.path().join("real/file").is_file());

        // And stays the one it was, whatever becomes of the link.
        fs::remove_file(&link).unwrap();
        symlink("elsewhere", &link).unwrap();
        assert_eq!(storage.list("").unwrap(), [listed("file", ListedKind::File)]);
    }

    #[test]
    fn a_link_is_not_followed_to_a_file() {
        let directory = directory_on_disk();
        let outside = directory.path().join("outside");
        fs::write(&outside, "precious").unwrap();
        let storage = OsStorage::create(directory.path().join("log")).unwrap();
        symlink("../outside", storage.path().join("link")).unwrap();
        for access in [Access::Read, Access::ReadWrite, Access::ReadWriteDirect] {
            refused_as_link(storage.open("link", access));
        }
        assert!(storage.create("link", 4096, Access::ReadWrite).is_err());
        assert!(storage.create_directory("link").is_err());

        // Removing and renaming are about the link itself.
        storage.rename("link", "moved").unwrap();
        storage.remove("moved").unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    }

    #[test]
    fn a_link_is_not_followed_to_a_directory() {
        let directory = directory_on_disk();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("1.wal"), "precious").unwrap();
        let storage = OsStorage::create(directory.path().join("log")).unwrap();
        symlink("../outside", storage.path().join("core-0000")).unwrap();
        storage.create("inside", 8, Access::ReadWrite).unwrap();

        refused_as_link(storage.list("core-0000"));
        refused_as_link(storage.open("core-0000/1.wal", Access::Read));
        refused_as_link(storage.create("core-0000/2.wal", 8, Access::ReadWrite));
        refused_as_link(storage.create_directory("core-0000"));
        refused_as_link(storage.create_directory("core-0000/below"));
        refused_as_link(storage.remove("core-0000/1.wal"));
        refused_as_link(storage.rename("inside", "core-0000/1.wal"));
        refused_as_link(storage.rename("core-0000/1.wal", "inside"));
        refused_as_link(storage.sync_directory("core-0000"));
        assert_eq!(fs::read(outside.join("1.wal")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn something_of_another_kind_in_a_files_place_is_named() {
        let directory = directory_on_disk();
        let storage = OsStorage::open(directory.path()).unwrap();
        storage.create_directory("directory").unwrap();
        storage.create("file", 8, Access::ReadWrite).unwrap();
        let made = Command::new("mkfifo").arg(directory.path().join("pipe")).status();
        let mut errors = vec![
            storage.open("directory", Access::Read).map(drop).unwrap_err(),
            storage.open("directory", Access::ReadWrite).map(drop).unwrap_err(),
            storage.open("file/below", Access::Read).map(drop).unwrap_err(),
            storage.create_directory("file").unwrap_err(),
            storage.list("file").map(drop).unwrap_err(),
        ];
        if made.is_ok_and(|status| status.success()) {
            // Neither waits for somebody at the other end.
            errors.push(storage.open("pipe", Access::Read).map(drop).unwrap_err());
            errors.push(storage.open("pipe", Access::ReadWrite).map(drop).unwrap_err());
        } else {
            say("SKIPPED: no mkfifo to make a pipe with");
        }
        for error in errors {
            assert!(matches!(error, WalError::NotALog { .. }), "{error}");
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[track_caller]
    fn refused_as_link<T: std::fmt::Debug>(result: Result<T, WalError>) {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, WalError::NotALog { reason, .. } if reason.contains("link")),
            "{error}"
        );
    }
}

fn listed(name: &str, kind: ListedKind) -> Listed {
    Listed { name: name.to_owned(), kind }
}
