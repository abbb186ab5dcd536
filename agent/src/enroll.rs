//! ⇄ `tocsin-agent enroll`: from a join token to an identity on disk.
//!
//! Promises: the collector is the one that the token was made for, or nothing is sent; the key never leaves the host
//! and is on disk before anyone hears of it, so a lost answer costs nothing: the same command again brings the same
//! certificate; an identity that is there is never replaced.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tocsin_proto::connect::{self, ConnectError, Endpoint};
use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::pb::enrollment_service_client::EnrollmentServiceClient;
use tocsin_shared::identity::{AgentId, Env};
use tocsin_shared::secret::{InvalidSecret, JoinSecret};
use tocsin_shared::tls::{self, TlsError};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::identity::{Front, IdentityDir, IdentityError, InvalidPlace, PendingKey, Place};
use crate::keep::life;
use crate::spool::{self, Spool, SpoolError};
use crate::tick::Reading;

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// For the answer, which the collector gives when it is durable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What to enrol with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collector's front listener.
    pub collector: Endpoint,
    /// The join token's text.
    pub token: String,
    pub data_dir: PathBuf,
    /// Instead of the system's.
    pub hostname: Option<String>,
    /// For a copy of another host: puts the identity that came with it aside, and keeps the spool as its own.
    pub split: bool,
}

/// Who this host is from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    pub agent: AgentId,
    /// The name that the collector knows it by.
    pub instance: String,
    pub env: Env,
    /// Where it streams to.
    pub collector: Endpoint,
}

/// Why this host is not enrolled. Nothing that was there is lost.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("this host is already enrolled as agent {agent} with {collector}; run the agent, or move {} away to enrol anew", dir.display())]
    Already { agent: AgentId, collector: Endpoint, dir: PathBuf },
    #[error("the token cannot be used: {0}")]
    Token(#[from] InvalidSecret),
    #[error("{0}; the token is unused, try again")]
    Connect(#[from] ConnectError),
    #[error("the collector refuses to enrol this host: {reason}")]
    Refused { reason: String },
    #[error("the collector could not enrol this host: {reason}; run the same command again")]
    Failed { reason: String },
    #[error("no answer within {} s; run the same command again, it brings the same certificate", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the collector's answer is not usable: {0}")]
    Answer(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("this host has no name; give one with --hostname")]
    NoHostname,
}

/// Enrols this host. May be repeated until it succeeds.
pub async fn enroll(options: Options) -> Result<Enrolled, EnrollError> {
    let Options { collector, token, data_dir, hostname, split } = options;
    let token: JoinSecret = token.parse()?;
    let dir = IdentityDir::open(&data_dir)?;
    if split {
        part(&dir, &data_dir)?;
    }
    if let Some(identity) = dir.load()? {
        let Place { agent, collector, .. } = identity.place;
        return Err(EnrollError::Already { agent, collector, dir: data_dir.join("identity") });
    }
    let hostname = hostname.or_else(own_name).ok_or(EnrollError::NoHostname)?;
    let key = dir.pending_key()?;
    let request = request(&token, &key, hostname)?;
    let channel = connect::connect(&collector, tls::pinned(token.ca_pin())?, CONNECT_TIMEOUT).await?;
    let answer = ask(channel, request).await?;
    let (mut place, enrolled) = read(&answer, &collector)?;
    place.front = Some(Front { endpoint: collector, pin: token.ca_pin() });
    dir.enrolled(key, &answer.certificate_pem, &answer.ca_pem, place)?;
    Ok(enrolled)
}

/// What is not delivered goes out under the next identity and a new epoch; the old identity is kept beside. The spool
/// comes first: whatever stops this, no record is sent as another host's.
fn part(dir: &IdentityDir, data_dir: &Path) -> Result<(), EnrollError> {
    if dir.load()?.is_none() {
        return Ok(()); // It was parted before, and only the enrolment is missing.
    }
    // The bounds do not matter for what is done here, and nothing is removed by them.
    let bounds = spool::Config { max_bytes: u64::MAX / 2, reserve_bytes: 0, ..spool::Config::default() };
    let mut spool = Spool::open(&data_dir.join("spool"), bounds)?;
    life::begin_epoch(&mut spool)?;
    spool.set_owner(None)?;
    drop(spool);
    let aside = dir.set_aside(Reading::now().wall)?;
    tracing::info!(aside = %aside.display(), "the old identity is set aside");
    Ok(())
}

fn own_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    (!name.is_empty()).then_some(name)
}

fn request(token: &JoinSecret, key: &PendingKey, hostname: String) -> Result<pb::EnrollRequest, EnrollError> {
    Ok(pb::EnrollRequest {
        token_id: id_bytes(&token.id()),
        token_secret: token.expose_secret().to_vec(),
        csr: key.csr_der()?,
        hostname,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The bytes of a token's id, which is written in hexadecimal.
fn id_bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

async fn ask(channel: Channel, request: pb::EnrollRequest) -> Result<pb::EnrollResponse, EnrollError> {
    let mut client = EnrollmentServiceClient::new(channel);
    let answer = timeout(ANSWER_TIMEOUT, client.enroll(request)).await.map_err(|_| EnrollError::TimedOut)?;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let reason = reason(&status);
        match status.code() {
            Code::Unavailable
            | Code::Internal
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::ResourceExhausted
            | Code::Cancelled => EnrollError::Failed { reason },
            _ => EnrollError::Refused { reason },
        }
    })
}

/// What the collector said, or what became of the connection. The listener for agents ends it at once.
fn reason(status: &tonic::Status) -> String {
    let said = status.message();
    if status.source().is_none() {
        return said.to_owned();
    }
    format!(
        "the connection broke off ({said}); is this the collector's front listener, not the one for agents"
    )
}

/// What an answer says, as far as it is not in the certificate.
fn read(answer: &pb::EnrollResponse, asked: &Endpoint) -> Result<(Place, Enrolled), EnrollError> {
    let pb::EnrollResponse {
        agent,
        certificate_pem: _,
        ca_pem: _,
        agents_endpoint,
        cluster_id,
        instance,
        env,
    } = answer;
    let id = |field: &'static str, text: &str| {
        Uuid::try_parse(text).map_err(|_| InvalidPlace::Id { field, text: text.to_owned() }.to_string())
    };
    let agent = AgentId(id("agent", agent).map_err(EnrollError::Answer)?);
    let cluster = id("cluster_id", cluster_id).map_err(EnrollError::Answer)?;
    let collector = agents_place(agents_endpoint, asked)?;
    let env = Env::from_number(*env).map_err(|error| EnrollError::Answer(error.to_string()))?;
    let place = Place { agent, cluster, collector: collector.clone(), front: None };
    Ok((place, Enrolled { agent, instance: instance.clone(), env, collector }))
}

/// `HOST:PORT`; an empty host is the one that we enrol with.
fn agents_place(text: &str, asked: &Endpoint) -> Result<Endpoint, EnrollError> {
    let text = match text.strip_prefix(':') {
        Some(port) => {
            Endpoint { host: asked.host.clone(), port: 1 }.to_string().trim_end_matches('1').to_owned() + port
        }
        None => text.to_owned(),
    };
    text.parse().map_err(|error: connect::InvalidEndpoint| EnrollError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_listener_is_found() {
        for (said, asked, found) in [
            (":9443", "collector.example.com:9444", Ok("collector.example.com:9443")),
            (":9443", "[::1]:9444", Ok("[::1]:9443")),
            (":9441", "10.0.0.11:9441", Ok("10.0.0.11:9441")),
            ("agents.example.com:1", "collector:9444", Ok("agents.example.com:1")),
            ("", "collector:9444", Err("names no port")),
            (":no", "collector:9444", Err("names no port")),
        ] {
            match (agents_place(said, &asked.parse().unwrap()), found) {
                (Ok(place), Ok(found)) => assert_eq!(place.to_string(), found, "{said}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{said}: {error}"),
                (got, _) => panic!("{said}: {got:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_work_is_said_before_anything_is_sent() {
        let data = tempfile::tempdir().unwrap();
        let token = JoinSecret::generate([7; 32]).unwrap().text();
        // Bound, so that nobody else gets the port, and never listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = Endpoint { host: "127.0.0.1".into(), port: socket.local_addr().unwrap().port() };
        let file = data.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (name, token, data_dir, says) in [
            ("a bad token", "tocsin-join-nonsense", data.path().to_owned(), "token cannot be used"),
            ("no collector", token.expose(), data.path().to_owned(), "refused the connection"),
            ("no directory", token.expose(), file.clone(), "file"),
        ] {
            let options = Options {
                collector: closed.clone(),
                token: token.into(),
                data_dir,
                hostname: None,
                split: false,
            };
            let error = enroll(options).await.unwrap_err();
            assert!(error.to_string().contains(says), "{name}: {error}");
        }
        let dir = IdentityDir::open(data.path()).unwrap();
        let key = dir.pending_key().unwrap().sha256();
        assert_eq!(dir.pending_key().unwrap().sha256(), key, "the key of the failed attempt is used again");
    }

    #[test]
    fn a_tokens_id_travels_as_bytes() {
        let token = JoinSecret::generate([0; 32]).unwrap();
        let bytes = id_bytes(&token.id());
        assert_eq!(bytes.len(), 8);
        assert_eq!(tocsin_shared::secret::hex(&bytes), token.id());
    }
}
