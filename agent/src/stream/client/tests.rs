//! The stream against a collector in the same process: resume, order, acknowledgements, breaches.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use pb::agent_service_server::{AgentService, AgentServiceServer};
use pb::record::Kind;
use tocsin_shared::backoff::{Attempt, Backoff};
use tocsin_shared::chain::Chain;
use tocsin_shared::time::Timestamp;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tonic::transport::{Endpoint, Server};
use tonic::{Request as Call, Response, Status};

use super::*;
use crate::keep;
use crate::spool::{self, Spool};
use crate::stream::records::{ROW, StoredRow};

mod no_channel;

const BOOT: &str = "b0070000-0000-4000-8000-000000000000";

/// A collector that does what the test says.
struct Fake(mpsc::Sender<Wire>);

/// One session as the collector sees it.
struct Wire {
    requests: Streaming<pb::SessionRequest>,
    answers: mpsc::Sender<Result<pb::SessionResponse, Status>>,
    tables: BTreeMap<u64, (usize, String)>,
    chains: BTreeMap<u64, Chain>,
    rows: BTreeMap<u64, Vec<f64>>,
}

#[tonic::async_trait]
impl AgentService for Fake {
    type SessionStream = ReceiverStream<Result<pb::SessionResponse, Status>>;

    async fn session(
        &self,
        call: Call<Streaming<pb::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (answers, responses) = mpsc::channel(16);
        let (tables, chains, rows) = Default::default();
        let wire = Wire { requests: call.into_inner(), answers, tables, chains, rows };
        self.0.send(wire).await.map_err(|_| Status::unavailable("no test"))?;
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// A channel to a new fake collector, without sockets.
async fn collector() -> (Channel, mpsc::Receiver<Wire>) {
    let (sessions, wires) = mpsc::channel(4);
    let (near, far) = tokio::io::duplex(1 << 16);
    let incoming = tokio_stream::once(Ok::<DuplexStream, std::io::Error>(far));
    tokio::spawn(
        Server::builder().add_service(AgentServiceServer::new(Fake(sessions))).serve_with_incoming(incoming),
    );
    let near = Arc::new(Mutex::new(Some(near)));
    let dial = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let near = near.lock().unwrap().take();
        async move { near.map(TokioIo::new).ok_or_else(|| std::io::Error::other("one connection only")) }
    });
    let endpoint = Endpoint::from_static("http://collector");
    (endpoint.connect_with_connector(dial).await.unwrap(), wires)
}

fn lanes_out(lanes: &[(Lane, Ranges)]) -> Vec<pb::LaneAcknowledgement> {
    let lane = |(lane, taken): &(Lane, Ranges)| pb::LaneAcknowledgement {
        lane: lane.number(),
        taken: Some(taken.into()),
        ..Default::default()
    };
    lanes.iter().map(lane).collect()
}

impl Wire {
    async fn next(&mut self) -> Option<Up> {
        loop {
            match self.requests.message().await.ok()??.kind.unwrap() {
                Up::Heartbeat(_) => {}
                other => return Some(other),
            }
        }
    }

    async fn answer(&self, kind: Down) {
        self.answers.send(Ok(pb::SessionResponse { kind: Some(kind) })).await.unwrap();
    }

    async fn welcome(&mut self, lanes: &[(Lane, Ranges)]) -> pb::Hello {
        let Some(Up::Hello(hello)) = self.next().await else { panic!("no Hello") };
        let config = Some(pb::SessionConfig { heartbeat_ms: 60_000, instance: "web-1".into() });
        let welcome = pb::Welcome { protocol_version: 1, session: 7, lanes: lanes_out(lanes), config };
        self.answer(Down::Welcome(welcome)).await;
        hello
    }

    async fn acknowledge(&self, session: u64, lane: Lane, taken: Ranges) {
        let lanes = lanes_out(&[(lane, taken)]);
        self.answer(Down::Acknowledgement(pb::Acknowledgement { session, lanes })).await;
    }

    /// Takes a message as the real one does: rows must decode with what was sent in this session.
    fn take(&mut self, message: Up) -> Vec<pb::Row> {
        match message {
            Up::Table(pb::SeriesTable { table_id, series, boot_id }) => {
                self.tables.insert(table_id, (series.len(), boot_id));
                Vec::new()
            }
            Up::Rows(pb::Rows { rows }) => {
                for row in &rows {
                    let (width, boot) = self.tables.get(&row.table_id).expect("the table comes first");
                    assert_eq!(boot, BOOT);
                    let chain = self.chains.entry(row.chain).or_insert_with(|| Chain::new(*width));
                    chain.decode(&row.data).unwrap_or_else(|error| panic!("row {}: {error}", row.seq));
                    self.rows.insert(row.seq, chain.values().to_vec());
                }
                rows
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next rows, their table taken.
    async fn rows(&mut self) -> Vec<pb::Row> {
        loop {
            let message = self.next().await.expect("the session goes on");
            let rows = self.take(message);
            if !rows.is_empty() {
                return rows;
            }
        }
    }
}

fn spool(dir: &Path) -> Spool {
    let config = spool::Config {
        max_bytes: 16 << 20,
        reserve_bytes: 0,
        free_floor_bytes: 0,
        free_floor_percent: 0,
        segment_bytes: 1 << 20,
    };
    Spool::open(dir, config).unwrap()
}

/// An agent with its spool, and nothing that ticks.
struct Agent {
    keeper: Keeper,
    series: Arc<[Labels]>,
    written: u64,
    _dir: Option<tempfile::TempDir>,
}

impl Agent {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(prepare: impl FnOnce(&mut Spool)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = spool(dir.path());
        prepare(&mut spool);
        let (keeper, _) = keep::start(spool, BOOT).unwrap();
        Self { _dir: Some(dir), ..Self::around(keeper) }
    }

    fn around(keeper: Keeper) -> Self {
        let series = (0..9).map(|at| Labels::series(&format!("m{at}"), &[])).collect();
        Self { keeper, series, written: 0, _dir: None }
    }

    /// Writes rows; the values of the nth are n, n + 1 …
    async fn rows(&mut self, count: u64) {
        for _ in 0..count {
            self.written += 1;
            let n = self.written;
            let at = Reading { wall: Timestamp::from_millis(n as i64 * 10_000), boot_ms: n * 10_000 };
            let (keeper, series) = (self.keeper.clone(), Arc::clone(&self.series));
            let write = move || keeper.row(at, series, values(n));
            assert!(tokio::task::spawn_blocking(write).await.unwrap());
        }
        self.settled(|standing| standing.durable[2] == self.written).await;
    }

    async fn settled(&self, what: impl FnMut(&Standing) -> bool) -> Standing {
        *self.keeper.standing().wait_for(what).await.unwrap()
    }

    /// Opens a session with a new collector.
    async fn connect(&self) -> (Wire, oneshot::Receiver<Ended>) {
        let (channel, mut wires) = collector().await;
        let (keeper, (tell, ended)) = (self.keeper.clone(), oneshot::channel());
        tokio::spawn(async move {
            let greeting = Greeting {
                agent_version: "1".into(),
                boot_id: BOOT.into(),
                facts: Labels::new([("os", "Debian")]),
                interval: Duration::from_secs(10),
                process: "1".into(),
            };
            let trust = Trust::new(std::path::PathBuf::new());
            let Err(end) = session(channel, &keeper, (&greeting, &trust), &AtomicBool::new(false)).await;
            tell.send(end).ok();
        });
        (wires.recv().await.unwrap(), ended)
    }
}

fn values(n: u64) -> Vec<f64> {
    (0..9).map(|at| (n + at) as f64).collect()
}

/// Everything up to a number, and one above.
fn above(floor: u64, seq: u64) -> Ranges {
    let mut taken = Ranges::up_to(floor);
    taken.insert(seq).unwrap();
    taken
}

fn seqs(rows: &[pb::Row]) -> Vec<u64> {
    rows.iter().map(|row| row.seq).collect()
}

#[tokio::test]
async fn a_session_resumes_in_the_middle_of_a_chain_with_a_full_row() {
    let mut agent = Agent::new();
    agent.rows(70).await;
    let (mut wire, _ended) = agent.connect().await;
    let hello = wire.welcome(&[(Lane::Samples, Ranges::up_to(10))]).await;
    assert_eq!((hello.protocol_version, hello.boot_id.as_str(), hello.interval_ms), (1, BOOT, 10_000));
    assert_eq!(hello.epoch, agent.keeper.epoch().to_string());
    assert_eq!(seqs(&wire.rows().await), [70], "what is true now goes first");
    wire.acknowledge(7, Lane::Samples, above(10, 70)).await;
    let rows = wire.rows().await;
    assert_eq!(seqs(&rows), (11..=69).collect::<Vec<_>>(), "what is acknowledged is not sent again");
    assert_eq!((rows[0].chain, rows[0].index, rows[0].data[0]), (1, 10, 1), "full, at its own place");
    assert_eq!((rows[1].index, rows[1].data[0]), (11, 0), "then as stored");
    assert_eq!((rows[54].chain, rows[54].index), (65, 0), "64 rows make a chain");
    for (seq, got) in &wire.rows {
        assert_eq!(*got, values(*seq), "row {seq}");
    }
    wire.acknowledge(7, Lane::Samples, Ranges::up_to(70)).await;
    agent.settled(|standing| standing.waiting[2] == 0).await;
}

// Cases: N1, C-A8
#[tokio::test]
async fn a_new_row_does_not_wait_for_the_backlog() {
    let mut agent = Agent::new();
    agent.rows(40).await;
    let (mut wire, _ended) = agent.connect().await;
    wire.welcome(&[]).await;
    assert_eq!(seqs(&wire.rows().await), [40], "the newest first");
    wire.acknowledge(7, Lane::Samples, above(0, 40)).await;
    let backlog = wire.rows().await;
    assert_eq!(backlog.first().map(|row| row.seq), Some(1), "from the floor upwards");
    // Nothing of it is acknowledged, and yet:
    agent.rows(1).await;
    let live = wire.rows().await;
    assert_eq!(seqs(&live), [41]);
    assert_eq!((live[0].chain, live[0].index), (41, 0), "a chain of its own");
    agent.rows(1).await;
    let live = wire.rows().await;
    assert_eq!((live[0].seq, live[0].chain, live[0].index, live[0].data[0]), (42, 41, 1, 0));
    assert_eq!(wire.tables.len(), 1, "the table is sent once");
    // The window is full now: the next row is part of the backlog, the one after it opens a chain again.
    agent.rows(1).await;
    // An outcome-like record still has its place; when it comes, row 43 has been looked at.
    agent.keeper.event("agent_start", Reading::default()).await.unwrap();
    assert!(matches!(wire.next().await, Some(Up::Records(_))));
    wire.acknowledge(7, Lane::Samples, Ranges::up_to(42)).await;
    let late = wire.rows().await;
    assert_eq!((seqs(&late), late[0].data[0]), (vec![43], 1), "full, because its chain was not continued");
    agent.rows(1).await;
    let live = wire.rows().await;
    assert_eq!((live[0].seq, live[0].chain, live[0].index), (44, 44, 0));
    for (seq, got) in &wire.rows {
        assert_eq!(*got, values(*seq), "row {seq}");
    }
}

// Cases: N1, C-A8
#[tokio::test]
async fn outcomes_go_first() {
    let mut agent = Agent::new();
    agent.rows(3).await;
    agent.keeper.event("agent_start", Reading::default()).await.unwrap();

    let job = tocsin_shared::job::JobStarted {
        run_id: tocsin_shared::job::RunId(uuid::Uuid::from_u128(1)),
        job: "backup".parse().unwrap(),
        pid: 1,
        user: Default::default(),
        uid: 0,
        command: Default::default(),
        started_at: Timestamp::default(),
        started_boot_ms: 0,
        started_boot: Default::default(),
    };
    let (reply, stored) = oneshot::channel();
    let record = tocsin_shared::job::JobRecord::Started(job);
    agent.keeper.job(crate::jobs::intake::Submission { record, reply }).await.unwrap();
    stored.await.unwrap().unwrap();
    agent.settled(|standing| standing.durable == [1, 1, 3]).await;

    let (mut wire, _ended) = agent.connect().await;
    wire.welcome(&[]).await;
    for (lane, what) in [(Lane::Outcomes, "a job's start"), (Lane::State, "the agent's start")] {
        let Some(Up::Records(pb::Records { lane: said, records })) = wire.next().await else {
            panic!("{what}")
        };
        assert_eq!((said, records.len(), records[0].seq), (lane.number(), 1, 1), "{what}");
        let fits = match &records[0].kind {
            Some(Kind::RunStarted(run)) => lane == Lane::Outcomes && run.job_name == "backup",
            Some(Kind::HostEvent(event)) => lane == Lane::State && event.what == "agent_start",
            _ => false,
        };
        assert!(fits, "{what}: {records:?}");
    }
    assert_eq!(seqs(&wire.rows().await), [1, 2, 3]);
    for (lane, to) in [(Lane::Outcomes, 1), (Lane::State, 1), (Lane::Samples, 3)] {
        wire.acknowledge(7, lane, Ranges::up_to(to)).await;
    }
    agent.settled(|standing| standing.waiting == [0, 0, 0]).await;
}

// Cases: S24, H16, H17
#[tokio::test]
async fn an_acknowledgement_that_cannot_be_ends_the_session_and_removes_nothing() {
    for (name, session, taken, says) in [
        ("beyond what was sent", 7, Ranges::up_to(6), "only 5 were sent"),
        ("of another session", 8, Ranges::up_to(1), "this is session 7"),
    ] {
        let mut agent = Agent::new();
        agent.rows(5).await;
        let (mut wire, ended) = agent.connect().await;
        wire.welcome(&[]).await;
        wire.rows().await;
        wire.acknowledge(session, Lane::Samples, taken).await;
        let ended = ended.await.unwrap().to_string();
        assert!(ended.contains(says) && ended.contains("nothing was removed"), "{name}: {ended}");
        assert_eq!(agent.settled(|_| true).await.waiting, [0, 0, 5], "{name}");
    }
    let mut agent = Agent::new();
    agent.rows(5).await;
    let (mut wire, ended) = agent.connect().await;
    wire.welcome(&[(Lane::Samples, Ranges::up_to(9))]).await;
    let ended = ended.await.unwrap();
    assert!(ended.is_refusal() && ended.to_string().contains("spool"), "a Welcome beyond the spool: {ended}");
    assert_eq!(agent.settled(|_| true).await.waiting, [0, 0, 5]);
}

// Cases: N2, S23
#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_under_its_number() {
    let mut agent = Agent::new();
    agent.rows(3).await;
    let (mut wire, ended) = agent.connect().await;
    wire.welcome(&[]).await;
    let first = wire.rows().await;
    wire.acknowledge(7, Lane::Samples, Ranges::up_to(1)).await;
    agent.settled(|standing| standing.waiting[2] == 2).await;
    wire.answers.send(Err(Status::unavailable("restarting"))).await.unwrap();
    let end = ended.await.unwrap();
    assert!(!end.is_refusal() && end.to_string().contains("restarting"), "{end}");

    let (mut wire, ended) = agent.connect().await;
    wire.welcome(&[(Lane::Samples, Ranges::up_to(1))]).await;
    let again = wire.rows().await;
    assert_eq!(seqs(&again), [2, 3]);
    assert_eq!(again[1..], first[2..], "the very same bytes, after a full row");
    wire.answers.send(Err(Status::permission_denied("revoked"))).await.unwrap();
    assert!(ended.await.unwrap().is_refusal());
    assert_eq!(agent.settled(|_| true).await.waiting[2], 2);
}

#[tokio::test]
async fn a_row_that_nobody_could_read_becomes_a_gap() {
    let mut agent = Agent::with(|spool| {
        let orphan = StoredRow { table_id: 1, chain: 1, index: 1, data: vec![0].into() };
        for payload in [b"noise".to_vec(), orphan.encode()] {
            spool.append(Lane::Samples, ROW, &payload, true).unwrap();
        }
    });
    agent.written = 2;
    agent.rows(1).await;
    let (mut wire, _ended) = agent.connect().await;
    wire.welcome(&[]).await;
    assert_eq!(seqs(&wire.rows().await), [3]);
    let mut lost = Vec::new();
    while lost.len() < 2 {
        let Some(Up::Records(pb::Records { records, .. })) = wire.next().await else { panic!("no gaps") };
        for record in records {
            let Some(Kind::Gap(gap)) = record.kind else { panic!("{record:?}") };
            assert_eq!((gap.lane, gap.reason()), (Lane::Samples.number(), pb::GapReason::Corrupt));
            lost.extend(gap.first..=gap.last);
        }
    }
    assert_eq!(lost, [1, 2]);
}

// Cases: H16
#[tokio::test]
async fn a_collector_that_breaks_the_protocol_is_left() {
    let agent = Agent::new();
    for (name, answer, says) in [
        ("no Welcome", Down::Throttle(pb::Throttle::default()), "no Welcome"),
        (
            "another version",
            Down::Welcome(pb::Welcome { protocol_version: 9, ..Default::default() }),
            "version 9",
        ),
        (
            "ranges that are none",
            Down::Welcome(pb::Welcome {
                protocol_version: 1,
                lanes: vec![pb::LaneAcknowledgement { lane: 99, ..Default::default() }],
                ..Default::default()
            }),
            "does not keep the protocol",
        ),
    ] {
        let (wire, ended) = agent.connect().await;
        wire.answer(answer).await;
        let ended = ended.await.unwrap().to_string();
        assert!(ended.contains(says), "{name}: {ended}");
    }
}

// Cases: N14, N2
#[tokio::test]
async fn a_collector_that_answers_nothing_is_left_after_thirty_seconds() {
    let mut agent = Agent::new();
    agent.rows(5).await;
    let (mut wire, ended) = agent.connect().await;
    wire.welcome(&[]).await;
    wire.rows().await;
    // The connection stands and takes everything; only acknowledgements are missing.
    tokio::time::pause();
    let begun = Instant::now();
    let ended = ended.await.unwrap();
    assert!(matches!(ended, Ended::Session(SessionError::NoProgress)), "{ended}");
    assert!(begun.elapsed() <= PROGRESS_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(agent.settled(|_| true).await.waiting, [0, 0, 5]);
}

// Cases: N15
#[tokio::test]
async fn a_collector_that_takes_nothing_is_left_too() {
    let mut agent = Agent::new();
    agent.rows(1).await;
    let (tell, up_full) = mpsc::channel(1);
    let (mut wire, _ended) = agent.connect().await;
    wire.welcome(&[]).await;
    let welcome = pb::Welcome { protocol_version: 1, session: 7, ..Default::default() };
    let trust = Trust::new(std::path::PathBuf::new());
    let mut shell = Shell::welcomed(&agent.keeper, tell, welcome, (&trust, None)).await.unwrap();
    tokio::time::pause();
    // There is room for one message: the table takes it, and the row waits for more.
    let ended = shell.act().await.unwrap_err();
    assert!(matches!(ended, Ended::Session(SessionError::NoProgress)), "{ended}");
    drop(up_full);
}

// Cases: N19, C-A9
#[tokio::test]
async fn no_answer_of_a_collector_costs_the_spool_or_ends_the_attempts() {
    let mut agent = Agent::new();
    agent.rows(3).await;
    for code in (1..=16).map(tonic::Code::from_i32) {
        for asked in [None, Some("1500"), Some("-1"), Some("never")] {
            let (mut wire, ended) = agent.connect().await;
            wire.welcome(&[]).await;
            let mut status = Status::new(code, "go away");
            if let Some(asked) = asked {
                status.metadata_mut().insert(crate::stream::STAY_AWAY, asked.parse().unwrap());
            }
            wire.answers.send(Err(status)).await.unwrap();
            let ended = ended.await.unwrap();
            let waited = crate::stream::stay_away(&ended);
            let expected = (asked == Some("1500")).then_some(Duration::from_millis(1_500));
            assert_eq!(waited, expected, "{code:?} {asked:?}");
            let attempt = Attempt { lasted: None, refused: ended.is_refusal(), asked: waited };
            let mut backoff = Backoff::default();
            for _ in 0..20 {
                assert!(backoff.next(attempt, 1.0) <= Duration::from_secs(600), "{code:?}");
            }
            assert_eq!(agent.settled(|_| true).await.waiting, [0, 0, 3], "{code:?}");
        }
    }
}
