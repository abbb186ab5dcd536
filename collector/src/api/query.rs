//! Queries: PromQL over all samples, the names of series, and the inventory of hosts.
//!
//! Each query runs on a thread of its own; how many run at a time, how long one may take, how much it reads and how
//! much it answers are bounded. A query whose caller has stopped waiting runs to its end and keeps its place until then.

mod evaluate;
mod names;

use std::time::Duration;

use tocsin_promql::Expr;
use tocsin_proto::convert::labels_out;
use tocsin_proto::pb;
use tocsin_proto::pb::query_service_server::QueryService;
use tocsin_shared::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::places::{self, Place};
use super::{Api, Who, blocking, refusal};
use crate::clock::now;
use crate::samples::Store;
use evaluate::Steps;

/// The longest query text.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How long a caller waits for a query.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that wait for a slow subscriber; it then misses steps.
const SUBSCRIPTION_QUEUE: usize = 2;
/// The shortest step of a subscription.
const SUBSCRIPTION_STEP_MIN: Duration = Duration::from_secs(1);
/// Series in one answer.
const SERIES_MAX: usize = 100_000;

type Answers = ReceiverStream<Result<pb::InstantResponse, Status>>;

#[tonic::async_trait]
impl QueryService for Api {
    type SubscribeStream = Answers;

    async fn instant(
        &self,
        request: Request<pb::InstantRequest>,
    ) -> Result<Response<pb::InstantResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::InstantRequest { query, at_ms } = request.into_inner();
        let expr = parse(&query)?;
        let at = time_or_now(at_ms);
        let place = self.calls.queries.take(&who.name)?;
        let (answer, place) = self.query(place, move |store| evaluate::instant(store, &expr, at)).await?;
        Ok(places::answer(answer, place))
    }

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::RangeRequest { query, start_ms, end_ms, step_ms } = request.into_inner();
        let expr = parse(&query)?;
        let step = u64::try_from(step_ms).unwrap_or(0);
        let steps = Steps {
            start: Timestamp::from_millis(start_ms),
            end: Timestamp::from_millis(end_ms),
            step: Duration::from_millis(step),
        };
        let place = self.calls.queries.take(&who.name)?;
        let (series, place) = self.query(place, move |store| evaluate::range(store, &expr, steps)).await?;
        Ok(places::answer(pb::RangeResponse { series }, place))
    }

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeQueryRequest>,
    ) -> Result<Response<Answers>, Status> {
        let who = Who::of(&request)?;
        let pb::SubscribeQueryRequest { query, step_ms } = request.into_inner();
        let step = Duration::from_millis(u64::try_from(step_ms).unwrap_or(0));
        if step < SUBSCRIPTION_STEP_MIN {
            return Err(Status::invalid_argument("the step of a subscription is at least 1,000 ms"));
        }
        let expr = parse(&query)?;
        let place = self.calls.subscriptions.clone().try_acquire_owned();
        let place = place.map_err(|_| {
            Status::resource_exhausted("too many queries are subscribed already: end one, then try again")
        })?;
        let (answers, stream) = mpsc::channel(SUBSCRIPTION_QUEUE);
        let api = self.clone();
        tokio::spawn(async move {
            if let Err(status) = api.repeat(&who, expr, step, &answers).await {
                answers.send(Err(status)).await.ok(); // The subscriber may have left already.
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn series(
        &self,
        request: Request<pb::SeriesRequest>,
    ) -> Result<Response<pb::SeriesResponse>, Status> {
        let who = Who::of(&request)?;
        let pb::SeriesRequest { selector, start_ms, end_ms } = request.into_inner();
        check_length(&selector)?;
        let selector = names::selector(&selector).map_err(refusal::invalid)?;
        let span = (Timestamp::from_millis(start_ms.saturating_sub(1)), time_or_now(end_ms));
        let place = self.calls.queries.take(&who.name)?;
        let find = move |store: &Store| Ok(names::series(store, &selector, span));
        let (found, place) = self.query(place, find).await?;
        if found.len() > SERIES_MAX {
            let why = format!("{} series match, at most {SERIES_MAX} are listed: narrow it", found.len());
            return Err(Status::resource_exhausted(why));
        }
        let series = found.iter().map(|labels| pb::SeriesLabels { labels: labels_out(labels) }).collect();
        Ok(places::answer(pb::SeriesResponse { series }, place))
    }

    async fn labels(
        &self,
        request: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        let place = self.calls.queries.take(&Who::of(&request)?.name)?;
        let (names, place) = self.query(place, |store| Ok(names::names(store))).await?;
        Ok(places::answer(pb::LabelsResponse { names }, place))
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelValuesRequest>,
    ) -> Result<Response<pb::LabelValuesResponse>, Status> {
        let place = self.calls.queries.take(&Who::of(&request)?.name)?;
        let pb::LabelValuesRequest { name } = request.into_inner();
        let (values, place) = self.query(place, move |store| Ok(names::values(store, &name))).await?;
        Ok(places::answer(pb::LabelValuesResponse { values }, place))
    }

    async fn list_hosts(
        &self,
        request: Request<pb::ListHostsRequest>,
    ) -> Result<Response<pb::ListHostsResponse>, Status> {
        let pb::ListHostsRequest { include_retired } = request.into_inner();
        let hosts = self.statuses(None, include_retired).await?;
        Ok(Response::new(pb::ListHostsResponse { hosts }))
    }

    async fn get_host(
        &self,
        request: Request<pb::GetHostRequest>,
    ) -> Result<Response<pb::GetHostResponse>, Status> {
        let host = self.host(request.into_inner().name).await?;
        let status = self.statuses(Some(host), true).await?.pop();
        Ok(Response::new(pb::GetHostResponse { status }))
    }
}

impl Api {
    /// Runs a query on a thread of its own. The place comes back with what it gave, or is given back when it has ended.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        place: Place,
        run: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<(T, Place), Status> {
        let samples = self.samples.clone();
        let running = blocking(move || Ok((run(&samples)?, place)));
        let late =
            |_| Status::deadline_exceeded("the query takes too long: narrow its selectors or its range");
        tokio::time::timeout(PATIENCE, running).await.map_err(late)??
    }

    /// Answers a subscribed query now and again at each step, until somebody ends it.
    async fn repeat(
        &self,
        who: &Who,
        expr: Expr,
        step: Duration,
        answers: &mpsc::Sender<Result<pb::InstantResponse, Status>>,
    ) -> Result<(), Status> {
        let mut ticks = tokio::time::interval(step);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut registry = self.ledger.registry_changes();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Status::unavailable("the collector is stopping")),
                () = answers.closed() => return Ok(()),
                changed = registry.changed() => {
                    changed.map_err(|_| Status::unavailable("the collector is stopping"))?;
                    self.still_admitted(who)?;
                    continue;
                }
                _ = ticks.tick() => self.still_admitted(who)?,
            }
            if answers.capacity() == 0 {
                continue;
            }
            let place = self.calls.queries.turn().await?;
            let (expr, at) = (expr.clone(), now());
            let (answer, _) = self.query(place, move |store| evaluate::instant(store, &expr, at)).await?;
            // A slow subscriber misses steps; that it left is seen at the next one.
            answers.try_send(Ok(answer)).ok();
        }
    }
}

fn parse(text: &str) -> Result<Expr, Status> {
    check_length(text)?;
    Expr::parse(text).map_err(refusal::invalid)
}

fn check_length(text: &str) -> Result<(), Status> {
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("the query has {} bytes, at most {TEXT_BYTES_MAX} are taken", text.len());
        return Err(Status::invalid_argument(why));
    }
    Ok(())
}

fn time_or_now(millis: i64) -> Timestamp {
    if millis == 0 { now() } else { Timestamp::from_millis(millis) }
}

#[cfg(test)]
mod tests;
