//! Restarts a collector under a fleet of virtual agents and prints what became of it.

use std::time::Duration;

use clap::Parser;
use tocsin_shared::time::parse_duration;
use tocsin_tests::herd::{self, Options};
use tocsin_tests::site::Site;

/// A collector of its own, restarted under a fleet.
#[derive(Parser)]
#[command(after_help = "Needs two file descriptors an agent: `ulimit -n 20000` for 10,000.
Examples:
  herd --agents 10000
  herd --agents 10000 --backlog 8640 --kill")]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Series of each host.
    #[arg(long, default_value_t = 50)]
    series: usize,
    #[arg(long, default_value = "10s", value_parser = |text: &str| parse_duration(text))]
    interval: Duration,
    /// Rows that each host has kept when it comes back.
    #[arg(long, default_value_t = 100)]
    backlog: u64,
    /// Between two outcomes of the whole fleet.
    #[arg(long, default_value = "20ms", value_parser = |text: &str| parse_duration(text))]
    outcome_every: Duration,
    /// SIGKILL instead of SIGTERM.
    #[arg(long)]
    kill: bool,
}

fn main() -> anyhow::Result<()> {
    let Arguments { agents, series, interval, backlog, outcome_every, kill } = Arguments::parse();
    let options = Options { agents, series, interval, backlog, outcome_every, kill };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut site = Site::start_with("groups: []\n", "heartbeat = \"5s\"\n").await?;
        print!("{}", herd::run(&mut site, options).await?);
        Ok(())
    })
}
