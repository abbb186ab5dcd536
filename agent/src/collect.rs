//! Host metrics under node_exporter's names: one collection at each tick. The shell that reads `/proc` and `/sys`.
//!
//! Promise: a tick never blocks on a hanging mount, a collector that fails takes only its own series with it (and
//! says so in `node_scrape_collector_success`), and a tick without news of devices allocates next to nothing.
//! The labels `job`, `instance` and `env` are not set here: the collector knows them. Not here: when a tick is.

mod bonding;
mod catalog;
mod conntrack;
mod cpu;
mod diskstats;
mod edac;
mod fields;
mod file;
mod filefd;
mod filesystem;
mod hwmon;
mod kernel;
mod loadavg;
mod mdadm;
mod meminfo;
mod netclass;
mod netdev;
mod network;
mod pressure;
mod process;
mod refresh;
mod schedstat;
mod section;
mod source;
mod stat;
mod sys;
mod table;
mod textfile;
mod time;
mod timex;
mod uname;
mod vmstat;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};
use regex::Regex;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

pub use self::catalog::{Kind, Unit, describe};
use self::section::{SECTION_SERIES_MAX, Section, Slot};
use self::source::{CollectError, Roots, Source};
use self::table::Table;

/// What to collect, and where from. Patterns are matched unanchored, as node_exporter's are; `None` is the usual one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the host's `/` is: `/`, a container's mount of it, or a fixture.
    pub root: PathBuf,
    /// Kinds of file systems to leave out.
    pub filesystem_exclude_types: Option<Regex>,
    /// Mount points to leave out.
    pub filesystem_exclude_mounts: Option<Regex>,
    /// Block devices to leave out.
    pub disk_exclude_devices: Option<Regex>,
    /// Network devices to leave out; `None` leaves out nothing.
    pub network_exclude_devices: Option<Regex>,
    /// Where other programs leave `*.prom` files; `None` looks nowhere.
    pub textfile_directory: Option<PathBuf>,
    /// Collectors that are switched off, by the name in the label `collector`.
    pub disabled: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            filesystem_exclude_types: None,
            filesystem_exclude_mounts: None,
            disk_exclude_devices: None,
            network_exclude_devices: None,
            textfile_directory: None,
            disabled: Vec::new(),
        }
    }
}

/// One collection.
#[derive(Clone, Debug)]
pub struct Tick {
    /// The series, sorted; the same `Arc` as long as the set does not change.
    pub series: Arc<[Labels]>,
    /// Their values, in the same order.
    pub values: Vec<f64>,
    /// Whether the set of series differs from the tick before; true for the first tick.
    pub table_changed: bool,
}

/// One sub-collector, or two that read the same file.
struct Part {
    names: &'static [&'static str],
    source: Box<dyn Source>,
    section: Section,
    failing: bool,
}

/// Collects the metrics of one host. Owns the open files and the caches of slow facts.
pub struct Collector {
    parts: Vec<Part>,
    scrape: Section,
    agent: Section,
    table: Table,
    tick: Tick,
}

/// The kernel's page when it does not say: the size on every platform we build for.
const PAGE_BYTES: f64 = 4096.0;
/// Durations are said in steps of this many seconds: finer ones differ at every tick and cost more to keep than all
/// other series together, and nobody asks about microseconds.
const DURATION_STEP: f64 = 1e-4;

fn sources(config: &Config) -> Vec<(&'static [&'static str], Box<dyn Source>)> {
    let Config { filesystem_exclude_types: types, filesystem_exclude_mounts: points, .. } = config.clone();
    let (disks, nets) = (config.disk_exclude_devices.clone(), config.network_exclude_devices.clone());
    let roots = &Roots::new(&config.root);
    let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map_or(PAGE_BYTES, |bytes| bytes as f64);
    vec![
        (&["cpu", "stat"], Box::new(stat::StatSource::new(roots))),
        (&["meminfo"], Box::new(meminfo::Meminfo::new(roots))),
        (&["loadavg"], Box::new(loadavg::Loadavg::new(roots))),
        (&["filesystem"], Box::new(filesystem::Filesystem::new(roots, types, points))),
        (&["diskstats"], Box::new(diskstats::Diskstats::new(roots, disks))),
        (&["netdev"], Box::new(netdev::Netdev::new(roots, nets.clone()))),
        (&["netclass"], Box::new(netclass::Netclass::new(roots, nets))),
        (&["filefd"], Box::new(filefd::Filefd::new(roots))),
        (&["conntrack"], Box::new(conntrack::Conntrack::new(roots))),
        (&["timex"], Box::new(timex::Timex)),
        (&["vmstat"], Box::new(vmstat::Vmstat::new(roots))),
        (&["pressure"], Box::new(pressure::Pressure::new(roots))),
        (&["uname"], Box::new(uname::Uname)),
        (&["time"], Box::new(time::Time::new(roots))),
        (&["process"], Box::new(process::OwnProcess::new(roots, page_bytes))),
        (&["entropy"], Box::new(kernel::Entropy::new(roots))),
        (&["arp"], Box::new(kernel::Arp::new(roots))),
        (&["os"], Box::new(kernel::Os::new(roots))),
        (&["netstat"], Box::new(network::Netstat::new(roots))),
        (&["sockstat"], Box::new(network::Sockstat::new(roots, page_bytes))),
        (&["softnet"], Box::new(network::Softnet::new(roots))),
        (&["udp_queues"], Box::new(network::UdpQueues::new(roots))),
        (&["schedstat"], Box::new(schedstat::Schedstat::new(roots))),
        (&["bonding"], Box::new(bonding::Bonding::new(roots))),
        (&["edac"], Box::new(edac::Edac::new(roots))),
        (&["hwmon"], Box::new(hwmon::Hwmon::new(roots))),
        (&["mdadm"], Box::new(mdadm::Mdadm::new(roots))),
        (&["textfile"], Box::new(textfile::Textfile::new(config.textfile_directory.clone()))),
        (&["build"], Box::new(process::BuildInfo)),
    ]
}

impl Collector {
    /// A collector that has read nothing yet.
    pub fn new(config: Config) -> Self {
        let wanted = |names: &[&str]| !names.iter().all(|name| config.disabled.iter().any(|off| off == name));
        let parts = sources(&config).into_iter().filter(|(names, _)| wanted(names));
        let parts = parts
            .map(|(names, source)| Part { names, source, section: Section::default(), failing: false })
            .collect();
        Self {
            parts,
            scrape: Section::default(),
            agent: Section::default(),
            table: Table::default(),
            tick: Tick { series: Arc::from([]), values: Vec::new(), table_changed: false },
        }
    }

    /// Adds a series of the agent's own to the next tick, for example `tocsin_agent_spool_bytes{lane="samples"}`.
    /// To be said anew before each tick; of a series said twice the later value counts.
    pub fn extra(&mut self, metric: &str, labels: &[(&str, &str)], value: f64) {
        self.agent.put(metric, labels, value);
    }

    /// One tick. `now` is the tick's time on the grid.
    pub fn collect(&mut self, now: Timestamp) -> &Tick {
        let mut changed = self.agent.end();
        self.scrape.begin();
        for part in &mut self.parts {
            changed |= part.collect(now, &mut self.scrape);
        }
        changed |= self.scrape.end();
        let sections = || self.parts.iter().map(|part| &part.section).chain([&self.scrape, &self.agent]);
        let slots = || sections().flat_map(|section: &Section| -> &[Slot] { section.slots() });
        self.tick.table_changed = changed && self.table.arrange(slots());
        self.table.fill(slots(), &mut self.tick.values);
        if self.tick.table_changed {
            self.tick.series = Arc::clone(&self.table.series);
        }
        self.agent.begin();
        &self.tick
    }
}

impl Part {
    /// Collects and reports on it; whether the set of series differs.
    fn collect(&mut self, now: Timestamp, scrape: &mut Section) -> bool {
        let begun = Instant::now();
        self.section.begin();
        let mut result = self.source.read(now, &mut self.section);
        if self.section.overflowed() {
            result = Err(CollectError::TooMany(SECTION_SERIES_MAX));
        }
        let changed = if result.is_ok() { self.section.end() } else { self.section.fail() };
        let steps = (begun.elapsed().as_secs_f64() / DURATION_STEP).round();
        for name in self.names {
            let labels = [("collector", *name)];
            scrape.put("node_scrape_collector_duration_seconds", &labels, steps * DURATION_STEP);
            let success = if result.is_ok() { 1.0 } else { 0.0 };
            scrape.put("node_scrape_collector_success", &labels, success);
        }
        self.tell(result);
        changed
    }

    /// Logs a failure once, when it begins.
    fn tell(&mut self, result: Result<(), CollectError>) {
        let was = std::mem::replace(&mut self.failing, result.is_err());
        let collector = self.names[0];
        match result {
            Err(CollectError::Absent(what)) if !was => tracing::debug!(collector, what, "nothing to collect"),
            Err(error) if !was => {
                tracing::warn!(collector, %error, "a collector fails; its series are absent")
            }
            Ok(()) if was => tracing::info!(collector, "a collector works again"),
            _ => {}
        }
    }
}
