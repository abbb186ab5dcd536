//! The three listeners and what each of them serves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tocsin_proto::pb;
use tocsin_proto::pb::admin_service_server::AdminServiceServer;
use tocsin_proto::pb::agent_service_server::AgentServiceServer;
use tocsin_proto::pb::alert_service_server::AlertServiceServer;
use tocsin_proto::pb::enrollment_service_server::EnrollmentServiceServer;
use tocsin_proto::pb::feed_service_server::FeedServiceServer;
use tocsin_proto::pb::incident_service_server::IncidentServiceServer;
use tocsin_proto::pb::job_service_server::JobServiceServer;
use tocsin_proto::pb::query_service_server::QueryServiceServer;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Server;

use super::certificates::Shown;
use super::setup::{Ports, host_name};
use super::{Parts, StartError, local, rule_files};
use crate::api::enrollment::{Enrollment, Strangers};
use crate::api::guard::Guard;
use crate::api::{About, Api};
use crate::clock::{judging, now};
use crate::config::Config;
use crate::ingest::{Agents, Opening, Telling};
use crate::journal::ledger::Fatal;
use crate::listen::certificate::ServerCertificate;
use crate::listen::descriptors::Doors;
use crate::listen::tls::{Admit, TlsMin, agents_tls, front_tls};
use crate::listen::{Clients, FRONT_CONNECTIONS, Limits};
use crate::receive::otlp::service::MetricsService;
use crate::{receive, web};

/// A series table of 20,000 series fits.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// A range of 11,000 steps of a hundred series fits; larger answers are refused with a clear status.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A token and a request for a certificate: a kilobyte or two, and strangers may send it.
const ENROLLMENT_BYTES_MAX: usize = 64 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How many lives of an agent's certificate two authorities are trusted together before the new one signs: in each of
/// them a host that is up is heard at least once.
const OVERLAP_LIFETIMES: u32 = 2;
/// Into which part of a certificate's life the renewals after a change of authority are spread: a fleet of thousands
/// costs a few signatures a second, and all of them are done long before the first certificate ends.
const RENEWALS_SPREAD: u32 = 10;

/// Starts the listeners; they end with `stop`.
pub(super) fn serve(
    parts: &Parts,
    ports: Ports,
    tasks: &TaskTracker,
    fatal: &Fatal,
) -> Result<(), StartError> {
    let other = |error: &dyn std::fmt::Display| StartError::other("set up TLS", error);
    let shown = Shown::new(parts, ports.front())?;
    let installed = shown.clone();
    parts.authorities.install(Box::new(move |current| installed.install(current)));
    let renewal = shown.clone().renew(parts.clone());
    tasks.spawn(fatal.clone().watch("renewal of certificates", renewal));

    let limits = parts.config.limits;
    let doors = Doors { agents: limits, front: Limits { connections: FRONT_CONNECTIONS, ..limits } };
    let Doors { agents: for_agents, front: for_front } = doors.within_descriptors();
    let min = if parts.config.front_tls12 { TlsMin::V1_2 } else { TlsMin::V1_3 };
    let front_tls = front_tls(shown.front.clone(), min).map_err(|error| other(&error))?;
    let cluster = parts.authorities.cluster();
    let registry = parts.ledger.clone();
    let admit: Admit = Arc::new(move |peer| registry.registry().admits(&peer.serial, peer.agent, judging()));
    let agents_tls = agents_tls(shown.agents.clone(), shown.trusted.clone(), cluster, admit)
        .map_err(|error| other(&error))?;

    let enrollment = Enrollment {
        ledger: parts.ledger.clone(),
        authorities: parts.authorities.clone(),
        samples: parts.samples.clone(),
        lifetime: parts.config.certificate_lifetime,
        agents_endpoint: format!(":{}", ports.agents().port()),
        permits: Enrollment::permits(),
        strangers: Strangers::new().map_err(|error| other(&error))?,
    };
    let agents = Agents {
        ledger: parts.ledger.clone(),
        rows: parts.rows.clone(),
        presence: parts.presence.clone(),
        quotas: parts.quotas.clone(),
        skews: parts.skews.clone(),
        sessions: parts.sessions.clone(),
        room: parts.room.clone(),
        opening: Opening::default(),
        trust: Telling {
            authorities: parts.authorities.clone(),
            renew_within: parts.config.certificate_lifetime / RENEWALS_SPREAD,
        },
        stop: parts.stop.clone(),
    };
    let front = ports.front.accept(front_tls, Clients::Anyone, for_front);
    let api = api(parts, shown.front);
    let lags = crate::api::feed::lags::watch(api.clone(), host_name());
    tasks.spawn(fatal.clone().watch("lag of consumers", lags));
    let routes = web::router(api.clone(), parts.config.limits.answer);
    let local_routes = parts.config.local_queries.then(|| routes.clone());
    let front_services = front_router(parts, enrollment.clone(), api, routes)?;
    let agents_incoming = ports.agents.accept(agents_tls, Clients::Agents { cluster }, for_agents);
    let agents_services = server(&limits)
        .accept_http1(false)
        .max_concurrent_streams(Some(8))
        .concurrency_limit_per_connection(8)
        .layer(Guard::new(parts.ledger.clone()))
        .add_service(AgentServiceServer::new(agents).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            EnrollmentServiceServer::new(enrollment).max_decoding_message_size(ENROLLMENT_BYTES_MAX),
        );
    let doors = [("front", front.counts()), ("agents", agents_incoming.counts())];

    let stop = parts.stop.clone();
    let task = front_services.serve_with_incoming_shutdown(front, stop.clone().cancelled_owned());
    tasks.spawn(reported(fatal.clone(), "front listener", task));
    let task = agents_services.serve_with_incoming_shutdown(agents_incoming, stop.cancelled_owned());
    tasks.spawn(reported(fatal.clone(), "agents' listener", task));
    let local = local::serve(parts.clone(), doors.into(), ports.local, local_routes);
    tasks.spawn(fatal.clone().watch("local listener", local));
    Ok(())
}

fn server(limits: &Limits) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(64))
        .http2_max_header_list_size(Some(8 * 1024))
        .max_frame_size(Some(16 * 1024))
        .timeout(limits.answer)
        .load_shed(true)
}

type Guarded = tower::layer::util::Stack<Guard, tower::layer::util::Identity>;

fn front_router(
    parts: &Parts,
    enrollment: Enrollment,
    api: Api,
    routes: axum::Router,
) -> Result<tonic::transport::server::Router<Guarded>, StartError> {
    let describe = || {
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(pb::DESCRIPTORS)
    };
    let failed = |error| StartError::other("describe the services", error);
    let reflection = describe().build_v1().map_err(failed)?;
    // Python's library and older tools ask by this name only.
    let older_reflection = describe().build_v1alpha().map_err(failed)?;
    let receiver = parts.receiver.clone();
    let routes = routes.merge(receive::http::routes(receiver.clone(), parts.config.limits.answer));
    let (_, health) = tonic_health::server::health_reporter();
    let router = server(&parts.config.limits)
        .accept_http1(true)
        .max_concurrent_streams(Some(100))
        .concurrency_limit_per_connection(100)
        .layer(Guard::new(parts.ledger.clone()))
        .add_routes(Routes::from(routes))
        .add_service(health)
        .add_service(reflection)
        .add_service(older_reflection)
        .add_service(EnrollmentServiceServer::new(enrollment).max_decoding_message_size(ENROLLMENT_BYTES_MAX))
        .add_service(MetricsService::new(receiver))
        .add_service(AdminServiceServer::new(api.clone()))
        .add_service(AlertServiceServer::new(api.clone()))
        .add_service(FeedServiceServer::new(api.clone()))
        .add_service(IncidentServiceServer::new(api.clone()))
        .add_service(JobServiceServer::new(api.clone()))
        .add_service(QueryServiceServer::new(api).max_encoding_message_size(ANSWER_BYTES_MAX));
    Ok(router)
}

fn api(parts: &Parts, front: Arc<ServerCertificate>) -> Api {
    let (config, plan) = (parts.config.clone(), parts.plan.clone());
    let reload = move || rule_files::reload(&config, &plan);
    Api {
        ledger: parts.ledger.clone(),
        projection: parts.projection.clone(),
        samples: parts.samples.clone(),
        rows: parts.rows.clone(),
        presence: parts.presence.clone(),
        room: parts.room.clone(),
        receiver: parts.receiver.clone(),
        quotas: parts.quotas.clone(),
        plan: parts.plan.clone(),
        statistics: parts.statistics.clone(),
        metadata: parts.metadata.clone(),
        about: Arc::new(About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: parts.authorities.cluster().to_string(),
            started_at: now(),
            data_dir: parts.config.data_dir.clone(),
            problems: Mutex::new(parts.problems.clone()),
        }),
        authorities: parts.authorities.clone(),
        front,
        overlap: parts.config.certificate_lifetime * OVERLAP_LIFETIMES,
        reload: Arc::new(reload),
        store_epoch: parts.store_epoch.clone(),
        calls: Arc::default(),
        stop: parts.stop.clone(),
    }
}

async fn reported<E: std::error::Error>(
    fatal: Fatal,
    what: &str,
    served: impl Future<Output = Result<(), E>>,
) {
    if let Err(error) = served.await {
        fatal.report(format!("{what}: {error}"));
    }
}

/// The names that the collector's certificate carries.
pub(super) fn names(config: &Config) -> Vec<String> {
    let mut names = config.names.clone();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
    for address in [config.front, config.agents] {
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
    }
    names.sort();
    names.dedup();
    names
}
