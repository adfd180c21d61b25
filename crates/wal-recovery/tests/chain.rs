//! Which segment files are the log: predecessors, salts, leftovers, release.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use support::{damaged, disk, new_log, recovered, refused, release, try_recover_disk};
use wal_format::{RecordKind, Seal};
use wal_recovery::{EndingKind, OtherSegmentKind, RecoveryMode};
use wal_sim::fixture::{LogFixture, SegmentFixture, segment_name};

/// Three sealed segments of two entries each, and a fourth, begun.
fn four_segments() -> LogFixture {
    let mut log = new_log();
    for _ in 0..3 {
        log.core(0).segment().put(b"a", b"1").put(b"b", b"2").seal();
    }
    log.core(0).segment().put(b"c", b"3");
    log
}

#[test]
fn a_segment_that_stops_before_the_next_one_begins_is_damage_whatever_stops_it() {
    let stops: [fn(&mut SegmentFixture); 4] = [
        |segment| {
            segment.record(RecordKind::Unknown(5), &[0; 16]);
        },
        |segment| {
            segment.set_timestamp(9).put(b"b", b"2").set_timestamp(5);
        },
        |segment| {
            let seal = Seal { next_sequence: 1 };
            let seal = seal.encode(segment.salt(), segment.position());
            segment.raw(&seal);
        },
        |segment| {
            segment.raw(&[0; 40]);
        },
    ];
    for (case, stop) in stops.into_iter().enumerate() {
        let mut log = new_log();
        let segment = log.core(0).segment().put(b"a", b"1");
        stop(segment);
        segment.put(b"c", b"3");
        let base = segment.position();
        log.core(0).segment().put(b"d", b"4");
        let corruption = damaged(&log.finish());
        assert!(corruption.path.ends_with(segment_name(0, 1)), "case {case}: {corruption}");
        assert!(corruption.position.unwrap() < base, "case {case}: {corruption}");
        let proof = corruption.proven_by.as_ref().unwrap();
        assert_eq!(proof.durable_position, base, "case {case}: {corruption}");
        assert!(proof.witness.contains("start"), "case {case}: {corruption}");
    }
}

#[test]
fn segments_follow_each_other_in_position_and_sequence() {
    let log = four_segments();
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    let spans = &found.core(0).spans;
    assert_eq!(spans.iter().map(|span| span.segment_id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for pair in spans.windows(2) {
        assert_eq!(pair[0].end_position, pair[1].base_position);
        assert_eq!(pair[0].end_sequence, pair[1].base_sequence);
    }
    assert_eq!(spans[3].end_position, found.core(0).end_position);
    assert_eq!(found.core(0).adoption.unwrap().segment_id, 4);
    assert_eq!(found.core(0).adoption.unwrap().from_position, spans[3].base_position);
    assert_eq!(found.core_report(0).entries, 7);
}

#[test]
fn a_missing_segment_in_the_middle_is_damage_that_names_both_files() {
    for missing in [1, 2, 3] {
        let mut image = four_segments().finish();
        image.remove(&segment_name(0, missing));
        let corruption = damaged(&image);
        assert!(corruption.path.ends_with(segment_name(0, missing + 1)), "{corruption}");
        assert!(corruption.what.contains(&segment_name(0, missing)), "{corruption}");
    }
}

#[test]
fn a_missing_last_segment_is_damage_because_the_one_before_is_sealed() {
    let mut image = four_segments().finish();
    image.remove(&segment_name(0, 4));
    assert!(damaged(&image).what.contains("sealed"));
}

#[test]
fn a_predecessor_of_another_life_is_damage() {
    let mut log = four_segments();
    log.core(0).segment().start(|start| start.predecessor.as_mut().unwrap().salt ^= 1);
    assert!(damaged(&log.finish()).what.contains("salt"));
}

#[test]
fn a_predecessor_without_a_valid_start_is_damage() {
    let mut image = four_segments().finish();
    image.flip_byte(&segment_name(0, 2), 4096 + 40);
    let corruption = damaged(&image);
    assert!(corruption.what.contains("no valid start"), "{corruption}");
}

#[test]
fn a_predecessor_with_a_higher_number_is_damage() {
    let mut log = four_segments();
    log.core(0).segment().start(|start| start.predecessor.as_mut().unwrap().segment_id = 5);
    assert!(damaged(&log.finish()).what.contains("later file"));
}

#[test]
fn a_predecessor_that_begins_later_is_damage() {
    let mut log = four_segments();
    log.core(0).segment_after(4, 72).set_sequence(0);
    assert!(damaged(&log.finish()).what.contains("behind it"));
}

#[test]
fn a_segment_that_begins_in_the_middle_of_a_record_is_damage() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").put(b"b", b"2");
    log.core(0).segment_after(1, 88).put(b"c", b"3");
    let corruption = damaged(&log.finish());
    assert!(corruption.what.contains("beyond position 88"), "{corruption}");
}

#[test]
fn a_segment_that_begins_behind_its_predecessors_end_is_damage() {
    let mut log = new_log();
    let first = log.core(0).segment();
    first.put(b"a", b"1");
    let end = first.position();
    log.core(0).segment_after(1, end + 80).put(b"c", b"3");
    let corruption = damaged(&log.finish());
    assert_eq!(corruption.position, Some(end));
    assert!(corruption.proven_by.unwrap().witness.contains("the start of"));
}

#[test]
fn a_start_with_another_sequence_epoch_or_timestamp_than_the_log_is_damage() {
    let changes: [fn(&mut wal_format::Start); 4] = [
        |start| start.base_sequence += 1,
        |start| start.base_sequence -= 1,
        |start| start.last_epoch = 4,
        |start| start.last_timestamp_ns = -1,
    ];
    for change in changes {
        let mut log = new_log();
        log.core(0).segment().set_epoch(5).put(b"a", b"1").put(b"b", b"2").seal();
        log.core(0).segment().start(change);
        assert!(damaged(&log.finish()).what.contains("start says"));
    }
}

#[test]
fn a_start_may_know_of_higher_epochs_and_timestamps() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    log.core(0).segment().start(|start| {
        start.last_epoch = 9;
        start.last_timestamp_ns = 1000;
    });
    let found = recovered(&log.finish());
    assert_eq!((found.core(0).last_epoch, found.core(0).last_timestamp_ns), (9, 1000));
}

#[test]
fn several_takeovers_at_one_position_leave_the_last_one() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    for _ in 0..3 {
        log.core(0).segment().ends_here().raw(&[0xee; 48]);
    }
    log.core(0).segment().put(b"b", b"2");
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.core(0).spans.len(), 5);
}

#[test]
fn unused_segments_are_found_and_left() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").seal();
    log.core(0).unused_segment();
    log.core(0).unused_segment();
    let found = recovered(&log.finish());
    let others = &found.core(0).other_segments;
    assert_eq!(others.iter().map(|other| other.segment_id).collect::<Vec<_>>(), [2, 3]);
    assert!(others.iter().all(|other| other.why == OtherSegmentKind::Unused));
}

#[test]
fn a_leftover_without_a_start_between_members_is_unused() {
    let mut log = new_log();
    let (end, sequence) = {
        let first = log.core(0).segment();
        first.put(b"a", b"1");
        (first.position(), first.sequence())
    };
    log.core(0).unused_segment();
    log.core(0).segment_after(1, end).set_sequence(sequence).put(b"b", b"2");
    let found = recovered(&log.finish());
    assert_eq!(found.entries().len(), 2);
    assert_eq!(found.core(0).other_segments[0].why, OtherSegmentKind::Unused);
}

#[test]
fn a_used_segment_that_the_head_does_not_descend_from_is_damage() {
    let mut log = new_log();
    let (end, sequence) = {
        let first = log.core(0).segment();
        first.put(b"a", b"1");
        (first.position(), first.sequence())
    };
    log.core(0).segment().put(b"acked", b"1");
    log.core(0).segment_after(1, end).set_sequence(sequence).start(|start| {
        start.base_sequence = sequence;
    });
    let corruption = damaged(&log.finish());
    assert!(corruption.what.contains("does not descend"), "{corruption}");
}

#[test]
fn released_segments_may_be_gone_or_still_there() {
    let mut log = four_segments();
    let base_of_third = recovered(&log.finish()).core(0).spans[2].base_position;
    log.manifest().releases.push(release(0, base_of_third + 8));
    let mut image = log.finish();
    let found = recovered(&image);
    assert_eq!(found.core(0).spans.iter().map(|span| span.segment_id).collect::<Vec<_>>(), [3, 4]);
    let others = &found.core(0).other_segments;
    assert!(others.iter().all(|other| other.why == OtherSegmentKind::Released), "{others:?}");
    assert_eq!(others.len(), 2);

    image.remove(&segment_name(0, 1)).remove(&segment_name(0, 2));
    let found = recovered(&image);
    assert_eq!(found.entries(), log.entries()[4..]);
    assert_eq!(found.core(0).next_sequence, 7);

    image.remove(&segment_name(0, 3));
    damaged(&image);
}

#[test]
fn a_log_that_ends_below_its_release_position_is_damage() {
    let mut log = four_segments();
    let end = recovered(&log.finish()).core(0).end_position;
    log.manifest().releases.push(release(0, end));
    assert_eq!(recovered(&log.finish()).core(0).end_position, end);
    log.manifest().releases[0].position = end + 8;
    let corruption = damaged(&log.finish());
    assert!(corruption.proven_by.unwrap().witness.contains("release"));
}

#[test]
fn a_released_log_without_any_segment_is_damage() {
    let mut log = new_log();
    log.core(0);
    log.manifest().releases.push(release(0, 4096));
    let corruption = damaged(&log.finish());
    assert!(corruption.path.ends_with("core-0000"), "{corruption}");
}

#[test]
fn epoch_and_timestamp_of_released_entries_are_remembered() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    let mut known = release(0, 0);
    known.last_epoch = 12;
    known.last_timestamp_ns = 999;
    log.manifest().releases.push(known);
    let found = recovered(&log.finish());
    assert_eq!((found.core(0).last_epoch, found.core(0).last_timestamp_ns), (12, 999));
}

#[test]
fn a_log_that_begins_above_what_was_released_is_damage() {
    let mut log = four_segments();
    log.core(0).segment().start(|start| start.predecessor = None);
    assert!(damaged(&log.finish()).what.contains("begins here"));
}

#[test]
fn a_base_position_beyond_all_numbers_is_damage_and_no_panic() {
    for base_position in [u64::MAX - 7, u64::MAX - 49_151] {
        let mut log = new_log();
        log.core(0).segment().put(b"a", b"1").start(|start| {
            start.predecessor = None;
            start.base_position = base_position;
        });
        damaged(&log.finish());
    }
}

#[test]
fn a_base_sequence_beyond_all_numbers_is_damage_and_no_panic() {
    for base_sequence in [u64::MAX, u64::MAX - 1, u64::MAX - 49_151] {
        let mut log = new_log();
        log.core(0).segment().start(|start| start.base_sequence = base_sequence);
        let corruption = damaged(&log.finish());
        assert!(corruption.what.contains(&format!("base sequence {base_sequence}")));
        assert!(corruption.path.ends_with(segment_name(0, 1)), "{corruption}");
    }
    let mut log = new_log();
    log.core(0).segment().start(|start| start.base_sequence = u64::MAX - 49_152);
    assert_eq!(recovered(&log.finish()).core(0).next_sequence, u64::MAX - 49_152);
}

#[test]
fn cores_are_recovered_each_for_itself() {
    let mut log = new_log();
    for core in 0..12 {
        for _ in 0..=core {
            log.core(core).segment().put(b"a", b"1").seal();
        }
        log.core(core).segment().put(b"z", b"9");
    }
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    for core in 0..12 {
        assert_eq!(found.core(core).spans.len(), usize::from(core) + 2);
    }
}

#[test]
fn temporaries_are_listed_and_other_names_reported() {
    let log = four_segments();
    let mut image = log.finish();
    let names = ["core-0000/next-00000000000000000005.tmp", "core-0000/notes.txt", "README"];
    for name in names {
        image.files.insert(name.to_owned(), b"whatever".to_vec());
    }
    let found = recovered(&image);
    assert_eq!(found.core(0).temporaries, ["next-00000000000000000005.tmp"]);
    assert_eq!(found.log.report.strange_names, ["README", "core-0000/notes.txt"]);
    assert!(found.log.report.to_string().contains("notes.txt"));
    assert_eq!(found.entries(), log.entries());
}

#[test]
fn an_error_of_the_disk_is_passed_on_and_is_no_damage() {
    let image = four_segments().finish();
    let disk = disk(&image);
    disk.halt();
    let error = try_recover_disk(&disk, RecoveryMode::TornTail).unwrap_err();
    assert!(matches!(error, wal_storage::WalError::Io { .. }), "{error}");
}

#[test]
fn errors_name_the_whole_path() {
    let mut image = four_segments().finish();
    image.remove(&segment_name(0, 2));
    let error = refused(&image);
    assert!(error.path().unwrap().is_absolute() || error.path().unwrap().components().count() > 2);
}

#[test]
fn a_torn_first_write_of_the_first_segment_leaves_an_empty_log() {
    let mut log = new_log();
    let name = log.core(0).segment().put(b"a", b"1").name();
    let mut image = log.finish();
    image.zero_from(&name, 4096 + 16);
    let found = recovered(&image);
    let kind = EndingKind::Torn { dropped_bytes_at_least: 0, unproven: true };
    assert_eq!(found.ending(), ("@F".into(), kind));
    assert_eq!(found.core(0).end_position, 0);
    assert!(found.core(0).adoption.is_none());
}

#[test]
fn a_used_segment_below_the_chain_that_begins_above_it_is_damage() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    log.core(0).segment_after(1, 800);
    log.core(0).segment_after(1, 80);
    log.manifest().releases.push(release(0, 80));
    assert!(damaged(&log.finish()).what.contains("does not descend"));
}

#[test]
fn epoch_and_timestamp_of_the_checkpoint_are_remembered() {
    let mut log = new_log();
    let position = log.core(0).segment().put(b"a", b"1").position();
    log.manifest().checkpoint = Some(wal_format::Checkpoint {
        id: 1,
        epoch: 6,
        cores: vec![wal_format::CheckpointCore {
            core: 0,
            position,
            sequence: 1,
            timestamp_ns: 70,
        }],
        source_offsets: vec![],
        watermark: None,
    });
    let found = recovered(&log.finish());
    assert_eq!((found.core(0).last_epoch, found.core(0).last_timestamp_ns), (6, 70));
}
