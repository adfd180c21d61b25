//! All cores' writers in one hand.

use wal_storage::{Result, WalError};

use crate::cut;
use crate::lead::lead_all_to;
use crate::queue::Goal;
use crate::writer::CoreWalWriter;

/// The writers of all cores of a log, for programs that append from one thread and for what
/// concerns all cores at once. A checkpoint takes them with
/// [`arrive_all`](crate::CheckpointArrival::arrive_all).
#[derive(Debug)]
pub struct CoreWriters {
    writers: Vec<CoreWalWriter>,
}

impl CoreWriters {
    pub(crate) const fn new(writers: Vec<CoreWalWriter>) -> Self {
        Self { writers }
    }

    /// One core's writer.
    ///
    /// # Errors
    ///
    /// [`WalError::CoreOutOfRange`].
    pub fn writer(&mut self, core_id: u16) -> Result<&mut CoreWalWriter> {
        let cores = self.core_count();
        self.writers
            .iter_mut()
            .find(|writer| writer.core_id() == core_id)
            .ok_or(WalError::CoreOutOfRange { core: core_id, cores })
    }

    /// The writers, in order of their cores.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut CoreWalWriter> {
        self.writers.iter_mut()
    }

    /// Gives every writer away, in order of their cores, to be moved to their threads.
    #[must_use]
    pub fn into_writers(self) -> Vec<CoreWalWriter> {
        self.writers
    }

    /// How many cores log.
    #[must_use]
    pub fn core_count(&self) -> u32 {
        u32::try_from(self.writers.len()).unwrap_or(u32::MAX)
    }

    /// Where each core's next record goes.
    #[must_use]
    pub fn positions(&self) -> Vec<u64> {
        self.writers.iter().map(CoreWalWriter::position).collect()
    }

    /// How far each core is durable.
    #[must_use]
    pub fn synced_positions(&self) -> Vec<u64> {
        self.writers.iter().map(CoreWalWriter::synced_position).collect()
    }

    /// Bytes of records in all cores' logs together, as far as positions tell.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.writers.iter().map(CoreWalWriter::position).sum()
    }

    /// Makes everything appended on every core durable, all cores side by side.
    ///
    /// # Errors
    ///
    /// The first core's that fails; the others are synced in any case.
    pub fn sync(&mut self) -> Result<()> {
        let goals: Vec<Goal> = self.writers.iter_mut().map(CoreWalWriter::close_batch).collect();
        let logs = self.writers.iter().map(CoreWalWriter::log);
        let wanted: Vec<_> = logs.zip(goals.iter().copied()).collect();
        let led = match wanted.first() {
            Some((log, _)) => lead_all_to(&log.shared, &wanted),
            None => Ok(()),
        };
        for (writer, goal) in self.writers.iter_mut().zip(goals) {
            writer.take_note_of(goal);
        }
        led
    }

    /// Raises the epoch of every core.
    ///
    /// # Errors
    ///
    /// [`WalError::EpochRegressed`] for the first core that is beyond `epoch`; the others are
    /// raised in any case.
    pub fn set_epoch(&mut self, epoch: u64) -> Result<()> {
        self.on_each(|writer| writer.set_epoch(epoch))
    }

    /// Appends the barrier of the highest epoch that any of the cores has reached to each of
    /// them: cores behind are raised to it first. Afterwards all are in the next epoch, which is
    /// returned.
    ///
    /// # Errors
    ///
    /// The first core's that fails; the others have their barrier in any case.
    pub fn append_epoch_barrier(&mut self) -> Result<u64> {
        let epoch = self.writers.iter().map(CoreWalWriter::epoch).max().unwrap_or(0);
        self.on_each(|writer| {
            writer.set_epoch(epoch)?;
            writer.append_epoch_barrier().map(|_| ())
        })?;
        Ok(epoch + 1)
    }

    /// Cuts every core's log back, all at once: `positions` has one for each core, in order. A
    /// crash leaves all of them cut, or none.
    ///
    /// # Errors
    ///
    /// [`WalError::InvalidArgument`] if there are more or fewer positions than cores; otherwise as
    /// [`CoreWalWriter::truncate`] for the first core that fails. Nothing has been cut then,
    /// unless a core was poisoned.
    pub fn truncate(&mut self, positions: &[u64]) -> Result<()> {
        if positions.len() != self.writers.len() {
            return Err(WalError::InvalidArgument {
                what: format!(
                    "{} positions were given for {} cores",
                    positions.len(),
                    self.writers.len()
                ),
            });
        }
        let writers = self.writers.iter_mut().zip(positions);
        let planned: Result<Vec<_>> =
            writers.map(|(writer, &position)| writer.plan_truncate(position)).collect();
        cut::carry_out(planned?.into_iter().flatten().collect())?;
        self.writers.iter_mut().for_each(CoreWalWriter::is_cut);
        Ok(())
    }

    /// Empties every core's log, all at once: a crash leaves all of them empty, or none.
    ///
    /// # Errors
    ///
    /// As [`CoreWalWriter::reset`] for the first core that fails; nothing has changed then, unless
    /// a core was poisoned.
    pub fn reset(&mut self) -> Result<()> {
        let planned: Result<Vec<_>> =
            self.writers.iter_mut().map(CoreWalWriter::plan_reset).collect();
        cut::carry_out(planned?.into_iter().flatten().collect())?;
        self.writers.iter_mut().for_each(CoreWalWriter::is_cut);
        Ok(())
    }

    /// Does something with each writer, also behind one with which it failed, and returns the first
    /// error.
    pub(crate) fn on_each(
        &mut self,
        mut act: impl FnMut(&mut CoreWalWriter) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        for writer in &mut self.writers {
            let done = act(writer);
            result = result.and(done);
        }
        result
    }
}
