//! The bytes of format version 1, structure by structure.
//!
//! These are frozen for ever: logs on disk hold them, and every later version has to read and write
//! the same. If one of these tests fails, the change that broke it is wrong, not the test.
//! `docs/format.md` says what each byte is for.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint does not know as such")]

mod tiny_log;

use tiny_log::{
    BARRIER, DELETE, MARK, PUT, SALT, SECOND_PUT, START, VOUCHES, batch, bytes, record,
};
use wal_format::{
    AcceptedDamage, BLOCK_BYTES, BatchEntries, Block, Checkpoint, CheckpointCore, Cut, Features,
    Identity, LogId, Manifest, Mark, Membership, Predecessor, RecordKind, Release, Seal,
    SegmentBytes, SourceOffset, Start, Unreadable, VOUCH_SLOT_BYTES, VouchSlot, crc32c_append,
    decode_record, newest_vouch,
};

const LIMIT: u32 = 4096;
const OTHER_SALT: u64 = 0xfedc_ba98_7654_3210;

#[test]
fn identity() {
    check_identity(
        &tiny_log::identity(),
        "
        6c616d696e617253 0100000000100000
        f9014f3c00000000 612074696e792074
        657374206c6f6721 0300000001000000
        0100000000000000 0060000000000000
        0010000000000001 0100000001000000
        0000000000000000 0000000000000000
        0000000000000000 efcdab8967452301
        0000f323845bd718
        ",
    );
}

#[test]
fn identity_with_extreme_numbers_and_features_that_readers_may_ignore() {
    check_identity(
        &Identity {
            log_id: LogId([0xff; 16]),
            core: u16::MAX,
            segment_id: u64::MAX,
            size_bytes: u64::MAX - 4095,
            payload_type: u32::MAX,
            payload_version: u32::MAX,
            max_record_bytes: (1 << 28) - 8,
            features: Features { incompatible: 0, read_compatible: 1, compatible: 1 << 63 },
            salt: OTHER_SALT,
            created_ns: -1,
        },
        "
        6c616d696e617253 0100000000100000
        13e528c400000000 ffffffffffffffff
        ffffffffffffffff ffff000001000000
        ffffffffffffffff 00f0ffffffffffff
        00100000f8ffff0f ffffffffffffffff
        0000000000000000 0100000000000000
        0000000000000080 1032547698badcfe
        ffffffffffffffff
        ",
    );
}

#[test]
fn start_of_a_log() {
    check_start(
        &START,
        "
        98068b7653545254 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 0000000000000080
        0100000000000000
        ",
    );
}

#[test]
fn start_with_predecessor() {
    check_start(
        &Start {
            predecessor: Some(Predecessor {
                segment_id: 0x0102_0304_0506_0708,
                salt: OTHER_SALT,
                end_position: 0x1112_1314_1516_1718,
            }),
            base_position: 0x1112_1314_1516_1718,
            base_sequence: 0x2122_2324_2526_2728,
            last_epoch: 0x3132_3334_3536_3738,
            last_timestamp_ns: 0x4142_4344_4546_4748,
            manifest_number: 0x5152_5354_5556_5758,
        },
        "
        1455663d53545254 0807060504030201
        1032547698badcfe 1817161514131211
        1817161514131211 2827262524232221
        3837363534333231 4847464544434241
        5857565554535251
        ",
    );
}

#[test]
fn vouch_block_with_two_slots() {
    check_vouch_block(
        VOUCHES,
        "
        5a79755356434831 0200000000000000
        6801000000000000 0000000000000000
        0100000000000000 0100000000000000
        ",
        "
        790773d556434831 0100000000000000
        5800000000000000 0000000000000000
        0100000000000000
        ",
    );
}

#[test]
fn vouch_block_with_large_numbers() {
    let slot = |counter, closed| VouchSlot {
        counter,
        durable_position: 0x1112_1314_1516_1718,
        epoch: 0x2122_2324_2526_2728,
        manifest_number: 0x3132_3334_3536_3738,
        closed,
    };
    check_vouch_block(
        [slot(0x0102_0304_0506_0709, true), slot(0x0102_0304_0506_070a, false)],
        "
        7d3cd72d56434831 0a07060504030201
        1817161514131211 2827262524232221
        3837363534333231
        ",
        "
        9d36db8256434831 0907060504030201
        1817161514131211 2827262524232221
        3837363534333231 0100000000000000
        ",
    );
}

#[test]
fn entry() {
    check_record(
        RecordKind::Entry,
        &bytes(PUT),
        0,
        "
        50000010488201d8 757365722d316163
        7469766500000000 0000000000000000
        0000000000000000 0300000000000000
        0000f323845bd718 00000000ccffffff
        06000000caffffff 0600000000000000
        0000000000000000
        ",
    );
}

#[test]
fn entry_at_another_place() {
    check_record(
        RecordKind::Entry,
        &bytes(PUT),
        0x0102_0304_0506_0708,
        "
        5000001071ee2525 757365722d316163
        7469766500000000 0000000000000000
        0000000000000000 0300000000000000
        0000f323845bd718 00000000ccffffff
        06000000caffffff 0600000000000000
        0000000000000000
        ",
    );
}

#[test]
fn batch_of_opaque_entries() {
    let payload = batch(&["6f6e6520656e7472", "616e6f74686572206f66203136206279"]);
    check_record(
        RecordKind::Batch,
        &payload,
        64,
        "
        28000020fa9fddd6 0800000000000000
        6f6e6520656e7472 1000000000000000
        616e6f7468657220 6f66203136206279
        ",
    );
    let entries: Vec<_> = BatchEntries::new(&payload).collect();
    assert_eq!(entries, [Some(b"one entr".as_slice()), Some(b"another of 16 by")]);
}

#[test]
fn batch_of_archives() {
    let payload = batch(&[DELETE, SECOND_PUT]);
    check_record(
        RecordKind::Batch,
        &payload,
        112,
        "
        a8000020c80a03fb 4800000000000000
        757365722d310000 0000000000000000
        0100000000000000 0300000000000000
        002f5b7d845bd718 01000000d4ffffff
        0600000000000000 0000000000000000
        0000000000000000 5000000000000000
        757365722d326964 6c65000000000000
        0000000000000000 0200000000000000
        0300000000000000 012f5b7d845bd718
        00000000ccffffff 06000000caffffff
        0400000000000000 0000000000000000
        ",
    );
    let entries: Vec<_> = BatchEntries::new(&payload).flatten().map(<[u8]>::to_vec).collect();
    assert_eq!(entries, [bytes(DELETE), bytes(SECOND_PUT)]);
}

#[test]
fn mark() {
    let expected = "
        100000305a1b907c 5800000000000000
        0000000000000000
        ";
    assert_bytes("the mark", &MARK.encode(SALT, 88), expected);
    let bytes = bytes(expected);
    let record = decode_record(&bytes, SALT, 88, LIMIT).unwrap();
    assert_eq!((record.kind, record.end_position()), (RecordKind::Mark, 112));
    assert_eq!(Mark::decode(record.payload), Some(MARK));
}

#[test]
fn seal() {
    let expected = "
        08000040525cf838 0807060504030201
        ";
    let seal = Seal { next_sequence: 0x0102_0304_0506_0708 };
    assert_bytes("the seal", &seal.encode(SALT, 360), expected);
    let bytes = bytes(expected);
    let record = decode_record(&bytes, SALT, 360, LIMIT).unwrap();
    assert_eq!((record.kind, record.end_position()), (RecordKind::Seal, 360));
    assert_eq!(Seal::decode(record.payload), Some(seal));
}

#[test]
fn kinds_to_come() {
    check_record(
        RecordKind::Unknown(7),
        b"extended",
        8,
        "
        08000070e7afbee6 657874656e646564
        ",
    );
    check_record(
        RecordKind::Skippable(15),
        b"",
        8,
        "
        000000f0ebd9d7ea
        ",
    );
}

#[test]
fn manifest_of_a_new_log() {
    check_manifest(
        &tiny_log::manifest(),
        "
        6c616d696e61724d 0100000088000000
        fb4a7e9500000000 612074696e792074
        657374206c6f6721 0100000000000000
        0000000000000000 0000000000000000
        0000000000000000 0100000000000000
        0000000000000000 0300000000000000
        0100000000000000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000
        ",
    );
}

#[test]
fn manifest_with_everything() {
    check_manifest(
        &Manifest {
            number: 0x0102_0304_0506_0708,
            log_id: LogId([
                0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff,
            ]),
            features: Features { incompatible: 0, read_compatible: 1, compatible: 1 << 63 },
            members: vec![
                Membership { first_epoch: 0, first_core: 0, core_count: 65536 },
                Membership { first_epoch: 9, first_core: 2, core_count: 2 },
            ],
            checkpoint: Some(Checkpoint {
                id: 70,
                epoch: 8,
                cores: vec![
                    CheckpointCore { core: 2, position: 4096, sequence: 17, timestamp_ns: -3 },
                    CheckpointCore { core: 3, position: 512, sequence: 5, timestamp_ns: 1 << 60 },
                ],
                source_offsets: vec![
                    SourceOffset { source: String::new(), offset: 5 },
                    SourceOffset { source: "orders/0".into(), offset: 6 },
                    SourceOffset { source: "orders/10".into(), offset: u64::MAX },
                ],
                watermark: Some(-2),
            }),
            releases: vec![Release {
                core: 2,
                position: 1024,
                last_epoch: 7,
                last_timestamp_ns: -4,
            }],
            cuts: vec![
                Cut {
                    core: 3,
                    position: 8192,
                    sequence: 40,
                    dead_segment_id: 6,
                    last_epoch: 9,
                    last_timestamp_ns: 5,
                },
                Cut {
                    core: 3,
                    position: 9000,
                    sequence: 41,
                    dead_segment_id: 8,
                    last_epoch: 10,
                    last_timestamp_ns: 6,
                },
            ],
            accepted_damage: vec![AcceptedDamage {
                core: 2,
                position: 2048,
                end_position: 2056,
                segment_id: 2,
            }],
        },
        "
        6c616d696e61724d 01000000f8010000
        cbd30e3d00000000 0011223344556677
        8899aabbccddeeff 0807060504030201
        0000000000000000 0100000000000000
        0000000000000080 0200000000000000
        0000000000000000 0000000000000000
        0000010000000000 0900000000000000
        0200000000000000 0200000000000000
        0100000000000000 4600000000000000
        0800000000000000 0100000000000000
        feffffffffffffff 0200000000000000
        0200000000000000 0010000000000000
        1100000000000000 fdffffffffffffff
        0300000000000000 0002000000000000
        0500000000000000 0000000000000010
        0300000000000000 0000000000000000
        0500000000000000 0800000000000000
        6f72646572732f30 0600000000000000
        0900000000000000 6f72646572732f31
        3000000000000000 ffffffffffffffff
        0100000000000000 0200000000000000
        0004000000000000 0700000000000000
        fcffffffffffffff 0200000000000000
        0300000000000000 0020000000000000
        2800000000000000 0600000000000000
        0900000000000000 0500000000000000
        0300000000000000 2823000000000000
        2900000000000000 0800000000000000
        0a00000000000000 0600000000000000
        0100000000000000 0200000000000000
        0008000000000000 0808000000000000
        0200000000000000
        ",
    );
}

#[test]
fn manifest_with_an_empty_checkpoint() {
    let checkpoint =
        Checkpoint { id: 0, epoch: 0, cores: vec![], source_offsets: vec![], watermark: None };
    check_manifest(
        &Manifest { checkpoint: Some(checkpoint), ..tiny_log::manifest() },
        "
        6c616d696e61724d 01000000b0000000
        3136587b00000000 612074696e792074
        657374206c6f6721 0100000000000000
        0000000000000000 0000000000000000
        0000000000000000 0100000000000000
        0000000000000000 0300000000000000
        0100000000000000 0100000000000000
        0000000000000000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 0000000000000000
        0000000000000000 0000000000000000
        ",
    );
}

/// Every byte of a file, from blocks that are frozen above and records that are frozen here.
#[test]
fn a_whole_segment() {
    let written = tiny_log::segment();
    let parts = [
        (
            0,
            "
            6c616d696e617253 0100000000100000
            f9014f3c00000000 612074696e792074
            657374206c6f6721 0300000001000000
            0100000000000000 0060000000000000
            0010000000000001 0100000001000000
            0000000000000000 0000000000000000
            0000000000000000 efcdab8967452301
            0000f323845bd718
            ",
        ),
        (
            4096,
            "
            98068b7653545254 0000000000000000
            0000000000000000 0000000000000000
            0000000000000000 0000000000000000
            0000000000000000 0000000000000080
            0100000000000000
            ",
        ),
        (
            8192,
            "
            5a79755356434831 0200000000000000
            6801000000000000 0000000000000000
            0100000000000000 0100000000000000
            ",
        ),
        (
            10240,
            "
            790773d556434831 0100000000000000
            5800000000000000 0000000000000000
            0100000000000000
            ",
        ),
        (
            12288,
            "
            50000010488201d8 757365722d316163
            7469766500000000 0000000000000000
            0000000000000000 0300000000000000
            0000f323845bd718 00000000ccffffff
            06000000caffffff 0600000000000000
            0000000000000000
            100000305a1b907c 5800000000000000
            0000000000000000
            a8000020c80a03fb 4800000000000000
            757365722d310000 0000000000000000
            0100000000000000 0300000000000000
            002f5b7d845bd718 01000000d4ffffff
            0600000000000000 0000000000000000
            0000000000000000 5000000000000000
            757365722d326964 6c65000000000000
            0000000000000000 0200000000000000
            0300000000000000 012f5b7d845bd718
            00000000ccffffff 06000000caffffff
            0400000000000000 0000000000000000
            40000010f0d58268 0000000000000000
            0300000000000000 0300000000000000
            022f5b7d845bd718 0400000000000000
            0000000000000000 0000000000000000
            0000000000000000
            ",
        ),
    ];
    let mut expected = vec![0; 24576];
    for (at, part) in parts {
        let part = bytes(part);
        expected[at..at + part.len()].copy_from_slice(&part);
    }
    assert!(written == expected, "the segment is now\n{}", hex(&written[12288..12288 + 360]));

    let segment = SegmentBytes::parse(&expected).unwrap();
    assert_eq!(segment.identity(), &tiny_log::identity());
    assert_eq!(segment.start(), Ok(&START));
    assert_eq!(segment.newest_vouch(), Some(&VOUCHES[1]));
    let mut records = segment.records();
    let found: Vec<_> = (&mut records).map(|record| (record.position, record.kind)).collect();
    let kinds = [
        (0, RecordKind::Entry),
        (88, RecordKind::Mark),
        (112, RecordKind::Batch),
        (288, RecordKind::Entry),
    ];
    assert_eq!(found, kinds);
    assert_eq!((records.position(), records.ended_by()), (360, Unreadable::Unwritten));
    assert_eq!(segment.records().last().map(|record| record.payload), Some(&bytes(BARRIER)[..]));
}

/// Every other checksum here is made with this function.
#[test]
fn checksum() {
    assert_eq!(crc32c_append(0, b"123456789"), 0xe306_9283);
    assert_eq!(crc32c_append(0x1234_5678, b"123456789"), 0x27d8_7b6a);
}

fn check_identity(identity: &Identity, expected: &str) {
    let block = padded(expected, BLOCK_BYTES);
    assert_bytes("the identity block", front(identity.encode().as_bytes()), expected);
    assert_eq!(Identity::decode(&block).as_ref(), Ok(identity));
}

fn check_start(start: &Start, expected: &str) {
    let block = padded(expected, BLOCK_BYTES);
    assert_bytes("the start block", front(start.encode(SALT).as_bytes()), expected);
    assert_eq!(Start::decode(&block, SALT).as_ref(), Ok(start));
}

/// `even` is the slot at byte 0, `odd` the one at byte 2048.
fn check_vouch_block(slots: [VouchSlot; 2], even: &str, odd: &str) {
    let mut block = Block::ZERO;
    for slot in slots {
        slot.encode_into(&mut block, SALT);
    }
    let (written_even, written_odd) = block.as_bytes().split_at(VOUCH_SLOT_BYTES);
    assert_bytes("the even slot", front(written_even), even);
    assert_bytes("the odd slot", front(written_odd), odd);

    let [even, odd] = [even, odd].map(|slot| padded(slot, VOUCH_SLOT_BYTES));
    let decoded = [&even, &odd].map(|slot| VouchSlot::decode(slot, SALT).unwrap());
    for slot in slots {
        assert_eq!(decoded[usize::from(slot.counter % 2 == 1)], slot);
    }
    let newest = slots.into_iter().max_by_key(|slot| slot.counter);
    assert_eq!(newest_vouch(&[even, odd].concat(), SALT), newest);
}

fn check_record(kind: RecordKind, payload: &[u8], position: u64, expected: &str) {
    let written = record(kind, payload, SALT, position);
    assert_bytes(&format!("the {kind:?} record"), &written, expected);
    let expected = bytes(expected);
    let decoded = decode_record(&expected, SALT, position, LIMIT).unwrap();
    assert_eq!((decoded.position, decoded.kind, decoded.payload), (position, kind, payload));
}

fn check_manifest(manifest: &Manifest, expected: &str) {
    assert_bytes("the manifest", &manifest.encode().unwrap(), expected);
    assert_eq!(Manifest::decode(&bytes(expected)).as_ref(), Ok(manifest));
}

fn assert_bytes(what: &str, written: &[u8], expected: &str) {
    assert!(written == bytes(expected), "{what} is now\n{}", hex(written));
}

/// `bytes` without the zeroes at their end, up to a multiple of eight bytes.
fn front(bytes: &[u8]) -> &[u8] {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..used.next_multiple_of(8)]
}

/// The bytes that the digits in `front` name, and zeroes up to `length`.
fn padded(front: &str, length: usize) -> Vec<u8> {
    let mut block = bytes(front);
    block.resize(length, 0);
    block
}

/// Eight bytes in a group, two groups in a line.
fn hex(bytes: &[u8]) -> String {
    let group = |group: &[u8]| group.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |line: &[u8]| line.chunks(8).map(group).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}
