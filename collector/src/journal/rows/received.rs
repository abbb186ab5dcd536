//! Received samples in the samples journal: written as numbers of series, times and values; durable, then visible.
//!
//! A segment decodes alone: before the first sample of a series in a segment stands a table with its number, its
//! labels and its source, packed. What a request brought is one or a few records; its sender is answered once all of
//! them are durable and can be read. What is refused for want of room was never taken: its sender sends it again.

mod payload;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use tocsin_proto::convert::{labels_in, labels_out};
use tocsin_proto::pb;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::log::LogError;
use tocsin_shared::time::Timestamp;
use tokio::sync::oneshot;

use super::write::Writer;
use super::{Job, Rows, table};
use crate::clock::now;
use crate::journal::Stopping;
use crate::samples::Store;
use crate::samples::received::{Cell, Origin, Place};

/// Samples in one record: some hundred kilobytes at most, far below the log's largest frame.
const RECORD_SAMPLES: usize = 16 * 1024;
/// Label bytes of one table, before packing, if it has more than one series.
const TABLE_LABEL_BYTES: usize = 1 << 20;

/// Series get numbers that are unique in the process.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A series that a source writes; the same one as long as its source is known to write it.
#[derive(Debug)]
pub struct Series {
    number: u64,
    pub labels: Labels,
    pub origin: Arc<Origin>,
    place: Place,
    /// The writer's number of the segment whose table has it.
    declared_in: AtomicU64,
}

impl Series {
    /// A series that was not known.
    pub fn new(labels: Labels, origin: Arc<Origin>) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { number, labels, origin, place: Place::default(), declared_in: AtomicU64::new(0) }
    }
}

/// One value of a series.
#[derive(Clone, Debug)]
pub struct Sample {
    pub series: Arc<Series>,
    pub at: Timestamp,
    pub value: f64,
}

/// What one request brought, judged. Samples of one origin and time stand together.
#[derive(Debug)]
pub struct Received {
    pub source: Arc<str>,
    pub samples: Vec<Sample>,
}

/// A request of which nothing was taken, for want of room: its sender keeps it and tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for samples")]
pub struct NoRoom;

/// How many samples were of a time at which their series had another value, which stays.
pub type Differing = u64;

/// What waits in a group.
pub(super) struct Waiting {
    pub(super) received: Received,
    pub(super) reply: oneshot::Sender<Result<Differing, NoRoom>>,
    /// The number of its last record; none while it is not written.
    written: Option<u64>,
}

impl Waiting {
    pub(super) fn new(received: Received, reply: oneshot::Sender<Result<Differing, NoRoom>>) -> Self {
        Self { received, reply, written: None }
    }
}

impl Rows {
    /// Makes samples durable and then visible; says how many differed from what was there.
    pub async fn receive(&self, received: Received) -> Result<Result<Differing, NoRoom>, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Received(received, reply)).await?;
        answer.await.map_err(|_| Stopping)
    }
}

impl Writer {
    /// Appends the records of a request, in a group that is then made durable.
    pub(super) fn write_received(&mut self, waiting: &mut Waiting) -> Result<(), LogError> {
        let Received { source, samples } = &waiting.received;
        let mut written = None;
        for part in samples.chunks(RECORD_SAMPLES) {
            let record = payload::encode(part.iter().map(|s| (s.series.number, s.at.as_millis(), s.value)));
            let mut tables = self.undeclared(source, part);
            // All frames go into one segment, so their room is looked for at once.
            let bytes =
                |tables: &[Vec<u8>]| tables.iter().map(|t| t.len() + payload::FRAME_BYTES).sum::<usize>();
            if self.begin_segment_for(record.len() + bytes(&tables))? {
                tables = self.undeclared(source, part);
            }
            for table in &tables {
                self.append_table(super::KIND_RECEIVED_SERIES, table)?;
            }
            let declared_in = self.segment;
            part.iter().for_each(|s| s.series.declared_in.store(declared_in, Ordering::Relaxed));
            let youngest = part.iter().map(|sample| sample.at).max().unwrap_or(Timestamp::MIN);
            written = Some(self.append_received(&record, youngest)?);
        }
        waiting.written = written;
        Ok(())
    }

    /// Tables of the series that this segment does not know yet.
    fn undeclared(&self, source: &str, samples: &[Sample]) -> Vec<Vec<u8>> {
        let unknown = |sample: &&Sample| sample.series.declared_in.load(Ordering::Relaxed) != self.segment;
        let mut series = samples.iter().filter(unknown).map(|sample| &sample.series).collect::<Vec<_>>();
        series.sort_unstable_by_key(|series| series.number);
        series.dedup_by_key(|series| series.number);
        let (mut tables, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        for series in series {
            bytes += series.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            entries
                .push(pb::JournalReceivedEntry { number: series.number, labels: labels_out(&series.labels) });
            if bytes >= TABLE_LABEL_BYTES {
                tables.push(pack(source, std::mem::take(&mut entries)));
                bytes = 0;
            }
        }
        if !entries.is_empty() {
            tables.push(pack(source, entries));
        }
        tables
    }

    /// Shows what is durable and answers its sender.
    pub(super) fn settle_received(&mut self, waiting: Waiting) {
        let Waiting { received: Received { samples, .. }, reply, written } = waiting;
        if written.is_none() && !samples.is_empty() {
            reply.send(Err(NoRoom)).ok(); // Whoever asked may have left.
            return;
        }
        reply.send(Ok(show(&self.store, &samples))).ok(); // As above.
    }
}

impl Waiting {
    /// The disk is full: what is not durable was never taken.
    pub(super) fn give_up(&mut self, durable: u64) {
        self.written.take_if(|written| *written > durable);
    }
}

/// Shows samples of one source, those of one origin and time together.
fn show(store: &Store, samples: &[Sample]) -> Differing {
    let same = |a: &Sample, b: &Sample| a.at == b.at && a.series.origin.key == b.series.origin.key;
    let (mut cells, mut differing) = (Vec::new(), 0);
    for row in samples.chunk_by(same) {
        cells.clear();
        cells.extend(row.iter().map(|Sample { series, value, .. }| Cell {
            labels: &series.labels,
            place: &series.place,
            value: *value,
        }));
        differing += store.append_received(&row[0].series.origin, row[0].at, &cells);
    }
    if let Some(newest) = samples.iter().max_by_key(|sample| sample.at) {
        // A sender whose clock is ahead makes nobody else late.
        store.note_source(&newest.series.origin.source, newest.at.min(now()));
    }
    differing
}

fn pack(source: &str, series: Vec<pb::JournalReceivedEntry>) -> Vec<u8> {
    let packed = table::compress(&pb::JournalReceivedTable { series }.encode_to_vec());
    pb::JournalReceivedSeries { source: source.to_owned(), packed }.encode_to_vec()
}

/// Reads received samples of a segment back.
pub(super) struct Reading {
    store: Arc<Store>,
    series: HashMap<u64, Arc<Series>>,
    origins: HashMap<AgentId, Arc<Origin>>,
}

impl Reading {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, series: HashMap::new(), origins: HashMap::new() }
    }

    pub(super) fn begin_segment(&mut self) {
        self.series.clear();
        self.origins.clear();
    }

    /// Takes a table of series.
    pub(super) fn table(&mut self, bytes: &[u8]) -> Result<(), String> {
        let pb::JournalReceivedSeries { source, packed } =
            pb::JournalReceivedSeries::decode(bytes).map_err(|error| error.to_string())?;
        let unpacked = table::decompress(&packed)?;
        let table = pb::JournalReceivedTable::decode(&*unpacked).map_err(|error| error.to_string())?;
        for pb::JournalReceivedEntry { number, labels } in table.series {
            let labels = self.store.share_texts(&[labels_in(labels)])[0].clone();
            let origin = Origin::of(&source, &labels);
            let origin = self.origins.entry(origin.key).or_insert_with(|| Arc::new(origin));
            let series = Series { number, ..Series::new(labels, Arc::clone(origin)) };
            self.series.insert(number, Arc::new(series));
        }
        Ok(())
    }

    /// The samples of a record, without those whose series is missing; and how many those are.
    pub(super) fn record(&self, bytes: &[u8]) -> Result<(Vec<Sample>, usize), String> {
        let decoded = payload::decode(bytes)?;
        let all = decoded.len();
        let sample = |(number, at, value): (u64, i64, f64)| {
            let series = Arc::clone(self.series.get(&number)?);
            Some(Sample { series, at: Timestamp::from_millis(at), value })
        };
        let samples = decoded.into_iter().filter_map(sample).collect::<Vec<_>>();
        let missing = all - samples.len();
        Ok((samples, missing))
    }

    /// Shows what was read.
    pub(super) fn show(&self, samples: &[Sample]) {
        show(&self.store, samples); // What differs was counted when it came.
    }
}
