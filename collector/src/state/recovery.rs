//! How a host comes back whose certificate ran out, and what happens when two hosts show one identity.
//!
//! Promises: an agent recovers by its last registered key once in 30 days, and once more when an operator allows it;
//! never when it is revoked or retired. The alert `IdentityCloned` is the quarantine: while it fires the host's
//! sessions and renewals are refused and nothing of either copy is taken; an operator ends it with the same permission.
//! A certificate of an authority that signs no more is as good as run out: its holder may have missed the change.
//! Not here: the proof of a key (`identity::proof`), how a clone is seen (`ingest::clone`).

use std::time::Duration;

use tocsin_shared::access::Certificate;
use tocsin_shared::alert::{AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;

use super::command::{NewCertificate, Refusal};
use super::decide::Decision;
use super::{State, authority, enrolment, presence};
use crate::alert::{self, Raised};

/// The source of the alert about a cloned identity.
const CLONED: &str = "host/cloned";

/// One recovery in this time needs nobody: more of them are a host that someone should look at.
const AUTOMATIC_EVERY: Duration = Duration::from_secs(30 * 86_400);

/// How long an operator's permission waits for the host: agents that were refused ask every ten minutes at least.
const ALLOWED_FOR: Duration = Duration::from_secs(86_400);

/// Whether nothing may be taken of an agent, because two hosts have its identity.
pub(crate) fn is_cloned(state: &State, agent: AgentId) -> bool {
    state.alert(&cloned_key(agent)).is_some_and(|alert| alert.condition == Condition::Firing)
}

/// What a copy of a cloned identity is told.
pub(crate) fn cloned_words(instance: &str) -> String {
    format!(
        "cloned identity: two hosts show that of {instance}, and nothing is taken of either; give one of them its own \
         with `tocsin-agent enroll --split`, then `tocsin host allow-recovery {instance}`"
    )
}

pub(super) fn check_not_cloned(d: &Decision<'_>, host: &Host) -> Result<(), Refusal> {
    if is_cloned(d.state, host.agent) { Err(Refusal::denied(cloned_words(&host.instance))) } else { Ok(()) }
}

fn cloned_key(agent: AgentId) -> String {
    alert::dedup_key(AlertSource::Host, CLONED, Some(agent), &Labels::empty())
}

/// Whether an operator's permission stands.
pub(super) fn is_allowed(d: &Decision<'_>, host: &Host) -> bool {
    host.recovery_until.is_some_and(|until| d.now < until)
}

/// Two hosts show one identity: raises the alert, which is the quarantine. `seen` names both.
pub(super) fn cloned(d: &mut Decision<'_>, agent: AgentId, seen: &str) -> Result<(), Refusal> {
    let host = d.host_in_service(agent)?;
    if is_cloned(d.state, agent) {
        return Ok(());
    }
    let summary = format!("two hosts show the identity of {}", host.instance);
    let description = format!("{seen}; {}", cloned_words(&host.instance));
    let raised = Raised {
        source: AlertSource::Host,
        source_id: CLONED.into(),
        identity: Labels::empty(),
        labels: presence::alert_labels(host, "IdentityCloned", Severity::Critical),
        annotations: Labels::new([("summary", summary), ("description", description)]),
        severity: Severity::Critical,
        env: host.env,
        agent: Some(agent),
        since: d.now,
        at: d.now,
        value: 1.0,
    };
    alert::raise_now(d, raised, None);
    Ok(())
}

/// An operator lets a host come back.
pub(super) fn allow(d: &mut Decision<'_>, agent: AgentId) -> Result<(), Refusal> {
    let host = d.host_in_service(agent)?;
    if newest(d, agent).is_none_or(|newest| newest.revoked_at.is_some()) {
        return Err(revoked(host));
    }
    let host = Host { recovery_until: Some(d.now.plus(ALLOWED_FOR)), ..host.clone() };
    let cause = d.by_actor(EventKind::HostRecoveryAllowed, d.now, "", Subject::Host(host));
    alert::settle(d, &cloned_key(agent), ResolveReason::Source, d.now, Some(cause));
    Ok(())
}

/// A certificate for an agent that proved the key with this digest.
pub(super) fn recover(
    d: &mut Decision<'_>,
    agent: AgentId,
    proof: &[u8; 32],
    new: &NewCertificate,
) -> Result<(), Refusal> {
    let host = d.host_in_service(agent)?;
    check_not_cloned(d, host)?;
    let newest =
        newest(d, agent).filter(|newest| newest.revoked_at.is_none()).ok_or_else(|| revoked(host))?;
    let allowed = is_allowed(d, host);
    // The request proves the new key. One that is registered already is that of an answer that got lost.
    let repeated = newest.key_sha256 == new.key_sha256;
    let held = |c: &Certificate| c.key_sha256 == *proof && (repeated || c.revoked_at.is_none());
    let held = d.state.certificates_of(agent).any(held);
    if !(held && (allowed || repeated || newest.key_sha256 == *proof)) {
        return Err(ask_operator(host, "this is not the last key that is known of"));
    }
    enrolment::check_certificate(d, new)?;
    let of_use = newest.not_after > d.now && authority::is_current(d.state, newest);
    if of_use && !allowed {
        if !repeated {
            let until = newest.not_after;
            return Err(Refusal::denied(format!("the certificate is valid until {until}: renew it")));
        }
    } else {
        if !allowed && host.recovered_at.is_some_and(|at| d.now.since(at) < AUTOMATIC_EVERY) {
            return Err(ask_operator(host, "30 days have not passed since the last recovery of"));
        }
        take_over(d, host, None);
    }
    enrolment::issue(d, agent, new);
    Ok(())
}

/// The one that asks is the host from now on: the permission is used up and no certificate but `kept` stays.
pub(super) fn take_over(d: &mut Decision<'_>, host: &Host, kept: Option<&str>) {
    let recovered = Host { recovered_at: Some(d.now), recovery_until: None, ..host.clone() };
    d.by_actor(EventKind::HostRecovered, d.now, "", Subject::Host(recovered));
    let now = d.now;
    let standing =
        d.state.certificates_of(host.agent).filter(|c| c.revoked_at.is_none() && c.not_after > now);
    for certificate in standing.filter(|certificate| Some(certificate.serial.as_str()) != kept) {
        let revoked = Certificate { revoked_at: Some(d.now), ..certificate.clone() };
        d.by_actor(EventKind::CertificateRevoked, d.now, "the host recovered", Subject::Certificate(revoked));
    }
}

fn newest<'a>(d: &Decision<'a>, agent: AgentId) -> Option<&'a Certificate> {
    d.state.certificates_of(agent).next_back()
}

fn revoked(host: &Host) -> Refusal {
    let Host { instance, .. } = host;
    Refusal::denied(format!("the certificates of {instance} are revoked: retire it, then enrol it again"))
}

fn ask_operator(host: &Host, why: &str) -> Refusal {
    let Host { instance, .. } = host;
    Refusal::denied(format!(
        "{why} {instance}; an operator may allow it: `tocsin host allow-recovery {instance}`"
    ))
}

#[cfg(test)]
mod tests;
