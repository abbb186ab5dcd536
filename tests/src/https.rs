//! A request of plain HTTP to the front: one connection, one request, one answer, the body read to its end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tocsin_shared::tls;

use crate::raw;

/// An answer takes no longer than the collector gives itself for one.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where to, and as whom.
#[derive(Clone, Debug)]
pub struct Door {
    /// HOST:PORT of the front.
    pub front: String,
    pub authority_pem: String,
    /// The bearer token; empty for nobody.
    pub credential: String,
}

impl Door {
    /// Posts a body; gives the status and the text.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<(u16, String)> {
        let mut config = (*tls::trusting(&self.authority_pem, None)?).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = raw::tls(&self.front, Arc::new(config)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::post(path).header(header::HOST, &self.front);
        if !self.credential.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.credential));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer =
            tokio::time::timeout(TIMEOUT, sender.send_request(request)).await.context("no answer")??;
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }
}
