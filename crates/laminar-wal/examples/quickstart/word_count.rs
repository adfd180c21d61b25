//! The application: a word count whose state survives any crash. This is the part to copy.
//!
//! Each core owns the words that hash to it, and nothing is shared: a core reads the whole text
//! and skips the words of the others. It logs two things:
//!
//! - `Put(word, count)` *before* it changes the count in memory, and
//! - `Commit(offset)` every few hundred words: what was put so far is the count of the text up to
//!   this offset.
//!
//! So after a crash the state is the fold of all puts up to the last commit, and the commit's
//! offset says where to go on. Puts behind it are not lost words: the text has them still, and
//! they are counted when the core gets there again. That makes it exactly once.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use laminar_wal::{CoreWalWriter, EntryView, Offsets, OperationView, Recovery, WalOptions};

use crate::Result;
use crate::text;

/// One core, one thread, one log.
pub(crate) const CORES: u16 = 4;

/// A commit says how far the state is consistent; it makes nothing durable.
const WORDS_PER_COMMIT: u64 = 250;

/// How often a core says what it has appended: only for this story, which wants to know how much
/// a kill took.
const WORDS_PER_REPORT: u64 = 50;

/// What is submitted becomes durable in the background, however many commits that are, while the
/// core goes on counting: the more of them, the less each one costs, and the more is counted again
/// after a crash.
const COMMITS_PER_SUBMIT: u64 = 40;

/// The name under which commits keep their offset. A program that reads several sources has one
/// offset for each.
const SOURCE: &str = "text";

/// How the log is opened. A program that is not made to be killed leaves the last two options
/// out; with smaller buffers than usual a kill finds entries in every state: synced, written but
/// not synced, and in memory only.
pub(crate) fn options(log: &Path) -> WalOptions {
    WalOptions::new(log).cores(CORES).batch_bytes(64 * 1024).in_flight_bytes(512 * 1024)
}

/// The core that owns a word. Decided by a hash that is the same in every life of the program;
/// std's hash maps are seeded anew each time.
pub(crate) fn core_of(word: &str) -> u16 {
    let fnv_1a = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [.., low, high] = fnv_1a.to_le_bytes();
    u16::from_le_bytes([low, high]) % CORES
}

/// What one core knows. It is in memory only; the log is what makes it survive.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) counts: HashMap<String, u64>,
    /// Every word of this core before this offset in the text is counted.
    pub(crate) next_offset: usize,
}

impl Shard {
    /// The state as of the core's last commit in the log.
    pub(crate) fn recover(recovery: &Recovery, core: u16) -> Result<Self> {
        let mut replay = Replay::default();
        recovery.try_for_each_of_core(core, |entry| replay.apply(entry))?;
        Ok(replay.committed)
    }

    /// Counts this core's words from where the shard stands to the end of the text.
    pub(crate) fn count(
        &mut self,
        text: &str,
        writer: &mut CoreWalWriter,
        listener: &impl Listener,
    ) -> Result<()> {
        let core = writer.core_id();
        let mut counted: u64 = self.counts.values().sum();
        let mut commits: u64 = 0;
        let mut tickets = VecDeque::new();
        listener.opened(core, writer.synced_position(), counted)?;

        for (word, end_offset) in text::words(text, self.next_offset) {
            if core_of(word) != core {
                continue;
            }
            self.count_one(word, writer)?;
            counted += 1;
            if counted.is_multiple_of(WORDS_PER_REPORT) {
                listener.appended(core, writer.position(), counted)?;
            }
            if counted.is_multiple_of(WORDS_PER_COMMIT) {
                self.commit(end_offset, writer)?;
                commits += 1;
                if commits.is_multiple_of(COMMITS_PER_SUBMIT) {
                    tickets.push_back(writer.submit()?);
                }
                // Only now may anybody be told that these words are counted for good.
                while let Some(ticket) = tickets.front()
                    && ticket.is_durable()?
                {
                    listener.synced(core, ticket.position())?;
                    tickets.pop_front();
                }
            }
        }

        self.commit(text.len(), writer)?;
        listener.appended(core, writer.position(), counted)?;
        tickets.push_back(writer.submit()?);
        for ticket in tickets {
            ticket.wait()?;
            listener.synced(core, ticket.position())?;
        }
        Ok(())
    }

    /// Logs the new count first, then takes it over: an append that fails changes nothing.
    fn count_one(&mut self, word: &str, writer: &mut CoreWalWriter) -> Result<()> {
        let count = self.counts.get(word).map_or(1, |count| count + 1);
        writer.append_put(word.as_bytes(), &count.to_le_bytes())?;
        self.counts.insert(word.to_owned(), count);
        Ok(())
    }

    fn commit(&mut self, next_offset: usize, writer: &mut CoreWalWriter) -> Result<()> {
        let mut offsets = Offsets::new();
        offsets.set(SOURCE, next_offset as u64);
        writer.append_commit(&offsets, None)?;
        self.next_offset = next_offset;
        Ok(())
    }
}

/// A shard on its way back from the log.
#[derive(Default)]
struct Replay {
    committed: Shard,
    uncommitted: Vec<(String, u64)>,
    epoch: u64,
}

impl Replay {
    fn apply(&mut self, entry: EntryView<'_>) -> Result<()> {
        // Every opening of the log begins a new epoch. What an earlier one left behind its last
        // commit was counted again by the next, so a commit of that one must not cover it.
        if entry.epoch() != self.epoch {
            self.epoch = entry.epoch();
            self.uncommitted.clear();
        }
        match entry.operation() {
            OperationView::Put { key, value } => {
                // What the entry gives is borrowed: copy what you keep.
                let word = str::from_utf8(key)?.to_owned();
                self.uncommitted.push((word, u64::from_le_bytes(value.try_into()?)));
            }
            OperationView::Commit { offsets, .. } => {
                self.committed.counts.extend(self.uncommitted.drain(..));
                let offset = offsets.get(SOURCE).ok_or("a commit of another source")?;
                self.committed.next_offset = usize::try_from(offset)?;
            }
            other => return Err(format!("not written by a word count: {other:?}").into()),
        }
        Ok(())
    }
}

/// Who wants to know how far a core has come. A real program would answer its clients here.
pub(crate) trait Listener {
    /// The core goes on at this position, with so many words counted. Whatever the log gave back
    /// is durable: opening it saw to that.
    fn opened(&self, core: u16, position: u64, words: u64) -> Result<()>;

    /// The core's log reaches to this position, in memory at least, and so many of its words are
    /// counted.
    fn appended(&self, core: u16, position: u64, words: u64) -> Result<()>;

    /// Everything in the core's log below this position survives a crash.
    fn synced(&self, core: u16, position: u64) -> Result<()>;
}
