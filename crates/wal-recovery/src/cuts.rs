//! Cuts of one core's log: how far each segment still counts.

use wal_format::{Cut, Manifest};

use crate::headers::SegmentHeader;

/// The cuts of one core that the manifest remembers.
///
/// A cut says that the log ends at its position as far as segments up to its dead id go. Several
/// combine: a segment counts up to the lowest position of the cuts that concern it. Whatever it
/// says that the log was durable up to, counts no further either.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts {
    cuts: Vec<Cut>,
    release_position: u64,
}

impl Cuts {
    pub(crate) fn of_core(core: u16, manifest: Option<&Manifest>) -> Self {
        let cuts = manifest.map_or(&[][..], |manifest| &manifest.cuts);
        let release = manifest.and_then(|manifest| manifest.release(core));
        Self {
            cuts: cuts.iter().filter(|cut| cut.core == core).copied().collect(),
            release_position: release.map_or(0, |release| release.position),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.iter()
    }

    /// Up to where a segment counts; `u64::MAX` if no cut concerns it.
    pub(crate) fn limit(&self, segment_id: u64) -> u64 {
        self.deciding(segment_id).map_or(u64::MAX, |cut| cut.position)
    }

    /// The cut that limits a segment.
    pub(crate) fn deciding(&self, segment_id: u64) -> Option<&Cut> {
        let concerned = self.cuts.iter().filter(|cut| cut.dead_segment_id >= segment_id);
        concerned.min_by_key(|cut| cut.position)
    }

    /// The cut made last: the one with the highest dead id. Two have the same if a crash came
    /// before the first one's new segment; the second one then lies lower.
    pub(crate) fn newest(&self) -> Option<&Cut> {
        self.deciding(self.highest_dead_id())
    }

    /// No segment up to this one can continue the log behind the newest cut; 0 without cuts.
    pub(crate) fn highest_dead_id(&self) -> u64 {
        let dead_ids = self.cuts.iter().map(|cut| cut.dead_segment_id);
        dead_ids.max().unwrap_or(0)
    }

    /// Whether a cut took the whole segment out of the log. Without a valid start, nobody can say
    /// where it begins; but up to the highest dead id it was there when the log was cut, and it
    /// cannot be what continues the log behind the cut.
    ///
    /// If the newest cut is not above the release position, nothing is left of what it concerns: what
    /// does not lie above the cut was released, and some of it may be gone.
    pub(crate) fn makes_dead(&self, header: &SegmentHeader) -> bool {
        let is_concerned = header.segment_id <= self.highest_dead_id();
        let is_released = self.newest().is_some_and(|cut| cut.position <= self.release_position);
        match &header.start {
            _ if is_concerned && is_released => true,
            Ok(start) => start.base_position >= self.limit(header.segment_id),
            Err(_) => header.segment_id <= self.highest_dead_id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(position: u64, dead_segment_id: u64) -> Cut {
        Cut { core: 0, position, sequence: 0, dead_segment_id, last_epoch: 0, last_timestamp_ns: 0 }
    }

    #[test]
    fn several_cuts_combine_by_the_lowest_position() {
        let cuts = Cuts { cuts: vec![cut(200, 3), cut(100, 5), cut(400, 7)], release_position: 0 };
        assert_eq!(
            [1, 3, 4, 5, 6, 7, 8].map(|id| cuts.limit(id)),
            [100, 100, 100, 100, 400, 400, u64::MAX]
        );
        assert_eq!(cuts.newest(), Some(&cut(400, 7)));
    }

    #[test]
    fn of_two_cuts_before_one_segment_the_lower_one_is_the_newer() {
        let cuts = Cuts { cuts: vec![cut(200, 3), cut(100, 3)], release_position: 0 };
        assert_eq!(cuts.newest(), Some(&cut(100, 3)));
    }

    #[test]
    fn without_cuts_everything_counts() {
        let cuts = Cuts::default();
        assert_eq!(cuts.limit(1), u64::MAX);
        assert_eq!((cuts.newest(), cuts.highest_dead_id()), (None, 0));
    }
}
