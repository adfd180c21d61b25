//! Names: what each directory holds for certain, and the changes that are on their way.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::disk::{DirectoryId, Disk, File, FileId};

/// The directory that the storage is about. It is there from the start, durably.
pub(crate) const ROOT: DirectoryId = DirectoryId(0);

/// One directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub(crate) durable: BTreeMap<Arc<str>, Entry>,
    pub(crate) view: BTreeMap<Arc<str>, Entry>,
    /// Changes since the last sync, oldest first.
    pub(crate) pending: Vec<NameChange>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    File(FileId),
    Directory(DirectoryId),
}

/// A change of one name. A rename is two of them, one for each name.
#[derive(Debug, Clone)]
pub(crate) struct NameChange {
    pub(crate) stamp: u64,
    pub(crate) name: Arc<str>,
    pub(crate) change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The name stands for this from now on.
    Set(Entry),
    /// The name is gone.
    Unset,
    /// The name of a rename's destination: set.
    RenamedTo(Entry),
    /// The name of a rename's source: gone, but never while the destination is not set.
    RenamedFrom,
}

impl Directory {
    /// Makes every change so far durable, and says whether anything lost its durable name by it.
    pub(crate) fn sync(&mut self) -> bool {
        let mut is_anything_lost = false;
        for change in std::mem::take(&mut self.pending) {
            let before = change.apply(&mut self.durable);
            is_anything_lost |= match change.change {
                Change::Set(entry) | Change::RenamedTo(entry) => {
                    before.is_some_and(|before| before != entry)
                }
                Change::Unset => true,
                // It has the other name by now, or its loss is another change's.
                Change::RenamedFrom => false,
            };
        }
        is_anything_lost
    }

    /// Whatever the process sees here or a crash could bring back.
    pub(crate) fn reachable(&self) -> impl Iterator<Item = Entry> {
        let pending = self.pending.iter().filter_map(|change| match change.change {
            Change::Set(entry) | Change::RenamedTo(entry) => Some(entry),
            Change::Unset | Change::RenamedFrom => None,
        });
        self.durable.values().chain(self.view.values()).copied().chain(pending)
    }

    fn change(&mut self, stamp: u64, name: &Arc<str>, change: Change) {
        let change = NameChange { stamp, name: name.clone(), change };
        change.apply(&mut self.view);
        self.pending.push(change);
    }
}

impl NameChange {
    /// Returns what the name stood for until now.
    pub(crate) fn apply(&self, names: &mut BTreeMap<Arc<str>, Entry>) -> Option<Entry> {
        match self.change {
            Change::Set(entry) | Change::RenamedTo(entry) => names.insert(self.name.clone(), entry),
            Change::Unset | Change::RenamedFrom => names.remove(&self.name),
        }
    }
}

impl Entry {
    pub(crate) const fn file(&self) -> Option<FileId> {
        match self {
            Self::File(id) => Some(*id),
            Self::Directory(_) => None,
        }
    }
}

impl Disk {
    /// The directory called `name`; the empty name is the root.
    pub(crate) fn directory(&self, name: &str) -> io::Result<DirectoryId> {
        let mut at = ROOT;
        for part in name.split('/').filter(|_| !name.is_empty()) {
            check_part(part)?;
            match self.directories.get(&at).and_then(|directory| directory.view.get(part)) {
                Some(Entry::Directory(id)) => at = *id,
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(at)
    }

    pub(crate) fn directory_mut(&mut self, id: DirectoryId) -> Option<&mut Directory> {
        self.directories.get_mut(&id).map(Arc::make_mut)
    }

    /// What `name` stands for.
    pub(crate) fn entry(&self, name: &str) -> io::Result<Option<Entry>> {
        let (directory, last) = self.parent(name)?;
        let directory = self.directories.get(&directory);
        Ok(directory.and_then(|directory| directory.view.get(&*last)).copied())
    }

    /// The file called `name`.
    pub(crate) fn file_named(&self, name: &str) -> io::Result<FileId> {
        match self.entry(name)? {
            Some(Entry::File(id)) => Ok(id),
            Some(Entry::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes an empty file; its name is pending.
    pub(crate) fn create_file(&mut self, name: &str) -> io::Result<FileId> {
        let (directory, last) = self.parent(name)?;
        if self.entry(name)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = FileId(self.new_id());
        self.files.insert(id, Arc::new(File { name: name.into(), ..File::default() }));
        self.change_name(directory, &last, Change::Set(Entry::File(id)));
        let stamp = self.newest_stamp();
        self.file_mut(id).into_iter().for_each(|file| file.metadata_stamp = stamp);
        Ok(id)
    }

    /// Makes an empty directory unless there is one; its name is pending.
    pub(crate) fn create_directory(&mut self, name: &str) -> io::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let (directory, last) = self.parent(name)?;
        match self.entry(name)? {
            Some(Entry::Directory(_)) => return Ok(()),
            Some(Entry::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        let id = DirectoryId(self.new_id());
        self.directories.insert(id, Arc::new(Directory::default()));
        self.change_name(directory, &last, Change::Set(Entry::Directory(id)));
        Ok(())
    }

    /// Gives the file `from` the name `to` and returns the file that lost that name, if any.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<Option<FileId>> {
        let id = self.file_named(from)?;
        let (from_directory, from_last) = self.parent(from)?;
        let (to_directory, to_last) = self.parent(to)?;
        let replaced = match self.entry(to)? {
            // As POSIX has it: both are names of this very file already, and both stay.
            Some(Entry::File(same)) if same == id => return Ok(None),
            Some(Entry::File(other)) => Some(other),
            Some(Entry::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => None,
        };
        let stamp = self.new_stamp();
        if let Some(directory) = self.directory_mut(to_directory) {
            directory.change(stamp, &to_last, Change::RenamedTo(Entry::File(id)));
        }
        if let Some(directory) = self.directory_mut(from_directory) {
            directory.change(stamp, &from_last, Change::RenamedFrom);
        }
        if let Some(file) = self.file_mut(id) {
            file.name = to.into();
        }
        Ok(replaced)
    }

    /// Takes the name from the file `name`.
    pub(crate) fn remove(&mut self, name: &str) -> io::Result<FileId> {
        let id = self.file_named(name)?;
        let (directory, last) = self.parent(name)?;
        self.change_name(directory, &last, Change::Unset);
        Ok(id)
    }

    /// All names of files and of directories, as full names in order.
    pub(crate) fn all_names(&self) -> BTreeMap<String, Entry> {
        let mut all = BTreeMap::new();
        let mut unvisited = vec![(String::new(), ROOT)];
        while let Some((prefix, directory)) = unvisited.pop() {
            let Some(directory) = self.directories.get(&directory) else {
                continue;
            };
            for (name, entry) in &directory.view {
                let name = format!("{prefix}{name}");
                if let Entry::Directory(id) = entry {
                    unvisited.push((format!("{name}/"), *id));
                }
                all.insert(name, *entry);
            }
        }
        all
    }

    /// The directory that `name` lies in, and the last part of `name`.
    pub(crate) fn parent(&self, name: &str) -> io::Result<(DirectoryId, Arc<str>)> {
        let (directory, last) = name.rsplit_once('/').unwrap_or(("", name));
        check_part(last)?;
        Ok((self.directory(directory)?, last.into()))
    }

    fn change_name(&mut self, directory: DirectoryId, name: &Arc<str>, change: Change) {
        let stamp = self.new_stamp();
        if let Some(directory) = self.directory_mut(directory) {
            directory.change(stamp, name, change);
        }
    }
}

/// A log never climbs out of its directory; a name that tries to is a bug worth an error.
fn check_part(part: &str) -> io::Result<()> {
    if part.is_empty() || part == "." || part == ".." || part.len() > 255 || part.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "names are relative, of parts of 1 to 255 bytes with one `/` between them",
        ));
    }
    Ok(())
}
