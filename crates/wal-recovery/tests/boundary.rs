//! Record boundaries, and reading one segment by itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;

use support::{disk, new_log, recovered};
use wal_recovery::{Boundary, SegmentReader, find_boundary};
use wal_sim::fixture::{LogFixture, segment_name};
use wal_storage::{Storage, WalError};

/// Two segments with marks and a batch; every boundary with its sequence.
fn two_segments() -> (LogFixture, Vec<(u64, u64)>) {
    let mut log = new_log();
    let mut boundaries = vec![(0, 0)];
    let first = log.core(0).segment();
    first.set_epoch(3);
    first.put(b"a", b"1");
    boundaries.push((first.position(), 1));
    first.mark(first.position());
    boundaries.push((first.position(), 1));
    first.batch(&[(b"b", b"2"), (b"c", b"3")]);
    boundaries.push((first.position(), 3));
    first.seal();
    let second = log.core(0).segment();
    second.set_epoch(4).put(b"d", b"4");
    boundaries.push((second.position(), 4));
    (log, boundaries)
}

fn boundary_at(found: &support::Recovered, position: u64) -> Result<Boundary, WalError> {
    find_boundary(found.storage.as_ref(), 0, &found.core(0).spans, position)
}

#[test]
fn every_begin_and_end_of_a_record_is_a_boundary_and_nothing_else_is() {
    let (log, boundaries) = two_segments();
    let found = recovered(&log.finish());
    let (end, _) = *boundaries.last().unwrap();
    for position in 0..=end {
        let below = boundaries.iter().rfind(|boundary| boundary.0 <= position).unwrap();
        match boundary_at(&found, position) {
            Ok(boundary) => {
                assert_eq!((boundary.position, boundary.sequence), *below);
                assert_eq!(position, below.0);
            }
            Err(WalError::NotARecordBoundary {
                boundary_below, boundary_above, core: 0, ..
            }) => {
                let above = boundaries.iter().find(|boundary| boundary.0 > position).unwrap();
                assert_eq!((boundary_below, boundary_above), (below.0, above.0));
                assert_ne!(position, below.0);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_boundary_knows_epoch_and_timestamp_before_it() {
    let (log, boundaries) = two_segments();
    let found = recovered(&log.finish());
    let before_last = boundary_at(&found, boundaries[3].0).unwrap();
    assert_eq!((before_last.last_epoch, before_last.last_timestamp_ns), (3, 2));
    let end = boundary_at(&found, boundaries[4].0).unwrap();
    assert_eq!((end.last_epoch, end.last_timestamp_ns), (4, 3));
    let begin = boundary_at(&found, 0).unwrap();
    assert_eq!((begin.last_epoch, begin.last_timestamp_ns), (0, i64::MIN));
}

#[test]
fn positions_outside_the_log_are_refused() {
    let (mut log, boundaries) = two_segments();
    let found = recovered(&log.finish());
    let (end, _) = boundaries[4];
    for position in [end + 1, end + 8, u64::MAX] {
        let error = boundary_at(&found, position).unwrap_err();
        assert!(matches!(error, WalError::InvalidArgument { .. }), "{error}");
    }
    let (base, _) = boundaries[3];
    log.manifest().releases.push(support::release(0, base));
    let found = recovered(&log.finish());
    assert!(matches!(boundary_at(&found, base - 8), Err(WalError::InvalidArgument { .. })));
    assert!(boundary_at(&found, base).is_ok());
}

#[test]
fn an_empty_log_has_one_boundary() {
    let mut log = new_log();
    log.core(0);
    let found = recovered(&log.finish());
    assert_eq!(boundary_at(&found, 0).unwrap().sequence, 0);
    assert!(boundary_at(&found, 8).is_err());
}

#[test]
fn damage_on_the_way_to_a_boundary_is_reported() {
    let (log, boundaries) = two_segments();
    let disk = disk(&log.finish());
    let found = support::try_recover_disk(&disk, Default::default()).unwrap();
    disk.flip_bit(&segment_name(0, 1), 12288 + 40, 0).unwrap();
    assert!(boundary_at(&found, boundaries[2].0).unwrap_err().is_corrupt());
    assert!(boundary_at(&found, boundaries[4].0).is_ok(), "that one lies in the other segment");
}

#[test]
fn one_segment_can_be_read_by_itself() {
    let (log, boundaries) = two_segments();
    let storage: Arc<dyn Storage> = Arc::new(disk(&log.finish()));
    let mut reader = SegmentReader::open(storage.as_ref(), 0, 1).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().key(), Some(&b"a"[..]));
    assert_eq!(reader.next().unwrap().unwrap().key(), Some(&b"b"[..]));
    assert_eq!(reader.read_all().unwrap(), log.entries()[2..3]);
    assert!(reader.next().unwrap().is_none());
    let end = reader.valid_end().unwrap();
    assert_eq!((end.position, end.is_sealed), (boundaries[3].0, true));

    let mut reader = SegmentReader::open(storage.as_ref(), 0, 2).unwrap();
    assert_eq!(reader.read_up_to_epoch(3).unwrap(), []);
    let mut reader = SegmentReader::open(storage.as_ref(), 0, 2).unwrap();
    assert_eq!(reader.read_up_to_epoch(4).unwrap(), log.entries()[3..]);
    let end = reader.valid_end().unwrap();
    assert_eq!((end.position, end.is_sealed), (boundaries[4].0, false));
}

#[test]
fn a_segment_reader_takes_its_own_marks_and_slots_for_proof() {
    let (log, _) = two_segments();
    let disk = disk(&log.finish());
    disk.flip_bit(&segment_name(0, 1), 12288 + 40, 0).unwrap();
    let mut reader = SegmentReader::open(&disk, 0, 1).unwrap();
    let error = reader.read_all().unwrap_err();
    assert!(error.to_string().contains("the mark at position"), "{error}");
}

#[test]
fn a_segment_that_was_never_begun_or_is_not_there_cannot_be_read() {
    let mut log = new_log();
    log.core(0).unused_segment();
    let disk = disk(&log.finish());
    let error = SegmentReader::open(&disk, 0, 1).unwrap_err();
    assert!(matches!(error, WalError::NotALog { .. }), "{error}");
    assert!(SegmentReader::open(&disk, 0, 2).unwrap_err().is_not_found());
}
