//! What a core's log must be: what calls returned, and nothing of how logs are written.

use wal_entry::{WalEntry, WalOperation};
use wal_format::MARK_RECORD_BYTES;

use super::Checked;

/// One core's log. A crash leaves a prefix of its entries that has at least those acked.
#[derive(Debug, Clone, Default)]
pub(super) struct CoreModel {
    pub(super) entries: Vec<Known>,
    /// Where the log ends.
    pub(super) position: u64,
    /// So many entries, and everything below this position, survive whatever happens.
    pub(super) acked: (usize, u64),
    /// Cuts of which nobody was told how they ended: entries and position left.
    pub(super) doubtful_cuts: Vec<(usize, u64)>,
    /// The highest epoch and timestamp of anything that was acked, though it may be cut since.
    pub(super) floor: Option<(u64, i64)>,
}

/// An entry, and what is known of it. Its sequence is its place.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) epoch: u64,
    pub(super) operation: WalOperation,
    pub(super) position: u64,
    /// Not known before it was first recovered.
    timestamp_ns: Option<i64>,
    timestamp_floor: i64,
}

/// What recovery gives of one core.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Recovered {
    pub(super) entries: Vec<WalEntry>,
    pub(super) end_position: u64,
    pub(super) next_sequence: u64,
}

impl CoreModel {
    pub(super) fn sequence(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn append(&mut self, epoch: u64, operation: WalOperation, position: u64, end: u64) {
        let timestamp_floor = self.floor.map_or(i64::MIN, |(_, timestamp_ns)| timestamp_ns);
        self.entries.push(Known {
            epoch,
            operation,
            position,
            timestamp_ns: None,
            timestamp_floor,
        });
        self.position = end;
    }

    pub(super) fn ack(&mut self, entries: usize, position: u64) {
        self.acked = (self.acked.0.max(entries), self.acked.1.max(position));
        self.raise_floor(entries);
    }

    pub(super) fn ack_all(&mut self) {
        self.ack(self.entries.len(), self.position);
    }

    /// The log was cut. A cut makes everything durable first.
    pub(super) fn cut(&mut self, entries: usize, position: u64) {
        self.raise_floor(self.entries.len());
        self.entries.truncate(entries);
        self.position = position;
        self.acked = (entries, position);
        self.doubtful_cuts.clear();
    }

    /// Whether recovery may give this.
    pub(super) fn check(&self, found: &Recovered) -> Checked {
        let count = found.entries.len();
        let end = (count, found.end_position);
        let is_uncut = (self.acked.0..=self.entries.len()).contains(&count)
            && found.end_position >= self.acked.1;
        let is_cut = self.doubtful_cuts.contains(&end);
        if !is_uncut && !is_cut {
            return Err(format!(
                "{end:?} recovered, {:?} acked, {:?} appended, doubtful cuts {:?}",
                self.acked,
                (self.entries.len(), self.position),
                self.doubtful_cuts
            ));
        }
        if found.next_sequence != count as u64 {
            return Err(format!("{count} entries, and the next sequence {}", found.next_sequence));
        }
        let mut last_ns = i64::MIN;
        for (sequence, (known, entry)) in (0..).zip(self.entries.iter().zip(&found.entries)) {
            known.check(sequence, entry)?;
            if entry.timestamp_ns < last_ns {
                return Err(format!("the timestamp falls from {last_ns}: {entry:?}"));
            }
            last_ns = entry.timestamp_ns;
        }
        if is_cut { Ok(()) } else { self.check_end(count, found.end_position) }
    }

    /// The log goes on from what recovery gives, and all of that is acked.
    pub(super) fn go_on_from(&mut self, found: &Recovered) {
        self.entries.truncate(found.entries.len());
        for (known, entry) in self.entries.iter_mut().zip(&found.entries) {
            known.timestamp_ns = Some(entry.timestamp_ns);
        }
        self.position = found.end_position;
        self.acked = (self.entries.len(), self.position);
        self.doubtful_cuts.clear();
        self.raise_floor(self.entries.len());
    }

    /// A log ends behind an entry, or behind marks whose batches were lost.
    fn check_end(&self, count: usize, end_position: u64) -> Checked {
        let last = count.checked_sub(1).and_then(|last| self.entries.get(last));
        let below = last.map_or(0, |last| last.position + 1);
        // An append that failed may have written the mark of its batch.
        let behind = self.position + MARK_RECORD_BYTES as u64;
        let above = self.entries.get(count).map_or(behind, |next| next.position);
        match (below..=above).contains(&end_position) {
            true => Ok(()),
            false => Err(format!("the log ends at {end_position}, not in {below}..={above}")),
        }
    }

    fn raise_floor(&mut self, entries: usize) {
        for known in self.entries.iter().take(entries) {
            let (epoch, timestamp_ns) = self.floor.unwrap_or((0, i64::MIN));
            let known_ns = known.timestamp_ns.unwrap_or(i64::MIN);
            self.floor = Some((epoch.max(known.epoch), timestamp_ns.max(known_ns)));
        }
    }
}

impl Known {
    fn check(&self, sequence: u64, entry: &WalEntry) -> Checked {
        let is_same = (sequence, self.epoch, &self.operation)
            == (entry.sequence, entry.epoch, &entry.operation);
        let is_in_time = self.timestamp_ns.is_none_or(|known| known == entry.timestamp_ns)
            && entry.timestamp_ns >= self.timestamp_floor;
        match is_same && is_in_time {
            true => Ok(()),
            false => {
                Err(format!("{self:?} with sequence {sequence} was appended, {entry:?} found"))
            }
        }
    }
}
