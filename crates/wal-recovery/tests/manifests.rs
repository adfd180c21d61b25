//! The manifest's two slots: torn, lost, foreign, newer, and directories that hold no log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::sync::Arc;

use support::{damaged, disk, new_log, recovered, refused, release};
use wal_format::{CoreDirectory, Features, LogId, ManifestSlot};
use wal_recovery::{RecoveryMode, SlotState, recover};
use wal_sim::SimStorage;
use wal_sim::fixture::{LogFixture, LogImage};
use wal_storage::{Storage, WalError};

fn small_log() -> LogFixture {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1");
    log
}

fn recover_on(disk: &SimStorage) -> Result<wal_recovery::RecoveredLog, WalError> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    recover(&storage, RecoveryMode::TornTail)
}

#[test]
fn the_valid_slot_with_the_higher_number_counts() {
    let mut log = small_log();
    let mut newer = log.clone();
    newer.manifest().number = 2;
    newer.manifest().releases = vec![release(0, 0)];
    newer.manifest().releases[0].last_epoch = 77;
    for slot in ManifestSlot::BOTH {
        let mut image = log.finish();
        image.write_manifest(slot, newer.manifest());
        let found = recovered(&image);
        assert_eq!(found.log.manifest.as_ref().unwrap().number, 2);
        assert_eq!(found.core(0).last_epoch, 77);
        // The newer one torn: the older one counts, as long as nothing names the newer one.
        image.flip_byte(slot.name(), 30);
        let found = recovered(&image);
        assert_eq!(found.log.manifest.as_ref().unwrap().number, 1);
        let states = found.log.manifest_slots;
        assert!(states.iter().any(|state| matches!(state, SlotState::Unreadable(_))));
        assert!(states.contains(&SlotState::Holds { number: 1, size_bytes: 65_536 }));
    }
    log.manifest().number = 5;
    let mut image = log.finish();
    image.remove("MANIFEST.1");
    assert_eq!(recovered(&image).log.manifest_slots[1], SlotState::Absent);
}

#[test]
fn a_manifest_longer_than_a_slot_is_made_is_read_whole() {
    let mut log = small_log();
    for core in 1..5000 {
        log.manifest().releases.push(release(core, 0));
    }
    let found = recovered(&log.finish());
    assert_eq!(found.log.manifest.unwrap().releases.len(), 4999);
}

#[test]
fn a_start_that_names_a_lost_manifest_is_an_error() {
    let mut log = small_log();
    log.core(0).last_segment().unwrap().start(|start| start.manifest_number = 2);
    match refused(&log.finish()) {
        WalError::ManifestLost { needed: 2, newest: Some(1), named_by, .. } => {
            assert!(named_by.contains("the start of core-0000"), "{named_by}");
        }
        other => panic!("{other}"),
    }
    log.manifest().number = 2;
    assert_eq!(recovered(&log.finish()).entries().len(), 1);
}

#[test]
fn a_dead_start_names_nothing() {
    let mut log = small_log();
    log.core(0).segment().start(|start| start.manifest_number = 9);
    let end = recovered(&small_log().finish()).core(0).end_position;
    log.manifest().cuts = vec![support::cut(0, end, 1, 2)];
    assert_eq!(recovered(&log.finish()).entries().len(), 1);
}

#[test]
fn both_slots_lost_is_an_error_that_names_the_way_out() {
    let image = small_log().finish();
    let losses: [fn(&mut LogImage); 4] = [
        |image| {
            image.remove("MANIFEST.0").remove("MANIFEST.1");
        },
        |image| {
            image.zero_from("MANIFEST.0", 0).zero_from("MANIFEST.1", 0);
        },
        |image| {
            image.flip_byte("MANIFEST.0", 50).flip_byte("MANIFEST.1", 60);
        },
        |image| {
            image.shrink_by("MANIFEST.0", 65_536).remove("MANIFEST.1");
        },
    ];
    for lose in losses {
        let mut image = image.clone();
        lose(&mut image);
        match refused(&image) {
            WalError::ManifestLost { needed: 1, newest: None, way_out, .. } => {
                assert!(way_out.contains("MANIFEST.0"), "{way_out}");
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_vouch_slot_alone_proves_that_there_was_a_manifest() {
    let mut log = new_log();
    log.core(0).unused_segment().vouch();
    let mut image = log.finish();
    image.remove("MANIFEST.0").remove("MANIFEST.1");
    assert!(matches!(refused(&image), WalError::ManifestLost { newest: None, .. }));
}

#[test]
fn a_crash_while_the_log_was_being_made_leaves_no_log_and_no_error() {
    let mut log = new_log();
    log.core(0).unused_segment();
    let image = log.finish();
    let states: [fn(&mut LogImage); 3] = [
        |image| {
            image.zero_from("MANIFEST.0", 0).remove("MANIFEST.1");
        },
        |image| {
            image.zero_from("MANIFEST.0", 40).zero_from("MANIFEST.1", 0);
        },
        |image| {
            image.remove("MANIFEST.0").remove("MANIFEST.1");
        },
    ];
    for state in states {
        let mut image = image.clone();
        state(&mut image);
        let found = recovered(&image);
        assert_eq!(found.log.manifest, None);
        assert_eq!(found.log.log_id, Some(LogId(support::LOG_ID)), "its files have it still");
        assert!(found.entries().is_empty());
    }
}

#[test]
fn without_a_manifest_the_files_must_agree_on_the_log() {
    let mut log = new_log();
    for core in 0..3 {
        log.core(core).unused_segment();
    }
    log.core(2).unused_segment().identity().log_id = LogId([9; 16]);
    let mut image = log.finish();
    image.remove("MANIFEST.0").remove("MANIFEST.1");
    let error = refused(&image);
    let WalError::ForeignLog { path, .. } = &error else { panic!("{error}") };
    assert!(path.ends_with(wal_sim::fixture::segment_name(2, 2)), "{error}");
}

#[test]
fn a_core_that_the_manifest_alone_knows_is_looked_into_as_any_other() {
    let mut log = small_log();
    log.manifest().releases = vec![release(7, 0)];
    log.manifest().releases[0].last_epoch = 77;
    let found = recovered(&log.finish());
    assert_eq!(found.core(7).last_epoch, 77);
    assert!(found.core(7).spans.is_empty());
    log.manifest().releases[0].position = 64;
    let corruption = damaged(&log.finish());
    assert!(corruption.path.ends_with("core-0007"), "{corruption}");
    assert!(corruption.proven_by.unwrap().witness.contains("release"));
}

#[test]
fn without_a_manifest_marks_in_unused_looking_segments_still_count() {
    let mut log = new_log();
    let segment = log.core(0).segment();
    segment.put(b"a", b"1");
    let durable = segment.position();
    let name = segment.mark(durable).put(b"b", b"2").name();
    let mut image = log.finish();
    image.remove("MANIFEST.0").remove("MANIFEST.1").overwrite(&name, 4096, &[0; 4096]);
    damaged(&image);
}

#[test]
fn an_empty_directory_may_become_a_log() {
    let disk = SimStorage::new(1);
    let found = recover_on(&disk).unwrap();
    assert_eq!((found.manifest, found.cores.len(), found.log_id), (None, 0, None));
    assert_eq!(found.manifest_slots, [SlotState::Absent, SlotState::Absent]);
    disk.create_directory("lost+found").unwrap();
    assert!(recover_on(&disk).is_ok());
    disk.create_directory(&CoreDirectory(0).to_string()).unwrap();
    let found = recover_on(&disk).unwrap();
    assert_eq!((found.manifest, found.cores.len()), (None, 1));
    assert!(found.report.to_string().contains("no log yet"));
}

#[test]
fn a_directory_of_other_files_is_not_a_log() {
    let disk = SimStorage::new(1);
    disk.write_file("holiday.jpg", b"...").unwrap();
    assert!(
        matches!(recover_on(&disk), Err(WalError::NotALog { reason, .. }) if reason.contains("holiday"))
    );
}

#[test]
fn a_slot_of_another_log_is_foreign() {
    let mut image = small_log().finish();
    let other = LogFixture::new([9; 16]).manifest().clone();
    image.write_manifest(ManifestSlot::One, &other);
    assert!(
        matches!(refused(&image), WalError::ForeignLog { path, .. } if path.ends_with("MANIFEST.1"))
    );
}

#[test]
fn before_anything_is_logged_the_first_of_two_logs_slots_counts() {
    // The second slot shows what the file of an opening held that was cut off before.
    let mut log = new_log();
    let expected = log.manifest().log_id;
    let other = LogFixture::new([9; 16]).manifest().clone();
    let mut image = log.finish();
    image.write_manifest(ManifestSlot::One, &other);
    assert_eq!(recovered(&image).log.log_id, Some(expected));
}

#[test]
fn a_segment_of_another_log_is_foreign() {
    let mut log = small_log();
    log.core(0).segment().identity().log_id = LogId([9; 16]);
    let error = refused(&log.finish());
    assert!(matches!(error, WalError::ForeignLog { .. }), "{error}");
    assert!(error.to_string().contains("0909090909"), "{error}");
}

#[test]
fn a_segment_under_the_name_of_another_is_damage() {
    for (core, segment_id) in [(1, 1), (0, 7)] {
        let mut log = small_log();
        let second = log.core(0).segment();
        second.identity().core = core;
        let name = second.name();
        second.identity().segment_id = segment_id;
        let bytes = second.bytes();
        let mut image = small_log().finish();
        let name = if core == 1 { wal_sim::fixture::segment_name(0, 2) } else { name };
        image.files.insert(name, bytes);
        assert!(damaged(&image).what.contains("the path"));
    }
}

#[test]
fn a_newer_version_of_a_slot_or_segment_is_not_touched() {
    let newer_features = Features { incompatible: 4, ..Features::NONE };
    let mut log = small_log();
    let mut newer = log.clone();
    newer.manifest().features = newer_features;
    newer.manifest().number = 3;
    for slot in ManifestSlot::BOTH {
        let mut image = log.finish();
        image.write_manifest(slot, newer.manifest());
        let error = refused(&image);
        assert!(matches!(error, WalError::UnsupportedVersion { unknown_features: 4, .. }));
    }
    log.core(0).segment().identity().features = newer_features;
    assert!(matches!(refused(&log.finish()), WalError::UnsupportedVersion { .. }));
    let mut log = small_log();
    log.core(0).segment().identity().payload_version = 2;
    assert!(matches!(refused(&log.finish()), WalError::UnsupportedVersion { found: 2, .. }));
}

#[test]
fn two_contents_under_one_number_are_damage() {
    let mut log = small_log();
    let mut image = log.finish();
    log.manifest().releases.push(release(0, 0));
    image.write_manifest(ManifestSlot::One, log.manifest());
    assert!(damaged(&image).what.contains("different contents"));
    let _ = disk(&image);
}
