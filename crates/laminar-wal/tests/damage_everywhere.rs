//! Every single bit of a small log is turned over, and every segment is cut and zeroed at every
//! byte: nothing acked is ever lost without a word.
//!
//! The reference dropped 499 valid records behind one flipped bit, silently, and then cut them
//! from the disk. Here a flipped bit is one of three things: an error; harmless, with everything
//! that was acked given back; or, in the newest batch of a core that was not closed, a tail that
//! the report calls unproven, because nothing on disk tells it from a torn write.
//!
//! Space that holds zeroes is sampled; `LAMINAR_WAL_EXHAUSTIVE=1` covers it bit by bit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use laminar_wal::{Recovery, RecoveryMode, Storage, WalEntry, WalError, WalOptions};
use support::{segment, storage};
use wal_format::{RecordKind, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, SegmentBytes, VOUCH_OFFSET};
use wal_sim::SimStorage;

/// A log that is not open any more, and what must come back from it.
struct Specimen {
    disk: SimStorage,
    cores: u16,
    entries: Vec<WalEntry>,
    /// How many entries of each core nothing on disk proves: those of its newest batch.
    newest_batch: BTreeMap<u16, usize>,
}

/// How the process that wrote the log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    /// Right after the last sync.
    Killed,
    /// Two quiet seconds after the last sync.
    KilledLater,
}

impl Specimen {
    /// Two cores, several syncs each, one full segment each.
    fn write(end: End) -> Self {
        Self::of_cores(2, end)
    }

    fn of_cores(cores: u16, end: End) -> Self {
        let disk = SimStorage::new(11);
        let options = || {
            WalOptions::on_storage(storage(&disk))
                .cores(cores)
                .segment_bytes(SEGMENT_BYTES_MIN)
                .batch_bytes(4096)
        };
        let (wal, _) = options().open().unwrap();
        disk.run_jobs();
        let mut newest_batch = BTreeMap::new();
        for core in 0..cores {
            let mut writer = wal.writer(core).unwrap();
            writer.append_put(b"first", b"1").unwrap();
            writer.sync().unwrap();
            writer.append_delete(b"first").unwrap();
            writer.append_epoch_barrier().unwrap();
            writer.sync().unwrap();
            // Zeroes: a value must not look like unwritten space, and there is less to turn over.
            writer.append_put(b"large", &[0; 3700]).unwrap();
            writer.sync().unwrap();
            disk.run_jobs();
            writer.append_put(b"next segment", &[0; 40]).unwrap();
            writer.sync().unwrap();
            writer.append_put(b"middle", b"x").unwrap();
            writer.append_checkpoint(7).unwrap();
            writer.sync().unwrap();
            writer.append_put(b"last", b"y").unwrap();
            if core == 0 {
                writer.append_put(b"really last", b"z").unwrap();
            }
            writer.sync().unwrap();
            disk.run_jobs();
            newest_batch.insert(core, if core == 0 { 2 } else { 1 });
        }
        match end {
            End::Closed => wal.close().unwrap(),
            End::KilledLater => {
                disk.advance(std::time::Duration::from_secs(2));
                disk.run_jobs();
            }
            End::Killed => {}
        }
        let disk = disk.kill();
        let entries = recovered(&disk).unwrap().entries().unwrap();
        assert_eq!(entries.len(), if cores == 2 { 17 } else { 9 });
        for core in 0..cores {
            let directory = format!("core-{core:04}/");
            let files = disk.names().iter().filter(|name| name.starts_with(&directory)).count();
            assert_eq!(files, 3, "one full, one begun, one prepared");
        }
        if end != End::Killed {
            newest_batch.clear();
        }
        Self { disk, cores, entries, newest_batch }
    }

    /// What became of a damaged log of which at most the newest batch may be lost.
    fn judge(&self, disk: &SimStorage, name: &dyn Fn() -> String) -> Fate {
        let (fate, lost) = self.compare(disk, name);
        for (core, lost) in lost {
            let unproven = self.newest_batch.get(&core).copied().unwrap_or(0);
            assert!(lost <= unproven, "{}: core {core} lost {lost} entries", name());
        }
        fate
    }

    /// What became of a damaged log, and how many entries of each core are lost: always the
    /// newest ones, and always said to be unproven.
    fn compare(&self, disk: &SimStorage, name: &dyn Fn() -> String) -> (Fate, Vec<(u16, usize)>) {
        let recovered = match recovered(disk) {
            Ok(recovered) => recovered,
            Err(
                WalError::Corrupt(_)
                | WalError::ManifestLost { .. }
                | WalError::UnsupportedVersion { .. }
                | WalError::ForeignLog { .. },
            ) => return (Fate::Error, Vec::new()),
            Err(other) => panic!("{}: {other}", name()),
        };
        let entries = recovered.entries().unwrap_or_else(|error| panic!("{}: {error}", name()));
        if entries == self.entries {
            return (Fate::Harmless, Vec::new());
        }
        let lost_of = |core| {
            let of_core = |entry: &&WalEntry| entry.core_id == core;
            let found: Vec<_> = entries.iter().filter(of_core).collect();
            let expected: Vec<_> = self.entries.iter().filter(of_core).collect();
            let report = recovered.report().core(core).unwrap();
            assert!(expected.starts_with(&found), "{}: no prefix: {report}", name());
            let lost = expected.len() - found.len();
            assert!(lost == 0 || report.ending.is_unproven(), "{}: {report}", name());
            (core, lost)
        };
        (Fate::Unproven, (0..self.cores).map(lost_of).collect())
    }

    /// Turns single bits over, every one that is not in empty space, and counts what became of
    /// them.
    fn turn_every_bit(&self) -> Counts {
        let names = self.disk.names();
        let (first, second) = names.split_at(names.len() / 2);
        let turn = |names: &[String]| {
            let disk = self.disk.fork();
            let mut counts = Counts::default();
            for name in names {
                let bytes = self.disk.read_file(name).unwrap();
                for (at, &byte) in bytes.iter().enumerate() {
                    if !is_worth_it(&bytes, at, byte) {
                        continue;
                    }
                    for bit in 0..8 {
                        // In runs of zeroes each byte has its turn with another bit.
                        if byte == 0 && !is_exhaustive() && bit != at % 8 {
                            continue;
                        }
                        let at = at as u64;
                        disk.flip_bit(name, at, bit as u8).unwrap();
                        counts
                            .count(self.judge(&disk, &|| format!("{name}, byte {at}, bit {bit}")));
                        disk.overwrite(name, at, &[byte]).unwrap();
                    }
                }
            }
            counts
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| turn(second));
            turn(first).plus(other.join().unwrap())
        })
    }
}

impl Specimen {
    fn zeroed_from(&self, at: usize) -> SimStorage {
        let disk = self.disk.fork();
        disk.zero(&last_segment(), at as u64..SEGMENT_BYTES_MIN).unwrap();
        disk
    }
}

/// What became of a damaged log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Error,
    Unproven,
    Harmless,
}

#[derive(Debug, Default)]
struct Counts {
    errors: usize,
    unproven: usize,
    harmless: usize,
}

impl Counts {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Error => self.errors += 1,
            Fate::Unproven => self.unproven += 1,
            Fate::Harmless => self.harmless += 1,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            errors: self.errors + other.errors,
            unproven: self.unproven + other.unproven,
            harmless: self.harmless + other.harmless,
        }
    }
}

fn recovered(disk: &SimStorage) -> Result<Recovery, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    Ok(wal_recovery::recover(&storage, RecoveryMode::TornTail)?.replay(&storage))
}

fn is_exhaustive() -> bool {
    std::env::var("LAMINAR_WAL_EXHAUSTIVE").is_ok_and(|value| value == "1")
}

/// Bytes that mean something, their neighbourhood, and a sample of empty space.
fn is_worth_it(bytes: &[u8], at: usize, byte: u8) -> bool {
    let near = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|near| near.iter().any(|&byte| byte != 0))
    };
    byte != 0
        || is_exhaustive()
        || at.is_multiple_of(509)
        || (at.is_multiple_of(4) && near(at.saturating_sub(8)..(at + 8).min(bytes.len())))
}

#[test]
fn no_bit_of_a_closed_log_can_be_turned_over_unnoticed() {
    let counts = Specimen::write(End::Closed).turn_every_bit();
    assert_eq!(counts.unproven, 0, "{counts:?}");
    assert!(counts.errors > 5_000, "{counts:?}");
}

#[test]
fn of_a_killed_log_a_bit_costs_at_most_the_newest_batch_and_the_report_says_so() {
    let counts = Specimen::write(End::Killed).turn_every_bit();
    assert!(counts.unproven > 0, "the blind spot is where the README says: {counts:?}");
    assert!(counts.unproven < counts.errors / 3, "{counts:?}");
}

#[test]
fn a_quiet_second_closes_the_blind_spot() {
    let counts = Specimen::of_cores(1, End::KilledLater).turn_every_bit();
    assert_eq!(counts.unproven, 0, "{counts:?}");
}

/// The segment that a specimen of one core ends in.
fn last_segment() -> String {
    segment(0, 2)
}

#[test]
fn a_closed_log_whose_records_are_zeroed_from_any_byte_on_is_an_error() {
    let specimen = Specimen::of_cores(1, End::Closed);
    let bytes = specimen.disk.read_file(&last_segment()).unwrap();
    // The closing slot is the vouch block's second one.
    let behind_the_slot = VOUCH_OFFSET as usize + 2048 + 48;
    for at in behind_the_slot..written_end(&bytes) {
        let fate = specimen.judge(&specimen.zeroed_from(at), &|| format!("zeroed from {at} on"));
        assert_eq!(fate, Fate::Error, "zeroed from {at} on");
    }
}

#[test]
fn a_segment_that_is_zeroed_from_any_byte_on_is_never_called_proven() {
    // With everything that follows, whatever proved it is gone: several batches may be missing,
    // and it must be said that nothing proves that they are not.
    for end in [End::Closed, End::Killed, End::KilledLater] {
        let specimen = Specimen::of_cores(1, end);
        let bytes = specimen.disk.read_file(&last_segment()).unwrap();
        for at in 0..written_end(&bytes) {
            let is_header = (at as u64) < SEGMENT_HEADER_BYTES;
            if is_header && !is_exhaustive() && !is_worth_it(&bytes, at, bytes[at]) {
                continue;
            }
            specimen.compare(&specimen.zeroed_from(at), &|| format!("zeroed from {at} on"));
        }
    }
}

#[test]
fn a_hole_of_zeroes_that_leaves_a_mark_behind_it_is_an_error() {
    for end in [End::Closed, End::Killed, End::KilledLater] {
        let specimen = Specimen::of_cores(1, end);
        for id in 1..=2 {
            let name = segment(0, id);
            let bytes = specimen.disk.read_file(&name).unwrap();
            let last_mark = *marks(&bytes).last().unwrap();
            let first_record = SEGMENT_HEADER_BYTES as usize;
            for at in (first_record..written_end(&bytes)).step_by(8) {
                for length in [8, 64, 512, 4096] {
                    let hole = at..(at + length).min(bytes.len());
                    if bytes[hole.clone()].iter().all(|&byte| byte == 0) {
                        continue;
                    }
                    let disk = specimen.disk.fork();
                    disk.zero(&name, hole.start as u64..hole.end as u64).unwrap();
                    let story = || format!("{end:?}: {name} zeroed {hole:?}");
                    let (fate, _) = specimen.compare(&disk, &story);
                    if hole.end <= last_mark {
                        assert_eq!(fate, Fate::Error, "{}", story());
                    }
                }
            }
        }
    }
}

#[test]
fn a_segment_file_cut_short_anywhere_is_an_error() {
    let specimen = Specimen::of_cores(1, End::Killed);
    let bytes = specimen.disk.read_file(&last_segment()).unwrap();
    for at in 0..bytes.len() {
        let is_record = (SEGMENT_HEADER_BYTES as usize..=written_end(&bytes)).contains(&at);
        if !is_record && !is_exhaustive() && !at.is_multiple_of(31) {
            continue;
        }
        let disk = specimen.disk.fork();
        disk.truncate_file(&last_segment(), at as u64).unwrap();
        let fate = specimen.judge(&disk, &|| format!("cut to {at} bytes"));
        assert_eq!(fate, Fate::Error, "cut to {at} bytes");
    }
}

#[test]
fn a_manifest_slot_cut_or_zeroed_anywhere_is_harmless_beside_the_other_one() {
    let specimen = Specimen::of_cores(1, End::Closed);
    for name in ["MANIFEST.0", "MANIFEST.1"] {
        let bytes = specimen.disk.read_file(name).unwrap();
        for at in (0..written_end(&bytes) + 8).chain([4096, 65_535]) {
            let disk = specimen.disk.fork();
            disk.truncate_file(name, at as u64).unwrap();
            let fate = specimen.judge(&disk, &|| format!("{name} cut to {at} bytes"));
            assert_eq!(fate, Fate::Harmless, "{name} cut to {at} bytes");
            let disk = specimen.disk.fork();
            disk.zero(name, at as u64..bytes.len() as u64).unwrap();
            let fate = specimen.judge(&disk, &|| format!("{name} zeroed from {at} on"));
            assert_eq!(fate, Fate::Harmless, "{name} zeroed from {at} on");
        }
    }
}

#[test]
fn zeroes_of_any_length_behind_a_segment_are_harmless() {
    let specimen = Specimen::of_cores(1, End::Killed);
    let size_bytes = specimen.disk.read_file(&last_segment()).unwrap().len() as u64;
    for zeroes in (0..300).chain([511, 512, 4095, 4096, 4097, 1 << 20]) {
        let disk = specimen.disk.fork();
        disk.truncate_file(&last_segment(), size_bytes + zeroes).unwrap();
        let fate = specimen.judge(&disk, &|| format!("{zeroes} zeroes behind the end"));
        assert_eq!(fate, Fate::Harmless);
    }
}

#[test]
fn a_block_that_went_astray_is_never_taken_for_the_one_that_belongs_there() {
    for end in [End::Closed, End::Killed] {
        let specimen = Specimen::write(end);
        let names: Vec<_> =
            specimen.disk.names().into_iter().filter(|name| name.ends_with(".wal")).collect();
        for from in &names {
            for to in &names {
                for (from_block, to_block) in (0..5).flat_map(|a| (0..5).map(move |b| (a, b))) {
                    if (from, from_block) == (to, to_block) {
                        continue;
                    }
                    let disk = specimen.disk.fork();
                    disk.copy_block((from, from_block), (to, to_block)).unwrap();
                    specimen.compare(&disk, &|| {
                        format!("block {from_block} of {from} over block {to_block} of {to}")
                    });
                }
            }
        }
    }
}

#[test]
fn opening_a_damaged_log_for_writing_agrees_with_reading_it_and_changes_nothing() {
    for end in [End::Closed, End::Killed] {
        let specimen = Specimen::write(end);
        for name in specimen.disk.names() {
            let bytes = specimen.disk.read_file(&name).unwrap();
            for at in (0..bytes.len()).filter(|&at| bytes[at] != 0).step_by(29) {
                let disk = specimen.disk.fork();
                disk.flip_bit(&name, at as u64, (at % 8) as u8).unwrap();
                let fingerprint = disk.content_fingerprint();
                let read = specimen.judge(&disk, &|| format!("{name}, byte {at}"));
                assert_eq!(disk.content_fingerprint(), fingerprint);
                let opened = WalOptions::on_storage(storage(&disk)).cores(2).open();
                assert_eq!(opened.is_err(), read == Fate::Error, "{name}, byte {at}");
                if read == Fate::Error {
                    assert_eq!(disk.content_fingerprint(), fingerprint, "{name}, byte {at}");
                }
            }
        }
    }
}

/// Behind the last byte that is not zero.
fn written_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// Where the marks of a segment stand in its file.
fn marks(bytes: &[u8]) -> Vec<usize> {
    let file = SegmentBytes::parse(bytes).unwrap();
    let base = file.start().unwrap().base_position;
    let marks = file.records().filter(|record| record.kind == RecordKind::Mark);
    marks.map(|mark| (mark.position - base + SEGMENT_HEADER_BYTES) as usize).collect()
}
