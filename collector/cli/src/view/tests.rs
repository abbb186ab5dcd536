//! Golden screens: what people see, drawn from sample data, and what programs read. A screen that changes on purpose
//! is written into its file by hand, after a look at it.

use std::time::Duration;

use super::access::{
    NewToken, PrincipalView, PrincipalsView, TokenView, TokensView, draw_new_token, draw_principals,
    draw_tokens,
};
use super::alert::{AlertsView, draw_alerts};
use super::feed::{FeedView, draw_item};
use super::host::{HostDocument, HostView, HostsView, RevokedView, draw_host, draw_hosts, draw_revoked};
use super::incident::{
    ChangedIncident, IncidentDocument, IncidentView, IncidentsView, draw_changed, draw_incident,
    draw_incidents,
};
use super::rules::{RuleView, RulesView, draw_rules};
use super::run::{JobsView, ResultView, RunDocument, RunView, RunsView, draw_jobs, draw_run, draw_runs};
use super::status::{Findings, StatusView, draw_status};
use super::up::{UpView, draw_up};
use super::*;
use crate::screen::json;

const NOW: i64 = 1_795_428_770_000; // 2026-11-23T10:12:50Z

fn style() -> Style {
    Style { unicode: true, ..Style::plain(Timestamp::from_millis(NOW)) }
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
            ..pb::Host::default()
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
            ("look_first", "df -h; du -x /var | sort -n | tail"),
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
        alike: 0,
        output_dropped: false,
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
        sources: Vec::new(),
        problems: Vec::new(),
        evaluate_p50_us: 410,
        evaluate_p99_us: 1_230,
        consumers: 2,
        consumer_lag_max: 14,
        disk: None,
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
    let refused = [("too_old", 12), ("series_limit", 3_400)];
    let refused = refused.map(|(reason, count)| pb::RefusedSamples { reason: reason.into(), count });
    status.sources = vec![
        pb::SourceStatus {
            name: "cart".into(),
            requests: 7,
            samples: 70,
            series: 10,
            series_max: 200_000,
            ..Default::default()
        },
        pb::SourceStatus {
            name: "prometheus".into(),
            requests: 9_000,
            samples: 18_000_000,
            series: 200_000,
            series_max: 200_000,
            refused: refused.to_vec(),
            held_back: 1,
            last_error: "refused: 1 series_limit; the first: x is new".into(),
        },
    ];
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
        consumers: vec![pb::ConsumerStatus {
            consumer: Some(consumer),
            lag: 20_000,
            connected: false,
            gapped: false,
        }],
    };
    StatusView::new("127.0.0.1:7640".into(), found)
}

/// Compares line by line, so that a difference is seen.
pub(crate) fn golden(name: &str, drawn: &str, expected: &str) {
    for (at, (got, want)) in drawn.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "{name}, line {}\n{drawn}", at + 1);
    }
    assert_eq!(drawn, expected, "{name}: one is longer");
}

/// Tests one screen, which lies in `golden/`.
macro_rules! golden {
    ($name:literal, $drawn:expr) => {
        golden($name, &$drawn, include_str!(concat!("golden/", $name)))
    };
}

fn hosts() -> Vec<HostView> {
    vec![
        host("web-1", pb::HostState::Online, "2d").into(),
        host("db-2", pb::HostState::Unreachable, "4m12s").into(),
    ]
}

fn document(at: usize) -> IncidentDocument {
    let changed = incident(11, 3, pb::IncidentStatus::Acknowledged, "HostHighLoad on web-1");
    let subject = pb::event::Subject::Incident(changed);
    IncidentDocument {
        incident: unwell().incidents.swap_remove(at),
        alerts: vec![alert().into()],
        timeline: vec![event("incident.acknowledged", subject, "extending the volume").into()],
    }
}

fn failed_run() -> FeedView {
    let event = event("job.failed", pb::event::Subject::Run(run()), "");
    FeedView::new("c1".into(), Some(pb::subscribe_response::Kind::Event(event))).unwrap()
}

#[test]
fn the_status_is_one_screen() {
    golden!("status-well.txt", draw_status(&well(), &style()));
    golden!("status-unwell.txt", draw_status(&unwell(), &style()));
    golden!("status.json", json(&well(), true).unwrap());
    for view in [well(), unwell()] {
        let drawn = draw_status(&view, &style());
        assert!(
            drawn.lines().count() <= 24 && drawn.lines().all(|line| line.chars().count() <= 120),
            "{drawn}"
        );
    }
}

#[test]
fn many_problems_of_one_sort_are_counted() {
    let mut found = Findings { status: status(vec![0, 1, 30, 0]), ..Findings::default() };
    found.hosts =
        (0..30).map(|at| host(&format!("web-{at}"), pb::HostState::Unreachable, "4m").into()).collect();
    found.incidents =
        (1..=20).map(|at| incident(at, 2, pb::IncidentStatus::Acknowledged, "HostDown").into()).collect();
    let view = StatusView::new("c:1".into(), found);
    assert_eq!(view.problems.len(), 6);
    assert_eq!(view.problems[5], "25 more hosts are unreachable: tocsin hosts");
    let drawn = draw_status(&view, &style());
    assert!(drawn.contains("20 incidents open, all taken, worst P2"), "{drawn}");
    assert!(drawn.contains("and 12 more: tocsin incidents"), "{drawn}");
}

#[test]
fn ages_in_the_status_count_on_the_collectors_clock() {
    let wrong = Style { now: Timestamp::from_millis(ago("10d")), ..style() };
    assert_eq!(draw_status(&unwell(), &wrong), draw_status(&unwell(), &style()));
}

#[test]
fn colours_mark_what_is_bad() {
    let drawn = draw_status(&unwell(), &Style { colour: true, ..style() });
    for marked in
        ["\u{1b}[1;31m5 problems\u{1b}[0m", "\u{1b}[1;31mP1\u{1b}[0m", "\u{1b}[1;31mnobody\u{1b}[0m"]
    {
        assert!(drawn.contains(marked), "{drawn}");
    }
    assert!(draw_status(&well(), &Style { colour: true, ..style() }).contains("\u{1b}[32mhealthy\u{1b}[0m"));
}

#[test]
fn hosts_are_listed_and_shown() {
    golden!("hosts.txt", draw_hosts(&HostsView { hosts: hosts() }, &style()));
    golden!("host.txt", draw_host(&HostDocument { host: hosts().remove(1) }, &style()));
    golden!("hosts.json", json(&HostsView { hosts: hosts() }, true).unwrap());
    let revoked = |revoked| RevokedView { host: "web-1".into(), revoked };
    assert_eq!(
        draw_revoked(&revoked(2), &style()),
        "2 certificates of web-1 revoked; it can send nothing until it enrols anew\n"
    );
    assert_eq!(draw_revoked(&revoked(0), &style()), "web-1 has no certificate that could be revoked\n");
}

#[test]
fn alerts_and_incidents_are_listed_and_shown() {
    golden!("alerts.txt", draw_alerts(&AlertsView { alerts: vec![alert().into()] }, &style()));
    golden!("alerts.json", json(&AlertsView { alerts: vec![alert().into()] }, true).unwrap());
    golden!("incidents.txt", draw_incidents(&IncidentsView { incidents: unwell().incidents }, &style()));
    golden!("incident-triggered.txt", draw_incident(&document(0), &style()));
    golden!("incident-acknowledged.txt", draw_incident(&document(1), &style()));
    golden!("incident.json", json(&document(1), true).unwrap());
}

#[test]
fn a_change_of_an_incident_is_one_line() {
    let acknowledged = incident(11, 3, pb::IncidentStatus::Acknowledged, "HostHighLoad on web-1");
    let resolved = pb::Incident {
        status: pb::IncidentStatus::Resolved.into(),
        resolution: Some(pb::Resolution {
            by: by("anna"),
            at_ms: NOW,
            code: "fixed".into(),
            text: "grown".into(),
        }),
        ..incident(12, 1, pb::IncidentStatus::Resolved, "DiskFull on db-1")
    };
    for (incident, line) in [
        (
            acknowledged,
            "INC-11 is acknowledged by anna until 2026-11-23T10:39:50Z (in 27m): HostHighLoad on web-1\n",
        ),
        (resolved, "INC-12 is resolved as fixed: DiskFull on db-1\n"),
    ] {
        assert_eq!(draw_changed(&ChangedIncident { incident: incident.into() }, &style()), line);
    }
}

#[test]
fn open_incidents_come_first_and_the_worst_of_them_before_the_rest() {
    let of = |number, priority, status| IncidentView::from(incident(number, priority, status, "x"));
    let mut incidents = vec![
        of(9, 1, pb::IncidentStatus::Resolved),
        of(10, 3, pb::IncidentStatus::Triggered),
        of(8, 5, pb::IncidentStatus::Resolved),
        of(11, 1, pb::IncidentStatus::Acknowledged),
    ];
    incident::sort(&mut incidents);
    assert_eq!(incidents.iter().map(|incident| incident.number).collect::<Vec<_>>(), [11, 10, 9, 8]);
}

#[test]
fn jobs_and_their_output_are_shown() {
    let job = pb::JobSummary {
        job_name: "nightly-backup".into(),
        instance: "db-1".into(),
        env: pb::Env::Prod.into(),
        last_run: Some(run()),
        runs: 30,
        failures: 2,
    };
    golden!("jobs.txt", draw_jobs(&JobsView { jobs: vec![job.into()] }, &style()));
    golden!("runs.txt", draw_runs(&RunsView { runs: vec![RunView::new(run(), false)] }, &style()));
    golden!("run.txt", draw_run(&RunDocument { run: RunView::new(run(), true) }, &style()));
    golden!("run.json", json(&RunDocument { run: RunView::new(run(), true) }, true).unwrap());
}

#[test]
fn results_of_runs_are_words() {
    use pb::run_result::{CouldNotStart, Failed, Interrupted, Killed, Kind, Running, Succeeded};
    let killed = |signal, core_dumped, out_of_memory| Killed { signal, core_dumped, out_of_memory };
    for (kind, shown) in [
        (Some(Kind::Running(Running {})), "running"),
        (Some(Kind::Succeeded(Succeeded {})), "succeeded"),
        (Some(Kind::Failed(Failed { exit_code: 127 })), "failed with 127"),
        (Some(Kind::Killed(killed(9, false, false))), "killed by SIGKILL"),
        (Some(Kind::Killed(killed(9, false, true))), "killed for want of memory"),
        (Some(Kind::Killed(killed(11, true, false))), "killed by SIGSEGV, core dumped"),
        (Some(Kind::Killed(killed(64, false, false))), "killed by signal 64"),
        (
            Some(Kind::CouldNotStart(CouldNotStart { errno: 2, message: "no such file".into() })),
            "could not start: no such file",
        ),
        (
            Some(Kind::Interrupted(Interrupted { reason: "the host was rebooted".into() })),
            "interrupted: the host was rebooted",
        ),
        (None, "unknown"),
    ] {
        assert_eq!(ResultView::from(Some(pb::RunResult { kind })).shown(), shown);
    }
}

#[test]
fn tokens_and_principals_show_whether_they_are_good() {
    let now = style().now;
    let token = |expires_at_ms, used: bool| pb::JoinToken {
        id: "0123456789abcdef".into(),
        env: pb::Env::Uat.into(),
        host_pattern: "web-*".into(),
        created_at_ms: ago("30m"),
        created_by: "anna".into(),
        expires_at_ms,
        used: used.then(|| pb::TokenUse {
            agent: "0b9e6c1e".into(),
            at_ms: ago("10m"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let tokens = [token(NOW + 1_800_000, false), token(NOW, false), token(NOW, true)];
    let tokens: Vec<TokenView> = tokens.into_iter().map(|token| TokenView::new(token, now)).collect();
    let created = NewToken {
        token: "tocsin_AQ".into(),
        record: tokens[0].clone(),
        enroll_command: "tocsin-agent enroll --collector c:7640 --token tocsin_AQ".into(),
    };
    golden!("token.txt", draw_new_token(&created, &style()));
    golden!("tokens.txt", draw_tokens(&TokensView { tokens }, &style()));

    let principal = |name: &str, expires_at_ms, revoked_at_ms| {
        let role = pb::Role::Responder.into();
        let created_at_ms = ago("90d");
        let record = pb::Principal {
            name: name.into(),
            role,
            created_at_ms,
            expires_at_ms,
            revoked_at_ms,
            ..Default::default()
        };
        PrincipalView::new(record, now)
    };
    let principals = vec![principal("anna", 0, 0), principal("ben", NOW, 0), principal("carl", 0, ago("1d"))];
    golden!("principals.txt", draw_principals(&PrincipalsView { principals }, &style()));
}

#[test]
fn rules_show_their_errors() {
    let rule = |name: &str, last_error: &str| {
        RuleView::from(pb::RuleInfo {
            rule_id: format!("host.yml/g/{name}"),
            name: name.into(),
            expr: "node_load1\n  > 4".into(),
            group: "g".into(),
            file: "host.yml".into(),
            host_local: true,
            recording: false,
            last_error: last_error.into(),
        })
    };
    let rules = vec![rule("HostHighLoad", ""), rule("HostIoWait", "many-to-many matching")];
    golden!("rules.txt", draw_rules(&RulesView { rules: rules.clone() }, &style()));
    golden!("rules.json", json(&RulesView { rules }, true).unwrap());
}

#[test]
fn the_feed_is_lines() {
    golden!("feed.txt", draw_item(&failed_run(), &style()));
    let line = json(&failed_run(), false).unwrap();
    assert_eq!(line.lines().count(), 1);
    golden!("feed.json", json(&failed_run(), true).unwrap());
    let gap = pb::FeedGap { first_missing_seq: 7, last_missing_seq: 9 };
    let gap = FeedView::new("c".into(), Some(pb::subscribe_response::Kind::Gap(gap))).unwrap();
    assert_eq!(
        json(&gap, false).unwrap(),
        "{\"cursor\":\"c\",\"type\":\"gap\",\"first_missing_seq\":7,\"last_missing_seq\":9}\n"
    );
    let heartbeat = pb::subscribe_response::Kind::Heartbeat(pb::FeedHeartbeat::default());
    assert!(FeedView::new("c".into(), Some(heartbeat)).is_none());
}

#[test]
fn nothing_found_is_said_in_words() {
    let s = &style();
    for (drawn, says) in [
        (draw_hosts(&HostsView { hosts: Vec::new() }, s), "no host has enrolled yet"),
        (draw_alerts(&AlertsView { alerts: Vec::new() }, s), "no alert is firing"),
        (draw_incidents(&IncidentsView { incidents: Vec::new() }, s), "no incidents are open"),
        (draw_jobs(&JobsView { jobs: Vec::new() }, s), "no job has run yet"),
        (draw_runs(&RunsView { runs: Vec::new() }, s), "no run of this job is kept"),
        (draw_tokens(&TokensView { tokens: Vec::new() }, s), "there are no join tokens"),
        (draw_principals(&PrincipalsView { principals: Vec::new() }, s), "there are no principals"),
        (draw_rules(&RulesView { rules: Vec::new() }, s), "no rules are in force"),
    ] {
        assert!(drawn.starts_with(says) && drawn.ends_with('\n'), "{drawn:?}");
    }
}

/// Whatever a host, a job or a person wrote: no screen holds a control character but line breaks.
// Cases: P5, R18
#[test]
fn no_screen_lets_an_escape_sequence_through() {
    let evil = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\r\u{7f}";
    let mut hostile = host(evil, pb::HostState::Unreachable, "1m");
    hostile.host.as_mut().unwrap().labels = labels(&[("team", evil), (evil, "x")]);
    hostile.host.as_mut().unwrap().facts = labels(&[(evil, evil)]);
    let mut job = run();
    (job.job_name, job.instance, job.command, job.output_tail) =
        (evil.into(), evil.into(), evil.into(), evil.into());
    let mut alert = alert();
    alert.labels = labels(&[("alertname", evil), ("instance", evil)]);
    alert.annotations = labels(&[("summary", evil), ("description", evil), ("runbook_url", "x\u{1b}")]);
    let mut opened = incident(7, 1, pb::IncidentStatus::Acknowledged, evil);
    opened.ack.as_mut().unwrap().by = by(evil);
    opened.ack.as_mut().unwrap().note = evil.into();
    let event = event(evil, pb::event::Subject::Incident(opened.clone()), evil);
    let mut state = status(vec![0, 0, 1, 0]);
    (state.problems, state.data_dir, state.version) = (vec![evil.into()], evil.into(), evil.into());
    let found = Findings {
        status: state,
        hosts: vec![hostile.clone().into()],
        incidents: vec![opened.clone().into()],
        ..Findings::default()
    };
    let status = StatusView::new("c:1".into(), found);
    let item = FeedView::new(evil.into(), Some(pb::subscribe_response::Kind::Event(event.clone()))).unwrap();
    let document = IncidentDocument {
        incident: opened.clone().into(),
        alerts: vec![alert.into()],
        timeline: vec![event.into()],
    };
    let s = &style();
    for drawn in [
        draw_status(&status, s),
        json(&status, true).unwrap(),
        draw_hosts(&HostsView { hosts: vec![hostile.clone().into()] }, s),
        draw_host(&HostDocument { host: hostile.into() }, s),
        draw_incident(&document, s),
        json(&document, true).unwrap(),
        draw_changed(&ChangedIncident { incident: opened.into() }, s),
        draw_run(&RunDocument { run: RunView::new(job.clone(), true) }, s),
        draw_runs(&RunsView { runs: vec![RunView::new(job, false)] }, s),
        draw_item(&item, s),
        json(&item, false).unwrap(),
    ] {
        let bad =
            drawn.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c));
        assert_eq!(bad, None, "{drawn:?}");
    }
}

#[test]
fn up_says_what_runs_and_what_to_try() {
    let view = |usual_place| UpView {
        front: "127.0.0.1:7640".into(),
        agents: "127.0.0.1:7641".into(),
        local: "127.0.0.1:7642".into(),
        data_dir: "/srv/tocsin".into(),
        credential_file: "/srv/tocsin/collector/credential.toml".into(),
        env: "prod".into(),
        interval: "5s".into(),
        program: "tocsin".into(),
        usual_place,
    };
    golden!("up.txt", draw_up(&view(false), &style()));
    assert!(draw_up(&view(true), &style()).contains("  tocsin status\n"));
}
