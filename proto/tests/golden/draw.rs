//! Records of every shape, drawn from a seed: each field takes each kind of value it can have.

use std::time::Duration;

use tocsin_shared::access::{
    AuthorityState, Certificate, CertificateAuthority, Consumer, JoinToken, Principal, Role, TokenUse,
};
use tocsin_shared::alert::{Alert, AlertSource, Condition, ResolveReason};
use tocsin_shared::event::{
    Actor, Block, Event, EventKind, Hole, LaneProgress, Loss, LossState, Sealed, Subject,
};
use tocsin_shared::host::{Host, HostState};
use tocsin_shared::identity::{AgentId, Env, Epoch};
use tocsin_shared::incident::{Ack, AlertRef, Incident, IncidentStatus, Level, Priority, Resolution};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::ranges::Ranges;
use tocsin_shared::run::{JobRun, RunResult};
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

/// How many kinds of subject there are.
/// How many kinds there were when the golden lines were drawn; the others are names like these.
const GOLDEN_KINDS: usize = 37;

pub(crate) const SUBJECTS: u64 = 15;

/// A stream of numbers from a seed (splitmix64).
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    fn maybe<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) > 0).then(|| draw(self))
    }

    fn some<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| draw(self)).collect()
    }

    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    /// Not zero, which says "none" on the wire.
    fn seq(&mut self) -> u64 {
        self.number().max(1)
    }

    fn at(&mut self) -> Timestamp {
        Timestamp::from_millis((self.number() >> self.below(40)).max(1) as i64)
    }

    fn text(&mut self) -> String {
        self.one(&["", "a", "Grüße, 世界", "two\nlines", "\u{1b}[31m", "\"quoted\" {{ .Value }}"]).to_owned()
    }

    fn labels(&mut self) -> Labels {
        let pairs = self.some(|draw| (draw.one(&["mount", "job_name", "ort", "z"]).to_owned(), draw.text()));
        Labels::new(pairs)
    }

    fn digest(&mut self) -> [u8; 32] {
        let byte = self.number() as u8;
        std::array::from_fn(|at| byte.wrapping_mul(at as u8))
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.number(), self.number())
    }

    fn agent(&mut self) -> AgentId {
        AgentId(self.uuid())
    }

    fn env(&mut self) -> Env {
        self.one(&[Env::Prod, Env::Uat, Env::Dr, Env::Test])
    }

    fn severity(&mut self) -> Severity {
        self.one(&[Severity::Info, Severity::Warning, Severity::Error, Severity::Critical])
    }

    fn level(&mut self) -> Level {
        self.one(&[Level::High, Level::Medium, Level::Low])
    }

    fn actor(&mut self) -> Actor {
        match self.below(3) {
            0 => Actor::System,
            1 => Actor::Agent(self.agent()),
            _ => Actor::Principal("anna".into()),
        }
    }

    fn float(&mut self) -> f64 {
        self.one(&[0.0, -0.0, 1.5, -1e300, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE])
    }

    fn alert(&mut self) -> Alert {
        Alert {
            dedup_key: self.text(),
            generation: self.small(),
            key_seq: self.number(),
            source: self.one(&[AlertSource::Rule, AlertSource::Job, AlertSource::Host]),
            source_id: self.text(),
            labels: self.labels(),
            annotations: self.labels(),
            severity: self.severity(),
            env: self.env(),
            agent: self.maybe(Self::agent),
            condition: self.one(&[
                Condition::Pending,
                Condition::Firing,
                Condition::Resolved,
                Condition::Inactive,
            ]),
            active_since: self.at(),
            fired_at: self.maybe(Self::at),
            last_true: self.at(),
            recovering_since: self.maybe(Self::at),
            resolved_at: self.maybe(Self::at),
            resolve_reason: self.maybe(|draw| {
                draw.one(&[ResolveReason::Source, ResolveReason::RuleRemoved, ResolveReason::HostRetired])
            }),
            value: self.float(),
            opens_incident: self.below(2) == 0,
            incident: self.maybe(Self::seq),
            late: self.below(2) == 0,
        }
    }

    fn incident(&mut self) -> Incident {
        let status = [IncidentStatus::Triggered, IncidentStatus::Acknowledged, IncidentStatus::Resolved];
        let (impact, urgency) = (self.level(), self.level());
        Incident {
            number: self.number(),
            incident_key: self.text(),
            key_seq: self.number(),
            title: self.text(),
            env: self.env(),
            labels: self.labels(),
            status: self.one(&status),
            severity: self.severity(),
            impact,
            urgency,
            priority: Priority::from_matrix(impact, urgency),
            pages: self.below(2) == 0,
            alerts: self.some(|draw| AlertRef {
                dedup_key: draw.text(),
                generation: draw.small(),
                name: draw.text(),
                firing: draw.below(2) == 0,
            }),
            opened_at: self.at(),
            ack: self.maybe(|draw| Ack {
                by: draw.actor(),
                at: draw.at(),
                expires_at: draw.at(),
                note: draw.text(),
            }),
            resolution: self.maybe(|draw| Resolution {
                by: draw.actor(),
                at: draw.at(),
                code: draw.text(),
                text: draw.text(),
            }),
            auto_resolve_at: self.maybe(Self::at),
            reopen_count: self.small(),
            rev: self.number(),
        }
    }

    fn run(&mut self) -> JobRun {
        let message = self.text();
        let results = [
            RunResult::Running,
            RunResult::Succeeded,
            RunResult::Failed { exit_code: self.small() as i32 },
            RunResult::Killed { signal: 9, core_dumped: self.below(2) == 0, out_of_memory: false },
            RunResult::CouldNotStart { errno: 2, message },
        ];
        let run = JobRun {
            run_id: self.uuid(),
            job_name: self.text(),
            agent: self.agent(),
            instance: self.text(),
            env: self.env(),
            result: self.one(&results),
            started_at: self.at(),
            ended_at: self.maybe(Self::at),
            duration: self.maybe(|draw| Duration::from_millis(draw.number())),
            user: self.text(),
            uid: self.small(),
            command: self.text(),
            output_tail: self.text(),
            output_bytes: self.number(),
            alike: 0,
            output_dropped: false,
        };
        // Drawn last: the run of a line that is golden already has none of it.
        if self.below(2) == 0 { self.later_run(run) } else { run }
    }

    /// The same with what later releases know of runs.
    fn later_run(&mut self, run: JobRun) -> JobRun {
        let killed = RunResult::Killed { signal: 9, core_dumped: false, out_of_memory: true };
        let interrupted = RunResult::Interrupted { reason: self.text() };
        let results = [run.result.clone(), killed, interrupted];
        let (result, alike) = (self.one(&results), self.number());
        JobRun { result, alike, output_dropped: self.below(2) == 0, ..run }
    }

    fn host(&mut self) -> Host {
        let states = [HostState::Pending, HostState::Online, HostState::Unreachable, HostState::Retired];
        Host {
            agent: self.agent(),
            instance: self.text(),
            env: self.env(),
            labels: self.labels(),
            state: self.one(&states),
            enrolled_at: self.at(),
            state_since: self.at(),
            last_seen: self.maybe(Self::at),
            agent_version: self.text(),
            boot_id: self.text(),
            clock_offset_ms: self.maybe(|draw| draw.one(&[0, -1, i64::MIN, i64::MAX])),
            facts: self.labels(),
            recovered_at: self.maybe(Self::at),
            recovery_until: self.maybe(Self::at),
            bundle_sha256: self.maybe(Self::digest),
        }
    }

    fn token(&mut self) -> JoinToken {
        JoinToken {
            id: self.text(),
            secret_sha256: self.digest(),
            env: self.env(),
            labels: self.labels(),
            host_pattern: self.text(),
            created_at: self.at(),
            created_by: self.text(),
            expires_at: self.at(),
            used: self.maybe(|draw| TokenUse {
                agent: draw.agent(),
                at: draw.at(),
                key_sha256: draw.digest(),
            }),
        }
    }

    fn certificate(&mut self) -> Certificate {
        Certificate {
            serial: self.text(),
            agent: self.agent(),
            generation: self.small(),
            key_sha256: self.digest(),
            not_before: self.at(),
            not_after: self.at(),
            revoked_at: self.maybe(Self::at),
            authority: 1 + self.small() / 2,
        }
    }

    fn authority(&mut self) -> CertificateAuthority {
        let states = [
            AuthorityState::Incoming,
            AuthorityState::Issuing,
            AuthorityState::Outgoing,
            AuthorityState::Retired,
        ];
        CertificateAuthority {
            number: self.small(),
            certificate_pem: self.text(),
            sha256: self.digest(),
            not_before: self.at(),
            not_after: self.at(),
            state: self.one(&states),
            state_since: self.at(),
        }
    }

    fn principal(&mut self) -> Principal {
        Principal {
            name: self.text(),
            role: self.one(&[Role::Viewer, Role::Responder, Role::Operator, Role::Admin, Role::Consumer]),
            secret_sha256: self.digest(),
            created_at: self.at(),
            expires_at: self.maybe(Self::at),
            revoked_at: self.maybe(Self::at),
        }
    }

    fn consumer(&mut self) -> Consumer {
        Consumer {
            name: self.text(),
            owner: self.text(),
            acked_seq: self.number(),
            created_at: self.at(),
            acked_at: self.maybe(Self::at),
            filter: None,
        }
    }

    fn lane(&mut self) -> LaneProgress {
        let mut taken = Ranges::up_to(self.below(1_000));
        for _ in 0..self.below(4) {
            let first = 1_002 + self.below(1 << 50);
            taken.insert_range(first, first + self.below(10)).expect("fewer than 64 ranges");
        }
        let (agent, epoch, lane) = (self.agent(), Epoch(self.uuid()), self.one(&Lane::ALL));
        LaneProgress { agent, epoch, lane, taken, contents: Vec::new() }
    }

    fn sealed(&mut self) -> Sealed {
        Sealed {
            samples_from: self.number(),
            sealed_seq: self.number(),
            sealed_to: self.at(),
            evaluated_through: self.number(),
            lanes: self.some(Self::lane),
            blocks: self.some(|draw| Block {
                file: draw.text(),
                from: draw.at(),
                to: draw.at(),
                bytes: draw.number(),
                series: draw.number(),
                samples: draw.number(),
            }),
        }
    }

    fn loss(&mut self) -> Loss {
        use LossState::{Accepted, Covered, Open, Restored, Rewound, Settled, Torn};
        let state = self.one(&[Torn, Covered, Open, Accepted, Restored, Settled, Rewound]);
        Loss { first: self.number(), last: self.number(), state, incidents_from: self.number() }
    }

    fn content(&mut self) -> (u64, u32) {
        (self.number(), self.small())
    }

    /// The record of a kind, 0 to `SUBJECTS` - 1.
    pub(crate) fn subject(&mut self, kind: u64) -> Subject {
        match kind {
            0 => Subject::Alert(self.alert()),
            1 => Subject::Incident(self.incident()),
            2 => Subject::Run(self.run()),
            3 => Subject::Host(self.host()),
            4 => Subject::Token(self.token()),
            5 => Subject::Certificate(self.certificate()),
            6 => Subject::Principal(self.principal()),
            7 => Subject::Consumer(self.consumer()),
            8 => Subject::Lane(self.lane()),
            9 => Subject::Sealed(self.sealed()),
            10 => Subject::Hole(Hole {
                agent: self.agent(),
                from: self.at(),
                alerts: self.some(Self::alert),
                closed: self.below(2) == 0,
            }),
            11 => Subject::Loss(self.loss()),
            12 => {
                Subject::Lane(LaneProgress { contents: vec![self.content(), self.content()], ..self.lane() })
            }
            13 => Subject::Consumer(Consumer { filter: Some(self.small()), ..self.consumer() }),
            _ => Subject::Authority(self.authority()),
        }
    }

    /// An event with a record of a kind.
    pub(crate) fn event(&mut self, kind: u64) -> Event {
        Event {
            seq: self.number(),
            kind: self.one(&EventKind::ALL[..GOLDEN_KINDS]),
            actor: self.actor(),
            occurred_at: self.at(),
            recorded_at: self.at(),
            cause: self.maybe(Self::seq),
            samples_seq: self.maybe(Self::seq),
            note: self.text(),
            subject: self.subject(kind),
        }
    }
}
