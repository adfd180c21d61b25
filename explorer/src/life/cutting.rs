//! Cutting logs back, one or all, and what is done with all writers in one hand.

use std::collections::BTreeMap;

use wal_entry::WalOperation;
use wal_storage::WalError;
use wal_writer::CoreWriters;

use super::Life;
use crate::Checked;
use crate::oracle::{Acked, Cut, record_bytes};
use crate::random::index;
use crate::workload::{Pick, Together};

impl Life<'_> {
    pub(super) fn truncate(&mut self, core: Pick, pick: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        let to = self.boundary(core, pick);
        let Some(writer) = self.writers.get_mut(&core) else {
            return Ok(());
        };
        let cut = writer.truncate(to.position);
        self.is_cut(Cut::of(BTreeMap::from([(core, to)])), cut)
    }

    pub(super) fn reset(&mut self, core: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        let Some(writer) = self.writers.get_mut(&core) else {
            return Ok(());
        };
        let cut = writer.reset();
        let cores = BTreeMap::from([(core, Acked::default())]);
        self.is_cut(Cut::emptying(cores), cut)
    }

    /// Takes all writers, puts something on each core, and does one thing with all of them.
    pub(super) fn act_together(&mut self, pick: Pick, what: Together) -> Checked {
        if self.wal.is_none() {
            return Ok(());
        }
        self.shared.clear();
        self.writers.clear();
        self.called(&[])?;
        let Some(wal) = &self.wal else {
            return Ok(());
        };
        let mut all = match wal.writers() {
            Ok(all) => all,
            Err(error) => {
                self.excuse(&error)?;
                return self.take_all_writers();
            }
        };
        let cores: Vec<u16> = all.iter_mut().map(|writer| writer.core_id()).collect();
        // What earlier writers left is durable when the next ones are there.
        cores.iter().for_each(|&core| self.oracle.core(core).ack_all());
        self.called(&[])?;
        let done = self.put_on_each(&mut all).and_then(|()| self.do_with_all(&mut all, pick, what));
        for writer in all.into_writers() {
            self.writers.insert(writer.core_id(), writer);
        }
        done
    }

    fn put_on_each(&mut self, all: &mut CoreWriters) -> Checked {
        for writer in all.iter_mut() {
            let (key, value) = (self.bytes(10), self.bytes(30));
            let (core, epoch) = (writer.core_id(), writer.epoch());
            match writer.append_put(&key, &value) {
                Ok(position) => {
                    let record = (position, writer.position());
                    let operation = WalOperation::Put { key, value };
                    self.appended(core, vec![operation], epoch, None, record)?;
                }
                Err(error) => self.excuse(&error)?,
            }
        }
        Ok(())
    }

    fn do_with_all(&mut self, all: &mut CoreWriters, pick: Pick, what: Together) -> Checked {
        let cores: Vec<u16> = all.iter_mut().map(|writer| writer.core_id()).collect();
        match what {
            Together::Sync => match all.sync() {
                Ok(()) => {
                    cores.iter().for_each(|&core| self.oracle.core(core).ack_all());
                    Ok(())
                }
                Err(error) => self.excuse(&error),
            },
            Together::Barrier => self.barriers(all),
            Together::Checkpoint => self.checkpoint_together(all),
            Together::Truncate => {
                let to: Vec<Acked> = cores.iter().map(|&core| self.boundary(core, pick)).collect();
                let positions: Vec<u64> = to.iter().map(|to| to.position).collect();
                let cut = all.truncate(&positions);
                self.is_cut(Cut::of(cores.into_iter().zip(to).collect()), cut)
            }
            Together::Reset => {
                let cut = all.reset();
                let to = cores.into_iter().map(|core| (core, Acked::default()));
                self.is_cut(Cut::emptying(to.collect()), cut)
            }
        }
    }

    fn barriers(&mut self, all: &mut CoreWriters) -> Checked {
        let epoch = all.iter_mut().map(|writer| writer.epoch()).max().unwrap_or(0);
        let done = all.append_epoch_barrier();
        self.barriers_were_logged(all, epoch)?;
        match done {
            Ok(next) if next == epoch + 1 => Ok(()),
            Ok(next) => Err(format!("behind the barriers of epoch {epoch} begins {next}")),
            Err(error) => self.excuse(&error),
        }
    }

    /// On the cores that have gone on: others may have failed.
    pub(super) fn barriers_were_logged(&mut self, all: &mut CoreWriters, epoch: u64) -> Checked {
        for writer in all.iter_mut() {
            let core = writer.core_id();
            if writer.sequence() > self.oracle.core(core).sequence() {
                let operation = WalOperation::EpochBarrier { epoch };
                let end = writer.position();
                let record = (end.saturating_sub(record_bytes(&operation)), end);
                self.appended(core, vec![operation], epoch, None, record)?;
            }
        }
        Ok(())
    }

    /// Some record boundary of the log, most often near its end.
    pub(super) fn boundary(&mut self, core: u16, pick: Pick) -> Acked {
        let oracle = self.oracle.core(core);
        let count = oracle.entries.len();
        let end = oracle.end();
        let near = if pick & 1 == 0 { count.min(5) } else { count };
        let Some(back) = index(pick / 4, near) else {
            return end;
        };
        let at = count - 1 - back;
        let boundary = match pick & 2 {
            0 => oracle.boundary_before(at),
            _ => oracle.boundary_behind(at),
        };
        boundary.unwrap_or(end)
    }

    /// A cut has returned: while it was under way it may have happened or not.
    fn is_cut(&mut self, asked: Cut, result: Result<(), WalError>) -> Checked {
        let cores: Vec<u16> = asked.cores.keys().copied().collect();
        let mut cut = asked;
        let mut reaches = cut.cores.iter().filter(|_| !cut.empties);
        let is_below = reaches.any(|(&core, to)| {
            let oracle = self.oracle.core(core);
            to.entries < oracle.released() && to.position < oracle.position
        });
        match &result {
            Err(WalError::BelowCheckpoint { .. }) if is_below => return self.called(&[]),
            Ok(()) if is_below => {
                return Err(format!("promise 7: a checkpoint was cut away by {cut:?}"));
            }
            _ => {}
        }
        cut.cores.retain(|core, to| {
            let moves = self.oracle.core(*core).position != to.position;
            if !moves && to.position == 0 {
                // Whether this begins a new life depends on files that the oracle knows nothing of.
                self.pins.iter_mut().for_each(|pinned| pinned.forget(*core));
                self.requests.retain(|request| request.core() != *core);
                self.proofs.retain(|proof| proof.core() != *core);
            }
            moves
        });
        self.called(std::slice::from_ref(&cut))?;
        match result {
            Ok(()) => {
                cores.into_iter().for_each(|core| self.oracle.core(core).ack_all());
                for core in cut.cores.keys() {
                    *self.cuts.entry(*core).or_default() += 1;
                }
                self.oracle.cut(&cut);
                self.submitted.clear();
                Ok(())
            }
            Err(error) => {
                self.excuse(&error)?;
                if !error.is_storage_full() {
                    self.oracle.doubtful_cuts.push(cut);
                    self.is_over = true;
                }
                Ok(())
            }
        }
    }
}
