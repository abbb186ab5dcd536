//! Hostile peers: floods, slow ones, greedy ones and garbage against a running collector.
//!
//! Promise: each is cut off in bounded time; meanwhile another agent's rows are acknowledged as ever, the collector's
//! memory stays where it was, and its log does not grow with what strangers do.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use http::Request;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use prost::bytes::Bytes;
use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_shared::chain::Chain;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use tocsin_shared::tls;
use tocsin_tests::raw::{self, Ended, frame};
use tocsin_tests::resources;
use tocsin_tests::scrape::Scraper;
use tocsin_tests::site::{SOON, Site};
use tocsin_tests::virtual_agent::{VirtualAgent, table};
use tocsin_tests::wait::wait_until;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Short times, so that waiting for them is short; loopback is a stranger's address here.
const LIMITS: &str = "[limits]\nhandshake = \"1s\"\nopening = \"1s\"\nrequest = \"1s\"\nstall = \"2s\"\n\
                      answer = \"2s\"\nconnections_per_address = 24\nconnections_per_address_per_second = 1000\n\
                      exempt_loopback = false\n";
/// From an attack's begin to its end, at the latest: twice the longest of the times above, on a busy machine.
const CUT: Duration = Duration::from_secs(10);
/// What the collector may have more after all attacks than before: buffers of connections, an allocator's leftovers.
const MEMORY: u64 = 48 << 20;
/// The longest that a bystander's row may wait for its acknowledgement.
const LATENCY: Duration = Duration::from_secs(3);
/// Lines that the log may grow by, whatever strangers do.
const LINES: usize = 40;

const ENROLL: &str = "/tocsin.v1.EnrollmentService/Enroll";
const SESSION: &str = "/tocsin.v1.AgentService/Session";

fn millis_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An agent that goes on with its work, a row at a time.
struct Bystander {
    stop: CancellationToken,
    working: JoinHandle<anyhow::Result<(u64, Duration)>>,
}

impl Bystander {
    async fn start(site: &Site) -> anyhow::Result<Self> {
        let agent = VirtualAgent::enrol(&site.api, pb::Env::Test, "bystander").await?;
        let clock = pb::ClockReading { wall_ms: millis_now(), boot_ms: 1_000_000, ..Default::default() };
        let mut session = agent.session(clock.clone(), 1_000, Arc::default()).await?;
        let series = [Labels::series("bystander", &[])];
        session.say(Up::Table(table(1, &series, &agent.boot_id))).await?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let working = tokio::spawn(async move {
            let (mut seq, mut slowest) = (0, Duration::ZERO);
            while !stopped.is_cancelled() {
                seq += 1;
                let mut data = Vec::new();
                let at = Timestamp::from_millis(clock.wall_ms + i64::try_from(seq)? * 10);
                Chain::new(1).encode(at, clock.boot_ms + seq * 10, &[seq as f64], &mut data);
                let row = pb::Row { seq, table_id: 1, chain: seq, index: 0, data: data.into() };
                let sent = Instant::now();
                session.say(Up::Rows(pb::Rows { rows: vec![row] })).await?;
                while session.taken < seq {
                    session.hear().await?;
                }
                slowest = slowest.max(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok((seq, slowest))
        });
        Ok(Self { stop, working })
    }

    /// How many rows were acknowledged, and what the slowest took.
    async fn end(self) -> anyhow::Result<(u64, Duration)> {
        self.stop.cancel();
        tokio::time::timeout(CUT, self.working).await.context("a row is not acknowledged")??
    }
}

/// A collector, and how it stood before the attacks.
struct Siege {
    site: Site,
    bystander: Bystander,
    resident: u64,
    lines: usize,
}

impl Siege {
    async fn begin(limits: &str) -> anyhow::Result<Self> {
        let site = Site::start_with("groups: []\n", limits).await?;
        let bystander = Bystander::start(&site).await?;
        let pid = site.pid().context("it runs")?;
        let (resident, lines) = (resources::of(pid)?.resident_bytes, site.log()?.lines().count());
        Ok(Self { site, bystander, resident, lines })
    }

    fn front_tls(&self) -> anyhow::Result<Arc<rustls::ClientConfig>> {
        Ok(tls::trusting(&self.site.api.authority_pem, None)?)
    }

    /// The collector stands as before, and so does the bystander.
    async fn end(self) -> anyhow::Result<()> {
        let (rows, slowest) = self.bystander.end().await?;
        ensure!(0 < rows, "the bystander got nothing through");
        ensure!(slowest < LATENCY, "a row of the bystander took {slowest:?}");
        let resident = resources::of(self.site.pid().context("it runs")?)?.resident_bytes;
        let grown = resident.saturating_sub(self.resident);
        println!(
            "bystander: {rows} rows, slowest {slowest:?}; memory {} MiB, {} KiB more than before",
            resident >> 20,
            grown >> 10
        );
        ensure!(grown < MEMORY, "the collector's memory grew by {grown} bytes");
        let log = self.site.log()?;
        ensure!(!log.contains("panicked"), "a panic:\n{log}");
        let lines = log.lines().count() - self.lines;
        ensure!(lines < LINES, "{lines} lines of log for what strangers did:\n{log}");
        Ok(())
    }
}

fn must_close(name: &str, ended: Ended) -> anyhow::Result<()> {
    println!("{name}: {ended:?}");
    ensure!(ended.closed, "{name}: not cut off within {CUT:?}");
    Ok(())
}

/// Opens streams 1, 3, 5, … with these frames for each.
fn streams(mut frames: impl FnMut(u32) -> Vec<u8>) -> impl FnMut() -> Vec<u8> {
    let mut next = 1;
    move || {
        let bytes = (0..50).flat_map(|more| frames(next + 2 * more)).collect();
        next += 100;
        bytes
    }
}

type Next = Box<dyn FnMut() -> Vec<u8> + Send>;

/// What floods a connection: how it begins, and what it repeats.
fn floods(path: &str) -> Vec<(&'static str, Vec<u8>, Next)> {
    let opening = raw::OPENING.to_vec();
    let call = raw::call(path);
    let open = frame(raw::HEADERS, raw::END_HEADERS, 1, &call);
    let opened = [&opening[..], &open].concat();
    let repeat = |bytes: Vec<u8>| -> Next {
        let many = bytes.repeat(100);
        Box::new(move || many.clone())
    };
    let (reset_call, broken_call, bomb_call) = (call.clone(), call.clone(), call.clone());
    let rapid_reset = move |stream| {
        let headers = frame(raw::HEADERS, raw::END_HEADERS, stream, &reset_call);
        [headers, frame(raw::RESET, 0, stream, &8u32.to_be_bytes())].concat()
    };
    // A window update of zero is an error of its stream, so the server resets it.
    let made_reset = move |stream| {
        let headers = frame(raw::HEADERS, raw::END_HEADERS, stream, &broken_call);
        [headers, frame(raw::WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    };
    let bomb = move |stream| {
        let mut block = bomb_call.clone();
        raw::kept(&mut block, "x", &"y".repeat(4_000));
        block.extend([0x80 | 62; 8_000]);
        frame(raw::HEADERS, raw::END_HEADERS, stream, &block)
    };
    let mut endless = call.clone();
    raw::literal(&mut endless, "x", &"y".repeat(4_000));
    let begun = [&opening[..], &frame(raw::HEADERS, 0, 1, &call)].concat();
    let mut more = Vec::new();
    raw::literal(&mut more, "x", &"y".repeat(10_000));
    vec![
        ("ping flood", opening.clone(), repeat(frame(raw::PING, 0, 0, &[0; 8]))),
        ("settings flood", opening.clone(), repeat(frame(raw::SETTINGS, 0, 0, &[]))),
        ("priority flood", opening.clone(), repeat(frame(raw::PRIORITY, 0, 3, &[0; 5]))),
        ("unknown frames", opening.clone(), repeat(frame(99, 0, 0, &[0; 5]))),
        ("window updates", opened.clone(), repeat(frame(raw::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("empty data", opened.clone(), repeat(frame(raw::DATA, 0, 1, &[]))),
        (
            "padded data",
            opened.clone(),
            repeat(frame(raw::DATA, raw::PADDED, 1, &[[99].as_slice(), &[0; 99]].concat())),
        ),
        ("rapid reset", opening.clone(), Box::new(streams(rapid_reset))),
        ("made reset", opening.clone(), Box::new(streams(made_reset))),
        ("header bomb", opening.clone(), Box::new(streams(bomb))),
        ("empty continuations", begun.clone(), repeat(frame(raw::CONTINUATION, 0, 1, &[]))),
        ("headers of a megabyte", begun, repeat(frame(raw::CONTINUATION, 0, 1, &more))),
        (
            "calls without end",
            opening,
            Box::new(streams(move |stream| {
                frame(raw::HEADERS, raw::END_HEADERS | raw::END_STREAM, stream, &endless)
            })),
        ),
    ]
}

// Cases: H1, H2, H3, H4
#[tokio::test]
async fn floods_of_frames_are_cut_off() -> anyhow::Result<()> {
    let siege = Siege::begin(LIMITS).await?;
    let addresses = siege.site.addresses().clone();
    for (name, first, next) in floods(ENROLL) {
        let stream = raw::tls(&addresses.front, siege.front_tls()?).await?;
        must_close(name, raw::flood(stream, first, next, Duration::ZERO, CUT).await)?;
    }
    let rogue = VirtualAgent::enrol(&siege.site.api, pb::Env::Test, "rogue").await?;
    for (name, first, next) in floods(SESSION) {
        let stream = raw::tls(&addresses.agents, rogue.tls()).await?;
        must_close(&format!("agent: {name}"), raw::flood(stream, first, next, Duration::ZERO, CUT).await)?;
    }
    siege.end().await
}

// Cases: H5, H12, C-X4
#[tokio::test]
async fn slow_and_garbled_peers_are_cut_off() -> anyhow::Result<()> {
    let siege = Siege::begin(LIMITS).await?;
    let addresses = siege.site.addresses().clone();
    let hello = {
        let name = rustls::pki_types::ServerName::try_from("localhost")?;
        let mut client = rustls::ClientConnection::new(siege.front_tls()?, name)?;
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes)?;
        bytes
    };
    // A handshake record that says 16 KiB, and a ClientHello in it that says 16 MiB.
    let huge = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3][..], &[0; 60_000]].concat();
    let crumbs: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).take(600).collect();
    let bare: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("half a ClientHello", hello[..hello.len() / 2].to_vec()),
        ("a ClientHello and nothing", hello.clone()),
        ("a ClientHello in crumbs", crumbs),
        ("a huge ClientHello", huge),
        ("plaintext HTTP/2", raw::OPENING.to_vec()),
        ("plaintext HTTP/1.1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("noise", (0..4_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("SSLv2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
    ];
    let call = raw::call(ENROLL);
    let mut inside: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("TLS and nothing", Vec::new(), Vec::new()),
        ("half an opening", raw::OPENING[..11].to_vec(), Vec::new()),
        ("an opening and nothing", raw::OPENING.to_vec(), Vec::new()),
        ("half a frame", [raw::OPENING, &[0, 0, 9, 1]].concat(), Vec::new()),
        ("headers without end", [raw::OPENING, &frame(raw::HEADERS, 0, 1, &call)].concat(), Vec::new()),
        ("HTTP/1.1, a byte at a time", b"GET / HTTP/1.1\r\nx: ".to_vec(), b"y".to_vec()),
        ("pings for ever", raw::OPENING.to_vec(), frame(raw::PING, 0, 0, &[0; 8])),
    ];
    let mut waiting = Vec::new();
    for (listener, address) in [("front", &addresses.front), ("agents", &addresses.agents)] {
        for (name, first) in &bare {
            let (name, stream) = (format!("{listener}: {name}"), raw::tcp(address).await?);
            let nothing = raw::flood(stream, first.clone(), Vec::new, Duration::from_millis(200), CUT);
            waiting.push(tokio::spawn(async move { (name, nothing.await) }));
        }
    }
    for (name, ended) in ended(std::mem::take(&mut waiting)).await? {
        must_close(&name, ended)?;
    }
    let rogue = VirtualAgent::enrol(&siege.site.api, pb::Env::Test, "rogue").await?;
    for (name, first, next) in inside.drain(..) {
        let stream = raw::tls(&addresses.front, siege.front_tls()?).await?;
        let slow = raw::flood(stream, first.clone(), move || next.clone(), Duration::from_millis(200), CUT);
        waiting.push(tokio::spawn(async move { (name.to_owned(), slow.await) }));
        if !name.starts_with("HTTP/1.1") && waiting.len() < 6 {
            let stream = raw::tls(&addresses.agents, rogue.tls()).await?;
            let slow = raw::flood(stream, first, Vec::new, Duration::from_millis(200), CUT);
            waiting.push(tokio::spawn(async move { (format!("agent: {name}"), slow.await) }));
        }
    }
    for (name, ended) in ended(waiting).await? {
        must_close(&name, ended)?;
    }
    slow_body_is_given_up(&siege).await?;
    old_tls_is_refused(&siege).await?;
    siege.end().await
}

async fn ended(waiting: Vec<JoinHandle<(String, Ended)>>) -> anyhow::Result<Vec<(String, Ended)>> {
    let mut all = Vec::new();
    for one in waiting {
        all.push(one.await?);
    }
    Ok(all)
}

/// A call whose body comes a byte now and then is answered, and what it held is given back.
async fn slow_body_is_given_up(siege: &Siege) -> anyhow::Result<()> {
    let crumbs = tokio_stream::iter(0..u32::MAX).then(|at| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let crumb: &[u8] = if at == 0 { &[0, 0, 0, 9, 9] } else { &[0] };
        Ok::<_, tonic::Status>(Frame::data(Bytes::copy_from_slice(crumb)))
    });
    let request = Request::post(format!("https://localhost{ENROLL}"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(StreamBody::new(Box::pin(crumbs))))?;
    let begun = Instant::now();
    let answered = tokio::time::timeout(CUT, siege.site.api.channel().oneshot(request)).await;
    let answer = answered.context("a slow body is waited for")??;
    println!("a body of a byte now and then: {:?} after {:?}", answer.headers(), begun.elapsed());
    Ok(())
}

async fn old_tls_is_refused(siege: &Siege) -> anyhow::Result<()> {
    let authority = tls::certificates(&siege.site.api.authority_pem, "the authority")?;
    let mut old = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])?
        .with_root_certificates(tls::roots(&authority)?)
        .with_no_client_auth();
    old.alpn_protocols = vec![b"h2".to_vec()];
    let old = Arc::new(old);
    for address in [&siege.site.addresses().front, &siege.site.addresses().agents] {
        ensure!(raw::tls(address, old.clone()).await.is_err(), "TLS 1.2 is spoken on {address}");
    }
    Ok(())
}

// Cases: H6, H7, C-X4
#[tokio::test]
async fn greedy_peers_get_their_share_and_no_more() -> anyhow::Result<()> {
    let siege = Siege::begin(&LIMITS.replace("request = \"1s\"", "request = \"60s\"")).await?;
    let addresses = siege.site.addresses().clone();
    let rogue = VirtualAgent::enrol(&siege.site.api, pb::Env::Test, "rogue").await?;
    // Each stream declares a message of 4 MiB and sends nothing of it; more streams than there may be are tried.
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = raw::tls(&addresses.agents, rogue.tls()).await?;
        let mut bytes = raw::OPENING.to_vec();
        for id in (1..40).step_by(2) {
            bytes.extend(frame(raw::HEADERS, raw::END_HEADERS, id, &raw::call(SESSION)));
            bytes.extend(frame(raw::DATA, 0, id, &[0, 0, 0x40, 0, 0]));
        }
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await?;
        held.push(stream);
    }
    // The ninth connection of one certificate is closed.
    let ninth = raw::tls(&addresses.agents, rogue.tls()).await;
    if let Ok(stream) = ninth {
        let ended = raw::flood(stream, raw::OPENING.to_vec(), Vec::new, Duration::from_millis(100), CUT);
        must_close("a ninth connection of one agent", ended.await)?;
    }
    // Strangers of one address: what is over its share is closed before any TLS.
    let (mut strangers, begun) = (Vec::new(), Instant::now());
    for _ in 0..200 {
        strangers.push(raw::tls(&addresses.front, siege.front_tls()?).await.ok());
    }
    let inside = strangers.iter().flatten().count();
    // Those that say nothing are closed after a second (`opening`), and others may come in their place.
    let most = 24 * (1 + begun.elapsed().as_secs() as usize);
    ensure!((1..=most).contains(&inside), "{inside} connections of one address were let in, {most} may be");
    let pid = siege.site.pid().context("it runs")?;
    let grown = resources::of(pid)?.resident_bytes.saturating_sub(siege.resident);
    ensure!(grown < MEMORY, "{grown} bytes are held for greedy peers");
    let refused = wait_until("connections counted as refused", SOON, async || {
        let url = format!("http://{}/metrics", addresses.local);
        let scraped = tokio::task::spawn_blocking(move || Scraper::connect(&url)?.fetch_text());
        let metrics = scraped.await.ok()?.ok()?;
        let counted = |result: &str| {
            let line = metrics.lines().find(|line| line.contains(result) && line.contains("front"))?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        counted("over_address").filter(|count| 100 < *count)
    });
    println!("refused: {}", refused.await?);
    drop((held, strangers));
    siege.end().await
}

// Cases: H8, H15
#[tokio::test]
async fn a_stranger_learns_no_method_and_no_compression() -> anyhow::Result<()> {
    let siege = Siege::begin(LIMITS).await?;
    let front = siege.site.api.channel();
    let ask = async |path: &str, body: &'static [u8], encoding: Option<&str>| -> anyhow::Result<String> {
        let mut request = Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let body = tonic::body::Body::new(Full::new(Bytes::from_static(body)));
        let response = front.clone().oneshot(request.body(body)?).await?;
        let status = response.headers().get("grpc-status").map(|status| status.to_str().map(str::to_owned));
        let said = response.headers().get("grpc-message").map(|said| said.to_str().map(str::to_owned));
        Ok(format!("{:?} {:?}", status.transpose()?, said.transpose()?))
    };
    let unknown = ask("/tocsin.v1.NoService/NoMethod", &[0; 5], None).await?;
    ensure!(unknown.contains("16"), "a stranger is told {unknown}");
    for path in [
        "/tocsin.v1.AdminService/CreateToken",
        "/tocsin.v1.QueryService/Instant",
        "/tocsin.v1.AgentService/Session",
        "/tocsin.v1.EnrollmentService/Renew",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.health.v1.Health/Watch",
        "/",
        "/metrics",
        "/tocsin.v1.AdminService/GetStatus/../../x",
    ] {
        let said = ask(path, &[0; 5], None).await?;
        ensure!(said == unknown, "{path}: {said}, and an unknown method: {unknown}");
    }
    for encoding in ["gzip", "zstd", "deflate", "br"] {
        let said = ask(ENROLL, &[1, 0, 0, 0, 1, 0], Some(encoding)).await?;
        ensure!(said.contains("12"), "{encoding} is not unimplemented: {said}");
    }
    let said = ask(ENROLL, &[0, 0x7f, 0xff, 0xff, 0xff], None).await?;
    ensure!(said.contains("11"), "a message of 2 GiB is not out of range: {said}");
    siege.end().await
}
