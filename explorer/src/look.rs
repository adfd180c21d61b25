//! Looking at a disk: recovers, replays, and compares all of it with the oracle.

use std::collections::BTreeMap;
use std::sync::Arc;

use wal_recovery::{RecoveredLog, RecoveryMode, RecoveryTarget, recover, recover_to};
use wal_sim::{OperationKind, SimStorage};
use wal_storage::{Storage, WalError};

use crate::oracle::{CoreOracle, Cut, Oracle, Recovered};
use crate::quarantine::holds_what_was_dropped;
use crate::random::Random;
use crate::witness::Witnessed;
use crate::{Checked, faults};

/// What recovery gave.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) log: RecoveredLog,
    pub(crate) cores: BTreeMap<u16, Recovered>,
}

/// Recovers the log on a machine that nothing was done on yet: everything that was promised must be
/// there, nothing else may be, and no byte and no name on the disk may change.
pub(crate) fn look(machine: &SimStorage, oracle: &Oracle, cuts: &[Cut]) -> Checked<Found> {
    let found = find(machine, oracle, cuts)?;
    changed_nothing(machine)?;
    Ok(found)
}

/// More than a read buffer is never asked for: records are smaller here, and what garbage says of
/// its length is not believed.
const READ_BYTES_MAX: usize = 256 * 1024;

fn find(machine: &SimStorage, oracle: &Oracle, cuts: &[Cut]) -> Checked<Found> {
    let witnessed = Witnessed::new(machine.clone());
    let storage: Arc<dyn Storage> = Arc::new(witnessed.clone());
    let log = recover(&storage, RecoveryMode::TornTail)
        .map_err(|error| format!("{}: recovery failed: {error}", promise_of(&error)))?;
    let told = |what: String| format!("{what}\n{}", log.report);
    let cores = replay(&storage, &log, oracle).map_err(told)?;
    oracle.check_ends(&cores, cuts).map_err(told)?;
    let manifest = log.manifest.as_ref();
    let checkpoint = manifest.and_then(|manifest| manifest.checkpoint.as_ref());
    oracle.check_checkpoint(checkpoint, cuts).map_err(told)?;
    let cuts = oracle.doubtful_cuts.iter().chain(cuts);
    holds_what_was_dropped(machine, manifest, cuts, &oracle.dropped)?;
    if witnessed.largest_read_bytes() > READ_BYTES_MAX {
        let bytes = witnessed.largest_read_bytes();
        return Err(format!("promise 8: recovery asked for {bytes} bytes at once"));
    }
    Ok(Found { log, cores })
}

/// Recovers up to a target a log of which the oracle knows how it was found; `None` if that is refused.
pub(crate) fn look_to(
    machine: &SimStorage,
    oracle: &Oracle,
    mode: RecoveryMode,
    target: RecoveryTarget,
) -> Checked<Option<Found>> {
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    let shown = match recover_to(&storage, mode, target) {
        Ok(log) => {
            let cores =
                replay(&storage, &log, oracle).map_err(|what| format!("{what}\n{}", log.report))?;
            Some(Found { log, cores })
        }
        Err(WalError::InvalidArgument { .. }) => None,
        Err(error) => return Err(format!("recovery failed: {error}")),
    };
    changed_nothing(machine)?;
    Ok(shown)
}

/// Recovers again, strictly: that gives the same, but for a torn tail, which is an error.
pub(crate) fn look_strictly(machine: &SimStorage, found: &Found) -> Checked {
    let is_torn = found.log.report.cores.iter().any(|core| core.ending.is_torn());
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    match recover(&storage, RecoveryMode::Strict) {
        Ok(log) if !is_torn && log == found.log => changed_nothing(machine),
        Err(WalError::Corrupt(_)) if is_torn => changed_nothing(machine),
        Ok(log) => Err(format!("strictly recovered {}, of {}", log.report, found.log.report)),
        Err(error) => Err(format!("strictly recovered: {error}, of {}", found.log.report)),
    }
}

/// Recovers beside the writers of a log that is open: without its lock, and without changing
/// anything.
pub(crate) fn look_beside(machine: &SimStorage, oracle: &Oracle) -> Checked {
    let before = (machine.content_fingerprint(), changes(machine));
    find(machine, oracle, &[])?;
    match before == (machine.content_fingerprint(), changes(machine)) {
        true => Ok(()),
        false => Err("recovering beside the writers changed something".to_owned()),
    }
}

/// Recovers again, while something fails that recovery asks of the disk: it gives the same, or says
/// that the disk failed. What cannot be read is no damage, and nothing is left out for it.
pub(crate) fn look_at_what_fails(machine: &SimStorage, found: &Found, seed: u64) -> Checked {
    let mut random = Random::new(seed);
    let copy = machine.kill();
    let fault = faults::draw_of_reading(&mut random);
    copy.inject(fault.clone());
    let storage: Arc<dyn Storage> = Arc::new(copy.clone());
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    let again = recover(&storage, RecoveryMode::TornTail).and_then(|log| {
        log.replay(&storage)
            .for_each(|entry| *counts.entry(entry.core_id()).or_default() += 1)
            .map(|()| log)
    });
    let what = match again {
        Err(WalError::Io { .. }) if copy.faults_hit() > 0 => return changed_nothing(&copy),
        Err(error) => format!("recovery failed with: {error}"),
        Ok(log) => {
            let of_each = found.cores.iter().map(|(core, recovered)| {
                let replayed = recovered.entries - recovered.first.min(recovered.entries);
                (*core, replayed)
            });
            if log == found.log && of_each.filter(|(_, count)| *count > 0).eq(counts) {
                return changed_nothing(&copy);
            }
            format!("recovery gave {}\ninstead of {}", log.report, found.log.report)
        }
    };
    Err(format!("while the disk failed, {fault:?}: {what}"))
}

/// Nothing but an operation changes bytes or names, and none did that could, on a machine that
/// nothing was done on before.
pub(crate) fn changed_nothing(machine: &SimStorage) -> Checked {
    match changes(machine) {
        0 => Ok(()),
        changes => Err(format!("promise 4: {changes} operations changed bytes or names")),
    }
}

fn changes(machine: &SimStorage) -> u64 {
    let changes = OperationKind::ALL.into_iter().filter(|kind| kind.is_change());
    changes.map(|kind| machine.operations_of(kind)).sum()
}

/// Replays all cores, merged, and compares each entry.
fn replay(
    storage: &Arc<dyn Storage>,
    log: &RecoveredLog,
    oracle: &Oracle,
) -> Checked<BTreeMap<u16, Recovered>> {
    let mut cores: BTreeMap<u16, Recovered> = BTreeMap::new();
    for core in &log.cores {
        let (position, next_sequence) = (core.end_position, core.next_sequence);
        let recovered = Recovered { position, next_sequence, ..Recovered::default() };
        cores.insert(core.core, recovered);
    }
    for (core, first) in firsts(storage, log)? {
        let released = oracle.cores.get(&core).map_or(0, CoreOracle::released);
        let in_doubt = oracle.doubtful_checkpoint.as_ref();
        let released = in_doubt
            .and_then(|doubtful| doubtful.places.get(&core))
            .map_or(released, |place| place.entries.max(released));
        if first > released {
            return Err(format!(
                "promise 1: core {core}: it begins with entry {first}; up to {released} are released"
            ));
        }
        let recovered = cores.entry(core).or_default();
        (recovered.first, recovered.entries) = (first, first);
    }
    let mut last = None;
    let visited = log.replay(storage).try_for_each(|entry| -> Result<(), Stopped> {
        let order = entry.replay_order();
        if last.is_some_and(|last| last >= order) {
            let what = format!("promise 6: {entry:?} was replayed behind one that is later");
            return Err(Stopped(what));
        }
        last = Some(order);
        let core = entry.core_id();
        let recovered = cores
            .get_mut(&core)
            .ok_or_else(|| Stopped(format!("{entry:?} is of a core that was not recovered")))?;
        oracle.check_entry(recovered.entries, &entry).map_err(Stopped)?;
        recovered.entries += 1;
        if recovered.timestamps_ns.last().is_some_and(|last| *last > entry.timestamp_ns()) {
            let what = format!("promise 6: core {core}: the timestamp falls at {entry:?}");
            return Err(Stopped(what));
        }
        recovered.timestamps_ns.push(entry.timestamp_ns());
        Ok(())
    });
    visited.map_err(|Stopped(what)| what)?;
    Ok(cores)
}

/// A plain crash damages nothing. If something claims that more was durable than there is, either
/// the claim is wrong, or what was acked is lost.
fn promise_of(error: &WalError) -> &'static str {
    match error {
        WalError::Corrupt(corruption) if corruption.proven_by.is_some() => "promise 1 or 3",
        _ => "promise 3",
    }
}

/// With which of its entries each core's replay begins: behind the checkpoint, or with what is
/// left of released segments.
pub(crate) fn firsts(
    storage: &Arc<dyn Storage>,
    log: &RecoveredLog,
) -> Checked<BTreeMap<u16, usize>> {
    let mut firsts = BTreeMap::new();
    for core in &log.cores {
        let mut first = None;
        let visited = log.replay(storage).try_for_each_of_core(core.core, |entry| {
            first = Some(entry.sequence());
            Err(Stopped("the first one is enough".to_owned()))
        });
        let first = match (first, visited) {
            (Some(first), _) => first,
            (None, Ok(())) => core.next_sequence,
            (None, Err(Stopped(what))) => return Err(what),
        };
        firsts.insert(core.core, usize::try_from(first).unwrap_or(usize::MAX));
    }
    Ok(firsts)
}

struct Stopped(String);

impl From<WalError> for Stopped {
    fn from(error: WalError) -> Self {
        Self(format!("promise 3: replaying failed: {error}"))
    }
}
