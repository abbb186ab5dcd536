//! Rotations, step by step, as an operator asks for them and as hosts follow.

use tocsin_shared::event::Actor;
use tocsin_shared::identity::Env;

use super::*;
use crate::journal::ledger::Registry;
use crate::state::Command;
use crate::state::command::NewCertificate;
use crate::state::testing::{Desk, agent, at, certificate, digest, heard};

/// Certificates last 100 s in these stories, and both authorities are trusted for twice that.
const OVERLAP: Duration = Duration::from_secs(200);

fn new(n: u128) -> NewAuthority {
    NewAuthority {
        certificate_pem: format!("pem-{n}"),
        sha256: digest(n),
        not_before: at(-60),
        not_after: at(10_000_000),
    }
}

fn begin() -> Command {
    Command::BeginRotation(new(2))
}

fn switch(strand: Option<u32>) -> Command {
    Command::SwitchRotation { strand, overlap: OVERLAP }
}

fn finish(strand: Option<u32>) -> Command {
    Command::FinishRotation { strand }
}

/// A host says that it trusts these authorities.
fn trusts(n: u128, authorities: &[u128]) -> Command {
    let mut digests: Vec<Sha256> = authorities.iter().map(|n| digest(*n)).collect();
    digests.sort_unstable();
    Command::BundleReported { agent: agent(n), sha256: sha256(&digests.concat()) }
}

/// A host gets its next certificate from an authority; `round` tells them apart.
fn renewed(n: u128, round: u128, authority: u32) -> Command {
    let serial = format!("serial-{n}-{round}");
    let key_sha256 = digest(10_000 * n + round);
    let certificate = NewCertificate { serial, key_sha256, authority, ..certificate(n) };
    Command::RenewCertificate { agent: agent(n), shown: None, certificate }
}

/// A desk with an authority and two hosts that it signed for.
fn desk() -> Desk {
    let mut desk = Desk::default();
    assert_eq!(desk.done(Command::AuthorityFound(new(1))), ["authority.added"]);
    for n in [1, 2] {
        desk.enrol(n, &format!("web-{n}"), Env::Prod).unwrap();
        desk.done(Command::HostHeard(heard(n)));
    }
    desk
}

const SWITCHED: &str = "authority.outgoing authority.issuing";

// Cases: I6
#[test]
fn no_step_leaves_a_host_behind_unless_their_number_is_confirmed() {
    // Each line: the second, the command, and the events or a word of the refusal.
    type Step = (i64, Command, &'static str);
    let both = |n| trusts(n, &[1, 2]);
    let stories: [(&str, Vec<Step>); 9] = [
        (
            "as it should be",
            vec![
                (0, begin(), "authority.added"),
                (0, begin(), ""),
                (1, both(1), "host.updated"),
                (2, both(1), ""),
                (3, both(2), "host.updated"),
                (199, switch(None), "switch from"),
                (200, switch(None), SWITCHED),
                (200, switch(None), ""),
                (
                    201,
                    finish(None),
                    "2 of the hosts still have a certificate of the old authority: web-1, web-2",
                ),
                (202, renewed(1, 1, 2), "certificate.issued"),
                (203, finish(None), "1 of the hosts still have a certificate of the old authority: web-2"),
                (204, renewed(2, 1, 2), "certificate.issued"),
                (205, finish(None), "authority.retired"),
                (206, finish(None), ""),
                (207, switch(None), "no rotation is under way"),
            ],
        ),
        (
            "one is away",
            vec![
                (0, begin(), "authority.added"),
                (1, both(1), "host.updated"),
                (
                    300,
                    switch(None),
                    "1 of the hosts have not reported that they trust the new authority: web-2",
                ),
                (300, switch(Some(2)), "`--strand 2` is not the number of hosts"),
                (300, switch(Some(0)), "which is 1: web-2"),
                (300, switch(Some(1)), SWITCHED),
                (301, renewed(1, 1, 2), "certificate.issued"),
                (
                    302,
                    finish(None),
                    "web-2; bring them back or retire them, or leave them behind with `--strand 1`",
                ),
                (302, finish(Some(1)), "authority.retired"),
            ],
        ),
        (
            "before its time, with everybody there",
            vec![
                (0, begin(), "authority.added"),
                (1, both(1), "host.updated"),
                (1, both(2), "host.updated"),
                (2, switch(Some(1)), "which is 0"),
                (2, switch(Some(0)), SWITCHED),
            ],
        ),
        (
            "what was reported is what counts, and what was reported last",
            vec![
                (0, begin(), "authority.added"),
                (1, trusts(1, &[2]), "host.updated"),
                (1, both(2), "host.updated"),
                (300, switch(None), "web-1"),
                (301, both(1), "host.updated"),
                (302, trusts(2, &[1]), "host.updated"),
                (303, switch(None), "web-2"),
                (304, both(2), "host.updated"),
                (305, Command::HostHeard(heard(1)), "host.updated"),
                (306, switch(None), "web-1"),
            ],
        ),
        (
            "retired and revoked hosts are in nobody's way",
            vec![
                (0, begin(), "authority.added"),
                (
                    1,
                    Command::RetireHost { agent: agent(1), reason: String::new() },
                    "host.retired certificate.revoked",
                ),
                (
                    1,
                    Command::RevokeCertificates { agent: agent(2), reason: String::new() },
                    "certificate.revoked",
                ),
                (300, switch(None), SWITCHED),
                (300, finish(None), "authority.retired"),
            ],
        ),
        (
            "taken back, and begun again with another one",
            vec![
                (0, Command::CancelRotation, ""),
                (0, begin(), "authority.added"),
                (1, Command::CancelRotation, "authority.retired"),
                (2, Command::CancelRotation, ""),
                (3, switch(Some(2)), "no rotation is under way"),
                (4, begin(), "was here before"),
                (5, Command::BeginRotation(new(3)), "authority.added"),
                (6, switch(Some(2)), SWITCHED),
                (7, Command::CancelRotation, "signs already"),
            ],
        ),
        (
            "one rotation at a time",
            vec![
                (0, begin(), "authority.added"),
                (1, finish(None), "signs nothing yet"),
                (1, Command::BeginRotation(new(3)), ""),
                (2, switch(Some(2)), SWITCHED),
                (3, Command::BeginRotation(new(3)), "`tocsin authority rotate finish` first"),
                (4, finish(Some(2)), "authority.retired"),
                (5, Command::BeginRotation(new(1)), "was here before"),
                (6, Command::BeginRotation(new(3)), "authority.added"),
            ],
        ),
        (
            "what a retired authority signed comes too late",
            vec![
                (0, begin(), "authority.added"),
                (1, switch(Some(2)), SWITCHED),
                (2, renewed(1, 1, 1), "certificate.issued"),
                (3, finish(Some(2)), "authority.retired"),
                (4, renewed(1, 2, 1), "was retired meanwhile"),
                (5, renewed(1, 3, 2), "certificate.issued"),
            ],
        ),
        (
            "an authority that is not valid",
            vec![
                (0, Command::BeginRotation(NewAuthority { not_before: at(1), ..new(2) }), "and now it is"),
                (0, Command::BeginRotation(NewAuthority { not_after: at(0), ..new(2) }), "and now it is"),
                (0, Command::AuthorityFound(new(9)), ""),
            ],
        ),
    ];
    for (story, steps) in stories {
        let mut desk = desk();
        for (at, (now, command, expected)) in steps.into_iter().enumerate() {
            desk.now = now;
            let got = match desk.ask(command) {
                Ok(events) => {
                    assert!(events.iter().all(|event| event.actor == Actor::Principal("ann".into())));
                    events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>().join(" ")
                }
                Err(refusal) => refusal.to_string(),
            };
            let is_refusal =
                !got.is_empty() && !got.contains('.') || expected.contains(' ') && expected != SWITCHED;
            let fits = if is_refusal { got.contains(expected) } else { got == expected };
            assert!(fits && expected.is_empty() == got.is_empty(), "{story}, step {at}: {got:?}");
        }
        let again =
            State::restore(desk.state.last_seq(), desk.state.evaluated_through(), desk.state.records());
        assert_eq!(again, desk.state, "{story}: a checkpoint says the same");
    }
}

// Cases: I6
#[test]
fn a_certificate_is_let_in_as_long_as_its_authority_is_trusted() {
    let mut desk = desk();
    let admits = |desk: &Desk, n: u128| {
        let registry = Registry::of(&desk.state);
        (registry.admits(&format!("serial-{n}"), agent(n), at(0)), registry.keeps(agent(n), at(0)))
    };
    desk.done(begin());
    desk.done(switch(Some(2)));
    desk.done(renewed(1, 1, 2));
    assert_eq!([admits(&desk, 1), admits(&desk, 2)], [(true, true); 2], "both are trusted");
    desk.done(finish(Some(1)));
    assert_eq!(admits(&desk, 1), (false, true), "its next one is taken");
    assert_eq!(admits(&desk, 2), (false, false), "its open stream ends, too");
}

// Cases: I6, I4
#[test]
fn a_host_that_was_left_behind_recovers_by_its_key_though_its_certificate_is_valid() {
    let recover = |serial: &str, key| {
        let certificate =
            NewCertificate { serial: serial.into(), key_sha256: digest(key), authority: 2, ..certificate(2) };
        Command::Recover { agent: agent(2), proof_sha256: digest(1_002), certificate }
    };
    for finished in [false, true] {
        let mut desk = desk();
        desk.done(begin());
        let refusal = desk.ask(recover("early", 7)).unwrap_err().to_string();
        assert!(refusal.contains("renew it"), "{refusal}");
        desk.done(switch(Some(2)));
        if finished {
            desk.done(finish(Some(2)));
        }
        let got = desk.done(recover("late", 7));
        assert_eq!(got, ["host.recovered", "certificate.revoked", "certificate.issued"], "{finished}");
        assert_eq!(desk.done(recover("later", 7)), ["certificate.issued"], "the answer got lost");
        assert!(desk.ask(recover("again", 8)).is_err(), "it is valid now");
    }
}

#[test]
fn what_agents_report_is_what_the_state_knows() {
    let (one, two) = (rcgen_pem("one"), rcgen_pem("two"));
    let mut desk = Desk::default();
    for (pem, command) in
        [(&one, Command::AuthorityFound as fn(_) -> _), (&two, Command::BeginRotation as fn(_) -> _)]
    {
        let der = tocsin_shared::tls::certificates(pem, "test").unwrap();
        let certificate_pem = pem.clone();
        desk.done(command(NewAuthority { certificate_pem, sha256: sha256(&der[0]), ..new(0) }));
    }
    for bundle in [format!("{one}{two}"), format!("{two}\n\n{one}{two}")] {
        let said = tocsin_shared::tls::bundle_sha256(&bundle).unwrap();
        assert_eq!(said, bundle_sha256(&desk.state), "in any order, also twice");
    }
    assert_ne!(tocsin_shared::tls::bundle_sha256(&one).unwrap(), bundle_sha256(&desk.state));
}

fn rcgen_pem(name: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

#[test]
fn only_the_last_retired_authorities_are_kept_and_no_number_comes_again() {
    let mut desk = desk();
    for n in 2..30 {
        desk.done(Command::BeginRotation(new(n)));
        desk.done(Command::CancelRotation);
    }
    let numbers: Vec<u32> = desk.state.authorities().map(|authority| authority.number).collect();
    assert_eq!(numbers, [1, 22, 23, 24, 25, 26, 27, 28, 29]);
}
