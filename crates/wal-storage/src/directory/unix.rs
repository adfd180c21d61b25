//! Through descriptors: every name is looked up below the directory opened at the start, one
//! component at a time, and no component may be a link.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, fcntl_getfl, fcntl_setfl, fstatvfs, mkdirat,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::{Found, Modes, NAME_BYTES, absolute, opening_failed, rename_failed, wrong_kind};
use crate::error::{Result, WalError};
use crate::file::failure;
use crate::name::Name;
use crate::storage::{Listed, ListedKind};
use crate::system;

pub(crate) struct Directory {
    path: PathBuf,
    root: File,
    modes: Modes,
}

impl Directory {
    pub(crate) fn open(path: &Path, modes: Modes) -> Result<Self> {
        let path = absolute(path)?;
        match rustix::fs::open(&path, DIRECTORY, Mode::empty()) {
            Ok(root) => Ok(Self { path, root: File::from(root), modes }),
            Err(error) => Err(opening_failed(&path, error.into())),
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

    /// A descriptor that shares nothing with any other, as `flock` wants it.
    pub(crate) fn open_for_lock(&self) -> Result<File> {
        let opened = openat(&self.root, ".", DIRECTORY, Mode::empty());
        opened.map(File::from).map_err(|error| WalError::io(&self.path, "locking", error.into()))
    }

    pub(crate) fn list(&self, name: &Name<'_>) -> Result<Vec<Listed>> {
        let failed = |error: Errno| WalError::io(self.full_path(name), "listing", error.into());
        let directory = self.walk(name, name, "listing")?;
        let mut listed = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file_name = entry.file_name();
            if matches!(file_name.to_bytes(), b"." | b"..") {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => {
                    match statat(&directory, file_name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(status) => FileType::from_raw_mode(status.st_mode),
                        // Removed since: it is not there, so it is not listed.
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(failed(error)),
                    }
                }
                known => known,
            };
            let kind = match file_type {
                FileType::RegularFile => ListedKind::File,
                FileType::Directory => ListedKind::Directory,
                _ => ListedKind::Other,
            };
            listed.push(Listed { name: file_name.to_string_lossy().into_owned(), kind });
        }
        Ok(listed)
    }

    pub(crate) fn make_directory(&self, name: &Name<'_>) -> Result<()> {
        let operation = "making the directory";
        let (parent, last) = self.parent(name, operation)?;
        match mkdirat(&parent, last, mode(self.modes.directory)) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match found(&parent, last) {
                Ok(Found::Directory) => Ok(()),
                Ok(other) => Err(wrong_kind(self.full_path(name), other)),
                Err(error) => Err(WalError::io(self.full_path(name), operation, error.into())),
            },
            Err(error) => Err(failure(self.full_path(name), operation, NAME_BYTES, error.into())),
        }
    }

    /// Makes a file for reading and writing; `size_bytes` is what it will need.
    pub(crate) fn create_file(&self, name: &Name<'_>, size_bytes: u64) -> Result<File> {
        let (parent, last) = self.parent(name, "creating")?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&parent, last, flags, mode(self.modes.file))
            .map(File::from)
            .map_err(|error| failure(self.full_path(name), "creating", size_bytes, error.into()))
    }

    pub(crate) fn open_file(&self, name: &Name<'_>, writable: bool) -> Result<File> {
        let (parent, last) = self.parent(name, "opening")?;
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        // A pipe that somebody put here must not hold us up until someone writes to it.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let failed = |error: Errno| WalError::io(self.full_path(name), "opening", error.into());
        let file = match openat(&parent, last, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(error) => {
                return Err(match found(&parent, last) {
                    Ok(Found::File) | Err(_) => failed(error),
                    Ok(other) => wrong_kind(self.full_path(name), other),
                });
            }
        };
        let status = rustix::fs::fstat(&file).map_err(failed)?;
        match kind_of(FileType::from_raw_mode(status.st_mode)) {
            Found::File => {}
            other => return Err(wrong_kind(self.full_path(name), other)),
        }
        let flags = fcntl_getfl(&file).map_err(failed)?;
        fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(failed)?;
        Ok(file)
    }

    pub(crate) fn rename(&self, from: &Name<'_>, to: &Name<'_>) -> Result<()> {
        let (from_parent, from_last) = self.parent(from, "renaming")?;
        let (to_parent, to_last) = self.parent(to, "renaming")?;
        renameat(&from_parent, from_last, &to_parent, to_last).map_err(|error| {
            rename_failed(self.full_path(from), &self.full_path(to), &error.into())
        })
    }

    pub(crate) fn remove(&self, name: &Name<'_>) -> Result<()> {
        let (parent, last) = self.parent(name, "removing")?;
        unlinkat(&parent, last, AtFlags::empty())
            .map_err(|error| WalError::io(self.full_path(name), "removing", error.into()))
    }

    pub(crate) fn sync(&self, name: &Name<'_>) -> Result<()> {
        let operation = "syncing the directory";
        let directory = self.walk(name, name, operation)?;
        system::sync_directory(&directory)
            .map_err(|source| WalError::io(self.full_path(name), operation, source))
    }

    /// The blocks kept for the superuser are not counted, not even for them.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        match fstatvfs(&self.root) {
            Ok(status) => Ok(status.f_bavail.saturating_mul(status.f_frsize)),
            Err(error) => Err(WalError::io(&self.path, "asking for its free space", error.into())),
        }
    }

    fn parent<'a>(&self, name: &Name<'a>, operation: &'static str) -> Result<(File, &'a str)> {
        let (directory, last) = name.split_last();
        Ok((self.walk(&directory, name, operation)?, last))
    }

    /// Opens `directory`, component by component; a failure is reported for `on_behalf_of`.
    fn walk(
        &self,
        directory: &Name<'_>,
        on_behalf_of: &Name<'_>,
        operation: &'static str,
    ) -> Result<File> {
        let failed =
            |source: io::Error| WalError::io(self.full_path(on_behalf_of), operation, source);
        let mut reached = self.root.try_clone().map_err(failed)?;
        let mut path = self.path.clone();
        for component in directory.components() {
            path.push(component);
            match openat(&reached, component, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(next) => reached = File::from(next),
                Err(error) => {
                    return Err(match found(&reached, component) {
                        Ok(Found::Directory) | Err(_) => failed(error.into()),
                        Ok(other) => wrong_kind(path, other),
                    });
                }
            }
        }
        Ok(reached)
    }
}

/// Makes one directory by its path.
pub(super) fn make(path: &Path, modes: Modes) -> io::Result<()> {
    DirBuilder::new().mode(modes.directory).create(path)
}

pub(super) fn open_for_sync(path: &Path) -> io::Result<File> {
    Ok(File::from(rustix::fs::open(path, DIRECTORY, Mode::empty())?))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Permission bits in the width that this system uses; `Modes::check` has seen that they fit.
fn mode(bits: u32) -> Mode {
    RawMode::try_from(bits).map_or(Mode::RWXU, Mode::from_bits_truncate)
}

fn found(directory: &File, name: &str) -> rustix::io::Result<Found> {
    let status = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(kind_of(FileType::from_raw_mode(status.st_mode)))
}

const fn kind_of(file_type: FileType) -> Found {
    match file_type {
        FileType::RegularFile => Found::File,
        FileType::Directory => Found::Directory,
        FileType::Symlink => Found::Link,
        _ => Found::Special,
    }
}
