//! How a process is ended: at a moment, or at the N-th call of a kind that one of its threads makes.
//!
//! The second needs strace, which kills between the call's entry and its effect. Counts are of each thread.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::process::Process;

/// The calls by which anything on a disk changes.
const CALLS: [&str; 8] =
    ["fdatasync", "fsync", "pwrite64", "write", "rename", "unlink", "openat", "ftruncate"];
/// The longest wait, after the start, for a call that does not come.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(2);

/// One end of a process.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// SIGKILL, this long after the process was made: as a rule while it starts.
    Early(Duration),
    /// SIGKILL, this long after it was ready.
    Late(Duration),
    /// SIGKILL at the N-th of these calls.
    At { call: &'static str, nth: u64 },
    /// SIGTERM, this long after it was ready.
    Stop(Duration),
}

impl Blow {
    /// At random: within `longest` of the start or of its end, or at a call if it can be traced. One in ten is a clean
    /// stop, whose checkpoint keeps the next starts short.
    pub fn draw(dice: &mut Dice, traced: bool, longest: Duration) -> Self {
        let moment = Duration::from_millis(dice.below(longest.as_millis() as u64 + 1));
        if dice.once_in(10) {
            return Self::Stop(moment);
        }
        if !traced || dice.once_in(2) {
            return if dice.once_in(3) { Self::Early(moment) } else { Self::Late(moment) };
        }
        // Threads that write little are reached by small numbers, busy ones late by large ones.
        let most = *dice.one_of(&[3, 10, 40]);
        Self::At { call: dice.one_of::<&str>(&CALLS), nth: 1 + dice.below(most) }
    }

    /// How long after its beginning a start is not waited for any more.
    pub fn during_start(&self) -> Option<Duration> {
        match self {
            Self::Early(moment) => Some(*moment),
            Self::Late(_) | Self::At { .. } | Self::Stop(_) => None,
        }
    }

    /// Waits until it is time to kill, or the process has ended by the call; `begun` is when it was made.
    pub async fn falls(&self, begun: Instant, process: &mut Process) -> anyhow::Result<()> {
        let until = match self {
            Self::Early(moment) => begun + *moment,
            Self::Late(moment) => Instant::now() + *moment,
            Self::At { .. } => Instant::now() + PATIENCE,
            Self::Stop(_) => begun,
        };
        while Instant::now() < until && process.ended()?.is_none() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The tracer's part of the command line.
    pub fn under(&self) -> Vec<String> {
        match self {
            Self::At { call, nth } => strace(call, &format!("signal=SIGKILL:when={nth}")),
            Self::Early(_) | Self::Late(_) | Self::Stop(_) => Vec::new(),
        }
    }
}

/// The tracer's part of a command line under which every call of a kind waits so long before it is made.
pub fn slow(call: &str, wait: Duration) -> Vec<String> {
    strace(call, &format!("delay_enter={}", wait.as_micros()))
}

fn strace(call: &str, what: &str) -> Vec<String> {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}"));
    let quietly = ["strace", "-D", "-f", "-qqq", "--seccomp-bpf", "-o", "/dev/null"];
    [&quietly[..], &["-e", &trace, "-e", &inject]].concat().into_iter().map(str::to_owned).collect()
}

/// Whether processes can be traced here; says so if not.
pub fn can_trace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qqq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync", "true"]);
    let works =
        strace.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !works {
        println!(
            "skipped: kills at system calls, because strace is missing or may not trace; random moments remain"
        );
    }
    works
}
