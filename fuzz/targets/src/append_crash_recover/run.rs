//! Doing operations on a log and on its model, and comparing the two after each.

mod opening;
mod syncing;

use laminar_wal::{CoreWalWriter, Offsets, SyncRequest, Synced, Wal, WalError, WalOperation};
use wal_format::{MARK_RECORD_BYTES, RECORD_HEADER_BYTES};
use wal_sim::SimStorage;

use self::opening::Sizes;
use super::Checked;
use super::model::CoreModel;
use super::operations::{How, Operation, fault};
use crate::input::choose;

/// A log, the disk under it, and the models of its cores.
pub(super) struct Run {
    disk: SimStorage,
    wal: Option<Wal>,
    cores: Vec<Core>,
    sizes: Sizes,
    /// Counts openings: a request or a proof of another one is told by it.
    opening: u64,
    /// Faults that were hit before the log was opened.
    faults_before: u64,
    /// No writer ever had a higher epoch.
    highest_epoch: u64,
    requests: Vec<(Handed, SyncRequest)>,
    proofs: Vec<(Handed, Synced)>,
    /// How the power fails when the machine stops.
    crash_soon: Option<How>,
}

/// One core's writer, what it must say of itself, and its model.
struct Core {
    id: u16,
    model: CoreModel,
    writer: Option<CoreWalWriter>,
    epoch: u64,
    synced: (u64, u64),
    /// How often the log was cut in this opening.
    cuts: u64,
    /// Why it is poisoned, if it is.
    first_cause: Option<String>,
}

/// What was handed over to be synced: of which core and life, up to where.
#[derive(Debug, Clone, Copy)]
struct Handed {
    core: usize,
    opening: u64,
    cuts: u64,
    position: u64,
    entries: usize,
}

impl Run {
    pub(super) fn new(choice: u8) -> Self {
        let disk = SimStorage::new(u64::from(choice));
        if choice & 4 != 0 {
            disk.set_mode(wal_storage::IoMode::Buffered);
        }
        let cores = u16::from(choice % 3) + 1;
        let core = |id| Core {
            id,
            model: CoreModel::default(),
            writer: None,
            epoch: 0,
            synced: (0, 0),
            cuts: 0,
            first_cause: None,
        };
        Self {
            disk,
            wal: None,
            cores: (0..cores).map(core).collect(),
            sizes: Sizes::of(0),
            opening: 0,
            faults_before: 0,
            highest_epoch: 0,
            requests: Vec::new(),
            proofs: Vec::new(),
            crash_soon: None,
        }
    }

    pub(super) fn perform(&mut self, operation: Operation) -> Checked {
        self.do_one(operation)?;
        if self.disk.is_halted() {
            let how = self.crash_soon.take();
            self.lose_power(how)?;
            self.open(0)?;
        }
        match self.disk.jobs_panicked() {
            0 => self.cores.iter().try_for_each(Core::check),
            panicked => Err(format!("{panicked} jobs have panicked")),
        }
    }

    fn do_one(&mut self, operation: Operation) -> Checked {
        match operation {
            Operation::Put { core, key_bytes, value_bytes } => {
                let (key, value) = (filled(key_bytes.into(), core), filled(value_bytes.into(), 1));
                self.append(core, WalOperation::Put { key, value })
            }
            Operation::Puts { core, count } => (0..count).try_for_each(|number| {
                let (key, value) = (vec![number], filled(60, number));
                self.append(core, WalOperation::Put { key, value })
            }),
            Operation::Delete { core, key_bytes } => {
                self.append(core, WalOperation::Delete { key: filled(key_bytes.into(), core) })
            }
            Operation::Commit { core, sources } => {
                let mut offsets = Offsets::new();
                (0..sources).for_each(|n| offsets.set(&format!("the source {n}"), n.into()));
                let watermark = (sources % 2 == 0).then_some(7);
                self.append(core, WalOperation::Commit { offsets, watermark })
            }
            Operation::Checkpoint { core, id } => {
                self.append(core, WalOperation::Checkpoint { id: id.into() })
            }
            Operation::Barrier { core } => {
                let epoch = self.cores[self.at(core)].epoch;
                self.append(core, WalOperation::EpochBarrier { epoch })
            }
            Operation::SetEpoch { core, by } => self.set_epoch(core, by),
            Operation::Sync { core } => self.sync(core),
            Operation::StartSync { core } => self.start_sync(core),
            Operation::RunRequest { pick } => self.run_request(pick),
            Operation::DropRequest { pick } => {
                let at = usize::from(pick).checked_rem(self.requests.len());
                drop(at.map(|at| self.requests.swap_remove(at)));
                Ok(())
            }
            Operation::MarkSynced { core, pick } => self.mark_synced(core, pick),
            Operation::Truncate { core, pick } => self.truncate(core, pick),
            Operation::Reset { core } => self.reset(core),
            Operation::Retake { core, closes } => self.retake(core, closes),
            Operation::Reopen { closes, sizes } => {
                self.close(closes)?;
                self.open(sizes)
            }
            Operation::Look => self.look(),
            Operation::TryCrash { how } => self.try_crash(how),
            Operation::Kill { sizes } => {
                self.kill();
                self.open(sizes)
            }
            Operation::Crash { how, sizes } => {
                self.lose_power(Some(how))?;
                self.open(sizes)
            }
            _ => {
                self.do_to_the_machine(operation);
                Ok(())
            }
        }
    }

    fn do_to_the_machine(&mut self, operation: Operation) {
        match operation {
            Operation::RunJobs => {
                self.disk.run_jobs();
            }
            Operation::RunOneJob => {
                self.disk.run_one_job();
            }
            Operation::Wait => {
                self.disk.advance(std::time::Duration::from_secs(2));
                self.disk.run_jobs();
            }
            Operation::StepWallClock { forward } => {
                self.disk.step_wall_clock(if forward { 1 << 40 } else { -(1 << 41) });
            }
            Operation::CrashSoon { after, how } => {
                self.disk.halt_at(self.disk.operations() + u64::from(after));
                self.crash_soon = Some(how);
            }
            Operation::Fail { what, after, flags } => self.disk.inject(fault(what, after, flags)),
            _ => {}
        }
    }

    fn append(&mut self, core: u8, operation: WalOperation) -> Checked {
        let at = self.at(core);
        let max_record_bytes = self.sizes.max_record_bytes;
        let core = &mut self.cores[at];
        let epoch = core.epoch;
        let Some(writer) = &mut core.writer else { return Ok(()) };
        let result = match &operation {
            WalOperation::Put { key, value } => writer.append_put(key, value),
            WalOperation::Delete { key } => writer.append_delete(key),
            WalOperation::Checkpoint { id } => writer.append_checkpoint(*id),
            WalOperation::Commit { offsets, watermark } => {
                writer.append_commit(offsets, *watermark)
            }
            WalOperation::EpochBarrier { .. } => writer.append_epoch_barrier(),
        };
        let is_barrier = matches!(operation, WalOperation::EpochBarrier { .. });
        let bytes = payload_bytes(&operation);
        let is_too_large = bytes > u64::from(max_record_bytes);
        match result {
            Ok(_) if is_too_large => Err(format!("a payload of {bytes} bytes was accepted")),
            Err(WalError::RecordTooLarge { .. }) if is_too_large => Ok(()),
            Err(error) => self.excuse(at, &error),
            Ok(position) => {
                core.is_not_poisoned("an append")?;
                let mark = MARK_RECORD_BYTES as u64;
                let is_behind = [0, mark, 2 * mark].contains(&(position - core.model.position));
                if !is_behind || (core.model.position == 0 && position != 0) {
                    return Err(format!("appended at {position}, not at {}", core.model.position));
                }
                let end = position + RECORD_HEADER_BYTES as u64 + bytes;
                core.model.append(epoch, operation, position, end);
                core.epoch += u64::from(is_barrier);
                self.highest_epoch = self.highest_epoch.max(core.epoch);
                Ok(())
            }
        }
    }

    fn set_epoch(&mut self, core: u8, by: u8) -> Checked {
        let at = self.at(core);
        let core = &mut self.cores[at];
        let Some(writer) = &mut core.writer else { return Ok(()) };
        // One choice is a step back.
        let epoch = if by == 7 { core.epoch.wrapping_sub(1) } else { core.epoch + u64::from(by) };
        if epoch == u64::MAX {
            return Ok(());
        }
        match writer.set_epoch(epoch) {
            Ok(()) if epoch >= core.epoch => {
                core.epoch = epoch;
                self.highest_epoch = self.highest_epoch.max(epoch);
                Ok(())
            }
            Err(WalError::EpochRegressed { .. }) if epoch < core.epoch => Ok(()),
            result => Err(format!("from epoch {} to {epoch}: {result:?}", core.epoch)),
        }
    }

    /// Cuts before an entry, at the end, or where no record begins.
    fn truncate(&mut self, core: u8, pick: u8) -> Checked {
        let at = self.at(core);
        let model = &self.cores[at].model;
        let end = (model.entries.len(), model.position);
        let places: Vec<(usize, u64)> =
            (0..).zip(model.entries.iter().map(|known| known.position)).collect();
        let (entries, position) = choose(&places, usize::from(pick) / 4).copied().unwrap_or(end);
        match pick % 4 {
            0 if entries < end.0 => {
                let Some(writer) = &mut self.cores[at].writer else { return Ok(()) };
                match writer.truncate(position + 8) {
                    Ok(()) => Err(format!("cut at {}, inside a record", position + 8)),
                    Err(WalError::NotARecordBoundary { .. }) => {
                        self.is_synced_if_it_says_so(at);
                        Ok(())
                    }
                    Err(error) => {
                        self.is_synced_if_it_says_so(at);
                        self.excuse(at, &error)
                    }
                }
            }
            1 => self.cut(core, end, |writer| writer.truncate(end.1)),
            _ => self.cut(core, (entries, position), |writer| writer.truncate(position)),
        }
    }

    fn reset(&mut self, core: u8) -> Checked {
        let at = self.at(core);
        if self.cores[at].model.position == 0 {
            // Whether this begins a new life depends on files that the model knows nothing of.
            self.requests.retain(|(handed, _)| handed.core != at);
            self.proofs.retain(|(handed, _)| handed.core != at);
        }
        self.cut(core, (0, 0), CoreWalWriter::reset)
    }

    fn cut(
        &mut self,
        core: u8,
        (entries, position): (usize, u64),
        cut: impl FnOnce(&mut CoreWalWriter) -> Result<(), WalError>,
    ) -> Checked {
        let at = self.at(core);
        let core = &mut self.cores[at];
        let Some(writer) = &mut core.writer else { return Ok(()) };
        match cut(writer) {
            Ok(()) => {
                core.is_not_poisoned("a cut")?;
                core.cuts += u64::from(core.model.position != position);
                core.model.cut(entries, position);
                core.synced = (position, entries as u64);
                Ok(())
            }
            Err(error) => {
                core.model.doubtful_cuts.push((entries, position));
                let says = (writer.position(), writer.sequence());
                if says == (position, entries as u64) && says.0 != core.model.position {
                    // Nobody may rely on its numbers any more, and it must refuse everything.
                    core.writer = None;
                } else {
                    self.is_synced_if_it_says_so(at);
                }
                self.excuse(at, &error)
            }
        }
    }

    /// A cut syncs everything first. If the writer says that it did, that counts.
    fn is_synced_if_it_says_so(&mut self, at: usize) {
        let core = &mut self.cores[at];
        if core.writer.as_ref().is_some_and(|w| w.synced_position() == core.model.position) {
            core.is_synced();
        }
    }

    fn at(&self, core: u8) -> usize {
        usize::from(core) % self.cores.len()
    }

    /// Whether the disk refused, in this opening, what a healthy one would have done.
    fn has_failed(&self) -> bool {
        self.disk.faults_hit() > self.faults_before || self.disk.is_halted()
    }

    /// An error must have a reason, and if it is final it stays the same.
    fn excuse(&mut self, at: usize, error: &WalError) -> Checked {
        let has_failed = self.has_failed();
        let Some(core) = self.cores.get_mut(at) else { return Ok(()) };
        let is_excused = match error {
            WalError::Poisoned { core: poisoned, first } if *poisoned == core.id => {
                let known = core.first_cause.get_or_insert_with(|| first.to_string());
                if *known != first.to_string() {
                    return Err(format!("core {}: first {known}, then {first}", core.id));
                }
                has_failed
            }
            WalError::Io { .. } => has_failed,
            _ => false,
        };
        if is_excused { Ok(()) } else { Err(format!("core {}: no reason: {error}", core.id)) }
    }
}

impl Core {
    fn is_synced(&mut self) {
        self.model.ack_all();
        self.synced = (self.model.position, self.model.sequence());
    }

    fn is_not_poisoned(&self, what: &str) -> Checked {
        match &self.first_cause {
            Some(first) => Err(format!("core {}: {what}, though poisoned: {first}", self.id)),
            None => Ok(()),
        }
    }

    /// The writer says of itself what the model says.
    fn check(&self) -> Checked {
        let Some(writer) = &self.writer else { return Ok(()) };
        let says = (
            (writer.position(), writer.sequence(), writer.epoch()),
            (writer.synced_position(), writer.sequence() - writer.entries_since_sync()),
        );
        let must = ((self.model.position, self.model.sequence(), self.epoch), self.synced);
        match says == must {
            true => Ok(()),
            false => Err(format!("core {}: the writer says {says:?}, not {must:?}", self.id)),
        }
    }
}

/// What an operation takes in a record's payload, whatever the numbers of its entry are.
fn payload_bytes(operation: &WalOperation) -> u64 {
    let (epoch, sequence, core_id, timestamp_ns) = (0, 0, 0, 0);
    let operation = operation.borrowed();
    let entry = wal_entry::EntryRef { epoch, sequence, core_id, timestamp_ns, operation };
    entry.archived_bytes() as u64
}

/// Bytes that differ from place to place.
fn filled(length: usize, salt: u8) -> Vec<u8> {
    (0..251).cycle().map(|step| salt.wrapping_add(step)).take(length).collect()
}
