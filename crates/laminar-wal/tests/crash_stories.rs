//! Power fails at every moment of a log's life, in every way that a disk has; and the stories, of
//! this log's making and of other logs' past, of protocols that looked right until a crash showed
//! that they were not. Each became a rule, and each rule has its story here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::thread;

use laminar_wal::{
    CheckpointDetails, CoreWalWriter, EndingKind, RecoveryMode, Wal, WalError, WalOptions,
};
use support::{LONG_LIFE, TestLog, crash_plans, seeds, segment, small};
use wal_format::{
    Checkpoint, CheckpointCore, Manifest, SEGMENT_HEADER_BYTES, START_OFFSET, VOUCH_OFFSET,
};
use wal_sim::{CrashPlan, Fault, Granularity, OperationKind, Part, SimStorage};
use wal_storage::{Result, Storage};

// ---- everything, at every moment ----

#[test]
fn whatever_was_acked_is_there_after_power_loss_at_any_moment() -> Result<()> {
    let mut log = TestLog::watched(2);
    let mut moments = 0;
    for &step in LONG_LIFE {
        log.perform(step)?;
        for moment in log.take_moments() {
            moments += 1;
            for plan in crash_plans(0..5) {
                moment.crash(plan).leave();
            }
            moment.kill().leave();
        }
    }
    assert!(moments > 200, "{moments} moments");
    Ok(())
}

#[test]
fn a_log_goes_on_after_power_loss_at_any_moment() -> Result<()> {
    let mut log = TestLog::watched(2);
    for &step in LONG_LIFE {
        log.perform(step)?;
        for moment in log.take_moments() {
            let plan = CrashPlan::random(moment.operation);
            let mut after = moment.crash(plan);
            after.append(0, 3000)?;
            after.truncate(1, 1)?;
            after.prove_that_it_goes_on()?;
            after.leave();
        }
    }
    Ok(())
}

#[test]
fn power_may_fail_again_at_any_moment_of_an_opening() -> Result<()> {
    let mut log = TestLog::watched(2);
    let mut moments = 0;
    for &step in LONG_LIFE {
        log.perform(step)?;
        for moment in log.take_moments().into_iter().step_by(9) {
            let disk = moment.disk.crash(CrashPlan::random(moment.operation));
            let mut opening = TestLog::closed(disk, 2, moment.model.clone());
            opening.story = format!("opening after power loss before {}", moment.operation);
            opening.watch();
            opening.reopen()?;
            opening.run_jobs();
            for again in opening.take_moments() {
                moments += 1;
                for plan in crash_plans(0..2) {
                    again.crash(plan).leave();
                }
            }
            opening.leave();
        }
    }
    assert!(moments > 200, "{moments} moments");
    Ok(())
}

#[test]
fn a_process_that_dies_at_any_moment_and_then_loses_power_keeps_what_the_next_one_read()
-> Result<()> {
    // kafka, SpacetimeDB: entries in the page cache alone are read, acted upon, and then lost.
    let mut log = TestLog::watched(2);
    for &step in LONG_LIFE {
        log.perform(step)?;
        for moment in log.take_moments().into_iter().step_by(3) {
            let mut next = moment.kill();
            next.crash_losing_everything()?;
            next.prove_that_it_goes_on()?;
            next.leave();
        }
    }
    Ok(())
}

#[test]
fn a_process_that_dies_in_a_cut_and_a_power_loss_in_the_next_opening_leave_one_manifest()
-> Result<()> {
    // The newest manifest may be in the page cache alone: were the other slot written first, both
    // could be gone.
    let mut log = TestLog::new(1);
    log.append_n(0, 3)?;
    log.sync(0)?;
    log.run_jobs();
    log.watch();
    log.truncate(0, 1)?;
    for moment in log.take_moments() {
        let mut opening = TestLog::closed(moment.disk.kill(), 1, moment.model.clone());
        opening.watch();
        opening.reopen()?;
        for again in opening.take_moments() {
            for plan in crash_plans(0..30) {
                // Until the opening has ended nobody has seen what it found: what was promised by
                // then counts.
                let mut after = TestLog::closed(again.disk.crash(plan), 1, moment.model.clone());
                after.story =
                    format!("before {} and {}, {plan:?}", moment.operation, again.operation);
                after.reopen().unwrap_or_else(|error| panic!("{}: {error}", after.story));
                after.leave();
            }
        }
        opening.leave();
    }
    Ok(())
}

// ---- writing and syncing ----

#[test]
fn full_buffers_that_were_written_before_a_durable_tail_are_durable_too() -> Result<()> {
    // A write with RWF_DSYNC speaks for its own bytes alone: on a device with forced unit access
    // the cached ones before it are lost, and the ack was for all of them.
    let mut log = TestLog::new(1);
    for _ in 0..5 {
        for size in [2000, 2000, 2000, 10] {
            log.append(0, size)?;
        }
        log.sync(0)?;
        let mut after = TestLog::closed(
            log.disk.crash(CrashPlan::lose_everything_unsynced()),
            1,
            log.model.clone(),
        );
        after.reopen()?;
        after.leave();
    }
    Ok(())
}

#[test]
fn entries_that_share_a_block_do_not_erase_each_other() -> Result<()> {
    // Two direct writes of one block that finish in the wrong order leave the older one. So one
    // write is in flight, and the block is written again with the same first bytes.
    let mut log = TestLog::watched(1);
    for _ in 0..30 {
        log.append(0, 10)?;
        log.sync(0)?;
    }
    for moment in log.take_moments() {
        for seed in seeds(0..6) {
            let plan = CrashPlan::random(seed);
            moment.crash(plan.granularity(Granularity::Byte)).leave();
            moment.crash(plan.granularity(Granularity::Sector512)).leave();
        }
    }
    Ok(())
}

#[test]
fn nothing_of_the_next_segment_is_durable_before_all_of_this_one() -> Result<()> {
    // Were it, a plain crash would leave a segment that vouches for bytes that never were, and
    // look like damage (yugabyte, fjall).
    let mut log = TestLog::watched(1);
    for _ in 0..3 {
        // Two segments and more, without a sync in between.
        for _ in 0..20 {
            log.append(0, 1500)?;
        }
        log.sync(0)?;
    }
    for moment in log.take_moments() {
        for plan in crash_plans(0..16) {
            moment.crash(plan).leave();
        }
    }
    Ok(())
}

#[test]
fn a_quiet_core_vouches_for_what_was_synced_and_not_for_what_was_only_written() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    // Full buffers go to the disk, and nobody waits for them.
    for _ in 0..4 {
        log.append(0, 3000)?;
    }
    log.watch();
    log.be_quiet();
    for moment in log.take_moments() {
        moment.crash(CrashPlan::lose_everything_unsynced()).leave();
    }
    // Did the slot claim them, losing them would look like damage.
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 1);
    Ok(())
}

#[test]
fn another_thread_syncs_what_was_handed_to_it_and_claims_nothing_else() -> Result<()> {
    // stoolap: a committer's fsync ran while another's bytes were still outside of the file, and
    // acked both.
    let mut log = TestLog::new(1);
    log.append_n(0, 3)?;
    let request = log.writer(0).start_sync()?;
    log.append_n(0, 3)?;
    let proof = request.run()?;
    let handed_over = log.model.core(0).positions[3];
    assert!(proof.position() <= handed_over);
    log.writer(0).mark_synced(proof)?;
    assert_eq!(log.writer(0).entries_since_sync(), 3);
    log.model.core_mut(0).acked = 3;
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), 3);
    Ok(())
}

#[test]
fn of_many_threads_that_sync_at_once_every_one_comes_to_an_end() -> Result<()> {
    // A leader that wakes its waiters before it lets go of the device leaves nobody to lead.
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = WalOptions::new(directory.path().join("log")).batch_bytes(4096).open()?;
    let mut writer = wal.writer(0)?;
    thread::scope(|scope| {
        for _ in 0..50 {
            let mut running = Vec::new();
            for _ in 0..8 {
                writer.append_put(b"k", &[7; 700]).unwrap();
                let request = writer.start_sync().unwrap();
                running.push(scope.spawn(|| request.run().unwrap()));
            }
            for proof in running {
                writer.mark_synced(proof.join().unwrap()).unwrap();
            }
            assert_eq!(writer.entries_since_sync(), 0);
        }
    });
    drop(writer);
    wal.close()
}

#[test]
fn an_append_whose_full_buffer_cannot_be_written_is_not_appended_twice() -> Result<()> {
    // cockroach, proton: the record is half in the file, the caller tries again, and a sequence
    // number is there twice.
    for part in [Part::Nothing, Part::Prefix, Part::Random, Part::Everything] {
        for number in 0..4 {
            let mut log = TestLog::new(1);
            log.story = format!("{part:?}, write {number}");
            log.append(0, 10)?;
            log.sync(0)?;
            let fault = Fault::on(OperationKind::Write).named("core-0000/00").nth(number);
            log.disk.inject(fault.done(part));
            let mut refused = 0;
            for _ in 0..12 {
                refused += usize::from(log.append(0, 3000).is_err());
            }
            assert!(refused > 0);
            log.sync(0).unwrap_err();
            log.kill()?;
            log.prove_that_it_goes_on()?;
        }
    }
    Ok(())
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_alone_is_written_again_before_it_is_built_on()
-> Result<()> {
    // PostgreSQL's fsyncgate, second half: the next process reads what the disk never got, builds
    // on it, and power loss takes the ground away.
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    for _ in 0..3 {
        log.append(0, 3000)?;
    }
    log.disk.inject(Fault::on(OperationKind::Sync).done(Part::Nothing));
    log.sync(0).unwrap_err();
    log.kill()?;
    let adopted = log.model.core(0).entries.len();
    assert!(adopted > 1, "the page cache shows more than the disk has");
    log.append(0, 10)?;
    log.sync(0)?;
    log.crash_losing_everything()?;
    assert_eq!(log.model.core(0).entries.len(), adopted + 1);
    Ok(())
}

// ---- tails ----

#[test]
fn what_is_acked_behind_a_torn_tail_survives_the_second_restart_too() -> Result<()> {
    // acoustid, amelie: appended behind the tear, the second restart stops at the old one.
    let mut tears = 0;
    for seed in seeds(0..40) {
        let mut log = TestLog::new(1);
        log.story = format!("seed {seed}");
        for round in 0..4 {
            log.append(0, 100)?;
            log.sync(0)?;
            for _ in 0..3 {
                log.append(0, 2500)?;
            }
            log.crash(CrashPlan::random(seed * 4 + round))?;
            tears += usize::from(log.found(0).ending.is_torn());
        }
        log.prove_that_it_goes_on()?;
    }
    assert!(tears > 20, "{tears} torn tails");
    Ok(())
}

#[test]
fn dead_records_of_a_torn_batch_do_not_validate_behind_new_ones() -> Result<()> {
    // Going on in place, a record of the same size as the lost one would make the kept ones
    // behind it part of the log.
    for seed in seeds(0..60) {
        let mut log = TestLog::new(1);
        log.story = format!("seed {seed}");
        log.append(0, 16)?;
        log.sync(0)?;
        for _ in 0..4 {
            log.append(0, 3000)?;
        }
        let lost_from = log.model.core(0).entries.len() - 4;
        log.crash(CrashPlan::random(seed))?;
        let kept = log.model.core(0).entries.len();
        assert!(kept >= lost_from);
        // The same sizes again, other keys and values: `settle` knows them apart.
        while log.model.core(0).entries.len() < lost_from + 4 {
            log.put(0, &format!("new {kept}"), &"x".repeat(2995))?;
            log.sync(0)?;
            let mut after = TestLog::closed(
                log.disk.crash(CrashPlan::lose_everything_unsynced()),
                1,
                log.model.clone(),
            );
            after.reopen()?;
            after.leave();
        }
    }
    Ok(())
}

#[test]
fn an_abandoned_barrier_is_not_taken_for_that_of_a_checkpoint() -> Result<()> {
    let mut abandoned = 0;
    for seed in 0..40 {
        let disk = SimStorage::new(seed);
        let (wal, _) = WalOptions::on_storage(support::storage(&disk)).open()?;
        wal.begin_checkpoint(1)?.complete(CheckpointDetails::default())?;
        let mut writer = wal.writer(0)?;
        let arrive_at_second = |wal: &Wal, writer: &mut CoreWalWriter| {
            (0..12).try_for_each(|_| writer.append_put(b"key", &[1; 1000]).map(|_| ()))?;
            let pending = wal.begin_checkpoint(2)?;
            pending.arrival().arrive(writer).map(|barrier_end| (pending, barrier_end))
        };
        // Of the batch with the barrier, a part comes to the disk.
        let (_pending, barrier_end) = arrive_at_second(&wal, &mut writer)?;
        disk.inject(Fault::on(OperationKind::Write).done(Part::Random));
        writer.sync().unwrap_err();
        let disk = disk.crash(CrashPlan::keep_everything());
        // Who does the same again writes the same barrier to the same position of the next segment.
        let (wal, recovery) = WalOptions::on_storage(support::storage(&disk)).open()?;
        let recovered_to = recovery.report().cores[0].end_position;
        let mut writer = wal.writer(0)?;
        let (pending, again) = arrive_at_second(&wal, &mut writer)?;
        pending.complete(CheckpointDetails::default())?;
        writer.append_put(b"acked", b"")?;
        writer.sync()?;
        if recovered_to >= barrier_end || again != barrier_end {
            continue;
        }
        abandoned += 1;
        // The segment's start block is lost.
        let damaged = disk.kill();
        damaged.zero(&segment(0, 2), START_OFFSET..VOUCH_OFFSET)?;
        let reopened = WalOptions::on_storage(support::storage(&damaged)).open();
        assert!(reopened.is_err_and(|error| error.is_corrupt()), "seed {seed}");
    }
    assert!(abandoned > 10, "{abandoned} stories");
    Ok(())
}

#[test]
fn a_lost_block_in_the_middle_of_a_batch_ends_the_log_there() -> Result<()> {
    // commonware: a later page survives, an interior one does not; recovery adopts past the hole.
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    for _ in 0..3 {
        log.append(0, 3000)?;
    }
    let before = log.disk.fork();
    // The block of the synced entry begins with it; damage there is another story.
    for block in 4..6 {
        log.disk = before.kill();
        log.disk.zero(&segment(0, 1), block * 4096..(block + 1) * 4096)?;
        let mut found = TestLog::open(log.disk.clone(), 1, log.model.clone())?;
        let count = found.model.core(0).entries.len();
        assert!(count <= 3, "block {block}: {count} entries");
        found.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn a_quiet_log_ends_where_it_ends_and_an_unquiet_one_is_unproven() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    let kind = |log: &TestLog| {
        let disk = log.disk.crash(CrashPlan::lose_everything_unsynced());
        let after = TestLog::open(disk, 1, log.model.clone()).unwrap();
        after.found(0).ending.kind
    };
    assert_eq!(kind(&log), EndingKind::Unproven);
    log.be_quiet();
    assert_eq!(kind(&log), EndingKind::Proven);
    log.close()?;
    assert_eq!(kind(&log), EndingKind::Closed);
    Ok(())
}

// ---- files ----

#[test]
fn a_zeroed_identity_block_is_not_an_unused_segment() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.sync(0)?;
    log.close()?;
    log.disk.zero(&segment(0, 1), 0..4096)?;
    let refusal = small(&log.disk).open().unwrap_err();
    assert!(refusal.is_corrupt(), "{refusal}");
    Ok(())
}

#[test]
fn a_log_without_one_of_its_prepared_files_is_refused_at_once_or_never() -> Result<()> {
    let disk = SimStorage::new(1);
    let options = |disk: &SimStorage| small(disk).in_flight_bytes(256 * 1024);
    {
        let (wal, _) = options(&disk).open()?;
        let mut writer = wal.writer(0)?;
        writer.append_put(b"acked", b"")?;
        writer.sync()?;
        // Each takes the next segment, and nothing is written yet.
        (0..4).try_for_each(|_| writer.append_put(b"key", &[1; 12_000]).map(|_| ()))?;
        disk.halt();
    }
    let specimen = disk.crash(CrashPlan::lose_everything_unsynced());
    let mut refused = Vec::new();
    for (gone, appends) in (2..=4).flat_map(|id| [(id, false), (id, true)]) {
        let disk = specimen.fork();
        disk.delete(&segment(0, gone))?;
        match options(&disk).open() {
            Ok((wal, _)) => {
                if appends {
                    wal.writer(0)?.append_put(b"behind", b"")?;
                }
                wal.close()?;
                options(&disk.kill()).open()?;
            }
            Err(error) if error.is_corrupt() => refused.push(gone),
            Err(error) => return Err(error),
        }
    }
    assert_eq!(refused, [2, 2, 3, 3]);
    Ok(())
}

#[test]
fn damage_in_an_old_segment_is_not_the_end_of_the_log() -> Result<()> {
    // unistore and others: the damaged segment ends the replay, or is skipped and the later ones
    // are replayed without it.
    let mut log = TestLog::new(1);
    for _ in 0..5 {
        for _ in 0..4 {
            log.append(0, 2000)?;
        }
        log.sync(0)?;
        log.run_jobs();
    }
    let disk = log.disk.kill();
    for id in 1..=3 {
        for block in [3, 4] {
            let spoilt = disk.fork();
            spoilt.flip_bit(&segment(0, id), block * 4096 + 50, 1)?;
            let refusal = small(&spoilt).open().unwrap_err();
            assert!(refusal.is_corrupt(), "{refusal}");
            assert!(refusal.to_string().contains(&segment(0, id)), "{refusal}");
        }
    }
    Ok(())
}

#[test]
fn an_opening_cut_off_while_it_starts_a_segment_leaves_a_log_that_opens() -> Result<()> {
    // A name without a start, a start that is torn, a start that is whole.
    for plan in crash_plans(0..30) {
        let mut log = TestLog::new(1);
        log.append(0, 10)?;
        log.sync(0)?;
        log.crash(plan)?;
        log.watch();
        log.append(0, 10)?;
        log.sync(0)?;
        for moment in log.take_moments() {
            moment.crash(plan).prove_that_it_goes_on()?;
        }
    }
    Ok(())
}

#[test]
fn cores_that_are_not_asked_for_any_more_keep_their_entries() -> Result<()> {
    // Four cores, then two, and no epoch is ever complete again, or half of the state is gone.
    let disk = SimStorage::new(1);
    let mut expected = 0;
    let mut life = |disk: &SimStorage, cores: u16| -> Result<SimStorage> {
        let (wal, recovery) = small(disk).cores(cores).open()?;
        assert_eq!(recovery.entries()?.len(), expected);
        assert!(recovery.entries()?.is_sorted());
        for mut writer in wal.writers()?.into_writers() {
            writer.append_put(b"k", b"v")?;
            writer.append_epoch_barrier()?;
            writer.sync()?;
            expected += 2;
        }
        let after = disk.crash(CrashPlan::lose_everything_unsynced());
        let manifest = Manifest::decode(&after.read_file("MANIFEST.1")?).unwrap();
        let members = manifest.members.last().unwrap();
        assert_eq!((members.first_core, members.core_count), (0, cores.into()));
        Ok(after)
    };
    let disk = life(&disk, 4)?;
    let disk = life(&disk, 2)?;
    let disk = life(&disk, 2)?;
    life(&disk, 4)?;
    Ok(())
}

#[test]
fn a_log_that_lost_its_manifests_before_its_first_entry_keeps_the_id_that_its_files_have()
-> Result<()> {
    // A new id beside old files: what is acked under it is there, and no opening reads it, for the
    // files of cores that do not log any more belong to another log.
    let losses: [fn(&SimStorage, &str) -> Result<()>; 2] =
        [SimStorage::delete, |disk, slot| disk.zero(slot, 0..4096)];
    for lose in losses {
        let mut log = TestLog::new(2);
        let log_id = log.wal().log_id();
        log.run_jobs();
        let mut next = TestLog::closed(log.disk.kill(), 1, log.model.clone());
        log.leave();
        assert!(next.disk.names().contains(&segment(1, 1)), "the files of core 1 are prepared");
        lose(&next.disk, "MANIFEST.0")?;
        lose(&next.disk, "MANIFEST.1")?;
        next.watch();
        next.reopen()?;
        next.append(0, 10)?;
        next.sync(0)?;
        next.close()?;
        let moments = next.take_moments();
        assert!(moments.len() > 9, "{} moments", moments.len());
        for moment in moments {
            for plan in crash_plans(0..5) {
                let mut after = moment.crash(plan);
                assert_eq!(after.wal().log_id(), log_id, "{}", after.story);
                after.prove_that_it_goes_on()?;
                after.leave();
            }
        }
        let mut both = TestLog::open(next.disk.fork(), 2, next.model.clone())?;
        assert_eq!(both.wal().log_id(), log_id);
        both.prove_that_it_goes_on()?;
        both.leave();
    }
    Ok(())
}

// ---- cuts ----

#[test]
fn a_cut_has_happened_or_it_has_not_whenever_power_fails() -> Result<()> {
    for keep in 0..6 {
        let mut log = TestLog::watched(2);
        for _ in 0..6 {
            log.append(0, 1800)?;
            log.append(1, 1800)?;
        }
        log.sync(0)?;
        log.sync(1)?;
        log.run_jobs();
        log.take_moments();
        log.truncate(0, keep)?;
        log.run_jobs();
        log.append(0, 100)?;
        log.sync(0)?;
        for moment in log.take_moments() {
            for plan in crash_plans(0..8) {
                let mut after = moment.crash(plan);
                assert_eq!(after.model.core(1).entries.len(), 6, "the other core is not cut");
                if plan == CrashPlan::random(7) {
                    after.prove_that_it_goes_on()?;
                }
                after.leave();
            }
        }
    }
    Ok(())
}

#[test]
fn a_cut_of_one_core_hides_no_damage_of_another() -> Result<()> {
    let mut log = TestLog::new(2);
    for core in 0..2 {
        log.append_n(core, 3)?;
        log.sync(core)?;
        log.append_n(core, 3)?;
        log.sync(core)?;
    }
    log.truncate(0, 1)?;
    let disk = log.disk.kill();
    disk.flip_bit(&segment(1, 1), SEGMENT_HEADER_BYTES + 20, 1)?;
    let refusal = small(&disk).cores(2).open().unwrap_err();
    assert!(refusal.is_corrupt() && refusal.to_string().contains("core 1"), "{refusal}");
    // Nor below the cut on the core that was cut.
    let disk = log.disk.kill();
    disk.flip_bit(&segment(0, 1), SEGMENT_HEADER_BYTES + 20, 1)?;
    let refusal = small(&disk).cores(2).open().unwrap_err();
    assert!(refusal.is_corrupt() && refusal.to_string().contains("core 0"), "{refusal}");
    Ok(())
}

#[test]
fn a_reset_takes_a_checkpoint_along_so_that_no_later_opening_misses_it() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append_n(0, 3)?;
    log.barrier(0)?;
    let (position, sequence) = (log.writer(0).position(), log.writer(0).sequence());
    log.close()?;
    let mut manifest = Manifest::decode(&log.disk.read_file("MANIFEST.0")?).unwrap();
    manifest.number += 1;
    let place = CheckpointCore { core: 0, position, sequence, timestamp_ns: 0 };
    manifest.checkpoint = Some(Checkpoint {
        id: 1,
        epoch: 0,
        cores: vec![place],
        source_offsets: Vec::new(),
        watermark: None,
    });
    for slot in ["MANIFEST.0", "MANIFEST.1"] {
        log.disk.overwrite(slot, 0, &manifest.encode().unwrap())?;
    }
    log.watch();
    log.reopen()?;
    log.take_moments();
    log.reset(0)?;
    log.run_jobs();
    log.append(0, 10)?;
    log.sync(0)?;
    for moment in log.take_moments() {
        for plan in crash_plans(0..8) {
            moment.crash(plan).prove_that_it_goes_on()?;
        }
    }
    Ok(())
}

#[test]
fn a_request_from_before_a_cut_is_not_run_for_other_bytes_at_its_position() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append_n(0, 5)?;
    let request = log.writer(0).start_sync()?;
    log.truncate(0, 1)?;
    log.append_n(0, 9)?;
    let refusal = request.run().unwrap_err();
    assert!(matches!(refusal, WalError::ProofRejected { core: 0, .. }), "{refusal}");
    assert_eq!(log.writer(0).entries_since_sync(), 9);
    Ok(())
}

#[test]
fn cut_after_cut_and_life_after_life_only_the_last_ones_entries_are_there() -> Result<()> {
    for seed in seeds(0..12) {
        let mut log = TestLog::new(1);
        log.story = format!("seed {seed}");
        for round in 0..8_u64 {
            for _ in 0..5 {
                log.append(0, 1500)?;
                log.run_jobs();
            }
            log.sync(0)?;
            let count = log.model.core(0).entries.len();
            log.truncate(0, count - 1 - (seed as usize + round as usize) % 4)?;
            match (seed + round) % 4 {
                0 => log.crash(CrashPlan::random(seed * 8 + round))?,
                1 => log.kill()?,
                2 => log.run_jobs(),
                _ => {
                    log.close()?;
                    log.reopen()?;
                }
            }
        }
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn a_log_that_is_cut_over_and_over_does_not_keep_its_files() -> Result<()> {
    let mut log = TestLog::new(1);
    for _ in 0..30 {
        for _ in 0..30 {
            log.append(0, 1500)?;
            log.run_jobs();
        }
        log.reset(0)?;
        log.run_jobs();
    }
    log.close()?;
    log.reopen()?;
    assert!(log.disk.names().len() < 10, "{:?}", log.disk.names());
    let taken = (1 << 40) - log.disk.free_bytes()?;
    assert!(taken < 1 << 20, "{taken}");
    Ok(())
}

#[test]
fn a_recycled_file_that_was_prepared_and_never_used_is_no_torn_tail() -> Result<()> {
    let mut log = TestLog::new(1);
    for _ in 0..3 {
        for _ in 0..30 {
            log.append(0, 1000)?;
            log.run_jobs();
        }
        log.be_quiet();
        log.reset(0)?;
        log.run_jobs();
    }
    // One of the freed files has been prepared by now.
    for _ in 0..12 {
        log.append(0, 1000)?;
        log.run_jobs();
    }
    log.sync(0)?;
    log.crash_losing_everything()?;
    assert!(!log.found(0).ending.is_torn(), "{}", log.found(0));
    log.close()?;
    let strict = small(&log.disk).recovery_mode(RecoveryMode::Strict).open()?;
    assert_eq!(strict.1.report().core(0).unwrap().ending.kind, EndingKind::Closed);
    Ok(())
}

#[test]
fn a_log_on_a_real_file_system_lives_through_closes_and_cuts_too() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut expected = 0;
    for life in 0..6 {
        let mut writer = CoreWalWriter::new(0, &path)?;
        assert_eq!(writer.sequence(), expected);
        let mut positions = Vec::new();
        for n in 0..100_u32 {
            positions.push(writer.append_put(&n.to_le_bytes(), &[7; 3000])?);
        }
        writer.truncate(positions[50 + life])?;
        expected += 50 + life as u64;
        // Every other life ends without a word.
        if life % 2 == 0 {
            writer.close()?;
        }
    }
    Ok(())
}

// Stories that wait for what they are about:
//
// - Checkpoint and release: a full disk that blocks the checkpoint which would free it; epoch and
//   timestamp that fall because all entries that knew them were released (for cuts: promise 6);
//   an older checkpoint that completes after a newer one; several consumers of which one is
//   behind; 4 -> 2 cores and an epoch that must still become complete (membership: above).
// - Atomic batches: a batch glued to the first entry of the next life.
// - Tickets and shared writers: a ticket's leader that times out while its followers wait; waiters
//   lost on a panic.
// - Following a live log: a healthy log called damaged because the reader saw one block before and
//   the next one after a write.
// - Point-in-time recovery and accepted salvage: a cut that is durable on some cores only.
