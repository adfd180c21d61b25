//! Checkpoints: of all cores, or begun and given up.

use std::collections::BTreeMap;

use wal_entry::WalOperation;
use wal_storage::WalError;
use wal_writer::{CheckpointArrival, CheckpointDetails, CoreWriters, PendingCheckpoint};

use super::Life;
use crate::Checked;
use crate::oracle::{Checkpointed, record_bytes};
use crate::workload::HowCheckpointed;

impl Life<'_> {
    pub(super) fn checkpoint(&mut self, how: HowCheckpointed) -> Checked {
        let is_out = |core| self.writers.contains_key(core) || self.shared.contains_key(core);
        if !self.open_cores.iter().all(is_out) {
            return Ok(());
        }
        let Some(pending) = self.begin_checkpoint()? else {
            return Ok(());
        };
        let has_arrived = self.arrive_everywhere(&pending.arrival(), how)?;
        self.called(&[])?;
        match how {
            HowCheckpointed::GivenUp | HowCheckpointed::WithoutOne => {
                drop(pending);
                Ok(())
            }
            HowCheckpointed::Whole if !has_arrived => Ok(()),
            HowCheckpointed::Whole => self.complete(pending),
        }
    }

    /// With all writers in one hand.
    pub(super) fn checkpoint_together(&mut self, all: &mut CoreWriters) -> Checked {
        let Some(pending) = self.begin_checkpoint()? else {
            return Ok(());
        };
        let arrived = pending.arrival().arrive_all(all);
        self.barriers_were_logged(all, pending.epoch())?;
        self.called(&[])?;
        match arrived {
            Ok(()) => {
                for writer in all.iter_mut() {
                    let core = writer.core_id();
                    let end = self.oracle.core(core).end();
                    self.submitted.insert(core, end);
                }
                self.complete(pending)
            }
            Err(error) => self.excuse(&error),
        }
    }

    fn begin_checkpoint(&mut self) -> Checked<Option<PendingCheckpoint>> {
        let Some(wal) = &self.wal else {
            return Ok(None);
        };
        let id = self.random.next();
        let (epoch, begun) = (wal.epoch(), wal.begin_checkpoint(id));
        match begun {
            Ok(pending) if pending.epoch() == epoch => Ok(Some(pending)),
            Ok(pending) => Err(format!("epoch {epoch} was to be closed, not {pending:?}")),
            Err(error) => self.excuse(&error).map(|()| None),
        }
    }

    /// `false` if a core could not log its barrier.
    fn arrive_everywhere(
        &mut self,
        arrival: &CheckpointArrival,
        how: HowCheckpointed,
    ) -> Checked<bool> {
        let mut have_all = true;
        let leave_out = usize::from(matches!(how, HowCheckpointed::WithoutOne));
        for core in self.open_cores.clone().into_iter().skip(leave_out) {
            let shared = self.a_shared_writer(core);
            let arrived = match (self.writers.get_mut(&core), &shared) {
                (Some(writer), _) => arrival.arrive(writer),
                (None, Some(shared)) => arrival.arrive_shared(shared),
                (None, None) => continue,
            };
            let goes_on_at = match (self.writers.get(&core), &shared) {
                (Some(writer), _) => (writer.sequence(), writer.position()),
                (None, Some(shared)) => (shared.sequence(), shared.position()),
                (None, None) => continue,
            };
            drop(shared);
            // A barrier may have been logged, and its submitting have failed.
            let is_logged = goes_on_at.0 > self.oracle.core(core).sequence();
            let end = match &arrived {
                Ok(end) => Some(*end),
                Err(_) => is_logged.then_some(goes_on_at.1),
            };
            if let Some(end) = end {
                let epoch = arrival.epoch();
                let barrier = WalOperation::EpochBarrier { epoch };
                let record = (end.saturating_sub(record_bytes(&barrier)), end);
                self.appended(core, vec![barrier], epoch, None, record)?;
            }
            match arrived {
                Ok(_) => {
                    let end = self.oracle.core(core).end();
                    self.submitted.insert(core, end);
                }
                Err(error) => {
                    have_all = false;
                    self.excuse(&error)?;
                }
            }
            self.called(&[])?;
        }
        Ok(have_all)
    }

    fn complete(&mut self, pending: PendingCheckpoint) -> Checked {
        let (id, epoch) = (pending.id(), pending.epoch());
        let ends = self.oracle.cores.iter().map(|(&core, oracle)| (core, oracle.end()));
        let places: BTreeMap<_, _> = ends.filter(|(_, end)| end.position > 0).collect();
        let completed = pending.complete(CheckpointDetails::default());
        let checkpoint = Checkpointed { id, epoch, places };
        self.oracle.doubtful_checkpoint = Some(checkpoint.clone());
        self.called(&[])?;
        match completed {
            Ok(()) => {
                self.oracle.checkpoint_is_complete(checkpoint);
                let known = self.wal.as_ref().and_then(|wal| wal.last_checkpoint());
                if known.is_none_or(|known| known.id != id) {
                    return Err(format!("checkpoint {id} is complete, and the log knows of none"));
                }
                Ok(())
            }
            Err(error) => {
                self.excuse(&error)?;
                match error {
                    // Nothing was written.
                    WalError::StorageFull { .. } => self.oracle.doubtful_checkpoint = None,
                    _ => self.is_over = true,
                }
                Ok(())
            }
        }
    }
}
