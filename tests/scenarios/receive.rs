//! Samples that other programs push: a real Prometheus through kills of the collector, and OTLP by hand.

use tocsin_proto::pb;
use tocsin_tests::https::Door;
use tocsin_tests::prometheus::{self, Prometheus};
use tocsin_tests::site::{SOON, Site};
use tocsin_tests::wait::wait_until;

use crate::RULES;

/// Series that change at every scrape, that never do, and that count.
const SELECTORS: [&str; 4] = [
    r#"up{job="prometheus"}[15m]"#,
    r#"go_memstats_alloc_bytes{job="prometheus"}[15m]"#,
    r#"prometheus_tsdb_head_samples_appended_total{job="prometheus", type="float"}[15m]"#,
    r#"prometheus_http_requests_total{job="prometheus", handler="/metrics"}[15m]"#,
];

/// The front as a new principal of this role.
async fn door(site: &Site, name: &str, role: pb::Role) -> anyhow::Result<Door> {
    let request = pb::CreatePrincipalRequest { name: name.into(), role: role.into(), ..Default::default() };
    let credential = site.api.admin().create_principal(request).await?.into_inner().credential;
    let (front, authority_pem) = (site.addresses().front.clone(), site.api.authority_pem.clone());
    Ok(Door { front, authority_pem, credential })
}

async fn stored(site: &Site, selector: &str) -> Option<Vec<(i64, f64)>> {
    let points = site.api.stored(selector).await.ok()?;
    Some(points.into_iter().map(|point| (point.at_ms, point.value)).collect())
}

/// Waits until so many scrapes later than `after` are stored; gives the newest.
async fn scrapes_after(site: &Site, after: i64, count: usize) -> anyhow::Result<i64> {
    wait_until(&format!("{count} scrapes after {after}"), SOON * 2, async || {
        let points = stored(site, SELECTORS[0]).await?;
        let later = points.iter().filter(|(at, _)| *at > after).count();
        (later >= count).then(|| points.last().map(|(at, _)| *at))?
    })
    .await
}

// Cases: C1, C-D1, C-D2, C-D5
#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_writes_is_there_whole_through_kills_of_the_collector() -> anyhow::Result<()> {
    if !prometheus::is_installed() {
        return Ok(());
    }
    let mut site = Site::start(RULES).await?;
    let dir = tempfile::tempdir()?;
    let prometheus =
        Prometheus::start(dir.path(), &door(&site, "prometheus", pb::Role::Writer).await?).await?;
    let mut last = scrapes_after(&site, 0, 3).await?;
    for _ in 0..4 {
        site.kill_collector()?;
        site.start_collector().await?;
        last = scrapes_after(&site, last, 2).await?;
    }
    site.stop_collector().await?;
    site.start_collector().await?;
    let last = scrapes_after(&site, last, 2).await?;
    for selector in SELECTORS {
        let upto = |points: Vec<(i64, f64)>| -> Vec<(i64, f64)> {
            points.into_iter().filter(|(at, _)| *at <= last).collect()
        };
        let want = upto(prometheus.points(selector)?);
        assert!(want.len() >= 8, "{selector}: {} scrapes", want.len());
        // Shards of a sender overtake each other: the last of them may still be on their way.
        let what = format!("{selector} as Prometheus has it");
        let same =
            wait_until(&what, SOON, async || (upto(stored(&site, selector).await?) == want).then_some(()));
        if let Err(error) = same.await {
            panic!("{error}\nwanted {want:?}\nstored {:?}", stored(&site, selector).await);
        }
    }
    let status = site.api.admin().get_status(pb::GetStatusRequest {}).await?.into_inner();
    let [source] = &status.sources[..] else { panic!("{:?}", status.sources) };
    assert_eq!((source.name.as_str(), source.refused.len()), ("prometheus", 0), "{source:?}");
    assert!(source.samples > 100 && source.series > 50, "{source:?}");
    Ok(())
}

// Cases: H11, H15
#[tokio::test(flavor = "multi_thread")]
async fn otlp_is_taken_from_writers_and_read_like_everything_else() -> anyhow::Result<()> {
    let site = Site::start(RULES).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let body = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[
            {{"key":"service.name","value":{{"stringValue":"cart"}}}},
            {{"key":"service.instance.id","value":{{"stringValue":"i-1"}}}}]}},
          "scopeMetrics":[{{"metrics":[{{"name":"orders","sum":{{"isMonotonic":true,"aggregationTemporality":2,
            "dataPoints":[{{"timeUnixNano":"{now}","asInt":"42","attributes":[]}}]}}}}]}}]}}]}}"#
    );
    let json = [("content-type", "application/json")];
    let writer = door(&site, "cart", pb::Role::Writer).await?;
    let viewer = door(&site, "eve", pb::Role::Viewer).await?;
    let nobody = Door { credential: String::new(), ..viewer.clone() };
    for (who, door, status) in [("nobody", &nobody, 401), ("viewer", &viewer, 403), ("writer", &writer, 200)]
    {
        let (got, text) = door.post("/v1/metrics", &json, body.clone().into_bytes()).await?;
        assert_eq!(got, status, "{who}: {text}");
    }
    let points = site.api.stored(r#"orders_total{job="cart", instance="i-1"}[5m]"#).await?;
    assert_eq!(points.iter().map(|point| point.value).collect::<Vec<_>>(), [42.0]);
    let as_writer = site.api.with_credential(&writer.credential)?;
    let refused = as_writer.admin().get_status(pb::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "a writer may do nothing else");
    Ok(())
}
