//! A stream engine that checkpoints while it runs, dies without a word, and goes on where it was.
//!
//! ```sh
//! cargo run --release --example stream_engine
//! ```
//!
//! Two files are made to be copied:
//!
//! - `coordinator.rs` makes checkpoints: begins one when the log has grown by so much, has every
//!   core arrive, makes their states durable, and completes it, which gives the log's space back.
//! - `recovery_manager.rs` brings an engine back: the snapshot that the last checkpoint names, what
//!   the log has behind it, and how far each source was read.
//!
//! The rest is the engine around them: `source.rs` has events that can be read again from any
//! offset, `shard.rs` is what one core does with them, `snapshot.rs` keeps states in files.
//!
//! The engine runs as a child of this program: once, until it dies in the middle of its work, and
//! once more, until all events are counted. The parent then counts them without any log.

mod coordinator;
mod recovery_manager;
mod shard;
mod snapshot;
mod source;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;

use crate::coordinator::Coordinator;
use crate::recovery_manager::Recovered;
use crate::snapshot::Snapshots;

/// What can go wrong in here is only ever told to the user, so any error will do.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One core, one thread, one log, one source.
const CORES: u16 = 3;

/// The first life dies when the log has grown behind this one, but not by so much that the next
/// checkpoint is due.
const LAST_CHECKPOINT_OF_FIRST_LIFE: u64 = 3;

/// How a life ends that was told to die.
const DIED: u8 = 9;

fn main() -> ExitCode {
    let told = match std::env::args_os().skip(1).collect::<Vec<_>>().as_slice() {
        [] => tell_the_story(),
        [directory, life] if life == "--die" => live(&Directory::new(directory), true),
        [directory, life] if life == "--finish" => live(&Directory::new(directory), false),
        _ => Err("usage: stream_engine".into()),
    };
    match told {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stream_engine: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where an engine keeps what must survive it.
struct Directory {
    log: PathBuf,
    snapshots: Snapshots,
}

impl Directory {
    fn new(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        let snapshots = Snapshots::new(directory.join("snapshots"));
        Self { log: directory.join("log"), snapshots }
    }
}

fn tell_the_story() -> Result<ExitCode> {
    // Gone when this function returns, also with an error.
    let scratch = tempfile::tempdir()?;
    let directory = Directory::new(scratch.path());

    println!("first life: {} events for each of {CORES} cores", source::EVENTS);
    run_child(scratch.path(), "--die", Some(DIED.into()))?;
    println!("the engine died: no log was closed, and what was in memory is gone\n");

    let entries_behind_checkpoint = recovery_manager::look(&directory)?;
    println!("second life");
    run_child(scratch.path(), "--finish", Some(0))?;

    let Recovered { shards, .. } = recovery_manager::recover(&directory)?;
    for (core, shard) in &shards {
        if *shard != shard::counted_without_a_log(*core) {
            return Err(format!("core {core}: counts equal: no").into());
        }
    }
    println!("{entries_behind_checkpoint} entries came from the log, all others from a snapshot");
    println!("counts equal: yes");
    Ok(ExitCode::SUCCESS)
}

fn run_child(directory: &Path, life: &str, expected: Option<i32>) -> Result<()> {
    let status = Command::new(std::env::current_exe()?).arg(directory).arg(life).status()?;
    if status.code() != expected {
        return Err(format!("the engine's life {life} ended with {status}").into());
    }
    Ok(())
}

/// One life of the engine.
fn live(directory: &Directory, dies: bool) -> Result<ExitCode> {
    let Recovered { wal, shards } = recovery_manager::recover(directory)?;
    thread::scope(|scope| -> Result<()> {
        let (at_work, all_done) = mpsc::channel();
        let (mut requests, mut threads) = (Vec::new(), Vec::new());
        for (core, shard) in shards {
            let (request, requested) = mpsc::channel();
            requests.push(request);
            let (writer, at_work) = (wal.writer(core)?, at_work.clone());
            threads.push(scope.spawn(move || shard.run(writer, &requested, at_work)));
        }
        drop(at_work);

        let mut coordinator = Coordinator::new(&wal, &directory.snapshots, requests)?;
        while coordinator.wait_for_growth(&all_done) {
            let id = coordinator.checkpoint()?;
            if dies && id == LAST_CHECKPOINT_OF_FIRST_LIFE {
                coordinator.wait_for_half_the_growth(&all_done);
                // Nothing is dropped, closed or written out.
                std::process::exit(DIED.into());
            }
        }
        // Each shard goes on until nobody can ask it for its state any more.
        drop(coordinator);
        for thread in threads {
            thread.join().map_err(|_| "a core's thread panicked")??;
        }
        Ok(())
    })?;
    println!("  {} bytes on disk", wal.disk_usage()?.total_bytes());
    wal.close()?;
    Ok(ExitCode::SUCCESS)
}
