//! What the tests share: aligned memory, directories on several file systems, patience.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wal_storage::DIRECT_BLOCK_BYTES;

/// Far above what any machine needs, far below anybody's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory on the file system that the build itself lies on: the nearest to where a log
/// would be.
pub(crate) fn directory_on_disk() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A directory in memory, where the machine has such a place.
pub(crate) fn directory_in_memory() -> Option<TempDir> {
    let place = Path::new("/dev/shm");
    if !place.is_dir() {
        say("SKIPPED: no /dev/shm on this machine");
        return None;
    }
    Some(TempDir::new_in(place).unwrap())
}

/// Says something that a reader of the test's output must not miss: past the capture of passing
/// tests' output, which holds back only what the print macros write.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "!!! {what}");
}

/// Bytes that start at a multiple of the direct block size.
pub(crate) struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBytes {
    pub(crate) fn zeroed(length: usize) -> Self {
        let bytes = vec![0; length + DIRECT_BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(DIRECT_BLOCK_BYTES);
        Self { bytes, start, length }
    }

    /// No two blocks alike, none of them zero, and others for each seed.
    pub(crate) fn patterned(length: usize, seed: u8) -> Self {
        let mut aligned = Self::zeroed(length);
        for (index, byte) in aligned.iter_mut().enumerate() {
            let block = index / DIRECT_BLOCK_BYTES;
            *byte = u8::try_from((index + 31 * block) % 251).unwrap().wrapping_add(seed) | 1;
        }
        aligned
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// Waits until `condition` holds; for a condition that another thread is about to make true.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
