//! The manifest: what the log as a whole knows about itself, in one of two slots.
//!
//! A slot file holds one manifest from its first byte on; what follows is left from longer ones
//! and means nothing. This is the only module that allocates.

use alloc::string::String;
use alloc::vec::Vec;

use crate::block::{BlockError, Features, Field, LogId, check_fixed_part, checksum_without, fixed};
use crate::{FORMAT_VERSION, RECORD_ALIGNMENT_BYTES};

/// The size that a slot file is made with; it grows only if a manifest needs more.
pub const MANIFEST_SLOT_BYTES: u64 = 64 * 1024;

/// Everything that must be changed at once for all cores, and what outlives released segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Rises with every replacement; the first manifest of a log has 1.
    pub number: u64,
    /// The log's name, made once.
    pub log_id: LogId,
    /// What readers and writers must know beyond version 1.
    pub features: Features,
    /// Which cores took part from which epoch on, in order of their first epoch, each epoch once.
    pub members: Vec<Membership>,
    /// The last complete checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Per core, what has been released; in order of cores, each core once.
    pub releases: Vec<Release>,
    /// Per core, where its log was cut; in order of cores. A core may have several.
    pub cuts: Vec<Cut>,
    /// Damage that the operator accepted as lost, in any order.
    pub accepted_damage: Vec<AcceptedDamage>,
}

/// The cores that log from an epoch on, until the next membership begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The first epoch that is complete only with these cores.
    pub first_epoch: u64,
    /// The lowest core.
    pub first_core: u16,
    /// How many cores, counted upwards from it; at least 1.
    pub core_count: u32,
}

/// A complete checkpoint: everything up to its epoch is in a snapshot elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The caller's name for it.
    pub id: u64,
    /// The epoch that it closed.
    pub epoch: u64,
    /// Where it stands on each member core, in order of cores.
    pub cores: Vec<CheckpointCore>,
    /// How far each source had been read, in order of their names.
    pub source_offsets: Vec<SourceOffset>,
    /// Event time reached.
    pub watermark: Option<i64>,
}

impl Checkpoint {
    /// Where it stands on a core; `None` of a core that was no member.
    #[must_use]
    pub fn place(&self, core: u16) -> Option<&CheckpointCore> {
        self.cores.iter().find(|place| place.core == core)
    }
}

/// Where a checkpoint stands on one core: behind the barrier of its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointCore {
    /// The core.
    pub core: u16,
    /// The position behind the barrier.
    pub position: u64,
    /// The sequence of the entry behind the barrier.
    pub sequence: u64,
    /// The barrier's timestamp.
    pub timestamp_ns: i64,
}

/// How far one source had been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOffset {
    /// The source's name.
    pub source: String,
    /// Where to read on.
    pub offset: u64,
}

/// Space given back on one core, and what only the released entries knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The core.
    pub core: u16,
    /// Records below this position may be gone.
    pub position: u64,
    /// The epoch of the last entry below it.
    pub last_epoch: u64,
    /// The timestamp of the last entry below it.
    pub last_timestamp_ns: i64,
}

/// A core's log was cut: what stood above is not part of it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The core.
    pub core: u16,
    /// The log ends here, as far as segments up to `dead_segment_id` go.
    pub position: u64,
    /// The sequence of the next entry.
    pub sequence: u64,
    /// The highest segment that existed when the log was cut.
    pub dead_segment_id: u64,
    /// The epoch that the core had reached; a cut does not take it back.
    pub last_epoch: u64,
    /// The timestamp that the core had reached; a cut does not take it back.
    pub last_timestamp_ns: i64,
}

/// A range of a core's log that the operator accepted as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedDamage {
    /// The core.
    pub core: u16,
    /// Where the lost range begins.
    pub position: u64,
    /// Where it ends.
    pub end_position: u64,
    /// The segment that it lies in.
    pub segment_id: u64,
}

/// `laminarM`, read as a little-endian number.
const MAGIC: u64 = u64::from_le_bytes(*b"laminarM");
const WHAT: &str = "manifest";

const LOG_ID: Field<LogId> = Field::at(fixed::END);
const NUMBER: Field<u64> = Field::after(LOG_ID);
const INCOMPATIBLE: Field<u64> = Field::after(NUMBER);
const READ_COMPATIBLE: Field<u64> = Field::after(INCOMPATIBLE);
const COMPATIBLE: Field<u64> = Field::after(READ_COMPATIBLE);
const HEAD_BYTES: usize = COMPATIBLE.end();
const _: () = assert!(HEAD_BYTES == 72);

impl Manifest {
    /// The bytes to be written at the front of a slot file; a multiple of 8.
    ///
    /// `None` if they would be 4 GiB or more.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut body = BodyWriter(alloc::vec![0; HEAD_BYTES]);
        self.encode_body(&mut body)?;
        let mut bytes = body.0;
        fixed::MAGIC.put(&mut bytes, MAGIC);
        fixed::VERSION.put(&mut bytes, FORMAT_VERSION);
        let length = u32::try_from(bytes.len()).ok()?;
        fixed::LENGTH.put(&mut bytes, length);
        LOG_ID.put(&mut bytes, self.log_id);
        NUMBER.put(&mut bytes, self.number);
        INCOMPATIBLE.put(&mut bytes, self.features.incompatible);
        READ_COMPATIBLE.put(&mut bytes, self.features.read_compatible);
        COMPATIBLE.put(&mut bytes, self.features.compatible);
        let checksum = checksum_without(&bytes, fixed::CRC, 0);
        fixed::CRC.put(&mut bytes, checksum);
        Some(bytes)
    }

    /// Reads the manifest at the front of a slot file's bytes.
    ///
    /// # Errors
    ///
    /// The first rule that they break. [`BlockError::Version`] and [`BlockError::Features`] mean
    /// that the manifest is whole and newer than this crate.
    pub fn decode(slot: &[u8]) -> Result<Self, BlockError> {
        let bytes = check_fixed_part(slot, WHAT, MAGIC, slot.len().max(HEAD_BYTES))?;
        let field = |field, value: u64| BlockError::Field { what: WHAT, field, value };
        if bytes.len() < HEAD_BYTES {
            return Err(field("length", bytes.len() as u64));
        }
        let features = Features {
            incompatible: INCOMPATIBLE.get(bytes),
            read_compatible: READ_COMPATIBLE.get(bytes),
            compatible: COMPATIBLE.get(bytes),
        };
        if features.incompatible != 0 {
            return Err(BlockError::Features { what: WHAT, bits: features.incompatible });
        }
        let mut body = BodyReader { bytes, at: HEAD_BYTES };
        let mut manifest = Self {
            number: NUMBER.get(bytes),
            log_id: LOG_ID.get(bytes),
            features,
            members: Vec::new(),
            checkpoint: None,
            releases: Vec::new(),
            cuts: Vec::new(),
            accepted_damage: Vec::new(),
        };
        if manifest.number == 0 {
            return Err(field("number", 0));
        }
        manifest
            .decode_body(&mut body)
            .filter(|()| body.at == bytes.len())
            .ok_or_else(|| field("body ends or breaks off at byte", body.at as u64))?;
        manifest.check().map_err(|(name, value)| field(name, value))?;
        Ok(manifest)
    }

    /// What has been released of a core.
    #[must_use]
    pub fn release(&self, core: u16) -> Option<&Release> {
        self.releases.iter().find(|release| release.core == core)
    }

    /// Up to where a core's log lies behind the checkpoint, or was released: nothing below is needed
    /// or can be counted on. A checkpoint may be gone; what it released stays so.
    #[must_use]
    pub fn checkpointed_position(&self, core: u16) -> u64 {
        let place = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.place(core));
        let place = place.map(|place| place.position);
        place.max(self.release(core).map(|release| release.position)).unwrap_or(0)
    }

    /// Adds a cut that is newer than all of them, and forgets those that it makes redundant: for
    /// every segment that they speak of, the new one says at least as much.
    pub fn add_cut(&mut self, new: Cut) {
        self.cuts.retain(|old| old.core != new.core || old.position < new.position);
        let place = self.cuts.partition_point(|old| old.core <= new.core);
        self.cuts.insert(place, new);
    }

    fn encode_body(&self, body: &mut BodyWriter) -> Option<()> {
        body.list(&self.members, |body, member| {
            body.u64(member.first_epoch);
            body.u64(member.first_core.into());
            body.u64(member.core_count.into());
            Some(())
        })?;
        body.list(self.checkpoint.as_slice(), |body, checkpoint| {
            body.u64(checkpoint.id);
            body.u64(checkpoint.epoch);
            body.list(checkpoint.watermark.as_slice(), |body, watermark| {
                body.i64(*watermark);
                Some(())
            })?;
            body.list(&checkpoint.cores, |body, core| {
                body.u64(core.core.into());
                body.u64(core.position);
                body.u64(core.sequence);
                body.i64(core.timestamp_ns);
                Some(())
            })?;
            body.list(&checkpoint.source_offsets, |body, source| {
                body.text(&source.source)?;
                body.u64(source.offset);
                Some(())
            })
        })?;
        body.list(&self.releases, |body, release| {
            body.u64(release.core.into());
            body.u64(release.position);
            body.u64(release.last_epoch);
            body.i64(release.last_timestamp_ns);
            Some(())
        })?;
        body.list(&self.cuts, |body, cut| {
            body.u64(cut.core.into());
            body.u64(cut.position);
            body.u64(cut.sequence);
            body.u64(cut.dead_segment_id);
            body.u64(cut.last_epoch);
            body.i64(cut.last_timestamp_ns);
            Some(())
        })?;
        body.list(&self.accepted_damage, |body, damage| {
            body.u64(damage.core.into());
            body.u64(damage.position);
            body.u64(damage.end_position);
            body.u64(damage.segment_id);
            Some(())
        })
    }

    fn decode_body(&mut self, body: &mut BodyReader<'_>) -> Option<()> {
        self.members = body.list(|body| {
            Some(Membership {
                first_epoch: body.u64()?,
                first_core: body.u64()?.try_into().ok()?,
                core_count: body.u64()?.try_into().ok()?,
            })
        })?;
        let mut checkpoints = body.list(|body| {
            Some(Checkpoint {
                id: body.u64()?,
                epoch: body.u64()?,
                watermark: body.at_most_one(BodyReader::i64)?,
                cores: body.list(|body| {
                    Some(CheckpointCore {
                        core: body.u64()?.try_into().ok()?,
                        position: body.u64()?,
                        sequence: body.u64()?,
                        timestamp_ns: body.i64()?,
                    })
                })?,
                source_offsets: body.list(|body| {
                    Some(SourceOffset { source: body.text()?, offset: body.u64()? })
                })?,
            })
        })?;
        self.checkpoint = checkpoints.pop();
        if !checkpoints.is_empty() {
            return None;
        }
        self.releases = body.list(|body| {
            Some(Release {
                core: body.u64()?.try_into().ok()?,
                position: body.u64()?,
                last_epoch: body.u64()?,
                last_timestamp_ns: body.i64()?,
            })
        })?;
        self.cuts = body.list(|body| {
            Some(Cut {
                core: body.u64()?.try_into().ok()?,
                position: body.u64()?,
                sequence: body.u64()?,
                dead_segment_id: body.u64()?,
                last_epoch: body.u64()?,
                last_timestamp_ns: body.i64()?,
            })
        })?;
        self.accepted_damage = body.list(|body| {
            Some(AcceptedDamage {
                core: body.u64()?.try_into().ok()?,
                position: body.u64()?,
                end_position: body.u64()?,
                segment_id: body.u64()?,
            })
        })?;
        Some(())
    }

    /// What no writer writes, though the bytes can be read: the field's name and its value.
    fn check(&self) -> Result<(), (&'static str, u64)> {
        let positions = self
            .releases
            .iter()
            .map(|release| release.position)
            .chain(self.cuts.iter().map(|cut| cut.position))
            .chain(self.checkpoint.iter().flat_map(|c| c.cores.iter().map(|core| core.position)));
        for position in positions {
            if !position.is_multiple_of(RECORD_ALIGNMENT_BYTES) {
                return Err(("position", position));
            }
        }
        for damage in &self.accepted_damage {
            for position in [damage.position, damage.end_position] {
                if !position.is_multiple_of(RECORD_ALIGNMENT_BYTES) {
                    return Err(("accepted damage's position", position));
                }
            }
            if damage.position >= damage.end_position {
                return Err(("accepted damage's end", damage.end_position));
            }
        }
        for member in &self.members {
            let end = u64::from(member.first_core) + u64::from(member.core_count);
            if member.core_count == 0 || end > u64::from(u16::MAX) + 1 {
                return Err(("member core count", member.core_count.into()));
            }
        }
        if !self.members.is_sorted_by(|a, b| a.first_epoch < b.first_epoch) {
            return Err(("members out of order, count", self.members.len() as u64));
        }
        if !self.releases.is_sorted_by(|a, b| a.core < b.core) {
            return Err(("releases out of order, count", self.releases.len() as u64));
        }
        if !self.cuts.is_sorted_by(|a, b| a.core <= b.core) {
            return Err(("cuts out of order, count", self.cuts.len() as u64));
        }
        if let Some(checkpoint) = &self.checkpoint {
            if !checkpoint.cores.is_sorted_by(|a, b| a.core < b.core) {
                return Err((
                    "checkpoint cores out of order, count",
                    checkpoint.cores.len() as u64,
                ));
            }
            if !checkpoint.source_offsets.is_sorted_by(|a, b| a.source < b.source) {
                let count = checkpoint.source_offsets.len() as u64;
                return Err(("checkpoint sources out of order, count", count));
            }
        }
        Ok(())
    }
}

/// Writes the body: numbers of 8 bytes, lists behind their count, texts behind their length and
/// filled up to a multiple of 8.
struct BodyWriter(Vec<u8>);

impl BodyWriter {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn list<T>(
        &mut self,
        items: &[T],
        mut write: impl FnMut(&mut Self, &T) -> Option<()>,
    ) -> Option<()> {
        self.u64(items.len().try_into().ok()?);
        items.iter().try_for_each(|item| write(self, item))
    }

    fn text(&mut self, text: &str) -> Option<()> {
        self.u64(text.len().try_into().ok()?);
        self.0.extend_from_slice(text.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        Some(())
    }
}

/// Reads what [`BodyWriter`] wrote; `None` where the bytes do not hold it.
struct BodyReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BodyReader<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn word(&mut self) -> Option<[u8; 8]> {
        let word = *self.rest().first_chunk::<8>()?;
        self.at += 8;
        Some(word)
    }

    fn u64(&mut self) -> Option<u64> {
        self.word().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.word().map(i64::from_le_bytes)
    }

    /// Nothing is allocated for a count before the items are read: one beyond the bytes that are
    /// there ends with the first item that is not.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u64()?;
        (0..count).map(|_| read(self)).collect()
    }

    fn at_most_one<T>(&mut self, read: impl FnMut(&mut Self) -> Option<T>) -> Option<Option<T>> {
        let mut items = self.list(read)?;
        let item = items.pop();
        items.is_empty().then_some(item)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u64()?).ok()?;
        let padded = length.checked_next_multiple_of(8)?;
        let bytes = self.rest().get(..padded)?;
        let (text, padding) = bytes.split_at_checked(length)?;
        if padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        let text = core::str::from_utf8(text).ok()?.into();
        self.at += padded;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn cut(core: u16, position: u64) -> Cut {
        Cut {
            core,
            position,
            sequence: 40,
            dead_segment_id: 6,
            last_epoch: 9,
            last_timestamp_ns: 5,
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            number: 7,
            log_id: LogId(*b"0123456789abcdef"),
            features: Features::NONE,
            members: vec![
                Membership { first_epoch: 0, first_core: 0, core_count: 4 },
                Membership { first_epoch: 9, first_core: 0, core_count: 2 },
            ],
            checkpoint: Some(Checkpoint {
                id: 70,
                epoch: 8,
                cores: vec![
                    CheckpointCore { core: 0, position: 4096, sequence: 17, timestamp_ns: -3 },
                    CheckpointCore { core: 3, position: 0, sequence: 0, timestamp_ns: 0 },
                ],
                source_offsets: vec![
                    SourceOffset { source: "orders/0".into(), offset: 5 },
                    SourceOffset { source: "orders/10".into(), offset: 6 },
                ],
                watermark: Some(-1),
            }),
            releases: vec![
                Release { core: 0, position: 1024, last_epoch: 7, last_timestamp_ns: 1 },
                Release { core: 2, position: 0, last_epoch: 0, last_timestamp_ns: 0 },
            ],
            cuts: vec![cut(1, 8192), cut(1, 16384), cut(2, 0)],
            accepted_damage: vec![AcceptedDamage {
                core: 1,
                position: 8,
                end_position: 16,
                segment_id: 2,
            }],
        }
    }

    #[test]
    fn a_core_is_checkpointed_up_to_its_place_or_what_was_released() {
        let mut log = manifest();
        assert_eq!([0, 1, 2, 3].map(|core| log.checkpointed_position(core)), [4096, 0, 0, 0]);
        log.releases[0].position = 8192;
        assert_eq!(log.checkpointed_position(0), 8192);
        log.checkpoint = None;
        assert_eq!(log.checkpointed_position(0), 8192);
        assert_eq!(log.release(2).map(|release| release.position), Some(0));
        assert_eq!(log.release(1), None);
    }

    #[test]
    fn a_cut_makes_those_redundant_that_lie_no_lower_and_no_other() {
        let mut log = Manifest { cuts: Vec::new(), ..manifest() };
        let mut cut_at = |core, position| {
            log.add_cut(Cut { core, ..cut(core, position) });
            log.cuts.iter().map(|cut| (cut.core, cut.position)).collect::<Vec<_>>()
        };
        cut_at(1, 800);
        cut_at(0, 904);
        assert_eq!(cut_at(1, 1600), [(0, 904), (1, 800), (1, 1600)]);
        assert_eq!(cut_at(1, 1000), [(0, 904), (1, 800), (1, 1000)]);
        assert_eq!(cut_at(1, 0), [(0, 904), (1, 0)]);
        let newer = Cut { dead_segment_id: 9, ..cut(1, 0) };
        log.add_cut(newer);
        assert_eq!(log.cuts[1..], [newer]);
    }

    #[test]
    fn a_manifest_comes_back_as_written_whatever_stands_behind_it() {
        let mut bytes = manifest().encode().unwrap();
        assert!(bytes.len().is_multiple_of(8));
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        bytes.extend_from_slice(&[0xaa; 100]);
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
    }

    #[test]
    fn every_flipped_bit_is_damage_and_none_a_newer_version() {
        let bytes = manifest().encode().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Manifest::decode(&damaged).unwrap_err();
            assert!(
                !matches!(error, BlockError::Version { .. } | BlockError::Features { .. }),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = manifest().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = manifest().encode().unwrap();
        fixed::VERSION.put(&mut bytes, 2);
        let checksum = checksum_without(&bytes, fixed::CRC, 0);
        fixed::CRC.put(&mut bytes, checksum);
        assert_eq!(Manifest::decode(&bytes), Err(BlockError::Version { what: WHAT, found: 2 }));
    }

    #[test]
    fn what_no_writer_writes_is_refused_by_name() {
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            match Manifest::decode(&manifest.encode().unwrap()) {
                Err(BlockError::Field { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(|m| m.number = 0), "number");
        assert_eq!(refused(|m| m.releases[0].position = 4), "position");
        assert_eq!(refused(|m| m.cuts[0].position = 4), "position");
        let misplaced = |m: &mut Manifest| m.checkpoint.as_mut().unwrap().cores[0].position = 4;
        assert_eq!(refused(misplaced), "position");
        assert_eq!(refused(|m| m.accepted_damage[0].position = 4), "accepted damage's position");
        assert_eq!(
            refused(|m| m.accepted_damage[0].end_position = 20),
            "accepted damage's position"
        );
        assert_eq!(refused(|m| m.accepted_damage[0].end_position = 8), "accepted damage's end");
        assert_eq!(refused(|m| m.accepted_damage[0].end_position = 0), "accepted damage's end");
        assert_eq!(refused(|m| m.members[0].core_count = 0), "member core count");
        assert_eq!(refused(|m| m.members[0].first_core = u16::MAX), "member core count");
        assert_eq!(refused(|m| m.members[0].core_count = (1 << 16) + 1), "member core count");
        assert_eq!(refused(|m| m.members.swap(0, 1)), "members out of order, count");
        assert_eq!(refused(|m| m.members[1].first_epoch = 0), "members out of order, count");
        assert_eq!(refused(|m| m.releases.swap(0, 1)), "releases out of order, count");
        assert_eq!(refused(|m| m.releases[1].core = 0), "releases out of order, count");
        assert_eq!(refused(|m| m.cuts.swap(1, 2)), "cuts out of order, count");
        let order = "checkpoint cores out of order, count";
        assert_eq!(refused(|m| m.checkpoint.as_mut().unwrap().cores.swap(0, 1)), order);
        assert_eq!(refused(|m| m.checkpoint.as_mut().unwrap().cores[1].core = 0), order);
        let order = "checkpoint sources out of order, count";
        assert_eq!(refused(|m| m.checkpoint.as_mut().unwrap().source_offsets.swap(0, 1)), order);
        let twice = |m: &mut Manifest| {
            let sources = &mut m.checkpoint.as_mut().unwrap().source_offsets;
            sources[1] = sources[0].clone();
        };
        assert_eq!(refused(twice), order);
    }

    #[test]
    fn a_count_beyond_the_bytes_that_are_there_is_refused() {
        for count in [3, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = manifest().encode().unwrap();
            // The first list is that of the members, of which there are two.
            bytes[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&count.to_le_bytes());
            let checksum = checksum_without(&bytes, fixed::CRC, 0);
            fixed::CRC.put(&mut bytes, checksum);
            assert!(matches!(Manifest::decode(&bytes), Err(BlockError::Field { .. })), "{count}");
        }
    }

    #[test]
    fn members_may_be_any_cores_that_have_a_number() {
        for (first_core, core_count) in [(0, 1 << 16), (u16::MAX, 1), (300, 300)] {
            let mut manifest = manifest();
            manifest.members[0] = Membership { first_epoch: 0, first_core, core_count };
            assert_eq!(Manifest::decode(&manifest.encode().unwrap()), Ok(manifest));
        }
    }

    #[test]
    fn a_length_that_ends_in_the_head_or_right_behind_it_is_refused_by_name() {
        let of_length = |length: usize| {
            let mut bytes = manifest().encode().unwrap();
            fixed::LENGTH.put(&mut bytes, length.try_into().unwrap());
            let checksum = checksum_without(&bytes[..length], fixed::CRC, 0);
            fixed::CRC.put(&mut bytes, checksum);
            Manifest::decode(&bytes).unwrap_err()
        };
        let field = |field, value: usize| BlockError::Field {
            what: WHAT,
            field,
            value: value.try_into().unwrap(),
        };
        let length = u32::try_from(fixed::END - 8).unwrap();
        assert_eq!(of_length(fixed::END - 8), BlockError::Length { what: WHAT, length });
        assert_eq!(of_length(fixed::END), field("length", fixed::END));
        assert_eq!(of_length(HEAD_BYTES - 8), field("length", HEAD_BYTES - 8));
        assert_eq!(of_length(HEAD_BYTES), field("body ends or breaks off at byte", HEAD_BYTES));
    }

    proptest! {
        #[test]
        fn a_body_of_any_bytes_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = manifest().encode().unwrap();
            bytes.truncate(HEAD_BYTES);
            bytes.extend_from_slice(&body);
            let length = u32::try_from(bytes.len()).unwrap();
            fixed::LENGTH.put(&mut bytes, length);
            let checksum = checksum_without(&bytes, fixed::CRC, 0);
            fixed::CRC.put(&mut bytes, checksum);
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode().unwrap(), bytes);
            }
        }
    }
}
