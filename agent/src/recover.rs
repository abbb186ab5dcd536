//! ⇄ A new certificate when the old one has run out: this host was away, or its collector was.
//!
//! On the front listener the agent proves that it holds the last key the collector knows of it, by a signature over
//! the collector's challenge and the request for a new key. Promises: the same as those of a renewal; an answer that
//! got lost is asked for again with the same new key; the spool is not touched.

use std::time::Duration;

use tocsin_proto::connect::{self, ConnectError};
use tocsin_proto::pb;
use tocsin_proto::pb::enrollment_service_client::EnrollmentServiceClient;
use tocsin_shared::recovery::common_name;
use tocsin_shared::tls::{self, TlsError};
use tokio::time::timeout;

use crate::identity::{Front, Identity, IdentityDir, IdentityError};

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// For each answer; the second one comes when it is durable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no new certificate yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    #[error(
        "this identity does not name the collector's front listener, so the host cannot recover by itself: add `front` and `front_pin` to identity.toml, or enrol it again"
    )]
    NoFront,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the collector does not let this host recover: {} ({})", .0.message(), .0.code())]
    Refused(tonic::Status),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Asks once, with the key of `present`.
pub(crate) async fn recover(dir: &IdentityDir, present: &Identity) -> Result<Identity, RecoverError> {
    let Front { endpoint, pin } = present.place.front.as_ref().ok_or(RecoverError::NoFront)?;
    let key = dir.pending_key()?;
    let channel = connect::connect(endpoint, tls::pinned(*pin)?, CONNECT_TIMEOUT).await?;
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
