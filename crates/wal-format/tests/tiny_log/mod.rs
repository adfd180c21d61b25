//! The whole log of one core, as small as a log can be: what `docs/format.md` shows byte by byte,
//! and `golden.rs` freezes.
//!
//! Its story: an opening logged a put; the core was quiet for a second and vouched; then came an
//! atomic batch of two entries and an epoch barrier; the log was closed.

use wal_format::{
    BLOCK_BYTES, Block, Features, Identity, LogId, Manifest, Mark, Membership, RecordKind,
    SEGMENT_BYTES_MIN, Start, VouchSlot, encode_batch_entry_header, encode_record_header,
};

pub(crate) const LOG_ID: LogId = LogId(*b"a tiny test log!");
pub(crate) const SALT: u64 = 0x0123_4567_89ab_cdef;

/// Put "user-1" = "active": sequence 0.
pub(crate) const PUT: &str = "
    757365722d316163 7469766500000000
    0000000000000000 0000000000000000
    0300000000000000 0000f323845bd718
    00000000ccffffff 06000000caffffff
    0600000000000000 0000000000000000
";

/// Delete "user-1": sequence 1.
pub(crate) const DELETE: &str = "
    757365722d310000 0000000000000000
    0100000000000000 0300000000000000
    002f5b7d845bd718 01000000d4ffffff
    0600000000000000 0000000000000000
    0000000000000000
";

/// Put "user-2" = "idle": sequence 2.
pub(crate) const SECOND_PUT: &str = "
    757365722d326964 6c65000000000000
    0000000000000000 0200000000000000
    0300000000000000 012f5b7d845bd718
    00000000ccffffff 06000000caffffff
    0400000000000000 0000000000000000
";

/// The barrier of epoch 0: sequence 3.
pub(crate) const BARRIER: &str = "
    0000000000000000 0300000000000000
    0300000000000000 022f5b7d845bd718
    0400000000000000 0000000000000000
    0000000000000000 0000000000000000
";

/// `MANIFEST.0` and `MANIFEST.1`, up to where the rest is zero.
pub(crate) fn manifest() -> Manifest {
    Manifest {
        number: 1,
        log_id: LOG_ID,
        features: Features::NONE,
        members: vec![Membership { first_epoch: 0, first_core: 3, core_count: 1 }],
        checkpoint: None,
        releases: vec![],
        cuts: vec![],
        accepted_damage: vec![],
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        log_id: LOG_ID,
        core: 3,
        segment_id: 1,
        size_bytes: SEGMENT_BYTES_MIN,
        payload_type: 1,
        payload_version: 1,
        max_record_bytes: 16 * 1024 * 1024,
        features: Features::NONE,
        salt: SALT,
        created_ns: 1_790_000_000_000_000_000,
    }
}

pub(crate) const START: Start = Start {
    predecessor: None,
    base_position: 0,
    base_sequence: 0,
    last_epoch: 0,
    last_timestamp_ns: i64::MIN,
    manifest_number: 1,
};

/// The slot written after the quiet second, and the one written when the log was closed.
pub(crate) const VOUCHES: [VouchSlot; 2] = [
    VouchSlot { counter: 1, durable_position: 88, epoch: 0, manifest_number: 1, closed: false },
    VouchSlot { counter: 2, durable_position: 360, epoch: 0, manifest_number: 1, closed: true },
];

pub(crate) const MARK: Mark = Mark { durable_position: 88, epoch: 0 };

/// The file `core-0003/00000000000000000001.wal`.
pub(crate) fn segment() -> Vec<u8> {
    let mut vouch_block = Block::ZERO;
    for slot in VOUCHES {
        slot.encode_into(&mut vouch_block, SALT);
    }
    let mut file = Vec::new();
    file.extend_from_slice(identity().encode().as_bytes());
    file.extend_from_slice(START.encode(SALT).as_bytes());
    file.extend_from_slice(vouch_block.as_bytes());
    file.extend(record(RecordKind::Entry, &bytes(PUT), SALT, 0));
    file.extend(MARK.encode(SALT, 88));
    file.extend(record(RecordKind::Batch, &batch(&[DELETE, SECOND_PUT]), SALT, 112));
    file.extend(record(RecordKind::Entry, &bytes(BARRIER), SALT, 288));
    file.resize(SEGMENT_BYTES_MIN.try_into().unwrap(), 0);
    assert_eq!(file.len() % BLOCK_BYTES, 0);
    file
}

/// The payload of an atomic batch of these archives.
pub(crate) fn batch(archives: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    for archive in archives {
        let archive = bytes(archive);
        payload.extend(encode_batch_entry_header(archive.len()).unwrap());
        payload.extend(archive);
    }
    payload
}

pub(crate) fn record(kind: RecordKind, payload: &[u8], salt: u64, position: u64) -> Vec<u8> {
    let header = encode_record_header(kind, payload, salt, position).unwrap();
    [header.as_slice(), payload].concat()
}

/// The bytes that hexadecimal digits name; white space between them means nothing.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "half a byte at the end of {hex}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}
