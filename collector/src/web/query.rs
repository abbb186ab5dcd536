//! Expressions: their value at an instant, over a range, and their pretty form.

use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::Response;
use tocsin_promql::{Annotations, Answer, Expr, LOOK_BACK, Limits, Options, SeriesPoints, Value};
use tocsin_shared::time::Timestamp;

use super::answer;
use super::call::{self, PATIENCE, unanswered};
use super::failure::{Failure, Kind};
use super::json::Json;
use super::parameters::{Asked, invalid};
use crate::api::Api;
use crate::ask;
use crate::clock::now;

/// Steps of a range: a point for each pixel of a large screen.
const STEPS_MAX: u32 = 11_000;
/// How far a look-back may reach: a day is what people take for slow series.
const LOOK_BACK_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Bytes that a point and a series with its labels take; a first guess, so that the body seldom moves.
const POINT_BYTES: usize = 32;
const SERIES_BYTES: usize = 256;

/// `/api/v1/query`.
pub(super) async fn instant(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let (limit, at) = (asked.limit("limit")?, asked.time("time", now())?);
    let (expr, wish) = (expr(&asked)?, Wish::read(&asked)?);
    let work = move |store: &_, ended: &call::Ended| {
        let begun = Instant::now();
        let stop = || ended.is();
        let options = Options { look_back: wish.look_back, stop: &stop, ..Options::default() };
        let answer = ask::instant(store, &expr, at, &options).map_err(|error| unanswered(&error, ended))?;
        let Answer { mut value, mut annotations } = answer;
        match (&mut value, limit) {
            (Value::Vector(elements), Some(limit)) => truncate(elements, limit, &mut annotations),
            (Value::Matrix(series), Some(limit)) => truncate(series, limit, &mut annotations),
            _ => {}
        }
        let took = begun.elapsed();
        finished(size(&value), annotations, wish.stats.then_some(took), |json| write_value(json, &value, at))
    };
    let (body, place) = call::run(&api, &asked.caller, wish.patience, work).await?;
    Ok(call::holding(answer::response(body), place))
}

/// `/api/v1/query_range`.
pub(super) async fn range(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let limit = asked.limit("limit")?;
    let (span, step) = steps(&asked)?;
    let (expr, wish) = (expr(&asked)?, Wish::read(&asked)?);
    let work = move |store: &_, ended: &call::Ended| {
        let begun = Instant::now();
        let stop = || ended.is();
        let limits = Limits { steps: STEPS_MAX as usize + 1, ..Limits::default() };
        let options = Options { limits, look_back: wish.look_back, stop: &stop };
        let answer = ask::range(store, &expr, span, step, &options);
        let Answer { value: mut series, mut annotations } =
            answer.map_err(|error| unanswered(&error, ended))?;
        if let Some(limit) = limit {
            truncate(&mut series, limit, &mut annotations);
        }
        let took = begun.elapsed();
        let value = Value::Matrix(series);
        finished(size(&value), annotations, wish.stats.then_some(took), |json| {
            write_value(json, &value, span.1)
        })
    };
    let (body, place) = call::run(&api, &asked.caller, wish.patience, work).await?;
    Ok(call::holding(answer::response(body), place))
}

/// `/api/v1/format_query`.
pub(super) async fn format(request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let pretty = tocsin_promql::format(asked.query()?).map_err(|error| invalid("query", error))?;
    let body = answer::of(|json| {
        json.text(&pretty);
    })?;
    Ok(answer::response(body))
}

/// `/api/v1/query_exemplars`: none are kept, so the list is empty for every query that could be answered.
pub(super) async fn exemplars(request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let (start, end) = (asked.time("start", Timestamp::MIN)?, asked.time("end", Timestamp::MAX)?);
    if end < start {
        return Err(invalid("end", "end timestamp is before start timestamp"));
    }
    expr(&asked)?;
    let body = answer::of(|json| {
        json.raw("[]");
    })?;
    Ok(answer::response(body))
}

/// What else a query may ask for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    patience: Duration,
    look_back: Duration,
    stats: bool,
}

impl Wish {
    fn read(asked: &Asked) -> Result<Self, Failure> {
        let look_back = asked.span("lookback_delta")?.unwrap_or(LOOK_BACK);
        if look_back.is_zero() || LOOK_BACK_MAX < look_back {
            return Err(invalid("lookback_delta", "it is more than nothing and at most a day"));
        }
        let patience = asked.span("timeout")?.unwrap_or(PATIENCE);
        Ok(Self { patience, look_back, stats: asked.first("stats").is_some() })
    }
}

fn expr(asked: &Asked) -> Result<Expr, Failure> {
    Expr::parse(asked.query()?).map_err(|error| invalid("query", error))
}

/// The first and the last instant of a range, and its step.
fn steps(asked: &Asked) -> Result<((Timestamp, Timestamp), Duration), Failure> {
    let (start, end) = (asked.needed_time("start")?, asked.needed_time("end")?);
    if end < start {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let step = asked.span("step")?.ok_or_else(|| invalid("step", "cannot parse \"\" to a valid duration"))?;
    if step < Duration::from_millis(1) {
        let why = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", why));
    }
    if u128::from(STEPS_MAX) < end.since(start).as_millis() / step.as_millis() {
        let why = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(Failure::new(Kind::BadData, why));
    }
    Ok(((start, end), step))
}

fn truncate<T>(list: &mut Vec<T>, limit: usize, annotations: &mut Annotations) {
    if limit < list.len() {
        list.truncate(limit);
        annotations.warnings.push(answer::TRUNCATED.to_owned());
    }
}

/// About how many bytes a value takes.
fn size(value: &Value) -> usize {
    let bytes = match value {
        Value::Scalar(_) | Value::Text(_) => SERIES_BYTES,
        Value::Vector(elements) => elements.len() * (SERIES_BYTES + POINT_BYTES),
        Value::Matrix(series) => {
            series.iter().map(|series| SERIES_BYTES + series.points.len() * POINT_BYTES).sum()
        }
    };
    bytes.min(answer::ANSWER_BYTES_MAX)
}

fn finished(
    bytes: usize,
    annotations: Annotations,
    took: Option<Duration>,
    write: impl FnOnce(&mut Json) -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let mut json = answer::begin(bytes);
    json.raw("{");
    write(&mut json)?;
    if let Some(took) = took {
        json.raw(",\"stats\":{\"timings\":{\"evalTotalTime\":").number(took.as_secs_f64());
        json.raw(",\"execTotalTime\":").number(took.as_secs_f64()).raw("}}");
    }
    json.raw("}");
    answer::end(json, annotations)
}

fn write_value(json: &mut Json, value: &Value, at: Timestamp) -> Result<(), Failure> {
    let at = at.as_millis();
    match value {
        Value::Scalar(value) => {
            json.raw("\"resultType\":\"scalar\",\"result\":").scalar(at, *value);
        }
        Value::Text(text) => {
            json.raw("\"resultType\":\"string\",\"result\":[").short_time(at).raw(",").text(text).raw("]");
        }
        Value::Vector(elements) => {
            json.raw("\"resultType\":\"vector\",\"result\":[");
            for (number, element) in elements.iter().enumerate() {
                json.raw(if number == 0 { "{\"metric\":" } else { ",{\"metric\":" }).labels(&element.labels);
                json.raw(",\"value\":").sample(at, element.value).raw("}");
                answer::check(json)?;
            }
            json.raw("]");
        }
        Value::Matrix(series) => {
            json.raw("\"resultType\":\"matrix\",\"result\":[");
            for (number, SeriesPoints { labels, points }) in series.iter().enumerate() {
                json.raw(if number == 0 { "{\"metric\":" } else { ",{\"metric\":" }).labels(labels);
                json.raw(",\"values\":[");
                json.each(points, |json, point| {
                    json.sample(point.at.as_millis(), point.value);
                });
                json.raw("]}");
                answer::check(json)?;
            }
            json.raw("]");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tocsin_promql::Element;
    use tocsin_shared::labels::Labels;
    use tocsin_shared::sample::Sample;

    use super::*;

    fn written(value: &Value, annotations: Annotations) -> String {
        let at = Timestamp::from_millis(1_435_781_451_781);
        let body = finished(0, annotations, None, |json| write_value(json, value, at)).unwrap();
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn results_are_written_as_prometheus_writes_them() {
        let labels = Labels::series("up", &[("job", "prometheus")]);
        let sample = |at, value| Sample { at: Timestamp::from_millis(at), value };
        let noted = Annotations { warnings: vec!["w \"x\"".into()], infos: vec!["i".into()] };
        for (value, annotations, expected) in [
            (
                Value::Scalar(f64::NAN),
                Annotations::default(),
                r#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"NaN"]}}"#,
            ),
            (
                Value::Text("a\"b".into()),
                Annotations::default(),
                r#"{"status":"success","data":{"resultType":"string","result":[1435781451.781,"a\"b"]}}"#,
            ),
            (
                Value::Vector(Vec::new()),
                noted,
                r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["w \"x\""],"infos":["i"]}"#,
            ),
            (
                Value::Vector(vec![
                    Element { labels: labels.clone(), value: 1.0 },
                    Element { labels: Labels::empty(), value: f64::INFINITY },
                ]),
                Annotations::default(),
                concat!(
                    r#"{"status":"success","data":{"resultType":"vector","result":["#,
                    r#"{"metric":{"__name__":"up","job":"prometheus"},"value":[1435781451.781,"1"]},"#,
                    r#"{"metric":{},"value":[1435781451.781,"+Inf"]}]}}"#,
                ),
            ),
            (
                Value::Matrix(vec![SeriesPoints {
                    labels,
                    points: vec![sample(1_000, 0.5), sample(1_500, 1e-7)],
                }]),
                Annotations::default(),
                concat!(
                    r#"{"status":"success","data":{"resultType":"matrix","result":["#,
                    r#"{"metric":{"__name__":"up","job":"prometheus"},"values":[[1,"0.5"],[1.500,"1e-07"]]}]}}"#,
                ),
            ),
        ] {
            assert_eq!(written(&value, annotations), expected);
        }
    }

    #[test]
    fn an_answer_has_an_end() {
        let text: String = "x".repeat(1 << 20);
        let element = Element { labels: Labels::series("m", &[("a", &text)]), value: 0.0 };
        let value = Value::Vector(vec![element; 65]);
        let refused = finished(0, Annotations::default(), None, |json| {
            write_value(json, &value, Timestamp::from_millis(0))
        });
        assert_eq!(refused.unwrap_err().kind, Kind::Execution);
    }
}
