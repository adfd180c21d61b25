//! Targets of recoveries: chosen among what was logged, and what each must leave of it.

use std::collections::BTreeMap;

use wal_format::{Manifest, Membership};
use wal_recovery::RecoveryTarget;

use crate::oracle::{CoreOracle, Known, Oracle};
use crate::random::index;
use crate::workload::{GoingBack, HowFar};

/// What is known of a log that nobody has open, all of which was recovered.
#[derive(Clone, Copy)]
pub(crate) struct Logged<'a> {
    pub(crate) oracle: &'a Oracle,
    pub(crate) manifest: &'a Manifest,
}

impl Logged<'_> {
    /// The target that was meant: at some entry, or just below it.
    pub(crate) fn choose(self, GoingBack { how_far, pick, .. }: GoingBack) -> RecoveryTarget {
        let known: Vec<&Known> = self.cores().flat_map(|(_, core)| &core.entries).collect();
        let below = pick & 1;
        match how_far {
            HowFar::LastCompleteEpoch => RecoveryTarget::LastCompleteEpoch,
            HowFar::Epoch => {
                let epoch = index(pick / 2, known.len()).map_or(0, |at| known[at].epoch);
                RecoveryTarget::Epoch(epoch.saturating_sub(below))
            }
            HowFar::Timestamp => {
                let times: Vec<i64> = known.iter().filter_map(|known| known.timestamp_ns).collect();
                let time = index(pick / 2, times.len()).map_or(0, |at| times[at]);
                RecoveryTarget::Timestamp(time - below.cast_signed())
            }
        }
    }

    /// Of each core how many entries are kept: those that fulfil the target, no part of an atomic
    /// batch alone, and whatever lies below a checkpoint.
    pub(crate) fn kept(self, target: RecoveryTarget) -> BTreeMap<u16, usize> {
        let complete = self.last_complete_epoch();
        let is_kept = |known: &Known| match target {
            RecoveryTarget::LastCompleteEpoch => Some(known.epoch) <= complete,
            RecoveryTarget::Epoch(epoch) => known.epoch <= epoch,
            RecoveryTarget::Timestamp(time) => known.timestamp_ns.is_some_and(|it| it <= time),
            _ => true,
        };
        let kept_of = |core: &CoreOracle| {
            let behind = core.entries.iter().skip(core.released());
            let kept = core.released() + behind.take_while(|known| is_kept(known)).count();
            let next = core.entries.get(kept);
            kept - next.map_or(0, |next| next.before_in_batch)
        };
        self.cores().map(|(core, oracle)| (core, kept_of(oracle))).collect()
    }

    /// Something that lies below a checkpoint is not to be kept.
    pub(crate) fn must_be_refused(self, target: RecoveryTarget) -> bool {
        let released = |core: &CoreOracle| core.released().checked_sub(1);
        let mut last = self.cores().filter_map(|(_, core)| core.entries.get(released(core)?));
        last.any(|known| match target {
            RecoveryTarget::Epoch(epoch) => known.epoch > epoch,
            RecoveryTarget::Timestamp(time) => known.timestamp_ns.is_some_and(|it| it > time),
            _ => false,
        })
    }

    /// By what the manifest says, something below a checkpoint may be.
    pub(crate) fn may_be_refused(self, target: RecoveryTarget) -> bool {
        let Manifest { checkpoint, releases, .. } = self.manifest;
        match target {
            RecoveryTarget::Epoch(epoch) => {
                let mut epochs = releases.iter().map(|release| release.last_epoch);
                checkpoint.as_ref().is_some_and(|checkpoint| epoch < checkpoint.epoch)
                    || epochs.any(|released| epoch < released)
            }
            RecoveryTarget::Timestamp(time) => {
                let places = checkpoint.iter().flat_map(|checkpoint| &checkpoint.cores);
                let mut times = places
                    .map(|place| place.timestamp_ns)
                    .chain(releases.iter().map(|release| release.last_timestamp_ns));
                times.any(|released| time < released)
            }
            _ => false,
        }
    }

    /// The highest epoch that was left by all cores that took part in it and still log.
    fn last_complete_epoch(self) -> Option<u64> {
        let members = &self.manifest.members;
        let newest = members.last()?;
        let barrier_of = |core: u16| {
            let known = self.oracle.cores.get(&core)?.entries.iter();
            known.filter_map(Known::barrier_epoch).max()
        };
        let is_complete = |epoch: &u64| {
            let then = members.iter().rfind(|membership| membership.first_epoch <= *epoch);
            let cores = then.into_iter().flat_map(cores_of);
            let mut still_log = cores.filter(|core| cores_of(newest).any(|it| it == *core));
            still_log.all(|core| barrier_of(core) >= Some(*epoch))
        };
        let barriers = self.cores().flat_map(|(_, core)| &core.entries);
        let barriers = barriers.filter_map(Known::barrier_epoch);
        let ends = members.iter().filter_map(|membership| membership.first_epoch.checked_sub(1));
        barriers.chain(ends).filter(is_complete).max()
    }

    fn cores(&self) -> impl Iterator<Item = (u16, &CoreOracle)> {
        self.oracle.cores.iter().map(|(&core, oracle)| (core, oracle))
    }
}

fn cores_of(membership: &Membership) -> impl Iterator<Item = u16> + use<> {
    let first = u32::from(membership.first_core);
    (first..first + membership.core_count).filter_map(|core| u16::try_from(core).ok())
}
