//! The command line, and the sizes that follow from it.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::benches::{Bench, Window};
use crate::measure::Pace;

/// Measures laminar-wal beside other logs, round by round.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Options {
    /// What to measure; everything unless named.
    #[arg(value_enum)]
    benches: Vec<Bench>,

    /// How many quiet rounds are wanted.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// A round is dropped if a bare fdatasync beside it took longer than this, in the median.
    #[arg(long, default_value_t = 1000)]
    fdatasync_limit_us: u32,

    /// Small sizes and two rounds: to see that everything works, not to quote.
    #[arg(long)]
    quick: bool,

    /// Directory for the logs, on the disk to be measured; everything made there is removed.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/logs"))]
    dir: PathBuf,

    /// Rewrites the sections of this file that lie between the markers of what was measured.
    #[arg(long)]
    pub(crate) write: Option<PathBuf>,

    /// Records of 16 and 100 bytes per round of `append`, in thousands.
    #[arg(long, default_value_t = 800)]
    append_thousands: u64,

    /// Records of 1 KiB per round of `append`, in thousands.
    #[arg(long, default_value_t = 150)]
    append_kib_thousands: u64,

    /// Commits per round of `sync_each`.
    #[arg(long, default_value_t = 1000)]
    commits: u64,

    /// Batches of 1000 records per round of `batch`.
    #[arg(long, default_value_t = 100)]
    batches: u64,

    /// Sizes of the logs that `recovery` reads, in millions of records.
    #[arg(long, value_delimiter = ',', default_value = "4,16")]
    recovery_millions: Vec<u64>,

    /// Puts before the checkpoint of `checkpoint`, in thousands.
    #[arg(long, value_delimiter = ',', default_value = "100,400,1600")]
    checkpointed_thousands: Vec<u64>,

    /// How many threads commit at once in `clients`.
    #[arg(long, value_delimiter = ',', default_value = "1,2,8,32,64")]
    client_threads: Vec<u16>,

    /// How long `clients`, `polling`, `tasks` and `policy` commit in each sample, in milliseconds.
    #[arg(long, default_value_t = 300)]
    window_ms: u64,

    /// How long they commit before, in milliseconds; that does not count.
    #[arg(long, default_value_t = 100)]
    window_warming_ms: u64,

    /// Tasks that `tasks` commits from.
    #[arg(long, default_value_t = 1000)]
    tasks: u16,

    /// How often all cores are synced in each sample of `side_by_side`.
    #[arg(long, default_value_t = 200)]
    syncs_of_all: u64,

    /// Commits of one record per sample of `rotation_latency`.
    #[arg(long, default_value_t = 10_000)]
    rotation_commits: u64,

    /// Commits of 64 KiB per sample of `rotation_latency`.
    #[arg(long, default_value_t = 3000)]
    rotation_batches: u64,

    /// Rounds for logs of 10 million records and more.
    #[arg(long, default_value_t = 3)]
    large_rounds: u64,

    /// How far `growth` goes, in millions of records.
    #[arg(long, default_value_t = 100)]
    growth_millions: u64,

    #[command(subcommand)]
    pub(crate) child: Option<Command>,
}

/// What the program is told by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One measurement in a process of its own.
    #[command(hide = true)]
    Child {
        /// The task, as JSON.
        task: String,
    },
}

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub(crate) small_appends: u64,
    pub(crate) kib_appends: u64,
    pub(crate) commits: u64,
    pub(crate) batches: u64,
    pub(crate) recovery_records: Vec<u64>,
    pub(crate) open_records: u64,
    pub(crate) checkpointed_records: Vec<u64>,
    pub(crate) growth_records: u64,
    pub(crate) client_threads: Vec<u16>,
    pub(crate) window: Window,
    pub(crate) tasks: u16,
    pub(crate) syncs_of_all: u64,
    pub(crate) rotation_commits: u64,
    pub(crate) rotation_batches: u64,
}

impl Options {
    pub(crate) fn chosen(&self) -> Vec<Bench> {
        if self.benches.is_empty() { Bench::ALL.to_vec() } else { self.benches.clone() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn pace(&self) -> Pace {
        let rounds = if self.quick { 2 } else { self.rounds };
        Pace {
            rounds,
            large_rounds: rounds.min(self.large_rounds),
            fdatasync_limit_us: f64::from(self.fdatasync_limit_us),
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        if self.quick {
            return Sizes {
                small_appends: 100_000,
                kib_appends: 20_000,
                commits: 200,
                batches: 20,
                recovery_records: vec![200_000],
                open_records: 200_000,
                checkpointed_records: vec![20_000],
                growth_records: 1_000_000,
                client_threads: vec![1, 8],
                window: Window::of_ms(20, 100),
                tasks: self.tasks.min(200),
                syncs_of_all: 20,
                rotation_commits: 1500,
                rotation_batches: 200,
            };
        }
        let millions = 1_000_000;
        Sizes {
            small_appends: self.append_thousands * 1000,
            kib_appends: self.append_kib_thousands * 1000,
            commits: self.commits,
            batches: self.batches,
            recovery_records: self.recovery_millions.iter().map(|n| n * millions).collect(),
            open_records: 4 * millions,
            checkpointed_records: self.checkpointed_thousands.iter().map(|n| n * 1000).collect(),
            growth_records: self.growth_millions * millions,
            client_threads: self.client_threads.clone(),
            window: Window::of_ms(self.window_warming_ms, self.window_ms),
            tasks: self.tasks,
            syncs_of_all: self.syncs_of_all,
            rotation_commits: self.rotation_commits,
            rotation_batches: self.rotation_batches,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        let named = |args: &[&str]| Options::try_parse_from(args).unwrap().chosen();
        assert_eq!(named(&["peers"]), Bench::ALL);
        assert_eq!(named(&["peers", "sync_each", "append"]), [Bench::SyncEach, Bench::Append]);
    }

    #[test]
    fn quick_means_two_rounds_of_little() {
        let options = Options::try_parse_from(["peers", "--quick"]).unwrap();
        assert_eq!(options.pace().rounds, 2);
        assert!(options.sizes().growth_records <= 1_000_000);
    }
}
