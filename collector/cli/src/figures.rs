//! Spans, instants, bytes, counts and sample values, as people read them.
//!
//! Pure. A span shows its two largest units (`3m12s`), an instant is RFC 3339 in UTC to the second. A time of 0 on
//! the wire means "not yet" where a field says so; `instant` turns it into `None`.

use std::time::Duration;

use tocsin_shared::time::Timestamp;

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// `3m12s`, `2h5m`, `14d3h`, `0s`: whole seconds, at most two units.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let Some(first) = UNITS.iter().position(|(_, size)| seconds >= *size) else { return "0s".into() };
    let (name, size) = UNITS[first];
    let mut text = format!("{}{name}", seconds / size);
    if let Some((name, smaller)) = UNITS.get(first + 1)
        && (seconds % size) / smaller > 0
    {
        text.push_str(&format!("{}{name}", (seconds % size) / smaller));
    }
    text
}

/// How long a run took: milliseconds count below ten seconds.
pub fn run_time(taken: Duration) -> String {
    match taken.as_millis() {
        millis @ 0..1_000 => format!("{millis}ms"),
        millis @ 1_000..10_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        _ => span(taken),
    }
}

/// The age of an instant: `3m12s`; an instant ahead of `now` is `in 5s`, because clocks differ.
pub fn age(now: Timestamp, at: Timestamp) -> String {
    if is_ahead(now, at) { format!("in {}", span(at.since(now))) } else { span(now.since(at)) }
}

/// What the collector has just stamped is not ahead because it came faster than the clocks agree.
fn is_ahead(now: Timestamp, at: Timestamp) -> bool {
    at.since(now) >= Duration::from_secs(1)
}

/// RFC 3339, UTC, seconds: `2026-11-23T10:12:50Z`.
pub fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix('Z').and_then(|rest| rest.rsplit_once('.')) {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

/// `2026-11-23T10:12:50Z (3m12s ago)`.
pub fn when(now: Timestamp, at: Timestamp) -> String {
    if is_ahead(now, at) {
        format!("{} ({})", seconds(at), age(now, at))
    } else {
        format!("{} ({} ago)", seconds(at), age(now, at))
    }
}

/// A time of the wire where 0 stands for none.
pub fn instant(millis: i64) -> Option<Timestamp> {
    (millis != 0).then(|| Timestamp::from_millis(millis))
}

/// `812 B`, `1.2 KiB`, `3.4 GiB`.
pub fn bytes(count: u64) -> String {
    const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut size, mut name) = (count as f64 / 1024.0, 0);
    // 1023.95 would print as 1024.0.
    while size >= 1023.95 && name + 1 < NAMES.len() {
        size /= 1024.0;
        name += 1;
    }
    format!("{size:.1} {}", NAMES[name])
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 host`, `3 hosts`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `850 µs`, `1.2 ms`, `3.4 s`, from microseconds.
pub fn micros(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} µs"),
        1_000..1_000_000 => format!("{:.1} ms", count as f64 / 1e3),
        _ => format!("{:.1} s", count as f64 / 1e6),
    }
}

/// A sample's value as Prometheus' API writes it: the shortest digits that read back the same.
pub fn value(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    match value.abs() {
        size if size != 0.0 && !(1e-6..1e21).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// A value for a table: whole numbers in full, others with six digits.
pub fn short_value(number: f64) -> String {
    let rounded = format!("{number:.5e}").parse::<f64>().unwrap_or(number);
    value(if number.is_finite() && number.fract() != 0.0 { rounded } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (192, "3m12s"),
            (3_600, "1h"),
            (3_605, "1h"),
            (7_500, "2h5m"),
            (90_000, "1d1h"),
            (86_400 * 400, "400d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn run_times_show_what_matters() {
        for (millis, text) in [(0, "0ms"), (850, "850ms"), (1_234, "1.2s"), (9_999, "9.9s"), (61_000, "1m1s")]
        {
            assert_eq!(run_time(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn instants_carry_their_age() {
        let now: Timestamp = "2026-11-23T10:12:50.750Z".parse().unwrap();
        let earlier = now.minus(Duration::from_secs(192));
        assert_eq!(when(now, earlier), "2026-11-23T10:09:38Z (3m12s ago)");
        assert_eq!(when(now, now.plus(Duration::from_secs(5))), "2026-11-23T10:12:55Z (in 5s)");
        let stamped = now.plus(Duration::from_millis(200));
        assert_eq!(when(now, stamped), "2026-11-23T10:12:50Z (0s ago)", "clocks differ by more");
        assert_eq!(seconds(Timestamp::MAX), format!("{}ms", i64::MAX));
        assert_eq!(instant(0), None);
    }

    #[test]
    fn amounts_are_readable() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (5_905_580_032, "5.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(
            (count(999), count(1_000), count(1_234_567)),
            ("999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!((counted(1, "host"), counted(0, "host")), ("1 host".into(), "0 hosts".into()));
        assert_eq!(
            (micros(850), micros(1_249), micros(3_400_000)),
            ("850 µs".into(), "1.2 ms".into(), "3.4 s".into())
        );
    }

    #[test]
    fn tables_show_six_digits_of_a_fraction() {
        for (number, text) in [
            (-0.3972840146039623, "-0.397284"),
            (123456789.0, "123456789"),
            (1234567.891, "1234570"),
            (0.1 + 0.2, "0.3"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(short_value(number), text);
        }
    }

    #[test]
    fn values_are_those_of_prometheus() {
        for (number, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.25, "-0.25"),
            (123456789.0, "123456789"),
            (1e21, "1e21"),
            (1.5e-7, "1.5e-7"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(value(number), text);
        }
    }
}
