//! A host's way back, step by step. Days pass in seconds of 86,400.

use tocsin_shared::event::Actor;
use tocsin_shared::identity::Env;

use super::*;
use crate::state::Command;
use crate::state::testing::{Desk, agent, at, certificate, digest, heard, token};

const DAY: i64 = 86_400;

/// A certificate for key `key`, good for a day from `from` days on.
fn issued(serial: &str, key: u128, from: i64) -> NewCertificate {
    NewCertificate {
        serial: serial.into(),
        key_sha256: digest(key),
        not_before: at(from * DAY),
        not_after: at((from + 1) * DAY),
        authority: 1,
    }
}

/// A desk with one host whose first certificate, of key 1, lasts a day.
fn desk() -> Desk {
    let mut desk = Desk::default();
    desk.done(Command::CreateToken(token(1, Env::Prod, "*")));
    let mut enrolment = crate::state::testing::enrolment(1, "web-1");
    enrolment.certificate = issued("s1", 1, 0);
    desk.done(Command::Enrol(enrolment));
    desk.done(Command::HostHeard(heard(1)));
    desk
}

fn recover(proof: u128, serial: &str, key: u128, day: i64) -> Command {
    Command::Recover { agent: agent(1), proof_sha256: digest(proof), certificate: issued(serial, key, day) }
}

fn renew(shown: &str, serial: &str, key: u128, day: i64) -> Command {
    let certificate = issued(serial, key, day);
    Command::RenewCertificate { agent: agent(1), shown: Some(shown.into()), certificate }
}

fn allow() -> Command {
    Command::AllowRecovery { agent: agent(1) }
}

fn revoke() -> Command {
    Command::RevokeCertificates { agent: agent(1), reason: "stolen".into() }
}

fn retire() -> Command {
    Command::RetireHost { agent: agent(1), reason: "sold".into() }
}

const NEW: &str = "host.recovered certificate.issued";

// Cases: I4, I5
#[test]
fn a_host_recovers_by_its_last_key_once_in_thirty_days_and_then_asks() {
    // Each line: the day, the command, and the events or a word of the refusal.
    type Step = (i64, Command, &'static str);
    let stories: [(&str, Vec<Step>); 9] = [
        (
            "a month away",
            vec![
                (30, recover(1, "s2", 2, 30), NEW),
                (40, recover(2, "s3", 3, 40), "30 days have not passed"),
                (40, allow(), "host.recovery_allowed"),
                (40, recover(2, "s3", 3, 40), NEW),
                (50, recover(3, "s4", 4, 50), "30 days have not passed"),
                (70, recover(3, "s4", 4, 70), NEW),
            ],
        ),
        (
            "the answer got lost",
            vec![
                (30, recover(1, "s2", 2, 30), NEW),
                (30, recover(1, "s3", 2, 30), "certificate.issued"),
                (30, recover(1, "s4", 2, 30), "certificate.issued"),
            ],
        ),
        ("it is valid yet", vec![(0, recover(1, "s2", 2, 0), "renew it")]),
        ("another key", vec![(30, recover(9, "s2", 2, 30), "not the last key")]),
        (
            "an older key, and then with permission",
            vec![
                (0, renew("s1", "s2", 2, 0), "certificate.issued"),
                (30, recover(1, "s3", 3, 30), "not the last key"),
                (30, allow(), "host.recovery_allowed"),
                (30, recover(1, "s3", 3, 30), NEW),
            ],
        ),
        (
            "a renewal whose answer got lost, and a month",
            vec![
                (0, renew("s1", "s2", 2, 0), "certificate.issued"),
                (30, recover(1, "s3", 2, 30), NEW),
                (30, recover(1, "s4", 2, 30), "certificate.issued"),
            ],
        ),
        (
            "a permission lasts a day and serves once",
            vec![
                (30, recover(1, "s2", 2, 30), NEW),
                (32, allow(), "host.recovery_allowed"),
                (34, recover(2, "s3", 3, 34), "30 days have not passed"),
                (34, allow(), "host.recovery_allowed"),
                (34, recover(2, "s3", 3, 34), NEW),
                (36, recover(3, "s4", 4, 36), "30 days have not passed"),
            ],
        ),
        (
            "revoked",
            vec![
                (0, revoke(), "certificate.revoked"),
                (30, recover(1, "s2", 2, 30), "are revoked"),
                (30, allow(), "are revoked"),
            ],
        ),
        (
            "retired",
            vec![
                (0, retire(), "host.retired certificate.revoked"),
                (30, recover(1, "s2", 2, 30), "is retired"),
                (30, allow(), "is retired"),
            ],
        ),
    ];
    for (story, steps) in stories {
        let mut desk = desk();
        for (day, command, expected) in steps {
            desk.now = day * DAY + 1;
            let got = match desk.ask_as(&Actor::Agent(agent(1)), command) {
                Ok(events) => events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>().join(" "),
                Err(refusal) => refusal.to_string(),
            };
            assert!(got.contains(expected), "{story}, day {day}: {got}, expected {expected}");
        }
    }
}

// Cases: I1, I5
#[test]
fn two_renewals_of_one_certificate_are_two_hosts() {
    let mut desk = desk();
    assert_eq!(desk.done(renew("s1", "s2", 2, 0)), ["certificate.issued"]);
    assert_eq!(
        desk.done(renew("s1", "s3", 2, 0)),
        ["certificate.issued"],
        "the same key asks for a lost answer"
    );
    assert_eq!(desk.done(renew("s2", "s4", 4, 0)), ["alert.triggered", "incident.triggered"], "another key");
    assert!(is_cloned(&desk.state, agent(1)));
    let title = desk.incident(1).title.clone();
    assert_eq!(title, "IdentityCloned on web-1: two hosts show the identity of web-1");
    for refused in [renew("s3", "s5", 5, 0), renew("s2", "s5", 5, 0), recover(2, "s5", 5, 0)] {
        let refusal = desk.ask(refused).unwrap_err().to_string();
        assert!(refusal.starts_with("cloned identity"), "{refusal}");
    }
    let ended = desk.done(allow());
    assert_eq!(ended, ["host.recovery_allowed", "alert.resolved", "incident.updated"]);
    // The one that asks now is the host, whichever generation it holds; the other's certificates are gone.
    let taken = desk.done(renew("s2", "s5", 5, 0));
    assert_eq!(taken.first().copied(), Some("host.recovered"));
    assert_eq!(taken.last().copied(), Some("certificate.issued"));
    let standing = |desk: &Desk| -> Vec<String> {
        let standing = desk.state.certificates_of(agent(1)).filter(|c| c.revoked_at.is_none());
        standing.map(|certificate| certificate.serial.clone()).collect()
    };
    assert_eq!(standing(&desk), ["s2", "s5"]);
    assert_eq!(desk.done(renew("s5", "s6", 6, 0)), ["certificate.issued"]);
    assert_eq!(desk.done(renew("s5", "s7", 7, 0)), ["alert.triggered", "incident.updated"]);
}

// Cases: I1
#[test]
fn a_cloned_identity_is_told_once_and_names_both() {
    let mut desk = desk();
    let cloned =
        || Command::IdentityCloned { agent: agent(1), seen: "seen: 10.0.0.1:1 and 10.0.0.2:1".into() };
    assert_eq!(desk.done(cloned()), ["alert.triggered", "incident.triggered"]);
    assert_eq!(desk.done(cloned()), [""; 0], "told once");
    let alert = desk.state.active_of_agent(agent(1)).next().expect("it fires");
    let description = alert.annotations.get("description").unwrap_or_default();
    for part in ["10.0.0.1", "10.0.0.2", "enroll --split", "tocsin host allow-recovery web-1"] {
        assert!(description.contains(part), "{part}: {description}");
    }
    assert_eq!(desk.done(retire()).first().copied(), Some("host.retired"), "a way out without the copy");
    assert!(!is_cloned(&desk.state, agent(1)));
}

// Cases: I2, I3
#[test]
fn a_name_stays_its_hosts_and_a_host_keeps_its_name() {
    let mut desk = desk();
    let taken = desk.enrol(2, "web-1", Env::Prod).unwrap_err().to_string();
    assert!(taken.contains("`tocsin host retire web-1` first"), "{taken}");
    assert_eq!(desk.state.host_by_instance("web-1").map(|host| host.agent), Some(agent(1)), "never replaced");
    desk.done(retire());
    desk.ask(Command::Enrol(crate::state::testing::enrolment(2, "web-1"))).expect("the same token, unused");
    assert_eq!(desk.state.host_by_instance("web-1").map(|host| host.agent), Some(agent(2)), "a new id");
    assert!(desk.state.host(agent(1)).is_some(), "the old one's history stays");

    let mut desk = self::desk();
    let mut renamed = heard(1);
    renamed.facts = crate::state::testing::labels(&[("hostname", "web-9")]);
    assert_eq!(desk.done(Command::HostHeard(renamed)), ["host.updated"]);
    let host = desk.state.host(agent(1)).expect("it is there");
    assert_eq!((host.instance.as_str(), host.facts.get("hostname")), ("web-1", Some("web-9")));
    desk.done(Command::CreateToken(token(3, Env::Prod, "*")));
    let certificate = certificate(3);
    let mut third = crate::state::testing::enrolment(3, "web-9");
    third.certificate = certificate;
    desk.ask(Command::Enrol(third)).expect("its new name is nobody's");
}
