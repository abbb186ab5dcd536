//! Sessions over channels instead of a connection, with a real ledger and rows' writer.

use std::path::Path;

use tocsin_proto::wire::ROWS_MAX;
use tocsin_shared::chain::Chain;
use tocsin_shared::disk::{Disk, Fault, MemoryDisk, Operation};
use tocsin_shared::event::Sealed;
use tocsin_shared::host::HostState;
use tocsin_shared::identity::Env;
use tonic::Code;
use uuid::Uuid;

use super::*;
use crate::identity::authorities::Authorities;
use crate::journal::ledger::{self, Fatal};
use crate::journal::rows;
use crate::room;
use crate::samples::Store;
use crate::state::Defaults;
use crate::state::testing::{agent, enrolment, token};

const EPOCH: u128 = 5;

struct Bench {
    agents: Agents,
    disk: MemoryDisk,
    _dir: tempfile::TempDir,
    durable: std::sync::mpsc::Receiver<rows::DurableRow>,
}

/// The agent's end of a stream.
struct Agent {
    up: mpsc::Sender<Result<pb::SessionRequest, Status>>,
    down: mpsc::Receiver<Result<pb::SessionResponse, Status>>,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let store = Arc::new(Store::open(dir.path()).unwrap().0);
    let stop = CancellationToken::new();
    let fatal = Fatal::new(stop.clone());
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = ledger::open(shared.clone(), Path::new("/j")).unwrap();
    let ledger = opened.start(Defaults::default(), fatal.clone());
    let sealed = Sealed {
        samples_from: 0,
        sealed_seq: 0,
        sealed_to: Timestamp::MIN,
        evaluated_through: 0,
        lanes: Vec::new(),
        blocks: Vec::new(),
    };
    let found = rows::Found { sealed: &sealed, lanes: Vec::new(), evaluated_through: 0 };
    let (out, durable) = std::sync::mpsc::sync_channel(1_000);
    let rows = rows::open(shared, Path::new("/j"), store, found).unwrap().start(out, fatal);
    let commands =
        vec![Command::CreateToken(token(1, Env::Prod, "*")), Command::Enrol(enrolment(1, "web-1"))];
    for decided in ledger.submit_all(commands, Actor::System).await.unwrap() {
        decided.unwrap();
    }
    let presence = Arc::new(Presence::new(Duration::from_secs(5), [], Instant::now()));
    let nothing = room::Config { reserve_bytes: 0, free_floor_bytes: 0 };
    let room = Room::open(Arc::new(disk.clone()), Path::new("/j"), nothing, now()).unwrap();
    let (quotas, skews, sessions, opening) = Default::default();
    let authorities = Authorities::open(&dir.path().join("authority"), &[], now()).unwrap();
    let trust = Telling { authorities: Arc::new(authorities), renew_within: Duration::from_secs(60) };
    let agents = Agents { ledger, rows, presence, quotas, skews, sessions, room, opening, trust, stop };
    Bench { agents, disk, _dir: dir, durable }
}

fn clock_now() -> Option<pb::ClockReading> {
    Some(pb::ClockReading { wall_ms: now().as_millis(), boot_ms: 1_000_000, ..Default::default() })
}

impl Bench {
    fn connect(&self) -> Agent {
        let (up, input) = mpsc::channel(16);
        let (out, down) = mpsc::channel(DOWN_QUEUE);
        let agents = self.agents.clone();
        let serial = "serial-1".into();
        let peer =
            PeerIdentity { agent: agent(1), serial, not_before: Timestamp::MIN, not_after: Timestamp::MAX };
        tokio::spawn(async move {
            if let Err(status) = agents
                .serve(
                    (peer, "10.0.0.1:1".into()),
                    ReceiverStream::new(input),
                    &out,
                    CancellationToken::new(),
                )
                .await
            {
                out.try_send(Err(status)).ok();
            }
        });
        Agent { up, down }
    }

    /// A session after its Welcome, which says what is taken of the samples.
    async fn welcomed(&self) -> (Agent, Ranges) {
        let mut stream = self.connect();
        stream.send(Up::Hello(hello())).await;
        let Ok(Down::Welcome(welcome)) = stream.next().await else { panic!("no Welcome") };
        assert_eq!(welcome.config.unwrap().instance, "web-1");
        let taken = ranges(&welcome.lanes, Lane::Samples).unwrap();
        (stream, taken)
    }
}

fn hello() -> pb::Hello {
    pb::Hello {
        protocol_version: PROTOCOL,
        agent_version: "0.1.0".into(),
        epoch: Uuid::from_u128(EPOCH).to_string(),
        boot_id: "boot-1".into(),
        clock: clock_now(),
        ..pb::Hello::default()
    }
}

fn ranges(lanes: &[pb::LaneAcknowledgement], lane: Lane) -> Option<Ranges> {
    let found = lanes.iter().find(|found| found.lane == lane.number())?;
    found.taken.clone()?.try_into().ok()
}

impl Agent {
    async fn send(&self, kind: Up) {
        self.up.send(Ok(pb::SessionRequest { kind: Some(kind) })).await.unwrap();
    }

    async fn next(&mut self) -> Result<Down, Status> {
        let message = self.down.recv().await.ok_or_else(|| Status::cancelled("the stream ended"))?;
        message.map(|response| response.kind.unwrap())
    }

    /// The next acknowledgement of a lane.
    async fn acknowledged(&mut self, lane: Lane) -> Ranges {
        loop {
            match self.next().await.unwrap() {
                Down::Acknowledgement(acknowledgement) => {
                    if let Some(taken) = ranges(&acknowledgement.lanes, lane) {
                        return taken;
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn table(&self, id: u64) {
        let name = pb::Label { name: "__name__".into(), value: "m".into() };
        let series = vec![pb::Series { labels: vec![name] }];
        self.send(Up::Table(pb::SeriesTable { table_id: id, series, boot_id: "boot-1".into() })).await;
    }
}

fn rows_of(table_id: u64, seqs: std::ops::RangeInclusive<u64>) -> Vec<pb::Row> {
    let (mut chain, first) = (Chain::new(1), *seqs.start());
    let row = |seq: u64| {
        let mut data = Vec::new();
        chain.encode(now(), 1_000_000 + seq, &[seq as f64], &mut data);
        pb::Row { seq, table_id, chain: first, index: (seq - first) as u32, data: data.into() }
    };
    seqs.map(row).collect()
}

// Cases: N12
#[tokio::test]
async fn rows_are_acknowledged_and_welcome_remembers_them() {
    let bench = bench().await;
    let (mut stream, taken) = bench.welcomed().await;
    assert_eq!(taken, Ranges::default());
    stream.table(1).await;
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=3) })).await;
    assert_eq!(stream.acknowledged(Lane::Samples).await, Ranges::up_to(3));
    let (_second, taken) = bench.welcomed().await;
    assert_eq!(taken, Ranges::up_to(3));
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Aborted, "the newer session fences the older");
}

// Cases: C8, C-D1
#[tokio::test]
async fn what_is_not_durable_is_not_acknowledged() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    stream.table(1).await;
    let kind = std::io::ErrorKind::Other;
    bench.disk.fail(Fault { operation: Some(Operation::SyncData), after: 0, kind, stays: true });
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=1) })).await;
    stream.next().await.expect_err("nothing but the end of the stream");
}

// Cases: H9
#[tokio::test]
async fn what_is_wrong_ends_the_session_with_its_reason() {
    let bench = bench().await;
    let skipped = rows_of(1, 1..=3).into_iter().filter(|row| row.seq != 2).collect();
    let mut garbage = rows_of(1, 1..=1);
    garbage[0].data = b"garbage".to_vec().into();
    let many = vec![rows_of(1, 1..=1).remove(0); ROWS_MAX + 1];
    for (rows, why) in [
        (rows_of(2, 1..=1), "names table 2"),
        (skipped, "no full row"),
        (garbage, "row 1"),
        (many, "at most 512"),
    ] {
        let (mut stream, _) = bench.welcomed().await;
        stream.table(1).await;
        stream.send(Up::Rows(pb::Rows { rows })).await;
        let status = loop {
            if let Err(status) = stream.next().await {
                break status;
            }
        };
        assert!(status.message().contains(why), "{status}");
    }
    let mut stream = bench.connect();
    stream.table(1).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument, "Hello comes first");
}

// Cases: N11
#[tokio::test]
async fn records_move_their_lanes_even_when_they_cannot_be_read() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    let gap = pb::Gap { lane: Lane::Samples.number(), first: 1, last: 7, ..Default::default() };
    let records = vec![
        pb::Record { seq: 1, kind: None },
        pb::Record { seq: 2, kind: Some(pb::record::Kind::Gap(gap)) },
    ];
    let message = pb::Records { lane: Lane::Outcomes.number(), records };
    stream.send(Up::Records(message.clone())).await;
    assert_eq!(stream.acknowledged(Lane::Outcomes).await, Ranges::up_to(2));
    assert_eq!(stream.acknowledged(Lane::Samples).await, Ranges::up_to(7), "the gap is acknowledged too");
    stream.send(Up::Records(message)).await;
    assert_eq!(stream.acknowledged(Lane::Outcomes).await, Ranges::up_to(2), "so is what comes again");
}

// Cases: C-A6
#[tokio::test]
async fn a_gap_of_another_epoch_moves_that_epochs_lane_and_not_this_ones() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    stream.table(1).await;
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=3) })).await;
    while stream.acknowledged(Lane::Samples).await != Ranges::up_to(3) {}
    let other = Epoch(Uuid::from_u128(99));
    let gap = pb::Gap {
        lane: Lane::Samples.number(),
        first: 1,
        last: 70,
        reason: pb::GapReason::Evicted.into(),
        epoch: other.to_string(),
    };
    let unreadable = pb::Gap { epoch: "no epoch".into(), ..gap.clone() };
    let records = [gap, unreadable].into_iter().zip(1..);
    let records =
        records.map(|(gap, seq)| pb::Record { seq, kind: Some(pb::record::Kind::Gap(gap)) }).collect();
    stream.send(Up::Records(pb::Records { lane: Lane::Outcomes.number(), records })).await;
    assert_eq!(stream.acknowledged(Lane::Outcomes).await, Ranges::up_to(2));
    let lanes = bench.agents.ledger.read(move |state| state.lane(agent(1), other, Lane::Samples).cloned());
    assert_eq!(lanes.await.unwrap(), Some(Ranges::up_to(70)));
    let rows = &bench.agents.rows;
    assert_eq!(rows.progress(agent(1), other).await.unwrap(), Ranges::up_to(70));
    let (_again, own) = bench.welcomed().await;
    assert_eq!(own, Ranges::up_to(3), "the spool on disk keeps its own numbers");
}

// Cases: I8, C-X2
#[tokio::test]
async fn a_revocation_ends_an_open_stream() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    let revoke = Command::RevokeCertificates { agent: agent(1), reason: "lost".into() };
    bench.agents.ledger.submit(revoke, Actor::System).await.unwrap().unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_host_that_was_told_silent_is_heard_again_at_its_next_heartbeat() {
    let bench = bench().await;
    let (stream, _) = bench.welcomed().await;
    let state = || bench.agents.ledger.read(|state| state.host(agent(1)).map(|host| host.state));
    let silent = Command::HostSilent { agent: agent(1), since: now() };
    bench.agents.ledger.submit(silent, Actor::System).await.unwrap().unwrap();
    bench.agents.presence.told(agent(1));
    assert_eq!(state().await.unwrap(), Some(HostState::Unreachable));
    let mut head = bench.agents.ledger.head();
    head.mark_unchanged();
    stream.send(Up::Heartbeat(pb::Heartbeat { clock: clock_now(), ..pb::Heartbeat::default() })).await;
    head.changed().await.unwrap();
    assert_eq!(state().await.unwrap(), Some(HostState::Online));
}

// Cases: C7, C-D5
#[tokio::test]
async fn without_room_rows_are_refused_explicitly_and_records_go_on() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    stream.table(1).await;
    bench.agents.room.close("the disk is full", now());
    let refused = |answer: Result<Down, Status>| match answer {
        Ok(Down::Throttle(pb::Throttle { retry_after_ms, reason, refused: true })) => {
            assert!(retry_after_ms >= 10_000 && reason.starts_with("RESOURCE_EXHAUSTED: "), "{reason}");
        }
        other => panic!("no refusal: {other:?}"),
    };
    refused(stream.next().await);
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=3) })).await;
    refused(stream.next().await);
    let records = vec![pb::Record { seq: 1, kind: None }];
    stream.send(Up::Records(pb::Records { lane: Lane::Outcomes.number(), records })).await;
    assert_eq!(stream.acknowledged(Lane::Outcomes).await, Ranges::up_to(1));
    let (mut second, taken) = bench.welcomed().await;
    assert_eq!(taken, Ranges::default(), "nothing of the rows was taken");
    refused(second.next().await);
    bench.agents.room.look(now());
    second.table(1).await;
    second.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=3) })).await;
    assert_eq!(second.acknowledged(Lane::Samples).await, Ranges::up_to(3));
}

// Cases: N11, N12, C-D1, C-D2
#[tokio::test]
async fn what_comes_again_in_a_newer_session_counts_once_and_is_acknowledged_again() {
    let bench = bench().await;
    let ended = pb::RunEnded {
        run_id: Uuid::from_u128(9).to_string(),
        job_name: "backup".into(),
        started: clock_now(),
        ended: clock_now(),
        result: Some((&tocsin_shared::run::RunResult::Succeeded).into()),
        ..pb::RunEnded::default()
    };
    let record = pb::Record { seq: 1, kind: Some(pb::record::Kind::RunEnded(ended)) };
    let outcome = pb::Records { lane: Lane::Outcomes.number(), records: vec![record] };
    let runs = || bench.agents.ledger.read(|state| state.runs_of_job(agent(1), "backup").count());
    let mut older: Option<Agent> = None;
    for session in 1..=3 {
        let (mut stream, _) = bench.welcomed().await;
        if let Some(mut older) = older.take() {
            let fenced = loop {
                if let Err(status) = older.next().await {
                    break status;
                }
            };
            assert_eq!(fenced.code(), Code::Aborted, "session {session} fences the one before");
            older.up.send(Ok(pb::SessionRequest { kind: None })).await.ok(); // Nobody reads it any more.
        }
        stream.table(1).await;
        stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=3) })).await;
        stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 2..=5) })).await;
        while stream.acknowledged(Lane::Samples).await != Ranges::up_to(5) {}
        stream.send(Up::Records(outcome.clone())).await;
        assert_eq!(stream.acknowledged(Lane::Outcomes).await, Ranges::up_to(1), "session {session}");
        assert_eq!(runs().await.unwrap(), 1, "session {session}");
        older = Some(stream);
    }
    let durable: Vec<u64> = bench.durable.try_iter().map(|row| row.samples_seq).collect();
    assert_eq!(durable.len(), 5, "each row is evaluated once: {durable:?}");
    assert_eq!(bench.agents.rows.duplicates(), 3 * 7 - 5);
}

// Cases: N4, N8
#[tokio::test]
async fn rows_are_a_sign_of_life_too() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    let silent = Command::HostSilent { agent: agent(1), since: now() };
    bench.agents.ledger.submit(silent, Actor::System).await.unwrap().unwrap();
    bench.agents.presence.told(agent(1));
    stream.table(1).await;
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=1) })).await;
    stream.acknowledged(Lane::Samples).await;
    let state = bench.agents.ledger.read(|state| state.host(agent(1)).map(|host| host.state));
    assert_eq!(state.await.unwrap(), Some(HostState::Online));
}

// Cases: N16, T4
#[tokio::test]
async fn a_heartbeat_that_lay_about_is_no_step_of_a_clock() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    let offset =
        || bench.agents.ledger.read(|state| state.host(agent(1)).and_then(|host| host.clock_offset_ms));
    let before = offset().await.unwrap();
    let old = pb::ClockReading {
        wall_ms: now().as_millis() - 40_000,
        boot_ms: 1_000_000 - 40_000,
        ..Default::default()
    };
    stream.send(Up::Heartbeat(pb::Heartbeat { clock: Some(old), ..pb::Heartbeat::default() })).await;
    stream.table(1).await;
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=1) })).await;
    stream.acknowledged(Lane::Samples).await;
    assert_eq!(offset().await.unwrap(), before, "what was under way for 40 s");
    // In time, and with a wall clock that was set back: boot time counts.
    let wrong =
        pb::ClockReading { wall_ms: now().as_millis() - 40_000, boot_ms: 1_000_100, ..Default::default() };
    stream.send(Up::Heartbeat(pb::Heartbeat { clock: Some(wrong), ..pb::Heartbeat::default() })).await;
    stream.send(Up::Records(pb::Records { lane: Lane::State.number(), records: Vec::new() })).await;
    stream.acknowledged(Lane::State).await;
    assert_eq!(offset().await.unwrap(), before, "its own wall clock alone moves nothing");
}

// Cases: H10
#[tokio::test]
async fn an_agent_over_its_quota_is_told_and_read_more_slowly() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    let heartbeat = || Up::Heartbeat(pb::Heartbeat { clock: clock_now(), ..pb::Heartbeat::default() });
    let begun = Instant::now();
    for _ in 0..2_050 {
        stream.send(heartbeat()).await;
    }
    let Ok(Down::Throttle(throttle)) = stream.next().await else { panic!("no throttle") };
    assert!(throttle.reason.contains("100 messages a second"), "{}", throttle.reason);
    assert!(Duration::from_millis(300) < begun.elapsed(), "70 over the burst take 0.7 s, less the queue");
    assert!(0 < bench.agents.quotas.counts()[0]);
}

// Cases: R13
#[tokio::test]
async fn series_over_the_quota_raise_an_alert_that_names_their_label() {
    let bench = bench().await;
    let (mut stream, _) = bench.welcomed().await;
    let table = |id: u64, from: usize, to: usize| {
        let label = |name: &str, value: String| pb::Label { name: name.into(), value };
        let series = (from..to).map(|n| pb::Series {
            labels: vec![label("__name__", "m".into()), label("request_id", n.to_string())],
        });
        Up::Table(pb::SeriesTable { table_id: id, series: series.collect(), boot_id: "boot-1".into() })
    };
    let alert = async || {
        let found = bench.agents.ledger.read(|state| state.active_alerts().next().cloned());
        found.await.unwrap()
    };
    let mut seq = 0;
    for (id, (from, to), want) in [(1, (0, 100), false), (2, (100, 5_200), true), (3, (0, 100), false)] {
        stream.send(table(id, from, to)).await;
        seq += 1;
        let mut data = Vec::new();
        Chain::new(to - from).encode(now(), 1_000_000 + seq, &vec![1.0; to - from], &mut data);
        let row = pb::Row { seq, table_id: id, chain: seq, index: 0, data: data.into() };
        stream.send(Up::Rows(pb::Rows { rows: vec![row] })).await;
        assert_eq!(
            stream.acknowledged(Lane::Samples).await,
            Ranges::up_to(seq),
            "rows are taken all the same"
        );
        let found = alert().await;
        assert_eq!(found.is_some(), want, "{id}: {found:?}");
        if let Some(found) = found {
            let summary = found.annotations.get("summary").unwrap().to_owned();
            assert!(summary.contains("100 new series") && summary.contains("request_id"), "{summary}");
            assert_eq!(found.labels.get("alertname"), Some("SeriesLimited"));
        }
    }
}

// Cases: H9, H11
#[tokio::test]
async fn hello_says_words_and_no_books() {
    let bench = bench().await;
    for (boot_id, agent_version) in [
        ("x".repeat(1 << 20), "1".to_owned()),
        ("b".into(), "\u{1b}[2J".into()),
        ("b".into(), "1".repeat(129)),
    ] {
        let mut stream = bench.connect();
        stream.send(Up::Hello(pb::Hello { boot_id, agent_version, ..hello() })).await;
        assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
}

// Cases: I1
#[test]
fn a_process_is_told_apart_by_its_name_its_boot_or_its_epoch() {
    let named = |process: &str, boot_id: &str, epoch: &str| {
        let (process, boot_id, epoch) = (process.into(), boot_id.into(), epoch.into());
        seen(&pb::Hello { process, boot_id, epoch, ..hello() }, "10.0.0.1:1".into()).process
    };
    let one = named("p", "b", "e");
    assert_eq!(one, named("p", "another", "e"), "the process alone");
    for (other, why) in [
        (named("q", "b", "e"), "another process"),
        (named("p", "b", "f"), "copied while it ran"),
        (named("", "b", "e"), "an older agent"),
    ] {
        assert_ne!(one, other, "{why}");
    }
    assert_ne!(named("", "b", "e"), named("", "c", "e"), "an older agent after a reboot");
    assert!(named(&"é".repeat(1_000), "b", "e").len() < 200, "what a hostile agent says is cut");
}

// Cases: I1, S19
#[tokio::test]
async fn nothing_is_taken_of_a_cloned_identity() {
    let bench = bench().await;
    let (mut before, _) = bench.welcomed().await;
    let cloned = Command::IdentityCloned { agent: agent(1), seen: "seen: one and two".into() };
    bench.agents.ledger.submit(cloned, Actor::System).await.unwrap().unwrap();
    let mut again = bench.connect();
    again.send(Up::Hello(hello())).await;
    let refused = again.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("cloned identity"), "{}", refused.message());
    // The session that was open is ended, whatever it still says.
    let ended = async { while before.next().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the open session ends");
    let state = bench
        .agents
        .ledger
        .read(|state| state.lane(agent(1), Epoch(Uuid::from_u128(EPOCH)), Lane::Outcomes).cloned());
    assert_eq!(state.await.unwrap(), None);
}

// Cases: N7, N19
#[tokio::test]
async fn a_hello_that_lay_about_is_outdone_by_a_heartbeat_in_time() {
    let bench = bench().await;
    let mut stream = bench.connect();
    let clock =
        Some(pb::ClockReading { wall_ms: now().as_millis() - 5_000, boot_ms: 995_000, ..Default::default() });
    stream.send(Up::Hello(pb::Hello { clock, ..hello() })).await;
    assert!(matches!(stream.next().await, Ok(Down::Welcome(_))));
    let right = clock_now().unwrap();
    stream
        .send(Up::Heartbeat(pb::Heartbeat { clock: Some(right.clone()), ..pb::Heartbeat::default() }))
        .await;
    stream.table(1).await;
    let mut rows = rows_of(1, 1..=1);
    let (mut chain, mut data) = (Chain::new(1), Vec::new());
    chain.encode(Timestamp::from_millis(right.wall_ms), right.boot_ms, &[1.0], &mut data);
    rows[0].data = data.into();
    stream.send(Up::Rows(pb::Rows { rows })).await;
    stream.acknowledged(Lane::Samples).await;
    // The writer acknowledges a row before it hands it to evaluation.
    let at = bench.durable.recv_timeout(Duration::from_secs(20)).unwrap().at;
    assert_eq!(at.as_millis(), right.wall_ms, "five seconds on the way are no five seconds ahead");
}

// Cases: N19, N20, C-D3, C-I4
#[tokio::test]
async fn an_outcome_and_a_new_row_wait_for_nobodys_backlog() {
    let bench = bench().await;
    let mut others = Vec::new();
    while let Ok(place) = tokio::time::timeout(Duration::from_millis(50), bench.agents.rows.place()).await {
        others.push(place.unwrap());
    }
    let (mut stream, _) = bench.welcomed().await;
    stream.table(1).await;
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 1..=9) })).await;
    let records = vec![pb::Record { seq: 1, kind: None }];
    stream.send(Up::Records(pb::Records { lane: Lane::Outcomes.number(), records })).await;
    assert_eq!(stream.acknowledged(Lane::Outcomes).await, Ranges::up_to(1));
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 20..=20) })).await;
    let taken = stream.acknowledged(Lane::Samples).await;
    assert!(taken.contains(20) && taken.floor() == 0, "the backlog waits: {taken:?}");
    // A table of the same number would give the waiting rows another meaning: it waits for them.
    stream.table(1).await;
    stream.send(Up::Rows(pb::Rows { rows: rows_of(1, 30..=30) })).await;
    others.pop();
    let all = |taken: Ranges| taken.contains_range(1, 9) && taken.contains(30);
    while !all(stream.acknowledged(Lane::Samples).await) {}
}

/// The host's record of what its agent trusts.
async fn bundle(bench: &Bench) -> Option<[u8; 32]> {
    bench.agents.ledger.read(|state| state.host(agent(1)).unwrap().bundle_sha256).await.unwrap()
}

/// What the agent hears next; not hearing it is a failure, not a wait.
async fn soon(stream: &mut Agent) -> Result<Down, Status> {
    tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("it hears nothing")
}

// Cases: I6
#[tokio::test]
async fn an_agent_is_told_whom_to_trust_until_it_has_said_that_it_does() {
    let bench = bench().await;
    let authorities = bench.agents.trust.authorities.clone();
    let found = Command::AuthorityFound(authorities.current().describe());
    bench.agents.ledger.submit(found, Actor::System).await.unwrap().unwrap();
    let heartbeat = |bundle: &[u8]| {
        let bundle_sha256 = bundle.to_vec();
        Up::Heartbeat(pb::Heartbeat { clock: clock_now(), bundle_sha256, ..pb::Heartbeat::default() })
    };
    let said = |bundle: &[u8]| Up::Hello(pb::Hello { bundle_sha256: bundle.to_vec(), ..hello() });
    let first = authorities.current();

    // One that trusts who it should is told nothing, and an older one that does not say neither.
    for hello in [said(&first.bundle_sha256), said(&[])] {
        let mut stream = bench.connect();
        let expected =
            if let Up::Hello(hello) = &hello { trust::reported(&hello.bundle_sha256) } else { None };
        stream.send(hello).await;
        assert!(matches!(soon(&mut stream).await, Ok(Down::Welcome(_))));
        assert_eq!(bundle(&bench).await, expected);
    }

    let mut stream = bench.connect();
    stream.send(said(&first.bundle_sha256)).await;
    assert!(matches!(soon(&mut stream).await, Ok(Down::Welcome(_))));
    let next = authorities.incoming(now()).unwrap();
    let begin = async |command| {
        bench.agents.ledger.submit(command, Actor::System).await.unwrap().unwrap();
        let records = bench.agents.ledger.read(|state| state.authorities().cloned().collect::<Vec<_>>());
        authorities.follow(&records.await.unwrap()).unwrap();
    };
    begin(Command::BeginRotation(next)).await;
    let Ok(Down::Trust(told)) = soon(&mut stream).await else { panic!("it was not told") };
    let both = authorities.current();
    assert_eq!((told.ca_pem, told.renew_within_ms), (both.bundle_pem.clone(), 0));
    assert_eq!(bundle(&bench).await, Some(first.bundle_sha256), "told is not reported");
    stream.send(heartbeat(&both.bundle_sha256)).await;
    // A renewal that was overtaken sets it back: it is told again.
    stream.send(heartbeat(&first.bundle_sha256)).await;
    assert!(matches!(soon(&mut stream).await, Ok(Down::Trust(_))));
    assert_eq!(bundle(&bench).await, Some(first.bundle_sha256));
    stream.send(heartbeat(&both.bundle_sha256)).await;
    let heard = async { while bundle(&bench).await != Some(both.bundle_sha256) {} };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("its report is never heard");
    begin(Command::SwitchRotation { strand: Some(0), overlap: Duration::ZERO }).await;
    let Ok(Down::Trust(told)) = soon(&mut stream).await else { panic!("it was not asked to renew") };
    assert_eq!(told.renew_within_ms, 60_000);
    assert_eq!(bundle(&bench).await, Some(both.bundle_sha256), "what it said last");
    // Whoever comes back and has not renewed is asked, too.
    let mut stream = bench.connect();
    stream.send(said(&both.bundle_sha256)).await;
    assert!(matches!(soon(&mut stream).await, Ok(Down::Welcome(_))));
    assert!(matches!(soon(&mut stream).await, Ok(Down::Trust(told)) if told.renew_within_ms > 0));
}
