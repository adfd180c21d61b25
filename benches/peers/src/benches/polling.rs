//! One thread on behalf of many clients: it appends for each that is ready, has all of that made
//! durable in the background, and asks how far that is.

use std::collections::VecDeque;
use std::thread;
use std::time::Instant;

use super::driving::{Driven, FIGURES, Lane, Reading, Window};
use super::{Setting, VALUE};
use crate::Failure;
use crate::contenders::{Log, Ours, Reference};
use crate::fdatasync::Probe;
use crate::machine::DeviceFlushes;
use crate::measure::{Entrant, race};
use crate::report::{Comparison, rounds_line};
use crate::tally::key;

/// Each of them has one record under way, or is ready for the next.
const CLIENTS: usize = 64;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [
            Entrant::new(Ours::NAME, || {
                sample::<Ours>(setting, |log, window, flushes| {
                    let watch = log.watch();
                    serve(log, window, flushes, |log, has_news| {
                        if has_news {
                            log.submit()?;
                        }
                        Ok(watch.position())
                    })
                })
            }),
            Entrant::new("laminar-wal, the thread syncs itself", || {
                sample::<Ours>(setting, |log, window, flushes| {
                    serve(log, window, flushes, |log, _| {
                        log.sync()?;
                        Ok(log.position())
                    })
                })
            }),
            Entrant::new(Reference::NAME, || sample::<Reference>(setting, one_after_the_other)),
        ],
    )?;
    let mut comparison = Comparison::new(None, &FIGURES);
    comparison.add("", &rounds);
    let line = rounds_line(&format!("{CLIENTS} clients of one thread"), &rounds);
    Ok(format!("{comparison}\n{line}"))
}

fn sample<L: Log>(
    setting: &Setting<'_>,
    serve: impl FnOnce(&mut L, Window, &DeviceFlushes) -> Result<Driven, Failure>,
) -> Result<Vec<f64>, Failure> {
    let directory = setting.workdir.fresh()?;
    let mut log = L::create(directory.path())?;
    setting.workdir.settle()?;
    let flushes = DeviceFlushes::below(directory.path());
    let driven = serve(&mut log, setting.sizes.window, &flushes)?;
    log.close()?;
    L::read_back(directory.path())?.check(&driven.tally)?;
    Ok(driven.sample())
}

/// A record on its way to the disk.
struct Waiting {
    number: u64,
    /// From when on its client could go on.
    since: Instant,
    /// Where the log must be durable up to.
    end: u64,
}

/// `durable` is told whether something was appended, and returns how far the log is durable.
fn serve(
    log: &mut Ours,
    window: Window,
    flushes: &DeviceFlushes,
    mut durable: impl FnMut(&mut Ours, bool) -> Result<u64, Failure>,
) -> Result<Driven, Failure> {
    let span = window.span();
    let mut lane = Lane::default();
    let mut ready = vec![Instant::now(); CLIENTS];
    let mut waiting = VecDeque::with_capacity(CLIENTS);
    let mut number = 0;
    let mut begin = None;
    loop {
        let has_news = !ready.is_empty();
        for since in ready.drain(..) {
            log.append_put(&key(number), &VALUE)?;
            waiting.push_back(Waiting { number, since, end: log.position() });
            number += 1;
        }
        let durable = durable(log, has_news)?;
        let now = Instant::now();
        while let Some(first) = waiting.pop_front_if(|first: &mut Waiting| first.end <= durable) {
            lane.committed(&span, first.number, first.since..now);
            ready.push(now);
        }
        if now >= span.start && begin.is_none() {
            begin = Some(Reading::take(flushes)?);
        }
        if now >= span.end {
            break;
        }
        if ready.is_empty() {
            thread::yield_now();
        }
    }
    let begin = begin.ok_or("the window was never open")?;
    let meter = begin.until(&Reading::take(flushes)?);
    log.sync()?;
    for rest in waiting {
        lane.committed(&span, rest.number, rest.since..Instant::now());
    }
    Ok(meter.driven(lane, window))
}

/// A sync for each record, while the other clients wait for their turn.
fn one_after_the_other<L: Log>(
    log: &mut L,
    window: Window,
    flushes: &DeviceFlushes,
) -> Result<Driven, Failure> {
    let span = window.span();
    let mut lane = Lane::default();
    let mut ready = VecDeque::from(vec![Instant::now(); CLIENTS]);
    let mut begin = None;
    for number in 0.. {
        let Some(since) = ready.pop_front() else { break };
        log.append_put(&key(number), &VALUE)?;
        log.sync()?;
        let now = Instant::now();
        lane.committed(&span, number, since..now);
        ready.push_back(now);
        if now >= span.start && begin.is_none() {
            begin = Some(Reading::take(flushes)?);
        }
        if now >= span.end {
            break;
        }
    }
    let begin = begin.ok_or("the window was never open")?;
    Ok(begin.until(&Reading::take(flushes)?).driven(lane, window))
}
