//! The logs whose directories are done to: made once, forked for each input.

use std::sync::LazyLock;

use laminar_wal::{CheckpointDetails, WalOptions};
use wal_entry::{Offsets, WalEntry};
use wal_recovery::{RecoveryMode, recover};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

use crate::disk::storage;
use crate::segment_scan;

/// A log, and everything that was logged.
pub(super) struct Log {
    pub(super) disk: SimStorage,
    pub(super) logged: Vec<WalEntry>,
}

/// Four logs: built record by record; written, cut, and lost in a crash; closed after a rotation;
/// lost in a crash behind a checkpoint that gave segments back.
pub(super) fn choose(choice: u8) -> &'static Log {
    let [built, crashed, closed, checkpointed] = &*LOGS;
    match choice % 4 {
        0 => built,
        1 => crashed,
        2 => closed,
        _ => checkpointed,
    }
}

static LOGS: LazyLock<[Log; 4]> = LazyLock::new(|| {
    let built = &segment_scan::LOG;
    [
        Log { disk: built.disk.clone(), logged: built.logged.clone() },
        written(crashed()),
        written(closed()),
        written(checkpointed()),
    ]
});

/// Options with which a few records fill a batch, and a few batches a segment.
pub(super) fn small(disk: &SimStorage) -> WalOptions {
    WalOptions::on_storage(storage(disk))
        .segment_bytes(24 * 1024)
        .batch_bytes(4096)
        .in_flight_bytes(8192)
        .max_record_bytes(8192)
}

fn written(disk: Result<SimStorage>) -> Log {
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => panic!("a log could not be written: {error}"),
    };
    let storage = storage(&disk);
    let recovered = recover(&storage, RecoveryMode::TornTail);
    match recovered.and_then(|log| log.replay(&storage).from_start().entries()) {
        Ok(logged) => Log { disk, logged },
        Err(error) => panic!("a log could not be read: {error}"),
    }
}

/// Two cores, two openings, every operation, a cut that keeps a part, one that keeps nothing, and
/// a torn tail.
fn crashed() -> Result<SimStorage> {
    let disk = SimStorage::new(7);
    let (wal, _) = small(&disk).cores(2).open()?;
    disk.run_jobs();
    let mut first = wal.writer(0)?;
    let mut second = wal.writer(1)?;
    first.append_put(b"one", b"1")?;
    first.append_delete(b"one")?;
    first.append_commit(&offsets(), Some(3))?;
    first.sync()?;
    let kept = first.position();
    first.append_checkpoint(9)?;
    first.append_epoch_barrier()?;
    second.append_put(b"two", &[2; 3000])?;
    second.append_put(b"gone", b"soon")?;
    second.close()?;
    first.sync()?;
    first.truncate(kept)?;
    first.append_put(b"three", &[3; 100])?;
    first.close()?;
    wal.close()?;

    let (wal, _) = small(&disk).cores(2).open()?;
    disk.run_jobs();
    let mut first = wal.writer(0)?;
    let mut second = wal.writer(1)?;
    second.reset()?;
    second.append_put(b"four", b"4")?;
    second.sync()?;
    first.append_put(b"five", b"5")?;
    first.sync()?;
    first.append_put(b"six", &[6; 2000])?;
    first.sync()?;
    // More than a buffer: some of it is written, nothing of it synced.
    first.append_put(b"seven", &[7; 3000])?;
    first.append_put(b"eight", &[8; 3000])?;
    let crashed = disk.crash(CrashPlan::random(3));
    disk.halt();
    disk.forget_jobs();
    Ok(crashed)
}

/// Two cores, closed cleanly; core 0 filled a segment, and a next one is prepared.
fn closed() -> Result<SimStorage> {
    let disk = SimStorage::new(8);
    let (wal, _) = small(&disk).cores(2).open()?;
    disk.run_jobs();
    let mut first = wal.writer(0)?;
    for number in 0..4_u8 {
        first.append_put(&[number], &[number; 2500])?;
        first.sync()?;
        disk.run_jobs();
    }
    first.close()?;
    let mut second = wal.writer(1)?;
    second.append_epoch_barrier()?;
    second.append_put(b"in epoch 1", b"")?;
    second.close()?;
    wal.close()?;
    let closed = disk.crash(CrashPlan::keep_everything());
    disk.forget_jobs();
    Ok(closed)
}

/// Two cores; the first had filled segments, which a checkpoint gave back, and went on.
fn checkpointed() -> Result<SimStorage> {
    let disk = SimStorage::new(9);
    let (wal, _) = small(&disk).cores(2).open()?;
    disk.run_jobs();
    let mut first = wal.writer(0)?;
    let mut second = wal.writer(1)?;
    for number in 0..6_u8 {
        first.append_put(&[number], &[number; 2500])?;
        first.sync()?;
        disk.run_jobs();
    }
    second.append_commit(&offsets(), Some(3))?;
    let pending = wal.begin_checkpoint(5)?;
    pending.arrival().arrive(&mut first)?;
    pending.arrival().arrive(&mut second)?;
    pending.complete(CheckpointDetails::default())?;
    disk.run_jobs();
    first.append_put(b"behind", &[1; 3000])?;
    first.sync()?;
    second.append_put(b"behind", b"2")?;
    second.sync()?;
    first.append_put(b"never synced", &[3; 3000])?;
    let crashed = disk.crash(CrashPlan::random(4));
    disk.halt();
    disk.forget_jobs();
    Ok(crashed)
}

fn offsets() -> Offsets {
    let mut offsets = Offsets::new();
    offsets.set("a", 1);
    offsets.set("a longer name", 2);
    offsets
}
