//! ⇄ Follows the collector: figures by subscription, lists anew whenever the feed says that something happened.
//!
//! Promise: after a lost connection it comes back by itself, with a back-off, and gives everything anew. What another try
//! does not change (a credential that is not taken, a collector that knows no such call) ends it.

use std::time::Duration;

use tocsin_proto::pb;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use super::metric::Metric;
use super::model::{Change, Message};
use crate::client::{Client, answer};
use crate::command::now;
use crate::credential::Connection;
use crate::failure::Failure;

/// How often figures are evaluated at most.
const STEP_MS: i64 = 5_000;
/// Between two looks at the lists: an alert storm makes one of them.
const LISTS_GAP: Duration = Duration::from_secs(2);
/// The lists are read as often also when nothing happens: last values of alerts and runs of jobs move.
const LISTS_REST: Duration = Duration::from_secs(30);
/// Alerts and incidents that are looked at; counts are exact beyond them.
const LIST_MAX: u32 = 1_000;
/// How long the cursor rests on a host before its last hour is asked for, and how often it is asked again.
const FOCUS_REST: Duration = Duration::from_millis(200);
const PAST_GAP: Duration = Duration::from_secs(30);
/// The last hour, a point a minute.
const PAST: Duration = Duration::from_secs(3_600);
const PAST_STEP_MS: i64 = 60_000;
/// Between attempts to connect: doubled each time, up to the second.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Heartbeats come every 10 s; without three of them nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(35);

type Out = mpsc::Sender<Message>;

/// Follows until nobody listens, or until it is of no use.
pub(super) async fn follow(
    connection: Connection,
    out: Out,
    focus: watch::Receiver<Option<String>>,
) -> Result<(), Failure> {
    let mut wait = RETRY_MIN;
    // The first connection must succeed: a typing error is not worth waiting for.
    let mut client = Some(Client::connect(&connection).await?);
    loop {
        let failure = match client.take() {
            Some(client) => {
                wait = RETRY_MIN;
                session(client, &out, &focus).await
            }
            None => match Client::connect(&connection).await {
                Ok(connected) => {
                    client = Some(connected);
                    continue;
                }
                Err(failure) => failure,
            },
        };
        if out.is_closed() {
            return Ok(());
        }
        if !is_passing(&failure) {
            return Err(failure);
        }
        out.send(Message::Lost(failure.to_string())).await.ok(); // A closed channel is seen above.
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

fn is_passing(failure: &Failure) -> bool {
    use tonic::Code;
    match failure {
        Failure::Connect(_) | Failure::Late { .. } => true,
        Failure::Refused(status) => !matches!(
            status.code(),
            Code::Unauthenticated
                | Code::PermissionDenied
                | Code::Unimplemented
                | Code::InvalidArgument
                | Code::FailedPrecondition
        ),
        _ => false,
    }
}

/// One connection: the first of its parts that ends, ends it.
async fn session(client: Client, out: &Out, focus: &watch::Receiver<Option<String>>) -> Failure {
    if out.send(Message::Connected(client.endpoint.to_string())).await.is_err() {
        return Failure::Incomplete { what: "reader" };
    }
    let mut parts = JoinSet::new();
    for metric in Metric::ALL {
        parts.spawn(figures(client.clone(), metric, out.clone()));
    }
    parts.spawn(lists(client.clone(), out.clone()));
    parts.spawn(past(client, focus.clone(), out.clone()));
    match parts.join_next().await {
        Some(Ok(Err(failure))) => failure,
        // Parts end with a failure only, unless nobody listens any more.
        _ => Failure::Incomplete { what: "end" },
    }
}

/// Why a part of a session ends.
type Ended = Result<std::convert::Infallible, Failure>;

async fn tell(out: &Out, message: Message) -> Result<(), Failure> {
    out.send(message).await.map_err(|_| Failure::Incomplete { what: "reader" })
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Failure> {
    let ended = || Failure::from(tonic::Status::unavailable("the collector ended a stream"));
    let late = |_| Failure::Late { seconds: SILENCE_MAX.as_secs() };
    timeout(SILENCE_MAX, stream.message()).await.map_err(late)??.ok_or_else(ended)
}

async fn figures(client: Client, metric: Metric, out: Out) -> Ended {
    let request = pb::SubscribeQueryRequest { query: metric.expression(None), step_ms: STEP_MS };
    let mut updates = answer(client.query().subscribe(request)).await?;
    let mut change = Change::default();
    loop {
        let more = gather(&mut change, next(&mut updates).await?);
        if !more && change != Change::default() {
            tell(&out, Message::Figures(metric, std::mem::take(&mut change))).await?;
        }
    }
}

/// Puts a part of a change to the others; whether more of them come.
pub(super) fn gather(change: &mut Change, update: pb::SubscribeQueryResponse) -> bool {
    let instance = |labels: &[pb::Label]| {
        labels.iter().find(|label| label.name == "instance").map(|label| label.value.clone())
    };
    change.whole |= update.update() == pb::QueryUpdate::Whole;
    let changed = update
        .series
        .iter()
        .filter_map(|series| Some((instance(&series.labels)?, series.points.last()?.value)));
    change.changed.extend(changed);
    change.gone.extend(update.gone.iter().filter_map(|series| instance(&series.labels)));
    update.more
}

/// Reads the lists, and again when the feed says that something happened.
async fn lists(client: Client, out: Out) -> Ended {
    let request = pb::SubscribeRequest {
        from: Some(pb::subscribe_request::From::Now(true)),
        kinds: ["alert.", "incident.", "host.", "job."].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let mut events = answer(client.feed().subscribe(request)).await?;
    loop {
        read_lists(&client, &out).await?;
        sleep(LISTS_GAP).await;
        // What came meanwhile waits in the stream; one look answers all of it.
        let rest = async {
            loop {
                let item = next(&mut events).await?;
                if matches!(item.kind, Some(pb::subscribe_response::Kind::Event(_))) {
                    return Ok::<(), Failure>(());
                }
            }
        };
        if let Ok(happened) = timeout(LISTS_REST, rest).await {
            happened?;
            while let Ok(Ok(Some(_))) = timeout(Duration::ZERO, events.message()).await {}
        }
    }
}

async fn read_lists(client: &Client, out: &Out) -> Result<(), Failure> {
    let hosts = client.hosts(pb::ListHostsRequest::default()).await?;
    tell(out, Message::Hosts(hosts)).await?;
    let alerts = pb::ListAlertsRequest { limit: LIST_MAX, ..Default::default() };
    tell(out, Message::Alerts(answer(client.alerts().list_alerts(alerts)).await?.alerts)).await?;
    let incidents = pb::ListIncidentsRequest { limit: LIST_MAX, ..Default::default() };
    let incidents = answer(client.incidents().list_incidents(incidents)).await?.incidents;
    tell(out, Message::Incidents(incidents)).await?;
    tell(out, Message::Jobs(answer(client.jobs().list_jobs(pb::ListJobsRequest {})).await?.jobs)).await
}

/// The last hour of the host whose details are shown.
async fn past(client: Client, mut focus: watch::Receiver<Option<String>>, out: Out) -> Ended {
    focus.mark_changed();
    loop {
        let changed = timeout(PAST_GAP, focus.changed()).await;
        if let Ok(Err(_)) = changed {
            return Err(Failure::Incomplete { what: "reader" });
        }
        sleep(FOCUS_REST).await; // Who goes through the list asks for the host where the cursor stays.
        let Some(instance) = focus.borrow_and_update().clone() else { continue };
        for metric in Metric::DRAWN {
            let end = now();
            let request = pb::RangeRequest {
                query: metric.expression(Some(&instance)),
                start_ms: end.minus(PAST).as_millis(),
                end_ms: end.as_millis(),
                step_ms: PAST_STEP_MS,
            };
            let series = client.range(request).await?.series;
            let points = series.into_iter().next().map(|series| series.points).unwrap_or_default();
            let values = points.into_iter().map(|point| point.value).collect();
            tell(&out, Message::Past(instance.clone(), metric, values)).await?;
            if focus.has_changed().unwrap_or(true) {
                break;
            }
        }
    }
}
