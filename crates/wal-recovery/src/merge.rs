//! Merging the cores' entries into replay order, in runs.

use wal_entry::{EntryView, ReplayOrder};
use wal_storage::{Result, WalError};

use crate::core_reader::{Chunk, CoreReader};
use crate::read_ahead::ReadAhead;
use crate::replay::Meter;

/// Up to this many cores, looking at every head is faster than a heap.
const LINEAR_CORES_MAX: usize = 8;

/// Visits the entries of all readers in replay order, while at most `helpers` threads read ahead.
///
/// Memory is what the chunks hold. The core whose head is lowest goes on, entry by entry and
/// without anybody looking at the others, until its next entry lies behind the second-lowest
/// head: cores log in bursts, so such a run is long.
pub(crate) fn visit_merged<E: From<WalError>>(
    readers: Vec<CoreReader>,
    helpers: usize,
    meter: &Meter<'_>,
    visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let count = readers.len();
    // With one core there is nothing to do while its next chunk is being read.
    let helpers = if count > 1 { helpers.min(count) } else { 0 };
    ReadAhead::with(readers, helpers, |ahead| {
        let mut feeds: Vec<Feed<'_>> =
            (0..count).map(|index| Feed::new(ahead, index, meter)).collect();
        let mut heads = Heads::default();
        for (index, feed) in feeds.iter_mut().enumerate() {
            if let Some(time) = feed.first()? {
                heads.push(time, index);
            }
        }
        while let Some((index, second)) = heads.pop_lowest() {
            let Some(feed) = feeds.get_mut(index) else {
                continue;
            };
            // Entries of one time come in the order of their cores, which is that of the readers.
            let end =
                second.map_or(
                    ReplayTime::END,
                    |(time, other)| {
                        if index < other { time.next() } else { time }
                    },
                );
            if let Some(time) = feed.visit_run(end, visit)? {
                heads.push(time, index);
            }
        }
        Ok(())
    })
}

/// One core's entries, as they come.
struct Feed<'a> {
    ahead: &'a ReadAhead,
    index: usize,
    meter: &'a Meter<'a>,
    chunk: Chunk,
    /// The entry of the chunk that was not visited yet.
    next: usize,
    /// What is behind the chunk.
    behind: Result<()>,
}

impl<'a> Feed<'a> {
    fn new(ahead: &'a ReadAhead, index: usize, meter: &'a Meter<'a>) -> Self {
        Self { ahead, index, meter, chunk: Chunk::default(), next: 0, behind: Ok(()) }
    }

    /// When the first entry comes in a replay; `None` if there is none.
    fn first(&mut self) -> Result<Option<ReplayTime>> {
        self.take_chunk()?;
        Ok(self.chunk.archives_from(0).next().and_then(ReplayTime::peek))
    }

    /// Visits the next entry, and those behind it whose time is below `end`; then says when the one
    /// behind them comes.
    fn visit_run<E: From<WalError>>(
        &mut self,
        end: ReplayTime,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayTime>, E> {
        let mut is_head = true;
        loop {
            for archive in self.chunk.archives_from(self.next) {
                if !is_head
                    && let Some(time) = ReplayTime::peek(archive)
                    && time >= end
                {
                    return Ok(Some(time));
                }
                match EntryView::access(archive) {
                    Ok(view) => visit(view)?,
                    Err(invalid) => return Err(changed_in_memory(&invalid.to_string()).into()),
                }
                is_head = false;
                self.next += 1;
            }
            if !self.take_chunk()? {
                return Ok(None);
            }
        }
    }

    #[cold]
    fn take_chunk(&mut self) -> Result<bool> {
        std::mem::replace(&mut self.behind, Ok(()))?;
        let visited = std::mem::take(&mut self.chunk);
        if visited.bytes() > 0 {
            self.meter.add(visited.entry_count() as u64, visited.bytes());
        }
        (self.chunk, self.behind) = self.ahead.next(self.index, visited);
        self.next = 0;
        if self.chunk.entry_count() == 0 {
            std::mem::replace(&mut self.behind, Ok(()))?;
        }
        Ok(self.chunk.entry_count() > 0)
    }
}

/// The chunk was checked when it was read.
#[cold]
pub(crate) fn changed_in_memory(what: &str) -> WalError {
    WalError::InvalidArgument {
        what: format!("{what}, but it was one when it was read: the memory of this machine fails"),
    }
}

/// Epoch and timestamp of an entry: its replay order without what tells cores, and entries of one
/// core, apart. One number, because it is compared for every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ReplayTime(u128);

impl ReplayTime {
    /// No entry's time is above this.
    const END: Self = Self(u128::MAX);

    /// The time of the entry whose archive this is, or that of nothing if it is none: it is read
    /// before the archive is checked.
    #[inline(always)]
    fn peek(archive: &[u8]) -> Option<Self> {
        ReplayOrder::peek(archive).map(Self::of)
    }

    #[inline(always)]
    const fn of(order: ReplayOrder) -> Self {
        // Flipping the sign's bit makes negative timestamps the lowest numbers.
        let timestamp = order.timestamp_ns.cast_unsigned() ^ (1 << 63);
        if cfg!(wal_fault = "merge_trusts_the_clock") {
            // Breaks promise 6: clocks of cores differ, epochs are what they agree on.
            return Self((timestamp as u128) << 64 | order.epoch as u128);
        }
        Self((order.epoch as u128) << 64 | timestamp as u128)
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
    fn a_head_that_is_lower_than_all_others_comes_first() {
        for cores in [8, 9, 30] {
            let mut heads = Heads::default();
            for index in 0..cores {
                heads.push(time(9, 0), index);
            }
            for epoch in (0..9).rev() {
                heads.push(time(epoch, 0), cores);
                let second = Some((time(9, 0), 0));
                assert_eq!(heads.pop_lowest(), Some((cores, second)), "{cores} cores");
            }
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
        assert!(time(3, i64::MAX).next() == time(4, i64::MIN));
        assert!(
            time(u64::MAX, i64::MAX) == ReplayTime::END
                && ReplayTime::END.next() == ReplayTime::END
        );
    }
}
