//! Timestamps that never fall.

use std::time::{SystemTime, UNIX_EPOCH};

/// Hands out the timestamps of one core's entries; none is lower than one before.
///
/// The system clock may step back, and reading it costs more than the rest of an append. So the
/// clock is read once per batch and given to [`begin_batch`](Self::begin_batch); within a batch,
/// and for as long as the system clock lags behind, each entry gets one nanosecond more than the
/// one before it.
///
/// An append that may still fail asks [`peek`](Self::peek), and takes the timestamp with
/// [`next`](Self::next) once nothing can fail any more.
///
/// ```
/// use wal_entry::EntryClock;
///
/// let mut clock = EntryClock::starting_after(Some(1000));
/// clock.begin_batch(900); // the system clock was set back
/// assert_eq!(clock.peek(), 1001);
/// assert_eq!((clock.next(), clock.next()), (1001, 1002));
/// clock.begin_batch(5000);
/// assert_eq!(clock.next(), 5000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryClock {
    /// The last timestamp that was handed out or accepted.
    last_ns: Option<i64>,
    /// What `next` will hand out: `max(last + 1, batch)`.
    next_ns: i64,
}

impl EntryClock {
    /// A clock for a core whose last entry carries `last_timestamp_ns`, or that never had one.
    ///
    /// Before the first [`begin_batch`](Self::begin_batch) it counts on from there, or from 0.
    pub fn starting_after(last_timestamp_ns: Option<i64>) -> Self {
        let next_ns = last_timestamp_ns.map_or(0, |last| last.saturating_add(1));
        Self { last_ns: last_timestamp_ns, next_ns }
    }

    /// Sets the time from which the next entries count, in nanoseconds since 1970-01-01 00:00 UTC.
    pub fn begin_batch(&mut self, wall_clock_ns: i64) {
        self.next_ns = match self.last_ns {
            Some(last) => wall_clock_ns.max(last.saturating_add(1)),
            None => wall_clock_ns,
        };
    }

    /// Takes the next timestamp: the batch's time, or one more than the last timestamp if that is
    /// higher. At `i64::MAX`, in the year 2262, it stays.
    #[expect(clippy::should_implement_trait, reason = "a clock is no iterator: it never ends")]
    #[inline]
    pub fn next(&mut self) -> i64 {
        let timestamp_ns = self.next_ns;
        self.last_ns = Some(timestamp_ns);
        self.next_ns = timestamp_ns.saturating_add(1);
        timestamp_ns
    }

    /// Takes the timestamp of an entry that already carries one.
    ///
    /// # Errors
    ///
    /// [`TimestampRegressed`] if it is lower than the last one; the clock is then unchanged. An
    /// equal one is accepted.
    pub fn accept(&mut self, timestamp_ns: i64) -> Result<(), TimestampRegressed> {
        self.check(timestamp_ns)?;
        self.last_ns = Some(timestamp_ns);
        self.next_ns = self.next_ns.max(timestamp_ns.saturating_add(1));
        Ok(())
    }

    /// Whether [`accept`](Self::accept) would take `timestamp_ns`, without taking it.
    ///
    /// # Errors
    ///
    /// [`TimestampRegressed`] if it is lower than the last one.
    pub fn check(&self, timestamp_ns: i64) -> Result<(), TimestampRegressed> {
        match self.last_ns {
            Some(last_ns) if timestamp_ns < last_ns => {
                Err(TimestampRegressed { last_ns, given_ns: timestamp_ns })
            }
            _ => Ok(()),
        }
    }

    /// What [`next`](Self::next) would hand out, without taking it.
    #[inline]
    pub fn peek(&self) -> i64 {
        self.next_ns
    }

    /// The last timestamp that was handed out or accepted.
    #[inline]
    pub fn last(&self) -> Option<i64> {
        self.last_ns
    }
}

/// A ready-made entry carries a timestamp below that of the entry before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timestamp {given_ns} ns is below the last one, {last_ns} ns")]
pub struct TimestampRegressed {
    /// The timestamp of the last entry, in nanoseconds since 1970-01-01 00:00 UTC.
    pub last_ns: i64,
    /// The timestamp that was refused.
    pub given_ns: i64,
}

/// The system clock, in nanoseconds since 1970-01-01 00:00 UTC; negative before.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place for callers that build entries without a storage to ask for the time"
)]
pub(crate) fn now_ns() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => {
            i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before_ns| -before_ns)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_core_starts_at_its_first_batch_even_before_1970() {
        let mut clock = EntryClock::starting_after(None);
        assert_eq!(clock.last(), None);
        clock.begin_batch(-100);
        assert_eq!((clock.next(), clock.next()), (-100, -99));
        assert_eq!(clock.last(), Some(-99));
    }

    #[test]
    fn peeking_takes_nothing() {
        let mut clock = EntryClock::starting_after(Some(7));
        clock.begin_batch(100);
        assert_eq!((clock.peek(), clock.peek(), clock.last()), (100, 100, Some(7)));
        assert_eq!(clock.next(), 100);
    }

    #[test]
    fn a_later_batch_may_start_earlier_if_the_higher_time_was_never_handed_out() {
        let mut clock = EntryClock::starting_after(Some(7));
        clock.begin_batch(100);
        clock.begin_batch(50);
        assert_eq!(clock.next(), 50);
    }

    #[test]
    fn a_lower_timestamp_is_refused_and_changes_nothing() {
        let mut clock = EntryClock::starting_after(Some(10));
        clock.begin_batch(20);
        let before = clock.clone();
        let refused = clock.accept(9).unwrap_err();
        assert_eq!(refused, TimestampRegressed { last_ns: 10, given_ns: 9 });
        assert_eq!(refused.to_string(), "timestamp 9 ns is below the last one, 10 ns");
        assert_eq!(clock, before);
        clock.accept(10).unwrap();
        assert_eq!(clock.peek(), 20);
        clock.accept(30).unwrap();
        assert_eq!(clock.peek(), 31);
    }

    #[test]
    fn the_end_of_time_is_reached_but_not_passed() {
        let mut clock = EntryClock::starting_after(Some(i64::MAX - 1));
        assert_eq!((clock.next(), clock.next()), (i64::MAX, i64::MAX));
        clock.begin_batch(0);
        assert_eq!(clock.next(), i64::MAX);
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(now_ns() > 1_577_836_800_000_000_000);
    }

    #[derive(Debug, Clone)]
    enum Step {
        BeginBatch(i64),
        Next,
        Accept(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let near = prop_oneof![-50_i64..50, any::<i64>()];
        prop_oneof![
            near.clone().prop_map(Step::BeginBatch),
            Just(Step::Next),
            near.prop_map(Step::Accept),
        ]
    }

    proptest! {
        /// Against the definition: the next timestamp is `max(last + 1, batch)`.
        #[test]
        fn timestamps_never_fall(
            start in any::<Option<i64>>(),
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let mut clock = EntryClock::starting_after(start);
            let mut last = start;
            let mut batch = start.map_or(0, |last| last.saturating_add(1));
            for step in steps {
                match step {
                    Step::BeginBatch(wall_clock_ns) => {
                        batch = wall_clock_ns;
                        clock.begin_batch(wall_clock_ns);
                    }
                    Step::Next => {
                        let due = last.map_or(batch, |last| batch.max(last.saturating_add(1)));
                        prop_assert_eq!(clock.peek(), due);
                        prop_assert_eq!(clock.next(), due);
                        prop_assert!(last.is_none_or(|last| last <= due));
                        last = Some(due);
                    }
                    Step::Accept(given) => {
                        let accepted = clock.accept(given).is_ok();
                        prop_assert_eq!(accepted, last.is_none_or(|last| last <= given));
                        if accepted {
                            last = Some(given);
                        }
                    }
                }
                prop_assert_eq!(clock.last(), last);
            }
        }
    }
}
