//! A log's directory, done to as the input says, then read, verified and opened for writing.

mod checks;
mod edits;
mod forging;
mod logs;

use laminar_wal::{Recovery, Wal};
use wal_entry::{WalEntry, WalOperation};
use wal_recovery::{RecoveredLog, RecoveryMode, recover};
use wal_sim::SimStorage;
use wal_storage::{Result, WalError};

use self::edits::Done;
use crate::disk::{changes, storage};
use crate::input::Input;
use crate::memory;

/// The first byte chooses a log, the second how it is opened and left. What follows is a list of
/// things done to its files: bytes and bits turned over, blocks copied and zeroed, files cut,
/// lengthened, removed, swapped, renamed, copied and added; and, so that edits get past the
/// checksums, header blocks, records and manifests put right or made anew.
///
/// Reading changes nothing, and all ways of reading agree. Opening fails with the same error and
/// changes nothing either, or goes on with exactly what was read: what is appended and synced
/// comes back behind it, and nothing else. What is read is whole and in order, and no larger than
/// the files; as long as no checksum was put right, it is a prefix of what was logged.
///
/// # Panics
///
/// If a property does not hold.
pub fn open_directory(input: &[u8]) {
    memory::keep();
    let mut input = Input::new(input);
    let log = logs::choose(input.u8());
    let options = Opening::of(input.u8());
    let disk = log.disk.fork();
    let done = edits::perform(&disk, &mut input);

    let before = changes(&disk);
    let read = checks::read(&disk);
    assert_eq!(before, changes(&disk), "reading changes nothing");
    if let Ok(Found { entries: Some(entries), .. }) = &read
        && !done.is_forged
    {
        checks::is_prefix(entries, &log.logged);
    }
    match (options.open(&disk), read) {
        (Ok((wal, recovery)), Ok(found)) => options.go_on(&disk, wal, &recovery, &found, done),
        (Ok(_), Err(error)) => panic!("it was opened, though reading says: {error}"),
        (Err(opening), Err(reading)) => {
            assert_eq!(opening.to_string(), reading.to_string(), "both say the same");
            assert_eq!(before, changes(&disk), "an opening that fails changes nothing");
        }
        (Err(error), Ok(found)) => cannot_be_gone_on_with(&disk, &error, &found, done),
    }
    disk.forget_jobs();
}

/// What was found by reading.
struct Found {
    log: RecoveredLog,
    /// From the start; `None` if something is damaged below the checkpoint.
    entries: Option<Vec<WalEntry>>,
    behind_checkpoint: Vec<WalEntry>,
}

/// A log that can be read is refused for writing only for a reason, and stays what it is.
fn cannot_be_gone_on_with(disk: &SimStorage, error: &WalError, found: &Found, done: Done) {
    let is_name_taken = matches!(error, WalError::Io { .. }) && done.takes_names;
    let is_unknown = matches!(error, WalError::UnsupportedVersion { .. });
    let last_numbers =
        found.log.cores.iter().any(|c| c.end_position.max(c.next_sequence) >> 63 == 1);
    let is_used_up = error.is_corrupt() && last_numbers;
    let is_forged = done.is_forged && (is_unknown || is_used_up);
    assert!(is_name_taken || is_forged, "without a reason: {error}");
    let again = recover(&storage(disk), RecoveryMode::TornTail);
    let Ok(again) = again else { panic!("it was whole before: {again:?}") };
    // It may have made directories of new cores before it failed.
    let is_new = |core: u16| found.log.cores.iter().all(|found| found.core != core);
    let (new, known): (Vec<_>, Vec<_>) = again.cores.into_iter().partition(|c| is_new(c.core));
    assert_eq!(known, found.log.cores, "an opening that failed took nothing");
    assert!(new.iter().all(|core| core.spans.is_empty()), "and added nothing: {new:?}");
}

/// How a log is opened, and left.
#[derive(Debug, Clone, Copy)]
struct Opening {
    cores: u16,
    /// Background jobs run where they can.
    runs_jobs: bool,
    /// The first process is killed instead of closing the log.
    is_killed: bool,
    /// What was recovered may still be replayed while the log goes on.
    keeps_replay: bool,
}

impl Opening {
    const fn of(choice: u8) -> Self {
        Self {
            cores: 1 + (choice & 3) as u16,
            runs_jobs: choice & 4 == 0,
            is_killed: choice & 8 != 0,
            keeps_replay: choice & 16 != 0,
        }
    }

    fn open(self, disk: &SimStorage) -> Result<(Wal, Recovery)> {
        logs::small(disk).cores(self.cores).open()
    }

    fn run_jobs(self, disk: &SimStorage) {
        if self.runs_jobs {
            disk.run_jobs();
        }
        assert_eq!(disk.jobs_panicked(), 0);
    }

    /// Appends to every core, ends the process, and opens the log again.
    fn go_on(self, disk: &SimStorage, wal: Wal, recovery: &Recovery, found: &Found, done: Done) {
        let may_fail = done.is_forged || done.takes_names;
        assert_eq!(recovery.report().cores, found.log.report.cores);
        let replay = self.keeps_replay.then(|| recovery.clone());
        let mut appended = Vec::new();
        for core in 0..self.cores {
            self.run_jobs(disk);
            match append(&wal, core, &found.log) {
                Ok(entry) => appended.push(entry),
                Err(error) => assert!(may_fail, "core {core} cannot be gone on with: {error}"),
            }
        }
        if let Some(replay) = replay {
            let (replay, expected) = match &found.entries {
                Some(entries) => (replay.from_start(), entries),
                None => (replay, &found.behind_checkpoint),
            };
            let entries = replay.entries();
            let Ok(entries) = entries else { panic!("it replays beside a writer: {entries:?}") };
            assert_eq!(entries, *expected);
        }
        self.run_jobs(disk);
        let disk = if self.is_killed {
            let next = disk.kill();
            disk.halt();
            drop(wal);
            next
        } else {
            let closed = wal.close();
            assert!(closed.is_ok() || may_fail, "closing: {closed:?}");
            disk.clone()
        };
        let again = match checks::read_again(&disk) {
            Ok(again) => again,
            Err(error) => panic!("what was gone on with cannot be read: {error}"),
        };
        let became_damaged = again.entries.is_none() && found.entries.is_some();
        assert!(!became_damaged, "going on damages nothing below the checkpoint");
        checks::has_grown(&again, found, &appended);
        let reopened = self.open(&disk);
        let Ok((wal, recovery)) = reopened else { panic!("not a second time: {reopened:?}") };
        assert_eq!(recovery.report().cores, again.log.report.cores);
        drop(wal);
        disk.forget_jobs();
    }
}

/// Appends an entry to a core and makes it durable; gives it as it must be recovered, but for the
/// timestamp.
fn append(wal: &Wal, core: u16, log: &RecoveredLog) -> Result<WalEntry> {
    let found = log.cores.iter().find(|found| found.core == core);
    let (position, sequence) =
        found.map_or((0, 0), |found| (found.end_position, found.next_sequence));
    let mut writer = wal.writer(core)?;
    assert_eq!((writer.position(), writer.sequence()), (position, sequence), "it goes on there");
    assert_eq!(writer.synced_position(), position, "what is recovered is durable");
    let epoch = writer.epoch();
    assert!(found.is_none_or(|found| epoch >= found.last_epoch), "the epoch never falls");
    let (key, value) = (b"behind the rest".to_vec(), vec![7; 100]);
    let appended_at = writer.append_put(&key, &value)?;
    assert!(appended_at == position || appended_at == position + 24, "perhaps behind a mark");
    writer.sync()?;
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), (writer.position(), 0));
    writer.close()?;
    let operation = WalOperation::Put { key, value };
    Ok(WalEntry { epoch, sequence, core_id: core, timestamp_ns: 0, operation })
}
