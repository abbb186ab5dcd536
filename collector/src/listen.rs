//! The accept loop: from a TCP port to verified TLS connections, within limits.
//!
//! Promise: only a finished handshake reaches the application, on the agents' listener with an identity that the
//! registry admits. A slow or hostile peer holds a slot for a bounded time and never more than its address's share.
//! Running out of file descriptors delays the loop and never ends it. Dropping `Incoming` closes the port.
//! Not here: what is spoken inside (tonic), who may call what (`identity::authorise`).

pub mod certificate;
pub mod connection;
pub mod descriptors;
pub mod frames;
pub mod limits;
pub mod metered;
pub mod tls;
mod turns;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::server::Acceptor;
use rustls::{CertificateError, ServerConfig};
use tocsin_shared::identity::AgentId;
use tocsin_shared::tls::ALPN_H2;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use uuid::Uuid;

use crate::identity::peer::{InvalidPeer, PeerIdentity, parse_peer};
use crate::rate::{Allowances, Rate};
use connection::{Connection, Patience, Peer};
use limits::{Origin, Share, Shares};
use metered::Metered;
use turns::{Arrival, Place, Turns};

/// Connections that are ready but not yet taken by the server, which takes them at once.
const READY_QUEUE: usize = 16;
/// How long an agent that was let in holds its place at most: it says Hello at once, and Welcome is its answer. Who
/// comes for something else gives it back then, or when it leaves.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// The pause after an accept that failed for want of descriptors or memory: long enough for others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Agents' connections: a fleet of ten thousand, and those of it that come back before their old ones are noticed gone.
pub const AGENTS_CONNECTIONS: usize = 12_000;
/// Connections of dashboards, paging tools, the command line, and hosts that enrol.
pub const FRONT_CONNECTIONS: usize = 2_000;

/// How many of what at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not begun their handshake: they wait for their first words or for their turn. More are
    /// turned away.
    pub arrivals: usize,
    /// Handshakes that were begun and are not over; agents count until they have their Welcome.
    pub handshakes: usize,
    /// How long a handshake waits for its turn. Who is let in then still has most of an agent's patience of 30 s.
    pub turn: Duration,
    /// The time for a peer's first words, and, when its turn has come, for the rest of its handshake.
    pub handshake: Duration,
    /// The time for the first words after it.
    pub opening: Duration,
    /// The time for the rest of what a peer began: its first call, a frame, the headers of a call.
    pub request: Duration,
    /// How long a peer may take nothing of what it is sent.
    pub stall: Duration,
    /// From the headers of a call to the first of its answer. A query has 30 s; a slow body no more than this.
    pub answer: Duration,
    /// New connections of one address a second, after ten times as many at once.
    pub per_address_per_second: u32,
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
            arrivals: 2_048,
            handshakes: 256,
            turn: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            opening: Duration::from_secs(5),
            request: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            answer: Duration::from_secs(45),
            per_address_per_second: 20,
            per_address: 64,
            per_agent: 8,
            connections: AGENTS_CONNECTIONS,
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

/// Who is let in on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Agents of this cluster, by the certificate that `tls::agents_tls` has verified.
    Agents { cluster: Uuid },
    /// Anyone; they prove who they are call by call.
    Anyone,
}

/// What became of connections, counted since the start, for self-metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: AtomicU64,
    pub over_connections: AtomicU64,
    pub over_address: AtomicU64,
    pub over_rate: AtomicU64,
    pub over_agent: AtomicU64,
    pub handshake_failed: AtomicU64,
    pub handshake_late: AtomicU64,
    /// Turned away before any work, because too many came at once.
    pub over_handshakes: AtomicU64,
    pub not_admitted: AtomicU64,
    pub accept_failed: AtomicU64,
    /// Cut off because the peer was too slow.
    pub cut_slow: AtomicU64,
    /// Cut off because the peer flooded.
    pub cut_flood: AtomicU64,
}

impl Counts {
    /// Every count with its name.
    pub fn all(&self) -> [(&'static str, u64); 12] {
        [
            ("accepted", &self.accepted),
            ("over_connections", &self.over_connections),
            ("over_address", &self.over_address),
            ("over_rate", &self.over_rate),
            ("over_agent", &self.over_agent),
            ("handshake_failed", &self.handshake_failed),
            ("handshake_late", &self.handshake_late),
            ("over_handshakes", &self.over_handshakes),
            ("not_admitted", &self.not_admitted),
            ("accept_failed", &self.accept_failed),
            ("cut_slow", &self.cut_slow),
            ("cut_flood", &self.cut_flood),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

/// Ten seconds' worth at once: a rack that comes back, a page of checks.
fn rate(per_second: u32) -> Rate {
    Rate { burst: 10.0 * f64::from(per_second), per_second: f64::from(per_second) }
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

    /// The bare socket, for a listener without TLS.
    pub(crate) fn into_plain(self) -> (TcpListener, SocketAddr) {
        (self.socket, self.address)
    }

    /// Starts to accept. Needs a tokio runtime.
    pub fn accept(self, tls: Arc<ServerConfig>, clients: Clients, limits: Limits) -> Incoming {
        let counts = Arc::new(Counts::default());
        let (ready, connections) = mpsc::channel(READY_QUEUE);
        let door = Arc::new(Door {
            tls,
            clients,
            limits,
            per_address: Shares::new(limits.per_address),
            per_agent: Shares::new(limits.per_agent),
            rates: Mutex::new(Allowances::new(rate(limits.per_address_per_second))),
            total: Arc::new(Semaphore::new(limits.connections)),
            turns: Turns::new(&limits),
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
    tls: Arc<ServerConfig>,
    clients: Clients,
    limits: Limits,
    per_address: Arc<Shares<Origin>>,
    per_agent: Arc<Shares<AgentId>>,
    rates: Mutex<Allowances<Origin>>,
    total: Arc<Semaphore>,
    turns: Turns,
    counts: Arc<Counts>,
    ready: mpsc::Sender<Connection>,
}

/// Accepts until nobody takes connections any more; handshakes in flight end with it.
async fn run(socket: TcpListener, door: Arc<Door>) {
    let mut handshakes = JoinSet::new();
    let mut spare = Spare::take();
    loop {
        while handshakes.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = door.ready.closed() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some((slots, arrival)) = door.take_slots(address) {
                    handshakes.spawn(enter(Arc::clone(&door), stream, address, slots, arrival));
                }
            }
            Err(error) => {
                count(&door.counts.accept_failed);
                if let Some(pause) = pause_after(&error) {
                    spare.turn_away(&socket);
                    tracing::warn!(%error, "cannot accept connections; the limit of open files may be too low");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// A descriptor for the time when there is none left: whoever waits in the kernel's queue is then accepted and closed,
/// instead of hanging there for minutes.
struct Spare(Option<std::fs::File>);

impl Spare {
    fn take() -> Self {
        Self(std::fs::File::open("/dev/null").ok())
    }

    fn turn_away(&mut self, socket: &TcpListener) {
        if self.0.take().is_some() {
            // At most one, at once: others may want the descriptor, too.
            let mut nothing = Context::from_waker(std::task::Waker::noop());
            if let Poll::Ready(Ok((stream, _))) = socket.poll_accept(&mut nothing) {
                drop(stream);
            }
        }
        *self = Self::take();
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
    total: OwnedSemaphorePermit,
    /// `None` on exempt loopback.
    address: Option<Share<Origin>>,
}

/// Why a connection was dropped.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the handshake took too long")]
    Late,
    #[error("too many handshakes wait for their turn")]
    NoTurn,
    #[error("it does not speak HTTP/2")]
    Protocol,
    #[error("it showed no certificate")]
    NoCertificate,
    #[error("its certificate is not an agent's")]
    Peer(#[from] InvalidPeer),
    #[error("its agent has too many connections")]
    OverAgent,
}

/// One connection from TCP to the server's queue; dropping it on the way closes it.
async fn enter(door: Arc<Door>, stream: TcpStream, address: SocketAddr, slots: Slots, arrival: Arrival) {
    // A socket that refuses the option still works.
    stream.set_nodelay(true).ok();
    match door.handshake(stream, address, slots, arrival).await {
        Ok((connection, place)) => {
            count(&door.counts.accepted);
            let arrived = connection.peer.arrival();
            // The server has stopped: the connection ends with it.
            door.ready.send(connection).await.ok();
            if let Clients::Agents { .. } = door.clients {
                // Were more let in than get their Welcome in time, they would leave, and their handshakes were for nothing.
                tokio::time::timeout(ARRIVES_WITHIN, arrived.cancelled()).await.ok();
            }
            drop(place);
        }
        Err(refused) => {
            count(match refused {
                Refused::Late => &door.counts.handshake_late,
                Refused::NoTurn => &door.counts.over_handshakes,
                Refused::Handshake(ref error) if is_revoked(error) => &door.counts.not_admitted,
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
    fn take_slots(&self, address: SocketAddr) -> Option<(Slots, Arrival)> {
        let Ok(total) = Arc::clone(&self.total).try_acquire_owned() else {
            count(&self.counts.over_connections);
            return None;
        };
        let origin = limits::origin(address.ip());
        if self.limits.exempt_loopback && origin.is_loopback() {
            return self.arrive(Slots { total, address: None });
        }
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.take(origin, Instant::now()).is_err() {
            count(&self.counts.over_rate);
            return None;
        }
        drop(rates);
        let Some(share) = self.per_address.take(origin) else {
            count(&self.counts.over_address);
            return None;
        };
        self.arrive(Slots { total, address: Some(share) })
    }

    fn arrive(&self, slots: Slots) -> Option<(Slots, Arrival)> {
        let Some(arrival) = self.turns.arrive() else {
            count(&self.counts.over_handshakes);
            return None;
        };
        Some((slots, arrival))
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        slots: Slots,
        arrival: Arrival,
    ) -> Result<(Connection, Place), Refused> {
        let (mut stream, place) = self.shake_hands(Metered::new(stream), arrival).await?;
        stream.get_mut().0.let_in();
        let Slots { total, address: share } = slots;
        let (certificate, agent) = match self.clients {
            Clients::Anyone => (None, None),
            Clients::Agents { cluster } => {
                let identity = identify(&stream, cluster)?;
                let agent = self.per_agent.take(identity.agent).ok_or(Refused::OverAgent)?;
                (Some(identity), Some(agent))
            }
        };
        let peer = Peer::new(address, certificate, share);
        if peer.certificate.is_some() {
            peer.authenticated();
        }
        let Limits { opening, request, stall, .. } = self.limits;
        let patience = Patience { opening, request, stall };
        let counts = Arc::clone(&self.counts);
        Ok((Connection::new(stream, peer, patience, counts, (total, agent)), place))
    }
}

impl Door {
    /// Reads a peer's first words, which costs nothing, and works on them when it is their turn.
    async fn shake_hands(
        &self,
        stream: Metered,
        arrival: Arrival,
    ) -> Result<(TlsStream<Metered>, Place), Refused> {
        let within = self.limits.handshake;
        let first = tokio::time::timeout(within, LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
        let first = first.map_err(|_| Refused::Late)?.map_err(Refused::Handshake)?;
        let place = self.turns.place(arrival).await.ok_or(Refused::NoTurn)?;
        let rest = self.turns.begin(|| first.into_stream(Arc::clone(&self.tls))).await;
        let done = tokio::time::timeout(within, rest).await;
        Ok((done.map_err(|_| Refused::Late)?.map_err(Refused::Handshake)?, place))
    }
}

/// Who is at the other end, from the certificate that the handshake has verified.
fn identify(stream: &TlsStream<Metered>, cluster: Uuid) -> Result<PeerIdentity, Refused> {
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_H2) {
        return Err(Refused::Protocol);
    }
    let chain = session.peer_certificates().ok_or(Refused::NoCertificate)?;
    let certificate = chain.first().ok_or(Refused::NoCertificate)?;
    Ok(parse_peer(certificate, cluster)?)
}

/// Whether a handshake failed because the registry does not admit the certificate.
fn is_revoked(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(CertificateError::Revoked)))
}

#[cfg(test)]
mod tests;
