//! The collector as a whole: opens what it keeps, joins its parts with bounded queues, and stops them in order.
//!
//! Start: ports first (the most frequent mistake costs nothing), then the lock, the journals, the rules. What was
//! durable but not evaluated is evaluated before any new row. Stop: no new connections, sessions end, the
//! rows' writer, evaluation, the ledger with a checkpoint, the store.

mod certificates;
mod disk;
mod joining;
mod keep;
mod lag;
mod local;
mod maintenance;
mod memory;
mod phases;
mod rule_files;
mod servers;
mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tocsin_shared::alert::{Alert, AlertSource};
use tocsin_shared::disk::{Disk, RealDisk};
use tocsin_shared::event::Actor;
use tocsin_shared::host::HostState;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::Config;
use crate::evaluate;
use crate::evaluate::plan::Plan;
use crate::evaluate::statistics::Statistics;
use crate::identity::authorities::Authorities;
use crate::ingest::presence::Presence;
use crate::ingest::quota::Quotas;
use crate::ingest::skew::Skews;
use crate::journal::ledger::{self, Fatal, Ledger};
use crate::journal::rows::{self, Rows};
use crate::metadata::Metadata;
use crate::receive::{self, Receiver};
use crate::room::Room;
use crate::samples;
use crate::state::{Command, Defaults, State};
use crate::store::projector::{self, Projection};

use phases::Phases;
pub use setup::{StartError, mark_restored};

/// Between two looks whether a start has evaluated what was left: little against what it takes.
const EVALUATED_LOOK: Duration = Duration::from_millis(5);

/// A collector that runs.
pub struct Running {
    /// The addresses that are listened on.
    pub front: SocketAddr,
    pub agents: SocketAddr,
    pub local: SocketAddr,
    /// Where the local administrator's credential lies.
    pub credential_file: PathBuf,
    parts: Parts,
    evaluator: std::thread::JoinHandle<()>,
    tasks: TaskTracker,
    fatal: Fatal,
    _lock: setup::DataLock,
}

/// What the services share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) ledger: Ledger,
    pub(crate) rows: Rows,
    pub(crate) samples: Arc<samples::Store>,
    pub(crate) projection: Projection,
    pub(crate) presence: Arc<Presence>,
    pub(crate) skews: Arc<Skews>,
    pub(crate) plan: Arc<ArcSwap<Plan>>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) sessions: Arc<AtomicU64>,
    pub(crate) room: Arc<Room>,
    pub(crate) receiver: Arc<Receiver>,
    /// What the start found and people should know.
    pub(crate) problems: Vec<String>,
    pub(crate) store_epoch: String,
    pub(crate) stop: CancellationToken,
}

/// Starts a collector; it runs until `stop` is cancelled or something fails it.
pub async fn start(config: Config, stop: CancellationToken) -> Result<Running, StartError> {
    let mut phases = Phases::begin();
    let lock = setup::lock(&config.data_dir)?;
    let ports = setup::bind(&config).await?;
    let config = Arc::new(config);
    let store_epoch = setup::store_epoch(&config.data_dir)?;
    let plan = Arc::new(ArcSwap::from_pointee(Plan::new(1, &rule_files::load(&config)?)));
    let fatal = Fatal::new(stop.clone());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);

    let room = setup::room(&disk, &config)?;
    let opened = ledger::open(disk.clone(), &config.data_dir.join("journal"))?.in_room(room.clone());
    let authorities = Arc::new(setup::authorities(&config, opened.state())?);
    let mut problems = opened.problems.clone();
    phases.done("events");
    let (samples, set_aside) =
        samples::Store::open(config.data_dir.join("samples")).map_err(StartError::samples)?;
    problems.extend(set_aside.iter().map(|aside| format!("{aside:?}")));
    let samples = Arc::new(samples);
    let state = opened.state();
    for host in state.hosts() {
        samples.set_target(host.agent, host.target_labels());
    }
    phases.done("blocks");
    let mut kept = setup::open_rows(&disk, &config, &samples, state)?.in_room(room.clone());
    problems.extend(kept.problems.iter().cloned());
    phases.done("rows");
    // Nothing is stamped before this: the time must not be earlier than what is stored.
    let rows = kept.unevaluated.iter().map(|row| row.at).chain(kept.evaluated_at.values().copied());
    if let Some(newest) = rows.max() {
        clock::begin_after(newest);
    }
    if let Some(trouble) = clock::trouble() {
        tracing::warn!("{trouble}");
    }
    let online = online(state);
    let found = evaluate::Found {
        active: active(state),
        holes: state.holes().map(|hole| (hole.agent, hole.from)).collect(),
        evaluated_at: std::mem::take(&mut kept.evaluated_at),
        unevaluated: std::mem::take(&mut kept.unevaluated),
    };

    let defaults = Defaults {
        reopen_window: config.reopen_window,
        auto_resolve_after: config.auto_resolve_after,
        ..Defaults::default()
    };
    let ledger = opened.start(defaults.clone(), fatal.clone());
    if setup::is_restored(&config.data_dir) {
        let told = ledger.submit(Command::StoreRestored, Actor::System).await?;
        told.map_err(|refusal| StartError::other("say that older data was put back", refusal))?;
        setup::note_restored(&config.data_dir)?;
        problems.push(
            "an older copy of the data was put back: consumers of the feed begin with a snapshot".into(),
        );
    }
    let first = Command::AuthorityFound(authorities.current().describe());
    ledger
        .submit(first, Actor::System)
        .await?
        .map_err(|refusal| StartError::other("note the authority", refusal))?;
    let bundle_pem = authorities.current().bundle_pem.clone();
    let credential_file = setup::credential(&config, &ledger, &bundle_pem, ports.front()).await?;
    let statistics = Arc::new(Statistics::default());
    let unevaluated = found.unevaluated.last().map_or(0, |row| row.samples_seq);
    let (out, durable) = std::sync::mpsc::sync_channel(evaluate::QUEUE);
    let rows = kept.start(out, fatal.clone());
    let evaluation = evaluate::Parts {
        plan: plan.clone(),
        store: samples.clone(),
        rows: rows.clone(),
        ledger: ledger.clone(),
        statistics: statistics.clone(),
        defaults,
    };
    let evaluator = start_evaluator(evaluation, found, durable, fatal.clone());
    phases.done("parts");
    let store =
        projector::Config::sled(config.data_dir.join("store"), config.keep_events).on(setup::host_name());
    let projection = projector::start(store, &ledger, stop.clone()).await?;
    phases.done("store");
    let metadata = Arc::default();
    let receiver = Arc::new(Receiver::new(
        (config.receive, config.keep_samples),
        (rows.clone(), samples.clone()),
        ledger.clone(),
        room.clone(),
        Arc::clone(&metadata),
    ));
    let parts = Parts {
        authorities,
        ledger,
        rows,
        samples,
        projection,
        presence: Arc::new(Presence::new(config.heartbeat, online, Instant::now())),
        skews: Arc::default(),
        plan,
        statistics,
        metadata,
        quotas: Arc::default(),
        sessions: Arc::default(),
        room,
        receiver,
        problems,
        store_epoch,
        stop,
        config,
    };
    let rule_ids = parts.plan.load().rule_ids();
    let told = parts.ledger.submit(Command::RulesChanged { rule_ids }, Actor::System).await?;
    told.map_err(|refusal| StartError::other("take the rules", refusal))?;
    evaluated(unevaluated, &parts.statistics, &parts.stop).await?;
    phases.done("evaluation");
    let tasks = TaskTracker::new();
    let (front, agents, local) = (ports.front(), ports.agents(), ports.local());
    servers::serve(&parts, ports, &tasks, &fatal)?;
    maintenance::spawn(&parts, &tasks, &fatal);
    tasks.spawn(fatal.clone().watch("disk", disk::mind(parts.clone())));
    tasks.spawn(fatal.clone().watch("memory", memory::mind(parts.clone())));
    tasks.spawn(fatal.clone().watch("evaluation lag", lag::watch(parts.clone())));
    let (receiver, ledger) = (parts.receiver.clone(), parts.ledger.clone());
    let sources = receive::watch_cardinality(receiver, ledger, setup::host_name(), parts.stop.clone());
    tasks.spawn(fatal.clone().watch("series of sources", sources));
    setup::write_addresses(&parts.config.data_dir, front, agents, local)?;
    tasks.close();
    phases.done("listeners");
    tracing::info!("ready after {phases}");
    Ok(Running { front, agents, local, credential_file, parts, evaluator, tasks, fatal, _lock: lock })
}

/// Whether the collector's writers and its evaluation still get on.
#[derive(Clone)]
pub struct Pulse {
    ledger: Ledger,
    rows: Rows,
    statistics: Arc<Statistics>,
}

impl Pulse {
    /// Waits until both journals' writers have answered and evaluation has moved; false when a writer has ended.
    pub async fn beats(&self) -> bool {
        let writers = self.ledger.read(|_| ()).await.is_ok() && self.rows.standing().await.is_ok();
        if writers {
            self.statistics.moves().await;
        }
        writers
    }
}

impl Running {
    /// What the service manager's watchdog is fed by.
    pub fn pulse(&self) -> Pulse {
        let Parts { ledger, rows, statistics, .. } = &self.parts;
        Pulse { ledger: ledger.clone(), rows: rows.clone(), statistics: statistics.clone() }
    }

    /// Waits until the collector has stopped: `Ok` after `stop` was cancelled, else why it could not go on.
    pub async fn wait(self) -> Result<(), String> {
        let Self { parts, evaluator, tasks, fatal, .. } = self;
        parts.stop.cancelled().await;
        let grace = tokio::time::timeout(std::time::Duration::from_secs(10), tasks.wait()).await;
        if grace.is_err() {
            tracing::warn!("some connections did not end within 10 s and are cut");
        }
        parts.rows.stop().await;
        tokio::task::spawn_blocking(move || evaluator.join()).await.ok(); // A panic in it was reported already.
        maintenance::note_evaluated(&parts).await;
        parts.ledger.stop().await;
        fatal.reason().map_or(Ok(()), Err)
    }
}

fn online(state: &State) -> Vec<tocsin_shared::identity::AgentId> {
    state.hosts().filter(|host| host.state == HostState::Online).map(|host| host.agent).collect()
}

fn active(state: &State) -> Vec<Alert> {
    state.active_alerts().filter(|alert| alert.source == AlertSource::Rule).cloned().collect()
}

/// Starts the thread that evaluates durable rows, beginning with what a crash left over.
fn start_evaluator(
    parts: evaluate::Parts,
    found: evaluate::Found,
    durable: std::sync::mpsc::Receiver<rows::DurableRow>,
    fatal: Fatal,
) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new()
        .name("evaluate".into())
        .spawn(move || fatal.guard("evaluation", || evaluate::run(parts, found, &durable)))
        .expect("a thread can be started at the start of the process")
}

/// Waits until what a crash left over is evaluated: the feed opens after it.
async fn evaluated(
    through: u64,
    statistics: &Statistics,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    while statistics.evaluated_through() < through {
        let look = tokio::time::sleep(EVALUATED_LOOK);
        stop.run_until_cancelled(look).await.ok_or(StartError::Stopping)?;
    }
    Ok(())
}
