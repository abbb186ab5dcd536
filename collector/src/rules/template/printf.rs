//! `printf`, `print` and `println`, as Go's fmt writes them.
//!
//! A verb that does not fit its value is written out (`%!d(float64=1.5)`), as in Go: a clumsy annotation is
//! better than none. Width and precision are bounded by what a template may put out.

use std::iter::Peekable;
use std::str::Chars;

use super::number;
use super::value::Value;
use super::{ExpandError, OUTPUT_BYTES_MAX};

/// Digits behind the point: a float64 has no more than this many before they repeat nothing but zeros.
const PRECISION_MAX: usize = 1100;

/// One `%` with its flags.
#[derive(Default)]
struct Directive {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

/// Values one after the other, with a space where neither neighbour is a text.
pub(super) fn print(args: &[Value]) -> Result<String, ExpandError> {
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        let texts = matches!(arg, Value::Text(_)) || at > 0 && matches!(args[at - 1], Value::Text(_));
        if at > 0 && !texts {
            out.push(' ');
        }
        out.push_str(&arg.shown()?);
    }
    bounded(out)
}

/// Values with spaces between them and a line end behind.
pub(super) fn println(args: &[Value]) -> Result<String, ExpandError> {
    let words: Vec<_> = args.iter().map(Value::shown).collect::<Result<_, _>>()?;
    bounded(format!("{}\n", words.join(" ")))
}

/// Values in the places of a format's verbs.
pub(super) fn printf(format: &str, args: &[Value]) -> Result<String, ExpandError> {
    let (mut out, mut args, mut chars) = (String::new(), args.iter(), format.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = Directive::read(&mut chars)?;
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match args.next() {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(arg) => out.push_str(&directive.write(verb, arg)?),
            },
        }
        if out.len() > OUTPUT_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
    }
    let extra: Vec<String> =
        args.map(|arg| Ok(format!("{}={}", arg.kind(), arg.shown()?))).collect::<Result<_, ExpandError>>()?;
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    bounded(out)
}

fn bounded(text: String) -> Result<String, ExpandError> {
    if text.len() > OUTPUT_BYTES_MAX { Err(ExpandError::TooLong) } else { Ok(text) }
}

impl Directive {
    fn read(chars: &mut Peekable<Chars>) -> Result<Self, ExpandError> {
        let mut directive = Self::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | ' ' | '0' | '#')) {
            match flag {
                '-' => directive.minus = true,
                '+' => directive.plus = true,
                ' ' => directive.space = true,
                '0' => directive.zero = true,
                _ => directive.sharp = true,
            }
        }
        directive.width = digits(chars)?;
        if chars.next_if_eq(&'.').is_some() {
            directive.precision = Some(digits(chars)?.min(PRECISION_MAX));
        }
        Ok(directive)
    }

    fn write(&self, verb: char, value: &Value) -> Result<String, ExpandError> {
        let body = match value {
            Value::Fraction(number) => self.fraction(verb, *number),
            Value::Whole(number) => self.whole(verb, *number),
            Value::Text(text) => self.text(verb, text),
            Value::Bool(truth) => matches!(verb, 't' | 'v').then(|| truth.to_string()),
            Value::Nothing => (verb == 'v').then(|| "<nil>".to_owned()),
            other => matches!(verb, 'v' | 's').then(|| other.shown().map(Into::into)).transpose()?,
        };
        let body = match body {
            Some(body) => body,
            None if matches!(value, Value::Nothing) => return Ok(format!("%!{verb}(<nil>)")),
            None => return Ok(format!("%!{verb}({}={})", value.kind(), value.shown()?)),
        };
        Ok(self.pad(
            body,
            matches!(value, Value::Fraction(n) if n.is_finite()) || matches!(value, Value::Whole(_)),
        ))
    }

    fn fraction(&self, verb: char, number: f64) -> Option<String> {
        let six = self.precision.unwrap_or(6);
        let text = match verb {
            'v' | 'g' => number::general(number, self.precision),
            'G' => number::general(number, self.precision).replace('e', "E"),
            'f' | 'F' => number::fixed(number, six),
            'e' => number::scientific(number, six),
            'E' => number::scientific(number, six).replace('e', "E"),
            _ => return None,
        };
        Some(self.sign(text))
    }

    fn whole(&self, verb: char, number: i64) -> Option<String> {
        let prefix = |prefix: &'static str| if self.sharp { prefix } else { "" };
        let (minus, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
        let text = match verb {
            'd' | 'v' => number.to_string(),
            'x' => format!("{minus}{}{size:x}", prefix("0x")),
            'X' => format!("{minus}{}{size:X}", prefix("0X")),
            'o' => format!("{minus}{}{size:o}", prefix("0")),
            'b' => format!("{minus}{}{size:b}", prefix("0b")),
            'c' => return u32::try_from(number).ok().and_then(char::from_u32).map(String::from),
            _ => return None,
        };
        Some(self.sign(text))
    }

    fn text(&self, verb: char, text: &str) -> Option<String> {
        let cut: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        match verb {
            's' | 'v' => Some(cut),
            'q' => Some(quoted(&cut)),
            'x' => Some(cut.bytes().map(|byte| format!("{byte:02x}")).collect()),
            'X' => Some(cut.bytes().map(|byte| format!("{byte:02X}")).collect()),
            _ => None,
        }
    }

    /// The sign a flag asks for; `+Inf` carries its own always.
    fn sign(&self, text: String) -> String {
        match text.strip_prefix('+') {
            Some(_) => text,
            None if self.plus && !text.starts_with('-') => format!("+{text}"),
            None if self.space && !text.starts_with('-') => format!(" {text}"),
            None => text,
        }
    }

    fn pad(&self, body: String, number: bool) -> String {
        let missing = self.width.saturating_sub(body.chars().count());
        if missing == 0 {
            body
        } else if self.minus {
            format!("{body}{}", " ".repeat(missing))
        } else if self.zero && number {
            let (sign, digits) = body.split_at(usize::from(body.starts_with(['-', '+', ' '])));
            format!("{sign}{}{digits}", "0".repeat(missing))
        } else {
            format!("{}{body}", " ".repeat(missing))
        }
    }
}

fn digits(chars: &mut Peekable<Chars>) -> Result<usize, ExpandError> {
    let mut number = 0usize;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        number = number * 10 + digit.to_digit(10).unwrap_or(0) as usize;
        if number > OUTPUT_BYTES_MAX {
            return Err(ExpandError::TooLong);
        }
    }
    Ok(number)
}

/// A text in double quotes, its special characters escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
