//! Between a host and its collector is a network: what it does to bytes loses no row, doubles none, and says of a host
//! only what is so.
//!
//! The programs are the real ones, a proxy between them does the harm (`tocsin_tests::chaos`). Faults that take half a
//! minute to be noticed are made to many hosts at once, because the half minute is the product's and not the test's.

mod balancer;
mod damage;
mod elsewhere;
mod half_minute;
mod herd;
mod outage;
mod packets;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tocsin_proto::pb;
use tocsin_tests::chaos::Chaos;
use tocsin_tests::feed::{Feed, Received};
use tocsin_tests::site::{Host, SOON, Site};
use tocsin_tests::wait::wait_until;

/// Between two rows of a host.
const TICK_MS: i64 = 1_000;
/// For an agent that has failed a few times to come back, and to bring what it kept.
const BACK: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An enrolled host whose agent, once it is started, connects through a proxy.
async fn behind(site: &Site, name: &str) -> anyhow::Result<(Host, Chaos)> {
    let chaos = Chaos::to(&site.addresses().agents)?;
    let host = site.host(name, pb::Env::Prod).await?;
    host.connects_to(&chaos.address())?;
    host.set("scenario_breach", 0.0)?;
    Ok((host, chaos))
}

/// What is stored of a host, time to value.
async fn stored(site: &Site, host: &str) -> anyhow::Result<BTreeMap<i64, f64>> {
    let selector = format!("scenario_breach{{instance={host:?}}}[15m]");
    Ok(site.api.stored(&selector).await?.into_iter().map(|point| (point.at_ms, point.value)).collect())
}

/// Waits until so many rows later than `after` are stored.
async fn rows_after(site: &Site, host: &str, after: i64, count: usize) -> anyhow::Result<i64> {
    wait_until(&format!("{count} rows of {host}"), SOON.max(BACK), async || {
        let points = stored(site, host).await.ok()?;
        let last = points.keys().next_back().copied()?;
        (points.range(after + 1..).count() >= count).then_some(last)
    })
    .await
}

/// The moments between which a tick is missing.
fn gaps(points: &BTreeMap<i64, f64>) -> Vec<(i64, i64)> {
    let times: Vec<i64> = points.keys().copied().collect();
    times.windows(2).filter(|pair| pair[1] - pair[0] != TICK_MS).map(|pair| (pair[0], pair[1])).collect()
}

/// Waits until everything that a host measured is stored: a row later than now, and none missing before it.
async fn whole(site: &Site, host: &str) -> anyhow::Result<()> {
    let (since, mut missing) = (now_ms(), Vec::new());
    let what = format!("all rows of {host}");
    let complete = wait_until(&what, BACK, async || {
        let points = stored(site, host).await.ok()?;
        missing = gaps(&points);
        (points.keys().next_back().is_some_and(|last| *last > since) && missing.is_empty()).then_some(())
    });
    complete.await.with_context(|| format!("missing between {missing:?}"))
}

fn label<'a>(labels: &'a [pb::Label], name: &str) -> Option<&'a str> {
    labels.iter().find(|label| label.name == name).map(|label| label.value.as_str())
}

/// Whether an event is about an alert of this name on this host.
fn alert<'a>(name: &'a str, host: &'a str) -> impl Fn(&Received) -> bool + 'a {
    move |received| {
        received.alert().is_some_and(|alert| {
            label(&alert.labels, "alertname") == Some(name) && label(&alert.labels, "instance") == Some(host)
        })
    }
}

/// How often an alert was triggered and resolved.
fn times(feed: &Feed, name: &str, host: &str) -> (usize, usize) {
    let count = |kind| feed.of_kind(kind).iter().filter(|event| alert(name, host)(event)).count();
    (count("alert.triggered"), count("alert.resolved"))
}

const UNREACHABLE: &str = "AgentUnreachable";
