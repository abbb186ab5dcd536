//! ⇄ `tocsin promqltest`: files of Prometheus' test language, run over the engine that rules and queries use.
//!
//! Promise: every file is run and told of; one that cannot be read is a failure of its own.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use tocsin_promql::script::{Outcome, Report, run as run_cases, run_experimental};

use crate::arguments::PromqlTest;
use crate::failure::Failure;
use crate::figures::counted;
use crate::screen::Screen;
use crate::view::promqltest::{CasesView, FailedView, FileView, SkippedView, draw_cases};

/// The largest file taken: Prometheus' own largest has under 200 KiB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs files and says whether all of their cases pass.
pub(super) fn run(arguments: &PromqlTest, screen: &Screen) -> Result<(), Failure> {
    let run_one = if arguments.experimental { run_experimental } else { run_cases };
    let view = CasesView { files: arguments.files.iter().map(|path| file(path, run_one)).collect() };
    screen.show(&view, draw_cases)?;
    match view.failed() {
        0 => Ok(()),
        failed => Err(Failure::Mistakes(format!(
            "{} in {} failed",
            counted(failed as u64, "case"),
            counted(view.files.len() as u64, "file")
        ))),
    }
}

fn file(path: &Path, run: fn(&str) -> Report) -> FileView {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => view(name, &run(&text)),
        Err(message) => {
            let failed = vec![FailedView { line: 0, case: String::new(), message }];
            FileView { path: name, passed: 0, failed, skipped: Vec::new() }
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot read it: {error}"))?;
    if FILE_BYTES_MAX < bytes.len() as u64 {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes; split it"));
    }
    String::from_utf8(bytes).map_err(|error| {
        format!("not a text in UTF-8: byte {} is none", error.utf8_error().valid_up_to() + 1)
    })
}

fn view(path: String, report: &Report) -> FileView {
    let (passed, ..) = report.counts();
    let mut failed = Vec::new();
    let mut skipped: Vec<SkippedView> = Vec::new();
    for case in &report.cases {
        match &case.outcome {
            Outcome::Passed => {}
            Outcome::Failed(message) => {
                failed.push(FailedView {
                    line: case.line,
                    case: case.text.clone(),
                    message: message.clone(),
                });
            }
            Outcome::Skipped(skip) => {
                let kind = skip.to_string();
                match skipped.iter_mut().find(|known| known.kind == kind) {
                    Some(known) => known.cases += 1,
                    None => skipped.push(SkippedView { kind, cases: 1 }),
                }
            }
        }
    }
    skipped.sort_by(|a, b| a.kind.cmp(&b.kind));
    FileView { path, passed, failed, skipped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(content: Option<&[u8]>) -> FileView {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cases.test");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        file(&path, run_cases)
    }

    #[test]
    fn files_are_counted_by_what_came_of_their_cases() {
        let text = "load 1m\n  up 1\n\neval instant at 0 up\n  up 1\n\neval instant at 0 up\n  up 2\n\n\
                    eval instant at 0 start()\n\neval instant at 0 histogram_count(up)\n\nwhat\n";
        let view = ran(Some(text.as_bytes()));
        assert_eq!((view.passed, view.failed.len()), (1, 2), "{view:?}");
        assert_eq!(view.failed.iter().map(|failed| failed.line).collect::<Vec<_>>(), [7, 14]);
        let kinds: Vec<&str> = view.skipped.iter().map(|skipped| skipped.kind.as_str()).collect();
        assert_eq!(kinds, ["experimental: the function start()", "native histograms"]);
    }

    #[test]
    fn files_that_cannot_be_read_fail() {
        let no_text = &b"\xff"[..];
        for (content, says) in
            [(None, "cannot read it: No such file"), (Some(no_text), "not a text in UTF-8: byte 1")]
        {
            let view = ran(content);
            assert!(view.failed.len() == 1 && view.failed[0].message.contains(says), "{view:?}");
        }
    }
}
