//! Queries over a host with ten minutes of samples.

use std::sync::Arc;

use tocsin_shared::labels::Labels;
use tocsin_shared::metric::Kind;
use tocsin_shared::sample::STALE_NAN;
use tokio_stream::StreamExt;
use tonic::Code;

use super::super::Calls;
use super::super::testing::{Collector, call};
use super::*;
use crate::state::testing::{agent, at};

const MINUTE: i64 = 60_000;

/// A collector whose host `web-1` has sent `up` and `cpu` for ten minutes, every minute.
async fn collector() -> Collector {
    let collector = Collector::start().await;
    let samples = &collector.api.samples;
    samples.set_target(agent(1), Labels::new([("instance", "web-1"), ("job", "node")]));
    let table: Arc<[Labels]> = [Labels::series("up", &[]), Labels::series("cpu", &[("mode", "idle")])].into();
    for minute in 0..=10 {
        samples.append(agent(1), &table, at(minute * 60), &[1.0, minute as f64]).unwrap();
    }
    collector
}

fn instant(query: &str) -> Request<pb::InstantRequest> {
    call(pb::InstantRequest { query: query.into(), at_ms: at(600).as_millis() })
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_have_the_shapes_of_prometheus() {
    let collector = collector().await;
    for (query, result_type, text, points) in [
        ("cpu", "vector", "", vec![vec![10.0]]),
        ("cpu + 1 > 5", "vector", "", vec![vec![11.0]]),
        ("none", "vector", "", vec![]),
        ("1 + 1", "scalar", "", vec![vec![2.0]]),
        ("cpu[2m]", "matrix", "", vec![vec![9.0, 10.0]]),
        ("\"words\"", "string", "words", vec![]),
    ] {
        let answer = collector.api.instant(instant(query)).await.unwrap().into_inner();
        assert_eq!((&*answer.result_type, &*answer.text), (result_type, text), "{query}");
        let found: Vec<Vec<f64>> =
            answer.series.iter().map(|series| series.points.iter().map(|p| p.value).collect()).collect();
        assert_eq!(found, points, "{query}");
    }
    let up = collector.api.instant(instant("up")).await.unwrap().into_inner();
    let labels: Vec<_> = up.series[0].labels.iter().map(|l| (&*l.name, &*l.value)).collect();
    assert_eq!(labels, [("__name__", "up"), ("instance", "web-1"), ("job", "node")]);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_query_is_said() {
    let collector = collector().await;
    let long = format!("up{{a=\"{}\"}}", "x".repeat(TEXT_BYTES_MAX));
    for (query, code, says) in [
        ("cpu +", Code::InvalidArgument, "does not parse"),
        ("", Code::InvalidArgument, "empty"),
        (&long, Code::InvalidArgument, "at most 65536"),
        ("{job=\"node\"} * on(job) {job=\"node\"}", Code::InvalidArgument, "many-to-many"),
        ("{job=\"node\"}[30d:1ms]", Code::ResourceExhausted, "samples"),
    ] {
        let status = collector.api.instant(instant(query)).await.unwrap_err();
        assert_eq!(status.code(), code, "{query}: {status}");
        assert!(status.message().contains(says), "{query}: {status}");
    }
    let held: Vec<_> = (0..8).map(|_| collector.api.instant(instant("up"))).collect();
    let mut answers = Vec::new();
    for answer in held {
        answers.push(answer.await.unwrap()); // Not taken: each keeps its place.
    }
    let refused = collector.api.instant(instant("up")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(answers);
    collector.api.instant(instant("up")).await.unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_have_a_point_for_each_step() {
    let collector = collector().await;
    let range = |from: i64, to: i64, step_ms: i64| {
        let (start_ms, end_ms) = (at(from).as_millis(), at(to).as_millis());
        call(pb::RangeRequest { query: "cpu".into(), start_ms, end_ms, step_ms })
    };
    let mut messages = collector.api.range(range(0, 600, 2 * MINUTE)).await.unwrap().into_inner();
    let series = messages.next().await.unwrap().unwrap().series;
    assert!(messages.next().await.is_none());
    let values: Vec<f64> = series[0].points.iter().map(|point| point.value).collect();
    assert_eq!(values, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    for (from, to, step) in [(0, 600, 0), (0, 600, -5), (600, 0, MINUTE), (0, 11_000, 1_000)] {
        let Err(status) = collector.api.range(range(from, to, step)).await else { panic!("{from} {to}") };
        assert_eq!(status.code(), Code::InvalidArgument, "{from} {to} {step}: {status}");
    }
    collector.api.range(range(0, 10_999, 1_000)).await.unwrap();
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn series_and_labels_are_listed() {
    let collector = collector().await;
    let series = |selector: &str, from: i64, to: i64| {
        let (start_ms, end_ms) = (at(from).as_millis(), at(to).as_millis());
        call(pb::SeriesRequest { selector: selector.into(), start_ms, end_ms, ..Default::default() })
    };
    for (selector, from, to, expected) in [
        ("cpu", 0, 600, 1),
        ("{job=\"node\"}", 0, 600, 2),
        ("{__name__=~\"c.*|u.*\"}", 0, 0, 2),
        ("cpu", 601, 900, 0),
        ("cpu{mode=\"user\"}", 0, 600, 0),
    ] {
        let found = collector.api.series(series(selector, from, to)).await.unwrap().into_inner().series;
        assert_eq!(found.len(), expected, "{selector} {from} {to}");
    }
    for selector in ["rate(cpu[5m])", "cpu[5m]", "1", "cpu + up", "{"] {
        let status = collector.api.series(series(selector, 0, 600)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{selector}");
    }
    // Names are those of series in memory, and of blocks of the last day.
    let names = collector.api.labels(call(pb::LabelsRequest::default())).await.unwrap().into_inner().names;
    assert_eq!(names, ["__name__", "instance", "job", "mode"]);
    for (name, values) in [("__name__", &["cpu", "up"][..]), ("mode", &["idle"]), ("none", &[])] {
        let request = call(pb::LabelValuesRequest { name: name.into(), ..Default::default() });
        assert_eq!(collector.api.label_values(request).await.unwrap().into_inner().values, values);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_found_by_either_name() {
    let collector = collector().await;
    collector.fires("one", 0, &["sda"]).await;
    let all = call(pb::ListHostsRequest::default());
    let hosts = collector.api.list_hosts(all).await.unwrap().into_inner().hosts;
    assert_eq!(hosts.len(), 1);
    let seen = &hosts[0];
    assert_eq!((seen.series, seen.alerts_firing, seen.last_row_ms), (2, 1, at(600).as_millis()));
    for name in ["web-1".to_owned(), agent(1).to_string()] {
        let got = collector.api.get_host(call(pb::GetHostRequest { name })).await.unwrap().into_inner();
        assert_eq!(got.status.as_ref(), Some(seen));
    }
    let status = collector.api.get_host(call(pb::GetHostRequest { name: "web-2".into() })).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    collector.stop().await;
}

/// Subscribes; the collector is one whose heartbeats come at once.
async fn subscribe(
    collector: &Collector,
    query: &str,
    step_ms: i64,
) -> Result<ReceiverStream<Result<pb::SubscribeQueryResponse, Status>>, Status> {
    let request = call(pb::SubscribeQueryRequest { query: query.into(), step_ms });
    QueryService::subscribe(&collector.api, request).await.map(Response::into_inner)
}

/// The next message that is no heartbeat.
async fn next(
    answers: &mut ReceiverStream<Result<pb::SubscribeQueryResponse, Status>>,
) -> Result<pb::SubscribeQueryResponse, Status> {
    loop {
        let answer = answers.next().await.expect("it ends with a status")?;
        if answer.update() != pb::QueryUpdate::Unchanged {
            return Ok(answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_answer_at_once_and_end_with_the_credential() {
    let collector = collector().await.impatient();
    for (query, step) in [("1", 999), ("1", 0), ("1", -5), ("1", 3_600_001), ("1 +", 1_000)] {
        let status = subscribe(&collector, query, step).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{query} {step}: {status}");
    }
    for query in ["cpu[5m]", "\"words\""] {
        let mut answers = subscribe(&collector, query, 1_000).await.unwrap();
        let status = next(&mut answers).await.unwrap_err();
        assert_eq!((status.code(), reason::of(&status)), (Code::InvalidArgument, Some(BAD_QUERY)), "{query}");
        assert!(answers.next().await.is_none());
    }
    let mut answers = subscribe(&collector, "1 + 1", 3_600_000).await.unwrap();
    let first = answers.next().await.unwrap().unwrap();
    assert_eq!((first.update(), &*first.result_type, first.more), (pb::QueryUpdate::Whole, "scalar", false));
    assert_eq!(first.series[0].points[0].value, 2.0);
    let beat = answers.next().await.unwrap().unwrap();
    assert_eq!((beat.update(), beat.at_ms), (pb::QueryUpdate::Unchanged, first.at_ms), "of the evaluation");
    assert!(beat.series.is_empty());
    collector.revoke("ann").await;
    assert_eq!(next(&mut answers).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(answers.next().await.is_none());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_are_given_what_changed_when_samples_come() {
    let collector = collector().await;
    let samples = &collector.api.samples;
    let table: Arc<[Labels]> =
        [Labels::series("a", &[]), Labels::series("b", &[]), Labels::series("c", &[])].into();
    let absent = crate::samples::ABSENT;
    let came = |values: [f64; 3]| samples.append(agent(2), &table, crate::clock::now(), &values).unwrap();
    came([1.0, 2.0, absent]);
    let mut answers = subscribe(&collector, "{__name__=~\"a|b|c\"}", 1_000).await.unwrap();
    let shown = |answer: &pb::SubscribeQueryResponse| {
        let name = |labels: &[pb::Label]| labels[0].value.clone();
        let mut series: Vec<String> = answer
            .series
            .iter()
            .map(|series| format!("{}={}", name(&series.labels), series.points[0].value))
            .chain(answer.gone.iter().map(|series| format!("-{}", name(&series.labels))))
            .collect();
        series.sort();
        (answer.update(), series.join(" "))
    };
    // The heartbeat is seconds away: only what came can be why it answers.
    for (row, expected) in [
        (None, (pb::QueryUpdate::Whole, "a=1 b=2")),
        (Some([1.0, 3.0, absent]), (pb::QueryUpdate::Changes, "b=3")),
        (Some([1.0, 3.0, 4.0]), (pb::QueryUpdate::Changes, "c=4")),
        (Some([5.0, STALE_NAN, 4.0]), (pb::QueryUpdate::Changes, "-b a=5")),
    ] {
        if let Some(values) = row {
            came(values);
        }
        let answer = next(&mut answers).await.unwrap();
        assert_eq!(shown(&answer), (expected.0, expected.1.to_owned()));
    }
    // Who comes again has it all again.
    let mut again = subscribe(&collector, "{__name__=~\"a|b|c\"}", 1_000).await.unwrap();
    let whole = next(&mut again).await.unwrap();
    assert_eq!(shown(&whole), (pb::QueryUpdate::Whole, "a=5 c=4".to_owned()));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_so_many_subscriptions_of_so_many_series() {
    let mut collector = collector().await;
    let mut held = Vec::new();
    for _ in 0..128 {
        held.push(subscribe(&collector, "vector(1)", 3_600_000).await.unwrap());
    }
    let status = subscribe(&collector, "vector(1)", 1_000).await.unwrap_err();
    assert_eq!((status.code(), reason::of(&status)), (Code::ResourceExhausted, Some(TOO_MANY_QUERIES)));
    drop(held);
    let calls = Calls { subscribed_series: Arc::new(tokio::sync::Semaphore::new(3)), ..Calls::default() };
    collector.api.calls = Arc::new(calls);
    let mut first = subscribe(&collector, "{job=\"node\"} and on() vector(1)", 3_600_000).await.unwrap();
    next(&mut first).await.unwrap(); // Nothing at this time, and it holds nothing.
    let query = |series: usize| {
        let one = |number: usize| format!("label_replace(vector(1), \"n\", \"{number}\", \"\", \"\")");
        (0..series).map(one).collect::<Vec<_>>().join(" or ")
    };
    let mut two = subscribe(&collector, &query(2), 3_600_000).await.unwrap();
    assert_eq!(next(&mut two).await.unwrap().series.len(), 2);
    let mut more = subscribe(&collector, &query(2), 3_600_000).await.unwrap();
    let status = next(&mut more).await.unwrap_err();
    assert_eq!(
        (status.code(), reason::of(&status)),
        (Code::ResourceExhausted, Some(reason::TOO_MANY_SERIES))
    );
    let mut one = subscribe(&collector, &query(1), 3_600_000).await.unwrap();
    assert_eq!(next(&mut one).await.unwrap().series.len(), 1, "there is room for one");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_narrowed_and_come_in_pages() {
    let collector = collector().await;
    let labels = |selectors: &[&str], page_size, page_token: &str| pb::LabelsRequest {
        selectors: selectors.iter().map(|text| (*text).into()).collect(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    for (selectors, expected) in [
        (&["cpu"][..], "__name__ instance job mode"),
        (&["up"], "__name__ instance job"),
        (&["up", "cpu{mode=\"idle\"}"], "__name__ instance job mode"),
        (&["none"], ""),
    ] {
        let answer = collector.api.labels(call(labels(selectors, 0, ""))).await.unwrap().into_inner();
        assert_eq!(answer.names.join(" "), expected, "{selectors:?}");
        assert_eq!(answer.next_page_token, "");
    }
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = collector.api.labels(call(labels(&[], 3, &token))).await.unwrap().into_inner();
        pages += 1;
        names.extend(answer.names);
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((names.join(" ").as_str(), pages), ("__name__ instance job mode", 2));
    let values = |name: &str, selectors: &[&str]| {
        call(pb::LabelValuesRequest {
            name: name.into(),
            selectors: selectors.iter().map(|text| (*text).into()).collect(),
            ..Default::default()
        })
    };
    for (name, selectors, expected) in
        [("__name__", &[][..], "cpu up"), ("__name__", &["{mode=\"idle\"}"], "cpu"), ("mode", &["up"], "")]
    {
        let answer = collector.api.label_values(values(name, selectors)).await.unwrap().into_inner();
        assert_eq!(answer.values.join(" "), expected, "{name} {selectors:?}");
    }
    let series = |size, token: &str| {
        call(pb::SeriesRequest {
            selectors: vec!["cpu".into(), "up".into()],
            start_ms: at(0).as_millis(),
            end_ms: at(600).as_millis(),
            page_size: size,
            page_token: token.into(),
            ..Default::default()
        })
    };
    let first = collector.api.series(series(1, "")).await.unwrap().into_inner();
    let second = collector.api.series(series(1, &first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((first.series[0].labels[0].value.as_str(), second.next_page_token.as_str()), ("cpu", ""));
    assert_eq!(second.series[0].labels[0].value, "up");
    for (status, expected) in [
        (collector.api.labels(call(labels(&["up"], 3, &first.next_page_token))).await.unwrap_err(), BAD_PAGE),
        (collector.api.labels(call(labels(&["sum(up)"], 3, ""))).await.unwrap_err(), BAD_QUERY),
        (collector.api.labels(call(labels(&["up"; 65], 3, ""))).await.unwrap_err(), BAD_REQUEST),
        (collector.api.label_values(values("", &[])).await.unwrap_err(), BAD_REQUEST),
        (collector.api.series(call(pb::SeriesRequest::default())).await.unwrap_err(), BAD_REQUEST),
    ] {
        assert_eq!((status.code(), reason::of(&status)), (Code::InvalidArgument, Some(expected)), "{status}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_filtered() {
    let collector = collector().await;
    let asked = |change: fn(&mut pb::ListHostsRequest)| {
        let mut request = pb::ListHostsRequest::default();
        change(&mut request);
        call(request)
    };
    for (change, expected) in [
        ((|_| {}) as fn(&mut pb::ListHostsRequest), 1),
        (|asked| asked.envs = vec![pb::Env::Prod.into(), pb::Env::Dr.into()], 1),
        (|asked| asked.envs = vec![pb::Env::Uat.into()], 0),
        (|asked| asked.states = vec![pb::HostState::Pending.into()], 1),
        (|asked| asked.states = vec![pb::HostState::Online.into()], 0),
        (|asked| asked.name_contains = "WEB".into(), 1),
        (|asked| asked.name_contains = "db".into(), 0),
        (|asked| asked.labels = vec![pb::Label { name: "team".into(), value: "x".into() }], 0),
        (|asked| asked.page_size = 1, 1),
    ] {
        let hosts = collector.api.list_hosts(asked(change)).await.unwrap().into_inner();
        assert_eq!((hosts.hosts.len(), &*hosts.next_page_token), (expected, ""));
    }
    let status = collector.api.list_hosts(asked(|asked| asked.envs = vec![9])).await.unwrap_err();
    assert_eq!((status.code(), reason::of(&status)), (Code::InvalidArgument, Some(BAD_REQUEST)));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_words_for_programs() {
    let collector = collector().await;
    let limit = |status: &Status| {
        status.metadata().get("tocsin-limit").map(|value| value.to_str().unwrap().to_owned())
    };
    for (query, expected, most) in [
        ("cpu +", BAD_QUERY, None),
        ("{job=\"node\"} * on(job) {job=\"node\"}", reason::BAD_RESULT, None),
        ("{job=\"node\"}[30d:1ms]", reason::TOO_MANY_SAMPLES, Some("50000000")),
    ] {
        let status = collector.api.instant(instant(query)).await.unwrap_err();
        assert_eq!((reason::of(&status), limit(&status).as_deref()), (Some(expected), most), "{query}");
    }
    let range =
        |start_ms, end_ms, step_ms| call(pb::RangeRequest { query: "cpu".into(), start_ms, end_ms, step_ms });
    for (request, expected, most) in
        [(range(0, 11_000, 1), reason::TOO_MANY_STEPS, Some("11000")), (range(2, 1, 1), BAD_REQUEST, None)]
    {
        let Err(status) = collector.api.range(request).await else { panic!("{expected}") };
        assert_eq!((reason::of(&status), limit(&status).as_deref()), (Some(expected), most));
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_evaluation_and_gives_its_place_back() {
    let collector = collector().await;
    let samples = &collector.api.samples;
    let names = (0..2_000).map(|number| Labels::series("many", &[("n", &number.to_string())]));
    let table: Arc<[Labels]> = names.collect();
    for second in 0..600 {
        samples.append(agent(2), &table, at(second), &vec![second as f64; table.len()]).unwrap();
    }
    let slow = || {
        let query = "sum(quantile_over_time(0.5, many[10m]))".into();
        let (start_ms, end_ms) = (at(0).as_millis(), at(600).as_millis());
        let mut request = call(pb::RangeRequest { query, start_ms, end_ms, step_ms: 100 });
        request.metadata_mut().insert("grpc-timeout", "1m".parse().unwrap());
        request
    };
    // Each holds its place until it really ends: nine in a row are more than the caller has.
    for _ in 0..9 {
        let ended = async {
            while let Err(full) = collector.api.instant(instant("1")).await {
                assert_eq!(reason::of(&full), Some(TOO_MANY_QUERIES));
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("no place comes back");
        let Err(status) = collector.api.range(slow()).await else { panic!("it is not slow") };
        assert_eq!((status.code(), reason::of(&status)), (Code::DeadlineExceeded, Some(TOO_LATE)));
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_described() {
    let collector = collector().await;
    let metadata = |metric: &str, page_size, page_token: &str| {
        call(pb::MetadataRequest { metric: metric.into(), page_size, page_token: page_token.into() })
    };
    collector.api.metadata.note("my_seconds", Kind::Histogram, "How long it took.", "seconds");
    let shown = |answer: &pb::MetadataResponse| {
        let one = |one: &pb::MetricMetadata| format!("{} {} {}", one.metric, one.r#type, one.unit);
        answer.metrics.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let all = collector.api.metadata(metadata("", 0, "")).await.unwrap().into_inner();
    assert_eq!(
        shown(&all),
        "my_seconds histogram seconds, up gauge ",
        "of what nobody describes nothing is said"
    );
    assert_eq!(all.metrics[0].help, "How long it took.");
    let first = collector.api.metadata(metadata("", 1, "")).await.unwrap().into_inner();
    let second = collector.api.metadata(metadata("", 1, &first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((shown(&first), shown(&second)), ("my_seconds histogram seconds".into(), "up gauge ".into()));
    let node = collector.api.metadata(metadata("node_load1", 0, "")).await.unwrap().into_inner();
    assert_eq!((node.metrics.len(), &*node.metrics[0].r#type), (1, "gauge"));
    let nothing = collector.api.metadata(metadata("nothing", 0, "")).await.unwrap().into_inner();
    assert_eq!(nothing, pb::MetadataResponse::default());
    collector.stop().await;
}
