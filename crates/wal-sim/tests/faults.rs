//! Operations that fail, and machines that stop.

#![allow(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::collections::BTreeSet;
use std::time::Duration;

use wal_sim::{CrashPlan, Fault, OperationKind, Part, SimStorage};
use wal_storage::{Access, IoMode, JobKind, Request, Storage, StorageFile, WalError, WriteSync};

fn with_file(seed: u64) -> (SimStorage, Box<dyn StorageFile>) {
    let storage = SimStorage::new(seed);
    storage.write_file("f", &[b'a'; 8192]).unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    (storage, file)
}

fn write(file: &dyn StorageFile, bytes: &[u8], offset: u64) -> Result<(), WalError> {
    file.write_at(&[bytes], offset, WriteSync::None)
}

/// The bytes of "f" after the crash that loses the most, or the least.
fn worst(storage: &SimStorage) -> Vec<u8> {
    storage.crash(CrashPlan::lose_everything_unsynced()).read_file("f").unwrap()
}

fn best(storage: &SimStorage) -> Vec<u8> {
    storage.crash(CrashPlan::keep_everything()).read_file("f").unwrap()
}

fn raw_error(error: &WalError) -> Option<i32> {
    match error {
        WalError::Io { source, .. } => source.raw_os_error(),
        _ => None,
    }
}

#[test]
fn a_failed_sync_drops_for_good_and_the_next_ok_does_not_bring_it_back() {
    let (storage, file) = with_file(1);
    write(&*file, b"dropped", 0).unwrap();
    storage.inject(Fault::on(OperationKind::Sync));
    assert_eq!(raw_error(&file.sync().unwrap_err()), Some(5));
    write(&*file, b"later", 4096).unwrap();
    file.sync().unwrap();
    // The process sees its bytes, and so does the next one ...
    assert_eq!(storage.kill().read_file("f").unwrap()[..7], *b"dropped");
    // ... but no power loss leaves them.
    assert_eq!(best(&storage)[..7], [b'a'; 7]);
    assert_eq!(best(&storage)[4096..4101], *b"later");
    // Writing them again is the way out.
    write(&*file, b"dropped", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(worst(&storage)[..7], *b"dropped");
}

#[test]
fn a_file_that_grew_before_a_failed_sync_may_be_long_and_empty() {
    let (storage, file) = with_file(1);
    write(&*file, &[b'b'; 4096], 8192).unwrap();
    storage.inject(Fault::on(OperationKind::Sync));
    file.sync().unwrap_err();
    assert_eq!(worst(&storage).len(), 8192);
    file.sync().unwrap();
    assert_eq!(worst(&storage)[8192..], [0; 4096]);
}

#[test]
fn a_failed_sync_may_keep_a_part() {
    let mut kept = BTreeSet::new();
    for seed in 0..100 {
        let (storage, file) = with_file(seed);
        write(&*file, b"1", 0).unwrap();
        write(&*file, b"2", 4096).unwrap();
        storage.inject(Fault::on(OperationKind::Sync).done(Part::Random));
        file.sync().unwrap_err();
        assert_eq!(worst(&storage), best(&storage), "nothing is left undecided");
        kept.insert((worst(&storage)[0], worst(&storage)[4096]));
    }
    assert_eq!(kept, BTreeSet::from([(b'a', b'a'), (b'1', b'a'), (b'a', b'2'), (b'1', b'2')]));
}

#[test]
fn a_failed_write_has_written_any_part() {
    let mut sectors = BTreeSet::new();
    for seed in 0..200 {
        let (storage, file) = with_file(seed);
        storage.inject(Fault::on(OperationKind::Write));
        write(&*file, &[b'b'; 1536], 0).unwrap_err();
        let bytes = storage.read_file("f").unwrap();
        sectors.insert([bytes[0], bytes[512], bytes[1024]]);
        assert_eq!(worst(&storage), [b'a'; 8192]);
        assert_eq!(best(&storage), bytes);
    }
    assert_eq!(sectors.len(), 8);
}

#[test]
fn a_short_write_has_written_a_prefix() {
    let mut lengths = BTreeSet::new();
    for seed in 0..200 {
        let (storage, file) = with_file(seed);
        storage.inject(Fault::on(OperationKind::Write).done(Part::Prefix));
        write(&*file, &[b'b'; 2048], 0).unwrap_err();
        let bytes = storage.read_file("f").unwrap();
        let length = bytes.iter().position(|byte| *byte == b'a').unwrap();
        assert!(bytes[length..].iter().all(|byte| *byte == b'a'));
        lengths.insert(length);
    }
    assert_eq!(lengths, BTreeSet::from([0, 512, 1024, 1536, 2048]));
}

#[test]
fn a_failed_write_through_leaves_each_part_durable_or_pending_or_dropped() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let (storage, file) = with_file(seed);
        storage.inject(Fault::on(OperationKind::Write));
        file.write_at(&[&[b'b'; 512]], 0, WriteSync::Through).unwrap_err();
        outcomes.insert((
            storage.read_file("f").unwrap()[0],
            worst(&storage)[0],
            best(&storage)[0],
        ));
    }
    let expected = [(b'a', b'a', b'a'), (b'b', b'a', b'a'), (b'b', b'a', b'b'), (b'b', b'b', b'b')];
    assert_eq!(outcomes, BTreeSet::from(expected));
}

#[test]
fn an_error_may_be_wrong() {
    let (storage, file) = with_file(1);
    write(&*file, b"b", 0).unwrap();
    storage.inject(Fault::on(OperationKind::Sync).done(Part::Everything));
    file.sync().unwrap_err();
    assert_eq!(worst(&storage)[0], b'b');
    storage.inject(Fault::on(OperationKind::Remove).done(Part::Everything));
    storage.remove("f").unwrap_err();
    assert!(storage.names().is_empty());
    storage.inject(Fault::on(OperationKind::Create).done(Part::Everything));
    storage.create("g", 10, Access::ReadWrite).unwrap_err();
    assert_eq!(storage.names(), ["g"]);
}

#[test]
fn faults_wait_for_the_nth_operation_that_fits_and_then_pass() {
    let (storage, file) = with_file(1);
    storage.inject(Fault::on(OperationKind::Sync).nth(1));
    storage.inject(Fault::on(OperationKind::Rename).named("x"));
    file.sync().unwrap();
    write(&*file, b"b", 0).unwrap();
    file.sync().unwrap_err();
    file.sync().unwrap();
    storage.rename("f", "g").unwrap();
    storage.rename("g", "x1").unwrap_err();
    storage.rename("g", "x1").unwrap();
    assert_eq!(storage.faults_hit(), 2);
}

#[test]
fn a_sticky_fault_stays_until_it_is_cleared() {
    let (storage, file) = with_file(1);
    storage.inject(Fault::on_any_change().named("f").sticky().storage_full());
    for _ in 0..3 {
        assert!(write(&*file, b"b", 0).unwrap_err().is_storage_full());
        // After a failed sync more may be lost than what did not fit.
        let error = file.sync().unwrap_err();
        assert!(matches!(&error, WalError::Io { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull));
    }
    file.read_at(&mut [0; 10], 0).unwrap();
    storage.create("g", 0, Access::ReadWrite).unwrap();
    storage.clear_faults();
    file.sync().unwrap();
    assert_eq!(storage.faults_hit(), 6);
}

#[test]
fn a_slow_operation_takes_time_and_does_not_fail() {
    let (storage, file) = with_file(1);
    let (boot, wall) = (storage.now(), storage.wall_clock_ns());
    let slow = |ms| Fault::on(OperationKind::Sync).slow(Duration::from_millis(ms));
    storage.inject(slow(5).nth(1).sticky());
    storage.inject(slow(2).named("f"));
    file.sync().unwrap();
    assert_eq!(storage.now() - boot, Duration::from_millis(2));
    file.sync().unwrap();
    write(&*file, b"b", 0).unwrap();
    assert_eq!(storage.now() - boot, Duration::from_millis(7));
    // What is slow may fail as well.
    storage.inject(Fault::on(OperationKind::Sync));
    file.sync().unwrap_err();
    assert_eq!(storage.now() - boot, Duration::from_millis(12));
    assert_eq!(storage.wall_clock_ns() - wall, 12_000_000);
    assert_eq!(storage.faults_hit(), 1, "only what failed is counted");
}

#[test]
fn every_kind_of_operation_can_fail_and_is_counted() {
    for kind in OperationKind::ALL {
        let (storage, file) = with_file(1);
        let before = storage.operations_of(kind);
        storage.inject(Fault::on(kind));
        let error = match kind {
            OperationKind::Open => storage.open("f", Access::Read).unwrap_err(),
            OperationKind::Read => file.read_at(&mut [0; 10], 0).unwrap_err(),
            OperationKind::List => storage.list("").unwrap_err(),
            OperationKind::Create => storage.create("g", 0, Access::ReadWrite).unwrap_err(),
            OperationKind::CreateReserved => {
                storage.create_reserved("g", 0, Access::ReadWrite).unwrap_err()
            }
            OperationKind::CreateDirectory => storage.create_directory("d").unwrap_err(),
            OperationKind::Write => write(&*file, b"b", 0).unwrap_err(),
            OperationKind::Sync => file.sync().unwrap_err(),
            OperationKind::SyncDirectory => storage.sync_directory("").unwrap_err(),
            OperationKind::Rename => storage.rename("f", "g").unwrap_err(),
            OperationKind::Remove => storage.remove("f").unwrap_err(),
            _ => unreachable!("{kind:?}"),
        };
        assert_eq!(raw_error(&error), Some(5), "{kind:?}");
        assert!(error.path().unwrap().starts_with(storage.path()), "{error}");
        assert_eq!(storage.operations_of(kind), before + 1);
        assert_eq!(storage.names(), ["f"], "{kind:?} leaves the names alone");
    }
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let (storage, file) = with_file(1);
    storage.set_free_bytes(Some(2 * 4096));
    assert!(storage.create("g", 3 * 4096, Access::ReadWrite).unwrap_err().is_storage_full());
    assert_eq!(storage.names(), ["f"], "no file stays behind");
    write(&*file, &[b'b'; 8192], 0).unwrap();
    assert_eq!(storage.free_bytes().unwrap(), 8192);
    write(&*file, &[b'c'; 4096], 8192).unwrap();
    assert_eq!(storage.free_bytes().unwrap(), 4096);
    assert!(write(&*file, &[b'd'; 8192], 12_288).unwrap_err().is_storage_full());
    write(&*file, &[b'e'; 12_288], 0).unwrap();
    storage.rename("f", "h").unwrap();
    file.sync().unwrap();
    storage.sync_directory("").unwrap();
    storage.set_free_bytes(Some(0));
    assert!(storage.create("g", 1, Access::ReadWrite).unwrap_err().is_storage_full());
    storage.set_free_bytes(None);
    storage.create("g", 1 << 30, Access::ReadWrite).unwrap();
}

#[test]
fn a_write_that_fills_the_disk_has_written_any_part_that_fits() {
    let mut sizes = BTreeSet::new();
    for seed in 0..100 {
        let (storage, file) = with_file(seed);
        storage.set_free_bytes(Some(4096));
        assert!(write(&*file, &[b'b'; 8192], 8192).unwrap_err().is_storage_full());
        let size = file.size_bytes().unwrap();
        assert!(size <= 12_288);
        assert_eq!(storage.free_bytes().unwrap(), if size > 8192 { 0 } else { 4096 });
        sizes.insert(size);
    }
    assert!(sizes.contains(&8192) && sizes.contains(&12_288) && sizes.len() > 3);
}

#[test]
fn space_comes_back_when_the_last_name_and_the_last_handle_are_gone() {
    let (storage, file) = with_file(1);
    storage.set_free_bytes(Some(0));
    storage.remove("f").unwrap();
    assert_eq!(storage.free_bytes().unwrap(), 0, "still open");
    assert_eq!(storage.fork().free_bytes().unwrap(), 8192, "a copy has no open files");
    drop(file);
    assert_eq!(storage.free_bytes().unwrap(), 8192);
    storage.create("a", 4096, Access::ReadWrite).unwrap();
    storage.create("b", 4096, Access::ReadWrite).unwrap();
    storage.rename("a", "b").unwrap();
    assert_eq!(storage.free_bytes().unwrap(), 4096, "replaced");
    let after = storage.crash(CrashPlan::keep_everything());
    assert_eq!(after.free_bytes().unwrap(), 4096);
    storage.sync_directory("").unwrap();
    assert_eq!(storage.free_bytes().unwrap(), 4096);
}

/// Eight operations, each of which changes something.
fn workload(storage: &SimStorage) -> Result<(), WalError> {
    storage.create_directory("d")?;
    let file = storage.create("d/new", 8192, Access::ReadWrite)?;
    file.sync()?;
    write(&*file, &[b'b'; 8192], 0)?;
    file.sync()?;
    storage.rename("d/new", "d/current")?;
    storage.sync_directory("d")?;
    storage.sync_directory("")
}

#[test]
fn a_halted_machine_changes_nothing_any_more() {
    let counted = SimStorage::new(1);
    workload(&counted).unwrap();
    assert_eq!(counted.operations(), 8);
    for n in 0..8 {
        let storage = SimStorage::new(1);
        storage.write_file("f", b"bytes").unwrap();
        let file = storage.open("f", Access::ReadWrite).unwrap();
        storage.halt_at(n + 1);
        workload(&storage).unwrap_err();
        assert!(storage.is_halted());
        let before = storage.content_fingerprint();
        workload(&storage).unwrap_err();
        write(&*file, b"x", 0).unwrap_err();
        file.sync().unwrap_err();
        file.size_bytes().unwrap_err();
        file.read_at(&mut [0; 4], 0).unwrap_err();
        storage.open("f", Access::Read).unwrap_err();
        storage.list("").unwrap_err();
        storage.remove("f").unwrap_err();
        storage.lock().unwrap_err();
        storage.free_bytes().unwrap_err();
        assert_eq!(storage.content_fingerprint(), before);
        assert_eq!(storage.operations(), n + 2, "what a standing machine refuses is not counted");
        // The next machine runs.
        workload(&storage.crash(CrashPlan::lose_everything_unsynced())).unwrap();
    }
}

#[test]
fn a_halt_in_a_write_leaves_a_part_of_it_pending() {
    let mut sectors = BTreeSet::new();
    for seed in 0..200 {
        let (storage, file) = with_file(seed);
        storage.halt_at(1);
        file.write_at(&[&[b'b'; 1024]], 0, WriteSync::Through).unwrap_err();
        sectors.insert((best(&storage)[0], best(&storage)[512]));
        assert_eq!(worst(&storage)[..], [b'a'; 8192]);
    }
    assert_eq!(sectors.len(), 4);
}

#[test]
fn a_halt_in_a_change_of_names_leaves_it_done_or_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let (storage, _file) = with_file(seed);
        storage.halt_at(1);
        storage.rename("f", "g").unwrap_err();
        seen.insert(storage.names());
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn snapshots_show_every_moment_of_one_run() {
    let storage = SimStorage::new(1);
    storage.snapshot_each_change(true);
    workload(&storage).unwrap();
    let snapshots = storage.take_snapshots();
    let numbers: Vec<u64> = snapshots.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
    // Each is the machine that a halt at that operation would leave, before the operation.
    assert!(snapshots[1].1.names().is_empty());
    assert_eq!(snapshots[2].1.names(), ["d/new"]);
    assert_eq!(snapshots[4].1.read_file("d/new").unwrap()[0], b'b');
    let lost = snapshots[7].1.crash(CrashPlan::lose_everything_unsynced());
    assert!(lost.names().is_empty(), "the directory itself is not durable yet");
    let again = SimStorage::new(1);
    again.snapshot_at(4);
    workload(&again).unwrap();
    let [(4, only)] = &again.take_snapshots()[..] else { panic!("one snapshot, at 4") };
    assert_eq!(only.content_fingerprint(), snapshots[4].1.content_fingerprint());
}

#[test]
fn a_trace_tells_what_was_asked() {
    let storage = SimStorage::new(1);
    storage.set_tracing(true);
    workload(&storage).unwrap();
    let trace = storage.take_trace();
    let kinds: Vec<OperationKind> = trace.iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == OperationKind::Sync).count(), 2);
    assert_eq!((trace[3].name.as_str(), trace[3].range.clone()), ("d/new", 0..8192));
    assert!(storage.take_trace().is_empty());
}

#[test]
fn joint_requests_keep_their_results_apart_and_come_in_any_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let storage = SimStorage::new(seed);
        let [a, b, c] =
            ["a", "b", "c"].map(|name| storage.create(name, 0, Access::ReadWrite).unwrap());
        storage.inject(Fault::on(OperationKind::Write).named("b"));
        storage.set_tracing(true);
        let slices: [&[u8]; 1] = [b"x"];
        let write =
            |file| Request::Write { file, slices: &slices, offset: 0, sync: WriteSync::None };
        let results = storage.perform(&[write(&*a), write(&*b), Request::Sync { file: &*c }]);
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        let trace = storage.take_trace();
        assert!(trace.iter().all(|o| (o.kind == OperationKind::Sync) == (o.name == "c")));
        orders.insert(trace.into_iter().map(|o| o.name).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_sync_beside_a_write_to_the_same_file_promises_nothing_of_it() {
    let survives = |seed| {
        let (storage, file) = with_file(seed);
        let write =
            Request::Write { file: &*file, slices: &[b"x"], offset: 0, sync: WriteSync::None };
        let results = storage.perform(&[write, Request::Sync { file: &*file }]);
        assert!(results.iter().all(Result::is_ok));
        worst(&storage)[0] == b'x'
    };
    let survivors = (0..50).filter(|&seed| survives(seed)).count();
    assert!((1..50).contains(&survivors), "{survivors} of 50: the order is always the same");
}

#[test]
fn direct_files_refuse_what_is_not_aligned() {
    #[repr(align(4096))]
    struct Aligned([u8; 8192]);
    let storage = SimStorage::new(1);
    let file = storage.create("f", 8192, Access::ReadWriteDirect).unwrap();
    assert_eq!(file.mode(), IoMode::Direct);
    let mut page = Box::new(Aligned([b'x'; 8192]));
    file.write_at(&[&page.0[..4096], &page.0[4096..]], 0, WriteSync::None).unwrap();
    assert_eq!(file.read_at(&mut page.0, 4096).unwrap(), 4096);
    for (slice, offset) in [(&page.0[..4096], 512), (&page.0[..512], 0), (&page.0[1..4097], 0)] {
        file.write_at(&[slice], offset, WriteSync::None).unwrap_err();
    }
    file.read_at(&mut page.0[..100], 0).unwrap_err();
    assert_eq!(storage.open("f", Access::ReadWrite).unwrap().mode(), IoMode::Buffered);
    storage.set_mode(IoMode::Buffered);
    let buffered = storage.open("f", Access::ReadWriteDirect).unwrap();
    assert_eq!(buffered.mode(), IoMode::Buffered);
    buffered.write_at(&[b"odd"], 3, WriteSync::None).unwrap();
    storage.set_mode(IoMode::Direct);
    storage.write_file("g", b"no whole block").unwrap();
    assert_eq!(storage.open("g", Access::ReadWriteDirect).unwrap().mode(), IoMode::Buffered);
}

#[test]
fn a_file_opened_for_reading_cannot_be_written() {
    let (storage, _) = with_file(1);
    let file = storage.open("f", Access::Read).unwrap();
    write(&*file, b"x", 0).unwrap_err();
    assert_eq!(storage.read_file("f").unwrap(), [b'a'; 8192]);
}

#[test]
fn an_offset_out_of_this_world_is_an_error() {
    let (storage, file) = with_file(1);
    write(&*file, b"x", u64::MAX - 1).unwrap_err();
    storage.create("g", u64::MAX, Access::ReadWrite).unwrap_err();
    assert_eq!(file.read_at(&mut [0; 8], u64::MAX - 1).unwrap(), 0);
}

#[test]
fn jobs_of_a_machine_do_not_follow_it_through_a_crash() {
    let (storage, _) = with_file(1);
    storage.spawn(JobKind::Lead, Duration::ZERO, std::sync::Arc::new(|| {})).unwrap();
    assert_eq!(storage.crash(CrashPlan::keep_everything()).pending_jobs(), 0);
    assert_eq!(storage.kill().pending_jobs(), 0);
    assert_eq!(storage.pending_jobs(), 1);
}
