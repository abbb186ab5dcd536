//! Counts what goes over TCP, TLS and HTTP/2 framing included, and dials a collector through that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tocsin_proto::connect::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

/// Bytes sent and received over all sockets that share it.
#[derive(Debug, Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

/// A TCP connection that counts.
struct Counted {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.traffic.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(bytes)) = written {
            self.traffic.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects with TLS and HTTP/2, once; what goes over the socket is added to `traffic`.
pub async fn connect(
    endpoint: &Endpoint,
    tls: Arc<rustls::ClientConfig>,
    traffic: Arc<Traffic>,
) -> anyhow::Result<Channel> {
    let name = ServerName::try_from(endpoint.host.clone())?;
    let target = tonic::transport::Endpoint::from_shared(format!("https://{endpoint}"))?;
    let place = (endpoint.host.clone(), endpoint.port);
    let dial = tower::service_fn(move |_: http::Uri| {
        let (place, name, tls) = (place.clone(), name.clone(), TlsConnector::from(Arc::clone(&tls)));
        let traffic = Arc::clone(&traffic);
        async move {
            let stream = TcpStream::connect(place).await?;
            stream.set_nodelay(true)?;
            tls.connect(name, Counted { stream, traffic }).await.map(TokioIo::new)
        }
    });
    target.connect_with_connector(dial).await.with_context(|| format!("cannot connect to {endpoint}"))
}
