//! One message of each kind that agents, people and paging tools send or get, with every field set.

use tocsin_proto::convert::Number as _;
use tocsin_proto::pb;
use tocsin_proto::pb::record::Kind as RecordKind;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_proto::pb::subscribe_response::Kind as Item;
use tocsin_shared::lane::Lane;

const AT_MS: i64 = 1_795_412_135_120;
const UUID: &str = "6f1c2b54-8f0a-4c6e-9d3b-2f7f0a1b2c3d";
const EPOCH: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

pub(crate) fn up(kind: Up) -> pb::SessionRequest {
    pb::SessionRequest { kind: Some(kind) }
}

pub(crate) fn down(kind: Down) -> pb::SessionResponse {
    pb::SessionResponse { kind: Some(kind) }
}

pub(crate) fn item(kind: Item) -> pb::SubscribeResponse {
    pb::SubscribeResponse { cursor: "c1".into(), kind: Some(kind) }
}

fn clock() -> pb::ClockReading {
    pb::ClockReading { wall_ms: AT_MS, boot_ms: 3_600_250, ..Default::default() }
}

fn clock_of_boot(after_ms: u32) -> pb::ClockReading {
    let (wall_ms, boot_ms) = (AT_MS + i64::from(after_ms), 3_600_250 + u64::from(after_ms));
    pb::ClockReading { wall_ms, boot_ms, boot_id: UUID.into() }
}

fn label(name: &str, value: &str) -> pb::Label {
    pb::Label { name: name.into(), value: value.into() }
}

pub(crate) fn hello() -> Up {
    Up::Hello(pb::Hello {
        protocol_version: 1,
        agent_version: "0.1.0".into(),
        epoch: EPOCH.into(),
        boot_id: UUID.into(),
        clock: Some(clock()),
        facts: vec![label("os", "Debian 12")],
        interval_ms: 10_000,
        process: String::new(),
        bundle_sha256: Vec::new(),
    })
}

/// As agents say it since they tell their process.
pub(crate) fn hello_of_process() -> Up {
    match hello() {
        Up::Hello(hello) => Up::Hello(pb::Hello { process: EPOCH.into(), ..hello }),
        other => other,
    }
}

pub(crate) fn recover_request() -> pb::RecoverRequest {
    pb::RecoverRequest {
        agent: UUID.into(),
        nonce: "00ff".repeat(16),
        proof: vec![0x30, 0x81],
        csr: vec![0x30, 0x82],
    }
}

pub(crate) fn table() -> Up {
    let series = vec![
        pb::Series { labels: vec![label("__name__", "node_cpu_seconds_total"), label("cpu", "0")] },
        pb::Series { labels: vec![label("__name__", "node_load1")] },
    ];
    Up::Table(pb::SeriesTable { table_id: 7, series, boot_id: UUID.into() })
}

/// A full row and the row after it, of two series.
pub(crate) fn rows() -> Up {
    use tocsin_shared::{chain::Chain, time::Timestamp};
    let mut chain = Chain::new(2);
    let mut row = |index: u32, values: [f64; 2]| {
        let mut data = Vec::new();
        let step = u64::from(index) * 10_000;
        chain.encode(Timestamp::from_millis(AT_MS + step as i64), 3_600_250 + step, &values, &mut data);
        pb::Row { seq: 41 + u64::from(index), table_id: 7, chain: 41, index, data: data.into() }
    };
    Up::Rows(pb::Rows { rows: vec![row(0, [1234.56, 0.25]), row(1, [1244.5, f64::NAN])] })
}

pub(crate) fn records(seq: u64, kind: RecordKind) -> Up {
    let lane = if matches!(kind, RecordKind::HostEvent(_)) { Lane::State } else { Lane::Outcomes };
    Up::Records(pb::Records { lane: lane.number(), records: vec![pb::Record { seq, kind: Some(kind) }] })
}

pub(crate) fn run_started() -> RecordKind {
    RecordKind::RunStarted(pb::RunStarted {
        run_id: UUID.into(),
        job_name: "nightly-backup".into(),
        started: Some(clock()),
        pid: 4_711,
        uid: 1_000,
        user: "backup".into(),
        command: "/usr/local/bin/backup --all".into(),
    })
}

pub(crate) fn run_ended(result: pb::run_result::Kind) -> RecordKind {
    RecordKind::RunEnded(pb::RunEnded {
        run_id: UUID.into(),
        job_name: "nightly-backup".into(),
        started: Some(clock()),
        ended: Some(pb::ClockReading { wall_ms: AT_MS + 1_500, boot_ms: 3_601_750, ..Default::default() }),
        duration_ms: 1_500,
        uid: 1_000,
        user: "backup".into(),
        command: "/usr/local/bin/backup --all".into(),
        result: Some(pb::RunResult { kind: Some(result) }),
        output_tail: "disk full\n".into(),
        output_bytes: 10,
        alike: 0,
        output_dropped: false,
    })
}

/// A record that says its boot, and stands for others.
pub(crate) fn run_ended_of_boot(result: pb::run_result::Kind) -> RecordKind {
    let RecordKind::RunEnded(run) = run_ended(result) else { unreachable!("it is the end of a run") };
    let (started, ended) = (Some(clock_of_boot(0)), Some(clock_of_boot(1_500)));
    let output_tail = String::new();
    RecordKind::RunEnded(pb::RunEnded {
        started,
        ended,
        output_tail,
        alike: 411,
        output_dropped: true,
        ..run
    })
}

pub(crate) fn gap() -> RecordKind {
    let reason = pb::GapReason::Evicted as i32;
    RecordKind::Gap(pb::Gap {
        lane: Lane::Samples.number(),
        first: 10,
        last: 99,
        reason,
        epoch: String::new(),
    })
}

/// Of another epoch than the record's own.
pub(crate) fn gap_of_epoch() -> RecordKind {
    let RecordKind::Gap(gap) = gap() else { unreachable!("it is a gap") };
    RecordKind::Gap(pb::Gap { epoch: "0123456789abcdef".repeat(2), ..gap })
}

pub(crate) fn host_event() -> RecordKind {
    RecordKind::HostEvent(pb::HostEvent { at: Some(clock()), what: "clock_step".into(), step_ms: -3_600_000 })
}

pub(crate) fn heartbeat() -> Up {
    let waiting = vec![0, 1, 360];
    Up::Heartbeat(pb::Heartbeat { clock: Some(clock()), waiting, ..pb::Heartbeat::default() })
}

/// With the authorities that are trusted now.
pub(crate) fn heartbeat_with_bundle() -> Up {
    match heartbeat() {
        Up::Heartbeat(beat) => Up::Heartbeat(pb::Heartbeat { bundle_sha256: (0..32).collect(), ..beat }),
        other => other,
    }
}

/// With the authorities that are trusted.
pub(crate) fn hello_with_bundle() -> Up {
    match hello() {
        Up::Hello(hello) => Up::Hello(pb::Hello { bundle_sha256: (0..32).collect(), ..hello }),
        other => other,
    }
}

pub(crate) fn trust() -> Down {
    let ca_pem = "-----BEGIN CERTIFICATE-----\n".into();
    Down::Trust(pb::Trust { ca_pem, renew_within_ms: 8_640_000 })
}

fn lanes() -> Vec<pb::LaneAcknowledgement> {
    let taken = pb::Ranges { floor: 41, above: vec![pb::SeqRange { first: 50, last: 60 }] };
    vec![pb::LaneAcknowledgement {
        lane: Lane::Samples.number(),
        taken: Some(taken),
        tip: 0,
        tip_fingerprint: 0,
    }]
}

pub(crate) fn config() -> pb::SessionConfig {
    pb::SessionConfig { heartbeat_ms: 5_000, instance: "db-1".into() }
}

pub(crate) fn welcome() -> Down {
    Down::Welcome(pb::Welcome { protocol_version: 1, session: 3, lanes: lanes(), config: Some(config()) })
}

/// With the highest row and its fingerprint.
pub(crate) fn welcome_with_tip() -> Down {
    let tip = |lane| pb::LaneAcknowledgement { tip: 60, tip_fingerprint: 0xdead_beef, ..lane };
    let lanes = lanes().into_iter().map(tip).collect();
    Down::Welcome(pb::Welcome { protocol_version: 1, session: 3, lanes, config: Some(config()) })
}

pub(crate) fn acknowledgement() -> Down {
    Down::Acknowledgement(pb::Acknowledgement { session: 3, lanes: lanes() })
}

pub(crate) fn throttle() -> Down {
    Down::Throttle(pb::Throttle { retry_after_ms: 2_000, reason: "the disk is full".into(), refused: false })
}

pub(crate) fn enroll_request() -> pb::EnrollRequest {
    pb::EnrollRequest {
        token_id: (0..8).collect(),
        token_secret: (100..132).collect(),
        csr: vec![0x30, 0x82],
        hostname: "db-1".into(),
        agent_version: "0.1.0".into(),
    }
}

pub(crate) fn enroll_response() -> pb::EnrollResponse {
    pb::EnrollResponse {
        agent: UUID.into(),
        certificate_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        agents_endpoint: ":7641".into(),
        cluster_id: UUID.into(),
        instance: "db-1".into(),
        env: pb::Env::Prod as i32,
    }
}

pub(crate) fn subscribe(from: pb::subscribe_request::From) -> pb::SubscribeRequest {
    pb::SubscribeRequest {
        from: Some(from),
        consumer: "pager".into(),
        kinds: vec!["incident.".into()],
        accept_filter_change: false,
    }
}

pub(crate) fn consumer() -> pb::Consumer {
    pb::Consumer {
        name: "pager".into(),
        owner: "pager".into(),
        acked_seq: 17,
        created_at_ms: AT_MS,
        acked_at_ms: AT_MS + 1,
        filter: None,
    }
}

pub(crate) fn range_response() -> pb::RangeResponse {
    let points =
        vec![pb::Point { at_ms: AT_MS, value: 0.25 }, pb::Point { at_ms: AT_MS + 1_000, value: -0.0 }];
    let series = vec![pb::PointSeries { labels: vec![label("instance", "db-1")], points }];
    pb::RangeResponse { series, ..Default::default() }
}

pub(crate) fn query_update(update: pb::QueryUpdate) -> pb::SubscribeQueryResponse {
    pb::SubscribeQueryResponse {
        at_ms: AT_MS,
        result_type: "vector".into(),
        series: range_response().series,
        warnings: vec!["w".into()],
        infos: vec!["i".into()],
        update: update.into(),
        gone: vec![pb::SeriesLabels { labels: vec![label("instance", "db-2")] }],
        more: update == pb::QueryUpdate::Changes,
    }
}

/// All that requests of the query service got since their first lines.
pub(crate) fn paged() -> (pb::SeriesRequest, pb::LabelsRequest, pb::LabelValuesRequest, pb::ListHostsRequest)
{
    let (selectors, page_token) = (vec!["up".to_owned()], "a0".to_owned());
    let series = pb::SeriesRequest {
        selector: "up".into(),
        start_ms: 1,
        end_ms: 2,
        selectors: selectors.clone(),
        page_size: 3,
        page_token: page_token.clone(),
    };
    let labels = pb::LabelsRequest {
        selectors: selectors.clone(),
        start_ms: 1,
        end_ms: 2,
        page_size: 3,
        page_token: page_token.clone(),
    };
    let values = pb::LabelValuesRequest {
        name: "job".into(),
        selectors,
        start_ms: 1,
        end_ms: 2,
        page_size: 3,
        page_token: page_token.clone(),
    };
    let hosts = pb::ListHostsRequest {
        include_retired: true,
        envs: vec![pb::Env::Prod as i32],
        states: vec![pb::HostState::Online as i32],
        name_contains: "web".into(),
        labels: vec![label("team", "db")],
        page_size: 3,
        page_token,
    };
    (series, labels, values, hosts)
}

pub(crate) fn instant_response() -> pb::InstantResponse {
    pb::InstantResponse {
        at_ms: AT_MS,
        result_type: "vector".into(),
        series: range_response().series,
        text: "text".into(),
        ..Default::default()
    }
}

pub(crate) fn journal_stream() -> pb::JournalStream {
    pb::JournalStream {
        stream: 5,
        agent: (0..16).collect(),
        epoch: (16..32).collect(),
        table_id: 7,
        series: vec![pb::JournalSeries { labels: vec![label("__name__", "node_load1")] }],
        packed: vec![0x28, 0xb5],
    }
}
