//! Points of OTLP metrics as samples of series.

use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    DataPointFlags, HistogramDataPoint, NumberDataPoint, SummaryDataPoint,
};
use tocsin_shared::labels::METRIC_NAME;
use tocsin_shared::sample::STALE_NAN;

use super::labels_of;
use crate::receive::book::{Intake, RawLabel};
use crate::receive::refused::Reason;

/// What a series has beside a point's labels.
pub(super) struct Series<'s> {
    metric: &'s str,
    suffix: &'s str,
    /// `le` or `quantile`.
    own: Option<(&'static str, String)>,
}

impl<'s> Series<'s> {
    pub(super) fn named(metric: &'s str) -> Self {
        Self { metric, suffix: "", own: None }
    }
}

/// Takes points of one resource and scope.
pub(super) struct Points<'p, 'b> {
    /// Labels that all of them have.
    pub(super) common: &'p [(String, String)],
    pub(super) intake: &'p mut Intake<'b>,
    /// The newest point so far, in milliseconds.
    pub(super) newest: Option<i64>,
}

/// When a point is, and whether it only says that there is none.
struct When {
    at: i64,
    ended: bool,
}

impl When {
    fn value(&self, value: f64) -> (i64, f64) {
        (self.at, if self.ended { STALE_NAN } else { value })
    }
}

impl Points<'_, '_> {
    pub(super) fn number(&mut self, metric: &str, point: &NumberDataPoint) {
        self.exemplars(point.exemplars.len());
        let Some(when) = self.when(metric, point.time_unix_nano, point.flags) else { return };
        let value = match point.value {
            Some(Value::AsDouble(value)) => value,
            Some(Value::AsInt(value)) => value as f64,
            None if when.ended => STALE_NAN,
            None => return self.invalid(metric, "a point without a value"),
        };
        let labels = labels_of(&point.attributes);
        self.counted(|points| points.write(&Series::named(metric), &labels, when.value(value)));
    }

    pub(super) fn histogram(&mut self, metric: &str, point: &HistogramDataPoint) {
        self.exemplars(point.exemplars.len());
        let Some(when) = self.when(metric, point.time_unix_nano, point.flags) else { return };
        let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
        let matches =
            counts.len() == bounds.len() + 1 || (counts.is_empty() && (bounds.is_empty() || when.ended));
        let ordered = bounds.is_sorted_by(|a, b| a < b) && bounds.iter().all(|bound| !bound.is_nan());
        if !matches || !ordered {
            return self.invalid(metric, "a histogram whose bounds and counts do not match");
        }
        let labels = labels_of(&point.attributes);
        self.counted(|points| {
            let mut below = 0u64;
            let counts = counts.iter().copied().chain(std::iter::repeat(0));
            for (bound, count) in bounds.iter().filter(|bound| bound.is_finite()).zip(counts) {
                below = below.saturating_add(count);
                let own = Some(("le", bound.to_string()));
                let series = Series { metric, suffix: "_bucket", own };
                points.write(&series, &labels, when.value(below as f64));
            }
            let own = Some(("le", "+Inf".to_owned()));
            points.write(&Series { metric, suffix: "_bucket", own }, &labels, when.value(point.count as f64));
            points.sum_and_count(metric, &labels, &when, (point.sum, point.count));
        });
    }

    pub(super) fn summary(&mut self, metric: &str, point: &SummaryDataPoint) {
        let Some(when) = self.when(metric, point.time_unix_nano, point.flags) else { return };
        let labels = labels_of(&point.attributes);
        self.counted(|points| {
            for quantile in &point.quantile_values {
                let own = Some(("quantile", quantile.quantile.to_string()));
                points.write(&Series { metric, suffix: "", own }, &labels, when.value(quantile.value));
            }
            points.sum_and_count(metric, &labels, &when, (Some(point.sum), point.count));
        });
    }

    fn sum_and_count(
        &mut self,
        metric: &str,
        labels: &[(String, String)],
        when: &When,
        (sum, count): (Option<f64>, u64),
    ) {
        if let Some(sum) = sum.or(when.ended.then_some(STALE_NAN)) {
            self.write(&Series { metric, suffix: "_sum", own: None }, labels, when.value(sum));
        }
        self.write(&Series { metric, suffix: "_count", own: None }, labels, when.value(count as f64));
    }

    /// One sample of one series.
    pub(super) fn write(&mut self, series: &Series<'_>, labels: &[(String, String)], sample: (i64, f64)) {
        let metric = format!("{}{}", series.metric, series.suffix);
        let mut all: Vec<RawLabel<'_>> = Vec::with_capacity(labels.len() + self.common.len() + 2);
        all.push((METRIC_NAME.as_bytes(), metric.as_bytes()));
        all.extend(self.common.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        all.extend(series.own.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        // What the resource, the scope and the kind say is not a point's to change.
        let given = all.len();
        for (name, value) in labels {
            if !all[..given].iter().any(|(known, _)| *known == name.as_bytes()) {
                all.push((name.as_bytes(), value.as_bytes()));
            }
        }
        self.intake.take(&mut all, std::iter::once(sample));
    }

    fn when(&mut self, metric: &str, nanos: u64, flags: u32) -> Option<When> {
        if nanos == 0 {
            self.invalid(metric, "a point without a time");
            return None;
        }
        let at = i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
        self.newest = self.newest.max(Some(at));
        let ended = flags & DataPointFlags::NoRecordedValueMask as u32 != 0;
        Some(When { at, ended })
    }

    /// A point of which something is refused counts once.
    fn counted(&mut self, write: impl FnOnce(&mut Self)) {
        let before = self.intake.errors();
        write(self);
        if self.intake.errors() > before {
            self.intake.refuse_points(1);
        }
    }

    fn invalid(&mut self, metric: &str, why: &str) {
        self.refuse(Reason::InvalidPoint, 1, || format!("{metric}: {why}"));
    }

    pub(super) fn refuse(&mut self, reason: Reason, points: usize, why: impl FnOnce() -> String) {
        self.intake.refuse(reason, points as u64, why);
        self.intake.refuse_points(points as u64);
    }

    fn exemplars(&mut self, count: usize) {
        self.intake.refuse(Reason::Exemplar, count as u64, String::new);
    }
}
