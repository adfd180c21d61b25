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
