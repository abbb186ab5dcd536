//! The collector in one answer.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tocsin_proto::pb;
use tocsin_shared::alert::Condition;
use tocsin_shared::host::HostState;
use tonic::Status;

use super::super::{Api, blocking, extend_unique, refusal};
use super::spools;
use crate::clock::{self, now};
use crate::ingest::quota::Limited;
use crate::receive::SourceStanding;
use crate::receive::refused::Reason;
use crate::room::Standing;
use crate::state::State;

/// Lines of problems in one answer; the log has all.
const PROBLEMS_MAX: usize = 100;

/// What the status needs of the ledger's state.
struct Counts {
    hosts: [u32; 4],
    alerts_firing: usize,
    incidents_open: usize,
    consumers: usize,
    consumer_lag_max: u64,
    degraded: Option<String>,
}

impl Counts {
    fn of(state: &State) -> Self {
        let mut hosts = [0; 4];
        for host in state.hosts() {
            hosts[place(host.state)] += 1;
        }
        let head = state.last_seq();
        let lags = state.consumers().map(|consumer| head.saturating_sub(consumer.acked_seq));
        Self {
            hosts,
            alerts_firing: state.active_alerts().filter(|a| a.condition == Condition::Firing).count(),
            incidents_open: state.open_incidents().count(),
            consumers: state.consumers().count(),
            consumer_lag_max: lags.max().unwrap_or(0),
            degraded: state.degraded(),
        }
    }
}

/// Where a state of hosts stands in the answer.
fn place(state: HostState) -> usize {
    match state {
        HostState::Pending => 0,
        HostState::Online => 1,
        HostState::Unreachable => 2,
        HostState::Retired => 3,
    }
}

impl Api {
    pub(super) async fn collector_status(&self) -> Result<pb::GetStatusResponse, Status> {
        let counts = self.read(Counts::of).await?;
        let over = self.over_quota().await?;
        let standing = self.rows.standing().await.map_err(refusal::stopping)?;
        let (samples, store) = (self.samples.clone(), self.projection.store.clone());
        let events_dir = self.about.data_dir.join("journal").join("events");
        let on_disk = move || {
            let spools = spools::trouble(&samples);
            (samples.stats(), store.bytes(), bytes_in(&events_dir), resident_bytes(), spools)
        };
        let (stats, store_bytes, events_journal_bytes, resident_bytes, spools) = blocking(on_disk).await?;
        let (evaluated, late) = self.statistics.rows();
        let (evaluate_p50_us, evaluate_p99_us) = self.statistics.delay_quantiles();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(pb::GetStatusResponse {
            version: self.about.version.clone(),
            cluster_id: self.about.cluster_id.clone(),
            started_at_ms: self.about.started_at.as_millis(),
            now_ms: now().as_millis(),
            hosts: counts.hosts.to_vec(),
            alerts_firing: count(counts.alerts_firing),
            incidents_open: count(counts.incidents_open),
            rules: count(self.plan.load().rules.len()),
            series: stats.series as u64,
            rows: evaluated + late,
            samples: stats.samples_in_memory + stats.samples_at_rest,
            events_head: *self.ledger.head().borrow(),
            store_applied: *self.projection.applied.borrow(),
            samples_journal_bytes: standing.bytes,
            events_journal_bytes,
            blocks_bytes: stats.bytes_at_rest,
            store_bytes,
            resident_bytes,
            data_dir: self.about.data_dir.display().to_string(),
            problems: self.problems(counts.degraded, &over, spools),
            evaluate_p50_us,
            evaluate_p99_us,
            consumers: count(counts.consumers),
            consumer_lag_max: counts.consumer_lag_max,
            disk: Some(self.disk()),
            sources: self.receiver.sources().into_iter().map(source).collect(),
        })
    }

    fn disk(&self) -> pb::DiskStatus {
        let Standing { free, total, reserve_held, reserve_wanted, refused, exhausted, blocks_stay: _ } =
            self.room.standing();
        pb::DiskStatus {
            free_bytes: free,
            total_bytes: total,
            reserve_bytes: reserve_held,
            reserve_wanted_bytes: reserve_wanted,
            refused_since_ms: refused.as_ref().map_or(0, |refused| refused.since.as_millis()),
            why: refused.map(|refused| refused.why).unwrap_or_default(),
            exhausted,
        }
    }

    /// Hosts that were over a quota lately.
    async fn over_quota(&self) -> Result<Vec<(String, Limited)>, Status> {
        let over = self.quotas.over(Instant::now());
        self.read(move |state| {
            let named = |(agent, limited)| Some((state.host(agent)?.instance.clone(), limited));
            over.into_iter().filter_map(named).collect()
        })
        .await
    }

    /// What is wrong with the collector itself; what is wrong with hosts are alerts.
    fn problems(
        &self,
        degraded: Option<String>,
        over: &[(String, Limited)],
        spools: Vec<String>,
    ) -> Vec<String> {
        let lines = |of: &Mutex<Vec<String>>| of.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut problems: Vec<String> = degraded.into_iter().chain(self.room.standing().trouble()).collect();
        extend_unique(&mut problems, self.room.memory().trouble());
        extend_unique(&mut problems, lines(&self.about.problems));
        extend_unique(&mut problems, lines(&self.projection.problems));
        extend_unique(&mut problems, spools);
        extend_unique(&mut problems, clock::trouble());
        let plan = self.plan.load_full();
        let failing = plan.rules.iter().filter_map(|planned| {
            let id = planned.rule.id.as_str();
            Some(format!("rule {id} fails: {}", self.statistics.error_of(id)?))
        });
        extend_unique(&mut problems, failing);
        let over = over.iter().map(|(host, limited)| format!("{host} is over a quota: {}", limited.advice()));
        extend_unique(&mut problems, over);
        if problems.len() > PROBLEMS_MAX {
            let more = problems.split_off(PROBLEMS_MAX - 1).len();
            problems.push(format!("and {more} more problems: the log has them"));
        }
        problems
    }
}

fn source(standing: SourceStanding) -> pb::SourceStatus {
    let SourceStanding { source, series, series_max, requests, written, refused, held_back, last_error } =
        standing;
    let refused = Reason::ALL.into_iter().map(|reason| pb::RefusedSamples {
        reason: reason.as_str().to_owned(),
        count: refused.count(reason),
    });
    pb::SourceStatus {
        name: source.to_string(),
        requests,
        samples: written,
        series: series as u64,
        series_max: series_max as u64,
        refused: refused.filter(|refused| refused.count > 0).collect(),
        held_back,
        last_error: last_error.unwrap_or_default(),
    }
}

/// The length of all files in a directory; what vanishes meanwhile counts for nothing.
fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file());
    files.map(|meta| meta.len()).sum()
}

/// Resident memory of this process; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    pages * page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}
