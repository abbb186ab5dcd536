//! ⇄ One session over one connection: tonic's messages on one side, `session`'s decisions on the other.
//!
//! One task owns it all. It waits for whichever comes first: an answer, a new row, news of the spool, or the moment
//! that `session` named; then it does what `session` says until there is nothing to do.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message as _;
use tocsin_proto::convert::{Number as _, labels_out};
use tocsin_proto::pb;
use tocsin_proto::pb::agent_service_client::AgentServiceClient;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::secret::Sha256;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::Ended;
use super::backlog::Request;
use super::records;
use super::session::{Action, PROGRESS_TIMEOUT, Session, SessionError};
use crate::explain::one_line;
use crate::keep::life::{Tip, Tips};
use crate::keep::{Keeper, Standing};
use crate::rows::LiveRow;
use crate::spool::SpoolError;
use crate::tick::Reading;
use crate::trust::Trust;

/// The wire's version.
const PROTOCOL: u32 = 1;
/// For the answer to Hello: a collector that has a thousand of them to answer takes its time.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages between us and HTTP/2: four batches, a table before each, and heartbeats. What `session` lets out fits.
const UP_QUEUE: usize = 16;
/// New rows that wait while something else is being sent; more find their way through the spool.
const LIVE_QUEUE: usize = 4;
/// Tables that the collector surely still has. It keeps eight, and forgets the one that was sent first.
const TABLES_KNOWN: usize = 4;
/// The largest answer: acknowledgements of three lanes with 64 ranges each are far below.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What the agent says of itself, besides the time.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub agent_version: String,
    pub boot_id: String,
    pub facts: Labels,
    pub interval: Duration,
    /// Drawn at the agent's start, 32 hex digits.
    pub process: String,
}

/// Streams until the connection is of no use any more, and says why.
pub(super) async fn session(
    channel: Channel,
    keeper: &Keeper,
    (greeting, trust): (&Greeting, &Trust),
    connected: &AtomicBool,
) -> Result<Infallible, Ended> {
    let keeper = &keeper.current();
    let (up, requests) = mpsc::channel(UP_QUEUE);
    let told = trust.kept();
    up.try_send(request(Up::Hello(hello(keeper, greeting, told)))).ok(); // The queue is empty.
    let mut client = AgentServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let opened = async {
        let mut down =
            client.session(ReceiverStream::new(requests)).await.map_err(Ended::Status)?.into_inner();
        let welcome = match down.message().await.map_err(Ended::Status)?.and_then(|answer| answer.kind) {
            Some(Down::Welcome(welcome)) => welcome,
            Some(_) => return Err(Ended::Protocol("its first message is no Welcome".into())),
            None => return Err(Ended::Closed),
        };
        Ok((down, welcome))
    };
    let opened = timeout(WELCOME_TIMEOUT, opened).await;
    let (down, welcome) = opened.map_err(|_| Ended::Protocol("no Welcome within 30 s".into()))??;
    let mut shell = Shell::welcomed(keeper, up, welcome, (trust, told)).await?;
    connected.store(true, Ordering::Relaxed);
    shell.run(down).await
}

fn hello(keeper: &Keeper, greeting: &Greeting, trusted: Option<Sha256>) -> pb::Hello {
    let Greeting { agent_version, boot_id, facts, interval, process } = greeting;
    pb::Hello {
        protocol_version: PROTOCOL,
        agent_version: agent_version.clone(),
        epoch: keeper.epoch().to_string(),
        boot_id: boot_id.clone(),
        clock: Some(records::clock(Reading::now())),
        facts: labels_out(facts),
        interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
        // A spool that is back after it was gone is no copy of itself.
        process: format!("{process}-{}", keeper.moves()),
        bundle_sha256: trusted.map(Vec::from).unwrap_or_default(),
    }
}

fn request(kind: Up) -> pb::SessionRequest {
    pb::SessionRequest { kind: Some(kind) }
}

pub(super) fn lanes_in(lanes: Vec<pb::LaneAcknowledgement>) -> Result<Vec<(Lane, Ranges)>, Ended> {
    let lane =
        |pb::LaneAcknowledgement { lane, taken, .. }| -> Result<_, tocsin_proto::convert::InvalidMessage> {
            Ok((Lane::from_number(lane)?, taken.unwrap_or_default().try_into()?))
        };
    lanes.into_iter().map(lane).collect::<Result<_, _>>().map_err(|error| Ended::Protocol(error.to_string()))
}

/// The highest row and records that the collector has, where it says so.
fn tips_in(lanes: &[pb::LaneAcknowledgement]) -> Tips {
    Lane::ALL.map(|lane| {
        let said = lanes.iter().find(|said| said.lane == lane.number());
        said.map(|said| Tip { seq: said.tip, fingerprint: said.tip_fingerprint }).unwrap_or_default()
    })
}

/// A session's sockets and queues.
struct Shell<'a> {
    keeper: &'a Keeper,
    up: mpsc::Sender<pb::SessionRequest>,
    live: mpsc::Receiver<LiveRow>,
    standing: watch::Receiver<Standing>,
    session: Session,
    begun: Instant,
    /// Tables that were sent here, in order.
    tables: VecDeque<u64>,
    /// The last new row that was sent: table, chain, index. None until a chain begins.
    live_at: Option<(u64, u64, u32)>,
    /// The last row of the backlog that was sent, its number, chain and index.
    backlog_at: Option<(u64, u64, u32)>,
    /// Whether rows are being refused: that is said once.
    throttled: bool,
    trust: &'a Trust,
    /// Which authorities the collector was told are trusted here.
    told: Option<Sha256>,
}

impl<'a> Shell<'a> {
    async fn welcomed(
        keeper: &'a Keeper,
        up: mpsc::Sender<pb::SessionRequest>,
        welcome: pb::Welcome,
        (trust, told): (&'a Trust, Option<Sha256>),
    ) -> Result<Self, Ended> {
        let pb::Welcome { protocol_version, session, lanes, config } = welcome;
        if protocol_version != PROTOCOL {
            return Err(Ended::Protocol(format!(
                "it speaks version {protocol_version}, we speak {PROTOCOL}"
            )));
        }
        let tips = tips_in(&lanes);
        let lanes = lanes_in(lanes)?;
        if let Some(why) = keeper.compare(lanes.clone(), tips).await?? {
            return Err(Ended::OtherLife(why));
        }
        keeper.acknowledge(lanes).await??;
        let (live_rows, live) = mpsc::channel(LIVE_QUEUE);
        let settled = keeper.attach(live_rows).await??;
        let pb::SessionConfig { heartbeat_ms, instance } = config.unwrap_or_default();
        tracing::info!(session, instance, "connected to the collector");
        let mut decisions = Session::new(session, settled, Duration::ZERO);
        decisions.set_heartbeat(heartbeat_ms, Duration::ZERO);
        Ok(Self {
            keeper,
            up,
            live,
            standing: keeper.standing(),
            session: decisions,
            begun: Instant::now(),
            tables: VecDeque::new(),
            live_at: None,
            backlog_at: None,
            throttled: false,
            trust,
            told,
        })
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn run(&mut self, mut down: Streaming<pb::SessionResponse>) -> Result<Infallible, Ended> {
        loop {
            let until = self.act().await?;
            tokio::select! {
                biased;
                answer = down.message() => match answer.map_err(Ended::Status)? {
                    Some(answer) => self.answer(answer).await?,
                    None => return Err(Ended::Closed),
                },
                Some(row) = self.live.recv() => self.live(row).await?,
                changed = self.standing.changed() => changed.map_err(|_| crate::keep::Stopping)?,
                () = sleep_until(self.begun + until) => {}
            }
        }
    }

    /// Does what there is to do, new rows first; returns when there is something again.
    async fn act(&mut self) -> Result<Duration, Ended> {
        loop {
            while let Ok(row) = self.live.try_recv() {
                self.live(row).await?;
            }
            let Standing { durable, epoch, .. } = *self.standing.borrow_and_update();
            if epoch.is_some_and(|epoch| epoch != self.keeper.epoch()) {
                return Err(Ended::Spool(SpoolError::Moved));
            }
            match self.session.action(durable, self.now())? {
                Action::Wait { until } => return Ok(until),
                Action::Heartbeat => self.heartbeat(),
                Action::Records { lane, first, bytes } => self.records(lane, first, bytes).await?,
                Action::Fill { first, last, bytes } => self.fill(first, last, bytes).await?,
            }
        }
    }

    fn heartbeat(&mut self) {
        // A link so slow that the queue fills needs no further message: what is under way is a sign of life, too.
        if self.up.capacity() > UP_QUEUE / 2 {
            let waiting = self.standing.borrow().waiting.to_vec();
            let kept = self.trust.kept();
            let changed = kept.filter(|_| kept != self.told);
            let bundle_sha256 = changed.map(Vec::from).unwrap_or_default();
            let clock = Some(records::clock(Reading::now()));
            let heartbeat = pb::Heartbeat { clock, waiting, bundle_sha256 };
            if self.up.try_send(request(Up::Heartbeat(heartbeat))).is_ok() {
                self.told = kept;
            }
        }
        self.session.sent_heartbeat(self.now());
    }

    async fn records(&mut self, lane: Lane, first: u64, bytes: usize) -> Result<(), Ended> {
        let found = self.keeper.records(lane, first, bytes).await??;
        let numbers: Vec<u64> = found.records.iter().map(|record| record.seq).collect();
        // Where nothing was found, all up to the end that was looked at is settled.
        let end = self.standing.borrow().durable[lane.index()] + 1;
        let next = if numbers.is_empty() { end } else { found.next };
        if !numbers.is_empty() {
            self.send(Up::Records(pb::Records { lane: lane.number(), records: found.records })).await?;
        }
        self.session.sent_records(lane, &numbers, next, found.bytes, self.now());
        Ok(())
    }

    async fn fill(&mut self, first: u64, last: u64, bytes: usize) -> Result<(), Ended> {
        let after =
            self.backlog_at.filter(|(seq, ..)| seq + 1 == first).map(|(_, chain, index)| (chain, index));
        let known = self.tables.iter().copied().collect();
        let filled = self.keeper.fill(Request { first, last, bytes, after, known }).await??;
        let numbers: Vec<u64> = filled.rows.iter().map(|row| row.seq).collect();
        if let Some(row) = filled.rows.last() {
            self.backlog_at = Some((row.seq, row.chain, row.index));
        }
        if let Some(table) = filled.table {
            self.table(table).await?;
        }
        let rows = pb::Rows { rows: filled.rows };
        let bytes = rows.encoded_len();
        if !numbers.is_empty() {
            self.send(Up::Rows(rows)).await?;
        }
        self.session.sent_fill(first, filled.next, &numbers, bytes, self.now());
        Ok(())
    }

    /// Keeps whom to trust from now on and says so. What cannot be kept is not reported, and the session goes on.
    fn trust(&mut self, ca_pem: &str, renew_within_ms: u64) {
        if let Err(error) = self.trust.keep(ca_pem) {
            tracing::error!(error = one_line(&error), "the collector's new authorities are not kept");
            return;
        }
        if self.trust.kept() != self.told {
            tracing::info!("the collector's certificate authorities have changed; they are kept");
            self.heartbeat();
        }
        if renew_within_ms > 0 {
            self.trust.ask(Duration::from_millis(renew_within_ms), rand::random());
        }
    }

    /// Sends a new row, if the collector can read it without any row that it has not.
    async fn live(&mut self, live: LiveRow) -> Result<(), Ended> {
        let LiveRow { seq, row, table } = live;
        let known = self.tables.contains(&table.id);
        let follows =
            known && row.index > 0 && self.live_at == Some((row.table_id, row.chain, row.index - 1));
        if !(row.index == 0 || follows) || !self.session.takes_live(seq, self.now()) {
            // It goes with the backlog. Its followers cannot be read without it, so the next one begins anew.
            self.live_at = None;
            return Ok(self.keeper.end_chain().await?);
        }
        if !known {
            self.table(table.to_wire()).await?;
        }
        self.live_at = Some((row.table_id, row.chain, row.index));
        let rows = pb::Rows { rows: vec![row.to_wire(seq)] };
        let bytes = rows.encoded_len();
        self.send(Up::Rows(rows)).await?;
        self.session.sent_live(seq, bytes, self.now());
        Ok(())
    }

    async fn table(&mut self, table: pb::SeriesTable) -> Result<(), Ended> {
        let id = table.table_id;
        if self.live_at.is_some_and(|(of, ..)| of == id) {
            self.live_at = None; // A table that is sent again ends the chains over it.
            self.keeper.end_chain().await?;
        }
        self.tables.retain(|known| *known != id);
        self.tables.push_back(id);
        if self.tables.len() > TABLES_KNOWN {
            self.tables.pop_front();
        }
        self.session.sent_table(table.encoded_len());
        self.send(Up::Table(table)).await
    }

    async fn send(&mut self, kind: Up) -> Result<(), Ended> {
        // A closed queue means that the call has ended, and `message` says why. A collector that takes nothing is as
        // good as dead, even if it still answers pings.
        let sent = timeout(PROGRESS_TIMEOUT, self.up.send(request(kind))).await;
        sent.map(drop).map_err(|_| SessionError::NoProgress.into())
    }

    async fn answer(&mut self, answer: pb::SessionResponse) -> Result<(), Ended> {
        let now = self.now();
        match answer.kind {
            Some(Down::Acknowledgement(pb::Acknowledgement { session, lanes })) => {
                let lanes = lanes_in(lanes)?;
                self.session.check(session, &lanes)?;
                self.keeper.acknowledge(lanes.clone()).await??;
                self.throttled &= !lanes.iter().any(|(lane, _)| *lane == Lane::Samples);
                self.session.acknowledged(&lanes, self.now());
            }
            Some(Down::Throttle(pb::Throttle { retry_after_ms, reason, refused })) => {
                if refused {
                    self.session.refused(now);
                    self.backlog_at = None; // What comes next begins a chain of its own.
                }
                if !std::mem::replace(&mut self.throttled, refused) || !refused {
                    tracing::warn!(
                        retry_after_ms,
                        reason,
                        "the collector asks for fewer rows; they are kept"
                    );
                }
                self.session.throttled(Duration::from_millis(retry_after_ms.into()), now);
            }
            Some(Down::Config(pb::SessionConfig { heartbeat_ms, instance: _ })) => {
                self.session.set_heartbeat(heartbeat_ms, now);
            }
            Some(Down::Trust(pb::Trust { ca_pem, renew_within_ms })) => self.trust(&ca_pem, renew_within_ms),
            Some(Down::Welcome(_)) => return Err(Ended::Protocol("a second Welcome".into())),
            None => {} // Of a newer collector; what it says beyond our version can be left.
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
