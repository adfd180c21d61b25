//! What can be done to a directory, as the bytes of an input say.

use wal_sim::SimStorage;
use wal_storage::{Result, Storage, WalError};

use super::forging;
use crate::input::{Input, choose};

const EDITS_MAX: usize = 24;

/// Longer files would only cost time.
const FILE_BYTES_MAX: u64 = 1 << 17;

/// What was done, as far as it decides what may follow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// A checksum was put right, so that what is read need never have been logged.
    pub(super) is_forged: bool,
    /// A directory stands where a log would have a file, or a file where a directory, so that a
    /// writer may not get on.
    pub(super) takes_names: bool,
}

/// Does what the input says until it ends.
pub(super) fn perform(disk: &SimStorage, input: &mut Input<'_>) -> Done {
    let mut all = Done::default();
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        // An edit for which there is no place is none; one that forges may be done in part.
        let kind = input.u8() % 16;
        let is_done = edit(disk, kind, input).is_ok();
        all.is_forged |= kind >= FIRST_FORGING;
        all.takes_names |= (ADDS_FILE..=ADDS_DIRECTORY).contains(&kind) && is_done;
    }
    all
}

const ADDS_FILE: u8 = 6;
const ADDS_DIRECTORY: u8 = 9;
/// Edits from this one on put checksums right.
const FIRST_FORGING: u8 = 12;

fn edit(disk: &SimStorage, kind: u8, input: &mut Input<'_>) -> Result<()> {
    match kind {
        0 => turn_bytes_over(disk, input),
        1 => {
            let (name, at) = (file(disk, input)?, input.u16());
            disk.flip_bit(&name, at.into(), input.u8() % 8)
        }
        2 => {
            let (name, size_bytes) = (file(disk, input)?, u64::from(input.u16()));
            let before = disk.read_file(&name)?.len() as u64;
            disk.truncate_file(&name, size_bytes.min(before))
        }
        3 => {
            let (name, more_bytes) = (file(disk, input)?, u64::from(input.u16()));
            let before = disk.read_file(&name)?.len() as u64;
            disk.truncate_file(&name, (before + more_bytes).min(FILE_BYTES_MAX).max(before))
        }
        4 => disk.delete(&file(disk, input)?),
        5 => {
            let (one, other) = (file(disk, input)?, file(disk, input)?);
            let (of_one, of_other) = (disk.read_file(&one)?, disk.read_file(&other)?);
            disk.write_file(&one, &of_other)?;
            disk.write_file(&other, &of_one)
        }
        6 => {
            let (from, to) = (file(disk, input)?, new_name(input)?);
            let bytes = disk.read_file(&from)?;
            disk.delete(&from)?;
            disk.write_file(to, &bytes)
        }
        7 => {
            let (from, to) = (file(disk, input)?, new_name(input)?);
            disk.write_file(to, &disk.read_file(&from)?)
        }
        8 => {
            let (name, length, fill) = (new_name(input)?, input.size(), input.u8());
            disk.write_file(name, &vec![fill; length])
        }
        9 => {
            let name = new_name(input)?;
            disk.create_directory(name)
        }
        10 => {
            let (name, from, length) = (file(disk, input)?, input.u16(), input.u16());
            disk.zero(&name, from.into()..u64::from(from) + u64::from(length))
        }
        11 => {
            let (from, from_block) = (file(disk, input)?, input.u8() % 16);
            let (to, to_block) = (file(disk, input)?, input.u8() % 16);
            disk.copy_block((&from, from_block.into()), (&to, to_block.into()))
        }
        12 => forging::put_checksum_right(disk, input),
        13 => forging::set_field(disk, input),
        14 => forging::write_entry(disk, input),
        _ => forging::write_manifest(disk, input),
    }
}

/// Turns some bytes over. The mask keeps a fuzzer that copies what it saw compared from forging a
/// checksum: that is what the later edits are for.
fn turn_bytes_over(disk: &SimStorage, input: &mut Input<'_>) -> Result<()> {
    const MASK: u8 = 0x5a;
    let (name, at, count) = (file(disk, input)?, input.size(), input.u8() % 8 + 1);
    let there = disk.read_file(&name)?;
    let there = there.get(at..).unwrap_or_default();
    let turned: Vec<u8> =
        there.iter().zip(input.bytes(count.into())).map(|(old, new)| old ^ new ^ MASK).collect();
    disk.overwrite(&name, at as u64, &turned)
}

pub(super) fn file(disk: &SimStorage, input: &mut Input<'_>) -> Result<String> {
    let names = disk.names();
    choose(&names, input.u8().into()).cloned().ok_or_else(no_such_thing)
}

fn new_name(input: &mut Input<'_>) -> Result<&'static str> {
    choose(NAMES, input.u8().into()).copied().ok_or_else(no_such_thing)
}

fn no_such_thing() -> WalError {
    WalError::InvalidArgument { what: "there is nothing to choose from".to_owned() }
}

/// Names of a log, names that nearly are, and others.
const NAMES: &[&str] = &[
    "MANIFEST.0",
    "MANIFEST.1",
    "MANIFEST.2",
    "core-0000/00000000000000000001.wal",
    "core-0000/00000000000000000002.wal",
    "core-0000/00000000000000000003.wal",
    "core-0000/00000000000000000004.wal",
    "core-0000/00000000000000000005.wal",
    "core-0000/00000000000000000099.wal",
    "core-0000/18446744073709551615.wal",
    "core-0000/00000000000000000000.wal",
    "core-0000/42.wal",
    "core-0000/next-00000000000000000003.tmp",
    "core-0001/00000000000000000001.wal",
    "core-0001/00000000000000000002.wal",
    "core-0001/00000000000000000003.wal",
    "core-0001/next-00000000000000000002.tmp",
    "core-0002/00000000000000000001.wal",
    "core-0003",
    "core-65535/00000000000000000001.wal",
    "core-3/00000000000000000001.wal",
    "lost+found/#1",
    "notes",
    "core-0000/notes",
];
