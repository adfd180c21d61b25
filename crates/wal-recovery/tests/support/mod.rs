//! What the story files share: recovering an image, and looking at what comes of it.

#![allow(dead_code, reason = "every story file uses a part of it")]

use std::sync::Arc;

use wal_entry::WalEntry;
use wal_format::{Checkpoint, CheckpointCore, Cut, Release};
use wal_recovery::{CoreReport, EndingKind, RecoveredCore, RecoveredLog, RecoveryMode, recover};
use wal_sim::SimStorage;
use wal_sim::fixture::{LogFixture, LogImage};
use wal_storage::{Corruption, Storage, WalError};

pub(crate) const LOG_ID: [u8; 16] = *b"0123456789abcdef";

pub(crate) fn new_log() -> LogFixture {
    LogFixture::new(LOG_ID)
}

/// A recovered image: the disk, and what was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) log: RecoveredLog,
}

impl Recovered {
    /// All that are still there.
    pub(crate) fn entries(&self) -> Vec<WalEntry> {
        self.log.replay(&self.storage).from_start().entries().unwrap()
    }

    pub(crate) fn core(&self, core: u16) -> &RecoveredCore {
        self.log.cores.iter().find(|found| found.core == core).unwrap()
    }

    pub(crate) fn core_report(&self, core: u16) -> &CoreReport {
        self.log.report.core(core).unwrap()
    }

    /// The label of the row that decided about core 0, and what it decided.
    pub(crate) fn ending(&self) -> (String, EndingKind) {
        let ending = &self.core_report(0).ending;
        (ending.label.to_string(), ending.kind)
    }
}

pub(crate) fn disk(image: &LogImage) -> SimStorage {
    let disk = SimStorage::new(1);
    image.install(&disk).unwrap();
    disk
}

/// Recovers twice, finds that nothing changed, and that both times gave the same.
pub(crate) fn try_recover_disk(
    disk: &SimStorage,
    mode: RecoveryMode,
) -> Result<Recovered, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let before = disk.content_fingerprint();
    let found = recover(&storage, mode);
    let again = recover(&storage, mode);
    assert_eq!(disk.content_fingerprint(), before, "recovery changed something");
    match (&found, &again) {
        (Ok(found), Ok(again)) => assert_eq!(found, again),
        (Err(found), Err(again)) => assert_eq!(found.to_string(), again.to_string()),
        different => panic!("{different:?}"),
    }
    found.map(|log| Recovered { storage, log })
}

pub(crate) fn try_recover(image: &LogImage) -> Result<Recovered, WalError> {
    try_recover_disk(&disk(image), RecoveryMode::TornTail)
}

pub(crate) fn recovered(image: &LogImage) -> Recovered {
    try_recover(image).unwrap()
}

pub(crate) fn refused(image: &LogImage) -> WalError {
    match try_recover(image) {
        Ok(found) => panic!("recovered: {}", found.log.report),
        Err(error) => error,
    }
}

/// The image is damaged; how.
pub(crate) fn damaged(image: &LogImage) -> Corruption {
    match refused(image) {
        WalError::Corrupt(corruption) => (*corruption).clone(),
        other => panic!("not damage: {other}"),
    }
}

pub(crate) fn release(core: u16, position: u64) -> Release {
    Release { core, position, last_epoch: 0, last_timestamp_ns: 0 }
}

/// The last checkpoint, of one core.
pub(crate) fn checkpoint(epoch: u64, place: CheckpointCore) -> Checkpoint {
    Checkpoint { id: 7, epoch, cores: vec![place], source_offsets: Vec::new(), watermark: None }
}

pub(crate) fn cut(core: u16, position: u64, sequence: u64, dead_segment_id: u64) -> Cut {
    Cut { core, position, sequence, dead_segment_id, last_epoch: 0, last_timestamp_ns: 0 }
}

/// A value of this many bytes that is not all zeroes.
pub(crate) fn value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap_or(0) + 1).collect()
}
