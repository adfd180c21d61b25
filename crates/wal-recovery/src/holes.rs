//! Holes: ranges of one core's log whose loss was accepted, and behind which the log goes on.

use wal_format::{AcceptedDamage, Manifest};

/// The ranges of one core's log that were accepted as lost.
///
/// One of them matters only where the records stop at its beginning, in its segment or before it:
/// then the log goes on at its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holes {
    accepted: Vec<AcceptedDamage>,
}

impl Holes {
    pub(crate) fn of_core(core: u16, manifest: Option<&Manifest>) -> Self {
        let accepted = manifest.map_or(&[][..], |manifest| &manifest.accepted_damage);
        Self { accepted: accepted.iter().filter(|it| it.core == core).copied().collect() }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    /// Where the log goes on if the records of a segment stop at `position`: within the segment, or
    /// at its limit. Whichever segment began there when the loss was accepted, another one may by
    /// now.
    pub(crate) fn end_of(
        &self,
        segment_id: u64,
        position: u64,
        limit_position: u64,
    ) -> Option<u64> {
        let mut accepted = self.accepted.iter();
        let hole = accepted.find(|it| {
            let is_here = it.segment_id == segment_id && it.end_position <= limit_position;
            let is_up_to_limit = it.segment_id >= segment_id && it.end_position == limit_position;
            it.position == position && (is_here || is_up_to_limit)
        });
        hole.map(|it| it.end_position)
    }

    /// Whether a range that was accepted as lost begins there: so does the one behind the end of a
    /// log of which nothing is left but a checkpoint.
    pub(crate) fn begin_at(&self, position: u64) -> bool {
        self.accepted.iter().any(|it| it.position == position)
    }

    /// Where the hole begins that ends where the segment does begin; so it need not be continuous
    /// with what stands before.
    pub(crate) fn before(&self, segment_id: u64, base_position: u64) -> Option<u64> {
        let mut accepted = self.accepted.iter();
        let hole =
            accepted.find(|it| it.segment_id == segment_id && it.end_position == base_position)?;
        Some(hole.position)
    }
}
