//! Header blocks in memory that direct I/O takes.
//!
//! Never on the stack: a compiler of our time sets up the frame of a function with an early return
//! and an over-aligned local wrongly (`docs/decisions/0006-no-aligned-blocks-on-the-stack.md`).

use wal_entry::RecordBuffer;
use wal_format::{BLOCK_BYTES, Block};

/// The blocks, one behind the other.
pub(crate) fn header_blocks(blocks: &[&Block]) -> RecordBuffer {
    let mut buffer = RecordBuffer::with_capacity(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        buffer.extend_from_slice(block.as_bytes());
    }
    buffer
}
