//! A core's segment files: prepared ahead, handed out one after the other, recycled.
//!
//! A segment is *ready* when its file has its durable name, its identity block is durable, and its
//! space is there, with zeroes in it or bytes of an earlier life, which its salt makes meaningless:
//! writing records then needs no new space. It is *active* from its first batch on, and knows nothing of what
//! follows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use wal_format::{
    Block, CoreDirectory, Features, Identity, LogId, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
    SEGMENT_RESERVE_BYTES, START_OFFSET, SegmentFile, Start, TemporaryFile,
};
use wal_storage::{Access, Result, Storage, StorageFile, WalError, WriteSync};

use crate::header_blocks::header_blocks;
use crate::observer::{Observer, Stall};
use crate::options::LogOptions;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// A segment that a writer goes on in, from the moment it was taken from the prepared ones.
#[derive(Debug)]
pub(crate) struct Segment {
    prepared: Prepared,
    start: Start,
}

impl Segment {
    /// What `start` says becomes true when the start block is written.
    pub(crate) const fn new(prepared: Prepared, start: Start) -> Self {
        Self { prepared, start }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.prepared.segment_id
    }

    pub(crate) const fn salt(&self) -> u64 {
        self.prepared.salt
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.prepared.size_bytes
    }

    pub(crate) const fn max_record_bytes(&self) -> u32 {
        self.prepared.max_record_bytes
    }

    pub(crate) const fn start(&self) -> &Start {
        &self.start
    }

    /// Writes to the segment's file; see [`StorageFile::write_at`].
    pub(crate) fn write_at(&self, slices: &[&[u8]], offset: u64, sync: WriteSync) -> Result<()> {
        let written = self.prepared.file.write_at(slices, offset, sync);
        written.map_err(|error| error.at(&self.prepared.path))
    }

    /// The segment's file.
    pub(crate) fn file(&self) -> &dyn StorageFile {
        &*self.prepared.file
    }

    /// What the segment's file is called.
    pub(crate) fn path(&self) -> &Path {
        &self.prepared.path
    }

    /// Syncs the segment's file; see [`StorageFile::sync`].
    pub(crate) fn sync(&self) -> Result<()> {
        self.prepared.file.sync().map_err(|error| error.at(&self.prepared.path))
    }

    /// Where a position of this segment lies in its file.
    pub(crate) const fn file_offset(&self, position: u64) -> u64 {
        SEGMENT_HEADER_BYTES + (position - self.start.base_position)
    }

    /// The position at which the segment is full for ordinary entries.
    pub(crate) const fn room_end(&self) -> u64 {
        self.hard_end() - SEGMENT_RESERVE_BYTES
    }

    /// The position at which the file ends.
    pub(crate) const fn hard_end(&self) -> u64 {
        self.start.base_position + (self.prepared.size_bytes - SEGMENT_HEADER_BYTES)
    }
}

#[cfg(all(test, not(shuttle)))]
impl Segment {
    /// The first one of a log, of which only places matter.
    pub(crate) fn for_test(file: Box<dyn StorageFile>) -> Self {
        let start = Start {
            predecessor: None,
            base_position: 0,
            base_sequence: 0,
            last_epoch: 0,
            last_timestamp_ns: i64::MIN,
            manifest_number: 1,
        };
        let (segment_id, salt, size_bytes, path) = (1, 0, SEGMENT_BYTES_MIN, PathBuf::new());
        let prepared = Prepared { segment_id, salt, size_bytes, max_record_bytes: 0, file, path };
        Self::new(prepared, start)
    }
}

/// A segment that is ready: durable name, durable identity, no start.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) segment_id: u64,
    salt: u64,
    size_bytes: u64,
    max_record_bytes: u32,
    file: Box<dyn StorageFile>,
    /// What the file is called now; it was opened under a temporary name.
    path: PathBuf,
}

/// Hands out ready segments of one core in the order of their numbers, and gets the next ready
/// before it is asked for.
#[derive(Debug)]
pub(crate) struct Segments {
    storage: Arc<dyn Storage>,
    directory: String,
    core: u16,
    log_id: LogId,
    options: LogOptions,
    observer: Arc<Observer>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    next: Next,
    /// The number that the next prepared segment gets.
    next_id: u64,
    /// Its size, unless a record needs a larger one.
    next_size_bytes: u64,
    next_filling: Filling,
    spares: Vec<Spare>,
    /// How often an appender had to wait for a segment, or prepare it itself.
    stalls: u64,
    closed: bool,
}

/// The segment after the active one.
#[derive(Debug)]
enum Next {
    /// Nobody has begun to prepare it, or the last try failed.
    Missing,
    /// Some thread is preparing it right now.
    BeingPrepared,
    Ready(Prepared),
}

impl Next {
    fn ready(self) -> Option<Prepared> {
        match self {
            Self::Ready(prepared) => Some(prepared),
            Self::Missing | Self::BeingPrepared => None,
        }
    }
}

/// How a core fills a segment: what is foretold for the next one by the one that it just filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filling {
    /// A little, a sync, and so on. Zeroes are written to its file beforehand: a sync then changes
    /// no metadata, which halves its time.
    Synced,
    /// Much, a sync, and so on. Its space is only set aside: a sync then takes longer, but writing
    /// zeroes would take as much of the device as the records do, and syncs would wait for that.
    Batched,
    /// In one go, without a sync. As before; and it is written through the page cache, which takes
    /// bursts.
    Bulk,
}

impl Filling {
    const fn access(self) -> Access {
        match self {
            Self::Synced | Self::Batched => Access::ReadWriteDirect,
            Self::Bulk => Access::ReadWrite,
        }
    }

    /// What so many bytes with so many syncs in between are.
    pub(crate) const fn of(bytes: u64, syncs: u64) -> Self {
        match bytes.checked_div(syncs) {
            None => Self::Bulk,
            Some(bytes_per_sync) if bytes_per_sync >= BATCHED_BYTES_PER_SYNC => Self::Batched,
            Some(_) => Self::Synced,
        }
    }
}

/// A file of a segment that is not part of the log any more. It has a temporary name, durably,
/// so whatever is written to it cannot be taken for the old segment.
#[derive(Debug)]
struct Spare {
    name: String,
    size_bytes: u64,
}

/// From here on it takes longer to write as many zeroes than to sync metadata.
const BATCHED_BYTES_PER_SYNC: u64 = 128 * 1024;

impl Segments {
    /// `highest_id` is the highest number that the core's log must not use again.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        core: u16,
        log_id: LogId,
        options: LogOptions,
        observer: Arc<Observer>,
        highest_id: u64,
    ) -> Self {
        let next_size_bytes = options.first_segment_bytes();
        Self {
            storage,
            directory: CoreDirectory(core).to_string(),
            core,
            log_id,
            options,
            observer,
            state: Mutex::new(State {
                next: Next::Missing,
                next_id: highest_id + 1,
                next_size_bytes,
                next_filling: Filling::Synced,
                spares: Vec::new(),
                stalls: 0,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Takes the next segment, with room for at least one record of `record_bytes` behind a mark.
    ///
    /// If it is not ready, the calling thread prepares it, or waits for the one that does. `filling`
    /// is how the one before was filled; the one behind the taken one is prepared for the same.
    ///
    /// # Errors
    ///
    /// [`WalError::StorageFull`] if there is no room for it. Nothing has changed then, and the
    /// next call tries again.
    pub(crate) fn take(&self, record_bytes: u64, filling: Filling) -> Result<Prepared> {
        let needed_bytes = segment_bytes_for(record_bytes);
        let mut state = self.lock();
        state.next_filling = filling;
        let mut waited = false;
        loop {
            match std::mem::replace(&mut state.next, Next::BeingPrepared) {
                Next::Ready(prepared) if prepared.size_bytes >= needed_bytes => {
                    state.next = Next::Missing;
                    return Ok(self.handed_out(&mut state, prepared));
                }
                next @ (Next::Ready(_) | Next::Missing) => {
                    self.count_stall(&mut state, waited);
                    // One that is ready is too small: the same number again, in a larger file.
                    let too_small = next.ready();
                    let (mut state, prepared) = self.prepare_next(state, needed_bytes, too_small);
                    return prepared.map(|prepared| self.handed_out(&mut state, prepared));
                }
                Next::BeingPrepared => {
                    self.count_stall(&mut state, waited);
                    waited = true;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    pub(crate) const fn observer(&self) -> &Arc<Observer> {
        &self.observer
    }

    /// Makes the next segments small again, each twice the one before.
    pub(crate) fn restart_growth(&self) {
        self.lock().next_size_bytes = self.options.first_segment_bytes();
    }

    /// Gets the next segment ready, if nobody has yet. For the background; an error is met again,
    /// and reported, by whoever needs the segment.
    pub(crate) fn prepare_ahead(&self) {
        let mut state = self.lock();
        if state.closed || !matches!(state.next, Next::Missing) {
            return;
        }
        state.next = Next::BeingPrepared;
        let (mut state, prepared) = self.prepare_next(state, SEGMENT_BYTES_MIN, None);
        if let Ok(prepared) = prepared {
            state.next = Next::Ready(prepared);
        }
    }

    /// Takes files of segments that are not part of the log any more: some are kept to be
    /// recycled, the others removed. What fails here leaves files that the next opening removes.
    pub(crate) fn recycle(&self, segment_ids: &[u64]) {
        let mut renamed = Vec::new();
        for &segment_id in segment_ids {
            let name = self.path(SegmentFile(segment_id));
            if take_start(&*self.storage, &name).is_err() {
                continue;
            }
            let room = self.lock().spares.len() + renamed.len() < self.options.recycled_segments;
            let size_bytes = if room { self.full_size_of(&name) } else { None };
            let Some(size_bytes) = size_bytes else {
                let _ = self.storage.remove(&name);
                continue;
            };
            let spare = self.path(TemporaryFile(segment_id));
            if self.storage.rename(&name, &spare).is_ok() {
                renamed.push(Spare { name: spare, size_bytes });
            }
        }
        // Before its new name is durable, a file must not be overwritten: after a crash it would
        // have its old name, and somebody else's identity block.
        if self.storage.sync_directory(&self.directory).is_ok() {
            self.lock().spares.append(&mut renamed);
        }
    }

    /// Ends preparing: waits for a thread that is at it, and lets no other begin.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        while matches!(state.next, Next::BeingPrepared) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets no thread begin to prepare a segment any more, and waits for none.
    pub(crate) fn stop(&self) {
        self.lock().closed = true;
    }

    /// How often an appender had to wait for a segment, or prepare it itself.
    pub(crate) fn stalls(&self) -> u64 {
        self.lock().stalls
    }

    /// The first wait of a [`take`](Self::take) is a stall; the others belong to it.
    fn count_stall(&self, state: &mut State, has_waited: bool) {
        if !has_waited {
            state.stalls += 1;
            self.observer.stalled(Stall::Segment);
        }
    }

    fn handed_out(&self, state: &mut State, prepared: Prepared) -> Prepared {
        state.next_id = prepared.segment_id + 1;
        state.next_size_bytes =
            state.next_size_bytes.saturating_mul(2).min(self.options.segment_bytes);
        prepared
    }

    /// Prepares the next segment without holding the lock, and says so to those who wait.
    ///
    /// [`State::next`] must be [`Next::BeingPrepared`]; it is [`Next::Missing`] afterwards, or
    /// what was ready `before`, if this failed while that still had the name: a large record that
    /// a full disk has no room for must not cost the small ones their place.
    fn prepare_next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        needed_bytes: u64,
        before: Option<Prepared>,
    ) -> (MutexGuard<'a, State>, Result<Prepared>) {
        let segment_id = state.next_id;
        let size_bytes = state.next_size_bytes.max(needed_bytes);
        let spare = state.spares.iter().position(|spare| spare.size_bytes >= size_bytes);
        let spare = spare.map(|index| state.spares.swap_remove(index));
        let filling = state.next_filling;
        drop(state);
        let mut takes_name = false;
        let prepared = {
            let _reset = ResetOnPanic(self);
            let space = match spare {
                Some(spare) => SpaceFrom::Spare(spare),
                None => SpaceFrom::New { size_bytes },
            };
            self.prepare(segment_id, space, filling, &mut takes_name)
        };
        let mut state = self.lock();
        state.next = match before {
            Some(before) if prepared.is_err() && !takes_name => Next::Ready(before),
            _ => Next::Missing,
        };
        self.changed.notify_all();
        (state, prepared)
    }

    /// Makes a segment ready: under a temporary name made, or recycled, and given its identity;
    /// durable; and only then renamed to its number, in place of an unused file that may have it.
    ///
    /// `takes_name` is set once the number may no longer stand for what had it before.
    fn prepare(
        &self,
        segment_id: u64,
        space: SpaceFrom,
        filling: Filling,
        takes_name: &mut bool,
    ) -> Result<Prepared> {
        #[cfg(wal_fault = "prepared_reused_without_new_salt")]
        if let Some(found) = self.found_prepared(segment_id, filling) {
            return Ok(found);
        }
        let mut salt = [0; 8];
        self.storage.fill_random(&mut salt)?;
        let salt = u64::from_le_bytes(salt);
        let is_recycled = matches!(space, SpaceFrom::Spare(_));
        let (name, size_bytes, file) = match space {
            SpaceFrom::Spare(spare) => {
                let file = self.storage.open(&spare.name, filling.access())?;
                let no_start = header_blocks(&[&Block::ZERO; 2]);
                file.write_at(&[&no_start], START_OFFSET, WriteSync::None)?;
                (spare.name, spare.size_bytes, file)
            }
            SpaceFrom::New { size_bytes } => {
                let name = self.path(TemporaryFile(segment_id));
                let file = self.create(&name, size_bytes, filling)?;
                (name, size_bytes, file)
            }
        };
        let identity = Identity {
            log_id: self.log_id,
            core: self.core,
            segment_id,
            size_bytes,
            payload_type: wal_entry::PAYLOAD_TYPE,
            payload_version: wal_entry::PAYLOAD_VERSION,
            max_record_bytes: self.options.max_record_bytes,
            features: Features::NONE,
            salt,
            created_ns: self.storage.wall_clock_ns(),
        };
        file.write_at(&[&header_blocks(&[&identity.encode()])], 0, WriteSync::None)?;
        file.sync()?;
        *takes_name = true;
        let named = self.path(SegmentFile(segment_id));
        self.storage.rename(&name, &named)?;
        // If this fails, the file that now may or may not have the name is never used: the next
        // try renames a new one over it.
        // Without it, promise 1 breaks: a power loss takes the name, and all that was acked in it.
        #[cfg(not(wal_fault = "no_directory_sync"))]
        self.storage.sync_directory(&self.directory)?;
        let max_record_bytes = identity.max_record_bytes;
        let path = self.storage.path().join(named);
        self.observer.prepared(segment_id, size_bytes, is_recycled);
        Ok(Prepared { segment_id, salt, size_bytes, max_record_bytes, file, path })
    }

    /// Breaks promise 2: what was written to the file before, and did not count, may count now.
    #[cfg(wal_fault = "prepared_reused_without_new_salt")]
    fn found_prepared(&self, segment_id: u64, filling: Filling) -> Option<Prepared> {
        let name = self.path(SegmentFile(segment_id));
        let file = self.storage.open(&name, filling.access()).ok()?;
        let mut block = header_blocks(&[&Block::ZERO]);
        file.read_at(&mut block, 0).ok()?;
        let Identity { salt, size_bytes, max_record_bytes, .. } = Identity::decode(&block).ok()?;
        let path = self.storage.path().join(name);
        Some(Prepared { segment_id, salt, size_bytes, max_record_bytes, file, path })
    }

    fn create(
        &self,
        name: &str,
        size_bytes: u64,
        filling: Filling,
    ) -> Result<Box<dyn StorageFile>> {
        let access = filling.access();
        let create = || match filling {
            Filling::Synced => self.storage.create(name, size_bytes, access),
            Filling::Batched | Filling::Bulk => {
                self.storage.create_reserved(name, size_bytes, access)
            }
        };
        match create() {
            // What an earlier try left; nothing of the log ever has a temporary name.
            Err(error) if already_exists(&error) => {
                self.storage.remove(name)?;
                create()
            }
            created => created,
        }
    }

    /// The size of a file that is worth keeping for recycling.
    fn full_size_of(&self, name: &str) -> Option<u64> {
        let size_bytes = self.storage.open(name, Access::Read).ok()?.size_bytes().ok()?;
        (size_bytes == self.options.segment_bytes).then_some(size_bytes)
    }

    fn path(&self, file: impl std::fmt::Display) -> String {
        format!("{}/{file}", self.directory)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole at each step, so a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a segment's file comes from.
enum SpaceFrom {
    Spare(Spare),
    New { size_bytes: u64 },
}

/// Takes the start, and what it vouches for, from a segment that a cut took out of the log,
/// durably.
///
/// To be done before its name is taken too. If a sync of the directory fails, a later one, even
/// of another process, that says `Ok` proves nothing of the changes before: the name may come
/// back after a power loss, when the cut is long forgotten because nobody saw the file any more.
/// Without a start it is then a file that was never used; with one it would contradict the log.
///
/// # Errors
///
/// Whatever the storage says. The file must keep its name then, for the next opening to see.
pub(crate) fn take_start(storage: &dyn Storage, name: &str) -> Result<()> {
    let file = storage.open(name, Access::ReadWriteDirect)?;
    let no_start = header_blocks(&[&Block::ZERO; 2]);
    file.write_at(&[&no_start], START_OFFSET, WriteSync::Through)
}

/// Keeps a panic while preparing from leaving everybody else waiting for ever.
struct ResetOnPanic<'a>(&'a Segments);

impl Drop for ResetOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().next = Next::Missing;
            self.0.changed.notify_all();
        }
    }
}

/// The smallest segment that has room for a mark and a record of this size.
fn segment_bytes_for(record_bytes: u64) -> u64 {
    let mark_bytes = wal_format::MARK_RECORD_BYTES as u64;
    (SEGMENT_HEADER_BYTES + mark_bytes + record_bytes + SEGMENT_RESERVE_BYTES)
        .next_multiple_of(wal_format::BLOCK_BYTES as u64)
        .max(SEGMENT_BYTES_MIN)
}

fn already_exists(error: &WalError) -> bool {
    matches!(error, WalError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::AlreadyExists)
}

#[cfg(test)]
mod tests {
    use wal_format::MARK_RECORD_BYTES;
    use wal_sim::{Fault, OperationKind, SimStorage};

    use super::*;

    const SEGMENT_BYTES: u64 = 32 * 1024;

    fn segments(disk: &SimStorage) -> Segments {
        disk.create_directory("core-0000").unwrap();
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
        let observer = Arc::new(Observer::new(0));
        Segments::new(Arc::new(disk.clone()), 0, LogId([7; 16]), options, observer, 0)
    }

    fn take(segments: &Segments, record_bytes: u64) -> Prepared {
        segments.take(record_bytes, Filling::Synced).unwrap()
    }

    /// How many files have a segment's name, and how many a temporary one.
    fn files(disk: &SimStorage) -> (usize, usize) {
        let names = disk.names();
        let with = |suffix| names.iter().filter(|name| name.ends_with(suffix)).count();
        (with(".wal"), with(".tmp"))
    }

    #[test]
    fn a_take_that_prepares_the_segment_itself_is_a_stall_and_one_that_finds_it_ready_is_none() {
        let segments = segments(&SimStorage::new(1));
        assert_eq!(segments.stalls(), 0);
        take(&segments, 0);
        assert_eq!(segments.stalls(), 1);
        segments.prepare_ahead();
        take(&segments, 0);
        assert_eq!(segments.stalls(), 1);
        take(&segments, 0);
        assert_eq!(segments.stalls(), 2);
    }

    #[test]
    fn one_segment_is_prepared_ahead_and_none_once_that_was_ended() {
        let disk = SimStorage::new(1);
        let going_on = segments(&disk);
        disk.set_tracing(true);
        going_on.prepare_ahead();
        going_on.prepare_ahead();
        let trace = disk.take_trace();
        let is_create = |kind| kind == OperationKind::Create;
        assert_eq!(trace.iter().filter(|operation| is_create(operation.kind)).count(), 1);
        for end in [Segments::close, Segments::stop] {
            let disk = SimStorage::new(1);
            let ended = segments(&disk);
            end(&ended);
            ended.prepare_ahead();
            assert_eq!(files(&disk), (0, 0));
        }
    }

    #[test]
    fn a_ready_segment_that_is_too_small_is_made_anew_under_its_number() {
        let segments = segments(&SimStorage::new(1));
        segments.prepare_ahead();
        let large = take(&segments, 100_000);
        assert_eq!(large.segment_id, 1);
        assert!(large.size_bytes >= 100_000 + SEGMENT_HEADER_BYTES + SEGMENT_RESERVE_BYTES);
        assert_eq!(take(&segments, 0).segment_id, 2);
    }

    #[test]
    fn a_segment_that_is_taken_out_of_the_log_loses_its_start_before_its_name() {
        let disk = SimStorage::new(1);
        let segments = segments(&disk);
        take(&segments, 0);
        disk.set_tracing(true);
        segments.recycle(&[1]);
        let mut trace = disk.take_trace();
        trace.retain(|operation| operation.kind != OperationKind::Open);
        let kinds: Vec<_> = trace.iter().map(|operation| operation.kind).collect();
        let expected = [OperationKind::Write, OperationKind::Rename, OperationKind::SyncDirectory];
        assert_eq!(kinds, expected);
        assert_eq!((trace[0].range.start, trace[0].through), (START_OFFSET, true));
    }

    #[test]
    fn a_ready_segment_whose_name_a_failed_try_may_have_taken_is_not_handed_out() {
        for (fails, stalls) in [(OperationKind::Create, 1), (OperationKind::SyncDirectory, 2)] {
            let disk = SimStorage::new(1);
            let segments = segments(&disk);
            segments.prepare_ahead();
            disk.inject(Fault::on(fails));
            segments.take(100_000, Filling::Synced).unwrap_err();
            assert_eq!(take(&segments, 0).segment_id, 1);
            assert_eq!(segments.stalls(), stalls, "{fails:?} failed");
        }
    }

    #[test]
    fn a_segment_is_as_large_as_its_first_record_needs_and_no_block_larger() {
        for record_bytes in (0..3 * 4096).step_by(8).map(|bytes| SEGMENT_BYTES + bytes) {
            let needed_bytes = SEGMENT_HEADER_BYTES
                + SEGMENT_RESERVE_BYTES
                + MARK_RECORD_BYTES as u64
                + record_bytes;
            let size_bytes = segment_bytes_for(record_bytes);
            assert!((needed_bytes..needed_bytes + 4096).contains(&size_bytes), "{record_bytes}");
        }
        assert_eq!(segment_bytes_for(0), SEGMENT_BYTES_MIN);
    }

    #[test]
    fn a_panic_while_a_segment_is_prepared_keeps_nobody_else_waiting() {
        let segments = segments(&SimStorage::new(1));
        segments.lock().next = Next::BeingPrepared;
        let panics = || {
            let _reset = ResetOnPanic(&segments);
            panic!("a storage that panics");
        };
        std::thread::scope(|scope| scope.spawn(panics).join().unwrap_err());
        assert_eq!(take(&segments, 0).segment_id, 1);
    }

    #[test]
    fn what_an_earlier_try_left_under_a_temporary_name_is_no_obstacle() {
        let disk = SimStorage::new(1);
        let segments = segments(&disk);
        let name = segments.path(TemporaryFile(1));
        disk.create(&name, SEGMENT_BYTES, Access::ReadWrite).unwrap();
        assert_eq!(take(&segments, 0).segment_id, 1);
        assert_eq!(files(&disk), (1, 0));
    }

    #[test]
    fn a_few_freed_files_are_kept_and_become_segments_that_they_are_large_enough_for() {
        let disk = SimStorage::new(1);
        let segments = segments(&disk);
        for _ in 0..5 {
            take(&segments, 0);
        }
        segments.recycle(&[1, 2, 3, 4]);
        assert_eq!(files(&disk), (1, 2));
        take(&segments, 100_000);
        assert_eq!(files(&disk), (2, 2), "they are too small for that");
        take(&segments, 0);
        assert_eq!(files(&disk), (3, 1));
        segments.recycle(&[7]);
        assert_eq!(files(&disk), (2, 2));
    }

    #[test]
    fn how_a_segment_was_filled_is_told_by_what_lies_between_two_syncs() {
        let (kib, mib) = (1024, 1024 * 1024);
        assert_eq!(Filling::of(64 * mib, 0), Filling::Bulk);
        assert_eq!(Filling::of(0, 0), Filling::Bulk);
        assert_eq!(Filling::of(64 * mib, 512), Filling::Batched);
        assert_eq!(Filling::of(64 * mib, 513), Filling::Synced);
        assert_eq!(Filling::of(127 * kib, 1), Filling::Synced);
    }
}
