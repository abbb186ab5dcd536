//! Who may do what: nobody without a credential, a host only for itself, a token once, a revoked host no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tocsin_proto::connect::{Endpoint, connect};
use tocsin_proto::pb;
use tocsin_proto::pb::agent_service_client::AgentServiceClient;
use tocsin_shared::tls;
use tocsin_tests::counted::Traffic;
use tocsin_tests::site::Site;
use tocsin_tests::virtual_agent::{Enrolment, VirtualAgent};
use tocsin_tests::wait::wait_until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::RULES;

/// How long a revoked host may go on.
const PROMISED: Duration = Duration::from_secs(5);

const CLOCK: pb::ClockReading =
    pb::ClockReading { wall_ms: 1_795_412_135_120, boot_ms: 100_000, boot_id: String::new() };

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_nothing_answers() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let stranger = site.api.with_credential("tocsinc_not-one")?;
    for (who, api) in [("nobody", site.api.anonymous()), ("a stranger", stranger)] {
        let codes = [
            api.admin().get_status(pb::GetStatusRequest {}).await.err(),
            api.admin().create_token(pb::CreateTokenRequest::default()).await.err(),
            api.admin().list_tokens(pb::ListTokensRequest {}).await.err(),
            api.admin().list_principals(pb::ListPrincipalsRequest {}).await.err(),
            api.admin().revoke_host(pb::RevokeHostRequest { name: "web-1".into() }).await.err(),
            api.admin().reload_rules(pb::ReloadRulesRequest {}).await.err(),
            api.alerts().list_alerts(pb::ListAlertsRequest::default()).await.err(),
            api.incidents().list_incidents(pb::ListIncidentsRequest::default()).await.err(),
            api.incidents().acknowledge(pb::AcknowledgeRequest::default()).await.err(),
            api.jobs().list_jobs(pb::ListJobsRequest {}).await.err(),
            api.query().instant(pb::InstantRequest { query: "1".into(), at_ms: 0 }).await.err(),
            api.query().list_hosts(pb::ListHostsRequest::default()).await.err(),
            api.feed().subscribe(pb::SubscribeRequest::default()).await.err(),
            api.feed().list_consumers(pb::ListConsumersRequest {}).await.err(),
        ];
        for (at, status) in codes.into_iter().enumerate() {
            let code = status.map(|status| status.code());
            assert_eq!(code, Some(Code::Unauthenticated), "{who}, call {at}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_tells_health_and_metrics_and_nothing_else() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    for (path, status) in [
        ("/-/healthy", "200"),
        ("/-/ready", "200"),
        ("/metrics", "200"),
        ("/", "404"),
        ("/api/v1/query?query=up", "404"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&site.addresses().local).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        assert_eq!(answer.split_whitespace().nth(1), Some(status), "{path}: {answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_a_bound() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let principal = |name: &str, role: pb::Role| pb::CreatePrincipalRequest {
        name: name.into(),
        role: role as i32,
        ttl_ms: 0,
    };
    let created = site.api.admin().create_principal(principal("anna", pb::Role::Viewer)).await?.into_inner();
    let viewer = site.api.with_credential(&created.credential)?;
    viewer.query().list_hosts(pb::ListHostsRequest::default()).await?;
    let minted = viewer
        .admin()
        .create_token(pb::CreateTokenRequest { env: pb::Env::Prod as i32, ..Default::default() })
        .await;
    assert_eq!(minted.unwrap_err().code(), Code::PermissionDenied);
    let acknowledged =
        viewer.incidents().acknowledge(pb::AcknowledgeRequest { number: 1, ..Default::default() }).await;
    assert_eq!(acknowledged.unwrap_err().code(), Code::PermissionDenied);
    site.api.admin().revoke_principal(pb::RevokePrincipalRequest { name: "anna".into() }).await?;
    let revoked = viewer.query().list_hosts(pb::ListHostsRequest::default()).await;
    assert_eq!(revoked.unwrap_err().code(), Code::Unauthenticated);
    Ok(())
}

// Cases: I5, C-X3
#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_and_for_the_host_it_was_made_for() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let token = site.api.token(pb::Env::Prod, "web-*").await?;
    let elsewhere = Enrolment::new(&token, "db-1")?.ask(site.api.channel()).await;
    assert_eq!(elsewhere.unwrap_err().code(), Code::PermissionDenied, "another host's name");
    let enrolment = Enrolment::new(&token, "web-1")?;
    let first = enrolment.ask(site.api.channel()).await?;
    let again = enrolment.ask(site.api.channel()).await?;
    assert_eq!(first.agent, again.agent, "the same key again is a retry");
    let another = Enrolment::new(&token, "web-2")?.ask(site.api.channel()).await;
    assert_eq!(another.unwrap_err().code(), Code::PermissionDenied, "another key");
    Ok(())
}

// Cases: I8, C-X2
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_host_is_cut_off_within_five_seconds() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let agent = VirtualAgent::enrol(&site.api, pb::Env::Prod, "web-1").await?;
    let other = VirtualAgent::enrol(&site.api, pb::Env::Prod, "web-2").await?;
    let traffic = Arc::new(Traffic::default());
    let mut session = agent.session(CLOCK, 10_000, Arc::clone(&traffic)).await?;
    let _other = other.session(CLOCK, 10_000, Arc::clone(&traffic)).await?;
    let revoked =
        site.api.admin().revoke_host(pb::RevokeHostRequest { name: "web-1".into() }).await?.into_inner();
    assert_eq!(revoked.revoked, 1);
    let begun = Instant::now();
    let ended = tokio::time::timeout(PROMISED, async { while session.hear().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "the open stream goes on {} s after the revocation", begun.elapsed().as_secs());
    assert!(
        agent.session(CLOCK, 10_000, Arc::clone(&traffic)).await.is_err(),
        "a revoked host came in again"
    );
    other.session(CLOCK, 10_000, traffic).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_does_not_end_the_stream() -> anyhow::Result<()> {
    let site = Site::start_with(RULES, "[agents]\ncertificate_lifetime = \"10s\"\n").await?;
    let mut host = site.host("web-1", pb::Env::Prod).await?;
    host.start_agent()?;
    // One row a second: more of them than the first certificate lived, all over one stream.
    let outlived =
        wait_until("rows after the first certificate's end", Duration::from_secs(60), async || {
            let rows = site.api.stored("node_load1[5m]").await.ok()?;
            let (first, last) = (rows.first()?, rows.last()?);
            (last.at_ms - first.at_ms >= 13_000).then_some(())
        });
    outlived.await?;
    assert!(host.log()?.contains("the certificate is renewed"), "{}", host.log()?);
    let said = site.log()?;
    assert_eq!(said.matches("agent connected").count(), 1, "{said}");
    assert!(!said.contains("agent disconnected"), "{said}");
    Ok(())
}

// Cases: H13
#[tokio::test(flavor = "multi_thread")]
async fn the_agents_listener_wants_a_certificate() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let agents: Endpoint = site.addresses().agents.parse()?;
    let tls = tls::trusting(&site.api.authority_pem, None)?;
    // TLS 1.3 lets a client without its certificate believe for a moment that it is in.
    let entered = match connect(&agents, tls, Duration::from_secs(5)).await {
        Err(_) => false,
        Ok(channel) => AgentServiceClient::new(channel).session(tokio_stream::empty()).await.is_ok(),
    };
    assert!(!entered, "a session without a certificate");
    Ok(())
}
