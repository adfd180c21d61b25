//! Replaying what an opening recovered, while its writers go on, cut, and open the log again.

use std::collections::BTreeMap;
use std::ops::Range;

use wal_entry::EntryView;
use wal_recovery::Recovery;
use wal_storage::WalError;

use super::Life;
use crate::Checked;
use crate::oracle::{Known, Recovered};
use crate::random::index;
use crate::workload::{HowReplayed, Opening, Pick};

/// What an opening recovered, and what it must give whenever it is replayed.
#[derive(Debug)]
pub(super) struct Kept {
    recovery: Recovery,
    /// The opening that it came from.
    opening: u64,
    cores: BTreeMap<u16, Vec<Known>>,
    /// With which entry the replay of each core begins: behind the checkpoint.
    firsts: BTreeMap<u16, usize>,
}

/// More are not kept at once.
const KEPT_MAX: usize = 3;

impl Life<'_> {
    /// The segments that it may still read stay for as long as it is kept, or until the log is
    /// opened again.
    pub(super) fn keep_replay(
        &mut self,
        recovery: Recovery,
        opening: &Opening,
        found: &BTreeMap<u16, Recovered>,
    ) {
        if !opening.keeps_replay || self.kept.len() >= KEPT_MAX {
            return;
        }
        let of_core = |core: u16| self.oracle.cores.get(&core).map(|core| core.entries.clone());
        let cores = found.keys().map(|&core| (core, of_core(core).unwrap_or_default())).collect();
        let firsts = found.iter().map(|(&core, recovered)| (core, recovered.first)).collect();
        self.kept.push(Kept { recovery, opening: self.openings, cores, firsts });
    }

    /// The background recycles what nothing needs any more: what is kept is not among it.
    pub(super) fn replay_each(&self) -> Checked {
        let mut kept = self.kept.iter();
        kept.try_for_each(|kept| self.replay_one(kept, 0, HowReplayed::Merged))
    }

    pub(super) fn replay(&self, pick: Pick, how: HowReplayed) -> Checked {
        match index(pick, self.kept.len()).and_then(|at| self.kept.get(at)) {
            Some(kept) => self.replay_one(kept, pick / 4, how),
            None => Ok(()),
        }
    }

    fn replay_one(&self, kept: &Kept, pick: Pick, how: HowReplayed) -> Checked {
        // Whoever opens a log again may take from it what an earlier opening recovered.
        let is_pinned = kept.opening == self.openings;
        match kept.replay(pick, how) {
            Ok(()) => Ok(()),
            Err(Stopped::Failed(error)) if !is_pinned || self.has_failed() => {
                match error {
                    // It was overwritten, or taken away; and that is what it says.
                    WalError::Io { .. } | WalError::Corrupt(_) => Ok(()),
                    error => Err(format!("replaying: {error}")),
                }
            }
            Err(Stopped::Failed(error)) => Err(format!("replaying what is pinned: {error}")),
            Err(Stopped::Wrong(what)) => Err(format!("replaying {how:?}: {what}")),
        }
    }
}

impl Kept {
    fn replay(&self, pick: Pick, how: HowReplayed) -> Result<(), Stopped> {
        match how {
            HowReplayed::Merged => {
                self.compare(&self.recovery, |core, known| self.first(core)..known.len())
            }
            HowReplayed::CoreByCore => self.cores.iter().try_for_each(|(&core, known)| {
                let mut left = known.iter().enumerate().skip(self.first(core));
                self.recovery.try_for_each_of_core(core, |entry| is_next(left.next(), &entry))?;
                is_over(core, left.next())
            }),
            HowReplayed::UpToAnEpoch => {
                let epochs = self.cores.values().flatten().map(|known| known.epoch);
                let epochs: Vec<u64> = epochs.collect();
                let epoch = index(pick, epochs.len()).map_or(0, |at| epochs[at]);
                let replay = self.recovery.clone().up_to_epoch(epoch);
                self.compare(&replay, |core, known| {
                    let (first, end) =
                        (self.first(core), known.partition_point(|known| known.epoch <= epoch));
                    first..end.max(first)
                })
            }
            HowReplayed::FromPositions => {
                let places = self.cores.iter().map(|(&core, known)| {
                    // What lies below the checkpoint may be there or not.
                    let left = known.get(self.first(core)..).unwrap_or_default();
                    let at = index(pick, left.len()).and_then(|at| left.get(at));
                    // In the midst of a record is behind its beginning.
                    (core, at.map_or(u64::MAX, |known| known.position + 8 * (pick & 1)))
                });
                let places: BTreeMap<u16, u64> = places.collect();
                let positions: Vec<(u16, u64)> = places.clone().into_iter().collect();
                let replay = self.recovery.clone().from_positions(&positions);
                self.compare(&replay, |core, known| {
                    let from = places.get(&core).copied().unwrap_or(0);
                    known.partition_point(|known| known.position < from)..known.len()
                })
            }
        }
    }

    fn first(&self, core: u16) -> usize {
        self.firsts.get(&core).copied().unwrap_or(0)
    }

    /// Replays all cores, merged: of each core just the entries that `part` leaves.
    fn compare(
        &self,
        replay: &Recovery,
        part: impl Fn(u16, &[Known]) -> Range<usize>,
    ) -> Result<(), Stopped> {
        let parts = self.cores.iter().map(|(&core, known)| {
            let part = part(core, known);
            (core, part.clone().zip(&known[part]))
        });
        let mut left: BTreeMap<u16, _> = parts.collect();
        let mut last = None;
        replay.try_for_each(|entry| {
            let order = entry.replay_order();
            if last.is_some_and(|last| last >= order) {
                return Err(Stopped::Wrong(format!("{entry:?} comes behind one that is later")));
            }
            last = Some(order);
            is_next(left.get_mut(&entry.core_id()).and_then(Iterator::next), &entry)
        })?;
        left.into_iter().try_for_each(|(core, mut left)| is_over(core, left.next()))
    }
}

/// Whether an entry is the one that comes next of its core.
fn is_next(next: Option<(usize, &Known)>, entry: &EntryView<'_>) -> Result<(), Stopped> {
    match next {
        None => Err(Stopped::Wrong(format!("{entry:?} is one too many"))),
        Some((at, _)) if at as u64 != entry.sequence() => {
            Err(Stopped::Wrong(format!("{entry:?} comes in place of sequence {at}")))
        }
        Some((_, known)) => known.check(entry).map_err(Stopped::Wrong),
    }
}

fn is_over(core: u16, next: Option<(usize, &Known)>) -> Result<(), Stopped> {
    match next {
        Some((at, _)) => Err(Stopped::Wrong(format!("core {core}: it ends before sequence {at}"))),
        None => Ok(()),
    }
}

/// Why a replay did not come to its end.
enum Stopped {
    Failed(WalError),
    Wrong(String),
}

impl From<WalError> for Stopped {
    fn from(error: WalError) -> Self {
        Self::Failed(error)
    }
}
