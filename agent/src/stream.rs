//! ⇄ Spool to collector and acknowledgements back: connects, keeps a session while it lasts, waits, connects again.
//!
//! Promises: nothing is removed from the spool but by an acknowledgement of this session; no answer of a collector
//! ends the attempts or touches the identity; the identity is read anew for each connection, so a renewed certificate
//! is used from the next one on. What is sent when, `session` decides; how rows are made sendable, `backlog` does.

pub(crate) mod backlog;
mod backoff;
mod client;
pub(crate) mod records;
mod session;

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tocsin_proto::connect::{self, ConnectError, Endpoint};
use tocsin_shared::tls::TlsError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use self::backoff::Backoff;
pub(crate) use self::client::Greeting;
use self::session::SessionError;
use crate::explain::one_line;
use crate::identity::{Identity, IdentityDir, IdentityError};
use crate::keep::{Keeper, Stopping};
use crate::spool::SpoolError;

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

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
    #[error("cannot read the spool")]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
}

/// What the collector said at the end, or what became of the connection.
fn said(status: &tonic::Status) -> String {
    match (status.source(), status.code()) {
        // The answer to a certificate that is refused comes late in TLS 1.3, and looks like this.
        (_, Code::Cancelled) => {
            "the connection broke off; if it does each time, the certificate of this host may be revoked"
                .into()
        }
        (None, _) => format!("the collector ended the session: {}", status.message()),
        (Some(_), _) => format!("the connection broke off: {}", status.message()),
    }
}

impl Ended {
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
            Self::NotEnrolled | Self::Identity(_) | Self::Spool(SpoolError::AckBeyondEnd { .. }) => true,
            _ => false,
        }
    }
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
}

impl Stream {
    /// Streams until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut backoff, mut known) = (Backoff::default(), None);
        loop {
            let begun = Instant::now();
            let Some(ended) = stop.run_until_cancelled(self.once(&mut known)).await else { return };
            self.connected.store(false, Ordering::Relaxed);
            let Err(ended) = ended;
            if matches!(ended, Ended::Spool(SpoolError::Moved)) {
                tracing::info!("the records are kept in another place now: connecting anew");
                continue;
            }
            backoff.ended_after(begun.elapsed());
            let wait = backoff.next(ended.is_refusal(), rand::random());
            tracing::warn!(
                error = one_line(&ended),
                retry_in_s = wait.as_secs(),
                "not connected to the collector"
            );
            if matches!(ended, Ended::Stopping(_)) || stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn once(&self, known: &mut Option<Identity>) -> Result<std::convert::Infallible, Ended> {
        let channel = self.connect(known).await?;
        client::session(channel, &self.keeper, &self.greeting, &self.connected).await
    }

    /// The identity that is known counts while a disk that fails does not give it.
    async fn connect(&self, known: &mut Option<Identity>) -> Result<Channel, Ended> {
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
        let endpoint = self.collector.as_ref().unwrap_or(&identity.place.collector);
        Ok(connect::connect(endpoint, identity.tls()?, CONNECT_TIMEOUT).await?)
    }
}
