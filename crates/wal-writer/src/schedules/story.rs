//! A log on a [`Machine`] beside what it promised: what was appended, what was acked.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test that called it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::rand::Rng;
use wal_recovery::{RecoveryMode, recover};
use wal_sim::{CrashPlan, SimStorage};
use wal_storage::{Result, Storage};

use super::machine::{Background, Machine};
use super::tasks::block_on;
use crate::group_commit::GroupCommit;
use crate::options::LogOptions;
use crate::shared_writer::SharedWriter;
use crate::ticket::SyncTicket;
use crate::wal::{CoreSelection, Wal};
use crate::watch::SyncedWatch;
use crate::writer::CoreWalWriter;

pub(super) struct Story {
    pub(super) machine: Arc<Machine>,
    watches: Vec<SyncedWatch>,
    /// Under std's lock: no other thread runs between an ack and the note of it.
    told: Mutex<Told>,
}

/// What a program knows of its log.
#[derive(Debug, Clone, Default)]
struct Told {
    appended: BTreeMap<u16, Vec<Appended>>,
    /// Everything below was acked.
    acked: BTreeMap<u16, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Appended {
    end_position: u64,
    key: Vec<u8>,
}

/// Two buffers in which two entries have room, and few of them in a segment.
pub(super) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 32 * 1024,
        max_record_bytes: 64 * 1024,
        batch_bytes: 4096,
        in_flight_bytes: 8192,
        ..LogOptions::default()
    }
}

/// As [`small`], and tickets wait for company.
pub(super) fn small_and_patient() -> LogOptions {
    let max_delay = Duration::from_millis(2);
    let group_commit = GroupCommit { max_delay, max_entries: 3, ..GroupCommit::default() };
    LogOptions { group_commit, ..small() }
}

/// Shorter than those wait who wait for company.
const A_MOMENT: Duration = Duration::from_micros(100);

/// A number below `count`.
pub(super) fn any_of(count: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..count)
}

impl Story {
    /// Opens a new log of so many cores.
    pub(super) fn begin(cores: u16, options: LogOptions) -> (Arc<Self>, Wal, Background) {
        let (machine, background) = Machine::start();
        let storage = Arc::clone(&machine) as Arc<dyn Storage>;
        let (wal, _) = Wal::open(storage, options, CoreSelection::First(cores)).unwrap();
        let watches = (0..cores).map(|core| wal.watch(core).unwrap()).collect();
        let story = Self { machine, watches, told: Mutex::default() };
        (Arc::new(story), wal, background)
    }

    /// Opens the log once more, when it is closed.
    pub(super) fn open_again(&self) -> Wal {
        let storage = Arc::clone(&self.machine) as Arc<dyn Storage>;
        let cores = CoreSelection::First(self.watches.len().try_into().unwrap());
        Wal::open(storage, small(), cores).unwrap().0
    }

    pub(super) fn watch(&self, core: u16) -> &SyncedWatch {
        &self.watches[usize::from(core)]
    }

    // ---- what clients do ----

    /// Appends an entry of one of several sizes.
    pub(super) fn append(&self, writer: &SharedWriter, key: &str) -> Result<SyncTicket> {
        let ticket = writer.append_put(key.as_bytes(), &vec![7; any_of(3) * 1000])?;
        self.was_appended(writer.core_id(), ticket.position(), key);
        Ok(ticket)
    }

    fn was_appended(&self, core: u16, end_position: u64, key: &str) {
        let appended = Appended { end_position, key: key.into() };
        self.told.lock().unwrap().appended.entry(core).or_default().push(appended);
    }

    fn was_acked(&self, core: u16, position: u64) {
        let mut told = self.told.lock().unwrap();
        let acked = told.acked.entry(core).or_default();
        *acked = position.max(*acked);
    }

    /// Sees to the ticket in one of the ways there are. An error is for whoever breaks the disk to
    /// expect.
    pub(super) fn use_ticket(&self, mut ticket: SyncTicket) -> Result<()> {
        let (core, position) = (ticket.core_id(), ticket.position());
        let is_durable = match any_of(7) {
            0 => ticket.wait().map(|()| true),
            1 => ticket.wait_timeout(Duration::ZERO),
            2 => ticket.wait_timeout(A_MOMENT),
            3 => block_on(&mut ticket).map(|()| true),
            4 => ticket.is_durable(),
            5 => {
                drop(ticket);
                self.watch(core).wait_for(position).map(|()| true)
            }
            _ => Ok(false),
        };
        if is_durable? {
            self.was_acked(core, position);
        }
        Ok(())
    }

    pub(super) fn await_ticket(&self, mut ticket: SyncTicket) {
        block_on(&mut ticket).unwrap();
        self.was_acked(ticket.core_id(), ticket.position());
    }

    pub(super) fn wait_for_ticket(&self, ticket: SyncTicket) {
        ticket.wait().unwrap();
        self.was_acked(ticket.core_id(), ticket.position());
    }

    pub(super) fn wait_a_moment_for_ticket(&self, ticket: SyncTicket) {
        if ticket.wait_timeout(A_MOMENT).unwrap() {
            self.was_acked(ticket.core_id(), ticket.position());
        }
    }

    /// After a cut the ticket is as good as any, but speaks of what is not there any more.
    pub(super) fn use_ticket_of_any_life(&self, mut ticket: SyncTicket) {
        match any_of(3) {
            0 => ticket.wait().unwrap(),
            1 => block_on(&mut ticket).unwrap(),
            _ => {}
        }
    }

    /// Syncs all cores: what was appended before has been acked then.
    pub(super) fn sync_all(&self, wal: &Wal) {
        let ends = self.ends();
        wal.sync_all().unwrap();
        ends.into_iter().for_each(|(core, end)| self.was_acked(core, end));
        self.survives_power_loss();
    }

    // ---- what a writer does that nobody shares ----

    pub(super) fn append_alone(&self, writer: &mut CoreWalWriter, key: &str) {
        writer.append_put(key.as_bytes(), &vec![7; any_of(3) * 1000]).unwrap();
        self.was_appended(writer.core_id(), writer.position(), key);
    }

    /// Keeps so many entries.
    pub(super) fn truncate(&self, writer: &mut CoreWalWriter, count: usize) {
        let core = writer.core_id();
        let kept = self.told.lock().unwrap().appended[&core][..count].to_vec();
        let end = kept.last().map_or(0, |entry| entry.end_position);
        writer.truncate(end).unwrap();
        let mut told = self.told.lock().unwrap();
        told.appended.insert(core, kept);
        told.acked.insert(core, end);
    }

    /// What was appended up to now, as far as the appenders know.
    fn ends(&self) -> Vec<(u16, u64)> {
        let told = self.told.lock().unwrap();
        let ends = told.appended.iter().map(|(core, appended)| {
            (*core, appended.iter().map(|entry| entry.end_position).max().unwrap_or(0))
        });
        ends.collect()
    }

    // ---- what must hold ----

    /// The power fails at this moment: everything acked comes back, whole and in order.
    pub(super) fn survives_power_loss(&self) {
        let claimed: Vec<u64> = self.watches.iter().map(SyncedWatch::position).collect();
        // From here on nothing that shuttle knows is touched: it is one moment.
        let told = self.told.lock().unwrap().clone();
        let after = self.machine.disk.crash(CrashPlan::lose_everything_unsynced());
        let found = found_on(&after);
        for (core, claimed) in (0..).zip(claimed) {
            let mut appended = told.appended.get(&core).cloned().unwrap_or_default();
            appended.sort_by_key(|entry| entry.end_position);
            let found = found.get(&core).cloned().unwrap_or_default();
            let keys: Vec<Vec<u8>> = appended.iter().map(|entry| entry.key.clone()).collect();
            assert!(keys.starts_with(&found), "core {core}: {found:?} of {keys:?}");
            let acked = told.acked.get(&core).copied().unwrap_or(0).max(claimed);
            let owed = appended.iter().filter(|entry| entry.end_position <= acked).count();
            assert!(found.len() >= owed, "core {core}: {} of {owed} came back", found.len());
        }
    }

    /// As [`survives_power_loss`](Self::survives_power_loss), once everything was to be durable.
    pub(super) fn everything_survives(&self) {
        self.ends().into_iter().for_each(|(core, end)| self.was_acked(core, end));
        self.survives_power_loss();
    }
}

/// The keys of each core's entries, in order.
fn found_on(disk: &SimStorage) -> BTreeMap<u16, Vec<Vec<u8>>> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let log = recover(&storage, RecoveryMode::TornTail).unwrap();
    let mut found: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    let replay = log.replay(&storage);
    replay
        .for_each(|entry| {
            let of_core = found.entry(entry.core_id()).or_default();
            assert_eq!(entry.sequence(), of_core.len() as u64);
            of_core.push(entry.key().unwrap().to_vec());
        })
        .unwrap();
    found
}
