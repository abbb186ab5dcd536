//! The events journal's one writer, and the state's one owner.
//!
//! A thread takes commands, decides them one after the other, appends their events and applies them, makes the whole
//! group durable with one `fdatasync`, and only then answers and shows. A refused command writes nothing. If the
//! disk fails, nobody is answered and the collector stops: what was not durable was never said.
//! Here is no rule of what may be decided (`state`), and nothing of who may ask (`identity`).

mod opening;
mod roomy;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use arc_swap::{ArcSwap, ArcSwapOption};
use prost::Message;
use tocsin_proto::pb;
use tocsin_shared::access::{Certificate, Role};
use tocsin_shared::disk::Disk;
use tocsin_shared::event::{Actor, Event, Subject};
use tocsin_shared::identity::AgentId;
use tocsin_shared::log::{Log, Reader};
use tocsin_shared::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{JournalError, Stopping};
use crate::clock::{self, tolerated_until};
use crate::contain::contained;
use crate::room::Room;
use crate::state::losses::Findings;
use crate::state::{Command, Defaults, Refusal, State, authority, decide};

pub use opening::{open, open_with};

/// Commands that wait for the writer. Beyond it callers wait: a second of work at the slowest disk we promise for.
const QUEUE: usize = 4096;
/// Commands in one group: bounds how long the first of them waits.
const GROUP_MAX: usize = 512;
/// A checkpoint each so many events: a start reads at most this many.
const CHECKPOINT_EVERY: u64 = 100_000;

/// Bytes of a group that wait to be durable; the log's own bound, which would cut a decision in two, is higher.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What a frame adds to its payload at most.
const FRAME_BYTES: usize = 64;

/// What a command came to: its events, all durable.
pub type Decided = Result<Vec<Event>, Refusal>;

enum Job {
    Decide { command: Box<Command>, actor: Actor, reply: Option<oneshot::Sender<Decided>> },
    Read(Box<dyn FnOnce(&State) + Send>),
    Reader(oneshot::Sender<Reader>),
    DropOlder(Timestamp, u64),
    Stop(oneshot::Sender<()>),
}

/// Who may come in now: a copy of the state's records for checks on every call.
#[derive(Debug, Default)]
pub struct Registry {
    /// Unrevoked certificates of trusted authorities by serial.
    pub certificates: HashMap<String, (AgentId, Timestamp)>,
    /// Until when some unrevoked certificate of an agent is valid.
    pub agents: HashMap<AgentId, Timestamp>,
    /// Unrevoked principals by the digest of their credential.
    pub principals: HashMap<[u8; 32], (String, Role, Option<Timestamp>)>,
}

impl Registry {
    pub(crate) fn of(state: &State) -> Self {
        let admitted = |c: &&Certificate| c.revoked_at.is_none() && authority::is_trusted(state, c.authority);
        let certificates: Vec<_> = state.certificates().filter(admitted).collect();
        let mut agents: HashMap<AgentId, Timestamp> = HashMap::new();
        for certificate in &certificates {
            let until = agents.entry(certificate.agent).or_insert(Timestamp::MIN);
            *until = (*until).max(tolerated_until(certificate.not_before, certificate.not_after));
        }
        let principals = state.principals().filter(|principal| principal.revoked_at.is_none());
        Self {
            agents,
            certificates: certificates
                .iter()
                .map(|c| (c.serial.clone(), (c.agent, tolerated_until(c.not_before, c.not_after))))
                .collect(),
            principals: principals
                .map(|p| (p.secret_sha256, (p.name.clone(), p.role, p.expires_at)))
                .collect(),
        }
    }

    /// Whether a certificate of an agent may come in at `now`, or a little after its end.
    pub fn admits(&self, serial: &str, agent: AgentId, now: Timestamp) -> bool {
        self.certificates.get(serial).is_some_and(|(owner, until)| *owner == agent && now < *until)
    }

    /// Whether an agent may keep a stream that is open: a renewed certificate takes the place of the one it began with.
    pub fn keeps(&self, agent: AgentId, now: Timestamp) -> bool {
        self.agents.get(&agent).is_some_and(|until| now < *until)
    }

    /// The principal with this credential at `now`.
    pub fn principal(&self, digest: &[u8; 32], now: Timestamp) -> Option<(&str, Role)> {
        let (name, role, until) = self.principals.get(digest)?;
        until.is_none_or(|until| now < until).then_some((name.as_str(), *role))
    }
}

/// A handle to the ledger; cloning is cheap.
#[derive(Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Job>,
    head: watch::Receiver<u64>,
    registry: watch::Receiver<Arc<Registry>>,
    current: Arc<ArcSwap<Registry>>,
    next_due: Arc<AtomicI64>,
    mode: Arc<ArcSwapOption<String>>,
}

impl Ledger {
    /// Submits a command and waits until it is durable or refused.
    pub async fn submit(&self, command: Command, actor: Actor) -> Result<Decided, Stopping> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Decide { command: Box::new(command), actor, reply: Some(reply) };
        self.jobs.send(job).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Submits commands that belong together, so that they share a group; waits for all their answers, in order.
    pub async fn submit_all(&self, commands: Vec<Command>, actor: Actor) -> Result<Vec<Decided>, Stopping> {
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let (reply, answer) = oneshot::channel();
            let job = Job::Decide { command: Box::new(command), actor: actor.clone(), reply: Some(reply) };
            self.jobs.send(job).await.map_err(|_| Stopping)?;
            answers.push(answer);
        }
        let mut decided = Vec::with_capacity(answers.len());
        for answer in answers {
            decided.push(answer.await.map_err(|_| Stopping)?);
        }
        Ok(decided)
    }

    /// Submits a command from a thread, without waiting for its answer; waits for room in the queue.
    pub fn post_blocking(&self, command: Command, actor: Actor) -> Result<(), Stopping> {
        self.jobs
            .blocking_send(Job::Decide { command: Box::new(command), actor, reply: None })
            .map_err(|_| Stopping)
    }

    /// Like `submit`, from a thread.
    pub fn submit_blocking(&self, command: Command, actor: Actor) -> Result<Decided, Stopping> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Decide { command: Box::new(command), actor, reply: Some(reply) };
        self.jobs.blocking_send(job).map_err(|_| Stopping)?;
        answer.blocking_recv().map_err(|_| Stopping)
    }

    /// Reads the durable state; `read` runs on the ledger's thread and must be short.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Read(Box::new(move |state| drop(reply.send(read(state)))));
        self.jobs.send(job).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// Like `read`, from a thread.
    pub fn read_blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Read(Box::new(move |state| drop(reply.send(read(state)))));
        self.jobs.blocking_send(job).map_err(|_| Stopping)?;
        answer.blocking_recv().map_err(|_| Stopping)
    }

    /// A reader of the events journal, at its first record.
    pub async fn reader(&self) -> Result<Reader, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Reader(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    /// The last durable event's seq, and a way to wait for the next.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.clone()
    }

    /// Who may come in now.
    pub fn registry(&self) -> Arc<Registry> {
        self.current.load_full()
    }

    /// Changes of who may come in.
    pub fn registry_changes(&self) -> watch::Receiver<Arc<Registry>> {
        self.registry.clone()
    }

    /// When a `Tick` next has something to do.
    pub fn next_due(&self) -> Timestamp {
        Timestamp::from_millis(self.next_due.load(Ordering::Relaxed))
    }

    /// Why incidents are read only, while they are: a line for people.
    pub fn degraded(&self) -> Option<Arc<String>> {
        self.mode.load_full()
    }

    /// Drops whole segments whose events were all written before `time`, that a checkpoint covers and that every
    /// consumer has acknowledged. While the journal has more than `bytes_max`, nobody is waited for: who has not
    /// acknowledged them is told of the gap.
    pub async fn drop_older(&self, time: Timestamp, bytes_max: u64) -> Result<(), Stopping> {
        self.jobs.send(Job::DropOlder(time, bytes_max)).await.map_err(|_| Stopping)
    }

    /// Writes a checkpoint and ends the thread, after everything submitted before.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Stop(reply)).await.is_ok() {
            answer.await.ok(); // An error means that it has ended already.
        }
    }
}

/// A journal and the state it folds to, before its thread runs.
pub struct Opened {
    state: State,
    log: Log,
    disk: Arc<dyn Disk>,
    checkpoints: PathBuf,
    checkpoint_seq: u64,
    room: Arc<Room>,
    /// What was found missing and is not known yet: the writer's first decision.
    found: Findings,
    /// What was found and is worth telling people.
    pub problems: Vec<String>,
}

impl Opened {
    /// The state that was found.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was found missing.
    pub fn found(&self) -> &Findings {
        &self.found
    }

    /// The room that its disk has; without a word there is no end of it.
    pub fn in_room(self, room: Arc<Room>) -> Self {
        Self { room, ..self }
    }

    /// Starts the thread. `fatal` is told why it ended, if the disk failed it; `stop` is cancelled then.
    pub fn start(self, defaults: Defaults, fatal: Fatal) -> Ledger {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let registry = Arc::new(Registry::of(&self.state));
        let (head_out, head) = watch::channel(self.log.durable_seq());
        let (registry_out, registry_in) = watch::channel(registry.clone());
        let current = Arc::new(ArcSwap::new(registry));
        let next_due = Arc::new(AtomicI64::new(due(&self.state)));
        let ledger = Ledger {
            jobs,
            head,
            registry: registry_in,
            current: current.clone(),
            next_due: next_due.clone(),
            mode: Arc::default(),
        };
        let writer = Writer {
            state: self.state,
            log: self.log,
            disk: self.disk,
            checkpoints: self.checkpoints,
            checkpoint_seq: self.checkpoint_seq,
            defaults,
            head: head_out,
            registry: registry_out,
            current,
            next_due,
            room: self.room,
            stop: fatal.stop.clone(),
            waiting_bytes: 0,
            group_begins: true,
            checkpoint_after: 0,
            mode: ledger.mode.clone(),
        };
        let found = (!self.found.is_empty()).then_some(self.found);
        thread::Builder::new()
            .name("ledger".into())
            .spawn(move || fatal.guard("events journal", || writer.run(found, queue)))
            .expect("a thread can be started at the start of the process");
        ledger
    }
}

/// Where a part reports that it can't go on; the first report stops the collector.
#[derive(Clone)]
pub struct Fatal {
    pub stop: CancellationToken,
    pub why: Arc<std::sync::Mutex<Option<String>>>,
}

impl Fatal {
    /// A report card that cancels `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, why: Arc::default() }
    }

    /// Runs a part; an error or a panic of it stops the collector.
    pub fn guard<E: std::fmt::Display>(&self, part: &str, run: impl FnOnce() -> Result<(), E>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let why = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{part}: {error}"),
            Err(_) => format!("{part}: it panicked; the log has the place"),
        };
        self.report(why);
    }

    /// Runs a task that there is one of; a panic of it stops the collector.
    pub async fn watch(self, part: &'static str, task: impl Future<Output = ()>) {
        if let Err(panicked) = contained(task).await {
            self.report(format!("{part}: {panicked}"));
        }
    }

    /// Stops the collector; the first reason is kept.
    pub fn report(&self, why: String) {
        tracing::error!("{why}: stopping");
        let mut slot = self.why.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        slot.get_or_insert(why);
        self.stop.cancel();
    }

    /// Why the collector stopped, if something failed.
    pub fn reason(&self) -> Option<String> {
        self.why.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

struct Writer {
    state: State,
    log: Log,
    disk: Arc<dyn Disk>,
    checkpoints: PathBuf,
    checkpoint_seq: u64,
    defaults: Defaults,
    head: watch::Sender<u64>,
    registry: watch::Sender<Arc<Registry>>,
    current: Arc<ArcSwap<Registry>>,
    next_due: Arc<AtomicI64>,
    room: Arc<Room>,
    stop: CancellationToken,
    /// Bytes of the group that are not durable yet.
    waiting_bytes: usize,
    /// Whether everything appended is durable.
    group_begins: bool,
    /// No checkpoint before this event: the last attempt found no room.
    checkpoint_after: u64,
    /// Why incidents are read only, while they are.
    mode: Arc<ArcSwapOption<String>>,
}

/// What waits for the group to be durable.
enum Waiting {
    Answer(oneshot::Sender<Decided>, Decided),
    Read(Box<dyn FnOnce(&State) + Send>),
    Reader(oneshot::Sender<Reader>),
}

impl Writer {
    fn run(mut self, found: Option<Findings>, mut queue: mpsc::Receiver<Job>) -> Result<(), JournalError> {
        if let Some(found) = found {
            // Before anything else: a tear is known by the event that follows it.
            self.decide(&Command::JournalFound(found), &Actor::System)?.ok(); // It is never refused.
        }
        self.settle(Vec::new(), false)?;
        let mut group = Vec::with_capacity(GROUP_MAX);
        loop {
            if queue.blocking_recv_many(&mut group, GROUP_MAX) == 0 {
                return self.checkpoint();
            }
            let (mut waiting, mut stop, mut who_changed) = (Vec::with_capacity(group.len()), None, false);
            for job in group.drain(..) {
                match job {
                    Job::Decide { command, actor, reply } => {
                        let decided = self.decide(&command, &actor)?;
                        who_changed |= decided.iter().flatten().any(changes_who);
                        if let Err(refusal) = &decided {
                            tracing::debug!(%actor, %refusal, "refused");
                        }
                        if let Some(reply) = reply {
                            waiting.push(Waiting::Answer(reply, decided));
                        }
                    }
                    Job::Read(read) => waiting.push(Waiting::Read(read)),
                    Job::Reader(reply) => waiting.push(Waiting::Reader(reply)),
                    Job::DropOlder(time, bytes_max) => self.drop_older(time, bytes_max)?,
                    Job::Stop(reply) => stop = Some(reply),
                }
            }
            self.settle(waiting, who_changed)?;
            if let Some(reply) = stop {
                self.checkpoint()?;
                reply.send(()).ok(); // Whoever asked may have left.
                return Ok(());
            }
            let due = self.checkpoint_seq + CHECKPOINT_EVERY;
            if self.state.last_seq() >= due.max(self.checkpoint_after) {
                self.checkpoint()?;
            }
        }
    }

    /// Decides one command and takes its events into the log's buffer and the state.
    fn decide(&mut self, command: &Command, actor: &Actor) -> Result<Decided, JournalError> {
        let now = clock::now();
        if self.room.is_exhausted() && !gives_room(command) {
            return Ok(Err(Refusal::NoRoom));
        }
        let drafts = match decide(&self.state, command, actor, now, &self.defaults) {
            Ok(drafts) => drafts,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let first = self.log.next_seq();
        let events = drafts.into_iter().enumerate().map(|(index, draft)| draft.into_event(first, index, now));
        let events: Vec<Event> = events.collect();
        let payloads: Vec<Vec<u8>> =
            events.iter().map(|event| pb::Event::from(event).encode_to_vec()).collect();
        self.make_room(payloads.iter().map(|payload| payload.len() + FRAME_BYTES).sum())?;
        for (index, payload) in payloads.iter().enumerate() {
            let more = if index + 1 < payloads.len() { whole::MORE } else { 0 };
            let group = if std::mem::take(&mut self.group_begins) { whole::GROUP } else { 0 };
            self.roomy(|log| log.append(more | group, payload))?;
        }
        events.iter().for_each(|event| self.state.apply(event));
        Ok(Ok(events))
    }

    /// A decision lies in one segment and becomes durable at once, so that a crash leaves all of it or nothing.
    fn make_room(&mut self, bytes: usize) -> Result<(), JournalError> {
        if self.log.will_roll(bytes) {
            self.roomy(Log::roll)?;
            (self.group_begins, self.waiting_bytes) = (true, 0);
        } else if self.waiting_bytes + bytes > WAITING_BYTES_MAX {
            self.roomy(Log::sync)?;
            (self.group_begins, self.waiting_bytes) = (true, 0);
        }
        self.waiting_bytes += bytes;
        Ok(())
    }

    /// A segment is older than `time` when the one after it begins with an event that is.
    fn drop_older(&mut self, time: Timestamp, bytes_max: u64) -> Result<(), JournalError> {
        let slowest = self.state.consumers().min_by_key(|consumer| consumer.acked_seq);
        let acked = slowest.map_or(u64::MAX, |consumer| consumer.acked_seq);
        let (segments, mut bytes, mut keep_from) = (self.log.segments(), self.log.bytes(), None);
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            let mut reader = self.log.reader();
            reader.seek(next.first_seq)?;
            let Some(first) = reader.next()? else { break };
            let old = decode(&first.payload, first.seq)?.recorded_at < time;
            let done = segment.last_seq <= acked || bytes > bytes_max;
            if !old || !done || segment.last_seq > self.checkpoint_seq {
                break;
            }
            keep_from = Some(next.first_seq);
            bytes -= segment.bytes;
        }
        let Some(seq) = keep_from else { return Ok(()) };
        if let Some(slowest) = slowest.filter(|consumer| consumer.acked_seq + 1 < seq) {
            let (consumer, acked) = (&slowest.name, slowest.acked_seq);
            tracing::warn!(%consumer, acked, first_kept = seq, "old events go although a consumer has not acknowledged them: the journal has grown to its bound");
        }
        self.log.drop_segments_before(seq)?;
        Ok(())
    }

    /// Makes the group durable, then shows it.
    fn settle(&mut self, waiting: Vec<Waiting>, who_changed: bool) -> Result<(), JournalError> {
        let durable = self.roomy(Log::sync)?;
        (self.group_begins, self.waiting_bytes) = (true, 0);
        if who_changed {
            let registry = Arc::new(Registry::of(&self.state));
            self.current.store(registry.clone());
            self.registry.send_replace(registry);
        }
        self.next_due.store(due(&self.state), Ordering::Relaxed);
        if self.mode.load().is_some() || self.state.is_degraded() {
            self.mode.store(self.state.degraded().map(Arc::new));
        }
        self.head.send_if_modified(|head| std::mem::replace(head, durable) != durable);
        for waiting in waiting {
            match waiting {
                Waiting::Answer(reply, decided) => drop(reply.send(decided)), // Whoever asked may have left.
                Waiting::Read(read) => read(&self.state),
                Waiting::Reader(reply) => drop(reply.send(self.log.reader())),
            }
        }
        Ok(())
    }
}

fn due(state: &State) -> i64 {
    state.next_due().unwrap_or(Timestamp::MAX).as_millis()
}

/// What is decided even when the reserve is used up: settling a sealing lets journal segments go, and what a start
/// finds must be the first event.
fn gives_room(command: &Command) -> bool {
    matches!(command, Command::Sealed(_) | Command::JournalFound(_))
}

fn changes_who(event: &Event) -> bool {
    matches!(event.subject, Subject::Certificate(_) | Subject::Authority(_) | Subject::Principal(_))
}

/// An event from the journal's bytes.
pub fn decode(payload: &[u8], seq: u64) -> Result<Event, JournalError> {
    let failed = |why: String| JournalError::Event { seq, why };
    let event = pb::Event::decode(payload).map_err(|error| failed(error.to_string()))?;
    Event::try_from(event).map_err(|error| failed(error.to_string()))
}
