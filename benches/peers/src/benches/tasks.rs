//! Many tasks on two threads, each awaiting its own record, beside threads that wait.

use std::ops::Range;
use std::time::Instant;

use laminar_wal::SharedWriter;

use super::driving::{Driven, FIGURES, Lane, Meter, Window, in_new_log};
use super::{Setting, VALUE};
use crate::Failure;
use crate::contenders::shared::{SharedLog, SharedOurs};
use crate::fdatasync::Probe;
use crate::machine::DeviceFlushes;
use crate::measure::{Entrant, race};
use crate::report::{Comparison, rounds_line};
use crate::tally::key;

const RUNTIME_THREADS: usize = 2;
const THREADS: u16 = 32;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let tasks = setting.sizes.tasks;
    let window = setting.sizes.window;
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [
            Entrant::new("laminar-wal, tasks", || sample_tasks(setting, tasks, window)),
            Entrant::new("32 threads", || {
                let create = |directory: &_| SharedOurs::create(directory, THREADS);
                Ok(in_new_log(setting.workdir, THREADS, window, create)?.sample())
            }),
        ],
    )?;
    let mut comparison = Comparison::new(None, &FIGURES);
    comparison.add("", &rounds);
    let line = rounds_line(&format!("{tasks} tasks on {RUNTIME_THREADS} threads"), &rounds);
    Ok(format!("{comparison}\n{line}"))
}

fn sample_tasks(setting: &Setting<'_>, tasks: u16, window: Window) -> Result<Vec<f64>, Failure> {
    let directory = setting.workdir.fresh()?;
    let mut log = SharedOurs::create(directory.path(), tasks)?;
    setting.workdir.settle()?;
    let flushes = DeviceFlushes::below(directory.path());
    let driven = drive_tasks(&log.client(0)?, tasks, window, &flushes)?;
    log.reopen_and_count(directory.path())?.check(&driven.tally)?;
    Ok(driven.sample())
}

fn drive_tasks(
    writer: &SharedWriter,
    tasks: u16,
    window: Window,
    flushes: &DeviceFlushes,
) -> Result<Driven, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).build()?;
    let span = window.span();
    let started: Vec<_> = (0..u64::from(tasks))
        .map(|first| {
            let (span, writer) = (span.clone(), writer.clone());
            runtime.spawn(async move {
                let numbers = (0..).map(|turn| first + turn * u64::from(tasks));
                // An error may be bound to its thread; what it says is not.
                commit_until(span, writer, numbers).await.map_err(|error| error.to_string())
            })
        })
        .collect();
    let meter = Meter::over(&span, flushes)?;
    let mut lane = Lane::default();
    for task in started {
        lane.absorb(runtime.block_on(task)??);
    }
    Ok(meter.driven(lane, window))
}

async fn commit_until(
    span: Range<Instant>,
    writer: SharedWriter,
    numbers: impl Iterator<Item = u64>,
) -> Result<Lane, laminar_wal::WalError> {
    let mut lane = Lane::default();
    for number in numbers {
        let start = Instant::now();
        if start >= span.end {
            break;
        }
        writer.append_put(&key(number), &VALUE)?.await?;
        lane.committed(&span, number, start..Instant::now());
    }
    Ok(lane)
}
