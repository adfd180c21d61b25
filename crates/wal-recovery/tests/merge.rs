//! Replay: the merged order, restrictions, large records, repetition, and a property test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use proptest::prelude::*;
use support::{disk, new_log, recovered, value};
use wal_entry::{Offsets, WalEntry};
use wal_recovery::RecoveryMode;
use wal_sim::fixture::{LogFixture, segment_name};
use wal_storage::WalError;

fn sequences(entries: &[WalEntry], core: u16) -> Vec<u64> {
    let of_core = entries.iter().filter(|entry| entry.core_id == core);
    of_core.map(|entry| entry.sequence).collect()
}

/// Twelve cores, each with its own pace, epochs that do not agree with the clocks, and bursts.
fn twelve_cores() -> LogFixture {
    let mut log = new_log();
    for core in 0..12_u16 {
        let segment = log.core(core).segment().size(1 << 20);
        let mut time = i64::from(core) * 3;
        for number in 0..200_i64 {
            time += (number * 31 + i64::from(core) * 17) % 11;
            segment.set_epoch(number.unsigned_abs() / 50).set_timestamp(time);
            segment.put(&core.to_le_bytes(), &value(usize::from(core) * 40));
        }
    }
    log
}

#[test]
fn entries_of_all_cores_come_in_replay_order() {
    let log = twelve_cores();
    let found = recovered(&log.finish());
    let entries = found.entries();
    assert_eq!(entries.len(), 2400);
    assert_eq!(entries, log.entries());
}

#[test]
fn few_cores_and_many_are_merged_alike() {
    for cores in [1_u16, 2, 3, 8, 9] {
        let mut log = new_log();
        for core in 0..cores {
            let segment = log.core(core).segment();
            for number in 0..20_i64 {
                segment.set_timestamp(number * number % 7 + number * 5).put(b"k", b"v");
            }
        }
        assert_eq!(recovered(&log.finish()).entries(), log.entries(), "{cores} cores");
    }
}

#[test]
fn equal_timestamps_are_ordered_by_core() {
    let mut log = new_log();
    for core in [2, 0, 1] {
        let segment = log.core(core).segment();
        for _ in 0..5 {
            segment.set_timestamp(50).put(b"k", b"v");
        }
    }
    let entries = recovered(&log.finish()).entries();
    let cores: Vec<u16> = entries.iter().map(|entry| entry.core_id).collect();
    assert_eq!(cores, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
    assert_eq!(sequences(&entries, 1), [0, 1, 2, 3, 4]);
}

#[test]
fn an_epoch_counts_before_any_clock() {
    let mut log = new_log();
    log.core(0).segment().set_epoch(1).set_timestamp(1_000).put(b"k", b"fast clock");
    log.core(1).segment().set_epoch(2).set_timestamp(5).put(b"k", b"slow clock");
    let entries = recovered(&log.finish()).entries();
    assert_eq!(entries[1].value(), Some(&b"slow clock"[..]));
}

#[test]
fn every_kind_of_entry_comes_back() {
    let mut log = new_log();
    let segment = log.core(4).segment();
    let offsets = Offsets::try_from_pairs([("orders/0", 5), ("a source with a long name", 7)]);
    let entries = [
        WalEntry::put(4, 0, 0, vec![], vec![], 0),
        WalEntry::delete(4, 0, 1, b"k".to_vec(), 0),
        WalEntry::checkpoint(4, 0, 2, 9, 0),
        WalEntry::commit(4, 0, 3, offsets.unwrap(), Some(-3), 0),
        WalEntry::epoch_barrier(4, 0, 4, 0),
    ];
    for entry in &entries {
        segment.entry(entry);
    }
    assert_eq!(recovered(&log.finish()).entries(), entries);
}

#[test]
fn records_larger_than_the_buffer_are_read_whole() {
    let mut log = new_log();
    let sizes = [1, 100_000, 258_000, 262_056, 262_064, 262_072, 262_144, 1 << 20, 3, 300_000];
    for core in 0..2 {
        let segment = log.core(core).segment();
        for bytes in sizes {
            segment.put(b"k", &value(bytes));
        }
        segment.batch(&[(b"a", &value(200_000)), (b"b", &value(200_000)), (b"c", b"")]);
        segment.put(b"last", b"");
    }
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.entries().len(), 2 * (sizes.len() + 4));
}

#[test]
fn a_damaged_large_record_is_noticed_at_every_edge_of_the_buffer() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    let begin = segment.position();
    segment.put(b"k", &value(1 << 20));
    let end = segment.position();
    let name = segment.name();
    for at in [begin, begin + 9, begin + 262_144, 262_144, 500_000, end - 1] {
        let mut image = log.finish();
        image.flip_byte(&name, 12288 + at);
        let found = recovered(&image);
        assert_eq!(found.entries().len(), 1, "byte {at}");
        assert!(found.core_report(0).ending.is_torn());
    }
}

#[test]
fn a_length_over_the_log_s_limit_is_not_believed() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.identity().max_record_bytes = 1 << 12;
    segment.put(b"a", b"1").put(b"k", &value(1 << 13));
    let found = recovered(&log.finish());
    assert_eq!(found.entries().len(), 1);
    assert!(found.core_report(0).ending.found.contains("over this log's limit"));
}

#[test]
fn replay_can_be_restricted_and_repeated() {
    let log = twelve_cores();
    let found = recovered(&log.finish());
    let replay = found.log.replay(&found.storage);
    let up_to_1 = replay.clone().up_to_epoch(1);
    let expected: Vec<_> = log.entries().into_iter().filter(|entry| entry.epoch <= 1).collect();
    for _ in 0..2 {
        assert_eq!(up_to_1.entries().unwrap(), expected);
        assert_eq!(replay.entries().unwrap(), log.entries());
    }
    let end = found.core(5).end_position;
    let from = replay.clone().from_positions(&[(5, end), (3, 8), (7, 0)]);
    let entries = from.entries().unwrap();
    assert!(sequences(&entries, 5).is_empty());
    assert_eq!(sequences(&entries, 3), (1..200).collect::<Vec<_>>());
    assert_eq!(sequences(&entries, 7).len(), 200);
    assert_eq!(entries.len(), 2400 - 200 - 1);
    assert_eq!(replay.report(), &found.log.report);
    assert_eq!(replay.cores().count(), 12);
}

#[test]
fn one_core_can_be_replayed_alone() {
    let log = twelve_cores();
    let found = recovered(&log.finish());
    let replay = found.log.replay(&found.storage);
    let mut sequences = Vec::new();
    replay
        .for_each_of_core(6, |entry| {
            assert_eq!(entry.core_id(), 6);
            sequences.push(entry.sequence());
        })
        .unwrap();
    assert_eq!(sequences, (0..200).collect::<Vec<_>>());
    replay.for_each_of_core(99, |_| panic!("there is no core 99")).unwrap();
}

#[test]
fn a_visit_that_fails_ends_the_replay_with_its_error() {
    #[derive(Debug, PartialEq)]
    enum Failed {
        Visit(u64),
        Log,
    }
    impl From<WalError> for Failed {
        fn from(_: WalError) -> Self {
            Self::Log
        }
    }
    let log = twelve_cores();
    let image = log.finish();
    let found = recovered(&image);
    let replay = found.log.replay(&found.storage);
    let mut visited = 0;
    let visit = |entry: wal_entry::EntryView<'_>| {
        visited += 1;
        if visited == 100 { Err(Failed::Visit(entry.epoch())) } else { Ok(()) }
    };
    assert_eq!(replay.try_for_each(visit), Err(Failed::Visit(0)));
    assert_eq!(visited, 100);
}

#[test]
fn a_file_that_changed_since_recovery_is_an_error_and_not_another_log() {
    let log = twelve_cores();
    let disk = disk(&log.finish());
    let found = support::try_recover_disk(&disk, RecoveryMode::TornTail).unwrap();
    disk.flip_bit(&segment_name(3, 1), 12288 + 4000, 2).unwrap();
    let error = found.log.replay(&found.storage).entries().unwrap_err();
    assert!(error.to_string().contains("recovery had found a valid record"), "{error}");
    disk.delete(&segment_name(3, 1)).unwrap();
    assert!(found.log.replay(&found.storage).entries().unwrap_err().is_not_found());
}

#[test]
fn records_appended_since_recovery_are_not_part_of_it() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    let disk = disk(&log.finish());
    let found = support::try_recover_disk(&disk, RecoveryMode::TornTail).unwrap();
    log.core(0).segment().put(b"b", b"2");
    log.finish().install(&disk).unwrap();
    assert_eq!(found.entries().len(), 1);
}

/// What a random log does next, on one of its cores.
#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    Batch(usize),
    Mark,
    Epoch,
    Clock(i64),
    Skipped,
    Seal,
    TakeOver(usize),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..600).prop_map(Step::Put),
        1 => (30_000_usize..400_000).prop_map(Step::Put),
        2 => (1_usize..6).prop_map(Step::Batch),
        3 => Just(Step::Mark),
        1 => Just(Step::Epoch),
        2 => (0_i64..1000).prop_map(Step::Clock),
        1 => Just(Step::Skipped),
        1 => Just(Step::Seal),
        1 => (0_usize..6000).prop_map(Step::TakeOver),
        1 => Just(Step::Close),
    ]
}

fn random_log(steps: &[(u16, Step)]) -> LogFixture {
    let mut log = new_log();
    for (core, step) in steps {
        let core = log.core(*core);
        let segment = match core.last_segment() {
            Some(_) => core.last_segment().unwrap(),
            None => core.segment(),
        };
        match step {
            Step::Put(bytes) => drop(segment.put(b"key", &value(*bytes)).position()),
            Step::Batch(entries) => {
                let bytes = value(*entries * 30);
                segment.batch(&vec![(&b"key"[..], &bytes[..]); *entries]);
            }
            Step::Mark => drop(segment.mark(segment.position()).position()),
            Step::Epoch => {
                let epoch = segment.next_put(b"", b"").epoch + 1;
                segment.set_epoch(epoch);
            }
            Step::Clock(by) => {
                let now = segment.next_put(b"", b"").timestamp_ns;
                segment.set_timestamp(now + by);
            }
            Step::Skipped => {
                segment.record(wal_format::RecordKind::Skippable(9), &[5; 40]);
            }
            Step::Seal => {
                segment.seal();
                core.segment();
            }
            Step::TakeOver(garbage) => {
                segment.ends_here().raw(&vec![0xe7; *garbage]);
                core.segment();
            }
            // Nobody goes on in a closed segment.
            Step::Close => {
                segment.close();
                core.segment();
            }
        }
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_log_replays_to_exactly_what_was_written(
        steps in prop::collection::vec((0_u16..5, step()), 1..120),
    ) {
        let log = random_log(&steps);
        let found = recovered(&log.finish());
        let expected = log.entries();
        prop_assert_eq!(found.log.report.entries(), expected.len() as u64);
        prop_assert_eq!(found.entries(), expected);
    }

    #[test]
    fn any_garbage_anywhere_gives_a_prefix_or_an_error(
        steps in prop::collection::vec((0_u16..2, step()), 1..40),
        file: prop::sample::Index,
        at: prop::sample::Index,
        garbage in prop::collection::vec(any::<u8>(), 1..64),
        near_the_front: bool,
    ) {
        let log = random_log(&steps);
        let mut image = log.finish();
        let names: Vec<String> = image.files.keys().cloned().collect();
        let name = &names[file.index(names.len())];
        let length = image.files[name].len();
        let length = if near_the_front { length.min(14_000) } else { length };
        image.overwrite(name, at.index(length) as u64, &garbage);
        let Ok(found) = support::try_recover(&image) else { return Ok(()) };
        let expected = log.entries();
        for core in 0..2 {
            let of_core = |entries: &[WalEntry]| -> Vec<WalEntry> {
                entries.iter().filter(|entry| entry.core_id == core).cloned().collect()
            };
            let (kept, expected) = (of_core(&found.entries()), of_core(&expected));
            prop_assert_eq!(&kept[..], &expected[..kept.len()]);
            if kept.len() < expected.len() {
                let ending = &found.core_report(core).ending;
                prop_assert!(ending.is_unproven(), "{}", found.log.report);
            }
        }
    }
}
