//! Leaving operations out of a failing workload for as long as it still fails.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::damage::{self, DamageTally};
use crate::directory;
use crate::drive::alone;
use crate::explorer::{Effort, Failure, FailureKind, explore};
use crate::tally::Tally;
use crate::watchdog::Pulse;
use crate::workload::Workload;

/// A story that takes longer to shorten is told as it is.
const TIME: Duration = Duration::from_secs(20);

/// The shortest workload found of which some crash still fails, with how it fails; `None` if
/// nothing can be left out, as of what stands still: each try would leave a thread behind.
pub(crate) fn crashes(
    workload: &Workload,
    failure: &Failure,
    effort: Effort,
) -> Option<(Workload, Failure)> {
    let effort = Effort { deadline: Some(Instant::now() + TIME), states_max: u64::MAX, ..effort };
    shorten(workload, failure, move |shorter, pulse| {
        explore(shorter, effort, &mut Tally::default(), pulse)
    })
}

/// The same for what fails when the log is damaged.
pub(crate) fn damage(workload: &Workload, failure: &Failure) -> Option<(Workload, Failure)> {
    shorten(workload, failure, |shorter, pulse| {
        damage::damage(shorter, None, &mut DamageTally::default(), pulse)
    })
}

/// The same for what fails in a real directory.
pub(crate) fn in_directory(
    workload: &Workload,
    failure: &Failure,
    parent: PathBuf,
) -> Option<(Workload, Failure)> {
    shorten(workload, failure, move |shorter, pulse| directory::explore(shorter, &parent, pulse))
}

fn shorten(
    workload: &Workload,
    failure: &Failure,
    attempt: impl Fn(&Workload, &Pulse) -> Result<(), Failure> + Send + Sync + 'static,
) -> Option<(Workload, Failure)> {
    if failure.kind == FailureKind::Hang {
        return None;
    }
    let (workload, failure) = (workload.clone(), failure.clone());
    alone(move |pulse| {
        leave_out(workload.clone(), failure.clone(), |shorter| attempt(shorter, pulse))
    })
    .ok()
}

/// Halves are tried first, then ever smaller pieces. What fails on a disk that fails may fail on
/// a healthy one too.
fn leave_out(
    workload: Workload,
    failure: Failure,
    attempt: impl Fn(&Workload) -> Result<(), Failure>,
) -> (Workload, Failure) {
    let until = Instant::now() + TIME;
    let (mut shortest, mut failure) = (workload, failure);
    for at in (0..shortest.faults.len()).rev() {
        let mut healthier = shortest.clone();
        drop(healthier.faults.remove(at));
        if let Err(still) = attempt(&healthier) {
            (shortest, failure) = (healthier, still);
        }
    }
    let mut chunk = shortest.operations.len().div_ceil(2);
    while chunk > 0 && Instant::now() < until {
        let mut at = 0;
        let mut is_shorter = false;
        while at < shortest.operations.len() && Instant::now() < until {
            let mut shorter = shortest.clone();
            let end = (at + chunk).min(shorter.operations.len());
            shorter.operations.drain(at..end);
            match attempt(&shorter) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Operation;

    #[test]
    fn only_the_operation_that_fails_is_left() {
        let is_reset = |operation: &Operation| matches!(operation, Operation::Reset { .. });
        let mut workload = Workload::draw(1).with_faults();
        workload.operations.retain(|operation| !is_reset(operation));
        workload.operations.insert(7, Operation::Reset { core: 0 });
        let failure = |what: &str| Failure {
            path: Vec::new(),
            what: what.to_owned(),
            kind: FailureKind::BrokenPromise,
        };
        let (shortest, still) = leave_out(workload, failure("long"), |shorter| {
            let fails = shorter.operations.iter().any(is_reset);
            if fails { Err(failure("short")) } else { Ok(()) }
        });
        assert_eq!((shortest.operations.len(), shortest.faults.len()), (1, 0));
        assert_eq!(still.what, "short");
    }
}
