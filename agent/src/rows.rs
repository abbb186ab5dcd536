//! Rows into the samples lane: series tables, chains, and when a new one begins.
//!
//! Promises: a chain lies within one segment, with its table before it, so that a segment can be read alone; a table's
//! id is the number of the first row that uses it, so it is unique in the epoch; after any failure the next row opens
//! a chain and repeats its table. A chain ends at 64 rows, at a new segment, table or connection.

use std::sync::Arc;

use prost::Message as _;
use prost::bytes::Bytes;
use tocsin_shared::chain::{CHAIN_ROWS_MAX, Chain};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;

use crate::spool::{Spool, SpoolError};
use crate::stream::records::{ROW, StoredRow, TABLE, Table};
use crate::tick::Reading;

/// A row that is durable and may be sent at once.
#[derive(Clone, Debug)]
pub(crate) struct LiveRow {
    pub seq: u64,
    pub row: StoredRow,
    pub table: Table,
}

/// The chain that is being written.
struct Open {
    chain: Chain,
    first_seq: u64,
}

/// Writes rows. Knows the last table and chain.
pub(crate) struct RowWriter {
    boot_id: Arc<str>,
    table: Option<Table>,
    /// Whether the current segment has the table.
    table_written: bool,
    open: Option<Open>,
}

impl RowWriter {
    pub(crate) fn new(boot_id: &str) -> Self {
        Self { boot_id: boot_id.into(), table: None, table_written: false, open: None }
    }

    /// Lets the next row open a chain.
    pub(crate) fn end_chain(&mut self) {
        self.open = None;
    }

    /// Adds a row, durable on return.
    pub(crate) fn write(
        &mut self,
        spool: &mut Spool,
        at: Reading,
        series: &Arc<[Labels]>,
        values: &[f64],
    ) -> Result<LiveRow, SpoolError> {
        spool.choose_tier(Lane::Samples)?;
        let mut written = self.try_write(spool, at, series, values);
        if written.as_ref().is_err_and(SpoolError::is_full) {
            // The free space did not tell. What has no room on the disk has some in memory.
            (self.open, self.table_written) = (None, false);
            spool.choose_tier(Lane::Samples)?;
            written = self.try_write(spool, at, series, values);
        }
        if written.is_err() {
            // What is in the file now is not certain.
            (self.open, self.table_written) = (None, false);
        }
        written
    }

    fn try_write(
        &mut self,
        spool: &mut Spool,
        at: Reading,
        series: &Arc<[Labels]>,
        values: &[f64],
    ) -> Result<LiveRow, SpoolError> {
        let seq = spool.stats().lanes[Lane::Samples.index()].next_seq;
        let table = match &self.table {
            Some(table) if Arc::ptr_eq(&table.series, series) => table.clone(),
            _ => {
                (self.open, self.table_written) = (None, false);
                Table { id: seq, series: Arc::clone(series), boot_id: Arc::clone(&self.boot_id) }
            }
        };
        if spool.starts_segment(Lane::Samples) {
            (self.open, self.table_written) = (None, false);
        }
        if self.open.as_ref().is_some_and(|open| open.chain.rows() >= CHAIN_ROWS_MAX) {
            self.open = None;
        }
        let (mut row, mut payload) = self.encode(seq, &table, at, values);
        let mut header = self.header(&table);
        if spool.will_roll(Lane::Samples, header.len() + payload.len()) {
            spool.roll(Lane::Samples)?;
            (self.open, self.table_written) = (None, false);
            (row, payload) = self.encode(seq, &table, at, values);
            header = self.header(&table);
        }
        if !header.is_empty() {
            spool.append_header(Lane::Samples, TABLE, &header)?;
        }
        let seq = spool.append(Lane::Samples, ROW, &payload, true)?;
        (self.table_written, self.table) = (true, Some(table.clone()));
        Ok(LiveRow { seq, row, table })
    }

    fn header(&self, table: &Table) -> Vec<u8> {
        if self.table_written { Vec::new() } else { table.to_wire().encode_to_vec() }
    }

    fn encode(&mut self, seq: u64, table: &Table, at: Reading, values: &[f64]) -> (StoredRow, Vec<u8>) {
        let open = self.open.get_or_insert_with(|| Open { chain: Chain::new(values.len()), first_seq: seq });
        let (index, mut data) = (open.chain.rows(), Vec::new());
        open.chain.encode(at.wall, at.boot_ms, values, &mut data);
        let row = StoredRow { table_id: table.id, chain: open.first_seq, index, data: Bytes::from(data) };
        let payload = row.encode();
        (row, payload)
    }
}
