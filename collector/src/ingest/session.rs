//! One agent's stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tocsin_proto::convert::{Number, epoch_in};
use tocsin_proto::pb;
use tocsin_proto::pb::agent_service_server::AgentService;
use tocsin_proto::pb::session_request::Kind as Up;
use tocsin_proto::pb::session_response::Kind as Down;
use tocsin_shared::event::Actor;
use tocsin_shared::host::HostState;
use tocsin_shared::identity::{AgentId, Epoch};
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::clock::{self, Observed, Reading};
use super::presence::Presence;
use super::processes::{Entry, Seen};
use super::rows::{Mapping, SessionRows};
use super::{PROTOCOL, limits};
use crate::clock::now;
use crate::identity::peer::PeerIdentity;
use crate::jobs::Place;
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::journal::rows::{Batch, Rows};
use crate::listen::connection::Peer;
use crate::state::command::Heard;
use crate::state::{Command, State, recovery};

use super::records;

/// Messages that wait for a slow agent; acknowledgements coalesce before they get here.
const DOWN_QUEUE: usize = 16;
/// Rows and records of one message at most: the bounds of the wire.
const ROWS_MAX: usize = 512;
const RECORDS_MAX: usize = 256;
/// Values that are handed to the rows' writer at once: with its queue this bounds what a slow disk piles up.
const BATCH_VALUES: usize = 64 * 1024;
/// How long a connection may be open before it says who it is in the protocol.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How far ahead of the collector's clock a row may be: what the clock mapping leaves without a step.
const AHEAD_MAX: Duration = Duration::from_secs(60);
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
    pub sessions: Arc<AtomicU64>,
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
        let (down, responses) = mpsc::channel(DOWN_QUEUE);
        let (agents, input) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = agents.serve((peer, address), input, &down).await {
                down.try_send(Err(status)).ok(); // An agent that left or does not read learns it by the stream's end.
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

fn unavailable(_: Stopping) -> Status {
    Status::unavailable("the collector is stopping")
}

impl Agents {
    /// Serves one stream: whatever carries the messages, and whoever the certificate says is there.
    async fn serve<S>(
        &self,
        (peer, address): (PeerIdentity, String),
        mut input: S,
        down: &Sender,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<pb::SessionRequest, Status>> + Unpin,
    {
        let first = tokio::time::timeout(HELLO_WITHIN, input.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))?;
        let Some(Up::Hello(hello)) = first.transpose()?.and_then(|message| message.kind) else {
            return Err(Status::invalid_argument("the first message of a session is Hello"));
        };
        let end = self.stop.child_token();
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell_apart(peer.agent, seen(&hello, address)).await?;
        let mut session = Session::open(self, &peer, number, hello).await?;
        self.presence.begin(peer.agent, number, end.clone(), Instant::now(), now());
        tracing::info!(agent = %peer.agent, session = number, "agent connected");
        let served = async {
            session.welcome(self, down).await?;
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
        while self.ledger.registry().keeps(peer.agent, now()) {
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
    mapping: Mapping,
    rows: SessionRows,
    acknowledge: watch::Sender<Ranges>,
    observed_at: Instant,
}

impl Session {
    async fn open(
        agents: &Agents,
        peer: &PeerIdentity,
        number: u64,
        hello: pb::Hello,
    ) -> Result<Self, Status> {
        let pb::Hello { protocol_version, agent_version, epoch, boot_id, clock, facts, .. } = hello;
        if protocol_version != PROTOCOL {
            let why = format!(
                "this collector speaks version {PROTOCOL} of the protocol, the agent {protocol_version}"
            );
            return Err(Status::failed_precondition(why));
        }
        let epoch =
            epoch_in("hello.epoch", &epoch).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let reading = reading_in(clock).ok_or_else(|| Status::invalid_argument("hello without a clock"))?;
        let agent = peer.agent;
        let facts = limits::facts(facts);
        let hello = Heard { agent, boot_id, agent_version, facts, clock_offset_ms: None };
        let (mapping, instance) = enter(agents, &hello, reading).await?;
        let samples = agents.rows.progress(agent, epoch).await.map_err(unavailable)?;
        Ok(Self {
            number,
            agent,
            epoch,
            instance,
            hello,
            mapping,
            rows: SessionRows::default(),
            acknowledge: watch::Sender::new(samples),
            observed_at: Instant::now(),
        })
    }

    async fn welcome(&self, agents: &Agents, down: &Sender) -> Result<(), Status> {
        let samples = self.acknowledge.borrow().clone();
        let mut lanes = self.records_taken(agents).await?;
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
        loop {
            tokio::select! {
                biased;
                changed = acknowledged.changed() => {
                    changed.map_err(|_| unavailable(Stopping))?;
                    let taken = lane_out(Lane::Samples, &acknowledged.borrow_and_update());
                    self.acknowledge_lanes(down, vec![taken]).await?;
                }
                message = input.next() => match message.transpose()? {
                    Some(pb::SessionRequest { kind: Some(kind) }) => self.message(agents, down, kind).await?,
                    Some(_) => return Err(Status::invalid_argument("an empty message")),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn message(&mut self, agents: &Agents, down: &Sender, message: Up) -> Result<(), Status> {
        match message {
            Up::Hello(_) => Err(Status::invalid_argument("a second Hello")),
            Up::Table(table) => self
                .rows
                .table(table, |series| agents.rows.share_texts(series))
                .map_err(Status::invalid_argument),
            Up::Rows(pb::Rows { rows }) => self.take_rows(agents, rows).await,
            Up::Records(pb::Records { lane, records }) => {
                self.take_records(agents, down, lane, records).await
            }
            Up::Heartbeat(pb::Heartbeat { clock, waiting: _ }) => self.heartbeat(agents, clock).await,
        }
    }

    async fn take_rows(&mut self, agents: &Agents, rows: Vec<pb::Row>) -> Result<(), Status> {
        if rows.len() > ROWS_MAX {
            return Err(Status::invalid_argument(format!(
                "{} rows in a message, at most {ROWS_MAX}",
                rows.len()
            )));
        }
        let (received, latest) = (Instant::now(), now().plus(AHEAD_MAX));
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let (mut taken, mut values) = (Vec::new(), 0);
            while let Some(row) = rows.next_if(|_| values < BATCH_VALUES) {
                let row = self.rows.row(row, &self.mapping, latest).map_err(Status::invalid_argument)?;
                values += row.values.len();
                taken.push(row);
            }
            let (agent, epoch, acknowledge) = (self.agent, self.epoch, self.acknowledge.clone());
            let batch = Batch { agent, epoch, rows: taken, received, acknowledge };
            agents.rows.take(batch).await.map_err(unavailable)?;
        }
        Ok(())
    }

    async fn take_records(
        &mut self,
        agents: &Agents,
        down: &Sender,
        lane: i32,
        records: Vec<pb::Record>,
    ) -> Result<(), Status> {
        let lane = Lane::from_number(lane).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if lane == Lane::Samples || records.len() > RECORDS_MAX {
            return Err(Status::invalid_argument(
                "records are of the outcomes or the state lane, at most 256",
            ));
        }
        let gaps: Vec<(u64, u64)> = records.iter().filter_map(records::samples_gap).collect();
        let commands = records.into_iter().map(|record| {
            let place = Place { epoch: self.epoch, lane, seq: record.seq };
            records::command(self.agent, place, record, &self.mapping).unwrap_or_else(|why| {
                // It would come for ever if it were refused.
                let what = format!("a record that cannot be read: {why}");
                Command::HostEventNoted { agent: self.agent, what, at: now(), step_ms: 0, place }
            })
        });
        let decided = agents.ledger.submit_all(commands.collect(), Actor::Agent(self.agent)).await;
        for decided in decided.map_err(unavailable)? {
            decided.map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        }
        for gap in gaps {
            let rows = agents.rows.gap((self.agent, self.epoch), gap, self.acknowledge.clone());
            rows.await.map_err(unavailable)?;
        }
        self.acknowledge_lanes(down, self.records_taken(agents).await?).await
    }

    /// What is durable of the lanes of records: the ledger alone knows, also of what an older session brought.
    async fn records_taken(&self, agents: &Agents) -> Result<Vec<pb::LaneAcknowledgement>, Status> {
        let (agent, epoch) = (self.agent, self.epoch);
        let lanes = agents.ledger.read(move |state| {
            [Lane::Outcomes, Lane::State].map(|lane| (lane, state.lane(agent, epoch, lane).cloned()))
        });
        let lanes = lanes.await.map_err(unavailable)?;
        Ok(lanes.iter().map(|(lane, taken)| lane_out(*lane, &taken.clone().unwrap_or_default())).collect())
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
        let received = now();
        let back = agents.presence.beat(self.agent, self.number, Instant::now(), received);
        let since = self.observed_at.elapsed();
        self.observed_at = Instant::now();
        self.mapping.reading = reading;
        match clock::observe(Some(self.mapping.offset_ms), reading, received, since) {
            Observed::Offset(offset) => self.mapping.offset_ms = offset,
            Observed::Step(offset) => {
                self.mapping.offset_ms = offset;
                let command = Command::ClockStepped { agent: self.agent, clock_offset_ms: offset };
                submit(agents, command).await?;
            }
        }
        if back {
            let heard = Heard { clock_offset_ms: Some(self.mapping.offset_ms), ..self.hello.clone() };
            submit(agents, Command::HostHeard(heard)).await?;
        }
        Ok(())
    }
}

type Sender = mpsc::Sender<Result<pb::SessionResponse, Status>>;

async fn submit(agents: &Agents, command: Command) -> Result<(), Status> {
    let decided = agents.ledger.submit(command, Actor::System).await.map_err(unavailable)?;
    decided.map(|_| ()).map_err(|refusal| Status::failed_precondition(refusal.to_string()))
}

/// Tells the ledger that the host is heard; gives its clock mapping and its name.
async fn enter(agents: &Agents, hello: &Heard, reading: Reading) -> Result<(Mapping, String), Status> {
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
    let offset = offset.filter(|_| known_boot == hello.boot_id);
    let (offset_ms, stepped) = match clock::observe(offset, reading, now(), Duration::ZERO) {
        Observed::Offset(offset) => (offset, false),
        Observed::Step(offset) => (offset, true),
    };
    if stepped {
        // First, because a step is measured against the offset that the ledger knows.
        submit(agents, Command::ClockStepped { agent, clock_offset_ms: offset_ms }).await?;
    }
    submit(agents, Command::HostHeard(Heard { clock_offset_ms: Some(offset_ms), ..hello.clone() })).await?;
    Ok((Mapping { boot_id: hello.boot_id.clone(), offset_ms, reading }, instance))
}

/// How many other hosts have this machine id. They are told apart by what was issued to them, so it is no more than
/// worth knowing.
fn twins(state: &State, agent: AgentId, machine: Option<&str>) -> usize {
    let others = state.hosts().filter(|host| host.agent != agent && host.state != HostState::Retired);
    others.filter(|host| machine.is_some() && host.facts.get(MACHINE) == machine).count()
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
    let pb::ClockReading { wall_ms, boot_ms } = clock?;
    Some(Reading { wall: Timestamp::from_millis(wall_ms), boot_ms })
}

fn lane_out(lane: Lane, taken: &Ranges) -> pb::LaneAcknowledgement {
    pb::LaneAcknowledgement { lane: lane.number(), taken: Some(taken.into()), ..Default::default() }
}

async fn send(down: &Sender, kind: Down) -> Result<(), Status> {
    let response = pb::SessionResponse { kind: Some(kind) };
    down.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent left"))
}

#[cfg(test)]
mod tests;
