//! What a collector says, for fuzzing: a hostile one must not make an agent forget what it has not delivered.

use std::time::Duration;

use prost::Message as _;
use tocsin_proto::pb;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;

use super::client::lanes_in;
use super::session::{Action, Session};

/// What was sent in the session that is played.
const SENT: u64 = 40;
const NUMBER: u64 = 7;

/// Plays answers, each with its length in two bytes before it, to a session that sent 40 rows and no records.
pub fn answers(mut data: &[u8]) {
    let floors = [Ranges::default(), Ranges::default(), Ranges::up_to(10)];
    let mut session = Session::new(NUMBER, floors, Duration::ZERO);
    let seqs: Vec<u64> = (11..=SENT).collect();
    session.sent_fill(11, SENT + 1, &seqs, 1_000, Duration::ZERO);
    let mut now = Duration::ZERO;
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        (data, now) = (rest, now + Duration::from_millis(100));
        let Ok(message) = pb::SessionResponse::decode(message) else { return };
        if !answer(&mut session, message, now) {
            return;
        }
        match session.action([5, 5, 100], now) {
            Ok(Action::Fill { first, last, bytes }) => assert!(SENT < first && last <= 100 && 0 < bytes),
            Ok(Action::Wait { until }) => {
                assert!(until < now + Duration::from_secs(3_600), "it would never act")
            }
            Ok(Action::Records { first, .. }) => assert!((1..=5).contains(&first)),
            Ok(Action::Heartbeat) => session.sent_heartbeat(now),
            Err(_) => return,
        }
    }
}

/// Whether the session goes on. What it lets through acknowledges nothing that was not sent.
fn answer(session: &mut Session, message: pb::SessionResponse, now: Duration) -> bool {
    match message.kind {
        Some(Down::Acknowledgement(pb::Acknowledgement { session: number, lanes })) => {
            let Ok(lanes) = lanes_in(lanes) else { return false };
            if session.check(number, &lanes).is_err() {
                return false;
            }
            assert_eq!(number, NUMBER, "another session's");
            for (lane, taken) in &lanes {
                let sent = if *lane == Lane::Samples { SENT } else { 0 };
                assert!(taken.highest() <= sent, "{lane} was acknowledged up to {}", taken.highest());
            }
            session.acknowledged(&lanes, now);
        }
        Some(Down::Throttle(throttle)) => {
            session.throttled(Duration::from_millis(throttle.retry_after_ms.into()), now);
        }
        Some(Down::Config(config)) => session.set_heartbeat(config.heartbeat_ms, now),
        Some(Down::Welcome(_)) => return false,
        Some(Down::Trust(_)) | None => {}
    }
    true
}
