//! Join tokens and named credentials: made and revoked.

use tocsin_shared::access::{JoinToken, Principal, Role};
use tocsin_shared::event::{EventKind, Subject};
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::command::{NewToken, Refusal};
use super::decide::Decision;

/// How many principals there may be, revoked ones too: everyone in a large company's support.
pub(crate) const PRINCIPALS_MAX: usize = 10_000;

/// How long a name may be, as in DNS.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// How many labels a host may have, and how long their names and values may be.
pub(crate) const HOST_LABELS_MAX: usize = 32;
pub(crate) const LABEL_BYTES_MAX: usize = 256;

pub(super) fn create_token(d: &mut Decision<'_>, new: &NewToken) -> Result<(), Refusal> {
    if d.state.token(&new.id).is_some() || d.state.token_by_digest(&new.secret_sha256).is_some() {
        return Err(Refusal::AlreadyExists { what: format!("token {}", new.id) });
    }
    if new.host_pattern.is_empty() || new.host_pattern.len() > 253 {
        return Err(Refusal::invalid(
            "a token needs a host pattern of at most 253 bytes: web-*, or * for any name",
        ));
    }
    check_future(d, new.expires_at)?;
    check_labels(&new.labels)?;
    let token = JoinToken {
        id: new.id.clone(),
        secret_sha256: new.secret_sha256,
        env: new.env,
        labels: new.labels.clone(),
        host_pattern: new.host_pattern.clone(),
        created_at: d.now,
        created_by: d.actor.to_string(),
        expires_at: new.expires_at,
        used: None,
    };
    d.by_actor(EventKind::TokenCreated, d.now, "", Subject::Token(token));
    Ok(())
}

/// A revoked name may be given a new credential: that is how one is replaced.
pub(super) fn create_principal(
    d: &mut Decision<'_>,
    name: &str,
    role: Role,
    secret_sha256: &[u8; 32],
    expires_at: Option<Timestamp>,
) -> Result<(), Refusal> {
    check_name("principal", name)?;
    let old = d.state.principal(name);
    if old.is_some_and(|old| old.revoked_at.is_none()) || d.state.principal_by_digest(secret_sha256).is_some()
    {
        return Err(Refusal::AlreadyExists { what: format!("principal {name}") });
    }
    if old.is_none() && d.state.principals().count() >= PRINCIPALS_MAX {
        return Err(Refusal::Exhausted { what: "principals".into(), max: PRINCIPALS_MAX });
    }
    if let Some(expires_at) = expires_at {
        check_future(d, expires_at)?;
    }
    let principal = Principal {
        name: name.into(),
        role,
        secret_sha256: *secret_sha256,
        created_at: d.now,
        expires_at,
        revoked_at: None,
    };
    d.by_actor(EventKind::PrincipalCreated, d.now, "", Subject::Principal(principal));
    Ok(())
}

/// The last administrator stays: nobody could make another.
pub(super) fn revoke_principal(d: &mut Decision<'_>, name: &str) -> Result<(), Refusal> {
    let principal = d.state.principal(name).ok_or_else(|| Refusal::not_found("principal", name))?;
    if principal.revoked_at.is_some() {
        return Ok(());
    }
    let works = |p: &&Principal| p.revoked_at.is_none() && p.expires_at.is_none_or(|end| end > d.now);
    let mut other_admins =
        d.state.principals().filter(works).filter(|p| p.role == Role::Admin && p.name != name);
    if principal.role == Role::Admin && other_admins.next().is_none() {
        return Err(Refusal::denied(format!("{name} is the last administrator: create another one first")));
    }
    let revoked = Principal { revoked_at: Some(d.now), ..principal.clone() };
    d.by_actor(EventKind::PrincipalRevoked, d.now, "", Subject::Principal(revoked));
    Ok(())
}

fn check_future(d: &Decision<'_>, expires_at: Timestamp) -> Result<(), Refusal> {
    if expires_at <= d.now {
        return Err(Refusal::invalid(format!(
            "it would be expired already: {expires_at} is not after {}",
            d.now
        )));
    }
    Ok(())
}

/// Names of principals and consumers: `a-z`, `0-9`, `.`, `_`, `@` and `-`.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '@' | '-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(allowed) {
        return Err(Refusal::invalid(format!(
            "not a {what}'s name: {name:?}; it has 1 to {NAME_BYTES_MAX} of a-z, 0-9, '.', '_', '@' and '-'"
        )));
    }
    Ok(())
}

/// Labels an operator may put on a host: none of those the collector sets itself.
pub(super) fn check_labels(labels: &Labels) -> Result<(), Refusal> {
    const RESERVED: [&str; 6] = ["instance", "job", "env", "alertname", "severity", "job_name"];
    if labels.len() > HOST_LABELS_MAX {
        return Err(Refusal::Exhausted { what: "labels on a host".into(), max: HOST_LABELS_MAX });
    }
    for (name, value) in labels.iter() {
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Refusal::invalid(format!("not a label name: {name:?}; use letters, digits and '_'")));
        }
        if RESERVED.contains(&name) || name.starts_with("__") {
            return Err(Refusal::invalid(format!(
                "the label {name} is set by the collector: choose another name"
            )));
        }
        if name.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            return Err(Refusal::invalid(format!("the label {name} is longer than {LABEL_BYTES_MAX} bytes")));
        }
        if value.chars().any(char::is_control) {
            return Err(Refusal::invalid(format!("the label {name} has control characters in its value")));
        }
    }
    Ok(())
}
