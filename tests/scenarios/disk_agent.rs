//! The agent's disk is full, read-only, gone or failing: the host stays seen, the agent stays, nothing is restarted.

use std::time::Duration;

use anyhow::Context as _;
use tocsin_proto::pb;
use tocsin_tests::injected::Injected;
use tocsin_tests::site::{Host, SOON, Site};
use tocsin_tests::small_disk::SmallDisk;
use tocsin_tests::wait::wait_until;

use crate::RULES;

/// The disk is tried every ten seconds, and memory has to be sent before it is used again.
const HEALED: Duration = Duration::from_secs(45);
/// Rows that show that they go on.
const MORE: usize = 4;

async fn rows(site: &Site) -> usize {
    site.api.stored("scenario_breach[15m]").await.map_or(0, |points| points.len())
}

async fn more_rows(site: &Site, what: &str) -> anyhow::Result<()> {
    let over = rows(site).await + MORE;
    wait_until(what, SOON, async || (rows(site).await >= over).then_some(())).await
}

/// The newest value of one of the agent's own metrics.
async fn own(site: &Site, metric: &str) -> Option<f64> {
    Some(site.api.stored(&format!("{metric}[1m]")).await.ok()?.last()?.value)
}

async fn says(site: &Site, metric: &str, value: f64, within: Duration) -> anyhow::Result<()> {
    let what = format!("{metric} {value}");
    wait_until(&what, within, async || (own(site, metric).await == Some(value)).then_some(())).await
}

/// The lines of `tocsin status` about a host's spool.
async fn troubles(site: &Site) -> anyhow::Result<Vec<String>> {
    let status = site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner();
    Ok(status.problems)
}

/// A site with a host whose spool is on a disk of its own.
async fn site(mib: u64, options: &[&str]) -> anyhow::Result<Option<(Site, Host, SmallDisk)>> {
    let site = Site::start(RULES).await?;
    let host = site.host("db-1", pb::Env::Prod).await?;
    let Some(disk) = SmallDisk::mount(&host.data_dir().join("spool"), mib, options)? else { return Ok(None) };
    host.set("scenario_breach", 0.0)?;
    Ok(Some((site, host, disk)))
}

// Cases: S10, S11
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_disk_is_full_is_seen_and_its_outcomes_are_kept() -> anyhow::Result<()> {
    let Some((mut site, mut host, disk)) = site(16, &[]).await? else { return Ok(()) };
    host.start_agent()?;
    more_rows(&site, "rows").await?;
    disk.fill(0)?;
    says(&site, "tocsin_agent_spool_volatile", 1.0, SOON).await?;
    more_rows(&site, "rows of a host with a full disk").await?;
    assert!(troubles(&site).await?.iter().any(|line| line.starts_with("db-1: its disk is full")));
    site.stop_collector().await?;
    for n in 0..20 {
        assert_eq!(host.job(&format!("job-{n}"), &["true"])?.status.code(), Some(0));
    }
    host.kill_agent()?;
    host.start_agent()?;
    site.start_collector().await?;
    let runs = async || {
        let request = pb::ListRunsRequest { limit: 100, ..Default::default() };
        Some(site.api.jobs().list_runs(request).await.ok()?.into_inner().runs.len())
    };
    wait_until("all outcomes", HEALED, async || (runs().await? == 20).then_some(())).await?;
    more_rows(&site, "rows after a kill -9 on a full disk").await?;
    disk.clean_up()?;
    says(&site, "tocsin_agent_spool_volatile", 0.0, HEALED).await?;
    more_rows(&site, "rows from the disk").await?;
    host.stop_agent().await?;
    Ok(())
}

// Cases: S12
#[tokio::test(flavor = "multi_thread")]
async fn without_inodes_rows_go_on() -> anyhow::Result<()> {
    let Some((site, mut host, disk)) = site(16, &["-N", "24"]).await? else { return Ok(()) };
    host.start_agent()?;
    more_rows(&site, "rows").await?;
    host.kill_agent()?;
    let mut files = 0;
    while std::fs::write(disk.path().join(format!("other-{files}")), "").is_ok() {
        files += 1;
    }
    host.start_agent()?;
    more_rows(&site, "rows of a host without inodes").await?;
    assert_eq!(host.job("job", &["true"])?.status.code(), Some(0));
    let runs = async || {
        let request = pb::ListRunsRequest { limit: 100, ..Default::default() };
        Some(site.api.jobs().list_runs(request).await.ok()?.into_inner().runs.len())
    };
    wait_until("the outcome", SOON, async || (runs().await? == 1).then_some(())).await?;
    host.stop_agent().await?;
    Ok(())
}

// Cases: S14
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_read_only_or_gone_is_memory_until_it_is_back() -> anyhow::Result<()> {
    let Some((site, mut host, disk)) = site(16, &[]).await? else { return Ok(()) };
    host.start_agent()?;
    more_rows(&site, "rows").await?;
    disk.abort()?;
    says(&site, "tocsin_agent_spool_degraded", 1.0, SOON).await?;
    more_rows(&site, "rows of a host with a read-only disk").await?;
    assert!(troubles(&site).await?.iter().any(|line| line.starts_with("db-1: its spool's disk fails")));
    assert_eq!(host.job("job", &["false"])?.status.code(), Some(1));
    let open = async || site.api.open_incidents().await.ok().filter(|open| !open.is_empty());
    wait_until("the incident of the job", SOON, open).await?;
    disk.mount_again()?;
    says(&site, "tocsin_agent_spool_degraded", 0.0, HEALED).await?;
    more_rows(&site, "rows from the disk").await?;
    host.stop_agent().await?;
    Ok(())
}

// Cases: S14
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_spool_is_made_again() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    more_rows(&site, "rows").await?;
    let spool = host.data_dir().join("spool");
    std::fs::remove_dir_all(&spool)?;
    more_rows(&site, "rows of a host without its spool").await?;
    wait_until("a spool", HEALED, async || spool.join("epoch").exists().then_some(())).await?;
    says(&site, "tocsin_agent_spool_degraded", 0.0, HEALED).await?;
    more_rows(&site, "rows from the new spool").await?;
    host.stop_agent().await?;
    Ok(())
}

// Cases: S13, S25
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_whose_fsync_fails_is_memory_until_it_does_not() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let mut host = site.host("db-1", pb::Env::Prod).await?;
    host.set("scenario_breach", 0.0)?;
    host.start_agent()?;
    more_rows(&site, "rows").await?;
    let pid = host.pid().context("the agent runs")?;
    let Some(once) = Injected::into(pid, "fdatasync", "error=EIO:when=1").await? else { return Ok(()) };
    more_rows(&site, "rows after one failed fsync").await?;
    drop(once);
    assert_eq!(own(&site, "tocsin_agent_spool_degraded").await, Some(0.0), "another file took them");
    let Some(fails) = Injected::into(pid, "fdatasync,fsync,pwrite64", "error=EIO").await? else {
        return Ok(());
    };
    says(&site, "tocsin_agent_spool_degraded", 1.0, SOON).await?;
    more_rows(&site, "rows of a host with a broken disk").await?;
    drop(fails);
    says(&site, "tocsin_agent_spool_degraded", 0.0, HEALED).await?;
    more_rows(&site, "rows from the disk").await?;
    assert_eq!(host.pid(), Some(pid), "it is the same process");
    assert!(host.log()?.lines().count() < 60, "{}", host.log()?);
    host.stop_agent().await?;
    Ok(())
}
