//! ⇄ `tocsin-agent exec --job NAME -- command …`: runs a command as if nobody were in between, and reports how it went.
//!
//! Promises: the command has the same arguments, environment, directory, umask, limits, stdin and open files as without
//! the wrapper; its output goes on byte for byte; the wrapper ends with the same exit status or by the same signal,
//! within `--report-within` (50 ms) after the command, whether or not anybody hears of it. A consumer that does not read
//! delays the wrapper as it would have delayed the command: bytes are never dropped to save time.
//! Known differences: inside systemd (`IgnoreSIGPIPE=yes`) the command sees SIGPIPE's default instead; a terminal is
//! passed on untouched and leaves no output tail.
//! Not here: timeouts, locks against overlap, schedules.

mod copy;
mod memory;
mod outputs;
mod report;
mod run;
mod signals;
mod tail;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tocsin_shared::job::{JobName, RunId};
use tocsin_shared::time::parse_duration;
use uuid::Uuid;

use self::report::{Report, Reporter};

/// Where the agent listens unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/tocsin/jobs.sock";
/// Where records wait for the agent unless told otherwise.
pub const DROP_BOX_DEFAULT: &str = "/var/spool/tocsin/jobs";

/// Arguments of `tocsin-agent exec`.
#[derive(clap::Args, Clone, Debug)]
pub struct ExecArgs {
    /// The job's name, as it appears in schedules, alerts and reports
    #[arg(long, value_name = "NAME", required_unless_present = "relay")]
    pub job: Option<JobName>,

    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    pub socket: PathBuf,

    /// The directory that keeps the outcome when the agent does not answer
    #[arg(long, value_name = "DIRECTORY", default_value = DROP_BOX_DEFAULT)]
    pub drop_box: PathBuf,

    /// Whether to keep the end of the output for the report
    #[arg(long, value_enum, default_value_t)]
    pub capture: Capture,

    /// How long to stay, at most, after the command has ended to report it; on a host that is often too busy for this,
    /// give more: what is not stored by then may be lost, and is said in the system's log
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = parse_duration)]
    pub report_within: Duration,

    /// Copy stdin to stdout: how output goes on that outlives its job
    #[arg(long, hide = true)]
    pub relay: bool,

    /// The command and its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "relay")]
    pub command: Vec<OsString>,
}

/// Which outputs pass through a pipe so that their end can be kept.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// Pipes, sockets and /dev/null; files are read back afterwards, terminals left alone
    #[default]
    Auto,
    /// As auto, and terminals too: the command then sees a pipe instead of the terminal
    Always,
    /// Nothing: the command gets the very same stdout and stderr
    Never,
}

/// Runs the command and ends the way it ended. Call it first thing in `main`: before any thread or runtime.
///
/// Does not return when the command was killed by a signal: this process then dies by it too.
pub fn exec_main(args: ExecArgs) -> ExitCode {
    if args.relay {
        return copy::relay();
    }
    let (Some(job), false) = (args.job, args.command.is_empty()) else {
        eprintln!("tocsin-agent exec: name the job and the command: exec --job NAME -- COMMAND");
        return ExitCode::from(run::COULD_NOT_RUN);
    };
    let run_id = RunId(Uuid::new_v4());
    let destination = report::Destination { socket: args.socket, drop_box: args.drop_box };
    let finished = run::run(&args.command, args.capture, |started| {
        Reporter::start(Report { run_id, job, started, destination })
    });
    finished.reporter.finish(finished.ending, args.report_within);
    finished.outputs.hand_over();
    run::end_like(&finished.outcome)
}
