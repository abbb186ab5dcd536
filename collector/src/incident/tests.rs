//! What incidents do when alerts come and go, people act, and time passes.

use tocsin_shared::identity::Env;
use tocsin_shared::incident::{Incident, IncidentStatus};

use super::{TIMERS_PER_TICK, incident_key};
use crate::state::command::OnIncident;
use crate::state::testing::{Desk, agent, alert, at, evaluation, labels, on, rule};
use crate::state::{Command, Refusal};

fn acknowledge(number: u64) -> Command {
    Command::Acknowledge(on(number, "on it"))
}

fn resolve(number: u64) -> Command {
    Command::Resolve { on: on(number, "restarted it"), code: "fixed".into() }
}

/// A desk with one firing alert of severity warning at 0.
fn firing() -> Desk {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    assert_eq!(
        desk.evaluate(&rule("r", 0, 0), &[("sda", "warning")]),
        ["alert.triggered", "incident.triggered"]
    );
    desk
}

#[test]
fn alerts_of_one_key_are_one_incident() {
    let mut desk = Desk::with_hosts(2, Env::Prod);
    let rule_1 = rule("r", 0, 0);
    desk.evaluate(&rule_1, &[("sda", "warning"), ("sdb", "warning")]);
    let incident = desk.incident(1);
    assert_eq!(incident.title, "r on web-1: it is bad");
    assert_eq!(incident.alerts.len(), 2);
    assert_eq!(incident.labels.get("device"), None, "only labels that all its alerts share");
    assert_eq!(incident.labels.get("instance"), Some("web-1"));
    desk.done(evaluation(&rule_1, 2, 0, 1, &[("sda", "warning")]));
    desk.evaluate(&rule("other", 0, 0), &[("sda", "warning")]);
    assert_eq!(desk.state.open_incidents().map(|i| i.number).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_title_names_its_host_once() {
    for (summary, title) in [
        ("web-1: processors are busy", "r on web-1: processors are busy"),
        ("web-10: processors are busy", "r on web-1: web-10: processors are busy"),
        ("processors are busy", "r on web-1: processors are busy"),
    ] {
        let mut alert = alert("k");
        alert.labels = labels(&[("alertname", "r"), ("instance", "web-1")]);
        alert.annotations = labels(&[("summary", summary)]);
        assert_eq!(super::membership::title(&alert), title, "{summary}");
    }
}

// Cases: R12
#[test]
fn parts_of_a_key_cannot_run_into_each_other() {
    let keys = [("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c")].map(|(name, instance)| {
        let mut alert = alert("k");
        alert.labels = labels(&[("alertname", name), ("instance", instance)]);
        incident_key(&alert)
    });
    assert_eq!(keys, ["prod/a%2Fb/c", "prod/a/b%2Fc", "prod/a%252Fb/c"]);
}

// Cases: R7 (partly)
#[test]
fn it_resolves_by_itself_a_minute_after_its_last_alert() {
    let mut desk = firing();
    let rule = rule("r", 0, 0);
    desk.now = 10;
    desk.evaluate(&rule, &[]);
    assert_eq!(desk.state.next_due(), Some(at(70)));
    desk.now = 40;
    assert_eq!(desk.evaluate(&rule, &[("sda", "warning")]), ["alert.triggered", "incident.updated"]);
    assert_eq!(desk.state.next_due(), None, "it fires again: no timer");
    assert_eq!(desk.tick(1_000), [""; 0]);
    desk.evaluate(&rule, &[]);
    assert_eq!(desk.tick(1_059), [""; 0]);
    assert_eq!(desk.tick(1_060), ["incident.resolved"]);
    assert_eq!(desk.incident(1).resolution.as_ref().unwrap().code, "auto");
    assert_eq!(desk.tick(1_061), [""; 0]);
}

#[test]
fn it_waits_for_the_last_of_its_alerts() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 0, 0);
    desk.evaluate(&rule, &[("sda", "warning"), ("sdb", "warning")]);
    desk.now = 10;
    desk.evaluate(&rule, &[("sdb", "warning")]);
    assert_eq!(desk.incident(1).auto_resolve_at, None);
    desk.now = 20;
    desk.evaluate(&rule, &[]);
    assert_eq!(desk.incident(1).auto_resolve_at, Some(at(80)));
}

#[test]
fn an_alert_that_has_no_room_in_the_record_still_keeps_it_open() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let rule = rule("r", 0, 0);
    let names: Vec<String> = (0..Incident::ALERTS_MAX + 1).map(|n| format!("sd{n:03}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "warning")).collect();
    desk.evaluate(&rule, &all);
    assert_eq!(desk.incident(1).alerts.len(), Incident::ALERTS_MAX);
    desk.now = 10;
    desk.evaluate(&rule, &all[Incident::ALERTS_MAX..]);
    assert!(desk.incident(1).alerts.iter().all(|known| !known.firing));
    assert_eq!(desk.incident(1).auto_resolve_at, None);
}

// Cases: R7 (partly)
#[test]
fn within_the_window_it_reopens_and_later_another_opens() {
    for (again_at, event, number) in [(1_000, "incident.reopened", 1), (70 + 1_801, "incident.triggered", 2)]
    {
        let mut desk = firing();
        let rule = rule("r", 0, 0);
        desk.now = 10;
        desk.evaluate(&rule, &[]);
        desk.tick(70);
        desk.now = again_at;
        assert_eq!(desk.evaluate(&rule, &[("sda", "warning")]), ["alert.triggered", event]);
        let incident = desk.incident(number);
        assert_eq!(incident.status, IncidentStatus::Triggered);
        assert!(incident.resolution.is_none() && incident.ack.is_none());
        assert_eq!(incident.reopen_count, u32::from(number == 1));
    }
}

// Cases: R14 (partly)
#[test]
fn an_acknowledgement_expires() {
    let mut desk = firing();
    assert_eq!(desk.done(acknowledge(1)), ["incident.acknowledged"]);
    let end = 8 * 3_600; // P3.
    assert_eq!(desk.incident(1).ack.as_ref().unwrap().expires_at, at(end));
    assert_eq!(desk.tick(end - 1), [""; 0]);
    assert_eq!(desk.tick(end), ["incident.unacknowledged"]);
    assert_eq!(desk.incident(1).status, IncidentStatus::Triggered);
}

#[test]
fn an_acknowledgement_hides_no_worsening_but_quiets_the_same() {
    let mut desk = firing();
    let rule = rule("r", 0, 0);
    desk.done(acknowledge(1));
    desk.now = 10;
    let same = desk.evaluate(&rule, &[("sda", "warning"), ("sdb", "warning")]);
    assert_eq!(same, ["alert.triggered", "incident.updated"]);
    assert_eq!(desk.incident(1).status, IncidentStatus::Acknowledged);
    desk.now = 20;
    let worse = desk.evaluate(&rule, &[("sda", "warning"), ("sdb", "critical")]);
    assert_eq!(worse, ["alert.updated", "incident.priority_changed", "incident.unacknowledged"]);
    let incident = desk.incident(1);
    assert_eq!((incident.status, incident.priority.number()), (IncidentStatus::Triggered, 2));
    desk.done(acknowledge(1));
    desk.now = 30;
    let worse = desk.evaluate(&rule, &[("sda", "warning"), ("sdb", "critical"), ("sdc", "critical")]);
    assert_eq!(
        worse,
        ["alert.triggered", "incident.updated"],
        "one more of the same severity is no worsening"
    );
}

// Cases: R15
#[test]
fn acts_on_a_resolved_incident_change_nothing() {
    let mut desk = firing();
    assert_eq!(desk.done(resolve(1)), ["incident.resolved"]);
    for command in [acknowledge(1), resolve(1), Command::Unacknowledge(on(1, ""))] {
        assert_eq!(desk.done(command), [""; 0]);
    }
    assert_eq!(desk.done(Command::Note(on(1, "it was the disk"))), ["incident.noted"]);
    assert_eq!(desk.journal.last().unwrap().note, "it was the disk");
}

// Cases: R15, C-I2
#[test]
fn acts_that_cannot_be_meant_are_refused() {
    let mut desk = firing();
    let invalid = |refusal: &Refusal| matches!(refusal, Refusal::Invalid { .. });
    for (command, expected) in [
        (Command::Resolve { on: on(1, ""), code: "fixed".into() }, "needs words"),
        (Command::Resolve { on: on(1, "x"), code: "auto".into() }, "it is one of fixed"),
        (Command::Note(on(1, " ")), "needs words"),
        (Command::Note(on(1, &"x".repeat(17_000))), "shorten"),
    ] {
        let refusal = desk.ask(command).unwrap_err();
        assert!(invalid(&refusal) && refusal.to_string().contains(expected), "{refusal}");
    }
    assert_eq!(desk.ask(acknowledge(7)), Err(Refusal::not_found("incident", 7)));
    let rev = desk.incident(1).rev;
    let seen = |rev| Command::Acknowledge(OnIncident { expected_rev: Some(rev), ..on(1, "") });
    assert_eq!(desk.ask(seen(rev + 1)), Err(Refusal::Conflict { current: rev }));
    assert_eq!(desk.done(seen(rev)), ["incident.acknowledged"]);
}

#[test]
fn resolving_by_hand_holds_until_the_alert_fires_anew() {
    let mut desk = firing();
    let rule = rule("r", 0, 0);
    desk.done(resolve(1));
    desk.now = 10;
    assert_eq!(desk.evaluate(&rule, &[("sda", "warning")]), [""; 0], "that it goes on is no news");
    desk.now = 20;
    assert_eq!(desk.evaluate(&rule, &[]), ["alert.resolved", "incident.updated"]);
    assert_eq!(desk.state.next_due(), None, "a resolved incident has no timer");
    desk.now = 30;
    assert_eq!(desk.evaluate(&rule, &[("sda", "warning")]), ["alert.triggered", "incident.reopened"]);
}

#[test]
fn retiring_a_host_closes_what_was_its_own() {
    let mut desk = firing();
    let events = desk.done(Command::RetireHost { agent: agent(1), reason: "sold".into() });
    assert_eq!(events, ["host.retired", "certificate.revoked", "alert.resolved", "incident.resolved"]);
    assert_eq!(desk.incident(1).resolution.as_ref().unwrap().code, "host_retired");
    assert_eq!(desk.journal[desk.journal.len() - 2].cause, Some(desk.journal[desk.journal.len() - 4].seq));
}

#[test]
fn a_tick_is_bounded_and_the_rest_stays_due() {
    let mut desk = Desk::with_hosts(TIMERS_PER_TICK as u128 + 1, Env::Prod);
    let rule = rule("r", 0, 0);
    for n in 1..=TIMERS_PER_TICK as u128 + 1 {
        desk.done(evaluation(&rule, n, 0, 1, &[("sda", "warning")]));
        desk.done(evaluation(&rule, n, 1, 2, &[]));
    }
    assert_eq!(desk.tick(600).len(), TIMERS_PER_TICK);
    assert_eq!(desk.state.next_due(), Some(at(60)));
    assert_eq!(desk.tick(600).len(), 1);
    assert_eq!(desk.state.next_due(), None);
}
