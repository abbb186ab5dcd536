//! ⇄ One subscription to a query: waits for samples, evaluates, gives what changed, and says why it ends.
//!
//! It is evaluated only when there is room for an answer: a slow subscriber costs nothing and misses steps. `delta`
//! knows what it was given. Not here: who may subscribe, and how many.

use std::sync::Arc;
use std::time::Duration;

use tocsin_promql::Expr;
use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, mpsc, watch};
use tokio::time::Instant;
use tonic::Status;

use super::super::{Api, Who};
use super::delta::{Delta, Given, Notes};
use super::messages::parts;
use super::patience::PATIENCE;
use super::reason::{self, TOO_MANY_SERIES};
use super::{SUBSCRIPTION_SERIES_MAX, evaluate};
use crate::clock::now;
use crate::journal::ledger::Registry;

/// How often it is looked whether samples have come: a number is read, nothing else.
const LOOK: Duration = Duration::from_millis(100);

pub(super) type Answers = mpsc::Sender<Result<pb::SubscribeQueryResponse, Status>>;

/// Why a subscription ends.
enum End {
    /// Its subscriber left.
    Left,
    /// The subscriber is told this.
    Told(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Told(status)
    }
}

pub(super) struct Subscription {
    api: Api,
    who: Who,
    expr: Arc<Expr>,
    step: Duration,
    answers: Answers,
    registry: watch::Receiver<Arc<Registry>>,
    given: Given,
    /// A permit for each series of `given`.
    held: Option<OwnedSemaphorePermit>,
    /// What the result is, and when it was evaluated.
    evaluated: (&'static str, Timestamp),
    last_sent: Instant,
}

impl Subscription {
    pub(super) fn new(api: &Api, who: Who, expr: Expr, step: Duration, answers: Answers) -> Self {
        Self {
            registry: api.ledger.registry_changes(),
            api: api.clone(),
            who,
            expr: Arc::new(expr),
            step,
            answers,
            given: Given::default(),
            held: None,
            evaluated: ("", Timestamp::MIN),
            last_sent: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        let Err(end) = self.follow().await;
        if let End::Told(status) = end {
            self.answers.send(Err(status)).await.ok(); // The subscriber may have left already.
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let answers = self.answers.clone();
            // Nobody else sends: room that was there is there still.
            self.unless_ended(async { answers.reserve().await.map(drop).map_err(|_| End::Left) }).await??;
            let (begun, arrivals) = (Instant::now(), self.api.samples.arrivals());
            self.evaluate().await?;
            self.wait(begun, arrivals).await?;
        }
    }

    /// Evaluates, and sends what the subscriber does not have.
    async fn evaluate(&mut self) -> Result<(), End> {
        let (api, expr, at) = (self.api.clone(), Arc::clone(&self.expr), now());
        let evaluated = self.unless_ended(async move {
            let place = api.calls.queries.turn().await?;
            api.query_within(PATIENCE, place, move |store, ended| evaluate::elements(store, &expr, at, ended))
                .await
        });
        let ((elements, result_type, notes), place) = evaluated.await??;
        drop(place);
        self.hold(elements.len())?;
        self.evaluated = (result_type, at);
        match self.given.give(elements, &notes) {
            Delta::Unchanged => Ok(()), // Said when nothing else was said for long enough.
            delta => self.send(delta, &notes).await,
        }
    }

    async fn send(&mut self, delta: Delta, notes: &Notes) -> Result<(), End> {
        for part in parts(delta, self.evaluated, notes) {
            let answers = self.answers.clone();
            self.unless_ended(async move { answers.send(Ok(part)).await.map_err(|_| End::Left) }).await??;
        }
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Takes room for as many series, of what there is for all subscriptions.
    fn hold(&mut self, series: usize) -> Result<(), Status> {
        let too_many = |most: usize, what: &str| {
            let why = format!("the result has {series} series, {most} are {what}: aggregate, or narrow it");
            reason::limit(TOO_MANY_SERIES, most as u64, why)
        };
        if SUBSCRIPTION_SERIES_MAX < series {
            return Err(too_many(SUBSCRIPTION_SERIES_MAX, "what a subscription may have"));
        }
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if series <= held {
            // What is no longer there is given back.
            drop(self.held.as_mut().and_then(|held_now| held_now.split(held - series)));
            return Ok(());
        }
        let room = &self.api.calls.subscribed_series;
        let more = u32::try_from(series - held).unwrap_or(u32::MAX);
        let more = Arc::clone(room).try_acquire_many_owned(more).map_err(|error| match error {
            TryAcquireError::NoPermits => too_many(held + room.available_permits(), "left for subscriptions"),
            TryAcquireError::Closed => stopping(),
        })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Waits until it is time for the next evaluation; meanwhile says now and again that nothing changed.
    async fn wait(&mut self, begun: Instant, arrivals: u64) -> Result<(), End> {
        let heartbeat = self.api.calls.heartbeat;
        let due = begun + self.step;
        let anyway = due.max(begun + heartbeat);
        loop {
            let now = Instant::now();
            if anyway <= now || due <= now && self.api.samples.arrivals() != arrivals {
                break;
            }
            if heartbeat <= self.last_sent.elapsed() {
                self.send(Delta::Unchanged, &Notes::default()).await?;
            }
            let next = if now < due { due.min(self.last_sent + heartbeat) } else { anyway.min(now + LOOK) };
            self.unless_ended(tokio::time::sleep_until(next)).await?;
        }
        self.api.still_admitted(&self.who)?; // Credentials run out without an event.
        Ok(())
    }

    /// Waits for something, unless the subscription ends meanwhile.
    async fn unless_ended<T>(&mut self, what: impl Future<Output = T>) -> Result<T, End> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                () = self.api.stop.cancelled() => return Err(stopping().into()),
                () = self.answers.closed() => return Err(End::Left),
                changed = self.registry.changed() => {
                    changed.map_err(|_| stopping())?;
                    self.api.still_admitted(&self.who)?;
                }
                done = &mut what => return Ok(done),
            }
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the collector is stopping")
}
