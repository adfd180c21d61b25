//! The archive's contract: one encoding per entry, rkyv's own; any other bytes are refused, none
//! makes reading panic.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint does not know as such")]

use std::cmp::Ordering;

use proptest::prelude::*;
use wal_entry::{
    ARCHIVE_ALIGNMENT_BYTES, ARCHIVE_BYTES_MAX, EntryRef, EntryView, Offsets, OperationRef,
    OperationView, RecordBuffer, WalEntry, WalOperation,
};

/// Every small size of key and value, and some around where a copy is done differently.
#[test]
fn every_small_put_has_rkyvs_bytes() {
    let mut buffer = RecordBuffer::with_capacity(64 * 1024);
    let value_sizes = (0..=24).chain([31, 32, 33, 63, 64, 65, 100, 127, 128, 1024, 4097, 20_000]);
    for value_bytes in value_sizes {
        for key_bytes in 0..=24 {
            let key = (0..key_bytes).map(|byte| byte + 1).collect();
            let entry = WalEntry::put(1, 2, 3, key, vec![0xa5; value_bytes], 4);
            buffer.clear();
            entry.borrowed().archive_into(&mut buffer);
            assert_eq!(buffer[..], rkyv_bytes(&entry)[..], "key {key_bytes}, value {value_bytes}");
        }
    }
}

/// Every length of a source name around the places where its encoding changes.
#[test]
fn every_source_name_length_has_rkyvs_bytes() {
    for name_bytes in (0..140).chain([255, 256, 16_383, 16_384, 70_000]) {
        let mut offsets = Offsets::new();
        offsets.set(&"n".repeat(name_bytes), 7);
        offsets.set("another source", 8);
        let entry = WalEntry::commit(1, 2, 3, offsets, Some(4), 5);
        assert_eq!(archive(&entry)[..], rkyv_bytes(&entry)[..], "name of {name_bytes} bytes");
        assert_eq!(view(&archive(&entry)).to_entry(), entry);
    }
}

#[test]
fn an_archive_that_fits_allocates_nothing() {
    let entry = WalEntry::put(0, 0, 0, vec![1; 5], vec![2; 6], 0);
    let mut buffer = RecordBuffer::with_capacity(80 * 51);
    let (place, capacity) = (buffer.as_ptr(), buffer.capacity());
    while buffer.len() + 80 <= capacity {
        entry.borrowed().archive_into(&mut buffer);
    }
    assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, capacity));
    assert_eq!(buffer.len(), 80 * 51);
}

/// The memory is never touched, so it costs nothing but addresses.
#[test]
fn what_is_too_large_for_an_archive_is_said_before_a_byte_is_copied() {
    let huge = vec![0; ARCHIVE_BYTES_MAX + ARCHIVE_ALIGNMENT_BYTES];
    let entry = |value| EntryRef {
        epoch: 0,
        sequence: 0,
        core_id: 0,
        timestamp_ns: 0,
        operation: OperationRef::Put { key: b"", value },
    };
    assert_eq!(entry(&huge[64..]).archived_bytes(), ARCHIVE_BYTES_MAX + ARCHIVE_ALIGNMENT_BYTES);
    assert_eq!(entry(&huge[72..]).archived_bytes(), ARCHIVE_BYTES_MAX);

    let mut buffer = RecordBuffer::new();
    let archived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        entry(&huge[64..]).archive_into(&mut buffer);
    }));
    assert!(archived.is_err() && buffer.is_empty());
    assert_eq!(refused(&huge), "1073741824 bytes; an archive has between 64 and 1073741816");
}

#[test]
fn getters_agree_with_the_entry() {
    let mut offsets = Offsets::new();
    offsets.set("a long source name", 4);
    offsets.set("short", 5);
    let bytes = archive(&WalEntry::commit(1, 2, 3, offsets.clone(), Some(6), 7));
    let commit = view(&bytes);
    assert_eq!((commit.core_id(), commit.epoch()), (1, 2));
    assert_eq!((commit.sequence(), commit.timestamp_ns()), (3, 7));
    assert_eq!((commit.key(), commit.value()), (None, None));
    assert!(!commit.is_state_operation());
    let OperationView::Commit { offsets: seen, watermark } = commit.operation() else {
        panic!("a commit was read as {commit:?}");
    };
    assert_eq!((seen.to_offsets(), watermark), (offsets, Some(6)));
    assert_eq!((seen.len(), seen.is_empty()), (2, false));
    assert_eq!((seen.get("short"), seen.get("shor")), (Some(5), None));
    assert_eq!(
        format!("{commit:?}"),
        "EntryView { epoch: 2, sequence: 3, core_id: 1, timestamp_ns: 7, operation: Commit { \
         offsets: {\"a long source name\": 4, \"short\": 5}, watermark: Some(6) } }"
    );

    let bytes = archive(&WalEntry::delete(1, 2, 3, b"k".to_vec(), 4));
    let delete = view(&bytes);
    assert_eq!((delete.key(), delete.value()), (Some(&b"k"[..]), None));
    assert!(delete.is_delete() && delete.is_state_operation() && !delete.is_put());
}

#[test]
fn what_is_no_archive_is_refused_in_words() {
    let good = archive(&WalEntry::put(1, 2, 3, b"key".to_vec(), b"value".to_vec(), 4));
    let root = good.len() - 64;
    assert_eq!(refused(&[]), "0 bytes; an archive has between 64 and 1073741816");
    assert_eq!(refused(&good[..56]), "56 bytes; an archive has between 64 and 1073741816");
    assert_eq!(refused(&good[..71]), "71 bytes; an archive's length is a multiple of 8");

    assert_eq!(refused(&changed(&good, root + 32, 5)), "operation tag 5 is unknown");
    // The key's length.
    let malformed = "a key, value, source or watermark in its 72 bytes is malformed";
    assert_eq!(refused(&changed(&good, root + 42, 1)), malformed);
    // The key's distance, padding in the root, and a key that is one byte shorter than where the
    // value begins.
    let other = "its 72 bytes are not those that its content is written as";
    assert_eq!(refused(&changed(&good, root + 38, 0)), other);
    assert_eq!(refused(&changed(&good, root + 18, 1)), other);
    assert_eq!(refused(&changed(&good, root + 40, 2)), other);
}

#[test]
fn an_archive_at_an_odd_address_is_refused() {
    let good = archive(&WalEntry::epoch_barrier(1, 2, 3, 4));
    for shift in 1..ARCHIVE_ALIGNMENT_BYTES {
        let mut shifted = RecordBuffer::new();
        shifted.resize(shift, 0);
        shifted.extend_from_slice(&good);
        let reason = "it stands in memory at an address that is no multiple of 8";
        assert_eq!(refused(&shifted[shift..]), reason);
    }
}

#[test]
fn bytes_before_an_archive_are_refused() {
    let good = archive(&WalEntry::put(1, 2, 3, b"key".to_vec(), b"value".to_vec(), 4));
    for before in [[0; 8], [7; 8]] {
        let mut longer = RecordBuffer::new();
        longer.extend_from_slice(&before);
        longer.extend_from_slice(&good);
        // rkyv itself finds the root at the end and has nothing against what nothing points at.
        let reason = "its 80 bytes are not those that its content is written as";
        assert_eq!(refused(&longer), reason);
    }
}

#[test]
fn sources_out_of_order_or_named_twice_are_refused() {
    let mut offsets = Offsets::new();
    offsets.set("a", 1);
    offsets.set("b", 1);
    let good = archive(&WalEntry::commit(1, 2, 3, offsets, None, 4));
    let reason = "its sources are not sorted by name, each once";
    assert_eq!(refused(&changed(&good, 0, b'c')), reason);
    assert_eq!(refused(&changed(&good, 0, b'b')), reason);
    // The rest of the place of a short name has one encoding too.
    let other = "its 96 bytes are not those that its content is written as";
    assert_eq!(refused(&changed(&good, 2, b'x')), other);
    // Two bytes of a name that are no text.
    let malformed = "a key, value, source or watermark in its 96 bytes is malformed";
    assert_eq!(refused(&changed(&good, 0, 0xc0)), malformed);
}

proptest! {
    #[test]
    fn an_entry_comes_back_as_it_went(entry in any_entry(), earlier in 0..10_usize) {
        let mut buffer = RecordBuffer::new();
        buffer.resize(earlier * ARCHIVE_ALIGNMENT_BYTES, 0xee);
        entry.borrowed().archive_into(&mut buffer);
        let (before, bytes) = buffer.split_at(earlier * ARCHIVE_ALIGNMENT_BYTES);
        prop_assert!(before.iter().all(|byte| *byte == 0xee));
        prop_assert_eq!(bytes.len(), entry.borrowed().archived_bytes());
        prop_assert_eq!(bytes, &rkyv_bytes(&entry)[..]);

        let view = view(bytes);
        prop_assert_eq!(view.to_entry(), entry.clone());
        prop_assert_eq!(view.replay_order(), entry.replay_order());
        prop_assert_eq!((view.key(), view.value()), (entry.key(), entry.value()));
        prop_assert_eq!(view.is_put(), entry.is_put());
        prop_assert_eq!(view.is_delete(), entry.is_delete());
        prop_assert_eq!(view.is_checkpoint(), entry.is_checkpoint());
        prop_assert_eq!(view.is_state_operation(), entry.is_state_operation());
        prop_assert_eq!(
            format!("{view:?}").replace("EntryView", "WalEntry"),
            format!("{entry:?}")
        );
        prop_assert_eq!(entry.borrowed().to_entry(), entry);
    }

    /// Whatever is accepted is the archive of what was read, so a flipped bit that is not seen as
    /// an error is seen as another entry, never as the same one.
    #[test]
    fn a_flipped_byte_is_refused_or_read_as_what_it_says(entry in any_entry(), by in 1..=255_u8) {
        let good = archive(&entry);
        let mut bytes = good.clone();
        for place in 0..bytes.len() {
            bytes[place] ^= by;
            accepts_only_archives(&bytes);
            bytes[place] ^= by;
        }
    }

    #[test]
    fn a_cut_archive_is_no_archive_of_the_entry(entry in any_entry()) {
        let good = archive(&entry);
        for kept in 0..good.len() {
            if let Ok(view) = EntryView::access(&good[..kept]) {
                prop_assert_ne!(view.to_entry(), entry.clone());
            }
            accepts_only_archives(&good[..kept]);
        }
    }

    /// Roots with distances and lengths that mean something: closer to archives than noise is.
    #[test]
    fn made_up_roots_never_panic(
        body in prop::collection::vec(any::<u8>(), 0..6),
        words in prop::collection::vec(prop_oneof![-100..100_i32, any::<i32>()], 16),
        tag in 0..6_u8,
    ) {
        let mut bytes = RecordBuffer::new();
        for byte in body {
            bytes.extend_from_slice(&[byte; 8]);
        }
        let root = bytes.len();
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes[root + 32] = tag;
        accepts_only_archives(&bytes);
    }

    #[test]
    fn order_is_total_and_agrees_with_equality(a in near_entry(), b in near_entry(), c in near_entry()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        prop_assert_eq!(a.partial_cmp(&b), Some(a.cmp(&b)));
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        if a.replay_order() != b.replay_order() {
            prop_assert_eq!(a.cmp(&b), a.replay_order().cmp(&b.replay_order()));
        }
        prop_assert_eq!(a == b, archive(&a)[..] == archive(&b)[..]);
    }

    /// Against a sorted map.
    #[test]
    fn offsets_are_a_sorted_map(
        pairs in prop::collection::vec(("[a-c]{0,2}", any::<u64>()), 0..12),
    ) {
        let model: std::collections::BTreeMap<_, _> = pairs.iter().cloned().collect();
        let mut offsets = Offsets::new();
        for (source, offset) in &pairs {
            offsets.set(source, *offset);
        }
        prop_assert!(offsets.iter().eq(model.iter().map(|(name, offset)| (&**name, *offset))));
        prop_assert_eq!(Offsets::try_from_pairs(pairs.clone()).is_ok(), pairs.len() == model.len());
        prop_assert_eq!(Offsets::try_from_pairs(model), Ok(offsets));
    }
}

/// If `bytes` are accepted, they are what the entry read from them is written as.
fn accepts_only_archives(bytes: &[u8]) {
    if let Ok(view) = EntryView::access(bytes) {
        let entry = view.to_entry();
        assert_eq!(&archive(&entry)[..], bytes, "{view:?}");
        assert_eq!(&rkyv_bytes(&entry)[..], bytes, "{view:?}");
    }
}

fn archive(entry: &WalEntry) -> RecordBuffer {
    let mut buffer = RecordBuffer::new();
    entry.borrowed().archive_into(&mut buffer);
    buffer
}

/// What rkyv's own serializer makes of the entry.
fn rkyv_bytes(entry: &WalEntry) -> rkyv::util::AlignedVec {
    rkyv::api::high::to_bytes::<rkyv::rancor::Error>(entry).unwrap()
}

fn view(bytes: &[u8]) -> EntryView<'_> {
    EntryView::access(bytes).unwrap()
}

fn changed(bytes: &RecordBuffer, place: usize, byte: u8) -> RecordBuffer {
    let mut bytes = bytes.clone();
    bytes[place] = byte;
    bytes
}

fn refused(bytes: &[u8]) -> String {
    let error = EntryView::access(bytes).unwrap_err().to_string();
    error.strip_prefix("not the archive of an entry: ").unwrap().to_owned()
}

prop_compose! {
    fn any_entry()(
        epoch in any::<u64>(),
        sequence in any::<u64>(),
        core_id in any::<u16>(),
        timestamp_ns in any::<i64>(),
        operation in any_operation(),
    ) -> WalEntry {
        WalEntry { epoch, sequence, core_id, timestamp_ns, operation }
    }
}

prop_compose! {
    /// Entries that often agree in some of their fields.
    fn near_entry()(
        epoch in 0..2_u64,
        sequence in 0..2_u64,
        core_id in 0..2_u16,
        timestamp_ns in 0..2_i64,
        operation in prop_oneof![
            (0..2_u8).prop_map(|byte| WalOperation::Delete { key: vec![byte] }),
            (0..2_u64).prop_map(|id| WalOperation::Checkpoint { id }),
        ],
    ) -> WalEntry {
        WalEntry { epoch, sequence, core_id, timestamp_ns, operation }
    }
}

fn any_operation() -> impl Strategy<Value = WalOperation> {
    let key = || prop::collection::vec(any::<u8>(), 0..40);
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let sources = prop::collection::btree_map(".{0,20}|[a-z]{5,12}|n{60,70}", any::<u64>(), 0..6);
    prop_oneof![
        (key(), value).prop_map(|(key, value)| WalOperation::Put { key, value }),
        key().prop_map(|key| WalOperation::Delete { key }),
        any::<u64>().prop_map(|id| WalOperation::Checkpoint { id }),
        (sources, any::<Option<i64>>()).prop_map(|(sources, watermark)| {
            let offsets = Offsets::try_from_pairs(sources).unwrap();
            WalOperation::Commit { offsets, watermark }
        }),
        any::<u64>().prop_map(|epoch| WalOperation::EpochBarrier { epoch }),
    ]
}
