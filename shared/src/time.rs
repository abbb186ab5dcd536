//! Instants and spans, and how people write them.
//!
//! `Timestamp` is the only instant in the product: milliseconds since the Unix epoch, UTC, as in the
//! Prometheus data model. Spans are `std::time::Duration`, written the Prometheus way (`1h30m`, `250ms`).
//! Arithmetic saturates: no clock, however wrong, can make it panic. The clock itself is read at the edges only.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When this version was written, raised at each release: a clock that says an earlier time is wrong. A constant, not
/// the time of the build, so that the same source makes the same program.
pub const RELEASED: Timestamp = Timestamp::from_millis(1_793_491_200_000); // 2026-11-01T00:00:00Z

/// Milliseconds since 1970-01-01T00:00:00Z; negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant; older than anything.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest instant; younger than anything.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch, rounded to the millisecond; NaN becomes the epoch.
    pub fn from_secs_f64(seconds: f64) -> Self {
        Self((seconds * 1000.0).round() as i64) // A float-to-int `as` saturates.
    }

    /// What the system clock says, also when it says a time before 1970.
    pub fn from_system(at: SystemTime) -> Self {
        match at.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(millis(since)),
            Err(before) => Self(-millis(before.duration())),
        }
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, as PromQL's `time()` gives them.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The time since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This instant plus a span.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// This instant minus a span.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// The last multiple of `step` that is not after this instant; the instant itself for a zero step.
    pub fn align_down(self, step: Duration) -> Self {
        match millis(step) {
            0 => self,
            step => Self(self.0.saturating_sub(self.0.rem_euclid(step))),
        }
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with milliseconds, `2026-11-23T10:12:50.000Z`; outside the years -9999..9999 the bare milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Why a text is not an instant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time: {0:?}; write RFC 3339 (2026-11-23T10:00:00Z) or seconds since the epoch")]
pub struct InvalidTimestamp(String);

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// RFC 3339, or seconds since the epoch with an optional fraction, as Prometheus' API takes.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        if let Ok(seconds) = text.parse::<f64>() {
            return if seconds.is_finite() {
                Ok(Self::from_secs_f64(seconds))
            } else {
                Err(InvalidTimestamp(text.into()))
            };
        }
        let at: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp(text.into()))?;
        Ok(Self(at.as_millisecond()))
    }
}

/// Why a text is not a span.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: {0:?}; write it like 30s, 5m, 1h30m or 1d")]
pub struct InvalidDuration(String);

/// The units of a Prometheus duration, longest first, in milliseconds. A year has 365 days.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a Prometheus duration: whole numbers with units, longest unit first, each unit once; `0` alone is allowed.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total, mut longest) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[..letters]).ok_or_else(invalid)?;
        if unit < longest {
            return Err(invalid());
        }
        longest = unit + 1;
        total =
            number.checked_mul(UNITS[unit].1).and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        rest = &rest[letters..];
    }
    if text.is_empty() { Err(invalid()) } else { Ok(Duration::from_millis(total)) }
}

/// Writes a span the way `parse_duration` reads it; below a millisecond is cut off.
pub fn format_duration(span: Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    // Years and weeks only when nothing is left over: `10d` reads better than `1w3d`.
    for (name, size) in UNITS {
        let whole_only = matches!(name, "y" | "w");
        if rest >= size && (!whole_only || rest % size == 0) {
            text.push_str(&format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, millis, written) in [
            ("0", Some(0), "0s"),
            ("5m", Some(300_000), "5m"),
            ("1h30m", Some(5_400_000), "1h30m"),
            ("90m", Some(5_400_000), "1h30m"),
            ("1w", Some(604_800_000), "1w"),
            ("10d", Some(864_000_000), "10d"),
            ("250ms", Some(250), "250ms"),
            ("30m1h", None, ""),
            ("5", None, ""),
            ("", None, ""),
            ("1m1m", None, ""),
            ("99999999999999999999s", None, ""),
        ] {
            let read = parse_duration(text).ok();
            assert_eq!(read, millis.map(Duration::from_millis), "{text}");
            if let Some(read) = read {
                assert_eq!(format_duration(read), written, "{text}");
            }
        }
    }

    // Cases: T8
    #[test]
    fn no_clock_is_too_wrong() {
        let second = Duration::from_secs(1);
        for (at, millis) in [
            (UNIX_EPOCH, 0),
            (UNIX_EPOCH - second, -1_000),
            (UNIX_EPOCH + Duration::from_secs(1 << 31), 2_147_483_648_000),
            (UNIX_EPOCH + Duration::from_secs(1 << 62), i64::MAX),
        ] {
            assert_eq!(Timestamp::from_system(at).as_millis(), millis);
        }
        assert_eq!(Timestamp::from_millis(2_147_483_648_000).to_string(), "2038-01-19T03:14:08.000Z");
        assert_eq!(Timestamp::MIN.minus(second), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.since(Timestamp::MIN), Duration::from_millis(i64::MAX.unsigned_abs()));
        assert_eq!(Timestamp::MIN.align_down(second), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.to_string(), "-9223372036854775808ms");
    }

    #[test]
    fn instants_read_and_write() {
        let at: Timestamp = "2026-11-23T10:12:50Z".parse().unwrap();
        assert_eq!(at.as_millis(), 1_795_428_770_000);
        assert_eq!(at.to_string(), "2026-11-23T10:12:50.000Z");
        assert_eq!("1795428770".parse::<Timestamp>().unwrap(), at);
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(RELEASED.to_string(), "2026-11-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_millis(-1).align_down(Duration::from_secs(10)).as_millis(), -10_000);
    }
}
