//! From a name to a TLS stream: which addresses are tried, in which order, and for how long.
//!
//! Promise: whoever answers, on whatever address, has to show a certificate for the endpoint's own name; nothing is ever
//! said without TLS. Addresses of both families take turns, each new one a moment after the one before or at once when
//! that one failed, so that a family or an address that leads nowhere costs little. The address that was good last is
//! remembered as long as the process lives, and tried when the name fails.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ConnectError, Endpoint, explain, protocol, within};

/// How many addresses of one name are tried: hosts have a few; a hostile resolver may send thousands.
const ADDRESSES_MAX: usize = 8;
/// How long one address is waited for before the next is tried as well; the usual figure (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// The address at which an endpoint was reached last.
#[derive(Debug, Default)]
pub struct LastGood(Mutex<Option<SocketAddr>>);

impl LastGood {
    fn get(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }
}

/// The addresses of an endpoint, as the host's resolver says.
pub(super) async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ConnectError> {
    let unresolved = |reason| ConnectError::Unresolved { host: endpoint.host.clone(), reason };
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|error| unresolved(error.to_string()))?;
    let found = in_turns(found);
    if found.is_empty() { Err(unresolved("it has no address".into())) } else { Ok(found) }
}

/// The first addresses, those of the two families in turns, beginning with the resolver's favourite.
fn in_turns(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = found.collect();
    let Some(first) = found.first().map(SocketAddr::is_ipv6) else { return Vec::new() };
    let (favourite, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| at.is_ipv6() == first);
    let (mut favourite, mut other) = (favourite.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    while turns.len() < ADDRESSES_MAX {
        let (one, two) = (favourite.next(), other.next());
        if one.is_none() && two.is_none() {
            break;
        }
        turns.extend(one.into_iter().chain(two));
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

/// A TLS stream to the endpoint, its certificate verified: by its name, else where it was good last.
pub(super) async fn dial(
    endpoint: &Endpoint,
    named: impl Future<Output = Result<Vec<SocketAddr>, ConnectError>>,
    tls: &TlsConnector,
    (last_good, timeout): (&LastGood, Duration),
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let known = last_good.get();
    // Where there is somewhere else to go, a name that leads nowhere leaves time for it.
    let share = if known.is_some() { timeout / 2 } else { timeout };
    let mut tried = Vec::new();
    let by_name = async {
        tried = named.await?;
        reach(endpoint, &tried, tls).await
    };
    match (within(share, endpoint, by_name).await, known) {
        (Ok((stream, address)), _) => {
            last_good.set(address);
            Ok(stream)
        }
        (Err(error), Some(known)) if !tried.contains(&known) => {
            // The first error says more: what the name leads to is what people can mend.
            reach(endpoint, &[known], tls).await.map(|(stream, _)| stream).map_err(|_| error)
        }
        (Err(error), _) => Err(error),
    }
}

async fn reach(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    tls: &TlsConnector,
) -> Result<(TlsStream<TcpStream>, SocketAddr), ConnectError> {
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| protocol(endpoint, &error))?;
    let (stream, address) = race(endpoint, addresses).await?;
    // Small messages must not wait for the next; a socket that refuses the option still works.
    stream.set_nodelay(true).ok();
    let stream = tls.connect(name, stream).await.map_err(|error| explain(endpoint, &error))?;
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Ok((stream, address)),
        _ => Err(ConnectError::Protocol {
            endpoint: endpoint.clone(),
            reason: "it did not agree to HTTP/2".into(),
        }),
    }
}

/// Connects to whichever address answers first.
async fn race(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let (mut tries, mut rest) = (JoinSet::new(), addresses.iter().copied());
    let mut last =
        ConnectError::Unresolved { host: endpoint.host.clone(), reason: "it has no address".into() };
    loop {
        let next = rest.next();
        if let Some(address) = next {
            tries.spawn(async move { TcpStream::connect(address).await.map(|stream| (stream, address)) });
        }
        let moment = async {
            match next {
                Some(_) => tokio::time::sleep(STAGGER).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = tries.join_next() => match done {
                Some(Ok(Ok(reached))) => return Ok(reached),
                Some(Ok(Err(error))) => last = explain(endpoint, &error),
                Some(Err(_)) => {} // A try cannot panic; were it to, the others go on.
                None => return Err(last),
            },
            () = moment => {}
        }
    }
}

#[cfg(test)]
mod tests;
