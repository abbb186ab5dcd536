//! Queries over a host with ten minutes of samples.

use std::sync::Arc;

use tocsin_shared::labels::Labels;
use tokio_stream::StreamExt;
use tonic::Code;

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
    let series = collector.api.range(range(0, 600, 2 * MINUTE)).await.unwrap().into_inner().series;
    let values: Vec<f64> = series[0].points.iter().map(|point| point.value).collect();
    assert_eq!(values, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    for (from, to, step) in [(0, 600, 0), (0, 600, -5), (600, 0, MINUTE), (0, 11_000, 1_000)] {
        let status = collector.api.range(range(from, to, step)).await.unwrap_err();
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
        call(pb::SeriesRequest { selector: selector.into(), start_ms, end_ms })
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
    let names = collector.api.labels(call(pb::LabelsRequest {})).await.unwrap().into_inner().names;
    assert_eq!(names, ["__name__", "instance", "job", "mode"]);
    for (name, values) in [("__name__", &["cpu", "up"][..]), ("mode", &["idle"]), ("none", &[])] {
        let request = call(pb::LabelValuesRequest { name: name.into() });
        assert_eq!(collector.api.label_values(request).await.unwrap().into_inner().values, values);
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_found_by_either_name() {
    let collector = collector().await;
    collector.fires("one", 0, &["sda"]).await;
    let all = call(pb::ListHostsRequest { include_retired: false });
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

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_answer_at_once_and_end_with_the_credential() {
    let collector = collector().await;
    let subscribe = |step_ms| call(pb::SubscribeQueryRequest { query: "1 + 1".into(), step_ms });
    let short = QueryService::subscribe(&collector.api, subscribe(999)).await.unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument);
    let stream = QueryService::subscribe(&collector.api, subscribe(3_600_000)).await.unwrap();
    let mut answers = stream.into_inner();
    let first = answers.next().await.unwrap().unwrap();
    assert_eq!(first.series[0].points[0].value, 2.0);
    collector.revoke("ann").await;
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    assert!(answers.next().await.is_none());
    collector.stop().await;
}
