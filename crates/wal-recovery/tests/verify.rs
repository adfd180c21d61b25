//! Verify, and what reports say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;

use support::{disk, new_log, recovered};
use wal_recovery::{VerifyReport, verify};
use wal_sim::SimStorage;
use wal_sim::fixture::{LogImage, segment_name};
use wal_storage::{Storage, WalError};

fn verified(image: &LogImage) -> VerifyReport {
    let disk = disk(image);
    let before = disk.content_fingerprint();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let report = verify(&storage).unwrap();
    assert_eq!(disk.content_fingerprint(), before);
    report
}

fn four_cores() -> LogImage {
    let mut log = new_log();
    for core in 0..4 {
        let segment = log.core(core).segment();
        segment.put(b"a", b"1");
        segment.mark(segment.position()).put(b"b", b"2");
    }
    log.finish()
}

#[test]
fn a_sound_log_has_no_findings() {
    let report = verified(&four_cores());
    assert!(report.is_sound() && report.notes.is_empty());
    assert_eq!(report.report.entries(), 8);
    assert!(report.to_string().ends_with("sound"), "{report}");
}

#[test]
fn a_manifest_slot_that_is_missing_is_noted_and_no_finding() {
    let mut image = four_cores();
    image.remove("MANIFEST.1");
    let report = verified(&image);
    assert!(report.is_sound());
    assert_eq!(report.notes, ["MANIFEST.1 is missing"]);
    assert!(report.to_string().contains("note: MANIFEST.1 is missing"), "{report}");
}

#[test]
fn damage_in_one_core_does_not_hide_another_s() {
    let mut image = four_cores();
    image.flip_byte(&segment_name(0, 1), 12288 + 20);
    image.flip_byte(&segment_name(2, 1), 20);
    let report = verified(&image);
    assert_eq!(report.findings.len(), 2);
    let cores: Vec<u16> = report.report.cores.iter().map(|core| core.core).collect();
    assert_eq!(cores, [1, 3]);
    let text = report.to_string();
    assert!(text.contains("2 findings") && text.contains("core 0, "), "{text}");
}

#[test]
fn all_strange_files_of_a_core_are_found() {
    let mut log = new_log();
    for _ in 0..3 {
        log.core(0).segment().put(b"a", b"1").seal();
    }
    let mut image = log.finish();
    image.flip_byte(&segment_name(0, 1), 20).flip_byte(&segment_name(0, 3), 20);
    assert_eq!(verified(&image).findings.len(), 2);
}

#[test]
fn an_unreadable_manifest_slot_is_a_note_and_two_are_a_finding() {
    let mut image = four_cores();
    image.flip_byte("MANIFEST.1", 30);
    let report = verified(&image);
    assert!(report.is_sound());
    assert!(report.notes[0].contains("MANIFEST.1"));
    image.flip_byte("MANIFEST.0", 30);
    let report = verified(&image);
    assert!(matches!(report.findings[..], [WalError::ManifestLost { .. }]));
}

#[test]
fn what_is_no_log_is_an_error() {
    let disk = SimStorage::new(1);
    disk.write_file("holiday.jpg", b"...").unwrap();
    let storage: Arc<dyn Storage> = Arc::new(disk);
    assert!(matches!(verify(&storage), Err(WalError::NotALog { .. })));
}

#[test]
fn a_report_tells_the_story_of_each_core() {
    let mut log = new_log();
    log.core(0).segment().set_epoch(7).put(b"a", b"1").seal();
    log.core(0).segment().put(b"b", b"2").close();
    log.core(1).segment().put(b"a", b"1");
    log.core(2).segment().put(b"a", b"1").raw(&[0xee; 16]);
    log.core(3);
    let mut image = log.finish();
    image.files.insert("old.bak".to_owned(), vec![]);
    let report = recovered(&image).log.report;
    let lines: Vec<String> =
        report.to_string().lines().map(|line| line.trim().to_owned()).collect();
    assert!(lines[0].contains("log 30313233343536373839616263646566, manifest 1"), "{lines:#?}");
    assert_eq!(lines[1], "core 0: 2 segments, 2 entries in 160 bytes up to epoch 7; closed at 160");
    assert!(lines[2].contains("1 segment, 1 entry in 80 bytes"), "{lines:#?}");
    assert!(lines[2].contains("ends at 80, unproven (@A"), "{lines:#?}");
    assert!(
        lines[3].contains("torn at 80: dropped at least 4016 bytes, unproven (@B"),
        "{lines:#?}"
    );
    assert_eq!(lines[4], "core 3: empty (@F)");
    assert_eq!(lines[5], "left alone: \"old.bak\" is no name of a log");
}
