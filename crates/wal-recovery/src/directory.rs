//! What a log's directory holds: manifests, core directories, segment files, strange names.

use std::collections::BTreeMap;

use wal_format::{CoreDirectory, ManifestSlot, SegmentFile, TemporaryFile};
use wal_storage::{ListedKind, Result, Storage};

/// Holds copies of the segment files from which something was dropped that had been there, under
/// the names of [`quarantine_name`]. Nothing reads them, or removes them.
pub const QUARANTINE_DIRECTORY: &str = "quarantine";

/// File systems put it into the root of a fresh volume; a log may lie beside it.
const LOST_AND_FOUND: &str = "lost+found";

/// The names in a log's directory, sorted by what they are.
#[derive(Debug, Default)]
pub(crate) struct LogDirectory {
    /// Which manifest slots are there.
    pub(crate) slots: [bool; 2],
    pub(crate) cores: BTreeMap<u16, CoreFiles>,
    /// What is left alone: names that no log gives.
    pub(crate) strange_names: Vec<String>,
}

/// The names in one core's directory.
#[derive(Debug, Default)]
pub(crate) struct CoreFiles {
    /// Numbers of segment files, ascending.
    pub(crate) segment_ids: Vec<u64>,
    /// Numbers of names that should be segment files and are directories, links or the like.
    pub(crate) not_files: Vec<u64>,
    /// Numbers of segment files that cannot be read, and whose loss was accepted.
    pub(crate) lost: Vec<u64>,
    /// Names of segments that were being prepared.
    pub(crate) temporaries: Vec<String>,
}

impl LogDirectory {
    /// Whether nothing at all is there that a log could have left.
    pub(crate) fn has_no_log_names(&self) -> bool {
        self.slots == [false; 2] && self.cores.is_empty()
    }
}

impl CoreFiles {
    /// No segment's name has a higher number; 0 if there is none.
    pub(crate) fn highest_id(&self) -> u64 {
        self.segment_ids.iter().chain(&self.not_files).copied().max().unwrap_or(0)
    }
}

/// Lists the log's directory and its core directories.
pub(crate) fn list(storage: &dyn Storage) -> Result<LogDirectory> {
    let mut directory = LogDirectory::default();
    for listed in storage.list("")? {
        let slot = ManifestSlot::parse(&listed.name);
        match (listed.kind, slot, CoreDirectory::parse(&listed.name)) {
            (ListedKind::File, Some(ManifestSlot::Zero), _) => directory.slots[0] = true,
            (ListedKind::File, Some(ManifestSlot::One), _) => directory.slots[1] = true,
            (ListedKind::Directory, _, Some(CoreDirectory(core))) => {
                directory.cores.insert(core, CoreFiles::default());
            }
            _ if listed.name == LOST_AND_FOUND => {}
            (ListedKind::Directory, ..) if listed.name == QUARANTINE_DIRECTORY => {}
            _ => directory.strange_names.push(listed.name),
        }
    }
    let mut strange_names = std::mem::take(&mut directory.strange_names);
    for (&core, files) in &mut directory.cores {
        list_core(storage, core, files, &mut strange_names)?;
    }
    strange_names.sort();
    directory.strange_names = strange_names;
    Ok(directory)
}

fn list_core(
    storage: &dyn Storage,
    core: u16,
    files: &mut CoreFiles,
    strange_names: &mut Vec<String>,
) -> Result<()> {
    let core_directory = CoreDirectory(core).to_string();
    for listed in storage.list(&core_directory)? {
        let segment = SegmentFile::parse(&listed.name);
        let is_temporary = TemporaryFile::parse(&listed.name).is_some();
        match (segment, listed.kind) {
            (Some(SegmentFile(id)), ListedKind::File) => files.segment_ids.push(id),
            (Some(SegmentFile(id)), _) => files.not_files.push(id),
            (None, ListedKind::File) if is_temporary => files.temporaries.push(listed.name),
            (None, _) => strange_names.push(format!("{core_directory}/{}", listed.name)),
        }
    }
    files.segment_ids.sort_unstable();
    files.not_files.sort_unstable();
    files.temporaries.sort();
    Ok(())
}

/// The name of a segment's file, relative to the log's directory.
pub(crate) fn segment_name(core: u16, segment_id: u64) -> String {
    format!("{}/{}", CoreDirectory(core), SegmentFile(segment_id))
}

/// The name of a segment file's copy in quarantine, relative to the log's directory.
#[must_use]
pub fn quarantine_name(core: u16, segment_id: u64) -> String {
    format!("{QUARANTINE_DIRECTORY}/{}-{}", CoreDirectory(core), SegmentFile(segment_id))
}
