//! An opening begins behind the last checkpoint, if the checkpoint's barrier is found there, and
//! finds what it would find if it read everything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;

use support::{checkpoint, cut, disk, new_log, recovered, release, try_recover_disk, value};
use wal_entry::{WalEntry, WalOperation};
use wal_format::{AcceptedDamage, BLOCK_BYTES, CheckpointCore, SEGMENT_HEADER_BYTES, START_OFFSET};
use wal_recovery::{RecoveryMode, verify};
use wal_sim::fixture::{LogFixture, LogImage, SegmentFixture, segment_name};
use wal_storage::{Storage, WalError};

const EPOCH: u64 = 0;
const AT_BEGINNING: CheckpointCore =
    CheckpointCore { core: 0, position: 0, sequence: 0, timestamp_ns: 0 };

/// Three segments, closed cleanly, and a checkpoint in the midst of the third.
struct Log {
    log: LogFixture,
    place: CheckpointCore,
}

fn log() -> Log {
    log_with(WalOperation::EpochBarrier { epoch: EPOCH })
}

/// With something else than a barrier before the checkpoint.
fn log_with(operation: WalOperation) -> Log {
    log_at(operation, (2, 10))
}

/// With the checkpoint in that segment, before that one of its 20 puts, or behind all of them.
fn log_at(operation: WalOperation, (checkpointed_number, checkpointed_key): (u8, u8)) -> Log {
    let mut log = new_log();
    let mut place = AT_BEGINNING;
    for segment_number in 0..3_u8 {
        let segment = log.core(0).segment();
        for key in 0..=20_u8 {
            if (segment_number, key) == (checkpointed_number, checkpointed_key) {
                let barrier =
                    WalEntry { operation: operation.clone(), ..segment.next_put(b"", b"") };
                segment.entry(&barrier);
                place.position = segment.position();
                place.sequence = barrier.sequence + 1;
                place.timestamp_ns = barrier.timestamp_ns;
            }
            if key < 20 {
                segment.put(&[segment_number, key], &value(300));
            }
        }
        if segment_number < 2 {
            segment.seal()
        } else {
            segment.close()
        };
    }
    let mut log = Log { log, place };
    log.set_checkpoint(EPOCH, place);
    log
}

impl Log {
    fn set_checkpoint(&mut self, epoch: u64, place: CheckpointCore) {
        self.log.manifest().checkpoint = Some(checkpoint(epoch, place));
    }

    /// The log, and the same with its first record damaged.
    fn images(&self) -> [LogImage; 2] {
        let mut damaged = self.log.finish();
        damaged.flip_byte(&segment_name(0, 1), SEGMENT_HEADER_BYTES + 100);
        [self.log.finish(), damaged]
    }
}

#[test]
fn an_opening_finds_behind_the_checkpoint_what_reading_everything_finds() {
    let log = log();
    let [healthy, mut damaged] = log.images();
    let strict = try_recover_disk(&disk(&healthy), RecoveryMode::Strict).unwrap();
    assert_eq!(recovered(&healthy).log, strict.log);
    // Below the checkpoint in its own segment, too.
    damaged.flip_byte(&segment_name(0, 3), SEGMENT_HEADER_BYTES + 100);
    let found = recovered(&damaged);
    assert_eq!(found.log, strict.log);
    let replayed = found.log.replay(&found.storage).entries().unwrap();
    assert_eq!(replayed, strict.log.replay(&strict.storage).entries().unwrap());
    assert_eq!(replayed.len(), 10);
    found.log.replay(&found.storage).from_start().entries().unwrap_err();
}

#[test]
fn wherever_in_a_segment_the_checkpoint_stands_an_opening_finds_what_there_is() {
    let places = (0..3_u8).flat_map(|number| [0, 1, 19, 20].map(|key| (number, key)));
    for place @ (number, _) in places {
        let mut log = log_at(WalOperation::EpochBarrier { epoch: EPOCH }, place);
        for releases in [vec![release(0, log.place.position)], Vec::new()] {
            log.log.manifest().releases = releases;
            let healthy = log.log.finish();
            let strict = try_recover_disk(&disk(&healthy), RecoveryMode::Strict).unwrap();
            assert_eq!(recovered(&healthy).log, strict.log, "{place:?}");
        }
        let [healthy, damaged] = log.images();
        // There, the first record is the barrier.
        if place != (0, 0) {
            assert_eq!(recovered(&damaged).core(0).next_sequence, 61, "{place:?}");
        }
        let base_position = recovered(&healthy).core(0).spans[usize::from(number)].base_position;
        let barrier_at = SEGMENT_HEADER_BYTES + log.place.position - 8 - base_position;
        let mut damaged = healthy;
        damaged.flip_byte(&segment_name(0, u64::from(number) + 1), barrier_at);
        let wrong = support::damaged(&damaged);
        assert_eq!(wrong.core, Some(0), "{place:?}");
    }
}

#[test]
fn who_looks_for_damage_finds_it_below_the_checkpoint() {
    let [_, damaged] = log().images();
    let storage: Arc<dyn Storage> = Arc::new(disk(&damaged));
    assert_eq!(verify(&storage).unwrap().findings.len(), 1);
    let strict = try_recover_disk(&disk(&damaged), RecoveryMode::Strict).unwrap_err();
    assert!(strict.is_corrupt(), "{strict}");
    for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
        let found = try_recover_disk(&disk(&damaged), mode).unwrap();
        assert_eq!(found.log.report.losses.len(), 1, "{mode:?}");
    }
}

#[test]
fn a_checkpoint_whose_barrier_is_not_there_proves_nothing_of_what_lies_below() {
    let reads_everything_of = |what: &str, log: Log| {
        let [healthy, damaged] = log.images();
        recovered(&healthy);
        match try_recover_disk(&disk(&damaged), RecoveryMode::TornTail) {
            Err(WalError::Corrupt(damage)) => assert_eq!(damage.position, Some(0), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    };
    let reads_everything = |what: &str, change: &dyn Fn(&mut Log)| {
        let mut log = log();
        change(&mut log);
        reads_everything_of(what, log);
    };
    let later_barrier = WalOperation::EpochBarrier { epoch: EPOCH + 1 };
    reads_everything_of("the barrier of another epoch", log_with(later_barrier));
    let not_a_barrier = WalOperation::Checkpoint { id: EPOCH };
    reads_everything_of("no barrier", log_with(not_a_barrier));
    reads_everything("no checkpoint", &|log| log.log.manifest().checkpoint = None);
    reads_everything("a barrier of a later time", &|log| {
        let timestamp_ns = log.place.timestamp_ns - 1;
        log.set_checkpoint(EPOCH, CheckpointCore { timestamp_ns, ..log.place });
    });
    reads_everything("behind a put", &|log| {
        let put_bytes = recovered(&log.log.finish()).core(0).spans[0].end_position / 20;
        let (position, sequence) = (log.place.position + put_bytes, log.place.sequence + 1);
        let timestamp_ns = log.place.timestamp_ns + 1;
        let place = CheckpointCore { core: 0, position, sequence, timestamp_ns };
        log.set_checkpoint(EPOCH, place);
    });
    reads_everything("at the beginning", &|log| {
        log.set_checkpoint(EPOCH, AT_BEGINNING);
    });
    reads_everything("a loss was accepted", &|log| {
        let end_position = log.place.position;
        let accepted =
            AcceptedDamage { core: 0, segment_id: 3, position: end_position - 8, end_position };
        log.log.manifest().accepted_damage = vec![accepted];
    });
}

#[test]
fn a_checkpoint_with_another_sequence_than_its_barrier_is_damage() {
    let mut log = log();
    let sequence = log.place.sequence + 1;
    log.set_checkpoint(EPOCH, CheckpointCore { sequence, ..log.place });
    let wrong = support::damaged(&log.log.finish());
    assert!(wrong.what.contains("checkpoint 7 stands before sequence 52"), "{wrong}");
}

#[test]
fn a_checkpoint_in_what_was_cut_off_does_not_bring_it_back() {
    let mut log = log();
    let spans = recovered(&log.log.finish()).core(0).spans.clone();
    let put_bytes = spans[0].end_position / 20;
    // Where the log went on behind the cut is gone, and with it what the checkpoint was of.
    let (position, sequence) = (spans[2].base_position + 5 * put_bytes, 45);
    log.log.manifest().cuts = vec![cut(0, position, sequence, 3)];
    let wrong = support::damaged(&log.log.finish());
    assert_eq!(wrong.position, Some(position), "{wrong}");
}

#[test]
fn what_the_segment_of_the_checkpoint_held_is_missed() {
    let log = log();
    let barrier_at = SEGMENT_HEADER_BYTES + log.place.position
        - 8
        - recovered(&log.log.finish()).core(0).spans[2].base_position;
    let mut image = log.log.finish();
    let wrong = support::damaged(image.flip_byte(&segment_name(0, 3), barrier_at));
    assert_eq!(wrong.core, Some(0));
    let mut image = log.log.finish();
    let wrong = support::damaged(image.remove(&segment_name(0, 3)));
    assert_eq!(wrong.core, Some(0));
    let mut image = log.log.finish();
    let wrong = support::damaged(image.remove(&segment_name(0, 2)));
    assert_eq!(wrong.core, Some(0));
}

#[test]
fn the_same_barrier_in_a_tail_that_was_abandoned_is_not_the_checkpoints() {
    // Of a batch, the first block was lost and the barrier was not. The next opening began a segment
    // before it and logged the same again, with the checkpoint, and more.
    let mut log = Log { log: new_log(), place: AT_BEGINNING };
    let abandoned = log.log.core(0).segment();
    abandoned.put(b"durable", &value(300)).ends_here();
    let (position, sequence) = (abandoned.position(), abandoned.sequence());
    let torn_at = abandoned.offset();
    let put_again = |segment: &mut SegmentFixture| {
        for key in 0..10 {
            segment.put(&[key], &value(300));
        }
        let barrier = WalOperation::EpochBarrier { epoch: EPOCH };
        let barrier = WalEntry { operation: barrier, ..segment.next_put(b"", b"") };
        segment.entry(&barrier);
        CheckpointCore {
            core: 0,
            position: segment.position(),
            sequence: segment.sequence(),
            timestamp_ns: barrier.timestamp_ns,
        }
    };
    put_again(abandoned);
    let next = log.log.core(0).segment();
    assert_eq!((next.position(), next.sequence()), (position, sequence));
    log.place = put_again(next.set_timestamp(1_000));
    next.mark(log.place.position).put(b"acked", b"").mark(log.place.position);
    log.set_checkpoint(EPOCH, log.place);
    let image = || {
        let mut image = log.log.finish();
        image.flip_byte(&segment_name(0, 1), torn_at);
        image
    };
    assert_eq!(recovered(&image()).core(0).next_sequence, 13);
    let begins_in = segment_name(0, 2);
    let missed = support::damaged(image().remove(&begins_in));
    assert_eq!(missed.position, Some(position), "{missed}");
    let missed = support::damaged(image().overwrite(&begins_in, START_OFFSET, &[0; BLOCK_BYTES]));
    assert_eq!(missed.position, Some(position), "{missed}");
}

#[test]
fn what_was_released_is_not_missed_behind_a_checkpoint() {
    let mut log = log();
    let second = recovered(&log.log.finish()).core(0).spans[1].base_position;
    log.log.manifest().releases = vec![release(0, second)];
    let mut image = log.log.finish();
    let found = recovered(image.remove(&segment_name(0, 1)));
    assert_eq!((found.core(0).spans.len(), found.core_report(0).entries), (2, 41));
}
