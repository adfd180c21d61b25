//! One damage, and the recoveries that go on in spite of it: what they give, what they say is lost,
//! and what is there once that was accepted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use wal_entry::ReplayOrder;
use wal_recovery::{RecoveredLog, RecoveryMode, RecoveryTarget, recover, recover_to};
use wal_sim::SimStorage;
use wal_storage::{Storage, WalError};
use wal_writer::Wal;

use crate::Checked;
use crate::look::{Found, changed_nothing};
use crate::oracle::Oracle;
use crate::workload::{Shape, draw_shape};

pub(super) const MODES: [RecoveryMode; 2] = [RecoveryMode::PointInTime, RecoveryMode::Salvage];

/// One in so many is accepted, or opened, and gone on with.
const ACCEPTED_ONE_IN: u64 = 8;

/// What was there before the damage.
pub(super) struct Before<'a> {
    oracle: &'a Oracle,
    found: &'a Found,
    shape: Shape,
    /// All entries behind the checkpoint.
    entries: Vec<Entry>,
}

/// An entry that was there.
struct Entry {
    order: ReplayOrder,
    /// Where the last entry of its atomic batch stands: there it counts as logged.
    logged: ReplayOrder,
}

/// A damaged log.
pub(super) struct Case<'a> {
    pub(super) machine: &'a SimStorage,
    pub(super) number: u64,
    /// Cores of which a file was damaged.
    pub(super) cores: Vec<u16>,
    /// What an opening makes of it that leaves nothing out: it does not look below the checkpoint.
    pub(super) usual: Option<&'a RecoveredLog>,
    /// Whether verifying finds nothing wrong.
    pub(super) is_sound: bool,
}

/// How often recoveries in one mode did what.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ModeTally {
    as_usual: u64,
    left_out: u64,
    errors: u64,
    accepted: u64,
}

impl<'a> Before<'a> {
    pub(super) fn new(oracle: &'a Oracle, found: &'a Found, shape: Shape) -> Self {
        let mut entries = Vec::new();
        for (&core_id, recovered) in &found.cores {
            let Some(core) = oracle.cores.get(&core_id) else { continue };
            let order_of = |index: usize| {
                let timestamp_ns = *recovered.timestamps_ns.get(index - recovered.first)?;
                let epoch = core.entries.get(index)?.epoch;
                Some(ReplayOrder { epoch, timestamp_ns, core_id, sequence: index as u64 })
            };
            entries.extend((recovered.first..recovered.entries).filter_map(|index| {
                let logged = order_of(core.boundary_behind(index)?.entries - 1)?;
                Some(Entry { order: order_of(index)?, logged })
            }));
        }
        Self { oracle, found, shape, entries }
    }

    /// Recovers a damaged log in one of the [`MODES`], and now and then accepts what is left.
    pub(super) fn leave_out(
        &self,
        case: &Case<'_>,
        mode: RecoveryMode,
        tally: &mut ModeTally,
    ) -> Checked {
        let storage: Arc<dyn Storage> = Arc::new(case.machine.clone());
        let recovered = recover_to(&storage, mode, RecoveryTarget::End);
        changed_nothing(case.machine)?;
        let log = match recovered {
            Ok(log) => log,
            Err(error) if case.usual.is_none() && self.is_due(&error) => {
                tally.errors += 1;
                return Ok(());
            }
            Err(error) => return Err(format!("it could have been left out: {error}")),
        };
        let told = |what: String| format!("{what}\n{}", log.report);
        if case.is_sound {
            // What is as usual was compared, as what is usual, and has nothing to be accepted.
            tally.as_usual += 1;
            return match case.usual {
                Some(usual) if *usual == log => Ok(()),
                usual => Err(told(format!("usually it is {:?}", usual.map(|it| &it.report)))),
            };
        }
        tally.left_out += 1;
        let kept = self.check(case, mode, &storage, &log).map_err(told)?;
        if let Some(usual) = case.usual
            && replayed(&storage, usual)? != kept
        {
            let what = "promise 3: an opening passes over damage behind the checkpoint";
            return Err(told(what.to_owned()));
        }
        if is_turn_of(mode, case) {
            self.accept(case, mode, &log, &kept).map_err(told)?;
            tally.accepted += 1;
        }
        Ok(())
    }

    /// Opens a damaged log in which an opening finds nothing wrong, now and then, and goes on with it:
    /// what one opening passes over, no later one may be stopped by.
    pub(super) fn go_on(&self, case: &Case<'_>) -> Checked<bool> {
        let mode = RecoveryMode::TornTail;
        let Some(usual) = case.usual.filter(|_| is_turn_of(mode, case)) else {
            return Ok(false);
        };
        let storage: Arc<dyn Storage> = Arc::new(case.machine.clone());
        let gone_on = replayed(&storage, usual)
            .and_then(|kept| self.accept(case, mode, usual, &kept))
            .map_err(|what| format!("{what}\n{}", usual.report));
        gone_on.map(|()| true)
    }

    /// What nobody can leave out: that it is not a core's log that is damaged, or that what
    /// was released is damaged, and the checkpoint is gone in which it was.
    fn is_due(&self, error: &WalError) -> bool {
        match error {
            WalError::ManifestLost { .. }
            | WalError::ForeignLog { .. }
            | WalError::UnsupportedVersion { .. }
            | WalError::NotALog { .. } => true,
            WalError::Corrupt(corruption) => {
                let Some(core) = corruption.core else { return true };
                let Some(manifest) = &self.found.log.manifest else { return false };
                let mut released = manifest.releases.iter().filter(|release| release.core == core);
                manifest.checkpoint.is_none() && released.next().is_some()
            }
            _ => false,
        }
    }

    /// Compares what is left with what was there, and returns it.
    fn check(
        &self,
        case: &Case<'_>,
        mode: RecoveryMode,
        storage: &Arc<dyn Storage>,
        log: &RecoveredLog,
    ) -> Checked<Vec<ReplayOrder>> {
        if log.report.losses.is_empty() {
            return Err("something is damaged, and nothing is said to be left out".to_owned());
        }
        let kept = self.kept(mode, storage, log)?;
        let last = kept.last();
        let is_kept = |entry: &&Entry| kept.binary_search(&entry.order).is_ok();
        for Entry { order: missing, logged } in self.entries.iter().filter(|it| !is_kept(it)) {
            let core = missing.core_id;
            let is_acked = self
                .oracle
                .cores
                .get(&core)
                .is_some_and(|core| missing.sequence < core.acked_entries() as u64);
            let is_named = log.report.losses.iter().any(|loss| loss.core == core);
            let is_tail = log.report.core(core).is_some_and(|it| it.ending.is_unproven());
            if is_acked && !is_named && !is_tail {
                return Err(format!("promise 3: {missing:?} is gone, and nobody says so"));
            }
            if mode == RecoveryMode::Salvage && !case.cores.contains(&core) {
                return Err(format!("{missing:?} is gone, of a core that is not damaged"));
            }
            if mode == RecoveryMode::PointInTime && is_named && last.is_some_and(|it| logged < it) {
                return Err(format!("{missing:?} is gone, and a later one is not: {last:?}"));
            }
        }
        Ok(kept)
    }

    /// What is left: of each core whatever was appended, in order, and without gaps unless it was
    /// salvaged.
    fn kept(
        &self,
        mode: RecoveryMode,
        storage: &Arc<dyn Storage>,
        log: &RecoveredLog,
    ) -> Checked<Vec<ReplayOrder>> {
        let mut wrong = None;
        let mut next: BTreeMap<u16, u64> = BTreeMap::new();
        let kept = visit(storage, log, |entry| {
            let index = usize::try_from(entry.sequence()).unwrap_or(usize::MAX);
            if let Err(what) = self.oracle.check_entry(index, entry) {
                wrong.get_or_insert(what);
            }
            let next = next.entry(entry.core_id()).or_insert_with(|| entry.sequence());
            let is_next = match mode {
                RecoveryMode::Salvage => entry.sequence() >= *next,
                _ => entry.sequence() == *next,
            };
            if !is_next {
                wrong.get_or_insert_with(|| format!("{entry:?} comes where {next} should"));
            }
            *next = entry.sequence() + 1;
        })?;
        match wrong {
            Some(what) => Err(what),
            None if kept.is_sorted() => Ok(kept),
            None => Err("promise 6: it is not replayed in order".to_owned()),
        }
    }

    /// What is there once the loss was accepted, or once a log without one was opened, is what was
    /// shown, and what was appended then.
    fn accept(
        &self,
        case: &Case<'_>,
        mode: RecoveryMode,
        log: &RecoveredLog,
        kept: &[ReplayOrder],
    ) -> Checked {
        let machine = case.machine.fork();
        // There has to be room for the copies.
        machine.set_free_bytes(None);
        let opening = draw_shape(self.shape);
        let manifest = self.found.log.manifest.as_ref();
        let selection = opening.selection(manifest.and_then(|it| it.members.last()).copied());
        let mut options = opening.options;
        options.recovery_mode = mode;
        let pending = Wal::recover(Arc::new(machine.clone()), options, selection)
            .map_err(|error| format!("recovered to be accepted: {error}"))?;
        if *pending.report() != log.report {
            return Err(format!("what is shown is {}", pending.report()));
        }
        let (wal, recovery) = pending.accept().map_err(|error| format!("accepting: {error}"))?;
        drop(recovery);
        let put_on_each = || {
            let mut writers = wal.writers()?;
            for writer in writers.iter_mut() {
                writer.append_put(b"behind", b"")?;
            }
            writers.sync()
        };
        let turn = case.number / ACCEPTED_ONE_IN;
        let (appends, closes) = (!turn.is_multiple_of(3), turn.is_multiple_of(2));
        let mut appended = 0;
        if appends {
            put_on_each().map_err(|error| format!("going on: {error}"))?;
            appended = wal.core_count() as usize;
        }
        if closes {
            wal.close().map_err(|error| format!("closing: {error}"))?;
        }
        let storage: Arc<dyn Storage> = Arc::new(machine.kill());
        machine.halt();
        let log = recover(&storage, RecoveryMode::TornTail)
            .map_err(|error| format!("accepted, and not whole: {error}"))?;
        let there = replayed(&storage, &log)?;
        let left = there.iter().filter(|order| kept.binary_search(order).is_ok());
        // A core alone goes on with the highest epoch, among what others have left.
        match left.eq(kept) && there.len() == kept.len() + appended {
            true => Ok(()),
            false => Err(format!("accepted was something else: {}", log.report)),
        }
    }
}

const fn is_turn_of(mode: RecoveryMode, case: &Case<'_>) -> bool {
    case.number % ACCEPTED_ONE_IN == mode as u64 % ACCEPTED_ONE_IN
}

fn replayed(storage: &Arc<dyn Storage>, log: &RecoveredLog) -> Checked<Vec<ReplayOrder>> {
    visit(storage, log, |_| {})
}

fn visit(
    storage: &Arc<dyn Storage>,
    log: &RecoveredLog,
    mut look: impl FnMut(&wal_entry::EntryView<'_>),
) -> Checked<Vec<ReplayOrder>> {
    let mut order = Vec::new();
    let visited = log.replay(storage).for_each(|entry| {
        look(&entry);
        order.push(entry.replay_order());
    });
    visited.map(|()| order).map_err(|error| format!("replaying failed: {error}"))
}

impl ModeTally {
    pub(super) const fn add(&mut self, other: Self) {
        self.as_usual += other.as_usual;
        self.left_out += other.left_out;
        self.errors += other.errors;
        self.accepted += other.accepted;
    }
}

impl fmt::Display for ModeTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { as_usual, left_out, errors, accepted } = self;
        write!(
            f,
            "{as_usual} as usual, {left_out} left something out, {errors} errors; {accepted} accepted \
             and opened again"
        )
    }
}
