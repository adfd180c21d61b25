//! Names on disk: what is looked up, made, moved, removed and synced below one directory.

#[cfg_attr(not(unix), path = "directory/other.rs")]
#[cfg_attr(unix, path = "directory/unix.rs")]
mod imp;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Result, WalError};
use crate::system;

pub(crate) use imp::Directory;

/// The permission bits of what will be made. They mean nothing on systems without them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modes {
    pub(crate) file: u32,
    pub(crate) directory: u32,
}

impl Modes {
    /// A log that its owner cannot read and write is no use to anyone; set-id and sticky bits are
    /// not permissions.
    pub(crate) fn check(self) -> Result<()> {
        let good = self.file & !0o777 == 0
            && self.directory & !0o777 == 0
            && self.file & 0o600 == 0o600
            && self.directory & 0o700 == 0o700;
        if good {
            return Ok(());
        }
        Err(WalError::InvalidArgument {
            what: format!(
                "permissions {:#o} for files and {:#o} for directories: they must hold at least \
                 0o600 and 0o700, and nothing beyond 0o777",
                self.file, self.directory
            ),
        })
    }
}

impl Default for Modes {
    fn default() -> Self {
        Self { file: 0o600, directory: 0o700 }
    }
}

/// What a directory block is taken to need where the disk is too full for another name: there is
/// no way to ask.
const NAME_BYTES: u64 = 4096;

impl Directory {
    /// Makes `path` and its missing parents, each durable in the directory that holds it.
    pub(crate) fn make_with_parents(path: &Path, modes: Modes) -> Result<()> {
        let path = absolute(path)?;
        let mut missing = Vec::new();
        for ancestor in path.ancestors() {
            match fs::metadata(ancestor) {
                Ok(_) => {
                    sync_found(ancestor)?;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push(ancestor),
                Err(source) => return Err(WalError::io(ancestor, "looking it up", source)),
            }
        }
        for directory in missing.into_iter().rev() {
            match imp::make(directory, modes) {
                Ok(()) => {}
                // Somebody else was faster, and may not have synced it yet.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(crate::file::failure(
                        directory,
                        "making the directory",
                        NAME_BYTES,
                        source,
                    ));
                }
            }
            if let Some(parent) = directory.parent() {
                sync_path(parent)
                    .map_err(|source| WalError::io(parent, "syncing the directory", source))?;
            }
        }
        Ok(())
    }
}

/// Syncs the name of a directory that was there already: a process that made it may have ended
/// before it could.
///
/// Where the parent cannot be read or synced at all, we could not have made this directory in it
/// either, so that it is somebody else's and theirs to keep.
fn sync_found(directory: &Path) -> Result<()> {
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    match sync_path(parent) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::Unsupported | ErrorKind::InvalidInput
            ) =>
        {
            Err(WalError::io(parent, "syncing the directory", error))
        }
        _ => Ok(()),
    }
}

fn sync_path(directory: &Path) -> io::Result<()> {
    system::sync_directory(&imp::open_for_sync(directory)?)
}

/// For messages that stay true when the process changes its working directory; links are kept.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|source| WalError::io(path, "looking it up", source))
}

fn opening_failed(path: &Path, source: io::Error) -> WalError {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
        let reason = "it is a file, and a log is a directory".to_owned();
        return WalError::NotALog { path: path.to_path_buf(), reason };
    }
    WalError::io(path, "opening the directory", source)
}

/// Something of another kind stands where a file or directory of the log's was expected.
fn wrong_kind(path: PathBuf, found: Found) -> WalError {
    let reason = match found {
        Found::Link => "it is a symbolic link, and links are not followed inside a log",
        Found::Directory => "it is a directory where a file is expected",
        Found::File => "it is a file where a directory is expected",
        Found::Special => "it is neither a file nor a directory",
    };
    WalError::NotALog { path, reason: reason.to_owned() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    File,
    Directory,
    Link,
    Special,
}

/// A failed renaming, which is about two paths.
fn rename_failed(from: PathBuf, to: &Path, source: &io::Error) -> WalError {
    let source = io::Error::new(source.kind(), format!("to {}: {source}", to.display()));
    crate::file::failure(from, "renaming", NAME_BYTES, source)
}
