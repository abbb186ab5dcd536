//! `/federate`: the newest samples of what selectors select, in the exposition formats, for a Prometheus to scrape.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, header};
use tocsin_promql::LOOK_BACK;
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::metric::Kind as Metric;

use super::answer::ANSWER_BYTES_MAX;
use super::call::{self, Ended, PATIENCE, unanswered};
use super::failure::{Failure, Kind};
use super::json::write_float;
use super::metadata::describe;
use super::parameters::Asked;
use crate::api::Api;
use crate::ask;
use crate::clock::now;
use crate::samples::Store;

/// Series in one page: more than any one scrape should take.
const SERIES_MAX: u64 = 500_000;

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    OpenMetrics,
}

impl Format {
    /// OpenMetrics for who names it at all: whoever cannot read it does not.
    fn of(request: &Request) -> Self {
        let accept = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let asks = |accept: &str| accept.contains("application/openmetrics-text");
        if accept.into_iter().any(asks) { Self::OpenMetrics } else { Self::Text }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// `/federate`.
pub(super) async fn federate(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let format = Format::of(&request);
    let asked = Asked::read(request).await?;
    let selectors = asked.selectors()?;
    if selectors.is_empty() {
        return Err(Failure::new(Kind::BadData, "no match[] parameter provided"));
    }
    let (known, at) = (api.metadata.clone(), now());
    let work = move |store: &Store, ended: &Ended| {
        let found = ask::newest(store, &selectors, (at.minus(LOOK_BACK), at), SERIES_MAX, &|| ended.is());
        let found = found.map_err(|error| unanswered(&error, ended))?;
        let mut series: Vec<(&Labels, (i64, f64))> = found.iter().map(|(l, sample)| (l, *sample)).collect();
        series.sort_by(|a, b| a.0.metric().cmp(b.0.metric()).then_with(|| a.0.cmp(b.0)));
        let kind = |metric: &str| describe(&known, metric).map_or(Metric::Unknown, |known| known.kind);
        write(&series, format, kind)
    };
    let (body, place) = call::run(&api, &asked.caller, PATIENCE, work).await?;
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(call::holding(response, place))
}

/// Series by metric, each with its newest sample.
fn write(
    series: &[(&Labels, (i64, f64))],
    format: Format,
    kind: impl Fn(&str) -> Metric,
) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(series.len() * 128);
    let mut last = None;
    for (labels, (millis, value)) in series {
        let metric = labels.metric();
        if metric.is_empty() {
            continue; // What rules make without a name cannot be exposed.
        }
        if last != Some(metric) {
            let (family, kind) = family(metric, kind(metric), format);
            out.extend_from_slice(format!("# TYPE {} {kind}\n", quoted(family)).as_bytes());
            last = Some(metric);
        }
        write_series(&mut out, labels);
        out.push(b' ');
        write_float(&mut out, *value);
        match format {
            Format::Text => out.extend_from_slice(format!(" {millis}\n").as_bytes()),
            Format::OpenMetrics => {
                let (seconds, rest) = (millis.div_euclid(1_000), millis.rem_euclid(1_000));
                out.extend_from_slice(format!(" {seconds}.{rest:03}\n").as_bytes());
            }
        }
        if ANSWER_BYTES_MAX < out.len() {
            return Err(Failure::new(Kind::Execution, "the page is too long: narrow the selectors"));
        }
    }
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    Ok(out)
}

/// The family that a metric is exposed under, and its type there. One metric of a histogram or a summary is no whole
/// family, so it is of no type.
fn family(metric: &str, kind: Metric, format: Format) -> (&str, &'static str) {
    match (format, kind) {
        (Format::Text, Metric::Histogram | Metric::Summary) => (metric, "untyped"),
        (Format::Text, kind) => (metric, kind.as_text_format()),
        (Format::OpenMetrics, Metric::Counter) => match metric.strip_suffix("_total") {
            Some(family) => (family, "counter"),
            None => (metric, "unknown"),
        },
        (Format::OpenMetrics, Metric::Info) => match metric.strip_suffix("_info") {
            Some(family) => (family, "info"),
            None => (metric, "unknown"),
        },
        (Format::OpenMetrics, Metric::Gauge) => (metric, "gauge"),
        (Format::OpenMetrics, _) => (metric, "unknown"),
    }
}

/// Whether a name can stand without quotes.
fn is_plain(name: &str, colon: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn quoted(metric: &str) -> String {
    if is_plain(metric, true) { metric.to_owned() } else { format!("\"{}\"", escaped(metric)) }
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

fn write_series(out: &mut Vec<u8>, labels: &Labels) {
    let metric = labels.metric();
    let mut pairs = Vec::with_capacity(labels.len());
    if is_plain(metric, true) {
        out.extend_from_slice(metric.as_bytes());
    } else {
        pairs.push(quoted(metric));
    }
    for (name, value) in labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
        let name = if is_plain(name, false) { name.to_owned() } else { format!("\"{}\"", escaped(name)) };
        pairs.push(format!("{name}=\"{}\"", escaped(value)));
    }
    // A scraper adds its own instance to what has none: an empty one says that there is none.
    if labels.get("instance").is_none() {
        pairs.push("instance=\"\"".to_owned());
    }
    out.extend_from_slice(format!("{{{}}}", pairs.join(",")).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_samples_are_exposed_in_both_formats() {
        let series = [
            Labels::series("a.b", &[("instance", "web-1"), ("x.y", "1\"2")]),
            Labels::series("node_cpu_seconds_total", &[("cpu", "0"), ("instance", "web-1")]),
            Labels::series("node_cpu_seconds_total", &[("cpu", "1"), ("instance", "web-1")]),
            Labels::series("node_uname_info", &[("instance", "web-1")]),
            Labels::series("r:x", &[]),
        ];
        let values = [(1_500, 0.5), (2_000, 1e21), (2_000, f64::NAN), (2_000, 1.0), (-500, f64::INFINITY)];
        let series: Vec<(&Labels, (i64, f64))> = series.iter().zip(values).collect();
        let known = crate::metadata::Metadata::default();
        let kind = |metric: &str| describe(&known, metric).map_or(Metric::Unknown, |known| known.kind);
        let text = |format| String::from_utf8(write(&series, format, kind).unwrap()).unwrap();
        assert_eq!(
            text(Format::Text),
            r#"# TYPE "a.b" untyped
{"a.b",instance="web-1","x.y"="1\"2"} 0.5 1500
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",instance="web-1"} 1e+21 2000
node_cpu_seconds_total{cpu="1",instance="web-1"} NaN 2000
# TYPE node_uname_info gauge
node_uname_info{instance="web-1"} 1 2000
# TYPE r:x untyped
r:x{instance=""} +Inf -500
"#
        );
        assert_eq!(
            text(Format::OpenMetrics),
            r#"# TYPE "a.b" unknown
{"a.b",instance="web-1","x.y"="1\"2"} 0.5 1.500
# TYPE node_cpu_seconds counter
node_cpu_seconds_total{cpu="0",instance="web-1"} 1e+21 2.000
node_cpu_seconds_total{cpu="1",instance="web-1"} NaN 2.000
# TYPE node_uname info
node_uname_info{instance="web-1"} 1 2.000
# TYPE r:x unknown
r:x{instance=""} +Inf -1.500
# EOF
"#
        );
    }
}
