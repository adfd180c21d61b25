//! Short explorations of fixed seeds: long ones are the command's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use laminar_wal_explorer::{Arguments, explore};

#[test]
fn no_crash_takes_what_was_acked() {
    assert_eq!(failures("--seed 1 --states 1200"), 0);
}

#[test]
fn nothing_is_acked_on_a_disk_that_fails_that_is_not_durable() {
    assert_eq!(failures("--faults --seed 1 --states 1000"), 0);
}

#[test]
fn one_damage_in_a_log_is_told() {
    assert_eq!(failures("--damage --seed 1 --states 300"), 0);
}

#[test]
fn damaged_logs_are_recovered_in_the_modes_that_go_on_and_some_are_accepted() {
    let (failures, said) = explored("--damage --seed 2 --states 300");
    assert_eq!(failures, 0, "{said}");
    for mode in ["PointInTime: ", "Salvage: "] {
        let told = said.lines().find_map(|line| line.strip_prefix(mode)).unwrap();
        let numbers = told.split(|it: char| !it.is_ascii_digit()).filter(|it| !it.is_empty());
        let [_, left_out, _, accepted] = numbers.collect::<Vec<_>>()[..] else { panic!("{told}") };
        assert!(left_out != "0" && accepted != "0", "{told}");
    }
}

#[test]
fn a_replay_of_a_damage_that_is_told_says_so() {
    assert_eq!(failures("--damage --replay 1:3.0"), 0);
}

#[test]
fn a_replay_of_a_state_that_is_right_says_so() {
    let (failures, said) = explored("--replay 1:20.3:4.1");
    assert_eq!(failures, 0, "{said}");
    assert!(said.contains("nothing is wrong there"), "{said}");
}

#[test]
fn a_replay_of_a_state_that_never_comes_does_not_call_it_right() {
    for path in ["1:1000000.0", "1:20.3:1000000.0"] {
        let (failures, said) = explored(&format!("--replay {path}"));
        assert_eq!(failures, 1, "{said}");
        assert!(said.contains("never comes"), "{said}");
    }
}

#[test]
fn a_log_in_a_real_directory_is_what_calls_said() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = format!("--directory {} --seed 1 --states 40", directory.path().display());
    assert_eq!(failures(&arguments), 0);
}

fn failures(arguments: &str) -> usize {
    let (failures, said) = explored(arguments);
    if failures > 0 {
        print!("{said}");
    }
    failures
}

fn explored(arguments: &str) -> (usize, String) {
    let arguments = arguments.split_whitespace().map(str::to_owned);
    let mut said = Vec::new();
    let failures = explore(&Arguments::parse(arguments).unwrap(), &mut said).unwrap();
    (failures, String::from_utf8(said).unwrap())
}
