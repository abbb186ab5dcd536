//! ⇄ Starts the command, waits for it, and ends as it ended.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Instant, SystemTime};

use nix::sys::resource::{Resource, setrlimit};
use nix::time::{ClockId, clock_gettime};
use tocsin_shared::job::{Message, Outcome};
use tocsin_shared::time::Timestamp;

use super::Capture;
use super::memory::MemoryKills;
use super::outputs::{Captured, DRAIN_BEFORE_REPORT, Outputs};
use super::report::Reporter;
use super::signals::Signals;

/// A shell's exit status for a command that is there but does not run.
pub(crate) const COULD_NOT_RUN: u8 = 126;
/// A shell's exit status for a command that is not there.
const NOT_FOUND: u8 = 127;

/// An instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub wall: Timestamp,
    pub boot_ms: u64,
}

impl Moment {
    fn now() -> Self {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let wall = Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
        Self { wall, boot_ms: u64::try_from(boot.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// A command that was started, or was to be.
#[derive(Debug)]
pub(crate) struct Started {
    pub command: Vec<OsString>,
    /// None when it could not be started.
    pub pid: Option<u32>,
    pub at: Moment,
}

/// The end, as the report needs it.
#[derive(Debug)]
pub(crate) struct Ending {
    pub at: Moment,
    /// The same instant, for deadlines.
    pub since: Instant,
    pub outcome: Outcome,
    pub captured: Captured,
}

/// A run that is over but for its report.
#[derive(Debug)]
pub(crate) struct Finished {
    pub outcome: Outcome,
    pub ending: Ending,
    pub reporter: Reporter,
    pub outputs: Outputs,
}

/// Runs the command to its end. `announce` is called once it is known whether it runs.
pub(crate) fn run(
    argv: &[OsString],
    capture: Capture,
    announce: impl FnOnce(Started) -> Reporter,
) -> Finished {
    let signals = Signals::take();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    let mut outputs = Outputs::attach(capture, &mut command);
    let kills = MemoryKills::so_far();
    let at = Moment::now();
    let spawned = match &signals {
        Some(signals) => signals.start(&mut command),
        None => command.spawn(),
    };
    drop(command); // It holds the pipes' writing ends; the copiers wait for the last one to close.
    let pid = spawned.as_ref().ok().map(Child::id);
    let reporter = announce(Started { command: argv.to_vec(), pid, at });
    let outcome = match spawned {
        Ok(mut child) => outcome(wait(&mut child, signals.as_ref()), || kills.since()),
        Err(error) => could_not_start(&argv[0], &error),
    };
    let (at, since) = (Moment::now(), Instant::now());
    if let Some(signals) = signals {
        signals.give_back();
    }
    outputs.wait(Some(since + DRAIN_BEFORE_REPORT));
    let captured = outputs.captured();
    Finished { outcome: outcome.clone(), ending: Ending { at, since, outcome, captured }, reporter, outputs }
}

fn wait(child: &mut Child, signals: Option<&Signals>) -> io::Result<ExitStatus> {
    let Some(signals) = signals else { return child.wait() };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        signals.pass_one(child);
    }
}

/// `for_memory` says whether the kernel killed for want of memory meanwhile.
fn outcome(status: io::Result<ExitStatus>, for_memory: impl FnOnce() -> bool) -> Outcome {
    let status = match status {
        Ok(status) => status,
        Err(error) => return unknown_end(&error),
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => {
            let (signal, core) = (signal.unwrap_or_default(), status.core_dumped());
            let out_of_memory = signal == nix::sys::signal::Signal::SIGKILL as i32 && for_memory();
            Outcome::Signalled { signal, core, out_of_memory }
        }
    }
}

/// The kernel did not tell how a child of ours ended. It cannot, by its documentation; but it was a failure.
fn unknown_end(error: &io::Error) -> Outcome {
    super::report::tell_journal(&format!("cannot tell how the job ended: {error}"));
    Outcome::Exited(u8::MAX)
}

fn could_not_start(program: &OsString, error: &io::Error) -> Outcome {
    let program = program.to_string_lossy();
    let program = tocsin_shared::sanitize::for_terminal(&program);
    let said = error.to_string();
    let reason = said.split_once(" (os error").map_or(said.as_str(), |(reason, _)| reason);
    eprintln!("tocsin-agent exec: {program}: {reason}");
    // The program alone: together, `/etc/passwd: Permission …` looks like a secret.
    let message = Message::keep_start(&format!("{}: {reason}", tocsin_shared::redact::redact(&program)));
    Outcome::CouldNotStart { errno: error.raw_os_error().unwrap_or_default(), message }
}

/// Ends this process the way the job ended; does not return for a signal.
pub(crate) fn end_like(outcome: &Outcome) -> ExitCode {
    match *outcome {
        Outcome::Exited(status) => ExitCode::from(status),
        Outcome::CouldNotStart { errno, .. } if errno == nix::errno::Errno::ENOENT as i32 => NOT_FOUND.into(),
        Outcome::CouldNotStart { .. } => COULD_NOT_RUN.into(),
        Outcome::Signalled { signal, .. } => die_by(signal),
        Outcome::Interrupted { .. } => ExitCode::FAILURE, // Of a run that somebody else lost.
    }
}

fn die_by(signal: i32) -> ExitCode {
    // The job's core is the one to look at; a second one, of the wrapper, would hide it.
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0).and(nix::sys::prctl::set_dumpable(false)) {
        super::report::tell_journal(&format!("cannot switch off the wrapper's own core dump: {error}"));
    }
    // The first process of a container cannot be killed by its own signals.
    if nix::unistd::getpid().as_raw() != 1 {
        // A real-time signal has no entry in the library's table; its default is to kill as well.
        let died = signal_hook::low_level::emulate_default_handler(signal)
            .or_else(|_| signal_hook::low_level::raise(signal));
        if let Err(error) = died {
            super::report::tell_journal(&format!("cannot end by signal {signal}: {error}"));
        }
    }
    ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0))) // As shells say it.
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cases: P3
    #[test]
    fn wait_statuses_become_outcomes() {
        let killed = |signal, core, out_of_memory| Outcome::Signalled { signal, core, out_of_memory };
        for (raw, for_memory, expected) in [
            (0, true, Outcome::Exited(0)),
            (1 << 8, false, Outcome::Exited(1)),
            (255 << 8, false, Outcome::Exited(255)),
            (15, true, killed(15, false, false)),
            (11 | 0x80, false, killed(11, true, false)),
            (9, false, killed(9, false, false)),
            (9, true, killed(9, false, true)),
        ] {
            assert_eq!(outcome(Ok(ExitStatus::from_raw(raw)), || for_memory), expected, "{raw}");
        }
    }
}
