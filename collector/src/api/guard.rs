//! The guard before every call: who calls, and whether that one may.
//!
//! On the agents' listener the certificate says who it is, on the front a credential: a bearer token, or the password
//! of Basic authentication, whose user name means nothing. Both are looked up in the registry at each call, so that a
//! revocation bites at the next one. gRPC calls are refused with its status, plain HTTP requests with HTTP's. What passes carries its `Caller`. A call that
//! panics is answered INTERNAL; the other calls of its connection go on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use tocsin_shared::secret::Credential;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::places::Held;
use crate::clock::{judging, now};
use crate::contain::{Panicked, contained};
use crate::identity::authorise::{Caller, Denied, authorise, authorise_path};
use crate::journal::ledger::Ledger;
use crate::listen::connection::Peer;
use crate::web;

/// The layer that guards a listener's services.
#[derive(Clone)]
pub struct Guard {
    ledger: Ledger,
}

impl Guard {
    /// A guard over the registry of this ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }

    /// Lets a call pass, or gives its refusal.
    fn check(&self, request: &mut Request<Body>) -> Result<(), Response<Body>> {
        let is_grpc = is_grpc(request);
        let refused = |denied: &Denied, why: String| {
            tracing::debug!(path = request.uri().path(), why, "call denied");
            match (is_grpc, denied) {
                (false, denied) => web::denied(denied, why).map(Body::new),
                (true, Denied::Unauthenticated) => Status::unauthenticated(why).into_http(),
                (true, _) => Status::permission_denied(why).into_http(),
            }
        };
        let caller = self.caller(request);
        let caller = caller.map_err(|why| refused(&Denied::Unauthenticated, why.to_owned()))?;
        let path = request.uri().path();
        let authorised = match is_grpc {
            true => authorise(&caller, path),
            false => authorise_path(&caller, request.method().as_str(), path),
        };
        authorised.map_err(|denied| refused(&denied, denied.to_string()))?;
        if !matches!(caller, Caller::Anonymous)
            && let Some(peer) = request.extensions().get::<Peer>()
        {
            peer.authenticated();
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn caller(&self, request: &Request<Body>) -> Result<Caller, &'static str> {
        let registry = self.ledger.registry();
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.as_ref());
        if let Some(peer) = peer {
            return if registry.admits(&peer.serial, peer.agent, judging()) {
                Ok(Caller::Agent(peer.agent, peer.serial.clone()))
            } else {
                Err("the certificate is revoked, has run out, or is not known here")
            };
        }
        let Some(header) = request.headers().get(header::AUTHORIZATION) else { return Ok(Caller::Anonymous) };
        let refused = "the credential is not known, is revoked, or has run out";
        let credential = credential(header).ok_or(refused)?;
        let (name, role) = registry.principal(&credential.sha256(), now()).ok_or(refused)?;
        Ok(Caller::Principal { name: name.to_owned(), role })
    }
}

/// Whether a request is a gRPC call, by what it says of its body.
fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The credential in an `Authorization` header. The header's length is bounded by that of all headers.
fn credential(header: &HeaderValue) -> Option<Credential> {
    let (scheme, text) = header.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return text.parse().ok();
    }
    let basic = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(text.trim()).ok())??;
    let (_, password) = std::str::from_utf8(&basic).ok()?.split_once(':')?;
    password.parse().ok()
}

/// How long an answer may wait to be taken: the largest one over a slow line.
const TAKEN_WITHIN: Duration = Duration::from_secs(300);

/// What goes with an answer is held until its body was taken or given up. Who does not take it loses the connection:
/// nothing else frees what HTTP/2 keeps for it.
pub(crate) fn holding(mut response: Response<Body>, cut: impl FnOnce() + Send + 'static) -> Response<Body> {
    let Some(held) = response.extensions_mut().remove::<Held>() else { return response };
    let taken = CancellationToken::new();
    let (is_taken, guard) = (taken.clone(), taken.drop_guard());
    tokio::spawn(async move {
        if tokio::time::timeout(TAKEN_WITHIN, is_taken.cancelled()).await.is_err() {
            cut();
        }
    });
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = (&held, &guard);
            frame
        }))
    })
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;
    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.guard.check(&mut request) {
            Ok(()) => {
                let is_grpc = is_grpc(&request);
                let peer = request.extensions().get::<Peer>().cloned();
                let call = contained(self.inner.call(request));
                Box::pin(async move {
                    let failed = "the call failed inside the collector; its log has the place";
                    let answer = call.await.unwrap_or_else(|Panicked| match is_grpc {
                        true => Ok(Status::internal(failed).into_http()),
                        false => Ok(web::failed(failed).map(Body::new)),
                    });
                    Ok(holding(answer?, move || peer.iter().for_each(Peer::cut)))
                })
            }
            Err(refusal) => Box::pin(async move { Ok(refusal) }),
        }
    }
}
