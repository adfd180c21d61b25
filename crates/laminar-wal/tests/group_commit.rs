//! Group commit: many threads append to one log, and one sync makes durable what all of them wait
//! for.
//!
//! A commit costs the same whether one client waits for it or a hundred. So while one is under way
//! the next one gathers; whoever is not served by the one is served by the other; nobody is told
//! Ok for more than a sync covered. What a ticket says to tasks is in `tickets`, what happens when
//! the device fails in `failing_commit`, how commits grow on a slow disk in `slow_disk`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use laminar_wal::{
    CoreWalWriter, GroupCommit, RecoveryMode, SharedWriter, SyncTicket, Wal, WalError, WalOptions,
    read,
};
use support::clients::{Clients, durable_entries, surviving};
use support::disks::TestDisk;
use support::tasks::{WakeCount, Watchdog, block_on};
use wal_sim::{OperationKind, SimStorage};
use wal_storage::{JobKind, Result};

const MILLISECOND: Duration = Duration::from_millis(1);

/// How often a core's records were made durable since the trace was last taken.
fn commits(disk: &TestDisk, core: u16) -> usize {
    let directory = format!("core-{core:04}/0");
    let trace = disk.sim.take_trace();
    let of_core = trace.iter().filter(|operation| operation.name.starts_with(&directory));
    of_core.filter(|operation| operation.kind == OperationKind::Sync || operation.through).count()
}

/// A log that has begun: its first segment is started, and the next one is ready.
fn log_of(cores: u16, disk: &TestDisk, options: WalOptions) -> Wal {
    let (wal, _) = options.cores(cores).open().unwrap();
    disk.sim.run_jobs();
    for core in 0..cores {
        let mut writer = wal.writer(core).unwrap();
        writer.append_put(b"the first", b"").unwrap();
        writer.sync().unwrap();
    }
    disk.sim.run_jobs();
    disk.sim.set_tracing(true);
    disk.take_side_by_side();
    wal
}

fn shared_log(disk: &TestDisk) -> (Wal, SharedWriter) {
    let wal = log_of(1, disk, disk.roomy());
    let writer = wal.shared_writer(0).unwrap();
    (wal, writer)
}

fn put(writer: &SharedWriter) -> SyncTicket {
    writer.append_put(b"key", b"value").unwrap()
}

// ---- many threads ----

#[test]
fn what_many_threads_were_acked_on_a_real_disk_is_recovered_in_each_ones_order() -> Result<()> {
    let _watchdog = Watchdog::over("eight threads on a real disk");
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = WalOptions::new(directory.path()).segment_bytes(64 * 1024).open()?;
    let writer = wal.shared_writer(0)?;
    let clients = Clients::new(8);
    thread::scope(|scope| {
        for client in clients.indices() {
            let (writer, clients) = (writer.clone(), &clients);
            scope.spawn(move || {
                for round in 0..60 {
                    match (client + round) % 4 {
                        // One that nobody waits for, and a later one that somebody does.
                        0 => drop(clients.append(client, &writer).unwrap()),
                        1 => {
                            let _unasked = clients.append(client, &writer).unwrap();
                            writer.sync().unwrap();
                            clients.is_acked(client);
                        }
                        2 => {
                            block_on(clients.append(client, &writer).unwrap()).unwrap();
                            clients.is_acked(client);
                        }
                        _ => clients.append_and_wait(client, &writer).unwrap(),
                    }
                }
            });
        }
    });
    // The process dies here: what a reader finds on the disk is all there is.
    let killed = SimStorage::from_directory(1, directory.path())?;
    clients.check(&support::clients::recovered(&killed)).unwrap();
    drop(writer);
    wal.close()?;
    clients.all_are_acked();
    let entries = read(directory.path(), RecoveryMode::Strict)?.entries()?;
    assert_eq!(entries.len(), 8 * 60);
    clients.check(&entries).unwrap();
    Ok(())
}

#[test]
fn clients_that_wait_at_the_same_time_share_one_sync() {
    let _watchdog = Watchdog::over("64 clients behind one write");
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let gate = disk.hold_up_writes(0);
    let clients = Clients::new(64);
    thread::scope(|scope| {
        let begin = |client| {
            let (writer, clients) = (writer.clone(), &clients);
            scope.spawn(move || clients.append_and_wait(client, &writer).unwrap());
        };
        begin(0);
        gate.await_somebody();
        clients.indices().skip(1).for_each(begin);
        while writer.sequence() < 1 + 64 {
            thread::yield_now();
        }
        gate.open();
    });
    assert_eq!(commits(&disk, 0), 2, "one for the first client, one for all the others");
    assert_eq!(durable_entries(&disk.sim, 0), 1 + 64);
}

#[test]
fn a_leader_makes_durable_what_others_appended_and_do_not_wait_for_yet() -> Result<()> {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let earlier = put(&writer);
    let led = put(&writer);
    let later = put(&writer);
    led.wait()?;
    assert!(earlier.is_durable()?);
    assert!(later.is_durable()?, "it was appended by then");
    later.wait()?;
    assert_eq!(commits(&disk, 0), 1);
    Ok(())
}

#[test]
fn an_append_to_a_shared_log_neither_writes_nor_asks_anybody_to() {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let operations = disk.sim.operations();
    let jobs = disk.sim.pending_jobs();
    let tickets: Vec<SyncTicket> = (0..20).map(|_| put(&writer)).collect();
    assert_eq!(disk.sim.operations(), operations);
    assert_eq!(disk.sim.pending_jobs(), jobs);
    let positions = tickets.iter().map(SyncTicket::position);
    assert!(positions.is_sorted_by(|earlier, later| earlier < later));
    assert_eq!(tickets[19].position(), writer.position());
}

// ---- submit ----

#[test]
fn the_disk_works_on_what_was_submitted_while_appending_goes_on() -> Result<()> {
    let _watchdog = Watchdog::over("appending beside a write");
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.roomy());
    let _background = disk.with_background();
    let gate = disk.hold_up_writes(0);
    let mut writer = wal.writer(0)?;
    writer.append_put(b"submitted", b"")?;
    let ticket = writer.submit()?;
    gate.await_somebody();
    for _ in 0..100 {
        writer.append_put(b"meanwhile", b"")?;
    }
    assert!(!ticket.is_durable()?, "the write is held up");
    assert_eq!(writer.stalls(), Default::default());
    gate.open();
    ticket.wait()?;
    assert_eq!(durable_entries(&disk.sim, 0), 2, "what came later was not submitted");
    Ok(())
}

#[test]
fn try_submit_says_none_at_the_in_flight_limit_and_some_after() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.small());
    let mut writer = wal.writer(0)?;
    writer.append_put(b"first buffer", b"")?;
    let first = writer.try_submit()?.expect("there is a second buffer");
    writer.append_put(b"second buffer", b"")?;
    let before = (writer.position(), writer.sequence());
    for _ in 0..3 {
        assert!(writer.try_submit()?.is_none(), "both are in flight");
    }
    assert_eq!((writer.position(), writer.sequence()), before);
    assert_eq!(writer.stalls().buffers, 0, "nothing has waited");
    disk.sim.run_jobs();
    assert!(first.is_durable()?);
    let second = writer.try_submit()?.expect("a buffer came back");
    disk.sim.run_jobs();
    assert!(second.is_durable()?);
    assert_eq!(durable_entries(&disk.sim, 0), 3);
    Ok(())
}

#[test]
fn what_try_submit_did_not_take_is_still_there_for_the_next_one() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.small());
    let mut writer = wal.writer(0)?;
    writer.append_put(b"a", b"")?;
    let _first = writer.submit()?;
    writer.append_put(b"b", b"")?;
    assert!(writer.try_submit()?.is_none());
    writer.append_put(b"c", b"")?;
    disk.sim.run_jobs();
    let ticket = writer.try_submit()?.expect("a buffer came back");
    assert_eq!(ticket.position(), writer.position());
    ticket.wait()?;
    assert_eq!(durable_entries(&disk.sim, 0), 4);
    Ok(())
}

#[test]
fn submit_waits_at_the_in_flight_limit_alone_and_each_wait_is_counted() -> Result<()> {
    let _watchdog = Watchdog::over("a submit at the in-flight limit");
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.small());
    let _background = disk.with_background();
    let gate = disk.hold_up_writes(0);
    let mut writer = wal.writer(0)?;
    writer.append_put(b"first buffer", b"")?;
    let first = writer.submit()?;
    gate.await_somebody();
    assert_eq!(writer.stalls().buffers, 0);
    writer.append_put(b"second buffer", b"")?;
    let opener = {
        let watch = wal.watch(0)?;
        thread::spawn(move || {
            // Long enough for the submit to have come back, if it did not wait.
            assert!(!watch.wait_for_timeout(u64::MAX, 20 * MILLISECOND).unwrap());
            gate.open();
        })
    };
    let second = writer.submit()?;
    assert_eq!(writer.stalls().buffers, 1);
    assert!(first.is_durable()?, "its buffer came back, so it was written");
    opener.join().unwrap();
    second.wait()?;
    assert_eq!(durable_entries(&disk.sim, 0), 3);
    Ok(())
}

#[test]
fn a_submit_of_nothing_is_durable_at_once() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.small());
    let mut writer = wal.writer(0)?;
    let ticket = writer.submit()?;
    assert!(ticket.is_durable()?);
    ticket.wait()?;
    assert!(writer.try_submit()?.expect("there is nothing to wait for").is_durable()?);
    assert_eq!(commits(&disk, 0), 0);
    Ok(())
}

// ---- tickets that are waited for ----

#[test]
fn a_wait_that_times_out_says_so_and_the_entries_become_durable_all_the_same() -> Result<()> {
    let _watchdog = Watchdog::over("a wait with a timeout");
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    let _background = disk.with_background();
    let gate = disk.hold_up_writes(0);
    thread::scope(|scope| {
        scope.spawn(|| put(&writer).wait().unwrap());
        gate.await_somebody();
        let ticket = put(&writer);
        assert!(!ticket.wait_timeout(2 * MILLISECOND).unwrap());
        assert!(!ticket.wait_timeout(Duration::ZERO).unwrap());
        gate.open();
        // Nobody waits for it but this watch, which makes nothing durable itself.
        wal.watch(0).unwrap().wait_for(ticket.position()).unwrap();
    });
    assert_eq!(durable_entries(&disk.sim, 0), 3);
    Ok(())
}

#[test]
fn a_wait_with_a_timeout_finishes_the_commit_that_it_began() -> Result<()> {
    let _watchdog = Watchdog::over("a leader that times out");
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let gate = disk.hold_up_writes(0);
    thread::scope(|scope| {
        let leader = scope.spawn(|| put(&writer).wait_timeout(MILLISECOND).unwrap());
        gate.await_somebody();
        let follower = scope.spawn(|| put(&writer).wait().unwrap());
        while writer.sequence() < 3 {
            thread::yield_now();
        }
        assert!(!put(&writer).wait_timeout(5 * MILLISECOND).unwrap(), "the leader's time is over");
        gate.open();
        assert!(leader.join().unwrap(), "it did what others wait for, and its own is durable");
        follower.join().unwrap();
    });
    Ok(())
}

#[test]
fn asking_whether_it_is_durable_never_blocks_and_brings_it_about() -> Result<()> {
    let _watchdog = Watchdog::over("asking beside a write");
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let ticket = put(&writer);
    assert_eq!(disk.sim.pending_jobs_of(JobKind::Lead), 1, "vouching, when all is quiet");
    for _ in 0..3 {
        assert!(!ticket.is_durable()?);
    }
    assert_eq!(disk.sim.pending_jobs_of(JobKind::Lead), 2, "asked for once");
    disk.sim.run_jobs();
    assert!(ticket.is_durable()?);
    assert_eq!(durable_entries(&disk.sim, 0), 2);

    let gate = disk.hold_up_writes(0);
    thread::scope(|scope| {
        scope.spawn(|| put(&writer).wait().unwrap());
        gate.await_somebody();
        let ticket = put(&writer);
        assert!(!ticket.is_durable().unwrap(), "though somebody is at the disk");
        gate.open();
        while !ticket.is_durable().unwrap() {
            disk.sim.run_jobs();
        }
    });
    assert_eq!(durable_entries(&disk.sim, 0), 4);
    Ok(())
}

#[test]
fn a_clone_of_a_ticket_is_waited_for_asked_and_dropped_for_itself() -> Result<()> {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let ticket = put(&writer);
    let clones = [ticket.clone(), ticket.clone(), ticket.clone()];
    assert!(clones.iter().all(|clone| clone.position() == ticket.position()));
    assert!(clones.iter().all(|clone| clone.core_id() == 0));
    let [waited_for, awaited, dropped] = clones;
    drop(dropped);
    thread::scope(|scope| {
        scope.spawn(|| ticket.wait().unwrap());
        waited_for.wait().unwrap();
    });
    block_on(awaited)?;
    assert_eq!(commits(&disk, 0), 1);
    Ok(())
}

// ---- the watch ----

#[test]
fn a_watch_sees_what_becomes_durable_and_makes_nothing_durable_itself() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.roomy());
    let mut writer = wal.writer(0)?;
    let (watch, of_the_writer) = (wal.watch(0)?, writer.watch());
    let begin = writer.position();
    writer.append_put(b"key", b"")?;
    let position = writer.position();
    let wakes = WakeCount::new();
    let mut reached = watch.reached(position);
    assert!(wakes.poll(&mut reached).is_pending());
    assert!(!watch.wait_for_timeout(position, MILLISECOND)?);
    disk.sim.run_jobs();
    assert_eq!((watch.position(), commits(&disk, 0)), (begin, 0), "nobody asked for a commit");

    writer.sync()?;
    assert_eq!((watch.position(), of_the_writer.position()), (position, position));
    assert_eq!(wakes.times(), 1);
    assert!(matches!(wakes.poll(&mut reached), Poll::Ready(Ok(()))));
    watch.wait_for(position)?;
    assert!(watch.wait_for_timeout(position, Duration::ZERO)?);
    block_on(of_the_writer.clone().reached(begin))?;
    assert!(matches!(wal.watch(1), Err(WalError::CoreOutOfRange { core: 1, .. })));
    Ok(())
}

#[test]
fn a_watch_that_waits_in_another_thread_is_woken_by_the_commit_that_reaches_it() -> Result<()> {
    let _watchdog = Watchdog::over("watches in other threads");
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    let end = writer.position();
    let record_bytes = put(&writer).position() - end;
    let watch = wal.watch(0)?;
    thread::scope(|scope| {
        for n in 1..=8 {
            let watch = watch.clone();
            let wanted = end + n * record_bytes;
            scope.spawn(move || {
                watch.wait_for(wanted).unwrap();
                assert!(watch.position() >= wanted);
            });
        }
        while watch.position() < end + 8 * record_bytes {
            put(&writer).wait().unwrap();
        }
    });
    Ok(())
}

#[test]
fn a_watch_goes_back_with_a_cut_and_on_with_the_log() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.roomy());
    let mut writer = wal.writer(0)?;
    let watch = writer.watch();
    let cut_at = writer.position();
    writer.append_put(b"to be cut", b"")?;
    writer.sync()?;
    let before = watch.position();
    let wakes = WakeCount::new();
    let mut reached = watch.reached(before + 1);
    assert!(wakes.poll(&mut reached).is_pending());

    writer.truncate(cut_at)?;
    assert_eq!(watch.position(), cut_at);
    assert!(wakes.poll(&mut reached).is_pending(), "the log was that long, and is no more");
    assert!(!watch.wait_for_timeout(before, MILLISECOND)?);
    while writer.position() <= before {
        writer.append_put(b"new", b"")?;
    }
    let woken = wakes.times();
    writer.sync()?;
    assert_eq!(wakes.times(), woken + 1);
    assert!(matches!(wakes.poll(&mut reached), Poll::Ready(Ok(()))));
    Ok(())
}

#[test]
fn a_watch_says_closed_for_what_the_log_will_never_reach() -> Result<()> {
    let _watchdog = Watchdog::over("a watch over the end");
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    let watch = wal.watch(0)?;
    let end = put(&writer).position();
    let wakes = WakeCount::new();
    let (mut within, mut beyond) = (watch.reached(end), watch.reached(end + 1));
    assert!(wakes.poll(&mut within).is_pending());
    assert!(wakes.poll(&mut beyond).is_pending());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| watch.wait_for(end + 1));
        drop(writer);
        wal.close().unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(WalError::Closed { .. })));
    });
    assert_eq!(wakes.times(), 2);
    assert!(matches!(wakes.poll(&mut within), Poll::Ready(Ok(()))), "closing made it durable");
    assert!(matches!(wakes.poll(&mut beyond), Poll::Ready(Err(WalError::Closed { .. }))));
    assert!(matches!(watch.wait_for(u64::MAX), Err(WalError::Closed { .. })));
    watch.wait_for(end)?;
    assert_eq!(watch.position(), end);
    Ok(())
}

// ---- all cores ----

#[test]
fn sync_all_covers_what_is_shared_dropped_or_submitted_and_not_what_a_writer_holds() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(4, &disk, disk.roomy());
    let shared = wal.shared_writer(0)?;
    let _unasked = [put(&shared), put(&shared)];
    let mut dropped = wal.writer(1)?;
    dropped.append_put(b"key", b"")?;
    drop(dropped);
    let mut submitting = wal.writer(2)?;
    submitting.append_put(b"key", b"")?;
    let ticket = submitting.submit()?;
    submitting.append_put(b"in its hands", b"")?;
    let mut holding = wal.writer(3)?;
    holding.append_put(b"in its hands", b"")?;

    wal.sync_all()?;
    let durable = (0..4).map(|core| durable_entries(&disk.sim, core) - 1);
    assert_eq!(durable.collect::<Vec<_>>(), [2, 1, 1, 0]);
    assert!(ticket.is_durable()?);
    assert_eq!(disk.take_side_by_side(), [3], "in one call");

    // They know nothing of it.
    assert_eq!((submitting.entries_since_sync(), holding.entries_since_sync()), (2, 1));
    submitting.sync()?;
    holding.sync()?;
    let durable = (0..4).map(|core| durable_entries(&disk.sim, core) - 1);
    assert_eq!(durable.collect::<Vec<_>>(), [2, 1, 2, 1]);
    wal.sync_all()
}

#[test]
fn all_cores_are_synced_side_by_side() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(4, &disk, disk.roomy());
    let mut writers = wal.writers()?;
    for writer in writers.iter_mut() {
        writer.append_put(b"key", b"")?;
    }
    writers.sync()?;
    assert_eq!(disk.take_side_by_side(), [4], "one call for four cores");
    assert_eq!(writers.synced_positions(), writers.positions());
    assert_eq!(surviving(&disk.sim).len(), 2 * 4);
    for core in [1, 3] {
        writers.writer(core)?.append_put(b"key", b"")?;
    }
    writers.sync()?;
    assert_eq!(disk.take_side_by_side(), [2], "two of them had nothing to do");
    assert_eq!(surviving(&disk.sim).len(), 2 * 4 + 2);
    writers.sync()?;
    assert_eq!(disk.take_side_by_side(), []);
    Ok(())
}

#[test]
fn a_core_that_somebody_else_leads_does_not_hold_up_the_others() -> Result<()> {
    let _watchdog = Watchdog::over("cores side by side");
    let disk = TestDisk::new(1);
    let wal = log_of(2, &disk, disk.roomy());
    let writers = [wal.shared_writer(0)?, wal.shared_writer(1)?];
    let gate = disk.hold_up_writes(0);
    let held_up = put(&writers[0]);
    let position = put(&writers[1]).position();
    thread::scope(|scope| {
        scope.spawn(|| held_up.wait().unwrap());
        gate.await_somebody();
        let syncing = scope.spawn(|| wal.sync_all());
        wal.watch(1).unwrap().wait_for(position).unwrap();
        // Long enough for the sync to have come back, if it left the other core out.
        assert!(!held_up.wait_timeout(20 * MILLISECOND).unwrap());
        assert!(!syncing.is_finished(), "it is a sync of all cores");
        gate.open();
        syncing.join().unwrap().unwrap();
    });
    Ok(())
}

// ---- whose writer it is ----

#[test]
fn handles_to_a_shared_log_are_handles_to_one_log() -> Result<()> {
    let disk = TestDisk::new(1);
    let (wal, first) = shared_log(&disk);
    let (second, third) = (wal.shared_writer(0)?, first.clone());
    for (n, writer) in [&first, &second, &third].into_iter().enumerate() {
        assert_eq!(writer.sequence(), 1 + n as u64);
        drop(put(writer));
    }
    assert_eq!(first.position(), third.position());
    second.set_epoch(5)?;
    assert_eq!(third.epoch(), 5);
    assert!(matches!(first.set_epoch(4), Err(WalError::EpochRegressed { .. })));
    assert_eq!((first.core_id(), first.path()), (0, third.path()));
    assert!(format!("{first:?}").contains("sequence: 4"), "{first:?}");
    third.sync()?;
    assert_eq!(durable_entries(&disk.sim, 0), 4);
    Ok(())
}

#[test]
fn a_core_has_one_writer_or_shared_ones_and_never_both() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(2, &disk, disk.roomy());
    let is_taken = |refused: &WalError| matches!(refused, WalError::WriterTaken { core: 0 });
    let alone = wal.writer(0)?;
    assert!(is_taken(&wal.shared_writer(0).unwrap_err()));
    assert!(is_taken(&wal.writer(0).unwrap_err()));
    assert!(is_taken(&wal.writers().unwrap_err()));
    drop(alone);

    let shared = wal.shared_writer(0)?;
    let clone = shared.clone();
    assert!(is_taken(&wal.writer(0).unwrap_err()));
    assert!(is_taken(&wal.writers().unwrap_err()));
    drop(shared);
    assert!(is_taken(&wal.writer(0).unwrap_err()), "there still is one");
    drop(put(&clone));
    drop(clone);
    let alone = wal.writer(0)?;
    assert_eq!(durable_entries(&disk.sim, 0), 2, "what it left is durable");

    let shared = alone.into_shared();
    assert!(is_taken(&wal.writer(0).unwrap_err()));
    let _another = wal.shared_writer(0)?;
    put(&shared).wait()
}

#[test]
fn threads_that_take_and_drop_shared_writers_at_the_same_time_are_never_refused() -> Result<()> {
    let _watchdog = Watchdog::over("shared writers that come and go");
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.roomy());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..8000 {
                    // Each may be the last one, and the first one again.
                    drop(put(&wal.shared_writer(0).unwrap()));
                }
            });
        }
    });
    drop(wal.writer(0)?);
    assert_eq!(durable_entries(&disk.sim, 0), 1 + 3 * 8000);
    Ok(())
}

#[test]
fn a_writer_that_becomes_a_shared_one_takes_along_what_it_appended() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.roomy());
    let mut alone = wal.writer(0)?;
    alone.set_epoch(3)?;
    alone.append_put(b"before", b"")?;
    let (position, sequence) = (alone.position(), alone.sequence());
    let shared = alone.into_shared();
    assert_eq!((shared.position(), shared.sequence(), shared.epoch()), (position, sequence, 3));
    assert_eq!(durable_entries(&disk.sim, 0), 1);
    put(&shared).wait()?;
    assert_eq!(durable_entries(&disk.sim, 0), 3);
    Ok(())
}

// ---- the policy ----

const DELAY: Duration = Duration::from_millis(10);

fn log_with(disk: &TestDisk, policy: GroupCommit) -> (Wal, SharedWriter) {
    let wal = log_of(1, disk, disk.roomy().group_commit(policy));
    let writer = wal.shared_writer(0).unwrap();
    (wal, writer)
}

fn patient() -> GroupCommit {
    GroupCommit { max_delay: DELAY, ..GroupCommit::default() }
}

#[test]
fn with_a_delay_nothing_is_committed_before_it_is_due() -> Result<()> {
    let disk = TestDisk::new(1);
    let (_wal, writer) = log_with(&disk, patient());
    let first = put(&writer);
    assert!(!first.is_durable()?);
    disk.sim.run_jobs();
    disk.advance(DELAY / 2);
    let second = put(&writer);
    assert!(!second.is_durable()?, "it comes late, and goes with the first");
    disk.sim.run_jobs();
    disk.advance(DELAY / 2 - Duration::from_nanos(1));
    disk.sim.run_jobs();
    assert_eq!(commits(&disk, 0), 0);
    assert!(!first.is_durable()?);

    disk.advance(Duration::from_nanos(1));
    disk.sim.run_jobs();
    assert!(first.is_durable()? && second.is_durable()?);
    assert_eq!(commits(&disk, 0), 1);

    // The next one has a delay of its own.
    let third = put(&writer);
    assert!(!third.is_durable()?);
    disk.sim.run_jobs();
    assert_eq!(commits(&disk, 0), 0);
    disk.advance(DELAY);
    disk.sim.run_jobs();
    assert!(third.is_durable()?);
    Ok(())
}

#[test]
fn enough_entries_or_bytes_begin_a_commit_before_it_is_due() -> Result<()> {
    let disk = TestDisk::new(1);
    let (_wal, writer) = log_with(&disk, GroupCommit { max_entries: 3, ..patient() });
    let tickets = [put(&writer), put(&writer)];
    assert!(!tickets[1].is_durable()?);
    disk.sim.run_jobs();
    assert_eq!(commits(&disk, 0), 0, "two are not enough");
    let third = put(&writer);
    assert!(!third.is_durable()?);
    disk.sim.run_jobs();
    assert!(third.is_durable()? && tickets[0].is_durable()?);
    assert_eq!(commits(&disk, 0), 1);

    let disk = TestDisk::new(2);
    let (_wal, writer) = log_with(&disk, GroupCommit { max_bytes: 4000, ..patient() });
    let small = writer.append_put(b"key", &[0; 2000])?;
    assert!(!small.is_durable()?);
    disk.sim.run_jobs();
    assert_eq!(commits(&disk, 0), 0);
    let large = writer.append_put(b"key", &[0; 2000])?;
    assert!(!large.is_durable()?);
    disk.sim.run_jobs();
    assert!(large.is_durable()? && small.is_durable()?);
    Ok(())
}

#[test]
fn what_is_submitted_waits_for_company_too_and_a_sync_for_nothing() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of(1, &disk, disk.roomy().group_commit(patient()));
    let mut writer = wal.writer(0)?;
    writer.append_put(b"key", b"")?;
    let ticket = writer.submit()?;
    disk.sim.run_jobs();
    assert_eq!(commits(&disk, 0), 0);
    disk.advance(DELAY);
    disk.sim.run_jobs();
    assert!(ticket.is_durable()?);
    assert_eq!(commits(&disk, 0), 1);

    type Sync = fn(&Wal, &mut CoreWalWriter) -> Result<()>;
    let ways: [Sync; 3] = [
        |_, writer| writer.sync(),
        |_, writer| {
            let proof = writer.start_sync()?.run()?;
            writer.mark_synced(proof)
        },
        |wal, _| wal.sync_all(),
    ];
    for way in ways {
        writer.append_put(b"key", b"")?;
        let company = writer.submit()?;
        way(&wal, &mut writer)?;
        assert!(company.is_durable()?, "it goes with the first commit there is");
        assert_eq!(commits(&disk, 0), 1);
    }
    Ok(())
}

#[test]
fn threads_that_wait_do_so_by_the_policy_and_by_their_own_clock() -> Result<()> {
    // The simulated clock stands still. A thread that slept long enough begins all the same.
    let _watchdog = Watchdog::over("waits by the policy");
    let disk = TestDisk::new(1);
    let very_patient = GroupCommit { max_delay: Duration::from_secs(60), ..GroupCommit::default() };
    let (_wal, writer) = log_with(&disk, very_patient);
    assert!(!put(&writer).wait_timeout(MILLISECOND)?, "less than the delay");
    assert_eq!(commits(&disk, 0), 0);

    let disk = TestDisk::new(1);
    let (_wal, writer) = log_with(&disk, patient());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| put(&writer).wait().unwrap());
        }
    });
    assert_eq!(durable_entries(&disk.sim, 0), 1 + 4);
    let commits = commits(&disk, 0);
    assert!((1..=4).contains(&commits), "{commits}");
    Ok(())
}

#[test]
fn whoever_waits_is_served_early_when_others_bring_enough_company() -> Result<()> {
    let _watchdog = Watchdog::over("company for who waits");
    let disk = TestDisk::new(1);
    let policy = GroupCommit { max_delay: Duration::from_secs(60), max_entries: 4, ..patient() };
    let (_wal, writer) = log_with(&disk, policy);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| put(&writer).wait().unwrap());
        }
    });
    assert_eq!(durable_entries(&disk.sim, 0), 1 + 4);
    Ok(())
}

#[test]
fn a_delay_of_more_than_a_minute_is_refused_by_name() {
    let refused = |policy| {
        let disk = SimStorage::new(1);
        let opened = WalOptions::on_storage(Arc::new(disk)).group_commit(policy).open();
        opened.map(drop)
    };
    let delay = |seconds| GroupCommit { max_delay: Duration::from_secs(seconds), ..patient() };
    for policy in [delay(61), GroupCommit { max_delay: Duration::MAX, ..patient() }] {
        let refusal = refused(policy).unwrap_err();
        assert!(matches!(refusal, WalError::InvalidArgument { .. }), "{refusal}");
        assert!(refusal.to_string().contains("max_delay"), "{refusal}");
    }
    refused(delay(60)).unwrap();
    // Counts that begin every commit at once are no mistake.
    refused(GroupCommit { max_bytes: 0, max_entries: 0, ..delay(1) }).unwrap();
}
