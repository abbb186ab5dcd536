//! The kernel's clock discipline: offset, error bounds, whether the clock is synchronised.

use nix::libc;
use tocsin_shared::time::Timestamp;

use super::section::Section;
use super::source::{CollectError, Source};
use super::sys;

/// The state of a clock nobody synchronises.
const TIME_ERROR: i32 = 5;
/// The status bit that makes times nanoseconds instead of microseconds.
const STA_NANO: i32 = 0x2000;
const MICROSECOND: f64 = 1e6;
const NANOSECOND: f64 = 1e9;
/// Frequencies are parts per million with 16 binary places.
const PPM_16: f64 = 1e6 * 65536.0;

/// Metrics and values of one reading.
#[allow(clippy::unnecessary_cast)] // The fields' width differs between platforms.
pub(crate) fn values(state: i32, timex: &libc::timex) -> [(&'static str, f64); 17] {
    let fraction = if timex.status & STA_NANO != 0 { NANOSECOND } else { MICROSECOND };
    [
        ("node_timex_sync_status", if state == TIME_ERROR { 0.0 } else { 1.0 }),
        ("node_timex_offset_seconds", timex.offset as f64 / fraction),
        ("node_timex_frequency_adjustment_ratio", 1.0 + timex.freq as f64 / PPM_16),
        ("node_timex_maxerror_seconds", timex.maxerror as f64 / MICROSECOND),
        ("node_timex_estimated_error_seconds", timex.esterror as f64 / MICROSECOND),
        ("node_timex_status", f64::from(timex.status)),
        ("node_timex_loop_time_constant", timex.constant as f64),
        ("node_timex_tick_seconds", timex.tick as f64 / MICROSECOND),
        ("node_timex_pps_frequency_hertz", timex.ppsfreq as f64 / PPM_16),
        ("node_timex_pps_jitter_seconds", timex.jitter as f64 / fraction),
        ("node_timex_pps_shift_seconds", f64::from(timex.shift)),
        ("node_timex_pps_stability_hertz", timex.stabil as f64 / PPM_16),
        ("node_timex_pps_jitter_total", timex.jitcnt as f64),
        ("node_timex_pps_calibration_total", timex.calcnt as f64),
        ("node_timex_pps_error_total", timex.errcnt as f64),
        ("node_timex_pps_stability_exceeded_total", timex.stbcnt as f64),
        ("node_timex_tai_offset_seconds", f64::from(timex.tai)),
    ]
}

/// The `timex` collector.
pub(crate) struct Timex;

impl Source for Timex {
    fn read(&mut self, _now: Timestamp, out: &mut Section) -> Result<(), CollectError> {
        let (state, timex) =
            sys::read_timex().map_err(|source| CollectError::Call { call: "adjtimex", source })?;
        for (metric, value) in values(state, &timex) {
            out.put(metric, &[], value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn units_follow_the_status_and_the_state_is_the_synchronisation() {
        let mut timex = sys::blank_timex();
        (timex.offset, timex.maxerror, timex.freq, timex.tai) = (2_000_000, 500_000, 65_536_000, 37);
        for (state, status, offset, sync) in
            [(0, STA_NANO, 0.002, 1.0), (0, 0, 2.0, 1.0), (TIME_ERROR, 0, 2.0, 0.0), (3, 0x10, 2.0, 1.0)]
        {
            timex.status = status;
            let is: BTreeMap<_, _> = values(state, &timex).into();
            assert_eq!(is["node_timex_offset_seconds"], offset);
            assert_eq!(is["node_timex_sync_status"], sync);
            assert_eq!(is["node_timex_maxerror_seconds"], 0.5);
            assert_eq!(is["node_timex_frequency_adjustment_ratio"], 1.001);
            assert_eq!(is["node_timex_tai_offset_seconds"], 37.0);
        }
    }
}
