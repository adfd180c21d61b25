//! Explores crash states of laminar-wal on the simulated disk:
//!
//! ```sh
//! cargo run --release -p wal-sim --example explore -- --seconds 60
//! ```
//!
//! Ends with `N failures`, and with a status other than 0 if there are any.

use std::process::ExitCode;

use laminar_wal_explorer::{Arguments, explore};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    match explore(&arguments, &mut std::io::stdout()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
