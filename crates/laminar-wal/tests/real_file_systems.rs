//! ext4 and XFS, with real kills, real power cuts as far as a kernel can stage them, and no space.
//!
//! Promise 1, acked is durable; promise 2, recovered is a prefix; promise 4, recovery changes
//! nothing; promise 9, a full disk is survivable. Each file system is made in a file and mounted
//! through a loop device, which takes the superuser; others see this skipped, and are told.
//!
//! A power cut is the file systems' own shutdown request, which their developers test with: from
//! one moment to the next nothing reaches the device any more, neither what is in the page cache
//! nor, as the seed says, what is in the journal's memory. What it cannot show is a device that
//! loses its own cache; the simulated disk can.
//!
//! `LAMINAR_WAL_SEED` has the same moments again, as far as a scheduler lets them be the same;
//! `LAMINAR_WAL_KILLS` changes how many ends each file system sees.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

#[path = "support/kills.rs"]
mod kills;

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kills::{LIVES_PER_DIRECTORY, Random, Scene, Totals, number_from};
use laminar_wal::{CoreWalWriter, OsStorage, RecoveryMode, Storage, Wal, WalError, WalOptions};
use tempfile::TempDir;

#[test]
fn acked_entries_survive_kills_and_power_cuts_on_ext4() {
    kills_and_power_cuts(Kind::Ext4);
}

#[test]
fn acked_entries_survive_kills_and_power_cuts_on_xfs() {
    kills_and_power_cuts(Kind::Xfs);
}

#[test]
fn a_full_ext4_keeps_what_was_acked_and_goes_on_when_there_is_space() {
    full_disk(Kind::Ext4);
}

#[test]
fn a_full_xfs_keeps_what_was_acked_and_goes_on_when_there_is_space() {
    full_disk(Kind::Xfs);
}

/// Not a test: the process that is killed.
#[test]
fn the_child_that_is_killed() {
    kills::be_the_child();
}

fn kills_and_power_cuts(kind: Kind) {
    let Some(mut disk) = Disk::mounted(kind) else {
        return;
    };
    let ends = number_from("LAMINAR_WAL_KILLS").unwrap_or(12);
    let seed = number_from("LAMINAR_WAL_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("LAMINAR_WAL_SEED={seed}");
    let begun = Instant::now();
    let mut random = Random(seed);
    let mut scene = Scene::new(disk.path.join("log-0"));
    let mut totals = Totals::default();
    for end in 0..ends {
        if scene.life == LIVES_PER_DIRECTORY {
            scene.go_on_without_a_kill();
            scene = Scene::new(disk.path.join(format!("log-{end}")));
        }
        let how = [How::Killed, How::PowerCut, How::KilledAndMounted, How::PowerCutWithJournal];
        let how = how[usize::try_from(random.below(4)).unwrap()];
        scene.context = format!("{kind:?}, LAMINAR_WAL_SEED={seed}, end {end}: {how:?}");
        match how {
            How::Killed | How::KilledAndMounted => scene.live_and_be_killed(&mut random),
            How::PowerCut => {
                scene.live_until_the_disk_ends(&mut random, || disk.cut_power(JOURNAL_LOST));
            }
            How::PowerCutWithJournal => {
                scene.live_until_the_disk_ends(&mut random, || disk.cut_power(JOURNAL_KEPT));
            }
        }
        if how != How::Killed {
            disk.mount_again();
        }
        totals.add(&scene.check());
    }
    scene.go_on_without_a_kill();
    println!(
        "{kind:?}: {ends} ends in {:.1} s: {} acks, {} entries acked, {} more recovered",
        begun.elapsed().as_secs_f64(),
        totals.acks,
        totals.entries_acked,
        totals.entries_recovered - totals.entries_acked,
    );
    // A test that ends everything before it begins proves nothing.
    assert!(ends < 10 || totals.acks > 5 * ends, "{} acks in {ends} lives", totals.acks);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    KilledAndMounted,
    PowerCut,
    PowerCutWithJournal,
}

fn full_disk(kind: Kind) {
    let Some(mut disk) = Disk::mounted(kind) else {
        return;
    };
    let log = disk.path.join("log");
    let (wal, mut writer) = open(&log);
    append_and_sync(&mut writer, 100).unwrap();
    disk.fill();
    let error = append_and_sync(&mut writer, 100_000).unwrap_err();
    assert!(error.is_storage_full(), "{kind:?}: {error}");
    // Nothing was accepted that cannot be kept, and nothing is poisoned.
    writer.sync().unwrap();
    let acked = writer.sequence();
    assert_eq!(count(&log), acked, "{kind:?}");
    drop(writer);
    wal.close().unwrap();

    // It can be opened on a full disk, and goes on as soon as there is space.
    let (wal, writer) = open(&log);
    assert_eq!(writer.sequence(), acked, "{kind:?}");
    drop(writer);
    wal.close().unwrap();
    disk.make_room();
    let (wal, mut writer) = open(&log);
    append_and_sync(&mut writer, 1000).unwrap();
    let acked = writer.sequence();
    disk.cut_power(JOURNAL_LOST);
    writer.append_put(b"never durable", b"").unwrap();
    writer.sync().unwrap_err();
    drop((writer, wal));
    disk.mount_again();
    assert_eq!(count(&log), acked, "{kind:?}");
}

// ---- a log of one core whose entries are numbers ----

fn open(log: &Path) -> (Wal, CoreWalWriter) {
    let options = WalOptions::new(log).segment_bytes(256 * 1024).batch_bytes(16 * 1024);
    let (wal, _) = options.max_record_bytes(64 * 1024).open().unwrap();
    let writer = wal.writer(0).unwrap();
    (wal, writer)
}

fn append_and_sync(writer: &mut CoreWalWriter, count: u64) -> Result<(), WalError> {
    for appended in 1..=count {
        let sequence = writer.sequence();
        writer.append_put(&sequence.to_le_bytes(), &[0xab; 1000])?;
        if appended % 10 == 0 {
            writer.sync()?;
        }
    }
    writer.sync()
}

/// How many entries there are, each of them what was appended.
fn count(log: &Path) -> u64 {
    let recovery = laminar_wal::read(log, RecoveryMode::TornTail).unwrap();
    let mut next = 0_u64;
    recovery
        .for_each(|entry| {
            assert_eq!(entry.key(), Some(&next.to_le_bytes()[..]));
            assert_eq!(entry.value(), Some(&[0xab; 1000][..]));
            next += 1;
        })
        .unwrap();
    next
}

// ---- a file system in a file ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ext4,
    Xfs,
}

/// The shutdown request, which XFS brought and ext4 took over, and two of its arguments.
const SHUTDOWN_REQUEST: &str = "0x8004587d";
const JOURNAL_KEPT: u8 = 1;
const JOURNAL_LOST: u8 = 2;

/// What `mkfs.xfs` calls the least. It is a hole but for what is written.
const IMAGE_BYTES: u64 = 300 * 1024 * 1024;

struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    path: PathBuf,
    /// Stays if the test fails: chance may not bring it back.
    scratch: Option<TempDir>,
}

impl Disk {
    /// `None`, and a word to whoever runs the tests, where that cannot be done.
    fn mounted(kind: Kind) -> Option<Self> {
        let scratch = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, path) = (scratch.path().join("image"), scratch.path().join("mounted"));
        fs::create_dir(&path).unwrap();
        File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        let [program, force] = match kind {
            Kind::Ext4 => ["mkfs.ext4", "-F"],
            Kind::Xfs => ["mkfs.xfs", "-f"],
        };
        let made = run(Command::new(program).args(["-q", force]).arg(&image));
        let mounted = made.and_then(|()| mount(&image, &path));
        match mounted.and_then(|()| run(Command::new("perl").arg("-e1"))) {
            Ok(()) => Some(Self { image, path, scratch: Some(scratch) }),
            Err(why) => {
                say(&format!("SKIPPED: no {kind:?} can be had here: {why}"));
                None
            }
        }
    }

    /// From here on nothing reaches the device.
    fn cut_power(&self, flag: u8) {
        const SCRIPT: &str = "open(F, '<', $ARGV[0]) or die \"$!\"; $flag = pack('L', $ARGV[2]); \
            ioctl(F, hex($ARGV[1]), $flag) or die \"$!\"";
        let mut request = Command::new("perl");
        request.args(["-e", SCRIPT]).arg(&self.path).args([SHUTDOWN_REQUEST, &flag.to_string()]);
        run(&mut request).unwrap();
    }

    fn mount_again(&mut self) {
        let begun = Instant::now();
        // The last file may still be closed by a thread that nobody waits for.
        while let Err(why) = run(Command::new("umount").arg(&self.path)) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{why}");
            thread::sleep(Duration::from_millis(10));
        }
        mount(&self.image, &self.path).unwrap();
    }

    fn fill(&self) {
        let free_bytes = OsStorage::open(&self.path).unwrap().free_bytes().unwrap();
        let most = free_bytes.saturating_sub(1024 * 1024).to_string();
        run(Command::new("fallocate").args(["-l", &most]).arg(self.path.join("filler"))).unwrap();
        let mut rest = File::create(self.path.join("rest")).unwrap();
        let full = loop {
            if let Err(error) = rest.write_all(&[1; 4096]) {
                break error;
            }
        };
        rest.sync_all().unwrap();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    }

    fn make_room(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
        fs::remove_file(self.path.join("rest")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: it goes when the last file on it is closed.
        if let Err(why) = run(Command::new("umount").arg("-l").arg(&self.path)) {
            say(&format!("{} could not be unmounted: {why}", self.path.display()));
        }
        if thread::panicking()
            && let Some(scratch) = self.scratch.take()
        {
            eprintln!("the file system stays in {}", scratch.keep().join("image").display());
        }
    }
}

fn mount(image: &Path, path: &Path) -> Result<(), String> {
    run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(path))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Says something that a reader of the test's output must not miss: past the capture of passing
/// tests' output.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "!!! {what}");
}
