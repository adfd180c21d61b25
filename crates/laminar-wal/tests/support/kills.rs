//! A process that appends and syncs until something ends it, and everything that it was told.
//!
//! The test runs its own binary as a child. The child's threads append entries that follow from
//! core, sequence and life, and tell of every sync that has returned through a pipe. The parent
//! ends it, or takes its disk away, at a moment taken from a seed, reads what is left in the pipe,
//! recovers, and starts the next child in the same directory.
//!
//! A test file that uses this needs a test called [`CHILD`] that calls [`be_the_child`].

#![allow(dead_code, reason = "each story uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests fails the test that called it"
)]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use laminar_wal::{
    CoreWalWriter, EndingKind, EntryView, Offsets, Recovery, RecoveryMode, RecoveryReport,
    WalError, WalOperation, WalOptions,
};

pub(crate) const CORES: u16 = 4;

/// How many lives a directory sees before the next one begins empty. Every recovery reads all of
/// them, so this bounds the time that it takes.
pub(crate) const LIVES_PER_DIRECTORY: u64 = 5;

/// The name of the test that is the child.
pub(crate) const CHILD: &str = "the_child_that_is_killed";

const DIRECTORY: &str = "LAMINAR_WAL_SIGKILL_DIRECTORY";
const LIFE: &str = "LAMINAR_WAL_SIGKILL_LIFE";

/// Not a test: the process that is killed. Does nothing unless it is started as one.
pub(crate) fn be_the_child() {
    let (Some(directory), Some(life)) = (env::var_os(DIRECTORY), number_from(LIFE)) else {
        return;
    };
    live_until_killed(Path::new(&directory), life);
}

/// Everything tiny, so that segments end, buffers fill and appenders wait all the time.
fn options(directory: &Path) -> WalOptions {
    WalOptions::new(directory)
        .cores(CORES)
        .segment_bytes(64 * 1024)
        .batch_bytes(8 * 1024)
        .in_flight_bytes(16 * 1024)
        .max_record_bytes(128 * 1024)
}

// ---- the parent ----

/// A directory, all that was promised about it, and what must be in it.
pub(crate) struct Scene {
    log: PathBuf,
    pub(crate) context: String,
    pub(crate) life: u64,
    cores: [CoreModel; CORES as usize],
    acks: u64,
}

/// What is known of one core's log.
#[derive(Debug, Default, Clone)]
struct CoreModel {
    /// Per life that is over, the sequence behind its last entry. Recovery has seen them, so they
    /// must not change any more.
    life_ends: Vec<u64>,
    /// Every entry below this sequence was acked, and every byte below this position.
    acked_sequence: u64,
    acked_position: u64,
    segments: u64,
}

impl Scene {
    /// A log that is not there yet.
    pub(crate) fn new(log: PathBuf) -> Self {
        Self { log, context: String::new(), life: 0, cores: Default::default(), acks: 0 }
    }

    /// Starts a child, kills it at some moment, and takes in everything that it acked.
    pub(crate) fn live_and_be_killed(&mut self, random: &mut Random) {
        self.live_until(random, Stdio::inherit(), |child| child.kill().unwrap());
    }

    /// Starts a child, lets `end` take its disk away at some moment, and takes in everything that
    /// it acked, until it has noticed.
    pub(crate) fn live_until_the_disk_ends(&mut self, random: &mut Random, end: impl FnOnce()) {
        // That the child complains is what should happen.
        self.live_until(random, Stdio::null(), |_| end());
    }

    fn live_until(&mut self, random: &mut Random, stderr: Stdio, end: impl FnOnce(&mut Child)) {
        let (mut child, mut lines) = self.start_child(stderr);
        // An opening is as good a moment to die as any other; it is only so much shorter.
        let acks = if random.below(6) == 0 { 0 } else { 1 + random.below(60) };
        self.hear_until(&mut lines, |line| line == "opening");
        for _ in 0..acks {
            self.hear_until(&mut lines, |line| line.starts_with("ack "));
        }
        // Not to wait for anything: to die somewhere between two acks, not just behind one.
        thread::sleep(Duration::from_micros(random.below(3000)));
        end(&mut child);
        while self.hear(&mut lines).is_some() {}
        child.wait().unwrap();
    }

    fn start_child(&self, stderr: Stdio) -> (Child, BufReader<ChildStdout>) {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", CHILD, "--nocapture"])
            .env(DIRECTORY, &self.log)
            .env(LIFE, self.life.to_string())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        (child, lines)
    }

    fn hear_until(&mut self, lines: &mut BufReader<ChildStdout>, wanted: impl Fn(&str) -> bool) {
        loop {
            let line = self.hear(lines);
            let line =
                line.unwrap_or_else(|| panic!("{}: the child ended by itself", self.context));
            if wanted(&line) {
                return;
            }
        }
    }

    /// Takes in one line; `None` if the child is gone and everything was heard.
    fn hear(&mut self, lines: &mut BufReader<ChildStdout>) -> Option<String> {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        // A line without an end was cut off by the kill, so nobody was told anything.
        let line = line.strip_suffix('\n')?;
        if let Some(ack) = line.strip_prefix("ack ") {
            let numbers: Vec<u64> = ack.split(' ').map(|number| number.parse().unwrap()).collect();
            let &[core, sequence, position] = numbers.as_slice() else {
                panic!("{}: the child said {line:?}", self.context);
            };
            let model = &mut self.cores[usize::try_from(core).unwrap()];
            assert!(
                sequence >= model.acked_sequence && position >= model.acked_position,
                "{}: {line} behind {model:?}",
                self.context
            );
            (model.acked_sequence, model.acked_position) = (sequence, position);
            self.acks += 1;
        }
        Some(line.to_owned())
    }

    /// Recovers twice, in two ways, holds both against the model, and ends the life.
    pub(crate) fn check(&mut self) -> Totals {
        let context = &self.context;
        let Some(recovery) = self.recover() else {
            // Killed before there was a directory.
            self.life += 1;
            for model in &mut self.cores {
                assert_eq!(model.acked_sequence, 0, "{context}");
                model.life_ends.push(0);
            }
            return Totals::default();
        };
        let mut seen = Seen::new(self);
        recovery.for_each(|entry| seen.visit(&entry)).unwrap();
        let again = self.recover().unwrap();
        assert_eq!(again.report(), recovery.report(), "{context}: recovered twice");
        let mut seen_again = Seen::new(self);
        for core in 0..CORES {
            again.for_each_of_core(core, |entry| seen_again.visit(&entry)).unwrap();
        }
        assert_eq!(seen_again.cores, seen.cores, "{context}: replayed twice");

        let mut totals = Totals { acks: self.acks, ..Totals::default() };
        let found = (0..CORES).zip(&seen.cores);
        for ((core, found), model) in found.zip(&mut self.cores) {
            let reported = ReportedCore::of(recovery.report(), core);
            let context = format!("{context}, core {core}: {reported:?}, {model:?}");
            assert_eq!(reported.entries, found.next_sequence, "{context}");
            assert_eq!(reported.next_sequence, found.next_sequence, "{context}");
            assert!(found.next_sequence >= model.acked_sequence, "{context}: acked and gone");
            assert!(reported.end_position >= model.acked_position, "{context}: acked and gone");
            let earlier = model.life_ends.last().copied().unwrap_or(0);
            assert!(found.next_sequence >= earlier, "{context}: recovered once, and gone");

            totals.entries_recovered += found.next_sequence - earlier;
            totals.entries_acked += model.acked_sequence.saturating_sub(earlier);
            totals.segments += reported.segments - model.segments;
            model.segments = reported.segments;
            model.life_ends.push(found.next_sequence);
        }
        self.acks = 0;
        self.life += 1;
        totals
    }

    /// The last life of a directory is this process's own, and ends well.
    pub(crate) fn go_on_without_a_kill(&mut self) {
        self.context = format!("{}, then closed", self.context);
        let (wal, _) = options(&self.log).open().unwrap();
        for (core, model) in (0..CORES).zip(&mut self.cores) {
            let mut writer = wal.writer(core).unwrap();
            assert_eq!(Some(&writer.sequence()), model.life_ends.last(), "{}", self.context);
            append(&mut writer, self.life).unwrap();
            writer.sync().unwrap();
            model.acked_sequence = writer.sequence();
            model.acked_position = writer.synced_position();
        }
        wal.close().unwrap();
        self.check();
        let recovery = self.recover().unwrap();
        for core in &recovery.report().cores {
            assert_eq!(core.ending.kind, EndingKind::Closed, "{}: {core}", self.context);
        }
        let verified = laminar_wal::verify(&self.log).unwrap();
        assert!(verified.is_sound(), "{}: {verified}", self.context);
    }

    /// `None` if there is no directory.
    fn recover(&self) -> Option<Recovery> {
        match laminar_wal::read(&self.log, RecoveryMode::TornTail) {
            Err(error) if error.is_not_found() && !self.log.exists() => None,
            recovery => Some(recovery.unwrap_or_else(|error| panic!("{}: {error}", self.context))),
        }
    }
}

/// The numbers of a core's report; zeroes if the log does not have it yet.
#[derive(Debug, Default)]
struct ReportedCore {
    segments: u64,
    entries: u64,
    next_sequence: u64,
    end_position: u64,
}

impl ReportedCore {
    fn of(report: &RecoveryReport, core: u16) -> Self {
        report.core(core).map_or_else(Self::default, |found| Self {
            segments: found.segments,
            entries: found.entries,
            next_sequence: found.next_sequence,
            end_position: found.end_position,
        })
    }
}

/// What a replay has shown so far.
struct Seen<'a> {
    scene: &'a Scene,
    cores: [SeenOfCore; CORES as usize],
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct SeenOfCore {
    next_sequence: u64,
    last_epoch: u64,
    last_timestamp_ns: i64,
}

impl<'a> Seen<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self { scene, cores: Default::default() }
    }

    fn visit(&mut self, entry: &EntryView<'_>) {
        let context = &self.scene.context;
        let core = usize::from(entry.core_id());
        let (seen, model) = (&mut self.cores[core], &self.scene.cores[core]);
        assert_eq!(entry.sequence(), seen.next_sequence, "{context}: {entry:?}");
        assert!(entry.epoch() >= seen.last_epoch, "{context}: {entry:?} behind {seen:?}");
        assert!(entry.timestamp_ns() >= seen.last_timestamp_ns, "{context}: {entry:?}, {seen:?}");
        // Earlier lives own what was recovered after them; whatever is new must be of this one.
        let lives_before = model.life_ends.iter().filter(|&&end| end <= entry.sequence()).count();
        let expected = operation(entry.core_id(), entry.sequence(), lives_before as u64);
        assert_eq!(
            entry.operation().to_operation(),
            expected,
            "{context}: core {core}, sequence {}, life {lives_before}",
            entry.sequence()
        );
        seen.next_sequence += 1;
        seen.last_epoch = entry.epoch();
        seen.last_timestamp_ns = entry.timestamp_ns();
    }
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) acks: u64,
    pub(crate) entries_acked: u64,
    pub(crate) entries_recovered: u64,
    pub(crate) segments: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.acks += other.acks;
        self.entries_acked += other.entries_acked;
        self.entries_recovered += other.entries_recovered;
        self.segments += other.segments;
    }
}

// ---- the child ----

fn live_until_killed(directory: &Path, life: u64) {
    // One thread that fails must not leave the others going on.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
    // A child that nobody kills, because it hangs or has lost its parent, ends itself.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(60));
        panic!("nobody has killed this child");
    });
    // The test harness has begun this line.
    println!("\nopening");
    let (wal, _) = options(directory).open().unwrap();
    thread::scope(|scope| {
        for core in 0..CORES {
            let mut writer = wal.writer(core).unwrap();
            scope.spawn(move || append_and_sync_for_ever(&mut writer, life).unwrap());
        }
    });
}

fn append_and_sync_for_ever(writer: &mut CoreWalWriter, life: u64) -> Result<(), WalError> {
    let core = writer.core_id();
    let mut random = Random(writer.sequence() * 8 + u64::from(core));
    loop {
        for _ in 0..1 + random.below(30) {
            append(writer, life)?;
        }
        if core == CORES - 1 {
            let sequence = writer.sequence();
            let request = writer.start_sync()?;
            let syncing = thread::spawn(move || request.run());
            // Appending goes on while another thread syncs.
            for _ in 0..random.below(10) {
                append(writer, life)?;
            }
            let proof = syncing.join().unwrap()?;
            ack(core, sequence, proof.position());
            writer.mark_synced(proof)?;
        } else {
            writer.sync()?;
            assert_eq!(writer.synced_position(), writer.position());
            ack(core, writer.sequence(), writer.synced_position());
        }
    }
}

/// Everything of the core below this sequence, and below this position, is durable.
fn ack(core: u16, sequence: u64, position: u64) {
    // One call, so that lines of several threads do not mix and a kill leaves whole ones.
    let line = format!("ack {core} {sequence} {position}\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

fn append(writer: &mut CoreWalWriter, life: u64) -> Result<(), WalError> {
    match operation(writer.core_id(), writer.sequence(), life) {
        WalOperation::Put { key, value } => writer.append_put(&key, &value)?,
        WalOperation::Delete { key } => writer.append_delete(&key)?,
        WalOperation::Commit { offsets, watermark } => writer.append_commit(&offsets, watermark)?,
        WalOperation::Checkpoint { .. } | WalOperation::EpochBarrier { .. } => unreachable!(),
    };
    Ok(())
}

// ---- both ----

/// What a core logs under a sequence in a life: no two are the same, so whatever turns up in a
/// wrong place, or comes from a life that had lost it, is noticed.
fn operation(core: u16, sequence: u64, life: u64) -> WalOperation {
    let mut random = Random((life << 48) ^ (sequence << 16) ^ u64::from(core));
    let key = format!("core {core}, sequence {sequence}, life {life}").into_bytes();
    match random.below(64) {
        0 => WalOperation::Delete { key },
        1 => {
            let offsets = [("sequence", sequence), ("life", life), ("core", core.into())];
            let offsets = Offsets::try_from_pairs(offsets).unwrap();
            WalOperation::Commit { offsets, watermark: Some(random.below(1000).cast_signed()) }
        }
        // Longer than a buffer, and now and then longer than what is left of a segment.
        2 => WalOperation::Put { key, value: random.bytes(12_000) },
        _ => WalOperation::Put { key, value: random.bytes(200) },
    }
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Fewer than so many bytes.
    fn bytes(&mut self, bound: u64) -> Vec<u8> {
        let length = usize::try_from(self.below(bound)).unwrap();
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

pub(crate) fn number_from(variable: &str) -> Option<u64> {
    let number = env::var(variable).ok()?;
    Some(number.parse().unwrap_or_else(|_| panic!("{variable}={number} is not a number")))
}
