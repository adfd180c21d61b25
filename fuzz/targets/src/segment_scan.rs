//! A small log, damaged as the input says, and recovered: an error, or a prefix of what was
//! logged that holds everything that was vouched for.

use std::sync::LazyLock;

use wal_entry::WalEntry;
use wal_format::SEGMENT_BYTES_MIN;
use wal_recovery::{RecoveryMode, recover, verify};
use wal_sim::SimStorage;
use wal_sim::fixture::LogFixture;

use crate::disk::{changes, storage};
use crate::input::choose;
use crate::memory;

/// The input is a list of edits of four bytes each: which file, where in it (16 bits), and what
/// the byte there becomes.
///
/// # Panics
///
/// If a property does not hold.
pub fn segment_scan(input: &[u8]) {
    memory::keep();
    let log = &*LOG;
    // With several edits a claim and what it speaks of can both be gone, and who is to know.
    let vouched = if input.len() < 8 { log.vouched } else { [0, 0] };
    let disk = log.disk.fork();
    for edit in input.chunks_exact(4).take(64) {
        let &[file, low, high, value] = edit else { continue };
        if let Some(name) = choose(&log.names, file.into()) {
            // Behind the end of the file there is nothing to edit.
            let _ = disk.overwrite(name, u16::from_le_bytes([low, high]).into(), &[value]);
        }
    }
    let before = changes(&disk);
    let storage = storage(&disk);
    let recovered = recover(&storage, RecoveryMode::TornTail);
    let report = verify(&storage);
    let is_sound = report.is_ok_and(|report| report.findings.is_empty());
    assert_eq!(is_sound, recovered.is_ok(), "verify agrees");
    if let Ok(recovered) = &recovered {
        let entries = recovered.replay(&storage).entries();
        let Ok(entries) = entries else { panic!("what was recovered replays: {entries:?}") };
        for (core, vouched) in (0..).zip(vouched) {
            let found = of_core(&entries, core);
            let is_prefix = found.clone().zip(of_core(&log.logged, core)).all(|(a, b)| a == b);
            let (found, logged) = (found.count(), of_core(&log.logged, core).count());
            assert!(is_prefix && found <= logged, "core {core}: a prefix of what was logged");
            assert!(found >= vouched, "core {core}: {found} of {vouched} vouched");
        }
    }
    assert_eq!(before, changes(&disk), "recovery changes nothing");
}

fn of_core(entries: &[WalEntry], core: u16) -> impl Iterator<Item = &WalEntry> + Clone {
    entries.iter().filter(move |entry| entry.core_id == core)
}

/// A log to be damaged, made once.
pub(crate) struct SmallLog {
    pub(crate) disk: SimStorage,
    /// Everything that was logged.
    pub(crate) logged: Vec<WalEntry>,
    /// How many entries of each core something vouches for.
    vouched: [usize; 2],
    names: Vec<String>,
}

/// Two cores. Core 0 has two segments and a last batch that nothing speaks of; core 1 was closed.
pub(crate) static LOG: LazyLock<SmallLog> = LazyLock::new(|| {
    let mut log = LogFixture::new(*b"a log for fuzzes");
    let first = log.core(0).segment();
    first.size(SEGMENT_BYTES_MIN);
    first.put(b"a", b"1").mark(0).put(b"b", &[2; 300]);
    let durable = first.position();
    first.mark(durable).batch(&[(b"c", b"3"), (b"d", b"4")]).seal();
    let second = log.core(0).segment();
    second.size(SEGMENT_BYTES_MIN);
    let durable = second.position();
    second.mark(durable).put(b"e", b"5");
    let durable = second.position();
    second.mark(durable).put(b"f", b"6").put(b"g", b"7");
    let closed = log.core(1).segment();
    closed.size(SEGMENT_BYTES_MIN);
    closed.put(b"h", b"8").put(b"i", b"9").close();
    let disk = SimStorage::new(1);
    let installed = log.finish().install(&disk);
    assert!(installed.is_ok(), "{installed:?}");
    SmallLog { logged: log.entries(), vouched: [5, 2], names: disk.names(), disk }
});
