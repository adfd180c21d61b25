//! The command line, read by hand: three options are not worth a dependency.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::Result;

pub(crate) const USAGE: &str = "\
Counts the words of a text, is killed ten times on the way, and still counts each exactly once.

usage: quickstart [FILE] [--keep DIR] [--seed N]

  FILE        the text; without one, this repository's own documents
  --keep DIR  keep the log in DIR, which must be empty or not exist yet
  --seed N    kill at the moments that N stands for";

/// The first argument of a child process. Not for users, so not in [`USAGE`].
pub(crate) const CHILD: &str = "--child-of-quickstart";

pub(crate) enum Arguments {
    Help,
    Story(StoryArguments),
    Child { log: PathBuf, text: PathBuf },
}

#[derive(Default)]
pub(crate) struct StoryArguments {
    pub(crate) file: Option<PathBuf>,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) seed: Option<u64>,
}

impl Arguments {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut story = StoryArguments::default();
        while let Some(argument) = arguments.next() {
            let mut value_of = |option| {
                arguments.next().ok_or_else(|| refusal(&format!("{option} needs a value")))
            };
            match argument.to_str() {
                Some(CHILD) => {
                    let (log, text) = (value_of(CHILD)?, value_of(CHILD)?);
                    return Ok(Self::Child { log: log.into(), text: text.into() });
                }
                Some("--help" | "-h") => return Ok(Self::Help),
                Some("--keep") => story.keep = Some(value_of("--keep")?.into()),
                Some("--seed") => {
                    let seed = value_of("--seed")?;
                    let number = seed.to_str().and_then(|seed| seed.parse().ok());
                    let refuse = || refusal(&format!("{} is not a seed", seed.display()));
                    story.seed = Some(number.ok_or_else(refuse)?);
                }
                Some(option) if option.starts_with('-') => {
                    return Err(refusal(&format!("there is no option {option}")).into());
                }
                _ if story.file.is_some() => {
                    let second = argument.display();
                    return Err(refusal(&format!("{second} is one file too many")).into());
                }
                _ => story.file = Some(argument.into()),
            }
        }
        Ok(Self::Story(story))
    }
}

fn refusal(what: &str) -> String {
    format!("{what}\n\n{USAGE}")
}
