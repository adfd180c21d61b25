//! The entries of a replay, one after the other, owned: for whoever cannot give a closure away.

use wal_entry::{EntryView, ReplayOrder, WalEntry};
use wal_storage::Result;

use crate::core_reader::{Chunk, CoreReader};
use crate::merge::changed_in_memory;
use crate::replay::Recovery;

/// The entries of a [`Recovery`] as copies, in [replay order](wal_entry::ReplayOrder); made by its
/// `into_iter`. Ends behind the first error.
///
/// Reads in the thread that asks, through one buffer of 256 KiB per core. Visiting with
/// [`for_each`](Recovery::for_each) is several times as fast: nothing is copied there, and other
/// threads read ahead.
#[derive(Debug)]
pub struct Entries {
    /// Keeps the files that are read.
    _recovery: Recovery,
    feeds: Vec<Feed>,
    has_failed: bool,
}

/// One core's entries, as they come.
#[derive(Debug)]
struct Feed {
    reader: CoreReader,
    chunk: Chunk,
    /// The entry of the chunk that comes next.
    next: usize,
    /// What is behind the chunk.
    behind: Result<()>,
}

impl IntoIterator for Recovery {
    type Item = Result<WalEntry>;
    type IntoIter = Entries;

    fn into_iter(self) -> Entries {
        let feed = |reader| Feed { reader, chunk: Chunk::default(), next: 0, behind: Ok(()) };
        let feeds = self.readers().into_iter().map(feed).collect();
        Entries { _recovery: self, feeds, has_failed: false }
    }
}

impl Iterator for Entries {
    type Item = Result<WalEntry>;

    fn next(&mut self) -> Option<Result<WalEntry>> {
        if self.has_failed {
            return None;
        }
        let next = self.take_next();
        self.has_failed = next.is_err();
        next.transpose()
    }
}

impl Entries {
    fn take_next(&mut self) -> Result<Option<WalEntry>> {
        let mut lowest: Option<(ReplayOrder, &mut Feed)> = None;
        for feed in &mut self.feeds {
            if let Some(order) = feed.head()?
                && lowest.as_ref().is_none_or(|(lowest, _)| order < *lowest)
            {
                lowest = Some((order, feed));
            }
        }
        lowest.map(|(_, feed)| feed.take_head()).transpose()
    }
}

impl Feed {
    /// Where the next entry stands in the replay; `None` behind the last.
    fn head(&mut self) -> Result<Option<ReplayOrder>> {
        if self.next >= self.chunk.entry_count() {
            std::mem::replace(&mut self.behind, Ok(()))?;
            self.next = 0;
            self.behind = self.reader.fill(&mut self.chunk);
            if self.chunk.entry_count() == 0 {
                std::mem::replace(&mut self.behind, Ok(()))?;
            }
        }
        Ok(self.chunk.archives_from(self.next).next().and_then(ReplayOrder::peek))
    }

    fn take_head(&mut self) -> Result<WalEntry> {
        let archive = self.chunk.archives_from(self.next).next().unwrap_or_default();
        let entry = EntryView::access(archive)
            .map(|view| view.to_entry())
            .map_err(|invalid| changed_in_memory(&invalid.to_string()))?;
        self.next += 1;
        Ok(entry)
    }
}
