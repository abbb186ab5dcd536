//! What metrics are: kind, help and unit of those that there are samples of.

use std::cell::RefCell;
use std::collections::BTreeSet;

use axum::extract::{Request, State};
use axum::response::Response;
use tocsin_promql::Annotations;
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::metric;
use tocsin_shared::time::Timestamp;

use super::answer;
use super::call::{self, Ended, PATIENCE};
use super::failure::Failure;
use super::parameters::Asked;
use crate::api::Api;
use crate::ask;
use crate::metadata::{Description, Metadata};
use crate::samples::Store;

/// After all blocks: such a span selects what is in memory, that is the series being sent.
const IN_MEMORY: (Timestamp, Timestamp) = (Timestamp::from_millis(i64::MAX - 1), Timestamp::MAX);
/// What agents send: families that the product itself describes.
const AGENTS: [&str; 3] = ["node_", "process_", "tocsin_"];

/// `/api/v1/metadata`.
pub(super) async fn metadata(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let limit = asked.limit("limit")?;
    asked.limit("limit_per_metric")?; // There is one description of a metric: it cuts nothing.
    let only = asked.first("metric").map(str::to_owned);
    let known = api.metadata.clone();
    let work = move |store: &Store, ended: &Ended| {
        let names = match only {
            Some(name) => BTreeSet::from([name]),
            None => names(store, &known, ended)?,
        };
        let described = names.iter().filter_map(|name| Some((name, describe(&known, name)?)));
        let mut json = answer::begin(names.len() * 128);
        json.raw("{");
        json.each(described.take(limit.unwrap_or(usize::MAX)), |json, (name, description)| {
            let Description { kind, help, unit } = description;
            json.key(name).raw("[{\"type\":").text(kind.as_str());
            json.raw(",\"help\":").text(&help).raw(",\"unit\":").text(&unit).raw("}]");
        });
        json.raw("}");
        answer::end(json, Annotations::default())
    };
    let (body, place) = call::run(&api, &asked.caller, PATIENCE, work).await?;
    Ok(call::holding(answer::response(body), place))
}

/// Every metric that is being sent or described, by name.
fn names(store: &Store, known: &Metadata, ended: &Ended) -> Result<BTreeSet<String>, Failure> {
    let found = RefCell::new(BTreeSet::new());
    let take = |labels: &Labels| {
        if let Some(name) = labels.get(METRIC_NAME).filter(|_| !ended.is()) {
            let mut found = found.borrow_mut();
            if !found.contains(name) {
                found.insert(name.to_owned());
            }
        }
        false // The names are all that is wanted.
    };
    ask::series(store, &[], IN_MEMORY, take);
    if ended.is() {
        return Err(ended.failure());
    }
    let mut found = found.into_inner();
    known.each(|name, _| {
        found.insert(name.to_owned());
        true
    });
    Ok(found)
}

/// What a metric is, as its senders say, else as the product knows it of its agents.
pub(crate) fn describe(known: &Metadata, name: &str) -> Option<Description> {
    known.get(name).or_else(|| {
        let is_agents = name == "up" || AGENTS.iter().any(|family| name.starts_with(family));
        let (kind, unit) = is_agents.then(|| metric::describe(name))?;
        let help = metric::help(name);
        Some(Description { kind, help: help.into(), unit: unit.as_str().into() })
    })
}
