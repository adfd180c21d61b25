//! Reading one segment file by itself.

use wal_entry::{EntryView, WalEntry};
use wal_storage::{Result, Storage, WalError};

use crate::claims::{Claims, search_marks};
use crate::cursor::{Buffers, Payload};
use crate::directory::segment_name;
use crate::headers;
use crate::scan::{Next, Problem, Progress, SegmentPlace, SegmentScan, Stop, batch_entry};

/// The entries of one segment file, read without the rest of the log.
///
/// A segment by itself does not know all about its end: that the log was cut, or that a later
/// segment took over below, stands elsewhere. What it does know, its own marks and vouch slots,
/// is held against the end found, so that damage is not taken for it. For everything else there
/// is [`recover`](crate::recover()).
#[derive(Debug)]
pub struct SegmentReader<'a> {
    storage: &'a dyn Storage,
    scan: SegmentScan,
    claims: Claims,
    /// The batch that is being read, and where its next entry's header is.
    batch: Option<(Payload, usize)>,
    end: Option<SegmentEnd>,
}

/// How a segment's records ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentEnd {
    /// The position behind the last record, marks included.
    pub position: u64,
    /// Whether a seal stands there: the log goes on in another segment.
    pub is_sealed: bool,
    /// What stands there, in words.
    pub found: String,
}

impl<'a> SegmentReader<'a> {
    /// Opens a core's segment.
    ///
    /// # Errors
    ///
    /// [`NotALog`](WalError::NotALog) if the segment was prepared and never begun;
    /// [`Corrupt`](WalError::Corrupt) if its identity is damaged or not its own;
    /// [`UnsupportedVersion`](WalError::UnsupportedVersion); [`Io`](WalError::Io), also if there
    /// is no such file.
    pub fn open(storage: &'a dyn Storage, core: u16, segment_id: u64) -> Result<Self> {
        let header = headers::read(storage, core, segment_id, None)?;
        let start = match &header.start {
            Ok(start) => start,
            Err(error) => {
                return Err(WalError::NotALog {
                    path: storage.path().join(segment_name(core, segment_id)),
                    reason: format!("the segment was never begun: {error}"),
                });
            }
        };
        let place = SegmentPlace::new(&header, start.base_position);
        let cursor = place.open(storage, Buffers::default())?;
        let progress = Progress {
            position: start.base_position,
            next_sequence: start.base_sequence,
            last_epoch: start.last_epoch,
            last_timestamp_ns: start.last_timestamp_ns,
            ..Progress::EMPTY
        };
        let mut claims = Claims::default();
        claims.add_header(&header, u64::MAX);
        Ok(Self {
            storage,
            scan: SegmentScan::new(place, cursor, progress, u64::MAX),
            claims,
            batch: None,
            end: None,
        })
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](WalError::Corrupt) where damage ends the records: the segment's own marks or
    /// slots claim more, or what stands there is valid and not understood. [`Io`](WalError::Io).
    #[expect(clippy::should_implement_trait, reason = "an entry borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<EntryView<'_>>> {
        let Some(archive) = self.next_archive()? else {
            return Ok(None);
        };
        let view = EntryView::access(self.scan.bytes(&archive));
        match view {
            Ok(view) => Ok(Some(view)),
            Err(invalid) => Err(self.damage(&Problem { what: invalid.to_string(), bytes: 0 })),
        }
    }

    /// All entries that are left, as copies.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    pub fn read_all(&mut self) -> Result<Vec<WalEntry>> {
        self.read_up_to_epoch(u64::MAX)
    }

    /// The entries that are left up to an epoch, as copies. The first one of a later epoch is
    /// read too, and not returned.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    pub fn read_up_to_epoch(&mut self, epoch: u64) -> Result<Vec<WalEntry>> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next()? {
            if entry.epoch() > epoch {
                break;
            }
            entries.push(entry.to_entry());
        }
        Ok(entries)
    }

    /// Reads on to the end, and says where that is, and what stands there.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    pub fn valid_end(&mut self) -> Result<SegmentEnd> {
        while self.next_archive()?.is_some() {}
        Ok(self.end.clone().unwrap_or_else(|| SegmentEnd {
            position: self.scan.progress().position,
            is_sealed: false,
            found: String::new(),
        }))
    }

    fn next_archive(&mut self) -> Result<Option<Payload>> {
        loop {
            if let Some((batch, at)) = self.batch.take()
                && let Some((archive_at, next_at)) = batch_entry(self.scan.bytes(&batch), at)
            {
                let archive = batch.part(archive_at, next_at - archive_at);
                self.batch = Some((batch, next_at));
                return Ok(Some(archive));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            let position = self.scan.progress().position;
            let segment_id = self.scan.place().segment_id;
            let stop = match self.scan.next()? {
                Next::Entry(_, archive) => return Ok(Some(archive)),
                Next::Batch { payload, .. } => {
                    self.batch = Some((payload, 0));
                    continue;
                }
                Next::Mark(mark) => {
                    self.claims.add_mark(mark, segment_id, position, u64::MAX);
                    continue;
                }
                Next::Skipped => continue,
                Next::Stop(stop) => stop,
            };
            self.end(stop)?;
        }
    }

    fn end(&mut self, stop: Stop) -> Result<()> {
        let position = self.scan.progress().position;
        let is_sealed = stop == Stop::Seal;
        let problem = match stop {
            Stop::NotUnderstood(problem) | Stop::Falls(problem) => {
                return Err(self.damage(&problem));
            }
            Stop::Unreadable(problem) => problem,
            Stop::Seal | Stop::Limit => Problem { what: "a seal".to_owned(), bytes: 0 },
        };
        let place = *self.scan.place();
        let cursor = self.scan.cursor_mut();
        search_marks(cursor, &place, position, u64::MAX, &mut self.claims)?;
        if self.claims.largest_position() > position {
            return Err(self.damage(&problem));
        }
        self.end = Some(SegmentEnd { position, is_sealed, found: problem.what });
        Ok(())
    }

    fn damage(&self, problem: &Problem) -> WalError {
        let position = self.scan.progress().position;
        let proof = self.claims.proof_above(position);
        self.scan.place().damage(self.storage, position, problem, proof)
    }
}
