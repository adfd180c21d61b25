//! What is dropped though it was there, and has to be in quarantine before it is dropped.

use std::sync::Arc;

use wal_format::{CoreDirectory, Manifest, SegmentFile};
use wal_recovery::quarantine_name;
use wal_sim::SimStorage;
use wal_storage::WalError;

use crate::Checked;
use crate::look::Found;
use crate::oracle::Cut;

/// A segment file, some of which is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dropped {
    core: u16,
    segment_id: u64,
    bytes: Arc<Vec<u8>>,
}

impl Dropped {
    /// The segment files that hold anything behind a cut.
    pub(crate) fn by(
        cut: &Cut,
        found: &Found,
        machine: &SimStorage,
    ) -> Result<Vec<Self>, WalError> {
        let mut dropped = Vec::new();
        for core in &found.log.cores {
            let Some(to) = cut.cores.get(&core.core) else { continue };
            for span in core.spans.iter().filter(|span| span.end_position > to.position) {
                let (core, segment_id) = (core.core, span.segment_id);
                let bytes = Arc::new(machine.read_file(&original_name(core, segment_id))?);
                dropped.push(Self { core, segment_id, bytes });
            }
        }
        Ok(dropped)
    }

    fn is_copied(&self, machine: &SimStorage) -> bool {
        let copy = machine.read_file(&quarantine_name(self.core, self.segment_id));
        copy.is_ok_and(|bytes| bytes == *self.bytes)
    }

    fn name(&self) -> String {
        original_name(self.core, self.segment_id)
    }
}

/// Of a cut of which the manifest speaks, everything that it drops is in quarantine; and what ever
/// was dropped stays there.
pub(crate) fn holds_what_was_dropped<'a>(
    machine: &SimStorage,
    manifest: Option<&Manifest>,
    cuts: impl Iterator<Item = &'a Cut>,
    dropped_before: &[Dropped],
) -> Checked {
    for cut in cuts {
        let is_said = |dropped: &&Dropped| {
            let position = cut.cores.get(&dropped.core).map(|to| to.position);
            let mut cuts = manifest.into_iter().flat_map(|manifest| &manifest.cuts);
            cuts.any(|said| {
                said.core == dropped.core
                    && Some(said.position) == position
                    && said.dead_segment_id >= dropped.segment_id
            })
        };
        let mut said = cut.dropped.iter().filter(is_said);
        if let Some(missing) = said.find(|dropped| !dropped.is_copied(machine)) {
            return Err(format!("{} was dropped, and is not in quarantine", missing.name()));
        }
    }
    match dropped_before.iter().find(|dropped| !dropped.is_copied(machine)) {
        Some(lost) => Err(format!("{} was dropped, and is in quarantine no more", lost.name())),
        None => Ok(()),
    }
}

fn original_name(core: u16, segment_id: u64) -> String {
    format!("{}/{}", CoreDirectory(core), SegmentFile(segment_id))
}
