//! Measures a collector under many virtual agents, or the row encoding alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tocsin_shared::time::parse_duration;
use tocsin_tests::encoding;
use tocsin_tests::replay::Recording;
use tocsin_tests::swarm::{self, Options};

/// Many virtual agents against one collector, or the row encoding alone.
#[derive(Parser)]
#[command(after_help = "Examples:
  swarm --scrapes scrapes --measure-encoding
  swarm --scrapes scrapes --credential /var/lib/tocsin/collector/credential.toml --collector-pid 4711
  swarm --scrapes scrapes --credential credential.toml --hosts 1000 --interval 10s --ticks 60 --realtime")]
struct Arguments {
    /// A directory of scrapes of node_exporter, one second apart, named <unix_ms>.prom.
    #[arg(long)]
    scrapes: PathBuf,
    /// Measure the row encoding over the recording and end.
    #[arg(long)]
    measure_encoding: bool,
    /// The collector's credential file, of an administrator.
    #[arg(long, required_unless_present = "measure_encoding")]
    credential: Option<PathBuf>,
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    /// Series of each host; 0 takes all that the recording has.
    #[arg(long, default_value_t = 200)]
    series: usize,
    /// Rows that each host sends.
    #[arg(long, default_value_t = 360)]
    ticks: u64,
    #[arg(long, default_value = "10s", value_parser = |text: &str| parse_duration(text))]
    interval: Duration,
    /// Tick at the interval instead of as fast as the collector acknowledges.
    #[arg(long)]
    realtime: bool,
    /// Whose CPU time and memory to read.
    #[arg(long)]
    collector_pid: Option<u32>,
    /// In front of the hosts' numbers.
    #[arg(long, default_value = "swarm-")]
    prefix: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let recording = Recording::read(&arguments.scrapes, arguments.series)?;
    println!(
        "recording                 {} scrapes, {} series, {} of them vary",
        recording.scrapes(),
        recording.series.len(),
        recording.varying()
    );
    let Some(credential) = arguments.credential.filter(|_| !arguments.measure_encoding) else {
        print_encoding(&recording);
        return Ok(());
    };
    let options = Options {
        credential,
        hosts: arguments.hosts,
        ticks: arguments.ticks,
        interval: arguments.interval,
        realtime: arguments.realtime,
        backlog: 0,
        collector_pid: arguments.collector_pid,
        prefix: arguments.prefix,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    print!("{}", runtime.block_on(swarm::run(Arc::new(recording), options))?);
    Ok(())
}

fn print_encoding(recording: &Recording) {
    for step in [1, 10] {
        let cost = encoding::measure(recording, step);
        let samples = cost.samples as f64;
        println!("step {step} s");
        println!("  rows                    {}", cost.rows);
        println!("  samples                 {samples}");
        println!("  changed                 {:.1} %", 100.0 * cost.changed as f64 / samples);
        println!("  bytes/sample            {:.3}", cost.per_sample());
        println!("  bytes/sample in messages {:.3}", cost.message_bytes as f64 / samples);
        println!("  bytes/row               {:.0}", cost.row_bytes as f64 / cost.rows as f64);
        println!("  series table, once      {} bytes", cost.table_bytes);
        println!("  encode                  {:.1} M samples/s", samples / cost.encode.as_secs_f64() / 1e6);
    }
}
