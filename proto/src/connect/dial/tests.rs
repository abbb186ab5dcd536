//! Names that fail, lead elsewhere or to nobody; certificates for other names.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tocsin_shared::tls::{ALPN_H2, provider, trusting};
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// An authority that signs certificates for servers.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn client(&self) -> TlsConnector {
        TlsConnector::from(trusting(&self.pem, None).unwrap())
    }

    /// A server with a certificate for a name; it says HTTP/2 and no more.
    async fn server(&self, name: &str) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let (acceptor, socket) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = socket.accept().await {
                open.push(acceptor.accept(stream).await);
            }
        });
        address
    }
}

/// Whether it is the error that people should see.
type Expected = fn(&ConnectError) -> bool;

fn endpoint() -> Endpoint {
    Endpoint { host: "collector.example".into(), port: 7641 }
}

/// A resolver's answer.
async fn says(addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, ConnectError> {
    match addresses {
        [] => Err(ConnectError::Unresolved { host: endpoint().host, reason: "no such host".into() }),
        some => Ok(some.to_vec()),
    }
}

/// A port that nobody listens on, held so that nobody else gets it.
fn closed() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

// Cases: N13, N22
#[tokio::test]
async fn where_a_name_leads_nowhere_the_last_good_address_is_tried_and_nobody_else_is_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = ours.server("collector.example").await;
    let other_name = ours.server("other.example").await;
    let other_authority = theirs.server("collector.example").await;
    let (_held, closed) = closed();
    let (endpoint, tls, last_good) = (endpoint(), ours.client(), LastGood::default());
    let strangers: [(&str, Vec<SocketAddr>, Expected); 4] = [
        ("no such name", vec![], |error| matches!(error, ConnectError::Unresolved { .. })),
        ("nobody there", vec![closed], |error| matches!(error, ConnectError::Refused(_))),
        ("another name", vec![other_name], |error| matches!(error, ConnectError::Name { .. })),
        ("another authority", vec![other_authority], |error| {
            matches!(error, ConnectError::UnknownAuthority { .. })
        }),
    ];
    for (why, leads_to, expected) in &strangers {
        let refused = dial(&endpoint, says(leads_to), &tls, (&last_good, PATIENCE)).await.unwrap_err();
        assert!(expected(&refused), "{why}: {refused}");
    }
    assert_eq!(last_good.get(), None);
    dial(&endpoint, says(&[good]), &tls, (&last_good, PATIENCE)).await.unwrap();
    assert_eq!(last_good.get(), Some(good));
    for (why, leads_to, _) in &strangers {
        let reached = dial(&endpoint, says(leads_to), &tls, (&last_good, PATIENCE)).await;
        assert!(reached.is_ok(), "{why}: {reached:?}");
        assert_eq!(last_good.get(), Some(good), "{why}");
    }
    // A resolver that never answers leaves half of the time.
    let silent = std::future::pending();
    dial(&endpoint, silent, &tls, (&last_good, Duration::from_secs(2))).await.unwrap();
    // Whoever sits at the last good address now has to prove the name like anyone.
    let taken = LastGood(Mutex::new(Some(other_name)));
    let refused = dial(&endpoint, says(&[]), &tls, (&taken, PATIENCE)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unresolved { .. }), "{refused}");
}

// Cases: N13
#[tokio::test]
async fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
    let ours = Authority::new();
    let good = ours.server("collector.example").await;
    let full = never_answers().await;
    let begun = tokio::time::Instant::now();
    let last_good = LastGood::default();
    dial(&endpoint(), says(&[full.1, full.1, good]), &ours.client(), (&last_good, PATIENCE)).await.unwrap();
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert_eq!(last_good.get(), Some(good));
}

/// An address at which a connection is never made: its queue of one is taken.
async fn never_answers() -> ((TcpListener, Vec<TcpStream>), SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut taken = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(STAGGER, TcpStream::connect(address)).await {
        taken.push(stream);
    }
    ((listener, taken), address)
}

// Cases: N13
#[test]
fn families_take_turns_within_a_bound() {
    let (four, six) = ("10.0.0.1:1", "[2001:db8::1]:1");
    for (found, turns) in [
        (vec![], vec![]),
        (vec![four], vec![four]),
        (vec![six, six, six, four, four], vec![six, four, six, four, six]),
        (vec![four, six], vec![four, six]),
        (vec![six; 100], vec![six; ADDRESSES_MAX]),
        ([vec![six; 100], vec![four; 100]].concat(), [six, four].repeat(ADDRESSES_MAX / 2)),
    ] {
        let parse = |texts: &[&str]| texts.iter().map(|at| at.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(in_turns(parse(&found).into_iter()), parse(&turns));
    }
}
