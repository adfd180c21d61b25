//! States in files, one file for all cores, named by the checkpoint that it is for.
//!
//! A snapshot counts only when the log's last checkpoint names it, so a file that is left over by a
//! crash before that does no harm. It must be durable before the checkpoint is completed: behind
//! that, the log below is gone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use crate::Result;

pub(crate) struct Snapshots {
    directory: PathBuf,
}

/// The counts of every core.
pub(crate) type Counts = BTreeMap<u16, BTreeMap<u64, u64>>;

impl Snapshots {
    pub(crate) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Durable when this returns: the bytes first, then the name, then the directory.
    pub(crate) fn write(&self, id: u64, counts: &Counts) -> Result<()> {
        let mut text = String::new();
        for (core, counts) in counts {
            for (user, count) in counts {
                writeln!(text, "{core} {user} {count}")?;
            }
        }
        fs::create_dir_all(&self.directory)?;
        let unfinished = self.directory.join("unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, self.path(id))?;
        self.sync_directories()
    }

    pub(crate) fn read(&self, id: u64) -> Result<Counts> {
        let mut counts = Counts::new();
        for line in fs::read_to_string(self.path(id))?.lines() {
            let [core, user, count] = line.split(' ').collect::<Vec<_>>()[..] else {
                return Err(format!("snapshot {id} has a line {line:?}").into());
            };
            counts.entry(core.parse()?).or_default().insert(user.parse()?, count.parse()?);
        }
        Ok(counts)
    }

    /// Once a checkpoint counts, snapshots of earlier ones are of no use.
    pub(crate) fn remove_all_but(&self, id: u64) -> Result<()> {
        for file in fs::read_dir(&self.directory)? {
            let file = file?.path();
            if file != self.path(id) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }

    fn path(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string())
    }

    /// A name is durable when its directory was synced; this directory may be new as well.
    fn sync_directories(&self) -> Result<()> {
        File::open(&self.directory)?.sync_all()?;
        if let Some(parent) = self.directory.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}
