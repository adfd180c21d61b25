//! How quiet the disk is: what a bare `fdatasync` takes right now.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::Failure;
use crate::measure::Durations;

const BLOCK_BYTES: usize = 4096;
const CALLS: usize = 50;

/// A file whose one block is written over again and again: neither its size nor its extents
/// change, so nothing but the data and the flush of the device is paid for.
#[derive(Debug)]
pub struct Probe {
    file: File,
}

impl Probe {
    /// Makes the file in `directory`; it has no name there.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn make(directory: &Path) -> Result<Self, Failure> {
        let file = tempfile::tempfile_in(directory)?;
        file.write_all_at(&[1; BLOCK_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file })
    }

    /// The median of some calls of 4 KiB written over and `fdatasync`, in microseconds.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn p50_us(&mut self) -> Result<f64, Failure> {
        let mut durations = Durations::with_capacity(CALLS);
        for _ in 0..CALLS {
            let start = Instant::now();
            self.file.write_all_at(&[2; BLOCK_BYTES], 0)?;
            self.file.sync_data()?;
            durations.push(start.elapsed());
        }
        Ok(durations.quantile_us(0.5))
    }
}
