//! The narrower model: what ext4 and XFS may leave, and what they keep though nobody asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeSet;

use wal_sim::{CrashPlan, Fault, Model, OperationKind, Part, SimStorage};
use wal_storage::{Access, Storage, WriteSync};

const SEEDS: u64 = 300;

fn linux(seed: u64) -> CrashPlan {
    CrashPlan::random(seed).model(Model::Linux)
}

/// The names after the crash that loses the most.
fn worst(storage: &SimStorage, model: Model) -> Vec<String> {
    storage.crash(CrashPlan::lose_everything_unsynced().model(model)).names()
}

fn states(storage: &SimStorage, plan: impl Fn(u64) -> CrashPlan) -> BTreeSet<Vec<String>> {
    (0..SEEDS).map(|seed| storage.crash(plan(seed)).names()).collect()
}

#[test]
fn names_survive_in_the_order_in_which_they_changed() {
    let storage = SimStorage::new(1);
    storage.write_file("one/a", b"").unwrap();
    storage.write_file("two/x", b"").unwrap();
    storage.create("two/b", 0, Access::ReadWrite).unwrap();
    storage.rename("one/a", "two/a").unwrap();
    storage.remove("two/x").unwrap();
    let expected: [&[&str]; 4] = [
        &["one/a", "two/x"],
        &["one/a", "two/b", "two/x"],
        &["two/a", "two/b", "two/x"],
        &["two/a", "two/b"],
    ];
    let expected: BTreeSet<Vec<String>> =
        expected.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect();
    assert_eq!(states(&storage, linux), expected);
    assert!(states(&storage, CrashPlan::random).is_superset(&expected), "POSIX has them too");
}

#[test]
fn a_synced_directory_takes_along_what_changed_elsewhere_before() {
    let prepared = || {
        let storage = SimStorage::new(1);
        storage.write_file("one/old", b"").unwrap();
        storage.write_file("two/old", b"").unwrap();
        storage.create("one/before", 0, Access::ReadWrite).unwrap();
        storage.create("two/synced", 0, Access::ReadWrite).unwrap();
        storage.create("one/behind", 0, Access::ReadWrite).unwrap();
        storage
    };
    let storage = prepared();
    storage.sync_directory("two").unwrap();
    assert_eq!(worst(&storage, Model::Linux), ["one/before", "one/old", "two/old", "two/synced"]);
    assert_eq!(worst(&storage, Model::Posix), ["one/old", "two/old", "two/synced"]);
    // Nothing has changed in the root: its sync does not reach the journal.
    let storage = prepared();
    storage.sync_directory("").unwrap();
    assert_eq!(worst(&storage, Model::Linux), ["one/old", "two/old"]);
}

#[test]
fn a_synced_new_file_has_its_name_and_an_old_one_takes_nothing_along() {
    let storage = SimStorage::new(1);
    storage.write_file("old", &[b'a'; 4096]).unwrap();
    let new = storage.create("new", 4096, Access::ReadWrite).unwrap();
    let old = storage.open("old", Access::ReadWrite).unwrap();
    old.write_at(&[b"b"], 0, WriteSync::None).unwrap();
    old.sync().unwrap();
    assert_eq!(worst(&storage, Model::Linux), ["old"], "written over, not longer: no journal");
    new.sync().unwrap();
    assert_eq!(worst(&storage, Model::Linux), ["new", "old"]);
    assert_eq!(worst(&storage, Model::Posix), ["old"]);
    // A file that becomes longer takes the journal along too, also by a write-through.
    storage.rename("new", "renamed").unwrap();
    old.write_at(&[b"b"], 4096, WriteSync::Through).unwrap();
    assert_eq!(worst(&storage, Model::Linux), ["old", "renamed"]);
}

#[test]
fn a_sync_that_failed_reaches_no_journal() {
    let storage = SimStorage::new(1);
    let file = storage.create("new", 4096, Access::ReadWrite).unwrap();
    storage.inject(Fault::on(OperationKind::Sync).done(Part::Nothing));
    file.sync().unwrap_err();
    assert!(worst(&storage, Model::Linux).is_empty());
}

#[test]
fn a_rename_is_whole() {
    let storage = SimStorage::new(1);
    storage.write_file("to", b"old").unwrap();
    storage.write_file("from", b"new").unwrap();
    storage.rename("from", "to").unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let after = storage.crash(linux(seed));
        let is_done = after.read_file("to").unwrap() == b"new";
        assert_eq!(after.read_file("from").is_err(), is_done);
        seen.insert(is_done);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_file_is_only_as_long_as_the_bytes_that_survived_need() {
    let storage = SimStorage::new(1);
    storage.write_file("f", &[b'a'; 4096]).unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    file.write_at(&[&[b'b'; 4096]], 4096, WriteSync::None).unwrap();
    file.write_at(&[&[b'c'; 4096]], 8192, WriteSync::None).unwrap();
    let mut sizes = BTreeSet::new();
    for seed in 0..SEEDS {
        let bytes = storage.crash(linux(seed)).read_file("f").unwrap();
        assert!(bytes.len() == 4096 || bytes.last() != Some(&0), "seed {seed}");
        // Which of them survived is still anybody's guess.
        sizes.insert((bytes.len(), bytes.get(4096) == Some(&0)));
    }
    for state in [(4096, false), (8192, false), (12_288, false), (12_288, true)] {
        assert!(sizes.contains(&state), "{state:?} of {sizes:?}");
    }
}

#[test]
fn no_sector_is_torn() {
    let storage = SimStorage::new(1);
    storage.write_file("f", &[b'a'; 4 * 4096]).unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    file.write_at(&[&[b'b'; 4 * 4096]], 0, WriteSync::None).unwrap();
    let torn =
        |bytes: &[u8]| bytes.chunks(512).any(|sector| sector.iter().any(|b| *b != sector[0]));
    let states = |plan: fn(u64) -> CrashPlan| {
        (0..SEEDS).map(move |seed| storage.crash(plan(seed)).read_file("f").unwrap())
    };
    assert!(!states.clone()(linux).any(|bytes| torn(&bytes)));
    assert!(states(CrashPlan::random).any(|bytes| torn(&bytes)), "POSIX does not promise that");
}
