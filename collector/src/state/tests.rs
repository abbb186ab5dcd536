//! Hosts, tokens, principals, consumers and sealing: what is let in, and what is refused with which words.

use tocsin_shared::access::Role;
use tocsin_shared::event::{Actor, Block, LaneProgress, Sealed};
use tocsin_shared::host::HostState;
use tocsin_shared::identity::{Env, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use uuid::Uuid;

use super::command::{Enrolment, Heard, NewToken};
use super::testing::{
    Desk, agent, at, certificate, digest, enrolment, heard, labels, place, rule, run_start, token,
};
use super::{Command, Refusal, State};
use crate::jobs::Place;

fn refused(desk: &mut Desk, command: Command) -> String {
    desk.ask(command).expect_err("it must be refused").to_string()
}

#[test]
fn a_token_lets_one_host_in() {
    let mut desk = Desk::default();
    desk.done(Command::CreateToken(token(1, Env::Prod, "web-*")));
    let events = desk.done(Command::Enrol(enrolment(1, "web-1")));
    assert_eq!(events, ["token.used", "host.enrolled", "certificate.issued"]);
    let host = desk.state.host_by_instance("web-1").unwrap();
    assert_eq!(
        (host.state, host.env, host.labels.get("team")),
        (HostState::Pending, Env::Prod, Some("shop"))
    );
    assert_eq!(desk.state.certificates_of(agent(1)).map(|c| c.generation).collect::<Vec<_>>(), [1]);
}

// Cases: I5, C-X3
#[test]
fn tokens_are_refused_with_the_reason() {
    let used_by = |key: u128, n: u128, instance: &str| {
        let mut again: Enrolment = enrolment(1, instance);
        again.agent = agent(n);
        again.certificate = certificate(n);
        again.certificate.key_sha256 = digest(1_000 + key);
        Command::Enrol(again)
    };
    for (now, command, expected) in [
        (0, Command::Enrol(Enrolment { token_sha256: digest(9), ..enrolment(2, "web-2") }), Some("unknown")),
        (600, used_by(1, 3, "web-1"), None),
        (601, used_by(1, 3, "web-1"), Some("used already")),
        (1, used_by(2, 3, "web-1"), Some("used already")),
        (1, used_by(1, 3, "web-3"), Some("used already")),
        (0, Command::Enrol(enrolment(2, "db-1")), Some("is for web-*")),
        (0, Command::Enrol(enrolment(2, "web-1")), Some("is in service already")),
        (0, Command::Enrol(enrolment(2, "web-1/../x")), Some("not a host name")),
        (200_000_000, Command::Enrol(enrolment(2, "web-2")), Some("expired")),
        (0, Command::Enrol(enrolment(2, "web-2")), None),
    ] {
        let mut desk = Desk::default();
        desk.done(Command::CreateToken(token(1, Env::Prod, "web-*")));
        desk.done(Command::CreateToken(token(2, Env::Prod, "web-*")));
        desk.done(Command::Enrol(enrolment(1, "web-1")));
        desk.now = now;
        match (desk.ask(command.clone()), expected) {
            (Ok(_), None) => {}
            (Err(refusal), Some(words)) => assert!(refusal.to_string().contains(words), "{refusal}"),
            (result, expected) => panic!("{command:?} at {now}: {result:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn certificates_are_renewed_and_revoked() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let renew = |n| Command::RenewCertificate { agent: agent(1), shown: None, certificate: certificate(n) };
    assert_eq!(desk.done(renew(50)), ["certificate.issued"]);
    assert!(refused(&mut desk, renew(50)).contains("exists already"));
    let revoke = || Command::RevokeCertificates { agent: agent(1), reason: "stolen".into() };
    assert_eq!(desk.done(revoke()), ["certificate.revoked", "certificate.revoked"]);
    assert!(desk.state.certificates_of(agent(1)).all(|c| c.revoked_at.is_some()));
    assert_eq!(desk.done(revoke()), [""; 0]);
    assert!(refused(&mut desk, renew(51)).contains("no certificate to renew"));
}

// Cases: R9
#[test]
fn a_silent_host_raises_one_alert_and_keeps_the_others() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    desk.evaluate(&rule("r", 0, 0), &[("sda", "warning")]);
    desk.now = 30;
    let silent = || Command::HostSilent { agent: agent(1), since: at(0) };
    assert_eq!(desk.done(silent()), ["host.unreachable", "alert.triggered", "incident.triggered"]);
    assert_eq!(desk.done(silent()), [""; 0]);
    assert_eq!(desk.state.active_of_agent(agent(1)).count(), 2, "its other alert is as it was");
    assert_eq!(desk.incident(2).title, "AgentUnreachable on web-1: web-1 has not been heard for 30s");
    desk.now = 40;
    let back = desk.done(Command::HostHeard(heard(1)));
    assert_eq!(back, ["host.online", "alert.resolved", "incident.updated"]);
    assert_eq!(desk.state.active_of_agent(agent(1)).count(), 1);
    assert_eq!(desk.done(Command::HostHeard(heard(1))), [""; 0], "a heartbeat is no news");
    let boots = Heard { boot_id: "boot-2".into(), ..heard(1) };
    assert_eq!(desk.done(Command::HostHeard(boots)), ["host.updated"]);
    let step = Command::ClockStepped { agent: agent(1), clock_offset_ms: 5_000 };
    assert_eq!(
        desk.done(step.clone()),
        ["host.clock_step", "alert.updated"],
        "the times of its alert step too"
    );
    assert_eq!(desk.done(step), [""; 0]);
}

// Cases: T4
#[test]
fn a_skewed_clock_is_an_alert_that_ends_when_it_is_right() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let skewed = |off_by_ms| Command::ClockSkewed { agent: agent(1), off_by_ms };
    assert_eq!(desk.done(skewed(None)), [""; 0], "a right clock is no news");
    assert_eq!(desk.done(skewed(Some(-90_500))), ["alert.triggered", "incident.triggered"]);
    assert_eq!(desk.incident(1).title, "HostClockSkewed on web-1: its clock is 1m30s behind the collector's");
    desk.now = 60;
    assert_eq!(desk.done(skewed(None)), ["alert.resolved", "incident.updated"]);
    assert_eq!(desk.done(skewed(None)), [""; 0]);
}

// Cases: T2, T3
#[test]
fn a_certificate_is_renewed_a_little_after_its_end() {
    for (late, renewed) in [(299, true), (300, false)] {
        let mut desk = Desk::with_hosts(1, Env::Prod);
        let end = desk.state.certificates_of(agent(1)).map(|c| c.not_after).max().unwrap();
        desk.now = 100_000_000 + late;
        let mut new = certificate(50);
        new.not_after = end.plus(std::time::Duration::from_secs(86_400));
        let command = Command::RenewCertificate { agent: agent(1), shown: None, certificate: new };
        assert_eq!(desk.ask(command).is_ok(), renewed, "{late} s after its end");
    }
}

// Cases: T1
#[test]
fn silence_raises_its_alert_also_when_the_clock_stood_still_or_went_back() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    for now in [30, 30, 10] {
        desk.now = now;
        let silent = desk.done(Command::HostSilent { agent: agent(1), since: at(0) });
        assert_eq!(silent[..2], ["host.unreachable", "alert.triggered"], "at {now}");
        desk.done(Command::HostHeard(heard(1)));
    }
}

#[test]
fn a_host_never_heard_is_not_unreachable() {
    let mut desk = Desk::default();
    desk.enrol(1, "web-1", Env::Prod).unwrap();
    assert_eq!(desk.done(Command::HostSilent { agent: agent(1), since: at(0) }), [""; 0]);
}

// Cases: I2
#[test]
fn a_retired_hosts_name_is_free_again() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let retire = || Command::RetireHost { agent: agent(1), reason: "sold".into() };
    assert_eq!(desk.done(retire()), ["host.retired", "certificate.revoked"]);
    assert_eq!(desk.done(retire()), [""; 0]);
    assert!(refused(&mut desk, Command::HostHeard(heard(1))).contains("is retired"));
    desk.enrol(2, "web-1", Env::Prod).unwrap();
    assert_eq!(desk.state.host_by_instance("web-1").unwrap().agent, agent(2));
}

#[test]
fn labels_that_the_collector_sets_are_not_for_operators() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    for (name, allowed) in [
        ("team", true),
        ("instance", false),
        ("job", false),
        ("env", false),
        ("severity", false),
        ("__name__", false),
        ("a-b", false),
        ("1st", false),
    ] {
        let command = Command::LabelHost { agent: agent(1), labels: labels(&[(name, "x")]) };
        assert_eq!(desk.ask(command).is_ok(), allowed, "{name}");
    }
    let hostile = labels(&[("team", "\u{1b}[2J")]);
    assert!(desk.ask(Command::LabelHost { agent: agent(1), labels: hostile }).is_err());
    assert_eq!(desk.state.host(agent(1)).unwrap().labels, labels(&[("team", "x")]));
}

fn principal(name: &str, role: Role, n: u128) -> Command {
    Command::CreatePrincipal { name: name.into(), role, secret_sha256: digest(n), expires_at: None }
}

#[test]
fn principals_come_and_go_but_the_last_administrator_stays() {
    let mut desk = Desk::default();
    let revoke = |name: &str| Command::RevokePrincipal { name: name.into() };
    desk.done(principal("ann", Role::Admin, 1));
    assert!(refused(&mut desk, principal("ann", Role::Viewer, 2)).contains("exists already"));
    assert!(refused(&mut desk, principal("Ann B", Role::Viewer, 2)).contains("not a principal's name"));
    assert!(refused(&mut desk, revoke("ann")).contains("last administrator"));
    desk.done(principal("bob", Role::Admin, 2));
    assert_eq!(desk.done(revoke("ann")), ["principal.revoked"]);
    assert_eq!(desk.done(revoke("ann")), [""; 0]);
    assert!(desk.state.principal_by_digest(&digest(1)).unwrap().revoked_at.is_some());
    desk.done(principal("ann", Role::Viewer, 3));
    assert!(desk.state.principal_by_digest(&digest(1)).is_none(), "the old credential is forgotten");
    assert_eq!(desk.state.principal_by_digest(&digest(3)).unwrap().name, "ann");
    let expired = NewToken { expires_at: at(0), ..token(1, Env::Prod, "*") };
    assert!(refused(&mut desk, Command::CreateToken(expired)).contains("expired already"));
}

#[test]
fn a_consumers_position_only_goes_forwards_and_only_its_owner_moves_it() {
    let mut desk = Desk::default();
    desk.done(principal("pager", Role::Consumer, 1));
    desk.done(principal("other", Role::Consumer, 2));
    let create = |at_seq| Command::CreateConsumer { name: "oncall".into(), owner: "pager".into(), at_seq };
    assert!(refused(&mut desk, create(99)).contains("beyond the head"));
    desk.done(create(0));
    assert!(refused(&mut desk, create(0)).contains("exists already"));
    let ack = |seq| Command::AckFeed { consumer: "oncall".into(), seq };
    let (pager, other) = (Actor::Principal("pager".into()), Actor::Principal("other".into()));
    for (actor, seq, expected) in [
        (&pager, 2, Ok(2)),
        (&pager, 1, Ok(2)),
        (&other, 3, Err("belongs to pager")),
        (&pager, 99, Err("beyond the head")),
    ] {
        let result = desk.ask_as(actor, ack(seq)).map(|_| desk.state.consumer("oncall").unwrap().acked_seq);
        match (result, expected) {
            (Ok(got), Ok(wanted)) => assert_eq!(got, wanted),
            (Err(refusal), Err(words)) => assert!(refusal.to_string().contains(words), "{refusal}"),
            (result, _) => panic!("{actor} {seq}: {result:?}"),
        }
    }
}

#[test]
fn sealing_stores_lanes_and_survives_a_checkpoint_beside_newer_ones() {
    let mut desk = Desk::with_hosts(1, Env::Prod);
    let lane = |epoch, floor| LaneProgress {
        agent: agent(1),
        epoch,
        lane: Lane::Samples,
        taken: Ranges::up_to(floor),
        contents: Vec::new(),
    };
    let block = Block { file: "b1".into(), from: at(0), to: at(9), bytes: 1, series: 1, samples: 1 };
    let epoch = place(1).epoch;
    let sealed = Sealed {
        samples_from: 9,
        sealed_seq: 8,
        sealed_to: at(0),
        evaluated_through: 8,
        lanes: vec![lane(epoch, 7)],
        blocks: vec![block],
    };
    let earlier = Place { epoch: Epoch(Uuid::from_u128(1)), ..place(1) };
    desk.done(Command::JobStarted { run: run_start(1, "backup", 0), place: earlier });
    assert_eq!(desk.done(Command::Sealed(sealed.clone())), ["samples.sealed"]);
    assert_eq!(desk.done(Command::Sealed(sealed.clone())), [""; 0]);
    assert_eq!(desk.state.lane(agent(1), epoch, Lane::Samples), Some(&Ranges::up_to(7)));
    assert_eq!(desk.state.evaluated_through(), 8);
    let back = Sealed { samples_from: 3, ..sealed };
    assert!(matches!(desk.ask(Command::Sealed(back)), Err(Refusal::Invalid { .. })));
    let gap = crate::jobs::GapRecord {
        agent: agent(1),
        epoch,
        lane: Lane::Samples,
        first: 8,
        last: 9,
        reason: "x".into(),
    };
    desk.done(Command::GapRecorded { gap, place: place(1) });
    let copy = State::restore(desk.state.last_seq(), desk.state.evaluated_through(), desk.state.records());
    assert_eq!(copy, desk.state);
    assert_eq!(copy.lane(agent(1), epoch, Lane::Samples), Some(&Ranges::up_to(9)));
}
