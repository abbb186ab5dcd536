//! The one screen: is everything well, and if not, what first?
//!
//! Decides what counts as a problem of the monitoring itself: what the collector says, hosts that are not heard,
//! rules that cannot be evaluated, a store or a consumer that has fallen behind. An open incident is no such problem:
//! it is what Tocsin is for, and stands beside them in the first line.

use std::collections::BTreeMap;

use serde::Serialize;
use tocsin_proto::pb;

use super::host::HostView;
use super::incident::{self, IncidentView};
use super::rules::RuleView;
use super::{Moment, moment};
use crate::figures::{self, counted};
use crate::screen::{Paint, Style, clean};
use crate::table::{Cell, Table};

/// Incidents shown; the rest are counted.
const INCIDENTS_SHOWN: usize = 8;
/// Sources shown; the rest are counted.
const SOURCES_SHOWN: usize = 4;
/// Problems of one sort that are named; the rest are counted.
const NAMED: usize = 5;
/// The store follows within a second; this far behind, answers are visibly old.
const STORE_LAG_MAX: u64 = 10_000;
/// A paging tool this far behind does not page.
const CONSUMER_LAG_MAX: u64 = 1_000;

/// `tocsin status`.
#[derive(Clone, Debug, Serialize)]
pub struct StatusView {
    /// True when there is no problem.
    pub healthy: bool,
    /// A line each, worst first.
    pub problems: Vec<String>,
    pub incidents: Vec<IncidentView>,
    pub alerts_firing: u32,
    pub hosts: HostCounts,
    pub rules: RuleCounts,
    /// Programs that pushed samples since the start.
    pub sources: Vec<SourceView>,
    pub lag: LagView,
    pub store: StoreView,
    pub collector: CollectorView,
}

/// Hosts by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostCounts {
    pub pending: u32,
    pub online: u32,
    pub unreachable: u32,
    pub retired: u32,
}

/// Rules in force.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RuleCounts {
    pub in_force: u32,
    /// Those whose last evaluation ended with an error.
    pub failing: u32,
}

/// A program that pushes samples.
#[derive(Clone, Debug, Serialize)]
pub struct SourceView {
    pub name: String,
    pub series: u64,
    pub series_max: u64,
    pub requests: u64,
    pub samples: u64,
    /// Samples that were not taken, by reason.
    pub refused: BTreeMap<String, u64>,
    pub held_back: u64,
    pub last_error: Option<String>,
}

impl From<pb::SourceStatus> for SourceView {
    fn from(status: pb::SourceStatus) -> Self {
        let pb::SourceStatus { name, requests, samples, series, series_max, refused, held_back, last_error } =
            status;
        let refused = refused.into_iter().map(|refused| (refused.reason, refused.count)).collect();
        let last_error = (!last_error.is_empty()).then_some(last_error);
        Self { name, series, series_max, requests, samples, refused, held_back, last_error }
    }
}

/// How far behind everything is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LagView {
    /// From row received to row evaluated, microseconds.
    pub evaluate_p50_us: u64,
    pub evaluate_p99_us: u64,
    /// Events that the store has not followed yet.
    pub store_events: u64,
    pub consumers: u32,
    /// Events that the slowest consumer has not acknowledged.
    pub consumer_events_max: u64,
}

/// What is on disk, in bytes, and what was taken since the start.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StoreView {
    pub total_bytes: u64,
    pub samples_journal_bytes: u64,
    pub events_journal_bytes: u64,
    pub blocks_bytes: u64,
    pub store_bytes: u64,
    pub series: u64,
    pub rows: u64,
    pub samples: u64,
    pub events: u64,
}

/// The process.
#[derive(Clone, Debug, Serialize)]
pub struct CollectorView {
    pub endpoint: String,
    pub version: String,
    pub cluster_id: String,
    pub started_at: Moment,
    pub now: Moment,
    pub resident_bytes: u64,
    pub data_dir: String,
}

/// What the status is made of; a list is empty when the credential may not see it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub status: pb::GetStatusResponse,
    pub hosts: Vec<HostView>,
    pub incidents: Vec<IncidentView>,
    pub rules: Vec<RuleView>,
    pub consumers: Vec<pb::ConsumerStatus>,
}

impl StatusView {
    /// Puts together what was found at `endpoint`.
    pub fn new(endpoint: String, mut found: Findings) -> Self {
        incident::sort(&mut found.incidents);
        let problems = problems(&found);
        let failing = found.rules.iter().filter(|rule| rule.last_error.is_some()).count();
        let status = found.status;
        let state = |at: usize| status.hosts.get(at).copied().unwrap_or_default();
        let bytes = [
            status.samples_journal_bytes,
            status.events_journal_bytes,
            status.blocks_bytes,
            status.store_bytes,
        ];
        Self {
            healthy: problems.is_empty(),
            problems,
            incidents: found.incidents,
            alerts_firing: status.alerts_firing,
            hosts: HostCounts {
                pending: state(0),
                online: state(1),
                unreachable: state(2),
                retired: state(3),
            },
            rules: RuleCounts { in_force: status.rules, failing: u32::try_from(failing).unwrap_or(u32::MAX) },
            sources: status.sources.into_iter().map(SourceView::from).collect(),
            lag: LagView {
                evaluate_p50_us: status.evaluate_p50_us,
                evaluate_p99_us: status.evaluate_p99_us,
                store_events: status.events_head.saturating_sub(status.store_applied),
                consumers: status.consumers,
                consumer_events_max: status.consumer_lag_max,
            },
            store: StoreView {
                total_bytes: bytes.into_iter().fold(0, u64::saturating_add),
                samples_journal_bytes: status.samples_journal_bytes,
                events_journal_bytes: status.events_journal_bytes,
                blocks_bytes: status.blocks_bytes,
                store_bytes: status.store_bytes,
                series: status.series,
                rows: status.rows,
                samples: status.samples,
                events: status.events_head,
            },
            collector: CollectorView {
                endpoint,
                version: status.version,
                cluster_id: status.cluster_id,
                started_at: moment(status.started_at_ms),
                now: moment(status.now_ms),
                resident_bytes: status.resident_bytes,
                data_dir: status.data_dir,
            },
        }
    }
}

/// What is wrong with the monitoring, worst first.
fn problems(found: &Findings) -> Vec<String> {
    let mut problems = found.status.problems.clone();
    let now = moment(found.status.now_ms).0;
    let silent = found.hosts.iter().filter(|host| host.state == "unreachable");
    let silent = silent.map(|host| match host.last_heard_at {
        Some(heard) => format!("{} not heard for {}", host.instance, figures::age(now, heard.0)),
        None => format!("{} not heard", host.instance),
    });
    named(&mut problems, silent, "host is unreachable", "hosts are unreachable", "tocsin hosts");
    let failing =
        found.rules.iter().filter_map(|rule| Some(format!("{}: {}", rule.name, rule.last_error.as_ref()?)));
    named(
        &mut problems,
        failing,
        "rule cannot be evaluated",
        "rules cannot be evaluated",
        "tocsin rules list",
    );
    let lag = found.status.events_head.saturating_sub(found.status.store_applied);
    if lag > STORE_LAG_MAX {
        problems.push(format!("the store is {} behind: answers are old", counted(lag, "event")));
    }
    for consumer in found.consumers.iter().filter(|consumer| consumer.lag > CONSUMER_LAG_MAX) {
        let name = consumer.consumer.as_ref().map(|consumer| consumer.name.as_str()).unwrap_or_default();
        let how = if consumer.connected { "is slow" } else { "is not connected" };
        problems.push(format!("consumer {name} {how}: {} behind", counted(consumer.lag, "event")));
    }
    problems
}

/// A problem each for the first few, one for all the others.
fn named(
    problems: &mut Vec<String>,
    found: impl Iterator<Item = String>,
    one: &str,
    many: &str,
    command: &str,
) {
    let found: Vec<String> = found.collect();
    problems.extend(found.iter().take(NAMED).map(|what| format!("{one}: {what}")));
    if found.len() > NAMED {
        problems.push(format!("{} more {many}: {command}", found.len() - NAMED));
    }
}

/// The screen.
pub fn draw_status(view: &StatusView, style: &Style) -> String {
    // Ages count on the collector's clock: this one may be wrong, and then every age would be.
    let style = &Style { now: view.collector.now.0, ..*style };
    let mut text = headline(view, style);
    if !view.problems.is_empty() {
        text.push_str(&format!("\n{}\n", style.strong("PROBLEMS")));
        for problem in &view.problems {
            text.push_str(&format!("  {} {}\n", style.paint(Some(Paint::Bad), "!"), clean(problem)));
        }
    }
    if !view.incidents.is_empty() {
        text.push_str(&format!("\n{}\n", style.strong("INCIDENTS")));
        let shown = &view.incidents[..view.incidents.len().min(INCIDENTS_SHOWN)];
        text.push_str(&incident::table(shown, style, "  "));
        if view.incidents.len() > shown.len() {
            text.push_str(&format!("  and {} more: tocsin incidents\n", view.incidents.len() - shown.len()));
        }
    }
    text.push('\n');
    text.push_str(&sections(view, style));
    text
}

fn headline(view: &StatusView, style: &Style) -> String {
    let health = match view.problems.len() {
        0 => style.paint(Some(Paint::Good), "healthy"),
        number => style.paint(Some(Paint::Bad), &counted(number as u64, "problem")),
    };
    let unattended = view.incidents.iter().filter(|incident| incident.is_unattended()).count();
    let worst = view.incidents.first().map(|incident| incident.priority).unwrap_or_default();
    let incidents = match (view.incidents.len(), unattended) {
        (0, _) => "no incident open".to_owned(),
        (open, 0) => format!("{} open, all taken, worst P{worst}", counted(open as u64, "incident")),
        (open, nobody) => {
            let nobody = style.paint(Some(Paint::Bad), &format!("{nobody} taken by nobody"));
            format!("{} open, {nobody}, worst P{worst}", counted(open as u64, "incident"))
        }
    };
    let HostCounts { pending, online, unreachable, .. } = view.hosts;
    format!(
        "tocsin: {health} · {incidents} · {online} of {} online\n",
        counted(u64::from(pending) + u64::from(online) + u64::from(unreachable), "host")
    )
}

fn sections(view: &StatusView, style: &Style) -> String {
    let mut table = Table::new(&["", ""]);
    for (name, text) in lines(view) {
        table.row([Cell::painted(name, Some(Paint::Strong)), text.into()]);
    }
    table.draw(style)
}

fn lines(view: &StatusView) -> Vec<(&'static str, String)> {
    let StatusView { hosts, rules, lag, store, collector, .. } = view;
    let mut states = vec![format!("{} online", hosts.online)];
    for (number, name) in
        [(hosts.unreachable, "unreachable"), (hosts.pending, "pending"), (hosts.retired, "retired")]
    {
        if number > 0 {
            states.push(format!("{number} {name}"));
        }
    }
    let failing = if rules.failing > 0 { format!(" · {} failing", rules.failing) } else { String::new() };
    let consumers = match lag.consumers {
        0 => "no consumers".to_owned(),
        number => format!(
            "{} up to {} behind",
            counted(number.into(), "consumer"),
            counted(lag.consumer_events_max, "event")
        ),
    };
    let evaluated = match lag.evaluate_p99_us {
        0 => "nothing evaluated yet".to_owned(),
        p99 => {
            format!("evaluated in {} (p99 {})", figures::micros(lag.evaluate_p50_us), figures::micros(p99))
        }
    };
    let mut lines = vec![
        ("HOSTS", states.join(" · ")),
        ("ALERTS", format!("{} firing", view.alerts_firing)),
        ("RULES", format!("{} in force{failing}", rules.in_force)),
        ("LAG", format!("{evaluated} · store {} behind · {consumers}", counted(lag.store_events, "event"))),
        (
            "STORE",
            format!(
                "{} · samples {} in blocks, {} in journal · events {} · index {}",
                figures::bytes(store.total_bytes),
                figures::bytes(store.blocks_bytes),
                figures::bytes(store.samples_journal_bytes),
                figures::bytes(store.events_journal_bytes),
                figures::bytes(store.store_bytes)
            ),
        ),
        (
            "TAKEN",
            format!(
                "{} series · {} samples in {} since the start · {} in all",
                figures::count(store.series),
                figures::count(store.samples),
                counted(store.rows, "row"),
                counted(store.events, "event")
            ),
        ),
        (
            "COLLECTOR",
            format!(
                "{} at {} · up {} · {} resident",
                collector.version,
                collector.endpoint,
                figures::age(collector.now.0, collector.started_at.0),
                figures::bytes(collector.resident_bytes)
            ),
        ),
        ("", format!("data in {} · cluster {}", collector.data_dir, collector.cluster_id)),
    ];
    lines.splice(AFTER_RULES..AFTER_RULES, sources(&view.sources));
    lines
}

/// Lines for the first few sources, and how many there are beside them.
fn sources(all: &[SourceView]) -> Vec<(&'static str, String)> {
    let mut texts: Vec<String> = all.iter().take(SOURCES_SHOWN).map(of_source).collect();
    if all.len() > SOURCES_SHOWN {
        texts.push(format!("and {} more", all.len() - SOURCES_SHOWN));
    }
    let headings = std::iter::once("SOURCES").chain(std::iter::repeat(""));
    headings.zip(texts).collect()
}

/// Where sources stand among the lines.
const AFTER_RULES: usize = 3;

fn of_source(source: &SourceView) -> String {
    let SourceView { name, series, samples, refused, held_back, .. } = source;
    let mut text =
        format!("{name}: {} series · {} samples", figures::count(*series), figures::count(*samples));
    if let Some((most, _)) = refused.iter().max_by_key(|(_, count)| **count) {
        let all = refused.values().fold(0, |all: u64, count| all.saturating_add(*count));
        text.push_str(&format!(" · refused {}, most {most}", figures::count(all)));
    }
    if *held_back > 0 {
        text.push_str(&format!(" · {} held back", counted(*held_back, "request")));
    }
    text
}
