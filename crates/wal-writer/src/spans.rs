//! The segments that hold a core's log while it is open: appending adds to them, a cut and a release
//! take away.

use std::sync::PoisonError;

use wal_format::Predecessor;
use wal_recovery::SegmentSpan;

use crate::sync::{Mutex, MutexGuard};

/// Oldest first. Of the last one, the end is known only when it was [noted](Self::note_end).
///
/// Touched once per segment: the lock is short, and holds no other.
#[derive(Debug)]
pub(crate) struct Spans(Mutex<Vec<SegmentSpan>>);

impl Spans {
    pub(crate) fn new(spans: Vec<SegmentSpan>) -> Self {
        Self(Mutex::new(spans))
    }

    pub(crate) fn all(&self) -> Vec<SegmentSpan> {
        self.lock().clone()
    }

    /// Tells how many they are, and their sizes together: of two who tell, the later one is right.
    pub(crate) fn with_live(&self, tell: impl FnOnce(u64, u64)) {
        let spans = self.lock();
        // Parts of one segment are one.
        let segments = || spans.chunk_by(|a, b| a.segment_id == b.segment_id);
        let sizes = segments().filter_map(|parts| parts.first()).map(|span| span.size_bytes);
        tell(segments().count() as u64, sizes.sum());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What a segment that begins at `end_position` names as the one before.
    pub(crate) fn predecessor(&self, end_position: u64) -> Option<Predecessor> {
        self.lock().last().map(|span| Predecessor {
            segment_id: span.segment_id,
            salt: span.salt,
            end_position,
        })
    }

    /// The log ends here by now.
    pub(crate) fn note_end(&self, position: u64, sequence: u64) {
        if let Some(last) = self.lock().last_mut() {
            last.end_position = position;
            last.end_sequence = sequence;
        }
    }

    pub(crate) fn begin(&self, span: SegmentSpan) {
        self.lock().push(span);
    }

    /// Cuts the log back, and returns the segments that are not part of it any more.
    pub(crate) fn cut(&self, position: u64, sequence: u64) -> Vec<u64> {
        let mut spans = self.lock();
        let live = spans.partition_point(|span| span.base_position < position);
        let mut dead: Vec<u64> = spans.drain(live..).map(|span| span.segment_id).collect();
        dead.dedup();
        // A part of a segment may be dead, and the part before it not.
        dead.retain(|&dead_id| spans.last().is_none_or(|last| last.segment_id != dead_id));
        if let Some(last) = spans.last_mut() {
            last.end_position = position;
            last.end_sequence = sequence;
        }
        dead
    }

    /// Lets go of the segments that end at `position` or below, and returns them. One stays until
    /// something of the next one is durable: only that one's start says where the log goes on, and
    /// it may be in memory alone.
    pub(crate) fn release_below(&self, position: u64, durable_position: u64) -> Vec<u64> {
        let mut spans = self.lock();
        let is_end = |pair: &[SegmentSpan]| match pair {
            [span, next] => {
                span.segment_id != next.segment_id
                    && span.end_position <= position
                    && next.base_position < durable_position
            }
            _ => false,
        };
        let count = spans.windows(2).rposition(is_end).map_or(0, |index| index + 1);
        let mut released: Vec<u64> = spans.drain(..count).map(|span| span.segment_id).collect();
        released.dedup();
        released
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SegmentSpan>> {
        // Every change is whole at each step, so a panic elsewhere harms nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments 1, 2, … with these bounds.
    fn spans(bounds: &[u64]) -> Spans {
        let span = |(segment_id, bounds): (u64, &[u64])| SegmentSpan {
            segment_id,
            salt: 0,
            size_bytes: 0,
            max_record_bytes: 0,
            segment_base_position: bounds[0],
            base_position: bounds[0],
            base_sequence: 0,
            last_epoch: 0,
            last_timestamp_ns: 0,
            end_position: bounds[1],
            end_sequence: 0,
        };
        Spans::new((1..).zip(bounds.windows(2)).map(span).collect())
    }

    fn ids(spans: &Spans) -> Vec<u64> {
        spans.all().iter().map(|span| span.segment_id).collect()
    }

    #[test]
    fn a_segment_with_a_hole_goes_as_a_whole() {
        let with_hole = || {
            let spans = spans(&[0, 100, 200, 300]);
            spans.lock()[1].segment_id = 1;
            spans
        };
        with_hole().with_live(|segments, _| assert_eq!(segments, 2));
        assert!(with_hole().release_below(199, 300).is_empty());
        assert_eq!(with_hole().release_below(200, 300), [1]);
        assert_eq!(with_hole().cut(150, 0), [3]);
        assert_eq!(with_hole().cut(100, 0), [3]);
        assert_eq!(with_hole().cut(0, 0), [1, 3]);
    }

    #[test]
    fn a_segment_is_released_when_all_of_it_lies_below_and_another_follows() {
        let spans = spans(&[0, 100, 200, 300]);
        assert!(spans.release_below(99, 300).is_empty());
        assert!(spans.release_below(100, 100).is_empty(), "the next one may not be started");
        assert_eq!(spans.release_below(100, 108), [1]);
        assert_eq!(spans.release_below(299, 300), [2]);
        assert!(spans.release_below(300, 300).is_empty());
        assert_eq!(ids(&spans), [3]);
    }

    #[test]
    fn a_cut_takes_what_begins_behind_it_and_ends_what_it_falls_into() {
        let spans = spans(&[0, 100, 200, 300]);
        assert_eq!(spans.cut(150, 7), [3]);
        assert_eq!(spans.predecessor(150).map(|before| before.segment_id), Some(2));
        assert_eq!(spans.cut(100, 5), [2]);
        assert_eq!(spans.cut(0, 0), [1]);
        assert!(spans.is_empty() && spans.predecessor(0).is_none());
    }
}
