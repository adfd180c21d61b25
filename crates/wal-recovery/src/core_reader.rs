//! Reading one core's recovered entries, one after the other, over all its segments.

use std::sync::Arc;

use wal_entry::{EntryView, ReplayOrder};
use wal_format::RecordKind;
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::cursor::{Buffers, Located, Payload};
use crate::scan::{Next, Problem, Progress, SegmentPlace, SegmentScan, Stop, batch_entry};

/// One core's entries, checked again while they are read.
#[derive(Debug)]
pub(crate) struct CoreReader {
    storage: Arc<dyn Storage>,
    core: u16,
    /// Still to be read, the next one last.
    spans: Vec<SegmentSpan>,
    /// Entries that begin below are passed over.
    from_position: u64,
    /// Entries of a later epoch end the reading.
    last_epoch: u64,
    scan: Option<SegmentScan>,
    buffers: Buffers,
    /// The entry that [`advance`](Self::advance) stopped at.
    head: Option<Head>,
    /// The batch that the head is in, and where its next entry's header is.
    batch: Option<(Payload, usize)>,
}

/// An entry gone to and not yet visited.
#[derive(Debug)]
enum Head {
    /// Its record; its archive is not checked yet.
    Record(Located),
    /// The archive of an entry of a checked batch.
    InBatch(Payload),
}

impl CoreReader {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        core: u16,
        spans: &[SegmentSpan],
        from_position: u64,
        last_epoch: u64,
    ) -> Self {
        // What ends at or below the first wanted position is not even opened.
        let wanted = spans.iter().filter(|span| span.end_position > from_position);
        Self {
            storage,
            core,
            spans: wanted.rev().copied().collect(),
            from_position,
            last_epoch,
            scan: None,
            buffers: Buffers::default(),
            head: None,
            batch: None,
        }
    }

    /// Goes to the next entry and says where it stands in replay order; `None` at the end.
    pub(crate) fn advance(&mut self) -> Result<Option<ReplayOrder>> {
        self.go_on(None, &mut |_| Ok(()))
    }

    /// Visits the entry gone to, and those behind it as long as they stand before `bound`; then
    /// says where the next one stands, which is the entry gone to now.
    pub(crate) fn visit_run<E: From<WalError>>(
        &mut self,
        bound: Option<ReplayOrder>,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayOrder>, E> {
        self.visit_head(visit)?;
        // Without another core everything stands before the bound.
        let bound = bound.unwrap_or(ReplayOrder {
            epoch: u64::MAX,
            timestamp_ns: i64::MAX,
            core_id: u16::MAX,
            sequence: u64::MAX,
        });
        self.go_on(Some(bound), visit)
    }

    /// Visits entries up to the bound, and stops at the first one at or behind it. Without a bound,
    /// stops at the first one.
    fn go_on<E: From<WalError>>(
        &mut self,
        bound: Option<ReplayOrder>,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayOrder>, E> {
        loop {
            if let Some(order) = self.go_on_in_batch(bound, visit)? {
                return Ok(Some(order));
            }
            if self.scan.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(scan) = self.scan.as_mut() else {
                return Ok(None);
            };
            let position = scan.progress().position;
            let located = match scan.locate()? {
                Ok(located) => located,
                Err(Stop::Limit) => {
                    if let Some(scan) = self.scan.take() {
                        self.buffers = scan.into_buffers();
                    }
                    continue;
                }
                Err(stop) => return Err(stopped(&self.storage, scan, stop).into()),
            };
            // Checking an archive costs more than all else here, so an entry that is not to be
            // visited yet is not checked yet.
            if located.kind == RecordKind::Entry
                && position >= self.from_position
                && let Some(order) = order_of(scan.bytes(&located.payload))
                && order.epoch <= self.last_epoch
                && bound.is_none_or(|bound| order >= bound)
            {
                self.head = Some(Head::Record(located));
                return Ok(Some(order));
            }
            match scan.accept(located) {
                Next::Entry(view, _) => {
                    if position < self.from_position {
                        continue;
                    }
                    if view.epoch() > self.last_epoch {
                        self.end();
                        return Ok(None);
                    }
                    visit(view)?;
                }
                Next::Batch { payload, .. } if position >= self.from_position => {
                    self.batch = Some((payload, 0));
                }
                Next::Batch { .. } | Next::Mark(_) | Next::Skipped => {}
                Next::Stop(stop) => return Err(stopped(&self.storage, scan, stop).into()),
            }
        }
    }

    fn visit_head<E: From<WalError>>(
        &mut self,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (Some(head), Some(scan)) = (self.head.take(), self.scan.as_mut()) else {
            return Ok(());
        };
        match head {
            Head::Record(located) => match scan.accept(located) {
                Next::Entry(view, _) => visit(view),
                Next::Stop(stop) => Err(stopped(&self.storage, scan, stop).into()),
                Next::Batch { .. } | Next::Mark(_) | Next::Skipped => Ok(()),
            },
            Head::InBatch(archive) => match EntryView::access(scan.bytes(&archive)) {
                Ok(view) => visit(view),
                Err(invalid) => Err(changed(&self.storage, scan, invalid.to_string()).into()),
            },
        }
    }

    /// The same inside a batch, until it is used up.
    fn go_on_in_batch<E: From<WalError>>(
        &mut self,
        bound: Option<ReplayOrder>,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayOrder>, E> {
        while let (Some((batch, at)), Some(scan)) = (self.batch.take(), self.scan.as_ref()) {
            let payload = scan.bytes(&batch);
            let Some((archive_at, next_at)) = batch_entry(payload, at) else {
                return Ok(None);
            };
            let head = batch.part(archive_at, next_at - archive_at);
            let view = EntryView::access(scan.bytes(&head));
            let view = view.map_err(|invalid| changed(&self.storage, scan, invalid.to_string()))?;
            let order = view.replay_order();
            if order.epoch > self.last_epoch {
                self.end();
                return Ok(None);
            }
            let is_before = bound.is_some_and(|bound| order < bound);
            if is_before {
                visit(view)?;
            }
            self.batch = Some((batch, next_at));
            if !is_before {
                self.head = Some(Head::InBatch(head));
                return Ok(Some(order));
            }
        }
        Ok(None)
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(span) = self.spans.pop() else {
            return Ok(false);
        };
        let place = SegmentPlace::of_span(self.core, &span);
        let cursor = place.open(self.storage.as_ref(), std::mem::take(&mut self.buffers))?;
        self.scan =
            Some(SegmentScan::new(place, cursor, progress_at_base(&span), span.end_position));
        Ok(true)
    }

    /// Nothing further is wanted.
    fn end(&mut self) {
        self.spans.clear();
        self.scan = None;
        self.batch = None;
    }
}

/// Where the scan of a recovered segment begins.
pub(crate) const fn progress_at_base(span: &SegmentSpan) -> Progress {
    Progress {
        position: span.base_position,
        next_sequence: span.base_sequence,
        last_epoch: span.last_epoch,
        last_timestamp_ns: span.last_timestamp_ns,
        ..Progress::EMPTY
    }
}

/// Where an entry stands in replay order, read from its archive before that is checked.
///
/// The numbers stand at fixed places of the archive's root, its last 64 bytes, as
/// `docs/format.md` says. If these bytes are no archive, the order is wrong and nothing else:
/// the entry is checked before it is visited.
fn order_of(archive: &[u8]) -> Option<ReplayOrder> {
    let (_, root) = archive.split_last_chunk::<64>()?;
    let (words, _) = root.as_chunks::<8>();
    let [epoch, sequence, core_id, timestamp_ns, ..] = words else {
        return None;
    };
    let [core_low, core_high, ..] = *core_id;
    Some(ReplayOrder {
        epoch: u64::from_le_bytes(*epoch),
        timestamp_ns: i64::from_le_bytes(*timestamp_ns),
        core_id: u16::from_le_bytes([core_low, core_high]),
        sequence: u64::from_le_bytes(*sequence),
    })
}

/// What ended a scan that should have gone on.
#[cold]
fn stopped(storage: &Arc<dyn Storage>, scan: &SegmentScan, stop: Stop) -> WalError {
    let what = match stop {
        Stop::Unreadable(problem) | Stop::NotUnderstood(problem) | Stop::Falls(problem) => {
            problem.what
        }
        Stop::Seal | Stop::Limit => "the segment ends".to_owned(),
    };
    changed(storage, scan, what)
}

/// What recovery found valid is so no more.
#[cold]
fn changed(storage: &Arc<dyn Storage>, scan: &SegmentScan, what: String) -> WalError {
    let problem =
        Problem { what: format!("{what}; recovery had found a valid record here"), bytes: 0 };
    let position = scan.progress().position;
    scan.place().damage(storage.as_ref(), position, &problem, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal_entry::{Offsets, RecordBuffer, WalEntry};

    #[test]
    fn the_order_read_ahead_is_the_entry_s() {
        let offsets = Offsets::try_from_pairs([("a source with a long name", 4)]).unwrap();
        let entries = [
            WalEntry::put(513, 3, 1 << 40, vec![1; 9], vec![2; 100], -5),
            WalEntry::delete(1, u64::MAX, 7, vec![], i64::MIN),
            WalEntry::checkpoint(u16::MAX, 0, 0, 9, i64::MAX),
            WalEntry::commit(2, 4, 6, offsets, Some(-1), 8),
            WalEntry::epoch_barrier(2, 4, 6, 8),
        ];
        for entry in entries {
            let mut archive = RecordBuffer::new();
            entry.borrowed().archive_into(&mut archive);
            assert_eq!(order_of(&archive), Some(entry.replay_order()));
        }
        assert_eq!(order_of(&[0; 63]), None);
    }
}
