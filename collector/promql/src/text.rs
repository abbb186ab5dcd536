//! The text of an expression before it is parsed: bounded, and with its raw strings in the form the parser takes.
//!
//! The parser recurses as deep as a text nests, and it resolves escapes in `raw strings` too. So this reads the text
//! first, knowing no more than what is a string, what is a comment and what is neither.

use std::borrow::Cow;

use crate::expr::ParseError;

/// The longest text taken. The longest rule in public collections has 1,100 characters.
pub(crate) const TEXT_BYTES_MAX: usize = 32 * 1024;

/// How deep an expression may nest, by brackets, by operators that follow each other, or by both together: all become
/// depth of recursion. A debug build needs up to 9 KB of stack per level, and threads have 2 MB.
pub(crate) const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    Comment,
    /// Inside quotes of this kind; `escaped` after a backslash.
    Quoted {
        quote: char,
        escaped: bool,
    },
}

impl Place {
    fn after(self, c: char) -> Self {
        match (self, c) {
            (Self::Code, '"' | '\'' | '`') => Self::Quoted { quote: c, escaped: false },
            (Self::Code, '#') => Self::Comment,
            (Self::Comment, '\n') => Self::Code,
            (Self::Quoted { quote, escaped: true }, _) => Self::Quoted { quote, escaped: false },
            (Self::Quoted { quote, .. }, c) if c == quote => Self::Code,
            (Self::Quoted { quote, .. }, '\\') if quote != '`' => Self::Quoted { quote, escaped: true },
            (place, _) => place,
        }
    }
}

/// Checks the size and depth of a text and gives it as the parser wants it.
pub(crate) fn prepare(text: &str) -> Result<String, ParseError> {
    if text.trim().is_empty() {
        return Err(ParseError::Empty);
    }
    if TEXT_BYTES_MAX < text.len() {
        return Err(ParseError::TooLong(text.len()));
    }
    let text = &bytes_as_text(text);
    let mut prepared = String::with_capacity(text.len());
    let mut code = String::with_capacity(text.len());
    let mut place = Place::Code;
    let mut brackets = Brackets::default();
    let mut quoted_from = 0;
    for (at, c) in text.char_indices() {
        let before = place;
        place = before.after(c);
        let raw = matches!(before, Place::Quoted { quote: '`', .. });
        match c {
            '`' if raw || before == Place::Code => prepared.push('"'),
            '"' | '\\' if raw => prepared.extend(['\\', c]),
            '\n' if raw => prepared.push_str("\\n"),
            '_' if before == Place::Code && is_between_digits(text, at) => {}
            c => prepared.push(c),
        }
        if before == Place::Code {
            code.push(c);
            brackets
                .take(c, at)
                .map_err(|why| ParseError::Syntax(format!("{why} {}", position(text, at))))?;
            quoted_from = at;
        }
        if DEPTH_MAX < brackets.open.len() {
            return Err(ParseError::TooDeep);
        }
    }
    if matches!(place, Place::Quoted { .. }) {
        return Err(ParseError::Syntax(format!("the string {} does not end", position(text, quoted_from))));
    }
    if let Some((bracket, at)) = brackets.open.pop() {
        return Err(ParseError::Syntax(format!("{bracket} {} is not closed", position(text, at))));
    }
    if DEPTH_MAX < operators(&code) { Err(ParseError::TooDeep) } else { Ok(prepared) }
}

/// Strings with their escaped bytes as the text they are: `\xc3\xbc` is one letter, which the parser would take for two.
/// A byte that is part of no letter becomes the replacement character, which no name may hold. The length may change,
/// but not what stands on which line.
fn bytes_as_text(text: &str) -> Cow<'_, str> {
    if !text.contains("\\x") && !text.contains("\\2") && !text.contains("\\3") {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut place = Place::Code;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let escapes = matches!(place, Place::Quoted { quote, escaped: false } if quote != '`') && c == '\\';
        let run = if escapes { byte_escapes(rest) } else { (Vec::new(), 0) };
        if let (bytes, length @ 1..) = run {
            result.push_str(&String::from_utf8_lossy(&bytes));
            rest = &rest[length..];
            continue;
        }
        place = place.after(c);
        result.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(result)
}

/// The bytes from 128 on that a text begins with in escaped form, and how long that form is.
fn byte_escapes(text: &str) -> (Vec<u8>, usize) {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(escape) = text.get(length..length + 4).and_then(|escape| escape.strip_prefix('\\')) {
        let byte = match escape.strip_prefix('x') {
            Some(digits) => u8::from_str_radix(digits, 16),
            None => u8::from_str_radix(escape, 8),
        };
        match byte {
            Ok(byte @ 128..) => bytes.push(byte),
            _ => break,
        }
        length += 4;
    }
    (bytes, length)
}

/// Whether an underscore only makes a number easier to read: `1_000_000`, which the parser does not know.
fn is_between_digits(text: &str, at: usize) -> bool {
    let is_part = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
    let before: String = text[..at].chars().rev().take_while(is_part).collect();
    let begins = before.chars().next_back();
    let in_number = match begins {
        Some('.') => before.chars().nth_back(1).is_some_and(|c| c.is_ascii_digit()),
        begins => begins.is_some_and(|c| c.is_ascii_digit()),
    };
    in_number && !before.starts_with('_') && text[at + 1..].starts_with(|c: char| c.is_ascii_hexdigit())
}

/// The brackets that are open, each with where it was opened.
#[derive(Default)]
struct Brackets {
    open: Vec<(char, usize)>,
}

impl Brackets {
    fn take(&mut self, c: char, at: usize) -> Result<(), String> {
        let opening = match c {
            '(' | '[' | '{' => {
                self.open.push((c, at));
                return Ok(());
            }
            ')' => '(',
            ']' => '[',
            '}' => '{',
            _ => return Ok(()),
        };
        match self.open.pop() {
            Some((open, _)) if open == opening => Ok(()),
            Some((open, _)) => Err(format!("{open} is closed by {c}")),
            None => Err(format!("nothing is open for {c}")),
        }
    }
}

/// Where people look: lines and columns count from 1, a column is a character.
fn position(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
    format!("at line {line}, column {column}")
}

/// How many operators there are, at least as many as nest.
fn operators(code: &str) -> usize {
    let symbols = code.chars().filter(|c| matches!(c, '+' | '-' | '*' | '/' | '%' | '^' | '<' | '>')).count();
    let equalities = code.matches("==").count() + code.matches("!=").count();
    let is_word =
        |word: &&str| ["and", "or", "unless", "atan2"].iter().any(|op| op.eq_ignore_ascii_case(word));
    symbols
        + equalities
        + code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_word).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_strings_become_escaped_ones_and_nothing_else_changes() {
        for (text, expected) in [
            ("a{b=`c`}", r#"a{b="c"}"#),
            (r"a{b=~`\d\.`}", r#"a{b=~"\\d\\."}"#),
            (r#"a{b=`"`}"#, r#"a{b="\""}"#),
            ("a{b=`\n`}", r#"a{b="\n"}"#),
            ("1_000 + 0x_53_AB + .12_3", "1000 + 0x53AB + .123"),
            ("a_1 + a1_2 + a:1_2 + 1__0", "a_1 + a1_2 + a:1_2 + 1__0"),
            (r#"a{b="`\"`"}"#, r#"a{b="`\"`"}"#),
            ("a # `it's`\n+ b", "a # `it's`\n+ b"),
        ] {
            assert_eq!(prepare(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn escaped_bytes_are_the_letters_they_make() {
        for (text, expected) in [
            (r#"a{b="\xc3\xbc\303\274 \x41"}"#, r#"a{b="üü \x41"}"#),
            (r#"a{b="a\xc5z"}"#, "a{b=\"a\u{fffd}z\"}"),
            (r#"a{b="\\xc5"}"#, r#"a{b="\\xc5"}"#),
            (r"a{b=`\xc5`}", r"a{b=`\xc5`}"),
            (r#"a{b="\xc"}"#, r#"a{b="\xc"}"#),
            (r#"a{b="\x"#, r#"a{b="\x"#),
        ] {
            assert_eq!(bytes_as_text(text), expected, "{text}");
        }
    }

    #[test]
    fn brackets_and_strings_that_do_not_match_are_refused_with_their_place() {
        for (text, expected) in [
            ("sum(", "( at line 1, column 4 is not closed"),
            ("a +\n  rate(b[5m)", "[ is closed by ) at line 2, column 12"),
            ("ü + a)", "nothing is open for ) at line 1, column 6"),
            ("a{b=\"c}", "the string at line 1, column 5 does not end"),
            ("a # (\n)", "nothing is open for ) at line 2, column 1"),
        ] {
            let error = prepare(text).unwrap_err().to_string();
            assert_eq!(error, format!("the expression does not parse: {expected}"), "{text}");
        }
    }

    #[test]
    fn only_code_counts_as_depth() {
        let open = "(".repeat(DEPTH_MAX + 1);
        let deep = format!("{open}a{}", ")".repeat(DEPTH_MAX + 1));
        let fits = |text: &str| !matches!(prepare(text), Err(ParseError::TooDeep));
        for (text, expected) in [
            (deep.clone(), false),
            (open.clone(), false),
            (format!("\"{deep}\""), true),
            (format!("a # {open}"), true),
            (format!("a # it's\n + {deep}"), false),
            (format!("\"\\\"\" + {deep}"), false),
            (format!("`\\` + {deep}"), false),
            (vec!["a"; DEPTH_MAX + 2].join(" or "), false),
            (vec!["a"; DEPTH_MAX + 2].join("=="), false),
            ("-".repeat(DEPTH_MAX + 1), false),
        ] {
            assert_eq!(fits(&text), expected, "{}", &text[..8]);
        }
    }
}
