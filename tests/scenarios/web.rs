//! Prometheus' HTTP API of a running collector: who may ask, what the tools of Prometheus get, and what bombs do.
//!
//! Promise: the front answers named viewers and above, the loopback nobody unless told to; `promtool` says of the
//! collector what it says of a Prometheus that has the same samples; who asks too much is refused with a reason and
//! others are answered meanwhile.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::chain::Chain;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tocsin_tests::resources;
use tocsin_tests::site::{SOON, START, Site};
use tocsin_tests::virtual_agent::{Session, VirtualAgent, table};
use tocsin_tests::wait::wait_until;
use tocsin_tests::web::{Answer, Web, encoded};

const LOCAL_QUERIES: &str = "[listen]\nlocal_queries = true\n";

/// A host that sends rows when it is told to.
struct Sender {
    session: Session,
    clock: pb::ClockReading,
    series: usize,
    seq: u64,
}

impl Sender {
    /// Enrols a host with `series` series `demo{n="0"}`, `demo{n="1"}`, …
    async fn start(site: &Site, name: &str, series: usize) -> anyhow::Result<Self> {
        let agent = VirtualAgent::enrol(&site.api, pb::Env::Test, name).await?;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let clock =
            pb::ClockReading { wall_ms: i64::try_from(wall)?, boot_ms: 1_000_000, ..Default::default() };
        let session = agent.session(clock.clone(), 1_000, Arc::default()).await?;
        let all: Vec<Labels> =
            (0..series).map(|n| Labels::series("demo", &[("n", &*n.to_string())])).collect();
        session.say(Up::Table(table(1, &all, &agent.boot_id))).await?;
        Ok(Self { session, clock, series, seq: 0 })
    }

    /// Sends a row, `after` its clock; done when it is durable and can be asked for.
    async fn row(&mut self, after_ms: i64, value: f64) -> anyhow::Result<()> {
        self.seq += 1;
        let (seq, mut data) = (self.seq, Vec::new());
        let at = Timestamp::from_millis(self.clock.wall_ms + after_ms);
        let boot = self.clock.boot_ms.saturating_add_signed(after_ms);
        let values: Vec<f64> = (0..self.series).map(|n| value + n as f64 / 8.0).collect();
        Chain::new(self.series).encode(at, boot, &values, &mut data);
        let row = pb::Row { seq, table_id: 1, chain: seq, index: 0, data: data.into() };
        self.session.say(Up::Rows(pb::Rows { rows: vec![row] })).await?;
        while self.session.taken < seq {
            self.session.hear().await?;
        }
        Ok(())
    }
}

async fn credential(site: &Site, name: &str, role: pb::Role) -> anyhow::Result<String> {
    let request = pb::CreatePrincipalRequest { name: name.into(), role: role.into(), ttl_ms: 0 };
    Ok(site.api.admin().create_principal(request).await?.into_inner().credential)
}

/// `user:password` as the header has it.
fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{password}");
    let packed = text.as_bytes().chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        (0..4).map(move |at| match at <= chunk.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        })
    });
    format!("Basic {}", packed.collect::<String>())
}

fn says(answer: &Answer, status: u16, text: &str) -> anyhow::Result<()> {
    let body = answer.text();
    ensure!(answer.status == status && body.contains(text), "{} {body}, not {status} {text}", answer.status);
    Ok(())
}

// Cases: H15
#[tokio::test(flavor = "multi_thread")]
async fn the_front_answers_who_may_and_the_loopback_who_was_let_in() -> anyhow::Result<()> {
    let mut site = Site::start("groups: []").await?;
    let mut sender = Sender::start(&site, "web-1", 200).await?;
    sender.row(0, 1.0).await?;
    let (viewer, pager) = (
        credential(&site, "ann", pb::Role::Viewer).await?,
        credential(&site, "pager", pb::Role::Consumer).await?,
    );
    let nobody = Web::front(&site);
    let ann = nobody.bearer(&viewer);
    let query = format!("/api/v1/query?query={}", encoded("count(demo)"));

    let refused = nobody.get(&query).await?;
    says(
        &refused,
        401,
        r#"{"status":"error","errorType":"unauthorized","error":"this call needs a credential"}"#,
    )?;
    assert!(refused.header("www-authenticate").starts_with("Basic"), "{:?}", refused.headers);
    says(&nobody.get("/nothing").await?, 401, "needs a credential")?; // A stranger does not learn what there is.
    says(&nobody.bearer(&pager).get(&query).await?, 403, r#""errorType":"forbidden""#)?;
    says(&ann.get("/nothing").await?, 404, r#""errorType":"not_found""#)?;
    says(&ann.ask("PUT", &query, &[], "").await?, 405, "GET, POST")?;
    says(&ann.get("/tocsin.v1.QueryService/Instant").await?, 404, "no such path")?; // gRPC speaks gRPC.

    says(&ann.get(&query).await?, 200, r#","200"]}]}}"#)?;
    says(&ann.post("/api/v1/query", "query=1%2B1").await?, 200, r#""resultType":"scalar""#)?;
    for user in ["ann", "", "anything"] {
        let mut web = nobody.clone();
        web.authorization = Some(basic(user, &viewer));
        says(&web.get(&query).await?, 200, "success")?;
        web.authorization = Some(basic(user, &viewer[1..]));
        says(&web.get(&query).await?, 401, "not known")?;
    }
    let packed = ann.ask("GET", "/api/v1/query?query=demo", &[("accept-encoding", "gzip")], "").await?;
    assert_eq!((packed.status, packed.header("content-encoding")), (200, "gzip"));
    let plain = ann.get("/api/v1/query?query=demo").await?;
    assert!(packed.body.len() * 3 < plain.body.len() && packed.body[..2] == [0x1f, 0x8b]);

    let revoked = pb::RevokePrincipalRequest { name: "ann".into() };
    site.api.admin().revoke_principal(revoked).await?;
    says(&ann.get(&query).await?, 401, "revoked")?;

    says(&Web::local(&site).get(&query).await?, 404, "listen.local_queries")?;
    site.stop_collector().await?;
    site.configure(LOCAL_QUERIES)?;
    site.start_collector().await?;
    let local = Web::local(&site);
    says(&local.get(&query).await?, 200, "success")?;
    says(&local.post("/api/v1/query", "query=1%2B1").await?, 200, r#""2"]"#)?;
    says(&local.get("/api/v1/nothing").await?, 404, r#""errorType":"not_found""#)?;
    says(&local.get("/-/healthy").await?, 200, "healthy")?;
    let mut stranger = local;
    stranger.host = Some("evil.example".into());
    says(&stranger.get(&query).await?, 403, "ask for one of these")
}

/// A Prometheus that scrapes the collector's `/federate`, so that both have the same samples; it ends with this value.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    async fn start(dir: &Path, collector: &str) -> anyhow::Result<Self> {
        // It does not say which port it got, so a free one is looked for.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n  - job_name: federate\n    \
             honor_labels: true\n    metrics_path: /federate\n    params: {{'match[]': ['{{job=\"node\"}}']}}\n    \
             static_configs: [{{targets: ['{collector}']}}]\n"
        );
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(dir.join("prometheus.log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let started = Self { child, address };
        let web = Web::bare(&started.address);
        wait_until("a ready Prometheus", START, async || {
            web.get("/-/ready").await.ok().filter(|answer| answer.status == 200)
        })
        .await?;
        Ok(started)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok(); // It may have ended by itself.
        self.child.wait().ok(); // As above.
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no `{program}` on this machine");
    }
    found
}

/// What `promtool` says, sorted: it promises no order.
fn promtool(address: &str, words: &[&str], more: &[&str]) -> anyhow::Result<Vec<String>> {
    let server = format!("http://{address}");
    let said = Command::new("promtool").args(words).arg(&server).args(more).output()?;
    ensure!(said.status.success(), "promtool {words:?} {more:?}: {}", String::from_utf8_lossy(&said.stderr));
    let mut lines: Vec<String> = String::from_utf8(said.stdout)?.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_get_what_they_get_from_a_prometheus_with_the_same_samples() -> anyhow::Result<()> {
    if !is_installed("prometheus") || !is_installed("promtool") {
        return Ok(());
    }
    let site = Site::start_with("groups: []", LOCAL_QUERIES).await?;
    let (ours, mut sender) = (Web::local(&site), Sender::start(&site, "web-1", 3).await?);
    let prometheus = Prometheus::start(site.dir(), &site.addresses().local).await?;
    let theirs = Web::bare(&prometheus.address);
    // Row by row, so that a scrape sees each. A second's fraction in every time, and none on a window's edge.
    let newest = encoded("timestamp(demo{n=\"0\"})");
    let mut last = String::new();
    for (row, value) in [0.5, 1e-7, f64::INFINITY, 1e21, f64::NAN, 123_456_789.125].into_iter().enumerate() {
        sender.row(1_000 + 1_000 * i64::try_from(row)?, value).await?;
        last = wait_until("the row on both sides", SOON, async || {
            let url = format!("/api/v1/query?query={newest}&time={}", sender.clock.wall_ms / 1_000 + 60);
            let (mine, other) = (ours.get(&url).await.ok()?.text(), theirs.get(&url).await.ok()?.text());
            (mine == other && mine.contains("value") && mine != last).then_some(mine)
        })
        .await?;
    }
    let begin = sender.clock.wall_ms;
    let at = |ms: i64| format!("{}.{:03}", (begin + ms) / 1_000, (begin + ms) % 1_000);
    let (start, end) = (at(1_001), at(6_001));
    let span = format!("start={start}&end={end}");
    let mut compared = 0;
    for (path, parameters) in [
        ("query", format!("query=demo&time={end}")),
        ("query", format!("query={}&time={end}", encoded("demo[4500ms]"))),
        ("query", format!("query={}&time={end}", encoded("sum(demo) * 3"))),
        ("query", format!("query={}&time={end}", encoded("\"a text\""))),
        ("query", format!("query=vector(1)/0&time={end}")),
        ("query", format!("query=1e-7&time={end}")),
        ("query", format!("query=none&time={end}")),
        ("query_range", format!("query=demo&{span}&step=1")),
        ("query_range", format!("query={}&{span}&step=500ms", encoded("delta(demo{n!=\"1\"}[2500ms])"))),
        ("query_range", format!("query=1&{span}&step=2.5")),
        ("query_range", format!("query=demo&{span}&step=0")),
        ("query_range", format!("query=demo&start=0&{span}&end=1e9&step=1")),
        ("query_range", format!("query=demo&start={end}&end={start}&step=1")),
        ("query_range", format!("query=demo&{span}&step=x")),
        ("query", "query=demo&time=soon".to_owned()),
        ("query", "query=demo&timeout=soon".to_owned()),
        ("series", format!("match[]={}&{span}", encoded("demo{n=~\"1|2\"}"))),
        ("series", span.clone()),
        ("labels", format!("match[]=demo&{span}")),
        ("label/n/values", format!("match[]=demo&{span}")),
        ("label/__name__/values", format!("match[]={}&{span}", encoded("{job=\"node\"}"))),
        ("query_exemplars", format!("query=demo&{span}")),
        ("alerts", String::new()),
        ("rules", String::new()),
        ("rules", "type=other".to_owned()),
    ] {
        let url = format!("/api/v1/{path}?{parameters}");
        let (mine, other) = (ours.get(&url).await?, theirs.get(&url).await?);
        let sorted = |answer: &Answer| {
            // The order of an instant vector is nobody's promise.
            let text = answer.text();
            let mut parts: Vec<String> =
                text.split("{\"metric\"").map(|p| p.trim_end_matches([',', ']', '}']).to_owned()).collect();
            parts.sort();
            (answer.status, answer.header("content-type").to_owned(), parts)
        };
        assert_eq!(sorted(&mine), sorted(&other), "{url}");
        compared += 1;
    }
    assert_eq!(compared, 25);
    for (words, more) in [
        (vec!["query", "instant", "--time", &end], vec!["demo * 2"]),
        (vec!["query", "range", "--start", &start, "--end", &end, "--step", "1s"], vec!["demo"]),
        (vec!["query", "series", "--match", "demo"], vec![]),
        (vec!["query", "labels", "--match", "demo"], vec!["n"]),
    ] {
        let mine = promtool(&site.addresses().local, &words, &more)?;
        assert_eq!(mine, promtool(&prometheus.address, &words, &more)?, "promtool {words:?}");
        assert!(!mine.is_empty(), "promtool {words:?} said nothing");
    }
    Ok(())
}

/// Queries that ask for more than there may be, and what the refusal says.
fn bombs(now: i64) -> Vec<(&'static str, String, &'static str)> {
    let everything = encoded("{__name__=~\".+\"}");
    let year = format!("start={}&end={now}", now - 365 * 86_400);
    vec![
        ("/api/v1/query_range", format!("query={everything}&{year}&step=1"), "11,000 points"),
        ("/api/v1/query_range", format!("query={everything}&start=0&end=1e9&step=1e-9"), "invalid parameter"),
        (
            "/api/v1/query",
            format!("time={now}&query={}", encoded("count_over_time({__name__=~\".+\"}[365d:1s])")),
            "samples",
        ),
        (
            "/api/v1/query_range",
            format!(
                "query={}&start={}&end={now}&step=2",
                encoded("demo * on(n,instance) group_left demo"),
                now - 20_000
            ),
            "",
        ),
        ("/api/v1/query", format!("query={}", "a+".repeat(500_000)), "longer than"),
        ("/api/v1/query", format!("query={}1{}", "(".repeat(15_000), ")".repeat(15_000)), "deep"),
        ("/api/v1/series", "match[]=demo&".repeat(10_000), "parameters"),
        ("/api/v1/labels", "match[]=demo&".repeat(900), "selectors"),
    ]
}

/// The longest that a small query may wait while bombs go on, on a busy machine.
const SMALL: Duration = Duration::from_secs(10);
/// What the collector may have more at the end: what an allocator keeps.
const MEMORY: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_refused_and_harms_nobody() -> anyhow::Result<()> {
    let site = Site::start("groups: []").await?;
    let mut sender = Sender::start(&site, "web-1", 2_000).await?;
    for row in 1..=10 {
        sender.row(row * 100, row as f64).await?;
    }
    let front = Web::front(&site);
    let greedy = front.bearer(&credential(&site, "greedy", pb::Role::Viewer).await?);
    let small = front.bearer(&credential(&site, "small", pb::Role::Viewer).await?);
    let before = resources::of(site.pid().context("no collector")?)?.resident_bytes;
    let now = sender.clock.wall_ms / 1_000 + 2;
    let mut throwing = tokio::task::JoinSet::new();
    for round in 0..3 {
        for (path, form, says) in bombs(now) {
            let greedy = greedy.clone();
            throwing.spawn(async move {
                let answer = greedy.post(path, &form).await?;
                let text = answer.text();
                let form = &form[..form.len().min(80)];
                let refused = says.is_empty() || (400..=503).contains(&answer.status) && text.contains(says);
                ensure!(
                    refused,
                    "round {round}: {path} {form}: {} {}",
                    answer.status,
                    &text[..text.len().min(300)]
                );
                Ok(())
            });
        }
    }
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    loop {
        let begun = Instant::now();
        let answer = small
            .post("/api/v1/query", &format!("query={}&time={now}", encoded("sum(demo{n=\"7\"})")))
            .await?;
        slowest = slowest.max(begun.elapsed());
        ensure!(
            answer.status == 200 && answer.text().contains("10.875"),
            "{} {}",
            answer.status,
            answer.text()
        );
        asked += 1;
        sender.row(1_000 + asked * 100, 10.0).await?; // Rows are taken meanwhile.
        match throwing.try_join_next() {
            Some(thrown) => thrown??,
            None if throwing.is_empty() => break,
            None => {}
        }
    }
    println!("{asked} small queries, the slowest {slowest:?}");
    ensure!(slowest < SMALL, "a small query waited {slowest:?}");
    let pid = site.pid().context("no collector")?;
    let mut later = 60_000;
    let given_back = async || {
        // The allocator gives memory back as it is used: a collector always is.
        later += 100;
        sender.row(later, 10.0).await.ok()?;
        small.post("/api/v1/query", "query=sum(demo)").await.ok()?;
        let now = resources::of(pid).ok()?.resident_bytes;
        (now < before + MEMORY).then_some(now)
    };
    let after = wait_until("the memory of refused queries given back", SOON * 2, given_back).await?;
    println!("memory: {} MiB before, {} MiB after", before >> 20, after >> 20);
    Ok(())
}
