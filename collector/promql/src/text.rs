//! The text of an expression before it is parsed: bounded, and with its raw strings in the form the parser takes.
//!
//! The parser recurses as deep as a text nests, and it resolves escapes in `raw strings` too. So this reads the text
//! first, knowing no more than what is a string, what is a comment and what is neither.

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
    let mut prepared = String::with_capacity(text.len());
    let mut code = String::with_capacity(text.len());
    let mut place = Place::Code;
    for c in text.chars() {
        let before = place;
        place = before.after(c);
        let raw = matches!(before, Place::Quoted { quote: '`', .. });
        match c {
            '`' if raw || before == Place::Code => prepared.push('"'),
            '"' | '\\' if raw => prepared.extend(['\\', c]),
            '\n' if raw => prepared.push_str("\\n"),
            c => prepared.push(c),
        }
        if before == Place::Code {
            code.push(c);
        }
    }
    check_depth(&code)?;
    Ok(prepared)
}

fn check_depth(code: &str) -> Result<(), ParseError> {
    let (mut depth, mut operators) = (0usize, 0usize);
    for c in code.chars() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '^' | '<' | '>' => operators += 1,
            _ => {}
        }
        if DEPTH_MAX < depth {
            return Err(ParseError::TooDeep);
        }
    }
    operators += code.matches("==").count() + code.matches("!=").count();
    let is_operator =
        |word: &&str| ["and", "or", "unless", "atan2"].iter().any(|op| op.eq_ignore_ascii_case(word));
    operators += code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_operator).count();
    if DEPTH_MAX < operators { Err(ParseError::TooDeep) } else { Ok(()) }
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
            (r#"a{b="`\"`"}"#, r#"a{b="`\"`"}"#),
            ("a # `it's`\n+ b", "a # `it's`\n+ b"),
        ] {
            assert_eq!(prepare(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn only_code_counts_as_depth() {
        let deep = "(".repeat(DEPTH_MAX + 1);
        for (text, fits) in [
            (deep.clone(), false),
            (format!("\"{deep}\""), true),
            (format!("a # {deep}"), true),
            (format!("a # it's\n + {deep}"), false),
            (format!("\"\\\"\" + {deep}"), false),
            (format!("`\\` + {deep}"), false),
        ] {
            assert_eq!(prepare(&text).is_ok(), fits, "{}", &text[..8]);
        }
    }
}
