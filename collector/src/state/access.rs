//! Tokens, certificates, authorities, principals and consumers of the state. What is forgotten here is not let in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tocsin_shared::access::{
    AuthorityState, Certificate, CertificateAuthority, Consumer, JoinToken, Principal,
};
use tocsin_shared::identity::AgentId;
use tocsin_shared::time::Timestamp;

use super::index::Index;

/// How many join tokens stay, the newest: one for each host of the largest fleet enrolled at once.
pub(crate) const TOKENS_MAX: usize = 10_000;

/// How many certificates of an agent stay, the newest: one in use, one being renewed, and some to look back at.
pub(crate) const CERTIFICATES_PER_AGENT_MAX: usize = 4;

/// How many retired authorities stay, the newest: to look back at, and so that none of them comes back unnoticed.
pub(crate) const AUTHORITIES_RETIRED_MAX: usize = 8;

/// Who may come in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Access {
    tokens: BTreeMap<String, JoinToken>,
    tokens_by_digest: HashMap<[u8; 32], String>,
    tokens_by_age: BTreeSet<(Timestamp, String)>,
    certificates: BTreeMap<String, Certificate>,
    certificates_by_agent: Index<AgentId, (u32, String)>,
    authorities: BTreeMap<u32, CertificateAuthority>,
    principals: BTreeMap<String, Principal>,
    principals_by_digest: HashMap<[u8; 32], String>,
    consumers: BTreeMap<String, Consumer>,
}

impl Access {
    pub(crate) fn put_token(&mut self, token: JoinToken) {
        self.tokens_by_digest.insert(token.secret_sha256, token.id.clone());
        self.tokens_by_age.insert((token.created_at, token.id.clone()));
        self.tokens.insert(token.id.clone(), token);
        if self.tokens_by_age.len() > TOKENS_MAX
            && let Some((_, oldest)) = self.tokens_by_age.pop_first()
            && let Some(oldest) = self.tokens.remove(&oldest)
        {
            self.tokens_by_digest.remove(&oldest.secret_sha256);
        }
    }

    pub(crate) fn put_certificate(&mut self, certificate: Certificate) {
        let agent = certificate.agent;
        self.certificates_by_agent.insert(agent, (certificate.generation, certificate.serial.clone()));
        self.certificates.insert(certificate.serial.clone(), certificate);
        if self.certificates_by_agent.count(&agent) > CERTIFICATES_PER_AGENT_MAX {
            let oldest = self.certificates_by_agent.get(&agent).next().cloned();
            if let Some(oldest) = oldest {
                self.certificates_by_agent.remove(&agent, &oldest);
                self.certificates.remove(&oldest.1);
            }
        }
    }

    pub(crate) fn put_authority(&mut self, authority: CertificateAuthority) {
        self.authorities.insert(authority.number, authority);
        let retired = self.authorities.values().filter(|known| known.state == AuthorityState::Retired);
        let retired: Vec<u32> = retired.map(|known| known.number).collect();
        if retired.len() > AUTHORITIES_RETIRED_MAX {
            self.authorities.remove(&retired[0]);
        }
    }

    pub(crate) fn put_principal(&mut self, principal: Principal) {
        if let Some(old) = self.principals.get(&principal.name) {
            self.principals_by_digest.remove(&old.secret_sha256);
        }
        self.principals_by_digest.insert(principal.secret_sha256, principal.name.clone());
        self.principals.insert(principal.name.clone(), principal);
    }

    pub(crate) fn put_consumer(&mut self, consumer: Consumer) {
        self.consumers.insert(consumer.name.clone(), consumer);
    }

    pub(crate) fn token(&self, id: &str) -> Option<&JoinToken> {
        self.tokens.get(id)
    }

    pub(crate) fn token_by_digest(&self, digest: &[u8; 32]) -> Option<&JoinToken> {
        self.tokens_by_digest.get(digest).and_then(|id| self.tokens.get(id))
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &JoinToken> {
        self.tokens.values()
    }

    pub(crate) fn certificate(&self, serial: &str) -> Option<&Certificate> {
        self.certificates.get(serial)
    }

    pub(crate) fn certificates_of(&self, agent: AgentId) -> impl DoubleEndedIterator<Item = &Certificate> {
        self.certificates_by_agent.get(&agent).filter_map(|(_, serial)| self.certificates.get(serial))
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.values()
    }

    pub(crate) fn authorities(&self) -> impl Iterator<Item = &CertificateAuthority> {
        self.authorities.values()
    }

    pub(crate) fn principal(&self, name: &str) -> Option<&Principal> {
        self.principals.get(name)
    }

    pub(crate) fn principal_by_digest(&self, digest: &[u8; 32]) -> Option<&Principal> {
        self.principals_by_digest.get(digest).and_then(|name| self.principals.get(name))
    }

    pub(crate) fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.principals.values()
    }

    pub(crate) fn consumer(&self, name: &str) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.consumers.values()
    }
}
