//! Verifying a whole log: like recovery, but one core's damage does not hide another's.

use std::fmt;
use std::sync::Arc;

use wal_format::ManifestSlot;
use wal_storage::{Result, Storage, WalError};

use crate::RecoveryMode;
use crate::core::ScanFrom;
use crate::log;
use crate::manifests::SlotState;
use crate::report::RecoveryReport;

/// What verifying found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The cores that could be read to their end.
    pub report: RecoveryReport,
    /// Everything that is wrong, core by core. Empty: a recovery succeeds.
    pub findings: Vec<WalError>,
    /// What is not as it should be, and stops nothing: a manifest slot that cannot be read while
    /// the other one counts.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        for finding in &self.findings {
            write!(f, "\n  wrong: {finding}")?;
        }
        match self.findings.len() {
            0 => write!(f, "\nsound"),
            1 => write!(f, "\n1 finding"),
            count => write!(f, "\n{count} findings"),
        }
    }
}

/// Reads everything that recovery reads, and goes on after what is wrong with one core to look
/// at the others. Changes nothing.
///
/// A core in which a file is not what its name says is not read further: nobody can say what its
/// log is. If the manifest is lost, or a slot is of a newer version, no core is.
///
/// # Errors
///
/// Only if the directory itself cannot be read, or is not a log.
pub fn verify(storage: &Arc<dyn Storage>) -> Result<VerifyReport> {
    let inspection = match log::inspect(storage.as_ref()) {
        Ok(inspection) => inspection,
        Err(error @ (WalError::Io { .. } | WalError::NotALog { .. })) => return Err(error),
        Err(error) => {
            return Ok(VerifyReport {
                report: log::report(storage.as_ref(), None, Vec::new(), Vec::new(), Vec::new()),
                findings: vec![error],
                notes: Vec::new(),
            });
        }
    };
    let manifest = inspection.manifests.newest.as_ref();
    let (whole, strange): (Vec<_>, Vec<_>) =
        inspection.cores.into_iter().partition(|core| core.findings.is_empty());
    let mut findings: Vec<WalError> =
        strange.into_iter().flat_map(|core| core.findings).map(|(_, finding)| finding).collect();
    let mut cores = Vec::new();
    match inspection.lost_manifest {
        Some(lost) => findings.push(lost),
        None => {
            let mode = RecoveryMode::TornTail;
            let storage = storage.as_ref();
            for core in log::recover_cores(storage, mode, ScanFrom::Start, manifest, &whole) {
                match core {
                    Ok((_, report)) => cores.push(report),
                    Err(failure) => findings.push(failure.error),
                }
            }
        }
    }
    let slots = ManifestSlot::BOTH.iter().zip(inspection.manifests.slots);
    let notes = slots.filter_map(|(slot, state)| match state {
        SlotState::Absent => Some(format!("{slot} is missing")),
        SlotState::Unreadable(error) => Some(format!("{slot}: {error}")),
        SlotState::Holds { .. } => None,
    });
    let names = inspection.strange_names;
    Ok(VerifyReport {
        report: log::report(storage.as_ref(), manifest, names, cores, Vec::new()),
        findings,
        notes: notes.collect(),
    })
}
