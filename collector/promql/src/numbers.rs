//! Numbers and strings as Prometheus writes them in its messages: Go's `%g` and `%q`.

/// The shortest digits that read as this number, with an exponent below 1e-04 and from 1e+06 on.
pub(crate) fn general(value: f64) -> String {
    if let Some(name) = named(value) {
        return name.to_owned();
    }
    let scientific = format!("{value:e}");
    arranged(&scientific, 6)
}

/// So many significant digits at most.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if let Some(name) = named(value) {
        return name.to_owned();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let mantissa = match mantissa.contains('.') {
        true => mantissa.trim_end_matches('0').trim_end_matches('.'),
        false => mantissa,
    };
    arranged(&format!("{mantissa}e{exponent}"), digits)
}

fn named(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

/// From `1.5e7` to what `%g` makes of it: an exponent of two digits, or none between 1e-4 and 1e+`digits`.
fn arranged(scientific: &str, digits: usize) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || limit <= exponent {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    // Parsing what was printed gives the same digits back, now without an exponent.
    let value: f64 = format!("{mantissa}e{exponent}").parse().unwrap_or(f64::NAN);
    value.to_string()
}

/// In double quotes, with what cannot be seen escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() && (c as u32) < 0x80 => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings_read_as_go_prints_them() {
        for (value, expected) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-2.0, "-2"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1e300, "1e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(general(value), expected);
        }
        for (value, expected) in
            [(5.5, "5.5"), (10.0, "10"), (123.0, "1.2e+02"), (0.012_34, "0.012"), (7.0, "7")]
        {
            assert_eq!(significant(value, 2), expected);
        }
        assert_eq!(quoted("a\"b\\c\n\u{1}ü"), "\"a\\\"b\\\\c\\n\\x01ü\"");
    }
}
