//! The collector's disk is full: metrics give way, outcomes and incidents go on, and nothing has to be restarted.

use std::time::Duration;

use anyhow::Context as _;
use tocsin_proto::pb;
use tocsin_tests::feed::Feed;
use tocsin_tests::injected::Injected;
use tocsin_tests::site::{SOON, Site};
use tocsin_tests::small_disk::SmallDisk;
use tocsin_tests::wait::wait_until;

use crate::RULES;

const STORAGE: &str = "[storage]\nreserve_bytes = \"2MiB\"\nfree_floor_bytes = \"4MiB\"\n";
/// Rows are tried again after ten seconds; then the alert has to be gone for ten more.
const HEALED: Duration = Duration::from_secs(45);

async fn site(mib: u64, options: &[&str]) -> anyhow::Result<Option<(Site, SmallDisk)>> {
    let mut disk = None;
    let site = Site::start_prepared(RULES, STORAGE, |data| {
        disk = SmallDisk::mount(data, mib, options)?;
        Ok(())
    });
    let site = site.await?;
    Ok(disk.map(|disk| (site, disk)))
}

async fn rows(site: &Site) -> usize {
    site.api.stored("scenario_breach[15m]").await.map_or(0, |points| points.len())
}

async fn disk_status(site: &Site) -> anyhow::Result<(pb::DiskStatus, Vec<String>)> {
    let status = site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner();
    Ok((status.disk.unwrap_or_default(), status.problems))
}

// Cases: C7, S11
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_metrics_give_way_and_outcomes_and_incidents_go_on() -> anyhow::Result<()> {
    let Some((mut site, disk)) = site(32, &[]).await? else { return Ok(()) };
    let feed = Feed::follow(site.credential_file());
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    wait_until("rows", SOON, async || (rows(&site).await >= 2).then_some(())).await?;

    disk.fill(0)?;
    let pages = feed.wait_for("incident.triggered", SOON, |event| {
        event.incident().is_some_and(|incident| incident.title.starts_with("CollectorDiskFull"))
    });
    assert!(pages.await?.incident().is_some_and(|incident| incident.pages), "it pages");
    let (status, problems) = disk_status(&site).await?;
    assert!(status.refused_since_ms > 0 && !status.exhausted, "{status:?}");
    assert!(problems.iter().any(|line| line.contains("metrics are refused since")), "{problems:?}");
    let before = rows(&site).await;
    for n in 0..5 {
        assert_eq!(host.job(&format!("job-{n}"), &["false"])?.status.code(), Some(1));
        let job = format!("job-{n}");
        feed.wait_for("incident.triggered", SOON, |event| {
            event.incident().is_some_and(|incident| incident.labels.iter().any(|label| label.value == job))
        })
        .await?;
    }
    let open = site.api.open_incidents().await?;
    let request = pb::AcknowledgeRequest { number: open[0].number, ..Default::default() };
    site.api.incidents().acknowledge(request).await?;
    assert!(rows(&site).await <= before + 1, "rows are refused, not kept");

    site.kill_collector()?;
    site.start_collector().await?;
    assert!(disk_status(&site).await?.0.refused_since_ms > 0, "after kill -9 on the full disk, too");

    disk.clean_up()?;
    let over = before + 8;
    wait_until("the rows of the whole time", HEALED, async || (rows(&site).await >= over).then_some(()))
        .await?;
    feed.wait_for("alert.resolved", HEALED, |event| {
        event.alert().is_some_and(|alert| alert.source_id == "collector/disk")
    })
    .await?;
    let (status, _) = disk_status(&site).await?;
    assert_eq!((status.refused_since_ms, status.reserve_bytes), (0, status.reserve_wanted_bytes));
    // The store tries again by itself, now and then.
    let none = async || disk_status(&site).await.is_ok_and(|(_, problems)| problems.is_empty()).then_some(());
    wait_until("no problem left", HEALED, none).await?;
    let points = site.api.stored("scenario_breach[15m]").await?;
    let gaps = points.windows(2).filter(|pair| pair[1].at_ms - pair[0].at_ms != 1_000).count();
    assert_eq!(gaps, 0, "what was refused came again");
    site.stop_collector().await?;
    Ok(())
}

/// A site with a host whose rows come.
async fn with_rows() -> anyhow::Result<(Site, tocsin_tests::site::Host)> {
    let site = Site::start(RULES).await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    wait_until("rows", SOON, async || (rows(&site).await >= 2).then_some(())).await?;
    Ok((site, host))
}

// Cases: C8
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_is_the_end_and_a_start_goes_on() -> anyhow::Result<()> {
    let (mut site, host) = with_rows().await?;
    let before = site.api.stored("scenario_breach[15m]").await?;
    let pid = site.pid().context("the collector runs")?;
    let Some(fails) = Injected::into(pid, "fdatasync", "error=EIO").await? else { return Ok(()) };
    let status = site.collector_ends().await?;
    drop(fails);
    assert!(status.code().is_some_and(|code| code != 0 && code != 101), "{status}");
    assert!(site.log()?.contains("make durable"), "it says why: {}", site.log()?);
    site.start_collector().await?;
    let over = before.len() + 5;
    wait_until("rows again", SOON * 2, async || (rows(&site).await >= over).then_some(())).await?;
    let after = site.api.stored("scenario_breach[15m]").await?;
    assert_eq!(after[..before.len()], before[..], "what was acknowledged is there");
    let gaps = after.windows(2).filter(|pair| pair[1].at_ms - pair[0].at_ms != 1_000).count();
    assert_eq!(gaps, 0, "what was not came again");
    drop(host);
    Ok(())
}

// Cases: C13
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_makes_acknowledgements_slow_and_nothing_else() -> anyhow::Result<()> {
    let (site, host) = with_rows().await?;
    let pid = site.pid().context("the collector runs")?;
    let slow = "delay_exit=2000000"; // Two seconds each.
    let Some(slow) = Injected::into(pid, "fdatasync", slow).await? else { return Ok(()) };
    let over = rows(&site).await + 12;
    wait_until("rows over a slow disk", SOON * 2, async || (rows(&site).await >= over).then_some(())).await?;
    assert_eq!(host.job("job", &["false"])?.status.code(), Some(1));
    let open = async || site.api.open_incidents().await.ok().filter(|open| !open.is_empty());
    wait_until("the incident of the job", SOON * 2, open).await?;
    drop(slow);
    let connected = host.log()?.lines().filter(|line| line.contains("connected to the collector")).count();
    assert_eq!(connected, 1, "nobody lost patience: {}", host.log()?);
    // What did not go at once follows with the backlog.
    let whole = async || {
        let points = site.api.stored("scenario_breach[15m]").await.ok()?;
        points.windows(2).all(|pair| pair[1].at_ms - pair[0].at_ms == 1_000).then_some(())
    };
    wait_until("every row", SOON * 2, whole).await
}

// Cases: C10
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_collector_stays_and_comes_back() -> anyhow::Result<()> {
    let (site, host) = with_rows().await?;
    let pid = site.pid().context("the collector runs")?;
    // As low as what is open now: nothing more can be accepted or opened.
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let limit = |limit: usize| {
        let arguments = ["--pid".into(), pid.to_string(), format!("--nofile={limit}:4096")];
        std::process::Command::new("prlimit").args(arguments).status()
    };
    if !limit(open).is_ok_and(|status| status.success()) {
        println!("skipped: prlimit cannot be run");
        return Ok(());
    }
    let flood: Vec<_> =
        (0..200).filter_map(|_| std::net::TcpStream::connect(&site.addresses().agents).ok()).collect();
    let warned = async || site.log().ok().filter(|log| log.contains("cannot accept connections"));
    wait_until("a word about descriptors", SOON, warned).await?;
    let over = rows(&site).await + 4;
    wait_until("rows of who is connected", SOON, async || (rows(&site).await >= over).then_some(())).await?;
    drop(flood);
    limit(1_024)?;
    assert_eq!(host.job("job", &["false"])?.status.code(), Some(1));
    let newcomer = async || site.host("db-2", pb::Env::Prod).await.ok();
    wait_until("a newcomer", SOON, newcomer).await?;
    assert_eq!(site.pid(), Some(pid));
    Ok(())
}
