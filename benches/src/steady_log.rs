//! A log in the state that a long-running program has it in.

use std::time::{Duration, Instant};

use laminar_wal::{CoreWalWriter, Wal, WalOptions};

use crate::{BenchLog, Failure, append_puts};

/// A log of one core in its steady state: past the small segments that an opening begins with, all
/// buffers used before. What is appended to it is read back in the end, and counted.
#[derive(Debug)]
pub struct SteadyLog {
    options: ChangeOptions,
    value: Vec<u8>,
    open: OpenLog,
}

/// Makes other options of the default ones.
pub type ChangeOptions = fn(WalOptions) -> WalOptions;

/// The first segments of an opening are small and grow to 64 MiB: behind this much the log is in
/// the first one of full size, with room for nearly as much again.
pub const WARM_UP_BYTES: u64 = 64 * 1024 * 1024;

/// Then a log is checked and replaced by a new one, so that no bench fills the disk.
const STEADY_BYTES_MAX: u64 = 512 * 1024 * 1024;

impl SteadyLog {
    /// A log that was appended to and waited for until it is in its steady state. Not to be done
    /// while a bench runs: criterion's quick mode ends after a tenth of a second of anything.
    ///
    /// # Errors
    ///
    /// Whatever the log says.
    pub fn new(value_bytes: usize, options: ChangeOptions) -> Result<Self, Failure> {
        let value = vec![0xab; value_bytes];
        let open = OpenLog::warmed_up(&value, options)?;
        Ok(Self { options, value, open })
    }

    /// How long `work` takes that appends so many entries with the value it is given, and may
    /// sync. A sync behind it is not timed.
    ///
    /// # Errors
    ///
    /// Whatever the log or `work` says, and if there were not so many entries.
    pub fn time(
        &mut self,
        entries: u64,
        work: impl FnOnce(&mut CoreWalWriter, &[u8]) -> Result<(), Failure>,
    ) -> Result<Duration, Failure> {
        if self.open.writer.position() > STEADY_BYTES_MAX {
            let fresh = OpenLog::warmed_up(&self.value, self.options)?;
            std::mem::replace(&mut self.open, fresh).close_and_check(self.value.len())?;
        }
        let writer = &mut self.open.writer;
        let before = writer.sequence();

        let start = Instant::now();
        work(writer, &self.value)?;
        let elapsed = start.elapsed();

        writer.sync()?;
        let appended = writer.sequence() - before;
        if appended != entries {
            return Err(format!("{appended} entries were appended, {entries} were meant").into());
        }
        Ok(elapsed)
    }

    /// Closes the log, reads it back and removes it.
    ///
    /// # Errors
    ///
    /// If it does not hold what was appended, and whatever the log says.
    pub fn close_and_check(self) -> Result<(), Failure> {
        self.open.close_and_check(self.value.len())
    }
}

#[derive(Debug)]
struct OpenLog {
    log: BenchLog,
    wal: Wal,
    writer: CoreWalWriter,
}

impl OpenLog {
    fn warmed_up(value: &[u8], options: ChangeOptions) -> Result<Self, Failure> {
        let log = BenchLog::new()?;
        let wal = options(WalOptions::new(log.path())).open()?.0;
        let mut writer = wal.writer(0)?;
        while writer.position() < WARM_UP_BYTES {
            append_puts(&mut writer, 1, value)?;
        }
        writer.sync()?;
        log.wait_for_prepared_segment()?;
        Ok(Self { log, wal, writer })
    }

    fn close_and_check(self, value_bytes: usize) -> Result<(), Failure> {
        let entries = self.writer.sequence();
        self.writer.close()?;
        self.wal.close()?;
        self.log.check(entries, value_bytes)
    }
}
