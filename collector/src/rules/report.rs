//! What `tocsin rules check` prints.

use super::mistake::Mistake;
use super::rule::RuleFile;

/// One line for each good file, and every mistake of each bad one as `path:line:column: message`.
pub fn report(files: &[(String, Result<RuleFile, Vec<Mistake>>)]) -> String {
    let mut text = String::new();
    for (path, result) in files {
        match result {
            Ok(file) => text.push_str(&format!("{path}: {}\n", summary(file))),
            Err(mistakes) => {
                for Mistake { file: _, line, column, message } in mistakes {
                    text.push_str(&format!("{path}:{line}:{column}: {message}\n"));
                }
            }
        }
    }
    text
}

fn summary(file: &RuleFile) -> String {
    let rules = || file.groups.iter().flat_map(|group| &group.rules);
    let (all, local) = (rules().count(), rules().filter(|rule| rule.expr.is_host_local()).count());
    let groups = file.groups.len();
    let counted = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}, {} ({local} host-local, {} across hosts)",
        counted(groups, "group"),
        counted(all, "rule"),
        all - local
    )
}
