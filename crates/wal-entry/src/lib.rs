//! The entries of laminar-wal: what a record means, its archive, its order.
//!
//! You probably want the facade crate `laminar-wal`, which re-exports what a user of a log needs.
//! This crate owns *meaning*. It knows no record, no file and no position: those belong to
//! `wal-format` below the log and `wal-storage` beside it.
//!
//! # The three forms of an entry
//!
//! | form | owns its bytes | made by | for |
//! | --- | --- | --- | --- |
//! | [`WalEntry`] | yes | its constructors | callers that keep entries, tests, tools |
//! | [`EntryRef`] | no | the writer, per append | one copy from the caller's slices into a buffer |
//! | [`EntryView`] | no | [`EntryView::access`] | replay, straight from the buffer that was read |
//!
//! All three describe the same *archive*: the payload bytes that stay on disk for ever. An entry
//! has exactly one archive, and [`EntryView::access`] accepts nothing else, so equal entries have
//! equal bytes and equal bytes are equal entries.
//!
//! # Example
//!
//! ```
//! use wal_entry::{EntryRef, EntryView, OperationRef, RecordBuffer};
//!
//! let entry = EntryRef {
//!     epoch: 1,
//!     sequence: 7,
//!     core_id: 3,
//!     timestamp_ns: 1_700_000_000_000_000_000,
//!     operation: OperationRef::Put { key: b"user-1", value: b"active" },
//! };
//!
//! let mut buffer = RecordBuffer::with_capacity(4096);
//! entry.archive_into(&mut buffer);
//! assert_eq!(buffer.len(), entry.archived_bytes());
//!
//! let view = EntryView::access(&buffer)?;
//! assert_eq!(view.sequence(), 7);
//! assert_eq!(view.key(), Some(&b"user-1"[..]));
//! assert_eq!(view.to_entry().borrowed(), entry);
//! # Ok::<(), wal_entry::InvalidArchive>(())
//! ```
//!
//! # Order
//!
//! [`ReplayOrder`] is the order in which entries of several cores are replayed: epoch, timestamp,
//! core, sequence. [`EntryClock`] hands out the timestamps that keep one core's entries in the
//! order in which they were appended, whatever the system clock does.

mod archive;
mod borrowed;
mod clock;
mod entry;
mod offsets;
mod operation;
mod order;
mod view;

pub use crate::archive::{
    ARCHIVE_ALIGNMENT_BYTES, ARCHIVE_BYTES_MAX, InvalidArchive, RecordBuffer,
};
pub use crate::borrowed::{EntryRef, OperationRef};
pub use crate::clock::{EntryClock, TimestampRegressed};
pub use crate::entry::WalEntry;
pub use crate::offsets::{DuplicateSource, Offsets};
pub use crate::operation::WalOperation;
pub use crate::order::ReplayOrder;
pub use crate::view::{EntryView, OffsetsView, OperationView};

/// The payload type that segments of such entries name in their identity block.
pub const PAYLOAD_TYPE: u32 = 1;

/// The version of the archive, named beside [`PAYLOAD_TYPE`]: a change of any archived type or of
/// rkyv's format features needs a new one.
pub const PAYLOAD_VERSION: u32 = 1;
