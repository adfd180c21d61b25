//! Requests that somebody else than their caller can do: the threads of `helpers.rs`.

use std::sync::Arc;

use crate::file::OsFile;
use crate::storage::{IoMode, Request, StorageFile, WriteSync};

/// A request about a file of ours, checked: nothing is wrong with it that could be known before.
#[derive(Clone, Copy)]
pub(crate) struct Errand<'a> {
    pub(crate) file: &'a Arc<OsFile>,
    pub(crate) work: Work<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Work<'a> {
    Write { slices: &'a [&'a [u8]], length: u64, offset: u64, sync: WriteSync },
    Sync,
}

impl<'a> Errand<'a> {
    /// `None` for what the caller should do itself: because nobody else can, because it does
    /// nothing at all, or because it is a copy into the page cache, which is done before anybody
    /// else has heard of it.
    pub(crate) fn of(request: &Request<'a>) -> Option<Self> {
        let file = OsFile::behind(request.file())?;
        let work = match *request {
            Request::Write { slices, offset, sync, .. } => {
                let length = file.check_write(slices, offset).ok()?;
                let is_copy = sync == WriteSync::None && file.mode() == IoMode::Buffered;
                if is_copy || length == 0 {
                    return None;
                }
                Work::Write { slices, length, offset, sync }
            }
            Request::Sync { .. } => Work::Sync,
        };
        Some(Self { file, work })
    }
}
