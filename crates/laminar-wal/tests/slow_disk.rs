//! A disk that takes its time: a millisecond for each write and each sync.
//!
//! While one commit is on its way the next one gathers, so the more clients there are, the more
//! entries share a sync; and who appends faster than the disk takes it waits, instead of filling
//! the memory or keeping the others from being served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use laminar_wal::{CoreWalWriter, SyncTicket, WalOptions};
use support::clients::{Clients, durable_entries};
use support::disks::{At, TestDisk};
use support::tasks::{Executor, Watchdog};
use wal_sim::OperationKind;
use wal_storage::Result;

/// A disk on which every write and every sync takes a millisecond.
fn slow_disk() -> TestDisk {
    let disk = TestDisk::new(1);
    disk.on_each(|at, _| {
        if matches!(at, At::BeforeWrite | At::BeforeSync) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    disk.sim.set_tracing(true);
    disk
}

fn commits(disk: &TestDisk) -> u64 {
    let of_records = disk.sim.take_trace().into_iter().filter(|operation| {
        let is_sync = operation.kind == OperationKind::Sync || operation.through;
        is_sync && operation.name.starts_with("core-0000/0")
    });
    of_records.count() as u64
}

/// How many entries share a commit if so many threads wait for theirs.
fn entries_per_commit(clients: usize) -> u64 {
    let _watchdog = Watchdog::over(format!("{clients} clients on a slow disk"));
    let disk = slow_disk();
    let (wal, _) = disk.roomy().open().unwrap();
    let _background = disk.with_background();
    let writer = wal.shared_writer(0).unwrap();
    let clients = Clients::new(clients);
    thread::scope(|scope| {
        for client in clients.indices() {
            let (writer, clients) = (writer.clone(), &clients);
            scope.spawn(move || {
                for _ in 0..20 {
                    clients.append_and_wait(client, &writer).unwrap();
                }
            });
        }
    });
    clients.survive_power_loss(&disk.sim, "a slow disk");
    clients.appended() / commits(&disk)
}

#[test]
fn the_more_clients_wait_the_more_entries_share_a_commit() {
    let per_commit = [1, 4, 16, 64].map(entries_per_commit);
    assert_eq!(per_commit[0], 1, "{per_commit:?}");
    // Half of what is possible, for machines that are busy with something else.
    assert!(per_commit[1] >= 2, "{per_commit:?}");
    assert!(per_commit[2] >= 6, "{per_commit:?}");
    assert!(per_commit[3] >= 20, "{per_commit:?}");
}

#[test]
fn tasks_in_one_thread_share_commits_as_threads_do() {
    let _watchdog = Watchdog::over("tasks on a slow disk");
    let disk = slow_disk();
    let (wal, _) = disk.roomy().open().unwrap();
    let _background = disk.with_background();
    let mut executor = Executor::default();
    for _ in 0..50 {
        let writer = wal.shared_writer(0).unwrap();
        executor.spawn(async move {
            for _ in 0..10 {
                writer.append_put(b"key", b"value").unwrap().await.unwrap();
            }
        });
    }
    executor.run();
    let commits = commits(&disk);
    assert!(commits <= 30, "{commits} commits for ten rounds of fifty tasks");
}

fn narrow(disk: &TestDisk) -> WalOptions {
    disk.roomy().batch_bytes(4096).in_flight_bytes(4 * 4096)
}

#[test]
fn who_appends_faster_than_the_disk_writes_waits_and_the_waits_are_counted() -> Result<()> {
    let _watchdog = Watchdog::over("an appender on a slow disk");
    let disk = slow_disk();
    let (wal, _) = narrow(&disk).open()?;
    let _background = disk.with_background();
    let mut writer = wal.writer(0)?;
    let mut in_flight: VecDeque<SyncTicket> = VecDeque::new();
    for _ in 0..150 {
        writer.append_put(b"key", &[7; 1000])?;
        in_flight.push_back(writer.submit()?);
        while in_flight.front().is_some_and(|oldest| oldest.is_durable().unwrap()) {
            in_flight.pop_front();
        }
        assert!(in_flight.len() <= 4, "{} batches wait for the disk", in_flight.len());
    }
    assert!(writer.stalls().buffers >= 10, "{:?}", writer.stalls());
    writer.sync()?;
    assert_eq!(durable_entries(&disk.sim, 0), 150);

    // Nor does filling buffers that nobody wants durable yet take more memory than there is to be.
    let before = writer.stalls().buffers;
    for _ in 0..150 {
        writer.append_put(b"key", &[7; 1000])?;
    }
    assert!(writer.stalls().buffers > before);
    Ok(())
}

#[test]
fn threads_that_append_to_a_full_log_wait_and_lose_nothing() -> Result<()> {
    let _watchdog = Watchdog::over("appenders on a slow disk");
    let disk = slow_disk();
    let (wal, _) = narrow(&disk).open()?;
    let _background = disk.with_background();
    let writer = wal.shared_writer(0)?;
    let clients = Clients::new(4);
    thread::scope(|scope| {
        for client in clients.indices() {
            let (writer, clients) = (writer.clone(), &clients);
            scope.spawn(move || {
                for round in 0..60 {
                    let key = clients.next_key(client);
                    let ticket = writer.append_put(&key, &[7; 1000]).unwrap();
                    if round % 10 == 0 {
                        ticket.wait().unwrap();
                        clients.is_acked(client);
                    }
                }
            });
        }
    });
    assert!(writer.stalls().buffers > 0, "{:?}", writer.stalls());
    writer.sync()?;
    clients.all_are_acked();
    clients.survive_power_loss(&disk.sim, "four appenders");
    Ok(())
}

#[test]
fn appenders_that_stall_together_all_go_on() -> Result<()> {
    let _watchdog = Watchdog::over("appenders that stall together");
    let disk = TestDisk::new(1);
    let (wal, _) = disk.small().open()?;
    let _background = disk.with_background();
    let writer = wal.shared_writer(0)?;
    let clients = Clients::new(6);
    thread::scope(|scope| {
        for client in clients.indices() {
            let (writer, clients) = (writer.clone(), &clients);
            scope.spawn(move || {
                for _ in 0..200 {
                    let key = clients.next_key(client);
                    drop(writer.append_put(&key, &[7; 1500]).unwrap());
                }
            });
        }
    });
    assert!(writer.stalls().buffers > 100, "{:?}", writer.stalls());
    writer.sync()?;
    clients.all_are_acked();
    clients.survive_power_loss(&disk.sim, "six appenders");
    Ok(())
}

/// A producer that keeps as much in flight as it may, and how many writes its tickets waited for.
struct Producer {
    writer: CoreWalWriter,
    writes: u64,
    in_flight: VecDeque<(SyncTicket, u64)>,
}

impl Producer {
    /// Submits until nothing more may be in flight.
    fn fill_up(&mut self) {
        while let Some(ticket) = self.writer.try_submit().unwrap() {
            self.in_flight.push_back((ticket, self.writes));
            self.writer.append_put(b"key", &[7; 60 * 1024]).unwrap();
        }
    }

    /// Another write is about to begin.
    fn at_write(&mut self) {
        self.fill_up();
        while self.in_flight.front().is_some_and(|(oldest, _)| oldest.is_durable().unwrap()) {
            self.in_flight.pop_front();
        }
        self.writes += 1;
        let begun = self.in_flight.front().map_or(self.writes, |(_, begun)| *begun);
        let waited = self.writes - begun;
        assert!(waited <= WRITES_MAX, "nobody was served for {waited} writes");
    }
}

/// What may be in flight are four writes: those before the sync that came too early for a ticket,
/// and those before its own.
const WRITES_MAX: u64 = 2 * 4;

#[test]
fn a_producer_that_keeps_the_disk_busy_does_not_put_off_the_sync() -> Result<()> {
    let disk = TestDisk::new(1);
    let (wal, _) =
        disk.roomy().segment_bytes(64 * 1024 * 1024).in_flight_bytes(4 * 1024 * 1024).open()?;
    let mut writer = wal.writer(0)?;
    // Segments grow. A small one would end, and be synced for that.
    while writer.position() < 16 * 1024 * 1024 {
        writer.append_put(b"key", &[7; 60 * 1024])?;
        disk.sim.run_jobs();
    }
    writer.sync()?;

    let producer = Arc::new(Mutex::new(Producer { writer, writes: 0, in_flight: VecDeque::new() }));
    let at_write = Arc::clone(&producer);
    disk.on_each(move |at, _| {
        if at == At::BeforeWrite {
            at_write.lock().unwrap().at_write();
        }
    });
    producer.lock().unwrap().fill_up();
    for _ in 0..6 {
        let newest = {
            let producer = producer.lock().unwrap();
            producer.in_flight.back().map(|(ticket, _)| ticket.clone())
        };
        newest.unwrap().wait()?;
    }
    disk.unhook();
    Ok(())
}
