//! Metrics that other programs leave in files: every `*.prom` of one directory, in the exposition format.
//!
//! A file that cannot be read or understood is left out whole and sets `node_textfile_scrape_error`; the others
//! count. Samples with a timestamp are refused, as node_exporter does: such a file is not about this tick. Names that
//! this agent says itself are refused as well, so that a file cannot speak over a measurement.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tocsin_shared::time::Timestamp;

use super::file::{KernelFile, names_in};
use super::section::Section;
use super::source::{CollectError, Source};

/// Directory entries looked at.
const FILES_MAX: usize = 256;
/// Lines of one file read; more is not a handful of metrics of a script.
const SAMPLES_MAX: usize = 4096;
/// Labels of one sample, beside its name, and bytes of a name: what the collector takes.
const LABELS_MAX: usize = 31;
const NAME_BYTES_MAX: usize = 256;

/// One sample of a file.
#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) metric: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// Why a file was left out: the line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTextfile {
    #[error("line {0} is not a sample in the exposition format")]
    Syntax(usize),
    #[error("line {0} has a timestamp, which a text file must not have")]
    Timestamp(usize),
    #[error("line {0} has a name that the agent says itself")]
    Reserved(usize),
    #[error("line {0} has more than {LABELS_MAX} labels, or a name of more than {NAME_BYTES_MAX} bytes")]
    TooLong(usize),
    #[error("more than {SAMPLES_MAX} samples")]
    TooMany,
}

/// Reads a whole file.
pub(crate) fn parse(text: &str) -> Result<Vec<Parsed>, InvalidTextfile> {
    let mut samples = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if samples.len() == SAMPLES_MAX {
            return Err(InvalidTextfile::TooMany);
        }
        samples.push(parse_line(line, at + 1)?);
    }
    Ok(samples)
}

fn parse_line(line: &str, number: usize) -> Result<Parsed, InvalidTextfile> {
    let syntax = || InvalidTextfile::Syntax(number);
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace()).ok_or_else(syntax)?;
    let (metric, rest) = line.split_at(name_end);
    if !is_name(metric) {
        return Err(syntax());
    }
    if metric.starts_with("tocsin_")
        || ["node_scrape_collector_success", "node_textfile_scrape_error", "up"].contains(&metric)
    {
        return Err(InvalidTextfile::Reserved(number));
    }
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest).ok_or_else(syntax)?,
        None => (Vec::new(), rest),
    };
    if labels.len() > LABELS_MAX
        || labels.iter().map(|(name, _)| name.len()).chain([metric.len()]).any(|bytes| bytes > NAME_BYTES_MAX)
    {
        return Err(InvalidTextfile::TooLong(number));
    }
    let mut fields = rest.split_ascii_whitespace();
    let value = fields.next().and_then(parse_value).ok_or_else(syntax)?;
    match fields.next() {
        None => Ok(Parsed { metric: metric.to_owned(), labels, value }),
        Some(_) => Err(InvalidTextfile::Timestamp(number)),
    }
}

fn parse_value(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        number => number.parse().ok(),
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Reads labels up to the closing brace; gives them and what follows it.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        if !is_name(name) || name.starts_with("__") {
            return None;
        }
        let (value, after) = parse_quoted(after.trim_start())?;
        labels.push((name.to_owned(), value));
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after,
            None if rest.starts_with('}') => rest,
            None => return None,
        };
    }
}

fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 2..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// The `textfile` collector.
pub(crate) struct Textfile {
    directory: Option<PathBuf>,
    /// Files found wrong, so that each is logged once.
    wrong: Vec<String>,
}

impl Textfile {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, wrong: Vec::new() }
    }

    fn read_file(&mut self, directory: &Path, name: &str, out: &mut Section) -> bool {
        let path = directory.join(name);
        let read = KernelFile::table(path.clone()).read().map(|text| parse(&text)).map_err(|e| e.to_string());
        let read = read.and_then(|parsed| parsed.map_err(|e| e.to_string()));
        let known = self.wrong.iter().position(|wrong| wrong == name);
        let samples = match read {
            Ok(samples) => samples,
            Err(error) => {
                if known.is_none() {
                    tracing::warn!(path = %path.display(), error, "a text file is left out");
                    self.wrong.push(name.to_owned());
                }
                return false;
            }
        };
        known.map(|at| self.wrong.swap_remove(at));
        for Parsed { metric, labels, value } in &samples {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            out.put(metric.as_str(), &labels, *value);
        }
        let modified = std::fs::metadata(&path).and_then(|about| about.modified()).ok();
        if let Some(since) = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            let file = path.to_string_lossy();
            out.put("node_textfile_mtime_seconds", &[("file", &file)], since.as_secs_f64());
        }
        true
    }
}

impl Source for Textfile {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let mut all_well = true;
        if let Some(directory) = self.directory.clone() {
            match names_in(&directory, FILES_MAX) {
                Ok(names) => {
                    self.wrong.retain(|wrong| names.contains(wrong));
                    for name in names.iter().filter(|name| name.ends_with(".prom")) {
                        all_well &= self.read_file(&directory, name, out);
                    }
                }
                Err(_) => all_well = false,
            }
        }
        out.put("node_textfile_scrape_error", &[], if all_well { 0.0 } else { 1.0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_format_says() {
        for (line, want) in [
            ("a 1", Ok(r#"a [] 1.0"#)),
            ("a:b_c{} 1e3", Ok(r#"a:b_c [] 1000.0"#)),
            (r#"a{x="1", y = "b\"\\\n", } -Inf"#, Ok(r#"a [("x", "1"), ("y", "b\"\\\n")] -inf"#)),
            (r#"a {x="ü}"} +Inf"#, Ok(r#"a [("x", "ü}")] inf"#)),
            ("a 1 1600000000000", Err(InvalidTextfile::Timestamp(1))),
            ("a", Err(InvalidTextfile::Syntax(1))),
            ("1a 1", Err(InvalidTextfile::Syntax(1))),
            (r#"a{x="1} 1"#, Err(InvalidTextfile::Syntax(1))),
            (r#"a{x="1" y="2"} 1"#, Err(InvalidTextfile::Syntax(1))),
            (r#"a{__name__="b"} 1"#, Err(InvalidTextfile::Syntax(1))),
            (r#"a{__meta="b"} 1"#, Err(InvalidTextfile::Syntax(1))),
            (
                &format!("a{{{}}} 1", (0..32).map(|n| format!("l{n}=\"x\",")).collect::<String>()),
                Err(InvalidTextfile::TooLong(1)),
            ),
            (&format!("{} 1", "a".repeat(257)), Err(InvalidTextfile::TooLong(1))),
            ("up 1", Err(InvalidTextfile::Reserved(1))),
            ("tocsin_agent_build_info 1", Err(InvalidTextfile::Reserved(1))),
        ] {
            let is = parse(line).map(|samples| {
                format!("{} {:?} {:?}", samples[0].metric, samples[0].labels, samples[0].value)
            });
            assert_eq!(is, want.map(str::to_owned), "{line}");
        }
        assert_eq!(parse("# HELP a b\n\n# TYPE a gauge\n"), Ok(vec![]));
    }

    #[test]
    fn a_wrong_file_is_left_out_and_told_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in
            [("good.prom", "backup_age_seconds 5\n"), ("bad.prom", "x 1\n???\n"), ("other.txt", "y 1\n")]
        {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let mut source = Textfile::new(Some(folder.path().to_owned()));
        let mut metrics = || {
            let mut section = Section::default();
            section.begin();
            source.read(Timestamp::default(), &mut section).unwrap();
            section.end();
            let slots = section.slots().iter();
            slots.map(|slot| (slot.labels.metric().to_owned(), slot.value)).collect::<Vec<_>>()
        };
        let said = metrics();
        assert_eq!(said[0], ("backup_age_seconds".to_owned(), 5.0));
        assert_eq!(said[1].0, "node_textfile_mtime_seconds");
        assert_eq!(said[2..], [("node_textfile_scrape_error".to_owned(), 1.0)]);
        std::fs::remove_file(folder.path().join("bad.prom")).unwrap();
        assert_eq!(metrics().last(), Some(&("node_textfile_scrape_error".to_owned(), 0.0)));
    }
}
