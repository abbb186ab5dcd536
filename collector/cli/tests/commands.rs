//! The program itself against a collector made of canned answers: credential file, TLS, output and exit codes.
#![allow(clippy::unwrap_used, reason = "a test that meets what it does not expect has failed")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::process::Output;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use tocsin_proto::pb;
use tocsin_proto::pb::feed_service_server::{FeedService, FeedServiceServer};
use tocsin_proto::pb::incident_service_server::{IncidentService, IncidentServiceServer};
use tocsin_proto::pb::subscribe_request::From as Start;
use tocsin_proto::pb::subscribe_response::Kind;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const CREDENTIAL: &str = "tocsinc_test";

/// What was asked, and how far the consumer has acknowledged.
#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<String>>>,
    acked: Arc<watch::Sender<String>>,
}

impl Fake {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

fn incident(number: u64) -> pb::Incident {
    pb::Incident {
        number,
        title: format!("DiskFull on db-{number}"),
        env: pb::Env::Prod.into(),
        status: pb::IncidentStatus::Triggered.into(),
        severity: pb::Severity::Critical.into(),
        priority: 1,
        opened_at_ms: 1_795_428_770_000,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl IncidentService for Fake {
    async fn list_incidents(
        &self,
        _: Request<pb::ListIncidentsRequest>,
    ) -> Result<Response<pb::ListIncidentsResponse>, Status> {
        Ok(Response::new(pb::ListIncidentsResponse { incidents: vec![incident(12), incident(13)] }))
    }

    async fn get_incident(
        &self,
        request: Request<pb::GetIncidentRequest>,
    ) -> Result<Response<pb::GetIncidentResponse>, Status> {
        Err(Status::not_found(format!("there is no incident {}", request.into_inner().number)))
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeRequest>,
    ) -> Result<Response<pb::AcknowledgeResponse>, Status> {
        let pb::AcknowledgeRequest { number, note, expected_rev } = request.into_inner();
        self.note(format!("ack {number} {note:?} {expected_rev}"));
        let mut incident = incident(number);
        incident.status = pb::IncidentStatus::Acknowledged.into();
        Ok(Response::new(pb::AcknowledgeResponse { incident: Some(incident) }))
    }

    async fn add_note(
        &self,
        _: Request<pb::AddNoteRequest>,
    ) -> Result<Response<pb::AddNoteResponse>, Status> {
        Err(Status::permission_denied("\"ann\" with the role viewer may not call AddNote"))
    }

    async fn resolve(&self, _: Request<pb::ResolveRequest>) -> Result<Response<pb::ResolveResponse>, Status> {
        Ok(Response::new(pb::ResolveResponse { incident: None }))
    }
}

type Items = Pin<Box<dyn Stream<Item = Result<pb::SubscribeResponse, Status>> + Send>>;

fn item(seq: u64) -> Result<pb::SubscribeResponse, Status> {
    let event = pb::Event { seq, kind: "incident.triggered".into(), ..Default::default() };
    Ok(pb::SubscribeResponse { cursor: format!("c{seq}"), kind: Some(Kind::Event(event)) })
}

#[tonic::async_trait]
impl FeedService for Fake {
    type SubscribeStream = Items;

    /// Two events and a broken connection; for who comes back at the second, a third, and once that is
    /// acknowledged, an end that is not to be tried again.
    async fn subscribe(&self, request: Request<pb::SubscribeRequest>) -> Result<Response<Items>, Status> {
        let pb::SubscribeRequest { from, consumer, .. } = request.into_inner();
        self.note(format!("subscribe {consumer} {from:?}"));
        let (send, items) = tokio::sync::mpsc::channel(8);
        let mut acked = self.acked.subscribe();
        tokio::spawn(async move {
            if from == Some(Start::Cursor("c2".into())) {
                send.send(item(3)).await.ok();
                acked.wait_for(|cursor| cursor == "c3").await.ok();
                send.send(Err(Status::aborted("pager is followed elsewhere"))).await.ok();
            } else {
                send.send(item(1)).await.ok();
                send.send(item(2)).await.ok();
                send.send(Err(Status::unavailable("stopping"))).await.ok();
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(items))))
    }

    async fn ack(&self, request: Request<pb::AckRequest>) -> Result<Response<pb::AckResponse>, Status> {
        let pb::AckRequest { consumer, cursor } = request.into_inner();
        self.note(format!("done {consumer} {cursor}"));
        self.acked.send_replace(cursor);
        Ok(Response::new(pb::AckResponse { consumer: None }))
    }

    async fn list_consumers(
        &self,
        _: Request<pb::ListConsumersRequest>,
    ) -> Result<Response<pb::ListConsumersResponse>, Status> {
        Ok(Response::new(pb::ListConsumersResponse::default()))
    }
}

fn authenticated(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization").and_then(|value| value.to_str().ok()) {
        Some(value) if value == format!("Bearer {CREDENTIAL}") => Ok(request),
        _ => Err(Status::unauthenticated("it is not known")),
    }
}

/// Serves the fake behind TLS on a free port; gives the port and the certificate to trust.
async fn serve(fake: Fake) -> (u16, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(tocsin_shared::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = plain.local_addr().unwrap();
    let router = tonic::transport::Server::builder()
        .add_service(IncidentServiceServer::with_interceptor(fake.clone(), authenticated))
        .add_service(FeedServiceServer::with_interceptor(fake, authenticated));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(plain)));

    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = front.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = front.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = TcpStream::connect(inner).await.unwrap();
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await.ok();
            });
        }
    });
    (port, certificate.pem())
}

fn credential_file(dir: &Path, port: u16, ca: &str, credential: &str, mode: u32) {
    let file = dir.join("credential.toml");
    let text =
        format!("endpoint = \"127.0.0.1:{port}\"\nca = \"\"\"\n{ca}\"\"\"\ncredential = \"{credential}\"\n");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn tocsin(dir: &Path, line: &str) -> (i32, String, String) {
    let (file, line) = (dir.join("credential.toml"), line.to_owned());
    let run = move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_tocsin"))
            .arg("--credential")
            .arg(file)
            .args(line.split_whitespace())
            .output()
            .unwrap()
    };
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_ask_show_and_tell_by_their_exit_code() {
    let fake = Fake::default();
    let (port, ca) = serve(fake.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    credential_file(dir.path(), port, &ca, CREDENTIAL, 0o600);
    for (line, code, out, err) in [
        ("incidents", 0, "INC-13  P1  triggered", ""),
        ("incidents -o json", 0, "\"id\": \"INC-12\"", ""),
        ("incident ack INC-12 -m looking --rev 3", 0, "INC-12 is acknowledged: DiskFull on db-12", ""),
        ("incident show 99", 1, "", "tocsin: there is no incident 99\n"),
        ("incident note 12 x", 1, "", "tocsin: not allowed: \"ann\" with the role viewer"),
        ("incident resolve 12 --code fixed", 1, "", "tocsin: the collector's answer has no incident"),
        ("alerts", 1, "", "tocsin: the collector does not know this call"),
        ("query up --start 1h --end 2h", 2, "", "exchange --start and --end"),
        ("incident ack twelve", 2, "", "like 12 or INC-12"),
    ] {
        let (got, stdout, stderr) = tocsin(dir.path(), line).await;
        assert_eq!(got, code, "{line}: {stdout}{stderr}");
        assert!(stdout.contains(out) && stderr.contains(err), "{line}: {stdout}{stderr}");
        assert_eq!((stdout.is_empty(), stderr.is_empty()), (out.is_empty(), err.is_empty()), "{line}");
    }
    assert_eq!(*fake.asked.lock().unwrap(), ["ack 12 \"looking\" 3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_at_its_cursor_and_acknowledges_what_it_printed() {
    let fake = Fake::default();
    let (port, ca) = serve(fake.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    credential_file(dir.path(), port, &ca, CREDENTIAL, 0o600);
    let (code, stdout, stderr) = tocsin(dir.path(), "feed tail --consumer pager -o json").await;
    assert_eq!(code, 1, "{stderr}");
    let cursors: Vec<&str> = stdout.lines().map(|line| &line[..14]).collect();
    assert_eq!(cursors, ["{\"cursor\":\"c1\"", "{\"cursor\":\"c2\"", "{\"cursor\":\"c3\""]);
    assert!(stderr.contains("the feed was lost: stopping; trying again"), "{stderr}");
    assert!(stderr.contains("pager is followed elsewhere"), "{stderr}");
    let asked = fake.asked.lock().unwrap();
    let subscribed: Vec<&String> = asked.iter().filter(|asked| asked.starts_with("subscribe")).collect();
    assert_eq!(subscribed, ["subscribe pager Some(Acked(true))", "subscribe pager Some(Cursor(\"c2\"))"]);
    assert_eq!(asked.last().map(String::as_str), Some("done pager c3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_connection_is_said() {
    let (port, ca) = serve(Fake::default()).await;
    let (_, other_ca) = serve(Fake::default()).await;
    // Bound, so that nobody else gets the port, and never listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = closed.local_addr().unwrap().port();
    for (port, ca, credential, mode, code, says) in [
        (port, &ca, "tocsinc_other", 0o600, 1, "does not take this credential (it is not known)"),
        (
            port,
            &ca,
            CREDENTIAL,
            0o644,
            1,
            "has mode 644, so others can read the credential in it; run `chmod 600",
        ),
        (port, &other_ca, CREDENTIAL, 0o600, 3, "authority that is not trusted here"),
        (closed, &ca, CREDENTIAL, 0o600, 3, "refused the connection"),
        (port, &String::new(), CREDENTIAL, 0o600, 1, "holds no certificate"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        credential_file(dir.path(), port, ca, credential, mode);
        let (got, stdout, stderr) = tocsin(dir.path(), "incidents").await;
        assert_eq!((got, stdout.as_str()), (code, ""), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let empty = tempfile::tempdir().unwrap();
    let (code, _, stderr) = tocsin(empty.path(), "status").await;
    assert_eq!(code, 1);
    assert!(stderr.starts_with("tocsin: no credential found; looked for "), "{stderr}");
}

#[tokio::test]
async fn rule_files_are_checked_without_a_collector() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.yml"), dir.path().join("bad.yml"));
    std::fs::write(&good, "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up == 0\n").unwrap();
    std::fs::write(&bad, "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up ==\n").unwrap();
    let (code, stdout, _) = tocsin(dir.path(), &format!("rules check {}", good.display())).await;
    assert_eq!(code, 0);
    assert!(stdout.contains("good.yml: 1 group, 1 rule"), "{stdout}");
    let line = format!("rules check {} {}", good.display(), bad.display());
    let (code, stdout, stderr) = tocsin(dir.path(), &line).await;
    assert_eq!(code, 1);
    assert!(stdout.contains("bad.yml:5:"), "{stdout}");
    assert!(stderr.starts_with("tocsin: 1 mistake in 1 of 2 files"), "{stderr}");
}
