//! Measures Tocsin beside Prometheus and VictoriaMetrics, one after the other on this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use tocsin_tests::peers::{self, Load};
use tocsin_tests::replay::Recording;
use tocsin_tests::site::Site;
use tocsin_tests::swarm::{self, Options};

/// Ingest, memory and queries beside the peers that are installed. TOCSIN_PROGRAMS names the directory of the programs.
#[derive(Parser)]
#[command(after_help = "Examples:
  TOCSIN_PROGRAMS=target/release peers --scrapes scrapes
  TOCSIN_PROGRAMS=target/release peers --scrapes scrapes --hosts 100 --only tocsin")]
struct Arguments {
    /// A directory of scrapes of node_exporter, one second apart, named <unix_ms>.prom.
    #[arg(long)]
    scrapes: PathBuf,
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    #[arg(long, default_value_t = 200)]
    series: usize,
    /// Samples of each series, 10 s apart.
    #[arg(long, default_value_t = 360)]
    ticks: usize,
    /// How often each query is asked.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// One of tocsin, agents, agents-rules, victoria-metrics, prometheus; may be repeated. All when left out.
    #[arg(long)]
    only: Vec<String>,
}

/// A writer of this size is an exception; what is measured is not the limit.
const LIMITS: &str = "[receive]\nsamples_per_second = 100_000_000\nseries_max = 2_000_000\n";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let recording = Arc::new(Recording::read(&arguments.scrapes, arguments.series)?);
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let load = Load {
        hosts: arguments.hosts,
        ticks: arguments.ticks,
        step: Duration::from_secs(10),
        end_ms: now_ms / 10_000 * 10_000 - 1, // Just before the grid: windows closed or open on the left see the same.
    };
    for name in ["victoria-metrics", "prometheus"] {
        let dir = tempfile::tempdir()?;
        if wanted(name)
            && let Some((server, _running)) = peers::peers(name, dir.path()).await?
        {
            print!("{}", peers::show(&server, &recording, load, arguments.runs).await?);
        }
    }
    if wanted("tocsin") {
        let site = Site::start_with("", LIMITS).await?;
        let server = peers::tocsin(&site).await?;
        print!("{}", peers::show(&server, &recording, load, arguments.runs).await?);
    }
    for (name, rules) in [("agents", ""), ("agents-rules", include_str!("../../../deploy/rules/host.yml"))] {
        if wanted(name) {
            let site = Site::start(rules).await?;
            println!("tocsin, {name}\n{}", swarm::run(recording.clone(), options(&site, &arguments)).await?);
        }
    }
    Ok(())
}

fn options(site: &Site, arguments: &Arguments) -> Options {
    Options {
        credential: site.credential_file(),
        hosts: arguments.hosts,
        ticks: arguments.ticks as u64,
        interval: Duration::from_secs(10),
        realtime: false,
        backlog: 0,
        collector_pid: site.pid(),
        prefix: "host-".to_owned(),
    }
}
