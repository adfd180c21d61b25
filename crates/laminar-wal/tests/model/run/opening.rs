//! The beginnings and ends of processes: opening, killing, power loss, and these in each other.

use std::time::Duration;

use laminar_wal::{GroupCommit, Recovery, Wal, WalError};
use wal_format::Membership;
use wal_sim::OperationKind;
use wal_writer::{CoreSelection, CoreWalWriter, LogOptions};

use super::looking::{Found, entries_of_each_core};
use super::{OpenLog, Run, Writer};
use crate::Checked;
use crate::disk::{Disk, crash_plan};
use crate::operations::{Era, Pick, Random, Shape};
use crate::oracle::CoreModel;

/// A directory may hold the log of this one core alone.
const SINGLE_CORE: u16 = 3;

impl Run {
    /// Opens the log, again and again until it can be, and takes all writers.
    pub(super) fn open(&mut self, shape: Shape) -> Checked {
        loop {
            let found = Found::on(&self.disk.frozen())?;
            self.check_found(&found)?;
            let (selection, options) = draw(shape, newest_membership(&found), self.era);
            self.refuses_what_is_not_there(&found, &options)?;
            self.openings += 1;
            if let Some(machine) = self.disk.simulation() {
                machine.set_tracing(true);
            }
            match self.open_as(selection, &options) {
                Ok((wal, writer, recovery)) => {
                    return self.is_open(wal, writer, &recovery, &found, options);
                }
                Err(error) => self.opening_failed(&error, shape)?,
            }
        }
    }

    /// Power fails, or the process dies, and then power fails again and again while the log is
    /// opened.
    pub(super) fn crash_while_opening(
        &mut self,
        kill_first: bool,
        after: [u64; 3],
        plan: Pick,
        shape: Shape,
    ) -> Checked {
        match kill_first {
            true => self.kill()?,
            false => self.lose_power(plan)?,
        }
        let mut nothing_is_pending = !kill_first;
        let mut random = Random::new(plan);
        for after in after {
            let found = Found::on(&self.disk.frozen())?;
            self.check_found(&found)?;
            let (selection, options) = draw(random.next(), newest_membership(&found), self.era);
            if let Some(machine) = self.disk.simulation() {
                machine.halt_at(machine.operations() + after);
            }
            self.openings += 1;
            let opened = self.open_as(selection, &options);
            match opened {
                Ok(opened) => {
                    self.log_was_made = true;
                    self.goes_on_from(&found)?;
                    drop(opened);
                }
                Err(_) if self.disk.is_halted() => {}
                Err(WalError::StorageFull { .. }) if self.disk_is_full && !self.log_was_made => {}
                Err(error) => return Err(format!("opening failed without a reason: {error}")),
            }
            self.lose_power(random.next())?;
            let again = Found::on(&self.disk.frozen())?;
            if nothing_is_pending && !is_same(&found, &again) {
                return Err(format!(
                    "an opening that was cut off changed what is recovered: {}\n{}",
                    found.log.report, again.log.report
                ));
            }
            nothing_is_pending = true;
        }
        self.open(shape)
    }

    /// Opening a log that is open is refused, and changes nothing.
    pub(super) fn open_again(&mut self) -> Checked {
        if self.has_failed() {
            // A poisoned log lets go of its directory.
            return Ok(());
        }
        let before = self.disk.fingerprint();
        let options = self.log().options.clone();
        match Wal::open(self.disk.storage(), options, CoreSelection::First(2)) {
            Err(WalError::Locked { .. }) if self.disk.fingerprint() == before => Ok(()),
            result => Err(format!("opening a log that is open: {result:?}")),
        }
    }

    /// The process ends here; what it wrote is still in the page cache.
    pub(super) fn kill(&mut self) -> Checked {
        self.replace_machine(|machine| machine.kill())
    }

    /// The power fails here.
    pub(super) fn lose_power(&mut self, plan: Pick) -> Checked {
        self.try_crashes(plan.wrapping_add(1))?;
        self.replace_machine(|machine| machine.crash(crash_plan(plan)))
    }

    /// The end of a run: whatever was acked survives the worst.
    pub(super) fn end(mut self) -> Checked {
        let Some(machine) = self.disk.simulation() else {
            return self.close(crate::operations::Ending::WritersThenLog);
        };
        machine.halt();
        self.try_crashes(0)?;
        self.kill()?;
        self.open(0)?;
        self.lose_power(0)
    }

    fn replace_machine(
        &mut self,
        after: impl FnOnce(&wal_sim::SimStorage) -> wal_sim::SimStorage,
    ) -> Checked {
        let Some(machine) = self.disk.simulation() else {
            return Ok(());
        };
        let next = after(machine);
        machine.halt();
        let dead = machine.clone();
        self.log = None;
        self.requests.clear();
        self.tickets.clear();
        dead.forget_jobs();
        self.disk = Disk::Simulated(next);
        self.crash_soon = None;
        Ok(())
    }

    fn open_as(
        &self,
        selection: CoreSelection,
        options: &LogOptions,
    ) -> Result<(Option<Wal>, Option<CoreWalWriter>, Recovery), WalError> {
        let storage = self.disk.storage();
        match selection {
            CoreSelection::One(core) => {
                let (writer, recovery) =
                    CoreWalWriter::with_storage(core, storage, options.clone())?;
                Ok((None, Some(writer), recovery))
            }
            CoreSelection::First(_) => {
                let (wal, recovery) = Wal::open(storage, options.clone(), selection)?;
                Ok((Some(wal), None, recovery))
            }
        }
    }

    /// An opening failed. If there was a reason, it goes away here.
    fn opening_failed(&mut self, error: &WalError, shape: Shape) -> Checked {
        if self.disk.is_halted() {
            let (plan, _) = self.crash_soon.take().unwrap_or((0, 0));
            return self.lose_power(plan);
        }
        let Some(machine) = self.disk.simulation() else {
            return Err(format!("opening failed: {error}"));
        };
        if error.is_storage_full() && self.disk_is_full && !self.log_was_made {
            machine.set_free_bytes(None);
            self.disk_is_full = false;
            return Ok(());
        }
        if machine.faults_hit() == 0 {
            return Err(format!("opening failed without a reason: {error}"));
        }
        machine.clear_faults();
        let last = machine.take_trace().pop();
        if last
            .is_some_and(|last| last.kind == OperationKind::SyncDirectory && last.name.is_empty())
        {
            // The names of the log's parts may be lost for good, though every process sees them,
            // and nothing that can be asked of a storage would bring them back. File systems that
            // fail to write a directory let nobody go on before they are mounted anew.
            return self.lose_power(0);
        }
        // Half of the time the same process tries again.
        if shape.is_multiple_of(2) { self.kill() } else { Ok(()) }
    }

    fn is_open(
        &mut self,
        wal: Option<Wal>,
        writer: Option<CoreWalWriter>,
        recovery: &Recovery,
        found: &Found,
        options: LogOptions,
    ) -> Checked {
        self.log_was_made = true;
        let (report, expected) = (recovery.report(), &found.log.report);
        if (report.manifest_number, &report.cores) != (expected.manifest_number, &expected.cores) {
            return Err(format!(
                "recovery gave {}, opening for writing {}",
                found.log.report,
                recovery.report()
            ));
        }
        match entries_of_each_core(recovery, &found.log) {
            Ok(cores) if cores == found.cores => {}
            Err(_) if self.disk.has_failed() => {}
            Ok(_) => return Err("opening for writing gave other entries than recovery".to_owned()),
            Err(what) => return Err(what),
        }
        self.goes_on_from(found)?;
        let faults_before = self.disk.simulation().map_or(0, wal_sim::SimStorage::faults_hit);
        let epochs = self.epochs(writer.as_ref().map(CoreWalWriter::core_id));
        let epoch =
            wal.as_ref().map(Wal::epoch).or_else(|| writer.as_ref().map(CoreWalWriter::epoch));
        if !epoch.is_some_and(|epoch| epochs.contains(&epoch)) {
            return Err(format!("the log goes on with epoch {epoch:?}, expected was {epochs:?}"));
        }
        let cores = wal.as_ref().map_or(0, Wal::core_count);
        let first_epoch = wal.as_ref().map_or(0, Wal::epoch);
        self.log = Some(OpenLog {
            wal,
            first_epoch,
            writers: std::collections::BTreeMap::new(),
            shared: std::collections::BTreeMap::new(),
            asked: std::collections::BTreeMap::new(),
            options,
            first_causes: std::collections::BTreeMap::new(),
            cuts: std::collections::BTreeMap::new(),
            faults_before,
        });
        for core in 0..u16::try_from(cores).unwrap_or(u16::MAX) {
            self.take_writer(core)?;
        }
        if let Some(writer) = writer {
            let core = writer.core_id();
            let epoch = writer.epoch();
            let model = self.model(core);
            let (synced_position, synced_sequence) = (model.position, model.sequence());
            let submitted = (model.entries.len(), model.position);
            let writer = Writer { writer, epoch, synced_position, synced_sequence, submitted };
            self.log_mut().writers.insert(core, writer);
        }
        self.check_writers()
    }

    /// Everything recovered counts as acked: the opening has made it durable.
    fn goes_on_from(&mut self, found: &Found) -> Checked {
        for core in found.cores.keys() {
            self.model(*core);
        }
        let mut models = self.cores.values_mut();
        models.try_for_each(|model| model.go_on_from(found.core(model.core)))
    }

    /// The epochs that an opening may begin with: for all cores the one behind the highest, for a
    /// core alone the highest, unless that core has left it by a barrier.
    fn epochs(&self, alone: Option<u16>) -> std::ops::RangeInclusive<u64> {
        let models = self.cores.values();
        let floor = models.clone().filter_map(CoreModel::epoch_floor).max();
        let may_reach = models.filter_map(|model| model.epoch_may_reach).max();
        let alone = alone.and_then(|core| self.cores.get(&core)).map(CoreModel::open_epoch);
        let behind = |epoch| alone.map_or(epoch + 1, |open_epoch| open_epoch.max(epoch));
        // A log of which only a start is left is not empty, and nobody says what it is.
        floor.map_or(0, behind)..=behind(floor.max(may_reach).unwrap_or(0))
    }

    /// A directory of several cores, or of another one, is not opened for one core alone.
    fn refuses_what_is_not_there(&self, found: &Found, options: &LogOptions) -> Checked {
        let Some(members) = newest_membership(found) else {
            return Ok(());
        };
        let other = if members.core_count == 1 { members.first_core + 1 } else { 0 };
        if self.random.clone().chance(80) || self.has_failed() || self.disk.simulation().is_none() {
            return Ok(());
        }
        let fork = self.disk.frozen();
        let before = fork.fingerprint();
        match CoreWalWriter::with_storage(other, fork.storage(), options.clone()) {
            Err(WalError::InvalidArgument { .. }) if fork.fingerprint() == before => Ok(()),
            result => Err(format!("core {other} of {members:?} was opened alone: {result:?}")),
        }
    }
}

fn is_same(found: &Found, again: &Found) -> bool {
    let cores = found.cores.keys().chain(again.cores.keys());
    cores.into_iter().all(|&core| found.core(core) == again.core(core))
}

fn newest_membership(found: &Found) -> Option<Membership> {
    found.log.manifest.as_ref()?.members.last().copied()
}

/// For which cores and with which sizes a log is opened. All sizes are tiny, so that segments
/// end, buffers fill and records do not fit all the time.
fn draw(shape: Shape, members: Option<Membership>, era: Era) -> (CoreSelection, LogOptions) {
    let mut random = Random::new(shape);
    let batch_bytes = random.pick([4096, 8192, 16_384]);
    let mut options = LogOptions {
        segment_bytes: random.pick([24 * 1024, 28 * 1024, 32 * 1024, 64 * 1024]),
        max_record_bytes: random.pick([4096, 12_288, 40_960, 65_536]),
        batch_bytes,
        in_flight_bytes: 2 * batch_bytes,
        ..LogOptions::default()
    };
    if era == Era::Now {
        let mut random = Random::new(!shape);
        options.in_flight_bytes = batch_bytes * random.pick([2, 2, 2, 3, 5]);
        options.group_commit = GroupCommit {
            // A thread that waits does wait so long.
            max_delay: Duration::from_micros(random.pick([0, 0, 0, 0, 50])),
            max_bytes: random.pick([u64::MAX, 0, 3000]),
            max_entries: random.pick([u64::MAX, 1, 5]),
        };
    }
    let alone = random.chance(30);
    let cores = u16::try_from(1 + random.below(4)).unwrap_or(1);
    let selection = match members {
        None if alone => CoreSelection::One(SINGLE_CORE),
        // Mostly the same core again, or all directories of one core would end up as others.
        Some(members) if members.core_count == 1 && (alone || random.chance(60)) => {
            CoreSelection::One(members.first_core)
        }
        _ => CoreSelection::First(cores),
    };
    (selection, options)
}
