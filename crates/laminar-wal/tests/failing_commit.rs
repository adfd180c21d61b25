//! The device fails while everybody waits for it: threads that wait, wait with a timeout, sync,
//! run a request, watch, stall for a buffer, sync all cores; and tasks.
//!
//! Nobody hangs, nobody is told Ok for what the disk may not have, everybody is told the first
//! cause, and the other cores go on. That a leader which fails leaves its followers asleep is how
//! group commits break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use laminar_wal::{CoreWalWriter, SharedWriter, SyncRequest, SyncTicket, Wal, WalError};
use support::clients::{Clients, durable_entries};
use support::disks::{At, TestDisk};
use support::tasks::{WakeCount, Watchdog, block_on};
use wal_sim::{Fault, OperationKind, Part};
use wal_storage::Result;

const LONG: Duration = Duration::from_secs(3600);

/// What went wrong first, as everybody who waits for core 0 must be told.
fn first_cause(told: Result<impl Sized>) -> String {
    match told.map(drop) {
        Err(WalError::Poisoned { core: 0, first }) => first.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Everybody was told one and the same cause.
fn the_one_cause(told: impl IntoIterator<Item = String>) -> String {
    let causes: BTreeSet<String> = told.into_iter().collect();
    assert_eq!(causes.len(), 1, "{causes:#?}");
    causes.into_iter().next().unwrap()
}

fn failing(kind: OperationKind, part: Part) -> Fault {
    Fault::on(kind).named("core-0000/0").done(part)
}

/// A log of three cores whose first segments are started.
fn log_of_three(disk: &TestDisk) -> Wal {
    let (wal, _) = disk.small().in_flight_bytes(4 * 4096).cores(3).open().unwrap();
    disk.sim.run_jobs();
    for core in 0..3 {
        let mut writer = wal.writer(core).unwrap();
        writer.append_put(b"first", b"").unwrap();
        writer.sync().unwrap();
    }
    disk.sim.run_jobs();
    wal
}

// ---- all at once ----

#[test]
fn everybody_who_waits_behind_a_shared_writer_is_told_the_first_cause() {
    for part in [Part::Nothing, Part::Random, Part::Everything] {
        let _watchdog = Watchdog::over(format!("a shared writer, a failed write, {part:?} done"));
        let disk = TestDisk::new(1);
        let wal = log_of_three(&disk);
        let background = disk.with_background();
        let (writer, healthy) = (wal.shared_writer(0).unwrap(), wal.shared_writer(2).unwrap());
        let put = || writer.append_put(b"key", b"value");
        let gate = disk.hold_up_writes(0);
        let told = Mutex::new(Vec::new());
        let wakes = [WakeCount::new(), WakeCount::new()];
        let tell = |told_this: Result<()>| told.lock().unwrap().push(first_cause(told_this));
        let tell = &tell;
        thread::scope(|scope| {
            scope.spawn(|| tell(put().and_then(|ticket| ticket.wait())));
            gate.await_somebody();

            let mut ticket = put().unwrap();
            let mut reached = wal.watch(0).unwrap().reached(u64::MAX);
            assert!(wakes[0].poll(&mut ticket).is_pending());
            assert!(wakes[1].poll(&mut reached).is_pending());
            for _ in 0..2 {
                scope.spawn(|| tell(put().and_then(|ticket| ticket.wait())));
                scope.spawn(|| tell(put().and_then(|ticket| ticket.wait_timeout(LONG)).map(drop)));
                scope.spawn(|| tell(put().and_then(block_on)));
                scope.spawn(|| tell(writer.sync()));
                scope.spawn(|| tell(wal.sync_all()));
                scope.spawn(|| tell(wal.watch(0).unwrap().wait_for(u64::MAX)));
                scope.spawn(|| {
                    tell(wal.watch(0).unwrap().wait_for_timeout(u64::MAX, LONG).map(drop))
                });
                scope.spawn(|| {
                    // Until there is no buffer left.
                    let stalled = (0..).find_map(|_| writer.append_put(b"key", &[0; 3000]).err());
                    tell(Err(stalled.unwrap()));
                });
            }
            while writer.stalls().buffers == 0 {
                thread::yield_now();
            }
            disk.sim.inject(failing(OperationKind::Write, part));
            gate.open();
            // Completes also those that are polled and not waited for.
            while wakes.iter().any(|wakes| wakes.times() == 0) {
                thread::yield_now();
            }
            for polled in [wakes[0].poll(&mut ticket), wakes[1].poll(&mut reached)] {
                let Poll::Ready(polled) = polled else { panic!("woken, and not told why") };
                tell(polled);
            }
        });
        let cause = the_one_cause(told.into_inner().unwrap());
        assert!(cause.contains("core-0000") && cause.contains("writing"), "{cause}");

        // Whoever comes later is told the same.
        let later = [
            first_cause(writer.append_put(b"key", b"")),
            first_cause(writer.append_batch(&laminar_wal::WriteBatch::new())),
            first_cause(writer.sync()),
            first_cause(wal.sync_all()),
            first_cause(wal.shared_writer(0)),
            first_cause(wal.watch(0).unwrap().wait_for(u64::MAX)),
        ];
        assert_eq!(the_one_cause(later), cause);
        healthy.append_put(b"key", b"").unwrap().wait().unwrap();
        assert_eq!(durable_entries(&disk.sim, 2), 2, "the other cores go on");

        drop((writer, healthy));
        assert_eq!(first_cause(wal.close()), cause);
        drop(background);
        let (wal, recovery) = disk.small().cores(3).open().unwrap();
        assert!(recovery.entries().unwrap().len() >= 4);
        wal.shared_writer(0).unwrap().append_put(b"key", b"").unwrap().wait().unwrap();
    }
}

#[test]
fn everybody_who_waits_behind_a_cores_own_writer_is_told_the_first_cause() {
    for (kind, part) in [
        (OperationKind::Write, Part::Random),
        (OperationKind::Write, Part::Everything),
        (OperationKind::Sync, Part::Nothing),
        (OperationKind::Sync, Part::Everything),
    ] {
        let _watchdog = Watchdog::over(format!("a core's writer, a failed {kind:?}, {part:?}"));
        let disk = TestDisk::new(1);
        let wal = log_of_three(&disk);
        let mut writer = wal.writer(0).unwrap();
        // Full buffers, which are written and not synced: so the commit is a write and a sync.
        for _ in 0..3 {
            writer.append_put(b"key", &[0; 3000]).unwrap();
        }
        disk.sim.run_jobs();
        let _background = disk.with_background();
        let gate = disk.hold_up(
            0,
            match kind {
                OperationKind::Sync => At::BeforeSync,
                _ => At::BeforeWrite,
            },
        );
        let told = Mutex::new(Vec::new());
        let wakes = WakeCount::new();
        let tell = |told_this: Result<()>| told.lock().unwrap().push(first_cause(told_this));
        let tell = &tell;
        thread::scope(|scope| {
            let request = writer.start_sync().unwrap();
            scope.spawn(move || tell(request.run().map(drop)));
            gate.await_somebody();

            for _ in 0..2 {
                let request = writer.start_sync().unwrap();
                scope.spawn(move || tell(request.run().map(drop)));
            }
            writer.append_put(b"key", b"").unwrap();
            let mut ticket = writer.submit().unwrap();
            let clones = [ticket.clone(), ticket.clone(), ticket.clone()];
            let [waiting, with_timeout, awaited] = clones;
            scope.spawn(move || tell(waiting.wait()));
            scope.spawn(move || tell(with_timeout.wait_timeout(LONG).map(drop)));
            scope.spawn(move || tell(block_on(awaited)));
            scope.spawn(|| tell(wal.sync_all()));
            assert!(wakes.poll(&mut ticket).is_pending());
            disk.sim.inject(failing(kind, part));
            let watch = wal.watch(0).unwrap();
            scope.spawn(move || {
                // Long enough for all of them to fall asleep.
                assert!(!watch.wait_for_timeout(u64::MAX, Duration::from_millis(20)).unwrap());
                gate.open();
            });
            // Until there is no buffer left.
            let stalled = (0..).find_map(|_| writer.append_put(b"key", &[0; 3000]).err());
            tell(Err(stalled.unwrap()));
            assert!(writer.stalls().buffers > 0);
            while wakes.times() == 0 {
                thread::yield_now();
            }
            let Poll::Ready(polled) = wakes.poll(&mut ticket) else { panic!("not told why") };
            tell(polled);
            assert_eq!(first_cause(ticket.is_durable()), first_cause(ticket.wait()));
        });
        let cause = the_one_cause(told.into_inner().unwrap());
        assert!(cause.contains("core-0000"), "{cause}");
        let later = [
            first_cause(writer.append_delete(b"key")),
            first_cause(writer.submit()),
            first_cause(writer.try_submit()),
            first_cause(writer.start_sync()),
            first_cause(writer.sync()),
            first_cause(writer.close()),
        ];
        assert_eq!(the_one_cause(later), cause);
    }
}

// ---- at every operation ----

/// What a program with many threads does on core 0, which fails, and on core 2, which does not.
struct Program<'a> {
    story: &'a str,
    disk: &'a TestDisk,
    wal: &'a Wal,
    failing: Clients,
    healthy: Clients,
    causes: Mutex<Vec<String>>,
    /// Tickets that nobody asks, so that nobody wants what they speak of.
    unasked: Vec<SyncTicket>,
}

/// So often the program's threads are started, and so much does each of them do then.
const STARTS: usize = 4;
const ROUNDS: usize = 3;

impl<'a> Program<'a> {
    fn new(disk: &'a TestDisk, wal: &'a Wal, story: &'a str) -> Self {
        Self {
            story,
            disk,
            wal,
            failing: Clients::of_core(0, 8),
            healthy: Clients::of_core(2, 2),
            causes: Mutex::default(),
            unasked: Vec::new(),
        }
    }

    /// Runs all of it: each client to its last round, or its first error.
    fn run(&mut self) {
        let shared = self.wal.shared_writer(0).unwrap();
        let healthy = self.wal.shared_writer(2).unwrap();
        for _ in 0..STARTS {
            // A full buffer, written and not synced, so that the next commit is a write and a sync.
            for _ in 0..2 {
                match shared.append_put(b"filler", &[0; 3000]) {
                    Ok(ticket) => self.unasked.push(ticket),
                    Err(error) => self.is_told(error),
                }
            }
            self.disk.sim.run_jobs();
            let _background = self.disk.with_background();
            self.run_threads(&shared, &healthy);
        }
    }

    fn run_threads(&self, shared: &SharedWriter, healthy: &SharedWriter) {
        let at_work = AtomicU64::new(self.failing.indices().len() as u64);
        thread::scope(|scope| {
            for client in self.failing.indices() {
                let at_work = &at_work;
                scope.spawn(move || {
                    let mut rounds = 0..ROUNDS;
                    let ended = rounds.try_for_each(|n| self.one_round(client, n, shared));
                    ended.unwrap_or_else(|error| self.is_told(error));
                    at_work.fetch_sub(1, Ordering::SeqCst);
                });
            }
            for client in self.healthy.indices() {
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        self.healthy.append_and_wait(client, healthy).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                while at_work.load(Ordering::SeqCst) > 0 {
                    self.wal.sync_all().unwrap_or_else(|error| self.is_told(error));
                    thread::yield_now();
                }
            });
        });
    }

    /// Each client has its own way to learn that its entries are durable.
    fn one_round(&self, client: usize, round: usize, writer: &SharedWriter) -> Result<()> {
        let clients = &self.failing;
        match client {
            0 => clients.append_and_wait(client, writer)?,
            1 => {
                let _unasked = clients.append(client, writer)?;
                writer.sync()?;
            }
            2 => block_on(clients.append(client, writer)?)?,
            3 => assert!(clients.append(client, writer)?.wait_timeout(LONG)?, "{}", self.story),
            4 => {
                let ticket = clients.append(client, writer)?;
                while !ticket.is_durable()? {
                    thread::yield_now();
                }
            }
            5 => {
                let ticket = clients.append(client, writer)?;
                let (watch, position) = (self.wal.watch(0)?, ticket.position());
                drop(ticket);
                watch.wait_for(position)?;
            }
            6 => {
                let ticket = clients.append(client, writer)?;
                let (watch, position) = (self.wal.watch(0)?, ticket.position());
                assert!(!ticket.is_durable()? || watch.position() >= position, "{}", self.story);
                block_on(watch.reached(position))?;
            }
            _ => {
                // Fills buffers and segments, and stalls.
                let key = clients.next_key(client);
                let ticket = writer.append_put(&key, &[0; 3000])?;
                if round + 1 < ROUNDS {
                    return Ok(());
                }
                ticket.wait()?;
            }
        }
        clients.is_acked(client);
        Ok(())
    }

    fn is_told(&self, error: WalError) {
        self.causes.lock().unwrap().push(first_cause(Err::<(), _>(error)));
    }

    /// Nobody was told anything but the one cause, and nobody was acked what is not there.
    fn check(&self, has_failed: bool) {
        let causes = std::mem::take(&mut *self.causes.lock().unwrap());
        if has_failed {
            let later = first_cause(self.wal.sync_all());
            the_one_cause(causes.into_iter().chain([later]));
        } else {
            assert_eq!(causes, [] as [String; 0], "{}", self.story);
        }
        self.failing.survive_power_loss(&self.disk.sim, self.story);
        self.healthy.survive_power_loss(&self.disk.sim, self.story);
        assert_eq!(durable_entries(&self.disk.sim, 2), 1 + 2 * STARTS * ROUNDS, "{}", self.story);
    }
}

/// Runs the program again and again, with the fault one operation later each time, until it is
/// beyond the end.
fn fail_every(kind: OperationKind, part: Part, sticky: bool) {
    let mut number = 0;
    loop {
        let story = format!("{kind:?} {number} of core 0, {part:?} done, sticky {sticky}");
        let _watchdog = Watchdog::over(story.clone());
        let disk = TestDisk::new(number);
        let wal = log_of_three(&disk);
        let fault = failing(kind, part).nth(number);
        disk.sim.inject(if sticky { fault.sticky() } else { fault });
        let mut program = Program::new(&disk, &wal, &story);
        program.run();
        let has_failed = disk.sim.faults_hit() > 0;
        program.check(has_failed);
        if !has_failed {
            assert!(number >= 3, "{story}: the program has next to no such operation");
            return;
        }
        number += 1;
    }
}

/// What a program does that has core 0's writer for itself, and threads that wait for it.
struct OwnWriter {
    clients: Clients,
    causes: Mutex<Vec<String>>,
}

/// What the writer's thread gives to one that waits, and how many entries it speaks of.
enum Handed {
    Ticket(SyncTicket, u64),
    Request(SyncRequest, u64),
}

impl OwnWriter {
    fn run(&self, disk: &TestDisk, mut writer: CoreWalWriter) {
        // A full buffer, written and not synced, so that the first commit is a write and a sync.
        for _ in 0..2 {
            self.append(&mut writer, 3000).unwrap_or_else(|error| self.is_told(error));
        }
        disk.sim.run_jobs();
        let _background = disk.with_background();
        thread::scope(|scope| {
            let (to_one, one) = mpsc::channel();
            let (to_other, other) = mpsc::channel();
            for (waiting, handed) in [one, other].into_iter().enumerate() {
                scope.spawn(move || {
                    for handed in handed {
                        self.wait_for(waiting, handed).unwrap_or_else(|error| self.is_told(error));
                    }
                });
            }
            let hand = |round: usize, handed: Handed| {
                let to = if round.is_multiple_of(2) { &to_one } else { &to_other };
                to.send(handed).unwrap();
            };
            let mut rounds = 0..16;
            let ended = rounds.try_for_each(|round| self.one_round(round, &mut writer, hand));
            ended.unwrap_or_else(|error| self.is_told(error));
        });
    }

    fn one_round(
        &self,
        round: usize,
        writer: &mut CoreWalWriter,
        hand: impl Fn(usize, Handed),
    ) -> Result<()> {
        self.append(writer, 400 * (round % 5))?;
        let appended = self.clients.appended();
        match round % 4 {
            0 => hand(round / 4, Handed::Request(writer.start_sync()?, appended)),
            1 => hand(round / 4, Handed::Ticket(writer.submit()?, appended)),
            2 => {
                if let Some(ticket) = writer.try_submit()? {
                    hand(round / 4, Handed::Ticket(ticket, appended));
                }
            }
            _ => {
                // Stalls before it is done.
                for _ in 0..3 {
                    self.append(writer, 3000)?;
                }
                let appended = self.clients.appended();
                writer.sync()?;
                self.clients.are_acked(0, appended);
            }
        }
        Ok(())
    }

    fn append(&self, writer: &mut CoreWalWriter, value_bytes: usize) -> Result<()> {
        writer.append_put(&self.clients.next_key(0), &vec![0; value_bytes]).map(drop)
    }

    fn wait_for(&self, waiting: usize, handed: Handed) -> Result<()> {
        let entries = match handed {
            Handed::Request(request, entries) => {
                let _proof = request.run()?;
                entries
            }
            Handed::Ticket(ticket, entries) => {
                match waiting {
                    0 => ticket.wait()?,
                    _ => block_on(ticket)?,
                }
                entries
            }
        };
        self.clients.are_acked(0, entries);
        Ok(())
    }

    fn is_told(&self, error: WalError) {
        self.causes.lock().unwrap().push(first_cause(Err::<(), _>(error)));
    }
}

fn fail_every_for_its_own_writer(kind: OperationKind, part: Part) {
    for number in 0.. {
        let story = format!("{kind:?} {number} of a core's own writer, {part:?} done");
        let _watchdog = Watchdog::over(story.clone());
        let disk = TestDisk::new(number);
        let wal = log_of_three(&disk);
        disk.sim.inject(failing(kind, part).nth(number));
        let program = OwnWriter { clients: Clients::new(1), causes: Mutex::default() };
        program.run(&disk, wal.writer(0).unwrap());
        let has_failed = disk.sim.faults_hit() > 0;
        let causes = program.causes.into_inner().unwrap();
        if has_failed {
            the_one_cause(causes.into_iter().chain([first_cause(wal.writer(0))]));
        } else {
            assert_eq!(causes, [] as [String; 0], "{story}");
        }
        program.clients.survive_power_loss(&disk.sim, &story);
        if !has_failed {
            assert!(number >= 1, "{story}: the program has next to no such operation");
            return;
        }
    }
}

#[test]
fn a_failure_at_any_moment_is_told_to_all_who_wait_for_a_cores_own_writer() {
    for part in [Part::Nothing, Part::Random, Part::Everything] {
        fail_every_for_its_own_writer(OperationKind::Write, part);
        fail_every_for_its_own_writer(OperationKind::Sync, part);
    }
}

#[test]
fn a_write_that_fails_at_any_moment_hangs_nobody_and_is_told_to_all() {
    for part in [Part::Nothing, Part::Random, Part::Everything] {
        fail_every(OperationKind::Write, part, false);
    }
    fail_every(OperationKind::Write, Part::Random, true);
}

#[test]
fn a_sync_that_fails_at_any_moment_hangs_nobody_and_is_told_to_all() {
    for part in [Part::Nothing, Part::Random] {
        fail_every(OperationKind::Sync, part, false);
    }
}

// ---- a leader that panics ----

#[test]
fn a_leader_that_panics_leaves_nobody_asleep() {
    for at in [At::BeforeWrite, At::BehindWrite] {
        for number in [0, 1, 3, 6] {
            let story = format!("a panic {at:?}, after {number} of them");
            let _watchdog = Watchdog::over(story.clone());
            let disk = TestDisk::new(number);
            let wal = log_of_three(&disk);
            let background = disk.with_background();
            let passed = AtomicU64::new(0);
            disk.on_each(move |now, name| {
                if now == at
                    && name.starts_with("core-0000/")
                    && passed.fetch_add(1, Ordering::SeqCst) == number
                {
                    panic!("{story}");
                }
            });
            let writer = wal.shared_writer(0).unwrap();
            let wakes = WakeCount::new();
            let mut ticket = writer.append_put(b"key", b"").unwrap();
            let is_pending = wakes.poll(&mut ticket).is_pending();
            let clients = Clients::new(4);
            let put = |client| writer.append_put(&clients.next_key(client), b"");
            let ends = thread::scope(|scope| {
                let threads = [
                    scope.spawn(|| (0..50).try_for_each(|_| put(0)?.wait())),
                    scope.spawn(|| (0..50).try_for_each(|_| block_on(put(1)?))),
                    scope.spawn(|| (0..50).try_for_each(|_| put(2)?.wait_timeout(LONG).map(drop))),
                    scope.spawn(|| (0..50).try_for_each(|_| put(3).and_then(|_| writer.sync()))),
                ];
                threads.map(|thread| thread.join())
            });
            let other = wal.shared_writer(2).unwrap();
            other.append_put(b"key", b"").unwrap().wait().unwrap();
            disk.unhook();
            drop(background);
            let mut panicked = disk.sim.jobs_panicked();
            for end in ends {
                match end {
                    Err(_) => panicked += 1,
                    Ok(told) => assert!(first_cause(told).contains("panicked")),
                }
            }
            assert_eq!(panicked, 1, "in whoever led, and nowhere else");
            assert!(!is_pending || wakes.times() == 1);
        }
    }
}

/// Nobody comes after it who could find the device as it was left.
#[test]
fn a_leader_that_panics_alone_is_heard_of_by_whoever_watches_and_appends() {
    let disk = TestDisk::new(1);
    let wal = log_of_three(&disk);
    let writer = wal.shared_writer(0).unwrap();
    let wakes = WakeCount::new();
    let mut reached = wal.watch(0).unwrap().reached(u64::MAX);
    assert!(wakes.poll(&mut reached).is_pending());
    let ticket = writer.append_put(b"key", b"").unwrap();
    disk.on_each(|_, _| panic!("as planned"));
    let led = thread::scope(|scope| scope.spawn(|| ticket.wait()).join());
    disk.unhook();
    assert!(led.is_err(), "the leader itself panics");
    assert_eq!(wakes.times(), 1);
    let Poll::Ready(told) = wakes.poll(&mut reached) else { panic!("woken, and not told why") };
    let told = [first_cause(told), first_cause(writer.append_put(b"key", b""))];
    assert!(the_one_cause(told).contains("panicked"));
}

// ---- one by one ----

#[test]
fn a_failing_background_is_told_to_who_asks_next() {
    let disk = TestDisk::new(1);
    let wal = log_of_three(&disk);
    let mut writer: CoreWalWriter = wal.writer(0).unwrap();
    writer.append_put(b"key", b"").unwrap();
    let ticket = writer.submit().unwrap();
    disk.sim.inject(failing(OperationKind::Write, Part::Nothing));
    disk.sim.run_jobs();
    let cause = first_cause(ticket.is_durable());
    assert_eq!(first_cause(writer.append_put(b"key", b"")), cause);
    assert_eq!(first_cause(block_on(ticket)), cause);
}

#[test]
fn what_was_durable_before_stays_acked_when_the_log_is_poisoned() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of_three(&disk);
    let writer = wal.shared_writer(0)?;
    let before = writer.append_put(b"before", b"")?;
    let (clone, watch) = (before.clone(), wal.watch(0)?);
    before.wait()?;
    let behind = writer.append_put(b"behind", b"")?;
    disk.sim.inject(failing(OperationKind::Write, Part::Nothing));
    first_cause(behind.wait());
    // It is a fact, whatever happened since.
    before.wait()?;
    assert!(clone.is_durable()?);
    watch.wait_for(before.position())?;
    block_on(before)?;
    first_cause(watch.wait_for(behind.position()));
    Ok(())
}

#[test]
fn cores_that_are_synced_together_fail_each_for_itself() -> Result<()> {
    let disk = TestDisk::new(1);
    let wal = log_of_three(&disk);
    let mut writers = wal.writers()?;
    for writer in writers.iter_mut() {
        // A full buffer is written before anybody waits, so that what waits takes a sync as well.
        for _ in 0..3 {
            writer.append_put(b"key", &[7; 1500])?;
        }
    }
    disk.sim.run_jobs();
    disk.take_side_by_side();
    disk.sim.inject(failing(OperationKind::Write, Part::Nothing));
    first_cause(writers.sync());
    assert_eq!(disk.take_side_by_side(), [3, 2], "three are written together, two then synced");
    let (positions, synced) = (writers.positions(), writers.synced_positions());
    assert!(synced[0] < positions[0]);
    assert_eq!(synced[1..], positions[1..], "the others are synced all the same");
    assert_eq!([0, 1, 2].map(|core| durable_entries(&disk.sim, core)), [1, 4, 4]);
    writers.writer(1)?.append_put(b"key", b"")?;
    first_cause(writers.sync());
    assert_eq!(durable_entries(&disk.sim, 1), 5);
    Ok(())
}
