//! Measures the sample store and the query engine in this process, over a recording replayed as many hosts: what a row
//! costs, what an hour of them holds in memory, how long the queries of dashboards take.
//!
//! `cargo run --release -p tocsin-tests --bin store -- --scrapes DIR`. All on one thread; times are CPU time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tocsin_collector::samples::Store;
use tocsin_promql::{Expr, Limits, instant, range};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tocsin_tests::replay::{Host, Recording};
use uuid::Uuid;

/// The sample store and the query engine over a recording.
#[derive(Parser)]
struct Arguments {
    /// A directory of scrapes of node_exporter, one second apart, named <unix_ms>.prom.
    #[arg(long)]
    scrapes: PathBuf,
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    /// Series of each host; 0 takes all that the recording has.
    #[arg(long, default_value_t = 200)]
    series: usize,
    /// Rows of each host, 10 s apart.
    #[arg(long, default_value_t = 360)]
    rows: i64,
    /// Seal what is in memory before the queries.
    #[arg(long)]
    seal: bool,
    /// Times that each query runs.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Only the queries whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

const STEP_MS: i64 = 10_000;
/// A window's beginning, so that an hour lies in one window.
const START_MS: i64 = 1_795_420_800_000;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let recording = Recording::read(&arguments.scrapes, arguments.series)?;
    let dir = tempfile::tempdir()?;
    let (store, _) = Store::open(dir.path())?;
    let table = store.share_texts(&recording.series);
    let agent = |number: usize| AgentId(Uuid::from_u128(number as u128));
    for number in 0..arguments.hosts {
        let name = format!("host-{number}");
        store
            .set_target(agent(number), Labels::new([("instance", &*name), ("job", "node"), ("env", "prod")]));
    }
    let mut fleet: Vec<Host> =
        (0..arguments.hosts).map(|number| Host::new(&recording, number, 10.0)).collect();
    // Each agent sends a table of its own.
    let tables: Vec<Arc<[Labels]>> = fleet.iter().map(|_| table.iter().cloned().collect()).collect();
    let mut appending = Duration::ZERO;
    for row in 0..arguments.rows {
        for (number, host) in fleet.iter_mut().enumerate() {
            let values = host.tick(&recording);
            let begun = spent();
            let at = Timestamp::from_millis(START_MS + row * STEP_MS);
            store.append(agent(number), &tables[number], at, values)?;
            appending += spent() - begun;
        }
    }
    let samples = (arguments.rows as usize * arguments.hosts * recording.series.len()) as f64;
    println!(
        "append    {:8.3} s per M samples, {:.1} M samples",
        appending.as_secs_f64() / samples * 1e6,
        samples / 1e6
    );
    memory(&store, samples)?;
    if arguments.seal {
        let begun = spent();
        for window in store.windows_in_memory() {
            store.seal(window)?;
        }
        println!("seal      {:8.3} s per M samples", (spent() - begun).as_secs_f64() / samples * 1e6);
        println!("at rest   {:8.3} B/sample", store.stats().bytes_at_rest as f64 / samples);
        memory(&store, samples)?;
    }
    queries(&store, &arguments, &recording)
}

/// CPU time of this thread so far: builds beside the run do not count.
fn spent() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .unwrap_or_default()
}

fn memory(store: &Store, samples: f64) -> anyhow::Result<()> {
    let stats = store.stats();
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "memory    {:8.1} MiB of samples ({:.3} B/sample), {:.1} MiB of series, resident {:.0} MiB",
        mib(stats.sample_bytes_in_memory),
        stats.sample_bytes_in_memory as f64 / samples,
        mib(stats.series_bytes_in_memory),
        mib(resident()? as usize)
    );
    Ok(())
}

fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024)
}

fn queries(store: &Store, arguments: &Arguments, recording: &Recording) -> anyhow::Result<()> {
    let end = Timestamp::from_millis(START_MS + (arguments.rows - 1) * STEP_MS);
    let hour = Duration::from_secs(3600);
    let one = format!("{{__name__=\"{}\",instance=\"host-7\"}}", recording.series[0].metric());
    let host = "{instance=\"host-7\"}".to_owned();
    let cpu = "sum by (mode) (rate(node_cpu_seconds_total[5m]))".to_owned();
    let memory = "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)".to_owned();
    let busy = "topk(10, 1 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m])))".to_owned();
    let day = Duration::from_secs(86_400);
    for (name, text, steps) in [
        ("instant, one series", &one, None),
        ("instant, cpu by mode of all hosts", &cpu, None),
        ("instant, memory % of all hosts", &memory, None),
        ("instant, topk of cpu busy", &busy, None),
        ("1 h at 15 s, one series", &one, Some((hour, 15))),
        ("1 h at 15 s, all series of a host", &host, Some((hour, 15))),
        ("1 h at 15 s, cpu by mode of all hosts", &cpu, Some((hour, 15))),
        ("24 h at 10 s, one series", &one, Some((day, 10))),
    ] {
        if !name.contains(&arguments.only) {
            continue;
        }
        let expr = Expr::parse(text)?;
        let mut times = Vec::new();
        let mut results = 0;
        for _ in 0..arguments.runs {
            let begun = spent();
            let limits = Limits::default();
            let view = store.view().with_samples_max(limits.samples);
            results = match steps {
                None => match instant(&expr, &view, end, &limits)? {
                    tocsin_promql::Value::Vector(elements) => elements.len(),
                    _ => 1,
                },
                Some((span, step)) => {
                    range(&expr, &view, end.minus(span), end, Duration::from_secs(step), &limits)?.len()
                }
            };
            times.push(spent() - begun);
            anyhow::ensure!(view.take_error().is_none(), "{text} could not be read");
        }
        times.sort();
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        println!(
            "{name:40} {:9.3} ms p50, {:9.3} max, {results} series",
            ms(times.len() / 2),
            ms(times.len() - 1)
        );
    }
    Ok(())
}
