//! From the text of a template to stretches of plain text and actions made of tokens.
//!
//! Decides where an action ends (quotes may hold braces) and what the trim markers `{{-` and `-}}` eat.
//! Comments vanish here. Not here: what the tokens mean.

use super::TemplateError;

/// A stretch of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action { offset: usize, tokens: Vec<Token> },
}

/// A word of an action, and whether it touches the word before it: `$a.b` is one thing, `$a .b` two.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) offset: usize,
    pub(super) glued: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Word(String),
    Variable(String),
    Field(String),
    Dot,
    Text(String),
    Whole(i64),
    Fraction(f64),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

/// The stretches of a template, in order.
pub(super) fn pieces(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let (mut pieces, mut at, mut trim_next) = (Vec::new(), 0, false);
    loop {
        let open = source[at..].find("{{").map(|found| at + found);
        let mut text = &source[at..open.unwrap_or(source.len())];
        if trim_next {
            text = text.trim_start_matches(SPACES);
        }
        let Some(open) = open else {
            push_text(&mut pieces, text);
            return Ok(pieces);
        };
        let mut cursor = Cursor { source, at: open + 2, open };
        if cursor.rest().starts_with('-') && cursor.rest()[1..].starts_with(SPACES) {
            text = text.trim_end_matches(SPACES);
            cursor.at += 1;
        }
        push_text(&mut pieces, text);
        let after_spaces = cursor.rest().trim_start_matches(SPACES);
        if after_spaces.starts_with("/*") {
            trim_next = cursor.comment()?;
        } else {
            let (tokens, trim) = cursor.action()?;
            pieces.push(Piece::Action { offset: open, tokens });
            trim_next = trim;
        }
        at = cursor.at;
    }
}

const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// A place inside an action that began at `open`.
struct Cursor<'s> {
    source: &'s str,
    at: usize,
    open: usize,
}

impl<'s> Cursor<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError::new(self.at, message)
    }

    fn unclosed(&self) -> TemplateError {
        TemplateError::new(self.open, "this action is not closed; end it with }}")
    }

    /// Skips a comment; whether the text after it loses its leading spaces.
    fn comment(&mut self) -> Result<bool, TemplateError> {
        let end = self
            .rest()
            .find("*/")
            .ok_or_else(|| TemplateError::new(self.open, "this comment is not closed; end it with */}}"))?;
        self.at += end + 2;
        let rest = self.rest();
        let bare = rest.trim_start_matches(SPACES);
        if bare.len() < rest.len() && bare.starts_with("-}}") {
            self.at = self.source.len() - bare.len() + 3;
            return Ok(true);
        }
        if rest.starts_with("}}") {
            self.at += 2;
            return Ok(false);
        }
        Err(self.error("a comment must end with */}}, nothing in between"))
    }

    /// The tokens up to the closing braces, and whether the text after them loses its leading spaces.
    fn action(&mut self) -> Result<(Vec<Token>, bool), TemplateError> {
        let mut tokens = Vec::new();
        loop {
            let bare = self.rest().trim_start_matches(SPACES);
            let spaced = bare.len() < self.rest().len();
            self.at = self.source.len() - bare.len();
            if bare.is_empty() {
                return Err(self.unclosed());
            }
            if bare.starts_with("}}") {
                self.at += 2;
                return Ok((tokens, false));
            }
            if spaced && bare.starts_with("-}}") {
                self.at += 3;
                return Ok((tokens, true));
            }
            let offset = self.at;
            let kind = self.token()?;
            tokens.push(Token { offset, glued: !spaced, kind });
        }
    }

    fn token(&mut self) -> Result<Kind, TemplateError> {
        let rest = self.rest();
        let mut chars = rest.chars();
        let (first, second) = (chars.next().unwrap_or(' '), chars.next().unwrap_or(' '));
        let number_follows = second.is_ascii_digit() || (second == '.' && matches!(first, '+' | '-'));
        let kind = match first {
            '(' => Kind::Open,
            ')' => Kind::Close,
            '|' => Kind::Pipe,
            ',' => Kind::Comma,
            '=' => Kind::Assign,
            ':' if second == '=' => {
                self.at += 2;
                return Ok(Kind::Declare);
            }
            '"' => return self.quoted(),
            '`' => return self.raw(),
            '$' => {
                self.at += 1;
                return Ok(Kind::Variable(self.name()));
            }
            '.' if starts_name(second) => {
                self.at += 1;
                return Ok(Kind::Field(self.name()));
            }
            '.' if !number_follows => Kind::Dot,
            c if c.is_ascii_digit() => return self.number(),
            '.' | '+' | '-' if number_follows => return self.number(),
            c if starts_name(c) => return Ok(Kind::Word(self.name())),
            c => return Err(self.error(format!("unexpected {c:?} inside {{{{ }}}}"))),
        };
        self.at += 1;
        Ok(kind)
    }

    fn name(&mut self) -> String {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += len;
        rest[..len].to_owned()
    }

    fn number(&mut self) -> Result<Kind, TemplateError> {
        let rest = self.rest();
        let mut previous = ' ';
        let len = rest
            .find(|c: char| {
                let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E' | ' ');
                previous = c;
                !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || exponent_sign)
            })
            .unwrap_or(rest.len());
        let text = &rest[..len];
        let plain = text.replace('_', "");
        let whole = match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => plain.parse::<i64>().ok(),
        };
        let starts_like_one = !plain.trim_start_matches(['+', '-']).starts_with(char::is_alphabetic);
        let fraction = plain.parse::<f64>().ok().filter(|_| starts_like_one);
        let kind = whole.map(Kind::Whole).or(fraction.map(Kind::Fraction));
        let kind = kind.ok_or_else(|| self.error(format!("not a number: {text}")))?;
        self.at += len;
        Ok(kind)
    }

    fn raw(&mut self) -> Result<Kind, TemplateError> {
        let body = &self.rest()[1..];
        let end = body.find('`').ok_or_else(|| self.error("this ` has no partner"))?;
        self.at += end + 2;
        Ok(Kind::Text(body[..end].to_owned()))
    }

    fn quoted(&mut self) -> Result<Kind, TemplateError> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            let Some(c) = self.rest().chars().next().filter(|c| *c != '\n') else {
                return Err(TemplateError::new(start, "this \" has no partner on its line"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Kind::Text(text)),
                '\\' => text.push(self.escape()?),
                c => text.push(c),
            }
        }
    }

    /// The character an escape stands for; the backslash is already read.
    fn escape(&mut self) -> Result<char, TemplateError> {
        let letter = self.rest().chars().next().unwrap_or(' ');
        let simple = match letter {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'v' => Some('\u{b}'),
            '\\' | '"' => Some(letter),
            _ => None,
        };
        let (skip, digits, radix) = match letter {
            'x' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='7' => (0, 3, 8),
            _ => (1, 0, 10),
        };
        let coded = self.rest().get(skip..skip + digits);
        let coded = coded.and_then(|code| u32::from_str_radix(code, radix).ok()).and_then(char::from_u32);
        let c = simple.or(coded).ok_or_else(|| {
            TemplateError::new(self.at - 1, format!("not an escape: \\{letter}; write \\\\ for a backslash"))
        })?;
        self.at += if simple.is_some() { 1 } else { skip + digits };
        Ok(c)
    }
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}
