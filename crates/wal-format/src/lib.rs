//! The bytes of laminar-wal, format version 1: record framing, segment blocks, manifest, names.
//!
//! This crate turns bytes into records and back. It does no I/O, knows nothing of what an entry
//! means, reads no clock, and runs without `std`. Writers of tools that read the files need
//! nothing else; everybody else wants the facade crate `laminar-wal`. `docs/format.md` in the
//! repository is the specification that this crate implements.
//!
//! # A segment
//!
//! ```text
//! byte 0      4096     8192     12288                                     size
//! +----------+--------+--------+-----------------------------------------+
//! | identity | start  | vouch  | records ...           | unwritten space  |
//! +----------+--------+--------+-----------------------------------------+
//!   never      written  rewritten   each record: [length and kind u32][crc32c u32][payload]
//!   changed    once     in place    at a multiple of 8 bytes
//! ```
//!
//! The *position* of a record is counted from the start of the core's log, header blocks left
//! out; the start block says which position the segment's first record has.
//!
//! # Listing the records of a segment
//!
//! ```
//! use wal_format::{RecordKind, SegmentBytes};
//!
//! fn list(file: &[u8]) -> Result<usize, wal_format::BlockError> {
//!     let segment = SegmentBytes::parse(file)?;
//!     println!("core {} segment {}", segment.identity().core, segment.identity().segment_id);
//!     let mut records = segment.records();
//!     let mut entries = 0;
//!     for record in &mut records {
//!         println!("{:>10} {:?} {} bytes", record.position, record.kind, record.payload.len());
//!         entries += usize::from(record.kind == RecordKind::Entry);
//!     }
//!     println!("ends at {} because: {}", records.position(), records.ended_by());
//!     Ok(entries)
//! }
//! # let mut image = Vec::new();
//! # let identity = wal_format::Identity {
//! #     log_id: wal_format::LogId([7; 16]), core: 3, segment_id: 1, size_bytes: 32768,
//! #     payload_type: 1, payload_version: 1, max_record_bytes: 4096,
//! #     features: wal_format::Features::NONE, salt: 9, created_ns: 0,
//! # };
//! # let start = wal_format::Start {
//! #     predecessor: None, base_position: 0, base_sequence: 0, last_epoch: 0,
//! #     last_timestamp_ns: 0, manifest_number: 1,
//! # };
//! # image.extend_from_slice(identity.encode().as_bytes());
//! # image.extend_from_slice(start.encode(9).as_bytes());
//! # image.extend_from_slice(&[0; 4096]);
//! # let header = wal_format::encode_record_header(RecordKind::Entry, b"8 bytes.", 9, 0).unwrap();
//! # image.extend_from_slice(&header);
//! # image.extend_from_slice(b"8 bytes.");
//! # image.resize(32768, 0);
//! # assert_eq!(list(&image), Ok(1));
//! ```

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod block;
mod checksum;
mod file_name;
mod identity;
mod manifest;
mod record;
mod segment_bytes;
mod start;
mod vouch;

pub use block::{Block, BlockError, Features, LogId};
pub use checksum::crc32c_append;
pub use file_name::{
    CORE_DIRECTORY_PREFIX, CoreDirectory, ManifestSlot, SegmentFile, TemporaryFile,
};
pub use identity::Identity;
pub use manifest::{
    AcceptedDamage, Checkpoint, CheckpointCore, Cut, MANIFEST_SLOT_BYTES, Manifest, Membership,
    Release, SourceOffset,
};
pub use record::{
    BATCH_ENTRY_HEADER_BYTES, BatchEntries, MARK_FIRST_WORD, MARK_RECORD_BYTES, Mark,
    PAYLOAD_BYTES_CEILING, RECORD_ALIGNMENT_BYTES, RECORD_HEADER_BYTES, Record, RecordHeader,
    RecordKind, SEAL_RECORD_BYTES, Seal, Unreadable, decode_record, encode_batch_entry_header,
    encode_record_header,
};
pub use segment_bytes::{Records, SegmentBytes};
pub use start::{Predecessor, Start};
pub use vouch::{VOUCH_SLOT_BYTES, VouchSlot, newest_vouch};

/// The version of the format that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Size of a header block, and of the blocks in which batches are written.
pub const BLOCK_BYTES: usize = 4096;

/// Where the start block of a segment lies in its file.
pub const START_OFFSET: u64 = 4096;

/// Where the vouch block of a segment lies in its file.
pub const VOUCH_OFFSET: u64 = 2 * 4096;

/// Identity, start and vouch block: the records of a segment begin behind them.
pub const SEGMENT_HEADER_BYTES: u64 = 3 * 4096;

/// The end of a segment that ordinary entries leave free, so that a barrier, a mark and the seal
/// always find room.
pub const SEGMENT_RESERVE_BYTES: u64 = 8 * 1024;

/// The smallest segment: its header, its reserve, and one block of records.
pub const SEGMENT_BYTES_MIN: u64 = SEGMENT_HEADER_BYTES + SEGMENT_RESERVE_BYTES + 4096;

/// The smallest limit that a log may set for its records: the smallest entry's archive, which is
/// larger than a mark's payload. Below it no mark could be read.
pub const MAX_RECORD_BYTES_MIN: u32 = 64;

/// The largest payload of a record unless the log was made with another limit.
pub const MAX_RECORD_BYTES_DEFAULT: u32 = 16 * 1024 * 1024;

const _: () = {
    assert!(START_OFFSET == BLOCK_BYTES as u64);
    assert!(VOUCH_OFFSET == START_OFFSET + BLOCK_BYTES as u64);
    assert!(SEGMENT_HEADER_BYTES == VOUCH_OFFSET + BLOCK_BYTES as u64);
    assert!(MAX_RECORD_BYTES_DEFAULT <= PAYLOAD_BYTES_CEILING);
    assert!(MAX_RECORD_BYTES_MIN as usize + RECORD_HEADER_BYTES >= MARK_RECORD_BYTES);
    assert!(MAX_RECORD_BYTES_MIN as usize + RECORD_HEADER_BYTES >= SEAL_RECORD_BYTES);
    assert!(SEGMENT_RESERVE_BYTES.is_multiple_of(BLOCK_BYTES as u64));
};
