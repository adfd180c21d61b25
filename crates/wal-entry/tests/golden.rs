//! The bytes of format version 1, entry by entry.
//!
//! These are frozen for ever: logs on disk hold them, and every later version has to read and write
//! the same. If one of these tests fails, the change that broke it is wrong, not the test.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint does not know as such")]

use wal_entry::{EntryView, Offsets, RecordBuffer, WalEntry};

#[test]
fn put() {
    check(
        &WalEntry::put(3, 1, 2, b"user-1".to_vec(), b"active".to_vec(), 0x0102_0304_0506_0708),
        "
        757365722d316163 7469766500000000
        0100000000000000 0200000000000000
        0300000000000000 0807060504030201
        00000000ccffffff 06000000caffffff
        0600000000000000 0000000000000000
        ",
    );
}

#[test]
fn put_with_extreme_numbers() {
    check(
        &WalEntry::put(u16::MAX, u64::MAX, u64::MAX - 1, vec![0], vec![0xff; 7], i64::MIN),
        "
        00ffffffffffffff ffffffffffffffff
        feffffffffffffff ffff000000000000
        0000000000000080 00000000d4ffffff
        01000000cdffffff 0700000000000000
        0000000000000000
        ",
    );
}

#[test]
fn put_with_empty_key_and_value() {
    check(
        &WalEntry::put(0, 0, 0, vec![], vec![], 0),
        "
        0000000000000000 0000000000000000
        0000000000000000 0000000000000000
        00000000dcffffff 00000000d4ffffff
        0000000000000000 0000000000000000
        ",
    );
}

#[test]
fn put_with_empty_key() {
    check(
        &WalEntry::put(0, 0, 0, vec![], b"v".to_vec(), 0),
        "
        7600000000000000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 00000000d4ffffff
        00000000ccffffff 0100000000000000
        0000000000000000
        ",
    );
}

#[test]
fn put_with_empty_value() {
    check(
        &WalEntry::put(0, 0, 0, b"k".to_vec(), vec![], 0),
        "
        6b00000000000000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 00000000d4ffffff
        01000000cdffffff 0000000000000000
        0000000000000000
        ",
    );
}

#[test]
fn delete() {
    check(
        &WalEntry::delete(3, 1, 2, b"user-1".to_vec(), -1),
        "
        757365722d310000 0100000000000000
        0200000000000000 0300000000000000
        ffffffffffffffff 01000000d4ffffff
        0600000000000000 0000000000000000
        0000000000000000
        ",
    );
}

#[test]
fn delete_with_empty_key() {
    check(
        &WalEntry::delete(3, 1, 2, vec![], 1),
        "
        0100000000000000 0200000000000000
        0300000000000000 0100000000000000
        01000000dcffffff 0000000000000000
        0000000000000000 0000000000000000
        ",
    );
}

#[test]
fn checkpoint() {
    check(
        &WalEntry::checkpoint(3, 1, 2, 0x1122_3344_5566_7788, 9),
        "
        0100000000000000 0200000000000000
        0300000000000000 0900000000000000
        0200000000000000 8877665544332211
        0000000000000000 0000000000000000
        ",
    );
}

#[test]
fn commit_of_nothing() {
    check(
        &WalEntry::commit(3, 1, 2, Offsets::new(), None, 9),
        "
        0100000000000000 0200000000000000
        0300000000000000 0900000000000000
        03000000dcffffff 0000000000000000
        0000000000000000 0000000000000000
        ",
    );
}

#[test]
fn commit_with_short_source_names() {
    let offsets = offsets(&[("", 5), ("a", 6), ("eight888", 7)]);
    check(
        &WalEntry::commit(3, 1, 2, offsets, Some(-2), 9),
        "
        ffffffffffffffff 0500000000000000
        61ffffffffffffff 0600000000000000
        6569676874383838 0700000000000000
        0100000000000000 0200000000000000
        0300000000000000 0900000000000000
        03000000acffffff 0300000000000000
        0100000000000000 feffffffffffffff
        ",
    );
}

#[test]
fn commit_with_long_source_names() {
    let offsets = offsets(&[("partition-0", 5), ("partition-1", u64::MAX)]);
    check(
        &WalEntry::commit(3, 1, 2, offsets, None, 9),
        "
        706172746974696f 6e2d307061727469
        74696f6e2d310000 8b000000e8ffffff
        0500000000000000 8b000000e3ffffff
        ffffffffffffffff 0100000000000000
        0200000000000000 0300000000000000
        0900000000000000 03000000bcffffff
        0200000000000000 0000000000000000
        0000000000000000
        ",
    );
}

#[test]
fn commit_with_source_names_around_the_marked_length() {
    let long = "n".repeat(64);
    let offsets = offsets(&[("m", 1), (&long, 2), ("nine99999", 3), ("ö", 4)]);
    check(
        &WalEntry::commit(3, 1, 2, offsets, Some(i64::MAX), 9),
        "
        6e696e6539393939 396e6e6e6e6e6e6e
        6e6e6e6e6e6e6e6e 6e6e6e6e6e6e6e6e
        6e6e6e6e6e6e6e6e 6e6e6e6e6e6e6e6e
        6e6e6e6e6e6e6e6e 6e6e6e6e6e6e6e6e
        6e6e6e6e6e6e6e6e 6e00000000000000
        6dffffffffffffff 0100000000000000
        89000000a0ffffff 0300000000000000
        8001000099ffffff 0200000000000000
        c3b6ffffffffffff 0400000000000000
        0100000000000000 0200000000000000
        0300000000000000 0900000000000000
        030000009cffffff 0400000000000000
        0100000000000000 ffffffffffffff7f
        ",
    );
}

#[test]
fn epoch_barrier() {
    check(
        &WalEntry::epoch_barrier(3, 0x1122_3344_5566_7788, 2, 9),
        "
        8877665544332211 0200000000000000
        0300000000000000 0900000000000000
        0400000000000000 8877665544332211
        0000000000000000 0000000000000000
        ",
    );
}

/// Archives `entry` and compares with `expected`, hexadecimal in groups of eight bytes, one line
/// per sixteen; then reads it back.
fn check(entry: &WalEntry, expected: &str) {
    let mut buffer = RecordBuffer::new();
    entry.borrowed().archive_into(&mut buffer);
    let written = hex(&buffer);
    let expected: Vec<&str> = expected.split_whitespace().collect();
    assert!(
        written.split_whitespace().eq(expected.iter().copied()),
        "the bytes of {entry:?} are now\n{written}"
    );

    let view = EntryView::access(&buffer).unwrap();
    assert_eq!(view.to_entry(), *entry);
}

fn hex(bytes: &[u8]) -> String {
    let group = |group: &[u8]| group.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |line: &[u8]| line.chunks(8).map(group).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

fn offsets(pairs: &[(&str, u64)]) -> Offsets {
    Offsets::try_from_pairs(pairs.iter().copied()).unwrap()
}
