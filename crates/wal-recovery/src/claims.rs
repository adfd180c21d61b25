//! Claims: what proves that a core's log was durable up to a position.

use std::fmt;

use wal_format::{
    MARK_FIRST_WORD, MARK_RECORD_BYTES, Manifest, Mark, RECORD_ALIGNMENT_BYTES, RecordKind,
    SegmentFile, decode_record,
};
use wal_storage::{ProvenBy, Result};

use crate::cursor::Cursor;
use crate::cuts::Cuts;
use crate::headers::SegmentHeader;
use crate::scan::SegmentPlace;

/// Everything of the core's log below a position was durable, says a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) durable_position: u64,
    pub(crate) witness: Witness,
}

/// What makes a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Witness {
    Checkpoint { id: u64 },
    Release,
    Cut,
    Start { segment_id: u64 },
    Vouch { segment_id: u64 },
    Mark { segment_id: u64, position: u64 },
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Checkpoint { id } => write!(f, "the manifest: checkpoint {id}"),
            Self::Release => write!(f, "the manifest: release"),
            Self::Cut => write!(f, "the manifest: cut"),
            Self::Start { segment_id } => write!(f, "the start of {}", SegmentFile(segment_id)),
            Self::Vouch { segment_id } => {
                write!(f, "a vouch slot of {}", SegmentFile(segment_id))
            }
            Self::Mark { segment_id, position } => {
                write!(f, "the mark at position {position} in {}", SegmentFile(segment_id))
            }
        }
    }
}

/// The largest claim so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    largest: Option<Claim>,
}

impl Claims {
    pub(crate) fn add(&mut self, durable_position: u64, witness: Witness) {
        let largest = self.largest.as_ref();
        if largest.is_none_or(|largest| durable_position > largest.durable_position) {
            self.largest = Some(Claim { durable_position, witness });
        }
    }

    /// What the manifest says of this core: checkpoint, release, newest cut.
    pub(crate) fn add_manifest(&mut self, core: u16, manifest: Option<&Manifest>, cuts: &Cuts) {
        if let Some(checkpoint) = manifest.and_then(|manifest| manifest.checkpoint.as_ref())
            && let Some(place) = checkpoint.place(core)
        {
            self.add(place.position, Witness::Checkpoint { id: checkpoint.id });
        }
        if let Some(release) = manifest.and_then(|manifest| manifest.release(core)) {
            self.add(release.position, Witness::Release);
        }
        if let Some(cut) = cuts.newest() {
            self.add(cut.position, Witness::Cut);
        }
    }

    /// What the header of a segment says; it counts up to `limit_position`.
    pub(crate) fn add_header(&mut self, header: &SegmentHeader, limit_position: u64) {
        let segment_id = header.segment_id;
        if let Ok(start) = &header.start {
            let durable = start.base_position.min(limit_position);
            self.add(durable, Witness::Start { segment_id });
        }
        for slot in header.vouches() {
            let durable = slot.durable_position.min(limit_position);
            self.add(durable, Witness::Vouch { segment_id });
        }
    }

    /// A mark of this life found at `position`; it counts up to `limit_position`.
    pub(crate) fn add_mark(
        &mut self,
        mark: Mark,
        segment_id: u64,
        position: u64,
        limit_position: u64,
    ) {
        let witness = Witness::Mark { segment_id, position };
        self.add(mark.durable_position.min(limit_position), witness);
    }

    /// The largest claim's position; 0 without any, for nothing lies below that.
    pub(crate) fn largest_position(&self) -> u64 {
        let largest = self.largest.as_ref();
        largest.map_or(0, |largest| largest.durable_position)
    }

    /// The largest claim, for an error about damage at `position`; `None` if it is not above.
    pub(crate) fn proof_above(&self, position: u64) -> Option<ProvenBy> {
        let largest = self.largest.as_ref();
        let above = largest.filter(|largest| largest.durable_position > position)?;
        Some(ProvenBy {
            durable_position: above.durable_position,
            witness: above.witness.to_string(),
        })
    }
}

/// Looks at every place where a record may begin, from `from_position` to the end of the
/// segment, for marks of this life, adds what they claim up to `limit_position`, and returns where
/// the furthest one ends.
///
/// Marks of an earlier life have another salt; of their many, one in 2^32 validates by chance.
pub(crate) fn search_marks(
    cursor: &mut Cursor,
    place: &SegmentPlace,
    from_position: u64,
    limit_position: u64,
    claims: &mut Claims,
) -> Result<Option<u64>> {
    let mut furthest_end = None;
    let mut offset = place.offset_of(from_position);
    loop {
        let window = cursor.window(offset, MARK_RECORD_BYTES)?;
        let (words, _) = window.as_chunks::<PLACE_BYTES>();
        let Some(last_place) = words.len().checked_sub(MARK_PLACES) else {
            return Ok(furthest_end);
        };
        let places = words.get(..=last_place).unwrap_or(words);
        for (first_index, places) in
            (0..).step_by(PLACES_AT_ONCE).zip(places.chunks(PLACES_AT_ONCE))
        {
            if !has_mark_word(places) {
                continue;
            }
            for (index, word) in (first_index..).zip(places) {
                let at = index * PLACE_BYTES;
                let position = place.position_of(offset.saturating_add(at as u64));
                let bytes = window.get(at..).unwrap_or_default();
                if is_mark_word(word)
                    && let Some(mark) = mark_at(bytes, place, position)
                {
                    claims.add_mark(mark, place.segment_id, position, limit_position);
                    furthest_end = Some(position.saturating_add(MARK_RECORD_BYTES as u64));
                }
            }
        }
        offset = offset.saturating_add((places.len() * PLACE_BYTES) as u64);
    }
}

/// Whether one of the places may begin a mark. Without a branch per place, so that the compiler
/// looks at several at once: most of what is searched is empty space.
fn has_mark_word(places: &[[u8; PLACE_BYTES]]) -> bool {
    places.iter().fold(false, |found, word| found | is_mark_word(word))
}

#[inline(always)]
const fn is_mark_word(word: &[u8; PLACE_BYTES]) -> bool {
    let [a, b, c, d, ..] = *word;
    u32::from_le_bytes([a, b, c, d]) == MARK_FIRST_WORD
}

/// How many places are looked at before deciding whether one of them needs a closer look.
const PLACES_AT_ONCE: usize = 512;

/// Records begin at multiples of this.
const PLACE_BYTES: usize = 8;
const _: () = assert!(PLACE_BYTES as u64 == RECORD_ALIGNMENT_BYTES);

/// How many places a mark takes.
const MARK_PLACES: usize = MARK_RECORD_BYTES / PLACE_BYTES;
const _: () = assert!(MARK_PLACES * PLACE_BYTES == MARK_RECORD_BYTES);

fn mark_at(bytes: &[u8], place: &SegmentPlace, position: u64) -> Option<Mark> {
    let record = decode_record(bytes, place.salt, position, place.max_record_bytes).ok()?;
    match record.kind {
        // No writer claims what it has not written yet; the scan calls such a mark not understood.
        RecordKind::Mark => {
            Mark::decode(record.payload).filter(|mark| mark.durable_position <= position)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Witness = Witness::Vouch { segment_id: 1 };
    const SECOND: Witness = Witness::Vouch { segment_id: 2 };

    #[test]
    fn of_equal_claims_the_first_one_is_named() {
        let mut claims = Claims::default();
        claims.add(800, FIRST);
        claims.add(800, SECOND);
        assert_eq!(claims.proof_above(0).unwrap().witness, FIRST.to_string());
        claims.add(808, SECOND);
        assert_eq!(claims.proof_above(0).unwrap().witness, SECOND.to_string());
    }

    #[test]
    fn a_claim_proves_what_lies_below_it_and_nothing_at_its_own_position() {
        let mut claims = Claims::default();
        claims.add(800, FIRST);
        assert_eq!(claims.proof_above(799).unwrap().durable_position, 800);
        assert_eq!(claims.proof_above(800), None);
    }
}
