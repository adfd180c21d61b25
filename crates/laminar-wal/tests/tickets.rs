//! Tickets as tasks use them: awaited, cancelled, kept, dropped, in whatever executor there is.
//!
//! A task is woken when its entries are durable, by the turn that made them so, and not before. A
//! future that is dropped only does not hear of it: what was submitted is written, and nothing of
//! the future stays behind. And a proof of a sync speaks for one log, one core and one life of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use laminar_wal::{SharedWriter, SyncTicket, Synced, Wal, WalError, WalOptions};
use support::clients::{Clients, durable_entries, recovered, surviving};
use support::disks::{At, TestDisk};
use support::tasks::{Executor, WakeCount, Watchdog, block_on};
use support::{Random, seeds};
use wal_sim::SimStorage;
use wal_storage::Result;

fn is_ready(poll: &Poll<Result<()>>) -> bool {
    matches!(poll, Poll::Ready(Ok(())))
}

/// A log with a shared writer, on a disk whose jobs run when the test says.
fn shared_log(disk: &TestDisk) -> (Wal, SharedWriter) {
    let (wal, _) = disk.small().open().unwrap();
    disk.sim.run_jobs();
    let writer = wal.shared_writer(0).unwrap();
    put(&writer).wait().unwrap();
    disk.sim.run_jobs();
    (wal, writer)
}

fn put(writer: &SharedWriter) -> SyncTicket {
    writer.append_put(b"key", b"value").unwrap()
}

// ---- waking ----

#[test]
fn a_task_is_woken_when_its_entries_are_durable_and_not_before() -> Result<()> {
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    // A full buffer, which the background writes and does not sync: so the commit is a write and
    // a sync, with a moment between them.
    writer.append_put(b"key", &[0; 3000]).map(std::mem::forget)?;
    writer.append_put(b"key", &[0; 3000]).map(std::mem::forget)?;
    disk.sim.run_jobs();

    let wakes = WakeCount::new();
    let mut ticket = put(&writer);
    assert!(wakes.poll(&mut ticket).is_pending());
    let watch = wal.watch(0)?;
    let (seen, position) = (Arc::new(Mutex::new(Vec::new())), ticket.position());
    let (seen_by_disk, wakes_by_then) = (Arc::clone(&seen), Arc::downgrade(&wakes));
    disk.on_each(move |at, _| {
        let is_durable = watch.position() >= position;
        let woken = wakes_by_then.upgrade().unwrap().times();
        seen_by_disk.lock().unwrap().push((at, is_durable, woken));
    });
    disk.sim.run_jobs();
    disk.unhook();
    let steps = [At::BeforeWrite, At::BehindWrite, At::BeforeSync, At::BehindSync];
    assert_eq!(*seen.lock().unwrap(), steps.map(|at| (at, false, 0)));
    assert_eq!(wakes.times(), 1);
    assert!(is_ready(&wakes.poll(&mut ticket)));
    assert_eq!(durable_entries(&disk.sim, 0), 4);
    Ok(())
}

#[test]
fn a_commit_wakes_those_whom_it_served_and_nobody_else() -> Result<()> {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let [served, too_late] = [WakeCount::new(), WakeCount::new()];
    let mut first = put(&writer);
    assert!(served.poll(&mut first).is_pending());
    // Comes when the commit has begun.
    let second: Arc<Mutex<Option<SyncTicket>>> = Arc::default();
    let (place, wakes, clone) = (Arc::clone(&second), Arc::downgrade(&too_late), writer.clone());
    disk.on_each(move |at, _| {
        let mut place = place.lock().unwrap();
        if at == At::BeforeWrite && place.is_none() {
            let mut ticket = put(&clone);
            assert!(wakes.upgrade().unwrap().poll(&mut ticket).is_pending());
            *place = Some(ticket);
        }
    });
    assert!(disk.sim.run_one_job());
    assert_eq!((served.times(), too_late.times()), (1, 0));
    assert!(disk.sim.run_one_job(), "the end of the turn asked for another one");
    assert_eq!((served.times(), too_late.times()), (1, 1));
    disk.unhook();
    let mut second = second.lock().unwrap().take().unwrap();
    assert!(is_ready(&served.poll(&mut first)));
    assert!(is_ready(&too_late.poll(&mut second)));
    Ok(())
}

#[test]
fn a_future_that_is_polled_with_another_waker_wakes_that_one_and_forgets_the_first() {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let [first, second] = [WakeCount::new(), WakeCount::new()];
    let mut ticket = put(&writer);
    assert!(first.poll(&mut ticket).is_pending());
    assert!(first.poll(&mut ticket).is_pending());
    assert_eq!(first.registered(), 1, "however often it is polled");
    assert!(second.poll(&mut ticket).is_pending());
    assert_eq!((first.registered(), second.registered()), (0, 1));
    disk.sim.run_jobs();
    assert_eq!((first.times(), second.times()), (0, 1));
    assert!(is_ready(&first.poll(&mut ticket)));
    assert_eq!((first.registered(), second.registered()), (0, 0));
}

#[test]
fn clones_of_a_ticket_wake_a_task_each() {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let ticket = put(&writer);
    let tasks: Vec<(Arc<WakeCount>, SyncTicket)> = (0..3)
        .map(|_| {
            let (wakes, mut clone) = (WakeCount::new(), ticket.clone());
            assert!(wakes.poll(&mut clone).is_pending());
            (wakes, clone)
        })
        .collect();
    drop(ticket);
    disk.sim.run_jobs();
    for (wakes, mut clone) in tasks {
        assert_eq!((wakes.times(), wakes.registered()), (1, 0));
        assert!(is_ready(&wakes.poll(&mut clone)));
    }
}

#[test]
fn whoever_is_woken_finds_the_device_free() {
    struct SyncsWhenWoken(SharedWriter, AtomicU64);
    impl Wake for SyncsWhenWoken {
        fn wake(self: Arc<Self>) {
            self.0.append_put(b"key", b"from the wake-up").unwrap().wait().unwrap();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _watchdog = Watchdog::over("a wake-up that syncs");
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let task = Arc::new(SyncsWhenWoken(writer.clone(), AtomicU64::new(0)));
    let mut ticket = put(&writer);
    let waker = Waker::from(Arc::clone(&task));
    let polled = std::pin::Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    disk.sim.run_jobs();
    assert_eq!(task.1.load(Ordering::SeqCst), 1);
    assert_eq!(durable_entries(&disk.sim, 0), 3);
}

#[test]
fn the_last_waker_of_a_task_may_own_tickets_of_the_same_log() {
    /// As in an executor where a task that waits is owned by its wakers alone.
    struct Task(#[expect(dead_code, reason = "owned, to be dropped")] Mutex<Vec<SyncTicket>>);
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let _watchdog = Watchdog::over("a task that is dropped with its waker");
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let task_waker = |writer: &SharedWriter| {
        let mut owned = put(writer);
        assert!(WakeCount::new().poll(&mut owned).is_pending());
        Waker::from(Arc::new(Task(Mutex::new(vec![owned]))))
    };
    let poll = |ticket: &mut SyncTicket, waker: Waker| {
        std::pin::Pin::new(ticket).poll(&mut Context::from_waker(&waker))
    };
    // Replaced by another waker.
    let mut ticket = put(&writer);
    assert!(poll(&mut ticket, task_waker(&writer)).is_pending());
    assert!(poll(&mut ticket, task_waker(&writer)).is_pending());
    // Woken.
    disk.sim.run_jobs();
    assert!(is_ready(&poll(&mut ticket, Waker::noop().clone())));
    // Forgotten.
    let mut ticket = put(&writer);
    assert!(poll(&mut ticket, task_waker(&writer)).is_pending());
    drop(ticket);
    disk.sim.run_jobs();
    assert_eq!(durable_entries(&disk.sim, 0) as u64, writer.sequence());
}

// ---- cancelling ----

/// A task that waits for one entry.
struct Waiting {
    ticket: SyncTicket,
    wakes: Arc<WakeCount>,
}

#[test]
fn thousands_of_futures_that_are_cancelled_lose_nothing_and_leave_nothing_behind() {
    for seed in seeds(0..4) {
        let _watchdog = Watchdog::over(format!("cancelled futures, seed {seed}"));
        let disk = TestDisk::new(seed);
        let (wal, _) = disk.roomy().open().unwrap();
        let writer = wal.shared_writer(0).unwrap();
        let mut random = Random::new(seed);
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut cancelled: Vec<(Arc<WakeCount>, usize)> = Vec::new();
        for _ in 0..5000 {
            let mut ticket = put(&writer);
            let wakes = WakeCount::new();
            if random.chance(80) {
                let polled = wakes.poll(&mut ticket);
                assert!(polled.is_pending() || ticket.is_durable().unwrap(), "seed {seed}");
            }
            waiting.push(Waiting { ticket, wakes });
            match random.below(100) {
                // Most of them never hear how it ended.
                0..80 => {
                    let at = random.size(waiting.len());
                    let Waiting { ticket, wakes } = waiting.swap_remove(at);
                    drop(ticket);
                    assert_eq!(wakes.registered(), 0, "seed {seed}");
                    cancelled.push((Arc::clone(&wakes), wakes.times()));
                }
                80..90 => {
                    let at = random.size(waiting.len());
                    let task = &mut waiting[at];
                    task.wakes = WakeCount::new();
                    let _ = task.wakes.poll(&mut task.ticket);
                }
                90..97 => drop(disk.sim.run_one_job()),
                _ => drop(disk.sim.run_jobs()),
            }
        }
        disk.sim.run_jobs();
        assert_eq!(durable_entries(&disk.sim, 0), 5000, "seed {seed}");
        for (wakes, times) in cancelled {
            assert_eq!(wakes.times(), times, "seed {seed}: woken after it was cancelled");
        }
        for Waiting { mut ticket, wakes } in waiting {
            assert!(wakes.times() <= 1, "seed {seed}");
            assert_eq!(wakes.registered(), 0, "seed {seed}");
            assert!(is_ready(&wakes.poll(&mut ticket)), "seed {seed}");
        }
    }
}

#[test]
fn futures_that_are_cancelled_while_threads_commit_lose_nothing() {
    for seed in seeds(0..3) {
        let _watchdog = Watchdog::over(format!("cancelled beside commits, seed {seed}"));
        let disk = TestDisk::new(seed);
        let (wal, _) = disk.roomy().open().unwrap();
        let writer = wal.shared_writer(0).unwrap();
        let background = disk.with_background();
        thread::scope(|scope| {
            for thread in 0..4 {
                let writer = writer.clone();
                scope.spawn(move || {
                    let mut random = Random::new(seed * 10 + thread);
                    for _ in 0..400 {
                        let mut ticket = put(&writer);
                        let wakes = WakeCount::new();
                        match random.below(4) {
                            0 => ticket.wait().unwrap(),
                            1 => block_on(ticket).unwrap(),
                            _ => {
                                let polled = wakes.poll(&mut ticket);
                                let cancelled_late = random.chance(50);
                                if cancelled_late {
                                    thread::yield_now();
                                }
                                drop(ticket);
                                let woken = wakes.times();
                                assert!(woken <= usize::from(polled.is_pending()), "seed {seed}");
                            }
                        }
                    }
                });
            }
        });
        let end = writer.position();
        wal.watch(0).unwrap().wait_for(end).unwrap();
        drop(background);
        assert_eq!(durable_entries(&disk.sim, 0), 4 * 400, "seed {seed}");
    }
}

// ---- who holds the ticket ----

#[test]
fn what_a_last_ticket_was_dropped_for_is_written_though_nobody_waits() {
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    drop(put(&writer));
    assert_eq!(durable_entries(&disk.sim, 0), 1);
    disk.sim.run_jobs();
    assert_eq!(durable_entries(&disk.sim, 0), 2);

    drop(writer);
    let mut writer = wal.writer(0).unwrap();
    writer.append_put(b"key", b"").unwrap();
    drop(writer.submit().unwrap());
    disk.sim.run_jobs();
    assert_eq!(durable_entries(&disk.sim, 0), 3);
}

#[test]
fn a_future_that_is_cancelled_lets_its_waker_go() {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let wakes = WakeCount::new();
    let mut ticket = put(&writer);
    assert!(wakes.poll(&mut ticket).is_pending());
    let held = Arc::strong_count(&wakes);
    drop(ticket);
    assert_eq!(Arc::strong_count(&wakes), held - 1);
}

#[test]
fn tickets_that_only_futures_hold_come_to_their_end() {
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    let mut futures: Vec<(Arc<WakeCount>, SyncTicket)> =
        (0..10).map(|_| (WakeCount::new(), put(&writer))).collect();
    for (wakes, ticket) in &mut futures {
        assert!(wakes.poll(ticket).is_pending());
    }
    // Nobody else is left who knows of the log.
    drop(wal);
    drop(writer);
    for (wakes, ticket) in &mut futures {
        assert_eq!(wakes.times(), 1);
        assert!(is_ready(&wakes.poll(ticket)));
    }
    assert_eq!(durable_entries(&disk.sim, 0), 11);
    // The tickets that are left do not keep others from opening it.
    disk.small().open().unwrap();
}

#[test]
fn a_ticket_of_before_a_cut_says_ok_because_it_was_durable_before_it_was_cut() -> Result<()> {
    for resets in [false, true] {
        let disk = TestDisk::new(1);
        let (wal, _) = disk.small().open()?;
        let mut writer = wal.writer(0)?;
        writer.append_put(b"kept", b"")?;
        let kept = writer.position();
        let wakes = WakeCount::new();
        writer.append_put(b"cut", b"")?;
        let mut polled = writer.submit()?;
        assert!(wakes.poll(&mut polled).is_pending());
        writer.append_put(b"cut", b"")?;
        let (asked, waited_for, awaited) = {
            let ticket = writer.submit()?;
            (ticket.clone(), ticket.clone(), ticket)
        };
        match resets {
            true => writer.reset()?,
            false => writer.truncate(kept)?,
        }
        assert_eq!(wakes.times(), 1);
        assert!(is_ready(&wakes.poll(&mut polled)));
        // The log is shorter than what these speak of, and says Ok all the same.
        assert!(writer.position() < asked.position());
        assert!(asked.is_durable()?);
        waited_for.wait()?;
        block_on(awaited)?;

        // Nor does a ticket of before make anything durable that came later.
        writer.append_put(b"new", b"")?;
        asked.wait()?;
        drop(asked);
        disk.sim.run_jobs();
        assert_eq!(durable_entries(&disk.sim, 0), if resets { 0 } else { 1 });
        writer.sync()?;
    }
    Ok(())
}

#[test]
fn a_ticket_says_ok_behind_a_close() -> Result<()> {
    for is_dropped in [false, true] {
        let disk = TestDisk::new(1);
        let (wal, writer) = shared_log(&disk);
        let tickets = [put(&writer), put(&writer), put(&writer)];
        drop(writer);
        match is_dropped {
            true => drop(wal),
            false => wal.close()?,
        }
        let [asked, waited_for, awaited] = tickets;
        assert!(asked.is_durable()?);
        waited_for.wait()?;
        block_on(awaited)?;
        assert_eq!(durable_entries(&disk.sim, 0), 4);
    }
    Ok(())
}

// ---- executors ----

#[test]
fn many_tasks_in_one_thread_append_and_await_on_a_real_disk() -> Result<()> {
    let _watchdog = Watchdog::over("tasks in one thread");
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = WalOptions::new(directory.path()).open()?;
    let writer = wal.shared_writer(0)?;
    let clients = Arc::new(Clients::new(100));
    let mut executor = Executor::default();
    for client in clients.indices() {
        let (clients, writer) = (Arc::clone(&clients), writer.clone());
        executor.spawn(async move {
            for _ in 0..5 {
                clients.append(client, &writer).unwrap().await.unwrap();
                clients.is_acked(client);
            }
        });
    }
    executor.run();
    let killed = SimStorage::from_directory(1, directory.path())?;
    let entries = recovered(&killed);
    assert_eq!(entries.len(), 500);
    clients.check(&entries).unwrap();
    Ok(())
}

#[test]
fn tasks_are_polled_only_when_woken_and_all_come_to_their_end() {
    for seed in seeds(0..20) {
        let disk = TestDisk::new(seed);
        let (wal, writer) = shared_log(&disk);
        let mut executor = Executor::default();
        for task in 0..20 {
            let (writer, watch) = (writer.clone(), wal.watch(0).unwrap());
            executor.spawn(async move {
                for round in 0..10 {
                    let ticket = put(&writer);
                    let position = ticket.position();
                    if (task + round) % 3 == 0 {
                        // Somebody must have asked: the watch does not.
                        drop(ticket);
                        watch.reached(position).await.unwrap();
                    } else {
                        ticket.await.unwrap();
                    }
                    assert!(watch.position() >= position);
                }
            });
        }
        while executor.run_woken() > 0 {
            assert!(disk.sim.run_one_job(), "seed {seed}: nobody is at work for those who wait");
        }
        assert_eq!(durable_entries(&disk.sim, 0), 1 + 20 * 10, "seed {seed}");
    }
}

// ---- without threads ----

#[test]
fn without_a_thread_to_be_had_whoever_asks_does_it_himself() -> Result<()> {
    let _watchdog = Watchdog::over("no threads");
    let disk = TestDisk::new(1);
    let (wal, writer) = shared_log(&disk);
    disk.refuse_jobs(true);
    block_on(put(&writer))?;
    assert_eq!(durable_entries(&disk.sim, 0), 2);
    // One who asked before, and was told no, too.
    let ticket = put(&writer);
    assert!(!ticket.is_durable()?);
    block_on(ticket)?;
    assert_eq!(durable_entries(&disk.sim, 0), 3);
    put(&writer).wait()?;
    drop(put(&writer));
    drop(writer);
    assert_eq!(durable_entries(&disk.sim, 0), 5, "there is nobody to hand it over to");

    let mut writer = wal.writer(0)?;
    writer.append_put(b"key", b"")?;
    assert!(writer.submit()?.is_durable()?);

    // Whoever goes on asking is served when there is a thread again.
    let writer = writer.into_shared();
    let ticket = put(&writer);
    assert!(!ticket.is_durable()?);
    disk.refuse_jobs(false);
    assert!(!ticket.is_durable()?);
    disk.sim.run_jobs();
    assert!(ticket.is_durable()?);
    Ok(())
}

#[test]
fn a_task_that_the_background_promised_to_serve_is_served_when_there_is_no_background_any_more() {
    let disk = TestDisk::new(1);
    let (_wal, writer) = shared_log(&disk);
    let mut executor = Executor::default();
    // The second append comes while the first is being written. When its turn would be next, there
    // is no thread for that any more.
    let clone = writer.clone();
    executor.spawn(async move { put(&clone).await.unwrap() });
    assert_eq!(executor.run_woken(), 1);
    let late: Arc<Mutex<Option<SyncTicket>>> = Arc::default();
    let (place, machine, clone) = (Arc::clone(&late), disk.clone(), writer.clone());
    let wakes = WakeCount::new();
    let wakes_late = Arc::downgrade(&wakes);
    disk.on_each(move |at, _| {
        let mut place = place.lock().unwrap();
        if at == At::BeforeWrite && place.is_none() {
            let mut ticket = put(&clone);
            assert!(wakes_late.upgrade().unwrap().poll(&mut ticket).is_pending());
            *place = Some(ticket);
            machine.refuse_jobs(true);
        }
    });
    disk.sim.run_jobs();
    disk.unhook();
    assert_eq!(executor.run_woken(), 0);
    assert_eq!(wakes.times(), 1, "it must look for itself");
    let mut late = late.lock().unwrap().take().unwrap();
    assert!(is_ready(&wakes.poll(&mut late)));
    assert_eq!(durable_entries(&disk.sim, 0), 3);
}

// ---- proofs ----

#[test]
fn a_proof_of_another_log_core_opening_or_life_is_refused_and_marks_nothing() -> Result<()> {
    /// Proof of a sync of one more entry.
    fn proof(wal: &Wal, core: u16) -> Synced {
        let mut writer = wal.writer(core).unwrap();
        writer.append_put(b"proven", b"").unwrap();
        writer.start_sync().unwrap().run().unwrap()
    }
    let open = |disk: &TestDisk| disk.small().cores(2).open().map(|(wal, _)| wal);
    let (disk, other_disk) = (TestDisk::new(1), TestDisk::new(2));
    let other_log = proof(&open(&other_disk)?, 0);
    let earlier_opening = proof(&open(&disk)?, 0);
    let wal = open(&disk)?;
    let other_core = proof(&wal, 1);
    let before_a_cut = proof(&wal, 0);
    let mut writer = wal.writer(0)?;
    writer.truncate(0)?;
    writer.append_put(b"key", b"")?;
    writer.sync()?;
    let before_a_reset = {
        writer.append_put(b"key", b"")?;
        writer.start_sync()?.run()?
    };
    writer.reset()?;
    let request_of_before = {
        writer.append_put(b"key", b"")?;
        let request = writer.start_sync()?;
        writer.reset()?;
        request
    };
    // So far that every one of those positions would be news.
    for _ in 0..20 {
        writer.append_put(b"key", b"")?;
    }
    let before = (writer.synced_position(), writer.entries_since_sync());
    for stale in [other_log, earlier_opening, other_core, before_a_cut, before_a_reset] {
        assert!(stale.position() <= writer.position());
        let shown = format!("{stale:?}");
        let refusal = writer.mark_synced(stale).unwrap_err();
        assert!(matches!(refusal, WalError::ProofRejected { core: 0, .. }), "{shown}: {refusal}");
    }
    let refusal = request_of_before.run().unwrap_err();
    assert!(matches!(refusal, WalError::ProofRejected { core: 0, .. }), "{refusal}");
    assert_eq!((writer.synced_position(), writer.entries_since_sync()), before);
    assert!(surviving(&disk.sim).iter().all(|entry| entry.core_id == 1));

    let fresh = writer.start_sync()?.run()?;
    writer.mark_synced(fresh)?;
    assert_eq!(writer.entries_since_sync(), 0);
    Ok(())
}
