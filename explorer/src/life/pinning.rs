//! Pins: segments that stay, though a checkpoint is ahead of them.

use std::collections::BTreeMap;

use wal_format::{CoreDirectory, SegmentFile};
use wal_writer::Pin;

use super::{Life, LogLife};
use crate::Checked;
use crate::random::index;
use crate::workload::Pick;

/// A pin, and the segments that it keeps for as long as it is not told to let go of any.
#[derive(Debug)]
pub(super) struct Pinned {
    pin: Pin,
    files: BTreeMap<u16, Vec<String>>,
    /// A cut takes segments away, whoever pins them.
    lives: Vec<LogLife>,
}

impl Pinned {
    /// Segments of this core may go.
    pub(super) fn forget(&mut self, core: u16) {
        self.files.remove(&core);
    }
}

/// More are not held at once.
const PINS_MAX: usize = 3;

impl Life<'_> {
    pub(super) fn pin(&mut self) -> Checked {
        let Some(wal) = self.wal.as_ref().filter(|_| self.pins.len() < PINS_MAX) else {
            return Ok(());
        };
        let pin = wal.pin("the explorer");
        // What the background was told to give back before is on its way.
        self.machine.run_jobs();
        self.called(&[])?;
        let files = self.open_cores.iter().map(|&core| (core, self.segments_of(core))).collect();
        let lives = self.open_cores.iter().map(|&core| self.log_life(core)).collect();
        self.pins.push(Pinned { pin, files, lives });
        Ok(())
    }

    pub(super) fn advance_pin(&mut self, core: Pick, pick: Pick) -> Checked {
        let at = index(pick, self.pins.len());
        let Some(core) = index(core, self.open_cores.len()).map(|at| self.open_cores[at]) else {
            return Ok(());
        };
        let position = self.boundary(core, pick / 4).position;
        if let Some(pinned) = at.and_then(|at| self.pins.get_mut(at)) {
            pinned.forget(core);
            pinned.pin.advance(core, position);
        }
        Ok(())
    }

    /// No segment of a core that is pinned whole is gone.
    pub(super) fn pins_hold(&self) -> Checked {
        for pinned in &self.pins {
            for life in pinned.lives.iter().filter(|life| self.is_alive(**life)) {
                let there = self.segments_of(life.core);
                let mut files = pinned.files.get(&life.core).into_iter().flatten();
                if let Some(gone) = files.find(|file| !there.contains(file)) {
                    return Err(format!("promise 7: {gone} is gone, which is pinned"));
                }
            }
        }
        Ok(())
    }

    fn segments_of(&self, core: u16) -> Vec<String> {
        let names = self.machine.names().into_iter();
        let is_segment = |name: &String| match name.split_once('/') {
            Some((directory, file)) => {
                CoreDirectory::parse(directory) == Some(CoreDirectory(core))
                    && SegmentFile::parse(file).is_some()
            }
            None => false,
        };
        names.filter(is_segment).collect()
    }
}
