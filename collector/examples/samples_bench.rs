//! What the sample store takes and costs on one core: rows appended, windows sealed, windows read back.
//!
//! `cargo run --release -p tocsin-collector --example samples_bench [hosts] [rows]`, by default 20 hosts and 720 rows:
//! two hours at 10 s. The data imitate a node: 64 % of the series never change, the rest are counters of whole numbers,
//! counters of hundredths of seconds, and gauges of bytes; all from a fixed sequence, so that runs compare.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tocsin_collector::samples::Store;
use tocsin_promql::{Expr, Limits, Value, instant};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

const SERIES: usize = 500;
const CONSTANT: usize = 320;
const STEP_MILLIS: i64 = 10_000;

/// A small generator: the numbers need not be good, only the same in every run.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn advance(values: &mut [f64], sequence: &mut Sequence) {
    for (at, value) in values.iter_mut().enumerate().skip(CONSTANT) {
        match at % 3 {
            0 => *value += sequence.below(1 + at as u64 * 10) as f64,
            1 => *value = ((*value * 100.0).round() + sequence.below(1_000) as f64) / 100.0,
            _ => *value = (1_000_000 + sequence.below(4_000)) as f64 * 4096.0,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let hosts = arguments.next().transpose().context("hosts")?.unwrap_or(20);
    let rows = arguments.next().transpose().context("rows")?.unwrap_or(720) as i64;
    let dir = std::env::temp_dir().join(format!("samples-bench-{}", std::process::id()));
    let (store, _) = Store::open(&dir)?;
    let names = (0..SERIES).map(|n| Labels::series(&format!("metric_{}", n / 4), &[("n", &n.to_string())]));
    let table: Arc<[Labels]> = names.collect();
    let mut fleet = (0..hosts).map(|_| vec![0.0; SERIES]).collect::<Vec<_>>();
    let (mut sequence, mut append) = (Sequence(7), std::time::Duration::ZERO);
    for row in 0..rows {
        for (number, values) in fleet.iter_mut().enumerate() {
            advance(values, &mut sequence);
            let start = Instant::now();
            let at = Timestamp::from_millis(row * STEP_MILLIS);
            store.append(AgentId(Uuid::from_u128(number as u128)), &table, at, values)?;
            append += start.elapsed();
        }
    }
    let samples = (hosts as i64 * rows) as f64 * SERIES as f64;
    println!("append   {:8.2} M samples/s", samples / append.as_secs_f64() / 1e6);
    let stats = store.stats();
    let memory = stats.sample_bytes_in_memory as f64;
    println!(
        "memory   {:8.3} B/sample, {:.0} B/series",
        memory / samples,
        memory / (hosts as usize * SERIES) as f64
    );
    read_host(&store, rows, "open rows")?;
    let start = Instant::now();
    for window in store.windows_in_memory() {
        store.seal(window)?;
    }
    println!("seal     {:8.2} M samples/s", samples / start.elapsed().as_secs_f64() / 1e6);
    println!("at rest  {:8.3} B/sample", store.stats().bytes_at_rest as f64 / samples);
    read_host(&store, rows, "blocks")?;
    drop(store);
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// A rule over four series of one host and five minutes, as the evaluation of a row runs it.
fn read_host(store: &Store, rows: i64, place: &str) -> anyhow::Result<()> {
    const READS: u32 = 1_000;
    let expr = Expr::parse("rate(metric_90[5m]) > 0")?;
    let end = Timestamp::from_millis((rows - 1) * STEP_MILLIS);
    let (cache, limits, start) = (RefCell::default(), Limits::default(), Instant::now());
    for _ in 0..READS {
        let view = store.host_view(AgentId(Uuid::from_u128(0))).with_cache(0, &cache);
        let value = instant(&expr, &view, end, &limits)?;
        anyhow::ensure!(matches!(value, Value::Vector(_)) && view.take_error().is_none(), "the rule failed");
    }
    println!("rule     {:8.2} us over {place}", start.elapsed().as_secs_f64() * 1e6 / f64::from(READS));
    Ok(())
}
