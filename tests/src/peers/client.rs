//! One connection of HTTP/1.1 that stays open, plain or over TLS.

use std::sync::Arc;

use anyhow::Context as _;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tocsin_shared::tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::raw;

/// Where to, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// HOST:PORT.
    pub address: String,
    /// Whom to trust, PEM; none for a connection without TLS.
    pub authority_pem: Option<String>,
    /// The bearer credential; empty for nobody.
    pub credential: String,
}

/// A connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    door: Door,
}

impl Door {
    /// Opens a connection.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let sender = match &self.authority_pem {
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                begin(stream).await?
            }
            Some(authority) => {
                let mut config = (*tls::trusting(authority, None)?).clone();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                begin(raw::tls(&self.address, Arc::new(config)).await?).await?
            }
        };
        Ok(Client { sender, door: self.clone() })
    }
}

/// HTTP/1.1 over a stream; the connection lives as long as its sender.
async fn begin(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Client {
    /// Gets a path: the status and the whole body.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(u16, Bytes)> {
        self.send(Request::get(path), Bytes::new()).await
    }

    /// Posts a body.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> anyhow::Result<(u16, Bytes)> {
        let request =
            headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        self.send(request, body.into()).await
    }

    async fn send(&mut self, request: http::request::Builder, body: Bytes) -> anyhow::Result<(u16, Bytes)> {
        let mut request = request.header(header::HOST, &self.door.address);
        if !self.door.credential.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.door.credential));
        }
        self.sender.ready().await.context("the connection was closed")?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}
