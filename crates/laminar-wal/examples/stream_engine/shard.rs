//! What one core does: count events, log what it did, and hand out its state when it is asked to.
//!
//! Some events at a time become one atomic batch: the new counts, and a commit that says how far
//! the source was read for them. After a crash both are there or neither is, so no event is counted
//! twice or not at all, and replaying needs no rule for counts without their commit.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};

use laminar_wal::{
    CheckpointArrival, CoreWalWriter, EntryView, Offsets, OperationView, WriteBatch,
};

use crate::Result;
use crate::source;

/// How many events share a commit.
const EVENTS_PER_COMMIT: usize = 100;

/// A core's state. It is in memory; snapshots and the log are what makes it survive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) core: u16,
    /// Events of each user.
    pub(crate) counts: BTreeMap<u64, u64>,
    /// Every event of the core's source below this offset is counted.
    pub(crate) next_offset: u64,
}

/// A checkpoint is being made: arrive, and answer with the state as it is then.
pub(crate) struct Request {
    pub(crate) arrival: CheckpointArrival,
    /// Dropped with the request if the core is gone, so that nobody waits for it.
    pub(crate) answer: Sender<Shard>,
}

impl Shard {
    /// Counts the rest of the source, and answers requests until nobody can make one any more.
    /// `at_work` is dropped when the source is at its end.
    pub(crate) fn run(
        mut self,
        mut writer: CoreWalWriter,
        requests: &Receiver<Request>,
        at_work: Sender<()>,
    ) -> Result<()> {
        let source = source::name(self.core);
        let mut events = source::read(self.core, self.next_offset).peekable();
        let mut batch = WriteBatch::new();
        while events.peek().is_some() {
            batch.clear();
            let mut time_ms = None;
            for event in events.by_ref().take(EVENTS_PER_COMMIT) {
                let count = self.counts.entry(event.user).or_default();
                *count += 1;
                self.next_offset += 1;
                time_ms = Some(event.time_ms);
                batch.put(&event.user.to_le_bytes(), &count.to_le_bytes());
            }
            batch.commit(Offsets::try_from_pairs([(&source, self.next_offset)])?, time_ms);
            writer.append_batch(&batch)?;
            // Durable soon, in the background. Who answers clients keeps the ticket until then.
            drop(writer.submit()?);
            while let Ok(request) = requests.try_recv() {
                self.answer(&request, &mut writer)?;
            }
        }
        drop(at_work);
        while let Ok(request) = requests.recv() {
            self.answer(&request, &mut writer)?;
        }
        Ok(writer.close()?)
    }

    /// What is in the state now is what the log has before the barrier.
    fn answer(&self, request: &Request, writer: &mut CoreWalWriter) -> Result<()> {
        request.arrival.arrive(writer)?;
        // Whoever asked may have given up.
        let _ = request.answer.send(self.clone());
        Ok(())
    }

    /// Takes in an entry of the core's log.
    pub(crate) fn apply(&mut self, entry: EntryView<'_>) -> Result<()> {
        match entry.operation() {
            OperationView::Put { key, value } => {
                let user = u64::from_le_bytes(key.try_into()?);
                self.counts.insert(user, u64::from_le_bytes(value.try_into()?));
            }
            OperationView::Commit { offsets, .. } => {
                let offset = offsets.get(&source::name(self.core));
                self.next_offset = offset.ok_or("a commit of another source")?;
            }
            OperationView::EpochBarrier { .. } => {}
            other => return Err(format!("not written by this engine: {other:?}").into()),
        }
        Ok(())
    }
}

/// What a core's state must be in the end.
pub(crate) fn counted_without_a_log(core: u16) -> Shard {
    let mut counts = BTreeMap::new();
    for event in source::read(core, 0) {
        *counts.entry(event.user).or_default() += 1;
    }
    Shard { core, counts, next_offset: source::EVENTS }
}
