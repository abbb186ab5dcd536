//! Reading the kernel's text: whitespace-separated fields that are numbers.

/// A text of the kernel's that is not as documented.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} has a line this agent cannot read: {line:?}; report it with the kernel's version")]
pub(crate) struct Malformed {
    pub(crate) file: &'static str,
    pub(crate) line: String,
}

/// The longest piece of an unreadable line that an error repeats.
const LINE_SHOWN_MAX: usize = 120;

impl Malformed {
    pub(crate) fn new(file: &'static str, line: &str) -> Self {
        Self { file, line: line.chars().take(LINE_SHOWN_MAX).collect() }
    }
}

/// A decimal number; whole numbers, which nearly all are, take the short way.
pub(crate) fn number(text: &str) -> Option<f64> {
    match text.parse::<u64>() {
        Ok(whole) => Some(whole as f64),
        Err(_) => text.parse::<f64>().ok(),
    }
}

/// A number written in base 16, with or without `0x`.
pub(crate) fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// The next `N` numbers of a line; `None` when there are fewer or one is not a number.
pub(crate) fn numbers<'a, const N: usize>(mut fields: impl Iterator<Item = &'a str>) -> Option<[f64; N]> {
    let mut found = [0.0; N];
    for place in &mut found {
        *place = number(fields.next()?)?;
    }
    Some(found)
}

/// Undoes the octal escapes (`\040` for a space) that the kernel writes in mount tables.
pub(crate) fn unescape(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_all_the_kernel_s_ways() {
        for (text, is) in
            [("12", Some(12.0)), ("-1", Some(-1.0)), ("0.25", Some(0.25)), ("kB", None), ("", None)]
        {
            assert_eq!(number(text), is, "{text}");
        }
        for (text, is) in [("0x1003", Some(0x1003)), ("0000ff", Some(255)), ("xyz", None)] {
            assert_eq!(hex(text), is, "{text}");
        }
        assert_eq!(numbers::<2>("1 2 3".split(' ')), Some([1.0, 2.0]));
        assert_eq!(numbers::<4>("1 2 3".split(' ')), None);
    }

    #[test]
    fn mount_escapes_are_undone() {
        for (text, is) in [
            ("/a\\040b", "/a b"),
            ("/x\\134y", "/x\\y"),
            ("/plain", "/plain"),
            ("/\\9", "/\\9"),
            ("\\0", "\\0"),
        ] {
            assert_eq!(unescape(text), is, "{text}");
        }
    }
}
