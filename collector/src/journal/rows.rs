//! The samples journal's one writer: rows become durable, then visible, then acknowledged and evaluated.
//!
//! Rows are written as their agent sent them. A segment decodes alone: the first row of a chain in a segment, or one
//! whose predecessor is not there, is written whole. Per (agent, epoch) the writer holds which seqs it has; a row it
//! has is acknowledged again and goes no further. Here is no decoding of the wire (`ingest`) and no evaluation.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Instant;

use prost::Message;
use tocsin_proto::convert::{labels_in, labels_out};
use tocsin_proto::pb;
use tocsin_shared::chain::{CHAIN_ROWS_MAX, Chain};
use tocsin_shared::disk::Disk;
use tocsin_shared::event::{LaneProgress, Sealed};
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::log::{Entry, Log};
use tocsin_shared::ranges::Ranges;
use tocsin_shared::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::ledger::Fatal;
use super::{JournalError, SAMPLES_FORMAT, SAMPLES_SEGMENT, Stopping};
use crate::samples::Store;

/// Batches that wait for the writer. A batch is at most a megabyte, so this bounds what a slow disk piles up.
const QUEUE: usize = 256;
/// Batches in one group.
const GROUP_MAX: usize = 256;
/// Chains of one stream that the journal follows at a time: a live one, one that fills a hole, and their successors.
const CHAINS_MAX: usize = 4;

const KIND_STREAM: u8 = 1;
const KIND_ROW: u8 = 2;
const KIND_DERIVED: u8 = 3;

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
}

/// A value that a recording rule gave.
#[derive(Clone, Debug)]
pub struct Derived {
    pub agent: Option<AgentId>,
    pub labels: Labels,
    pub at: Timestamp,
    pub value: f64,
}

enum Job {
    Batch(Batch),
    Progress { agent: AgentId, epoch: Epoch, reply: oneshot::Sender<Ranges> },
    Gap { agent: AgentId, epoch: Epoch, first: u64, last: u64 },
    Derived(Vec<Derived>),
    Standing(oneshot::Sender<Standing>),
    DropBefore(u64),
    Stop(oneshot::Sender<()>),
}

/// Where the writer stands between two groups: what sealing needs to know.
#[derive(Debug)]
pub struct Standing {
    /// Everything up to here is durable and in the sample store.
    pub through: u64,
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
pub struct Rows(mpsc::Sender<Job>);

impl Rows {
    async fn send(&self, job: Job) -> Result<(), Stopping> {
        self.0.send(job).await.map_err(|_| Stopping)
    }

    /// Hands over rows; waits while the writer is behind. The answer comes by `Batch::acknowledge`.
    pub async fn take(&self, batch: Batch) -> Result<(), Stopping> {
        self.send(Job::Batch(batch)).await
    }

    /// What is durable of a spool's samples lane.
    pub async fn progress(&self, agent: AgentId, epoch: Epoch) -> Result<Ranges, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Progress { agent, epoch, reply }).await?;
        answer.await.map_err(|_| Stopping)
    }

    /// These rows will never come; their gap record is durable in the events journal.
    pub async fn gap(&self, agent: AgentId, epoch: Epoch, first: u64, last: u64) -> Result<(), Stopping> {
        self.send(Job::Gap { agent, epoch, first, last }).await
    }

    /// Keeps what recording rules gave; false when the queue is full. It never waits: the writer waits for evaluation.
    pub fn derived(&self, values: Vec<Derived>) -> bool {
        self.0.try_send(Job::Derived(values)).is_ok()
    }

    /// Where the writer stands.
    pub async fn standing(&self) -> Result<Standing, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Standing(reply)).await?;
        answer.await.map_err(|_| Stopping)
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
    segments: Vec<(u64, Timestamp)>,
    store: Arc<Store>,
    /// Rows that were durable but perhaps not evaluated, in order.
    pub unevaluated: Vec<DurableRow>,
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
    let Found { sealed, lanes, evaluated_through } = found;
    let (log, recovery) = Log::open(disk, &dir.join("samples"), SAMPLES_FORMAT, SAMPLES_SEGMENT)?;
    let problems = recovery.lost.iter().filter(|lost| !lost.torn).map(|lost| {
        format!(
            "rows {} to {} of the samples journal are damaged: those samples are missing",
            lost.first, lost.last
        )
    });
    let progress =
        lanes.into_iter().map(|progress| ((progress.agent, progress.epoch), progress.taken)).collect();
    let segments = log.segments().iter().map(|segment| (segment.first_seq, Timestamp::MIN)).collect();
    let problems = problems.collect();
    let mut opened = Opened { log, progress, segments, store, unevaluated: Vec::new(), problems };
    opened.replay(sealed, evaluated_through)?;
    Ok(opened)
}

impl Opened {
    fn replay(&mut self, sealed: &Sealed, evaluated_through: u64) -> Result<(), JournalError> {
        let mut reader = self.log.reader();
        let mut decoder = Decoder::default();
        while let Some(entry) = reader.next()? {
            let seq = entry.seq;
            match decoder.read(&entry) {
                Ok(None) => {}
                Ok(Some(Kept::Row { agent, epoch, spool_seq, at, table, values })) => {
                    self.note_segment(seq, at);
                    insert(self.progress.entry((agent, epoch)).or_default(), spool_seq);
                    if seq > sealed.sealed_seq || at >= sealed.sealed_to {
                        show(&self.store, agent, &table, at, values);
                    }
                    if seq > evaluated_through {
                        let received = Instant::now();
                        self.unevaluated.push(DurableRow { agent, at, samples_seq: seq, received });
                    }
                }
                Ok(Some(Kept::Derived(derived))) => {
                    self.note_segment(seq, derived.at);
                    if seq > sealed.sealed_seq || derived.at >= sealed.sealed_to {
                        show_derived(&self.store, derived);
                    }
                }
                Err(why) => {
                    self.problems.push(format!("row {seq} of the samples journal is unreadable: {why}"))
                }
            }
        }
        Ok(())
    }

    fn note_segment(&mut self, seq: u64, at: Timestamp) {
        let after = self.segments.partition_point(|(first, _)| *first <= seq);
        if let Some((_, youngest)) = after.checked_sub(1).and_then(|segment| self.segments.get_mut(segment)) {
            *youngest = (*youngest).max(at);
        }
    }

    /// Starts the thread; durable rows go to `evaluate`, waiting when it is behind.
    pub fn start(self, evaluate: SyncSender<DurableRow>, fatal: Fatal) -> Rows {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let through = self.log.durable_seq();
        let writer = Writer {
            log: self.log,
            store: self.store,
            progress: self.progress,
            segments: self.segments,
            streams: HashMap::new(),
            next_stream: 0,
            through,
            evaluate,
        };
        thread::Builder::new()
            .name("rows".into())
            .spawn(move || fatal.guard("samples journal", || writer.run(queue)))
            .expect("a thread can be started at the start of the process");
        Rows(jobs)
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

struct Stream {
    number: u64,
    /// The chains that this segment can decode, newest last, and the index each expects.
    chains: Vec<(u64, u32)>,
}

struct Writer {
    log: Log,
    store: Arc<Store>,
    progress: HashMap<(AgentId, Epoch), Ranges>,
    segments: Vec<(u64, Timestamp)>,
    streams: HashMap<(AgentId, Epoch, u64), Stream>,
    next_stream: u64,
    through: u64,
    evaluate: SyncSender<DurableRow>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), JournalError> {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while queue.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let (mut batches, mut derived, mut others) = (Vec::new(), Vec::new(), Vec::new());
            for job in group.drain(..) {
                match job {
                    Job::Batch(batch) => batches.push(self.write(batch)?),
                    Job::Derived(values) => {
                        for value in &values {
                            self.write_derived(value)?;
                        }
                        derived.extend(values);
                    }
                    other => others.push(other),
                }
            }
            self.through = self.log.sync()?;
            derived.into_iter().for_each(|value| show_derived(&self.store, value));
            for (batch, new) in batches {
                self.settle(batch, &new);
            }
            for job in others {
                if let Some(stopped) = self.answer(job)? {
                    stopped.send(()).ok(); // Whoever asked may have left.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Appends the rows of a batch that are new; gives their places in the journal.
    fn write(&mut self, batch: Batch) -> Result<(Batch, Vec<(usize, u64)>), JournalError> {
        let mut new = Vec::with_capacity(batch.rows.len());
        for (position, row) in batch.rows.iter().enumerate() {
            if insert(self.progress.entry((batch.agent, batch.epoch)).or_default(), row.seq) {
                new.push((position, self.write_row(batch.agent, batch.epoch, row)?));
            }
        }
        Ok((batch, new))
    }

    fn write_row(&mut self, agent: AgentId, epoch: Epoch, row: &TakenRow) -> Result<u64, JournalError> {
        self.begin_segment_for(row.values.len() * 12 + row.data.len() + 64)?;
        let key = (agent, epoch, row.table.id);
        if !self.streams.contains_key(&key) {
            let stream = self.open_stream(agent, epoch, &row.table)?;
            self.streams.insert(key, stream);
        }
        let stream = self.streams.get_mut(&key).expect("it was opened above");
        let data = if stream.follows(row.chain, row.index) { row.data.clone() } else { whole(row) };
        let entry = pb::JournalRow {
            stream: stream.number,
            seq: row.seq,
            chain: row.chain,
            index: row.index,
            at_ms: row.at.as_millis(),
            data,
        };
        let seq = self.log.append(KIND_ROW, &entry.encode_to_vec())?;
        self.note(seq, row.at);
        Ok(seq)
    }

    fn open_stream(&mut self, agent: AgentId, epoch: Epoch, table: &Table) -> Result<Stream, JournalError> {
        self.next_stream += 1;
        let stream = pb::JournalStream {
            stream: self.next_stream,
            agent: agent.0.as_bytes().to_vec(),
            epoch: epoch.0.as_bytes().to_vec(),
            table_id: table.id,
            series: table
                .series
                .iter()
                .map(|labels| pb::JournalSeries { labels: labels_out(labels) })
                .collect(),
        };
        self.log.append_unnumbered(KIND_STREAM, &stream.encode_to_vec())?;
        Ok(Stream { number: self.next_stream, chains: Vec::new() })
    }

    fn write_derived(&mut self, value: &Derived) -> Result<(), JournalError> {
        let entry = pb::JournalDerived {
            agent: value.agent.map(|agent| agent.0.as_bytes().to_vec()).unwrap_or_default(),
            labels: labels_out(&value.labels),
            at_ms: value.at.as_millis(),
            value: value.value,
        };
        let payload = entry.encode_to_vec();
        self.begin_segment_for(payload.len())?;
        let seq = self.log.append(KIND_DERIVED, &payload)?;
        self.note(seq, value.at);
        Ok(())
    }

    /// Starts a new segment when this one would overflow: streams and chains begin anew there.
    fn begin_segment_for(&mut self, bytes: usize) -> Result<(), JournalError> {
        if self.log.will_roll(bytes) {
            self.log.roll()?;
            self.streams.clear();
        }
        Ok(())
    }

    fn note(&mut self, seq: u64, at: Timestamp) {
        let first = self.log.segments().last().map_or(seq, |segment| segment.first_seq);
        match self.segments.last_mut() {
            Some((known, youngest)) if *known == first => *youngest = (*youngest).max(at),
            _ => self.segments.push((first, at)),
        }
    }

    /// Shows durable rows, acknowledges them and hands them to evaluation.
    fn settle(&mut self, batch: Batch, new: &[(usize, u64)]) {
        for (position, _) in new {
            let row = &batch.rows[*position];
            show(&self.store, batch.agent, &row.table.series, row.at, &row.values);
        }
        if let Some(taken) = self.progress.get(&(batch.agent, batch.epoch)) {
            batch.acknowledge.send_replace(taken.clone());
        }
        for (position, samples_seq) in new {
            let (agent, at) = (batch.agent, batch.rows[*position].at);
            let row = DurableRow { agent, at, samples_seq: *samples_seq, received: batch.received };
            self.evaluate.send(row).ok(); // Ended only when the collector stops.
        }
    }

    fn answer(&mut self, job: Job) -> Result<Option<oneshot::Sender<()>>, JournalError> {
        match job {
            Job::Progress { agent, epoch, reply } => {
                let taken = self.progress.get(&(agent, epoch)).cloned().unwrap_or_default();
                reply.send(taken).ok(); // Whoever asked may have left.
            }
            Job::Gap { agent, epoch, first, last } => {
                let taken = self.progress.entry((agent, epoch)).or_default();
                if taken.insert_range(first, last).is_err() {
                    taken.lift_floor(last); // The gap is durable; without room for a range it takes the holes before it along.
                }
            }
            Job::Standing(reply) => drop(reply.send(self.standing())),
            Job::DropBefore(seq) => {
                self.log.drop_segments_before(seq)?;
                let first = self.log.segments().first().map_or(0, |segment| segment.first_seq);
                self.segments.retain(|(segment, _)| *segment >= first);
            }
            Job::Stop(reply) => return Ok(Some(reply)),
            Job::Batch(_) | Job::Derived(_) => {} // They are written before, in `run`.
        }
        Ok(None)
    }

    fn standing(&self) -> Standing {
        let lanes = self.progress.iter().map(|((agent, epoch), taken)| LaneProgress {
            agent: *agent,
            epoch: *epoch,
            lane: Lane::Samples,
            taken: taken.clone(),
        });
        Standing {
            through: self.through,
            lanes: lanes.collect(),
            segments: self.segments.clone(),
            bytes: self.log.bytes(),
        }
    }
}

impl Stream {
    /// Whether a row can be read after the rows of its chain in this segment; it counts as written then.
    fn follows(&mut self, chain: u64, index: u32) -> bool {
        let known = self.chains.iter().position(|(known, _)| *known == chain);
        let follows = known.is_some_and(|at| self.chains[at].1 == index);
        if let Some(at) = known {
            self.chains.remove(at);
        }
        if index + 1 < CHAIN_ROWS_MAX {
            self.chains.push((chain, index + 1));
        }
        if self.chains.len() > CHAINS_MAX {
            self.chains.remove(0);
        }
        follows
    }
}

/// A row that can be read without those before it.
fn whole(row: &TakenRow) -> Vec<u8> {
    let mut data = Vec::with_capacity(row.values.len() * 6);
    Chain::new(row.values.len()).encode(row.wall, row.boot_ms, &row.values, &mut data);
    data
}

/// Reads journal entries back; it follows the same few chains a stream as the writer.
#[derive(Default)]
struct Decoder {
    streams: HashMap<u64, ReadStream>,
}

struct ReadStream {
    agent: AgentId,
    epoch: Epoch,
    table: Arc<[Labels]>,
    chains: Vec<(u64, Chain)>,
}

enum Kept<'a> {
    Row {
        agent: AgentId,
        epoch: Epoch,
        spool_seq: u64,
        at: Timestamp,
        table: Arc<[Labels]>,
        values: &'a [f64],
    },
    Derived(Derived),
}

impl Decoder {
    fn read(&mut self, entry: &Entry) -> Result<Option<Kept<'_>>, String> {
        match entry.kind {
            KIND_STREAM => self.stream(&entry.payload).map(|()| None),
            KIND_ROW => self.row(&entry.payload).map(Some),
            KIND_DERIVED => derived(&entry.payload).map(|derived| Some(Kept::Derived(derived))),
            kind => Err(format!("kind {kind} is unknown: it was written by a newer version")),
        }
    }

    fn stream(&mut self, payload: &[u8]) -> Result<(), String> {
        let pb::JournalStream { stream, agent, epoch, table_id: _, series } =
            pb::JournalStream::decode(payload).map_err(|error| error.to_string())?;
        let table = series.into_iter().map(|series| labels_in(series.labels)).collect();
        let (agent, epoch) = (AgentId(uuid(&agent)?), Epoch(uuid(&epoch)?));
        self.streams.insert(stream, ReadStream { agent, epoch, table, chains: Vec::new() });
        Ok(())
    }

    fn row(&mut self, payload: &[u8]) -> Result<Kept<'_>, String> {
        let pb::JournalRow { stream, seq, chain, index, at_ms, data } =
            pb::JournalRow::decode(payload).map_err(|error| error.to_string())?;
        let stream = self.streams.get_mut(&stream).ok_or("its stream is missing")?;
        let known = stream.chains.iter().position(|(known, _)| *known == chain);
        let mut state = match known {
            Some(at) => stream.chains.remove(at).1,
            None => Chain::new(stream.table.len()),
        };
        state.decode(&data).map_err(|error| error.to_string())?;
        if stream.chains.len() >= CHAINS_MAX {
            stream.chains.remove(0);
        }
        stream.chains.push((chain, state));
        let values = stream.chains.last().map(|(_, state)| state.values()).unwrap_or_default();
        let _ = index; // The journal's writer checked it; a full row may stand at any.
        Ok(Kept::Row {
            agent: stream.agent,
            epoch: stream.epoch,
            spool_seq: seq,
            at: Timestamp::from_millis(at_ms),
            table: stream.table.clone(),
            values,
        })
    }
}

fn derived(payload: &[u8]) -> Result<Derived, String> {
    let pb::JournalDerived { agent, labels, at_ms, value } =
        pb::JournalDerived::decode(payload).map_err(|error| error.to_string())?;
    let agent = if agent.is_empty() { None } else { Some(AgentId(uuid(&agent)?)) };
    Ok(Derived { agent, labels: labels_in(labels), at: Timestamp::from_millis(at_ms), value })
}

fn uuid(bytes: &[u8]) -> Result<Uuid, String> {
    Uuid::from_slice(bytes).map_err(|error| error.to_string())
}
