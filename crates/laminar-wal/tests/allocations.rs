//! Promise 8, of the allocator: in steady state nothing is allocated per append, per sync or per
//! entry replayed, and what a new segment costs is a small number.
//!
//! An allocation takes as long as the rest of an append, waits for other cores' threads now and
//! then, and fails when memory is short: the log would be what stops the program.
//!
//! The counts are exact and of the calling thread alone, so what the background allocates is not
//! in them. They are taken on the real storage: the simulated one allocates for itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use laminar_wal::{
    CoreWalWriter, Offsets, OsStorage, RecoveryMode, Storage, Wal, WalEntry, WalError, WalOptions,
};
use tempfile::TempDir;
use wal_storage::{Access, DirectoryLock, Job, JobKind, Listed, Result, StorageFile};

/// Segments grow up to this size: behind as many bytes the log is in the first full one, every
/// buffer has been used, and there is room for all that a test appends.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Enough for several turns of the buffers.
const APPENDS: u64 = 4000;

/// More than is ever needed for getting a file ready and switching to it.
const ALLOCATIONS_PER_SEGMENT_MAX: u64 = 50;

#[test]
fn appending_a_put_allocates_nothing_even_where_full_buffers_are_written() {
    for value_bytes in [16, 100, 1024] {
        let mut log = WarmLog::new();
        let value = vec![7; value_bytes];
        let before = log.writer.stalls();
        let counted = measure(|| {
            for n in 0..APPENDS {
                log.writer.append_put(&n.to_le_bytes(), &value).unwrap();
            }
        });
        assert_nothing_allocated(&counted, &format!("{APPENDS} puts of {value_bytes} bytes"));
        assert_eq!(log.writer.stalls().segments, before.segments, "the segment should not change");
    }
}

#[test]
fn appending_anything_else_allocates_nothing() {
    let mut log = WarmLog::new();
    let offsets = Offsets::try_from_pairs([("orders-0", 17), ("orders-1", 41)]).unwrap();
    // From their first commit on, the names of sources are kept.
    log.writer.append_commit(&offsets, Some(5)).unwrap();
    let counted = measure(|| {
        for n in 0..APPENDS {
            log.writer.append_delete(&n.to_le_bytes()).unwrap();
            log.writer.append_commit(&offsets, Some(5)).unwrap();
            log.writer.append_checkpoint(n).unwrap();
            log.writer.append_epoch_barrier().unwrap();
        }
    });
    assert_nothing_allocated(&counted, "deletes, commits, checkpoints and barriers");

    let writer = &log.writer;
    let mut entry =
        WalEntry::put(0, writer.epoch(), writer.sequence(), vec![1; 8], vec![2; 100], i64::MAX);
    let counted = measure(|| {
        for _ in 0..APPENDS {
            log.writer.append(&entry).unwrap();
            entry.sequence += 1;
        }
    });
    assert_nothing_allocated(&counted, "ready-made entries");
}

#[test]
fn a_sync_allocates_nothing() {
    for appends_per_sync in [0, 1, 3] {
        let mut log = WarmLog::new();
        let counted = measure(|| {
            for n in 0..200_u64 {
                for _ in 0..appends_per_sync {
                    log.writer.append_put(&n.to_le_bytes(), &[7; 100]).unwrap();
                }
                log.writer.sync().unwrap();
            }
        });
        assert_nothing_allocated(&counted, &format!("syncs of {appends_per_sync} entries"));
    }
}

#[test]
fn a_sync_of_several_full_buffers_allocates_nothing() {
    let mut log = WarmLog::new();
    let counted = measure(|| {
        for n in 0..10_u64 {
            // 600 KiB: two buffers and a part of the third.
            for _ in 0..600 {
                log.writer.append_put(&n.to_le_bytes(), &[7; 900]).unwrap();
            }
            log.writer.sync().unwrap();
        }
    });
    assert_nothing_allocated(&counted, "syncs of three batches");
}

#[test]
fn an_external_sync_allocates_nothing() {
    let mut log = WarmLog::new();
    let counted = measure(|| {
        for n in 0..200_u64 {
            log.writer.append_put(&n.to_le_bytes(), &[7; 100]).unwrap();
            let request = log.writer.start_sync().unwrap();
            // Appending goes on meanwhile.
            log.writer.append_put(&n.to_le_bytes(), &[7; 100]).unwrap();
            let proof = request.run().unwrap();
            log.writer.mark_synced(proof).unwrap();
        }
    });
    assert_nothing_allocated(&counted, "external syncs");
}

#[test]
fn going_on_in_a_new_segment_allocates_a_bounded_number_of_times() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (wal, _) = WalOptions::on_storage(TimelessStorage::create(&path))
        .segment_bytes(256 * 1024)
        .open()
        .unwrap();
    let mut writer = wal.writer(0).unwrap();
    append_until(&mut writer, 1024 * 1024);
    let segments_before = segment_count(&path);
    let counted = measure(|| {
        for n in 0..APPENDS {
            writer.append_put(&n.to_le_bytes(), &[7; 1024]).unwrap();
            if n % 50 == 0 {
                writer.sync().unwrap();
            }
        }
    });
    let segments = segment_count(&path) - segments_before;
    assert!(segments >= 10, "only {segments} segments were begun");
    assert!(
        counted.count_total <= segments * ALLOCATIONS_PER_SEGMENT_MAX,
        "{segments} segments took {} allocations",
        counted.count_total
    );
}

#[test]
fn a_merged_replay_of_twice_as_many_entries_allocates_no_more() {
    let [fewer, more] = [10_000, 20_000].map(|entries| {
        let log = tempfile::tempdir().unwrap();
        write_interleaved(log.path(), 2, entries);
        // This storage wants one thread, so that it is no matter of chance which one allocates.
        let storage: Arc<dyn Storage> = TimelessStorage::create(log.path());
        let recovered = wal_recovery::recover(&storage, RecoveryMode::Strict).unwrap();
        let recovery = recovered.replay(&storage);
        let mut visited = 0;
        let counted = measure(|| recovery.for_each(|_| visited += 1).unwrap());
        (visited, counted)
    });
    assert_eq!(more.0 - fewer.0, 10_000);
    assert_eq!(more.1.count_total, fewer.1.count_total, "allocations");
    assert_eq!(more.1.bytes_max, fewer.1.bytes_max, "bytes in use at once");
}

/// A log of one core that has used every buffer and every path of its code once.
struct WarmLog {
    writer: CoreWalWriter,
    _wal: Wal,
    _directory: TempDir,
}

impl WarmLog {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = TimelessStorage::create(directory.path());
        let options = WalOptions::on_storage(storage.clone()).segment_bytes(SEGMENT_BYTES);
        let (wal, _) = options.open().unwrap();
        let mut writer = wal.writer(0).unwrap();
        // While the background does not write, the appender uses all buffers before it waits.
        storage.refuse_to_lead.store(true, Ordering::Relaxed);
        append_until(&mut writer, SEGMENT_BYTES);
        storage.refuse_to_lead.store(false, Ordering::Relaxed);
        // And with it: one full buffer, and one sync.
        append_until(&mut writer, SEGMENT_BYTES + 512 * 1024);
        writer.sync().unwrap();
        Self { writer, _wal: wal, _directory: directory }
    }
}

fn append_until(writer: &mut CoreWalWriter, position: u64) {
    while writer.position() < position {
        writer.append_put(b"key", &[7; 16 * 1024]).unwrap();
    }
}

/// Cores that took turns, and whose entries are all in one segment each, whatever their number:
/// what opening a segment takes is not the question here.
fn write_interleaved(path: &Path, cores: u16, entries: u64) {
    let options = WalOptions::new(path).cores(cores).segment_bytes(SEGMENT_BYTES);
    let (wal, _) = options.open().unwrap();
    for core in 0..cores {
        let mut writer = wal.writer(core).unwrap();
        append_until(&mut writer, SEGMENT_BYTES);
        for n in 0..entries / u64::from(cores) {
            // Far behind what the clock gave to the entries before.
            let turn = i64::try_from(n * u64::from(cores) + u64::from(core)).unwrap();
            let timestamp_ns = i64::MAX / 2 + turn;
            let (key, value) = (n.to_le_bytes().to_vec(), vec![7; 100]);
            let (epoch, sequence) = (writer.epoch(), writer.sequence());
            let entry = WalEntry::put(core, epoch, sequence, key, value, timestamp_ns);
            writer.append(&entry).unwrap();
        }
        writer.close().unwrap();
    }
    wal.close().unwrap();
}

fn segment_count(log: &Path) -> u64 {
    let names = std::fs::read_dir(log.join("core-0000")).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".wal")).count() as u64
}

fn assert_nothing_allocated(counted: &AllocationInfo, by: &str) {
    assert_eq!(counted.count_total, 0, "{by}: {counted:?}");
}

/// The real storage, where no time passes: to a log that was quiet for a second the next sync
/// means more, and on a machine that is busy enough, any two syncs are a second apart.
#[derive(Debug)]
struct TimelessStorage {
    storage: OsStorage,
    refuse_to_lead: AtomicBool,
}

impl TimelessStorage {
    fn create(path: &Path) -> Arc<Self> {
        let storage = OsStorage::create(path).unwrap();
        Arc::new(Self { storage, refuse_to_lead: AtomicBool::new(false) })
    }
}

impl Storage for TimelessStorage {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()> {
        if kind == JobKind::Lead && self.refuse_to_lead.load(Ordering::Relaxed) {
            return Err(WalError::InvalidArgument { what: "there is no thread".into() });
        }
        self.storage.spawn(kind, delay, job)
    }

    fn path(&self) -> &Path {
        self.storage.path()
    }

    fn lock(&self) -> Result<DirectoryLock> {
        self.storage.lock()
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        self.storage.list(directory)
    }

    fn create_directory(&self, name: &str) -> Result<()> {
        self.storage.create_directory(name)
    }

    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>> {
        self.storage.create(name, size_bytes, access)
    }

    fn create_reserved(
        &self,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        self.storage.create_reserved(name, size_bytes, access)
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>> {
        self.storage.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.storage.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.storage.remove(name)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.storage.sync_directory(directory)
    }

    fn free_bytes(&self) -> Result<u64> {
        self.storage.free_bytes()
    }

    fn wall_clock_ns(&self) -> i64 {
        self.storage.wall_clock_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
        self.storage.fill_random(buffer)
    }
}
