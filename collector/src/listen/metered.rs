//! A TCP connection during its handshake: only so many bytes are read before it is over.
//!
//! Promise: a peer that is not let in yet costs a bounded number of bytes and of reads, whatever it sends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A ClientHello with every extension of a browser has 2 KB, the chain of an agent 2 KB; what a client says right
/// behind the handshake may be read with it.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;

/// A TCP stream that ends when the handshake takes too many bytes.
#[derive(Debug)]
pub struct Metered {
    io: TcpStream,
    /// What may still come; `None` once the handshake is over.
    left: Option<usize>,
}

impl Metered {
    pub(super) fn new(io: TcpStream) -> Self {
        Self { io, left: Some(HANDSHAKE_BYTES_MAX) }
    }

    /// The handshake is over.
    pub(super) fn let_in(&mut self) {
        self.left = None;
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if let Some(left) = &mut self.left {
            // The last read may go a little over, by no more than its buffer.
            if *left == 0 && 0 < came {
                let why = "the handshake takes more bytes than any that is meant";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            *left = left.saturating_sub(came);
        }
        read
    }
}

impl AsyncWrite for Metered {
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
