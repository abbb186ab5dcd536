//! Host metrics under node_exporter's names: one collection at each tick. The shell that reads `/proc` and `/sys`.
//!
//! Promise: a tick never blocks on a hanging mount, a collector that fails takes only its own series with it (and
//! says so in `node_scrape_collector_success`), and a tick without news of devices allocates next to nothing.
//! The labels `job`, `instance` and `env` are not set here: the collector knows them. Not here: when a tick is.

mod arp;
mod bonding;
mod build;
mod conntrack;
mod cpu;
mod diskstats;
mod edac;
mod entropy;
mod fields;
mod file;
mod filefd;
mod filesystem;
#[doc(hidden)]
pub mod fuzz;
mod hwmon;
mod kernel_hung;
mod loadavg;
mod mdadm;
mod meminfo;
mod netclass;
mod netdev;
mod netstat;
mod os;
mod platform;
mod pressure;
mod process;
mod refresh;
mod schedstat;
mod section;
mod sockstat;
mod softnet;
mod source;
mod stat;
mod sys;
mod table;
mod textfile;
mod time;
mod timex;
mod udp_queues;
mod uname;
mod vmstat;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::{SysconfVar, sysconf};
use regex::Regex;
use tocsin_shared::labels::Labels;
pub use tocsin_shared::metric::describe;
use tocsin_shared::time::Timestamp;

use self::section::{SECTION_SERIES_MAX, Section, Slot};
use self::source::{CollectError, Roots, Source};
use self::table::{SERIES_MAX, Table};

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
/// Durations are said in steps of one such part of a second: finer ones differ at every tick and cost more to keep than all
/// other series together, and nobody asks about microseconds.
const DURATION_STEPS: f64 = 1e4;

/// The names by which collectors can be switched off.
pub fn names() -> Vec<&'static str> {
    sources(&Config::default()).iter().flat_map(|(names, _)| names.iter().copied()).collect()
}

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
        (&["entropy"], Box::new(entropy::Entropy::new(roots))),
        (&["kernel_hung"], Box::new(kernel_hung::HungTasks::new(roots))),
        (&["arp"], Box::new(arp::Arp::new(roots))),
        (&["os"], Box::new(os::Os::new(roots))),
        (&["netstat"], Box::new(netstat::Netstat::new(roots))),
        (&["sockstat"], Box::new(sockstat::Sockstat::new(roots, page_bytes))),
        (&["softnet"], Box::new(softnet::Softnet::new(roots))),
        (&["udp_queues"], Box::new(udp_queues::UdpQueues::new(roots))),
        (&["schedstat"], Box::new(schedstat::Schedstat::new(roots))),
        (&["bonding"], Box::new(bonding::Bonding::new(roots))),
        (&["edac"], Box::new(edac::Edac::new(roots))),
        (&["hwmon"], Box::new(hwmon::Hwmon::new(roots))),
        (&["thermal_zone"], Box::new(platform::Platform::thermal(roots))),
        (&["cpufreq"], Box::new(platform::Platform::clocks(roots))),
        (&["powersupplyclass"], Box::new(platform::Platform::supplies(roots))),
        (&["mdadm"], Box::new(mdadm::Mdadm::new(roots))),
        (&["textfile"], Box::new(textfile::Textfile::new(config.textfile_directory.clone()))),
        (&["build"], Box::new(build::BuildInfo)),
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
        self.scrape.put("tocsin_agent_series_dropped", &[], self.dropped() as f64);
        changed |= self.scrape.end();
        // The agent's own first: they must not be what a table too long leaves out.
        let sections =
            || [&self.agent, &self.scrape].into_iter().chain(self.parts.iter().map(|p| &p.section));
        let slots = || sections().flat_map(|section: &Section| -> &[Slot] { section.slots() });
        self.tick.table_changed = changed && self.table.arrange(slots());
        self.table.fill(slots(), &mut self.tick.values);
        if self.tick.table_changed {
            self.tick.series = Arc::clone(&self.table.series);
        }
        self.agent.begin();
        &self.tick
    }

    /// How many series are beyond what a table holds.
    fn dropped(&self) -> usize {
        let parts: usize = self.parts.iter().map(|part| part.section.slots().len()).sum();
        (parts + self.agent.slots().len() + self.scrape.slots().len()).saturating_sub(SERIES_MAX)
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
        let steps = (begun.elapsed().as_secs_f64() * DURATION_STEPS).round();
        for name in self.names {
            let labels = [("collector", *name)];
            scrape.put("node_scrape_collector_duration_seconds", &labels, steps / DURATION_STEPS);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    /// A host made of the fixtures.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("proc/stat", include_str!("collect/fixtures/proc/stat")),
            ("proc/meminfo", include_str!("collect/fixtures/proc/meminfo")),
            ("proc/vmstat", include_str!("collect/fixtures/proc/vmstat")),
            ("proc/loadavg", include_str!("collect/fixtures/proc/loadavg")),
            ("proc/diskstats", include_str!("collect/fixtures/proc/diskstats")),
            ("proc/mdstat", include_str!("collect/fixtures/proc/mdstat")),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn collector(root: &Path) -> Collector {
        Collector::new(Config { root: root.to_owned(), ..Config::default() })
    }

    fn values(tick: &Tick) -> BTreeMap<String, f64> {
        assert_eq!(tick.series.len(), tick.values.len());
        assert!(tick.series.is_sorted());
        tick.series.iter().map(ToString::to_string).zip(tick.values.iter().copied()).collect()
    }

    /// The agent moves its collector into the thread that ticks.
    const fn is_send<T: Send>() {}
    const _: () = is_send::<Collector>();

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn the_table_is_kept_while_the_series_are_the_same() {
        let root = host();
        let mut collector = collector(root.path());
        let first = collector.collect(at(0)).clone();
        assert!(first.table_changed);
        assert_eq!(values(&first)[r#"node_cpu_seconds_total{cpu="0", mode="user"}"#], 61.52);

        fs::write(root.path().join("proc/loadavg"), "9.5 1 1 1/1 1\n").unwrap();
        let second = collector.collect(at(10)).clone();
        assert!(!second.table_changed);
        assert!(Arc::ptr_eq(&first.series, &second.series));
        assert_eq!(values(&second)["node_load1"], 9.5);
        assert_eq!(values(&second)["node_time_seconds"], 10.0);
    }

    #[test]
    fn a_failing_collector_takes_only_its_own_series() {
        let root = host();
        let mut collector = collector(root.path());
        let before = values(collector.collect(at(0)));
        fs::write(root.path().join("proc/meminfo"), "MemTotal: lots\n").unwrap();
        let tick = collector.collect(at(10)).clone();
        assert!(tick.table_changed);
        let after = values(&tick);
        let success = r#"node_scrape_collector_success{collector="meminfo"}"#;
        assert_eq!((before[success], after[success]), (1.0, 0.0));
        let gone: Vec<&String> = before.keys().filter(|series| !after.contains_key(*series)).collect();
        assert!(!gone.is_empty() && gone.iter().all(|series| series.starts_with("node_memory_")), "{gone:?}");

        fs::write(root.path().join("proc/meminfo"), include_str!("collect/fixtures/proc/meminfo")).unwrap();
        assert_eq!(
            values(collector.collect(at(20))).keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_agent_s_own_series_are_said_in_the_next_tick() {
        let root = host();
        let mut collector = collector(root.path());
        let name = r#"tocsin_agent_spool_bytes{lane="samples"}"#;
        for (second, value, changed) in [(0, Some(1.0), true), (10, Some(2.0), false), (20, None, true)] {
            if let Some(value) = value {
                collector.extra("tocsin_agent_spool_bytes", &[("lane", "samples")], value);
            }
            let tick = collector.collect(at(second));
            assert_eq!(tick.table_changed, changed, "at {second} s");
            assert_eq!(values(tick).get(name).copied(), value, "at {second} s");
        }
    }

    #[test]
    fn a_table_too_long_keeps_the_agent_s_own_series_and_tells() {
        let root = host();
        let mut disks = String::new();
        let mut devices = "titles\ntitles\n".to_owned();
        for device in 0..950 {
            disks += &format!("8 {device} disk{device} 1 2 3 4 5 6 7 8 9 10 11\n");
            devices += &format!("net{device}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
        }
        fs::write(root.path().join("proc/diskstats"), disks).unwrap();
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        fs::write(root.path().join("proc/net/dev"), devices).unwrap();
        let mut collector = collector(root.path());
        collector.collect(at(0));
        collector.extra("tocsin_agent_spool_bytes", &[], 7.0);
        let said = values(collector.collect(at(10)));
        assert_eq!(said.len(), SERIES_MAX);
        assert_eq!(said["tocsin_agent_spool_bytes"], 7.0);
        assert!(said["tocsin_agent_series_dropped"] > 1000.0, "950 disks and devices are 26,600 series");
    }

    #[test]
    fn a_collector_can_be_switched_off() {
        let root = host();
        let disabled = vec!["meminfo".to_owned(), "timex".to_owned()];
        let mut collector =
            Collector::new(Config { root: root.path().to_owned(), disabled, ..Config::default() });
        let said = values(collector.collect(at(0)));
        assert!(said.keys().all(|series| !series.contains("meminfo") && !series.contains("node_timex_")));
        assert!(said.contains_key("node_load1"));
    }

    /// What dashboards and rules made for node_exporter need of any Linux host; the rest of what they read belongs to
    /// hardware and services that a host may lack.
    #[test]
    fn this_host_is_read_under_the_names_that_rules_use() {
        let mut collector = collector(Path::new("/"));
        let tick = collector.collect(at(0));
        for metric in [
            "node_boot_time_seconds",
            "node_context_switches_total",
            "node_cpu_guest_seconds_total",
            "node_cpu_seconds_total",
            "node_exporter_build_info",
            "node_filefd_allocated",
            "node_load15",
            "node_memory_MemAvailable_bytes",
            "node_network_receive_bytes_total",
            "node_network_up",
            "node_textfile_scrape_error",
            "node_time_seconds",
            "node_uname_info",
            "node_vmstat_pgmajfault",
            "process_resident_memory_bytes",
        ] {
            assert!(tick.series.iter().any(|series| series.metric() == metric), "{metric} is missing");
        }
    }

    proptest::proptest! {
        /// A kernel may say anything: a text is read or refused, and never a panic.
        #[test]
        fn no_text_of_the_kernel_s_makes_a_parser_panic(text in "[ -~\\n\\tü]{0,200}", words in texts()) {
            for text in [text, words] {
                read_with_all(&text);
            }
        }
    }

    /// Texts of the words that parsers look for, in any order.
    fn texts() -> impl proptest::strategy::Strategy<Value = String> {
        let words = [
            "cpu0",
            "ctxt",
            " ",
            " ",
            "\n",
            ":",
            "12",
            "-1",
            "0x1f",
            "kB",
            "(",
            ")",
            "[2/1]",
            "sda[1](F)",
            "some",
            "total=5",
            "md0 : active raid1",
            "recovery = 1% (5/9)",
            "{",
            "}",
            "=",
            "\"",
            "\\",
            "\\040",
            "Tcp: InErrs",
            "up",
        ];
        let word = proptest::sample::select(words.to_vec());
        proptest::strategy::Strategy::prop_map(proptest::collection::vec(word, 0..40), |words| words.concat())
    }

    fn read_with_all(text: &str) {
        let exclusions = filesystem::mounts::Exclusions::new(None, None);
        let results = [
            stat::parse(text).is_ok(),
            meminfo::parse(text).is_ok(),
            loadavg::parse(text).is_ok(),
            diskstats::parse(text).is_ok(),
            netdev::parse(text).is_ok(),
            netclass::parse(text).is_some(),
            filefd::parse(text).is_ok(),
            conntrack::parse(text).is_ok(),
            vmstat::parse(text).is_ok(),
            pressure::parse(text, "some").is_ok(),
            process::parse(text).is_ok(),
            process::parse_limit(text, "Max").is_some(),
            netstat::parse_netstat(text).is_ok(),
            netstat::parse_snmp6(text).is_ok(),
            sockstat::parse(text).is_ok(),
            softnet::parse(text).is_ok(),
            udp_queues::parse(text).is_ok(),
            schedstat::parse(text).is_ok(),
            hwmon::parse(text).is_some(),
            mdadm::parse(text).is_ok(),
            textfile::parse(text).is_ok(),
            filesystem::mounts::parse(text, &exclusions).is_ok(),
            !os::parse(text).is_empty() || !arp::parse(text).is_empty(),
        ];
        std::hint::black_box(results);
    }
}
