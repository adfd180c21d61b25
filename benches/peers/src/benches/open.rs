//! Opening alone: a full log beside a bare pass over its bytes, and an empty log of many cores.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use laminar_wal::WalOptions;

use super::{Setting, VALUE};
use crate::Failure;
use crate::child::Task;
use crate::contenders::{Log, Ours};
use crate::fdatasync::Probe;
use crate::measure::{Entrant, Rounds, Spread, race};
use crate::report::{Table, count, rounds_line, spread};
use crate::workdir::{disk_usage, files_below, warm};

const FULL_CORES: u16 = 4;
const EMPTY_CORES: u16 = 16;
const READ_BYTES: usize = 256 * 1024;
const BLOCK_BYTES: usize = 4096;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let full = full_log(setting)?;
    let empty = empty_log(setting, probe)?;
    Ok(format!("{full}\n{empty}"))
}

// ---- a full log ----

fn full_log(setting: &Setting<'_>) -> Result<String, Failure> {
    let records = setting.sizes.open_records;
    let directory = setting.workdir.fresh()?;
    Ours::fill(directory.path(), FULL_CORES, records, &VALUE)?;
    setting.workdir.settle()?;
    warm(directory.path())?;
    let open = Task::Open { directory: directory.path().to_path_buf(), cores: FULL_CORES };
    let files = written_parts(directory.path())?;
    let mib = files.iter().map(|(_, bytes)| bytes).sum::<u64>() as f64 / f64::from(1 << 20);
    let pass = Task::Pass { files };

    let rounds = race(
        &setting.pace,
        None,
        &mut [
            Entrant::new("`open`", || open.delegate::<f64>().map(|s| vec![s * 1e3])),
            Entrant::new("bare pass", || pass.delegate::<f64>().map(|s| vec![s * 1e3])),
        ],
    )?;
    let mut table =
        Table::new(&["a full log", "ms, median (min–max)", "time of `open` / of the bare pass"]);
    let ratio = rounds.ratio(0, 0, 1).map_or_else(String::new, |ratio| spread(&ratio));
    table.add(vec!["`open`".to_string(), figure(&rounds, 0), ratio]);
    table.add(vec!["bare pass".to_string(), figure(&rounds, 1), "1".to_string()]);
    let axis = format!("{} records on {FULL_CORES} cores, {mib:.0} MiB", count(records));
    Ok(format!("{table}\n{}", rounds_line(&axis, &rounds)))
}

/// In the child: opens a log of ours for writing. Returns seconds.
pub(crate) fn open(directory: &Path, cores: u16) -> Result<f64, Failure> {
    let start = Instant::now();
    let opened = WalOptions::new(directory).cores(cores).open()?;
    let elapsed = start.elapsed();
    drop(opened);
    Ok(elapsed.as_secs_f64())
}

/// In the child: reads the files one after the other and computes the checksum of each piece,
/// nothing more. Returns seconds.
pub(crate) fn pass(files: &[(PathBuf, u64)]) -> Result<f64, Failure> {
    let mut buffer = vec![0; READ_BYTES];
    let start = Instant::now();
    let mut read_bytes = 0;
    for (file, bytes) in files {
        let mut part = File::open(file)?.take(*bytes);
        loop {
            let count = part.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            black_box(crc32c::crc32c(&buffer[..count]));
            read_bytes += count as u64;
        }
    }
    let elapsed = start.elapsed();
    if read_bytes != files.iter().map(|(_, bytes)| bytes).sum::<u64>() {
        return Err("the bare pass did not read everything".into());
    }
    Ok(elapsed.as_secs_f64())
}

/// The segments below `directory`, core by core, each up to its last block that is not zero:
/// what lies behind was prepared and never written, and no reader needs it.
fn written_parts(directory: &Path) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let mut parts = Vec::new();
    for file in files_below(directory)? {
        if file.extension().is_some_and(|extension| extension == "wal") {
            let bytes = written_bytes(&file)?;
            parts.push((file, bytes));
        }
    }
    Ok(parts)
}

fn written_bytes(file: &Path) -> io::Result<u64> {
    let mut file = File::open(file)?;
    let mut block = [0; BLOCK_BYTES];
    let (mut end, mut written) = (0, 0);
    loop {
        match file.read_exact(&mut block) {
            Ok(()) => end += BLOCK_BYTES as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(written),
            Err(error) => return Err(error),
        }
        if block.iter().any(|&byte| byte != 0) {
            written = end;
        }
    }
}

// ---- an empty log ----

/// The places of the figures of one sample, with what the project promises itself of them.
const EMPTY_FIGURES: [(&str, &str); 4] = [
    ("first `open`, ms", "under 100"),
    ("next `open`, ms", "under 100"),
    ("disk space while open, MiB", "under 40"),
    ("disk space when closed, MiB", "under 40"),
];

fn empty_log(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [Entrant::new(Ours::NAME, || open_empty_twice(setting))],
    )?;
    let mut table = Table::new(&["an empty log", "median (min–max)", "bar"]);
    for (index, (title, bar)) in EMPTY_FIGURES.iter().enumerate() {
        let figure = Spread::of(&rounds.figure(0, index));
        let figure = figure.map_or_else(String::new, |figure| spread(&figure));
        table.add(vec![(*title).to_string(), figure, (*bar).to_string()]);
    }
    Ok(format!("{table}\n{}", rounds_line(&format!("{EMPTY_CORES} cores"), &rounds)))
}

fn open_empty_twice(setting: &Setting<'_>) -> Result<Vec<f64>, Failure> {
    let directory = setting.workdir.fresh()?;
    let options = || WalOptions::new(directory.path()).cores(EMPTY_CORES);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);

    let start = Instant::now();
    let (wal, _) = options().open()?;
    let first_ms = start.elapsed().as_secs_f64() * 1e3;
    wal.close()?;
    setting.workdir.settle()?;

    let start = Instant::now();
    let (wal, recovery) = options().open()?;
    let next_ms = start.elapsed().as_secs_f64() * 1e3;
    // Segments are prepared in the background; nobody says when that is done.
    thread::sleep(Duration::from_millis(300));
    let open_mib = mib(disk_usage(directory.path())?);
    let entries = recovery.entries()?.len();
    wal.close()?;
    let closed_mib = mib(disk_usage(directory.path())?);
    if entries != 0 || wal_cores(directory.path())? != usize::from(EMPTY_CORES) {
        return Err("the empty log is not an empty log of all cores".into());
    }
    Ok(vec![first_ms, next_ms, open_mib, closed_mib])
}

fn wal_cores(directory: &Path) -> Result<usize, Failure> {
    let mut cores = 0;
    for entry in std::fs::read_dir(directory)? {
        cores += usize::from(entry?.path().is_dir());
    }
    Ok(cores)
}

fn figure(rounds: &Rounds, entrant: usize) -> String {
    Spread::of(&rounds.figure(entrant, 0)).map_or_else(String::new, |figure| spread(&figure))
}
