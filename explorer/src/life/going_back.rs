//! Opening the log to a target: what is shown, what is accepted, and what a crash leaves of that.

use wal_recovery::RecoveryTarget;
use wal_storage::WalError;
use wal_writer::{CoreSelection, LogOptions, PendingRecovery, Wal};

use super::Life;
use super::opening::Opened;
use crate::Checked;
use crate::look::{Found, look, look_to};
use crate::oracle::{Acked, Cut};
use crate::quarantine::Dropped;
use crate::target::Logged;
use crate::workload::{GoingBack, Opening, Shape};

/// What an opening asks for.
struct Asked {
    opening: Opening,
    options: LogOptions,
    selection: CoreSelection,
}

impl Life<'_> {
    /// Opens the log in which `found` was found up to a target; `settled` if all of it is durable.
    pub(super) fn go_back(
        &mut self,
        found: &Found,
        shape: Shape,
        settled: bool,
        to: GoingBack,
    ) -> Checked {
        let Some(manifest) = &found.log.manifest else {
            return self.open_found(found, shape, settled);
        };
        if settled {
            self.go_on_from(found);
        }
        let known = self.oracle.after(found);
        let logged = Logged { oracle: &known, manifest };
        let target = logged.choose(to);
        let shown = look_to(&self.frozen()?, &known, to.mode, target)
            .and_then(|shown| is_what_was_asked_for(logged, target, found, shown))
            .map_err(|what| format!("up to {target:?}: {what}"))?;
        let (opening, selection) = self.begin_opening(found, shape);
        let mut options = opening.options.clone();
        (options.recovery_mode, options.recovery_target) = (to.mode, target);
        let asked = Asked { opening, options, selection };
        self.go_back_to(found, shown, shape, settled, (asked, to.accepts))
            .map_err(|what| format!("up to {target:?}: {what}"))
    }

    fn go_back_to(
        &mut self,
        found: &Found,
        shown: Option<Found>,
        shape: Shape,
        settled: bool,
        (asked, accepts): (Asked, bool),
    ) -> Checked {
        let before = self.frozen()?.content_fingerprint();
        let recovered = self.recover(&asked);
        let (pending, shown) = match (recovered, shown) {
            (Ok(pending), Some(shown)) => (pending, shown),
            (Err(WalError::InvalidArgument { .. }), None) => {
                self.nothing_has_changed(before)?;
                return self.open_found(found, shape, settled);
            }
            (Err(error), _) => return self.opening_failed(&error, shape),
            (Ok(pending), None) => return Err(format!("not refused: {}", pending.report())),
        };
        self.shows(&pending, &shown)?;
        self.nothing_has_changed(before)?;
        if accepts {
            return self.accept(pending, found, &shown, shape, &asked);
        }
        let leaves_out = !pending.losses().is_empty();
        drop(pending);
        if leaves_out {
            self.is_not_accepted(&asked)?;
        }
        self.nothing_has_changed(before)?;
        self.open_found(found, shape, settled)
    }

    fn recover(&self, asked: &Asked) -> Result<PendingRecovery, WalError> {
        Wal::recover(self.storage()?, asked.options.clone(), asked.selection)
    }

    fn nothing_has_changed(&self, before: u64) -> Checked {
        match self.frozen()?.content_fingerprint() == before {
            true => Ok(()),
            false => Err("promise 4: something changed, and nothing was accepted".to_owned()),
        }
    }

    /// A log that has to lose something is not opened before that is accepted.
    fn is_not_accepted(&self, asked: &Asked) -> Checked {
        let storage = self.storage().map_err(|error| error.to_string())?;
        match Wal::open(storage, asked.options.clone(), asked.selection) {
            Err(WalError::NotAccepted { .. }) => Ok(()),
            Err(error) if self.has_failed() => self.excuse(&error),
            Err(error) => Err(format!("opened without being accepted: {error}")),
            Ok(_) => Err("what nobody accepted was dropped".to_owned()),
        }
    }

    /// What is shown to whoever has to accept it is what recovery gave.
    fn shows(&self, pending: &PendingRecovery, shown: &Found) -> Checked {
        let (report, expected) = (pending.report(), &shown.log.report);
        if (&report.cores, &report.losses) != (&expected.cores, &expected.losses) {
            return Err(format!("recovery gave {expected}, a recovery to be accepted {report}"));
        }
        let mut left: usize = shown.cores.values().map(|core| core.timestamps_ns.len()).sum();
        match pending.recovery().for_each(|_| left = left.wrapping_sub(1)) {
            Ok(()) if left == 0 => Ok(()),
            Ok(()) => {
                Err(format!("of what is kept, {} entries too few are shown", left.cast_signed()))
            }
            Err(error) => self.excuse(&error),
        }
    }

    /// While a loss is being accepted, all cores are cut, or none.
    fn accept(
        &mut self,
        pending: PendingRecovery,
        found: &Found,
        shown: &Found,
        shape: Shape,
        asked: &Asked,
    ) -> Checked {
        let mut cut = cut_between(found, shown);
        let frozen = self.frozen()?;
        cut.dropped = Dropped::by(&cut, found, &frozen).map_err(|error| error.to_string())?;
        // A cut that was in doubt may have happened before.
        let mut cuts = Vec::new();
        if !cut.cores.is_empty() {
            cuts.extend(self.oracle.doubtful_cuts.iter().map(|doubtful| doubtful.and_then(&cut)));
            cuts.push(cut.clone());
        }
        let mut accepted = pending.accept();
        self.called(&cuts)?;
        if let Err(WalError::StorageFull { .. }) = accepted
            && self.disk_is_full
            && !self.has_failed()
        {
            self.is_as_it_was(found)?;
            self.machine.set_free_bytes(None);
            self.disk_is_full = false;
            accepted = self.recover(asked).and_then(PendingRecovery::accept);
            self.called(&cuts)?;
        }
        let (wal, recovery) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                self.oracle.doubtful_cuts.extend(cuts);
                return self.opening_failed(&error, shape);
            }
        };
        self.go_on_from(found);
        if !cut.cores.is_empty() {
            self.oracle.cut(&cut);
        }
        let cores = match asked.selection {
            CoreSelection::One(core) => vec![core],
            CoreSelection::First(count) => (0..count).collect(),
        };
        let (selection, epoch) = (asked.selection, wal.epoch());
        let opened = Opened { wal: Some(wal), writer: None, selection, cores, epoch, recovery };
        self.is_open(opened, &asked.opening, shown)?;
        self.is_opening = false;
        self.take_all_writers()
    }

    /// Without room for the copies nothing is lost.
    fn is_as_it_was(&self, found: &Found) -> Checked {
        let again = look(&self.frozen()?, &self.oracle, &[])?;
        if again.log.report.cores == found.log.report.cores {
            return Ok(());
        }
        let (found, again) = (&found.log.report, &again.log.report);
        Err(format!("promise 9: the disk was full; before: {found}\nand behind that: {again}"))
    }
}

/// Whether a recovery up to a target gives what was logged up to there, and names the rest. `None`
/// is one that was refused.
fn is_what_was_asked_for(
    logged: Logged<'_>,
    target: RecoveryTarget,
    found: &Found,
    shown: Option<Found>,
) -> Checked<Option<Found>> {
    let Some(shown) = shown else {
        return match logged.may_be_refused(target) {
            true => Ok(None),
            false => Err("refused, and lies below no checkpoint".to_owned()),
        };
    };
    let told = |what: String| format!("{what}\n{}", shown.log.report);
    if logged.must_be_refused(target) {
        return Err(told("promise 7: it lies below a checkpoint, and was not refused".to_owned()));
    }
    let expected = logged.kept(target);
    for (&core, oracle) in &logged.oracle.cores {
        let (Some(found), Some(shown)) = (found.cores.get(&core), shown.cores.get(&core)) else {
            continue;
        };
        let expected = expected.get(&core).copied().unwrap_or(0);
        if shown.entries != expected || shown.next_sequence != expected as u64 {
            return Err(told(format!(
                "core {core}: of {} entries {} are kept, and the next is {}; {expected} are up to it",
                found.entries, shown.entries, shown.next_sequence
            )));
        }
        if expected < found.entries {
            oracle.check_boundary(shown).map_err(|what| told(format!("{what}; core {core}")))?;
        } else if shown.position != found.position {
            return Err(told(format!("core {core}: nothing is left out, and it ends elsewhere")));
        }
    }
    let named = shown.log.report.losses.iter();
    let named = named.map(|loss| (loss.core, loss.position, loss.end_position));
    let cut = cut_between(found, &shown);
    let end_of = |core: &u16| found.cores.get(core).map_or(0, |core| core.position);
    let left_out = cut.cores.iter().map(|(core, to)| (*core, to.position, end_of(core)));
    if !named.eq(left_out) {
        return Err(told(format!("what is left out is {cut:?}, and that is not what it says")));
    }
    Ok(Some(shown))
}

/// What would be cut of what was found, for it to be what was shown.
fn cut_between(found: &Found, shown: &Found) -> Cut {
    let shorter = shown.cores.iter().filter(|(core, shown)| {
        found.cores.get(core).is_some_and(|found| shown.entries < found.entries)
    });
    let places = shorter
        .map(|(&core, shown)| (core, Acked { entries: shown.entries, position: shown.position }));
    Cut::of(places.collect())
}
