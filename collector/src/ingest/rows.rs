//! One session's rows: tables and chains, from the wire's bytes to values at event times.

use std::collections::VecDeque;
use std::sync::Arc;

use tocsin_proto::pb;
use tocsin_shared::chain::{CHAIN_ROWS_MAX, Chain};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::clock::{self, Reading};
use super::limits;
use super::quota::Refused;
use crate::journal::rows::{Table, TakenRow};

/// Tables of a session: the live one, one or two of the backlog, and their successors.
const TABLES_MAX: usize = 8;
/// Chains of a session: a live one, one of the backlog, and their successors.
const CHAINS_MAX: usize = 4;

/// How this session's clocks map to event time.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) boot_id: String,
    pub(super) offset_ms: i64,
    /// The last reading of the agent's clocks.
    pub(super) reading: Reading,
    /// The boot before and its offset, as far as they are known.
    pub(super) before: Option<(String, i64)>,
}

impl Mapping {
    /// The event time of what carries these clocks and was taken in this boot.
    pub(super) fn event_time(&self, boot_id: &str, at: Reading) -> Timestamp {
        if boot_id == self.boot_id {
            return clock::event_time(self.offset_ms, at);
        }
        match &self.before {
            Some((before, offset_ms)) if before == boot_id => clock::event_time(*offset_ms, at),
            _ => clock::event_time_of_earlier_boot(self.offset_ms, self.reading, at.wall),
        }
    }
}

/// What the session knows of tables and chains. Everything in it is bounded and can be sent again.
#[derive(Default)]
pub(super) struct SessionRows {
    tables: VecDeque<(Arc<Table>, String)>,
    /// Id, table, the index that comes next, and the state after the last row.
    chains: VecDeque<(u64, u64, u32, Chain)>,
    /// Whether odd labels were told.
    warned: bool,
}

impl SessionRows {
    /// Takes a table; `admit` says which series are over the agent's quota, `share` gives the others the label texts
    /// that are known already. Says what was refused.
    pub(super) fn table(
        &mut self,
        table: pb::SeriesTable,
        admit: impl FnOnce(&[Labels]) -> Option<Refused>,
        share: impl FnOnce(&[Labels]) -> Arc<[Labels]>,
    ) -> Result<Option<Refused>, String> {
        let pb::SeriesTable { table_id, series, boot_id } = table;
        limits::word("the boot's id", &boot_id)?;
        let (mut series, odd) = limits::table(series)?;
        if let Some(why) = odd.filter(|_| !std::mem::replace(&mut self.warned, true)) {
            tracing::warn!(
                table_id,
                why,
                "a series of an agent is kept without its labels; more are not told"
            );
        }
        let refused = admit(&series);
        for place in refused.iter().flat_map(|refused| &refused.places) {
            series[*place] = limits::refused(*place);
        }
        let series = share(&series);
        self.tables.retain(|(known, _)| known.id != table_id);
        self.chains.retain(|(_, of_table, ..)| *of_table != table_id);
        if self.tables.len() >= TABLES_MAX {
            self.tables.pop_front();
        }
        self.tables.push_back((Arc::new(Table { id: table_id, series }), boot_id));
        Ok(refused)
    }

    /// Decodes a row. An error ends the session; the agent sends again from what was acknowledged.
    /// No event time is later than `latest`: a clock that ran ahead before a reboot must not blind the rules.
    pub(super) fn row(
        &mut self,
        row: pb::Row,
        mapping: &Mapping,
        latest: Timestamp,
    ) -> Result<TakenRow, String> {
        let pb::Row { seq, table_id, chain, index, data } = row;
        if seq == 0 || chain == 0 || chain > seq || index >= CHAIN_ROWS_MAX {
            return Err(format!("row {seq} has chain {chain} and index {index}"));
        }
        let known = self.tables.iter().find(|(table, _)| table.id == table_id);
        let (table, boot_id) =
            known.ok_or_else(|| format!("row {seq} names table {table_id}, which was not sent"))?;
        let at = self.chains.iter().position(|(id, of_table, ..)| (*id, *of_table) == (chain, table_id));
        let known = at.and_then(|at| self.chains.remove(at));
        // A row that skips one of its chain must be whole: read as a change of an older row it would be wrong.
        let mut state = match known {
            Some((_, _, next, state)) if next == index => state,
            _ => Chain::new(table.series.len()),
        };
        state.decode(&data).map_err(|error| format!("row {seq}: {error}"))?;
        let reading = Reading { wall: state.at(), boot_ms: state.boot_ms() };
        let taken = TakenRow {
            seq,
            table: table.clone(),
            chain,
            index,
            at: mapping.event_time(boot_id, reading).min(latest),
            wall: reading.wall,
            boot_ms: reading.boot_ms,
            values: state.values().to_vec(),
            data: data.to_vec(),
        };
        if self.chains.len() >= CHAINS_MAX {
            self.chains.pop_front();
        }
        self.chains.push_back((chain, table_id, index + 1, state));
        Ok(taken)
    }
}
