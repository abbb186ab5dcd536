//! Tokens, certificates, authorities, principals, consumers.

use tocsin_shared::access::{Certificate, CertificateAuthority, Consumer, JoinToken, Principal, TokenUse};

use super::{InvalidMessage, Number, digest, labels_in, labels_out, parse, time, time_in, time_out};
use crate::pb;

impl From<&JoinToken> for pb::JoinToken {
    fn from(token: &JoinToken) -> Self {
        let JoinToken {
            id,
            secret_sha256,
            env,
            labels,
            host_pattern,
            created_at,
            created_by,
            expires_at,
            used,
        } = token;
        Self {
            id: id.clone(),
            secret_sha256: secret_sha256.to_vec(),
            env: env.number(),
            labels: labels_out(labels),
            host_pattern: host_pattern.clone(),
            created_at_ms: created_at.as_millis(),
            created_by: created_by.clone(),
            expires_at_ms: expires_at.as_millis(),
            used: used.as_ref().map(|TokenUse { agent, at, key_sha256 }| pb::TokenUse {
                agent: agent.to_string(),
                at_ms: at.as_millis(),
                key_sha256: key_sha256.to_vec(),
            }),
        }
    }
}

impl TryFrom<pb::JoinToken> for JoinToken {
    type Error = InvalidMessage;
    fn try_from(token: pb::JoinToken) -> Result<Self, InvalidMessage> {
        let pb::JoinToken {
            id,
            secret_sha256,
            env,
            labels,
            host_pattern,
            created_at_ms,
            created_by,
            expires_at_ms,
            used,
        } = token;
        Ok(Self {
            id,
            secret_sha256: digest("token.secret_sha256", secret_sha256)?,
            env: Number::from_number(env)?,
            labels: labels_in(labels),
            host_pattern,
            created_at: time(created_at_ms),
            created_by,
            expires_at: time(expires_at_ms),
            used: used.map(TryInto::try_into).transpose()?,
        })
    }
}

impl TryFrom<pb::TokenUse> for TokenUse {
    type Error = InvalidMessage;
    fn try_from(used: pb::TokenUse) -> Result<Self, InvalidMessage> {
        let pb::TokenUse { agent, at_ms, key_sha256 } = used;
        Ok(Self {
            agent: parse("token.used.agent", &agent)?,
            at: time(at_ms),
            key_sha256: digest("token.used.key_sha256", key_sha256)?,
        })
    }
}

impl From<&Certificate> for pb::Certificate {
    fn from(certificate: &Certificate) -> Self {
        let Certificate {
            serial,
            agent,
            generation,
            key_sha256,
            not_before,
            not_after,
            revoked_at,
            authority,
        } = certificate;
        Self {
            serial: serial.clone(),
            agent: agent.to_string(),
            generation: *generation,
            key_sha256: key_sha256.to_vec(),
            not_before_ms: not_before.as_millis(),
            not_after_ms: not_after.as_millis(),
            revoked_at_ms: time_out(*revoked_at),
            authority: *authority,
        }
    }
}

impl TryFrom<pb::Certificate> for Certificate {
    type Error = InvalidMessage;
    fn try_from(certificate: pb::Certificate) -> Result<Self, InvalidMessage> {
        let pb::Certificate {
            serial,
            agent,
            generation,
            key_sha256,
            not_before_ms,
            not_after_ms,
            revoked_at_ms,
            authority,
        } = certificate;
        Ok(Self {
            serial,
            agent: parse("certificate.agent", &agent)?,
            generation,
            key_sha256: digest("certificate.key_sha256", key_sha256)?,
            not_before: time(not_before_ms),
            not_after: time(not_after_ms),
            revoked_at: time_in(revoked_at_ms),
            authority: authority.max(1),
        })
    }
}

impl From<&CertificateAuthority> for pb::CertificateAuthority {
    fn from(authority: &CertificateAuthority) -> Self {
        let CertificateAuthority {
            number,
            certificate_pem,
            sha256,
            not_before,
            not_after,
            state,
            state_since,
        } = authority;
        Self {
            number: *number,
            certificate_pem: certificate_pem.clone(),
            sha256: sha256.to_vec(),
            not_before_ms: not_before.as_millis(),
            not_after_ms: not_after.as_millis(),
            state: state.number(),
            state_since_ms: state_since.as_millis(),
        }
    }
}

impl TryFrom<pb::CertificateAuthority> for CertificateAuthority {
    type Error = InvalidMessage;
    fn try_from(authority: pb::CertificateAuthority) -> Result<Self, InvalidMessage> {
        let pb::CertificateAuthority {
            number,
            certificate_pem,
            sha256,
            not_before_ms,
            not_after_ms,
            state,
            state_since_ms,
        } = authority;
        Ok(Self {
            number,
            certificate_pem,
            sha256: digest("authority.sha256", sha256)?,
            not_before: time(not_before_ms),
            not_after: time(not_after_ms),
            state: Number::from_number(state)?,
            state_since: time(state_since_ms),
        })
    }
}

impl From<&Principal> for pb::Principal {
    fn from(principal: &Principal) -> Self {
        let Principal { name, role, secret_sha256, created_at, expires_at, revoked_at } = principal;
        Self {
            name: name.clone(),
            role: role.number(),
            secret_sha256: secret_sha256.to_vec(),
            created_at_ms: created_at.as_millis(),
            expires_at_ms: time_out(*expires_at),
            revoked_at_ms: time_out(*revoked_at),
        }
    }
}

impl TryFrom<pb::Principal> for Principal {
    type Error = InvalidMessage;
    fn try_from(principal: pb::Principal) -> Result<Self, InvalidMessage> {
        let pb::Principal { name, role, secret_sha256, created_at_ms, expires_at_ms, revoked_at_ms } =
            principal;
        Ok(Self {
            name,
            role: Number::from_number(role)?,
            secret_sha256: digest("principal.secret_sha256", secret_sha256)?,
            created_at: time(created_at_ms),
            expires_at: time_in(expires_at_ms),
            revoked_at: time_in(revoked_at_ms),
        })
    }
}

impl From<&Consumer> for pb::Consumer {
    fn from(consumer: &Consumer) -> Self {
        let Consumer { name, owner, acked_seq, created_at, acked_at, filter } = consumer;
        Self {
            name: name.clone(),
            owner: owner.clone(),
            acked_seq: *acked_seq,
            created_at_ms: created_at.as_millis(),
            acked_at_ms: time_out(*acked_at),
            filter: *filter,
        }
    }
}

impl From<pb::Consumer> for Consumer {
    fn from(consumer: pb::Consumer) -> Self {
        let pb::Consumer { name, owner, acked_seq, created_at_ms, acked_at_ms, filter } = consumer;
        let (created_at, acked_at) = (time(created_at_ms), time_in(acked_at_ms));
        Self { name, owner, acked_seq, created_at, acked_at, filter }
    }
}
