//! Jobs, clocks, the lock, damage, copies of a machine.

#![allow(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wal_sim::{CrashPlan, Fault, OperationKind, SimStorage};
use wal_storage::{Access, JobKind, Storage, WalError, WriteSync};

type Ran = Arc<Mutex<Vec<&'static str>>>;

fn spawn(storage: &SimStorage, ran: &Ran, kind: JobKind, delay_ms: u64, label: &'static str) {
    let ran = ran.clone();
    let job = Arc::new(move || ran.lock().unwrap().push(label));
    storage.spawn(kind, Duration::from_millis(delay_ms), job).unwrap();
}

#[test]
fn jobs_run_when_told_to_and_when_due() {
    let storage = SimStorage::new(1);
    let ran = Ran::default();
    spawn(&storage, &ran, JobKind::Lead, 10, "late");
    spawn(&storage, &ran, JobKind::Lead, 5, "early");
    spawn(&storage, &ran, JobKind::Lead, 5, "second");
    assert_eq!(storage.run_jobs(), 0);
    assert_eq!(storage.next_job_due(), Some(Duration::from_millis(5)));
    storage.advance(Duration::from_millis(5));
    assert!(ran.lock().unwrap().is_empty(), "time alone runs nothing");
    assert!(storage.run_one_job());
    assert_eq!(*ran.lock().unwrap(), ["early"]);
    storage.advance(Duration::from_millis(5));
    assert_eq!((storage.pending_jobs(), storage.run_jobs()), (2, 2));
    assert_eq!(*ran.lock().unwrap(), ["early", "second", "late"]);
}

#[test]
fn the_seed_orders_kinds_and_due_times_order_each_kind() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let storage = SimStorage::new(seed);
        let ran = Ran::default();
        spawn(&storage, &ran, JobKind::Lead, 0, "lead 1");
        spawn(&storage, &ran, JobKind::Prepare, 0, "prepare 1");
        spawn(&storage, &ran, JobKind::Lead, 0, "lead 2");
        spawn(&storage, &ran, JobKind::Prepare, 0, "prepare 2");
        assert_eq!(storage.pending_jobs_of(JobKind::Prepare), 2);
        assert_eq!(storage.run_jobs(), 4);
        let ran = ran.lock().unwrap().clone();
        let at = |label| ran.iter().position(|ran| *ran == label).unwrap();
        assert!(at("lead 1") < at("lead 2") && at("prepare 1") < at("prepare 2"));
        orders.insert(ran);
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_job_may_spawn_jobs_use_the_storage_and_run_other_kinds() {
    let storage = SimStorage::new(1);
    let ran = Ran::default();
    let (inner, log) = (storage.clone(), ran.clone());
    let job = move || {
        inner.create("f", 0, Access::ReadWrite).unwrap();
        spawn(&inner, &log, JobKind::Lead, 0, "lead");
        spawn(&inner, &log, JobKind::Prepare, 0, "prepare");
        inner.run_jobs();
        log.lock().unwrap().push("outer");
    };
    storage.spawn(JobKind::Lead, Duration::ZERO, Arc::new(job)).unwrap();
    assert_eq!(storage.run_jobs(), 2);
    assert_eq!(*ran.lock().unwrap(), ["prepare", "outer", "lead"]);
    assert_eq!(storage.names(), ["f"]);
}

#[test]
fn a_job_that_panics_ends_alone() {
    let storage = SimStorage::new(1);
    let ran = Ran::default();
    storage.spawn(JobKind::Lead, Duration::ZERO, Arc::new(|| panic!("as planned"))).unwrap();
    spawn(&storage, &ran, JobKind::Lead, 0, "next");
    assert_eq!(storage.run_jobs(), 2);
    assert_eq!((storage.jobs_panicked(), ran.lock().unwrap().len()), (1, 1));
    spawn(&storage, &ran, JobKind::Lead, 0, "forgotten");
    assert_eq!((storage.forget_jobs(), storage.run_jobs()), (1, 0));
}

#[test]
fn clocks_move_only_when_told_to() {
    let storage = SimStorage::new(1);
    let (start, wall) = (storage.now(), storage.wall_clock_ns());
    storage.create("f", 4096, Access::ReadWrite).unwrap();
    assert_eq!((storage.now(), storage.wall_clock_ns()), (start, wall));
    storage.advance(Duration::from_nanos(7));
    assert_eq!(storage.now() - start, Duration::from_nanos(7));
    assert_eq!(storage.wall_clock_ns(), wall + 7);
    storage.step_wall_clock(-100);
    assert_eq!(storage.wall_clock_ns(), wall - 93);
    storage.set_wall_clock_ns(-5);
    assert_eq!((storage.now() - start, storage.wall_clock_ns()), (Duration::from_nanos(7), -5));
    // A new process finds both as they were, a new boot starts one of them anew.
    assert_eq!(storage.kill().now(), storage.now());
    let after = storage.crash(CrashPlan::keep_everything());
    assert_eq!((after.now(), after.wall_clock_ns()), (Duration::ZERO, -5));
}

#[test]
fn the_lock_has_one_holder_and_a_crash_frees_it() {
    let storage = SimStorage::new(1);
    let lock = storage.lock().unwrap();
    let second = lock.clone();
    assert!(matches!(storage.clone().lock(), Err(WalError::Locked { .. })));
    drop(lock);
    storage.lock().unwrap_err();
    storage.kill().lock().unwrap();
    storage.crash(CrashPlan::keep_everything()).lock().unwrap();
    drop(second);
    storage.lock().unwrap();
}

#[test]
fn a_fork_goes_on_exactly_as_its_origin() {
    let storage = SimStorage::new(3);
    let file = storage.create("f", 65_536, Access::ReadWrite).unwrap();
    storage.sync_directory("").unwrap();
    file.write_at(&[&[1; 5000]], 0, WriteSync::None).unwrap();
    storage.inject(Fault::on(OperationKind::Write).nth(1));
    let fork = storage.fork();
    assert_eq!(fork.operations(), storage.operations());
    let go_on = |storage: &SimStorage| {
        let file = storage.open("f", Access::ReadWrite).unwrap();
        file.write_at(&[&[2; 20_000]], 10_000, WriteSync::None).unwrap();
        file.write_at(&[&[3; 20_000]], 15_000, WriteSync::None).unwrap_err();
        let mut salt = [0; 8];
        storage.fill_random(&mut salt).unwrap();
        let crash = storage.crash(CrashPlan::random(1)).content_fingerprint();
        (storage.content_fingerprint(), crash, salt)
    };
    assert_eq!(go_on(&storage), go_on(&fork));
    fork.write_file("g", b"only here").unwrap();
    assert_eq!(storage.names(), ["f"]);
}

#[test]
fn damage_is_durable_at_once_and_seen_at_once() {
    let storage = SimStorage::new(1);
    storage.write_file("d/f", &[b'a'; 3 * 4096]).unwrap();
    let file = storage.open("d/f", Access::ReadWrite).unwrap();
    file.write_at(&[&[b'b'; 4096]], 0, WriteSync::None).unwrap();
    storage.flip_bit("d/f", 10, 1).unwrap();
    storage.overwrite("d/f", 20, b"xyz").unwrap();
    storage.zero("d/f", 30..40).unwrap();
    storage.overwrite("d/f", 4096, &[b'c'; 4096]).unwrap();
    storage.copy_block(("d/f", 1), ("d/f", 2)).unwrap();
    for plan in [CrashPlan::lose_everything_unsynced(), CrashPlan::keep_everything()] {
        let bytes = storage.crash(plan).read_file("d/f").unwrap();
        assert_eq!(bytes[10], b'b' ^ 2);
        assert_eq!(bytes[20..23], *b"xyz");
        assert_eq!(bytes[30..40], [0; 10]);
        assert_eq!(bytes[4096..], [b'c'; 8192]);
    }
    let worst = storage.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(worst.read_file("d/f").unwrap()[11], b'a', "other bytes stay pending");
    storage.truncate_file("d/f", 5).unwrap();
    assert_eq!(file.size_bytes().unwrap(), 5);
    storage.truncate_file("d/f", 8).unwrap();
    let worst = storage.crash(CrashPlan::keep_everything());
    assert_eq!(worst.read_file("d/f").unwrap()[5..], [0; 3]);
    storage.delete("d/f").unwrap();
    assert!(storage.crash(CrashPlan::keep_everything()).names().is_empty());
}

#[test]
fn a_write_that_went_astray_or_was_never_done_is_as_durable_as_any() {
    let storage = SimStorage::new(1);
    storage.write_file("f", &[b'a'; 8192]).unwrap();
    storage.write_file("g", &[b'g'; 8192]).unwrap();
    let earlier = storage.fork();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    file.write_at(&[&[b'b'; 8192]], 0, WriteSync::None).unwrap();
    file.sync().unwrap();
    storage.copy_sector(("g", 3), ("f", 1)).unwrap();
    storage.make_stale("f", 2048..2560, &earlier).unwrap();
    for plan in [CrashPlan::lose_everything_unsynced(), CrashPlan::keep_everything()] {
        let bytes = storage.crash(plan).read_file("f").unwrap();
        assert_eq!(bytes[..512], [b'b'; 512]);
        assert_eq!(bytes[512..1024], [b'g'; 512]);
        assert_eq!(bytes[1024..2048], [b'b'; 1024]);
        assert_eq!(bytes[2048..2560], [b'a'; 512]);
        assert_eq!(bytes[2560..], [b'b'; 5632]);
    }
}

#[test]
fn swapped_files_stay_swapped() {
    let storage = SimStorage::new(1);
    storage.write_file("d/f", b"long bytes").unwrap();
    storage.write_file("g", b"short").unwrap();
    storage.swap_files("d/f", "g").unwrap();
    for plan in [CrashPlan::lose_everything_unsynced(), CrashPlan::keep_everything()] {
        let after = storage.crash(plan);
        assert_eq!(after.read_file("d/f").unwrap(), b"short");
        assert_eq!(after.read_file("g").unwrap(), b"long bytes");
    }
}

#[test]
fn no_crash_undoes_damage() {
    let storage = SimStorage::new(1);
    storage.write_file("f", b"").unwrap();
    let file = storage.open("f", Access::ReadWrite).unwrap();
    file.write_at(&[&[1; 10_000]], 0, WriteSync::None).unwrap();
    storage.truncate_file("f", 100).unwrap();
    storage.create("gone", 0, Access::ReadWrite).unwrap();
    storage.delete("gone").unwrap();
    storage.create("made", 0, Access::ReadWrite).unwrap();
    storage.write_file("made", b"made").unwrap();
    for seed in 0..100 {
        let after = storage.crash(CrashPlan::random(seed));
        assert_eq!(after.names(), ["f", "made"]);
        assert_eq!(after.read_file("f").unwrap().len(), 100);
        assert_eq!(after.read_file("made").unwrap(), b"made");
    }
}

#[test]
fn damage_out_of_place_is_an_error() {
    let storage = SimStorage::new(1);
    storage.write_file("f", b"1234").unwrap();
    assert!(storage.read_file("g").unwrap_err().is_not_found());
    assert!(storage.delete("g").unwrap_err().is_not_found());
    assert!(storage.swap_files("f", "g").unwrap_err().is_not_found());
    for error in [
        storage.flip_bit("f", 4, 0).unwrap_err(),
        storage.overwrite("f", 3, b"ab").unwrap_err(),
        storage.zero("f", 0..5).unwrap_err(),
        storage.copy_block(("f", 0), ("f", 0)).unwrap_err(),
        storage.copy_sector(("f", 0), ("f", 0)).unwrap_err(),
        storage
            .make_stale("f", 0..4, &{
                let earlier = storage.fork();
                earlier.truncate_file("f", 3).unwrap();
                earlier
            })
            .unwrap_err(),
    ] {
        assert!(matches!(error, WalError::InvalidArgument { .. }), "{error}");
    }
    storage.write_file("", b"").unwrap_err();
    storage.write_file("../f", b"").unwrap_err();
    assert_eq!(storage.read_file("f").unwrap(), b"1234");
}

#[test]
fn the_fingerprint_sees_names_and_bytes_and_no_reading() {
    let storage = SimStorage::new(1);
    storage.write_file("d/f", &[1; 5000]).unwrap();
    let before = storage.content_fingerprint();
    let file = storage.open("d/f", Access::ReadWrite).unwrap();
    file.read_at(&mut [0; 100], 0).unwrap();
    file.sync().unwrap();
    storage.list("d").unwrap();
    assert_eq!(storage.content_fingerprint(), before);
    storage.rename("d/f", "d/g").unwrap();
    assert_ne!(storage.content_fingerprint(), before);
    storage.rename("d/g", "d/f").unwrap();
    assert_eq!(storage.content_fingerprint(), before);
    storage.flip_bit("d/f", 4999, 7).unwrap();
    assert_ne!(storage.content_fingerprint(), before);
    storage.flip_bit("d/f", 4999, 7).unwrap();
    storage.create_directory("empty").unwrap();
    assert_ne!(storage.content_fingerprint(), before);
}

#[test]
fn a_disk_survives_the_way_to_a_real_directory_and_back() {
    let path = std::env::temp_dir().join(format!("wal-sim-export-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let storage = SimStorage::new(1);
    storage.write_file("MANIFEST.0", b"one").unwrap();
    storage.write_file("core-0000/1.wal", &[7; 100_000]).unwrap();
    storage.create_directory("empty").unwrap();
    storage.to_directory(&path).unwrap();
    assert_eq!(std::fs::read(path.join("MANIFEST.0")).unwrap(), b"one");
    let back = SimStorage::from_directory(9, &path).unwrap();
    assert_eq!(back.content_fingerprint(), storage.content_fingerprint());
    let worst = back.crash(CrashPlan::lose_everything_unsynced());
    assert_eq!(worst.content_fingerprint(), storage.content_fingerprint());
    std::fs::remove_dir_all(&path).unwrap();
    SimStorage::from_directory(9, &path).unwrap_err();
}

#[test]
fn large_empty_files_and_copies_of_them_are_cheap() {
    let started = Instant::now();
    let storage = SimStorage::new(1);
    for n in 0..64 {
        let file = storage.create(&format!("{n}"), 64 << 20, Access::ReadWrite).unwrap();
        file.sync().unwrap();
        file.write_at(&[&[1; 4096]], n << 20, WriteSync::Through).unwrap();
    }
    storage.sync_directory("").unwrap();
    let forks: Vec<SimStorage> = (0..100).map(|_| storage.fork()).collect();
    assert_eq!(forks[99].names().len(), 64);
    // 4 GiB and 400 GiB of copies; a generous bound, only to notice a real copy.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
