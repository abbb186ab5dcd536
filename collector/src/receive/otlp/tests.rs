//! OTLP requests in, series out.

use std::io::Write as _;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use serde_json::{Value, json};

use super::*;
use crate::clock;
use crate::receive::Config;
use crate::receive::tests::Bench;

fn attributes(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
}

fn request(metric: Value) -> Value {
    let resource = attributes(&[
        ("service.namespace", "shop"),
        ("service.name", "cart"),
        ("service.instance.id", "i-1"),
        ("host.name", "web-1"),
    ]);
    let scope = json!({ "name": "lib", "version": "2" });
    let scope = json!({ "scope": scope, "metrics": [metric] });
    json!({ "resourceMetrics": [{ "resource": { "attributes": resource }, "scopeMetrics": [scope] }] })
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Labels that every series of `request` has, before and after others.
fn line(metric: &str, own: &[(&str, &str)], points: &str) -> String {
    let common =
        [("instance", "i-1"), ("job", "shop/cart"), ("otel_scope_name", "lib"), ("otel_scope_version", "2")];
    let labels = tocsin_shared::labels::Labels::series(metric, &[&common[..], own].concat());
    format!("{labels} {points}")
}

#[tokio::test]
async fn points_become_series_as_the_compatibility_page_says() {
    let now = clock::now().as_millis();
    let time = format!("{}", now as u128 * 1_000_000);
    let point = |more: Value| {
        let mut point = json!({ "timeUnixNano": time, "attributes": [] });
        point.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        point
    };
    let info = r#"target_info{host_name="web-1", instance="i-1", job="shop/cart"} 0:1"#.to_owned();
    let labels = attributes(&[
        ("http.method", "GET"),
        ("b.c", "2"),
        ("b_c", "1"),
        ("job", "mine"),
        ("otel_scope_name", "x"),
    ]);
    let own = [("http_method", "GET"), ("b_c", "2;1")];
    let bucket = |le: &str, count: u32| line("d_seconds_bucket", &[("le", le)], &format!("0:{count}"));
    for (name, metric, want, says) in [
        (
            "a gauge",
            json!({ "name": "cpu.use", "unit": "1", "gauge": { "dataPoints": [point(json!({ "asDouble": 0.5, "attributes": labels }))] } }),
            vec![line("cpu_use_ratio", &own, "0:0.5")],
            None,
        ),
        (
            "a counter",
            json!({ "name": "req", "sum": { "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [point(json!({ "asInt": "7" }))] } }),
            vec![line("req_total", &[], "0:7")],
            None,
        ),
        (
            "a sum that falls",
            json!({ "name": "open", "unit": "{conn}", "sum": { "aggregationTemporality": 2, "dataPoints": [point(json!({ "asInt": "7" }))] } }),
            vec![line("open", &[], "0:7")],
            None,
        ),
        (
            "differences",
            json!({ "name": "req", "sum": { "isMonotonic": true, "aggregationTemporality": 1, "dataPoints": [point(json!({ "asInt": "7" })), point(json!({ "asInt": "8" }))] } }),
            vec![],
            Some((2, "refused: 2 delta; the first: req_total")),
        ),
        (
            "a histogram",
            json!({ "name": "d", "unit": "s", "histogram": { "aggregationTemporality": 2, "dataPoints": [point(json!({
                "count": "6", "sum": 3.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.005, 10.0]
            }))] } }),
            vec![
                bucket("+Inf", 6),
                bucket("0.005", 1),
                bucket("10", 3),
                line("d_seconds_count", &[], "0:6"),
                line("d_seconds_sum", &[], "0:3.5"),
            ],
            None,
        ),
        (
            "a histogram that contradicts itself",
            json!({ "name": "d", "unit": "s", "histogram": { "aggregationTemporality": 2, "dataPoints": [point(json!({
                "count": "6", "bucketCounts": ["1", "2"], "explicitBounds": [1.0, 10.0]
            }))] } }),
            vec![],
            Some((1, "do not match")),
        ),
        (
            "a summary",
            json!({ "name": "s", "summary": { "dataPoints": [point(json!({
                "count": "4", "sum": 2.0, "quantileValues": [{ "quantile": 0.5, "value": 0.25 }]
            }))] } }),
            vec![
                line("s", &[("quantile", "0.5")], "0:0.25"),
                line("s_count", &[], "0:4"),
                line("s_sum", &[], "0:2"),
            ],
            None,
        ),
        (
            "an exponential histogram",
            json!({ "name": "e", "exponentialHistogram": { "aggregationTemporality": 2, "dataPoints": [point(json!({ "count": "1", "scale": 1, "zeroCount": "0" }))] } }),
            vec![],
            Some((1, "1 histogram")),
        ),
        (
            "an end",
            json!({ "name": "g", "gauge": { "dataPoints": [point(json!({ "flags": 1 }))] } }),
            vec![line("g", &[], "0:ended")],
            None,
        ),
        (
            "no value and no time",
            json!({ "name": "g", "gauge": { "dataPoints": [point(json!({})), { "asInt": "1" }] } }),
            vec![],
            Some((2, "2 invalid_point")),
        ),
        (
            "too late, in one sample of three",
            json!({ "name": "s", "summary": { "dataPoints": [{ "timeUnixNano": "1000000", "attributes": [], "count": "4", "sum": 2.0, "quantileValues": [{ "quantile": 0.5, "value": 0.25 }] }] } }),
            vec![],
            Some((1, "too_old")),
        ),
    ] {
        let mut want: Vec<String> = want;
        want.sort();
        let bench = Bench::new(Config::default());
        let body = request(metric).to_string().into_bytes();
        let (status, _, text) = bench.post("/v1/metrics", JSON, body.clone()).await;
        assert_eq!(status, 200, "{name}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        match says {
            None => assert_eq!(answer, json!({}), "{name}"),
            Some((points, says)) => {
                assert_eq!(
                    answer["partialSuccess"]["rejectedDataPoints"],
                    points.to_string(),
                    "{name}: {text}"
                );
                assert!(text.contains(says), "{name}: {text}");
            }
        }
        let content = bench.content(now);
        let (infos, series): (Vec<String>, Vec<String>) =
            content.into_iter().partition(|line| line.starts_with("target_info"));
        assert_eq!(series, want, "{name}");
        assert!(infos.is_empty() || infos == [info.clone()], "{name}: {infos:?}");
        assert!(!infos.is_empty() || want.is_empty(), "{name}: no target_info");

        let decoded = decode(Format::Json, &body).unwrap();
        let other = Bench::new(Config::default());
        let mut packed = flate2_like(&decoded.encode_to_vec());
        let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "gzip")];
        let (status, _, _) =
            other.post("/api/v1/otlp/v1/metrics", &headers, std::mem::take(&mut packed)).await;
        assert_eq!(
            (status.as_u16(), other.content(now)),
            (200, bench.content(now)),
            "{name}: the same in gzip"
        );
    }
}

/// A gzip member of stored blocks: made by hand, so that no library is needed for it.
fn flate2_like(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.chunks(60_000).collect::<Vec<_>>();
    for (at, block) in blocks.iter().enumerate() {
        let len = block.len() as u16;
        out.push(u8::from(at + 1 == blocks.len()));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.write_all(block).unwrap();
    }
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out
}

// Cases: H11
#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let config = Config { body_bytes_max: 1 << 12, ..Config::default() };
    let bench = Bench::new(config);
    let gzip = |bytes: &[u8]| flate2_like(bytes);
    let protobuf = ("content-type", "application/x-protobuf");
    for (name, headers, body, status) in [
        ("json", JSON, b"{".to_vec(), 400),
        ("protobuf", &[protobuf], vec![0x0a, 9, 1], 400),
        ("text", &[("content-type", "text/plain")], Vec::new(), 415),
        ("zstd", &[protobuf, ("content-encoding", "zstd")], Vec::new(), 415),
        ("unpacked too long", &[protobuf, ("content-encoding", "gzip")], gzip(&vec![0; (1 << 15) + 1]), 413),
        ("not gzip", &[protobuf, ("content-encoding", "gzip")], vec![7; 40], 400),
        ("nothing", &[protobuf], Vec::new(), 200),
    ] {
        let (got, _, text) = bench.post("/v1/metrics", headers, body).await;
        assert_eq!(got, status, "{name}: {text}");
    }
}

#[tokio::test]
async fn grpc_gives_the_same_series() {
    let now = clock::now().as_millis();
    let bench = Bench::new(Config::default());
    let time = format!("{}", now as u128 * 1_000_000);
    let point = json!({ "timeUnixNano": time, "asInt": "7", "attributes": [] });
    let metric = json!({ "name": "req", "sum": { "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [point] } });
    let request = decode(Format::Json, request(metric).to_string().as_bytes()).unwrap();
    let service = service::MetricsService::new(bench.receiver.clone());
    let known = tower::ServiceBuilder::new()
        .map_request(|mut request: http::Request<tonic::body::Body>| {
            let caller = crate::identity::authorise::Caller::Principal {
                name: "app".into(),
                role: tocsin_shared::access::Role::Writer,
            };
            request.extensions_mut().insert(caller);
            request
        })
        .service(service);
    let mut client =
        MetricsServiceClient::new(known).send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let answer = client.export(request).await.unwrap().into_inner();
    assert_eq!(answer.partial_success, None);
    assert_eq!(bench.content(now)[0], line("req_total", &[], "0:7"));
    assert_eq!(&*bench.receiver.sources()[0].source, "app");
}
