//! The child process: counts, tells its parent how far it is, and dies when it is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use crate::Result;
use crate::arguments::CHILD;
use crate::word_count::{CORES, Listener, Shard, options};

// ---- in the child ----

/// Opens the log, brings each core's state back, and counts to the end of the text.
pub(crate) fn run(log: &Path, text: &Path) -> Result<()> {
    let text = std::fs::read_to_string(text)?;
    let (wal, recovery) = options(log).open()?;
    thread::scope(|scope| -> Result<()> {
        let (text, recovery) = (&text, &recovery);
        let mut cores = Vec::new();
        for core in 0..CORES {
            // The writer moves to its core's thread and stays there: no lock, no sharing.
            let mut writer = wal.writer(core)?;
            cores.push(scope.spawn(move || {
                // Each core replays its own log, all of them at once.
                let mut shard = Shard::recover(recovery, core)?;
                shard.count(text, &mut writer, &TellsParent)
            }));
        }
        for core in cores {
            core.join().map_err(|_| "a core's thread panicked")??;
        }
        Ok(())
    })?;
    // Dropping would do the same, but nobody would hear of an error.
    wal.close()?;
    Ok(())
}

/// Writes a line to standard output, which is a pipe to the parent. Lines are short and written
/// whole, so those of four threads do not mix.
struct TellsParent;

impl Listener for TellsParent {
    fn opened(&self, core: u16, position: u64, words: u64) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "opened {core} {position} {words}")?)
    }

    fn appended(&self, core: u16, position: u64, words: u64) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "appended {core} {position} {words}")?)
    }

    fn synced(&self, core: u16, position: u64) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "synced {core} {position}")?)
    }
}

// ---- in the parent ----

/// A running child, and what it has told so far.
pub(crate) struct Child {
    process: std::process::Child,
    lines: BufReader<ChildStdout>,
    told: Told,
}

/// What the children told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) cores: [ToldOfCore; CORES as usize],
    pub(crate) times_synced: u64,
}

#[derive(Default, Clone, Copy)]
pub(crate) struct ToldOfCore {
    /// In this life, as are the words.
    pub(crate) appended_position: u64,
    words: u64,
    /// In any life: a promise outlives the process that gave it.
    pub(crate) synced_position: u64,
}

impl Child {
    /// Starts a child; `told` is what the earlier ones had told in the end.
    pub(crate) fn start(log: &Path, text: &Path, mut told: Told) -> Result<Self> {
        for core in &mut told.cores {
            *core = ToldOfCore { synced_position: core.synced_position, ..ToldOfCore::default() };
        }
        let mut process = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .args([log, text])
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = process.stdout.take().ok_or("the child has no standard output")?;
        Ok(Self { process, lines: BufReader::new(pipe), told })
    }

    /// Lets the child run until it has counted so many words, kills it, and gives all that it
    /// ever told: what it wrote to the pipe before it died is still there to be read.
    pub(crate) fn kill_after(&mut self, words: u64) -> Result<Told> {
        while self.told.words() < words {
            if !self.hear()? {
                return Err("the child ended before it was killed".into());
            }
        }
        // SIGKILL: no handler runs, no buffer is written out, no file is closed properly.
        self.process.kill()?;
        while self.hear()? {}
        self.process.wait()?;
        Ok(std::mem::take(&mut self.told))
    }

    /// Lets the child run to its end.
    pub(crate) fn finish(&mut self) -> Result<Told> {
        while self.hear()? {}
        let status = self.process.wait()?;
        if !status.success() {
            return Err(format!("the child failed: {status}").into());
        }
        Ok(std::mem::take(&mut self.told))
    }

    /// Takes in one line; false if there will be no more.
    fn hear(&mut self) -> Result<bool> {
        let mut line = String::new();
        // A line without an end was cut off by the kill, so it was never told.
        if self.lines.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(false);
        }
        self.told.hear(&line).ok_or_else(|| format!("the child said {line:?}"))?;
        Ok(true)
    }
}

impl Drop for Child {
    /// A story that ends early takes the child with it.
    fn drop(&mut self) {
        // It may be gone already, and then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Told {
    fn words(&self) -> u64 {
        self.cores.iter().map(|core| core.words).sum()
    }

    fn hear(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        let what = words.next()?;
        let core = self.cores.get_mut(words.next()?.parse::<usize>().ok()?)?;
        let position = words.next()?.parse().ok()?;
        match what {
            "opened" => {
                core.appended_position = position;
                core.synced_position = position;
                core.words = words.next()?.parse().ok()?;
            }
            "appended" => {
                core.appended_position = position;
                core.words = words.next()?.parse().ok()?;
            }
            "synced" => {
                core.synced_position = position;
                self.times_synced += 1;
            }
            _ => return None,
        }
        Some(())
    }
}
