//! How Go writes floating-point numbers, and the human forms that rule templates know.
//!
//! Promise: `plain` is Go's `%v`: the shortest digits that read back as the same number, with an exponent below
//! 1e-4 and from 1e+06 on.

/// Go's `%v`: `0.25`, `1e+06`, `NaN`, `+Inf`.
pub(super) fn plain(value: f64) -> String {
    general(value, None)
}

/// Go's `%g`, with so many significant digits, or the shortest that are exact.
pub(super) fn general(value: f64, precision: Option<usize>) -> String {
    if let Some(name) = special(value) {
        return name.to_owned();
    }
    let written = match precision {
        None => format!("{value:e}"),
        Some(precision) => format!("{value:.*e}", precision.max(1) - 1),
    };
    let (mantissa, exponent) = written.split_once('e').expect("`{:e}` always writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a whole exponent");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        kept => kept,
    };
    let threshold = precision.map_or(6, |p| i32::try_from(p.max(1)).unwrap_or(i32::MAX));
    let body = if exponent < -4 || exponent >= threshold {
        let point = if digits.len() > 1 { "." } else { "" };
        format!("{}{point}{}{}", &digits[..1], &digits[1..], exponent_suffix(exponent))
    } else {
        positional(digits, exponent)
    };
    format!("{sign}{body}")
}

/// Digits with the point behind the digit that `exponent` names.
fn positional(digits: &str, exponent: i32) -> String {
    if exponent < 0 {
        return format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{}.{}", &digits[..whole], &digits[whole..])
}

/// Go's `%f`.
pub(super) fn fixed(value: f64, precision: usize) -> String {
    special(value).map_or_else(|| format!("{value:.precision$}"), str::to_owned)
}

/// Go's `%e`: at least two digits of exponent.
pub(super) fn scientific(value: f64, precision: usize) -> String {
    if let Some(name) = special(value) {
        return name.to_owned();
    }
    let written = format!("{value:.precision$e}");
    let (mantissa, exponent) = written.split_once('e').expect("`{:e}` always writes an exponent");
    format!("{mantissa}{}", exponent_suffix(exponent.parse().expect("`{:e}` writes a whole exponent")))
}

fn exponent_suffix(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

fn special(value: f64) -> Option<&'static str> {
    match value {
        v if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

fn four(value: f64) -> String {
    general(value, Some(4))
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const LARGE_BINARY: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// Four digits and a metric prefix: `1.234M`, `12.5m`.
pub(super) fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return four(value);
    }
    if value.abs() >= 1.0 { shrink(value, 1000.0, LARGE) } else { grow(value, "") }
}

/// Four digits and a binary prefix: `1.5Gi`.
pub(super) fn humanize1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() { four(value) } else { shrink(value, 1024.0, LARGE_BINARY) }
}

/// A span in seconds: `1d 2h 3m 4s`, `1.5s`, `20ms`.
pub(super) fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return four(value);
    }
    if value == 0.0 {
        return "0s".to_owned();
    }
    if value.abs() < 1.0 {
        return grow(value, "s");
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let whole = value.abs() as u64; // A float-to-int `as` saturates.
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", four(value.abs())),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, _, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

/// A ratio as a percentage: `0.25` is `25%`.
pub(super) fn humanize_percentage(value: f64) -> String {
    format!("{}%", four(value * 100.0))
}

/// Seconds since the epoch as an instant in UTC: `2026-11-23 10:00:00 +0000 UTC`. None outside the calendar.
pub(super) fn humanize_timestamp(value: f64) -> Option<String> {
    if !value.is_finite() {
        return Some(four(value));
    }
    let at = jiff::Timestamp::from_millisecond((value * 1000.0).floor() as i64).ok()?;
    Some(at.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string())
}

fn shrink(mut value: f64, step: f64, prefixes: [&'static str; 8]) -> String {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < step {
            break;
        }
        prefix = next;
        value /= step;
    }
    format!("{}{prefix}", four(value))
}

fn grow(mut value: f64, unit: &str) -> String {
    let mut prefix = "";
    for next in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    format!("{}{prefix}{unit}", four(value))
}
