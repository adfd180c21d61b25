//! laminar-wal beside other logs, in one run on one machine: `docs/benchmarks.md` says what is
//! measured and how to read it.

mod benches;
mod child;
mod contenders;
mod options;
mod tally;

use clap::Parser;
use laminar_wal_benches::program::Program;
use laminar_wal_benches::{Failure, fdatasync, machine, measure, report, workdir};

use crate::benches::Setting;
use crate::options::{Command, Options};

/// The packages that are measured, and what tasks run on.
const PACKAGES: [&str; 8] = [
    "laminar-wal",
    "laminar-storage",
    "open-wal",
    "okaywal",
    "wal-db",
    "raft-engine",
    "fjall",
    "tokio",
];

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    match &options.child {
        Some(Command::Child { task }) => child::carry_out(task),
        None => measure_and_report(&options),
    }
}

fn measure_and_report(options: &Options) -> Result<(), Failure> {
    let program = Program {
        command: "cargo run --release --manifest-path benches/peers/Cargo.toml --",
        machine: "machine",
        packages: &PACKAGES,
        lock_file: include_str!("../Cargo.lock"),
        directory: options.directory(),
        document: options.write.as_deref(),
    };
    let benches = options.chosen().into_iter().map(|bench| (bench.name(), bench));
    program.run(benches, |bench, workdir, probe| {
        let setting = Setting { workdir, sizes: options.sizes(), pace: options.pace() };
        bench.run(&setting, probe)
    })
}
