//! The machine under a log, with a witness: before each operation of the disk it looks how far the
//! log says that it is durable.
//!
//! A call that is under way has not promised anything yet, but whoever watches the log from another
//! thread may have been told. What a witness has read at one moment must survive every crash from
//! that moment on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wal_sim::SimStorage;
use wal_storage::{
    Access, DirectoryLock, IoMode, Job, JobKind, Listed, Request, Result, Storage, StorageFile,
    WriteSync,
};
use wal_writer::SyncedWatch;

/// A machine that a log is opened on.
#[derive(Debug, Clone)]
pub(crate) struct Witnessed {
    machine: SimStorage,
    witness: Arc<Mutex<Witness>>,
    largest_read_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Witness {
    watches: Vec<SyncedWatch>,
    /// By the number of the operation before which they were read.
    sightings: BTreeMap<u64, Vec<Sighting>>,
}

/// A core, and the position below which all of its log was said to be durable.
pub(crate) type Sighting = (u16, u64);

impl Witnessed {
    pub(crate) fn new(machine: SimStorage) -> Self {
        Self { machine, witness: Arc::default(), largest_read_bytes: Arc::default() }
    }

    /// Watches these from now on, and no others.
    pub(crate) fn watch(&self, watches: Vec<SyncedWatch>) {
        let old = std::mem::replace(&mut self.witness().watches, watches);
        // Outside the lock: the last handle to a log may touch the disk.
        drop(old);
    }

    /// How far a core is durable by now, if it is watched.
    pub(crate) fn position_of(&self, core: u16) -> Option<u64> {
        let witness = self.witness();
        let watch = witness.watches.iter().find(|watch| watch.core_id() == core)?;
        Some(watch.position())
    }

    /// What was seen before each operation since this was asked last.
    pub(crate) fn take_sightings(&self) -> BTreeMap<u64, Vec<Sighting>> {
        std::mem::take(&mut self.witness().sightings)
    }

    /// How much was asked for at once at most.
    pub(crate) fn largest_read_bytes(&self) -> usize {
        self.largest_read_bytes.load(Ordering::Relaxed)
    }

    fn look(&self) {
        let number = self.machine.operations();
        let mut witness = self.witness();
        if witness.watches.is_empty() {
            return;
        }
        let seen = witness.watches.iter().map(|watch| (watch.core_id(), watch.position()));
        let seen = seen.collect();
        witness.sightings.insert(number, seen);
    }

    fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(WitnessedFile { storage: self.clone(), file })
    }
}

impl Storage for Witnessed {
    fn path(&self) -> &Path {
        self.machine.path()
    }

    fn lock(&self) -> Result<DirectoryLock> {
        self.machine.lock()
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        self.machine.list(directory)
    }

    fn create_directory(&self, name: &str) -> Result<()> {
        self.look();
        self.machine.create_directory(name)
    }

    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>> {
        self.look();
        self.machine.create(name, size_bytes, access).map(|file| self.file(file))
    }

    fn create_reserved(
        &self,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        self.look();
        self.machine.create_reserved(name, size_bytes, access).map(|file| self.file(file))
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>> {
        self.machine.open(name, access).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.look();
        self.machine.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.look();
        self.machine.remove(name)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.look();
        self.machine.sync_directory(directory)
    }

    fn free_bytes(&self) -> Result<u64> {
        self.machine.free_bytes()
    }

    fn perform(&self, requests: &[Request<'_>]) -> Vec<Result<()>> {
        self.machine.perform(requests)
    }

    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()> {
        self.machine.spawn(kind, delay, job)
    }

    fn parallelism(&self) -> usize {
        self.machine.parallelism()
    }

    fn now(&self) -> Duration {
        self.machine.now()
    }

    fn wall_clock_ns(&self) -> i64 {
        self.machine.wall_clock_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
        self.machine.fill_random(buffer)
    }
}

#[derive(Debug)]
struct WitnessedFile {
    storage: Witnessed,
    file: Box<dyn StorageFile>,
}

impl StorageFile for WitnessedFile {
    fn mode(&self) -> IoMode {
        self.file.mode()
    }

    fn size_bytes(&self) -> Result<u64> {
        self.file.size_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.storage.largest_read_bytes.fetch_max(buffer.len(), Ordering::Relaxed);
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, slices: &[&[u8]], offset: u64, sync: WriteSync) -> Result<()> {
        self.storage.look();
        self.file.write_at(slices, offset, sync)
    }

    fn sync(&self) -> Result<()> {
        self.storage.look();
        self.file.sync()
    }
}
