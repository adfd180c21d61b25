//! The chain: which segment files are the log, and what the others are.

use std::collections::BTreeMap;

use wal_format::{Predecessor, Start};
use wal_storage::{Corruption, ProvenBy, Storage};

use crate::claims::Witness;
use crate::core::{Failed, Failure};
use crate::cuts::Cuts;
use crate::directory::segment_name;
use crate::headers::SegmentHeader;
use crate::holes::Holes;
use crate::scan::Progress;

/// The header blocks of one core's segments, by number.
pub(crate) type Headers = BTreeMap<u64, SegmentHeader>;

/// A numbered file that holds nothing of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherSegment {
    /// The segment's number.
    pub segment_id: u64,
    /// The size of its file, as its identity block says; 0 if that cannot be read.
    pub size_bytes: u64,
    /// What became of it.
    pub why: OtherSegmentKind,
}

/// Why a numbered file holds nothing of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherSegmentKind {
    /// It has no valid start: prepared and never used, or its first write was torn. It is only
    /// replaced under a new salt, never begun as it is.
    Unused,
    /// A cut took it out of the log.
    Dead,
    /// It lies wholly below the release position, and can be unlinked.
    Released,
    /// It cannot be read, and the loss of what it held was accepted.
    Lost,
}

/// A segment of the chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) header: &'a SegmentHeader,
    pub(crate) start: &'a Start,
}

/// The segments that are the log, and the others.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    /// Oldest first; empty if no segment has a valid start that counts.
    pub(crate) members: Vec<Member<'a>>,
    /// In order of their numbers.
    pub(crate) others: Vec<OtherSegment>,
    /// Files above the last member that no cut made dead: what would continue the log if it
    /// began anywhere.
    pub(crate) following: Vec<&'a SegmentHeader>,
}

/// Walks backwards from the highest segment with a valid start to the one that holds the release
/// position.
///
/// A predecessor has a lower number, so the walk ends. It is named with its salt, and no other
/// life of that number will do.
pub(crate) fn build<'a>(
    storage: &dyn Storage,
    headers: &'a Headers,
    cuts: &Cuts,
    holes: &Holes,
    release_position: u64,
) -> Result<Chain<'a>, Failure> {
    let live = |member: &Member<'_>| !cuts.makes_dead(member.header);
    let mut members = Vec::new();
    let mut next = headers.values().rev().filter_map(member).find(live);
    while let Some(current) = next {
        members.push(current);
        if current.start.base_position <= release_position {
            break;
        }
        let hole = holes.before(current.header.segment_id, current.start.base_position);
        let named = predecessor(storage, headers, cuts, holes, release_position, current);
        next = match (named, hole) {
            (Ok(named), _) => Some(named),
            (Err(failure), None) => return Err(failure),
            // Whatever there is below the hole; nothing, if that was released.
            (Err(failure), Some(hole_position)) => {
                let below = headers.values().rev().filter_map(member).filter(live).find(|it| {
                    it.header.segment_id < current.header.segment_id
                        && it.start.base_position < current.start.base_position
                });
                if below.is_none() && hole_position > release_position {
                    return Err(failure);
                }
                below
            }
        };
    }
    members.reverse();
    let head_id = members.last().map_or(0, |head| head.header.segment_id);
    let following = headers.values().filter(|header| {
        header.segment_id > head_id && header.start.is_err() && !cuts.makes_dead(header)
    });
    Ok(Chain {
        following: following.collect(),
        others: others(storage, headers, cuts, &members)?,
        members,
    })
}

fn member(header: &SegmentHeader) -> Option<Member<'_>> {
    let start = header.start.as_ref().ok()?;
    Some(Member { header, start })
}

fn predecessor<'a>(
    storage: &dyn Storage,
    headers: &'a Headers,
    cuts: &Cuts,
    holes: &Holes,
    release_position: u64,
    current: Member<'a>,
) -> Result<Member<'a>, Failure> {
    let Member { header, start } = current;
    let base_position = start.base_position;
    let Some(named) = start.predecessor else {
        let what = format!(
            "its log begins here, at position {base_position}, but nothing below that was \
             released except up to {release_position}"
        );
        return Err(broken(storage, current, what));
    };
    let Predecessor { segment_id, salt, .. } = named;
    let name = segment_name(header.core, segment_id);
    let broken = |what| Err(broken(storage, current, what));
    if segment_id >= header.segment_id {
        return broken(format!("it names {name}, a later file, as its predecessor"));
    }
    let Some(found) = headers.get(&segment_id) else {
        return broken(format!("its predecessor {name} is missing"));
    };
    if found.identity.salt != salt {
        return broken(format!(
            "its predecessor {name} has salt {:#018x}, not {salt:#018x}: another life of that file",
            found.identity.salt
        ));
    }
    let member = match &found.start {
        Ok(start) => Member { header: found, start },
        Err(error) => {
            return broken(format!("its predecessor {name} has no valid start: {error}"));
        }
    };
    let predecessor_base = member.start.base_position;
    if predecessor_base > base_position {
        return broken(format!(
            "it begins at {base_position}, its predecessor {name} at {predecessor_base}, behind it"
        ));
    }
    let limit_position = cuts.limit(segment_id);
    // What stood between was lost, and that was accepted.
    let is_lost = holes.end_of(segment_id, limit_position, base_position) == Some(base_position);
    if cuts.makes_dead(found) || (base_position > limit_position && !is_lost) {
        return broken(format!(
            "it continues {name} at {base_position}, but that segment was cut at {limit_position}"
        ));
    }
    Ok(member)
}

/// Says of every file outside the chain what it is.
///
/// A valid start that counts and is not in the chain can only lie below it: released, the unlink
/// not yet durable. Nothing else leaves one: an opening that goes on starts its segment from the
/// head that recovery found, and a start that did not become valid is replaced under a new salt
/// before the next one is written; a start that was superseded by a cut is dead. So such a
/// segment holds records that were durable, and the head does not descend from it: damage.
///
/// A file without a valid start between members was prepared, or torn, and passed over: a file
/// whose name failed to become durable is never used, and another one took its place.
fn others(
    storage: &dyn Storage,
    headers: &Headers,
    cuts: &Cuts,
    members: &[Member<'_>],
) -> Result<Vec<OtherSegment>, Failure> {
    let mut others = Vec::new();
    for header in headers.values() {
        let segment_id = header.segment_id;
        if members.binary_search_by_key(&segment_id, |member| member.header.segment_id).is_ok() {
            continue;
        }
        let why = match member(header) {
            _ if cuts.makes_dead(header) => OtherSegmentKind::Dead,
            None => OtherSegmentKind::Unused,
            Some(other) => match members.first() {
                Some(first) if is_below(&other, first) => OtherSegmentKind::Released,
                _ => {
                    let base_position = other.start.base_position;
                    let head = members.last().map_or(segment_id, |head| head.header.segment_id);
                    let what = format!(
                        "it holds the log from {base_position} on, but {} does not descend from it",
                        segment_name(header.core, head)
                    );
                    return Err(broken(storage, other, what));
                }
            },
        };
        others.push(OtherSegment { segment_id, size_bytes: header.identity.size_bytes, why });
    }
    Ok(others)
}

/// Whether a segment ends where the chain begins, or before.
fn is_below(other: &Member<'_>, first: &Member<'_>) -> bool {
    other.header.segment_id < first.header.segment_id
        && other.start.base_position <= first.start.base_position
}

/// Damage of the chain, found in a segment's start, which proves that its predecessors were there.
fn broken(storage: &dyn Storage, member: Member<'_>, what: String) -> Failure {
    let Member { header, start } = member;
    let (segment_id, base_position) = (header.segment_id, start.base_position);
    let damage = Corruption {
        path: storage.path().join(segment_name(header.core, segment_id)),
        core: Some(header.core),
        position: Some(base_position),
        file_range: None,
        what,
        proven_by: Some(ProvenBy {
            durable_position: base_position,
            witness: Witness::Start { segment_id }.to_string(),
        }),
    };
    Failure::at(Progress::before(start), Failed::Start { segment_id }, damage.into())
}
