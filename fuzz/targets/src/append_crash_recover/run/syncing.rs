//! Making durable: by the writer, by requests run elsewhere, by giving the writer back.

use laminar_wal::WalError;

use super::{Handed, Run};
use crate::append_crash_recover::Checked;
use crate::disk::changes;

impl Run {
    pub(super) fn sync(&mut self, core: u8) -> Checked {
        let at = self.at(core);
        let core = &mut self.cores[at];
        let Some(writer) = &mut core.writer else { return Ok(()) };
        match writer.sync() {
            Ok(()) => {
                core.is_not_poisoned("a sync")?;
                core.model.doubtful_cuts.clear();
                core.is_synced();
                Ok(())
            }
            Err(error) => self.excuse(at, &error),
        }
    }

    pub(super) fn start_sync(&mut self, core: u8) -> Checked {
        let at = self.at(core);
        let core = &mut self.cores[at];
        let Some(writer) = &mut core.writer else { return Ok(()) };
        match writer.start_sync() {
            Ok(request) => {
                core.is_not_poisoned("the start of a sync")?;
                let (opening, cuts) = (self.opening, core.cuts);
                let (position, entries) = (core.model.position, core.model.entries.len());
                if request.position() != position {
                    return Err(format!("{request:?} of a log that ends at {position}"));
                }
                self.requests
                    .push((Handed { core: at, opening, cuts, position, entries }, request));
                Ok(())
            }
            Err(error) => self.excuse(at, &error),
        }
    }

    pub(super) fn run_request(&mut self, pick: u8) -> Checked {
        let Some(at) = usize::from(pick).checked_rem(self.requests.len()) else { return Ok(()) };
        let (handed, request) = self.requests.swap_remove(at);
        let is_of_this_opening = handed.opening == self.opening;
        let is_alive = self.is_alive(handed);
        let changes_before = changes(&self.disk);
        let core = &mut self.cores[handed.core];
        match request.run() {
            Ok(_) if is_of_this_opening && !is_alive => {
                return Err("a request from before a cut was run".to_owned());
            }
            Ok(proof) => {
                if (proof.position(), proof.core_id()) != (handed.position, core.id) {
                    return Err(format!("{proof:?} of {handed:?}"));
                }
                if is_alive {
                    core.model.ack(handed.entries, handed.position);
                }
                self.proofs.push((handed, proof));
            }
            Err(_) if !is_of_this_opening => {}
            Err(WalError::ProofRejected { .. })
                if !is_alive || !core.model.doubtful_cuts.is_empty() => {}
            Err(error) => return self.excuse(handed.core, &error),
        }
        if !is_of_this_opening && changes(&self.disk) != changes_before {
            return Err("a request of an earlier opening touched the disk".to_owned());
        }
        Ok(())
    }

    pub(super) fn mark_synced(&mut self, core: u8, pick: u8) -> Checked {
        let at = self.at(core);
        let Some(pick) = usize::from(pick).checked_rem(self.proofs.len()) else { return Ok(()) };
        let (handed, proof) = self.proofs.swap_remove(pick);
        let fits = handed.core == at && self.is_alive(handed);
        let core = &mut self.cores[at];
        let Some(writer) = &mut core.writer else { return Ok(()) };
        match writer.mark_synced(proof) {
            Ok(()) if fits => {
                core.synced = core.synced.max((handed.position, handed.entries as u64));
                Ok(())
            }
            Err(WalError::ProofRejected { .. })
                if !fits || !core.model.doubtful_cuts.is_empty() =>
            {
                Ok(())
            }
            result => Err(format!("a proof of {handed:?} for core {}: {result:?}", core.id)),
        }
    }

    /// Gives the writer back and takes it again: what it left is durable then.
    pub(super) fn retake(&mut self, core: u8, closes: bool) -> Checked {
        let at = self.at(core);
        let core = &mut self.cores[at];
        let Some(writer) = core.writer.take() else { return Ok(()) };
        let again = self.wal.as_ref().map(|wal| wal.writer(core.id));
        if !matches!(again, Some(Err(WalError::WriterTaken { .. }))) {
            return Err(format!("core {}: its writer was given away twice", core.id));
        }
        if closes {
            match writer.close() {
                Ok(()) => {
                    core.is_not_poisoned("the close of a writer")?;
                    core.model.ack_all();
                }
                Err(error) => self.excuse(at, &error)?,
            }
        } else {
            drop(writer);
        }
        self.take_writer(at)
    }

    pub(super) fn take_writer(&mut self, at: usize) -> Checked {
        let core = &mut self.cores[at];
        let Some(wal) = &self.wal else { return Ok(()) };
        match wal.writer(core.id) {
            Ok(writer) => {
                core.is_not_poisoned("the taking of a writer")?;
                core.is_synced();
                if writer.epoch() < core.epoch {
                    return Err(format!("core {}: epoch {}", core.id, writer.epoch()));
                }
                core.epoch = writer.epoch();
                self.highest_epoch = self.highest_epoch.max(core.epoch);
                core.writer = Some(writer);
                Ok(())
            }
            Err(error) => self.excuse(at, &error),
        }
    }

    fn is_alive(&self, handed: Handed) -> bool {
        handed.opening == self.opening
            && self.cores.get(handed.core).is_some_and(|core| core.cuts == handed.cuts)
    }
}
