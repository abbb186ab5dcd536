//! Tables that take writes in memory over others that are only read: the store while its disk has no room.
//!
//! What is written here is gone with it; the journal has it, and the tables below get it when there is room again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Pair, StoreError, Table, Tables, Write};

/// Bytes of keys and values beyond which nothing more is laid over: days of outcomes and incidents of a large site.
pub(super) const BYTES_MAX: usize = 64 << 20;

type Written = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Writes over tables that stay as they are.
pub(super) struct Overlay {
    below: Arc<dyn Tables>,
    written: Mutex<(Written, usize)>,
}

impl Overlay {
    pub(super) fn over(below: Arc<dyn Tables>) -> Self {
        Self { below, written: Mutex::default() }
    }

    /// Whether it has taken what it may; the next commit is one too many.
    pub(super) fn is_full(&self) -> bool {
        self.lock().1 >= BYTES_MAX
    }

    fn lock(&self) -> MutexGuard<'_, (Written, usize)> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written of a table, by key, as far as a key starts with `prefix`.
    fn above(&self, table: Table, prefix: &[u8]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let written = self.lock();
        let from = Bound::Included((table, prefix.to_vec()));
        let of_prefix = written.0.range((from, Bound::Unbounded));
        let of_prefix = of_prefix.take_while(|((of, key), _)| *of == table && key.starts_with(prefix));
        of_prefix.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }
}

impl Tables for Overlay {
    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut written = self.lock();
        for Write { table, key, value } in writes {
            let size = |value: &Option<Vec<u8>>| key.len() + value.as_ref().map_or(0, Vec::len);
            written.1 += size(value);
            if let Some(old) = written.0.insert((*table, key.clone()), value.clone()) {
                written.1 -= size(&old);
            }
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let above = self.lock().0.get(&(table, key.to_vec())).cloned();
        above.map_or_else(|| self.below.get(table, key), Ok)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let above = self.above(table, prefix);
        // Each key above may hide one below.
        let below = self.below.scan(table, prefix, newest_first, limit.saturating_add(above.len()))?;
        let below = below.into_iter().filter(|(key, _)| !above.contains_key(key));
        let above = above.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        let mut pairs: Vec<Pair> = below.chain(above).collect();
        pairs.sort_by(|a, b| if newest_first { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) });
        pairs.truncate(limit);
        Ok(pairs)
    }

    fn bytes(&self) -> u64 {
        self.below.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryTables;

    fn write(key: &str, value: Option<&str>) -> Write {
        let value = value.map(|value| value.as_bytes().to_vec());
        Write { table: Table::Runs, key: key.as_bytes().to_vec(), value }
    }

    // Cases: C7
    #[test]
    fn what_is_laid_over_hides_what_is_below() {
        let (both, twin) = (Arc::new(MemoryTables::default()), MemoryTables::default());
        let below = [
            write("a1", Some("old")),
            write("a2", Some("old")),
            write("a4", Some("old")),
            write("b1", Some("old")),
        ];
        let above =
            [write("a1", Some("new")), write("a2", None), write("a3", Some("new")), write("c1", Some("new"))];
        both.commit(&below).unwrap();
        let over = Overlay::over(both.clone());
        over.commit(&above).unwrap();
        twin.commit(&[&below[..], &above[..]].concat()).unwrap();
        for prefix in ["", "a", "b", "c", "d"] {
            for newest_first in [false, true] {
                for limit in [0, 1, 2, 10] {
                    let scan = |tables: &dyn Tables| {
                        tables.scan(Table::Runs, prefix.as_bytes(), newest_first, limit).unwrap()
                    };
                    assert_eq!(scan(&over), scan(&twin), "{prefix:?} {newest_first} {limit}");
                }
            }
        }
        for key in ["a1", "a2", "a3", "a4", "b1"] {
            let get = |tables: &dyn Tables| tables.get(Table::Runs, key.as_bytes()).unwrap();
            assert_eq!(get(&over), get(&twin), "{key}");
        }
        assert_eq!(both.get(Table::Runs, b"a3").unwrap(), None, "nothing was written below");
        assert!(!over.is_full());
        let large = "x".repeat(BYTES_MAX);
        over.commit(&[write("a1", Some(&large))]).unwrap();
        assert!(over.is_full());
        over.commit(&[write("a1", None)]).unwrap();
        assert!(!over.is_full());
    }
}
