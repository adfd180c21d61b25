//! Getters over an archive, without copying.

use std::fmt;

use crate::archive::{self, InvalidArchive, Numbers};
use crate::borrowed::Excerpt;
use crate::entry::WalEntry;
use crate::offsets::{ArchivedOffsets, Offsets};
use crate::operation::WalOperation;
use crate::order::ReplayOrder;

/// An entry, read in place from the bytes of its archive.
///
/// Small enough to copy; what it gives out lives as long as the bytes. Replay hands these to the
/// application, which copies what it keeps.
#[derive(Clone, Copy)]
pub struct EntryView<'a> {
    numbers: Numbers,
    operation: OperationView<'a>,
}

impl<'a> EntryView<'a> {
    /// The entry whose archive is all of `bytes`.
    ///
    /// Everything that a getter relies on is checked here, once and without allocating, and so is
    /// that the bytes are the only archive of what they say: whatever is accepted has the bytes
    /// that [`EntryRef::archive_into`](crate::EntryRef::archive_into) writes for
    /// [`to_entry`](Self::to_entry). What the entry says is not judged, only how it is written.
    ///
    /// # Errors
    ///
    /// [`InvalidArchive`] if they are not, also if they do not stand at a multiple of 8 in memory.
    /// A [`RecordBuffer`](crate::RecordBuffer) has its first byte at one.
    #[inline]
    pub fn access(bytes: &'a [u8]) -> Result<Self, InvalidArchive> {
        archive::access(bytes)
    }

    #[inline]
    pub(crate) const fn new(numbers: Numbers, operation: OperationView<'a>) -> Self {
        Self { numbers, operation }
    }

    /// The epoch in which the entry was appended.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.numbers.epoch
    }

    /// The entry's number within its core's log.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.numbers.sequence
    }

    /// The core whose log holds the entry.
    #[inline]
    pub fn core_id(&self) -> u16 {
        self.numbers.core_id
    }

    /// Nanoseconds since 1970-01-01 00:00 UTC.
    #[inline]
    pub fn timestamp_ns(&self) -> i64 {
        self.numbers.timestamp_ns
    }

    /// What the entry says.
    #[inline]
    pub fn operation(&self) -> OperationView<'a> {
        self.operation
    }

    /// Whether the entry sets a key.
    #[inline]
    pub fn is_put(&self) -> bool {
        matches!(self.operation, OperationView::Put { .. })
    }

    /// Whether the entry removes a key.
    #[inline]
    pub fn is_delete(&self) -> bool {
        matches!(self.operation, OperationView::Delete { .. })
    }

    /// Whether the entry marks a checkpoint.
    #[inline]
    pub fn is_checkpoint(&self) -> bool {
        matches!(self.operation, OperationView::Checkpoint { .. })
    }

    /// Whether the entry changes the application's state: a put or a delete.
    #[inline]
    pub fn is_state_operation(&self) -> bool {
        self.is_put() || self.is_delete()
    }

    /// The key of a put or a delete.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        match self.operation {
            OperationView::Put { key, .. } | OperationView::Delete { key } => Some(key),
            _ => None,
        }
    }

    /// The value of a put.
    #[inline]
    pub fn value(&self) -> Option<&'a [u8]> {
        match self.operation {
            OperationView::Put { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Where the entry stands in a replay of several cores.
    #[inline]
    pub fn replay_order(&self) -> ReplayOrder {
        ReplayOrder {
            epoch: self.epoch(),
            timestamp_ns: self.timestamp_ns(),
            core_id: self.core_id(),
            sequence: self.sequence(),
        }
    }

    /// The same entry, owning copies of the bytes.
    pub fn to_entry(&self) -> WalEntry {
        WalEntry {
            epoch: self.epoch(),
            sequence: self.sequence(),
            core_id: self.core_id(),
            timestamp_ns: self.timestamp_ns(),
            operation: self.operation().to_operation(),
        }
    }
}

/// The same text as for a [`WalEntry`], under this type's name.
impl fmt::Debug for EntryView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryView")
            .field("epoch", &self.epoch())
            .field("sequence", &self.sequence())
            .field("core_id", &self.core_id())
            .field("timestamp_ns", &self.timestamp_ns())
            .field("operation", &self.operation())
            .finish()
    }
}

/// An operation, read in place; [`WalOperation`] says what each one means.
#[derive(Clone, Copy)]
pub enum OperationView<'a> {
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
        offsets: OffsetsView<'a>,
        /// Event time up to which the input is complete.
        watermark: Option<i64>,
    },
    /// Closes an epoch on one core.
    EpochBarrier {
        /// The epoch that ends here.
        epoch: u64,
    },
}

impl OperationView<'_> {
    /// The same operation, owning copies of the bytes.
    pub fn to_operation(&self) -> WalOperation {
        match *self {
            Self::Put { key, value } => {
                WalOperation::Put { key: key.to_vec(), value: value.to_vec() }
            }
            Self::Delete { key } => WalOperation::Delete { key: key.to_vec() },
            Self::Checkpoint { id } => WalOperation::Checkpoint { id },
            Self::Commit { offsets, watermark } => {
                WalOperation::Commit { offsets: offsets.to_offsets(), watermark }
            }
            Self::EpochBarrier { epoch } => WalOperation::EpochBarrier { epoch },
        }
    }
}

/// Keys and values as text with escapes, cut short when long.
impl fmt::Debug for OperationView<'_> {
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
                .field("offsets", &offsets)
                .field("watermark", &watermark)
                .finish(),
            Self::EpochBarrier { epoch } => {
                f.debug_struct("EpochBarrier").field("epoch", &epoch).finish()
            }
        }
    }
}

/// How far each source was read, read in place: sorted by source name, each source once.
#[derive(Clone, Copy)]
pub struct OffsetsView<'a> {
    archived: &'a ArchivedOffsets,
}

impl<'a> OffsetsView<'a> {
    pub(crate) const fn new(archived: &'a ArchivedOffsets) -> Self {
        Self { archived }
    }

    /// The offset of `source`.
    pub fn get(&self, source: &str) -> Option<u64> {
        self.archived.get(source)
    }

    /// Every source with its offset, sorted by source name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, u64)> + Clone + use<'a> {
        self.archived.iter()
    }

    /// The number of sources.
    pub fn len(&self) -> usize {
        self.archived.len()
    }

    /// Whether no source is named.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same offsets, owning copies of the names.
    pub fn to_offsets(&self) -> Offsets {
        let pairs = self.iter().map(|(source, offset)| (source.to_owned(), offset));
        Offsets::from_checked_pairs(pairs.collect())
    }
}

/// A map from source to offset.
impl fmt::Debug for OffsetsView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
