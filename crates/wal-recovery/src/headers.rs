//! The three header blocks of a segment file: what it is, where it begins, what it vouches for.

use wal_format::{
    BLOCK_BYTES, BlockError, FORMAT_VERSION, Identity, LogId, SEGMENT_HEADER_BYTES, Start,
    VOUCH_SLOT_BYTES, VouchSlot,
};
use wal_storage::{Access, Corruption, Result, Storage, WalError};

use crate::directory::segment_name;
use crate::manifests::{foreign_log, unsupported_version};

/// The only kind of entry payload that version 1 knows, and its only version.
const PAYLOAD_TYPE: u32 = 1;
const PAYLOAD_VERSION: u32 = 1;

/// The header blocks of a segment whose identity is valid and its own.
#[derive(Debug, Clone)]
pub(crate) struct SegmentHeader {
    pub(crate) core: u16,
    pub(crate) segment_id: u64,
    pub(crate) identity: Identity,
    pub(crate) start: Result<Start, BlockError>,
    vouches: [Result<VouchSlot, BlockError>; 2],
}

impl SegmentHeader {
    /// Whether start and vouch blocks are the zeroes that the segment was prepared with.
    pub(crate) const fn is_blank(&self) -> bool {
        matches!(
            (&self.start, &self.vouches),
            (
                Err(BlockError::Unwritten { .. }),
                [Err(BlockError::Unwritten { .. }), Err(BlockError::Unwritten { .. })],
            )
        )
    }

    /// The valid vouch slots, at most two.
    pub(crate) fn vouches(&self) -> impl Iterator<Item = &VouchSlot> {
        self.vouches.iter().flatten()
    }

    /// The newest valid vouch slot.
    pub(crate) fn newest_vouch(&self) -> Option<&VouchSlot> {
        self.vouches().max_by_key(|slot| slot.counter)
    }

    /// The highest manifest number that start and slots name, and which of them does.
    pub(crate) fn named_manifest(&self) -> Option<(u64, String)> {
        let name = segment_name(self.core, self.segment_id);
        let start = self.start.as_ref().ok();
        let start = start.map(|start| (start.manifest_number, format!("the start of {name}")));
        let slots = self.vouches();
        let slots = slots.map(|slot| (slot.manifest_number, format!("a vouch slot of {name}")));
        start.into_iter().chain(slots).max_by_key(|named| named.0)
    }
}

/// Reads and checks the header blocks of one segment file.
///
/// A numbered file gets its name only after its identity is durable, so an identity that cannot
/// be read, or is not its own, is damage (@H), and so is a file shorter than it says. Without a
/// manifest there is no log id to compare with.
pub(crate) fn read(
    storage: &dyn Storage,
    core: u16,
    segment_id: u64,
    log_id: Option<LogId>,
) -> Result<SegmentHeader> {
    let name = segment_name(core, segment_id);
    let file = storage.open(&name, Access::Read)?;
    let file_bytes = file.size_bytes()?;
    let mut bytes = vec![0; BLOCK_BYTES * 3];
    let read_bytes = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read_bytes);
    let (identity_block, rest) = bytes.split_at(BLOCK_BYTES.min(bytes.len()));
    let (start_block, vouch_block) = rest.split_at(BLOCK_BYTES.min(rest.len()));
    let (first_slot, second_slot) = vouch_block.split_at(VOUCH_SLOT_BYTES.min(vouch_block.len()));

    let damage = |file_range, what| not_its_own(storage, core, segment_id, file_range, what);
    let whole_identity = Some((0, BLOCK_BYTES as u64));
    let identity = match Identity::decode(identity_block) {
        Ok(identity) => identity,
        Err(error) => {
            let newer = unsupported_version(storage, &name, error);
            return Err(newer.unwrap_or_else(|| damage(whole_identity, error.to_string())));
        }
    };
    if let Some(expected) = log_id
        && identity.log_id != expected
    {
        return Err(foreign_log(storage, &name, expected, identity.log_id));
    }
    if (identity.core, identity.segment_id) != (core, segment_id) {
        let what = format!(
            "the identity block says segment {} of core {}, the path segment {segment_id} of \
             core {core}",
            identity.segment_id, identity.core
        );
        return Err(damage(whole_identity, what));
    }
    if (identity.payload_type, identity.payload_version) != (PAYLOAD_TYPE, PAYLOAD_VERSION) {
        return Err(WalError::UnsupportedVersion {
            path: storage.path().join(name),
            found: identity.payload_version,
            supported: FORMAT_VERSION,
            unknown_features: 0,
        });
    }
    if file_bytes < identity.size_bytes {
        let what = format!(
            "the file has {file_bytes} bytes, its identity block says {}",
            identity.size_bytes
        );
        return Err(damage(Some((file_bytes, identity.size_bytes)), what));
    }
    let start = Start::decode(start_block, identity.salt);
    if let Ok(start) = &start {
        let bases = [("position", start.base_position), ("sequence", start.base_sequence)];
        for (count, base) in bases {
            // Neither counts more than the bytes of the segment.
            if base.checked_add(identity.size_bytes).is_none() {
                let start_range =
                    Some((BLOCK_BYTES as u64, SEGMENT_HEADER_BYTES - BLOCK_BYTES as u64));
                let what = format!("the start block's base {count} {base} is beyond any log's end");
                return Err(damage(start_range, what));
            }
        }
    }
    let vouches = [first_slot, second_slot].map(|slot| VouchSlot::decode(slot, identity.salt));
    Ok(SegmentHeader { core, segment_id, identity, start, vouches })
}

/// Damage of a segment file as a whole: row @H.
pub(crate) fn not_its_own(
    storage: &dyn Storage,
    core: u16,
    segment_id: u64,
    file_range: Option<(u64, u64)>,
    what: String,
) -> WalError {
    Corruption {
        path: storage.path().join(segment_name(core, segment_id)),
        core: Some(core),
        position: None,
        file_range,
        what,
        proven_by: None,
    }
    .into()
}
