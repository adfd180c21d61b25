//! The two manifest slots: reading both, and choosing the one that counts.

use wal_format::{BLOCK_BYTES, BlockError, FORMAT_VERSION, LogId, Manifest, ManifestSlot};
use wal_storage::{Access, Corruption, Result, Storage, StorageFile, WalError};

/// What one of the two manifest slots holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// There is no such file.
    Absent,
    /// The file holds no valid manifest: never written, torn, or damaged. One such slot is
    /// expected after a crash during a replacement; the other one counts.
    Unreadable(BlockError),
    /// The file holds a valid manifest.
    Holds {
        /// The manifest's number.
        number: u64,
        /// The size of the slot's file, which a longer manifest would have to make grow.
        size_bytes: u64,
    },
}

/// Both slots, and the manifest that counts.
#[derive(Debug)]
pub(crate) struct Manifests {
    pub(crate) slots: [SlotState; 2],
    /// The valid one with the higher number.
    pub(crate) newest: Option<Manifest>,
}

/// Reads both slots.
///
/// A newer version in any slot stops everything. Slots of two logs, or of one number and two
/// contents, contradict each other, and nobody can say which one is right.
///
/// Where there is no segment yet, nothing was ever logged, and two ids are those of openings that did
/// not get to their end: space that a slot lost in a crash may show what an earlier file held. The
/// first slot is durable before the second is made, so it counts.
pub(crate) fn read(
    storage: &dyn Storage,
    present: [bool; 2],
    has_segments: bool,
) -> Result<Manifests> {
    let [present_zero, present_one] = present;
    let (zero, zero_manifest) = read_slot(storage, ManifestSlot::Zero, present_zero)?;
    let (one, one_manifest) = read_slot(storage, ManifestSlot::One, present_one)?;
    let newest = match (zero_manifest, one_manifest) {
        (Some(zero), Some(one)) if !has_segments && zero.log_id != one.log_id => Some(zero),
        (Some(zero), Some(one)) => Some(newer(storage, zero, one)?),
        (zero, one) => zero.or(one),
    };
    Ok(Manifests { slots: [zero, one], newest })
}

fn newer(storage: &dyn Storage, zero: Manifest, one: Manifest) -> Result<Manifest> {
    if zero.log_id != one.log_id {
        return Err(foreign_log(storage, ManifestSlot::One.name(), zero.log_id, one.log_id));
    }
    if zero.number == one.number && zero != one {
        return Err(Corruption {
            path: storage.path().join(ManifestSlot::One.name()),
            core: None,
            position: None,
            file_range: None,
            what: format!("both manifest slots have number {} and different contents", one.number),
            proven_by: None,
        }
        .into());
    }
    Ok(if zero.number >= one.number { zero } else { one })
}

fn read_slot(
    storage: &dyn Storage,
    slot: ManifestSlot,
    present: bool,
) -> Result<(SlotState, Option<Manifest>)> {
    if !present {
        return Ok((SlotState::Absent, None));
    }
    let file = storage.open(slot.name(), Access::Read)?;
    let size_bytes = file.size_bytes()?;
    match decode_slot(file.as_ref(), size_bytes)? {
        Ok(manifest) => {
            let number = manifest.number;
            Ok((SlotState::Holds { number, size_bytes }, Some(manifest)))
        }
        Err(error) => match unsupported_version(storage, slot.name(), error) {
            Some(error) => Err(error),
            None => Ok((SlotState::Unreadable(error), None)),
        },
    }
}

/// Reads a block, which holds the manifest of most logs, and more only if a longer one says it is
/// there, and the file is as long as that.
fn decode_slot(file: &dyn StorageFile, size_bytes: u64) -> Result<Result<Manifest, BlockError>> {
    let bytes = read_front(file, size_bytes.min(BLOCK_BYTES as u64))?;
    match Manifest::decode(&bytes) {
        Err(BlockError::Length { length, .. }) if u64::from(length) <= size_bytes => {
            Ok(Manifest::decode(&read_front(file, length.into())?))
        }
        decoded => Ok(decoded),
    }
}

fn read_front(file: &dyn StorageFile, bytes: u64) -> Result<Vec<u8>> {
    let mut front = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let read_bytes = file.read_at(&mut front, 0)?;
    front.truncate(read_bytes);
    Ok(front)
}

/// The error for a file that a newer version wrote; `None` if that is not what `error` says.
pub(crate) fn unsupported_version(
    storage: &dyn Storage,
    name: &str,
    error: BlockError,
) -> Option<WalError> {
    let (found, unknown_features) = match error {
        BlockError::Version { found, .. } => (found, 0),
        BlockError::Features { bits, .. } => (FORMAT_VERSION, bits),
        _ => return None,
    };
    Some(WalError::UnsupportedVersion {
        path: storage.path().join(name),
        found,
        supported: FORMAT_VERSION,
        unknown_features,
    })
}

/// The error for a file of another log.
pub(crate) fn foreign_log(
    storage: &dyn Storage,
    name: &str,
    expected: LogId,
    found: LogId,
) -> WalError {
    WalError::ForeignLog {
        path: storage.path().join(name),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
