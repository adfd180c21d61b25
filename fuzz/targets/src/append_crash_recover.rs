//! Whatever a program does with its writers, and whenever the disk fails or the power does, the
//! log gives back what was acked, and nothing that was never appended.

mod model;
mod operations;
mod run;

use crate::input::Input;
use crate::memory;
use operations::Operation;
use run::Run;

/// The first byte chooses how many cores log, the second how large everything is. What follows is
/// a list of operations, a few bytes each: appends of all kinds and sizes; syncs, handed over and
/// dropped ones too; cuts; jobs and time; closing, killing, power loss, also in the middle of
/// something; faults of the disk.
///
/// After each operation the writers say of themselves what a model says. Whenever the log is
/// opened or looked at, each core gives back a prefix of what was appended to it, equal in content
/// and order, that holds at least what was acked, and nothing of what was cut away. A call fails
/// only if the disk did, and then for good.
///
/// # Panics
///
/// If a property does not hold.
pub fn append_crash_recover(input: &[u8]) {
    memory::keep();
    let mut input = Input::new(input);
    let mut run = Run::new(input.u8());
    let mut done = Vec::new();
    let mut outcome = run.open(input.u8());
    while outcome.is_ok() && !input.is_empty() && done.len() < OPERATIONS_MAX {
        let operation = Operation::read(&mut input);
        done.push(operation);
        outcome = run.perform(operation);
    }
    if let Err(what) = outcome.and_then(|()| run.end()) {
        panic!("{what}\nafter these operations: {done:#?}");
    }
}

const OPERATIONS_MAX: usize = 100;

/// What was found to be against a promise.
type Checked<T = ()> = Result<T, String>;
