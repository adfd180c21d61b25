//! Reading one core's recovered entries, one window full after the other, over all its segments.

use std::sync::Arc;

use wal_entry::{EntryView, RecordBuffer, ReplayOrder};
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::cursor::{Buffers, Payload};
use crate::scan::{Next, Problem, Progress, SegmentPlace, SegmentScan, Stop, batch_entry};

/// Reads one core's entries, and checks them again as it does.
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
    /// How far the log had come at a record boundary that nothing below is wanted of.
    begin: Option<Progress>,
    scan: Option<SegmentScan>,
}

/// Entries that were read and checked, with the memory that they stand in.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    buffers: Buffers,
    archives: Archives,
    /// How many bytes of records were gone through for it.
    bytes: u64,
}

/// Where the archives of a chunk's entries are; small, because there is one for each entry.
#[derive(Debug, Default)]
struct Archives {
    places: Vec<Place>,
    /// So many of them, the first ones, are in a record that has memory of its own: such a record is
    /// always the first of its chunk.
    in_large: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    end: u32,
}

impl Chunk {
    pub(crate) const fn entry_count(&self) -> usize {
        self.archives.places.len()
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it has a record that no window holds.
    pub(crate) const fn has_large_record(&self) -> bool {
        self.archives.in_large > 0
    }

    pub(crate) fn take_large_buffer(&mut self) -> RecordBuffer {
        self.buffers.take_large()
    }

    pub(crate) fn set_large_buffer(&mut self, buffer: RecordBuffer) {
        self.buffers.set_large(buffer);
    }

    /// The archives of the entries from `index` on.
    #[inline]
    pub(crate) fn archives_from(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let Archives { places, in_large } = &self.archives;
        let places = places.get(index..).unwrap_or_default();
        (index..).zip(places).map(move |(index, place)| {
            let buffer =
                if index < *in_large { self.buffers.large() } else { self.buffers.window() };
            buffer.get(place.start as usize..place.end as usize).unwrap_or_default()
        })
    }
}

impl Archives {
    #[inline]
    fn push(&mut self, archive: &Payload) {
        let (Payload::Window(range) | Payload::Large(range)) = archive;
        // No buffer comes near this size.
        let place = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        self.places.push(Place { start: place(range.start), end: place(range.end) });
        if matches!(archive, Payload::Large(_)) {
            self.in_large = self.places.len();
        }
    }
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
            begin: None,
            scan: None,
        }
    }

    /// Has the reading begin where the log had come so far, without a look at what lies before it in
    /// its segment.
    pub(crate) const fn beginning_at(mut self, begin: Progress) -> Self {
        self.begin = Some(begin);
        self
    }

    /// Puts the next entries into `chunk`, whatever it held: at least one, unless there are no more.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or holds other bytes than recovery found. The entries that are in
    /// the chunk then were valid.
    pub(crate) fn fill(&mut self, chunk: &mut Chunk) -> Result<()> {
        chunk.archives.places.clear();
        chunk.archives.in_large = 0;
        chunk.bytes = 0;
        while chunk.archives.places.is_empty() && (self.scan.is_some() || self.open_next()?) {
            let Some(scan) = &mut self.scan else { break };
            let from = scan.progress().position.max(self.from_position);
            scan.cursor_mut().swap_buffers(&mut chunk.buffers);
            let read = self.read_window(&mut chunk.archives);
            if let Some(scan) = &mut self.scan {
                scan.cursor_mut().swap_buffers(&mut chunk.buffers);
                chunk.bytes += scan.progress().position.saturating_sub(from);
            }
            match read? {
                Window::GoesOn => {}
                Window::SegmentEnds => self.scan = None,
                Window::ReadingEnds => {
                    self.scan = None;
                    self.spans.clear();
                }
            }
        }
        Ok(())
    }

    /// Goes over the records that stand in one window.
    fn read_window(&mut self, archives: &mut Archives) -> Result<Window> {
        let (from_position, last_epoch) = (self.from_position, self.last_epoch);
        let Some(scan) = &mut self.scan else {
            return Ok(Window::SegmentEnds);
        };
        loop {
            // What comes next may be anything, and may make the cursor read.
            let position = scan.progress().position;
            match scan.next()? {
                Next::Entry(view, archive) => {
                    if view.epoch() > last_epoch {
                        return Ok(Window::ReadingEnds);
                    }
                    if position >= from_position {
                        archives.push(&archive);
                    }
                }
                Next::Batch { payload, .. } => {
                    if position >= from_position
                        && !push_batch(scan.bytes(&payload), &payload, last_epoch, archives)
                    {
                        return Ok(Window::ReadingEnds);
                    }
                }
                Next::Mark(_) | Next::Skipped => {}
                Next::Stop(Stop::Limit) => return Ok(Window::SegmentEnds),
                Next::Stop(stop) => return Err(stopped(&self.storage, scan, stop)),
            }
            if scan.progress().position >= from_position {
                let is_wanted = |archive: &[u8]| {
                    ReplayOrder::peek(archive).is_some_and(|order| order.epoch <= last_epoch)
                };
                scan.run(is_wanted, |archive, _| archives.push(&archive));
            }
            if !scan.has_next_at_hand() {
                return Ok(Window::GoesOn);
            }
        }
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(span) = self.spans.pop() else {
            return Ok(false);
        };
        let place = SegmentPlace::of_span(self.core, &span);
        let cursor = place.open(self.storage.as_ref(), Buffers::default())?;
        let begins_within = |begin: &Progress| begin.position >= span.base_position;
        let begin = self.begin.take().filter(begins_within);
        let progress = begin.unwrap_or_else(|| progress_at_base(&span));
        self.scan = Some(SegmentScan::new(place, cursor, progress, span.end_position));
        Ok(true)
    }
}

/// What comes behind a window full of records.
enum Window {
    GoesOn,
    SegmentEnds,
    ReadingEnds,
}

/// Takes the entries of a checked batch apart; false if one is of an epoch behind the last.
fn push_batch(bytes: &[u8], payload: &Payload, last_epoch: u64, archives: &mut Archives) -> bool {
    let mut at = 0;
    while let Some((archive_at, next_at)) = batch_entry(bytes, at) {
        let archive = bytes.get(archive_at..next_at).unwrap_or_default();
        if EntryView::access(archive).is_ok_and(|view| view.epoch() > last_epoch) {
            return false;
        }
        archives.push(&payload.part(archive_at, next_at - archive_at));
        at = next_at;
    }
    true
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

/// What ended a scan that should have gone on: what recovery found valid is so no more.
#[cold]
fn stopped(storage: &Arc<dyn Storage>, scan: &SegmentScan, stop: Stop) -> WalError {
    let what = match stop {
        Stop::Unreadable(problem) | Stop::NotUnderstood(problem) | Stop::Falls(problem) => {
            problem.what
        }
        Stop::Seal | Stop::Limit => "the segment ends".to_owned(),
    };
    let problem =
        Problem { what: format!("{what}; recovery had found a valid record here"), bytes: 0 };
    let position = scan.progress().position;
    scan.place().damage(storage.as_ref(), position, &problem, None)
}
