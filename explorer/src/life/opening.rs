//! Opening and closing the log, and handing its writers around.

use std::sync::Arc;

use wal_recovery::Recovery;
use wal_sim::OperationKind;
use wal_storage::{Storage, WalError};
use wal_writer::{CoreSelection, CoreWalWriter, Wal};

use super::Life;
use crate::Checked;
use crate::look::{Found, look};
use crate::workload::{Ending, Pick, Shape, draw_shape};

impl Life<'_> {
    /// Opens the log that is on the machine; `settled` if all of it is durable.
    pub(super) fn open(&mut self, shape: Shape, settled: bool) -> Checked {
        // As after a kill, so that nothing is left of whoever looks.
        let found = look(&self.machine.kill(), &self.oracle, &[])?;
        self.open_found(&found, shape, settled)
    }

    pub(super) fn open_found(&mut self, found: &Found, shape: Shape, settled: bool) -> Checked {
        if settled {
            // Opening changes nothing of it, wherever it is cut off.
            self.oracle.go_on_from(&found.cores);
        }
        self.is_opening = true;
        self.faults_before = self.machine.faults_hit();
        self.machine.set_tracing(!self.faults.is_empty());
        let (cores, options) = draw_shape(shape);
        self.max_record_bytes = u64::from(options.max_record_bytes);
        loop {
            let storage: Arc<dyn Storage> = Arc::new(self.witnessed.clone());
            let opened = Wal::open(storage, options.clone(), CoreSelection::First(cores));
            self.called(&[])?;
            match opened {
                Ok((wal, recovery)) => {
                    self.is_open(wal, &recovery, found)?;
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

    fn is_open(&mut self, wal: Wal, recovery: &Recovery, found: &Found) -> Checked {
        self.log_was_made = true;
        let (report, expected) = (recovery.report(), &found.log.report);
        if report.cores != expected.cores {
            return Err(format!("recovery gave {expected}, opening for writing {report}"));
        }
        // What is recovered is durable from here on.
        self.oracle.go_on_from(&found.cores);
        let floor = self.oracle.epoch_floor();
        if floor.is_some_and(|floor| wal.epoch() <= floor) {
            return Err(format!(
                "the log goes on with epoch {}, though it has reached {floor:?}",
                wal.epoch()
            ));
        }
        self.machine.set_tracing(false);
        self.openings += 1;
        self.cuts.clear();
        self.poisoned.borrow_mut().clear();
        let cores = 0..u16::try_from(wal.core_count()).unwrap_or(u16::MAX);
        self.witnessed.watch(cores.filter_map(|core| wal.watch(core).ok()).collect());
        self.wal = Some(wal);
        Ok(())
    }

    /// An opening failed. If there was a reason, it goes away, and the same process tries again:
    /// everything that was acked must still be there, and nothing is in the way any more.
    fn opening_failed(&mut self, error: &WalError, shape: Shape) -> Checked {
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
        let cores = self.wal.as_ref().map_or(0, Wal::core_count);
        (0..u16::try_from(cores).unwrap_or(u16::MAX)).try_for_each(|core| self.take_writer(core))
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
        let is_closing = matches!(ending, Ending::Closing);
        let cores = self.wal.as_ref().map_or(0, Wal::core_count);
        let mut is_clean = true;
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
        if is_clean && !self.has_failed() {
            for core in 0..u16::try_from(cores).unwrap_or(u16::MAX) {
                self.oracle.core(core).ack_all();
            }
        }
        self.requests.clear();
        self.proofs.clear();
        self.every_ticket_is_settled()?;
        self.called(&[])
    }

    pub(super) fn share(&mut self, core: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        if let Some(writer) = self.writers.remove(&core) {
            self.shared.insert(core, vec![writer.into_shared()]);
        }
        Ok(())
    }

    pub(super) fn clone_shared(&mut self, core: Pick) -> Checked {
        if let Some(handles) = self.sharing_core(core).and_then(|core| self.shared.get_mut(&core)) {
            let copy = handles.first().cloned();
            handles.extend(copy);
        }
        Ok(())
    }

    pub(super) fn drop_shared(&mut self, core: Pick) -> Checked {
        if let Some(handles) = self.sharing_core(core).and_then(|core| self.shared.get_mut(&core))
            && handles.len() > 1
        {
            handles.pop();
        }
        Ok(())
    }

    pub(super) fn unshare(&mut self, core: Pick) -> Checked {
        let Some(core) = self.sharing_core(core) else {
            return Ok(());
        };
        self.shared.remove(&core);
        self.called(&[])?;
        self.take_writer(core)
    }

    pub(super) fn give_back(&mut self, core: Pick, closing: bool) -> Checked {
        let Some(core) = self.writing_core(core) else {
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
