//! A checkpoint behind much that was logged on several cores: how long it takes, and for how much
//! of that nobody can append.

use std::path::Path;
use std::time::Instant;

use super::{Setting, VALUE};
use crate::Failure;
use crate::contenders::cores::{CheckpointedCoresLog, Coordinated, CoresLog, OursInOneHand};
use crate::contenders::{Log, Ours};
use crate::fdatasync::Probe;
use crate::measure::{Entrant, race};
use crate::report::{Better, Comparison, Figure, count, rounds_line};
use crate::tally::{Tally, key};
use crate::workdir::Workdir;

const FIGURES: [Figure; 2] = [
    Figure { title: "checkpoint, ms", better: Better::Less },
    Figure { title: "appends stand still, ms", better: Better::Less },
];

const CORES: u16 = 4;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let mut comparison = Comparison::new(Some("puts before it"), &FIGURES);
    let mut notes = String::new();
    for &records in &setting.sizes.checkpointed_records {
        let work = Work { records };
        let rounds = race(
            &setting.pace,
            Some(&mut *probe),
            &mut [
                work.entrant::<OursInOneHand>(Ours::NAME, setting.workdir),
                work.entrant::<Coordinated>(Coordinated::NAME, setting.workdir),
            ],
        )?;
        let axis = count(records);
        comparison.add(&axis, &rounds);
        notes += &rounds_line(&format!("{axis} puts on {CORES} cores"), &rounds);
    }
    Ok(format!("{comparison}\n{notes}"))
}

#[derive(Debug, Clone, Copy)]
struct Work {
    records: u64,
}

impl Work {
    fn entrant<'a, L: CheckpointedCoresLog>(
        self,
        name: &'static str,
        workdir: &'a Workdir,
    ) -> Entrant<'a> {
        Entrant::new(name, move || {
            let directory = workdir.fresh()?;
            let mut log = L::create(directory.path(), CORES)?;
            self.append::<L>(&mut log, 0)?;
            log.sync_all()?;
            workdir.settle()?;
            let start = Instant::now();
            let stood_still = log.checkpoint()?;
            let took = start.elapsed();
            // What comes behind it is all that is left to be read.
            self.append::<L>(&mut log, self.records)?;
            log.close()?;
            self.check::<L>(directory.path())?;
            Ok(vec![took.as_secs_f64() * 1e3, stood_still.as_secs_f64() * 1e3])
        })
    }

    fn append<L: CoresLog>(self, log: &mut L, first: u64) -> Result<(), Failure> {
        for number in first..first + self.records {
            let core = u16::try_from(number % u64::from(CORES))?;
            log.append_put(core, &key(number), &VALUE)?;
        }
        Ok(())
    }

    fn check<L: CoresLog>(self, directory: &Path) -> Result<(), Failure> {
        let behind = Tally::between(self.records, 2 * self.records, VALUE.len() as u64);
        L::read_back(directory, CORES)?.check(&behind)
    }
}
