//! The tree reads as it should: every file says what it is for, none grows without end, no unfinished thought is
//! left behind, generated types stay where the wire ends, and what the README points at is there.
#![allow(clippy::unwrap_used, reason = "all of it is tests")]

use std::fs;
use std::path::{Path, PathBuf};

mod cases;

/// Lines of a source file up to its tests at most.
const LINES_MAX: usize = 600;
/// Where generated types may be named.
const WIRE: [&str; 15] = [
    "proto/",
    "tests/",
    "collector/cli/",
    "collector/src/api",
    "collector/src/feed",
    "collector/src/identity",
    "collector/src/ingest",
    "collector/src/journal",
    "collector/src/store",
    "collector/src/run",
    "agent/src/keep",
    "agent/src/stream",
    "agent/src/enroll",
    "agent/src/recover",
    "agent/src/renew",
];
/// What an administrator copies; each is parsed by a test of its program.
const DEPLOY: [&str; 5] =
    ["agent.toml", "collector.toml", "tocsin-agent.service", "tocsin-collector.service", "rules/host.yml"];

/// Where the agent may start a program or open a connection: nothing that a collector says gets there but as bytes to
/// be taken apart.
const AGENT_REACHES_OUT: [(&str, &[&str]); 2] = [
    ("Command::new", &["agent/src/jobs/exec/outputs.rs", "agent/src/jobs/exec/run.rs"]),
    (
        "connect(",
        &[
            "agent/src/enroll.rs",
            "agent/src/jobs/exec/report/deliver.rs",
            "agent/src/jobs/intake.rs",
            "agent/src/recover.rs",
            "agent/src/renew.rs",
            "agent/src/stream.rs",
        ],
    ),
];
/// Nothing of these is anywhere in the agent.
const AGENT_NEVER: [&str; 6] = ["execve", "nix::unistd::exec", "fork()", "dlopen", "libloading", "TcpStream"];

/// Words that mean that something is not done. Split, so that this file has none.
const BANNED: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X "),
    concat!("TO", "DO"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A file of the tree: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

/// Every text file with one of these endings, sorted; what builds leave behind is not of the tree.
fn files(endings: &[&str]) -> Vec<File> {
    let (root, mut found, mut open) = (root(), Vec::new(), vec![root()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() && ![".git", "target"].contains(&name.as_str()) {
                open.push(path);
            } else if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let path_text = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push(File { path: path_text, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no files end in {endings:?} under {}", root.display());
    found
}

/// The part of a source file that is not its tests.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests").map_or(text, |(code, _)| code)
}

fn none(faults: Vec<String>, what: &str) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent = files(&[".rs"]).into_iter().filter(|file| !file.text.starts_with("//! "));
    none(silent.map(|file| file.path).collect(), "no `//!` header on the first line");
}

#[test]
fn no_source_file_grows_without_end() {
    let long = |file: &File| without_tests(&file.text).lines().count() > LINES_MAX;
    let is_code = |file: &File| file.path.contains("src/") && !file.path.ends_with("/tests.rs");
    let sources = files(&[".rs"]).into_iter().filter(|file| is_code(file) && long(file));
    none(
        sources.map(|file| file.path).collect(),
        "longer than 600 lines without tests: split by what decides what",
    );
}

#[test]
fn nothing_is_left_undone() {
    let all = files(&[".rs", ".toml", ".md", ".proto", ".yml", ".yaml", ".service", "/run", ".sh"]);
    let faults = all.iter().flat_map(|file| {
        let lines = file.text.lines().enumerate();
        lines.filter_map(move |(at, line)| {
            let word = BANNED.iter().find(|word| line.contains(**word))?;
            Some(format!("{}:{}: {word}", file.path, at + 1))
        })
    });
    none(faults.collect(), "unfinished thoughts, or paths of one machine");
}

#[test]
fn generated_types_stay_where_the_wire_ends() {
    // Other crates have a `pb`, too: ours is never written behind a path.
    let ours = |line: &str| line.match_indices("pb::").any(|(at, _)| !line[..at].ends_with("::"));
    let names = |text: &str| text.lines().any(|line| !line.trim_start().starts_with("//") && ours(line));
    let faults = files(&[".rs"]).into_iter().filter(|file| {
        let allowed =
            WIRE.iter().any(|place| file.path.starts_with(place)) || file.path.ends_with("/tests.rs");
        !allowed && names(without_tests(&file.text))
    });
    none(faults.map(|file| file.path).collect(), "names generated types; convert where the bytes come in");
}

// Cases: C-A10
#[test]
fn the_agent_starts_programs_and_connections_in_few_places() {
    let mut faults = Vec::new();
    let agent = files(&[".rs"]).into_iter().filter(|file| file.path.starts_with("agent/src/"));
    for file in agent.filter(|file| !file.path.contains("/tests")) {
        let code = without_tests(&file.text);
        for (what, allowed) in AGENT_REACHES_OUT {
            if code.contains(what) && !allowed.contains(&file.path.as_str()) {
                faults.push(format!("{}: {what}", file.path));
            }
        }
        faults.extend(
            AGENT_NEVER
                .iter()
                .filter(|what| code.contains(**what))
                .map(|what| format!("{}: {what}", file.path)),
        );
        // What takes a collector's messages has the spool to write to, and no file.
        let hears = file.path.starts_with("agent/src/stream/") || file.path.starts_with("agent/src/keep");
        let opens =
            ["std::fs", "File::", "OpenOptions", "private_file"].iter().any(|what| code.contains(what));
        faults.extend((hears && opens).then(|| format!("{}: opens files", file.path)));
    }
    none(faults, "reaches out of the agent");
}

#[test]
fn what_the_readme_points_at_is_there() {
    let root = root();
    let Ok(readme) = fs::read_to_string(root.join("README.md")) else { return };
    // A path is a word in backticks or a link's target that begins with a folder of the root.
    let folders = ["agent/", "collector/", "deploy/", "proto/", "shared/", "tests/", ".ci/"];
    let words = readme.split(['`', '(', ')', ' ', '\n', '"', '#', '│']);
    let paths = words.filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
    let paths = paths.map(|word| word.trim_end_matches(['.', ',', ':', ';']));
    let broken = paths.filter(|path| !path.contains(['*', '{', '…']) && !root.join(path).exists());
    none(broken.map(str::to_owned).collect(), "README.md points at what is not there");
}

#[test]
fn what_an_administrator_copies_is_there() {
    let deploy = root().join("deploy");
    let missing = DEPLOY.iter().filter(|file| !deploy.join(file).is_file());
    none(missing.map(|file| format!("deploy/{file}")).collect(), "not there");
}

#[test]
fn the_proto_files_document_every_service_and_message() {
    let faults = files(&[".proto"]).into_iter().flat_map(|file| {
        let comment_first = file.text.starts_with("// ");
        (!comment_first).then(|| format!("{}: no comment on its first line", file.path))
    });
    none(faults.collect(), "undocumented");
}

#[test]
fn tests_are_not_counted_as_code() {
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb"), "a\n");
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod testing;\nb"), "a\n#[cfg(test)]\nmod testing;\nb");
}
