//! The tables in memory: sled's twin for tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Pair, StoreError, Table, Tables, Write};

/// Tables that are gone with the process.
#[derive(Debug, Default)]
pub struct MemoryTables(Mutex<Pairs>);

type Pairs = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl Tables for MemoryTables {
    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Write { table, key, value } in writes {
            match value {
                Some(value) => map.insert((*table, key.clone()), value.clone()),
                None => map.remove(&(*table, key.clone())),
            };
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs: Vec<Pair> = map
            .iter()
            .filter(|((of, key), _)| *of == table && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        if newest_first {
            pairs.reverse();
        }
        pairs.truncate(limit);
        Ok(pairs)
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((table, key), value) in map {
            if !visit(&[&[table as u8], &key[..]].concat(), &value) {
                break;
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        0
    }
}
