//! From the samples journal's entries back to rows.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use tocsin_proto::convert::labels_in;
use tocsin_proto::pb;
use tocsin_shared::chain::Chain;
use tocsin_shared::fingerprint;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::labels::Labels;
use tocsin_shared::log::Entry;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::followed::Followed;
use super::received::{Reading, Sample};
use super::table::Tables;
use super::{
    Derived, KIND_DERIVED, KIND_EVALUATED, KIND_RECEIVED, KIND_RECEIVED_SERIES, KIND_ROW, KIND_STREAM,
};
use crate::samples::Store;

/// Reads journal entries back; it follows exactly the chains that the writer followed.
pub(super) struct Decoder {
    streams: HashMap<u64, ReadStream>,
    tables: Tables,
    pub(super) received: Reading,
}

struct ReadStream {
    agent: AgentId,
    epoch: Epoch,
    table: Arc<[Labels]>,
    chains: Followed<Chain>,
}

pub(super) enum Kept {
    Row {
        agent: AgentId,
        epoch: Epoch,
        spool_seq: u64,
        at: Timestamp,
        fingerprint: u32,
        table: Arc<[Labels]>,
        values: Arc<[f64]>,
    },
    Derived(Derived),
    /// And how many more there were, whose series are unknown because of damage.
    Received(Vec<Sample>, usize),
    /// Every row up to here.
    Evaluated(u64),
}

impl Decoder {
    /// A decoder of rows for this store.
    pub(super) fn new(store: Arc<Store>) -> Self {
        let received = Reading::new(Arc::clone(&store));
        Self { streams: HashMap::new(), tables: Tables::new(store), received }
    }

    /// A segment decodes alone: nothing of the one before is needed, and nothing of it may leak into this one.
    pub(super) fn begin_segment(&mut self) {
        self.streams.clear();
        self.received.begin_segment();
    }

    pub(super) fn read(&mut self, entry: &Entry) -> Result<Option<Kept>, String> {
        match entry.kind {
            KIND_STREAM => self.stream(&entry.payload).map(|()| None),
            KIND_ROW => self.row(&entry.payload).map(Some),
            KIND_DERIVED => derived(&entry.payload).map(|derived| Some(Kept::Derived(derived))),
            KIND_EVALUATED => {
                let note =
                    pb::JournalEvaluated::decode(&*entry.payload).map_err(|error| error.to_string())?;
                Ok(Some(Kept::Evaluated(note.through)))
            }
            KIND_RECEIVED_SERIES => self.received.table(&entry.payload).map(|()| None),
            KIND_RECEIVED => {
                let (samples, missing) = self.received.record(&entry.payload)?;
                Ok(Some(Kept::Received(samples, missing)))
            }
            kind => Err(format!("kind {kind} is unknown: it was written by a newer version")),
        }
    }

    fn stream(&mut self, payload: &[u8]) -> Result<(), String> {
        let pb::JournalStream { stream, agent, epoch, table_id: _, series, packed } =
            pb::JournalStream::decode(payload).map_err(|error| error.to_string())?;
        let table = match packed.is_empty() {
            true => self.tables.shared(series),
            false => self.tables.unpack(packed)?,
        };
        let (agent, epoch) = (AgentId(uuid(&agent)?), Epoch(uuid(&epoch)?));
        self.streams.insert(stream, ReadStream { agent, epoch, table, chains: Followed::default() });
        Ok(())
    }

    fn row(&mut self, payload: &[u8]) -> Result<Kept, String> {
        let pb::JournalRow { stream, seq, chain, index, at_ms, data } =
            pb::JournalRow::decode(payload).map_err(|error| error.to_string())?;
        let stream = self.streams.get_mut(&stream).ok_or("its stream is missing")?;
        // A row whose predecessor is damaged or missing must not be read as a change of an older one.
        let mut state = stream.chains.take(chain, index).unwrap_or_else(|| Chain::new(stream.table.len()));
        state.decode(&data).map_err(|error| error.to_string())?;
        let values: Arc<[f64]> = state.values().into();
        let fingerprint = fingerprint::of_row(state.at(), state.boot_ms(), &values);
        stream.chains.keep(chain, index, state);
        Ok(Kept::Row {
            agent: stream.agent,
            epoch: stream.epoch,
            spool_seq: seq,
            at: Timestamp::from_millis(at_ms),
            fingerprint,
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
