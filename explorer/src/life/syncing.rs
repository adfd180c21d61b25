//! Making entries durable: by oneself, by ticket, by proof, all cores at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use wal_storage::{Storage, WalError};
use wal_writer::{CoreWalWriter, SyncRequest, SyncTicket, Synced};

use super::{Life, LogLife};
use crate::Checked;
use crate::oracle::Acked;
use crate::random::index;
use crate::workload::{Pick, WithTicket};

/// A ticket, and what it speaks of.
#[derive(Debug)]
pub(super) struct Ticket {
    ticket: SyncTicket,
    life: LogLife,
    acks: Acked,
    /// When the background was told to see to it, by the machine's clock.
    handed_over_at: Option<Duration>,
    /// It was polled, and was not ready.
    waker: Option<Arc<WakeCount>>,
}

impl Ticket {
    /// How often whoever polled it last was woken.
    fn wakes(&self) -> Option<usize> {
        self.waker.as_ref().map(|wakes| wakes.0.load(Ordering::SeqCst))
    }
}

/// More than any commit takes.
const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
pub(super) struct Request {
    request: SyncRequest,
    life: LogLife,
    acks: Acked,
}

#[derive(Debug)]
pub(super) struct Proof {
    proof: Synced,
    life: LogLife,
}

impl Request {
    pub(super) const fn core(&self) -> u16 {
        self.life.core
    }
}

impl Proof {
    pub(super) fn into_proof(self) -> Synced {
        self.proof
    }

    pub(super) const fn core(&self) -> u16 {
        self.life.core
    }
}

impl Life<'_> {
    pub(super) fn sync(&mut self, core: Pick) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let synced = match self.writers.get_mut(&core) {
            Some(writer) => writer.sync(),
            None => match self.a_shared_writer(core) {
                Some(shared) => shared.sync(),
                None => return Ok(()),
            },
        };
        match synced {
            Ok(()) => {
                self.is_not_poisoned(core, "a sync")?;
                self.oracle.core(core).ack_all();
                match self.writers.get(&core).map_or(0, CoreWalWriter::entries_since_sync) {
                    0 => Ok(()),
                    since => Err(format!("core {core}: a sync was Ok, and {since} entries since")),
                }
            }
            Err(error) => self.excuse(&error),
        }
    }

    pub(super) fn submit(&mut self, core: Pick) -> Checked {
        let Some((core, writer)) = self.writer_of(core) else {
            return Ok(());
        };
        match writer.submit() {
            Ok(ticket) => self.is_submitted(core, ticket),
            Err(error) => self.excuse(&error),
        }
    }

    pub(super) fn try_submit(&mut self, core: Pick) -> Checked {
        let Some((core, writer)) = self.writer_of(core) else {
            return Ok(());
        };
        let stalls = writer.stalls().buffers;
        let tried = writer.try_submit();
        if writer.stalls().buffers != stalls {
            return Err(format!("core {core}: what was only tried has waited"));
        }
        match tried {
            Ok(Some(ticket)) => self.is_submitted(core, ticket),
            Ok(None) => self.is_not_poisoned(core, "trying to submit"),
            Err(error) => self.excuse(&error),
        }
    }

    fn is_submitted(&mut self, core: u16, ticket: SyncTicket) -> Checked {
        self.is_not_poisoned(core, "a submit")?;
        let end = self.oracle.core(core).end();
        if ticket.position() != end.position {
            return Err(format!("{ticket:?} for a log that ends at {}", end.position));
        }
        self.keep_ticket(core, ticket, end.entries);
        self.submitted.insert(core, end);
        let now = self.machine.now();
        if let Some(submitted) = self.tickets.last_mut() {
            submitted.handed_over_at = Some(now);
        }
        Ok(())
    }

    pub(super) fn keep_ticket(&mut self, core: u16, ticket: SyncTicket, entries: usize) {
        let (life, position) = (self.log_life(core), ticket.position());
        let acks = Acked { entries, position };
        self.tickets.push(Ticket { ticket, life, acks, handed_over_at: None, waker: None });
    }

    pub(super) fn do_with_ticket(&mut self, pick: Pick, what: WithTicket) -> Checked {
        let Some(at) = index(pick, self.tickets.len()) else {
            return Ok(());
        };
        let mut ticket = self.tickets.swap_remove(at);
        match what {
            WithTicket::Wait => {
                let waited = ticket.ticket.wait();
                self.ticket_says(&mut ticket, waited.map(|()| true))?;
            }
            WithTicket::WaitNoTime => {
                let waited = ticket.ticket.wait_timeout(Duration::ZERO);
                self.ticket_says(&mut ticket, waited)?;
            }
            WithTicket::WaitLong => match ticket.ticket.wait_timeout(LONG) {
                Ok(false) => return Err(format!("{LONG:?} were not enough for {ticket:?}")),
                waited => self.ticket_says(&mut ticket, waited)?,
            },
            WithTicket::Ask => {
                let asked = ticket.ticket.is_durable();
                self.ticket_says(&mut ticket, asked)?;
            }
            WithTicket::Poll => {
                let wakes = Arc::new(WakeCount::default());
                let waker = Waker::from(Arc::clone(&wakes));
                let future = Pin::new(&mut ticket.ticket);
                match future.poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(done) => self.ticket_says(&mut ticket, done.map(|()| true))?,
                    Poll::Pending => {
                        self.ticket_says(&mut ticket, Ok(false))?;
                        ticket.waker = Some(wakes);
                    }
                }
            }
            WithTicket::Clone => {
                let copy = Ticket { ticket: ticket.ticket.clone(), waker: None, ..ticket };
                self.tickets.push(copy);
            }
            WithTicket::Drop => return Ok(()),
        }
        self.tickets.push(ticket);
        Ok(())
    }

    fn ticket_says(&mut self, ticket: &mut Ticket, says: Result<bool, WalError>) -> Checked {
        let is_alive = self.is_alive(ticket.life);
        match says {
            Ok(true) if is_alive => {
                self.oracle.core(ticket.life.core).ack(ticket.acks);
                Ok(())
            }
            Ok(true) => Ok(()),
            Ok(false) if is_alive => {
                ticket.handed_over_at.get_or_insert_with(|| self.machine.now());
                Ok(())
            }
            Ok(false) => Err(format!("that life of the log is over, and {ticket:?} is undecided")),
            Err(error) => self.excuse(&error),
        }
    }

    /// The background has run for as long as it had something to do: whoever it was to see to by
    /// now is served, and was woken.
    pub(super) fn background_has_served(&mut self) -> Checked {
        let now = self.machine.now();
        for mut ticket in std::mem::take(&mut self.tickets) {
            let is_due =
                ticket.handed_over_at.is_some_and(|at| now.saturating_sub(at) >= self.max_delay);
            if is_due && self.directory.is_none() && self.is_alive(ticket.life) {
                let says = ticket.ticket.is_durable();
                if matches!(says, Ok(false)) {
                    return Err(format!("the background has not seen to {ticket:?}"));
                }
                self.ticket_says(&mut ticket, says)?;
            }
            self.tickets.push(ticket);
        }
        Ok(())
    }

    /// Whoever polled a ticket is woken once, when it is decided, and not before. What a real
    /// directory's background does is over before it is seen here.
    pub(super) fn check_wakes(&self) -> Checked {
        if self.directory.is_some() {
            return Ok(());
        }
        for ticket in &self.tickets {
            let Some(wakes) = ticket.wakes() else { continue };
            let durable = self.witnessed.position_of(ticket.life.core);
            let is_decided = !self.is_alive(ticket.life)
                || durable.is_none_or(|durable| durable >= ticket.acks.position);
            match (is_decided, wakes) {
                (true, 1) | (false, 0) => {}
                // A failure decides too, once somebody has met it.
                _ if self.has_failed() && wakes <= 1 => {}
                _ => {
                    return Err(format!("decided: {is_decided}, woken {wakes} times: {ticket:?}"));
                }
            }
        }
        Ok(())
    }

    /// A log that is closed, or poisoned, keeps nobody waiting.
    pub(super) fn every_ticket_is_settled(&mut self) -> Checked {
        for ticket in std::mem::take(&mut self.tickets) {
            match ticket.ticket.is_durable() {
                Ok(false) => return Err(format!("the log is closed, and {ticket:?} is undecided")),
                Ok(true) => {}
                Err(error) => self.excuse(&error)?,
            }
            if ticket.wakes() == Some(0) {
                return Err(format!("the log is closed, and nobody woke who polled {ticket:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn start_sync(&mut self, core: Pick) -> Checked {
        let Some((core, writer)) = self.writer_of(core) else {
            return Ok(());
        };
        match writer.start_sync() {
            Ok(request) => {
                let (life, acks) = (self.log_life(core), self.oracle.core(core).end());
                self.submitted.insert(core, acks);
                self.requests.push(Request { request, life, acks });
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }

    pub(super) fn run_request(&mut self, pick: Pick) -> Checked {
        let Some(at) = index(pick, self.requests.len()) else {
            return Ok(());
        };
        let Request { request, life, acks } = self.requests.swap_remove(at);
        if life.opening != self.openings {
            return self.run_request_of_the_past(request);
        }
        let is_alive = self.is_alive(life);
        match request.run() {
            Ok(proof) if is_alive => {
                self.oracle.core(life.core).ack(acks);
                self.proofs.push(Proof { proof, life });
                Ok(())
            }
            Ok(_) => Err(format!("a request of {life:?} was run, which is over")),
            Err(WalError::ProofRejected { .. }) if !is_alive || self.has_failed() => Ok(()),
            Err(error) => self.excuse(&error),
        }
    }

    /// Whatever it says, nothing that an earlier opening promised is at stake, and it does nothing.
    fn run_request_of_the_past(&self, request: SyncRequest) -> Checked {
        let before = self.machine.content_fingerprint();
        let _ = request.run();
        match self.machine.content_fingerprint() == before {
            true => Ok(()),
            false => Err("a request of an earlier opening wrote to the disk".to_owned()),
        }
    }

    pub(super) fn mark_synced(&mut self, pick: Pick) -> Checked {
        let Some(at) = index(pick, self.proofs.len()) else {
            return Ok(());
        };
        let Proof { proof, life } = self.proofs.swap_remove(at);
        let is_alive = self.is_alive(life);
        let Some(writer) = self.writers.get_mut(&life.core) else {
            return Ok(());
        };
        match writer.mark_synced(proof) {
            Ok(()) if is_alive => Ok(()),
            Err(WalError::ProofRejected { .. }) if !is_alive || self.has_failed() => Ok(()),
            result => Err(format!("a proof of {life:?}, alive: {is_alive}: {result:?}")),
        }
    }

    pub(super) fn sync_all(&mut self) -> Checked {
        let Some(wal) = &self.wal else {
            return Ok(());
        };
        match wal.sync_all() {
            Ok(()) => {
                // What a writer of its own core holds, it has not submitted.
                for &core in self.shared.keys() {
                    self.oracle.core(core).ack_all();
                }
                for (&core, &submitted) in &self.submitted {
                    self.oracle.core(core).ack(submitted);
                }
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }

    /// What the log says is durable is acked by that.
    pub(super) fn watch(&mut self, core: Pick) -> Checked {
        let Some(core) = self.appending_core(core) else {
            return Ok(());
        };
        let Some(Ok(watch)) = self.wal.as_ref().map(|wal| wal.watch(core)) else {
            return Ok(());
        };
        // Whether it was cut decides what the position means.
        if !self.oracle.doubtful_cuts.is_empty() {
            return Ok(());
        }
        let position = watch.position();
        let oracle = self.oracle.core(core);
        if position < oracle.acked.position || position > oracle.position {
            return Err(format!(
                "core {core}: durable up to {position}, with {:?} and {} appended",
                oracle.acked, oracle.position
            ));
        }
        oracle.ack_below(position);
        Ok(())
    }

    fn writer_of(&mut self, core: Pick) -> Option<(u16, &mut CoreWalWriter)> {
        let core = self.writing_core(core)?;
        self.writers.get_mut(&core).map(|writer| (core, writer))
    }
}
