//! What an entry can say.

use std::fmt;

use crate::borrowed::OperationRef;
use crate::offsets::Offsets;

/// What an entry says, owning its bytes.
///
/// The tags are part of the format: one never changes its meaning, and a removed one is never given
/// out again. The enum is exhaustive on purpose: code that replays a log has to decide about every
/// operation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize)]
#[repr(u8)]
pub enum WalOperation {
    /// Sets a key to a value. The application writes it for every change of its state; replay sets
    /// the key, so that the last put or delete of a key decides. Keys and values are opaque and may
    /// be empty: an empty value is a value, not a delete.
    Put {
        /// The key that is set.
        key: Vec<u8>,
        /// What it is set to.
        value: Vec<u8>,
    } = 0,

    /// Removes a key. The application writes it; replay removes the key, and finding nothing to
    /// remove is no error, because a snapshot may already be newer than the entry.
    Delete {
        /// The key that is removed.
        key: Vec<u8>,
    } = 1,

    /// Marks where a checkpoint was taken. The application writes it if it wants the place in the
    /// log; replay changes no state. It proves nothing: which checkpoint is durable and how much of
    /// the log it covers stands in the manifest.
    Checkpoint {
        /// The application's name for the checkpoint.
        id: u64,
    } = 2,

    /// Records how far the inputs were read when the state was as the entries before it say. The
    /// application writes it once per batch of input; replay keeps the last one, from which the
    /// sources are then read again. It makes nothing durable by itself; only a sync does.
    Commit {
        /// The next offset to read, per source.
        offsets: Offsets,
        /// Event time up to which the input is complete, in the application's unit, if it keeps
        /// one.
        watermark: Option<i64>,
    } = 3,

    /// Closes an epoch on one core. The writer logs it as that core's last entry of the epoch;
    /// replay changes no state. An epoch is complete when every member core's barrier for it is
    /// durable, and a recovery up to an epoch ends with these entries.
    EpochBarrier {
        /// The epoch that ends here, the same that the entry itself carries.
        epoch: u64,
    } = 4,
}

impl WalOperation {
    /// Whether this sets a key.
    pub fn is_put(&self) -> bool {
        matches!(self, Self::Put { .. })
    }

    /// Whether this removes a key.
    pub fn is_delete(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }

    /// Whether this marks a checkpoint.
    pub fn is_checkpoint(&self) -> bool {
        matches!(self, Self::Checkpoint { .. })
    }

    /// Whether this changes the application's state: a put or a delete.
    pub fn is_state_operation(&self) -> bool {
        self.is_put() || self.is_delete()
    }

    /// The key of a put or a delete.
    pub fn key(&self) -> Option<&[u8]> {
        self.borrowed().key()
    }

    /// The value of a put.
    pub fn value(&self) -> Option<&[u8]> {
        self.borrowed().value()
    }

    /// The same operation, borrowing this one's bytes.
    pub fn borrowed(&self) -> OperationRef<'_> {
        match self {
            Self::Put { key, value } => OperationRef::Put { key, value },
            Self::Delete { key } => OperationRef::Delete { key },
            Self::Checkpoint { id } => OperationRef::Checkpoint { id: *id },
            Self::Commit { offsets, watermark } => {
                OperationRef::Commit { offsets, watermark: *watermark }
            }
            Self::EpochBarrier { epoch } => OperationRef::EpochBarrier { epoch: *epoch },
        }
    }
}

/// Keys and values as text with escapes, cut short when long.
impl fmt::Debug for WalOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrowed().fmt(f)
    }
}
