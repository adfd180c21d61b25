//! Direct I/O: past the page cache, where the file system can.
//!
//! Two things must agree before a file is used directly: `statx` names alignments that
//! [`DIRECT_BLOCK_BYTES`] satisfies (`STATX_DIOALIGN`; kernels before 6.1 and some file systems
//! say nothing, which counts as no), and a probe, a direct read of the file's first block, is not
//! refused. The probe changes nothing. A new file is probed a second time by its first write of
//! zeroes.
//!
//! Nothing that a log promises rests on the mode: it decides about latency, and after a failed
//! sync about what a read may still return.

use std::fs::File;
use std::io;

/// In [`IoMode::Direct`](crate::IoMode::Direct), buffers, offsets and lengths are multiples of
/// this many bytes.
pub const DIRECT_BLOCK_BYTES: usize = 4096;

/// Turns direct I/O on for `file` if the file system can, and says whether it is on.
#[cfg(target_os = "linux")]
pub(crate) fn turn_on(file: &File) -> io::Result<bool> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use std::os::unix::fs::FileExt;

    if !alignment_fits(file) {
        return Ok(false);
    }
    let flags = fcntl_getfl(file)?;
    if fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return Ok(false);
    }
    // On the heap: see `header_blocks.rs` of wal-writer for why no aligned block is on the stack.
    let mut bytes = vec![0; 2 * DIRECT_BLOCK_BYTES];
    let start = bytes.as_ptr().align_offset(DIRECT_BLOCK_BYTES);
    let block = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..DIRECT_BLOCK_BYTES));
    // Whatever the probe stumbles over, also a bad sector: the buffered file says it again to
    // whoever needs that block.
    if block.is_some_and(|block| file.read_at(block, 0).is_ok()) {
        return Ok(true);
    }
    fcntl_setfl(file, flags)?;
    Ok(false)
}

/// Goes back to the page cache.
#[cfg(target_os = "linux")]
pub(crate) fn turn_off(file: &File) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    Ok(fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?)
}

#[cfg(target_os = "linux")]
fn alignment_fits(file: &File) -> bool {
    use rustix::fs::{AtFlags, StatxFlags, statx};

    let fits = |alignment: u32| {
        usize::try_from(alignment)
            .is_ok_and(|alignment| alignment > 0 && DIRECT_BLOCK_BYTES.is_multiple_of(alignment))
    };
    statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).is_ok_and(|status| {
        status.stx_mask & StatxFlags::DIOALIGN.bits() != 0
            && fits(status.stx_dio_mem_align)
            && fits(status.stx_dio_offset_align)
    })
}

/// Elsewhere there is no way to ask, so everything goes through the page cache.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
pub(crate) fn turn_on(_file: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
pub(crate) fn turn_off(_file: &File) -> io::Result<()> {
    Ok(())
}

/// Whether `bytes` can be handed to a direct read or write. No bytes at all lie well anywhere.
pub(crate) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.is_empty()
        || bytes.as_ptr().addr().is_multiple_of(DIRECT_BLOCK_BYTES)
            && bytes.len().is_multiple_of(DIRECT_BLOCK_BYTES)
}

/// Whether `offset`, or a length, lies between blocks.
pub(crate) const fn is_aligned_offset(offset: u64) -> bool {
    offset.is_multiple_of(DIRECT_BLOCK_BYTES as u64)
}

/// The pieces in which a new file is zeroed. While one is on its way to the device, a commit waits
/// for it: pieces of four times the size make the slowest of a thousand commits twice as slow
/// (decision 0011), and smaller ones gain nothing.
pub(crate) const ZERO_PIECE_BYTES: usize = 64 * 1024;

/// Zeroes that direct I/O accepts.
pub(crate) static ZEROES: ZeroPiece = ZeroPiece([0; ZERO_PIECE_BYTES]);

#[repr(align(4096))]
pub(crate) struct ZeroPiece(pub(crate) [u8; ZERO_PIECE_BYTES]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zeroes_can_be_written_directly() {
        assert!(is_aligned(&ZEROES.0));
        assert!(!is_aligned(&ZEROES.0[1..]));
        assert!(!is_aligned(&ZEROES.0[..512]));
        assert!(is_aligned_offset(8192));
        assert!(!is_aligned_offset(512));
    }
}
