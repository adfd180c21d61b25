//! Cuts: dead segments, limits, several cuts, and crashes on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;

use support::{checkpoint, cut, damaged, new_log, recovered, release};
use wal_format::{AcceptedDamage, CheckpointCore};
use wal_recovery::{EndingKind, OtherSegmentKind, RecoveryMode, RecoveryTarget, recover_to};
use wal_sim::fixture::{LogFixture, segment_name};
use wal_storage::Storage;

/// Two segments; the positions behind each of their four entries.
fn two_segments() -> (LogFixture, [u64; 4]) {
    let mut log = new_log();
    let first = log.core(0).segment();
    first.put(b"a", b"1");
    let a = first.position();
    first.mark(a).put(b"b", b"2");
    let b = first.position();
    first.seal();
    let second = log.core(0).segment();
    second.mark(b).put(b"c", b"3");
    let c = second.position();
    second.mark(c).put(b"d", b"4");
    let d = second.position();
    (log, [a, b, c, d])
}

fn keys(found: &support::Recovered) -> Vec<u8> {
    found.entries().iter().map(|entry| entry.key().unwrap()[0]).collect()
}

#[test]
fn a_cut_before_its_new_segment_is_there_ends_the_log() {
    let (mut log, [a, b, c, _]) = two_segments();
    for (position, sequence, kept) in
        [(c, 3, &b"abc"[..]), (b, 2, b"ab"), (a, 1, b"a"), (0, 0, b"")]
    {
        log.manifest().cuts = vec![cut(0, position, sequence, 2)];
        let found = recovered(&log.finish());
        assert_eq!(keys(&found), kept);
        assert_eq!(found.core(0).end_position, position);
        assert_eq!(found.core(0).next_sequence, sequence);
        assert_eq!(found.core(0).highest_segment_id, 2);
        assert_eq!(found.ending().0, "@F");
    }
}

#[test]
fn after_a_cut_the_new_segment_continues_the_log() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    let third = log.core(0).segment_after(1, a).set_sequence(1);
    third.start(|start| start.base_sequence = 1).put(b"x", b"new").put(b"y", b"new");
    let found = recovered(&log.finish());
    assert_eq!(keys(&found), b"axy");
    assert_eq!(found.core(0).spans.iter().map(|span| span.segment_id).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(found.core(0).other_segments[0].why, OtherSegmentKind::Dead);
}

#[test]
fn what_a_cut_made_dead_may_be_gone() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    let third = log.core(0).segment_after(1, a).set_sequence(1);
    third.start(|start| start.base_sequence = 1).put(b"x", b"new");
    let mut image = log.finish();
    image.remove(&segment_name(0, 2));
    assert_eq!(keys(&recovered(&image)), b"ax");
    image.remove(&segment_name(0, 3));
    // Now nothing tells this from a crash before the new segment was there.
    assert_eq!(keys(&recovered(&image)), b"a");
}

#[test]
fn what_was_cut_off_is_not_salvaged_in_place_of_a_segment_that_is_gone() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    let third = log.core(0).segment_after(1, a).set_sequence(1);
    // More than was cut off, so that there would be room for that.
    third.start(|start| start.base_sequence = 1).put(b"x", &[1; 2000]).put(b"y", b"new").seal();
    log.core(0).segment().put(b"z", b"new");
    let mut image = log.finish();
    image.remove(&segment_name(0, 3));
    let storage: Arc<dyn Storage> = Arc::new(support::disk(&image));
    let log = recover_to(&storage, RecoveryMode::Salvage, RecoveryTarget::End).unwrap();
    let entries = log.replay(&storage).entries().unwrap();
    let keys: Vec<u8> = entries.iter().map(|entry| entry.key().unwrap()[0]).collect();
    assert_eq!(keys, b"az");
    let [loss] = &log.report.losses[..] else { panic!("{}", log.report) };
    assert_eq!(loss.position, a, "{loss}");
}

#[test]
fn a_reset_begins_the_log_anew_at_0() {
    let (mut log, _) = two_segments();
    log.manifest().cuts = vec![cut(0, 0, 0, 2)];
    log.manifest().cuts[0].last_epoch = 8;
    let third = log.core(0).segment().set_sequence(0);
    third.start(|start| {
        start.predecessor = None;
        start.base_position = 0;
        start.base_sequence = 0;
        start.last_epoch = 8;
    });
    let empty = recovered(&{
        let mut image = log.finish();
        image.remove(&segment_name(0, 3));
        image
    });
    assert_eq!((empty.core(0).end_position, empty.core(0).next_sequence), (0, 0));
    assert_eq!(empty.core(0).last_epoch, 8, "a cut does not take epochs back");
    assert_eq!(recovered(&log.finish()).core(0).last_epoch, 8);
    assert_eq!(recovered(&log.finish()).core(0).spans.len(), 1);
}

#[test]
fn several_cuts_combine_by_the_lowest_position() {
    let (mut log, [a, _, c, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, c, 3, 2)];
    let third = log.core(0).segment_after(2, c).set_sequence(3);
    third.start(|start| start.base_sequence = 3).put(b"x", b"dead too");
    log.manifest().cuts.push(cut(0, a, 1, 3));
    assert_eq!(keys(&recovered(&log.finish())), b"a");

    let fourth = log.core(0).segment_after(1, a).set_sequence(1);
    fourth.start(|start| start.base_sequence = 1).put(b"y", b"new");
    let end = fourth.position();
    fourth.put(b"z", b"newer");
    assert_eq!(keys(&recovered(&log.finish())), b"ayz");

    // A cut that lies above an older one concerns only what came after that.
    log.manifest().cuts.push(cut(0, end, 2, 4));
    assert_eq!(keys(&recovered(&log.finish())), b"ay");
}

#[test]
fn two_cuts_with_one_dead_id_leave_the_lower_one() {
    let (mut log, [a, b, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, b, 2, 2), cut(0, a, 1, 2)];
    let found = recovered(&log.finish());
    assert_eq!(keys(&found), b"a");
    assert_eq!(found.core(0).next_sequence, 1);
}

#[test]
fn what_dead_bytes_claim_counts_only_up_to_the_cut() {
    let (mut log, [a, _, _, d]) = two_segments();
    log.core(0).last_segment().unwrap().vouch_at(d, false);
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    // Marks, the second start, and a slot claim more than a.
    assert_eq!(keys(&recovered(&log.finish())), b"a");
}

#[test]
fn a_cut_segment_s_own_slots_and_marks_count_only_up_to_the_cut() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    let a = segment.position();
    segment.put(b"b", b"2");
    segment.mark(segment.position()).put(b"c", b"3").vouch();
    log.manifest().cuts = vec![cut(0, a, 1, 1)];
    let found = recovered(&log.finish());
    assert_eq!(keys(&found), b"a");
    assert_eq!(found.core(0).adoption.unwrap().from_position, a);
}

#[test]
fn damage_below_a_cut_is_damage() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    let mut image = log.finish();
    image.flip_byte(&segment_name(0, 1), 12288 + 30);
    assert!(damaged(&image).proven_by.unwrap().witness.contains("cut"));
}

#[test]
fn damage_above_a_cut_does_not_matter() {
    let (mut log, [a, b, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    let mut image = log.finish();
    image.flip_byte(&segment_name(0, 1), 12288 + b - 8);
    image.flip_byte(&segment_name(0, 2), 12288 + 8);
    image.flip_byte(&segment_name(0, 2), 4096 + 8);
    assert_eq!(keys(&recovered(&image)), b"a");
}

#[test]
fn a_cut_in_the_middle_of_a_record_or_of_the_wrong_sequence_is_damage() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a + 40, 1, 2)];
    damaged(&log.finish());
    log.manifest().cuts = vec![cut(0, a, 2, 2)];
    assert!(damaged(&log.finish()).what.contains("sequence"));
}

#[test]
fn a_torn_new_segment_behind_a_cut_is_torn_and_a_used_one_is_damage() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 2)];
    let third = log.core(0).segment_after(1, a).set_sequence(1);
    third.start(|start| start.base_sequence = 1).put(b"x", b"new");
    let durable = third.position();
    let torn = {
        let mut image = log.finish();
        image.flip_byte(&segment_name(0, 3), 4096 + 8);
        image
    };
    let found = recovered(&torn);
    assert_eq!(keys(&found), b"a");
    let kind = EndingKind::Torn { dropped_bytes_at_least: durable - a, unproven: true };
    assert_eq!(found.ending().1, kind, "what stands behind the cut does not count");

    log.core(0).last_segment().unwrap().mark(durable).put(b"y", b"acked");
    let mut image = log.finish();
    image.flip_byte(&segment_name(0, 3), 4096 + 8);
    assert_eq!(damaged(&image).proven_by.unwrap().durable_position, durable);
}

#[test]
fn a_cut_where_a_segment_begins_makes_it_dead() {
    let (mut log, [_, b, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, b, 2, 2)];
    let found = recovered(&log.finish());
    assert_eq!(keys(&found), b"ab");
    assert_eq!(found.core(0).other_segments[0].why, OtherSegmentKind::Dead);
}

#[test]
fn a_cut_at_the_release_position_may_leave_no_segment() {
    let (mut log, [_, b, _, _]) = two_segments();
    log.manifest().releases = vec![release(0, b)];
    log.manifest().cuts = vec![cut(0, b, 2, 2)];
    let mut image = log.finish();
    image.remove(&segment_name(0, 1));
    let found = recovered(&image);
    assert_eq!((found.core(0).end_position, found.core(0).next_sequence), (b, 2));
    assert!(found.core(0).spans.is_empty());
    // Without the release, what lies below the cut is missing.
    log.manifest().releases.clear();
    let mut image = log.finish();
    image.remove(&segment_name(0, 1));
    damaged(&image);
}

#[test]
fn a_cut_at_the_checkpoint_leaves_no_segment_only_where_a_loss_was_accepted() {
    let (mut log, [_, position, _, _]) = two_segments();
    let place = CheckpointCore { core: 0, position, sequence: 2, timestamp_ns: 0 };
    log.manifest().checkpoint = Some(checkpoint(0, place));
    log.manifest().cuts = vec![cut(0, position, 2, 2)];
    let mut without_segments = |lost_position: u64| {
        let end_position = lost_position + 8;
        let lost = AcceptedDamage { core: 0, position: lost_position, end_position, segment_id: 2 };
        log.manifest().accepted_damage = vec![lost];
        let mut image = log.finish();
        image.remove(&segment_name(0, 1)).remove(&segment_name(0, 2));
        image
    };
    assert_eq!(recovered(&without_segments(position)).core(0).end_position, position);
    damaged(&without_segments(position - 8));
}

#[test]
fn a_segment_that_continues_what_was_cut_away_is_damage() {
    let (_, [a, b, _, d]) = two_segments();
    // Behind a dead segment, behind what is left of a live one, and where a dead one began.
    for (cut_position, predecessor, base_position) in [(a, 2, d), (a, 1, b), (b, 2, b)] {
        let (mut log, _) = two_segments();
        log.manifest().cuts = vec![cut(0, cut_position, cut_position / 80, 2)];
        let third = log.core(0).segment_after(predecessor, base_position);
        third.start(|start| start.base_sequence = 2).put(b"e", b"5");
        let what = damaged(&log.finish()).what;
        assert!(what.contains(&format!("cut at {cut_position}")), "{what}");
    }
}

#[test]
fn numbers_of_dead_segments_are_never_given_again_even_when_their_files_are_gone() {
    let (mut log, [a, _, _, _]) = two_segments();
    log.manifest().cuts = vec![cut(0, a, 1, 9)];
    assert_eq!(recovered(&log.finish()).core(0).highest_segment_id, 9);
}

#[test]
fn what_was_released_in_part_is_no_end_of_a_log_that_is_cut_where_its_release_ends() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"").seal();
    let second = log.core(0).segment();
    second.put(b"b", b"");
    let end = second.position();
    second.seal();
    log.core(0).segment().put(b"c", b"");
    log.manifest().releases = vec![release(0, end)];
    log.manifest().cuts = vec![cut(0, end, 2, 3)];
    let mut image = log.finish();
    // Names go one by one, in any order.
    image.remove(&segment_name(0, 2));
    let found = recovered(&image);
    assert_eq!((found.core(0).end_position, found.core(0).next_sequence), (end, 2));
    assert!(found.entries().is_empty());
}
