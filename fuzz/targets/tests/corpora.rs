//! Every input that the fuzzers' corpora hold runs as an ordinary test, on any toolchain.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

use std::path::Path;

use laminar_wal_fuzz_targets::{record_decode, segment_scan};

#[test]
fn the_corpus_of_record_decode_holds() {
    run("record_decode", record_decode);
}

#[test]
fn the_corpus_of_segment_scan_holds() {
    run("segment_scan", segment_scan);
}

fn run(target: &str, function: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let mut inputs = 0;
    for file in std::fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        function(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", corpus.display());
}
