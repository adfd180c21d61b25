//! Background jobs: in order within a kind, independent across kinds, and gone when done.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may do what tests may"
)]

mod common;

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, directory_on_disk, eventually};
use wal_storage::{JobKind, OsStorage, Storage};

const BOTH: [JobKind; 2] = [JobKind::Lead, JobKind::Prepare];

#[test]
fn jobs_of_one_kind_run_in_the_order_they_came_in_and_never_two_at_once() {
    let (storage, _directory) = storage();
    for kind in BOTH {
        let (sender, receiver) = mpsc::channel();
        let running = Arc::new(Mutex::new(()));
        for number in 0..200 {
            let sender = sender.clone();
            let running = Arc::clone(&running);
            spawn(&storage, kind, Duration::ZERO, move || {
                let alone = running.try_lock().is_ok();
                sender.send((number, alone)).unwrap();
            });
        }
        for number in 0..200 {
            assert_eq!(next(&receiver), (number, true));
        }
    }
}

#[test]
fn a_job_that_takes_long_does_not_hold_up_those_of_the_other_kind() {
    let (storage, _directory) = storage();
    for (long, short) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
        let (release, released) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        let first = sender.clone();
        spawn(&storage, long, Duration::ZERO, move || {
            released.recv_timeout(PATIENCE).unwrap();
            first.send("long").unwrap();
        });
        spawn(&storage, short, Duration::ZERO, move || sender.send("short").unwrap());
        assert_eq!(next(&receiver), "short");
        release.send(()).unwrap();
        assert_eq!(next(&receiver), "long");
    }
}

#[test]
fn a_delayed_job_waits_and_lets_others_pass() {
    let (storage, _directory) = storage();
    let step = Duration::from_millis(60);
    for kind in BOTH {
        loop {
            let (sender, receiver) = mpsc::channel();
            let started = storage.now();
            for (name, delay) in [("third", 2 * step), ("second", step), ("first", Duration::ZERO)]
            {
                let sender = sender.clone();
                let clock = Arc::clone(&storage);
                spawn(&storage, kind, delay, move || {
                    sender.send((name, delay, clock.now())).unwrap();
                });
            }
            let spawned_within = storage.now() - started;
            let ran = [next(&receiver), next(&receiver), next(&receiver)];
            for (name, delay, at) in ran {
                assert!(at >= started + delay, "{name} ran too early");
            }
            // On a machine that slept meanwhile they may have been due in another order.
            if spawned_within < step {
                assert_eq!(ran.map(|(name, ..)| name), ["first", "second", "third"]);
                break;
            }
        }
    }
}

#[test]
fn a_job_that_panics_ends_alone() {
    let (storage, _directory) = storage();
    for kind in BOTH {
        let (sender, receiver) = mpsc::channel();
        for number in 0..6 {
            let sender = sender.clone();
            spawn(&storage, kind, Duration::ZERO, move || {
                assert!(number % 2 == 0, "this panic is part of the test");
                sender.send(number).unwrap();
            });
        }
        assert_eq!([next(&receiver), next(&receiver), next(&receiver)], [0, 2, 4]);
    }
}

#[test]
fn a_job_may_spawn_the_next_one() {
    let (storage, _directory) = storage();
    let (sender, receiver) = mpsc::channel();
    count_down(&storage, 50, sender);
    assert!(!next(&receiver));

    fn count_down(storage: &Arc<OsStorage>, rest: u32, sender: mpsc::Sender<bool>) {
        let again = Arc::clone(storage);
        let kind = BOTH[rest as usize % 2];
        spawn(storage, kind, Duration::ZERO, move || match rest {
            0 => sender.send(false).unwrap(),
            _ => count_down(&again, rest - 1, sender),
        });
    }
}

#[test]
fn dropping_the_storage_drops_the_jobs_that_have_not_begun() {
    let (storage, _directory) = storage();
    let alive = Arc::new(());
    for kind in BOTH {
        for delay in [Duration::from_secs(3600), Duration::MAX] {
            let alive = Arc::clone(&alive);
            spawn(&storage, kind, delay, move || drop(alive));
        }
    }
    assert_eq!(Arc::strong_count(&alive), 5);
    drop(storage);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_job_may_be_the_last_to_own_the_storage() {
    let (storage, _directory) = storage();
    let (begin, begun) = mpsc::channel::<()>();
    let watched: Weak<OsStorage> = Arc::downgrade(&storage);
    let owner = Arc::clone(&storage);
    spawn(&storage, JobKind::Lead, Duration::ZERO, move || {
        begun.recv_timeout(PATIENCE).unwrap();
        drop(owner);
    });
    drop(storage);
    begin.send(()).unwrap();
    eventually("the storage is dropped by its own thread", || watched.strong_count() == 0);
}

#[test]
fn a_job_dropped_with_the_storage_may_panic() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("this panic is part of the test");
        }
    }

    let (storage, _directory) = storage();
    let thrown = PanicsWhenDropped;
    let an_hour = Duration::from_secs(3600);
    spawn(&storage, JobKind::Prepare, an_hour, move || drop(thrown));
    drop(storage);
}

#[test]
fn many_threads_may_spawn_at_once() {
    let (storage, _directory) = storage();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..8 {
            let sender = sender.clone();
            let storage = &storage;
            scope.spawn(move || {
                for number in 0..100 {
                    let sender = sender.clone();
                    let kind = BOTH[number % 2];
                    spawn(storage, kind, Duration::ZERO, move || sender.send(()).unwrap());
                }
            });
        }
    });
    for _ in 0..800 {
        next(&receiver);
    }
}

fn storage() -> (Arc<OsStorage>, tempfile::TempDir) {
    let directory = directory_on_disk();
    (Arc::new(OsStorage::open(directory.path()).unwrap()), directory)
}

fn spawn(storage: &OsStorage, kind: JobKind, delay: Duration, job: impl FnOnce() + Send + 'static) {
    let job = Mutex::new(Some(job));
    let once = Arc::new(move || job.lock().unwrap().take().unwrap()());
    storage.spawn(kind, delay, once).unwrap();
}

fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("a job should have run by now")
}
