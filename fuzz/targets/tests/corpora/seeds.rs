//! The inputs with which the fuzzers begin: one for each thing that a target knows how to do.

use wal_entry::{Offsets, RecordBuffer, WalEntry};
use wal_format::{
    AcceptedDamage, Checkpoint, CheckpointCore, Cut, Features, LogId, Manifest, Membership,
    Release, SourceOffset,
};

/// Target, name and bytes of every seed.
pub(crate) fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, of_target: Vec<(&'static str, Vec<u8>)>| {
        seeds.extend(of_target.into_iter().map(|(name, bytes)| (target, name, bytes)));
    };
    add("append_crash_recover", stories());
    add("archived_entry", archives());
    add("manifest", manifests());
    add("open_directory", directories());
    add("record_decode", records());
    add("segment_scan", scans());
    seeds
}

/// The archive of an entry of each kind, and descriptions of entries with edits behind them.
fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let archive = |entry: WalEntry| {
        let mut buffer = RecordBuffer::new();
        entry.borrowed().archive_into(&mut buffer);
        buffer.to_vec()
    };
    let mut offsets = Offsets::new();
    offsets.set("short", 7);
    offsets.set("a name of more than eight bytes", 8);
    let described = |kind: u8, operation: &[u8], edits: &[u8]| {
        let numbers = [&[kind][..], &[1; 8], &[2; 8], &[3; 2], &[4; 8]].concat();
        [&numbers, operation, edits].concat()
    };
    vec![
        ("put", archive(WalEntry::put(1, 2, 3, b"key".to_vec(), b"value".to_vec(), 4))),
        ("delete", archive(WalEntry::delete(1, 2, 3, b"a key".to_vec(), 4))),
        ("checkpoint", archive(WalEntry::checkpoint(1, 2, 3, 9, 4))),
        ("commit", archive(WalEntry::commit(1, 2, 3, offsets, Some(-5), 4))),
        ("epoch_barrier", archive(WalEntry::epoch_barrier(1, 2, 3, 4))),
        ("described_put", described(0, b"\x03key\x05value", &[])),
        ("described_put_edited", described(0, b"\x03key\x05value", &[0, 0, 1, 16, 0, 1, 40, 0, 2])),
        (
            "described_commit",
            described(
                4,
                b"\x01\x06\0\0\0\0\0\0\0\x02\x01a\x01\0\0\0\0\0\0\0\x0aten letter\x02",
                &[],
            ),
        ),
        (
            "described_commit_that_names_a_source_twice",
            described(4, b"\x00\x02\x01a\x01\0\0\0\0\0\0\0\x01a\x02\0\0\0\0\0\0\0", &[]),
        ),
    ]
}

fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    let empty = Manifest {
        number: 1,
        log_id: LogId(*b"a log for fuzzes"),
        features: Features::NONE,
        members: vec![Membership { first_epoch: 0, first_core: 0, core_count: 2 }],
        checkpoint: None,
        releases: Vec::new(),
        cuts: Vec::new(),
        accepted_damage: Vec::new(),
    };
    let source_offsets = vec![SourceOffset { source: "orders".to_owned(), offset: 9 }];
    let place = CheckpointCore { core: 1, position: 512, sequence: 3, timestamp_ns: 4 };
    let full = Manifest {
        number: 7,
        checkpoint: Some(Checkpoint {
            id: 5,
            epoch: 3,
            cores: vec![place],
            source_offsets,
            watermark: Some(6),
        }),
        releases: vec![Release { core: 0, position: 64, last_epoch: 2, last_timestamp_ns: 8 }],
        cuts: vec![Cut {
            core: 1,
            position: 1024,
            sequence: 6,
            dead_segment_id: 4,
            last_epoch: 3,
            last_timestamp_ns: 9,
        }],
        accepted_damage: vec![AcceptedDamage {
            core: 0,
            position: 128,
            end_position: 256,
            segment_id: 2,
        }],
        ..empty.clone()
    };
    let of_a_newer_version = |at: usize| {
        let mut bytes = empty.encode().unwrap();
        bytes[at] = 2;
        bytes
    };
    // Flags, number, log id, members, checkpoint, releases, cuts, damage: as the target reads them.
    let described = [
        &[0x20, 3, 9][..],
        &[1, 0, 0, 0, 2, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 64, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0],
        &[1, 5, b'a', b'b', b'c', b'd', b'e', 1, 0, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 16, 0, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 8, 0, 1],
        &[1, 2, 3, 4, 10, 0, 200, 0, 44, 1, 130, 0, 80, 0],
    ];
    vec![
        ("new", empty.encode().unwrap()),
        ("of_everything_one", full.encode().unwrap()),
        ("behind_a_longer_one", [&empty.encode().unwrap()[..], &[0xff; 24]].concat()),
        ("of_version_2", of_a_newer_version(8)),
        ("of_an_unknown_feature", of_a_newer_version(48)),
        ("described", described.concat()),
    ]
}

/// What may be done to a directory, by the numbers that the target has for it.
mod edit {
    pub(super) const TURN_BYTES: u8 = 0;
    pub(super) const CUT: u8 = 2;
    pub(super) const REMOVE: u8 = 4;
    pub(super) const SWAP: u8 = 5;
    pub(super) const RENAME: u8 = 6;
    pub(super) const COPY: u8 = 7;
    pub(super) const ADD: u8 = 8;
    pub(super) const MAKE_DIRECTORY: u8 = 9;
    pub(super) const ZERO: u8 = 10;
    pub(super) const COPY_BLOCK: u8 = 11;
    pub(super) const REPAIR: u8 = 12;
    pub(super) const SET_FIELD: u8 = 13;
    pub(super) const WRITE_ENTRY: u8 = 14;
    pub(super) const WRITE_MANIFEST: u8 = 15;
}

/// First which log, and how it is opened; then the edits. Files count in order of their names,
/// the two manifest slots first.
fn directories() -> Vec<(&'static str, Vec<u8>)> {
    use edit::*;
    const BUILT: u8 = 0;
    const CRASHED: u8 = 1;
    const CLOSED: u8 = 2;
    const CHECKPOINTED: u8 = 3;
    const TWO_CORES: u8 = 1;
    const KILLED: u8 = 8 + TWO_CORES;
    const REPLAYED_BESIDE: u8 = 16 + TWO_CORES;
    let offset = |at: u16| at.to_le_bytes();
    let [low, high] = offset(12288 + 8);
    let [torn_low, torn_high] = offset(12288 + 200);
    let [second_low, second_high] = offset(12288 + 160);
    vec![
        ("a_built_log", vec![BUILT, TWO_CORES]),
        ("a_crashed_log", vec![CRASHED, TWO_CORES]),
        ("a_crashed_log_killed_again", vec![CRASHED, KILLED]),
        ("a_closed_log_replayed_beside_its_writer", vec![CLOSED, REPLAYED_BESIDE]),
        ("a_closed_log_with_more_cores", vec![CLOSED, 3]),
        ("a_checkpointed_log", vec![CHECKPOINTED, TWO_CORES]),
        ("a_checkpointed_log_replayed_beside_its_writer", vec![CHECKPOINTED, REPLAYED_BESIDE]),
        (
            "a_checkpointed_log_without_its_manifest",
            vec![CHECKPOINTED, TWO_CORES, REMOVE, 0, REMOVE, 0],
        ),
        ("one_slot_gone", vec![CRASHED, TWO_CORES, REMOVE, 0]),
        ("both_slots_gone", vec![CRASHED, TWO_CORES, REMOVE, 0, REMOVE, 0]),
        (
            "an_acked_record_damaged",
            vec![BUILT, TWO_CORES, TURN_BYTES, 2, low, high, 3, 1, 2, 3, 4],
        ),
        ("a_tail_of_zeroes", vec![BUILT, TWO_CORES, ZERO, 3, torn_low, torn_high, 0, 1]),
        ("a_torn_tail", vec![BUILT, TWO_CORES, TURN_BYTES, 3, torn_low, torn_high, 1, 9, 9]),
        ("a_segment_cut", vec![CLOSED, TWO_CORES, CUT, 2, 0, 64]),
        ("segments_swapped", vec![CLOSED, TWO_CORES, SWAP, 2, 3]),
        ("a_segment_renamed", vec![CLOSED, TWO_CORES, RENAME, 2, 8]),
        ("a_segment_twice", vec![CRASHED, KILLED, COPY, 2, 6]),
        ("a_block_astray", vec![CRASHED, TWO_CORES, COPY_BLOCK, 2, 3, 3, 3]),
        (
            "strange_names",
            vec![BUILT, TWO_CORES, ADD, 22, 9, 0, 7, ADD, 21, 0, 0, 0, ADD, 20, 1, 0, 0],
        ),
        ("a_directory_for_a_temporary_file", vec![BUILT, 8, MAKE_DIRECTORY, 16]),
        ("a_file_for_a_core_directory", vec![BUILT, 3, ADD, 18, 0, 0, 0]),
        (
            "a_record_forged",
            vec![BUILT, TWO_CORES, TURN_BYTES, 3, second_low, second_high, 0, 9, REPAIR, 3, 4],
        ),
        (
            "a_segment_of_a_log_without_a_manifest",
            vec![BUILT, 8, REMOVE, 3, REMOVE, 2, REMOVE, 1, REMOVE, 0, ZERO, 0, 0, 16, 0, 32],
        ),
        (
            "a_release_of_a_core_that_never_logged",
            vec![BUILT, 2, WRITE_MANIFEST, 0, 0, 1, 0, 0, 1, 2, 240, 0],
        ),
        ("a_sequence_that_has_no_next", vec![CRASHED, 3, SET_FIELD, 125, 11, 5]),
        ("a_base_position_forged", vec![BUILT, TWO_CORES, SET_FIELD, 3, 10, 2, 1]),
        ("a_last_sequence_forged", vec![BUILT, TWO_CORES, SET_FIELD, 4, 11, 1]),
        (
            "an_entry_forged",
            vec![BUILT, TWO_CORES, WRITE_ENTRY, 3, 7, 3, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3],
        ),
        (
            "a_cut_forged",
            vec![
                CRASHED,
                TWO_CORES,
                WRITE_MANIFEST,
                0,
                0,
                9,
                0,
                1,
                0,
                0,
                0,
                2,
                0,
                0,
                1,
                1,
                0,
                0,
                0,
                9,
            ],
        ),
    ]
}

/// What may happen to a log, by the numbers that the target has for it.
mod operation {
    pub(super) const PUT: u8 = 0;
    pub(super) const PUTS: u8 = 4;
    pub(super) const DELETE: u8 = 5;
    pub(super) const COMMIT: u8 = 6;
    pub(super) const CHECKPOINT: u8 = 7;
    pub(super) const BARRIER: u8 = 8;
    pub(super) const SET_EPOCH: u8 = 9;
    pub(super) const SYNC: u8 = 10;
    pub(super) const START_SYNC: u8 = 13;
    pub(super) const RUN_REQUEST: u8 = 14;
    pub(super) const MARK_SYNCED: u8 = 16;
    pub(super) const TRUNCATE: u8 = 17;
    pub(super) const RESET: u8 = 19;
    pub(super) const RETAKE: u8 = 20;
    pub(super) const REOPEN: u8 = 21;
    pub(super) const RUN_JOBS: u8 = 22;
    pub(super) const WAIT: u8 = 25;
    pub(super) const LOOK: u8 = 27;
    pub(super) const TRY_CRASH: u8 = 28;
    pub(super) const KILL: u8 = 29;
    pub(super) const CRASH: u8 = 30;
    pub(super) const FAIL: u8 = 31;
}

/// First how many cores and how large, then the operations: each has a number and a core.
fn stories() -> Vec<(&'static str, Vec<u8>)> {
    use operation::*;
    const SMALL: [u8; 2] = [PUT, 0];
    // Keys of 4 bytes, values of 100 or 3000.
    let put = [&SMALL[..], &[4, 100, 0]].concat();
    let large = [&SMALL[..], &[4, 0xb8, 0x0b]].concat();
    let crash_soon = |after: u8| [CRASH, 1, after, 3, 1, 0];
    let story = |parts: &[&[u8]]| [&[1, 0], parts.concat().as_slice()].concat();
    vec![
        ("acked_and_not", story(&[&put, &[SYNC, 0], &put, &[CRASH, 0, 0, 0, 0, 0]])),
        (
            "segments_filled",
            story(&[
                &large,
                &large,
                &large,
                &[SYNC, 0, RUN_JOBS, 0],
                &large,
                &large,
                &large,
                &[SYNC, 0, WAIT, 0, REOPEN, 0, 5],
                &large,
                &[LOOK, 0, KILL, 0, 0],
            ]),
        ),
        (
            "buffers_written_before_a_sync",
            [
                &[1, 2][..],
                &large,
                &large,
                &large,
                &large,
                &[SYNC, 0],
                &large,
                &large,
                &large,
                &[CRASH, 0, 0, 0, 0, 2],
                &large,
            ]
            .concat(),
        ),
        (
            "cuts",
            story(&[
                &put,
                &put,
                &put,
                &[SYNC, 0, TRUNCATE, 0, 6],
                &put,
                &[SYNC, 0, TRUNCATE, 0, 4, TRUNCATE, 0, 1],
                &put,
                &[RESET, 0],
                &put,
                &[SYNC, 0, KILL, 0, 0],
            ]),
        ),
        (
            "synced_elsewhere",
            story(&[
                &put,
                &[START_SYNC, 0],
                &put,
                &[RUN_REQUEST, 0, MARK_SYNCED, 0, 0, START_SYNC, 0],
                &[TRUNCATE, 0, 2, RUN_REQUEST, 0, START_SYNC, 0, REOPEN, 0, 0, RUN_REQUEST, 0],
                &[MARK_SYNCED, 0, 0, TRY_CRASH, 0, 3, 5, 0],
            ]),
        ),
        (
            "a_failing_sync",
            story(&[
                &put,
                &[SYNC, 0],
                &put,
                &[FAIL, 1, 0, 0, SYNC, 0],
                &put,
                &[SYNC, 0, REOPEN, 1, 0],
                &put,
            ]),
        ),
        (
            "a_failing_write",
            story(&[
                &put,
                &[FAIL, 0, 1, 5],
                &large,
                &large,
                &large,
                &[SYNC, 0, CRASH, 0, 3, 7, 0, 0],
                &put,
            ]),
        ),
        (
            "power_loss_in_a_cut",
            story(&[&put, &put, &[SYNC, 0], &crash_soon(3), &[TRUNCATE, 0, 6], &put]),
        ),
        (
            "power_loss_in_an_opening",
            story(&[&put, &[SYNC, 0], &crash_soon(6), &[REOPEN, 0, 0], &put]),
        ),
        (
            "epochs",
            story(&[
                &put,
                &[BARRIER, 0, SET_EPOCH, 0, 3],
                &put,
                &[SET_EPOCH, 0, 7, BARRIER, 1, SYNC, 1, KILL, 0, 0],
                &put,
                &[RETAKE, 0, 0, REOPEN, 1, 8],
            ]),
        ),
        (
            "every_operation",
            story(&[
                &[DELETE, 0, 9, COMMIT, 0, 3, CHECKPOINT, 1, 9, PUTS, 1, 39, SYNC, 1, RETAKE, 0, 1],
                &put,
                &[REOPEN, 0, 0],
            ]),
        ),
    ]
}

/// Salt and position, then records without their checksums.
fn records() -> Vec<(&'static str, Vec<u8>)> {
    let record = |first_word: u32, payload: &[u8]| {
        [&first_word.to_le_bytes()[..], &[0; 4], payload].concat()
    };
    let number = |value: u64| value.to_le_bytes();
    let at = |salt, position| [number(salt), number(position)].concat();
    let batch = [number(8), number(1), number(8), number(2)].concat();
    let one_of_each = [
        at(7, 64),
        record(0x3000_0010, &[0; 16]),
        record(0x2000_0020, &batch),
        record(0x4000_0008, &number(3)),
        record(0x7000_0008, b"extended"),
        record(0x8000_0000, &[]),
        record(0x1000_0040, &[0; 64]),
    ];
    let mut uneven = [at(7, 64), record(0x1000_000c, &[])].concat();
    uneven.resize(64, 0);
    vec![
        ("one_of_each", one_of_each.concat()),
        ("uneven_and_too_long", uneven),
        ("zeroes", vec![0; 64]),
    ]
}

/// Edits: file, place, value.
fn scans() -> Vec<(&'static str, Vec<u8>)> {
    let edit = |file: u8, at: u16| [&[file][..], &at.to_le_bytes(), &[0x55]].concat();
    vec![
        ("untouched", Vec::new()),
        ("both_manifests", [edit(0, 20), edit(1, 20)].concat()),
        ("first_record", edit(2, 12297)),
        ("start_of_the_second", edit(3, 4104)),
        ("vouch", edit(4, 10249)),
    ]
}
