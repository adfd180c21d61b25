//! What changes while a machine runs: the disk, the space on it, and what is yet to go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use wal_storage::IoMode;

use crate::content::{BLOCK_BYTES, blocks_of};
use crate::disk::{DirectoryId, Disk, File, FileId, PendingWrite, Piece};
use crate::fault::{Faults, Operation, OperationKind, Part};
use crate::machine::SimStorage;
use crate::names::Change;
use crate::random::Random;

/// What changes while a machine runs.
pub(crate) struct State {
    pub(crate) disk: Disk,
    pub(crate) mode: IoMode,
    /// How often each file is open. An open file keeps its space when it loses its name.
    pub(crate) open: BTreeMap<FileId, u32>,
    pub(crate) used_blocks: u64,
    pub(crate) capacity_blocks: Option<u64>,
    pub(crate) counts: [u64; OperationKind::ALL.len()],
    pub(crate) faults: Faults,
    pub(crate) halt_at: Option<u64>,
    pub(crate) is_halted: bool,
    pub(crate) trace: Option<Vec<Operation>>,
    pub(crate) snapshots: Snapshots,
    /// What decides about failed operations.
    pub(crate) random: Random,
    /// What decides about the order of joint writes.
    pub(crate) order: Random,
    /// Where random bytes come from.
    pub(crate) salts: Random,
}

#[derive(Default)]
pub(crate) struct Snapshots {
    pub(crate) at: BTreeSet<u64>,
    pub(crate) each_change: bool,
    pub(crate) taken: Vec<(u64, SimStorage)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Whole,
    TooMuch,
}

impl State {
    pub(crate) fn new(seed: u64, disk: Disk) -> Self {
        Self {
            disk,
            mode: IoMode::Direct,
            open: BTreeMap::new(),
            used_blocks: 0,
            capacity_blocks: None,
            counts: [0; OperationKind::ALL.len()],
            faults: Faults::default(),
            halt_at: None,
            is_halted: false,
            trace: None,
            snapshots: Snapshots::default(),
            random: Random::stream(seed, 0),
            order: Random::stream(seed, 1),
            salts: Random::stream(seed, 2),
        }
    }

    /// The state of a machine that nothing was done on yet, with this much room in all.
    pub(crate) fn with_capacity(self, capacity_blocks: Option<u64>) -> Self {
        let used_blocks = self.disk.used_blocks(|_| false);
        Self { capacity_blocks, used_blocks, ..self }
    }

    /// Everything but open files and snapshots. What takes space only because it is open takes
    /// none in the copy.
    pub(crate) fn copy(&self) -> Self {
        let nameless = self.open.keys().filter(|id| !self.disk.is_named(**id));
        let nameless_blocks = nameless
            .filter_map(|id| self.disk.file(*id))
            .map(|file| file.view.allocated_blocks())
            .sum::<u64>();
        Self {
            disk: self.disk.clone(),
            mode: self.mode,
            open: BTreeMap::new(),
            used_blocks: self.used_blocks - nameless_blocks,
            capacity_blocks: self.capacity_blocks,
            counts: self.counts,
            faults: self.faults.clone(),
            halt_at: self.halt_at,
            is_halted: self.is_halted,
            trace: self.trace.as_ref().map(|_| Vec::new()),
            snapshots: Snapshots::default(),
            random: self.random.clone(),
            order: self.order.clone(),
            salts: self.salts.clone(),
        }
    }

    /// Depends on what was drawn so far, so that no two lives in a row share random bytes.
    pub(crate) fn next_life_seed(&self) -> u64 {
        self.salts.clone().next()
    }

    pub(crate) fn free_blocks(&self) -> u64 {
        /// One TiB, and it stays that: a disk without a limit does not fill.
        const ENDLESS_BLOCKS: u64 = (1 << 40) / BLOCK_BYTES as u64;
        let free = |capacity: u64| capacity.saturating_sub(self.used_blocks);
        self.capacity_blocks.map_or(ENDLESS_BLOCKS, free)
    }

    /// Shortens `parts` of a file to those whose blocks are there or can still be had, in order.
    pub(crate) fn fit(&self, id: FileId, parts: &mut Vec<Range<u64>>) -> Fit {
        let (Some(file), Some(_)) = (self.disk.file(id), self.capacity_blocks) else {
            return Fit::Whole;
        };
        let mut free = self.free_blocks();
        let mut last_paid = None;
        for index in 0..parts.len() {
            for block in blocks_of(&parts[index]) {
                if file.view.is_allocated(block) || last_paid == Some(block) {
                    continue;
                }
                if free == 0 {
                    let end = (block * BLOCK_BYTES as u64).max(parts[index].start);
                    parts[index].end = end;
                    parts.truncate(index + 1);
                    return Fit::TooMuch;
                }
                free -= 1;
                last_paid = Some(block);
            }
        }
        Fit::Whole
    }

    /// Puts bytes into the page cache; what becomes of the pieces is up to the caller.
    pub(crate) fn write(
        &mut self,
        id: FileId,
        slices: &[&[u8]],
        offset: u64,
        parts: &[Range<u64>],
    ) -> Vec<Piece> {
        let stamp = self.disk.newest_stamp();
        let Some(file) = self.disk.file_mut(id) else {
            return Vec::new();
        };
        let (blocks, size_bytes) = (file.view.allocated_blocks(), file.view.size_bytes());
        let pieces = file.write(slices, offset, parts);
        self.used_blocks += file.view.allocated_blocks() - blocks;
        if file.view.size_bytes() > size_bytes {
            file.metadata_stamp = stamp;
        }
        pieces
    }

    pub(crate) fn write_zeroes(&mut self, id: FileId, size_bytes: u64) {
        let Some(file) = self.disk.file_mut(id) else {
            return;
        };
        let pieces = file.write_zeroes(0..size_bytes);
        self.used_blocks += file.view.allocated_blocks();
        self.keep_pending(id, pieces);
    }

    pub(crate) fn keep_pending(&mut self, id: FileId, pieces: Vec<Piece>) {
        let stamp = self.disk.new_stamp();
        if let Some(file) = self.disk.file_mut(id)
            && !pieces.is_empty()
        {
            file.pending.push(PendingWrite { stamp, pieces });
        }
    }

    /// What a failed write through leaves of what it wrote: each piece is durable, pending, or in
    /// the page cache alone, where a failed flush leaves it.
    pub(crate) fn scatter(&mut self, id: FileId, pieces: Vec<Piece>) {
        for piece in pieces {
            match self.random.below(3) {
                0 => self.keep_pending(id, vec![piece]),
                chosen => {
                    let Some(file) = self.disk.file_mut(id) else {
                        return;
                    };
                    if chosen == 1 {
                        file.write_through(&[piece]);
                    } else {
                        file.supersede(&piece.range);
                    }
                }
            }
        }
    }

    /// Makes what is pending in a file durable, and notes what the journal holds by then.
    pub(crate) fn sync_file(&mut self, id: FileId) {
        if let Some(file) = self.disk.file_mut(id) {
            file.sync();
            let stamp = file.metadata_stamp;
            self.disk.journal_up_to(stamp);
        }
    }

    /// Makes `pieces` of a file durable, and notes what the journal holds by then.
    pub(crate) fn write_through(&mut self, id: FileId, pieces: &[Piece]) {
        if let Some(file) = self.disk.file_mut(id) {
            file.write_through(pieces);
            let stamp = file.metadata_stamp;
            self.disk.journal_up_to(stamp);
        }
    }

    /// Makes every change of names in a directory durable, and notes what the journal holds.
    pub(crate) fn sync_names(&mut self, id: DirectoryId) {
        if let Some(directory) = self.disk.directory_mut(id) {
            let stamp = directory.pending.last().map_or(0, |change| change.stamp);
            let is_anything_lost = directory.sync();
            self.disk.journal_up_to(stamp);
            if is_anything_lost {
                self.collect();
            }
        }
    }

    pub(crate) fn drop_name_changes(&mut self, id: DirectoryId, part: Part) {
        let Some(directory) = self.disk.directory_mut(id) else {
            return;
        };
        let pending = std::mem::take(&mut directory.pending);
        let mut kept = part.of_many(pending.len(), &mut self.random);
        for index in 1..pending.len() {
            // The two halves of a rename follow each other, and the old name never goes alone.
            let is_pair = pending[index].change == Change::RenamedFrom
                && pending[index - 1].stamp == pending[index].stamp;
            kept[index] &= !is_pair || kept[index - 1];
        }
        for (change, _) in pending.iter().zip(kept).filter(|(_, is_kept)| *is_kept) {
            change.apply(&mut directory.durable);
        }
        self.collect();
    }

    /// Counts a file's space as free if it has no name and nobody has it open.
    pub(crate) fn give_back(&mut self, id: FileId) {
        if self.open.contains_key(&id) || self.disk.is_named(id) {
            return;
        }
        if let Some(file) = self.disk.file(id) {
            self.used_blocks -= file.view.allocated_blocks();
        }
    }

    pub(crate) fn collect(&mut self) {
        let open = &self.open;
        self.disk.collect(|id| open.contains_key(&id));
    }

    /// Counts space anew after the disk was changed behind the machine's back.
    pub(crate) fn recount(&mut self) {
        self.used_blocks = self.disk.used_blocks(|id| self.open.contains_key(&id));
    }
}

/// What a failed sync does: some writes become durable, as `part` says, and none of the others
/// ever will.
pub(crate) fn drop_writes(file: &mut File, part: Part, random: &mut Random) {
    if part == Part::Everything {
        return file.sync();
    }
    let pending = std::mem::take(&mut file.pending);
    let kept = part.of_many(pending.len(), random);
    for (write, _) in pending.iter().zip(kept).filter(|(_, is_kept)| *is_kept) {
        for piece in &write.pieces {
            file.durable.grow_to(piece.range.end);
            piece.apply(&mut file.durable);
        }
    }
    let durable_size = file.durable.size_bytes();
    file.pending_sizes.retain(|size| *size > durable_size);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ROOT;

    #[test]
    fn files_that_nothing_can_bring_back_are_forgotten() -> std::io::Result<()> {
        let mut state = State::new(1, Disk::new());
        for name in ["removed", "replaced", "new"] {
            state.disk.create_file(name)?;
        }
        state.sync_names(ROOT);
        state.disk.remove("removed")?;
        assert_eq!(state.disk.files.len(), 3, "power loss can bring it back");
        state.sync_names(ROOT);
        assert_eq!(state.disk.files.len(), 2);
        state.disk.rename("new", "replaced")?;
        state.sync_names(ROOT);
        assert_eq!(state.disk.files.len(), 1);
        // Replaced before its name was ever durable.
        for name in ["first", "second"] {
            state.disk.create_file(name)?;
            state.disk.rename(name, "both")?;
        }
        state.sync_names(ROOT);
        assert_eq!(state.disk.files.len(), 2);
        Ok(())
    }
}
