//! A word count that is killed again and again and still counts every word exactly once.
//!
//! ```sh
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- FILE --seed 7 --keep word-count-log
//! ```
//!
//! Begin with `word_count.rs`: it is the program that you would write. The rest is there to prove
//! the point. This program runs itself as a child process (`child.rs`), which counts on four
//! threads and tells how far each has appended and synced. The parent, here, kills it with
//! SIGKILL at moments taken from a seed, recovers, and holds what it finds against what it was
//! told and against a count that never touches the log (`check.rs`).

mod arguments;
mod check;
mod child;
mod random;
mod text;
mod torn_copy;
mod word_count;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::arguments::{Arguments, StoryArguments};
use crate::check::{check_recovery, check_total};
use crate::child::{Child, Told};
use crate::random::Random;
use crate::text::grouped;
use crate::word_count::CORES;

/// What can go wrong in here is only ever told to the user, so any error will do.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How often the child is killed before it may finish.
const KILLS: u64 = 10;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse(std::env::args_os().skip(1))? {
        Arguments::Help => println!("{}", arguments::USAGE),
        Arguments::Child { log, text } => child::run(&log, &text)?,
        Arguments::Story(arguments) => tell_the_story(&arguments)?,
    }
    Ok(())
}

fn tell_the_story(arguments: &StoryArguments) -> Result<()> {
    let begun = Instant::now();
    // Gone when this function returns, also with an error.
    let scratch = tempfile::tempdir()?;
    let log = match &arguments.keep {
        Some(directory) => directory.clone(),
        None => scratch.path().join("log"),
    };
    refuse_to_mix_with_other_files(&log)?;

    // A source must give the same words again when it is asked to go on from an offset. Files
    // get edited, so every life of the child reads this copy.
    let text = text::several_megabytes(arguments.file.as_deref())?;
    let text_file = scratch.path().join("text");
    fs::write(&text_file, &text)?;
    let word_count = text::words(&text, 0).count() as u64;

    let seed = arguments.seed.unwrap_or_else(random::seed_of_the_day);
    let mut random = Random::new(seed);
    let kills = plan_kills(word_count, &mut random);
    println!(
        "{} words, counted by {CORES} cores that each own their share of them",
        grouped(word_count)
    );
    println!("log: {}", log.display());
    println!("seed {seed} plans the kills (--seed {seed} to have the same ones again)\n");

    let mut told = Told::default();
    let mut kills_that_took_something = 0;
    let mut torn_copy_is_missing = true;
    for (number, kill_at_words) in (1..).zip(kills) {
        told = Child::start(&log, &text_file, told)?.kill_after(kill_at_words)?;
        println!("kill {number} of {KILLS}, after {} words", grouped(kill_at_words));
        let (recovery, took_something) = check_recovery(&log, &text, &told)?;
        kills_that_took_something += u64::from(took_something);

        if torn_copy_is_missing {
            let copy = scratch.path().join("torn copy");
            torn_copy_is_missing =
                !torn_copy::make_and_check(&log, &copy, &recovery, &told, &mut random)?;
        }
    }
    if kills_that_took_something * 2 <= KILLS {
        return Err(format!(
            "only {kills_that_took_something} of {KILLS} kills hit entries that were not synced \
             yet, which proves little; try another seed"
        )
        .into());
    }
    if torn_copy_is_missing {
        return Err("no kill left anything behind the last sync to cut; try another seed".into());
    }

    println!("no kill: the child counts to the end of the text and closes the log");
    told = Child::start(&log, &text_file, told)?.finish()?;
    let (recovery, _) = check_recovery(&log, &text, &told)?;
    println!("\n{}\n", recovery.report());
    check_total(&text, &recovery)?;

    println!(
        "{} entries in {} bytes, said to be durable {} times; {kills_that_took_something} of {KILLS} \
         kills took entries that nobody was promised; {:.1} s",
        grouped(recovery.report().entries()),
        grouped(recovery.report().cores.iter().map(|core| core.bytes).sum()),
        grouped(told.times_synced),
        begun.elapsed().as_secs_f64()
    );
    if arguments.keep.is_some() {
        println!("the log stays in {}", log.display());
    }
    println!("counts equal: yes");
    Ok(())
}

/// After how many words each kill comes: each has its own stretch of the text, and falls into the
/// middle half of it.
fn plan_kills(word_count: u64, random: &mut Random) -> Vec<u64> {
    let stretch = word_count / (KILLS + 1);
    (0..KILLS).map(|kill| kill * stretch + stretch / 4 + random.below(stretch / 2)).collect()
}

/// A log shares its directory with nothing else, and this story begins with an empty one.
fn refuse_to_mix_with_other_files(directory: &Path) -> Result<()> {
    match fs::read_dir(directory) {
        Ok(mut files) => match files.next() {
            None => Ok(()),
            Some(_) => Err(format!("{} is not empty", directory.display()).into()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", directory.display()).into()),
    }
}
