//! ⇄ Spool to collector and acknowledgements back: connects, keeps a session while it lasts, waits, connects again.
//!
//! Promises: nothing is removed from the spool but by an acknowledgement of this session; no answer of a collector
//! ends the attempts or touches the identity; the identity is read anew for each connection, so a renewed certificate
//! is used from the next one on; an address that was good once is tried again when the name leads nowhere. What is sent when, `session` decides; how rows are made sendable, `backlog` does.

pub(crate) mod backlog;
mod client;
#[doc(hidden)]
pub mod fuzz;
pub(crate) mod records;
mod session;

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tocsin_proto::connect::{self, ConnectError, Endpoint, LastGood};
use tocsin_shared::backoff::{Attempt, Backoff};
use tocsin_shared::tls::TlsError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

pub(crate) use self::client::Greeting;
use self::session::SessionError;
use crate::explain::one_line;
use crate::identity::{Identity, IdentityDir, IdentityError};
use crate::keep::{Keeper, Stopping};
use crate::spool::SpoolError;
use crate::trust::Trust;

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// With what a collector that is busy says how long to stay away: gRPC's own word, in milliseconds.
const STAY_AWAY: &str = "grpc-retry-pushback-ms";

/// How often it is looked whether this host has been enrolled meanwhile.
const ENROLLED_LOOK: Duration = Duration::from_secs(2);
/// Into how much time the first renewals of hosts are spread that find another authority than theirs.
const RENEWAL_AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// The least time between two new epochs: each sends again what was not settled.
const EPOCHS_APART: Duration = Duration::from_secs(600);

/// Why a connection ended, or did not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("this host has no identity any more: enrol it again with `tocsin-agent enroll`")]
    NotEnrolled,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{}", said(.0))]
    Status(tonic::Status),
    #[error("the collector closed the session")]
    Closed,
    #[error("the collector does not keep the protocol: {0}")]
    Protocol(String),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("this spool was set back or copied: of its epoch the collector has what is not here ({0})")]
    OtherLife(String),
    #[error("cannot read the spool")]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// What the collector said at the end, or what became of the connection.
fn said(status: &tonic::Status) -> String {
    let why = status.message();
    // The answer to a certificate that is refused comes late in TLS 1.3, and looks like any end of a connection.
    match status.source().is_some() || status.code() == Code::Cancelled {
        true => format!(
            "the connection broke off ({why}); if it does each time, the certificate of this host may be revoked"
        ),
        false => format!("the collector ended the session: {why}"),
    }
}

/// How the collector's refusal begins when it has another record under a number of this spool.
const SEQ_CONFLICT: &str = "SEQ_CONFLICT";

impl Ended {
    /// Whether the collector has records of this epoch that are not of this spool.
    fn is_of_another_life(&self) -> bool {
        match self {
            Self::OtherLife(_) => true,
            Self::Status(status) => {
                status.code() == Code::FailedPrecondition && status.message().starts_with(SEQ_CONFLICT)
            }
            _ => false,
        }
    }

    /// Whether the collector is there and does not want us, so that asking often is of no use.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Status(status) => {
                matches!(
                    status.code(),
                    Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition
                )
            }
            Self::Connect(error) => matches!(
                error,
                ConnectError::CertificateRefused { .. }
                    | ConnectError::UnknownAuthority { .. }
                    | ConnectError::OtherCollector(_)
            ),
            Self::NotEnrolled
            | Self::Identity(_)
            | Self::OtherLife(_)
            | Self::Spool(SpoolError::AckBeyondEnd { .. } | SpoolError::OtherOwner { .. }) => true,
            _ => false,
        }
    }

    /// Whether one end does not know the other's authority.
    fn is_strange(&self) -> bool {
        use ConnectError::{CertificateRefused, UnknownAuthority};
        matches!(self, Self::Connect(UnknownAuthority { .. } | CertificateRefused { .. }))
    }
}

/// How long the collector asked us to stay away.
fn stay_away(ended: &Ended) -> Option<Duration> {
    let Ended::Status(status) = ended else { return None };
    let millis = status.metadata().get(STAY_AWAY)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// What the stream needs to run.
pub(crate) struct Stream {
    pub data_dir: PathBuf,
    /// Instead of the endpoint in the identity.
    pub collector: Option<Endpoint>,
    pub keeper: Keeper,
    pub greeting: Greeting,
    /// Whether a session is open, for the agent's own metrics.
    pub connected: Arc<AtomicBool>,
    /// Told when there is a new certificate: what was refused may be taken now.
    pub renewed: Arc<Notify>,
    pub trust: Arc<Trust>,
}

impl Stream {
    /// Streams until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut backoff, last_good, mut known) = (Backoff::default(), Arc::default(), None);
        let mut new_epoch_at: Option<Instant> = None;
        if !self.wait_for_identity(&stop).await {
            return;
        }
        loop {
            let Some((ended, lasted)) = stop.run_until_cancelled(self.once(&last_good, &mut known)).await
            else {
                return;
            };
            self.connected.store(false, Ordering::Relaxed);
            if matches!(ended, Ended::Spool(SpoolError::Moved)) {
                tracing::info!("the records are kept in another place now: connecting anew");
                continue;
            }
            // Once is an accident. A collector that says it again and again is mistaken, and is waited out.
            if ended.is_of_another_life()
                && new_epoch_at.is_none_or(|at| at.elapsed() >= EPOCHS_APART)
                && let Ok(Ok(())) = self.keeper.current().begin_epoch().await
            {
                new_epoch_at = Some(Instant::now());
                let epoch = self.keeper.current().epoch();
                tracing::warn!(error = one_line(&ended), %epoch, "a new epoch begins; what is not settled is sent again");
                continue;
            }
            if ended.is_strange() {
                // The collector may have another authority since: a renewal finds out, and recovers if need be.
                self.trust.ask(RENEWAL_AFTER_REFUSAL, rand::random());
            }
            let (refused, asked) = (ended.is_refusal(), stay_away(&ended));
            let wait = backoff.next(Attempt { lasted, refused, asked }, rand::random());
            let (error, retry_in_s) = (one_line(&ended), wait.as_secs());
            if refused {
                // Time alone will not mend it, so it has to be seen.
                tracing::error!(error, retry_in_s, "the collector and this host do not go together");
            } else {
                tracing::warn!(error, retry_in_s, "not connected to the collector");
            }
            let again = async {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = self.renewed.notified() => {}
                }
            };
            if matches!(ended, Ended::Stopping(_)) || stop.run_until_cancelled(again).await.is_none() {
                return;
            }
        }
    }

    /// Before this host is enrolled there is nobody to talk to. False when told to stop.
    async fn wait_for_identity(&self, stop: &CancellationToken) -> bool {
        let missing = || matches!(IdentityDir::open(&self.data_dir).and_then(|dir| dir.load()), Ok(None));
        while missing() {
            if stop.run_until_cancelled(sleep(ENROLLED_LOOK)).await.is_none() {
                return false;
            }
        }
        true
    }

    /// One connection to its end: why it ended, and how long it lasted after its handshake.
    async fn once(
        &self,
        last_good: &Arc<LastGood>,
        known: &mut Option<Identity>,
    ) -> (Ended, Option<Duration>) {
        let channel = match self.connect(last_good, known).await {
            Ok(channel) => channel,
            Err(ended) => return (ended, None),
        };
        let begun = Instant::now();
        let Err(ended) =
            client::session(channel, &self.keeper, (&self.greeting, &self.trust), &self.connected).await;
        (ended, Some(begun.elapsed()))
    }

    /// The identity that is known counts while a disk that fails does not give it.
    async fn connect(
        &self,
        last_good: &Arc<LastGood>,
        known: &mut Option<Identity>,
    ) -> Result<Channel, Ended> {
        let loaded = IdentityDir::open(&self.data_dir).and_then(|dir| dir.load());
        let identity = match (loaded, &*known) {
            (Ok(identity), _) => identity.ok_or(Ended::NotEnrolled)?,
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(known)) => {
                tracing::warn!(error = one_line(&error), "the identity cannot be read; the last one is used");
                known.clone()
            }
        };
        *known = Some(identity.clone());
        self.trust.read(&identity);
        self.keeper.current().claim(identity.place.agent).await??;
        let endpoint = self.collector.as_ref().unwrap_or(&identity.place.collector);
        Ok(connect::connect_again(endpoint, identity.tls()?, CONNECT_TIMEOUT, last_good).await?)
    }
}
