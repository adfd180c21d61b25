//! A log of ours that many clients share and that has been in use for long.

use std::thread;

use laminar_wal::Wal;
use tempfile::TempDir;

use super::driving::{Driven, Window, drive};
use super::logs::{PREPARING, warmed};
use crate::Failure;
use crate::contenders::{Log, Ours};
use crate::machine::DeviceFlushes;
use crate::workdir::Workdir;

/// As [`Recycling`](super::logs::Recycling), with a shared writer.
pub(crate) struct SharedRecycling<'a> {
    workdir: &'a Workdir,
    directory: TempDir,
    wal: Wal,
}

impl<'a> SharedRecycling<'a> {
    pub(crate) fn make(workdir: &'a Workdir) -> Result<Self, Failure> {
        let directory = workdir.fresh()?;
        let wal = warmed(directory.path())?.into_wal()?;
        Ok(Self { workdir, directory, wal })
    }

    /// Drives so many clients of the emptied log.
    pub(crate) fn drive(&mut self, clients: u16, window: Window) -> Result<Driven, Failure> {
        let mut writer = self.wal.writer(0)?;
        writer.reset()?;
        writer.close()?;
        thread::sleep(PREPARING);
        self.workdir.settle()?;
        let writer = self.wal.shared_writer(0)?;
        let clients = vec![writer; usize::from(clients)];
        let driven = drive(clients, window, &DeviceFlushes::below(self.directory.path()))?;
        Ours::read_back(self.directory.path())?.check(&driven.tally)?;
        Ok(driven)
    }

    pub(crate) fn close(self) -> Result<(), Failure> {
        Ok(self.wal.close()?)
    }
}
