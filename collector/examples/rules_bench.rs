//! What a row of a host costs to evaluate: every host-local rule of a file, over hosts as node_exporter shows them.
//!
//! `cargo run --release -p tocsin-collector --example rules_bench RULES [hosts] [rows]`, by default 1,000 hosts with
//! 40 rows at 10 s behind them; 2,300 rows give the rules over six hours all they look at, in blocks and in memory.
//! Then six more rows of each host are appended and evaluated, as the collector does it: a rule that looks back over
//! an hour runs at most once a minute, so that six rows are one turn of everything. 36 % of the series change.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use tocsin_collector::evaluate::plan::Plan;
use tocsin_collector::rules::{RuleSet, parse_file};
use tocsin_collector::samples::{SelectorCache, Store};
use tocsin_promql::{Limits, Value, instant};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

const STEP_MILLIS: i64 = 10_000;
const SERIES: usize = 200;
const EVALUATED_ROWS: i64 = 6;
/// As the collector seals: an hour after a window's end.
const SEALED_AFTER: Duration = Duration::from_secs(3600);

/// How a series moves from row to row.
#[derive(Clone, Copy)]
enum Moves {
    Never,
    /// A counter of hundredths.
    Seconds,
    /// A counter of whole numbers.
    Counts,
    /// A gauge of bytes.
    Bytes,
}

struct Host {
    agent: AgentId,
    /// Each host has its own, as each agent sends its own.
    table: Arc<[Labels]>,
    moves: Vec<Moves>,
    values: Vec<f64>,
    cache: RefCell<SelectorCache>,
    ran_at: Vec<Timestamp>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("which rule file? RULES [hosts] [rows]")?;
    let mut number = |default: i64| arguments.next().map_or(Ok(default), |text| text.parse::<i64>());
    let (hosts, rows) = (number(1_000)?, number(40)?);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let file = parse_file(&path, &text).map_err(|mistakes| anyhow!("{mistakes:?}"))?;
    let plan = Plan::new(1, &RuleSet::new(vec![file])?);

    let dir = std::env::temp_dir().join(format!("rules-bench-{}", std::process::id()));
    let (store, _) = Store::open(&dir)?;
    let before = resident()?;
    let mut fleet = (0..hosts).map(|number| host(&store, number, plan.rules.len())).collect::<Vec<_>>();
    let per_series = |bytes: u64| bytes as f64 / (hosts as usize * SERIES) as f64;
    println!(
        "labels   {:8.0} B/series resident, as the agents sent them, texts shared",
        per_series(resident()? - before)
    );
    for host in &fleet {
        let name = format!("host-{:04}.example", host.agent.0.as_u128());
        store.set_target(
            host.agent,
            Labels::new([("instance", name.as_str()), ("job", "node"), ("env", "prod")]),
        );
    }
    let mut appending = Duration::ZERO;
    for row in 0..rows {
        append(&store, &mut fleet, row, &mut appending)?;
        for window in store.windows_in_memory().into_iter().filter(|_| row % 60 == 0) {
            if window.to.plus(SEALED_AFTER) < at(row) {
                store.seal(window)?;
            }
        }
    }
    let samples = (hosts * rows) as f64 * SERIES as f64;
    println!("append   {:8.2} M samples/s", samples / appending.as_secs_f64() / 1e6);
    println!("memory   {:8.0} B/series resident before the rules ran", per_series(resident()? - before));
    evaluate(&store, &plan, &mut fleet, rows)?;
    println!("memory   {:8.0} B/series resident after", per_series(resident()? - before));
    let stats = store.stats();
    println!(
        "         {:8.0} B/series of samples, {:.0} of lists",
        per_series(stats.sample_bytes_in_memory as u64),
        per_series(stats.series_bytes_in_memory as u64)
    );
    drop(store);
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Appends and evaluates some rows, and tells what each rule took.
fn evaluate(store: &Store, plan: &Plan, fleet: &mut [Host], rows: i64) -> anyhow::Result<()> {
    let (mut spent, mut runs) = (vec![Duration::ZERO; plan.rules.len()], vec![0u32; plan.rules.len()]);
    let (mut elements, mut total, mut appending) = (0, Duration::ZERO, Duration::ZERO);
    // The first turn finds each selector's series, which later ones remember: it is told apart.
    for turn in 0..2 {
        let first = rows + turn * EVALUATED_ROWS;
        (elements, total) = (0, Duration::ZERO);
        spent.fill(Duration::ZERO);
        runs.fill(0);
        for row in first..first + EVALUATED_ROWS {
            append(store, fleet, row, &mut appending)?;
            for host in fleet.iter_mut() {
                let started = Instant::now();
                elements += evaluate_row(store, plan, host, at(row), &mut spent, &mut runs)?;
                total += started.elapsed();
            }
        }
        let name = if turn == 0 { "first" } else { "rows" };
        println!("{name:8} {:8.2} us a host row", per_run(total, fleet.len() as u32 * EVALUATED_ROWS as u32));
    }
    println!("         {} rules, {elements} elements", runs.iter().filter(|runs| **runs > 0).count());
    let mut order = (0..plan.rules.len()).filter(|number| runs[*number] > 0).collect::<Vec<_>>();
    order.sort_by_key(|number| std::cmp::Reverse(spent[*number]));
    for number in order {
        let share = 100.0 * spent[number].as_secs_f64() / total.as_secs_f64();
        let each = per_run(spent[number], runs[number]);
        println!(
            "rule     {each:8.2} us a run {share:6.1} % of all  {}",
            plan.rules[number].rule.id.as_str()
        );
    }
    Ok(())
}

fn evaluate_row(
    store: &Store,
    plan: &Plan,
    host: &mut Host,
    now: Timestamp,
    spent: &mut [Duration],
    runs: &mut [u32],
) -> anyhow::Result<usize> {
    let (mut elements, limits) = (0, Limits::default());
    let mut view = store.host_view(host.agent);
    for (number, planned) in plan.rules.iter().enumerate().filter(|(_, planned)| planned.host_local) {
        let ran_at = host.ran_at[number];
        if ran_at != Timestamp::MIN && now.since(ran_at) < planned.gap {
            continue;
        }
        host.ran_at[number] = now;
        let started = Instant::now();
        view = view.with_cache(number, &host.cache);
        let Value::Vector(found) = instant(&planned.expr, &view, now.minus(planned.query_offset), &limits)?
        else {
            continue;
        };
        ensure!(view.take_error().is_none(), "{} could not be read", planned.rule.name());
        elements += found.len();
        spent[number] += started.elapsed();
        runs[number] += 1;
    }
    Ok(elements)
}

fn per_run(spent: Duration, runs: u32) -> f64 {
    spent.as_secs_f64() * 1e6 / f64::from(runs)
}

fn at(row: i64) -> Timestamp {
    Timestamp::from_millis(1_795_392_000_000 + row * STEP_MILLIS)
}

fn append(store: &Store, fleet: &mut [Host], row: i64, spent: &mut Duration) -> anyhow::Result<()> {
    for (number, host) in fleet.iter_mut().enumerate() {
        for (place, (value, moves)) in host.values.iter_mut().zip(&host.moves).enumerate() {
            let change = ((row as usize * 31 + place * 17 + number * 7) % 97) as f64;
            match moves {
                Moves::Never => {}
                Moves::Seconds => *value = ((*value * 100.0).round() + change) / 100.0,
                Moves::Counts => *value += change,
                Moves::Bytes => *value = 6e9 + change * 4096.0,
            }
        }
        let started = Instant::now();
        store.append(host.agent, &host.table, at(row), &host.values)?;
        *spent += started.elapsed();
    }
    Ok(())
}

/// The resident set of this process, bytes.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn host(store: &Store, number: i64, rules: usize) -> Host {
    let series = series(number);
    let agent = AgentId(Uuid::from_u128(number as u128));
    let table = store.share_texts(&series.iter().map(|(labels, _, _)| labels.clone()).collect::<Vec<_>>());
    let moves = series.iter().map(|(_, _, moves)| *moves).collect();
    let values = series.iter().map(|(_, value, _)| *value).collect();
    Host { agent, table, moves, values, cache: RefCell::default(), ran_at: vec![Timestamp::MIN; rules] }
}

type Shown = (Labels, f64, Moves);

/// The series of a host: 8 processors, 4 file systems, 2 disks, 3 network devices and what a host has once.
fn series(number: i64) -> Vec<Shown> {
    use Moves::{Bytes, Counts, Never, Seconds};
    let mut all: Vec<Shown> = Vec::new();
    let mut add = |metric: &str, labels: &[(&str, &str)], value: f64, moves: Moves| {
        all.push((Labels::series(metric, labels), value, moves));
    };
    for cpu in 0..8 {
        let modes = ["idle", "user", "system", "iowait", "nice", "irq", "softirq", "steal"];
        for (place, mode) in modes.into_iter().enumerate() {
            let moves = if place < 4 { Seconds } else { Never };
            let value = if place == 0 { 1e6 } else { 100.0 };
            add("node_cpu_seconds_total", &[("cpu", &cpu.to_string()), ("mode", mode)], value, moves);
        }
    }
    for (place, mountpoint) in ["/", "/data", "/boot", "/var/log"].into_iter().enumerate() {
        let device = format!("/dev/sda{place}");
        let labels = [("device", device.as_str()), ("fstype", "ext4"), ("mountpoint", mountpoint)];
        let moves = if place < 2 { Bytes } else { Never };
        add("node_filesystem_avail_bytes", &labels, 6e9, moves);
        add("node_filesystem_free_bytes", &labels, 6e9, moves);
        add("node_filesystem_size_bytes", &labels, 9e9, Never);
        add("node_filesystem_files", &labels, 1e7, Never);
        add("node_filesystem_files_free", &labels, 9e6, if place < 2 { Counts } else { Never });
        add("node_filesystem_readonly", &labels, 0.0, Never);
        add("node_filesystem_device_error", &labels, 0.0, Never);
    }
    for (device, moves) in [("vda", [Seconds, Counts]), ("vdb", [Never, Never])] {
        for name in ["io_time_seconds", "io_time_weighted_seconds", "read_time_seconds", "write_time_seconds"]
        {
            add(&format!("node_disk_{name}_total"), &[("device", device)], 5.0, moves[0]);
        }
        for name in ["reads_completed", "writes_completed", "reads_merged", "read_bytes", "written_bytes"] {
            add(&format!("node_disk_{name}_total"), &[("device", device)], 1e6, moves[1]);
        }
    }
    for (device, moves) in [("lo", Never), ("eth0", Counts), ("eth1", Counts)] {
        for name in ["receive_bytes", "receive_packets", "transmit_bytes", "transmit_packets"] {
            add(&format!("node_network_{name}_total"), &[("device", device)], 1e6, moves);
        }
        for name in ["receive_errs", "receive_drop", "transmit_errs", "transmit_drop"] {
            add(&format!("node_network_{name}_total"), &[("device", device)], 0.0, Never);
        }
        add("node_network_speed_bytes", &[("device", device)], 1.25e8, Never);
    }
    for unit in ["ssh.service", "cron.service"] {
        for state in ["active", "activating", "deactivating", "failed", "inactive"] {
            let value = f64::from(u8::from(state == "active"));
            add("node_systemd_unit_state", &[("name", unit), ("state", state)], value, Never);
        }
    }
    let release = [("machine", "x86_64"), ("release", "6.12.0"), ("sysname", "Linux")];
    add("node_uname_info", &release, 1.0, Never);
    for (metric, value, moves) in [
        ("node_memory_MemAvailable_bytes", 6e9, Bytes),
        ("node_memory_MemFree_bytes", 6e9, Bytes),
        ("node_memory_Cached_bytes", 6e9, Bytes),
        ("node_memory_MemTotal_bytes", 1.6e10, Never),
        ("node_memory_SwapTotal_bytes", 4e9, Never),
        ("node_memory_SwapFree_bytes", 4e9, Never),
        ("node_vmstat_pswpin", 0.0, Never),
        ("node_vmstat_pswpout", 0.0, Never),
        ("node_vmstat_oom_kill", 0.0, Never),
        ("node_vmstat_pgmajfault", 1e4, Counts),
        ("node_vmstat_pgpgin", 1e6, Counts),
        ("node_vmstat_pgpgout", 1e6, Counts),
        ("node_netstat_Tcp_InSegs", 1e6, Counts),
        ("node_netstat_Tcp_OutSegs", 1e6, Counts),
        ("node_pressure_cpu_waiting_seconds_total", 10.0, Seconds),
        ("node_pressure_io_stalled_seconds_total", 10.0, Seconds),
        ("node_pressure_io_waiting_seconds_total", 10.0, Seconds),
        ("node_pressure_memory_stalled_seconds_total", 0.0, Never),
        ("node_load1", 0.5, Seconds),
        ("node_load5", 0.5, Never),
        ("node_load15", 0.5, Never),
        ("node_forks_total", 1e6, Counts),
        ("node_context_switches_total", 1e9, Counts),
        ("node_intr_total", 1e9, Counts),
        ("node_procs_blocked", 0.0, Never),
        ("node_procs_running", 1.0, Never),
        ("node_timex_offset_seconds", 0.0001, Never),
        ("node_timex_sync_status", 1.0, Never),
        ("node_timex_maxerror_seconds", 0.01, Never),
        ("node_time_seconds", 1.795e9, Counts),
        ("node_boot_time_seconds", 1.79e9 + number as f64, Never),
        ("node_filefd_allocated", 2e3, Counts),
        ("node_filefd_maximum", 1e6, Never),
        ("node_nf_conntrack_entries", 500.0, Never),
        ("node_nf_conntrack_entries_limit", 262_144.0, Never),
        ("tocsin_agent_spool_bytes", 4096.0, Never),
    ] {
        add(metric, &[], value, moves);
    }
    for softnet in 0..SERIES.saturating_sub(all.len()) {
        let labels = Labels::series("node_softnet_times_squeezed_total", &[("cpu", &softnet.to_string())]);
        all.push((labels, 0.0, Never));
    }
    all.truncate(SERIES);
    all
}
