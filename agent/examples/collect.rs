//! Prints one collection of this host in the exposition format, then what a collection costs.
//!
//! `cargo run -p tocsin-agent --example collect [ROOT]`; a fixture tree or a container's mount of a host as ROOT.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tocsin_agent::collect::{Collector, Config, describe};
use tocsin_shared::time::Timestamp;

/// How often the cost is measured.
const ROUNDS: u32 = 100;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_secs_f64(since.as_secs_f64())
}

/// The processor time this process has used, in seconds.
fn cpu_seconds() -> f64 {
    let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    used.map_or(f64::NAN, |used| used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
}

fn main() {
    let mut config = Config::default();
    if let Some(root) = std::env::args_os().nth(1) {
        config.root = root.into();
    }
    let mut collector = Collector::new(config);
    collector.collect(now());
    let tick = collector.collect(now());
    let mut metric = "";
    for (labels, value) in tick.series.iter().zip(&tick.values) {
        if metric != labels.metric() {
            metric = labels.metric();
            println!("# TYPE {metric} {}", describe(metric).0.as_text_format());
        }
        println!("{labels} {value:?}");
    }
    let series = tick.series.len();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    for _ in 0..ROUNDS {
        collector.collect(now());
    }
    let rounds = f64::from(ROUNDS);
    let (wall, cpu) = (begun.elapsed().as_secs_f64() / rounds, (cpu_seconds() - cpu) / rounds);
    eprintln!("{series} series; a tick takes {:.3} ms and {:.3} ms of processor time", wall * 1e3, cpu * 1e3);
}
