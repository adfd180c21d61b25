//! A recovery that leaves something out, until that is accepted.

use std::sync::Arc;

use wal_recovery::{Loss, Proposal, RecoveredLog, Recovery, RecoveryReport, recover_to};
use wal_storage::{DirectoryLock, Result, Storage, WalError};

use crate::adopt::adopt;
use crate::manifest_store::ManifestStore;
use crate::options::LogOptions;
use crate::quarantine;
use crate::wal::{CoreSelection, Wal, newest_slot};

/// A log that was recovered and is not open yet: to be looked at, and then accepted or left as it
/// is.
///
/// A [target](wal_recovery::RecoveryTarget), or a [mode](wal_recovery::RecoveryMode) that goes on in
/// spite of damage, leaves out something that is there. Here is what would be left. Nothing on disk
/// was changed, and nothing is if this is dropped; until then nobody else can open the log for
/// writing.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let storage = std::sync::Arc::new(wal_storage::OsStorage::create(directory.path().join("log"))?);
/// use wal_recovery::RecoveryTarget;
/// use wal_writer::{CoreSelection, LogOptions, Wal};
///
/// # let (wal, _) = Wal::open(storage.clone(), LogOptions::default(), CoreSelection::First(1))?;
/// # let mut writer = wal.writer(0)?;
/// writer.append_put(b"balance", b"100")?;
/// writer.append_epoch_barrier()?; // the end of epoch 0
/// writer.append_put(b"balance", b"-7")?; // a mistake, in epoch 1
/// # writer.close()?;
/// wal.close()?;
///
/// let options =
///     LogOptions { recovery_target: RecoveryTarget::Epoch(0), ..LogOptions::default() };
/// let pending = Wal::recover(storage, options, CoreSelection::First(1))?;
/// assert_eq!(pending.losses().len(), 1);
/// assert_eq!(pending.recovery().entries()?.len(), 2);
/// let (wal, recovery) = pending.accept()?; // now the mistake is gone
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped, it leaves the log as it is, and nobody can write to it"]
pub struct PendingRecovery {
    storage: Arc<dyn Storage>,
    options: LogOptions,
    selection: CoreSelection,
    recovered: RecoveredLog,
    replay: Recovery,
    lock: DirectoryLock,
}

impl PendingRecovery {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        selection: CoreSelection,
        recovered: RecoveredLog,
        lock: DirectoryLock,
    ) -> Self {
        let replay = recovered.replay(&storage);
        Self { storage, options, selection, recovered, replay, lock }
    }

    /// What was found, and what of it is left out.
    #[must_use]
    pub const fn report(&self) -> &RecoveryReport {
        &self.recovered.report
    }

    /// What is left out though it is there; empty if all of the log was recovered.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.recovered.report.losses
    }

    /// What would be left, to be replayed.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.replay
    }

    /// Opens the log as it was shown here. What was left out is dropped for good, on all cores or on
    /// none; every segment file that held any of it is copied to the directory `quarantine` before,
    /// under the name `core-0003-00000000000000000042.wal`, and never touched again.
    ///
    /// All of that is durable when this returns. A crash on the way leaves the log as it was, or
    /// accepted.
    ///
    /// # Errors
    ///
    /// [`WalError::StorageFull`] if there is no room for the copies: nothing has changed then. Else
    /// as [`Wal::open`].
    pub fn accept(self) -> Result<(Wal, Recovery)> {
        let Self { storage, options, selection, mut recovered, replay, lock } = self;
        if let Some(proposal) = recovered.proposal.take() {
            write_down(&*storage, &recovered, &proposal)?;
            recovered = recover_to(&storage, options.recovery_mode, options.recovery_target)?;
            if recovered.proposal.is_some() {
                return Err(not_accepted(&recovered));
            }
        }
        let wal = Wal::open_recovered(storage, options, selection, &recovered, &replay, &lock)?;
        Ok((wal, replay))
    }

    /// Opens the log, if there is nothing to accept.
    pub(crate) fn open(self) -> Result<(Wal, Recovery)> {
        if self.recovered.proposal.is_some() {
            return Err(not_accepted(&self.recovered));
        }
        self.accept()
    }
}

/// Each step is durable before the next, and the manifest is what makes the difference.
fn write_down(storage: &dyn Storage, recovered: &RecoveredLog, proposal: &Proposal) -> Result<()> {
    for core in &proposal.to_adopt {
        adopt(storage, core)?;
    }
    quarantine::copy(storage, &proposal.to_quarantine)?;
    let found = proposal.manifest_found.clone();
    let store = ManifestStore::open(storage, found, newest_slot(recovered))?;
    store.replace(|manifest| {
        if let Some(accepted) = &recovered.manifest {
            manifest.cuts.clone_from(&accepted.cuts);
            manifest.accepted_damage.clone_from(&accepted.accepted_damage);
        }
        Ok(())
    })
}

fn not_accepted(recovered: &RecoveredLog) -> WalError {
    let losses = &recovered.report.losses;
    WalError::NotAccepted {
        path: recovered.report.path.clone(),
        ranges: losses.len(),
        first: losses.first().map(ToString::to_string).unwrap_or_default(),
    }
}
