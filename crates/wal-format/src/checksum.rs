//! CRC-32C: with the processor's instructions where `std` can ask for them, else from a table.

/// Continues a CRC-32C: `crc32c_append(crc32c_append(0, a), b)` is the sum of `a` then `b`.
///
/// Every checksum of the format is made with it, from a seed instead of 0.
#[must_use]
#[inline]
pub fn crc32c_append(seed: u32, bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    {
        crc32c::crc32c_append(seed, bytes)
    }
    #[cfg(not(feature = "std"))]
    {
        table_crc32c_append(seed, bytes)
    }
}

/// The same sum without `std`.
#[cfg(any(not(feature = "std"), test))]
fn table_crc32c_append(seed: u32, bytes: &[u8]) -> u32 {
    static CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    // The crate takes the register's start value, bit-reversed; a finished sum is its complement.
    let mut digest = CRC32C.digest_with_initial((!seed).reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// Turns salt and position into the seed of a record's checksum, so that bytes of another life
/// of the file, or of another place, do not validate.
#[inline]
pub(crate) const fn place_seed(salt: u64, position: u64) -> u32 {
    if cfg!(wal_fault = "checksum_without_salt") {
        // Breaks promise 2: bytes of an earlier life of the file validate.
        return 0;
    }
    ((salt ^ position).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// The seed for blocks that belong to a life of a segment: the salt at position 0.
#[inline]
pub(crate) const fn salt_seed(salt: u64) -> u32 {
    place_seed(salt, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_crc32c_comes_out() {
        assert_eq!(crc32c_append(0, b"123456789"), 0xE306_9283);
        assert_eq!(table_crc32c_append(0, b"123456789"), 0xE306_9283);
    }

    #[test]
    fn the_sum_of_nothing_is_the_seed() {
        assert_eq!(crc32c_append(0xDEAD_BEEF, b""), 0xDEAD_BEEF);
        assert_eq!(table_crc32c_append(0xDEAD_BEEF, b""), 0xDEAD_BEEF);
    }

    #[cfg(feature = "std")]
    proptest! {
        #[test]
        fn both_implementations_agree(seed: u32, bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(crc32c::crc32c_append(seed, &bytes), table_crc32c_append(seed, &bytes));
        }
    }

    proptest! {
        #[test]
        fn a_sum_can_be_continued(seed: u32, a: [u8; 13], b: [u8; 40]) {
            let whole = [a.as_slice(), b.as_slice()].concat();
            prop_assert_eq!(crc32c_append(crc32c_append(seed, &a), &b), crc32c_append(seed, &whole));
        }
    }
}
