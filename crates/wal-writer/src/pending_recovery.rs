//! A recovery that leaves something out, until that is accepted.

use std::sync::Arc;

use wal_recovery::{
    Loss, Proposal, RecoveredLog, Recovery, RecoveryReport, RecoveryTarget, recover_to,
};
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
            // The target is the end by now. Looked for again it may lie lower: what said that an
            // epoch is complete may have been left out.
            recovered = recover_to(&storage, options.recovery_mode, RecoveryTarget::End)?;
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
    // Breaks promise 1, if left out: what is kept is cut behind a place that power loss takes back.
    if !cfg!(wal_fault = "accept_without_adopting") {
        for core in &proposal.to_adopt {
            adopt(storage, core)?;
        }
    }
    // Breaks what `accept` promises, if it comes last: what is dropped may be nowhere.
    if !cfg!(wal_fault = "accept_before_quarantine") {
        quarantine::copy(storage, &proposal.to_quarantine)?;
    }
    let found = proposal.manifest_found.clone();
    let store = ManifestStore::open(storage, found, newest_slot(recovered))?;
    #[cfg(wal_fault = "target_on_some_cores")]
    cut_one_by_one(&store, recovered)?;
    store.replace(|manifest| {
        if let Some(accepted) = &recovered.manifest {
            manifest.cuts.clone_from(&accepted.cuts);
            manifest.accepted_damage.clone_from(&accepted.accepted_damage);
        }
        Ok(())
    })?;
    if cfg!(wal_fault = "accept_before_quarantine") {
        quarantine::copy(storage, &proposal.to_quarantine)?;
    }
    Ok(())
}

/// Breaks promise 2: a crash between two of them leaves some cores cut, and others not.
#[cfg(wal_fault = "target_on_some_cores")]
fn cut_one_by_one(store: &ManifestStore, recovered: &RecoveredLog) -> Result<()> {
    let cuts = recovered.manifest.iter().flat_map(|manifest| &manifest.cuts);
    cuts.copied().try_for_each(|cut| {
        store.replace(|manifest| {
            manifest.add_cut(cut);
            Ok(())
        })
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
