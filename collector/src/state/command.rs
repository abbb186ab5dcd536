//! What can be asked of the state, what comes out, and why it may be refused.

use std::collections::BTreeSet;
use std::time::Duration;

use tocsin_shared::access::Role;
use tocsin_shared::event::{Actor, Event, EventKind, Sealed, Subject};
use tocsin_shared::identity::{AgentId, Env};
use tocsin_shared::labels::Labels;
use tocsin_shared::severity::Severity;
use tocsin_shared::time::Timestamp;

use crate::alert::{Evaluation, Filled};
use crate::jobs::{GapRecord, Place, RunEnd, RunStart};
use crate::state::losses::Findings;

/// One thing to decide. A retry of a command whose events are applied yields no drafts, unless it says otherwise.
#[derive(Clone, Debug)]
pub enum Command {
    /// A rule was evaluated over one host's row, or across hosts.
    Evaluated(Evaluation),
    /// No row came between two of a host, or of any host (`None`): that time counts for no `for`.
    RowsMissing {
        agent: Option<AgentId>,
        from: Timestamp,
        to: Timestamp,
        samples_seq: u64,
    },
    /// A row came while older ones are still in the host's spool; `from` is the last row before them.
    HoleOpened {
        agent: AgentId,
        from: Timestamp,
        samples_seq: u64,
    },
    /// The older rows came, or never will.
    HoleClosed(Filled),
    /// The rules were loaded anew; these are all of them.
    RulesChanged {
        rule_ids: BTreeSet<String>,
    },
    /// Timers: let happen what is due at `now`. At most `TIMERS_PER_TICK` incidents at once; ask `next_due` again.
    Tick,
    Acknowledge(OnIncident),
    /// Gives an incident back: nobody has it.
    Unacknowledge(OnIncident),
    Resolve {
        on: OnIncident,
        code: String,
    },
    /// A remark; resolved incidents take them too. Each call is a new note.
    Note(OnIncident),
    JobStarted {
        run: RunStart,
        place: Place,
    },
    JobEnded {
        run: RunEnd,
        place: Place,
    },
    GapRecorded {
        gap: GapRecord,
        place: Place,
    },
    /// Something happened to the host itself: `boot`, `agent_start`, `clock_step`.
    HostEventNoted {
        agent: AgentId,
        what: String,
        at: Timestamp,
        step_ms: i64,
        place: Place,
    },
    Enrol(Enrolment),
    /// `shown` is the serial of the certificate that asked, where one did.
    RenewCertificate {
        agent: AgentId,
        shown: Option<String>,
        certificate: NewCertificate,
    },
    /// A certificate for an agent that proved to hold a key; the shell has checked the proof.
    Recover {
        agent: AgentId,
        /// SHA-256 of the public key that was proved.
        proof_sha256: [u8; 32],
        certificate: NewCertificate,
    },
    AllowRecovery {
        agent: AgentId,
    },
    /// Two hosts were seen with one identity; `seen` names both.
    IdentityCloned {
        agent: AgentId,
        seen: String,
    },
    RevokeCertificates {
        agent: AgentId,
        reason: String,
    },
    /// A certificate of the collector's own was looked at.
    CertificateSeen {
        which: String,
        from: Timestamp,
        to: Timestamp,
    },
    /// The authority of a collector that has no record of any.
    AuthorityFound(NewAuthority),
    /// A new authority is trusted beside the issuing one.
    BeginRotation(NewAuthority),
    /// It signs; `strand` is how many hosts the operator leaves behind, `overlap` how long both were to be trusted.
    SwitchRotation {
        strand: Option<u32>,
        overlap: Duration,
    },
    /// The old one is trusted no more.
    FinishRotation {
        strand: Option<u32>,
    },
    /// The new one is taken back before it signs.
    CancelRotation,
    /// An agent has these authorities on its disk: `tls::bundle_sha256`.
    BundleReported {
        agent: AgentId,
        sha256: [u8; 32],
    },
    LabelHost {
        agent: AgentId,
        labels: Labels,
    },
    RetireHost {
        agent: AgentId,
        reason: String,
    },
    /// The agent said Hello, or is heard again.
    HostHeard(Heard),
    /// Heartbeats were missed; `since` is when it was heard last.
    HostSilent {
        agent: AgentId,
        since: Timestamp,
    },
    /// So many series of the agent's table are over its quota of new ones; most differ in this label of this metric.
    SeriesRefused {
        agent: AgentId,
        series: usize,
        label: String,
        metric: String,
    },
    /// All series of the agent's table are taken.
    SeriesTaken {
        agent: AgentId,
    },
    /// The mapping from boot time to event time jumped to this offset.
    ClockStepped {
        agent: AgentId,
        clock_offset_ms: i64,
    },
    /// The host's wall clock is off by so many milliseconds, or right again.
    ClockSkewed {
        agent: AgentId,
        off_by_ms: Option<i64>,
    },
    CreateToken(NewToken),
    CreatePrincipal {
        name: String,
        role: Role,
        secret_sha256: [u8; 32],
        expires_at: Option<Timestamp>,
    },
    RevokePrincipal {
        name: String,
    },
    /// A consumer that begins after `at_seq`.
    CreateConsumer {
        name: String,
        owner: String,
        at_seq: u64,
    },
    /// A consumer is read with this filter from now on; its checksum.
    ConsumerFilter {
        consumer: String,
        filter: u32,
    },
    AckFeed {
        consumer: String,
        seq: u64,
    },
    Sealed(Sealed),
    /// What a start has found missing in the events journal.
    JournalFound(Findings),
    /// Goes on without these lost events, the last one included.
    AcceptLoss {
        first: u64,
        last: u64,
    },
    /// The data is an older copy that an operator has put back.
    StoreRestored,
    /// How something of the collector's own stands: what the trouble is, or well.
    CollectorStands {
        matter: Matter,
        /// The collector's host.
        instance: String,
        trouble: Option<String>,
    },
}

/// What of the collector's own somebody has to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matter {
    /// It has no room for rows.
    Disk,
    /// Its memory is nearly used up.
    Memory,
    /// Rules are evaluated late.
    Evaluation,
    /// The store was set aside and is built again.
    Store,
    /// This consumer of the feed is far behind.
    Consumer(String),
    /// This source writes more series than it may.
    Source(String),
}

/// A person's or a tool's act on an incident.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnIncident {
    pub number: u64,
    /// The words: a note, or what was done.
    pub text: String,
    /// The `rev` the caller saw; the command is refused when the incident has changed since.
    pub expected_rev: Option<u64>,
}

/// A host that wants in. The shell draws the ids; they are used only if the token is.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// SHA-256 of the token's secret.
    pub token_sha256: [u8; 32],
    /// The host's name, as it says.
    pub instance: String,
    pub agent: AgentId,
    pub agent_version: String,
    pub facts: Labels,
    pub certificate: NewCertificate,
}

/// A certificate about to be issued.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    pub serial: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub key_sha256: [u8; 32],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The number of the authority that signed it.
    pub authority: u32,
}

/// A certificate authority about to be trusted.
#[derive(Clone, Debug)]
pub struct NewAuthority {
    /// PEM.
    pub certificate_pem: String,
    /// SHA-256 of the certificate (DER).
    pub sha256: [u8; 32],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// A join token about to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub id: String,
    pub secret_sha256: [u8; 32],
    pub env: Env,
    pub labels: Labels,
    pub host_pattern: String,
    pub expires_at: Timestamp,
}

/// What an agent's Hello says.
#[derive(Clone, Debug)]
pub struct Heard {
    pub agent: AgentId,
    pub boot_id: String,
    pub agent_version: String,
    pub facts: Labels,
    pub clock_offset_ms: Option<i64>,
    /// Which authorities it trusts; older agents do not say.
    pub bundle_sha256: Option<[u8; 32]>,
}

/// An event before the journal gives it its place: all of `Event` but `seq`; `recorded_at` is the `now` of `decide`.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub kind: EventKind,
    pub actor: Actor,
    pub occurred_at: Timestamp,
    pub cause: Option<DraftCause>,
    pub samples_seq: Option<u64>,
    pub note: String,
    pub subject: Subject,
}

/// What caused a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraftCause {
    /// An earlier draft of the same batch, by its index.
    Draft(usize),
    /// An event of the journal.
    Seq(u64),
}

impl Draft {
    /// The event at `first_seq` + `index`, for the draft at `index` of a batch that begins at `first_seq`.
    pub fn into_event(self, first_seq: u64, index: usize, recorded_at: Timestamp) -> Event {
        let Self { kind, actor, occurred_at, cause, samples_seq, note, subject } = self;
        let cause = cause.map(|cause| match cause {
            DraftCause::Draft(earlier) => first_seq + earlier as u64,
            DraftCause::Seq(seq) => seq,
        });
        let seq = first_seq + index as u64;
        Event { seq, kind, actor, occurred_at, recorded_at, cause, samples_seq, note, subject }
    }
}

/// Why a command was not accepted. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such {what}: {key}")]
    NotFound { what: &'static str, key: String },
    #[error("the incident has changed since (revision {current}): look again, then repeat")]
    Conflict { current: u64 },
    #[error("{what}")]
    Invalid { what: String },
    #[error("{why}")]
    Denied { why: String },
    #[error(
        "this waits, because events {first} to {last} of the journal are lost and what they said is not known: put their file back from a backup and start again, or go on without them with `tocsin journal accept-loss --from {first} --to {last}`"
    )]
    Degraded { first: u64, last: u64 },
    #[error("{what}")]
    Precondition { what: String },
    #[error(
        "SEQ_CONFLICT: another record was taken as number {seq} of the lane {lane}: the spool was set back or copied and has to begin a new epoch"
    )]
    SeqConflict { lane: &'static str, seq: u64 },
    #[error("{what} exists already: choose another name")]
    AlreadyExists { what: String },
    #[error("no more than {max} {what}")]
    Exhausted { what: String, max: usize },
    #[error(
        "the collector's disk is full and its reserve is used up: free some room there, nothing was changed"
    )]
    NoRoom,
}

impl Refusal {
    pub(crate) fn not_found(what: &'static str, key: impl ToString) -> Self {
        Self::NotFound { what, key: key.to_string() }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn precondition(what: impl Into<String>) -> Self {
        Self::Precondition { what: what.into() }
    }

    pub(crate) fn denied(why: impl Into<String>) -> Self {
        Self::Denied { why: why.into() }
    }
}

/// The settings of decisions. `Default` gives the documented ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// A resolved incident opens again when its key fires within this time.
    pub reopen_window: Duration,
    /// How long after its last alert an incident resolves by itself.
    pub auto_resolve_after: Duration,
    /// How long an acknowledgement lasts: P1, P2, and all others.
    pub ack_lasts: [Duration; 3],
    /// The environment of alerts across hosts that carry no label `env`: production, so that none is overlooked.
    pub env_without_label: Env,
    /// Alerts of this severity and worse open incidents, unless their rule says otherwise.
    pub incident_from: Severity,
}

impl Default for Defaults {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            reopen_window: minutes(30),
            auto_resolve_after: minutes(1),
            ack_lasts: [minutes(30), minutes(120), minutes(480)],
            env_without_label: Env::Prod,
            incident_from: Severity::Warning,
        }
    }
}
