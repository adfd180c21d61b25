//! The end of one core's log: all evidence held against the table, and what follows from it.

use wal_format::CoreDirectory;
use wal_storage::{Corruption, ProvenBy, Result, WalError};

use super::{CoreRecovery, Failed, Failure, Found, SegmentSpan, Stopped};
use crate::RecoveryMode;
use crate::chain::Member;
use crate::claims::search_marks;
use crate::directory::segment_name;
use crate::headers::SegmentHeader;
use crate::report::{Ending, EndingKind};
use crate::scan::{Problem, Progress, SegmentPlace};
use crate::verdict::{At, Decision, Evidence, Following, Label, judge};

impl CoreRecovery<'_> {
    /// What the table asks, at the end of the chain.
    pub(super) fn evidence(&self, stopped: &Stopped, following: Following) -> Evidence {
        Evidence {
            // Recovery does not begin with a segment for which this does not hold.
            identity_is_valid: true,
            at: stopped.at,
            chain_goes_on: false,
            // Without claims, promise 3 breaks: damage is taken for a torn tail.
            claim_is_above: !cfg!(wal_fault = "verdict_without_claims")
                && self.claims.largest_position() > stopped.position,
            mark_is_behind: stopped.mark_is_behind,
            following,
        }
    }

    /// Judges the end of the last segment, and so of the log.
    pub(super) fn finish(
        mut self,
        spans: Vec<SegmentSpan>,
        progress: Progress,
        mut stopped: Stopped,
        head: Option<&Member<'_>>,
    ) -> Result<Found, Failure> {
        let failed = match head {
            Some(head) => Failed::Records { segment_id: head.header.segment_id },
            None => Failed::NoSegment,
        };
        if stopped.at == At::Cut {
            self.check_cut_sequence(&stopped, &progress)
                .map_err(|error| Failure::at(progress, failed, error))?;
        }
        let (following, begun) = self.look_into_following(&mut stopped, head)?;
        let evidence = self.evidence(&stopped, following);
        let (label, decision) = judge(&evidence);
        if decision == Decision::Error {
            let error = self.damage(&stopped, Some((label, following)));
            return Err(Failure::at(progress, failed, error));
        }
        if let Some(segment_id) = begun {
            let name = segment_name(self.core, segment_id);
            stopped.problem.what.push_str(&format!("; {name} was begun, and its start is torn"));
        }
        let newest_vouch = head.and_then(|head| head.header.newest_vouch());
        let closed = following != Following::Torn
            && newest_vouch
                .is_some_and(|slot| slot.closed && slot.durable_position == progress.position);
        let is_torn = decision == Decision::Torn;
        if is_torn && self.mode == RecoveryMode::Strict {
            return Err(self.torn_in_strict_mode(&stopped).into());
        }
        #[cfg(wal_fault = "recovery_rewrites")]
        if is_torn && head.is_some() {
            // Breaks promise 4: the torn tail is wiped instead of left behind.
            let name = segment_name(self.core, stopped.place.segment_id);
            let file = self.storage.open(&name, wal_storage::Access::ReadWrite)?;
            let offset = stopped.place.offset_of(stopped.position);
            file.write_at(&[&[0; 8]], offset, wal_storage::WriteSync::None)?;
        }
        // A start is written together with the first batch: that it is there proves the log up
        // to its base, and nothing of the batch.
        let base_position = head.map_or(0, |head| head.start.base_position);
        let is_proven = self.claims.largest_position() == progress.position
            && progress.position > base_position;
        let kind = if is_torn {
            EndingKind::Torn {
                dropped_bytes_at_least: stopped.written_end.saturating_sub(stopped.position),
                unproven: !closed,
            }
        } else if closed {
            EndingKind::Closed
        } else if head.is_none() && progress == Progress::EMPTY {
            EndingKind::Empty
        } else if is_proven {
            EndingKind::Proven
        } else {
            EndingKind::Unproven
        };
        let ending = Ending {
            label,
            kind,
            file: head.map(|head| segment_name(self.core, head.header.segment_id)),
            found: stopped.problem.what,
        };
        Ok(Found {
            spans,
            progress,
            durable_position: self.claims.largest_position(),
            closed,
            entries: self.entries,
            committed: self.committed,
            ending,
        })
    }

    fn check_cut_sequence(&self, stopped: &Stopped, progress: &Progress) -> Result<()> {
        // Behind a range that was accepted as lost, the newest one may be what it was cut by.
        let deciding = self.cuts.deciding(stopped.place.segment_id);
        let newest = self.cuts.newest().filter(|cut| cut.position == stopped.position);
        match deciding.map(|deciding| newest.unwrap_or(deciding)) {
            Some(cut) if cut.sequence != progress.next_sequence => {
                let problem = Problem {
                    what: format!(
                        "the manifest says that the log was cut before sequence {}, but the next \
                         one here is {}",
                        cut.sequence, progress.next_sequence
                    ),
                    bytes: 0,
                };
                Err(stopped.place.damage(self.storage, stopped.position, &problem, None))
            }
            _ => Ok(()),
        }
    }

    /// Files behind the last segment have no valid start, but they may have been written to, and
    /// what they claim counts: their slots, and their marks as if they began where the log ends.
    /// Also says which one was begun.
    fn look_into_following(
        &mut self,
        stopped: &mut Stopped,
        head: Option<&Member<'_>>,
    ) -> Result<(Following, Option<u64>)> {
        let chain = self.chain;
        let mut begun = None;
        for header in &chain.following {
            let records_end = self.look_for_records(header, stopped.position)?;
            stopped.written_end = stopped.written_end.max(records_end.unwrap_or(0));
            if !header.is_blank() || records_end.is_some() {
                begun.get_or_insert(header.segment_id);
            }
        }
        let head_id = head.map_or(0, |head| head.header.segment_id);
        let expected_id = head_id.max(self.cuts.highest_dead_id()).saturating_add(1);
        let mut places = (0..).zip(&chain.following);
        let has_gap = places.any(|(place, it)| it.segment_id != expected_id.saturating_add(place));
        let following = match begun {
            _ if chain.following.is_empty() => Following::Absent,
            _ if has_gap => Following::Gap,
            None => Following::Unused,
            Some(_) => Following::Torn,
        };
        Ok((following, begun))
    }

    /// Collects what a file without a valid start claims, and says where records of this life in
    /// it end, as if it began at `base_position`; `None` if there is none.
    ///
    /// The blocks of its header say too little: had damage wiped out the start alone, they would
    /// look as they were prepared, and the batch that was written with it is there.
    fn look_for_records(
        &mut self,
        header: &SegmentHeader,
        base_position: u64,
    ) -> Result<Option<u64>> {
        self.claims.add_header(header, u64::MAX);
        let place = SegmentPlace::new(header, base_position);
        let mut cursor = place.open(self.storage, std::mem::take(&mut self.buffers))?;
        let claims = &mut self.claims;
        let mut furthest = search_marks(&mut cursor, &place, base_position, u64::MAX, claims)?;
        let mut position = base_position;
        while let Ok(record) = cursor.locate(
            place.offset_of(position),
            place.salt,
            position,
            place.max_record_bytes,
        )? {
            position = position.saturating_add(record.record_bytes);
            furthest = furthest.max(Some(position));
        }
        self.buffers = cursor.into_buffers();
        Ok(furthest)
    }

    pub(super) fn damage(&self, stopped: &Stopped, end: Option<(Label, Following)>) -> WalError {
        let proof = self.claims.proof_above(stopped.position);
        let mut problem = stopped.problem.clone();
        if proof.is_none()
            && let Some((Label::F, following)) = end
        {
            problem.what = match following {
                Following::Gap => "a numbered file that must stand behind this one is missing, \
                                   while later ones are there"
                    .to_owned(),
                _ => "sealed, but the next numbered file, which was there then, is missing"
                    .to_owned(),
            };
        }
        self.error_at(stopped, &problem, proof)
    }

    /// An error about the place where the records stopped; without any segment, about the core's
    /// directory.
    fn error_at(
        &self,
        stopped: &Stopped,
        problem: &Problem,
        proven_by: Option<ProvenBy>,
    ) -> WalError {
        if stopped.at != At::NoSegment {
            return stopped.place.damage(self.storage, stopped.position, problem, proven_by);
        }
        Corruption {
            path: self.storage.path().join(CoreDirectory(self.core).to_string()),
            core: Some(self.core),
            position: Some(stopped.position),
            file_range: None,
            what: problem.what.clone(),
            proven_by,
        }
        .into()
    }

    fn torn_in_strict_mode(&self, stopped: &Stopped) -> WalError {
        let problem = Problem {
            what: format!(
                "torn write: {}; strict recovery drops nothing, the default mode would",
                stopped.problem.what
            ),
            bytes: stopped.written_end.saturating_sub(stopped.position).max(stopped.problem.bytes),
        };
        self.error_at(stopped, &problem, None)
    }
}
