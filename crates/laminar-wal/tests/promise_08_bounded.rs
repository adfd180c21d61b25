//! Promise 8: memory is bounded by buffers and the largest verified record, no length is trusted
//! before its checksum, and appending waits only at the in-flight limit or for a segment that is
//! still being prepared, both counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use support::{TestLog, segment, small};
use wal_format::SEGMENT_HEADER_BYTES;
use wal_sim::{OperationKind, SimStorage};
use wal_storage::Result;

#[test]
fn promise_8_appending_waits_for_nothing_while_there_is_a_buffer_and_a_segment() -> Result<()> {
    let disk = SimStorage::new(1);
    let (wal, _) = small(&disk).batch_bytes(4096).in_flight_bytes(16 * 4096).open()?;
    disk.run_jobs();
    let mut writer = wal.writer(0)?;
    writer.append_put(b"k", &[0; 100])?;
    disk.run_jobs();
    let writes = disk.operations_of(OperationKind::Write);
    // Not quite a segment, in three buffers.
    while writer.position() < 11_000 {
        writer.append_put(b"k", &[0; 100])?;
    }
    assert_eq!(disk.operations_of(OperationKind::Write), writes, "nobody asked for a write");
    assert_eq!(writer.stalls(), Default::default());
    Ok(())
}

#[test]
fn promise_8_what_waits_for_the_disk_is_limited_and_each_wait_is_counted() -> Result<()> {
    let disk = SimStorage::new(1);
    let (wal, _) = small(&disk).batch_bytes(4096).in_flight_bytes(8192).open()?;
    let mut writer = wal.writer(0)?;
    // No job ever runs, so the appender writes out itself when it is out of buffers.
    for _ in 0..60 {
        writer.append_put(b"k", &[7; 1000])?;
        let waiting = writer.position().saturating_sub(written_bytes(&disk));
        assert!(waiting <= 2 * 4096, "{waiting} bytes wait");
    }
    assert!(writer.stalls().buffers > 5, "{:?}", writer.stalls());
    Ok(())
}

#[test]
fn promise_8_nobody_waits_while_the_background_keeps_up() -> Result<()> {
    let disk = SimStorage::new(1);
    let (wal, _) = small(&disk).batch_bytes(4096).in_flight_bytes(8192).open()?;
    let mut writer = wal.writer(0)?;
    for _ in 0..60 {
        writer.append_put(b"k", &[7; 1000])?;
        disk.run_jobs();
    }
    assert_eq!(writer.stalls().buffers, 0);
    let waiting = writer.position().saturating_sub(written_bytes(&disk));
    assert!(waiting <= 4096, "all but the open batch is written: {waiting} bytes are not");
    Ok(())
}

/// Bytes of records on the disk.
fn written_bytes(disk: &SimStorage) -> u64 {
    let segments = disk.names().into_iter().filter(|name| name.ends_with(".wal"));
    let written = segments.map(|name| {
        let bytes = disk.read_file(&name).unwrap();
        let last = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0) as u64;
        last.saturating_sub(SEGMENT_HEADER_BYTES)
    });
    written.sum()
}

#[test]
fn promise_8_a_segment_that_is_not_ready_is_waited_for_and_counted() -> Result<()> {
    let disk = SimStorage::new(1);
    let (wal, _) = small(&disk).open()?;
    let mut writer = wal.writer(0)?;
    // No job ever runs, so the appender prepares each segment itself.
    for _ in 0..40 {
        writer.append_put(b"k", &[0; 1000])?;
    }
    assert!(writer.stalls().segments >= 3, "{:?}", writer.stalls());
    Ok(())
}

#[test]
fn promise_8_a_length_that_lies_is_not_believed() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    log.append(0, 10)?;
    log.close()?;
    // Every length that four bytes can say; a reader that allocates first would feel some.
    for bit in 0..28 {
        let disk = log.disk.fork();
        let name = segment(0, 1);
        let word: [u8; 4] = disk.read_file(&name)?[12288..12292].try_into().unwrap();
        let word = u32::from_le_bytes(word) ^ (1 << bit) | (1 << 27);
        disk.overwrite(&name, SEGMENT_HEADER_BYTES, &word.to_le_bytes())?;
        let reads = disk.operations_of(OperationKind::Read);
        let refusal = small(&disk).open().unwrap_err();
        assert!(refusal.is_corrupt(), "bit {bit}: {refusal}");
        assert!(disk.operations_of(OperationKind::Read) - reads < 30, "bit {bit}");
    }
    Ok(())
}

#[test]
fn promise_8_a_crash_loop_does_not_fill_the_disk() -> Result<()> {
    use wal_storage::Storage;
    let disk = SimStorage::new(1);
    disk.set_free_bytes(Some(1 << 30));
    let open = |disk: &SimStorage| {
        let storage = support::storage(disk);
        laminar_wal::WalOptions::on_storage(storage).open()
    };
    drop(open(&disk)?);
    let mut disk = disk;
    let mut least = 1 << 30;
    for life in 0..50 {
        let (wal, _) = open(&disk)?;
        disk.run_jobs();
        let mut writer = wal.writer(0)?;
        writer.append_put(b"k", b"v")?;
        writer.sync()?;
        disk = disk.crash(wal_sim::CrashPlan::random(life));
        least = least.min(disk.free_bytes()?);
    }
    // A start of 256 KiB each, and one prepared, not 64 MiB.
    let taken = (1 << 30) - least;
    assert!(taken < 52 * 2 * 256 * 1024, "{taken} bytes taken by 50 starts");
    Ok(())
}
