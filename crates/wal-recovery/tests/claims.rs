//! What proves that bytes were durable: each kind of claim turns a torn tail into damage.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use support::{damaged, new_log, recovered, release};
use wal_format::{Checkpoint, CheckpointCore, MARK_RECORD_BYTES};
use wal_sim::fixture::LogFixture;

/// One segment; its last entry begins at the first position returned and ends at the second.
fn one_segment() -> (LogFixture, String, u64, u64) {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    let last = segment.position();
    segment.put(b"b", b"2");
    let (name, end) = (segment.name(), segment.position());
    (log, name, last, end)
}

/// With the last entry damaged, this log is torn by itself, and damaged by what `claim` adds.
fn proven_by(claim: impl FnOnce(&mut LogFixture, u64, u64), witness: &str) {
    let (mut log, name, last, end) = one_segment();
    let mut image = log.finish();
    image.flip_byte(&name, last + 12288 + 20);
    assert!(recovered(&image).core_report(0).ending.is_torn());

    claim(&mut log, last, end);
    assert!(recovered(&log.finish()).core(0).end_position >= end);
    let mut image = log.finish();
    image.flip_byte(&name, last + 12288 + 20);
    let corruption = damaged(&image);
    let proof = corruption.proven_by.clone().unwrap();
    assert!(proof.witness.contains(witness), "{corruption}");
    assert!(proof.durable_position > last);
    assert_eq!(corruption.position, Some(last));
}

#[test]
fn a_later_mark_proves() {
    proven_by(
        |log, _, end| {
            log.core(0).last_segment().unwrap().mark(end);
        },
        "the mark at position",
    );
}

#[test]
fn a_mark_far_behind_and_across_the_edge_of_a_buffer_proves() {
    for distance in [4096, 262_144 - 24, 262_144 - 16, 262_144 - 8, 262_144, 500_000 / 8 * 8] {
        proven_by(
            |log, _, end| {
                let segment = log.core(0).last_segment().unwrap();
                let fill = distance - 300;
                segment.put(b"c", &support::value(usize::try_from(fill).unwrap()));
                while segment.position() < distance {
                    segment.put(b"", b"");
                }
                segment.mark(end);
            },
            "the mark at position",
        );
    }
}

#[test]
fn a_mark_in_the_last_bytes_of_its_segment_proves() {
    proven_by(
        |log, _, end| {
            let segment = log.core(0).last_segment().unwrap();
            let room = segment.bytes().len() as u64 - 12288;
            // A record takes 80 bytes with this key, and one byte of its value.
            let fill = room - MARK_RECORD_BYTES as u64 - segment.position() - 80;
            segment.put(b"c", &support::value(usize::try_from(fill).unwrap() + 1));
            segment.mark(end);
            assert_eq!(segment.position(), room);
        },
        "the mark at position",
    );
}

#[test]
fn a_vouch_slot_proves() {
    proven_by(
        |log, _, _| {
            log.core(0).last_segment().unwrap().vouch();
        },
        "vouch slot",
    );
}

#[test]
fn an_older_vouch_slot_proves_when_the_newer_one_is_torn() {
    let (mut log, name, last, _) = one_segment();
    log.core(0).last_segment().unwrap().vouch().vouch();
    let mut image = log.finish();
    image.flip_byte(&name, 8192 + 8); // the first half: the slot with the even counter, the newer
    assert!(recovered(&image).entries().len() == 2);
    image.flip_byte(&name, last + 12288 + 20);
    assert!(damaged(&image).proven_by.unwrap().witness.contains("vouch slot"));
}

#[test]
fn a_later_start_proves() {
    proven_by(
        |log, _, _| {
            log.core(0).segment().put(b"c", b"3");
        },
        "the start of",
    );
}

#[test]
fn a_checkpoint_proves() {
    proven_by(
        |log, _, end| {
            log.manifest().checkpoint = Some(Checkpoint {
                id: 7,
                epoch: 0,
                cores: vec![CheckpointCore {
                    core: 0,
                    position: end,
                    sequence: 2,
                    timestamp_ns: 1,
                }],
                source_offsets: vec![],
                watermark: None,
            });
        },
        "the manifest: checkpoint 7",
    );
}

#[test]
fn a_release_proves() {
    proven_by(|log, _, end| log.manifest().releases.push(release(0, end)), "release");
}

#[test]
fn what_is_claimed_of_another_core_proves_nothing() {
    let (mut log, name, last, end) = one_segment();
    log.core(1).segment().put(b"a", &[1; 4000]);
    log.manifest().releases.push(release(1, end));
    let mut image = log.finish();
    image.flip_byte(&name, last + 12288 + 20);
    assert!(recovered(&image).core_report(0).ending.is_torn());
}

#[test]
fn marks_in_a_following_segment_whose_start_is_damaged_prove() {
    let (mut log, _, _, end) = one_segment();
    log.core(0).last_segment().unwrap().seal();
    let next = log.core(0).segment();
    next.mark(end).put(b"c", b"3");
    let durable = next.position();
    next.mark(durable).put(b"d", b"4");
    let name = next.name();
    let mut image = log.finish();
    for at in [4096, 4100, 4096 + 60, 8191] {
        image.flip_byte(&name, at);
        let corruption = damaged(&image);
        assert_eq!(corruption.proven_by.unwrap().durable_position, durable);
        image.flip_byte(&name, at);
    }
    image.overwrite(&name, 4096, &[0; 4096]);
    damaged(&image);
}

#[test]
fn vouch_slots_in_a_following_segment_whose_start_is_damaged_prove() {
    let (mut log, _, _, _) = one_segment();
    log.core(0).last_segment().unwrap().seal();
    let name = log.core(0).segment().put(b"c", b"3").vouch().name();
    let mut image = log.finish();
    image.overwrite(&name, 4096, &[0; 4096]);
    assert!(damaged(&image).proven_by.unwrap().witness.contains("vouch slot"));
}

#[test]
fn the_first_segment_s_own_marks_prove_when_its_start_is_damaged() {
    let (mut log, name, _, end) = one_segment();
    log.core(0).last_segment().unwrap().mark(end).put(b"c", b"3");
    let mut image = log.finish();
    image.flip_byte(&name, 4096 + 17);
    let corruption = damaged(&image);
    assert!(corruption.path.ends_with("core-0000"), "{corruption}");
}

#[test]
fn stale_marks_of_an_earlier_life_prove_nothing() {
    let mut earlier = new_log();
    let segment = earlier.core(0).segment();
    segment.identity().salt = 4711;
    while segment.position() < 20_000 {
        let durable = segment.position();
        segment.mark(durable).put(b"old", b"entry");
    }
    let old = segment.bytes();
    let (log, name, _, _) = one_segment();
    let mut image = log.finish();
    image.overwrite(&name, 12288 + 4096, &old[12288 + 4096..]);
    assert_eq!(recovered(&image).entries(), log.entries());
    assert_eq!(recovered(&image).ending().0, "@A");
}

#[test]
fn the_largest_claim_within_the_log_is_where_adopting_begins() {
    let (mut log, _, last, end) = one_segment();
    log.core(0).last_segment().unwrap().mark(last).put(b"c", b"3");
    assert_eq!(recovered(&log.finish()).core(0).adoption.unwrap().from_position, last);
    log.core(0).last_segment().unwrap().mark(end).put(b"d", b"4");
    assert_eq!(recovered(&log.finish()).core(0).adoption.unwrap().from_position, end);
    log.core(0).segment();
    let found = recovered(&log.finish());
    let adoption = found.core(0).adoption.unwrap();
    assert_eq!((adoption.segment_id, adoption.from_position), (2, adoption.to_position));
}
