//! Through paths, for systems without descriptors of directories (Windows). Never run by us.
//!
//! What stands at a name is looked at before it is used, which does not stop anyone from putting
//! a link there in between; permission bits do not exist.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Found, Modes, NAME_BYTES, absolute, opening_failed, rename_failed, wrong_kind};
use crate::error::{Result, WalError};
use crate::file::failure;
use crate::name::Name;
use crate::storage::{Listed, ListedKind};
use crate::system;

pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(crate) fn open(path: &Path, _modes: Modes) -> Result<Self> {
        let path = absolute(path)?;
        match fs::read_dir(&path) {
            Ok(_) => Ok(Self { path }),
            Err(source) => Err(opening_failed(&path, source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn full_path(&self, name: &Name<'_>) -> PathBuf {
        let mut path = self.path.clone();
        path.extend(name.components());
        path
    }

    pub(crate) fn open_for_lock(&self) -> Result<File> {
        let path = self.path.join("LOCK");
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
        opened.map_err(|source| WalError::io(path, "locking", source))
    }

    pub(crate) fn list(&self, name: &Name<'_>) -> Result<Vec<Listed>> {
        let path = self.walk(name)?;
        let failed = |source| WalError::io(&path, "listing", source);
        let mut listed = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = match kind_of(entry.file_type().map_err(failed)?) {
                Found::File => ListedKind::File,
                Found::Directory => ListedKind::Directory,
                Found::Link | Found::Special => ListedKind::Other,
            };
            listed.push(Listed { name: entry.file_name().to_string_lossy().into_owned(), kind });
        }
        Ok(listed)
    }

    pub(crate) fn make_directory(&self, name: &Name<'_>) -> Result<()> {
        let path = self.path_of(name)?;
        let operation = "making the directory";
        match fs::create_dir(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match found(&path) {
                Ok(Found::Directory) => Ok(()),
                Ok(other) => Err(wrong_kind(path, other)),
                Err(source) => Err(WalError::io(path, operation, source)),
            },
            Err(source) => Err(failure(path, operation, NAME_BYTES, source)),
        }
    }

    pub(crate) fn create_file(&self, name: &Name<'_>, size_bytes: u64) -> Result<File> {
        let path = self.path_of(name)?;
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        created.map_err(|source| failure(path, "creating", size_bytes, source))
    }

    pub(crate) fn open_file(&self, name: &Name<'_>, writable: bool) -> Result<File> {
        let path = self.path_of(name)?;
        match found(&path) {
            Ok(Found::File) => {}
            Ok(other) => return Err(wrong_kind(path, other)),
            Err(source) => return Err(WalError::io(path, "opening", source)),
        }
        let opened = OpenOptions::new().read(true).write(writable).open(&path);
        opened.map_err(|source| WalError::io(path, "opening", source))
    }

    pub(crate) fn rename(&self, from: &Name<'_>, to: &Name<'_>) -> Result<()> {
        let from = self.path_of(from)?;
        let to = self.path_of(to)?;
        fs::rename(&from, &to).map_err(|source| rename_failed(from, &to, &source))
    }

    pub(crate) fn remove(&self, name: &Name<'_>) -> Result<()> {
        let path = self.path_of(name)?;
        fs::remove_file(&path).map_err(|source| WalError::io(path, "removing", source))
    }

    pub(crate) fn sync(&self, name: &Name<'_>) -> Result<()> {
        let path = self.walk(name)?;
        open_for_sync(&path)
            .and_then(|directory| system::sync_directory(&directory))
            .map_err(|source| WalError::io(path, "syncing the directory", source))
    }

    /// std cannot ask.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        let source = ErrorKind::Unsupported.into();
        Err(WalError::io(&self.path, "asking for its free space", source))
    }

    fn path_of(&self, name: &Name<'_>) -> Result<PathBuf> {
        let (directory, last) = name.split_last();
        Ok(self.walk(&directory)?.join(last))
    }

    fn walk(&self, directory: &Name<'_>) -> Result<PathBuf> {
        let mut path = self.path.clone();
        for component in directory.components() {
            path.push(component);
            match found(&path) {
                Ok(Found::Directory) => {}
                Ok(other) => return Err(wrong_kind(path, other)),
                Err(source) => return Err(WalError::io(path, "opening the directory", source)),
            }
        }
        Ok(path)
    }
}

pub(super) fn make(path: &Path, _modes: Modes) -> io::Result<()> {
    fs::create_dir(path)
}

/// A directory can be flushed if it was opened for writing, with the flag that lets a directory
/// be opened at all. If the file system refuses, so do we: a name that may not be durable is not
/// called so.
pub(super) fn open_for_sync(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;

        const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
        options.custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    }
    options.open(path)
}

fn found(path: &Path) -> io::Result<Found> {
    Ok(kind_of(fs::symlink_metadata(path)?.file_type()))
}

fn kind_of(file_type: FileType) -> Found {
    if file_type.is_symlink() {
        Found::Link
    } else if file_type.is_dir() {
        Found::Directory
    } else if file_type.is_file() {
        Found::File
    } else {
        Found::Special
    }
}
