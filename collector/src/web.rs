//! Plain HTTP beside gRPC on the front: Prometheus' HTTP API, for Grafana and every tool that speaks it.
//!
//! A router of axum's, behind the same guard as gRPC: who may ask for what stands in `identity::authorise::PATHS`, and a
//! route that is not there is reached by nobody. Promise: every answer that is not a success is Prometheus' error JSON.
//! Not here: the engine (`promql`), how many queries run at a time (`api::places`).

mod answer;
mod call;
mod failure;
mod federate;
mod json;
pub(crate) mod metadata;
mod names;
mod parameters;
mod query;
mod rules;
mod status;
mod targets;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use crate::api::Api;
use crate::identity::authorise::Denied;
pub(crate) use failure::{Failure, Kind};

/// Smaller answers are not worth packing.
const PACKED_FROM: u16 = 1_024;
/// The part of the listener's time for an answer after which a request is given up: what ends it there speaks gRPC.
const PATIENCE: f64 = 0.9;

/// All routes. An answer begins within `answer`, or says that it took too long.
pub(crate) fn router(api: Api, answer: Duration) -> Router {
    let packed = CompressionLayer::new().quality(CompressionLevel::Fastest);
    Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/api/v1/format_query", get(query::format).post(query::format))
        .route("/api/v1/series", get(names::series).post(names::series))
        .route("/api/v1/labels", get(names::labels).post(names::labels))
        .route("/api/v1/label/{name}/values", get(names::values))
        .route("/api/v1/metadata", get(metadata::metadata))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/status/buildinfo", get(status::build))
        .route("/api/v1/status/runtimeinfo", get(status::runtime))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/federate", get(federate::federate))
        .with_state(api)
        .fallback(async || Failure::new(Kind::NotFound, "there is no such path"))
        .layer(packed.compress_when(SizeAbove::new(PACKED_FROM)))
        .layer(from_fn_with_state(answer.mul_f64(PATIENCE), in_time))
        .layer(from_fn(named))
}

/// Ends a request that takes too long.
async fn in_time(State(patience): State<Duration>, request: Request, next: Next) -> Response {
    let late = |_| Failure::new(Kind::Timeout, "the answer takes too long: ask for less").into_response();
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(late)
}

/// A path with the wrong method is an error like the others.
async fn named(request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    match answer.status() {
        http::StatusCode::METHOD_NOT_ALLOWED => {
            Failure::new(Kind::OtherMethod, "this path takes other methods").into_response()
        }
        _ => answer,
    }
}

/// The answer to a request that the guard refuses.
pub(crate) fn denied(denied: &Denied, why: String) -> Response<Body> {
    let kind = match denied {
        Denied::Unauthenticated => Kind::Unauthorized,
        Denied::Forbidden { .. } => Kind::Forbidden,
        Denied::UnknownMethod | Denied::UnknownPath => Kind::NotFound,
        Denied::OtherMethod { .. } => Kind::OtherMethod,
    };
    Failure::new(kind, why).into_response()
}

/// The answer on the loopback to a request for another host.
pub(crate) fn misdirected() -> Response<Body> {
    let why = "queries are answered here for localhost, 127.0.0.1 and [::1] alone: ask for one of these";
    Failure::new(Kind::Forbidden, why).into_response()
}

/// The answer to a request that failed inside.
pub(crate) fn failed(why: &str) -> Response<Body> {
    Failure::new(Kind::Internal, why).into_response()
}
