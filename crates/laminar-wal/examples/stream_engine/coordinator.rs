//! The checkpoint coordinator: when the log has grown by so much, has all cores arrive at a
//! barrier, makes their states durable, and completes the checkpoint.
//!
//! No core stops for another: each arrives between two events, hands out a copy of its state, and
//! goes on. How much the log may grow between two checkpoints decides how long recovery takes, and
//! how much of the disk the log needs.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use laminar_wal::{CheckpointDetails, SyncedWatch, Wal};

use crate::Result;
use crate::shard::Request;
use crate::snapshot::{Counts, Snapshots};

/// The next checkpoint is due when this much was logged behind the last one.
const GROWTH_BYTES: u64 = 3 * 1024 * 1024;

/// How often it looks whether one is due.
const LOOK_AFTER: Duration = Duration::from_millis(1);

/// A core that does not arrive in this time hangs: it is named, and the checkpoint given up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Coordinator<'a> {
    wal: &'a Wal,
    snapshots: &'a Snapshots,
    /// One for each core's thread.
    requests: Vec<Sender<Request>>,
    /// How far each core's log is durable.
    watches: Vec<SyncedWatch>,
    next_id: u64,
    /// Where the logs stood at the last checkpoint, together.
    logged_bytes: u64,
}

impl<'a> Coordinator<'a> {
    pub(crate) fn new(
        wal: &'a Wal,
        snapshots: &'a Snapshots,
        requests: Vec<Sender<Request>>,
    ) -> Result<Self> {
        let mut watches = Vec::new();
        for core in 0..u16::try_from(wal.core_count())? {
            watches.push(wal.watch(core)?);
        }
        // The log keeps the last checkpoint's id, so ids need no other place to be kept in.
        let last = wal.last_checkpoint();
        let next_id = last.as_ref().map_or(1, |last| last.id + 1);
        let logged_bytes = last.map_or(0, |last| last.cores.iter().map(|core| core.position).sum());
        Ok(Self { wal, snapshots, requests, watches, next_id, logged_bytes })
    }

    /// Waits until the next checkpoint is due; `false` if the work was done before that.
    pub(crate) fn wait_for_growth(&self, all_done: &Receiver<()>) -> bool {
        self.wait_until(self.logged_bytes + GROWTH_BYTES, all_done)
    }

    /// Waits until the log has grown by half of that.
    pub(crate) fn wait_for_half_the_growth(&self, all_done: &Receiver<()>) {
        self.wait_until(self.logged_bytes + GROWTH_BYTES / 2, all_done);
    }

    /// Makes a checkpoint, and returns its id.
    ///
    /// Whatever fails before `complete` leaves the checkpoint before as it was, with all of the log
    /// behind it: dropping `pending` gives this one up.
    pub(crate) fn checkpoint(&mut self) -> Result<u64> {
        let id = self.next_id;
        let pending = self.wal.begin_checkpoint(id)?;
        let (answer, answers) = mpsc::channel();
        for request in &self.requests {
            let (arrival, answer) = (pending.arrival(), answer.clone());
            request.send(Request { arrival, answer }).map_err(|_| "a core's thread is gone")?;
        }
        drop(answer);

        // Every core's log is durable up to its barrier. The error would name the cores that are
        // missing.
        pending.wait_timeout(PATIENCE)?;

        // Each state is as of its core's barrier. Without all of them it would be a hole.
        let counts: Counts = answers.iter().map(|shard| (shard.core, shard.counts)).collect();
        if counts.len() != self.requests.len() {
            return Err("a core did not hand out its state".into());
        }
        self.snapshots.write(id, &counts)?;

        // Offsets and watermark are gathered from the commits that lie before the barriers.
        pending.complete(CheckpointDetails::default())?;
        self.next_id = id + 1;
        self.snapshots.remove_all_but(id)?;

        let checkpoint = self.wal.last_checkpoint().ok_or("it counts, and is not there")?;
        self.logged_bytes = checkpoint.cores.iter().map(|core| core.position).sum();
        let offsets = checkpoint.source_offsets.iter().map(|source| source.offset);
        println!(
            "  checkpoint {id} closes epoch {}: {} events, all before {} ms, in {} bytes of log; \
             {} bytes on disk",
            checkpoint.epoch,
            offsets.sum::<u64>(),
            checkpoint.watermark.ok_or("no commit has a watermark")?,
            self.logged_bytes,
            self.wal.disk_usage()?.total_bytes()
        );
        Ok(id)
    }

    fn wait_until(&self, logged_bytes: u64, all_done: &Receiver<()>) -> bool {
        loop {
            if self.watches.iter().map(SyncedWatch::position).sum::<u64>() >= logged_bytes {
                return true;
            }
            // Nobody sends: every core drops its end when its work is done.
            if all_done.recv_timeout(LOOK_AFTER) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
        }
    }
}
