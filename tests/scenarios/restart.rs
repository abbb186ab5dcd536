//! kill -9 at both ends: nothing that was acknowledged is lost, nothing is said twice, a restart is invisible.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::site::{Host, SOON, Site};
use tocsin_tests::wait::wait_until;

use crate::RULES;

const TICK_MS: i64 = 1_000;
const SELECTOR: &str = "scenario_breach[15m]";

/// The stored points, time to value.
async fn stored(site: &Site) -> anyhow::Result<BTreeMap<i64, f64>> {
    Ok(site.api.stored(SELECTOR).await?.into_iter().map(|point| (point.at_ms, point.value)).collect())
}

/// Waits until this many points later than `after` are stored.
async fn rows_after(site: &Site, after: i64, count: usize) -> anyhow::Result<BTreeMap<i64, f64>> {
    wait_until(&format!("{count} rows after {after}"), SOON, async || {
        let points = stored(site).await.ok()?;
        (points.range(after + 1..).count() >= count).then_some(points)
    })
    .await
}

/// The moments in which a tick is missing.
fn gaps(points: &BTreeMap<i64, f64>) -> Vec<(i64, i64)> {
    let times: Vec<i64> = points.keys().copied().collect();
    times.windows(2).filter(|pair| pair[1] - pair[0] != TICK_MS).map(|pair| (pair[0], pair[1])).collect()
}

/// When anything below a directory was written last.
fn written(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    let times = entries.filter_map(|entry| match entry.metadata().ok()? {
        kind if kind.is_dir() => written(&entry.path()),
        kind => kind.modified().ok(),
    });
    times.max()
}

/// Waits until the agent has written to its spool this often: it goes on without a collector.
async fn spooled(host: &Host, times: usize) -> anyhow::Result<()> {
    let (mut seen, mut last) = (0, None);
    wait_until("rows in the spool", SOON, async || {
        let now = written(&host.data_dir());
        seen += usize::from(now != std::mem::replace(&mut last, now));
        (seen > times).then_some(())
    })
    .await
}

fn last(points: &BTreeMap<i64, f64>) -> i64 {
    points.keys().next_back().copied().unwrap_or(0)
}

// Cases: C1, C-A3, C-S1
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_both_ends_nothing_is_lost_and_nothing_is_said_twice() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 1.0)?;
    host.start_agent()?;
    let number = feed.wait_for("incident.triggered", SOON, |_| true).await?.incident().unwrap().number;
    let before = rows_after(&site, 0, 3).await?;

    site.kill_collector()?;
    spooled(&host, 3).await?;
    site.start_collector().await?;
    let over = rows_after(&site, last(&before), 6).await?;
    assert_eq!(gaps(&over), [], "the agent kept its rows while the collector was dead");
    same(&before, &over);

    site.kill_collector()?;
    host.kill_agent()?;
    site.start_collector().await?;
    let held = stored(&site).await?;
    same(&over, &held);
    host.start_agent()?;
    let after = rows_after(&site, last(&held), 3).await?;
    same(&held, &after);
    assert!(gaps(&after).len() <= 1, "only the agent's own absence is missing: {:?}", gaps(&after));

    let open = site.api.open_incidents().await?;
    assert_eq!(open.iter().map(|incident| incident.number).collect::<Vec<_>>(), [number]);
    host.set("scenario_breach", 0.0)?;
    feed.wait_for("alert.resolved", SOON, |_| true).await?;
    for (kind, times) in
        [("alert.triggered", 1), ("incident.triggered", 1), ("alert.resolved", 1), ("incident.reopened", 0)]
    {
        assert_eq!(feed.of_kind(kind).len(), times, "{kind}");
    }
    let seqs: Vec<u64> = feed.received().iter().map(|received| received.event.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "a cursor goes on where it was: {seqs:?}");
    Ok(())
}

/// What was stored once is stored still.
fn same(before: &BTreeMap<i64, f64>, after: &BTreeMap<i64, f64>) {
    let lost: Vec<_> = before.iter().filter(|(at, value)| after.get(at) != Some(value)).collect();
    assert!(lost.is_empty(), "acknowledged rows were lost or changed: {lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_ends_quickly_and_starts_where_it_was() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let mut host = site.host("db-1", pb::Env::Test).await?;
    host.set("scenario_breach", 1.0)?;
    host.start_agent()?;
    let before = rows_after(&site, 0, 2).await?;
    host.stop_agent().await?;
    site.stop_collector().await?;
    site.start_collector().await?;
    same(&before, &stored(&site).await?);
    assert_eq!(site.api.open_incidents().await?.len(), 1);
    Ok(())
}

#[test]
fn a_missing_tick_is_a_gap() {
    let points = |times: &[i64]| times.iter().map(|at| (*at, 0.0)).collect::<BTreeMap<_, _>>();
    assert_eq!(gaps(&points(&[0, 1_000, 2_000])), []);
    assert_eq!(gaps(&points(&[0, 1_000, 3_000])), [(1_000, 3_000)]);
    assert!(Duration::from_millis(TICK_MS as u64) < SOON);
}

// Cases: N1, R5
#[tokio::test(flavor = "multi_thread")]
async fn what_began_and_ended_while_nobody_was_there_is_recorded_and_pages_nobody() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    let before = rows_after(&site, 0, 3).await?;

    site.kill_collector()?;
    host.set("scenario_breach", 1.0)?;
    spooled(&host, 4).await?;
    host.set("scenario_breach", 0.0)?;
    spooled(&host, 4).await?;
    site.start_collector().await?;

    let late = feed.wait_for("alert.late", SOON, |_| true).await?;
    let alert = late.alert().expect("an alert's event has an alert");
    assert!(alert.late && alert.resolved_at_ms > alert.active_since_ms && alert.incident == 0, "{alert:?}");
    let over = rows_after(&site, last(&before), 8).await?;
    assert_eq!(gaps(&over), [], "no row is missing");
    assert!(feed.of_kind("alert.triggered").is_empty() && feed.of_kind("incident.triggered").is_empty());
    Ok(())
}
