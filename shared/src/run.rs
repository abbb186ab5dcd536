//! A run: one attempt of a scheduled job, as the collector keeps it.

use std::time::Duration;

use uuid::Uuid;

use crate::identity::{AgentId, Env};
use crate::time::Timestamp;

/// How a run stands or ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RunResult {
    Running,
    Succeeded,
    /// It exited with a code other than 0.
    Failed {
        exit_code: i32,
    },
    /// It died of a signal.
    Killed {
        signal: i32,
        core_dumped: bool,
        /// The kernel killed it for want of memory.
        out_of_memory: bool,
    },
    /// The command could not be started.
    CouldNotStart {
        errno: i32,
        message: String,
    },
    /// It is over, and nobody saw how: its host or its wrapper went away.
    Interrupted {
        reason: String,
    },
}

impl RunResult {
    /// The word people and the API read.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Killed { .. } => "killed",
            Self::CouldNotStart { .. } => "could_not_start",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    /// Whether it ended, and badly.
    pub const fn is_failure(&self) -> bool {
        !matches!(self, Self::Running | Self::Succeeded)
    }
}

/// The signals that end jobs, by name.
const SIGNALS: [(i32, &str); 10] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
];

/// How people call a signal: `SIGKILL`; others as `signal 35`.
pub fn signal_name(signal: i32) -> String {
    let known = SIGNALS.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// One run. Its key is `run_id`; a terminal result never changes.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRun {
    pub run_id: Uuid,
    pub job_name: String,
    pub agent: AgentId,
    pub instance: String,
    pub env: Env,
    pub result: RunResult,
    /// Event time.
    pub started_at: Timestamp,
    /// Event time; none while it runs.
    pub ended_at: Option<Timestamp>,
    /// Measured on CLOCK_BOOTTIME by the wrapper.
    pub duration: Option<Duration>,
    /// The user it ran as, as the kernel told the agent.
    pub user: String,
    pub uid: u32,
    /// Redacted, at most 4 KiB.
    pub command: String,
    /// The end of its output, redacted, at most 64 KiB; read by responders only.
    pub output_tail: String,
    /// How much it wrote in all.
    pub output_bytes: u64,
    /// Further runs with the same result that are counted here and not told one by one.
    pub alike: u64,
    /// The agent gave the output up for want of room.
    pub output_dropped: bool,
}
