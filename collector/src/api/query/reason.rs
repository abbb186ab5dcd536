//! Why a query was refused, for programs: a word and, for limits, a number, in trailers beside gRPC's code.
//!
//! The words are listed at the head of `query.proto`; they are a promise. The text is for people and may change.

use tocsin_promql::EvalError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::super::refusal;
use crate::ask::AskError;
use crate::samples::SelectError;

const REASON: &str = "tocsin-reason";
const LIMIT: &str = "tocsin-limit";

pub(super) const BAD_QUERY: &str = "bad_query";
pub(super) const BAD_REQUEST: &str = "bad_request";
pub(super) const BAD_RESULT: &str = "bad_result";
pub(super) const BAD_PAGE: &str = "bad_page";
pub(super) const TOO_MANY_STEPS: &str = "too_many_steps";
pub(super) const TOO_MANY_SAMPLES: &str = "too_many_samples";
pub(super) const TOO_MANY_SERIES: &str = "too_many_series";
pub(super) const TOO_MANY_POINTS: &str = "too_many_points";
pub(super) const TOO_MANY_QUERIES: &str = "too_many_queries";
pub(super) const TOO_MUCH_WORK: &str = "too_much_work";
pub(super) const TOO_LATE: &str = "too_late";
pub(super) const DAMAGED: &str = "damaged";

/// A status with its word.
pub(super) fn status(code: Code, reason: &'static str, text: impl Into<String>) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert(REASON, MetadataValue::from_static(reason));
    Status::with_metadata(code, text, trailers)
}

/// A limit that was reached, and how high it is.
pub(super) fn limit(reason: &'static str, limit: u64, text: impl Into<String>) -> Status {
    let code = if reason == TOO_MANY_STEPS { Code::InvalidArgument } else { Code::ResourceExhausted };
    let mut status = status(code, reason, text);
    status.metadata_mut().insert(LIMIT, MetadataValue::from(limit));
    status
}

/// Something wrong with what the caller gave.
pub(super) fn invalid(reason: &'static str, why: impl ToString) -> Status {
    status(Code::InvalidArgument, reason, refusal::invalid(why).message())
}

/// The same status with a word, where it was made without one.
pub(super) fn because(reason: &'static str, mut given: Status) -> Status {
    given.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    given
}

/// Why a query has no answer.
pub(super) fn unanswered(error: &AskError) -> Status {
    match error {
        AskError::Refused(error) => refused(error),
        AskError::Unreadable(error) => unreadable(error),
    }
}

/// Why an evaluation has no result.
pub(super) fn refused(error: &EvalError) -> Status {
    match error {
        EvalError::TooManySamples { limit: most } => limit(TOO_MANY_SAMPLES, *most, error.to_string()),
        EvalError::TooManySeries { limit: most } => limit(TOO_MANY_SERIES, *most as u64, error.to_string()),
        EvalError::TooMuchWork => status(Code::ResourceExhausted, TOO_MUCH_WORK, error.to_string()),
        EvalError::TooManySteps { limit: most, .. } => limit(TOO_MANY_STEPS, *most as u64, error.to_string()),
        EvalError::InvalidRange | EvalError::InvalidStep => invalid(BAD_REQUEST, error),
        // Whoever waited for it is told already.
        EvalError::Stopped => status(Code::DeadlineExceeded, TOO_LATE, error.to_string()),
        EvalError::NotSteppable(_) => invalid(BAD_QUERY, error),
        EvalError::SameLabels { .. }
        | EvalError::ManyToMany { .. }
        | EvalError::ManyToOne { .. }
        | EvalError::GroupingNotUnique { .. }
        | EvalError::Parameter(_) => invalid(BAD_RESULT, error),
    }
}

/// Why samples could not be read.
pub(super) fn unreadable(error: &SelectError) -> Status {
    match error {
        SelectError::TooManySamples { max } => limit(TOO_MANY_SAMPLES, *max, error.to_string()),
        SelectError::Block(_) | SelectError::Memory(_) => {
            tracing::error!(%error, "a query found damaged samples");
            status(Code::DataLoss, DAMAGED, error.to_string())
        }
    }
}

/// The word of a status, for tests.
#[cfg(test)]
pub(super) fn of(status: &Status) -> Option<&str> {
    status.metadata().get(REASON)?.to_str().ok()
}
