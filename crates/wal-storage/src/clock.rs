//! The two clocks: one that never steps back, and the one on the wall.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts from the moment it was made. Copies agree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(self) -> Duration {
        self.started.elapsed()
    }

    #[expect(
        clippy::unused_self,
        reason = "both clocks are read in the same way, whatever each needs for it"
    )]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where `Storage::wall_clock_ns` gets its time from"
    )]
    pub(crate) fn wall_clock_ns(self) -> i64 {
        signed_ns(SystemTime::now())
    }
}

/// Nanoseconds since 1970, negative before; the ends of `i64` (in 1677 and 2262) stand for all
/// that lies beyond them.
fn signed_ns(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(error) => i64::try_from(error.duration().as_nanos()).map_or(i64::MIN, |before| -before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_before_1970_reads_negative() {
        assert_eq!(signed_ns(UNIX_EPOCH), 0);
        assert_eq!(signed_ns(UNIX_EPOCH + Duration::from_nanos(7)), 7);
        assert_eq!(signed_ns(UNIX_EPOCH - Duration::from_nanos(7)), -7);
    }

    #[test]
    fn a_wall_clock_beyond_what_64_bits_hold_stays_at_their_end() {
        let centuries = Duration::from_secs(60 * 60 * 24 * 365 * 400);
        assert_eq!(signed_ns(UNIX_EPOCH + centuries), i64::MAX);
        assert_eq!(signed_ns(UNIX_EPOCH - centuries), i64::MIN);
    }

    #[test]
    fn copies_of_a_clock_agree_and_never_step_back() {
        let clock = Clock::new();
        let copy = clock;
        let first = clock.now();
        let second = copy.now();
        assert!(first <= second);
        assert!(second <= clock.now());
    }
}
