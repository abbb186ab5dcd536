//! A series in the test language: `name{label="value"} 1 2+3x4 _x2 stale`, one value for each step.

use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::sample::STALE_NAN;

/// A series with its values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) labels: Labels,
    pub(super) values: Values,
    pub(super) start_timestamps: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// `None` where there is no sample.
    Floats(Vec<Option<f64>>),
    /// There are native histograms among them.
    Histograms,
}

/// Values one line may stand for: `1x1000000000` is a slip.
const VALUES_MAX: usize = 1_000_000;

/// Reads a whole line.
pub(super) fn line(text: &str) -> Result<Line, String> {
    let (labels, rest) = labels_and_rest(text)?;
    if rest.contains("{{") {
        return Ok(Line { labels, values: Values::Histograms, start_timestamps: false });
    }
    Ok(Line { labels, values: Values::Floats(values(rest)?), start_timestamps: false })
}

/// Reads a series without values.
pub(super) fn labels(text: &str) -> Result<Labels, String> {
    match labels_and_rest(text)? {
        (labels, "") => Ok(labels),
        (_, rest) => Err(format!("expected nothing after the labels, got {rest:?}")),
    }
}

fn labels_and_rest(text: &str) -> Result<(Labels, &str), String> {
    let name_ends = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_ends);
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() && !rest.starts_with('{') {
        return Err(format!("expected a series with its values, got {text:?}"));
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    if !name.is_empty() {
        pairs.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    // A histogram is no label set.
    let labels_follow = rest.trim_start().starts_with('{') && !rest.trim_start().starts_with("{{");
    let Some(inside) = rest.trim_start().strip_prefix('{').filter(|_| labels_follow) else {
        return Ok((Labels::new(pairs), rest.trim()));
    };
    let rest = braces(inside, &mut pairs)?;
    if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
        return Err(format!("expected a space after the labels, got {rest:?}"));
    }
    Ok((Labels::new(pairs), rest.trim()))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// The pairs up to the closing brace, and what is after it. A string alone is the metric's name.
fn braces<'t>(inside: &'t str, pairs: &mut Vec<(String, String)>) -> Result<&'t str, String> {
    let mut rest = inside.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after, quoted) = match string(rest) {
            Some((name, after)) => (name, after.trim_start(), true),
            None => {
                let ends = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
                (rest[..ends].to_owned(), rest[ends..].trim_start(), false)
            }
        };
        rest = match after.strip_prefix('=') {
            Some(after) if !name.is_empty() => {
                let found = string(after.trim_start());
                let (value, after) =
                    found.ok_or_else(|| format!("the label {name} wants a value in quotes"))?;
                pairs.push((name, value));
                after.trim_start()
            }
            None if quoted => {
                pairs.push((METRIC_NAME.to_owned(), name));
                after
            }
            _ => return Err(format!("expected a label and its value in the braces, got {rest:?}")),
        };
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.starts_with('}') => rest,
            None => return Err(format!("expected a comma or a closing brace, got {rest:?}")),
        };
    }
}

/// A string in double, single or back quotes, and what is after it.
pub(crate) fn string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let inside = &text[1..];
    if quote == '`' {
        let (string, rest) = inside.split_once('`')?;
        return Some((string.to_owned(), rest));
    }
    let mut bytes = Vec::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                return Some((String::from_utf8_lossy(&bytes).into_owned(), &inside[at + 1..]));
            }
            '\\' => escaped(&mut chars, &mut bytes)?,
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

/// What a backslash stands for.
fn escaped(chars: &mut std::str::CharIndices<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let (_, c) = chars.next()?;
    let mut number = |digits: usize, radix: u32, first: u32| {
        (0..digits).try_fold(first, |sum, _| Some(sum * radix + chars.next()?.1.to_digit(radix)?))
    };
    let char = match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' | '\'' | '"' => c,
        'x' => {
            bytes.push(u8::try_from(number(2, 16, 0)?).ok()?);
            return Some(());
        }
        '0'..='7' => {
            bytes.push(u8::try_from(number(2, 8, c.to_digit(8)?)?).ok()?);
            return Some(());
        }
        'u' => char::from_u32(number(4, 16, 0)?)?,
        'U' => char::from_u32(number(8, 16, 0)?)?,
        _ => return None,
    };
    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

fn values(text: &str) -> Result<Vec<Option<f64>>, String> {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let item = item(word).ok_or_else(|| {
            format!("{word:?} is no value: expected a number like 1, -2.5 or NaN, stale, _, or several like 1+2x3 and _x4")
        })?;
        if VALUES_MAX < all.len() + item.count {
            return Err(format!("{word} makes more than {VALUES_MAX} values"));
        }
        all.extend((0..item.count).map(|at| item.start.map(|start| step_up(start, item.step, at))));
    }
    Ok(all)
}

/// Added one by one, as Prometheus does: the last digits differ from a product's.
fn step_up(start: f64, step: f64, at: usize) -> f64 {
    if step == 0.0 { start } else { (0..at).fold(start, |value, _| value + step) }
}

struct Item {
    /// `None` for samples that are not there.
    start: Option<f64>,
    step: f64,
    count: usize,
}

/// `1`, `1x3`, `1+2x3`, `1-2x3`, `_`, `_x3`, `stale`: a number is there once more than it is repeated.
fn item(word: &str) -> Option<Item> {
    let one = |start| Some(Item { start, step: 0.0, count: 1 });
    if word == "_" {
        return one(None);
    }
    if word == "stale" {
        return one(Some(STALE_NAN));
    }
    if let Some(value) = value(word) {
        return one(Some(value));
    }
    let (pattern, count) = word.rsplit_once('x')?;
    let count: usize = count.parse().ok().filter(|count| *count < VALUES_MAX)?;
    if pattern == "_" {
        return Some(Item { start: None, step: 0.0, count });
    }
    if pattern == "stale" {
        return Some(Item { start: Some(STALE_NAN), step: 0.0, count: count + 1 });
    }
    let (start, step) = progression(pattern)?;
    Some(Item { start: Some(start), step, count: count + 1 })
}

/// `1+2`, `1-2`, `1`: the start and what is added each time.
fn progression(pattern: &str) -> Option<(f64, f64)> {
    if let Some(start) = value(pattern) {
        return Some((start, 0.0));
    }
    let signs = pattern.char_indices().skip(1).filter(|(_, c)| matches!(c, '+' | '-'));
    signs.map(|(at, _)| pattern.split_at(at)).find_map(|(start, step)| Some((value(start)?, value(step)?)))
}

/// A number of a series: decimal, or one of the names.
fn value(word: &str) -> Option<f64> {
    let plain = word.strip_prefix(['+', '-']).unwrap_or(word);
    let named = ["inf", "nan"].iter().any(|name| plain.eq_ignore_ascii_case(name));
    let decimal = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if named || decimal { word.parse().ok() } else { None }
}

/// A number alone on its line, which may be written in other bases and with underscores.
pub(super) fn number(text: &str) -> Option<f64> {
    let (sign, plain) = match text.strip_prefix('-') {
        Some(plain) => (-1.0, plain),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = plain.replace('_', "").to_ascii_lowercase();
    let based = [("0x", 16), ("0b", 2), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| i64::from_str_radix(digits.strip_prefix(prefix)?, radix).ok());
    let octal = || {
        let is_octal =
            1 < digits.len() && digits.starts_with('0') && digits.bytes().all(|b| matches!(b, b'0'..=b'7'));
        is_octal.then(|| i64::from_str_radix(&digits, 8).ok()).flatten()
    };
    if let Some(whole) = based.or_else(octal) {
        return Some(sign * whole as f64);
    }
    let named = ["inf", "infinity", "nan"].contains(&digits.as_str());
    let decimal = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if named || decimal && value(&digits).is_some() { Some(sign * digits.parse::<f64>().ok()?) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_every_notation() {
        let read = |text: &str| {
            values(text).map(|all| {
                let show = |value: &Option<f64>| match value {
                    None => "_".to_owned(),
                    Some(value) if value.to_bits() == STALE_NAN.to_bits() => "stale".to_owned(),
                    Some(value) => value.to_string(),
                };
                all.iter().map(show).collect::<Vec<_>>().join(" ")
            })
        };
        for (text, expected) in [
            ("", ""),
            ("1 2 3", "1 2 3"),
            ("1+2x3", "1 3 5 7"),
            ("1-2x3", "1 -1 -3 -5"),
            ("-1-2x1", "-1 -3"),
            ("5x2", "5 5 5"),
            ("1x0", "1"),
            ("_ _x2 1", "_ _ _ 1"),
            ("stale 1 stalex1", "stale 1 stale stale"),
            ("NaN nan -Inf +Inf Inf inf", "NaN NaN -inf inf inf inf"),
            ("1e3 1.5e-1x1 1e+1+1e+0x1", "1000 0.15 0.15 10 11"),
            (".5 5.", "0.5 5"),
            ("Inf+1x1 NaNx1", "inf inf NaN NaN"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["0x10y", "x", "1x", "1+x3", "_x", "1 2 three", "1,2", "1x99999999999", "--1"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(values("0x2").unwrap().len(), 3, "zero, three times: no hex here");
    }

    #[test]
    fn numbers_alone_have_more_notations() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("0x1F", Some(31.0)),
            ("-0x10", Some(-16.0)),
            ("0755", Some(493.0)),
            ("08", Some(8.0)),
            ("1_000", Some(1000.0)),
            ("2.5e3", Some(2500.0)),
            ("-Inf", Some(f64::NEG_INFINITY)),
            ("+inf", Some(f64::INFINITY)),
            ("{} 1", None),
            ("x", None),
            ("info 1", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert!(number("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn label_sets_have_names_in_any_alphabet() {
        for (text, expected) in [
            ("up", "up"),
            ("a:b{}", "a:b"),
            ("{}", "{}"),
            ("up{a=\"1\",b='2', c=`3\\`,}", "up{a=\"1\", b=\"2\", c=\"3\\\\\"}"),
            ("{\"a.b\", \"c d\"=\"}\"}", "a.b{c d=\"}\"}"),
            ("up {a=\"1\"}", "up{a=\"1\"}"),
            ("sum{by=\"\\u00fc\\x41\\101\\n\"}", "sum{by=\"üAA\\n\"}"),
        ] {
            assert_eq!(labels(text).map(|labels| labels.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "up{",
            "up{a}",
            "up{a=}",
            "up{a=\"1\" b=\"2\"}",
            "up{a=\"1}",
            "up{=\"1\"}",
            "up{a=\"1\"}x",
            "{,}",
        ] {
            assert!(labels(text).is_err(), "{text}");
        }
    }
}
