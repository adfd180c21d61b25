//! Faults that this target has found and that are not mended yet: logs that can be read, and that
//! appending makes unreadable. Each goes from here when it is mended; its input is in the corpus.

use wal_recovery::RecoveredLog;

/// Whether a log is one with which it is known not to go well.
pub(super) fn is_known(log: &RecoveredLog) -> bool {
    leaves_segments_of_another_log(log) || names_strange_cores(log) || is_out_of_numbers(log)
}

/// Both manifests are gone, and segments that were never begun are there: a new log is made beside
/// them, and as soon as it has its manifest, those of cores that do not log any more are foreign.
/// Corpus: `a_segment_of_a_log_without_a_manifest`.
fn leaves_segments_of_another_log(log: &RecoveredLog) -> bool {
    log.manifest.is_none() && log.cores.iter().any(|core| !core.other_segments.is_empty())
}

/// The manifest says of a core that never logged what it says of cores that did. No writer writes
/// that; recovery does not look for such a core, and an opening that makes it one of the log's
/// makes a log that contradicts itself. Corpus: `a_release_of_a_core_that_never_logged`.
fn names_strange_cores(log: &RecoveredLog) -> bool {
    let Some(manifest) = &log.manifest else { return false };
    let checkpoint = manifest.checkpoint.iter().flat_map(|checkpoint| &checkpoint.cores);
    let mut named = checkpoint
        .map(|place| place.core)
        .chain(manifest.releases.iter().map(|release| release.core))
        .chain(manifest.cuts.iter().map(|cut| cut.core));
    named.any(|core| log.cores.iter().all(|found| found.core != core))
}

/// A start says that the next sequence is the last one there is, and an append counts on.
/// Corpus: `a_sequence_that_has_no_next`.
fn is_out_of_numbers(log: &RecoveredLog) -> bool {
    log.cores.iter().any(|core| core.next_sequence > u64::MAX / 2)
}
