//! Finding a record boundary: where a log may be cut.

use wal_entry::ReplayOrder;
use wal_format::BatchEntries;
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::core_reader::progress_at_base;
use crate::cursor::Buffers;
use crate::scan::{Next, Progress, SegmentPlace, SegmentScan, Stop};
use crate::target::Kept;

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
    if position > span.end_position {
        // In a range that was accepted as lost.
        let behind = spans.iter().find(|span| span.base_position > position);
        return Err(WalError::NotARecordBoundary {
            core,
            position,
            boundary_below: span.end_position,
            boundary_above: behind.map_or(last.end_position, |span| span.base_position),
        });
    }

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

/// Finds the end of what is kept of one core's recovered log: the boundary behind the last record
/// before the first one, at `from_position` or above, that holds an entry which is not kept. What
/// is kept of a core must be a prefix of its log.
///
/// # Errors
///
/// If a segment can no longer be read.
pub(crate) fn end_of_kept(
    storage: &dyn Storage,
    core: u16,
    spans: &[SegmentSpan],
    from_position: u64,
    kept: Kept,
) -> Result<Option<Boundary>> {
    for (index, span) in spans.iter().enumerate() {
        let is_below = span.end_position <= from_position;
        // Neither epoch nor timestamp falls, so the next one's start tells of all of this one.
        let is_kept = spans.get(index + 1).is_some_and(|next| {
            kept.keeps(&ReplayOrder {
                epoch: next.last_epoch,
                timestamp_ns: next.last_timestamp_ns,
                core_id: core,
                sequence: next.base_sequence.saturating_sub(1),
            })
        });
        if is_below || is_kept {
            continue;
        }
        if let Some(end) = end_of_kept_in(storage, core, span, from_position, kept)? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

fn end_of_kept_in(
    storage: &dyn Storage,
    core: u16,
    span: &SegmentSpan,
    from_position: u64,
    kept: Kept,
) -> Result<Option<Boundary>> {
    let place = SegmentPlace::of_span(core, span);
    let cursor = place.open(storage, Buffers::default())?;
    let mut scan = SegmentScan::new(place, cursor, progress_at_base(span), span.end_position);
    let mut end = scan.progress();
    loop {
        let here = scan.progress().position;
        let is_kept = |order: &ReplayOrder| here < from_position || kept.keeps(order);
        let (keeps, problem) = match scan.next()? {
            Next::Entry(entry, _) => (is_kept(&entry.replay_order()), None),
            Next::Batch { payload, .. } => (keeps_batch(scan.bytes(&payload), is_kept), None),
            // A mark speaks of what stands before it, and goes with what stands behind it.
            Next::Mark(_) | Next::Skipped => continue,
            Next::Stop(Stop::Limit | Stop::Seal) => return Ok(None),
            Next::Stop(
                Stop::Unreadable(problem) | Stop::NotUnderstood(problem) | Stop::Falls(problem),
            ) => (false, Some(problem)),
        };
        if let Some(problem) = problem {
            return Err(place.damage(storage, here, &problem, None));
        }
        if !keeps {
            return Ok(Some(boundary(end)));
        }
        end = scan.progress();
    }
}

/// A batch is kept whole or not at all. It has been checked.
fn keeps_batch(payload: &[u8], is_kept: impl Fn(&ReplayOrder) -> bool) -> bool {
    BatchEntries::new(payload).flatten().all(|archive| {
        let order = ReplayOrder::peek(archive);
        order.is_some_and(|order| is_kept(&order))
    })
}

const fn boundary(progress: Progress) -> Boundary {
    Boundary {
        position: progress.position,
        sequence: progress.next_sequence,
        last_epoch: progress.last_epoch,
        last_timestamp_ns: progress.last_timestamp_ns,
    }
}
