//! Names are durable on their own terms.

#![allow(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeSet;

use wal_sim::{CrashPlan, Fault, OperationKind, Part, SimStorage};
use wal_storage::{Access, ListedKind, Storage, WriteSync};

const SEEDS: u64 = 300;

fn states(storage: &SimStorage) -> BTreeSet<Vec<String>> {
    (0..SEEDS).map(|seed| storage.crash(CrashPlan::random(seed)).names()).collect()
}

/// The names after the crash that loses the most.
fn durable_names(storage: &SimStorage) -> Vec<String> {
    storage.crash(CrashPlan::lose_everything_unsynced()).names()
}

fn set(all: &[&[&str]]) -> BTreeSet<Vec<String>> {
    all.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect()
}

#[test]
fn a_name_needs_a_sync_of_its_directory() {
    let storage = SimStorage::new(1);
    let file = storage.create("f", 4096, Access::ReadWrite).unwrap();
    file.sync().unwrap();
    assert_eq!(states(&storage), set(&[&[], &["f"]]));
    storage.sync_directory("").unwrap();
    assert_eq!(states(&storage), set(&[&["f"]]));
}

#[test]
fn a_durable_name_says_nothing_of_the_bytes() {
    let storage = SimStorage::new(1);
    storage.create("f", 4096, Access::ReadWrite).unwrap();
    storage.sync_directory("").unwrap();
    let after = storage.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(after.read_file("f").unwrap(), b"");
}

#[test]
fn changes_survive_in_any_combination() {
    let storage = SimStorage::new(1);
    storage.write_file("old", b"").unwrap();
    storage.create("a", 0, Access::ReadWrite).unwrap();
    storage.create("b", 0, Access::ReadWrite).unwrap();
    storage.remove("old").unwrap();
    assert_eq!(states(&storage).len(), 8);
    storage.sync_directory("").unwrap();
    assert_eq!(states(&storage), set(&[&["a", "b"]]));
}

#[test]
fn a_rename_leaves_the_old_file_or_the_new_one_under_the_new_name() {
    let storage = SimStorage::new(1);
    storage.write_file("to", b"old").unwrap();
    storage.write_file("from", b"new").unwrap();
    storage.rename("from", "to").unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let after = storage.crash(CrashPlan::random(seed));
        let to = after.read_file("to").unwrap();
        let from = after.read_file("from").ok();
        assert!(from.is_none() || from.as_deref() == Some(b"new"));
        assert!(to == b"new" || from.is_some(), "the renamed file has a name in any case");
        seen.insert((to == b"new", from.is_some()));
        let whole = storage.crash(CrashPlan::random(seed).whole_renames());
        let is_done = whole.read_file("to").unwrap() == b"new";
        assert_eq!(whole.read_file("from").is_err(), is_done);
    }
    assert_eq!(seen, BTreeSet::from([(false, true), (true, true), (true, false)]));
}

#[test]
fn renames_in_a_row_lose_no_file_but_one_whose_name_was_taken_too_early() {
    let storage = SimStorage::new(1);
    storage.write_file("a", b"first").unwrap();
    storage.write_file("b", b"second").unwrap();
    storage.rename("b", "c").unwrap();
    storage.rename("a", "b").unwrap();
    storage.rename("c", "d").unwrap();
    for seed in 0..SEEDS {
        let after = storage.crash(CrashPlan::random(seed));
        let contents: BTreeSet<Vec<u8>> =
            after.names().iter().map(|name| after.read_file(name).unwrap()).collect();
        assert!(contents.contains(&b"first"[..]), "seed {seed}: {:?}", after.names());
        let is_taken = after.read_file("b").is_ok_and(|bytes| bytes == b"first");
        assert!(contents.contains(&b"second"[..]) || is_taken, "seed {seed}: {:?}", after.names());
    }
}

#[test]
fn a_rename_between_directories_is_whole_until_one_of_them_is_synced() {
    let prepared = || {
        let storage = SimStorage::new(1);
        storage.write_file("one/f", b"").unwrap();
        storage.write_file("two/other", b"").unwrap();
        storage.rename("one/f", "two/f").unwrap();
        storage
    };
    let storage = prepared();
    let both: &[&[&str]] =
        &[&["one/f", "two/other"], &["one/f", "two/f", "two/other"], &["two/f", "two/other"]];
    assert_eq!(states(&storage), set(both));
    storage.sync_directory("two").unwrap();
    assert_eq!(states(&storage), set(&both[1..]));
    storage.sync_directory("one").unwrap();
    assert_eq!(states(&storage), set(&both[2..]));

    let wrong_order = prepared();
    wrong_order.sync_directory("one").unwrap();
    assert_eq!(states(&wrong_order), set(&[&["two/other"], &["two/f", "two/other"]]));
}

#[test]
fn a_directory_takes_along_what_lies_in_it() {
    let storage = SimStorage::new(1);
    storage.create_directory("core-0000").unwrap();
    storage.create("core-0000/f", 0, Access::ReadWrite).unwrap();
    storage.sync_directory("core-0000").unwrap();
    assert_eq!(states(&storage), set(&[&[], &["core-0000/f"]]));
    storage.sync_directory("").unwrap();
    assert_eq!(states(&storage), set(&[&["core-0000/f"]]));
}

#[test]
fn a_removed_file_can_still_be_used_and_comes_back_if_the_removal_is_lost() {
    let storage = SimStorage::new(1);
    storage.write_file("f", b"bytes").unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    storage.remove("f").unwrap();
    let mut buffer = [0; 5];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5);
    assert_eq!(&buffer, b"bytes");
    assert!(storage.open("f", Access::Read).unwrap_err().is_not_found());
    let after = storage.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(after.read_file("f").unwrap(), b"bytes");
    // Durably removed it still serves who has it open, as everywhere.
    storage.sync_directory("").unwrap();
    file.write_at(&[b"BYTES"], 0, WriteSync::Through).unwrap();
    file.sync().unwrap();
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5);
    assert_eq!(&buffer, b"BYTES");
    assert!(storage.crash(CrashPlan::keep_everything()).names().is_empty());
}

#[test]
fn a_file_is_forgotten_only_when_nothing_can_bring_it_back() {
    // The only durable name of "kept" goes together with a file that is gone for good.
    let storage = SimStorage::new(1);
    storage.write_file("one/kept", b"kept").unwrap();
    storage.write_file("one/gone", b"gone").unwrap();
    storage.create_directory("two").unwrap();
    storage.sync_directory("").unwrap();
    storage.rename("one/kept", "two/kept").unwrap();
    storage.remove("one/gone").unwrap();
    storage.sync_directory("one").unwrap();
    storage.sync_directory("two").unwrap();
    let worst = storage.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(worst.read_file("two/kept").unwrap(), b"kept");
    // And twice the same name within one sync: the first file is gone, the second is not.
    storage.create("two/first", 0, Access::ReadWrite).unwrap();
    storage.rename("two/first", "two/name").unwrap();
    storage.write_file("two/second", b"second").unwrap();
    storage.rename("two/second", "two/name").unwrap();
    storage.sync_directory("two").unwrap();
    let worst = storage.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(worst.read_file("two/name").unwrap(), b"second");
    assert_eq!(worst.names(), ["two/kept", "two/name"]);
}

#[test]
fn a_failed_sync_of_a_directory_drops_its_changes_for_good() {
    let storage = SimStorage::new(1);
    storage.create("f", 0, Access::ReadWrite).unwrap();
    storage.inject(Fault::on(OperationKind::SyncDirectory));
    storage.sync_directory("").unwrap_err();
    storage.create("g", 0, Access::ReadWrite).unwrap();
    storage.sync_directory("").unwrap();
    assert_eq!(storage.names(), ["f", "g"]);
    assert_eq!(states(&storage), set(&[&["g"]]));
    // The way on is a new name change.
    storage.rename("f", "h").unwrap();
    storage.sync_directory("").unwrap();
    assert_eq!(durable_names(&storage), ["g", "h"]);
}

#[test]
fn a_half_failed_sync_of_a_directory_never_loses_a_renamed_file() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let storage = SimStorage::new(seed);
        storage.write_file("from", b"").unwrap();
        storage.rename("from", "to").unwrap();
        storage.inject(Fault::on(OperationKind::SyncDirectory).done(Part::Random));
        storage.sync_directory("").unwrap_err();
        seen.insert(durable_names(&storage));
    }
    assert_eq!(seen, set(&[&["from"], &["from", "to"], &["to"]]));
}

#[test]
fn listing_shows_one_directory_with_kinds() {
    let storage = SimStorage::new(1);
    storage.write_file("d/inner", b"").unwrap();
    storage.write_file("f", b"").unwrap();
    let mut listed = storage.list("").unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let listed: Vec<_> = listed.iter().map(|l| (l.name.as_str(), l.kind)).collect();
    assert_eq!(listed, [("d", ListedKind::Directory), ("f", ListedKind::File)]);
    assert_eq!(storage.list("d").unwrap().len(), 1);
    assert!(storage.list("absent").unwrap_err().is_not_found());
    storage.list("f").unwrap_err();
}

#[test]
fn misused_names_are_errors() {
    let storage = SimStorage::new(1);
    storage.write_file("f", b"").unwrap();
    storage.create_directory("d").unwrap();
    storage.create_directory("d").unwrap();
    for name in ["", ".", "..", "../f", "/f", "d/", "d//f", "f/g", "absent/f", "f", "d"] {
        assert!(storage.create(name, 0, Access::ReadWrite).is_err(), "{name:?}");
    }
    assert!(storage.remove("absent").unwrap_err().is_not_found());
    assert!(storage.rename("absent", "f").unwrap_err().is_not_found());
    storage.remove("d").unwrap_err();
    storage.rename("f", "d").unwrap_err();
    storage.rename("f", "f").unwrap();
    assert_eq!(storage.names(), ["f"]);
}
