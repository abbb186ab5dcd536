//! ⇄ A new certificate when the old one is of no use: this host was away, or its collector was, or the collector has
//! another authority since.
//!
//! On the front listener the agent proves that it holds the last key the collector knows of it, by a signature over
//! the collector's challenge and the request for a new key. Promises: the same as those of a renewal; an answer that
//! got lost is asked for again with the same new key; the spool is not touched.

use std::path::Path;
use std::time::Duration;

use tocsin_proto::connect::{self, ConnectError, Endpoint};
use tocsin_proto::pb;
use tocsin_proto::pb::enrollment_service_client::EnrollmentServiceClient;
use tocsin_shared::recovery::common_name;
use tocsin_shared::secret::Sha256;
use tocsin_shared::tls::{self, TlsError};
use tokio::time::timeout;

use crate::identity::{Front, Identity, IdentityDir, IdentityError};

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// For each answer; the second one comes when it is durable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no new certificate yet.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(
        "this identity does not name the collector's front listener, so the host cannot recover by itself: add `front` and `front_pin` to identity.toml, or enrol it again"
    )]
    NoFront,
    #[error(transparent)]
    Connect(ConnectError),
    #[error(
        "the certificate authority of {0} is none that this host knows: if the collector got another one while this host was away, run `tocsin-agent recover --pin PIN` here with the pin that `tocsin authority show` says there; identity and spool stay as they are"
    )]
    OtherAuthority(Endpoint),
    #[error("this host has no identity: enrol it with `tocsin-agent enroll`")]
    NotEnrolled,
    #[error("the collector does not let this host recover: {} ({})", .0.message(), .0.code())]
    Refused(tonic::Status),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// `tocsin-agent recover`: trusts the front by a pin that a person brought here, from now on, and asks once. The agent
/// may run meanwhile: it uses the pin, too. `endpoint` is where the front listens, if not where it did.
pub async fn with_pin(
    data_dir: &Path,
    pin: Sha256,
    endpoint: Option<Endpoint>,
) -> Result<Identity, RecoverError> {
    let dir = IdentityDir::open(data_dir)?;
    let present = dir.load()?.ok_or(RecoverError::NotEnrolled)?;
    let known = present.place.front.as_ref().map(|front| front.endpoint.clone());
    let endpoint = endpoint.or(known).ok_or(RecoverError::NoFront)?;
    let present = dir.fronted(&present, Front { endpoint, pin })?;
    recover(&dir, &present).await
}

/// Asks once, with the key of `present`.
pub(crate) async fn recover(dir: &IdentityDir, present: &Identity) -> Result<Identity, RecoverError> {
    let Front { endpoint, pin } = present.place.front.as_ref().ok_or(RecoverError::NoFront)?;
    let key = dir.pending_key()?;
    // Since it enrolled it may have been told of other authorities; with one of them the front shows itself now.
    let mut pins = tls::pins(&present.authority_pem)?;
    pins.push(*pin);
    let connected = connect::connect(endpoint, tls::pinned_to(pins)?, CONNECT_TIMEOUT).await;
    let channel = connected.map_err(|error| match error {
        ConnectError::OtherCollector(endpoint) => RecoverError::OtherAuthority(endpoint),
        error => RecoverError::Connect(error),
    })?;
    let mut client = EnrollmentServiceClient::new(channel);
    let challenge = timeout(ANSWER_TIMEOUT, client.challenge(pb::ChallengeRequest {})).await;
    let challenge = challenge.map_err(|_| RecoverError::TimedOut)?.map_err(RecoverError::Refused)?;
    let pb::ChallengeResponse { nonce } = challenge.into_inner();
    let (agent, csr) = (present.place.agent, key.csr_der()?);
    let proof = present.proof_der(&common_name(&nonce, agent, &csr))?;
    let request = pb::RecoverRequest { agent: agent.to_string(), nonce, proof, csr };
    let answer = timeout(ANSWER_TIMEOUT, client.recover(request)).await;
    let answer = answer.map_err(|_| RecoverError::TimedOut)?.map_err(RecoverError::Refused)?;
    let pb::RecoverResponse { certificate_pem, ca_pem } = answer.into_inner();
    Ok(dir.renewed(key, &certificate_pem, &ca_pem, present)?)
}
