//! Measures what an agent takes of its host, beside node_exporter scraped as often as the agent ticks.
//!
//! Both programs run as they do in production; this one only scrapes and looks. The CPU time of a whole number of
//! intervals is divided by their number, so it does not matter where between two ticks the window begins.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use tocsin_proto::pb;
use tocsin_shared::time::parse_duration;
use tocsin_tests::api::{Api, CredentialFile};
use tocsin_tests::exposition;
use tocsin_tests::footprint::{Table, Watch};
use tocsin_tests::scrape::Scraper;

/// A started exporter listens within this time.
const START: Duration = Duration::from_secs(10);
/// Between two attempts to connect to it.
const AGAIN: Duration = Duration::from_millis(50);

/// What an agent takes of its host, beside node_exporter.
#[derive(Parser)]
#[command(after_help = "Examples:
  footprint --agent-pid 4711 --interval 10s --seconds 600
  footprint --agent-pid 4711 --interval 1s --credential credential.toml --instance web-1
  footprint --agent-pid 4711 --exporter-pid 815 --exporter-url http://127.0.0.1:9100/metrics")]
struct Arguments {
    #[arg(long)]
    agent_pid: u32,
    /// The agent's interval.
    #[arg(long, default_value = "1s", value_parser = |text: &str| parse_duration(text))]
    interval: Duration,
    /// How long to measure; a whole number of intervals is.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// An exporter that runs, with its URL.
    #[arg(long, requires = "exporter_url")]
    exporter_pid: Option<u32>,
    #[arg(long, requires = "exporter_pid")]
    exporter_url: Option<String>,
    /// The exporter that is started otherwise.
    #[arg(long, default_value = "prometheus-node-exporter")]
    exporter: PathBuf,
    /// A credential file of the agent's collector, to count the agent's series.
    #[arg(long, requires = "instance")]
    credential: Option<PathBuf>,
    /// The agent's host name.
    #[arg(long, requires = "credential")]
    instance: Option<String>,
}

/// The exporter of this run; one that was started here ends with it.
struct Exporter {
    pid: u32,
    url: String,
    child: Option<Child>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok(); // It may have ended already.
            child.wait().ok();
        }
    }
}

impl Exporter {
    fn start(program: &Path) -> anyhow::Result<Self> {
        // It takes no port 0 that it would tell: one that is free now is most likely free in a moment.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address={address}")).stdin(Stdio::null());
        command.stderr(Stdio::null()); // It logs each collector that this host cannot feed, at every scrape.
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { pid: child.id(), url: format!("http://{address}/metrics"), child: Some(child) })
    }

    fn connect(&mut self) -> anyhow::Result<Scraper> {
        let begun = Instant::now();
        loop {
            match Scraper::connect(&self.url) {
                Ok(scraper) => return Ok(scraper),
                Err(error) if begun.elapsed() > START => return Err(error),
                Err(_) => sleep(AGAIN),
            }
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the exporter ended with {status}");
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let interval = arguments.interval;
    ensure!(!interval.is_zero(), "the interval is 0");
    let ticks =
        u32::try_from(Duration::from_secs(arguments.seconds).as_millis() / interval.as_millis().max(1))?;
    ensure!(ticks > 0, "{} s are less than one interval", arguments.seconds);
    let series = match (&arguments.credential, &arguments.instance) {
        (Some(credential), Some(instance)) => Some(agent_series(credential, instance)?),
        _ => None,
    };
    let mut exporter = match (arguments.exporter_pid, arguments.exporter_url) {
        (Some(pid), Some(url)) => Exporter { pid, url, child: None },
        _ => Exporter::start(&arguments.exporter)?,
    };
    let mut scraper = exporter.connect()?;
    let exposed = exposition::parse(&scraper.fetch_text()?)?.series.len();
    let mut watches = [
        Watch::begin("tocsin-agent", arguments.agent_pid, series)?,
        Watch::begin("node_exporter", exporter.pid, Some(exposed))?,
    ];
    let body = measure(&mut scraper, &mut watches, interval, ticks)?;
    print!("{}", Table { interval, watches: &watches });
    println!("a scrape is {body} bytes, compressed");
    Ok(())
}

/// Scrapes in the middle of each interval and looks at its end; gives the length of the last scrape.
fn measure(
    scraper: &mut Scraper,
    watches: &mut [Watch],
    interval: Duration,
    ticks: u32,
) -> anyhow::Result<usize> {
    let (begun, mut body) = (Instant::now(), 0);
    let wait_until = |moment: Duration| sleep(moment.saturating_sub(begun.elapsed()));
    for tick in 0..ticks {
        wait_until(interval * tick + interval / 2);
        body = scraper.fetch()?.len();
        wait_until(interval * (tick + 1));
        watches.iter_mut().try_for_each(Watch::look)?;
    }
    Ok(body)
}

/// How many series of the host the collector has now.
fn agent_series(credential: &Path, instance: &str) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let api = Api::connect(&CredentialFile::read(credential)?).await?;
        let query = format!("count({{instance={instance:?}}})");
        let request = pb::InstantRequest { query, at_ms: 0 };
        let series = api.query().instant(request).await?.into_inner().series;
        let point = series.first().and_then(|series| series.points.first());
        Ok(point.with_context(|| format!("the collector has nothing of {instance}"))?.value as usize)
    })
}
