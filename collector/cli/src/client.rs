//! ⇄ The channel to the collector: TLS against the authority in the credential file, the credential with every call.
//!
//! Promise: one deadline for connecting, one for each answer, so no command hangs.

use std::time::Duration;

use tocsin_proto::connect::{Endpoint, connect};
use tocsin_proto::pb;
use tocsin_proto::pb::admin_service_client::AdminServiceClient;
use tocsin_proto::pb::alert_service_client::AlertServiceClient;
use tocsin_proto::pb::feed_service_client::FeedServiceClient;
use tocsin_proto::pb::incident_service_client::IncidentServiceClient;
use tocsin_proto::pb::job_service_client::JobServiceClient;
use tocsin_proto::pb::query_service_client::QueryServiceClient;
use tocsin_shared::{secret::Secret, tls};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::credential::{Connection, CredentialError};
use crate::failure::Failure;

/// Name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The collector bounds a query at less than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// 1,000 runs or 100,000 series fit; gRPC's own limit of 4 MiB is too small for them.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A channel that shows the credential.
pub type Service = InterceptedService<Channel, Bearer>;

/// Puts the credential on every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    fn new(connection: &Connection) -> Result<Self, Failure> {
        let text: &Secret = &connection.credential;
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", text.expose()).parse().map_err(|_| CredentialError::Format {
                path: connection.file.clone(),
                reason: "the credential in it holds characters that no credential has".into(),
            })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The collector's services.
#[derive(Clone)]
pub struct Client {
    service: Service,
    /// Where the collector is.
    pub endpoint: Endpoint,
}

macro_rules! services {
    ($($name:ident: $client:ident),+) => {$(
        /// The stub of this service.
        pub fn $name(&self) -> $client<Service> {
            $client::new(self.service.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
        }
    )+};
}

impl Client {
    /// Connects, or says what is in the way.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let config = tls::trusting(&connection.authority_pem, None).map_err(|error| {
            CredentialError::Format { path: connection.file.clone(), reason: error.to_string() }
        })?;
        let bearer = Bearer::new(connection)?;
        let channel = connect(&connection.endpoint, config, CONNECT_TIMEOUT).await?;
        Ok(Self { service: InterceptedService::new(channel, bearer), endpoint: connection.endpoint.clone() })
    }

    /// Every host that is asked for, page by page.
    pub async fn hosts(&self, mut request: pb::ListHostsRequest) -> Result<Vec<pb::HostStatus>, Failure> {
        let mut hosts = Vec::new();
        loop {
            let page = answer(self.query().list_hosts(request.clone())).await?;
            hosts.extend(page.hosts);
            if page.next_page_token.is_empty() {
                return Ok(hosts);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// A range, all its messages put together.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Failure> {
        let all = async {
            let mut messages = self.query().range(request).await?.into_inner();
            let mut whole = pb::RangeResponse::default();
            while let Some(message) = messages.message().await? {
                whole.series.extend(message.series);
                whole.warnings.extend(message.warnings);
                whole.infos.extend(message.infos);
            }
            Ok(Response::new(whole))
        };
        answer(all).await
    }

    services!(
        admin: AdminServiceClient,
        query: QueryServiceClient,
        alerts: AlertServiceClient,
        incidents: IncidentServiceClient,
        jobs: JobServiceClient,
        feed: FeedServiceClient
    );
}

/// Waits for an answer, not for ever.
pub async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Failure::Late { seconds: ANSWER_TIMEOUT.as_secs() }),
    }
}
