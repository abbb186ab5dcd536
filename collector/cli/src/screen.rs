//! ⇄ Where output goes: as tables for people or as JSON for programs, never both, never harmful to a terminal.
//!
//! Promise: colour only on a terminal and never with NO_COLOR; text from elsewhere reaches the screen through
//! `clean` or a table, JSON through `json`, so no control or reordering character gets out.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use tocsin_shared::sanitize::{for_terminal, is_unprintable};
use tocsin_shared::time::Timestamp;

use crate::failure::Failure;

/// What a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one document per command, JSON lines for `feed tail`.
    Json,
    /// For spreadsheets: `query` only.
    Csv,
    /// A line a value, for scripts: `query` only.
    Plain,
}

/// How bad something is, as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Somebody has to act now.
    Bad,
    /// Somebody should look.
    Warn,
    /// All is well.
    Good,
    /// Less important than the rest.
    Faint,
    /// Headings.
    Strong,
    /// One of several that stand beside each other, by its number.
    One(usize),
}

/// Colours that are told apart on dark and on light screens.
const COLOURS: [&str; 6] =
    ["\u{1b}[36m", "\u{1b}[33m", "\u{1b}[35m", "\u{1b}[32m", "\u{1b}[34m", "\u{1b}[31m"];

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Bad => "\u{1b}[1;31m",
            Self::Warn => "\u{1b}[33m",
            Self::Good => "\u{1b}[32m",
            Self::Faint => "\u{1b}[2m",
            Self::Strong => "\u{1b}[1m",
            Self::One(number) => COLOURS[number % COLOURS.len()],
        }
    }
}

/// What views need to know about the screen, and what time it is.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub colour: bool,
    pub now: Timestamp,
    /// Columns of the terminal; `None`: there is none, and nothing is cut for it.
    pub width: Option<usize>,
    /// Whether it shows more than ASCII.
    pub unicode: bool,
}

impl Style {
    /// No terminal: no colours, no width, plain characters.
    pub const fn plain(now: Timestamp) -> Self {
        Self { colour: false, now, width: None, unicode: false }
    }

    /// The text in a colour, if there are colours. The text must be clean already.
    pub fn paint(&self, paint: Option<Paint>, text: &str) -> String {
        match paint {
            Some(paint) if self.colour && !text.is_empty() => format!("{}{text}\u{1b}[0m", paint.code()),
            _ => text.to_owned(),
        }
    }

    /// A heading.
    pub fn strong(&self, text: &str) -> String {
        self.paint(Some(Paint::Strong), text)
    }
}

/// Text from elsewhere on one line: what could harm a terminal is spelled out, line breaks and tabs too.
pub fn clean(text: &str) -> String {
    for_terminal(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Text from elsewhere on several lines, each indented.
pub fn clean_block(text: &str, indent: &str) -> String {
    for_terminal(text).lines().map(|line| format!("{indent}{line}\n")).collect()
}

/// Which way a command prints, and the style for it.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub format: Format,
    pub style: Style,
}

impl Screen {
    /// The process' standard output.
    pub fn stdout(format: Format, now: Timestamp) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let terminal = io::stdout().is_terminal();
        let width = terminal.then(|| ratatui::crossterm::terminal::size().ok()).flatten();
        let width = width.map(|(columns, _)| usize::from(columns)).filter(|columns| *columns > 0);
        let colour = terminal && !refused && !dumb;
        Self {
            format,
            style: Style { colour, now, width, unicode: shows_unicode(|name| std::env::var(name).ok()) },
        }
    }

    /// Prints a view: as JSON, or as the table that `table` draws.
    pub fn show<V: Serialize>(
        &self,
        view: &V,
        table: impl FnOnce(&V, &Style) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => write_out(&json(view, true)?),
            Format::Table | Format::Csv | Format::Plain => write_out(&table(view, &self.style)),
        }
    }

    /// Prints one of many: a line of JSON, or what `line` draws.
    pub fn show_line<V: Serialize>(
        &self,
        view: &V,
        line: impl FnOnce(&V, &Style) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => write_out(&json(view, false)?),
            Format::Table | Format::Csv | Format::Plain => write_out(&line(view, &self.style)),
        }
    }
}

/// Whether the locale has more than ASCII: the first of its variables that is set says so.
fn shows_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    set.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

/// Writes and flushes. Whoever closed the pipe (`| head`) has seen enough: that is the end, not an error.
pub fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(Failure::Output),
    }
}

/// A note for the person in front of the screen, apart from the output.
pub fn note(text: &str) {
    eprintln!("tocsin: {}", clean(text));
}

/// JSON with a line break at its end. Characters that `serde_json` leaves as they are but a terminal acts on
/// (DEL, C1, bidi, invisible ones) are escaped, which changes the text but not what it means.
pub fn json<V: Serialize>(view: &V, pretty: bool) -> Result<String, Failure> {
    let raw = if pretty { serde_json::to_string_pretty(view) } else { serde_json::to_string(view) };
    let raw = raw.map_err(|error| Failure::Output(io::Error::other(error)))?;
    let mut text = String::with_capacity(raw.len() + 1);
    for c in raw.chars() {
        // Outside of strings JSON is plain ASCII, so whatever is unprintable stands in a string.
        if is_unprintable(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_harmless_and_says_the_same() {
        let hostile = "\u{1b}[2J \u{9b}31m \u{202e}txt\u{7f} \u{e0041} Grüße";
        let text = json(&hostile, false).unwrap();
        assert_eq!(text, "\"\\u001b[2J \\u009b31m \\u202etxt\\u007f \\udb40\\udc41 Grüße\"\n");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }

    #[test]
    fn text_stays_on_its_line() {
        assert_eq!(clean("a\nb\tc\r\u{1b}"), "a\\nb\\tc\\u{d}\\u{1b}");
        assert_eq!(clean_block("one\n\u{1b}two\n", "  "), "  one\n  \\u{1b}two\n");
    }

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        let plain = Style::plain(Timestamp::default());
        let colour = Style { colour: true, ..plain };
        assert_eq!(plain.paint(Some(Paint::Bad), "x"), "x");
        assert_eq!(colour.paint(Some(Paint::Bad), "x"), "\u{1b}[1;31mx\u{1b}[0m");
        assert_eq!(colour.paint(Some(Paint::One(7)), "x"), "\u{1b}[33mx\u{1b}[0m");
        assert_eq!(colour.paint(None, "x"), "x");
        assert_eq!(colour.paint(Some(Paint::Bad), ""), "");
    }

    #[test]
    fn the_first_variable_of_the_locale_that_is_set_decides() {
        for (all, ctype, lang, expected) in [
            ("", "", "", false),
            ("", "", "C", false),
            ("", "", "en_GB.UTF-8", true),
            ("C", "", "en_GB.UTF-8", false),
            ("", "de_DE.utf8", "C", true),
        ] {
            let value = |name: &str| {
                let value = if name == "LC_ALL" {
                    all
                } else if name == "LC_CTYPE" {
                    ctype
                } else {
                    lang
                };
                Some(value.to_owned())
            };
            assert_eq!(shows_unicode(value), expected, "{all} {ctype} {lang}");
        }
    }
}
