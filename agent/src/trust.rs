//! Whom this agent trusts as its collector, shared by the stream, which is told, and the renewal, which is asked.
//!
//! Promise: what is reported is what lies durable on this host's disk, never what was only heard. Not here: the files
//! (`identity`), when a certificate is due by itself (`renew`).

use std::path::PathBuf;
use std::time::Duration;

use tocsin_shared::secret::Sha256;
use tocsin_shared::tls;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::explain::one_line;
use crate::identity::{Identity, IdentityDir, IdentityError};

/// One agent's. `new` for one that is not enrolled yet.
#[derive(Debug)]
pub(crate) struct Trust {
    data_dir: PathBuf,
    /// The authorities on the disk; none before they were read once.
    kept: watch::Sender<Option<Sha256>>,
    /// When the certificate is to be renewed though it is not due.
    asked: watch::Sender<Option<Instant>>,
}

impl Trust {
    /// Nothing is known yet.
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, kept: watch::channel(None).0, asked: watch::channel(None).0 }
    }

    /// The authorities on the disk.
    pub(crate) fn kept(&self) -> Option<Sha256> {
        *self.kept.borrow()
    }

    /// An identity was read from the disk, or written to it. What a start finds is made durable before it is said.
    pub(crate) fn read(&self, identity: &Identity) {
        let settled = || IdentityDir::open(&self.data_dir).and_then(|dir| dir.settle());
        if self.kept().is_none()
            && let Err(error) = settled()
        {
            let error = one_line(&error);
            tracing::warn!(error, "whom this host trusts is not durable, and not reported");
            return;
        }
        self.kept.send_replace(identity.bundle_sha256());
    }

    /// Keeps the authorities that the collector gave. Once this returns they are durable and in force for the next
    /// connection. Those that are kept already cost the disk nothing.
    pub(crate) fn keep(&self, ca_pem: &str) -> Result<(), IdentityError> {
        if self.kept().is_some_and(|kept| tls::bundle_sha256(ca_pem).is_ok_and(|told| told == kept)) {
            return Ok(());
        }
        let dir = IdentityDir::open(&self.data_dir)?;
        if let Some(present) = dir.load()? {
            self.read(&dir.trusts(&present, ca_pem)?);
        }
        Ok(())
    }

    /// Asks for a renewal at some moment within this time; `random` is from 0 to 1. An earlier moment stays.
    pub(crate) fn ask(&self, within: Duration, random: f64) {
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        let at = Instant::now() + within.min(ASKED_WITHIN_MAX).mul_f64(random);
        self.asked.send_if_modified(|asked| {
            let earlier = asked.is_none_or(|known| at < known);
            if earlier {
                *asked = Some(at);
            }
            earlier
        });
    }

    /// Waits for this long, or until a renewal was asked for and its moment has come: then true, once.
    pub(crate) async fn asked_within(&self, wait: Duration) -> bool {
        let mut asked = self.asked.subscribe();
        let end = Instant::now() + wait;
        loop {
            let at = *asked.borrow_and_update();
            let now = Instant::now();
            if at.is_some_and(|at| at <= now) {
                self.asked.send_replace(None);
                return true;
            }
            if end <= now {
                return false;
            }
            let until = at.map_or(end, |at| at.min(end));
            tokio::select! {
                () = sleep(until.saturating_duration_since(now)) => {}
                changed = asked.changed() => if changed.is_err() { return false },
            }
        }
    }
}

/// A collector that asks for later than this need not ask: the certificate is renewed by itself before.
const ASKED_WITHIN_MAX: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: I6
    #[tokio::test(start_paused = true)]
    async fn a_renewal_comes_when_it_was_asked_for_and_once() {
        let trust = Trust::new(PathBuf::new());
        let seconds = Duration::from_secs;
        assert!(!trust.asked_within(seconds(5)).await, "nobody asked");
        for (within, random, expected) in [
            (100, 0.5, 50),
            (100, 0.0, 0),
            (100, 1.0, 100),
            (100, f64::NAN, 100),
            (100, 7.0, 100),
            (u64::MAX, 1.0, 7 * 86_400),
        ] {
            let begun = Instant::now();
            trust.ask(seconds(within), random);
            trust.ask(ASKED_WITHIN_MAX, 1.0);
            assert!(trust.asked_within(seconds(8 * 86_400)).await);
            assert_eq!(begun.elapsed().as_secs(), expected, "{within} {random}");
            assert!(!trust.asked_within(Duration::ZERO).await, "once");
        }
        // One that is asked for while it waits; and one that is further than it waits for.
        let waits = trust.asked_within(seconds(1_000));
        let asks = async { trust.ask(seconds(10), 1.0) };
        assert!(tokio::join!(waits, asks).0);
        trust.ask(seconds(100), 1.0);
        assert!(!trust.asked_within(seconds(60)).await && trust.asked_within(seconds(60)).await);
    }
}
