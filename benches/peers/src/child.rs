//! Measurements in a process of their own, for peaks of memory that are nobody else's.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::benches::{growth, open, recovery};
use crate::contenders::{Contender, Ours, Reference};

/// What a child process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Open a log for writing and visit its entries.
    Recover { contender: Contender, directory: PathBuf, cores: u16 },
    /// Open a log of ours for writing and visit its entries core by core, side by side.
    RecoverPerCore { directory: PathBuf, cores: u16 },
    /// Read a log of the reference with its recovery manager, without opening it for writing.
    RecoverByManager { directory: PathBuf, cores: u16 },
    /// Read a log without opening it for writing.
    Read { directory: PathBuf },
    /// Open a log for writing, and nothing more.
    Open { directory: PathBuf, cores: u16 },
    /// Read these files up to these lengths, and compute checksums.
    Pass { files: Vec<(PathBuf, u64)> },
    /// Append to a new log, and look at time and memory on the way.
    Grow { contender: Contender, directory: PathBuf, records: u64, sync_every: u64 },
}

impl Task {
    pub(crate) fn recover(contender: Contender, directory: &Path, cores: u16) -> Self {
        Self::Recover { contender, directory: directory.to_path_buf(), cores }
    }

    /// Has it carried out by another process of this program, and returns its result.
    pub(crate) fn delegate<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let output = Command::new(std::env::current_exe()?)
            .arg("child")
            .arg(serde_json::to_string(self)?)
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(format!("the child process for {self:?} failed").into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// Does what another process of this program delegated, and prints the result.
pub(crate) fn carry_out(task: &str) -> Result<(), Failure> {
    let result = match serde_json::from_str(task)? {
        Task::Recover { contender, directory, cores } => {
            let recovered = recovery::measured(contender.recover(&directory, cores)?)?;
            serde_json::to_string(&recovered)
        }
        Task::RecoverPerCore { directory, cores } => {
            let recovered = recovery::measured(Ours::recover_per_core(&directory, cores)?)?;
            serde_json::to_string(&recovered)
        }
        Task::RecoverByManager { directory, cores } => {
            let recovered = recovery::measured(Reference::recover_by_manager(&directory, cores)?)?;
            serde_json::to_string(&recovered)
        }
        Task::Read { directory } => serde_json::to_string(&recovery::read(&directory)?),
        Task::Open { directory, cores } => serde_json::to_string(&open::open(&directory, cores)?),
        Task::Pass { files } => serde_json::to_string(&open::pass(&files)?),
        Task::Grow { contender, directory, records, sync_every } => {
            serde_json::to_string(&growth::grow(contender, &directory, records, sync_every)?)
        }
    };
    println!("{}", result?);
    Ok(())
}
