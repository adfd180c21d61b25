//! The beginnings and ends of processes, and looking at a log from outside.

use laminar_wal::{EndingKind, WalOptions};
use wal_recovery::{RecoveredLog, RecoveryMode, recover};
use wal_sim::{CrashPlan, OperationKind, SimStorage};

use super::Run;
use crate::append_crash_recover::Checked;
use crate::append_crash_recover::model::Recovered;
use crate::append_crash_recover::operations::How;
use crate::disk::{changes, storage};

/// How large segments, batches and records may be: all tiny, so that they are full all the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    segment_bytes: u64,
    batch_bytes: usize,
    pub(super) max_record_bytes: u32,
}

impl Sizes {
    pub(super) const fn of(choice: u8) -> Self {
        Self {
            // From one block of ordinary entries to a few dozen.
            segment_bytes: match choice & 3 {
                0 => 24 * 1024,
                1 => 36 * 1024,
                2 => 64 * 1024,
                _ => 128 * 1024,
            },
            batch_bytes: if choice & 4 == 0 { 4096 } else { 8192 },
            max_record_bytes: if choice & 8 == 0 { 8192 } else { 2048 },
        }
    }
}

/// What recovery found.
struct Found {
    log: RecoveredLog,
    cores: Vec<Recovered>,
}

impl Run {
    /// Opens the log, again if that fails for a reason, and takes all writers.
    pub(in crate::append_crash_recover) fn open(&mut self, sizes: u8) -> Checked {
        self.sizes = Sizes::of(sizes);
        loop {
            // As after a kill, so that no fault and no halt waits for whoever looks.
            let found = self.found_on(&self.disk.kill())?;
            self.opening += 1;
            self.faults_before = self.disk.faults_hit();
            self.disk.set_tracing(true);
            let Sizes { segment_bytes, batch_bytes, max_record_bytes } = self.sizes;
            let cores = u16::try_from(self.cores.len()).unwrap_or(u16::MAX);
            let opened = WalOptions::on_storage(storage(&self.disk))
                .cores(cores)
                .segment_bytes(segment_bytes)
                .batch_bytes(batch_bytes)
                .in_flight_bytes(2 * batch_bytes)
                .max_record_bytes(max_record_bytes)
                .open();
            let trace = self.disk.take_trace();
            self.disk.set_tracing(false);
            let (wal, recovery) = match opened {
                Ok(opened) => opened,
                Err(error) if self.has_failed() => {
                    drop(error);
                    self.disk.clear_faults();
                    let last = trace.last();
                    // The names of the log's parts may be lost for good, though every process
                    // sees them: nobody may go on before the disk is mounted anew.
                    let is_unmounted = last.is_some_and(|last| {
                        last.kind == OperationKind::SyncDirectory && last.name.is_empty()
                    });
                    if is_unmounted || self.disk.is_halted() {
                        let how = self.crash_soon.take();
                        self.lose_power(how)?;
                    } else {
                        self.kill();
                    }
                    continue;
                }
                Err(error) => return Err(format!("opening failed without a reason: {error}")),
            };
            if recovery.report().cores != found.log.report.cores {
                return Err(format!("read {}, opened {}", found.log.report, recovery.report()));
            }
            self.check_epoch(wal.epoch())?;
            self.goes_on_from(&found, wal.epoch());
            self.wal = Some(wal);
            return (0..self.cores.len()).try_for_each(|at| self.take_writer(at));
        }
    }

    fn goes_on_from(&mut self, found: &Found, epoch: u64) {
        for (core, found) in self.cores.iter_mut().zip(&found.cores) {
            core.model.go_on_from(found);
            (core.epoch, core.cuts, core.first_cause) = (epoch, 0, None);
        }
    }

    /// An opening begins with the epoch behind the highest; what was acked is known for certain.
    fn check_epoch(&self, epoch: u64) -> Checked {
        let known = self.cores.iter().filter_map(|core| core.model.floor).map(|(epoch, _)| epoch);
        let lowest = known.max().map_or(0, |highest| highest + 1);
        match (lowest..=self.highest_epoch + 1).contains(&epoch) {
            true => Ok(()),
            false => Err(format!("it opens with epoch {epoch}, and {lowest} is the lowest")),
        }
    }

    /// Lets go of the log: closed in order, or dropped, the log before its writers.
    pub(super) fn close(&mut self, in_order: bool) -> Checked {
        let wal = self.wal.take();
        let mut is_clean = true;
        if in_order {
            for at in 0..self.cores.len() {
                let closed = self.cores[at].writer.take().map(laminar_wal::CoreWalWriter::close);
                if let Some(Err(error)) = closed {
                    is_clean = false;
                    self.excuse(at, &error)?;
                }
            }
            if let Some(Err(error)) = wal.map(laminar_wal::Wal::close) {
                is_clean = false;
                let poisoned = match &error {
                    laminar_wal::WalError::Poisoned { core, .. } => usize::from(*core),
                    _ => 0,
                };
                self.excuse(poisoned, &error)?;
            }
        } else {
            drop(wal);
            self.cores.iter_mut().for_each(|core| core.writer = None);
        }
        if !self.has_failed() {
            if !is_clean {
                return Err("closing failed on a healthy disk".to_owned());
            }
            self.cores.iter_mut().for_each(|core| core.model.ack_all());
            let found = self.found_on(&self.disk.kill())?;
            for (report, core) in found.log.report.cores.iter().zip(&self.cores) {
                let is_closed = report.ending.kind == EndingKind::Closed;
                if !is_closed && !core.model.entries.is_empty() {
                    return Err(format!("after a clean close: {report}"));
                }
            }
        }
        Ok(())
    }

    /// The process ends here; what it wrote is still in the page cache.
    pub(super) fn kill(&mut self) {
        self.becomes(self.disk.kill());
    }

    pub(super) fn lose_power(&mut self, how: Option<How>) -> Checked {
        let plan = how.map_or(CrashPlan::lose_everything_unsynced(), How::plan);
        let after = self.disk.crash(plan);
        self.becomes(after);
        Ok(())
    }

    fn becomes(&mut self, machine: SimStorage) {
        self.disk.halt();
        self.wal = None;
        self.cores.iter_mut().for_each(|core| core.writer = None);
        self.requests.clear();
        self.disk.forget_jobs();
        self.disk = machine;
        self.crash_soon = None;
    }

    /// Recovers beside the writers, which must change nothing.
    pub(super) fn look(&self) -> Checked {
        self.found_on(&self.disk.kill()).map(drop)
    }

    pub(super) fn try_crash(&self, how: How) -> Checked {
        self.found_on(&self.disk.crash(how.plan())).map(drop)
    }

    /// Whatever was acked survives the worst, and the log can be gone on with.
    pub(in crate::append_crash_recover) fn end(mut self) -> Checked {
        self.disk.halt();
        self.lose_power(None)?;
        self.open(0)?;
        self.kill();
        self.look()
    }

    /// What recovery gives on a machine, checked against the models.
    fn found_on(&self, machine: &SimStorage) -> Checked<Found> {
        let changes_before = changes(machine);
        let storage = storage(machine);
        let failed = |error| format!("recovering: {error}");
        let log = recover(&storage, RecoveryMode::TornTail).map_err(failed)?;
        let merged = log.replay(&storage).entries().map_err(failed)?;
        if changes(machine) != changes_before {
            return Err("recovering changed something".to_owned());
        }
        if !merged.is_sorted_by(|a, b| a.replay_order() < b.replay_order()) {
            return Err(format!("merged in another order than that of replay: {merged:?}"));
        }
        let mut cores = vec![Recovered::default(); self.cores.len()];
        for core in &log.cores {
            let Some(recovered) = cores.get_mut(usize::from(core.core)) else {
                return Err(format!("core {} was found, and never logged", core.core));
            };
            recovered.end_position = core.end_position;
            recovered.next_sequence = core.next_sequence;
        }
        for entry in merged {
            match cores.get_mut(usize::from(entry.core_id)) {
                Some(recovered) => recovered.entries.push(entry),
                None => return Err(format!("of an unknown core: {entry:?}")),
            }
        }
        for (core, recovered) in self.cores.iter().zip(&cores) {
            let checked = core.model.check(recovered);
            checked.map_err(|what| format!("core {}: {what}\n{}", core.id, log.report))?;
        }
        Ok(Found { log, cores })
    }
}
