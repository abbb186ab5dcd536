//! Enrolment, renewal and recovery: certificates for hosts.
//!
//! The authority signs first and the ledger decides then: a certificate that was not recorded is let in nowhere.
//! Strangers are counted (`identity::throttle`), and cost a signature only with a token or key that is known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tocsin_proto::convert::Number;
use tocsin_proto::pb;
use tocsin_proto::pb::enrollment_service_server::EnrollmentService;
use tocsin_shared::event::{Actor, EventKind, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::secret::{NoRandomness, sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::clock::{self, now};
use crate::identity::authorise::Caller;
use crate::identity::authorities::Authorities;
use crate::identity::ca::Issued;
use crate::identity::proof::Challenges;
use crate::identity::throttle::Throttle;
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::listen::connection::Peer;
use crate::listen::limits::{Origin, origin};
use crate::samples::Store;
use crate::state::command::{Enrolment, NewCertificate};
use crate::state::{Command, Refusal, State, recovery};

/// Enrolments and renewals at a time: each costs a signature, and strangers may ask.
const AT_A_TIME: usize = 16;
/// A DNS name has at most this many bytes.
const HOSTNAME_BYTES_MAX: usize = 253;

/// The service on both listeners: Renew on the agents', the others on the front.
#[derive(Clone)]
pub struct Enrollment {
    pub ledger: Ledger,
    pub authorities: Arc<Authorities>,
    pub samples: Arc<Store>,
    pub lifetime: Duration,
    /// Port of the agents' listener, as `:PORT`: the host is the one that was enrolled with.
    pub agents_endpoint: String,
    pub permits: Arc<Semaphore>,
    pub strangers: Arc<Strangers>,
}

/// What is known of those who have no identity yet, or none that is valid.
pub struct Strangers {
    throttle: Mutex<Throttle>,
    challenges: Challenges,
    since: Instant,
}

impl Strangers {
    /// Nobody has asked yet.
    pub fn new() -> Result<Arc<Self>, NoRandomness> {
        let (throttle, challenges) = (Mutex::default(), Challenges::new()?);
        Ok(Arc::new(Self { throttle, challenges, since: Instant::now() }))
    }

    fn admit(&self, who: Option<Origin>) -> Result<(), Status> {
        let Some(who) = who else { return Ok(()) }; // Without a connection, in tests.
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.admit(who, self.since.elapsed()).map_err(|wait| Status::resource_exhausted(wait.to_string()))
    }

    fn bad(&self, who: Option<Origin>) {
        if let Some(who) = who {
            let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
            throttle.bad(who, self.since.elapsed());
        }
    }
}

fn origin_of<T>(request: &Request<T>) -> Option<Origin> {
    request.extensions().get::<Peer>().map(|peer| origin(peer.addr.ip()))
}

impl Enrollment {
    /// The permits of one collector.
    pub fn permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(AT_A_TIME))
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, Status> {
        let permit = self.permits.try_acquire();
        permit.map_err(|_| Status::resource_exhausted("too many enrolments and renewals at once; try again"))
    }

    fn issue(&self, csr: &[u8], agent: AgentId, generation: u32) -> Result<(Issued, NewCertificate), Status> {
        if !clock::is_known() {
            let why = "the collector's clock says what cannot be: it issues no certificates until it is set";
            return Err(Status::unavailable(why));
        }
        let current = self.authorities.current();
        let issued = current.issuing.issue_agent(csr, agent, generation, now(), self.lifetime);
        let issued = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let certificate = NewCertificate {
            serial: issued.serial.clone(),
            key_sha256: issued.key_sha256,
            not_before: issued.not_before,
            not_after: issued.not_after,
            authority: current.number,
        };
        Ok((issued, certificate))
    }

    async fn next_generation(&self, agent: AgentId) -> Result<u32, Status> {
        let newest = self.ledger.read(move |state| {
            state.certificates_of(agent).next_back().map_or(0, |certificate| certificate.generation)
        });
        Ok(newest.await.map_err(stopping)? + 1)
    }

    /// `shown` is the serial that asked.
    async fn renewed(&self, csr: &[u8], agent: AgentId, shown: Option<String>) -> Result<Issued, Status> {
        let (issued, certificate) = self.issue(csr, agent, self.next_generation(agent).await?)?;
        let command = Command::RenewCertificate { agent, shown, certificate };
        let decided = self.ledger.submit(command, Actor::Agent(agent)).await.map_err(stopping)?;
        let events = decided.map_err(refused)?;
        if events.iter().any(|event| event.kind == EventKind::CertificateIssued) {
            return Ok(issued);
        }
        let words = move |state: &State| state.host(agent).map(|host| recovery::cloned_words(&host.instance));
        let words = self.ledger.read(words).await.map_err(stopping)?.unwrap_or_default();
        tracing::warn!(%agent, "a certificate asked for a second successor: its identity is cloned");
        Err(Status::failed_precondition(words))
    }

    async fn recovered(
        &self,
        agent: AgentId,
        proof_sha256: [u8; 32],
        csr: &[u8],
    ) -> Result<Result<Issued, Refusal>, Status> {
        let (issued, certificate) = self.issue(csr, agent, self.next_generation(agent).await?)?;
        let command = Command::Recover { agent, proof_sha256, certificate };
        let decided = self.ledger.submit(command, Actor::Agent(agent)).await.map_err(stopping)?;
        Ok(decided.map(|_| issued))
    }

    /// The host that a token was used for, if the answer to that got lost.
    async fn earlier(&self, token_sha256: [u8; 32]) -> Result<Host, Status> {
        let host = self.ledger.read(move |state| {
            let used = state.token_by_digest(&token_sha256)?.used.as_ref()?;
            state.host(used.agent).cloned()
        });
        host.await
            .map_err(stopping)?
            .ok_or_else(|| Status::internal("the enrolment is not recorded; try again"))
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(
        &self,
        request: Request<pb::EnrollRequest>,
    ) -> Result<Response<pb::EnrollResponse>, Status> {
        let who = origin_of(&request);
        self.strangers.admit(who)?;
        let _permit = self.permit()?;
        let pb::EnrollRequest { token_id: _, token_secret, csr, hostname, agent_version } =
            request.into_inner();
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if hostname.is_empty() || hostname.len() > HOSTNAME_BYTES_MAX || !hostname.chars().all(usable) {
            return Err(Status::invalid_argument(
                "the host name has 1 to 253 letters, digits, `.`, `-` or `_`",
            ));
        }
        let token_sha256 = sha256(&token_secret);
        let is_known = self.ledger.read(move |state| state.token_by_digest(&token_sha256).is_some());
        if !is_known.await.map_err(stopping)? {
            self.strangers.bad(who);
            let words = "unknown join token: create one with `tocsin token create`";
            return Err(Status::permission_denied(words));
        }
        let agent = AgentId(Uuid::new_v4());
        let (issued, certificate) = self.issue(&csr, agent, 1)?;
        let enrolment = Enrolment {
            token_sha256,
            instance: hostname,
            agent,
            agent_version,
            facts: Labels::empty(),
            certificate,
        };
        let actor = Actor::Agent(agent);
        let events = self
            .ledger
            .submit(Command::Enrol(enrolment), actor.clone())
            .await
            .map_err(stopping)?
            .map_err(refused)?;
        let host = events.into_iter().find_map(|event| match event.subject {
            Subject::Host(host) => Some(host),
            _ => None,
        });
        let (host, issued) = match host {
            Some(host) => (host, issued),
            None => {
                let host = self.earlier(token_sha256).await?;
                let issued = self.renewed(&csr, host.agent, None).await?;
                (host, issued)
            }
        };
        self.samples.set_target(host.agent, host.target_labels());
        tracing::info!(agent = %host.agent, instance = host.instance, env = %host.env, "host enrolled");
        Ok(Response::new(pb::EnrollResponse {
            agent: host.agent.to_string(),
            certificate_pem: issued.pem,
            ca_pem: self.authorities.current().bundle_pem.clone(),
            agents_endpoint: self.agents_endpoint.clone(),
            cluster_id: self.authorities.cluster().to_string(),
            instance: host.instance,
            env: host.env.number(),
        }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let _permit = self.permit()?;
        let Some(Caller::Agent(agent, shown)) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::permission_denied("only an agent renews its certificate"));
        };
        let pb::RenewRequest { csr } = request.into_inner();
        let issued = self.renewed(&csr, agent, Some(shown)).await?;
        Ok(Response::new(pb::RenewResponse {
            certificate_pem: issued.pem,
            ca_pem: self.authorities.current().bundle_pem.clone(),
        }))
    }

    async fn challenge(
        &self,
        request: Request<pb::ChallengeRequest>,
    ) -> Result<Response<pb::ChallengeResponse>, Status> {
        self.strangers.admit(origin_of(&request))?;
        let nonce = self.strangers.challenges.nonce(now());
        let nonce = nonce.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::ChallengeResponse { nonce }))
    }

    async fn recover(
        &self,
        request: Request<pb::RecoverRequest>,
    ) -> Result<Response<pb::RecoverResponse>, Status> {
        let who = origin_of(&request);
        self.strangers.admit(who)?;
        let _permit = self.permit()?;
        let pb::RecoverRequest { agent, nonce, proof, csr } = request.into_inner();
        let agent: AgentId =
            agent.parse().map_err(|_| Status::invalid_argument("the agent's id is no uuid"))?;
        let proved =
            self.strangers.challenges.check(&nonce, agent, &csr, &proof, now()).map_err(|error| {
                self.strangers.bad(who);
                Status::permission_denied(error.to_string())
            })?;
        // Before anything is signed: a key that is nobody's costs nothing more.
        let known = move |state: &State| state.certificates_of(agent).any(|c| c.key_sha256 == proved);
        if !self.ledger.read(known).await.map_err(stopping)? {
            self.strangers.bad(who);
            return Err(Status::permission_denied("this key is not known here: enrol the host again"));
        }
        let issued = self.recovered(agent, proved, &csr).await?.map_err(|refusal| {
            tracing::warn!(%agent, %refusal, "a host asked to recover");
            refused(refusal)
        })?;
        tracing::info!(%agent, serial = issued.serial, "a host recovered by its key");
        Ok(Response::new(pb::RecoverResponse {
            certificate_pem: issued.pem,
            ca_pem: self.authorities.current().bundle_pem.clone(),
        }))
    }
}

fn stopping(_: Stopping) -> Status {
    Status::unavailable("the collector is stopping")
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::AlreadyExists { .. } => Status::already_exists(refusal.to_string()),
        Refusal::Invalid { .. } => Status::invalid_argument(refusal.to_string()),
        _ => Status::permission_denied(refusal.to_string()),
    }
}
