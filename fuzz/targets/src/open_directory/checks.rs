//! Reading a directory in every way there is, and holding what comes back against itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use laminar_wal::EndingKind;
use wal_entry::WalEntry;
use wal_format::{CoreDirectory, SegmentFile};
use wal_recovery::{
    CoreReport, RecoveredCore, RecoveredLog, RecoveryMode, RecoveryTarget, SegmentReader,
    find_boundary, recover, recover_to, verify,
};
use wal_sim::SimStorage;
use wal_storage::{Result, Storage, WalError};

use super::Found;
use crate::archived_entry::held_bytes;
use crate::disk::{file_bytes, storage};

/// Reads the log, in both modes, verifies it, replays it, and reads each segment by itself.
pub(super) fn read(disk: &SimStorage) -> Result<Found> {
    let storage = storage(disk);
    let recovered = recover(&storage, RecoveryMode::TornTail);
    let verified = verify(&storage).map(|report| (report.is_sound(), report.report));
    let is_sound = verified.as_ref().is_ok_and(|(is_sound, _)| *is_sound);
    let is_damaged_below = !is_sound
        && recovered.as_ref().is_ok_and(|log| {
            log.manifest.as_ref().is_some_and(|manifest| manifest.checkpoint.is_some())
        });
    assert!(
        is_sound == recovered.is_ok() || is_damaged_below,
        "verify says {verified:?}, recover {recovered:?}"
    );
    let strict = recover(&storage, RecoveryMode::Strict);
    for mode in [RecoveryMode::PointInTime, RecoveryMode::Salvage] {
        left_by(&storage, mode, recovered.as_ref(), is_damaged_below);
    }
    segments_one_by_one(disk, &*storage);
    let log = recovered?;
    let is_torn = log.report.cores.iter().any(|core| core.ending.is_torn());
    if is_damaged_below {
        assert!(strict.is_err(), "strict recovery reads below the checkpoint too");
    } else {
        let verified = verified.map(|(_, report)| report);
        assert!(verified.is_ok_and(|report| report == log.report), "verify finds the same");
        assert_eq!(strict.is_err(), is_torn, "a torn tail alone is too much for strict recovery");
        assert!(strict.is_err() || strict.is_ok_and(|strict| strict == log), "both modes agree");
    }

    let found = found(disk, log, is_damaged_below);
    for core in &found.log.cores {
        for position in [core.end_position / 16 * 8, core.end_position] {
            // Where that is a boundary, it is the one asked for.
            if let Ok(found) = find_boundary(&*storage, core.core, &core.spans, position) {
                assert_eq!(found.position, position);
                assert!(found.sequence <= core.next_sequence);
            }
        }
    }
    Ok(found)
}

/// What is left in spite of damage can be replayed, in order, and is all there is if nothing is damaged.
fn left_by(
    storage: &Arc<dyn Storage>,
    mode: RecoveryMode,
    recovered: std::result::Result<&RecoveredLog, &WalError>,
    is_damaged_below: bool,
) {
    let left = recover_to(storage, mode, RecoveryTarget::End);
    if let Ok(whole) = recovered
        && !is_damaged_below
    {
        assert!(left.is_ok_and(|left| left == *whole), "{mode:?}: nothing is damaged");
        return;
    }
    let Ok(left) = left else { return };
    assert!(!left.report.losses.is_empty() && left.proposal.is_some(), "{}", left.report);
    let entries = left.replay(storage).from_start().entries();
    let Ok(entries) = entries else { panic!("{mode:?}: what is left replays: {entries:?}") };
    assert!(entries.is_sorted_by(|a, b| a.replay_order() < b.replay_order()));
    for core in &left.cores {
        let own = || entries.iter().filter(|entry| entry.core_id == core.core);
        assert!(own().all(|entry| entry.sequence < core.next_sequence));
        assert!(own().is_sorted_by(|a, b| a.sequence < b.sequence));
    }
}

/// Reads the log once, when its directory has been looked into already.
pub(super) fn read_again(disk: &SimStorage) -> Result<Found> {
    let log = recover(&storage(disk), RecoveryMode::TornTail)?;
    let is_sound = verify(&storage(disk)).is_ok_and(|report| report.is_sound());
    Ok(found(disk, log, !is_sound))
}

/// Replays what was recovered, and holds it against what recovery says of it.
fn found(disk: &SimStorage, log: RecoveredLog, is_damaged_below: bool) -> Found {
    if is_damaged_below {
        let behind_checkpoint = behind_checkpoint(&storage(disk), &log);
        return Found { log, entries: None, behind_checkpoint };
    }
    let (entries, behind_checkpoint) = entries(&storage(disk), &log);
    let of_cores: u64 = log.cores.iter().zip(&log.report.cores).map(check_core(&entries)).sum();
    assert_eq!(of_cores, entries.len() as u64, "each entry is of a core that was found");
    let (files, held) = (file_bytes(disk), entries.iter().map(held_bytes).sum::<usize>() as u64);
    assert!(held <= files && log.report.bytes() <= files, "no more than the files hold");
    Found { log, entries: Some(entries), behind_checkpoint }
}

/// Everything that was recovered, merged, and what of it lies behind the checkpoint; core by core
/// it is the same.
fn entries(storage: &Arc<dyn Storage>, log: &RecoveredLog) -> (Vec<WalEntry>, Vec<WalEntry>) {
    let replay = log.replay(storage).from_start();
    let entries = replay.entries();
    let Ok(entries) = entries else { panic!("what was recovered replays: {entries:?}") };
    let is_in_order = entries.is_sorted_by(|a, b| a.replay_order() < b.replay_order());
    assert!(is_in_order, "merged in replay order");
    for core in replay.cores() {
        let mut merged = entries.iter().filter(|entry| entry.core_id == core);
        let visited = replay.for_each_of_core(core, |entry| {
            assert_eq!(merged.next(), Some(&entry.to_entry()), "core {core} by itself");
        });
        assert!(visited.is_ok(), "{visited:?}");
        assert_eq!(merged.next(), None, "core {core} by itself");
    }
    let behind = behind_checkpoint(storage, log);
    for core in replay.cores() {
        let own = |entry: &&WalEntry| entry.core_id == core;
        let missing = entries.iter().filter(own).count() - behind.iter().filter(own).count();
        let rest = entries.iter().filter(own).skip(missing);
        assert!(rest.eq(behind.iter().filter(own)), "core {core} behind the checkpoint");
    }
    (entries, behind)
}

fn behind_checkpoint(storage: &Arc<dyn Storage>, log: &RecoveredLog) -> Vec<WalEntry> {
    let behind = log.replay(storage).entries();
    let Ok(behind) = behind else { panic!("what was recovered replays: {behind:?}") };
    assert!(behind.is_sorted_by(|a, b| a.replay_order() < b.replay_order()), "in replay order");
    behind
}

/// Holds a core's numbers against its entries, and says how many these are.
fn check_core<'a>(entries: &'a [WalEntry]) -> impl Fn((&'a RecoveredCore, &'a CoreReport)) -> u64 {
    |(core, report)| {
        let mut own = entries.iter().filter(|entry| entry.core_id == core.core);
        let count = own.clone().count() as u64;
        assert_eq!(
            (report.core, report.entries, report.end_position, report.next_sequence),
            (core.core, count, core.end_position, core.next_sequence),
        );
        let first = own.clone().next().map_or(core.next_sequence, |entry| entry.sequence);
        assert!(own.clone().map(|entry| entry.sequence).eq(first..core.next_sequence), "by one");
        assert!(own.clone().is_sorted_by_key(|entry| (entry.epoch, entry.timestamp_ns)));
        assert!(own.clone().is_sorted_by_key(|entry| entry.timestamp_ns), "time never falls");
        assert!(
            own.all(|e| e.epoch <= core.last_epoch && e.timestamp_ns <= core.last_timestamp_ns)
        );
        for pair in core.spans.windows(2) {
            let [a, b] = pair else { continue };
            assert_eq!((a.end_position, a.end_sequence), (b.base_position, b.base_sequence));
        }
        if let Some(last) = core.spans.last() {
            assert_eq!(
                (last.end_position, last.end_sequence),
                (core.end_position, core.next_sequence)
            );
        }
        assert!(
            core.spans.iter().all(|span| span.end_position - span.base_position <= span.size_bytes)
        );
        assert!(core.closed || report.ending.kind != EndingKind::Closed, "closed where it says so");
        count
    }
}

/// Reads every segment file without the rest of the log: an error, or entries that its bytes pay
/// for.
fn segments_one_by_one(disk: &SimStorage, storage: &dyn Storage) {
    for name in disk.names() {
        let Some((directory, file)) = name.split_once('/') else { continue };
        let core = CoreDirectory::parse(directory);
        let (Some(core), Some(segment)) = (core, SegmentFile::parse(file)) else { continue };
        let Ok(mut reader) = SegmentReader::open(storage, core.0, segment.0) else { continue };
        let bytes = disk.read_file(&name).map_or(0, |bytes| bytes.len());
        let mut held = 0;
        while let Ok(Some(entry)) = reader.next() {
            assert_eq!(entry.core_id(), core.0);
            held += held_bytes(&entry.to_entry()) + 64;
            assert!(held <= bytes, "{name}: more than its bytes pay for");
        }
    }
}

/// Per core, what was found is what was logged first.
pub(super) fn is_prefix(found: &[WalEntry], logged: &[WalEntry]) {
    for entry in found {
        assert!(logged.contains(entry), "never logged: {entry:?}");
    }
    for core in found.iter().map(|entry| entry.core_id) {
        let first = found.iter().find(|entry| entry.core_id == core);
        let first_logged = logged.iter().find(|entry| entry.core_id == core);
        assert_eq!(first, first_logged, "core {core}: from the beginning");
    }
}

/// What was found is there again, and what was appended behind it; below the checkpoint something
/// may have been given back meanwhile. Timestamps of what was appended are not known.
pub(super) fn has_grown(again: &Found, found: &Found, appended: &[WalEntry]) {
    if let (Some(again), Some(found)) = (&again.entries, &found.entries) {
        is_end_of(again, found, appended);
    }
    let behind = again.behind_checkpoint.len();
    assert_eq!(behind, found.behind_checkpoint.len() + appended.len(), "all of it and no more");
    is_end_of(&again.behind_checkpoint, &found.behind_checkpoint, appended);
}

/// Per core, `found` is the end of `before` and what was `appended`.
fn is_end_of(found: &[WalEntry], before: &[WalEntry], appended: &[WalEntry]) {
    for core in before.iter().chain(appended).map(|entry| entry.core_id).collect::<BTreeSet<_>>() {
        let of_core = |entry: &&WalEntry| entry.core_id == core;
        let expected = before.iter().filter(of_core).chain(appended.iter().filter(of_core));
        let (expected, found): (Vec<_>, Vec<_>) =
            (expected.collect(), found.iter().filter(of_core).collect());
        let Some(gone) = expected.len().checked_sub(found.len()) else {
            panic!("core {core}: more than was there and was appended: {found:?}");
        };
        for (found, expected) in found.into_iter().zip(&expected[gone..]) {
            let timestamp_ns = match expected.timestamp_ns {
                0 => found.timestamp_ns,
                known => known,
            };
            assert_eq!(*found, WalEntry { timestamp_ns, ..(*expected).clone() });
        }
    }
}
