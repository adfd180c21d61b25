//! Opening a full log of four cores and visiting all of its entries in order, each time in a
//! process of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Setting, VALUE};
use crate::Failure;
use crate::child::Task;
use crate::contenders::{self, Contender, Log, OpenWal, Ours, Reference};
use crate::machine::{cpu_time, peak_memory_kib};
use crate::measure::{Entrant, Pace, race};
use crate::report::{Better, Comparison, Figure, count, rounds_line};
use crate::tally::Tally;
use crate::workdir::warm;

const FIGURES: [Figure; 5] = [
    Figure { title: "records/s", better: Better::More },
    Figure { title: "open, ms", better: Better::Less },
    Figure { title: "visit, ms", better: Better::Less },
    Figure { title: "of processors, ms", better: Better::Less },
    Figure { title: "peak memory, MiB", better: Better::Less },
];

const CORES: u16 = 4;
const LARGE_RECORDS: u64 = 10_000_000;

pub(crate) fn run(setting: &Setting<'_>) -> Result<String, Failure> {
    let mut comparison = Comparison::new(Some("records"), &FIGURES);
    let mut notes = String::new();
    for &records in &setting.sizes.recovery_records {
        let rounds = measure(setting, records)?;
        let axis = count(records);
        comparison.add(&axis, &rounds);
        notes += &rounds_line(&format!("{axis} records"), &rounds);
    }
    Ok(format!("{comparison}\n{notes}"))
}

fn measure(setting: &Setting<'_>, records: u64) -> Result<crate::measure::Rounds, Failure> {
    let directory = setting.workdir.fresh()?;
    let log_of = |contender: Contender| directory.path().join(contender.name());
    for contender in Contender::ALL {
        contender.fill(&log_of(contender), CORES, records, &VALUE)?;
    }
    setting.workdir.settle()?;
    warm(directory.path())?;
    let recover = |contender| Task::recover(contender, &log_of(contender), CORES);
    let mut entrants = [
        (Ours::NAME, recover(Contender::Ours)),
        (Ours::PER_CORE, Task::RecoverPerCore { directory: log_of(Contender::Ours), cores: CORES }),
        (Reference::NAME, recover(Contender::Reference)),
        (
            Reference::MANAGER,
            Task::RecoverByManager { directory: log_of(Contender::Reference), cores: CORES },
        ),
        (OpenWal::NAME, recover(Contender::OpenWal)),
    ]
    .map(|(name, task)| {
        Entrant::new(name, move || {
            let recovered: Recovered = task.delegate()?;
            recovered.tally.check(&Tally::of(records, VALUE.len() as u64))?;
            Ok(recovered.sample(records))
        })
    });
    let large = records >= LARGE_RECORDS;
    let rounds = if large { setting.pace.large_rounds } else { setting.pace.rounds };
    race(&Pace { rounds, ..setting.pace }, None, &mut entrants)
}

/// What a child process found, and what that took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Recovered {
    pub(crate) open_s: f64,
    pub(crate) visit_s: f64,
    cpu_s: f64,
    pub(crate) peak_memory_kib: u64,
    pub(crate) tally: Tally,
}

impl Recovered {
    fn sample(&self, records: u64) -> Vec<f64> {
        let Self { open_s, visit_s, cpu_s, .. } = self;
        let records_per_s = records as f64 / (open_s + visit_s);
        vec![records_per_s, open_s * 1e3, visit_s * 1e3, cpu_s * 1e3, self.peak_memory_mib()]
    }

    pub(crate) fn peak_memory_mib(&self) -> f64 {
        self.peak_memory_kib as f64 / 1024.0
    }
}

/// In the child: what it did, and the memory and the processors that this took.
pub(crate) fn measured(recovered: contenders::Recovered) -> Result<Recovered, Failure> {
    Ok(Recovered {
        open_s: recovered.open.as_secs_f64(),
        visit_s: recovered.visit.as_secs_f64(),
        cpu_s: cpu_time()?.as_secs_f64(),
        peak_memory_kib: peak_memory_kib()?,
        tally: recovered.tally,
    })
}

/// In the child: reads a log of ours without opening it for writing; all of it counts as visit.
pub(crate) fn read(directory: &Path) -> Result<Recovered, Failure> {
    let start = Instant::now();
    let tally = Ours::read_back(directory)?;
    measured(contenders::Recovered { open: Duration::ZERO, visit: start.elapsed(), tally })
}
