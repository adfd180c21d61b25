//! What waiting for more records before a sync brings and costs: the same clients by policies that
//! wait longer and longer.

use std::time::Duration;

use laminar_wal::GroupCommit;

use super::Setting;
use super::driving::{Driven, in_new_log};
use crate::Failure;
use crate::contenders::shared::SharedOurs;
use crate::contenders::{Log, Ours};
use crate::fdatasync::Probe;
use crate::measure::{Entrant, race};
use crate::report::{Better, Comparison, Figure, rounds_line};

const FIGURES: [Figure; 5] = [
    Figure { title: "commits/s", better: Better::More },
    Figure { title: "p50, µs", better: Better::Less },
    Figure { title: "p99, µs", better: Better::Less },
    Figure { title: "CPU per commit, µs", better: Better::Less },
    Figure { title: "flushes/s", better: Better::Less },
];

const THREADS: [u16; 2] = [8, 32];

/// The longest delays, beside none at all.
const DELAYS: [(&str, Duration); 5] = [
    (Ours::NAME, Duration::ZERO),
    ("a delay of 50 µs", Duration::from_micros(50)),
    ("a delay of 200 µs", Duration::from_micros(200)),
    ("a delay of 1 ms", Duration::from_millis(1)),
    ("a delay of 5 ms", Duration::from_millis(5)),
];

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let mut comparison = Comparison::new(Some("threads"), &FIGURES);
    let mut notes = String::new();
    for threads in THREADS {
        let mut entrants = DELAYS.map(|(name, max_delay)| {
            Entrant::new(name, move || {
                let policy = GroupCommit { max_delay, ..GroupCommit::default() };
                let create = |directory: &_| SharedOurs::with_policy(directory, policy);
                let window = setting.sizes.window;
                in_new_log(setting.workdir, threads, window, create).map(|driven| sample(&driven))
            })
        });
        let rounds = race(&setting.pace, Some(probe), &mut entrants)?;
        comparison.add(&threads.to_string(), &rounds);
        notes += &rounds_line(&format!("{threads} threads"), &rounds);
    }
    Ok(format!("{comparison}\n{notes}"))
}

/// One value for each of [`FIGURES`].
fn sample(driven: &Driven) -> Vec<f64> {
    vec![
        driven.commits_per_s,
        driven.latencies.quantile_us(0.5),
        driven.latencies.quantile_us(0.99),
        driven.cpu_us_per_commit,
        driven.flushes_per_s,
    ]
}
