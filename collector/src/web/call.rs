//! One request at work: its place among all queries, its time, and how it learns that nobody waits for it any more.
//!
//! What may take a while runs on a thread of its own. Promise: a place is held until the work has really ended and the
//! answer is taken; a caller that leaves, or whose time is over, ends its work at the next look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::response::Response;
use tocsin_promql::EvalError;
use tonic::{Code, Status};

use super::failure::{Failure, Kind};
use crate::api::places::{self, Place};
use crate::api::{Api, blocking};
use crate::ask::AskError;
use crate::identity::authorise::Caller;
use crate::samples::{SelectError, Store};

/// How long a query may take, its wait for a place counted.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// What work gets beyond its time to see that it is over.
const GRACE: Duration = Duration::from_secs(2);

/// Whether work should end: its time is over, or its caller has left.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    left: Arc<AtomicBool>,
    until: Instant,
}

impl Ended {
    pub(super) fn is(&self) -> bool {
        self.left.load(Ordering::Relaxed) || self.is_late()
    }

    fn is_late(&self) -> bool {
        self.until <= Instant::now()
    }

    /// What to say of work that has ended early.
    pub(super) fn failure(&self) -> Failure {
        match self.is_late() {
            true => Failure::new(Kind::Timeout, "query timed out in expression evaluation"),
            false => Failure::new(Kind::Canceled, "query was canceled in expression evaluation"),
        }
    }
}

/// Says that the caller has left when it is dropped with the call that waits.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for a place and runs `work` within `patience`. What it gives comes with the place.
pub(super) async fn run<T: Send + 'static>(
    api: &Api,
    caller: &Caller,
    patience: Duration,
    work: impl FnOnce(&Store, &Ended) -> Result<T, Failure> + Send + 'static,
) -> Result<(T, Place), Failure> {
    let Caller::Principal { name, .. } = caller else {
        return Err(Failure::new(Kind::Unauthorized, "this call needs a credential"));
    };
    let patience = patience.min(PATIENCE);
    let left = Arc::new(AtomicBool::new(false));
    let ended = Ended { left: left.clone(), until: Instant::now() + patience };
    let _waiting = Waiting(left);
    let place = tokio::time::timeout(patience, api.calls.queries.wait(name)).await;
    let place = place.map_err(|_| Failure::new(Kind::Timeout, "query timed out in query queue"))?;
    let place = place.map_err(|full| Failure::new(Kind::TooMany, full.message()))?;
    let (samples, ends) = (api.samples.clone(), ended.clone());
    let running = blocking(move || match ends.is() {
        true => Err(ends.failure()),
        false => work(&samples, &ends).map(|done| (done, place)),
    });
    let left = ended.until.saturating_duration_since(Instant::now()) + GRACE;
    match tokio::time::timeout(left, running).await {
        Ok(done) => done.map_err(refused)?,
        Err(_) => Err(ended.failure()),
    }
}

/// An answer that keeps its place until it is taken.
pub(super) fn holding(mut response: Response, place: Place) -> Response {
    response.extensions_mut().insert(places::held(place));
    response
}

/// What the parts that gRPC shares refuse.
pub(super) fn refused(status: Status) -> Failure {
    let kind = match status.code() {
        Code::InvalidArgument => Kind::BadData,
        Code::NotFound => Kind::NotFound,
        Code::ResourceExhausted => Kind::TooMany,
        Code::Unavailable => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Failure::new(kind, status.message())
}

/// Why there is no answer, in Prometheus' kinds.
pub(super) fn unanswered(error: &AskError, ended: &Ended) -> Failure {
    match error {
        AskError::Refused(EvalError::Stopped) => ended.failure(),
        AskError::Refused(
            EvalError::TooManySteps { .. } | EvalError::InvalidRange | EvalError::InvalidStep,
        ) => Failure::new(Kind::BadData, error.to_string()),
        AskError::Refused(EvalError::NotSteppable(kind)) => Failure::new(
            Kind::BadData,
            format!(
                "invalid parameter \"query\": invalid expression type {kind:?} for range query, must be Scalar or instant Vector"
            ),
        ),
        AskError::Refused(_) | AskError::Unreadable(SelectError::TooManySamples { .. }) => {
            Failure::new(Kind::Execution, error.to_string())
        }
        AskError::Unreadable(SelectError::Block(_) | SelectError::Memory(_)) => {
            tracing::error!(%error, "a query found damaged samples");
            Failure::new(Kind::Internal, error.to_string())
        }
    }
}
