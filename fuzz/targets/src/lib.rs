//! The fuzz targets of laminar-wal.
//!
//! A target takes any bytes and panics if a property does not hold. The properties are about
//! conservation, not just about not panicking: every byte is accounted for, nothing is found
//! that was never written, nothing is allocated that the input does not pay for.

#![allow(clippy::panic, reason = "a target says by a panic that a property does not hold")]

mod record_decode;
mod segment_scan;

pub use record_decode::record_decode;
pub use segment_scan::segment_scan;
