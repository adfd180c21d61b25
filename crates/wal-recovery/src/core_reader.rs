//! Reading one core's recovered entries, one after the other, over all its segments.

use std::sync::Arc;

use wal_entry::EntryView;
use wal_format::RecordKind;
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::cursor::{Buffers, Located, Payload};
use crate::merge::ReplayTime;
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

    /// Goes to the next entry and says when it comes in a replay; `None` at the end.
    pub(crate) fn advance(&mut self) -> Result<Option<ReplayTime>> {
        self.go_on(None, &mut |_| Ok(()))
    }

    /// Visits the entry gone to, and those behind it whose time is below `end`; then says when the
    /// next one comes, which is the entry gone to now.
    pub(crate) fn visit_run<E: From<WalError>>(
        &mut self,
        end: ReplayTime,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayTime>, E> {
        self.visit_head(visit)?;
        self.go_on(Some(end), visit)
    }

    /// Visits entries below `end`, and stops at the first one that is not. Without an end, stops at
    /// the first one.
    fn go_on<E: From<WalError>>(
        &mut self,
        end: Option<ReplayTime>,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayTime>, E> {
        loop {
            if let Some(time) = self.go_on_in_batch(end, visit)? {
                return Ok(Some(time));
            }
            if self.scan.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(scan) = self.scan.as_mut() else {
                return Ok(None);
            };
            let mut refused = None;
            if let Some(end) = end
                && scan.progress().position >= self.from_position
            {
                let last_epoch = self.last_epoch;
                let is_wanted = |archive: &[u8]| {
                    ReplayTime::peek(archive)
                        .is_some_and(|time| time < end && time.epoch() <= last_epoch)
                };
                refused = scan.run(is_wanted, &mut *visit)?;
            }
            let position = scan.progress().position;
            let located = match refused {
                Some(located) => located,
                None => match scan.locate()? {
                    Ok(located) => located,
                    Err(Stop::Limit) => {
                        if let Some(scan) = self.scan.take() {
                            self.buffers = scan.into_buffers();
                        }
                        continue;
                    }
                    Err(stop) => return Err(stopped(&self.storage, scan, stop).into()),
                },
            };
            // An entry that is not to be visited yet is not checked yet.
            if located.kind == RecordKind::Entry
                && position >= self.from_position
                && let Some(time) = ReplayTime::peek(scan.bytes(&located.payload))
                && time.epoch() <= self.last_epoch
                && end.is_none_or(|end| time >= end)
            {
                self.head = Some(Head::Record(located));
                return Ok(Some(time));
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
        end: Option<ReplayTime>,
        visit: &mut dyn FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<Option<ReplayTime>, E> {
        while let (Some((batch, at)), Some(scan)) = (self.batch.take(), self.scan.as_ref()) {
            let payload = scan.bytes(&batch);
            let Some((archive_at, next_at)) = batch_entry(payload, at) else {
                return Ok(None);
            };
            let head = batch.part(archive_at, next_at - archive_at);
            let view = EntryView::access(scan.bytes(&head));
            let view = view.map_err(|invalid| changed(&self.storage, scan, invalid.to_string()))?;
            let time = ReplayTime::of(view.replay_order());
            if time.epoch() > self.last_epoch {
                self.end();
                return Ok(None);
            }
            let is_before = end.is_some_and(|end| time < end);
            if is_before {
                visit(view)?;
            }
            self.batch = Some((batch, next_at));
            if !is_before {
                self.head = Some(Head::InBatch(head));
                return Ok(Some(time));
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
