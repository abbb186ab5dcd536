//! Golden screens: what people see, drawn from sample data, and what programs read.

use std::time::Duration;

use super::*;
use crate::screen::json;
use crate::view::access::{NewToken, TokenView, draw_new_token};
use crate::view::alert::{AlertsView, draw_alerts};
use crate::view::feed::{EventView, FeedView, draw_item};
use crate::view::host::{HostDocument, HostView, HostsView, draw_host, draw_hosts};
use crate::view::incident::{
    ChangedIncident, IncidentDocument, IncidentView, IncidentsView, draw_changed, draw_incident,
    draw_incidents,
};
use crate::view::query::{InstantView, RangeView, draw_instant, draw_range};
use crate::view::rules::{RulesView, draw_rules};
use crate::view::run::{JobView, JobsView, RunDocument, RunView, draw_jobs, draw_run};
use crate::view::status::{Findings, StatusView, draw_status};

const NOW: i64 = 1_795_428_770_000; // 2026-11-23T10:12:50Z

fn style() -> Style {
    Style { colour: false, now: Timestamp::from_millis(NOW) }
}

fn ago(text: &str) -> i64 {
    let age: Duration = tocsin_shared::time::parse_duration(text).unwrap();
    Timestamp::from_millis(NOW).minus(age).as_millis()
}

fn labels(pairs: &[(&str, &str)]) -> Vec<pb::Label> {
    pairs.iter().map(|(name, value)| pb::Label { name: (*name).into(), value: (*value).into() }).collect()
}

fn by(name: &str) -> Option<pb::Actor> {
    Some(pb::Actor { kind: Some(pb::actor::Kind::Principal(name.into())) })
}

fn host(instance: &str, state: pb::HostState, since: &str) -> pb::HostStatus {
    pb::HostStatus {
        host: Some(pb::Host {
            agent: "0b9e6c1e-7d1f-4f0e-9d6f-2b8f3f1f4a10".into(),
            instance: instance.into(),
            env: pb::Env::Prod.into(),
            labels: labels(&[("team", "payments")]),
            state: state.into(),
            enrolled_at_ms: ago("30d"),
            state_since_ms: ago(since),
            last_seen_ms: ago(since),
            agent_version: "0.1.0".into(),
            boot_id: "b00t".into(),
            clock_offset_ms: None,
            facts: labels(&[("kernel", "6.12.8"), ("os", "Debian 13")]),
        }),
        last_row_ms: ago("7s"),
        last_heard_ms: ago("4m12s"),
        series: 1_312,
        alerts_firing: 1,
    }
}

fn incident(number: u64, priority: u32, status: pb::IncidentStatus, title: &str) -> pb::Incident {
    pb::Incident {
        number,
        title: title.into(),
        env: pb::Env::Prod.into(),
        labels: labels(&[("instance", "db-1"), ("mountpoint", "/var")]),
        status: status.into(),
        severity: if priority < 3 { pb::Severity::Critical } else { pb::Severity::Warning }.into(),
        impact: pb::Level::High.into(),
        urgency: pb::Level::High.into(),
        priority,
        pages: true,
        opened_at_ms: ago("8m3s"),
        ack: (status == pb::IncidentStatus::Acknowledged).then(|| pb::Ack {
            by: by("anna"),
            at_ms: ago("3m"),
            expires_at_ms: NOW + 27 * 60_000,
            note: "extending the volume".into(),
        }),
        rev: 3,
        ..Default::default()
    }
}

fn alert() -> pb::Alert {
    pb::Alert {
        dedup_key: "d1".into(),
        generation: 1,
        source: pb::AlertSource::Rule.into(),
        source_id: "host.yml/disk/DiskFull".into(),
        labels: labels(&[("alertname", "DiskFull"), ("instance", "db-1"), ("severity", "critical")]),
        annotations: labels(&[
            ("summary", "/var is 97% full on db-1"),
            ("runbook_url", "https://runbooks.example.com/disk"),
        ]),
        severity: pb::Severity::Critical.into(),
        env: pb::Env::Prod.into(),
        condition: pb::Condition::Firing.into(),
        active_since_ms: ago("13m3s"),
        fired_at_ms: ago("8m3s"),
        value: 0.97,
        opens_incident: true,
        incident: 12,
        ..Default::default()
    }
}

fn run() -> pb::JobRun {
    pb::JobRun {
        run_id: "7f9c2e1a".into(),
        job_name: "nightly-backup".into(),
        agent: "0b9e6c1e".into(),
        instance: "db-1".into(),
        env: pb::Env::Prod.into(),
        result: Some(pb::RunResult {
            kind: Some(pb::run_result::Kind::Failed(pb::run_result::Failed { exit_code: 3 })),
        }),
        started_at_ms: ago("2h5m"),
        ended_at_ms: ago("2h3m"),
        duration_ms: Some(120_000),
        user: "backup".into(),
        uid: 34,
        command: "/usr/local/bin/backup --all".into(),
        output_tail: "copying\n\u{1b}[31mno space left\u{1b}[0m\n".into(),
        output_bytes: 1 << 20,
    }
}

fn event(kind: &str, subject: pb::event::Subject, note: &str) -> pb::Event {
    pb::Event {
        seq: 41,
        kind: kind.into(),
        actor: by("anna"),
        occurred_at_ms: ago("3m"),
        recorded_at_ms: ago("3m"),
        note: note.into(),
        subject: Some(subject),
        ..Default::default()
    }
}

fn status(hosts: Vec<u32>) -> pb::GetStatusResponse {
    pb::GetStatusResponse {
        version: "0.1.0".into(),
        cluster_id: "c1a5".into(),
        started_at_ms: ago("3h12m"),
        now_ms: NOW,
        hosts,
        alerts_firing: 4,
        incidents_open: 2,
        rules: 131,
        series: 15_744,
        rows: 27_648,
        samples: 36_283_392,
        events_head: 4_211,
        store_applied: 4_211,
        samples_journal_bytes: 120 << 20,
        events_journal_bytes: 3 << 20,
        blocks_bytes: 1 << 30,
        store_bytes: 12 << 20,
        resident_bytes: 182 << 20,
        data_dir: "/var/lib/tocsin/collector".into(),
        problems: Vec::new(),
        evaluate_p50_us: 410,
        evaluate_p99_us: 1_230,
        consumers: 2,
        consumer_lag_max: 14,
    }
}

fn well() -> StatusView {
    let found = Findings { status: status(vec![0, 12, 0, 1]), ..Findings::default() };
    StatusView::new("127.0.0.1:7640".into(), found)
}

fn unwell() -> StatusView {
    let mut status = status(vec![1, 10, 1, 2]);
    status.problems.push("the disk of /var/lib/tocsin is 96% full".into());
    status.store_applied = 0;
    status.events_head = 20_000;
    let failing = pb::RuleInfo {
        name: "HostIoWait".into(),
        last_error: "many-to-many matching".into(),
        ..Default::default()
    };
    let consumer = pb::Consumer { name: "pager".into(), ..Default::default() };
    let found = Findings {
        status,
        hosts: vec![
            host("web-1", pb::HostState::Online, "2d").into(),
            host("db-2", pb::HostState::Unreachable, "4m12s").into(),
        ],
        incidents: vec![
            incident(11, 3, pb::IncidentStatus::Acknowledged, "HostHighLoad on web-1").into(),
            incident(12, 1, pb::IncidentStatus::Triggered, "DiskFull on db-1").into(),
        ],
        rules: vec![failing.into()],
        consumers: vec![pb::ConsumerStatus { consumer: Some(consumer), lag: 20_000, connected: false }],
    };
    StatusView::new("127.0.0.1:7640".into(), found)
}

/// Compares line by line, so that a difference is seen.
#[track_caller]
fn golden(drawn: &str, expected: &str) {
    let expected = expected.strip_prefix('\n').unwrap_or(expected);
    if drawn != expected {
        for (at, (got, want)) in drawn.lines().zip(expected.lines()).enumerate() {
            assert_eq!(got, want, "line {}\n{drawn}", at + 1);
        }
        panic!("one is longer:\n{drawn}");
    }
}

#[test]
fn print_everything() {
    let s = style();
    println!("{}\n", draw_status(&well(), &s));
    println!("{}\n", draw_status(&unwell(), &s));
    let hosts = HostsView {
        hosts: vec![
            host("web-1", pb::HostState::Online, "2d").into(),
            host("db-2", pb::HostState::Unreachable, "4m12s").into(),
        ],
    };
    println!("{}\n", draw_hosts(&hosts, &s));
    println!("{}\n", draw_host(&HostDocument { host: hosts.hosts[1].clone() }, &s));
    let alerts = AlertsView { alerts: vec![alert().into()] };
    println!("{}\n", draw_alerts(&alerts, &s));
    let incidents = IncidentsView { incidents: unwell().incidents };
    println!("{}\n", draw_incidents(&incidents, &s));
    let document = IncidentDocument {
        incident: incidents.incidents[1].clone(),
        alerts: alerts.alerts.clone(),
        timeline: vec![
            event(
                "incident.acknowledged",
                pb::event::Subject::Incident(incident(
                    11,
                    3,
                    pb::IncidentStatus::Acknowledged,
                    "HostHighLoad on web-1",
                )),
                "extending the volume",
            )
            .into(),
        ],
    };
    println!("{}\n", draw_incident(&document, &s));
    println!("{}\n", draw_changed(&ChangedIncident { incident: incidents.incidents[1].clone() }, &s));
    let job = pb::JobSummary {
        job_name: "nightly-backup".into(),
        instance: "db-1".into(),
        env: 1,
        last_run: Some(run()),
        runs: 30,
        failures: 2,
    };
    println!("{}\n", draw_jobs(&JobsView { jobs: vec![JobView::from(job)] }, &s));
    println!("{}\n", draw_run(&RunDocument { run: RunView::new(run(), true) }, &s));
    let token = pb::JoinToken {
        id: "01".into(),
        env: 2,
        host_pattern: "web-*".into(),
        expires_at_ms: NOW + 3_600_000,
        ..Default::default()
    };
    println!(
        "{}\n",
        draw_new_token(
            &NewToken {
                token: "tocsin_AQ".into(),
                record: TokenView::new(token, s.now),
                enroll_command: "tocsin-agent enroll …".into()
            },
            &s
        )
    );
    let rules = RulesView {
        rules: vec![
            pb::RuleInfo {
                name: "HostIoWait".into(),
                expr: "a >\n  1".into(),
                group: "g".into(),
                file: "f.yml".into(),
                last_error: "many-to-many".into(),
                ..Default::default()
            }
            .into(),
        ],
    };
    println!("{}\n", draw_rules(&rules, &s));
    let points = (0..60i64)
        .map(|i| pb::Point { at_ms: ago("1h") + i * 60_000, value: ((i as f64) / 6.0).sin() })
        .collect();
    let series =
        pb::PointSeries { labels: labels(&[("__name__", "node_load1"), ("instance", "web-1")]), points };
    println!(
        "{}\n",
        draw_instant(
            &InstantView::from(pb::InstantResponse {
                at_ms: NOW,
                result_type: "vector".into(),
                series: vec![series.clone()],
                text: String::new()
            }),
            &s
        )
    );
    println!(
        "{}\n",
        draw_range(
            &RangeView {
                start: moment(ago("1h")),
                end: moment(NOW),
                step_ms: 60_000,
                series: vec![series.into()]
            },
            &s
        )
    );
    let item = FeedView::new(
        "c1".into(),
        Some(pb::subscribe_response::Kind::Event(event("job.failed", pb::event::Subject::Run(run()), ""))),
    )
    .unwrap();
    println!("{}", draw_item(&item, &s));
    println!("{}", json(&item, false).unwrap());
    let _: Option<(EventView, HostView, IncidentView)> = None;
    golden("", "");
}
