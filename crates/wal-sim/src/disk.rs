//! Files: what is durable, what was written since, and what the process sees.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::content::{BLOCK_BYTES, Block, Content};
use crate::names::{Directory, Entry};
use crate::random::to_index;

/// Everything that is on the simulated disk or on its way to it. A clone costs a few pointers per
/// file and shares all bytes.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) files: BTreeMap<FileId, Arc<File>>,
    /// The root has the id [`ROOT`](crate::names::ROOT).
    pub(crate) directories: BTreeMap<DirectoryId, Arc<Directory>>,
    next_id: u64,
    /// Stamps everything that is not durable yet with its place in the order of issue.
    next_stamp: u64,
    /// Up to this stamp a journal that keeps the order has all changes of names.
    pub(crate) journaled: u64,
    /// Blocks of files that are gone for good: whoever gets their space may find them there.
    pub(crate) remains: Arc<Vec<Arc<Block>>>,
}

/// So many blocks of former files are kept, the newest ones.
const REMAINS_MAX: usize = 64;

/// A file apart from its names, as an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub(crate) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DirectoryId(pub(crate) u64);

/// The three sides of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    /// The name it was last given, for messages.
    pub(crate) name: Arc<str>,
    /// What is on the platter for certain.
    pub(crate) durable: Content,
    /// What the process reads: every write there was, also those that a failed sync dropped.
    pub(crate) view: Content,
    /// Writes that power loss may take in part or whole, oldest first.
    pub(crate) pending: Vec<PendingWrite>,
    /// Sizes that the file went through above the durable one, rising. A failed sync does not
    /// take them back: the size of a file is kept apart from its bytes, so that afterwards it may
    /// be long and empty.
    pub(crate) pending_sizes: Vec<u64>,
    /// The newest stamp when the file was made, or last became longer: what a journal must hold
    /// when it holds that.
    pub(crate) metadata_stamp: u64,
}

/// A write that no sync has covered.
#[derive(Debug, Clone)]
pub(crate) struct PendingWrite {
    pub(crate) stamp: u64,
    pub(crate) pieces: Vec<Piece>,
}

/// A run of written bytes.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Where in the file; within one block unless it is zeroes.
    pub(crate) range: Range<u64>,
    /// The block as it was after the write, of which only `range` counts; `None` for zeroes.
    pub(crate) block: Option<Arc<Block>>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let root = BTreeMap::from([(crate::names::ROOT, Arc::new(Directory::default()))]);
        Self {
            files: BTreeMap::new(),
            directories: root,
            next_id: 1,
            next_stamp: 1,
            journaled: 0,
            remains: Arc::default(),
        }
    }

    pub(crate) const fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub(crate) const fn new_stamp(&mut self) -> u64 {
        self.next_stamp += 1;
        self.next_stamp - 1
    }

    pub(crate) const fn newest_stamp(&self) -> u64 {
        self.next_stamp - 1
    }

    /// Notes that a sync has reached the journal, and with it everything that was there before.
    pub(crate) fn journal_up_to(&mut self, stamp: u64) {
        self.journaled = self.journaled.max(stamp);
    }

    pub(crate) fn file(&self, id: FileId) -> Option<&File> {
        self.files.get(&id).map(Arc::as_ref)
    }

    pub(crate) fn file_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.files.get_mut(&id).map(Arc::make_mut)
    }

    /// Blocks taken by files that have a name or are among `open`, as a file system counts them.
    pub(crate) fn used_blocks(&self, open: impl Fn(FileId) -> bool) -> u64 {
        let named = self.named_files();
        let counted = self.files.iter().filter(|(id, _)| named.contains(id) || open(**id));
        counted.map(|(_, file)| file.view.allocated_blocks()).sum()
    }

    /// Whether the file has a name at this moment.
    pub(crate) fn is_named(&self, id: FileId) -> bool {
        // Nearly always under the last name that it was given. A crash can leave it two.
        let last = self.file(id).map(|file| self.entry(&file.name));
        matches!(last, Some(Ok(Some(Entry::File(found)))) if found == id)
            || self.named_files().contains(&id)
    }

    /// The files that have a name at this moment.
    pub(crate) fn named_files(&self) -> BTreeSet<FileId> {
        let entries = self.directories.values().flat_map(|directory| directory.view.values());
        entries.filter_map(Entry::file).collect()
    }

    /// Forgets files and directories that nothing can bring back: no name, no name that a crash
    /// could restore, and not among `open`.
    pub(crate) fn collect(&mut self, open: impl Fn(FileId) -> bool) {
        let mut directories = BTreeSet::from([crate::names::ROOT]);
        let mut files = BTreeSet::new();
        let mut unvisited = vec![crate::names::ROOT];
        while let Some(directory) = unvisited.pop().and_then(|id| self.directories.get(&id)) {
            for entry in directory.reachable() {
                match entry {
                    Entry::File(id) => {
                        files.insert(id);
                    }
                    Entry::Directory(id) => {
                        if directories.insert(id) {
                            unvisited.push(id);
                        }
                    }
                }
            }
        }
        let mut remains = Vec::new();
        self.files.retain(|id, file| {
            let is_kept = files.contains(id) || open(*id);
            if !is_kept {
                remains.extend(file.durable.data_blocks().map(|(_, block)| block.clone()));
            }
            is_kept
        });
        if !remains.is_empty() {
            let all = Arc::make_mut(&mut self.remains);
            all.extend(remains);
            all.drain(..all.len().saturating_sub(REMAINS_MAX));
        }
        self.directories.retain(|id, _| directories.contains(id));
    }
}

impl File {
    /// Writes those parts of `slices`, which begin at `offset`, that lie in `parts`, and returns
    /// what reached the page cache. The caller decides what becomes of it.
    pub(crate) fn write(
        &mut self,
        slices: &[&[u8]],
        offset: u64,
        parts: &[Range<u64>],
    ) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for part in parts {
            let mut slice_start = offset;
            for slice in slices {
                let slice_end = slice_start + slice.len() as u64;
                let range = slice_start.max(part.start)..slice_end.min(part.end);
                if range.start < range.end {
                    let within =
                        to_index(range.start - slice_start)..to_index(range.end - slice_start);
                    self.write_slice(&slice[within], range.start, &mut pieces);
                }
                slice_start = slice_end;
            }
        }
        pieces
    }

    /// Writes zeroes, which take space like any other bytes.
    pub(crate) fn write_zeroes(&mut self, range: Range<u64>) -> Vec<Piece> {
        self.grow_view(range.end);
        self.view.write_zeroes(range.clone());
        vec![Piece { range, block: None }]
    }

    /// Makes what is pending durable, and the size.
    pub(crate) fn sync(&mut self) {
        self.durable.grow_to(self.view.size_bytes());
        for write in std::mem::take(&mut self.pending) {
            for piece in &write.pieces {
                piece.apply(&mut self.durable);
            }
        }
        self.pending_sizes.clear();
    }

    /// Makes `pieces` durable and nothing else, except the size they need.
    pub(crate) fn write_through(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            self.durable.grow_to(piece.range.end);
            piece.apply(&mut self.durable);
            self.supersede(&piece.range);
        }
        let durable_size = self.durable.size_bytes();
        self.pending_sizes.retain(|size| *size > durable_size);
    }

    /// Takes `range` out of all pending writes: newer bytes are durable there, and an older write
    /// must not come back over them.
    pub(crate) fn supersede(&mut self, range: &Range<u64>) {
        for write in &mut self.pending {
            if !write.pieces.iter().any(|piece| piece.overlaps(range)) {
                continue;
            }
            let old = std::mem::take(&mut write.pieces);
            for piece in old {
                if piece.overlaps(range) {
                    let before = piece.range.start..range.start.max(piece.range.start);
                    let after = range.end.min(piece.range.end)..piece.range.end;
                    write.pieces.extend([before, after].into_iter().filter_map(|r| piece.cut(r)));
                } else {
                    write.pieces.push(piece);
                }
            }
        }
        self.pending.retain(|write| !write.pieces.is_empty());
    }

    fn write_slice(&mut self, bytes: &[u8], offset: u64, pieces: &mut Vec<Piece>) {
        self.grow_view(offset + bytes.len() as u64);
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = BLOCK_BYTES - to_index(at % BLOCK_BYTES as u64);
            let (head, tail) = rest.split_at(room.min(rest.len()));
            let block = self.view.write_in_block(at, head);
            let end = at + head.len() as u64;
            pieces.push(Piece { range: at..end, block: Some(block) });
            at = end;
            rest = tail;
        }
    }

    fn grow_view(&mut self, size_bytes: u64) {
        if size_bytes > self.view.size_bytes() {
            self.view.grow_to(size_bytes);
            self.pending_sizes.push(size_bytes);
        }
    }
}

impl Piece {
    pub(crate) fn apply(&self, content: &mut Content) {
        match &self.block {
            Some(block) => content.copy_in_block(&self.range, block),
            None => content.write_zeroes(self.range.clone()),
        }
    }

    /// The part of it that lies in `range`, if any.
    pub(crate) fn cut(&self, range: Range<u64>) -> Option<Self> {
        let range = range.start.max(self.range.start)..range.end.min(self.range.end);
        (range.start < range.end).then(|| Self { range, block: self.block.clone() })
    }

    const fn overlaps(&self, range: &Range<u64>) -> bool {
        self.range.start < range.end && range.start < self.range.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; to_index(file.durable.size_bytes())];
        file.durable.read(&mut bytes, 0);
        bytes
    }

    fn write(file: &mut File, bytes: &[u8], offset: u64) -> Vec<Piece> {
        let whole = offset..offset + bytes.len() as u64;
        file.write(&[bytes], offset, std::slice::from_ref(&whole))
    }

    fn write_later(file: &mut File, bytes: &[u8], offset: u64) {
        let pieces = write(file, bytes, offset);
        file.pending.push(PendingWrite { stamp: 0, pieces });
    }

    #[test]
    fn an_older_write_does_not_come_back_over_a_write_through() {
        let mut file = File::default();
        write_later(&mut file, &[1; 9000], 0);
        let through = write(&mut file, &[2; 4000], 3000);
        file.write_through(&through);
        assert_eq!(durable(&file)[..3000], [0; 3000]);
        assert_eq!(durable(&file)[3000..7000], [2; 4000]);
        assert_eq!(durable(&file).len(), 7000);
        file.sync();
        assert_eq!(durable(&file)[..3000], [1; 3000]);
        assert_eq!(durable(&file)[3000..7000], [2; 4000]);
        assert_eq!(durable(&file)[7000..], [1; 2000]);
    }

    #[test]
    fn a_sync_applies_writes_in_their_order() {
        let mut file = File::default();
        write_later(&mut file, b"aaaa", 0);
        write_later(&mut file, b"bb", 1);
        write_later(&mut file, b"c", 2);
        file.sync();
        assert_eq!(durable(&file), b"abca");
    }

    #[test]
    fn a_superseded_run_of_zeroes_keeps_both_its_ends() {
        let mut file = File::default();
        let pieces = file.write_zeroes(0..100_000);
        file.pending.push(PendingWrite { stamp: 0, pieces });
        file.supersede(&(5000..6000));
        let ranges: Vec<_> = file.pending[0].pieces.iter().map(|p| p.range.clone()).collect();
        assert_eq!(ranges, [0..5000, 6000..100_000]);
    }
}
