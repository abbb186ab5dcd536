//! Rules over rows, through a real ledger and sample store.

use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use tocsin_shared::alert::Condition;
use tocsin_shared::disk::{Disk, MemoryDisk};
use tocsin_shared::event::Sealed;
use tocsin_shared::identity::Env;
use tocsin_shared::labels::Labels;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::journal::ledger::{self, Fatal};
use crate::journal::rows;
use crate::rules::{RuleSet, parse_file};
use crate::samples::ABSENT;
use crate::state::Defaults;
use crate::state::testing::{agent, at, enrolment, heard, token};

/// A collector without sockets, and two hosts that send `x` and `y`.
pub(super) struct Bench {
    pub(super) store: Arc<Store>,
    pub(super) ledger: Ledger,
    rows: Rows,
    pub(super) plan: Arc<ArcSwap<Plan>>,
    pub(super) statistics: Arc<Statistics>,
    pub(super) evaluator: Evaluator,
    table: Arc<[Labels]>,
    samples_seq: u64,
    _dir: tempfile::TempDir,
}

fn plan(version: u64, rules: &str) -> Plan {
    let file = parse_file("test.yml", &format!("groups:\n- name: g\n{rules}")).unwrap();
    Plan::new(version, &RuleSet::new(vec![file]).unwrap())
}

/// New rules are in force from the next row on.
pub(super) fn reload(current: &ArcSwap<Plan>, rules: &str) {
    current.store(Arc::new(plan(current.load().version + 1, rules)));
}

impl Bench {
    pub(super) fn new(rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let store = Arc::new(Store::open(dir.path()).unwrap().0);
        let fatal = Fatal::new(CancellationToken::new());
        let opened = ledger::open(disk.clone(), Path::new("/j")).unwrap();
        let ledger = opened.start(Defaults::default(), fatal.clone());
        let sealed = Sealed {
            samples_from: 0,
            sealed_seq: 0,
            sealed_to: Timestamp::MIN,
            evaluated_through: 0,
            lanes: Vec::new(),
            blocks: Vec::new(),
        };
        let found = rows::Found { sealed: &sealed, lanes: Vec::new(), evaluated_through: 0 };
        let (out, _) = std::sync::mpsc::sync_channel(1);
        let rows = rows::open(disk, Path::new("/j"), store.clone(), found).unwrap().start(out, fatal);
        for n in [1, 2] {
            let enrolment = enrolment(n, &format!("web-{n}"));
            for command in [
                Command::CreateToken(token(n, Env::Prod, "*")),
                Command::Enrol(enrolment),
                Command::HostHeard(heard(n)),
            ] {
                ledger.submit_blocking(command, Actor::System).unwrap().unwrap();
            }
            store.set_target(agent(n), Labels::new([("instance", format!("web-{n}"))]));
        }
        let plan = Arc::new(ArcSwap::from_pointee(plan(1, rules)));
        let statistics = Arc::new(Statistics::default());
        let parts = Parts {
            plan: plan.clone(),
            store: store.clone(),
            rows: rows.clone(),
            ledger: ledger.clone(),
            statistics: statistics.clone(),
            defaults: Defaults::default(),
        };
        let evaluator = Evaluator::new(parts, Found::default());
        let table = ["x", "y"].iter().map(|name| Labels::series(name, &[])).collect();
        Self { store, ledger, rows, plan, statistics, evaluator, table, samples_seq: 0, _dir: dir }
    }

    pub(super) fn append(&mut self, n: u128, seconds: i64, values: [f64; 2]) -> DurableRow {
        self.store.append(agent(n), &self.table, at(seconds), &values).unwrap();
        self.samples_seq += 1;
        let (samples_seq, received) = (self.samples_seq, Instant::now());
        DurableRow { agent: agent(n), at: at(seconds), samples_seq, received, follows: true, complete: true }
    }

    /// A row of host `n` comes in; the alerts after it.
    pub(super) fn row(&mut self, n: u128, seconds: i64, values: [f64; 2]) -> Vec<(String, Condition)> {
        let row = self.append(n, seconds, values);
        self.evaluator.row(row).unwrap();
        self.evaluator.fleet().unwrap();
        self.alerts()
    }

    pub(super) fn alerts(&self) -> Vec<(String, Condition)> {
        let name = |alert: &Alert| alert.labels.get("alertname").unwrap_or_default().to_owned();
        let read = move |state: &crate::state::State| {
            state.alerts().map(|alert| (name(alert), alert.condition)).collect()
        };
        self.ledger.read_blocking(read).unwrap()
    }

    /// New rules are in force from the next row on.
    pub(super) fn reload(&mut self, rules: &str) {
        reload(&self.plan, rules);
    }

    /// A start that finds what was there.
    pub(super) fn restart(&mut self) {
        let active = self.ledger.read_blocking(|state| state.active_alerts().cloned().collect()).unwrap();
        let evaluated_at = self.store.last_rows().into_iter().collect();
        let parts = Parts {
            plan: self.plan.clone(),
            store: self.store.clone(),
            rows: self.rows.clone(),
            ledger: self.ledger.clone(),
            statistics: self.statistics.clone(),
            defaults: Defaults::default(),
        };
        let holes = self.ledger.read_blocking(|state| {
            state.holes().map(|hole| (hole.agent, hole.from)).collect::<HashMap<_, _>>()
        });
        let found = Found { active, evaluated_at, unevaluated: Vec::new(), holes: holes.unwrap() };
        self.evaluator = Evaluator::new(parts, found);
    }
}

fn alert(name: &str, condition: Condition) -> Vec<(String, Condition)> {
    vec![(name.to_owned(), condition)]
}

use Condition::{Firing, Pending, Resolved};

#[test]
fn an_alert_stays_the_same_while_its_host_is_relabelled() {
    let mut bench = Bench::new("  rules:\n  - {alert: A, expr: 'x > 1'}\n");
    for (seconds, told, read) in [(10, "a", "a"), (20, "b", "a"), (30, "b", "b"), (40, "c", "b")] {
        // The ledger is told first; rows that are evaluated until the store is told show the label before.
        let labels = Labels::new([("mark", told)]);
        let relabelled = Command::LabelHost { agent: agent(1), labels };
        bench.ledger.submit_blocking(relabelled, Actor::System).unwrap().unwrap();
        bench.store.set_target(agent(1), Labels::new([("instance", "web-1"), ("mark", read)]));
        assert_eq!(bench.row(1, seconds, [2.0, 0.0]), alert("A", Firing), "known as {told}, read as {read}");
    }
}

// Cases: R1 (partly), C-S1, C-S5
#[test]
fn a_for_goes_on_across_a_restart_and_a_new_plan() {
    let rules = "  rules:\n  - {alert: A, expr: 'x > 1', for: 30s}\n";
    let mut bench = Bench::new(rules);
    assert_eq!(bench.row(1, 0, [2.0, 0.0]), alert("A", Pending));
    bench.row(1, 10, [2.0, 0.0]);
    bench.restart();
    assert_eq!(bench.row(1, 20, [2.0, 0.0]), alert("A", Pending));
    bench.plan.store(Arc::new(plan(2, rules)));
    assert_eq!(bench.row(1, 30, [2.0, 0.0]), alert("A", Firing));
    bench.restart();
    assert_eq!(bench.row(1, 5, [0.0, 0.0]), alert("A", Firing), "a row older than the start is late");
    assert_eq!(bench.row(1, 40, [0.0, 0.0]), alert("A", Resolved), "and its end is not missed");
    assert_eq!(bench.statistics.evaluated_through(), bench.samples_seq);
}

#[test]
fn a_recorded_series_is_seen_by_the_next_rule_and_ends_at_once() {
    let rules = "  rules:\n  - {record: 'r', expr: 'x > 2'}\n  - {alert: A, expr: 'r > 0'}\n";
    let mut bench = Bench::new(rules);
    assert_eq!(bench.row(1, 0, [3.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 10, [1.0, 0.0]), alert("A", Resolved), "not five minutes later");
    assert_eq!(bench.row(1, 20, [4.0, 0.0]), alert("A", Firing));
}

#[test]
fn an_interval_is_the_shortest_time_between_two_runs() {
    let mut bench = Bench::new("  interval: 30s\n  rules:\n  - {alert: A, expr: 'x > 1'}\n");
    assert_eq!(bench.row(1, 0, [0.0, 0.0]), []);
    assert_eq!(bench.row(1, 29, [2.0, 0.0]), []);
    assert_eq!(bench.row(1, 30, [2.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 40, [0.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 60, [0.0, 0.0]), alert("A", Resolved));
}

#[test]
fn a_firing_alert_is_kept_as_long_as_its_rule_says() {
    let mut bench = Bench::new("  rules:\n  - {alert: A, expr: 'x > 1', keep_firing_for: 20s}\n");
    assert_eq!(bench.row(1, 0, [2.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 10, [0.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 20, [0.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 30, [0.0, 0.0]), alert("A", Resolved));
}

// Cases: R17
#[test]
fn a_rule_that_fails_moves_nothing_and_says_why() {
    let mut bench = Bench::new("  rules:\n  - {alert: A, expr: '{__name__=~\"x|y\"} > 1'}\n");
    assert_eq!(bench.row(1, 0, [2.0, 0.0]), alert("A", Firing));
    assert_eq!(bench.row(1, 10, [2.0, 2.0]), alert("A", Firing));
    assert_eq!(bench.statistics.failing_rules(), 1);
    assert_eq!(bench.row(1, 20, [0.0, 0.0]), alert("A", Resolved));
}

/// Samples that cannot be read without a panic.
struct Broken;

impl tocsin_promql::Source for Broken {
    fn select(
        &self,
        _: &tocsin_promql::Selector,
        _: Timestamp,
        _: Timestamp,
        _: &mut dyn FnMut(&Labels, &[i64], &[f64]),
    ) {
        panic!("a fault of ours");
    }
}

// Cases: C11
#[test]
fn a_panic_is_an_error_of_its_rule() {
    let plan = plan(1, "  rules:\n  - {alert: A, expr: 'rate(x[1m]) > 1'}\n");
    let said = host::run(&plan.rules[0], &Broken, at(0), false).unwrap_err();
    assert_eq!(said, "it panicked; the log has the place");
}

// Cases: C11, R18
#[test]
fn a_panic_in_a_template_costs_its_text_and_no_alert() {
    let mut bench = Bench::new(
        "  rules:\n  - {alert: A, expr: 'x > 1'}\n  - {alert: B, expr: 'x > 1', labels: {l: v}}\n  - {alert: C, expr: 'x > 1'}\n",
    );
    let mut faulty = Arc::into_inner(bench.plan.swap(Arc::default())).expect("nobody else has it");
    faulty.version = 2;
    let summary = ("summary".into(), crate::rules::Template::faulty());
    faulty.rules[0].rule.annotations.push(summary);
    faulty.rules[1].rule.labels[0].1 = crate::rules::Template::faulty();
    bench.plan.store(Arc::new(faulty));
    let panics = crate::contain::panics();
    for seconds in [0, 10] {
        let alerts = bench.row(1, seconds, [2.0, 0.0]);
        let names: std::collections::BTreeSet<&str> = alerts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B", "C"].into());
        assert!(alerts.iter().all(|(_, condition)| *condition == Firing), "{alerts:?}");
        assert_eq!(bench.statistics.failing_rules(), 2, "each of them, once");
    }
    assert!(crate::contain::panics() >= panics + 4);
    let read = |state: &crate::state::State| state.alerts().cloned().collect::<Vec<Alert>>();
    let told: Vec<Alert> = bench.ledger.read_blocking(read).unwrap();
    let text = "<error expanding template: it panicked; the log has the place>";
    let a = told.iter().find(|alert| alert.labels.get("alertname") == Some("A")).unwrap();
    assert_eq!(a.annotations.get("summary"), Some(text));
    let b = told.iter().find(|alert| alert.labels.get("alertname") == Some("B")).unwrap();
    assert_eq!(b.labels.get("l"), Some(text));
}

// Cases: R8, C-S1
#[test]
fn a_silent_host_holds_an_alert_across_hosts_also_over_a_restart() {
    let mut bench = Bench::new("  interval: 10s\n  rules:\n  - {alert: A, expr: 'max(x) by (job) > 5'}\n");
    assert_eq!(bench.row(2, 0, [9.0, 0.0]), alert("A", Firing));
    bench.row(1, 0, [1.0, 0.0]);
    bench.restart();
    for seconds in (10..900).step_by(10) {
        assert_eq!(bench.row(1, seconds, [1.0, 0.0]), alert("A", Firing), "at {seconds}");
    }
    bench.row(2, 900, [1.0, 0.0]);
    assert_eq!(bench.row(1, 900, [1.0, 0.0]), alert("A", Resolved), "a row is evidence");
}

#[test]
fn a_retired_host_holds_nothing_up() {
    let mut bench = Bench::new("  interval: 10s\n  rules:\n  - {alert: A, expr: 'max(x) by (job) > 5'}\n");
    assert_eq!(bench.row(2, 0, [9.0, 0.0]), alert("A", Firing));
    bench.row(1, 0, [1.0, 0.0]);
    let retire = Command::RetireHost { agent: agent(2), reason: "gone".into() };
    bench.ledger.submit_blocking(retire, Actor::System).unwrap().unwrap();
    for seconds in (10..=400).step_by(10) {
        bench.row(1, seconds, [1.0, 0.0]);
    }
    assert_eq!(bench.alerts(), alert("A", Resolved));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn evaluating_on_arrival_equals_evaluating_afterwards(
        values in prop::collection::vec((0u8..4, any::<bool>()), 1..40),
    ) {
        let rules = "  rules:\n  - {record: 'r', expr: 'max_over_time(x[30s])'}\n  - {alert: A, expr: 'r > 2', for: 20s}\n  - {alert: B, expr: 'x > 1 or y > 1', keep_firing_for: 20s}\n";
        let (mut live, mut after) = (Bench::new(rules), Bench::new(rules));
        let mut waiting = Vec::new();
        for (n, (x, absent)) in values.into_iter().enumerate() {
            let y = if absent { ABSENT } else { f64::from(x % 3) };
            live.row(1, 10 * n as i64, [f64::from(x), y]);
            waiting.push(after.append(1, 10 * n as i64, [f64::from(x), y]));
        }
        waiting.into_iter().for_each(|row| after.evaluator.row(row).unwrap());
        let all = |bench: &Bench| {
            let read = |state: &crate::state::State| state.alerts().cloned().collect::<Vec<Alert>>();
            let mut alerts = bench.ledger.read_blocking(read).unwrap();
            alerts.iter_mut().for_each(|alert| alert.incident = None);
            alerts
        };
        prop_assert_eq!(all(&live), all(&after));
    }
}
