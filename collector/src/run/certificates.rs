//! What the listeners show and trust: issued at the start, renewed in time, exchanged when the authority changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::event::Actor;
use tocsin_shared::private_file;
use tocsin_shared::secret::Secret;
use tocsin_shared::time::Timestamp;

use super::servers::names;
use super::{Parts, StartError, setup};
use crate::clock::now;
use crate::config::Config;
use crate::identity::authorities::Current;
use crate::identity::ca::{Authority, SERVER_BACKDATED, SERVER_LIFETIME};
use crate::listen::certificate::ServerCertificate;
use crate::listen::tls::TrustedAuthorities;
use crate::state::Command;
use crate::state::upkeep::AUTHORITY;

/// How often the collector's own certificates are looked at.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// The certificates of the two listeners, and whom the agents' one trusts.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) agents: Arc<ServerCertificate>,
    pub(super) front: Arc<ServerCertificate>,
    pub(super) trusted: Arc<TrustedAuthorities>,
    config: Arc<Config>,
    front_addr: SocketAddr,
}

impl Shown {
    /// For a start.
    pub(super) fn new(parts: &Parts, front_addr: SocketAddr) -> Result<Self, StartError> {
        let (config, current) = (parts.config.clone(), parts.authorities.current());
        let front = match &config.front_certificate {
            None => issued(current.front(), &config)?,
            Some(_) => operators_certificate(&config)?,
        };
        let agents = issued(&current.issuing, &config)?;
        let trusted = TrustedAuthorities::new(&current.bundle_pem)
            .map_err(|error| StartError::other("set up TLS", error))?;
        Ok(Self { agents, front, trusted, config, front_addr })
    }

    /// Puts a change of the authorities in force: first who is trusted, then what is shown, then what tools on this
    /// host trust.
    pub(super) fn install(&self, current: &Current) -> Result<(), String> {
        self.trusted.replace(&current.bundle_pem).map_err(|error| error.to_string())?;
        self.renew_own(&self.agents, &current.issuing)?;
        if self.config.front_certificate.is_none() {
            self.renew_own(&self.front, current.front())?;
        }
        // The listeners have changed; a file that lags behind is no reason to say that they have not.
        if let Err(error) = setup::trust_in_credential(&self.config, &current.bundle_pem, self.front_addr) {
            tracing::error!(
                error,
                "credential.toml does not know the authorities of now: restart the collector"
            );
        }
        Ok(())
    }

    fn renew_own(&self, shown: &ServerCertificate, authority: &Authority) -> Result<(), String> {
        let issued =
            authority.issue_server(&names(&self.config), now()).map_err(|error| error.to_string())?;
        shown.replace(&issued.chain_pem, &issued.key_pem, now()).map_err(|error| error.to_string())
    }

    /// Replaces certificates in time: the own ones at half of their life, the operator's when its file is newer.
    pub(super) async fn renew(self, parts: Parts) {
        let mut check = tokio::time::interval(RENEWAL_CHECK);
        let mut changes = parts.authorities.changes();
        let mut due = async || {
            tokio::select! {
                _ = check.tick() => {}
                Ok(()) = changes.changed() => {}
            }
        };
        while parts.stop.run_until_cancelled(due()).await.is_some() {
            let current = parts.authorities.current();
            let is_own = self.config.front_certificate.is_none();
            self.renew_if_due("agents", &self.agents, &current.issuing);
            if is_own {
                self.renew_if_due("front", &self.front, current.front());
            } else if half_over(self.front.validity()) {
                self.read_again();
            }
            let (begin, end) = self.front.validity();
            let front = if is_own { since_issue((begin, end)) } else { (begin, end) };
            tell_validity(&parts, "agents", since_issue(self.agents.validity())).await;
            tell_validity(&parts, "front", front).await;
            let validity = (current.issuing.not_before(), current.issuing.not_after());
            tell_validity(&parts, AUTHORITY, validity).await;
        }
    }

    fn renew_if_due(&self, which: &str, shown: &ServerCertificate, authority: &Authority) {
        if now() < shown.validity().1.minus(SERVER_LIFETIME / 2) {
            return;
        }
        if let Err(error) = self.renew_own(shown, authority) {
            tracing::error!(
                error,
                which,
                "the collector's certificate could not be renewed; it is tried again"
            );
        }
    }

    fn read_again(&self) {
        let replaced =
            operators_files(&self.config).map_err(|error| error.to_string()).and_then(|(chain, key)| {
                self.front.replace(&chain, &key, now()).map_err(|error| error.to_string())
            });
        if let Err(error) = replaced {
            tracing::error!(error, "the front's certificate could not be read again; the old one stays");
        }
    }
}

fn issued(authority: &Authority, config: &Config) -> Result<Arc<ServerCertificate>, StartError> {
    let failed =
        |error: &dyn std::fmt::Display| StartError::other("issue the collector's own certificate", error);
    let issued = authority.issue_server(&names(config), now()).map_err(|error| failed(&error))?;
    ServerCertificate::issued(&issued, now()).map_err(|error| failed(&error))
}

fn operators_certificate(config: &Config) -> Result<Arc<ServerCertificate>, StartError> {
    let (chain, key) = operators_files(config)?;
    ServerCertificate::new(&chain, &key, now())
        .map_err(|error| StartError::other("use the front's certificate", error))
}

fn operators_files(config: &Config) -> Result<(String, Secret), StartError> {
    let failed =
        |error: &dyn std::fmt::Display| StartError::other("read the front's certificate and key", error);
    let (chain, key) = config.front_certificate.as_ref().ok_or_else(|| failed(&"none is configured"))?;
    let chain =
        std::fs::read_to_string(chain).map_err(|error| failed(&format!("{}: {error}", chain.display())))?;
    let text = private_file::read(key).map_err(|error| failed(&error))?;
    let key = text.ok_or_else(|| failed(&format!("{}: no such file", key.display())))?;
    Ok((chain, Secret::new(key)))
}

/// Lets the ledger raise or end the alert about a certificate that nobody renews.
async fn tell_validity(parts: &Parts, which: &str, (from, to): (Timestamp, Timestamp)) {
    let command = Command::CertificateSeen { which: which.to_owned(), from, to };
    if let Ok(Err(refusal)) = parts.ledger.submit(command, Actor::System).await {
        tracing::warn!(%refusal, which, "could not tell how long a certificate lasts");
    }
}

/// What counts of an own certificate's life: it begins long before its issue, for hosts whose clocks are late.
fn since_issue((from, to): (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    (from.plus(SERVER_BACKDATED).min(to), to)
}

fn half_over((from, to): (Timestamp, Timestamp)) -> bool {
    now() >= from.plus(to.since(from) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::upkeep::urgency;
    use tocsin_shared::severity::Severity;

    // Cases: I7
    #[test]
    fn an_own_certificate_is_told_of_only_when_its_renewal_failed() {
        let (day, issued) = (Duration::from_secs(86_400), Timestamp::from_millis(1_795_428_770_123));
        let validity = (issued.minus(SERVER_BACKDATED), issued.plus(SERVER_LIFETIME));
        for (days, expected) in [
            (0, None),
            (45, None), // It is renewed here.
            (46, Some(Severity::Info)),
            (68, Some(Severity::Warning)),
            (81, Some(Severity::Critical)),
        ] {
            let (from, to) = since_issue(validity);
            assert_eq!(urgency(from, to, issued.plus(day * days)), expected, "day {days}");
        }
    }
}
