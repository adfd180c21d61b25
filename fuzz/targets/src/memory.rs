//! Keeping memory between inputs.

use std::sync::Once;

/// Lets the allocator keep what was freed, once for the whole process.
///
/// A recovery takes buffers of 256 KiB, and glibc would give them back to the kernel each time:
/// two thirds of a fuzzer's time would be page faults. It keeps blocks of the size of the largest
/// one that was ever freed, up to 32 MiB.
pub(crate) fn keep() {
    const LARGE_BYTES: usize = 16 << 20;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(std::hint::black_box(vec![1_u8; LARGE_BYTES])));
}
