//! What this server is, as tools ask a Prometheus.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::json;

use crate::api::Api;

/// The Prometheus whose API this is: tools choose by it what they ask for.
const SPOKEN: &str = "3.0.0";

/// `/api/v1/status/buildinfo`.
pub(super) async fn build(State(api): State<Api>) -> Response {
    success(&json!({
        "version": SPOKEN,
        "revision": format!("tocsin-{}", api.about.version),
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

/// A success with small data.
fn success(data: &serde_json::Value) -> Response {
    let body = json!({ "status": "success", "data": data }).to_string();
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
