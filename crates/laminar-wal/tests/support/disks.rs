//! Disks that a test reaches into while they work: it may look, do something else, or hold up a
//! write or a sync for as long as it likes.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use laminar_wal::{Storage, WalError, WalOptions};
use wal_sim::SimStorage;
use wal_storage::{
    Access, DirectoryLock, IoMode, Job, JobKind, Listed, Request, Result, StorageFile, WriteSync,
};

/// A simulated disk that tells the test, in the thread that asks, of every write and sync of a
/// segment's records. That a segment is being prepared, or the manifest written, it keeps to itself.
///
/// Nothing else is different: clones are the same disk, faults and crashes are those of
/// [`sim`](Self::sim), and jobs run when the test says, unless they have a
/// [background](Self::with_background).
#[derive(Clone)]
pub(crate) struct TestDisk {
    pub(crate) sim: SimStorage,
    shared: Arc<Shared>,
}

/// Where in its work the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    BeforeWrite,
    BehindWrite,
    BeforeSync,
    BehindSync,
}

type Hook = Arc<dyn Fn(At, &str) + Send + Sync>;

#[derive(Default)]
struct Shared {
    hook: Mutex<Option<Hook>>,
    /// How many requests each call to [`Storage::perform`] had.
    side_by_side: Mutex<Vec<usize>>,
    has_no_threads: AtomicBool,
    jobs: Mutex<JobsState>,
    jobs_may_run: Condvar,
}

#[derive(Default)]
struct JobsState {
    /// Rises whenever a job may have become due.
    news: u64,
    is_over: bool,
}

impl TestDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self { sim: SimStorage::new(seed), shared: Arc::default() }
    }

    /// Options with which a few records fill a batch, and a few batches a segment.
    pub(crate) fn small(&self) -> WalOptions {
        WalOptions::on_storage(Arc::new(self.clone()))
            .segment_bytes(32 * 1024)
            .batch_bytes(4096)
            .in_flight_bytes(8192)
            .max_record_bytes(64 * 1024)
    }

    /// Options with which buffers and segments suffice for a while.
    pub(crate) fn roomy(&self) -> WalOptions {
        WalOptions::on_storage(Arc::new(self.clone()))
            .segment_bytes(1024 * 1024)
            .batch_bytes(64 * 1024)
            .in_flight_bytes(512 * 1024)
    }

    /// Calls `hook` at each write and sync from now on, with the name that the file had when it
    /// was opened.
    pub(crate) fn on_each(&self, hook: impl Fn(At, &str) + Send + Sync + 'static) {
        *lock(&self.shared.hook) = Some(Arc::new(hook));
    }

    pub(crate) fn unhook(&self) {
        // Dropped outside the lock: it may own a part of the log.
        let hook = lock(&self.shared.hook).take();
        drop(hook);
    }

    /// From now on the writes to a core's files wait at a gate.
    pub(crate) fn hold_up_writes(&self, core: u16) -> Gate {
        self.hold_up(core, At::BeforeWrite)
    }

    pub(crate) fn hold_up(&self, core: u16, what: At) -> Gate {
        let gate = Gate::closed();
        let (at_gate, directory) = (gate.clone(), directory(core));
        self.on_each(move |at, name| {
            if at == what && name.starts_with(&directory) {
                at_gate.pass();
            }
        });
        gate
    }

    /// How many requests each call for several files had since the last time.
    pub(crate) fn take_side_by_side(&self) -> Vec<usize> {
        std::mem::take(&mut *lock(&self.shared.side_by_side))
    }

    /// Lets threads run jobs when they are due, until the guard is dropped.
    pub(crate) fn with_background(&self) -> Background {
        lock(&self.shared.jobs).is_over = false;
        let threads = (0..2).map(|_| {
            let disk = self.clone();
            std::thread::spawn(move || disk.run_jobs_until_over())
        });
        Background { disk: self.clone(), threads: threads.collect() }
    }

    /// From now on there is no thread to be had for a job, or there is again.
    pub(crate) fn refuse_jobs(&self, refuse: bool) {
        self.shared.has_no_threads.store(refuse, Ordering::SeqCst);
    }

    /// Lets time pass, and the background know.
    pub(crate) fn advance(&self, time: Duration) {
        self.sim.advance(time);
        self.jobs_may_run();
    }

    fn run_jobs_until_over(&self) {
        let mut jobs = lock(&self.shared.jobs);
        while !jobs.is_over {
            let news = jobs.news;
            drop(jobs);
            let has_run = self.sim.run_one_job();
            jobs = lock(&self.shared.jobs);
            if !has_run && jobs.news == news && !jobs.is_over {
                jobs = self.shared.jobs_may_run.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn jobs_may_run(&self) {
        lock(&self.shared.jobs).news += 1;
        self.shared.jobs_may_run.notify_all();
    }

    fn tell(&self, at: At, name: &str) {
        let hook = lock(&self.shared.hook).clone();
        if let Some(hook) = hook {
            hook(at, name);
        }
    }

    fn file(&self, name: &str, file: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        let holds_records = AtomicBool::new(false);
        Box::new(TestFile { disk: self.clone(), name: name.to_owned(), holds_records, file })
    }
}

/// Threads that run a disk's jobs.
pub(crate) struct Background {
    disk: TestDisk,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Background {
    fn drop(&mut self) {
        lock(&self.disk.shared.jobs).is_over = true;
        self.disk.jobs_may_run();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The name of a core's directory.
fn directory(core: u16) -> String {
    format!("core-{core:04}/")
}

impl Storage for TestDisk {
    fn path(&self) -> &Path {
        self.sim.path()
    }

    fn lock(&self) -> Result<DirectoryLock> {
        self.sim.lock()
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        self.sim.list(directory)
    }

    fn create_directory(&self, name: &str) -> Result<()> {
        self.sim.create_directory(name)
    }

    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>> {
        Ok(self.file(name, self.sim.create(name, size_bytes, access)?))
    }

    fn create_reserved(
        &self,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        Ok(self.file(name, self.sim.create_reserved(name, size_bytes, access)?))
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>> {
        Ok(self.file(name, self.sim.open(name, access)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.sim.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.sim.remove(name)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.sim.sync_directory(directory)
    }

    fn free_bytes(&self) -> Result<u64> {
        self.sim.free_bytes()
    }

    fn perform(&self, requests: &[Request<'_>]) -> Vec<Result<()>> {
        lock(&self.shared.side_by_side).push(requests.len());
        self.sim.perform(requests)
    }

    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()> {
        if self.shared.has_no_threads.load(Ordering::SeqCst) {
            let cause = std::io::Error::other("no thread to be had");
            return Err(WalError::io(self.path(), "starting a thread", cause));
        }
        self.sim.spawn(kind, delay, job)?;
        self.jobs_may_run();
        Ok(())
    }

    fn now(&self) -> Duration {
        self.sim.now()
    }

    fn wall_clock_ns(&self) -> i64 {
        self.sim.wall_clock_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
        self.sim.fill_random(buffer)
    }
}

impl fmt::Debug for TestDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDisk").field("sim", &self.sim).finish_non_exhaustive()
    }
}

struct TestFile {
    disk: TestDisk,
    name: String,
    /// Something was written behind the identity block.
    holds_records: AtomicBool,
    file: Box<dyn StorageFile>,
}

impl TestFile {
    fn tell(&self, at: At) {
        if self.holds_records.load(Ordering::SeqCst) {
            self.disk.tell(at, &self.name);
        }
    }
}

impl StorageFile for TestFile {
    fn mode(&self) -> IoMode {
        self.file.mode()
    }

    fn size_bytes(&self) -> Result<u64> {
        self.file.size_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, slices: &[&[u8]], offset: u64, sync: WriteSync) -> Result<()> {
        if offset > 0 {
            self.holds_records.store(true, Ordering::SeqCst);
        }
        self.tell(At::BeforeWrite);
        let written = self.file.write_at(slices, offset, sync);
        self.tell(At::BehindWrite);
        written
    }

    fn sync(&self) -> Result<()> {
        self.tell(At::BeforeSync);
        let synced = self.file.sync();
        self.tell(At::BehindSync);
        synced
    }
}

impl fmt::Debug for TestFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestFile").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Holds threads up until it is opened. Clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    shared: Arc<GateShared>,
}

#[derive(Default)]
struct GateShared {
    is_open: Mutex<bool>,
    changed: Condvar,
    arrived: AtomicUsize,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self::default()
    }

    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        let mut is_open = lock(&self.shared.is_open);
        self.shared.arrived.fetch_add(1, Ordering::SeqCst);
        self.shared.changed.notify_all();
        while !*is_open {
            is_open = self.shared.changed.wait(is_open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn open(&self) {
        *lock(&self.shared.is_open) = true;
        self.shared.changed.notify_all();
    }

    /// Waits until somebody stands at the gate, or has passed it.
    pub(crate) fn await_somebody(&self) {
        let mut is_open = lock(&self.shared.is_open);
        while self.arrived() == 0 {
            is_open = self.shared.changed.wait(is_open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many have come to the gate.
    pub(crate) fn arrived(&self) -> usize {
        self.shared.arrived.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
