//! The routes over a collector without sockets: what tools send, and the whole JSON that they get.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Request, StatusCode, header};
use tocsin_shared::access::Role;
use tocsin_shared::labels::Labels;
use tocsin_shared::metric::Kind as Metric;
use tower::ServiceExt as _;

use super::*;
use crate::api::testing::Collector;
use crate::identity::authorise::{Access, Caller, PATHS};
use crate::state::testing::{agent, at};

/// A collector whose host `web-1` has sent three series for ten minutes, every minute, and its routes.
async fn collector() -> (Collector, Router) {
    let collector = Collector::start().await;
    let samples = &collector.api.samples;
    samples.set_target(agent(1), Labels::new([("instance", "web-1"), ("job", "node")]));
    let table: Arc<[Labels]> = [
        Labels::series("up", &[]),
        Labels::series("node_cpu_seconds_total", &[("cpu", "0"), ("mode", "idle")]),
        Labels::series("my.metric", &[("a.b", "c")]),
    ]
    .into();
    for minute in 0..=10 {
        let values = [1.0, minute as f64 * 60.5, f64::NAN];
        samples.append(agent(1), &table, at(minute * 60), &values).unwrap();
    }
    let routes = router(collector.api.clone(), Duration::from_secs(45));
    (collector, routes)
}

/// A request of `kim`'s, a viewer, as it comes from the guard.
fn request(line: &str, form: &str) -> Request<Body> {
    let (method, url) = line.split_once(' ').unwrap();
    // Times are written as seconds of the test's day.
    let mut request = Request::builder().method(method).uri(url.replace(' ', "%20"));
    if method == "POST" {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    let caller = Caller::Principal { name: "kim".into(), role: Role::Viewer };
    request.extension(caller).body(Body::from(form.to_owned())).unwrap()
}

async fn ask(routes: &Router, line: &str, form: &str) -> (StatusCode, String) {
    let answer = routes.clone().oneshot(request(line, form)).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// What a success has as its data.
fn data(body: &str) -> &str {
    body.strip_prefix(r#"{"status":"success","data":"#)
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or(body)
}

// What the data source of a dashboard sends: its check, and what its editor and its panels ask for.
#[tokio::test(flavor = "multi_thread")]
async fn dashboards_get_what_they_ask_for() {
    let (collector, routes) = collector().await;
    let (up, cpu) = (
        r#"{"__name__":"up","instance":"web-1","job":"node"}"#,
        r#"{"__name__":"node_cpu_seconds_total","cpu":"0","instance":"web-1","job":"node","mode":"idle"}"#,
    );
    for (line, form, expected) in [
        (
            "POST /api/v1/query",
            "query=1%2B1&time=1795000600",
            r#"{"resultType":"scalar","result":[1795000600,"2"]}"#.to_owned(),
        ),
        (
            "GET /api/v1/status/buildinfo",
            "",
            concat!(
                r#"{"version":"3.0.0","revision":"tocsin-1.2.3","branch":"","buildUser":"","buildDate":"","#,
                r#""goVersion":""}"#
            )
            .to_owned(),
        ),
        (
            "POST /api/v1/query_range",
            "end=1795000600&query=rate%28node_cpu_seconds_total%5B5m%5D%29&start=1795000480&step=60",
            // An info in the answer is not part of its data.
            format!(
                r#"{{"resultType":"matrix","result":[{{"metric":{},"values":[[1795000480,"1.0083333333333333"],[1795000540,"1.0083333333333333"],[1795000600,"1.0083333333333333"]]}}]}}"#,
                r#"{"cpu":"0","instance":"web-1","job":"node","mode":"idle"}"#
            ),
        ),
        (
            "GET /api/v1/query?query=up&time=2026-11-18T11:16:40.5Z",
            "",
            format!(r#"{{"resultType":"vector","result":[{{"metric":{up},"value":[1795000600.500,"1"]}}]}}"#),
        ),
        (
            "GET /api/v1/query?query=%22text%22&time=1795000600",
            "",
            r#"{"resultType":"string","result":[1795000600,"text"]}"#.to_owned(),
        ),
        (
            "GET /api/v1/query?query={%22my.metric%22}&time=1795000600",
            "",
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"my.metric","a.b":"c","instance":"web-1","job":"node"},"value":[1795000600,"NaN"]}]}"#.to_owned(),
        ),
        (
            "GET /api/v1/query?query=node_cpu_seconds_total[2m]&time=1795000600",
            "",
            format!(
                r#"{{"resultType":"matrix","result":[{{"metric":{cpu},"values":[[1795000540,"544.5"],[1795000600,"605"]]}}]}}"#
            ),
        ),
        (
            "GET /api/v1/label/__name__/values?start=1795000000&end=1795000600",
            "",
            r#"["my.metric","node_cpu_seconds_total","up"]"#.to_owned(),
        ),
        (
            "GET /api/v1/label/__name__/values?match[]={mode=%22idle%22}&start=1795000000&end=1795000600",
            "",
            r#"["node_cpu_seconds_total"]"#.to_owned(),
        ),
        (
            "GET /api/v1/label/U__a_2e_b/values?start=1795000000&end=1795000600",
            "",
            r#"["c"]"#.to_owned(),
        ),
        (
            "POST /api/v1/labels",
            "start=1795000000&end=1795000600&match%5B%5D=up&match%5B%5D=%7B%22my.metric%22%7D",
            r#"["__name__","a.b","instance","job"]"#.to_owned(),
        ),
        (
            "POST /api/v1/series",
            "match%5B%5D=up&match%5B%5D=node_cpu_seconds_total&start=1795000000&end=1795000600",
            format!("[{cpu},{up}]"),
        ),
        ("GET /api/v1/series?match[]=up&start=1794000000&end=1794000600", "", "[]".to_owned()),
        (
            "GET /api/v1/metadata?metric=node_cpu_seconds_total",
            "",
            concat!(
                r#"{"node_cpu_seconds_total":[{"type":"counter","#,
                r#""help":"Seconds that CPUs spent in each mode, from /proc/stat.","unit":"seconds"}]}"#
            )
            .to_owned(),
        ),
        ("GET /api/v1/metadata?metric=nothing", "", "{}".to_owned()),
        (
            "GET /api/v1/metadata?limit=1",
            "",
            r#"{"my.metric":[{"type":"histogram","help":"What it is.","unit":"apples"}]}"#.to_owned(),
        ),
        ("GET /api/v1/query_exemplars?query=up&start=0&end=1", "", "[]".to_owned()),
        ("GET /api/v1/rules", "", r#"{"groups":[]}"#.to_owned()),
        ("GET /api/v1/alerts", "", r#"{"alerts":[]}"#.to_owned()),
    ] {
        collector.api.metadata.note("my.metric", Metric::Histogram, "What it is.", "apples");
        let (status, body) = ask(&routes, line, form).await;
        assert_eq!(status, StatusCode::OK, "{line} {form}: {body}");
        assert_eq!(data(&body), expected, "{line} {form}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_cut_and_say_so() {
    let (collector, routes) = collector().await;
    let span = "start=1795000000&end=1795000600";
    for (line, rest) in [
        (
            format!("GET /api/v1/series?match[]={{job=%22node%22}}&limit=1&{span}"),
            r#"[{"__name__":"my.metric","a.b":"c","instance":"web-1","job":"node"}]"#,
        ),
        (format!("GET /api/v1/labels?limit=2&{span}"), r#"["__name__","a.b"]"#),
        (format!("GET /api/v1/label/__name__/values?limit=1&{span}"), r#"["my.metric"]"#),
    ] {
        let (status, body) = ask(&routes, &line, "").await;
        let warned =
            format!(r#"{{"status":"success","data":{rest},"warnings":["results truncated due to limit"]}}"#);
        assert_eq!((status, body), (StatusCode::OK, warned), "{line}");
    }
    for line in [
        "GET /api/v1/query?query={job=%22node%22}&limit=2&time=1795000600",
        "GET /api/v1/query_range?query={job=%22node%22}&limit=2&start=1795000600&end=1795000600&step=1",
    ] {
        let (_, body) = ask(&routes, line, "").await;
        assert_eq!(body.matches("\"metric\"").count(), 2, "{body}");
        assert!(body.ends_with(r#","warnings":["results truncated due to limit"]}"#), "{body}");
    }
    let (_, body) = ask(&routes, "GET /api/v1/labels?limit=100", "").await;
    assert!(!body.contains("warnings"), "{body}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_has_its_kind_and_status() {
    let (collector, routes) = collector().await;
    let many = "match[]=up&".repeat(10_000);
    let selectors = "match[]=up&".repeat(500);
    let long = format!("query={}", "a".repeat(1 << 20));
    let longer = format!("query={}", "a".repeat(100_000));
    for (line, form, status, kind, says) in [
        ("GET /api/v1/query", "", 400, "bad_data", "invalid parameter \\\"query\\\": "),
        ("GET /api/v1/query?query=up+%2B", "", 400, "bad_data", "invalid parameter \\\"query\\\": "),
        (
            "GET /api/v1/query?query=up&time=soon",
            "",
            400,
            "bad_data",
            "cannot parse \\\"soon\\\" to a valid timestamp",
        ),
        ("GET /api/v1/query?query=up&timeout=x", "", 400, "bad_data", "\\\"timeout\\\": cannot parse"),
        ("GET /api/v1/query?query=up&limit=-1", "", 400, "bad_data", "limit must be non-negative"),
        ("GET /api/v1/query?query=up&lookback_delta=1y", "", 400, "bad_data", "at most a day"),
        ("GET /api/v1/query_range?query=up", "", 400, "bad_data", "\\\"start\\\": cannot parse \\\"\\\""),
        (
            "GET /api/v1/query_range?query=up&start=2&end=1&step=1",
            "",
            400,
            "bad_data",
            "must not be before start",
        ),
        ("GET /api/v1/query_range?query=up&start=1&end=2&step=0", "", 400, "bad_data", "zero or negative"),
        (
            "GET /api/v1/query_range?query=up&start=0&end=1000000000&step=1",
            "",
            400,
            "bad_data",
            "11,000 points",
        ),
        (
            "GET /api/v1/query_range?query=%22a%22&start=0&end=1&step=1",
            "",
            400,
            "bad_data",
            "invalid expression type",
        ),
        (
            "GET /api/v1/query?query={job=%22node%22}*on(job){job=%22node%22}&time=1795000600",
            "",
            422,
            "execution",
            "many-to-many",
        ),
        ("GET /api/v1/query?query={job=%22node%22}[30d:1ms]", "", 422, "execution", "samples"),
        ("GET /api/v1/query?query=up&timeout=0", "", 503, "timeout", "timed out"),
        ("GET /api/v1/series", "", 400, "bad_data", "no match[] parameter provided"),
        ("GET /api/v1/series?match[]=rate(up[5m])", "", 400, "bad_data", "\\\"match[]\\\""),
        ("GET /api/v1/labels?start=2&end=1", "", 400, "bad_data", "must not be before start"),
        ("GET /api/v1/query_exemplars?query=up&start=2&end=1", "", 400, "bad_data", "before start"),
        ("GET /api/v1/rules?type=other", "", 400, "bad_data", "not supported value"),
        ("GET /api/v1/targets?state=other", "", 400, "bad_data", "\\\"state\\\""),
        ("GET /api/v1/format_query?query=up+%2B", "", 400, "bad_data", "\\\"query\\\""),
        ("GET /federate", "", 400, "bad_data", "no match[] parameter provided"),
        ("GET /api/v1/other", "", 404, "not_found", "no such path"),
        ("DELETE /api/v1/query", "", 405, "bad_data", "other methods"),
        ("POST /api/v1/series", &many, 400, "bad_data", "more than 1000 parameters"),
        ("POST /api/v1/series", &selectors, 400, "bad_data", "500 selectors, at most 200"),
        ("POST /api/v1/query", &long, 413, "bad_data", "longer than 262144 bytes"),
        ("POST /api/v1/query", &longer, 400, "bad_data", "at most 65536"),
    ] {
        let (got, body) = ask(&routes, line, form).await;
        let begin = format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":\"");
        let line = &line[..line.len().min(100)];
        assert_eq!(got.as_u16(), status, "{line}: {body}");
        assert!(body.starts_with(&begin) && body.contains(says), "{line}: {body}");
    }
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_stats_and_pretty_forms() {
    let (collector, routes) = collector().await;
    for (line, says) in [
        ("GET /api/v1/query?query=rate(up[5m])&time=1795000600", r#"},"infos":["PromQL info: "#),
        (
            "GET /api/v1/query?query=quantile(7,up)&time=1795000600",
            r#"},"warnings":["PromQL warning: quantile value should be between 0 and 1, got 7"#,
        ),
        ("GET /api/v1/query?query=up&stats=all", r#","stats":{"timings":{"evalTotalTime":"#),
        ("GET /api/v1/format_query?query=sum+by(job)(up)", r#""data":"sum by (job) (up)""#),
    ] {
        let (status, body) = ask(&routes, line, "").await;
        assert_eq!(status, StatusCode::OK, "{line}: {body}");
        assert!(body.contains(says), "{line}: {body}");
    }
    // One sample is 60 s old: a look-back of 10 s does not find it.
    let url = "GET /api/v1/query?query=count(up)&time=1795000630&lookback_delta=";
    assert!(ask(&routes, &format!("{url}10"), "").await.1.contains(r#""result":[]"#));
    assert!(ask(&routes, &format!("{url}1m"), "").await.1.contains(r#""1"]"#));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_packed_for_whoever_can_unpack() {
    let (collector, routes) = collector().await;
    let line = "GET /api/v1/query_range?query=up&start=1795000000&end=1795000600&step=1";
    let mut packed = request(line, "");
    packed.headers_mut().insert(header::ACCEPT_ENCODING, "gzip".parse().unwrap());
    let answer = routes.clone().oneshot(packed).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(answer.extensions().get::<crate::api::places::Held>().is_some(), "its place goes with it");
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    assert_eq!(body[..2], [0x1f, 0x8b]);
    let (_, plain) = ask(&routes, line, "").await;
    assert!(body.len() * 3 < plain.len(), "{} of {}", body.len(), plain.len());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_ends_the_query_and_gives_the_place_back() {
    let (collector, routes) = collector().await;
    let all: Vec<_> =
        (0..16).map(|n| collector.api.calls.queries.take(&format!("other-{}", n / 8)).unwrap()).collect();
    let mut waiting = Box::pin(routes.clone().oneshot(request("GET /api/v1/query?query=up", "")));
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx))).await;
    assert!(polled.is_pending(), "all places are held, so it waits");
    let (status, body) = ask(&routes, "GET /api/v1/query?query=up&timeout=10ms", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("timed out in query queue"), "{body}");
    drop(all);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_targets_and_alerts_are_listed() {
    let (collector, _) = collector().await;
    let text = "groups:\n- name: g\n  interval: 30s\n  rules:\n  - {alert: Down, expr: 'up == 0', for: 5m, labels: {severity: critical}, annotations: {summary: 'x {{ $value }}'}}\n  - {record: 'r:s', expr: 'sum(up)', labels: {a: b}}\n- name: h\n  rules:\n  - {alert: Other, expr: 'up == 1'}\n";
    let set = crate::rules::RuleSet::new(vec![crate::rules::parse_file("f.yml", text).unwrap()]).unwrap();
    collector.api.plan.store(Arc::new(crate::evaluate::plan::Plan::new(2, &set)));
    collector.fires("f.yml;g;Down;0", 0, &["sda"]).await;
    let routes = router(collector.api.clone(), Duration::from_secs(45));
    let (_, body) = ask(&routes, "GET /api/v1/rules?exclude_alerts=true", "").await;
    let never = r#""health":"unknown","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z""#;
    let down = format!(
        r#"{{"state":"firing","name":"Down","query":"up == 0","duration":300,"keepFiringFor":0,"labels":{{"severity":"critical"}},"annotations":{{"summary":"x {{{{ $value }}}}"}},"alerts":[],{never},"type":"alerting"}}"#
    );
    let record =
        format!(r#"{{"name":"r:s","query":"sum(up)","labels":{{"a":"b"}},{never},"type":"recording"}}"#);
    let other = format!(
        r#"{{"state":"inactive","name":"Other","query":"up == 1","duration":0,"keepFiringFor":0,"labels":{{}},"annotations":{{}},"alerts":[],{never},"type":"alerting"}}"#
    );
    let rest = r#""limit":0,"evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z""#;
    let g = |rules: &str| format!(r#"{{"name":"g","file":"f.yml","rules":[{rules}],"interval":30,{rest}}}"#);
    let h = format!(r#"{{"name":"h","file":"f.yml","rules":[{other}],"interval":0,{rest}}}"#);
    assert_eq!(data(&body), format!("{{\"groups\":[{},{h}]}}", g(&format!("{down},{record}"))));
    for (filter, expected) in [
        ("type=record", format!("{{\"groups\":[{}]}}", g(&record))),
        ("rule_name[]=r:s&rule_name[]=none", format!("{{\"groups\":[{}]}}", g(&record))),
        ("rule_group[]=h", format!("{{\"groups\":[{h}]}}")),
        ("file[]=other", "{\"groups\":[]}".to_owned()),
        ("match[]={severity=%22critical%22}", format!("{{\"groups\":[{}]}}", g(&down))),
    ] {
        let (_, body) = ask(&routes, &format!("GET /api/v1/rules?exclude_alerts=true&{filter}"), "").await;
        assert_eq!(data(&body), expected, "{filter}");
    }
    let (_, body) = ask(&routes, "GET /api/v1/alerts", "").await;
    let alert = data(&body).strip_prefix(r#"{"alerts":["#).unwrap();
    assert!(
        alert.contains(r#""state":"firing","activeAt":"2026-11-"#) && alert.contains(r#""value":"1e+00"}"#),
        "{alert}"
    );
    let (_, body) = ask(&routes, "GET /api/v1/rules?rule_name[]=Down", "").await;
    assert!(body.contains(&alert[..alert.len() - 2]), "the rule lists its alert: {body}");
    let (_, body) = ask(&routes, "GET /api/v1/targets?state=active", "").await;
    for part in [
        r#"{"activeTargets":[{"discoveredLabels":{"__address__":"web-1","#,
        r#""labels":{"env":"prod","instance":"web-1","job":"node","team":"shop"},"scrapePool":"node""#,
        r#""droppedTargets":[]"#,
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    let (_, body) = ask(&routes, "GET /api/v1/targets?scrapePool=other", "").await;
    assert!(body.contains(r#"{"activeTargets":[],"#), "{body}");
    let (_, body) = ask(&routes, "GET /api/v1/status/tsdb?limit=1", "").await;
    let counts = r#""seriesCountByMetricName":[{"name":"my.metric","value":1}],"labelValueCountByLabelName":[{"name":"__name__","value":3}]"#;
    assert!(body.contains(r#"{"headStats":{"numSeries":3,"#) && body.contains(counts), "{body}");
    let (_, body) = ask(&routes, "GET /api/v1/status/runtimeinfo", "").await;
    assert!(body.contains(r#""reloadConfigSuccess":true"#), "{body}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_viewers_may_ask_for_is_routed() {
    let (collector, routes) = collector().await;
    // Those of who writes are routed where what they write is received.
    let asked = PATHS.iter().filter(|(.., access)| *access == Access::Viewer);
    for (method, path, _) in asked {
        let (status, body) = ask(&routes, &format!("{method} {}", path.replace("{name}", "job")), "").await;
        assert!(!matches!(status.as_u16(), 404 | 405), "{method} {path} has no route: {body}");
    }
    collector.stop().await;
}
