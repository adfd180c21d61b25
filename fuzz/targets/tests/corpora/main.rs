//! Every input that the fuzzers' corpora hold runs as an ordinary test, on any toolchain.
//!
//! The corpora begin with seeds that `seeds.rs` puts together; inputs that once failed stand beside
//! them. `LAMINAR_WAL_WRITE_CORPORA=1 cargo test -p laminar-wal-fuzz-targets` writes the seeds
//! anew, which is needed when a target reads its input in another way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so and stop")]

mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

use laminar_wal_fuzz_targets::{
    append_crash_recover, archived_entry, manifest, open_directory, record_decode, segment_scan,
};

#[test]
fn the_corpus_of_append_crash_recover_holds() {
    run("append_crash_recover", append_crash_recover);
}

#[test]
fn the_corpus_of_archived_entry_holds() {
    run("archived_entry", archived_entry);
}

#[test]
fn the_corpus_of_manifest_holds() {
    run("manifest", manifest);
}

#[test]
fn the_corpus_of_open_directory_holds() {
    run("open_directory", open_directory);
}

#[test]
fn the_corpus_of_record_decode_holds() {
    run("record_decode", record_decode);
}

#[test]
fn the_corpus_of_segment_scan_holds() {
    run("segment_scan", segment_scan);
}

#[test]
fn the_seeds_are_in_the_corpora_and_written_there_on_request_alone() {
    let is_asked_to_write = std::env::var_os("LAMINAR_WAL_WRITE_CORPORA").is_some();
    for (target, name, bytes) in seeds::all() {
        let file = corpus(target).join(name);
        if is_asked_to_write {
            fs::create_dir_all(corpus(target)).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(fs::read(&file).ok(), Some(bytes), "{} is not the seed", file.display());
    }
}

fn run(target: &str, function: fn(&[u8])) {
    let corpus = corpus(target);
    let mut inputs = 0;
    for file in fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        function(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", corpus.display());
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target)
}
