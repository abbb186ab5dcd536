//! What alerts do, row by row: rules of one host, evaluated at the seconds the tables give.

use std::collections::BTreeSet;
use std::sync::Arc;

use tocsin_shared::alert::{Alert, Condition};
use tocsin_shared::identity::Env;
use tocsin_shared::severity::Severity;

use super::RuleSpec;
use crate::state::testing::{Desk, agent, at, evaluation, labels, on, rule};
use crate::state::{Command, Refusal};

/// The one alert of a rule, as a letter: `-` none, `p` pending, `F` firing, `K` kept firing, `R` resolved.
fn letter(desk: &Desk) -> char {
    let Some(alert) = desk.state.alerts().next() else { return '-' };
    match (alert.condition, alert.recovering_since) {
        (Condition::Pending, _) => 'p',
        (Condition::Firing, None) => 'F',
        (Condition::Firing, Some(_)) => 'K',
        (Condition::Resolved, _) => 'R',
        (Condition::Inactive, _) => 'i',
    }
}

/// One letter per 30 s. In: `x` breached, `.` clear, `?` no row.
fn play(rule: &Arc<RuleSpec>, verdicts: &str) -> String {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let step = |verdict: char| {
        desk.now += 30;
        match verdict {
            'x' => drop(desk.evaluate(rule, &[("sda", "warning")])),
            '.' => drop(desk.evaluate(rule, &[])),
            _ => {}
        }
        letter(&desk)
    };
    verdicts.chars().map(step).collect()
}

// Cases: R7 (partly), R8
#[test]
fn alerts_follow_their_rule_by_event_time() {
    for (hold, keep, verdicts, states, why) in [
        (0, 0, "x.", "FR", "without `for` it fires at once"),
        (60, 0, "x.xx", "p-pp", "a blip starts the wait again"),
        (60, 0, "xxxx", "ppFF", "breached for 60 s"),
        (60, 0, "xx?x", "pppF", "time without rows counts once rows come"),
        (60, 0, "xxx????", "ppFFFFF", "silence resolves nothing"),
        (60, 0, "xxx.", "ppFR", "one clear row resolves"),
        (60, 0, "xxx.x.", "ppFRpi", "pending again after it fired leaves its counters"),
        (0, 60, "x...", "FKKR", "kept firing for 60 s"),
        (0, 60, "x.x..", "FKFKK", "a breach ends the recovery"),
        (0, 60, "x.????", "FKKKKK", "silence is no recovery"),
    ] {
        assert_eq!(play(&rule("r", hold, keep), verdicts), states, "{why}");
    }
}

// Cases: R3 (partly), F10
#[test]
fn each_change_is_one_event_and_what_stays_is_none() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 60, 0);
    for (now, elements, events) in [
        (0, &[("sda", "warning")][..], &["alert.pending"][..]),
        (30, &[("sda", "warning")], &[]),
        (60, &[("sda", "warning")], &["alert.triggered", "incident.triggered"]),
        (60, &[("sda", "warning")], &[]),
        (90, &[("sda", "warning")], &[]),
        (100, &[("sda", "error")], &["alert.updated", "incident.priority_changed"]),
        (110, &[("sda", "warning")], &["alert.updated"]),
        (120, &[], &["alert.resolved", "incident.updated"]),
        (120, &[], &[]),
        (130, &[], &[]),
    ] {
        desk.now = now;
        assert_eq!(desk.evaluate(&rule, elements), events, "at {now}");
    }
}

// Cases: R5, C-S1
#[test]
fn rows_evaluated_again_after_a_restart_say_nothing_twice() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 60, 60);
    let rows: Vec<(i64, &[(&str, &str)])> = (0..40)
        .map(|n| (n * 30, if (n / 10) % 2 == 0 { &[("sda", "warning"), ("sdb", "error")][..] } else { &[] }))
        .collect();
    for (now, elements) in &rows {
        desk.now = *now;
        desk.evaluate(&rule, elements);
        let public = desk.feed().len();
        for (earlier, elements) in rows.iter().filter(|(earlier, _)| earlier <= now) {
            // The last event's row is where a start begins; earlier rows are the harder case.
            let seq = 1_000;
            let events = desk.ask(evaluation(&rule, 1, *earlier, seq, elements)).unwrap();
            assert!(
                events.iter().all(|event| !event.kind.is_public()),
                "{earlier} again at {now}: {events:?}"
            );
        }
        assert_eq!(desk.feed().len(), public);
    }
    assert!(desk.feed().len() > 6, "the rows must say something once");
}

#[test]
fn a_key_goes_on_counting_when_it_fires_again() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 30, 0);
    let mut seen = Vec::new();
    for (n, breached) in "xx.xx.x.xx".chars().map(|c| c == 'x').enumerate() {
        desk.now = 30 * n as i64;
        desk.evaluate(&rule, if breached { &[("sda", "warning")] } else { &[] });
        let alert = desk.state.alerts().next().unwrap();
        seen.push((alert.generation, alert.key_seq));
    }
    let expected = [(0, 0), (1, 1), (1, 2), (1, 2), (2, 3), (2, 4), (2, 4), (2, 4), (2, 4), (3, 5)];
    assert_eq!(seen, expected);
}

#[test]
fn an_evaluation_touches_only_its_rule_and_its_agent() {
    let mut desk = Desk::with_hosts(2, Env::Prod);
    let (one, other) = (rule("one", 0, 0), rule("other", 0, 0));
    desk.now = 10;
    desk.evaluate(&one, &[("sda", "warning")]);
    desk.done(evaluation(&one, 2, 10, 1, &[("sda", "warning")]));
    desk.evaluate(&other, &[("sda", "warning")]);
    desk.now = 20;
    assert_eq!(desk.evaluate(&other, &[]), ["alert.resolved", "incident.updated"]);
    let firing = |desk: &Desk, n| desk.state.active_of_rule("one", Some(agent(n))).count();
    assert_eq!((firing(&desk, 1), firing(&desk, 2)), (1, 1));
    desk.evaluate(&one, &[]);
    assert_eq!((firing(&desk, 1), firing(&desk, 2)), (0, 1));
}

// Cases: R3 (partly)
#[test]
fn relabelling_a_host_ends_none_of_its_alerts() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 600, 0);
    desk.evaluate(&rule, &[("sda", "warning")]);
    let labelled = |team: &str, now: i64| {
        let Command::Evaluated(mut evaluation) = evaluation(&rule, 1, now, 9, &[("sda", "warning")]) else {
            unreachable!("it is an evaluation")
        };
        evaluation.elements[0].labels = evaluation.elements[0].labels.with([("team", team)]);
        Command::Evaluated(evaluation)
    };
    assert_eq!(desk.done(labelled("shop", 300)), [""; 0]);
    desk.done(Command::LabelHost { agent: agent(1), labels: labels(&[("team", "bank")]) });
    let events = desk.done(labelled("bank", 600));
    assert_eq!(events, ["alert.triggered", "incident.triggered"], "the wait went on");
}

// Cases: R3 (partly), C-S5
#[test]
fn removed_rules_end_their_alerts_and_close_their_incidents() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let (fires, waits, stays) = (rule("fires", 0, 0), rule("waits", 60, 0), rule("stays", 0, 0));
    for rule in [&fires, &waits, &stays] {
        desk.evaluate(rule, &[("sda", "warning")]);
    }
    let rule_ids = BTreeSet::from(["stays".to_owned()]);
    let events = desk.done(Command::RulesChanged { rule_ids: rule_ids.clone() });
    assert_eq!(events, ["alert.resolved", "incident.resolved", "alert.inactive"]);
    assert_eq!(desk.incident(1).resolution.as_ref().unwrap().code, "rule_removed");
    assert!(desk.incident(2).status.is_open());
    assert_eq!(desk.done(Command::RulesChanged { rule_ids }), [""; 0]);
}

#[test]
fn severity_comes_from_the_label_and_decides_about_incidents() {
    for (label, of_rule, severity, incident) in [
        ("critical", None, Severity::Critical, true),
        ("warning", None, Severity::Warning, true),
        ("info", None, Severity::Info, false),
        ("info", Some(true), Severity::Info, true),
        ("critical", Some(false), Severity::Critical, false),
        ("page", None, Severity::Warning, true),
    ] {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        let rule = Arc::new(RuleSpec { opens_incident: of_rule, ..(*rule("r", 0, 0)).clone() });
        desk.evaluate(&rule, &[("sda", label)]);
        let alert: &Alert = desk.state.alerts().next().unwrap();
        assert_eq!((alert.severity, alert.incident.is_some()), (severity, incident), "{label} {of_rule:?}");
        assert_eq!(alert.labels.get("severity"), Some(severity.as_str()), "{label}");
    }
}

#[test]
fn evaluations_that_cannot_be_meant_are_refused_and_move_nothing() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 0, 0);
    let twice = evaluation(&rule, 1, 0, 1, &[("sda", "warning"), ("sda", "error")]);
    assert!(matches!(desk.ask(twice), Err(Refusal::Invalid { .. })));
    let unknown = evaluation(&rule, 9, 0, 1, &[("sda", "warning")]);
    assert!(matches!(desk.ask(unknown), Err(Refusal::NotFound { .. })));
    let names: Vec<String> = (0..=1_000).map(|n| n.to_string()).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "warning")).collect();
    assert!(matches!(desk.ask(evaluation(&rule, 1, 0, 1, &many)), Err(Refusal::Exhausted { .. })));
    desk.done(Command::RetireHost { agent: agent(1), reason: "gone".into() });
    assert_eq!(desk.evaluate(&rule, &[("sda", "warning")]), [""; 0], "a retired host raises nothing");
}

#[test]
fn a_worsening_after_an_operator_resolved_is_news_and_that_it_goes_on_is_not() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 0, 0);
    desk.evaluate(&rule, &[("sda", "warning")]);
    desk.done(Command::Resolve { on: on(1, "restarted it"), code: "fixed".into() });
    desk.now = 30;
    assert_eq!(desk.evaluate(&rule, &[("sda", "warning")]), [""; 0]);
    desk.now = 60;
    assert_eq!(desk.evaluate(&rule, &[("sda", "critical")]), ["alert.updated", "incident.reopened"]);
    assert!(desk.incident(1).pages);
    assert_eq!(desk.state.alerts().next().unwrap().active_since, at(0));
}

// Cases: T4
#[test]
fn a_clock_step_neither_shortens_nor_stretches_a_wait() {
    for delta in [-3_600, 3_600] {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        let (waits, over) = (rule("waits", 60, 0), rule("over", 0, 0));
        desk.evaluate(&waits, &[("sda", "warning")]);
        desk.evaluate(&over, &[("sda", "warning")]);
        desk.now = 10;
        desk.evaluate(&over, &[]);
        desk.done(Command::ClockStepped { agent: agent(1), clock_offset_ms: delta * 1_000 });
        // From here on `now` is the host's event time.
        for (row, rule, first) in [
            (delta + 30, &waits, None),
            (delta + 60, &waits, Some("alert.triggered")),
            (delta + 61, &over, Some("alert.triggered")),
        ] {
            desk.now = row;
            let events = desk.evaluate(rule, &[("sda", "warning")]);
            assert_eq!(events.first().copied(), first, "step {delta}, row {row}");
        }
    }
}

#[test]
fn a_value_that_moves_at_every_row_is_written_down_every_five_minutes() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 0, 0);
    let row = |now: i64| {
        let Command::Evaluated(mut evaluation) = evaluation(&rule, 1, now, 1, &[("sda", "warning")]) else {
            unreachable!("it is an evaluation")
        };
        evaluation.elements[0].value = now as f64;
        Command::Evaluated(evaluation)
    };
    let written: Vec<i64> = (0..100).map(|n| n * 10).filter(|now| !desk.done(row(*now)).is_empty()).collect();
    assert_eq!(written, [0, 300, 600, 900]);
    assert_eq!(desk.state.alerts().next().unwrap().value, 900.0);
}
