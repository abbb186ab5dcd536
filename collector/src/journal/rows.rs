//! The samples journal's one writer: rows become durable, then visible, then acknowledged and evaluated.
//!
//! Rows are written as their agent sent them. A segment decodes alone: the first row of a chain in a segment, or one
//! whose predecessor is not there, is written whole. Per (agent, epoch) the writer holds which seqs it has; a row it
//! has is acknowledged again and goes no further. Here is no decoding of the wire (`ingest`) and no evaluation.

mod followed;
pub mod head;
mod read;
pub mod received;
mod table;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Instant;

use tocsin_shared::disk::Disk;
use tocsin_shared::event::{LaneProgress, Sealed};
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::labels::Labels;
use tocsin_shared::log::{Config, Log, LogError};
use tocsin_shared::ranges::Ranges;
use tocsin_shared::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::ledger::Fatal;
use super::{JournalError, SAMPLES_FORMAT, SAMPLES_SEGMENT, Stopping};
use crate::room::Room;
use crate::samples::{SealedTo, Store};
use head::Head;
use read::{Decoder, Kept};
use received::{Differing, NoRoom, Received};
use write::Writer;

/// Batches that wait for the writer. A batch is at most a megabyte, so this bounds what a slow disk piles up.
const QUEUE: usize = 256;
/// Of them, batches of rows that hosts kept while they were away: new rows and a session's first questions wait behind
/// no more than these, and one fdatasync still carries thousands of rows.
const KEPT_MAX: usize = 64;

/// Damaged rows that are named at a start; one that follows many others says nothing new.
const PROBLEMS_MAX: usize = 100;

const KIND_STREAM: u8 = 1;
const KIND_ROW: u8 = 2;
const KIND_DERIVED: u8 = 3;
const KIND_EVALUATED: u8 = 4;
const KIND_RECEIVED_SERIES: u8 = 5;
const KIND_RECEIVED: u8 = 6;

/// A table of series that rows name.
#[derive(Debug)]
pub struct Table {
    pub id: u64,
    pub series: Arc<[Labels]>,
}

/// A row that was decoded and found valid.
#[derive(Debug)]
pub struct TakenRow {
    pub seq: u64,
    pub table: Arc<Table>,
    pub chain: u64,
    pub index: u32,
    /// Event time.
    pub at: Timestamp,
    /// The row's own two times, as it was encoded.
    pub wall: Timestamp,
    pub boot_ms: u64,
    pub values: Vec<f64>,
    /// As received.
    pub data: Vec<u8>,
}

/// Rows of one session.
#[derive(Debug)]
pub struct Batch {
    pub agent: AgentId,
    pub epoch: Epoch,
    pub rows: Vec<TakenRow>,
    pub received: Instant,
    /// What is durable after this batch; the session acknowledges it.
    pub acknowledge: watch::Sender<Ranges>,
}

/// A durable row, for evaluation.
#[derive(Clone, Copy, Debug)]
pub struct DurableRow {
    pub agent: AgentId,
    pub at: Timestamp,
    pub samples_seq: u64,
    pub received: Instant,
    /// The row before it in its spool is here.
    pub follows: bool,
    /// No row of its spool is missing that is older than one that came.
    pub complete: bool,
}

/// A value that a recording rule gave.
#[derive(Clone, Debug)]
pub struct Derived {
    pub agent: Option<AgentId>,
    pub labels: Labels,
    pub at: Timestamp,
    pub value: f64,
}

/// A place for a batch of a backlog; free again when its rows are settled.
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

enum Job {
    Batch(Batch, Option<Place>),
    Progress { agent: AgentId, epoch: Epoch, reply: oneshot::Sender<Ranges> },
    Tip { agent: AgentId, epoch: Epoch, reply: oneshot::Sender<Option<Tip>> },
    Gap { agent: AgentId, epoch: Epoch, first: u64, last: u64, acknowledge: watch::Sender<Ranges> },
    Derived(Vec<Derived>),
    Received(Received, oneshot::Sender<Result<Differing, NoRoom>>),
    Standing(oneshot::Sender<Standing>),
    Head(oneshot::Sender<Head>),
    Evaluated(u64),
    DropBefore(u64),
    Stop(oneshot::Sender<()>),
}

/// The highest row of a spool and its fingerprint: whether a spool that comes back is in the same life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub seq: u64,
    pub fingerprint: u32,
}

impl Tip {
    /// The higher one of a row and what is known.
    fn raise(known: Option<Self>, seq: u64, fingerprint: impl FnOnce() -> u32) -> Option<Self> {
        if known.is_some_and(|known| known.seq >= seq) {
            known
        } else {
            Some(Self { seq, fingerprint: fingerprint() })
        }
    }
}

/// Where the writer stands between two groups: what sealing needs to know.
#[derive(Debug)]
pub struct Standing {
    /// Everything up to here is durable and in the sample store.
    pub through: u64,
    /// The last of it that rules run over; 0 when there was none since the start. Once that is evaluated, all is.
    pub newest_row: u64,
    pub lanes: Vec<LaneProgress>,
    /// First row and youngest event time of each segment, oldest first.
    pub segments: Vec<(u64, Timestamp)>,
    pub bytes: u64,
}

impl Standing {
    /// From where the journal is needed once everything before `sealed_to` is in blocks.
    pub fn needed_from(&self, sealed_to: Timestamp) -> u64 {
        let needed = self.segments.iter().find(|(_, youngest)| *youngest >= sealed_to);
        needed.map_or(self.through + 1, |(first, _)| *first)
    }
}

/// A handle to the writer; cloning is cheap.
#[derive(Clone)]
pub struct Rows {
    jobs: mpsc::Sender<Job>,
    tail: Arc<AtomicU64>,
    duplicates: Arc<AtomicU64>,
    store: Arc<Store>,
    places: Arc<Semaphore>,
}

impl Rows {
    async fn send(&self, job: Job) -> Result<(), Stopping> {
        self.jobs.send(job).await.map_err(|_| Stopping)
    }

    /// Rows that came again since the start, and went no further.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Hands over rows; waits while the writer is behind. The answer comes by `Batch::acknowledge`.
    pub async fn take(&self, batch: Batch) -> Result<(), Stopping> {
        self.send(Job::Batch(batch, None)).await
    }

    /// Waits for a place for a batch of a backlog, in the order of asking.
    pub fn place(&self) -> impl Future<Output = Result<Place, Stopping>> + Send + Sync + 'static {
        let places = Arc::clone(&self.places);
        async move { places.acquire_owned().await.map(Place).map_err(|_| Stopping) }
    }

    /// Hands over rows of a backlog, for which there is a place.
    pub async fn take_kept(&self, batch: Batch, place: Place) -> Result<(), Stopping> {
        self.send(Job::Batch(batch, Some(place))).await
    }

    /// What is durable of a spool's samples lane.
    pub async fn progress(&self, agent: AgentId, epoch: Epoch) -> Result<Ranges, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Progress { agent, epoch, reply }).await?;
        answer.await.map_err(|_| Stopping)
    }

    /// The highest row of a spool's samples lane, as long as the journal has any.
    pub async fn tip(&self, agent: AgentId, epoch: Epoch) -> Result<Option<Tip>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Tip { agent, epoch, reply }).await?;
        answer.await.map_err(|_| Stopping)
    }

    /// These rows will never come; their gap record is durable in the events journal.
    pub async fn gap(
        &self,
        (agent, epoch): (AgentId, Epoch),
        (first, last): (u64, u64),
        acknowledge: watch::Sender<Ranges>,
    ) -> Result<(), Stopping> {
        self.send(Job::Gap { agent, epoch, first, last, acknowledge }).await
    }

    /// A table whose label texts are those that other hosts' tables have already: most of them are the same.
    pub fn share_texts(&self, table: &[Labels]) -> Arc<[Labels]> {
        self.store.share_texts(table)
    }

    /// Keeps what recording rules gave; false when the queue is full. It never waits: the writer waits for evaluation.
    pub fn derived(&self, values: Vec<Derived>) -> bool {
        self.jobs.try_send(Job::Derived(values)).is_ok()
    }

    /// Where the writer stands.
    pub async fn standing(&self) -> Result<Standing, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Standing(reply)).await?;
        answer.await.map_err(|_| Stopping)
    }

    /// Ends the segment, so that the rows after the head file that is to be written are read alone.
    pub async fn begin_head(&self) -> Result<Head, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Head(reply)).await?;
        answer.await.map_err(|_| Stopping)
    }

    /// Bytes of rows since the last head file was begun: what a start would read.
    pub fn tail_bytes(&self) -> u64 {
        self.tail.load(Ordering::Relaxed)
    }

    /// Notes that every row up to `through` is evaluated; whatever that said is durable in the events journal.
    pub async fn evaluated(&self, through: u64) -> Result<(), Stopping> {
        self.send(Job::Evaluated(through)).await
    }

    /// Drops whole segments that end before `seq`.
    pub async fn drop_before(&self, seq: u64) -> Result<(), Stopping> {
        self.send(Job::DropBefore(seq)).await
    }

    /// Ends the thread after everything submitted before.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.send(Job::Stop(reply)).await.is_ok() {
            answer.await.ok(); // An error means that it has ended already.
        }
    }
}

/// The samples journal, read back, before its thread runs.
pub struct Opened {
    log: Log,
    progress: HashMap<(AgentId, Epoch), Ranges>,
    tips: HashMap<(AgentId, Epoch), Tip>,
    segments: Vec<(u64, Timestamp)>,
    store: Arc<Store>,
    room: Arc<Room>,
    /// Bytes of the rows that were read.
    tail: u64,
    /// Rows that were durable but perhaps not evaluated, in order.
    pub unevaluated: Vec<DurableRow>,
    /// The youngest row of each host that was evaluated: what is older is late, also after a start.
    pub evaluated_at: HashMap<AgentId, Timestamp>,
    pub problems: Vec<String>,
}

/// What the events journal knows of the samples.
pub struct Found<'a> {
    pub sealed: &'a Sealed,
    pub lanes: Vec<LaneProgress>,
    pub evaluated_through: u64,
}

/// Opens the samples journal under `dir` and fills `store` with the rows that are in no block yet.
pub fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    store: Arc<Store>,
    found: Found<'_>,
) -> Result<Opened, JournalError> {
    open_with(SAMPLES_SEGMENT, disk, dir, store, found)
}

/// `open` with segments of another size.
pub fn open_with(
    config: Config,
    disk: Arc<dyn Disk>,
    dir: &Path,
    store: Arc<Store>,
    found: Found<'_>,
) -> Result<Opened, JournalError> {
    let Found { sealed, lanes, evaluated_through } = found;
    let (log, recovery) = Log::open(disk, &dir.join("samples"), SAMPLES_FORMAT, config)?;
    let problems = recovery.lost.iter().filter(|lost| !lost.torn).map(|lost| damaged(lost.first, lost.last));
    let problems = problems.collect();
    let progress =
        lanes.into_iter().map(|progress| ((progress.agent, progress.epoch), progress.taken)).collect();
    let segments = log.segments().iter().map(|segment| (segment.first_seq, Timestamp::MIN)).collect();
    let evaluated_at = store.last_rows().into_iter().collect();
    let unevaluated = Vec::new();
    let room = Room::boundless();
    let (tips, tail) = Default::default();
    let mut opened =
        Opened { log, progress, tips, segments, store, room, tail, unevaluated, evaluated_at, problems };
    let head = opened.restore(sealed);
    opened.replay(sealed, head, evaluated_through.max(head))?;
    Ok(opened)
}

fn missing(first: u64, last: u64) -> String {
    format!(
        "rows {first} to {last} of the samples journal are missing: a crash tore them off before they were acknowledged, or a file is damaged"
    )
}

fn damaged(first: u64, last: u64) -> String {
    format!("rows {first} to {last} of the samples journal are damaged: those samples are missing")
}

impl Opened {
    /// Takes what head files have; gives the last row of the journal that need not be read.
    fn restore(&mut self, sealed: &Sealed) -> u64 {
        let to = SealedTo { seq: sealed.sealed_seq, to: sealed.sealed_to };
        let restored = self.store.restore_heads(to).map_err(|error| error.to_string());
        let head = match restored.and_then(|note| note.map(|note| Head::from_bytes(&note)).transpose()) {
            Ok(head) => head.unwrap_or_default(),
            Err(why) => {
                self.problems.push(format!("head files do not count, all rows are read instead: {why}"));
                return 0;
            }
        };
        for progress in head.lanes {
            let taken = self.progress.entry((progress.agent, progress.epoch)).or_default();
            if !taken.merge(&progress.taken) {
                *taken = progress.taken; // More holes than there is room for: rows that come again do no harm.
            }
        }
        for (first, youngest) in &mut self.segments {
            let known = head.segments.iter().find(|(known, _)| known == first);
            let unread = if *first <= head.through { Timestamp::MAX } else { Timestamp::MIN };
            *youngest = known.map_or(unread, |(_, youngest)| *youngest);
        }
        for (agent, at) in head.newest {
            self.store.note_last_row(agent, at);
            self.note_evaluated(agent, at);
        }
        head.through
    }

    fn replay(&mut self, sealed: &Sealed, after: u64, evaluated_through: u64) -> Result<(), JournalError> {
        let mut reader = self.log.reader();
        match reader.seek(after + 1) {
            Err(LogError::Gone { first_seq }) => reader.seek(first_seq)?,
            sought => sought?,
        }
        let (mut decoder, mut segment) = (Decoder::new(self.store.clone()), 0);
        let mut expected = reader.position();
        while let Some(entry) = reader.next()? {
            let seq = entry.seq;
            // A cut in the midst of dropping segments may keep an older one: what blocks have is not missed.
            if seq > expected.max(sealed.samples_from) {
                self.say_missing(expected.max(sealed.samples_from), seq - 1);
            }
            expected = seq + u64::from(entry.numbered);
            let began = self.segments.partition_point(|(first, _)| *first <= seq);
            if began != segment {
                segment = began;
                decoder.begin_segment();
            }
            self.tail += entry.payload.len() as u64;
            let to_show = |at: Timestamp| seq > sealed.sealed_seq || at >= sealed.sealed_to;
            match decoder.read(&entry) {
                Ok(None) => {}
                Ok(Some(Kept::Row { agent, epoch, spool_seq, at, fingerprint, table, values })) => {
                    self.note_segment(seq, at);
                    let tip = Tip::raise(self.tips.remove(&(agent, epoch)), spool_seq, || fingerprint);
                    self.tips.extend(tip.map(|tip| ((agent, epoch), tip)));
                    let taken = self.progress.entry((agent, epoch)).or_default();
                    insert(taken, spool_seq);
                    let (follows, complete) =
                        (taken.contains(spool_seq.saturating_sub(1)), taken.is_complete());
                    if to_show(at) {
                        show(&self.store, agent, &table, at, &values);
                    }
                    // That row's own evaluation may have been cut short: it comes again, and says nothing twice.
                    if seq >= evaluated_through && seq > after {
                        let received = Instant::now();
                        let row = DurableRow { agent, at, samples_seq: seq, received, follows, complete };
                        self.unevaluated.push(row);
                    } else {
                        self.note_evaluated(agent, at);
                    }
                }
                Ok(Some(Kept::Derived(derived))) => {
                    self.note_segment(seq, derived.at);
                    if to_show(derived.at) {
                        show_derived(&self.store, derived);
                    }
                }
                Ok(Some(Kept::Received(mut samples, missing))) => {
                    if missing > 0 {
                        let why = "the table of their series is damaged";
                        self.problems.push(format!("{missing} received samples of row {seq} of the samples journal are missing: {why}"));
                    }
                    let youngest = samples.iter().map(|sample| sample.at).max();
                    self.note_segment(seq, youngest.unwrap_or(Timestamp::MIN));
                    samples.retain(|sample| to_show(sample.at));
                    decoder.received.show(&samples);
                }
                Ok(Some(Kept::Evaluated(through))) => {
                    let rest = self.unevaluated.partition_point(|row| row.samples_seq <= through);
                    let evaluated = self.unevaluated.drain(..rest).collect::<Vec<_>>();
                    evaluated.into_iter().for_each(|row| self.note_evaluated(row.agent, row.at));
                }
                Err(why) => {
                    self.problems.push(format!("row {seq} of the samples journal is unreadable: {why}"))
                }
            }
            self.problems.truncate(PROBLEMS_MAX);
        }
        Ok(())
    }

    fn note_evaluated(&mut self, agent: AgentId, at: Timestamp) {
        let youngest = self.evaluated_at.entry(agent).or_insert(at);
        *youngest = at.max(*youngest);
    }

    /// Between two segments a tear looks like damage; who sent what was torn has sent it again.
    fn say_missing(&mut self, first: u64, last: u64) {
        let between = self.segments.iter().any(|(start, _)| *start == last + 1);
        let said = if between { missing(first, last) } else { damaged(first, last) };
        if !self.problems.contains(&said) {
            self.problems.push(said);
        }
    }

    fn note_segment(&mut self, seq: u64, at: Timestamp) {
        let after = self.segments.partition_point(|(first, _)| *first <= seq);
        if let Some((_, youngest)) = after.checked_sub(1).and_then(|segment| self.segments.get_mut(segment)) {
            *youngest = (*youngest).max(at);
        }
    }

    /// The room that its disk has; without a word there is no end of it.
    pub fn in_room(self, room: Arc<Room>) -> Self {
        Self { room, ..self }
    }

    /// Starts the thread; durable rows go to `evaluate`, waiting when it is behind.
    pub fn start(self, evaluate: SyncSender<DurableRow>, fatal: Fatal) -> Rows {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let store = self.store.clone();
        let (tail, duplicates) = (Arc::new(AtomicU64::new(self.tail)), Arc::default());
        let writer = Writer::new(self, tail.clone(), Arc::clone(&duplicates), evaluate);
        thread::Builder::new()
            .name("rows".into())
            .spawn(move || fatal.guard("samples journal", || writer.run(queue)))
            .expect("a thread can be started at the start of the process");
        Rows { jobs, tail, duplicates, store, places: Arc::new(Semaphore::new(KEPT_MAX)) }
    }
}

fn show(store: &Store, agent: AgentId, table: &Arc<[Labels]>, at: Timestamp, values: &[f64]) {
    if let Err(error) = store.append(agent, table, at, values) {
        tracing::warn!(%agent, %error, "a durable row is not shown");
    }
}

fn show_derived(store: &Store, Derived { agent, labels, at, value }: Derived) {
    if let Err(error) = store.append_derived(agent, labels, at, value) {
        tracing::warn!(%error, "a recorded value is not shown");
    }
}

/// The session took care that there is room for the range; one that does not fit is sent again later.
fn insert(taken: &mut Ranges, seq: u64) -> bool {
    taken.insert(seq).unwrap_or(false)
}
