//! Reading a whole segment from memory, for tools and tests; recovery streams instead.

use crate::block::BlockError;
use crate::identity::Identity;
use crate::record::{Record, RecordKind, Unreadable, decode_record};
use crate::start::Start;
use crate::vouch::{VouchSlot, newest_vouch};
use crate::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};

const HEADER_BLOCKS: usize = 3;
const _: () = assert!((HEADER_BLOCKS * BLOCK_BYTES) as u64 == SEGMENT_HEADER_BYTES);

/// A segment file in memory.
#[derive(Debug, Clone)]
pub struct SegmentBytes<'a> {
    identity: Identity,
    start: Result<Start, BlockError>,
    newest_vouch: Option<VouchSlot>,
    records: &'a [u8],
}

impl<'a> SegmentBytes<'a> {
    /// Reads the three header blocks of `file`.
    ///
    /// # Errors
    ///
    /// If the identity block is not valid. A missing start or vouch is no error.
    pub fn parse(file: &'a [u8]) -> Result<Self, BlockError> {
        let block = |index: usize| {
            file.get(index * BLOCK_BYTES..)
                .map_or(&[][..], |rest| rest.get(..BLOCK_BYTES).unwrap_or(rest))
        };
        let identity = Identity::decode(block(0))?;
        let start = Start::decode(block(1), identity.salt);
        let newest_vouch = newest_vouch(block(2), identity.salt);
        let records = file.get(HEADER_BLOCKS * BLOCK_BYTES..).unwrap_or_default();
        Ok(Self { identity, start, newest_vouch, records })
    }

    /// What the segment is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it begins; an error if it was prepared but never used, or is damaged.
    pub const fn start(&self) -> Result<&Start, &BlockError> {
        self.start.as_ref()
    }

    /// The newest valid vouch slot.
    #[must_use]
    pub const fn newest_vouch(&self) -> Option<&VouchSlot> {
        self.newest_vouch.as_ref()
    }

    /// The valid records from the first on, up to the first place where there is none, or the
    /// seal. None without a valid start.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        let base = self.start.as_ref().map_or(0, |start| start.base_position);
        Records {
            rest: if self.start.is_ok() { self.records } else { &[] },
            position: base,
            salt: self.identity.salt,
            max_record_bytes: self.identity.max_record_bytes,
            sealed: false,
        }
    }
}

/// The records of a segment in memory, by [`SegmentBytes::records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    position: u64,
    salt: u64,
    max_record_bytes: u32,
    sealed: bool,
}

impl<'a> Records<'a> {
    /// Where the next record is read from; the end, once there is none.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The bytes from [`position`](Self::position) to the end of the file.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Why there is no record at [`position`](Self::position). Behind a seal, that is the seal:
    /// what follows it is not looked at, and [`Unreadable::Unwritten`] is the answer.
    #[must_use]
    pub fn ended_by(&self) -> Unreadable {
        match self.decode() {
            Err(reason) => reason,
            Ok(_) => Unreadable::Unwritten,
        }
    }

    fn decode(&self) -> Result<Record<'a>, Unreadable> {
        decode_record(self.rest, self.salt, self.position, self.max_record_bytes)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.sealed {
            return None;
        }
        let record = self.decode().ok()?;
        self.rest = self.rest.get(record.record_bytes()..).unwrap_or_default();
        self.position = record.end_position();
        self.sealed = record.kind == RecordKind::Seal;
        Some(record)
    }
}
