//! Typed questions to the tables.

use std::sync::{Arc, RwLock};

use prost::Message;
use tocsin_proto::pb;
use tocsin_shared::event::Event;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::project::{APPLIED, project, time_key};
use super::{StoreError, Table, Tables, Write};

/// The store as the API asks it. The tables behind it may be replaced while it is built again.
#[derive(Clone)]
pub struct Store(Arc<RwLock<Arc<dyn Tables>>>);

impl Store {
    /// A store over tables.
    pub fn new(tables: Arc<dyn Tables>) -> Self {
        Self(Arc::new(RwLock::new(tables)))
    }

    pub(super) fn replace(&self, tables: Arc<dyn Tables>) {
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = tables;
    }

    pub(super) fn tables(&self) -> Arc<dyn Tables> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The last event in the store.
    pub fn applied(&self) -> Result<u64, StoreError> {
        let bytes = self.tables().get(Table::Meta, APPLIED)?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    /// Takes events, all or none.
    pub(super) fn apply(&self, events: &[Event]) -> Result<(), StoreError> {
        let Some(last) = events.last() else { return Ok(()) };
        let mut writes: Vec<Write> = events.iter().flat_map(project).collect();
        let value = Some(last.seq.to_be_bytes().to_vec());
        writes.push(Write { table: Table::Meta, key: APPLIED.to_vec(), value });
        self.tables().commit(&writes)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.tables().bytes()
    }

    /// Incidents, newest first; all of them are looked at until `limit` are wanted.
    pub fn incidents(&self, include_resolved: bool, limit: usize) -> Result<Vec<pb::Incident>, StoreError> {
        const LOOKED_AT_MAX: usize = 100_000;
        let looked_at = if include_resolved { limit } else { LOOKED_AT_MAX };
        let resolved = pb::IncidentStatus::Resolved as i32;
        let pairs = self.tables().scan(Table::Incidents, &[], true, looked_at)?;
        let incidents = pairs.iter().map(|(_, value)| decode::<pb::Incident>(value));
        let wanted = incidents.filter(|incident| {
            include_resolved || incident.as_ref().is_ok_and(|incident| incident.status != resolved)
        });
        wanted.take(limit).collect()
    }

    /// One incident.
    pub fn incident(&self, number: u64) -> Result<Option<pb::Incident>, StoreError> {
        self.tables().get(Table::Incidents, &number.to_be_bytes())?.as_deref().map(decode).transpose()
    }

    /// The public events of an incident, oldest first.
    pub fn timeline(&self, number: u64, limit: usize) -> Result<Vec<pb::Event>, StoreError> {
        let pairs = self.tables().scan(Table::Timeline, &number.to_be_bytes(), false, limit)?;
        pairs.iter().map(|(_, value)| decode(value)).collect()
    }

    /// An alert by its dedup key.
    pub fn alert(&self, dedup_key: &str) -> Result<Option<pb::Alert>, StoreError> {
        self.tables().get(Table::Alerts, dedup_key.as_bytes())?.as_deref().map(decode).transpose()
    }

    /// Alerts that are resolved, those resolved last first.
    pub fn resolved_alerts(&self, limit: usize) -> Result<Vec<pb::Alert>, StoreError> {
        const LOOKED_AT_MAX: usize = 100_000;
        let pairs = self.tables().scan(Table::Alerts, &[], false, LOOKED_AT_MAX)?;
        let alerts: Result<Vec<pb::Alert>, _> = pairs.iter().map(|(_, value)| decode(value)).collect();
        let mut alerts = alerts?;
        alerts.retain(|alert| alert.condition == pb::Condition::Resolved as i32);
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.resolved_at_ms));
        alerts.truncate(limit);
        Ok(alerts)
    }

    /// Runs without their output, newest first, of one job or of all.
    pub fn runs(&self, job_name: &str, limit: usize) -> Result<Vec<pb::JobRun>, StoreError> {
        const LOOKED_AT_MAX: usize = 10_000;
        let tables = self.tables();
        let looked_at = if job_name.is_empty() { limit } else { LOOKED_AT_MAX };
        let mut runs = Vec::new();
        for (key, _) in tables.scan(Table::RunsByTime, &[], true, looked_at)? {
            let id = key.get(8..).unwrap_or_default();
            let run: Option<pb::JobRun> = tables.get(Table::Runs, id)?.as_deref().map(decode).transpose()?;
            // A run's end may give it another start than its beginning did; it is listed under the last one alone.
            let listed =
                |run: &pb::JobRun| key.starts_with(&time_key(Timestamp::from_millis(run.started_at_ms)));
            runs.extend(run.filter(|run| listed(run) && (job_name.is_empty() || run.job_name == job_name)));
            if runs.len() >= limit {
                break;
            }
        }
        Ok(runs)
    }

    /// One run with its output.
    pub fn run(&self, run_id: Uuid) -> Result<Option<pb::JobRun>, StoreError> {
        let tables = self.tables();
        let Some(bytes) = tables.get(Table::Runs, run_id.as_bytes())? else { return Ok(None) };
        let mut run: pb::JobRun = decode(&bytes)?;
        let parts = tables.scan(Table::Outputs, run_id.as_bytes(), false, usize::from(u8::MAX))?;
        let output: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
        run.output_tail = String::from_utf8_lossy(&output).into_owned();
        Ok(Some(run))
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|error| StoreError::Record(error.to_string()))
}
