//! What a request asks: the parameters of its URL and of its form, in Prometheus' forms.
//!
//! A form's parameters go before those of the URL, and of a repeated one the first counts. Bounded before anything is
//! read: the body in bytes, then parameters in number.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use tocsin_promql::Selector;
use tocsin_shared::time::{Timestamp, parse_duration};

use super::failure::{Failure, Kind};
use crate::ask;
use crate::identity::authorise::Caller;

const FORM: &str = "application/x-www-form-urlencoded";
/// A form: a long query and its selectors, many times over.
const FORM_BYTES_MAX: usize = 256 * 1024;
/// How much of a longer one is taken in and forgotten.
const FORGOTTEN_BYTES_MAX: usize = 4 << 20;
/// More parameters than a page of dashboards sends in one request.
const PARAMETERS_MAX: usize = 1_000;
/// Selectors in a request: each is tried on every series.
const SELECTORS_MAX: usize = 200;
/// The longest query text, as over gRPC.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A request's parameters, and who sent it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    pairs: Vec<(String, String)>,
}

impl Asked {
    /// Reads a request to its end.
    pub(super) async fn read(request: Request) -> Result<Self, Failure> {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Anonymous);
        let url = request.uri().query().unwrap_or("").to_owned();
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_post = *request.method() == Method::POST;
        let is_form = |kind: &HeaderValue| kind.as_bytes().starts_with(FORM.as_bytes());
        if is_post && kind.is_some_and(|kind| !is_form(kind)) {
            return Err(Failure::new(Kind::Unsupported, format!("the body of a POST is of type {FORM}")));
        }
        let form = if is_post { form(request.into_body()).await? } else { Vec::new() };
        let pairs = form_urlencoded::parse(&form).chain(form_urlencoded::parse(url.as_bytes()));
        let pairs: Vec<(String, String)> = pairs
            .take(PARAMETERS_MAX + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        if PARAMETERS_MAX < pairs.len() {
            let why = format!("the request has more than {PARAMETERS_MAX} parameters");
            return Err(Failure::new(Kind::BadData, why));
        }
        Ok(Self { caller, pairs })
    }

    /// The first value of a parameter; `None` also for an empty one.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let first = self.pairs.iter().find(|(known, _)| known == name);
        first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The query's text, within its bound.
    pub(super) fn query(&self) -> Result<&str, Failure> {
        let text = self.first("query").unwrap_or("");
        if TEXT_BYTES_MAX < text.len() {
            let why = format!("the query has {} bytes, at most {TEXT_BYTES_MAX} are taken", text.len());
            return Err(invalid("query", why));
        }
        Ok(text)
    }

    /// A time; `absent` where there is none.
    pub(super) fn time(&self, name: &str, absent: Timestamp) -> Result<Timestamp, Failure> {
        let wrong = |why| invalid(name, format!("Invalid time value for '{name}': {why}"));
        self.first(name).map_or(Ok(absent), |text| time(text).map_err(wrong))
    }

    /// A time that must be there.
    pub(super) fn needed_time(&self, name: &str) -> Result<Timestamp, Failure> {
        time(self.first(name).unwrap_or("")).map_err(|why| invalid(name, why))
    }

    /// A span of time, if it is there.
    pub(super) fn span(&self, name: &str) -> Result<Option<Duration>, Failure> {
        self.first(name).map(|text| span(text).map_err(|why| invalid(name, why))).transpose()
    }

    /// How many at most; `None` for no limit.
    pub(super) fn limit(&self, name: &str) -> Result<Option<usize>, Failure> {
        let Some(text) = self.first(name) else { return Ok(None) };
        let limit: i64 = text.parse().map_err(|_| invalid(name, format!("{text:?} is not a number")))?;
        let limit = usize::try_from(limit).map_err(|_| invalid(name, "limit must be non-negative"))?;
        Ok((limit != 0).then_some(limit))
    }

    /// The selectors of `match[]`.
    pub(super) fn selectors(&self) -> Result<Vec<Selector>, Failure> {
        let texts = self.all("match[]");
        if SELECTORS_MAX < texts.len() {
            let why = format!("{} selectors, at most {SELECTORS_MAX} are taken", texts.len());
            return Err(invalid("match[]", why));
        }
        texts.iter().map(|text| ask::selector(text).map_err(|why| invalid("match[]", why))).collect()
    }

    /// `start` and `end` of what is listed. Without a start it is `back` before the end; without an end, open.
    /// The first of what is given is a millisecond before the start, which itself counts.
    pub(super) fn listed(&self, back: Duration, now: Timestamp) -> Result<(Timestamp, Timestamp), Failure> {
        let end = self.time("end", Timestamp::MAX)?;
        let start = self.time("start", end.min(now).minus(back))?;
        if end < start {
            return Err(invalid("end", "end timestamp must not be before start time"));
        }
        Ok((start.minus(Duration::from_millis(1)), end))
    }
}

/// Reads a form. One that is too long is read on for a while and forgotten: who is still writing does not see why the
/// connection ends.
async fn form(mut body: Body) -> Result<Vec<u8>, Failure> {
    let (mut form, mut length) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::new(Kind::BadData, "the form is cut short"))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= FORM_BYTES_MAX {
            form.extend_from_slice(&data);
        } else if FORGOTTEN_BYTES_MAX < length {
            break;
        }
    }
    if length <= FORM_BYTES_MAX {
        return Ok(form);
    }
    Err(Failure::new(Kind::TooLarge, format!("the form is longer than {FORM_BYTES_MAX} bytes")))
}

/// Something wrong with a parameter.
pub(super) fn invalid(name: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::BadData, format!("invalid parameter {name:?}: {why}"))
}

/// Seconds since 1970 with a fraction, or RFC 3339.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Some(seconds) = number(text).filter(|seconds| seconds.is_finite()) {
        return Ok(Timestamp::from_secs_f64(seconds));
    }
    match text {
        // What Go writes for its earliest and latest time, and tools send for "all".
        "-292273086-05-16T16:47:06Z" => return Ok(Timestamp::from_millis(i64::MIN / 1_000 * 1_000)),
        "+292277025-08-18T07:12:54.999999999Z" | "292277025-08-18T07:12:54.999999999Z" => {
            return Ok(Timestamp::MAX);
        }
        _ => {}
    }
    let at: Result<jiff::Timestamp, _> = text.parse();
    let cannot = || format!("cannot parse {text:?} to a valid timestamp");
    at.map(|at| Timestamp::from_millis(at.as_millisecond())).map_err(|_| cannot())
}

/// Seconds with a fraction, or `1h30m`. Below a millisecond it is rounded down; negative ones become zero.
fn span(text: &str) -> Result<Duration, String> {
    let cannot = || format!("cannot parse {text:?} to a valid duration");
    match number(text) {
        Some(seconds) if seconds.is_nan() => Err(cannot()),
        Some(seconds) if seconds.abs() > i64::MAX as f64 / 1e9 => Err(cannot() + ". It overflows int64"),
        Some(seconds) => Ok(Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| cannot())?),
        None => parse_duration(text).map_err(|_| cannot()),
    }
}

/// A number in a form that Go reads, too: no `infinity` by other names, no blanks.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read_as_prometheus_reads_them() {
        for (text, expected) in [
            ("1435781451.781", Some(1_435_781_451_781)),
            ("1435781451", Some(1_435_781_451_000)),
            ("1.5e9", Some(1_500_000_000_000)),
            ("-1", Some(-1_000)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-07-01T22:10:51.781+02:00", Some(1_435_781_451_781)),
            ("2015-07-01", None),
            ("yesterday", None),
            ("NaN", None),
        ] {
            assert_eq!(time(text).ok().map(Timestamp::as_millis), expected, "{text}");
        }
        assert_eq!(time("x").unwrap_err(), "cannot parse \"x\" to a valid timestamp");
        for (text, expected) in [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("1m", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("-1", Some(0)),
            ("0", Some(0)),
            ("1e300", None),
            ("NaN", None),
            ("1x", None),
        ] {
            assert_eq!(span(text).ok().map(|span| span.as_millis()), expected, "{text}");
        }
        assert!(span("1e300").unwrap_err().ends_with("It overflows int64"));
    }

    #[tokio::test]
    async fn forms_go_before_the_url_and_both_are_bounded() {
        let request = |method: &str, url: &str, body: String| {
            Request::builder().method(method).uri(url).body(Body::from(body)).unwrap()
        };
        let read = async |method, url, body: &str| Asked::read(request(method, url, body.to_owned())).await;
        let asked =
            read("POST", "/x?query=url&a=1&match[]=c", "query=form&match%5B%5D=a&match[]=b").await.unwrap();
        assert_eq!(asked.first("query"), Some("form"));
        assert_eq!((asked.first("a"), asked.first("b")), (Some("1"), None));
        assert_eq!(asked.all("match[]"), ["a", "b", "c"]);
        let asked = read("GET", "/x?query=url", "query=form").await.unwrap();
        assert_eq!(asked.first("query"), Some("url"), "only a POST has a form");
        let long = "a".repeat(FORM_BYTES_MAX + 1);
        assert_eq!(read("POST", "/x", &long).await.unwrap_err().kind, Kind::TooLarge);
        let many = "a=1&".repeat(PARAMETERS_MAX + 1);
        assert_eq!(read("POST", "/x", &many).await.unwrap_err().kind, Kind::BadData);
        let many = "match[]=up&".repeat(SELECTORS_MAX + 1);
        let refused = read("POST", "/x", &many).await.unwrap().selectors().unwrap_err();
        assert!(refused.text.starts_with("invalid parameter \"match[]\": 201 selectors"), "{refused}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_parameter_is_told_by_its_name() {
        let url = "/x?time=soon&step=1x&limit=-1&most=a&match[]=rate(up[5m])&start=10&end=5&empty=";
        let asked = Asked::read(Request::builder().uri(url).body(Body::empty()).unwrap()).await.unwrap();
        let now = Timestamp::from_millis(0);
        for (failure, text) in [
            (
                asked.time("time", now).unwrap_err(),
                "\"time\": Invalid time value for 'time': cannot parse \"soon\" to a valid timestamp",
            ),
            (asked.span("step").unwrap_err(), "\"step\": cannot parse \"1x\" to a valid duration"),
            (asked.limit("limit").unwrap_err(), "\"limit\": limit must be non-negative"),
            (asked.limit("most").unwrap_err(), "\"most\": \"a\" is not a number"),
            (
                asked.selectors().unwrap_err(),
                "\"match[]\": series are selected by a selector alone: up{job=\"node\"}",
            ),
            (
                asked.listed(Duration::ZERO, now).unwrap_err(),
                "\"end\": end timestamp must not be before start time",
            ),
        ] {
            assert_eq!(failure.text, format!("invalid parameter {text}"));
        }
        assert_eq!(asked.limit("empty").unwrap(), None);
    }
}
