//! Whatever a directory may hold that is not a sound log of this version, and whatever a caller
//! may ask that cannot be done: each is refused by the error that says who must act and where,
//! nothing on disk changes, and once the cause is removed the log works again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::path::Path;

use laminar_wal::{
    CoreWalWriter, Corruption, Storage, WalEntry, WalError, WalOperation, WalOptions,
};
use support::{Model, TestLog, say, segment, small, storage};
use wal_format::{
    BLOCK_BYTES, Checkpoint, CheckpointCore, Cut, Features, Manifest, RecordKind, Release,
    SEGMENT_HEADER_BYTES, SegmentBytes, crc32c_append,
};
use wal_sim::SimStorage;
use wal_storage::Result;

// ---- verbs ----

/// A closed log of two cores; core 0 has three segments, core 1 one.
fn closed_log() -> TestLog {
    closed_log_on(SimStorage::new(1))
}

fn closed_log_on(disk: SimStorage) -> TestLog {
    let mut log = TestLog::open(disk, 2, Model::default()).unwrap();
    for _ in 0..8 {
        log.run_jobs();
        log.append(0, 3000).unwrap();
        log.append(0, 400).unwrap();
        log.sync(0).unwrap();
        log.append(1, 60).unwrap();
        log.sync(1).unwrap();
    }
    log.run_jobs();
    log.close().unwrap();
    assert!(log.disk.names().contains(&segment(0, 4)), "the last one is prepared");
    log
}

/// Spoils a copy of the log's disk, sees both opening and reading refuse it without changing a
/// byte, removes the cause, and sees the log work again. Returns the refusal.
fn refused(log: &TestLog, spoil: impl FnOnce(&SimStorage)) -> WalError {
    let disk = log.disk.fork();
    spoil(&disk);
    let fingerprint = disk.content_fingerprint();
    let refusal = small(&disk).cores(2).open().expect_err("the log is spoilt");
    assert_eq!(disk.content_fingerprint(), fingerprint, "{refusal}");
    let again = small(&disk).cores(2).open().expect_err("the log is still spoilt");
    assert_eq!(again.to_string(), refusal.to_string(), "it is refused for the same reason again");
    assert_eq!(disk.content_fingerprint(), fingerprint, "{refusal}");

    for name in disk.names() {
        match log.disk.read_file(&name) {
            Ok(bytes) => disk.write_file(&name, &bytes).unwrap(),
            Err(_) => disk.delete(&name).unwrap(),
        }
    }
    for name in log.disk.names() {
        disk.write_file(&name, &log.disk.read_file(&name).unwrap()).unwrap();
    }
    let mut cured = TestLog::open(disk, 2, log.model.clone()).unwrap();
    cured.prove_that_it_goes_on().unwrap();
    cured.leave();
    refusal
}

/// As [`refused`], for damage.
fn damage(log: &TestLog, spoil: impl FnOnce(&SimStorage)) -> Corruption {
    match refused(log, spoil) {
        WalError::Corrupt(corruption) => (*corruption).clone(),
        other => panic!("{other}"),
    }
}

/// Damage that stops nothing: everything comes back, and the log goes on.
fn harmless(log: &TestLog, spoil: impl FnOnce(&SimStorage)) {
    let disk = log.disk.fork();
    spoil(&disk);
    let mut spoilt = TestLog::open(disk, 2, log.model.clone()).unwrap();
    spoilt.prove_that_it_goes_on().unwrap();
    spoilt.leave();
}

fn is_at(path: Option<&Path>, name: &str) -> bool {
    path.is_some_and(|path| path.ends_with(name))
}

/// A record of a segment: where it stands in the file, and its position.
fn record(log: &TestLog, name: &str, kind: RecordKind, nth: usize) -> (u64, u64) {
    let bytes = log.disk.read_file(name).unwrap();
    let file = SegmentBytes::parse(&bytes).unwrap();
    let base = file.start().unwrap().base_position;
    let record = file.records().filter(|record| record.kind == kind).nth(nth).unwrap();
    (record.position - base + SEGMENT_HEADER_BYTES, record.position)
}

fn manifest(disk: &SimStorage) -> Manifest {
    Manifest::decode(&disk.read_file("MANIFEST.0").unwrap()).unwrap()
}

fn write_manifest(disk: &SimStorage, slot: &str, manifest: &Manifest) {
    let mut bytes = manifest.encode().unwrap();
    bytes.resize(64 * 1024, 0);
    disk.write_file(slot, &bytes).unwrap();
}

fn write_manifests(disk: &SimStorage, manifest: &Manifest) {
    write_manifest(disk, "MANIFEST.0", manifest);
    write_manifest(disk, "MANIFEST.1", manifest);
}

/// Gives a block or manifest another version, with a checksum that fits.
fn make_newer(disk: &SimStorage, name: &str) {
    const VERSION: u64 = 8;
    const LENGTH: usize = 12;
    const CRC: usize = 16;
    disk.overwrite(name, VERSION, &2_u32.to_le_bytes()).unwrap();
    let bytes = disk.read_file(name).unwrap();
    let length = u32::from_le_bytes(bytes[LENGTH..LENGTH + 4].try_into().unwrap()) as usize;
    let sum = crc32c_append(0, &bytes[..CRC]);
    let sum = crc32c_append(crc32c_append(sum, &[0; 4]), &bytes[CRC + 4..length]);
    disk.overwrite(name, CRC as u64, &sum.to_le_bytes()).unwrap();
}

/// A log that was reset and closed: its last segment is begun, and holds nothing.
fn reset_log() -> TestLog {
    let mut log = TestLog::open(SimStorage::new(1), 2, Model::default()).unwrap();
    log.append_n(1, 3).unwrap();
    log.run_jobs();
    log.reset(1).unwrap();
    log.close().unwrap();
    log
}

/// The file in which core 1 of [`reset_log`] goes on.
fn begun_segment(disk: &SimStorage) -> String {
    let names = disk.names().into_iter().rev();
    let mut of_core = names.filter(|name| name.starts_with("core-0001/"));
    let is_begun = |name: &String| {
        SegmentBytes::parse(&disk.read_file(name).unwrap()).unwrap().start().is_ok()
    };
    of_core.find(is_begun).unwrap()
}

/// Gives the start of a segment another base sequence, with a checksum that fits, so that
/// `left` of the segment's size sequences are left.
fn set_base_sequence(disk: &SimStorage, name: &str, left: impl FnOnce(u64) -> u64) {
    let bytes = disk.read_file(name).unwrap();
    let file = SegmentBytes::parse(&bytes).unwrap();
    let mut start = file.start().unwrap().clone();
    start.base_sequence = u64::MAX - left(file.identity().size_bytes);
    let block = start.encode(file.identity().salt);
    disk.overwrite(name, BLOCK_BYTES as u64, block.as_bytes()).unwrap();
}

// ---- directories ----

#[test]
fn a_directory_of_something_else_is_not_made_into_a_log() {
    let disk = SimStorage::new(1);
    disk.write_file("holiday.jpg", b"beach").unwrap();
    let fingerprint = disk.content_fingerprint();
    let refusal = small(&disk).open().unwrap_err();
    assert!(matches!(&refusal, WalError::NotALog { .. }), "{refusal}");
    assert!(refusal.to_string().contains("holiday.jpg"), "{refusal}");
    assert_eq!(disk.content_fingerprint(), fingerprint);
    disk.delete("holiday.jpg").unwrap();
    TestLog::open(disk, 2, Model::default()).unwrap().prove_that_it_goes_on().unwrap();
}

#[test]
fn a_name_that_no_log_gives_is_left_alone_and_reported() {
    let log = closed_log();
    let disk = log.disk.fork();
    let strange = ["notes.txt", "core-0000/00000000000000000001.wal.bak", "core-12/x"];
    for name in strange {
        disk.write_file(name, b"mine").unwrap();
    }
    let mut log = TestLog::open(disk, 2, log.model).unwrap();
    let report = log.report.clone().unwrap();
    assert_eq!(
        report.strange_names,
        ["core-0000/00000000000000000001.wal.bak", "core-12", "notes.txt"]
    );
    assert!(report.to_string().contains("notes.txt"), "{report}");
    log.prove_that_it_goes_on().unwrap();
    for name in strange {
        assert_eq!(log.disk.read_file(name).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn a_directory_that_may_not_be_written_to_is_an_error_that_names_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::create_dir(&path).unwrap();
    let allow = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    allow(0o500);
    let is_above_permissions = std::fs::write(path.join("probe"), "").is_ok();
    if is_above_permissions {
        say("SKIPPED: permissions mean nothing to this user, so no directory is read-only");
        return;
    }
    let refusal = WalOptions::new(&path).open().unwrap_err();
    assert!(matches!(&refusal, WalError::Io { .. }), "{refusal}");
    assert!(refusal.to_string().contains("log"), "{refusal}");
    allow(0o700);
    let (wal, _) = WalOptions::new(&path).open().unwrap();
    wal.close().unwrap();
}

#[test]
fn a_path_that_cannot_be_a_directory_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "not a directory").unwrap();
    for path in [path.clone(), path.join("below")] {
        let refusal = WalOptions::new(&path).open().unwrap_err();
        assert!(matches!(&refusal, WalError::Io { .. } | WalError::NotALog { .. }), "{refusal}");
        assert!(refusal.to_string().contains("file"), "{refusal}");
        let refusal = CoreWalWriter::new(0, &path).unwrap_err();
        assert!(refusal.to_string().contains("file"), "{refusal}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"not a directory");
}

#[test]
fn a_log_that_another_writer_has_open_is_locked() {
    let mut log = TestLog::new(2);
    log.append(0, 10).unwrap();
    let refusal = small(&log.disk).cores(2).open().unwrap_err();
    assert!(matches!(&refusal, WalError::Locked { .. }), "{refusal}");
    assert!(refusal.to_string().contains("simulated"), "{refusal}");
    log.sync(0).unwrap();
    log.close().unwrap();
    log.reopen().unwrap();
}

#[test]
fn a_file_in_place_of_a_cores_directory_stops_the_opening() {
    let disk = SimStorage::new(1);
    let mut log = TestLog::open(disk, 1, Model::default()).unwrap();
    log.append(0, 10).unwrap();
    log.close().unwrap();
    log.disk.write_file("core-0001", b"?").unwrap();
    let refusal = small(&log.disk).cores(2).open().unwrap_err();
    assert!(refusal.to_string().contains("core-0001"), "{refusal}");
    log.disk.delete("core-0001").unwrap();
    let (wal, recovery) = small(&log.disk).cores(2).open().unwrap();
    assert_eq!(recovery.entries().unwrap().len(), 1);
    wal.close().unwrap();
}

#[test]
fn a_directory_in_place_of_a_segment_is_damage() {
    let log = closed_log();
    let disk = log.disk.fork();
    disk.create_directory(&segment(0, 9)).unwrap();
    let refusal = small(&disk).cores(2).open().unwrap_err();
    assert!(refusal.is_corrupt(), "{refusal}");
    assert!(refusal.to_string().contains(&segment(0, 9)), "{refusal}");
}

#[test]
fn one_core_alone_is_not_opened_in_a_log_of_several() {
    let log = closed_log();
    let fingerprint = log.disk.content_fingerprint();
    let refusal = CoreWalWriter::with_storage(0, storage(&log.disk), Default::default());
    let refusal = refusal.unwrap_err();
    assert!(matches!(&refusal, WalError::InvalidArgument { .. }), "{refusal}");
    assert!(refusal.to_string().contains("cores 0..=1"), "{refusal}");
    assert_eq!(log.disk.content_fingerprint(), fingerprint);
}

// ---- other logs, other versions ----

#[test]
fn a_segment_of_another_log_is_foreign() {
    let log = closed_log();
    let other = closed_log_on(SimStorage::new(2));
    let name = segment(0, 5);
    let refusal = refused(&log, |disk| {
        disk.write_file(&name, &other.disk.read_file(&segment(0, 1)).unwrap()).unwrap();
    });
    let WalError::ForeignLog { path, expected, found } = &refusal else { panic!("{refusal}") };
    assert!(path.ends_with(&name), "{refusal}");
    assert_eq!(expected, &manifest(&log.disk).log_id.to_string());
    assert_eq!(found, &manifest(&other.disk).log_id.to_string());
    assert!(refusal.to_string().contains(found) && refusal.to_string().contains(expected));
}

#[test]
fn prepared_files_of_two_logs_without_a_manifest_are_not_made_into_one() {
    let [disk, other] = [1, 2].map(|seed| {
        let mut log = TestLog::open(SimStorage::new(seed), 2, Model::default()).unwrap();
        log.run_jobs();
        log.close().unwrap();
        log.disk
    });
    let [ours, theirs] = [&disk, &other].map(|disk| manifest(disk).log_id.to_string());
    disk.delete("MANIFEST.0").unwrap();
    disk.delete("MANIFEST.1").unwrap();
    let name = segment(1, 1);
    disk.write_file(&name, &other.read_file(&name).unwrap()).unwrap();
    let fingerprint = disk.content_fingerprint();
    for cores in [1, 2] {
        let refusal = small(&disk).cores(cores).open().unwrap_err();
        let WalError::ForeignLog { path, expected, found } = &refusal else { panic!("{refusal}") };
        assert!(path.ends_with(&name), "{refusal}");
        assert_eq!((expected, found), (&ours, &theirs));
    }
    assert_eq!(disk.content_fingerprint(), fingerprint);
    disk.delete(&name).unwrap();
    let mut cured = TestLog::open(disk, 2, Model::default()).unwrap();
    assert_eq!(cured.wal().log_id().to_string(), ours);
    cured.prove_that_it_goes_on().unwrap();
}

#[test]
fn a_manifest_slot_of_another_log_is_foreign() {
    let log = closed_log();
    let other = closed_log_on(SimStorage::new(2));
    let refusal = refused(&log, |disk| {
        disk.write_file("MANIFEST.1", &other.disk.read_file("MANIFEST.1").unwrap()).unwrap();
    });
    assert!(matches!(&refusal, WalError::ForeignLog { .. }), "{refusal}");
    assert!(is_at(refusal.path(), "MANIFEST.1"), "{refusal}");
}

#[test]
fn two_manifests_of_one_number_that_disagree_are_damage() {
    let log = closed_log();
    let refusal = damage(&log, |disk| {
        let mut manifest = manifest(disk);
        manifest.members[0].core_count += 1;
        write_manifest(disk, "MANIFEST.1", &manifest);
    });
    assert!(refusal.path.ends_with("MANIFEST.1"), "{refusal}");
}

#[test]
fn a_segment_of_a_newer_version_is_not_called_damage() {
    let log = closed_log();
    let refusal = refused(&log, |disk| make_newer(disk, &segment(0, 2)));
    let WalError::UnsupportedVersion { path, found, supported, .. } = &refusal else {
        panic!("{refusal}")
    };
    assert!(path.ends_with(segment(0, 2)), "{refusal}");
    assert_eq!((*found, *supported), (2, 1));
}

#[test]
fn a_manifest_of_a_newer_version_is_not_called_damage_even_beside_an_old_one() {
    let log = closed_log();
    for slot in ["MANIFEST.0", "MANIFEST.1"] {
        let refusal = refused(&log, |disk| make_newer(disk, slot));
        assert!(matches!(refusal, WalError::UnsupportedVersion { found: 2, .. }), "{refusal}");
        assert!(is_at(refusal.path(), slot), "{refusal}");
    }
}

#[test]
fn features_that_a_reader_must_know_stop_it_and_those_for_writers_stop_writers() {
    let log = closed_log();
    let refusal = refused(&log, |disk| {
        let features = Features { incompatible: 4, ..Features::NONE };
        write_manifests(disk, &Manifest { features, ..manifest(disk) });
    });
    assert!(
        matches!(refusal, WalError::UnsupportedVersion { unknown_features: 4, .. }),
        "{refusal}"
    );
    let refusal = refused(&log, |disk| {
        let features = Features { read_compatible: 8, ..Features::NONE };
        write_manifests(disk, &Manifest { features, ..manifest(disk) });
        let storage = storage(disk);
        let found = wal_recovery::recover(&storage, Default::default()).unwrap();
        assert_eq!(found.replay(&storage).entries().unwrap().len(), 24, "it can be read");
    });
    assert!(
        matches!(refusal, WalError::UnsupportedVersion { unknown_features: 8, .. }),
        "{refusal}"
    );
}

// ---- damage ----

#[test]
fn damage_in_an_identity_block_names_the_file() {
    let log = closed_log();
    for id in 1..=4 {
        let name = segment(0, id);
        let refusal = damage(&log, |disk| disk.flip_bit(&name, 40, 3).unwrap());
        assert_eq!((refusal.core, refusal.position), (Some(0), None));
        assert!(refusal.path.ends_with(&name), "{refusal}");
        // A zeroed one is no unused segment: acked records may stand behind it.
        let refusal = damage(&log, |disk| disk.zero(&name, 0..4096).unwrap());
        assert!(refusal.path.ends_with(&name), "{refusal}");
    }
}

#[test]
fn a_segment_under_a_wrong_name_is_damage() {
    let log = closed_log();
    let bytes = log.disk.read_file(&segment(1, 1)).unwrap();
    for name in [segment(0, 2), segment(1, 7)] {
        let refusal = damage(&log, |disk| disk.write_file(&name, &bytes).unwrap());
        assert!(refusal.path.ends_with(&name), "{refusal}");
        assert!(refusal.what.contains("segment 1 of core 1"), "{refusal}");
    }
}

#[test]
fn damage_in_a_start_block_is_never_an_unused_segment() {
    let log = closed_log();
    for (core, id) in [(0, 1), (0, 2), (0, 3), (1, 1)] {
        for spoil in [
            |disk: &SimStorage, name: &str| disk.flip_bit(name, 4096 + 30, 0).unwrap(),
            |disk: &SimStorage, name: &str| disk.zero(name, 4096..8192).unwrap(),
        ] {
            let refusal = damage(&log, |disk| spoil(disk, &segment(core, id)));
            assert_eq!(refusal.core, Some(core), "{refusal}");
            let proof = refusal.proven_by.clone().unwrap();
            assert!(proof.durable_position > 0, "{refusal}");
        }
    }
}

#[test]
fn a_start_behind_which_sequences_would_run_out_is_damage() {
    let log = reset_log();
    let name = begun_segment(&log.disk);
    let lefts: [fn(u64) -> u64; 3] = [|_| 0, |_| 1, |size_bytes| size_bytes - 1];
    for left in lefts {
        let refusal = damage(&log, |disk| set_base_sequence(disk, &name, left));
        assert!(refusal.path.ends_with(&name), "{refusal}");
        assert!(refusal.what.contains("base sequence"), "{refusal}");
        assert_eq!(refusal.file_range, Some((4096, 8192)), "{refusal}");
    }
}

#[test]
fn a_log_that_has_hardly_a_sequence_left_can_be_read_and_not_gone_on_with() {
    // Whatever went on would end in a segment whose start nobody believes.
    let log = reset_log();
    let name = begun_segment(&log.disk);
    let lefts: [fn(u64) -> u64; 2] = [|size_bytes| size_bytes, |_| u64::MAX >> 1];
    for left in lefts {
        let disk = log.disk.fork();
        set_base_sequence(&disk, &name, left);
        let fingerprint = disk.content_fingerprint();
        let storage = storage(&disk);
        let found = wal_recovery::recover(&storage, Default::default()).unwrap();
        assert!(found.replay(&storage).entries().unwrap().is_empty());
        let refusal = small(&disk).cores(2).open().unwrap_err();
        assert!(refusal.is_corrupt(), "{refusal}");
        for part in ["core-0001", "not gone on with"] {
            assert!(refusal.to_string().contains(part), "{refusal}");
        }
        assert_eq!(disk.content_fingerprint(), fingerprint);
        // The other core is what it was.
        TestLog::open(disk, 1, Model::default()).unwrap().prove_that_it_goes_on().unwrap();
    }
}

#[test]
fn damage_in_a_vouch_block_takes_a_proof_away_and_nothing_else() {
    let log = closed_log();
    for (core, id) in [(0, 1), (0, 3), (1, 1)] {
        harmless(&log, |disk| disk.zero(&segment(core, id), 8192..12288).unwrap());
        harmless(&log, |disk| disk.flip_bit(&segment(core, id), 8192 + 2048 + 12, 1).unwrap());
    }
}

#[test]
fn damage_in_one_manifest_slot_is_repaired_from_the_other() {
    let log = closed_log();
    for slot in ["MANIFEST.0", "MANIFEST.1"] {
        harmless(&log, |disk| disk.flip_bit(slot, 40, 0).unwrap());
        harmless(&log, |disk| disk.zero(slot, 0..65536).unwrap());
        harmless(&log, |disk| disk.truncate_file(slot, 100).unwrap());
        harmless(&log, |disk| disk.delete(slot).unwrap());
    }
}

#[test]
fn damage_in_both_manifest_slots_says_what_is_lost_and_what_to_do() {
    let log = closed_log();
    for spoil in [
        |disk: &SimStorage, slot: &str| disk.flip_bit(slot, 40, 0).unwrap(),
        |disk: &SimStorage, slot: &str| disk.zero(slot, 0..65536).unwrap(),
        |disk: &SimStorage, slot: &str| disk.delete(slot).unwrap(),
    ] {
        let refusal = refused(&log, |disk| {
            spoil(disk, "MANIFEST.0");
            spoil(disk, "MANIFEST.1");
        });
        let WalError::ManifestLost { needed, newest, named_by, .. } = &refusal else {
            panic!("{refusal}")
        };
        assert_eq!((*needed, *newest), (1, None));
        assert!(named_by.contains(".wal"), "{refusal}");
        assert!(refusal.to_string().contains("Put a copy"), "{refusal}");
    }
}

#[test]
fn a_manifest_that_says_of_a_core_what_none_of_its_files_shows_is_damage() {
    // Were the core not looked at until it is one of the log's, entries would be acked until then
    // in a log that contradicts itself.
    const CORE: u16 = 5;
    let log = closed_log();
    let says: [fn(&mut Manifest); 3] = [
        |manifest| {
            let place = CheckpointCore { core: CORE, position: 64, sequence: 1, timestamp_ns: 0 };
            manifest.checkpoint = Some(Checkpoint {
                id: 1,
                epoch: 0,
                cores: vec![place],
                source_offsets: Vec::new(),
                watermark: None,
            });
        },
        |manifest| {
            let (position, last_epoch, last_timestamp_ns) = (64, 0, 0);
            manifest.releases =
                vec![Release { core: CORE, position, last_epoch, last_timestamp_ns }];
        },
        |manifest| {
            manifest.cuts = vec![Cut {
                core: CORE,
                position: 64,
                sequence: 1,
                dead_segment_id: 1,
                last_epoch: 0,
                last_timestamp_ns: 0,
            }];
        },
    ];
    for say in says {
        let refusal = damage(&log, |disk| {
            let mut manifest = manifest(disk);
            say(&mut manifest);
            write_manifests(disk, &manifest);
        });
        assert_eq!(refusal.core, Some(CORE), "{refusal}");
        assert!(refusal.path.ends_with("core-0005"), "{refusal}");
        assert!(refusal.proven_by.as_ref().unwrap().witness.contains("manifest"), "{refusal}");
    }
}

#[test]
fn an_old_manifest_in_both_slots_is_a_lost_one() {
    let mut log = closed_log();
    let old = log.disk.read_file("MANIFEST.0").unwrap();
    log.reopen().unwrap();
    log.truncate(0, 4).unwrap();
    log.append(0, 10).unwrap();
    log.close().unwrap();
    let refusal = refused(&log, |disk| {
        disk.write_file("MANIFEST.0", &old).unwrap();
        disk.write_file("MANIFEST.1", &old).unwrap();
    });
    let WalError::ManifestLost { needed: 2, newest: Some(1), .. } = &refusal else {
        panic!("{refusal}")
    };
}

#[test]
fn damage_in_a_record_names_file_core_and_position_and_what_proves_it() {
    let log = closed_log();
    for (core, id, nth) in [(0, 1, 0), (0, 1, 2), (0, 2, 1), (0, 3, 0), (1, 1, 0), (1, 1, 5)] {
        let name = segment(core, id);
        let (offset, position) = record(&log, &name, RecordKind::Entry, nth);
        for (byte, what) in [(0, "length"), (5, "checksum"), (20, "payload")] {
            let refusal = damage(&log, |disk| disk.flip_bit(&name, offset + byte, 4).unwrap());
            assert_eq!((refusal.core, refusal.position), (Some(core), Some(position)), "{what}");
            assert!(refusal.path.ends_with(&name), "{refusal}");
            assert_eq!(refusal.file_range.unwrap().0, offset, "{refusal}");
            let text = WalError::from(refusal).to_string();
            for part in [format!("core {core}"), name.clone(), format!("position {position}")] {
                assert!(text.contains(&part), "{text}");
            }
        }
    }
}

#[test]
fn damage_in_a_mark_is_damage_like_any_other() {
    let log = closed_log();
    for (core, id, nth) in [(0, 1, 0), (0, 2, 0), (1, 1, 1)] {
        let name = segment(core, id);
        let (offset, position) = record(&log, &name, RecordKind::Mark, nth);
        let refusal = damage(&log, |disk| disk.flip_bit(&name, offset + 9, 0).unwrap());
        assert_eq!((refusal.core, refusal.position), (Some(core), Some(position)));
    }
}

#[test]
fn damage_in_a_seal_costs_nothing_for_the_next_segment_says_where_this_one_ends() {
    let log = closed_log();
    for id in [1, 2] {
        let name = segment(0, id);
        let (offset, _) = record(&log, &name, RecordKind::Seal, 0);
        for byte in [0, 5, 9] {
            harmless(&log, |disk| disk.flip_bit(&name, offset + byte, 2).unwrap());
        }
    }
}

#[test]
fn a_missing_segment_is_named_by_the_one_that_continues_it() {
    let log = closed_log();
    for id in [1, 2] {
        let refusal = damage(&log, |disk| disk.delete(&segment(0, id)).unwrap());
        assert!(refusal.path.ends_with(segment(0, id + 1)), "{refusal}");
        assert!(refusal.what.contains(&segment(0, id)), "{refusal}");
    }
}

#[test]
fn a_missing_last_segment_is_not_taken_for_the_end() {
    let log = closed_log();
    let refusal = damage(&log, |disk| disk.delete(&segment(0, 3)).unwrap());
    assert!(refusal.path.ends_with(segment(0, 2)), "{refusal}");
    assert!(refusal.what.contains("missing"), "{refusal}");
    let refusal = damage(&log, |disk| {
        disk.delete(&segment(0, 3)).unwrap();
        disk.delete(&segment(0, 4)).unwrap();
    });
    assert!(refusal.path.ends_with(segment(0, 2)), "{refusal}");
}

#[test]
fn every_damage_is_found_at_once_by_verify_and_none_is_touched() {
    let log = closed_log();
    let disk = log.disk.fork();
    let (first, _) = record(&log, &segment(0, 1), RecordKind::Entry, 1);
    let (second, _) = record(&log, &segment(1, 1), RecordKind::Entry, 1);
    disk.flip_bit(&segment(0, 1), first + 20, 1).unwrap();
    disk.flip_bit(&segment(1, 1), second + 20, 1).unwrap();
    disk.zero("MANIFEST.1", 0..4096).unwrap();
    let fingerprint = disk.content_fingerprint();
    let found = wal_recovery::verify(&storage(&disk)).unwrap();
    assert_eq!(found.findings.len(), 2, "{found}");
    assert_eq!(found.notes.len(), 1, "{found}");
    assert_eq!(disk.content_fingerprint(), fingerprint);
}

// ---- callers ----

#[test]
fn options_that_cannot_be_used_are_refused_by_name_and_touch_nothing() {
    let disk = SimStorage::new(1);
    let refuse = |options: WalOptions, name: &str| {
        let refusal = options.open().unwrap_err();
        assert!(matches!(&refusal, WalError::InvalidArgument { .. }), "{refusal}");
        assert!(refusal.to_string().contains(name), "{refusal}");
    };
    refuse(small(&disk).cores(0), "core");
    refuse(small(&disk).segment_bytes(5000), "segment_bytes");
    refuse(small(&disk).segment_bytes(4096), "segment_bytes");
    refuse(small(&disk).max_record_bytes(0), "max_record_bytes");
    refuse(small(&disk).max_record_bytes(1 << 28), "max_record_bytes");
    refuse(small(&disk).batch_bytes(1000), "batch_bytes");
    assert!(disk.names().is_empty());
    small(&disk).open().unwrap();
}

#[test]
fn a_core_that_is_not_there_is_out_of_range() {
    let log = TestLog::new(2);
    let refusal = log.wal().writer(2).unwrap_err();
    assert!(matches!(refusal, WalError::CoreOutOfRange { core: 2, cores: 2 }), "{refusal}");
    log.wal().writer(u16::MAX).unwrap_err();
}

#[test]
fn a_writer_is_handed_out_once_at_a_time() {
    let disk = SimStorage::new(1);
    let (wal, _) = small(&disk).cores(2).open().unwrap();
    let writer = wal.writer(1).unwrap();
    let refusal = wal.writer(1).unwrap_err();
    assert!(matches!(refusal, WalError::WriterTaken { core: 1 }), "{refusal}");
    let refusal = wal.writers().unwrap_err();
    assert!(matches!(refusal, WalError::WriterTaken { core: 1 }), "{refusal}");
    let zero = wal.writer(0).expect("asking for all has not taken core 0");
    drop(writer);
    wal.writer(1).unwrap();
    drop(zero);
    wal.writers().unwrap();
}

#[test]
fn a_record_over_the_limit_is_refused_before_a_byte_of_it_is_accepted() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 100)?;
    let refusal = log.append(0, 64 * 1024).unwrap_err();
    let WalError::RecordTooLarge { core: 0, payload_bytes, limit_bytes: 65536 } = refusal else {
        panic!("{refusal}")
    };
    assert!(payload_bytes > 64 * 1024);
    assert!(refusal.to_string().contains("max_record_bytes"), "{refusal}");
    log.append(0, 64 * 1024 - 200)?;
    log.sync(0)?;
    log.crash_losing_everything()
}

#[test]
fn a_cut_off_a_record_boundary_is_refused_with_the_nearest_ones() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append_n(0, 5)?;
    log.sync(0)?;
    log.append_n(0, 5)?;
    log.sync(0)?;
    let positions = log.model.core(0).positions.clone();
    let end = log.writer(0).position();
    for (index, &position) in positions.iter().enumerate() {
        for within in [1, 7, 8, 24] {
            let refusal = log.writer(0).truncate(position + within).unwrap_err();
            let WalError::NotARecordBoundary { core: 0, boundary_below, boundary_above, .. } =
                refusal
            else {
                panic!("{refusal}")
            };
            assert_eq!(boundary_below, position);
            let next = positions.get(index + 1).copied().unwrap_or(end);
            // A mark may stand before the next entry.
            assert!([next, next - 24].contains(&boundary_above), "{refusal}");
        }
    }
    assert_eq!(log.writer(0).position(), end);
    log.truncate(0, 7)?;
    log.prove_that_it_goes_on()
}

#[test]
fn a_cut_beyond_the_end_is_refused() -> Result<()> {
    let mut log = TestLog::new(1);
    let refusal = log.writer(0).truncate(8).unwrap_err();
    assert!(matches!(&refusal, WalError::InvalidArgument { .. }), "{refusal}");
    log.append_n(0, 3)?;
    let end = log.writer(0).position();
    let refusal = log.writer(0).truncate(end + 8).unwrap_err();
    assert!(matches!(&refusal, WalError::InvalidArgument { .. }), "{refusal}");
    assert!(refusal.to_string().contains(&format!("0 to {end}")), "{refusal}");
    log.writer(0).truncate(u64::MAX).unwrap_err();
    log.prove_that_it_goes_on()
}

#[test]
fn open_at_refuses_what_truncate_refuses_and_lets_go_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = CoreWalWriter::new(3, &path).unwrap();
    writer.append_put(b"a", b"1").unwrap();
    let second = writer.append_put(b"b", b"2").unwrap();
    let end = writer.position();
    writer.close().unwrap();
    let refusal = CoreWalWriter::open_at(3, &path, second + 8).unwrap_err();
    assert!(matches!(&refusal, WalError::NotARecordBoundary { core: 3, .. }), "{refusal}");
    let refusal = CoreWalWriter::open_at(3, &path, end + 8).unwrap_err();
    assert!(matches!(&refusal, WalError::InvalidArgument { .. }), "{refusal}");
    let writer = CoreWalWriter::new(3, &path).unwrap();
    assert_eq!((writer.position(), writer.sequence()), (end, 2), "nothing was cut");
}

#[test]
fn a_log_is_not_cut_below_its_checkpoint() -> Result<()> {
    let mut log = TestLog::new(2);
    for core in 0..2 {
        log.append_n(core, 3)?;
        log.barrier(core)?;
        log.sync(core)?;
    }
    let barrier_end: Vec<u64> = (0..2).map(|core| log.writer(core).position()).collect();
    log.append_n(0, 3)?;
    log.close()?;
    let entries = small(&log.disk.fork()).cores(2).open()?.1.entries()?;
    let is_barrier = |entry: &&WalEntry| entry.operation == WalOperation::EpochBarrier { epoch: 0 };
    let barriers: Vec<&WalEntry> = entries.iter().filter(is_barrier).collect();
    let mut found = manifest(&log.disk);
    found.number += 1;
    found.checkpoint = Some(Checkpoint {
        id: 7,
        epoch: 0,
        cores: (0..2)
            .map(|core| CheckpointCore {
                core,
                position: barrier_end[usize::from(core)],
                sequence: 4,
                timestamp_ns: barriers[usize::from(core)].timestamp_ns,
            })
            .collect(),
        source_offsets: Vec::new(),
        watermark: None,
    });
    write_manifests(&log.disk, &found);
    log.reopen()?;
    assert_eq!(log.report.as_ref().unwrap().checkpoint.unwrap().id, 7);

    let position = log.model.core(0).positions[2];
    let refusal = log.writer(0).truncate(position).unwrap_err();
    let WalError::BelowCheckpoint { core: 0, checkpoint_position, .. } = refusal else {
        panic!("{refusal}")
    };
    assert_eq!(checkpoint_position, barrier_end[0]);
    assert!(refusal.to_string().contains("reset"), "{refusal}");
    // At the checkpoint is not below it.
    log.writer(0).truncate(barrier_end[0])?;
    assert_eq!(log.writer(0).sequence(), 4);
    // And `reset` gives the checkpoint up, on every core: no later opening misses it.
    log.model.core_mut(0).entries.truncate(4);
    log.reset(0)?;
    log.reset(1)?;
    log.close()?;
    assert_eq!(manifest(&log.disk).checkpoint, None);
    log.reopen()?;
    log.prove_that_it_goes_on()
}

#[test]
fn an_epoch_does_not_go_back() -> Result<()> {
    let mut log = TestLog::new(1);
    log.writer(0).set_epoch(5)?;
    log.append(0, 10)?;
    let refusal = log.writer(0).set_epoch(4).unwrap_err();
    assert!(
        matches!(refusal, WalError::EpochRegressed { core: 0, requested: 4, current: 5 }),
        "{refusal}"
    );
    assert_eq!(log.writer(0).epoch(), 5);
    log.writer(0).set_epoch(5)?;
    log.prove_that_it_goes_on()
}

#[test]
fn an_entry_that_does_not_continue_the_log_is_refused_field_by_field() -> Result<()> {
    let mut log = TestLog::new(2);
    log.writer(1).set_epoch(3)?;
    let entry = |core, epoch, sequence, timestamp_ns| {
        WalEntry::put(core, epoch, sequence, b"k".to_vec(), b"v".to_vec(), timestamp_ns)
    };
    log.writer(1).append(&entry(1, 3, 0, 1000))?;
    let mut barrier = WalEntry::epoch_barrier(1, 4, 1, 2000);
    barrier.epoch = 3;
    for (refused, wanted) in [
        (entry(0, 3, 1, 2000), "core_id"),
        (entry(1, 3, 0, 2000), "sequence"),
        (entry(1, 3, 2, 2000), "sequence"),
        (entry(1, 2, 1, 2000), "epoch"),
        (entry(1, 3, 1, 999), "timestamp_ns"),
        (barrier, "barrier epoch"),
    ] {
        let position = log.writer(1).position();
        let refusal = log.writer(1).append(&refused).unwrap_err();
        let WalError::EntryOutOfOrder { core: 1, field, .. } = refusal else { panic!("{refusal}") };
        assert_eq!(field, wanted);
        assert_eq!((log.writer(1).position(), log.writer(1).sequence()), (position, 1));
    }
    log.writer(1).append(&entry(1, 3, 1, 1000))?;
    Ok(())
}

#[test]
fn a_proof_of_another_log_core_or_time_marks_nothing() -> Result<()> {
    let rejected = |log: &mut TestLog, core, proof, reason: &str| {
        let synced = log.writer(core).synced_position();
        let refusal = log.writer(core).mark_synced(proof).unwrap_err();
        assert!(matches!(&refusal, WalError::ProofRejected { .. }), "{refusal}");
        assert!(refusal.to_string().contains(reason), "{refusal}");
        assert_eq!(log.writer(core).synced_position(), synced);
    };
    let mut other = TestLog::open(SimStorage::new(2), 2, Model::default())?;
    other.append_n(0, 9)?;
    let of_another_log = other.writer(0).start_sync()?.run()?;

    let mut log = TestLog::new(2);
    log.append_n(0, 3)?;
    rejected(&mut log, 0, of_another_log, "another log");

    log.append_n(1, 9)?;
    let of_another_core = log.writer(1).start_sync()?.run()?;
    rejected(&mut log, 0, of_another_core, "another core");

    log.append_n(0, 3)?;
    let from_before_a_cut = log.writer(0).start_sync()?.run()?;
    log.truncate(0, 1)?;
    log.append_n(0, 1)?;
    rejected(&mut log, 0, from_before_a_cut, "before the log was opened or cut");

    log.append_n(0, 3)?;
    let from_before_an_opening = log.writer(0).start_sync()?.run()?;
    log.close()?;
    log.reopen()?;
    log.append_n(0, 1)?;
    rejected(&mut log, 0, from_before_an_opening, "before the log was opened or cut");
    Ok(())
}
