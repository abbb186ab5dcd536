//! Each fuzz target on stable Rust: its committed corpus, and what a seeded mutator makes of it for a moment.
//!
//! `TOCSIN_FUZZ_SECONDS=60` makes the moment longer, `TOCSIN_FUZZ_SEED=7` another one. `TOCSIN_FUZZ_WRITE=1` writes the
//! seeds into the corpus. Longer and deeper: `cargo +nightly fuzz run TARGET` in this directory, see `fuzz/README.md`.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::path::PathBuf;
use std::time::Duration;

use tocsin_tests::fuzz::{TARGETS, play};

/// For each target, unless told otherwise.
const MOMENT: Duration = Duration::from_millis(1_500);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort(); // The order of a directory differs, a run's inputs must not.
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn write_seeds(name: &str, seeds: &[Vec<u8>]) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    for (at, seed) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{at:02}")), seed).unwrap();
    }
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    if number("TOCSIN_FUZZ_WRITE").is_some() {
        write_seeds(name, &(target.seeds)());
    }
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let moment = number("TOCSIN_FUZZ_SECONDS").map_or(MOMENT, Duration::from_secs);
    let inputs = play(target.run, &corpus, number("TOCSIN_FUZZ_SEED").unwrap_or(1), moment);
    println!("{name}: {inputs} inputs");
}

// Cases: S4, S5, S6
#[test]
fn spool_open() {
    fuzz("spool_open");
}

// Cases: S2, S24
#[test]
fn spool_replay_ops() {
    fuzz("spool_replay_ops");
}

// Cases: C5
#[test]
fn journal_open() {
    fuzz("journal_open");
}

// Cases: C5
#[test]
fn event_decode() {
    fuzz("event_decode");
}

#[test]
fn block_open() {
    fuzz("block_open");
}

// Cases: H9, H11
#[test]
fn ingest_batch() {
    fuzz("ingest_batch");
}

// Cases: H11
#[test]
fn receive_request() {
    fuzz("receive_request");
}

// Cases: H16, H17, S24, C-A10
#[test]
fn agent_from_server() {
    fuzz("agent_from_server");
}

#[test]
fn job_envelope() {
    fuzz("job_envelope");
}

// Cases: H13
#[test]
fn csr_parse() {
    fuzz("csr_parse");
}

// Cases: H12
#[test]
fn tls_accept() {
    fuzz("tls_accept");
}

// Cases: H1, H3, H4
#[test]
fn h2_frames() {
    fuzz("h2_frames");
}

// Cases: R17, R18
#[test]
fn rule_parse_eval() {
    fuzz("rule_parse_eval");
}

// Cases: F6
#[test]
fn cursor_parse() {
    fuzz("cursor_parse");
}

#[test]
fn config_parse() {
    fuzz("config_parse");
}

#[test]
fn procfs_parse() {
    fuzz("procfs_parse");
}

// Cases: P5, R18
#[test]
fn render_tty() {
    fuzz("render_tty");
}

#[test]
fn every_target_has_a_test_and_a_program() {
    let tests = include_str!("fuzz.rs");
    let programs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for target in TARGETS {
        let name = target.name;
        assert!(tests.contains(&format!("fuzz(\"{name}\");")), "{name} has no test");
        assert!(programs.join(format!("{name}.rs")).is_file(), "{name} has no program");
    }
}
