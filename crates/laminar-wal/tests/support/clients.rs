//! Clients of one core's log, and what each of them was promised.

use std::sync::atomic::{AtomicU64, Ordering};

use laminar_wal::{RecoveryMode, SharedWriter, SyncTicket, WalEntry};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::Result;

/// Each client appends entries that it numbers, and remembers how many of them were acked.
///
/// What is recovered must have, of each client, the first so many of its entries, in order, and
/// those that were acked among them.
#[derive(Debug)]
pub(crate) struct Clients {
    core: u16,
    clients: Vec<Client>,
}

#[derive(Debug, Default)]
struct Client {
    appended: AtomicU64,
    acked: AtomicU64,
}

impl Clients {
    /// So many clients of core 0.
    pub(crate) fn new(count: usize) -> Self {
        Self::of_core(0, count)
    }

    pub(crate) fn of_core(core: u16, count: usize) -> Self {
        Self { core, clients: (0..count).map(|_| Client::default()).collect() }
    }

    pub(crate) fn indices(&self) -> std::ops::Range<usize> {
        0..self.clients.len()
    }

    /// The key of a client's next entry. The entry may be in the log from now on.
    pub(crate) fn next_key(&self, client: usize) -> Vec<u8> {
        let number = self.clients[client].appended.fetch_add(1, Ordering::SeqCst);
        format!("{client}/{number}").into_bytes()
    }

    /// Appends the next entry of a client.
    pub(crate) fn append(&self, client: usize, writer: &SharedWriter) -> Result<SyncTicket> {
        writer.append_put(&self.next_key(client), &[b'v'; 50])
    }

    /// Appends the next entry of a client and waits until it is durable.
    pub(crate) fn append_and_wait(&self, client: usize, writer: &SharedWriter) -> Result<()> {
        self.append(client, writer)?.wait()?;
        self.is_acked(client);
        Ok(())
    }

    /// Everything that a client has appended so far was acked.
    pub(crate) fn is_acked(&self, client: usize) {
        let appended = self.clients[client].appended.load(Ordering::SeqCst);
        self.clients[client].acked.fetch_max(appended, Ordering::SeqCst);
    }

    /// The first so many entries of a client were acked.
    pub(crate) fn are_acked(&self, client: usize, count: u64) {
        self.clients[client].acked.fetch_max(count, Ordering::SeqCst);
    }

    pub(crate) fn all_are_acked(&self) {
        self.indices().for_each(|client| self.is_acked(client));
    }

    pub(crate) fn appended(&self) -> u64 {
        self.clients.iter().map(|client| client.appended.load(Ordering::SeqCst)).sum()
    }

    /// What is against the promises in what was recovered.
    pub(crate) fn check(&self, entries: &[WalEntry]) -> Result<(), String> {
        let mut found = vec![0; self.clients.len()];
        let of_core = entries.iter().filter(|entry| entry.core_id == self.core);
        for (sequence, entry) in of_core.enumerate() {
            if entry.sequence != sequence as u64 {
                return Err(format!("sequence {} follows {sequence} entries", entry.sequence));
            }
            // Barriers belong to nobody, and so do other keys.
            let key = entry.key().map_or("", |key| std::str::from_utf8(key).unwrap());
            let Some((client, number)) = key.split_once('/') else { continue };
            let (client, number): (usize, u64) = (client.parse().unwrap(), number.parse().unwrap());
            if number != found[client] {
                return Err(format!("client {client}: {number} follows {}", found[client]));
            }
            found[client] += 1;
        }
        for (index, (client, found)) in self.clients.iter().zip(found).enumerate() {
            let acked = client.acked.load(Ordering::SeqCst);
            if found < acked {
                return Err(format!(
                    "client {index}: {acked} entries are acked, {found} came back"
                ));
            }
        }
        Ok(())
    }

    /// Loses power in several ways, and checks what is recovered after each.
    pub(crate) fn survive_power_loss(&self, disk: &SimStorage, story: &str) {
        for plan in [
            CrashPlan::lose_everything_unsynced(),
            CrashPlan::keep_everything(),
            CrashPlan::random(7),
        ] {
            let entries = recovered(&disk.crash(plan));
            self.check(&entries).unwrap_or_else(|broken| panic!("{story}, {plan:?}: {broken}"));
        }
    }
}

/// What a reader of the disk recovers.
pub(crate) fn recovered(disk: &SimStorage) -> Vec<WalEntry> {
    let storage = super::storage(disk);
    let log = wal_recovery::recover(&storage, RecoveryMode::TornTail).unwrap();
    log.replay(&storage).entries().unwrap()
}

/// What is recovered after the worst that power loss may do at this moment.
pub(crate) fn surviving(disk: &SimStorage) -> Vec<WalEntry> {
    recovered(&disk.crash(CrashPlan::lose_everything_unsynced()))
}

/// How many entries of a core are durable at this moment.
pub(crate) fn durable_entries(disk: &SimStorage, core: u16) -> usize {
    surviving(disk).iter().filter(|entry| entry.core_id == core).count()
}
