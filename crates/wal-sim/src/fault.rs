//! Faults: operations that fail, and how much of them is done all the same.

use std::ops::Range;
use std::time::Duration;

use crate::random::Random;

/// What a program may ask of the disk, for counting and for choosing what fails.
///
/// Asking for the size of an open file, for free space, for the lock and for random bytes is not
/// counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// Opening an existing file.
    Open,
    /// Reading from a file.
    Read,
    /// Listing a directory.
    List,
    /// Making a file of written zeroes.
    Create,
    /// Making a file whose space is only set aside.
    CreateReserved,
    /// Making a directory.
    CreateDirectory,
    /// Writing to a file; each request of a joint write counts on its own.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDirectory,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
}

impl OperationKind {
    /// Every kind there is.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Read,
        Self::List,
        Self::Create,
        Self::CreateReserved,
        Self::CreateDirectory,
        Self::Write,
        Self::Sync,
        Self::SyncDirectory,
        Self::Rename,
        Self::Remove,
    ];

    /// Whether such an operation can change what the disk holds. A crash just before one that
    /// cannot leaves the same states as a crash just after it.
    #[must_use]
    pub const fn is_change(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List)
    }

    /// Whether a full disk is [`StorageFull`](wal_storage::WalError::StorageFull): nothing was
    /// accepted. A sync that finds the disk full may have lost what was accepted long ago, so
    /// there it is an error of the device.
    pub(crate) const fn takes_space(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::CreateReserved
                | Self::CreateDirectory
                | Self::Write
                | Self::Rename
        )
    }

    /// The word that error messages use.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "opening",
            Self::Read => "reading",
            Self::List => "listing",
            Self::Create | Self::CreateReserved => "creating",
            Self::CreateDirectory => "making the directory",
            Self::Write => "writing",
            Self::Sync => "syncing",
            Self::SyncDirectory => "syncing the directory",
            Self::Rename => "renaming",
            Self::Remove => "removing",
        }
    }
}

/// An operation as [`SimStorage::take_trace`](crate::SimStorage::take_trace) tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Counted from 0 over the life of the storage.
    pub number: u64,
    /// What was asked.
    pub kind: OperationKind,
    /// The file or directory; of a rename the old name.
    pub name: String,
    /// Where a read or write began and where it was to end; the size of a new file.
    pub range: Range<u64>,
    /// Whether it was a write that had to be durable when it returned.
    pub through: bool,
}

/// A fault to come: which operation fails, with what error, and what is left of it.
///
/// ```
/// use wal_sim::{Fault, OperationKind, SimStorage};
///
/// let storage = SimStorage::new(1);
/// storage.inject(Fault::on(OperationKind::Sync).nth(2)); // the third sync from now fails, once
/// storage.inject(Fault::on(OperationKind::Write).named("core-0001/").sticky().storage_full());
/// ```
///
/// Unless told otherwise a fault is an input/output error of the very next operation, once. What
/// is done of the failed operation depends on its kind: of a write a random part; of a sync
/// nothing, and what it was to make durable is lost for good; of all others nothing.
#[derive(Debug, Clone)]
#[must_use = "a fault does nothing until `SimStorage::inject` gets it"]
pub struct Fault {
    matching: Matching,
    prefix: String,
    countdown: u64,
    sticky: bool,
    spent: bool,
    cause: Cause,
    part: Option<Part>,
    /// The operation takes so long instead of failing.
    delay: Option<Duration>,
}

impl Fault {
    /// A fault of an operation of this kind.
    pub const fn on(kind: OperationKind) -> Self {
        Self::matching(Matching::Kind(kind))
    }

    /// A fault of an operation of whatever kind.
    pub const fn on_any() -> Self {
        Self::matching(Matching::Any)
    }

    /// A fault of an operation that [changes something](OperationKind::is_change).
    pub const fn on_any_change() -> Self {
        Self::matching(Matching::Change)
    }

    /// Lets `skipped` fitting operations pass and fails the next: 0 is the next one from now.
    pub const fn nth(mut self, skipped: u64) -> Self {
        self.countdown = skipped;
        self
    }

    /// Fails every fitting operation from the first one on, not just one.
    pub const fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }

    /// Counts and fails only operations on names that begin with `prefix`. A file goes by the
    /// name that it has at the time, also if it was opened under another.
    pub fn named(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// The error is "no space left" instead of "input/output error":
    /// [`StorageFull`](wal_storage::WalError::StorageFull) from whatever takes space, elsewhere
    /// an [`Io`](wal_storage::WalError::Io) error that says so.
    pub const fn storage_full(mut self) -> Self {
        self.cause = Cause::StorageFull;
        self
    }

    /// How much of the failed operation is done all the same.
    pub const fn done(mut self, part: Part) -> Self {
        self.part = Some(part);
        self
    }

    /// The operation does not fail: it takes `time`, on both clocks of the machine. It may still
    /// fail from another fault, after that time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wal_sim::{Fault, OperationKind, SimStorage};
    ///
    /// let storage = SimStorage::new(1);
    /// storage.inject(Fault::on(OperationKind::Sync).sticky().slow(Duration::from_millis(20)));
    /// ```
    pub const fn slow(mut self, time: Duration) -> Self {
        self.delay = Some(time);
        self
    }

    const fn matching(matching: Matching) -> Self {
        Self {
            matching,
            prefix: String::new(),
            countdown: 0,
            sticky: false,
            spent: false,
            cause: Cause::Io,
            part: None,
            delay: None,
        }
    }
}

/// How much of a failed operation is done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nothing at all. A sync loses for good what it was to make durable.
    Nothing,
    /// A write: its first sectors, as many as the seed says (a short write). A sync: the older
    /// writes or changes. Anything else: all or nothing, by the seed.
    Prefix,
    /// Any sectors of a write, any writes or changes of a sync; anything else all or nothing.
    Random,
    /// All of it, and the error is wrong.
    Everything,
}

impl Part {
    /// Which bytes of `range` are written. Sectors are the unit, as a disk has it.
    pub(crate) fn of_range(self, range: Range<u64>, random: &mut Random) -> Vec<Range<u64>> {
        const SECTOR_BYTES: u64 = 512;
        let percent = random.pick([10, 50, 90]);
        match self {
            Self::Nothing => Vec::new(),
            Self::Everything => vec![range],
            Self::Prefix => {
                let first = range.start / SECTOR_BYTES;
                let sectors = random.below(range.end.div_ceil(SECTOR_BYTES) - first + 1);
                let end = ((first + sectors) * SECTOR_BYTES).clamp(range.start, range.end);
                std::iter::once(range.start..end).collect()
            }
            Self::Random => {
                let mut parts: Vec<Range<u64>> = Vec::new();
                let mut at = range.start;
                while at < range.end {
                    let end = (at + 1).next_multiple_of(SECTOR_BYTES).min(range.end);
                    if random.chance(percent) {
                        match parts.last_mut() {
                            Some(last) if last.end == at => last.end = end,
                            _ => parts.push(at..end),
                        }
                    }
                    at = end;
                }
                parts
            }
        }
    }

    /// Whether something that cannot be divided is done.
    pub(crate) const fn is_done(self, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Prefix | Self::Random => random.coin(),
        }
    }

    /// Which of `count` things in a row are done.
    pub(crate) fn of_many(self, count: usize, random: &mut Random) -> Vec<bool> {
        let prefix = random.index(count + 1);
        let is_done = |index| match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Prefix => index < prefix,
            Self::Random => random.coin(),
        };
        (0..count).map(is_done).collect()
    }
}

/// All faults to come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    waiting: Vec<Fault>,
    pub(crate) hits: u64,
}

/// What is to become of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    Fail { cause: Cause, part: Part },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Io,
    StorageFull,
    /// The machine stopped. What the operation has not done stays as it was.
    Halted,
}

#[derive(Debug, Clone, Copy)]
enum Matching {
    Any,
    Change,
    Kind(OperationKind),
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Counts the operation for every fault that it fits, and fails it for the first that is due;
    /// also says how long it takes.
    pub(crate) fn judge(&mut self, kind: OperationKind, names: [&str; 2]) -> (Verdict, Duration) {
        let mut verdict = Verdict::Proceed;
        let mut takes = Duration::ZERO;
        for fault in &mut self.waiting {
            let fits = match fault.matching {
                Matching::Any => true,
                Matching::Change => kind.is_change(),
                Matching::Kind(wanted) => kind == wanted,
            };
            if !fits || !names.iter().any(|name| name.starts_with(&fault.prefix)) {
                continue;
            }
            if fault.countdown > 0 {
                fault.countdown -= 1;
            } else if let Some(delay) = fault.delay {
                fault.spent = !fault.sticky;
                takes = takes.saturating_add(delay);
            } else if verdict == Verdict::Proceed {
                fault.spent = !fault.sticky;
                let usual = if kind == OperationKind::Write { Part::Random } else { Part::Nothing };
                let part = fault.part.unwrap_or(usual);
                verdict = Verdict::Fail { cause: fault.cause, part };
            }
        }
        self.waiting.retain(|fault| !fault.spent);
        self.hits += u64::from(verdict != Verdict::Proceed);
        (verdict, takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_within_the_range_and_break_at_sectors() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let range = random.below(3000)..3000 + random.below(9000);
            for part in [Part::Nothing, Part::Prefix, Part::Random, Part::Everything] {
                let mut last = range.start;
                for piece in part.of_range(range.clone(), &mut random) {
                    assert!(last <= piece.start && piece.start <= piece.end, "seed {seed}");
                    for edge in [piece.start, piece.end] {
                        let at_sector = edge % 512 == 0 || edge == range.start || edge == range.end;
                        assert!(at_sector && edge <= range.end, "seed {seed}");
                    }
                    last = piece.end;
                }
            }
        }
    }

    #[test]
    fn a_fault_counts_only_operations_that_fit() {
        let mut faults = Faults::default();
        faults.add(Fault::on(OperationKind::Sync).named("b").nth(1));
        let mut judge = |kind, name| faults.judge(kind, [name, name]).0 != Verdict::Proceed;
        assert!(!judge(OperationKind::Sync, "b"));
        assert!(!judge(OperationKind::Sync, "a"));
        assert!(!judge(OperationKind::Write, "b"));
        assert!(judge(OperationKind::Sync, "bb"));
        assert!(!judge(OperationKind::Sync, "b"), "one fault fails one operation");
    }
}
