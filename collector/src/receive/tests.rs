//! Requests over HTTP and gRPC in, answers and the store's content out.

use std::path::Path;
use std::sync::mpsc;

use ::http::{HeaderMap, Request, StatusCode};
use axum::body::{Body, to_bytes};
use prost::Message;
use tocsin_shared::access::Role;
use tocsin_shared::disk::{Disk, RealDisk};
use tocsin_shared::event::{Actor, Sealed};
use tocsin_shared::identity::Env;
use tocsin_shared::labels::Labels;
use tocsin_shared::sample::STALE_NAN;
use tocsin_shared::time::Timestamp;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::identity::authorise::Caller;
use crate::journal::ledger::{self, Fatal};
use crate::journal::rows;
use crate::samples::Wanted;
use crate::state::testing::{enrolment, token};
use crate::state::{Command, Defaults};

/// Remote write as its own page defines it, to make requests with.
pub(super) mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(crate) timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) metadata: Vec<Metadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(crate) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) exemplars: Vec<Anything>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) histograms: Vec<Anything>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Label {
        #[prost(bytes = "vec", tag = "1")]
        pub(crate) name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(crate) value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Sample {
        #[prost(double, tag = "1")]
        pub(crate) value: f64,
        #[prost(int64, tag = "2")]
        pub(crate) timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Anything {}
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Metadata {
        #[prost(int32, tag = "1")]
        pub(crate) kind: i32,
        #[prost(string, tag = "2")]
        pub(crate) metric: String,
        #[prost(string, tag = "4")]
        pub(crate) help: String,
        #[prost(string, tag = "5")]
        pub(crate) unit: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Request2 {
        #[prost(string, repeated, tag = "4")]
        pub(crate) symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub(crate) timeseries: Vec<TimeSeries2>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TimeSeries2 {
        #[prost(uint32, repeated, tag = "1")]
        pub(crate) labels: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub(crate) samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(crate) histograms: Vec<Anything>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) exemplars: Vec<Anything>,
        #[prost(message, optional, tag = "5")]
        pub(crate) metadata: Option<Metadata2>,
        #[prost(int64, tag = "6")]
        pub(crate) created: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Metadata2 {
        #[prost(int32, tag = "1")]
        pub(crate) kind: i32,
        #[prost(uint32, tag = "3")]
        pub(crate) help: u32,
        #[prost(uint32, tag = "4")]
        pub(crate) unit: u32,
    }
}

/// A series of a request: labels as `a=b c=d`, samples as milliseconds and values.
pub(super) fn series(labels: &str, samples: &[(i64, f64)]) -> pb::TimeSeries {
    let label = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        pb::Label { name: name.into(), value: value.into() }
    };
    pb::TimeSeries {
        labels: labels.split(' ').filter(|pair| !pair.is_empty()).map(label).collect(),
        samples: samples
            .iter()
            .map(|(timestamp, value)| pb::Sample { timestamp: *timestamp, value: *value })
            .collect(),
        ..pb::TimeSeries::default()
    }
}

/// The same series in the second version's form.
fn request2(series: &[pb::TimeSeries]) -> pb::Request2 {
    let mut symbols = vec![String::new()];
    let mut symbol = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let at = symbols.iter().position(|known| *known == text);
        at.unwrap_or_else(|| {
            symbols.push(text);
            symbols.len() - 1
        }) as u32
    };
    let timeseries = series.iter().map(|one| pb::TimeSeries2 {
        labels: one.labels.iter().flat_map(|label| [symbol(&label.name), symbol(&label.value)]).collect(),
        samples: one.samples.clone(),
        histograms: one.histograms.clone(),
        exemplars: one.exemplars.clone(),
        metadata: None,
        created: 0,
    });
    let timeseries = timeseries.collect();
    pb::Request2 { symbols, timeseries }
}

pub(super) struct Bench {
    pub(super) receiver: Arc<Receiver>,
    pub(super) store: Arc<Store>,
    metadata: Arc<Metadata>,
    /// The time for an answer.
    answer: Duration,
    ledger: Ledger,
    dir: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        Self::on(Arc::new(RealDisk), config)
    }

    fn on(disk: Arc<dyn Disk>, config: Config) -> Self {
        let (dir, fatal) = (tempfile::tempdir().unwrap(), Fatal::new(CancellationToken::new()));
        let store = Arc::new(Store::open(dir.path()).unwrap().0);
        let sealed = Sealed::default();
        let found = rows::Found { sealed: &sealed, lanes: Vec::new(), evaluated_through: 0 };
        let opened = rows::open(disk, &dir.path().join("rows"), store.clone(), found).unwrap();
        let room = Room::boundless();
        let rows = opened.in_room(room.clone()).start(mpsc::sync_channel(1).0, fatal.clone());
        let events: Arc<dyn Disk> = Arc::new(tocsin_shared::disk::MemoryDisk::new());
        let ledger = ledger::open(events, Path::new("/j")).unwrap().start(Defaults::default(), fatal);
        let metadata = Arc::new(Metadata::default());
        let receiver = Receiver::new(
            (config, Duration::from_secs(30 * 86_400)),
            (rows, store.clone()),
            ledger.clone(),
            room,
            metadata.clone(),
        );
        let answer = Duration::from_secs(60);
        Self { receiver: Arc::new(receiver), store, metadata, answer, ledger, dir }
    }

    /// Posts a body as a source; gives the status, the headers and the text.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, HeaderMap, String) {
        self.post_as("prom", path, headers, body).await
    }

    async fn post_as(
        &self,
        source: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(Caller::Principal { name: source.into(), role: Role::Writer });
        let answer = http::routes(self.receiver.clone(), self.answer).oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, headers, String::from_utf8_lossy(&text).into_owned())
    }

    async fn write(&self, series: Vec<pb::TimeSeries>) -> (StatusCode, String) {
        let message = pb::WriteRequest { timeseries: series, metadata: Vec::new() }.encode_to_vec();
        let (status, _, text) = self.post("/api/v1/write", ONE, packed(&message)).await;
        (status, text)
    }

    /// Everything there is, a line for each series; times are told from `zero`.
    pub(super) fn content(&self, zero: i64) -> Vec<String> {
        let mut lines = Vec::new();
        let wanted = Wanted { equals: &[], matches: &|_: &Labels| true };
        let all = (Timestamp::MIN, Timestamp::from_millis(i64::MAX));
        let mut visit = |labels: &Labels, times: &[i64], values: &[f64]| {
            let point = |(at, value): (&i64, &f64)| match value.to_bits() == STALE_NAN.to_bits() {
                true => format!("{}:ended", at - zero),
                false => format!("{}:{value}", at - zero),
            };
            let points: Vec<String> = times.iter().zip(values).map(point).collect();
            lines.push(format!("{labels} {}", points.join(" ")));
        };
        self.store.view().select_matching(&wanted, all, &mut visit).unwrap();
        lines.sort();
        lines
    }
}

fn packed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

const ONE: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];
const TWO: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("content-encoding", "snappy"),
];

// Cases: H11
#[tokio::test]
async fn both_versions_say_what_is_taken_and_what_is_not() {
    let now = clock::now().as_millis();
    let hour = 3_600_000;
    let (good, last) = (series("__name__=m instance=a job=j", &[(now, 1.0)]), (now, 7.0));
    let exemplar = pb::TimeSeries { exemplars: vec![pb::Anything {}], ..good.clone() };
    let histogram = pb::TimeSeries {
        histograms: vec![pb::Anything {}],
        samples: Vec::new(),
        ..series("__name__=h", &[])
    };
    let m = r#"m{instance="a", job="j"} 0:1"#;
    for (name, requests, status, says, content) in [
        ("good", vec![vec![good.clone()]], 204, "", vec![m]),
        ("the same again", vec![vec![good.clone()]; 2], 204, "", vec![m]),
        ("nothing", vec![vec![]], 204, "", vec![]),
        (
            "another value at the same time",
            vec![vec![good.clone()], vec![series("__name__=m instance=a job=j", &[last])]],
            204,
            "",
            vec![m],
        ),
        (
            "without a metric",
            vec![vec![good.clone(), series("a=b", &[last])]],
            400,
            "1 samples are taken; refused: 1 invalid_labels",
            vec![m],
        ),
        (
            "a label twice",
            vec![vec![series("__name__=x a=1 a=2", &[last]), good.clone()]],
            400,
            "is twice",
            vec![m],
        ),
        ("not in order", vec![vec![series("job=j instance=a __name__=m", &[(now, 1.0)])]], 204, "", vec![m]),
        (
            "empty labels are none",
            vec![vec![series("__name__=m env= instance=a job=j", &[(now, 1.0)])]],
            204,
            "",
            vec![m],
        ),
        (
            "any UTF-8 is a name",
            vec![vec![series("__name__=größe a.b=c", &[last])]],
            204,
            "",
            vec![r#"größe{a.b="c"} 0:7"#],
        ),
        ("an exemplar", vec![vec![exemplar]], 204, "", vec![m]),
        (
            "a histogram",
            vec![vec![good.clone(), histogram]],
            400,
            r#"1 histogram; the first: \"h\": native"#,
            vec![m],
        ),
        ("an end", vec![vec![series("__name__=m", &[(now, STALE_NAN)])]], 204, "", vec!["m 0:ended"]),
        (
            "late and too late",
            vec![vec![series("__name__=m", &[(now, 1.0), (now - hour, 2.0), (now - hour - 1, 3.0)])]],
            400,
            "2 samples are taken; refused: 1 too_old",
            vec!["m -3600000:2 0:1"],
        ),
        (
            "ahead",
            vec![vec![series("__name__=m", &[(now, 1.0), (now + hour, 2.0)])]],
            400,
            "1 too_far_in_future",
            vec!["m 0:1"],
        ),
        (
            "older than is kept",
            vec![vec![series("__name__=m", &[(now - 31 * 24 * hour, 1.0)])]],
            400,
            "1 too_old",
            vec![],
        ),
    ] {
        for version in [1, 2] {
            let bench = Bench::new(Config::default());
            let mut answer = None;
            for request in &requests {
                let posted = if version == 1 {
                    let message = pb::WriteRequest { timeseries: request.clone(), metadata: Vec::new() }
                        .encode_to_vec();
                    bench.post("/api/v1/write", ONE, packed(&message)).await
                } else {
                    let message = request2(request).encode_to_vec();
                    bench.post("/api/v1/write", TWO, packed(&message)).await
                };
                answer = Some(posted);
            }
            let (got, headers, text) = answer.unwrap();
            assert_eq!(got, status, "{name}, version {version}: {text}");
            assert!(text.contains(says), "{name}, version {version}: {text}");
            assert_eq!(bench.content(now), content, "{name}, version {version}");
            let written = headers.get("x-prometheus-remote-write-samples-written");
            assert_eq!(written.is_some(), version == 2, "{name}");
            for none in ["histograms", "exemplars"] {
                let header = headers.get(format!("x-prometheus-remote-write-{none}-written"));
                assert_eq!(header.map(|value| value == "0"), (version == 2).then_some(true), "{name}");
            }
        }
    }
}

// Cases: H11
#[tokio::test]
async fn what_cannot_be_read_is_refused_by_what_is_wrong_with_it() {
    let config = Config { body_bytes_max: 1 << 16, ..Config::default() };
    let bench = Bench::new(config);
    let now = clock::now().as_millis();
    let good =
        pb::WriteRequest { timeseries: vec![series("__name__=m", &[(now, 1.0)])], metadata: Vec::new() };
    let message = good.encode_to_vec();
    let bomb = packed(&vec![0u8; config.message_bytes_max() + 1]);
    let many = packed(&[0x0a, 0].repeat(remote_write::SERIES_MAX + 1));
    let symbol = pb::Request2 {
        symbols: vec!["".into()],
        timeseries: vec![pb::TimeSeries2 { labels: vec![0, 9], ..Default::default() }],
    };
    let odd = pb::Request2 {
        symbols: vec!["".into()],
        timeseries: vec![pb::TimeSeries2 { labels: vec![0], ..Default::default() }],
    };
    // The first series is good: nothing of a request that is malformed anywhere is taken.
    let half = [&message[..], &[0x0a, 3, 0x12, 9, 1]].concat();
    let protobuf = ("content-type", "application/x-protobuf");
    let mut claims = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    claims.push(0);
    for (name, headers, body, status, says) in [
        ("good", ONE, packed(&message), 204, ""),
        ("no headers", &[], packed(&message), 204, ""),
        (
            "version 2 as 1",
            ONE,
            packed(&request2(&[series("__name__=n", &[(now, 1.0)])]).encode_to_vec()),
            204,
            "",
        ),
        (
            "named",
            &[("content-type", "application/x-protobuf; proto=prometheus.WriteRequest")],
            packed(&message),
            204,
            "",
        ),
        ("not snappy", ONE, message.clone(), 400, "snappy"),
        ("claims 4 GiB", ONE, claims, 413, "send fewer"),
        ("a bomb", ONE, bomb.clone(), 413, "send fewer"),
        ("too long", ONE, vec![0; (1 << 16) + 1], 413, "send fewer"),
        ("too many series", ONE, many, 400, "more than 100000 series"),
        ("cut short", ONE, packed(&half), 400, "ends early"),
        ("unknown symbol", TWO, packed(&symbol.encode_to_vec()), 400, "symbol 9"),
        ("odd references", TWO, packed(&odd.encode_to_vec()), 400, "odd number"),
        ("gzip", &[protobuf, ("content-encoding", "gzip")], packed(&message), 415, "snappy is"),
        ("json", &[("content-type", "application/json")], packed(&message), 415, "application/x-protobuf is"),
        (
            "another message",
            &[("content-type", "application/x-protobuf;proto=a.B")],
            packed(&message),
            415,
            "prometheus.WriteRequest",
        ),
    ] {
        let (got, _, text) = bench.post("/api/v1/write", headers, body).await;
        assert_eq!(got, status, "{name}: {text}");
        assert!(text.contains(says), "{name}: {text}");
    }
    assert!(bomb.len() < 1 << 16, "small as it comes: {}", bomb.len());
    assert_eq!(bench.content(now), ["m 0:1"]);
    let standing = &bench.receiver.sources()[0];
    assert_eq!((&*standing.source, standing.series), ("prom", 1));
}

// Cases: H11
#[tokio::test]
async fn a_source_has_its_limits_and_no_other_one_feels_them() {
    let bench = Bench::new(Config { series_max: 3, samples_per_second: 1, ..Config::default() });
    let now = clock::now().as_millis();
    let of = |n: usize, values: usize| {
        let samples = (0..values).map(|v| (now - v as i64, 0.0)).collect::<Vec<_>>();
        series(&format!("__name__=m n={n} path=/a"), &samples)
    };
    assert_eq!(bench.write((0..3).map(|n| of(n, 1)).collect()).await.0, 204);
    let (status, text) = bench.write((2..5).map(|n| of(n, 1)).collect()).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("1 samples are taken; refused: 2 series_limit"), "{text}");
    assert_eq!(bench.receiver.widest_label("prom"), Some(("n".into(), 3)), "the culprit");
    let (status, text) = bench.write(vec![of(0, 11)]).await;
    assert_eq!((status, bench.receiver.sources()[0].held_back), (StatusCode::TOO_MANY_REQUESTS, 1), "{text}");
    let message = pb::WriteRequest { timeseries: vec![of(9, 10)], metadata: Vec::new() }.encode_to_vec();
    let (status, ..) = bench.post_as("other", "/api/v1/write", ONE, packed(&message)).await;
    assert_eq!(status, 204, "another source");
    let standings = bench.receiver.sources();
    assert_eq!(
        standings.iter().map(|s| (&*s.source, s.written)).collect::<Vec<_>>(),
        [("other", 10), ("prom", 4)]
    );
    assert_eq!(standings[1].refused.count(Reason::SeriesLimit), 2);
    assert!(standings[1].last_error.as_ref().unwrap().contains("3 series are active already"));
}

// Cases: C-X1 (partly)
#[tokio::test]
async fn nobody_writes_as_a_host_that_has_an_agent() {
    let bench = Bench::new(Config::default());
    let now = clock::now().as_millis();
    let as_node = |instance: &str| {
        let labels = format!("__name__=node_load1 instance={instance} job=node");
        vec![series(&labels, &[(now, 1.0)])]
    };
    assert_eq!(bench.write(as_node("db-1")).await.0, 204, "no agent yet");
    for command in [Command::CreateToken(token(1, Env::Prod, "*")), Command::Enrol(enrolment(1, "db-1"))] {
        bench.ledger.submit(command, Actor::Principal("ann".into())).await.unwrap().unwrap();
    }
    let (status, text) = bench.write(as_node("db-1")).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("1 agents_host") && text.contains("speaks for itself"), "{text}");
    assert_eq!(bench.write(as_node("db-2")).await.0, 204, "another host");
    assert_eq!(
        bench.write(vec![series("__name__=m instance=db-1 job=api", &[(now, 1.0)])]).await.0,
        204,
        "another job"
    );
}

#[tokio::test]
async fn what_metrics_are_is_noted_in_both_versions() {
    let bench = Bench::new(Config::default());
    let metadata =
        vec![pb::Metadata { kind: 1, metric: "a_total".into(), help: "All.".into(), unit: "".into() }];
    let message = pb::WriteRequest { timeseries: Vec::new(), metadata }.encode_to_vec();
    assert_eq!(bench.post("/api/v1/write", ONE, packed(&message)).await.0, 204);
    let now = clock::now().as_millis();
    let mut request = request2(&[series("__name__=d_bucket le=1", &[(now, 1.0)])]);
    request.symbols.extend(["How long.".into(), "seconds".into()]);
    let last = request.symbols.len() as u32;
    request.timeseries[0].metadata = Some(pb::Metadata2 { kind: 3, help: last - 2, unit: last - 1 });
    assert_eq!(bench.post("/api/v1/write", TWO, packed(&request.encode_to_vec())).await.0, 204);
    let known =
        |metric: &str| bench.metadata.get(metric).map(|d| (d.kind, d.help.to_string(), d.unit.to_string()));
    assert_eq!(known("a_total"), Some((Kind::Counter, "All.".into(), "".into())));
    assert_eq!(known("d"), Some((Kind::Histogram, "How long.".into(), "seconds".into())));
}

#[tokio::test]
async fn what_was_answered_is_read_after_a_restart() {
    let bench = Bench::new(Config::default());
    let now = clock::now().as_millis();
    assert_eq!(bench.write(vec![series("__name__=m instance=a job=j", &[(now, 1.0)])]).await.0, 204);
    bench.receiver.rows.stop().await;
    let (status, text) = bench.write(vec![series("__name__=m", &[(now, 2.0)])]).await;
    assert_eq!(status, 503, "{text}");
    let again = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(again.path()).unwrap().0);
    let sealed = Sealed::default();
    let found = rows::Found { sealed: &sealed, lanes: Vec::new(), evaluated_through: 0 };
    rows::open(Arc::new(RealDisk), &bench.dir.path().join("rows"), store.clone(), found).unwrap();
    let bench = Bench { store, ..bench };
    assert_eq!(bench.content(now), [r#"m{instance="a", job="j"} 0:1"#]);
}

// Cases: C-D5
#[tokio::test]
async fn a_request_that_waits_too_long_is_told_to_come_again_in_http() {
    let bench = Bench { answer: Duration::from_millis(20), ..Bench::new(Config::default()) };
    let mut held = Vec::new();
    for _ in 0..PARALLEL_MAX {
        held.push(bench.receiver.place("prom").await.unwrap());
    }
    let sample = series("__name__=m", &[(clock::now().as_millis(), 1.0)]);
    let (status, text) = bench.write(vec![sample.clone()]).await;
    assert_eq!(status, 503, "no success, whatever ends it: {text}");
    drop(held);
    let bench = Bench { answer: Duration::from_secs(60), ..bench };
    assert_eq!(bench.write(vec![sample]).await.0, 204);
}
