//! The collector's API as a named principal calls it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tocsin_proto::connect::{Endpoint, connect};
use tocsin_proto::pb;
use tocsin_proto::pb::admin_service_client::AdminServiceClient;
use tocsin_proto::pb::alert_service_client::AlertServiceClient;
use tocsin_proto::pb::feed_service_client::FeedServiceClient;
use tocsin_proto::pb::incident_service_client::IncidentServiceClient;
use tocsin_proto::pb::job_service_client::JobServiceClient;
use tocsin_proto::pb::query_service_client::QueryServiceClient;
use tocsin_shared::tls;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

const CONNECT: Duration = Duration::from_secs(10);

/// What the collector writes for its first administrator.
#[derive(Clone, Debug, Deserialize)]
pub struct CredentialFile {
    /// HOST:PORT of the front listener.
    pub endpoint: String,
    /// PEM.
    pub ca: String,
    pub credential: String,
}

impl CredentialFile {
    /// Reads `credential.toml`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// Shows a credential with each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A channel that shows a credential, or none.
pub type Caller = InterceptedService<Channel, Bearer>;

/// A connection to the front listener.
#[derive(Clone)]
pub struct Api {
    pub front: Endpoint,
    pub authority_pem: String,
    channel: Channel,
    bearer: Bearer,
}

impl Api {
    /// Connects as the principal of a credential file.
    pub async fn connect(file: &CredentialFile) -> anyhow::Result<Self> {
        let front: Endpoint = file.endpoint.parse()?;
        let channel = connect(&front, tls::trusting(&file.ca, None)?, CONNECT).await?;
        let api = Self { front, authority_pem: file.ca.clone(), channel, bearer: Bearer(None) };
        api.with_credential(&file.credential)
    }

    /// The same connection as another principal.
    pub fn with_credential(&self, credential: &str) -> anyhow::Result<Self> {
        let value =
            format!("Bearer {credential}").parse().context("the credential does not fit in a header")?;
        Ok(Self { bearer: Bearer(Some(value)), ..self.clone() })
    }

    /// The same connection as nobody.
    pub fn anonymous(&self) -> Self {
        Self { bearer: Bearer(None), ..self.clone() }
    }

    /// The bare connection, for calls without a credential such as enrolment.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn caller(&self) -> Caller {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub fn admin(&self) -> AdminServiceClient<Caller> {
        AdminServiceClient::new(self.caller())
    }

    pub fn alerts(&self) -> AlertServiceClient<Caller> {
        AlertServiceClient::new(self.caller())
    }

    pub fn feed(&self) -> FeedServiceClient<Caller> {
        FeedServiceClient::new(self.caller())
    }

    pub fn incidents(&self) -> IncidentServiceClient<Caller> {
        IncidentServiceClient::new(self.caller())
    }

    pub fn jobs(&self) -> JobServiceClient<Caller> {
        JobServiceClient::new(self.caller())
    }

    pub fn query(&self) -> QueryServiceClient<Caller> {
        QueryServiceClient::new(self.caller())
    }

    /// Makes a join token; gives its text.
    pub async fn token(&self, env: pb::Env, host_pattern: &str) -> anyhow::Result<String> {
        let request = pb::CreateTokenRequest {
            env: env as i32,
            host_pattern: host_pattern.into(),
            ..Default::default()
        };
        Ok(self.admin().create_token(request).await?.into_inner().token)
    }

    /// The open incidents.
    pub async fn open_incidents(&self) -> anyhow::Result<Vec<pb::Incident>> {
        let request = pb::ListIncidentsRequest::default();
        Ok(self.incidents().list_incidents(request).await?.into_inner().incidents)
    }

    /// An incident as it is now.
    pub async fn incident(&self, number: u64) -> anyhow::Result<pb::Incident> {
        let answer = self.incidents().get_incident(pb::GetIncidentRequest { number }).await?.into_inner();
        answer.incident.context("an answer without its incident")
    }

    /// The points of the one series that a query gives over a span, oldest first.
    pub async fn range(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> anyhow::Result<Vec<pb::Point>> {
        let request = pb::RangeRequest { query: query.into(), start_ms, end_ms, step_ms };
        let (mut messages, mut series) = (self.query().range(request).await?.into_inner(), Vec::new());
        while let Some(message) = messages.message().await? {
            series.extend(message.series);
        }
        anyhow::ensure!(series.len() <= 1, "{query} gives {} series", series.len());
        Ok(series.pop().map(|series| series.points).unwrap_or_default())
    }

    /// The points that are stored, as they are: an instant query for a range selector.
    pub async fn stored(&self, selector: &str) -> anyhow::Result<Vec<pb::Point>> {
        let request = pb::InstantRequest { query: selector.into(), at_ms: 0 };
        let mut series = self.query().instant(request).await?.into_inner().series;
        anyhow::ensure!(series.len() <= 1, "{selector} gives {} series", series.len());
        Ok(series.pop().map(|series| series.points).unwrap_or_default())
    }
}
