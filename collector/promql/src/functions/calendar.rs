//! Parts of a date: `hour()`, `day_of_week()` and their kin, of seconds since the epoch, in UTC.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

pub(crate) fn function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "minute" => |seconds| part(seconds, |date| date.minute().into()),
        "hour" => |seconds| part(seconds, |date| date.hour().into()),
        "day_of_week" => |seconds| part(seconds, |date| date.weekday().to_sunday_zero_offset().into()),
        "day_of_month" => |seconds| part(seconds, |date| date.day().into()),
        "day_of_year" => |seconds| part(seconds, |date| date.day_of_year()),
        "days_in_month" => |seconds| part(seconds, |date| date.days_in_month().into()),
        "month" => |seconds| part(seconds, |date| date.month().into()),
        "year" => |seconds| part(seconds, |date| date.year()),
        _ => return None,
    })
}

/// A part of a date; NaN for what is no date between the years -9999 and 9999.
fn part(seconds: f64, of: fn(DateTime) -> i16) -> f64 {
    if seconds.is_nan() {
        return f64::NAN;
    }
    match jiff::Timestamp::from_second(seconds as i64) {
        Ok(at) => of(TimeZone::UTC.to_datetime(at)).into(),
        Err(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_parts_in_utc() {
        // 2016-02-29T23:59:59Z, a Monday.
        for (name, expected) in [
            ("minute", 59.0),
            ("hour", 23.0),
            ("day_of_week", 1.0),
            ("day_of_month", 29.0),
            ("day_of_year", 60.0),
            ("days_in_month", 29.0),
            ("month", 2.0),
            ("year", 2016.0),
        ] {
            let function = function(name).unwrap();
            assert_eq!(function(1_456_790_399.0), expected, "{name}");
            assert!(function(f64::NAN).is_nan() && function(1e300).is_nan(), "{name}");
        }
    }
}
