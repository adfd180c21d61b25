//! laminar-wal beside other logs, in one run on one machine: `docs/benchmarks.md` says what is
//! measured and how to read it.

mod benches;
mod child;
mod contenders;
mod fdatasync;
mod machine;
mod measure;
mod options;
mod report;
mod tally;
mod workdir;

use std::error::Error;

use clap::Parser;

use crate::benches::{Bench, Setting};
use crate::fdatasync::Probe;
use crate::options::{Command, Options};
use crate::report::Section;
use crate::workdir::Workdir;

/// What a bench cannot go on after.
type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    match &options.child {
        Some(Command::Child { task }) => child::carry_out(task),
        None => measure_and_report(&options),
    }
}

fn measure_and_report(options: &Options) -> Result<(), Failure> {
    let workdir = Workdir::make(options.directory())?;
    let machine = Section { name: "machine", body: machine::describe(&workdir) };
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
    let body = format!("{}\n{}", bench.run(&setting, &mut probe)?, machine::provenance());
    Ok(Section { name: bench.name(), body })
}
