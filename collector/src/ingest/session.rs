//! One agent's stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tocsin_proto::convert::{Number, epoch_in};
use tocsin_proto::pb;
use tocsin_proto::pb::agent_service_server::AgentService;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::event::Actor;
use tocsin_shared::host::HostState;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::backlog::Backlog;
use super::clock::{self, Observed, Reading};
use super::delay::{Delays, Worth};
use super::presence::Presence;
use super::processes::{Entry, Seen};
use super::quota::{Quotas, Refused, Throttled};
use super::rows::{Mapping, SessionRows};
use super::skew::Skews;
use super::{PROTOCOL, limits};
use crate::clock::{judging, now, trouble};
use crate::identity::peer::PeerIdentity;
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::journal::rows::Rows;
use crate::listen::connection::Peer;
use crate::room::{RETRY_AFTER, Room};
use crate::state::command::Heard;
use crate::state::{Command, Refusal, State, recovery};

use super::opening::Opening;
use super::trust::{self, Telling, Trust};

/// Messages that wait for a slow agent; acknowledgements coalesce before they get here.
const DOWN_QUEUE: usize = 16;
/// How often an agent is told that it is over a quota.
const THROTTLE_EVERY: Duration = Duration::from_secs(5);
/// How long a connection may be open before it says who it is in the protocol.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Between the moments at which two sessions are asked to try rows again: a thousand of them come within 5 s.
const RETRY_SPREAD: Duration = Duration::from_millis(5);
/// How often an open stream's certificate is looked at, beside every change of the registry.
const RECHECK: Duration = Duration::from_secs(5);

/// The fact that says which machine a host was made as: its id, hashed.
const MACHINE: &str = "machine_id_hash";

/// The agents' service.
#[derive(Clone)]
pub struct Agents {
    pub ledger: Ledger,
    pub rows: Rows,
    pub presence: Arc<Presence>,
    pub quotas: Arc<Quotas>,
    pub skews: Arc<Skews>,
    pub sessions: Arc<AtomicU64>,
    pub room: Arc<Room>,
    pub opening: Opening,
    pub trust: Telling,
    pub stop: CancellationToken,
}

type Responses = Pin<Box<dyn Stream<Item = Result<pb::SessionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = Responses;

    async fn session(
        &self,
        request: Request<Streaming<pb::SessionRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.and_then(|peer| Some((peer.certificate.clone()?, peer.addr.to_string())));
        let (peer, address) =
            peer.ok_or_else(|| Status::unauthenticated("this connection shows no agent's certificate"))?;
        let arrived = request.extensions().get::<Peer>().map(Peer::arrival).unwrap_or_default();
        let (down, responses) = mpsc::channel(DOWN_QUEUE);
        let (agents, input) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = agents.serve((peer, address), input, &down, arrived).await {
                down.try_send(Err(status)).ok(); // An agent that left or does not read learns it by the stream's end.
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

pub(super) fn unavailable(_: Stopping) -> Status {
    Status::unavailable("the collector is stopping")
}

impl Agents {
    /// Serves one stream: whatever carries the messages, and whoever the certificate says is there.
    async fn serve<S>(
        &self,
        (peer, address): (PeerIdentity, String),
        mut input: S,
        down: &Sender,
        arrived: CancellationToken,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<pb::SessionRequest, Status>> + Unpin,
    {
        let _leaves = arrived.clone().drop_guard(); // Who is sent away holds no place either.
        let first = tokio::time::timeout(HELLO_WITHIN, input.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))?;
        let Some(Up::Hello(hello)) = first.transpose()?.and_then(|message| message.kind) else {
            return Err(Status::invalid_argument("the first message of a session is Hello"));
        };
        self.quotas.session(peer.agent, Instant::now()).map_err(|wait| {
            let wait = wait.as_secs() + 1;
            Status::resource_exhausted(format!("this agent opens sessions too often; try again in {wait} s"))
        })?;
        let admitted = self.opening.admit().await?;
        let end = self.stop.child_token();
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell_apart(peer.agent, seen(&hello, address)).await?;
        let mut session = Session::open(self, &peer, number, hello).await?;
        self.presence.begin(peer.agent, number, end.clone(), Instant::now(), now());
        tracing::info!(agent = %peer.agent, session = number, "agent connected");
        let served = async {
            session.welcome(self, down).await?;
            drop(admitted);
            arrived.cancel();
            session.run(self, input, down).await
        };
        // A session ends wherever it waits: an agent that does not read cannot keep a revoked one open.
        let served = tokio::select! {
            biased;
            () = end.cancelled() => {
                Err(Status::aborted("the session ended: a newer one began, or the collector is stopping"))
            }
            revoked = self.revoked(&peer) => Err(revoked),
            served = served => served,
        };
        self.presence.end(peer.agent, number);
        if !self.presence.of(peer.agent).1 {
            self.skews.forget(peer.agent);
        }
        tracing::info!(agent = %peer.agent, session = number, end = %served.as_ref().err().map_or("closed", Status::message), "agent disconnected");
        served
    }

    /// Lets no process in that is one of two with the same identity, nor any while that is not settled.
    async fn tell_apart(&self, agent: AgentId, seen: Seen) -> Result<(), Status> {
        let entry = self.presence.enters(agent, seen, Instant::now());
        if let Entry::Cloned { seen } = &entry {
            tracing::error!(%agent, seen, "two hosts show one identity: nothing is taken of either");
            submit(self, Command::IdentityCloned { agent, seen: seen.clone() }).await?;
        }
        let cloned = self.ledger.read(move |state| {
            let host = state.host(agent).filter(|_| recovery::is_cloned(state, agent))?;
            Some(recovery::cloned_words(&host.instance))
        });
        if let Some(words) = cloned.await.map_err(unavailable)? {
            self.presence.cut(agent);
            return Err(Status::failed_precondition(words));
        }
        match entry {
            Entry::Enters | Entry::Cloned { .. } => Ok(()),
            Entry::Superseded => Err(Status::aborted("another process of this agent came after this one")),
        }
    }

    /// Waits until no certificate of the agent is let in any more: a renewal does not end the stream, a revocation does.
    async fn revoked(&self, peer: &PeerIdentity) -> Status {
        let mut registry = self.ledger.registry_changes();
        while self.ledger.registry().keeps(peer.agent, judging()) {
            if let Ok(Err(_)) = tokio::time::timeout(RECHECK, registry.changed()).await {
                return unavailable(Stopping);
            }
        }
        Status::permission_denied("the certificate is revoked or has run out")
    }
}

struct Session {
    number: u64,
    agent: AgentId,
    epoch: Epoch,
    instance: String,
    /// What Hello said, for a host that is heard again.
    hello: Heard,
    trust: Trust,
    mapping: Mapping,
    rows: SessionRows,
    /// Rows that were kept while the host was away, and wait for their place.
    backlog: Backlog,
    acknowledge: watch::Sender<Ranges>,
    opened_at: Instant,
    observed_at: Instant,
    delays: Delays,
    throttled_at: Option<Instant>,
    /// Whether the last table had series over the quota; unknown before the first.
    is_limited: Option<bool>,
    /// Whether the offset comes from this session's Hello alone.
    guessed: bool,
}

impl Session {
    async fn open(
        agents: &Agents,
        peer: &PeerIdentity,
        number: u64,
        hello: pb::Hello,
    ) -> Result<Self, Status> {
        let bundle_sha256 = trust::reported(&hello.bundle_sha256);
        let pb::Hello { protocol_version, agent_version, epoch, boot_id, clock, facts, .. } = hello;
        if protocol_version != PROTOCOL {
            let why = format!(
                "this collector speaks version {PROTOCOL} of the protocol, the agent {protocol_version}"
            );
            return Err(Status::failed_precondition(why));
        }
        for (what, text) in [("the boot's id", &boot_id), ("the agent's version", &agent_version)] {
            limits::word(what, text).map_err(Status::invalid_argument)?;
        }
        let epoch =
            epoch_in("hello.epoch", &epoch).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let reading = reading_in(clock).ok_or_else(|| Status::invalid_argument("hello without a clock"))?;
        let agent = peer.agent;
        let facts = limits::facts(facts);
        let hello = Heard { agent, boot_id, agent_version, facts, clock_offset_ms: None, bundle_sha256 };
        let (mapping, instance, guessed) = enter(agents, &hello, reading).await?;
        let samples = agents.rows.progress(agent, epoch).await.map_err(unavailable)?;
        Ok(Self {
            number,
            agent,
            epoch,
            instance,
            hello,
            trust: Trust::of(&agents.trust, agent, bundle_sha256),
            mapping,
            rows: SessionRows::default(),
            backlog: Backlog::default(),
            acknowledge: watch::Sender::new(samples),
            opened_at: Instant::now(),
            observed_at: Instant::now(),
            delays: Delays::new(Duration::ZERO, reading.boot_ms),
            throttled_at: None,
            is_limited: None,
            guessed,
        })
    }

    async fn welcome(&self, agents: &Agents, down: &Sender) -> Result<(), Status> {
        let samples = self.acknowledge.borrow().clone();
        let mut lanes = self.records_taken(agents).await?;
        self.name_tips(agents, &mut lanes).await?;
        let tip = agents.rows.tip(self.agent, self.epoch).await.map_err(unavailable)?;
        let (tip, tip_fingerprint) = tip.map(|tip| (tip.seq, tip.fingerprint)).unwrap_or_default();
        lanes.push(pb::LaneAcknowledgement { tip, tip_fingerprint, ..lane_out(Lane::Samples, &samples) });
        let heartbeat = agents.presence.heartbeat();
        let welcome = pb::Welcome {
            protocol_version: PROTOCOL,
            session: self.number,
            lanes,
            config: Some(pb::SessionConfig {
                heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
                instance: self.instance.clone(),
            }),
        };
        send(down, Down::Welcome(welcome)).await
    }

    async fn run<S>(&mut self, agents: &Agents, mut input: S, down: &Sender) -> Result<(), Status>
    where
        S: Stream<Item = Result<pb::SessionRequest, Status>> + Unpin,
    {
        let mut acknowledged = self.acknowledge.subscribe();
        let mut gate = agents.room.gate();
        let mut closings = 0;
        self.trust.tell(agents, down).await?;
        // While it is set, nothing is read: what the agent sends meanwhile waits in its own queues.
        let mut paused: Option<tokio::time::Instant> = None;
        // A table that takes the place of others waits until the rows before it are decoded, and all else with it.
        let mut table = None;
        loop {
            if let Some(table) = table.take_if(|_| self.backlog.is_empty()) {
                self.message(agents, down, table).await?;
            }
            let reads = paused.is_none() && table.is_none() && !self.backlog.is_full();
            let closed = gate.borrow_and_update().clone();
            if closed.is_closed() && closings != closed.closings {
                closings = closed.closings;
                self.refuse(agents, down).await?;
            }
            tokio::select! {
                biased;
                changed = acknowledged.changed() => {
                    changed.map_err(|_| unavailable(Stopping))?;
                    let taken = lane_out(Lane::Samples, &acknowledged.borrow_and_update());
                    self.acknowledge_lanes(down, vec![taken]).await?;
                }
                changed = gate.changed() => changed.map_err(|_| unavailable(Stopping))?,
                changed = self.trust.changed() => {
                    changed?;
                    self.trust.tell(agents, down).await?;
                }
                () = tokio::time::sleep_until(paused.unwrap_or_else(tokio::time::Instant::now)), if paused.is_some() => {
                    paused = None;
                }
                kept = self.backlog.next(&agents.rows) => {
                    let (kept, place) = kept.map_err(unavailable)?;
                    self.hand_over_kept(agents, down, kept, place).await?;
                }
                message = input.next(), if reads => match message.transpose()? {
                    Some(pb::SessionRequest { kind: Some(kind) }) => {
                        let throttled = self.charge(agents, &kind);
                        self.hello.bundle_sha256 = self.trust.hear(agents, &kind, down).await?;
                        match kind {
                            Up::Table(_) if !self.backlog.is_empty() => table = Some(kind),
                            kind => self.message(agents, down, kind).await?,
                        }
                        if let Some(throttled) = throttled {
                            paused = Some(tokio::time::Instant::now() + throttled.wait);
                            self.throttle(down, throttled).await?;
                        }
                    }
                    Some(_) => return Err(Status::invalid_argument("an empty message")),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Counts a message against the agent's quotas.
    fn charge(&self, agents: &Agents, message: &Up) -> Option<Throttled> {
        let (bytes, outcomes) = match message {
            Up::Rows(rows) => (rows.rows.iter().map(|row| row.data.len()).sum(), 0),
            Up::Table(table) => (table.encoded_len(), 0),
            Up::Records(records) => (records.encoded_len(), records.records.len()),
            Up::Hello(_) | Up::Heartbeat(_) => (0, 0),
        };
        agents.quotas.message(self.agent, bytes, outcomes, Instant::now())
    }

    /// Tells the agent, now and then, that it is read more slowly; or that it is not read any more.
    async fn throttle(&mut self, down: &Sender, throttled: Throttled) -> Result<(), Status> {
        let Throttled { wait, limited, ends } = throttled;
        let reason = format!("the quota of {}: {}", limited.as_str(), limited.advice());
        if ends {
            return Err(Status::resource_exhausted(format!("{reason}; try again in a minute")));
        }
        if self.throttled_at.is_some_and(|at| at.elapsed() < THROTTLE_EVERY) {
            return Ok(());
        }
        self.throttled_at = Some(Instant::now());
        let retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        send(down, Down::Throttle(pb::Throttle { retry_after_ms, reason, refused: false })).await
    }

    /// Tells the ledger when series begin or cease to be refused.
    async fn tell_refused(&mut self, agents: &Agents, refused: Option<Refused>) -> Result<(), Status> {
        let command = match refused {
            None if self.is_limited == Some(false) => return Ok(()),
            None => Command::SeriesTaken { agent: self.agent },
            Some(_) if self.is_limited == Some(true) => return Ok(()),
            Some(Refused { places, label, metric }) => {
                Command::SeriesRefused { agent: self.agent, series: places.len(), label, metric }
            }
        };
        self.is_limited = Some(matches!(command, Command::SeriesRefused { .. }));
        submit(agents, command).await
    }

    async fn message(&mut self, agents: &Agents, down: &Sender, message: Up) -> Result<(), Status> {
        // Whatever it says, it is there: on a narrow link a heartbeat waits behind rows.
        if agents.presence.beat(self.agent, self.number, Instant::now(), now()) {
            let heard = Heard { clock_offset_ms: Some(self.mapping.offset_ms), ..self.hello.clone() };
            submit(agents, Command::HostHeard(heard)).await?;
        }
        match message {
            Up::Hello(_) => Err(Status::invalid_argument("a second Hello")),
            Up::Table(table) => {
                let admit = |series: &[Labels]| agents.quotas.table(self.agent, series, Instant::now());
                let refused = self.rows.table(table, admit, |series| agents.rows.share_texts(series));
                self.tell_refused(agents, refused.map_err(Status::invalid_argument)?).await
            }
            Up::Rows(pb::Rows { rows }) => self.take_rows(agents, down, rows).await,
            Up::Records(pb::Records { lane, records }) => {
                self.take_records(agents, down, lane, records).await
            }
            Up::Heartbeat(pb::Heartbeat { clock, .. }) => self.heartbeat(agents, clock).await,
        }
    }

    /// Tells the agent that what is not acknowledged was refused. Agents are asked to come back at different moments.
    async fn refuse(&self, agents: &Agents, down: &Sender) -> Result<(), Status> {
        let why = agents.room.why();
        let wait = RETRY_AFTER + RETRY_SPREAD * u32::try_from(self.number % 1_024).unwrap_or(0);
        let throttle = pb::Throttle {
            retry_after_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            reason: format!("RESOURCE_EXHAUSTED: {why}"),
            refused: true,
        };
        send(down, Down::Throttle(throttle)).await
    }

    async fn acknowledge_lanes(
        &self,
        down: &Sender,
        lanes: Vec<pb::LaneAcknowledgement>,
    ) -> Result<(), Status> {
        send(down, Down::Acknowledgement(pb::Acknowledgement { session: self.number, lanes })).await
    }

    async fn heartbeat(&mut self, agents: &Agents, clock: Option<pb::ClockReading>) -> Result<(), Status> {
        let reading =
            reading_in(clock).ok_or_else(|| Status::invalid_argument("a heartbeat without a clock"))?;
        let worth = self.delays.take(self.opened_at.elapsed(), reading.boot_ms);
        if worth == Worth::None {
            return Ok(()); // A sign of life, and no news of the time.
        }
        let received = now();
        let since = self.observed_at.elapsed();
        self.observed_at = Instant::now();
        self.mapping.reading = reading;
        // Nothing was known of this boot's clock but a Hello that lay about: it starts anew.
        let known = (!self.guessed || worth != Worth::Better).then_some(self.mapping.offset_ms);
        match clock::observe(known, reading, received, since) {
            Observed::Offset(offset) => self.mapping.offset_ms = offset,
            Observed::Step(offset) => {
                self.mapping.offset_ms = offset;
                let command = Command::ClockStepped { agent: self.agent, clock_offset_ms: offset };
                submit(agents, command).await?;
            }
        }
        // While the collector's own clock is wrong it is no measure for others.
        let off_by_ms = reading.wall.as_millis().saturating_sub(received.as_millis());
        if trouble().is_none()
            && let Some(off_by_ms) = agents.skews.heard(self.agent, off_by_ms)
        {
            submit(agents, Command::ClockSkewed { agent: self.agent, off_by_ms }).await?;
        }
        Ok(())
    }
}

pub(super) type Sender = mpsc::Sender<Result<pb::SessionResponse, Status>>;

pub(super) async fn submit(agents: &Agents, command: Command) -> Result<(), Status> {
    let decided = agents.ledger.submit(command, Actor::System).await.map_err(unavailable)?;
    decided.map(|_| ()).map_err(refused)
}

/// An agent that can change nothing about a refusal comes back at leisure; one that only has to wait, soon.
fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NoRoom => Status::resource_exhausted(refusal.to_string()),
        refusal => Status::failed_precondition(refusal.to_string()),
    }
}

/// Tells the ledger that the host is heard; gives its clock mapping, its name, and whether the mapping is new.
async fn enter(agents: &Agents, hello: &Heard, reading: Reading) -> Result<(Mapping, String, bool), Status> {
    let agent = hello.agent;
    let machine = hello.facts.get(MACHINE).map(str::to_owned);
    let known = agents.ledger.read(move |state| {
        let host = state.host(agent)?;
        let twins =
            if host.state == HostState::Pending { twins(state, agent, machine.as_deref()) } else { 0 };
        Some((host.instance.clone(), host.boot_id.clone(), host.clock_offset_ms, twins))
    });
    let known = known.await.map_err(unavailable)?;
    let (instance, known_boot, offset, twins) =
        known.ok_or_else(|| Status::permission_denied("this host is not known"))?;
    if twins > 0 {
        tracing::warn!(instance, twins, "other hosts have the same machine id: they come from one image");
    }
    let is_same = known_boot == hello.boot_id;
    let before = offset.filter(|_| !is_same).map(|offset| (known_boot, offset));
    let offset = offset.filter(|_| is_same);
    let offset_ms = match clock::observe(offset, reading, now(), Duration::ZERO) {
        Observed::Offset(offset) => offset,
        // Hello may have waited at the door. The first heartbeat, which comes before any row, says whether it is so.
        Observed::Step(stepped) => offset.unwrap_or(stepped),
    };
    submit(agents, Command::HostHeard(Heard { clock_offset_ms: Some(offset_ms), ..hello.clone() })).await?;
    let mapping = Mapping { boot_id: hello.boot_id.clone(), offset_ms, reading, before };
    Ok((mapping, instance, offset.is_none()))
}

/// How many other hosts have this machine id. They are told apart by what was issued to them, so it is no more than
/// worth knowing.
fn twins(state: &State, agent: AgentId, machine: Option<&str>) -> usize {
    if machine.is_none() {
        return 0;
    }
    let others = state.hosts().filter(|host| host.agent != agent && host.state != HostState::Retired);
    others.filter(|host| host.facts.get(MACHINE) == machine).count()
}

/// Who says Hello. An agent that does not tell its process is told apart by its boot. A machine that was copied while it
/// ran is one process twice; one of them has to begin a new epoch, so the epoch is part of the name.
fn seen(hello: &pb::Hello, address: String) -> Seen {
    let pb::Hello { process, boot_id, epoch, facts, .. } = hello;
    let machine = facts.iter().find(|fact| fact.name == MACHINE);
    let process = if process.is_empty() { boot_id } else { process };
    Seen {
        process: format!("{} of epoch {}", cut(process), cut(epoch)),
        boot_id: cut(boot_id),
        machine: machine.map(|fact| cut(&fact.value)).unwrap_or_default(),
        address,
    }
}

/// Names are short; what a hostile agent makes of them is cut.
fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(64)].to_owned()
}

fn reading_in(clock: Option<pb::ClockReading>) -> Option<Reading> {
    let pb::ClockReading { wall_ms, boot_ms, boot_id: _ } = clock?; // Hello said the boot.
    Some(Reading { wall: Timestamp::from_millis(wall_ms), boot_ms })
}

fn lane_out(lane: Lane, taken: &Ranges) -> pb::LaneAcknowledgement {
    pb::LaneAcknowledgement { lane: lane.number(), taken: Some(taken.into()), ..Default::default() }
}

pub(super) async fn send(down: &Sender, kind: Down) -> Result<(), Status> {
    let response = pb::SessionResponse { kind: Some(kind) };
    down.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent left"))
}

mod lanes;
mod rows;
#[cfg(test)]
mod tests;
