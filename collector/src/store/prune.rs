//! What the store forgets: records beyond retention, runs beyond a number for each job.
//!
//! The journal may hold them longer: a store that is built again has them until it prunes.

use std::collections::HashMap;

use tocsin_proto::pb;
use tocsin_shared::time::Timestamp;

use super::project::time_key;
use super::query::decode;
use super::{StoreError, Table, Tables, Write};

/// Runs of one job: what people look at are the last ones.
pub(super) const RUNS_PER_JOB_MAX: usize = 1_000;
/// Runs of all jobs, some 200 MB with the little output that most of them have.
const RUNS_MAX: usize = 200_000;
/// Alerts that ended; lists look at as many.
const ENDED_ALERTS_MAX: usize = 100_000;
/// Deletions in one transaction.
const BATCH: usize = 256;

/// Until when what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Incidents and alerts that ended before, and runs that started before, are forgotten.
    pub(super) ended_before: Timestamp,
}

/// Deletes what is beyond retention; how many keys that were.
pub(super) fn prune(tables: &dyn Tables, retention: &Retention) -> Result<usize, StoreError> {
    let mut deletions = incidents(tables, retention)?;
    deletions.extend(alerts(tables, retention)?);
    deletions.extend(runs(tables, retention)?);
    for part in deletions.chunks(BATCH) {
        tables.commit(part)?;
    }
    Ok(deletions.len())
}

fn delete(table: Table, key: Vec<u8>) -> Write {
    Write { table, key, value: None }
}

/// Looks at every key of a table, and at none of the tables behind it.
fn each(
    tables: &dyn Tables,
    table: Table,
    mut look: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut done = Ok(());
    tables.visit(&mut |key, value| match key.split_first() {
        Some((of, key)) if *of == table as u8 => {
            done = look(key, value);
            done.is_ok()
        }
        Some((of, _)) => *of < table as u8,
        None => true,
    })?;
    done
}

fn incidents(tables: &dyn Tables, retention: &Retention) -> Result<Vec<Write>, StoreError> {
    let (mut deletions, mut numbers) = (Vec::new(), Vec::new());
    each(tables, Table::Incidents, |key, value| {
        let incident: pb::Incident = decode(value)?;
        let resolved = incident.status == pb::IncidentStatus::Resolved as i32;
        if resolved && incident.opened_at_ms < retention.ended_before.as_millis() {
            numbers.push(key.to_vec());
        }
        Ok(())
    })?;
    for number in numbers {
        let last = tables.scan(Table::Timeline, &number, true, 1)?;
        let last = last.first().map(|(_, value)| decode::<pb::Event>(value)).transpose()?;
        if last.is_some_and(|last| last.recorded_at_ms >= retention.ended_before.as_millis()) {
            continue; // It was worked on since.
        }
        let timeline = tables.scan(Table::Timeline, &number, false, usize::MAX)?;
        deletions.extend(timeline.into_iter().map(|(key, _)| delete(Table::Timeline, key)));
        deletions.push(delete(Table::Incidents, number)); // Last: after a crash the record still finds the rest.
    }
    Ok(deletions)
}

fn alerts(tables: &dyn Tables, retention: &Retention) -> Result<Vec<Write>, StoreError> {
    let mut ended = Vec::new();
    each(tables, Table::Alerts, |key, value| {
        let alert: pb::Alert = decode(value)?;
        if alert.condition == pb::Condition::Resolved as i32 {
            ended.push((alert.resolved_at_ms, key.to_vec()));
        }
        Ok(())
    })?;
    ended.sort_unstable();
    let too_many = ended.len().saturating_sub(ENDED_ALERTS_MAX);
    let old = ended.partition_point(|(at, _)| *at < retention.ended_before.as_millis());
    let keys = ended.into_iter().take(too_many.max(old)).map(|(_, key)| key);
    Ok(keys.map(|key| delete(Table::Alerts, key)).collect())
}

fn runs(tables: &dyn Tables, retention: &Retention) -> Result<Vec<Write>, StoreError> {
    let mut all = Vec::new();
    each(tables, Table::RunsByTime, |key, job| {
        all.push((key.to_vec(), job.to_vec()));
        Ok(())
    })?;
    let before = time_key(retention.ended_before);
    let (mut kept, mut of_jobs): (usize, HashMap<Vec<u8>, usize>) = (0, HashMap::new());
    let mut deletions = Vec::new();
    for (key, job) in all.into_iter().rev() {
        let of_job = of_jobs.entry(job).or_default();
        if key.as_slice() >= before.as_slice() && *of_job < RUNS_PER_JOB_MAX && kept < RUNS_MAX {
            (*of_job, kept) = (*of_job + 1, kept + 1);
            continue;
        }
        let id = key.get(8..).unwrap_or_default().to_vec();
        let run: Option<pb::JobRun> = tables.get(Table::Runs, &id)?.as_deref().map(decode).transpose()?;
        // A run that is listed under another start stays.
        if run.is_some_and(|run| key.starts_with(&time_key(Timestamp::from_millis(run.started_at_ms)))) {
            let outputs = tables.scan(Table::Outputs, &id, false, usize::from(u8::MAX))?;
            deletions.extend(outputs.into_iter().map(|(key, _)| delete(Table::Outputs, key)));
            deletions.push(delete(Table::Runs, id));
        }
        deletions.push(delete(Table::RunsByTime, key));
    }
    Ok(deletions)
}
