//! Measures how long a collector takes to be ready again after kill -9, with many series in memory and many alerts
//! firing; and after the loss of its store.
//!
//! Virtual hosts send a past of some minutes at once and go on in real time; the collector is killed in the midst of
//! it. What the start took, by phase, is the collector's own word; the whole is measured from outside, from the
//! process's start to the first answered call. Checked too: nothing was said twice, and every alert still fires.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use tocsin_proto::pb;
use tocsin_shared::labels::Labels;
use tocsin_tests::replay::Recording;
use tocsin_tests::resources;
use tocsin_tests::site::Site;
use tocsin_tests::swarm::{self, Options};
use tocsin_tests::wait::wait_until;

const RULES: &str = "
groups:
  - name: restart
    rules:
      - alert: Breached
        expr: restart_level > 0
        labels: {severity: warning}
";
/// The time in which all of it has to be built.
const BUILT: Duration = Duration::from_secs(900);
/// The time in which the store has to be whole again.
const PROJECTED: Duration = Duration::from_secs(300);

/// From kill -9 to ready: TOCSIN_PROGRAMS names the directory of the programs.
#[derive(Parser)]
#[command(after_help = "Examples:
  TOCSIN_PROGRAMS=target/release restart
  TOCSIN_PROGRAMS=target/release restart --hosts 200 --backlog 30")]
struct Arguments {
    #[arg(long, default_value_t = 2000)]
    hosts: usize,
    /// Series of each host, the alerts' own not counted.
    #[arg(long, default_value_t = 495)]
    series: usize,
    /// Firing alerts of each host.
    #[arg(long, default_value_t = 5)]
    alerts: usize,
    /// Rows of each host that lie in the past, 10 s apart.
    #[arg(long, default_value_t = 120)]
    backlog: u64,
    /// Seconds in real time before the kill.
    #[arg(long, default_value_t = 25)]
    live: u64,
}

async fn status(site: &Site) -> anyhow::Result<pb::GetStatusResponse> {
    Ok(site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner())
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let extra = (0..arguments.alerts).map(|n| Labels::series("restart_level", &[("n", &n.to_string())]));
    let recording = Arc::new(Recording::synthetic(arguments.series, extra.collect()));
    let mut site = Site::start(RULES).await?;
    let options = Options {
        credential: site.credential_file(),
        hosts: arguments.hosts,
        ticks: u64::MAX,
        interval: Duration::from_secs(10),
        realtime: true,
        backlog: arguments.backlog,
        collector_pid: None,
        prefix: "restart-".into(),
    };
    let begun = Instant::now();
    let mut fleet = tokio::spawn(swarm::run(recording, options));
    let (hosts, alerts) = (arguments.hosts as u64, (arguments.hosts * arguments.alerts) as u64);
    let rows = hosts * arguments.backlog;
    let built = wait_until("the fleet's past", BUILT, async || {
        let status = status(&site).await.ok()?;
        (status.rows >= rows && u64::from(status.alerts_firing) >= alerts).then_some(())
    });
    tokio::select! {
        built = built => built?,
        ended = &mut fleet => bail!("the fleet ended: {ended:?}"),
    }
    println!("built in {:.0} s; load {}", begun.elapsed().as_secs_f64(), load());
    tokio::time::sleep(Duration::from_secs(arguments.live)).await;
    let before = status(&site).await?;
    let used = resources::of(site.pid().context("the collector runs")?)?;
    println!(
        "{} series, {} samples, {} alerts firing, {} incidents, {} events, {:.0} MiB resident",
        before.series,
        before.samples,
        before.alerts_firing,
        before.incidents_open,
        before.events_head,
        used.resident_bytes as f64 / 1_048_576.0
    );
    ensure!(!fleet.is_finished(), "the fleet failed: {:?}", fleet.await);
    site.kill_collector()?;
    fleet.abort();
    start(&mut site, &before, "after kill -9").await?;
    let before = status(&site).await?;
    site.kill_collector()?;
    start(&mut site, &before, "after a second kill").await?;
    site.kill_collector()?;
    std::fs::remove_dir_all(site.dir().join("collector/store"))?;
    start(&mut site, &before, "without its store").await
}

/// Starts the collector and tells what it took.
async fn start(site: &mut Site, before: &pb::GetStatusResponse, what: &str) -> anyhow::Result<()> {
    let said = site.log()?.len();
    let begun = Instant::now();
    site.start_collector().await?;
    let ready = begun.elapsed();
    let used = resources::of(site.pid().context("the collector runs")?)?; // Of a busy machine it is the better figure.
    wait_until("the whole store", PROJECTED, async || {
        let status = status(site).await.ok()?;
        (status.store_applied == status.events_head).then_some(())
    })
    .await?;
    let (projected, now) = (begun.elapsed(), status(site).await?);
    println!(
        "{what}: ready after {:.2} s, of CPU {:.2} s, store whole after {:.2} s; load {}",
        ready.as_secs_f64(),
        used.cpu_seconds,
        projected.as_secs_f64(),
        load()
    );
    let phases = wait_until("the collector's word", PROJECTED, async || {
        let log = site.log().ok()?;
        log.get(said..)?.lines().find(|line| line.contains("ready after")).map(str::to_owned)
    });
    println!("  {}", phases.await?);
    println!("  {} samples, {:.0} MiB resident", now.samples, used.resident_bytes as f64 / 1_048_576.0);
    ensure!(
        now.alerts_firing >= before.alerts_firing,
        "{} alerts fire, {} before",
        now.alerts_firing,
        before.alerts_firing
    );
    ensure!(now.series >= before.series, "{} series, {} before", now.series, before.series);
    Ok(())
}
