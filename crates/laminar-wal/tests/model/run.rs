//! Doing operations on a log and on its model, and comparing the two after each.

mod group_commit;
mod looking;
mod opening;

use std::collections::BTreeMap;

use laminar_wal::{
    CoreWalWriter, Offsets, SyncRequest, Synced, Wal, WalEntry, WalError, WalOperation,
};
use wal_writer::LogOptions;

use crate::Checked;
use crate::disk::{self, Disk};
use crate::operations::{Boundary, Ending, Era, Operation, Pick, Random, Shape, Story, Wrong};
use crate::oracle::{CoreModel, DoubtfulCut, MARK_BYTES, is_barrier};
use group_commit::{Shared, Ticket};

/// A log, the disk under it, and the model of both.
#[derive(Debug)]
pub(crate) struct Run {
    disk: Disk,
    era: Era,
    /// Where the run's own small choices come from, such as the bytes of keys and values.
    random: Random,
    cores: BTreeMap<u16, CoreModel>,
    /// `None` only for moments: every operation finds the log open.
    log: Option<OpenLog>,
    /// Counts openings, so that requests and proofs of another one are known.
    openings: u64,
    requests: Vec<Request>,
    proofs: Vec<Proof>,
    tickets: Vec<Ticket>,
    disk_is_full: bool,
    /// An opening has returned `Ok` once, so the log is there.
    log_was_made: bool,
    /// How the power fails when the machine stops.
    crash_soon: Option<(Pick, Shape)>,
}

#[derive(Debug)]
struct OpenLog {
    /// `None` if one core's writer holds the log alone.
    wal: Option<Wal>,
    /// The epoch that all writers began with.
    first_epoch: u64,
    writers: BTreeMap<u16, Writer>,
    /// A core has a writer, or shared ones, or was found poisoned.
    shared: BTreeMap<u16, Shared>,
    /// How far somebody who cannot lead asked for, and in which life.
    asked: BTreeMap<u16, (Life, u64)>,
    options: LogOptions,
    /// The first cause of each core that was found poisoned.
    first_causes: BTreeMap<u16, String>,
    /// How many cuts each core has seen in this opening.
    cuts: BTreeMap<u16, u64>,
    faults_before: u64,
}

/// A writer, and what it must say of itself.
#[derive(Debug)]
struct Writer {
    writer: CoreWalWriter,
    epoch: u64,
    synced_position: u64,
    synced_sequence: u64,
    /// So many entries, up to there, are out of its hands.
    submitted: (usize, u64),
}

/// What tells a life of a core's log from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    core: u16,
    opening: u64,
    cuts: u64,
}

#[derive(Debug)]
struct Request {
    request: SyncRequest,
    life: Life,
    position: u64,
    entries: usize,
}

#[derive(Debug)]
struct Proof {
    proof: Synced,
    life: Life,
    position: u64,
    entries: usize,
}

impl Run {
    pub(crate) fn new(disk: Disk, story: &Story) -> Self {
        Self {
            disk,
            era: story.era,
            random: Random::new(!story.seed),
            cores: BTreeMap::new(),
            log: None,
            openings: 0,
            requests: Vec::new(),
            proofs: Vec::new(),
            tickets: Vec::new(),
            disk_is_full: false,
            log_was_made: false,
            crash_soon: None,
        }
    }

    /// Does everything that a story tells.
    ///
    /// # Errors
    ///
    /// What happened against a promise, after which operation.
    pub(crate) fn tell(mut self, story: &Story) -> Checked {
        story.fault.iter().try_for_each(|fault| self.do_to_the_machine(fault))?;
        self.open(story.shape).map_err(|what| format!("in the first opening: {what}"))?;
        for (number, operation) in story.operations.iter().enumerate() {
            self.step(operation).map_err(|what| {
                format!("operation {} of the list, {operation:?}: {what}", number + 1)
            })?;
        }
        self.end().map_err(|what| format!("at the end: {what}"))
    }

    fn step(&mut self, operation: &Operation) -> Checked {
        self.do_one(operation)?;
        if self.disk.is_halted() {
            let (plan, shape) = self.crash_soon.take().unwrap_or((0, 0));
            self.lose_power(plan)?;
            self.open(shape)?;
        }
        self.check_writers()
    }

    fn do_one(&mut self, operation: &Operation) -> Checked {
        match *operation {
            Operation::Put { core, key_bytes, value_bytes } => {
                let (key, value) = (self.bytes(key_bytes), self.bytes(value_bytes));
                self.append(core, WalOperation::Put { key, value })
            }
            Operation::Puts { core, count, value_bytes } => (0..count).try_for_each(|number| {
                let (key, value) = (number.to_le_bytes().to_vec(), self.bytes(value_bytes));
                self.append(core, WalOperation::Put { key, value })
            }),
            Operation::Delete { core, key_bytes } => {
                let key = self.bytes(key_bytes);
                self.append(core, WalOperation::Delete { key })
            }
            Operation::Commit { core, sources } => {
                let mut offsets = Offsets::new();
                for source in 0..sources {
                    offsets.set(&format!("source {source}"), self.random.next());
                }
                let watermark = (sources % 2 == 0).then_some(7);
                self.append(core, WalOperation::Commit { offsets, watermark })
            }
            Operation::Checkpoint { core, id } => {
                self.append(core, WalOperation::Checkpoint { id })
            }
            Operation::Barrier { core } => {
                let core = self.appending_core(core);
                let epoch = core.map_or(0, |core| *self.epoch_mut(core));
                core.map_or(Ok(()), |core| {
                    self.append(core.into(), WalOperation::EpochBarrier { epoch })
                })
            }
            Operation::Batch { core, count, value_bytes } => {
                self.append_batch(core, count, value_bytes)
            }
            Operation::SetEpoch { core, by } => self.set_epoch(core, by),
            Operation::ReadyMade { core, epoch_by, time_by_ns, is_barrier, wrong } => {
                self.append_ready_made(core, epoch_by, time_by_ns, is_barrier, wrong)
            }
            Operation::Sync { core } => self.sync(core),
            Operation::StartSync { core } => self.start_sync(core),
            Operation::RunRequest { pick } => self.run_request(pick),
            Operation::DropRequest { pick } => {
                if let Some(at) = index(pick, self.requests.len()) {
                    drop(self.requests.swap_remove(at));
                }
                Ok(())
            }
            Operation::MarkSynced { core, pick } => self.mark_synced(core, pick),
            Operation::Submit { core } => self.submit(core),
            Operation::TrySubmit { core } => self.try_submit(core),
            Operation::Ticket { pick, what } => self.do_with_ticket(pick, what),
            Operation::SyncAll => self.sync_all(),
            Operation::Watch => self.watch(),
            Operation::Share { core, by_dropping } => self.share(core, by_dropping),
            Operation::CloneShared { core } => self.clone_shared(core),
            Operation::DropShared { core } => self.drop_shared(core),
            Operation::Unshare { core } => self.unshare(core),
            Operation::Truncate { core, to, pick } => self.truncate(core, to, pick),
            Operation::Reset { core } => self.reset(core),
            Operation::RetakeWriter { core, closing } => self.retake_writer(core, closing),
            Operation::RetakeAllWriters => self.retake_all_writers(),
            Operation::OpenAgain => self.open_again(),
            Operation::Reopen { ending, shape } => {
                self.close(ending)?;
                self.open(shape)
            }
            Operation::Look => self.look(),
            Operation::TryCrashes { plan } => self.try_crashes(plan),
            Operation::Kill { shape } => {
                self.kill()?;
                self.open(shape)
            }
            Operation::Crash { plan, shape } => {
                self.lose_power(plan)?;
                self.open(shape)
            }
            Operation::FailWhileOpening { kill_first, ref fault, shape } => {
                match kill_first {
                    true => self.kill()?,
                    false => self.close(Ending::WritersThenLog)?,
                }
                self.do_to_the_machine(fault)?;
                self.open(shape)
            }
            Operation::CrashWhileOpening { kill_first, after, plan, shape } => {
                self.crash_while_opening(kill_first, after, plan, shape)
            }
            _ => self.do_to_the_machine(operation),
        }
    }

    fn do_to_the_machine(&mut self, operation: &Operation) -> Checked {
        let Some(machine) = self.disk.simulation() else {
            return Ok(());
        };
        match *operation {
            Operation::RunJobs => {
                machine.run_jobs();
                return self.whoever_asked_is_served();
            }
            Operation::RunOneJob => {
                machine.run_one_job();
            }
            Operation::Advance { time } => machine.advance(time),
            Operation::StepWallClock { by_ns } => machine.step_wall_clock(by_ns),
            Operation::FillDisk { free_bytes } => {
                machine.set_free_bytes(Some(free_bytes));
                self.disk_is_full = true;
            }
            Operation::FreeDisk => {
                machine.set_free_bytes(None);
                self.disk_is_full = false;
            }
            Operation::Fail { what, after, sticky, full, part } => {
                machine.inject(disk::fault(what, after, sticky, full, part));
            }
            Operation::CrashSoon { after, plan, shape } => {
                machine.halt_at(machine.operations() + after);
                self.crash_soon = Some((plan, shape));
            }
            _ => return Err("no such operation".to_owned()),
        }
        Ok(())
    }

    // ---- appending ----

    fn append(&mut self, core: Pick, operation: WalOperation) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let sequence = self.model(core).sequence();
        let epoch = *self.epoch_mut(core);
        let entry = WalEntry { epoch, sequence, core_id: core, timestamp_ns: 0, operation };
        let Some(Writer { writer, .. }) = self.log_mut().writers.get_mut(&core) else {
            let result = self.append_shared(core, &entry);
            return self.appended(core, entry, None, result);
        };
        let result = match &entry.operation {
            WalOperation::Put { key, value } => writer.append_put(key, value),
            WalOperation::Delete { key } => writer.append_delete(key),
            WalOperation::Checkpoint { id } => writer.append_checkpoint(*id),
            WalOperation::Commit { offsets, watermark } => {
                writer.append_commit(offsets, *watermark)
            }
            WalOperation::EpochBarrier { .. } => writer.append_epoch_barrier(),
        };
        self.appended(core, entry, None, result)
    }

    fn append_ready_made(
        &mut self,
        core: Pick,
        epoch_by: u64,
        time_by_ns: i64,
        is_barrier: bool,
        wrong: Option<Wrong>,
    ) -> Checked {
        let Some(core_id) = self.writing_core(core) else {
            return Ok(());
        };
        self.note_wall_clock(core_id);
        let key = self.bytes(5);
        let model = self.model(core_id);
        let timestamp_ns = model.timestamp_ceiling.saturating_add(time_by_ns);
        let (sequence, timestamp_floor) = (model.sequence(), model.timestamp_floor);
        let writer_epoch = self.writer_of(core_id).epoch;
        let epoch = writer_epoch + epoch_by;
        let operation = match is_barrier {
            true => WalOperation::EpochBarrier { epoch },
            false => WalOperation::Delete { key },
        };
        let mut entry = WalEntry { epoch, sequence, core_id, timestamp_ns, operation };
        let wrong_field = match wrong {
            None => None,
            Some(Wrong::Core) => {
                entry.core_id += 1;
                Some("core_id")
            }
            Some(Wrong::SequenceTooHigh) => {
                entry.sequence += 1;
                Some("sequence")
            }
            Some(Wrong::SequenceTooLow) => entry.sequence.checked_sub(1).map(|sequence| {
                entry.sequence = sequence;
                "sequence"
            }),
            Some(Wrong::Epoch) => writer_epoch.checked_sub(1).map(|epoch| {
                entry.epoch = epoch;
                "epoch"
            }),
            Some(Wrong::Timestamp) => timestamp_floor.checked_sub(1).map(|timestamp_ns| {
                entry.timestamp_ns = timestamp_ns;
                "timestamp_ns"
            }),
            Some(Wrong::BarrierEpoch) => {
                entry.operation = WalOperation::EpochBarrier { epoch: epoch + 1 };
                Some("barrier epoch")
            }
        };
        let result = self.writer_of(core_id).writer.append(&entry);
        match (wrong_field, result) {
            (None, result) => self.appended(core_id, entry, Some(timestamp_ns), result),
            (Some(expected), Err(WalError::EntryOutOfOrder { field, .. })) if field == expected => {
                Ok(())
            }
            (Some(expected), result) => {
                Err(format!("an entry with a wrong {expected} was appended: {result:?}"))
            }
        }
    }

    fn appended(
        &mut self,
        core: u16,
        entry: WalEntry,
        timestamp_ns: Option<i64>,
        result: Result<u64, WalError>,
    ) -> Checked {
        let limit_bytes = u64::from(self.log().options.max_record_bytes);
        let is_too_large = entry.borrowed().archived_bytes() as u64 > limit_bytes;
        match result {
            Ok(_) if is_too_large => Err("a record above the limit was accepted".to_owned()),
            Ok(position) => {
                self.is_appended_at(core, position)?;
                let model = self.model(core);
                // Each entry without a time of its own takes at least a nanosecond.
                model.timestamp_ceiling = model.timestamp_ceiling.saturating_add(1);
                if let Some(timestamp_ns) = timestamp_ns {
                    model.timestamp_ceiling = model.timestamp_ceiling.max(timestamp_ns);
                }
                let epoch = entry.epoch + u64::from(is_barrier(&entry));
                model.append(entry, timestamp_ns, position);
                *self.epoch_mut(core) = epoch;
                Ok(())
            }
            Err(WalError::RecordTooLarge { .. }) if is_too_large => Ok(()),
            Err(error) => self.excuse(core, &error, MayBeFull::Yes),
        }?;
        self.check_writer(core)
    }

    /// A record went where the log ended.
    fn is_appended_at(&mut self, core: u16, position: u64) -> Checked {
        self.is_not_poisoned(core, "an append")?;
        self.note_wall_clock(core);
        let model = self.model(core);
        // A mark before it, and one more if a segment was sealed by a batch of its own.
        let marks_bytes = position.wrapping_sub(model.position);
        let marks = [0, MARK_BYTES, 2 * MARK_BYTES];
        if !marks.contains(&marks_bytes) || (model.position == 0 && position != 0) {
            return Err(format!(
                "the log ended at {}, and the next record went to {position}",
                model.position
            ));
        }
        Ok(())
    }

    fn set_epoch(&mut self, core: Pick, by: i64) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let before = *self.epoch_mut(core);
        let epoch = before.saturating_add_signed(by);
        let set = match self.log_mut().writers.get_mut(&core) {
            Some(writer) => writer.writer.set_epoch(epoch),
            None => self.a_handle_of(core).set_epoch(epoch),
        };
        match set {
            Ok(()) if epoch >= before => {
                *self.epoch_mut(core) = epoch;
                Ok(())
            }
            Err(WalError::EpochRegressed { requested, current, .. })
                if epoch < before && (requested, current) == (epoch, before) =>
            {
                Ok(())
            }
            result => Err(format!("from epoch {before} to {epoch}: {result:?}")),
        }
    }

    // ---- making durable ----

    fn sync(&mut self, core: Pick) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let synced = match self.log_mut().writers.get_mut(&core) {
            Some(writer) => writer.writer.sync(),
            None => self.a_handle_of(core).sync(),
        };
        match synced {
            Ok(()) => {
                self.is_not_poisoned(core, "a sync")?;
                self.model(core).doubtful_cuts.clear();
                self.all_is_synced(core);
                Ok(())
            }
            Err(error) => self.excuse(core, &error, MayBeFull::No),
        }
    }

    fn start_sync(&mut self, core: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        match self.writer_of(core).writer.start_sync() {
            Ok(request) => {
                self.is_not_poisoned(core, "the start of a sync")?;
                let life = self.life(core);
                let model = self.model(core);
                let (position, entries) = (model.position, model.entries.len());
                if request.position() != position {
                    return Err(format!("{request:?} for a log that ends at {position}"));
                }
                self.requests.push(Request { request, life, position, entries });
                self.all_is_submitted(core);
                Ok(())
            }
            Err(error) => self.excuse(core, &error, MayBeFull::No),
        }
    }

    fn run_request(&mut self, pick: Pick) -> Checked {
        let Some(at) = index(pick, self.requests.len()) else {
            return Ok(());
        };
        let Request { request, life, position, entries } = self.requests.swap_remove(at);
        let is_of_this_opening = life.opening == self.openings;
        let is_of_this_life = self.is_alive(life);
        let before = (!is_of_this_opening).then(|| self.disk.fingerprint());
        let result = request.run();
        match result {
            Ok(_) if is_of_this_opening && !is_of_this_life => {
                return Err("a request from before a cut was run".to_owned());
            }
            Ok(proof) => {
                if (proof.position(), proof.core_id()) != (position, life.core) {
                    return Err(format!("{proof:?} for position {position}"));
                }
                if is_of_this_life {
                    self.model(life.core).ack(entries, position);
                }
                self.proofs.push(Proof { proof, life, position, entries });
            }
            // Nothing that an earlier opening promised is at stake here.
            Err(_) if !is_of_this_opening => {}
            Err(WalError::ProofRejected { .. })
                if !is_of_this_life || !self.model(life.core).doubtful_cuts.is_empty() => {}
            Err(error) => return self.excuse(life.core, &error, MayBeFull::No),
        }
        match before {
            Some(before) if before != self.disk.fingerprint() => {
                Err("a request of an earlier opening wrote to the disk".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn mark_synced(&mut self, core: Pick, pick: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        let Some(at) = index(pick, self.proofs.len()) else {
            return Ok(());
        };
        let Proof { proof, life, position, entries } = self.proofs.swap_remove(at);
        let fits = life.core == core && self.is_alive(life);
        let is_doubtful = !self.model(core).doubtful_cuts.is_empty();
        let writer = self.writer_of(core);
        match writer.writer.mark_synced(proof) {
            Ok(()) if fits => {
                if position > writer.synced_position {
                    writer.synced_position = position;
                    writer.synced_sequence = entries as u64;
                }
                Ok(())
            }
            Err(WalError::ProofRejected { .. }) if !fits || is_doubtful => Ok(()),
            result => Err(format!("a proof of {life:?} for core {core}: {result:?}")),
        }
    }

    // ---- cutting ----

    fn truncate(&mut self, core: Pick, to: Boundary, pick: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        // So that the timestamps of what is cut are known, and none later may be lower.
        if pick.is_multiple_of(4) && self.disk.simulation().is_some() {
            self.sync(core.into())?;
            self.look()?;
        }
        let model = self.model(core);
        let end = (model.entries.len(), model.position);
        let chosen = index(pick / 4, model.entries.len());
        let chosen = chosen.map(|at| (model.record_of(at), &model.entries[at]));
        let mut nearest = None;
        let (entries, position) = match (to, chosen) {
            (Boundary::BeforeAnEntry, Some((record, entry))) => (record.start, entry.position),
            (Boundary::BehindAnEntry, Some((record, entry))) => (record.end, entry.end),
            (Boundary::InsideAnEntry, Some((record, entry))) => {
                nearest = Some((entry.position, entry.end));
                let within = 1 + pick % (entry.end - entry.position - 1);
                (record.start, entry.position + within)
            }
            (Boundary::BeyondTheEnd, _) => (end.0, end.1 + 1 + pick % 100),
            (Boundary::End, _) | (_, None) => end,
        };
        let result = self.writer_of(core).writer.truncate(position);
        match result {
            Ok(()) if nearest.is_some() || position > end.1 => {
                Err(format!("the log was cut at {position}, which is no boundary"))
            }
            Ok(()) => {
                self.is_cut(core, entries, position);
                Ok(())
            }
            Err(WalError::NotARecordBoundary { boundary_below, boundary_above, .. })
                if nearest == Some((boundary_below, boundary_above)) =>
            {
                self.was_synced_before_it_failed(core)
            }
            Err(WalError::InvalidArgument { .. }) if position > end.1 => {
                self.was_synced_before_it_failed(core)
            }
            Err(error) => self.cut_failed(core, DoubtfulCut { entries, position }, &error),
        }
    }

    fn reset(&mut self, core: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        if self.model(core).position == 0 {
            // Whether this begins a new life depends on files that the model knows nothing of.
            self.requests.retain(|request| request.life.core != core);
            self.proofs.retain(|proof| proof.life.core != core);
        }
        match self.writer_of(core).writer.reset() {
            Ok(()) => {
                self.is_cut(core, 0, 0);
                Ok(())
            }
            Err(error) => self.cut_failed(core, DoubtfulCut { entries: 0, position: 0 }, &error),
        }
    }

    fn is_cut(&mut self, core: u16, entries: usize, position: u64) {
        let model = self.model(core);
        if model.position != position {
            model.cut(entries, position);
            *self.log_mut().cuts.entry(core).or_default() += 1;
        }
        self.all_is_synced(core);
    }

    fn cut_failed(&mut self, core: u16, cut: DoubtfulCut, error: &WalError) -> Checked {
        self.excuse(core, error, MayBeFull::Yes)?;
        if !error.is_storage_full() {
            self.model(core).doubtful_cuts.push(cut);
        }
        let writer = &self.writer_of(core).writer;
        let found = (writer.position(), writer.sequence());
        let model = self.model(core);
        let is_cut = found == (cut.position, cut.entries as u64);
        if !error.is_storage_full() && is_cut && found.0 != model.position {
            // Nobody may rely on this writer's numbers any more, and it must refuse everything.
            self.log_mut().writers.remove(&core);
            return Ok(());
        }
        self.was_synced_before_it_failed(core)
    }

    /// A cut makes everything durable first. If it says that it did, that counts.
    fn was_synced_before_it_failed(&mut self, core: u16) -> Checked {
        let position = self.model(core).position;
        if self.writer_of(core).writer.synced_position() == position {
            self.all_is_synced(core);
        }
        Ok(())
    }

    // ---- handing writers around ----

    fn retake_writer(&mut self, core: Pick, closing: bool) -> Checked {
        let Some(core) = self.writing_core(core).filter(|_| self.log().wal.is_some()) else {
            return Ok(());
        };
        if let Some(wal) = &self.log().wal
            && !matches!(wal.writer(core), Err(WalError::WriterTaken { .. }))
        {
            return Err(format!("core {core}: its writer was given away twice"));
        }
        if let Some(writer) = self.log_mut().writers.remove(&core)
            && closing
        {
            match writer.writer.close() {
                Ok(()) => {
                    self.is_not_poisoned(core, "the close of a writer")?;
                    self.model(core).ack_all();
                }
                Err(error) => self.excuse(core, &error, MayBeFull::No)?,
            }
        }
        if self.random.chance(50)
            && let Some(machine) = self.disk.simulation()
        {
            machine.run_jobs();
        }
        self.take_writer(core)
    }

    fn retake_all_writers(&mut self) -> Checked {
        let Some(wal) = &self.log().wal else {
            return Ok(());
        };
        let cores = self.log().writers.keys().chain(self.log().shared.keys());
        let cores: Vec<u16> = cores.copied().collect();
        if cores.is_empty() {
            return Ok(());
        }
        match wal.writers() {
            Err(WalError::WriterTaken { .. }) => {}
            // Writers are taken in order, and a poisoned one may come before.
            Err(_) if !self.log().first_causes.is_empty() || self.disk.has_failed() => {}
            result => {
                return Err(format!("all writers were taken, though some are out: {result:?}"));
            }
        }
        self.log_mut().writers.clear();
        self.log_mut().shared.clear();
        let Some(wal) = &self.log().wal else {
            return Ok(());
        };
        match wal.writers() {
            Ok(writers) => {
                for writer in writers.into_writers() {
                    self.writer_is_taken(writer)?;
                }
                Ok(())
            }
            // None is out then, so each can be had by itself.
            Err(_) => cores.into_iter().try_for_each(|core| self.take_writer(core)),
        }
    }

    fn take_writer(&mut self, core: u16) -> Checked {
        let Some(wal) = &self.log().wal else {
            return Ok(());
        };
        match wal.writer(core) {
            Ok(writer) => self.writer_is_taken(writer),
            Err(error) => self.excuse(core, &error, MayBeFull::No),
        }
    }

    /// What an earlier writer left is durable when the next one is there.
    fn writer_is_taken(&mut self, writer: CoreWalWriter) -> Checked {
        let core = writer.core_id();
        self.is_not_poisoned(core, "the taking of a writer")?;
        let first_epoch = self.log().first_epoch;
        let model = self.model(core);
        model.ack_all();
        let (epoch, lowest) = (writer.epoch(), model.open_epoch().max(first_epoch));
        let (synced_position, synced_sequence) = (model.position, model.sequence());
        if epoch < lowest {
            return Err(format!(
                "core {core}: its writer begins with epoch {epoch}, below {lowest}"
            ));
        }
        let submitted = (model.entries.len(), model.position);
        let writer = Writer { writer, epoch, synced_position, synced_sequence, submitted };
        self.log_mut().writers.insert(core, writer);
        self.check_writer(core)
    }

    fn close(&mut self, ending: Ending) -> Checked {
        let log = self.log_mut();
        let mut wal = log.wal.take();
        let writers = std::mem::take(&mut log.writers);
        let mut shared = std::mem::take(&mut log.shared);
        let cores: Vec<u16> = match &wal {
            Some(wal) => (0..u16::try_from(wal.core_count()).unwrap_or(u16::MAX)).collect(),
            None => writers.keys().chain(shared.keys()).copied().collect(),
        };
        let mut is_clean = true;
        if let Ending::WritersThenLog = ending {
            shared.clear();
        }
        let all_are_back = writers.is_empty() && shared.is_empty();
        if let (Ending::LogThenWriters, Some(wal)) = (ending, wal.take()) {
            match wal.close() {
                Err(WalError::WriterTaken { .. }) if !all_are_back => {}
                Ok(()) if all_are_back => {}
                Ok(()) => return Err("the log was closed while writers were out".to_owned()),
                Err(error) => {
                    is_clean = false;
                    self.excuse_any(&error)?;
                }
            }
        }
        for (core, writer) in writers {
            if let Ending::Dropping = ending {
                drop(writer);
                continue;
            }
            match writer.writer.close() {
                Ok(()) => {
                    self.is_not_poisoned(core, "the close of a writer")?;
                    self.model(core).ack_all();
                }
                Err(error) => {
                    is_clean = false;
                    self.excuse(core, &error, MayBeFull::No)?;
                }
            }
        }
        match (ending, wal) {
            (Ending::WritersThenLog, Some(wal)) => {
                if let Err(error) = wal.close() {
                    is_clean = false;
                    self.excuse_any(&error)?;
                }
            }
            (_, wal) => drop((wal, shared)),
        }
        if self.has_failed() {
            self.log = None;
            return Ok(());
        }
        self.log = None;
        if !is_clean {
            return Err("closing failed on a healthy disk".to_owned());
        }
        for &core in &cores {
            self.model(core).ack_all();
        }
        // On a full disk there may be no segment to say so in.
        if self.disk_is_full { Ok(()) } else { self.look_at_a_closed_log(&cores) }
    }

    // ---- small helpers ----

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let salt = self.random.next().to_le_bytes();
        salt.into_iter().cycle().take(length).collect()
    }

    fn log(&self) -> &OpenLog {
        self.log.as_ref().expect("the log is open")
    }

    fn log_mut(&mut self) -> &mut OpenLog {
        self.log.as_mut().expect("the log is open")
    }

    /// The core chosen among those whose writers are out.
    fn writing_core(&self, pick: Pick) -> Option<u16> {
        let writers = &self.log().writers;
        if let Some(core) = u16::try_from(pick).ok().filter(|core| writers.contains_key(core)) {
            return Some(core);
        }
        let at = index(pick, writers.len())?;
        writers.keys().nth(at).copied()
    }

    fn writer_of(&mut self, core: u16) -> &mut Writer {
        self.log_mut().writers.get_mut(&core).expect("its writer is out")
    }

    fn model(&mut self, core: u16) -> &mut CoreModel {
        self.cores.entry(core).or_insert_with(|| CoreModel::new(core))
    }

    fn life(&self, core: u16) -> Life {
        let cuts = self.log().cuts.get(&core).copied().unwrap_or(0);
        Life { core, opening: self.openings, cuts }
    }

    fn is_alive(&self, life: Life) -> bool {
        self.log.is_some() && self.life(life.core) == life
    }

    fn all_is_synced(&mut self, core: u16) {
        let model = self.model(core);
        model.ack_all();
        let (position, sequence) = (model.position, model.sequence());
        if let Some(writer) = self.log_mut().writers.get_mut(&core) {
            writer.synced_position = position;
            writer.synced_sequence = sequence;
        }
        self.all_is_submitted(core);
    }

    fn note_wall_clock(&mut self, core: u16) {
        let now_ns = self.disk.storage().wall_clock_ns();
        let model = self.model(core);
        model.timestamp_ceiling = model.timestamp_ceiling.max(now_ns);
    }

    /// Whether the disk refused, in this opening, what a healthy one would have done.
    fn has_failed(&self) -> bool {
        let before = self.log.as_ref().map_or(0, |log| log.faults_before);
        self.disk.simulation().is_some_and(|disk| disk.faults_hit() > before || disk.is_halted())
    }

    /// Whether an error has a good reason. If it is final, it must stay the same for ever.
    fn excuse(&mut self, core: u16, error: &WalError, may_be_full: MayBeFull) -> Checked {
        let has_failed = self.has_failed();
        let is_excused = match error {
            WalError::Poisoned { core: poisoned, first } if *poisoned == core => {
                let first = first.to_string();
                let known =
                    self.log_mut().first_causes.entry(core).or_insert_with(|| first.clone());
                if *known != first {
                    return Err(format!("core {core}: first {known}, then {first}"));
                }
                has_failed
            }
            WalError::Io { .. } => has_failed,
            WalError::StorageFull { .. } => {
                has_failed || (self.disk_is_full && may_be_full == MayBeFull::Yes)
            }
            _ => false,
        };
        if is_excused { Ok(()) } else { Err(format!("core {core}: without a reason: {error}")) }
    }

    /// As [`excuse`](Self::excuse), for errors that may be any core's.
    fn excuse_any(&mut self, error: &WalError) -> Checked {
        let core = match error {
            WalError::Poisoned { core, .. } => *core,
            _ => 0,
        };
        self.excuse(core, error, MayBeFull::No)
    }

    fn is_not_poisoned(&self, core: u16, what: &str) -> Checked {
        match self.log().first_causes.get(&core) {
            Some(first) => Err(format!("core {core}: {what} was Ok, though poisoned: {first}")),
            None => Ok(()),
        }
    }

    fn check_writers(&mut self) -> Checked {
        let cores = self.log().writers.keys().chain(self.log().shared.keys());
        let cores: Vec<u16> = cores.copied().collect();
        cores.into_iter().try_for_each(|core| self.check_writer(core))?;
        self.check_tickets()?;
        match self.disk.simulation().map_or(0, wal_sim::SimStorage::jobs_panicked) {
            0 => Ok(()),
            panicked => Err(format!("{panicked} jobs have panicked")),
        }
    }

    /// What a writer says of itself is what the model says.
    fn check_writer(&mut self, core: u16) -> Checked {
        let model = self.model(core);
        let (position, sequence) = (model.position, model.sequence());
        let Some(Writer { writer, epoch, synced_position, synced_sequence, .. }) =
            self.log().writers.get(&core)
        else {
            return self.check_shared(core);
        };
        let expected =
            (core, position, sequence, *epoch, *synced_position, sequence - synced_sequence);
        let actual = (
            writer.core_id(),
            writer.position(),
            writer.sequence(),
            writer.epoch(),
            writer.synced_position(),
            writer.entries_since_sync(),
        );
        if actual == expected {
            return Ok(());
        }
        Err(format!(
            "core, position, sequence, epoch, synced position, entries since: {expected:?} was \
             expected, the writer says {actual:?}"
        ))
    }
}

/// Whether an operation may need space on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayBeFull {
    Yes,
    No,
}

fn index(pick: Pick, length: usize) -> Option<usize> {
    let length = u64::try_from(length).ok().filter(|length| *length > 0)?;
    usize::try_from(pick % length).ok()
}
