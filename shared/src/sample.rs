//! One value of one series at one instant, and the two values that mean something else than a number.

use crate::time::Timestamp;

/// Prometheus' staleness marker: the series ended here. A NaN that is compared by its bits, never by `==`.
pub const STALE_NAN: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// A value of a series at an instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub at: Timestamp,
    pub value: f64,
}

/// Whether a value is the staleness marker.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN.to_bits()
}
