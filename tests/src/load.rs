//! The load under which a collector is killed: virtual hosts whose levels cross thresholds, jobs that end, operators,
//! consumers. All of them go on by themselves when the collector is back, and write into `Promises` what it told them.

mod consumer;
mod operator;
mod speaker;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tocsin_proto::pb;
use tokio::task::JoinSet;

use crate::api::CredentialFile;
use crate::dice::Dice;
use crate::promises::{Counts, HostBook, Promises, RULES, lock};
use crate::site::Site;
use crate::virtual_agent::VirtualAgent;
use crate::wait::wait_until;

/// Between two attempts to reach a collector that was killed.
const AGAIN: Duration = Duration::from_millis(20);

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hosts: usize,
    /// Levels of each host, each with an alert of its own.
    pub slots: usize,
    /// Between two rows of a host.
    pub tick: Duration,
    /// Levels that change from a row to the next, at most; with 0 every level is breached and stays so.
    pub changes: u64,
    pub consumers: usize,
    /// Between two acts of the operator; none acts with `None`.
    pub acts: Option<Duration>,
}

impl Shape {
    /// Two hundred alerts that come and go.
    pub const CROWD: Self = Self {
        hosts: 5,
        slots: 40,
        tick: Duration::from_millis(100),
        changes: 1,
        consumers: 2,
        acts: Some(Duration::from_millis(30)),
    };
    /// Two hundred alerts that fire and go on firing.
    pub const STEADY: Self =
        Self { hosts: 5, slots: 40, tick: Duration::from_millis(200), changes: 0, consumers: 1, acts: None };
}

/// A line of the collector's configuration for loads under which nobody falls silent: a machine that is busy with other
/// things may keep everybody from speaking for seconds.
pub const PATIENT: &str = "heartbeat = \"20s\"\n";

/// The rules of the load.
pub fn rules() -> String {
    let mut text = "groups:\n  - name: promises\n    rules:\n".to_owned();
    for (name, hold, keep) in RULES {
        let rule = format!("      - alert: {name}\n        expr: promise_level{{rule={name:?}}} > 0\n");
        let labels = "        labels: {severity: critical}\n";
        // Writing to a string does not fail.
        write!(text, "{rule}        for: {hold}ms\n        keep_firing_for: {keep}ms\n{labels}")
            .unwrap_or_default();
    }
    text
}

/// What every part of the load shares.
#[derive(Clone)]
pub struct Shared {
    pub promises: Arc<Promises>,
    pub credential: CredentialFile,
    pub shape: Shape,
    /// Marks of acts and names of runs.
    marks: Arc<AtomicU64>,
    /// Nothing new is made; what was made is brought to its end.
    settling: Arc<AtomicBool>,
}

impl Shared {
    fn mark(&self) -> String {
        format!("m{}", self.marks.fetch_add(1, Ordering::Relaxed))
    }

    fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Relaxed)
    }
}

/// A load that runs until it is settled, or ends with this value.
pub struct Load {
    shared: Shared,
    /// Hosts stay until the end.
    hosts: JoinSet<()>,
    /// Consumers and operators leave when it settles.
    people: JoinSet<()>,
}

impl Load {
    /// Enrols the hosts and starts everything.
    pub async fn start(site: &Site, shape: Shape, dice: &mut Dice) -> anyhow::Result<Self> {
        let mut promises = Promises::default();
        let mut agents = Vec::new();
        for number in 0..shape.hosts {
            let hostname = format!("host-{number}");
            agents.push(VirtualAgent::enrol(&site.api, pb::Env::Prod, &hostname).await?);
            promises.hosts.push(Arc::new(Mutex::new(HostBook { hostname, ..HostBook::default() })));
        }
        let mut credential = CredentialFile::read(&site.credential_file())?;
        credential.endpoint.clone_from(&site.addresses().front);
        let (marks, settling) = (Arc::default(), Arc::default());
        let shared = Shared { promises: Arc::new(promises), credential, shape, marks, settling };
        let (mut hosts, mut people) = (JoinSet::new(), JoinSet::new());
        for (number, agent) in agents.into_iter().enumerate() {
            let book = Arc::clone(&shared.promises.hosts[number]);
            hosts.spawn(speaker::Speaker::new(shared.clone(), agent, book, dice.split()).run());
        }
        for number in 0..shape.consumers {
            people.spawn(consumer::run(shared.clone(), format!("pager-{number}"), dice.split()));
        }
        if let Some(pause) = shape.acts {
            people.spawn(operator::run(shared.clone(), pause, dice.split()));
        }
        Ok(Self { shared, hosts, people })
    }

    pub fn promises(&self) -> &Promises {
        &self.shared.promises
    }

    /// Makes nothing new, waits until every host has its acknowledgements, and compares everything.
    pub async fn settle(mut self, site: &Site, within: Duration) -> anyhow::Result<Counts> {
        self.shared.settling.store(true, Ordering::Relaxed);
        let settled = async || {
            let books = &self.shared.promises.hosts;
            books.iter().all(|book| lock(book).is_settled()).then_some(())
        };
        let settled = wait_until("every host with its acknowledgements", within, settled).await;
        settled.map_err(|error| error.context(self.behind()))?;
        while let Some(part) = self.people.join_next().await {
            part?;
        }
        let kept = self.shared.promises.kept(site, within).await;
        self.hosts.abort_all();
        kept
    }

    fn behind(&self) -> String {
        let behind = |book: &Arc<Mutex<HostBook>>| {
            let book = lock(book);
            let HostBook { hostname, rows, rows_acknowledged, outcomes, outcomes_acknowledged, .. } = &*book;
            let (rows, outcomes) = (rows.len(), outcomes.len());
            format!(
                "{hostname}: {rows_acknowledged} of {rows} rows, {outcomes_acknowledged} of {outcomes} runs; "
            )
        };
        self.shared.promises.hosts.iter().map(behind).collect()
    }
}
