//! The end of a log while it is in use: closed or dropped with writers out, with tickets waited for,
//! in one thread while others append.
//!
//! Everything appended is written, whoever lets go last; who waits is told; nobody hangs; and
//! behind the last one the directory is free for the next opening.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;

use laminar_wal::{
    CoreWalWriter, EndingKind, Recovery, RecoveryMode, SharedWriter, SyncTicket, WalError,
    WalOptions,
};
use support::clients::{Clients, durable_entries};
use support::disks::TestDisk;
use support::tasks::{WakeCount, Watchdog, block_on};
use support::{Random, seeds};
use wal_sim::{Fault, OperationKind};
use wal_storage::Result;

fn put(writer: &SharedWriter) -> SyncTicket {
    writer.append_put(b"key", b"value").unwrap()
}

/// What the next opening finds. That it can be opened at all says that the directory is free.
fn reopened(disk: &TestDisk, cores: u16) -> Recovery {
    disk.small().cores(cores).recovery_mode(RecoveryMode::Strict).open().unwrap().1
}

fn is_closed(recovery: &Recovery, core: u16) -> bool {
    recovery.report().core(core).is_some_and(|core| core.ending.kind == EndingKind::Closed)
}

// ---- who is the last ----

#[test]
fn a_close_with_shared_writers_out_says_so_and_the_last_clone_closes() -> Result<()> {
    let disk = TestDisk::new(1);
    let (wal, _) = disk.small().cores(2).open()?;
    let (first, other_core) = (wal.shared_writer(0)?, wal.shared_writer(1)?);
    let last = first.clone();
    put(&other_core).wait()?;
    drop(other_core);
    assert!(matches!(wal.close(), Err(WalError::WriterTaken { core: 0 })));

    // They go on as if nothing had happened.
    put(&first).wait()?;
    let watch = last.watch();
    drop(first);
    let ticket = put(&last);
    let clone_of_the_last = last.clone();
    drop(last);
    assert!(!ticket.is_durable()?, "there still is one");
    let refusal = disk.small().cores(2).open().map(drop).unwrap_err();
    assert!(matches!(refusal, WalError::Locked { .. }), "{refusal}");

    drop(clone_of_the_last);
    assert!(ticket.is_durable()?);
    assert!(matches!(watch.wait_for(u64::MAX), Err(WalError::Closed { .. })));
    let recovery = reopened(&disk, 2);
    assert!(is_closed(&recovery, 0) && is_closed(&recovery, 1));
    assert_eq!(recovery.entries()?.len(), 3);
    Ok(())
}

#[test]
fn a_shared_writer_of_a_log_of_its_own_closes_it_with_its_last_clone() -> Result<()> {
    let disk = TestDisk::new(1);
    let storage = Arc::new(disk.clone());
    let (alone, _) = CoreWalWriter::with_storage(0, storage, Default::default())?;
    let writer = alone.into_shared();
    let clones: Vec<SharedWriter> = (0..10).map(|_| writer.clone()).collect();
    clones.iter().for_each(|clone| drop(put(clone)));
    drop(clones);
    assert_eq!(durable_entries(&disk.sim, 0), 0);
    drop(writer);
    let recovery = reopened(&disk, 1);
    assert!(is_closed(&recovery, 0));
    assert_eq!(recovery.entries()?.len(), 10);
    Ok(())
}

#[test]
fn whatever_is_left_of_a_closed_log_does_nothing_to_the_disk() -> Result<()> {
    let disk = TestDisk::new(1);
    let (wal, _) = disk.small().open()?;
    let watch = wal.watch(0)?;
    let writer = wal.shared_writer(0)?;
    let tickets = [put(&writer), put(&writer)];
    assert!(!tickets[0].is_durable()?, "now the background is at it");
    drop(writer);
    wal.close()?;
    let before = disk.sim.content_fingerprint();
    let operations = disk.sim.operations();
    disk.sim.run_jobs();
    disk.advance(std::time::Duration::from_secs(10));
    disk.sim.run_jobs();
    for ticket in tickets {
        ticket.wait()?;
        block_on(ticket)?;
    }
    assert!(matches!(watch.wait_for(u64::MAX), Err(WalError::Closed { .. })));
    assert_eq!((disk.sim.content_fingerprint(), disk.sim.operations()), (before, operations));
    Ok(())
}

// ---- who waits ----

#[test]
fn dropping_everything_completes_the_futures_that_are_left() -> Result<()> {
    for seed in seeds(0..30) {
        let disk = TestDisk::new(seed);
        let mut random = Random::new(seed);
        let (wal, _) = disk.small().cores(2).open()?;
        let mut handles: Vec<Box<dyn std::any::Any>> = Vec::new();
        let mut futures: Vec<(Arc<WakeCount>, SyncTicket)> = Vec::new();
        let shared = wal.shared_writer(0)?;
        let mut alone = wal.writer(1)?;
        for n in 0..20 {
            let ticket = if random.chance(50) {
                put(&shared)
            } else {
                alone.append_put(b"key", &[0; 500])?;
                alone.submit()?
            };
            futures.push((WakeCount::new(), ticket));
            if n % 5 == 0 {
                handles.push(Box::new(shared.clone()));
            }
            if random.chance(20) {
                disk.sim.run_one_job();
            }
        }
        let mut pending = Vec::new();
        for (wakes, mut ticket) in futures {
            match wakes.poll(&mut ticket) {
                Poll::Pending => pending.push((wakes, ticket)),
                Poll::Ready(done) => done?,
            }
        }
        handles.push(Box::new(wal));
        handles.push(Box::new(shared));
        handles.push(Box::new(alone));
        while !handles.is_empty() {
            let at = random.size(handles.len());
            drop(handles.swap_remove(at));
        }
        for (wakes, mut ticket) in pending {
            assert_eq!(wakes.times(), 1, "seed {seed}");
            assert!(matches!(wakes.poll(&mut ticket), Poll::Ready(Ok(()))), "seed {seed}");
        }
        let recovery = reopened(&disk, 2);
        assert!(is_closed(&recovery, 0) && is_closed(&recovery, 1), "seed {seed}");
        assert_eq!(recovery.entries()?.len(), 20, "seed {seed}");
    }
    Ok(())
}

#[test]
fn a_close_serves_the_threads_that_wait() -> Result<()> {
    for seed in seeds(0..30) {
        let _watchdog = Watchdog::over(format!("a close beside waits, seed {seed}"));
        let disk = TestDisk::new(seed);
        let (wal, _) = disk.small().open()?;
        let writer = wal.shared_writer(0)?;
        let tickets: Vec<SyncTicket> = (0..6).map(|_| put(&writer)).collect();
        let (watch, end) = (wal.watch(0)?, writer.position());
        thread::scope(|scope| {
            for (n, ticket) in tickets.into_iter().enumerate() {
                let watch = watch.clone();
                scope.spawn(move || match n % 3 {
                    0 => ticket.wait().unwrap(),
                    1 => block_on(ticket).unwrap(),
                    _ => {
                        watch.wait_for(end).unwrap();
                        assert!(matches!(watch.wait_for(end + 1), Err(WalError::Closed { .. })));
                    }
                });
            }
            scope.spawn(move || {
                drop(writer);
                wal.close().unwrap();
            });
        });
        assert_eq!(reopened(&disk, 1).entries()?.len(), 6, "seed {seed}");
    }
    Ok(())
}

// ---- while others append ----

#[test]
fn a_log_that_is_dropped_while_clients_append_goes_on_until_the_last_of_them_is_done() {
    for seed in seeds(0..25) {
        let _watchdog = Watchdog::over(format!("a log dropped beside clients, seed {seed}"));
        let disk = TestDisk::new(seed);
        let background = disk.with_background();
        let clients = Clients::new(4);
        let (wal, _) = disk.small().open().unwrap();
        let when = Random::new(seed).below(60);
        thread::scope(|scope| {
            let writer = wal.shared_writer(0).unwrap();
            let watch = wal.watch(0).unwrap();
            for client in clients.indices() {
                let (writer, clients) = (writer.clone(), &clients);
                scope.spawn(move || {
                    for round in 0..20 {
                        match (client + round) % 3 {
                            0 => clients.append_and_wait(client, &writer).unwrap(),
                            1 => {
                                block_on(clients.append(client, &writer).unwrap()).unwrap();
                                clients.is_acked(client);
                            }
                            _ => drop(clients.append(client, &writer).unwrap()),
                        }
                    }
                });
            }
            drop(writer);
            scope.spawn(move || {
                // At some moment of it; each entry takes some hundred bytes.
                watch.wait_for(when * 100).unwrap();
                match seed % 2 {
                    0 => drop(wal),
                    _ => drop(wal.close()),
                }
            });
        });
        let recovery = reopened(&disk, 1);
        assert!(is_closed(&recovery, 0), "seed {seed}");
        clients.all_are_acked();
        clients.check(&recovery.entries().unwrap()).unwrap();
        drop(background);
        assert_eq!(disk.sim.jobs_panicked(), 0);
    }
}

#[test]
fn a_real_directory_is_free_as_soon_as_the_last_thread_lets_go() -> Result<()> {
    let _watchdog = Watchdog::over("handles dropped in several threads");
    let directory = tempfile::tempdir().unwrap();
    let mut expected = 0;
    for round in 0..30 {
        let (wal, recovery) = WalOptions::new(directory.path()).cores(2).open()?;
        assert_eq!(recovery.entries()?.len(), expected, "round {round}");
        assert!(round == 0 || is_closed(&recovery, 0) && is_closed(&recovery, 1));
        let (shared, mut alone) = (wal.shared_writer(0)?, wal.writer(1)?);
        thread::scope(|scope| {
            for _ in 0..2 {
                let clone = shared.clone();
                scope.spawn(move || drop(put(&clone)));
            }
            scope.spawn(move || {
                alone.append_put(b"key", b"").unwrap();
                drop(alone.submit().unwrap());
            });
            scope.spawn(move || drop(wal));
            drop(shared);
        });
        expected += 3;
    }
    Ok(())
}

#[test]
fn clients_find_out_that_a_log_was_poisoned_and_the_directory_is_free_all_the_same() -> Result<()> {
    for seed in seeds(0..10) {
        let _watchdog = Watchdog::over(format!("a poisoned log that is let go of, seed {seed}"));
        let disk = TestDisk::new(seed);
        let background = disk.with_background();
        let (wal, _) = disk.small().open()?;
        let writer = wal.shared_writer(0)?;
        put(&writer).wait()?;
        let failed = AtomicU64::new(0);
        let clients = Clients::new(3);
        thread::scope(|scope| {
            for client in clients.indices() {
                let (writer, clients, failed) = (writer.clone(), &clients, &failed);
                scope.spawn(move || {
                    while clients.append_and_wait(client, &writer).is_ok() {}
                    failed.fetch_add(1, Ordering::SeqCst);
                });
            }
            let fault = Fault::on(OperationKind::Write).named("core-0000/0");
            disk.sim.inject(fault.nth(Random::new(seed).below(20)));
        });
        assert_eq!(failed.load(Ordering::SeqCst), 3);
        drop(background);
        // Handles to the poisoned log are still out: they can do no harm.
        let recovery = support::small(&disk.sim).open()?.1;
        clients.check(&recovery.entries()?).unwrap();
        assert!(matches!(writer.append_put(b"key", b""), Err(WalError::Poisoned { .. })));
        drop(writer);
        assert!(matches!(wal.close(), Err(WalError::Poisoned { .. })));
        clients.survive_power_loss(&disk.sim, &format!("seed {seed}"));
    }
    Ok(())
}
