//! Damage, and looking at files without the program's help.
//!
//! None of this counts as an operation, meets a fault or a full disk, or minds that the machine
//! has stopped. Whatever is changed is changed durably and at once; pending writes to other
//! places stay pending, pending writes to the same place are superseded.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use wal_storage::{Result, WalError};

use crate::content::{BLOCK_BYTES, Content};
use crate::disk::{Disk, File, FileId};
use crate::machine::SimStorage;
use crate::names::Entry;
use crate::random::{mix, to_index};

const SECTOR_BYTES: u64 = 512;

/// # Looking at the disk, and damaging it
///
/// Names are as everywhere in [`Storage`](wal_storage::Storage); errors are the same too, with
/// [`is_not_found`](WalError::is_not_found) for a name that is not there and
/// [`InvalidArgument`](WalError::InvalidArgument) for a place outside the file.
impl SimStorage {
    /// The names of all files in all directories, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.state().disk.all_names();
        names
            .into_iter()
            .filter(|(_, entry)| entry.file().is_some())
            .map(|(name, _)| name)
            .collect()
    }

    /// All bytes of a file, as the process sees them.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        let state = self.state();
        let id = self.found(name, &state.disk)?;
        Ok(state.disk.file(id).map_or_else(Vec::new, |file| bytes_of(&file.view)))
    }

    /// Makes a file with these bytes, in place of any that has the name, with every directory
    /// that is missing on the way. All of it is durable.
    ///
    /// # Errors
    ///
    /// If the name cannot be one, or stands for a directory.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        let made = state.disk.write_file(name, bytes);
        state.recount();
        made.map_err(|error| self.machine.error(name, "writing the file", error))
    }

    /// Turns one bit over; bit 0 is the lowest.
    ///
    /// # Errors
    ///
    /// If there is no such file or byte.
    pub fn flip_bit(&self, name: &str, byte_offset: u64, bit: u8) -> Result<()> {
        let mut byte = self.bytes_at(name, byte_offset..byte_offset + 1)?;
        byte[0] ^= 1 << (bit % 8);
        self.overwrite(name, byte_offset, &byte)
    }

    /// Puts `bytes` in place of what is there.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it ends before the last of them.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        self.bytes_at(name, offset..offset + bytes.len() as u64)?;
        self.damage(name, |file| {
            let whole = offset..offset + bytes.len() as u64;
            let pieces = file.write(&[bytes], offset, std::slice::from_ref(&whole));
            file.write_through(&pieces);
        })
    }

    /// Puts zeroes in place of what is there.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it ends before the last of them.
    pub fn zero(&self, name: &str, range: Range<u64>) -> Result<()> {
        let zeroes = vec![0; to_index(range.end.saturating_sub(range.start))];
        self.overwrite(name, range.start, &zeroes)
    }

    /// Cuts a file, or lengthens it with zeroes.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn truncate_file(&self, name: &str, size_bytes: u64) -> Result<()> {
        self.damage(name, |file| {
            file.view.set_size(size_bytes);
            file.durable.set_size(size_bytes);
            file.supersede(&(size_bytes..u64::MAX));
            file.pending_sizes.clear();
        })
    }

    /// Removes a file, durably.
    ///
    /// # Errors
    ///
    /// If there is no such file.
    pub fn delete(&self, name: &str) -> Result<()> {
        let mut state = self.state();
        self.found(name, &state.disk)?;
        let removed = state.disk.forget_name(name);
        state.recount();
        removed.map_err(|error| self.machine.error(name, "deleting", error))
    }

    /// Copies a block of 4096 bytes over another one, as a disk does that writes to the wrong
    /// place. A source and a target are a name and the number of a block in that file.
    ///
    /// # Errors
    ///
    /// If there is no such file or block.
    pub fn copy_block(&self, from: (&str, u64), to: (&str, u64)) -> Result<()> {
        self.misdirect(BLOCK_BYTES as u64, from, to)
    }

    /// As [`copy_block`](Self::copy_block), with sectors of 512 bytes.
    ///
    /// # Errors
    ///
    /// If there is no such file or sector.
    pub fn copy_sector(&self, from: (&str, u64), to: (&str, u64)) -> Result<()> {
        self.misdirect(SECTOR_BYTES, from, to)
    }

    /// Puts back what stood in `range` on an earlier [fork](Self::fork) or
    /// [snapshot](Self::snapshot_at) of this machine, as a disk does that said a write was
    /// durable and never did it.
    ///
    /// # Errors
    ///
    /// If there is no such file or place, now or then.
    pub fn make_stale(&self, name: &str, range: Range<u64>, earlier: &Self) -> Result<()> {
        let former = earlier.bytes_at(name, range.clone())?;
        self.overwrite(name, range.start, &former)
    }

    /// Lets each of two files have the bytes of the other, durably. Whoever has one open keeps
    /// the file that he has.
    ///
    /// # Errors
    ///
    /// If one of them is not there.
    pub fn swap_files(&self, one: &str, other: &str) -> Result<()> {
        let (bytes_of_one, bytes_of_other) = (self.read_file(one)?, self.read_file(other)?);
        self.write_file(one, &bytes_of_other)?;
        self.write_file(other, &bytes_of_one)
    }

    /// A hash of all names, of directories too, and all bytes as the process sees them. Equal
    /// before and after something means that it changed nothing.
    #[must_use]
    pub fn content_fingerprint(&self) -> u64 {
        let state = self.state();
        let mut hash = 0;
        for (name, entry) in state.disk.all_names() {
            hash = name.bytes().fold(mix(hash, 1), |hash, byte| mix(hash, byte.into()));
            let file = entry.file().and_then(|id| state.disk.file(id));
            hash = mix(hash, file.map_or(0, |file| file.view.fingerprint()));
        }
        hash
    }

    /// Writes all directories and files, as the process sees them, to a real directory, which is
    /// made if need be.
    ///
    /// # Errors
    ///
    /// What the operating system says. What was written until then stays.
    pub fn to_directory(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let disk = self.state().disk.clone();
        let step = |at: &Path, done: io::Result<()>| {
            done.map_err(|error| WalError::io(at, "exporting", error))
        };
        step(path, fs::create_dir_all(path))?;
        for (name, entry) in disk.all_names() {
            let at = path.join(name);
            match entry {
                Entry::Directory(_) => step(&at, fs::create_dir_all(&at))?,
                Entry::File(id) => {
                    let bytes = disk.file(id).map_or_else(Vec::new, |file| bytes_of(&file.view));
                    step(&at, fs::write(&at, bytes))?;
                }
            }
        }
        Ok(())
    }

    /// A machine whose disk holds, durably, the directories and files of a real directory. Links
    /// and the like are left out.
    ///
    /// # Errors
    ///
    /// What the operating system says, and if a name is not Unicode.
    pub fn from_directory(seed: u64, path: impl AsRef<Path>) -> Result<Self> {
        let mut disk = Disk::new();
        import(&mut disk, path.as_ref(), "")?;
        Ok(Self::from_disk(seed, disk))
    }

    fn misdirect(&self, unit: u64, from: (&str, u64), to: (&str, u64)) -> Result<()> {
        let bytes = self.bytes_at(from.0, from.1 * unit..(from.1 + 1) * unit)?;
        self.overwrite(to.0, to.1 * unit, &bytes)
    }

    fn damage(&self, name: &str, damage: impl FnOnce(&mut File)) -> Result<()> {
        let mut state = self.state();
        let id = self.found(name, &state.disk)?;
        if let Some(file) = state.disk.file_mut(id) {
            damage(file);
        }
        state.recount();
        Ok(())
    }

    fn bytes_at(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let state = self.state();
        let id = self.found(name, &state.disk)?;
        let mut bytes = vec![0; to_index(range.end.saturating_sub(range.start))];
        let file = state.disk.file(id);
        let got = file.map_or(0, |file| file.view.read(&mut bytes, range.start));
        if got < bytes.len() {
            let size_bytes = file.map_or(0, |file| file.view.size_bytes());
            let what = format!("{name}: bytes {range:?} of a file of {size_bytes} bytes");
            return Err(WalError::InvalidArgument { what });
        }
        Ok(bytes)
    }

    fn found(&self, name: &str, disk: &Disk) -> Result<FileId> {
        disk.file_named(name).map_err(|error| self.machine.error(name, "opening", error))
    }
}

impl Disk {
    fn write_file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        self.make_directories(directory)?;
        match self.entry(name)? {
            Some(Entry::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Entry::File(_)) => self.forget_name(name)?,
            None => {}
        }
        let id = self.create_file(name)?;
        self.settle_name(name)?;
        if let Some(file) = self.file_mut(id) {
            let whole = 0..bytes.len() as u64;
            let pieces = file.write(&[bytes], 0, std::slice::from_ref(&whole));
            file.write_through(&pieces);
        }
        Ok(())
    }

    /// Makes the directory and all above it, durably.
    fn make_directories(&mut self, name: &str) -> io::Result<()> {
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for end in ends.filter(|end| *end > 0) {
            self.create_directory(&name[..end])?;
            self.settle_name(&name[..end])?;
        }
        Ok(())
    }

    /// Makes what `name` stands for durable, and with it nothing else.
    fn settle_name(&mut self, name: &str) -> io::Result<()> {
        let (directory, last) = self.parent(name)?;
        if let Some(directory) = self.directory_mut(directory) {
            directory.pending.retain(|change| change.name != last);
            match directory.view.get(&last) {
                Some(entry) => directory.durable.insert(last, *entry),
                None => directory.durable.remove(&last),
            };
        }
        Ok(())
    }

    fn forget_name(&mut self, name: &str) -> io::Result<()> {
        self.remove(name)?;
        self.settle_name(name)
    }
}

fn import(disk: &mut Disk, path: &Path, prefix: &str) -> Result<()> {
    let failed = |error| WalError::io(path, "importing", error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let name = entry.file_name().into_string().map_err(|name| WalError::InvalidArgument {
            what: format!("{}: {name:?} is not Unicode", path.display()),
        })?;
        let name = format!("{prefix}{name}");
        if kind.is_dir() {
            disk.make_directories(&name).map_err(failed)?;
            import(disk, &entry.path(), &format!("{name}/"))?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).map_err(failed)?;
            disk.write_file(&name, &bytes).map_err(failed)?;
        }
    }
    Ok(())
}

fn bytes_of(content: &Content) -> Vec<u8> {
    let mut bytes = vec![0; to_index(content.size_bytes())];
    content.read(&mut bytes, 0);
    bytes
}
