//! Who may come in: join tokens, agents' certificates, named credentials, feed consumers.
//!
//! Secrets are here as SHA-256 digests only; the secret itself is shown once, to whom it is for.

use crate::identity::{AgentId, Env};
use crate::labels::Labels;
use crate::time::Timestamp;

/// A join token: lets one host enrol. Its key is `id`.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinToken {
    /// 16 hex digits, not secret.
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    pub env: Env,
    pub labels: Labels,
    /// A pattern with `*` that the host's name must match.
    pub host_pattern: String,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Timestamp,
    /// The enrolment it was used for: a token works once, or again for the same key within ten minutes.
    pub used: Option<TokenUse>,
}

/// The one enrolment of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenUse {
    pub agent: AgentId,
    pub at: Timestamp,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub key_sha256: [u8; 32],
}

/// A certificate of an agent. Its key is `serial`. Only certificates that stand here unrevoked are let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// Hex of the 128-bit serial.
    pub serial: String,
    pub agent: AgentId,
    /// 1 at enrolment, one more at each renewal.
    pub generation: u32,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub key_sha256: [u8; 32],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// The number of the authority that signed it; 1 for those of a time when there was only one.
    pub authority: u32,
}

/// Where a certificate authority stands. At most one is incoming, one issuing and one outgoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthorityState {
    /// Trusted, and signs nothing yet: agents learn of it.
    Incoming,
    /// Signs.
    Issuing,
    /// Signed before; what it signed is trusted still.
    Outgoing,
    /// Nobody trusts it any more.
    Retired,
}

impl AuthorityState {
    /// Whether what it signs is taken.
    pub const fn is_trusted(self) -> bool {
        !matches!(self, Self::Retired)
    }
}

/// A certificate authority of this collector. Its key is `number`; its private key is in no record.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateAuthority {
    /// From 1, one more for each.
    pub number: u32,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// SHA-256 of the certificate (DER).
    pub sha256: [u8; 32],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub state: AuthorityState,
    /// When the state last changed.
    pub state_since: Timestamp,
}

/// What a named credential may do. Deny by default; the table is `authorise`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Viewer,
    Responder,
    Operator,
    Admin,
    /// A paging tool: may read the feed and move its own cursor, nothing else.
    Consumer,
    /// A program that pushes samples: remote write and OTLP, nothing else.
    Writer,
}

impl Role {
    /// The word people and config use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Responder => "responder",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Consumer => "consumer",
            Self::Writer => "writer",
        }
    }
}

/// A person or a tool with a bearer credential. Its key is `name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the credential.
    pub secret_sha256: [u8; 32],
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// A consumer of the feed and how far it has come. Its key is `name`.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    pub name: String,
    /// The principal that owns it; no other may move it.
    pub owner: String,
    /// Every event up to here is acknowledged.
    pub acked_seq: u64,
    pub created_at: Timestamp,
    pub acked_at: Option<Timestamp>,
    /// A checksum of the filter it is read with; `None` before that is known.
    pub filter: Option<u32>,
}
