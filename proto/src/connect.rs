//! A gRPC channel to a collector, or a sentence that says what is in the way.
//!
//! Promise: TLS always, one deadline for all of name, TCP, TLS and HTTP/2; a dead peer is noticed within 30 s, also
//! while nothing is said (keep-alive pings every 10 s, answered within 20 s). How an address is found and a
//! connection made, `dial` knows.
//! Not here: whom to trust (`tocsin-shared`'s `tls`), retries and back-off (the callers').

mod dial;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tocsin_shared::tls::PinMismatch;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

pub use dial::LastGood;

/// How often a ping is sent; with the time to answer below, a dead peer costs at most 30 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a collector listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A DNS name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    #[error("{0:?} names no port; write HOST:PORT, for example collector.example.com:7640")]
    Port(String),
    #[error("{0:?} is not HOST:PORT or [IPV6]:PORT")]
    Host(String),
    #[error("{0:?} asks for plain HTTP; a collector speaks TLS only: write HOST:PORT or https://HOST:PORT")]
    Plain(String),
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    /// `HOST:PORT`, `[::1]:PORT`, with or without `https://` before and `/` after.
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let shown = || text.chars().take(100).collect::<String>();
        let place = text.trim();
        if place.starts_with("http://") {
            return Err(InvalidEndpoint::Plain(shown()));
        }
        let place = place.strip_prefix("https://").unwrap_or(place);
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or_else(|| InvalidEndpoint::Port(shown()))?,
            None => place.rsplit_once(':').ok_or_else(|| InvalidEndpoint::Port(shown()))?,
        };
        let bracketed = place.starts_with('[');
        if bracketed != host.contains(':') || ServerName::try_from(host).is_err() {
            return Err(InvalidEndpoint::Host(shown()));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self { host: host.to_owned(), port }),
            _ => Err(InvalidEndpoint::Port(shown())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why there is no channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot find {host:?}: {reason}; check the name and the resolver")]
    Unresolved { host: String, reason: String },
    #[error("{0} refused the connection; is the collector running, and is this its port")]
    Refused(Endpoint),
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable { endpoint: Endpoint, reason: String },
    #[error("{endpoint} did not answer within {seconds} s; check the firewall between", seconds = .within.as_secs_f64())]
    TimedOut { endpoint: Endpoint, within: Duration },
    #[error(
        "this is another collector: the certificate authority of {0} is not the one that the token was made for"
    )]
    OtherCollector(Endpoint),
    #[error(
        "the certificate of {endpoint} comes from an authority that is not trusted here; is this another collector"
    )]
    UnknownAuthority { endpoint: Endpoint },
    #[error("the certificate of {endpoint} is not for that name but for {}; connect by one of these or add the name to the collector's `names`", .names.join(", "))]
    Name { endpoint: Endpoint, names: Vec<String> },
    #[error("the certificate of {0} has expired or is not valid yet; check the clocks of both hosts")]
    Date(Endpoint),
    #[error(
        "{endpoint} does not take our certificate ({alert}); it may be revoked, expired or from another cluster"
    )]
    CertificateRefused { endpoint: Endpoint, alert: String },
    #[error("{endpoint} does not speak TLS 1.3 and HTTP/2 as a collector does: {reason}")]
    Protocol { endpoint: Endpoint, reason: String },
}

/// Connects within `timeout`. The channel connects again by itself when a call finds it broken.
pub async fn connect(
    endpoint: &Endpoint,
    tls: Arc<ClientConfig>,
    timeout: Duration,
) -> Result<Channel, ConnectError> {
    connect_again(endpoint, tls, timeout, &Arc::default()).await
}

/// As `connect`, for who does it again and again: where the endpoint was reached once, it is looked for again when its
/// name cannot be found, or leads to where it is not. Whoever answers there has to prove the same name.
pub async fn connect_again(
    endpoint: &Endpoint,
    tls: Arc<ClientConfig>,
    timeout: Duration,
    last_good: &Arc<LastGood>,
) -> Result<Channel, ConnectError> {
    let target = tonic::transport::Endpoint::from_shared(format!("https://{endpoint}"))
        .map_err(|error| protocol(endpoint, &error))?
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let (place, connector, last_good) = (endpoint.clone(), TlsConnector::from(tls), Arc::clone(last_good));
    let dial = tower::service_fn(move |_: http::Uri| {
        let (place, connector, last_good) = (place.clone(), connector.clone(), Arc::clone(&last_good));
        async move {
            let named = dial::resolve(&place);
            let dialled = dial::dial(&place, named, &connector, (&last_good, timeout));
            within(timeout, &place, dialled).await.map(TokioIo::new)
        }
    });
    let connected =
        async { target.connect_with_connector(dial).await.map_err(|error| explain(endpoint, &error)) };
    within(timeout, endpoint, connected).await
}

async fn within<T>(
    timeout: Duration,
    endpoint: &Endpoint,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let late = |_| ConnectError::TimedOut { endpoint: endpoint.clone(), within: timeout };
    tokio::time::timeout(timeout, work).await.map_err(late)?
}

fn protocol(endpoint: &Endpoint, error: &dyn StdError) -> ConnectError {
    ConnectError::Protocol { endpoint: endpoint.clone(), reason: error.to_string() }
}

/// Finds, down the chain of causes, the one that a person can act on.
pub fn explain(endpoint: &Endpoint, error: &(dyn StdError + 'static)) -> ConnectError {
    let mut deepest = error;
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(known) = cause.downcast_ref::<ConnectError>() {
            return known.clone();
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return explain_tls(endpoint, tls);
        }
        deepest = cause;
        // `io::Error::source` skips the error it wraps.
        next = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    let reason = deepest.to_string();
    if let Some(alert) = alert_in(&reason) {
        return explain_tls(endpoint, &rustls::Error::AlertReceived(alert));
    }
    match deepest.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => ConnectError::Refused(endpoint.clone()),
        Some(io::ErrorKind::UnexpectedEof) => ConnectError::Protocol {
            endpoint: endpoint.clone(),
            reason: "it closed the connection during the handshake; it may be at its limit of connections"
                .into(),
        },
        Some(_) => ConnectError::Unreachable { endpoint: endpoint.clone(), reason },
        None => ConnectError::Protocol { endpoint: endpoint.clone(), reason },
    }
}

fn explain_tls(endpoint: &Endpoint, error: &rustls::Error) -> ConnectError {
    let endpoint = endpoint.clone();
    match error {
        rustls::Error::InvalidCertificate(reason) => explain_certificate(endpoint, reason),
        rustls::Error::AlertReceived(alert) if CERTIFICATE_ALERTS.contains(alert) => {
            ConnectError::CertificateRefused { endpoint, alert: format!("{alert:?}") }
        }
        other => ConnectError::Protocol { endpoint, reason: other.to_string() },
    }
}

fn explain_certificate(endpoint: Endpoint, error: &CertificateError) -> ConnectError {
    match error {
        CertificateError::Other(other) if other.0.downcast_ref::<PinMismatch>().is_some() => {
            ConnectError::OtherCollector(endpoint)
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            ConnectError::Name { endpoint, names: presented.iter().map(|name| plain_name(name)).collect() }
        }
        CertificateError::NotValidForName => ConnectError::Name { endpoint, names: Vec::new() },
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => ConnectError::Date(endpoint),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ConnectError::UnknownAuthority { endpoint }
        }
        other => ConnectError::Protocol { endpoint, reason: other.to_string() },
    }
}

/// rustls shows names as `DnsName("a.example.com")` and `IpAddress(10.0.0.1)`.
fn plain_name(shown: &str) -> String {
    let inner = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(shown);
    inner.trim_matches('"').to_owned()
}

/// What a collector answers to a certificate that it does not take.
const CERTIFICATE_ALERTS: [AlertDescription; 8] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateRequired,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
];

/// An alert that came after the client's part of the handshake: HTTP/2 hands on no more of it than its text.
fn alert_in(text: &str) -> Option<AlertDescription> {
    let of = |alert: &AlertDescription| rustls::Error::AlertReceived(*alert).to_string();
    CERTIFICATE_ALERTS.into_iter().find(|alert| text.contains(&of(alert)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_and_write() {
        for (text, read) in [
            ("collector:9443", Ok("collector:9443")),
            (" https://collector.example.com:9443/\n", Ok("collector.example.com:9443")),
            ("10.0.0.1:1", Ok("10.0.0.1:1")),
            ("[::1]:9443", Ok("[::1]:9443")),
            ("https://[fe80::1]:9443", Ok("[fe80::1]:9443")),
            ("collector", Err("names no port")),
            ("collector:", Err("names no port")),
            ("collector:0", Err("names no port")),
            ("collector:65536", Err("names no port")),
            ("[::1]", Err("names no port")),
            ("::1:9443", Err("is not HOST:PORT")),
            ("[collector]:9443", Err("is not HOST:PORT")),
            (":9443", Err("is not HOST:PORT")),
            ("user@collector:9443", Err("is not HOST:PORT")),
            ("https://collector/path:9443", Err("is not HOST:PORT")),
            ("http://collector:9443", Err("plain HTTP")),
        ] {
            match (text.parse::<Endpoint>(), read) {
                (Ok(endpoint), Ok(shown)) => assert_eq!(endpoint.to_string(), shown, "{text}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    fn tls() -> Arc<ClientConfig> {
        tocsin_shared::tls::pinned([0; 32]).unwrap()
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        // Bound, so that nobody else gets the port, and never listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let endpoint = Endpoint { host: "127.0.0.1".into(), port };
        let error = connect(&endpoint, tls(), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error, ConnectError::Refused(endpoint));
    }

    // Cases: N4
    #[tokio::test]
    async fn a_silent_server_times_out() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: socket.local_addr().unwrap().port() };
        let within = Duration::from_millis(20);
        let error = connect(&endpoint, tls(), within).await.unwrap_err();
        assert_eq!(error, ConnectError::TimedOut { endpoint, within });
    }

    #[tokio::test]
    async fn a_server_without_tls_is_named_so() {
        use tokio::io::AsyncWriteExt as _;
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: socket.local_addr().unwrap().port() };
        let server = tokio::spawn(async move {
            let (mut stream, _) = socket.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        });
        let error = connect(&endpoint, tls(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("does not speak TLS 1.3"), "{error}");
        drop(server.await);
    }
}
