//! OTLP metrics as series: what OpenTelemetry's compatibility with Prometheus says, names with underscores and
//! suffixes. Pure.
//!
//! A resource gives `job` and `instance`, and `target_info` with its other attributes; a scope gives `otel_scope_…`;
//! a point's attributes are labels. Gauges, cumulative sums, histograms with bounds and summaries are taken. Sums of
//! differences are refused: added up here they would start anew whenever the collector or the sender does, and a
//! sender can be told to send cumulative ones. Exponential histograms are refused, exemplars left out.
//! Not here: HTTP (`http`), gRPC (`service`), what is taken (`book`).

mod bounds;
mod name;
mod point;
pub mod service;
#[cfg(test)]
mod tests;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, ResourceMetrics, ScopeMetrics,
};
use prost::Message as _;
use tocsin_shared::metric::Kind;

use super::Outcome;
use super::book::Intake;
use super::refused::Reason;
use super::remote_write::Described;
use super::wire::Malformed;
use name::{label_name, text_of};
use point::{Points, Series};

/// How a request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Protobuf,
    Json,
}

impl Format {
    /// What HTTP calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// A request from its bytes, if it does not hold more than is meant.
pub fn decode(format: Format, message: &[u8]) -> Result<ExportMetricsServiceRequest, Malformed> {
    let malformed = |why: &dyn std::fmt::Display| Malformed::Otlp(why.to_string());
    match format {
        Format::Protobuf => {
            bounds::check_protobuf(message)?;
            ExportMetricsServiceRequest::decode(message).map_err(|error| malformed(&error))
        }
        Format::Json => {
            bounds::check_json(message)?;
            serde_json::from_slice(message).map_err(|error| malformed(&error))
        }
    }
}

/// The answer: empty when all was taken.
pub fn answer(outcome: &Outcome) -> ExportMetricsServiceResponse {
    let partial = outcome.refused.told().map(|error_message| ExportMetricsPartialSuccess {
        rejected_data_points: i64::try_from(outcome.refused.points).unwrap_or(i64::MAX),
        error_message,
    });
    ExportMetricsServiceResponse { partial_success: partial }
}

/// An answer's bytes.
pub fn encode(format: Format, answer: &ExportMetricsServiceResponse) -> Vec<u8> {
    match (format, &answer.partial_success) {
        (Format::Protobuf, _) => answer.encode_to_vec(),
        (Format::Json, None) => b"{}".to_vec(),
        (Format::Json, Some(partial)) => {
            let count = partial.rejected_data_points.to_string();
            let partial =
                serde_json::json!({ "rejectedDataPoints": count, "errorMessage": partial.error_message });
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    }
}

/// Hands a request's points to `intake`; gives what it says of metrics.
pub fn read(
    request: &ExportMetricsServiceRequest,
    intake: &mut Intake<'_>,
) -> Result<Vec<Described>, Malformed> {
    let mut described = Vec::new();
    for resource in &request.resource_metrics {
        read_resource(resource, intake, &mut described);
    }
    Ok(described)
}

fn read_resource(resource: &ResourceMetrics, intake: &mut Intake<'_>, described: &mut Vec<Described>) {
    let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
    let target = Target::of(attributes);
    let mut newest = None;
    for ScopeMetrics { scope, metrics, schema_url } in &resource.scope_metrics {
        let mut common = target.labels.clone();
        common.extend(scope_labels(scope.as_ref(), schema_url));
        for metric in metrics {
            let mut points = Points { common: &common, intake: &mut *intake, newest };
            described.extend(read_metric(metric, &mut points));
            newest = points.newest;
        }
    }
    if let Some((at, info)) = newest.zip(target.info) {
        Points { common: &target.labels, intake, newest }.write(
            &Series::named("target_info"),
            &info,
            (at, 1.0),
        );
    }
}

/// What a resource says of all its metrics.
struct Target {
    /// `job` and `instance`.
    labels: Vec<(String, String)>,
    /// The other attributes; nothing without any, or when nothing says whose they are.
    info: Option<Vec<(String, String)>>,
}

impl Target {
    fn of(attributes: &[KeyValue]) -> Self {
        let find = |key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key == key)?;
            Some(text_of(found.value.as_ref())).filter(|text| !text.is_empty())
        };
        let job = match (find("service.namespace"), find("service.name")) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (_, name) => name,
        };
        let named = [("job", job), ("instance", find("service.instance.id"))];
        let labels: Vec<_> =
            named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let identifying = ["service.namespace", "service.name", "service.instance.id"];
        let others: Vec<_> =
            attributes.iter().filter(|a| !identifying.contains(&a.key.as_str())).cloned().collect();
        let info = (!others.is_empty() && !labels.is_empty()).then(|| labels_of(&others));
        Self { labels, info }
    }
}

fn scope_labels(scope: Option<&InstrumentationScope>, schema_url: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let mut add = |name: String, value: String| {
        if !value.is_empty() {
            labels.push((name, value));
        }
    };
    if let Some(scope) = scope {
        add("otel_scope_name".into(), scope.name.clone());
        add("otel_scope_version".into(), scope.version.clone());
        for (name, value) in labels_of(&scope.attributes) {
            add(format!("otel_scope_{name}"), value);
        }
    }
    add("otel_scope_schema_url".into(), schema_url.to_owned());
    labels
}

/// Attributes as labels. Those whose names become the same are joined, in the order of their keys.
fn labels_of(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let mut ordered = attributes.iter().collect::<Vec<_>>();
    ordered.sort_by(|a, b| a.key.cmp(&b.key));
    let mut labels: Vec<(String, String)> = Vec::with_capacity(ordered.len());
    for attribute in ordered {
        let (name, value) = (label_name(&attribute.key), text_of(attribute.value.as_ref()));
        match labels.iter_mut().find(|(known, _)| *known == name) {
            Some((_, joined)) => {
                joined.push(';');
                joined.push_str(&value);
            }
            None => labels.push((name, value)),
        }
    }
    labels
}

fn read_metric(metric: &Metric, points: &mut Points<'_, '_>) -> Option<Described> {
    let cumulative = AggregationTemporality::Cumulative as i32;
    let (kind, temporality) = match metric.data.as_ref()? {
        Data::Gauge(_) => (Kind::Gauge, cumulative),
        Data::Sum(sum) if sum.is_monotonic => (Kind::Counter, sum.aggregation_temporality),
        Data::Sum(sum) => (Kind::Gauge, sum.aggregation_temporality),
        Data::Histogram(histogram) => (Kind::Histogram, histogram.aggregation_temporality),
        Data::ExponentialHistogram(_) => (Kind::Histogram, cumulative),
        Data::Summary(_) => (Kind::Summary, cumulative),
    };
    let ratio = matches!(metric.data, Some(Data::Gauge(_)));
    let family = name::metric_name(&metric.name, &metric.unit, kind, ratio);
    if temporality != cumulative {
        let count = match metric.data.as_ref()? {
            Data::Sum(sum) => sum.data_points.len(),
            Data::Histogram(histogram) => histogram.data_points.len(),
            _ => 0,
        };
        let why = || format!("{family}: differences are not taken; let its sender send cumulative values");
        points.refuse(Reason::Delta, count, why);
        return None;
    }
    match metric.data.as_ref()? {
        Data::Gauge(gauge) => gauge.data_points.iter().for_each(|point| points.number(&family, point)),
        Data::Sum(sum) => sum.data_points.iter().for_each(|point| points.number(&family, point)),
        Data::Histogram(found) => found.data_points.iter().for_each(|point| points.histogram(&family, point)),
        Data::Summary(found) => found.data_points.iter().for_each(|point| points.summary(&family, point)),
        Data::ExponentialHistogram(found) => {
            let why = || format!("{family}: exponential histograms are not taken; send ones with bounds");
            points.refuse(Reason::Histogram, found.data_points.len(), why);
            return None;
        }
    }
    let unit = name::unit_word(&metric.unit);
    Some(Described { metric: family, kind, help: metric.description.clone(), unit })
}
