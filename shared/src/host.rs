//! A host as the collector knows it: who it is, what it serves, whether it is heard.

use crate::identity::{AgentId, Env};
use crate::labels::Labels;
use crate::time::Timestamp;

/// Whether a host is heard. `Unreachable` says that no data comes, never that anything is well or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostState {
    /// Enrolled, never heard since.
    Pending,
    /// Its agent has a stream and sends heartbeats.
    Online,
    /// Heartbeats were missed; its alerts and jobs keep the state they had.
    Unreachable,
    /// Taken out of service by an operator; its certificates are revoked.
    Retired,
}

impl HostState {
    /// The word people and the API read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Online => "online",
            Self::Unreachable => "unreachable",
            Self::Retired => "retired",
        }
    }
}

/// A host. Its key is the agent's id; `instance` is unique among hosts that are not retired.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub agent: AgentId,
    /// The host name at enrolment: the value of the label `instance`.
    pub instance: String,
    pub env: Env,
    /// The operator's labels, from the token or `tocsin host label`; never `instance`, `job` or `env`.
    pub labels: Labels,
    pub state: HostState,
    pub enrolled_at: Timestamp,
    /// When the state last changed.
    pub state_since: Timestamp,
    /// When its agent was last heard, as of the last change of state; the live value is the API's.
    pub last_seen: Option<Timestamp>,
    pub agent_version: String,
    /// The kernel's boot id of the last Hello.
    pub boot_id: String,
    /// Event time = CLOCK_BOOTTIME + this, in milliseconds, for `boot_id`.
    pub clock_offset_ms: Option<i64>,
    /// Facts of the host (os, kernel, cpu, memory …), as the agent took them at its start.
    pub facts: Labels,
    /// When it last came back with a certificate that had run out, by proof of its key.
    pub recovered_at: Option<Timestamp>,
    /// Until when an operator lets it come back once more, also with an older key.
    pub recovery_until: Option<Timestamp>,
    /// The authorities that its agent trusts, as it reported once they were durable there: see `tls::bundle_sha256`.
    pub bundle_sha256: Option<[u8; 32]>,
}

impl Host {
    /// The labels that the collector puts on every series and alert of this host.
    pub fn target_labels(&self) -> Labels {
        self.labels.with([("instance", self.instance.as_str()), ("job", "node"), ("env", self.env.as_str())])
    }
}
