//! What identity, start, vouch and manifest share: blocks, fields, and why one is refused.

use core::fmt;
use core::marker::PhantomData;

use thiserror::Error;

use crate::checksum::crc32c_append;
use crate::{BLOCK_BYTES, FORMAT_VERSION};

/// One block of 4096 bytes. It stands anywhere in memory: copy it for direct I/O.
#[derive(Clone, PartialEq, Eq)]
pub struct Block([u8; BLOCK_BYTES]);

impl Block {
    /// A block of zeroes.
    pub const ZERO: Self = Self([0; BLOCK_BYTES]);

    /// The block's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; BLOCK_BYTES] {
        &self.0
    }

    /// The block's bytes, to be written to.
    #[must_use]
    pub const fn as_mut_bytes(&mut self) -> &mut [u8; BLOCK_BYTES] {
        &mut self.0
    }

    pub(crate) fn put<T: FieldValue>(&mut self, field: Field<T>, value: T) {
        field.put(&mut self.0, value);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        write!(f, "Block({used} bytes, then zeroes)")
    }
}

/// Names one log among all others; made once, from random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// What a file needs of its readers and writers beyond version 1; none is defined yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Who does not know one of these bits must not read the file.
    pub incompatible: u64,
    /// Who does not know one of these bits may read the file, but must not write to its log.
    pub read_compatible: u64,
    /// Who does not know one of these bits may do anything.
    pub compatible: u64,
}

impl Features {
    /// Plain version 1.
    pub const NONE: Self = Self { incompatible: 0, read_compatible: 0, compatible: 0 };

    /// The bits that stop this version from writing to the log, 0 if it may.
    #[must_use]
    pub const fn unknown_to_writers(self) -> u64 {
        self.incompatible | self.read_compatible
    }
}

/// Why a block or a manifest is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Nothing but zeroes: never written.
    #[error("the {what} is all zeroes")]
    Unwritten {
        /// Which block.
        what: &'static str,
    },
    /// The file ends before the block does.
    #[error("the {what} needs {needed} bytes, there are {available}")]
    Incomplete {
        /// Which block.
        what: &'static str,
        /// Its length.
        needed: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// The first bytes are not those of such a block.
    #[error("the {what} begins with {found:#018x}, not with {expected:#018x}")]
    Magic {
        /// Which block.
        what: &'static str,
        /// The first bytes of a valid one, as a little-endian number.
        expected: u64,
        /// The bytes found.
        found: u64,
    },
    /// The block's length field makes no sense.
    #[error("the {what} says it is {length} bytes long")]
    Length {
        /// Which block.
        what: &'static str,
        /// The length found.
        length: u32,
    },
    /// The checksum does not fit the bytes.
    #[error("the {what}'s checksum is {computed:#010x}, it says {stored:#010x}")]
    Checksum {
        /// Which block.
        what: &'static str,
        /// The sum of the bytes.
        computed: u32,
        /// The sum that stands in the block.
        stored: u32,
    },
    /// Undamaged, but of a version that this crate does not know.
    #[error("the {what} is of format version {found}, this program knows up to {FORMAT_VERSION}")]
    Version {
        /// Which block.
        what: &'static str,
        /// The version found.
        found: u32,
    },
    /// Undamaged, but with features that this crate must know to read it.
    #[error("the {what} needs unknown features {bits:#x}")]
    Features {
        /// Which block.
        what: &'static str,
        /// The unknown bits.
        bits: u64,
    },
    /// Undamaged, but a field has a value that no writer gives it.
    #[error("the {what}'s {field} is {value}")]
    Field {
        /// Which block.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// The fields that stand at the same place in every version of identity and manifest, so that
/// any version can tell damage from a newer version.
pub(crate) mod fixed {
    use super::Field;

    pub(crate) const MAGIC: Field<u64> = Field::first();
    pub(crate) const VERSION: Field<u32> = Field::after(MAGIC);
    pub(crate) const LENGTH: Field<u32> = Field::after(VERSION);
    pub(crate) const CRC: Field<u32> = Field::after(LENGTH);
    const RESERVED: Field<u32> = Field::after(CRC);
    /// The first field that a version may place as it likes.
    pub(crate) const END: usize = RESERVED.end();
}

/// Checks what is fixed for all versions, checksum before version, and returns the `length` bytes
/// that the checksum covers.
pub(crate) fn check_fixed_part<'a>(
    bytes: &'a [u8],
    what: &'static str,
    magic: u64,
    length_max: usize,
) -> Result<&'a [u8], BlockError> {
    let incomplete = |needed| BlockError::Incomplete { what, needed, available: bytes.len() };
    let head = bytes.first_chunk::<{ fixed::END }>().ok_or_else(|| incomplete(fixed::END))?;
    if bytes.iter().all(|&byte| byte == 0) {
        return Err(BlockError::Unwritten { what });
    }
    let found = fixed::MAGIC.get(head);
    if found != magic {
        return Err(BlockError::Magic { what, expected: magic, found });
    }
    let length = fixed::LENGTH.get(head);
    let length_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if length_bytes < fixed::END || length_bytes > length_max {
        return Err(BlockError::Length { what, length });
    }
    let covered = bytes.get(..length_bytes).ok_or_else(|| incomplete(length_bytes))?;
    let stored = fixed::CRC.get(covered);
    let computed = checksum_without(covered, fixed::CRC, 0);
    if computed != stored {
        return Err(BlockError::Checksum { what, computed, stored });
    }
    let version = fixed::VERSION.get(covered);
    if version != FORMAT_VERSION {
        return Err(BlockError::Version { what, found: version });
    }
    Ok(covered)
}

/// The checksum of `bytes` with the field that holds it taken as zero.
pub(crate) fn checksum_without(bytes: &[u8], crc: Field<u32>, seed: u32) -> u32 {
    let (before, rest) = bytes.split_at(crc.at.min(bytes.len()));
    let after = rest.get(u32::BYTES..).unwrap_or_default();
    crc32c_append(crc32c_append(crc32c_append(seed, before), &[0; u32::BYTES]), after)
}

/// A field of a block: a place and a type. Places follow from the fields before.
pub(crate) struct Field<T> {
    at: usize,
    value: PhantomData<T>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T: FieldValue> Field<T> {
    pub(crate) const fn first() -> Self {
        Self::at(0)
    }

    pub(crate) const fn after<P: FieldValue>(previous: Field<P>) -> Self {
        Self::at(previous.end())
    }

    /// A field at a given place; for the first field behind a fixed part.
    pub(crate) const fn at(at: usize) -> Self {
        assert!(at.is_multiple_of(T::ALIGNMENT), "a field must be aligned to its size");
        Self { at, value: PhantomData }
    }

    pub(crate) const fn end(self) -> usize {
        self.at + T::BYTES
    }

    /// The field's value in `bytes`; zero where they end before it does, which no caller lets
    /// happen.
    pub(crate) fn get(self, bytes: &[u8]) -> T {
        T::read(bytes.get(self.at..).unwrap_or_default())
    }

    pub(crate) fn put(self, bytes: &mut [u8], value: T) {
        value.write(bytes.get_mut(self.at..).unwrap_or_default());
    }
}

/// What a field can hold, little endian.
pub(crate) trait FieldValue: Copy {
    const BYTES: usize;
    const ALIGNMENT: usize = Self::BYTES;
    fn read(from: &[u8]) -> Self;
    fn write(self, to: &mut [u8]);
}

macro_rules! number_field {
    ($($number:ty),*) => {$(
        impl FieldValue for $number {
            const BYTES: usize = size_of::<Self>();
            fn read(from: &[u8]) -> Self {
                from.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
            }
            fn write(self, to: &mut [u8]) {
                if let Some(bytes) = to.first_chunk_mut() {
                    *bytes = self.to_le_bytes();
                }
            }
        }
    )*};
}

number_field!(u16, u32, u64, i64);

impl FieldValue for LogId {
    const BYTES: usize = 16;
    const ALIGNMENT: usize = 8;
    fn read(from: &[u8]) -> Self {
        Self(from.first_chunk().copied().unwrap_or_default())
    }
    fn write(self, to: &mut [u8]) {
        if let Some(bytes) = to.first_chunk_mut() {
            *bytes = self.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_log_id_is_shown_as_the_hexadecimal_number_that_tools_show() {
        let mut id = [0; 16];
        (id[0], id[15]) = (0xab, 7);
        assert_eq!(format!("{}", LogId(id)), "ab000000000000000000000000000007");
    }

    #[test]
    fn a_writer_must_know_what_a_reader_must_know_and_more() {
        assert_eq!(Features::NONE.unknown_to_writers(), 0);
        let features = Features { incompatible: 3, read_compatible: 5, compatible: 8 };
        assert_eq!(features.unknown_to_writers(), 7);
    }
}
