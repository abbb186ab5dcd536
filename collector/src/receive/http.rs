//! ⇄ Remote write and OTLP over plain HTTP: what a request says it is, and the answer that its sender understands.
//!
//! 204 when all was taken; 400 when something was not and never will be: what is good of it is taken all the same,
//! and the text says how many were refused for which reason; 413 and 415 for what cannot be read; 429 and 503 when the
//! same may be taken later. A sender that keeps to the specification sends nothing twice and drops nothing good.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower_http::decompression::RequestDecompressionLayer;

use super::remote_write::{self, Unpacked, Version};
use super::{Outcome, Receiver, Untaken, otlp};
use crate::identity::authorise::Caller;
use crate::web::{Failure, Kind};

const SAMPLES_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");
/// The part of the listener's time for an answer after which a request is given up.
const PATIENCE: f64 = 0.9;
/// The messages of remote write, as the content type names them.
const MESSAGE_ONE: &str = "prometheus.WriteRequest";
const MESSAGE_TWO: &str = "io.prometheus.write.v2.Request";

/// An answer comes within `answer`, or says that it took too long: what ends a request there speaks gRPC, and a sender
/// would take that for a success.
pub(crate) fn routes(receiver: Arc<Receiver>, answer: Duration) -> Router {
    // Passed through as it is what is not packed so: the handler says what it takes.
    let unpacked = RequestDecompressionLayer::new().pass_through_unaccepted(true);
    let otlp = Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/api/v1/otlp/v1/metrics", post(metrics))
        .layer(unpacked);
    let write = Router::new().route("/api/v1/write", post(write));
    let in_time = from_fn_with_state(answer.mul_f64(PATIENCE), in_time);
    write.merge(otlp).layer(in_time).with_state(receiver)
}

/// Ends a request that takes too long. It may be taken all the same: what comes again is harmless.
async fn in_time(State(patience): State<Duration>, request: Request, next: Next) -> Response {
    let late = |_| Failure::new(Kind::Timeout, "no answer in time: send it again").into_response();
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(late)
}

/// Who writes: the guard has let nobody else in.
fn source(request: &Request) -> Result<String, Failure> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Principal { name, .. }) => Ok(name.clone()),
        _ => Err(Failure::new(Kind::Unauthorized, "this call needs a credential")),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim()
}

/// `POST /api/v1/write`
async fn write(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let version = match version(request.headers()) {
        Ok(version) => version,
        Err(why) => return Failure::new(Kind::Unsupported, why).into_response(),
    };
    let answered = async {
        let source = source(&request)?;
        let place = receiver.place(&source).await.map_err(failure)?;
        let config = *receiver.config();
        let block = body(request.into_body(), config.body_bytes_max).await?;
        let message = remote_write::unpack(&block, config.message_bytes_max()).map_err(|why| match why {
            Unpacked::Malformed => Failure::new(Kind::BadData, super::Malformed::Snappy.to_string()),
            Unpacked::TooLarge => too_large(config.message_bytes_max()),
        })?;
        drop(block);
        let taken = receiver.take(&place, move |intake| remote_write::read(version, &message, intake));
        taken.await.map_err(failure)
    };
    let (mut response, written) = match answered.await {
        Ok(Outcome { written, refused }) => match refused.told() {
            None => (StatusCode::NO_CONTENT.into_response(), written),
            Some(why) => {
                let why = format!("{written} samples are taken; {why}");
                (Failure::new(Kind::BadData, why).into_response(), written)
            }
        },
        Err(failure) => (failure.into_response(), 0),
    };
    if version == Version::Two {
        let headers = response.headers_mut();
        headers.insert(SAMPLES_WRITTEN, HeaderValue::from(written));
        headers.insert(HISTOGRAMS_WRITTEN, HeaderValue::from(0));
        headers.insert(EXEMPLARS_WRITTEN, HeaderValue::from(0));
    }
    response
}

/// Which message a request has, by its content type; without one it is the first version.
fn version(headers: &HeaderMap) -> Result<Version, String> {
    let encoding = text(headers, &header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(format!("content encoding {encoding:?} is not read here, snappy is"));
    }
    let content_type = text(headers, &header::CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or("");
    if !media.is_empty() && !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(format!("content type {media:?} is not read here, application/x-protobuf is"));
    }
    let proto = parts
        .find_map(|part| part.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("proto")));
    match proto.map(|(_, message)| message.trim()) {
        None | Some(MESSAGE_ONE) => Ok(Version::One),
        Some(MESSAGE_TWO) => Ok(Version::Two),
        Some(other) => {
            Err(format!("message {other:?} is not read here; {MESSAGE_ONE} and {MESSAGE_TWO} are"))
        }
    }
}

/// `POST /v1/metrics`, and where Prometheus has it.
async fn metrics(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let encoding = text(request.headers(), &header::CONTENT_ENCODING).to_owned();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let why = format!("content encoding {encoding:?} is not read here, gzip is");
        return Failure::new(Kind::Unsupported, why).into_response();
    }
    let content_type = text(request.headers(), &header::CONTENT_TYPE);
    let format = match content_type.split(';').next().unwrap_or("").trim() {
        "application/x-protobuf" => otlp::Format::Protobuf,
        "application/json" => otlp::Format::Json,
        other => {
            let why = format!(
                "content type {other:?} is not read here, application/x-protobuf and application/json are"
            );
            return Failure::new(Kind::Unsupported, why).into_response();
        }
    };
    let answered = async {
        let source = source(&request)?;
        let place = receiver.place(&source).await.map_err(failure)?;
        let message = body(request.into_body(), receiver.config().message_bytes_max()).await?;
        let taken = receiver.take(&place, move |intake| otlp::read(&otlp::decode(format, &message)?, intake));
        taken.await.map_err(failure)
    };
    match answered.await {
        Ok(outcome) => {
            let mut response = Response::new(Body::from(otlp::encode(format, &otlp::answer(&outcome))));
            let kind = HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(failure) => failure.into_response(),
    }
}

/// A body of at most so many bytes.
async fn body(body: Body, bytes_max: usize) -> Result<axum::body::Bytes, Failure> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Err(error) => {
            // Of what is packed wrong, and of a connection that broke off: nobody reads that answer.
            let why =
                error.downcast_ref::<io::Error>().map_or_else(|| error.to_string(), io::Error::to_string);
            Err(Failure::new(Kind::BadData, format!("the body cannot be read: {why}")))
        }
    }
}

fn too_large(bytes_max: usize) -> Failure {
    Failure::new(Kind::TooLarge, format!("more than {bytes_max} bytes: send fewer samples at once"))
}

fn failure(why: Untaken) -> Failure {
    let kind = match why {
        Untaken::Malformed(_) => Kind::BadData,
        Untaken::TooMany(_) => Kind::TooMany,
        Untaken::NoRoom | Untaken::Sources | Untaken::Stopping(_) => Kind::Unavailable,
        Untaken::Failed => Kind::Internal,
    };
    Failure::new(kind, why.to_string())
}
