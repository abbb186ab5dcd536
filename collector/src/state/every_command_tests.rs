//! Every command that changes something leaves an event that says who did it.

use std::collections::BTreeSet;
use std::time::Duration;

use tocsin_shared::access::Role;
use tocsin_shared::event::{Actor, Sealed};
use tocsin_shared::identity::Env;
use tocsin_shared::lane::Lane;

use super::Command;
use super::command::{Matter, NewAuthority, NewCertificate};
use super::losses::Findings;
use super::testing::{
    Desk, agent, at, certificate, digest, enrolment, evaluation, heard, labels, on, place, rule, run_end,
    run_start, token,
};
use crate::alert::Filled;
use crate::jobs::{GapRecord, Place};

/// Who gives a command.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Giver {
    /// A person or a tool of theirs: the event names it.
    Person,
    /// An agent, about its own host.
    Agent,
    /// The collector itself: what follows from rows, time and its own state.
    Collector,
}

use Giver::{Agent, Collector, Person};

/// A number of its own for every command, and who gives it. A new command has no place to hide.
fn numbered(command: &Command) -> (usize, Giver) {
    match command {
        Command::Evaluated(_) => (0, Collector),
        Command::RowsMissing { .. } => (1, Collector),
        Command::HoleOpened { .. } => (2, Collector),
        Command::HoleClosed(_) => (3, Collector),
        Command::RulesChanged { .. } => (4, Collector),
        Command::Tick => (5, Collector),
        Command::Acknowledge(_) => (6, Person),
        Command::Unacknowledge(_) => (7, Person),
        Command::Resolve { .. } => (8, Person),
        Command::Note(_) => (9, Person),
        Command::JobStarted { .. } => (10, Agent),
        Command::JobEnded { .. } => (11, Agent),
        Command::GapRecorded { .. } => (12, Agent),
        Command::HostEventNoted { .. } => (13, Agent),
        Command::Enrol(_) => (14, Agent),
        Command::RenewCertificate { .. } => (15, Agent),
        Command::Recover { .. } => (16, Agent),
        Command::AllowRecovery { .. } => (17, Person),
        Command::IdentityCloned { .. } => (18, Collector),
        Command::RevokeCertificates { .. } => (19, Person),
        Command::CertificateSeen { .. } => (20, Collector),
        Command::LabelHost { .. } => (21, Person),
        Command::RetireHost { .. } => (22, Person),
        Command::HostHeard(_) => (23, Agent),
        Command::HostSilent { .. } => (24, Collector),
        Command::SeriesRefused { .. } => (25, Collector),
        Command::SeriesTaken { .. } => (26, Collector),
        Command::ClockStepped { .. } => (27, Agent),
        Command::ClockSkewed { .. } => (28, Collector),
        Command::CreateToken(_) => (29, Person),
        Command::CreatePrincipal { .. } => (30, Person),
        Command::RevokePrincipal { .. } => (31, Person),
        Command::CreateConsumer { .. } => (32, Person),
        Command::AckFeed { .. } => (33, Person),
        Command::Sealed(_) => (34, Collector),
        Command::CollectorStands { .. } => (35, Collector),
        Command::AuthorityFound(_) => (36, Collector),
        Command::BeginRotation(_) => (37, Person),
        Command::CancelRotation => (38, Person),
        Command::SwitchRotation { .. } => (39, Person),
        Command::FinishRotation { .. } => (40, Person),
        Command::BundleReported { .. } => (41, Agent),
        Command::ConsumerFilter { .. } => (42, Person),
        Command::JournalFound(_) => (43, Collector),
        Command::AcceptLoss { .. } => (44, Person),
        Command::StoreRestored => (45, Collector),
    }
}
const COMMANDS: usize = 46;

fn authority(n: u128) -> NewAuthority {
    NewAuthority {
        certificate_pem: format!("pem-{n}"),
        sha256: digest(n),
        not_before: at(-60),
        not_after: at(10_000_000),
    }
}

/// A history in which every command comes up and changes something, with its seconds.
fn history() -> Vec<(i64, Command)> {
    let (slow, quick) = (rule("slow", 600, 0), rule("quick", 0, 0));
    let lane = |lane, seq| Place { lane, ..place(seq) };
    let sealed = Sealed { samples_from: 5, ..Sealed::default() };
    let ann = || "ann".to_owned();
    vec![
        (
            0,
            Command::CreatePrincipal {
                name: ann(),
                role: Role::Admin,
                secret_sha256: digest(50),
                expires_at: None,
            },
        ),
        (0, Command::CreateConsumer { name: "pager".into(), owner: ann(), at_seq: 0 }),
        (0, Command::AckFeed { consumer: "pager".into(), seq: 1 }),
        (0, Command::ConsumerFilter { consumer: "pager".into(), filter: 7 }),
        (0, Command::CreateToken(token(1, Env::Prod, "*"))),
        (0, Command::Enrol(enrolment(1, "web-1"))),
        (0, Command::HostHeard(heard(1))),
        (
            0,
            Command::RenewCertificate {
                agent: agent(1),
                shown: Some("serial-1".into()),
                certificate: certificate(2),
            },
        ),
        (0, Command::LabelHost { agent: agent(1), labels: labels(&[("team", "bank")]) }),
        (1, Command::AuthorityFound(authority(11))),
        (2, Command::BeginRotation(authority(12))),
        (3, Command::CancelRotation),
        (4, Command::BeginRotation(authority(13))),
        (5, Command::SwitchRotation { strand: Some(1), overlap: Duration::ZERO }),
        (6, Command::BundleReported { agent: agent(1), sha256: digest(14) }),
        (7, Command::FinishRotation { strand: Some(1) }),
        (10, evaluation(&slow, 1, 10, 1, &[("sda", "warning")])),
        (100, Command::RowsMissing { agent: Some(agent(1)), from: at(10), to: at(100), samples_seq: 2 }),
        (100, evaluation(&quick, 1, 100, 2, &[("sda", "warning")])),
        (110, Command::Acknowledge(on(1, "on it"))),
        (111, Command::Note(on(1, "the fan"))),
        (112, Command::Unacknowledge(on(1, ""))),
        (113, Command::Resolve { on: on(1, "cleaned"), code: "fixed".into() }),
        (120, Command::HoleOpened { agent: agent(1), from: at(100), samples_seq: 3 }),
        (
            130,
            Command::HoleClosed(Filled {
                agent: agent(1),
                at: at(130),
                samples_seq: 4,
                ended: Vec::new(),
                active: Vec::new(),
            }),
        ),
        (140, evaluation(&rule("kept", 0, 0), 1, 140, 5, &[("sda", "warning")])),
        (150, evaluation(&rule("kept", 0, 0), 1, 150, 6, &[])),
        (150 + 60, Command::Tick),
        (220, Command::RulesChanged { rule_ids: BTreeSet::new() }),
        (230, Command::JobStarted { run: run_start(1, "backup", 230), place: place(1) }),
        (240, Command::JobEnded { run: run_end(1, "backup", 230, 240, 1), place: place(2) }),
        (
            250,
            Command::GapRecorded {
                gap: GapRecord {
                    agent: agent(1),
                    epoch: place(3).epoch,
                    lane: Lane::Outcomes,
                    first: 4,
                    last: 5,
                    reason: "evicted".into(),
                },
                place: place(3),
            },
        ),
        (
            260,
            Command::HostEventNoted {
                agent: agent(1),
                what: "boot".into(),
                at: at(255),
                step_ms: 0,
                place: lane(Lane::State, 1),
            },
        ),
        (270, Command::ClockStepped { agent: agent(1), clock_offset_ms: 60_000 }),
        (271, Command::ClockSkewed { agent: agent(1), off_by_ms: Some(60_000) }),
        (
            272,
            Command::SeriesRefused {
                agent: agent(1),
                series: 9,
                label: "uuid".into(),
                metric: "orders".into(),
            },
        ),
        (273, Command::SeriesTaken { agent: agent(1) }),
        (280, Command::HostSilent { agent: agent(1), since: at(270) }),
        (281, Command::IdentityCloned { agent: agent(1), seen: "two of them".into() }),
        (282, Command::AllowRecovery { agent: agent(1) }),
        (
            283,
            Command::Recover {
                agent: agent(1),
                proof_sha256: certificate(2).key_sha256,
                certificate: NewCertificate { authority: 3, ..certificate(3) },
            },
        ),
        (284, Command::Sealed(sealed)),
        (285, Command::CertificateSeen { which: "front".into(), from: at(0), to: at(290) }),
        (
            286,
            Command::CollectorStands {
                matter: Matter::Disk,
                instance: "collector-1".into(),
                trouble: Some("it is full".into()),
            },
        ),
        (287, Command::RevokeCertificates { agent: agent(1), reason: "stolen".into() }),
        (288, Command::RetireHost { agent: agent(1), reason: "sold".into() }),
        (
            289,
            Command::CreatePrincipal {
                name: "bob".into(),
                role: Role::Admin,
                secret_sha256: digest(51),
                expires_at: None,
            },
        ),
        (290, Command::RevokePrincipal { name: "bob".into() }),
        (291, Command::JournalFound(Findings { open: vec![(3, 4)], ..Findings::default() })),
        (292, Command::AcceptLoss { first: 3, last: 4 }),
        (293, Command::StoreRestored),
    ]
}

// Cases: C-X6 (partly)
#[test]
fn every_command_that_changes_something_leaves_an_event_with_its_actor() {
    let mut desk = Desk::default();
    let mut seen = BTreeSet::new();
    for (now, command) in history() {
        desk.now = now;
        let (number, giver) = numbered(&command);
        seen.insert(number);
        let actor = match giver {
            Person => Actor::Principal("ann".into()),
            Agent => Actor::Agent(agent(1)),
            Collector => Actor::System,
        };
        let before = desk.state.records();
        let events =
            desk.ask_as(&actor, command.clone()).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
        assert!(!events.is_empty() && desk.state.records() != before, "it changes nothing: {command:?}");
        assert!(events.iter().any(|event| event.actor == actor), "nothing says who: {command:?}: {events:?}");
        let strangers = events.iter().find(|event| event.actor != actor && event.actor != Actor::System);
        assert!(strangers.is_none(), "by somebody else: {command:?}: {strangers:?}");
    }
    assert_eq!(seen, (0..COMMANDS).collect(), "a command is missing in the history");
}
