//! The archive: the bytes of an entry.
//!
//! They are what rkyv 0.8 makes of [`WalEntry`](crate::WalEntry) with the format features that the
//! workspace names. Everything is little endian; positions count from the archive's first byte.
//!
//! ```text
//! body   Put            key, value
//!        Delete         key
//!        Commit         source names above 8 bytes, zeroes up to a multiple of 8,
//!                       then 16 bytes per source: name, offset
//! zeroes up to a multiple of 8
//! root   64 bytes, always the last ones:
//!        +0   epoch u64
//!        +8   sequence u64
//!        +16  core u16, 6 zeroes
//!        +24  timestamp i64
//!        +32  tag u8, 3 zeroes
//!        +36  Put, Delete: key    Commit: sources                    place and length
//!        +40  Checkpoint: id      EpochBarrier: epoch                u64
//!        +44  Put: value                                             place and length
//!        +48  Commit: watermark   u8 (0 none, 1 some), 7 zeroes, i64
//! ```
//!
//! *Place and length* are an `i32`, the distance from its own first byte to the first byte of what
//! it points at, and a `u32`, the number of bytes or of sources. A *name* of at most 8 bytes stands
//! in place, filled up with `0xff`; for a longer one there is the `u32`
//! `length % 64 + 128 + length / 64 * 256`, then the distance to it, an `i32` that counts from the
//! first byte of that `u32`. Text never begins with a byte like 128, so the two are told apart.
//!
//! **Written and checked by hand.** Appending and replaying are the hottest paths of a log, and
//! rkyv's general serializer and validator are made for more than these few words, so the root is
//! put together here, and an archive is accepted only if its root is the one made again from what it
//! says. The bytes stay rkyv's: offsets and sizes come from rkyv's own archived types, the
//! assertions below pin them at compile time, and the tests compare with rkyv's serializer and with
//! its checked access. A commit's sources, which are rare and have text in them, rkyv checks itself.
//!
//! This is the only file that names rkyv, apart from the derives on the owned types.

use std::mem::{align_of, offset_of, size_of};

use rkyv::option::ArchivedOption;
use rkyv::primitive::{ArchivedI64, ArchivedIsize, ArchivedU64};
use rkyv::rancor::Failure;
use rkyv::string::ArchivedString;
use rkyv::tuple::ArchivedTuple2;
use rkyv::vec::ArchivedVec;

use crate::borrowed::{EntryRef, OperationRef};
use crate::entry::ArchivedWalEntry;
use crate::offsets::{ArchivedOffsets, Offsets};
use crate::operation::ArchivedWalOperation;
use crate::order::ReplayOrder;
use crate::view::{EntryView, OffsetsView, OperationView};

/// The buffer into which entries are archived: a byte vector whose first byte stands at a multiple
/// of 4096 in memory, as direct I/O wants it, and every eighth therefore where archives want it.
pub type RecordBuffer = rkyv::util::AlignedVec<4096>;

/// An archive's length is a multiple of this, and so is its address when it is read.
pub const ARCHIVE_ALIGNMENT_BYTES: usize = align_of::<ArchivedWalEntry>();

/// No archive is larger: the distances and the name lengths inside have no more bits. The limit on
/// records stands far below.
pub const ARCHIVE_BYTES_MAX: usize = (1 << 30) - ARCHIVE_ALIGNMENT_BYTES;

/// Bytes that are no archive of an entry, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the archive of an entry: {reason}")]
pub struct InvalidArchive {
    reason: Reason,
}

/// Why bytes are no archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("{length} bytes; an archive has between {ROOT_BYTES} and {ARCHIVE_BYTES_MAX}")]
    Length { length: usize },
    #[error("{length} bytes; an archive's length is a multiple of {ARCHIVE_ALIGNMENT_BYTES}")]
    UnevenLength { length: usize },
    #[error("it stands in memory at an address that is no multiple of {ARCHIVE_ALIGNMENT_BYTES}")]
    Misaligned,
    #[error("operation tag {tag} is unknown")]
    UnknownOperation { tag: u8 },
    #[error("a key, value, source or watermark in its {length} bytes is malformed")]
    Malformed { length: usize },
    #[error("its sources are not sorted by name, each once")]
    UnsortedSources,
    #[error("its {length} bytes are not those that its content is written as")]
    OtherEncoding { length: usize },
}

/// The length of the entry's archive; above [`ARCHIVE_BYTES_MAX`] only "too much" is exact.
#[inline]
pub(crate) fn archived_bytes(entry: &EntryRef<'_>) -> usize {
    let unaligned_bytes = match entry.operation {
        OperationRef::Put { key, value } => key.len().saturating_add(value.len()),
        OperationRef::Delete { key } => key.len(),
        OperationRef::Checkpoint { .. } | OperationRef::EpochBarrier { .. } => 0,
        OperationRef::Commit { offsets, .. } => commit_body_bytes(offsets),
    };
    align_up(unaligned_bytes.saturating_add(ROOT_BYTES))
}

/// Appends the entry's archive to `buffer`.
#[inline]
pub(crate) fn archive_into(entry: &EntryRef<'_>, buffer: &mut RecordBuffer) {
    let archived_bytes = archived_bytes(entry);
    assert!(archived_bytes <= ARCHIVE_BYTES_MAX, "an entry too large for an archive");
    debug_assert!(buffer.len().is_multiple_of(ARCHIVE_ALIGNMENT_BYTES));
    buffer.reserve(archived_bytes);

    let end = buffer.len() + archived_bytes;
    let numbers = Numbers {
        epoch: entry.epoch,
        sequence: entry.sequence,
        core_id: entry.core_id,
        timestamp_ns: entry.timestamp_ns,
    };
    // Each arm appends its own root, so that a caller who names the operation gets its code only.
    match entry.operation {
        OperationRef::Put { key, value } => {
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(value);
            let content = Content::Put { key_bytes: key.len(), value_bytes: value.len() };
            append_root(numbers, content, end, archived_bytes, buffer);
        }
        OperationRef::Delete { key } => {
            buffer.extend_from_slice(key);
            let content = Content::Delete { key_bytes: key.len() };
            append_root(numbers, content, end, archived_bytes, buffer);
        }
        OperationRef::Checkpoint { id } => {
            let content = Content::Checkpoint { id };
            append_root(numbers, content, end, archived_bytes, buffer);
        }
        OperationRef::Commit { offsets, watermark } => {
            append_sources(offsets, buffer);
            let content = Content::Commit { sources: offsets.len(), watermark };
            append_root(numbers, content, end, archived_bytes, buffer);
        }
        OperationRef::EpochBarrier { epoch } => {
            let content = Content::EpochBarrier { epoch };
            append_root(numbers, content, end, archived_bytes, buffer);
        }
    }
}

/// The entry archived in `bytes`, if they are the archive of an entry and nothing else.
///
/// The lengths of what stands in the body are read from the root; then the root is made again from
/// what was read and compared. That pins every distance and every zero, so equal entries have equal
/// bytes, and a tool may compare archives without reading them.
#[inline]
pub(crate) fn access(bytes: &[u8]) -> Result<EntryView<'_>, InvalidArchive> {
    let invalid = |reason| InvalidArchive { reason };
    let length = bytes.len();
    if length > ARCHIVE_BYTES_MAX {
        return Err(invalid(Reason::Length { length }));
    }
    let Some((body, root)) = bytes.split_last_chunk::<ROOT_BYTES>() else {
        return Err(invalid(Reason::Length { length }));
    };
    if !length.is_multiple_of(ARCHIVE_ALIGNMENT_BYTES) {
        return Err(invalid(Reason::UnevenLength { length }));
    }
    if !bytes.as_ptr().cast::<ArchivedWalEntry>().is_aligned() {
        return Err(invalid(Reason::Misaligned));
    }
    let root = Root::read(root);
    let (operation, unpadded_bytes) = match root.tag() {
        tag::PUT => match root.key_and_value(body) {
            Some((key, value)) => (OperationView::Put { key, value }, key.len() + value.len()),
            None => return Err(invalid(Reason::Malformed { length })),
        },
        tag::DELETE => match body.get(..root.count()) {
            Some(key) => (OperationView::Delete { key }, key.len()),
            None => return Err(invalid(Reason::Malformed { length })),
        },
        tag::CHECKPOINT => (OperationView::Checkpoint { id: root.number() }, 0),
        tag::COMMIT => (access_commit(bytes, body)?, body.len()),
        tag::EPOCH_BARRIER => (OperationView::EpochBarrier { epoch: root.number() }, 0),
        tag => return Err(invalid(Reason::UnknownOperation { tag })),
    };
    let numbers = root.numbers();
    let again = Root::new(numbers, Content::of(&operation), body.len());
    if !again.is(&root) || !is_padded(body, unpadded_bytes) {
        return Err(invalid(Reason::OtherEncoding { length }));
    }
    Ok(EntryView::new(numbers, operation))
}

/// Where the entry that may be archived in `bytes` would stand in replay order: nothing is checked.
#[inline]
pub(crate) fn unchecked_order(bytes: &[u8]) -> Option<ReplayOrder> {
    let (_, root) = bytes.split_last_chunk::<ROOT_BYTES>()?;
    let Numbers { epoch, sequence, core_id, timestamp_ns } = Root::read(root).numbers();
    Some(ReplayOrder { epoch, timestamp_ns, core_id, sequence })
}

/// A commit, all but its root and padding checked: rkyv sees to the table and the text, and then
/// the body must be the one that [`append_sources`] writes.
///
/// Never inlined, like all that deals with commits: they are rare, and their loops would only keep
/// the code for the other operations from being inlined.
#[inline(never)]
fn access_commit<'a>(bytes: &'a [u8], body: &[u8]) -> Result<OperationView<'a>, InvalidArchive> {
    let length = bytes.len();
    let malformed = InvalidArchive { reason: Reason::Malformed { length } };
    let entry = rkyv::api::low::access::<ArchivedWalEntry, Failure>(bytes);
    let Ok(ArchivedWalEntry { operation, .. }) = entry else {
        return Err(malformed);
    };
    let ArchivedWalOperation::Commit { offsets, watermark } = operation else {
        return Err(malformed);
    };
    if !offsets.iter().is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(InvalidArchive { reason: Reason::UnsortedSources });
    }
    if !are_the_sources(offsets, body) {
        return Err(InvalidArchive { reason: Reason::OtherEncoding { length } });
    }
    let watermark = watermark.as_ref().map(|watermark| watermark.to_native());
    Ok(OperationView::Commit { offsets: OffsetsView::new(offsets), watermark })
}

/// Whether `body` is what [`append_sources`] writes for `offsets`.
fn are_the_sources(offsets: &ArchivedOffsets, body: &[u8]) -> bool {
    let names_bytes = long_names_bytes(offsets.iter().map(|(name, _)| name));
    let table_position = align_up(names_bytes);
    let Some((names, table)) = body.split_at_checked(table_position) else {
        return false;
    };
    let (rows, rest) = table.as_chunks::<SOURCE_BYTES>();
    are_zeroes(names, names_bytes)
        && rest.is_empty()
        && rows.len() == offsets.len()
        && rows.iter().copied().eq(source_rows(offsets.iter(), table_position))
}

/// Whether all bytes of `bytes` from `start` on are zero; false if there is no `start`.
fn are_zeroes(bytes: &[u8], start: usize) -> bool {
    bytes.get(start..).is_some_and(|padding| padding.iter().all(|byte| *byte == 0))
}

/// Whether `body` is as long as `unpadded_bytes` need, and zero behind them.
#[inline]
fn is_padded(body: &[u8], unpadded_bytes: usize) -> bool {
    let padding_bytes = body.len().wrapping_sub(unpadded_bytes);
    if padding_bytes >= ARCHIVE_ALIGNMENT_BYTES {
        return false;
    }
    // The padding is the highest bytes of the last word.
    let last = body.last_chunk::<ARCHIVE_ALIGNMENT_BYTES>();
    padding_bytes == 0
        || last.is_some_and(|last| {
            u64::from_le_bytes(*last).leading_zeros() as usize >= 8 * padding_bytes
        })
}

/// The numbers that every entry carries.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) core_id: u16,
    pub(crate) timestamp_ns: i64,
}

/// What the root says about an operation: the lengths of what stands in the body, and the rest.
#[derive(Clone, Copy)]
enum Content {
    Put { key_bytes: usize, value_bytes: usize },
    Delete { key_bytes: usize },
    Checkpoint { id: u64 },
    Commit { sources: usize, watermark: Option<i64> },
    EpochBarrier { epoch: u64 },
}

impl Content {
    #[inline(always)]
    fn of(operation: &OperationView<'_>) -> Self {
        match *operation {
            OperationView::Put { key, value } => {
                Self::Put { key_bytes: key.len(), value_bytes: value.len() }
            }
            OperationView::Delete { key } => Self::Delete { key_bytes: key.len() },
            OperationView::Checkpoint { id } => Self::Checkpoint { id },
            OperationView::Commit { offsets, watermark } => {
                Self::Commit { sources: offsets.len(), watermark }
            }
            OperationView::EpochBarrier { epoch } => Self::EpochBarrier { epoch },
        }
    }
}

/// Appends padding and root, so that the archive of `archived_bytes` ends at `end` in the buffer.
#[inline(always)]
fn append_root(
    numbers: Numbers,
    content: Content,
    end: usize,
    archived_bytes: usize,
    buffer: &mut RecordBuffer,
) {
    pad_to(end - ROOT_BYTES, buffer);
    let root = Root::new(numbers, content, archived_bytes - ROOT_BYTES);
    // Zeroes first, then the words in place: put together on the stack and copied, the root would
    // be read back before its bytes have left the store buffer, which costs more than the zeroes.
    buffer.extend_from_slice(&[0; ROOT_BYTES]);
    if let Some(bytes) = buffer.last_chunk_mut() {
        root.write(bytes);
    }
}

/// The last bytes of an archive, as words: they fit into registers, where they are put together and
/// compared.
#[derive(Clone, Copy)]
struct Root([u64; ROOT_BYTES / 8]);

impl Root {
    /// The root that stands behind a body of `body_bytes`.
    #[inline(always)]
    fn new(numbers: Numbers, content: Content, body_bytes: usize) -> Self {
        let root_position = narrow(body_bytes);
        // From a place in the root to what it points at: a distance, and the count behind it.
        let distance = |place: usize, target: usize| {
            narrow(target).wrapping_sub(root_position + narrow(place))
        };
        let operation = match content {
            Content::Put { key_bytes, value_bytes } => [
                pair(tag::PUT.into(), distance(OPERATION + offset_of!(PutLayout, key), 0)),
                pair(
                    narrow(key_bytes),
                    distance(OPERATION + offset_of!(PutLayout, value), key_bytes),
                ),
                narrow(value_bytes).into(),
                0,
            ],
            Content::Delete { key_bytes } => [
                pair(tag::DELETE.into(), distance(OPERATION + offset_of!(DeleteLayout, key), 0)),
                narrow(key_bytes).into(),
                0,
                0,
            ],
            Content::Checkpoint { id } => [tag::CHECKPOINT.into(), id, 0, 0],
            Content::Commit { sources, watermark } => {
                // The table ends where the root begins.
                let table = body_bytes.saturating_sub(sources.saturating_mul(SOURCE_BYTES));
                let place = OPERATION + offset_of!(CommitLayout, offsets);
                [
                    pair(tag::COMMIT.into(), distance(place, table)),
                    narrow(sources).into(),
                    watermark.is_some().into(),
                    watermark.unwrap_or_default().cast_unsigned(),
                ]
            }
            Content::EpochBarrier { epoch } => [tag::EPOCH_BARRIER.into(), epoch, 0, 0],
        };
        let [tag_and_place, second, third, fourth] = operation;
        Self([
            numbers.epoch,
            numbers.sequence,
            numbers.core_id.into(),
            numbers.timestamp_ns.cast_unsigned(),
            tag_and_place,
            second,
            third,
            fourth,
        ])
    }

    #[inline(always)]
    fn read(bytes: &[u8; ROOT_BYTES]) -> Self {
        let mut words = [0; ROOT_BYTES / 8];
        let (chunks, _) = bytes.as_chunks();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_le_bytes(*chunk);
        }
        Self(words)
    }

    /// Word by word: `==` would be a call that compares two arrays in memory.
    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }

    #[inline(always)]
    fn write(self, bytes: &mut [u8; ROOT_BYTES]) {
        let (chunks, _) = bytes.as_chunks_mut();
        for (chunk, word) in chunks.iter_mut().zip(self.0) {
            *chunk = word.to_le_bytes();
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits above are another field's")]
    const fn numbers(&self) -> Numbers {
        let [epoch, sequence, core_id, timestamp_ns, ..] = self.0;
        Numbers {
            epoch,
            sequence,
            core_id: core_id as u16,
            timestamp_ns: timestamp_ns.cast_signed(),
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits above are another field's")]
    const fn tag(&self) -> u8 {
        self.0[OPERATION / 8] as u8
    }

    /// Of a checkpoint or a barrier.
    #[inline(always)]
    const fn number(&self) -> u64 {
        self.0[OPERATION / 8 + 1]
    }

    /// How many bytes the first thing pointed at has.
    #[inline(always)]
    const fn count(&self) -> usize {
        (self.0[OPERATION / 8 + 1] & LOW_HALF) as usize
    }

    /// What a put's lengths make of the body; `None` if it is not that long.
    #[inline(always)]
    fn key_and_value<'a>(&self, body: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (key, rest) = body.split_at_checked(self.count())?;
        let value = rest.get(..(self.0[OPERATION / 8 + 2] & LOW_HALF) as usize)?;
        Some((key, value))
    }
}

/// Two `u32` in a word.
#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// The `u32` at a word's lower address.
const LOW_HALF: u64 = 0xffff_ffff;

/// Appends the body of a commit: the long names, then the table of sources.
///
/// Not inlined either; see [`access_commit`].
#[inline(never)]
fn append_sources(offsets: &Offsets, buffer: &mut RecordBuffer) {
    let start = buffer.len();
    for (name, _) in offsets.iter().filter(|(name, _)| is_long(name)) {
        buffer.extend_from_slice(name.as_bytes());
    }
    let table_position = align_up(buffer.len() - start);
    pad_to(start + table_position, buffer);
    for row in source_rows(offsets.iter(), table_position) {
        buffer.extend_from_slice(&row);
    }
}

/// The length of what [`append_sources`] appends.
#[inline(never)]
fn commit_body_bytes(offsets: &Offsets) -> usize {
    let names_bytes = long_names_bytes(offsets.iter().map(|(name, _)| name));
    align_up(names_bytes).saturating_add(offsets.len().saturating_mul(SOURCE_BYTES))
}

/// The table of sources that stands at `table_position` in the archive.
fn source_rows<'a>(
    sources: impl Iterator<Item = (&'a str, u64)>,
    table_position: usize,
) -> impl Iterator<Item = [u8; SOURCE_BYTES]> {
    let mut name_position = 0;
    let mut row_position = table_position;
    sources.map(move |(name, offset)| {
        let mut row = [0; SOURCE_BYTES];
        let (name_place, offset_place) = row.split_at_mut(offset_of!(ArchivedSource, 1));
        if is_long(name) {
            let length = narrow(name.len());
            let marked_length = (length & 0x3f) | 0x80 | ((length & !0x3f) << 2);
            let distance = narrow(name_position).wrapping_sub(narrow(row_position));
            let (length_place, distance_place) = name_place.split_at_mut(size_of::<u32>());
            length_place.copy_from_slice(&marked_length.to_le_bytes());
            distance_place.copy_from_slice(&distance.to_le_bytes());
            name_position += name.len();
        } else {
            name_place.fill(0xff);
            for (place, byte) in name_place.iter_mut().zip(name.bytes()) {
                *place = byte;
            }
        }
        offset_place.copy_from_slice(&offset.to_le_bytes());
        row_position += SOURCE_BYTES;
        row
    })
}

/// The bytes of all names that do not fit into the table.
fn long_names_bytes<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.filter(|name| is_long(name)).fold(0, |sum, name| sum.saturating_add(name.len()))
}

/// Whether a source's name does not fit into its place in the table.
fn is_long(name: &str) -> bool {
    name.len() > size_of::<ArchivedString>()
}

/// Appends at most seven zeroes, so that the buffer ends at `length`.
#[inline]
fn pad_to(length: usize, buffer: &mut RecordBuffer) {
    // Eight zeroes, then cut: two stores, where a padding of the exact length would be a call.
    buffer.extend_from_slice(&[0; ARCHIVE_ALIGNMENT_BYTES]);
    buffer.resize(length, 0);
}

/// The next multiple of the alignment, or the last one that there is.
#[inline]
fn align_up(bytes: usize) -> usize {
    bytes.saturating_add(ARCHIVE_ALIGNMENT_BYTES - 1) & !(ARCHIVE_ALIGNMENT_BYTES - 1)
}

/// A length or position inside an archive. Writing and reading both begin with a comparison with
/// [`ARCHIVE_BYTES_MAX`], so nothing is cut off.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most ARCHIVE_BYTES_MAX, see above")]
fn narrow(bytes: usize) -> u32 {
    debug_assert!(bytes <= ARCHIVE_BYTES_MAX);
    bytes as u32
}

/// The size of the root.
const ROOT_BYTES: usize = size_of::<ArchivedWalEntry>();

/// Where the operation, and first of all its tag, stands in the root.
const OPERATION: usize = offset_of!(ArchivedWalEntry, operation);

/// The size of a row in a commit's table of sources.
const SOURCE_BYTES: usize = size_of::<ArchivedSource>();

/// A row in a commit's table of sources.
type ArchivedSource = ArchivedTuple2<ArchivedString, ArchivedU64>;

/// The operations' tags.
mod tag {
    pub(super) const PUT: u8 = 0;
    pub(super) const DELETE: u8 = 1;
    pub(super) const CHECKPOINT: u8 = 2;
    pub(super) const COMMIT: u8 = 3;
    pub(super) const EPOCH_BARRIER: u8 = 4;
}

/// A field of an enum's variant cannot be named in `offset_of!` yet. The language defines a variant
/// of a `repr(u8)` enum to be laid out like a `repr(C)` struct that begins with the tag, so these
/// structs stand in for `ArchivedWalOperation`'s variants and for `ArchivedOption`'s `Some`.
macro_rules! variant_layout {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {
        $(
            #[repr(C)]
            struct $name {
                _tag: u8,
                $($field: $type),*
            }
        )*
    };
}

variant_layout! {
    PutLayout { key: ArchivedVec<u8>, value: ArchivedVec<u8> }
    DeleteLayout { key: ArchivedVec<u8> }
    CheckpointLayout { id: ArchivedU64 }
    CommitLayout { offsets: ArchivedOffsets, watermark: ArchivedOption<ArchivedI64> }
    EpochBarrierLayout { epoch: ArchivedU64 }
    SomeLayout { value: ArchivedI64 }
}

// The layout of format version 1. If one of these fails, the derives, rkyv or its features changed
// in a way that changes bytes on disk: that is not to be adapted here.
const _: () = {
    assert!(size_of::<ArchivedWalEntry>() == 64);
    assert!(align_of::<ArchivedWalEntry>() == 8);
    assert!(offset_of!(ArchivedWalEntry, epoch) == 0);
    assert!(offset_of!(ArchivedWalEntry, sequence) == 8);
    assert!(offset_of!(ArchivedWalEntry, core_id) == 16);
    assert!(offset_of!(ArchivedWalEntry, timestamp_ns) == 24);
    assert!(offset_of!(ArchivedWalEntry, operation) == 32);

    assert!(size_of::<ArchivedWalOperation>() == 32);
    assert!(align_of::<ArchivedWalOperation>() == 8);
    assert!(offset_of!(PutLayout, key) == 4);
    assert!(offset_of!(PutLayout, value) == 12);
    assert!(offset_of!(DeleteLayout, key) == 4);
    assert!(offset_of!(CheckpointLayout, id) == 8);
    assert!(offset_of!(CommitLayout, offsets) == 4);
    assert!(offset_of!(CommitLayout, watermark) == 16);
    // A slice's count stands right behind its distance.
    assert!(size_of::<ArchivedIsize>() == 4);
    assert!(size_of::<CommitLayout>() == size_of::<ArchivedWalOperation>());
    assert!(offset_of!(EpochBarrierLayout, epoch) == 8);

    assert!(size_of::<ArchivedVec<u8>>() == 8);
    assert!(align_of::<ArchivedVec<u8>>() == 4);
    assert!(size_of::<ArchivedOffsets>() == size_of::<ArchivedVec<ArchivedSource>>());
    assert!(size_of::<ArchivedOption<ArchivedI64>>() == 16);
    assert!(offset_of!(SomeLayout, value) == 8);

    assert!(size_of::<ArchivedSource>() == 16);
    assert!(align_of::<ArchivedSource>() == 8);
    assert!(size_of::<ArchivedString>() == 8);
    assert!(offset_of!(ArchivedSource, 0) == 0);
    assert!(offset_of!(ArchivedSource, 1) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gigantic_lengths_saturate_at_a_multiple_of_eight() {
        assert_eq!(align_up(usize::MAX), usize::MAX - 7);
        assert_eq!(align_up(usize::MAX - 7), usize::MAX - 7);
        assert_eq!([0, 1, 8, 9].map(align_up), [0, 8, 8, 16]);
    }

    #[test]
    fn padding_appends_zeroes_only_where_they_are_missing() {
        for length in 0..=8 {
            let mut buffer = RecordBuffer::new();
            buffer.extend_from_slice(&[7; 8][..length]);
            pad_to(8, &mut buffer);
            assert_eq!(buffer[..length], [7; 8][..length]);
            assert!(buffer.len() == 8 && are_zeroes(&buffer, length));
        }
    }
}
