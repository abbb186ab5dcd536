//! One TLS connection as the server reads and writes it, and who is at its other end.
//!
//! Promise: a peer that finishes the handshake and then says nothing, does not finish what it began, does not take what
//! it asked for, or floods, is cut off; a connection gives back what it holds of every limit when it is dropped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tocsin_shared::identity::AgentId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::frames::{Frames, PREFACE};
use super::limits::{Origin, Share};
use super::metered::Metered;
use super::{Counts, count};
use crate::identity::peer::PeerIdentity;

/// Who is at the other end. tonic puts a copy into the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub addr: SocketAddr,
    /// The verified identity; always there on the agents' listener, never on the front.
    pub certificate: Option<PeerIdentity>,
    unproven: Arc<Mutex<Option<Share<Origin>>>>,
    proven: Arc<AtomicBool>,
    cut: CancellationToken,
    /// Cancelled when the peer has what it came for, or has left.
    arrived: CancellationToken,
}

impl Peer {
    pub(super) fn new(
        addr: SocketAddr,
        certificate: Option<PeerIdentity>,
        share: Option<Share<Origin>>,
    ) -> Self {
        let (unproven, proven) = (Arc::new(Mutex::new(share)), Arc::default());
        let (cut, arrived) = Default::default();
        Self { addr, certificate, unproven, proven, cut, arrived }
    }

    /// The peer has proved who it is, so it no longer counts against its address. To be called when a credential on
    /// this connection was found good; again is harmless.
    pub fn authenticated(&self) {
        self.proven.store(true, Ordering::Relaxed);
        drop(self.unproven.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// What to cancel when an agent has its Welcome: until then it holds a place among those that come in.
    pub fn arrival(&self) -> CancellationToken {
        self.arrived.clone()
    }

    /// Ends the connection, whatever it waits for.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

/// What a connection holds of the total and of its agent's share.
type Held = (OwnedSemaphorePermit, Option<Share<AgentId>>);

/// How long a peer may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) opening: Duration,
    pub(super) request: Duration,
    pub(super) stall: Duration,
}

/// What the peer speaks: by its first bytes, as the server decides it, whatever was agreed on in the handshake.
#[derive(Debug)]
enum Spoken {
    /// So many bytes of the opening of HTTP/2.
    Opening(usize),
    Http2(Frames),
    /// So many bytes.
    Http1(usize),
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    io: TlsStream<Metered>,
    /// Who is at the other end.
    pub peer: Peer,
    patience: Patience,
    since: Instant,
    spoken: Spoken,
    /// Set when there is something to wait for.
    reading: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Set when the peer does not take what is sent.
    writing: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    counts: Arc<Counts>,
    _held: Held,
    /// Who leaves waits for nothing more.
    _leaves: DropGuard,
}

impl Connection {
    pub(super) fn new(
        io: TlsStream<Metered>,
        peer: Peer,
        patience: Patience,
        counts: Arc<Counts>,
        held: Held,
    ) -> Self {
        let since = Instant::now();
        Self {
            cut: Box::pin(peer.cut.clone().cancelled_owned()),
            _leaves: peer.arrival().drop_guard(),
            io,
            peer,
            patience,
            since,
            spoken: Spoken::Opening(0),
            reading: None,
            writing: None,
            counts,
            _held: held,
        }
    }

    /// The protocol that was agreed on, `h2` or `http/1.1`; `None` if the client did not ask.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.io.get_ref().1.alpn_protocol()
    }

    /// Until when the peer has to say something, if it has to.
    fn due(&self) -> Option<Instant> {
        let is_proven = self.peer.proven.load(Ordering::Relaxed);
        match &self.spoken {
            Spoken::Opening(_) => Some(self.since + self.patience.opening),
            // No useful request of HTTP/1.1 is shorter than the other opening.
            Spoken::Http1(bytes) if *bytes < PREFACE.len() => Some(self.since + self.patience.opening),
            // A bad line may stall an honest peer.
            Spoken::Http2(frames) if is_proven => Some(frames.owed_since()? + self.patience.stall),
            Spoken::Http2(frames) => Some(frames.owed_since()? + self.patience.request),
            // Where a request of HTTP/1.1 ends is not looked at: who has proved nothing by then has to come again.
            Spoken::Http1(_) if is_proven => None,
            Spoken::Http1(_) => Some(self.since + self.patience.request),
        }
    }

    fn cut_slow(&self, why: &'static str) -> io::Error {
        count(&self.counts.cut_slow);
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// Looks at what came.
    fn came(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        if let Spoken::Opening(known) = self.spoken {
            let rest = &PREFACE[known..];
            let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            self.spoken = match () {
                () if same == rest.len() => Spoken::Http2(Frames::new(self.since, now)),
                () if same == bytes.len() => Spoken::Opening(known + same),
                () => Spoken::Http1(known),
            };
            if matches!(self.spoken, Spoken::Http2(_)) {
                bytes = &bytes[same..];
            }
        }
        match &mut self.spoken {
            Spoken::Opening(_) => Ok(()),
            Spoken::Http1(read) => {
                *read = read.saturating_add(bytes.len());
                Ok(())
            }
            Spoken::Http2(frames) => frames.read(bytes, now).map_err(|excess| {
                count(&self.counts.cut_flood);
                io::Error::new(io::ErrorKind::InvalidData, excess)
            }),
        }
    }

    /// Nothing comes: an error if the peer has had its time, or is to be cut off.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(self.cut_slow("the peer does not take an answer"));
        }
        let Some(due) = self.due() else {
            self.reading = None;
            return Ok(());
        };
        if self.reading.as_ref().is_none_or(|(known, _)| *known != due) {
            self.reading = Some((due, Box::pin(tokio::time::sleep_until(due.into()))));
        }
        let late = self.reading.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if late { Err(self.cut_slow("the peer does not go on with what it began")) } else { Ok(()) }
    }

    /// An error if the peer has not taken anything for too long.
    fn poll_stall<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.writing = None;
            return wrote;
        }
        let stall = self.patience.stall;
        let sleep = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(self.cut_slow("the peer does not take what it is sent")));
        }
        Poll::Pending
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
        // What was read in time is handed on; a read gives bytes or an error, never both.
        match read {
            Poll::Ready(Ok(())) if before < buf.filled().len() => {
                self.came(&buf.filled()[before..])?;
            }
            Poll::Pending => self.poll_due(cx)?,
            Poll::Ready(_) => {}
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        if let (Poll::Ready(Ok(bytes)), Spoken::Http2(frames)) = (&wrote, &mut self.spoken) {
            frames.wrote(*bytes);
        }
        self.poll_stall(cx, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.poll_stall(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.poll_stall(cx, shut)
    }
}
