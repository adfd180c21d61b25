//! The machine below a log whose threads shuttle schedules: a simulated disk, and two threads for
//! its jobs, as the operating system's storage has them.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test that called it")]

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shuttle::rand::Rng;
use shuttle::thread::{self, JoinHandle};
use wal_sim::SimStorage;
use wal_storage::{
    Access, DirectoryLock, IoMode, Job, JobKind, Listed, Result, Storage, StorageFile, WalError,
    WriteSync,
};

use crate::sync::{Condvar, Mutex};

/// A simulated disk between whose operations other threads run, and its jobs.
pub(super) struct Machine {
    pub(super) disk: SimStorage,
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Waiting>,
    is_over: bool,
    has_no_threads: bool,
}

struct Waiting {
    kind: JobKind,
    due: Duration,
    job: Job,
}

/// The threads that run a machine's jobs.
#[must_use = "threads that are not ended wait for ever"]
pub(super) struct Background {
    machine: Arc<Machine>,
    threads: Vec<JoinHandle<()>>,
}

impl Machine {
    /// A new machine, and threads for its jobs.
    pub(super) fn start() -> (Arc<Self>, Background) {
        let disk = SimStorage::new(shuttle::rand::thread_rng().r#gen());
        let (jobs, changed) = (Mutex::new(Jobs::default()), Condvar::new());
        let machine = Arc::new(Self { disk, jobs, changed });
        let threads = [JobKind::Lead, JobKind::Prepare].map(|kind| {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.work(kind))
        });
        (Arc::clone(&machine), Background { machine, threads: threads.into() })
    }

    /// From now on no thread can be had for most jobs.
    pub(super) fn has_no_threads(&self) {
        self.jobs.lock().unwrap().has_no_threads = true;
    }

    /// Runs jobs of a kind, one after the other, until it is over.
    fn work(&self, kind: JobKind) {
        let mut jobs = self.jobs.lock().unwrap();
        while !jobs.is_over {
            let of_kind = jobs.waiting.iter().enumerate().filter(|(_, job)| job.kind == kind);
            let Some((index, _)) = of_kind.min_by_key(|(_, job)| job.due) else {
                jobs = self.changed.wait(jobs).unwrap();
                continue;
            };
            let early = jobs.waiting[index].due.saturating_sub(self.disk.now());
            if early.is_zero() {
                let job = jobs.waiting.remove(index).job;
                drop(jobs);
                job();
            } else {
                // Time passes, preferably when nobody else has anything to do.
                drop(jobs);
                thread::yield_now();
                self.disk.advance(early);
            }
            jobs = self.jobs.lock().unwrap();
        }
    }
}

impl Background {
    /// Ends the threads; jobs that have not begun never do.
    pub(super) fn end(self) {
        self.machine.jobs.lock().unwrap().is_over = true;
        self.machine.changed.notify_all();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let forgotten = std::mem::take(&mut self.machine.jobs.lock().unwrap().waiting);
        drop(forgotten);
    }
}

impl Storage for Machine {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn lock(&self) -> Result<DirectoryLock> {
        self.disk.lock()
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, name: &str) -> Result<()> {
        self.disk.create_directory(name)
    }

    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>> {
        File::boxed(self.disk.create(name, size_bytes, access))
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>> {
        File::boxed(self.disk.open(name, access))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.disk.sync_directory(directory)
    }

    fn free_bytes(&self) -> Result<u64> {
        self.disk.free_bytes()
    }

    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()> {
        let due = self.disk.now().saturating_add(delay);
        let mut jobs = self.jobs.lock().unwrap();
        if jobs.has_no_threads && shuttle::rand::thread_rng().gen_range(0..4) > 0 {
            drop(jobs);
            return Err(WalError::InvalidArgument { what: "there is no thread".into() });
        }
        jobs.waiting.push(Waiting { kind, due, job });
        drop(jobs);
        self.changed.notify_all();
        Ok(())
    }

    fn now(&self) -> Duration {
        self.disk.now()
    }

    fn wall_clock_ns(&self) -> i64 {
        self.disk.wall_clock_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
        self.disk.fill_random(buffer)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// A file of the simulated disk. Other threads may run before and after a write or sync reaches
/// the disk.
#[derive(Debug)]
struct File {
    file: Box<dyn StorageFile>,
    /// Whoever touches it may be interrupted there.
    calls: shuttle::sync::atomic::AtomicU64,
}

impl File {
    fn boxed(file: Result<Box<dyn StorageFile>>) -> Result<Box<dyn StorageFile>> {
        Ok(Box::new(Self { file: file?, calls: Default::default() }))
    }

    fn slowly<T>(&self, call: impl FnOnce(&dyn StorageFile) -> T) -> T {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let done = call(&*self.file);
        self.calls.fetch_add(1, Ordering::SeqCst);
        done
    }
}

impl StorageFile for File {
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
        self.slowly(|file| file.write_at(slices, offset, sync))
    }

    fn sync(&self) -> Result<()> {
        self.slowly(|file| file.sync())
    }
}
