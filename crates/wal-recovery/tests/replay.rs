//! Every way to get at the entries of a recovered log gives the same ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use support::{Recovered, checkpoint, damaged, new_log, recovered, release, value};
use wal_entry::{EntryView, Offsets, WalEntry, WalOperation};
use wal_format::{CheckpointCore, SEGMENT_HEADER_BYTES};
use wal_recovery::{Recovery, ReplayProgress};
use wal_storage::{Access, WalError, WriteSync};

/// Two cores, three segments each, and where the second segment of each begins.
fn two_cores() -> (Recovered, Vec<WalEntry>, [u64; 2]) {
    let mut log = new_log();
    let mut seconds = [0; 2];
    for (core, second) in (0..2).zip(&mut seconds) {
        for segment_number in 0..3_u8 {
            let segment = log.core(core).segment();
            if segment_number == 1 {
                *second = segment.position();
            }
            for key in 0..40_u8 {
                segment.put(&[segment_number, key], &value(300));
            }
            if segment_number < 2 {
                segment.seal();
            }
        }
    }
    let entries = log.entries();
    (recovered(&log.finish()), entries, seconds)
}

fn replay(found: &Recovered) -> Recovery {
    found.log.replay(&found.storage)
}

#[test]
fn an_owned_iterator_gives_what_visiting_gives_in_the_same_order() {
    let (found, entries, _) = two_cores();
    let visited = replay(&found).entries().unwrap();
    assert_eq!(visited.len(), entries.len());
    let iterated: Result<Vec<WalEntry>, WalError> = replay(&found).into_iter().collect();
    assert_eq!(iterated.unwrap(), visited);
    let up_to: Vec<_> = replay(&found).from_positions(&[(0, u64::MAX)]).into_iter().collect();
    assert_eq!(up_to.len(), visited.iter().filter(|entry| entry.core_id == 1).count());
}

#[test]
fn what_was_released_is_not_replayed_though_the_checkpoint_is_gone_by_a_reset_elsewhere() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"released", b"").put(b"released too", b"");
    let end = segment.position();
    segment.put(b"behind", b"");
    log.manifest().releases = vec![release(0, end)];
    let found = recovered(&log.finish());
    let keys = |replay: Recovery| replay.entries().unwrap().len();
    assert_eq!((keys(replay(&found)), keys(replay(&found).from_start())), (1, 3));
}

#[test]
fn an_owned_iterator_ends_behind_the_first_error() {
    let (found, entries, _) = two_cores();
    let mut replayed = replay(&found).into_iter();
    let storage = found.storage.clone();
    replayed.next().unwrap().unwrap();
    // What is read later is damaged by now.
    let name = "core-0001/00000000000000000002.wal";
    let file = storage.open(name, Access::ReadWrite).unwrap();
    file.write_at(&[&[0xFF; 4096]], 12288, WriteSync::None).unwrap();
    // Bounded, so that an iterator without an end is noticed too.
    let rest: Vec<_> = replayed.take(entries.len()).collect();
    assert!(rest.len() < entries.len() - 1);
    let (last, before) = rest.split_last().unwrap();
    assert!(last.is_err() && before.iter().all(Result::is_ok));
}

#[test]
fn cores_are_replayed_side_by_side_each_into_a_state_of_its_own() {
    let (found, entries, _) = two_cores();
    let states = replay(&found)
        .for_each_per_core(
            |core| vec![u64::from(core)],
            |state, entry| state.push(entry.sequence()),
        )
        .unwrap();
    assert_eq!(states.len(), 2);
    for (core, state) in states {
        let of_core = entries.iter().filter(|entry| entry.core_id == core);
        let expected: Vec<u64> =
            std::iter::once(u64::from(core)).chain(of_core.map(|entry| entry.sequence)).collect();
        assert_eq!(state, expected);
    }
}

#[test]
fn a_visit_that_fails_on_one_core_fails_the_replay_and_the_other_core_is_visited_all_the_same() {
    let (found, entries, _) = two_cores();
    let visited = AtomicU64::new(0);
    let fail = |_: &mut (), entry: EntryView<'_>| match entry.core_id() {
        0 => Err(WalError::InvalidArgument { what: "enough".to_owned() }),
        _ => {
            visited.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    };
    let failed = replay(&found).try_for_each_per_core(|_| (), fail);
    assert_eq!(failed.unwrap_err().to_string(), "enough");
    let of_core_1 = entries.iter().filter(|entry| entry.core_id == 1).count();
    assert_eq!(visited.into_inner(), of_core_1 as u64);
}

#[test]
fn the_progress_rises_and_ends_with_everything() {
    let (found, entries, _) = two_cores();
    let total_bytes: u64 = found.log.cores.iter().map(|core| core.end_position).sum();
    for parallel in [false, true] {
        let told: Arc<Mutex<Vec<ReplayProgress>>> = Arc::default();
        let telling = told.clone();
        let replay =
            replay(&found).on_progress(move |progress| telling.lock().unwrap().push(progress));
        if parallel {
            replay.for_each_per_core(|_| (), |(), _| ()).unwrap();
        } else {
            replay.for_each(|_| ()).unwrap();
        }
        let told = told.lock().unwrap();
        assert!(told.len() > 2);
        let furthest = told.iter().max_by_key(|progress| progress.bytes).unwrap();
        assert_eq!((furthest.bytes, furthest.total_bytes), (total_bytes, total_bytes));
        assert_eq!(furthest.entries, entries.len() as u64);
    }
}

#[test]
fn the_state_holds_the_last_change_of_each_key_and_what_was_committed() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1").put(b"b", b"2").put(b"a", b"3");
    let mut delete = segment.next_put(b"b", b"");
    delete.operation = WalOperation::Delete { key: b"b".to_vec() };
    segment.entry(&delete);
    let mut commit = segment.next_put(b"", b"");
    let offsets = Offsets::try_from_pairs([("orders", 17)]).unwrap();
    commit.operation = WalOperation::Commit { offsets, watermark: Some(5) };
    segment.entry(&commit);
    let found = recovered(&log.finish());
    let state = replay(&found).into_state().unwrap();
    let changes: Vec<_> = state.changes.into_iter().collect();
    assert_eq!(changes, [(b"a".to_vec(), Some(b"3".to_vec())), (b"b".to_vec(), None)]);
    assert_eq!(state.committed.offsets().collect::<Vec<_>>(), [("orders", 17)]);
    assert_eq!((state.committed.watermark(), state.entries), (Some(5), 5));
    assert_eq!(found.core(0).committed, state.committed);
}

#[test]
fn a_replay_begins_behind_the_checkpoint_unless_it_is_told_otherwise() {
    let (_, entries, seconds) = two_cores();
    let mut log = new_log();
    for core in 0..2 {
        for segment_number in 0..3_u8 {
            let segment = log.core(core).segment();
            for key in 0..40_u8 {
                segment.put(&[segment_number, key], &value(300));
            }
            if segment_number < 2 {
                segment.seal();
            }
        }
    }
    log.manifest().checkpoint = Some(checkpoint(
        0,
        CheckpointCore {
            core: 0,
            position: seconds[0],
            sequence: 40,
            timestamp_ns: entries[39].timestamp_ns,
        },
    ));
    log.manifest().releases = vec![release(0, seconds[0])];
    let found = recovered(&log.finish());
    assert_eq!(replay(&found).entries().unwrap().len(), 80 + 120);
    // The first segment lies below the release position: it is not looked into any more.
    assert_eq!(replay(&found).from_start().entries().unwrap().len(), 80 + 120);
    assert_eq!(found.core(0).barrier_epoch, Some(0));
    log.manifest().releases.clear();
    let found = recovered(&log.finish());
    assert_eq!(replay(&found).entries().unwrap().len(), 80 + 120);
    assert_eq!(replay(&found).from_start().entries().unwrap().len(), 240);
}

#[test]
fn what_lies_before_the_checkpoint_in_its_segment_is_not_looked_into_again() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    let mut checkpoint_position = 0;
    for key in 0..40_u8 {
        if key == 20 {
            checkpoint_position = segment.position();
        }
        segment.put(&[key], &value(300));
    }
    let timestamp_ns = log.entries()[19].timestamp_ns;
    log.manifest().checkpoint = Some(checkpoint(
        0,
        CheckpointCore { core: 0, position: checkpoint_position, sequence: 20, timestamp_ns },
    ));
    let found = recovered(&log.finish());
    let in_the_fifth_record = SEGMENT_HEADER_BYTES + 5 * checkpoint_position / 20;
    let name = "core-0000/00000000000000000001.wal";
    let file = found.storage.open(name, Access::ReadWrite).unwrap();
    file.write_at(&[&[0xff]], in_the_fifth_record, WriteSync::None).unwrap();

    let behind = replay(&found).entries().unwrap();
    assert_eq!(
        behind.iter().map(|entry| entry.sequence).collect::<Vec<_>>(),
        Vec::from_iter(20..40)
    );
    let per_core = replay(&found).for_each_per_core(|_| 0, |count, _| *count += 1).unwrap();
    assert_eq!(per_core[&0], 20);
    replay(&found).from_start().entries().unwrap_err();
    replay(&found).from_positions(&[(0, checkpoint_position)]).entries().unwrap_err();
}

#[test]
fn a_checkpoint_that_stands_before_another_entry_than_it_says_is_damage() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"").put(b"b", b"");
    let position = segment.position();
    segment.put(b"c", b"");
    let mut with_checkpoint = |position, sequence| {
        let place = CheckpointCore { core: 0, position, sequence, timestamp_ns: 0 };
        log.manifest().checkpoint = Some(checkpoint(0, place));
        log.finish()
    };
    let found = recovered(&with_checkpoint(position, 2));
    assert_eq!(replay(&found).entries().unwrap().len(), 1);
    let wrong = damaged(&with_checkpoint(position, 3));
    assert!(wrong.what.contains("checkpoint 7 stands before sequence 3"), "{wrong}");
    // In the midst of a record.
    assert_eq!(damaged(&with_checkpoint(position - 8, 2)).core, Some(0));
}
