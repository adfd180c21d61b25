//! What power loss may take, and what it may not.

#![allow(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeSet;

use wal_sim::{CrashPlan, Fault, Granularity, OperationKind, SimStorage};
use wal_storage::{Access, Storage, StorageFile, WriteSync};

const SEEDS: u64 = 300;

/// A machine with the durable file "f" of `size_bytes` bytes of `a`, opened.
fn with_file(size_bytes: usize) -> (SimStorage, Box<dyn StorageFile>) {
    let storage = SimStorage::new(1);
    storage.write_file("f", &vec![b'a'; size_bytes]).unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    (storage, file)
}

fn write(file: &dyn StorageFile, bytes: &[u8], offset: u64) {
    file.write_at(&[bytes], offset, WriteSync::None).unwrap();
}

fn write_through(file: &dyn StorageFile, bytes: &[u8], offset: u64) {
    file.write_at(&[bytes], offset, WriteSync::Through).unwrap();
}

/// Every different content that "f" may have after a crash.
fn states(storage: &SimStorage, plan: impl Fn(u64) -> CrashPlan) -> BTreeSet<Vec<u8>> {
    (0..SEEDS).map(|seed| storage.crash(plan(seed)).read_file("f").unwrap()).collect()
}

#[test]
fn unsynced_bytes_may_be_lost_and_may_survive() {
    let (storage, file) = with_file(4096);
    write(&*file, b"new", 0);
    let states = states(&storage, CrashPlan::random);
    assert!(states.iter().any(|state| &state[..3] == b"aaa"));
    assert!(states.iter().any(|state| &state[..3] == b"new"));
}

#[test]
fn synced_bytes_survive_every_crash() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 10_000], 100);
    file.sync().unwrap();
    let bytes = storage.read_file("f").unwrap();
    assert_eq!(states(&storage, CrashPlan::random), BTreeSet::from([bytes.clone()]));
    assert_eq!(states(&storage, |seed| CrashPlan::random(seed).garbage()), BTreeSet::from([bytes]));
}

#[test]
fn the_worst_and_the_best_crash_are_what_they_say() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 8192], 1000);
    let worst = storage.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(worst.read_file("f").unwrap(), [b'a'; 4096]);
    let best = storage.crash(CrashPlan::keep_everything());
    assert_eq!(best.content_fingerprint(), storage.content_fingerprint());
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let (storage, file) = with_file(3 * 4096);
    for block in 0..3 {
        write(&*file, &[b'0' + block; 4096], u64::from(block) * 4096);
    }
    let states = states(&storage, CrashPlan::random);
    let seen: BTreeSet<Vec<bool>> = states
        .iter()
        .map(|state| state.chunks(4096).map(|block| block.iter().all(|b| *b != b'a')).collect())
        .collect();
    assert_eq!(seen.len(), 8, "every subset of the three blocks: {seen:?}");
}

#[test]
fn of_two_writes_to_one_place_any_may_be_the_last_to_survive() {
    let (storage, file) = with_file(512);
    write(&*file, &[b'1'; 512], 0);
    write(&*file, &[b'2'; 512], 0);
    let states =
        states(&storage, |seed| CrashPlan::random(seed).granularity(Granularity::Sector512));
    let firsts: BTreeSet<u8> = states.iter().map(|state| state[0]).collect();
    assert_eq!(firsts, BTreeSet::from(*b"a12"));
}

#[test]
fn sectors_and_blocks_survive_whole() {
    for (granularity, bytes) in [(Granularity::Sector512, 512), (Granularity::Block4096, 4096)] {
        let (storage, file) = with_file(16 * 4096);
        write(&*file, &[b'b'; 16 * 4096], 0);
        let states = states(&storage, |seed| CrashPlan::random(seed).granularity(granularity));
        assert!(states.len() > 20, "few states: {}", states.len());
        for state in states {
            for sector in state.chunks(bytes) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
        }
    }
}

#[test]
fn in_a_torn_block_each_byte_is_old_or_new() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 4096], 0);
    let states = states(&storage, |seed| CrashPlan::random(seed).granularity(Granularity::Byte));
    assert!(states.iter().flatten().all(|byte| *byte == b'a' || *byte == b'b'));
    let count = |breaks: &dyn Fn(usize) -> bool| {
        let runs = |state: &&Vec<u8>| breaks(state.windows(2).filter(|w| w[0] != w[1]).count());
        states.iter().filter(runs).count()
    };
    assert!(count(&|breaks| breaks == 1) > 5, "some blocks break once");
    assert!(count(&|breaks| breaks > 100) > 5, "some are mixed byte by byte");
}

#[test]
fn a_write_through_covers_its_range_and_no_earlier_write() {
    let (storage, file) = with_file(2 * 4096);
    write(&*file, &[b'b'; 4096], 0);
    write_through(&*file, &[b'c'; 4096], 4096);
    let states = states(&storage, CrashPlan::random);
    assert!(states.iter().all(|state| state[4096..] == [b'c'; 4096]));
    assert!(states.iter().any(|state| state[..4096] == [b'a'; 4096]));
    assert!(states.iter().any(|state| state[..4096] == [b'b'; 4096]));
}

#[test]
fn a_write_through_takes_along_the_size_it_needs_and_leaves_zeroes_below() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 4096], 4096);
    write_through(&*file, b"tail", 8192);
    let after = storage.crash(CrashPlan::lose_everything_unsynced());
    let bytes = after.read_file("f").unwrap();
    assert_eq!(bytes.len(), 8196);
    assert_eq!(bytes[4096..8192], [0; 4096]);
    assert_eq!(bytes[8192..], *b"tail");
}

#[test]
fn an_older_write_never_comes_back_over_a_write_through() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 4096], 0);
    write_through(&*file, &[b'c'; 1000], 1000);
    for state in states(&storage, CrashPlan::random) {
        assert_eq!(state[1000..2000], [b'c'; 1000]);
    }
}

#[test]
fn a_file_may_come_back_with_its_size_and_without_its_bytes() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 8192], 4096);
    write(&*file, &[b'b'; 4096], 12_288);
    let states = states(&storage, CrashPlan::random);
    let sizes: BTreeSet<usize> = states.iter().map(Vec::len).collect();
    assert!([4096, 12_288, 16_384].iter().all(|size| sizes.contains(size)), "{sizes:?}");
    assert!(states.iter().any(|state| state.len() == 16_384 && state[4096..] == [0; 12_288]));
    assert!(states.iter().all(|state| state[..4096] == [b'a'; 4096]));
}

#[test]
fn lost_space_reads_as_zeroes_unless_garbage_is_asked_for() {
    let storage = SimStorage::new(1);
    storage.write_file("old", &[b'o'; 8192]).unwrap();
    storage.create("f", 4 * 4096, Access::ReadWrite).unwrap();
    storage.sync_directory("").unwrap();
    assert!(states(&storage, CrashPlan::random).iter().flatten().all(|byte| *byte == 0));
    let states = states(&storage, |seed| CrashPlan::random(seed).garbage());
    assert!(states.iter().any(|state| state.chunks(4096).any(|block| block == [b'o'; 4096])));
    assert!(states.iter().flatten().any(|byte| *byte != 0 && *byte != b'o'));
}

#[test]
fn garbage_shows_bytes_of_files_that_are_gone_for_good() {
    let storage = SimStorage::new(1);
    storage.write_file("former", &[b'o'; 8192]).unwrap();
    storage.remove("former").unwrap();
    storage.sync_directory("").unwrap();
    storage.create("f", 4 * 4096, Access::ReadWrite).unwrap();
    storage.sync_directory("").unwrap();
    let states = states(&storage, |seed| CrashPlan::random(seed).garbage());
    assert!(states.iter().any(|state| state.chunks(4096).any(|block| block == [b'o'; 4096])));
}

#[test]
fn garbage_never_shows_in_space_that_was_zeroed_and_synced() {
    let storage = SimStorage::new(1);
    let file = storage.create("f", 4 * 4096, Access::ReadWrite).unwrap();
    file.sync().unwrap();
    storage.sync_directory("").unwrap();
    write(&*file, &[b'b'; 4096], 4096);
    let states = states(&storage, |seed| CrashPlan::random(seed).garbage());
    assert!(states.iter().flatten().all(|byte| *byte == 0 || *byte == b'b'));
}

#[test]
fn a_killed_process_leaves_everything_written_but_nothing_more_durable() {
    let (storage, file) = with_file(4096);
    write(&*file, b"new", 0);
    let after = storage.kill();
    assert_eq!(after.content_fingerprint(), storage.content_fingerprint());
    let lost = after.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(lost.read_file("f").unwrap(), [b'a'; 4096]);
    // What the next process syncs is durable, whoever wrote it.
    after.open("f", Access::ReadWrite).unwrap().sync().unwrap();
    let kept = after.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(kept.read_file("f").unwrap()[..3], *b"new");
}

#[test]
fn what_survived_a_crash_is_durable_for_the_next() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 4096], 0);
    for seed in 0..SEEDS {
        let once = storage.crash(CrashPlan::random(seed));
        let twice = once.crash(CrashPlan::random(seed + 1));
        assert_eq!(once.content_fingerprint(), twice.content_fingerprint());
        let file = once.open("f", Access::ReadWrite).unwrap();
        write(&*file, b"x", 0);
        let lost = once.crash(CrashPlan::lose_everything_unsynced());
        assert_eq!(lost.content_fingerprint(), twice.content_fingerprint());
    }
}

#[test]
fn the_machine_that_crashed_stays_as_it_was() {
    let (storage, file) = with_file(4096);
    write(&*file, &[b'b'; 4096], 0);
    let before = storage.content_fingerprint();
    let after = storage.crash(CrashPlan::random(1));
    after.overwrite("f", 0, b"zzz").unwrap();
    after.write_file("g", b"g").unwrap();
    assert_eq!(storage.content_fingerprint(), before);
    file.sync().unwrap();
    assert_eq!(after.read_file("f").unwrap()[..3], *b"zzz");
}

#[test]
fn one_seed_gives_one_run_and_one_set_of_states() {
    let run = |seed| {
        let storage = SimStorage::new(seed);
        storage.inject(Fault::on(OperationKind::Write).nth(3));
        let file = storage.create("f", 65_536, Access::ReadWrite).unwrap();
        storage.sync_directory("").unwrap();
        let mut salt = [0; 16];
        for n in 0..8 {
            storage.fill_random(&mut salt).unwrap();
            let _ = file.write_at(&[&salt, &[n; 5000]], u64::from(n) * 6000, WriteSync::None);
        }
        let crashes = (0..50).map(|seed| storage.crash(CrashPlan::random(seed)));
        let states: Vec<u64> = crashes.map(|after| after.content_fingerprint()).collect();
        (storage.content_fingerprint(), states)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).0, run(8).0);
    assert!(run(7).1.iter().collect::<BTreeSet<_>>().len() > 20);
}

#[test]
fn lives_after_different_crashes_draw_different_random_bytes() {
    let storage = SimStorage::new(1);
    let salt = |storage: &SimStorage| {
        let mut salt = [0; 8];
        storage.fill_random(&mut salt).unwrap();
        salt
    };
    let mut machines = vec![storage.kill(), storage.crash(CrashPlan::keep_everything())];
    machines.push(storage.crash(CrashPlan::lose_everything_unsynced()));
    machines.push(machines[1].crash(CrashPlan::keep_everything()));
    machines.push(machines[3].crash(CrashPlan::keep_everything()));
    machines.extend((0..20).map(|seed| storage.crash(CrashPlan::random(seed))));
    machines.push(storage);
    let salts: BTreeSet<[u8; 8]> = machines.iter().map(salt).collect();
    assert_eq!(salts.len(), machines.len());
}
