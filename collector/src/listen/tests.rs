//! The accept loop against real sockets, good clients and bad ones.

use super::certificate::ServerCertificate;
use super::tls::{Admit, TlsMin, TrustedAuthorities, agents_tls, front_tls};
use super::*;
use crate::identity::ca::{AGENT_LIFETIME, Authority};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use std::sync::atomic::AtomicBool;
use tocsin_proto::connect::{ConnectError, Endpoint, connect};
use tocsin_shared::certificate::AgentUri;
use tocsin_shared::identity::AgentId;
use tocsin_shared::secret::Secret;
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls::{self as client_tls, ClientIdentity};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;
use tonic::transport::server::Connected as _;

/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Certificates are checked by TLS against the real clock, so tests issue them for now.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

struct Site {
    _dir: tempfile::TempDir,
    authority: Authority,
    /// The same authority, to sign what it would not.
    key_pem: String,
    certificate: Arc<ServerCertificate>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create_or_load(&dir.path().join("ca"), now()).unwrap();
        let key_pem = std::fs::read_to_string(dir.path().join("ca/ca.key")).unwrap();
        let issued = authority.issue_server(&names(&["localhost", "127.0.0.1"]), now()).unwrap();
        let certificate = ServerCertificate::issued(&issued, now()).unwrap();
        Self { _dir: dir, authority, key_pem, certificate }
    }

    async fn agents(&self, limits: Limits, admit: Admit) -> (Endpoint, Incoming) {
        let cluster = self.authority.cluster();
        let trusted = TrustedAuthorities::new(self.authority.pem()).unwrap();
        let tls = agents_tls(Arc::clone(&self.certificate), trusted, cluster, admit).unwrap();
        open(tls, Clients::Agents { cluster }, limits).await
    }

    async fn front(&self, limits: Limits, min: TlsMin) -> (Endpoint, Incoming) {
        open(front_tls(Arc::clone(&self.certificate), min).unwrap(), Clients::Anyone, limits).await
    }

    fn agent(&self, id: u128) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let issued =
            self.authority.issue_agent(csr.der(), AgentId(Uuid::from_u128(id)), 1, now(), AGENT_LIFETIME);
        ClientIdentity { chain_pem: issued.unwrap().pem, key_pem: Secret::new(key.serialize_pem()) }
    }

    /// What an attacker with the authority's key, or a mistake of ours, could make.
    fn forged(&self, change: impl FnOnce(&mut CertificateParams)) -> ClientIdentity {
        let ca_key = KeyPair::from_pem(&self.key_pem).unwrap();
        let issuer = Issuer::from_ca_cert_pem(self.authority.pem(), ca_key).unwrap();
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.subject_alt_names = vec![self.uri(self.authority.cluster())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(rcgen::SerialNumber::from(7)); // The default has 160 bits.
        change(&mut params);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        ClientIdentity { chain_pem: certificate.pem(), key_pem: Secret::new(key.serialize_pem()) }
    }

    fn uri(&self, cluster: Uuid) -> SanType {
        let name = AgentUri { cluster, agent: AgentId(Uuid::from_u128(1)) };
        SanType::URI(name.to_string().try_into().unwrap())
    }

    fn trust(&self, identity: Option<&ClientIdentity>) -> Arc<rustls::ClientConfig> {
        client_tls::trusting(self.authority.pem(), identity).unwrap()
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn all() -> Admit {
    Arc::new(|_| true)
}

async fn open(tls: Arc<ServerConfig>, clients: Clients, limits: Limits) -> (Endpoint, Incoming) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let endpoint = Endpoint { host: "localhost".into(), port: listener.local_addr().port() };
    (endpoint, listener.accept(tls, clients, limits))
}

async fn tcp(endpoint: &Endpoint) -> TcpStream {
    TcpStream::connect(("127.0.0.1", endpoint.port)).await.unwrap()
}

/// Speaks as a client until the server closes; what the server said, as far as it got.
async fn speak(endpoint: &Endpoint, tls: Arc<rustls::ClientConfig>) -> Result<Vec<u8>, io::Error> {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(tls).connect(name, tcp(endpoint).await).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("the server never closes")?;
    Ok(said)
}

/// A handshake, and nothing after it.
async fn speak_tls(endpoint: &Endpoint, tls: Arc<rustls::ClientConfig>) -> Result<(), io::Error> {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    TlsConnector::from(tls).connect(name, tcp(endpoint).await).await.map(drop)
}

/// A connection that stays open on both sides.
async fn meet(
    endpoint: &Endpoint,
    incoming: &mut Incoming,
    tls: Arc<rustls::ClientConfig>,
) -> (tokio_rustls::client::TlsStream<TcpStream>, Connection) {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let client = TlsConnector::from(tls).connect(name, tcp(endpoint).await).await.unwrap();
    (client, next(incoming).await)
}

async fn next(incoming: &mut Incoming) -> Connection {
    let Ok(connection) = tokio::time::timeout(PATIENCE, incoming.next())
        .await
        .expect("no connection")
        .expect("the loop ended");
    connection
}

fn loaded(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn an_agent_comes_in_with_its_identity() {
    let site = Site::new();
    let (endpoint, mut incoming) = site.agents(Limits::default(), all()).await;
    let (mut client, mut connection) = meet(&endpoint, &mut incoming, site.trust(Some(&site.agent(7)))).await;
    let identity = connection.peer.certificate.clone().unwrap();
    assert_eq!(identity.agent, AgentId(Uuid::from_u128(7)));
    assert_eq!(connection.connect_info().certificate, Some(identity));
    assert_eq!(connection.protocol(), Some(ALPN_H2));
    client.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    connection.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

// Cases: H13
#[tokio::test]
async fn bad_certificates_never_reach_the_application() {
    let (site, stranger) = (Site::new(), Site::new());
    let (endpoint, mut incoming) = site.agents(Limits::default(), all()).await;
    let counts = incoming.counts();
    let server = site.authority.issue_server(&names(&["localhost"]), now()).unwrap();
    let self_signed = {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.subject_alt_names = vec![site.uri(site.authority.cluster())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let pem = params.self_signed(&key).unwrap().pem();
        ClientIdentity { chain_pem: pem, key_pem: Secret::new(key.serialize_pem()) }
    };
    let cluster = site.authority.cluster();
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let mut padded = site.agent(1);
    padded.chain_pem.push_str(&site.authority.pem().repeat(4));
    let mut huge = site.agent(1);
    huge.chain_pem.push_str(&site.authority.pem().repeat(150));
    let table: Vec<(&str, Option<ClientIdentity>)> = vec![
        ("no certificate", None),
        ("another authority", Some(stranger.agent(1))),
        ("self-signed", Some(self_signed)),
        ("expired", Some(site.forged(|p| p.not_after = date_time_ymd(2020, 1, 1)))),
        ("not valid yet", Some(site.forged(|p| p.not_before = date_time_ymd(4000, 1, 1)))),
        (
            "server authentication",
            Some(site.forged(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ),
        (
            "client and server",
            Some(site.forged(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth))),
        ),
        ("any purpose", Some(site.forged(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)))),
        ("no purpose", Some(site.forged(|p| p.extended_key_usages.clear()))),
        ("no name", Some(site.forged(|p| p.subject_alt_names.clear()))),
        ("two names", Some(site.forged(|p| p.subject_alt_names.push(site.uri(cluster))))),
        ("a second name of another kind", Some(site.forged(|p| p.subject_alt_names.push(dns("web-1"))))),
        ("a DNS name only", Some(site.forged(|p| p.subject_alt_names = vec![dns("web-1")]))),
        ("another cluster", Some(site.forged(|p| p.subject_alt_names = vec![site.uri(Uuid::from_u128(9))]))),
        (
            "an authority",
            Some(site.forged(|p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained))),
        ),
        (
            "the server's own",
            Some(ClientIdentity { chain_pem: server.chain_pem.clone(), key_pem: server.key_pem.clone() }),
        ),
        ("a chain of five", Some(padded)),
        ("a chain of 100 KiB", Some(huge)),
    ];
    for (name, identity) in &table {
        // Closed without a word, with an alert or by a reset: no byte of an answer.
        let said = speak(&endpoint, site.trust(identity.as_ref())).await.unwrap_or_default();
        assert!(said.is_empty(), "{name}: {said:?}");
    }
    // Were one let in, it would stand in the queue before this one.
    let (_client, connection) = meet(&endpoint, &mut incoming, site.trust(Some(&site.forged(|_| ())))).await;
    assert_eq!(connection.peer.certificate.unwrap().agent, AgentId(Uuid::from_u128(1)));
    assert_eq!(loaded(&counts.accepted), 1);
    assert_eq!(loaded(&counts.handshake_failed), table.len() as u64);
}

// Cases: I8, H14
#[tokio::test]
async fn a_revoked_certificate_is_refused_at_the_next_connection() {
    let site = Site::new();
    let admitted = Arc::new(AtomicBool::new(true));
    let registry = Arc::clone(&admitted);
    let (endpoint, mut incoming) =
        site.agents(Limits::default(), Arc::new(move |_| registry.load(Ordering::SeqCst))).await;
    let tls = site.trust(Some(&site.agent(7)));
    drop(meet(&endpoint, &mut incoming, Arc::clone(&tls)).await);
    admitted.store(false, Ordering::SeqCst);
    assert!(speak(&endpoint, tls).await.unwrap_or_default().is_empty());
    assert_eq!(loaded(&incoming.counts().not_admitted), 1);
    assert_eq!(loaded(&incoming.counts().accepted), 1);
}

// Cases: H14
#[tokio::test]
async fn no_session_is_resumed() {
    let site = Site::new();
    let (endpoint, mut incoming) = site.agents(Limits::default(), all()).await;
    // A client that would keep and use a ticket, if it were given one.
    let mut willing = (*site.trust(Some(&site.agent(7)))).clone();
    willing.resumption = rustls::client::Resumption::default();
    let willing = Arc::new(willing);
    for round in 0..3 {
        let (mut client, mut connection) = meet(&endpoint, &mut incoming, Arc::clone(&willing)).await;
        // A ticket comes after the handshake, before the first word.
        connection.write_all(b"hello").await.unwrap();
        connection.flush().await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();
        let session = client.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full), "connection {round}");
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}

// Cases: N22
#[tokio::test]
async fn clients_check_whom_they_talk_to() {
    let (site, stranger) = (Site::new(), Site::new());
    let (localhost, _incoming) = site.front(Limits::default(), TlsMin::V1_3).await;
    let v6 = Endpoint { host: "127.0.0.1".into(), port: localhost.port };
    let expired = {
        // The clock of the listener's check is a parameter, so it can be made to take an old certificate.
        let long_ago = now().minus(Duration::from_secs(200 * 86_400));
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create_or_load(&dir.path().join("ca"), long_ago).unwrap();
        let issued = authority.issue_server(&names(&["localhost"]), long_ago).unwrap();
        let certificate = ServerCertificate::issued(&issued, long_ago).unwrap();
        let front = front_tls(certificate, TlsMin::V1_3).unwrap();
        (
            open(front, Clients::Anyone, Limits::default()).await,
            client_tls::trusting(authority.pem(), None).unwrap(),
        )
    };
    let named = {
        let issued =
            site.authority.issue_server(&names(&["collector.example.com", "10.0.0.1"]), now()).unwrap();
        let front = front_tls(ServerCertificate::issued(&issued, now()).unwrap(), TlsMin::V1_3).unwrap();
        open(front, Clients::Anyone, Limits::default()).await
    };
    let pin = client_tls::pinned(site.authority.pin()).unwrap();
    let wrong_pin = client_tls::pinned(stranger.authority.pin()).unwrap();
    for (endpoint, tls, says) in [
        (&localhost, Arc::clone(&pin), ""),
        (&v6, Arc::clone(&pin), ""),
        (&localhost, site.trust(None), ""),
        (&localhost, wrong_pin, "this is another collector"),
        (&localhost, stranger.trust(None), "an authority that is not trusted"),
        (&named.0, pin, "not for that name but for collector.example.com, 10.0.0.1;"),
        (&named.0, site.trust(None), "add the name to the collector's `names`"),
        (&expired.0.0, expired.1, "check the clocks"),
    ] {
        let error = connect(endpoint, tls, PATIENCE).await.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(says) && says.is_empty() == error.is_empty(), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_chain_that_only_shows_the_pinned_authority_proves_nothing() {
    let (site, attacker) = (Site::new(), Site::new());
    // The attacker's own certificate, with the real authority's copied behind it.
    let issued = attacker.authority.issue_server(&names(&["localhost"]), now()).unwrap();
    let leaf_end = issued.chain_pem.len() - attacker.authority.pem().len();
    let chain = issued.chain_pem[..leaf_end].to_owned() + site.authority.pem();
    let certificate = ServerCertificate::new(&chain, &issued.key_pem, now()).unwrap();
    let front = front_tls(certificate, TlsMin::V1_3).unwrap();
    let (endpoint, _incoming) = open(front, Clients::Anyone, Limits::default()).await;
    let error =
        connect(&endpoint, client_tls::pinned(site.authority.pin()).unwrap(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ConnectError::UnknownAuthority { .. }), "{error}");
}

// Cases: H5
#[tokio::test]
async fn silent_peers_are_dropped_before_and_after_the_handshake() {
    let site = Site::new();
    let limits = Limits { handshake: Duration::from_millis(30), ..Limits::default() };
    let (endpoint, incoming) = site.front(limits, TlsMin::V1_3).await;
    let counts = incoming.counts();
    for opening in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half a ClientHello"] {
        let mut stream = tcp(&endpoint).await;
        stream.write_all(opening).await.unwrap();
        let mut said = Vec::new();
        // Ends when the server hangs up; a reset is as good.
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("never dropped").ok();
        assert!(said.is_empty(), "{said:?}");
    }
    assert_eq!((loaded(&counts.handshake_late), loaded(&counts.accepted)), (3, 0));

    let limits = Limits { opening: Duration::from_millis(30), ..Limits::default() };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let (mut client, mut connection) = meet(&endpoint, &mut incoming, site.trust(None)).await;
    client.write_all(b"PRI * HTTP/2").await.unwrap();
    let mut got = Vec::new();
    let error = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut got)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn who_has_spoken_is_not_cut_off() {
    let site = Site::new();
    let limits = Limits { opening: Duration::from_millis(500), ..Limits::default() };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let (mut client, mut connection) = meet(&endpoint, &mut incoming, site.trust(None)).await;
    client.write_all(&[b'x'; 24]).await.unwrap();
    connection.read_exact(&mut [0; 24]).await.unwrap();
    let mut more = [0; 1];
    let wait = tokio::time::timeout(Duration::from_millis(600), connection.read_exact(&mut more)).await;
    assert!(wait.is_err(), "a connection that has begun may be idle: {wait:?}");
}

// Cases: H6
#[tokio::test]
async fn an_address_has_its_share_until_it_proves_who_it_is() {
    let site = Site::new();
    let limits = Limits { per_address: 2, ..Limits::default() };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let counts = incoming.counts();
    let first = meet(&endpoint, &mut incoming, site.trust(None)).await;
    let second = meet(&endpoint, &mut incoming, site.trust(None)).await;
    assert!(speak(&endpoint, site.trust(None)).await.unwrap_or_default().is_empty());
    assert_eq!((loaded(&counts.accepted), loaded(&counts.over_address)), (2, 1));
    first.1.peer.authenticated();
    first.1.peer.authenticated();
    let third = meet(&endpoint, &mut incoming, site.trust(None)).await;
    assert!(
        speak(&endpoint, site.trust(None)).await.unwrap_or_default().is_empty(),
        "only one share was given back"
    );
    drop((second, third));
    let _fourth = meet(&endpoint, &mut incoming, site.trust(None)).await;

    let limits = Limits { exempt_loopback: true, ..limits };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(meet(&endpoint, &mut incoming, site.trust(None)).await);
    }
}

// Cases: H6
#[tokio::test]
async fn agents_count_by_agent_and_all_count_in_total() {
    let site = Site::new();
    let limits = Limits { per_address: 1, per_agent: 1, connections: 2, ..Limits::default() };
    let (endpoint, mut incoming) = site.agents(limits, all()).await;
    let counts = incoming.counts();
    let (one, two) = (site.trust(Some(&site.agent(1))), site.trust(Some(&site.agent(2))));
    let first = meet(&endpoint, &mut incoming, Arc::clone(&one)).await;
    assert!(speak(&endpoint, Arc::clone(&one)).await.unwrap_or_default().is_empty());
    assert_eq!(loaded(&counts.over_agent), 1);
    let _second = meet(&endpoint, &mut incoming, Arc::clone(&two)).await;
    assert!(speak(&endpoint, Arc::clone(&two)).await.unwrap_or_default().is_empty());
    assert_eq!(loaded(&counts.over_connections), 1);
    drop(first);
    let _third = meet(&endpoint, &mut incoming, one).await;
}

// Cases: H5
#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_off() {
    let site = Site::new();
    let limits = Limits { stall: Duration::from_millis(50), ..Limits::default() };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let counts = incoming.counts();
    let (_silent, mut connection) = meet(&endpoint, &mut incoming, site.trust(None)).await;
    let much = vec![0; 64 << 20]; // More than the kernel keeps for both ends.
    let wrote = tokio::time::timeout(PATIENCE, connection.write_all(&much)).await.expect("it waits for ever");
    assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(loaded(&counts.cut_slow), 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_ends_while_it_is_quiet() {
    let site = Site::new();
    let (endpoint, mut incoming) = site.front(Limits::default(), TlsMin::V1_3).await;
    let (_client, mut connection) = meet(&endpoint, &mut incoming, site.trust(None)).await;
    let peer = connection.connect_info();
    let mut byte = [0];
    let reading = async { connection.read(&mut byte).await.map(drop) };
    let (read, ()) = tokio::join!(reading, async { peer.cut() });
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

// Cases: H6
#[tokio::test]
async fn an_address_that_comes_too_often_is_turned_away() {
    let site = Site::new();
    let limits = Limits { per_address_per_second: 1, per_address: 100, ..Limits::default() };
    let (endpoint, incoming) = site.front(limits, TlsMin::V1_3).await;
    let mut let_in = 0;
    for _ in 0..30 {
        let_in += usize::from(speak_tls(&endpoint, site.trust(None)).await.is_ok());
    }
    assert!((10..=14).contains(&let_in), "{let_in} of 30, ten at once and one a second");
    assert_eq!(loaded(&incoming.counts().over_rate), 30 - let_in as u64);
}

/// A peer that has said its first words and says no more.
async fn half_way(endpoint: &Endpoint, tls: Arc<rustls::ClientConfig>) -> TcpStream {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(tls, name).unwrap();
    let (mut words, mut stream) = (Vec::new(), tcp(endpoint).await);
    client.write_tls(&mut words).unwrap();
    stream.write_all(&words).await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap(); // The answer has begun: it has its place.
    stream
}

// Cases: N19, H5
#[tokio::test]
async fn handshakes_beyond_the_limit_wait_their_turn() {
    let site = Site::new();
    let limits = Limits { handshakes: 1, handshake: PATIENCE, turn: PATIENCE, ..Limits::default() };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let silent = tcp(&endpoint).await;
    let mut halting = tcp(&endpoint).await;
    halting.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half").await.unwrap();
    let _first = meet(&endpoint, &mut incoming, site.trust(None)).await;
    let slow = half_way(&endpoint, site.trust(None)).await;
    let (place, tls) = (endpoint.clone(), site.trust(None));
    let patient = tokio::spawn(async move { connect(&place, tls, PATIENCE).await });
    let early = tokio::time::timeout(Duration::from_millis(100), incoming.next()).await;
    assert!(early.is_err(), "the slow one has the only place: {early:?}");
    drop(slow);
    let _second = next(&mut incoming).await;
    patient.await.unwrap().unwrap();
    drop((silent, halting));
}

// Cases: N19, H5, H6, C-D5
#[tokio::test]
async fn who_gets_no_turn_is_turned_away_before_any_work() {
    let site = Site::new();
    let turn = Duration::from_millis(50);
    let limits = Limits { arrivals: 1, handshakes: 1, handshake: PATIENCE, turn, ..Limits::default() };
    let (endpoint, mut incoming) = site.front(limits, TlsMin::V1_3).await;
    let counts = incoming.counts();
    let slow = half_way(&endpoint, site.trust(None)).await;
    assert!(
        speak_tls(&endpoint, site.trust(None)).await.is_err(),
        "it waited for its turn, and there was none"
    );
    assert_eq!((loaded(&counts.over_handshakes), loaded(&counts.handshake_failed)), (1, 0));
    let silent = tcp(&endpoint).await;
    let full = async {
        // The silent one stands where others would wait; whoever comes now is dropped at once.
        while loaded(&counts.over_handshakes) < 2 {
            speak_tls(&endpoint, site.trust(None)).await.ok();
        }
    };
    tokio::time::timeout(PATIENCE, full).await.expect("it is never full");
    drop((slow, silent));
    let again = async { while speak_tls(&endpoint, site.trust(None)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("nobody comes in again");
    let _connection = next(&mut incoming).await;
}

// Cases: N19, C-D5
#[tokio::test]
async fn an_agent_holds_its_place_until_it_has_its_welcome() {
    let site = Site::new();
    let turn = Duration::from_millis(50);
    let limits = Limits { handshakes: 1, turn, ..Limits::default() };
    let (endpoint, mut incoming) = site.agents(limits, all()).await;
    let counts = incoming.counts();
    let (one, two) = (site.trust(Some(&site.agent(1))), site.trust(Some(&site.agent(2))));
    let (_first, connection) = meet(&endpoint, &mut incoming, one).await;
    assert!(speak_tls(&endpoint, Arc::clone(&two)).await.is_err(), "the first one waits for its Welcome");
    assert_eq!((loaded(&counts.over_handshakes), loaded(&counts.accepted)), (1, 1));
    connection.peer.arrival().cancel();
    let (_second, second) = meet(&endpoint, &mut incoming, Arc::clone(&two)).await;
    drop(second); // It left.
    let _third = meet(&endpoint, &mut incoming, two).await;
}

#[tokio::test]
async fn an_agent_learns_that_its_certificate_is_refused() {
    let (site, stranger) = (Site::new(), Site::new());
    let (endpoint, incoming) = site.agents(Limits::default(), Arc::new(|_| false)).await;
    let (_, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().serve_with_incoming_shutdown(
        health,
        incoming,
        std::future::pending::<()>(),
    );
    let server = tokio::spawn(server);
    for (identity, says) in [
        (None, "does not take our certificate"),
        (Some(stranger.agent(1)), "does not take our certificate"),
        (
            Some(site.forged(|params| params.not_after = date_time_ymd(2020, 1, 1))),
            "does not take our certificate",
        ),
        (Some(site.agent(1)), "(CertificateRevoked)"),
    ] {
        // The client's handshake is over before the server has looked, so it may be the first call that fails.
        let error = match connect(&endpoint, site.trust(identity.as_ref()), PATIENCE).await {
            Err(error) => error,
            Ok(channel) => {
                let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
                let status = client.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap_err();
                tocsin_proto::connect::explain(&endpoint, &status)
            }
        };
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    server.abort();
}

// Cases: H12
#[tokio::test]
async fn each_listener_speaks_its_protocols_only() {
    let site = Site::new();
    let (agents, mut agents_in) = site.agents(Limits::default(), all()).await;
    let (front, mut front_in) = site.front(Limits::default(), TlsMin::V1_3).await;
    let (lenient, mut lenient_in) = site.front(Limits::default(), TlsMin::V1_2).await;
    let agent = site.agent(1);
    let client = |version, protocols: &[&[u8]], identity: Option<&ClientIdentity>| {
        let authority = client_tls::certificates(site.authority.pem(), "test").unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(client_tls::provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(client_tls::roots(&authority).unwrap());
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { chain_pem, key_pem }) => builder
                .with_client_auth_cert(
                    client_tls::certificates(chain_pem, "test").unwrap(),
                    client_tls::private_key(key_pem).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    };
    let (v12, v13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    let (h2, http1): (&[&[u8]], &[&[u8]]) = (&[b"h2"], &[b"http/1.1"]);
    for (name, endpoint, tls) in [
        ("agents, TLS 1.2", &agents, client(v12, h2, Some(&agent))),
        ("agents, no protocol", &agents, client(v13, &[], Some(&agent))),
        ("agents, HTTP/1.1", &agents, client(v13, http1, Some(&agent))),
        ("front, TLS 1.2", &front, client(v12, h2, None)),
        ("front, another protocol", &front, client(v13, &[b"smtp"], None)),
    ] {
        assert!(speak(endpoint, tls).await.unwrap_or_default().is_empty(), "{name}");
    }
    let _good = meet(&agents, &mut agents_in, client(v13, h2, Some(&agent))).await;
    assert_eq!(loaded(&agents_in.counts().accepted), 1);
    let met = meet(&front, &mut front_in, client(v13, http1, None)).await;
    assert_eq!(met.1.protocol(), Some(&b"http/1.1"[..]));
    let _old = meet(&lenient, &mut lenient_in, client(v12, h2, None)).await;
}

// Cases: I7
#[tokio::test]
async fn a_new_certificate_takes_over_without_a_restart_and_a_bad_one_does_not() {
    let site = Site::new();
    let (endpoint, _incoming) = site.front(Limits::default(), TlsMin::V1_3).await;
    let pin = client_tls::pinned(site.authority.pin()).unwrap();
    connect(&endpoint, Arc::clone(&pin), PATIENCE).await.unwrap();

    let other = site.authority.issue_server(&names(&["localhost"]), now()).unwrap();
    let old =
        site.authority.issue_server(&names(&["localhost"]), now().minus(Duration::from_secs(91 * 86_400)));
    let nameless = site.forged(|params| params.subject_alt_names.clear());
    let before = site.certificate.validity();
    for (chain, key, says) in [
        (&other.chain_pem, &Secret::new(site.key_pem.as_str()), "do not go together"),
        (&old.as_ref().unwrap().chain_pem, &old.as_ref().unwrap().key_pem, "valid from"),
        (&other.chain_pem[..other.chain_pem.len() - 40].to_owned(), &other.key_pem, "damaged"),
        (&String::new(), &other.key_pem, "no certificate"),
        (&other.chain_pem, &Secret::new(""), "private key"),
        (&nameless.chain_pem, &nameless.key_pem, "names no server"),
    ] {
        let error = site.certificate.replace(chain, key, now()).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!(site.certificate.validity(), before, "{says}");
    }
    connect(&endpoint, Arc::clone(&pin), PATIENCE).await.unwrap();

    let moved = site.authority.issue_server(&names(&["collector.example.com"]), now()).unwrap();
    site.certificate.replace(&moved.chain_pem, &moved.key_pem, now()).unwrap();
    assert_eq!(site.certificate.pin(), site.authority.pin());
    let error = connect(&endpoint, pin, PATIENCE).await.unwrap_err();
    assert!(matches!(error, ConnectError::Name { .. }), "{error}");
}

#[tokio::test]
async fn an_occupied_port_is_named() {
    let first = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr();
    assert_ne!(address.port(), 0);
    let error = Listener::bind(address).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{address} is in use by another program; stop it (`ss -ltnp` names it) or configure another port"
        )
    );
    let error = Listener::bind("192.0.2.1:0".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.starts_with("this host has no address 192.0.2.1"), "{error}");
}

#[tokio::test]
async fn dropping_the_connections_closes_the_port() {
    let site = Site::new();
    let (endpoint, incoming) = site.front(Limits::default(), TlsMin::V1_3).await;
    drop(incoming);
    let closed = async {
        while TcpStream::connect(("127.0.0.1", endpoint.port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the port stays open");
}

// Cases: C10
#[test]
fn only_want_of_means_pauses_the_loop() {
    for (error, pauses) in [
        (io::Error::from_raw_os_error(nix::libc::EMFILE), true),
        (io::Error::from_raw_os_error(nix::libc::ENFILE), true),
        (io::Error::from_raw_os_error(nix::libc::ENOBUFS), true),
        (io::Error::from_raw_os_error(nix::libc::ENOMEM), true),
        (io::Error::from_raw_os_error(nix::libc::ECONNABORTED), false),
        (io::Error::from_raw_os_error(nix::libc::EINTR), false),
    ] {
        assert_eq!(pause_after(&error).is_some(), pauses, "{error}");
    }
}

#[tokio::test]
async fn tonic_serves_what_comes_in() {
    let site = Site::new();
    let (endpoint, incoming) = site.agents(Limits::default(), all()).await;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("tocsin", tonic_health::ServingStatus::Serving).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ended = async {
        stopped.await.ok();
    };
    let server = tonic::transport::Server::builder().serve_with_incoming_shutdown(health, incoming, ended);
    let server = tokio::spawn(server);
    let tls = site.trust(Some(&site.agent(1)));
    let channel = connect(&endpoint, tls, PATIENCE).await.unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "tocsin".into() };
    assert_eq!(client.check(request).await.unwrap().into_inner().status, 1);
    drop(client);
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap().unwrap();
}

// Cases: I6
#[tokio::test]
async fn trust_and_certificate_change_while_the_listener_listens() {
    let (old, new) = (Site::new(), Site::new());
    let trusted = TrustedAuthorities::new(old.authority.pem()).unwrap();
    // The second authority is one of the same cluster.
    let dir = tempfile::tempdir().unwrap();
    let cluster = old.authority.cluster();
    let next = Authority::create(&dir.path().join("next"), cluster, now()).unwrap();
    let key_pem = std::fs::read_to_string(dir.path().join("next/ca.key")).unwrap();
    let new = Site { authority: next, key_pem, ..new };
    let certificate = Arc::clone(&old.certificate);
    let tls = agents_tls(Arc::clone(&certificate), Arc::clone(&trusted), cluster, all()).unwrap();
    let (endpoint, mut incoming) = open(tls, Clients::Agents { cluster }, Limits::default()).await;
    let served = tokio::spawn(async move {
        while let Some(Ok(mut connection)) = incoming.next().await {
            connection.write_all(b"hello").await.ok();
            connection.shutdown().await.ok();
        }
    });
    let (of_old, of_new) = (old.agent(1), new.agent(1));
    let bundle = format!("{}{}", old.authority.pem(), new.authority.pem());
    let enters = async |identity: &ClientIdentity, trusts: &str| {
        let tls = client_tls::trusting(trusts, Some(identity)).unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let Ok(mut client) = TlsConnector::from(tls).connect(name, tcp(&endpoint).await).await else {
            return false;
        };
        let heard = tokio::time::timeout(PATIENCE, client.read_exact(&mut [0; 5])).await;
        heard.expect("the server says nothing").is_ok()
    };
    type Step<'a> = (&'a str, &'a dyn Fn(), [bool; 3]);
    let steps: [Step<'_>; 4] = [
        ("before", &|| {}, [true, true, false]),
        ("begun", &|| trusted.replace(&bundle).unwrap(), [true, true, true]),
        (
            "switched",
            &|| {
                let issued = new.authority.issue_server(&names(&["localhost"]), now()).unwrap();
                certificate.replace(&issued.chain_pem, &issued.key_pem, now()).unwrap();
            },
            [false, true, true],
        ),
        ("finished", &|| trusted.replace(new.authority.pem()).unwrap(), [false, false, true]),
    ];
    for (step, take, expected) in steps {
        take();
        let got = [
            enters(&of_old, old.authority.pem()).await,
            enters(&of_old, &bundle).await,
            enters(&of_new, &bundle).await,
        ];
        assert_eq!(
            got, expected,
            "{step}: who knows only the old one, who has a certificate of it, of the new one"
        );
    }
    assert!(trusted.replace("").is_err() && enters(&of_new, &bundle).await, "a mistake changes nothing");
    served.abort();
}
