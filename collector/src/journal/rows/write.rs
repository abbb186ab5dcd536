//! The thread that writes the samples journal.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use prost::Message;
use tocsin_proto::convert::labels_out;
use tocsin_proto::pb;
use tocsin_shared::chain::Chain;
use tocsin_shared::event::LaneProgress;
use tocsin_shared::fingerprint;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::log::{Log, LogError};
use tocsin_shared::ranges::Ranges;
use tocsin_shared::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::followed::Followed;
use super::head::Head;
use super::received::Waiting;
use super::table;
use super::{
    Batch, Derived, DurableRow, Job, KIND_DERIVED, KIND_EVALUATED, KIND_RECEIVED, KIND_ROW, KIND_STREAM,
    Opened, Place, Standing, Table, TakenRow, Tip,
};
use super::{insert, show, show_derived};
use crate::clock::now;
use crate::journal::JournalError;
use crate::room::Room;
use crate::samples::Store;

/// Batches in one group.
const GROUP_MAX: usize = 256;
/// The longest that a value gets in a row: a marker and eight bytes, or a scale and a varint; and its bit.
const VALUE_BYTES_MAX: usize = 13;
/// The longest that all else of a row gets.
const ROW_BYTES: usize = 128;

struct Stream {
    number: u64,
    /// What its rows are values of: an agent may give a table's id another meaning in its next session.
    series: Arc<[Labels]>,
    /// The chains that this segment can decode.
    chains: Followed<()>,
}

fn next_segment() -> u64 {
    static SEGMENTS: AtomicU64 = AtomicU64::new(1);
    SEGMENTS.fetch_add(1, Ordering::Relaxed)
}

/// A row of a batch that was new.
struct Written {
    position: usize,
    samples_seq: u64,
    follows: bool,
    complete: bool,
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) store: Arc<Store>,
    pub(super) progress: HashMap<(AgentId, Epoch), Ranges>,
    tips: HashMap<(AgentId, Epoch), Tip>,
    pub(super) segments: Vec<(u64, Timestamp)>,
    pub(super) evaluate: SyncSender<DurableRow>,
    pub(super) duplicates: Arc<AtomicU64>,
    streams: HashMap<(AgentId, Epoch, u64), Stream>,
    next_stream: u64,
    through: u64,
    room: Arc<Room>,
    /// Bytes since the last head file was begun.
    pub(super) tail: Arc<AtomicU64>,
    /// The last row that rules run over.
    pub(super) newest_row: u64,
    /// What is declared in one segment counts in no other: a number for each, unique in the process.
    pub(super) segment: u64,
}

/// What is written and made durable at once.
#[derive(Default)]
struct Group {
    /// With the positions and numbers of the rows that were new.
    batches: Vec<(Batch, Vec<Written>)>,
    derived: Vec<Derived>,
    received: Vec<Waiting>,
    /// How far rows were evaluated, if that is to be noted.
    evaluated: Option<u64>,
    others: Vec<Job>,
    /// Of the batches that are of a backlog: held until the group is settled.
    places: Vec<Place>,
    /// What was known of each spool before.
    before: HashMap<(AgentId, Epoch), Ranges>,
}

impl Writer {
    pub(super) fn new(
        opened: Opened,
        tail: Arc<AtomicU64>,
        duplicates: Arc<AtomicU64>,
        evaluate: SyncSender<DurableRow>,
    ) -> Self {
        let Opened { log, store, progress, tips, segments, room, unevaluated, .. } = opened;
        let through = log.durable_seq();
        let newest_row = unevaluated.last().map_or(0, |row| row.samples_seq);
        let (streams, next_stream) = (HashMap::new(), 0);
        Self {
            log,
            store,
            progress,
            tips,
            segments,
            evaluate,
            duplicates,
            streams,
            next_stream,
            through,
            room,
            tail,
            newest_row,
            segment: next_segment(),
        }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), JournalError> {
        let mut jobs = Vec::with_capacity(GROUP_MAX);
        while queue.blocking_recv_many(&mut jobs, GROUP_MAX) > 0 {
            let mut group = Group::default();
            for job in jobs.drain(..) {
                match job {
                    Job::Batch(batch, place) => {
                        group.batches.push((batch, Vec::new()));
                        group.places.extend(place);
                    }
                    Job::Derived(values) => group.derived.extend(values),
                    Job::Received(received, reply) => group.received.push(Waiting::new(received, reply)),
                    Job::Evaluated(through) => group.evaluated = Some(through),
                    other => group.others.push(other),
                }
            }
            // Refused before they are anywhere: their sessions know from the gate.
            if self.room.takes_rows() {
                match self.write_group(&mut group) {
                    Err(error) if error.is_full() => self.give_up(&mut group, &error),
                    written => written?,
                }
                self.through = self.log.durable_seq();
                group.derived.into_iter().for_each(|value| show_derived(&self.store, value));
                for (batch, new) in group.batches {
                    self.settle(batch, &new);
                }
            }
            group.received.into_iter().for_each(|waiting| self.settle_received(waiting));
            for job in group.others {
                if let Some(stopped) = self.answer(job)? {
                    stopped.send(()).ok(); // Whoever asked may have left.
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Appends what is new and makes it durable.
    fn write_group(&mut self, group: &mut Group) -> Result<(), LogError> {
        for (batch, new) in &mut group.batches {
            let key = (batch.agent, batch.epoch);
            group.before.entry(key).or_insert_with(|| self.progress.get(&key).cloned().unwrap_or_default());
            if let Some(highest) = batch.rows.iter().max_by_key(|row| row.seq) {
                let of_row = || fingerprint::of_row(highest.wall, highest.boot_ms, &highest.values);
                let tip = Tip::raise(self.tips.remove(&key), highest.seq, of_row);
                self.tips.extend(tip.map(|tip| (key, tip)));
            }
            for (position, row) in batch.rows.iter().enumerate() {
                let taken = self.progress.entry(key).or_default();
                if insert(taken, row.seq) {
                    let (follows, complete) =
                        (taken.contains(row.seq.saturating_sub(1)), taken.is_complete());
                    let samples_seq = self.write_row(batch.agent, batch.epoch, row)?;
                    new.push(Written { position, samples_seq, follows, complete });
                } else {
                    self.duplicates.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        for waiting in &mut group.received {
            self.write_received(waiting)?;
        }
        for value in &group.derived {
            self.write_derived(value)?;
        }
        if let Some(through) = group.evaluated {
            self.note_evaluated(through)?;
        }
        self.log.sync().map(drop)
    }

    /// The disk is full: what of the group is durable stays, the rest was never taken and comes again.
    fn give_up(&mut self, group: &mut Group, error: &LogError) {
        let why = format!("the disk is full: {error}");
        let refused = self.log.discard();
        tracing::warn!(refused, why, "rows are refused");
        // What waited for the same segment is gone with it: streams and chains begin anew.
        self.begin_anew();
        let durable = self.log.durable_seq();
        group.received.iter_mut().for_each(|waiting| waiting.give_up(durable));
        self.segments.retain(|(first, _)| *first <= durable + 1);
        self.progress.extend(group.before.drain());
        group.derived.clear(); // They are shown; a start has them again if a rule gives them again.
        for (batch, new) in &mut group.batches {
            new.retain(|written| written.samples_seq <= durable);
            let taken = self.progress.entry((batch.agent, batch.epoch)).or_default();
            for written in new {
                insert(taken, batch.rows[written.position].seq);
            }
        }
        self.room.close(&why, now());
    }

    fn write_row(&mut self, agent: AgentId, epoch: Epoch, row: &TakenRow) -> Result<u64, LogError> {
        let key = (agent, epoch, row.table.id);
        let known = self.streams.get(&key).is_some_and(|stream| same(&stream.series, &row.table.series));
        // Both frames go into one segment, so their room is looked for at once.
        let opening = || stream_of(agent, epoch, &row.table);
        let mut unopened = (!known).then(opening);
        let bytes = unopened.as_ref().map_or(0, Message::encoded_len)
            + (row.values.len() * VALUE_BYTES_MAX).max(row.data.len())
            + ROW_BYTES;
        if self.begin_segment_for(bytes)? {
            unopened = unopened.or_else(|| Some(opening()));
        }
        if let Some(stream) = unopened {
            self.open_stream(key, stream, &row.table.series)?;
        }
        let stream = self.streams.get_mut(&key).expect("it was opened above or before in this segment");
        let data = match stream.chains.take(row.chain, row.index) {
            Some(()) => row.data.clone(),
            None => whole(row),
        };
        stream.chains.keep(row.chain, row.index, ());
        let entry = pb::JournalRow {
            stream: stream.number,
            seq: row.seq,
            chain: row.chain,
            index: row.index,
            at_ms: row.at.as_millis(),
            data,
        };
        let payload = entry.encode_to_vec();
        self.tail.fetch_add(payload.len() as u64, Ordering::Relaxed);
        let seq = self.log.append(KIND_ROW, &payload)?;
        self.newest_row = seq;
        self.note(seq, row.at);
        Ok(seq)
    }

    fn open_stream(
        &mut self,
        key: (AgentId, Epoch, u64),
        stream: pb::JournalStream,
        series: &Arc<[Labels]>,
    ) -> Result<(), LogError> {
        self.note_segment_start();
        self.next_stream += 1;
        let number = self.next_stream;
        let payload = pb::JournalStream { stream: number, ..stream }.encode_to_vec();
        self.tail.fetch_add(payload.len() as u64, Ordering::Relaxed);
        self.log.append_unnumbered(KIND_STREAM, &payload)?;
        let (series, chains) = (Arc::clone(series), Followed::default());
        self.streams.insert(key, Stream { number, series, chains });
        Ok(())
    }

    fn write_derived(&mut self, value: &Derived) -> Result<(), LogError> {
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

    /// Appends a table to the segment whose room was looked for.
    pub(super) fn append_table(&mut self, kind: u8, table: &[u8]) -> Result<(), LogError> {
        self.note_segment_start();
        self.tail.fetch_add(table.len() as u64, Ordering::Relaxed);
        self.log.append_unnumbered(kind, table)
    }

    /// Appends a record of received samples, whose youngest is of `youngest`.
    pub(super) fn append_received(&mut self, record: &[u8], youngest: Timestamp) -> Result<u64, LogError> {
        self.tail.fetch_add(record.len() as u64, Ordering::Relaxed);
        let seq = self.log.append(KIND_RECEIVED, record)?;
        self.note(seq, youngest);
        Ok(seq)
    }

    /// A new segment knows no stream, no chain and no series.
    fn begin_anew(&mut self) {
        self.streams.clear();
        self.segment = next_segment();
    }

    /// Starts a new segment when this one would overflow, and says so: streams and chains begin anew there.
    pub(super) fn begin_segment_for(&mut self, bytes: usize) -> Result<bool, LogError> {
        let rolls = self.log.will_roll(bytes);
        if rolls {
            self.log.roll()?;
            self.begin_anew();
        }
        self.note_segment_start();
        Ok(rolls)
    }

    fn note_segment_start(&mut self) {
        if self.log.starts_segment()
            && self.segments.last().is_none_or(|(first, _)| *first < self.log.next_seq())
        {
            self.segments.push((self.log.next_seq(), Timestamp::MIN));
        }
    }

    fn note(&mut self, seq: u64, at: Timestamp) {
        match self.segments.last_mut() {
            Some((_, youngest)) => *youngest = (*youngest).max(at),
            None => self.segments.push((seq, at)),
        }
    }

    /// Shows durable rows, acknowledges them and hands them to evaluation.
    fn settle(&mut self, batch: Batch, new: &[Written]) {
        for written in new {
            let row = &batch.rows[written.position];
            show(&self.store, batch.agent, &row.table.series, row.at, &row.values);
        }
        if let Some(taken) = self.progress.get(&(batch.agent, batch.epoch)) {
            batch.acknowledge.send_replace(taken.clone());
        }
        for Written { position, samples_seq, follows, complete } in new {
            let row = DurableRow {
                agent: batch.agent,
                at: batch.rows[*position].at,
                samples_seq: *samples_seq,
                received: batch.received,
                follows: *follows,
                complete: *complete,
            };
            self.evaluate.send(row).ok(); // Ended only when the collector stops.
        }
    }

    fn answer(&mut self, job: Job) -> Result<Option<oneshot::Sender<()>>, JournalError> {
        match job {
            Job::Progress { agent, epoch, reply } => {
                let taken = self.progress.get(&(agent, epoch)).cloned().unwrap_or_default();
                reply.send(taken).ok(); // Whoever asked may have left.
            }
            Job::Tip { agent, epoch, reply } => {
                reply.send(self.tips.get(&(agent, epoch)).copied()).ok(); // As above.
            }
            Job::Gap { agent, epoch, first, last, acknowledge } => {
                let taken = self.progress.entry((agent, epoch)).or_default();
                if taken.insert_range(first, last).is_err() {
                    taken.lift_floor(last); // The gap is durable; without room for a range it takes the holes before it along.
                }
                acknowledge.send_replace(taken.clone());
            }
            Job::Standing(reply) => drop(reply.send(self.standing())),
            Job::Head(reply) => drop(reply.send(self.begin_head()?)),
            Job::DropBefore(seq) => {
                self.log.drop_segments_before(seq)?;
                let first = self.log.segments().first().map_or(0, |segment| segment.first_seq);
                self.segments.retain(|(segment, _)| *segment >= first);
            }
            Job::Stop(reply) => return Ok(Some(reply)),
            Job::Batch(..) | Job::Derived(_) | Job::Received(..) | Job::Evaluated(_) => {} // They are written before, in `run`.
        }
        Ok(None)
    }

    /// Ends the segment. Everything in it is in the store: groups are shown before anybody is answered.
    fn begin_head(&mut self) -> Result<Head, JournalError> {
        self.log.roll()?;
        self.begin_anew();
        self.tail.store(0, Ordering::Relaxed);
        let Standing { through, newest_row, lanes, segments, .. } = self.standing();
        let newest = self.store.last_rows();
        Ok(Head { through, newest_row, lanes, segments, newest })
    }

    /// What recorded values those rows gave was appended before.
    fn note_evaluated(&mut self, through: u64) -> Result<(), LogError> {
        let payload = pb::JournalEvaluated { through }.encode_to_vec();
        self.begin_segment_for(payload.len())?;
        self.log.append_unnumbered(KIND_EVALUATED, &payload).map(drop)
    }

    fn standing(&self) -> Standing {
        let lanes = self.progress.iter().map(|((agent, epoch), taken)| LaneProgress {
            agent: *agent,
            epoch: *epoch,
            lane: Lane::Samples,
            taken: taken.clone(),
            contents: Vec::new(),
        });
        Standing {
            through: self.through,
            newest_row: self.newest_row,
            lanes: lanes.collect(),
            segments: self.segments.clone(),
            bytes: self.log.bytes(),
        }
    }
}

/// A row that can be read without those before it.
fn whole(row: &TakenRow) -> Vec<u8> {
    let mut data = Vec::with_capacity(row.values.len() * 6);
    Chain::new(row.values.len()).encode(row.wall, row.boot_ms, &row.values, &mut data);
    data
}

/// What a table costs in the journal is written once a segment; the stream's number is set by the writer.
fn stream_of(agent: AgentId, epoch: Epoch, table: &Table) -> pb::JournalStream {
    pb::JournalStream {
        stream: u64::MAX, // As long as a number gets.
        agent: agent.0.as_bytes().to_vec(),
        epoch: epoch.0.as_bytes().to_vec(),
        table_id: table.id,
        series: Vec::new(),
        packed: table::pack(&table.series),
    }
}

fn same(a: &Arc<[Labels]>, b: &Arc<[Labels]>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
