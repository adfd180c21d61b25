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
        if let Some(order) = reader.advance()? {
            heads.push(order, index);
        }
    }
    while let Some((index, second)) = heads.pop_lowest() {
        let Some(reader) = readers.get_mut(index) else {
            continue;
        };
        if let Some(order) = reader.visit_run(second, visit)? {
            heads.push(order, index);
        }
    }
    Ok(())
}

/// The heads of all readers that have one: a plain list, or a binary heap for many cores.
#[derive(Debug, Default)]
struct Heads {
    heads: Vec<(ReplayOrder, usize)>,
    is_heap: bool,
}

impl Heads {
    fn push(&mut self, order: ReplayOrder, index: usize) {
        self.heads.push((order, index));
        if self.is_heap {
            self.sift_up();
        } else if self.heads.len() > LINEAR_CORES_MAX {
            // A sorted list is a heap.
            self.heads.sort_unstable();
            self.is_heap = true;
        }
    }

    /// Takes out the lowest head's reader, and says what is the lowest of the others.
    fn pop_lowest(&mut self) -> Option<(usize, Option<ReplayOrder>)> {
        if self.is_heap {
            return self.pop_from_heap();
        }
        // One pass for both: this runs once per entry where cores alternate.
        let (first, others) = self.heads.split_first()?;
        let (mut lowest, mut lowest_at, mut second) = (first.0, 0, None);
        for (at, &(order, _)) in (1..).zip(others) {
            if order < lowest {
                (lowest, lowest_at, second) = (order, at, Some(lowest));
            } else if second.is_none_or(|second| order < second) {
                second = Some(order);
            }
        }
        let (_, index) = self.heads.swap_remove(lowest_at);
        Some((index, second))
    }

    fn pop_from_heap(&mut self) -> Option<(usize, Option<ReplayOrder>)> {
        let last = self.heads.len().checked_sub(1)?;
        self.heads.swap(0, last);
        let (_, index) = self.heads.pop()?;
        self.sift_down();
        Some((index, self.heads.first().map(|(order, _)| *order)))
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

    fn order(timestamp_ns: i64, core_id: u16) -> ReplayOrder {
        ReplayOrder { epoch: 0, timestamp_ns, core_id, sequence: 0 }
    }

    #[test]
    fn list_and_heap_give_the_same_order() {
        for cores in [1_u16, 2, 7, 8, 9, 30] {
            let mut heads = Heads::default();
            let mut expected = Vec::new();
            for core in 0..cores {
                // Some order that is neither rising nor falling, with equal timestamps in it.
                let order = order(i64::from(core) * 7919 % 13, core);
                heads.push(order, usize::from(core));
                expected.push(order);
            }
            expected.sort_unstable();
            for (at, lowest) in expected.iter().enumerate() {
                let (index, second) = heads.pop_lowest().unwrap();
                assert_eq!(index, usize::from(lowest.core_id), "{cores} cores");
                assert_eq!(second, expected.get(at + 1).copied());
            }
            assert_eq!(heads.pop_lowest(), None);
        }
    }
}
