//! What went wrong with a request, as Prometheus' API says it: a kind, a text, HTTP's status.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::json::Json;

/// Longer texts are cut; what callers gave may be in them.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// What kind of wrong: a caller learns whether to change the request, or to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request does not say what it wants in the right form.
    BadData,
    /// No credential, or one that is not known.
    Unauthorized,
    /// Known, and not allowed.
    Forbidden,
    NotFound,
    OtherMethod,
    /// The body is longer than what is read.
    TooLarge,
    /// The body is of a type that is not read here.
    Unsupported,
    /// The expression has no result over this data, or costs too much.
    Execution,
    /// The caller has all it may have: come again later.
    TooMany,
    Timeout,
    Canceled,
    Internal,
    /// The collector cannot answer now: come again later.
    Unavailable,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::OtherMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Timeout | Self::Canceled | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The `errorType`: Prometheus' words, and ours in their style for what it leaves to others.
    fn as_str(self) -> &'static str {
        match self {
            Self::BadData | Self::OtherMethod | Self::TooLarge | Self::Unsupported => "bad_data",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Execution => "execution",
            Self::TooMany => "too_many_requests",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push('…');
        }
        Self { kind, text }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { kind, text } = self;
        let mut json = Json::default();
        json.raw("{\"status\":\"error\",\"errorType\":").text(kind.as_str());
        json.raw(",\"error\":").text(&text).raw("}");
        let mut response = Response::new(Body::from(json.into_bytes()));
        *response.status_mut() = kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tocsin\""));
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(kind, Kind::TooMany | Kind::Unavailable) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
