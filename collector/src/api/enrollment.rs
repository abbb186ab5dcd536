//! Enrolment and renewal: certificates for hosts.
//!
//! The authority signs first and the ledger decides then: a certificate that was not recorded is let in nowhere.

use std::sync::Arc;
use std::time::Duration;

use tocsin_proto::convert::Number;
use tocsin_proto::pb;
use tocsin_proto::pb::enrollment_service_server::EnrollmentService;
use tocsin_shared::event::{Actor, Subject};
use tocsin_shared::host::Host;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::secret::sha256;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::clock::{self, now};
use crate::identity::authorise::Caller;
use crate::identity::ca::{Authority, Issued};
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::samples::Store;
use crate::state::command::{Enrolment, NewCertificate};
use crate::state::{Command, Refusal};

/// Enrolments and renewals at a time: each costs a signature, and strangers may ask.
const AT_A_TIME: usize = 16;
/// A DNS name has at most this many bytes.
const HOSTNAME_BYTES_MAX: usize = 253;

/// The service on both listeners: Enroll on the front, Renew on the agents'.
#[derive(Clone)]
pub struct Enrollment {
    pub ledger: Ledger,
    pub authority: Arc<Authority>,
    pub samples: Arc<Store>,
    pub lifetime: Duration,
    /// Port of the agents' listener, as `:PORT`: the host is the one that was enrolled with.
    pub agents_endpoint: String,
    pub permits: Arc<Semaphore>,
}

impl Enrollment {
    /// The permits of one collector.
    pub fn permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(AT_A_TIME))
    }

    fn issue(&self, csr: &[u8], agent: AgentId, generation: u32) -> Result<(Issued, NewCertificate), Status> {
        if !clock::is_known() {
            let why = "the collector's clock says what cannot be: it issues no certificates until it is set";
            return Err(Status::unavailable(why));
        }
        let issued = self.authority.issue_agent(csr, agent, generation, now(), self.lifetime);
        let issued = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let certificate = NewCertificate {
            serial: issued.serial.clone(),
            key_sha256: issued.key_sha256,
            not_before: issued.not_before,
            not_after: issued.not_after,
        };
        Ok((issued, certificate))
    }

    async fn renewed(&self, csr: &[u8], agent: AgentId, actor: Actor) -> Result<Issued, Status> {
        let newest = self.ledger.read(move |state| {
            state.certificates_of(agent).next_back().map_or(0, |certificate| certificate.generation)
        });
        let generation = newest.await.map_err(stopping)? + 1;
        let (issued, certificate) = self.issue(csr, agent, generation)?;
        let command = Command::RenewCertificate { agent, certificate };
        self.ledger.submit(command, actor).await.map_err(stopping)?.map_err(refused)?;
        Ok(issued)
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
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many enrolments at once; try again"))?;
        let pb::EnrollRequest { token_id: _, token_secret, csr, hostname, agent_version } =
            request.into_inner();
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if hostname.is_empty() || hostname.len() > HOSTNAME_BYTES_MAX || !hostname.chars().all(usable) {
            return Err(Status::invalid_argument(
                "the host name has 1 to 253 letters, digits, `.`, `-` or `_`",
            ));
        }
        let agent = AgentId(Uuid::new_v4());
        let (issued, certificate) = self.issue(&csr, agent, 1)?;
        let token_sha256 = sha256(&token_secret);
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
                let issued = self.renewed(&csr, host.agent, Actor::Agent(host.agent)).await?;
                (host, issued)
            }
        };
        self.samples.set_target(host.agent, host.target_labels());
        tracing::info!(agent = %host.agent, instance = host.instance, env = %host.env, "host enrolled");
        Ok(Response::new(pb::EnrollResponse {
            agent: host.agent.to_string(),
            certificate_pem: issued.pem,
            ca_pem: self.authority.pem().to_owned(),
            agents_endpoint: self.agents_endpoint.clone(),
            cluster_id: self.authority.cluster().to_string(),
            instance: host.instance,
            env: host.env.number(),
        }))
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("too many renewals at once; try again"))?;
        let Some(Caller::Agent(agent, _)) = request.extensions().get::<Caller>().cloned() else {
            return Err(Status::permission_denied("only an agent renews its certificate"));
        };
        let pb::RenewRequest { csr } = request.into_inner();
        let issued = self.renewed(&csr, agent, Actor::Agent(agent)).await?;
        Ok(Response::new(pb::RenewResponse {
            certificate_pem: issued.pem,
            ca_pem: self.authority.pem().to_owned(),
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
