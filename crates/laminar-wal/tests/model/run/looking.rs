//! Looking at the log from outside: what recovery gives must fit the model, and change nothing.

use std::collections::BTreeMap;

use laminar_wal::{EndingKind, Recovery, RecoveryMode};
use wal_recovery::{RecoveredLog, recover};

use super::{Run, index};
use crate::Checked;
use crate::disk::{Disk, crash_plan};
use crate::operations::{Pick, Random};
use crate::oracle::{CoreModel, Recovered};

/// What recovery found on a disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) log: RecoveredLog,
    pub(super) cores: BTreeMap<u16, Recovered>,
    replay: Recovery,
    /// Not everything was looked at, only what the model is about.
    is_a_glance: bool,
}

/// How many crashes are tried out of one moment.
const CRASHES: usize = 3;

impl Run {
    /// Recovers beside the writers.
    pub(super) fn look(&mut self) -> Checked {
        let Some(machine) = self.disk.simulation().filter(|machine| !machine.is_halted()) else {
            return Ok(());
        };
        let before = machine.content_fingerprint();
        let found = Found::on(&self.disk.frozen())?;
        if self.disk.fingerprint() != before {
            return Err("looking changed something".to_owned());
        }
        self.check_found(&found)?;
        for (core, recovered) in &found.cores {
            let known = self.model(*core).entries.iter_mut();
            known.zip(&recovered.entries).for_each(|(known, entry)| {
                known.timestamp_ns = Some(entry.timestamp_ns);
            });
        }
        Ok(())
    }

    /// Tries some of the ways in which power could fail now.
    pub(super) fn try_crashes(&mut self, plan: Pick) -> Checked {
        let Some(machine) = self.disk.simulation().cloned() else {
            return Ok(());
        };
        let mut random = Random::new(plan);
        for _ in 0..CRASHES {
            let plan = crash_plan(random.next());
            let after = Disk::Simulated(machine.crash(plan));
            let checked = Found::at_a_glance(&after).and_then(|found| self.check_found(&found));
            checked.map_err(|what| format!("after {plan:?}: {what}"))?;
        }
        Ok(())
    }

    /// A log that was closed cleanly is whole, and known to be. Cores that log no more stay as
    /// they were when they last did.
    pub(super) fn look_at_a_closed_log(&mut self, cores: &[u16]) -> Checked {
        let found = Found::on(&self.disk.frozen())?;
        self.check_found(&found)?;
        for report in found.log.report.cores.iter().filter(|report| cores.contains(&report.core)) {
            let is_empty = self.model(report.core).entries.is_empty();
            if !is_empty && report.ending.kind != EndingKind::Closed {
                return Err(format!("after a clean close: {report}"));
            }
        }
        Ok(())
    }

    /// Every core that was ever written to is there, and is what the model allows.
    pub(super) fn check_found(&mut self, found: &Found) -> Checked {
        let told = |what| format!("{what}\n{}", found.log.report);
        for model in self.cores.values() {
            model.check(found.core(model.core)).map_err(told)?;
        }
        if found.is_a_glance {
            return Ok(());
        }
        let pick = self.random.next();
        let mut models = self.cores.values();
        models.try_for_each(|model| found.check_positions(model, pick)).map_err(told)
    }
}

impl Found {
    /// Recovers twice; the second time must give the same, and both change nothing.
    pub(super) fn on(disk: &Disk) -> Checked<Self> {
        let storage = disk.storage();
        let before = disk.fingerprint();
        let mode = RecoveryMode::TornTail;
        let log = recover(&storage, mode).map_err(|error| format!("recovering: {error}"))?;
        let again =
            recover(&storage, mode).map_err(|error| format!("recovering again: {error}"))?;
        if log != again {
            return Err(format!("recovered once: {log:?}\nand again: {again:?}"));
        }
        let replay = log.replay(&storage);
        let cores = entries_of_each_core(&replay, &log)?;
        check_core_by_core(&replay, &cores)?;
        if disk.fingerprint() != before {
            return Err("recovering changed something".to_owned());
        }
        Ok(Self { log, cores, replay, is_a_glance: false })
    }

    /// Recovers once, for moments of which many are looked at.
    pub(super) fn at_a_glance(disk: &Disk) -> Checked<Self> {
        let storage = disk.storage();
        let log = recover(&storage, RecoveryMode::TornTail)
            .map_err(|error| format!("recovering: {error}"))?;
        let replay = log.replay(&storage);
        let cores = entries_of_each_core(&replay, &log)?;
        Ok(Self { log, cores, replay, is_a_glance: true })
    }

    /// What was found of a core; nothing, if it was not there.
    pub(super) fn core(&self, core: u16) -> &Recovered {
        static NOTHING: Recovered =
            Recovered { entries: Vec::new(), end_position: 0, next_sequence: 0 };
        self.cores.get(&core).unwrap_or(&NOTHING)
    }

    /// An entry has the position that its append returned: replay from there begins with it.
    fn check_positions(&self, model: &CoreModel, pick: Pick) -> Checked {
        let recovered = &self.core(model.core).entries;
        let Some(at) = index(pick, recovered.len()) else {
            return Ok(());
        };
        let position = model.entries[at].position;
        let record = model.record_of(at);
        for (from_position, first) in [(position, record.start), (position + 8, record.end)] {
            let replay = self.replay.clone().from_positions(&[(model.core, from_position)]);
            let mut replayed = Vec::new();
            let visited =
                replay.for_each_of_core(model.core, |entry| replayed.push(entry.sequence()));
            visited.map_err(|error| format!("replaying: {error}"))?;
            if !replayed.into_iter().eq(first as u64..recovered.len() as u64) {
                return Err(format!(
                    "core {}: sequence {at} was appended at {position}, and replay from \
                     {from_position} does not begin with {first}",
                    model.core
                ));
            }
        }
        Ok(())
    }
}

/// Replays everything, merged, and takes the cores' entries apart.
pub(super) fn entries_of_each_core(
    replay: &Recovery,
    log: &RecoveredLog,
) -> Checked<BTreeMap<u16, Recovered>> {
    let merged = replay.entries().map_err(|error| format!("replaying: {error}"))?;
    if !merged.is_sorted_by(|a, b| a.replay_order() < b.replay_order()) {
        return Err(format!("merged in another order than that of replay: {merged:?}"));
    }
    let mut cores: BTreeMap<u16, Recovered> = BTreeMap::new();
    for core in &log.cores {
        let (end_position, next_sequence) = (core.end_position, core.next_sequence);
        cores.insert(core.core, Recovered { entries: Vec::new(), end_position, next_sequence });
    }
    for entry in merged {
        let core = cores.get_mut(&entry.core_id);
        core.ok_or_else(|| format!("of an unknown core: {entry:?}"))?.entries.push(entry);
    }
    Ok(cores)
}

fn check_core_by_core(replay: &Recovery, cores: &BTreeMap<u16, Recovered>) -> Checked {
    for (&core, recovered) in cores {
        let mut entries = recovered.entries.iter();
        let mut is_same = true;
        replay
            .for_each_of_core(core, |entry| is_same &= entries.next() == Some(&entry.to_entry()))
            .map_err(|error| format!("replaying core {core}: {error}"))?;
        if !is_same || entries.next().is_some() {
            return Err(format!("core {core}: merging changed the order of its entries"));
        }
    }
    Ok(())
}
