//! Tables of series as the samples journal keeps them: each segment has all of them anew, so they are packed.
//!
//! Two thousand hosts of five hundred series would fill a segment with their tables alone; label texts repeat, and a
//! packed table takes about a tenth. A table that comes again, in the next segment or of another host, is known by its
//! packed bytes and not read again.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use tocsin_proto::convert::{labels_in, labels_out};
use tocsin_proto::pb;
use tocsin_shared::labels::Labels;

use crate::samples::Store;

/// Fast, and within a tenth of what slower levels give: label texts are easy.
const LEVEL: i32 = 1;
/// The most bytes of a table: above any that the wire takes (4 MiB a message), so that damage allocates no more.
const TABLE_BYTES_MAX: usize = 16 << 20;
/// Distinct tables that are remembered: beyond it they are read again.
const KNOWN_MAX: usize = 16_384;

/// A table for the journal.
pub(super) fn pack(series: &[Labels]) -> Vec<u8> {
    let series = series.iter().map(|labels| pb::JournalSeries { labels: labels_out(labels) });
    compress(&pb::JournalTable { series: series.collect() }.encode_to_vec())
}

/// Label texts, packed.
pub(super) fn compress(table: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(table, LEVEL).expect("a buffer as large as the worst case takes anything packed")
}

/// Packed label texts; damage never allocates more than a table takes.
pub(super) fn decompress(packed: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = match zstd::bulk::Decompressor::upper_bound(packed) {
        Some(bytes) if bytes <= TABLE_BYTES_MAX => bytes,
        _ => return Err("its table is no packed table, or too long".into()),
    };
    zstd::bulk::decompress(packed, bytes).map_err(|error| error.to_string())
}

/// Reads tables back, each distinct one once.
pub(super) struct Tables {
    store: Arc<Store>,
    known: HashMap<Vec<u8>, Arc<[Labels]>>,
}

impl Tables {
    /// Tables whose texts this store shares.
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, known: HashMap::new() }
    }

    /// A table as it was packed.
    pub(super) fn unpack(&mut self, packed: Vec<u8>) -> Result<Arc<[Labels]>, String> {
        if let Some(known) = self.known.get(&packed) {
            return Ok(Arc::clone(known));
        }
        let unpacked = decompress(&packed)?;
        let table = pb::JournalTable::decode(&*unpacked).map_err(|error| error.to_string())?;
        let table = self.shared(table.series);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(packed, Arc::clone(&table));
        Ok(table)
    }

    /// A table that is not packed.
    pub(super) fn shared(&self, series: Vec<pb::JournalSeries>) -> Arc<[Labels]> {
        let table = series.into_iter().map(|series| labels_in(series.labels)).collect::<Vec<_>>();
        self.store.share_texts(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_small_once_and_never_out_of_damage() {
        let dir = tempfile::tempdir().unwrap();
        let mut tables = Tables::new(Arc::new(Store::open(dir.path()).unwrap().0));
        let series = (0..500)
            .map(|n| {
                let (cpu, mode) = (format!("{}", n / 8), format!("mode-{}", n % 8));
                Labels::series("node_cpu_seconds_total", &[("cpu", &cpu), ("mode", &mode)])
            })
            .collect::<Vec<_>>();
        let packed = pack(&series);
        assert!(packed.len() < 5_000, "{} bytes", packed.len());
        let (first, second) =
            (tables.unpack(packed.clone()).unwrap(), tables.unpack(packed.clone()).unwrap());
        assert_eq!(*first, series);
        assert!(Arc::ptr_eq(&first, &second), "one table");
        let claims_much = zstd::bulk::compress(&vec![0; TABLE_BYTES_MAX + 1], LEVEL).unwrap();
        for (damaged, why) in
            [(claims_much, "too long"), (packed[..100].to_vec(), "cut"), (vec![7; 9], "none")]
        {
            assert!(tables.unpack(damaged).is_err(), "{why}");
        }
    }
}
