//! Tocsin beside Prometheus and VictoriaMetrics on one machine: the same samples by remote write, the same queries by
//! Prometheus' HTTP API, one after the other, and what each server used of the processor, of memory and of the disk.
//!
//! Programs that are not installed are left out, visibly. Servers run with their defaults in directories of their own;
//! the senders' CPU time is not counted, and requests wait for their answers. Not here: the agents' protocol (`swarm`).

mod client;
mod push;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::replay::Recording;
use crate::resources::{self, Usage};

pub use client::Client;
pub use push::{Load, Pushed};
pub use server::{Server, peers, tocsin};

/// A name, a query, and for a range its span and its step in seconds.
type Question = (&'static str, &'static str, Option<(u64, u64)>);

/// The queries of dashboards.
pub const QUERIES: [Question; 8] = [
    ("instant, one series", "node_load1{instance=\"host-7\"}", None),
    ("instant, cpu by mode, all hosts", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", None),
    (
        "instant, memory %, all hosts",
        "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)",
        None,
    ),
    (
        "instant, topk(10) of busy hosts",
        "topk(10, 1 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m])))",
        None,
    ),
    ("1 h at 15 s, one series", "node_load1{instance=\"host-7\"}", Some((3600, 15))),
    ("1 h at 15 s, a host's cpu", "rate(node_cpu_seconds_total{instance=\"host-7\"}[1m])", Some((3600, 15))),
    ("1 h at 15 s, all of a host", "{instance=\"host-7\"}", Some((3600, 15))),
    (
        "1 h at 15 s, cpu by mode, all hosts",
        "sum by (mode) (rate(node_cpu_seconds_total[5m]))",
        Some((3600, 15)),
    ),
];

/// What one server showed.
pub struct Shown {
    pub name: String,
    pub pushed: Pushed,
    pub ingest: Cost,
    pub queries: Vec<Asked>,
}

/// What a server used for something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub cpu_seconds: f64,
    pub wall: Duration,
    pub resident_bytes: u64,
}

/// A query, asked so many times.
pub struct Asked {
    pub name: &'static str,
    /// Ascending.
    pub wall: Vec<Duration>,
    /// Of one of them, on average.
    pub cpu_seconds: f64,
    pub bytes: usize,
}

/// Sends the whole load, then asks every query `runs` times.
pub async fn show(
    server: &Server,
    recording: &Arc<Recording>,
    load: Load,
    runs: usize,
) -> anyhow::Result<Shown> {
    let (before, begun) = (resources::of(server.pid)?, Instant::now());
    let pushed = push::push(server, recording, load).await?;
    let wall = begun.elapsed();
    let after = resources::of(server.pid)?;
    let ingest = Cost { wall, ..cost(before, after) };
    let mut queries = Vec::new();
    for (name, text, span) in QUERIES {
        queries.push(
            ask(server, (name, text, span), pushed.last_ms, runs).await.with_context(|| text.to_owned())?,
        );
    }
    Ok(Shown { name: server.name.to_owned(), pushed, ingest, queries })
}

fn cost(before: Usage, after: Usage) -> Cost {
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    Cost { cpu_seconds, wall: Duration::ZERO, resident_bytes: after.resident_bytes }
}

async fn ask(
    server: &Server,
    (name, text, span): Question,
    end_ms: i64,
    runs: usize,
) -> anyhow::Result<Asked> {
    let mut client = server.ask_door.connect().await?;
    let query: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let end = end_ms as f64 / 1e3;
    let path = match span {
        None => format!("/api/v1/query?query={query}&time={end}&nocache=1"),
        Some((span, step)) => {
            let start = end - span as f64;
            format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}&nocache=1")
        }
    };
    let mut wall = Vec::with_capacity(runs);
    let mut bytes = 0;
    let before = resources::of(server.pid)?;
    for _ in 0..runs {
        let begun = Instant::now();
        let (status, body) = client.get(&path).await?;
        wall.push(begun.elapsed());
        anyhow::ensure!(status == 200, "{}: {status}: {}", server.name, String::from_utf8_lossy(&body));
        bytes = body.len();
    }
    let cpu_seconds = cost(before, resources::of(server.pid)?).cpu_seconds / runs as f64;
    wall.sort();
    Ok(Asked { name, wall, cpu_seconds, bytes })
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pushed, ingest, queries } = self;
        let samples = pushed.samples as f64 / 1e6;
        writeln!(f, "{name}")?;
        writeln!(
            f,
            "  ingest {samples:.1} M samples: {:.3} CPU-s/M, {:.2} M/s, request p50 {:.1} ms p99 {:.1} ms, {:.1} B/sample sent",
            ingest.cpu_seconds / samples,
            samples / ingest.wall.as_secs_f64(),
            pushed.percentile(0.5),
            pushed.percentile(0.99),
            pushed.bytes as f64 / pushed.samples as f64,
        )?;
        writeln!(f, "  resident {:.0} MB after it", ingest.resident_bytes as f64 / 1e6)?;
        for Asked { name, wall, cpu_seconds, bytes } in queries {
            let ms = |at: usize| wall.get(at).map_or(0.0, |wall| wall.as_secs_f64() * 1e3);
            writeln!(
                f,
                "  {name:36} p50 {:8.2} ms  max {:8.2} ms  CPU {:7.2} ms  {bytes} B",
                ms(wall.len() / 2),
                ms(wall.len() - 1),
                cpu_seconds * 1e3
            )?;
        }
        Ok(())
    }
}
