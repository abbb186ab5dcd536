//! How long a caller waits, and how an evaluation learns that nobody waits any more.
//!
//! The caller's own deadline comes in the header `grpc-timeout`: up to eight digits and a unit. When it is over, or the
//! caller has left, `Ended` turns true, and the evaluation stops at its next look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::Request;

/// How long a query may take at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long this caller waits.
pub(super) fn of<T>(request: &Request<T>) -> Duration {
    let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    header.and_then(parse).map_or(PATIENCE, |asked| asked.min(PATIENCE))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Whether nobody waits for an evaluation any more.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(in crate::api) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends an evaluation when it is dropped: with the call that waits for it.
pub(super) struct Waiting(pub(super) Ended);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("10S", Some(Duration::from_secs(10))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0m", Some(Duration::ZERO)),
            ("999999999m", None),
            ("S", None),
            ("", None),
            ("10", None),
            ("-1S", None),
            ("+1S", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        let mut request = Request::new(());
        assert_eq!(of(&request), PATIENCE);
        request.metadata_mut().insert("grpc-timeout", "5H".parse().unwrap());
        assert_eq!(of(&request), PATIENCE, "nobody waits longer than everybody may");
        request.metadata_mut().insert("grpc-timeout", "5m".parse().unwrap());
        assert_eq!(of(&request), Duration::from_millis(5));
    }
}
