//! How a log is written: sizes that a user may choose, checked once.

use wal_format::{
    MAX_RECORD_BYTES_DEFAULT, MAX_RECORD_BYTES_MIN, PAYLOAD_BYTES_CEILING, SEGMENT_BYTES_MIN,
};
use wal_recovery::{RecoveryMode, RecoveryTarget};
use wal_storage::{Result, WalError};

use crate::group_commit::GroupCommit;

/// Sizes and recovery mode of a log that is being opened; the same for all of its cores.
///
/// None of them must be the same at every opening: segments and records written with other sizes
/// are read as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Size of a full segment file, in bytes; a multiple of 4096, 64 MiB unless changed. The
    /// first segment of an opening has at most 256 KiB, each next one twice its predecessor's.
    pub segment_bytes: u64,
    /// The largest payload of a record, in bytes; a multiple of 8, 16 MiB unless changed, at most
    /// 2^28 - 8.
    pub max_record_bytes: u32,
    /// Size of one batch buffer, in bytes; a multiple of 4096, 256 KiB unless changed.
    pub batch_bytes: usize,
    /// How many bytes of closed batches may wait for the disk before an append waits too;
    /// rounded up to whole buffers, at least two. 4 MiB unless changed; memory that a burst needed
    /// is given up when the core has been quiet for a second.
    pub in_flight_bytes: usize,
    /// How many files of segments that were given back are kept, per core, to be used again. A
    /// recycled one costs no new space and is ready sooner. 2 unless changed: one to be prepared,
    /// one behind it.
    pub recycled_segments: usize,
    /// When a commit begins for those who wait for a ticket: as soon as the disk is free, unless
    /// changed.
    pub group_commit: GroupCommit,
    /// What to make of a torn tail, and of damage, when the log is opened.
    pub recovery_mode: RecoveryMode,
    /// Up to where the log is recovered; the end unless changed.
    pub recovery_target: RecoveryTarget,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            max_record_bytes: MAX_RECORD_BYTES_DEFAULT,
            batch_bytes: 256 * 1024,
            in_flight_bytes: 4 * 1024 * 1024,
            recycled_segments: 2,
            group_commit: GroupCommit::default(),
            recovery_mode: RecoveryMode::TornTail,
            recovery_target: RecoveryTarget::End,
        }
    }
}

/// More is a mistake: a segment's space is taken before it is used.
const SEGMENT_BYTES_MAX: u64 = 1 << 40;

/// More is a mistake: so much memory is asked for, per core.
const BUFFER_BYTES_MAX: u64 = 1 << 32;

/// Size of the first segment of an opening, so that a crash loop does not fill the disk.
const FIRST_SEGMENT_BYTES: u64 = 256 * 1024;

impl LogOptions {
    /// # Errors
    ///
    /// [`WalError::InvalidArgument`] naming the first option that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(WalError::InvalidArgument { what });
        let Self { segment_bytes, max_record_bytes, batch_bytes, .. } = *self;
        if segment_bytes < SEGMENT_BYTES_MIN || !segment_bytes.is_multiple_of(4096) {
            return refuse(format!(
                "segment_bytes is {segment_bytes}; it must be a multiple of 4096, at least \
                 {SEGMENT_BYTES_MIN}"
            ));
        }
        if !(MAX_RECORD_BYTES_MIN..=PAYLOAD_BYTES_CEILING).contains(&max_record_bytes)
            || !max_record_bytes.is_multiple_of(8)
        {
            return refuse(format!(
                "max_record_bytes is {max_record_bytes}; it must be a multiple of 8, from \
                 {MAX_RECORD_BYTES_MIN} to {PAYLOAD_BYTES_CEILING}"
            ));
        }
        if batch_bytes == 0 || !batch_bytes.is_multiple_of(4096) {
            return refuse(format!(
                "batch_bytes is {batch_bytes}; it must be a multiple of 4096, and not 0"
            ));
        }
        for (name, bytes, most) in [
            ("segment_bytes", segment_bytes, SEGMENT_BYTES_MAX),
            ("batch_bytes", batch_bytes as u64, BUFFER_BYTES_MAX),
            ("in_flight_bytes", self.in_flight_bytes as u64, BUFFER_BYTES_MAX),
        ] {
            if bytes > most {
                return refuse(format!("{name} is {bytes}; it must be at most {most}"));
            }
        }
        self.group_commit.check()
    }

    pub(crate) fn first_segment_bytes(&self) -> u64 {
        self.segment_bytes.min(FIRST_SEGMENT_BYTES)
    }

    /// How many buffers a core may own: the one being filled, and those in flight.
    pub(crate) fn buffers(&self) -> usize {
        self.in_flight_bytes.div_ceil(self.batch_bytes).max(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        LogOptions::default().check().unwrap();
    }

    #[test]
    fn sizes_that_cannot_be_used_are_refused_by_name() {
        let refused = |change: fn(&mut LogOptions)| {
            let mut options = LogOptions::default();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        assert!(refused(|o| o.segment_bytes = 4096).contains("segment_bytes is 4096"));
        assert!(refused(|o| o.segment_bytes += 1).contains("segment_bytes"));
        assert!(refused(|o| o.max_record_bytes = 12).contains("max_record_bytes is 12"));
        assert!(refused(|o| o.max_record_bytes = 1 << 28).contains("max_record_bytes"));
        assert!(refused(|o| o.batch_bytes = 100).contains("batch_bytes is 100"));
        assert!(refused(|o| o.segment_bytes = 1 << 50).contains("segment_bytes"));
        assert!(refused(|o| o.batch_bytes = 1 << 40).contains("batch_bytes"));
    }

    #[test]
    fn the_in_flight_limit_is_rounded_to_buffers() {
        let options = LogOptions { in_flight_bytes: 600 * 1024, ..LogOptions::default() };
        assert_eq!(options.buffers(), 3);
        let options = LogOptions { in_flight_bytes: 0, ..options };
        assert_eq!(options.buffers(), 2);
    }
}
