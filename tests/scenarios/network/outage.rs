//! The link is down and comes back; the collector stops and starts.

use std::sync::Arc;
use std::time::Instant;

use tocsin_tests::chaos::{How, Line, Way};
use tocsin_tests::swarm::{self, Options};

use super::*;
use crate::RULES;

/// What a clean stop may take, with what this machine may be late.
const STOPPED: Duration = Duration::from_secs(12);

// Cases: N1, N8, C-A8, C-D2, C-S4, R8
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_one_alert_and_nothing_is_lost_or_resolved_by_silence() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let feed = Feed::follow(site.credential_file());
    let (mut host, chaos) = behind(&site, "db-1").await?;
    host.set("scenario_breach", 1.0)?;
    host.start_agent()?;
    feed.wait_for("alert.triggered", SOON, alert("Breached", "db-1")).await?;
    rows_after(&site, "db-1", 0, 3).await?;

    chaos.refuse(true);
    chaos.end_all(How::Reset);
    feed.wait_for("alert.triggered", SOON, alert(UNREACHABLE, "db-1")).await?;
    assert_eq!(host.job("nightly", &["sh", "-c", "exit 3"])?.status.code(), Some(3));
    let tried = chaos.accepted();
    wait_until("an agent that tries again", BACK, async || (chaos.accepted() > tried).then_some(())).await?;
    // 64 kbit/s: the outcome has to come before all that was measured meanwhile.
    chaos.set(Way::Up, Line { rate: Some(8_000), ..Line::default() });
    chaos.refuse(false);
    let healed = now_ms();
    feed.wait_for("job.failed", BACK, |_| true).await?;
    let newest = stored(&site, "db-1").await?.keys().next_back().copied().unwrap_or(0);
    assert!(newest < healed, "rows of after the outage were there before the outcome");
    chaos.set(Way::Up, Line::default());
    whole(&site, "db-1").await?;
    feed.wait_for("alert.resolved", SOON, alert(UNREACHABLE, "db-1")).await?;

    assert_eq!(times(&feed, UNREACHABLE, "db-1"), (1, 1));
    assert_eq!(
        times(&feed, "Breached", "db-1"),
        (1, 0),
        "silence is no resolution, and its end no new breach"
    );
    assert_eq!((feed.of_kind("host.unreachable").len(), feed.of_kind("job.failed").len()), (1, 1));
    host.set("scenario_breach", 0.0)?;
    feed.wait_for("alert.resolved", SOON, alert("Breached", "db-1")).await?;
    assert_eq!(times(&feed, "Breached", "db-1"), (1, 1));
    Ok(())
}

// Cases: C14, N18
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_told_to_stop_under_load_says_goodbye_in_time() -> anyhow::Result<()> {
    let mut site = Site::start(RULES).await?;
    let (mut host, chaos) = behind(&site, "db-1").await?;
    let (mut mute, stranded) = behind(&site, "db-2").await?;
    host.start_agent()?;
    mute.start_agent()?;
    rows_after(&site, "db-1", 0, 2).await?;
    rows_after(&site, "db-2", 0, 2).await?;
    let load = Options {
        credential: site.credential_file(),
        hosts: 10,
        ticks: 50_000,
        interval: Duration::from_secs(1),
        realtime: false,
        backlog: 0,
        collector_pid: None,
        prefix: "load-".into(),
    };
    let load = tokio::spawn(swarm::run(Arc::new(crate::fleet::recording()?), load));
    let busy = wait_until("ten busy agents", BACK, async || {
        let rows =
            site.api.stored("count(last_over_time(node_load1{instance=~\"load-.*\"}[1d]))").await.ok()?;
        (rows.first()?.value >= 10.0).then_some(())
    });
    busy.await?;
    // One connection is dead, and nobody has noticed yet.
    stranded.strand(Way::Up);
    stranded.strand(Way::Down);
    let begun = Instant::now();
    site.stop_collector().await?;
    assert!(begun.elapsed() < STOPPED, "{:?}", begun.elapsed());
    assert!(load.await?.is_err(), "the swarm ends with its collector");
    let goodbye = wait_until("a goodbye", SOON, async || host.log().ok()?.contains("stopping").then_some(()));
    goodbye.await?;
    stranded.end_all(How::Reset);
    site.start_collector().await?;
    whole(&site, "db-1").await?;
    whole(&site, "db-2").await?;
    assert!(chaos.reached() <= 3, "{} connections", chaos.reached());
    Ok(())
}
