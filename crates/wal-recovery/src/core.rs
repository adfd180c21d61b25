//! One core's log: from its files to where it ends and what a writer goes on from.

mod behind_checkpoint;
mod end;
mod walk;

use wal_format::{Checkpoint, CheckpointCore, Manifest};
use wal_storage::{Result, Storage, WalError};

use crate::RecoveryMode;
use crate::chain::{self, Chain, Headers, OtherSegment, OtherSegmentKind};
use crate::claims::Claims;
use crate::committed::Committed;
use crate::cursor::Buffers;
use crate::cuts::Cuts;
use crate::directory::CoreFiles;
use crate::headers;
use crate::holes::Holes;
use crate::report::{CoreReport, Ending};
use crate::scan::{Problem, Progress, SegmentPlace};
use crate::verdict::At;

/// One core's log as recovery found it: the only thing from which a writer goes on.
///
/// Only recovery makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredCore {
    /// The core.
    pub core: u16,
    /// The segments that are its log, oldest first; empty if no segment has a valid start. The
    /// first one holds the release position.
    pub spans: Vec<SegmentSpan>,
    /// Where the valid log ends: the base of the next segment.
    pub end_position: u64,
    /// The sequence of the next entry; 0 in an empty log.
    pub next_sequence: u64,
    /// The highest epoch that a valid entry, a start, the checkpoint, a release or a cut of this
    /// core knows; 0 in an empty log. No later entry may have a lower one.
    pub last_epoch: u64,
    /// The epoch to go on with: `last_epoch`, or the one behind it if its barrier is there.
    pub next_epoch: u64,
    /// The highest timestamp that those know; `i64::MIN` in an empty log.
    pub last_timestamp_ns: i64,
    /// The epoch of the last barrier: everything of it and below is there. `None` if no barrier
    /// was found, and no checkpoint or release speaks of one.
    pub barrier_epoch: Option<u64>,
    /// What the commits behind the checkpoint come to.
    pub committed: Committed,
    /// The newest vouch slot says that the core was closed exactly at `end_position`, and nothing
    /// was begun since.
    pub closed: bool,
    /// What must be written again and synced before anything builds on it. `None` after a clean
    /// close, or if there are no spans.
    pub adoption: Option<Adoption>,
    /// Numbered files that hold nothing of the log, ascending.
    pub other_segments: Vec<OtherSegment>,
    /// Names of segments that were being prepared, in the core's directory. Worth nothing.
    pub temporaries: Vec<String>,
    /// No file and no cut has a higher number; 0 if there is none.
    pub highest_segment_id: u64,
}

/// A segment of a core's log, and a part of the log that it holds: all of it, unless a range in
/// its midst was accepted as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSpan {
    /// The segment's number.
    pub segment_id: u64,
    /// The salt of this life of its file.
    pub salt: u64,
    /// The size of its file.
    pub size_bytes: u64,
    /// The largest payload of a record in it.
    pub max_record_bytes: u32,
    /// Where the records in its file begin.
    pub segment_base_position: u64,
    /// Where the part begins: with the segment, or behind a range that was accepted as lost.
    pub base_position: u64,
    /// The sequence of its first entry.
    pub base_sequence: u64,
    /// The epoch before its first entry, as its start says.
    pub last_epoch: u64,
    /// The timestamp before its first entry, as its start says.
    pub last_timestamp_ns: i64,
    /// Where it ends, whatever stands behind that in its file.
    pub end_position: u64,
    /// The sequence of the entry behind it.
    pub end_sequence: u64,
}

/// Bytes at the end of a core's log that nothing vouches for: the page cache may be all that
/// holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adoption {
    /// The segment that they lie in: always the last span's.
    pub segment_id: u64,
    /// Everything below was durable; not below the segment's base.
    pub from_position: u64,
    /// The log's end. May equal `from_position`: start and vouch blocks are adopted all the same.
    pub to_position: u64,
}

/// From where on the records of a core's log are read and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanFrom {
    /// From the first one that is still there.
    Start,
    /// From the last checkpoint on, if there is one.
    Checkpoint,
}

impl ScanFrom {
    /// A mode that is about damage looks for it everywhere; who opens a log to go on does not wait
    /// for what the checkpoint's snapshot has.
    pub(crate) const fn of_mode(mode: RecoveryMode) -> Self {
        match mode {
            RecoveryMode::TornTail => Self::Checkpoint,
            RecoveryMode::Strict | RecoveryMode::PointInTime | RecoveryMode::Salvage => Self::Start,
        }
    }
}

/// Why a core cannot be recovered whole.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: WalError,
    /// Where the log stops being whole; `None` if it cannot be said: what cannot be read now may be
    /// intact.
    pub(crate) stop: Option<Box<FailedAt>>,
}

/// Where a core's log stops being whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailedAt {
    /// It is whole up to there at most.
    pub(crate) progress: Progress,
    pub(crate) what: Failed,
}

/// What ends a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The records of this segment.
    Records { segment_id: u64 },
    /// The start of this segment: what should stand before it does not.
    Start { segment_id: u64 },
    /// There is no segment at all.
    NoSegment,
}

impl From<WalError> for Failure {
    fn from(error: WalError) -> Self {
        Self { error, stop: None }
    }
}

impl Failure {
    pub(crate) fn at(progress: Progress, what: Failed, error: WalError) -> Self {
        Self { error, stop: Some(Box::new(FailedAt { progress, what })) }
    }
}

/// A core's segment files: their header blocks, and what is wrong with some of them.
#[derive(Debug)]
pub(crate) struct CoreHeaders {
    pub(crate) headers: Headers,
    /// By the number of the file.
    pub(crate) findings: Vec<(u64, WalError)>,
}

/// Reads the header blocks of every segment file of a core.
pub(crate) fn read_headers(
    storage: &dyn Storage,
    core: u16,
    files: &CoreFiles,
    manifest: Option<&Manifest>,
) -> CoreHeaders {
    let log_id = manifest.map(|manifest| manifest.log_id);
    let mut headers = Headers::new();
    let mut findings = Vec::new();
    for &segment_id in &files.not_files {
        let what = "it is not a regular file".to_owned();
        findings.push((segment_id, headers::not_its_own(storage, core, segment_id, None, what)));
    }
    for &segment_id in &files.segment_ids {
        match headers::read(storage, core, segment_id, log_id) {
            Ok(header) => {
                headers.insert(segment_id, header);
            }
            Err(error) => findings.push((segment_id, error)),
        }
    }
    CoreHeaders { headers, findings }
}

/// Recovers one core, whose header blocks are all valid.
pub(crate) fn recover(
    storage: &dyn Storage,
    mode: RecoveryMode,
    scan_from: ScanFrom,
    manifest: Option<&Manifest>,
    core: u16,
    files: &CoreFiles,
    headers: &Headers,
) -> Result<(RecoveredCore, CoreReport), Failure> {
    let cuts = Cuts::of_core(core, manifest);
    let release = manifest.and_then(|manifest| manifest.release(core));
    let release_position = release.map_or(0, |release| release.position);
    let holes = Holes::of_core(core, manifest);
    let chain = chain::build(storage, headers, &cuts, &holes, release_position)?;
    let mut claims = Claims::default();
    claims.add_manifest(core, manifest, &cuts);
    for member in &chain.members {
        claims.add_header(member.header, cuts.limit(member.header.segment_id));
    }
    let checkpoint = manifest.and_then(|manifest| manifest.checkpoint.as_ref());
    let checkpoint = checkpoint.and_then(|checkpoint| Some((checkpoint, checkpoint.place(core)?)));
    let recovery = CoreRecovery {
        storage,
        mode,
        scan_from,
        core,
        cuts: &cuts,
        holes: &holes,
        checkpoint,
        chain: &chain,
        release_position,
        claims,
        entries: 0,
        committed: Committed::default(),
        buffers: Buffers::default(),
    };
    let mut found = recovery.run()?;
    if let Some((_, place)) = checkpoint {
        found.committed.retain(|order| order.sequence >= place.sequence);
    }

    let mut reached = found.progress;
    raise_to_floors(&mut reached, core, manifest, &cuts);
    let spans = found.spans;
    let end_position = found.progress.position;
    let adoption = match spans.last() {
        Some(last) if !found.closed => Some(Adoption {
            segment_id: last.segment_id,
            from_position: found.durable_position.clamp(last.base_position, last.end_position),
            to_position: last.end_position,
        }),
        _ => None,
    };
    let first_position = spans.first().map_or(end_position, |span| span.base_position);
    let report = CoreReport {
        core,
        segments: segment_count(&spans),
        entries: found.entries,
        bytes: end_position.saturating_sub(first_position),
        end_position,
        next_sequence: reached.next_sequence,
        last_epoch: reached.last_epoch,
        ending: found.ending,
    };
    let lost = files.lost.iter().map(|&segment_id| OtherSegment {
        segment_id,
        size_bytes: 0,
        why: OtherSegmentKind::Lost,
    });
    let mut other_segments: Vec<OtherSegment> = chain.others.into_iter().chain(lost).collect();
    other_segments.sort_unstable_by_key(|other| other.segment_id);
    let recovered = RecoveredCore {
        core,
        end_position,
        next_sequence: reached.next_sequence,
        last_epoch: reached.last_epoch,
        next_epoch: reached.next_epoch(),
        last_timestamp_ns: reached.last_timestamp_ns,
        barrier_epoch: reached.barrier_epoch,
        committed: found.committed,
        closed: found.closed,
        adoption,
        spans,
        other_segments,
        temporaries: files.temporaries.clone(),
        highest_segment_id: files.highest_id().max(cuts.highest_dead_id()),
    };
    Ok((recovered, report))
}

fn segment_count(spans: &[SegmentSpan]) -> u64 {
    spans.chunk_by(|a, b| a.segment_id == b.segment_id).count() as u64
}

/// What released and cut entries knew: it stands in the manifest, and nowhere else any more.
fn raise_to_floors(reached: &mut Progress, core: u16, manifest: Option<&Manifest>, cuts: &Cuts) {
    let Some(manifest) = manifest else { return };
    if let Some(release) = manifest.release(core) {
        reached.raise(release.last_epoch, release.last_timestamp_ns);
        // What is released ends with a barrier, which may be gone.
        reached.barrier_epoch = reached.barrier_epoch.max(Some(release.last_epoch));
    }
    for cut in cuts.iter() {
        reached.raise(cut.last_epoch, cut.last_timestamp_ns);
    }
    if let Some(checkpoint) = &manifest.checkpoint
        && let Some(place) = checkpoint.place(core)
    {
        reached.raise(checkpoint.epoch, place.timestamp_ns);
        reached.barrier_epoch = reached.barrier_epoch.max(Some(checkpoint.epoch));
    }
}

/// The work on one core.
struct CoreRecovery<'a> {
    storage: &'a dyn Storage,
    mode: RecoveryMode,
    scan_from: ScanFrom,
    core: u16,
    cuts: &'a Cuts,
    holes: &'a Holes,
    /// The last checkpoint, and where it stands on this core.
    checkpoint: Option<(&'a Checkpoint, &'a CheckpointCore)>,
    chain: &'a Chain<'a>,
    release_position: u64,
    claims: Claims,
    entries: u64,
    committed: Committed,
    buffers: Buffers,
}

/// What came out of it.
struct Found {
    spans: Vec<SegmentSpan>,
    progress: Progress,
    /// The largest claim.
    durable_position: u64,
    closed: bool,
    entries: u64,
    committed: Committed,
    ending: Ending,
}

/// Where the records of a segment stopped.
struct Stopped {
    place: SegmentPlace,
    position: u64,
    at: At,
    problem: Problem,
    mark_is_behind: bool,
    /// What stands between here and there was written, and is dropped if this is torn.
    written_end: u64,
}
