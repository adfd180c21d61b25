//! A process is killed two hundred times, while four of its threads append and sync.
//!
//! Promise 1, acked is durable; promise 2, recovered is a prefix; promise 4, recovery changes
//! nothing; promise 6, order, across restarts too. Nothing is simulated here: a real process, the
//! real kernel, SIGKILL. What a kill cannot show is what power loss takes from the page cache;
//! `real_file_systems.rs` takes that, and the simulated disk takes more.
//!
//! `LAMINAR_WAL_SEED` has the same moments again, as far as a scheduler lets them be the same;
//! `LAMINAR_WAL_KILLS` changes how many there are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

#[path = "support/kills.rs"]
mod kills;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use kills::{LIVES_PER_DIRECTORY, Random, Scene, Totals, number_from};
use tempfile::TempDir;

#[test]
fn every_acked_entry_survives_two_hundred_kills() {
    let kills = number_from("LAMINAR_WAL_KILLS").unwrap_or(200);
    let seed = number_from("LAMINAR_WAL_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("LAMINAR_WAL_SEED={seed}");
    let begun = Instant::now();
    let mut random = Random(seed);
    let mut directory = EvidenceDirectory::new();
    let mut scene = Scene::new(directory.log());
    let mut totals = Totals::default();
    for kill in 0..kills {
        if scene.life == LIVES_PER_DIRECTORY {
            scene.go_on_without_a_kill();
            directory = EvidenceDirectory::new();
            scene = Scene::new(directory.log());
        }
        scene.context = format!("LAMINAR_WAL_SEED={seed}, kill {kill}, life {}", scene.life);
        scene.live_and_be_killed(&mut random);
        totals.add(&scene.check());
    }
    scene.go_on_without_a_kill();
    println!(
        "{kills} kills in {:.1} s: {} acks, {} entries acked, {} more recovered, {} segments begun",
        begun.elapsed().as_secs_f64(),
        totals.acks,
        totals.entries_acked,
        totals.entries_recovered - totals.entries_acked,
        totals.segments,
    );
    // A test that kills before anything happens proves nothing.
    assert!(kills < 20 || totals.acks > 5 * kills, "{} acks in {kills} kills", totals.acks);
}

/// Not a test: the process that is killed.
#[test]
fn the_child_that_is_killed() {
    kills::be_the_child();
}

/// A temporary directory that stays if the test fails: chance may not bring it back.
struct EvidenceDirectory(Option<TempDir>);

impl EvidenceDirectory {
    fn new() -> Self {
        Self(Some(tempfile::tempdir().unwrap()))
    }

    fn log(&self) -> PathBuf {
        self.0.as_ref().unwrap().path().join("log")
    }
}

impl Drop for EvidenceDirectory {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(directory) = self.0.take()
        {
            eprintln!("the log stays in {}", directory.keep().display());
        }
    }
}
