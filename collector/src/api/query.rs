//! Queries: PromQL over all samples, the names of series, and the inventory of hosts.
//!
//! Each query runs on a thread of its own; how many run at a time, how long one may take, how much it reads and how
//! much it answers are bounded. A query whose caller has stopped waiting ends at its next look, and keeps its place
//! until then.

mod delta;
mod evaluate;
mod messages;
mod names;
pub(super) mod page;
pub(super) mod patience;
mod reason;
mod subscription;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use prost::Message as _;
use tocsin_promql::{Expr, Selector};
use tocsin_proto::convert::labels_in;
use tocsin_proto::pb;
use tocsin_proto::pb::query_service_server::QueryService;
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::places::{self, Place};
use super::{Api, Who, blocking, hosts};
use crate::clock::now;
use crate::metadata::Description;
use crate::samples::Store;
use crate::web::metadata::describe;
use evaluate::Steps;
use messages::names_out;
use names::Of;
use page::Page;
use patience::{Ended, PATIENCE, Waiting};
use reason::{BAD_PAGE, BAD_QUERY, BAD_REQUEST, TOO_LATE, TOO_MANY_QUERIES};
use subscription::Subscription;

/// The longest query text.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Messages that wait for a slow subscriber; it then misses steps.
const SUBSCRIPTION_QUEUE: usize = 2;
/// The steps of a subscription: it is no way to keep a core busy, and no timer for tomorrow.
const SUBSCRIPTION_STEPS: std::ops::RangeInclusive<i64> = 1_000..=3_600_000;
/// Series of one subscribed result: one for each host of the largest fleet, and ten times that.
const SUBSCRIPTION_SERIES_MAX: usize = 20_000;
/// Series, names or values in a page unless the caller says.
const PAGE: usize = 10_000;
/// Hosts in a page unless the caller says.
const HOSTS_PAGE: usize = 5_000;
/// Selectors in a request for names: each is tried on every series.
const SELECTORS_MAX: usize = 64;

#[tonic::async_trait]
impl QueryService for Api {
    type RangeStream = Pin<Box<dyn Stream<Item = Result<pb::RangeResponse, Status>> + Send>>;
    type SubscribeStream = ReceiverStream<Result<pb::SubscribeQueryResponse, Status>>;

    async fn instant(
        &self,
        request: Request<pb::InstantRequest>,
    ) -> Result<Response<pb::InstantResponse>, Status> {
        let (place, patience) = self.admit(&request)?;
        let pb::InstantRequest { query, at_ms } = request.into_inner();
        let (expr, at) = (parse(&query)?, time_or_now(at_ms));
        let run = move |store: &Store, ended: &Ended| evaluate::instant(store, &expr, at, ended);
        let (answer, place) = self.query_within(patience, place, run).await?;
        Ok(places::answer(answer, place))
    }

    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<Self::RangeStream>, Status> {
        let (place, patience) = self.admit(&request)?;
        let pb::RangeRequest { query, start_ms, end_ms, step_ms } = request.into_inner();
        let expr = parse(&query)?;
        let step = u64::try_from(step_ms).unwrap_or(0);
        let steps = Steps {
            start: Timestamp::from_millis(start_ms),
            end: Timestamp::from_millis(end_ms),
            step: Duration::from_millis(step),
        };
        let run = move |store: &Store, ended: &Ended| evaluate::range(store, &expr, steps, ended);
        let (messages, place) = self.query_within(patience, place, run).await?;
        Ok(places::answer(Box::pin(tokio_stream::iter(messages)), place))
    }

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeQueryRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let who = Who::of(&request)?;
        let pb::SubscribeQueryRequest { query, step_ms } = request.into_inner();
        if !SUBSCRIPTION_STEPS.contains(&step_ms) {
            let why = format!("the step of a subscription is 1,000 to 3,600,000 ms, not {step_ms}");
            return Err(reason::invalid(BAD_REQUEST, why));
        }
        let expr = parse(&query)?;
        let place = self.calls.subscriptions.take(&who.name);
        let place = place.map_err(|full| reason::because(TOO_MANY_QUERIES, full))?;
        let (answers, stream) = mpsc::channel(SUBSCRIPTION_QUEUE);
        let step = Duration::from_millis(step_ms.unsigned_abs());
        let subscription = Subscription::new(self, who, expr, step, answers);
        tokio::spawn(async move {
            subscription.run().await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn series(
        &self,
        request: Request<pb::SeriesRequest>,
    ) -> Result<Response<pb::SeriesResponse>, Status> {
        let (place, patience) = self.admit(&request)?;
        let mut asked = request.into_inner();
        let (size, token) = (take(&mut asked.page_size), take(&mut asked.page_token));
        let page = Page::read(&asked, (size, PAGE), &token)?;
        let pb::SeriesRequest { selector, start_ms, end_ms, mut selectors, .. } = asked;
        selectors.insert(0, selector);
        selectors.retain(|text| !text.is_empty());
        if selectors.is_empty() {
            return Err(reason::invalid(
                BAD_REQUEST,
                "say which series: a selector such as up{job=\"node\"}",
            ));
        }
        let span = (Timestamp::from_millis(start_ms.saturating_sub(1)), time_or_now(end_ms));
        let of = Of { selectors: read_selectors(&selectors)?, span };
        let after = page.after.as_deref().map(series_key).transpose()?;
        let find = move |store: &Store, ended: &Ended| Ok(names::series(store, &of, after.as_ref(), ended));
        let (found, place) = self.query_within(patience, place, find).await?;
        let found = found.iter().map(names_out);
        let (series, next_page_token) =
            page.of(found, |one| one.encoded_len() + 4, |one| one.encode_to_vec());
        Ok(places::answer(pb::SeriesResponse { series, next_page_token }, place))
    }

    async fn labels(
        &self,
        request: Request<pb::LabelsRequest>,
    ) -> Result<Response<pb::LabelsResponse>, Status> {
        let (place, patience) = self.admit(&request)?;
        let mut asked = request.into_inner();
        let (size, token) = (take(&mut asked.page_size), take(&mut asked.page_token));
        let page = Page::read(&asked, (size, PAGE), &token)?;
        let after = page.after.as_deref().map(text_key).transpose()?;
        let pb::LabelsRequest { selectors, start_ms, end_ms, .. } = asked;
        let of = Of::names(read_selectors(&selectors)?, start_ms, end_ms);
        let find = move |store: &Store, ended: &Ended| Ok(names::names(store, &of, after.as_deref(), ended));
        let (found, place) = self.query_within(patience, place, find).await?;
        let (names, next_page_token) = page.of(found, |name| name.len() + 4, |name| name.as_bytes().to_vec());
        Ok(places::answer(pb::LabelsResponse { names, next_page_token }, place))
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelValuesRequest>,
    ) -> Result<Response<pb::LabelValuesResponse>, Status> {
        let (place, patience) = self.admit(&request)?;
        let mut asked = request.into_inner();
        let (size, token) = (take(&mut asked.page_size), take(&mut asked.page_token));
        let page = Page::read(&asked, (size, PAGE), &token)?;
        let after = page.after.as_deref().map(text_key).transpose()?;
        let pb::LabelValuesRequest { name, selectors, start_ms, end_ms, .. } = asked;
        if name.is_empty() {
            return Err(reason::invalid(BAD_REQUEST, "say which label's values"));
        }
        let of = Of::names(read_selectors(&selectors)?, start_ms, end_ms);
        let find =
            move |store: &Store, ended: &Ended| Ok(names::values(store, &of, &name, after.as_deref(), ended));
        let (found, place) = self.query_within(patience, place, find).await?;
        let (values, next_page_token) =
            page.of(found, |value| value.len() + 4, |value| value.as_bytes().to_vec());
        Ok(places::answer(pb::LabelValuesResponse { values, next_page_token }, place))
    }

    async fn metadata(
        &self,
        request: Request<pb::MetadataRequest>,
    ) -> Result<Response<pb::MetadataResponse>, Status> {
        let (place, patience) = self.admit(&request)?;
        let mut asked = request.into_inner();
        let (size, token) = (take(&mut asked.page_size), take(&mut asked.page_token));
        let page = Page::read(&asked, (size, PAGE), &token)?;
        let after = page.after.as_deref().map(text_key).transpose()?;
        let (known, only) = (self.metadata.clone(), Some(asked.metric).filter(|metric| !metric.is_empty()));
        let find = move |store: &Store, ended: &Ended| {
            let mut found: BTreeSet<String> = only.iter().cloned().collect();
            if only.is_none() {
                found.extend(names::values(store, &Of::sent(), METRIC_NAME, after.as_deref(), ended));
                known.each(|metric, _| {
                    found.insert(metric.to_owned());
                    true
                });
            }
            found.retain(|metric| after.as_ref().is_none_or(|after| after < metric));
            let described = found.into_iter().filter_map(|metric| {
                let Description { kind, help, unit } = describe(&known, &metric)?;
                let r#type = kind.as_str().to_owned();
                Some(pb::MetricMetadata { metric, r#type, help: help.into(), unit: unit.into() })
            });
            Ok(described.collect::<Vec<_>>())
        };
        let (found, place) = self.query_within(patience, place, find).await?;
        let (metrics, next_page_token) =
            page.of(found, |one| one.encoded_len() + 4, |one| one.metric.as_bytes().to_vec());
        Ok(places::answer(pb::MetadataResponse { metrics, next_page_token }, place))
    }

    async fn list_hosts(
        &self,
        request: Request<pb::ListHostsRequest>,
    ) -> Result<Response<pb::ListHostsResponse>, Status> {
        let mut asked = request.into_inner();
        let (size, token) = (take(&mut asked.page_size), take(&mut asked.page_token));
        let page = Page::read(&asked, (size, HOSTS_PAGE), &token)?;
        let filter = hosts::Filter::read(asked).map_err(|why| reason::invalid(BAD_REQUEST, why))?;
        let mut hosts = self.statuses(None, filter).await?;
        if let Some(after) = &page.after {
            hosts.retain(|host| *after < hosts::key(host));
        }
        let (hosts, next_page_token) = page.of(hosts, |host| host.encoded_len() + 4, hosts::key);
        Ok(Response::new(pb::ListHostsResponse { hosts, next_page_token }))
    }

    async fn get_host(
        &self,
        request: Request<pb::GetHostRequest>,
    ) -> Result<Response<pb::GetHostResponse>, Status> {
        let host = self.host(request.into_inner().name).await?;
        let status = self.statuses(Some(host), hosts::Filter::default()).await?.pop();
        Ok(Response::new(pb::GetHostResponse { status }))
    }
}

impl Api {
    /// A place for a query of this caller's, and how long the caller waits for it.
    fn admit<T>(&self, request: &Request<T>) -> Result<(Place, Duration), Status> {
        let place = self.calls.queries.take(&Who::of(request)?.name);
        let place = place.map_err(|full| reason::because(TOO_MANY_QUERIES, full))?;
        Ok((place, patience::of(request)))
    }

    /// Runs a query on a thread of its own. The place comes back with what it gave, or is given back when it has ended.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        place: Place,
        run: impl FnOnce(&Store) -> Result<T, Status> + Send + 'static,
    ) -> Result<(T, Place), Status> {
        self.query_within(PATIENCE, place, move |store, _| run(store)).await
    }

    /// `query`, told when nobody waits for it any more: after `patience`, or because the caller has left.
    pub(super) async fn query_within<T: Send + 'static>(
        &self,
        patience: Duration,
        place: Place,
        run: impl FnOnce(&Store, &Ended) -> Result<T, Status> + Send + 'static,
    ) -> Result<(T, Place), Status> {
        let (samples, ended) = (self.samples.clone(), Ended::default());
        let waiting = Waiting(ended.clone());
        let running = blocking(move || Ok((run(&samples, &ended)?, place)));
        let done = tokio::time::timeout(patience, running).await;
        drop(waiting);
        let late = |_| {
            let why = format!(
                "the query takes longer than {} ms: narrow its selectors or its range",
                patience.as_millis()
            );
            reason::status(tonic::Code::DeadlineExceeded, TOO_LATE, why)
        };
        done.map_err(late)??
    }
}

fn parse(text: &str) -> Result<Expr, Status> {
    check_length(text)?;
    Expr::parse(text).map_err(|error| reason::invalid(BAD_QUERY, error))
}

fn read_selectors(texts: &[String]) -> Result<Vec<Selector>, Status> {
    if SELECTORS_MAX < texts.len() {
        let why = format!("{} selectors, at most {SELECTORS_MAX} are taken: join them by =~", texts.len());
        return Err(reason::invalid(BAD_REQUEST, why));
    }
    let read = |text: &String| {
        check_length(text)?;
        crate::ask::selector(text).map_err(|why| reason::invalid(BAD_QUERY, why))
    };
    texts.iter().map(read).collect()
}

fn check_length(text: &str) -> Result<(), Status> {
    if text.len() > TEXT_BYTES_MAX {
        let why = format!("the query has {} bytes, at most {TEXT_BYTES_MAX} are taken", text.len());
        return Err(reason::invalid(BAD_QUERY, why));
    }
    Ok(())
}

fn time_or_now(millis: i64) -> Timestamp {
    if millis == 0 { now() } else { Timestamp::from_millis(millis) }
}

/// Takes what says which page, so that the rest is the same for all pages of a list.
fn take<T: Default>(field: &mut T) -> T {
    std::mem::take(field)
}

fn series_key(key: &[u8]) -> Result<Labels, Status> {
    let series = pb::SeriesLabels::decode(key);
    series.map(|series| labels_in(series.labels)).map_err(|error| reason::invalid(BAD_PAGE, error))
}

fn text_key(key: &[u8]) -> Result<String, Status> {
    String::from_utf8(key.to_vec()).map_err(|error| reason::invalid(BAD_PAGE, error))
}

#[cfg(test)]
mod tests;
