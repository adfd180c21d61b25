//! Holds what was recovered against what the child told, and against the straight count.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use laminar_wal::{Recovery, RecoveryMode};

use crate::Result;
use crate::child::Told;
use crate::text::{count, grouped, words};
use crate::word_count::{CORES, Shard, core_of};

/// Recovers the log as a program does that only wants to look: no lock is taken, nothing changed.
///
/// Gives what was recovered, and whether entries are gone that the child had appended: those that
/// it had not synced.
pub(crate) fn check_recovery(log: &Path, text: &str, told: &Told) -> Result<(Recovery, bool)> {
    let begun = Instant::now();
    let recovery = laminar_wal::read(log, RecoveryMode::TornTail)?;
    let mut shards = Vec::new();
    for core in 0..CORES {
        shards.push(Shard::recover(&recovery, core)?);
    }
    let recovered_in = begun.elapsed();

    let (mut synced, mut recovered, mut appended) = (0, 0, 0);
    let mut entries_are_gone = false;
    for ((core, shard), told) in (0..CORES).zip(&shards).zip(&told.cores) {
        let end = recovery.report().core(core).map_or(0, |found| found.end_position);
        if end < told.synced_position {
            let promised = told.synced_position;
            return Err(format!(
                "core {core} was told that everything below {promised} is durable, but recovery \
                 ends at {end}"
            )
            .into());
        }
        check_shard(core, shard, text)?;
        entries_are_gone |= end < told.appended_position;
        synced += told.synced_position;
        recovered += end;
        // A core says what it has appended only now and then.
        appended += told.appended_position.max(end);
    }
    println!(
        "  acked {} <= recovered {} <= appended {} bytes; {} entries in {:.0} ms",
        grouped(synced),
        grouped(recovered),
        grouped(appended),
        grouped(recovery.report().entries()),
        recovered_in.as_secs_f64() * 1e3
    );
    Ok((recovery, entries_are_gone))
}

/// At any moment a core's state is the count of its own words before its offset.
fn check_shard(core: u16, shard: &Shard, text: &str) -> Result<()> {
    let offset = shard.next_offset;
    let counted = text.get(..offset).ok_or("an offset beyond the end of the text")?;
    let own_words = words(counted, 0).map(|(word, _)| word).filter(|word| core_of(word) == core);
    if !are_equal(&shard.counts, &count(own_words)) {
        return Err(format!("core {core}: not the count of the text before {offset}").into());
    }
    Ok(())
}

/// At the end all cores together have the count of the whole text.
pub(crate) fn check_total(text: &str, recovery: &Recovery) -> Result<()> {
    let mut total = HashMap::new();
    for core in 0..CORES {
        total.extend(Shard::recover(recovery, core)?.counts);
    }
    if !are_equal(&total, &count(words(text, 0).map(|(word, _)| word))) {
        return Err("counts equal: no".into());
    }
    Ok(())
}

fn are_equal(recovered: &HashMap<String, u64>, straight: &HashMap<&str, u64>) -> bool {
    recovered.len() == straight.len()
        && straight.iter().all(|(&word, count)| recovered.get(word) == Some(count))
}
