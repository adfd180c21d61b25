//! A torn write, made by hand on a copy of the log: a kill alone leaves none, because what the
//! kernel was given it keeps. A power cut in the middle of a write does.

use std::fs;
use std::path::Path;

use laminar_wal::{EndingKind, Recovery, RecoveryMode};

use crate::Result;
use crate::child::Told;
use crate::random::Random;
use crate::text::grouped;

/// With fewer bytes behind the last sync there is too little to aim at.
const UNSYNCED_BYTES_MIN: usize = 2048;

/// What a segment has before its first record; see `docs/format.md`.
const SEGMENT_HEADER_BYTES: usize = 3 * 4096;

/// Copies the log, which a kill has just left, cuts one core's copy off behind the last sync, and
/// checks that recovery drops what is torn and keeps the rest.
///
/// Returns whether there was anything to cut: a kill may find everything synced.
pub(crate) fn make_and_check(
    log: &Path,
    copy: &Path,
    recovery: &Recovery,
    told: &Told,
    random: &mut Random,
) -> Result<bool> {
    let cores = recovery.report().cores.iter().zip(&told.cores);
    let behind_the_last_sync = cores.map(|(found, told)| {
        (found.end_position.saturating_sub(told.synced_position), found, told.synced_position)
    });
    let Some((unsynced_bytes, found, synced_position)) =
        behind_the_last_sync.max_by_key(|(unsynced_bytes, ..)| *unsynced_bytes)
    else {
        return Ok(false);
    };
    let Some(file) = &found.ending.file else {
        return Ok(false);
    };

    copy_directory(log, copy)?;
    let Some(cut_at) = cut(&copy.join(file), usize::try_from(unsynced_bytes)?, random)? else {
        fs::remove_dir_all(copy)?;
        return Ok(false);
    };

    let recovered_copy = laminar_wal::read(copy, RecoveryMode::TornTail)?;
    let torn = recovered_copy.report().core(found.core).ok_or("the copy lost a core")?;
    let EndingKind::Torn { dropped_bytes_at_least, .. } = torn.ending.kind else {
        return Err(
            format!("the cut at byte {cut_at} was not taken for a torn tail: {torn}").into()
        );
    };
    if torn.end_position < synced_position || torn.end_position >= found.end_position {
        return Err(format!("the cut at byte {cut_at} tore the wrong entries: {torn}").into());
    }
    println!(
        "  a copy, torn at byte {} of {file}:\n    core {} keeps {} of {} entries, drops {} torn \
         bytes, and nothing below its last sync",
        grouped(cut_at as u64),
        torn.core,
        grouped(torn.entries),
        grouped(found.entries),
        grouped(dropped_bytes_at_least)
    );
    Ok(true)
}

/// Zeroes the file from a byte in the middle of a record on, and returns that byte. `None` if the
/// file has too few records behind the last sync, because a new segment has only just begun.
///
/// The file keeps its length. A segment is made at its full size before anything is written to
/// it, so a torn write leaves zeroes or old bytes where it did not get to; a file that is too
/// short was never the log's doing, and recovery calls it damage.
fn cut(file: &Path, unsynced_bytes: usize, random: &mut Random) -> Result<Option<usize>> {
    let mut bytes = fs::read(file)?;
    // Behind the last record a segment is zero.
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let unsynced_bytes = unsynced_bytes.min(end.saturating_sub(SEGMENT_HEADER_BYTES));
    if unsynced_bytes < UNSYNCED_BYTES_MIN {
        return Ok(None);
    }
    // In the later half of what was not synced, a little away from both ends: the last record
    // may itself end with zeroes.
    let aim = end - unsynced_bytes / 8 - random.below_usize(unsynced_bytes / 4);
    // Records begin at multiples of eight. A byte in between that is not zero yet lies inside of
    // a record, and zeroing it makes that record's checksum fail.
    let mut rest = bytes.iter_mut().enumerate().skip(aim);
    let Some((cut_at, _)) = rest.find(|(at, byte)| !at.is_multiple_of(8) && **byte != 0) else {
        return Ok(None);
    };
    if let Some(torn) = bytes.get_mut(cut_at..) {
        torn.fill(0);
    }
    fs::write(file, bytes)?;
    Ok(Some(cut_at))
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
