//! Leaving operations out of a failing workload for as long as it still fails.

use std::time::{Duration, Instant};

use crate::explorer::{Effort, Failure, explore};
use crate::tally::Tally;
use crate::workload::Workload;

/// A story that takes longer to shorten is told as it is.
const TIME: Duration = Duration::from_secs(20);

/// The shortest workload found that still fails, with how it fails.
pub(crate) fn minimise(
    workload: Workload,
    failure: Failure,
    effort: Effort,
) -> (Workload, Failure) {
    let until = Instant::now() + TIME;
    let effort = Effort { deadline: Some(until), states_max: u64::MAX, ..effort };
    let (mut shortest, mut failure) = (workload, failure);
    let mut chunk = shortest.operations.len().div_ceil(2);
    while chunk > 0 && Instant::now() < until {
        let mut at = 0;
        let mut is_shorter = false;
        while at < shortest.operations.len() {
            let mut shorter = shortest.clone();
            let end = (at + chunk).min(shorter.operations.len());
            shorter.operations.drain(at..end);
            match explore(&shorter, effort, &mut Tally::default()) {
                Err(still) => {
                    (shortest, failure) = (shorter, still);
                    is_shorter = true;
                }
                Ok(()) => at += chunk,
            }
        }
        if !is_shorter || chunk > 1 {
            chunk /= 2;
        }
    }
    (shortest, failure)
}
