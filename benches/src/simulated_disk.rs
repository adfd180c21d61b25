//! A simulated disk in the state in which a log's tests have it, and what is asked of it.

use wal_sim::{CrashPlan, SimStorage};
use wal_storage::{Access, Storage, StorageFile, WriteSync};

use crate::Failure;

/// Cores, each with a directory and its segments.
const CORES: u64 = 8;
/// Segments of each core, of which the last one is written to.
const SEGMENTS: u64 = 5;
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const BLOCK_BYTES: u64 = 4096;

/// A disk with the files of a log of eight cores: forty segments of 4 MiB, a quarter of each
/// written, and one of them open.
#[derive(Debug)]
pub struct SimulatedDisk {
    storage: SimStorage,
    file: Box<dyn StorageFile>,
    block: Vec<u8>,
    turn: u64,
}

/// One thing to do with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimulatedWork {
    /// Writing a block that a sync will cover. Every eighth time all are synced.
    Write,
    /// Writing a block through.
    WriteThrough,
    /// Writing a block and syncing the file.
    WriteAndSync,
    /// Reading a block.
    Read,
    /// Renaming a file.
    Rename,
    /// Renaming a file and syncing its directory.
    RenameAndSync,
    /// Writing a block through, with a copy of the machine kept before it and in its midst.
    WriteThroughWithSnapshots,
    /// Losing power with eight blocks pending.
    Crash,
}

impl SimulatedWork {
    /// All of it, with the names that tables use.
    pub const ALL: [(&'static str, Self); 8] = [
        ("write", Self::Write),
        ("write_through", Self::WriteThrough),
        ("write_and_sync", Self::WriteAndSync),
        ("read", Self::Read),
        ("rename", Self::Rename),
        ("rename_and_sync", Self::RenameAndSync),
        ("write_through,snapshots", Self::WriteThroughWithSnapshots),
        ("crash", Self::Crash),
    ];
}

impl SimulatedDisk {
    /// A disk with everything on it durable.
    ///
    /// # Errors
    ///
    /// Whatever the disk says.
    pub fn new() -> Result<Self, Failure> {
        let storage = SimStorage::new(1);
        let block = vec![0xab; usize::try_from(BLOCK_BYTES)?];
        for core in 0..CORES {
            storage.create_directory(&directory(core))?;
            for segment in 1..=SEGMENTS {
                let file =
                    storage.create(&name(core, segment), SEGMENT_BYTES, Access::ReadWrite)?;
                for at in 0..SEGMENT_BYTES / BLOCK_BYTES / 4 {
                    file.write_at(&[&block], at * BLOCK_BYTES, WriteSync::None)?;
                }
                file.sync()?;
            }
            storage.sync_directory(&directory(core))?;
        }
        storage.sync_directory("")?;
        let file = storage.open(&name(0, SEGMENTS), Access::ReadWrite)?;
        Ok(Self { storage, file, block, turn: 0 })
    }

    /// Does it so many times.
    ///
    /// # Errors
    ///
    /// Whatever the disk says, and if a read or a crash gives something else than was written.
    pub fn work(&mut self, work: SimulatedWork, times: u64) -> Result<(), Failure> {
        self.storage.snapshot_each_change(work == SimulatedWork::WriteThroughWithSnapshots);
        for _ in 0..times {
            self.turn += 1;
            self.work_once(work)?;
        }
        self.file.sync()?;
        drop(self.storage.take_snapshots());
        Ok(())
    }

    fn work_once(&mut self, work: SimulatedWork) -> Result<(), Failure> {
        let at = self.turn % (SEGMENT_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
        match work {
            SimulatedWork::Write => {
                self.file.write_at(&[&self.block], at, WriteSync::None)?;
                if self.turn.is_multiple_of(8) {
                    self.file.sync()?;
                }
            }
            SimulatedWork::WriteThrough => {
                self.file.write_at(&[&self.block], at, WriteSync::Through)?;
            }
            SimulatedWork::WriteThroughWithSnapshots => {
                self.file.write_at(&[&self.block], at, WriteSync::Through)?;
                if self.turn.is_multiple_of(64) {
                    drop(self.storage.take_snapshots());
                }
            }
            SimulatedWork::WriteAndSync => {
                self.file.write_at(&[&self.block], at, WriteSync::None)?;
                self.file.sync()?;
            }
            SimulatedWork::Read => {
                let got = self.file.read_at(&mut self.block, at % (SEGMENT_BYTES / 4))?;
                if (got, self.block[0]) != (self.block.len(), 0xab) {
                    return Err(format!("{got} bytes, the first one {:#x}", self.block[0]).into());
                }
            }
            SimulatedWork::Rename => self.rename()?,
            SimulatedWork::RenameAndSync => {
                self.rename()?;
                self.storage.sync_directory(&directory(1))?;
            }
            SimulatedWork::Crash => {
                if self.turn % 64 == 1 {
                    self.file.sync()?;
                    for pending in 0..8 {
                        self.file.write_at(
                            &[&self.block],
                            at + pending * BLOCK_BYTES,
                            WriteSync::None,
                        )?;
                    }
                }
                let after = self.storage.crash(CrashPlan::random(self.turn));
                if after.free_bytes()? == 0 {
                    return Err("a disk without an end is full".into());
                }
            }
        }
        Ok(())
    }

    fn rename(&self) -> Result<(), Failure> {
        let names = [name(1, 1), format!("{}/next.tmp", directory(1))];
        let [from, to] = if self.storage.open(&names[0], Access::Read).is_ok() {
            [&names[0], &names[1]]
        } else {
            [&names[1], &names[0]]
        };
        Ok(self.storage.rename(from, to)?)
    }
}

fn directory(core: u64) -> String {
    format!("core-{core:04}")
}

fn name(core: u64, segment: u64) -> String {
    format!("{}/{segment:020}.wal", directory(core))
}
