//! The text that exporters answer a scrape with, as far as recorded scrapes of node_exporter need it.
//!
//! A line is a series with its value; `# TYPE` says which metrics are counters. Histograms and summaries count, too:
//! all their lines but quantiles only ever grow.
//! Not here: exemplars, OpenMetrics, timestamps beside values (they are dropped).

use std::collections::HashSet;

use tocsin_shared::labels::{Labels, METRIC_NAME};

/// One scrape: its series in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    pub series: Vec<Reading>,
}

/// One series and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub labels: Labels,
    pub value: f64,
    /// Whether it can only grow.
    pub counter: bool,
}

/// A line that is no sample.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidLine {
    /// From 1.
    pub line: usize,
    pub why: &'static str,
}

impl std::fmt::Display for InvalidLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for InvalidLine {}

/// Reads a scrape.
pub fn parse(text: &str) -> Result<Scrape, InvalidLine> {
    let mut counters = HashSet::new();
    let mut scrape = Scrape::default();
    for (at, line) in text.lines().enumerate() {
        let fail = |why| InvalidLine { line: at + 1, why };
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_whitespace();
            if let (Some("TYPE"), Some(name), Some("counter" | "histogram" | "summary")) =
                (words.next(), words.next(), words.next())
            {
                counters.insert(name.to_owned());
            }
        } else if !line.is_empty() {
            scrape.series.push(reading(line, &counters).map_err(fail)?);
        }
    }
    Ok(scrape)
}

fn reading(line: &str, counters: &HashSet<String>) -> Result<Reading, &'static str> {
    let end = line.find(['{', ' ', '\t']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    let mut pairs = vec![(METRIC_NAME.to_owned(), name.to_owned())];
    let rest = match rest.strip_prefix('{') {
        Some(inside) => labels(inside, &mut pairs)?,
        None => rest,
    };
    let value = rest.split_whitespace().next().ok_or("no value")?;
    let value = value.parse().map_err(|_| "the value is no number")?;
    let family = ["_sum", "_count", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let grows = counters.contains(name) || counters.contains(family);
    let counter = grows && !pairs.iter().any(|(name, _)| name == "quantile");
    Ok(Reading { labels: Labels::new(pairs), value, counter })
}

/// Reads labels up to and including the closing brace; gives back what follows it.
fn labels<'a>(mut rest: &'a str, pairs: &mut Vec<(String, String)>) -> Result<&'a str, &'static str> {
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once('=').ok_or("a label without value")?;
        let quoted = after.trim_start().strip_prefix('"').ok_or("a label's value without quotes")?;
        let (value, after) = unquoted(quoted)?;
        pairs.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// Reads up to the closing quote; gives the value and what follows the quote.
fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("a label's value without its closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_series() {
        for (line, labels, value) in [
            ("up 1", Labels::series("up", &[]), 1.0),
            ("a{b=\"c\"} 2.5e+09 1795412135120", Labels::series("a", &[("b", "c")]), 2.5e9),
            ("a{b=\"c d\", e=\"}\",} -0", Labels::series("a", &[("b", "c d"), ("e", "}")]), -0.0),
            (r#"a{b="\"\\\n"} 3"#, Labels::series("a", &[("b", "\"\\\n")]), 3.0),
            ("a{} +Inf", Labels::series("a", &[]), f64::INFINITY),
        ] {
            let read = parse(line).unwrap().series;
            assert_eq!((&read[0].labels, read[0].value), (&labels, value), "{line}");
        }
    }

    #[test]
    fn types_tell_what_grows() {
        let text = "# TYPE a counter\na 1\n# TYPE b gauge\nb 1\n# TYPE c summary\nc{quantile=\"0\"} 1\nc_sum 1\nc_count 1\n";
        let grows: Vec<bool> = parse(text).unwrap().series.iter().map(|reading| reading.counter).collect();
        assert_eq!(grows, [true, false, false, true, true]);
    }

    #[test]
    fn what_is_no_sample_names_its_line() {
        for (text, line) in [("a 1\nb", 2), ("a x", 1), ("a{b=\"c} 1", 1), ("a{b} 1", 1), ("\n\na{b=c} 1", 3)]
        {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
    }
}
