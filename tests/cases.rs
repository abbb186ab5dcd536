//! Which test covers which fault case: the lines `// Cases: N1, S4 (partly)` above tests, gathered into `CASES.md`.
//!
//! The cases and their titles are in `cases.tsv`: an id and a title, and for what is not covered, why; an id without a
//! number is the title of a group. Promises: a line names known cases and stands above a test, and the table that is
//! committed is the one that the tests give. Not here: whether a test covers what it says; its reader judges that.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use super::{File, files, none, root};

/// What stands before the ids.
const MARK: &str = "// Cases: ";
/// Behind an id whose case the test covers in part.
const PARTLY: &str = " (partly)";
/// Set to anything, the table is written instead of compared.
const WRITE: &str = "TOCSIN_WRITE";
const HEAD: &str = "\
# Fault cases and their tests

What can go wrong, and the tests that make it go wrong. Generated: a line `// Cases: N1, S4 (partly)` directly above a
test names what it covers, `tests/cases.tsv` names the cases. `TOCSIN_WRITE=1 cargo test -p tocsin-tests --test tidy`
writes this page anew; without the variable the same command fails when the page is not what the tests give.

The tests of a case may cover it together. \"(partly)\" says that something of it has no test, or is not made yet. What
says how many (thousands of agents, gigabytes) is tested with as many as a continuous run allows, and by hand with all.
";

/// A line of `cases.tsv`.
#[derive(Debug, PartialEq)]
struct Case<'a> {
    id: &'a str,
    title: &'a str,
    /// What of it is not covered, or why none of it is.
    lacks: &'a str,
}

impl Case<'_> {
    fn is_group(&self) -> bool {
        !self.id.ends_with(|end: char| end.is_ascii_digit())
    }
}

fn read_cases(text: &str) -> Vec<Case<'_>> {
    let line = |line| {
        let mut fields = str::split(line, '\t').chain(["", ""]);
        let mut field = || fields.next().unwrap_or_default();
        Case { id: field(), title: field(), lacks: field() }
    };
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(line).collect()
}

/// That a test covers a case.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    file: String,
    test: String,
    partly: bool,
}

type Claims = BTreeMap<String, Vec<Claim>>;

/// Whether a line is meant to name cases, however it is spelled.
fn is_meant(line: &str) -> bool {
    let words = line.trim_start().strip_prefix("//").map(|words| words.trim_start_matches(['/', '!', ' ']));
    words.is_some_and(|words| {
        let word = words.split(':').next().unwrap_or_default();
        words.contains(':') && ["case", "cases"].contains(&word.trim().to_lowercase().as_str())
    })
}

/// The test that a line stands above: what is between is comments, attributes and the beginning of a `proptest!`.
fn test_below(lines: &[&str], whole: &str) -> Option<String> {
    let between = |line: &&&str| {
        let line = line.trim();
        line.starts_with("//") || line.starts_with("#[") || line.ends_with("proptest! {")
    };
    let first = lines.iter().find(|line| !between(line))?.trim();
    let name = first.trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ")?;
    let name = name.split(['(', '<']).next()?;
    let marked = lines.iter().take_while(between).any(|line| {
        let line = line.trim();
        line.starts_with("#[test]") || line.starts_with("#[tokio::test")
    });
    // A file with a `main` of its own lists its tests by name.
    (marked || whole.contains(&format!("(\"{name}\", {name})"))).then(|| name.to_owned())
}

/// Adds what a file claims; the answer is what is wrong with its lines.
fn gather(file: &File, known: &[Case], claims: &mut Claims) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_meant(line)) {
        let mut fault = |what: String| faults.push(format!("{}:{}: {what}", file.path, at + 1));
        let Some(ids) = line.trim().strip_prefix(MARK) else {
            fault(format!("is to begin with `{MARK}`"));
            continue;
        };
        let Some(test) = test_below(&lines[at + 1..], &file.text) else {
            fault("no test follows".into());
            continue;
        };
        for id in ids.split(", ") {
            let (id, partly) = id.strip_suffix(PARTLY).map_or((id, false), |id| (id, true));
            if known.iter().any(|case| case.id == id && !case.is_group()) {
                let claim = Claim { file: file.path.clone(), test: test.clone(), partly };
                claims.entry(id.to_owned()).or_default().push(claim);
            } else {
                fault(format!("no case is called {id:?}"));
            }
        }
    }
    faults
}

/// How many cases are covered as a whole, in part, and not.
#[derive(Clone, Copy, Default)]
struct Count {
    covered: usize,
    partly: usize,
    without: usize,
}

impl Count {
    fn of(cases: &[Case], claims: &Claims) -> Self {
        let mut count = Self::default();
        for case in cases {
            match claims.get(case.id) {
                Some(claims) if claims.iter().any(|claim| !claim.partly) => count.covered += 1,
                Some(_) => count.partly += 1,
                None => count.without += 1,
            }
        }
        count
    }

    fn row(self, name: &str) -> String {
        let Self { covered, partly, without } = self;
        format!("| {name} | {} | {covered} | {partly} | {without} |\n", covered + partly + without)
    }
}

/// A case's tests, by file: only names, as numbers of lines change with every edit.
fn tests_of(claims: &[Claim]) -> String {
    let mut by_file = BTreeMap::<&str, Vec<String>>::new();
    for claim in claims {
        let partly = if claim.partly { PARTLY } else { "" };
        by_file.entry(&claim.file).or_default().push(format!("`{}`{partly}", claim.test));
    }
    let files = by_file.into_iter().map(|(file, tests)| format!("{file}: {}", tests.join(", ")));
    files.collect::<Vec<_>>().join("<br>")
}

/// The page: the counts, what lacks tests, and a table for each group.
fn page(cases: &[Case], claims: &Claims) -> String {
    let (mut counts, mut lacking, mut tables) = (String::new(), String::new(), String::new());
    let (mut faults, mut contracts) = (Count::default(), Count::default());
    for group in cases.chunk_by(|_, next| !next.is_group()) {
        let (head, cases) = group.split_first().expect("a chunk has at least one line");
        let count = Count::of(cases, claims);
        counts += &count.row(&format!("{}: {}", head.id, head.title));
        let total = if head.id.contains('-') { &mut contracts } else { &mut faults };
        total.covered += count.covered;
        total.partly += count.partly;
        total.without += count.without;
        write!(tables, "\n## {}: {}\n\n| id | case | tests |\n|---|---|---|\n", head.id, head.title).unwrap();
        for case in cases {
            let made = claims.get(case.id).map(Vec::as_slice).unwrap_or_default();
            writeln!(tables, "| {} | {} | {} |", case.id, case.title, tests_of(made)).unwrap();
            if made.iter().all(|claim| claim.partly) {
                let how = if made.is_empty() { "no" } else { "partly" };
                writeln!(lacking, "| {} | {} | {how} | {} |", case.id, case.title, case.lacks).unwrap();
            }
        }
    }
    let totals = faults.row("all fault cases") + &contracts.row("all promises");
    format!(
        "{HEAD}\n| group | cases | covered | partly | without |\n|---|---|---|---|---|\n{counts}{totals}\n\
         ## What is not covered\n\n| id | case | covered | what is missing |\n|---|---|---|---|\n{lacking}{tables}"
    )
}

#[test]
fn the_table_of_fault_cases_is_what_the_tests_say() {
    let list = fs::read_to_string(root().join("tests/cases.tsv")).unwrap();
    let (cases, mut claims) = (read_cases(&list), Claims::new());
    let faults = files(&[".rs"]).iter().flat_map(|file| gather(file, &cases, &mut claims)).collect();
    none(faults, "lines that name fault cases");
    let (page, path) = (page(&cases, &claims), root().join("tests/CASES.md"));
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differ =
        page.lines().zip(committed.lines().chain(std::iter::repeat(""))).find(|(new, old)| new != old);
    assert!(
        page == committed,
        "tests/CASES.md is not what the tests say; write it anew with {WRITE}=1 and commit it\nfirst: {differ:?}"
    );
}

#[test]
fn the_list_of_cases_has_each_once_and_in_order() {
    let list = fs::read_to_string(root().join("tests/cases.tsv")).unwrap();
    let cases = read_cases(&list);
    for group in cases.chunk_by(|_, next| !next.is_group()) {
        assert!(group[0].is_group(), "{:?} is in no group", group[0]);
        for (number, case) in group.iter().enumerate().skip(1) {
            assert_eq!(case.id, format!("{}{number}", group[0].id));
            assert!((3..=12).contains(&case.title.split(' ').count()), "{case:?}: a short title");
        }
    }
    let faults = cases.iter().filter(|case| !case.is_group() && !case.id.contains('-')).count();
    assert_eq!(faults, 148);
}

#[test]
fn lines_that_name_cases_are_read_or_refused() {
    let known = read_cases("# a comment\nN\tnet\nN1\tone\nN2\ttwo\tno such thing\n");
    assert_eq!(known[2], Case { id: "N2", title: "two", lacks: "no such thing" });
    for (text, expected) in [
        ("// Cases: N1\n#[test]\nfn a() {}", "N1 a"),
        (
            "  // Cases: N1, N2 (partly)\n  /// Why.\n  #[tokio::test(x)]\n  async fn a() {}",
            "N1 a, N2 a (partly)",
        ),
        ("// Cases: N1\nproptest! {\n#[test]\nfn a(x in 1) {}", "N1 a"),
        ("[(\"a\", a)]\n// Cases: N1\nfn a() {}", "N1 a"),
        ("// Cases: N1\nfn helps() {}", "f:1: no test follows"),
        ("// Cases: N1\n\n#[test]\nfn a() {}", "f:1: no test follows"),
        ("\n// Cases: N3\n#[test]\nfn a() {}", "f:2: no case is called \"N3\""),
        ("// Cases: N\n#[test]\nfn a() {}", "f:1: no case is called \"N\""),
        ("/// cases: N1\n#[test]\nfn a() {}", "f:1: is to begin with `// Cases: `"),
        ("// In all cases: it works.\n#[test]\nfn a() {}", ""),
    ] {
        let mut claims = Claims::new();
        let mut said = gather(&File { path: "f".into(), text: text.into() }, &known, &mut claims);
        said.extend(claims.iter().flat_map(|(id, claims)| {
            claims
                .iter()
                .map(move |claim| format!("{id} {}{}", claim.test, if claim.partly { PARTLY } else { "" }))
        }));
        assert_eq!(said.join(", "), expected, "{text}");
    }
}

#[test]
fn the_page_counts_each_case_once() {
    let cases = read_cases(
        "N\tthe net\nN1\tone\nN2\ttwo\tits end\nN3\tthree\tnot made\nC-A\ta promise\nC-A1\tkept\n",
    );
    let claim = |test: &str, partly| Claim { file: "a.rs".into(), test: test.into(), partly };
    let claims = Claims::from([
        ("N1".to_owned(), vec![claim("x", true), claim("y", false)]),
        ("N2".to_owned(), vec![claim("x", true)]),
    ]);
    let page = page(&cases, &claims);
    for line in [
        "| N: the net | 3 | 1 | 1 | 1 |",
        "| all fault cases | 3 | 1 | 1 | 1 |",
        "| all promises | 1 | 0 | 0 | 1 |",
        "| N2 | two | partly | its end |",
        "| N3 | three | no | not made |",
        "| N1 | one | a.rs: `x` (partly), `y` |",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}
