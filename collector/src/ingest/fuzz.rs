//! What an agent says, for fuzzing: from the wire's bytes to rows and commands, without a ledger behind it.

use prost::Message as _;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::{pb, wire};
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::clock::Reading;
use super::rows::{Mapping, SessionRows};
use super::{limits, records};
use crate::jobs::Place;

const LATEST: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Takes messages, each with its length in two bytes before it, as one session would.
pub fn messages(mut data: &[u8]) {
    let reading = Reading { wall: Timestamp::from_millis(1_790_000_000_000), boot_ms: 1_000_000 };
    let mapping = Mapping { boot_id: "boot".into(), offset_ms: 1_789_999_000_000, reading, before: None };
    let mut rows = SessionRows::default();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        data = rest;
        if wire::check_session_request(message).is_err() {
            return;
        }
        let Ok(pb::SessionRequest { kind: Some(kind) }) = pb::SessionRequest::decode(message) else { return };
        if take(&mut rows, &mapping, kind).is_none() {
            return;
        }
    }
}

/// `None` where a session would end.
fn take(rows: &mut SessionRows, mapping: &Mapping, message: Up) -> Option<()> {
    match message {
        Up::Hello(hello) => {
            let facts = limits::facts(hello.facts);
            assert!(facts.iter().len() <= 64);
            limits::word("the boot's id", &hello.boot_id).ok()
        }
        Up::Table(table) => rows.table(table, |_| None, |series| series.into()).ok().map(drop),
        Up::Rows(pb::Rows { rows: sent }) => {
            assert!(sent.len() <= wire::ROWS_MAX);
            sent.into_iter().try_for_each(|row| {
                let taken = rows.row(row, mapping, LATEST).ok()?;
                assert_eq!(taken.values.len(), taken.table.series.len());
                assert!(taken.at <= LATEST, "a row of the future");
                for labels in taken.table.series.iter() {
                    let own = ["instance", "job", "env"].iter().all(|name| labels.get(name).is_none());
                    assert!(own && !labels.metric().is_empty(), "{labels} speaks for another host");
                }
                Some(())
            })
        }
        Up::Records(pb::Records { lane, records: sent }) => {
            assert!(sent.len() <= wire::RECORDS_MAX);
            let lane = if lane == 2 { Lane::State } else { Lane::Outcomes };
            for record in sent {
                records::samples_gap(Epoch(Uuid::nil()), &record);
                let place = Place { epoch: Epoch(Uuid::nil()), lane, seq: record.seq, content: 0 };
                if let Err(why) = records::command(AgentId(Uuid::nil()), place, record, mapping, LATEST) {
                    assert!(why.len() < 4_096, "a reason of {} bytes", why.len());
                }
            }
            Some(())
        }
        Up::Heartbeat(_) => Some(()),
    }
}
