//! Events: every change of state, with its actor, cause and time. The events journal is a list of them.
//!
//! An event carries the whole record after the change, so that folding is putting: `apply` cannot fail, a
//! consumer needs no other source, and a checkpoint is a list of records. Public events are the feed; internal
//! ones (pending alerts, cursors, credentials, sealing) are never selected by any filter of it.

use crate::access::{Certificate, CertificateAuthority, Consumer, JoinToken, Principal};
use crate::alert::Alert;
use crate::host::Host;
use crate::identity::{AgentId, Epoch};
use crate::incident::Incident;
use crate::lane::Lane;
use crate::ranges::Ranges;
use crate::run::JobRun;
use crate::time::Timestamp;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The collector itself.
    System,
    Agent(AgentId),
    /// A named principal.
    Principal(String),
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Agent(agent) => write!(f, "agent:{agent}"),
            Self::Principal(name) => f.write_str(name),
        }
    }
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $public:literal;)*) => {
        /// What happened. The names are the feed's; they never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $variant,)* }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire and on the feed.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the feed shows it.
            pub const fn is_public(self) -> bool {
                match self { $(Self::$variant => $public,)* }
            }
        }
    };
}

event_kinds! {
    AlertPending = "alert.pending", false;
    AlertTriggered = "alert.triggered", true;
    /// Severity, annotations or recovery changed while it fires.
    AlertUpdated = "alert.updated", false;
    AlertResolved = "alert.resolved", true;
    /// A pending alert ended before it fired.
    AlertInactive = "alert.inactive", false;
    /// It fired and was resolved within rows that came late: for the record, nobody is paged.
    AlertLate = "alert.late", true;
    IncidentTriggered = "incident.triggered", true;
    /// Its alerts, severity or timers changed.
    IncidentUpdated = "incident.updated", false;
    /// It got worse: a higher severity. An acknowledgement does not hide it.
    IncidentPriorityChanged = "incident.priority_changed", true;
    IncidentAcknowledged = "incident.acknowledged", true;
    /// The acknowledgement expired or was outdone by a worsening.
    IncidentUnacknowledged = "incident.unacknowledged", true;
    IncidentNoted = "incident.noted", true;
    IncidentResolved = "incident.resolved", true;
    IncidentReopened = "incident.reopened", true;
    JobStarted = "job.started", true;
    JobSucceeded = "job.succeeded", true;
    JobFailed = "job.failed", true;
    HostEnrolled = "host.enrolled", true;
    HostOnline = "host.online", true;
    HostUnreachable = "host.unreachable", true;
    HostLabelled = "host.labelled", true;
    HostRetired = "host.retired", true;
    /// The mapping from boot time to event time jumped.
    HostClockStep = "host.clock_step", true;
    /// It proved its key after its certificate had run out, and got a new one.
    HostRecovered = "host.recovered", true;
    /// An operator lets it recover once, and ends its quarantine if its identity was cloned.
    HostRecoveryAllowed = "host.recovery_allowed", true;
    /// Facts, version or clock offset changed.
    HostUpdated = "host.updated", false;
    /// A row came while older ones are still in the host's spool: the state of its alerts before them is kept.
    HoleOpened = "hole.opened", false;
    /// The older rows came, or never will, and the rules have run over them.
    HoleClosed = "hole.closed", false;
    TokenCreated = "token.created", false;
    TokenUsed = "token.used", false;
    CertificateIssued = "certificate.issued", false;
    CertificateRevoked = "certificate.revoked", false;
    /// The first authority of a collector, or one that is to take the place of the issuing one.
    AuthorityAdded = "authority.added", false;
    /// It signs from now on.
    AuthorityIssuing = "authority.issuing", false;
    /// It signs no more; what it signed is trusted still.
    AuthorityOutgoing = "authority.outgoing", false;
    /// Nothing that it signed is taken any more.
    AuthorityRetired = "authority.retired", false;
    PrincipalCreated = "principal.created", false;
    PrincipalRevoked = "principal.revoked", false;
    ConsumerMoved = "consumer.moved", false;
    /// Outcomes or state records of a lane were taken; the floor moved.
    LaneMoved = "lane.moved", false;
    /// Samples were sealed into blocks; what a start needs to go on without their journal.
    SamplesSealed = "samples.sealed", false;
    /// Events of the journal cannot be read any more; the record says whether what they came to is known all the same.
    EventsLost = "journal.events_lost", true;
    /// An operator goes on without events that are lost.
    LossAccepted = "journal.loss_accepted", true;
    /// Events that were lost can be read again.
    EventsRestored = "journal.events_restored", true;
    /// A crash tore off what nobody had been told of: numbers that no event has.
    JournalTorn = "journal.torn", false;
    /// All that waited for a decision about lost events is done.
    LossSettled = "journal.loss_settled", false;
    /// An operator has put back an older copy of the data: what was said after it is gone.
    StoreRestored = "journal.restored", true;
}

impl std::str::FromStr for EventKind {
    type Err = UnknownEventKind;
    fn from_str(text: &str) -> Result<Self, UnknownEventKind> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownEventKind(text.into()))
    }
}

/// A kind that this version does not know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown event kind {0:?}: it was written by a newer version")]
pub struct UnknownEventKind(String);

/// How far a lane of an agent's spool has been taken: the dedup state. Its key is (agent, epoch, lane).
#[derive(Clone, Debug, PartialEq)]
pub struct LaneProgress {
    pub agent: AgentId,
    pub epoch: Epoch,
    pub lane: Lane,
    pub taken: Ranges,
    /// Checksums of records by their seq: in an event, of the one that was taken; in a checkpoint, of the newest.
    pub contents: Vec<(u64, u32)>,
}

/// Rows that are still in a host's spool while newer ones are here, and its alerts as they were before. Its key is
/// `agent`: a host has one, which grows until nothing is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Hole {
    pub agent: AgentId,
    /// Event time of the last row before it.
    pub from: Timestamp,
    /// The alerts of the host's rules at `from`: those that were active, and the last of those that had ended.
    pub alerts: Vec<Alert>,
    /// Nothing is missing any more; then `alerts` is empty.
    pub closed: bool,
}

/// A block file that holds sealed samples. Its key is `file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub file: String,
    pub from: Timestamp,
    pub to: Timestamp,
    pub bytes: u64,
    pub series: u64,
    pub samples: u64,
}

/// What sealing settles: written before a segment of the samples journal is dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sealed {
    /// The samples journal is needed from here on only.
    pub samples_from: u64,
    /// Rows up to this position in the samples journal and before `sealed_to` are in blocks.
    pub sealed_seq: u64,
    pub sealed_to: Timestamp,
    /// Rows up to this samples lsn have been evaluated.
    pub evaluated_through: u64,
    /// The dedup state of every samples lane.
    pub lanes: Vec<LaneProgress>,
    /// The whole manifest.
    pub blocks: Vec<Block>,
}

/// What became of events that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossState {
    /// A crash tore them off before anyone was told of them.
    Torn,
    /// A checkpoint holds what they came to.
    Covered,
    /// What they said is not known: incidents wait for an operator's decision.
    Open,
    /// An operator goes on without them; incidents are not settled with the alerts yet.
    Accepted,
    /// They can be read again; incidents are not settled with the alerts yet.
    Restored,
    /// Accepted or restored, and done with.
    Settled,
    /// From `first` on numbers were used before, by events of data that an older copy has replaced.
    Rewound,
}

/// Events of the journal that cannot be read. Its key is `first`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub first: u64,
    /// Included.
    pub last: u64,
    pub state: LossState,
    /// No new incident has a lower number: the lost events may have used those before it. 0 for none.
    pub incidents_from: u64,
}

/// The record that changed, as it is after the change.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    Alert(Alert),
    Incident(Incident),
    Run(JobRun),
    Host(Host),
    Token(JoinToken),
    Certificate(Certificate),
    Principal(Principal),
    Consumer(Consumer),
    Lane(LaneProgress),
    Sealed(Sealed),
    Hole(Hole),
    Authority(CertificateAuthority),
    Loss(Loss),
}

/// One line of the events journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The position in the journal: increasing, dense in the journal, not dense on the feed.
    pub seq: u64,
    pub kind: EventKind,
    pub actor: Actor,
    /// When it was true (event time).
    pub occurred_at: Timestamp,
    /// When the collector wrote it (its wall clock).
    pub recorded_at: Timestamp,
    /// The `seq` of the event that caused this one.
    pub cause: Option<u64>,
    /// The row that this was decided from: its position in the samples journal.
    pub samples_seq: Option<u64>,
    /// A person's words: a note, a reason.
    pub note: String,
    pub subject: Subject,
}
