//! Explores what laminar-wal leaves on a disk: random programs, power loss at every one of their
//! operations, and an oracle that knows only what calls returned.
//!
//! ```sh
//! cargo run --release -p wal-sim --example explore -- --seconds 60
//! ```
//!
//! - `workload`: what a program does, drawn from a seed, and told in prose.
//! - `life`: does it on a simulated machine, and tells the oracle what calls returned.
//! - `oracle`: what a log must give back.
//! - `explorer`: stops at every disk operation, tries many ways to crash there, goes on from some
//!   of them, and is crashed again there.
//! - `look`: recovers what a crash left, and compares.
//! - `witness`: looks how far a log says that it is durable, while calls are under way.
//! - `watchdog`: notices what does not come to an end.
//! - `minimise`: leaves operations out of what failed.
//!
//! - `faults`: operations of the disk that fail, and what must hold all the same.
//! - `damage`: one damage in a log, which must be told.
//! - `directory`: the same programs on the operating system's files.
//!
//! A failure prints its seed, the shortest story found, and the command that replays it. What is
//! compared, promise by promise, is told in `docs/testing.md`, section "Explorer".

mod arguments;
mod crash;
mod damage;
mod directory;
mod drive;
mod explorer;
mod faults;
mod life;
mod look;
mod minimise;
mod oracle;
mod quarantine;
mod random;
mod tally;
mod target;
mod watchdog;
mod witness;
mod workload;

pub use arguments::{Arguments, USAGE};
pub use drive::explore;

/// What happened against a promise, if anything did.
pub(crate) type Checked<T = ()> = Result<T, String>;
