//! Records on each of several cores, then all of them durable.

use std::path::Path;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use super::logs::PREPARING;
use super::{Setting, VALUE};
use crate::Failure;
use crate::contenders::cores::{
    CoresLog, CoresOfReference, OursInOneHand, OursShared, RecycledCoresLog,
};
use crate::fdatasync::Probe;
use crate::measure::{Durations, Entrant, Rounds, race};
use crate::report::{Better, Comparison, Figure, rounds_line};
use crate::tally::{Tally, key};
use crate::workdir::Workdir;

const FIGURES: [Figure; 3] = [
    Figure { title: "all durable, p50, µs", better: Better::Less },
    Figure { title: "p99, µs", better: Better::Less },
    Figure { title: "the sync alone, p50, µs", better: Better::Less },
];

const CORES: [u16; 3] = [2, 4, 8];

/// What each core gets: records of 192 bytes on the disk.
const LOADS: [(&str, u64); 2] = [("1 record", 1), ("64 KiB", 64 * 1024 / 192)];

/// Before the time begins: the first syncs of a file are not like the others.
const WARMING: u64 = 5;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let mut comparison = Comparison::new(Some("cores, each"), &FIGURES);
    let mut notes = String::new();
    for (load, records) in LOADS {
        for cores in CORES {
            let work = Work { cores, records, syncs: setting.sizes.syncs_of_all };
            let rounds = work.measure(setting, probe)?;
            let axis = format!("{cores}, {load}");
            comparison.add(&axis, &rounds);
            let label = format!("{cores} cores, {load}, {} syncs a round", work.syncs);
            notes += &rounds_line(&label, &rounds);
        }
    }
    Ok(format!("{comparison}\n{notes}"))
}

#[derive(Debug, Clone, Copy)]
struct Work {
    cores: u16,
    /// On each core before each sync.
    records: u64,
    syncs: u64,
}

impl Work {
    fn measure(self, setting: &Setting<'_>, probe: &mut Probe) -> Result<Rounds, Failure> {
        let workdir = setting.workdir;
        let mut in_one_hand = Recycling::<OursInOneHand>::make(workdir, self.cores)?;
        let mut shared = Recycling::<OursShared>::make(workdir, self.cores)?;
        let rounds = race(
            &setting.pace,
            Some(probe),
            &mut [
                self.entrant::<OursInOneHand>(workdir),
                self.entrant::<OursShared>(workdir),
                Entrant::new(OursInOneHand::RECYCLED, || in_one_hand.sample(self)),
                Entrant::new(OursShared::RECYCLED, || shared.sample(self)),
                self.entrant::<CoresOfReference>(workdir),
            ],
        )?;
        in_one_hand.log.close()?;
        shared.log.close()?;
        Ok(rounds)
    }

    /// A log that is made anew for each sample.
    fn entrant<L: CoresLog>(self, workdir: &Workdir) -> Entrant<'_> {
        Entrant::new(L::NAME, move || {
            let directory = workdir.fresh()?;
            let mut log = L::create(directory.path(), self.cores)?;
            workdir.settle()?;
            let sample = self.sample(&mut log)?;
            log.close()?;
            self.check::<L>(directory.path())?;
            Ok(sample)
        })
    }

    fn sample<L: CoresLog>(self, log: &mut L) -> Result<Vec<f64>, Failure> {
        let capacity = usize::try_from(self.syncs)?;
        let mut all = Durations::with_capacity(capacity);
        let mut sync_alone = Durations::with_capacity(capacity);
        let mut number = 0;
        for sync in 0..WARMING + self.syncs {
            let start = Instant::now();
            for core in 0..self.cores {
                for _ in 0..self.records {
                    log.append_put(core, &key(number), &VALUE)?;
                    number += 1;
                }
            }
            let appended = start.elapsed();
            log.sync_all()?;
            let durable = start.elapsed();
            if sync >= WARMING {
                all.push(durable);
                sync_alone.push(durable - appended);
            }
        }
        Ok(vec![all.quantile_us(0.5), all.quantile_us(0.99), sync_alone.quantile_us(0.5)])
    }

    fn check<L: CoresLog>(self, directory: &Path) -> Result<(), Failure> {
        let records = (WARMING + self.syncs) * self.records * u64::from(self.cores);
        L::read_back(directory, self.cores)?.check(&Tally::of(records, VALUE.len() as u64))
    }
}

/// A log that is emptied before each sample, so that it goes on in files that it wrote through
/// long ago.
struct Recycling<'a, L> {
    workdir: &'a Workdir,
    directory: TempDir,
    log: L,
}

impl<'a, L: RecycledCoresLog> Recycling<'a, L> {
    fn make(workdir: &'a Workdir, cores: u16) -> Result<Self, Failure> {
        let directory = workdir.fresh()?;
        let log = L::warmed(directory.path(), cores)?;
        Ok(Self { workdir, directory, log })
    }

    fn sample(&mut self, work: Work) -> Result<Vec<f64>, Failure> {
        self.log.reset()?;
        thread::sleep(PREPARING);
        self.workdir.settle()?;
        let sample = work.sample(&mut self.log)?;
        work.check::<L>(self.directory.path())?;
        Ok(sample)
    }
}
