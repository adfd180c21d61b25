//! How much of the disk a log takes, and what for.

use std::collections::BTreeSet;
use std::sync::Arc;

use wal_format::{CoreDirectory, ManifestSlot, SegmentFile};
use wal_storage::{Access, ListedKind, Result, Storage};

use crate::core_log::{CoreLog, LogShared};

/// How much of the disk a log takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Both slots of the manifest, in bytes.
    pub manifest_bytes: u64,
    /// Each core with a directory, ascending; cores that do not log any more among them.
    pub cores: Vec<CoreDiskUsage>,
}

/// How much of the disk one core's log takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreDiskUsage {
    /// The core.
    pub core: u16,
    /// How many files hold a part of its log that was not given back.
    pub live_segments: u64,
    /// Their sizes, in bytes.
    pub live_bytes: u64,
    /// How many files were prepared, or are kept to be recycled, or are about to be removed.
    pub other_files: u64,
    /// Their sizes, in bytes.
    pub other_bytes: u64,
}

impl DiskUsage {
    /// All of it, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let cores = self.cores.iter().map(|core| core.live_bytes + core.other_bytes);
        self.manifest_bytes + cores.sum::<u64>()
    }
}

pub(crate) fn measure(shared: &LogShared, open: &[Arc<CoreLog>]) -> Result<DiskUsage> {
    let storage = &*shared.storage;
    let mut usage = DiskUsage::default();
    for slot in ManifestSlot::BOTH {
        usage.manifest_bytes += size_bytes(storage, slot.name())?;
    }
    for listed in storage.list("")? {
        if let (ListedKind::Directory, Some(directory)) =
            (listed.kind, CoreDirectory::parse(&listed.name))
        {
            let live = live_segments(shared, open, directory.0);
            usage.cores.push(measure_core(storage, directory, &live)?);
        }
    }
    usage.cores.sort_unstable_by_key(|core| core.core);
    Ok(usage)
}

fn live_segments(shared: &LogShared, open: &[Arc<CoreLog>], core: u16) -> BTreeSet<u64> {
    let open = open.iter().find(|log| log.core == core).map(|log| log.spans.all());
    let spans = open.unwrap_or_else(|| shared.spans_of_retired(core));
    spans.iter().map(|span| span.segment_id).collect()
}

fn measure_core(
    storage: &dyn Storage,
    directory: CoreDirectory,
    live: &BTreeSet<u64>,
) -> Result<CoreDiskUsage> {
    let mut usage = CoreDiskUsage { core: directory.0, ..CoreDiskUsage::default() };
    for listed in storage.list(&directory.to_string())? {
        if listed.kind != ListedKind::File {
            continue;
        }
        let bytes = size_bytes(storage, &format!("{directory}/{}", listed.name))?;
        let segment = SegmentFile::parse(&listed.name);
        if segment.is_some_and(|segment| live.contains(&segment.0)) {
            usage.live_segments += 1;
            usage.live_bytes += bytes;
        } else {
            usage.other_files += 1;
            usage.other_bytes += bytes;
        }
    }
    Ok(usage)
}

/// 0 for a file that is gone by now: the background may have removed it.
fn size_bytes(storage: &dyn Storage, name: &str) -> Result<u64> {
    match storage.open(name, Access::Read).and_then(|file| file.size_bytes()) {
        Err(error) if error.is_not_found() => Ok(0),
        size => size,
    }
}
