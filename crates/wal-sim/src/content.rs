//! The bytes of a file: sparse, and cheap to copy as a whole.
//!
//! A 64 MiB file of zeroes is 256 pointers to one and the same chunk, and a copy of it is 256
//! more. A block is copied when it is written while a copy of the file still looks at it.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use crate::random::{Random, mix, to_index};

/// The unit in which files take space, and the size of a block of direct I/O.
pub(crate) const BLOCK_BYTES: usize = 4096;

pub(crate) type Block = [u8; BLOCK_BYTES];

/// What a file holds, from some point of view: the process's or the platter's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    size_bytes: u64,
    /// Number of blocks that take space, here so that nobody need count.
    allocated: u64,
    chunks: Vec<Option<Arc<Chunk>>>,
}

const BLOCKS_PER_CHUNK: usize = 64;
const CHUNK_BYTES: u64 = (BLOCK_BYTES * BLOCKS_PER_CHUNK) as u64;

/// The numbers of the blocks that `range` touches.
pub(crate) const fn blocks_of(range: &Range<u64>) -> Range<u64> {
    if range.start >= range.end {
        return 0..0;
    }
    range.start / BLOCK_BYTES as u64..range.end.div_ceil(BLOCK_BYTES as u64)
}

#[derive(Debug, Clone)]
struct Chunk {
    /// One bit per block that takes space, be it zeroes or not.
    allocated: u64,
    /// `None` reads as zeroes.
    blocks: [Option<Arc<Block>>; BLOCKS_PER_CHUNK],
}

impl Content {
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Cuts the content or lets it grow by a hole, which reads as zeroes.
    pub(crate) fn set_size(&mut self, size_bytes: u64) {
        if size_bytes < self.size_bytes {
            let first_gone = size_bytes.next_multiple_of(BLOCK_BYTES as u64);
            self.fill_zero(size_bytes..first_gone.min(self.size_bytes));
            for block in blocks_of(&(first_gone..self.size_bytes)) {
                self.forget_block(block);
            }
            self.chunks.truncate(to_index(size_bytes.div_ceil(CHUNK_BYTES)));
        }
        self.size_bytes = size_bytes;
    }

    pub(crate) const fn grow_to(&mut self, size_bytes: u64) {
        if size_bytes > self.size_bytes {
            self.size_bytes = size_bytes;
        }
    }

    /// Fills `buffer` from `offset` on and returns how many bytes lay before the file's end.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let length = to_index(self.size_bytes.saturating_sub(offset)).min(buffer.len());
        let mut at = offset;
        let mut rest = &mut buffer[..length];
        while !rest.is_empty() {
            let start = to_index(at % BLOCK_BYTES as u64);
            let part = rest.len().min(BLOCK_BYTES - start);
            let (head, tail) = rest.split_at_mut(part);
            match self.block(at / BLOCK_BYTES as u64) {
                Some(block) => head.copy_from_slice(&block[start..start + part]),
                None => head.fill(0),
            }
            at += part as u64;
            rest = tail;
        }
        length
    }

    /// The block with this index, unless it is nothing but zeroes.
    pub(crate) fn block(&self, index: u64) -> Option<&Arc<Block>> {
        let (chunk, within) = split(index);
        self.chunks.get(chunk)?.as_ref()?.blocks[within].as_ref()
    }

    /// Whether the block takes space, so that writing to it needs none.
    pub(crate) fn is_allocated(&self, index: u64) -> bool {
        let (chunk, within) = split(index);
        match self.chunks.get(chunk) {
            Some(Some(chunk)) => chunk.allocated >> within & 1 == 1,
            _ => false,
        }
    }

    pub(crate) const fn allocated_blocks(&self) -> u64 {
        self.allocated
    }

    /// Writes `bytes`, which must not cross a block's end, and returns the block as it is now.
    ///
    /// Does not touch the size: data and size reach the disk on different ways.
    pub(crate) fn write_in_block(&mut self, offset: u64, bytes: &[u8]) -> Arc<Block> {
        let start = to_index(offset % BLOCK_BYTES as u64);
        let slot = self.slot(offset / BLOCK_BYTES as u64);
        if let Ok(whole) = Block::try_from(bytes) {
            return slot.insert(Arc::new(whole)).clone();
        }
        let block = slot.get_or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
        Arc::make_mut(block)[start..start + bytes.len()].copy_from_slice(bytes);
        block.clone()
    }

    /// Takes bytes `range`, which must not cross a block's end, from `source`.
    pub(crate) fn copy_in_block(&mut self, range: &Range<u64>, source: &Arc<Block>) {
        let start = to_index(range.start % BLOCK_BYTES as u64);
        let length = to_index(range.end - range.start);
        let slot = self.slot(range.start / BLOCK_BYTES as u64);
        if length == BLOCK_BYTES {
            *slot = Some(source.clone());
            return;
        }
        let block = slot.get_or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
        Arc::make_mut(block)[start..start + length].copy_from_slice(&source[start..start + length]);
    }

    /// Writes zeroes, which take space like any other bytes.
    pub(crate) fn write_zeroes(&mut self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let chunk = to_index(at / CHUNK_BYTES);
            if at.is_multiple_of(CHUNK_BYTES) && range.end - at >= CHUNK_BYTES {
                if self.chunks.len() <= chunk {
                    self.chunks.resize(chunk + 1, None);
                }
                let had = self.chunks[chunk].as_ref().map_or(0, |chunk| chunk.count_allocated());
                self.allocated += BLOCKS_PER_CHUNK as u64 - had;
                self.chunks[chunk] = Some(ZEROED.clone());
                at += CHUNK_BYTES;
                continue;
            }
            let block_end = (at + 1).next_multiple_of(BLOCK_BYTES as u64);
            let end = block_end.min(range.end);
            let slot = self.slot(at / BLOCK_BYTES as u64);
            if end - at == BLOCK_BYTES as u64 {
                *slot = None;
            } else if let Some(block) = slot {
                let start = to_index(at % BLOCK_BYTES as u64);
                Arc::make_mut(block)[start..start + to_index(end - at)].fill(0);
            }
            at = end;
        }
    }

    /// The blocks that may hold something else than zeroes, with their indices.
    pub(crate) fn data_blocks(&self) -> impl Iterator<Item = (u64, &Arc<Block>)> {
        self.chunks.iter().enumerate().flat_map(|(chunk_index, chunk)| {
            chunk.iter().flat_map(move |chunk| {
                chunk.blocks.iter().enumerate().filter_map(move |(within, block)| {
                    let index = chunk_index * BLOCKS_PER_CHUNK + within;
                    block.as_ref().map(|block| (index as u64, block))
                })
            })
        })
    }

    /// A hash of size and bytes. A hole, zeroes never written and zeroes written are equal.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hash = mix(0, self.size_bytes);
        for (index, block) in self.data_blocks().filter(|(_, block)| block.iter().any(|b| *b != 0))
        {
            hash = mix(hash, index);
            for word in block.chunks_exact(8) {
                let word = word.try_into().map_or(0, u64::from_le_bytes);
                hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
            }
        }
        mix(hash, 1)
    }

    /// Puts noise into a block that was never written.
    pub(crate) fn fill_with_noise(&mut self, index: u64, random: &mut Random) {
        let mut noise = [0; BLOCK_BYTES];
        random.fill(&mut noise);
        *self.slot(index) = Some(Arc::new(noise));
    }

    /// Zeroes `range`, as a cut file reads when it grows again; takes no space.
    fn fill_zero(&mut self, range: Range<u64>) {
        if !range.is_empty() && self.block(range.start / BLOCK_BYTES as u64).is_some() {
            self.write_zeroes(range);
        }
    }

    fn forget_block(&mut self, index: u64) {
        if self.is_allocated(index) {
            let (chunk, within) = split(index);
            if let Some(Some(chunk)) = self.chunks.get_mut(chunk) {
                let chunk = Arc::make_mut(chunk);
                chunk.allocated &= !(1 << within);
                chunk.blocks[within] = None;
                self.allocated -= 1;
            }
        }
    }

    /// The place of a block that is about to be written.
    fn slot(&mut self, index: u64) -> &mut Option<Arc<Block>> {
        let (chunk_index, within) = split(index);
        if self.chunks.len() <= chunk_index {
            self.chunks.resize(chunk_index + 1, None);
        }
        let chunk = Arc::make_mut(self.chunks[chunk_index].get_or_insert_with(|| EMPTY.clone()));
        self.allocated += 1 - (chunk.allocated >> within & 1);
        chunk.allocated |= 1 << within;
        &mut chunk.blocks[within]
    }
}

impl Chunk {
    fn count_allocated(&self) -> u64 {
        u64::from(self.allocated.count_ones())
    }
}

static EMPTY: LazyLock<Arc<Chunk>> = LazyLock::new(|| chunk_of_zeroes(0));
static ZEROED: LazyLock<Arc<Chunk>> = LazyLock::new(|| chunk_of_zeroes(u64::MAX));

fn chunk_of_zeroes(allocated: u64) -> Arc<Chunk> {
    Arc::new(Chunk { allocated, blocks: [const { None }; BLOCKS_PER_CHUNK] })
}

fn split(block: u64) -> (usize, usize) {
    let block = to_index(block);
    (block / BLOCKS_PER_CHUNK, block % BLOCKS_PER_CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &Content, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0xEE; length];
        let got = content.read(&mut buffer, offset);
        buffer.truncate(got);
        buffer
    }

    #[test]
    fn behaves_like_a_plain_vector_of_bytes() {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let mut content = Content::default();
            let mut model: Vec<u8> = Vec::new();
            for _ in 0..30 {
                let offset = random.below(3 * CHUNK_BYTES);
                let length = random.pick([1, 7, 4096, 5000, 300_000]);
                let end = offset + length;
                match random.below(4) {
                    0 => {
                        content.set_size(offset);
                        model.resize(to_index(offset), 0);
                    }
                    1 => {
                        content.grow_to(end);
                        content.write_zeroes(offset..end);
                        model.resize(model.len().max(to_index(end)), 0);
                        model[to_index(offset)..to_index(end)].fill(0);
                    }
                    _ => {
                        let start = to_index(offset);
                        let room = BLOCK_BYTES - start % BLOCK_BYTES;
                        let mut bytes = vec![0; room.min(to_index(length))];
                        random.fill(&mut bytes);
                        content.grow_to(offset + bytes.len() as u64);
                        content.write_in_block(offset, &bytes);
                        model.resize(model.len().max(start + bytes.len()), 0);
                        model[start..start + bytes.len()].copy_from_slice(&bytes);
                    }
                }
                let counted =
                    content.chunks.iter().flatten().map(|c| c.count_allocated()).sum::<u64>();
                assert_eq!(content.allocated_blocks(), counted, "seed {seed}");
            }
            assert_eq!(content.size_bytes(), model.len() as u64, "seed {seed}");
            assert!(read(&content, 0, model.len() + 1) == model, "seed {seed}");
        }
    }

    #[test]
    fn a_copy_keeps_its_bytes_when_the_original_changes() {
        let mut content = Content::default();
        content.grow_to(8192);
        content.write_in_block(4096, b"old");
        let copy = content.clone();
        content.write_in_block(4096, b"new");
        assert_eq!(read(&copy, 4096, 3), b"old");
        assert_eq!(read(&content, 4096, 3), b"new");
    }

    #[test]
    fn written_zeroes_take_space_and_a_hole_does_not() {
        let mut content = Content::default();
        content.set_size(1 << 20);
        assert_eq!(content.allocated_blocks(), 0);
        content.write_zeroes(0..1 << 20);
        assert_eq!(content.allocated_blocks(), 256);
        assert!(blocks_of(&(0..1 << 20)).all(|block| content.is_allocated(block)));
        assert_eq!(content.data_blocks().count(), 0);
    }

    #[test]
    fn the_fingerprint_sees_bytes_and_size_but_not_how_zeroes_came_about() {
        let mut hole = Content::default();
        hole.set_size(8192);
        let mut zeroes = hole.clone();
        zeroes.write_zeroes(0..8192);
        let mut block = hole.clone();
        block.write_in_block(0, &[0; 10]);
        assert_eq!(hole.fingerprint(), zeroes.fingerprint());
        assert_eq!(hole.fingerprint(), block.fingerprint());
        block.write_in_block(9, &[1]);
        assert_ne!(hole.fingerprint(), block.fingerprint());
        zeroes.set_size(8191);
        assert_ne!(hole.fingerprint(), zeroes.fingerprint());
    }
}
