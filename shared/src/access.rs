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
