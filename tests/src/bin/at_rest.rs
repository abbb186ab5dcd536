//! Measures samples at rest: bytes a sample in blocks of an hour and of merged days, what packing costs, and how long
//! queries over blocks take.
//!
//! The samples are recorded scrapes, replayed as many hosts through the store itself, without network and journal.
//! Everything is sealed before it is read, and a query is counted from its text to its result.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use tocsin_collector::samples::{Store, WINDOW};
use tocsin_promql::{Expr, Limits, Value};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tocsin_tests::replay::{Host, Recording};
use tocsin_tests::resources;
use uuid::Uuid;

const STEP: Duration = Duration::from_secs(10);
/// A day's beginning, so that windows and days are whole.
const BEGIN: i64 = 1_795_392_000_000;
/// Each query's median of so many runs is told.
const RUNS: usize = 7;
/// A block's footer: where the index is and how long come first.
const FOOTER_BYTES: u64 = 68;

/// Bytes of samples at rest, and how fast they are read.
#[derive(Parser)]
#[command(after_help = "Examples:
  at_rest --scrapes scrapes                          an hour of 1,000 hosts
  at_rest --scrapes scrapes --hosts 100 --hours 24   a day, then merged")]
struct Arguments {
    /// A directory of `<unix_ms>.prom` files.
    #[arg(long)]
    scrapes: PathBuf,
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    #[arg(long, default_value_t = 200)]
    series: usize,
    /// How many of them ever change.
    #[arg(long, default_value_t = 94)]
    varying: usize,
    #[arg(long, default_value_t = 1)]
    hours: u64,
    /// Recorded differences that one tick stands for.
    #[arg(long, default_value_t = 10.0)]
    speed: f64,
}

fn cpu() -> anyhow::Result<f64> {
    Ok(resources::of(std::process::id())?.cpu_seconds)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let dir = tempfile::tempdir()?;
    let (store, _) = Store::open(dir.path())?;
    let end = fill(&store, &arguments)?;
    tell(&store, dir.path(), "sealed")?;
    read(&store, end, arguments.hours)?;
    if arguments.hours >= 24 {
        let (begun, before) = (Instant::now(), cpu()?);
        while store.join(end.plus(STEP), u64::MAX, &|| true)?.is_some() {}
        let samples = store.stats().samples_at_rest as f64 / 1e6;
        println!("merging    {:8.3} CPU-s/M samples, {:?}", (cpu()? - before) / samples, begun.elapsed());
        tell(&store, dir.path(), "merged")?;
        read(&store, end, arguments.hours)?;
    }
    Ok(())
}

/// The series of a host: what queries ask for, then of those that vary and of the others evenly.
fn choose(recording: &Recording, series: usize, varying: usize) -> anyhow::Result<Vec<usize>> {
    let asked =
        |at: &usize| matches!(recording.series[*at].metric(), "node_cpu_seconds_total" | "node_load1");
    let changes = |at: usize| {
        let first = recording.recorded(0)[at].to_bits();
        (1..recording.scrapes()).any(|row| recording.recorded(row)[at].to_bits() != first)
    };
    let (mut moving, mut still): (Vec<_>, Vec<_>) = (0..recording.series.len()).partition(|at| changes(*at));
    [&mut moving, &mut still].into_iter().for_each(|part| part.sort_by_key(|at| (!asked(at), *at)));
    let kept =
        [(moving, varying), (still, series.saturating_sub(varying))].into_iter().map(|(part, count)| {
            ensure!(count <= part.len(), "there are {} such series, not {count}", part.len());
            let first = part.iter().filter(|at| asked(at)).count().min(count);
            let (rest, wanted) = (&part[first..], count - first);
            let even = (0..wanted).map(|mark| rest[mark * rest.len() / wanted]);
            Ok(part[..first].iter().copied().chain(even).collect::<Vec<_>>())
        });
    let mut chosen = kept.collect::<anyhow::Result<Vec<_>>>()?.concat();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Appends and seals everything; gives the time of the last row.
fn fill(store: &Store, arguments: &Arguments) -> anyhow::Result<Timestamp> {
    let recording = Recording::read(&arguments.scrapes, 0)?;
    let chosen = choose(&recording, arguments.series, arguments.varying)?;
    let series = chosen.iter().map(|at| recording.series[*at].clone()).collect::<Vec<_>>();
    println!("{} series, {} of them vary", series.len(), arguments.varying);
    let table: Arc<[Labels]> = store.share_texts(&series);
    let mut values = Vec::with_capacity(chosen.len());
    let mut hosts = Vec::new();
    for number in 0..arguments.hosts {
        let instance = format!("host-{number:04}");
        let target = [("instance", instance.as_str()), ("job", "node"), ("env", "prod")];
        store.set_target(AgentId(Uuid::from_u128(number as u128)), Labels::new(target));
        hosts.push(Host::new(&recording, number, arguments.speed));
    }
    let step = STEP.as_millis() as i64;
    let rows = (arguments.hours * 3_600_000) as i64 / step;
    let (mut sealing, mut samples) = (0.0, 0u64);
    for row in 0..rows {
        let time = BEGIN + row * step;
        for (number, host) in hosts.iter_mut().enumerate() {
            let all = host.tick(&recording);
            values.clear();
            values.extend(chosen.iter().map(|at| all[*at]));
            store.append(AgentId(Uuid::from_u128(number as u128)), &table, at(time), &values)?;
        }
        if row + 1 == rows || (time + step) % WINDOW.as_millis() as i64 == 0 {
            let before = cpu()?;
            for window in store.windows_in_memory() {
                samples += store.seal(window)?.map_or(0, |entry| entry.samples);
            }
            sealing += cpu()? - before;
        }
    }
    println!("sealing    {:8.3} CPU-s/M samples", sealing / (samples as f64 / 1e6));
    Ok(at(BEGIN + (rows - 1) * step))
}

/// Bytes a sample, the index on its own.
fn tell(store: &Store, dir: &Path, what: &str) -> anyhow::Result<()> {
    let (mut bytes, mut index, mut samples) = (0, 0, 0);
    for block in store.blocks() {
        let file = File::open(dir.join("blocks").join(&block.name)).context("a block that is listed")?;
        let mut footer = [0; 16];
        file.read_exact_at(&mut footer, block.bytes - FOOTER_BYTES)?;
        let length: [u8; 8] = footer[8..].try_into().context("eight bytes")?;
        index += u64::from_le_bytes(length);
        (bytes, samples) = (bytes + block.bytes, samples + block.samples);
    }
    let each = |bytes: u64| bytes as f64 / samples as f64;
    println!(
        "{what}     {:8.4} B/sample: data {:.4}, index {:.4}; {} blocks, {:.1} M samples",
        each(bytes),
        each(bytes - index),
        each(index),
        store.blocks().len(),
        samples as f64 / 1e6
    );
    Ok(())
}

/// Queries over the last hour and the whole.
fn read(store: &Store, end: Timestamp, hours: u64) -> anyhow::Result<()> {
    let hour = end.minus(Duration::from_secs(3600));
    let one = "node_load1{instance=\"host-0007\"}";
    let step = Duration::from_secs(15);
    for (name, text, from, step) in [
        ("one series, all", format!("{one}[{hours}h]"), None, step),
        ("one series, 1 h", one.to_owned(), Some(hour), step),
        ("one host, 1 h", "{instance=\"host-0007\"}".to_owned(), Some(hour), step),
        (
            "cpu of one host, 1 h",
            "rate(node_cpu_seconds_total{instance=\"host-0007\"}[1m])".to_owned(),
            Some(hour),
            step,
        ),
        ("cpu of all, 1 h", "sum by (mode) (rate(node_cpu_seconds_total[5m]))".to_owned(), Some(hour), step),
        ("cpu of all, instant", "sum by (mode) (rate(node_cpu_seconds_total[5m]))".to_owned(), None, step),
        ("load of all, instant", "node_load1".to_owned(), None, step),
    ] {
        let mut runs = Vec::new();
        let mut found = 0;
        for _ in 0..RUNS {
            let begun = Instant::now();
            let (expr, limits) = (Expr::parse(&text)?, Limits::default());
            let view = store.view().with_samples_max(limits.samples);
            found = match from {
                None => match tocsin_promql::instant(&expr, &view, end, &limits)? {
                    Value::Matrix(series) => series.iter().map(|series| series.points.len()).sum(),
                    Value::Vector(elements) => elements.len(),
                    _ => 0,
                },
                Some(from) => {
                    let series = tocsin_promql::range(&expr, &view, from, end, step, &limits)?;
                    series.iter().map(|series| series.points.len()).sum()
                }
            };
            ensure!(view.take_error().is_none(), "{text} failed");
            runs.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        runs.sort_by(f64::total_cmp);
        println!("  {name:24} {:9.3} ms (best {:.3}), {found} points", runs[RUNS / 2], runs[0]);
    }
    Ok(())
}
