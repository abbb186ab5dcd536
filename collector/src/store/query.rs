//! Typed questions to the tables.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prost::Message;
use tocsin_proto::pb;
use tocsin_shared::event::{Event, Subject};
use tocsin_shared::time::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::project::{APPLIED, project, project_record, time_key};
use super::prune::{Retention, prune};
use super::{StoreError, Table, Tables, Write};

/// Keys in one transaction of a copy.
const COPIED: usize = 1_000;

/// The store as the API asks it. The tables behind it may be away while they are built again: then every question is
/// answered with how far that is.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    tables: RwLock<Option<Arc<dyn Tables>>>,
    /// Events applied, and how many there were when the tables came: people see nothing before they have those.
    done: AtomicU64,
    of: AtomicU64,
    /// What failed a question; the projector does something about it.
    failed: watch::Sender<Option<String>>,
}

/// The last event in the tables, and a sum over it: another journal has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) seq: u64,
    pub(super) sum: u32,
}

impl Applied {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [&self.seq.to_be_bytes()[..], &self.sum.to_be_bytes()].concat()
    }

    pub(super) fn of(event: &Event) -> Self {
        Self { seq: event.seq, sum: crc32fast::hash(&pb::Event::from(event).encode_to_vec()) }
    }
}

impl Default for Store {
    fn default() -> Self {
        let (failed, _) = watch::channel(None);
        let (tables, done, of) = (RwLock::default(), AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self(Arc::new(Shared { tables, done, of, failed }))
    }
}

impl Store {
    /// Takes tables into use; they are whole once they have event `of`.
    pub(super) fn install(&self, tables: Arc<dyn Tables>, of: u64) {
        self.0.of.store(of, Ordering::Release);
        *self.0.tables.write().unwrap_or_else(PoisonError::into_inner) = Some(tables);
    }

    /// Lets go of the tables; whoever asks them now still holds them.
    pub(super) fn close(&self) -> Option<Arc<dyn Tables>> {
        self.0.done.store(0, Ordering::Release);
        self.0.tables.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether people may ask.
    pub(super) fn is_whole(&self) -> bool {
        let open = self.0.tables.read().unwrap_or_else(PoisonError::into_inner).is_some();
        open && self.0.of.load(Ordering::Acquire) <= self.0.done.load(Ordering::Acquire)
    }

    /// What failed people's questions.
    pub(super) fn failures(&self) -> watch::Receiver<Option<String>> {
        self.0.failed.subscribe()
    }

    fn building(&self) -> StoreError {
        let (done, of) = (self.0.done.load(Ordering::Acquire), self.0.of.load(Ordering::Acquire));
        StoreError::Building { done, of: if of == u64::MAX { done } else { of } }
    }

    fn tables(&self) -> Result<Arc<dyn Tables>, StoreError> {
        let tables = self.0.tables.read().unwrap_or_else(PoisonError::into_inner).clone();
        tables.ok_or_else(|| self.building())
    }

    /// Answers a question once the tables are whole; a failure is not only the asker's.
    fn ask<T>(&self, ask: impl FnOnce(&dyn Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let tables = self.tables()?;
        if !self.is_whole() {
            return Err(self.building());
        }
        let answer = ask(&*tables);
        if let Err(error) = &answer {
            self.0.failed.send_replace(Some(error.to_string()));
        }
        answer
    }

    /// The last event in the store.
    pub(super) fn applied(&self) -> Result<Applied, StoreError> {
        let bytes = self.tables()?.get(Table::Meta, APPLIED)?;
        let applied = match bytes.as_deref().map(<[u8]>::split_first_chunk::<8>) {
            None => Applied::default(),
            Some(Some((seq, sum))) => Applied {
                seq: u64::from_be_bytes(*seq),
                sum: sum.try_into().map(u32::from_be_bytes).map_err(|_| other_version())?,
            },
            Some(None) => return Err(other_version()),
        };
        self.0.done.store(applied.seq, Ordering::Release);
        Ok(applied)
    }

    /// Takes events, all or none.
    pub(super) fn apply(&self, events: &[Event]) -> Result<(), StoreError> {
        let Some(last) = events.last() else { return Ok(()) };
        let mut writes: Vec<Write> = events.iter().flat_map(project).collect();
        let value = Some(Applied::of(last).to_bytes());
        writes.push(Write { table: Table::Meta, key: APPLIED.to_vec(), value });
        self.tables()?.commit(&writes)?;
        self.0.done.store(last.seq, Ordering::Release);
        Ok(())
    }

    /// Takes records whose events the journal no longer has.
    pub(super) fn seed(&self, records: &[Subject]) -> Result<(), StoreError> {
        let tables = self.tables()?;
        for part in records.chunks(COPIED) {
            tables.commit(&part.iter().flat_map(project_record).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Bytes of all keys and values.
    pub(super) fn held(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        self.tables()?.visit(&mut |key, value| {
            bytes += (key.len() + value.len()) as u64;
            true
        })?;
        Ok(bytes)
    }

    /// Writes all of it into other tables, `applied` at the end.
    pub(super) fn copy_to(&self, other: &dyn Tables) -> Result<(), StoreError> {
        let (mut part, mut applied, mut done) = (Vec::new(), Vec::new(), Ok(()));
        self.tables()?.visit(&mut |key, value| {
            let split = key.split_first().and_then(|(of, key)| Some((Table::of(*of)?, key)));
            let Some((table, key)) = split else { return true };
            let write = Write { table, key: key.to_vec(), value: Some(value.to_vec()) };
            if table == Table::Meta {
                applied.push(write)
            } else {
                part.push(write)
            }
            if part.len() == COPIED {
                done = other.commit(&std::mem::take(&mut part));
            }
            done.is_ok()
        })?;
        done?;
        part.extend(applied);
        other.commit(&part)
    }

    /// Forgets what is beyond retention; how many keys that were.
    pub(super) fn prune(&self, retention: &Retention) -> Result<usize, StoreError> {
        prune(&*self.tables()?, retention)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.tables().map_or(0, |tables| tables.bytes())
    }

    /// Incidents, newest first; all of them are looked at until `limit` are wanted.
    pub fn incidents(&self, include_resolved: bool, limit: usize) -> Result<Vec<pb::Incident>, StoreError> {
        const LOOKED_AT_MAX: usize = 100_000;
        let looked_at = if include_resolved { limit } else { LOOKED_AT_MAX };
        let resolved = pb::IncidentStatus::Resolved as i32;
        self.ask(|tables| {
            let pairs = tables.scan(Table::Incidents, &[], true, looked_at)?;
            let incidents = pairs.iter().map(|(_, value)| decode::<pb::Incident>(value));
            let wanted = incidents.filter(|incident| {
                include_resolved || incident.as_ref().map_or(true, |incident| incident.status != resolved)
            });
            wanted.take(limit).collect()
        })
    }

    /// One incident.
    pub fn incident(&self, number: u64) -> Result<Option<pb::Incident>, StoreError> {
        self.ask(|tables| {
            tables.get(Table::Incidents, &number.to_be_bytes())?.as_deref().map(decode).transpose()
        })
    }

    /// The public events of an incident, oldest first.
    pub fn timeline(&self, number: u64, limit: usize) -> Result<Vec<pb::Event>, StoreError> {
        self.ask(|tables| {
            let pairs = tables.scan(Table::Timeline, &number.to_be_bytes(), false, limit)?;
            pairs.iter().map(|(_, value)| decode(value)).collect()
        })
    }

    /// An alert by its dedup key.
    pub fn alert(&self, dedup_key: &str) -> Result<Option<pb::Alert>, StoreError> {
        self.ask(|tables| tables.get(Table::Alerts, dedup_key.as_bytes())?.as_deref().map(decode).transpose())
    }

    /// Alerts that are resolved, those resolved last first.
    pub fn resolved_alerts(&self, limit: usize) -> Result<Vec<pb::Alert>, StoreError> {
        const LOOKED_AT_MAX: usize = 100_000;
        let mut alerts: Vec<pb::Alert> = self.ask(|tables| {
            let pairs = tables.scan(Table::Alerts, &[], false, LOOKED_AT_MAX)?;
            pairs.iter().map(|(_, value)| decode(value)).collect()
        })?;
        alerts.retain(|alert| alert.condition == pb::Condition::Resolved as i32);
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.resolved_at_ms));
        alerts.truncate(limit);
        Ok(alerts)
    }

    /// Runs without their output, newest first, of one job or of all.
    pub fn runs(&self, job_name: &str, limit: usize) -> Result<Vec<pb::JobRun>, StoreError> {
        const LOOKED_AT_MAX: usize = 100_000;
        let looked_at = if job_name.is_empty() { limit } else { LOOKED_AT_MAX };
        self.ask(|tables| {
            let mut runs = Vec::new();
            for (key, job) in tables.scan(Table::RunsByTime, &[], true, looked_at)? {
                if !job_name.is_empty() && job.get(16..) != Some(job_name.as_bytes()) {
                    continue;
                }
                let id = key.get(8..).unwrap_or_default();
                let run: Option<pb::JobRun> =
                    tables.get(Table::Runs, id)?.as_deref().map(decode).transpose()?;
                // A run's end may give it another start than its beginning did; it is listed under the last one alone.
                let listed =
                    |run: &pb::JobRun| key.starts_with(&time_key(Timestamp::from_millis(run.started_at_ms)));
                runs.extend(run.filter(listed));
                if runs.len() >= limit {
                    break;
                }
            }
            Ok(runs)
        })
    }

    /// One run with its output.
    pub fn run(&self, run_id: Uuid) -> Result<Option<pb::JobRun>, StoreError> {
        self.ask(|tables| {
            let Some(bytes) = tables.get(Table::Runs, run_id.as_bytes())? else { return Ok(None) };
            let mut run: pb::JobRun = decode(&bytes)?;
            let parts = tables.scan(Table::Outputs, run_id.as_bytes(), false, usize::from(u8::MAX))?;
            let output: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
            run.output_tail = String::from_utf8_lossy(&output).into_owned();
            Ok(Some(run))
        })
    }
}

fn other_version() -> StoreError {
    StoreError::Record("it was written by another version".into())
}

pub(super) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|error| StoreError::Record(error.to_string()))
}
