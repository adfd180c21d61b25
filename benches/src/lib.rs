//! What the benches of laminar-wal share: a log in a directory of its own, filled with known entries.

use std::error::Error;
use std::path::PathBuf;

use laminar_wal::{CoreWalWriter, Wal, WalOptions};
use tempfile::TempDir;

/// What a bench cannot go on after.
pub type Failure = Box<dyn Error>;

/// A log on the file system of the target directory, which is a real disk where the one for
/// temporary files may be memory.
#[derive(Debug)]
pub struct BenchLog {
    directory: TempDir,
}

impl BenchLog {
    /// An empty directory.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn new() -> Result<Self, Failure> {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/benches");
        std::fs::create_dir_all(&target)?;
        Ok(Self { directory: tempfile::tempdir_in(target)? })
    }

    /// Where the log lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Opens it for so many cores.
    ///
    /// # Errors
    ///
    /// Whatever opening says.
    pub fn open(&self, cores: u16) -> Result<Wal, Failure> {
        Ok(WalOptions::new(self.path()).cores(cores).open()?.0)
    }

    /// Fills it with `entries_per_core` puts of `value_bytes` on each core, and closes it.
    ///
    /// # Errors
    ///
    /// Whatever the log says.
    pub fn fill(
        &self,
        cores: u16,
        entries_per_core: u64,
        value_bytes: usize,
    ) -> Result<(), Failure> {
        let wal = self.open(cores)?;
        for core in 0..cores {
            let mut writer = wal.writer(core)?;
            append_puts(&mut writer, entries_per_core, &vec![0xab; value_bytes])?;
            writer.close()?;
        }
        Ok(wal.close()?)
    }
}

/// Appends puts with keys of 16 bytes, each another one.
///
/// # Errors
///
/// Whatever the log says.
pub fn append_puts(writer: &mut CoreWalWriter, count: u64, value: &[u8]) -> Result<(), Failure> {
    let mut key = [0; 16];
    for n in 0..count {
        let (number, _) = key.split_at_mut(8);
        number.copy_from_slice(&n.to_le_bytes());
        writer.append_put(&key, value)?;
    }
    Ok(())
}
