//! One damage in a log that nobody has open: what becomes of it must be told.

mod leaving_out;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use wal_format::{CoreDirectory, SEGMENT_HEADER_BYTES, SegmentFile};
use wal_recovery::{RecoveredLog, RecoveryMode, recover, verify};
use wal_sim::SimStorage;
use wal_storage::{Storage, WalError};

use crate::Checked;
use crate::crash::Crash;
use crate::explorer::{Failure, FailureKind, Step, caught, machine_of};
use crate::life::{Beginning, Life, Moment, Visitor};
use crate::look::{firsts, look};
use crate::oracle::Oracle;
use crate::random::{Random, mix};
use crate::watchdog::{Doing, Pulse};
use crate::workload::Workload;
use leaving_out::{Before, Case, MODES, ModeTally};

/// How many times each log is damaged, each time alone.
const DAMAGES: u64 = 40;

/// How many errors without a place are shown.
const EXAMPLES_MAX: usize = 4;

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    BitFlipped,
    SectorZeroed,
    BlockZeroed,
    SectorOfNoise,
    BlockMisdirected,
    SectorStale,
    BlockStale,
    FileCut,
    FileGone,
    FilesSwapped,
}

const KINDS: [Kind; 10] = [
    Kind::BitFlipped,
    Kind::SectorZeroed,
    Kind::BlockZeroed,
    Kind::SectorOfNoise,
    Kind::BlockMisdirected,
    Kind::SectorStale,
    Kind::BlockStale,
    Kind::FileCut,
    Kind::FileGone,
    Kind::FilesSwapped,
];

/// What recovery made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Everything that was there is there.
    Complete,
    /// An error that names file and position.
    ErrorWithPlace,
    ErrorWithout,
    /// Entries are missing, and the report calls the end of that core's log unproven.
    UnprovenTail,
    /// Entries are missing that were never acked.
    UnackedTail,
    /// The newest file of a core is gone, and nothing on the disk speaks of it: the README says so.
    NewestFileGone,
    /// Acked entries are missing, and nobody says so; or what is there was never appended.
    SilentLoss,
}

const OUTCOMES: usize = 7;

/// How often what became of what.
#[derive(Debug, Clone, Default)]
pub(crate) struct DamageTally {
    counts: [[u64; OUTCOMES]; KINDS.len()],
    /// What recoveries in the modes that go on made of it.
    modes: [ModeTally; MODES.len()],
    /// How many logs an opening found nothing wrong with, went on with, and were opened again.
    gone_on: u64,
    /// Some errors that name no place, for whoever wants to make them better.
    without_place: Vec<String>,
}

impl DamageTally {
    pub(crate) fn add(&mut self, other: &Self) {
        for (counts, more) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *counts += more;
        }
        self.modes.iter_mut().zip(other.modes).for_each(|(tally, more)| tally.add(more));
        self.gone_on += other.gone_on;
        let room = EXAMPLES_MAX.saturating_sub(self.without_place.len());
        self.without_place.extend(other.without_place.iter().take(room).cloned());
    }

    pub(crate) fn cases(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    pub(crate) fn told(&self, time: Duration) -> impl fmt::Display {
        Told { tally: self.clone(), time }
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.counts.iter().map(|counts| counts[outcome as usize]).sum()
    }
}

/// Damages the log of one workload in many ways, closed or crashed as the seed says; or, if `only`
/// is given, in the one way that it names.
///
/// # Errors
///
/// The first silent loss. Its path is one step: the number of the damage, and the plan of the crash
/// that it followed.
pub(crate) fn damage(
    workload: &Workload,
    only: Option<Step>,
    tally: &mut DamageTally,
    pulse: &Pulse,
) -> Result<(), Failure> {
    pulse.explores(workload);
    let mut failed_at = None;
    let damaged = caught(pulse, || damage_each(workload, only, tally, pulse, &mut failed_at))?;
    damaged.map_err(|what| {
        let path = failed_at.into_iter().collect();
        Failure { path, what, kind: FailureKind::BrokenPromise }
    })
}

fn damage_each(
    workload: &Workload,
    only: Option<Step>,
    tally: &mut DamageTally,
    pulse: &Pulse,
    failed_at: &mut Option<Step>,
) -> Checked {
    let mut random = Random::new(mix(workload.seed, 0xDA3A));
    let mut keeper = Keeper { random: random.clone(), older: Vec::new(), newest: None, pulse };
    let closing = random.chance(50);
    {
        let machine = machine_of(workload.seed);
        let mut life = Life::new(machine, Oracle::default(), workload.seed, &mut keeper);
        life.set_closing_at_end(closing);
        life.live(workload, &Beginning::OfALog)?;
    }
    let Keeper { older, newest: Some((machine, oracle)), .. } = keeper else {
        return Ok(());
    };
    let plan = if closing { 0 } else { random.below(8) };
    let specimen = Crash::plan(workload.seed, (0, plan)).of(&machine);
    let found = look(&specimen, &oracle, &[])?;
    let before = Before::new(&oracle, &found, workload.shape);
    for number in 0..DAMAGES {
        let copy = specimen.kill();
        let kind = random.pick(KINDS);
        let done = do_damage(&copy, &older, kind, &mut random);
        let Some(what) = done.map_err(|error| format!("damaging failed: {error}"))? else {
            continue;
        };
        let is_asked_for = only.is_none_or(|(only, _)| only == number);
        if !is_asked_for || copy.content_fingerprint() == specimen.content_fingerprint() {
            continue;
        }
        let step = (number, plan);
        pulse.looks(&[], step);
        let counts: BTreeMap<u16, usize> =
            found.cores.iter().map(|(core, recovered)| (*core, recovered.entries)).collect();
        let usual = recover_usually(&copy);
        let (outcome, told) = judge(&copy, &usual, &oracle, &counts, ends_at(&found.log, &what));
        let is_stated = kind == Kind::FileGone && is_newest(&specimen, &what.name);
        let outcome = match outcome {
            Outcome::SilentLoss if is_stated => Outcome::NewestFileGone,
            outcome => outcome,
        };
        tally.counts[kind as usize][outcome as usize] += 1;
        if outcome == Outcome::ErrorWithout && tally.without_place.is_empty() {
            tally.without_place.push(format!("{kind}, {what}: {told}"));
        }
        if outcome == Outcome::SilentLoss {
            *failed_at = Some(step);
            return Err(format!("damage {number}, {kind}, {what}: {told}"));
        }
        let (machine, cores, usual) = (&copy, what.cores(), usual.as_ref().ok());
        let case = Case { machine, number, cores, usual, is_sound: is_sound(machine) };
        match before.go_on(&case) {
            Ok(has_gone_on) => tally.gone_on += u64::from(has_gone_on),
            Err(told) => {
                *failed_at = Some(step);
                return Err(format!("damage {number}, {kind}, {what}, gone on with: {told}"));
            }
        }
        for (mode, tally) in MODES.into_iter().zip(&mut tally.modes) {
            if let Err(told) = before.leave_out(&case, mode, tally) {
                *failed_at = Some(step);
                return Err(format!("damage {number}, {kind}, {what}, {mode:?}: {told}"));
            }
        }
    }
    Ok(())
}

/// Keeps the last moment of a life, and some before it.
struct Keeper<'a> {
    random: Random,
    older: Vec<SimStorage>,
    newest: Option<(SimStorage, Oracle)>,
    pulse: &'a Pulse,
}

impl Visitor for Keeper<'_> {
    fn begins(&mut self, what: Doing) {
        self.pulse.lives(&[], what);
    }

    fn visit(&mut self, moment: &Moment<'_>) -> Checked {
        if moment.cuts.is_empty() && moment.oracle.doubtful_cuts.is_empty() {
            self.newest = Some((moment.machine.fork(), moment.oracle.clone()));
        }
        if self.random.chance(3) {
            self.older.push(moment.machine.fork());
        }
        Ok(())
    }
}

/// Does it, and says where; `None` if there is nothing to do it to.
fn do_damage(
    machine: &SimStorage,
    older: &[SimStorage],
    kind: Kind,
    random: &mut Random,
) -> Result<Option<Damaged>, WalError> {
    let names = machine.names();
    let Some(name) = crate::random::index(random.next(), names.len()).and_then(|at| names.get(at))
    else {
        return Ok(None);
    };
    let bytes = machine.read_file(name)?;
    let Some(block) = written_block(&bytes, random) else {
        return Ok(None);
    };
    let sector_at = block * BLOCK_BYTES + 512 * random.size(8);
    let sector = sector_at as u64..(sector_at + 512) as u64;
    let whole = (block * BLOCK_BYTES) as u64..((block + 1) * BLOCK_BYTES) as u64;
    let mut other = None;
    let place = match kind {
        Kind::BitFlipped => {
            let byte = (block * BLOCK_BYTES + random.size(BLOCK_BYTES)) as u64;
            machine.flip_bit(name, byte, u8::try_from(random.below(8)).unwrap_or(0))?;
            format!("byte {byte}")
        }
        Kind::SectorZeroed => {
            machine.zero(name, sector.clone())?;
            format!("{sector:?}")
        }
        Kind::BlockZeroed => {
            machine.zero(name, whole.clone())?;
            format!("{whole:?}")
        }
        Kind::SectorOfNoise => {
            let noise: Vec<u8> = (0..64).flat_map(|_| random.next().to_le_bytes()).collect();
            machine.overwrite(name, sector.start, &noise)?;
            format!("{sector:?}")
        }
        Kind::BlockMisdirected => {
            let Some(from) =
                crate::random::index(random.next(), names.len()).and_then(|at| names.get(at))
            else {
                return Ok(None);
            };
            let Some(from_block) = written_block(&machine.read_file(from)?, random) else {
                return Ok(None);
            };
            machine.copy_block((from, from_block as u64), (name, block as u64))?;
            format!("block {block}, from block {from_block} of {from}")
        }
        Kind::SectorStale | Kind::BlockStale => {
            let old = crate::random::index(random.next(), older.len());
            let Some(Ok(old)) = old.and_then(|at| older.get(at)).map(|old| old.read_file(name))
            else {
                return Ok(None);
            };
            let range = if kind == Kind::SectorStale { sector.clone() } else { whole.clone() };
            let [Ok(start), Ok(end)] = [range.start, range.end].map(usize::try_from) else {
                return Ok(None);
            };
            let Some(stale) = old.get(start..end) else {
                return Ok(None);
            };
            machine.overwrite(name, range.start, stale)?;
            format!("{range:?}")
        }
        Kind::FileCut => {
            let size = random.below(bytes.len() as u64);
            machine.truncate_file(name, size)?;
            format!("to {size} bytes")
        }
        Kind::FileGone => {
            machine.delete(name)?;
            String::new()
        }
        Kind::FilesSwapped => {
            let swapped = crate::random::index(random.next(), names.len());
            let Some(swapped) = swapped.and_then(|at| names.get(at)).filter(|it| *it != name)
            else {
                return Ok(None);
            };
            let others = machine.read_file(swapped)?;
            machine.write_file(swapped, &bytes)?;
            machine.write_file(name, &others)?;
            other = Some(swapped.clone());
            format!("with {swapped}")
        }
    };
    let range = match kind {
        Kind::BitFlipped | Kind::BlockZeroed | Kind::BlockMisdirected | Kind::BlockStale => {
            Some(whole)
        }
        Kind::SectorZeroed | Kind::SectorOfNoise | Kind::SectorStale => Some(sector),
        Kind::FileCut | Kind::FileGone | Kind::FilesSwapped => None,
    };
    Ok(Some(Damaged { name: name.clone(), other, place, range }))
}

/// A damage, where it is.
struct Damaged {
    name: String,
    /// The file with which it was swapped.
    other: Option<String>,
    place: String,
    /// No byte outside of it changed, if it is known.
    range: Option<Range<u64>>,
}

impl Damaged {
    /// The cores of which a file was damaged.
    fn cores(&self) -> Vec<u16> {
        let directories = [Some(&self.name), self.other.as_ref()].into_iter().flatten();
        let directories = directories.filter_map(|name| name.split_once('/'));
        directories.filter_map(|(name, _)| CoreDirectory::parse(name)).map(|core| core.0).collect()
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.place)
    }
}

const BLOCK_BYTES: usize = 4096;

/// A block of the file, most often one that holds something.
fn written_block(bytes: &[u8], random: &mut Random) -> Option<usize> {
    let blocks: Vec<&[u8]> = bytes.chunks_exact(BLOCK_BYTES).collect();
    let written =
        blocks.iter().enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    let written: Vec<usize> = written.map(|(index, _)| index).collect();
    let any = crate::random::index(random.next(), blocks.len());
    let one_written = crate::random::index(random.next(), written.len());
    let one_written = one_written.and_then(|at| written.get(at).copied());
    if random.chance(90) { one_written.or(any) } else { any }
}

/// As an opening does that leaves nothing out.
fn recover_usually(machine: &SimStorage) -> Result<RecoveredLog, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    recover(&storage, RecoveryMode::TornTail)
}

fn is_sound(machine: &SimStorage) -> bool {
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    verify(&storage).is_ok_and(|found| found.is_sound())
}

/// Compares what was recovered with what was there and what was acked.
fn judge(
    machine: &SimStorage,
    usual: &Result<RecoveredLog, WalError>,
    oracle: &Oracle,
    found_before: &BTreeMap<u16, usize>,
    damage: Option<(u16, u64)>,
) -> (Outcome, String) {
    let storage: Arc<dyn Storage> = Arc::new(machine.clone());
    let log = match usual {
        Ok(log) => log,
        Err(error) => return of_error(error),
    };
    // The replay below meets an error again, and says what it is.
    let mut counts = firsts(&storage, log).unwrap_or_default();
    let mut wrong = None;
    let visited = log.replay(&storage).for_each(|entry| {
        let count = counts.entry(entry.core_id()).or_default();
        if let Err(what) = oracle.check_entry(*count, &entry) {
            wrong.get_or_insert(what);
        }
        *count += 1;
    });
    if let Err(error) = visited {
        return of_error(&error);
    }
    if let Some(what) = wrong {
        return (Outcome::SilentLoss, what);
    }
    let mut outcome = Outcome::Complete;
    for (core, &before) in found_before {
        let count = counts.get(core).copied().unwrap_or(0);
        if count >= before {
            continue;
        }
        let acked = oracle.cores.get(core).map_or(0, |core| core.acked_entries());
        let report = log.report.core(*core);
        // What a batch behind the damage says was durable is proven, and its loss is no tail.
        let proven = match damage {
            Some((damaged, end)) if damaged == *core => {
                oracle.cores.get(core).and_then(|core| core.proven_by_what_begins_at(end))
            }
            _ => None,
        };
        let end_position = report.map_or(0, |report| report.end_position);
        let is_told = report.is_some_and(|report| report.ending.is_unproven())
            && proven.is_none_or(|proven| end_position >= proven);
        outcome = match (is_told, count < acked) {
            (true, _) => Outcome::UnprovenTail,
            (false, false) => Outcome::UnackedTail,
            (false, true) => {
                let what = format!(
                    "promise 3: core {core}: {count} entries are left of {before}, {acked} of them \
                     acked\n{}",
                    log.report
                );
                return (Outcome::SilentLoss, what);
            }
        };
    }
    (outcome, String::new())
}

fn of_error(error: &WalError) -> (Outcome, String) {
    let has_place = match error {
        WalError::Corrupt(corruption) => {
            corruption.position.is_some() || corruption.file_range.is_some()
        }
        _ => false,
    };
    let outcome = if has_place { Outcome::ErrorWithPlace } else { Outcome::ErrorWithout };
    (outcome, error.to_string())
}

/// The core whose records were damaged in one place, and the position behind that place.
fn ends_at(log: &RecoveredLog, what: &Damaged) -> Option<(u16, u64)> {
    let end = what.range.as_ref()?.end;
    for core in &log.cores {
        for span in &core.spans {
            let name = format!("{}/{}", CoreDirectory(core.core), SegmentFile(span.segment_id));
            if name == what.name && what.range.as_ref()?.start >= SEGMENT_HEADER_BYTES {
                return Some((core.core, span.base_position + (end - SEGMENT_HEADER_BYTES)));
            }
        }
    }
    None
}

/// Whether no file of the same core has a higher number.
fn is_newest(machine: &SimStorage, name: &str) -> bool {
    let Some((directory, _)) = name.split_once('/') else {
        return false;
    };
    let names = machine.names();
    let mut of_core =
        names.iter().filter(|other| other.starts_with(directory) && other.ends_with(".wal"));
    of_core.all(|other| other.as_str() <= name)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BitFlipped => "one bit flipped",
            Self::SectorZeroed => "a sector zeroed",
            Self::BlockZeroed => "a block zeroed",
            Self::SectorOfNoise => "a sector of noise",
            Self::BlockMisdirected => "a block misdirected",
            Self::SectorStale => "a stale sector",
            Self::BlockStale => "a stale block",
            Self::FileCut => "a file cut",
            Self::FileGone => "a file gone",
            Self::FilesSwapped => "two files swapped",
        })
    }
}

struct Told {
    tally: DamageTally,
    time: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, time } = self;
        writeln!(
            f,
            "{:<22}{:>10}{:>12}{:>10}{:>10}{:>10}{:>12}{:>8}",
            "damage",
            "complete",
            "error with",
            "error",
            "unproven",
            "un-acked",
            "newest file",
            "SILENT"
        )?;
        writeln!(
            f,
            "{:<22}{:>10}{:>12}{:>10}{:>10}{:>10}{:>12}{:>8}",
            "", "answer", "its place", "without", "tail", "tail", "gone", "LOSS"
        )?;
        for (kind, counts) in KINDS.iter().zip(tally.counts) {
            let [complete, with, without, unproven, unacked, newest, silent] = counts;
            writeln!(
                f,
                "{kind:<22}{complete:>10}{with:>12}{without:>10}{unproven:>10}{unacked:>10}{newest:>12}{silent:>8}"
            )?;
        }
        let (with, without) = (tally.of(Outcome::ErrorWithPlace), tally.of(Outcome::ErrorWithout));
        let percent = 100.0 * with as f64 / (with + without).max(1) as f64;
        for example in &tally.without_place {
            writeln!(f, "  for example {example}")?;
        }
        writeln!(f, "{:?}: {} opened and opened again", RecoveryMode::TornTail, tally.gone_on)?;
        for (mode, counts) in MODES.iter().zip(tally.modes) {
            writeln!(f, "{mode:?}: {counts}")?;
        }
        write!(
            f,
            "{} damages in {:.1} s, {} errors, {percent:.1} percent of them name file and position; {} \
             silent losses",
            tally.cases(),
            time.as_secs_f64(),
            with + without,
            tally.of(Outcome::SilentLoss)
        )
    }
}
