//! The wire does not change by accident: one message of each kind encodes to the bytes it always had and decodes
//! from them to the same message; and every record that goes over the wire comes back as it went.
//!
//! `golden/v1.hex` has a line for each message: its name, then its bytes. Lines of released versions never change;
//! a new message gets a new line, which the failing test prints.

#[path = "golden/draw.rs"]
mod draw;
#[path = "golden/messages.rs"]
mod messages;

use std::collections::BTreeMap;

use draw::{Draw, SUBJECTS};
use messages::*;
use proptest::prelude::*;
use prost::Message;
use tocsin_proto::pb;
use tocsin_proto::pb::run_result::{
    CouldNotStart, Failed, Interrupted, Killed, Kind as Ended, Running, Succeeded,
};
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_proto::pb::subscribe_request::From as Since;
use tocsin_proto::pb::subscribe_response::Kind as Item;
use tocsin_shared::event::{Event, Subject};

const GOLDEN: &str = include_str!("../golden/v1.hex");

type Check = Box<dyn Fn(&[u8]) -> bool>;

/// A message as bytes, and whether bytes decode to it.
struct Sample {
    bytes: Vec<u8>,
    decodes: Check,
}

fn sample<M: Message + Default + PartialEq + 'static>(message: M) -> Sample {
    let bytes = message.encode_to_vec();
    let decodes = move |bytes: &[u8]| M::decode(bytes).is_ok_and(|read| read == message);
    Sample { bytes, decodes: Box::new(decodes) }
}

fn killed(core_dumped: bool, out_of_memory: bool) -> Killed {
    Killed { signal: 9, core_dumped, out_of_memory }
}

fn samples() -> BTreeMap<String, Sample> {
    let mut all: Vec<(&str, Sample)> = vec![
        (
            "acknowledge_request",
            sample(pb::AcknowledgeRequest { number: 12, note: "mine".into(), expected_rev: 3 }),
        ),
        ("ack_request", sample(pb::AckRequest { consumer: "pager".into(), cursor: "c1".into() })),
        ("ack_response", sample(pb::AckResponse { consumer: Some(consumer()) })),
        (
            "create_token_request",
            sample(pb::CreateTokenRequest {
                env: pb::Env::Uat as i32,
                labels: vec![],
                host_pattern: "db-*".into(),
                ttl_ms: 3_600_000,
            }),
        ),
        ("enroll_request", sample(enroll_request())),
        ("enroll_response", sample(enroll_response())),
        ("instant_request", sample(pb::InstantRequest { query: "node_load1 > 1".into(), at_ms: 5 })),
        ("instant_response", sample(instant_response())),
        (
            "journal_row",
            sample(pb::JournalRow { stream: 5, seq: 41, chain: 41, index: 0, at_ms: -1, data: vec![1, 2] }),
        ),
        ("journal_stream", sample(journal_stream())),
        (
            "range_request",
            sample(pb::RangeRequest { query: "up".into(), start_ms: 1, end_ms: 2, step_ms: 1 }),
        ),
        ("range_response", sample(range_response())),
        (
            "range_response.noted",
            sample(pb::RangeResponse {
                warnings: vec!["w".into()],
                infos: vec!["i".into()],
                ..range_response()
            }),
        ),
        (
            "instant_response.noted",
            sample(pb::InstantResponse {
                warnings: vec!["w".into()],
                infos: vec!["i".into()],
                ..instant_response()
            }),
        ),
        (
            "metadata_request",
            sample(pb::MetadataRequest { metric: "up".into(), page_size: 3, page_token: "a0".into() }),
        ),
        (
            "metadata_response",
            sample(pb::MetadataResponse {
                metrics: vec![pb::MetricMetadata {
                    metric: "up".into(),
                    r#type: "gauge".into(),
                    help: "h".into(),
                    unit: "u".into(),
                }],
                next_page_token: "a0".into(),
            }),
        ),
        ("series_request", sample(paged().0)),
        ("labels_request", sample(paged().1)),
        ("label_values_request", sample(paged().2)),
        ("list_hosts_request", sample(paged().3)),
        (
            "series_response",
            sample(pb::SeriesResponse {
                series: query_update(pb::QueryUpdate::Whole).gone,
                next_page_token: "a0".into(),
            }),
        ),
        (
            "labels_response",
            sample(pb::LabelsResponse { names: vec!["job".into()], next_page_token: "a0".into() }),
        ),
        (
            "label_values_response",
            sample(pb::LabelValuesResponse { values: vec!["node".into()], next_page_token: "a0".into() }),
        ),
        (
            "list_hosts_response",
            sample(pb::ListHostsResponse { hosts: vec![], next_page_token: "a0".into() }),
        ),
        ("subscribe_query_response.whole", sample(query_update(pb::QueryUpdate::Whole))),
        ("subscribe_query_response.changes", sample(query_update(pb::QueryUpdate::Changes))),
        ("subscribe_query_response.unchanged", sample(query_update(pb::QueryUpdate::Unchanged))),
        ("challenge_response", sample(pb::ChallengeResponse { nonce: "00ff".repeat(16) })),
        ("recover_request", sample(recover_request())),
        ("recover_response", sample(pb::RecoverResponse { certificate_pem: "a".into(), ca_pem: "b".into() })),
        ("renew_request", sample(pb::RenewRequest { csr: vec![0x30, 0x82] })),
        ("renew_response", sample(pb::RenewResponse { certificate_pem: "a".into(), ca_pem: "b".into() })),
        (
            "resolve_request",
            sample(pb::ResolveRequest {
                number: 12,
                code: "fixed".into(),
                text: "done".into(),
                expected_rev: 4,
            }),
        ),
        ("session_request.heartbeat", sample(up(heartbeat()))),
        ("session_request.heartbeat_with_bundle", sample(up(heartbeat_with_bundle()))),
        ("session_request.hello_with_bundle", sample(up(hello_with_bundle()))),
        ("session_request.hello", sample(up(hello()))),
        ("session_request.hello_of_process", sample(up(hello_of_process()))),
        ("session_request.records.gap", sample(up(records(4, gap())))),
        ("session_request.records.gap_of_epoch", sample(up(records(4, gap_of_epoch())))),
        ("session_request.records.host_event", sample(up(records(1, host_event())))),
        (
            "session_request.records.run_could_not_start",
            sample(up(records(
                3,
                run_ended(Ended::CouldNotStart(CouldNotStart { errno: 2, message: "no such file".into() })),
            ))),
        ),
        (
            "session_request.records.run_failed",
            sample(up(records(3, run_ended(Ended::Failed(Failed { exit_code: 3 }))))),
        ),
        (
            "session_request.records.run_killed",
            sample(up(records(3, run_ended(Ended::Killed(killed(true, false)))))),
        ),
        (
            "session_request.records.run_interrupted",
            sample(up(records(
                3,
                run_ended_of_boot(Ended::Interrupted(Interrupted { reason: "the host was rebooted".into() })),
            ))),
        ),
        (
            "session_request.records.run_out_of_memory",
            sample(up(records(3, run_ended_of_boot(Ended::Killed(killed(false, true)))))),
        ),
        (
            "session_request.records.run_running",
            sample(up(records(3, run_ended(Ended::Running(Running {}))))),
        ),
        ("session_request.records.run_started", sample(up(records(2, run_started())))),
        (
            "session_request.records.run_succeeded",
            sample(up(records(3, run_ended(Ended::Succeeded(Succeeded {}))))),
        ),
        ("session_request.rows", sample(up(rows()))),
        ("session_request.table", sample(up(table()))),
        ("session_response.acknowledgement", sample(down(acknowledgement()))),
        ("session_response.config", sample(down(Down::Config(config())))),
        ("session_response.throttle", sample(down(throttle()))),
        ("session_response.trust", sample(down(trust()))),
        ("session_response.welcome", sample(down(welcome()))),
        ("session_response.welcome_with_tip", sample(down(welcome_with_tip()))),
        ("subscribe_request.acked", sample(subscribe(Since::Acked(true)))),
        ("subscribe_request.cursor", sample(subscribe(Since::Cursor("c1".into())))),
        ("subscribe_request.earliest", sample(subscribe(Since::Earliest(true)))),
        ("subscribe_request.now", sample(subscribe(Since::Now(true)))),
        ("subscribe_request.snapshot", sample(subscribe(Since::Snapshot(true)))),
        (
            "subscribe_response.gap",
            sample(item(Item::Gap(pb::FeedGap { first_missing_seq: 1, last_missing_seq: 9 }))),
        ),
        (
            "subscribe_response.heartbeat",
            sample(item(Item::Heartbeat(pb::FeedHeartbeat { at_ms: 1, head_seq: 9 }))),
        ),
        (
            "subscribe_response.snapshot_begin",
            sample(item(Item::SnapshotBegin(pb::SnapshotBegin { as_of_seq: 9 }))),
        ),
        (
            "subscribe_response.snapshot_end",
            sample(item(Item::SnapshotEnd(pb::SnapshotEnd { as_of_seq: 9 }))),
        ),
    ];
    let subjects = [
        "alert",
        "incident",
        "run",
        "host",
        "token",
        "certificate",
        "principal",
        "consumer",
        "lane",
        "sealed",
        "hole",
        "loss",
        "lane_with_contents",
        "consumer_with_filter",
    ];
    let events: Vec<(String, Sample)> = subjects
        .iter()
        .zip(0..)
        .map(|(name, kind)| (format!("event.{name}"), sample(pb::Event::from(&Draw(kind).event(kind)))))
        .collect();
    let authority = ("event.authority".to_owned(), sample(pb::Event::from(&Draw(11).event(11))));
    let events = events.into_iter().chain([authority]);
    all.drain(..).map(|(name, sample)| (name.to_owned(), sample)).chain(events).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("golden/v1.hex holds hex digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn messages_have_the_bytes_they_always_had() {
    let golden: BTreeMap<&str, &str> = GOLDEN.lines().filter_map(|line| line.split_once(' ')).collect();
    let samples = samples();
    let unlike: Vec<String> = samples
        .iter()
        .map(|(name, sample)| (name, hex(&sample.bytes)))
        .filter(|(name, hex)| golden.get(name.as_str()) != Some(&hex.as_str()))
        .map(|(name, hex)| format!("{name} {hex}"))
        .collect();
    assert!(
        unlike.is_empty(),
        "the wire has changed; new lines of golden/v1.hex would be:\n{}",
        unlike.join("\n")
    );
    let gone: Vec<&&str> = golden.keys().filter(|name| !samples.contains_key(**name)).collect();
    assert!(gone.is_empty(), "golden/v1.hex has lines that nothing checks: {gone:?}");
}

#[test]
fn golden_bytes_are_the_messages() {
    let samples = samples();
    for (name, line) in GOLDEN.lines().filter_map(|line| line.split_once(' ')) {
        assert!((samples[name].decodes)(&bytes(line)), "{name} decodes to another message");
    }
}

#[test]
fn every_message_of_an_agents_stream_has_a_golden_line() {
    let text = include_str!("../tocsin/v1/agent.proto");
    for (message, prefix) in
        [("SessionRequest", "session_request."), ("SessionResponse", "session_response.")]
    {
        let body = text.split_once(&format!("message {message} {{")).unwrap().1.split_once("\n}").unwrap().0;
        for field in body.lines().filter_map(|line| line.trim().split_once(" = ")) {
            let name = field.0.rsplit_once(' ').unwrap().1;
            let known = GOLDEN.lines().any(|line| line.starts_with(&format!("{prefix}{name}")));
            assert!(known, "{message}.{name} has no golden line");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_come_back_as_they_went(seed in any::<u64>(), kind in 0..SUBJECTS) {
        let event = Draw(seed).event(kind);
        let sent = pb::Event::from(&event).encode_to_vec();
        let back = Event::try_from(pb::Event::decode(sent.as_slice()).unwrap());
        prop_assert_eq!(back, Ok(event));
    }

    #[test]
    fn what_is_missing_is_named_and_never_a_panic(seed in any::<u64>(), kind in 0..SUBJECTS, at in any::<usize>(), byte in any::<u8>()) {
        let mut sent = pb::Event::from(&Draw(seed).event(kind)).encode_to_vec();
        let at = at % sent.len();
        sent[at] = byte;
        if let Some(Err(error)) = pb::Event::decode(sent.as_slice()).ok().map(Event::try_from) {
            prop_assert!(!error.field.is_empty());
        }
    }
}

#[test]
fn an_event_without_its_parts_names_the_part() {
    let whole = pb::Event::from(&Draw(7).event(0));
    for (event, field) in [
        (pb::Event { actor: None, ..whole.clone() }, "event.actor"),
        (pb::Event { subject: None, ..whole.clone() }, "event.subject"),
        (pb::Event { kind: "alert.sung".into(), ..whole.clone() }, "event.kind"),
    ] {
        assert_eq!(Event::try_from(event).unwrap_err().field, field);
    }
    assert!(matches!(Event::try_from(whole).unwrap().subject, Subject::Alert(_)));
}
