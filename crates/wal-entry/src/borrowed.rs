//! Borrowed twins of the entry and its operation: what a writer archives.

use std::fmt;

use crate::archive::{self, RecordBuffer};
use crate::entry::WalEntry;
use crate::offsets::Offsets;
use crate::operation::WalOperation;
use crate::order::ReplayOrder;

/// An entry that borrows its bytes from the caller.
///
/// A writer makes one per append, so that keys and values go from the caller's slices straight into
/// its buffer. [`WalEntry::borrowed`] gives the same for an owned entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The epoch in which the entry is appended.
    pub epoch: u64,
    /// The entry's number within its core's log.
    pub sequence: u64,
    /// The core whose log holds the entry.
    pub core_id: u16,
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    pub timestamp_ns: i64,
    /// What the entry says.
    pub operation: OperationRef<'a>,
}

impl EntryRef<'_> {
    /// The exact number of bytes that [`archive_into`](Self::archive_into) appends: a multiple of
    /// 8, at least 64.
    ///
    /// Nothing overflows, however large the slices are: the result then only stays far above
    /// [`ARCHIVE_BYTES_MAX`](crate::ARCHIVE_BYTES_MAX). Compare it with the limit of your records
    /// before you archive.
    ///
    /// ```
    /// use wal_entry::WalEntry;
    ///
    /// let entry = WalEntry::put(0, 0, 0, vec![1; 16], vec![2; 100], 0);
    /// assert_eq!(entry.borrowed().archived_bytes(), 120 + 64);
    /// ```
    #[inline]
    pub fn archived_bytes(&self) -> usize {
        archive::archived_bytes(self)
    }

    /// Appends the entry's archive at the end of `buffer`.
    ///
    /// One copy of each slice, and no allocation if the buffer has room for
    /// [`archived_bytes`](Self::archived_bytes) more. The bytes depend on the entry alone, not on
    /// what stands before them: positions inside count from the archive's first byte, and padding
    /// is zero. They are those that rkyv makes of the owned entry.
    ///
    /// The length of `buffer` must be a multiple of 8, or
    /// [`EntryView::access`](crate::EntryView::access) refuses the archive where it stands.
    ///
    /// # Panics
    ///
    /// If [`archived_bytes`](Self::archived_bytes) is above
    /// [`ARCHIVE_BYTES_MAX`](crate::ARCHIVE_BYTES_MAX), which callers rule out by their own, lower
    /// limit: an archive of that size has no valid encoding. In debug builds also if the length of
    /// `buffer` is no multiple of 8.
    #[inline]
    pub fn archive_into(&self, buffer: &mut RecordBuffer) {
        archive::archive_into(self, buffer);
    }

    /// Where the entry stands in a replay of several cores.
    pub fn replay_order(&self) -> ReplayOrder {
        ReplayOrder {
            epoch: self.epoch,
            timestamp_ns: self.timestamp_ns,
            core_id: self.core_id,
            sequence: self.sequence,
        }
    }

    /// The same entry, owning copies of the borrowed bytes.
    pub fn to_entry(&self) -> WalEntry {
        WalEntry {
            epoch: self.epoch,
            sequence: self.sequence,
            core_id: self.core_id,
            timestamp_ns: self.timestamp_ns,
            operation: self.operation.to_operation(),
        }
    }
}

/// An operation that borrows its bytes from the caller; [`WalOperation`] says what each one means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OperationRef<'a> {
    /// Sets a key to a value.
    Put {
        /// The key that is set.
        key: &'a [u8],
        /// What it is set to.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// The key that is removed.
        key: &'a [u8],
    },
    /// Marks where a checkpoint was taken.
    Checkpoint {
        /// The application's name for the checkpoint.
        id: u64,
    },
    /// Records how far each source was read.
    Commit {
        /// The next offset to read, per source.
        offsets: &'a Offsets,
        /// Event time up to which the input is complete.
        watermark: Option<i64>,
    },
    /// Closes an epoch on one core.
    EpochBarrier {
        /// The epoch that ends here.
        epoch: u64,
    },
}

impl<'a> OperationRef<'a> {
    /// The key of a put or a delete.
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { key, .. } | Self::Delete { key } => Some(key),
            _ => None,
        }
    }

    /// The value of a put.
    pub fn value(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The same operation, owning copies of the borrowed bytes.
    pub fn to_operation(&self) -> WalOperation {
        match *self {
            Self::Put { key, value } => {
                WalOperation::Put { key: key.to_vec(), value: value.to_vec() }
            }
            Self::Delete { key } => WalOperation::Delete { key: key.to_vec() },
            Self::Checkpoint { id } => WalOperation::Checkpoint { id },
            Self::Commit { offsets, watermark } => {
                WalOperation::Commit { offsets: offsets.clone(), watermark }
            }
            Self::EpochBarrier { epoch } => WalOperation::EpochBarrier { epoch },
        }
    }
}

/// Keys and values as text with escapes, cut short when long.
impl fmt::Debug for OperationRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Put { key, value } => f
                .debug_struct("Put")
                .field("key", &Excerpt(key))
                .field("value", &Excerpt(value))
                .finish(),
            Self::Delete { key } => f.debug_struct("Delete").field("key", &Excerpt(key)).finish(),
            Self::Checkpoint { id } => f.debug_struct("Checkpoint").field("id", &id).finish(),
            Self::Commit { offsets, watermark } => f
                .debug_struct("Commit")
                .field("offsets", offsets)
                .field("watermark", &watermark)
                .finish(),
            Self::EpochBarrier { epoch } => {
                f.debug_struct("EpochBarrier").field("epoch", &epoch).finish()
            }
        }
    }
}

/// Bytes for a debug print: `b"text\x00"`, and for long ones the beginning and the length. An error
/// message or a log line must not grow with the value that it mentions.
pub(crate) struct Excerpt<'a>(pub(crate) &'a [u8]);

impl Excerpt<'_> {
    /// How many bytes are shown.
    const SHOWN_BYTES: usize = 64;
}

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..Self::SHOWN_BYTES) {
            Some(shown) if shown.len() < self.0.len() => {
                write!(f, "b\"{}\"... ({} bytes)", shown.escape_ascii(), self.0.len())
            }
            _ => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_text_and_cuts_what_is_long() {
        let entry = WalEntry::put(1, 2, 3, b"user-1\n".to_vec(), vec![b'x'; 1000], 4);
        let printed = format!("{entry:?}");
        assert!(
            printed.contains(r#"operation: Put { key: b"user-1\n", value: b"xxx"#),
            "{printed}"
        );
        assert!(printed.ends_with(r#"xxx"... (1000 bytes) } }"#), "{printed}");
        assert_eq!(format!("{:?}", Excerpt(&[b'y'; 64])).len(), 64 + 3);
    }
}
