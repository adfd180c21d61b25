//! Whole logs in many schedules of their threads, with power losses in between.
//!
//! Threads append with clones of a shared writer and wait in all the ways there are, while the
//! background leads, segments change, buffers run out. In the midst of it and at its end the power
//! fails: what was acked must come back, and nobody may hang.
//!
//! `LAMINAR_WAL_CASES` is how many schedules each test tries, `LAMINAR_WAL_SEED` where they begin.
//! A failing one is printed; `LAMINAR_WAL_SCHEDULE` with what was printed runs it again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::env;
use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner, thread};
use wal_sim::{Fault, OperationKind};
use wal_storage::WalError;

use crate::options::LogOptions;
use crate::schedules::story::{Story, any_of, small, small_and_patient};

mod machine;
mod story;
mod tasks;

/// Unless the environment asks for more.
const CASES: usize = 2000;

/// Whoever gets nowhere in so many steps never will.
const STEPS_MAX: usize = 50_000;

/// How often a schedule of the second kind changes its mind about which thread is to run first.
const PRIORITY_CHANGES: usize = 3;

#[test]
fn what_any_client_was_told_is_durable_survives_and_nobody_hangs() {
    in_many_schedules(|| clients_come_and_go(small()));
}

#[test]
fn who_waits_for_company_is_served_when_it_is_due() {
    in_many_schedules(|| clients_come_and_go(small_and_patient()));
}

fn clients_come_and_go(options: LogOptions) {
    let (story, wal, background) = Story::begin(1, options);
    let writer = wal.shared_writer(0).unwrap();
    let clients = spawn_each(3, &story, move |story, client| {
        for n in 0..3 {
            let ticket = story.append(&writer, &format!("{client}-{n}")).unwrap();
            story.use_ticket(ticket).unwrap();
        }
    });
    lose_power_some_time(&story);
    join(clients);
    wal.close().unwrap();
    story.everything_survives();
    background.end();
}

#[test]
fn appenders_who_wait_for_nothing_but_a_buffer_all_get_one() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(1, small());
        let writer = wal.shared_writer(0).unwrap();
        let clients = spawn_each(3, &story, move |story, client| {
            for n in 0..4 {
                drop(story.append(&writer, &format!("{client}-{n}")).unwrap());
            }
        });
        lose_power_some_time(&story);
        join(clients);
        wal.close().unwrap();
        story.everything_survives();
        background.end();
    });
}

#[test]
fn a_log_closed_while_writers_are_out_ends_with_the_last_of_them() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(1, small());
        let writer = wal.shared_writer(0).unwrap();
        let watched = spawn_each(1, &story, |story, _| {
            let beyond_the_end = story.watch(0).wait_for(u64::MAX).unwrap_err();
            assert!(matches!(beyond_the_end, WalError::Closed { .. }));
        });
        let clients = spawn_each(2, &story, move |story, client| {
            let writer = writer.clone();
            let first = story.append(&writer, &format!("{client}-0")).unwrap();
            let second = story.append(&writer, &format!("{client}-1")).unwrap();
            drop(writer);
            story.use_ticket(second).unwrap();
            story.use_ticket(first).unwrap();
        });
        match wal.close() {
            Ok(()) => story.everything_survives(),
            Err(error) => assert!(matches!(error, WalError::WriterTaken { core: 0 })),
        }
        join(clients);
        join(watched);
        story.everything_survives();
        // The directory is free again.
        story.open_again().close().unwrap();
        background.end();
    });
}

#[test]
fn after_a_failed_write_or_sync_everybody_is_told_and_nothing_acked_is_lost() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(1, small());
        let kind = if any_of(2) == 0 { OperationKind::Write } else { OperationKind::Sync };
        let fault = Fault::on(kind).nth(any_of(6) as u64).named("core-0000/0");
        story.machine.disk.inject(if any_of(2) == 0 { fault } else { fault.sticky() });
        let writer = wal.shared_writer(0).unwrap();
        let clients = spawn_each(3, &story, move |story, client| {
            for n in 0..3 {
                let appended = story.append(&writer, &format!("{client}-{n}"));
                if appended.and_then(|ticket| story.use_ticket(ticket)).is_err() {
                    assert!(writer.sync().is_err(), "a failure is final");
                    return;
                }
            }
        });
        lose_power_some_time(&story);
        join(clients);
        if wal.close().is_ok() {
            story.everything_survives();
        }
        story.survives_power_loss();
        background.end();
    });
}

#[test]
fn cores_that_are_synced_side_by_side_are_synced_each() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(3, small());
        let writers = [0, 1, 2].map(|core| wal.shared_writer(core).unwrap());
        let wal = Arc::new(wal);
        let clients = spawn_each(3, &story, {
            let wal = Arc::clone(&wal);
            move |story, client| {
                for n in 0..3 {
                    let writer = &writers[any_of(writers.len())];
                    let ticket = story.append(writer, &format!("{client}-{n}")).unwrap();
                    match any_of(4) {
                        0 => story.sync_all(&wal),
                        1 => story.use_ticket(ticket).unwrap(),
                        _ => {}
                    }
                }
            }
        });
        story.sync_all(&wal);
        lose_power_some_time(&story);
        join(clients);
        Arc::into_inner(wal).unwrap().close().unwrap();
        story.everything_survives();
        background.end();
    });
}

#[test]
fn what_the_last_writer_left_behind_is_part_of_what_is_synced_next() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(1, small());
        let writer = wal.shared_writer(0).unwrap();
        let clients = spawn_each(2, &story, move |story, client| {
            let ticket = story.append(&writer, &format!("{client}")).unwrap();
            std::mem::forget(ticket.clone());
        });
        story.sync_all(&wal);
        story.sync_all(&wal);
        join(clients);
        wal.close().unwrap();
        story.everything_survives();
        background.end();
    });
}

#[test]
fn a_writer_hands_over_to_others_what_it_then_cuts() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(1, small());
        let mut writer = wal.writer(0).unwrap();
        let watched = spawn_each(2, &story, |story, n| match n {
            // Reached before the cut or behind it, or never.
            0 => drop(story.watch(0).wait_for(6000)),
            // A cut is no reason to say that it was.
            _ => assert!(matches!(story.watch(0).wait_for(u64::MAX), Err(WalError::Closed { .. }))),
        });
        let mut clients = Vec::new();
        for n in 0..4 {
            story.append_alone(&mut writer, &format!("before-{n}"));
            if any_of(2) == 0 {
                let request = writer.start_sync().unwrap();
                // Of a log that has been cut since, it proves nothing.
                clients.push(thread::spawn(move || drop(request.run())));
            } else {
                let ticket = writer.submit().unwrap();
                clients.extend(spawn_each(1, &story, move |story, _| {
                    story.use_ticket_of_any_life(ticket.clone());
                }));
            }
        }
        story.truncate(&mut writer, any_of(4));
        for n in 0..3 {
            story.append_alone(&mut writer, &format!("behind-{n}"));
            let ticket = writer.submit().unwrap();
            story.use_ticket(ticket).unwrap();
        }
        story.survives_power_loss();
        drop(writer);
        wal.close().unwrap();
        join(clients);
        join(watched);
        story.everything_survives();
        background.end();
    });
}

#[test]
fn without_threads_for_the_background_whoever_asks_leads_by_himself() {
    in_many_schedules(|| {
        let options = if any_of(2) == 0 { small() } else { small_and_patient() };
        let (story, wal, background) = Story::begin(1, options);
        story.machine.has_no_threads();
        let writer = wal.shared_writer(0).unwrap();
        let clients = spawn_each(3, &story, move |story, client| {
            for n in 0..2 {
                let ticket = story.append(&writer, &format!("{client}-{n}")).unwrap();
                match any_of(4) {
                    0 => drop(ticket),
                    1 => story.await_ticket(ticket),
                    2 => story.wait_a_moment_for_ticket(ticket),
                    _ => story.wait_for_ticket(ticket),
                }
            }
        });
        join(clients);
        wal.close().unwrap();
        story.everything_survives();
        background.end();
    });
}

/// Woken to lead the next commit, it may run out of time before that is due.
#[test]
fn who_gives_up_waiting_leaves_the_next_commit_to_another() {
    in_many_schedules(|| {
        let (story, wal, background) = Story::begin(1, small_and_patient());
        story.machine.has_no_threads();
        let writer = wal.shared_writer(0).unwrap();
        let clients = spawn_each(3, &story, move |story, client| {
            let ticket = story.append(&writer, &format!("{client}")).unwrap();
            match client {
                0 => writer.sync().unwrap(),
                1 => story.wait_a_moment_for_ticket(ticket),
                _ => story.wait_for_ticket(ticket),
            }
        });
        join(clients);
        wal.close().unwrap();
        story.everything_survives();
        background.end();
    });
}

// ---- how schedules are tried ----

fn in_many_schedules(story: impl Fn() + Send + Sync + Copy + 'static) {
    if let Ok(schedule) = env::var("LAMINAR_WAL_SCHEDULE") {
        return shuttle::replay(story, &schedule);
    }
    let number = |name| env::var(name).ok().and_then(|number| number.parse().ok());
    let cases = number("LAMINAR_WAL_CASES").and_then(|cases| usize::try_from(cases).ok());
    let each = cases.unwrap_or(CASES).div_ceil(2);
    let seed = number("LAMINAR_WAL_SEED").unwrap_or(0);
    let mut config = Config::new();
    // Orderings weaker than those that shuttle runs are for loom.
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let random = RandomScheduler::new_from_seed(seed, each);
    Runner::new(random, config.clone()).run(story);
    let by_priority = PctScheduler::new_from_seed(seed, PRIORITY_CHANGES + 1, each);
    Runner::new(by_priority, config).run(story);
}

fn spawn_each(
    clients: usize,
    story: &Arc<Story>,
    work: impl Fn(&Story, usize) + Clone + Send + 'static,
) -> Vec<thread::JoinHandle<()>> {
    let spawn = |client| {
        let (story, work) = (Arc::clone(story), work.clone());
        thread::spawn(move || work(&story, client))
    };
    (0..clients).map(spawn).collect()
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Lets others run for a while, and looks what a power loss would leave.
fn lose_power_some_time(story: &Story) {
    for _ in 0..any_of(100) {
        thread::yield_now();
    }
    story.survives_power_loss();
}
