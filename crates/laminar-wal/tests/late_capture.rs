//! What comes while a commit is under way is not made durable by it, and nobody is told that it is.
//!
//! A commit that looked at the end of the log when it was done, and not when it began, would ack
//! entries that no write of it carried: they would be gone after the next power cut. So the disk
//! here appends, submits and fills buffers itself, in the middle of each write and sync.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod support;

use std::sync::{Arc, Mutex};

use laminar_wal::{CoreWalWriter, SharedWriter, SyncTicket, Wal, WalOptions};
use support::clients::{durable_entries, surviving};
use support::disks::{At, TestDisk};
use support::{Random, seeds};
use wal_storage::Result;

/// Enough small buffers that none need be waited for.
fn options(disk: &TestDisk) -> WalOptions {
    disk.small().in_flight_bytes(64 * 4096)
}

/// A log with an acked entry, and a full buffer behind it that was written and not synced: so the
/// next commit is a write and a sync.
fn log_before_a_commit(disk: &TestDisk) -> (Wal, CoreWalWriter) {
    let (wal, _) = options(disk).open().unwrap();
    disk.sim.run_jobs();
    let mut writer = wal.writer(0).unwrap();
    writer.append_put(b"acked", b"").unwrap();
    writer.sync().unwrap();
    writer.append_put(b"full buffer", &[0; 3000]).unwrap();
    writer.append_put(b"next buffer", &[0; 3000]).unwrap();
    disk.sim.run_jobs();
    (wal, writer)
}

const EVERY_MOMENT: [At; 4] = [At::BeforeWrite, At::BehindWrite, At::BeforeSync, At::BehindSync];

/// Calls `act` once, at the given moment of the next commit, and keeps what it gives.
fn once_at<T: Send + 'static>(
    disk: &TestDisk,
    moment: At,
    act: impl Fn() -> T + Send + Sync + 'static,
) -> Arc<Mutex<Option<T>>> {
    let given = Arc::new(Mutex::new(None));
    let place = Arc::clone(&given);
    disk.on_each(move |at, _| {
        let mut place = place.lock().unwrap();
        if at == moment && place.is_none() {
            *place = Some(act());
        }
    });
    given
}

fn taken<T>(given: &Arc<Mutex<Option<T>>>) -> T {
    given.lock().unwrap().take().expect("the commit came to that moment")
}

fn has_survived(disk: &TestDisk, key: &[u8]) -> bool {
    surviving(&disk.sim).iter().any(|entry| entry.key() == Some(key))
}

#[test]
fn what_is_appended_during_a_commit_is_not_acked_by_it_however_it_was_led() -> Result<()> {
    type Commit = fn(&Wal, &SharedWriter, &SyncTicket, &TestDisk) -> Result<()>;
    let ways: [(&str, Commit); 5] = [
        ("wait", |_, _, ticket, _| ticket.wait()),
        ("wait_timeout", |_, _, ticket, _| {
            ticket.wait_timeout(std::time::Duration::from_secs(10)).map(|done| assert!(done))
        }),
        ("sync", |_, writer, _, _| writer.sync()),
        ("sync_all", |wal, _, _, _| wal.sync_all()),
        ("the background", |_, _, ticket, disk| {
            assert!(!ticket.is_durable()?);
            disk.sim.run_one_job();
            ticket.is_durable().map(|done| assert!(done))
        }),
    ];
    for (way, commit) in ways {
        for moment in EVERY_MOMENT {
            let story = format!("{way}, {moment:?}");
            let disk = TestDisk::new(1);
            let (wal, writer) = log_before_a_commit(&disk);
            let (writer, watch) = (writer.into_shared(), wal.watch(0)?);
            let ticket = writer.append_put(b"in time", b"")?;
            let clone = writer.clone();
            let late = once_at(&disk, moment, move || clone.append_put(b"late", b"").unwrap());
            commit(&wal, &writer, &ticket, &disk)?;
            disk.unhook();
            let late = taken(&late);
            assert!(watch.position() >= ticket.position(), "{story}");
            assert!(watch.position() < late.position(), "{story}");
            assert!(has_survived(&disk, b"in time"), "{story}");
            assert!(!has_survived(&disk, b"late"), "{story}: a test that cannot fail");
            assert!(!late.is_durable()?, "{story}");
            late.wait()?;
            assert!(has_survived(&disk, b"late"), "{story}");
        }
    }
    Ok(())
}

#[test]
fn what_is_submitted_during_a_sync_is_not_covered_by_its_proof() -> Result<()> {
    for moment in EVERY_MOMENT {
        let disk = TestDisk::new(1);
        let (wal, writer) = log_before_a_commit(&disk);
        let writer = Arc::new(Mutex::new(writer));
        let request = {
            let mut writer = writer.lock().unwrap();
            writer.append_put(b"in time", b"")?;
            writer.start_sync()?
        };
        let appender = Arc::clone(&writer);
        let late = once_at(&disk, moment, move || {
            let mut writer = appender.lock().unwrap();
            writer.append_put(b"late", b"").unwrap();
            writer.submit().unwrap()
        });
        let proof = request.run()?;
        disk.unhook();
        let late = taken(&late);
        assert!(proof.position() < late.position(), "{moment:?}");
        assert!(wal.watch(0)?.position() < late.position(), "{moment:?}");
        assert!(has_survived(&disk, b"in time"), "{moment:?}");
        assert!(!has_survived(&disk, b"late"), "{moment:?}: a test that cannot fail");
        let mut writer = writer.lock().unwrap();
        writer.mark_synced(proof)?;
        assert_eq!(writer.entries_since_sync(), 1, "{moment:?}");
        late.wait()?;
        assert!(has_survived(&disk, b"late"), "{moment:?}");
    }
    Ok(())
}

#[test]
fn buffers_that_fill_up_during_a_commit_are_not_acked_by_it() -> Result<()> {
    for moment in EVERY_MOMENT {
        let disk = TestDisk::new(1);
        let (wal, writer) = log_before_a_commit(&disk);
        let writer = writer.into_shared();
        let ticket = writer.append_put(b"in time", b"")?;
        let clone = writer.clone();
        let late = once_at(&disk, moment, move || {
            // Buffers that are full go to the queue, where the next leader finds them; and so many
            // that the segment ends among them.
            let tickets = (0..12).map(|_| clone.append_put(b"late", &[0; 3000]).unwrap());
            tickets.collect::<Vec<SyncTicket>>()
        });
        ticket.wait()?;
        disk.unhook();
        let late = taken(&late);
        assert!(wal.watch(0)?.position() < late[0].position(), "{moment:?}");
        assert!(!has_survived(&disk, b"late"), "{moment:?}: a test that cannot fail");
        late[11].wait()?;
        assert_eq!(durable_entries(&disk.sim, 0), 4 + 12, "{moment:?}");
    }
    Ok(())
}

/// At every moment of a long life the durable position that the log tells the world is not ahead
/// of the disk.
#[test]
fn the_durable_position_is_never_ahead_of_the_disk_whatever_comes_when() -> Result<()> {
    for seed in seeds(0..12) {
        let disk = TestDisk::new(seed);
        let (wal, _) = options(&disk).open()?;
        let (writer, watch) = (wal.shared_writer(0)?, wal.watch(0)?);
        let random = Arc::new(Mutex::new(Random::new(seed)));
        // Where each entry ends, by its sequence.
        let ends: Arc<Mutex<Vec<SyncTicket>>> = Arc::default();
        let append = {
            let (writer, random, ends) = (writer.clone(), Arc::clone(&random), Arc::clone(&ends));
            move || {
                let value_bytes = random.lock().unwrap().size(2000);
                let ticket = writer.append_put(b"key", &vec![0; value_bytes]).unwrap();
                ends.lock().unwrap().push(ticket.clone());
                ticket
            }
        };
        let check = {
            let (ends, disk) = (Arc::clone(&ends), disk.clone());
            move || {
                let position = watch.position();
                let durable = durable_entries(&disk.sim, 0);
                let told = ends.lock().unwrap();
                let told = told.iter().take_while(|end| end.position() <= position).count();
                assert!(
                    told <= durable,
                    "seed {seed}: {durable} are durable, {told} are told to be"
                );
            }
        };
        let (append_late, check_then, chance) = (append.clone(), check.clone(), random.clone());
        disk.on_each(move |_, _| {
            if chance.lock().unwrap().chance(40) {
                std::mem::forget(append_late());
            }
            check_then();
        });
        for _ in 0..60 {
            let ticket = append();
            let what = random.lock().unwrap().below(8);
            match what {
                0 => ticket.wait()?,
                1 => writer.sync()?,
                2 => wal.sync_all()?,
                3 => drop(ticket.is_durable()?),
                4 => drop(disk.sim.run_jobs()),
                5 => drop(disk.sim.run_one_job()),
                // Nobody is told of the others for now.
                _ => std::mem::forget(ticket),
            }
            check();
        }
        disk.unhook();
        writer.sync()?;
        check();
        ends.lock().unwrap().clear();
    }
    Ok(())
}
