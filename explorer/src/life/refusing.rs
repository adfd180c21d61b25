//! Asking for what nobody may have: it is refused for the right reason, and leaves no trace.

use wal_entry::{WalEntry, WalOperation};
use wal_storage::WalError;
use wal_writer::{CoreSelection, CoreWalWriter, LogOptions, Wal};

use super::Life;
use crate::Checked;
use crate::look::look_beside;
use crate::random::index;
use crate::workload::{Pick, Wrong};

const HOUR_NS: i64 = 3_600_000_000_000;

impl Life<'_> {
    pub(super) fn is_refused(&mut self, core: Pick, pick: Pick, what: Wrong) -> Checked {
        let Some(core) = self.writing_core(core).filter(|_| !self.has_failed()) else {
            return Ok(());
        };
        if matches!(what, Wrong::CutInsideARecord | Wrong::CutBeyondTheEnd) {
            // Whoever cuts makes everything durable first, which is no trace of what is refused.
            let synced = self.writers.get_mut(&core).map_or(Ok(()), CoreWalWriter::sync);
            synced.or_else(|error| self.excuse(&error))?;
            if self.has_failed() {
                return Ok(());
            }
            self.oracle.core(core).ack_all();
            self.called(&[])?;
        }
        let before = (self.machine.content_fingerprint(), self.epoch_of(core));
        let asked = match what {
            Wrong::WriterTwice | Wrong::NoSuchCore | Wrong::OpenedTwice => {
                self.ask_the_log(core, what)
            }
            _ => self.ask_the_writer(core, pick, what),
        };
        let is_right = match &asked {
            None => return Ok(()),
            Some(Err(error)) if self.has_failed() => return self.excuse(error),
            Some(Err(error)) => is_the_reason(error, what) && self.names_the_record(core, error),
            Some(Ok(())) => false,
        };
        if !is_right {
            return Err(format!("core {core}, {what:?}: {asked:?}"));
        }
        if (self.machine.content_fingerprint(), self.epoch_of(core)) != before {
            return Err(format!("core {core}, {what:?}: it was refused, and something changed"));
        }
        // Position and sequence are compared after each operation.
        self.called(&[])
    }

    /// `None` if there is nothing that it could be wrong about.
    fn ask_the_writer(
        &mut self,
        core: u16,
        pick: Pick,
        what: Wrong,
    ) -> Option<Result<(), WalError>> {
        let oracle = self.oracle.core(core);
        let (end, sequence) = (oracle.position, oracle.sequence());
        let inside = index(pick, oracle.entries.len());
        let inside = inside.and_then(|at| oracle.entries.get(at)).map(|known| {
            let bytes = known.end - known.position;
            known.position + 1 + pick % (bytes - 1)
        });
        let ceiling = oracle.raise_timestamp_ceiling(i64::MIN, 0);
        let epoch = self.epoch_of(core);
        let of_another = self.proofs.iter().position(|proof| proof.core() != core);
        let proof = of_another
            .filter(|_| matches!(what, Wrong::ProofOfAnotherCore))
            .map(|at| self.proofs.swap_remove(at).into_proof());
        let operation = WalOperation::Delete { key: vec![7; 9] };
        // It would be the next one, and raise what an entry can raise.
        let (later, timestamp_ns) = (epoch + 2, ceiling.saturating_add(HOUR_NS));
        let right = WalEntry { epoch: later, sequence, core_id: core, timestamp_ns, operation };
        let writer = self.writers.get_mut(&core)?;
        let entry = match what {
            Wrong::EntryOfAnotherCore => WalEntry { core_id: core ^ 1, ..right },
            Wrong::SequenceTooHigh => WalEntry { sequence: sequence + 1, ..right },
            Wrong::SequenceTooLow => WalEntry { sequence: sequence.checked_sub(1)?, ..right },
            Wrong::EpochTooLow => WalEntry { epoch: epoch.checked_sub(1)?, ..right },
            Wrong::TimestampTooLow if sequence > 0 => WalEntry { timestamp_ns: i64::MIN, ..right },
            Wrong::BarrierOfAnotherEpoch => {
                WalEntry { operation: WalOperation::EpochBarrier { epoch: later + 1 }, ..right }
            }
            Wrong::EpochLowered => return Some(writer.set_epoch(epoch.checked_sub(1)?)),
            Wrong::CutInsideARecord => return Some(writer.truncate(inside?)),
            Wrong::CutBeyondTheEnd => return Some(writer.truncate(end + 8)),
            Wrong::ProofOfAnotherCore => return Some(writer.mark_synced(proof?)),
            _ => return None,
        };
        Some(writer.append(&entry).map(|_| ()))
    }

    fn ask_the_log(&self, core: u16, what: Wrong) -> Option<Result<(), WalError>> {
        let wal = self.wal.as_ref();
        match what {
            Wrong::WriterTwice => {
                let wal = wal?;
                let shared = wal.shared_writer(core);
                if !matches!(shared, Err(WalError::WriterTaken { .. })) {
                    return Some(shared.map(|_| ()));
                }
                let all = wal.writers();
                if !matches!(all, Err(WalError::WriterTaken { .. })) {
                    return Some(all.map(|_| ()));
                }
                Some(wal.writer(core).map(|_| ()))
            }
            Wrong::NoSuchCore => Some(wal?.writer(u16::MAX).map(|_| ())),
            _ => {
                let opened = self.storage().and_then(|storage| {
                    Wal::open(storage, LogOptions::default(), CoreSelection::First(1))
                });
                Some(opened.map(|_| ()))
            }
        }
    }

    /// Who asked to cut inside a record is told where it begins and ends.
    fn names_the_record(&self, core: u16, error: &WalError) -> bool {
        let WalError::NotARecordBoundary { boundary_below, boundary_above, .. } = error else {
            return true;
        };
        let of_core = self.oracle.cores.get(&core);
        let mut entries = of_core.iter().flat_map(|oracle| &oracle.entries);
        entries.any(|known| (known.position, known.end) == (*boundary_below, *boundary_above))
    }

    /// Readers need no lock, and change nothing.
    pub(super) fn look_beside(&self) -> Checked {
        // What fails is tried elsewhere, and the background of a real directory writes when it likes.
        let is_quiet = self.faults.is_empty() && self.directory.is_none();
        if self.open_cores.is_empty() || !is_quiet {
            return Ok(());
        }
        look_beside(&self.machine, &self.oracle)
    }
}

fn is_the_reason(error: &WalError, what: Wrong) -> bool {
    let is_of = |wrong| matches!(error, WalError::EntryOutOfOrder { field, .. } if *field == wrong);
    match what {
        Wrong::EntryOfAnotherCore => is_of("core_id"),
        Wrong::SequenceTooHigh | Wrong::SequenceTooLow => is_of("sequence"),
        Wrong::EpochTooLow => is_of("epoch"),
        Wrong::TimestampTooLow => is_of("timestamp_ns"),
        Wrong::BarrierOfAnotherEpoch => is_of("barrier epoch"),
        Wrong::EpochLowered => matches!(error, WalError::EpochRegressed { .. }),
        // Below a checkpoint nobody looks for boundaries.
        Wrong::CutInsideARecord => {
            matches!(error, WalError::NotARecordBoundary { .. } | WalError::BelowCheckpoint { .. })
        }
        Wrong::CutBeyondTheEnd => matches!(error, WalError::InvalidArgument { .. }),
        Wrong::ProofOfAnotherCore => matches!(error, WalError::ProofRejected { .. }),
        Wrong::WriterTwice => matches!(error, WalError::WriterTaken { .. }),
        Wrong::NoSuchCore => matches!(error, WalError::CoreOutOfRange { .. }),
        Wrong::OpenedTwice => matches!(error, WalError::Locked { .. }),
    }
}
