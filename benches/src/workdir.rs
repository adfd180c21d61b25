//! Where the logs lie while they are measured.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Advice;
use tempfile::TempDir;

use crate::Failure;

/// A directory of this run alone; it goes with everything in it when the run ends.
#[derive(Debug)]
pub struct Workdir(TempDir);

impl Workdir {
    /// Makes it in `parent`, which is made too if need be.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn make(parent: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(parent)?;
        Ok(Self(tempfile::tempdir_in(parent)?))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// An empty directory for one log. What earlier logs left to be written is written first, so
    /// that no contender pays for another.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn fresh(&self) -> Result<TempDir, Failure> {
        self.settle()?;
        Ok(tempfile::tempdir_in(self.path())?)
    }

    /// Waits until the file system has nothing left to write.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn settle(&self) -> Result<(), Failure> {
        Ok(rustix::fs::syncfs(File::open(self.path())?)?)
    }
}

/// All files below `directory`, in the order of their names.
///
/// # Errors
///
/// Whatever the file system says.
pub fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.append(&mut files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads all files once, so that the page cache holds them.
///
/// # Errors
///
/// Whatever the file system says.
pub fn warm(directory: &Path) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    for file in files_below(directory)? {
        let mut file = File::open(file)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Has the page cache forget all files, whose bytes must be on the disk already.
///
/// # Errors
///
/// Whatever the file system says.
pub fn cool(directory: &Path) -> io::Result<()> {
    for file in files_below(directory)? {
        rustix::fs::fadvise(File::open(file)?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// What the files below `directory` take on the disk, in bytes.
///
/// # Errors
///
/// Whatever the file system says.
pub fn disk_usage(directory: &Path) -> io::Result<u64> {
    files_below(directory)?.iter().try_fold(0, |sum, file| {
        // A file may be renamed away between listing and asking.
        let blocks = fs::metadata(file).map_or(0, |metadata| metadata.blocks());
        Ok(sum + blocks * 512)
    })
}
