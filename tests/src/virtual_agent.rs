//! An agent that is nothing but its protocol: it enrols, streams what it is handed and hears acknowledgements.
//!
//! Not here: what it says (`replay`), when it says it (`swarm`), any spool.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tocsin_proto::connect::Endpoint;
use tocsin_proto::convert::{Number as _, labels_out};
use tocsin_proto::pb;
use tocsin_proto::pb::agent_service_client::AgentServiceClient;
use tocsin_proto::pb::enrollment_service_client::EnrollmentServiceClient;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::identity::Epoch;
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::secret::{JoinSecret, Secret};
use tocsin_shared::tls::{self, ClientIdentity};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::api::Api;
use crate::counted::{self, Traffic};

/// Messages that may wait in a session before its sender does.
const UP_QUEUE: usize = 8;

/// An identity that the collector issued.
#[derive(Clone)]
pub struct VirtualAgent {
    pub hostname: String,
    pub agents: Endpoint,
    pub epoch: Epoch,
    pub boot_id: String,
    tls: Arc<rustls::ClientConfig>,
}

/// What an enrolment is asked with; the same key twice is a retry, another key is another host.
pub struct Enrolment {
    key: KeyPair,
    token: JoinSecret,
    hostname: String,
}

impl Enrolment {
    /// A new key for a token.
    pub fn new(token: &str, hostname: &str) -> anyhow::Result<Self> {
        Ok(Self { key: KeyPair::generate()?, token: token.parse()?, hostname: hostname.into() })
    }

    /// Asks for a certificate.
    pub async fn ask(&self, front: Channel) -> Result<pb::EnrollResponse, tonic::Status> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let invalid = |error: rcgen::Error| tonic::Status::internal(error.to_string());
        let csr = params.serialize_request(&self.key).map_err(invalid)?.der().to_vec();
        let request = pb::EnrollRequest {
            token_id: bytes_of_hex(&self.token.id()),
            token_secret: self.token.expose_secret().to_vec(),
            csr,
            hostname: self.hostname.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(EnrollmentServiceClient::new(front).enroll(request).await?.into_inner())
    }

    /// The identity that an answer gives.
    pub fn finish(self, answer: pb::EnrollResponse, front: &Endpoint) -> anyhow::Result<VirtualAgent> {
        let identity = ClientIdentity {
            chain_pem: answer.certificate_pem,
            key_pem: Secret::new(self.key.serialize_pem()),
        };
        let agents = match answer.agents_endpoint.strip_prefix(':') {
            Some(port) => Endpoint { host: front.host.clone(), port: port.parse()? },
            None => answer.agents_endpoint.parse()?,
        };
        Ok(VirtualAgent {
            hostname: self.hostname,
            agents,
            epoch: Epoch(Uuid::new_v4()),
            boot_id: Uuid::new_v4().to_string(),
            tls: tls::trusting(&answer.ca_pem, Some(&identity))?,
        })
    }
}

impl VirtualAgent {
    /// A token, an enrolment, an identity.
    pub async fn enrol(api: &Api, env: pb::Env, hostname: &str) -> anyhow::Result<Self> {
        let token = api.token(env, hostname).await?;
        let enrolment = Enrolment::new(&token, hostname)?;
        let answer =
            enrolment.ask(api.channel()).await.with_context(|| format!("cannot enrol {hostname}"))?;
        enrolment.finish(answer, &api.front)
    }

    /// What it shows and trusts, for who speaks something else than the protocol.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// Opens a session whose clocks read `clock` now.
    pub async fn session(
        &self,
        clock: pb::ClockReading,
        interval_ms: u32,
        traffic: Arc<Traffic>,
    ) -> anyhow::Result<Session> {
        self.session_at(|| clock, interval_ms, traffic).await
    }

    /// The same, its clocks read when the connection stands: on a busy machine that takes longer than a reading is good.
    pub async fn session_at(
        &self,
        clock: impl FnOnce() -> pb::ClockReading,
        interval_ms: u32,
        traffic: Arc<Traffic>,
    ) -> anyhow::Result<Session> {
        let channel = counted::connect(&self.agents, Arc::clone(&self.tls), traffic).await?;
        let (up, messages) = mpsc::channel(UP_QUEUE);
        let hello = pb::Hello {
            protocol_version: 1,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            epoch: self.epoch.to_string(),
            boot_id: self.boot_id.clone(),
            clock: Some(clock()),
            facts: Vec::new(),
            interval_ms,
            process: Uuid::new_v4().simple().to_string(),
            bundle_sha256: Vec::new(),
        };
        up.send(pb::SessionRequest { kind: Some(Up::Hello(hello)) }).await?;
        let down =
            AgentServiceClient::new(channel).session(ReceiverStream::new(messages)).await?.into_inner();
        let settled = Default::default();
        let mut session =
            Session { up, down, number: 0, taken: 0, outcomes_taken: 0, settled, heartbeat_ms: 0 };
        match session.hear().await? {
            Down::Welcome(welcome) => session.welcomed(&welcome)?,
            other => bail!("the first answer is no Welcome: {other:?}"),
        }
        Ok(session)
    }
}

/// An open stream.
pub struct Session {
    up: mpsc::Sender<pb::SessionRequest>,
    down: Streaming<pb::SessionResponse>,
    number: u64,
    /// Every row up to here is durable on the collector.
    pub taken: u64,
    /// Every outcome up to here is.
    pub outcomes_taken: u64,
    /// What is durable there, by lane.
    pub settled: [Ranges; 3],
    pub heartbeat_ms: u32,
}

impl Session {
    /// Sends one message; waits while the collector is behind.
    pub async fn say(&self, kind: Up) -> anyhow::Result<()> {
        self.up.send(pb::SessionRequest { kind: Some(kind) }).await.context("the session has ended")
    }

    /// The next message from the collector; acknowledgements have moved `taken` already.
    pub async fn hear(&mut self) -> anyhow::Result<Down> {
        let message = self.down.message().await?.context("the collector closed the session")?;
        let kind = message.kind.context("an empty message from the collector")?;
        if let Down::Acknowledgement(acknowledged) = &kind {
            if acknowledged.session != self.number {
                bail!("an acknowledgement of session {} in session {}", acknowledged.session, self.number);
            }
            self.take(&acknowledged.lanes);
        }
        Ok(kind)
    }

    fn welcomed(&mut self, welcome: &pb::Welcome) -> anyhow::Result<()> {
        self.number = welcome.session;
        self.heartbeat_ms = welcome.config.as_ref().context("a Welcome without config")?.heartbeat_ms;
        self.take(&welcome.lanes);
        Ok(())
    }

    fn take(&mut self, lanes: &[pb::LaneAcknowledgement]) {
        for (lane, taken) in
            lanes.iter().filter_map(|told| Some((Lane::from_number(told.lane).ok()?, told.taken.clone()?)))
        {
            self.settled[lane.index()] = taken.try_into().unwrap_or_default();
        }
        self.outcomes_taken = self.settled[Lane::Outcomes.index()].floor();
        let samples = lanes.iter().filter(|lane| lane.lane == Lane::Samples.number());
        for taken in samples.filter_map(|lane| lane.taken.as_ref()) {
            self.taken = self.taken.max(taken.floor);
        }
    }
}

/// A series table as the wire has it.
pub fn table(table_id: u64, series: &[Labels], boot_id: &str) -> pb::SeriesTable {
    let series = series.iter().map(|labels| pb::Series { labels: labels_out(labels) }).collect();
    pb::SeriesTable { table_id, series, boot_id: boot_id.into() }
}

/// A message with these rows.
pub fn rows(rows: Vec<pb::Row>) -> pb::SessionRequest {
    pb::SessionRequest { kind: Some(Up::Rows(pb::Rows { rows })) }
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect()
}
