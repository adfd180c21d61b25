//! The walk over one core's chain: every segment scanned, up to the place where the log ends.

use wal_entry::EntryView;
use wal_format::{BLOCK_BYTES, BatchEntries, Cut};
use wal_storage::{Corruption, Result, WalError};

use super::{CoreRecovery, Failed, Failure, Found, SegmentSpan, Stopped};
use crate::chain::Member;
use crate::claims::search_marks;
use crate::committed::Committed;
use crate::directory::segment_name;
use crate::resync::first_order;
use crate::scan::{Next, Problem, Progress, SegmentPlace, SegmentScan, Stop};
use crate::verdict::{At, Decision, Following, judge};

impl CoreRecovery<'_> {
    pub(super) fn run(mut self) -> Result<Found, Failure> {
        let chain = self.chain;
        let Some(first) = chain.members.first() else {
            return self.run_without_segments();
        };
        let beginning = self.beginning(first)?;
        self.entries += beginning.entries_before;
        let mut spans = Vec::with_capacity(chain.members.len());
        let mut progress = Progress::before(first.start);
        let mut last = None;
        for (index, member) in chain.members.iter().enumerate() {
            let next = chain.members.get(index + 1);
            if let Some(next) = next.filter(|_| index < beginning.segments_before) {
                progress = Progress::before(next.start);
                spans.push(span(member, &Progress::before(member.start), &progress));
                continue;
            }
            self.check_continues(member, &mut progress)?;
            progress.raise(member.start.last_epoch, member.start.last_timestamp_ns);
            let place = SegmentPlace::new(member.header, member.start.base_position);
            self.pass_checkpoint(&mut progress, &place)?;
            let cut_position = self.cuts.limit(member.header.segment_id);
            // Where nothing is left of what went on behind a cut, a later one may lie higher.
            let newest_cut = self.cuts.newest().map(|cut| cut.position);
            let limit_position = match next {
                Some(next) => next.start.base_position,
                None => newest_cut.map_or(cut_position, |newest| newest.max(cut_position)),
            };
            loop {
                let from = progress;
                let begins_behind = from.position < beginning.progress.position;
                let scan_from = if begins_behind { beginning.progress } else { from };
                // What was cut off does not come back in place of a segment that was lost.
                let (stop, mut scan) =
                    self.scan(member, scan_from, limit_position.min(cut_position))?;
                progress = scan.progress();
                spans.push(span(member, &from, &progress));
                let is_at_limit = stop == Stop::Limit && limit_position <= cut_position;
                if !is_at_limit
                    && let Some(behind) =
                        self.behind_hole(member, next, &mut scan, limit_position)?
                {
                    progress = behind;
                    if progress.position < limit_position {
                        self.buffers = scan.into_buffers();
                        continue;
                    }
                    if next.is_none() {
                        last = Some(self.stopped_at_limit(&scan, limit_position));
                    }
                } else if next.is_none() {
                    last = Some(self.stopped(&mut scan, stop, limit_position)?);
                } else if !is_at_limit {
                    let error = self.stopped_early(&scan, stop);
                    return Err(Failure::at(progress, in_records(member), error));
                }
                // Otherwise @G, or the seal's @F: the log goes on, whatever stands behind.
                self.buffers = scan.into_buffers();
                break;
            }
        }
        match (last, chain.members.last()) {
            (Some(stopped), Some(head)) => self.finish(spans, progress, stopped, Some(head)),
            _ => self.run_without_segments(),
        }
    }

    /// No segment has a valid start: the log begins, and ends, at its newest cut, if all below
    /// that was released, or is lost and in a checkpoint, or at 0. Whatever claims more is above
    /// that, and so damage.
    fn run_without_segments(self) -> Result<Found, Failure> {
        let mut progress = Progress::EMPTY;
        if let Some(cut) = self.cuts.newest()
            && (cut.position <= self.release_position || self.is_all_but_a_checkpoint_lost(cut))
        {
            progress.position = cut.position;
            progress.next_sequence = cut.sequence;
        }
        let stopped = Stopped {
            place: SegmentPlace {
                core: self.core,
                segment_id: 0,
                salt: 0,
                size_bytes: 0,
                max_record_bytes: 0,
                base_position: progress.position,
            },
            position: progress.position,
            at: At::NoSegment,
            problem: Problem { what: "no segment has a valid start".to_owned(), bytes: 0 },
            mark_is_behind: false,
            written_end: progress.position,
        };
        self.finish(Vec::new(), progress, stopped, None)
    }

    /// Whether the log was cut where its checkpoint stands, because nothing else was left of it.
    fn is_all_but_a_checkpoint_lost(&self, cut: &Cut) -> bool {
        let checkpoint_position = self.checkpoint.map(|(_, place)| place.position);
        Some(cut.position) == checkpoint_position && self.holes.begin_at(cut.position)
    }

    /// How the log goes on behind the range accepted as lost at whose beginning the scan stopped;
    /// `None` if there is none, or no entry begins where it ends.
    fn behind_hole(
        &self,
        member: &Member<'_>,
        next: Option<&Member<'_>>,
        scan: &mut SegmentScan,
        limit_position: u64,
    ) -> Result<Option<Progress>> {
        let (progress, segment_id) = (scan.progress(), member.header.segment_id);
        let end = self.holes.end_of(segment_id, progress.position, limit_position);
        let Some(position) = end else {
            return Ok(None);
        };
        let next_sequence = match (next, self.cuts.newest()) {
            _ if position < limit_position => {
                let place = *scan.place();
                let order = first_order(scan.cursor_mut(), &place, position)?;
                order.map(|order| order.sequence)
            }
            (Some(next), _) => Some(next.start.base_sequence),
            (None, Some(cut)) => Some(cut.sequence),
            (None, None) => None,
        };
        let next_sequence = next_sequence.filter(|&next| next >= progress.next_sequence);
        Ok(next_sequence.map(|next_sequence| Progress { position, next_sequence, ..progress }))
    }

    /// The log was cut at the end of a range that was accepted as lost.
    fn stopped_at_limit(&self, scan: &SegmentScan, limit_position: u64) -> Stopped {
        Stopped {
            place: *scan.place(),
            position: limit_position,
            at: At::Cut,
            problem: Problem { what: "the log was cut here".to_owned(), bytes: 0 },
            mark_is_behind: false,
            written_end: limit_position,
        }
    }

    /// A segment goes on where the one before ended: in position, which the scan saw to, in
    /// sequence, epoch and timestamp. Behind a range accepted as lost, its start says the sequence.
    fn check_continues(&self, member: &Member<'_>, progress: &mut Progress) -> Result<(), Failure> {
        let start = member.start;
        let segment_id = member.header.segment_id;
        let is_behind_hole = self.holes.before(segment_id, start.base_position).is_some();
        if is_behind_hole && start.base_sequence > progress.next_sequence {
            (progress.position, progress.next_sequence) =
                (start.base_position, start.base_sequence);
        }
        let broken = |field: &str, says: i128, expected: i128| {
            let what = format!("its start says {field} {says}, but the log before it {expected}");
            let error = self.broken_start(member, what);
            Err(Failure::at(*progress, Failed::Start { segment_id }, error))
        };
        if start.base_sequence != progress.next_sequence {
            let (says, expected) = (start.base_sequence, progress.next_sequence);
            return broken("sequence", says.into(), expected.into());
        }
        if start.last_epoch < progress.last_epoch {
            let (says, expected) = (start.last_epoch, progress.last_epoch);
            return broken("epoch", says.into(), expected.into());
        }
        if start.last_timestamp_ns < progress.last_timestamp_ns {
            let (says, expected) = (start.last_timestamp_ns, progress.last_timestamp_ns);
            return broken("timestamp", says.into(), expected.into());
        }
        Ok(())
    }

    fn broken_start(&self, member: &Member<'_>, what: String) -> WalError {
        let name = segment_name(self.core, member.header.segment_id);
        let block = BLOCK_BYTES as u64;
        Corruption {
            path: self.storage.path().join(name),
            core: Some(self.core),
            position: Some(member.start.base_position),
            file_range: Some((block, 2 * block)),
            what,
            proven_by: None,
        }
        .into()
    }

    fn scan(
        &mut self,
        member: &Member<'_>,
        progress: Progress,
        limit_position: u64,
    ) -> Result<(Stop, SegmentScan), Failure> {
        let place = SegmentPlace::new(member.header, member.start.base_position);
        let cursor = place.open(self.storage, std::mem::take(&mut self.buffers))?;
        // A record ends where the checkpoint stands.
        let checkpoint_position = self.checkpoint.map(|(_, place)| place.position);
        let first_limit =
            checkpoint_position.filter(|it| (progress.position..limit_position).contains(it));
        let mut scan =
            SegmentScan::new(place, cursor, progress, first_limit.unwrap_or(limit_position));
        loop {
            let (entries, committed) = (&mut self.entries, &mut self.committed);
            scan.run(
                |_| true,
                |_, entry| {
                    *entries += 1;
                    committed.note_entry(&entry);
                },
            );
            let Progress { position, commits, .. } = scan.progress();
            match scan.next()? {
                Next::Entry(entry, _) => {
                    *entries += 1;
                    committed.note_entry(&entry);
                }
                Next::Batch { payload, entry_count } => {
                    *entries += entry_count;
                    if scan.progress().commits > commits {
                        note_commits_of_batch(scan.bytes(&payload), committed);
                    }
                }
                Next::Mark(mark) => {
                    self.claims.add_mark(mark, place.segment_id, position, u64::MAX);
                }
                Next::Skipped => {}
                Next::Stop(Stop::Limit) if position < limit_position => {
                    let mut progress = scan.progress();
                    self.pass_checkpoint(&mut progress, &place)?;
                    scan.go_on_to(limit_position, progress);
                }
                Next::Stop(stop) => return Ok((stop, scan)),
            }
        }
    }

    /// Where the checkpoint stands, the log has come as far as the manifest says: replay begins there
    /// without a look at what lies before.
    fn pass_checkpoint(
        &self,
        progress: &mut Progress,
        place: &SegmentPlace,
    ) -> Result<(), Failure> {
        let Some((checkpoint, at)) =
            self.checkpoint.filter(|(_, at)| at.position == progress.position)
        else {
            return Ok(());
        };
        if at.sequence != progress.next_sequence {
            let problem = Problem {
                what: format!(
                    "the manifest says that checkpoint {} stands before sequence {}, but the next \
                     one here is {}",
                    checkpoint.id, at.sequence, progress.next_sequence
                ),
                bytes: 0,
            };
            return Err(place.damage(self.storage, at.position, &problem, None).into());
        }
        progress.raise(checkpoint.epoch, at.timestamp_ns);
        Ok(())
    }

    /// Collects the evidence at the place where the last scan stopped, marks behind it included.
    fn stopped(
        &mut self,
        scan: &mut SegmentScan,
        stop: Stop,
        limit_position: u64,
    ) -> Result<Stopped> {
        let place = *scan.place();
        let position = scan.progress().position;
        let nothing = |what: &str| Problem { what: what.to_owned(), bytes: 0 };
        let (at, problem) = match stop {
            Stop::Limit => (At::Cut, nothing("the log was cut here")),
            Stop::Seal => (At::Seal, nothing("sealed, and nothing valid behind it")),
            Stop::NotUnderstood(problem) => (At::NotUnderstood, problem),
            Stop::Falls(problem) => (At::Falls, problem),
            Stop::Unreadable(problem) => match self.is_zero_to_block_end(scan)? {
                true => (At::Zeroes, nothing("unwritten space")),
                false => (At::Unreadable, problem),
            },
        };
        let furthest = match at {
            // What stands behind a cut is no part of the log, and claims nothing.
            At::Cut => None,
            _ => {
                let claims = &mut self.claims;
                search_marks(scan.cursor_mut(), &place, position, limit_position, claims)?
            }
        };
        let block_end = match at {
            At::Unreadable => block_end(scan),
            _ => position,
        };
        Ok(Stopped {
            place,
            position,
            at,
            problem,
            mark_is_behind: furthest.is_some(),
            written_end: block_end.max(furthest.unwrap_or(0)),
        })
    }

    /// Whether nothing was written from the scan's position to the end of its block. A torn write
    /// that leaves the block's front leaves something there.
    fn is_zero_to_block_end(&self, scan: &mut SegmentScan) -> Result<bool> {
        let position = scan.progress().position;
        let rest_bytes = block_end(scan).saturating_sub(position);
        let rest_bytes = usize::try_from(rest_bytes).unwrap_or(usize::MAX);
        let offset = scan.place().offset_of(position);
        let window = scan.cursor_mut().window(offset, rest_bytes)?;
        let rest = window.get(..rest_bytes).unwrap_or(window);
        Ok(rest.iter().all(|&byte| byte == 0))
    }

    /// A segment that stopped below the base of the next one. That one's start is a claim, so the
    /// table knows nothing but errors for it.
    fn stopped_early(&self, scan: &SegmentScan, stop: Stop) -> WalError {
        let ends = |how: &str| {
            let what = format!("{how}, though the segment that continues it begins later");
            (At::Seal, Problem { what, bytes: 0 })
        };
        let (at, problem) = match stop {
            Stop::NotUnderstood(problem) => (At::NotUnderstood, problem),
            Stop::Falls(problem) => (At::Falls, problem),
            Stop::Unreadable(problem) => (At::Unreadable, problem),
            Stop::Seal => ends("sealed"),
            Stop::Limit => ends("the log was cut here"),
        };
        let stopped = Stopped {
            place: *scan.place(),
            position: scan.progress().position,
            at,
            problem,
            mark_is_behind: false,
            written_end: 0,
        };
        let (label, decision) = judge(&self.evidence(&stopped, Following::Absent));
        debug_assert_eq!(decision, Decision::Error, "{label}");
        self.damage(&stopped, None)
    }
}

/// The batch has been checked.
fn note_commits_of_batch(payload: &[u8], committed: &mut Committed) {
    for archive in BatchEntries::new(payload).flatten() {
        if let Ok(entry) = EntryView::access(archive) {
            committed.note_entry(&entry);
        }
    }
}

/// What a segment holds of the log between two places.
const fn span(member: &Member<'_>, from: &Progress, end: &Progress) -> SegmentSpan {
    let Member { header, start } = member;
    SegmentSpan {
        segment_id: header.segment_id,
        salt: header.identity.salt,
        size_bytes: header.identity.size_bytes,
        max_record_bytes: header.identity.max_record_bytes,
        segment_base_position: start.base_position,
        base_position: from.position,
        base_sequence: from.next_sequence,
        last_epoch: from.last_epoch,
        last_timestamp_ns: from.last_timestamp_ns,
        end_position: end.position,
        end_sequence: end.next_sequence,
    }
}

const fn in_records(member: &Member<'_>) -> Failed {
    Failed::Records { segment_id: member.header.segment_id }
}

/// The position of the end of the block that the scan stands in; a whole block if it stands at
/// the beginning of one.
fn block_end(scan: &mut SegmentScan) -> u64 {
    let block_bytes = BLOCK_BYTES as u64;
    let offset = scan.place().offset_of(scan.progress().position);
    let end_offset = offset - offset % block_bytes + block_bytes;
    let end_offset = end_offset.min(scan.cursor_mut().end_offset());
    scan.place().position_of(end_offset)
}
