//! One TLS connection as the server reads and writes it, and who is at its other end.
//!
//! Promise: a peer that finishes the handshake and then says nothing is cut off; a connection gives back what it
//! holds of every limit when it is dropped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tocsin_shared::identity::AgentId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::limits::{Origin, Share};
use crate::identity::peer::PeerIdentity;

/// The client's opening of HTTP/2 has 24 bytes, and no useful HTTP/1.1 request is shorter.
const OPENING: usize = 24;

/// Who is at the other end. tonic puts a copy into the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub addr: SocketAddr,
    /// The verified identity; always there on the agents' listener, never on the front.
    pub certificate: Option<PeerIdentity>,
    unproven: Arc<Mutex<Option<Share<Origin>>>>,
}

impl Peer {
    pub(super) fn new(
        addr: SocketAddr,
        certificate: Option<PeerIdentity>,
        share: Option<Share<Origin>>,
    ) -> Self {
        Self { addr, certificate, unproven: Arc::new(Mutex::new(share)) }
    }

    /// The peer has proved who it is, so it no longer counts against its address. To be called when a credential on
    /// this connection was found good; again is harmless.
    pub fn authenticated(&self) {
        drop(self.unproven.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What a connection holds of the total and of its agent's share.
type Held = (OwnedSemaphorePermit, Option<Share<AgentId>>);

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    io: TlsStream<TcpStream>,
    /// Who is at the other end.
    pub peer: Peer,
    opening: Option<Opening>,
    _held: Held,
}

/// Waiting for the peer's first words.
#[derive(Debug)]
struct Opening {
    read: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(io: TlsStream<TcpStream>, peer: Peer, opening: Duration, held: Held) -> Self {
        let deadline = Box::pin(tokio::time::sleep(opening));
        Self { io, peer, opening: Some(Opening { read: 0, deadline }), _held: held }
    }

    /// The protocol that was agreed on, `h2` or `http/1.1`; `None` if the client did not ask.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.io.get_ref().1.alpn_protocol()
    }

    /// Counts what came. Once nothing comes any more, an error if the peer has had its time.
    fn poll_opening(&mut self, cx: &mut Context<'_>, came: usize) -> Result<(), io::Error> {
        let Some(opening) = &mut self.opening else { return Ok(()) };
        opening.read += came;
        if opening.read >= OPENING {
            self.opening = None;
        } else if came == 0 && opening.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing after the handshake"));
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        // What was read is handed on even if it came too late: a read gives bytes or an error, never both.
        self.poll_opening(cx, came)?;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
