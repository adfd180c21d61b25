//! The recovery manager: snapshot, what the log has behind it, and how far the sources were read.

use std::collections::BTreeMap;

use laminar_wal::{Checkpoint, RecoveryMode, Wal, WalOptions};

use crate::shard::Shard;
use crate::snapshot::Counts;
use crate::{CORES, Directory, Result, source};

/// An engine's log, open, and its cores' states.
pub(crate) struct Recovered {
    pub(crate) wal: Wal,
    pub(crate) shards: BTreeMap<u16, Shard>,
}

/// Opens the log and brings every core's state back.
pub(crate) fn recover(directory: &Directory) -> Result<Recovered> {
    // Small segments, so that a story as short as this one has some to give back.
    let options = WalOptions::new(&directory.log).cores(CORES).segment_bytes(1024 * 1024);
    let (wal, recovery) = options.open()?;

    // The state as of the last checkpoint: the snapshot is the application's, and how far its
    // sources were read for it stands in the log's manifest.
    let checkpoint = wal.last_checkpoint();
    let counts = match &checkpoint {
        Some(checkpoint) => directory.snapshots.read(checkpoint.id)?,
        None => Counts::new(),
    };
    let at_checkpoint = |core| Shard {
        core,
        counts: counts.get(&core).cloned().unwrap_or_default(),
        next_offset: offset_in(checkpoint.as_ref(), core),
    };

    // Replay begins behind that checkpoint by itself, all cores side by side, each on a state of
    // its own.
    let recovery = recovery.on_progress(|progress| {
        println!("  replayed {} of {} bytes", progress.bytes, progress.total_bytes);
    });
    let mut shards = recovery.try_for_each_per_core(at_checkpoint, Shard::apply)?;
    for core in 0..CORES {
        // A core that has never logged is not in the log.
        shards.entry(core).or_insert_with(|| at_checkpoint(core));
    }
    for shard in shards.values() {
        println!("  core {} goes on with event {}", shard.core, shard.next_offset);
    }
    // As long as this might be replayed again, no checkpoint could give its segments back.
    drop(recovery);
    Ok(Recovered { wal, shards })
}

/// Says what recovery would find, from beside: no lock is taken and nothing is changed. Returns how
/// many entries lie behind the last checkpoint.
///
/// For a state that is one map, `into_state` is all the replay there is to write.
pub(crate) fn look(directory: &Directory) -> Result<u64> {
    let recovery = laminar_wal::read(&directory.log, RecoveryMode::TornTail)?;
    println!("{}", recovery.report());
    let state = recovery.into_state()?;
    println!(
        "behind its checkpoint: {} entries, which change {} users and read on to {:?}\n",
        state.entries,
        state.changes.len(),
        state.committed.offsets().collect::<Vec<_>>()
    );
    Ok(state.entries)
}

fn offset_in(checkpoint: Option<&Checkpoint>, core: u16) -> u64 {
    let sources = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.source_offsets);
    let known = sources.iter().find(|known| known.source == source::name(core));
    known.map_or(0, |known| known.offset)
}
