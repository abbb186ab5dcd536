//! What came of files of query cases.

use serde::Serialize;
use tocsin_shared::sanitize::for_terminal;

use crate::screen::Style;

/// `tocsin promqltest`.
#[derive(Clone, Debug, Serialize)]
pub struct CasesView {
    pub files: Vec<FileView>,
}

impl CasesView {
    /// How many cases failed in all files.
    pub fn failed(&self) -> usize {
        self.files.iter().map(|file| file.failed.len()).sum()
    }
}

/// A file.
#[derive(Clone, Debug, Serialize)]
pub struct FileView {
    pub path: String,
    pub passed: usize,
    pub failed: Vec<FailedView>,
    /// By kind.
    pub skipped: Vec<SkippedView>,
}

impl FileView {
    fn skipped(&self) -> usize {
        self.skipped.iter().map(|skipped| skipped.cases).sum()
    }
}

/// A case that failed.
#[derive(Clone, Debug, Serialize)]
pub struct FailedView {
    /// From 1; 0 when the whole file cannot be read.
    pub line: usize,
    pub case: String,
    /// What was expected, and what came.
    pub message: String,
}

/// Cases not judged.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedView {
    pub kind: String,
    pub cases: usize,
}

/// The failures in full, then a line per file with its skips, then the sum.
pub fn draw_cases(view: &CasesView, _: &Style) -> String {
    let mut text = String::new();
    for file in &view.files {
        for failed in &file.failed {
            text.push_str(&failure(&file.path, failed));
        }
        let (passed, failed, skipped) = (file.passed, file.failed.len(), file.skipped());
        text.push_str(&format!("{}: {passed} passed, {failed} failed, {skipped} skipped\n", file.path));
        for SkippedView { kind, cases } in &file.skipped {
            text.push_str(&format!("  {cases:5}  skipped: {kind}\n"));
        }
    }
    let sum = |count: fn(&FileView) -> usize| view.files.iter().map(count).sum::<usize>();
    let (passed, skipped) = (sum(|file| file.passed), sum(FileView::skipped));
    text.push_str(&format!("total: {passed} passed, {} failed, {skipped} skipped\n", view.failed()));
    for_terminal(&text).into_owned()
}

fn failure(path: &str, FailedView { line, case, message }: &FailedView) -> String {
    let message = message.replace('\n', "\n    ");
    match line {
        0 => format!("{path}: {message}\n"),
        line => format!("{path}:{line}: {case}\n    {message}\n"),
    }
}

#[cfg(test)]
mod tests {
    use tocsin_shared::time::Timestamp;

    use super::*;

    #[test]
    fn failures_come_with_their_place_and_skips_with_their_kind() {
        let message = "expected 1, got 2";
        let failed =
            |line, case: &str| FailedView { line, case: case.to_owned(), message: message.to_owned() };
        let skipped = vec![SkippedView { kind: "native histograms".to_owned(), cases: 3 }];
        let file =
            |path: &str, failed, skipped| FileView { path: path.to_owned(), passed: 2, failed, skipped };
        let files = vec![
            file("a.test", vec![failed(7, "eval instant at 0 up"), failed(0, "")], skipped),
            file("b.test", Vec::new(), Vec::new()),
        ];
        let text = draw_cases(&CasesView { files }, &Style::plain(Timestamp::default()));
        let expected = "a.test:7: eval instant at 0 up\n    expected 1, got 2\na.test: expected 1, got 2\n\
                        a.test: 2 passed, 2 failed, 3 skipped\n      3  skipped: native histograms\n\
                        b.test: 2 passed, 0 failed, 0 skipped\ntotal: 4 passed, 2 failed, 3 skipped\n";
        assert_eq!(text, expected);
    }
}
