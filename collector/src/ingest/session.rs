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
use tocsin_shared::event::{Actor, EventKind, Subject};
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
use super::rows::{Mapping, SessionRows};
use super::{PROTOCOL, limits};
use crate::clock::now;
use crate::identity::peer::PeerIdentity;
use crate::journal::Stopping;
use crate::journal::ledger::Ledger;
use crate::journal::rows::{Batch, Rows};
use crate::listen::connection::Peer;
use crate::state::Command;
use crate::state::command::Heard;

use super::records;

/// Messages that wait for a slow agent; acknowledgements coalesce before they get here.
const DOWN_QUEUE: usize = 16;
/// Rows and records of one message at most: the bounds of the wire.
const ROWS_MAX: usize = 512;
const RECORDS_MAX: usize = 256;
/// How often an open stream's certificate is looked at, beside every change of the registry.
const RECHECK: Duration = Duration::from_secs(5);

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
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
        let peer =
            peer.ok_or_else(|| Status::unauthenticated("this connection shows no agent's certificate"))?;
        let (down, responses) = mpsc::channel(DOWN_QUEUE);
        let (agents, input) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = agents.serve(peer, input, &down).await {
                down.send(Err(status)).await.ok(); // The agent may have left already.
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

fn unavailable(_: Stopping) -> Status {
    Status::unavailable("the collector is stopping")
}

impl Agents {
    async fn serve(
        &self,
        peer: PeerIdentity,
        mut input: Streaming<pb::SessionRequest>,
        down: &mpsc::Sender<Result<pb::SessionResponse, Status>>,
    ) -> Result<(), Status> {
        let first = input.next().await.transpose()?.and_then(|message| message.kind);
        let Some(Up::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message of a session is Hello"));
        };
        let end = self.stop.child_token();
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let mut session = Session::open(self, &peer, number, hello).await?;
        self.presence.begin(peer.agent, number, end.clone(), Instant::now(), now());
        tracing::info!(agent = %peer.agent, session = number, "agent connected");
        let served = async {
            session.welcome(self, down).await?;
            session.run(self, &peer, input, down, &end).await
        };
        let served = served.await;
        self.presence.end(peer.agent, number);
        tracing::info!(agent = %peer.agent, session = number, end = %served.as_ref().err().map_or("closed", Status::message), "agent disconnected");
        served
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
    /// What is durable of the outcomes and the state lane.
    outcomes: Ranges,
    state: Ranges,
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
        let pb::Hello { protocol_version, agent_version, epoch, boot_id, clock, facts, interval_ms: _ } =
            hello;
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
        let lanes = agents.ledger.read(move |state| {
            let lane = |lane| state.lane(agent, epoch, lane).cloned().unwrap_or_default();
            (lane(Lane::Outcomes), lane(Lane::State))
        });
        let (outcomes, state) = lanes.await.map_err(unavailable)?;
        let samples = agents.rows.progress(agent, epoch).await.map_err(unavailable)?;
        Ok(Self {
            number,
            agent,
            epoch,
            instance,
            hello,
            mapping,
            rows: SessionRows::default(),
            outcomes,
            state,
            acknowledge: watch::Sender::new(samples),
            observed_at: Instant::now(),
        })
    }

    async fn welcome(&self, agents: &Agents, down: &Sender) -> Result<(), Status> {
        let samples = self.acknowledge.borrow().clone();
        let lanes = [(Lane::Outcomes, &self.outcomes), (Lane::State, &self.state), (Lane::Samples, &samples)];
        let heartbeat = agents.presence.heartbeat();
        let welcome = pb::Welcome {
            protocol_version: PROTOCOL,
            session: self.number,
            lanes: lanes.map(|(lane, taken)| lane_out(lane, taken)).to_vec(),
            config: Some(pb::SessionConfig {
                heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
                instance: self.instance.clone(),
            }),
        };
        send(down, Down::Welcome(welcome)).await
    }

    async fn run(
        &mut self,
        agents: &Agents,
        peer: &PeerIdentity,
        mut input: Streaming<pb::SessionRequest>,
        down: &Sender,
        end: &CancellationToken,
    ) -> Result<(), Status> {
        let mut acknowledged = self.acknowledge.subscribe();
        let mut registry = agents.ledger.registry_changes();
        let mut recheck = tokio::time::interval(RECHECK);
        loop {
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    return Err(Status::aborted("the session ended: a newer one began, or the collector is stopping"));
                }
                _ = registry.changed() => self.still_admitted(agents, peer)?,
                _ = recheck.tick() => self.still_admitted(agents, peer)?,
                changed = acknowledged.changed() => {
                    changed.map_err(|_| Status::unavailable("the collector is stopping"))?;
                    let taken = acknowledged.borrow_and_update().clone();
                    self.acknowledge_lane(down, Lane::Samples, &taken).await?;
                }
                message = input.next() => match message.transpose()? {
                    Some(pb::SessionRequest { kind: Some(kind) }) => self.message(agents, down, kind).await?,
                    Some(_) => return Err(Status::invalid_argument("an empty message")),
                    None => return Ok(()),
                },
            }
        }
    }

    fn still_admitted(&self, agents: &Agents, peer: &PeerIdentity) -> Result<(), Status> {
        if agents.ledger.registry().admits(&peer.serial, peer.agent, now()) {
            Ok(())
        } else {
            Err(Status::permission_denied("the certificate is revoked or has run out"))
        }
    }

    async fn message(&mut self, agents: &Agents, down: &Sender, message: Up) -> Result<(), Status> {
        match message {
            Up::Hello(_) => Err(Status::invalid_argument("a second Hello")),
            Up::Table(table) => self.rows.table(table).map_err(Status::invalid_argument),
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
        let received = Instant::now();
        let decoded = rows.into_iter().map(|row| self.rows.row(row, &self.mapping));
        let rows = decoded.collect::<Result<_, _>>().map_err(Status::invalid_argument)?;
        let (agent, epoch, acknowledge) = (self.agent, self.epoch, self.acknowledge.clone());
        agents.rows.take(Batch { agent, epoch, rows, received, acknowledge }).await.map_err(unavailable)
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
        for record in records {
            self.take_record(agents, lane, record).await?;
        }
        let taken = if lane == Lane::Outcomes { self.outcomes.clone() } else { self.state.clone() };
        self.acknowledge_lane(down, lane, &taken).await
    }

    async fn take_record(&mut self, agents: &Agents, lane: Lane, record: pb::Record) -> Result<(), Status> {
        let gap = records::samples_gap(&record);
        let command = records::command(self.agent, self.epoch, lane, record, &self.mapping)
            .map_err(Status::invalid_argument)?;
        let events = agents.ledger.submit(command, Actor::Agent(self.agent)).await.map_err(unavailable)?;
        let events = events.map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        for event in events {
            if let (EventKind::LaneMoved, Subject::Lane(progress)) = (event.kind, event.subject) {
                match progress.lane {
                    Lane::Outcomes if progress.epoch == self.epoch => self.outcomes = progress.taken,
                    Lane::State if progress.epoch == self.epoch => self.state = progress.taken,
                    _ => {}
                }
            }
        }
        if let Some((first, last)) = gap {
            agents.rows.gap(self.agent, self.epoch, first, last).await.map_err(unavailable)?;
        }
        Ok(())
    }

    async fn acknowledge_lane(&self, down: &Sender, lane: Lane, taken: &Ranges) -> Result<(), Status> {
        let lanes = vec![lane_out(lane, taken)];
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
    let known = agents.ledger.read(move |state| {
        state.host(agent).map(|host| (host.instance.clone(), host.boot_id.clone(), host.clock_offset_ms))
    });
    let known = known.await.map_err(unavailable)?;
    let (instance, known_boot, offset) =
        known.ok_or_else(|| Status::permission_denied("this host is not known"))?;
    let offset = offset.filter(|_| known_boot == hello.boot_id);
    let (offset_ms, stepped) = match clock::observe(offset, reading, now(), Duration::ZERO) {
        Observed::Offset(offset) => (offset, false),
        Observed::Step(offset) => (offset, true),
    };
    submit(agents, Command::HostHeard(Heard { clock_offset_ms: Some(offset_ms), ..hello.clone() })).await?;
    if stepped {
        submit(agents, Command::ClockStepped { agent, clock_offset_ms: offset_ms }).await?;
    }
    Ok((Mapping { boot_id: hello.boot_id.clone(), offset_ms, reading }, instance))
}

fn reading_in(clock: Option<pb::ClockReading>) -> Option<Reading> {
    let pb::ClockReading { wall_ms, boot_ms } = clock?;
    Some(Reading { wall: Timestamp::from_millis(wall_ms), boot_ms })
}

fn lane_out(lane: Lane, taken: &Ranges) -> pb::LaneAcknowledgement {
    pb::LaneAcknowledgement { lane: lane.number(), taken: Some(taken.into()) }
}

async fn send(down: &Sender, kind: Down) -> Result<(), Status> {
    let response = pb::SessionResponse { kind: Some(kind) };
    down.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent left"))
}
