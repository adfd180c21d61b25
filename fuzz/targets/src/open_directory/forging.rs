//! Edits that get past the checksums: parts of files put right, or made anew.

use wal_entry::{EntryRef, OperationRef, RecordBuffer};
use wal_format::{
    BLOCK_BYTES, LogId, ManifestSlot, RECORD_HEADER_BYTES, RecordKind, VOUCH_SLOT_BYTES,
    crc32c_append, encode_record_header,
};
use wal_sim::SimStorage;
use wal_storage::Result;

use super::edits::file;
use crate::input::{Input, choose};
use crate::manifest;
use crate::record_decode::repair_checksum;

// Where the parts of a segment file are.
const SALT_AT: usize = 104;
const START_AT: usize = BLOCK_BYTES;
const FIRST_SLOT_AT: usize = 2 * BLOCK_BYTES;
const SECOND_SLOT_AT: usize = FIRST_SLOT_AT + VOUCH_SLOT_BYTES;
const RECORDS_AT: usize = 3 * BLOCK_BYTES;

/// Puts right the checksum of one of the parts of a file.
pub(super) fn put_checksum_right(disk: &SimStorage, input: &mut Input<'_>) -> Result<()> {
    let (name, part) = (file(disk, input)?, input.u8());
    let mut bytes = disk.read_file(&name)?;
    if ManifestSlot::parse(&name).is_some() {
        manifest::repair(&mut bytes);
    } else {
        repair_segment(&mut bytes, part);
    }
    disk.write_file(&name, &bytes)
}

/// Gives a field of a header block a value that it might well have, and puts the checksum right.
pub(super) fn set_field(disk: &SimStorage, input: &mut Input<'_>) -> Result<()> {
    let (name, field, how) = (file(disk, input)?, input.u8(), input.u8());
    let mut bytes = disk.read_file(&name)?;
    let Some(&(part, at, size)) = choose(FIELDS, field.into()) else { return Ok(()) };
    if let Some(place) = bytes.get_mut(at..at + size) {
        let mut wide = [0; 8];
        wide[..size].copy_from_slice(place);
        let old = u64::from_le_bytes(wide);
        let value = match how % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => old.wrapping_add(8 * u64::from(input.u8())),
            3 => old.wrapping_sub(8 * u64::from(input.u8())),
            4 => old.wrapping_add(1),
            5 => old.wrapping_sub(1),
            6 => u64::MAX - (8 * u64::from(input.u16()) + 7),
            _ => input.u64(),
        };
        place.copy_from_slice(&value.to_le_bytes()[..size]);
    }
    repair_segment(&mut bytes, part);
    disk.write_file(&name, &bytes)
}

const IDENTITY: u8 = 0;
const START: u8 = 1;
const FIRST_SLOT: u8 = 2;
const SECOND_SLOT: u8 = 3;

/// Fields of the header blocks: the part whose checksum covers it, where it is, its size.
const FIELDS: &[(u8, usize, usize)] = &[
    (IDENTITY, 40, 2),                     // core
    (IDENTITY, 48, 8),                     // segment id
    (IDENTITY, 56, 8),                     // size
    (IDENTITY, 68, 4),                     // largest payload
    (IDENTITY, 72, 4),                     // payload type
    (IDENTITY, 80, 8),                     // incompatible features
    (IDENTITY, 88, 8),                     // read-compatible features
    (START, START_AT + 8, 8),              // predecessor's id
    (START, START_AT + 16, 8),             // predecessor's salt
    (START, START_AT + 24, 8),             // predecessor's end
    (START, START_AT + 32, 8),             // base position
    (START, START_AT + 40, 8),             // base sequence
    (START, START_AT + 48, 8),             // last epoch
    (START, START_AT + 56, 8),             // last timestamp
    (START, START_AT + 64, 8),             // manifest number
    (FIRST_SLOT, FIRST_SLOT_AT + 8, 8),    // counter
    (FIRST_SLOT, FIRST_SLOT_AT + 16, 8),   // durable position
    (FIRST_SLOT, FIRST_SLOT_AT + 32, 8),   // manifest number
    (FIRST_SLOT, FIRST_SLOT_AT + 40, 8),   // flags
    (SECOND_SLOT, SECOND_SLOT_AT + 8, 8),  // counter
    (SECOND_SLOT, SECOND_SLOT_AT + 16, 8), // durable position
    (SECOND_SLOT, SECOND_SLOT_AT + 32, 8), // manifest number
    (SECOND_SLOT, SECOND_SLOT_AT + 40, 8), // flags
];

/// Puts right the checksum of a header block or slot, or those of all records.
fn repair_segment(bytes: &mut [u8], part: u8) {
    let Some(salt) = number_at(bytes, SALT_AT) else { return };
    match part % 5 {
        IDENTITY => bytes.get_mut(..BLOCK_BYTES).into_iter().for_each(manifest::put_checksum),
        START => put_seeded_checksum(bytes.get_mut(START_AT..START_AT + BLOCK_BYTES), salt),
        FIRST_SLOT => {
            put_seeded_checksum(bytes.get_mut(FIRST_SLOT_AT..SECOND_SLOT_AT), salt);
        }
        SECOND_SLOT => {
            put_seeded_checksum(bytes.get_mut(SECOND_SLOT_AT..RECORDS_AT), salt);
        }
        _ => {
            repair_records(bytes, salt);
        }
    }
}

/// Puts right the checksum at the front of a block or slot of which it covers every byte.
fn put_seeded_checksum(block: Option<&mut [u8]>, salt: u64) {
    let Some(block) = block else { return };
    let place_seed = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    if let (Some(field), Ok(seed)) = (block.get_mut(..4), u32::try_from(place_seed)) {
        field.fill(0);
        let checksum = crc32c_append(seed, block);
        block[..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Puts right the checksums of all records, and says where they end: in the file, and as a
/// position.
fn repair_records(bytes: &mut [u8], salt: u64) -> Option<(usize, u64)> {
    let mut position = number_at(bytes, START_AT + 32)?;
    let mut at = RECORDS_AT;
    while let Some(length) = repair_checksum(bytes.get_mut(at..)?, salt, position) {
        at += length;
        position = position.wrapping_add(length as u64);
    }
    Some((at, position))
}

/// Puts an entry behind the last record of a segment, with a right checksum and perhaps wrong in
/// everything else.
pub(super) fn write_entry(disk: &SimStorage, input: &mut Input<'_>) -> Result<()> {
    let name = file(disk, input)?;
    let mut bytes = disk.read_file(&name)?;
    let Some(salt) = number_at(&bytes, SALT_AT) else { return Ok(()) };
    let Some((at, position)) = repair_records(&mut bytes, salt) else { return Ok(()) };
    let key_bytes = usize::from(input.u8());
    let entry = EntryRef {
        epoch: number(input),
        sequence: number(input),
        core_id: (input.u8() % 4).into(),
        timestamp_ns: input.i64(),
        operation: OperationRef::Delete { key: input.bytes(key_bytes) },
    };
    let mut archive = RecordBuffer::new();
    entry.archive_into(&mut archive);
    let Some(header) = encode_record_header(RecordKind::Entry, &archive, salt, position) else {
        return Ok(());
    };
    disk.overwrite(&name, at as u64, &header)?;
    disk.overwrite(&name, (at + RECORD_HEADER_BYTES) as u64, &archive)
}

/// Small numbers mostly, and the largest ones.
fn number(input: &mut Input<'_>) -> u64 {
    let byte = input.u8();
    if byte < 250 { byte.into() } else { u64::MAX - u64::from(255 - byte) }
}

/// Puts a manifest of this log that says what the input likes into one slot or both.
pub(super) fn write_manifest(disk: &SimStorage, input: &mut Input<'_>) -> Result<()> {
    let slots = input.u8();
    let mut manifest = manifest::described(input);
    let here = disk.read_file(ManifestSlot::Zero.name())?;
    if let Some(log_id) = here.get(24..40).and_then(|id| id.try_into().ok()) {
        manifest.log_id = LogId(log_id);
    }
    for member in &mut manifest.members {
        // Each core costs time, whether there is anything of it or not.
        (member.first_core, member.core_count) = (member.first_core % 8, member.core_count % 8);
    }
    let Some(mut bytes) = manifest.encode() else { return Ok(()) };
    bytes.resize(bytes.len().max(here.len()), 0);
    for (bit, slot) in ManifestSlot::BOTH.into_iter().enumerate() {
        if slots >> bit & 1 == 0 {
            disk.write_file(slot.name(), &bytes)?;
        }
    }
    Ok(())
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
