//! A new certificate authority in the place of the old one, in steps that an operator asks for: begun (it is trusted),
//! switched to (it signs), finished (the old one is trusted no more), or taken back before it signed anything.
//!
//! Promises: at most one authority is incoming, one issuing, one outgoing; a step that leaves hosts behind is refused
//! and names them, unless their exact number is confirmed; a step that is repeated changes nothing. Whom an agent
//! trusts counts once it has reported it. Not here: keys and files (`identity::authorities`), what listeners show.

use std::time::Duration;

use tocsin_shared::access::{AuthorityState, Certificate, CertificateAuthority};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::AgentId;
use tocsin_shared::secret::{Sha256, hex, sha256};
use tocsin_shared::time::Timestamp;

use super::State;
use super::command::{NewAuthority, Refusal};
use super::decide::Decision;

/// How many hosts a refusal names; `tocsin authority show` names all of them.
const NAMED_MAX: usize = 20;

/// What all trusted authorities come to, as agents report it; see `tls::bundle_sha256`.
pub(crate) fn bundle_sha256(state: &State) -> Sha256 {
    let trusted = state.authorities().filter(|authority| authority.state.is_trusted());
    let mut digests: Vec<Sha256> = trusted.map(|authority| authority.sha256).collect();
    digests.sort_unstable();
    sha256(&digests.concat())
}

/// Which hosts stand in the way of a change, by name in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Followers {
    /// Hosts that count: in service, and not revoked, for those are out whoever signs.
    pub(crate) hosts: usize,
    /// Those whose agents have not reported the bundle.
    pub(crate) unreported: Vec<String>,
    /// Those whose newest certificate another authority signed than the issuing one.
    pub(crate) to_renew: Vec<String>,
}

impl Followers {
    pub(crate) fn of(state: &State) -> Self {
        let (bundle, mut followers) = (bundle_sha256(state), Self::default());
        for host in state.hosts().filter(|host| host.state != HostState::Retired) {
            let newest = state.certificates_of(host.agent).next_back();
            let Some(newest) = newest.filter(|newest| newest.revoked_at.is_none()) else { continue };
            followers.hosts += 1;
            if host.bundle_sha256 != Some(bundle) {
                followers.unreported.push(host.instance.clone());
            }
            if !is_current(state, newest) {
                followers.to_renew.push(host.instance.clone());
            }
        }
        followers.unreported.sort_unstable();
        followers.to_renew.sort_unstable();
        followers
    }
}

/// Whether what this authority signed is taken; all is in a state that knows of none.
pub(crate) fn is_trusted(state: &State, number: u32) -> bool {
    let mut known = state.authorities().peekable();
    known.peek().is_none() || known.any(|a| a.number == number && a.state.is_trusted())
}

/// Whether the authority that signs now signed a certificate.
pub(crate) fn is_current(state: &State, certificate: &Certificate) -> bool {
    standing(state, AuthorityState::Issuing).is_none_or(|issuing| issuing.number == certificate.authority)
}

/// The authority that stands so.
pub(crate) fn standing(state: &State, at: AuthorityState) -> Option<&CertificateAuthority> {
    state.authorities().find(|authority| authority.state == at && at != AuthorityState::Retired)
}

/// The authority that a collector without any record of one has.
pub(super) fn found(d: &mut Decision<'_>, new: &NewAuthority) {
    if d.state.authorities().next().is_none() {
        add(d, new, AuthorityState::Issuing);
    }
}

pub(super) fn begin(d: &mut Decision<'_>, new: &NewAuthority) -> Result<(), Refusal> {
    if standing(d.state, AuthorityState::Incoming).is_some() {
        return Ok(());
    }
    if let Some(old) = standing(d.state, AuthorityState::Outgoing) {
        let why = format!(
            "authority {} of the last rotation is still trusted: `tocsin authority rotate finish` first",
            old.number
        );
        return Err(Refusal::precondition(why));
    }
    if d.state.authorities().any(|known| known.sha256 == new.sha256) {
        let why =
            "this authority was here before: remove it from `authority/incoming` or put another one there";
        return Err(Refusal::precondition(why));
    }
    if d.now < new.not_before || d.now >= new.not_after {
        return Err(Refusal::invalid(format!(
            "the new authority is valid from {} to {}, and now it is {}",
            new.not_before, new.not_after, d.now
        )));
    }
    add(d, new, AuthorityState::Incoming);
    Ok(())
}

fn add(d: &mut Decision<'_>, new: &NewAuthority, state: AuthorityState) {
    let NewAuthority { certificate_pem, sha256, not_before, not_after } = new.clone();
    let number = d.state.authorities().map(|known| known.number).max().unwrap_or(0) + 1;
    let authority = CertificateAuthority {
        number,
        certificate_pem,
        sha256,
        not_before,
        not_after,
        state,
        state_since: d.now,
    };
    d.by_actor(EventKind::AuthorityAdded, d.now, &hex(&sha256), Subject::Authority(authority));
}

/// Takes the incoming authority back.
pub(super) fn cancel(d: &mut Decision<'_>) -> Result<(), Refusal> {
    if let Some(old) = standing(d.state, AuthorityState::Outgoing) {
        let why = format!("the new authority signs already: retire authority {} with `finish`", old.number);
        return Err(Refusal::precondition(why));
    }
    if let Some(incoming) = standing(d.state, AuthorityState::Incoming) {
        change(d, incoming, AuthorityState::Retired, "cancelled");
    }
    Ok(())
}

/// Lets the incoming authority sign. `overlap` is how long both have to be trusted before that.
pub(super) fn switch(d: &mut Decision<'_>, strand: Option<u32>, overlap: Duration) -> Result<(), Refusal> {
    let incoming = standing(d.state, AuthorityState::Incoming);
    let (incoming, issuing) = match (incoming, standing(d.state, AuthorityState::Issuing)) {
        (Some(incoming), Some(issuing)) => (incoming, issuing),
        _ if standing(d.state, AuthorityState::Outgoing).is_some() => return Ok(()),
        _ => {
            let why = "no rotation is under way: `tocsin authority rotate begin` starts one";
            return Err(Refusal::precondition(why));
        }
    };
    let left = Followers::of(d.state).unreported;
    let from = incoming.state_since.plus(overlap);
    confirm(&left, "have not reported that they trust the new authority", strand)?;
    if strand.is_none() && d.now < from {
        return Err(Refusal::precondition(format!(
            "certificates of before this rotation may still be in use: switch from {from} on, or confirm now with \
             `--strand 0` that nobody is left behind"
        )));
    }
    let note = left_behind(&left);
    change(d, issuing, AuthorityState::Outgoing, &note);
    change(d, incoming, AuthorityState::Issuing, &note);
    Ok(())
}

/// Ends the trust in the outgoing authority.
pub(super) fn finish(d: &mut Decision<'_>, strand: Option<u32>) -> Result<(), Refusal> {
    if standing(d.state, AuthorityState::Incoming).is_some() {
        let why =
            "the new authority signs nothing yet: `tocsin authority rotate switch` first, or `cancel` it";
        return Err(Refusal::precondition(why));
    }
    let Some(outgoing) = standing(d.state, AuthorityState::Outgoing) else { return Ok(()) };
    let left = Followers::of(d.state).to_renew;
    confirm(&left, "still have a certificate of the old authority", strand)?;
    change(d, outgoing, AuthorityState::Retired, &left_behind(&left));
    Ok(())
}

fn change(d: &mut Decision<'_>, authority: &CertificateAuthority, state: AuthorityState, note: &str) {
    let kind = match state {
        AuthorityState::Incoming => EventKind::AuthorityAdded,
        AuthorityState::Issuing => EventKind::AuthorityIssuing,
        AuthorityState::Outgoing => EventKind::AuthorityOutgoing,
        AuthorityState::Retired => EventKind::AuthorityRetired,
    };
    let authority = CertificateAuthority { state, state_since: d.now, ..authority.clone() };
    d.by_actor(kind, d.now, note, Subject::Authority(authority));
}

/// Whether nobody is left behind, or exactly as many as was confirmed.
fn confirm(left: &[String], why: &str, strand: Option<u32>) -> Result<(), Refusal> {
    let number = left.len();
    match strand {
        None if number == 0 => Ok(()),
        None => Err(Refusal::precondition(format!(
            "{number} of the hosts {why}: {}; bring them back or retire them, or leave them behind with \
             `--strand {number}`",
            named(left)
        ))),
        Some(strand) if strand as usize == number => Ok(()),
        Some(strand) => Err(Refusal::precondition(format!(
            "`--strand {strand}` is not the number of hosts that would be left behind, which is {number}{}",
            if left.is_empty() { String::new() } else { format!(": {}", named(left)) }
        ))),
    }
}

fn named(hosts: &[String]) -> String {
    let first = hosts[..hosts.len().min(NAMED_MAX)].join(", ");
    match hosts.len().saturating_sub(NAMED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn left_behind(left: &[String]) -> String {
    if left.is_empty() { String::new() } else { format!("leaves behind: {}", named(left)) }
}

/// An agent has these authorities on its disk and trusts them.
pub(super) fn reported(d: &mut Decision<'_>, agent: AgentId, bundle: &Sha256) -> Result<(), Refusal> {
    let old = d.host_in_service(agent)?;
    if old.bundle_sha256 != Some(*bundle) {
        let host = Host { bundle_sha256: Some(*bundle), ..old.clone() };
        d.by_actor(EventKind::HostUpdated, d.now, "", Subject::Host(host));
    }
    Ok(())
}

/// When the incoming authority may sign without a confirmation.
pub(crate) fn switch_from(state: &State, overlap: Duration) -> Option<Timestamp> {
    standing(state, AuthorityState::Incoming).map(|incoming| incoming.state_since.plus(overlap))
}

#[cfg(test)]
mod tests;
