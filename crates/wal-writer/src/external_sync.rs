//! A sync that runs in another thread than the writer's, and the proof that it happened.

use std::sync::Arc;

use wal_format::LogId;
use wal_storage::{Result, WalError};

use crate::core_log::CoreLog;
use crate::queue::{Goal, Wanted};

/// Entries handed over by [`CoreWalWriter::start_sync`](crate::CoreWalWriter::start_sync), to be
/// made durable by [`run`](Self::run) in any thread.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use wal_writer::CoreWalWriter;
///
/// let mut writer = CoreWalWriter::new(0, &path)?;
/// writer.append_put(b"key", b"value")?;
/// let request = writer.start_sync()?;
/// let syncing = std::thread::spawn(move || request.run());
/// writer.append_put(b"key", b"newer value")?; // goes on meanwhile
/// writer.mark_synced(syncing.join().expect("no panic")?)?;
/// assert_eq!(writer.entries_since_sync(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is durable before the request is run"]
pub struct SyncRequest {
    log: Arc<CoreLog>,
    proof: Synced,
}

/// Proof that a core's log is durable up to a position; made by [`SyncRequest::run`] alone.
#[derive(Debug)]
#[must_use = "the writer does not know of the sync before it is given the proof"]
pub struct Synced {
    log_id: LogId,
    core: u16,
    goal: Goal,
}

impl SyncRequest {
    pub(crate) fn new(log: &Arc<CoreLog>, goal: Goal) -> Self {
        let proof = Synced { log_id: log.shared.log_id, core: log.core, goal };
        Self { log: Arc::clone(log), proof }
    }

    /// The end of the entries handed over.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.proof.goal.position
    }

    /// Makes them durable, and everything before them.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`]; [`WalError::ProofRejected`] if the log has been cut since.
    pub fn run(self) -> Result<Synced> {
        // After a cut the positions mean other bytes.
        self.proof.check(&self.log)?;
        self.log.lead_to(self.proof.goal, Wanted::Now, None)?;
        // A cut may have come between.
        self.proof.check(&self.log)?;
        Ok(self.proof)
    }
}

impl Synced {
    /// Everything of the core's log below this position is durable.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.goal.position
    }

    /// The core whose log it is.
    #[must_use]
    pub const fn core_id(&self) -> u16 {
        self.core
    }

    pub(crate) const fn sequence(&self) -> u64 {
        self.goal.sequence
    }

    /// # Errors
    ///
    /// [`WalError::ProofRejected`] if it does not speak of this core's log as it is.
    pub(crate) fn check(&self, log: &CoreLog) -> Result<()> {
        let rejected = |reason| Err(WalError::ProofRejected { core: log.core, reason });
        if self.log_id != log.shared.log_id {
            return rejected("it is of another log");
        }
        if self.core != log.core {
            return rejected("it is of another core");
        }
        if self.goal.life != log.queue.life() {
            return rejected("it is from before the log was opened or cut");
        }
        Ok(())
    }
}
