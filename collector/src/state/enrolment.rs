//! How a host comes in: a token is used once, a certificate is issued, renewed, revoked.
//!
//! A repeat of an enrolment with the same token and key within ten minutes is the answer that got lost: it drafts
//! nothing, and `State::token_by_digest(…).used` and `State::certificates_of` say what was issued.

use std::time::Duration;

use tocsin_shared::access::{Certificate, JoinToken, TokenUse};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::AgentId;

use super::command::{Enrolment, NewCertificate, Refusal};
use super::decide::Decision;
use super::{authority, recovery};
use crate::clock::tolerated_until;

/// How many hosts may be in service: ten times what one collector is made for.
pub(crate) const HOSTS_MAX: usize = 10_000;

/// How long a used token answers the same key again.
const REPEAT_WINDOW: Duration = Duration::from_secs(600);

pub(super) fn enrol(d: &mut Decision<'_>, enrolment: &Enrolment) -> Result<(), Refusal> {
    let token = d.state.token_by_digest(&enrolment.token_sha256);
    let token =
        token.ok_or_else(|| Refusal::denied("unknown join token: create one with `tocsin token create`"))?;
    if let Some(used) = &token.used {
        return repeated(d, token, used, enrolment);
    }
    admit(d, token, enrolment)?;
    let used = TokenUse { agent: enrolment.agent, at: d.now, key_sha256: enrolment.certificate.key_sha256 };
    d.by_actor(
        EventKind::TokenUsed,
        d.now,
        "",
        Subject::Token(JoinToken { used: Some(used), ..token.clone() }),
    );
    let host = Host {
        agent: enrolment.agent,
        instance: enrolment.instance.clone(),
        env: token.env,
        labels: token.labels.clone(),
        state: HostState::Pending,
        enrolled_at: d.now,
        state_since: d.now,
        last_seen: None,
        agent_version: enrolment.agent_version.clone(),
        boot_id: String::new(),
        clock_offset_ms: None,
        facts: enrolment.facts.clone(),
        recovered_at: None,
        recovery_until: None,
        bundle_sha256: None,
    };
    d.by_actor(EventKind::HostEnrolled, d.now, "", Subject::Host(host));
    issue(d, enrolment.agent, &enrolment.certificate);
    Ok(())
}

fn repeated(
    d: &Decision<'_>,
    token: &JoinToken,
    used: &TokenUse,
    enrolment: &Enrolment,
) -> Result<(), Refusal> {
    let same_host = d.state.host(used.agent).is_some_and(|host| host.instance == enrolment.instance);
    let same_key = used.key_sha256 == enrolment.certificate.key_sha256;
    if same_host && same_key && d.now.since(used.at) <= REPEAT_WINDOW {
        return Ok(());
    }
    Err(Refusal::denied(format!("join token {} was used already: create another one", token.id)))
}

fn admit(d: &Decision<'_>, token: &JoinToken, enrolment: &Enrolment) -> Result<(), Refusal> {
    let instance = &enrolment.instance;
    if token.expires_at <= d.now {
        return Err(Refusal::denied(format!("join token {} expired at {}", token.id, token.expires_at)));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if instance.is_empty() || instance.len() > 253 || !instance.chars().all(allowed) {
        return Err(Refusal::invalid(format!("not a host name: {instance:?}")));
    }
    if !matches(&token.host_pattern, instance) {
        return Err(Refusal::denied(format!(
            "join token {} is for {}, not {instance}",
            token.id, token.host_pattern
        )));
    }
    if d.state.host_by_instance(instance).is_some() || d.state.host(enrolment.agent).is_some() {
        return Err(Refusal::denied(format!(
            "host {instance} is in service already: choose another name, or, if this host takes its place, \
             `tocsin host retire {instance}` first"
        )));
    }
    if d.state.hosts.in_service() >= HOSTS_MAX {
        return Err(Refusal::Exhausted { what: "hosts".into(), max: HOSTS_MAX });
    }
    check_certificate(d, &enrolment.certificate)
}

/// A renewal by a certificate that was renewed already, with another key, is a second holder of one identity: no
/// certificate is issued and an alert says so. With the same key it asks for an answer that got lost.
pub(super) fn renew(
    d: &mut Decision<'_>,
    agent: AgentId,
    shown: Option<&str>,
    new: &NewCertificate,
) -> Result<(), Refusal> {
    let host = d.host_in_service(agent)?;
    recovery::check_not_cloned(d, host)?;
    let usable =
        |c: &Certificate| c.revoked_at.is_none() && tolerated_until(c.not_before, c.not_after) > d.now;
    if !d.state.certificates_of(agent).any(usable) {
        return Err(Refusal::denied(format!(
            "host {} has no certificate to renew: retire it, then enrol it again",
            host.instance
        )));
    }
    check_certificate(d, new)?;
    let newest = d.state.certificates_of(agent).next_back();
    let outdated =
        |serial: &str| newest.is_some_and(|n| n.serial != serial && n.key_sha256 != new.key_sha256);
    if let Some(serial) = shown.filter(|serial| outdated(serial)) {
        if !recovery::is_allowed(d, host) {
            let seen = format!("certificate {serial} asked for another successor than the one it has");
            return recovery::cloned(d, agent, &seen);
        }
        recovery::take_over(d, host, Some(serial));
    }
    issue(d, agent, new);
    Ok(())
}

pub(super) fn check_certificate(d: &Decision<'_>, new: &NewCertificate) -> Result<(), Refusal> {
    if d.state.certificate(&new.serial).is_some() {
        return Err(Refusal::AlreadyExists { what: format!("certificate {}", new.serial) });
    }
    if !authority::is_trusted(d.state, new.authority) {
        return Err(Refusal::denied("the authority that signed was retired meanwhile: ask again"));
    }
    if new.not_after <= d.now || new.not_after <= new.not_before {
        return Err(Refusal::invalid(format!("certificate {} would be expired already", new.serial)));
    }
    Ok(())
}

/// Drafts the next generation of an agent's certificate.
pub(super) fn issue(d: &mut Decision<'_>, agent: AgentId, new: &NewCertificate) {
    let generation = d.state.certificates_of(agent).next_back().map_or(1, |last| last.generation + 1);
    let NewCertificate { serial, key_sha256, not_before, not_after, authority } = new.clone();
    let certificate = Certificate {
        serial,
        agent,
        generation,
        key_sha256,
        not_before,
        not_after,
        revoked_at: None,
        authority,
    };
    d.by_actor(EventKind::CertificateIssued, d.now, "", Subject::Certificate(certificate));
}

/// Revokes every certificate of an agent.
pub(super) fn revoke(d: &mut Decision<'_>, agent: AgentId, reason: &str) -> Result<(), Refusal> {
    d.state.host(agent).ok_or_else(|| Refusal::not_found("agent", agent))?;
    let standing = d.state.certificates_of(agent).filter(|certificate| certificate.revoked_at.is_none());
    for certificate in standing {
        let revoked = Certificate { revoked_at: Some(d.now), ..certificate.clone() };
        d.by_actor(EventKind::CertificateRevoked, d.now, reason, Subject::Certificate(revoked));
    }
    Ok(())
}

/// Whether a pattern with `*` for any text matches a whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        // The leftmost place leaves the most for the parts that follow.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "web-1", true),
            ("web-1", "web-1", true),
            ("web-1", "web-10", false),
            ("web-*", "web-1", true),
            ("web-*", "db-1", false),
            ("*.prod", "web.prod", true),
            ("*.prod", "web.prod.evil", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("ab*ba", "aba", false),
            ("", "web", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} against {name}");
        }
    }
}
