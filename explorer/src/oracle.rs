//! What a log must give back: it knows what calls returned, and nothing of how logs are written.
//!
//! Of each core it keeps the list of entries that were appended, and how many of them were acked.
//! Power loss leaves any prefix of the list that has at least those, and no part of an atomic batch
//! alone. While a cut is under way, all cores that it concerns are cut, or none.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use wal_entry::{EntryView, OperationView, WalEntry, WalOperation};
use wal_format::{Checkpoint, MARK_RECORD_BYTES, RECORD_HEADER_BYTES};

use crate::Checked;
use crate::look::Found;
use crate::quarantine::Dropped;

/// All cores of a log, as calls have told of them. Cheap to copy: entries are shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oracle {
    pub(crate) cores: BTreeMap<u16, CoreOracle>,
    /// Cuts of which nobody was told how they ended.
    pub(crate) doubtful_cuts: Vec<Cut>,
    /// The last checkpoint that was completed.
    pub(crate) checkpoint: Option<Checkpointed>,
    /// One that is being completed, or of which nobody was told how that ended.
    pub(crate) doubtful_checkpoint: Option<Checkpointed>,
    /// What accepted recoveries have left out.
    pub(crate) dropped: Vec<Dropped>,
    /// Positions mean other entries after each.
    cuts_done: u64,
}

/// One core's log, as it must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoreOracle {
    /// Every entry of the log, in order.
    pub(crate) entries: Vec<Known>,
    /// Where the log ends.
    pub(crate) position: u64,
    pub(crate) acked: Acked,
    /// What was acked before the call that is under way, or was the last one to return: power that
    /// fails within a call spares no more.
    acked_before: Acked,
    /// Where the log was known to be durable before something was appended behind it, rising.
    ack_points: Vec<u64>,
    /// What any life has made sure of, though it may have been cut since: nothing new lies below.
    epoch_floor: u64,
    /// The highest epoch of any entry that was ever appended.
    epoch_ceiling: Option<u64>,
    /// The epoch whose barrier was the last one: nothing of it comes behind that.
    left_epoch: Option<u64>,
    /// How many entries lie below some checkpoint, and may be gone.
    released: usize,
    timestamp_floor: i64,
    /// No entry of any life has a higher timestamp.
    timestamp_ceiling: i64,
}

/// How much survives whatever happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Acked {
    pub(crate) entries: usize,
    pub(crate) position: u64,
}

/// An entry of the log, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    operation: Arc<WalOperation>,
    pub(crate) epoch: u64,
    /// Known for ready-made entries, and once it was recovered.
    pub(crate) timestamp_ns: Option<i64>,
    timestamp_floor: i64,
    timestamp_ceiling: i64,
    /// Of its record, which a batch's entries share.
    pub(crate) position: u64,
    pub(crate) end: u64,
    /// How many entries of the same batch stand before it and behind it.
    pub(crate) before_in_batch: usize,
    behind_in_batch: usize,
}

/// A cut of one or more cores, which happens to all of them or to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) cores: BTreeMap<u16, Acked>,
    /// A reset, which takes the checkpoint away too.
    pub(crate) empties: bool,
    /// What has to be in quarantine before it happens.
    pub(crate) dropped: Vec<Dropped>,
}

/// A checkpoint, and where it stands on each core that has a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpointed {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) places: BTreeMap<u16, Acked>,
}

/// What recovery gave of one core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The first one that was replayed: those before lie behind a checkpoint.
    pub(crate) first: usize,
    /// How many there are, those before the first one among them.
    pub(crate) entries: usize,
    pub(crate) position: u64,
    pub(crate) next_sequence: u64,
    pub(crate) timestamps_ns: Vec<i64>,
}

impl Oracle {
    pub(crate) fn core(&mut self, core: u16) -> &mut CoreOracle {
        self.cores.entry(core).or_insert_with(|| CoreOracle {
            timestamp_floor: i64::MIN,
            timestamp_ceiling: i64::MIN,
            ..CoreOracle::default()
        })
    }

    /// A call has returned, and was looked at from within: what it acked holds from now on.
    pub(crate) fn call_is_over(&mut self) {
        for core in self.cores.values_mut() {
            core.is_certain();
        }
    }

    /// What is known if the call that is under way never returns.
    pub(crate) fn within_the_call(&self) -> Self {
        let mut before = self.clone();
        before.cores.values_mut().for_each(|core| core.acked = core.acked_before);
        before
    }

    /// What decides which states of the disk are right: equal for two moments, and a disk that is
    /// right at one is right at the other.
    pub(crate) fn demand(&self, cuts: &[Cut]) -> u64 {
        let places = cuts.iter().flat_map(|cut| cut.cores.values());
        let places = places.map(|place| place.position).fold(0, crate::random::mix);
        let cores = self.cores.iter().map(|(core, oracle)| {
            let Acked { entries, position } = oracle.acked_before;
            crate::random::mix(crate::random::mix(u64::from(*core), entries as u64), position)
        });
        let cuts = crate::random::mix(places, self.cuts_done);
        let cuts = crate::random::mix(cuts, self.doubtful_cuts.len() as u64);
        let checkpoints = [&self.checkpoint, &self.doubtful_checkpoint];
        let ids = checkpoints.map(|checkpoint| checkpoint.as_ref().map_or(0, |it| it.id));
        let cuts = ids.into_iter().fold(cuts, crate::random::mix);
        cores.fold(cuts, crate::random::mix)
    }

    /// Checks one recovered entry, the `index`th of its core.
    pub(crate) fn check_entry(&self, index: usize, entry: &EntryView<'_>) -> Checked {
        let core = entry.core_id();
        let known = self.cores.get(&core).and_then(|oracle| oracle.entries.get(index));
        let known = known.ok_or_else(|| {
            format!(
                "promise 2: core {core}: recovered, but never appended there: entry {index}, \
                 {entry:?}"
            )
        })?;
        if entry.sequence() != index as u64 {
            return Err(format!(
                "promise 2: core {core}: entry {index} has sequence {}: a gap, or a duplicate",
                entry.sequence()
            ));
        }
        known.check(entry).map_err(|what| format!("{what}; core {core}, sequence {index}"))
    }

    /// Checks how far each core was recovered.
    pub(crate) fn check_ends(&self, found: &BTreeMap<u16, Recovered>, cuts: &[Cut]) -> Checked {
        let nothing = Recovered::default();
        let found_of = |core: u16| found.get(&core).unwrap_or(&nothing);
        let is_at = |core: u16, at: &Acked| {
            let found = found_of(core);
            (found.entries, found.position) == (at.entries, at.position)
        };
        let cuts = || self.doubtful_cuts.iter().chain(cuts);
        for (&core, oracle) in &self.cores {
            let found = found_of(core);
            if found.next_sequence != found.entries as u64 {
                return Err(format!(
                    "promise 2: core {core}: {} entries were recovered, and the next sequence is {}",
                    found.entries, found.next_sequence
                ));
            }
            let mut of_core = cuts().filter(|cut| cut.cores.contains_key(&core));
            let was_cut = of_core.any(|cut| cut.cores.iter().all(|(&core, at)| is_at(core, at)));
            if !was_cut {
                oracle.check_end(found).map_err(|what| format!("{what}; core {core}"))?;
            }
        }
        Ok(())
    }

    /// Checks which checkpoint was recovered: the last one that was completed, unless that is in
    /// doubt.
    pub(crate) fn check_checkpoint(&self, found: Option<&Checkpoint>, cuts: &[Cut]) -> Checked {
        let may_be_gone = self.doubtful_cuts.iter().chain(cuts).any(|cut| cut.empties);
        let is_right = match found {
            None => self.checkpoint.is_none() || may_be_gone,
            Some(found) => {
                let mut known = self.checkpoint.iter().chain(&self.doubtful_checkpoint);
                known.any(|known| known.is(found))
            }
        };
        if is_right {
            return Ok(());
        }
        Err(format!(
            "promise 7: checkpoint {found:?} was recovered, {:?} was completed, {:?} perhaps",
            self.checkpoint, self.doubtful_checkpoint
        ))
    }

    /// A checkpoint counts from now on; what lies below may be gone at any time.
    pub(crate) fn checkpoint_is_complete(&mut self, checkpoint: Checkpointed) {
        for (&core, place) in &checkpoint.places {
            let oracle = self.core(core);
            oracle.ack(*place);
            oracle.is_certain();
            oracle.released = place.entries;
        }
        self.checkpoint = Some(checkpoint);
        self.doubtful_checkpoint = None;
    }

    /// The checkpoint that was recovered is the one that counts.
    pub(crate) fn settle_checkpoint(&mut self, found: Option<&Checkpoint>) {
        let known = [self.checkpoint.take(), self.doubtful_checkpoint.take()];
        let counts = known.into_iter().flatten().find(|known| found.is_some_and(|it| known.is(it)));
        if let Some(counts) = counts {
            self.checkpoint_is_complete(counts);
        }
    }

    /// What is known once the log goes on from what was found.
    pub(crate) fn after(&self, found: &Found) -> Self {
        let mut after = self.clone();
        let manifest = found.log.manifest.as_ref();
        after.settle_checkpoint(manifest.and_then(|manifest| manifest.checkpoint.as_ref()));
        after.go_on_from(&found.cores);
        after
    }

    /// The log goes on from what recovery gave, and all of that is acked.
    pub(crate) fn go_on_from(&mut self, found: &BTreeMap<u16, Recovered>) {
        self.doubtful_cuts.clear();
        for &core in found.keys() {
            self.core(core);
        }
        for (core, oracle) in &mut self.cores {
            let nothing = Recovered::default();
            let found = found.get(core).unwrap_or(&nothing);
            oracle.keep(found.entries);
            oracle.released = oracle.released.min(found.entries);
            let replayed = oracle.entries.iter_mut().skip(found.first);
            for (known, &timestamp_ns) in replayed.zip(&found.timestamps_ns) {
                known.timestamp_ns = Some(timestamp_ns);
            }
            oracle.position = found.position;
            oracle.acked = Acked::default();
            oracle.ack_all();
            oracle.is_certain();
        }
    }

    /// Logs were cut; everything was durable before.
    pub(crate) fn cut(&mut self, cut: &Cut) {
        self.cuts_done += 1;
        if cut.empties {
            self.checkpoint = None;
        }
        self.dropped.extend_from_slice(&cut.dropped);
        for (&core, &to) in &cut.cores {
            self.core(core).cut(to);
        }
    }

    /// What an opening may go on with: for several cores the epoch behind the highest, for a core
    /// alone the highest, unless it was left by its barrier. An entry that was lost may be the only
    /// one to know of an epoch, and a log of which only a start is left is not empty.
    pub(crate) fn epochs_to_go_on_with(&self, alone: bool) -> RangeInclusive<u64> {
        let was_reached =
            |core: &&CoreOracle| core.timestamp_floor > i64::MIN || core.epoch_floor > 0;
        let floor = self.cores.values().filter(was_reached).map(|core| core.epoch_floor).max();
        let ceiling = self.cores.values().filter_map(|core| core.epoch_ceiling).max();
        let lowest = floor.map_or(0, |floor| if alone { floor } else { floor + 1 });
        lowest..=ceiling.max(floor).map_or(0, |ceiling| ceiling + 1)
    }
}

impl CoreOracle {
    pub(crate) fn sequence(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many entries end behind a position.
    pub(crate) fn entries_behind(&self, position: u64) -> u64 {
        let behind = self.entries.iter().rev().take_while(|known| known.end > position);
        behind.count() as u64
    }

    /// The highest timestamp that an entry may have got once `entries` more were appended when the
    /// clock showed `now_ns`: each without a time of its own takes at least a nanosecond.
    pub(crate) fn raise_timestamp_ceiling(&mut self, now_ns: i64, entries: i64) -> i64 {
        self.timestamp_ceiling = self.timestamp_ceiling.max(now_ns).saturating_add(entries);
        self.timestamp_ceiling
    }

    /// Adds the entries of one record.
    pub(crate) fn append(
        &mut self,
        operations: Vec<WalOperation>,
        epoch: u64,
        timestamp_ns: Option<i64>,
        (position, end): (u64, u64),
    ) -> Checked {
        let last = self.entries.last().map_or(0, |last| last.epoch);
        if epoch < last.max(self.epoch_floor) || self.left_epoch.is_some_and(|left| epoch <= left) {
            return Err(format!(
                "an entry got epoch {epoch}, behind one of epoch {last} and the barrier of {:?}",
                self.left_epoch
            ));
        }
        let count = operations.len();
        self.epoch_ceiling = self.epoch_ceiling.max(Some(epoch));
        self.timestamp_ceiling = self.timestamp_ceiling.max(timestamp_ns.unwrap_or(i64::MIN));
        let (timestamp_floor, timestamp_ceiling) = (self.timestamp_floor, self.timestamp_ceiling);
        for (before_in_batch, operation) in operations.into_iter().enumerate() {
            self.entries.push(Known {
                operation: Arc::new(operation),
                epoch,
                timestamp_ns,
                timestamp_floor,
                timestamp_ceiling,
                position,
                end,
                before_in_batch,
                behind_in_batch: count - before_in_batch - 1,
            });
        }
        self.position = end;
        self.find_left_epoch(count);
        Ok(())
    }

    /// Looks for a barrier among the last entries; all others were looked at before.
    fn find_left_epoch(&mut self, last: usize) {
        let barrier = self.entries.iter().rev().take(last).find_map(Known::barrier_epoch);
        self.left_epoch = barrier.or(self.left_epoch);
    }

    /// Keeps the first entries alone.
    fn keep(&mut self, entries: usize) {
        if entries < self.entries.len() {
            self.entries.truncate(entries);
            self.left_epoch = None;
            self.find_left_epoch(entries);
        }
    }

    pub(crate) fn ack(&mut self, acked: Acked) {
        self.acked.entries = self.acked.entries.max(acked.entries);
        self.acked.position = self.acked.position.max(acked.position);
    }

    pub(crate) fn ack_all(&mut self) {
        self.ack(self.end());
    }

    /// Everything below `position` survives from now on, by what the log says of itself.
    pub(crate) fn ack_below(&mut self, position: u64) {
        if position <= self.acked.position {
            return;
        }
        let entries = self.entries.iter().take_while(|known| known.end <= position).count();
        self.ack(Acked { entries, position });
    }

    /// The highest position of which some later acked batch says that all below it was durable,
    /// if that batch lies wholly at or behind `from`.
    pub(crate) fn proven_by_what_begins_at(&self, from: u64) -> Option<u64> {
        // A batch begins with its mark, where the log ended.
        let mut begins = self.ack_points.iter().rev().copied();
        let newest = begins.find(|begins| *begins < self.acked_before.position)?;
        (newest >= from).then_some(newest)
    }

    /// How many entries survive a crash within the call that is under way.
    pub(crate) const fn acked_entries(&self) -> usize {
        self.acked_before.entries
    }

    /// Somebody saw, while a call was under way, that everything below `position` is durable.
    pub(crate) fn is_seen_durable(&mut self, position: u64) {
        if position > self.acked_before.position {
            self.ack_below(position);
            let entries = self.entries.iter().take_while(|known| known.end <= position).count();
            self.acked_before.entries = self.acked_before.entries.max(entries);
            self.acked_before.position = position;
        }
    }

    pub(crate) const fn end(&self) -> Acked {
        Acked { entries: self.entries.len(), position: self.position }
    }

    /// The boundary before the record of an entry.
    pub(crate) fn boundary_before(&self, index: usize) -> Option<Acked> {
        let known = self.entries.get(index)?;
        Some(Acked { entries: index - known.before_in_batch, position: known.position })
    }

    /// The boundary behind the record of an entry.
    pub(crate) fn boundary_behind(&self, index: usize) -> Option<Acked> {
        let known = self.entries.get(index)?;
        Some(Acked { entries: index + known.behind_in_batch + 1, position: known.end })
    }

    /// How many of the first entries may be gone.
    pub(crate) const fn released(&self) -> usize {
        self.released
    }

    fn cut(&mut self, to: Acked) {
        self.ack_all();
        self.is_certain();
        self.keep(to.entries);
        self.released = self.released.min(to.entries);
        self.position = to.position;
        self.acked = to;
        self.is_certain();
    }

    /// What is acked is so at every moment to come.
    fn is_certain(&mut self) {
        self.acked_before = self.acked;
        let acked = self.acked.position;
        self.ack_points.retain(|point| *point <= self.position);
        // What was appended behind it before that may be written together with what is below: then
        // its marks do not know of it.
        let is_end = acked == self.position;
        if is_end && self.ack_points.last().is_none_or(|last| *last < acked) {
            self.ack_points.push(acked);
        }
        for known in self.entries.iter().take(self.acked.entries) {
            self.epoch_floor = self.epoch_floor.max(known.epoch);
            if let Some(timestamp_ns) = known.timestamp_ns {
                self.timestamp_floor = self.timestamp_floor.max(timestamp_ns);
            }
        }
    }

    fn check_end(&self, found: &Recovered) -> Checked {
        let Acked { entries, position } = self.acked_before;
        let count = found.entries;
        if count < entries || count > self.entries.len() || found.position < position {
            let promise = if count > self.entries.len() { 2 } else { 1 };
            return Err(format!(
                "promise {promise}: {count} entries up to position {} were recovered; {entries} up \
                 to {position} were acked, {} up to {} appended",
                found.position,
                self.entries.len(),
                self.position
            ));
        }
        self.check_boundary(found)
    }

    /// Checks that the log may end there.
    pub(crate) fn check_boundary(&self, found: &Recovered) -> Checked {
        let count = found.entries;
        if self.entries.get(count).is_some_and(|next| next.before_in_batch > 0) {
            return Err(format!(
                "promise 2: {count} entries were recovered, and the last of them are a part of an \
                 atomic batch"
            ));
        }
        // A log may end with marks whose batches were lost, and with nothing else.
        let below = count.checked_sub(1).and_then(|last| self.entries.get(last));
        let below = below.map_or(0, |last| last.end);
        // An append that failed may have written the mark of a batch.
        let end = self.position + MARK_BYTES;
        let above = self.entries.get(count).map_or(end, |next| next.position);
        let marks_bytes = found.position.wrapping_sub(below);
        if found.position < below
            || found.position > above
            || !marks_bytes.is_multiple_of(MARK_BYTES)
        {
            return Err(format!(
                "promise 2: the log ends at {}, with the last entry's end at {below} and the next \
                 one's place at {above}",
                found.position
            ));
        }
        Ok(())
    }
}

impl Cut {
    /// What there is where this one happened, and then `next`.
    pub(crate) fn and_then(&self, next: &Self) -> Self {
        let mut both = next.clone();
        for (&core, &place) in &self.cores {
            both.cores.entry(core).or_insert(place);
        }
        both.empties |= self.empties;
        both
    }

    pub(crate) const fn of(cores: BTreeMap<u16, Acked>) -> Self {
        Self { cores, empties: false, dropped: Vec::new() }
    }

    pub(crate) const fn emptying(cores: BTreeMap<u16, Acked>) -> Self {
        Self { cores, empties: true, dropped: Vec::new() }
    }
}

impl Checkpointed {
    fn is(&self, found: &Checkpoint) -> bool {
        let places = found.cores.iter().map(|place| {
            let entries = usize::try_from(place.sequence).unwrap_or(usize::MAX);
            (place.core, Acked { entries, position: place.position })
        });
        // A core without entries may have a segment, or not.
        let places = places.filter(|(_, place)| place.position > 0);
        (self.id, self.epoch) == (found.id, found.epoch)
            && self.places.iter().map(|(&core, &place)| (core, place)).eq(places)
    }
}

impl Known {
    /// The epoch that it ends, if it is a barrier.
    pub(crate) fn barrier_epoch(&self) -> Option<u64> {
        match *self.operation {
            WalOperation::EpochBarrier { epoch } => Some(epoch),
            _ => None,
        }
    }

    pub(crate) fn check(&self, entry: &EntryView<'_>) -> Checked {
        if entry.epoch() != self.epoch || !is_same(&self.operation, &entry.operation()) {
            return Err(format!(
                "promise 2: {:?} in epoch {} was appended, {entry:?} recovered",
                self.operation, self.epoch
            ));
        }
        let timestamp_ns = entry.timestamp_ns();
        if self.timestamp_ns.is_some_and(|known| known != timestamp_ns) {
            return Err(format!(
                "promise 2: its timestamp was {:?}, and is {timestamp_ns}",
                self.timestamp_ns
            ));
        }
        if timestamp_ns < self.timestamp_floor || timestamp_ns > self.timestamp_ceiling {
            return Err(format!(
                "promise 6: its timestamp is {timestamp_ns}; when it was appended, the last one \
                 was {}, and by the clock it could be {} at most",
                self.timestamp_floor, self.timestamp_ceiling
            ));
        }
        Ok(())
    }
}

fn is_same(appended: &WalOperation, recovered: &OperationView<'_>) -> bool {
    match (appended, recovered) {
        (
            WalOperation::Put { key, value },
            OperationView::Put { key: recovered_key, value: recovered_value },
        ) => key == recovered_key && value == recovered_value,
        (WalOperation::Delete { key }, OperationView::Delete { key: recovered_key }) => {
            key == recovered_key
        }
        (appended, recovered) => *appended == recovered.to_operation(),
    }
}

/// What a mark takes of the log.
pub(crate) const MARK_BYTES: u64 = MARK_RECORD_BYTES as u64;

/// What an entry takes of the log, without the mark of its batch.
pub(crate) fn record_bytes(operation: &WalOperation) -> u64 {
    let operation = operation.clone();
    let entry = WalEntry { epoch: 0, sequence: 0, core_id: 0, timestamp_ns: 0, operation };
    RECORD_HEADER_BYTES as u64 + entry.borrowed().archived_bytes() as u64
}

/// What an atomic batch takes of the log.
pub(crate) fn batch_record_bytes(operations: &[WalOperation]) -> u64 {
    // A header before each archive, as long as a record's own.
    RECORD_HEADER_BYTES as u64 + operations.iter().map(record_bytes).sum::<u64>()
}
