//! Hosts as scrape targets: tools that list what a Prometheus scrapes list the hosts.
//!
//! Nothing is scraped here: a target is up while its agent is heard, and its last scrape is its last row.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::response::Response;
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;

use super::answer;
use super::call::refused;
use super::failure::Failure;
use super::json::Json;
use super::parameters::{Asked, invalid};
use crate::api::Api;

/// The pool that all hosts are in: their label `job`.
const POOL: &str = "node";

/// `/api/v1/targets`.
pub(super) async fn targets(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let active = match asked.first("state").map(str::to_lowercase).as_deref() {
        None | Some("any" | "active") => true,
        Some("dropped") => false,
        Some(other) => return Err(invalid("state", format!("{other:?} is not active, dropped or any"))),
    };
    let wanted = active && asked.first("scrapePool").is_none_or(|pool| pool == POOL);
    let hosts = api.read(|state| state.hosts().cloned().collect::<Vec<Host>>()).await.map_err(refused)?;
    let mut hosts: Vec<Host> =
        hosts.into_iter().filter(|host| wanted && host.state != HostState::Retired).collect();
    hosts.sort_by(|a, b| a.instance.cmp(&b.instance));
    let last_rows: HashMap<AgentId, Timestamp> = api.samples.last_rows().into_iter().collect();
    let heartbeat = api.presence.heartbeat().as_secs_f64();
    let body = answer::of(|json| {
        json.raw("{\"activeTargets\":[");
        json.each(&hosts, |json, host| write(json, host, last_rows.get(&host.agent), heartbeat));
        json.raw("],\"droppedTargets\":[],\"droppedTargetCounts\":{\"node\":0}}");
    })?;
    Ok(answer::response(body))
}

fn write(json: &mut Json, host: &Host, last_row: Option<&Timestamp>, heartbeat: f64) {
    let (health, error) = match host.state {
        HostState::Online => ("up", ""),
        HostState::Pending => ("unknown", "the host has enrolled and was never heard"),
        HostState::Unreachable => {
            ("down", "the host's agent is not heard; its alerts and jobs stay as they are")
        }
        HostState::Retired => ("unknown", "the host is retired"),
    };
    let discovered =
        Labels::new([("__address__", host.instance.as_str()), ("__scheme__", "grpc"), ("job", POOL)]);
    let url = format!("grpc://{}/", host.instance);
    let last = last_row.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), Timestamp::to_string);
    let interval = format!("{heartbeat}s");
    json.raw("{\"discoveredLabels\":").labels(&discovered);
    json.raw(",\"labels\":").labels(&host.target_labels());
    json.raw(",\"scrapePool\":").text(POOL).raw(",\"scrapeUrl\":").text(&url);
    json.raw(",\"globalUrl\":").text(&url).raw(",\"lastError\":").text(error);
    json.raw(",\"lastScrape\":").text(&last).raw(",\"lastScrapeDuration\":0,\"health\":").text(health);
    json.raw(",\"scrapeInterval\":").text(&interval).raw(",\"scrapeTimeout\":").text(&interval).raw("}");
}
