//! Tickets, shared writers, atomic batches, and what is durable as the log itself says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use laminar_wal::{
    SharedWriter, SyncTicket, SyncedWatch, WalEntry, WalError, WalOperation, WriteBatch,
};

use super::{Life, MayBeFull, Run, Writer, index};
use crate::Checked;
use crate::operations::{Pick, WithTicket};
use crate::oracle::{batch_record_bytes, record_bytes};

/// A core's handles, and what they must say.
#[derive(Debug)]
pub(super) struct Shared {
    handles: Vec<SharedWriter>,
    pub(super) epoch: u64,
}

/// A ticket, and what it speaks of.
#[derive(Debug)]
pub(super) struct Ticket {
    ticket: SyncTicket,
    life: Life,
    position: u64,
    entries: usize,
    /// It was polled, and was not ready.
    waker: Option<Arc<WakeCount>>,
}

#[derive(Debug, Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Run {
    // ---- appending ----

    /// Appends with one of the core's handles.
    pub(super) fn append_shared(&mut self, core: u16, entry: &WalEntry) -> Result<u64, WalError> {
        let handle = self.a_handle_of(core);
        let ticket = match &entry.operation {
            WalOperation::Put { key, value } => handle.append_put(key, value),
            WalOperation::Delete { key } => handle.append_delete(key),
            WalOperation::Checkpoint { id } => handle.append_checkpoint(*id),
            WalOperation::Commit { offsets, watermark } => {
                handle.append_commit(offsets, *watermark)
            }
            WalOperation::EpochBarrier { .. } => handle.append_epoch_barrier(),
        }?;
        let entries = self.model(core).entries.len() + 1;
        let end = self.keep_ticket(core, ticket, entries);
        Ok(end.saturating_sub(record_bytes(entry)))
    }

    pub(super) fn append_batch(&mut self, core: Pick, count: u64, value_bytes: usize) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let (first, epoch) = (self.model(core).sequence(), *self.epoch_mut(core));
        let mut batch = WriteBatch::new();
        let mut entries = Vec::new();
        for number in 0..count {
            let (key, value) = (number.to_le_bytes().to_vec(), self.bytes(value_bytes));
            let operation = match number % 5 {
                3 => WalOperation::Delete { key },
                4 => WalOperation::Checkpoint { id: number },
                _ => WalOperation::Put { key, value },
            };
            match &operation {
                WalOperation::Delete { key } => batch.delete(key),
                WalOperation::Put { key, value } => batch.put(key, value),
                _ => batch.checkpoint(number),
            };
            let sequence = first + number;
            entries.push(WalEntry { epoch, sequence, core_id: core, timestamp_ns: 0, operation });
        }
        let appended = match self.log_mut().writers.get_mut(&core) {
            Some(Writer { writer, .. }) => writer.append_batch(&batch),
            None => match self.a_handle_of(core).append_batch(&batch) {
                Ok(ticket) => {
                    let behind = self.model(core).entries.len() + entries.len();
                    let end = self.keep_ticket(core, ticket, behind);
                    let bytes = if batch.is_empty() { 0 } else { batch_record_bytes(&entries) };
                    Ok(end.saturating_sub(bytes))
                }
                Err(error) => Err(error),
            },
        };
        self.batch_is_appended(core, entries, appended)?;
        self.check_writer(core)
    }

    fn batch_is_appended(
        &mut self,
        core: u16,
        entries: Vec<WalEntry>,
        appended: Result<u64, WalError>,
    ) -> Checked {
        let limit_bytes = u64::from(self.log().options.max_record_bytes);
        // Without the header of the record.
        let is_too_large = batch_record_bytes(&entries) - 8 > limit_bytes;
        match appended {
            Ok(_) if is_too_large => Err("a batch above the limit was accepted".to_owned()),
            Ok(position) if entries.is_empty() => {
                self.is_not_poisoned(core, "an append of nothing")?;
                match self.model(core).position {
                    end if end == position => Ok(()),
                    end => Err(format!("an empty batch at {end} went to {position}")),
                }
            }
            Ok(position) => {
                self.is_appended_at(core, position)?;
                self.model(core).append_batch(entries, position);
                Ok(())
            }
            Err(WalError::RecordTooLarge { .. }) if is_too_large => Ok(()),
            Err(error) => self.excuse(core, &error, MayBeFull::Yes),
        }
    }

    // ---- submitting ----

    pub(super) fn submit(&mut self, core: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        match self.writer_of(core).writer.submit() {
            Ok(ticket) => self.is_submitted(core, ticket),
            Err(error) => self.excuse(core, &error, MayBeFull::No),
        }
    }

    pub(super) fn try_submit(&mut self, core: Pick) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        let stalls = self.writer_of(core).writer.stalls().buffers;
        match self.writer_of(core).writer.try_submit() {
            Ok(Some(ticket)) => self.is_submitted(core, ticket)?,
            // Nothing has changed; that is seen behind every operation.
            Ok(None) => self.is_not_poisoned(core, "trying to submit")?,
            Err(error) => self.excuse(core, &error, MayBeFull::No)?,
        }
        match self.writer_of(core).writer.stalls().buffers {
            unchanged if unchanged == stalls => Ok(()),
            _ => Err(format!("core {core}: what was only tried has waited")),
        }
    }

    fn is_submitted(&mut self, core: u16, ticket: SyncTicket) -> Checked {
        self.is_not_poisoned(core, "a submit")?;
        let model = self.model(core);
        let (position, entries) = (model.position, model.entries.len());
        if ticket.position() != position {
            return Err(format!("{ticket:?} for a log that ends at {position}"));
        }
        self.keep_ticket(core, ticket, entries);
        self.all_is_submitted(core);
        self.is_asked(self.life(core), position);
        Ok(())
    }

    fn keep_ticket(&mut self, core: u16, ticket: SyncTicket, entries: usize) -> u64 {
        let (life, position) = (self.life(core), ticket.position());
        self.tickets.push(Ticket { ticket, life, position, entries, waker: None });
        position
    }

    pub(super) fn all_is_submitted(&mut self, core: u16) {
        let model = self.model(core);
        let submitted = (model.entries.len(), model.position);
        if let Some(writer) = self.log_mut().writers.get_mut(&core) {
            writer.submitted = submitted;
        }
    }

    /// Somebody asked for this who cannot lead, so the background must.
    fn is_asked(&mut self, life: Life, position: u64) {
        if self.is_alive(life) {
            let asked = self.log_mut().asked.entry(life.core).or_insert((life, 0));
            let before = if asked.0 == life { asked.1 } else { 0 };
            *asked = (life, before.max(position));
        }
    }

    // ---- tickets ----

    pub(super) fn do_with_ticket(&mut self, pick: Pick, what: WithTicket) -> Checked {
        let Some(at) = index(pick, self.tickets.len()) else {
            return Ok(());
        };
        let mut ticket = self.tickets.swap_remove(at);
        let (life, position) = (ticket.life, ticket.position);
        let is_of_this_opening = life.opening == self.openings;
        let before = (!is_of_this_opening).then(|| self.disk.fingerprint());
        match what {
            WithTicket::Wait => {
                let waited = ticket.ticket.wait();
                self.ticket_says(&ticket, waited.map(|()| true))?;
            }
            WithTicket::WaitABit => {
                let waited = ticket.ticket.wait_timeout(Duration::from_micros(20));
                self.ticket_says(&ticket, waited)?;
            }
            WithTicket::Ask => {
                let asked = ticket.ticket.is_durable();
                self.ticket_says(&ticket, asked)?;
            }
            WithTicket::Poll => {
                let wakes = Arc::new(WakeCount::default());
                let waker = Waker::from(Arc::clone(&wakes));
                let future = std::pin::Pin::new(&mut ticket.ticket);
                match future.poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(done) => self.ticket_says(&ticket, done.map(|()| true))?,
                    Poll::Pending => {
                        self.ticket_says(&ticket, Ok(false))?;
                        ticket.waker = Some(wakes);
                    }
                }
            }
            WithTicket::Clone => {
                let copy = ticket.ticket.clone();
                self.tickets.push(Ticket { ticket: copy, waker: None, ..ticket });
                return Ok(());
            }
            WithTicket::Drop => {
                drop(ticket);
                self.is_asked(life, position);
                return self.run_jobs_at_times();
            }
        }
        self.tickets.push(ticket);
        if is_of_this_opening {
            self.run_jobs_at_times()?;
        }
        match before {
            Some(before)
                if self.disk.simulation().is_some() && before != self.disk.fingerprint() =>
            {
                Err("a ticket of an earlier opening wrote to the disk".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn ticket_says(&mut self, ticket: &Ticket, says: Result<bool, WalError>) -> Checked {
        let Ticket { life, position, entries, .. } = *ticket;
        let is_alive = self.is_alive(life);
        match says {
            Ok(true) if is_alive => {
                self.model(life.core).ack(entries, position);
                Ok(())
            }
            Ok(true) => Ok(()),
            Ok(false) if !is_alive => {
                Err(format!("the life of a log is over, and {ticket:?} is undecided"))
            }
            Ok(false) => {
                self.is_asked(life, position);
                self.is_not_poisoned(life.core, "an undecided ticket")
            }
            // It told whoever asked for it while the log was open.
            Err(WalError::Poisoned { .. }) if life.opening != self.openings => Ok(()),
            Err(error) if !is_alive => Err(format!("durable, then cut, then {error}: {ticket:?}")),
            Err(error) => self.excuse(life.core, &error, MayBeFull::No),
        }
    }

    /// Who polled a ticket is woken when it is decided, and not before. What a real disk does is
    /// over before it is seen here.
    pub(super) fn check_tickets(&mut self) -> Checked {
        if self.disk.simulation().is_none() {
            return Ok(());
        }
        for ticket in &self.tickets {
            let Some(wakes) = &ticket.waker else { continue };
            let woken = wakes.0.load(Ordering::SeqCst);
            let life = ticket.life;
            let is_decided = !self.is_alive(life)
                || self.is_durable(life.core, ticket.position)
                || self.has_failed();
            match (is_decided, woken) {
                (true, 1) | (false, 0) => {}
                // A failure that nobody has met yet.
                (true, 0) if self.has_failed() => {}
                _ => return Err(format!("decided: {is_decided}, woken {woken} times: {ticket:?}")),
            }
        }
        Ok(())
    }

    /// Often nothing comes between a question and the background's answer.
    fn run_jobs_at_times(&mut self) -> Checked {
        match self.disk.simulation() {
            Some(machine) if self.random.chance(30) => {
                machine.run_jobs();
                self.whoever_asked_is_served()
            }
            _ => Ok(()),
        }
    }

    /// Behind all jobs that were due, nobody waits who need not.
    pub(super) fn whoever_asked_is_served(&mut self) -> Checked {
        if self.has_failed() || self.log.is_none() {
            return Ok(());
        }
        if !self.log().options.group_commit.max_delay.is_zero() {
            return Ok(());
        }
        for (life, position) in self.log().asked.values() {
            if self.is_alive(*life) && !self.is_durable(life.core, *position) {
                return Err(format!(
                    "all jobs have run, and nobody has made core {} durable up to {position}",
                    life.core
                ));
            }
        }
        Ok(())
    }

    // ---- all cores ----

    pub(super) fn sync_all(&mut self) -> Checked {
        let Some(wal) = &self.log().wal else {
            return Ok(());
        };
        match wal.sync_all() {
            // On a core that was poisoned since, it says that all was durable before.
            Ok(()) => {
                let writers = self.log().writers.iter();
                let submitted = writers.map(|(core, writer)| (*core, writer.submitted));
                let submitted: Vec<(u16, (usize, u64))> = submitted.collect();
                for (core, (entries, position)) in submitted {
                    self.model(core).ack(entries, position);
                }
                let shared: Vec<u16> = self.log().shared.keys().copied().collect();
                for core in shared {
                    self.model(core).ack_all();
                }
                Ok(())
            }
            Err(error) => self.excuse_any(&error),
        }
    }

    /// What the log says is durable is acked by that.
    pub(super) fn watch(&mut self) -> Checked {
        let cores = self.log().writers.keys().chain(self.log().shared.keys());
        let cores: Vec<u16> = cores.copied().collect();
        for core in cores {
            let Some(position) = self.watch_of(core).map(|watch| watch.position()) else {
                continue;
            };
            let model = self.model(core);
            // Whether it was cut decides what the position means.
            if !model.doubtful_cuts.is_empty() {
                continue;
            }
            if position < model.acked_position || position > model.position {
                return Err(format!(
                    "core {core}: durable up to {position}, with {} acked and {} appended",
                    model.acked_position, model.position
                ));
            }
            model.ack_below(position);
        }
        Ok(())
    }

    fn watch_of(&self, core: u16) -> Option<SyncedWatch> {
        let log = self.log();
        let alone = log.writers.get(&core).map(|writer| writer.writer.watch());
        alone.or_else(|| log.shared.get(&core)?.handles.first().map(SharedWriter::watch))
    }

    fn is_durable(&self, core: u16, position: u64) -> bool {
        self.watch_of(core).is_none_or(|watch| watch.position() >= position)
    }

    // ---- sharing ----

    pub(super) fn share(&mut self, core: Pick, by_dropping: bool) -> Checked {
        let Some(core) = self.writing_core(core) else {
            return Ok(());
        };
        if self.log().wal.is_none() && by_dropping {
            return Ok(());
        }
        let Some(Writer { writer, epoch, .. }) = self.log_mut().writers.remove(&core) else {
            return Ok(());
        };
        let handle = if by_dropping {
            drop(writer);
            let Some(wal) = &self.log().wal else { return Ok(()) };
            match wal.shared_writer(core) {
                Ok(handle) => handle,
                Err(error) => return self.excuse(core, &error, MayBeFull::No),
            }
        } else {
            writer.into_shared()
        };
        let shared = Shared { handles: vec![handle], epoch };
        self.log_mut().shared.insert(core, shared);
        if let Some(wal) = &self.log().wal
            && !self.has_failed()
            && !matches!(wal.writer(core), Err(WalError::WriterTaken { .. }))
        {
            return Err(format!("core {core}: a writer for it alone, though it is shared"));
        }
        self.check_writer(core)
    }

    pub(super) fn clone_shared(&mut self, core: Pick) -> Checked {
        let Some(core) = self.sharing_core(core) else {
            return Ok(());
        };
        let another = match &self.log().wal {
            Some(wal) if self.random.clone().chance(50) => wal.shared_writer(core),
            _ => Ok(self.a_handle_of(core)),
        };
        match another {
            Ok(handle) => {
                self.log_mut().shared.entry(core).and_modify(|shared| shared.handles.push(handle));
                Ok(())
            }
            Err(error) => self.excuse(core, &error, MayBeFull::No),
        }
    }

    pub(super) fn drop_shared(&mut self, core: Pick) -> Checked {
        if let Some(core) = self.sharing_core(core)
            && let Some(shared) = self.log_mut().shared.get_mut(&core)
            && shared.handles.len() > 1
        {
            shared.handles.swap_remove(0);
        }
        Ok(())
    }

    pub(super) fn unshare(&mut self, core: Pick) -> Checked {
        let Some(core) = self.sharing_core(core).filter(|_| self.log().wal.is_some()) else {
            return Ok(());
        };
        self.log_mut().shared.remove(&core);
        self.take_writer(core)
    }

    pub(super) fn check_shared(&mut self, core: u16) -> Checked {
        let model = self.model(core);
        let (position, sequence) = (model.position, model.sequence());
        let Some(Shared { handles, epoch }) = self.log().shared.get(&core) else {
            return Ok(());
        };
        let expected = (core, position, sequence, *epoch);
        for handle in handles {
            let actual = (handle.core_id(), handle.position(), handle.sequence(), handle.epoch());
            if actual != expected {
                return Err(format!(
                    "core, position, sequence, epoch: {expected:?} was expected, the handle says \
                     {actual:?}"
                ));
            }
        }
        Ok(())
    }

    // ---- small helpers ----

    /// The core chosen among those that can be appended to.
    pub(super) fn appending_core(&self, pick: Pick) -> Option<u16> {
        let log = self.log();
        if log.shared.is_empty() {
            return self.writing_core(pick);
        }
        let mut cores: Vec<u16> = log.writers.keys().chain(log.shared.keys()).copied().collect();
        cores.sort_unstable();
        let core = u16::try_from(pick).ok().filter(|core| cores.contains(core));
        core.or_else(|| index(pick, cores.len()).map(|at| cores[at]))
    }

    fn sharing_core(&self, pick: Pick) -> Option<u16> {
        let shared = &self.log().shared;
        shared.keys().nth(index(pick, shared.len())?).copied()
    }

    /// One of the core's handles.
    pub(super) fn a_handle_of(&mut self, core: u16) -> SharedWriter {
        let pick = self.random.next();
        let handles = self.log().shared.get(&core).map(|shared| &shared.handles[..]);
        let handles = handles.unwrap_or_default();
        let at = index(pick, handles.len()).expect("the core is shared");
        handles[at].clone()
    }

    pub(super) fn epoch_mut(&mut self, core: u16) -> &mut u64 {
        let log = self.log_mut();
        match log.writers.get_mut(&core) {
            Some(writer) => &mut writer.epoch,
            None => &mut log.shared.get_mut(&core).expect("the core can be appended to").epoch,
        }
    }
}
