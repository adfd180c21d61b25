//! Goal: a log goes on where it ended, through closes, crashes and full segments.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::sync::Arc;

use wal_entry::{Offsets, OperationView};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Storage;
use wal_writer::{CoreWalWriter, LogOptions};

fn tiny() -> LogOptions {
    LogOptions {
        segment_bytes: 32 * 1024,
        max_record_bytes: 64 * 1024,
        batch_bytes: 8192,
        in_flight_bytes: 16384,
        ..LogOptions::default()
    }
}

fn open(disk: &SimStorage) -> (CoreWalWriter, Vec<Vec<u8>>) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (writer, recovery) = CoreWalWriter::with_storage(3, storage, tiny()).unwrap();
    let mut keys = Vec::new();
    recovery.for_each(|entry| keys.extend(entry.key().map(<[u8]>::to_vec))).unwrap();
    (writer, keys)
}

#[test]
fn a_ticket_says_of_which_core_and_how_far_it_speaks() {
    let (mut writer, _) = open(&SimStorage::new(1));
    writer.append_put(b"key", b"value").unwrap();
    let ticket = writer.submit().unwrap();
    assert_eq!((ticket.core_id(), ticket.position()), (3, writer.position()));
}

#[test]
fn an_empty_log_begins_at_zero() {
    let disk = SimStorage::new(1);
    let (mut writer, keys) = open(&disk);
    assert!(keys.is_empty());
    assert_eq!((writer.position(), writer.epoch(), writer.sequence()), (0, 0, 0));
    assert_eq!(writer.append_put(b"a", b"1").unwrap(), 0);
    assert!(writer.position() > 0);
    assert_eq!(writer.synced_position(), 0);
    assert_eq!(writer.entries_since_sync(), 1);
    writer.sync().unwrap();
    assert_eq!(writer.synced_position(), writer.position());
    assert_eq!(writer.entries_since_sync(), 0);
}

#[test]
fn what_was_synced_comes_back_after_power_loss_and_the_log_goes_on() {
    let mut disk = SimStorage::new(1);
    let mut expected = Vec::new();
    for life in 0..20_u32 {
        let (mut writer, keys) = open(&disk);
        assert_eq!(keys, expected, "life {life}");
        assert_eq!(writer.sequence(), expected.len() as u64);
        for n in 0..50_u32 {
            let key = format!("{life}-{n}").into_bytes();
            writer.append_put(&key, &vec![7; (n * 37 % 900) as usize]).unwrap();
            expected.push(key);
            if n % 7 == 0 {
                writer.sync().unwrap();
            }
            disk.run_jobs();
        }
        writer.sync().unwrap();
        writer.append_put(b"never synced", &[0; 3000]).unwrap();
        disk = disk.crash(CrashPlan::lose_everything_unsynced());
    }
}

#[test]
fn a_clean_close_leaves_nothing_to_prove() {
    let disk = SimStorage::new(1);
    let (mut writer, _) = open(&disk);
    let mut offsets = Offsets::new();
    offsets.set("orders", 7);
    writer.append_commit(&offsets, Some(5)).unwrap();
    writer.append_epoch_barrier().unwrap();
    assert_eq!(writer.epoch(), 1);
    writer.close().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (writer, recovery) = CoreWalWriter::with_storage(3, storage, tiny()).unwrap();
    println!("{}", recovery.report());
    assert_eq!(writer.epoch(), 1, "the barrier was the last entry of epoch 0");
    let mut entries = Vec::new();
    recovery.for_each(|entry| entries.push(entry.to_entry())).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(matches!(
        entries[1].borrowed().operation,
        wal_entry::OperationRef::EpochBarrier { epoch: 0 }
    ));
    recovery
        .for_each(|entry| {
            if let OperationView::Commit { offsets, watermark } = entry.operation() {
                assert_eq!((offsets.get("orders"), watermark), (Some(7), Some(5)));
            }
        })
        .unwrap();
}
