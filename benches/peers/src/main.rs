//! laminar-wal beside other logs, in one run on one machine: `docs/benchmarks.md` says what is
//! measured and how to read it.

mod benches;
mod child;
mod contenders;
mod options;
mod tally;

use clap::Parser;
use laminar_wal_benches::{Failure, fdatasync, machine, measure, report, workdir};

use crate::benches::{Bench, Setting};
use crate::fdatasync::Probe;
use crate::options::{Command, Options};
use crate::report::Section;
use crate::workdir::Workdir;

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

const LOCK_FILE: &str = include_str!("../Cargo.lock");

const COMMAND: &str = "cargo run --release --manifest-path benches/peers/Cargo.toml --";

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    match &options.child {
        Some(Command::Child { task }) => child::carry_out(task),
        None => measure_and_report(&options),
    }
}

fn measure_and_report(options: &Options) -> Result<(), Failure> {
    let workdir = Workdir::make(options.directory())?;
    let machine =
        Section { name: "machine", body: machine::describe(&workdir, &PACKAGES, LOCK_FILE) };
    println!("{}", machine.body);

    let mut sections = vec![machine];
    let mut failed = Vec::new();
    for bench in options.chosen() {
        eprintln!("== {}", bench.name());
        match measure(options, bench, &workdir) {
            Ok(section) => {
                println!("## {}\n\n{}", section.name, section.body);
                sections.push(section);
            }
            // The others are measured, and written, all the same.
            Err(error) => failed.push(format!("{}: {error}", bench.name())),
        }
    }
    if let Some(file) = &options.write {
        report::write(file, &sections)?;
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

fn measure(options: &Options, bench: Bench, workdir: &Workdir) -> Result<Section, Failure> {
    let mut probe = Probe::make(workdir.path())?;
    let setting = Setting { workdir, sizes: options.sizes(), pace: options.pace() };
    let body = format!("{}\n{}", bench.run(&setting, &mut probe)?, machine::provenance(COMMAND));
    Ok(Section { name: bench.name(), body })
}
