//! Programs whose logs lie in real directories: nothing fails there, and what they do is done by
//! the operating system, with its threads and its clock.

use std::path::Path;

use wal_sim::SimStorage;

use crate::Checked;
use crate::explorer::{Failure, FailureKind, caught};
use crate::life::{Beginning, Life, Moment, Visitor};
use crate::look::look;
use crate::oracle::Oracle;
use crate::watchdog::{Doing, Pulse};
use crate::workload::Workload;

/// Does everything that a workload says, in a directory that is made in `parent` and removed.
///
/// # Errors
///
/// What happened against a promise.
pub(crate) fn explore(workload: &Workload, parent: &Path, pulse: &Pulse) -> Result<(), Failure> {
    pulse.explores(workload);
    let lived = caught(pulse, || {
        let directory = tempfile::tempdir_in(parent)
            .map_err(|error| format!("making a directory in {}: {error}", parent.display()))?;
        let mut visitor = AtTheEnd { pulse };
        let machine = SimStorage::new(workload.seed);
        let mut life = Life::new(machine, Oracle::default(), workload.seed, &mut visitor);
        life.set_directory(directory.path().to_owned());
        life.set_closing_at_end(true);
        life.live(workload, &Beginning::OfALog)
    })?;
    let kind = FailureKind::BrokenPromise;
    lived.map_err(|what| Failure { path: Vec::new(), what, kind })
}

struct AtTheEnd<'a> {
    pulse: &'a Pulse,
}

impl Visitor for AtTheEnd<'_> {
    fn visit(&mut self, moment: &Moment<'_>) -> Checked {
        look(moment.machine, moment.oracle, moment.cuts).map(|_| ())
    }

    fn begins(&mut self, what: Doing) {
        self.pulse.lives(&[], what);
    }
}
