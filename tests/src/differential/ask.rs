//! A question put to whoever answers: the engine in this process, or an HTTP API of Prometheus' kind.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value as Json;
use tocsin_promql::{Expr, MemorySource, Options, Value, instant_with, range_with};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::prometheus::get;
use super::{Answer, Question, When};

/// Who answers.
pub enum Respondent<'a> {
    Engine(&'a MemorySource),
    /// HOST:PORT.
    Http(&'a str),
}

/// Puts a question.
pub fn ask(respondent: &Respondent<'_>, question: &Question) -> anyhow::Result<Answer> {
    match respondent {
        Respondent::Engine(source) => Ok(engine(source, question)),
        Respondent::Http(address) => http(address, question),
    }
}

fn engine(source: &MemorySource, Question { query, when }: &Question) -> Answer {
    let options = Options::default();
    let refused = |why: &dyn std::fmt::Display| Answer::Refused(why.to_string());
    let expr = match Expr::parse(query) {
        Ok(expr) => expr,
        Err(error) => return refused(&error),
    };
    let value = match *when {
        When::Instant(at) => {
            instant_with(&expr, source, Timestamp::from_millis(at), &options).map(|answer| (answer.value, at))
        }
        When::Range { start, end, step } => {
            let span = (Timestamp::from_millis(start), Timestamp::from_millis(end));
            let step = Duration::from_millis(step.unsigned_abs());
            range_with(&expr, source, span, step, &options).map(|answer| (Value::Matrix(answer.value), end))
        }
    };
    match value {
        Ok((value, at)) => result(value, at),
        Err(error) => refused(&error),
    }
}

fn result(value: Value, at: i64) -> Answer {
    let mut series = BTreeMap::new();
    let kind = match value {
        Value::Scalar(value) => {
            series.insert(String::new(), vec![(at, value)]);
            "scalar"
        }
        Value::Vector(elements) => {
            series.extend(
                elements.iter().map(|element| (element.labels.to_string(), vec![(at, element.value)])),
            );
            "vector"
        }
        Value::Matrix(all) => {
            series.extend(all.iter().map(|one| {
                let points = one.points.iter().map(|point| (point.at.as_millis(), point.value));
                (one.labels.to_string(), points.collect())
            }));
            "matrix"
        }
        Value::Text(_) => "string",
    };
    Answer::Result { kind, series }
}

fn http(address: &str, Question { query, when }: &Question) -> anyhow::Result<Answer> {
    let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
    let (status, body) = match *when {
        When::Instant(at) => get(address, "/api/v1/query", &[("query", query), ("time", &seconds(at))])?,
        When::Range { start, end, step } => {
            let (start, end, step) = (seconds(start), seconds(end), seconds(step));
            let parameters = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", &step)];
            get(address, "/api/v1/query_range", &parameters)?
        }
    };
    let answer: Json = serde_json::from_str(&body).with_context(|| format!("{status} {body}"))?;
    if answer["status"] != "success" {
        return Ok(Answer::Refused(answer["error"].as_str().unwrap_or("without a reason").to_owned()));
    }
    read(&answer["data"]).with_context(|| format!("no answer to {query}: {body}"))
}

fn read(data: &Json) -> anyhow::Result<Answer> {
    let mut series = BTreeMap::new();
    let result = &data["result"];
    let kind = match data["resultType"].as_str() {
        Some("scalar") => {
            series.insert(String::new(), vec![point(result)?]);
            "scalar"
        }
        Some("vector") => {
            for element in result.as_array().context("no elements")? {
                series.insert(labels(&element["metric"])?, vec![point(&element["value"])?]);
            }
            "vector"
        }
        Some("matrix") => {
            for one in result.as_array().context("no series")? {
                let points = one["values"].as_array().context("no values")?;
                series.insert(labels(&one["metric"])?, points.iter().map(point).collect::<Result<_, _>>()?);
            }
            "matrix"
        }
        Some("string") => "string",
        other => bail!("a result of the kind {other:?}"),
    };
    Ok(Answer::Result { kind, series })
}

fn labels(metric: &Json) -> anyhow::Result<String> {
    let pairs = metric.as_object().context("no labels")?.iter();
    let pairs = pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")));
    Ok(Labels::new(pairs).to_string())
}

fn point(pair: &Json) -> anyhow::Result<(i64, f64)> {
    let at = pair[0].as_f64().context("no time")?;
    let value = pair[1].as_str().context("no value")?;
    Ok((Timestamp::from_secs_f64(at).as_millis(), value.parse()?))
}
