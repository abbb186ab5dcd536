//! The wall clock, read at the edges only.

use std::time::SystemTime;

use tocsin_shared::time::Timestamp;

/// The collector's wall clock. Before 1970 it reads as 1970.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
