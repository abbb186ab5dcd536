//! The loopback HTTP listener: health and self-metrics, without a credential. Nothing else is here.

use std::convert::Infallible;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Parts;

/// Connections at a time; scrapers and probes need a few.
const CONNECTIONS_MAX: usize = 32;
/// The time for a request's headers.
const HEADERS: Duration = Duration::from_secs(5);

/// Serves until the collector stops.
pub(super) async fn serve(parts: Parts, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = parts.stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(200)).await; // Out of descriptors: others must end first.
            continue;
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let parts = parts.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&parts, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                served = connection => drop(served), // A broken connection is its client's matter.
                () = parts.stop.cancelled() => {}
            }
            drop(permit);
        });
    }
}

async fn answer(parts: &Parts, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    if request.method() != Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()));
    }
    Ok(match request.uri().path() {
        "/-/healthy" => text(StatusCode::OK, "healthy\n".into()),
        "/-/ready" => text(StatusCode::OK, "ready\n".into()),
        "/metrics" => text(StatusCode::OK, metrics(parts)),
        _ => text(StatusCode::NOT_FOUND, "there are /-/healthy, /-/ready and /metrics\n".into()),
    })
}

/// The collector's own metrics in Prometheus' text format.
fn metrics(parts: &Parts) -> String {
    let stats = parts.samples.stats();
    let (evaluated, late) = parts.statistics.rows();
    let (p50, p99) = parts.statistics.delay_quantiles();
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
        out.push_str(&format!("# HELP tocsin_collector_{name} {help}\n# TYPE tocsin_collector_{name} {kind}\ntocsin_collector_{name} {value}\n"));
    };
    metric("sessions", "gauge", "Agents that are connected.", parts.presence.sessions() as f64);
    metric("series", "gauge", "Series with samples in memory.", stats.series as f64);
    metric("samples_in_memory", "gauge", "Samples in memory.", stats.samples_in_memory as f64);
    metric("samples_at_rest", "gauge", "Samples in blocks.", stats.samples_at_rest as f64);
    metric("blocks_bytes", "gauge", "Bytes of blocks on disk.", stats.bytes_at_rest as f64);
    metric("rows_evaluated_total", "counter", "Rows that rules ran over.", evaluated as f64);
    metric(
        "rows_late_total",
        "counter",
        "Rows older than the last evaluated one of their host.",
        late as f64,
    );
    metric(
        "evaluation_delay_p50_seconds",
        "gauge",
        "From a row's arrival to the end of its evaluation, median.",
        p50 as f64 / 1e6,
    );
    metric("evaluation_delay_p99_seconds", "gauge", "The same, 99th percentile.", p99 as f64 / 1e6);
    metric(
        "failing_rules",
        "gauge",
        "Rules that failed since the start.",
        parts.statistics.failing_rules() as f64,
    );
    metric("events_head", "gauge", "The last durable event.", *parts.ledger.head().borrow() as f64);
    metric(
        "store_applied",
        "gauge",
        "The last event in the store.",
        *parts.projection.applied.borrow() as f64,
    );
    let (ahead_ms, jumps) = crate::clock::standing();
    metric(
        "clock_ahead_seconds",
        "gauge",
        "How far the collector's time is ahead of the system clock.",
        ahead_ms as f64 / 1e3,
    );
    metric(
        "clock_wrong_seconds",
        "gauge",
        "How far the system clock is ahead of what most hosts say; 0 within 30 s.",
        parts.skews.own().unwrap_or(0) as f64 / 1e3,
    );
    metric("clock_jumps_total", "counter", "Jumps after a system clock that was set ahead.", jumps as f64);
    let panics = crate::contain::panics();
    metric("panics_total", "counter", "Panics that were contained: faults of the collector.", panics as f64);
    metric("resident_bytes", "gauge", "Resident memory of the process.", resident_bytes() as f64);
    out
}

/// Resident memory of this process; 0 where the kernel does not say.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page).unwrap_or(4096)
}
