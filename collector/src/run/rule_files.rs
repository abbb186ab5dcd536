//! The rules in force: the bundled ones and the configured files, all of them or none.

use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;

use super::StartError;
use crate::config::Config;
use crate::evaluate::plan::Plan;
use crate::rules::{FILE_BYTES_MAX, RuleSet, parse_file};

/// The rules for hosts that come with the product.
const BUNDLED: &str = include_str!("../../../deploy/rules/host.yml");
const BUNDLED_NAME: &str = "bundled/host.yml";

/// Reads all rules; every mistake in every file is in the error.
pub(super) fn load(config: &Config) -> Result<RuleSet, StartError> {
    let (mut files, mut mistakes) = (Vec::new(), Vec::new());
    let mut take = |name: &str, text: &str| match parse_file(name, text) {
        Ok(file) => files.push(file),
        Err(found) => mistakes.extend(found.iter().map(ToString::to_string)),
    };
    if config.bundled_rules {
        take(BUNDLED_NAME, BUNDLED);
    }
    let mut unreadable = Vec::new();
    for path in list(&config.rules, &mut unreadable) {
        match read(&path) {
            Ok(text) => take(&path.to_string_lossy(), &text),
            Err(why) => unreadable.push(format!("{}: {why}", path.display())),
        }
    }
    mistakes.extend(unreadable);
    if !mistakes.is_empty() {
        return Err(StartError::Rules(mistakes.join("\n")));
    }
    RuleSet::new(files).map_err(|error| StartError::Rules(error.to_string()))
}

/// Reads the rules again and puts them in force, all or nothing; gives their number. The evaluator takes them up
/// within half a second.
pub(super) fn reload(config: &Config, plan: &ArcSwap<Plan>) -> Result<usize, String> {
    let set = load(config).map_err(|error| error.to_string())?;
    let rules = set.rules().count();
    plan.rcu(|old| Plan::new(old.version + 1, &set));
    Ok(rules)
}

/// Files as given, directories as their `*.yml` and `*.yaml` in order of names.
fn list(paths: &[PathBuf], unreadable: &mut Vec<String>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                found.retain(|path| {
                    path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml")
                });
                found.sort();
                files.extend(found);
            }
            Err(error) => unreadable.push(format!("{}: {error}", path.display())),
        }
    }
    files
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > FILE_BYTES_MAX as u64 {
        return Err(format!("{bytes} bytes, a rule file has at most {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
    }

    // Cases: R2 (partly)
    #[test]
    fn files_of_a_directory_are_in_force_and_all_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let rule = |name: &str, expr: &str| {
            format!("groups:\n- name: {name}\n  rules:\n  - {{alert: A, expr: '{expr}'}}\n")
        };
        write(dir.path(), "b.yaml", &rule("b", "up == 0"));
        write(dir.path(), "a.yml", &rule("a", "up == 0"));
        write(dir.path(), "notes.txt", "not a rule file");
        let rules = vec![dir.path().to_owned()];
        let mut config = Config { rules, bundled_rules: false, ..Config::default() };
        let groups =
            |config: &Config| load(config).unwrap().groups().map(|g| g.name.to_string()).collect::<Vec<_>>();
        assert_eq!(groups(&config), ["a", "b"]);
        config.bundled_rules = true;
        assert!(groups(&config).len() > 2, "the bundled rules are valid");
        write(dir.path(), "b.yaml", &rule("b", "up =="));
        config.rules.push(dir.path().join("missing.yml"));
        let mistakes = load(&config).unwrap_err().to_string();
        assert!(mistakes.contains("b.yaml") && mistakes.contains("missing.yml"), "{mistakes}");
    }
}
