//! ⇄ The whole agent: opens what it owns, starts its parts, and stops them.
//!
//! Threads: one collects, one owns the spool, one runs the sockets. To stop, the sources stop first; what they handed
//! on is made durable within `GRACE`, whatever the network does. A part that ends by itself ends the agent: never
//! half a process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::log::LogError;
use tocsin_shared::private_file::{self, PrivateFileError};
use tocsin_shared::supervise::Manager;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::collect::Collector;
use crate::config::Config;
use crate::explain::one_line;
use crate::identity::{Identity, IdentityDir, IdentityError};
use crate::inventory::{self, Inventory};
use crate::jobs::intake::{Intake, IntakeConfig, IntakeCounters, IntakeCounts, IntakeError, Submission};
use crate::keep::{self, Keeper};
use crate::renew;
use crate::spool::{self, Spool, SpoolError};
use crate::stream::{Greeting, Stream};
use crate::tick::{self, Reading, Ticked};
use crate::trust::Trust;

/// For the parts to end after they were told to.
const GRACE: Duration = Duration::from_secs(4);
/// Job records on their way to the disk; each wrapper waits for its answer.
const JOBS_QUEUE: usize = 16;
/// Ticks that the collecting thread may miss before it counts as stuck.
const TICKS_MISSED: u32 = 3;
/// How often the spool is asked to make durable what is due: twice in its period. Each time wakes two threads.
const SYNC_EVERY: Duration = Duration::from_millis(2_500);

/// Why the agent does not run, or does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Jobs(#[from] IntakeError),
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("a part of the agent ended by itself; the log before this line says which")]
    PartEnded,
}

/// Runs the agent until told to stop; everything taken by then is durable on return.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    run_for(config, stop, Arc::new(Manager::default())).await
}

/// The same for a service manager, which is told that the agent runs and that it gets on.
pub async fn run_for(config: Config, stop: CancellationToken, manager: Arc<Manager>) -> Result<(), RunError> {
    let data = config.data_dir.clone();
    let identity = IdentityDir::open(&data)?.load()?;
    let inventory = inventory::take();
    if identity.is_none() {
        tracing::warn!(
            "this host is not enrolled: what it measures is kept until `tocsin-agent enroll --collector HOST:PORT --token TOKEN` has been run"
        );
    }
    let (keeper, keeper_thread) = start_keeper(&config, identity.as_ref(), &inventory.boot_id)?;
    let (submit, submissions) = mpsc::channel(JOBS_QUEUE);
    let started = start(&config, &inventory, &keeper, (submit, submissions), (&stop, manager)).await;
    let ended = match started {
        Ok(parts) => wait(parts, &stop).await,
        Err(error) => Err(error),
    };
    // Whatever happened: what was taken becomes durable, and the directory is free again.
    let synced = keeper.stop().await;
    drop(keeper);
    if !keeper_thread.is_finished() {
        tokio::task::spawn_blocking(|| keeper_thread.join().ok()).await.ok();
    }
    ended.and(synced.map_err(RunError::Spool))
}

/// Opens the spool. One that was copied here from another agent's host is not this one's to send: it is set aside.
fn open_spool(dir: &Path, config: spool::Config, identity: Option<&Identity>) -> Result<Spool, RunError> {
    let spool = Spool::open(dir, config)?;
    let (Some(owner), Some(identity)) = (spool.owner()?, identity) else { return Ok(spool) };
    let agent = identity.place.agent;
    if owner == agent {
        return Ok(spool);
    }
    let aside = dir.with_file_name(format!("spool.of-{owner}-{}", Reading::now().wall.as_millis()));
    private_file::move_dir(dir, &aside)?;
    drop(spool);
    tracing::error!(%owner, %agent, aside = %aside.display(), "the spool holds another agent's records: it is set aside, and a new one begins");
    Ok(Spool::open(dir, config)?)
}

/// A spool whose disk fails is no reason not to run: records are in memory until it is back.
fn start_keeper(
    config: &Config,
    identity: Option<&Identity>,
    boot_id: &str,
) -> Result<(Keeper, JoinHandle<()>), RunError> {
    let dir = config.data_dir.join("spool");
    match open_spool(&dir, config.spool, identity) {
        Ok(spool) => keep::start(spool, boot_id).map_err(RunError::Thread),
        Err(RunError::Spool(
            error @ (SpoolError::Disk { .. } | SpoolError::Log { source: LogError::Io { .. }, .. }),
        )) => {
            tracing::error!(
                error = one_line(&error),
                "the spool's disk fails: records are kept in memory only"
            );
            keep::start_parked((dir, config.spool), boot_id).map_err(|error| match error {
                keep::StartError::Spool(error) => RunError::Spool(error),
                keep::StartError::Thread(error) => RunError::Thread(error),
            })
        }
        Err(error) => Err(error),
    }
}

type Jobs = (mpsc::Sender<Submission>, mpsc::Receiver<Submission>);

async fn start(
    config: &Config,
    inventory: &Inventory,
    keeper: &Keeper,
    (submit, submissions): Jobs,
    (stop, manager): (&CancellationToken, Arc<Manager>),
) -> Result<Parts, RunError> {
    tell_start(&config.data_dir, &inventory.boot_id, keeper).await?;
    let jobs = IntakeConfig {
        socket: config.jobs.socket.clone(),
        drop_box: config.jobs.drop_box.clone(),
        running: Some(config.data_dir.join("running")),
        boot_id: inventory.boot_id.clone(),
        ..IntakeConfig::default()
    };
    let intake = Intake::bind(jobs, submit)?;
    let connected = Arc::new(AtomicBool::new(false));
    let observed =
        Observed { keeper: keeper.clone(), connected: Arc::clone(&connected), jobs: intake.counters() };
    let ticks = Arc::new(AtomicU64::new(0));
    start_ticking(config, keeper, observed, Arc::clone(&ticks)).map_err(RunError::Thread)?;
    let trust = Arc::new(Trust::new(config.data_dir.clone()));
    let stream = Stream {
        data_dir: config.data_dir.clone(),
        collector: config.collector.clone(),
        keeper: keeper.clone(),
        greeting: greeting(inventory, config.interval),
        connected,
        renewed: Arc::default(),
        trust: Arc::clone(&trust),
    };
    let renewed = (Arc::clone(&stream.renewed), trust);
    let parts = Parts { tracker: TaskTracker::new(), stopping: stop.child_token() };
    parts.spawn("stream", stream.run(parts.stopping.clone()));
    let renewal =
        renew::run(config.data_dir.clone(), config.collector.clone(), renewed, parts.stopping.clone());
    parts.spawn("renewal", renewal);
    parts.spawn("job intake", intake.run(parts.stopping.clone()));
    parts.spawn("job records", store_jobs(submissions, keeper.clone()));
    parts.spawn("sync", sync_regularly(keeper.clone(), parts.stopping.clone()));
    manager.ready();
    if let Some(every) = manager.alive_every() {
        let pulse = Pulse { keeper: keeper.clone(), ticks, interval: config.interval };
        parts.spawn("watchdog", pulse.feed(manager, every, parts.stopping.clone()));
    }
    Ok(parts)
}

/// The tasks of a running agent.
struct Parts {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Parts {
    /// Starts a part. When it ends, by itself or by a panic, the others are stopped.
    fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            let _guard = stopping.clone().drop_guard();
            part.await;
            if !stopping.is_cancelled() {
                tracing::error!(part = name, "ended by itself");
            }
        });
    }
}

async fn wait(parts: Parts, stop: &CancellationToken) -> Result<(), RunError> {
    let Parts { tracker, stopping } = parts;
    tracker.close();
    stopping.cancelled().await;
    if timeout(GRACE, tracker.wait()).await.is_err() {
        tracing::warn!("not everything ended in time; what was taken is made durable all the same");
    }
    if stop.is_cancelled() { Ok(()) } else { Err(RunError::PartEnded) }
}

/// Tells the collector that the agent started, and that the host did if its boot is another than last time.
async fn tell_start(data: &Path, boot_id: &str, keeper: &Keeper) -> Result<(), RunError> {
    let path = data.join("boot_id");
    let now = Reading::now();
    let known = private_file::read(&path).unwrap_or_default();
    // A queue that is closed already is said by the parts that need it.
    if known.as_deref().map(str::trim) != Some(boot_id) {
        keeper.event("boot", now).await.ok();
        if let Err(error) = private_file::replace(&path, &format!("{boot_id}\n")) {
            // The next start tells of this boot once more; that is all.
            tracing::warn!(error = one_line(&error), "the boot cannot be noted");
        }
    }
    keeper.event("agent_start", now).await.ok();
    Ok(())
}

fn greeting(inventory: &Inventory, interval: Duration) -> Greeting {
    let Inventory {
        hostname,
        os,
        kernel,
        arch,
        cpus,
        cpu_model,
        memory_bytes,
        booted_at,
        boot_id,
        machine_id_hash,
        agent_version,
    } = inventory;
    let facts = Labels::new([
        ("hostname", hostname.clone()),
        ("os", os.clone()),
        ("kernel", kernel.clone()),
        ("arch", arch.clone()),
        ("cpus", cpus.to_string()),
        ("cpu_model", cpu_model.clone()),
        ("memory_bytes", memory_bytes.to_string()),
        ("booted_at", booted_at.to_string()),
        ("machine_id_hash", machine_id_hash.clone()),
    ]);
    let process = Uuid::new_v4().simple().to_string();
    Greeting { agent_version: agent_version.clone(), boot_id: boot_id.clone(), facts, interval, process }
}

/// What the agent says of itself in each row.
struct Observed {
    keeper: Keeper,
    connected: Arc<AtomicBool>,
    jobs: Arc<IntakeCounters>,
}

impl Observed {
    fn say(&self, collector: &mut Collector) {
        let standing = *self.keeper.standing().borrow();
        for lane in Lane::ALL {
            let (at, labels) = (lane.index(), [("lane", lane.as_str())]);
            collector.extra("tocsin_agent_spool_bytes", &labels, standing.bytes[at] as f64);
            collector.extra("tocsin_agent_spool_waiting", &labels, standing.waiting[at] as f64);
            collector.extra("tocsin_agent_spool_evicted_total", &labels, standing.evicted[at] as f64);
        }
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        collector.extra("tocsin_agent_spool_degraded", &[], flag(standing.degraded));
        collector.extra("tocsin_agent_spool_volatile", &[], flag(standing.volatile));
        let connected = self.connected.load(Ordering::Relaxed);
        collector.extra("tocsin_agent_session_connected", &[], flag(connected));
        let IntakeCounts {
            stored_socket,
            stored_drop_box,
            duplicates,
            refused,
            over_quota,
            sink_failures,
            missed,
            alike,
        } = self.jobs.read();
        for (way, count) in [("socket", stored_socket), ("drop_box", stored_drop_box)] {
            collector.extra("tocsin_agent_jobs_stored_total", &[("way", way)], count as f64);
        }
        for (metric, count) in [
            ("tocsin_agent_jobs_duplicates_total", duplicates),
            ("tocsin_agent_jobs_refused_total", refused),
            ("tocsin_agent_jobs_over_quota_total", over_quota),
            ("tocsin_agent_jobs_not_stored_total", sink_failures),
            ("tocsin_agent_jobs_missed_total", missed),
            ("tocsin_agent_jobs_alike_total", alike),
        ] {
            collector.extra(metric, &[], count as f64);
        }
    }
}

/// The collecting thread. It ends at its next tick after the spool's thread did; nobody waits for it.
fn start_ticking(
    config: &Config,
    keeper: &Keeper,
    observed: Observed,
    ticks: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let collector = Collector::new(config.collect.clone());
    let (interval, keeper) = (config.interval, keeper.clone());
    let hand_on = move |ticked| {
        ticks.fetch_add(1, Ordering::Relaxed);
        match ticked {
            Ticked::Row { at, series, values } => keeper.row(at, series, values),
            Ticked::ClockStep { at, step_ms } => keeper.happened("clock_step", at, step_ms),
            Ticked::Missed { at, gap_ms } => keeper.happened("sampling_missed", at, gap_ms),
        }
    };
    let tick = move || tick::run(interval, collector, |collector| observed.say(collector), hand_on);
    std::thread::Builder::new().name("tocsin-collect".into()).spawn(tick).map(drop)
}

/// What the service manager's watchdog is fed by: the sockets' thread runs this, the others must have got on.
struct Pulse {
    keeper: Keeper,
    ticks: Arc<AtomicU64>,
    interval: Duration,
}

impl Pulse {
    async fn feed(self, manager: Arc<Manager>, every: Duration, stop: CancellationToken) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut since) = (0, Instant::now());
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let ticks = self.ticks.load(Ordering::Relaxed);
            if ticks != seen {
                (seen, since) = (ticks, Instant::now());
            }
            let collects = since.elapsed() < self.interval * TICKS_MISSED + every;
            if collects && self.keeper.acknowledge(Vec::new()).await.is_ok() {
                manager.alive();
            }
        }
    }
}

/// Hands records of wrappers to the spool; ends when the intake did.
async fn store_jobs(mut submissions: mpsc::Receiver<Submission>, keeper: Keeper) {
    while let Some(submission) = submissions.recv().await {
        if keeper.job(submission).await.is_err() {
            return;
        }
    }
}

async fn sync_regularly(keeper: Keeper, stop: CancellationToken) {
    let mut tick = interval(SYNC_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        if keeper.sync().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
