//! The model of one core's log: what calls returned, and what follows from that.
//!
//! It is a list of entries and a number, how many of them were acked. Power loss leaves any
//! prefix of the list that has at least those.

use std::ops::Range;

use laminar_wal::WalEntry;

use crate::Checked;

/// The bytes before a record's payload.
pub(crate) const RECORD_HEADER_BYTES: u64 = 8;

/// A mark takes this much of a core's positions.
pub(crate) const MARK_BYTES: u64 = 24;

/// One core's log, as it must be.
#[derive(Debug, Clone)]
pub(crate) struct CoreModel {
    pub(crate) core: u16,
    /// Every entry of the log, in order.
    pub(crate) entries: Vec<Known>,
    /// Where the log ends.
    pub(crate) position: u64,
    /// So many entries survive whatever happens.
    pub(crate) acked: usize,
    /// Everything below this does.
    pub(crate) acked_position: u64,
    /// Cuts that were begun, of which nobody was told how they ended. One of them may have come
    /// to its end, and none after it.
    pub(crate) doubtful_cuts: Vec<DoubtfulCut>,
    /// No new entry has a lower timestamp, as far as is known while the log is open.
    pub(crate) timestamp_floor: i64,
    /// No entry has a higher timestamp.
    pub(crate) timestamp_ceiling: i64,
    /// The same floors for the lives to come: what was acked or recovered, though it may have been
    /// cut since.
    lasting_timestamp_floor: i64,
    lasting_epoch_floor: Option<u64>,
    /// Since a cut that may have happened the floor may be as high as this.
    pub(crate) epoch_may_reach: Option<u64>,
}

/// An entry of the log, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// With a timestamp that means nothing unless it is known.
    pub(crate) entry: WalEntry,
    pub(crate) timestamp_ns: Option<i64>,
    pub(crate) timestamp_floor: i64,
    pub(crate) timestamp_ceiling: i64,
    /// Of its record, which a batch's entries share.
    pub(crate) position: u64,
    pub(crate) end: u64,
    /// How many entries of the same batch stand before it and behind it.
    before_in_batch: usize,
    behind_in_batch: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct DoubtfulCut {
    pub(crate) entries: usize,
    pub(crate) position: u64,
}

/// One core's log as recovery gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recovered {
    pub(crate) entries: Vec<WalEntry>,
    pub(crate) end_position: u64,
    pub(crate) next_sequence: u64,
}

/// Which of the things that were possible came true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Uncut,
    Cut,
    Either,
}

impl CoreModel {
    pub(crate) const fn new(core: u16) -> Self {
        Self {
            core,
            entries: Vec::new(),
            position: 0,
            acked: 0,
            acked_position: 0,
            doubtful_cuts: Vec::new(),
            timestamp_floor: i64::MIN,
            timestamp_ceiling: i64::MIN,
            lasting_timestamp_floor: i64::MIN,
            lasting_epoch_floor: None,
            epoch_may_reach: None,
        }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The highest epoch that the next life must know of; `None` if the log never had an entry
    /// that survives for certain.
    pub(crate) const fn epoch_floor(&self) -> Option<u64> {
        self.lasting_epoch_floor
    }

    /// The lowest epoch that the next entry may have.
    pub(crate) fn open_epoch(&self) -> u64 {
        // A barrier is the last entry of its epoch.
        let epochs = self.entries.iter();
        let epochs = epochs.map(|known| known.entry.epoch + u64::from(is_barrier(&known.entry)));
        epochs.max().max(self.lasting_epoch_floor).unwrap_or(0)
    }

    pub(crate) fn append(&mut self, entry: WalEntry, timestamp_ns: Option<i64>, position: u64) {
        let end = position + record_bytes(&entry);
        self.add(entry, timestamp_ns, position..end, (0, 0));
    }

    /// Adds the entries of an atomic batch. Each takes at least a nanosecond.
    pub(crate) fn append_batch(&mut self, entries: Vec<WalEntry>, position: u64) {
        let end = position + batch_record_bytes(&entries);
        let count = entries.len();
        for (before, entry) in entries.into_iter().enumerate() {
            self.timestamp_ceiling = self.timestamp_ceiling.saturating_add(1);
            self.add(entry, None, position..end, (before, count - before - 1));
        }
    }

    fn add(
        &mut self,
        entry: WalEntry,
        timestamp_ns: Option<i64>,
        record: Range<u64>,
        (before_in_batch, behind_in_batch): (usize, usize),
    ) {
        self.entries.push(Known {
            entry,
            timestamp_ns,
            timestamp_floor: self.timestamp_floor,
            timestamp_ceiling: self.timestamp_ceiling,
            position: record.start,
            end: record.end,
            before_in_batch,
            behind_in_batch,
        });
        self.position = record.end;
        if let Some(timestamp_ns) = timestamp_ns {
            self.timestamp_floor = timestamp_ns;
        }
    }

    /// The first `entries` entries, and everything below `position`, survive from now on.
    pub(crate) fn ack(&mut self, entries: usize, position: u64) {
        self.acked = self.acked.max(entries);
        self.acked_position = self.acked_position.max(position);
        self.keep_floors(entries);
    }

    pub(crate) fn ack_all(&mut self) {
        self.ack(self.entries.len(), self.position);
    }

    /// Everything below `position` survives from now on, by what the log says of itself.
    pub(crate) fn ack_below(&mut self, position: u64) {
        let entries = self.entries.iter().take_while(|known| known.end <= position).count();
        self.ack(entries, position);
    }

    /// The entries that share a record with the one at `index`.
    pub(crate) fn record_of(&self, index: usize) -> Range<usize> {
        let known = &self.entries[index];
        index - known.before_in_batch..index + known.behind_in_batch + 1
    }

    /// The log was cut; everything before was acked.
    pub(crate) fn cut(&mut self, entries: usize, position: u64) {
        self.keep_floors(self.entries.len());
        self.entries.truncate(entries);
        self.position = position;
        self.acked = entries;
        self.acked_position = position;
        self.doubtful_cuts.clear();
    }

    /// Checks what recovery gives, if no write reaches the log any more.
    pub(crate) fn check(&self, recovered: &Recovered) -> Checked {
        self.what_came(recovered).map(|_| ())
    }

    /// The log goes on from what recovery gives, and all of that is acked.
    pub(crate) fn go_on_from(&mut self, recovered: &Recovered) -> Checked {
        let came = self.what_came(recovered)?;
        if came == Came::Either {
            // If it was a cut, the manifest knows the epochs of the entries that it dropped.
            let newest_epoch = self.entries.iter().map(|known| known.entry.epoch).max();
            self.epoch_may_reach = self.epoch_may_reach.max(newest_epoch);
        }
        if came == Came::Cut {
            // A cut syncs everything first, and keeps what the dropped entries knew.
            self.keep_floors(self.entries.len());
        }
        self.doubtful_cuts.clear();
        self.entries.truncate(recovered.entries.len());
        for (known, entry) in self.entries.iter_mut().zip(&recovered.entries) {
            known.timestamp_ns = Some(entry.timestamp_ns);
        }
        self.position = recovered.end_position;
        self.acked = self.entries.len();
        self.acked_position = self.position;
        self.keep_floors(self.entries.len());
        self.timestamp_floor = self.lasting_timestamp_floor;
        Ok(())
    }

    fn what_came(&self, recovered: &Recovered) -> Checked<Came> {
        let core = self.core;
        let count = recovered.entries.len();
        let uncut = (self.acked..=self.entries.len()).contains(&count)
            && recovered.end_position >= self.acked_position;
        let mut cuts = self.doubtful_cuts.iter();
        let cut = cuts.any(|cut| (cut.entries, cut.position) == (count, recovered.end_position));
        let came = match (uncut, cut) {
            (true, true) => Came::Either,
            (true, false) => Came::Uncut,
            (false, true) => Came::Cut,
            (false, false) => {
                return Err(format!(
                    "core {core}: {count} entries up to position {} were recovered; {} up to {} \
                     were acked, {} up to {} appended, doubtful: {:?}",
                    recovered.end_position,
                    self.acked,
                    self.acked_position,
                    self.entries.len(),
                    self.position,
                    self.doubtful_cuts,
                ));
            }
        };
        if self.entries.get(count).is_some_and(|next| next.before_in_batch > 0) {
            return Err(format!(
                "core {core}: {count} entries were recovered, and the last of them are a part of \
                 the batch {:?}",
                self.record_of(count)
            ));
        }
        if recovered.next_sequence != count as u64 {
            return Err(format!(
                "core {core}: {count} entries were recovered, and the next sequence is {}",
                recovered.next_sequence
            ));
        }
        let mut last_timestamp_ns = i64::MIN;
        for (known, entry) in self.entries.iter().zip(&recovered.entries) {
            known.check(entry).map_err(|what| format!("core {core}: {what}"))?;
            if entry.timestamp_ns < last_timestamp_ns {
                return Err(format!(
                    "core {core}: the timestamp falls from {last_timestamp_ns} to {} at sequence {}",
                    entry.timestamp_ns, entry.sequence
                ));
            }
            last_timestamp_ns = entry.timestamp_ns;
        }
        if !cut {
            self.check_end(count, recovered.end_position)?;
        }
        Ok(came)
    }

    /// A log may end with marks whose batches were lost, and with nothing else.
    fn check_end(&self, count: usize, end_position: u64) -> Checked {
        let below = count.checked_sub(1).map_or(0, |last| self.entries[last].end);
        // An append that failed may have written the mark of a batch.
        let end = self.position + MARK_BYTES;
        let above = self.entries.get(count).map_or(end, |next| next.position);
        if end_position < below
            || end_position > above
            || !(end_position - below).is_multiple_of(MARK_BYTES)
        {
            return Err(format!(
                "core {}: the log ends at {end_position}, with the last entry's end at {below} \
                 and the next one's place at {above}",
                self.core
            ));
        }
        Ok(())
    }

    fn keep_floors(&mut self, entries: usize) {
        for known in self.entries.iter().take(entries) {
            let epoch = Some(known.entry.epoch);
            self.lasting_epoch_floor = self.lasting_epoch_floor.max(epoch);
            if let Some(timestamp_ns) = known.timestamp_ns {
                self.lasting_timestamp_floor = self.lasting_timestamp_floor.max(timestamp_ns);
            }
        }
        self.timestamp_floor = self.timestamp_floor.max(self.lasting_timestamp_floor);
    }
}

impl Known {
    fn check(&self, recovered: &WalEntry) -> Checked {
        let timestamp_ns = recovered.timestamp_ns;
        let expected = WalEntry { timestamp_ns, ..self.entry.clone() };
        if expected != *recovered {
            return Err(format!("{expected:?} was appended, {recovered:?} recovered"));
        }
        if self.timestamp_ns.is_some_and(|known| known != timestamp_ns) {
            return Err(format!(
                "the timestamp at sequence {} was {:?}, and is {timestamp_ns}",
                self.entry.sequence, self.timestamp_ns
            ));
        }
        if timestamp_ns < self.timestamp_floor || timestamp_ns > self.timestamp_ceiling {
            return Err(format!(
                "the timestamp at sequence {} is {timestamp_ns}; when it was appended, the last \
                 one was {} at least, and the clock had never shown more than {}",
                self.entry.sequence, self.timestamp_floor, self.timestamp_ceiling
            ));
        }
        Ok(())
    }
}

pub(crate) fn is_barrier(entry: &WalEntry) -> bool {
    matches!(entry.operation, laminar_wal::WalOperation::EpochBarrier { .. })
}

/// What an atomic batch takes of the log.
pub(crate) fn batch_record_bytes(entries: &[WalEntry]) -> u64 {
    // A header before each archive, as long as a record's own.
    RECORD_HEADER_BYTES + entries.iter().map(record_bytes).sum::<u64>()
}

/// What an entry takes of the log, without the mark of its batch.
pub(crate) fn record_bytes(entry: &WalEntry) -> u64 {
    RECORD_HEADER_BYTES + entry.borrowed().archived_bytes() as u64
}
