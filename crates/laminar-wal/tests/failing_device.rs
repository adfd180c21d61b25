//! The device fails: a write, a sync, or anything else, at any moment, once or for good.
//!
//! In 2018 PostgreSQL learned that a failed `fsync` may drop what it was to make durable and say
//! Ok to the next one: a retry acks air. So the first failure is final here. What reached the
//! disk is unknown, and the way on is to reopen; and because the page cache may go on showing what
//! the disk never got, what an opening finds is written again before anything builds on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::collections::BTreeMap;

use laminar_wal::WalError;
use support::{LONG_LIFE, Model, Step, TestLog, crash_plans, small};
use wal_sim::{Fault, OperationKind, Part, SimStorage};
use wal_storage::Result;

/// A life in one process: a kill would end the faults with the machine.
fn life() -> impl Iterator<Item = Step> {
    LONG_LIFE.iter().copied().filter(|step| *step != Step::Kill)
}

fn operations_in_a_life(kind: OperationKind) -> u64 {
    let mut log = TestLog::new(2);
    life().try_for_each(|step| log.perform(step)).unwrap();
    log.disk.operations_of(kind)
}

/// Lives a whole life on a machine with a fault, going on whatever happens, and checks after
/// every failure that it is final. Returns the log, which may be closed.
fn live_with(fault: Fault, name: &str) -> TestLog {
    let disk = SimStorage::new(1);
    disk.inject(fault);
    let mut log = TestLog::closed(disk, 2, Model::default());
    name.clone_into(&mut log.story);
    let mut causes: BTreeMap<u16, String> = BTreeMap::new();
    // A first opening that fails is tried again by the next step that opens.
    let _ = log.reopen();
    for step in life() {
        let core = match step {
            Step::Append(core, _)
            | Step::Batch(core, ..)
            | Step::Barrier(core)
            | Step::Sync(core)
            | Step::Truncate(core, _)
            | Step::Reset(core)
            | Step::GiveBack(core) => Some(core),
            Step::Jobs | Step::Quiet | Step::Kill => None,
            Step::Reopen => {
                causes.clear();
                let _ = log.close();
                let _ = log.reopen();
                continue;
            }
        };
        if let Some(core) = core
            && !log.has_writer(core)
        {
            continue;
        }
        let failed = log.perform(step);
        let Some(core) = core else { continue };
        match (failed, causes.get(&core)) {
            (Ok(()), None) => {}
            (Ok(()), Some(cause)) => panic!("{name}: {step:?} after {cause}"),
            (Err(WalError::Poisoned { core: poisoned, first }), known) => {
                assert_eq!(poisoned, core, "{name}: {step:?}");
                let known = known.cloned().unwrap_or_else(|| first.to_string());
                assert_eq!(first.to_string(), known, "{name}: {step:?}: the first cause stays");
                causes.insert(core, known);
            }
            (Err(_), None) => {}
            (Err(other), Some(cause)) => panic!("{name}: {step:?} is {other} after {cause}"),
        }
    }
    log
}

/// The process ends; the next one reads from the page cache what the disk may never have got.
/// It opens, goes on, and then the power fails.
fn kill_go_on_and_lose_power(mut log: TestLog, name: &str) {
    log.kill().unwrap_or_else(|error| panic!("{name}: {error}"));
    for plan in crash_plans(0..3) {
        let disk = log.disk.crash(plan);
        let mut after = TestLog::closed(disk, 2, log.model.clone());
        after.story = format!("{name}, {plan:?}");
        after.reopen().unwrap_or_else(|error| panic!("{}: {error}", after.story));
        after.leave();
    }
    log.prove_that_it_goes_on().unwrap_or_else(|error| panic!("{name}: {error}"));
    log.leave();
}

fn every_fault(kind: OperationKind, parts: &[Part]) {
    every_fault_from(0, kind, parts);
}

fn every_fault_from(first: u64, kind: OperationKind, parts: &[Part]) {
    for number in first..operations_in_a_life(kind) {
        for &part in parts {
            for sticky in [false, true] {
                let name = format!("{kind:?} {number}, {part:?} done, sticky {sticky}");
                let fault = Fault::on(kind).nth(number).done(part);
                let fault = if sticky { fault.sticky() } else { fault };
                let log = live_with(fault, &name);
                kill_go_on_and_lose_power(log, &name);
            }
        }
    }
}

#[test]
fn a_failed_sync_is_final_and_nothing_acked_is_lost() {
    every_fault(OperationKind::Sync, &[Part::Nothing, Part::Random]);
}

#[test]
fn a_failed_write_is_final_and_nothing_acked_is_lost() {
    every_fault(OperationKind::Write, &[Part::Random, Part::Everything]);
}

#[test]
fn a_failed_change_of_names_loses_nothing_acked() {
    for kind in [
        OperationKind::Create,
        OperationKind::CreateDirectory,
        OperationKind::Rename,
        OperationKind::Remove,
    ] {
        every_fault(kind, &[Part::Nothing, Part::Everything]);
    }
}

#[test]
fn a_failed_directory_sync_loses_nothing_acked() {
    // The very first one, of the directory in which the log is being made, has a story of its own.
    every_fault_from(1, OperationKind::SyncDirectory, &[Part::Nothing, Part::Random]);
}

#[test]
fn a_log_whose_making_could_not_be_made_durable_is_not_opened() {
    let disk = SimStorage::new(1);
    disk.inject(Fault::on(OperationKind::SyncDirectory));
    let refusal = small(&disk).cores(2).open().unwrap_err();
    assert!(matches!(&refusal, WalError::Io { .. }), "{refusal}");
    assert!(refusal.to_string().contains("syncing the directory"), "{refusal}");
    // Known limit: whoever opens it again, on the same run of a file system that may have dropped
    // the names of the log's directories, is told Ok by a sync that proves nothing about them. No
    // call gives an existing directory its name again.
}

#[test]
fn a_failed_look_at_the_disk_loses_nothing_acked() {
    for kind in [OperationKind::Open, OperationKind::Read, OperationKind::List] {
        every_fault(kind, &[Part::Nothing]);
    }
}

// ---- openings ----

/// A log that was killed in the middle of things: opening it reads, adopts, removes, makes.
fn killed_log() -> TestLog {
    let mut log = TestLog::new(2);
    for step in life().take(27) {
        log.perform(step).unwrap();
    }
    for core in 0..2 {
        for _ in 0..4 {
            log.append(core, 3000).unwrap();
        }
        log.run_jobs();
        log.sync(core).unwrap();
        for _ in 0..4 {
            log.append(core, 3000).unwrap();
        }
    }
    let disk = log.disk.kill();
    TestLog::closed(disk, 2, log.model.clone())
}

#[test]
fn an_opening_that_fails_anywhere_is_an_error_and_the_next_one_finds_everything() {
    let killed = killed_log();
    let open = |log: &TestLog| TestLog::closed(log.disk.fork(), 2, log.model.clone());
    let mut counted = open(&killed);
    let before = counted.disk.operations();
    counted.reopen().unwrap();
    let operations = counted.disk.operations() - before;
    assert!(operations > 30, "{operations}");
    let mut failed = 0;
    for number in 0..operations {
        for part in [Part::Nothing, Part::Random, Part::Everything] {
            let mut log = open(&killed);
            log.story = format!("operation {number}, {part:?} done");
            log.disk.inject(Fault::on_any().nth(number).done(part));
            // Removing what is not needed any more may fail unnoticed, and is tried again.
            if let Err(error) = log.reopen() {
                failed += 1;
                let is_expected = matches!(error, WalError::Io { .. } | WalError::Poisoned { .. });
                assert!(is_expected, "{}: {error}", log.story);
                // It has let go of the lock.
                log.reopen().unwrap_or_else(|error| panic!("{}: {error}", log.story));
            }
            let name = log.story.clone();
            kill_go_on_and_lose_power(log, &name);
        }
    }
    assert!(failed > 60, "{failed} openings failed");
}

#[test]
fn a_disk_that_breaks_for_good_during_an_opening_is_an_error_and_costs_nothing() -> Result<()> {
    let killed = killed_log();
    for number in 0..60 {
        let mut log = TestLog::closed(killed.disk.fork(), 2, killed.model.clone());
        log.story = format!("broken from operation {number} on");
        log.disk.inject(Fault::on_any().nth(number).sticky());
        let _ = log.reopen();
        log.disk.clear_faults();
        let name = log.story.clone();
        kill_go_on_and_lose_power(log, &name);
    }
    Ok(())
}

// ---- one by one ----

#[test]
fn a_failure_on_one_core_leaves_the_others_alone() -> Result<()> {
    for kind in [OperationKind::Write, OperationKind::Sync] {
        let mut log = TestLog::new(2);
        log.disk.inject(Fault::on(kind).named("core-0000/").sticky());
        for step in life() {
            match step {
                Step::Append(1, _)
                | Step::Batch(1, ..)
                | Step::Barrier(1)
                | Step::Sync(1)
                | Step::Truncate(1, _)
                | Step::GiveBack(1)
                | Step::Jobs => log.perform(step)?,
                Step::Append(0, _) | Step::Sync(0) => drop(log.perform(step)),
                _ => {}
            }
        }
        log.disk.clear_faults();
        log.crash_losing_everything()?;
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn a_disk_that_recovers_by_itself_does_not_heal_a_poisoned_log() -> Result<()> {
    let mut log = TestLog::new(1);
    log.append(0, 10)?;
    log.disk.inject(Fault::on(OperationKind::Write).named("core-0000/0"));
    log.sync(0).unwrap_err();
    for _ in 0..5 {
        log.run_jobs();
        log.append(0, 10).unwrap_err();
        log.sync(0).unwrap_err();
        log.be_quiet();
    }
    log.close().unwrap_err();
    log.reopen()?;
    log.prove_that_it_goes_on()
}
