//! Runs files of the test language: our own under `cases/`, and, when there, a larger collection in the folder
//! `TOCSIN_CASES` names. What needs native histograms or is experimental is skipped, and counted by kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tocsin_promql::script::{Outcome, Report, run, run_experimental};

struct Tally {
    passed: usize,
    skipped: BTreeMap<String, usize>,
    failed: Vec<String>,
}

fn run_folder(folder: &Path, run: fn(&str) -> Report) -> Tally {
    let mut tally = Tally { passed: 0, skipped: BTreeMap::new(), failed: Vec::new() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of cases can be read")
        .map(|entry| entry.expect("a folder entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of cases can be read");
        for case in run(&text).cases {
            match case.outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Skipped(skip) => *tally.skipped.entry(skip.to_string()).or_default() += 1,
                Outcome::Failed(why) => {
                    tally.failed.push(format!("{}:{}: {}\n    {why}", file.display(), case.line, case.text))
                }
            }
        }
    }
    let Tally { passed, skipped, failed } = &tally;
    println!("{}: {passed} passed, {} failed; skipped:", folder.display(), failed.len());
    skipped.iter().for_each(|(kind, count)| println!("  {count:4} {kind}"));
    tally
}

// Cases: R4 (partly), R6 (partly)
#[test]
fn our_own_cases_pass() {
    let tally = run_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), run_experimental);
    assert!(tally.failed.is_empty(), "{}", tally.failed.join("\n"));
    assert!(tally.skipped.is_empty(), "our own cases use nothing that is skipped");
    assert!(tally.passed >= OWN_CASES_MIN, "only {} cases ran", tally.passed);
}

#[test]
fn the_shared_cases_pass() {
    let folder = std::env::var_os("TOCSIN_CASES").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/promql"));
    if !folder.is_dir() {
        println!("no cases at {}: set TOCSIN_CASES to run more than our own", folder.display());
        return;
    }
    let tally = run_folder(&folder, run);
    let more = run_folder(&folder, run_experimental);
    let failed: Vec<String> = tally.failed.into_iter().chain(more.failed).collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(tally.passed < more.passed, "experimental functions are not judged by the plain run");
    assert!(tally.passed >= SHARED_CASES_MIN, "only {} cases ran", tally.passed);
}

/// So that a runner that stops reading early is noticed.
const OWN_CASES_MIN: usize = 155;
const SHARED_CASES_MIN: usize = 580;
