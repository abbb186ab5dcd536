//! What the tests of decisions share: a collector in memory, hosts, rules, and records to begin with.

use std::sync::Arc;
use std::time::Duration;

use tocsin_shared::alert::{Alert, AlertSource, Condition};
use tocsin_shared::event::{Actor, Event, EventKind};
use tocsin_shared::identity::{AgentId, Env, Epoch};
use tocsin_shared::incident::{Incident, IncidentStatus, Level, Priority};
use tocsin_shared::labels::Labels;
use tocsin_shared::lane::Lane;
use tocsin_shared::run::{JobRun, RunResult};
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;
use uuid::Uuid;

use super::command::{Enrolment, Heard, NewCertificate, NewToken, OnIncident};
use super::{Command, Defaults, Refusal, State, decide};
use crate::alert::{Breach, Evaluation, RuleSpec};
use crate::jobs::{Place, RunEnd, RunStart};

pub(crate) fn agent(n: u128) -> AgentId {
    AgentId(Uuid::from_u128(n))
}

/// An instant, in seconds after a day in 2026.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + seconds * 1_000)
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied())
}

/// A firing alert of the rule `rule` about agent 1.
pub(crate) fn alert(key: &str) -> Alert {
    Alert {
        dedup_key: key.into(),
        generation: 1,
        key_seq: 1,
        source: AlertSource::Rule,
        source_id: "rule".into(),
        labels: Labels::empty(),
        annotations: Labels::empty(),
        severity: Severity::Warning,
        env: Env::Prod,
        agent: Some(agent(1)),
        condition: Condition::Firing,
        active_since: at(0),
        fired_at: Some(at(0)),
        last_true: at(0),
        recovering_since: None,
        resolved_at: None,
        resolve_reason: None,
        value: 1.0,
        opens_incident: true,
        incident: None,
        late: false,
    }
}

pub(crate) fn incident(number: u64, key: &str) -> Incident {
    Incident {
        number,
        incident_key: key.into(),
        key_seq: 1,
        title: String::new(),
        env: Env::Prod,
        labels: Labels::empty(),
        status: IncidentStatus::Triggered,
        severity: Severity::Warning,
        impact: Level::Medium,
        urgency: Level::Medium,
        priority: Priority::from_matrix(Level::Medium, Level::Medium),
        pages: false,
        alerts: Vec::new(),
        opened_at: at(0),
        ack: None,
        resolution: None,
        auto_resolve_at: None,
        reopen_count: 0,
        rev: 1,
    }
}

/// A run of `backup` on agent 1 that succeeded.
pub(crate) fn run(run_id: Uuid, started: i64) -> JobRun {
    JobRun {
        run_id,
        job_name: "backup".into(),
        agent: agent(1),
        instance: "web-1".into(),
        env: Env::Prod,
        result: RunResult::Succeeded,
        started_at: at(started),
        ended_at: Some(at(started + 1)),
        duration: Some(Duration::from_secs(1)),
        user: "root".into(),
        uid: 0,
        command: "backup".into(),
        output_tail: "done".into(),
        output_bytes: 4,
        alike: 0,
        output_dropped: false,
    }
}

/// A state with its journal in memory. The clock is the test's.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) state: State,
    pub(crate) journal: Vec<Event>,
    pub(crate) now: i64,
    outcome_seq: u64,
    samples_seq: u64,
}

impl Desk {
    /// With hosts `web-1` … in an environment, online.
    pub(crate) fn with_hosts(count: u128, env: Env) -> Self {
        let mut desk = Self::default();
        for n in 1..=count {
            desk.enrol(n, &format!("web-{n}"), env).expect("a new host comes in");
            desk.done(Command::HostHeard(heard(n)));
        }
        desk.journal.clear();
        desk
    }

    pub(crate) fn enrol(&mut self, n: u128, instance: &str, env: Env) -> Result<Vec<Event>, Refusal> {
        self.ask(Command::CreateToken(token(n, env, "*")))?;
        self.ask(Command::Enrol(enrolment(n, instance)))
    }

    /// Decides and applies as `ann`.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Vec<Event>, Refusal> {
        self.ask_as(&Actor::Principal("ann".into()), command)
    }

    pub(crate) fn ask_as(&mut self, actor: &Actor, command: Command) -> Result<Vec<Event>, Refusal> {
        let drafts = decide(&self.state, &command, actor, at(self.now), &Defaults::default())?;
        let first = self.state.last_seq() + 1;
        let events =
            drafts.into_iter().enumerate().map(|(n, draft)| draft.into_event(first, n, at(self.now)));
        let events: Vec<Event> = events.collect();
        events.iter().for_each(|event| self.state.apply(event));
        self.journal.extend(events.iter().cloned());
        Ok(events)
    }

    /// The names of the events that a command gives; it must not be refused.
    pub(crate) fn done(&mut self, command: Command) -> Vec<&'static str> {
        let events = self.ask(command.clone()).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
        events.iter().map(|event| event.kind.as_str()).collect()
    }

    /// Evaluates a rule for agent 1 at `now`; the elements are (device, severity).
    pub(crate) fn evaluate(&mut self, rule: &Arc<RuleSpec>, elements: &[(&str, &str)]) -> Vec<&'static str> {
        self.samples_seq += 1;
        let command = evaluation(rule, 1, self.now, self.samples_seq, elements);
        self.done(command)
    }

    /// Moves the clock and ticks.
    pub(crate) fn tick(&mut self, now: i64) -> Vec<&'static str> {
        self.now = now;
        self.done(Command::Tick)
    }

    pub(crate) fn place(&mut self) -> Place {
        self.outcome_seq += 1;
        place(self.outcome_seq)
    }

    /// A run of `backup` on agent 1 ends; exit code 0 is success.
    pub(crate) fn run_ends(
        &mut self,
        run_id: u128,
        started: i64,
        ended: i64,
        exit_code: i32,
    ) -> Vec<&'static str> {
        let (place, run) = (self.place(), run_end(run_id, "backup", started, ended, exit_code));
        self.done(Command::JobEnded { run, place })
    }

    pub(crate) fn incident(&self, number: u64) -> &Incident {
        self.state.incident(number).expect("the incident is there")
    }

    /// The public kinds of the journal so far.
    pub(crate) fn feed(&self) -> Vec<EventKind> {
        self.journal.iter().map(|event| event.kind).filter(|kind| kind.is_public()).collect()
    }
}

pub(crate) fn place(seq: u64) -> Place {
    Place { epoch: Epoch(Uuid::from_u128(77)), lane: Lane::Outcomes, seq, content: 0 }
}

pub(crate) fn on(number: u64, text: &str) -> OnIncident {
    OnIncident { number, text: text.into(), expected_rev: None }
}

pub(crate) fn heard(n: u128) -> Heard {
    Heard {
        agent: agent(n),
        boot_id: "boot-1".into(),
        agent_version: "0.1.0".into(),
        facts: Labels::empty(),
        clock_offset_ms: Some(0),
        bundle_sha256: None,
    }
}

pub(crate) fn token(n: u128, env: Env, host_pattern: &str) -> NewToken {
    NewToken {
        id: format!("token-{n}"),
        secret_sha256: digest(n),
        env,
        labels: labels(&[("team", "shop")]),
        host_pattern: host_pattern.into(),
        expires_at: at(100_000_000),
    }
}

pub(crate) fn digest(n: u128) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&n.to_le_bytes());
    digest
}

pub(crate) fn enrolment(n: u128, instance: &str) -> Enrolment {
    Enrolment {
        token_sha256: digest(n),
        instance: instance.into(),
        agent: agent(n),
        agent_version: "0.1.0".into(),
        facts: Labels::empty(),
        certificate: certificate(n),
    }
}

pub(crate) fn certificate(n: u128) -> NewCertificate {
    NewCertificate {
        serial: format!("serial-{n}"),
        key_sha256: digest(1_000 + n),
        not_before: at(-60),
        not_after: at(100_000_000),
        authority: 1,
    }
}

pub(crate) fn rule(id: &str, hold: u64, keep: u64) -> Arc<RuleSpec> {
    Arc::new(RuleSpec {
        rule_id: id.into(),
        group: "test".into(),
        alertname: id.into(),
        hold: Duration::from_secs(hold),
        keep_firing_for: Duration::from_secs(keep),
        severity: Severity::Warning,
        opens_incident: None,
    })
}

pub(crate) fn evaluation(
    rule: &Arc<RuleSpec>,
    n: u128,
    now: i64,
    samples_seq: u64,
    elements: &[(&str, &str)],
) -> Command {
    let instance = format!("web-{n}");
    let elements = elements.iter().map(|(device, severity)| {
        let labels = labels(&[("device", *device), ("instance", &instance)]);
        let alert_labels = labels.with([("alertname", &*rule.rule_id), ("severity", *severity)]);
        Breach { labels, value: 1.0, annotations: Labels::new([("summary", "it is bad")]), alert_labels }
    });
    let (agent, at, elements) = (Some(agent(n)), at(now), elements.collect());
    let (doubtful, before) = (Vec::new(), None);
    Command::Evaluated(Evaluation { agent, rule: rule.clone(), at, samples_seq, elements, doubtful, before })
}

pub(crate) fn run_start(run_id: u128, job_name: &str, started: i64) -> RunStart {
    RunStart {
        run_id: Uuid::from_u128(run_id),
        job_name: job_name.into(),
        agent: agent(1),
        started_at: at(started),
        user: "root".into(),
        uid: 0,
        command: "run".into(),
    }
}

pub(crate) fn run_end(run_id: u128, job_name: &str, started: i64, ended: i64, exit_code: i32) -> RunEnd {
    let result = if exit_code == 0 { RunResult::Succeeded } else { RunResult::Failed { exit_code } };
    RunEnd {
        run_id: Uuid::from_u128(run_id),
        job_name: job_name.into(),
        agent: agent(1),
        started_at: at(started),
        ended_at: at(ended),
        duration: None,
        result,
        user: "root".into(),
        uid: 0,
        command: String::new(), // As agents do.
        output_tail: "out".into(),
        output_bytes: 3,
        alike: 0,
        output_dropped: false,
    }
}
