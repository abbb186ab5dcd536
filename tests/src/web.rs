//! Requests of plain HTTP/1.1 to a collector: over TLS to the front, or bare to its loopback port.
//!
//! A connection for each request; the body is read to its end. Not here: what is asked, what the answer means.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use tocsin_shared::tls;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::raw;
use crate::site::Site;

/// What the collector has for an answer, and some more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Web {
    address: String,
    /// PEM; none over bare TCP.
    authority: Option<String>,
    /// The whole header, if one is sent.
    pub authorization: Option<String>,
    /// The name that is asked for, where it is not the address.
    pub host: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Web {
    /// The front, without a credential.
    pub fn front(site: &Site) -> Self {
        let authority = Some(site.api.authority_pem.clone());
        Self { address: site.addresses().front.clone(), authority, authorization: None, host: None }
    }

    /// The loopback port.
    pub fn local(site: &Site) -> Self {
        Self::bare(&site.addresses().local)
    }

    /// Another server, without TLS.
    pub fn bare(address: &str) -> Self {
        Self { address: address.to_owned(), authority: None, authorization: None, host: None }
    }

    /// The same with a bearer credential.
    pub fn bearer(&self, credential: &str) -> Self {
        Self { authorization: Some(format!("Bearer {credential}")), ..self.clone() }
    }

    /// Asks with GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask("GET", path, &[], "").await
    }

    /// Posts a form.
    pub async fn post(&self, path: &str, form: &str) -> anyhow::Result<Answer> {
        self.ask("POST", path, &[("content-type", "application/x-www-form-urlencoded")], form).await
    }

    /// Asks, with these headers beside the usual ones.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Answer> {
        let host = self.host.as_deref().unwrap_or(&self.address);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let answer = async {
            match &self.authority {
                Some(authority) => {
                    let mut config = (*tls::trusting(authority, None)?).clone();
                    config.alpn_protocols = vec![b"http/1.1".to_vec()];
                    exchange(raw::tls(&self.address, Arc::new(config)).await?, request).await
                }
                None => exchange(raw::tcp(&self.address).await?, request).await,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await.context("no answer in time")?;
        answer.with_context(|| format!("{method} {path} at {}", self.address))
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// A text as a URL or a form has it.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
