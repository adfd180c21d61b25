//! Epochs, checkpoints, release and recovery: what they cost, round by round, beside what they are
//! held against. `docs/benchmarks.md` says what is measured and how to read it.

mod cold_replay;
mod latency;
mod logs;
mod open_behind;
mod space;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use laminar_wal_benches::Failure;
use laminar_wal_benches::fdatasync::Probe;
use laminar_wal_benches::measure::Pace;
use laminar_wal_benches::program::Program;
use laminar_wal_benches::workdir::Workdir;

/// Measures what checkpoints, opening behind them and replay cost.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure; everything unless named.
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Small sizes and two rounds: to see that everything works, not to quote.
    #[arg(long)]
    quick: bool,

    /// How many quiet rounds are wanted.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// Directory for the logs, on the disk to be measured; everything made there is removed.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/benches"))]
    dir: PathBuf,

    /// Rewrites the sections of this file that lie between the markers of what was measured.
    #[arg(long)]
    write: Option<PathBuf>,

    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Part {
    /// Disk and memory over a hundred checkpoints.
    CheckpointSpace,
    /// What a checkpoint over many cores does to appends, beside plain syncs.
    CheckpointLatency,
    /// Opening behind checkpoints that have more and more before them.
    OpenBehind,
    /// Replay with a cold page cache, beside `cat`.
    ColdReplay,
}

impl Part {
    /// What looks at memory comes first: the allocator keeps some of what the others had.
    const ALL: [Self; 4] =
        [Self::CheckpointSpace, Self::CheckpointLatency, Self::OpenBehind, Self::ColdReplay];

    const fn name(self) -> &'static str {
        match self {
            Self::ColdReplay => "cold_replay",
            Self::OpenBehind => "open_behind",
            Self::CheckpointLatency => "checkpoint_latency",
            Self::CheckpointSpace => "checkpoint_space",
        }
    }
}

/// What every part is given.
#[derive(Debug)]
struct Setting<'a> {
    workdir: &'a Workdir,
    pace: Pace,
    is_quick: bool,
}

/// A round is dropped if a bare fdatasync beside it took longer than this, in the median.
const FDATASYNC_LIMIT_US: f64 = 1000.0;

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let program = Program {
        command: "cargo bench -p laminar-wal-benches --bench checkpoints --",
        machine: "machine of checkpoints",
        packages: &["laminar-wal"],
        lock_file: include_str!("../../../Cargo.lock"),
        directory: &options.dir,
        document: options.write.as_deref(),
    };
    // What only shows that everything works must not fail on a busy machine.
    let (rounds, fdatasync_limit_us) =
        if options.quick { (2, f64::INFINITY) } else { (options.rounds, FDATASYNC_LIMIT_US) };
    let pace = Pace { rounds, large_rounds: rounds, fdatasync_limit_us };
    let parts = if options.parts.is_empty() { Part::ALL.to_vec() } else { options.parts.clone() };
    program.run(parts.into_iter().map(|part| (part.name(), part)), |part, workdir, probe| {
        measure(part, &Setting { workdir, pace, is_quick: options.quick }, probe)
    })
}

fn measure(part: Part, setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    match part {
        Part::ColdReplay => cold_replay::run(setting),
        Part::OpenBehind => open_behind::run(setting),
        Part::CheckpointLatency => latency::run(setting, probe),
        Part::CheckpointSpace => space::run(setting),
    }
}
