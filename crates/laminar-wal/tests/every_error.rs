//! Each variant of `WalError` is produced here once, by something that can happen, and the list is
//! held against the source: a variant that nothing produces is a promise that nobody keeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use laminar_wal::{
    CheckpointDetails, CoreWalWriter, RecoveryTarget, Storage, Wal, WalEntry, WalError, WalOptions,
};
use wal_format::Manifest;
use wal_sim::{Fault, OperationKind, SimStorage};

const ERROR_SOURCE: &str = include_str!("../../wal-storage/src/error.rs");

#[test]
fn every_error_can_happen() {
    let produced: BTreeSet<String> = all_errors().iter().map(name_of).collect();
    assert_eq!(produced, variants(ERROR_SOURCE));
}

#[test]
fn every_error_is_a_sentence_that_says_where() {
    for error in all_errors() {
        let text = error.to_string();
        let says_where = ["core ", "simulated", "checkpoint ", "at least one core"];
        assert!(says_where.iter().any(|place| text.contains(place)), "{error:?}: {text}");
        assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}

// ---- one way to each ----

fn all_errors() -> Vec<WalError> {
    vec![
        record_too_large(),
        writer_taken(),
        core_out_of_range(),
        epoch_regressed(),
        entry_out_of_order(),
        below_checkpoint(),
        checkpoint_open(),
        checkpoint_incomplete(),
        checkpoint_refused(),
        not_a_record_boundary(),
        proof_rejected(),
        invalid_argument(),
        closed(),
        storage_full(),
        locked(),
        not_a_log(),
        foreign_log(),
        unsupported_version(),
        manifest_lost(),
        not_accepted(),
        io(),
        poisoned(),
        corrupt(),
    ]
}

fn record_too_large() -> WalError {
    let (_wal, mut writer) = log(&SimStorage::new(1));
    writer.append_put(b"key", &vec![0; 200_000]).unwrap_err()
}

fn writer_taken() -> WalError {
    let (wal, _writer) = log(&SimStorage::new(1));
    wal.writer(0).unwrap_err()
}

fn core_out_of_range() -> WalError {
    let (wal, _writer) = log(&SimStorage::new(1));
    wal.writer(9).unwrap_err()
}

fn epoch_regressed() -> WalError {
    let (_wal, mut writer) = log(&SimStorage::new(1));
    writer.set_epoch(5).unwrap();
    writer.set_epoch(4).unwrap_err()
}

fn entry_out_of_order() -> WalError {
    let (_wal, mut writer) = log(&SimStorage::new(1));
    writer.append(&WalEntry::put(0, 0, 17, vec![1], vec![2], 0)).unwrap_err()
}

fn below_checkpoint() -> WalError {
    let (wal, mut writer) = log(&SimStorage::new(1));
    writer.append_put(b"key", b"value").unwrap();
    let pending = wal.begin_checkpoint(7).unwrap();
    pending.arrival().arrive(&mut writer).unwrap();
    pending.complete(CheckpointDetails::default()).unwrap();
    writer.truncate(0).unwrap_err()
}

fn checkpoint_open() -> WalError {
    let (wal, _writer) = log(&SimStorage::new(1));
    let _open = wal.begin_checkpoint(7).unwrap();
    wal.begin_checkpoint(8).unwrap_err()
}

fn checkpoint_incomplete() -> WalError {
    let (wal, _writer) = log(&SimStorage::new(1));
    let pending = wal.begin_checkpoint(7).unwrap();
    pending.wait_timeout(Duration::ZERO).unwrap_err()
}

fn checkpoint_refused() -> WalError {
    let (wal, mut writer) = log(&SimStorage::new(1));
    let arrival = wal.begin_checkpoint(7).unwrap().arrival();
    arrival.arrive(&mut writer).unwrap_err()
}

fn not_a_record_boundary() -> WalError {
    let (_wal, mut writer) = log(&SimStorage::new(1));
    writer.append_put(b"key", b"value").unwrap();
    writer.truncate(3).unwrap_err()
}

fn proof_rejected() -> WalError {
    let (_wal, mut writer) = log(&SimStorage::new(1));
    let (_other_wal, mut other) = log(&SimStorage::new(2));
    let proof = other.start_sync().unwrap().run().unwrap();
    writer.mark_synced(proof).unwrap_err()
}

fn invalid_argument() -> WalError {
    options(&SimStorage::new(1)).cores(0).open().unwrap_err()
}

fn closed() -> WalError {
    let (wal, writer) = log(&SimStorage::new(1));
    let watch = writer.watch();
    drop(writer);
    wal.close().unwrap();
    watch.wait_for(1).unwrap_err()
}

fn storage_full() -> WalError {
    let disk = SimStorage::new(1);
    let (_wal, mut writer) = log(&disk);
    disk.set_free_bytes(Some(0));
    loop {
        if let Err(error) = writer.append_put(b"key", &[0; 8000]) {
            return error;
        }
    }
}

fn locked() -> WalError {
    let disk = SimStorage::new(1);
    let _log = log(&disk);
    options(&disk).open().unwrap_err()
}

fn not_a_log() -> WalError {
    let disk = SimStorage::new(1);
    disk.write_file("holiday.jpg", b"beach").unwrap();
    options(&disk).open().unwrap_err()
}

fn foreign_log() -> WalError {
    let (disk, other) = (SimStorage::new(1), SimStorage::new(2));
    closed_log(&disk);
    closed_log(&other);
    let segment = "core-0000/00000000000000000001.wal";
    disk.write_file(segment, &other.read_file(segment).unwrap()).unwrap();
    options(&disk).open().unwrap_err()
}

fn unsupported_version() -> WalError {
    let disk = SimStorage::new(1);
    closed_log(&disk);
    let mut manifest = Manifest::decode(&disk.read_file("MANIFEST.0").unwrap()).unwrap();
    manifest.features.incompatible = 4;
    let mut bytes = manifest.encode().unwrap();
    bytes.resize(64 * 1024, 0);
    for slot in ["MANIFEST.0", "MANIFEST.1"] {
        disk.write_file(slot, &bytes).unwrap();
    }
    options(&disk).open().unwrap_err()
}

fn manifest_lost() -> WalError {
    let disk = SimStorage::new(1);
    closed_log(&disk);
    disk.delete("MANIFEST.0").unwrap();
    disk.delete("MANIFEST.1").unwrap();
    options(&disk).open().unwrap_err()
}

fn not_accepted() -> WalError {
    let disk = SimStorage::new(1);
    closed_log(&disk);
    options(&disk).recovery_target(RecoveryTarget::Timestamp(0)).open().unwrap_err()
}

fn io() -> WalError {
    let disk = SimStorage::new(1);
    disk.inject(Fault::on(OperationKind::CreateDirectory));
    options(&disk).open().unwrap_err()
}

fn poisoned() -> WalError {
    let disk = SimStorage::new(1);
    let (_wal, mut writer) = log(&disk);
    writer.append_put(b"key", b"value").unwrap();
    disk.inject(Fault::on(OperationKind::Write));
    writer.sync().unwrap_err()
}

fn corrupt() -> WalError {
    let disk = SimStorage::new(1);
    closed_log(&disk);
    disk.flip_bit("core-0000/00000000000000000001.wal", 3 * 4096 + 40, 0).unwrap();
    options(&disk).open().unwrap_err()
}

// ---- verbs ----

fn options(disk: &SimStorage) -> WalOptions {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    WalOptions::on_storage(storage).segment_bytes(64 * 1024).max_record_bytes(64 * 1024)
}

fn log(disk: &SimStorage) -> (Wal, CoreWalWriter) {
    let (wal, _) = options(disk).open().unwrap();
    let writer = wal.writer(0).unwrap();
    (wal, writer)
}

/// Four entries, the last of them an epoch barrier.
fn closed_log(disk: &SimStorage) {
    let (wal, mut writer) = log(disk);
    for value in [b"one", b"two", b"six"] {
        writer.append_put(b"key", value).unwrap();
    }
    writer.append_epoch_barrier().unwrap();
    drop(writer);
    wal.close().unwrap();
}

fn name_of(error: &WalError) -> String {
    let debug = format!("{error:?}");
    debug.split([' ', '(', '{']).next().unwrap().to_owned()
}

/// The names of the variants of `WalError`, read from its source.
fn variants(source: &str) -> BTreeSet<String> {
    let body = source.split("pub enum WalError {").nth(1).unwrap();
    let body = body.split("\n}").next().unwrap();
    let is_variant = |line: &&str| {
        line.starts_with("    ") && line[4..].starts_with(|first: char| first.is_ascii_uppercase())
    };
    let names = body.lines().filter(is_variant);
    names.map(|line| line.trim().split([' ', '(', '{', ',']).next().unwrap().to_owned()).collect()
}
