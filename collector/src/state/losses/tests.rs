//! What waits while events are lost, what goes on, and what follows a decision.

use tocsin_shared::identity::Env;
use tocsin_shared::incident::IncidentStatus;

use super::*;
use crate::state::testing::{Desk, at, enrolment, on, rule, token};

const LOST: (u64, u64) = (100, 109);

fn desk() -> Desk {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    desk.now = 10;
    desk.evaluate(&rule("before", 0, 0), &[("sda", "warning")]);
    desk
}

fn lose(desk: &mut Desk, open: &[(u64, u64)]) -> Vec<&'static str> {
    let found = Findings { open: open.to_vec(), ..Findings::default() };
    let events = desk.ask_as(&Actor::System, Command::JournalFound(found)).unwrap();
    events.iter().map(|event| event.kind.as_str()).collect()
}

/// Ticks until nothing more happens; gives what did.
fn settle(desk: &mut Desk) -> Vec<&'static str> {
    let mut all = Vec::new();
    for _ in 0..20 {
        let done = desk.done(Command::Tick);
        if done.is_empty() {
            break;
        }
        all.extend(done);
    }
    all
}

// Cases: C5
#[test]
fn a_loss_pages_at_once_under_a_number_that_no_lost_event_can_have_used() {
    let mut desk = desk();
    let told = lose(&mut desk, &[LOST]);
    assert_eq!(told, ["journal.events_lost", "alert.triggered", "incident.triggered"]);
    let incident = desk.state.open_incidents().last().unwrap().clone();
    assert_eq!(incident.number, 12, "one was open, and ten lost events may have opened ten");
    assert!(incident.title.contains("data loss, events 100 to 109"), "{}", incident.title);
    let copy = State::restore(desk.state.last_seq(), desk.state.evaluated_through(), desk.state.records());
    assert_eq!(copy, desk.state, "a restart keeps the mode");
    assert!(copy.is_degraded() && copy.next_due().is_none());
}

// Cases: C5
#[test]
fn people_wait_and_what_is_seen_goes_on() {
    let mut desk = desk();
    lose(&mut desk, &[LOST]);
    let new = token(7, Env::Prod, "*");
    let refused = [
        Command::Acknowledge(on(1, "mine")),
        Command::Unacknowledge(on(1, "")),
        Command::Note(on(1, "words")),
        Command::Resolve { on: on(1, "done"), code: "fixed".into() },
        Command::CreateToken(new),
        Command::Enrol(enrolment(7, "web-7")),
    ];
    let before = desk.incident(1).clone();
    for command in refused {
        let refusal = desk.ask(command.clone()).unwrap_err();
        assert_eq!(refusal, Refusal::Degraded { first: 100, last: 109 }, "{command:?}");
        let words = refusal.to_string();
        assert!(words.contains("accept-loss --from 100 --to 109"), "{words}");
    }
    desk.now = 20;
    assert_eq!(desk.evaluate(&rule("new", 0, 0), &[("sda", "critical")]), ["alert.triggered"]);
    assert_eq!(desk.evaluate(&rule("new", 0, 0), &[("sda", "critical")]), [""; 0], "said once");
    desk.now = 30;
    assert_eq!(desk.evaluate(&rule("new", 0, 0), &[("sda", "critical")]), [""; 0], "and not at every row");
    assert_eq!(desk.evaluate(&rule("before", 0, 0), &[]), ["alert.resolved"]);
    assert_eq!(desk.run_ends(1, 25, 30, 1), ["job.failed", "alert.triggered", "lane.moved"]);
    desk.now = 100_000;
    assert_eq!(desk.done(Command::Tick), [""; 0]);
    assert_eq!(*desk.incident(1), before);
}

// Cases: C5
#[test]
fn after_a_decision_incidents_follow_the_alerts() {
    let mut desk = desk();
    lose(&mut desk, &[LOST, (200, 200)]);
    desk.now = 20;
    desk.evaluate(&rule("new", 0, 0), &[("sda", "critical"), ("sdb", "critical")]);
    desk.evaluate(&rule("before", 0, 0), &[]);
    desk.run_ends(1, 15, 20, 1);
    for (first, last) in [(100, 110), (100, 108), (101, 109), (1, 2)] {
        let refusal = desk.ask(Command::AcceptLoss { first, last }).unwrap_err();
        assert!(refusal.to_string().contains("lost are 100 to 109, 200 to 200"), "{refusal}");
    }
    let accept = |first, last| Command::AcceptLoss { first, last };
    let accepted = desk.ask(accept(100, 109)).unwrap();
    assert_eq!(accepted[0].kind, EventKind::LossAccepted);
    assert_eq!(accepted[0].actor, Actor::Principal("ann".into()), "audited");
    assert!(desk.state.is_degraded(), "another loss is still open");
    assert_eq!(desk.done(accept(100, 109)), [""; 0], "a second time changes nothing");
    desk.done(accept(200, 200));
    assert!(!desk.state.is_degraded());
    assert_eq!(desk.state.next_due(), Some(at(0)).map(|_| tocsin_shared::time::Timestamp::MIN));
    let settled = settle(&mut desk);
    let count = |kind: &str| settled.iter().filter(|settled| **settled == kind).count();
    assert_eq!((count("incident.triggered"), count("journal.loss_settled")), (2, 2), "{settled:?}");
    let open: Vec<u64> = desk.state.open_incidents().map(|incident| incident.number).collect();
    assert!(open.iter().all(|number| *number == 1 || *number > 12), "{open:?}");
    assert!(desk.incident(1).auto_resolve_at.is_some(), "its alert ended meanwhile");
    desk.tick(200);
    assert_eq!(desk.incident(1).status, IncidentStatus::Resolved);
    desk.done(Command::Acknowledge(on(*open.last().unwrap(), "mine")));
}

// Cases: C5
#[test]
fn events_that_can_be_read_again_end_it_without_a_decision() {
    let mut desk = desk();
    lose(&mut desk, &[LOST]);
    let found = Findings { restored: vec![100], ..Findings::default() };
    let told = desk.done(Command::JournalFound(found));
    assert_eq!(told, ["journal.events_restored", "alert.resolved", "incident.updated"]);
    assert!(!desk.state.is_degraded());
    settle(&mut desk);
    desk.done(Command::Acknowledge(on(1, "mine")));
}

// Cases: C5
#[test]
fn losses_are_remembered_up_to_a_bound_and_no_open_one_is_forgotten() {
    let mut losses = Losses::default();
    let loss = |first, state| Loss { first, last: first, state, incidents_from: 0 };
    losses.put(loss(1, LossState::Open));
    for first in 2..2_000 {
        losses.put(loss(first, LossState::Torn));
    }
    assert_eq!((losses.all().count(), losses.open().count()), (LOSSES_KEPT, 1));
}
