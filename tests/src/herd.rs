//! A fleet whose collector restarts: everybody comes back, with what was kept meanwhile and with what happens now.
//!
//! Virtual agents wait as real ones do (`tocsin_shared::backoff`), open their sessions, send a row now and then, report
//! outcomes of jobs, and fill the hole behind them resting as long as each batch took. Measured are how long it takes
//! until all are back, how long an outcome takes meanwhile, how evenly the holes are filled, and what the collector
//! needs for it. Not here: the spool; a virtual agent makes its rows when it sends them.

mod member;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tocsin_proto::pb;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::resources;
use crate::site::Site;
use crate::swarm;
use crate::wait::wait_until;

use member::{Ledger, Member};
pub use report::{Report, quantile};

/// The promise: all are back within five minutes. Then the test gives up.
const BACK: Duration = Duration::from_secs(300);
/// Between two looks at the collector's memory.
const LOOK: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub agents: usize,
    /// Series of each host.
    pub series: usize,
    /// Between two rows of a host.
    pub interval: Duration,
    /// Rows that each host has kept when it comes back.
    pub backlog: u64,
    /// Between two outcomes of the whole fleet.
    pub outcome_every: Duration,
    /// Whether the collector is killed rather than told to stop.
    pub kill: bool,
}

/// Lets a fleet connect, restarts the collector, and waits until everybody is back and has nothing left to send.
pub async fn run(site: &mut Site, options: Options) -> anyhow::Result<Report> {
    let agents = swarm::enrol(&site.api, options.agents, "herd-").await?;
    let (phase, told) = watch::channel(0);
    let ledger = Arc::new(Ledger::default());
    let mut running = JoinSet::new();
    for (number, agent) in agents.into_iter().enumerate() {
        let member = Member::new(number, agent, options, Arc::clone(&ledger), told.clone());
        running.spawn(member.run());
    }
    let begun = Instant::now();
    let everybody = |what: &'static str, count: fn(&Ledger) -> usize| {
        let ledger = Arc::clone(&ledger);
        wait_until(what, BACK, async move || (count(&ledger) == options.agents).then_some(()))
    };
    everybody("the whole fleet", Ledger::connected).await?;
    let first = begun.elapsed();

    phase.send_replace(1);
    if options.kill {
        site.kill_collector()?
    } else {
        site.stop_collector().await?
    }
    everybody("the end of every session", Ledger::left).await?;
    let down = Instant::now();
    site.start_collector().await?;
    let (restarted, peak) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    ledger.restarted(restarted);
    let watched = site.pid().map(|pid| tokio::spawn(watch_memory(pid, Arc::clone(&peak))));
    everybody("the whole fleet again", Ledger::back).await?;
    let all_back = restarted.elapsed();
    phase.send_replace(2);
    everybody("an end of all backlogs", Ledger::filled).await?;
    let filled = restarted.elapsed();
    phase.send_replace(3);
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    if let Some(watched) = watched {
        watched.abort();
    }
    let stored = rows_of(&site.api, options).await?;
    ensure!(stored == ledger.rows(), "{stored} rows are stored, {} were acknowledged", ledger.rows());
    Ok(Report {
        options,
        first,
        down: restarted - down,
        all_back,
        filled,
        back: ledger.back_after(),
        attempts: ledger.attempts(),
        outcomes: ledger.outcome_times(),
        live: ledger.live_times(),
        filled_each: ledger.filled_after(),
        rows: stored,
        peak_bytes: peak.load(Ordering::Relaxed),
        cpu_seconds: site.pid().map(resources::of).transpose()?.unwrap_or_default().cpu_seconds,
    })
}

async fn watch_memory(pid: u32, peak: Arc<AtomicU64>) {
    while let Ok(usage) = resources::of(pid) {
        peak.fetch_max(usage.resident_bytes, Ordering::Relaxed);
        tokio::time::sleep(LOOK).await;
    }
}

/// Rows that can be asked for. Who greeted in the storm may be taken for some seconds ahead, so it looks ahead.
async fn rows_of(api: &Api, options: Options) -> anyhow::Result<u64> {
    let span = options.backlog + 7_200;
    let query = format!("sum(count_over_time(herd_0{{instance=~\"herd-.*\"}}[{span}s]))");
    let at_ms = member::wall_ms() + 60_000;
    let sums = api.query().instant(pb::InstantRequest { query, at_ms }).await?.into_inner().series;
    let points = sums.into_iter().flat_map(|series| series.points);
    Ok(points.map(|point| point.value as u64).sum())
}
