//! The next rows of a hole, ready to be sent: stored bytes where the collector has the row before, whole rows where not.
//!
//! Promise: what is returned decodes on the other side. A row that cannot be made to (its chain or its table is
//! damaged) is given up, so that it becomes a gap instead of an endless refusal. At most one table a batch, before
//! its rows.

use prost::Message as _;
use tocsin_proto::pb;
use tocsin_shared::chain::Chain;
use tocsin_shared::lane::Lane;
use tocsin_shared::log::Entry;

use super::records::{ROW, StoredRow, TABLE};
use crate::spool::{Spool, SpoolError};

/// Rows in one message at most: the wire's bound.
const ROWS_MAX: usize = 512;

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub first: u64,
    pub last: u64,
    /// About how many bytes.
    pub bytes: usize,
    /// The row before `first`, if the collector has its chain in hand: chain and index.
    pub after: Option<(u64, u32)>,
    /// Tables that need not be sent.
    pub known: Vec<u64>,
}

/// Rows to send.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Filled {
    /// To be sent first; none when it is known.
    pub table: Option<pb::SeriesTable>,
    pub rows: Vec<pb::Row>,
    /// Everything from `first` up to here, exclusive, is in `rows` or need not be sent.
    pub next: u64,
}

/// Where the last batch ended.
#[derive(Default)]
pub(crate) struct Backlog {
    next: u64,
    /// The table of the rows there. Kept only within a hole: it is large.
    table: Option<pb::SeriesTable>,
}

impl Backlog {
    /// Reads the next batch of a hole.
    pub(crate) fn fill(&mut self, spool: &mut Spool, request: &Request) -> Result<Filled, SpoolError> {
        let mut table = self.table.take().filter(|_| request.first == self.next && request.after.is_some());
        if table.is_none() {
            let before = spool.reread(Lane::Samples, request.first, request.first)?;
            table = before
                .into_iter()
                .filter(|entry| !entry.numbered)
                .filter_map(|entry| table_in(&entry))
                .next_back();
        }
        let filled = fill(spool, request, &mut table)?;
        self.next = filled.next;
        self.table = table.filter(|_| filled.next <= request.last);
        Ok(filled)
    }
}

fn fill(
    spool: &mut Spool,
    request: &Request,
    table: &mut Option<pb::SeriesTable>,
) -> Result<Filled, SpoolError> {
    let Request { first, last, bytes, after, known } = request;
    let batch = spool.read(Lane::Samples, *first, *bytes)?;
    let (mut filled, mut after) = (Filled { next: batch.next_seq, ..Filled::default() }, *after);
    for entry in batch.entries {
        if entry.seq > *last || filled.rows.len() >= ROWS_MAX || (!entry.numbered && !filled.rows.is_empty())
        {
            filled.next = entry.seq;
            break;
        }
        if !entry.numbered {
            *table = table_in(&entry);
            continue;
        }
        let row = (entry.kind == ROW).then(|| StoredRow::decode(entry.payload)).flatten();
        let (Some(row), Some(table)) = (row, &*table) else {
            spool.give_up(Lane::Samples, entry.seq);
            continue;
        };
        if !known.contains(&table.table_id) && filled.rows.is_empty() {
            after = None; // A table that is sent ends the chains over it.
        }
        match sendable(spool, entry.seq, row, table, after)? {
            Some(row) => {
                after = Some((row.chain, row.index));
                filled.rows.push(row);
            }
            None => spool.give_up(Lane::Samples, entry.seq),
        }
    }
    filled.next = filled.next.min(last.saturating_add(1)).max(*first);
    let news = |table: &&pb::SeriesTable| !filled.rows.is_empty() && !known.contains(&table.table_id);
    filled.table = table.as_ref().filter(news).cloned();
    Ok(filled)
}

fn table_in(entry: &Entry) -> Option<pb::SeriesTable> {
    (entry.kind == TABLE).then(|| pb::SeriesTable::decode(&entry.payload[..]).ok()).flatten()
}

/// The row as it can be sent after `after`; none when that cannot be.
fn sendable(
    spool: &mut Spool,
    seq: u64,
    mut row: StoredRow,
    table: &pb::SeriesTable,
    after: Option<(u64, u32)>,
) -> Result<Option<pb::Row>, SpoolError> {
    if row.table_id != table.table_id || row.chain > seq {
        return Ok(None);
    }
    let follows = row.index > 0 && after == Some((row.chain, row.index - 1));
    if row.index > 0 && !follows {
        let Some(data) = whole(spool, seq, &row, table.series.len())? else { return Ok(None) };
        row.data = data.into();
    }
    Ok(Some(row.to_wire(seq)))
}

/// The row of this number, as it is here; none when it is gone or cannot be read.
pub(crate) fn row_at(spool: &Spool, seq: u64) -> Result<Option<Chain>, SpoolError> {
    let (mut table, mut row) = (None, None);
    for entry in spool.reread(Lane::Samples, seq, seq)? {
        match entry.numbered {
            false => table = table_in(&entry),
            true => row = (entry.seq == seq && entry.kind == ROW).then(|| StoredRow::decode(entry.payload)),
        }
    }
    match (row.flatten(), table) {
        (Some(row), Some(table)) if row.chain <= seq => chain_to(spool, seq, &row, table.series.len()),
        _ => Ok(None),
    }
}

/// The row in full, from its chain's beginning.
fn whole(spool: &mut Spool, seq: u64, row: &StoredRow, width: usize) -> Result<Option<Vec<u8>>, SpoolError> {
    let chain = chain_to(spool, seq, row, width)?;
    Ok(chain.map(|chain| {
        let mut data = Vec::new();
        chain.encode_again(&mut data);
        data
    }))
}

fn chain_to(spool: &Spool, seq: u64, row: &StoredRow, width: usize) -> Result<Option<Chain>, SpoolError> {
    let mut chain = Chain::new(width);
    let mut expected = row.chain;
    for entry in spool.reread(Lane::Samples, row.chain, seq)?.into_iter().filter(|entry| entry.numbered) {
        let before = StoredRow::decode(entry.payload);
        let Some(before) = before.filter(|it| it.chain == row.chain && entry.seq == expected) else {
            return Ok(None);
        };
        if chain.decode(&before.data).is_err() {
            return Ok(None);
        }
        expected += 1;
    }
    Ok((expected == seq + 1).then_some(chain))
}
