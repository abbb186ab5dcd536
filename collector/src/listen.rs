//! The accept loop: from a TCP port to verified TLS connections, within limits.
//!
//! Promise: only a finished handshake reaches the application, on the agents' listener with an identity that the
//! registry admits. A slow or hostile peer holds a slot for a bounded time and never more than its address's share.
//! Running out of file descriptors delays the loop and never ends it. Dropping `Incoming` closes the port.
//! Not here: what is spoken inside (tonic), who may call what (`identity::authorise`).

pub mod certificate;
pub mod connection;
pub mod limits;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tocsin_shared::tls::{ALPN_H2, TlsError, certificates, provider, roots};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use uuid::Uuid;

use crate::identity::peer::{InvalidPeer, PeerIdentity, parse_peer};
use certificate::ServerCertificate;
use connection::{Connection, Peer};
use limits::{Share, Shares};

/// Connections that are ready but not yet taken by the server, which takes them at once.
const READY_QUEUE: usize = 16;
/// The pause after an accept that failed for want of descriptors or memory: long enough for others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The longest chain a client may show: its certificate, two in between, the authority.
const CLIENT_CHAIN_MAX: usize = 4;

/// How many of what at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes at the same time; more wait in the kernel's queue.
    pub handshakes: usize,
    /// The time for one handshake, and again for the first bytes after it.
    pub handshake: Duration,
    /// Connections of one address (an IPv6 /64) that have not proved who they are.
    pub per_address: usize,
    /// Connections with certificates of one agent: the live one, and what a flapping network left half open.
    pub per_agent: usize,
    /// Connections in all.
    pub connections: usize,
    /// Whether 127.0.0.0/8 and ::1 are free of `per_address`, for proxies on the same host.
    pub exempt_loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            handshake: Duration::from_secs(5),
            per_address: 64,
            per_agent: 8,
            connections: 10_000,
            exempt_loopback: false,
        }
    }
}

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{0} is in use by another program; stop it (`ss -ltnp` names it) or configure another port")]
    InUse(SocketAddr),
    #[error(
        "no permission to listen on {0}; use a port from 1024 on, or give the service CAP_NET_BIND_SERVICE"
    )]
    Permission(SocketAddr),
    #[error("this host has no address {ip}; listen on one that it has, or on 0.0.0.0 or [::] for all", ip = .0.ip())]
    NoAddress(SocketAddr),
    #[error("cannot listen on {address}")]
    Other {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Why a TLS listener cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenTlsError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot verify clients: {0}")]
    Verifier(String),
}

/// The oldest TLS that the front speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMin {
    /// An opt-in, for browsers and paging tools that are stuck.
    V1_2,
    V1_3,
}

/// TLS for the agents' listener: a certificate of this authority is required, TLS 1.3 and HTTP/2 only.
pub fn agents_tls(
    certificate: Arc<ServerCertificate>,
    authority_pem: &str,
) -> Result<Arc<ServerConfig>, ListenTlsError> {
    let failed = |error: &dyn std::error::Error| ListenTlsError::Verifier(error.to_string());
    let roots = roots(&certificates(authority_pem, "the authority's file")?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| failed(&error))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    Ok(finished(config, &[ALPN_H2]))
}

/// TLS for the front: no client certificate, HTTP/2 and HTTP/1.1.
pub fn front_tls(
    certificate: Arc<ServerCertificate>,
    min: TlsMin,
) -> Result<Arc<ServerConfig>, ListenTlsError> {
    let versions: &[_] = match min {
        TlsMin::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsMin::V1_3 => &[&rustls::version::TLS13],
    };
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| ListenTlsError::Verifier(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    Ok(finished(config, &[ALPN_H2, b"http/1.1"]))
}

/// Nothing is resumed: every connection shows its certificate anew.
fn finished(mut config: ServerConfig, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// Whether the registry knows a certificate and has not revoked it.
pub type Admit = Arc<dyn Fn(&PeerIdentity) -> bool + Send + Sync>;

/// Who is let in on a listener.
#[derive(Clone)]
pub enum Clients {
    /// Agents of this cluster whose certificate the registry admits.
    Agents { cluster: Uuid, admit: Admit },
    /// Anyone; they prove who they are call by call.
    Anyone,
}

/// What became of connections, counted since the start, for self-metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: AtomicU64,
    pub over_connections: AtomicU64,
    pub over_address: AtomicU64,
    pub over_agent: AtomicU64,
    pub handshake_failed: AtomicU64,
    pub handshake_late: AtomicU64,
    pub not_admitted: AtomicU64,
    pub accept_failed: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes the port; port 0 takes a free one, which `local_addr` then says.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(address),
            io::ErrorKind::PermissionDenied => ListenError::Permission(address),
            io::ErrorKind::AddrNotAvailable => ListenError::NoAddress(address),
            _ => ListenError::Other { address, source },
        };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(|source| ListenError::Other { address, source })?;
        Ok(Self { socket, address })
    }

    /// The address and port that are listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts to accept. Needs a tokio runtime.
    pub fn accept(self, tls: Arc<ServerConfig>, clients: Clients, limits: Limits) -> Incoming {
        let counts = Arc::new(Counts::default());
        let (ready, connections) = mpsc::channel(READY_QUEUE);
        let door = Arc::new(Door {
            tls: TlsAcceptor::from(tls),
            clients,
            limits,
            per_address: Shares::new(limits.per_address),
            per_agent: Shares::new(limits.per_agent),
            total: Arc::new(Semaphore::new(limits.connections)),
            counts: Arc::clone(&counts),
            ready,
        });
        tokio::spawn(run(self.socket, door));
        Incoming { connections, counts }
    }
}

/// The connections of a listener, for `Server::serve_with_incoming_shutdown`. It never fails and ends only with the
/// accept loop.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    counts: Arc<Counts>,
}

impl Incoming {
    /// The listener's counters.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl Stream for Incoming {
    type Item = Result<Connection, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// What every handshake needs.
struct Door {
    tls: TlsAcceptor,
    clients: Clients,
    limits: Limits,
    per_address: Arc<Shares<limits::Origin>>,
    per_agent: Arc<Shares<tocsin_shared::identity::AgentId>>,
    total: Arc<Semaphore>,
    counts: Arc<Counts>,
    ready: mpsc::Sender<Connection>,
}

/// Accepts until nobody takes connections any more; handshakes in flight end with it.
async fn run(socket: TcpListener, door: Arc<Door>) {
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= door.limits.handshakes {
            handshakes.join_next().await;
            continue;
        }
        let accepted = tokio::select! {
            () = door.ready.closed() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some(slots) = door.take_slots(address) {
                    handshakes.spawn(enter(Arc::clone(&door), stream, address, slots));
                }
            }
            Err(error) => {
                count(&door.counts.accept_failed);
                if let Some(pause) = pause_after(&error) {
                    tracing::warn!(%error, "cannot accept connections; the limit of open files may be too low");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// How long to wait after a failed accept. A peer that left before it was accepted is no reason to wait.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionAborted | K::ConnectionReset | K::Interrupted | K::WouldBlock | K::BrokenPipe => None,
        _ => Some(ACCEPT_PAUSE),
    }
}

/// What a connection holds as long as it lives.
struct Slots {
    total: tokio::sync::OwnedSemaphorePermit,
    /// `None` on exempt loopback.
    address: Option<Share<limits::Origin>>,
}

/// Why a connection was dropped.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the handshake took too long")]
    Late,
    #[error("it does not speak HTTP/2")]
    Protocol,
    #[error("it showed no certificate, or a chain that is too long")]
    Chain,
    #[error("its certificate is not an agent's")]
    Peer(#[from] InvalidPeer),
    #[error("its certificate {serial} is revoked or unknown")]
    NotAdmitted { serial: String },
    #[error("its agent has too many connections")]
    OverAgent,
}

/// One connection from TCP to the server's queue; dropping it on the way closes it.
async fn enter(door: Arc<Door>, stream: TcpStream, address: SocketAddr, slots: Slots) {
    // A socket that refuses the option still works.
    stream.set_nodelay(true).ok();
    match door.handshake(stream, address, slots).await {
        Ok(connection) => {
            count(&door.counts.accepted);
            // The server has stopped: the connection ends with it.
            door.ready.send(connection).await.ok();
        }
        Err(refused) => {
            count(match refused {
                Refused::Late => &door.counts.handshake_late,
                Refused::NotAdmitted { .. } => &door.counts.not_admitted,
                Refused::OverAgent => &door.counts.over_agent,
                _ => &door.counts.handshake_failed,
            });
            // Anyone can cause these, so they are counted, and written only for who looks for them.
            let cause = std::error::Error::source(&refused).map(ToString::to_string);
            tracing::debug!(%address, reason = %refused, cause, "connection refused");
        }
    }
}

impl Door {
    /// Room for one more connection of this address, or `None` and the connection is dropped before any TLS work.
    fn take_slots(&self, address: SocketAddr) -> Option<Slots> {
        let Ok(total) = Arc::clone(&self.total).try_acquire_owned() else {
            count(&self.counts.over_connections);
            return None;
        };
        let origin = limits::origin(address.ip());
        if self.limits.exempt_loopback && origin.is_loopback() {
            return Some(Slots { total, address: None });
        }
        let Some(share) = self.per_address.take(origin) else {
            count(&self.counts.over_address);
            return None;
        };
        Some(Slots { total, address: Some(share) })
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        slots: Slots,
    ) -> Result<Connection, Refused> {
        let stream = tokio::time::timeout(self.limits.handshake, self.tls.accept(stream))
            .await
            .map_err(|_| Refused::Late)?
            .map_err(Refused::Handshake)?;
        let Slots { total, address: share } = slots;
        let (certificate, agent) = match &self.clients {
            Clients::Anyone => (None, None),
            Clients::Agents { cluster, admit } => {
                let identity = identify(&stream, *cluster)?;
                if !admit(&identity) {
                    return Err(Refused::NotAdmitted { serial: identity.serial });
                }
                let agent = self.per_agent.take(identity.agent).ok_or(Refused::OverAgent)?;
                (Some(identity), Some(agent))
            }
        };
        let peer = Peer::new(address, certificate, share);
        if peer.certificate.is_some() {
            peer.authenticated();
        }
        Ok(Connection::new(stream, peer, self.limits.handshake, (total, agent)))
    }
}

/// Who is at the other end, from the certificate that the handshake has verified.
fn identify(stream: &TlsStream<TcpStream>, cluster: Uuid) -> Result<PeerIdentity, Refused> {
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_H2) {
        return Err(Refused::Protocol);
    }
    match session.peer_certificates() {
        Some([certificate, rest @ ..]) if rest.len() < CLIENT_CHAIN_MAX => {
            Ok(parse_peer(certificate, cluster)?)
        }
        _ => Err(Refused::Chain),
    }
}

#[cfg(test)]
mod tests;
