//! What the explorer is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::explorer::Step;

/// How to call it.
pub const USAGE: &str = "\
explore [--seconds N | --states N] [--seed S] [--threads N]   crash states of random workloads
explore --faults  [...]                                       the same on disks that fail
explore --damage  [...]                                       one damage in each log
explore --directory PATH [...]                                logs in real directories that are made there
explore [...] --replay SEED[:MOMENT.PLAN]...                  one state again, as a failure prints it

  --seconds N   for so long; 60 unless said otherwise
  --states N    until so many distinct states were checked, damages done, or directories filled
  --seed S      begins with this workload; a fresh one unless given
  --threads N   as many as there are processors unless given
  --first       ends with the first failure, and tells it as it is";

/// What the explorer is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub(crate) seconds: Option<Duration>,
    pub(crate) states: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) threads: usize,
    pub(crate) faults: bool,
    pub(crate) damage: bool,
    pub(crate) directory: Option<PathBuf>,
    /// One failure is enough, and it is not shortened.
    pub(crate) first: bool,
    pub(crate) mode: Mode,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    Explore,
    Replay { seed: u64, path: Vec<Step> },
}

impl Arguments {
    /// Reads them as [`USAGE`] says.
    ///
    /// # Errors
    ///
    /// What was not understood.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut parsed = Self {
            seconds: None,
            states: None,
            seed: None,
            threads,
            faults: false,
            damage: false,
            directory: None,
            first: false,
            mode: Mode::Explore,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--seconds" => parsed.seconds = Some(Duration::from_secs(number(&value()?)?)),
                "--states" => parsed.states = Some(number(&value()?)?),
                "--seed" => parsed.seed = Some(number(&value()?)?),
                "--threads" => {
                    parsed.threads = usize::try_from(number(&value()?)?).unwrap_or(1).max(1);
                }
                "--faults" => parsed.faults = true,
                "--damage" => parsed.damage = true,
                "--directory" => parsed.directory = Some(value()?.into()),
                "--first" => parsed.first = true,
                "--replay" => parsed.mode = replay(&value()?)?,
                _ => return Err(format!("{argument} is no argument\n\n{USAGE}")),
            }
        }
        Ok(parsed)
    }
}

fn replay(text: &str) -> Result<Mode, String> {
    let mut parts = text.split(':');
    let seed = number(parts.next().unwrap_or_default())?;
    let steps = parts.map(|step| match step.split_once('.') {
        Some((moment, plan)) => Ok((number(moment)?, number(plan)?)),
        None => Err(format!("{step:?} is no MOMENT.PLAN")),
    });
    Ok(Mode::Replay { seed, path: steps.collect::<Result<_, String>>()? })
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_several_lives_is_read_as_it_is_printed() {
        let parsed = Arguments::parse(["--replay", "7:12.3:4.0"].map(str::to_owned)).unwrap();
        assert_eq!(parsed.mode, Mode::Replay { seed: 7, path: vec![(12, 3), (4, 0)] });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [&["--sekonds"][..], &["--seed"], &["--seed", "x"], &["--replay", "1:2"]] {
            let wrong = wrong.iter().map(|&word| word.to_owned());
            assert!(Arguments::parse(wrong).is_err());
        }
    }
}
