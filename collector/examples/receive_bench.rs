//! What a million pushed samples cost: remote write 1.0 from its snappy block to the answer, durable, without HTTP.
//!
//! `cargo run --release -p tocsin-collector --example receive_bench -- [HOSTS] [SERIES] [ROUNDS]`: so many hosts of so
//! many series each, a round is one sample of each, 2,000 samples a request, eight requests at a time.
#![allow(clippy::unwrap_used, reason = "a program to measure with")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use prost::encoding::encode_varint;
use tocsin_collector::journal::ledger::{self, Fatal};
use tocsin_collector::journal::rows;
use tocsin_collector::receive::remote_write::{self, Version};
use tocsin_collector::receive::{Config, Receiver};
use tocsin_collector::room::Room;
use tocsin_collector::samples::Store;
use tocsin_collector::state::Defaults;
use tocsin_collector::{clock, metadata::Metadata};
use tocsin_shared::disk::{Disk, RealDisk};
use tocsin_shared::event::Sealed;
use tokio_util::sync::CancellationToken;

const SAMPLES: usize = 2_000;
const AT_A_TIME: usize = 8;
const STEP_MS: i64 = 10_000;

fn main() {
    let number =
        |at: usize, usual: usize| std::env::args().nth(at).map_or(usual, |text| text.parse().unwrap());
    let (hosts, series, rounds) = (number(1, 1_000), number(2, 200), number(3, 20));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(hosts, series, rounds));
}

async fn run(hosts: usize, series: usize, rounds: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (disk, fatal): (Arc<dyn Disk>, _) = (Arc::new(RealDisk), Fatal::new(CancellationToken::new()));
    let store = Arc::new(Store::open(dir.path().join("samples")).unwrap().0);
    let sealed = Sealed::default();
    let found = rows::Found { sealed: &sealed, lanes: Vec::new(), evaluated_through: 0 };
    let opened = rows::open(disk.clone(), &dir.path().join("journal"), store.clone(), found).unwrap();
    let rows = opened.start(std::sync::mpsc::sync_channel(1).0, fatal.clone());
    let ledger = ledger::open(disk, Path::new(&dir.path().join("journal"))).unwrap();
    let ledger = ledger.start(Defaults::default(), fatal);
    let config = Config { samples_per_second: u32::MAX, series_max: hosts * series, ..Config::default() };
    let (keep, metadata) = (Duration::from_secs(86_400), Arc::new(Metadata::default()));
    let receiver =
        Receiver::new((config, keep), (rows.clone(), store.clone()), ledger, Room::boundless(), metadata);
    let receiver = Arc::new(receiver);

    let begin = clock::now().as_millis() - rounds as i64 * STEP_MS;
    let labels: Vec<Vec<u8>> = (0..hosts * series).map(|n| labels(n / series, n % series)).collect();
    let (mut requests, mut bytes) = (0, 0);
    let (mut cpu, mut took) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let at = begin + round as i64 * STEP_MS;
        let blocks: Vec<Vec<u8>> = labels.chunks(SAMPLES).map(|labels| block(labels, round, at)).collect();
        (requests, bytes) = (requests + blocks.len(), bytes + blocks.iter().map(Vec::len).sum::<usize>());
        let (before, begun) = (used(), Instant::now());
        let mut parts: Vec<Vec<Vec<u8>>> = vec![Vec::new(); AT_A_TIME];
        blocks.into_iter().enumerate().for_each(|(at, block)| parts[at % AT_A_TIME].push(block));
        let senders = parts.into_iter().map(|blocks| tokio::spawn(send(receiver.clone(), blocks)));
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap();
        }
        if round > 0 {
            (cpu, took) = (cpu + used() - before, took + begun.elapsed()); // The first round makes the series.
        } else {
            println!("first round: {:.2} s CPU", (used() - before).as_secs_f64());
        }
    }
    let samples = (hosts * series * (rounds - 1)) as f64;
    let stats = store.stats();
    println!("{samples} samples in {took:.2?}: {:.2} CPU-s a million", cpu.as_secs_f64() * 1e6 / samples);
    println!("{requests} requests of {} bytes", bytes / requests);
    let journal = rows.standing().await.unwrap().bytes;
    println!("journal {:.2} bytes a sample", journal as f64 / (hosts * series * rounds) as f64);
    println!(
        "{} series, {} samples in memory, {} + {} MiB",
        stats.series,
        stats.samples_in_memory,
        stats.series_bytes_in_memory >> 20,
        stats.sample_bytes_in_memory >> 20
    );
}

async fn send(receiver: Arc<Receiver>, blocks: Vec<Vec<u8>>) {
    for block in blocks {
        let place = receiver.place("bench").await.unwrap();
        let message = remote_write::unpack(&block, 32 << 20).unwrap();
        let taken = receiver.take(&place, move |intake| remote_write::read(Version::One, &message, intake));
        assert_eq!(taken.await.unwrap().written as usize, SAMPLES);
    }
}

fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros as u64)
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn labels(host: usize, series: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let pairs = [
        ("__name__", format!("metric_name_{}_total", series / 10)),
        ("cpu", format!("{}", series % 10)),
        ("datacenter", format!("eu-{}", host % 3)),
        ("instance", format!("host-{host}:9100")),
        ("job", "bench".to_owned()),
        ("mode", "user".to_owned()),
    ];
    for (name, value) in pairs {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(&mut out, 1, &label);
    }
    out
}

/// A request with one sample for each of these series: a counter of one decimal.
fn block(labels: &[Vec<u8>], round: usize, at: i64) -> Vec<u8> {
    let mut message = Vec::new();
    for (n, labels) in labels.iter().enumerate() {
        let value = (n * 37 + round * (n % 100)) as f64 / 10.0;
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_bits().to_le_bytes());
        sample.push(0x10);
        encode_varint(at as u64, &mut sample);
        let mut series = labels.clone();
        field(&mut series, 2, &sample);
        field(&mut message, 1, &series);
    }
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}
