//! Logs that earlier versions wrote, kept for ever: every later version reads them, and goes on in
//! them.
//!
//! Each directory in `golden` is a log, with what it holds in `entries.txt` and how it ends in
//! `endings.txt` beside it. They are never written again. A new version of the format adds new
//! ones: `LAMINAR_WAL_WRITE_GOLDEN=some/empty/directory cargo test --test golden_directories`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use laminar_wal::{
    CoreSelection, LogOptions, Offsets, Recovery, RecoveryMode, Storage, Wal, WalOptions,
};
use wal_sim::fixture::LogFixture;
use wal_sim::{CrashPlan, SimStorage};

#[test]
fn every_log_that_was_ever_written_is_read_as_it_was_meant() {
    for directory in golden_directories() {
        let recovery = laminar_wal::read(directory.join("log"), RecoveryMode::TornTail).unwrap();
        let expected = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
        assert_eq!(entries(&recovery), expected("entries.txt"), "{}", directory.display());
        assert_eq!(endings(&recovery), expected("endings.txt"), "{}", directory.display());
    }
}

#[test]
fn every_log_that_was_ever_written_can_be_gone_on_in() {
    for directory in golden_directories() {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(&directory.join("log"), copy.path());
        let before = entries(&laminar_wal::read(copy.path(), RecoveryMode::TornTail).unwrap());
        let (wal, _) = WalOptions::new(copy.path()).cores(2).open().unwrap();
        let mut writer = wal.writer(0).unwrap();
        let sequence = writer.sequence();
        writer.append_put(b"written", b"by a later version").unwrap();
        writer.close().unwrap();
        wal.close().unwrap();
        let recovery = laminar_wal::read(copy.path(), RecoveryMode::TornTail).unwrap();
        let after = entries(&recovery);
        let added: Vec<&str> =
            after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
        assert_eq!(added.len(), 1, "{}: {added:?}", directory.display());
        assert!(added[0].contains(&format!("sequence: {sequence}")), "{added:?}");
    }
}

#[test]
fn golden_directories_are_written_on_request_alone() {
    let Some(target) = std::env::var_os("LAMINAR_WAL_WRITE_GOLDEN") else { return };
    for (name, disk) in [
        ("v1-closed", written(true)),
        ("v1-crashed", written(false).crash(CrashPlan::lose_everything_unsynced())),
        ("v1-every-kind", every_kind()),
    ] {
        let directory = PathBuf::from(&target).join(name);
        fs::create_dir_all(directory.join("log")).unwrap();
        disk.to_directory(directory.join("log")).unwrap();
        let recovery = laminar_wal::read(directory.join("log"), RecoveryMode::TornTail).unwrap();
        fs::write(directory.join("entries.txt"), entries(&recovery)).unwrap();
        fs::write(directory.join("endings.txt"), endings(&recovery)).unwrap();
    }
}

/// Two cores, several openings, a rotation, a cut, every operation.
fn written(closed: bool) -> SimStorage {
    let disk = SimStorage::new(7);
    disk.set_wall_clock_ns(1_790_000_000_000_000_000);
    let open = || {
        let options = LogOptions {
            segment_bytes: 24 * 1024,
            max_record_bytes: 8192,
            batch_bytes: 4096,
            in_flight_bytes: 8192,
            ..LogOptions::default()
        };
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        Wal::open(storage, options, CoreSelection::First(2)).unwrap().0
    };
    let wal = open();
    let mut writers = wal.writers().unwrap();
    let mut offsets = Offsets::new();
    offsets.set("orders", 3);
    offsets.set("a source with a long name", u64::MAX);
    for n in 0..8_u8 {
        for writer in writers.iter_mut() {
            writer.append_put(&[n], &vec![n; usize::from(n) * 100]).unwrap();
            writer.append_delete(&[n, n]).unwrap();
            writer.append_commit(&offsets, (n > 3).then_some(-5)).unwrap();
            writer.sync().unwrap();
        }
        disk.run_jobs();
    }
    writers.append_epoch_barrier().unwrap();
    drop(writers);
    wal.close().unwrap();

    let wal = open();
    let mut writer = wal.writer(1).unwrap();
    writer.append_checkpoint(9).unwrap();
    let boundary = writer.position();
    writer.append_put(b"cut", b"away").unwrap();
    writer.truncate(boundary).unwrap();
    writer.append_put(b"behind", b"the cut").unwrap();
    writer.sync().unwrap();
    if closed {
        drop(writer);
        wal.close().unwrap();
        disk
    } else {
        writer.append_put(b"never", b"synced").unwrap();
        let at_the_crash = disk.fork();
        drop(writer);
        at_the_crash
    }
}

/// What no writer of this version writes yet, or only after long: atomic batches, kinds that may
/// be skipped, a torn batch, core directories beyond the members.
fn every_kind() -> SimStorage {
    let mut log = LogFixture::new(*b"golden log no. 3");
    let segment = log.core(0).segment();
    segment.put(b"a", b"1").mark(0).batch(&[(b"b", b"2"), (b"c", b"3")]);
    let durable = segment.position();
    segment.mark(durable).record(wal_format::RecordKind::Skippable(8), &[1; 16]);
    segment.put_with_checksum(b"checksum zero", 0).seal();
    let segment = log.core(0).segment();
    let durable = segment.position();
    segment.mark(durable).put(b"d", b"4").vouch();
    let durable = segment.position();
    segment.mark(durable).put(b"torn", &[9; 64]).ends_here();
    log.core(5).segment().put(b"retired", b"core").close();
    let mut image = log.finish();
    let torn = wal_sim::fixture::segment_name(0, 2);
    image.zero_from(&torn, 12288 + 200);
    let disk = SimStorage::new(1);
    image.install(&disk).unwrap();
    disk
}

fn entries(recovery: &Recovery) -> String {
    let mut text = String::new();
    recovery.for_each(|entry| writeln!(text, "{:?}", entry.to_entry()).unwrap()).unwrap();
    text
}

fn endings(recovery: &Recovery) -> String {
    let mut text = String::new();
    for core in &recovery.report().cores {
        writeln!(
            text,
            "core {}: {} at {}, {:?}",
            core.core, core.ending.label, core.end_position, core.ending.kind
        )
        .unwrap();
    }
    text
}

fn golden_directories() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut directories: Vec<PathBuf> =
        fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    assert!(directories.len() >= 3, "{directories:?}");
    directories
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
