//! The loopback HTTP listener: health and self-metrics, without a credential. The queries of Prometheus' HTTP API only
//! if the configuration says so; then everyone on this host is a viewer, but no page that a browser on it shows: the
//! name it asks for must be that of the loopback. Nothing else is here.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tocsin_shared::access::Role;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Parts;
use crate::api::guard::holding;
use crate::contain::{Panicked, contained};
use crate::evaluate::statistics::GroupStanding;
use crate::identity::authorise::{Caller, authorise_path};
use crate::ingest::quota::Limited;
use crate::listen::Counts;
use crate::receive::SourceStanding;
use crate::receive::refused::Reason;
use crate::web;

/// The counts of the listeners, by their names.
pub(super) type Doors = Arc<[(&'static str, Arc<Counts>)]>;

/// Connections at a time; scrapers and probes need a few.
const CONNECTIONS_MAX: usize = 32;
/// The time for a request's headers.
const HEADERS: Duration = Duration::from_secs(5);
/// Who asks here: what is counted of callers is counted for all of this host together.
const LOCAL: &str = "this host";
/// Groups of rules that are shown, the dearest ones: who looks for what takes the time needs no more.
const GROUPS_MAX: usize = 50;

/// Serves until the collector stops.
pub(super) async fn serve(parts: Parts, doors: Doors, listener: TcpListener, routes: Option<Router>) {
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
        let (parts, doors, routes) = (parts.clone(), doors.clone(), routes.clone());
        tokio::spawn(async move {
            let cut = CancellationToken::new();
            let service = service_fn(|request| answer(&parts, &doors, (routes.as_ref(), &cut), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                served = connection => drop(served), // A broken connection is its client's matter.
                () = parts.stop.cancelled() => {}
                () = cut.cancelled() => {} // It does not take an answer.
            }
            drop(permit);
        });
    }
}

async fn answer(
    parts: &Parts,
    doors: &Doors,
    (routes, cut): (Option<&Router>, &CancellationToken),
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let is_query = ["/api/", "/federate"].iter().any(|path| request.uri().path().starts_with(path));
    if let Some(routes) = routes.filter(|_| is_query) {
        return Ok(query(routes, cut, request.map(Body::new)).await);
    }
    let text = |status: StatusCode, text: String| {
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    };
    if request.method() != Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into()));
    }
    Ok(match request.uri().path() {
        "/-/healthy" => text(StatusCode::OK, "healthy\n".into()),
        // Ready all the same: outcomes, incidents and queries go on.
        "/-/ready" => {
            let degraded = parts.ledger.degraded().map(|why| why.to_string());
            let room = parts.room.standing().trouble().or_else(|| parts.room.memory().trouble());
            let trouble: Vec<String> = degraded.into_iter().chain(room).collect();
            text(StatusCode::OK, [vec!["ready".to_owned()], trouble].concat().join("; ") + "\n")
        }
        "/metrics" => {
            let page = metrics(parts)
                + &connections(doors)
                + &sources(parts)
                + &rule_groups(parts.statistics.groups());
            text(StatusCode::OK, page)
        }
        _ if is_query => {
            let why = "queries are answered here only if the configuration says so: listen.local_queries\n";
            text(StatusCode::NOT_FOUND, why.into())
        }
        _ => text(StatusCode::NOT_FOUND, "there are /-/healthy, /-/ready and /metrics\n".into()),
    })
}

/// Answers a query of whoever is on this host, as a viewer.
async fn query(routes: &Router, cut: &CancellationToken, mut request: Request<Body>) -> Response<Body> {
    if !is_for_this_host(&request) {
        return web::misdirected();
    }
    let caller = Caller::Principal { name: LOCAL.to_owned(), role: Role::Viewer };
    if let Err(denied) = authorise_path(&caller, request.method().as_str(), request.uri().path()) {
        return web::denied(&denied, denied.to_string());
    }
    request.extensions_mut().insert(caller);
    let failed = "the call failed inside the collector; its log has the place";
    let answer = match contained(routes.clone().oneshot(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(never)) => match never {},
        Err(Panicked) => web::failed(failed),
    };
    let cut = cut.clone();
    holding(answer.map(tonic::body::Body::new), move || cut.cancel()).map(Body::new)
}

/// Whether the request names the loopback as its host. A page of another site that a browser on this host shows can
/// have its own name lead here, but cannot have another name asked for.
fn is_for_this_host(request: &Request<Body>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host.and_then(|host| host.parse::<http::uri::Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
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
    let blind = parts.presence.blind().as_secs_f64();
    metric("blind_seconds_total", "counter", "Time in which the collector stood still.", blind);
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
    let filled = parts.statistics.filled_rows();
    metric(
        "rows_evaluated_again_total",
        "counter",
        "Rows that rules ran over once more, because others before them had come late.",
        filled as f64,
    );
    let duplicates = parts.rows.duplicates() as f64;
    metric("rows_duplicate_total", "counter", "Rows that came again and count once.", duplicates);
    metric(
        "evaluation_delay_p50_seconds",
        "gauge",
        "From a row's arrival to the end of its evaluation, median.",
        p50 as f64 / 1e6,
    );
    metric("evaluation_delay_p99_seconds", "gauge", "The same, 99th percentile.", p99 as f64 / 1e6);
    metric(
        "evaluation_lag_seconds",
        "gauge",
        "How long ago the row came that is being evaluated; 0 when none waits.",
        parts.statistics.lag(Instant::now()).as_secs_f64(),
    );
    metric(
        "rule_runs_skipped_total",
        "counter",
        "Runs of rules left out because evaluation was behind, and ticks of rules across hosts passed over.",
        parts.statistics.skipped_runs() as f64,
    );
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
    let degraded = if parts.ledger.degraded().is_some() { 1.0 } else { 0.0 };
    metric("incidents_read_only", "gauge", "Whether events are lost and nobody has decided yet.", degraded);
    let disk = parts.room.standing();
    metric("disk_free_bytes", "gauge", "Free room on the disk of the journals.", disk.free as f64);
    metric("disk_reserve_bytes", "gauge", "Allocated for outcomes and incidents.", disk.reserve_held as f64);
    let memory = parts.room.memory();
    metric("memory_limit_bytes", "gauge", "Memory that the process may have.", memory.limit as f64);
    metric("memory_used_bytes", "gauge", "Memory that it wrote itself, without files.", memory.used as f64);
    let refused = if parts.room.takes_rows() { 0.0 } else { 1.0 };
    metric("rows_refused", "gauge", "Whether rows are refused for want of room.", refused);
    for (limited, count) in Limited::ALL.into_iter().zip(parts.quotas.counts()) {
        let name = format!("quota_{}_total", limited.as_str());
        metric(&name, "counter", "How often an agent was held back by this quota.", count as f64);
    }
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

/// What became of connections, by listener.
fn connections(doors: &Doors) -> String {
    let name = "tocsin_collector_connections_total";
    let mut out = format!("# HELP {name} What became of connections.\n# TYPE {name} counter\n");
    for (listener, counts) in doors.iter() {
        for (result, count) in counts.all() {
            out.push_str(&format!("{name}{{listener=\"{listener}\",result=\"{result}\"}} {count}\n"));
        }
    }
    out
}

/// What programs that push samples have sent, by source. A principal's name has nothing to escape.
fn sources(parts: &Parts) -> String {
    let (mut out, standings) = (String::new(), parts.receiver.sources());
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&SourceStanding) -> u64| {
        let name = format!("tocsin_collector_source_{name}");
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for standing in &standings {
            out.push_str(&format!("{name}{{source=\"{}\"}} {}\n", standing.source, value(standing)));
        }
    };
    family("requests_total", "counter", "Requests with pushed samples.", |source| source.requests);
    family("samples_total", "counter", "Pushed samples that were taken.", |source| source.written);
    family("held_back_total", "counter", "Requests over their source's allowance.", |source| {
        source.held_back
    });
    family("series", "gauge", "Series that came within the last hour.", |source| source.series as u64);
    let name = "tocsin_collector_source_refused_total";
    let help = "Pushed samples that were not taken, by reason.";
    out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
    for SourceStanding { source, refused, .. } in &standings {
        for reason in Reason::ALL {
            let (word, count) = (reason.as_str(), refused.count(reason));
            out.push_str(&format!("{name}{{source=\"{source}\",reason=\"{word}\"}} {count}\n"));
        }
    }
    out
}

/// What the dearest groups of rules take.
fn rule_groups(mut groups: Vec<GroupStanding>) -> String {
    groups.sort_by_key(|group| std::cmp::Reverse(group.time.spent));
    groups.truncate(GROUPS_MAX);
    let escaped = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&GroupStanding) -> f64| {
        let name = format!("tocsin_collector_rule_group_{name}");
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for standing in &groups {
            let (file, group) = (escaped(&standing.file), escaped(&standing.group));
            out.push_str(&format!("{name}{{file=\"{file}\",group=\"{group}\"}} {}\n", value(standing)));
        }
    };
    family("runs_total", "counter", "Runs of a group's rules over a row or a tick.", |g| g.time.runs as f64);
    family("seconds_total", "counter", "What they took.", |g| g.time.spent.as_secs_f64());
    family("longest_seconds", "gauge", "The longest of them.", |g| g.time.longest.as_secs_f64());
    out
}

/// Resident memory of this process; 0 where the kernel does not say.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * u64::try_from(page).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_the_loopback_are_for_this_host() {
        for (host, expected) in [
            (Some("localhost:7642"), true),
            (Some("LOCALHOST"), true),
            (Some("127.0.0.1:7642"), true),
            (Some("127.9.9.9"), true),
            (Some("[::1]:7642"), true),
            (Some("evil.example:7642"), false),
            (Some("localhost.evil.example"), false),
            (Some("10.0.0.1"), false),
            (Some(""), false),
            (None, false),
        ] {
            let mut request = Request::new(Body::empty());
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, host.parse().unwrap());
            }
            assert_eq!(is_for_this_host(&request), expected, "{host:?}");
        }
    }
}
