//! Runs promtool-format cases (`load`, `eval`, `clear`): our own under `cases/`, and, when there, a larger collection
//! in the folder `TOCSIN_CASES` names. What needs native histograms is skipped by detection and counted.

#[path = "promtool/run.rs"]
mod run;
#[path = "promtool/script.rs"]
mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use run::Outcome;

/// Cases that fail on purpose, by a part of their text, each with the reason.
const KNOWN: &[(&str, &str)] = &[];

struct Tally {
    passed: usize,
    skipped: BTreeMap<String, usize>,
    known: usize,
    failed: Vec<String>,
}

fn run_folder(folder: &Path) -> Tally {
    let mut tally = Tally { passed: 0, skipped: BTreeMap::new(), known: 0, failed: Vec::new() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of cases can be read")
        .map(|entry| entry.expect("a folder entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of cases can be read");
        let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
        for (case, outcome) in run::run(&text) {
            let known = KNOWN.iter().any(|(part, _)| case.contains(part));
            match outcome {
                Outcome::Passed if known => {
                    tally.failed.push(format!("{name}: {case}: passes, yet is listed as known"))
                }
                Outcome::Passed => tally.passed += 1,
                Outcome::Skipped(why) => *tally.skipped.entry(why).or_default() += 1,
                Outcome::Failed(_) if known => tally.known += 1,
                Outcome::Failed(why) => tally.failed.push(format!("{name}: {case}\n    {why}")),
            }
        }
    }
    let Tally { passed, skipped, known, failed } = &tally;
    println!("{}: {passed} passed, {known} known, {} failed; skipped:", folder.display(), failed.len());
    skipped.iter().for_each(|(why, count)| println!("  {count:4} {why}"));
    tally
}

// Cases: R4 (partly), R6 (partly)
#[test]
fn our_own_cases_pass() {
    let tally = run_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"));
    assert!(tally.failed.is_empty(), "{}", tally.failed.join("\n"));
    assert!(tally.skipped.is_empty(), "our own cases use nothing that is not supported");
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
    let tally = run_folder(&folder);
    assert!(tally.failed.is_empty(), "{} failed:\n{}", tally.failed.len(), tally.failed.join("\n"));
    assert!(tally.passed >= SHARED_CASES_MIN, "only {} cases ran", tally.passed);
}

/// So that a runner that stops reading early is noticed.
const OWN_CASES_MIN: usize = 145;
const SHARED_CASES_MIN: usize = 600;
