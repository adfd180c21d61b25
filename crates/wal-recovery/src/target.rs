//! Up to where a log is recovered.

use wal_entry::ReplayOrder;
use wal_format::{Manifest, Membership};
use wal_storage::{Result, WalError};

use crate::core::RecoveredCore;

/// Up to where a log is recovered. What lies behind is left out, and dropped once that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RecoveryTarget {
    /// The end: everything that there is.
    #[default]
    End,
    /// The end of the last epoch whose barriers are there on all its cores: for engines that
    /// apply an epoch on all cores or on none. Cores that log no more have left every epoch.
    LastCompleteEpoch,
    /// The end of this epoch, complete or not: for going back to what is known to be good.
    Epoch(u64),
    /// This time, in nanoseconds since 1970: entries with a later timestamp are left out. For
    /// going back to before somebody's mistake.
    Timestamp(i64),
}

/// Which entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    All,
    Below(ReplayOrder),
    UpToEpoch(u64),
    UpToTimestamp(i64),
    /// None but those below the checkpoint, or below what was released.
    Checkpointed,
}

impl Kept {
    pub(crate) fn keeps(self, order: &ReplayOrder) -> bool {
        match self {
            Self::All => true,
            Self::Below(limit) => *order < limit,
            Self::UpToEpoch(epoch) => order.epoch <= epoch,
            Self::UpToTimestamp(timestamp_ns) => order.timestamp_ns <= timestamp_ns,
            Self::Checkpointed => false,
        }
    }
}

impl RecoveryTarget {
    /// # Errors
    ///
    /// [`WalError::InvalidArgument`] if the target lies below the last checkpoint, or below what was
    /// released.
    pub(crate) fn kept(self, manifest: &Manifest, cores: &[&RecoveredCore]) -> Result<Kept> {
        let checkpoint = manifest.checkpoint.as_ref();
        let refuse = |what: String| Err(WalError::InvalidArgument { what });
        // A reset of another core takes the checkpoint away, and not what it released.
        let mut releases = manifest.releases.iter();
        match self {
            Self::End => Ok(Kept::All),
            Self::LastCompleteEpoch => {
                let complete = last_complete_epoch(&manifest.members, cores);
                let epoch = complete.max(checkpoint.map(|checkpoint| checkpoint.epoch));
                Ok(epoch.map_or(Kept::Checkpointed, Kept::UpToEpoch))
            }
            Self::Epoch(epoch) => match checkpoint {
                Some(checkpoint) if epoch < checkpoint.epoch => refuse(format!(
                    "epoch {epoch} cannot be gone back to: checkpoint {} closed epoch {}, and \
                     what lies below it may have been given back",
                    checkpoint.id, checkpoint.epoch
                )),
                _ => match releases.find(|release| release.last_epoch > epoch) {
                    Some(release) => refuse(format!(
                        "epoch {epoch} cannot be gone back to: core {} was released up to epoch {}",
                        release.core, release.last_epoch
                    )),
                    None => Ok(Kept::UpToEpoch(epoch)),
                },
            },
            Self::Timestamp(timestamp_ns) => {
                let places = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.cores);
                let above = places.iter().find(|place| place.timestamp_ns > timestamp_ns);
                match (above, checkpoint) {
                    (Some(place), Some(checkpoint)) => refuse(format!(
                        "the time {timestamp_ns} cannot be gone back to: core {} arrived at \
                         checkpoint {} at {}, and what lies below it may have been given back",
                        place.core, checkpoint.id, place.timestamp_ns
                    )),
                    _ => match releases.find(|release| release.last_timestamp_ns > timestamp_ns) {
                        Some(release) => refuse(format!(
                            "the time {timestamp_ns} cannot be gone back to: core {} was released \
                             up to {}",
                            release.core, release.last_timestamp_ns
                        )),
                        None => Ok(Kept::UpToTimestamp(timestamp_ns)),
                    },
                }
            }
        }
    }
}

/// The highest epoch that every core has left which took part in it and still logs.
fn last_complete_epoch(members: &[Membership], cores: &[&RecoveredCore]) -> Option<u64> {
    let newest = members.last()?;
    let mut next_first_epoch = None;
    for membership in members.iter().rev() {
        let still_log = cores_of(membership).filter(|core| cores_of(newest).any(|it| it == *core));
        let barrier_of = |core: u32| {
            let mut cores = cores.iter();
            cores.find(|found| u32::from(found.core) == core).and_then(|found| found.barrier_epoch)
        };
        // What came behind belongs to the next membership.
        let last_epoch = next_first_epoch.map_or(u64::MAX, |next: u64| next.saturating_sub(1));
        // `None`, no barrier yet, is less than any epoch.
        let complete = still_log.map(barrier_of).min().unwrap_or(Some(last_epoch));
        if let Some(complete) = complete.filter(|&epoch| epoch >= membership.first_epoch) {
            return Some(complete.min(last_epoch));
        }
        next_first_epoch = Some(membership.first_epoch);
    }
    None
}

fn cores_of(membership: &Membership) -> impl Iterator<Item = u32> + use<> {
    let first = u32::from(membership.first_core);
    first..first.saturating_add(membership.core_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(epoch: u64, timestamp_ns: i64, core_id: u16, sequence: u64) -> ReplayOrder {
        ReplayOrder { epoch, timestamp_ns, core_id, sequence }
    }

    #[test]
    fn what_is_kept_is_told_by_the_order_by_the_epoch_or_by_the_time() {
        let entry = order(3, 50, 1, 9);
        assert!(Kept::All.keeps(&entry));
        assert!(Kept::Below(order(3, 50, 2, 0)).keeps(&entry));
        assert!(!Kept::Below(entry).keeps(&entry));
        assert!(Kept::UpToEpoch(3).keeps(&entry) && !Kept::UpToEpoch(2).keeps(&entry));
        assert!(Kept::UpToTimestamp(50).keeps(&entry) && !Kept::UpToTimestamp(49).keeps(&entry));
        assert!(!Kept::Checkpointed.keeps(&entry));
    }
}
