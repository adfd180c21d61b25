//! The order of a replay.

/// Where an entry stands in a replay of several cores.
///
/// Compares by epoch, then timestamp, then core, then sequence; the fields stand in that order. The
/// epoch comes first because every core agrees on it, while their clocks may not agree. Within one
/// core neither epoch nor timestamp ever falls and the sequence rises, so merging cores by this
/// order never swaps two entries of one core. Core and sequence together name one entry of a log,
/// so no two entries stand at the same place.
///
/// ```
/// use wal_entry::ReplayOrder;
///
/// let first = ReplayOrder { epoch: 1, timestamp_ns: 20, core_id: 1, sequence: 5 };
/// let second = ReplayOrder { epoch: 1, timestamp_ns: 20, core_id: 2, sequence: 4 };
/// assert!(first < second);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayOrder {
    /// The entry's epoch.
    pub epoch: u64,
    /// The entry's timestamp, in nanoseconds since 1970-01-01 00:00 UTC.
    pub timestamp_ns: i64,
    /// The core whose log holds the entry.
    pub core_id: u16,
    /// The entry's number within its core's log.
    pub sequence: u64,
}

impl ReplayOrder {
    /// Where the entry stands whose archive `bytes` are, read without checking them; `None` if they
    /// are too short for one.
    ///
    /// For who merges and looks ahead: if `bytes` are no archive, the order is wrong and nothing
    /// else. Check them with [`EntryView::access`](crate::EntryView::access) before the entry counts.
    #[must_use]
    #[inline]
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        crate::archive::unchecked_order(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Offsets, RecordBuffer, WalEntry};

    #[test]
    fn the_order_read_ahead_is_the_entry_s() {
        let offsets = Offsets::try_from_pairs([("a source with a long name", 4)]).unwrap();
        let entries = [
            WalEntry::put(513, 3, 1 << 40, vec![1; 9], vec![2; 100], -5),
            WalEntry::delete(1, u64::MAX, 7, vec![], i64::MIN),
            WalEntry::checkpoint(u16::MAX, 0, 0, 9, i64::MAX),
            WalEntry::commit(2, 4, 6, offsets, Some(-1), 8),
            WalEntry::epoch_barrier(2, 4, 6, 8),
        ];
        for entry in entries {
            let mut archive = RecordBuffer::new();
            entry.borrowed().archive_into(&mut archive);
            assert_eq!(ReplayOrder::peek(&archive), Some(entry.replay_order()));
        }
        assert_eq!(ReplayOrder::peek(&[0; 63]), None);
    }
}
