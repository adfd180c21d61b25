//! Logs built byte by byte, without any writer: for tests of readers, and for golden directories.
//!
//! A [`LogFixture`] says what a log's files hold, record by record, the impossible included. It
//! knows the format and nothing of how a log comes about, so that what reads logs is not tested
//! against the very code that writes them.
//!
//! ```
//! use wal_sim::SimStorage;
//! use wal_sim::fixture::LogFixture;
//!
//! # fn main() -> wal_storage::Result<()> {
//! let mut log = LogFixture::new(*b"the test's log..");
//! let segment = log.core(3).segment();
//! segment.put(b"key", b"value").mark(0).put(b"key", b"newer");
//! let name = segment.name();
//! let mut image = log.finish();
//! image.flip_bit(&name, 12288 * 8);
//!
//! let storage = SimStorage::new(1);
//! image.install(&storage)?;
//! // ... recover from `storage`, and see the damage reported ...
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;

use wal_entry::{RecordBuffer, WalEntry};
use wal_format::{
    Block, CoreDirectory, Features, Identity, LogId, MANIFEST_SLOT_BYTES, Manifest, ManifestSlot,
    Mark, Membership, Predecessor, RECORD_HEADER_BYTES, RecordHeader, RecordKind,
    SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, Seal, SegmentFile, Start, VouchSlot,
    encode_batch_entry_header, encode_record_header,
};
use wal_storage::Result;

use crate::SimStorage;

const BLOCK_BYTES: usize = wal_format::BLOCK_BYTES;

/// A log in the making.
#[derive(Debug, Clone)]
pub struct LogFixture {
    log_id: LogId,
    manifest: Manifest,
    cores: BTreeMap<u16, CoreFixture>,
}

impl LogFixture {
    /// A log without cores. Its manifest has number 1.
    #[must_use]
    pub const fn new(log_id: [u8; 16]) -> Self {
        let log_id = LogId(log_id);
        let manifest = Manifest {
            number: 1,
            log_id,
            features: Features::NONE,
            members: Vec::new(),
            checkpoint: None,
            releases: Vec::new(),
            cuts: Vec::new(),
            accepted_damage: Vec::new(),
        };
        Self { log_id, manifest, cores: BTreeMap::new() }
    }

    /// The manifest that both slots get. If it names no members by then, all cores are made
    /// members from epoch 0 on.
    pub const fn manifest(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// One core's log.
    pub fn core(&mut self, core: u16) -> &mut CoreFixture {
        let log_id = self.log_id;
        self.cores.entry(core).or_insert_with(|| CoreFixture { log_id, core, segments: Vec::new() })
    }

    /// Every entry written by [`put`](SegmentFixture::put), [`entry`](SegmentFixture::entry) and
    /// [`batch`](SegmentFixture::batch), in replay order: the model to compare with.
    #[must_use]
    pub fn entries(&self) -> Vec<WalEntry> {
        let segments = self.cores.values().flat_map(|core| &core.segments);
        let mut entries: Vec<_> =
            segments.flat_map(|segment| segment.entries.iter().cloned()).collect();
        entries.sort();
        entries
    }

    /// The bytes of all files.
    #[must_use]
    pub fn finish(&self) -> LogImage {
        let mut image = LogImage::default();
        let mut manifest = self.manifest.clone();
        if let (true, Some((&first, _)), Some((&last, _))) =
            (manifest.members.is_empty(), self.cores.first_key_value(), self.cores.last_key_value())
        {
            let core_count = u32::from(last - first) + 1;
            manifest.members.push(Membership { first_epoch: 0, first_core: first, core_count });
        }
        for slot in ManifestSlot::BOTH {
            image.write_manifest(slot, &manifest);
        }
        for segment in self.cores.values().flat_map(|core| &core.segments) {
            image.files.insert(segment.name(), segment.bytes());
        }
        image
    }
}

/// One core's log in the making.
#[derive(Debug, Clone)]
pub struct CoreFixture {
    log_id: LogId,
    core: u16,
    segments: Vec<SegmentFixture>,
}

impl CoreFixture {
    /// A new segment, which continues the last one where that one ends now.
    pub fn segment(&mut self) -> &mut SegmentFixture {
        let last = self.segments.last();
        let segment_id = last.map_or(1, |last| last.identity.segment_id + 1);
        let reached = last.map_or(Reached::EMPTY, |last| last.logical_end.unwrap_or(last.reached));
        let predecessor = last.map(|last| Predecessor {
            segment_id: last.identity.segment_id,
            salt: last.identity.salt,
            end_position: reached.position,
        });
        let identity = Identity {
            log_id: self.log_id,
            core: self.core,
            segment_id,
            size_bytes: 2 * SEGMENT_BYTES_MIN,
            payload_type: 1,
            payload_version: 1,
            max_record_bytes: 1 << 24,
            features: Features::NONE,
            salt: salt(self.core, segment_id),
            created_ns: 0,
        };
        let start = Start {
            predecessor,
            base_position: reached.position,
            base_sequence: reached.sequence,
            last_epoch: reached.epoch,
            last_timestamp_ns: reached.timestamp_ns,
            manifest_number: 1,
        };
        self.push(SegmentFixture {
            identity,
            start: Some(start),
            base_position: reached.position,
            vouches: Vec::new(),
            records: Vec::new(),
            reached,
            logical_end: None,
            entries: Vec::new(),
        })
    }

    /// A new segment that was prepared and never begun: start and vouch blocks are zero.
    pub fn unused_segment(&mut self) -> &mut SegmentFixture {
        self.segment().without_start()
    }

    /// A new segment that continues the one with the number `segment_id` at `position`, as after
    /// a cut; where that one does not end there, sequence, epoch and timestamp want setting.
    pub fn segment_after(&mut self, segment_id: u64, position: u64) -> &mut SegmentFixture {
        let named = self.segments.iter().find(|s| s.identity.segment_id == segment_id);
        let salt = named.map(|segment| segment.identity.salt);
        let next = self.segment();
        next.reached.position = position;
        next.base_position = position;
        if let Some(start) = &mut next.start {
            start.base_position = position;
            start.predecessor =
                salt.map(|salt| Predecessor { segment_id, salt, end_position: position });
        }
        next
    }

    /// The last segment, to go on with it.
    pub fn last_segment(&mut self) -> Option<&mut SegmentFixture> {
        self.segments.last_mut()
    }

    fn push(&mut self, segment: SegmentFixture) -> &mut SegmentFixture {
        self.segments.push(segment);
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }
}

/// How far a segment's records go, and what the next one continues.
#[derive(Debug, Clone, Copy)]
struct Reached {
    position: u64,
    sequence: u64,
    epoch: u64,
    timestamp_ns: i64,
}

impl Reached {
    const EMPTY: Self = Self { position: 0, sequence: 0, epoch: 0, timestamp_ns: i64::MIN };
}

/// A segment in the making. Records go where the last one ended.
#[derive(Debug, Clone)]
pub struct SegmentFixture {
    identity: Identity,
    start: Option<Start>,
    base_position: u64,
    vouches: Vec<VouchSlot>,
    /// Everything behind the header blocks.
    records: Vec<u8>,
    reached: Reached,
    /// Where the segment ends for the next one, if not where its records do.
    logical_end: Option<Reached>,
    entries: Vec<WalEntry>,
}

/// # What it says of itself
impl SegmentFixture {
    /// The name of its file, relative to the log's directory.
    #[must_use]
    pub fn name(&self) -> String {
        segment_name(self.identity.core, self.identity.segment_id)
    }

    /// Where the next record goes.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.reached.position
    }

    /// The sequence of the next entry.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.reached.sequence
    }

    /// Where the next record goes in the file.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.reached.position - self.base_position + SEGMENT_HEADER_BYTES
    }

    /// The salt of this life of the file.
    #[must_use]
    pub const fn salt(&self) -> u64 {
        self.identity.salt
    }

    /// The segment's number.
    #[must_use]
    pub const fn segment_id(&self) -> u64 {
        self.identity.segment_id
    }

    /// The bytes of its file. It grows if the records need more than its size.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut identity = self.identity.clone();
        let needed = SEGMENT_HEADER_BYTES + self.records.len() as u64;
        identity.size_bytes = identity.size_bytes.max(needed.next_multiple_of(BLOCK_BYTES as u64));
        let start =
            self.start.as_ref().map_or(Block::ZERO, |start| start.encode(self.identity.salt));
        let mut vouches = Block::ZERO;
        for slot in &self.vouches {
            slot.encode_into(&mut vouches, self.identity.salt);
        }
        let mut bytes = Vec::new();
        for block in [identity.encode(), start, vouches] {
            bytes.extend_from_slice(block.as_bytes());
        }
        bytes.extend_from_slice(&self.records);
        bytes.resize(usize::try_from(identity.size_bytes).unwrap_or(bytes.len()), 0);
        bytes
    }
}

/// # Header blocks
impl SegmentFixture {
    /// The size of the file, if its records fit. A multiple of 4096, not below the format's least.
    pub const fn size(&mut self, size_bytes: u64) -> &mut Self {
        self.identity.size_bytes = size_bytes;
        self
    }

    /// The identity, to be changed before the first record, for records depend on the salt.
    pub const fn identity(&mut self) -> &mut Identity {
        &mut self.identity
    }

    /// Changes the start; nothing if there is none. Records stay where they are: set the
    /// sequence of the next entry with [`set_sequence`](Self::set_sequence).
    pub fn start(&mut self, change: impl FnOnce(&mut Start)) -> &mut Self {
        if let Some(start) = &mut self.start {
            change(start);
        }
        self
    }

    /// Leaves the start block zero.
    pub fn without_start(&mut self) -> &mut Self {
        self.start = None;
        self
    }

    /// Writes a vouch slot: durable up to here, not closed.
    pub fn vouch(&mut self) -> &mut Self {
        self.vouch_at(self.reached.position, false)
    }

    /// Writes a vouch slot as a clean close does.
    pub fn close(&mut self) -> &mut Self {
        self.vouch_at(self.reached.position, true)
    }

    /// Writes a vouch slot for any position.
    pub fn vouch_at(&mut self, durable_position: u64, closed: bool) -> &mut Self {
        let counter = self.vouches.len() as u64 + 1;
        let epoch = self.reached.epoch;
        self.vouches.push(VouchSlot {
            counter,
            durable_position,
            epoch,
            manifest_number: 1,
            closed,
        });
        self
    }
}

/// # Records
impl SegmentFixture {
    /// A put with the next sequence, the epoch reached, and a timestamp one later than the last.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Self {
        let entry = self.next_put(key, value);
        self.entry(&entry)
    }

    /// Any entry, as it is. The next one continues it.
    pub fn entry(&mut self, entry: &WalEntry) -> &mut Self {
        let archive = archive(entry);
        self.record(RecordKind::Entry, &archive);
        self.note(entry);
        self
    }

    /// An atomic batch of puts.
    pub fn batch(&mut self, puts: &[(&[u8], &[u8])]) -> &mut Self {
        let mut payload = Vec::new();
        for (key, value) in puts {
            let entry = self.next_put(key, value);
            let archive = archive(&entry);
            payload.extend(encode_batch_entry_header(archive.len()).unwrap_or_default());
            payload.extend_from_slice(&archive);
            self.note(&entry);
        }
        self.record(RecordKind::Batch, &payload)
    }

    /// A put whose record has the checksum `wanted`, found by solving for four bytes of its
    /// value: a sum is linear in the bits that it covers.
    pub fn put_with_checksum(&mut self, key: &[u8], wanted: u32) -> &mut Self {
        let (salt, position) = (self.identity.salt, self.reached.position);
        let put = |word: u32| self.next_put(key, &u64::from(word).to_le_bytes());
        let checksum = |word| {
            let payload = archive(&put(word));
            let header = encode_record_header(RecordKind::Entry, &payload, salt, position);
            RecordHeader::decode(header.unwrap_or_default(), u32::MAX)
                .map_or(0, |header| header.stored_checksum)
        };
        let entry = put(solve(wanted, checksum));
        self.entry(&entry)
    }

    /// A mark: the log was durable up to there.
    pub fn mark(&mut self, durable_position: u64) -> &mut Self {
        let mark = Mark { durable_position, epoch: self.reached.epoch };
        let bytes = mark.encode(self.identity.salt, self.reached.position);
        self.raw(&bytes)
    }

    /// A seal. It takes no position.
    pub fn seal(&mut self) -> &mut Self {
        let seal = Seal { next_sequence: self.reached.sequence };
        let position = self.reached.position;
        let bytes = seal.encode(self.identity.salt, position);
        self.raw(&bytes);
        self.reached.position = position;
        self
    }

    /// Any record. A payload whose length is no multiple of 8 gets a header of zeroes.
    pub fn record(&mut self, kind: RecordKind, payload: &[u8]) -> &mut Self {
        let position = self.reached.position;
        let header = encode_record_header(kind, payload, self.identity.salt, position);
        let header: [u8; RECORD_HEADER_BYTES] = header.unwrap_or_default();
        self.raw(&header).raw(payload)
    }

    /// Any bytes.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let at = usize::try_from(self.offset() - SEGMENT_HEADER_BYTES).unwrap_or(usize::MAX);
        let end = at.saturating_add(bytes.len());
        if self.records.len() < end {
            self.records.resize(end, 0);
        }
        self.records[at..end].copy_from_slice(bytes);
        self.reached.position += bytes.len() as u64;
        self
    }

    /// Zeroes up to the next block of the file; none at the beginning of one.
    pub fn skip_to_block(&mut self) -> &mut Self {
        let skipped = self.offset().next_multiple_of(BLOCK_BYTES as u64) - self.offset();
        self.reached.position += skipped;
        self
    }

    /// What follows in this file is not part of the log: the next segment continues here.
    pub const fn ends_here(&mut self) -> &mut Self {
        self.logical_end = Some(self.reached);
        self
    }

    /// The sequence of the next entry.
    pub const fn set_sequence(&mut self, sequence: u64) -> &mut Self {
        self.reached.sequence = sequence;
        self
    }

    /// The epoch of the next entries.
    pub const fn set_epoch(&mut self, epoch: u64) -> &mut Self {
        self.reached.epoch = epoch;
        self
    }

    /// The timestamp of the next entry.
    pub const fn set_timestamp(&mut self, timestamp_ns: i64) -> &mut Self {
        self.reached.timestamp_ns = timestamp_ns.saturating_sub(1);
        self
    }

    /// The entry that [`put`](Self::put) would write.
    #[must_use]
    pub fn next_put(&self, key: &[u8], value: &[u8]) -> WalEntry {
        let Reached { sequence, epoch, timestamp_ns, .. } = self.reached;
        let timestamp_ns = timestamp_ns.saturating_add(1).max(0);
        let core = self.identity.core;
        WalEntry::put(core, epoch, sequence, key.to_vec(), value.to_vec(), timestamp_ns)
    }

    fn note(&mut self, entry: &WalEntry) {
        self.reached.sequence = entry.sequence.wrapping_add(1);
        self.reached.epoch = entry.epoch;
        self.reached.timestamp_ns = entry.timestamp_ns;
        if self.logical_end.is_none() {
            self.entries.push(entry.clone());
        }
    }
}

/// The files of a log, to be damaged and installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogImage {
    /// Names relative to the log's directory, and bytes.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl LogImage {
    /// Puts all files, durably, onto a simulated disk.
    ///
    /// # Errors
    ///
    /// If a name cannot be one.
    pub fn install(&self, storage: &SimStorage) -> Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| storage.write_file(name, bytes))
    }

    /// A manifest in one slot, its file as long as slots are made.
    pub fn write_manifest(&mut self, slot: ManifestSlot, manifest: &Manifest) -> &mut Self {
        let mut bytes = manifest.encode().unwrap_or_default();
        let slot_bytes = usize::try_from(MANIFEST_SLOT_BYTES).unwrap_or(usize::MAX);
        bytes.resize(bytes.len().max(slot_bytes), 0);
        self.files.insert(slot.name().to_owned(), bytes);
        self
    }

    /// Turns one bit of a file over. Nothing if there is none.
    pub fn flip_bit(&mut self, name: &str, bit: u64) -> &mut Self {
        self.change(name, bit / 8, |bytes| bytes[0] ^= 1 << (bit % 8))
    }

    /// Turns a whole byte over. Nothing if there is none.
    pub fn flip_byte(&mut self, name: &str, at: u64) -> &mut Self {
        self.change(name, at, |bytes| bytes[0] ^= 0xff)
    }

    /// Zeroes a file from a byte on; its length stays.
    pub fn zero_from(&mut self, name: &str, at: u64) -> &mut Self {
        self.change(name, at, |bytes| bytes.fill(0))
    }

    /// Puts `new` in place of what is there, as far as the file goes.
    pub fn overwrite(&mut self, name: &str, at: u64, new: &[u8]) -> &mut Self {
        self.change(name, at, |bytes| {
            bytes.iter_mut().zip(new).for_each(|(byte, &new)| *byte = new);
        })
    }

    /// Takes bytes off a file's end.
    pub fn shrink_by(&mut self, name: &str, removed: usize) -> &mut Self {
        if let Some(bytes) = self.files.get_mut(name) {
            bytes.truncate(bytes.len().saturating_sub(removed));
        }
        self
    }

    /// Removes a file.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.files.remove(name);
        self
    }

    /// What stands in a file from `at` on, if anything does, to be changed.
    fn change(&mut self, name: &str, at: u64, change: impl FnOnce(&mut [u8])) -> &mut Self {
        let bytes = self.files.get_mut(name).map_or(&mut [][..], Vec::as_mut_slice);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            change(rest);
        }
        self
    }
}

/// The name of a segment's file, relative to the log's directory.
#[must_use]
pub fn segment_name(core: u16, segment_id: u64) -> String {
    format!("{}/{}", CoreDirectory(core), SegmentFile(segment_id))
}

/// Every segment has a salt of its own, and always the same.
const fn salt(core: u16, segment_id: u64) -> u64 {
    crate::random::mix(core as u64, segment_id)
}

fn archive(entry: &WalEntry) -> Vec<u8> {
    let entry = entry.borrowed();
    let mut buffer = RecordBuffer::new();
    entry.archive_into(&mut buffer);
    buffer.to_vec()
}

/// The word for which `checksum`, which is linear but for a constant, gives `wanted`; 0 if there
/// is none. Gaussian elimination, one bit of the word per row.
fn solve(wanted: u32, checksum: impl Fn(u32) -> u32) -> u32 {
    let of_zero = checksum(0);
    let mut rows: Vec<(u32, u32)> =
        (0..32).map(|bit| (checksum(1 << bit) ^ of_zero, 1 << bit)).collect();
    let mut missing = wanted ^ of_zero;
    let mut word = 0;
    for bit in 0..32 {
        let Some(pivot) = rows.iter().position(|row| row.0 >> bit & 1 == 1) else { continue };
        let (effect, bits) = rows.swap_remove(pivot);
        for row in rows.iter_mut().filter(|row| row.0 >> bit & 1 == 1) {
            *row = (row.0 ^ effect, row.1 ^ bits);
        }
        if missing >> bit & 1 == 1 {
            missing ^= effect;
            word ^= bits;
        }
    }
    if missing == 0 { word } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal_format::SegmentBytes;

    #[test]
    fn a_segment_reads_as_it_was_built() {
        let mut log = LogFixture::new([7; 16]);
        let segment = log.core(2).segment();
        segment.put(b"a", b"1").mark(0).batch(&[(b"b", b"2"), (b"c", b"3")]).seal();
        let end_position = segment.position();
        let name = segment.name();
        let image = log.finish();
        let file = SegmentBytes::parse(&image.files[&name]).unwrap();
        let mut records = file.records();
        let kinds: Vec<_> = records.by_ref().map(|record| record.kind).collect();
        assert_eq!(
            kinds,
            [RecordKind::Entry, RecordKind::Mark, RecordKind::Batch, RecordKind::Seal]
        );
        assert_eq!(records.position(), end_position);
        assert_eq!(log.entries().len(), 3);
    }

    #[test]
    fn the_next_segment_continues_the_last_one() {
        let mut log = LogFixture::new([7; 16]);
        let first = log.core(0).segment();
        first.set_epoch(4).put(b"a", b"1").ends_here().raw(&[0xee; 40]);
        let (salt, name) = (first.salt(), first.name());
        log.core(0).segment().put(b"b", b"2");
        assert_eq!(name, "core-0000/00000000000000000001.wal");
        let image = log.finish();
        let second = SegmentBytes::parse(&image.files[&segment_name(0, 2)]).unwrap();
        let start = second.start().unwrap();
        let end_position = start.base_position;
        assert_eq!(start.predecessor, Some(Predecessor { segment_id: 1, salt, end_position }));
        assert_eq!((start.base_sequence, start.last_epoch), (1, 4));
        assert_eq!(second.records().count(), 1);
    }

    #[test]
    fn a_record_can_be_given_any_checksum() {
        for wanted in [0, 1, 0xdead_beef, u32::MAX] {
            let mut log = LogFixture::new([7; 16]);
            let segment = log.core(0).segment();
            segment.put(b"before", b"").put_with_checksum(b"key", wanted);
            let bytes = segment.bytes();
            let file = SegmentBytes::parse(&bytes).unwrap();
            let record = file.records().nth(1).unwrap();
            let at = usize::try_from(record.position + SEGMENT_HEADER_BYTES).unwrap();
            assert_eq!(bytes[at + 4..at + 8], wanted.to_le_bytes());
        }
    }
}
