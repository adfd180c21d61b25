//! Opening and closing the log, and handing its writers around.

use std::sync::Arc;

use wal_format::Membership;
use wal_recovery::{CoreReport, EndingKind, Recovery, RecoveryMode, recover};
use wal_sim::OperationKind;
use wal_storage::{Storage, WalError};
use wal_writer::{CoreSelection, CoreWalWriter, Wal};

use super::Life;
use crate::Checked;
use crate::look::{Found, changed_nothing, look, look_strictly};
use crate::workload::{Ending, Opening, Pick, Shape, draw_shape};

/// A log that was opened, as a whole or as the writer of its one core.
pub(super) struct Opened {
    pub(super) wal: Option<Wal>,
    pub(super) writer: Option<CoreWalWriter>,
    pub(super) selection: CoreSelection,
    pub(super) cores: Vec<u16>,
    pub(super) epoch: u64,
    pub(super) recovery: Recovery,
}

impl Life<'_> {
    /// Opens the log that is on the machine; `settled` if all of it is durable.
    pub(super) fn open(&mut self, shape: Shape, settled: bool) -> Checked {
        // As after a kill, so that nothing is left of whoever looks.
        let found = look(&self.frozen()?, &self.oracle, &[])?;
        let again = look(&self.frozen()?, &self.oracle, &[])?;
        if found.log != again.log {
            let (found, again) = (found.log.report, again.log.report);
            return Err(format!("recovered once: {found}\nand again: {again}"));
        }
        look_strictly(&self.frozen()?, &found)?;
        self.open_found(&found, shape, settled)
    }

    pub(super) fn open_found(&mut self, found: &Found, shape: Shape, settled: bool) -> Checked {
        if settled {
            // Opening changes nothing of it, wherever it is cut off.
            self.go_on_from(found);
        }
        let (opening, selection) = self.begin_opening(found, shape);
        let members = found.log.manifest.as_ref().and_then(|manifest| manifest.members.last());
        self.one_of_several_is_refused(members.copied(), &opening)?;
        loop {
            let opened = self.open_as(selection, &opening);
            self.called(&[])?;
            match opened {
                Ok(opened) => {
                    self.is_open(opened, &opening, found)?;
                    break;
                }
                Err(WalError::StorageFull { .. }) if self.disk_is_full && !self.log_was_made => {
                    self.machine.set_free_bytes(None);
                    self.disk_is_full = false;
                }
                Err(error) => return self.opening_failed(&error, shape),
            }
        }
        self.is_opening = false;
        self.take_all_writers()
    }

    pub(super) fn begin_opening(
        &mut self,
        found: &Found,
        shape: Shape,
    ) -> (Opening, CoreSelection) {
        self.is_opening = true;
        self.faults_before = self.machine.faults_hit();
        self.machine.set_tracing(!self.faults.is_empty());
        let opening = draw_shape(shape);
        self.max_record_bytes = u64::from(opening.options.max_record_bytes);
        self.max_delay = opening.options.group_commit.max_delay;
        let members = found.log.manifest.as_ref().and_then(|manifest| manifest.members.last());
        let selection = opening.selection(members.copied());
        (opening, selection)
    }

    fn open_as(&self, selection: CoreSelection, opening: &Opening) -> Result<Opened, WalError> {
        let storage = self.storage()?;
        let options = opening.options.clone();
        Ok(match selection {
            CoreSelection::One(core) if opening.writer_alone => {
                let (writer, recovery) = CoreWalWriter::with_storage(core, storage, options)?;
                let epoch = writer.epoch();
                Opened {
                    wal: None,
                    writer: Some(writer),
                    selection,
                    cores: vec![core],
                    epoch,
                    recovery,
                }
            }
            CoreSelection::One(core) => {
                let (wal, recovery) = Wal::open(storage, options, selection)?;
                let epoch = wal.epoch();
                Opened {
                    wal: Some(wal),
                    writer: None,
                    selection,
                    cores: vec![core],
                    epoch,
                    recovery,
                }
            }
            CoreSelection::First(count) => {
                let (wal, recovery) = Wal::open(storage, options, selection)?;
                let (cores, epoch) = ((0..count).collect(), wal.epoch());
                Opened { wal: Some(wal), writer: None, selection, cores, epoch, recovery }
            }
        })
    }

    pub(super) fn is_open(&mut self, opened: Opened, opening: &Opening, found: &Found) -> Checked {
        let Opened { wal, writer, selection, cores, epoch, recovery } = opened;
        self.log_was_made = true;
        let (report, expected) = (recovery.report(), &found.log.report);
        if report.cores != expected.cores {
            return Err(format!("recovery gave {expected}, opening for writing {report}"));
        }
        // What is recovered is durable from here on.
        self.go_on_from(found);
        let epochs = self.oracle.epochs_to_go_on_with(matches!(selection, CoreSelection::One(_)));
        if !epochs.contains(&epoch) {
            return Err(format!(
                "promise 6: the log goes on with epoch {epoch}, and not one of {epochs:?}"
            ));
        }
        self.machine.set_tracing(false);
        self.openings += 1;
        self.cuts.clear();
        self.submitted.clear();
        self.poisoned.borrow_mut().clear();
        let watches = cores.iter().filter_map(|&core| match (&wal, &writer) {
            (Some(wal), _) => wal.watch(core).ok(),
            (None, writer) => writer.as_ref().map(CoreWalWriter::watch),
        });
        self.witnessed.watch(watches.collect());
        self.keep_replay(recovery, opening, &found.cores);
        self.open_cores = cores;
        self.wal = wal;
        match writer {
            Some(writer) => self.is_taken(writer.core_id(), writer),
            None => Ok(()),
        }
    }

    pub(super) fn go_on_from(&mut self, found: &Found) {
        self.oracle = self.oracle.after(found);
    }

    /// A directory of several cores, or of another one, is not opened for one core alone, and
    /// nothing changes.
    fn one_of_several_is_refused(&self, members: Option<Membership>, opening: &Opening) -> Checked {
        let Some(members) = members.filter(|_| opening.keeps_replay) else {
            return Ok(());
        };
        let other = if members.core_count == 1 { members.first_core + 1 } else { 0 };
        let machine = self.frozen()?;
        let storage: Arc<dyn Storage> = Arc::new(machine.clone());
        let refused = Wal::open(storage, opening.options.clone(), CoreSelection::One(other));
        match refused {
            Err(WalError::InvalidArgument { .. }) => changed_nothing(&machine),
            Err(error) => Err(format!("core {other} of {members:?} alone: {error}")),
            Ok(_) => Err(format!("core {other} of {members:?} was opened alone")),
        }
    }

    /// An opening failed. If there was a reason, it goes away, and the same process tries again:
    /// everything that was acked must still be there, and nothing is in the way any more.
    pub(super) fn opening_failed(&mut self, error: &WalError, shape: Shape) -> Checked {
        if !self.has_failed() {
            return Err(format!("opening failed without a reason: {error}"));
        }
        self.machine.clear_faults();
        let last = self.machine.take_trace().pop();
        if last
            .is_some_and(|last| last.kind == OperationKind::SyncDirectory && last.name.is_empty())
        {
            // The names of the log's parts may be lost for good, though every process sees them,
            // and nothing that can be asked of a storage would bring them back. File systems that
            // fail to write a directory let nobody go on before they are mounted anew.
            self.is_over = true;
            return Ok(());
        }
        self.open(shape, false).map_err(|what| format!("opening again behind {error}: {what}"))
    }

    pub(super) fn take_all_writers(&mut self) -> Checked {
        let cores = self.open_cores.clone();
        cores.into_iter().try_for_each(|core| self.take_writer(core))
    }

    fn take_writer(&mut self, core: u16) -> Checked {
        let Some(wal) = &self.wal else {
            return Ok(());
        };
        match wal.writer(core) {
            Ok(writer) => self.is_taken(core, writer),
            Err(error) => self.excuse(&error),
        }
    }

    /// What an earlier writer left is durable when the next one is there.
    fn is_taken(&mut self, core: u16, writer: CoreWalWriter) -> Checked {
        self.oracle.core(core).ack_all();
        self.writers.insert(core, writer);
        self.called(&[])
    }

    pub(super) fn close(&mut self, ending: Ending) -> Checked {
        let is_closing = matches!(ending, Ending::Closing | Ending::LogFirst { closing: true });
        let mut is_clean = true;
        if let (Ending::LogFirst { closing }, Some(wal)) = (ending, self.wal.take()) {
            self.close_log_first(wal, closing)?;
        }
        for (core, writer) in std::mem::take(&mut self.writers) {
            if !is_closing {
                drop(writer);
                continue;
            }
            match writer.close() {
                Ok(()) => self.oracle.core(core).ack_all(),
                Err(error) => {
                    is_clean = false;
                    self.excuse(&error)?;
                }
            }
            self.called(&[])?;
        }
        self.shared.clear();
        self.witnessed.watch(Vec::new());
        match self.wal.take() {
            Some(wal) if is_closing => {
                if let Err(error) = wal.close() {
                    is_clean = false;
                    self.excuse(&error)?;
                }
            }
            wal => drop(wal),
        }
        self.called(&[])?;
        let cores = std::mem::take(&mut self.open_cores);
        if is_clean && !self.has_failed() {
            cores.iter().for_each(|&core| self.oracle.core(core).ack_all());
        }
        self.every_ticket_is_settled()?;
        self.called(&[])?;
        if is_clean && !self.has_failed() && !self.disk_is_full && !self.is_over {
            self.is_known_to_be_closed(&cores)?;
        }
        Ok(())
    }

    /// The log goes before its writers: each core is closed when its writer comes back, and until
    /// then goes on as before.
    fn close_log_first(&mut self, wal: Wal, closing: bool) -> Checked {
        let are_out = !self.writers.is_empty() || !self.shared.is_empty();
        if closing {
            match wal.close() {
                Ok(()) if !are_out => {}
                Err(WalError::WriterTaken { .. }) if are_out => {}
                Ok(()) => return Err("the log was closed under its writers".to_owned()),
                Err(error) => self.excuse(&error)?,
            }
        } else {
            drop(wal);
        }
        self.called(&[])?;
        let out: Vec<u16> = self.writers.keys().chain(self.shared.keys()).copied().collect();
        for pick in 0..out.len() as u64 {
            self.put(pick, 5, 40)?;
            if pick.is_multiple_of(2) {
                self.sync(pick)?;
                self.called(&[])?;
            }
        }
        Ok(())
    }

    /// A log that was closed is whole and says so, to whoever is strict too. Cores that log no more
    /// stay as they were when they last did.
    fn is_known_to_be_closed(&self, cores: &[u16]) -> Checked {
        let storage: Arc<dyn Storage> = Arc::new(self.frozen()?);
        let log = recover(&storage, RecoveryMode::TornTail)
            .map_err(|error| format!("after a clean close: {error}"))?;
        let mut reports = log.report.cores.iter().filter(|report| cores.contains(&report.core));
        let is_empty = |core| self.oracle.cores.get(&core).is_none_or(|core| core.position == 0);
        // Where nothing was written since all of a log was cut away, nothing can say so.
        let is_unwritten = |it: &CoreReport| is_empty(it.core) || it.segments == 0;
        match reports.find(|it| it.ending.kind != EndingKind::Closed && !is_unwritten(it)) {
            Some(report) => Err(format!("after a clean close: {report}")),
            None => Ok(()),
        }
    }

    pub(super) fn share(&mut self, core: Pick, by_dropping: bool) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        let Some(writer) = self.writers.remove(&core) else {
            return Ok(());
        };
        let Some(wal) = self.wal.as_ref().filter(|_| by_dropping) else {
            self.shared.insert(core, vec![writer.into_shared()]);
            return Ok(());
        };
        drop(writer);
        let shared = wal.shared_writer(core);
        match shared {
            Ok(shared) => {
                self.shared.insert(core, vec![shared]);
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }

    pub(super) fn clone_shared(&mut self, core: Pick) -> Checked {
        let Some(core) = self.sharing_core(core) else {
            return Ok(());
        };
        // In turns from the log and from another one.
        let is_even = self.shared.get(&core).is_some_and(|handles| handles.len().is_multiple_of(2));
        let another = match &self.wal {
            Some(wal) if is_even => wal.shared_writer(core).map(Some),
            _ => Ok(self.a_shared_writer(core)),
        };
        match another {
            Ok(another) => {
                self.shared.entry(core).or_default().extend(another);
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }

    pub(super) fn drop_shared(&mut self, core: Pick) -> Checked {
        if let Some(handles) = self.sharing_core(core).and_then(|core| self.shared.get_mut(&core))
            && handles.len() > 1
        {
            handles.swap_remove(0);
        }
        Ok(())
    }

    pub(super) fn unshare(&mut self, core: Pick) -> Checked {
        // Without the log in hand nobody can be given a writer.
        let Some(core) = self.sharing_core(core).filter(|_| self.wal.is_some()) else {
            return Ok(());
        };
        self.shared.remove(&core);
        self.called(&[])?;
        self.take_writer(core)
    }

    pub(super) fn give_back(&mut self, core: Pick, closing: bool) -> Checked {
        let Some(core) = self.writing_core(core).filter(|_| self.wal.is_some()) else {
            return Ok(());
        };
        let Some(writer) = self.writers.remove(&core) else {
            return Ok(());
        };
        if closing {
            match writer.close() {
                Ok(()) => self.oracle.core(core).ack_all(),
                Err(error) => self.excuse(&error)?,
            }
        } else {
            drop(writer);
        }
        self.called(&[])?;
        self.take_writer(core)
    }

    fn sharing_core(&self, core: Pick) -> Option<u16> {
        let at = crate::random::index(core, self.shared.len())?;
        self.shared.keys().nth(at).copied()
    }
}
