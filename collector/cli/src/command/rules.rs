//! ⇄ `tocsin rules check`: rule files read by the very code that the collector reads them with.
//!
//! Promise: every file is read and every mistake in all of them is told; a file that cannot be read is one.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tocsin_collector::rules::{FILE_BYTES_MAX, Mistake, RuleFile, parse_file, report};

use crate::failure::Failure;
use crate::figures::counted;
use crate::screen::Screen;
use crate::view::rules::{CheckView, CheckedFile, MistakeView, draw_check};

/// Checks files and says whether all are good.
pub(super) fn check(files: &[PathBuf], screen: &Screen) -> Result<(), Failure> {
    let files: Vec<PathBuf> = files.iter().flat_map(|path| files_of(path)).collect();
    let checked: Vec<Checked> = files.iter().map(|path| check_file(path)).collect();
    let view = CheckView { files: checked.iter().map(view).collect(), report: report(&checked) };
    screen.show(&view, draw_check)?;
    let bad = view.files.iter().filter(|file| !file.ok).count() as u64;
    let mistakes = view.files.iter().map(|file| file.mistakes.len() as u64).sum();
    match bad {
        0 => Ok(()),
        bad => Err(Failure::Mistakes(format!(
            "{} in {bad} of {}; the collector takes none of them until all are corrected",
            counted(mistakes, "mistake"),
            counted(files.len() as u64, "file")
        ))),
    }
}

type Checked = (String, Result<RuleFile, Vec<Mistake>>);

/// A file as given; of a directory its `*.yml` and `*.yaml` in order of names, as the collector reads it. One without
/// any is given on, to be told as a mistake.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_rules = |path: &PathBuf| path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    let mut found: Vec<PathBuf> = entries.filter(is_rules).collect();
    found.sort();
    if found.is_empty() { vec![path.to_owned()] } else { found }
}

fn check_file(path: &Path) -> Checked {
    let name = path.display().to_string();
    let checked = match read(path) {
        Ok(text) => parse_file(&name, &text),
        Err(message) => Err(vec![Mistake { file: name.as_str().into(), line: 1, column: 1, message }]),
    };
    (name, checked)
}

/// At most a byte more than a rule file may have: then `parse_file` says that it is too large.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    if path.is_dir() {
        return Err("there is no *.yml and no *.yaml in it".into());
    }
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        format!("not a text in UTF-8: byte {} is none", error.utf8_error().valid_up_to() + 1)
    })
}

fn view((path, checked): &Checked) -> CheckedFile {
    let (groups, rules, mistakes) = match checked {
        Ok(file) => (file.groups.len(), file.groups.iter().map(|group| group.rules.len()).sum(), Vec::new()),
        Err(mistakes) => (0, 0, mistakes.iter().map(told).collect()),
    };
    CheckedFile { path: path.clone(), ok: checked.is_ok(), groups, rules, mistakes }
}

fn told(mistake: &Mistake) -> MistakeView {
    MistakeView { line: mistake.line, column: mistake.column, message: mistake.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(content: Option<&[u8]>) -> CheckedFile {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.yml");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        view(&check_file(&path))
    }

    #[test]
    fn a_directory_is_its_rule_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(files_of(dir.path()), [dir.path()]);
        assert!(view(&check_file(dir.path())).mistakes[0].message.contains("no *.yml"));
        for name in ["b.yaml", "a.yml", "notes.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(files_of(dir.path()), [dir.path().join("a.yml"), dir.path().join("b.yaml")]);
        assert_eq!(files_of(&dir.path().join("a.yml")), [dir.path().join("a.yml")]);
    }

    #[test]
    fn files_are_good_or_say_what_is_wrong() {
        let good = checked(Some(b"groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up == 0\n"));
        assert!(good.ok && good.groups == 1 && good.rules == 1, "{good:?}");
        let large = vec![b'#'; FILE_BYTES_MAX + 100];
        for (content, says) in [
            (None, "cannot read it: No such file"),
            (Some(&b"groups:\n- name: \xff\n"[..]), "not a text in UTF-8: byte 17"),
            (Some(b"groups:\n- name: g\n  rules:\n  - alert: A\n"), "expr"),
            (Some(&large), "larger than"),
        ] {
            let bad = checked(content);
            assert!(!bad.ok && bad.mistakes[0].message.contains(says), "{bad:?}");
        }
    }
}
