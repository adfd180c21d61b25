//! What a checkpoint over many cores does to their appends, beside plain syncs of the same cores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use laminar_wal::{
    CheckpointArrival, CheckpointDetails, CoreWalWriter, CoreWriters, Wal, WalOptions,
};
use laminar_wal_benches::fdatasync::Probe;
use laminar_wal_benches::measure::{Durations, Entrant, race};
use laminar_wal_benches::report::{Better, Comparison, Figure, rounds_line, spread};
use laminar_wal_benches::{Failure, key};

use crate::Setting;
use crate::logs::{VALUE, append_in_turn, checkpoint};

const FIGURES: [Figure; 5] = [
    Figure { title: "p50, µs", better: Better::Less },
    Figure { title: "p99, µs", better: Better::Less },
    Figure { title: "p99.9, µs", better: Better::Less },
    Figure { title: "greatest, µs", better: Better::Less },
    Figure { title: "checkpoints/s", better: Better::More },
];
const P99_9: usize = 2;

const CORES: u16 = 8;

/// Past the small segments that an opening begins with; then everything is given back once.
const SEGMENT_BYTES: u64 = 4 << 20;
const WARMING_PUTS: u64 = 400_000;

/// Each core's thread wakes up this often, and then appends so many times: the machine has fewer
/// processors than there are cores, and must not be the one that is measured.
const EVERY: Duration = Duration::from_millis(2);
const APPENDS_AT_ONCE: u64 = 16;

const ARRIVING_MAX: Duration = Duration::from_secs(20);

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let window = Duration::from_millis(if setting.is_quick { 200 } else { 3000 });
    let directory = setting.workdir.fresh()?;
    let options = WalOptions::new(directory.path()).cores(CORES).segment_bytes(SEGMENT_BYTES);
    let (wal, recovery) = options.open()?;
    drop(recovery);
    let mut writers = wal.writers()?;
    append_in_turn(&mut writers, WARMING_PUTS)?;
    checkpoint(&wal, &mut writers, 0)?;
    let log = Mutex::new(Log { wal, writers, next_id: 0 });

    let sample = |work: Work| lock(&log).sample(work, window);
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [
            Entrant::new("appends, no checkpoint", || sample(Work::APPENDS)),
            Entrant::new("appends, checkpoint after checkpoint", || sample(Work::CHECKPOINTED)),
            Entrant::new("of these, the first behind a barrier", || sample(Work::BARRIERS)),
            Entrant::new("plain syncs of one core", || sample(Work::SYNC_ALONE)),
            Entrant::new("plain syncs of all cores", || sample(Work::SYNCS)),
        ],
    )?;
    let mut comparison = Comparison::new(None, &FIGURES);
    comparison.add("", &rounds);
    let mut notes = rounds_line(&format!("{CORES} cores"), &rounds);
    for (sync, name) in [(3, "of one core"), (4, "of all cores")] {
        for (appends, what) in [(1, "an append"), (2, "one behind a barrier")] {
            if let Some(ratio) = rounds.ratio(P99_9, appends, sync) {
                notes += &format!(
                    "  - p99.9 of {what} is {} times that of plain syncs {name}; the bar is 1.\n",
                    spread(&ratio)
                );
            }
        }
    }
    let log = log.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(log.writers);
    log.wal.close()?;
    Ok(format!("{}\n{notes}", comparison.absolute()))
}

/// What the threads do, and what of it is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Work {
    /// Syncs, not appends, are timed.
    syncs: bool,
    checkpoints: bool,
    /// Of the appends, those alone that come with an arrival.
    barriers_alone: bool,
    cores: usize,
}

impl Work {
    const APPENDS: Self =
        Self { syncs: false, checkpoints: false, barriers_alone: false, cores: CORES as usize };
    const CHECKPOINTED: Self = Self { checkpoints: true, ..Self::APPENDS };
    const BARRIERS: Self = Self { barriers_alone: true, ..Self::CHECKPOINTED };
    const SYNCS: Self = Self { syncs: true, ..Self::APPENDS };
    const SYNC_ALONE: Self = Self { cores: 1, ..Self::SYNCS };
}

struct Log {
    wal: Wal,
    writers: CoreWriters,
    next_id: u64,
}

impl Log {
    fn sample(&mut self, work: Work, window: Duration) -> Result<Vec<f64>, Failure> {
        let Self { wal, writers, next_id } = self;
        let first_id = *next_id;
        let is_over = &AtomicBool::new(false);
        let current = &Mutex::new(None);
        let durations: Result<Vec<Durations>, Failure> = thread::scope(|scope| {
            let cores: Vec<_> = writers
                .iter_mut()
                .take(work.cores)
                .map(|writer| {
                    scope.spawn(|| {
                        drive(writer, work, current, is_over).map_err(|error| error.to_string())
                    })
                })
                .collect();
            let start = Instant::now();
            let mut checkpointed = Ok(());
            while start.elapsed() < window && checkpointed.is_ok() {
                if work.checkpoints {
                    *next_id += 1;
                    checkpointed = checkpoint_on_threads(wal, *next_id, current);
                } else {
                    thread::sleep(EVERY);
                }
            }
            is_over.store(true, Ordering::Relaxed);
            let joined = cores.into_iter().map(|core| match core.join() {
                Ok(durations) => durations.map_err(Failure::from),
                Err(_) => Err("a core's thread panicked".into()),
            });
            let durations = joined.collect();
            checkpointed.and(durations)
        });
        let mut all = Durations::default();
        durations?.into_iter().for_each(|of_core| all.absorb(of_core));
        let checkpoints = (*next_id - first_id) as f64 / window.as_secs_f64();
        let quantiles = [0.5, 0.99, 0.999, 1.0].map(|q| all.quantile_us(q));
        Ok(quantiles.into_iter().chain([checkpoints]).collect())
    }
}

/// Makes a checkpoint that each core's thread arrives at.
fn checkpoint_on_threads(wal: &Wal, id: u64, current: &Current) -> Result<(), Failure> {
    let pending = wal.begin_checkpoint(id)?;
    *lock(current) = Some((id, pending.arrival()));
    // A thread that failed does not arrive.
    pending.wait_timeout(ARRIVING_MAX)?;
    Ok(pending.complete(CheckpointDetails::default())?)
}

/// The checkpoint that is being made.
type Current = Mutex<Option<(u64, CheckpointArrival)>>;

/// One core's thread: wakes up now and then, arrives if there is a barrier to arrive at, appends.
/// What arriving takes is the append's that comes behind it.
fn drive(
    writer: &mut CoreWalWriter,
    work: Work,
    current: &Current,
    is_over: &AtomicBool,
) -> Result<Durations, Failure> {
    let mut durations = Durations::default();
    let mut arrived_at = 0;
    // It is over when no checkpoint waits any more.
    while !is_over.load(Ordering::Relaxed) {
        let arrival = take_if_new(&lock(current), &mut arrived_at);
        for append in 0..APPENDS_AT_ONCE {
            let start = Instant::now();
            if append == 0
                && let Some(arrival) = &arrival
            {
                arrival.arrive(writer)?;
            }
            writer.append_put(&key(append), &VALUE)?;
            let took = start.elapsed();
            let comes_with_barrier = append == 0 && arrival.is_some();
            if !work.syncs && (comes_with_barrier || !work.barriers_alone) {
                durations.push(took);
            }
        }
        if work.syncs {
            let start = Instant::now();
            writer.sync()?;
            durations.push(start.elapsed());
        } else {
            drop(writer.submit()?);
        }
        thread::sleep(EVERY);
    }
    Ok(durations)
}

/// The arrival of a checkpoint that this thread has not arrived at.
fn take_if_new(
    current: &Option<(u64, CheckpointArrival)>,
    arrived_at: &mut u64,
) -> Option<CheckpointArrival> {
    let (id, arrival) = current.as_ref().filter(|(id, _)| id != arrived_at)?;
    *arrived_at = *id;
    Some(arrival.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
