//! Ranges that were accepted as lost, and how the log goes on behind them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use support::{checkpoint, damaged, disk, new_log, recovered, try_recover_disk};
use wal_entry::WalEntry;
use wal_format::{AcceptedDamage, CheckpointCore};
use wal_recovery::RecoveryMode;
use wal_sim::fixture::{LogFixture, LogImage, segment_name};

/// Two segments with three entries each, and the position of each entry.
fn two_segments() -> (LogFixture, Vec<u64>) {
    let mut log = new_log();
    let mut positions = Vec::new();
    for keys in [b"abc", b"def"] {
        let segment = log.core(0).segment();
        for key in keys {
            positions.push(segment.position());
            segment.put(&[*key], b"");
        }
        if keys == b"abc" {
            segment.seal();
        }
    }
    (log, positions)
}

fn accept(log: &mut LogFixture, segment_id: u64, position: u64, end_position: u64) {
    log.manifest().accepted_damage.push(AcceptedDamage {
        core: 0,
        position,
        end_position,
        segment_id,
    });
}

fn keys(found: &support::Recovered) -> Vec<u8> {
    found.entries().iter().map(|entry| entry.key().unwrap()[0]).collect()
}

/// Damages the entry at a position of the first segment.
fn damage(log: &LogFixture, position: u64) -> LogImage {
    let mut image = log.finish();
    image.flip_byte(&segment_name(0, 1), 12288 + position + 20);
    image
}

#[test]
fn within_a_segment_the_log_goes_on_with_the_sequence_of_the_entry_behind_the_hole() {
    let (mut log, at) = two_segments();
    damaged(&damage(&log, at[1]));
    accept(&mut log, 1, at[1], at[2]);
    let found = recovered(&damage(&log, at[1]));
    assert_eq!(keys(&found), b"acdef");
    let spans = &found.core(0).spans;
    let parts: Vec<_> = spans.iter().map(|it| (it.segment_id, it.base_position)).collect();
    assert_eq!(parts, [(1, 0), (1, at[2]), (2, at[3])]);
    assert_eq!((spans[0].end_position, spans[1].base_sequence), (at[1], 2));
    assert_eq!(found.core_report(0).segments, 2);
}

#[test]
fn up_to_the_next_segment_the_log_goes_on_with_what_its_start_says() {
    let (mut log, at) = two_segments();
    accept(&mut log, 2, at[1], at[3]);
    let found = recovered(&damage(&log, at[1]));
    assert_eq!(keys(&found), b"adef");
    assert_eq!(found.core(0).next_sequence, 6);
}

#[test]
fn a_hole_that_does_not_begin_where_the_records_stop_is_none() {
    let (mut log, at) = two_segments();
    accept(&mut log, 1, at[0], at[2]);
    assert_eq!(damaged(&damage(&log, at[1])).position, Some(at[1]));
    // Where nothing is damaged, nothing is passed over.
    assert_eq!(keys(&recovered(&log.finish())), b"abcdef");
}

#[test]
fn a_hole_behind_which_no_entry_begins_is_none() {
    let (mut log, at) = two_segments();
    accept(&mut log, 1, at[1], at[2] + 8);
    assert_eq!(damaged(&damage(&log, at[1])).position, Some(at[1]));
}

#[test]
fn no_sequence_falls_behind_a_hole() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"").put(b"b", b"");
    let position = segment.position();
    segment.put(b"c", b"");
    let end_position = segment.position();
    // As if the entries began anew.
    segment.set_sequence(1).put(b"x", b"").seal();
    log.core(0).segment().put(b"y", b"");
    accept(&mut log, 1, position, end_position);
    assert_eq!(damaged(&damage(&log, position)).position, Some(position));
}

#[test]
fn where_the_log_does_not_go_on_behind_a_hole_its_end_is_the_one_loss() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"").put(b"b", b"");
    let position = segment.position();
    segment.put(b"c", b"");
    // As if the entries began anew, in the next segment too.
    segment.set_sequence(0).put(b"x", b"").seal();
    log.core(0).segment().put(b"y", b"");
    let found = try_recover_disk(&disk(&damage(&log, position)), RecoveryMode::Salvage).unwrap();
    assert_eq!(keys(&found), b"ab");
    let losses = &found.log.report.losses;
    assert_eq!(losses.iter().map(|loss| loss.position).collect::<Vec<_>>(), [position]);
}

#[test]
fn behind_damage_the_log_goes_on_with_the_first_entry_that_can_follow() {
    let strange: [fn(&mut WalEntry); 5] = [
        |entry| entry.core_id = 7,
        |entry| entry.sequence = 1,
        |entry| entry.sequence = 99,
        |entry| entry.epoch = 1,
        |entry| entry.timestamp_ns = 0,
    ];
    for (number, change) in strange.iter().enumerate() {
        let mut log = new_log();
        let segment = log.core(0).segment();
        segment.set_epoch(2).put(b"a", b"").put(b"b", b"");
        let position = segment.position();
        segment.put(b"c", b"");
        let next = segment.next_put(b"d", b"");
        let mut stranger = segment.next_put(b"x", b"");
        change(&mut stranger);
        segment.entry(&stranger).entry(&next).close();
        let image = damage(&log, position);
        let found = try_recover_disk(&disk(&image), RecoveryMode::Salvage).unwrap();
        assert_eq!((keys(&found), found.log.report.losses.len()), (b"abd".to_vec(), 1), "{number}");
    }
}

#[test]
fn between_segments_entries_may_be_missing_and_none_comes_again() {
    for (sequence, expected) in [(5, b"abcd".to_vec()), (2, b"abc".to_vec())] {
        let mut log = new_log();
        log.core(0).segment().put(b"a", b"").put(b"b", b"").put(b"c", b"").seal();
        let second = log.core(0).segment();
        second.start(|start| start.base_sequence = sequence).set_sequence(sequence).put(b"d", b"");
        let wrong = damaged(&log.finish());
        assert!(wrong.what.contains("its start says sequence"), "{wrong}");
        let found = try_recover_disk(&disk(&log.finish()), RecoveryMode::Salvage).unwrap();
        assert_eq!(keys(&found), expected, "{sequence}");
    }
}

#[test]
fn a_point_in_time_lies_before_a_segment_that_does_not_continue_the_checkpoint() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"").put(b"b", b"").seal();
    let second = log.core(0).segment();
    let position = second.position();
    second.start(|start| start.base_sequence = 5).set_sequence(5).put(b"c", b"");
    log.manifest().checkpoint =
        Some(checkpoint(0, CheckpointCore { core: 0, position, sequence: 2, timestamp_ns: 0 }));
    let found = try_recover_disk(&disk(&log.finish()), RecoveryMode::PointInTime).unwrap();
    assert_eq!((found.core(0).end_position, found.core(0).next_sequence), (position, 2));
}
