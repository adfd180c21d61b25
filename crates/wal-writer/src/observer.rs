//! What an operator sees of a core's log at work: metrics and events, each behind a feature.
//!
//! Everything is counted per batch, sync or segment, never per append. Without the features there
//! is nothing here at run time.

use std::time::Duration;

use wal_storage::WalError;

/// Watches one core's log.
#[derive(Debug)]
pub(crate) struct Observer {
    #[cfg(feature = "tracing")]
    core: u16,
    #[cfg(feature = "metrics")]
    metrics: metrics::Metrics,
}

/// Watches what concerns all cores of a log.
#[derive(Debug)]
pub(crate) struct LogObserver {
    #[cfg(feature = "metrics")]
    metrics: metrics::LogMetrics,
}

/// What an append had to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    /// All buffers were in flight.
    Buffer,
    /// The next segment was not ready.
    Segment,
}

impl Observer {
    /// Whether anything is observed: if not, nothing need be measured for it.
    pub(crate) const IS_ON: bool = cfg!(any(feature = "metrics", feature = "tracing"));

    /// Metrics go to the recorder that is installed by now.
    pub(crate) fn new(core: u16) -> Self {
        let _ = core;
        Self {
            #[cfg(feature = "tracing")]
            core,
            #[cfg(feature = "metrics")]
            metrics: metrics::Metrics::new(core),
        }
    }

    /// A batch has been handed to the device.
    pub(crate) fn wrote(&self, entries: u64, bytes: u64) {
        #[cfg(feature = "metrics")]
        self.metrics.wrote(entries, bytes);
        #[cfg(feature = "tracing")]
        tracing::trace!(core = self.core, entries, bytes, "batch written");
        let _ = (entries, bytes);
    }

    /// One commit made so many entries durable.
    pub(crate) fn committed(&self, entries: u64, took: Duration) {
        #[cfg(feature = "metrics")]
        self.metrics.committed(entries, took);
        #[cfg(feature = "tracing")]
        tracing::debug!(core = self.core, entries, ?took, "entries durable");
        let _ = (entries, took);
    }

    /// An append has to wait.
    pub(crate) fn stalled(&self, stall: Stall) {
        #[cfg(feature = "metrics")]
        self.metrics.stalled(stall);
        #[cfg(feature = "tracing")]
        tracing::debug!(core = self.core, ?stall, "append waits");
        let _ = stall;
    }

    /// The log goes on in another segment.
    pub(crate) fn rotated(&self, segment_id: u64) {
        #[cfg(feature = "metrics")]
        self.metrics.rotated();
        #[cfg(feature = "tracing")]
        tracing::debug!(core = self.core, segment_id, "log goes on in the next segment");
        let _ = segment_id;
    }

    /// A segment is ready, made anew or from a file that the log gave back.
    pub(crate) fn prepared(&self, segment_id: u64, size_bytes: u64, is_recycled: bool) {
        #[cfg(feature = "metrics")]
        self.metrics.prepared(is_recycled);
        #[cfg(feature = "tracing")]
        tracing::debug!(core = self.core, segment_id, size_bytes, is_recycled, "segment ready");
        let _ = (segment_id, size_bytes, is_recycled);
    }

    /// So many segments of such sizes together hold the log now.
    pub(crate) fn live(&self, segments: u64, bytes: u64) {
        #[cfg(feature = "metrics")]
        self.metrics.live(segments, bytes);
        let _ = (segments, bytes);
    }

    /// Segments behind a checkpoint are given back.
    pub(crate) fn released(&self, segments: usize) {
        #[cfg(feature = "metrics")]
        self.metrics.released(segments);
        #[cfg(feature = "tracing")]
        tracing::debug!(core = self.core, segments, "segments given back");
        let _ = segments;
    }

    /// The log is poisoned.
    pub(crate) fn poisoned(&self, cause: &WalError) {
        #[cfg(feature = "metrics")]
        self.metrics.poisoned();
        #[cfg(feature = "tracing")]
        tracing::error!(core = self.core, %cause, "log poisoned: open it again to go on");
        let _ = cause;
    }
}

impl LogObserver {
    /// Metrics go to the recorder that is installed by now.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            metrics: metrics::LogMetrics::new(),
        }
    }

    /// A checkpoint counts, so long after it was begun.
    pub(crate) fn checkpointed(&self, id: u64, epoch: u64, took: Duration) {
        #[cfg(feature = "metrics")]
        self.metrics.checkpointed(took);
        #[cfg(feature = "tracing")]
        tracing::info!(id, epoch, ?took, "checkpoint complete");
        let _ = (id, epoch, took);
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::fmt;
    use std::time::Duration;

    use metrics::{
        Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge,
        describe_histogram, gauge, histogram,
    };

    use super::Stall;

    const ENTRIES: &str = "laminar_wal_entries_total";
    const BYTES: &str = "laminar_wal_bytes_total";
    const BATCH_BYTES: &str = "laminar_wal_batch_bytes";
    const COMMITS: &str = "laminar_wal_commits_total";
    const COMMIT_ENTRIES: &str = "laminar_wal_commit_entries";
    const COMMIT_SECONDS: &str = "laminar_wal_commit_seconds";
    const STALLS: &str = "laminar_wal_stalls_total";
    const ROTATIONS: &str = "laminar_wal_rotations_total";
    const SEGMENTS_PREPARED: &str = "laminar_wal_segments_prepared_total";
    const SEGMENTS_RELEASED: &str = "laminar_wal_segments_released_total";
    const LIVE_SEGMENTS: &str = "laminar_wal_live_segments";
    const LIVE_BYTES: &str = "laminar_wal_live_bytes";
    const CHECKPOINTS: &str = "laminar_wal_checkpoints_total";
    const CHECKPOINT_SECONDS: &str = "laminar_wal_checkpoint_seconds";
    const POISONED: &str = "laminar_wal_poisoned_total";

    /// One core's metrics, looked up once.
    pub(super) struct Metrics {
        entries: Counter,
        bytes: Counter,
        batch_bytes: Histogram,
        commits: Counter,
        commit_entries: Histogram,
        commit_seconds: Histogram,
        buffer_stalls: Counter,
        segment_stalls: Counter,
        rotations: Counter,
        prepared_new: Counter,
        prepared_recycled: Counter,
        released: Counter,
        live_segments: Gauge,
        live_bytes: Gauge,
        poisoned: Counter,
    }

    impl Metrics {
        pub(super) fn new(core: u16) -> Self {
            describe();
            let core = core.to_string();
            let plain = |name: &'static str| counter!(name, "core" => core.clone());
            let sizes = |name: &'static str| histogram!(name, "core" => core.clone());
            let levels = |name: &'static str| gauge!(name, "core" => core.clone());
            let stalls = |kind| counter!(STALLS, "core" => core.clone(), "waits_for" => kind);
            let prepared =
                |from| counter!(SEGMENTS_PREPARED, "core" => core.clone(), "from" => from);
            Self {
                entries: plain(ENTRIES),
                bytes: plain(BYTES),
                batch_bytes: sizes(BATCH_BYTES),
                commits: plain(COMMITS),
                commit_entries: sizes(COMMIT_ENTRIES),
                commit_seconds: sizes(COMMIT_SECONDS),
                buffer_stalls: stalls("buffer"),
                segment_stalls: stalls("segment"),
                rotations: plain(ROTATIONS),
                prepared_new: prepared("new"),
                prepared_recycled: prepared("recycled"),
                released: plain(SEGMENTS_RELEASED),
                live_segments: levels(LIVE_SEGMENTS),
                live_bytes: levels(LIVE_BYTES),
                poisoned: plain(POISONED),
            }
        }

        pub(super) fn wrote(&self, entries: u64, bytes: u64) {
            self.entries.increment(entries);
            self.bytes.increment(bytes);
            self.batch_bytes.record(approximate(bytes));
        }

        pub(super) fn committed(&self, entries: u64, took: Duration) {
            self.commits.increment(1);
            self.commit_entries.record(approximate(entries));
            self.commit_seconds.record(took.as_secs_f64());
        }

        pub(super) fn stalled(&self, stall: Stall) {
            match stall {
                Stall::Buffer => self.buffer_stalls.increment(1),
                Stall::Segment => self.segment_stalls.increment(1),
            }
        }

        pub(super) fn rotated(&self) {
            self.rotations.increment(1);
        }

        pub(super) fn prepared(&self, is_recycled: bool) {
            let prepared = if is_recycled { &self.prepared_recycled } else { &self.prepared_new };
            prepared.increment(1);
        }

        pub(super) fn released(&self, segments: usize) {
            self.released.increment(segments as u64);
        }

        pub(super) fn live(&self, segments: u64, bytes: u64) {
            self.live_segments.set(approximate(segments));
            self.live_bytes.set(approximate(bytes));
        }

        pub(super) fn poisoned(&self) {
            self.poisoned.increment(1);
        }
    }

    /// Metrics of a whole log, looked up once.
    pub(super) struct LogMetrics {
        checkpoints: Counter,
        checkpoint_seconds: Histogram,
    }

    impl LogMetrics {
        pub(super) fn new() -> Self {
            describe();
            Self {
                checkpoints: counter!(CHECKPOINTS),
                checkpoint_seconds: histogram!(CHECKPOINT_SECONDS),
            }
        }

        pub(super) fn checkpointed(&self, took: Duration) {
            self.checkpoints.increment(1);
            self.checkpoint_seconds.record(took.as_secs_f64());
        }
    }

    impl fmt::Debug for LogMetrics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("LogMetrics").finish_non_exhaustive()
        }
    }

    impl fmt::Debug for Metrics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Metrics").finish_non_exhaustive()
        }
    }

    fn describe() {
        describe_counter!(ENTRIES, Unit::Count, "Entries written to segments");
        describe_counter!(BYTES, Unit::Bytes, "Bytes of records written to segments");
        describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes of records of one batch");
        describe_counter!(COMMITS, Unit::Count, "Commits: writes that were made durable");
        describe_histogram!(COMMIT_ENTRIES, Unit::Count, "Entries made durable by one commit");
        describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "From the first write to the last sync");
        describe_counter!(STALLS, Unit::Count, "Appends that had to wait");
        describe_counter!(ROTATIONS, Unit::Count, "Times that the log went on in a new segment");
        describe_counter!(SEGMENTS_PREPARED, Unit::Count, "Segments made ready ahead");
        describe_counter!(SEGMENTS_RELEASED, Unit::Count, "Segments given back by checkpoints");
        describe_gauge!(LIVE_SEGMENTS, Unit::Count, "Segments that hold the log");
        describe_gauge!(LIVE_BYTES, Unit::Bytes, "Sizes of the segments that hold the log");
        describe_counter!(CHECKPOINTS, Unit::Count, "Checkpoints that were completed");
        describe_histogram!(CHECKPOINT_SECONDS, Unit::Seconds, "From its begin until it counts");
        describe_counter!(POISONED, Unit::Count, "Logs that a failed write or sync ended");
    }

    /// A number as recorders take it; exact up to 2^53.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts so far")]
    fn approximate(number: u64) -> f64 {
        number as f64
    }
}
