//! Appending, with a core's own writer or a shared one.

use wal_entry::{Offsets, WalEntry, WalOperation};
use wal_format::RECORD_HEADER_BYTES;
use wal_storage::WalError;
use wal_writer::WriteBatch;

use super::Life;
use crate::Checked;
use crate::oracle::{MARK_BYTES, batch_record_bytes, record_bytes};
use crate::workload::Pick;

impl Life<'_> {
    pub(super) fn put(&mut self, core: Pick, key_bytes: usize, value_bytes: usize) -> Checked {
        let (key, value) = (self.bytes(key_bytes), self.bytes(value_bytes));
        self.append(core, WalOperation::Put { key, value })
    }

    pub(super) fn delete(&mut self, core: Pick, key_bytes: usize) -> Checked {
        let key = self.bytes(key_bytes);
        self.append(core, WalOperation::Delete { key })
    }

    pub(super) fn commit(&mut self, core: Pick, sources: u64) -> Checked {
        let mut offsets = Offsets::new();
        for source in 0..sources {
            offsets.set(&format!("source {source}"), self.random.next());
        }
        let watermark = sources.is_multiple_of(2).then_some(7);
        self.append(core, WalOperation::Commit { offsets, watermark })
    }

    pub(super) fn marker(&mut self, core: Pick, id: u64) -> Checked {
        self.append(core, WalOperation::Checkpoint { id })
    }

    pub(super) fn barrier(&mut self, core: Pick) -> Checked {
        let epoch = self.appending_core(core).map_or(0, |core| self.epoch_of(core));
        self.append(core, WalOperation::EpochBarrier { epoch })
    }

    pub(super) fn set_epoch(&mut self, core: Pick, by: u64) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let epoch = self.epoch_of(core) + by;
        let set = match (self.writers.get_mut(&core), self.shared.get(&core)) {
            (Some(writer), _) => writer.set_epoch(epoch),
            (None, Some(handles)) => handles.iter().try_for_each(|shared| shared.set_epoch(epoch)),
            (None, None) => Ok(()),
        };
        set.or_else(|error| self.excuse(&error))?;
        match self.epoch_of(core) {
            now if now == epoch || self.is_poisoned(core) => Ok(()),
            now => Err(format!("core {core}: its epoch was set to {epoch}, and is {now}")),
        }
    }

    pub(super) fn append_ready_made(
        &mut self,
        core: Pick,
        epoch_by: u64,
        time_by_ns: i64,
        is_barrier: bool,
    ) -> Checked {
        let Some(core_id) = self.writing_core(core) else {
            return Ok(());
        };
        let now_ns = self.wall_clock_ns();
        let ceiling = self.oracle.core(core_id).raise_timestamp_ceiling(now_ns, 0);
        let timestamp_ns = ceiling.saturating_add(time_by_ns);
        let epoch = self.epoch_of(core_id) + epoch_by;
        let operation = match is_barrier {
            true => WalOperation::EpochBarrier { epoch },
            false => WalOperation::Delete { key: self.bytes(5) },
        };
        let sequence = self.oracle.core(core_id).sequence();
        let entry = WalEntry { epoch, sequence, core_id, timestamp_ns, operation };
        let Some(writer) = self.writers.get_mut(&core_id) else {
            return Ok(());
        };
        match writer.append(&entry) {
            Ok(position) => {
                let end = writer.position();
                let operations = vec![entry.operation];
                self.appended(core_id, operations, epoch, Some(timestamp_ns), (position, end))
            }
            Err(error) => self.excuse(&error),
        }
    }

    pub(super) fn append_batch(&mut self, core: Pick, count: u64, value_bytes: usize) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let mut batch = WriteBatch::new();
        let mut operations = Vec::new();
        for number in 0..count {
            let (key, value) = (number.to_le_bytes().to_vec(), self.bytes(value_bytes));
            match number % 5 {
                3 => {
                    batch.delete(&key);
                    operations.push(WalOperation::Delete { key });
                }
                4 => {
                    batch.checkpoint(number);
                    operations.push(WalOperation::Checkpoint { id: number });
                }
                _ => {
                    batch.put(&key, &value);
                    operations.push(WalOperation::Put { key, value });
                }
            }
        }
        let epoch = self.epoch_of(core);
        let bytes = if operations.is_empty() { 0 } else { batch_record_bytes(&operations) };
        let appended = match self.writers.get_mut(&core) {
            Some(writer) => {
                writer.append_batch(&batch).map(|position| (position, writer.position()))
            }
            None => match self.a_shared_writer(core) {
                Some(shared) => shared.append_batch(&batch).map(|ticket| {
                    let end = ticket.position();
                    let entries = self.oracle.core(core).entries.len() + operations.len();
                    self.keep_ticket(core, ticket, entries);
                    (end.saturating_sub(bytes), end)
                }),
                None => return Ok(()),
            },
        };
        match appended {
            Ok(record) => self.appended(core, operations, epoch, None, record),
            // The limit is for the payload alone.
            Err(WalError::RecordTooLarge { .. }) if bytes > self.max_record_bytes + 8 => Ok(()),
            Err(error) => self.excuse(&error),
        }
    }

    fn append(&mut self, core: Pick, operation: WalOperation) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let epoch = self.epoch_of(core);
        let bytes = record_bytes(&operation);
        let appended = match self.writers.get_mut(&core) {
            Some(writer) => {
                let appended = match &operation {
                    WalOperation::Put { key, value } => writer.append_put(key, value),
                    WalOperation::Delete { key } => writer.append_delete(key),
                    WalOperation::Checkpoint { id } => writer.append_checkpoint(*id),
                    WalOperation::Commit { offsets, watermark } => {
                        writer.append_commit(offsets, *watermark)
                    }
                    WalOperation::EpochBarrier { .. } => writer.append_epoch_barrier(),
                };
                appended.map(|position| (position, writer.position()))
            }
            None => {
                let Some(shared) = self.a_shared_writer(core) else {
                    return Ok(());
                };
                let ticket = match &operation {
                    WalOperation::Put { key, value } => shared.append_put(key, value),
                    WalOperation::Delete { key } => shared.append_delete(key),
                    WalOperation::Checkpoint { id } => shared.append_checkpoint(*id),
                    WalOperation::Commit { offsets, watermark } => {
                        shared.append_commit(offsets, *watermark)
                    }
                    WalOperation::EpochBarrier { .. } => shared.append_epoch_barrier(),
                };
                ticket.map(|ticket| {
                    let end = ticket.position();
                    let entries = self.oracle.core(core).entries.len() + 1;
                    self.keep_ticket(core, ticket, entries);
                    (end.saturating_sub(bytes), end)
                })
            }
        };
        match appended {
            Ok(record) => self.appended(core, vec![operation], epoch, None, record),
            Err(WalError::RecordTooLarge { .. }) if bytes - 8 > self.max_record_bytes => Ok(()),
            Err(error) => self.excuse(&error),
        }
    }

    /// A record went where the log ended.
    pub(super) fn appended(
        &mut self,
        core: u16,
        operations: Vec<WalOperation>,
        epoch: u64,
        timestamp_ns: Option<i64>,
        record: (u64, u64),
    ) -> Checked {
        self.is_not_poisoned(core, "an append")?;
        // The limit is for the payload alone.
        let payload_bytes = record.1.saturating_sub(record.0 + RECORD_HEADER_BYTES as u64);
        if payload_bytes > self.max_record_bytes {
            return Err(format!(
                "core {core}: a record of {payload_bytes} bytes was accepted, with a limit of {}",
                self.max_record_bytes
            ));
        }
        let epoch_after = match operations.last() {
            Some(WalOperation::EpochBarrier { .. }) => epoch + 1,
            _ => epoch,
        };
        // Not of writers that are all in one hand.
        let is_at_hand = self.writers.contains_key(&core) || self.shared.contains_key(&core);
        if is_at_hand && self.epoch_of(core) != epoch_after {
            return Err(format!(
                "core {core}: behind {:?} in epoch {epoch} its writer is in epoch {}",
                operations.last(),
                self.epoch_of(core)
            ));
        }
        let count = i64::try_from(operations.len()).unwrap_or(i64::MAX);
        let now_ns = self.wall_clock_ns();
        let oracle = self.oracle.core(core);
        oracle.raise_timestamp_ceiling(now_ns, count);
        // A mark before it, and one more if a segment was sealed by a batch of its own.
        let marks_bytes = record.0.wrapping_sub(oracle.position);
        if ![0, MARK_BYTES, 2 * MARK_BYTES].contains(&marks_bytes) {
            return Err(format!(
                "core {core}: its log ended at {}, and the next record went to {}",
                oracle.position, record.0
            ));
        }
        oracle
            .append(operations, epoch, timestamp_ns, record)
            .map_err(|what| format!("core {core}: {what}"))?;
        // Nothing was acked; but the next call begins here.
        self.called(&[])
    }

    pub(super) fn epoch_of(&self, core: u16) -> u64 {
        let shared = || self.shared.get(&core).and_then(|handles| handles.first());
        match self.writers.get(&core) {
            Some(writer) => writer.epoch(),
            None => shared().map_or(0, wal_writer::SharedWriter::epoch),
        }
    }
}
