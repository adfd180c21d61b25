//! The owned entry.

use std::cmp::Ordering;

use crate::borrowed::EntryRef;
use crate::clock;
use crate::offsets::Offsets;
use crate::operation::WalOperation;
use crate::order::ReplayOrder;

/// One entry of one core's log, owning its bytes.
///
/// Entries compare in [replay order](ReplayOrder): epoch, timestamp, core, sequence. Two entries
/// that agree in all four compare by their operation, so the order is total and `cmp` says `Equal`
/// exactly for entries that are `==`.
///
/// ```
/// use wal_entry::WalEntry;
///
/// let older = WalEntry::put(0, 1, 9, b"k".to_vec(), b"a".to_vec(), 50);
/// let newer = WalEntry::delete(0, 2, 10, b"k".to_vec(), 40);
/// assert!(older < newer, "a later epoch comes later, whatever the clock said");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize)]
pub struct WalEntry {
    /// The epoch in which the entry was appended. It never falls within one core's log.
    pub epoch: u64,
    /// The entry's number within its core's log. It rises by one per entry.
    pub sequence: u64,
    /// The core whose log holds the entry.
    pub core_id: u16,
    /// Nanoseconds since 1970-01-01 00:00 UTC. It never falls within one core's log.
    pub timestamp_ns: i64,
    /// What the entry says.
    pub operation: WalOperation,
}

impl WalEntry {
    /// An entry that sets `key` to `value`.
    pub fn put(
        core_id: u16,
        epoch: u64,
        sequence: u64,
        key: Vec<u8>,
        value: Vec<u8>,
        timestamp_ns: i64,
    ) -> Self {
        let operation = WalOperation::Put { key, value };
        Self { epoch, sequence, core_id, timestamp_ns, operation }
    }

    /// An entry that removes `key`.
    pub fn delete(
        core_id: u16,
        epoch: u64,
        sequence: u64,
        key: Vec<u8>,
        timestamp_ns: i64,
    ) -> Self {
        let operation = WalOperation::Delete { key };
        Self { epoch, sequence, core_id, timestamp_ns, operation }
    }

    /// An entry that marks where the checkpoint `id` was taken.
    pub fn checkpoint(core_id: u16, epoch: u64, sequence: u64, id: u64, timestamp_ns: i64) -> Self {
        let operation = WalOperation::Checkpoint { id };
        Self { epoch, sequence, core_id, timestamp_ns, operation }
    }

    /// An entry that records how far each source was read and, if known, the event-time watermark.
    pub fn commit(
        core_id: u16,
        epoch: u64,
        sequence: u64,
        offsets: Offsets,
        watermark: Option<i64>,
        timestamp_ns: i64,
    ) -> Self {
        let operation = WalOperation::Commit { offsets, watermark };
        Self { epoch, sequence, core_id, timestamp_ns, operation }
    }

    /// The entry that closes `epoch` on its core. Its operation carries the same epoch.
    pub fn epoch_barrier(core_id: u16, epoch: u64, sequence: u64, timestamp_ns: i64) -> Self {
        let operation = WalOperation::EpochBarrier { epoch };
        Self { epoch, sequence, core_id, timestamp_ns, operation }
    }

    /// The system clock now, in nanoseconds since 1970-01-01 00:00 UTC.
    ///
    /// For callers that build entries themselves. A writer takes its time from its storage, so that
    /// tests can turn the clock, and keeps it from falling with an [`EntryClock`](crate::EntryClock).
    pub fn now_ns() -> i64 {
        clock::now_ns()
    }

    /// Whether the entry sets a key.
    pub fn is_put(&self) -> bool {
        self.operation.is_put()
    }

    /// Whether the entry removes a key.
    pub fn is_delete(&self) -> bool {
        self.operation.is_delete()
    }

    /// Whether the entry marks a checkpoint.
    pub fn is_checkpoint(&self) -> bool {
        self.operation.is_checkpoint()
    }

    /// Whether the entry changes the application's state: a put or a delete.
    pub fn is_state_operation(&self) -> bool {
        self.operation.is_state_operation()
    }

    /// The key of a put or a delete.
    pub fn key(&self) -> Option<&[u8]> {
        self.operation.key()
    }

    /// The value of a put.
    pub fn value(&self) -> Option<&[u8]> {
        self.operation.value()
    }

    /// Where the entry stands in a replay of several cores.
    pub fn replay_order(&self) -> ReplayOrder {
        ReplayOrder {
            epoch: self.epoch,
            timestamp_ns: self.timestamp_ns,
            core_id: self.core_id,
            sequence: self.sequence,
        }
    }

    /// The same entry, borrowing this one's bytes: the form that is archived.
    pub fn borrowed(&self) -> EntryRef<'_> {
        EntryRef {
            epoch: self.epoch,
            sequence: self.sequence,
            core_id: self.core_id,
            timestamp_ns: self.timestamp_ns,
            operation: self.operation.borrowed(),
        }
    }
}

impl Ord for WalEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        // The operation decides last: without it, two different entries with the same four numbers
        // would be `Equal` to a sorted map and yet not `==`.
        self.replay_order()
            .cmp(&other.replay_order())
            .then_with(|| self.operation.cmp(&other.operation))
    }
}

impl PartialOrd for WalEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constructors_put_each_number_in_its_place() {
        let entry = WalEntry::put(1, 2, 3, b"k".to_vec(), b"v".to_vec(), 4);
        assert_eq!((entry.core_id, entry.epoch), (1, 2));
        assert_eq!((entry.sequence, entry.timestamp_ns), (3, 4));
        assert_eq!(entry.key(), Some(&b"k"[..]));
        assert_eq!(entry.value(), Some(&b"v"[..]));
        let entry = WalEntry::delete(1, 2, 3, b"k".to_vec(), 4);
        assert_eq!((entry.key(), entry.value()), (Some(&b"k"[..]), None));
        let barrier = WalEntry::epoch_barrier(1, 2, 3, 4);
        assert_eq!(barrier.operation, WalOperation::EpochBarrier { epoch: 2 });
    }

    #[test]
    fn only_puts_and_deletes_are_state_operations() {
        let put = WalEntry::put(0, 0, 0, vec![], vec![], 0);
        let delete = WalEntry::delete(0, 0, 0, vec![], 0);
        let checkpoint = WalEntry::checkpoint(0, 0, 0, 1, 0);
        let commit = WalEntry::commit(0, 0, 0, Offsets::new(), None, 0);
        let barrier = WalEntry::epoch_barrier(0, 0, 0, 0);
        let asked =
            |ask: fn(&WalEntry) -> bool| [&put, &delete, &checkpoint, &commit, &barrier].map(ask);
        assert_eq!(asked(WalEntry::is_put), [true, false, false, false, false]);
        assert_eq!(asked(WalEntry::is_delete), [false, true, false, false, false]);
        assert_eq!(asked(WalEntry::is_checkpoint), [false, false, true, false, false]);
        assert_eq!(asked(WalEntry::is_state_operation), [true, true, false, false, false]);
    }

    #[test]
    fn time_counts_before_core_and_core_before_sequence() {
        let entry = |core_id, epoch, sequence, timestamp_ns| {
            WalEntry::epoch_barrier(core_id, epoch, sequence, timestamp_ns)
        };
        assert!(entry(9, 1, 9, 9) < entry(0, 2, 0, 0));
        assert!(entry(9, 1, 9, 1) < entry(0, 1, 0, 2));
        assert!(entry(1, 1, 9, 1) < entry(2, 1, 0, 1));
        assert!(entry(1, 1, 1, 1) < entry(1, 1, 2, 1));
    }
}
