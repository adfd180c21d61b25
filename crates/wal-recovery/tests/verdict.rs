//! Every row of the table, and every way in which a tail can be torn.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;

use support::{damaged, disk, new_log, recovered, try_recover_disk, value};
use wal_entry::WalEntry;
use wal_format::RecordKind;
use wal_recovery::{EndingKind, RecoveryMode, recover};
use wal_sim::fixture::{LogFixture, LogImage, segment_name};
use wal_storage::{Storage, WalError};

/// One segment with three batches; the last one begins at the position returned.
fn three_batches() -> (LogFixture, String, u64) {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1").put(b"b", b"2");
    let first_end = segment.position();
    segment.mark(first_end).put(b"c", b"3");
    let second_end = segment.position();
    segment.mark(second_end).put(b"d", b"4").put(b"e", b"5");
    let name = segment.name();
    (log, name, second_end)
}

fn file_offset(position: u64) -> u64 {
    position + 12288
}

#[test]
fn row_a_zeroes_behind_the_last_record_are_the_end() {
    let (log, _, last_batch) = three_batches();
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.ending(), ("@A".into(), EndingKind::Unproven));
    let core = found.core(0);
    assert!(!core.closed);
    let adoption = core.adoption.unwrap();
    assert_eq!((adoption.segment_id, adoption.from_position), (1, last_batch));
    assert_eq!(adoption.to_position, core.end_position);
    assert_eq!((core.next_sequence, core.last_timestamp_ns), (5, 4));
}

#[test]
fn row_a_a_clean_close_proves_the_end_and_leaves_nothing_to_adopt() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").close();
    let found = recovered(&log.finish());
    assert_eq!(found.ending(), ("@A".into(), EndingKind::Closed));
    assert!(found.core(0).closed);
    assert_eq!(found.core(0).adoption, None);
}

#[test]
fn only_the_newest_slot_and_only_at_the_end_closes_a_log() {
    let closed = |write: fn(&mut wal_sim::fixture::SegmentFixture)| {
        let mut log = new_log();
        write(log.core(0).segment().put(b"a", b"1"));
        let found = recovered(&log.finish());
        assert_eq!(found.core(0).closed, found.core(0).adoption.is_none());
        found.core(0).closed
    };
    assert!(closed(|segment| {
        segment.vouch().close();
    }));
    assert!(!closed(|segment| {
        segment.close().vouch();
    }));
    assert!(!closed(|segment| {
        segment.close().put(b"b", b"2");
    }));
}

#[test]
fn row_a_a_vouch_slot_at_the_end_proves_it_without_a_close() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").vouch();
    let found = recovered(&log.finish());
    assert_eq!(found.ending(), ("@A".into(), EndingKind::Proven));
    // Nothing says that no batch came behind that, and was lost to damage.
    assert!(found.core_report(0).ending.is_unproven());
    let adoption = found.core(0).adoption.unwrap();
    assert_eq!(adoption.from_position, adoption.to_position);
}

#[test]
fn row_b_an_unreadable_last_batch_is_torn_and_counted() {
    let (log, name, last_batch) = three_batches();
    let mut image = log.finish();
    image.flip_byte(&name, file_offset(last_batch) + 3);
    let found = recovered(&image);
    assert_eq!(found.entries(), log.entries()[..3]);
    let dropped_bytes_at_least = 4096 - last_batch;
    let kind = EndingKind::Torn { dropped_bytes_at_least, unproven: true };
    assert_eq!(found.ending(), ("@B".into(), kind));
    assert!(found.log.report.to_string().contains("torn at"), "{}", found.log.report);
    assert!(found.core_report(0).ending.is_unproven());
}

#[test]
fn row_b_a_batch_of_many_blocks_is_counted_to_the_furthest_mark() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    let durable = segment.position();
    segment.mark(durable).put(b"b", &value(10_000));
    segment.mark(durable).put(b"c", b"3");
    let name = segment.name();
    let furthest_mark_end = segment.position() - (segment.position() - durable - 24 - 10_000) % 8;
    let mut image = log.finish();
    // The first block behind p is lost, and the mark of the next batch, not synced either, is not.
    let lost = vec![0; usize::try_from(4096 - durable).unwrap()];
    image.overwrite(&name, file_offset(durable), &lost);
    let found = recovered(&image);
    let (label, kind) = found.ending();
    assert_eq!(label, "@B");
    let EndingKind::Torn { dropped_bytes_at_least, .. } = kind else { panic!("{kind:?}") };
    assert!(dropped_bytes_at_least > 10_000 && dropped_bytes_at_least < furthest_mark_end);
}

#[test]
fn row_c_an_unreadable_batch_below_a_mark_is_damage() {
    let (log, name, last_batch) = three_batches();
    for at in 0..last_batch {
        let mut image = log.finish();
        image.flip_byte(&name, file_offset(at));
        let corruption = damaged(&image);
        let proof = corruption.proven_by.as_ref().unwrap();
        assert_eq!(proof.durable_position, last_batch, "{corruption}");
        assert!(proof.witness.contains("mark at position"), "{corruption}");
        assert!(corruption.position.unwrap() <= at);
        assert!(corruption.to_string().contains("damage, not a torn write"));
    }
}

#[test]
fn damage_names_all_bytes_of_the_record_whose_checksum_is_wrong() {
    let (log, name, _) = three_batches();
    let mut image = log.finish();
    image.flip_byte(&name, file_offset(30));
    let record_bytes = 8 + 72;
    let range = damaged(&image).file_range;
    assert_eq!(range, Some((file_offset(0), file_offset(record_bytes))));

    // A length that leads out of the file: all bytes that are there.
    let mut image = log.finish();
    let first_word: u32 = 1 << 28 | 40_000;
    image.overwrite(&name, file_offset(0), &first_word.to_le_bytes());
    let file_bytes = image.files[&name].len() as u64;
    assert_eq!(damaged(&image).file_range, Some((file_offset(0), file_bytes)));
}

#[test]
fn row_d_a_right_checksum_over_what_nobody_understands_is_an_error() {
    let not_understood: [fn(&mut wal_sim::fixture::SegmentFixture); 7] = [
        |segment| {
            segment.record(RecordKind::Entry, &[0xee; 80]);
        },
        |segment| {
            segment.record(RecordKind::Batch, &[]);
        },
        |segment| {
            segment.record(RecordKind::Batch, &[9; 24]);
        },
        |segment| {
            segment.record(RecordKind::Mark, &[0; 24]);
        },
        |segment| {
            segment.mark(segment.position() + 8);
        },
        |segment| {
            segment.record(RecordKind::Seal, &[0; 16]);
        },
        |segment| {
            segment.record(RecordKind::Unknown(5), &[0; 16]);
        },
    ];
    for (case, write) in not_understood.into_iter().enumerate() {
        let mut log = new_log();
        let segment = log.core(0).segment();
        segment.put(b"a", b"1");
        let position = segment.position();
        write(segment);
        let corruption = damaged(&log.finish());
        assert_eq!(corruption.position, Some(position), "case {case}: {corruption}");
    }
}

#[test]
fn row_e_an_entry_that_falls_in_epoch_or_timestamp_is_damage() {
    for (what, epoch, timestamp_ns) in [("of epoch 4 behind one", 4, 100), ("timestamp 50", 5, 50)]
    {
        let mut log = new_log();
        let segment = log.core(0).segment();
        segment.set_epoch(5).set_timestamp(100).put(b"a", b"1");
        segment.set_epoch(epoch).set_timestamp(timestamp_ns).put(b"b", b"2");
        let corruption = damaged(&log.finish());
        assert!(corruption.what.contains(what), "{corruption}");
    }
}

#[test]
fn equal_epochs_and_timestamps_do_not_fall() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.set_timestamp(9).put(b"a", b"1").set_timestamp(9).put(b"b", b"2");
    assert_eq!(recovered(&log.finish()).entries(), log.entries());
}

#[test]
fn an_epoch_goes_on_unless_its_barrier_was_the_last_entry_of_it() {
    let next_epoch = |write: fn(&mut wal_sim::fixture::SegmentFixture)| {
        let mut log = new_log();
        write(log.core(0).segment().set_epoch(5).put(b"a", b"1"));
        let core = recovered(&log.finish()).core(0).clone();
        (core.last_epoch, core.next_epoch)
    };
    assert_eq!(next_epoch(|_| {}), (5, 5));
    assert_eq!(
        next_epoch(|segment| {
            segment.entry(&WalEntry::epoch_barrier(0, 5, 1, 7));
        }),
        (5, 6)
    );
    assert_eq!(
        next_epoch(|segment| {
            segment.entry(&WalEntry::epoch_barrier(0, 5, 1, 7)).set_epoch(8).put(b"b", b"2");
        }),
        (8, 8)
    );
}

#[test]
fn row_f_a_seal_before_an_unused_segment_is_the_end() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").seal();
    log.core(0).unused_segment();
    let found = recovered(&log.finish());
    assert_eq!(found.ending(), ("@F".into(), EndingKind::Unproven));
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.core(0).highest_segment_id, 2);
}

#[test]
fn row_f_a_seal_before_a_torn_start_is_torn() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").seal().close();
    let next = log.core(0).segment();
    let name = next.put(b"b", b"2").name();
    let mut image = log.finish();
    image.zero_from(&name, 4096 + 20);
    let found = recovered(&image);
    let kind = EndingKind::Torn { dropped_bytes_at_least: 0, unproven: true };
    assert_eq!(found.ending(), ("@F".into(), kind));
    assert!(!found.core(0).closed, "a later life had begun");
    assert!(found.core(0).adoption.is_some());
}

/// Zeroes over the start block of a segment, as if it had never been written.
fn lose_start(image: &mut LogImage, name: &str) {
    image.overwrite(name, 4096, &[0; 4096]);
}

#[test]
fn row_f_a_lost_start_before_its_batch_is_torn_and_not_a_file_that_was_never_used() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").close();
    let end_position = log.core(0).last_segment().unwrap().position();
    let next = log.core(0).segment();
    let name = next.mark(end_position).put(b"b", b"2").put(b"c", b"3").name();
    let batch_bytes = next.position() - end_position;
    let mut image = log.finish();
    lose_start(&mut image, &name);
    let found = recovered(&image);
    let kind = EndingKind::Torn { dropped_bytes_at_least: batch_bytes, unproven: true };
    assert_eq!(found.ending(), ("@F".into(), kind));
    assert!(!found.core(0).closed, "a later life had begun");
    assert!(found.core_report(0).ending.found.contains(&name), "{}", found.log.report);
}

#[test]
fn row_f_a_lost_start_of_the_only_segment_is_torn_and_not_an_empty_log() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    let name = segment.put(b"a", b"1").put(b"b", &value(300_000)).name();
    let batch_bytes = segment.position();
    let mut image = log.finish();
    lose_start(&mut image, &name);
    let found = recovered(&image);
    let kind = EndingKind::Torn { dropped_bytes_at_least: batch_bytes, unproven: true };
    assert_eq!(found.ending(), ("@F".into(), kind));
}

#[test]
fn row_c_a_lost_start_below_what_a_later_batch_knows_to_be_durable_is_damage() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    let name = segment.put(b"a", b"1").name();
    let first_end = segment.position();
    segment.mark(first_end).put(b"b", b"2");
    let mut image = log.finish();
    lose_start(&mut image, &name);
    let corruption = damaged(&image);
    assert_eq!(corruption.proven_by.map(|proof| proof.durable_position), Some(first_end));
}

#[test]
fn row_f_records_of_an_earlier_life_do_not_make_a_file_one_that_was_begun() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").close();
    let unused = log.core(0).unused_segment().name();
    // A file of the same number, under another salt, recycled with its records in it.
    let mut earlier = new_log();
    earlier.core(0).segment().put(b"a", b"1").close();
    let former = earlier.core(0).segment();
    former.identity().salt = 999;
    let records = former.put(b"x", b"9").bytes().split_off(12288);
    let mut image = log.finish();
    image.overwrite(&unused, 12288, &records);
    assert_eq!(recovered(&image).ending().1, EndingKind::Closed);
}

#[test]
fn row_f_one_torn_start_among_unused_segments_is_enough() {
    for torn_first in [true, false] {
        let mut log = new_log();
        log.core(0).segment().put(b"a", b"1").seal();
        if !torn_first {
            log.core(0).unused_segment();
        }
        let torn = log.core(0).segment().put(b"b", b"2").name();
        if torn_first {
            log.core(0).unused_segment();
        }
        let mut image = log.finish();
        image.zero_from(&torn, 4096 + 20);
        let kind = EndingKind::Torn { dropped_bytes_at_least: 0, unproven: true };
        assert_eq!(recovered(&image).ending(), ("@F".into(), kind), "torn first: {torn_first}");
    }
}

#[test]
fn row_f_a_seal_without_a_next_file_is_damage() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").seal();
    let corruption = damaged(&log.finish());
    assert!(corruption.what.contains("missing"), "{corruption}");
}

#[test]
fn a_seal_before_another_sequence_is_as_good_as_none() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").set_sequence(5).seal();
    log.core(0).unused_segment();
    let found = recovered(&log.finish());
    assert_eq!((found.ending().0.as_str(), found.core(0).next_sequence), ("@B", 1));
    assert!(found.core_report(0).ending.found.contains("seal before sequence 5"));
}

#[test]
fn row_f_a_missing_file_before_an_unused_one_is_damage() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    let lost = log.core(0).segment().put(b"b", b"2").name();
    log.core(0).unused_segment();
    let mut image = log.finish();
    image.remove(&lost);
    assert!(damaged(&image).what.contains("missing"));
}

#[test]
fn row_f_a_missing_file_in_the_midst_of_unused_ones_is_damage() {
    // An opening that went on in the first one would leave a log that looks as if it had lost the
    // segment behind that.
    let [first, second, third] = [2, 3, 4].map(|id| segment_name(0, id));
    for ends_with_seal in [false, true] {
        let mut log = new_log();
        let segment = log.core(0).segment().put(b"a", b"1");
        if ends_with_seal {
            segment.seal();
        }
        for _ in 0..3 {
            log.core(0).unused_segment();
        }
        recovered(&log.finish());
        for missing in [[&first].as_slice(), &[&second], &[&first, &second]] {
            let mut image = log.finish();
            missing.iter().for_each(|name| _ = image.remove(name));
            let corruption = damaged(&image);
            assert!(corruption.what.contains("while later ones are there"), "{corruption}");
        }
        // Whether there ever was one above the highest, nobody knows.
        recovered(log.finish().remove(&third));
    }
}

#[test]
fn row_f_a_core_without_files_is_empty() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    log.core(2);
    let found = recovered(&log.finish());
    assert_eq!(found.log.cores.len(), 3);
    for core in [1, 2] {
        let ending = &found.core_report(core).ending;
        assert_eq!((ending.label.to_string(), ending.kind), ("@F".into(), EndingKind::Empty));
        let core = found.core(core);
        assert_eq!((core.end_position, core.next_sequence, core.last_epoch), (0, 0, 0));
        assert_eq!((core.last_timestamp_ns, core.highest_segment_id), (i64::MIN, 0));
        assert!(core.spans.is_empty() && core.adoption.is_none());
    }
}

#[test]
fn row_g_what_stands_behind_a_takeover_does_not_matter() {
    for behind in [&[0xee; 64][..], &[0; 64], &[0x30; 5000]] {
        let mut log = new_log();
        log.core(0).segment().put(b"a", b"1").ends_here().raw(behind);
        log.core(0).segment().put(b"b", b"2");
        let found = recovered(&log.finish());
        assert_eq!(found.entries(), log.entries());
        assert_eq!(found.entries().len(), 2);
    }
}

#[test]
fn row_g_valid_records_behind_a_takeover_are_not_the_logs() {
    let mut log = new_log();
    // The batch behind was torn somewhere in front, and its end is whole.
    log.core(0).segment().put(b"a", b"1").ends_here().put(b"x", b"torn").put(b"y", b"torn");
    log.core(0).segment().put(b"b", b"2");
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.core(0).next_sequence, 2);
}

#[test]
fn row_h_a_file_that_is_not_what_its_name_says_is_damage() {
    let (log, name, _) = three_batches();
    let damages: [fn(&mut LogImage, &str); 4] = [
        |image, name| {
            image.flip_byte(name, 40);
        },
        |image, name| {
            image.overwrite(name, 0, &[0; 4096]);
        },
        |image, name| {
            image.shrink_by(name, 4096);
        },
        |image, name| {
            image.shrink_by(name, usize::MAX);
        },
    ];
    for damage in damages {
        let mut image = log.finish();
        damage(&mut image, &name);
        let corruption = damaged(&image);
        assert!(corruption.path.ends_with(&name), "{corruption}");
    }
}

#[test]
fn row_h_two_segments_that_changed_places_are_damage_and_each_says_so() {
    let mut log = new_log();
    let first = log.core(0).segment().put(b"a", b"1").seal();
    let (first, first_bytes) = (first.name(), first.bytes());
    let second = log.core(0).segment().put(b"b", b"2");
    let (second, second_bytes) = (second.name(), second.bytes());
    let mut image = log.finish();
    image.overwrite(&first, 0, &second_bytes).overwrite(&second, 0, &first_bytes);
    let corruption = damaged(&image);
    assert!(corruption.path.ends_with(&first), "{corruption}");
    assert_eq!(corruption.file_range, Some((0, 4096)), "{corruption}");
    assert!(corruption.what.contains("says segment 2 of core 0"), "{corruption}");
}

#[test]
fn a_zero_tail_of_any_length_drops_what_it_hits_and_nothing_else() {
    let (log, name, last_batch) = three_batches();
    let end = recovered(&log.finish()).core(0).end_position;
    for from in 0..=end {
        let mut image = log.finish();
        image.zero_from(&name, file_offset(from));
        let found = recovered(&image);
        let kept = found.entries();
        assert_eq!(kept, log.entries()[..kept.len()], "from {from}");
        let (label, kind) = found.ending();
        assert!(found.core_report(0).ending.is_unproven(), "{label} {kind:?}");
        if from >= end {
            assert_eq!(kept.len(), 5);
        } else if from >= last_batch + 24 {
            assert!(kept.len() >= 3, "from {from}");
        }
    }
}

#[test]
fn a_cut_at_every_byte_of_the_last_batch_gives_a_prefix_and_is_counted() {
    let (log, name, last_batch) = three_batches();
    let end = recovered(&log.finish()).core(0).end_position;
    for cut in last_batch..end {
        let mut image = log.finish();
        image.zero_from(&name, file_offset(cut));
        let found = recovered(&image);
        let kept = found.entries();
        assert_eq!(kept, log.entries()[..kept.len()]);
        let (label, kind) = found.ending();
        let was_begun = found.core(0).end_position < cut;
        // A cut inside a record leaves its front; zeroes at its front would leave nothing.
        let front_is_zero = image.files[&name]
            [usize::try_from(file_offset(found.core(0).end_position)).unwrap()..]
            .iter()
            .all(|&byte| byte == 0);
        let is_torn = matches!(kind, EndingKind::Torn { dropped_bytes_at_least: 1.., .. });
        assert_eq!(is_torn, was_begun && !front_is_zero, "cut {cut}: {label} {kind:?}");
    }
}

#[test]
fn strict_mode_refuses_a_torn_tail_and_accepts_an_end() {
    let (log, name, last_batch) = three_batches();
    let mut image = log.finish();
    assert!(try_recover_disk(&disk(&image), RecoveryMode::Strict).is_ok());
    image.flip_byte(&name, file_offset(last_batch) + 3);
    let error = try_recover_disk(&disk(&image), RecoveryMode::Strict).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("torn write"), "{error}");
}

#[test]
fn a_checksum_of_zero_is_a_record_like_any_other() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").put_with_checksum(b"b", 0).put(b"c", b"3");
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.entries().len(), 3);
}

#[test]
fn a_value_of_zeroes_is_not_taken_for_unwritten_space() {
    let mut log = new_log();
    log.core(0).segment().put(b"a", &[0; 12_000]).put(b"b", &[0; 5000]);
    assert_eq!(recovered(&log.finish()).entries(), log.entries());
}

#[test]
fn an_entry_with_the_wrong_sequence_or_core_is_as_good_as_none() {
    let wrong: [fn(&mut WalEntry); 3] =
        [|entry| entry.sequence += 1, |entry| entry.sequence = 0, |entry| entry.core_id = 7];
    for change in wrong {
        let mut log = new_log();
        let segment = log.core(0).segment();
        segment.put(b"a", b"1");
        let mut entry = segment.next_put(b"b", b"2");
        change(&mut entry);
        segment.entry(&entry);
        let found = recovered(&log.finish());
        assert_eq!(found.entries().len(), 1);
        assert_eq!(found.ending().0, "@B");
    }
}

#[test]
fn a_misplaced_record_is_as_good_as_none() {
    let (log, name, last_batch) = three_batches();
    let mut image = log.finish();
    // The first entry's bytes, written once more where the last batch begins.
    let front = image.files[&name][12288..12288 + 100].to_vec();
    image.overwrite(&name, file_offset(last_batch), &front);
    let found = recovered(&image);
    assert_eq!(found.entries(), log.entries()[..3]);
    assert_eq!(found.ending().0, "@B");
}

#[test]
fn a_batch_is_there_whole_or_not_at_all() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    let batch_begin = segment.position();
    segment.batch(&[(b"b", b"2"), (b"c", b"3"), (b"d", b"4")]);
    let batch_end = segment.position();
    let name = segment.name();
    let whole = recovered(&log.finish());
    assert_eq!(whole.entries().len(), 4);
    assert_eq!(whole.core(0).next_sequence, 4);
    for at in batch_begin..batch_end {
        let mut image = log.finish();
        image.flip_byte(&name, file_offset(at));
        let found = recovered(&image);
        assert_eq!(found.entries().len(), 1, "byte {at}");
        assert!(found.core_report(0).ending.is_torn());
    }
}

#[test]
fn records_that_may_be_skipped_take_position_and_no_sequence() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    segment.record(RecordKind::Skippable(8), &[1; 64]);
    segment.record(RecordKind::Skippable(15), &vec![2; 400_000]).put(b"b", b"2");
    let end = segment.position();
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!((found.core(0).end_position, found.core(0).next_sequence), (end, 2));
}

#[test]
fn bytes_of_an_earlier_life_behind_the_end_are_not_the_logs() {
    // The file's earlier life: the same positions and sequences under another salt, marks too.
    let mut earlier = new_log();
    let segment = earlier.core(0).segment();
    segment.identity().salt = 999;
    for _ in 0..100 {
        let durable = segment.position();
        segment.mark(durable).put(b"old", b"value of an earlier life");
    }
    let old_bytes = segment.bytes();
    let old_end = segment.position();

    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"new", b"1").mark(0).put(b"new", b"2");
    let (end, name) = (segment.position(), segment.name());
    // Written from the next block on, from the very next byte on, or at a record boundary.
    for from in [4096, end, end + 24, end + 8] {
        let mut image = log.finish();
        let old = &old_bytes[usize::try_from(file_offset(from)).unwrap()..];
        image.overwrite(&name, file_offset(from), old);
        assert!(old_end > from);
        let found = recovered(&image);
        assert_eq!(found.entries(), log.entries(), "from {from}");
        let label = if from == 4096 { "@A" } else { "@B" };
        assert_eq!(found.ending().0, label, "from {from}");
    }
}

#[test]
fn garbage_in_the_last_block_of_a_closed_log_is_torn_but_not_unproven() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1").close();
    let (end, name) = (segment.position(), segment.name());
    let mut image = log.finish();
    image.overwrite(&name, file_offset(end), &[0xee; 8]);
    let kind = EndingKind::Torn { dropped_bytes_at_least: 4096 - end, unproven: false };
    assert_eq!(recovered(&image).ending(), ("@B".into(), kind));
    assert!(recovered(&image).core(0).closed);
    assert!(try_recover_disk(&disk(&image), RecoveryMode::Strict).is_err());
}

#[test]
fn a_record_that_its_file_cannot_hold_is_unreadable() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    // An entry of 64 KiB, says the header, and the file ends before.
    segment.raw(&[0, 0, 1, 0x10, 1, 2, 3, 4]);
    assert_eq!(recovered(&log.finish()).ending().0, "@B");
}

#[test]
fn records_may_reach_to_the_last_byte_of_their_file() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    let room = 2 * 24576 - 12288;
    segment.put(b"a", b"1");
    let rest = room - segment.position() - 8 - 64 - 8;
    segment.put(b"b", &value(usize::try_from(rest).unwrap() + 7));
    assert_eq!(segment.bytes().len(), 2 * 24576);
    assert_eq!(segment.position(), room);
    let found = recovered(&log.finish());
    assert_eq!(found.entries(), log.entries());
    assert_eq!(found.ending().0, "@A");
}

#[test]
fn every_flipped_bit_of_a_small_log_is_an_error_a_counted_tail_or_harmless() {
    let mut log = new_log();
    let first = log.core(0).segment().size(24576);
    first.put(b"a", b"1");
    let durable = first.position();
    first.mark(durable).batch(&[(b"b", b"2"), (b"c", b"3")]).seal();
    let second = log.core(0).segment().size(24576);
    second.mark(second.position()).put(b"d", b"4");
    let last_batch = second.position();
    second.mark(last_batch).put(b"e", b"5");
    let entries = log.entries();
    let image = log.finish();
    let whole = recovered(&image);
    assert_eq!(whole.entries(), entries);
    let first_of_last_batch = entries.len() - 1;

    let disk = disk(&image);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (mut errors, mut torn, mut harmless) = (0, 0, 0);
    for (name, bytes) in &image.files {
        for (byte, &was) in bytes.iter().enumerate() {
            // Every bit where something stands, one here and there where nothing does.
            let is_segment_front = name.starts_with("core") && byte < 12288 + 1024;
            let bits = match (was, byte % 512) {
                (0, 0) => 0..8,
                (0, _) if is_segment_front && byte % 4 == 0 => 3..4,
                (0, _) => continue,
                _ => 0..8,
            };
            for bit in bits {
                disk.flip_bit(name, byte as u64, bit).unwrap();
                match recover(&storage, RecoveryMode::TornTail) {
                    Ok(found) => {
                        let kept = found.replay(&storage).entries().unwrap();
                        assert_eq!(kept, entries[..kept.len()], "{name} {byte}.{bit}");
                        let core = &found.report.cores[0];
                        if kept.len() < entries.len() {
                            let at_least = first_of_last_batch;
                            assert!(kept.len() >= at_least, "{name} {byte}.{bit}: lost silently");
                            assert!(core.ending.is_torn(), "{name} {byte}.{bit}: {core}");
                            assert!(core.ending.is_unproven());
                            torn += 1;
                        } else {
                            harmless += 1;
                        }
                    }
                    Err(WalError::Corrupt(_)) => errors += 1,
                    Err(other) => panic!("{name} {byte}.{bit}: {other}"),
                }
                disk.flip_bit(name, byte as u64, bit).unwrap();
            }
        }
    }
    assert!(errors > 2000 && torn > 200 && harmless > 2000, "{errors} {torn} {harmless}");
}
