//! HTTP/2 frames by hand, over TLS or bare TCP: what no decent client library would send.
//!
//! Bytes out, and whether and when the other side closed. Not here: reading answers, any state of HTTP/2.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::pki_types::ServerName;
use tocsin_proto::connect::Endpoint;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The client's opening and empty settings.
pub const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block that calls a method of gRPC: literals without Huffman code and without a table.
pub fn call(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x87]; // POST, https
    for (index, value) in [(0x04, path), (0x01, "localhost")] {
        block.push(index);
        text(&mut block, value);
    }
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        literal(&mut block, name, value);
    }
    block
}

/// A header that no table keeps.
pub fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    text(block, name);
    text(block, value);
}

/// A header that the other side's table keeps, at the index 62 when it is the newest.
pub fn kept(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x40);
    text(block, name);
    text(block, value);
}

fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push(length as u8 | 0x80);
            length >>= 7;
        }
        block.push(length as u8);
    }
    block.extend(text.as_bytes());
}

/// A TCP connection to HOST:PORT, without a word.
pub async fn tcp(address: &str) -> anyhow::Result<TcpStream> {
    TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))
}

/// A TLS connection, without a word in it.
pub async fn tls(address: &str, config: Arc<rustls::ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
    let endpoint: Endpoint = address.parse()?;
    let name = ServerName::try_from(endpoint.host)?;
    Ok(TlsConnector::from(config).connect(name, tcp(address).await?).await?)
}

/// What became of an attack.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Whether the other side closed, or reset, the connection.
    pub closed: bool,
    pub after: Duration,
    /// Bytes that went out.
    pub sent: u64,
}

/// Says `first`, then what `next` gives, `every` so often, until the other side closes or `within` is over. Reads
/// all that comes.
pub async fn flood<S: AsyncRead + AsyncWrite>(
    stream: S,
    first: Vec<u8>,
    mut next: impl FnMut() -> Vec<u8>,
    every: Duration,
    within: Duration,
) -> Ended {
    let begun = Instant::now();
    let (mut input, mut output) = tokio::io::split(stream);
    let mut sent = 0;
    let writing = async {
        let mut bytes = first;
        loop {
            if output.write_all(&bytes).await.is_err() || output.flush().await.is_err() {
                // It may have been closed for writing alone: reading says so.
                std::future::pending::<()>().await;
            }
            sent += bytes.len() as u64;
            if every.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(every).await;
            }
            bytes = next();
        }
    };
    let reading = async {
        let mut buffer = vec![0; 16 * 1024];
        while input.read(&mut buffer).await.is_ok_and(|count| 0 < count) {}
    };
    let closed = tokio::select! {
        () = reading => true,
        () = writing => false,
        () = tokio::time::sleep(within) => false,
    };
    Ended { closed, after: begun.elapsed(), sent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_headers_are_as_the_standards_say() {
        assert_eq!(frame(PING, 0, 0, &[7; 8]), [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat());
        let mut block = Vec::new();
        literal(&mut block, "a", &"b".repeat(300));
        assert_eq!(block[..6], [0, 1, b'a', 127, 173, 1], "127 + 45 + 128 = 300");
        assert_eq!(block.len(), 306);
    }
}
