//! Power loss: which states a disk may be in afterwards.
//!
//! # The model
//!
//! At every moment each file has *durable* bytes and a size, and a list of *pending* writes; each
//! directory has durable names, and a list of pending changes. Power loss keeps what is durable
//! and decides about what is pending. There are two models of how it does so: [`Model::Posix`],
//! which is used unless a plan says otherwise, and [`Model::Linux`].
//!
//! # POSIX
//!
//! Each pending thing is decided about by itself. What a program may rely on is exactly what
//! [`Storage`](wal_storage::Storage) and [`StorageFile`](wal_storage::StorageFile) promise; a
//! state that they do not exclude may come, also where common file systems are kinder.
//!
//! **Bytes.** A pending write is lost or kept sector by sector, with sectors of 512 or of 4096
//! bytes, or torn between any two bytes (see [`Granularity`]): each byte is then the old one or a
//! new one. Which writes of a file survive has nothing to do with their order, nor with the other
//! files. Where kept writes overlap, the later one wins; the earlier one alone is reached by
//! losing the later. A write through ([`WriteSync::Through`](wal_storage::WriteSync::Through)) is
//! durable in its own range and takes along neither earlier writes nor their sizes, except that
//! the file is as long as it needs.
//!
//! **Sizes.** The size is kept apart from the bytes. A file may come back as long as it was
//! written, or only so long as it was at any moment since it was last synced, or anything in
//! between; bytes that did not survive below that read as zeroes. With [`CrashPlan::garbage`],
//! space that was never durably written may hold noise, or old bytes of another file, also of one
//! that is gone for good; space that was zeroed and synced never does.
//!
//! **Names.** Each pending creation, removal and new directory is there or not, independent of
//! the others and of the file's bytes: a name may come back without its bytes, and bytes whose
//! name was not durable are gone. What lies in a directory is gone with the directory's name. A
//! pending rename has three outcomes: it did not happen; it did; or the new name is there and the
//! old one too, both for the same file (exclude this one with [`CrashPlan::whole_renames`]).
//! The new name stands for the old file or the new one and is never absent if it was there, and
//! the renamed file does not lose both its names. Two exceptions follow from the independence:
//! where one rename frees a name and the next takes it, only the second may have happened; and
//! between two directories, syncing that of the old name alone makes the loss of the old name
//! certain and that of the new name no less possible.
//!
//! **After a failed sync** the bytes that it did not get to the disk are lost for any power loss
//! to come, whatever later syncs say, until they are written again. The process, and a process
//! that starts after a [kill](crate::SimStorage::kill), go on reading them.
//!
//! # Linux
//!
//! What ext4 (with `data=ordered`, its default) and XFS keep beyond that, because they have a
//! journal. Every state is one of the POSIX model too, so a program that withstands that one
//! withstands this one. What fails under POSIX alone is a fault all the same, of which these two
//! file systems show nothing today: this model says which case is in hand.
//!
//! **Bytes** are lost and kept as above, but no sector is torn.
//!
//! **Sizes.** A file is as long as its surviving bytes need and never longer, for it becomes longer
//! only behind its bytes. [`CrashPlan::garbage`] is still there to be asked for; with
//! `data=writeback` one would see it.
//!
//! **Names.** Changes of names, in whatever directories, survive in the order in which they were
//! made: some first ones did, the rest did not. A rename is whole. A sync of a directory takes
//! along every change that was made, anywhere, before the newest one in that directory. A sync of
//! a file, or a write through, does the same for every change before the file was made or last
//! became longer; thus a new file that was synced has its name. If the file only was written
//! over, nothing is taken along.
//!
//! # Styles
//!
//! Were every sector to flip its own coin, some states would never be seen: long runs of kept
//! writes, one lost file among whole ones. So [`CrashPlan::random`] first draws a style: all
//! pending things by themselves, with a chance to survive of 0, 10, 50, 90 or 100 percent for
//! each file; or everything up to one moment kept and everything after it lost, as on a disk that
//! keeps the order; or the other way round. The one write at that moment is torn. Sizes are
//! always drawn by themselves, the newest one half of the time.
//!
//! # What is not modelled
//!
//! - Write-back of the whole page around a small buffered write: bytes beside it are not made
//!   durable with it, nor are dropped ones written again.
//! - Reads that run beside a write on another thread: every operation is whole for its readers.
//! - A disk that loses what it said is durable, or puts it elsewhere: that is
//!   [damage](crate::SimStorage::flip_bit), which the test does by hand.
//! - Space that a removed file gives back is never seen under another name before the removal is
//!   durable.

use std::ops::Range;
use std::sync::Arc;

use crate::content::{BLOCK_BYTES, Block, Content, blocks_of};
use crate::disk::{DirectoryId, Disk, File, FileId, PendingWrite, Piece};
use crate::names::{Change, Directory, Entry, NameChange};
use crate::random::{Random, mix};

/// What becomes of everything that is not durable when the power fails.
///
/// The same plan at the same moment gives the same state, byte for byte. Which states there are
/// is told in [`crash`](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a plan does nothing until `SimStorage::crash` gets it"]
pub struct CrashPlan {
    fate: Fate,
    model: Model,
    granularity: Option<Granularity>,
    garbage: bool,
    whole_renames: bool,
}

/// How much of what a file system is free to do it does. The clauses are in [`crash`](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Model {
    /// Everything that POSIX, read strictly, does not exclude: what a program should be ready for.
    #[default]
    Posix,
    /// What ext4 and XFS with their usual options do: fewer states, all of which `Posix` has too.
    Linux,
}

/// The smallest thing of which power loss leaves the old or the new state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Sectors of 512 bytes.
    Sector512,
    /// Blocks of 4096 bytes.
    Block4096,
    /// Single bytes: of a torn block each one is old or new, in long runs or in any mixture.
    Byte,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fate {
    Lost,
    Kept,
    Random(u64),
}

impl CrashPlan {
    /// Nothing survives but what is durable: the worst that a program which syncs correctly need
    /// fear, though not always the state that is hardest to recover from.
    pub const fn lose_everything_unsynced() -> Self {
        Self::with_fate(Fate::Lost)
    }

    /// Everything survives but what a failed sync dropped: power loss with all caches just
    /// written out.
    pub const fn keep_everything() -> Self {
        Self::with_fate(Fate::Kept)
    }

    /// Each pending thing survives or not, as `seed` says.
    pub const fn random(seed: u64) -> Self {
        Self::with_fate(Fate::Random(seed))
    }

    /// Leaves only states that this model allows. It is [`Model::Posix`] unless told otherwise.
    pub const fn model(mut self, model: Model) -> Self {
        self.model = model;
        self
    }

    /// Tears writes at this granularity; without it the seed chooses one for each file, of those
    /// that the model knows.
    pub const fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = Some(granularity);
        self
    }

    /// Lost bytes in space that was never durably written may come back as noise or as bytes of
    /// other files, instead of zeroes. Some file systems do that, the common ones do not.
    pub const fn garbage(mut self) -> Self {
        self.garbage = true;
        self
    }

    /// A rename happened or it did not; the file never has both names.
    pub const fn whole_renames(mut self) -> Self {
        self.whole_renames = true;
        self
    }

    /// For telling apart the lives that begin after different crashes.
    pub(crate) fn fingerprint(&self) -> u64 {
        match self.fate {
            Fate::Lost => 1,
            Fate::Kept => 2,
            Fate::Random(seed) => mix(3, seed),
        }
    }

    const fn with_fate(fate: Fate) -> Self {
        Self { fate, model: Model::Posix, granularity: None, garbage: false, whole_renames: false }
    }
}

impl Disk {
    /// The disk as power loss at this moment leaves it.
    pub(crate) fn crash(&self, plan: CrashPlan) -> Self {
        let lot = Lot::draw(plan, self);
        let mut after = self.clone();
        for (id, file) in &self.files {
            after.files.insert(*id, Arc::new(file_after(*id, file, self, lot)));
        }
        for (id, directory) in &self.directories {
            after.directories.insert(*id, Arc::new(directory_after(*id, directory, lot)));
        }
        after.collect(|_| false);
        for (name, entry) in after.all_names() {
            // A rename that was lost gives the file its old name back.
            if let Entry::File(id) = entry
                && let Some(file) = after.file_mut(id)
            {
                file.name = name.into();
            }
        }
        after
    }

    fn pending_stamps(&self) -> impl Iterator<Item = u64> {
        let writes = self.files.values().flat_map(|file| &file.pending).map(|write| write.stamp);
        let changes = self.directories.values().flat_map(|directory| &directory.pending);
        writes.chain(changes.map(|change| change.stamp))
    }
}

/// A plan with what was drawn for the disk as a whole.
#[derive(Debug, Clone, Copy)]
struct Lot {
    plan: CrashPlan,
    seed: u64,
    style: Style,
    /// Under [`Model::Linux`]: the first change of names that did not reach the journal.
    journal_end: u64,
}

#[derive(Debug, Clone, Copy)]
enum Style {
    /// Each pending thing by itself.
    Independent,
    /// What is older than this stamp survives.
    KeepsOlder(u64),
    /// What is newer than this stamp survives.
    KeepsNewer(u64),
}

/// The moment up to which a journal that keeps the order reached the disk.
fn journal_end(disk: &Disk, style: Style, random: &mut Random) -> u64 {
    let synced = disk.journaled + 1;
    let changes = disk.directories.values().flat_map(|directory| &directory.pending);
    let mut ends: Vec<u64> =
        changes.map(|change| change.stamp).filter(|stamp| *stamp >= synced).collect();
    ends.sort_unstable();
    ends.dedup();
    ends.push(u64::MAX);
    let drawn = ends[random.index(ends.len())];
    match style {
        Style::KeepsOlder(moment) => moment.max(synced),
        Style::KeepsNewer(_) | Style::Independent => drawn,
    }
}

/// What becomes of one pending thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Survival {
    Lost,
    Whole,
    /// This many in a hundred parts survive.
    Torn(u64),
}

impl Lot {
    fn draw(plan: CrashPlan, disk: &Disk) -> Self {
        let Fate::Random(seed) = plan.fate else {
            let journal_end = if plan.fate == Fate::Lost { disk.journaled + 1 } else { u64::MAX };
            return Self { plan, seed: 0, style: Style::Independent, journal_end };
        };
        let mut random = Random::stream(seed, 0);
        let mut stamps: Vec<u64> = disk.pending_stamps().collect();
        stamps.sort_unstable();
        let moment = if stamps.is_empty() { 0 } else { stamps[random.index(stamps.len())] };
        let style = match random.below(4) {
            0 => Style::KeepsOlder(moment),
            1 => Style::KeepsNewer(moment),
            _ => Style::Independent,
        };
        let journal_end = journal_end(disk, style, &mut random);
        Self { plan, seed, style, journal_end }
    }

    /// `percent` is the chance of things that are judged by themselves.
    fn survival(self, stamp: u64, percent: u64, random: &mut Random) -> Survival {
        let of_order = |is_kept: bool, moment: u64| match (stamp == moment, is_kept) {
            (true, _) => Survival::Torn(50),
            (_, true) => Survival::Whole,
            (_, false) => Survival::Lost,
        };
        match (self.plan.fate, self.style) {
            (Fate::Lost, _) => Survival::Lost,
            (Fate::Kept, _) => Survival::Whole,
            (Fate::Random(_), Style::KeepsOlder(moment)) => of_order(stamp < moment, moment),
            (Fate::Random(_), Style::KeepsNewer(moment)) => of_order(stamp > moment, moment),
            (Fate::Random(_), Style::Independent) => match (percent, random.coin()) {
                (0, _) => Survival::Lost,
                (100, _) => Survival::Whole,
                (percent, true) => Survival::Torn(percent),
                (percent, false) if random.chance(percent) => Survival::Whole,
                _ => Survival::Lost,
            },
        }
    }
}

fn file_after(id: FileId, file: &File, disk: &Disk, lot: Lot) -> File {
    if file.pending.is_empty() && file.pending_sizes.is_empty() {
        let view = file.durable.clone();
        return File { name: file.name.clone(), durable: view.clone(), view, ..File::default() };
    }
    let mut random = Random::stream(lot.seed, mix(1, id.0));
    let granularity = lot.plan.granularity.unwrap_or_else(|| {
        match random.pick([Granularity::Sector512, Granularity::Block4096, Granularity::Byte]) {
            Granularity::Byte if lot.plan.model == Model::Linux => Granularity::Sector512,
            granularity => granularity,
        }
    });
    let percent = random.pick([0, 10, 50, 90, 100]);

    let mut content = file.durable.clone();
    content.grow_to(file.view.size_bytes());
    let mut endangered: Vec<Range<u64>> = Vec::new();
    let mut needed_bytes = file.durable.size_bytes();
    let mut keep = |piece: &Piece, content: &mut Content| {
        needed_bytes = needed_bytes.max(piece.range.end);
        piece.apply(content);
    };
    for PendingWrite { stamp, pieces } in &file.pending {
        let survival = lot.survival(*stamp, percent, &mut random);
        if survival != Survival::Whole {
            endangered.extend(pieces.iter().map(|piece| piece.range.clone()));
        }
        match survival {
            Survival::Whole => pieces.iter().for_each(|piece| keep(piece, &mut content)),
            Survival::Lost => {}
            Survival::Torn(percent) => {
                for piece in pieces {
                    for kept in tear(piece, granularity, percent, &mut random) {
                        keep(&kept, &mut content);
                    }
                }
            }
        }
    }
    content.set_size(match lot.plan.model {
        Model::Posix => size_after(file, lot, &mut random),
        Model::Linux => needed_bytes,
    });
    if lot.plan.garbage {
        for range in endangered {
            fill_with_garbage(&mut content, range, disk, &mut random);
        }
    }
    File { name: file.name.clone(), durable: content.clone(), view: content, ..File::default() }
}

/// The parts of a piece that survive.
fn tear(piece: &Piece, granularity: Granularity, percent: u64, random: &mut Random) -> Vec<Piece> {
    let Range { start, end } = piece.range;
    if piece.block.is_none() {
        // A run of zeroes may be very long, and one gap in it is as telling as many.
        return piece.cut(start..start + random.below(end - start + 1)).into_iter().collect();
    }
    let unit = match granularity {
        Granularity::Sector512 => 512,
        Granularity::Block4096 => BLOCK_BYTES as u64,
        Granularity::Byte => match random.below(3) {
            0 => 1,
            // One break in the middle of the block, as when the power fails while it is written.
            1 => {
                return piece
                    .cut(start..start + random.below(end - start + 1))
                    .into_iter()
                    .collect();
            }
            _ => {
                return piece.cut(start + random.below(end - start + 1)..end).into_iter().collect();
            }
        },
    };
    let mut kept = Vec::new();
    let mut at = start;
    while at < end {
        let next = (at + 1).next_multiple_of(unit).min(end);
        if random.chance(percent) {
            kept.extend(piece.cut(at..next));
        }
        at = next;
    }
    kept
}

/// One of the sizes that the file had since it was last synced, or one in between.
fn size_after(file: &File, lot: Lot, random: &mut Random) -> u64 {
    let newest = file.pending_sizes.last().copied().unwrap_or(0).max(file.durable.size_bytes());
    match lot.plan.fate {
        Fate::Lost => file.durable.size_bytes(),
        Fate::Kept => newest,
        Fate::Random(_) if random.coin() => newest,
        Fate::Random(_) => {
            let step = random.index(file.pending_sizes.len() + 1);
            let below = match step {
                0 => file.durable.size_bytes(),
                step => file.pending_sizes[step - 1],
            };
            let above = file.pending_sizes.get(step).copied().unwrap_or(below);
            let between = (below + random.below(above - below + 1)) / 512 * 512;
            if random.coin() { below } else { between.max(below) }
        }
    }
}

/// Lets some of the blocks that were written in vain, and never before, show what the disk held
/// there.
fn fill_with_garbage(content: &mut Content, range: Range<u64>, disk: &Disk, random: &mut Random) {
    /// Enough to be met, little enough not to fill the memory with noise.
    const BLOCKS_MAX: u64 = 16;
    let end = range.end.min(content.size_bytes());
    let blocks = blocks_of(&(range.start..end));
    for _ in 0..BLOCKS_MAX.min(blocks.end - blocks.start) {
        let block = blocks.start + random.below(blocks.end - blocks.start);
        if content.is_allocated(block) || random.coin() {
            continue;
        }
        let at = block * BLOCK_BYTES as u64;
        let range = at..at + BLOCK_BYTES as u64;
        match stale_block(disk, random) {
            Some(stale) if random.coin() => content.copy_in_block(&range, &stale),
            _ => content.fill_with_noise(block, random),
        }
        // Bytes beyond the end are none.
        let size_bytes = content.size_bytes();
        content.grow_to(at + BLOCK_BYTES as u64);
        content.set_size(size_bytes);
    }
}

/// A durable block of any file, also of one that is gone for good.
fn stale_block(disk: &Disk, random: &mut Random) -> Option<Arc<Block>> {
    let former = usize::from(!disk.remains.is_empty());
    let Some(file) = disk.files.values().nth(random.index(disk.files.len() + former)) else {
        return disk.remains.get(random.index(disk.remains.len())).cloned();
    };
    let count = file.durable.data_blocks().count();
    file.durable.data_blocks().nth(random.index(count)).map(|(_, block)| block.clone())
}

fn directory_after(id: DirectoryId, directory: &Directory, lot: Lot) -> Directory {
    let mut random = Random::stream(lot.seed, mix(2, id.0));
    let percent = random.pick([0, 10, 50, 90, 100]);
    let mut durable = directory.durable.clone();
    for change in &directory.pending {
        if survives(change, percent, lot, &mut random) {
            change.apply(&mut durable);
        }
    }
    Directory { view: durable.clone(), durable, pending: Vec::new() }
}

fn survives(change: &NameChange, percent: u64, lot: Lot, random: &mut Random) -> bool {
    if lot.plan.model == Model::Linux {
        return change.stamp < lot.journal_end;
    }
    match change.change {
        Change::Set(_) | Change::Unset => match lot.survival(change.stamp, percent, random) {
            Survival::Whole => true,
            Survival::Lost => false,
            Survival::Torn(percent) => random.chance(percent),
        },
        // Both halves draw from the stream of their common stamp, so that they agree also when
        // they lie in two directories.
        Change::RenamedTo(_) => rename_after(change.stamp, lot) != RenameOutcome::Undone,
        Change::RenamedFrom => rename_after(change.stamp, lot) == RenameOutcome::Done,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RenameOutcome {
    Undone,
    BothNames,
    Done,
}

fn rename_after(stamp: u64, lot: Lot) -> RenameOutcome {
    let mut random = Random::stream(lot.seed, mix(3, stamp));
    match lot.survival(stamp, 50, &mut random) {
        Survival::Lost => RenameOutcome::Undone,
        Survival::Whole => RenameOutcome::Done,
        Survival::Torn(_) => match random.below(3) {
            0 => RenameOutcome::Undone,
            1 if !lot.plan.whole_renames => RenameOutcome::BothNames,
            _ => RenameOutcome::Done,
        },
    }
}
