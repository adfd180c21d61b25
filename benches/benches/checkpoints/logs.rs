//! The logs that are measured: puts of 100 bytes on several cores in turn, and checkpoints.

use laminar_wal::{CheckpointDetails, CoreWriters, EntryView, Recovery, Wal};
use laminar_wal_benches::{Failure, key};

pub(crate) const VALUE: [u8; 100] = [0xab; 100];

/// Appends so many puts, to one core after the other.
pub(crate) fn append_in_turn(writers: &mut CoreWriters, entries: u64) -> Result<(), Failure> {
    let mut entry = 0;
    while entry < entries {
        for writer in writers.iter_mut() {
            writer.append_put(&key(entry), &VALUE)?;
            entry += 1;
        }
    }
    Ok(())
}

/// Makes a checkpoint here and now: all cores arrive, and it is completed.
pub(crate) fn checkpoint(wal: &Wal, writers: &mut CoreWriters, id: u64) -> Result<(), Failure> {
    let pending = wal.begin_checkpoint(id)?;
    let arrival = pending.arrival();
    for writer in writers.iter_mut() {
        arrival.arrive(writer)?;
    }
    Ok(pending.complete(CheckpointDetails::default())?)
}

/// What a visit has to come to: entries, and the bytes of their values.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) puts: u64,
    value_bytes: u64,
}

impl Seen {
    pub(crate) fn merged(recovery: &Recovery) -> Result<Self, Failure> {
        let mut seen = Self::default();
        recovery.for_each(|entry| seen.add(&entry))?;
        Ok(seen)
    }

    pub(crate) fn per_core(recovery: &Recovery) -> Result<Self, Failure> {
        let cores = recovery.for_each_per_core(|_| Self::default(), |seen, e| seen.add(&e))?;
        let mut seen = Self::default();
        for core in cores.values() {
            seen.puts += core.puts;
            seen.value_bytes += core.value_bytes;
        }
        Ok(seen)
    }

    /// Whether these are so many puts of [`VALUE`], and nothing else.
    pub(crate) fn check(self, puts: u64) -> Result<(), Failure> {
        let expected = Self { puts, value_bytes: puts * VALUE.len() as u64 };
        if self == expected {
            return Ok(());
        }
        Err(format!("{self:?} came back where {expected:?} was appended").into())
    }

    fn add(&mut self, entry: &EntryView<'_>) {
        if let Some(value) = entry.value() {
            self.puts += 1;
            self.value_bytes += value.len() as u64;
        }
    }
}
