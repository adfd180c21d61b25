//! Each label of the verdict table, and each kind of ending, is the outcome of a log here that can
//! come to be, and both lists are held against the source: a row that nothing leads to is a promise
//! that nobody tests. `verdict.rs` beside this has many logs for each row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod support;

use std::collections::BTreeSet;

use support::{Recovered, new_log, try_recover};
use wal_format::{RecordKind, SegmentBytes};
use wal_sim::fixture::{LogFixture, LogImage, SegmentFixture, segment_name};
use wal_storage::{Corruption, WalError};

const LABEL_SOURCE: &str = include_str!("../src/verdict.rs");
const ENDING_SOURCE: &str = include_str!("../src/report.rs");

#[test]
fn every_label_can_happen() {
    let mut seen = BTreeSet::new();
    for (label, image) in all_labels() {
        let outcome = try_recover(&image);
        let labels = match &outcome {
            Ok(found) => labels_of(found, &image),
            Err(WalError::Corrupt(corruption)) => BTreeSet::from([label_of(corruption)]),
            Err(other) => panic!("{label}: {other}"),
        };
        assert!(labels.contains(label), "{label} expected, not {labels:?}: {outcome:?}");
        seen.insert(label.to_owned());
    }
    assert_eq!(seen, variants(LABEL_SOURCE, "Label"));
}

#[test]
fn every_kind_of_ending_can_happen() {
    let endings = [empty(), closed(), proven(), unproven(), torn()];
    let names = endings.iter().map(|image| {
        let (_, kind) = try_recover(image).unwrap().ending();
        first_word(&format!("{kind:?}"))
    });
    assert_eq!(names.collect::<BTreeSet<_>>(), variants(ENDING_SOURCE, "EndingKind"));
}

// ---- how an outcome shows the row that decided ----

/// The report names the label of the end. Whatever ended an earlier segment shows in its bytes.
fn labels_of(found: &Recovered, image: &LogImage) -> BTreeSet<&'static str> {
    let ending = found.ending().0;
    let ending = ["A", "B", "F"].into_iter().find(|label| ending == format!("@{label}"));
    let mut labels = BTreeSet::from([ending.expect("an end is @A, @B or @F")]);
    let spans = &found.core(0).spans;
    for span in spans.iter().take(spans.len() - 1) {
        let file = &image.files[&segment_name(0, span.segment_id)];
        let records: Vec<_> = SegmentBytes::parse(file).unwrap().records().collect();
        let at_end = records.iter().find(|record| record.position >= span.end_position);
        let is_sealed = at_end.is_some_and(|record| record.kind == RecordKind::Seal);
        labels.insert(if is_sealed { "F" } else { "G" });
    }
    labels
}

fn label_of(corruption: &Corruption) -> &'static str {
    match corruption {
        Corruption { position: None, .. } => "H",
        Corruption { proven_by: Some(_), .. } => "C",
        Corruption { what, .. } if what.contains("behind one") => "E",
        Corruption { what, .. } if what.contains("is missing") => "F",
        _ => "D",
    }
}

// ---- one way to each ----

fn all_labels() -> Vec<(&'static str, LogImage)> {
    vec![
        ("A", unproven()),
        ("B", torn()),
        ("C", damaged_below_a_mark()),
        ("D", not_understood()),
        ("E", falling()),
        ("F", sealed()),
        ("F", sealed_before_nothing()),
        ("G", taken_over()),
        ("H", foreign_identity()),
    ]
}

/// One segment with whatever `write` puts there.
fn one_segment(write: impl FnOnce(&mut SegmentFixture)) -> LogImage {
    let mut log = new_log();
    write(log.core(0).segment().put(b"a", b"1"));
    log.finish()
}

fn unproven() -> LogImage {
    one_segment(|_| {})
}

fn closed() -> LogImage {
    one_segment(|segment| {
        segment.close();
    })
}

fn proven() -> LogImage {
    one_segment(|segment| {
        segment.vouch();
    })
}

/// The core exists because another one above it does.
fn empty() -> LogImage {
    let mut log: LogFixture = new_log();
    log.core(0);
    log.core(1).segment().put(b"a", b"1");
    log.finish()
}

fn torn() -> LogImage {
    one_segment(|segment| {
        segment.raw(&[0xee; 40]);
    })
}

fn damaged_below_a_mark() -> LogImage {
    let mut log = new_log();
    let segment = log.core(0).segment().put(b"a", b"1");
    segment.mark(segment.position()).put(b"b", b"2");
    let name = segment.name();
    let mut image = log.finish();
    image.flip_byte(&name, 12288 + 20);
    image
}

fn not_understood() -> LogImage {
    one_segment(|segment| {
        segment.record(RecordKind::Unknown(5), &[0; 16]);
    })
}

fn falling() -> LogImage {
    one_segment(|segment| {
        segment.set_timestamp(9).put(b"b", b"2").set_timestamp(5).put(b"c", b"3");
    })
}

fn sealed() -> LogImage {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").seal();
    log.core(0).segment().put(b"b", b"2");
    log.finish()
}

fn sealed_before_nothing() -> LogImage {
    one_segment(|segment| {
        segment.seal();
    })
}

fn taken_over() -> LogImage {
    let mut log = new_log();
    log.core(0).segment().put(b"a", b"1").ends_here().raw(&[0xee; 40]);
    log.core(0).segment().put(b"b", b"2");
    log.finish()
}

fn foreign_identity() -> LogImage {
    let mut image = unproven();
    image.flip_byte(&segment_name(0, 1), 40);
    image
}

// ---- reading the source ----

/// The names of the variants of an enum, read from its source.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let body = source.split(&format!("pub enum {name} {{")).nth(1).unwrap();
    let body = body.split("\n}").next().unwrap();
    let is_variant = |line: &&str| {
        line.starts_with("    ") && line[4..].starts_with(|first: char| first.is_ascii_uppercase())
    };
    body.lines().filter(is_variant).map(|line| first_word(line.trim())).collect()
}

fn first_word(text: &str) -> String {
    text.split([' ', '(', '{', ',']).next().unwrap().to_owned()
}
