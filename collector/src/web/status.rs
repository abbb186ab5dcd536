//! What this server is and holds, as tools ask a Prometheus.

use std::cell::RefCell;
use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::response::Response;
use tocsin_promql::Annotations;
use tocsin_shared::labels::{Labels, METRIC_NAME};
use tocsin_shared::time::Timestamp;

use super::answer;
use super::call::{self, Ended, PATIENCE};
use super::failure::Failure;
use super::json::Json;
use super::parameters::Asked;
use crate::api::Api;
use crate::ask;
use crate::clock::now;
use crate::samples::Store;

/// The Prometheus whose API this is. Dashboards choose by it what they ask for: from 2.24 on they narrow the values of
/// labels by selectors, from 3.0 on they send names of any characters. Nothing newer than 3.0 is promised.
const SPOKEN: &str = "3.0.0";
/// After all blocks: such a span selects what is in memory, that is the series being sent.
const IN_MEMORY: (Timestamp, Timestamp) = (Timestamp::from_millis(i64::MAX - 1), Timestamp::MAX);
/// The largest of each list unless asked otherwise, and at most.
const LARGEST: usize = 10;
const LARGEST_MAX: usize = 10_000;

/// `/api/v1/status/buildinfo`. The product's own version is in `revision`.
pub(super) async fn build(State(api): State<Api>) -> Result<Response, Failure> {
    let revision = format!("tocsin-{}", api.about.version);
    let body = answer::of(|json| {
        json.raw("{\"version\":").text(SPOKEN).raw(",\"revision\":").text(&revision);
        json.raw(",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}");
    })?;
    Ok(answer::response(body))
}

/// `/api/v1/status/runtimeinfo`. What only Go has is 0 or empty.
pub(super) async fn runtime(State(api): State<Api>) -> Result<Response, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let body = answer::of(|json| {
        json.raw("{\"startTime\":").text(&api.about.started_at.to_string());
        json.raw(",\"CWD\":\"\",\"hostname\":\"\",\"serverTime\":").text(&now().to_string());
        json.raw(",\"reloadConfigSuccess\":true,\"lastConfigTime\":").text(&api.about.started_at.to_string());
        json.raw(",\"corruptionCount\":0,\"goroutineCount\":0,\"GOMAXPROCS\":");
        json.int(i64::try_from(cores).unwrap_or(0));
        json.raw(",\"GOMEMLIMIT\":0,\"GOGC\":\"\",\"GODEBUG\":\"\",\"storageRetention\":\"\"}");
    })?;
    Ok(answer::response(body))
}

/// `/api/v1/status/tsdb`: of the series being sent, what there is most of.
pub(super) async fn tsdb(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(request).await?;
    let most = asked.limit("limit")?.unwrap_or(LARGEST).min(LARGEST_MAX);
    let work = move |store: &Store, ended: &Ended| {
        let counted = RefCell::new(Counted::default());
        let take = |labels: &Labels| {
            if !ended.is() {
                counted.borrow_mut().count(labels);
            }
            false // Counting is all: no list is made.
        };
        ask::series(store, &[], IN_MEMORY, take);
        if ended.is() {
            return Err(ended.failure());
        }
        let mut json = answer::begin(4_096);
        counted.into_inner().write(&mut json, store, most);
        answer::end(json, Annotations::default())
    };
    let (body, place) = call::run(&api, &asked.caller, PATIENCE, work).await?;
    Ok(call::holding(answer::response(body), place))
}

/// Counts over series.
#[derive(Debug, Default)]
struct Counted {
    series: u64,
    /// By name, then by value.
    labels: HashMap<String, HashMap<String, u64>>,
}

impl Counted {
    fn count(&mut self, labels: &Labels) {
        self.series += 1;
        for (name, value) in labels.iter() {
            if !self.labels.contains_key(name) {
                self.labels.insert(name.to_owned(), HashMap::new());
            }
            let Some(values) = self.labels.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(count) => *count += 1,
                None => drop(values.insert(value.to_owned(), 1)),
            }
        }
    }

    fn write(&self, json: &mut Json, store: &Store, most: usize) {
        let pairs: Vec<(String, u64)> = self
            .labels
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |(value, n)| (format!("{name}={value}"), *n)))
            .collect();
        let bytes = |values: &HashMap<String, u64>| values.keys().map(|value| value.len() as u64).sum();
        let by_name = |of: &dyn Fn(&HashMap<String, u64>) -> u64| -> Vec<(String, u64)> {
            self.labels.iter().map(|(name, values)| (name.clone(), of(values))).collect()
        };
        let metrics = self.labels.get(METRIC_NAME).cloned().unwrap_or_default();
        let last = store.last_rows().into_iter().map(|(_, at)| at.as_millis());
        let windows = store.windows_in_memory();
        let first = windows.first().map_or(0, |window| window.from.as_millis());
        json.raw("{\"headStats\":{\"numSeries\":").int(i64::try_from(self.series).unwrap_or(i64::MAX));
        json.raw(",\"numLabelPairs\":").int(i64::try_from(pairs.len()).unwrap_or(i64::MAX));
        json.raw(",\"chunkCount\":0,\"minTime\":").int(first);
        json.raw(",\"maxTime\":").int(last.max().unwrap_or(0)).raw("}");
        write_largest(json, "seriesCountByMetricName", metrics.into_iter().collect(), most);
        write_largest(json, "labelValueCountByLabelName", by_name(&|values| values.len() as u64), most);
        write_largest(json, "memoryInBytesByLabelName", by_name(&bytes), most);
        write_largest(json, "seriesCountByLabelValuePair", pairs, most);
        json.raw("}");
    }
}

fn write_largest(json: &mut Json, name: &str, mut counts: Vec<(String, u64)>, most: usize) {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    json.raw(",").key(name).raw("[");
    json.each(counts.iter().take(most), |json, (name, count)| {
        json.raw("{\"name\":").text(name).raw(",\"value\":");
        json.int(i64::try_from(*count).unwrap_or(i64::MAX)).raw("}");
    });
    json.raw("]");
}
