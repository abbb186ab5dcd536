//! Bytes from the network: an agent's messages, a collector's answers, certificates' requests, TLS, HTTP/2.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use tocsin_collector::identity::ca::{AGENT_LIFETIME, Authority};
use tocsin_collector::listen::certificate::ServerCertificate;
use tocsin_collector::listen::frames::Frames;
use tocsin_collector::listen::tls::{TlsMin, front_tls};
use tocsin_proto::convert::labels_out;
use tocsin_proto::pb;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::chain::Chain;
use tocsin_shared::identity::AgentId;
use tocsin_shared::labels::Labels;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use crate::raw;

/// When everything here happens.
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(super) fn ingest_batch(data: &[u8]) {
    tocsin_collector::ingest::fuzz::messages(data);
}

pub(super) fn agent_from_server(data: &[u8]) {
    tocsin_agent::stream::fuzz::answers(data);
}

fn with_lengths(messages: &[Vec<u8>]) -> Vec<u8> {
    let one = |message: &Vec<u8>| {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&length[..], message].concat()
    };
    messages.iter().flat_map(one).collect()
}

pub(super) fn session_seeds() -> Vec<Vec<u8>> {
    let clock = Some(pb::ClockReading { wall_ms: NOW.as_millis(), boot_ms: 1_000_000, ..Default::default() });
    let up = |kind: Up| pb::SessionRequest { kind: Some(kind) }.encode_to_vec();
    let series = [Labels::series("a", &[("b", "c")]), Labels::series("d", &[])];
    let series = series.iter().map(|labels| pb::Series { labels: labels_out(labels) }).collect();
    let table = up(Up::Table(pb::SeriesTable { table_id: 1, series, boot_id: "boot".into() }));
    let mut chain = Chain::new(2);
    let mut row = |seq: u64| {
        let mut data = Vec::new();
        chain.encode(
            Timestamp::from_millis(NOW.as_millis() + seq as i64),
            seq,
            &[seq as f64, 0.1],
            &mut data,
        );
        pb::Row { seq, table_id: 1, chain: 1, index: seq as u32 - 1, data: data.into() }
    };
    let rows = up(Up::Rows(pb::Rows { rows: vec![row(1), row(2), row(3)] }));
    let started = pb::RunStarted {
        run_id: Uuid::from_u128(1).to_string(),
        job_name: "backup".into(),
        started: clock.clone(),
        ..pb::RunStarted::default()
    };
    let gap = pb::Gap { lane: 3, first: 1, last: 5, reason: 1, epoch: String::new() };
    let event = pb::HostEvent { at: clock.clone(), what: "boot".into(), step_ms: 0 };
    use pb::record::Kind;
    let kinds = [Kind::RunStarted(started), Kind::Gap(gap), Kind::HostEvent(event)];
    let records =
        kinds.into_iter().zip(1..).map(|(kind, seq)| pb::Record { seq, kind: Some(kind) }).collect();
    let records = up(Up::Records(pb::Records { lane: 1, records }));
    let hello =
        up(Up::Hello(pb::Hello { protocol_version: 1, clock: clock.clone(), ..pb::Hello::default() }));
    let heartbeat =
        up(Up::Heartbeat(pb::Heartbeat { clock, waiting: vec![1, 2, 3], bundle_sha256: vec![7; 32] }));
    vec![
        with_lengths(&[hello, table.clone(), rows.clone(), records.clone(), heartbeat.clone()]),
        with_lengths(&[table.clone(), rows.clone(), rows]),
        with_lengths(&[records, table]),
        with_lengths(&[heartbeat]),
    ]
}

pub(super) fn answer_seeds() -> Vec<Vec<u8>> {
    let down = |kind: Down| pb::SessionResponse { kind: Some(kind) }.encode_to_vec();
    let acknowledged = |session: u64, floor: u64, first: u64, last: u64| {
        let above = vec![pb::SeqRange { first, last }];
        let taken = Some(pb::Ranges { floor, above });
        let lanes = vec![pb::LaneAcknowledgement { lane: 3, taken, ..Default::default() }];
        down(Down::Acknowledgement(pb::Acknowledgement { session, lanes }))
    };
    let throttle =
        down(Down::Throttle(pb::Throttle { retry_after_ms: 5_000, reason: "slow".into(), refused: false }));
    let trust = down(Down::Trust(pb::Trust { ca_pem: "-----BEGIN".into(), renew_within_ms: 1 }));
    let config = down(Down::Config(pb::SessionConfig { heartbeat_ms: 5_000, instance: "web-1".into() }));
    vec![
        with_lengths(&[acknowledged(7, 12, 20, 30), throttle.clone(), acknowledged(7, 40, 0, 0)]),
        with_lengths(&[acknowledged(7, 41, 50, 60)]),
        with_lengths(&[acknowledged(6, 12, 20, 30)]),
        with_lengths(&[config, trust, throttle, acknowledged(7, 11, 13, 14)]),
    ]
}

pub(super) fn envelope_seeds() -> Vec<Vec<u8>> {
    let mut seed = b"TJR1".to_vec();
    let payload = [&[1][..], &[7; 16], &[0; 40]].concat();
    seed.extend(u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
    seed.extend([0; 4]);
    seed.extend(&payload);
    vec![seed, b"TJR1\0\0\0\0\0\0\0\0".to_vec()]
}

struct Site {
    authority: Authority,
    tls: Arc<rustls::ServerConfig>,
    _dir: tempfile::TempDir,
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::create_or_load(&dir.path().join("ca"), NOW).expect("an authority");
        let issued = authority.issue_server(&["localhost".to_owned()], NOW).expect("a certificate");
        let certificate = ServerCertificate::issued(&issued, NOW).expect("a good certificate");
        let tls = front_tls(certificate, TlsMin::V1_2).expect("a configuration");
        Site { authority, tls, _dir: dir }
    })
}

/// A request for a certificate; of it nothing but the key goes into what is issued.
pub(super) fn csr_parse(data: &[u8]) {
    let agent = AgentId(Uuid::from_u128(7));
    if let Ok(issued) = site().authority.issue_agent(data, agent, 1, NOW, AGENT_LIFETIME) {
        assert!(issued.not_after <= NOW.plus(AGENT_LIFETIME), "it lives longer than it may");
        assert!(issued.pem.len() < 4_096, "{} bytes of certificate", issued.pem.len());
    }
}

pub(super) fn csr_seeds() -> Vec<Vec<u8>> {
    let request = |names: &[&str]| {
        let key = KeyPair::generate().expect("a key");
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let params = CertificateParams::new(names).expect("names");
        params.serialize_request(&key).expect("a request").der().to_vec()
    };
    vec![request(&[]), request(&["web-1", "root.example.com"])]
}

/// What a stranger says in a handshake.
pub(super) fn tls_accept(data: &[u8]) {
    let mut server = rustls::ServerConnection::new(site().tls.clone()).expect("a configuration that works");
    let mut rest = data;
    while !rest.is_empty() && server.wants_read() {
        let Ok(read) = server.read_tls(&mut rest) else { return };
        if read == 0 || server.process_new_packets().is_err() {
            return;
        }
        let mut out = Vec::new();
        while server.wants_write() && server.write_tls(&mut out).is_ok() {}
        assert!(out.len() < 64 << 10, "{} bytes are answered to {}", out.len(), data.len());
    }
    assert!(server.is_handshaking(), "a stranger without a key is in");
}

pub(super) fn tls_seeds() -> Vec<Vec<u8>> {
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let config = tocsin_shared::tls::pinned([0; 32]).expect("a configuration");
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("bytes in memory");
    vec![hello, vec![22, 3, 1, 0, 4, 1, 0, 0, 0], vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]]
}

/// Frames in any pieces: the same verdict as in one piece.
pub(super) fn h2_frames(data: &[u8]) {
    let begun = Instant::now();
    let (mut whole, mut pieces) = (Frames::new(begun, begun), Frames::new(begun, begun));
    let verdict = whole.read(data, begun);
    let in_pieces = data.chunks(1 + data.len() % 13).try_for_each(|piece| pieces.read(piece, begun));
    assert_eq!(verdict, in_pieces);
    let later = begun + Duration::from_secs(3_600);
    whole.wrote(usize::MAX);
    whole.read(data, later).ok();
    whole.owed_since();
}

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let call = raw::frame(raw::HEADERS, raw::END_HEADERS, 1, &raw::call("/a/b"));
    vec![
        [call.clone(), raw::frame(raw::DATA, 0, 1, &[0; 100]), raw::frame(raw::PING, 0, 0, &[0; 8])].concat(),
        raw::frame(raw::SETTINGS, 0, 0, &[]).repeat(310),
        [raw::frame(raw::HEADERS, 0, 1, &[1; 20]), raw::frame(raw::CONTINUATION, 4, 1, &[1; 20]), call]
            .concat(),
    ]
}
