//! ⇄ The spool's thread: the one task that owns it, and what others may ask of it.
//!
//! Promises: a job record is answered only when it is durable; a new row is durable before it is handed to the
//! stream; losses become gap records in the outcomes lane, and are noted as told only when those are durable; an
//! acknowledgement that does not fit removes nothing. What fails here is logged when it begins and when it ends. When
//! the disk fails, records are kept in memory under an epoch of their own until it is back (`parked`).

pub(crate) mod life;

mod parked;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tocsin_proto::pb;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tokio::sync::{mpsc, oneshot, watch};

use crate::explain::one_line;
use crate::jobs::intake::{SinkError, Submission};
use crate::keep::life::Tips;
use crate::rows::{LiveRow, RowWriter};
use crate::spool::{self, Gap, Spool, SpoolError};
use crate::stream::backlog::{Backlog, Filled, Request};
use crate::stream::records::{self, RECORD};
use crate::tick::Reading;
use parked::Parked;

/// Requests that wait for the disk. Each asker waits for its answer, so this is about how many askers there are.
const QUEUE: usize = 64;
/// Records in one message at most: the wire's bound.
const RECORDS_MAX: usize = 256;

/// What the spool holds, for whoever decides what to send and for the agent's own metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The end of each lane, in the order of `Lane::ALL`.
    pub durable: [u64; 3],
    /// Records that still have to be acknowledged.
    pub waiting: [u64; 3],
    pub bytes: [u64; 3],
    pub evicted: [u64; 3],
    /// Whether the disk fails, and records are in memory under this epoch only.
    pub degraded: bool,
    /// Whether rows are in memory only for want of room on the disk.
    pub volatile: bool,
    /// Whose numbers these are.
    pub epoch: Option<Epoch>,
    /// How often records went to another place: each time it is another life for the collector.
    pub moves: u32,
}

/// Records of the outcomes or the state lane, to be sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Records {
    pub records: Vec<pb::Record>,
    pub bytes: usize,
    /// Where to read on.
    pub next: u64,
}

/// A question that has an answer.
type Ask<T> = oneshot::Sender<Result<T, SpoolError>>;

enum Command {
    Row {
        at: Reading,
        series: Arc<[Labels]>,
        values: Vec<f64>,
    },
    Event {
        what: &'static str,
        at: Reading,
        step_ms: i64,
    },
    Job(Submission),
    Attach {
        live: mpsc::Sender<LiveRow>,
        reply: Ask<[Ranges; 3]>,
    },
    EndChain,
    /// What a session asks, of the records that it is about.
    OfEpoch(Epoch, Box<Command>),
    Records {
        lane: Lane,
        first: u64,
        bytes: usize,
        reply: Ask<Records>,
    },
    Fill {
        request: Request,
        reply: Ask<Filled>,
    },
    Acknowledge {
        lanes: Vec<(Lane, Ranges)>,
        reply: Ask<()>,
    },
    Claim {
        agent: AgentId,
        reply: Ask<()>,
    },
    Compare {
        lanes: Vec<(Lane, Ranges)>,
        tips: Tips,
        reply: Ask<Option<String>>,
    },
    BeginEpoch {
        reply: Ask<()>,
    },
    Sync,
    Stop {
        reply: Ask<()>,
    },
}

/// The spool's thread has ended: the agent is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub(crate) struct Stopping;

/// A handle to the spool's thread.
#[derive(Clone)]
pub(crate) struct Keeper {
    epoch: Epoch,
    moves: u32,
    requests: mpsc::Sender<Command>,
    standing: watch::Receiver<Standing>,
}

/// Starts the thread without a spool on disk, which fails: records are in memory until it does not any more.
pub(crate) fn start_parked(
    place: (PathBuf, spool::Config),
    boot_id: &str,
) -> Result<(Keeper, JoinHandle<()>), StartError> {
    let spool = Spool::in_memory(place.1)?;
    Ok(start_at(spool, place, Some(Parked::new(Instant::now())), boot_id)?)
}

/// Why the thread did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

/// Starts the thread.
pub(crate) fn start(spool: Spool, boot_id: &str) -> std::io::Result<(Keeper, JoinHandle<()>)> {
    let place = spool.place();
    start_at(spool, place, None, boot_id)
}

fn start_at(
    mut spool: Spool,
    place: (PathBuf, spool::Config),
    parked: Option<Parked>,
    boot_id: &str,
) -> std::io::Result<(Keeper, JoinHandle<()>)> {
    spool.shorten_with(records::without_output);
    let (requests, queue) = mpsc::channel(QUEUE);
    let (standing, observed) = watch::channel(Standing::default());
    let keeper = Keeper { epoch: spool.epoch(), moves: 0, requests, standing: observed };
    let mut keep = Keep {
        spool,
        place,
        parked,
        moves: 0,
        boot_id: boot_id.into(),
        rows: RowWriter::new(boot_id),
        backlog: Backlog::default(),
        live: None,
        gaps: Vec::new(),
        standing,
        failing: false,
        started: Instant::now(),
    };
    keep.tell_gaps();
    keep.publish();
    let thread = std::thread::Builder::new().name("tocsin-spool".into()).spawn(move || keep.run(queue))?;
    Ok((keeper, thread))
}

impl Keeper {
    /// Of the records that this handle asks for.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Says who speaks for this spool; an error if its records are another agent's.
    pub(crate) async fn claim(&self, agent: AgentId) -> Result<Result<(), SpoolError>, Stopping> {
        self.ask(|reply| Command::Claim { agent, reply }).await
    }

    /// Why what a collector has is not of this spool's life, if it is not.
    pub(crate) async fn compare(
        &self,
        lanes: Vec<(Lane, Ranges)>,
        tips: Tips,
    ) -> Result<Result<Option<String>, SpoolError>, Stopping> {
        self.ask(|reply| Command::Compare { lanes, tips, reply }).await
    }

    /// Gives what is not settled yet a new name.
    pub(crate) async fn begin_epoch(&self) -> Result<Result<(), SpoolError>, Stopping> {
        self.ask(|reply| Command::BeginEpoch { reply }).await
    }

    /// A handle to the records as they are kept now, for a new session.
    pub(crate) fn current(&self) -> Self {
        let Standing { epoch, moves, .. } = *self.standing.borrow();
        Self { epoch: epoch.unwrap_or(self.epoch), moves, ..self.clone() }
    }

    /// How often records had gone to another place when this handle was made.
    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    /// What the spool holds, and news of it.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Adds a row; from a thread of its own. Whether anyone still takes rows.
    pub(crate) fn row(&self, at: Reading, series: Arc<[Labels]>, values: Vec<f64>) -> bool {
        self.requests.blocking_send(Command::Row { at, series, values }).is_ok()
    }

    /// As `row`, for something that the ticks showed and how many milliseconds of it.
    pub(crate) fn happened(&self, what: &'static str, at: Reading, millis: i64) -> bool {
        self.requests.blocking_send(Command::Event { what, at, step_ms: millis }).is_ok()
    }

    /// Adds something that happened to the host.
    pub(crate) async fn event(&self, what: &'static str, at: Reading) -> Result<(), Stopping> {
        self.send(Command::Event { what, at, step_ms: 0 }).await
    }

    /// Stores a job's record and answers its wrapper.
    pub(crate) async fn job(&self, submission: Submission) -> Result<(), Stopping> {
        self.send(Command::Job(submission)).await
    }

    /// Hands new rows to `live` from now on, the first as the beginning of a chain. Returns what is settled.
    pub(crate) async fn attach(
        &self,
        live: mpsc::Sender<LiveRow>,
    ) -> Result<Result<[Ranges; 3], SpoolError>, Stopping> {
        self.ask(|reply| Command::Attach { live, reply }).await
    }

    /// Lets the next row open a chain: one before it did not reach the collector.
    pub(crate) async fn end_chain(&self) -> Result<(), Stopping> {
        self.send(Command::EndChain).await
    }

    pub(crate) async fn records(
        &self,
        lane: Lane,
        first: u64,
        bytes: usize,
    ) -> Result<Result<Records, SpoolError>, Stopping> {
        self.ask(|reply| Command::Records { lane, first, bytes, reply }).await
    }

    pub(crate) async fn fill(&self, request: Request) -> Result<Result<Filled, SpoolError>, Stopping> {
        self.ask(|reply| Command::Fill { request, reply }).await
    }

    pub(crate) async fn acknowledge(
        &self,
        lanes: Vec<(Lane, Ranges)>,
    ) -> Result<Result<(), SpoolError>, Stopping> {
        self.ask(|reply| Command::Acknowledge { lanes, reply }).await
    }

    /// Makes durable what is due; to be called every second or so.
    pub(crate) async fn sync(&self) -> Result<(), Stopping> {
        self.send(Command::Sync).await
    }

    /// Makes everything durable and ends the thread.
    pub(crate) async fn stop(&self) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        match self.send(Command::Stop { reply }).await {
            Ok(()) => answer.await.unwrap_or(Ok(())),
            Err(Stopping) => Ok(()),
        }
    }

    async fn send(&self, request: Command) -> Result<(), Stopping> {
        self.requests.send(request).await.map_err(|_| Stopping)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(Ask<T>) -> Command,
    ) -> Result<Result<T, SpoolError>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::OfEpoch(self.epoch, Box::new(request(reply)))).await?;
        answer.await.map_err(|_| Stopping)
    }
}

struct Keep {
    spool: Spool,
    /// Where the spool on disk is.
    place: (PathBuf, spool::Config),
    /// While that fails.
    parked: Option<Parked>,
    moves: u32,
    boot_id: String,
    rows: RowWriter,
    backlog: Backlog,
    live: Option<mpsc::Sender<LiveRow>>,
    /// Losses that are not in the outcomes lane yet.
    gaps: Vec<Gap>,
    standing: watch::Sender<Standing>,
    failing: bool,
    started: Instant,
}

impl Keep {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(request) = queue.blocking_recv() {
            if let Command::Stop { reply } = request {
                self.tell_gaps();
                let synced = self.close();
                drop(self.spool); // Lets go of the directory before anyone hears that we did.
                reply.send(synced).ok();
                return;
            }
            self.handle(request);
            self.publish();
        }
    }

    /// An answer that nobody waits for any more is dropped.
    fn handle(&mut self, request: Command) {
        match request {
            Command::Row { at, series, values } => self.row(at, &series, &values),
            Command::Event { what, at, step_ms } => self.event(what, at, step_ms),
            Command::Job(submission) => self.job(submission),
            Command::Attach { live, reply } => {
                self.live = Some(live);
                self.rows.end_chain();
                self.backlog = Backlog::default();
                reply.send(Ok(Lane::ALL.map(|lane| self.spool.acked(lane).clone()))).ok();
            }
            Command::OfEpoch(epoch, request) if epoch == self.spool.epoch() => self.handle(*request),
            Command::OfEpoch(_, request) => moved(*request),
            Command::EndChain => self.rows.end_chain(),
            Command::Records { lane, first, bytes, reply } => {
                reply.send(self.records(lane, first, bytes)).ok();
            }
            Command::Fill { request, reply } => {
                reply.send(self.backlog.fill(&mut self.spool, &request)).ok();
                self.tell_gaps();
            }
            Command::Acknowledge { lanes, reply } => {
                let taken = lanes.iter().try_for_each(|(lane, taken)| self.spool.acknowledge(*lane, taken));
                reply.send(taken).ok();
            }
            Command::Claim { agent, reply } => drop(reply.send(life::claim(&mut self.spool, agent))),
            Command::Compare { lanes, tips, reply } => {
                let compared = life::compare(&mut self.spool, &lanes, tips);
                let same = compared.as_ref().is_ok_and(Option::is_none);
                let told = if same { life::tell_lost(&mut self.spool, &lanes) } else { Ok(()) };
                reply.send(told.and(compared)).ok();
            }
            Command::BeginEpoch { reply } => {
                self.rows.end_chain();
                reply.send(life::begin_epoch(&mut self.spool)).ok();
            }
            Command::Sync => {
                let synced = self.spool.sync_due(self.started.elapsed());
                let synced = synced.and_then(|()| self.spool.review_tiers());
                self.park_if_failed(&synced);
                self.note(synced);
                self.look_at_disk(Instant::now());
                self.tell_gaps();
            }
            Command::Stop { .. } => {} // Handled by `run`.
        }
    }

    fn row(&mut self, at: Reading, series: &Arc<[Labels]>, values: &[f64]) {
        let mut written = self.rows.write(&mut self.spool, at, series, values);
        if self.park_if_failed(&written) {
            written = self.rows.write(&mut self.spool, at, series, values);
        }
        if let (Ok(row), Some(live)) = (&written, &self.live) {
            // A stream that does not keep up finds the row in the spool.
            if let Err(mpsc::error::TrySendError::Closed(_)) = live.try_send(row.clone()) {
                self.live = None;
            }
        }
        self.note(written.map(drop));
        self.tell_gaps(); // Making room may have cost rows.
    }

    fn event(&mut self, what: &str, at: Reading, step_ms: i64) {
        let record = records::encode(records::host_event(&self.boot_id, what, at, step_ms));
        let mut stored = self.state_record(&record);
        if self.park_if_failed(&stored) {
            stored = self.state_record(&record);
        }
        self.note(stored.map(drop));
    }

    fn job(&mut self, Submission { record, reply }: Submission) {
        let record = records::encode(records::job(record));
        let mut stored = self.spool.append(Lane::Outcomes, RECORD, &record, true);
        if self.park_if_failed(&stored) {
            stored = self.spool.append(Lane::Outcomes, RECORD, &record, true);
        }
        // From memory it is sent, too, but its wrapper is not told that it is safe: that is for the drop-box.
        let answer = match (&stored, &self.parked) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some(_)) => Err(SinkError("the spool's disk fails: it is kept in memory only".into())),
            (Err(error), _) => Err(SinkError(one_line(error))),
        };
        self.note(stored.map(drop));
        reply.send(answer).ok(); // A wrapper that left leaves its record in the drop-box.
    }

    fn state_record(&mut self, record: &[u8]) -> Result<u64, SpoolError> {
        self.spool.choose_tier(Lane::State)?;
        self.spool.append(Lane::State, RECORD, record, true)
    }

    fn records(&mut self, lane: Lane, first: u64, bytes: usize) -> Result<Records, SpoolError> {
        let batch = self.spool.read(lane, first, bytes)?;
        let mut found = Records { next: batch.next_seq, ..Records::default() };
        for entry in batch.entries.into_iter().filter(|entry| entry.numbered) {
            if found.records.len() >= RECORDS_MAX {
                found.next = entry.seq;
                break;
            }
            match records::decode(entry.seq, &entry.payload) {
                Some(record) => {
                    found.bytes += entry.payload.len();
                    found.records.push(record);
                }
                None => self.spool.give_up(lane, entry.seq),
            }
        }
        self.tell_gaps();
        Ok(found)
    }

    /// Losses become records that are sent like any other.
    fn tell_gaps(&mut self) {
        self.gaps.extend(self.spool.take_gaps());
        while let Some(gap) = self.gaps.first().copied() {
            let record = records::encode(records::gap(&gap));
            let told = self.spool.append(Lane::Outcomes, RECORD, &record, true);
            let told = told.and_then(|_| self.spool.gap_recorded(&gap));
            if let Err(error) = told {
                return self.note(Err(error)); // They are tried again at the next sync.
            }
            let Gap { lane, first, last, reason, .. } = gap;
            tracing::warn!(%lane, first, last, reason = reason.as_str(), "records of the spool are lost");
            self.gaps.remove(0);
        }
    }

    /// Says once that the disk refuses, and once that it does not any more.
    fn note(&mut self, result: Result<(), SpoolError>) {
        let was = std::mem::replace(&mut self.failing, result.is_err());
        match result {
            Err(error) if !was => {
                tracing::warn!(error = one_line(&error), "the spool does not take everything")
            }
            Ok(()) if was => tracing::info!("the spool takes everything again"),
            _ => {}
        }
    }

    fn publish(&self) {
        let stats = self.spool.stats();
        let waiting = |lane| self.spool.holes(lane).iter().map(|(first, last)| last - first + 1).sum();
        let standing = Standing {
            durable: stats.lanes.map(|lane| lane.durable_seq),
            waiting: Lane::ALL.map(waiting),
            bytes: stats.lanes.map(|lane| lane.bytes),
            evicted: stats.lanes.map(|lane| lane.evicted),
            degraded: stats.degraded || self.parked.is_some(),
            volatile: stats.volatile,
            epoch: Some(self.spool.epoch()),
            moves: self.moves,
        };
        self.standing.send_if_modified(|known| std::mem::replace(known, standing) != standing);
    }
}

/// Answers a session that is about other records than those that are kept now.
fn moved(request: Command) {
    match request {
        Command::Attach { reply, .. } => drop(reply.send(Err(SpoolError::Moved))),
        Command::Records { reply, .. } => drop(reply.send(Err(SpoolError::Moved))),
        Command::Fill { reply, .. } => drop(reply.send(Err(SpoolError::Moved))),
        Command::Acknowledge { reply, .. } | Command::Claim { reply, .. } | Command::BeginEpoch { reply } => {
            drop(reply.send(Err(SpoolError::Moved)));
        }
        Command::Compare { reply, .. } => drop(reply.send(Err(SpoolError::Moved))),
        _ => {} // Sessions ask nothing else.
    }
}
