//! Finding a record boundary: where a log may be cut.

use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::core_reader::progress_at_base;
use crate::cursor::Buffers;
use crate::scan::{Next, Progress, SegmentPlace, SegmentScan, Stop};

/// A place where a record begins, or the log's end, and what is known of the log before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Boundary {
    /// The position.
    pub position: u64,
    /// The sequence of the first entry behind it.
    pub sequence: u64,
    /// The highest epoch known before it.
    pub last_epoch: u64,
    /// The highest timestamp known before it.
    pub last_timestamp_ns: i64,
}

/// Looks for the boundary at `position` in the recovered log of one core.
///
/// Every record's begin and end is one, a mark's too, and so are the first base and the end. A log
/// without segments has one boundary, 0.
///
/// # Errors
///
/// - [`NotARecordBoundary`](WalError::NotARecordBoundary), with the nearest ones on both sides.
/// - [`InvalidArgument`](WalError::InvalidArgument) for positions outside the log.
/// - [`Corrupt`](WalError::Corrupt) or [`Io`](WalError::Io) if the segment can no longer be read.
pub fn find_boundary(
    storage: &dyn Storage,
    core: u16,
    spans: &[SegmentSpan],
    position: u64,
) -> Result<Boundary> {
    let outside = |first: u64, end: u64| WalError::InvalidArgument {
        what: format!("core {core}: position {position} lies outside its log, {first} to {end}"),
    };
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
        return match position {
            0 => Ok(boundary(Progress::EMPTY)),
            _ => Err(outside(0, 0)),
        };
    };
    if position < first.base_position || position > last.end_position {
        return Err(outside(first.base_position, last.end_position));
    }
    let mut candidates = spans.iter().rev();
    let span = candidates.find(|span| span.base_position <= position);
    let span = span.unwrap_or(first);

    let place = SegmentPlace::of_span(core, span);
    let cursor = place.open(storage, Buffers::default())?;
    let progress = progress_at_base(span);
    let mut scan = SegmentScan::new(place, cursor, progress, span.end_position);
    let mut below = progress;
    loop {
        let here = scan.progress();
        if here.position == position {
            return Ok(boundary(here));
        }
        if here.position > position {
            return Err(WalError::NotARecordBoundary {
                core,
                position,
                boundary_below: below.position,
                boundary_above: here.position,
            });
        }
        below = here;
        let problem = match scan.next()? {
            Next::Stop(
                Stop::Unreadable(problem) | Stop::NotUnderstood(problem) | Stop::Falls(problem),
            ) => problem,
            // Neither comes below the end that recovery found.
            Next::Stop(Stop::Limit | Stop::Seal) => {
                return Err(outside(first.base_position, here.position));
            }
            Next::Entry(..) | Next::Batch { .. } | Next::Mark(_) | Next::Skipped => continue,
        };
        return Err(place.damage(storage, here.position, &problem, None));
    }
}

const fn boundary(progress: Progress) -> Boundary {
    Boundary {
        position: progress.position,
        sequence: progress.next_sequence,
        last_epoch: progress.last_epoch,
        last_timestamp_ns: progress.last_timestamp_ns,
    }
}
