//! Any bytes as an entry's archive: refused, or the one archive of the entry that they say.

use wal_entry::{EntryView, Offsets, OperationView, RecordBuffer, WalEntry, WalOperation};

use crate::input::Input;

/// The input is read twice. First all of it is an archive. Then it describes an entry, and edits
/// of three bytes each to its archive: where (16 bits), and what to exclusive-or there.
///
/// An archive that is accepted has the very bytes that its entry is archived as; all getters say
/// the same as the entry; the entry holds no more bytes than the archive. A described entry is
/// read back as it was; with each edit its archive is refused, or becomes that of another entry.
///
/// # Panics
///
/// If a property does not hold.
pub fn archived_entry(input: &[u8]) {
    check_archive(&aligned(input));

    let mut input = Input::new(input);
    let Some(entry) = described_entry(&mut input) else { return };
    let mut archive = archive_of(&entry);
    assert_eq!(archive.len(), entry.borrowed().archived_bytes(), "its length was foretold");
    assert_eq!(check_archive(&archive).as_ref(), Some(&entry), "it is read back as it was");
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            return;
        }
        let at = input.size() % archive.len();
        let Some(byte) = archive.get_mut(at) else { return };
        *byte ^= input.u8();
        if let Some(other) = check_archive(&archive) {
            let is_same = archive.as_slice() == archive_of(&entry).as_slice();
            assert_eq!(is_same, entry == other, "equal entries, and no others, have equal bytes");
            check_order(&entry, &other);
        }
    }
}

const EDITS_MAX: usize = 32;

/// The entry in the archive, checked, if it is one.
fn check_archive(archive: &RecordBuffer) -> Option<WalEntry> {
    let view = EntryView::access(archive).ok()?;
    let entry = view.to_entry();
    assert_eq!(archive_of(&entry).as_slice(), archive.as_slice(), "an entry has one archive");
    assert!(held_bytes(&entry) <= archive.len(), "it holds what its archive pays for");
    check_getters(&view, &entry);
    Some(entry)
}

fn check_getters(view: &EntryView<'_>, entry: &WalEntry) {
    let numbers = (entry.epoch, entry.sequence, entry.core_id, entry.timestamp_ns);
    assert_eq!((view.epoch(), view.sequence(), view.core_id(), view.timestamp_ns()), numbers);
    assert_eq!(view.replay_order(), entry.replay_order());
    assert_eq!(entry.borrowed().replay_order(), entry.replay_order());
    assert_eq!((view.key(), view.value()), (entry.key(), entry.value()));
    let asked = [view.is_put(), view.is_delete(), view.is_checkpoint(), view.is_state_operation()];
    let kinds =
        [entry.is_put(), entry.is_delete(), entry.is_checkpoint(), entry.is_state_operation()];
    assert_eq!(asked, kinds);
    match (view.operation(), &entry.operation) {
        (OperationView::Put { key, value }, WalOperation::Put { key: k, value: v }) => {
            assert_eq!((key, value), (k.as_slice(), v.as_slice()));
        }
        (OperationView::Delete { key }, WalOperation::Delete { key: k }) => assert_eq!(key, k),
        (OperationView::Checkpoint { id }, WalOperation::Checkpoint { id: i }) => {
            assert_eq!(id, *i);
        }
        (
            OperationView::Commit { offsets, watermark },
            WalOperation::Commit { offsets: owned, watermark: owned_watermark },
        ) => {
            assert!(offsets.iter().eq(owned.iter()));
            assert_eq!((offsets.len(), offsets.is_empty()), (owned.len(), owned.is_empty()));
            assert!(offsets.iter().all(|(source, offset)| offsets.get(source) == Some(offset)));
            assert!(owned.iter().is_sorted_by(|a, b| a.0 < b.0), "sorted, each source once");
            assert_eq!(watermark, *owned_watermark);
        }
        (OperationView::EpochBarrier { epoch }, WalOperation::EpochBarrier { epoch: e }) => {
            assert_eq!(epoch, *e);
        }
        (operation, owned) => panic!("{operation:?} became {owned:?}"),
    }
}

/// The order is total, agrees with the replay order, and says `Equal` of equal entries alone.
fn check_order(a: &WalEntry, b: &WalEntry) {
    assert_eq!(a.cmp(b), b.cmp(a).reverse());
    assert_eq!(a.cmp(b).is_eq(), a == b);
    let by_place = a.replay_order().cmp(&b.replay_order());
    assert!(by_place.is_eq() || by_place == a.cmp(b));
}

/// The sizes of everything that an entry owns.
pub(crate) fn held_bytes(entry: &WalEntry) -> usize {
    match &entry.operation {
        WalOperation::Put { key, value } => key.len() + value.len(),
        WalOperation::Delete { key } => key.len(),
        WalOperation::Commit { offsets, .. } => {
            offsets.iter().map(|(source, _)| source.len() + size_of::<u64>()).sum()
        }
        WalOperation::Checkpoint { .. } | WalOperation::EpochBarrier { .. } => 0,
    }
}

fn described_entry(input: &mut Input<'_>) -> Option<WalEntry> {
    let kind = input.u8();
    Some(WalEntry {
        epoch: input.u64(),
        sequence: input.u64(),
        core_id: input.u16(),
        timestamp_ns: input.i64(),
        operation: described_operation(kind, input)?,
    })
}

/// `None` for offsets that name a source twice, which must be refused.
fn described_operation(kind: u8, input: &mut Input<'_>) -> Option<WalOperation> {
    let bytes = |input: &mut Input<'_>| {
        let length = input.u8().into();
        input.bytes(length).to_vec()
    };
    Some(match kind % 5 {
        0 => WalOperation::Put { key: bytes(input), value: bytes(input) },
        1 => WalOperation::Delete { key: bytes(input) },
        2 => WalOperation::Checkpoint { id: input.u64() },
        3 => WalOperation::EpochBarrier { epoch: input.u64() },
        _ => {
            let watermark = (input.u8() % 2 == 1).then(|| input.i64());
            let count = input.u8() % 16;
            let pairs: Vec<(String, u64)> = (0..count)
                .map(|_| (String::from_utf8_lossy(&bytes(input)).into_owned(), input.u64()))
                .collect();
            WalOperation::Commit { offsets: offsets_of(pairs)?, watermark }
        }
    })
}

fn offsets_of(pairs: Vec<(String, u64)>) -> Option<Offsets> {
    let mut set_one_by_one = Offsets::new();
    pairs.iter().for_each(|(source, offset)| set_one_by_one.set(source, *offset));
    let count = pairs.len();
    match Offsets::try_from_pairs(pairs.iter().cloned()) {
        Ok(offsets) => {
            assert_eq!((offsets.len(), &offsets), (count, &set_one_by_one));
            Some(offsets)
        }
        Err(duplicate) => {
            let named = pairs.iter().filter(|(source, _)| *source == duplicate.source_name);
            assert!(named.count() > 1, "{duplicate}");
            None
        }
    }
}

fn archive_of(entry: &WalEntry) -> RecordBuffer {
    let mut archive = RecordBuffer::new();
    entry.borrowed().archive_into(&mut archive);
    archive
}

fn aligned(bytes: &[u8]) -> RecordBuffer {
    let mut aligned = RecordBuffer::new();
    aligned.extend_from_slice(bytes);
    aligned
}
