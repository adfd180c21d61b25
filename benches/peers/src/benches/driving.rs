//! Clients that commit again and again for a fixed time, each in a thread of its own.

use std::ops::Range;
use std::path::Path;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::VALUE;
use crate::Failure;
use crate::contenders::shared::{Client, SharedLog};
use crate::machine::{DeviceFlushes, cpu_time};
use crate::measure::Durations;
use crate::report::{Better, Figure};
use crate::tally::{Tally, key};
use crate::workdir::Workdir;

/// What clients were like: the figures of [`Driven::sample`], in their order.
pub(crate) const FIGURES: [Figure; 5] = [
    Figure { title: "commits/s", better: Better::More },
    Figure { title: "p50, µs", better: Better::Less },
    Figure { title: "p99, µs", better: Better::Less },
    Figure { title: "CPU per commit, µs", better: Better::Less },
    Figure { title: "commits per flush", better: Better::More },
];

/// The places of two of them.
pub(crate) const COMMITS_PER_S: usize = 0;
pub(crate) const P99: usize = 2;

/// How long clients commit: first without being timed, then timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) warming: Duration,
    pub(crate) timed: Duration,
}

impl Window {
    pub(crate) const fn of_ms(warming: u64, timed: u64) -> Self {
        Self { warming: Duration::from_millis(warming), timed: Duration::from_millis(timed) }
    }

    /// From now on.
    pub(crate) fn span(self) -> Range<Instant> {
        let begin = Instant::now() + self.warming;
        begin..begin + self.timed
    }
}

/// What all clients together did in the timed part, and how much was appended at all.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) tally: Tally,
    pub(crate) commits_per_s: f64,
    pub(crate) latencies: Durations,
    pub(crate) cpu_us_per_commit: f64,
    /// Not a number where the kernel does not count them.
    pub(crate) flushes_per_s: f64,
}

impl Driven {
    /// One value for each of [`FIGURES`].
    pub(crate) fn sample(&self) -> Vec<f64> {
        vec![
            self.commits_per_s,
            self.latencies.quantile_us(0.5),
            self.latencies.quantile_us(0.99),
            self.cpu_us_per_commit,
            self.commits_per_s / self.flushes_per_s,
        ]
    }
}

/// Drives as many clients of a new log, which is closed, opened again, counted and removed
/// afterwards.
pub(crate) fn in_new_log<L: SharedLog>(
    workdir: &Workdir,
    clients: u16,
    window: Window,
    create: impl FnOnce(&Path) -> Result<L, Failure>,
) -> Result<Driven, Failure> {
    let directory = workdir.fresh()?;
    let mut log = create(directory.path())?;
    let handles: Result<Vec<_>, _> = (0..clients).map(|index| log.client(index)).collect();
    // What a log writes when it is made is not to be paid for by the first who syncs.
    workdir.settle()?;
    let driven = drive(handles?, window, &DeviceFlushes::below(directory.path()))?;
    log.reopen_and_count(directory.path())?.check(&driven.tally)?;
    Ok(driven)
}

/// Lets each client commit in a thread of its own until the window is over.
pub(crate) fn drive<C: Client>(
    clients: Vec<C>,
    window: Window,
    flushes: &DeviceFlushes,
) -> Result<Driven, Failure> {
    let step = clients.len() as u64;
    let ready = Barrier::new(clients.len() + 1);
    let span = OnceLock::new();
    let commit = |mut client: C, first: u64| {
        ready.wait();
        let span = span.get().ok_or("no window")?;
        let numbers = (0..).map(|turn| first + turn * step);
        // An error may be bound to its thread; what it says is not.
        commit_until(span, &mut client, numbers).map_err(|error| error.to_string())
    };
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(clients.len());
        for (client, first) in clients.into_iter().zip(0..) {
            let commit = &commit;
            threads.push(scope.spawn(move || commit(client, first)));
        }
        let span = span.get_or_init(|| window.span());
        ready.wait();
        let meter = Meter::over(span, flushes)?;
        let mut lane = Lane::default();
        for thread in threads {
            lane.absorb(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok(meter.driven(lane, window))
    })
}

fn commit_until<C: Client>(
    span: &Range<Instant>,
    client: &mut C,
    numbers: impl Iterator<Item = u64>,
) -> Result<Lane, Failure> {
    let mut lane = Lane::default();
    for number in numbers {
        let start = Instant::now();
        if start >= span.end {
            break;
        }
        client.commit(&key(number), &VALUE)?;
        lane.committed(span, number, start..Instant::now());
    }
    Ok(lane)
}

/// What one client did.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    tally: Tally,
    latencies: Durations,
    finished: u64,
}

impl Lane {
    /// Takes note of a put with this key that was begun and durable at these times.
    ///
    /// What became durable in the window makes the rate. What was begun in it makes the
    /// latencies, so that a client who waits for all the rest of it is seen.
    pub(crate) fn committed(
        &mut self,
        window: &Range<Instant>,
        number: u64,
        commit: Range<Instant>,
    ) {
        self.tally.add(&key(number), &VALUE);
        self.finished += u64::from(window.contains(&commit.end));
        if window.contains(&commit.start) {
            self.latencies.push(commit.end - commit.start);
        }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.tally.absorb(&other.tally);
        self.latencies.absorb(other.latencies);
        self.finished += other.finished;
    }
}

/// What the process and the device did during a window, by somebody who sleeps until its end.
#[derive(Debug)]
pub(crate) struct Meter {
    elapsed_s: f64,
    cpu_s: f64,
    flushes: f64,
}

impl Meter {
    /// Returns when the window is over.
    pub(crate) fn over(window: &Range<Instant>, flushes: &DeviceFlushes) -> Result<Self, Failure> {
        thread::sleep(window.start.saturating_duration_since(Instant::now()));
        let before = Reading::take(flushes)?;
        thread::sleep(window.end.saturating_duration_since(Instant::now()));
        Ok(before.until(&Reading::take(flushes)?))
    }

    pub(crate) fn driven(&self, lane: Lane, window: Window) -> Driven {
        let commits_per_s = lane.finished as f64 / window.timed.as_secs_f64();
        Driven {
            tally: lane.tally,
            commits_per_s,
            latencies: lane.latencies,
            // Rates, because a sleeper wakes up a little late.
            cpu_us_per_commit: self.cpu_s / self.elapsed_s / commits_per_s * 1e6,
            flushes_per_s: self.flushes / self.elapsed_s,
        }
    }
}

/// What counters said at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    at: Instant,
    cpu: Duration,
    flushes: Option<u64>,
}

impl Reading {
    pub(crate) fn take(flushes: &DeviceFlushes) -> Result<Self, Failure> {
        Ok(Self { at: Instant::now(), cpu: cpu_time()?, flushes: flushes.count() })
    }

    pub(crate) fn until(&self, later: &Self) -> Meter {
        let flushes = later.flushes.zip(self.flushes).map(|(later, sooner)| later - sooner);
        Meter {
            elapsed_s: (later.at - self.at).as_secs_f64(),
            cpu_s: (later.cpu - self.cpu).as_secs_f64(),
            flushes: flushes.map_or(f64::NAN, |flushes| flushes as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_what_ended_in_the_window_and_latencies_what_began_in_it() {
        let at = |ms| Instant::now() + Duration::from_secs(1000) + Duration::from_millis(ms);
        let window = at(10_000)..at(20_000);
        let mut lane = Lane::default();
        lane.committed(&window, 0, at(1000)..at(2000));
        lane.committed(&window, 1, at(9000)..at(11_000));
        lane.committed(&window, 2, at(12_000)..at(13_000));
        lane.committed(&window, 3, at(19_000)..at(29_000));
        assert_eq!(lane.finished, 2);
        assert!(lane.latencies.quantile_us(1.0) > 9e6);
        lane.tally.check(&Tally::of(4, VALUE.len() as u64)).unwrap();
    }
}
