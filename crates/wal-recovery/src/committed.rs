//! How far the inputs had been read, as the commits in a log say.

use std::collections::BTreeMap;
use std::sync::Arc;

use wal_entry::{EntryView, OperationView, ReplayOrder};
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::core_reader::CoreReader;
use crate::merge::visit_merged;
use crate::replay::Meter;

/// How far each source had been read, and the event time reached: what the commits of some entries
/// come to. Of two commits that name one source, the later one in replay order counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    sources: BTreeMap<String, (ReplayOrder, u64)>,
    watermarks: BTreeMap<u16, (ReplayOrder, i64)>,
}

impl Committed {
    /// Takes note of the entry, if it is a commit.
    #[inline]
    pub fn note_entry(&mut self, entry: &EntryView<'_>) {
        if let OperationView::Commit { offsets, watermark } = entry.operation() {
            self.note(entry.replay_order(), offsets.iter(), watermark);
        }
    }

    /// Takes note of a commit that stands at `order`.
    #[cold]
    pub fn note<'a>(
        &mut self,
        order: ReplayOrder,
        offsets: impl Iterator<Item = (&'a str, u64)>,
        watermark: Option<i64>,
    ) {
        for (source, offset) in offsets {
            match self.sources.get_mut(source) {
                Some(known) => *known = (*known).max((order, offset)),
                None => {
                    self.sources.insert(source.to_owned(), (order, offset));
                }
            }
        }
        if let Some(watermark) = watermark {
            let known = self.watermarks.entry(order.core_id).or_insert((order, watermark));
            *known = (*known).max((order, watermark));
        }
    }

    /// Adds what others come to.
    pub fn merge(&mut self, others: &Self) {
        for (source, (order, offset)) in &others.sources {
            self.note(*order, std::iter::once((source.as_str(), *offset)), None);
        }
        for (order, watermark) in others.watermarks.values() {
            self.note(*order, std::iter::empty(), Some(*watermark));
        }
    }

    /// Whether no commit said anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.watermarks.is_empty()
    }

    /// Leaves out commits for which `counts` says no.
    pub fn retain(&mut self, counts: impl Fn(&ReplayOrder) -> bool) {
        self.sources.retain(|_, (order, _)| counts(order));
        self.watermarks.retain(|_, (order, _)| counts(order));
    }

    /// Every source with its offset, in order of their names.
    pub fn offsets(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sources.iter().map(|(source, (_, offset))| (source.as_str(), *offset))
    }

    /// The event time that all cores have reached which said anything of it: the lowest of what
    /// each said last.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.watermarks.values().map(|(_, watermark)| *watermark).min()
    }
}

/// Reads what the commits between two boundaries of one core's recovered log come to.
///
/// # Errors
///
/// If a file cannot be read, or no longer holds what recovery found in it.
pub fn committed_between(
    storage: &Arc<dyn Storage>,
    core: u16,
    spans: &[SegmentSpan],
    from_position: u64,
    end_position: u64,
) -> Result<Committed> {
    let below = spans.iter().filter(|span| span.base_position < end_position);
    let below = below.map(|span| {
        let end_position = span.end_position.min(end_position);
        SegmentSpan { end_position, ..*span }
    });
    let below: Vec<SegmentSpan> = below.collect();
    let reader = CoreReader::new(Arc::clone(storage), core, &below, from_position, u64::MAX);
    let mut committed = Committed::default();
    visit_merged::<WalError>(vec![reader], 0, &Meter::none(), &mut |entry| {
        committed.note_entry(&entry);
        Ok(())
    })?;
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp_ns: i64, core_id: u16) -> ReplayOrder {
        ReplayOrder { epoch: 0, timestamp_ns, core_id, sequence: timestamp_ns.unsigned_abs() }
    }

    fn offsets(committed: &Committed) -> Vec<(&str, u64)> {
        committed.offsets().collect()
    }

    #[test]
    fn of_each_source_the_latest_commit_counts_in_whatever_order_they_are_noted() {
        let mut committed = Committed::default();
        committed.note(at(3, 0), [("a", 30)].into_iter(), None);
        committed.note(at(2, 1), [("a", 20), ("b", 7)].into_iter(), None);
        assert_eq!(offsets(&committed), [("a", 30), ("b", 7)]);
        let mut others = Committed::default();
        others.note(at(4, 1), [("a", 1)].into_iter(), None);
        committed.merge(&others);
        assert_eq!(offsets(&committed), [("a", 1), ("b", 7)]);
    }

    #[test]
    fn the_watermark_is_that_of_the_core_that_is_furthest_behind() {
        let mut committed = Committed::default();
        assert_eq!(committed.watermark(), None);
        committed.note(at(1, 0), [].into_iter(), Some(100));
        committed.note(at(2, 1), [].into_iter(), Some(50));
        committed.note(at(3, 0), [].into_iter(), None);
        assert_eq!(committed.watermark(), Some(50));
        committed.note(at(4, 1), [].into_iter(), Some(400));
        assert_eq!(committed.watermark(), Some(100));
    }

    #[test]
    fn what_is_left_out_counts_no_more() {
        let mut committed = Committed::default();
        committed.note(at(1, 0), [("a", 1)].into_iter(), Some(1));
        committed.note(at(9, 0), [("b", 2)].into_iter(), None);
        committed.retain(|order| order.sequence >= 5);
        assert_eq!((offsets(&committed), committed.watermark()), (vec![("b", 2)], None));
    }
}
