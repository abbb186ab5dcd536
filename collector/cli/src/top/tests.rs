//! The model, the order, the keys, and golden screens wide and narrow.

use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::metric::Metric;
use super::model::Change;
use super::source::gather;
use super::*;
use crate::view::tests::golden;
use tocsin_shared::time::Timestamp;

const NOW: i64 = 1_795_428_770_000; // 2026-11-23T10:12:50Z
const MINUTE: i64 = 60_000;

fn labels(pairs: &[(&str, &str)]) -> Vec<pb::Label> {
    pairs.iter().map(|(name, value)| pb::Label { name: (*name).into(), value: (*value).into() }).collect()
}

fn host(instance: &str, env: pb::Env, state: pb::HostState, alerts_firing: u32) -> pb::HostStatus {
    let host = pb::Host {
        instance: instance.into(),
        agent: format!("id-of-{instance}"),
        env: env.into(),
        state: state.into(),
        state_since_ms: NOW - 2 * 60 * MINUTE,
        labels: labels(&[("team", "payments")]),
        ..Default::default()
    };
    pb::HostStatus { host: Some(host), alerts_firing, ..Default::default() }
}

fn figures(metric: Metric, values: &[(&str, f64)]) -> Message {
    let changed = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Message::Figures(metric, Change { whole: true, changed, gone: vec![] })
}

/// Five hosts: one well, one with an incident, one silent, one full, one of UAT.
fn model() -> Model {
    use pb::HostState::{Online, Pending, Unreachable};
    let mut model = Model::default();
    let alert = |name: &str, severity: pb::Severity, instance: &str, summary: &str| pb::Alert {
        labels: labels(&[("alertname", name), ("instance", instance)]),
        annotations: labels(&[("summary", summary)]),
        severity: severity.into(),
        fired_at_ms: NOW - 8 * MINUTE,
        ..Default::default()
    };
    let incident = pb::Incident {
        number: 12,
        priority: 1,
        title: "DiskFull on db-1".into(),
        labels: labels(&[("instance", "db-1")]),
        status: pb::IncidentStatus::Triggered.into(),
        ..Default::default()
    };
    let failed = pb::run_result::Kind::Failed(pb::run_result::Failed { exit_code: 3 });
    let job = pb::JobSummary {
        job_name: "nightly-backup".into(),
        instance: "db-1".into(),
        last_run: Some(pb::JobRun {
            result: Some(pb::RunResult { kind: Some(failed) }),
            started_at_ms: NOW - 6 * 60 * MINUTE,
            ..Default::default()
        }),
        ..Default::default()
    };
    let wave: Vec<f64> = (0..60).map(|at| 50.0 + 40.0 * (f64::from(at) / 6.0).sin()).collect();
    for message in [
        Message::Connected("127.0.0.1:7640".into()),
        Message::Hosts(vec![
            host("app-1", pb::Env::Prod, Online, 0),
            host("db-1", pb::Env::Prod, Online, 2),
            host("db-2", pb::Env::Prod, Unreachable, 1),
            host("web-1.example.com", pb::Env::Prod, Online, 0),
            host("uat-1", pb::Env::Uat, Pending, 0),
        ]),
        Message::Alerts(vec![
            alert("HostHighLoad", pb::Severity::Warning, "db-1", "load is 9.1 on db-1"),
            alert("DiskFull", pb::Severity::Critical, "db-1", "/var is 97% full on db-1"),
            alert("AgentUnreachable", pb::Severity::Error, "db-2", "db-2 is not heard"),
        ]),
        Message::Incidents(vec![incident]),
        Message::Jobs(vec![job]),
        figures(Metric::Load, &[("app-1", 0.52), ("db-1", 9.1), ("web-1.example.com", 123.0)]),
        figures(Metric::Cpu, &[("app-1", 7.0), ("db-1", 81.0), ("web-1.example.com", 97.0)]),
        figures(Metric::Memory, &[("app-1", 41.0), ("db-1", 76.0), ("web-1.example.com", 12.0)]),
        figures(Metric::Filesystem, &[("app-1", 33.0), ("db-1", 97.0), ("web-1.example.com", 5.0)]),
        figures(Metric::Busy, &[("app-1", 1.0), ("db-1", 100.0), ("web-1.example.com", 0.0)]),
        figures(
            Metric::Received,
            &[("app-1", 812.0), ("db-1", 12_300_000.0), ("web-1.example.com", 4_500.0)],
        ),
        figures(Metric::Sent, &[("app-1", 0.0), ("db-1", 1_000_000.0), ("web-1.example.com", 99_000.0)]),
        Message::Past("db-1".into(), Metric::Cpu, wave.clone()),
        Message::Past("db-1".into(), Metric::Load, wave.iter().map(|value| value / 10.0).collect()),
    ] {
        assert!(!model.is_whole() || matches!(message, Message::Past(..)), "{message:?}");
        model.take(message);
    }
    assert!(model.is_whole());
    model
}

fn drawn(model: &Model, order: &mut Order, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let looks = Looks { colour: false, unicode: true };
    let at = Timestamp::from_millis(NOW);
    terminal.draw(|frame| draw::draw(frame, model, order, looks, at)).unwrap();
    text_of(terminal.backend().buffer())
}

fn names(order: &Order, model: &Model) -> String {
    let rows = order.rows(model);
    rows.iter().map(|row| row.host.instance.split('.').next().unwrap_or("")).collect::<Vec<_>>().join(" ")
}

fn press(order: &mut Order, model: &Model, keys: &str) -> Act {
    let mut act = Act::Stay;
    for key in keys.split_whitespace() {
        let code = match key {
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "Down" => KeyCode::Down,
            "Up" => KeyCode::Up,
            "End" => KeyCode::End,
            "PgDn" => KeyCode::PageDown,
            "Back" => KeyCode::Backspace,
            one => KeyCode::Char(one.chars().next().unwrap()),
        };
        act = keys::act(KeyEvent::new(code, KeyModifiers::NONE), order, model);
    }
    act
}

macro_rules! golden {
    ($name:literal, $drawn:expr) => {
        golden(concat!("../../top/golden/", $name), &$drawn, include_str!(concat!("golden/", $name)))
    };
}

#[test]
fn the_screen_fits_every_terminal() {
    let model = model();
    golden!("80x24.txt", drawn(&model, &mut Order::default(), 80, 24));
    let mut details = Order { details: true, ..Order::default() };
    golden!("120x40.txt", drawn(&model, &mut details, 120, 40));
    golden!("80x24-details.txt", drawn(&model, &mut details, 80, 24));
    golden!("60x15.txt", drawn(&model, &mut Order::default(), 60, 15));
    for (width, height) in [(1, 1), (5, 3), (20, 4), (30, 10), (300, 100), (0, 0)] {
        drawn(&model, &mut details, width, height);
        drawn(&Model::default(), &mut Order::default(), width, height);
    }
}

#[test]
fn a_page_for_scripts_has_every_host() {
    let looks = Looks { colour: true, unicode: true };
    let mut screen = Screen { model: model(), order: Order::default(), looks };
    let text = page(&mut screen, 100);
    assert_eq!(text.lines().count(), 3 + 5, "{text}");
    assert!(text.contains("db-1") && text.contains("uat-1") && !text.contains("quit"), "{text}");
    let json = crate::screen::json(&screen.model.document(&screen.order), true).unwrap();
    assert!(
        json.contains("\"filesystem_percent\": 97.0") && json.contains("\"incidents\": [\n        12"),
        "{json}"
    );
}

#[test]
fn what_is_lost_is_said_and_stays() {
    let mut model = model();
    model.take(Message::Lost("refused the connection\u{1b}[2J".into()));
    let text = drawn(&model, &mut Order::default(), 80, 24);
    assert!(text.contains("not connected, this is old: refused the connection\\u{1b}[2J"), "{text}");
    assert!(text.contains("db-1"), "{text}");
    model.take(Message::Connected("127.0.0.1:7640".into()));
    assert!(!drawn(&model, &mut Order::default(), 80, 24).contains("not connected"));
}

#[test]
fn rows_are_sorted_and_filtered() {
    let model = model();
    for (keys, expected) in [
        ("", "db-1 db-2 web-1 app-1 uat-1"),
        ("p", "uat-1 app-1 web-1 db-2 db-1"), // Once more turns it round.
        ("n", "app-1 db-1 db-2 uat-1 web-1"),
        ("n n", "web-1 uat-1 db-2 db-1 app-1"),
        ("l", "web-1 db-1 app-1 db-2 uat-1"),
        ("c", "web-1 db-1 app-1 db-2 uat-1"),
        ("m", "db-1 app-1 web-1 db-2 uat-1"),
        ("f", "db-1 app-1 web-1 db-2 uat-1"),
        ("d", "db-1 app-1 web-1 db-2 uat-1"),
        ("w", "db-1 web-1 app-1 db-2 uat-1"),
        ("a", "db-1 db-2 app-1 uat-1 web-1"),
        ("e", "db-1 db-2 web-1 app-1"),
        ("e e", "uat-1"),
        ("e e e e e", "db-1 db-2 web-1 app-1 uat-1"),
        ("/ D B - Enter", "db-1 db-2"),
        ("/ u n r e a c h", "db-2"),
        ("/ x y z", ""),
        ("/ x Back Enter", "db-1 db-2 web-1 app-1 uat-1"),
        ("/ d b Esc", "db-1 db-2 web-1 app-1 uat-1"),
        ("/ d b Enter Esc", "db-1 db-2 web-1 app-1 uat-1"),
    ] {
        let mut order = Order::default();
        press(&mut order, &model, keys);
        assert_eq!(names(&order, &model), expected, "{keys}");
    }
}

#[test]
fn the_cursor_stays_on_its_host() {
    let mut model = model();
    let mut order = Order::default();
    assert_eq!(order.focus(&model), None);
    press(&mut order, &model, "Down Enter");
    assert_eq!(order.focus(&model).as_deref(), Some("db-2"));
    press(&mut order, &model, "n");
    assert_eq!(order.focus(&model).as_deref(), Some("db-2"), "wherever it moves");
    press(&mut order, &model, "End");
    assert_eq!(order.focus(&model).as_deref(), Some("web-1.example.com"));
    press(&mut order, &model, "Esc");
    assert_eq!(order.focus(&model), None);
    model.take(Message::Hosts(vec![host("new", pb::Env::Dr, pb::HostState::Online, 0)]));
    press(&mut order, &model, "Enter");
    assert_eq!(order.focus(&model).as_deref(), Some("new"), "what was selected is gone");
    for (keys, act) in [("q", Act::Leave), ("/ q", Act::Stay), ("Esc q", Act::Leave)] {
        assert_eq!(press(&mut order, &model, keys), act, "{keys}");
    }
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    order.typing = true;
    assert_eq!(keys::act(interrupt, &mut order, &model), Act::Leave, "also while typing");
}

#[test]
fn parts_of_a_change_are_put_together() {
    let series = |name: &str, value| pb::PointSeries {
        labels: labels(&[("instance", name)]),
        points: vec![pb::Point { at_ms: 1, value }],
    };
    let part = |update: pb::QueryUpdate, series: Vec<pb::PointSeries>, more| pb::SubscribeQueryResponse {
        update: update.into(),
        series,
        more,
        ..Default::default()
    };
    let mut change = Change::default();
    assert!(gather(&mut change, part(pb::QueryUpdate::Whole, vec![series("a", 1.0)], true)));
    assert!(!gather(&mut change, part(pb::QueryUpdate::Whole, vec![series("b", 2.0)], false)));
    let both = vec![("a".to_owned(), 1.0), ("b".to_owned(), 2.0)];
    assert_eq!(change, Change { whole: true, changed: both, gone: vec![] });
    let mut model = Model::default();
    model.take(Message::Hosts(
        ["a", "b"].map(|name| host(name, pb::Env::Prod, pb::HostState::Online, 0)).into(),
    ));
    model.take(Message::Figures(Metric::Cpu, change));
    let gone = Change { whole: false, changed: vec![("b".into(), 3.0)], gone: vec!["a".into()] };
    model.take(Message::Figures(Metric::Cpu, gone));
    let cpu = |model: &Model| model.rows().map(|row| row.figure(Metric::Cpu)).collect::<Vec<_>>();
    assert_eq!(cpu(&model), [None, Some(3.0)]);
    model.take(figures(Metric::Cpu, &[("a", 5.0)]));
    assert_eq!(cpu(&model), [Some(5.0), None], "a whole result forgets the others");
}

#[test]
fn expressions_are_promql_and_ask_for_one_host() {
    for metric in Metric::ALL {
        for instance in [None, Some("web-1"), Some("a\"} or vector(1) #\\\n")] {
            let expression = metric.expression(instance);
            let valid = tocsin_promql::Expr::parse(&expression);
            assert!(valid.is_ok(), "{expression}: {valid:?}");
        }
    }
}

#[test]
fn of_two_thousand_hosts_a_screen_is_drawn() {
    let mut model = Model::default();
    let hosts: Vec<String> = (0..2_000).map(|number| format!("host-{number:04}")).collect();
    let listed = hosts.iter().map(|name| host(name, pb::Env::Prod, pb::HostState::Online, 0));
    model.take(Message::Hosts(listed.collect()));
    let values: Vec<(&str, f64)> =
        hosts.iter().zip(0..).map(|(name, at)| (&**name, f64::from(at % 101))).collect();
    for metric in Metric::ALL {
        model.take(figures(metric, &values));
    }
    let mut order = Order { by: By::Cpu, ..Order::default() };
    for page in 1..=20 {
        press(&mut order, &model, "PgDn");
        let text = drawn(&model, &mut order, 200, 60);
        assert_eq!(text.lines().filter(|line| line.starts_with("host-")).count(), 56, "{page}");
    }
    assert!(order.offset > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_key_is_a_panic(keys in prop::collection::vec(prop::sample::select(vec![
        "Enter", "Esc", "Down", "Up", "End", "PgDn", "Back", "/", "e", "r", "p", "n", "x", "é",
    ]), 0..40), width in 0..150_u16, height in 0..50_u16) {
        let (model, mut order) = (model(), Order::default());
        for key in keys {
            press(&mut order, &model, key);
            drawn(&model, &mut order, width, height);
        }
    }
}
