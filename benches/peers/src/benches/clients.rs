//! Many threads on one log: each appends a put and waits until it is durable, again and again.

use super::Setting;
use super::driving::{COMMITS_PER_S, FIGURES, P99, in_new_log};
use super::logs::RECYCLED;
use super::shared_logs::SharedRecycling;
use crate::Failure;
use crate::contenders::shared::{
    FjallSyncAll, FjallSyncData, OkayWal, OkayWalPreallocated, RaftEngine, ReferencePerThread,
    ReferenceUnderMutex, SharedLog, SharedOurs, WalDb,
};
use crate::contenders::{Log, Ours};
use crate::fdatasync::Probe;
use crate::measure::{Entrant, Rounds, median, race};
use crate::report::{Comparison, Table, advantage, number, rounds_line, spread};

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let mut recycling = SharedRecycling::make(setting.workdir)?;
    let mut races = Vec::new();
    for &threads in &setting.sizes.client_threads {
        races.push((threads, measure(setting, probe, &mut recycling, threads)?));
    }
    recycling.close()?;

    let mut comparison = Comparison::new(Some("threads"), &FIGURES);
    let mut notes = String::new();
    for (threads, rounds) in &races {
        comparison.add(&threads.to_string(), rounds);
        notes += &rounds_line(&label(*threads), rounds);
        notes += &best_line(rounds);
    }
    let rates = ratios("commits/s: how many times better is", &races, COMMITS_PER_S);
    let tails = ratios("p99: how many times better is", &races, P99);
    Ok(format!("{}\n{rates}\n{tails}\n{notes}", comparison.absolute()))
}

fn measure(
    setting: &Setting<'_>,
    probe: &mut Probe,
    recycling: &mut SharedRecycling<'_>,
    threads: u16,
) -> Result<Rounds, Failure> {
    race(
        &setting.pace,
        Some(probe),
        &mut [
            entrant::<SharedOurs>(setting, threads),
            Entrant::new(RECYCLED, || Ok(recycling.drive(threads, setting.sizes.window)?.sample())),
            entrant::<OkayWal>(setting, threads),
            entrant::<OkayWalPreallocated>(setting, threads),
            entrant::<WalDb>(setting, threads),
            entrant::<RaftEngine>(setting, threads),
            entrant::<FjallSyncData>(setting, threads),
            entrant::<FjallSyncAll>(setting, threads),
            entrant::<ReferenceUnderMutex>(setting, threads),
            entrant::<ReferencePerThread>(setting, threads),
        ],
    )
}

/// A log that is made anew for each sample.
fn entrant<'a, L: SharedLog>(setting: &'a Setting<'_>, threads: u16) -> Entrant<'a> {
    Entrant::new(L::NAME, move || {
        let create = |directory: &_| L::create(directory, threads);
        Ok(in_new_log(setting.workdir, threads, setting.sizes.window, create)?.sample())
    })
}

/// How ours compare to each of the others in one figure: a column for each number of threads.
fn ratios(title: &str, races: &[(u16, Rounds)], figure: usize) -> Table {
    let labels: Vec<String> = races.iter().map(|(threads, _)| label(*threads)).collect();
    let head: Vec<&str> = [title].into_iter().chain(labels.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    let Some((_, rounds)) = races.first() else { return table };
    let (ours, others) = ours_and_others(rounds);
    for &ours in &ours {
        for &other in &others {
            let what = format!("{} than {}", rounds.names[ours], rounds.names[other]);
            let cells = races
                .iter()
                .map(|(_, rounds)| advantage(rounds, figure, ours, other, FIGURES[figure].better));
            table.add([what].into_iter().chain(cells).collect());
        }
    }
    table
}

/// Which of the others is best at the same task, and what ours are beside the best of each round.
fn best_line(rounds: &Rounds) -> String {
    let (ours, mut others) = ours_and_others(rounds);
    // Files of their own for all threads are less than one log.
    others.retain(|&entrant| rounds.names[entrant] != ReferencePerThread::NAME);
    let commits_per_s = |entrant: &usize| median(&rounds.figure(*entrant, COMMITS_PER_S));
    let best = others.iter().max_by(|a, b| commits_per_s(a).total_cmp(&commits_per_s(b)));
    let Some(best) = best else { return String::new() };
    let mut line = format!(
        "  - The best other log of one file: {}, {} commits/s.\n",
        rounds.names[*best],
        number(commits_per_s(best))
    );
    for ours in ours {
        if let Some(ratio) = rounds.ratio_to_greatest(COMMITS_PER_S, ours, &others) {
            line += &format!(
                "  - {} beside the best of each round: {} times the commits/s.\n",
                rounds.names[ours],
                spread(&ratio)
            );
        }
    }
    line
}

fn ours_and_others(rounds: &Rounds) -> (Vec<usize>, Vec<usize>) {
    (0..rounds.names.len()).partition(|&entrant| rounds.names[entrant].starts_with(Ours::NAME))
}

fn label(threads: u16) -> String {
    if threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates, and a figure for each other place.
    fn rounds() -> Rounds {
        let sample = |rate: f64, p99: f64| vec![rate, 0.0, p99, 0.0, 0.0];
        Rounds::of_one(&[
            (Ours::NAME, sample(300.0, 10.0)),
            ("slow", sample(100.0, 40.0)),
            ("fast", sample(200.0, 20.0)),
            (ReferencePerThread::NAME, sample(600.0, 5.0)),
        ])
    }

    #[test]
    fn ratios_have_a_column_for_each_number_of_threads() {
        let races = [(1, rounds()), (8, rounds())];
        let table = ratios("p99 of", &races, P99).to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "| p99 of | 1 thread | 8 threads |");
        assert_eq!(lines[2], "| laminar-wal than slow | 4.00 (4.00–4.00) | 4.00 (4.00–4.00) |");
    }

    #[test]
    fn a_file_per_thread_is_not_the_best_of_one_file() {
        let line = best_line(&rounds());
        assert!(line.contains("fast, 200 commits/s"), "{line}");
        assert!(line.contains("1.50 (1.50–1.50) times"), "{line}");
    }
}
