//! Received samples in a host: cells of one instant, each series found by its place.

use tocsin_shared::time::Timestamp;

use super::Host;
use crate::samples::codec::is_absent;
use crate::samples::received::Cell;

impl Host {
    /// Puts values of one instant; gives how many cells had another value already, which stays. Series that are not
    /// written go on: only their senders know when they end.
    pub(crate) fn append_received(&mut self, at: Timestamp, cells: &[Cell<'_>]) -> u64 {
        for cell in cells {
            if cell.place.slot(self.numbering).is_none() {
                let slot = self.series.slot_or_insert((cell.labels.clone(), true));
                cell.place.set(self.numbering, slot);
            }
        }
        let numbering = self.numbering;
        let (rows, _) = self.rows_for(at);
        let row = rows.row(at.as_millis());
        let mut differing = 0;
        for cell in cells {
            let slot = cell.place.slot(numbering).expect("it was set above, under this host's lock");
            let column = &mut rows.columns[slot as usize];
            let there = column.get(row);
            if is_absent(there) {
                column.put(row, cell.value);
            } else {
                differing += u64::from(there.to_bits() != cell.value.to_bits());
            }
        }
        self.last_row = self.last_row.max(Some(at));
        self.close_ready();
        differing
    }
}
