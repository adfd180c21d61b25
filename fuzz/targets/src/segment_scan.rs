//! A small log, damaged as the input says, and recovered: an error, or a prefix of what was
//! logged that holds everything that was vouched for.

use std::sync::Arc;

use wal_entry::WalEntry;
use wal_recovery::{RecoveryMode, recover, verify};
use wal_sim::SimStorage;
use wal_sim::fixture::{LogFixture, LogImage};
use wal_storage::Storage;

/// The input is a list of edits of four bytes each: which file, where in it (16 bits), and what
/// the byte there becomes.
///
/// # Panics
///
/// If a property does not hold.
pub fn segment_scan(input: &[u8]) {
    let (logged, vouched, mut image) = log();
    let names: Vec<String> = image.files.keys().cloned().collect();
    // With several edits a claim and what it speaks of can both be gone, and who is to know.
    let vouched = if input.len() < 8 { vouched } else { [0, 0] };
    for edit in input.chunks_exact(4).take(64) {
        let &[file, low, high, value] = edit else { continue };
        if let Some(name) = names.get(usize::from(file) % names.len()) {
            image.overwrite(name, u64::from(u16::from_le_bytes([low, high])), &[value]);
        }
    }
    let disk = SimStorage::new(1);
    if image.install(&disk).is_err() {
        return;
    }
    let before = disk.content_fingerprint();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let recovered = recover(&storage, RecoveryMode::TornTail);
    let report = verify(&storage);
    if let Ok(recovered) = &recovered {
        assert!(report.is_ok_and(|report| report.findings.is_empty()), "verify agrees");
        let entries = recovered.replay(&storage).entries();
        let Ok(entries) = entries else { panic!("what was recovered replays: {entries:?}") };
        for core in 0..2 {
            let of_core = |entries: &[WalEntry]| -> Vec<WalEntry> {
                entries.iter().filter(|entry| entry.core_id == core).cloned().collect()
            };
            let (found, logged) = (of_core(&entries), of_core(&logged));
            assert!(logged.starts_with(&found), "core {core}: a prefix of what was logged");
            let vouched = vouched.get(usize::from(core)).copied().unwrap_or(0);
            assert!(found.len() >= vouched, "core {core}: {} of {vouched} vouched", found.len());
        }
    }
    assert_eq!(before, disk.content_fingerprint(), "recovery changes nothing");
}

/// Two cores; everything logged, how many entries of each something vouches for, and the files.
///
/// Core 0 has two segments and a last batch that nothing speaks of; core 1 was closed.
fn log() -> (Vec<WalEntry>, [usize; 2], LogImage) {
    let mut log = LogFixture::new(*b"a log for fuzzes");
    let first = log.core(0).segment();
    first.put(b"a", b"1").mark(0).put(b"b", &[2; 300]);
    let durable = first.position();
    first.mark(durable).batch(&[(b"c", b"3"), (b"d", b"4")]).seal();
    let second = log.core(0).segment();
    let durable = second.position();
    second.mark(durable).put(b"e", b"5");
    let durable = second.position();
    second.mark(durable).put(b"f", b"6").put(b"g", b"7");
    let closed = log.core(1).segment();
    closed.put(b"h", b"8").put(b"i", b"9").close();
    (log.entries(), [5, 2], log.finish())
}
