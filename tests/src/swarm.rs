//! Many virtual agents against one collector, to measure what a fleet costs it.
//!
//! Each agent enrols, opens its own mTLS stream and sends its rows one to a message, as live agents do. In real time
//! they tick at the interval, each at its own moment of it; otherwise the time of the run lies in the past and rows go
//! out as fast as acknowledgements come, a bounded number in flight.

mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::chain::{CHAIN_ROWS_MAX, Chain};
use tocsin_shared::time::Timestamp;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::api::{Api, CredentialFile};
use crate::counted::Traffic;
use crate::replay::{Host, Recording};
use crate::resources;
use crate::virtual_agent::{Session, VirtualAgent, table};

pub use report::Report;

/// Agents that enrol, or open their streams, at the same time: more would only measure handshakes queueing.
const ENROLLING: usize = 16;
/// Rows that an agent has in flight at most.
const IN_FLIGHT: u64 = 8;
/// A session without progress for this long has failed.
const STUCK: Duration = Duration::from_secs(60);
/// CLOCK_BOOTTIME of every virtual host at the start: all rows of a run in the past lie after its boot.
const BOOT_MS: u64 = 100 * 86_400_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    pub credential: PathBuf,
    pub hosts: usize,
    /// Rows that each host sends.
    pub ticks: u64,
    pub interval: Duration,
    pub realtime: bool,
    /// Of the rows of a run in real time, how many are due at once, as of a spool that is drained.
    pub backlog: u64,
    pub collector_pid: Option<u32>,
    /// In front of the hosts' numbers; another run against the same collector needs another.
    pub prefix: String,
}

/// Runs the swarm to its end.
pub async fn run(recording: Arc<Recording>, options: Options) -> anyhow::Result<Report> {
    let api = Api::connect(&CredentialFile::read(&options.credential)?).await?;
    let agents = enrol(&api, options.hosts, &options.prefix).await?;
    let usage = |pid: Option<u32>| pid.map(resources::of).transpose();
    let (before, begun) = (usage(options.collector_pid)?, Instant::now());
    let (traffic, acknowledged) = (Arc::new(Traffic::default()), Arc::new(AtomicU64::new(0)));
    let start = start(&options);
    let opening = Arc::new(Semaphore::new(ENROLLING));
    let mut running = JoinSet::new();
    for (number, agent) in agents.into_iter().enumerate() {
        let stream = Stream {
            number,
            agent,
            recording: Arc::clone(&recording),
            options: options.clone(),
            traffic: Arc::clone(&traffic),
            acknowledged: Arc::clone(&acknowledged),
            opening: Arc::clone(&opening),
            start,
        };
        running.spawn(stream.run());
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a virtual agent panicked")??;
    }
    let took = begun.elapsed();
    let after = usage(options.collector_pid)?;
    let rows = acknowledged.load(Ordering::Relaxed);
    Ok(Report {
        hosts: options.hosts,
        width: recording.series.len(),
        rows,
        sent_bytes: traffic.sent.load(Ordering::Relaxed),
        received_bytes: traffic.received.load(Ordering::Relaxed),
        took,
        usage: before.zip(after),
    })
}

/// Wall time of the first row: on the interval's grid; in the past unless the run is in real time.
fn start(options: &Options) -> Timestamp {
    let now = wall();
    let span = options.interval.saturating_mul(u32::try_from(options.ticks).unwrap_or(u32::MAX));
    let backlog = options.interval.saturating_mul(u32::try_from(options.backlog).unwrap_or(u32::MAX));
    let first = if options.realtime { now.plus(options.interval).minus(backlog) } else { now.minus(span) };
    first.align_down(options.interval)
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as i64)
}

/// Enrols so many hosts, named by a prefix and a number.
pub(crate) async fn enrol(api: &Api, hosts: usize, prefix: &str) -> anyhow::Result<Vec<VirtualAgent>> {
    let (mut enrolled, mut asked) = (Vec::with_capacity(hosts), JoinSet::new());
    for number in 0..hosts {
        if asked.len() == ENROLLING {
            enrolled.push(asked.join_next().await.context("nothing to wait for")???);
        }
        let (api, hostname) = (api.clone(), format!("{prefix}{number:05}"));
        asked.spawn(async move { VirtualAgent::enrol(&api, pb::Env::Test, &hostname).await });
    }
    while let Some(agent) = asked.join_next().await {
        enrolled.push(agent??);
    }
    Ok(enrolled)
}

/// One agent's part of the run.
struct Stream {
    number: usize,
    agent: VirtualAgent,
    recording: Arc<Recording>,
    options: Options,
    traffic: Arc<Traffic>,
    acknowledged: Arc<AtomicU64>,
    opening: Arc<Semaphore>,
    start: Timestamp,
}

impl Stream {
    async fn run(self) -> anyhow::Result<()> {
        let interval_ms = u32::try_from(self.options.interval.as_millis()).unwrap_or(u32::MAX);
        let opened = Instant::now();
        let clock = || self.clock(opened.elapsed());
        let turn = self.opening.acquire().await?;
        let mut session = self.agent.session(clock(), interval_ms, Arc::clone(&self.traffic)).await?;
        drop(turn);
        session.say(Up::Table(table(1, &self.recording.series, &self.agent.boot_id))).await?;
        let mut rows = Rows::new(&self);
        let mut heartbeat =
            tokio::time::interval(Duration::from_millis(session.heartbeat_ms.max(1_000).into()));
        heartbeat.tick().await; // The first one is at once; Hello has just said the same.
        let mut progress = tokio::time::Instant::now();
        while session.taken < self.options.ticks {
            let may_send = rows.seq < self.options.ticks && rows.seq - session.taken < IN_FLIGHT;
            tokio::select! {
                heard = session.hear() => {
                    heard?;
                    progress = tokio::time::Instant::now();
                }
                _ = heartbeat.tick() => {
                    let beat = pb::Heartbeat { clock: Some(clock()), waiting: vec![0; 3], ..Default::default() };
                    session.say(Up::Heartbeat(beat)).await?;
                }
                () = self.due(rows.seq, opened), if may_send => {
                    self.send(&session, &mut rows).await?;
                    progress = tokio::time::Instant::now();
                }
                () = tokio::time::sleep_until(progress + STUCK) => {
                    anyhow::bail!("{}: no progress after row {} of {}", self.agent.hostname, session.taken, rows.seq);
                }
            }
        }
        self.acknowledged.fetch_add(session.taken, Ordering::Relaxed);
        Ok(())
    }

    /// Both clocks, `since` after the session was opened.
    fn clock(&self, since: Duration) -> pb::ClockReading {
        pb::ClockReading {
            wall_ms: wall().as_millis(),
            boot_ms: BOOT_MS + since.as_millis() as u64,
            ..Default::default()
        }
    }

    /// Waits until row `seq + 1` is due; each host at its own moment of the interval.
    async fn due(&self, seq: u64, opened: Instant) {
        if self.options.realtime && seq >= self.options.backlog {
            let ticks = u32::try_from(seq - self.options.backlog).unwrap_or(u32::MAX);
            let share = self.number as f64 / self.options.hosts.max(1) as f64;
            let at = self.options.interval.mul_f64(share) + self.options.interval.saturating_mul(ticks);
            tokio::time::sleep_until((opened + at).into()).await;
        }
    }

    async fn send(&self, session: &Session, rows: &mut Rows) -> anyhow::Result<()> {
        let row = rows.next(self);
        session.say(Up::Rows(pb::Rows { rows: vec![row] })).await
    }
}

/// The rows of one host: its values, its chain.
struct Rows {
    host: Host,
    chain: Chain,
    opened: u64,
    /// The last row made.
    seq: u64,
    /// Wall clock minus CLOCK_BOOTTIME.
    offset_ms: i64,
}

impl Rows {
    fn new(stream: &Stream) -> Self {
        let step = stream.options.interval.as_secs_f64(); // The recording has a scrape a second.
        Self {
            host: Host::new(&stream.recording, stream.number, step),
            chain: Chain::new(stream.recording.series.len()),
            opened: 1,
            seq: 0,
            offset_ms: wall().as_millis() - BOOT_MS as i64,
        }
    }

    fn next(&mut self, stream: &Stream) -> pb::Row {
        let ticks = u32::try_from(self.seq).unwrap_or(u32::MAX);
        let at = stream.start.plus(stream.options.interval.saturating_mul(ticks));
        self.seq += 1;
        if self.chain.rows() == CHAIN_ROWS_MAX {
            (self.chain, self.opened) = (Chain::new(stream.recording.series.len()), self.seq);
        }
        let (index, mut data) = (self.chain.rows(), Vec::new());
        let boot_ms = u64::try_from(at.as_millis() - self.offset_ms).unwrap_or(0);
        self.chain.encode(at, boot_ms, self.host.tick(&stream.recording), &mut data);
        pb::Row { seq: self.seq, table_id: 1, chain: self.opened, index, data: data.into() }
    }
}
