//! The fuzz targets of laminar-wal.
//!
//! A target takes any bytes and panics if a property does not hold. The properties are about
//! conservation, not just about not panicking: every byte is accounted for, nothing is found
//! that was never written, nothing is allocated that the input does not pay for.

#![allow(clippy::panic, reason = "a target says by a panic that a property does not hold")]

mod append_crash_recover;
mod archived_entry;
mod disk;
mod input;
mod manifest;
mod memory;
mod open_directory;
mod record_decode;
mod segment_scan;

pub use append_crash_recover::append_crash_recover;
pub use archived_entry::archived_entry;
pub use manifest::manifest;
pub use open_directory::open_directory;
pub use record_decode::record_decode;
pub use segment_scan::segment_scan;
