//! The thread that writes the samples journal.

use std::collections::HashMap;
use std::sync::Arc;
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
use tocsin_shared::log::Log;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::followed::Followed;
use super::{
    Batch, Derived, DurableRow, Job, KIND_DERIVED, KIND_ROW, KIND_STREAM, OfSpools, Standing, Table,
    TakenRow, Tip,
};
use super::{insert, show, show_derived};
use crate::journal::JournalError;
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

/// The thread's own.
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) store: Arc<Store>,
    pub(super) progress: HashMap<(AgentId, Epoch), Ranges>,
    tips: HashMap<(AgentId, Epoch), Tip>,
    pub(super) segments: Vec<(u64, Timestamp)>,
    pub(super) evaluate: SyncSender<DurableRow>,
    streams: HashMap<(AgentId, Epoch, u64), Stream>,
    next_stream: u64,
    through: u64,
}

impl Writer {
    pub(super) fn new(
        log: Log,
        store: Arc<Store>,
        (progress, tips): (OfSpools<Ranges>, OfSpools<Tip>),
        segments: Vec<(u64, Timestamp)>,
        evaluate: SyncSender<DurableRow>,
    ) -> Self {
        let through = log.durable_seq();
        Self {
            log,
            store,
            progress,
            tips,
            segments,
            evaluate,
            streams: HashMap::new(),
            next_stream: 0,
            through,
        }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) -> Result<(), JournalError> {
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
        let key = (batch.agent, batch.epoch);
        if let Some(highest) = batch.rows.iter().max_by_key(|row| row.seq) {
            let of_row = || fingerprint::of_row(highest.wall, highest.boot_ms, &highest.values);
            let tip = Tip::raise(self.tips.remove(&key), highest.seq, of_row);
            self.tips.extend(tip.map(|tip| (key, tip)));
        }
        for (position, row) in batch.rows.iter().enumerate() {
            if insert(self.progress.entry((batch.agent, batch.epoch)).or_default(), row.seq) {
                new.push((position, self.write_row(batch.agent, batch.epoch, row)?));
            }
        }
        Ok((batch, new))
    }

    fn write_row(&mut self, agent: AgentId, epoch: Epoch, row: &TakenRow) -> Result<u64, JournalError> {
        let key = (agent, epoch, row.table.id);
        let known = self.streams.get(&key).is_some_and(|stream| same(&stream.series, &row.table.series));
        // Both frames go into one segment, so their room is looked for at once.
        let stream = (!known).then(|| stream_of(agent, epoch, &row.table).encode_to_vec());
        let bytes = stream.as_ref().map_or(0, Vec::len)
            + (row.values.len() * VALUE_BYTES_MAX).max(row.data.len())
            + ROW_BYTES;
        if self.begin_segment_for(bytes)? || stream.is_some() {
            self.open_stream(key, &row.table)?;
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
        let seq = self.log.append(KIND_ROW, &entry.encode_to_vec())?;
        self.note(seq, row.at);
        Ok(seq)
    }

    fn open_stream(&mut self, key: (AgentId, Epoch, u64), table: &Table) -> Result<(), JournalError> {
        self.note_segment_start();
        self.next_stream += 1;
        let mut stream = stream_of(key.0, key.1, table);
        stream.stream = self.next_stream;
        self.log.append_unnumbered(KIND_STREAM, &stream.encode_to_vec())?;
        let series = table.series.clone();
        self.streams.insert(key, Stream { number: self.next_stream, series, chains: Followed::default() });
        Ok(())
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

    /// Starts a new segment when this one would overflow, and says so: streams and chains begin anew there.
    fn begin_segment_for(&mut self, bytes: usize) -> Result<bool, JournalError> {
        let rolls = self.log.will_roll(bytes);
        if rolls {
            self.log.roll()?;
            self.streams.clear();
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

/// A row that can be read without those before it.
fn whole(row: &TakenRow) -> Vec<u8> {
    let mut data = Vec::with_capacity(row.values.len() * 6);
    Chain::new(row.values.len()).encode(row.wall, row.boot_ms, &row.values, &mut data);
    data
}

/// What a table costs in the journal is written once a segment; the stream's number is set by the writer.
fn stream_of(agent: AgentId, epoch: Epoch, table: &Table) -> pb::JournalStream {
    let series = table.series.iter().map(|labels| pb::JournalSeries { labels: labels_out(labels) });
    pb::JournalStream {
        stream: u64::MAX, // As long as a number gets.
        agent: agent.0.as_bytes().to_vec(),
        epoch: epoch.0.as_bytes().to_vec(),
        table_id: table.id,
        series: series.collect(),
    }
}

fn same(a: &Arc<[Labels]>, b: &Arc<[Labels]>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
