//! A load as Prometheus remote write 1.0: a recording replayed as many hosts, some hosts in each request.
//!
//! The labels of a series are encoded once; a request is made of them, a value and a time, and packed with snappy. Each
//! host has its own moment of the step and is always sent over the same connection, so that its samples stay in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tocsin_shared::labels::Labels;
use tokio::task::JoinSet;

use super::server::Server;
use crate::replay::{Host, Recording};

/// Connections that send at the same time, as a sharded sender has.
const SENDERS: usize = 4;
/// Hosts in one request: with 200 series each 2,000 samples, what Prometheus sends at once.
const HOSTS_A_REQUEST: usize = 10;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub hosts: usize,
    pub ticks: usize,
    pub step: Duration,
    /// Of the last tick.
    pub end_ms: i64,
}

/// What was sent.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    pub samples: u64,
    /// Of bodies, packed.
    pub bytes: u64,
    pub last_ms: i64,
    /// How long each request took, ascending.
    took: Vec<Duration>,
}

impl Pushed {
    /// Of the requests' times, in milliseconds.
    pub fn percentile(&self, of_all: f64) -> f64 {
        let at = (self.took.len() as f64 * of_all) as usize;
        self.took.get(at.min(self.took.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    }
}

/// Sends all of it; every request has to be taken.
pub(super) async fn push(server: &Server, recording: &Arc<Recording>, load: Load) -> anyhow::Result<Pushed> {
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let hosts: Vec<usize> =
            (0..load.hosts).filter(|host| host / HOSTS_A_REQUEST % SENDERS == number).collect();
        let (server, recording) = (server.clone(), Arc::clone(recording));
        senders.spawn(async move { send(server, recording, hosts, load).await });
    }
    let mut all = Pushed { last_ms: load.end_ms, ..Pushed::default() };
    while let Some(sent) = senders.join_next().await {
        let Pushed { samples, bytes, took, .. } = sent??;
        all.samples += samples;
        all.bytes += bytes;
        all.took.extend(took);
    }
    all.took.sort();
    Ok(all)
}

async fn send(
    server: Server,
    recording: Arc<Recording>,
    hosts: Vec<usize>,
    load: Load,
) -> anyhow::Result<Pushed> {
    let mut client = server.write_door.connect().await?;
    let step_ms = load.step.as_millis() as i64;
    let mut fleet: Vec<Sending> =
        hosts.iter().map(|number| Sending::new(&recording, *number, step_ms)).collect();
    let mut pushed = Pushed::default();
    let mut packer = snap::raw::Encoder::new();
    for tick in 0..load.ticks {
        let at_ms = load.end_ms - (load.ticks - 1 - tick) as i64 * step_ms;
        for some in fleet.chunks_mut(HOSTS_A_REQUEST) {
            let mut message = Vec::new();
            some.iter_mut().for_each(|host| host.encode(&recording, at_ms, &mut message));
            let body = packer.compress_vec(&message)?;
            pushed.bytes += body.len() as u64;
            pushed.samples += (some.len() * recording.series.len()) as u64;
            let begun = Instant::now();
            let (status, said) = client.post(server.write_path, &HEADERS, body).await?;
            pushed.took.push(begun.elapsed());
            ensure!(status / 100 == 2, "{}: {status}: {}", server.name, String::from_utf8_lossy(&said));
        }
    }
    Ok(pushed)
}

const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// One host on its way through the recording.
struct Sending {
    host: Host,
    /// By how much its samples come before the tick.
    phase_ms: i64,
    /// Each series' labels, encoded.
    labels: Vec<Vec<u8>>,
}

impl Sending {
    fn new(recording: &Recording, number: usize, step_ms: i64) -> Self {
        let instance = format!("host-{number}");
        let target = [("instance", instance.as_str()), ("job", "node")];
        let labels = recording.series.iter().map(|series| encoded(&series.with(target))).collect();
        let phase_ms = (number as i64).wrapping_mul(7_919).rem_euclid(step_ms);
        Self { host: Host::new(recording, number, step_ms as f64 / 1e3), phase_ms, labels }
    }

    /// Adds its series with their values of the next tick.
    fn encode(&mut self, recording: &Recording, at_ms: i64, out: &mut Vec<u8>) {
        let values = self.host.tick(recording);
        for (labels, value) in self.labels.iter().zip(values) {
            let mut sample = vec![0x09]; // Field 1, eight bytes.
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(0x10); // Field 2, a varint.
            varint((at_ms - self.phase_ms) as u64, &mut sample);
            out.push(0x0a); // Field 1 of the request: a series.
            varint((labels.len() + 2 + sample.len()) as u64, out);
            out.extend_from_slice(labels);
            out.push(0x12); // Field 2 of a series: a sample.
            varint(sample.len() as u64, out);
            out.extend_from_slice(&sample);
        }
    }
}

/// Labels as field 1 of a series, in their order.
fn encoded(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels.iter() {
        let mut pair = Vec::new();
        for (tag, text) in [(0x0a, name), (0x12, value)] {
            pair.push(tag);
            varint(text.len() as u64, &mut pair);
            pair.extend_from_slice(text.as_bytes());
        }
        out.push(0x0a);
        varint(pair.len() as u64, &mut out);
        out.extend_from_slice(&pair);
    }
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
