//! Merging the cores' entries into replay order, in runs.

use wal_entry::{EntryView, ReplayOrder};
use wal_storage::Result;

use crate::core_reader::CoreReader;

/// Up to this many cores, looking at every head is faster than a heap.
const LINEAR_CORES_MAX: usize = 8;

/// Visits the entries of all readers in replay order.
///
/// Memory is what the readers hold. The reader whose head is lowest goes on, entry by entry and
/// without anybody looking at the others, until its next entry lies behind the second-lowest
/// head: cores log in bursts, so such a run is long.
pub(crate) fn visit_merged<E: From<wal_storage::WalError>>(
    mut readers: Vec<CoreReader>,
    visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut heads = Heads::default();
    for (index, reader) in readers.iter_mut().enumerate() {
        if let Some(time) = reader.advance()? {
            heads.push(time, index);
        }
    }
    while let Some((index, second)) = heads.pop_lowest() {
        let Some(reader) = readers.get_mut(index) else {
            continue;
        };
        // Entries of one time come in the order of their cores, which is that of the readers.
        let end = second.map_or(
            ReplayTime::END,
            |(time, other)| {
                if index < other { time.next() } else { time }
            },
        );
        if let Some(time) = reader.visit_run(end, visit)? {
            heads.push(time, index);
        }
    }
    Ok(())
}

/// Epoch and timestamp of an entry: its replay order without what tells cores, and entries of one
/// core, apart. One number, because it is compared for every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplayTime(u128);

impl ReplayTime {
    /// No entry's time is above this.
    pub(crate) const END: Self = Self(u128::MAX);

    /// The time of the entry whose archive this is, or that of nothing if it is none: it is read
    /// before the archive is checked.
    #[inline(always)]
    pub(crate) fn peek(archive: &[u8]) -> Option<Self> {
        ReplayOrder::peek(archive).map(Self::of)
    }

    #[inline(always)]
    pub(crate) const fn of(order: ReplayOrder) -> Self {
        // Flipping the sign's bit makes negative timestamps the lowest numbers.
        let timestamp = order.timestamp_ns.cast_unsigned() ^ (1 << 63);
        Self((order.epoch as u128) << 64 | timestamp as u128)
    }

    pub(crate) const fn epoch(self) -> u64 {
        (self.0 >> 64) as u64
    }

    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The heads of all readers that have one: a plain list, or a binary heap for many cores.
#[derive(Debug, Default)]
struct Heads {
    heads: Vec<(ReplayTime, usize)>,
    is_heap: bool,
}

impl Heads {
    fn push(&mut self, time: ReplayTime, index: usize) {
        self.heads.push((time, index));
        if self.is_heap {
            self.sift_up();
        } else if self.heads.len() > LINEAR_CORES_MAX {
            // A sorted list is a heap.
            self.heads.sort_unstable();
            self.is_heap = true;
        }
    }

    /// Takes out the lowest head's reader, and says what is the lowest of the others.
    fn pop_lowest(&mut self) -> Option<(usize, Option<(ReplayTime, usize)>)> {
        if self.is_heap {
            return self.pop_from_heap();
        }
        // One pass for both: this runs once per entry where cores alternate.
        let (first, others) = self.heads.split_first()?;
        let (mut lowest, mut lowest_at, mut second) = (*first, 0, None);
        for (at, &head) in (1..).zip(others) {
            if head < lowest {
                (lowest, lowest_at, second) = (head, at, Some(lowest));
            } else if second.is_none_or(|second| head < second) {
                second = Some(head);
            }
        }
        self.heads.swap_remove(lowest_at);
        Some((lowest.1, second))
    }

    fn pop_from_heap(&mut self) -> Option<(usize, Option<(ReplayTime, usize)>)> {
        let last = self.heads.len().checked_sub(1)?;
        self.heads.swap(0, last);
        let (_, index) = self.heads.pop()?;
        self.sift_down();
        Some((index, self.heads.first().copied()))
    }

    fn sift_up(&mut self) {
        let mut at = self.heads.len().saturating_sub(1);
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heads.get(parent) <= self.heads.get(at) {
                return;
            }
            self.heads.swap(parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self) {
        let mut at = 0;
        loop {
            let children = [2 * at + 1, 2 * at + 2];
            let children = children.into_iter().filter(|&child| child < self.heads.len());
            let Some(lowest) = children.min_by_key(|&child| self.heads.get(child)) else {
                return;
            };
            if self.heads.get(at) <= self.heads.get(lowest) {
                return;
            }
            self.heads.swap(at, lowest);
            at = lowest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(epoch: u64, timestamp_ns: i64) -> ReplayTime {
        ReplayTime::of(ReplayOrder { epoch, timestamp_ns, core_id: 0, sequence: 0 })
    }

    #[test]
    fn list_and_heap_give_the_same_order() {
        for cores in [1_i64, 2, 7, 8, 9, 30] {
            let mut heads = Heads::default();
            let mut expected = Vec::new();
            for (core, index) in (0..cores).zip(0..) {
                // Some order that is neither rising nor falling, with equal timestamps in it.
                let time = time(0, core * 7919 % 13);
                heads.push(time, index);
                expected.push((time, index));
            }
            expected.sort_unstable();
            for (at, lowest) in expected.iter().enumerate() {
                let (index, second) = heads.pop_lowest().unwrap();
                assert_eq!(index, lowest.1, "{cores} cores");
                assert_eq!(second, expected.get(at + 1).copied());
            }
            assert_eq!(heads.pop_lowest(), None);
        }
    }

    #[test]
    fn times_order_as_entries_do_before_1970_too() {
        let rising = [
            time(0, i64::MIN),
            time(0, -1),
            time(0, 0),
            time(0, 1),
            time(0, i64::MAX),
            time(1, i64::MIN),
            time(u64::MAX, 5),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
        assert_eq!(time(7, -3).epoch(), 7);
        assert!(time(3, i64::MAX).next() == time(4, i64::MIN));
        assert!(
            time(u64::MAX, i64::MAX) == ReplayTime::END
                && ReplayTime::END.next() == ReplayTime::END
        );
    }
}
