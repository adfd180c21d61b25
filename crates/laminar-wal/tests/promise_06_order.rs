//! Promise 6: per core the sequence rises by one, the position rises, epoch and timestamp never
//! fall, across restarts and cuts too. Merged by epoch, timestamp, core and sequence, one core's
//! entries never swap, whatever the clock did.
//!
//! That `TestLog` sees at every opening. Here the clock, the lives and many threads are made to work
//! against it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use laminar_wal::{SharedWriter, WalEntry, WalError, WriteBatch};
use support::clients::{Clients, surviving};
use support::disks::TestDisk;
use support::tasks::Watchdog;
use support::{Model, Random, TestLog, crash_plans, seeds, small};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

const SECOND_NS: i64 = 1_000_000_000;

fn entries(disk: &SimStorage, cores: u16) -> Vec<WalEntry> {
    small(&disk.kill()).cores(cores).open().unwrap().1.entries().unwrap()
}

/// Positions and sequences rise from append to append, across lives.
#[test]
fn promise_6_positions_and_sequences_rise_across_restarts() -> Result<()> {
    let mut log = TestLog::new(1);
    let mut last_position = None;
    for life in 0..20 {
        for n in 0..5 {
            let sequence = log.writer(0).sequence();
            let position = log.append(0, 600 * n)?;
            assert!(last_position < Some(position), "life {life}");
            assert_eq!(log.writer(0).sequence(), sequence + 1);
            assert!(log.writer(0).position() > position);
            last_position = Some(position);
        }
        log.sync(0)?;
        match life % 3 {
            0 => log.crash_losing_everything()?,
            1 => log.kill()?,
            _ => {
                log.close()?;
                log.reopen()?;
            }
        }
    }
    assert_eq!(log.writer(0).sequence(), 100);
    Ok(())
}

#[test]
fn promise_6_no_core_swaps_its_entries_whatever_the_clocks_do() -> Result<()> {
    for seed in 0..30_i64 {
        let mut log = TestLog::new(3);
        log.story = format!("seed {seed}");
        for n in 0..40_i64 {
            let step = (seed * 7919 + n * 104_729) % 7 - 3;
            log.disk.step_wall_clock(step * 1000 * SECOND_NS);
            let core = ((seed + n * n) % 3) as u16;
            log.append(core, 30)?;
            if n % 3 == 0 {
                log.sync(core)?;
            }
            if n % 11 == 0 {
                log.crash(CrashPlan::random((seed * 100 + n) as u64))?;
            }
        }
        // `settle` has compared every core with the order in which it was appended to.
        log.prove_that_it_goes_on()?;
    }
    Ok(())
}

#[test]
fn promise_6_a_clock_before_1970_and_one_at_the_end_of_time_are_clocks_too() -> Result<()> {
    for start_ns in [i64::MIN, -SECOND_NS, 0, i64::MAX - 10_000] {
        let disk = SimStorage::new(1);
        disk.set_wall_clock_ns(start_ns);
        let mut log = TestLog::open(disk, 1, Model::default())?;
        for _ in 0..3 {
            log.append_n(0, 5)?;
            log.sync(0)?;
            log.crash_losing_everything()?;
        }
        assert!(entries(&log.disk, 1)[0].timestamp_ns >= start_ns);
    }
    Ok(())
}

#[test]
fn promise_6_epoch_and_time_do_not_fall_over_a_cut() -> Result<()> {
    for keep in [0, 1] {
        let mut log = TestLog::new(1);
        log.append(0, 10)?;
        log.writer(0).set_epoch(9)?;
        log.append(0, 10)?;
        log.sync(0)?;
        let last_ns = entries(&log.disk, 1)[1].timestamp_ns;
        log.truncate(0, keep)?;
        log.disk.step_wall_clock(-1000 * SECOND_NS);
        // All entries that knew are gone, and the process that knew is too.
        log.crash_losing_everything()?;
        assert!(log.writer(0).epoch() >= 9);
        log.append(0, 10)?;
        log.sync(0)?;
        let new = entries(&log.disk, 1)[keep].clone();
        assert!(new.timestamp_ns > last_ns, "{new:?}");
        assert!(new.epoch >= 9, "{new:?}");
    }
    Ok(())
}

#[test]
fn promise_6_epoch_and_time_do_not_fall_if_power_fails_during_a_cut() -> Result<()> {
    for keep in [0, 1] {
        let mut log = TestLog::new(1);
        log.append(0, 10)?;
        log.writer(0).set_epoch(9)?;
        log.append(0, 10)?;
        log.sync(0)?;
        let last_ns = entries(&log.disk, 1)[1].timestamp_ns;
        log.disk.step_wall_clock(-1000 * SECOND_NS);
        log.watch();
        log.truncate(0, keep)?;
        log.run_jobs();
        for moment in log.take_moments() {
            for plan in crash_plans(0..4) {
                // The manifest may know of the cut, and no segment yet.
                let mut after = moment.crash(plan);
                let kept = after.model.core(0).entries.len();
                assert!(after.writer(0).epoch() >= 9, "{kept} entries kept");
                after.append(0, 10)?;
                after.sync(0)?;
                let new = entries(&after.disk, 1)[kept].clone();
                assert!(new.timestamp_ns > last_ns && new.epoch >= 9, "{new:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn promise_6_a_later_epoch_comes_later_whatever_the_clock_said() -> Result<()> {
    let mut log = TestLog::new(2);
    log.append(0, 10)?;
    log.barrier(0)?;
    log.barrier(1)?;
    log.sync(0)?;
    log.disk.step_wall_clock(-1000 * SECOND_NS);
    log.append(1, 10)?;
    log.sync(1)?;
    let entries = entries(&log.disk, 2);
    assert_eq!(entries.iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [0, 0, 0, 1]);
    assert_eq!(entries[3].core_id, 1);
    Ok(())
}

// ---- many threads ----

/// What every core's entries must be like, whoever appended them.
fn check_order(entries: &[WalEntry], story: &str) {
    assert!(entries.is_sorted(), "{story}: merged by epoch, timestamp, core and sequence");
    for core in 0..2 {
        let of_core: Vec<&WalEntry> =
            entries.iter().filter(|entry| entry.core_id == core).collect();
        for (sequence, entry) in of_core.iter().enumerate() {
            assert_eq!(entry.sequence, sequence as u64, "{story}");
        }
        for pair in of_core.windows(2) {
            assert!(pair[0].epoch <= pair[1].epoch, "{story}: {pair:?}");
            assert!(pair[0].timestamp_ns < pair[1].timestamp_ns, "{story}: {pair:?}");
            if let laminar_wal::WalOperation::EpochBarrier { epoch } = pair[0].operation {
                assert_eq!(epoch, pair[0].epoch, "{story}");
                assert!(pair[1].epoch > epoch, "{story}: the barrier is the last of its epoch");
            }
        }
    }
}

#[test]
fn promise_6_threads_epochs_and_a_clock_that_steps_do_not_swap_entries() {
    for seed in seeds(0..8) {
        let story = format!("seed {seed}");
        let _watchdog = Watchdog::over(story.clone());
        let disk = TestDisk::new(seed);
        let (wal, _) = disk.small().cores(2).open().unwrap();
        let background = disk.with_background();
        let writers = [0, 1].map(|core| wal.shared_writer(core).unwrap());
        let clients = [Clients::of_core(0, 3), Clients::of_core(1, 3)];
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let appending: Vec<_> = clients
                .iter()
                .zip(&writers)
                .flat_map(|(clients, writer)| clients.indices().map(move |n| (n, clients, writer)))
                .map(|(client, clients, writer)| {
                    scope.spawn(move || append_in_order(seed, client, clients, writer))
                })
                .collect();
            // Somebody raises epochs and logs barriers meanwhile, with clones of his own.
            for writer in writers.clone() {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut epoch = writer.epoch();
                    while !is_over.load(Ordering::SeqCst) {
                        match epoch % 3 {
                            0 => writer.set_epoch(epoch + 2).unwrap(),
                            _ => drop(writer.append_epoch_barrier().unwrap()),
                        }
                        assert!(writer.epoch() > epoch, "nobody else raises it");
                        let below = writer.set_epoch(epoch).unwrap_err();
                        assert!(matches!(below, WalError::EpochRegressed { .. }), "{below}");
                        epoch = writer.epoch();
                        thread::yield_now();
                    }
                });
            }
            let (machine, is_over) = (disk.sim.clone(), &is_over);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !is_over.load(Ordering::SeqCst) {
                    machine.step_wall_clock(
                        (i64::try_from(random.below(7)).unwrap() - 3) * 1000 * SECOND_NS,
                    );
                    thread::yield_now();
                }
            });
            for thread in appending {
                thread.join().unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        drop(background);
        let entries = surviving(&disk.sim);
        check_order(&entries, &story);
        for clients in &clients {
            clients.check(&entries).unwrap();
        }
        assert!(entries.iter().any(|entry| entry.epoch > 5), "{story}: epochs were raised");
        drop(writers);
        wal.sync_all().unwrap();
        drop(wal);
        check_order(&self::entries(&disk.sim, 2), &story);
    }
}

/// Appends entries and batches; each goes further than the one before.
fn append_in_order(seed: u64, client: usize, clients: &Clients, writer: &SharedWriter) {
    let mut random = Random::new(seed * 100 + client as u64);
    let mut last_position = 0;
    for _ in 0..40 {
        let ticket = match random.below(4) {
            0 => {
                let mut batch = WriteBatch::new();
                for _ in 0..1 + random.below(4) {
                    batch.put(&clients.next_key(client), &[0; 100]);
                }
                writer.append_batch(&batch).unwrap()
            }
            _ => clients.append(client, writer).unwrap(),
        };
        assert!(ticket.position() > last_position);
        last_position = ticket.position();
        if random.chance(25) {
            ticket.wait().unwrap();
            clients.is_acked(client);
        }
    }
}
