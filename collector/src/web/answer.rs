//! Successes: `{"status":"success","data":…}` with the warnings and infos after it.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use tocsin_promql::Annotations;

use super::failure::{Failure, Kind};
use super::json::Json;

/// The longest answer before it is packed; as over gRPC.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Warnings, and infos, in one answer.
const ANNOTATIONS_MAX: usize = 10;

/// What a list says when it was cut.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// Begins a success; its data is written next.
pub(super) fn begin(bytes: usize) -> Json {
    let mut json = Json::with_capacity(bytes);
    json.raw("{\"status\":\"success\",\"data\":");
    json
}

/// Ends a success after its data.
pub(super) fn end(mut json: Json, annotations: Annotations) -> Result<Vec<u8>, Failure> {
    let Annotations { warnings, infos } = annotations.at_most(ANNOTATIONS_MAX);
    for (name, lines) in [("warnings", &warnings), ("infos", &infos)] {
        if !lines.is_empty() {
            json.raw(",").key(name).texts(lines.iter().map(String::as_str));
        }
    }
    json.raw("}");
    check(&json)?;
    Ok(json.into_bytes())
}

/// Refuses an answer that has become too long; to be asked now and then while it is written.
pub(super) fn check(json: &Json) -> Result<(), Failure> {
    if json.len() <= ANSWER_BYTES_MAX {
        return Ok(());
    }
    let most = ANSWER_BYTES_MAX >> 20;
    let why = format!("the answer is longer than {most} MiB: aggregate, narrow the selectors, or step wider");
    Err(Failure::new(Kind::Execution, why))
}

/// A whole success of data that is written at once.
pub(super) fn of(write: impl FnOnce(&mut Json)) -> Result<Vec<u8>, Failure> {
    let mut json = begin(1_024);
    write(&mut json);
    end(json, Annotations::default())
}

/// Whether a list had to be cut, as a warning.
pub(super) fn cut(is_cut: bool) -> Annotations {
    let warnings = if is_cut { vec![TRUNCATED.to_owned()] } else { Vec::new() };
    Annotations { warnings, infos: Vec::new() }
}

/// The response with this body.
pub(super) fn response(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
