//! The calls on an open file that each operating system spells differently.
//!
//! One call of ours is one call of the system's, short and interrupted ones included; loops are
//! in `file.rs`. Syncs are never repeated, not even interrupted ones (`EINTR`): what the first
//! one gave up on, or reported to nobody, cannot be known, and a second one that says `Ok` would
//! prove nothing.

pub(crate) use imp::{
    cannot_write_through, read, reserve, sync_data, sync_directory, write, write_through,
};

#[cfg(target_os = "linux")]
mod imp {
    use std::fs::File;
    use std::io::{self, ErrorKind, IoSlice};
    use std::os::unix::fs::FileExt;

    use rustix::fs::{FallocateFlags, fallocate, fdatasync, fsync};
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};

    pub(crate) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    pub(crate) fn write(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(pwritev2(file, slices, offset, ReadWriteFlags::empty())?)
    }

    /// Writes and makes the bytes of this call durable.
    pub(crate) fn write_through(
        file: &File,
        slices: &[IoSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        Ok(pwritev2(file, slices, offset, ReadWriteFlags::DSYNC)?)
    }

    /// Whether the kernel (before 4.7) or the file system does not know `RWF_DSYNC`. "Invalid"
    /// can mean something else; then the same write without the flag fails as well.
    pub(crate) fn cannot_write_through(error: &io::Error) -> bool {
        matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
    }

    /// `fdatasync`; std's own repeats an interrupted one.
    pub(crate) fn sync_data(file: &File) -> io::Result<()> {
        Ok(fdatasync(file)?)
    }

    pub(crate) fn sync_directory(directory: &File) -> io::Result<()> {
        Ok(fsync(directory)?)
    }

    /// Reserves space and sets the size; says whether it did. A file system without such a call
    /// gets its space from zeroes that are written.
    pub(crate) fn reserve(file: &File, size_bytes: u64) -> io::Result<bool> {
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
                // Nothing is lost by asking again: this is a reservation, not a sync.
                Err(Errno::INTR) => {}
                Ok(()) => return Ok(true),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Portable, and never run by us. Two differences in what is promised: std repeats an interrupted
/// sync, and how far a sync reaches is what std makes of it: on Apple's systems it asks for a full
/// flush (`F_FULLFSYNC`), elsewhere for the system's `fdatasync` or `fsync`.
#[cfg(not(target_os = "linux"))]
mod imp {
    use std::fs::File;
    use std::io::{self, ErrorKind, IoSlice};

    #[cfg(unix)]
    pub(crate) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(file, buffer, offset)
    }

    #[cfg(windows)]
    pub(crate) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
    }

    /// Writes the first slice: std has no call for several at a place.
    pub(crate) fn write(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let Some(first) = slices.iter().find(|slice| !slice.is_empty()) else {
            return Ok(0);
        };
        write_one(file, first, offset)
    }

    #[cfg(unix)]
    fn write_one(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(file, bytes, offset)
    }

    #[cfg(windows)]
    fn write_one(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
    }

    /// There is no such call; see `cannot_write_through`.
    pub(crate) fn write_through(
        _file: &File,
        _slices: &[IoSlice<'_>],
        _offset: u64,
    ) -> io::Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(crate) fn cannot_write_through(error: &io::Error) -> bool {
        error.kind() == ErrorKind::Unsupported
    }

    pub(crate) fn sync_data(file: &File) -> io::Result<()> {
        file.sync_data()
    }

    pub(crate) fn sync_directory(directory: &File) -> io::Result<()> {
        directory.sync_all()
    }

    /// Space comes from the zeroes that are written next.
    #[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
    pub(crate) fn reserve(_file: &File, _size_bytes: u64) -> io::Result<bool> {
        Ok(false)
    }
}
