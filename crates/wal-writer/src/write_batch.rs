//! Several entries that are recovered whole or not at all.

use std::ops::Range;

use wal_entry::{Offsets, OperationRef};
use wal_format::{BATCH_ENTRY_HEADER_BYTES, RECORD_HEADER_BYTES};

use crate::open_batch::archived_bytes;

/// Operations to be appended as one atomic batch: after a crash all of them are there, or none.
///
/// They share one record, and so one checksum; each is an entry with a sequence of its own. All of
/// them together must fit a record: see
/// [`LogOptions::max_record_bytes`](crate::LogOptions::max_record_bytes).
///
/// A batch can be appended again, and [cleared](Self::clear) and filled again without allocating.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use wal_writer::{CoreWalWriter, WriteBatch};
///
/// let mut writer = CoreWalWriter::new(0, &path)?;
/// let mut transfer = WriteBatch::new();
/// transfer.put(b"alice", b"90").put(b"bob", b"110").delete(b"pending");
/// writer.append_batch(&transfer)?;
/// writer.sync()?;
/// assert_eq!(writer.sequence(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    operations: Vec<Operation>,
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Operation {
    Put { key: Range<usize>, value: Range<usize> },
    Delete { key: Range<usize> },
    Checkpoint { id: u64 },
    Commit { offsets: Offsets, watermark: Option<i64> },
}

impl WriteBatch {
    /// A batch without operations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds "`key` has `value` now".
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        let (key, value) = (self.copy(key), self.copy(value));
        self.operations.push(Operation::Put { key, value });
        self
    }

    /// Adds "`key` is gone".
    pub fn delete(&mut self, key: &[u8]) -> &mut Self {
        let key = self.copy(key);
        self.operations.push(Operation::Delete { key });
        self
    }

    /// Adds a marker for the checkpoint `id`.
    pub fn checkpoint(&mut self, id: u64) -> &mut Self {
        self.operations.push(Operation::Checkpoint { id });
        self
    }

    /// Adds how far each source has been read, and the event time reached.
    pub fn commit(&mut self, offsets: Offsets, watermark: Option<i64>) -> &mut Self {
        self.operations.push(Operation::Commit { offsets, watermark });
        self
    }

    /// How many operations it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Takes all operations out, and keeps the memory.
    pub fn clear(&mut self) {
        self.operations.clear();
        self.bytes.clear();
    }

    pub(crate) fn operations(&self) -> impl Iterator<Item = OperationRef<'_>> {
        let bytes = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.operations.iter().map(move |operation| match operation {
            Operation::Put { key, value } => {
                OperationRef::Put { key: bytes(key), value: bytes(value) }
            }
            Operation::Delete { key } => OperationRef::Delete { key: bytes(key) },
            Operation::Checkpoint { id } => OperationRef::Checkpoint { id: *id },
            Operation::Commit { offsets, watermark } => {
                OperationRef::Commit { offsets, watermark: *watermark }
            }
        })
    }

    /// Bytes of the record that holds the batch.
    pub(crate) fn record_bytes(&self) -> usize {
        let entries = self
            .operations()
            .map(|operation| BATCH_ENTRY_HEADER_BYTES.saturating_add(archived_bytes(operation)));
        entries.fold(RECORD_HEADER_BYTES, usize::saturating_add)
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}
