//! Any bytes as a manifest: refused, or each byte of it accounted for.

use wal_format::{
    AcceptedDamage, Checkpoint, CheckpointCore, Cut, Features, LogId, Manifest, Membership,
    Release, SourceOffset, crc32c_append,
};

use crate::input::Input;

/// The input is read three times: as the bytes of a slot; as those with magic, version, length
/// and checksum put right, since no fuzzer guesses a checksum; and as the description of a
/// manifest, and what to do to its bytes.
///
/// A manifest that is accepted is written as the same bytes, reserved ones apart, and whatever
/// follows them means nothing. A described manifest is accepted exactly if the format allows it,
/// is read back as it was, and is refused with any one bit of it turned over.
///
/// # Panics
///
/// If a property does not hold.
pub fn manifest(input: &[u8]) {
    check_slot(input);
    let mut repaired = input.to_vec();
    if repair(&mut repaired) {
        check_slot(&repaired);
    }
    check_described(&mut Input::new(input));
}

const MAGIC: &[u8; 8] = b"laminarM";
const HEAD_BYTES: usize = 72;

/// Reads a slot, and checks what is found there.
fn check_slot(slot: &[u8]) {
    let Ok(manifest) = Manifest::decode(slot) else { return };
    assert!(is_allowed(&manifest), "{manifest:?} breaks a rule");
    let Some(again) = manifest.encode() else { panic!("{manifest:?} was read, not written") };
    let Some(length) = length_of(slot) else { panic!("without a length") };
    assert_eq!(again.len(), length, "all of it was read, and no more");
    let mut normal = slot.get(..length).unwrap_or_default().to_vec();
    if let Some(reserved) = normal.get_mut(20..24) {
        // Readers ignore it, so it is written as zero; the checksum covers it all the same.
        reserved.fill(0);
    }
    put_checksum(&mut normal);
    assert_eq!(again, normal, "a manifest has one encoding");
    assert_eq!(Manifest::decode(&again).as_ref(), Ok(&manifest));
    assert!(held_bytes(&manifest) <= length, "it holds what its bytes pay for");
}

/// A manifest from the input, which then chooses what stands behind it, and bits to turn over.
fn check_described(input: &mut Input<'_>) {
    let manifest = described(input);
    let Some(bytes) = manifest.encode() else { panic!("{manifest:?} cannot be written") };
    assert!(bytes.len().is_multiple_of(8), "a multiple of 8");
    let decoded = Manifest::decode(&bytes);
    assert_eq!(decoded.is_ok(), is_allowed(&manifest), "{decoded:?} of {manifest:?}");
    let Ok(decoded) = decoded else { return };
    assert_eq!(decoded, manifest, "it is read back as it was");
    let left_behind = input.bytes(4);
    let mut slot = bytes.clone();
    slot.extend_from_slice(left_behind);
    assert_eq!(Manifest::decode(&slot), Ok(manifest), "what follows it means nothing");
    for _ in 0..4 {
        let bit = input.size() % (bytes.len() * 8);
        flip(&mut slot, bit);
        assert!(Manifest::decode(&slot).is_err(), "with bit {bit} turned over it is refused");
        flip(&mut slot, bit);
    }
    let shorter = bytes.get(..input.size() % bytes.len()).unwrap_or_default();
    assert!(Manifest::decode(shorter).is_err(), "a part of it is refused");
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// Puts right what stands at the front of every version's manifest; false if it is too short.
///
/// The length stays if it can be one, so that the input may choose it.
pub(crate) fn repair(slot: &mut [u8]) -> bool {
    if slot.len() < HEAD_BYTES {
        return false;
    }
    let length = length_of(slot).filter(|length| (HEAD_BYTES..=slot.len()).contains(length));
    let length = length.unwrap_or(slot.len());
    let (Some(front), Ok(length_field)) = (slot.get_mut(..16), u32::try_from(length)) else {
        return false;
    };
    front[..8].copy_from_slice(MAGIC);
    front[8..12].copy_from_slice(&1_u32.to_le_bytes());
    front[12..].copy_from_slice(&length_field.to_le_bytes());
    if let Some(manifest) = slot.get_mut(..length) {
        put_checksum(manifest);
    }
    true
}

fn length_of(slot: &[u8]) -> Option<usize> {
    let field = slot.get(12..16)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(field)).ok()
}

/// Puts right the checksum at byte 16 of a block of which it covers every byte.
pub(crate) fn put_checksum(block: &mut [u8]) {
    if let Some(field) = block.get_mut(16..20) {
        field.fill(0);
        let checksum = crc32c_append(0, block);
        block[16..20].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Whether a manifest of version 1 may say this: rules 3 to 8 of `docs/format.md`.
fn is_allowed(manifest: &Manifest) -> bool {
    let checkpoint_cores = manifest.checkpoint.iter().flat_map(|checkpoint| &checkpoint.cores);
    let mut positions = checkpoint_cores
        .map(|place| place.position)
        .chain(manifest.releases.iter().map(|release| release.position))
        .chain(manifest.cuts.iter().map(|cut| cut.position))
        .chain(manifest.accepted_damage.iter().flat_map(|d| [d.position, d.end_position]));
    let mut members = manifest.members.iter();
    let mut damage = manifest.accepted_damage.iter();
    manifest.features.incompatible == 0
        && manifest.number != 0
        && positions.all(|position| position % 8 == 0)
        && damage.all(|damage| damage.position < damage.end_position)
        && members.all(|member| {
            let end = u64::from(member.first_core) + u64::from(member.core_count);
            member.core_count > 0 && end <= 65536
        })
        && rises(manifest.members.iter().map(|member| member.first_epoch))
        && rises(manifest.releases.iter().map(|release| release.core))
        && manifest.cuts.iter().map(|cut| cut.core).is_sorted()
        && manifest.checkpoint.iter().all(|checkpoint| {
            rises(checkpoint.cores.iter().map(|place| place.core))
                && rises(checkpoint.source_offsets.iter().map(|source| source.source.as_bytes()))
        })
}

fn rises<T: PartialOrd>(values: impl Iterator<Item = T>) -> bool {
    values.is_sorted_by(|a, b| a < b)
}

/// The sizes on disk of everything that a manifest owns.
fn held_bytes(manifest: &Manifest) -> usize {
    let checkpoint = manifest.checkpoint.iter();
    let of_checkpoint = checkpoint.map(|checkpoint| {
        let sources = checkpoint.source_offsets.iter();
        40 + checkpoint.cores.len() * 32
            + sources.map(|source| 16 + source.source.len()).sum::<usize>()
    });
    HEAD_BYTES
        + manifest.members.len() * 24
        + of_checkpoint.sum::<usize>()
        + manifest.releases.len() * 32
        + manifest.cuts.len() * 48
        + manifest.accepted_damage.len() * 32
}

/// A manifest from the input: mostly one that the format allows, sometimes not.
pub(crate) fn described(input: &mut Input<'_>) -> Manifest {
    let flags = input.u8();
    let in_order = flags & 1 == 0;
    let mut manifest = Manifest {
        number: input.u8().into(),
        log_id: LogId([input.u8(); 16]),
        features: Features {
            incompatible: u64::from(flags >> 1 & flags >> 2 & 1),
            read_compatible: u64::from(flags >> 3 & 1),
            compatible: u64::from(flags >> 4 & 1),
        },
        members: list(input, |input| Membership {
            first_epoch: input.u8().into(),
            first_core: input.u16(),
            core_count: input.u16().into(),
        }),
        checkpoint: (flags >> 5 & 1 == 1).then(|| described_checkpoint(input)),
        releases: list(input, |input| Release {
            core: input.u8().into(),
            position: position(input),
            last_epoch: input.u8().into(),
            last_timestamp_ns: input.i64(),
        }),
        cuts: list(input, |input| Cut {
            core: input.u8().into(),
            position: position(input),
            sequence: input.u8().into(),
            dead_segment_id: input.u8().into(),
            last_epoch: input.u8().into(),
            last_timestamp_ns: input.i64(),
        }),
        accepted_damage: list(input, |input| AcceptedDamage {
            core: input.u8().into(),
            position: position(input),
            end_position: position(input),
            segment_id: input.u8().into(),
        }),
    };
    if in_order {
        manifest.number = manifest.number.max(1);
        manifest.members.sort_by_key(|member| member.first_epoch);
        manifest.members.dedup_by_key(|member| member.first_epoch);
        manifest.releases.sort_by_key(|release| release.core);
        manifest.releases.dedup_by_key(|release| release.core);
        manifest.cuts.sort_by_key(|cut| cut.core);
    }
    manifest
}

fn described_checkpoint(input: &mut Input<'_>) -> Checkpoint {
    Checkpoint {
        id: input.u64(),
        epoch: input.u8().into(),
        cores: list(input, |input| CheckpointCore {
            core: input.u8().into(),
            position: position(input),
            sequence: input.u8().into(),
            timestamp_ns: input.i64(),
        }),
        source_offsets: list(input, |input| {
            let length = usize::from(input.u8() % 20);
            let source = String::from_utf8_lossy(input.bytes(length)).into_owned();
            SourceOffset { source, offset: input.u64() }
        }),
        watermark: (input.u8() % 2 == 1).then(|| input.i64()),
    }
}

fn list<T>(input: &mut Input<'_>, item: impl Fn(&mut Input<'_>) -> T) -> Vec<T> {
    let count = input.u8() % 4;
    (0..count).map(|_| item(input)).collect()
}

/// Mostly a multiple of 8.
fn position(input: &mut Input<'_>) -> u64 {
    let position = u64::from(input.u16());
    if position % 16 == 15 { position } else { position / 8 * 8 }
}
